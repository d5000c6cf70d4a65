//! All instances at once, as operators' lists have them: each with its health, its size and its newest
//! backup; and which of them a list shows, in which order.
//!
//! Nobody waits for a look at members: what was seen of them last is told. What was read for one list
//! serves those of the next moment, too.

use std::{cmp::Ordering, sync::Arc};

use chrono::{DateTime, Utc};
use tokio::{sync::Mutex, time::Instant};

use super::{
    BrokerError, BrokerParts,
    health::{Read, read_whole},
    inventory::Inventory,
    target::Targets,
    vitals::Vitals,
};
use crate::{
    clock::Clock,
    model::{
        backup::Backup,
        capacity::Placed,
        deployment::Deployment,
        health::{Health, HealthState},
        instance::{Instance, InstanceState},
        limits::{ESTATE_FRESH, ESTATE_INSTANCES_MAX, ESTATE_PAGE, INSTANCES_ON_A_PAGE},
        observation::Observation,
        operation::OperationState,
        placement::Cluster,
        version::Version,
        volume::Volume,
    },
    store::{self, Conn, Store, StoreError},
    volumes::Volumes,
};

/// All instances.
#[derive(Debug, Default)]
pub struct Estate {
    /// The instances, by id.
    pub instances: Vec<Listed>,
    /// Whether there are more than are told of.
    pub is_cut: bool,
}

/// An instance among all.
#[derive(Debug)]
pub struct Listed {
    /// The instance.
    pub instance: Instance,
    /// Its deployment; none where it has just gone.
    pub deployment: Option<Deployment>,
    /// How it is, as its members were seen last.
    pub health: Health,
    /// Members that served when they were seen last; none where nobody has seen them lately.
    pub serving: Option<usize>,
    /// Bytes that its largest member has in its database; none where nobody has seen it lately.
    pub database_bytes: Option<u64>,
    /// When its newest complete backup was taken.
    pub last_backup: Option<DateTime<Utc>>,
    /// What is known of its scheduled backup, where that is late.
    pub late: Option<Late>,
}

/// A scheduled backup that did not come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Late {
    /// Since when it is late.
    pub since: DateTime<Utc>,
    /// When the newest scheduled one was taken that is complete.
    pub newest_good: Option<DateTime<Utc>>,
    /// Tries in a row that failed.
    pub failures: u32,
}

/// What a list is ordered by.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Order {
    /// When it was asked for, the newest in front.
    #[default]
    Created,
    /// What people call it.
    Name,
    /// How it is, the worst in front.
    Health,
    /// Its version, the oldest in front.
    Version,
    /// What it holds, the most in front.
    Size,
    /// Its newest backup, the oldest in front, and before it those that have none.
    Backup,
    /// Its owner.
    Tenant,
}

impl Order {
    /// All orders.
    pub const ALL: [Self; 7] = [
        Self::Created,
        Self::Name,
        Self::Health,
        Self::Version,
        Self::Size,
        Self::Backup,
        Self::Tenant,
    ];

    /// For addresses of pages.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Created => "created",
            Self::Name => "name",
            Self::Health => "health",
            Self::Version => "version",
            Self::Size => "size",
            Self::Backup => "backup",
            Self::Tenant => "tenant",
        }
    }

    /// The order of that name.
    pub fn parse(text: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|order| order.as_str() == text)
    }

    fn compare(self, a: &Listed, b: &Listed) -> Ordering {
        let owner = |of: &Listed| {
            let tenant = &of.instance.tenant;
            (tenant.organization.clone(), tenant.space.clone())
        };
        match self {
            Self::Created => b.age().cmp(&a.age()),
            Self::Name => a.name().to_lowercase().cmp(&b.name().to_lowercase()),
            Self::Health => b.health.state.cmp(&a.health.state),
            Self::Version => a.version().cmp(&b.version()),
            Self::Size => b.database_bytes.cmp(&a.database_bytes),
            Self::Backup => a.last_backup.cmp(&b.last_backup),
            Self::Tenant => owner(a).cmp(&owner(b)),
        }
    }
}

/// Which instances a list shows, and how.
#[derive(Debug, Clone, Default)]
pub struct EstateQuery {
    /// Only those in whose ids, names, owners or context this stands.
    pub text: String,
    /// Only those that are so.
    pub health: Option<HealthState>,
    /// Only those on this cluster.
    pub cluster: Option<String>,
    /// Only those of this version.
    pub version: Option<Version>,
    /// What they are ordered by.
    pub order: Order,
    /// The other way round.
    pub reverse: bool,
    /// The page; the first one is 1.
    pub page: usize,
}

