//! Databases whose majority is lost: an operator is told what can be had again and what is lost, and
//! has it made of a survivor or of a backup; applications go on with what they were given.

use std::fs;

use compose_broker::model::operation::{OperationKind, OperationState};
use etcd_client::WatchOptions;
use reqwest::{Method, StatusCode};
use rustix::process::Signal;
use serde_json::{Value, json};

use crate::{
    broker::{Answer, TestBroker, answer, eventually, instance_path, kill, text},
    control::Script,
    etcd,
    inside::{Inside, files_of_deployments},
    repair::{deployment, is_whole, patch, process_of, says, signal, with_keys},
    user::User,
};

/// Keys that are written before, and after the backup.
const KEYS: usize = 50;
const LATER: usize = 7;

/// All members of an instance but these lose all they had, at once.
pub async fn lose_all_but(broker: &TestBroker, instance: &str, survivors: &[&str]) {
    let found = Inside::of(broker).deployment(instance).await;
    let id = found.expect("a deployment").0.id;
    let members = broker
        .data_dir()
        .join(format!("clusters/local/{id}/members"));
    let lost = ["m0", "m1", "m2"]
        .into_iter()
        .filter(|name| !survivors.contains(name));
    let lost: Vec<&str> = lost.collect();
    let pids: Vec<i32> = broker
        .members()
        .into_iter()
        .filter(|pid| {
            let line = procfs::process::Process::new(*pid).and_then(|p| p.cmdline());
            let line = line.unwrap_or_default().join(" ");
            let is_lost = |name: &&str| line.contains(&format!("{id}/members/{name}/"));
            lost.iter().any(is_lost)
        })
        .collect();
    for name in &lost {
        let data = members.join(name).join("home/data");
        fs::rename(&data, members.join(name).join("lost")).expect("moved");
    }
    pids.into_iter().for_each(kill);
    for name in &lost {
        fs::remove_dir_all(members.join(name).join("lost")).expect("removed");
    }
}

async fn ask(broker: &TestBroker, body: Value) -> Answer {
    let request = broker.osb(Method::POST, "/operator/instances/i/recover");
    answer(request.json(&body)).await
}

/// What would be done, once the members have noticed that they are too few.
async fn planned(broker: &TestBroker, body: Value) -> Value {
    eventually("a majority that is lost", || async {
        let told = ask(broker, body.clone()).await;
        assert_eq!(told.status, StatusCode::OK, "{told:?}");
        (told.body["possible"] == true).then_some(told.body)
    })
    .await
}

async fn recovered(broker: &TestBroker, credentials: &Value, body: Value) -> Value {
    let accepted = ask(broker, body).await;
    assert_eq!(accepted.status, StatusCode::ACCEPTED, "{accepted:?}");
    let recipe = json!({ "id": accepted.body["operation"] });
    broker.recipe_end(credentials, &recipe).await
}

/// All keys, as a binding reads them; its own users and nobody else get in.
async fn keys(broker: &TestBroker, credentials: &Value) -> usize {
    let mut client = etcd::connect(credentials).await;
    let found = etcd::dump(&mut client).await.len();
    let empty = etcd::connect_as(credentials, "uri", &etcd::user(credentials), "").await;
    assert!(empty.is_err(), "an empty password");
    let mut stranger = etcd::connect_anonymously(credentials)
        .await
        .expect("connected");
    assert!(stranger.get("key-0001", None).await.is_err(), "a stranger");
    assert_eq!(broker.members().len(), 3);
    found
}

macro_rules! for_each_version {
    ($($test:ident: $version:literal),* $(,)?) => {
        $(
            #[tokio::test(flavor = "multi_thread")]
            async fn $test() {
                made_anew_of_a_survivor($version).await;
            }
        )*
    };
}

for_each_version!(
    etcd_3_3_25_is_made_anew_of_a_survivor: "3.3.25",
    etcd_3_4_23_is_made_anew_of_a_survivor: "3.4.23",
    etcd_3_5_16_is_made_anew_of_a_survivor: "3.5.16",
    etcd_3_5_35_is_made_anew_of_a_survivor: "3.5.35",
    etcd_3_6_16_is_made_anew_of_a_survivor: "3.6.16",
    etcd_3_7_3_is_made_anew_of_a_survivor: "3.7.3",
);

