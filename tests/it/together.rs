//! Several brokers within the tests' process, over one database of PostgreSQL and with databases in memory. Each of
//! them looks after the cluster, so all would begin what is due: what keeps them apart is the store.

use std::{cell::Cell, fs, path::PathBuf, time::Duration};

use chrono::{NaiveDateTime, TimeDelta};
use compose_broker::{
    app::Surroundings,
    model::{limits::LEASE, operation::OperationKind},
    seal::KeyRing,
};
use diesel::{
    Connection as _, OptionalExtension as _, PgConnection, QueryableByName, RunQueryDsl as _,
    sql_query,
    sql_types::{BigInt, Bool, Nullable, Text, Timestamp},
};
use reqwest::{Method, StatusCode};
use serde_json::{Value, json};
use tokio::time::sleep;

use crate::{
    broker::{
        Answer, SERVICE, STANDARD, TestBroker, answer, binding_path, eventually, instance_path,
        new_folder, text, with_one_backup,
    },
    catalog::catalog_file,
    control::{Script, TestClock},
    database::Database,
    line::Line,
    pages::Visitor,
    postgres,
    process::free_port,
};

/// How often two brokers are asked for two things at the same moment.
const ROUNDS: u32 = 20;

/// What brokers in this process have in common.
pub struct Common {
    folder: tempfile::TempDir,
    /// The store's address.
    pub url: String,
    pub database: Database,
    ring: String,
}

impl Common {
    /// Over an empty database; none where PostgreSQL is not installed, and a line that says so.
    pub fn new() -> Option<Self> {
        Some(Self::over(postgres::new_database()?))
    }

    /// Over the empty database at this address.
    pub fn over(url: String) -> Self {
        let ring = KeyRing::generate().expect("keys");
        Self {
            folder: tempfile::tempdir().expect("a folder"),
            url,
            database: Database::in_memory(),
            ring: ring.expose().to_owned(),
        }
    }

    /// The folder of the backups.
    pub fn backups(&self) -> PathBuf {
        self.folder.path().join("backups")
    }

    /// A broker that reaches the store at this address.
    pub async fn broker_at(&self, url: &str, surroundings: Surroundings) -> TestBroker {
        let folder = new_folder();
        let data = folder.join("data");
        fs::create_dir(&data).expect("a folder");
        for (name, value) in [
            ("encryption_keys", self.ring.as_str()),
            ("username", "ada"),
            ("password", "word"),
        ] {
            fs::write(data.join(name), value).expect("a file");
        }
        let catalog = with_one_backup(catalog_file());
        let catalog = self.database.catalog_in(&folder, &catalog);
        let backups = format!("file://{}", self.backups().display());
        // It stays the same over its starts.
        let listen = format!("127.0.0.1:{}", free_port());
        let flags = [
            ["--catalog", &catalog],
            ["--backup-store", &backups],
            ["--listen", &listen],
            ["--failed-sign-ins", "0"],
        ];
        let (database, url) = (self.database.clone(), url.to_owned());
        let flags = flags.as_flattened();
        TestBroker::start_beside_others(database, folder, flags, url, surroundings).await
    }

    async fn broker(&self, surroundings: Surroundings) -> TestBroker {
        self.broker_at(&self.url, surroundings).await
    }

    /// Two of them, whose steps a script holds.
    async fn pair(&self) -> ([TestBroker; 2], Script) {
        let script = Script::default();
        let one = self.broker(script.surroundings()).await;
        let two = self.broker(script.surroundings()).await;
        ([one, two], script)
    }

    /// The operations of an instance of these kinds, in the order in which they were accepted.
    fn operations(&self, instance: &str, kinds: &[OperationKind]) -> Vec<Accepted> {
        let mut inside = PgConnection::establish(&self.url).expect("a connection");
        let kinds: Vec<String> = kinds.iter().map(|kind| format!("'{kind}'")).collect();
        let kinds = kinds.join(", ");
        let of_instance = format!(
            "SELECT kind, state, halted FROM operations
             WHERE instance_id = '{instance}' AND kind IN ({kinds}) ORDER BY ordinal, id"
        );
        sql_query(of_instance).load(&mut inside).expect("rows")
    }

