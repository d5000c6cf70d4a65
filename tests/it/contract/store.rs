//! What the broker's store must hold to, on every database.
//!
//! Each test is written once, against the store's public functions, and run on each kind of database.
//! A new kind is a [`Kind`] and a line at the end. PostgreSQL is among them where a server can be started
//! ([`crate::postgres`]).

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use chrono::{DateTime, TimeDelta, Utc};
use compose_broker::{
    model::{
        address::Address,
        backup::Backup,
        binding::{BindIdentity, Binding, BindingState},
        deployment::{Deployment, Member, Membership, Notes},
        ids::{DeploymentId, OperationId},
        instance::{Instance, InstanceState, ProvisionIdentity},
        operation::{Claim, Operation, OperationKind},
        origin::Origin,
        period::{BackupKind, Period},
        postgres::DatabaseAddress,
        queue::Shares,
        tenant::Tenant,
        trust::{ClockReading, KnownTime, Trusted},
    },
    store::{Conn, Store, StoreError, notes, operation, queue},
};
use diesel::{Connection as _, PgConnection, connection::SimpleConnection as _};
use serde_json::json;

/// Asserts what a result has come to.
macro_rules! refused {
    ($result:expr, $kind:pat) => {
        let result = $result;
        assert!(matches!(result, Err($kind)), "{result:?}");
    };
}

mod copies;
mod messages;
mod outages;
mod registers;
mod rows;
mod transactions;
mod work;

/// A kind of database.
trait Kind: Sized {
    /// Decisions that wait for one that holds them up.
    const WAITING: usize = 30;

    /// An empty store; none where this machine has no such database, and a line that says so.
    fn new() -> Option<Self>;
    /// The store.
    fn store(&self) -> &Arc<Store>;
    /// What another broker has of the same database; the same store where there can be no other.
    fn replica(&self) -> Arc<Store>;
}

struct Sqlite {
    store: Arc<Store>,
    _folder: tempfile::TempDir,
}

impl Kind for Sqlite {
    fn new() -> Option<Self> {
        let folder = tempfile::tempdir().expect("a folder");
        let url = format!("sqlite://{}", folder.path().join("db").display());
        Some(Self {
            store: Arc::new(Store::open(&url).expect("a store")),
            _folder: folder,
        })
    }
    fn store(&self) -> &Arc<Store> {
        &self.store
    }
    fn replica(&self) -> Arc<Store> {
        self.store.clone()
    }
}

struct Postgres {
    store: Arc<Store>,
    url: String,
}

impl Kind for Postgres {
    fn new() -> Option<Self> {
        let url = crate::postgres::new_database()?;
        let store = open(&url);
        Some(Self { store, url })
    }
    fn store(&self) -> &Arc<Store> {
        &self.store
    }
    fn replica(&self) -> Arc<Store> {
        open(&self.url)
    }
}

/// The same behind a pooler that gives each transaction another connection.
struct Pooled {
    store: Arc<Store>,
    url: String,
}

impl Pooled {
    fn open(url: &str) -> Arc<Store> {
        let mut at = DatabaseAddress::from(url);
        at.postgres.behind_pooler = true;
        Arc::new(Store::open(at).expect("a store"))
    }
}

impl Kind for Pooled {
    // Each statement of each goes through one process more, and is planned anew.
    const WAITING: usize = 12;

    fn new() -> Option<Self> {
        let url = crate::postgres::new_pooled_database_of_own_time()?;
        let store = Self::open(&url);
        Some(Self { store, url })
    }
    fn store(&self) -> &Arc<Store> {
        &self.store
    }
    fn replica(&self) -> Arc<Store> {
        Self::open(&self.url)
    }
}

/// A store whose time is what a test says.
fn open(url: &str) -> Arc<Store> {
    let mut at = DatabaseAddress::from(url);
    at.postgres.own_time = true;
    Arc::new(Store::open(at).expect("a store"))
}

/// More rows than any test makes.
const MANY: i64 = 1000;
/// The end of a lease, from when it is taken.
const LEASE: TimeDelta = TimeDelta::seconds(15);
/// What is to happen has happened by then.
const SOON: Duration = Duration::from_secs(30);

/// A moment with as much of a second as every database keeps.
fn noon() -> DateTime<Utc> {
    "2026-06-01T12:00:00.123456Z".parse().expect("a time")
}

fn seconds(count: i64) -> DateTime<Utc> {
    noon() + TimeDelta::seconds(count)
}

fn trusted(time: DateTime<Utc>) -> Trusted {
    let reading = ClockReading {
        time,
        elapsed: TimeDelta::zero(),
        boot: "b".to_owned(),
    };
    let known = KnownTime::begin(&reading).trusted(&reading);
    known.expect("nothing is known against it")
}

