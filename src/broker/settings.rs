//! What visitors of the dashboard change about an instance itself: its name, its size, its end. All of it
//! goes the ways of the platform's requests; here stands who may ask for it, and what it would do.

use std::sync::Arc;

use serde_json::json;

use super::{
    BrokerError, BrokerParts, DeploymentView, DeprovisionRequest, UpdateRequest, Updated,
    instance::deprovision_in,
    inventory::Inventory,
    provision::INSTANCE_NAME,
    session::{no_such_page, reached},
    update::{Updates, check_name_is_free},
    vitals::Vitals,
};
use crate::{
    clock::Clock,
    model::{
        audit::AtOnce,
        deployment::Shape,
        ids::{InstanceId, OperationId},
        instance::{Instance, InstanceState},
        limits::UNITS_MAX,
        name,
        observation::MemberObservation,
        origin::Origin,
        sentence::capitalized,
        session::Session,
        update::{fits, waits_for_members},
    },
    store::{self, Conn, Store, StoreError},
};

/// The sizes that an instance can have now, in units.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Sizes {
    /// The fewest that hold what its members hold; none where no member tells.
    pub fewest: Option<u32>,
    /// Whether it is full at the size that it has.
    pub is_full: bool,
    /// The most that its cluster has room for and its tenant may have.
    pub most: u32,
    /// Why it can have no more than that now; none where no instance can.
    pub why: Option<String>,
}

/// What another size would do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SizePreflight {
    /// The size that was asked for, in units.
    pub units: u32,
    /// Why it would not be done now; none when it would.
    pub refusal: Option<String>,
    /// What it would wait for, in sentences for people; none where nothing is known of that.
    pub waits: Option<String>,
}

/// How a rehearsal ends: always by taking back what was decided.
enum Rehearsed {
    Accepted,
    Refused(BrokerError),
}

impl From<StoreError> for Rehearsed {
    fn from(error: StoreError) -> Self {
        Self::Refused(error.into())
    }
}

/// What visitors change about instances themselves.
pub struct Settings {
    store: Arc<Store>,
    clock: Clock,
    inventory: Arc<Inventory>,
    updates: Arc<Updates>,
    vitals: Arc<Vitals>,
    /// How many days the audit goes on telling of an instance that is gone; none: for ever.
    pub audit_days: Option<u32>,
}

impl Settings {
    pub(super) fn new(
        parts: &BrokerParts,
        inventory: Arc<Inventory>,
        updates: Arc<Updates>,
        vitals: Arc<Vitals>,
    ) -> Self {
        Self {
            store: parts.store.clone(),
            clock: parts.clock.clone(),
            inventory,
            updates,
            vitals,
            audit_days: parts.audit_days,
        }
    }

    /// The sizes that an instance can have now.
    pub async fn sizes(&self, of: &DeploymentView) -> Result<Sizes, BrokerError> {
        let seen = self.vitals.observation(&of.deployment);
        let bytes = seen.as_ref().and_then(|seen| seen.database_bytes());
        let is_full = of.deployment.closed_since.is_some()
            || seen.is_some_and(|seen| seen.is_full())
            || bytes.is_some_and(|bytes| bytes >= of.deployment.quota_bytes());
        let version = of.deployment.version;
        let holds = |bytes, units| fits(bytes, Shape { version, units });
        let fewest = bytes.and_then(|bytes| (1..=UNITS_MAX).find(|units| holds(bytes, *units)));
        let updates = self.updates.clone();
        let (instance, deployment) = (of.instance.clone(), of.deployment.clone());
        let most = self
            .store
            .scan(move |conn| Ok(updates.most_units(conn, &instance, &deployment)));
        let (most, why) = most.await??;
        Ok(Sizes {
            fewest,
            is_full,
            most,
            why,
        })
    }