    /// The last claim of the operation of an instance; none before its first.
    fn claim(&self, instance: &str) -> Option<Claim> {
        let mut inside = PgConnection::establish(&self.url).expect("a connection");
        let of_instance = format!(
            "SELECT epoch, lease_until AS ends, timezone('utc', clock_timestamp()) AS seen
             FROM operations WHERE instance_id = '{instance}' AND epoch > 0"
        );
        let claim = sql_query(of_instance).get_result(&mut inside);
        claim.optional().expect("rows")
    }

    /// Rows of an instance that is gone.
    fn left_of(&self, instance: &str) -> i64 {
        let mut inside = PgConnection::establish(&self.url).expect("a connection");
        let tables = ["instances", "deployments", "bindings", "waiting"];
        let id = |table: &str| {
            if table == "instances" {
                "id"
            } else {
                "instance_id"
            }
        };
        let of_table = |table: &&str| {
            let id = id(table);
            format!("(SELECT count(*) FROM {table} WHERE {id} = '{instance}')")
        };
        let counts: Vec<String> = tables.iter().map(of_table).collect();
        let all = format!("SELECT {} AS count", counts.join(" + "));
        let all: Counted = sql_query(all).get_result(&mut inside).expect("a count");
        all.count
    }
}

#[derive(QueryableByName)]
struct Counted {
    #[diesel(sql_type = BigInt)]
    count: i64,
}

/// How often an operation was claimed, when the last claim ends unless it was given back, and when that was seen; by
/// the database's clock.
#[derive(Clone, Copy, Debug, QueryableByName)]
struct Claim {
    #[diesel(sql_type = BigInt)]
    epoch: i64,
    #[diesel(sql_type = Nullable<Timestamp>)]
    ends: Option<NaiveDateTime>,
    #[diesel(sql_type = Timestamp)]
    seen: NaiveDateTime,
}

/// An operation, as the store has it.
#[derive(Debug, QueryableByName)]
struct Accepted {
    #[diesel(sql_type = Text)]
    kind: String,
    #[diesel(sql_type = Text)]
    state: String,
    #[diesel(sql_type = Bool)]
    halted: bool,
}

/// Asks for two things at the same moment, the second some time later or earlier: the moments of their decisions go
/// past each other from round to round.
async fn at_once<A, B>(
    round: u32,
    one: impl Future<Output = A>,
    two: impl Future<Output = B>,
) -> (A, B) {
    let step = Duration::from_millis(3);
    let middle = ROUNDS / 2;
    let first = async {
        sleep(step * round.saturating_sub(middle)).await;
        one.await
    };
    let second = async {
        sleep(step * middle.saturating_sub(round)).await;
        two.await
    };
    tokio::join!(first, second)
}

async fn put_binding(broker: &TestBroker, instance: &str, binding: &str) -> Answer {
    let path = format!(
        "{}?accepts_incomplete=true",
        binding_path(instance, binding)
    );
    let body = json!({ "service_id": SERVICE, "plan_id": STANDARD });
    answer(broker.osb(Method::PUT, &path).json(&body)).await
}

fn is_refused_for_now(answer: &Answer) -> bool {
    answer.status == StatusCode::UNPROCESSABLE_ENTITY && answer.body["error"] == "ConcurrencyError"
}

async fn end_of_binding(
    broker: &TestBroker,
    instance: &str,
    binding: &str,
    accepted: &Value,
) -> Value {
    let operation = text(&accepted["operation"]);
    let binding = binding_path(instance, binding);
    let path = format!("{binding}/last_operation?operation={operation}");
    broker.end_of(&path).await
}

