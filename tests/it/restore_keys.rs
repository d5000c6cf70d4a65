//! Keys are put back into a running database from a backup of it: those that were asked for, and no others.

use compose_broker::model::operation::{OperationKind, OperationState};
use etcd_client::{DeleteOptions, PutOptions};
use reqwest::{Method, StatusCode};
use serde_json::{Value, json};

use crate::{
    broker::{Answer, SERVICE, STANDARD, TestBroker, answer, text},
    control::{Script, surroundings},
    database::{Database, with},
    etcd,
    inside::Inside,
};

/// Asks for keys to be put back.
async fn ask(broker: &TestBroker, of: &Value, backup: &str, wanted: &Value) -> Answer {
    let deployment = text(&of["deployment_id"]);
    let path = format!("/deployments/{deployment}/backups/{backup}/restore_prefix");
    let body = json!({ "deployment": wanted });
    answer(broker.compose(Method::POST, of, &path).json(&body)).await
}

/// Has keys put back, or compared; returns the recipe.
pub async fn restored(broker: &TestBroker, of: &Value, backup: &Value, wanted: &Value) -> Value {
    let accepted = ask(broker, of, text(&backup["id"]), wanted).await;
    assert_eq!(accepted.status, StatusCode::ACCEPTED, "{accepted:?}");
    let end = broker.recipe_end(of, &accepted.body).await;
    assert_eq!(end["status"], "complete", "{end}");
    end
}

/// An instance with so many keys and a backup: its credentials and the backup.
async fn backed_up(of: &Database, broker: &TestBroker, keys: usize) -> (Value, Value) {
    broker.provision("i", json!({})).await;
    let credentials = broker.bind("i", "app").await;
    of.fill(&credentials, keys, "v").await;
    let backup = broker.back_up(&credentials).await;
    (credentials, backup)
}

async fn delete_keys(broker: &TestBroker, of: &Value, prefix: &str) {
    let path = format!("/deployments/{}/reliefs", text(&of["deployment_id"]));
    let body = json!({ "deployment": { "delete_prefix": prefix } });
    let accepted = answer(broker.compose(Method::POST, of, &path).json(&body)).await;
    let end = broker.recipe_end(of, &accepted.body).await;
    assert_eq!(end["status"], "complete", "{end}");
}

fn difference(same: u64, missing: u64, changed: u64, extra: u64) -> Value {
    json!([same, missing, changed, extra])
}

fn found(recipe: &Value) -> Value {
    let found = &recipe["prefix_restore"]["difference"];
    let counts = ["same", "missing", "changed", "extra"].map(|name| found[name].clone());
    counts.as_slice().into()
}

async fn keys_come_back_and_all_others_stay(of: Database) {
    let broker = of.broker(&[], surroundings()).await;
    let inside = Inside::of(&broker);
    let (credentials, backup) = backed_up(&of, &broker, 25).await;
    inside.idle("i").await;
    let before = (of.dump(&credentials).await, inside.ports_reserved().await);
    // Ten of them are gone, five have another value, and there are five new ones.
    of.fill(&credentials, 5, "w").await;
    delete_keys(&broker, &credentials, "key-001").await;
    let damaged = of.dump(&credentials).await;
    assert_eq!(damaged.len(), 15);

    let compared = json!({ "prefix": "key-00", "mode": "mirror", "dry_run": true });
    let told = restored(&broker, &credentials, &backup, &compared).await;
    assert_eq!(found(&told), difference(10, 10, 5, 0), "{told}");
    assert_eq!(told["prefix_restore"]["changes"], Value::Null);
    assert_eq!(told["prefix_restore"]["safety_backup_id"], Value::Null);
    assert_eq!(
        told["name"],
        "Compare keys that begin with \"key-00\" with a backup"
    );
    assert_eq!(
        told["status_detail"],
        "10 keys missing, 5 with another value, 0 not in the backup, 10 the same"
    );
    assert_eq!(of.dump(&credentials).await, damaged);

    let some = json!({ "prefix": "key-0010" });
    let told = restored(&broker, &credentials, &backup, &some).await;
    assert_eq!(found(&told), difference(0, 1, 0, 0), "{told}");
    let changes = json!({ "written": 1, "deleted": 0, "left": 0 });
    assert_eq!(told["prefix_restore"]["changes"], changes);
    assert_eq!(told["status_detail"], "1 key written, 0 deleted");
    assert_eq!(of.dump(&credentials).await.len(), 16);
    let path = format!(
        "/deployments/{}/backups/{}",
        text(&credentials["deployment_id"]),
        text(&told["prefix_restore"]["safety_backup_id"])
    );
    let safety = answer(broker.compose(Method::GET, &credentials, &path)).await;
    assert_eq!(safety.body["type"], "safety", "{safety:?}");
    assert_eq!(safety.body["status"], "complete", "{safety:?}");
    // What was before can be had back, too.
    let all = json!({ "prefix": "", "mode": "mirror" });
    let told = restored(&broker, &credentials, &safety.body, &all).await;
    assert_eq!(found(&told), difference(15, 0, 0, 1), "{told}");
    assert_eq!(of.dump(&credentials).await, damaged);

    let told = restored(&broker, &credentials, &backup, &all).await;
    let changes = json!({ "written": 15, "deleted": 0, "left": 0 });
    assert_eq!(told["prefix_restore"]["changes"], changes, "{told}");
    inside.idle("i").await;
    let after = (of.dump(&credentials).await, inside.ports_reserved().await);
    assert_eq!(
        after, before,
        "and nothing is left of what was restored aside"
    );
}

