//! Restores that a user of the source asks the broker itself for: the new instance's name, who may
//! reach it, and that it is an instance like any other.

use compose_broker::model::operation::OperationKind;
use reqwest::{Method, StatusCode};
use serde_json::{Value, json};

use crate::{
    broker::{Answer, SERVICE, STANDARD, TestBroker, answer, instance_path, text},
    control::{Script, TestClock},
    etcd,
    transport::description,
};

/// The same token, for another instance.
fn for_instance(credentials: &Value, instance: &str) -> Value {
    let mut other = credentials.clone();
    other["instance_administration_api"]["instance_id"] = json!(instance);
    other
}

fn restore_path(credentials: &Value, backup: &Value) -> String {
    let deployment = text(&credentials["deployment_id"]);
    format!(
        "/deployments/{deployment}/backups/{}/restore",
        text(&backup["id"])
    )
}

/// Asks for a restore as clients of the Compose API do.
async fn restore(
    broker: &TestBroker,
    credentials: &Value,
    backup: &Value,
    wanted: Value,
) -> Answer {
    let path = restore_path(credentials, backup);
    let request = broker.compose(Method::POST, credentials, &path);
    answer(request.json(&json!({ "deployment": wanted }))).await
}

/// The body of a restore that was accepted.
async fn restored(
    broker: &TestBroker,
    credentials: &Value,
    backup: &Value,
    wanted: Value,
) -> Value {
    let answer = restore(broker, credentials, backup, wanted).await;
    assert_eq!(answer.status, StatusCode::ACCEPTED, "{answer:?}");
    answer.body
}

/// Waits until a restore is done.
async fn done(broker: &TestBroker, credentials: &Value, made: &Value) {
    let recipe = json!({ "id": made["provision_recipe_id"] });
    let end = broker.recipe_end(credentials, &recipe).await;
    assert_eq!(end["status"], "complete", "{end}");
}

/// The reason of a refusal of the Compose API.
fn reason(answer: &Answer, status: StatusCode) -> &str {
    assert_eq!(answer.status, status, "{answer:?}");
    text(&answer.body["errors"]["base"][0])
}

/// A source with 20 keys, its credentials and a backup of it.
async fn source(broker: &TestBroker, parameters: Value) -> (Value, Value) {
    broker.provision("source", parameters).await;
    let credentials = broker.bind("source", "b").await;
    etcd::fill(&mut etcd::connect(&credentials).await, 20, "v").await;
    let backup = broker.back_up(&credentials).await;
    (credentials, backup)
}

async fn status(broker: &TestBroker, credentials: &Value, path: &str) -> StatusCode {
    answer(broker.compose(Method::GET, credentials, path))
        .await
        .status
}