/// A binding is not begun beside an update that was accepted before it.
#[tokio::test(flavor = "multi_thread")]
async fn a_binding_and_an_update_at_two_brokers_come_one_after_the_other() {
    let Some(common) = Common::new() else {
        return;
    };
    let ([one, two], script) = common.pair().await;
    // Each grows round by round: no broker has to have seen how large its database is.
    for instance in ["i", "j"] {
        one.provision(instance, json!({})).await;
        let mut seen = 0;
        for round in 0..ROUNDS / 2 {
            let held = [
                script.hold(OperationKind::Bind, "add_user"),
                script.hold(OperationKind::Update, "check"),
            ];
            let binding = format!("b{round}");
            let path = format!("{}?accepts_incomplete=true", instance_path(instance));
            let larger = json!({ "service_id": SERVICE, "parameters": { "units": round + 2 } });
            let update = answer(two.osb(Method::PATCH, &path).json(&larger));
            let bind = put_binding(&one, instance, &binding);
            let (bound, updated) = at_once(2 * round, bind, update).await;
            assert_eq!(updated.status, StatusCode::ACCEPTED, "{updated:?}");
            let all = common.operations(instance, &[OperationKind::Bind, OperationKind::Update]);
            let order: Vec<&str> = all[seen..].iter().map(|of| of.kind.as_str()).collect();
            let is_bound = bound.status == StatusCode::ACCEPTED;
            let expected: &[&str] = match is_bound {
                true => &["bind", "update"],
                false => &["update"],
            };
            assert_eq!(order, expected, "round {round}: {bound:?}");
            assert!(is_bound || is_refused_for_now(&bound), "{bound:?}");
            seen = all.len();
            drop(held);
            let end = one.instance_end(instance, &updated.body).await;
            assert_eq!(end["state"], "succeeded", "{end}");
            if is_bound {
                let end = end_of_binding(&two, instance, &binding, &bound.body).await;
                assert_eq!(end["state"], "succeeded", "{end}");
            }
        }
        two.deprovision(instance).await;
    }
}

/// A binding that was accepted before the end of its instance is told of it, and none is accepted after it.
#[tokio::test(flavor = "multi_thread")]
async fn a_binding_and_the_end_of_its_instance_at_two_brokers_leave_nothing() {
    let Some(common) = Common::new() else {
        return;
    };
    let ([one, two], script) = common.pair().await;
    let kinds = [OperationKind::Bind, OperationKind::Deprovision];
    for round in 0..ROUNDS {
        let instance = format!("i{round}");
        one.provision(&instance, json!({})).await;
        let held = [
            script.hold(OperationKind::Bind, "add_user"),
            script.hold(OperationKind::Deprovision, "destroy"),
        ];
        let deletion = two.delete_instance(&instance);
        let (bound, deleted) = at_once(round, put_binding(&one, &instance, "b"), deletion).await;
        assert_eq!(deleted.status, StatusCode::ACCEPTED, "{deleted:?}");
        let all = common.operations(&instance, &kinds);
        let told: Vec<(&str, bool)> = all.iter().map(|of| (of.kind.as_str(), of.halted)).collect();
        let expected: &[(&str, bool)] = match bound.status == StatusCode::ACCEPTED {
            true => &[("bind", true), ("deprovision", false)],
            false => &[("deprovision", false)],
        };
        assert_eq!(told, expected, "round {round}: {bound:?}");
        drop(held);
        let end = one.instance_end(&instance, &deleted.body).await;
        assert_eq!(end["state"], "succeeded", "{end}");
        assert_eq!(common.left_of(&instance), 0, "round {round}: {bound:?}");
    }
    assert_eq!(one.running(), Vec::<String>::new());
}