async fn made_anew_of_a_survivor(version: &str) {
    let broker = TestBroker::start().await;
    let credentials = with_keys(&broker, version).await;
    let backup = broker.back_up(&credentials).await;
    let mut client = etcd::connect(&credentials).await;
    for i in 0..LATER {
        client
            .put(format!("later-{i}"), "", None)
            .await
            .expect("put");
    }
    let newest = client.get("later-0", None).await.expect("got");
    let newest = newest.header().expect("a header").revision();
    // Nothing to recover.
    let idle = ask(&broker, json!({ "from": "survivor" })).await;
    assert_eq!(idle.body["possible"], false, "{idle:?}");
    let refused = ask(&broker, json!({ "from": "backup", "yes": true })).await;
    assert_eq!(refused.status, StatusCode::CONFLICT, "{refused:?}");

    lose_all_but(&broker, "i", &["m0"]).await;
    let survivor = process_of(&broker, "m0");
    // What a member has taken in reaches its file a moment later.
    let plan = eventually("the survivor's file", || async {
        let plan = planned(&broker, json!({ "from": "survivor" })).await;
        (plan["revision"] == newest).then_some(plan)
    })
    .await;
    assert_eq!(plan["member"], "m0", "{plan}");
    assert_eq!(plan["backup_id"], Value::Null, "{plan}");
    let has_data = |i: usize| plan["members"][i]["has_data"].clone();
    assert_eq!(
        [0, 1, 2].map(has_data),
        [json!(true), json!(false), json!(false)]
    );
    let of_backup = planned(&broker, json!({ "from": "backup" })).await;
    assert_eq!(of_backup["backup_id"], backup["id"], "{of_backup}");
    assert_eq!(of_backup["revision"], backup["revision"], "{of_backup}");
    let lost = of_backup["lost"].to_string();
    assert!(lost.contains("m0 has 7 revisions more"), "{lost}");
    // Nothing was done by that.
    assert_eq!(process_of(&broker, "m0"), survivor);
    says(&broker, &credentials, "too few serve without them").await;

    let body = json!({ "from": "survivor", "yes": true });
    let end = recovered(&broker, &credentials, body).await;
    assert_eq!(end["status"], "complete", "{end}");
    assert_eq!(keys(&broker, &credentials).await, KEYS + LATER);
    what_was_seen_before_is_history(&credentials, version, newest).await;
    says(
        &broker,
        &credentials,
        "made anew of what member m0 still had",
    )
    .await;
    let aside = |file: &String| file.contains("/aside/") && file.ends_with("/snap/db");
    assert_eq!(broker.files().iter().filter(|file| aside(file)).count(), 1);
    // Everything else goes on.
    broker.bind("i", "later").await;
    let grown = patch(&broker, json!({ "units": 2 })).await;
    let end = broker.instance_end("i", &grown.body).await;
    assert_eq!(end["state"], "succeeded", "{end}");
    let backup = broker.back_up(&credentials).await;
    assert_eq!(backup["keys"], KEYS + LATER, "{backup}");
    broker.deprovision("i").await;
    assert_eq!(files_of_deployments(&broker), Vec::<String>::new());
}

