//! Bind, fetch bindings and unbind.

use std::sync::Arc;

use base64::{Engine as _, engine::general_purpose::STANDARD as BASE64};
use chrono::{DateTime, Utc};
use serde_json::Value;

use super::{
    BrokerError, BrokerParts,
    audit::Audit,
    binding_key,
    deployment::Deployments,
    instance::with_reason,
    inventory::Inventory,
    status::{OF_BINDING, Statuses},
    update::check_not_updating,
};
use crate::{
    caller::Caller,
    clock::Clock,
    model::{
        binding::{
            AUTHORITIES, BindIdentity, BindParameters, Binding, BindingSecrets, BindingState,
            Endpoint, IssuedCredentials, Life, OnPage, add_addresses, endpoints,
        },
        catalog::Plan,
        engine::list,
        ids::{BindingId, InstanceId, OperationId},
        instance::{Instance, InstanceState, dashboard_url, normal_form},
        operation::{Operation, OperationKind, WaitsFor},
        origin::Origin,
        trail::{Accessed, AuditedAccess},
    },
    seal::{KeyRing, random_secret},
    store::{self, Conn, Store, StoreError},
    timekeeper::Timekeeper,
};

/// OSB "Binding".
#[derive(Debug, Clone)]
pub struct BindRequest {
    /// The instance to bind.
    pub instance: InstanceId,
    /// The id that the platform chose.
    pub binding: BindingId,
    /// OSB `service_id`; only a rotation may do without.
    pub service_id: Option<String>,
    /// OSB `plan_id`; only a rotation may do without.
    pub plan_id: Option<String>,
    /// OSB `bind_resource`.
    pub bind_resource: Option<Value>,
    /// OSB `parameters`; a rotation has those of its predecessor.
    pub parameters: Option<Value>,
    /// OSB `predecessor_binding_id`.
    pub predecessor: Option<BindingId>,
    /// Whether the platform takes a 202.
    pub accepts_incomplete: bool,
    /// How it is made on the dashboard; none where a platform asks.
    pub on_page: Option<OnPage>,
}

impl BindRequest {
    /// The door that it came through.
    fn origin(&self) -> Origin {
        match self.on_page {
            Some(_) => Origin::Dashboard,
            None => Origin::Osb,
        }
    }
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
    /// OSB `metadata`.
    pub life: Option<Life>,
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
    /// Where it comes from.
    pub origin: Origin,
}

/// What came of an unbind request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Unbound {
    /// It is done.
    Deleted,
    /// It is being worked on.
    Accepted(OperationId),
}

/// What a bind request comes to.
pub(super) enum BindDecision {
    /// The binding is there already.
    Exists(Box<Binding>),
    /// It is being made.
    Running(OperationId),
}

/// Service bindings: makes, tells of and ends them.
pub struct Bindings {
    store: Arc<Store>,
    keys: Arc<KeyRing>,
    clock: Clock,
    time: Arc<Timekeeper>,
    audit: Arc<Audit>,
    inventory: Arc<Inventory>,
    deployments: Arc<Deployments>,
    statuses: Arc<Statuses>,
    public_url: String,
}

impl Bindings {
    pub(super) fn new(
        parts: &BrokerParts,
        audit: Arc<Audit>,
        inventory: Arc<Inventory>,
        deployments: Arc<Deployments>,
        statuses: Arc<Statuses>,
    ) -> Self {
        Self {
            store: parts.store.clone(),
            keys: parts.keys.clone(),
            clock: parts.clock.clone(),
            time: parts.time.clone(),
            audit,
            inventory,
            deployments,
            statuses,
            public_url: parts.public_url.clone(),
        }
    }

