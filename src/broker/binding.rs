//! Bind, fetch bindings and unbind.

use chrono::{DateTime, Utc};
use serde_json::Value;

use super::{Broker, BrokerError, binding_key, update::check_not_updating};
use crate::{
    model::{
        binding::{
            BindIdentity, Binding, BindingSecrets, BindingState, Endpoint, IssuedCredentials,
        },
        ids::{BindingId, InstanceId, OperationId},
        instance::{InstanceState, normal_form},
        operation::{Operation, OperationKind, WaitsFor},
    },
    seal::random_secret,
    store::{self, Conn, StoreError},
};

/// OSB "Binding".
#[derive(Debug, Clone)]
pub struct BindRequest {
    /// The instance to bind.
    pub instance: InstanceId,
    /// The id that the platform chose.
    pub binding: BindingId,
    /// OSB `service_id`.
    pub service_id: String,
    /// OSB `plan_id`.
    pub plan_id: String,
    /// OSB `bind_resource`.
    pub bind_resource: Option<Value>,
    /// OSB `parameters`.
    pub parameters: Option<Value>,
    /// Whether the platform takes a 202.
    pub accepts_incomplete: bool,
}

/// What came of a bind request.
#[derive(Debug)]
pub enum Bound {
    /// It was made just now.
    Created(FetchedBinding),
    /// The same request was fulfilled before.
    Exists(FetchedBinding),
    /// It is being worked on.
    Accepted(OperationId),
}

/// OSB "Fetching a Service Binding".
#[derive(Debug)]
pub struct FetchedBinding {
    /// OSB `credentials`.
    pub credentials: Value,
    /// OSB `endpoints`.
    pub endpoints: Vec<Endpoint>,
    /// OSB `parameters`.
    pub parameters: Value,
}

/// OSB "Unbinding".
#[derive(Debug, Clone)]
pub struct UnbindRequest {
    /// The instance.
    pub instance: InstanceId,
    /// The binding.
    pub binding: BindingId,
    /// OSB `service_id`; empty when it was not sent.
    pub service_id: String,
    /// OSB `plan_id`; empty when it was not sent.
    pub plan_id: String,
    /// Whether the platform takes a 202.
    pub accepts_incomplete: bool,
}

/// What came of an unbind request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Unbound {
    /// It is done.
    Deleted,
    /// It is being worked on.
    Accepted(OperationId),
}

enum BindDecision {
    Exists(Box<Binding>),
    Running(OperationId),
}

impl Broker {
    /// Accepts a bind request; waits for its end when the platform cannot.
    pub async fn bind(
        self: &std::sync::Arc<Self>,
        request: BindRequest,
    ) -> Result<Bound, BrokerError> {
        let (instance, id) = (request.instance.clone(), request.binding.clone());
        let accepts_incomplete = request.accepts_incomplete;
        let broker = self.clone();
        match self
            .store
            .decide(move |conn| broker.bind_in(conn, request))
            .await?
        {
            BindDecision::Exists(binding) => Ok(Bound::Exists(self.open_binding(&binding)?)),
            BindDecision::Running(operation) if accepts_incomplete => {
                Ok(Bound::Accepted(operation))
            }
            BindDecision::Running(operation) => {
                self.wait_for(&operation).await?;
                Ok(Bound::Created(self.binding(instance, id).await?))
            }
        }
    }

    fn bind_in(
        &self,
        conn: &mut Conn<'_>,
        request: BindRequest,
    ) -> Result<BindDecision, BrokerError> {
        let (_, plan) = self.offering_and_plan(&request.service_id, &request.plan_id)?;
        let parameters = normal_form(request.parameters.as_ref());
        plan.bind_schema.check(&parameters).map_err(|reason| {
            BrokerError::BadRequest(format!(
                "the parameters do not fit the plan's schema: {reason}"
            ))
        })?;
        let identity = BindIdentity {
            service_id: request.service_id.clone(),
            plan_id: request.plan_id.clone(),
            bind_resource: normal_form(request.bind_resource.as_ref()),
            parameters,
        };
        let instance = store::instance::find(conn, &request.instance)?;
        if let Some(existing) = store::binding::find(conn, &request.instance, &request.binding)? {
            if instance.is_some_and(|i| i.state == InstanceState::Deleting) {
                return Err(being_deleted());
            }
            return repeated(conn, existing, &identity);
        }
        let Some(instance) = instance else {
            return Err(BrokerError::NotFound(
                "there is no such service instance".to_owned(),
            ));
        };
        if (&instance.service_id, &instance.plan_id) != (&request.service_id, &request.plan_id) {
            return Err(BrokerError::BadRequest(
                "service_id and plan_id are not those of the service instance".to_owned(),
            ));
        }
        if !plan.bindable {
            return Err(BrokerError::BadRequest(
                "this plan cannot be bound".to_owned(),
            ));
        }
        match instance.state {
            InstanceState::Ready => {}
            InstanceState::Provisioning => {
                return Err(BrokerError::Concurrency(
                    "the service instance is not ready yet".to_owned(),
                ));
            }
            InstanceState::Deleting | InstanceState::Failed => {
                return Err(BrokerError::Concurrency(
                    "the service instance is being deleted or has failed".to_owned(),
                ));
            }
        }
        check_not_updating(conn, &instance.id)?;
        let now = self.clock.now();
        let operation = Operation {
            binding: Some(request.binding.clone()),
            ..Operation::queued(OperationKind::Bind, &instance.id, "osb", now)
        };
        let binding = self.new_binding(&request, identity, &operation)?;
        store::binding::insert(conn, &binding)?;
        let key = binding_key(&instance.id, &binding.id);
        store::operation::insert(conn, &operation, Some(&key))?;
        Ok(BindDecision::Running(operation.id))
    }

