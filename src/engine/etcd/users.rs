//! Users of the database, one for each binding.
//!
//! Each user has a role of its own and of its own name, with one permission: to read, or to read
//! and write, every key or those with a prefix. Which versions hold users to it, `lines.rs` tells.
//!
//! Below 3.6 nobody is held to anything while the database is full: see [`restore`].
//!
//! A user that is removed can do nothing new at once, but a watch that it has open goes on until its
//! connection ends: etcd asks who watches only when the watch begins.
//!
//! Changes wait for their turn before they are tried, so that many at once only take longer.

use etcd_client::{Client, Permission, PermissionType};

use tokio::sync::{Semaphore, SemaphorePermit};

use crate::{
    engine::{DatabaseUser, EngineError},
    model::{
        binding::{Rights, Role},
        deployment::Deployment,
        limits::{STRANGER_NAME_CHARS_MAX, STRANGERS_TOLD_MAX},
        version::Version,
    },
};

use super::{
    certificates::{MEMBER, ROOT},
    client::{Dialer, Fault, says, says_so, unless_it_says},
    security::administrate,
};

/// Changes of users that one deployment is asked for at once. etcd 3.3 spends a tenth of a second
/// and more on each, on every member, and gives up on those that wait behind for long.
const USER_CHANGES_AT_ONCE: usize = 2;

/// The gates at which changes of users wait, each for one sixteenth of all deployments.
static GATES: [Semaphore; 16] = [const { Semaphore::const_new(USER_CHANGES_AT_ONCE) }; 16];

/// Waits until the deployment may be asked for one more change; it ends when the permit is dropped.
async fn turn(deployment: &Deployment) -> SemaphorePermit<'static> {
    let last_digit = deployment.id.as_str().chars().last();
    let gate = last_digit.and_then(|digit| digit.to_digit(16)).unwrap_or(0);
    GATES[gate as usize]
        .acquire()
        .await
        .expect("no gate is ever closed")
}

/// Makes a user with its rights, or gives the one that is there its password.
pub(super) async fn add(dialer: &Dialer<'_>, user: &DatabaseUser) -> Result<(), EngineError> {
    check_name(&user.name)?;
    // etcd itself would take it, and let everybody in.
    if user.password.expose().is_empty() {
        let text = format!("user {} must have a password", user.name);
        return Err(EngineError::Unexpected(text));
    }
    let _turn = turn(dialer.deployment).await;
    dialer
        .trying_as_root("adding a database user", |client| add_once(client, user))
        .await
}

/// Removes a user and its role.
pub(super) async fn remove(dialer: &Dialer<'_>, name: &str) -> Result<(), EngineError> {
    check_name(name)?;
    let _turn = turn(dialer.deployment).await;
    dialer
        .trying_as_root("removing a database user", |client| {
            remove_once(client, name)
        })
        .await
}

/// The administrator is not for bindings, and a user named like the members' certificate would be
/// one that this certificate logs in.
fn check_name(name: &str) -> Result<(), EngineError> {
    if ["", ROOT, MEMBER].contains(&name) {
        let text = format!("{name:?} is no name for a database user");
        return Err(EngineError::Unexpected(text));
    }
    Ok(())
}

/// The role comes first, so that a user never stands there without its rights.
async fn add_once(mut client: Client, user: &DatabaseUser) -> Result<(), Fault> {
    let (name, password) = (user.name.as_str(), user.password.expose());
    unless_it_says(client.role_add(name).await, says::ROLE_EXISTS)?;
    client
        .role_grant_permission(name, permission(&user.rights))
        .await?;
    match client
        .user_add(name, password, None)
        .await
        .map_err(Fault::from)
    {
        Err(fault) if fault.says(says::USER_EXISTS) => {
            client.user_change_password(name, password).await?;
        }
        other => {
            other?;
        }
    }
    client.user_grant_role(name, name).await?;
    Ok(())
}

fn permission(rights: &Rights) -> Permission {
    let kind = match rights.role {
        Role::Reader => PermissionType::Read,
        Role::Writer => PermissionType::Readwrite,
    };
    let permission = Permission::new(kind, rights.prefix.as_str());
    if rights.prefix.is_empty() {
        permission.with_all_keys()
    } else {
        permission.with_prefix()
    }
}

