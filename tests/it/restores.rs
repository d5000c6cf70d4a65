//! Restores and migrations: what is refused before anything is made, and what comes out.

use std::fs;

use compose_broker::{app::Surroundings, model::operation::OperationKind};
use etcd_client::{AlarmAction, AlarmType};
use reqwest::{Method, StatusCode};
use serde_json::{Value, json};

use crate::{
    broker::{
        Answer, ENTERPRISE, SERVICE, STANDARD, TestBroker, answer, encoded, eventually,
        instance_path, new_folder, nothing_after_delete, text, with_rules,
    },
    catalog::two_services,
    control::{Script, surroundings},
    database::Database,
    etcd,
    inside::Inside,
    postgres, stored,
    transport::description,
};

const UNKNOWN: &str = "0123456789abcdef01234567";

/// Asks for an instance from a backup, in the space of its source unless `change` says otherwise.
async fn restore(broker: &TestBroker, id: &str, parameters: Value, change: Value) -> Answer {
    let mut body = json!({
        "service_id": SERVICE, "plan_id": STANDARD,
        "organization_guid": "org", "space_guid": "space", "parameters": parameters,
    });
    for (field, value) in change.as_object().expect("an object") {
        body[field] = value.clone();
    }
    let path = format!("{}?accepts_incomplete=true", instance_path(id));
    answer(broker.osb(Method::PUT, &path).json(&body)).await
}

/// The parameters of a restore.
pub fn from(source: &str, backup: &Value) -> Value {
    json!({ "source_service_instance_id": source, "backup_id": backup["id"] })
}

fn with(mut parameters: Value, more: Value) -> Value {
    for (name, value) in more.as_object().expect("an object") {
        parameters[name] = value.clone();
    }
    parameters
}

/// The reason of a refusal after which there is nothing.
async fn refusal(broker: &TestBroker, parameters: Value, change: Value) -> String {
    let members = broker.running();
    let refused = restore(broker, "refused", parameters, change).await;
    let reason = description(&refused, StatusCode::BAD_REQUEST).to_owned();
    assert_eq!(refused.body.get("error"), None);
    let poll = format!("{}/last_operation", instance_path("refused"));
    let nothing = answer(broker.osb(Method::GET, &poll)).await;
    assert_eq!(nothing.status, StatusCode::NOT_FOUND);
    assert_eq!(
        broker.delete_instance("refused").await.status,
        StatusCode::GONE
    );
    assert_eq!(broker.running(), members);
    reason
}

fn assert_says(reason: &str, words: &[&str]) {
    for word in words {
        assert!(reason.contains(word), "{reason:?} does not say {word:?}");
    }
}

/// The version that a database says it has. Newer ones tell it to their administrator alone.
async fn version(broker: &TestBroker, instance: &str, credentials: &Value) -> String {
    let mut root = Inside::of(broker)
        .administrator(instance, credentials)
        .await;
    root.status().await.expect("a status").version().to_owned()
}

