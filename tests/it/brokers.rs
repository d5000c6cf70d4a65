//! Several brokers over one database of PostgreSQL.

use std::{fs, path::Path, time::Duration};

use compose_broker::model::limits::LEASE;
use diesel::{Connection as _, PgConnection, RunQueryDsl as _, sql_query};
use futures::future::join_all;
use reqwest::{Method, StatusCode};
use rustix::process::{Pid, Signal, kill_process};
use serde_json::{Value, json};

use crate::{
    broker::{
        ENTERPRISE, SERVICE, answer, binding_path, eventually, instance_path, text, with_one_backup,
    },
    catalog::catalog_file,
    control::move_clock,
    etcd,
    line::Line,
    pages::Visitor,
    postgres,
    process::{
        BrokerProcess, Settings, assert_one_line, new_key_ring, refused, shared_cluster,
        shared_settings,
    },
};

/// How far clocks of brokers differ.
const SKEW: Duration = Duration::from_secs(60);

/// What brokers over one store have in common: store, keys, clusters, backups.
fn shared(folder: &Path, url: &str, clusters: &[Value]) -> Settings {
    let mut settings = shared_settings(folder, clusters);
    settings.insert("DATABASE_URL", url.to_owned());
    settings.insert("ENCRYPTION_KEYS", new_key_ring());
    settings
}

fn broker(common: &Settings, machine: &str) -> BrokerProcess {
    BrokerProcess::stopped_with(|settings| {
        settings.extend(common.clone());
        settings.insert("MACHINE", machine.to_owned());
    })
}

