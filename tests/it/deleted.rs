//! What is left of a deleted instance: its backups, for a while, for its former owner.

use compose_broker::{
    model::{limits::deleted::DELETED_KEPT_DAYS, operation::OperationKind},
    operation::fault::Fault,
};
use reqwest::{Method, StatusCode};
use serde_json::{Value, json};

use crate::{
    broker::{Answer, TestBroker, answer, eventually, text},
    catalog::catalog_file,
    control::{Script, TestClock},
    dashboard::Visit,
    database::Database,
    pages::{Visitor, between},
    user::User,
};

/// A broker with the catalog that is shipped, and what a test holds in its hand.
struct Shipped {
    broker: TestBroker,
    script: Script,
    clock: TestClock,
}

impl Shipped {
    async fn with(database: Database) -> Self {
        let (script, clock) = (Script::default(), TestClock::default());
        let surroundings = script.surroundings_at(&clock);
        let broker = database
            .broker_with(&catalog_file(), &[], surroundings)
            .await;
        Self {
            broker,
            script,
            clock,
        }
    }

    async fn in_memory() -> Self {
        Self::with(Database::in_memory()).await
    }

    /// An instance with a key of before its only backup, and one of after it; returns its credentials and the
    /// backup.
    async fn filled(&self, instance: &str) -> (Value, Value) {
        let broker = &self.broker;
        broker.provision(instance, json!({})).await;
        let key = broker.bind(instance, "b").await;
        broker.database.fill(&key, 1, "early").await;
        let backup = broker.back_up(&key).await;
        broker.database.fill(&key, 2, "late").await;
        (key, backup)
    }

    /// What operators see.
    async fn deleted(&self) -> Vec<Value> {
        let told = answer(self.broker.osb(Method::GET, "/operator/deleted_instances")).await;
        assert_eq!(told.status, StatusCode::OK, "{told:?}");
        let all = told.body["deleted_instances"].as_array();
        all.expect("a list").clone()
    }

    async fn purge(&self, deployment: &Value) -> Answer {
        let path = format!("/operator/deleted_instances/{}", text(deployment));
        answer(self.broker.osb(Method::DELETE, &path)).await
    }

    /// Waits until nothing is kept any more of the instance of these credentials: no row, and no byte.
    async fn nothing_is_left(&self, of: &Value) {
        eventually("the end of what is kept", || async {
            self.deleted().await.is_empty().then_some(())
        })
        .await;
        let deployment = text(&of["deployment_id"]);
        let mut left = self.broker.files();
        left.retain(|file| file.contains(deployment));
        assert_eq!(left, Vec::<String>::new());
    }

    /// How many of these are told of in the audit.
    async fn audited(&self, action: &str) -> usize {
        let told = answer(self.broker.osb(Method::GET, "/operator/audit?limit=100")).await;
        let entries = told.body["entries"].as_array().expect("entries").clone();
        entries.iter().filter(|of| of["action"] == action).count()
    }

    async fn refusal(&self, space: &str, wanted: Value) -> String {
        let refused = self.broker.put_instance_in(space, "refused", wanted).await;
        assert_eq!(refused.status, StatusCode::BAD_REQUEST, "{refused:?}");
        text(&refused.body["description"]).to_owned()
    }
}

fn latest_of(source: &str) -> Value {
    json!({ "source_service_instance_id": source, "backup_id": "latest" })
}

/// Makes a new instance of the last backup; returns what is in it.
async fn brought_back(broker: &TestBroker, source: &str, id: &str) -> Vec<(String, String)> {
    broker.provision(id, latest_of(source)).await;
    let key = broker.bind(id, "b").await;
    broker.database.dump(&key).await
}

fn late() -> Vec<(String, String)> {
    let pair = |i: usize| (format!("key-{i:04}"), format!("late-{i}"));
    vec![pair(0), pair(1)]
}