#[tokio::test(flavor = "multi_thread")]
async fn what_cannot_be_restored_is_refused_with_a_sentence_that_helps() {
    let script = Script::default();
    let broker = TestBroker::start_with(&[], script.surroundings()).await;
    broker
        .provision("source", json!({ "db_version": "3.5.16" }))
        .await;
    let credentials = broker.bind("source", "b").await;
    let expired = broker.back_up(&credentials).await;
    let failing = script.fail(OperationKind::Backup, "read_back");
    let failed = broker.back_up(&credentials).await;
    drop(failing);
    let good = broker.back_up(&credentials).await;
    let held = script.hold(OperationKind::Backup, "snapshot");
    let path = format!(
        "/deployments/{}/backups",
        text(&credentials["deployment_id"])
    );
    let running = answer(broker.compose(Method::POST, &credentials, &path))
        .await
        .body;
    let running = json!({ "id": running["backup_id"] });
    let list = || async {
        let list = answer(broker.compose(Method::GET, &credentials, &path))
            .await
            .body;
        (!list.to_string().contains(text(&expired["id"]))).then_some(())
    };
    eventually("the end of the first backup", list).await;
    let same = json!({});

    let alone = json!({ "backup_id": good["id"] });
    let reason = refusal(&broker, alone, same.clone()).await;
    assert_says(&reason, &["source_service_instance_id", "backup_id"]);
    let alone = json!({ "source_service_instance_id": "source" });
    let reason = refusal(&broker, alone, same.clone()).await;
    assert_says(&reason, &["backup_id", "list"]);
    for id in [UNKNOWN, "x", "", "../x", "5AE85B45E5717F0001533192"] {
        let reason = refusal(&broker, from("source", &json!({ "id": id })), same.clone()).await;
        assert_says(&reason, &["has no backup", "list its backups"]);
    }
    let reason = refusal(&broker, from("source", &running), same.clone()).await;
    assert_says(&reason, &[text(&running["id"]), "not finished", "wait"]);
    let reason = refusal(&broker, from("source", &failed), same.clone()).await;
    assert_says(&reason, &[text(&failed["id"]), "failed", "another"]);
    let reason = refusal(&broker, from("source", &expired), same.clone()).await;
    assert_says(
        &reason,
        &[
            text(&expired["id"]),
            "gave way to",
            text(&good["id"]),
            "listed",
        ],
    );
    let older = with(from("source", &good), json!({ "db_version": "3.4.23" }));
    let reason = refusal(&broker, older, same.clone()).await;
    assert_says(&reason, &["3.4.23", "3.5.16", "older"]);
    let unknown = with(from("source", &good), json!({ "db_version": "3.5.0" }));
    let reason = refusal(&broker, unknown, same.clone()).await;
    let there = [
        "3.5.0", "3.7.3", "3.6.16", "3.5.35", "3.5.16", "3.4.23", "3.3.25",
    ];
    assert_says(&reason, &there);
    pretend_size(&broker, &good, 600 * 1024 * 1024);
    for units in 1..=2 {
        let small = with(from("source", &good), json!({ "units": units }));
        let reason = refusal(&broker, small, same.clone()).await;
        assert_says(&reason, &["600 MiB", "units", "at least 3"]);
    }
    let _held = script.hold(OperationKind::Restore, "allocate");
    for (id, units) in [("large", json!({ "units": 3 })), ("as needed", json!({}))] {
        let enough = with(from("source", &good), units);
        let accepted = restore(&broker, id, enough, same.clone()).await;
        assert_eq!(accepted.status, StatusCode::ACCEPTED, "{accepted:?}");
    }
    drop(held);
}

