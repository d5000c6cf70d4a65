//! Who a token is of, and whose its instance is.

use actix_web::{HttpResponse, web};
use serde::Serialize;
use utoipa::ToSchema;

use super::{
    Admitted, Answer,
    clusters::operator,
    id::Id,
    view::{self, Embedded},
};
use crate::{
    http::Api,
    model::{ids::InstanceId, tenant::Tenant},
};

/// Accounts.
#[derive(Serialize, ToSchema)]
pub struct Accounts {
    accounts: Vec<Account>,
}

/// An owner of instances.
#[derive(Serialize, ToSchema)]
pub struct Account {
    /// The same as each deployment's `account_id`.
    id: String,
    /// The same.
    slug: String,
    /// What the platform says of it, such as organization and space; empty for the one who runs the
    /// broker.
    name: String,
}

impl Account {
    fn of(tenant: &Tenant) -> Self {
        let id = view::account_id(tenant);
        let names: Vec<&str> = tenant.names().collect();
        Self {
            slug: id.clone(),
            id,
            name: names.join(" / "),
        }
    }
}

/// Who asks.
#[derive(Serialize, ToSchema)]
pub struct User {
    /// Made of the instance's and the binding's id.
    id: String,
    /// The binding; `platform` where the broker's own credentials let in.
    name: String,
}

/// Lists the account that the instance is of.
#[utoipa::path(
    get, path = "/api/2016-07/instances/{instance}/accounts", operation_id = "accounts",
    responses(
        (status = 200, description = "The account", body = Embedded<Accounts>),
        (status = 404, description = "There is no such instance, or none that the token leads to"),
    )
)]
pub async fn accounts(api: web::Data<Api>, Id(id): Id<InstanceId>) -> Answer {
    let account = match api.broker.inventory.cluster_of(&id) {
        Some(_) => Account::of(&operator()),
        None => Account::of(
            &api.broker
                .deployments
                .deployment_of(id)
                .await?
                .instance
                .tenant,
        ),
    };
    let accounts = vec![account];
    Ok(HttpResponse::Ok().json(Embedded::new(Accounts { accounts })))
}

/// Tells whom the token was given to; the platform, where it came with its own credentials.
#[utoipa::path(
    get, path = "/api/2016-07/instances/{instance}/user", operation_id = "user",
    responses(
        (status = 200, description = "The user", body = User),
        (status = 404, description = "There is no such instance, or none that the token leads to"),
    )
)]
pub async fn user(admitted: web::ReqData<Admitted>, Id(asked): Id<InstanceId>) -> Answer {
    let (instance, name) = match admitted.into_inner() {
        Admitted::Binding(instance, binding) => (instance, format!("binding {binding}")),
        Admitted::Platform => (asked, "platform".to_owned()),
        Admitted::Reader => (asked, "read-only operator".to_owned()),
    };
    Ok(HttpResponse::Ok().json(User {
        id: view::user_id(&instance, &name),
        name,
    }))
}