async fn remove_once(mut client: Client, name: &str) -> Result<(), Fault> {
    unless_it_says(client.user_delete(name).await, says::NO_USER)?;
    unless_it_says(client.role_delete(name).await, says::NO_ROLE)
}

/// Puts right who may enter: the administrator, `users` with their passwords and rights, and nobody
/// else but `others`. Returns what was not so.
///
/// Meant for [`Access::Certificates`](crate::model::deployment::Access::Certificates), where nobody
/// can undo it meanwhile and the administrator's password need not be known.
pub(super) async fn restore(
    dialer: &Dialer<'_>,
    users: &[DatabaseUser],
    others: &[String],
) -> Result<Vec<String>, EngineError> {
    let _turn = turn(dialer.deployment).await;
    let mut found = restore_administrator(dialer).await?;
    let strangers = dialer.trying_as_root("removing foreign users", |client| {
        remove_strangers(client, users, others)
    });
    found.extend(strangers.await?);
    for user in users {
        let restored = dialer.trying_as_root("restoring a database user", |client| {
            restore_one(dialer, client, user)
        });
        found.extend(restored.await?);
    }
    Ok(found)
}

/// The administrator has its password and its rights, and logins are asked for.
async fn restore_administrator(dialer: &Dialer<'_>) -> Result<Vec<String>, EngineError> {
    let login = dialer.trying("logging in as the administrator", |mut client| async move {
        match dialer.log_in(&mut client).await {
            Err(fault) if fault.says(says::AUTH_IS_OFF) => Ok(Some("Logins were switched off.")),
            Err(fault) if fault.says(says::WRONG_PASSWORD) => {
                Ok(Some("The administrator's password was changed."))
            }
            other => other.map(|()| None),
        }
    });
    let Some(found) = login.await? else {
        return Ok(Vec::new());
    };
    dialer
        .trying_as_root("restoring the administrator", |mut client| async move {
            administrate(dialer, &mut client).await
        })
        .await?;
    Ok(vec![found.to_owned()])
}

async fn remove_strangers(
    mut client: Client,
    users: &[DatabaseUser],
    others: &[String],
) -> Result<Vec<String>, Fault> {
    let is_known = |name: &String| {
        name == ROOT || users.iter().any(|user| user.name == *name) || others.contains(name)
    };
    let (mut users_gone, mut roles_gone) = (Vec::new(), Vec::new());
    for user in client.user_list().await?.users() {
        if !is_known(user) {
            unless_it_says(client.user_delete(user).await, says::NO_USER)?;
            users_gone.push(user.clone());
        }
    }
    for role in client.role_list().await?.roles() {
        if !is_known(role) {
            unless_it_says(client.role_delete(role).await, says::NO_ROLE)?;
            roles_gone.push(role.clone());
        }
    }
    let found = [("users", users_gone), ("roles", roles_gone)];
    Ok(found
        .iter()
        .filter(|(_, names)| !names.is_empty())
        .map(|(what, names)| {
            let told = names_in_words(names);
            format!("There were {what} that the broker did not make; they are gone: {told}.")
        })
        .collect())
}

/// Names that strangers chose, as far as they are worth telling.
fn names_in_words(names: &[String]) -> String {
    let short = |name: &String| {
        let cut: String = name.chars().take(STRANGER_NAME_CHARS_MAX).collect();
        format!("{cut:?}")
    };
    let told: Vec<String> = names.iter().take(STRANGERS_TOLD_MAX).map(short).collect();
    let told = told.join(", ");
    match names.len().saturating_sub(STRANGERS_TOLD_MAX) {
        0 => told,
        more => format!("{told} and {more} more"),
    }
}

