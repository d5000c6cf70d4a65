//! What the dashboard shows of instances: facts of one moment, read in one transaction.

use std::{sync::Arc, time::Duration};

use chrono::{DateTime, Utc};

use super::{
    BrokerError, BrokerParts, DeploymentView, Restored, Source,
    alert::{Beside, backup_watch, beside},
    backup::back_up_in,
    deployment::{Task, source_of, tasks, trusted_authorities},
    fate::page_code,
    health::life,
    inventory::{Inventory, Kept},
    page,
    restore::restores_in,
    session::{no_such_page, reached},
    vitals::Vitals,
};
use crate::{
    clock::Clock,
    model::{
        alert::{Alert, BackupWatch, DatabaseWatch, Subject, alerts},
        backup::{Backup, BackupState},
        catalog::Placement,
        deleted::DeletedInstance,
        deployment::{Deployment, Notes},
        engine::Profile,
        health::{Health, Life, health},
        ids::{BackupId, InstanceId, OperationId},
        instance::{Instance, InstanceState},
        limits::{
            INSTANCES_ON_A_PAGE, RECIPES_MAX, TASKS_ON_A_PAGE, deleted::DELETED_RESTORES_SHOWN,
        },
        observation::Observation,
        operation::{Operation, OperationKind},
        origin::Origin,
        queue::Limits,
        retention::Rules,
        session::Session,
        timetable::{Timetable, TimetableBounds},
    },
    seal::KeyRing,
    store::{self, Conn, Store, StoreError},
};

/// All that is known of one instance.
#[derive(Debug)]
pub struct InstanceView {
    /// The instance and its deployment.
    pub of: DeploymentView,
    /// What is known of its engine; absent: this broker has it no more.
    pub profile: Option<&'static Profile>,
    /// The offering's name; its id when the catalog has it no more.
    pub offering: String,
    /// The plan's name; its id when the catalog has it no more.
    pub plan: String,
    /// Where the plan's instances go.
    pub placement: Placement,
    /// How many backups are kept by the plan.
    pub kept: Kept,
    /// The backups that are listed, newest first.
    pub backups: Vec<Backup>,
    /// Its operations, newest first.
    pub operations: Vec<Operation>,
    /// When the schedule takes the next backup.
    pub next_backup: Option<DateTime<Utc>>,
    /// How its backups are taken and kept.
    pub timetable: Timetable,
    /// What its users may choose of that; none: nothing.
    pub timetable_bounds: Option<TimetableBounds>,
    /// Where it is in its life, and what is done to it.
    pub life: Life,
    /// What is known of its scheduled backups.
    pub watch: BackupWatch,
    /// What is known of its database beside what its members tell.
    pub database: DatabaseWatch,
    /// Whether its backups are copied into a mirror.
    pub mirrors_backups: bool,
    /// What was restored from it, newest first.
    pub restores: Vec<Restored>,
    /// What was restored from it and deleted again, as long as backups of that are kept; the newest in front.
    pub deleted_restores: Vec<DeletedInstance>,
    /// Whether the page of what it was restored from may be seen.
    pub reaches_source: bool,
    /// By what a page of it asks what became of it ([`Fates::of`](super::Fates::of)).
    pub page_code: String,
    /// The moment.
    pub now: DateTime<Utc>,
}

/// What is read of an instance beside its own rows.
struct Facts {
    notes: Notes,
    backups: Vec<Backup>,
    operations: Vec<Operation>,
    life: Life,
    watch: BackupWatch,
    beside: Beside,
    restores: Vec<Restored>,
    deleted_restores: Vec<DeletedInstance>,
    source: Option<Source>,
    reaches_source: bool,
}

/// An instance as it was found.
struct Found {
    instance: Instance,
    /// With its sealed secrets.
    deployment: (Deployment, Option<String>),
    facts: Facts,
}

/// Reads an instance, if the session may see it.
fn found(
    conn: &mut Conn<'_>,
    session: &Session,
    id: &InstanceId,
    inventory: &Inventory,
    (limits, now): (&Limits, DateTime<Utc>),
) -> Result<Option<Found>, StoreError> {
    let Some(instance) = reached(conn, session, id)? else {
        return Ok(None);
    };
    let Some(deployment) = store::deployment::of_instance(conn, id)? else {
        return Ok(None);
    };
    let backups = store::backup::listed(conn, id)?;
    let source = source_of(conn, id)?;
    let mut operations = store::operation::of_instance(conn, id, RECIPES_MAX)?;
    store::queue::find_waits(conn, &mut operations, limits, now)?;
    let facts = Facts {
        notes: store::notes::of(conn, &deployment.0.id)?,
        watch: backup_watch(conn, &instance, &backups, inventory.promises(&instance))?,
        beside: beside(conn, &deployment.0, now)?,
        backups,
        life: life(conn, &instance)?,
        operations,
        restores: restores_in(conn, &instance)?,
        deleted_restores: store::deleted::restored_from(
            conn,
            &instance.deployment,
            DELETED_RESTORES_SHOWN,
        )?,
        reaches_source: match source.as_ref().filter(|source| source.exists) {
            Some(source) => reached(conn, session, &source.of.instance)?.is_some(),
            None => false,
        },
        source,
    };
    Ok(Some(Found {
        instance,
        deployment,
        facts,
    }))
}