/// What a list shows.
#[derive(Debug)]
pub struct EstatePage<'a> {
    /// The instances.
    pub shown: Vec<&'a Listed>,
    /// How many pass the query.
    pub found: usize,
    /// The page; it is the last one where there are not so many.
    pub page: usize,
    /// How many pages there are; at least 1.
    pub pages: usize,
}

impl Listed {
    /// What people call it.
    pub fn name(&self) -> &str {
        let instance = &self.instance;
        instance
            .name
            .as_deref()
            .unwrap_or_else(|| instance.id.as_str())
    }

    fn age(&self) -> (DateTime<Utc>, i64) {
        (self.instance.created_at, self.instance.ordinal)
    }

    fn version(&self) -> Option<(&str, Version)> {
        let of = self.deployment.as_ref()?;
        Some((&of.engine, of.version))
    }

    fn passes(&self, query: &EstateQuery, text: &str) -> bool {
        let deployment = self.deployment.as_ref();
        query
            .health
            .is_none_or(|health| self.health.state == health)
            && (query.cluster.as_ref())
                .is_none_or(|cluster| deployment.is_some_and(|of| of.cluster == *cluster))
            && query
                .version
                .is_none_or(|version| deployment.is_some_and(|of| of.version == version))
            && (text.is_empty() || self.has(text))
    }

    /// Whether a text, in lower case, stands in what it is known by.
    fn has(&self, text: &str) -> bool {
        let instance = &self.instance;
        let tenant = &instance.tenant;
        let has = |own: &str| own.to_lowercase().contains(text);
        has(instance.id.as_str())
            || has(instance.deployment.as_str())
            || instance.name.as_deref().is_some_and(has)
            || has(&tenant.organization)
            || has(&tenant.space)
            || tenant.account.values().any(|own| has(own))
            || has(&instance.context.to_string())
    }
}

impl Estate {
    /// What a list shows.
    pub fn page(&self, query: &EstateQuery) -> EstatePage<'_> {
        let text = query.text.to_lowercase();
        let mut found: Vec<&Listed> = self
            .instances
            .iter()
            .filter(|of| of.passes(query, &text))
            .collect();
        found.sort_by(|a, b| {
            let by = query.order.compare(a, b);
            let by = if query.reverse { by.reverse() } else { by };
            by.then_with(|| Order::Created.compare(a, b))
        });
        cut(found, query.page)
    }

    /// Those whose scheduled backup is late, the latest in front.
    pub fn late(&self, page: usize) -> EstatePage<'_> {
        let of = |listed: &Listed| listed.late.map(|late| late.since);
        let late = self.instances.iter().filter(|of| of.late.is_some());
        let mut late: Vec<&Listed> = late.collect();
        late.sort_by_key(|listed| of(listed));
        cut(late, page)
    }

    /// How many are so.
    pub fn count(&self, health: HealthState) -> usize {
        let states = self.instances.iter().map(|of| of.health.state);
        states.filter(|state| *state == health).count()
    }
}

fn cut(found: Vec<&Listed>, page: usize) -> EstatePage<'_> {
    let pages = found.len().div_ceil(INSTANCES_ON_A_PAGE).max(1);
    let page = page.clamp(1, pages);
    let shown = found.iter().skip((page - 1) * INSTANCES_ON_A_PAGE);
    EstatePage {
        shown: shown.take(INSTANCES_ON_A_PAGE).copied().collect(),
        found: found.len(),
        page,
        pages,
    }
}

/// A cluster, with what it has and what it has room for.
#[derive(Debug)]
pub struct ClusterSeen {
    /// The cluster.
    pub cluster: Cluster,
    /// What is on it, whatever state it is in.
    pub placed: Placed,
    /// Units that a new instance may have; none: any number.
    pub units_free: Option<u64>,
    /// Members of all of its instances.
    pub members: usize,
    /// Those of them that served when they were seen last.
    pub serving: usize,
    /// Those that nobody has seen lately, and those that are made or deleted.
    pub unseen: usize,
}

/// Reads all instances.
pub struct Estates {
    store: Arc<Store>,
    clock: Clock,
    inventory: Arc<Inventory>,
    vitals: Arc<Vitals>,
    targets: Targets,
    volumes: Arc<Volumes>,
    /// What was read last, and when.
    last: Mutex<Option<(Instant, Arc<Estate>)>>,
}

impl Estates {
    pub(super) fn new(parts: &BrokerParts, inventory: Arc<Inventory>, vitals: Arc<Vitals>) -> Self {
        Self {
            store: parts.store.clone(),
            clock: parts.clock.clone(),
            vitals,
            targets: Targets::new(parts, inventory.clone()),
            inventory,
            volumes: parts.volumes.clone(),
            last: Mutex::default(),
        }
    }

