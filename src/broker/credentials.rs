//! Credentials that people make on the dashboard: bindings that no platform asked for. They go the
//! ways of every bind and unbind; here stands who may ask for it, and that they are shown once.

use std::sync::Arc;

use serde_json::Value;

use super::{
    BindRequest, Bindings, BrokerError, BrokerParts, FetchedBinding, UnbindRequest,
    binding::{BindDecision, unbind_in},
    session::{no_such_page, reached},
};
use crate::{
    clock::Clock,
    model::{
        binding::{Binding, BindingState, OnPage},
        ids::{BindingId, InstanceId},
        instance::Instance,
        limits::{CREDENTIALS_NAME_CHARS_MAX, CREDENTIALS_ON_PAGE_MAX},
        operation::OperationKind,
        origin::Origin,
        session::{OpenedWith, Session},
    },
    store::{self, Conn, Store, StoreError},
    timekeeper::Timekeeper,
};

/// What somebody asks for on the page.
#[derive(Debug, Clone)]
pub struct CredentialsRequest {
    /// The instance.
    pub instance: InstanceId,
    /// What they are to be called.
    pub name: String,
    /// Rights and end, as a platform would send them.
    pub parameters: Value,
}

/// The bindings of an instance, for a visitor.
#[derive(Debug)]
pub struct Credentials {
    /// All of them, the newest first.
    pub all: Vec<Credential>,
    /// The binding whose token let the visitor in, where it is of the same instance: what they make
    /// ends with it.
    pub with: Option<BindingId>,
}

/// A binding, for a visitor.
#[derive(Debug)]
pub struct Credential {
    /// The binding.
    pub binding: Binding,
    /// Whether the visitor may replace and end it.
    pub may_end: bool,
    /// Why it could not be made or ended.
    pub failure: Option<String>,
}

impl Credential {
    /// Whether its secrets wait to be shown.
    pub fn waits_to_be_shown(&self) -> bool {
        let binding = &self.binding;
        binding.request.on_page.is_some() && binding.sealed_credentials.is_some()
    }
}

/// Bindings that visitors of the pages make, see and end.
pub struct PageBindings {
    store: Arc<Store>,
    clock: Clock,
    time: Arc<Timekeeper>,
    bindings: Arc<Bindings>,
}

impl PageBindings {
    pub(super) fn new(parts: &BrokerParts, bindings: Arc<Bindings>) -> Self {
        Self {
            store: parts.store.clone(),
            clock: parts.clock.clone(),
            time: parts.time.clone(),
            bindings,
        }
    }

    /// The bindings of an instance that a session may see.
    pub async fn of_instance(
        &self,
        session: &Session,
        instance: InstanceId,
    ) -> Result<Credentials, BrokerError> {
        let session = session.clone();
        let found = self
            .store
            .read(move |conn| {
                let Some(instance) = reached(conn, &session, &instance)? else {
                    return Ok(None);
                };
                let mut bindings = store::binding::of_instance(conn, &instance.id)?;
                bindings.sort_by(|a, b| b.created_at.cmp(&a.created_at).then(b.id.cmp(&a.id)));
                let all = bindings.into_iter().map(|binding| {
                    Ok(Credential {
                        may_end: session.may_end(&instance, &binding),
                        failure: failure_of(conn, &binding)?,
                        binding,
                    })
                });
                let all = all.collect::<Result<_, StoreError>>()?;
                let with = made_with(conn, &session, &instance)?;
                Ok(Some(Credentials { all, with }))
            })
            .await?;
        found.ok_or_else(no_such_page)
    }

    /// Accepts the making of credentials; returns the binding that they become.
    pub async fn make(
        &self,
        session: &Session,
        request: CredentialsRequest,
    ) -> Result<BindingId, BrokerError> {
        check_name(&request.name)?;
        let (bindings, session, id) = (
            self.bindings.clone(),
            session.clone(),
            BindingId::generate(),
        );
        let made = id.clone();
        self.store
            .decide(move |conn| {
                let instance =
                    reached(conn, &session, &request.instance)?.ok_or_else(no_such_page)?;
                let on_page = OnPage {
                    name: request.name.clone(),
                    with: made_with(conn, &session, &instance)?,
                };
                let bind = BindRequest {
                    service_id: Some(instance.service_id.clone()),
                    plan_id: Some(instance.plan_id.clone()),
                    parameters: Some(request.parameters.clone()),
                    ..bind(&instance, id.clone(), on_page)
                };
                bind_for_page(&bindings, conn, &bind)
            })
            .await?;
        Ok(made)
    }

    /// Accepts the making of credentials with the rights of others, which stay until they are revoked.
    pub async fn rotate(
        &self,
        session: &Session,
        instance: InstanceId,
        predecessor: BindingId,
    ) -> Result<BindingId, BrokerError> {
        let (bindings, session, id) = (
            self.bindings.clone(),
            session.clone(),
            BindingId::generate(),
        );
        let made = id.clone();
        self.store
            .decide(move |conn| {
                let (instance, old) = may_end(conn, &session, &instance, &predecessor)?;
                let old_page = old.request.on_page;
                // What takes over from the visitor's own binding must not end with it.
                let with = match made_with(conn, &session, &instance)? {
                    Some(own) if own == predecessor => {
                        old_page.as_ref().and_then(|made| made.with.clone())
                    }
                    with => with,
                };
                let name = old_page.map_or_else(|| "rotated".to_owned(), |made| made.name);
                let bind = BindRequest {
                    predecessor: Some(predecessor.clone()),
                    ..bind(&instance, id.clone(), OnPage { name, with })
                };
                bind_for_page(&bindings, conn, &bind)
            })
            .await?;
        Ok(made)
    }

