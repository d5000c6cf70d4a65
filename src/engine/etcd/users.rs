//! Users of the database, one for each binding.
//!
//! Each user has a role of its own and of its own name, so that what one binding may do can be
//! told apart from what another may.
//!
//! A user that is removed can do nothing new at once, but a watch that it has open goes on until its
//! connection ends: etcd asks who watches only when the watch begins.
//!
//! Changes wait for their turn before they are tried, so that many at once only take longer.

use etcd_client::{Client, Permission};

use tokio::sync::{Semaphore, SemaphorePermit};

use crate::{
    engine::{ConnectionStrings, DatabaseUser, EngineError},
    model::{deployment::Deployment, limits::USER_CHANGES_AT_ONCE, secret::Secret},
};

use super::{
    certificates::MEMBER,
    client::{Cluster, Fault, says, unless_it_says},
    security::ROOT,
};

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

/// Makes a user that reads and writes every key, or gives the one that is there its password.
pub(super) async fn add(cluster: &Cluster<'_>, user: &DatabaseUser) -> Result<(), EngineError> {
    check_name(&user.name)?;
    // etcd itself would take it, and let everybody in.
    if user.password.expose().is_empty() {
        let text = format!("user {} must have a password", user.name);
        return Err(EngineError::Unexpected(text));
    }
    let _turn = turn(cluster.deployment).await;
    cluster
        .trying_as_root("adding a database user", |client| add_once(client, user))
        .await
}

/// Removes a user and its role.
pub(super) async fn remove(cluster: &Cluster<'_>, name: &str) -> Result<(), EngineError> {
    check_name(name)?;
    let _turn = turn(cluster.deployment).await;
    cluster
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
    let everything = Permission::read_write("").with_all_keys();
    client.role_grant_permission(name, everything).await?;
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

async fn remove_once(mut client: Client, name: &str) -> Result<(), Fault> {
    unless_it_says(client.user_delete(name).await, says::NO_USER)?;
    unless_it_says(client.role_delete(name).await, says::NO_ROLE)
}

/// How `user` reaches the deployment.
pub(super) fn connection_strings(
    deployment: &Deployment,
    user: &DatabaseUser,
) -> ConnectionStrings {
    let (name, password) = (&user.name, user.password.expose());
    let uris = deployment
        .members
        .iter()
        .map(|member| {
            let (host, port) = (&member.host, member.client_port);
            Secret::new(format!("https://{name}:{password}@{host}:{port}"))
        })
        .collect();
    let endpoints = deployment.client_urls().join(",");
    let cli = Secret::new(format!(
        "ETCDCTL_API=3 etcdctl --cacert=ca.pem --endpoints={endpoints} \
         --user={name}:{password} member list -w table"
    ));
    ConnectionStrings { uris, cli }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::deployment::Member;

    #[test]
    fn connection_strings_name_every_member() {
        let member = |name: &str, client_port| Member {
            name: name.to_owned(),
            host: "127.0.0.1".to_owned(),
            client_port,
            peer_port: 1,
            shape: None,
        };
        let deployment = Deployment {
            id: "5ae85b45e5717f0001533192".parse().expect("an id"),
            instance: "instance".parse().expect("an id"),
            cluster: "here".to_owned(),
            engine: "etcd".to_owned(),
            version: "3.5.30".parse().expect("a version"),
            units: 1,
            members: vec![member("m0", 2379), member("m1", 2381)],
        };
        let user = DatabaseUser {
            name: "ada".to_owned(),
            password: Secret::new("word"),
        };
        let strings = connection_strings(&deployment, &user);
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
            "ETCDCTL_API=3 etcdctl --cacert=ca.pem \
             --endpoints=https://127.0.0.1:2379,https://127.0.0.1:2381 \
             --user=ada:word member list -w table"
        );
        assert!(!format!("{strings:?}").contains("word"));
    }

    #[test]
    fn the_names_of_the_broker_itself_are_no_users() {
        for name in ["", "root", "member"] {
            assert!(check_name(name).is_err());
        }
        assert!(check_name("ada").is_ok());
    }
}