fn id<T: std::str::FromStr<Err: std::fmt::Debug>>(text: &str) -> T {
    text.parse().expect("an id")
}

/// The id of our own of that number.
fn own<T: std::str::FromStr<Err: std::fmt::Debug>>(number: u32) -> T {
    id(&format!("{number:024x}"))
}

fn backup_of(instance: &str) -> Operation {
    Operation::queued(
        OperationKind::Backup,
        &id(instance),
        Origin::Compose,
        noon(),
    )
}

fn instance_of(name: &str, organization: &str) -> Instance {
    Instance {
        id: id(name),
        service_id: "etcd".to_owned(),
        plan_id: "standard".to_owned(),
        tenant: Tenant {
            platform: "cloudfoundry".to_owned(),
            organization: organization.to_owned(),
            space: "s".to_owned(),
            account: BTreeMap::new(),
        },
        name: None,
        restored_from: None,
        deployment: DeploymentId::generate(noon()),
        context: json!({}),
        parameters: json!({}),
        request: ProvisionIdentity {
            service_id: "etcd".to_owned(),
            plan_id: "standard".to_owned(),
            organization: organization.to_owned(),
            space: "s".to_owned(),
            parameters: json!({}),
        },
        state: InstanceState::Provisioning,
        created_at: noon(),
        ordinal: 0,
    }
}

/// The deployment of that number, whose only member has these ports.
fn deployment_at(number: u32, ports: &[u16]) -> Deployment {
    let named = |port: &u16| (format!("p{port}"), Address::at("db.example.org", *port));
    Deployment {
        id: own(number),
        instance: id(&format!("i{number}")),
        name: "a name".to_owned(),
        cluster: "c".to_owned(),
        engine: "etcd".to_owned(),
        version: "3.6.14".parse().expect("a version"),
        units: 2,
        members: vec![Member {
            name: "m0".to_owned(),
            addresses: ports.iter().map(named).collect(),
            shape: None,
            checkpointing: false,
            membership: Membership::New,
        }],
        closed_since: None,
    }
}

fn binding_of(instance: &str, name: &str) -> Binding {
    Binding {
        instance: id(instance),
        id: id(name),
        parameters: json!({}),
        request: BindIdentity {
            service_id: "etcd".to_owned(),
            plan_id: "standard".to_owned(),
            bind_resource: json!({}),
            parameters: json!({}),
            predecessor: None,
            on_page: None,
        },
        database_user: format!("user of {instance} {name}"),
        sealed_secrets: "sealed".to_owned(),
        sealed_credentials: None,
        state: BindingState::Creating,
        created_at: noon(),
        expires_at: None,
    }
}

/// The backup of that number, of the instance `i`.
fn kept_backup(number: u32, period: Option<&str>) -> Backup {
    let kind = period.map_or(BackupKind::OnDemand, |_| BackupKind::Daily);
    let (instance, deployment) = (id("i"), own(0));
    let of = (&instance, &deployment);
    Backup {
        period: period.map(|text| text.parse::<Period>().expect("a period")),
        ..Backup::asked_for(own(number), of, own(number), kind, noon())
    }
}

async fn write<T: Send + 'static>(
    store: &Arc<Store>,
    work: impl Fn(&mut Conn<'_>) -> Result<T, StoreError> + Send + 'static,
) -> T {
    store.write(work).await.expect("written")
}

async fn read<T: Send + 'static>(
    store: &Arc<Store>,
    look: impl FnOnce(&mut Conn<'_>) -> Result<T, StoreError> + Send + 'static,
) -> T {
    store.read(look).await.expect("an answer")
}

async fn accept(store: &Arc<Store>, operations: &[Operation]) {
    let operations = operations.to_vec();
    write(store, move |conn| {
        let mut all = operations.iter();
        all.try_for_each(|operation| operation::insert(conn, operation, None))
    })
    .await;
}

/// Claims at most so many backups that are due.
async fn claim(
    store: &Arc<Store>,
    owner: &'static str,
    now: DateTime<Utc>,
    places: usize,
) -> Vec<(Operation, Claim)> {
    write(store, move |conn| {
        let look = queue::Look {
            owner,
            now,
            lease_until: now + LEASE,
            clusters: None,
            kinds: &[OperationKind::Backup, OperationKind::Deprovision],
            places,
            asked: places,
            shares: &Shares {
                tenant: 100,
                instance: 100,
                clusters: BTreeMap::new(),
            },
            busy_with: &[],
        };
        queue::claim(conn, &look)
    })
    .await
}

