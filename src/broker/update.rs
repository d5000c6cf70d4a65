//! Update service instances: their context at once, size and version by an operation.

use std::sync::Arc;

use serde_json::Value;

use super::{
    BrokerError, BrokerParts, backup,
    instance::{check_maintenance, name_in},
    instance_key,
    inventory::Inventory,
    observation::Observer,
    quota::Quotas,
    target::Targets,
    tenant_key::{self, with_public_key},
};
use crate::{
    clock::Clock,
    model::{
        audit::AtOnce,
        catalog::Plan,
        deployment::{Deployment, Shape},
        ids::InstanceId,
        instance::{DELETE_BACKUPS, DELETE_PROTECTION, Instance, InstanceState, normal_form},
        observation::Observation,
        operation::{Operation, OperationKind},
        origin::Origin,
        parameters::UpdateParameters,
        placement::Candidate,
        schedule::Schedule,
        sentence::{counted, is_or_are},
        update::{Change, UpdateIdentity, fits, merged},
        version::Version,
    },
    store::{self, Conn, Store, StoreError},
    timekeeper::Timekeeper,
};

/// OSB "Updating a Service Instance".
#[derive(Debug, Clone)]
pub struct UpdateRequest {
    /// The instance.
    pub instance: InstanceId,
    /// OSB `service_id`.
    pub service_id: String,
    /// OSB `plan_id`; absent: the plan stays.
    pub plan_id: Option<String>,
    /// OSB `context`.
    pub context: Option<Value>,
    /// OSB `parameters`.
    pub parameters: Option<Value>,
    /// OSB `maintenance_info.version`.
    pub maintenance_version: Option<String>,
    /// Whether the client takes an answer before the end.
    pub accepts_incomplete: bool,
    /// Where it comes from: `osb`, `compose`.
    pub origin: Origin,
}

impl UpdateRequest {
    /// Asks for other parameters, from elsewhere than the platform.
    pub fn of(instance: &Instance, parameters: Value, origin: Origin) -> Self {
        Self {
            instance: instance.id.clone(),
            service_id: instance.service_id.clone(),
            plan_id: None,
            context: None,
            parameters: Some(parameters),
            maintenance_version: None,
            accepts_incomplete: true,
            origin,
        }
    }
}

/// What came of an update request.
#[derive(Debug, Clone, PartialEq)]
pub enum Updated {
    /// There is nothing (more) to be done.
    Done,
    /// It is being worked on.
    Accepted(Box<Operation>),
}

fn refused(reason: impl Into<String>, repeatable: bool) -> BrokerError {
    BrokerError::UpdateRefused {
        reason: reason.into(),
        repeatable,
    }
}

fn read(parameters: &Value) -> Result<UpdateParameters, BrokerError> {
    serde_json::from_value(parameters.clone())
        .map_err(|e| bad(format!("the parameters cannot be read: {e}")))
}

fn bad(refusal: impl std::fmt::Display) -> BrokerError {
    BrokerError::BadRequest(refusal.to_string())
}

/// Makes instances into something else.
pub struct Updates {
    store: Arc<Store>,
    clock: Clock,
    time: Arc<Timekeeper>,
    inventory: Arc<Inventory>,
    observer: Arc<dyn Observer>,
    quotas: Quotas,
    targets: Targets,
}

impl Updates {
    pub(super) fn new(parts: &BrokerParts, inventory: Arc<Inventory>) -> Self {
        Self {
            store: parts.store.clone(),
            clock: parts.clock.clone(),
            time: parts.time.clone(),
            observer: parts.observer.clone(),
            quotas: Quotas::new(parts),
            targets: Targets::new(parts, inventory.clone()),
            inventory,
        }
    }

    /// Accepts an update, or finds that there is nothing to do.
    pub async fn update(self: &Arc<Self>, request: UpdateRequest) -> Result<Updated, BrokerError> {
        let seen = self.look_at_size(&request).await?;
        let updates = self.clone();
        self.store
            .decide(move |conn| updates.update_in(conn, &request, seen.as_deref()))
            .await
    }

