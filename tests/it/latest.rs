//! Restores of the newest backup that fits, and what they would do.

use etcd_client::WatchOptions;
use reqwest::{Method, StatusCode};
use serde_json::{Value, json};

use crate::{
    broker::{Answer, TestBroker, answer, eventually, text},
    control, etcd,
};

/// Asks the broker itself for a restore of a backup, or of the newest one.
async fn restore(broker: &TestBroker, key: &Value, backup: &str, wanted: Value) -> Answer {
    let deployment = text(&key["deployment_id"]);
    let path = format!("/deployments/{deployment}/backups/{backup}/restore");
    let body = json!({ "deployment": wanted });
    answer(broker.compose(Method::POST, key, &path).json(&body)).await
}

async fn rehearsal(broker: &TestBroker, key: &Value, backup: &str, mut wanted: Value) -> Value {
    wanted["dry_run"] = json!(true);
    let told = restore(broker, key, backup, wanted).await;
    assert_eq!(told.status, StatusCode::OK, "{told:?}");
    told.body
}

fn source_of(answer: &Answer) -> &Value {
    &answer.body["restored_from"]["backup_id"]
}

fn restored_from(wanted: Value) -> Value {
    let mut parameters = json!({ "source_service_instance_id": "i" });
    for (name, value) in wanted.as_object().expect("fields") {
        parameters[name] = value.clone();
    }
    parameters
}

/// The backup that an instance was made from, as a new binding of it tells.
async fn taken_of(broker: &TestBroker, instance: &str, binding: &str) -> Value {
    let key = broker.bind(instance, binding).await;
    let path = format!("/deployments/{}", text(&key["deployment_id"]));
    let told = answer(broker.compose(Method::GET, &key, &path)).await;
    source_of(&told).clone()
}