async fn claim_one(store: &Arc<Store>, owner: &'static str, now: DateTime<Utc>) -> Option<Claim> {
    let mut claims = claim(store, owner, now, 1).await;
    claims.pop().map(|(_, claim)| claim)
}

async fn found(store: &Arc<Store>, of: &OperationId) -> Operation {
    let of = of.clone();
    read(store, move |conn| operation::get(conn, &of)).await
}

async fn text_of_note(store: &Arc<Store>) -> String {
    read(store, |conn| Ok(notes::of(conn, &own(1))?.text)).await
}

fn note(conn: &mut Conn<'_>, text: &str) -> Result<(), StoreError> {
    let notes = Notes {
        text: text.to_owned(),
        billing_code: String::new(),
    };
    notes::set(conn, &own(1), &notes)
}

/// Runs every test on a kind of database.
macro_rules! contract {
    ($room:ident, $kind:ty) => {
        mod $room {
            use super::*;

            contract!(@tests $kind:
                transactions::decisions_are_one_at_a_time,
                transactions::what_is_refused_or_panics_leaves_nothing,
                transactions::a_part_that_fails_is_undone_alone,
                transactions::decisions_that_wait_are_made_together_and_refused_each_by_itself,
                transactions::a_read_sees_one_state_and_what_was_committed,
                transactions::who_waits_is_woken_by_work_alone,
                work::an_operation_has_one_claimer,
                work::what_is_due_is_claimed_the_oldest_first,
                work::a_claim_lasts_as_long_as_it_is_renewed,
                work::claims_on_a_cluster_are_freed_by_who_has_it,
                work::what_has_failed_in_passing_can_be_tried_at_once,
                work::an_old_worker_changes_nothing,
                work::results_of_steps_are_kept_until_the_work_is_over,
                work::one_active_operation_has_a_key,
                rows::an_address_is_held_once,
                rows::what_there_is_once_is_refused_a_second_time,
                rows::pages_have_all_and_nothing_twice,
                rows::what_is_to_be_proved_is_found_in_its_turn,
                rows::a_text_is_found_as_it_stands,
                rows::what_befell_is_told_newest_first_and_the_audit_is_kept,
                rows::what_is_sealed_comes_back_as_it_was_and_goes,
                rows::texts_come_back_whatever_stands_in_them,
                rows::times_keep_their_precision,
                messages::messages_of_an_instance_leave_one_after_the_other,
                messages::what_was_told_of_an_alert_is_kept_until_it_ends,
                messages::one_broker_sends_messages,
                copies::a_copy_is_made_by_one_broker_and_none_is_forgotten,
                copies::another_mirror_gets_all_copies_anew,
                registers::each_change_of_a_deployments_backups_has_its_register_written,
                registers::what_was_written_is_settled_unless_it_changed_meanwhile,
                registers::of_two_brokers_that_write_a_register_the_older_one_does_not_stay,
                registers::no_bytes_go_that_a_register_has_unless_there_is_no_room_for_it,
                registers::a_register_that_is_newer_than_the_store_loses_nothing,
            );
        }
    };
    (@tests $kind:ty: $($file:ident::$test:ident),* $(,)?) => {
        $(
            #[tokio::test(flavor = "multi_thread")]
            async fn $test() {
                super::$file::$test::<$kind>().await;
            }
        )*
    };
}

contract!(in_sqlite, Sqlite);
contract!(in_postgresql, Postgres);
contract!(behind_a_pooler, Pooled);

#[tokio::test(flavor = "multi_thread")]
async fn replicas_may_begin_at_once_on_an_empty_database() {
    let Some(url) = crate::postgres::new_database() else {
        return;
    };
    let open = |_| {
        let url = url.clone();
        tokio::task::spawn_blocking(move || Store::open(&url).map(Arc::new))
    };
    for opened in futures::future::join_all((0..5).map(open)).await {
        let store = opened.expect("no panic").expect("a store");
        store.ping().await.expect("it takes writes");
    }
}

/// A trigger for each row does not hear of it.
#[tokio::test(flavor = "multi_thread")]
async fn the_audit_is_not_emptied_by_truncate() {
    let Some(database) = Postgres::new() else {
        return;
    };
    accept(database.store(), &[backup_of("i")]).await;
    let mut admin = PgConnection::establish(&database.url).expect("a connection");
    for change in [
        "TRUNCATE audit",
        "TRUNCATE audit CASCADE",
        "DELETE FROM audit",
    ] {
        let changed = admin.batch_execute(change);
        let refused = changed.expect_err(change).to_string();
        assert!(refused.contains("append-only"), "{change}: {refused}");
    }
}