    /// Shows credentials that were made on the dashboard, and keeps them no more.
    pub async fn show(
        &self,
        session: &Session,
        instance: InstanceId,
        id: BindingId,
    ) -> Result<(Binding, FetchedBinding), BrokerError> {
        let (place, visitor) = ((instance.clone(), id.clone()), session.clone());
        let found = self
            .store
            .read(move |conn| {
                Ok(match reached(conn, &visitor, &place.0)? {
                    Some(_) => store::binding::find(conn, &place.0, &place.1)?,
                    None => None,
                })
            })
            .await?;
        let binding = found
            .filter(|binding| binding.request.on_page.is_some())
            .ok_or_else(no_such_page)?;
        if binding.state != BindingState::Ready || binding.is_expired(self.time.plausible()) {
            return Err(BrokerError::Concurrency(
                "These credentials are not usable: they are being made, or their time is over."
                    .to_owned(),
            ));
        }
        if binding.sealed_credentials.is_none() {
            return Err(shown_already());
        }
        let opened = self.bindings.open_binding(&binding).await?;
        self.bindings
            .note_credentials(instance.clone(), id.clone(), Origin::Dashboard)
            .await;
        // Of two that ask at once, one sees them.
        self.store
            .decide(move |conn| {
                let found = store::binding::find(conn, &instance, &id)?;
                if found.is_none_or(|binding| binding.sealed_credentials.is_none()) {
                    return Err(shown_already());
                }
                Ok(store::binding::forget_credentials(conn, &instance, &id)?)
            })
            .await?;
        Ok((binding, opened))
    }

    /// Accepts the end of credentials.
    pub async fn revoke(
        &self,
        session: &Session,
        instance: InstanceId,
        id: BindingId,
    ) -> Result<(), BrokerError> {
        let (session, now) = (session.clone(), self.clock.now());
        self.store
            .decide(move |conn| {
                let (instance, binding) = may_end(conn, &session, &instance, &id)?;
                let unbind = UnbindRequest {
                    instance: instance.id,
                    binding: id.clone(),
                    service_id: binding.request.service_id,
                    plan_id: binding.request.plan_id,
                    accepts_incomplete: true,
                    origin: Origin::Dashboard,
                };
                unbind_in(conn, &unbind, now).map(|_| ())
            })
            .await
    }
}

/// Accepts a bind request of the page, unless there are too many for it.
fn bind_for_page(
    bindings: &Bindings,
    conn: &mut Conn<'_>,
    bind: &BindRequest,
) -> Result<(), BrokerError> {
    let there = store::binding::of_instance(conn, &bind.instance)?.len();
    if there >= CREDENTIALS_ON_PAGE_MAX {
        return Err(BrokerError::Conflict(format!(
            "The instance has {there} credentials, and this page makes none beyond \
             {CREDENTIALS_ON_PAGE_MAX}. Revoke some that nobody uses."
        )));
    }
    match bindings.bind_in(conn, bind)? {
        BindDecision::Running(_) => Ok(()),
        // Its id is new.
        BindDecision::Exists(_) => Err(StoreError::Duplicate.into()),
    }
}

/// A bind request of the dashboard for an instance.
fn bind(instance: &Instance, id: BindingId, on_page: OnPage) -> BindRequest {
    BindRequest {
        instance: instance.id.clone(),
        binding: id,
        service_id: None,
        plan_id: None,
        bind_resource: None,
        parameters: None,
        predecessor: None,
        accepts_incomplete: true,
        on_page: Some(on_page),
    }
}

/// The binding of the instance whose token opened the session.
fn made_with(
    conn: &mut Conn<'_>,
    session: &Session,
    instance: &Instance,
) -> Result<Option<BindingId>, StoreError> {
    let OpenedWith::Token(token) = &session.opened_with else {
        return Ok(None);
    };
    let holder = store::binding::holder_of_token(conn, token)?;
    Ok(holder.and_then(|(of, binding)| (of == instance.id).then_some(binding)))
}

/// A binding that a session may end, with its instance.
fn may_end(
    conn: &mut Conn<'_>,
    session: &Session,
    instance: &InstanceId,
    id: &BindingId,
) -> Result<(Instance, Binding), BrokerError> {
    let instance = reached(conn, session, instance)?.ok_or_else(no_such_page)?;
    let binding = store::binding::find(conn, &instance.id, id)?.ok_or_else(no_such_page)?;
    if session.may_end(&instance, &binding) {
        return Ok((instance, binding));
    }
    Err(BrokerError::Denied(
        "A platform asked for these credentials: it replaces and ends them, and so may the operator \
         of the broker."
            .to_owned(),
    ))
}

/// Why a binding could not be made or ended.
fn failure_of(conn: &mut Conn<'_>, binding: &Binding) -> Result<Option<String>, StoreError> {
    if binding.state != BindingState::Failed {
        return Ok(None);
    }
    let kinds = [OperationKind::Bind, OperationKind::Unbind];
    let newest = store::operation::newest(conn, &binding.instance, Some(&binding.id), &kinds)?;
    Ok(newest.and_then(|operation| operation.failure))
}

fn check_name(name: &str) -> Result<(), BrokerError> {
    let letters = 1..=CREDENTIALS_NAME_CHARS_MAX;
    if letters.contains(&name.chars().count()) && !name.chars().any(char::is_control) {
        return Ok(());
    }
    Err(BrokerError::BadRequest(format!(
        "A name has from 1 to {CREDENTIALS_NAME_CHARS_MAX} characters, and no control characters."
    )))
}

fn shown_already() -> BrokerError {
    BrokerError::Conflict(
        "These credentials were shown already, once, and are not kept. Rotate them, or make others."
            .to_owned(),
    )
}
