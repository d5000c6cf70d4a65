//! Making a deployment the broker's own: one administrator, and nobody else.

use etcd_client::{AlarmAction, AlarmOptions, AlarmType, Client, GetOptions};

use crate::engine::EngineError;

use super::{
    certificates::ROOT,
    client::{Dialer, Fault, says, unless_it_says},
};

/// Revision of an etcd that was never written to.
const FIRST_REVISION: i64 = 1;

/// Secures a new deployment. Where passwords alone decide who comes in, until this is done anybody
/// who reaches it can do anything; so it is looked over afterwards, when nobody else can get in any
/// more. What this cannot find is a watch: etcd asks who watches only when the watch begins.
pub(super) async fn secure_new(dialer: &Dialer<'_>) -> Result<(), EngineError> {
    check_root_password(dialer)?;
    let secured = dialer.trying("securing a new deployment", |client| {
        enable_if_off(dialer, client)
    });
    secured.await?;
    dialer
        .trying_as_root("checking a new deployment", check_untouched)
        .await
}

/// etcd itself would take an empty password.
fn check_root_password(dialer: &Dialer<'_>) -> Result<(), EngineError> {
    if dialer.secrets.root_password.expose().is_empty() {
        let text = "the deployment's administrator has an empty password";
        return Err(EngineError::Unexpected(text.to_owned()));
    }
    Ok(())
}

async fn enable_if_off(dialer: &Dialer<'_>, mut client: Client) -> Result<(), Fault> {
    match dialer.log_in(&mut client).await {
        Err(fault) if fault.says(says::AUTH_IS_OFF) => enable(dialer, &mut client).await?,
        other => return ours(other),
    }
    // The same member, so it knows already that users were switched on.
    ours(dialer.log_in(&mut client).await)
}

/// A login that fails for its password tells that somebody else made the administrator.
fn ours(login: Result<(), Fault>) -> Result<(), Fault> {
    match login {
        Err(fault) if fault.says(says::WRONG_PASSWORD) => {
            Err(unexpected("an administrator was there before"))
        }
        other => other,
    }
}

async fn enable(dialer: &Dialer<'_>, client: &mut Client) -> Result<(), Fault> {
    let password = dialer.secrets.root_password.expose();
    unless_it_says(
        client.user_add(ROOT, password, None).await,
        says::USER_EXISTS,
    )?;
    client.user_grant_role(ROOT, ROOT).await?;
    client.auth_enable().await?;
    Ok(())
}

async fn check_untouched(mut client: Client) -> Result<(), Fault> {
    check_only_root(&mut client).await?;
    let options = GetOptions::new().with_all_keys().with_count_only();
    let keys = client.get("", Some(options)).await?;
    let revision = keys.header().map_or(0, |header| header.revision());
    if keys.count() != 0 || revision != FIRST_REVISION {
        return Err(unexpected("somebody wrote to it before"));
    }
    if !client.leases().await?.leases().is_empty() {
        return Err(unexpected("somebody made a lease in it before"));
    }
    Ok(())
}

async fn check_only_root(client: &mut Client) -> Result<(), Fault> {
    let users = client.user_list().await?;
    if users.users() != [ROOT] {
        return Err(unexpected("it has users other than its administrator"));
    }
    let roles = client.role_list().await?;
    if roles.roles().iter().any(|role| role != ROOT) {
        return Err(unexpected("it has roles other than its administrator's"));
    }
    Ok(())
}

fn unexpected(what: &str) -> Fault {
    EngineError::Unexpected(format!("the deployment is not as it should be: {what}")).into()
}

/// Takes a restored deployment away from the users of its source. It lets in only who has a
/// certificate of the new deployment's authority, which is the broker alone.
pub(super) async fn secure_restored(dialer: &Dialer<'_>) -> Result<(), EngineError> {
    check_root_password(dialer)?;
    let taken_over = dialer.trying("securing a restored deployment", |client| {
        take_over(dialer, client)
    });
    taken_over.await?;
    dialer
        .trying("checking a restored deployment", |mut client| async move {
            // With a password now: this also proves the new one.
            dialer.log_in(&mut client).await?;
            check_only_root(&mut client).await
        })
        .await
}

async fn take_over(dialer: &Dialer<'_>, mut client: Client) -> Result<(), Fault> {
    end_alarms(&mut client, |_| true).await?;
    remove_others(&mut client).await?;
    administrate(dialer, &mut client).await
}

/// Gives the administrator its password and its rights, and has logins asked for.
pub(super) async fn administrate(dialer: &Dialer<'_>, client: &mut Client) -> Result<(), Fault> {
    let password = dialer.secrets.root_password.expose();
    let changed = client.user_change_password(ROOT, password).await;
    match changed.map_err(Fault::from) {
        Err(fault) if fault.says(says::NO_USER) => {
            client.user_add(ROOT, password, None).await?;
        }
        other => {
            other?;
        }
    }
    client.user_grant_role(ROOT, ROOT).await?;
    // Without effect where users are on already.
    client.auth_enable().await?;
    Ok(())
}

/// Lets a deployment that was full take writes again.
pub(super) async fn clear_alarms(dialer: &Dialer<'_>) -> Result<(), EngineError> {
    dialer
        .trying_as_root("ending alarms", |mut client| async move {
            end_alarms(&mut client, |_| true).await
        })
        .await
}

/// Ends the alarms of these members, which are asked for by their ids. A database that was full says so, also in its
/// snapshots, and refuses writes however large it may be now.
pub(super) async fn end_alarms(
    client: &mut Client,
    ends: impl Fn(u64) -> bool,
) -> Result<(), Fault> {
    let alarms = client
        .alarm(AlarmAction::Get, AlarmType::None, None)
        .await?;
    for alarm in alarms.alarms().iter().filter(|of| ends(of.member_id())) {
        let mut options = AlarmOptions::new();
        options.with_member(alarm.member_id());
        client
            .alarm(AlarmAction::Deactivate, alarm.alarm(), Some(options))
            .await?;
    }
    Ok(())
}

async fn remove_others(client: &mut Client) -> Result<(), Fault> {
    for user in client.user_list().await?.users() {
        if user != ROOT {
            unless_it_says(client.user_delete(user).await, says::NO_USER)?;
        }
    }
    for role in client.role_list().await?.roles() {
        if role != ROOT {
            unless_it_says(client.role_delete(role).await, says::NO_ROLE)?;
        }
    }
    Ok(())
}