    /// Accepts a bind request; waits for its end when the platform cannot.
    pub async fn bind(self: &Arc<Self>, request: BindRequest) -> Result<Bound, BrokerError> {
        let (instance, id) = (request.instance.clone(), request.binding.clone());
        let accepts_incomplete = request.accepts_incomplete;
        let bindings = self.clone();
        match self
            .store
            .decide(move |conn| bindings.bind_in(conn, &request))
            .await?
        {
            BindDecision::Exists(binding) => {
                let opened = self.open_binding(&binding).await?;
                self.note_credentials(instance, id, Origin::Osb).await;
                Ok(Bound::Exists(opened))
            }
            BindDecision::Running(operation) if accepts_incomplete => {
                Ok(Bound::Accepted(operation))
            }
            BindDecision::Running(operation) => {
                self.statuses.wait_for(&operation).await?;
                Ok(Bound::Created(self.usable_binding(instance, id).await?))
            }
        }
    }

    /// The one way to a binding, for every caller.
    pub(super) fn bind_in(
        &self,
        conn: &mut Conn<'_>,
        request: &BindRequest,
    ) -> Result<BindDecision, BrokerError> {
        let existing = store::binding::find(conn, &request.instance, &request.binding)?;
        let identity = self.identity(conn, request, existing.as_ref())?;
        let (_, plan) = self
            .inventory
            .offering_and_plan(&identity.service_id, &identity.plan_id)?;
        plan.bind_schema
            .check(&identity.parameters)
            .map_err(|reason| {
                bad(format!(
                    "the parameters do not fit the plan's schema: {reason}"
                ))
            })?;
        let asked = BindParameters::read(&identity.parameters)
            .map_err(|refusal| bad(refusal.to_string()))?;
        let instance = store::instance::find(conn, &request.instance)?;
        if let Some(existing) = existing {
            if instance.is_some_and(|i| i.state == InstanceState::Deleting) {
                return Err(being_deleted());
            }
            let known = self.time.plausible();
            return repeated(conn, existing, &identity, request.accepts_incomplete, known);
        }
        let instance = instance.ok_or_else(no_such_instance)?;
        check_plan(&instance, &plan, &identity)?;
        check_state(instance.state)?;
        check_not_updating(conn, &instance.id)?;
        if asked.rights().are_limited() {
            self.check_limits_hold(conn, &instance.id)?;
        }
        let operation = Operation {
            binding: Some(request.binding.clone()),
            ..Operation::queued(
                OperationKind::Bind,
                &instance.id,
                request.origin(),
                self.clock.now(),
            )
        };
        let binding = self.new_binding(request, identity, &asked, &operation)?;
        store::binding::insert(conn, &binding)?;
        let key = binding_key(&instance.id, &binding.id);
        store::operation::insert(conn, &operation, Some(&key))?;
        Ok(BindDecision::Running(operation.id))
    }

    /// What is asked for: the request, with what a new binding has from its predecessor.
    fn identity(
        &self,
        conn: &mut Conn<'_>,
        request: &BindRequest,
        existing: Option<&Binding>,
    ) -> Result<BindIdentity, BrokerError> {
        if request.predecessor.as_ref() == Some(&request.binding) {
            return Err(bad(
                "predecessor_binding_id is the service binding's own id",
            ));
        }
        let inherited = match (&request.predecessor, existing) {
            (None, _) => None,
            // A repeat must not need the predecessor any more.
            (Some(_), Some(existing)) => Some(existing.request.clone()),
            (Some(id), None) => Some(self.inheritance(conn, &request.instance, id)?),
        };
        let own_parameters = inherited.as_ref().map(|i| i.parameters.clone());
        let identity = identity(request, inherited)?;
        if existing.is_none() && own_parameters.is_some_and(|own| own != identity.parameters) {
            return Err(bad(
                "a service binding with a predecessor has that one's parameters; send none",
            ));
        }
        Ok(identity)
    }

    /// What a new binding has from the one that it takes over from.
    fn inheritance(
        &self,
        conn: &mut Conn<'_>,
        instance: &InstanceId,
        predecessor: &BindingId,
    ) -> Result<BindIdentity, BrokerError> {
        if store::instance::find(conn, instance)?.is_none() {
            return Err(no_such_instance());
        }
        let now = self.time.plausible();
        match store::binding::find(conn, instance, predecessor)? {
            Some(binding) if binding.state == BindingState::Creating => {
                Err(BrokerError::Concurrency(
                    "the service binding of predecessor_binding_id is not ready yet".to_owned(),
                ))
            }
            Some(binding) if binding.state == BindingState::Ready && !binding.is_expired(now) => {
                Ok(binding.request)
            }
            _ => Err(BrokerError::BadRequest(
                "predecessor_binding_id is not a usable service binding of this instance"
                    .to_owned(),
            )),
        }
    }

