//! Where restored instances come from: told at both ends, beyond the source, and until a platform takes
//! over what its users restored.

use reqwest::{Method, StatusCode};
use serde_json::{Value, json};

use crate::{
    broker::{
        Answer, SERVICE, STANDARD, TestBroker, answer, encoded, eventually, instance_path, text,
    },
    pages::Visitor,
    user::User,
};

/// The deployment of an instance, as the platform sees it.
async fn deployment(broker: &TestBroker, instance: &str) -> Value {
    let (username, password) = broker.platform();
    let root = format!("/api/2016-07/instances/{}", encoded(instance));
    let get = async |path: String| {
        let request = broker.anonymous(Method::GET, &path);
        answer(request.basic_auth(username, Some(password)))
            .await
            .body
    };
    let id = text(&get(format!("{root}/")).await["resource_id"]).to_owned();
    get(format!("{root}/deployments/{id}")).await
}

async fn page(visitor: &Visitor<'_>, instance: &str) -> String {
    let path = format!("/dashboard/instances/{}", encoded(instance));
    visitor.get(&path).await.body
}

/// The backups that are complete, by the client.
async fn complete(user: &User, instance: &str) -> Vec<Value> {
    let told = user.asks(&["backups", instance]).await;
    let all = told["backups"].as_array().expect("a list");
    let is_complete = |backup: &&Value| backup["status"] == "complete";
    all.iter().filter(is_complete).cloned().collect()
}

async fn restore_here(broker: &TestBroker, key: &Value, backup: &Value, name: &str) -> Value {
    let deployment = text(&key["deployment_id"]);
    let path = format!(
        "/deployments/{deployment}/backups/{}/restore",
        text(&backup["id"])
    );
    let request = broker.compose(Method::POST, key, &path);
    let made = answer(request.json(&json!({ "deployment": { "name": name } }))).await;
    assert_eq!(made.status, StatusCode::ACCEPTED, "{made:?}");
    let recipe = json!({ "id": made.body["provision_recipe_id"] });
    let end = broker.recipe_end(key, &recipe).await;
    assert_eq!(end["status"], "complete", "{end}");
    made.body
}

#[tokio::test(flavor = "multi_thread")]
async fn a_restore_is_told_at_both_ends_and_has_a_backup_of_its_own() {
    let broker = TestBroker::in_memory().await;
    let user = User::of_broker(&broker);
    broker.provision("source", json!({})).await;
    assert_eq!(
        deployment(&broker, "source").await["restored_from"],
        Value::Null
    );
    let key = broker.bind("source", "b").await;
    // The second takes the place of the first, which is removed.
    broker.back_up(&key).await;
    let backup = broker.back_up(&key).await;
    let parameters = json!({ "source_service_instance_id": "source", "backup_id": backup["id"] });
    broker.provision("theirs", parameters).await;
    let mine = restore_here(&broker, &key, &backup, "mine").await;
    let mine = text(&mine["instance_id"]);

    // What follows each backup pushes nothing else out.
    let tasks = user.asks(&["tasks", "source"]);
    assert!(tasks.await.to_string().contains("Remove expired backups"));
    let visitor = Visitor::with_token(&broker, &key).await;
    eventually("the tasks without it", || async {
        let page = page(&visitor, "source").await;
        let (_, tasks) = page.split_once("id=\"tasks\"")?;
        (tasks.contains("Backup") && !tasks.contains("Remove expired")).then_some(())
    })
    .await;

    // What was asked for by a platform is told by its name alone: the token does not reach it.
    let of_source = page(&visitor, "source").await;
    let restored = of_source.split_once("id=\"restored\"").expect("a list").1;
    assert!(restored.contains("theirs"), "{restored}");
    assert!(restored.contains("asked for by the platform"), "{restored}");
    assert!(
        restored.contains("asked for by the Compose API"),
        "{restored}"
    );
    assert!(
        !restored.contains("/dashboard/instances/theirs"),
        "{restored}"
    );
    assert!(restored.contains(&format!("/dashboard/instances/{mine}")));
    let operator = Visitor::operator(&broker).await;
    let of_source = page(&operator, "source").await;
    assert!(of_source.contains("/dashboard/instances/theirs"));

    let expected = json!({
        "instance_id": "source",
        "instance_name": null,
        "instance_exists": true,
        "deployment_id": key["deployment_id"],
        "backup_id": backup["id"],
        "backup_requested_at": backup["requested_at"],
    });
    for target in ["theirs", mine] {
        let told = deployment(&broker, target).await;
        assert_eq!(told["restored_from"], expected, "{target}");
        let of_target = page(&operator, target).await;
        let from = of_target
            .split_once("id=\"restored-from\"")
            .expect("a source");
        assert!(
            from.1.contains("<a href=\"/dashboard/instances/source\">"),
            "{}",
            from.1
        );
        // The first backup is the schedule's: it takes no place of those on demand.
        let first = eventually("a first backup", || async {
            complete(&user, target).await.pop()
        })
        .await;
        assert_eq!(first["type"], "monthly", "{first}");
        let task = user.asks(&["tasks", target]).await;
        let tasks = task["_embedded"]["recipes"].as_array().expect("tasks");
        let taken = tasks.iter().find(|task| task["backup_id"] == first["id"]);
        assert_eq!(taken.expect("a task")["source"], "schedule");
    }
    user.does(&["service", "copy", "--id", "theirs"]).await;
    let told = user.does(&["service", "copy"]).await.out;
    let from = format!("source: backup {} of ", text(&backup["id"]));
    assert!(told.contains(&from), "{told}");

    // It is known beyond the source.
    assert_eq!(broker.unbind("source", "b").await.status, StatusCode::OK);
    broker.deprovision("source").await;
    for target in ["theirs", mine] {
        let told = deployment(&broker, target).await;
        assert_eq!(told["restored_from"]["instance_exists"], false, "{told}");
        assert_eq!(told["restored_from"]["backup_id"], backup["id"]);
        let of_target = page(&operator, target).await;
        assert!(of_target.contains("was deleted since"), "{of_target}");
        assert!(!of_target.contains("/dashboard/instances/source"));
    }
    let told = user.does(&["service", "copy"]).await.out;
    assert!(told.contains("source, which was deleted since: "), "{told}");
}