#[tokio::test(flavor = "multi_thread")]
async fn the_newest_backup_that_fits_is_restored_and_a_repetition_takes_no_newer_one() {
    let broker = TestBroker::in_memory().await;
    broker.provision("i", json!({})).await;
    let key = broker.bind("i", "b").await;
    let first = broker.back_up(&key).await;
    let path = format!(
        "/deployments/{}/backups/{}",
        text(&key["deployment_id"]),
        text(&first["id"])
    );
    let pinned = json!({ "backup": { "pinned": true } });
    let pinned = answer(broker.compose(Method::PATCH, &key, &path).json(&pinned)).await;
    assert_eq!(pinned.status, StatusCode::OK, "{pinned:?}");
    let first_at = control::now();
    let second = broker.back_up(&key).await;

    let latest = restored_from(json!({ "backup_id": "latest" }));
    broker.provision("newest", latest.clone()).await;
    assert_eq!(taken_of(&broker, "newest", "b").await, second["id"]);
    let until = first_at.to_rfc3339_opts(chrono::SecondsFormat::Micros, true);
    for (instance, wanted) in [
        ("until", json!({ "restore_time": until })),
        (
            "of-kind-until",
            json!({ "backup_id": "latest:on_demand", "restore_time": until }),
        ),
    ] {
        broker.provision(instance, restored_from(wanted)).await;
        let source = taken_of(&broker, instance, "b").await;
        assert_eq!(source, first["id"], "{instance}");
    }
    // The same request is the same one, whatever there is by now.
    broker.back_up(&key).await;
    let again = broker.put_instance("newest", latest).await;
    assert_eq!(again.status, StatusCode::OK, "{again:?}");
    assert_eq!(taken_of(&broker, "newest", "c").await, second["id"]);

    let id = text(&first["id"]);
    for (wanted, why) in [
        (
            json!({ "backup_id": "latest:weekly" }),
            "no complete weekly backup;",
        ),
        (
            json!({ "backup_id": "latest:hourly" }),
            "has no backup \"latest:hourly\"",
        ),
        (
            json!({ "restore_time": "2001-01-01T00:00:00Z" }),
            "no complete backup that was begun by 2001-01-01T00:00:00Z",
        ),
        (json!({ "restore_time": "yesterday" }), "is no time"),
        (
            json!({ "backup_id": id, "restore_time": until }),
            "leave backup_id out",
        ),
    ] {
        let refused = broker.put_instance("refused", restored_from(wanted)).await;
        assert_eq!(refused.status, StatusCode::BAD_REQUEST, "{refused:?}");
        let told = text(&refused.body["description"]);
        assert!(told.contains(why), "{told}");
    }
    let alone = broker
        .put_instance("refused", json!({ "restore_time": until }))
        .await;
    assert_eq!(alone.status, StatusCode::BAD_REQUEST, "{alone:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_restore_would_do_is_told_with_every_refusal_and_nothing_is_made() {
    let broker = TestBroker::in_memory().await;
    broker.provision("i", json!({})).await;
    let key = broker.bind("i", "b").await;
    let none = rehearsal(&broker, &key, "latest", json!({})).await;
    assert_eq!(
        (&none["possible"], &none["backup_id"]),
        (&json!(false), &Value::Null)
    );
    assert!(
        text(&none["reasons"][0]).contains("no complete backup"),
        "{none}"
    );
    let backup = broker.back_up(&key).await;
    let members = broker.files().len();

    let told = rehearsal(&broker, &key, "latest", json!({ "name": "copy" })).await;
    assert_eq!(told["possible"], true, "{told}");
    assert_eq!(told["backup_id"], backup["id"]);
    assert_eq!(told["size_bytes"], backup["size_bytes"]);
    assert_eq!(
        (&told["name"], &told["reasons"]),
        (&json!("copy"), &json!([]))
    );
    assert_eq!(
        (&told["units"], &told["units_needed"]),
        (&json!(1), &json!(1))
    );
    assert_eq!(told["from_version"], told["to_version"]);
    assert_eq!(told["restore_estimate"], Value::Null);
    // Told again, it is the same: the name is free still.
    let again = rehearsal(
        &broker,
        &key,
        text(&backup["id"]),
        json!({ "name": "copy" }),
    )
    .await;
    assert_eq!(again, told);

    let wrong = json!({ "name": "a b", "version": "1.2.3", "units": 1000 });
    let told = rehearsal(&broker, &key, "latest:on_demand", wrong).await;
    assert_eq!(told["possible"], false);
    assert_eq!(told["to_version"], Value::Null);
    let reasons = told["reasons"].to_string();
    for part in ["name", "1.2.3", "units is 1000"] {
        assert!(reasons.contains(part), "{part}: {reasons}");
    }
    assert_eq!(
        told["reasons"].as_array().map(Vec::len),
        Some(3),
        "{reasons}"
    );
    assert_eq!(broker.files().len(), members, "nothing was made");

    let unknown = restore(&broker, &key, "latest:hourly", json!({ "dry_run": true })).await;
    assert_eq!(unknown.status, StatusCode::NOT_FOUND, "{unknown:?}");
    let unknown = restore(&broker, &key, &"0".repeat(24), json!({})).await;
    assert_eq!(unknown.status, StatusCode::NOT_FOUND, "{unknown:?}");
    let no_flag = restore(&broker, &key, "latest", json!({ "dry_run": "perhaps" })).await;
    assert_eq!(no_flag.status, StatusCode::BAD_REQUEST, "{no_flag:?}");

    let made = restore(&broker, &key, "latest", json!({ "name": "copy" })).await;
    assert_eq!(made.status, StatusCode::ACCEPTED, "{made:?}");
    assert_eq!(source_of(&made), &backup["id"]);
    let recipe = json!({ "id": made.body["provision_recipe_id"] });
    let end = broker.recipe_end(&key, &recipe).await;
    assert_eq!(end["status"], "complete", "{end}");
    // Now there is one to go by, and the name is taken.
    let told = rehearsal(
        &broker,
        &key,
        "latest",
        json!({ "name": "copy", "units": 2 }),
    )
    .await;
    assert_eq!(told["possible"], false, "{told}");
    assert!(
        told["reasons"].to_string().contains("has the name"),
        "{told}"
    );
    assert_eq!(told["restore_estimate"]["restores"], 1, "{told}");
    // So there is when what was made is gone, and the backup too: another takes its place.
    let copy = text(&made.body["instance_id"]);
    broker.deprovision(copy).await;
    let newer = broker.back_up(&key).await;
    eventually("the backup's end", || async {
        let path = format!(
            "/deployments/{}/backups/{}",
            text(&key["deployment_id"]),
            text(&backup["id"])
        );
        let read = answer(broker.compose(Method::GET, &key, &path)).await;
        (read.status == StatusCode::NOT_FOUND).then_some(())
    })
    .await;
    let told = rehearsal(&broker, &key, text(&newer["id"]), json!({ "name": "copy" })).await;
    assert_eq!(told["possible"], true, "{told}");
    assert_eq!(told["restore_estimate"]["restores"], 1, "{told}");
}

/// A client that goes on from what it saw in the source, after the backup.
#[tokio::test(flavor = "multi_thread")]
async fn clients_of_the_source_notice_where_they_are_to() {
    let broker = TestBroker::start().await;
    broker
        .provision("i", json!({ "db_version": "3.5.16" }))
        .await;
    let key = broker.bind("i", "b").await;
    let mut source = etcd::connect(&key).await;
    etcd::fill(&mut source, 5, "v").await;
    let backup = broker.back_up(&key).await;
    etcd::fill(&mut source, 5, "lost").await;
    let seen = source.get("key-0001", None).await.expect("a key");
    let seen = seen.header().expect("a header").revision();

    let wanted = json!({ "backup_id": backup["id"], "revision_bump": true });
    broker.provision("told", restored_from(wanted)).await;
    let mut told = etcd::connect(&broker.bind("told", "b").await).await;
    let from_there = WatchOptions::new().with_start_revision(seen + 1);
    let mut changes = told.watch("key-0001", Some(from_there)).await;
    let changes = changes.as_mut().expect("a watch");
    let mut answer_to_it = changes.message().await.expect("an answer").expect("one");
    if answer_to_it.created() && !answer_to_it.canceled() {
        answer_to_it = changes.message().await.expect("an answer").expect("one");
    }
    assert!(answer_to_it.canceled(), "{answer_to_it:?}");
    assert!(answer_to_it.compact_revision() > seen, "{answer_to_it:?}");
    assert_eq!(etcd::dump(&mut told).await.len(), 5);

    // Backups of it are like any other.
    let again = broker.bind("told", "again").await;
    let bumped = broker.back_up(&again).await;
    assert!(
        bumped["revision"].as_i64() > Some(1_000_000_000),
        "{bumped}"
    );
    assert_eq!(bumped["keys"], 5);

    for (parameters, reason) in [
        (
            json!({ "revision_bump": true }),
            "needs source_service_instance_id",
        ),
        (
            restored_from(json!({ "backup_id": backup["id"], "revision_bump": "yes" })),
            "revision_bump",
        ),
    ] {
        let refused = broker.put_instance("refused", parameters).await;
        assert_eq!(refused.status, StatusCode::BAD_REQUEST, "{refused:?}");
        let told = text(&refused.body["description"]);
        assert!(told.contains(reason), "{told}");
    }
    broker
        .provision("old", json!({ "db_version": "3.4.23" }))
        .await;
    let old = broker.back_up(&broker.bind("old", "b").await).await;
    let parameters = json!({
        "source_service_instance_id": "old", "backup_id": old["id"], "revision_bump": true,
    });
    let refused = broker.put_instance("refused", parameters).await;
    assert_eq!(refused.status, StatusCode::BAD_REQUEST, "{refused:?}");
    let told = text(&refused.body["description"]);
    assert!(told.contains("choose a newer db_version"), "{told}");
}