/// A restore that was accepted has its backup until it ends, and none is accepted of one that goes.
#[tokio::test(flavor = "multi_thread")]
async fn a_restore_and_the_end_of_its_backup_at_two_brokers_come_one_after_the_other() {
    let Some(common) = Common::new() else {
        return;
    };
    let (brokers, script) = common.pair().await;
    let [one, two] = &brokers;
    one.provision("i", json!({})).await;
    let credentials = one.bind("i", "b").await;
    let put = common.database.put(&credentials, "k", "v".to_owned());
    put.await.expect("written");
    let mut backup = one.back_up(&credentials).await;
    let mut were_restored = Vec::new();
    for round in 0..ROUNDS {
        let held = script.hold(OperationKind::Prune, "expire");
        // Of two backups that somebody asked for the older one goes.
        let next = one.back_up(&credentials).await;
        let prunes = common.operations("i", &[OperationKind::Prune]).len();
        let source = json!({ "source_service_instance_id": "i", "backup_id": backup["id"] });
        let copy = format!("copy{round}");
        let prune = async { drop(held) };
        let restore = two.put_instance(&copy, source);
        let (restored, ()) = at_once(round, restore, prune).await;
        let is_restored = restored.status == StatusCode::ACCEPTED;
        were_restored.push(is_restored);
        if is_restored {
            let end = one.instance_end(&copy, &restored.body).await;
            assert_eq!(end["state"], "succeeded", "round {round}: {end}");
            let bound = one.bind(&copy, "b").await;
            let there = common.database.dump(&bound).await;
            assert_eq!(there, [("k".to_owned(), "v".to_owned())], "round {round}");
            one.deprovision(&copy).await;
        } else {
            assert!(restored.status.is_client_error(), "{restored:?}");
        }
        eventually("the end of a backup", || async {
            let all = common.operations("i", &[OperationKind::Prune]);
            let is_over = all.len() >= prunes && all.iter().all(|of| of.state == "succeeded");
            is_over.then_some(())
        })
        .await;
        backup = next;
    }
    println!("restored: {were_restored:?}");
    one.deprovision("i").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn who_signed_in_at_one_broker_is_known_at_the_other_and_a_link_is_good_once_at_both() {
    let Some(common) = Common::new() else {
        return;
    };
    let ([one, two], _) = common.pair().await;
    one.provision("mine", json!({})).await;
    let page = "/dashboard/instances/mine";
    let link = one.dashboard_link("mine").await.expect("a link");
    let (_, code) = link.split_once("code=").expect("a code");
    let mut there = Visitor::of(&two);
    let entered = there.post("/dashboard/link", &[("code", code)]).await;
    assert_eq!(entered.status, StatusCode::SEE_OTHER, "{entered:?}");
    there.take_cookie(&entered);
    assert!(there.is_in(page).await);
    let mut here = Visitor::of(&one);
    let again = here.post("/dashboard/link", &[("code", code)]).await;
    assert_eq!(again.status, StatusCode::FORBIDDEN, "{again:?}");
    here.cookie.clone_from(&there.cookie);
    assert!(here.is_in(page).await);
    // Out at one is out at both.
    let csrf = here.csrf(page).await;
    let out = here.post("/dashboard/sign-out", &[("csrf", &csrf)]).await;
    assert_eq!(out.status, StatusCode::SEE_OTHER, "{out:?}");
    assert!(!there.is_in(page).await);
    one.deprovision("mine").await;
}

/// How far a broker's clock is off.
const APART: TimeDelta = TimeDelta::seconds(60);

/// How often a claim is watched over where the machine stands still for a lease, so that no worker could keep it.
const WATCHES: usize = 5;

/// When a claim ends is told by the database's clock: nobody takes work from its worker because another clock says
/// that the claim is over.
#[tokio::test(flavor = "multi_thread")]
async fn a_claim_lasts_though_its_worker_is_a_minute_behind_and_another_a_minute_ahead() {
    a_claim_ends_in_time(-APART, APART).await;
}

/// And nobody waits a minute longer for a worker that is gone.
#[tokio::test(flavor = "multi_thread")]
async fn a_claim_ends_though_its_worker_is_a_minute_ahead_and_another_a_minute_behind() {
    a_claim_ends_in_time(APART, -APART).await;
}

async fn a_claim_ends_in_time(of_worker: TimeDelta, of_other: TimeDelta) {
    for _ in 0..WATCHES {
        let Some(common) = Common::new() else {
            return;
        };
        if a_claim_under_skew(&common, of_worker, of_other).await {
            return;
        }
    }
    panic!("the machine stood still for a lease, {WATCHES} times");
}

/// When a claim ends that a worker has had for longer than a lease. None where the worker could not renew it in time;
/// where it was taken from it before, this fails.
async fn end_of_kept(common: &Common, first: Claim, what: &str) -> Option<NaiveDateTime> {
    let last = Cell::new(first);
    let lease = TimeDelta::from_std(LEASE).expect("a time");
    eventually("a claim that is older than it lasts", || async {
        let (now, before) = (common.claim("i").expect("a claim"), last.get());
        let Some(ends) = now.ends.filter(|_| now.epoch == first.epoch) else {
            let ended = before.ends.is_some_and(|ends| ends <= now.seen);
            assert!(ended, "{what}: {before:?} became {now:?}");
            return Some(None);
        };
        last.set(now);
        let lasts = first.ends.is_some_and(|begun| ends - begun > lease);
        lasts.then_some(Some(ends))
    })
    .await
}

/// Whether the machine let it be seen.
async fn a_claim_under_skew(common: &Common, of_worker: TimeDelta, of_other: TimeDelta) -> bool {
    let what = format!("worker {of_worker} ahead, other {of_other}");
    let clocks = [of_worker, of_other].map(|ahead| {
        let clock = TestClock::default();
        clock.shift(ahead);
        clock
    });
    // A broker that begins frees what its clusters' last one was at work on, and in memory each has them all. So the
    // other one has worked before, and has no server until the worker has its claim.
    let (line_of_other, url) = Line::to_server_of(&common.url);
    let other = common.broker_at(&url, clocks[1].surroundings()).await;
    other.provision("before", json!({})).await;
    other.deprovision("before").await;
    line_of_other.cut();
    let (line, url) = Line::to_server_of(&common.url);
    let script = Script::default();
    let held = script.hold(OperationKind::Provision, "start");
    let worker = common.broker_at(&url, script.surroundings_at(&clocks[0]));
    let worker = worker.await;
    let accepted = worker.put_instance("i", json!({})).await;
    assert_eq!(
        accepted.status,
        StatusCode::ACCEPTED,
        "{what}: {accepted:?}"
    );
    let claim = || async { common.claim("i") };
    let first = eventually("a claim", claim).await;
    line_of_other.mend();
    other.becomes_ready().await;
    // The other one has time enough to take it, were it over.
    let Some(renewed) = end_of_kept(common, first, &what).await else {
        return false;
    };

    line.cut();
    let cut = tokio::time::Instant::now();
    let taken = eventually("a claim of the other", || async {
        common.claim("i").filter(|claim| claim.epoch > first.epoch)
    })
    .await;
    let took = cut.elapsed();
    assert!(took < 2 * LEASE, "{what}: {took:?}");
    // Where it has ended already, there is no more to tell than when it was seen.
    assert!(
        taken.ends.unwrap_or(taken.seen) > renewed,
        "{what}: {taken:?}"
    );
    let end = other.instance_end("i", &accepted.body).await;
    assert_eq!(end["state"], "succeeded", "{what}: {end}");
    // The members are in the memory of this one, which alone can delete them.
    other.deprovision("i").await;
    // The one that comes back finds that it is another's, and done.
    line.mend();
    drop(held);
    worker.becomes_ready().await;
    assert_eq!(other.running(), Vec::<String>::new(), "{what}");
    assert_eq!(common.left_of("i"), 0, "{what}");
    true
}
