//! How long the scheduler's look takes, and whether a year of it misses or doubles anything.
//!
//! The looks are at a real SQLite store with as many instances as it says, each with a deployment, a
//! schedule, a finished operation and a backup. The year is the model alone, as the broker uses it,
//! on a virtual clock: backups that take their time and sometimes fail, in few places.
//!
//! `make bench` runs it. It is no test: what it prints depends on the machine.

use std::{
    cmp::Reverse,
    collections::{BinaryHeap, HashSet},
    path::Path,
    sync::Arc,
    time::{Duration, Instant},
};

use chrono::{DateTime, Datelike as _, Days, TimeDelta, Utc};
use compose_broker::{
    broker::back_up_due,
    model::{
        ids::InstanceId,
        limits::{SNAPSHOTS_AT_ONCE, SNAPSHOTS_AT_ONCE_PER_CLUSTER},
        period::{BackupKind, Period},
        schedule::{Places, Schedule, minute_of_day, slot_at},
    },
    store::Store,
};
use diesel::connection::SimpleConnection as _;

use crate::numbers::{INSTANCE_ID, connect, make_numbers};

mod numbers;

/// Sizes of the store, in instances.
const INSTANCES: [u32; 3] = [1_000, 100_000, 1_000_000];
/// Instances that are due at once: a minute's share of a million.
const DUE: usize = 700;
/// Looks of each sort.
const LOOKS: usize = 31;
/// What a look may take.
const GOAL: Duration = Duration::from_millis(20);
/// The one cluster.
const CLUSTER: &str = "local";
/// When the looks happen.
const NOW: &str = "2026-11-22T12:00:00Z";

fn main() {
    println!("a look of the scheduler, {DUE} instances due, median (worst) of {LOOKS}:");
    println!(
        "{:>10}  {:>20}  {:>20}  {:>20}",
        "instances", "nothing due", "places as they are", "places for all"
    );
    for instances in INSTANCES {
        looks(instances);
    }
    year();
}

/// Measures looks at a store of that size.
fn looks(instances: u32) {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("broker.db");
    let url = format!("sqlite://{}", path.display());
    drop(Store::open(&url).expect("a new store"));
    fill(&path, instances);
    let store = Arc::new(Store::open(&url).expect("a store"));
    let mut beside = connect(&path);
    let runtime = tokio::runtime::Runtime::new().expect("a runtime");
    let now: DateTime<Utc> = NOW.parse().expect("a time");
    let places = |in_all, on_cluster| Places::new(in_all, [(CLUSTER.to_owned(), on_cluster)]);
    let few = SNAPSHOTS_AT_ONCE_PER_CLUSTER.min(SNAPSHOTS_AT_ONCE);
    let mut measure = |limits: &Places, at: DateTime<Utc>, expected: usize| {
        let mut times: Vec<Duration> = (0..LOOKS)
            .map(|_| {
                beside.batch_execute(RESET).expect("the state of before");
                let begun = Instant::now();
                let accepted = runtime.block_on(back_up_due(&store, limits.clone(), at));
                let time = begun.elapsed();
                assert_eq!(accepted.expect("a look"), expected);
                time
            })
            .collect();
        times.sort();
        (times[LOOKS / 2], times[LOOKS - 1])
    };
    let idle = measure(&places(DUE, DUE), now - TimeDelta::hours(1), 0);
    let usual = measure(&places(SNAPSHOTS_AT_ONCE, few), now, few);
    let all = measure(&places(DUE, DUE), now, DUE);
    let text = |(median, worst): (Duration, Duration)| {
        let ms = |time: Duration| time.as_secs_f64() * 1000.0;
        let over = if median > GOAL { "!" } else { "" };
        format!("{:.2} ({:.2}) ms{over}", ms(median), ms(worst))
    };
    println!(
        "{instances:>10}  {:>20}  {:>20}  {:>20}",
        text(idle),
        text(usual),
        text(all)
    );
}