    /// How large the database is, when it may become smaller than it is now.
    pub(super) async fn look_at_size(
        &self,
        request: &UpdateRequest,
    ) -> Result<Option<Arc<Observation>>, BrokerError> {
        let units = request.parameters.as_ref().and_then(|p| p.get("units"));
        let Some(units) = units.and_then(Value::as_f64) else {
            return Ok(None);
        };
        let id = request.instance.clone();
        let found = self
            .store
            .read(move |conn| store::deployment::of_instance(conn, &id))
            .await?;
        match found {
            Some((deployment, Some(_))) if units < f64::from(deployment.units) => {
                Ok(self.observer.look(&deployment).await)
            }
            _ => Ok(None),
        }
    }

    pub(super) fn update_in(
        &self,
        conn: &mut Conn<'_>,
        request: &UpdateRequest,
        seen: Option<&Observation>,
    ) -> Result<Updated, BrokerError> {
        let Some(instance) = store::instance::find(conn, &request.instance)? else {
            let reason = "there is no such service instance";
            return Err(BrokerError::NotFound(reason.to_owned()));
        };
        let plan = self.plan_of_update(&instance, request)?;
        check_state(&instance)?;
        let parameters = checked_parameters(&plan, request)?;
        let key = tenant_key::public_key(&parameters)?;
        check_maintenance(&plan, request.maintenance_version.as_deref())?;
        let (deployment, _) = store::deployment::of_instance(conn, &instance.id)?
            .ok_or_else(|| StoreError::Missing("the instance's deployment".to_owned()))?;
        let goal = self.goal(&deployment, &parameters, request)?;
        let schedule = self.schedule(conn, &instance, &plan, &parameters)?;
        let identity = UpdateIdentity {
            parameters,
            maintenance_version: request.maintenance_version.clone(),
        };
        // Some platforms send it along with everything.
        if let Some(context) = &request.context {
            self.take_over_context(conn, &instance, context, request.origin)?;
        }
        let running = store::operation::under_way(conn, &instance.id, OperationKind::Update)?;
        let is_same = |o: &Operation| o.change.as_ref().is_some_and(|c| c.request == identity);
        let asks_nothing = identity.parameters == normal_form(None)
            && (identity.maintenance_version.is_none() || goal == deployment.shape());
        match running {
            Some(running) if is_same(&running) && request.accepts_incomplete => {
                return Ok(Updated::Accepted(Box::new(running)));
            }
            Some(running) if is_same(&running) => return Err(BrokerError::AsyncRequired),
            _ if asks_nothing => return Ok(Updated::Done),
            Some(_) => return Err(being_updated()),
            None => {}
        }
        let after = merged(&instance.parameters, &identity.parameters);
        let after = with_public_key(after, key.clone());
        if goal == deployment.shape() && deployment.is_in_one_shape() {
            self.do_at_once(conn, &instance, &after, schedule.as_ref(), request.origin)?;
            return Ok(Updated::Done);
        }
        if !request.accepts_incomplete {
            return Err(BrokerError::AsyncRequired);
        }
        let change = Change {
            request: identity,
            from: deployment.shape(),
            path: self.path(&deployment, goal)?,
            parameters: after,
        };
        check_size(&deployment, goal, seen)?;
        self.check_capacity(conn, &instance, &deployment, goal)?;
        self.set_schedule(conn, schedule.as_ref(), request.origin)?;
        self.set_public_key(conn, &instance, key, request.origin)?;
        let operation = self.accept_update(conn, &instance, change, request.origin)?;
        Ok(Updated::Accepted(Box::new(operation)))
    }

    /// Does what needs no operation, and adds each of it to the audit by its name.
    fn do_at_once(
        &self,
        conn: &mut Conn<'_>,
        instance: &Instance,
        parameters: &Value,
        schedule: Option<&Schedule>,
        origin: Origin,
    ) -> Result<(), BrokerError> {
        self.set_schedule(conn, schedule, origin)?;
        if *parameters == instance.parameters {
            return Ok(());
        }
        store::instance::set_parameters(conn, &instance.id, parameters)?;
        let turned = turned(&instance.parameters, parameters);
        if turned.is_empty() && schedule.is_none() {
            self.done_at_once(conn, AtOnce::Parameters, &instance.id, origin)?;
        }
        turned
            .into_iter()
            .try_for_each(|what| self.done_at_once(conn, what, &instance.id, origin))
    }