    /// The volumes of store, members and backups, as they were seen last.
    pub fn volumes(&self) -> Vec<Volume> {
        self.volumes.seen()
    }

    /// All instances, as they were a moment ago.
    pub async fn estate(&self) -> Result<Arc<Estate>, BrokerError> {
        let mut last = self.last.lock().await;
        if let Some((at, estate)) = &*last
            && at.elapsed() < ESTATE_FRESH
        {
            return Ok(estate.clone());
        }
        let estate = Arc::new(self.read_estate().await?);
        *last = Some((Instant::now(), estate.clone()));
        Ok(estate)
    }

    async fn read_estate(&self) -> Result<Estate, BrokerError> {
        let now = self.clock.now();
        let (mut estate, mut after) = (Estate::default(), String::new());
        loop {
            let (from, inventory) = (after.clone(), self.inventory.clone());
            let found = self.store.scan(move |conn: &mut Conn<'_>| {
                let page = store::instance::after(conn, &from, ESTATE_PAGE)?;
                let of = |instance: Instance| {
                    let of = read_whole(conn, &inventory, &instance, now)?;
                    Ok((instance, of))
                };
                page.into_iter()
                    .map(of)
                    .collect::<Result<Vec<_>, StoreError>>()
            });
            let found = found.await?;
            let Some((last, _)) = found.last() else {
                return Ok(estate);
            };
            if estate.instances.len() >= ESTATE_INSTANCES_MAX {
                estate.is_cut = true;
                return Ok(estate);
            }
            after = last.id.to_string();
            let listed = found.into_iter().map(|(instance, of)| match of {
                Some((deployment, read)) => self.listed(instance, deployment, read, now),
                None => Listed {
                    instance,
                    deployment: None,
                    health: Health::unknown(),
                    serving: None,
                    database_bytes: None,
                    last_backup: None,
                    late: None,
                },
            });
            estate.instances.extend(listed);
        }
    }

    fn listed(
        &self,
        instance: Instance,
        deployment: Deployment,
        read: Read,
        now: DateTime<Utc>,
    ) -> Listed {
        let is_ready = read.life.state == InstanceState::Ready;
        let seen = is_ready
            .then(|| self.vitals.last_seen(&deployment))
            .flatten();
        let late = read.late_since(now).map(|since| Late {
            since,
            newest_good: read.backups.newest_good,
            failures: read.backups.schedule.as_ref().map_or(0, |s| s.failures),
        });
        let last_backup = read.newest.as_ref().map(Backup::taken_at);
        Listed {
            health: self
                .vitals
                .health_of(&deployment, read, seen.as_deref(), now),
            serving: seen.as_deref().map(Observation::serving),
            database_bytes: seen.as_deref().and_then(Observation::database_bytes),
            last_backup,
            late,
            instance,
            deployment: Some(deployment),
        }
    }

    /// The clusters with their room, as they were a moment ago.
    pub async fn clusters_seen(&self, estate: &Estate) -> Result<Vec<ClusterSeen>, BrokerError> {
        let clusters = self.inventory.clusters.clone();
        let placed = self.store.scan(move |conn| {
            let of = |cluster: &Cluster| store::deployment::placed_on(conn, &cluster.id);
            clusters.iter().map(of).collect::<Result<Vec<_>, _>>()
        });
        let placed = placed.await?;
        let candidates = self.targets.candidates_with(&placed);
        let seen = candidates.into_iter().map(|candidate| {
            let cluster = candidate.cluster;
            let on_it = estate.instances.iter().filter_map(|of| {
                let deployment = of.deployment.as_ref()?;
                (deployment.cluster == cluster.id).then_some((deployment.members.len(), of.serving))
            });
            let mut of = ClusterSeen {
                cluster: cluster.clone(),
                placed: candidate.placed,
                units_free: candidate.units_free(),
                members: 0,
                serving: 0,
                unseen: 0,
            };
            for (members, serving) in on_it {
                of.members += members;
                match serving {
                    Some(serving) => of.serving += serving,
                    None => of.unseen += members,
                }
            }
            of
        });
        Ok(seen.collect())
    }

    /// How many operations are in each state, of those that are known still; those that a deletion stopped are no
    /// failed ones.
    pub async fn operation_counts(&self) -> Result<Vec<(OperationState, u64)>, BrokerError> {
        Ok(self.store.scan(store::oversight::counts).await?)
    }
}