/// Ends what was accepted, and lets the same instances be due again.
const RESET: &str = "
    DELETE FROM operations WHERE state = 'queued';
    DELETE FROM backups WHERE state = 'pending'
        AND instance_id IN (SELECT instance_id FROM bench_due);
    UPDATE schedules SET next_at = '2026-11-22 11:59:30', failures = 0
        WHERE instance_id IN (SELECT instance_id FROM bench_due);
";

/// Fills a store: the first instances are due, the others are spread over the next day.
fn fill(path: &Path, instances: u32) {
    let mut connection = connect(path);
    make_numbers(&mut connection, instances);
    let id = INSTANCE_ID;
    let own = |prefix: &str| format!("printf('{prefix}%016x', i)");
    let (deployment, backup, operation) = (own("6b02d81d"), own("6b02d81e"), own("6b02d81f"));
    let (yesterday, utc) = ("'2026-11-21 12:00:00.5'", "'2026-11-21 12:00:01'");
    connection
        .batch_execute(&format!(
            "BEGIN;
             INSERT INTO instances (id, service_id, plan_id, platform, organization, space,
                 deployment_id, context, parameters, request, state, created_at)
                 SELECT {id}, 'service', 'plan', 'cloudfoundry', 'org', 'space', {deployment},
                 '{{}}', '{{}}', '{{}}', 'ready', '2026-01-01 00:00:00' FROM bench;
             INSERT INTO deployments (id, instance_id, cluster_id, engine, version, units, members,
                 sealed_secrets) SELECT {deployment}, {id}, '{CLUSTER}', 'etcd', '3.5.16', 1,
                 '[]', NULL FROM bench;
             INSERT INTO schedules (instance_id, cluster_id, next_at, failures)
                 SELECT {id}, '{CLUSTER}',
                 strftime('%Y-%m-%d %H:%M:%S', '2026-11-22 12:01:00',
                     '+' || (i * 61 % 86000) || ' seconds'), 0 FROM bench;
             INSERT INTO operations (id, kind, instance_id, binding_id, backup_id, source,
                 exclusive_key, waits_for, state, halted, step, steps_done, steps_total, bytes_done,
                 bytes_total, failure, origin, owner, lease_until, not_before, epoch, created_at,
                 updated_at) SELECT {operation}, 'backup', {id}, NULL, {backup}, NULL, NULL,
                 'nothing', 'succeeded', 0, 'Describing the backup', 3, 3, 0, 0, NULL, 'schedule',
                 NULL, NULL, {yesterday}, 1, {yesterday}, {utc} FROM bench;
             INSERT INTO backups (id, instance_id, deployment_id, operation_id, kind, state,
                 created_at, finished_at, period)
                 SELECT {backup}, {id}, {deployment}, {operation}, 'daily', 'complete', {yesterday},
                 {utc}, '2026-11-21' FROM bench;
             CREATE TABLE bench_due (instance_id TEXT PRIMARY KEY);
             INSERT INTO bench_due SELECT {id} FROM bench WHERE i <= {DUE};
             COMMIT;"
        ))
        .expect("instances");
}

/// Instances of the year.
const YEARS_INSTANCES: usize = 4_000;
/// One backup in so many fails.
const FAILS_ONE_IN: u64 = 20;

/// A backup that is being taken: its end, its instance, its slot and what it is for.
type Running = (DateTime<Utc>, usize, DateTime<Utc>, Period);