    /// Writes down what the platform says of the instance now.
    fn take_over_context(
        &self,
        conn: &mut Conn<'_>,
        instance: &Instance,
        context: &Value,
        origin: Origin,
    ) -> Result<(), BrokerError> {
        // A context that tells no name takes none away.
        let name = name_in(context)?.or_else(|| instance.name.clone());
        if *context == instance.context && name == instance.name {
            return Ok(());
        }
        check_name_is_free(conn, instance, name.as_deref())?;
        store::instance::set_context(conn, &instance.id, context, name.as_deref())?;
        self.done_at_once(conn, AtOnce::Context, &instance.id, origin)
    }

    /// Adds to the audit what needed no operation.
    fn done_at_once(
        &self,
        conn: &mut Conn<'_>,
        what: AtOnce,
        instance: &InstanceId,
        origin: Origin,
    ) -> Result<(), BrokerError> {
        let now = self.clock.now();
        Ok(store::audit::done(conn, what, origin, Some(instance), now)?)
    }

    /// The instance's own plan, when the request names no other one.
    fn plan_of_update(
        &self,
        instance: &Instance,
        request: &UpdateRequest,
    ) -> Result<Arc<Plan>, BrokerError> {
        let wanted = request.plan_id.as_deref().unwrap_or(&instance.plan_id);
        let (offering, plan) = self
            .inventory
            .offering_and_plan(&request.service_id, wanted)?;
        if request.service_id != instance.service_id {
            return Err(bad("service_id is not that of the service instance"));
        }
        if wanted != instance.plan_id {
            let name = |id: &str| {
                offering
                    .plan(id)
                    .map_or("another plan", |p| p.name.as_str())
            };
            let reason = format!(
                "an instance of {} cannot become one of {}: it would have to move to another \
                 cluster; make a new instance of that plan from a backup",
                name(&instance.plan_id),
                plan.name
            );
            return Err(refused(reason, false));
        }
        Ok(plan)
    }

    /// The schedule of backups from now on; none: it stays.
    fn schedule(
        &self,
        conn: &mut Conn<'_>,
        instance: &Instance,
        plan: &Plan,
        parameters: &Value,
    ) -> Result<Option<Schedule>, BrokerError> {
        let asked = read(parameters)?;
        if !asked.asks_for_schedule() {
            return Ok(None);
        }
        let now = store::schedule::find(conn, &instance.id)?
            .ok_or_else(|| StoreError::Missing("the instance's schedule".to_owned()))?;
        let bounds = plan.rules.backup_schedule;
        let timetable = now.timetable.changed(&asked, bounds).map_err(bad)?;
        let is_another = timetable != now.timetable;
        Ok(is_another.then(|| now.with(timetable, self.time.plausible())))
    }

    fn set_schedule(
        &self,
        conn: &mut Conn<'_>,
        schedule: Option<&Schedule>,
        origin: Origin,
    ) -> Result<(), BrokerError> {
        let Some(schedule) = schedule else {
            return Ok(());
        };
        store::schedule::set_timetable(conn, schedule)?;
        self.done_at_once(conn, AtOnce::Schedule, &schedule.instance, origin)
    }

    /// Has backups sealed for another key at once: the one that an upgrade begins with, too.
    fn set_public_key(
        &self,
        conn: &mut Conn<'_>,
        instance: &Instance,
        key: Option<Option<String>>,
        origin: Origin,
    ) -> Result<(), BrokerError> {
        let parameters = with_public_key(instance.parameters.clone(), key);
        if parameters == instance.parameters {
            return Ok(());
        }
        store::instance::set_parameters(conn, &instance.id, &parameters)?;
        self.done_at_once(conn, AtOnce::Parameters, &instance.id, origin)
    }

    /// What the deployment is to become.
    fn goal(
        &self,
        deployment: &Deployment,
        parameters: &Value,
        request: &UpdateRequest,
    ) -> Result<Shape, BrokerError> {
        let asked = read(parameters)?;
        let units = asked.units.unwrap_or(deployment.units);
        let most = self.inventory.units_max(&deployment.engine);
        if asked.units.is_some() && !(1..=most).contains(&units) {
            return Err(bad(format!(
                "units is {units}; an instance has from 1 to {most} units"
            )));
        }
        let available = self
            .inventory
            .versions_on(&deployment.cluster, &deployment.engine);
        let profile = self.inventory.profile(&deployment.engine)?;
        let wanted = asked.db_version.as_deref();
        let wanted = wanted.map(|v| profile.for_upgrade(v, &available));
        let wanted = wanted.transpose().map_err(bad)?;
        // An instance that was made newer than its plan asks for stays so.
        let maintained = request.maintenance_version.as_deref();
        let maintained: Option<Version> = maintained.and_then(|v| v.parse().ok());
        let maintained = maintained.filter(|v| *v > deployment.version);
        let version = match (wanted, maintained) {
            (Some(wanted), Some(maintained)) if wanted != maintained => {
                return Err(bad(format!(
                    "db_version {wanted} and maintenance_info.version {maintained} contradict \
                     each other; give one of them"
                )));
            }
            (wanted, maintained) => wanted.or(maintained).unwrap_or(deployment.version),
        };
        Ok(Shape { version, units })
    }

