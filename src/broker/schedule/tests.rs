//! What the scheduler's look at a store comes to.

use std::collections::BTreeMap;

use chrono::{Days, TimeDelta};
use diesel::{Connection as _, SqliteConnection, connection::SimpleConnection as _};
use serde_json::json;

use super::*;
use crate::{
    model::{
        backup::{Backup, BackupState},
        deployment::Deployment,
        ids::DeploymentId,
        instance::{Instance, InstanceState, ProvisionIdentity},
        operation::{Claim, Operation, OperationKind, OperationState},
        origin::Origin,
        queue::Shares,
        schedule::{Schedule, minute_of_day, slot_after},
        tenant::Tenant,
    },
    store::queue::Look,
};

const BEGIN: &str = "2026-06-10T00:00:00Z";

fn begin() -> DateTime<Utc> {
    BEGIN.parse().expect("a time")
}

/// A store with usable instances, in a folder that goes with it.
struct Room {
    store: Arc<Store>,
    folder: tempfile::TempDir,
}

impl Room {
    fn new() -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        let url = format!("sqlite://{}", folder.path().join("broker.db").display());
        Self {
            store: Arc::new(Store::open(&url).expect("a store")),
            folder,
        }
    }

    async fn write<T: Send + 'static>(
        &self,
        work: impl Fn(&mut Conn<'_>) -> Result<T, StoreError> + Send + 'static,
    ) -> T {
        self.store.write(work).await.expect("a write")
    }

    /// An instance on a cluster, usable since [`BEGIN`].
    async fn add(&self, id: &str, cluster: &str) -> InstanceId {
        let id: InstanceId = id.parse().expect("an id");
        let deployment = DeploymentId::generate(begin());
        let instance = instance(&id, &deployment);
        let deployment = Deployment {
            id: deployment,
            instance: id.clone(),
            cluster: cluster.to_owned(),
            engine: "etcd".to_owned(),
            version: "3.5.16".parse().expect("a version"),
            units: 1,
            members: Vec::new(),
            name: "a-deployment".to_owned(),
            closed_since: None,
        };
        let schedule = Schedule::begin(id.clone(), begin());
        self.write(move |conn| {
            store::instance::insert(conn, &instance)?;
            store::deployment::insert(conn, &deployment)?;
            store::schedule::begin(conn, &schedule, &deployment.cluster)
        })
        .await;
        id
    }

    async fn tick(&self, limits: &Places, now: DateTime<Utc>) -> usize {
        let accepted = back_up_due(&self.store, limits.clone(), now).await;
        accepted.expect("a tick")
    }

    async fn backups(&self, id: &InstanceId) -> Vec<Backup> {
        let id = id.clone();
        self.write(move |conn| store::backup::of_instance(conn, &id))
            .await
    }

    /// Ends the newest backup of an instance.
    async fn end(&self, id: &InstanceId, state: BackupState, now: DateTime<Utc>) {
        let newest = self.backups(id).await.swap_remove(0);
        self.write(move |conn| {
            let claimed = claim(conn, 1000, now)?;
            for (operation, claim) in claimed {
                if operation.id == newest.operation {
                    store::claim::finish(conn, &claim, OperationState::Failed, now)?;
                }
            }
            store::claim::release(conn, Some("test"))?;
            if state == BackupState::Failed {
                store::backup::fail(conn, &newest.id, "why", now)?;
            }
            Ok(())
        })
        .await;
    }
}

fn instance(id: &InstanceId, deployment: &DeploymentId) -> Instance {
    Instance {
        id: id.clone(),
        service_id: "s".to_owned(),
        plan_id: "p".to_owned(),
        tenant: Tenant {
            platform: "cloudfoundry".to_owned(),
            organization: "o".to_owned(),
            space: "s".to_owned(),
            account: Default::default(),
        },
        name: None,
        restored_from: None,
        deployment: deployment.clone(),
        context: json!({}),
        parameters: json!({}),
        request: ProvisionIdentity {
            service_id: "s".to_owned(),
            plan_id: "p".to_owned(),
            organization: "o".to_owned(),
            space: "s".to_owned(),
            parameters: json!({}),
        },
        state: InstanceState::Ready,
        created_at: begin(),
        ordinal: 0,
    }
}

fn places(in_all: usize, on: &[(&str, usize)]) -> Places {
    Places::new(in_all, on.iter().map(|(id, n)| ((*id).to_owned(), *n)))
}

fn many() -> Places {
    places(1000, &[("a", 1000), ("b", 1000)])
}