/// Asks for an instance as its platform does, with these parameters.
async fn put(broker: &TestBroker, id: &str, parameters: Option<Value>, space: &str) -> Answer {
    let mut body = json!({
        "service_id": SERVICE, "plan_id": STANDARD,
        "organization_guid": "org", "space_guid": space,
        "context": {
            "platform": "cloudfoundry", "organization_guid": "org", "space_guid": space,
            "instance_name": "adopted",
        },
    });
    if let Some(parameters) = parameters {
        body["parameters"] = parameters;
    }
    let path = format!("{}?accepts_incomplete=true", instance_path(id));
    answer(broker.osb(Method::PUT, &path).json(&body)).await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_platform_adopts_what_its_users_restored() {
    let broker = TestBroker::in_memory().await;
    put(&broker, "source", None, "space").await;
    let poll = format!("{}/last_operation", instance_path("source"));
    assert_eq!(broker.end_of(&poll).await["state"], "succeeded");
    let key = broker.bind("source", "b").await;
    let backup = broker.back_up(&key).await;
    let mine = restore_here(&broker, &key, &backup, "mine").await;
    let id = text(&mine["instance_id"]);
    let visitor = Visitor::with_token(&broker, &key).await;
    let of_mine = page(&visitor, id).await;
    assert!(of_mine.contains("id=\"adopt\""), "{of_mine}");

    // Neither another owner nor another wish.
    for (parameters, space) in [(None, "elsewhere"), (Some(json!({ "units": 2 })), "space")] {
        let refused = put(&broker, id, parameters, space).await;
        assert_eq!(refused.status, StatusCode::CONFLICT, "{refused:?}");
    }
    for _ in 0..2 {
        let adopted = put(&broker, id, None, "space").await;
        assert_eq!(adopted.status, StatusCode::OK, "{adopted:?}");
    }
    let told = deployment(&broker, id).await;
    assert_eq!(told["instance_name"], "adopted");
    assert_eq!(told["restored_from"]["instance_id"], "source");
    // Its platform's from now on: the source's token does not open it any more.
    let path = format!("/dashboard/instances/{id}");
    assert_eq!(visitor.get(&path).await.status, StatusCode::NOT_FOUND);
    let mut across = key.clone();
    across["instance_administration_api"]["instance_id"] = json!(id);
    let refused = answer(broker.compose(Method::GET, &across, "/")).await;
    assert_eq!(refused.status, StatusCode::NOT_FOUND, "{refused:?}");
    broker.bind(id, "b").await;
    let audit = answer(broker.osb(Method::GET, &format!("/operator/audit?instance={id}"))).await;
    let entries = audit.body["entries"].as_array().expect("entries");
    let adoptions = entries.iter().filter(|entry| entry["action"] == "adoption");
    assert_eq!(adoptions.count(), 1, "{entries:?}");
}
