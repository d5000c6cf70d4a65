//! Figures of one moment, as a scrape is told them.

use std::sync::atomic::AtomicU64;

use chrono::{DateTime, TimeDelta, Utc};
use prometheus_client::{
    metrics::{family::Family, gauge::Gauge},
    registry::Registry,
};

use super::Labels;
use crate::model::{
    figures::{BackupSeen, InstanceSeen, PayerClass, Round, Totals, Workload},
    health::HealthState,
    mirror::MirrorSeen,
    operation::{OperationKind, OperationState},
    proof::Freshness,
    volume::{Content, Volume},
};

type Gauges = Family<Labels, Gauge<f64, AtomicU64>>;

/// States that are told also of kinds that nothing is in.
const STATES_TOLD: [OperationState; 3] = [
    OperationState::Queued,
    OperationState::Running,
    OperationState::Stuck,
];
/// The names of what is told of the newest backup of all.
const OF_ALL: [&str; 3] = [
    "backup_last_success_timestamp_seconds",
    "backup_last_success_size_bytes",
    "backup_last_success_duration_seconds",
];
/// The same of each instance's.
const OF_INSTANCES: [&str; 3] = [
    "instance_backup_last_success_timestamp_seconds",
    "instance_backup_last_success_size_bytes",
    "instance_backup_last_success_duration_seconds",
];

/// A name and a value of a label.
pub fn label(name: &'static str, value: &str) -> (&'static str, String) {
    (name, value.to_owned())
}

/// What a scrape is told beside what was counted.
pub struct Page {
    registry: Registry,
}

impl Page {
    pub(super) fn new(prefix: &str) -> Self {
        Self {
            registry: Registry::with_prefix(prefix),
        }
    }

    pub(super) fn registry(self) -> Registry {
        self.registry
    }

    /// Adds a figure, once for each set of labels. One without values is left out.
    pub fn gauges(
        &mut self,
        name: &'static str,
        help: &'static str,
        values: impl IntoIterator<Item = (Labels, f64)>,
    ) {
        let gauges = Gauges::default();
        for (labels, value) in values {
            gauges.get_or_create(&labels).set(value);
        }
        self.registry.register(name, help, gauges);
    }

    /// Adds a figure that has no labels.
    pub fn gauge(&mut self, name: &'static str, help: &'static str, value: f64) {
        self.gauges(name, help, [(Labels::new(), value)]);
    }

    /// Adds how the work stands at `now`.
    pub fn work(&mut self, work: &Workload, now: DateTime<Utc>) {
        // A figure that comes and goes is hard to ask for: there are zeros, too.
        let nothing = || {
            let each = |kind: OperationKind| STATES_TOLD.map(|state| (kind, state));
            OperationKind::ALL.into_iter().flat_map(each)
        };
        let of = |kind: OperationKind, state: OperationState| {
            vec![label("kind", kind.as_str()), label("state", state.as_str())]
        };
        let no_operations = || nothing().map(|(kind, state)| (of(kind, state), 0.0));
        let operations = || {
            let seen = work.operations.iter();
            seen.map(|seen| (of(seen.kind, seen.state), seen))
        };
        self.gauges(
            "operations",
            "Operations that go on, and those that are left for an operator",
            no_operations().chain(operations().map(|(labels, seen)| (labels, float(seen.count)))),
        );
        self.gauges(
            "operations_oldest_age_seconds",
            "How long ago the oldest of these operations was accepted",
            no_operations()
                .chain(operations().map(|(labels, seen)| (labels, seconds(now - seen.oldest)))),
        );
        let of = |kind: OperationKind, payer: PayerClass| {
            vec![label("kind", kind.as_str()), label("payer", payer.as_str())]
        };
        let nobody_waits = || {
            let each = move |kind| PayerClass::ALL.map(move |payer| (of(kind, payer), 0.0));
            OperationKind::ALL.into_iter().flat_map(each)
        };
        let queue = || {
            let seen = work.queue.iter();
            seen.map(|seen| (of(seen.kind, seen.class), seen))
        };
        self.gauges(
            "queue_operations",
            "Operations that could begin and wait for a place, by who pays for them",
            nobody_waits().chain(queue().map(|(labels, seen)| (labels, float(seen.count)))),
        );
        self.gauges(
            "queue_oldest_age_seconds",
            "Since when the first of these operations could begin",
            nobody_waits()
                .chain(queue().map(|(labels, seen)| (labels, seconds(now - seen.oldest)))),
        );
    }