    /// The binding's user and secrets are chosen here, so that all of the work can be repeated.
    fn new_binding(
        &self,
        request: &BindRequest,
        identity: BindIdentity,
        asked: &BindParameters,
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
            expires_at: asked.expires_at(self.time.plausible()),
        };
        let plain = serde_json::to_vec(&secrets)?;
        binding.sealed_secrets = self.keys.seal(&binding.secrets_context(), &plain)?;
        Ok(binding)
    }

    /// Refuses a promise that the instance's database would not keep.
    fn check_limits_hold(
        &self,
        conn: &mut Conn<'_>,
        instance: &InstanceId,
    ) -> Result<(), BrokerError> {
        let found = store::deployment::of_instance(conn, instance)?;
        let (deployment, _) =
            found.ok_or_else(|| StoreError::Missing("the instance's deployment".to_owned()))?;
        let profile = self.inventory.profile(&deployment.engine)?;
        if profile.limits_users(deployment.version) {
            return Ok(());
        }
        let (engine, version) = (&deployment.engine, deployment.version);
        let available = self.inventory.versions_on(&deployment.cluster, engine);
        let way = match profile.limiting(&available).as_slice() {
            [] => "no version that does is available".to_owned(),
            holding => format!("upgrade the instance first, to one of: {}", list(holding)),
        };
        Err(BrokerError::BadRequest(format!(
            "role and prefix need a version of {engine} that holds users to them, and {version} \
             does not; bind without them, or {way}"
        )))
    }

    /// A usable binding, for somebody who asks for it later.
    pub async fn binding(
        &self,
        instance: InstanceId,
        id: BindingId,
    ) -> Result<FetchedBinding, BrokerError> {
        let found = self.usable_binding(instance.clone(), id.clone()).await?;
        self.note_credentials(instance, id, Origin::Osb).await;
        Ok(found)
    }

    /// Writes down that somebody gets to see credentials.
    pub(super) async fn note_credentials(
        &self,
        instance: InstanceId,
        id: BindingId,
        origin: Origin,
    ) {
        let caller = Caller::current();
        let access = AuditedAccess {
            what: Accessed::Credentials,
            origin,
            instance: Some(instance),
            binding: Some(id),
            backup: None,
            platform: caller.platform,
            user: caller.user,
            address: caller.address,
        };
        self.audit.note(access).await;
    }

    async fn usable_binding(
        &self,
        instance: InstanceId,
        id: BindingId,
    ) -> Result<FetchedBinding, BrokerError> {
        let found = self
            .store
            .read(move |conn| store::binding::find(conn, &instance, &id))
            .await?;
        match found {
            Some(binding) if binding.is_expired(self.time.plausible()) => Err(
                BrokerError::NotFound("the service binding has expired".to_owned()),
            ),
            Some(binding)
                if binding.state == BindingState::Ready && binding.sealed_credentials.is_none() =>
            {
                Err(BrokerError::NotFound(
                    "the credentials were shown on the dashboard, once, and are not kept"
                        .to_owned(),
                ))
            }
            Some(binding) if binding.state == BindingState::Ready => {
                self.open_binding(&binding).await
            }
            _ => Err(BrokerError::NotFound(
                "there is no such service binding (yet)".to_owned(),
            )),
        }
    }

    /// What the application of a usable binding gets.
    pub(super) async fn open_binding(
        &self,
        binding: &Binding,
    ) -> Result<FetchedBinding, BrokerError> {
        let sealed = binding
            .sealed_credentials
            .as_deref()
            .ok_or_else(|| StoreError::Missing("the credentials of a usable binding".to_owned()))?;
        let context = binding.credentials_context();
        let mut issued: IssuedCredentials = self.keys.open_as(&context, sealed)?;
        let mut credentials: Value = serde_json::from_str(issued.credentials.expose())?;
        // What an earlier broker issued has no address of the dashboard.
        let api = credentials.get_mut("instance_administration_api");
        if let Some(Value::Object(api)) = api {
            api.entry("dashboard_url")
                .or_insert_with(|| dashboard_url(&self.public_url, &binding.instance).into());
        }
        // Since it was issued, other authorities may have come, and the members may have moved.
        if let Some((deployment, authorities)) =
            self.deployments.authorities_of(&binding.instance).await?
        {
            credentials[AUTHORITIES] = BASE64.encode(authorities).into();
            let profile = self.inventory.profile(&deployment.engine)?;
            let now = endpoints(profile, &deployment);
            if issued.endpoints != now {
                let context = binding.secrets_context();
                let own: BindingSecrets = self.keys.open_as(&context, &binding.sealed_secrets)?;
                let (name, password) = (&binding.database_user, &own.password);
                add_addresses(&mut credentials, profile, &deployment, name, password);
                issued.endpoints = now;
            }
        }
        Ok(FetchedBinding {
            credentials,
            endpoints: issued.endpoints,
            parameters: binding.parameters.clone(),
            life: binding.life(),
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
        self.statuses.wait_for(&operation).await?;
        Ok(Unbound::Deleted)
    }
}

/// What a request asks for, in full.
fn bad(reason: impl Into<String>) -> BrokerError {
    BrokerError::BadRequest(reason.into())
}

/// Refuses what the plan of the instance does not have.
fn check_plan(
    instance: &Instance,
    plan: &Plan,
    identity: &BindIdentity,
) -> Result<(), BrokerError> {
    if (&instance.service_id, &instance.plan_id) != (&identity.service_id, &identity.plan_id) {
        return Err(bad(
            "service_id and plan_id are not those of the service instance",
        ));
    }
    if !plan.bindable {
        return Err(bad("this plan cannot be bound"));
    }
    if identity.predecessor.is_some() && !plan.binding_rotatable {
        return Err(bad("service bindings of this plan cannot be rotated"));
    }
    Ok(())
}

/// Refuses to bind what is not usable.
fn check_state(state: InstanceState) -> Result<(), BrokerError> {
    let reason = match state {
        InstanceState::Ready => return Ok(()),
        InstanceState::Provisioning => "the service instance is not ready yet",
        InstanceState::Deleting | InstanceState::Failed => {
            "the service instance is being deleted or has failed"
        }
    };
    Err(BrokerError::Concurrency(reason.to_owned()))
}

fn identity(
    request: &BindRequest,
    inherited: Option<BindIdentity>,
) -> Result<BindIdentity, BrokerError> {
    let bind_resource = normal_form(request.bind_resource.as_ref());
    let parameters = normal_form(request.parameters.as_ref());
    let Some(inherited) = inherited else {
        let missing = |name| BrokerError::BadRequest(format!("{name} is missing"));
        return Ok(BindIdentity {
            service_id: request
                .service_id
                .clone()
                .ok_or_else(|| missing("service_id"))?,
            plan_id: request.plan_id.clone().ok_or_else(|| missing("plan_id"))?,
            bind_resource,
            parameters,
            predecessor: None,
            on_page: request.on_page.clone(),
        });
    };
    let sent_none = parameters == normal_form(None);
    Ok(BindIdentity {
        service_id: request.service_id.clone().unwrap_or(inherited.service_id),
        plan_id: request.plan_id.clone().unwrap_or(inherited.plan_id),
        bind_resource,
        parameters: if sent_none {
            inherited.parameters
        } else {
            parameters
        },
        predecessor: request.predecessor.clone(),
        on_page: request.on_page.clone(),
    })
}

fn repeated(
    conn: &mut Conn<'_>,
    existing: Binding,
    identity: &BindIdentity,
    accepts_incomplete: bool,
    now: DateTime<Utc>,
) -> Result<BindDecision, BrokerError> {
    match existing.state {
        BindingState::Deleting => Err(BrokerError::Concurrency(
            "the service binding of this id is being deleted; try again when it is gone".to_owned(),
        )),
        BindingState::Failed => {
            let (instance, id) = (&existing.instance, &existing.id);
            let newest = store::operation::newest(conn, instance, Some(id), &OF_BINDING)?;
            let is_same = existing.request == *identity;
            match newest {
                // As with instances: the token is the way to the reason.
                Some(failed)
                    if is_same && accepts_incomplete && failed.kind == OperationKind::Bind =>
                {
                    Ok(BindDecision::Running(failed.id))
                }
                newest => Err(failed_before(newest)),
            }
        }
        _ if existing.request != *identity => Err(BrokerError::Conflict(
            "another service binding has this id".to_owned(),
        )),
        BindingState::Ready if !existing.is_expired(now) => {
            Ok(BindDecision::Exists(Box::new(existing)))
        }
        BindingState::Ready | BindingState::Expiring | BindingState::Expired => {
            Err(BrokerError::Conflict(
                "the service binding of this id has expired; unbind it first".to_owned(),
            ))
        }
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

/// The refusal where a binding of this id failed.
fn failed_before(newest: Option<Operation>) -> BrokerError {
    let what = match newest.as_ref().map(|operation| operation.kind) {
        Some(OperationKind::Unbind) => "the service binding of this id could not be removed",
        _ => "the service binding of this id failed",
    };
    let reason = newest.and_then(|operation| operation.failure);
    BrokerError::Conflict(with_reason(what, reason, "unbind it first"))
}

fn no_such_instance() -> BrokerError {
    BrokerError::NotFound("there is no such service instance".to_owned())
}

fn being_deleted() -> BrokerError {
    let reason = "the service instance is being deleted, with its bindings";
    BrokerError::Concurrency(reason.to_owned())
}

/// The one way to the end of a binding that somebody asks for.
pub(super) fn unbind_in(
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
    end_binding(conn, &binding, BindingState::Deleting, request.origin, now)
}

/// Lets nobody in with a binding from here on, nor anybody go on making it; its database user is there
/// still. Returns the operation that ends it, when there is one.
pub(super) fn close_binding(
    conn: &mut Conn<'_>,
    binding: &Binding,
    state: BindingState,
    now: DateTime<Utc>,
) -> Result<Option<OperationId>, StoreError> {
    let (instance, id) = (&binding.instance, &binding.id);
    store::binding::revoke_tokens(conn, instance, id)?;
    store::binding::set_state(conn, instance, id, state)?;
    let active = store::operation::active_on_instance(conn, instance)?;
    let on_binding = || active.iter().filter(|o| o.binding.as_ref() == Some(id));
    if let Some(running) = on_binding().find(|o| o.kind == OperationKind::Unbind) {
        return Ok(Some(running.id.clone()));
    }
    for operation in on_binding() {
        store::operation::halt(conn, &operation.id, now)?;
    }
    Ok(None)
}

/// Queues the removal of a binding's user, unless that is under way; a bind that runs is halted.
/// The binding is in state `state` from then on.
pub(super) fn end_binding(
    conn: &mut Conn<'_>,
    binding: &Binding,
    state: BindingState,
    origin: Origin,
    now: DateTime<Utc>,
) -> Result<OperationId, BrokerError> {
    let (instance, id) = (&binding.instance, &binding.id);
    store::binding::set_expiry_due(conn, instance, id, None)?;
    if let Some(running) = close_binding(conn, binding, state, now)? {
        return Ok(running);
    }
    check_not_updating(conn, instance)?;
    let operation = Operation {
        binding: Some(id.clone()),
        waits_for: WaitsFor::Binding,
        ..Operation::queued(OperationKind::Unbind, instance, origin, now)
    };
    let key = binding_key(instance, id);
    store::operation::insert(conn, &operation, Some(&key))?;
    // Who had its token may have let themselves in by others: those go, too.
    for other in store::binding::of_instance(conn, instance)? {
        if other.ends_with(id) {
            end_binding(conn, &other, BindingState::Deleting, origin, now)?;
        }
    }
    Ok(operation.id)
}