async fn restore_one(
    dialer: &Dialer<'_>,
    mut client: Client,
    user: &DatabaseUser,
) -> Result<Vec<String>, Fault> {
    let name = user.name.as_str();
    let mut found = Vec::new();
    let mut note = |what: &str| found.push(format!("{what} of the user {name}; it is as before."));
    let role = match client.role_get(name).await {
        Err(error) if says_so(&error, says::NO_ROLE) => None,
        other => Some(other?),
    };
    let right = permission(&user.rights);
    if role.is_none_or(|role| role.permissions() != [right]) {
        note("The rights were not those");
        unless_it_says(client.role_delete(name).await, says::NO_ROLE)?;
    }
    match client.user_get(name).await {
        Err(error) if says_so(&error, says::NO_USER) => note("Nothing was left"),
        other => {
            for role in other?.roles().iter().filter(|role| *role != name) {
                note("There were further roles");
                client.user_revoke_role(name, role).await?;
            }
            let is_right = dialer.authenticates(name, user.password.expose()).await?;
            if !is_right || dialer.authenticates(name, "").await? {
                note("The password was not that");
            }
        }
    }
    // A password that is set anew ends the logins of the user's clients.
    if !found.is_empty() {
        add_once(client, user).await?;
    }
    Ok(found)
}

/// The users that some member lets in without a password.
pub(super) async fn without_password(dialer: &Dialer<'_>) -> Result<Vec<String>, EngineError> {
    let listed = dialer.trying_as_root("asking for the users", |mut client| async move {
        Ok(client.user_list().await?.users().to_vec())
    });
    let mut open = Vec::new();
    for user in listed.await? {
        let asked = dialer.authenticates(&user, "").await;
        if asked.map_err(|fault| fault.into_engine_error("trying a login without a password"))? {
            open.push(user);
        }
    }
    Ok(open)
}

/// A command line that lists the members, for people; `login` is `user:password`. The tool speaks
/// version 3 of the interface by itself since 3.4, and newer ones complain when they are told to.
pub(super) fn command_line(version: Version, endpoints: &[String], login: &str) -> String {
    let endpoints = endpoints.join(",");
    let interface = if version.line() < (3, 4) {
        "ETCDCTL_API=3 "
    } else {
        ""
    };
    format!(
        "{interface}etcdctl --cacert=ca.pem --endpoints={endpoints} --user={login} member list -w \
         table"
    )
}

#[cfg(test)]
mod tests {
    use super::{
        super::{PROFILE, addresses},
        *,
    };
    use crate::model::secret::Secret;

    #[test]
    fn connection_strings_name_every_member() {
        let member = |name, port| addresses::member_at(name, "127.0.0.1", [port, 1]);
        let deployment = Deployment {
            id: "5ae85b45e5717f0001533192".parse().expect("an id"),
            instance: "instance".parse().expect("an id"),
            cluster: "here".to_owned(),
            engine: "etcd".to_owned(),
            version: "3.5.30".parse().expect("a version"),
            units: 1,
            members: vec![member("m0", 2379), member("m1", 2381)],
            name: "a-deployment".to_owned(),
            closed_since: None,
        };
        let strings = PROFILE.connection_strings(&deployment, "ada", &Secret::new("word"));
        let uris: Vec<&str> = strings.uris.iter().map(Secret::expose).collect();
        assert_eq!(
            uris,
            [
                "https://ada:word@127.0.0.1:2379",
                "https://ada:word@127.0.0.1:2381"
            ]
        );
        assert_eq!(
            strings.cli.expose(),
            "etcdctl --cacert=ca.pem \
             --endpoints=https://127.0.0.1:2379,https://127.0.0.1:2381 \
             --user=ada:word member list -w table"
        );
        assert!(!format!("{strings:?}").contains("word"));
        let old = command_line(
            "3.3.25".parse().expect("a version"),
            &PROFILE.urls(&deployment),
            "ada:word",
        );
        assert_eq!(old, format!("ETCDCTL_API=3 {}", strings.cli.expose()));
    }

    #[test]
    fn strangers_do_not_choose_how_much_is_told_of_them() {
        let names: Vec<String> = (0..1000)
            .map(|i| format!("{i}{}", "x".repeat(9999)))
            .collect();
        let text = names_in_words(&names);
        assert!(text.len() < 500 && text.ends_with("and 995 more"), "{text}");
        assert_eq!(names_in_words(&["eve".to_owned()]), "\"eve\"");
    }

    #[test]
    fn the_names_of_the_broker_itself_are_no_users() {
        for name in ["", "root", "member"] {
            assert!(check_name(name).is_err());
        }
        assert!(check_name("ada").is_ok());
    }
}