    /// The binding's user and secrets are chosen here, so that all of the work can be repeated.
    fn new_binding(
        &self,
        request: &BindRequest,
        identity: BindIdentity,
        operation: &Operation,
    ) -> Result<Binding, BrokerError> {
        let secrets = BindingSecrets {
            password: random_secret()?,
            token: random_secret()?,
        };
        let mut binding = Binding {
            instance: request.instance.clone(),
            id: request.binding.clone(),
            parameters: identity.parameters.clone(),
            request: identity,
            // Our own ids make good user names: no platform's text gets into the database.
            database_user: format!("u{}", operation.id),
            sealed_secrets: String::new(),
            sealed_credentials: None,
            state: BindingState::Creating,
            created_at: operation.created_at,
        };
        let plain = serde_json::to_vec(&secrets)?;
        binding.sealed_secrets = self.keys.seal(&binding.secrets_context(), &plain)?;
        Ok(binding)
    }

    /// A usable binding.
    pub async fn binding(
        &self,
        instance: InstanceId,
        id: BindingId,
    ) -> Result<FetchedBinding, BrokerError> {
        let found = self
            .store
            .read(move |conn| store::binding::find(conn, &instance, &id))
            .await?;
        match found {
            Some(binding) if binding.state == BindingState::Ready => self.open_binding(&binding),
            _ => Err(BrokerError::NotFound(
                "there is no such service binding (yet)".to_owned(),
            )),
        }
    }

    fn open_binding(&self, binding: &Binding) -> Result<FetchedBinding, BrokerError> {
        let sealed = binding
            .sealed_credentials
            .as_deref()
            .ok_or_else(|| StoreError::Missing("the credentials of a usable binding".to_owned()))?;
        let plain = self.keys.open(&binding.credentials_context(), sealed)?;
        let issued: IssuedCredentials = serde_json::from_slice(&plain)?;
        Ok(FetchedBinding {
            credentials: serde_json::from_str(issued.credentials.expose())?,
            endpoints: issued.endpoints,
            parameters: binding.parameters.clone(),
        })
    }

    /// Accepts the deletion of a binding; waits for its end when the platform cannot.
    pub async fn unbind(&self, request: UnbindRequest) -> Result<Unbound, BrokerError> {
        let now = self.clock.now();
        let accepts_incomplete = request.accepts_incomplete;
        let operation = self
            .store
            .decide(move |conn| unbind_in(conn, &request, now))
            .await?;
        if accepts_incomplete {
            return Ok(Unbound::Accepted(operation));
        }
        self.wait_for(&operation).await?;
        Ok(Unbound::Deleted)
    }
}

fn repeated(
    conn: &mut Conn<'_>,
    existing: Binding,
    identity: &BindIdentity,
) -> Result<BindDecision, BrokerError> {
    match existing.state {
        BindingState::Deleting => Err(BrokerError::Concurrency(
            "the service binding of this id is being deleted; try again when it is gone".to_owned(),
        )),
        _ if existing.request != *identity => Err(BrokerError::Conflict(
            "another service binding has this id".to_owned(),
        )),
        BindingState::Failed => Err(BrokerError::Conflict(
            "the service binding of this id failed; unbind it first".to_owned(),
        )),
        BindingState::Ready => Ok(BindDecision::Exists(Box::new(existing))),
        BindingState::Creating => {
            let kinds = [OperationKind::Bind];
            let (instance, id) = (&existing.instance, &existing.id);
            let operation = store::operation::newest(conn, instance, Some(id), &kinds)?;
            let operation = operation.ok_or_else(|| {
                StoreError::Missing("the operation that makes the binding".to_owned())
            })?;
            Ok(BindDecision::Running(operation.id))
        }
    }
}

fn being_deleted() -> BrokerError {
    let reason = "the service instance is being deleted, with its bindings";
    BrokerError::Concurrency(reason.to_owned())
}

fn unbind_in(
    conn: &mut Conn<'_>,
    request: &UnbindRequest,
    now: DateTime<Utc>,
) -> Result<OperationId, BrokerError> {
    let Some(binding) = store::binding::find(conn, &request.instance, &request.binding)? else {
        return Err(BrokerError::Gone);
    };
    let of_binding = (&binding.request.service_id, &binding.request.plan_id);
    if of_binding != (&request.service_id, &request.plan_id) {
        return Err(BrokerError::BadRequest(
            "service_id and plan_id must be those of the service binding".to_owned(),
        ));
    }
    let instance = store::instance::get(conn, &request.instance)?;
    if instance.state == InstanceState::Deleting {
        return Err(being_deleted());
    }
    let active = store::operation::active_on_instance(conn, &request.instance)?;
    for operation in active
        .iter()
        .filter(|o| o.binding.as_ref() == Some(&binding.id))
    {
        if operation.kind == OperationKind::Unbind {
            return Ok(operation.id.clone());
        }
    }
    check_not_updating(conn, &request.instance)?;
    for operation in active
        .iter()
        .filter(|o| o.binding.as_ref() == Some(&binding.id))
    {
        store::operation::halt(conn, &operation.id)?;
    }
    let operation = Operation {
        binding: Some(binding.id.clone()),
        waits_for: WaitsFor::Binding,
        ..Operation::queued(OperationKind::Unbind, &request.instance, "osb", now)
    };
    let key = binding_key(&request.instance, &binding.id);
    store::operation::insert(conn, &operation, Some(&key))?;
    // The token is of no use from here on; the database user follows.
    store::binding::revoke_tokens(conn, &request.instance, &binding.id)?;
    store::binding::set_state(conn, &request.instance, &binding.id, BindingState::Deleting)?;
    Ok(operation.id)
}