/// A client that would go on from what it saw of the database that was lost is told so, and does not wait for
/// what never comes.
async fn what_was_seen_before_is_history(credentials: &Value, version: &str, seen: i64) {
    let mut client = etcd::connect(credentials).await;
    let now = client.get("key-0000", None).await.expect("got");
    let now = now.header().expect("a header").revision();
    // Tools before 3.5 cannot do it.
    if version.starts_with("3.3.") || version.starts_with("3.4.") {
        return;
    }
    assert!(now > seen + 1_000_000, "{now} after {seen}");
    let options = WatchOptions::new().with_start_revision(seen + 1);
    let mut watch = client
        .watch("key-0000", Some(options))
        .await
        .expect("a watch");
    let told = watch
        .message()
        .await
        .expect("an answer")
        .expect("an answer");
    let told = match told.created() && !told.canceled() {
        true => watch
            .message()
            .await
            .expect("an answer")
            .expect("an answer"),
        false => told,
    };
    assert!(
        told.canceled() && told.compact_revision() > seen,
        "{told:?}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_database_is_made_anew_of_its_newest_backup_with_the_users_of_now() {
    let broker = TestBroker::start().await;
    let credentials = with_keys(&broker, "3.6.16").await;
    let gone = broker.bind("i", "gone").await;
    let backup = broker.back_up(&credentials).await;
    broker.unbind("i", "gone").await;
    let later = broker.bind("i", "later").await;
    let mut client = etcd::connect(&later).await;
    etcd::fill(&mut client, KEYS + LATER, "w").await;
    let seen = client.get("key-0000", None).await.expect("got");
    let seen = seen.header().expect("a header").revision();
    lose_all_but(&broker, "i", &[]).await;
    let none = planned(&broker, json!({ "from": "backup" })).await;
    assert_eq!(none["backup_id"], backup["id"], "{none}");
    let operator = User::of_broker(&broker);
    let told = operator.does(&["recover", "i", "--from", "backup"]).await;
    assert!(
        told.out.contains("What was written since then is lost"),
        "{told:?}"
    );
    assert!(told.err.contains("add --yes"), "{told:?}");
    let wrong = ["recover", "i", "--from", "backup", "--member", "m0"];
    operator
        .run(&wrong)
        .await
        .must_say(2, "--member does not go with");
    let no_survivor = ask(&broker, json!({ "from": "survivor", "yes": true })).await;
    assert_eq!(no_survivor.status, StatusCode::CONFLICT, "{no_survivor:?}");
    let id = text(&backup["id"]);
    let said = ["recover", "i", "--from", "backup", "--backup", id, "--yes"];
    let accepted = operator.asks(&said).await;
    let recipe = json!({ "id": accepted["operation"] });
    let end = broker.recipe_end(&credentials, &recipe).await;
    assert_eq!(end["status"], "complete", "{end}");
    for user in [&credentials, &later] {
        assert_eq!(keys(&broker, user).await, KEYS);
    }
    what_was_seen_before_is_history(&credentials, "3.6.16", seen).await;
    let refused = etcd::connect_as(&gone, "uri", &etcd::user(&gone), &etcd::password(&gone)).await;
    assert!(refused.is_err(), "who was unbound stays out");
    says(&broker, &credentials, "made anew of the backup of").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_cannot_be_recovered_is_refused_and_a_recovery_that_fails_leaves_what_was() {
    let script = Script::default();
    let broker = TestBroker::start_with(&[], script.surroundings()).await;
    let unknown = ask(&broker, json!({ "from": "backup" })).await;
    assert_eq!(unknown.status, StatusCode::NOT_FOUND, "{unknown:?}");
    let credentials = with_keys(&broker, "3.7.3").await;
    for wrong in [
        json!({}),
        json!({ "from": "thin air" }),
        json!({ "from": 1 }),
        json!({ "from": "survivor", "member": 1 }),
        json!({ "from": "survivor", "member": "" }),
        json!({ "from": "backup", "backup_id": "no id" }),
        json!({ "from": "backup", "yes": "yes" }),
        json!([]),
    ] {
        let refused = ask(&broker, wrong.clone()).await;
        assert_eq!(
            refused.status,
            StatusCode::BAD_REQUEST,
            "{wrong}: {refused:?}"
        );
    }
    let stranger = broker.anonymous(Method::POST, "/operator/instances/i/recover");
    let stranger = answer(stranger.json(&json!({ "from": "backup", "yes": true }))).await;
    assert_eq!(stranger.status, StatusCode::UNAUTHORIZED, "{stranger:?}");

    lose_all_but(&broker, "i", &["m2"]).await;
    planned(&broker, json!({ "from": "survivor" })).await;
    for body in [
        json!({ "from": "backup", "yes": true }),
        json!({ "from": "survivor", "member": "m0", "yes": true }),
        json!({ "from": "survivor", "member": "m7", "yes": true }),
    ] {
        let refused = ask(&broker, body.clone()).await;
        assert_eq!(refused.status, StatusCode::CONFLICT, "{body}: {refused:?}");
    }
    let body = json!({ "from": "survivor", "yes": true });
    for step in ["seed", "open"] {
        let failing = script.fail(OperationKind::Recover, step);
        let end = recovered(&broker, &credentials, body.clone()).await;
        assert_eq!(end["status"], "failed", "{step}: {end}");
        drop(failing);
        let of = deployment(&broker).await;
        assert_eq!(of.closed_since, None, "{step}");
        eventually("the survivor", || async { process_of(&broker, "m2") }).await;
        let plan = planned(&broker, json!({ "from": "survivor" })).await;
        assert_eq!(plan["member"], "m2", "{step}: {plan}");
        assert_eq!(plan["members"][0]["has_data"], false, "{step}: {plan}");
    }
    let end = recovered(&broker, &credentials, body).await;
    assert_eq!(end["status"], "complete", "{end}");
    assert_eq!(keys(&broker, &credentials).await, KEYS);
    is_whole(&credentials, "m1").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_update_that_waits_for_what_does_not_come_back_gives_way() {
    let broker = TestBroker::start().await;
    let credentials = with_keys(&broker, "3.6.16").await;
    lose_all_but(&broker, "i", &["m0", "m1"]).await;
    // A wait for it comes to nothing: it is not even dead.
    let other = process_of(&broker, "m1").expect("a process");
    signal(other, Signal::STOP);
    planned(&broker, json!({ "from": "survivor", "member": "m0" })).await;
    let update = patch(&broker, json!({ "units": 2 })).await;
    assert_eq!(update.status, StatusCode::ACCEPTED, "{update:?}");
    let body = json!({ "from": "survivor", "member": "m0", "yes": true });
    let again = ask(&broker, body.clone()).await;
    assert_eq!(again.status, StatusCode::ACCEPTED, "{again:?}");
    let end = recovered(&broker, &credentials, body).await;
    assert_eq!(end["status"], "complete", "{end}");
    let path = format!(
        "{}/last_operation?operation={}",
        instance_path("i"),
        text(&update.body["operation"])
    );
    let end = broker.end_of(&path).await;
    assert_eq!(end["state"], "failed", "{end}");
    let why = text(&end["description"]);
    assert!(why.contains("the database is being recovered"), "{why}");
    assert_eq!(keys(&broker, &credentials).await, KEYS);
    let inside = Inside::of(&broker);
    let recover = inside.newest("i", OperationKind::Recover).await;
    assert_eq!(recover.state, OperationState::Succeeded);
    let recoveries = inside.operations("i").await;
    let recoveries = recoveries
        .iter()
        .filter(|o| o.kind == OperationKind::Recover);
    assert_eq!(recoveries.count(), 1, "a repeated request is the same");
}