    /// What another size of an instance would do. Nothing is changed: the rules are those of the
    /// scaling itself, whose decision is taken back.
    pub async fn preflight_of_size(
        &self,
        of: &DeploymentView,
        units: u32,
    ) -> Result<SizePreflight, BrokerError> {
        let parameters = json!({ "units": units });
        let request = UpdateRequest::of(&of.instance, parameters, Origin::Dashboard);
        let seen = self.updates.look_at_size(&request).await?;
        let updates = self.updates.clone();
        let rehearsed = self.store.decide(move |conn| -> Result<(), Rehearsed> {
            Err(match updates.update_in(conn, &request, seen.as_deref()) {
                Ok(Updated::Accepted(_)) => Rehearsed::Accepted,
                Ok(Updated::Done) => Rehearsed::Refused(BrokerError::UpdateRefused {
                    reason: "it has this size already".to_owned(),
                    repeatable: true,
                }),
                Err(refusal) => Rehearsed::Refused(refusal),
            })
        });
        let refusal = match rehearsed.await {
            Ok(()) | Err(Rehearsed::Accepted) => None,
            Err(Rehearsed::Refused(
                error @ (BrokerError::Store(_) | BrokerError::StoreFull(_) | BrokerError::Seal(_)),
            )) => return Err(error),
            Err(Rehearsed::Refused(refusal)) => Some(refusal.to_string()),
        };
        let seen = self.vitals.observation(&of.deployment);
        let down = |seen: &MemberObservation| {
            let trouble = seen.health.trouble()?;
            Some(format!("The member {} {trouble}.", seen.name))
        };
        let down: Vec<String> = (seen.iter())
            .flat_map(|seen| seen.members.iter().filter_map(down))
            .collect();
        let waits = (!down.is_empty() && refusal.is_none())
            .then(|| format!("{} {}.", down.join(" "), capitalized(&waits_for_members())));
        Ok(SizePreflight {
            units,
            refusal,
            waits,
        })
    }

    /// Gives an instance another name, where no platform names it.
    pub async fn rename(
        &self,
        session: &Session,
        id: InstanceId,
        name: String,
    ) -> Result<(), BrokerError> {
        let (session, now) = (session.clone(), self.clock.now());
        self.store
            .decide(move |conn| {
                let instance = reached(conn, &session, &id)?.ok_or_else(no_such_page)?;
                if !Self::may_rename(&session, &instance) {
                    return Err(BrokerError::Denied(
                        "The platform names this instance: rename it there.".to_owned(),
                    ));
                }
                name::check(&name)
                    .map_err(|refusal| BrokerError::BadRequest(refusal.to_string()))?;
                if instance.state == InstanceState::Deleting {
                    let reason = "The instance is being deleted.";
                    return Err(BrokerError::Concurrency(reason.to_owned()));
                }
                if instance.name.as_deref() == Some(name.as_str()) {
                    return Ok(());
                }
                check_name_is_free(conn, &instance, Some(&name))?;
                let mut context = instance.context.clone();
                // What the broker restored it named in a platform's way.
                if is_named_by_context(&instance) {
                    context[INSTANCE_NAME] = name.as_str().into();
                }
                store::instance::set_context(conn, &instance.id, &context, Some(&name))?;
                let what = AtOnce::Name;
                store::audit::done(conn, what, Origin::Dashboard, Some(&instance.id), now)?;
                Ok(())
            })
            .await
    }

    /// Whether the user of a session may give an instance another name. A platform that names an
    /// instance says so again with its next update.
    pub fn may_rename(session: &Session, instance: &Instance) -> bool {
        let is_ours = instance.restored_from.is_some() || !is_named_by_context(instance);
        is_ours && !session.is_read_only()
    }

    /// Accepts the deletion of an instance that the user of a session may delete.
    pub async fn delete(
        &self,
        session: &Session,
        id: InstanceId,
    ) -> Result<OperationId, BrokerError> {
        let (session, now) = (session.clone(), self.clock.now());
        let inventory = self.inventory.clone();
        self.store
            .decide(move |conn| {
                let instance = deletable(conn, &session, &id)?;
                let request = DeprovisionRequest {
                    instance: instance.id,
                    service_id: instance.service_id,
                    plan_id: instance.plan_id,
                    accepts_incomplete: true,
                    origin: Origin::Dashboard,
                };
                deprovision_in(conn, &inventory, &request, now)
            })
            .await
    }
}

/// Whether the platform's context tells a name.
fn is_named_by_context(instance: &Instance) -> bool {
    let name = instance.context[INSTANCE_NAME].as_str();
    name.is_some_and(|name| !name.is_empty())
}

/// An instance that the user of a session may delete.
fn deletable(
    conn: &mut Conn<'_>,
    session: &Session,
    id: &InstanceId,
) -> Result<Instance, BrokerError> {
    let instance = reached(conn, session, id)?.ok_or_else(no_such_page)?;
    if session.may_stand_in_for_platform(&instance) {
        return Ok(instance);
    }
    Err(BrokerError::Denied(
        "A platform asked for this instance: it deletes it, and so may the operator of the broker."
            .to_owned(),
    ))
}
