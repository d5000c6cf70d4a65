//! Users of the database, one for each binding.
//!
//! Each user has a role of its own and of its own name, so that what one binding may do can be
//! told apart from what another may.

use etcd_client::{Client, Permission};

use crate::{
    engine::{ConnectionStrings, DatabaseUser, EngineError},
    model::{deployment::Deployment, secret::Secret},
};

use super::{
    certificates::MEMBER,
    client::{Cluster, Fault, says, unless_it_says},
    security::ROOT,
};

/// Makes a user that reads and writes every key, or gives the one that is there its password.
pub(super) async fn add(cluster: &Cluster<'_>, user: &DatabaseUser) -> Result<(), EngineError> {
    check_name(&user.name)?;
    // etcd itself would take it, and let everybody in.
    if user.password.expose().is_empty() {
        let text = format!("user {} must have a password", user.name);
        return Err(EngineError::Unexpected(text));
    }
    cluster
        .trying_as_root("adding a database user", |client| add_once(client, user))
        .await
}

/// Removes a user and its role.
pub(super) async fn remove(cluster: &Cluster<'_>, name: &str) -> Result<(), EngineError> {
    check_name(name)?;
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
