//! Reasons: why work failed, who asked for it and how long it took, on the page and in the client.

use compose_broker::model::{limits::TASKS_SHOWN, operation::OperationKind};

use reqwest::{Method, StatusCode};
use serde_json::json;

use crate::{
    broker::{SERVICE, TestBroker, answer, instance_path, text},
    control::Script,
    pages::Visitor,
    user::User,
};

#[tokio::test(flavor = "multi_thread")]
async fn a_failed_backup_says_why_and_tasks_say_who_asked() {
    let script = Script::default();
    let broker = TestBroker::start_with(&[], script.surroundings()).await;
    let user = User::of_broker(&broker);
    let key = user.makes_database().await;
    let failing = script.fail(OperationKind::Backup, "snapshot");
    let failed = user.run(&["create-backup", "db", "--wait"]).await;
    failed.must_say(1, "failed");
    drop(failing);
    let listed = user.does(&["backups", "db"]).await.out;
    let id = user.asks(&["backups", "db"]).await["backups"][0]["id"].clone();
    let why = format!("\n{} failed: Taking the snapshot failed", text(&id));
    assert!(listed.contains(&why), "{listed}");

    // More tasks than a page shows.
    for _ in 0..TASKS_SHOWN {
        user.does(&["create-service-key", "db", "more", "--wait"])
            .await;
        user.does(&["delete-service-key", "db", "more", "--force", "--wait"])
            .await;
    }
    let known = user.asks(&["service", "db"]).await;
    let overview = format!("/dashboard/instances/{}", text(&known["id"]));
    let visitor = Visitor::with_token(&broker, &key).await;
    let page = visitor.get(&overview).await.body;
    let asked = "asked for by the platform: <bdi>ada</bdi>, took ";
    assert!(page.contains(asked), "{page}");
    let link = link_of(&page, "older-tasks").expect("a link to older tasks");
    assert!(
        link.starts_with(&format!("{overview}/activity?tasks=")),
        "{link}"
    );
    let mut older = page;
    for _ in 0..4 {
        let Some(link) = link_of(&older, "older-tasks") else {
            break;
        };
        older = visitor.get(&link).await.body;
        assert!(older.contains("id=\"newest-tasks\""), "{older}");
    }
    assert!(older.contains(">Provision</th>"), "{older}");
    assert!(
        older.contains("data-label=\"By\">the Compose API"),
        "{older}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn what_waits_says_what_comes_first() {
    let script = Script::default();
    let broker = TestBroker::in_memory_with(&[], script.surroundings()).await;
    broker.provision("i", json!({})).await;
    let credentials = broker.bind("i", "b").await;
    let held = script.hold(OperationKind::Backup, "snapshot");
    let deployment = format!("/deployments/{}", text(&credentials["deployment_id"]));
    let backups = format!("{deployment}/backups");
    let backup = answer(broker.compose(Method::POST, &credentials, &backups)).await;
    assert_eq!(backup.status, StatusCode::ACCEPTED, "{backup:?}");
    let path = format!("{}?accepts_incomplete=true", instance_path("i"));
    let more = json!({ "service_id": SERVICE, "parameters": { "units": 2 } });
    let update = answer(broker.osb(Method::PATCH, &path).json(&more)).await;
    assert_eq!(update.status, StatusCode::ACCEPTED, "{update:?}");

    let wait = "waiting for another task: Backup";
    let id = text(&update.body["operation"]).to_owned();
    let poll = format!("{}/last_operation?operation={id}", instance_path("i"));
    let told = answer(broker.osb(Method::GET, &poll)).await.body;
    assert_eq!(told["description"], wait, "{told}");
    let recipes = format!("{deployment}/recipes");
    let told = answer(broker.compose(Method::GET, &credentials, &recipes))
        .await
        .body;
    let recipe = &told["_embedded"]["recipes"][0];
    assert_eq!(recipe["status_detail"], wait, "{told}");
    assert_eq!(recipe["name"], "Scale deployment to 2 units");
    let told = answer(broker.osb(Method::GET, &format!("/operator/operations/{id}")))
        .await
        .body;
    assert_eq!(told["description"], wait, "{told}");
    assert_eq!(told["name"], recipe["name"]);
    let visitor = Visitor::with_token(&broker, &credentials).await;
    for page in ["", "/activity"] {
        let page = visitor
            .get(&format!("/dashboard/instances/i{page}"))
            .await
            .body;
        assert!(page.contains(wait), "{page}");
    }
    drop(held);
    broker.instance_end("i", &update.body).await;
}

/// Where the link of that id leads, without its fragment.
fn link_of(page: &str, id: &str) -> Option<String> {
    let (_, link) = page.split_once(&format!("id=\"{id}\" href=\""))?;
    let (link, _) = link.split_once(['#', '"'])?;
    Some(link.to_owned())
}
