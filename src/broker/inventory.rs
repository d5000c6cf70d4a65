//! What there is to offer: the catalog, the clusters, and the versions of each engine on them. No question
//! here asks the store or a member.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, PoisonError},
};

use chrono::TimeDelta;

use super::{BrokerError, BrokerParts, catalog, profile::Profiles};
use crate::model::{
    catalog::{Catalog, CurrentCatalog, Offering, Plan, PlanRules},
    deleted::AfterDelete,
    deployment::Deployment,
    engine::{KnownFault, Profile, Transition},
    exposure::Exposure,
    ids::InstanceId,
    instance::Instance,
    limits::UNITS_MAX,
    placement::Cluster,
    schedule::Schedule,
    timetable::{Timetable, TimetableBounds},
    version::Version,
};

/// How many backups an instance keeps, by what its plan says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Kept {
    /// On-demand backups, beside those that are pinned.
    pub on_demand: u32,
    /// Pinned backups, at most.
    pub pinned: u32,
    /// Days that all of them stay when the instance is deleted; 0: they go with it.
    pub days_after_delete: u32,
}

/// Versions by cluster, then by engine, oldest first.
pub type Versions = BTreeMap<String, BTreeMap<String, Vec<Version>>>;

/// The versions of each engine on each cluster. Those of a cluster that another broker looks after change
/// while this one runs.
pub struct Installed(Mutex<Arc<Versions>>);

impl Installed {
    fn new(versions: Versions) -> Self {
        Self(Mutex::new(Arc::new(versions)))
    }

    /// All of them, as they are now.
    pub fn all(&self) -> Arc<Versions> {
        self.0
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }

    /// Keeps what a cluster has now, by engine.
    pub fn set(&self, cluster: &str, versions: BTreeMap<String, Vec<Version>>) {
        // Every change is one assignment, so it is whole even after a panic.
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let mut changed = Versions::clone(&all);
        changed.insert(cluster.to_owned(), versions);
        *all = Arc::new(changed);
    }
}

/// What there is to offer.
pub struct Inventory {
    /// The offerings and plans.
    pub catalog: Arc<CurrentCatalog>,
    /// The placement targets; the first enabled one is the default.
    pub(super) clusters: Arc<[Cluster]>,
    /// The versions of each engine on each cluster.
    pub installed: Installed,
    /// What is known of each engine.
    pub profiles: Profiles,
    /// Whether backups are proved.
    pub(super) proves_backups: bool,
    /// Whether backups are copied into a mirror.
    pub mirrors_backups: bool,
}

/// What is promised of an instance's backups.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Promises {
    /// How old the newest proved one may be; none: they are not proved.
    pub(super) proved_within: Option<TimeDelta>,
    /// Whether each is copied into the mirror.
    pub(super) are_mirrored: bool,
}

impl Inventory {
    pub(super) fn new(parts: &BrokerParts) -> Self {
        Self {
            catalog: parts.catalog.clone(),
            clusters: parts.clusters.clone(),
            installed: Installed::new(parts.versions.clone()),
            profiles: parts.profiles.clone(),
            proves_backups: parts.proves_backups,
            mirrors_backups: parts.backups.has_mirror(),
        }
    }

    /// The offering and its own plan of those ids.
    pub(super) fn offering_and_plan(
        &self,
        service_id: &str,
        plan_id: &str,
    ) -> Result<(Arc<Offering>, Arc<Plan>), BrokerError> {
        catalog::offering_and_plan(&self.catalog, service_id, plan_id)
    }

    /// The names of an offering and its plan; their ids where the catalog has them no more.
    pub fn offering_name(&self, instance: &Instance) -> (String, String) {
        let catalog = self.catalog.get();
        let offering = catalog.offering(&instance.service_id);
        let plan = offering.and_then(|o| o.plan(&instance.plan_id));
        (
            offering.map_or_else(|| instance.service_id.clone(), |o| o.name.clone()),
            plan.map_or_else(|| instance.plan_id.clone(), |p| p.name.clone()),
        )
    }

    /// The name of a cluster for people; its id where there is none.
    pub fn cluster_name(&self, id: &str) -> String {
        let cluster = self.clusters.iter().find(|cluster| cluster.id == id);
        cluster.map_or_else(|| id.to_owned(), |cluster| cluster.name.clone())
    }

    /// The plan of an instance; none where the catalog has it no more.
    pub(super) fn plan_of(&self, instance: &Instance) -> Option<Arc<Plan>> {
        plan_in(&self.catalog.get(), instance)
    }