    /// The shapes on the way to the goal; the new size is had from the first one on.
    fn path(&self, deployment: &Deployment, goal: Shape) -> Result<Vec<Shape>, BrokerError> {
        let available = self
            .inventory
            .versions_on(&deployment.cluster, &deployment.engine);
        if goal.version != deployment.version && !available.contains(&goal.version) {
            let (engine, version) = (&deployment.engine, goal.version);
            let reason = format!("{engine} {version} is not available at the moment");
            return Err(refused(reason, true));
        }
        let hops = self
            .inventory
            .profile(&deployment.engine)?
            .hops(deployment.version, goal.version, &available)
            .map_err(|refusal| refused(refusal.to_string(), false))?;
        if hops.is_empty() {
            return Ok(vec![goal]);
        }
        self.check_exposure(deployment, &hops)?;
        let through = |version| Shape { version, ..goal };
        Ok(hops.into_iter().map(through).collect())
    }

    /// Members that are kept on loopback go through any version, to one that may be reached.
    fn check_exposure(&self, deployment: &Deployment, hops: &[Version]) -> Result<(), BrokerError> {
        let profile = self.inventory.profile(&deployment.engine)?;
        let exposure = self.inventory.exposure(&deployment.cluster);
        let is_reached = profile.is_reached_from_elsewhere(deployment);
        let looked_at = if is_reached {
            hops
        } else {
            &hops[hops.len() - 1..]
        };
        let available = self
            .inventory
            .versions_on(&deployment.cluster, &deployment.engine);
        let newer = available.iter().copied();
        let newer: Vec<Version> = newer.filter(|v| *v > deployment.version).collect();
        looked_at
            .iter()
            .try_for_each(|version| exposure.check(profile, *version, &newer))
            .map_err(|refusal| refused(refusal.to_string(), false))
    }

    /// The most units that an instance can have now: its tenant's quota and its cluster's room bound them.
    pub(super) fn most_units(
        &self,
        conn: &mut Conn<'_>,
        instance: &Instance,
        deployment: &Deployment,
    ) -> Result<(u32, Option<String>), BrokerError> {
        let of_engine = self.inventory.units_max(&deployment.engine);
        let (mut most, mut too_many) = (deployment.units, of_engine + 1);
        let mut why = None;
        while too_many > most + 1 {
            let goal = Shape {
                units: most.midpoint(too_many),
                ..deployment.shape()
            };
            match self.check_capacity(conn, instance, deployment, goal) {
                Ok(()) => most = goal.units,
                Err(BrokerError::UpdateRefused { reason, .. }) => {
                    (too_many, why) = (goal.units, Some(reason));
                }
                Err(other) => return Err(other),
            }
        }
        Ok((most, why))
    }

    fn check_capacity(
        &self,
        conn: &mut Conn<'_>,
        instance: &Instance,
        deployment: &Deployment,
        goal: Shape,
    ) -> Result<(), BrokerError> {
        let more = goal.units.saturating_sub(deployment.units);
        if more == 0 {
            return Ok(());
        }
        self.quotas
            .units_within_quota(conn, &instance.tenant, more)?
            .map_err(|refusal| refused(refusal.to_string(), true))?;
        let candidates = self.targets.candidates(conn)?;
        let cluster = candidates
            .iter()
            .find(|candidate| candidate.cluster.id == deployment.cluster);
        match cluster.and_then(Candidate::units_free_to_grow) {
            Some(free) if free < u64::from(more) => {
                let reason = format!(
                    "the instance's cluster has no room for {} more, {free} {} free; ask for \
                     fewer units, or the operator for more",
                    counted(more, "unit"),
                    is_or_are(free)
                );
                Err(refused(reason, true))
            }
            _ => Ok(()),
        }
    }