/// Writes another size into the broker's record of a backup: one of that size would take longer to
/// make than all of these tests.
fn pretend_size(broker: &TestBroker, backup: &Value, bytes: u64) {
    let place = ["stored", "snapshot_bytes"];
    let changed = match postgres::is_store() {
        true => format!(
            "jsonb_set(manifest::jsonb, '{{{}}}', '{bytes}')",
            place.join(",")
        ),
        false => format!("json_set(manifest, '$.{}', {bytes})", place.join(".")),
    };
    let id = text(&backup["id"]);
    let change = format!("UPDATE backups SET manifest = {changed} WHERE id = '{id}'");
    let changed = stored::write(broker, &change);
    assert_eq!(changed, 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn another_tenant_s_source_is_refused_like_an_unknown_one() {
    let catalog = with_rules(two_services(), |rules| {
        rules["after_delete"] = nothing_after_delete();
    });
    let database = Database::in_memory();
    let broker = database.broker_with(&catalog, &[], surroundings()).await;
    broker.provision("source", json!({})).await;
    let backup = broker.back_up(&broker.bind("source", "b").await).await;
    let strangers = [
        json!({ "space_guid": "other" }),
        json!({ "organization_guid": "other" }),
        json!({ "organization_guid": "other", "space_guid": "other" }),
        json!({ "context": { "platform": "kubernetes", "clusterid": "org", "namespace": "space" } }),
        json!({ "context": { "platform": "kubernetes" } }),
        // What a user can write into a request does not make a tenant.
        json!({ "space_guid": "other", "space": "space", "context": { "space_guid": "space" } }),
    ];
    for stranger in &strangers {
        // The backup may be named rightly or not: it is not looked at.
        for id in [&backup["id"], &json!(UNKNOWN), &json!("x")] {
            let backup = json!({ "id": id });
            let foreign = refusal(&broker, from("source", &backup), stranger.clone()).await;
            let unknown = refusal(&broker, from("nobody", &backup), stranger.clone()).await;
            assert_eq!(
                foreign.replace("source", ""),
                unknown.replace("source", "").replace("nobody", "")
            );
        }
    }
    let other_service = json!({ "service_id": "second-service", "plan_id": "second-plan" });
    let reason = refusal(&broker, from("source", &backup), other_service).await;
    assert_says(&reason, &["another service"]);
    // One's own second instance does not have the first one's backups.
    broker.provision("second", json!({})).await;
    let reason = refusal(&broker, from("second", &backup), json!({})).await;
    let unknown = refusal(
        &broker,
        from("second", &json!({ "id": UNKNOWN })),
        json!({}),
    )
    .await;
    assert_eq!(reason.replace(text(&backup["id"]), UNKNOWN), unknown);
    // A source that is gone is unknown.
    broker.deprovision("source").await;
    let gone = refusal(&broker, from("source", &backup), json!({})).await;
    let unknown = refusal(&broker, from("nobody", &backup), json!({})).await;
    assert_eq!(
        gone.replace("\"source\"", ""),
        unknown.replace("\"nobody\"", "")
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_wider_scope_reaches_the_organization_and_no_further() {
    let script = Script::default();
    let flags = ["--restore-scope", "organization"];
    let broker = TestBroker::in_memory_with(&flags, script.surroundings()).await;
    broker.provision("source", json!({})).await;
    let backup = broker.back_up(&broker.bind("source", "b").await).await;
    for stranger in [
        json!({ "organization_guid": "other" }),
        json!({ "context": { "platform": "kubernetes" } }),
    ] {
        let foreign = refusal(&broker, from("source", &backup), stranger.clone()).await;
        let unknown = refusal(&broker, from("nobody", &backup), stranger).await;
        assert_eq!(
            foreign.replace("\"source\"", ""),
            unknown.replace("\"nobody\"", "")
        );
    }
    let neighbour = json!({ "space_guid": "other" });
    let accepted = restore(&broker, "copy", from("source", &backup), neighbour).await;
    assert_eq!(accepted.status, StatusCode::ACCEPTED, "{accepted:?}");
    let end = broker.instance_end("copy", &accepted.body).await;
    assert_eq!(end["state"], "succeeded", "{end}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_plan_says_who_chooses_the_cluster() {
    let folder = new_folder();
    let file = folder.join("clusters.json");
    let clusters = json!([
        { "id": "near", "name": "Near", "capacity_units": 8 },
        { "id": "far", "name": "Far", "service_instance_id": "cluster-instance", "capacity_units": 8 },
        { "id": "closed", "name": "Closed", "enabled": false, "service_instance_id": "closed-instance" },
    ]);
    fs::write(&file, clusters.to_string()).expect("a file");
    let flags = ["--clusters", file.to_str().expect("UTF-8")];
    let script = Script::default();
    let broker = TestBroker::start_in(folder.clone(), &flags, script.surroundings()).await;
    let (standard, enterprise) = (json!({}), json!({ "plan_id": ENTERPRISE }));
    for parameters in [
        json!({ "cluster_id": "near" }),
        json!({ "cluster_id": "unknown" }),
        json!({ "cluster_service_instance_id": "cluster-instance" }),
    ] {
        let reason = refusal(&broker, parameters, standard.clone()).await;
        assert_says(&reason, &["cluster_id", "leave out"]);
    }
    let reason = refusal(&broker, json!({}), enterprise.clone()).await;
    assert_says(&reason, &["cluster_id", "near", "far"]);
    assert!(!reason.contains("closed"), "{reason}");
    for parameters in [
        json!({ "cluster_id": "unknown" }),
        json!({ "cluster_id": "closed" }),
        json!({ "cluster_id": "" }),
        json!({ "cluster_id": "cluster-instance" }),
        json!({ "cluster_service_instance_id": "far" }),
        json!({ "cluster_service_instance_id": "closed-instance" }),
        json!({ "cluster_id": "unknown", "cluster_service_instance_id": "cluster-instance" }),
    ] {
        let reason = refusal(&broker, parameters, enterprise.clone()).await;
        assert_says(&reason, &["choose one of: near, far"]);
    }
    let both = json!({ "cluster_id": "near", "cluster_service_instance_id": "cluster-instance" });
    let reason = refusal(&broker, both, enterprise.clone()).await;
    assert_says(&reason, &["different clusters"]);

    let alias = json!({ "cluster_service_instance_id": "cluster-instance" });
    let accepted = restore(&broker, "chosen", alias, enterprise).await;
    let end = broker.instance_end("chosen", &accepted.body).await;
    assert_eq!(end["state"], "succeeded", "{end}");
    let placed = |file: &String| file.starts_with("clusters/far/") && file.contains("/m0");
    assert!(broker.files().iter().any(placed), "{:?}", broker.files());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_restore_stays_in_its_line_at_the_newest_patch_and_in_the_source_s_size() {
    let broker = TestBroker::start().await;
    broker
        .provision("source", json!({ "db_version": "3.5.16", "units": 2 }))
        .await;
    let credentials = broker.bind("source", "b").await;
    let mut client = etcd::connect(&credentials).await;
    etcd::fill(&mut client, 20, "v").await;
    let backup = broker.back_up(&credentials).await;
    let parameters = from("source", &backup);
    broker.provision("copy", parameters.clone()).await;
    let copy = broker.bind("copy", "b").await;
    assert_eq!(version(&broker, "copy", &copy).await, "3.5.35");
    assert_eq!(etcd::dump(&mut etcd::connect(&copy).await).await.len(), 20);
    let path = format!("/deployments/{}", text(&copy["deployment_id"]));
    let shown = answer(broker.compose(Method::GET, &copy, &path)).await.body;
    assert_eq!(shown["units"], 2);
    // A repeat is recognised, also when the backup is gone by now.
    broker.deprovision("source").await;
    let again = restore(&broker, "copy", parameters, json!({})).await;
    assert_eq!(again.status, StatusCode::OK, "{again:?}");
}

/// 3.3 keeps passwords and roles in its own way, and a database that was full says so in its
/// snapshots.
#[tokio::test(flavor = "multi_thread")]
async fn a_full_3_3_moves_to_3_6_without_its_users_and_its_alarm() {
    // Nobody ends the alarm meanwhile.
    let surroundings = Surroundings {
        scheduled: false,
        ..surroundings()
    };
    let broker = TestBroker::start_with(&[], surroundings).await;
    broker
        .provision("old", json!({ "db_version": "3.3.25" }))
        .await;
    let old = broker.bind("old", "b").await;
    broker.bind("old", "another").await;
    let mut client = etcd::connect(&old).await;
    assert_eq!(version(&broker, "old", &old).await, "3.3.25");
    etcd::fill(&mut client, 50, "v").await;
    client.delete("key-0000", None).await.expect("a delete");
    client
        .alarm(AlarmAction::Activate, AlarmType::Nospace, None)
        .await
        .expect("an alarm");
    let full = client.put("one more", "x", None).await;
    assert!(full.is_err_and(|e| e.to_string().contains("database space exceeded")));
    let backup = broker.back_up(&old).await;
    assert_eq!(backup["status"], "complete", "{backup}");
    assert_eq!(backup["keys"], 49);

    let newer = with(from("old", &backup), json!({ "db_version": "3.6.16" }));
    broker.provision("new", newer).await;
    let new = broker.bind("new", "b").await;
    assert_eq!(version(&broker, "new", &new).await, "3.6.16");
    let mut client = etcd::connect(&new).await;
    assert_eq!(etcd::dump(&mut client).await.len(), 49);
    client.put("one more", "x", None).await.expect("room again");
    for (user, password) in [
        (etcd::user(&old), etcd::password(&old)),
        ("root".to_owned(), etcd::password(&old)),
        ("root".to_owned(), String::new()),
    ] {
        let refused = match etcd::connect_as(&new, "uri", &user, &password).await {
            Ok(mut client) => client.get("k", None).await.is_err(),
            Err(_) => true,
        };
        assert!(refused, "{user}");
    }
    // Nor is the old token good for the new instance.
    let mut crossed = new.clone();
    crossed["instance_administration_api"]["token"] =
        old["instance_administration_api"]["token"].clone();
    let refused = answer(broker.compose(Method::GET, &crossed, "")).await;
    assert_eq!(refused.status, StatusCode::NOT_FOUND);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_restore_outlives_its_source() {
    let script = Script::default();
    let broker = TestBroker::start_with(&[], script.surroundings()).await;
    broker.provision("source", json!({})).await;
    let credentials = broker.bind("source", "b").await;
    etcd::fill(&mut etcd::connect(&credentials).await, 20, "v").await;
    let backup = broker.back_up(&credentials).await;
    let held = script.hold(OperationKind::Restore, "fetch");
    let restoring = restore(&broker, "copy", from("source", &backup), json!({})).await;
    let deleting = broker.delete_instance("source").await;
    assert_eq!(deleting.status, StatusCode::ACCEPTED, "{deleting:?}");
    // Its members go at once; the promised backup stays until it was read.
    let deployment = text(&credentials["deployment_id"]).to_owned();
    let members = format!("/{deployment}/members/");
    eventually("the end of the members", || async {
        let left = broker.files().iter().any(|file| file.contains(&members));
        (!left && broker.members().is_empty()).then_some(())
    })
    .await;
    let reason = refusal(&broker, from("source", &backup), json!({})).await;
    assert_says(&reason, &["source_service_instance_id"]);
    drop(held);
    let end = broker.instance_end("copy", &restoring.body).await;
    assert_eq!(end["state"], "succeeded", "{end}");
    assert_eq!(
        broker.instance_end("source", &deleting.body).await["state"],
        "succeeded"
    );
    let left: Vec<String> = broker
        .files()
        .into_iter()
        .filter(|file| file.contains(&deployment))
        .collect();
    assert_eq!(left, Vec::<String>::new());
    let copy = broker.bind("copy", "b").await;
    assert_eq!(etcd::dump(&mut etcd::connect(&copy).await).await.len(), 20);
}

#[tokio::test(flavor = "multi_thread")]
async fn deleting_an_instance_stops_its_restore_and_spares_the_source() {
    let script = Script::default();
    let broker = TestBroker::start_with(&[], script.surroundings()).await;
    broker.provision("source", json!({})).await;
    let credentials = broker.bind("source", "b").await;
    let backup = broker.back_up(&credentials).await;
    let before = (broker.members(), deployments(&broker));
    for step in ["fetch", "seed", "start", "secure", "verify"] {
        let held = script.hold(OperationKind::Restore, step);
        let restoring = restore(&broker, "copy", from("source", &backup), json!({})).await;
        let token = encoded(text(&restoring.body["operation"]));
        let poll = format!("{}/last_operation?operation={token}", instance_path("copy"));
        let title = match step {
            "fetch" => "Fetching",
            "seed" => "Restoring",
            "start" => "Starting",
            "secure" => "Removing",
            _ => "Comparing",
        };
        eventually(step, || async {
            let polled = answer(broker.osb(Method::GET, &poll)).await;
            text(&polled.body["description"])
                .starts_with(title)
                .then_some(())
        })
        .await;
        let deleting = broker.delete_instance("copy").await;
        drop(held);
        assert_eq!(
            broker.instance_end("copy", &deleting.body).await["state"],
            "succeeded"
        );
        let halted = answer(broker.osb(Method::GET, &poll)).await;
        assert_eq!(halted.body["state"], "failed", "{step}: {halted:?}");
        assert_eq!((broker.members(), deployments(&broker)), before, "{step}");
    }
}

/// The folders of deployments that have any file.
fn deployments(broker: &TestBroker) -> Vec<String> {
    let folder = |file: &String| {
        let mut parts = file.split('/');
        (parts.next() == Some("clusters")).then(|| parts.nth(1).unwrap_or_default().to_owned())
    };
    let mut folders: Vec<String> = broker.files().iter().filter_map(folder).collect();
    folders.dedup();
    folders
}

/// A client that writes while a backup is taken does not make it fail, and no write is half in it.
#[tokio::test(flavor = "multi_thread")]
async fn a_backup_of_a_database_that_is_being_written_to_restores() {
    let broker = TestBroker::start().await;
    broker.provision("source", json!({})).await;
    let credentials = broker.bind("source", "b").await;
    let stop = tokio_util::sync::CancellationToken::new();
    let writer = tokio::spawn({
        let (stop, mut client) = (stop.clone(), etcd::connect(&credentials).await);
        async move {
            let mut written = 0;
            while !stop.is_cancelled() {
                client
                    .put(format!("k{written:06}"), "v", None)
                    .await
                    .expect("a put");
                written += 1;
            }
            written
        }
    });
    let backup = broker.back_up(&credentials).await;
    stop.cancel();
    let written: usize = writer.await.expect("a writer");
    assert_eq!(backup["status"], "complete", "{backup}");
    broker.provision("copy", from("source", &backup)).await;
    let copy = broker.bind("copy", "b").await;
    let keys = etcd::dump(&mut etcd::connect(&copy).await).await;
    assert_eq!(json!(keys.len()), backup["keys"]);
    assert!(keys.len() <= written);
    let without_gaps = keys
        .iter()
        .enumerate()
        .all(|(i, (key, _))| *key == format!("k{i:06}"));
    assert!(without_gaps);
}