    /// How many backups an instance keeps. When its plan is gone from the catalog, one on-demand backup.
    pub fn kept(&self, instance: &Instance) -> Kept {
        let rules = self.rules_of(instance);
        Kept {
            on_demand: rules.on_demand_backups_kept,
            pinned: rules.pinned_backups_max,
            days_after_delete: match rules.after_delete {
                after if after.keeps_backups(instance) => after.backups_kept_days,
                _ => 0,
            },
        }
    }

    /// What is promised of an instance's backups.
    pub(super) fn promises(&self, of: &Instance) -> Promises {
        let hours = self.rules_of(of).proved_backup_hours;
        Promises {
            proved_within: Some(TimeDelta::hours(hours.into())).filter(|_| self.proves_backups),
            are_mirrored: self.mirrors_backups,
        }
    }

    /// What is kept of an instance when it is deleted.
    pub fn after_delete(&self, instance: &Instance) -> AfterDelete {
        self.rules_of(instance).after_delete
    }

    /// The rules of the plan of an instance.
    fn rules_of(&self, instance: &Instance) -> PlanRules {
        (self.catalog.get()).rules_of(&instance.service_id, &instance.plan_id)
    }

    /// The most units that one instance of an engine may have.
    pub fn units_max(&self, engine: &str) -> u32 {
        let profile = self.profile(engine);
        profile.map_or(UNITS_MAX, |profile| profile.units_max)
    }

    /// What users may choose of the schedule of an instance's backups; none: nothing.
    pub fn timetable_bounds(&self, instance: &Instance) -> Option<TimetableBounds> {
        self.rules_of(instance).backup_schedule
    }

    /// The timetable of an instance's backups: what its users chose, within the bounds of its plan.
    pub fn timetable(&self, instance: &Instance, schedule: Option<&Schedule>) -> Timetable {
        let chosen = schedule.map(|of| of.timetable).unwrap_or_default();
        chosen.within(self.timetable_bounds(instance))
    }

    /// What is known of an engine.
    pub fn profile(&self, engine: &str) -> Result<&'static Profile, BrokerError> {
        self.profiles.get(engine)
    }

    /// Where applications find the members of a deployment; nothing of an engine that is not known.
    pub fn urls(&self, deployment: &Deployment) -> Vec<String> {
        let profile = self.profile(&deployment.engine).ok();
        profile.map_or_else(Vec::new, |profile| profile.urls(deployment))
    }

    /// How many members a deployment has, or will have.
    pub fn members_of(&self, deployment: &Deployment) -> usize {
        let profile = self.profile(&deployment.engine).ok();
        profile.map_or(deployment.members.len(), |profile| profile.members)
    }

    /// The versions of an engine on a cluster.
    pub(super) fn versions_on(&self, cluster: &str, engine: &str) -> Vec<Version> {
        let installed = self.installed.all();
        let versions = installed.get(cluster).and_then(|of| of.get(engine));
        versions.cloned().unwrap_or_default()
    }

    /// The known faults of a version, the gravest in front.
    pub fn known_faults(&self, engine: &str, version: Version) -> Vec<KnownFault> {
        // Of an engine that this broker does not have, it knows none.
        self.profile(engine)
            .map_or_else(|_| Vec::new(), |of| of.known_faults(version))
    }

    /// The ways to newer versions that a deployment has, oldest first.
    pub fn transitions(&self, deployment: &Deployment) -> Vec<Transition> {
        let available = self.versions_on(&deployment.cluster, &deployment.engine);
        // An engine that this broker does not have leads nowhere.
        let Ok(profile) = self.profile(&deployment.engine) else {
            return Vec::new();
        };
        let exposure = self.exposure(&deployment.cluster);
        let mut transitions = profile.transitions(deployment.version, &available);
        transitions.retain(|transition| exposure.serves(profile, transition.to));
        transitions
    }

    /// The cluster whose own service instance that is. No other service instance may have the id.
    pub fn cluster_of(&self, service_instance: &InstanceId) -> Option<&Cluster> {
        let own =
            |cluster: &&Cluster| cluster.service_instance_id.as_ref() == Some(service_instance);
        self.clusters.iter().find(own)
    }

    /// What a cluster shows of its members to applications; nothing of one that is not known.
    pub(super) fn exposure(&self, cluster: &str) -> Exposure {
        exposure(&self.clusters, cluster)
    }
}

/// What a cluster shows of its members to applications; nothing of one that is not known.
pub(super) fn exposure(clusters: &[Cluster], id: &str) -> Exposure {
    let known = clusters.iter().find(|known| known.id == id);
    known.map_or_else(Exposure::default, |known| known.exposure.clone())
}

fn plan_in(catalog: &Catalog, instance: &Instance) -> Option<Arc<Plan>> {
    let offering = catalog.offering(&instance.service_id)?;
    offering.plan(&instance.plan_id).cloned()
}