async fn keys_go_into_another_database_of_the_same_owner(of: Database) {
    let broker = of.broker(&[], surroundings()).await;
    let (source, backup) = backed_up(&of, &broker, 12).await;
    broker.provision("other", json!({})).await;
    let other = broker.bind("other", "app").await;
    let own = of.put(&other, "key-own", "own".to_owned()).await;
    own.expect("a key");
    let id = text(&backup["id"]);
    let wanted = json!({ "prefix": "key-000", "target_service_instance_id": "other" });
    // A token of one of them says nothing of the other one.
    let refused = ask(&broker, &source, id, &wanted).await;
    assert_eq!(refused.status, StatusCode::NOT_FOUND, "{refused:?}");

    let nobody = json!({ "prefix": "", "mode": "mirror", "target_service_instance_id": "" });
    let refused = ask(&broker, &source, id, &nobody).await;
    assert_eq!(refused.status, StatusCode::BAD_REQUEST, "{refused:?}");

    let path = |instance: &str, rest: &str| format!("/api/2016-07/instances/{instance}{rest}");
    let deployment = text(&source["deployment_id"]);
    let restore = format!("/deployments/{deployment}/backups/{id}/restore_prefix");
    let body = json!({ "deployment": wanted });
    let asked = broker.osb(Method::POST, &path("i", &restore)).json(&body);
    let accepted = answer(asked).await;
    assert_eq!(accepted.status, StatusCode::ACCEPTED, "{accepted:?}");
    assert_eq!(accepted.body["deployment_id"], other["deployment_id"]);
    let end = broker.recipe_end(&other, &accepted.body).await;
    assert_eq!(found(&end), difference(0, 10, 0, 0), "{end}");
    let keys = of.dump(&other).await;
    assert_eq!(keys.len(), 11, "{keys:?}");
    assert_eq!(of.dump(&source).await.len(), 12);

    // Nobody else's database gets them, not even by the platform's credentials.
    let context = json!({
        "platform": "cloudfoundry", "organization_guid": "another", "space_guid": "another",
    });
    let strange = json!({
        "service_id": SERVICE, "plan_id": STANDARD, "organization_guid": "another",
        "space_guid": "another", "context": context,
    });
    let place = "/v2/service_instances/strange?accepts_incomplete=true";
    let made = answer(broker.osb(Method::PUT, place).json(&strange)).await;
    broker.instance_end("strange", &made.body).await;
    let wanted = json!({ "prefix": "", "target_service_instance_id": "strange" });
    let body = json!({ "deployment": wanted });
    let asked = broker.osb(Method::POST, &path("i", &restore)).json(&body);
    let refused = answer(asked).await;
    assert_eq!(refused.status, StatusCode::BAD_REQUEST, "{refused:?}");
    let told = text(&refused.body["errors"]["base"][0]);
    assert!(told.contains("not of one owner"), "{told}");
}

async fn what_cannot_be_put_back_is_told(of: Database) {
    let script = Script::default();
    let broker = of.broker(&[], script.surroundings()).await;
    let inside = Inside::of(&broker);
    let (credentials, backup) = backed_up(&of, &broker, 3).await;
    let id = text(&backup["id"]);
    for (wanted, status, reason) in [
        (json!({}), StatusCode::BAD_REQUEST, "prefix is missing"),
        (
            json!({ "prefix": "a", "mode": "all" }),
            StatusCode::BAD_REQUEST,
            "mode must be one of missing, overwrite, mirror",
        ),
        (
            json!({ "prefix": "x".repeat(1025) }),
            StatusCode::BAD_REQUEST,
            "prefix must have at most 1024 bytes",
        ),
        (
            json!({ "prefix": "a\u{0}" }),
            StatusCode::BAD_REQUEST,
            "NUL",
        ),
        (
            json!({ "prefix": 1 }),
            StatusCode::BAD_REQUEST,
            "prefix is not a string",
        ),
    ] {
        let refused = ask(&broker, &credentials, id, &wanted).await;
        assert_eq!(refused.status, status, "{refused:?}");
        assert!(refused.body.to_string().contains(reason), "{refused:?}");
    }
    let wanted = json!({ "prefix": "key-", "mode": "overwrite" });
    let unknown = ask(&broker, &credentials, "5ae85b45e5717f0001533192", &wanted).await;
    assert_eq!(unknown.status, StatusCode::NOT_FOUND, "{unknown:?}");

    // The same once more is the same work, and another one waits for its end.
    let held = script.hold(OperationKind::RestorePrefix, "put_back");
    let accepted = ask(&broker, &credentials, id, &wanted).await;
    assert_eq!(accepted.status, StatusCode::ACCEPTED, "{accepted:?}");
    let again = ask(&broker, &credentials, "latest", &wanted).await;
    assert_eq!(again.status, StatusCode::ACCEPTED, "{again:?}");
    assert_eq!(again.body["id"], accepted.body["id"]);
    let other = ask(&broker, &credentials, id, &json!({ "prefix": "" })).await;
    assert_eq!(other.status, StatusCode::UNPROCESSABLE_ENTITY, "{other:?}");
    assert!(
        other
            .body
            .to_string()
            .contains("try again when that is done")
    );
    // A deletion does not wait for it.
    let deleted = broker.delete_instance("i").await;
    assert_eq!(deleted.status, StatusCode::ACCEPTED, "{deleted:?}");
    drop(held);
    let end = broker.instance_end("i", &deleted.body).await;
    assert_eq!(end["state"], "succeeded", "{end}");
    assert_eq!(of.running(&broker), Vec::<String>::new());
    assert_eq!(inside.ports_reserved().await, 0);
}