async fn a_deleted_instance_comes_back(database: Database) {
    let of = Shipped::with(database).await;
    let broker = &of.broker;
    of.filled("i").await;
    broker.deprovision("i").await;
    let members = broker.running().len();
    assert_eq!(members, 0, "members are gone");
    assert_eq!(brought_back(broker, "i", "again").await, late());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_database_that_was_deleted_by_mistake_comes_back_as_it_was() {
    a_deleted_instance_comes_back(Database::Etcd).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_backups_of_a_deleted_instance_are_its_owners_until_their_time_is_over() {
    let of = Shipped::in_memory().await;
    let broker = &of.broker;
    let (key, backup) = of.filled("i").await;
    broker.deprovision("i").await;

    let listed = of.deleted().await;
    assert_eq!(listed.len(), 1);
    let deleted = &listed[0];
    assert_eq!(deleted["instance_id"], "i");
    assert_eq!(deleted["deployment_id"], key["deployment_id"]);
    assert_eq!(deleted["backups"], 2, "{deleted}");
    assert_ne!(deleted["newest_backup_id"], backup["id"]);
    assert_eq!(deleted["final_backup_failure"], Value::Null);
    // Nobody else's, and for others as if it had never been.
    let foreign = of.refusal("elsewhere", latest_of("i")).await;
    let unknown = of.refusal("elsewhere", latest_of("nothing")).await;
    assert_eq!(foreign.replace("\"i\"", "\"nothing\""), unknown);

    // The id is free; what is made under it has nothing of what was there before.
    broker.provision("i", json!({})).await;
    let again = broker.bind("i", "b").await;
    let path = format!("/deployments/{}/backups", text(&again["deployment_id"]));
    let backups = answer(broker.compose(Method::GET, &again, &path)).await;
    assert_eq!(backups.body["_embedded"]["backups"], json!([]));
    let none = of.refusal("space", latest_of("i")).await;
    assert!(none.contains("no complete backup"), "{none}");
    let by_id = json!({ "source_service_instance_id": "i", "backup_id": backup["id"] });
    broker.provision("early", by_id.clone()).await;
    let early = broker.bind("early", "b").await;
    let early = broker.database.dump(&early).await;
    assert_eq!(early, [("key-0000".to_owned(), "early-0".to_owned())]);
    let path = format!("/deployments/{}", text(&key["deployment_id"]));
    let lost = answer(broker.compose(Method::GET, &key, &path)).await;
    assert_eq!(lost.status, StatusCode::UNAUTHORIZED, "tokens are over");

    // Its time comes, for the first of the two alone.
    of.clock.shift(chrono::TimeDelta::days(1));
    broker.deprovision("early").await;
    of.clock
        .shift(chrono::TimeDelta::days(i64::from(DELETED_KEPT_DAYS) - 1));
    eventually("the end of the first", || async {
        let left = of.deleted().await;
        (left.len() == 1 && left[0]["instance_id"] == "early").then_some(())
    })
    .await;
    let gone = of.refusal("space", by_id).await;
    assert!(gone.contains("has no backup"), "{gone}");
    assert_eq!(of.audited("deleted_end").await, 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn who_wants_no_backups_kept_says_so_before_or_an_operator_does_after() {
    let of = Shipped::in_memory().await;
    let broker = &of.broker;
    let (key, _) = of.filled("i").await;
    let body = json!({
        "service_id": crate::broker::SERVICE, "parameters": { "delete_backups": true },
    });
    let path = crate::broker::instance_path("i");
    let updated = answer(broker.osb(Method::PATCH, &path).json(&body)).await;
    assert_eq!(updated.status, StatusCode::OK, "{updated:?}");
    broker.deprovision("i").await;
    of.nothing_is_left(&key).await;

    let (key, _) = of.filled("j").await;
    broker.deprovision("j").await;
    // What a restore reads stays until it has ended.
    let held = of.script.hold(OperationKind::Restore, "fetch");
    let accepted = broker.put_instance("copy", latest_of("j")).await;
    assert_eq!(accepted.status, StatusCode::ACCEPTED, "{accepted:?}");
    let purged = of.purge(&key["deployment_id"]).await;
    assert_eq!(purged.status, StatusCode::ACCEPTED, "{purged:?}");
    drop(held);
    let end = broker.instance_end("copy", &accepted.body).await;
    assert_eq!(end["state"], "succeeded", "{end}");
    of.nothing_is_left(&key).await;
    let again = of.purge(&key["deployment_id"]).await;
    assert_eq!(again.status, StatusCode::NOT_FOUND, "{again:?}");
    assert_eq!(of.audited("deleted_purge").await, 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_deletion_does_not_wait_for_ever_for_its_last_backup() {
    let of = Shipped::in_memory().await;
    let broker = &of.broker;
    let (_, backup) = of.filled("i").await;
    let silent = of
        .script
        .trip(OperationKind::FinalBackup, "snapshot", Fault::Silence);
    broker.deprovision("i").await;
    drop(silent);
    let deleted = &of.deleted().await[0];
    assert_eq!(
        (&deleted["backups"], &deleted["newest_backup_id"]),
        (&json!(1), &backup["id"])
    );
    let why = text(&deleted["final_backup_failure"]);
    assert!(
        why.contains("did not answer") || why.contains("silence"),
        "{why}"
    );
    // Of an instance that has no backup at all, nothing is kept.
    broker.provision("j", json!({})).await;
    let failing = of.script.fail(OperationKind::FinalBackup, "snapshot");
    broker.deprovision("j").await;
    drop(failing);
    assert_eq!(of.deleted().await.len(), 1);
    // Nor does one that was never usable try to take one.
    let failing = of.script.fail(OperationKind::Provision, "start");
    let accepted = broker.put_instance("k", json!({})).await;
    let end = broker.instance_end("k", &accepted.body).await;
    assert_eq!(end["state"], "failed", "{end}");
    drop(failing);
    broker.deprovision("k").await;
    assert_eq!(of.deleted().await.len(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_is_made_under_the_ids_that_stand_for_deleted_instances() {
    let of = Shipped::in_memory().await;
    let (key, _) = of.filled("i").await;
    of.broker.deprovision("i").await;
    let keeper = format!("deleted:{}", text(&key["deployment_id"]));
    let refused = of.broker.put_instance(&keeper, json!({})).await;
    assert_eq!(refused.status, StatusCode::CONFLICT, "{refused:?}");
    let source = of.refusal("space", latest_of(&keeper)).await;
    assert!(source.contains("is no service instance"), "{source}");
}

#[tokio::test(flavor = "multi_thread")]
async fn operators_see_on_a_page_what_is_kept_and_of_whom() {
    let of = Shipped::in_memory().await;
    let (key, _) = of.filled("i").await;
    let silent = of
        .script
        .trip(OperationKind::FinalBackup, "snapshot", Fault::Silence);
    of.broker.deprovision("i").await;
    drop(silent);
    let visit = Visit::to(of.broker).await;
    let page = &visit.page;
    visit.sign_in_as_operator().await;
    page.click("link", "Deleted").await;
    page.arrives_at("/dashboard/deleted").await;
    page.says("#deleted", "1 backup").await;
    page.says("#deleted", "org / space").await;
    page.says("#deleted", "No last one before the deletion")
        .await;
    page.says("#deleted", text(&key["deployment_id"])).await;
    page.look_over("operator-deleted").await;
    // What stands there makes a new instance of it.
    page.find("#deleted summary").await.click().await;
    page.click("button", "Copy the parameters of a new instance of i")
        .await;
    let copied = eventually("parameters", || async {
        serde_json::from_str::<Value>(&page.clipboard().await).ok()
    })
    .await;
    assert_eq!(copied, latest_of("i"));
    visit.check().await;
}

/// What was restored and deleted again stays in the list of its source, and an open page of it learns what is left.
#[tokio::test(flavor = "multi_thread")]
async fn pages_say_what_is_left_of_what_was_deleted() {
    let of = Shipped::in_memory().await;
    let broker = &of.broker;
    of.filled("i").await;
    broker.provision("copy", latest_of("i")).await;
    let key = broker.bind("copy", "b").await;
    broker.back_up(&key).await;
    let operator = Visitor::operator(broker).await;
    let path = "/dashboard/instances/copy";
    let open = operator.get(path).await.body;
    let code = between(&open, "data-page=\"", "\"");
    broker.deprovision("copy").await;

    let gone = operator.get_with(path, &[("x-page", code)]).await;
    assert_eq!(gone.header("x-fate"), "deleted");
    let parameters = r#"{"backup_id":"latest","source_service_instance_id":"copy"}"#;
    assert!(
        gone.body.contains("backups of it are kept until "),
        "{gone:?}"
    );
    assert!(gone.body.ends_with(parameters), "{gone:?}");
    // An operator who comes to its address later is told the same.
    let later = operator.get("/dashboard/instances/copy/backups").await;
    assert_eq!(later.status, StatusCode::NOT_FOUND, "{later:?}");
    for told in [
        "copy was deleted",
        "backups of it are kept until ",
        "nav-deleted",
    ] {
        assert!(later.body.contains(told), "{told}: {later:?}");
    }
    let source = operator.get("/dashboard/instances/i").await.body;
    let restored = between(&source, "id=\"restored\"", "</section>");
    assert!(
        restored.contains("copy") && restored.contains("deleted"),
        "{restored}"
    );
    // With what is left of it, and until when.
    assert!(restored.contains("its backups go"), "{restored}");
    assert!(restored.contains("in 14 days"), "{restored}");
    assert!(
        restored.contains(&format!("<a href=\"{path}\">")),
        "{restored}"
    );
    let key = broker.bind("i", "of-user").await;
    let user = Visitor::with_token(broker, &key).await;
    let source = user.get("/dashboard/instances/i").await.body;
    let restored = between(&source, "id=\"restored\"", "</section>");
    assert!(restored.contains("in 14 days"), "{restored}");
    assert!(!restored.contains(path), "{restored}");
}

/// The client says before and after a deletion what is kept, and how to have it back, also where somebody asks for
/// what is gone.
#[tokio::test(flavor = "multi_thread")]
async fn the_client_says_what_a_deletion_keeps_and_how_to_have_it_back() {
    let of = Shipped::in_memory().await;
    let user = User::of_broker(&of.broker);
    user.does(&["create-service", "compose-for-etcd", "Standard", "db", "-w"])
        .await;
    user.does(&["create-backup", "db", "-w"]).await;
    let told = user
        .does(&["restore-backup", "db", "latest", "copy", "--dry-run"])
        .await;
    assert!(told.out.contains(" ago)"), "{told:?}");
    assert!(
        told.out.contains("not known: there is no earlier restore"),
        "{told:?}"
    );
    let restore = ["restore-backup", "db", "latest", "copy", "-w"];
    let told = user.does(&restore).await;
    let about = "of data. How long it takes is not known";
    assert!(told.err.contains(about), "{told:?}");
    user.does(&["delete-service", "copy", "-f", "-w"]).await;
    let id = text(&user.does(&["service", "db", "-o", "json"]).await.json()["id"]).to_owned();
    let gone = user.does(&["delete-service", "db", "-f", "-w"]).await;
    assert!(
        gone.err.contains("its backups stay for 14 days"),
        "{gone:?}"
    );
    let parameters = latest_of(&id).to_string();
    let (_, command) = (gone.err.lines())
        .find_map(|line| line.split_once("compose-broker create-service "))
        .expect("a command");
    assert_eq!(
        command,
        format!("compose-for-etcd Standard NEW_NAME -c '{parameters}'")
    );
    let gone = user.run(&["service", "db"]).await;
    gone.must_say(1, "was deleted; its backups stay until ");
    for name in ["db", &id] {
        let lost = user.run(&["restore-backup", name, "latest", "again"]).await;
        lost.must_say(1, "was deleted; its backups stay until ");
        assert!(lost.err.contains(&parameters), "{lost:?}");
    }
    let again = [
        "create-service",
        "compose-for-etcd",
        "Standard",
        "again",
        "-c",
    ];
    user.does(&[&again[..], &[&parameters, "-w"]].concat())
        .await;
    let never = user.run(&["backups", "never"]).await;
    never.must_say(1, "No service instance 'never'");

    // Where nothing is kept, it says so.
    user.does(&[
        "update-service",
        "again",
        "-c",
        r#"{"delete_backups": true}"#,
        "-w",
    ])
    .await;
    let gone = user.does(&["delete-service", "again", "-f", "-w"]).await;
    assert!(
        gone.err.contains("its backups are deleted with it"),
        "{gone:?}"
    );
    assert!(!gone.err.contains("NEW_NAME"), "{gone:?}");
}

/// The page that deletes says so too, also of an instance that has no backup yet.
#[tokio::test(flavor = "multi_thread")]
async fn the_page_says_of_each_deletion_what_it_keeps() {
    let of = Shipped::in_memory().await;
    of.broker.provision("new", json!({})).await;
    of.filled("old").await;
    let visitor = Visitor::operator(&of.broker).await;
    for (id, told) in [
        (
            "new",
            "For 14 days: A last backup, which is taken before anything is deleted.",
        ),
        (
            "old",
            "stored. A last backup, which is taken before anything is deleted.",
        ),
    ] {
        let page = visitor
            .get(&format!("/dashboard/instances/{id}/settings"))
            .await;
        assert!(page.body.contains(told), "{}", page.body);
        assert!(!page.body.contains("there are none"), "{}", page.body);
    }
}