    /// Adds how much room there is.
    pub fn volumes(&mut self, volumes: &[Volume]) {
        let each = || {
            volumes.iter().flat_map(|volume| {
                let labels = |content: &Content| match content {
                    Content::Store => vec![label("content", "store"), label("cluster", "")],
                    Content::Backups => vec![label("content", "backups"), label("cluster", "")],
                    Content::Mirror => vec![label("content", "mirror"), label("cluster", "")],
                    Content::Members(id) => vec![label("content", "members"), label("cluster", id)],
                };
                let holds = volume.holds.iter();
                holds.map(move |content| (labels(content), volume))
            })
        };
        self.gauges(
            "volume_size_bytes",
            "What the volume has in all that this lies on",
            each().map(|(labels, volume)| (labels, float(volume.space.total))),
        );
        self.gauges(
            "volume_free_bytes",
            "What is free on the volume that this lies on",
            each().map(|(labels, volume)| (labels, float(volume.space.free))),
        );
    }

    /// Adds what was seen at a round.
    pub(super) fn round(&mut self, round: &Round) {
        let all = &round.totals;
        self.gauge(
            "round_end_timestamp_seconds",
            "When all instances were looked at last",
            timestamp(round.ended_at),
        );
        self.gauge(
            "round_duration_seconds",
            "How long it took to look at all instances",
            round.took.as_secs_f64(),
        );
        self.gauges(
            "instances",
            "Instances, by how they are",
            HealthState::ALL.map(|state| {
                let count = all.health.get(&state).copied();
                let count = count_of(count.unwrap_or_default());
                (vec![label("health", state.as_str())], count)
            }),
        );
        self.gauge(
            "members",
            "Members of instances whose members could be looked at",
            count_of(all.members),
        );
        self.gauge(
            "members_up",
            "Members of these that serve",
            count_of(all.members_up),
        );
        self.backups_of_all(all);
        if let Some(first) = all.certificate_ends {
            self.gauge(
                "certificate_first_end_timestamp_seconds",
                "When the first certificate of all instances ends",
                timestamp(first),
            );
        }
        self.gauge(
            "instances_untold",
            "Instances without series of their own",
            count_of(all.instances - round.named.len()),
        );
        self.instances(&round.named);
    }

    /// Adds how much of the backups the mirror has at `now`.
    pub fn mirror(&mut self, mirror: &MirrorSeen, now: DateTime<Utc>) {
        let counts = [
            (
                "backups_mirrored",
                "Backups with a copy in the mirror",
                mirror.copied,
            ),
            (
                "backups_unmirrored",
                "Complete backups without a copy in the mirror",
                mirror.waiting,
            ),
            (
                "backups_mirror_late",
                "Those of them that wait for too long",
                mirror.late,
            ),
        ];
        for (name, help, count) in counts {
            self.gauge(name, help, float(count));
        }
        self.gauge(
            "backups_unmirrored_oldest_age_seconds",
            "How long ago the first backup without a copy in the mirror was complete",
            mirror.oldest.map_or(0.0, |at| seconds(now - at)),
        );
    }

    /// Adds how the backups of all instances are.
    fn backups_of_all(&mut self, all: &Totals) {
        self.gauge(
            "backups_late",
            "Instances whose scheduled backup is late",
            count_of(all.backups_late),
        );
        self.gauge(
            "backups_failing",
            "Instances whose last scheduled backup failed",
            count_of(all.backups_failing),
        );
        self.gauges(
            "backups_unproved",
            "Instances without a proved backup that is new enough, by how that is",
            Freshness::TOLD.map(|how| {
                let count = all.unproved.get(&how).copied();
                let count = count_of(count.unwrap_or_default());
                (vec![label("state", how.as_str())], count)
            }),
        );
        if let Some(newest) = all.backup {
            self.backups(OF_ALL, &[(Labels::new(), newest)]);
        }
    }