/// An instance as it stands in a list.
#[derive(Debug)]
pub struct InstanceListed {
    /// The instance.
    pub instance: Instance,
    /// Its deployment; none where it has just gone.
    pub deployment: Option<Deployment>,
    /// How it is, as its members were seen last.
    pub health: Health,
}

/// What was done to an instance and is done, newest first.
#[derive(Debug)]
pub struct TasksPage {
    /// The operations.
    pub tasks: Vec<Task>,
    /// Where the ones before those begin, when there are any.
    pub next: Option<OperationId>,
}

/// What came of asking for a backup.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum BackUpNow {
    /// It is being worked on.
    Accepted(OperationId),
    /// One is being taken already; nothing further was begun.
    Running(OperationId),
}

impl InstanceView {
    /// What people call it: by its name where one is known, else by its id.
    pub fn name(&self) -> &str {
        let instance = &self.of.instance;
        instance
            .name
            .as_deref()
            .unwrap_or_else(|| instance.id.as_str())
    }

    /// What its backups are kept by.
    pub fn rules(&self) -> Rules {
        Rules {
            on_demand_kept: self.kept.on_demand,
            timetable: self.timetable,
        }
    }

    /// What somebody should know of it, as of a look at its members; nothing while it is made or deleted.
    pub fn alerts(&self, seen: Option<&Observation>) -> Vec<Alert> {
        match self.life.state {
            InstanceState::Ready => alerts(self.now, &self.database, seen, &self.watch),
            _ => Vec::new(),
        }
    }

    /// The same for a page that says by itself that the broker looks at the members right now.
    pub fn alerts_beside(&self, seen: Option<&Observation>) -> Vec<Alert> {
        let mut all = self.alerts(seen);
        if self.is_looked_at(seen) {
            all.retain(|alert| alert.subject != Subject::Look);
        }
        all
    }

    /// Whether its members were not seen yet and the broker looks at them: it does not where it cannot find them.
    pub fn is_looked_at(&self, seen: Option<&Observation>) -> bool {
        let is_ready = self.of.instance.state == InstanceState::Ready;
        is_ready && seen.is_none() && !self.database.is_elsewhere
    }

    /// How it is, as of a look at its members.
    pub fn health(&self, seen: Option<&Observation>) -> Health {
        health(&self.life, &self.database, seen, &self.alerts(seen))
    }

    /// The backup that is being taken.
    pub fn running_backup(&self) -> Option<&Operation> {
        self.operations
            .iter()
            .find(|o| o.kind == OperationKind::Backup && o.state.is_active() && !o.halted)
    }

    /// What takes a backup, or took it, where that is still known.
    pub fn work_on(&self, backup: &Backup) -> Option<&Operation> {
        self.operations.iter().find(|o| o.id == backup.operation)
    }

    /// What is being done to the instance itself.
    pub fn running_change(&self) -> Option<&Operation> {
        let kinds = [
            OperationKind::Provision,
            OperationKind::Restore,
            OperationKind::Deprovision,
        ];
        self.operations
            .iter()
            .find(|o| kinds.contains(&o.kind) && o.state.is_active() && !o.halted)
    }

    /// Why nothing can be backed up now; none when something can.
    pub fn refusal_of_backup(&self) -> Option<&'static str> {
        match self.of.instance.state {
            InstanceState::Ready => None,
            InstanceState::Provisioning => {
                Some("The instance is being made; there is nothing to back up yet.")
            }
            InstanceState::Failed => {
                Some("The instance could not be made, so there is nothing to back up.")
            }
            InstanceState::Deleting => Some("The instance is being deleted."),
        }
    }

    /// The newest backup that could be restored.
    pub fn newest_good_backup(&self) -> Option<&Backup> {
        self.backups
            .iter()
            .find(|b| b.state == BackupState::Complete && b.kind.is_own())
    }
}

/// What pages show.
pub struct Views {
    store: Arc<Store>,
    keys: Arc<KeyRing>,
    clock: Clock,
    inventory: Arc<Inventory>,
    vitals: Arc<Vitals>,
    limits: Limits,
    pause: Duration,
}

impl Views {
    pub(super) fn new(parts: &BrokerParts, inventory: Arc<Inventory>, vitals: Arc<Vitals>) -> Self {
        Self {
            store: parts.store.clone(),
            keys: parts.keys.clone(),
            clock: parts.clock.clone(),
            inventory,
            vitals,
            limits: parts.limits.clone(),
            pause: parts.on_demand_pause,
        }
    }