/// A year of every instance: each slot has its one good backup, each month and week its own.
#[expect(clippy::too_many_lines, reason = "one story of a year")]
fn year() {
    let begun = Instant::now();
    let begin: DateTime<Utc> = "2027-12-31T00:00:00Z".parse().expect("a time");
    let end: DateTime<Utc> = "2029-01-02T00:00:00Z".parse().expect("a time");
    let mut schedules: Vec<Schedule> = (0..YEARS_INSTANCES)
        .map(|i| {
            let id: InstanceId = format!("instance-{i}").parse().expect("an id");
            Schedule::begin(id, begin)
        })
        .collect();
    let firsts: Vec<DateTime<Utc>> = schedules.iter().map(|s| s.next_at).collect();
    let mut taken: Vec<HashSet<Period>> = vec![HashSet::new(); YEARS_INSTANCES];
    let mut slots: Vec<HashSet<DateTime<Utc>>> = vec![HashSet::new(); YEARS_INSTANCES];
    let mut due: BinaryHeap<Reverse<(DateTime<Utc>, usize)>> = schedules
        .iter()
        .enumerate()
        .map(|(i, schedule)| Reverse((schedule.next_at, i)))
        .collect();
    let mut running: BinaryHeap<Reverse<Running>> = BinaryHeap::new();
    let (mut good, mut failed, mut latest) = (0_u64, 0_u64, TimeDelta::zero());
    let mut random = 0x9e37_79b9_7f4a_7c15_u64;
    let mut throw = |sides: u64| {
        random ^= random << 13;
        random ^= random >> 7;
        random ^= random << 17;
        random % sides
    };
    loop {
        let next_end = running.peek().map(|Reverse((at, ..))| *at);
        let next_due = due.peek().map(|Reverse((at, _))| *at);
        let next_due = next_due.filter(|_| running.len() < SNAPSHOTS_AT_ONCE);
        let Some(now) = next_end.into_iter().chain(next_due).min() else {
            break;
        };
        while let Some(&Reverse((at, i, slot, period))) = running.peek()
            && at <= now
        {
            running.pop();
            let schedule = schedules[i].clone();
            if throw(FAILS_ONE_IN) == 0 {
                failed += 1;
                schedules[i] = schedule.after_failure(at);
            } else {
                good += 1;
                schedules[i] = schedule.after_success();
                assert!(taken[i].insert(period), "{period} of {i} is doubled");
                assert!(slots[i].insert(slot), "{slot} of {i} is doubled");
                latest = latest.max(at - slot);
            }
            if schedules[i].next_at < end {
                due.push(Reverse((schedules[i].next_at, i)));
            }
        }
        while let Some(&Reverse((at, i))) = due.peek()
            && at <= now
            && running.len() < SNAPSHOTS_AT_ONCE
        {
            due.pop();
            let periods = schedules[i].periods(now);
            let have: Vec<Period> = periods
                .into_iter()
                .filter(|p| taken[i].contains(p))
                .collect();
            let turn = schedules[i].turn(now, false, &have);
            schedules[i] = turn.then;
            let period = turn.take.expect("no look comes to nothing");
            let slot = slot_at(now, minute_of_day(&schedules[i].instance));
            let length = TimeDelta::seconds(i64::try_from(10 + throw(100)).expect("small"));
            running.push(Reverse((now + length, i, slot, period)));
        }
    }
    for (i, first) in firsts.into_iter().enumerate() {
        let mut slot = first;
        let (mut months, mut weeks) = (HashSet::new(), HashSet::new());
        while slot < end {
            assert!(slots[i].contains(&slot), "{slot} of {i} is missed");
            months.insert((slot.year(), slot.month()));
            weeks.insert(slot.iso_week());
            slot = slot + Days::new(1);
        }
        let count = |kind| taken[i].iter().filter(|p| p.kind() == kind).count();
        assert_eq!(count(BackupKind::Monthly), months.len());
        // At either end a week may have had but one day, and lost it to a month.
        assert!(weeks.len() - count(BackupKind::Weekly) <= 2);
    }
    println!(
        "a year of {YEARS_INSTANCES} instances in {:.1} s: {good} good backups, none missed, none \
         doubled; {failed} failed and were made good, the last {} min after its slot",
        begun.elapsed().as_secs_f64(),
        latest.num_minutes()
    );
}