async fn nothing_is_changed_without_a_backup_of_before(of: Database) {
    let script = Script::default();
    let broker = of.broker(&[], script.surroundings()).await;
    let inside = Inside::of(&broker);
    let (credentials, backup) = backed_up(&of, &broker, 3).await;
    of.fill(&credentials, 3, "w").await;
    let damaged = of.dump(&credentials).await;
    let failing = script.fail(OperationKind::Backup, "snapshot");
    let wanted = json!({ "prefix": "", "mode": "mirror" });
    let accepted = ask(&broker, &credentials, text(&backup["id"]), &wanted).await;
    let end = broker.recipe_end(&credentials, &accepted.body).await;
    assert_eq!(end["status"], "failed", "{end}");
    let reason = text(&end["status_detail"]);
    assert!(
        reason.contains("the backup before the restore failed"),
        "{reason}"
    );
    drop(failing);
    assert_eq!(of.dump(&credentials).await, damaged);
    let kind = OperationKind::RestorePrefix;
    assert_eq!(inside.newest("i", kind).await.state, OperationState::Failed);
}

with! {
    on_etcd, Database::Etcd,
    keys_come_back_and_all_others_stay
}

with! {
    in_memory, Database::in_memory(),
    keys_come_back_and_all_others_stay
    keys_go_into_another_database_of_the_same_owner
    what_cannot_be_put_back_is_told
    nothing_is_changed_without_a_backup_of_before
}

/// Keys with a lease belong to a client that lives, or lived: neither its keys of then nor those of now are
/// touched. Large values come back like others, and so do keys that are no text.
#[tokio::test(flavor = "multi_thread")]
async fn keys_with_a_lease_are_left_alone_and_large_ones_are_not() {
    let broker = TestBroker::start().await;
    broker.provision("i", json!({})).await;
    let credentials = broker.bind("i", "app").await;
    let mut database = etcd::connect(&credentials).await;
    let lease = database
        .lease_grant(3600, None)
        .await
        .expect("a lease")
        .id();
    let leased = || Some(PutOptions::new().with_lease(lease));
    let large = vec![b'x'; 512 * 1024];
    for key in [
        &b"p/large-1"[..],
        b"p/large-2",
        b"p/\xff\x00",
        b"p/\xff\xff",
    ] {
        database.put(key, large.clone(), None).await.expect("a put");
    }
    for i in 0..200 {
        let key = format!("p/small-{i:03}");
        database.put(key, "small", None).await.expect("a put");
    }
    database
        .put("p/locked", "then", leased())
        .await
        .expect("a put");
    let backup = broker.back_up(&credentials).await;
    let before = etcd::dump(&mut database).await;
    let all = || Some(DeleteOptions::new().with_prefix());
    database.delete("p/", all()).await.expect("a deletion");
    database
        .put("p/registered", "now", leased())
        .await
        .expect("a put");
    database.put("p/new", "now", None).await.expect("a put");
    database.put("q", "elsewhere", None).await.expect("a put");

    let wanted = json!({ "prefix": "p/", "mode": "mirror" });
    let told = restored(&broker, &credentials, &backup, &wanted).await;
    assert_eq!(found(&told), difference(0, 204, 0, 1), "{told}");
    assert_eq!(
        told["prefix_restore"]["difference"]["ephemeral"], 2,
        "{told}"
    );
    let mut expected = before;
    expected.retain(|(key, _)| key != "p/locked");
    expected.push(("p/registered".to_owned(), "now".to_owned()));
    expected.push(("q".to_owned(), "elsewhere".to_owned()));
    expected.sort();
    let mut after = etcd::dump(&mut database).await;
    after.sort();
    assert_eq!(after, expected);
}