    fn accept_update(
        &self,
        conn: &mut Conn<'_>,
        instance: &Instance,
        change: Change,
        origin: Origin,
    ) -> Result<Operation, BrokerError> {
        let now = self.clock.now();
        let mut operation = Operation::queued(OperationKind::Update, &instance.id, origin, now);
        if change.upgrades() {
            let now = self.time.plausible();
            let of = (&instance.id, &instance.deployment);
            let taken = backup::queue_safety_backup(conn, of, &operation.id, origin, now)?;
            operation.backup = taken.backup;
        }
        operation.change = Some(change);
        store::operation::insert(conn, &operation, Some(&instance_key(&instance.id)))?;
        Ok(operation)
    }
}

/// The parameters that are on or off, and were otherwise before.
fn turned(before: &Value, after: &Value) -> Vec<AtOnce> {
    [
        (
            DELETE_PROTECTION,
            AtOnce::ProtectionOn,
            AtOnce::ProtectionOff,
        ),
        (
            DELETE_BACKUPS,
            AtOnce::DeleteBackupsOn,
            AtOnce::DeleteBackupsOff,
        ),
    ]
    .into_iter()
    .filter_map(|(name, on, off)| {
        let is_on = |of: &Value| of[name] == true;
        (is_on(before) != is_on(after)).then_some(if is_on(after) { on } else { off })
    })
    .collect()
}

/// The parameters of an update in normal form, when they fit its plan. A private key among them is not repeated.
fn checked_parameters(plan: &Plan, request: &UpdateRequest) -> Result<Value, BrokerError> {
    let parameters = normal_form(request.parameters.as_ref());
    tenant_key::refuse_private_key(&parameters)?;
    plan.update_schema.check(&parameters).map_err(|reason| {
        bad(format!(
            "the parameters do not fit the plan's schema: {reason}"
        ))
    })?;
    Ok(parameters)
}

/// Of what the broker itself made of a backup, no two have one name; platforms name as they like.
pub(super) fn check_name_is_free(
    conn: &mut Conn<'_>,
    instance: &Instance,
    name: Option<&str>,
) -> Result<(), BrokerError> {
    let Some(name) = name.filter(|name| Some(*name) != instance.name.as_deref()) else {
        return Ok(());
    };
    if instance.restored_from.is_some() && store::instance::is_named(conn, &instance.tenant, name)?
    {
        let reason = format!("another instance has the name {name:?}");
        return Err(BrokerError::Conflict(reason));
    }
    Ok(())
}

fn check_state(instance: &Instance) -> Result<(), BrokerError> {
    match instance.state {
        InstanceState::Ready => Ok(()),
        InstanceState::Provisioning => Err(BrokerError::Concurrency(
            "the service instance is not ready yet".to_owned(),
        )),
        InstanceState::Deleting => Err(BrokerError::Concurrency(
            "the service instance is being deleted".to_owned(),
        )),
        InstanceState::Failed => Err(BrokerError::Concurrency(
            "the service instance has failed; deprovision it".to_owned(),
        )),
    }
}

fn check_size(
    deployment: &Deployment,
    goal: Shape,
    seen: Option<&Observation>,
) -> Result<(), BrokerError> {
    if goal.units >= deployment.units {
        return Ok(());
    }
    let all = |seen: &&Observation| seen.serving() == deployment.members.len();
    let Some(bytes) = seen.filter(all).and_then(Observation::database_bytes) else {
        let reason = "not all members say how large the database is at the moment; try again";
        return Err(refused(reason, true));
    };
    if fits(bytes, goal) {
        return Ok(());
    }
    let mebibytes = bytes.div_ceil(1024 * 1024);
    let quota = goal.quota_bytes() / (1024 * 1024);
    let reason = format!(
        "the database has {mebibytes} MiB and does not fit {}, {quota} MiB; deleting keys makes it \
         smaller once room is made",
        counted(goal.units, "unit")
    );
    Err(refused(reason, false))
}

/// Refuses what cannot be done while members of an instance are changed.
pub(super) fn check_not_updating(
    conn: &mut Conn<'_>,
    instance: &InstanceId,
) -> Result<(), BrokerError> {
    if store::operation::is_active(conn, instance, OperationKind::Update)? {
        return Err(being_updated());
    }
    Ok(())
}

fn being_updated() -> BrokerError {
    let reason = "the service instance is being updated; try again when that is done";
    BrokerError::Concurrency(reason.to_owned())
}