/// Waits until a broker tells that members of an instance are well.
async fn is_well(broker: &BrokerProcess, instance: &str) {
    eventually("members that are well", || async {
        let path = format!("/operator/instances/{instance}");
        let shown = answer(broker.osb(Method::GET, &path)).await;
        (shown.body["health"]["state"] == "ready").then_some(())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn any_broker_answers_and_another_takes_over_from_one_that_dies() {
    let Some(url) = postgres::new_database() else {
        return;
    };
    let common = tempfile::tempdir().expect("a folder");
    let all = [shared_cluster("local", common.path(), None)];
    let common = shared(common.path(), &url, &all);
    let (mut one, mut two) = (broker(&common, "here"), broker(&common, "here"));
    one.start_again().await;
    two.start_again().await;

    // The one that stands by accepts; the other one does it, and each of them tells of it.
    two.provision("i", json!({})).await;
    let near = two.bind("i", "near").await;
    etcd::fill(&mut etcd::connect(&near).await, 5, "v").await;
    let backup = two.back_up(&near).await;
    for broker in [&one, &two] {
        is_well(broker, "i").await;
        let bound = answer(broker.osb(Method::GET, &binding_path("i", "near"))).await;
        assert_eq!(bound.body["credentials"]["uri"], near["uri"]);
    }
    assert!(!two.logged().contains("took it over"), "too early");

    // In the midst of its work.
    let parameters = json!({ "source_service_instance_id": "i", "backup_id": backup["id"] });
    let accepted = two.put_instance("copy", parameters).await;
    assert_eq!(accepted.status, StatusCode::ACCEPTED, "{accepted:?}");
    let begun = async |epoch: i64| {
        eventually("a claim", || async {
            is_begun(&url, "copy", "restore", epoch).then_some(())
        })
        .await;
    };
    begun(1).await;
    one.kill();
    let killed = tokio::time::Instant::now();
    begun(2).await;
    let took = killed.elapsed();
    assert!(took < LEASE, "{took:?}");
    let restored = two.instance_end("copy", &accepted.body).await;
    assert_eq!(restored["state"], "succeeded", "{restored}");
    let copy = two.bind("copy", "b").await;
    let dump = etcd::dump(&mut etcd::connect(&copy).await).await;
    assert_eq!(dump.len(), 5);
    assert!(two.logged().contains("took it over"));

    // One that is asked to end hands over at once; what it began is gone on with.
    one.start_again().await;
    let accepted = one.put_instance("late", json!({})).await;
    assert_eq!(accepted.status, StatusCode::ACCEPTED, "{accepted:?}");
    end(&mut two).await;
    let end = one.instance_end("late", &accepted.body).await;
    assert_eq!(end["state"], "succeeded", "{end}");
    is_well(&one, "copy").await;
    for id in ["late", "copy", "i"] {
        one.deprovision(id).await;
    }
}

/// Nothing is there yet, and each would begin it.
#[tokio::test(flavor = "multi_thread")]
async fn brokers_that_all_start_for_the_first_time_agree_where_backups_are() {
    let Some(url) = postgres::new_database() else {
        return;
    };
    let common = tempfile::tempdir().expect("a folder");
    let all = [shared_cluster("local", common.path(), None)];
    let common = shared(common.path(), &url, &all);
    let mut all: Vec<_> = (0..4).map(|_| broker(&common, "here")).collect();
    all.iter_mut().for_each(BrokerProcess::spawn);
    // One that knows another store of backups than the one that is there never gets ready.
    join_all(all.iter().map(BrokerProcess::serving)).await;
    for broker in &mut all {
        broker.kill_and_start_again().await;
    }
}

/// A broker that has a folder of its own for a cluster, or for backups, that another one on its store has too.
fn apart(common: &Settings, folder: &Path, machine: &str, setting: &'static str) -> BrokerProcess {
    let folder = folder.join(machine);
    fs::create_dir(&folder).expect("a folder");
    let all = [shared_cluster("local", &folder, None)];
    let own = shared_settings(&folder, &all);
    let mut settings = common.clone();
    settings.insert(setting, own[setting].clone());
    broker(&settings, machine)
}

/// Else each of them would find nothing of the other's databases, and take that for their end.
#[tokio::test(flavor = "multi_thread")]
async fn what_brokers_share_is_no_folder_that_each_has_of_its_own() {
    let folder = tempfile::tempdir().expect("a folder");
    for (setting, machines) in [("CLUSTERS", ["a", "b"]), ("BACKUP_STORE", ["c", "d"])] {
        let Some(url) = postgres::new_database() else {
            return;
        };
        let of_setting = folder.path().join(setting);
        fs::create_dir(&of_setting).expect("a folder");
        let all = [shared_cluster("local", &of_setting, None)];
        let common = shared(&of_setting, &url, &all);
        let [mut one, other] = machines.map(|name| apart(&common, folder.path(), name, setting));
        one.start_again().await;
        let told = refused(other.settings()).await;
        assert_one_line(&told, &format!("COMPOSE_BROKER_{setting}"));
        assert_one_line(&told, "is not what the brokers on this database have");
        // Once more, and nothing of it is there; the first one is not held up.
        assert_one_line(&refused(other.settings()).await, setting);
        assert!(!folder.path().join(machines[1]).join("backups").exists());
        assert!(!folder.path().join(machines[1]).join("cluster").exists());
        one.kill_and_start_again().await;
    }
}

/// Nothing is there yet, and each has marked its own.
#[tokio::test(flavor = "multi_thread")]
async fn of_brokers_with_a_cluster_each_that_start_at_once_one_has_it() {
    for _ in 0..3 {
        let Some(url) = postgres::new_database() else {
            return;
        };
        let folder = tempfile::tempdir().expect("a folder");
        let all = [shared_cluster("local", folder.path(), None)];
        let common = shared(folder.path(), &url, &all);
        let mut all = ["one", "two", "three"]
            .map(|machine| apart(&common, folder.path(), machine, "CLUSTERS"));
        all.iter_mut().for_each(BrokerProcess::spawn);
        let ends = join_all(all.iter_mut().map(BrokerProcess::serving_or_ended)).await;
        assert_eq!(ends.iter().filter(|serves| **serves).count(), 1, "{ends:?}");
        for (broker, _) in all.iter().zip(ends).filter(|(_, serves)| !serves) {
            assert_one_line(&refused(broker.settings()).await, "COMPOSE_BROKER_CLUSTERS");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cluster_is_its_machine_s_and_known_to_all() {
    let Some(url) = postgres::new_database() else {
        return;
    };
    let common = tempfile::tempdir().expect("a folder");
    let folder = common.path();
    let all = [
        shared_cluster("second", folder, Some("two")),
        shared_cluster("first", folder, Some("one")),
    ];
    let common = shared(folder, &url, &all);
    let (mut one, mut two) = (broker(&common, "one"), broker(&common, "two"));
    one.start_again().await;
    // Nobody has said yet what is installed on the cluster of this plan.
    let refused = one.put_instance("i", json!({})).await;
    assert_eq!(refused.status, StatusCode::BAD_REQUEST, "{refused:?}");
    assert!(text(&refused.body["description"]).contains("no version of the database"));

    two.start_again().await;
    let accepted = eventually("the versions of the other machine", || async {
        let accepted = one.put_instance("i", json!({})).await;
        (accepted.status == StatusCode::ACCEPTED).then_some(accepted)
    })
    .await;
    let end = one.instance_end("i", &accepted.body).await;
    assert_eq!(end["state"], "succeeded", "{end}");
    let credentials = one.bind("i", "b").await;
    etcd::fill(&mut etcd::connect(&credentials).await, 1, "v").await;
    is_well(&two, "i").await;

    // Its members cannot be seen from here, and nothing is said of them.
    let shown = answer(one.osb(Method::GET, "/operator/instances/i")).await;
    let health = &shown.body["health"];
    assert_eq!(health["state"], "unknown", "{shown:?}");
    assert!(
        text(&health["message"]).contains("run on another machine"),
        "{health}"
    );
    // Nor does a page wait for what nobody asks.
    let visitor = Visitor::with_token(&one, &credentials).await;
    for path in ["/dashboard/instances/i", "/dashboard/instances/i/activity"] {
        let page = visitor.get(path).await.body;
        assert!(page.contains("run on another machine"), "{page}");
        assert!(!page.contains("The broker is asking"), "{page}");
    }
    let api = &credentials["instance_administration_api"];
    let logs = format!(
        "/api/2016-07/instances/i/deployments/{}/logfiles",
        text(&credentials["deployment_id"])
    );
    let logs = one.anonymous(Method::GET, &logs);
    let logs = answer(logs.bearer_auth(text(&api["token"]))).await;
    assert_eq!(logs.status, StatusCode::SERVICE_UNAVAILABLE, "{logs:?}");

    // Nobody else takes what waits for its broker, whatever else is done meanwhile.
    two.kill();
    let accepted = one.delete_instance("i").await;
    assert_eq!(accepted.status, StatusCode::ACCEPTED, "{accepted:?}");
    let on_first = json!({
        "service_id": SERVICE,
        "plan_id": ENTERPRISE,
        "organization_guid": "o",
        "space_guid": "s",
        "parameters": { "cluster_id": "first" },
    });
    let own = instance_path("own");
    let put = one.osb(Method::PUT, &format!("{own}?accepts_incomplete=true"));
    let put = answer(put.json(&on_first)).await;
    assert_eq!(put.status, StatusCode::ACCEPTED, "{put:?}");
    let end = one.instance_end("own", &put.body).await;
    assert_eq!(end["state"], "succeeded", "{end}");
    let path = format!("{}/last_operation", instance_path("i"));
    let polled = answer(one.osb(Method::GET, &path)).await;
    assert_eq!(polled.body["state"], "in progress", "{polled:?}");
    eventually("what it waits for", || async {
        let polled = answer(one.osb(Method::GET, &path)).await;
        let said = text(&polled.body["description"]).to_owned();
        said.contains("no broker looks after its cluster")
            .then_some(())
    })
    .await;
    two.start_again().await;
    let end = one.instance_end("i", &accepted.body).await;
    assert_eq!(end["state"], "succeeded", "{end}");
    let ids = format!("service_id={SERVICE}&plan_id={ENTERPRISE}");
    let gone = one.osb(
        Method::DELETE,
        &format!("{own}?accepts_incomplete=true&{ids}"),
    );
    let gone = answer(gone).await;
    assert_eq!(gone.status, StatusCode::ACCEPTED, "{gone:?}");
    let end = one.instance_end("own", &gone.body).await;
    assert_eq!(end["state"], "succeeded", "{end}");
}

#[tokio::test(flavor = "multi_thread")]
async fn keys_are_changed_while_several_brokers_work() {
    let Some(url) = postgres::new_database() else {
        return;
    };
    let common = tempfile::tempdir().expect("a folder");
    let all = [shared_cluster("local", common.path(), Some("here"))];
    let common = shared(common.path(), &url, &all);
    let key = |name: &str| new_key_ring().replacen("k1", name, 1);
    let (old, new, foreign) = (key("old"), key("new"), key("new"));
    let (mut one, mut two) = (broker(&common, "here"), broker(&common, "there"));
    for broker in [&mut one, &mut two] {
        broker.change_settings(|of| _ = of.insert("ENCRYPTION_KEYS", old.clone()));
        broker.start_again().await;
    }
    one.provision("i", json!({})).await;
    let bound = one.bind("i", "b").await;
    let backup = one.back_up(&bound).await;
    assert_eq!(backup["status"], "complete", "{backup}");

    // A key that the other one lacks cannot be in front, nor another one of the same name.
    let ring = |keys: &[&str]| keys.join(",");
    let mut early = two.settings().clone();
    for (keys, why) in [
        (ring(&[&new, &old]), "the broker on here lacks the key new"),
        (
            ring(&[&new]),
            "the key ring does not open what the store holds",
        ),
    ] {
        early.insert("ENCRYPTION_KEYS", keys);
        end(&mut two).await;
        let refused = refused(&early).await;
        assert_one_line(&refused, "ENCRYPTION_KEYS");
        let said = String::from_utf8_lossy(&refused.stderr).into_owned();
        assert!(said.contains(why), "{said}");
        two.start_again().await;
    }

    // Known to all, then in front; when all seal under it, the old one is needed no more.
    for keys in [ring(&[&old, &new]), ring(&[&new, &old])] {
        for broker in [&mut one, &mut two] {
            end(broker).await;
            broker.change_settings(|of| _ = of.insert("ENCRYPTION_KEYS", keys.clone()));
            broker.start_again().await;
            reads(broker, &bound).await;
        }
    }
    eventually("all that is sealed anew", || async {
        let logged = one.logged() + &two.logged();
        let of_store = logged.contains("sealed anew under the first key");
        let of_backups = logged.contains("manifests of backups are under the first key");
        (of_store && of_backups).then_some(())
    })
    .await;
    for broker in [&mut one, &mut two] {
        end(broker).await;
        broker.change_settings(|of| _ = of.insert("ENCRYPTION_KEYS", new.clone()));
        broker.start_again().await;
        reads(broker, &bound).await;
    }
    let source = json!({ "source_service_instance_id": "i", "backup_id": backup["id"] });
    one.provision("copy", source).await;
    one.deprovision("copy").await;
    end(&mut two).await;
    let mut wrong = two.settings().clone();
    wrong.insert("ENCRYPTION_KEYS", foreign);
    assert_one_line(&refused(&wrong).await, "ENCRYPTION_KEYS");
    one.deprovision("i").await;
}

/// Asks a broker to end, and waits until it has.
async fn end(broker: &mut BrokerProcess) {
    let ended = tokio::task::spawn_blocking(broker.terminate()).await;
    assert!(ended.expect("an end").success());
}

/// Reads a binding, which is sealed.
async fn reads(broker: &BrokerProcess, bound: &Value) {
    let read = answer(broker.osb(Method::GET, &binding_path("i", "b"))).await;
    assert_eq!(read.body["credentials"]["uri"], bound["uri"], "{read:?}");
}

/// Whether an operation of an instance was claimed so often.
fn is_begun(url: &str, instance: &str, kind: &str, epoch: i64) -> bool {
    let mut inside = PgConnection::establish(url).expect("a connection");
    let begun = format!(
        "SELECT 1 FROM operations
         WHERE instance_id = '{instance}' AND kind = '{kind}' AND epoch >= {epoch}"
    );
    sql_query(begun).execute(&mut inside).expect("rows") > 0
}

#[tokio::test(flavor = "multi_thread")]
async fn clocks_that_differ_by_a_minute_neither_delay_work_nor_take_it_from_its_worker() {
    let Some(url) = postgres::new_database() else {
        return;
    };
    let common = tempfile::tempdir().expect("a folder");
    let all = [shared_cluster("local", common.path(), None)];
    let clocks = ["works", "accepts"].map(|name| common.path().join(name));
    let common = shared(common.path(), &url, &all);
    let new = |clock: &Path| {
        let mut settings = common.clone();
        settings.insert("CLOCK_OFFSET_FILE", clock.display().to_string());
        broker(&settings, "here")
    };
    let [at_work, accepting] = &clocks;
    move_clock(at_work, 0);
    move_clock(accepting, 0);
    let (mut works, mut accepts) = (new(at_work), new(accepting));
    works.start_again().await;
    accepts.start_again().await;
    for (instance, of_worker, of_other) in [("a", 0, 60), ("b", -60, 0), ("c", 60, -60)] {
        move_clock(at_work, of_worker);
        move_clock(accepting, of_other);
        let accepted = accepts.put_instance(instance, json!({})).await;
        assert_eq!(accepted.status, StatusCode::ACCEPTED, "{accepted:?}");
        let asked = tokio::time::Instant::now();
        eventually("work that has begun", || async {
            is_begun(&url, instance, "provision", 1).then_some(())
        })
        .await;
        let took = asked.elapsed();
        assert!(took < SKEW / 2, "{instance}: {took:?}");
        let end = accepts.instance_end(instance, &accepted.body).await;
        assert_eq!(end["state"], "succeeded", "{end}");
    }
    // Each was done once, by the one that has the cluster.
    let mut inside = PgConnection::establish(&url).expect("a connection");
    let again = "SELECT 1 FROM operations WHERE kind = 'provision' AND epoch > 1";
    let again = sql_query(again).execute(&mut inside).expect("rows");
    assert_eq!(again, 0, "{}", accepts.logged());
    for instance in ["a", "b", "c"] {
        accepts.deprovision(instance).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_plan_that_one_broker_lacks_is_given_to_nobody() {
    let Some(url) = postgres::new_database() else {
        return;
    };
    let folder = tempfile::tempdir().expect("a folder");
    let all = [shared_cluster("local", folder.path(), None)];
    let common = shared(folder.path(), &url, &all);
    let with = with_one_backup(catalog_file());
    let mut without = with.clone();
    let plans = without["services"][0]["plans"].as_array_mut();
    plans
        .expect("plans")
        .retain(|plan| plan["id"] == ENTERPRISE);
    let new = |machine: &str| {
        let file = folder.path().join(format!("catalog-of-{machine}.json"));
        fs::write(&file, with.to_string()).expect("a file");
        let mut settings = common.clone();
        settings.insert("CATALOG", file.display().to_string());
        (broker(&settings, machine), file)
    };
    let ((mut keeps, _), (mut drops, file)) = (new("keeps"), new("drops"));
    keeps.start_again().await;
    drops.start_again().await;
    let reload = async |broker: &BrokerProcess, catalog: &Value, says: &str| {
        let told = || broker.logged().matches(says).count();
        let before = told();
        fs::write(&file, catalog.to_string()).expect("a file");
        broker.hang_up();
        eventually(says, || async { (told() > before).then_some(()) }).await;
    };
    let read = "the catalog was read anew";

    // Nobody has it, so it may go, and from then on nobody gets it anywhere.
    reload(&drops, &without, read).await;
    let told = keeps.put_instance("i", json!({})).await;
    assert_eq!(told.status, StatusCode::SERVICE_UNAVAILABLE, "{told:?}");
    assert!(told.headers.contains_key("retry-after"), "{told:?}");
    let said = text(&told.body["description"]);
    assert!(
        said.contains("the broker on drops does not offer this plan"),
        "{said}"
    );

    // Somebody has it, whichever broker was asked, so it may not go anywhere.
    reload(&drops, &with, read).await;
    keeps.provision("i", json!({})).await;
    reload(&drops, &without, "the catalog stays what it was").await;
    end(&mut drops).await;
    assert_one_line(&refused(drops.settings()).await, "COMPOSE_BROKER_CATALOG");
    keeps.deprovision("i").await;
    drops.start_again().await;
}

/// A server that stands still keeps its connections, and the system answers for it.
#[tokio::test(flavor = "multi_thread")]
async fn while_its_server_hangs_a_broker_says_when_to_come_again_and_can_be_ended() {
    let Some(url) = postgres::new_database() else {
        return;
    };
    let (line, url) = Line::to_server_of(&url);
    let folder = tempfile::tempdir().expect("a folder");
    let all = [shared_cluster("local", folder.path(), None)];
    let common = shared(folder.path(), &url, &all);
    let [mut broker, other] = ["here", "there"].map(|machine| broker(&common, machine));
    broker.start_again().await;
    let accepted = broker.put_instance("i", json!({})).await;
    let end = broker.instance_end("i", &accepted.body).await;
    assert_eq!(end["state"], "succeeded", "{end}");

    line.hang();
    let begun = tokio::time::Instant::now();
    let poll = format!("{}/last_operation", instance_path("i"));
    let asks = async {
        let polls = join_all((0..12).map(|_| answer(broker.osb(Method::GET, &poll))));
        let put = async {
            // The writer has begun something of the broker's own by then.
            tokio::time::sleep(Duration::from_secs(3)).await;
            broker.put_instance("other", json!({})).await
        };
        let (polls, put) = tokio::join!(polls, put);
        (polls, put, begun.elapsed())
    };
    let ((polls, put, took), start) = tokio::join!(asks, refused(other.settings()));
    assert!(took < SKEW / 2, "{took:?}");
    let said = String::from_utf8_lossy(&start.stderr);
    // What still tries to connect may log behind it.
    let reason = "compose-broker: COMPOSE_BROKER_DATABASE_URL";
    assert!(said.lines().any(|line| line.starts_with(reason)), "{said}");
    for told in polls.iter().chain([&put]) {
        assert_eq!(told.status, StatusCode::SERVICE_UNAVAILABLE, "{told:?}");
        assert!(told.headers.contains_key("retry-after"), "{told:?}");
    }
    let catalog = answer(broker.osb(Method::GET, "/v2/catalog")).await;
    assert_eq!(catalog.status, StatusCode::OK, "{catalog:?}");

    line.go_on();
    broker.serving().await;
    broker.deprovision("i").await;
    line.hang();
    let polls = (0..12).map(|_| answer(broker.osb(Method::GET, &poll)));
    let asked = begun.elapsed();
    assert_eq!(join_all(polls).await.len(), 12);
    let pid = i32::try_from(broker.pid()).ok().and_then(Pid::from_raw);
    kill_process(pid.expect("a pid"), Signal::TERM).expect("a signal");
    let status = loop {
        if let Some(status) = broker.ended() {
            break status;
        }
        let took = begun.elapsed() - asked;
        assert!(took < SKEW * 2, "it waits for its server");
        tokio::time::sleep(Duration::from_millis(100)).await;
    };
    assert!(status.success(), "{status}");
}