#[tokio::test(flavor = "multi_thread")]
async fn a_user_restores_without_the_platform_and_the_platform_finds_what_was_made() {
    let broker = TestBroker::start().await;
    let (mine, backup) = source(&broker, json!({ "db_version": "3.4.23" })).await;
    // What is empty or unknown is what clients send for "as you like".
    let wanted = json!({
        "name": "copy", "version": "3.6.16", "cluster_id": "", "units": 0,
        "datacenter": "aws:eu-central-1", "ssl": true, "cache_mode": null,
    });
    let made = restored(&broker, &mine, &backup, wanted).await;
    assert_eq!(made["version"], "3.6.16");
    assert_eq!(made["instance_name"], "copy");
    let id = text(&made["instance_id"]);
    assert!(id.parse::<uuid::Uuid>().is_ok(), "{id}");
    // Clients look for it by the name that they asked for.
    assert_eq!(made["name"], "copy");
    let copy = for_instance(&mine, id);
    let recipe = format!("/recipes/{}", text(&made["provision_recipe_id"]));
    let here = answer(broker.compose(Method::GET, &mine, &recipe)).await;
    assert_eq!(here.body["name"], "Restore", "{here:?}");
    assert_eq!(here.body["deployment_id"], made["id"]);
    assert_eq!(here.body["source"], "compose");
    assert_eq!(status(&broker, &copy, &recipe).await, StatusCode::OK);
    done(&broker, &mine, &made).await;

    let itself = answer(broker.compose(Method::GET, &copy, "/")).await;
    assert_eq!(itself.body["resource_id"], made["id"], "{itself:?}");
    let fetched = answer(broker.osb(Method::GET, &instance_path(id))).await;
    assert_eq!(
        fetched.body,
        json!({
            "service_id": SERVICE, "plan_id": STANDARD,
            "dashboard_url": format!("{}/dashboard/instances/{id}", broker.url),
            "maintenance_info": { "version": "3.6.16" },
        "metadata": {
            "labels": { "engine": "etcd", "version": "3.6.16", "units": "1" }, "attributes": {},
        },
            "parameters": {
                "source_service_instance_id": "source", "backup_id": backup["id"],
                "db_version": "3.6.16",
            },
        })
    );
    let polled = format!("{}/last_operation", instance_path(id));
    let polled = answer(broker.osb(Method::GET, &polled)).await;
    assert_eq!(polled.body["state"], "succeeded", "{polled:?}");
    let theirs = broker.bind(id, "b").await;
    assert_eq!(
        etcd::dump(&mut etcd::connect(&theirs).await).await.len(),
        20
    );
    assert_eq!(theirs["deployment_id"], made["id"]);
    assert_eq!(theirs["name"], "copy");
    // The way leads from the source to what came of it, and not back.
    let back = for_instance(&theirs, "source");
    assert_eq!(status(&broker, &back, "/").await, StatusCode::NOT_FOUND);
    let elsewhere = answer(broker.compose(Method::GET, &back, &recipe)).await;
    assert_eq!(elsewhere.status, StatusCode::NOT_FOUND);

    // What was restored is backed up and restored with the same token.
    let mut of_copy = copy.clone();
    of_copy["deployment_id"] = made["id"].clone();
    let second = broker.back_up(&of_copy).await;
    let grandchild = restored(&broker, &of_copy, &second, json!({})).await;
    done(&broker, &mine, &grandchild).await;
    let reached = for_instance(&mine, text(&grandchild["instance_id"]));
    assert_eq!(status(&broker, &reached, "/").await, StatusCode::OK);
    let by_parent = for_instance(&theirs, text(&grandchild["instance_id"]));
    assert_eq!(status(&broker, &by_parent, "/").await, StatusCode::OK);

    // A chain ends where one of it is gone.
    assert_eq!(broker.unbind(id, "b").await.status, StatusCode::OK);
    broker.deprovision(id).await;
    assert_eq!(status(&broker, &copy, "/").await, StatusCode::NOT_FOUND);
    assert_eq!(status(&broker, &mine, &recipe).await, StatusCode::NOT_FOUND);
    assert_eq!(status(&broker, &reached, "/").await, StatusCode::NOT_FOUND);
    broker.bind(text(&grandchild["instance_id"]), "b").await;
    broker.deprovision(text(&grandchild["instance_id"])).await;
    let files = broker.files();
    let left = |id: &Value| files.iter().any(|file| file.contains(text(id)));
    assert!(!left(&made["id"]) && !left(&grandchild["id"]), "{files:?}");
    assert_eq!(broker.members().len(), 3);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_answer_to_a_restore_is_the_new_deployment() {
    let script = Script::default();
    let broker = TestBroker::start_with(&[], script.surroundings()).await;
    let (mine, backup) = source(&broker, json!({ "units": 2 })).await;
    let _held = script.hold(OperationKind::Restore, "allocate");
    let mut made = restored(&broker, &mine, &backup, json!({ "name": "copy" })).await;
    let id = text(&made["id"]).to_owned();
    let instance = text(&made["instance_id"]).to_owned();
    let tame = |text: &str| {
        text.replace(&broker.url, "URL")
            .replace(&id, "DEPLOYMENT")
            .replace(&instance, "INSTANCE")
    };
    for field in ["created_at", "provision_recipe_id"] {
        assert!(made[field].is_string(), "{made}");
        made[field] = json!("...");
    }
    for field in ["since", "message"] {
        assert!(made["health"][field].is_string(), "{made}");
        made["health"][field] = json!("...");
    }
    let from = made["restored_from"].take();
    assert_eq!(from["backup_id"], backup["id"], "{from}");
    assert_eq!(from["instance_id"], "source", "{from}");
    made["restored_from"] = json!("...");
    let made: Value = serde_json::from_str(&tame(&made.to_string())).expect("JSON");
    insta::assert_json_snapshot!(made);
}

#[tokio::test(flavor = "multi_thread")]
async fn nobody_else_reaches_what_was_restored() {
    let script = Script::default();
    let broker = TestBroker::start_with(&[], script.surroundings()).await;
    let (mine, backup) = source(&broker, json!({})).await;
    broker.provision("other", json!({})).await;
    let other = broker.bind("other", "b").await;
    let held = script.hold(OperationKind::Restore, "fetch");
    let made = restored(&broker, &mine, &backup, json!({ "name": "copy" })).await;
    let id = text(&made["instance_id"]);
    let foreign = |path: String, instance: &str| {
        let credentials = for_instance(&other, instance);
        let broker = &broker;
        async move { answer(broker.compose(Method::GET, &credentials, &path)).await }
    };
    for path in [
        "/".to_owned(),
        format!("/deployments/{}", text(&made["id"])),
        format!("/deployments/{}/backups", text(&made["id"])),
        format!("/recipes/{}", text(&made["provision_recipe_id"])),
    ] {
        let (known, unknown) = (
            foreign(path.clone(), id).await,
            foreign(path, "nobody").await,
        );
        assert_eq!(known.status, StatusCode::NOT_FOUND);
        assert_eq!((known.status, known.body), (unknown.status, unknown.body));
    }
    // A stranger's backup cannot even be named.
    let mut crossed = other.clone();
    for path in [
        restore_path(&mine, &backup),
        restore_path(&other, &backup),
        restore_path(&other, &json!({ "id": "x" })),
    ] {
        let refused = answer(broker.compose(Method::POST, &crossed, &path)).await;
        assert_eq!(refused.status, StatusCode::NOT_FOUND, "{refused:?}");
    }
    crossed["instance_administration_api"]["token"] = json!("x");
    let refused = answer(broker.compose(Method::POST, &crossed, &restore_path(&mine, &backup)));
    assert_eq!(refused.await.status, StatusCode::UNAUTHORIZED);
    // What the platform asks for is another one.
    let parameters = json!({ "units": 2 });
    let put = broker.put_instance(id, parameters.clone()).await;
    assert_eq!(put.status, StatusCode::CONFLICT, "{put:?}");

    // The source goes in the middle; with it go its tokens, and nothing else.
    let deleting = broker.delete_instance("source").await;
    let refused = for_instance(&mine, id);
    assert_eq!(
        status(&broker, &refused, "/").await,
        StatusCode::UNAUTHORIZED
    );
    drop(held);
    let poll = format!("{}/last_operation", instance_path(id));
    assert_eq!(broker.end_of(&poll).await["state"], "succeeded");
    let end = broker.instance_end("source", &deleting.body).await;
    assert_eq!(end["state"], "succeeded");
    let theirs = broker.bind(id, "b").await;
    assert_eq!(
        etcd::dump(&mut etcd::connect(&theirs).await).await.len(),
        20
    );
    assert_eq!(status(&broker, &theirs, "/").await, StatusCode::OK);
    // Somebody else gets the old id: that is not the source any more.
    broker.provision("source", json!({})).await;
    let namesake = broker.bind("source", "b").await;
    assert_eq!(status(&broker, &namesake, "/").await, StatusCode::OK);
    let namesake = for_instance(&namesake, id);
    assert_eq!(status(&broker, &namesake, "/").await, StatusCode::NOT_FOUND);
    let put = broker.put_instance(id, parameters).await;
    assert_eq!(put.status, StatusCode::CONFLICT, "{put:?}");
    assert_eq!(broker.unbind(id, "b").await.status, StatusCode::OK);
    broker.deprovision(id).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn names_are_given_and_taken_once() {
    let script = Script::default();
    let clock = TestClock::default();
    let broker = TestBroker::start_with(&[], script.surroundings_at(&clock)).await;
    let (mine, backup) = source(&broker, json!({ "db_version": "3.4.23" })).await;
    let held = script.hold(OperationKind::Restore, "allocate");
    // A platform's own name counts, also one that looks like ours.
    let body = json!({
        "service_id": SERVICE, "plan_id": STANDARD, "organization_guid": "org",
        "space_guid": "space", "context": { "instance_name": "prod" },
    });
    let path = format!("{}?accepts_incomplete=true", instance_path("named"));
    let accepted = answer(broker.osb(Method::PUT, &path).json(&body)).await;
    assert_eq!(accepted.status, StatusCode::ACCEPTED, "{accepted:?}");
    let refused = restore(&broker, &mine, &backup, json!({ "name": "prod" })).await;
    let said = reason(&refused, StatusCode::CONFLICT);
    assert!(
        said.contains("\"prod\"") && said.contains("choose another"),
        "{said}"
    );
    for bad in ["-x", "a b", "a/b", "<b>", &"x".repeat(51)] {
        let refused = restore(&broker, &mine, &backup, json!({ "name": bad })).await;
        let said = reason(&refused, StatusCode::BAD_REQUEST);
        assert!(said.contains("is no name for an instance"), "{said}");
    }

    clock.stop();
    let mut names = Vec::new();
    for version in ["", "3.4.23", "3.5.16", "3.6.16"] {
        let made = restored(&broker, &mine, &backup, json!({ "version": version })).await;
        names.push(text(&made["instance_name"]).to_owned());
    }
    let first = names[0].clone();
    let listed = answer(broker.compose(Method::GET, &mine, "/deployments")).await;
    let listed = listed.body["_embedded"]["deployments"].clone();
    let listed = listed.as_array().expect("deployments").clone();
    assert!(listed.iter().any(|of| of["name"] == first), "{listed:?}");
    let time = first.strip_prefix("etcd-restore-").expect("a made name");
    assert!(
        chrono::NaiveDateTime::parse_from_str(time, "%Y-%m-%d-%H-%M-%S").is_ok(),
        "{first}"
    );
    let numbered: Vec<String> = (2..=4).map(|n| format!("{first}-{n}")).collect();
    assert_eq!(names[1..], numbered);
    clock.go_on();
    // What waits for nobody lets go of its name when it is deleted.
    let made = restored(&broker, &mine, &backup, json!({ "name": "again" })).await;
    let other = json!({ "name": "again", "version": "3.6.16" });
    let refused = restore(&broker, &mine, &backup, other.clone()).await;
    reason(&refused, StatusCode::CONFLICT);
    let id = text(&made["instance_id"]);
    let deleting = broker.delete_instance(id).await;
    drop(held);
    broker.instance_end(id, &deleting.body).await;
    let later = restored(&broker, &mine, &backup, other).await;
    assert_ne!(later["instance_id"], made["instance_id"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_restore_that_is_asked_for_again_is_the_same() {
    let script = Script::default();
    let broker = TestBroker::start_with(&[], script.surroundings()).await;
    let (mine, backup) = source(&broker, json!({})).await;
    let held = script.hold(OperationKind::Restore, "allocate");
    for wanted in [json!({ "name": "copy" }), json!({ "units": 2 })] {
        let requests = (0..6).map(|_| restored(&broker, &mine, &backup, wanted.clone()));
        let all = futures::future::join_all(requests).await;
        for made in &all {
            assert_eq!(made["instance_id"], all[0]["instance_id"]);
            assert_eq!(made["provision_recipe_id"], all[0]["provision_recipe_id"]);
        }
    }
    let named = restored(&broker, &mine, &backup, json!({ "name": "copy" })).await;
    // Without a name, whatever is being made and is all that is asked for.
    let unnamed = answer(broker.compose(Method::POST, &mine, &restore_path(&mine, &backup))).await;
    assert_eq!(unnamed.body["instance_id"], named["instance_id"]);
    drop(held);
    done(&broker, &mine, &named).await;
    let again = restored(&broker, &mine, &backup, json!({ "name": "copy" })).await;
    assert_eq!(again["instance_id"], named["instance_id"]);
    let another = restored(&broker, &mine, &backup, json!({})).await;
    assert_ne!(another["instance_id"], named["instance_id"]);
    done(&broker, &mine, &another).await;

    // What failed keeps its name until it is deprovisioned.
    let failing = script.fail(OperationKind::Restore, "fetch");
    let failed = restored(&broker, &mine, &backup, json!({ "name": "unlucky" })).await;
    let recipe = json!({ "id": failed["provision_recipe_id"] });
    let end = broker.recipe_end(&mine, &recipe).await;
    assert_eq!(end["status"], "failed", "{end}");
    drop(failing);
    let refused = restore(&broker, &mine, &backup, json!({ "name": "unlucky" })).await;
    reason(&refused, StatusCode::CONFLICT);
    broker.deprovision(text(&failed["instance_id"])).await;
    let lucky = restored(&broker, &mine, &backup, json!({ "name": "unlucky" })).await;
    done(&broker, &mine, &lucky).await;
}

/// Both ways are one: whatever a platform is refused, a user is refused with the same words.
#[tokio::test(flavor = "multi_thread")]
async fn refusals_are_those_of_a_platform_s_request() {
    let script = Script::default();
    let broker = TestBroker::start_with(&[], script.surroundings()).await;
    let (mine, good) = source(&broker, json!({ "db_version": "3.5.16" })).await;
    let failing = script.fail(OperationKind::Backup, "read_back");
    let failed = broker.back_up(&mine).await;
    drop(failing);
    let _held = script.hold(OperationKind::Backup, "snapshot");
    let path = format!("/deployments/{}/backups", text(&mine["deployment_id"]));
    let running = answer(broker.compose(Method::POST, &mine, &path))
        .await
        .body;
    let running = json!({ "id": running["backup_id"] });
    let cases = [
        (&failed, json!({}), json!({})),
        (&running, json!({}), json!({})),
        (
            &good,
            json!({ "version": "3.4.23" }),
            json!({ "db_version": "3.4.23" }),
        ),
        (
            &good,
            json!({ "version": "3.5" }),
            json!({ "db_version": "3.5" }),
        ),
        (
            &good,
            json!({ "cluster_id": "local" }),
            json!({ "cluster_id": "local" }),
        ),
        (&good, json!({ "units": 33 }), json!({ "units": 33 })),
        (
            &good,
            json!({ "version": "9".repeat(40) }),
            json!({ "db_version": "9".repeat(40) }),
        ),
    ];
    let members = broker.members();
    for (backup, wanted, mut parameters) in cases {
        let here = restore(&broker, &mine, backup, wanted).await;
        parameters["source_service_instance_id"] = json!("source");
        parameters["backup_id"] = backup["id"].clone();
        let there = broker.put_instance("refused", parameters).await;
        assert_eq!(
            reason(&here, StatusCode::BAD_REQUEST),
            description(&there, StatusCode::BAD_REQUEST)
        );
    }
    for wanted in [json!({ "units": "two" }), json!({ "name": 7 }), json!([])] {
        let refused = restore(&broker, &mine, &good, wanted).await;
        reason(&refused, StatusCode::BAD_REQUEST);
    }
    assert_eq!(broker.members(), members);
}