    /// Adds the newest backups under these names of their moments, sizes and durations.
    fn backups(&mut self, names: [&'static str; 3], newest: &[(Labels, BackupSeen)]) {
        let [at, bytes, took] = names;
        let each = || {
            newest
                .iter()
                .map(|(labels, backup)| (labels.clone(), backup))
        };
        self.gauges(
            at,
            "When the newest good backup was complete",
            each().map(|(labels, backup)| (labels, timestamp(backup.at))),
        );
        self.gauges(
            bytes,
            "What the newest good backup has in the backup store",
            each().map(|(labels, backup)| (labels, float(backup.bytes))),
        );
        self.gauges(
            took,
            "How long the newest good backup took",
            each().map(|(labels, backup)| (labels, seconds(backup.took))),
        );
    }

    fn instances(&mut self, named: &[InstanceSeen]) {
        let each = || named.iter().map(|seen| (vec![of(seen)], seen));
        self.gauges(
            "instance_info",
            "What an instance is; always 1",
            each().map(|(mut labels, seen)| {
                labels.push(label("cluster", &seen.cluster));
                labels.push(label("engine", &seen.engine));
                labels.push(label("plan", &seen.plan));
                labels.push(label("version", &seen.version));
                (labels, 1.0)
            }),
        );
        self.gauges(
            "instance_health",
            "How an instance is, in a word; always 1",
            each().map(|(mut labels, seen)| {
                labels.push(label("health", seen.health.as_str()));
                (labels, 1.0)
            }),
        );
        self.gauges(
            "instance_members",
            "Members of an instance",
            each().map(|(labels, seen)| (labels, count_of(seen.members))),
        );
        self.gauges(
            "instance_members_up",
            "Members of an instance that serve, where they could be looked at",
            each().filter_map(|(labels, seen)| Some((labels, count_of(seen.members_up?)))),
        );
        self.gauges(
            "instance_storage_used_bytes",
            "What the database of an instance uses of its quota",
            each().filter_map(|(labels, seen)| Some((labels, float(seen.used_bytes?)))),
        );
        self.gauges(
            "instance_storage_quota_bytes",
            "What the database of an instance may use",
            each().map(|(labels, seen)| (labels, float(seen.quota_bytes))),
        );
        let backups = each().filter_map(|(labels, seen)| Some((labels, seen.backup?)));
        self.backups(OF_INSTANCES, &backups.collect::<Vec<_>>());
        self.gauges(
            "instance_backup_last_proved_timestamp_seconds",
            "When the newest proved backup of an instance was taken",
            each().filter_map(|(labels, seen)| Some((labels, timestamp(seen.proved_at?)))),
        );
        self.gauges(
            "instance_certificate_end_timestamp_seconds",
            "When the certificate of an instance's members ends",
            each().filter_map(|(labels, seen)| Some((labels, timestamp(seen.certificate_ends?)))),
        );
    }
}

/// Prometheus has a label `instance` of its own.
fn of(seen: &InstanceSeen) -> (&'static str, String) {
    label("instance_id", seen.id.as_str())
}

/// A moment as Prometheus tells it.
pub fn timestamp(at: DateTime<Utc>) -> f64 {
    seconds(at - DateTime::UNIX_EPOCH)
}

fn seconds(span: TimeDelta) -> f64 {
    span.as_seconds_f64().max(0.0)
}

/// Figures are doubles there: beyond 2^53 the last digits go.
fn float(count: u64) -> f64 {
    count as f64
}

fn count_of(count: usize) -> f64 {
    float(u64::try_from(count).unwrap_or(u64::MAX))
}
