//! Makes a binding: a database user of its own, and a token for the administration API.

use std::sync::Arc;

use base64::{Engine as _, engine::general_purpose::STANDARD as BASE64};
use serde::{Deserialize, Serialize};
use serde_json::json;

use super::{Definition, Ending, OpenDeployment, Outcome, Step, StepError, Work};
use crate::{
    engine::{DatabaseUser, UserChange},
    model::{
        binding::{
            AUTHORITIES, BindParameters, Binding, BindingSecrets, BindingState, IssuedCredentials,
            add_addresses, endpoints,
        },
        instance::dashboard_url,
        secret::Secret,
    },
    seal,
    store::{self, Conn, StoreError},
};

/// Bind.
pub const DEFINITION: Definition = Definition {
    steps: &[
        Step {
            name: "add_user",
            title: "Making the binding's user",
            run: |w| Box::pin(add_user(w)),
        },
        Step {
            name: ISSUE,
            title: "Issuing the credentials",
            run: |w| Box::pin(issue(w)),
        },
    ],
    begun: |_, _| Ok(()),
    cleanup: &[Step {
        name: "cleanup_user",
        title: "Removing the binding's user",
        run: |w| Box::pin(async move { remove_user(&w).await }),
    }],
    succeed,
    fail,
};

const ISSUE: &str = "issue";

/// What the step [`ISSUE`] leaves behind.
#[derive(Serialize, Deserialize)]
struct Issued {
    sealed_credentials: String,
    /// Of the token that the application gets, if it gets one.
    token_fingerprint: Option<String>,
}

async fn binding(work: &Work) -> Result<Option<Binding>, StepError> {
    let instance = work.operation.instance.clone();
    let Some(id) = work.operation.binding.clone() else {
        return Err(StepError::last("the operation names no binding"));
    };
    work.read(move |conn| store::binding::find(conn, &instance, &id))
        .await
}

async fn existing_binding(work: &Work) -> Result<Binding, StepError> {
    binding(work)
        .await?
        .ok_or_else(|| StepError::last("the binding is gone"))
}

async fn add_user(work: Arc<Work>) -> Result<Outcome, StepError> {
    let binding = existing_binding(&work).await?;
    let opened = work.opened().await?;
    let user = user_of(&work, &binding)?;
    let change = UserChange::Add(&user);
    opened.engine.change_user(opened.site(), change).await?;
    Outcome::done()
}

/// The database user of a binding.
pub fn user_of(work: &Work, binding: &Binding) -> Result<DatabaseUser, StepError> {
    let own: BindingSecrets = work.open(&binding.secrets_context(), &binding.sealed_secrets)?;
    database_user(binding, &own)
}

fn database_user(binding: &Binding, own: &BindingSecrets) -> Result<DatabaseUser, StepError> {
    let asked = BindParameters::read(&binding.request.parameters)
        .map_err(|e| StepError::last(e.to_string()))?;
    Ok(DatabaseUser {
        name: binding.database_user.clone(),
        password: own.password.clone(),
        rights: asked.rights(),
    })
}

async fn issue(work: Arc<Work>) -> Result<Outcome, StepError> {
    let binding = existing_binding(&work).await?;
    let opened = work.opened().await?;
    let own: BindingSecrets = work.open(&binding.secrets_context(), &binding.sealed_secrets)?;
    let user = database_user(&binding, &own)?;
    // Backups hold every key, so a user who may not read all of them must not have them either.
    let token = (!user.rights.are_limited()).then_some(&own.token);
    let issued = credentials(&work, &opened, &user, token)?;
    Outcome::with(&Issued {
        sealed_credentials: work.seal(&binding.credentials_context(), &issued)?,
        token_fingerprint: token.map(|token| seal::fingerprint(token.expose())),
    })
}

/// What the application gets: the fields of the Compose service, with a token of our own for those
/// that may administer the instance.
fn credentials(
    work: &Work,
    opened: &OpenDeployment,
    user: &DatabaseUser,
    token: Option<&Secret>,
) -> Result<IssuedCredentials, StepError> {
    let (deployment, profile) = (&opened.deployment, opened.profile());
    let mut fields = json!({
        "db_type": deployment.engine,
        "name": deployment.name,
        "deployment_id": deployment.id,
        AUTHORITIES: BASE64.encode(opened.secrets.trusted()),
        "maps": [],
    });
    if let Some(token) = token {
        fields["instance_administration_api"] = json!({
            "root": format!("{}/api", work.parts.public_url),
            "instance_id": deployment.instance,
            "deployment_id": deployment.id,
            "token": token.expose(),
            // The token signs in there, and some platforms show no address of it.
            "dashboard_url": dashboard_url(&work.parts.public_url, &deployment.instance),
        });
    }
    add_addresses(&mut fields, profile, deployment, &user.name, &user.password);
    Ok(IssuedCredentials {
        credentials: Secret::new(fields.to_string()),
        endpoints: endpoints(profile, deployment),
    })
}

/// Removes the binding's user; used by unbind, and when a bind fails.
pub async fn remove_user(work: &Work) -> Result<Outcome, StepError> {
    let Some(binding) = binding(work).await? else {
        return Outcome::done();
    };
    // Without members there are no users any more: a deprovision got that far.
    if work.deployment().await?.members.is_empty() {
        return Outcome::done();
    }
    let opened = work.opened().await?;
    let change = UserChange::Remove(&binding.database_user);
    opened.engine.change_user(opened.site(), change).await?;
    Outcome::done()
}

fn succeed(conn: &mut Conn<'_>, ending: &Ending<'_>) -> Result<(), StoreError> {
    let operation = ending.operation;
    let Some(id) = &operation.binding else {
        return Err(StoreError::Missing("the operation's binding".to_owned()));
    };
    let results = store::step::results(conn, &operation.id)?;
    let issued: Issued = results
        .get(ISSUE)
        .and_then(|value| serde_json::from_value(value.clone()).ok())
        .ok_or_else(|| StoreError::Missing("the issued credentials".to_owned()))?;
    let binding = store::binding::get(conn, &operation.instance, id)?;
    store::binding::set_credentials(conn, &operation.instance, id, &issued.sealed_credentials)?;
    if let Some(token) = &issued.token_fingerprint {
        store::binding::grant_token(conn, token, &binding, ending.now)?;
    }
    store::binding::set_state(conn, &operation.instance, id, BindingState::Ready)
}

fn fail(conn: &mut Conn<'_>, ending: &Ending<'_>, _failure: &str) -> Result<(), StoreError> {
    let instance = &ending.operation.instance;
    let Some(id) = &ending.operation.binding else {
        return Ok(());
    };
    let binding = store::binding::find(conn, instance, id)?;
    if binding.is_some_and(|b| b.state == BindingState::Creating) {
        store::binding::set_state(conn, instance, id, BindingState::Failed)?;
    }
    Ok(())
}