/// Claims the backups that are due, so many at most.
fn claim(
    conn: &mut Conn<'_>,
    most: usize,
    now: DateTime<Utc>,
) -> Result<Vec<(Operation, Claim)>, StoreError> {
    let look = Look {
        owner: "test",
        now,
        lease_until: now + TimeDelta::seconds(10),
        clusters: None,
        kinds: &[OperationKind::Backup],
        places: most,
        asked: most,
        shares: &Shares {
            tenant: most,
            instance: most,
            clusters: BTreeMap::new(),
        },
        busy_with: &[],
    };
    store::queue::claim(conn, &look)
}

fn first_slot(id: &InstanceId) -> DateTime<Utc> {
    slot_after(begin() + TimeDelta::hours(1), minute_of_day(id))
}

#[tokio::test]
async fn an_instance_is_taken_in_its_minute_and_not_before() {
    let room = Room::new();
    let id = room.add("i", "a").await;
    let slot = first_slot(&id);
    assert_eq!(room.tick(&many(), slot - TimeDelta::seconds(1)).await, 0);
    assert_eq!(room.tick(&many(), slot).await, 1);
    assert_eq!(room.tick(&many(), slot).await, 0);
    let backups = room.backups(&id).await;
    assert_eq!(
        backups[0].period.map(|p| p.to_string()),
        Some("2026-06".to_owned())
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn many_schedulers_make_one_backup() {
    let room = Room::new();
    let mut ids = Vec::new();
    for i in 0..20 {
        ids.push(room.add(&format!("i-{i}"), "a").await);
    }
    let now = begin() + Days::new(3);
    let ticks = (0..8).map(|_| {
        let store = room.store.clone();
        tokio::spawn(async move { back_up_due(&store, many(), now).await })
    });
    let mut accepted = 0;
    for tick in ticks.collect::<Vec<_>>() {
        accepted += tick.await.expect("a task").expect("a tick");
    }
    assert_eq!(accepted, 20);
    for id in &ids {
        assert_eq!(room.backups(id).await.len(), 1);
    }
}

#[tokio::test]
async fn what_is_spoiled_of_one_instance_holds_up_no_other() {
    let room = Room::new();
    let mut ids = Vec::new();
    for i in 0..6 {
        ids.push(room.add(&format!("i-{i}"), "a").await);
    }
    let file = room.folder.path().join("broker.db").display().to_string();
    let mut inside = SqliteConnection::establish(&file).expect("a connection");
    let spoil = "UPDATE instances SET deployment_id = 'spoiled ' || id WHERE id IN ('i-0', 'i-4');
         CREATE TRIGGER spoils BEFORE INSERT ON backups WHEN NEW.instance_id IN ('i-1', 'i-3')
         BEGIN SELECT RAISE(ABORT, 'spoiled'); END";
    inside.batch_execute(spoil).expect("spoiled");
    let now = begin() + Days::new(3);
    assert_eq!(room.tick(&many(), now).await, 2);
    for (i, id) in ids.iter().enumerate() {
        let is_sound = i == 2 || i == 5;
        let expected = usize::from(is_sound);
        assert_eq!(room.backups(id).await.len(), expected, "{id}");
    }
    assert_eq!(room.tick(&many(), now).await, 0);

    // What is mended has its backup a little later.
    let mend = "DROP TRIGGER spoils; UPDATE instances SET deployment_id =
         (SELECT id FROM deployments WHERE instance_id = instances.id)";
    inside.batch_execute(mend).expect("mended");
    assert_eq!(room.tick(&many(), now).await, 0);
    let later = now + SCHEDULE_RETRY_MAX;
    assert_eq!(room.tick(&many(), later).await, 4);
}

#[tokio::test]
async fn a_period_is_taken_once_whatever_the_schedule_says() {
    let room = Room::new();
    let id = room.add("i", "a").await;
    let slot = first_slot(&id);
    room.tick(&many(), slot).await;
    // What no scheduler does: it asks for the same month again.
    let [backup] = room.backups(&id).await.try_into().expect("one");
    let again = room
        .store
        .write(move |conn| {
            let deployment = backup.deployment.clone();
            queue_backup(
                conn,
                &backup.instance,
                &deployment,
                backup.period,
                Origin::Schedule,
                slot,
            )
        })
        .await;
    assert!(matches!(again, Err(StoreError::Duplicate)), "{again:?}");
    assert_eq!(room.backups(&id).await.len(), 1);
    // A failed one does not count.
    room.end(&id, BackupState::Failed, slot).await;
    let mut schedule = Schedule::begin(id.clone(), begin());
    schedule.next_at = slot + TimeDelta::minutes(1);
    room.write(move |conn| store::schedule::set(conn, &schedule))
        .await;
    assert_eq!(room.tick(&many(), slot + TimeDelta::minutes(1)).await, 1);
    let periods: Vec<_> = room.backups(&id).await.iter().map(|b| b.period).collect();
    assert_eq!(periods.len(), 2);
    assert_eq!(periods[0], periods[1]);
}

#[tokio::test]
async fn no_more_are_taken_than_there_are_places() {
    let room = Room::new();
    let mut ids = Vec::new();
    for i in 0..6 {
        ids.push(room.add(&format!("a-{i}"), "a").await);
        room.add(&format!("b-{i}"), "b").await;
        room.add(&format!("c-{i}"), "unknown").await;
    }
    let now = begin() + Days::new(3);
    assert_eq!(room.tick(&places(0, &[("a", 9)]), now).await, 0);
    let limits = places(5, &[("a", 2), ("b", 9)]);
    assert_eq!(room.tick(&limits, now).await, 5);
    assert_eq!(room.tick(&limits, now).await, 0);
    // Those that waited longest came first.
    ids.sort_by_key(first_slot);
    for (i, id) in ids.iter().enumerate() {
        assert_eq!(room.backups(id).await.len(), usize::from(i < 2), "{i}");
    }
    // A place that becomes free is filled, on the same cluster.
    room.end(&ids[0], BackupState::Complete, now).await;
    assert_eq!(room.tick(&limits, now).await, 1);
    assert_eq!(room.backups(&ids[2]).await.len(), 1);
}

#[tokio::test]
async fn what_a_user_asked_for_is_waited_for_and_takes_no_place_before_it_begins() {
    let room = Room::new();
    let (id, other) = (room.add("i", "a").await, room.add("other", "a").await);
    let now = begin() + Days::new(3);
    let instance = id.clone();
    room.write(move |conn| {
        let found = store::instance::get(conn, &instance)?;
        queue_backup(
            conn,
            &instance,
            &found.deployment,
            None,
            Origin::Compose,
            now,
        )
    })
    .await;
    assert_eq!(room.tick(&places(9, &[("a", 1)]), now).await, 1);
    assert_eq!(room.backups(&other).await.len(), 1);
    assert_eq!(room.tick(&many(), now).await, 0);
    room.end(&id, BackupState::Complete, now).await;
    assert_eq!(room.tick(&many(), now).await, 0, "a minute is waited");
    assert_eq!(room.tick(&many(), now + TimeDelta::minutes(1)).await, 1);
    assert_eq!(room.backups(&id).await.len(), 2);
}

#[tokio::test]
async fn a_schedule_of_a_clock_that_was_far_ahead_is_made_anew() {
    let room = Room::new();
    let id = room.add("i", "a").await;
    room.tick(&many(), begin() + Days::new(400)).await;
    room.end(&id, BackupState::Complete, begin()).await;
    let slot = first_slot(&id);
    assert_eq!(room.tick(&many(), slot).await, 1);
    let found = id.clone();
    let schedule = room
        .write(move |conn| store::schedule::find(conn, &found))
        .await;
    assert_eq!(schedule.map(|s| s.next_at), Some(slot + Days::new(1)));
}

#[tokio::test]
async fn users_backups_without_end_leave_the_schedule_a_place() {
    let room = Room::new();
    let limits = places(2, &[("c", 2)]);
    let due = room.add("due", "c").await;
    let mut busy = Vec::new();
    for i in 0..4 {
        busy.push(room.add(&format!("busy {i}"), "c").await);
    }
    let now = slot_after(begin(), minute_of_day(&due)) + TimeDelta::days(1);
    for id in busy.clone() {
        room.write(move |conn| {
            let deployment = store::instance::get(conn, &id)?.deployment;
            queue_backup(conn, &id, &deployment, None, Origin::Compose, now)?;
            Ok(())
        })
        .await;
    }
    // All of them run.
    room.write(move |conn| {
        let claimed = claim(conn, 1000, now)?;
        assert_eq!(claimed.len(), 4);
        Ok(())
    })
    .await;
    assert_eq!(room.tick(&limits, now).await, 1);
    assert_eq!(room.tick(&limits, now).await, 0);
    assert_eq!(room.backups(&due).await.len(), 1);
}

#[tokio::test]
async fn a_backup_that_waits_for_its_next_try_leaves_its_place_to_others() {
    let room = Room::new();
    let limits = places(1, &[("c", 1)]);
    let silent = room.add("silent", "c").await;
    let now = begin() + Days::new(3);
    assert_eq!(room.tick(&limits, now).await, 1);
    room.add("other", "c").await;
    assert_eq!(room.tick(&limits, now).await, 0);
    let operation = room.backups(&silent).await.swap_remove(0).operation;
    room.write(move |conn| {
        let (claimed, claim) = claim(conn, 1, now)?.swap_remove(0);
        assert_eq!(claimed.id, operation);
        store::claim::postpone(conn, &claim, now, std::time::Duration::from_secs(600))
    })
    .await;
    assert_eq!(room.tick(&limits, now).await, 1);
}