    /// What a session may see of an instance.
    pub async fn instance_view(
        &self,
        session: &Session,
        id: InstanceId,
    ) -> Result<InstanceView, BrokerError> {
        let (session, now) = (session.clone(), self.clock.now());
        let (limits, inventory) = (self.limits.clone(), self.inventory.clone());
        let found = self
            .store
            .scan(move |conn| found(conn, &session, &id, &inventory, (&limits, now)))
            .await?;
        let Found {
            instance,
            deployment: (deployment, sealed),
            facts,
        } = found.ok_or_else(no_such_page)?;
        let ca_certificate = trusted_authorities(&self.keys, &deployment, sealed.as_deref())?;
        let operations: Vec<Operation> = facts
            .operations
            .into_iter()
            .filter(|operation| operation.ordinal >= instance.ordinal)
            .collect();
        let provision = operations
            .iter()
            .find(|o| matches!(o.kind, OperationKind::Provision | OperationKind::Restore))
            .map(|o| o.id.clone());
        let (offering_name, plan_name) = self.inventory.offering_name(&instance);
        let plan = self.inventory.plan_of(&instance);
        let schedule = facts.watch.schedule.clone();
        Ok(InstanceView {
            profile: self.inventory.profile(&deployment.engine).ok(),
            offering: offering_name,
            plan: plan_name,
            placement: plan.map_or(Placement::Default, |p| p.rules.placement),
            kept: self.inventory.kept(&instance),
            backups: facts.backups,
            operations,
            next_backup: schedule.as_ref().map(|schedule| schedule.next_at),
            timetable: self.inventory.timetable(&instance, schedule.as_ref()),
            timetable_bounds: self.inventory.timetable_bounds(&instance),
            life: facts.life,
            watch: facts.watch,
            database: self.vitals.database_watch(&deployment, facts.beside),
            mirrors_backups: self.inventory.mirrors_backups,
            restores: facts.restores,
            deleted_restores: facts.deleted_restores,
            reaches_source: facts.reaches_source,
            page_code: page_code(&self.keys, &instance),
            now,
            of: DeploymentView {
                instance,
                deployment,
                notes: facts.notes,
                ca_certificate,
                provision,
                schedule,
                source: facts.source,
            },
        })
    }

    /// One backup of an instance that a session may see, with the instance.
    pub async fn backup_view(
        &self,
        session: &Session,
        instance: InstanceId,
        id: BackupId,
    ) -> Result<(InstanceView, Backup), BrokerError> {
        let view = self.instance_view(session, instance).await?;
        let backup = view.backups.iter().find(|b| b.id == id).cloned();
        let backup = backup.ok_or_else(no_such_page)?;
        Ok((view, backup))
    }

    /// What was done to an instance that a session may see, since it was made: those before `before`, where
    /// that is asked for.
    pub async fn tasks(
        &self,
        instance: &Instance,
        before: Option<OperationId>,
    ) -> Result<TasksPage, BrokerError> {
        let instance = instance.clone();
        let (limits, now) = (self.limits.clone(), self.clock.now());
        let read = move |conn: &mut Conn<'_>| {
            let before = before.as_ref();
            let found =
                store::operation::page_of_instance(conn, &instance, before, TASKS_ON_A_PAGE + 1)?;
            tasks(conn, &instance.id, found, &limits, now)
        };
        let mut tasks = self.store.scan(read).await?;
        let more = page::cut(&mut tasks, TASKS_ON_A_PAGE);
        let next = tasks
            .last()
            .filter(|_| more)
            .map(|task| task.operation.id.clone());
        Ok(TasksPage { tasks, next })
    }

    /// Instances in which a text stands, newest first, on a page of all of them, and whether there are
    /// more.
    pub async fn instances(
        &self,
        text: &str,
        page: usize,
    ) -> Result<(Vec<InstanceListed>, bool), BrokerError> {
        // No store keeps such a text, and not every one can be asked for it.
        if text.contains('\0') {
            return Ok((Vec::new(), false));
        }
        let text = text.to_owned();
        let skipped = page.saturating_sub(1).saturating_mul(INSTANCES_ON_A_PAGE);
        let find = move |conn: &mut Conn<'_>| {
            store::instance::search(conn, &text, skipped, INSTANCES_ON_A_PAGE + 1)
        };
        let mut found = self.store.scan(find).await?;
        let more = page::cut(&mut found, INSTANCES_ON_A_PAGE);
        let healths = self.vitals.healths(found.clone()).await?;
        let listed = found.into_iter().zip(healths);
        let listed = listed.map(|(instance, (deployment, health))| InstanceListed {
            instance,
            deployment,
            health,
        });
        Ok((listed.collect(), more))
    }

    /// Accepts a backup of an instance that a session may see. While one is being taken it is
    /// told of that one.
    pub async fn back_up_now(
        &self,
        session: &Session,
        id: InstanceId,
    ) -> Result<BackUpNow, BrokerError> {
        let (session, now) = (session.clone(), self.clock.now());
        let pause = self.pause;
        self.store
            .decide(move |conn| {
                let instance = reached(conn, &session, &id)?.ok_or_else(no_such_page)?;
                let active = store::operation::active_on_instance(conn, &instance.id)?;
                let operation = back_up_in(conn, &id, Origin::Dashboard, pause, now)?;
                Ok(if active.iter().any(|o| o.id == operation.id) {
                    BackUpNow::Running(operation.id)
                } else {
                    BackUpNow::Accepted(operation.id)
                })
            })
            .await
    }
}
