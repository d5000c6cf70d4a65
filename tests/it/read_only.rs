//! Who reads what the operator reads: sees all of it, changes nothing, and has no user's data.

use reqwest::{Method, RequestBuilder, StatusCode};
use serde_json::{Value, json};

use crate::{
    broker::{READER, TestBroker, answer, instance_path, text},
    pages::{Visitor, between},
    process::BrokerProcess,
};

const ROUTES: &str = include_str!("../../src/http/mod.rs");

fn by_reader(request: RequestBuilder) -> RequestBuilder {
    let (username, password) = READER;
    request.basic_auth(username, Some(password))
}

async fn reader<'a>(broker: &'a TestBroker, (username, password): (&str, &str)) -> Visitor<'a> {
    let mut visitor = Visitor::of(broker);
    let fields = [
        ("way", "operator"),
        ("username", username),
        ("password", password),
    ];
    let page = visitor.sign_in(&fields).await;
    assert_eq!(page.status, StatusCode::SEE_OTHER, "{page:?}");
    visitor
}

/// What the operator's API has: method and path, with something in the place of each parameter.
async fn operations(broker: &TestBroker) -> Vec<(Method, String)> {
    let document = answer(broker.anonymous(Method::GET, "/openapi/operator.json")).await;
    let paths = document.body["paths"].as_object().expect("paths").clone();
    let mut found = Vec::new();
    for (path, methods) in paths {
        if !path.starts_with("/operator") {
            continue;
        }
        let filled = path.replace("{instance}", "i").replace("{operation}", "x");
        for method in methods.as_object().expect("methods").keys() {
            let method = method.to_uppercase().parse().expect("a method");
            found.push((method, filled.clone()));
        }
    }
    assert!(found.len() > 15, "{found:?}");
    found
}

#[tokio::test(flavor = "multi_thread")]
async fn each_route_of_the_operator_reads_for_a_reader_and_changes_nothing() {
    let broker = TestBroker::in_memory().await;
    broker.provision("i", json!({})).await;
    let audit = || async {
        let read = by_reader(broker.anonymous(Method::GET, "/operator/audit"));
        answer(read).await.body["entries"].clone()
    };
    let before = audit().await;
    assert!(!before.as_array().expect("entries").is_empty());
    let mut changing = 0;
    for (method, path) in operations(&broker).await {
        let request = by_reader(broker.anonymous(method.clone(), &path));
        if method == Method::GET {
            let status = answer(request).await.status;
            let refused = [StatusCode::UNAUTHORIZED, StatusCode::FORBIDDEN];
            assert!(!refused.contains(&status), "{path}: {status}");
            continue;
        }
        changing += 1;
        let body = json!({ "member": "m0", "from": "survivor", "yes": true, "choice": "remove",
            "cluster_id": "local", "deployment_id": "6b095f9057f64fc2a19445a2" });
        let refused = answer(request.json(&body)).await;
        assert_eq!(refused.status, StatusCode::FORBIDDEN, "{method} {path}");
        assert!(text(&refused.body["description"]).contains("change nothing"));
    }
    assert!(changing >= 9, "{changing}");
    assert_eq!(audit().await, before);
}

/// What a reader reads below an instance.
const FOR_READERS: [&str; 13] = [
    "",
    "/deployments",
    "/deployments/{deployment}",
    "/deployments/{deployment}/alerts",
    "/deployments/{deployment}/backup_schedule",
    "/deployments/{deployment}/backups",
    "/deployments/{deployment}/defragmentations",
    "/deployments/{deployment}/history",
    "/deployments/{deployment}/members",
    "/deployments/{deployment}/recipes",
    "/deployments/{deployment}/scalings",
    "/deployments/{deployment}/versions",
    "/recipes/{recipe}",
];

#[tokio::test(flavor = "multi_thread")]
async fn a_reader_reads_of_an_instance_what_the_pages_show_and_nothing_of_platforms() {
    const ROOT: &str = "/api/2016-07/instances/{instance}";
    let broker = TestBroker::in_memory().await;
    broker.provision("i", json!({})).await;
    let credentials = broker.bind("i", "b").await;
    let backup = broker.back_up(&credentials).await;
    let root = answer(by_reader(
        broker.anonymous(Method::GET, "/api/2016-07/instances/i"),
    ));
    let deployment = text(&root.await.body["resource_id"]).to_owned();
    let recipe = text(&backup["recipe_id"]).to_owned();
    let document = answer(broker.anonymous(Method::GET, "/openapi/compose.json")).await;
    let mut read = Vec::new();
    for (path, methods) in document.body["paths"].as_object().expect("paths") {
        // A link carries its own permission.
        if path.ends_with("/download") {
            continue;
        }
        let filled = path.replace("{instance}", "i");
        let filled = filled.replace("{deployment}", &deployment);
        let filled = filled.replace("{backup}", text(&backup["id"]));
        let filled = filled.replace("{recipe}", &recipe);
        for (method, told) in methods.as_object().expect("methods") {
            let method: Method = method.to_uppercase().parse().expect("a method");
            let asked = by_reader(broker.anonymous(method.clone(), &filled));
            let answered = answer(asked.json(&json!({}))).await;
            let said = answered.body.to_string();
            let below = path.strip_prefix(ROOT).expect("a path below an instance");
            if method == Method::GET && FOR_READERS.contains(&below) {
                assert_eq!(answered.status, StatusCode::OK, "{path}: {said}");
                assert!(!said.contains("download_link"), "{path}: {said}");
                read.push(below.to_owned());
            } else {
                assert_eq!(answered.status, StatusCode::FORBIDDEN, "{method} {path}");
                assert!(said.contains("the list of backups"), "{said}");
            }
            assert!(told["responses"]["403"].is_object(), "{method} {path}");
        }
    }
    assert_eq!(read.len(), FOR_READERS.len(), "{read:?}");
    for (method, path) in [
        (Method::GET, "/v2/catalog".to_owned()),
        (Method::GET, instance_path("i")),
        (Method::DELETE, instance_path("i")),
    ] {
        let request = broker
            .anonymous(method, &path)
            .header("X-Broker-API-Version", "2.17");
        let refused = answer(by_reader(request)).await;
        assert_eq!(refused.status, StatusCode::FORBIDDEN, "{path}");
        let said = text(&refused.body["description"]);
        assert!(said.contains("all below /operator"), "{said}");
    }
    // What is not there is not there for them, too.
    let nobody = broker.anonymous(Method::GET, "/api/2016-07/instances/nobody");
    let missing = answer(by_reader(nobody)).await;
    assert_eq!(missing.status, StatusCode::NOT_FOUND, "{missing:?}");
}

/// The paths below the dashboard whose forms change something, the door's own apart. Each function has
/// the routes of one scope.
fn forms() -> Vec<String> {
    let (_, routes) = ROUTES.split_once("fn dashboard_routes").expect("routes");
    let (routes, _) = routes.split_once("\nfn only(").expect("an end");
    let mut scope = String::new();
    let mut found = Vec::new();
    for piece in routes.split("web::scope(\"").skip(1) {
        let (name, rest) = piece.split_once('"').expect("a scope");
        if name == "/dashboard" {
            continue;
        }
        scope = format!("/dashboard{name}");
        for page in rest.split("page(").skip(1) {
            let path = page.split('"').nth(1).expect("a path");
            if page.contains("web::post()") {
                let path = path.replace("{instance}", "i").replace("{operation}", "x");
                let path = path.replace("{backup}", "b").replace("{binding}", "b");
                found.push(format!("{scope}{path}"));
            }
        }
    }
    assert!(!scope.is_empty() && found.len() >= 15, "{found:?}");
    found
}

#[tokio::test(flavor = "multi_thread")]
async fn each_page_shows_itself_to_a_reader_and_takes_no_form() {
    let broker = TestBroker::in_memory().await;
    broker.provision("i", json!({})).await;
    let credentials = broker.bind("i", "b").await;
    broker.back_up(&credentials).await;
    let visitor = reader(&broker, READER).await;
    let user = Visitor::with_token(&broker, &credentials).await;
    let mut of_users = 0;
    for path in [
        "",
        "/i",
        "/i/backups",
        "/i/credentials",
        "/i/versions?version=3.7.3",
        "/i/settings",
        "/i/settings?units=2",
        "/i/room",
        "/i/room?prefix=k",
        "/i/activity",
    ] {
        let path = format!("/dashboard/instances{path}");
        let page = visitor.get(&path).await;
        assert_eq!(page.status, StatusCode::OK, "{path}");
        assert!(page.body.contains("Read only"), "{path}");
        if path.ends_with("/settings") {
            let schedule = between(&page.body, "<dl id=\"schedule-now\">", "</dl>");
            let times = ["<dt>Time of day</dt><dd>", ":", " UTC</dd>"];
            let at = times.map(|part| schedule.find(part));
            assert!(at.is_sorted() && at[0].is_some(), "{schedule}");
        }
        // No form but the one that leads out, and those that search.
        let forms = |body: &str| body.matches("<form method=\"post\"").count();
        assert_eq!(forms(&page.body), 1, "{path}: {}", page.body);
        let of_user = user.get(&path).await;
        if of_user.status == StatusCode::OK {
            of_users += forms(&of_user.body) - 1;
        }
    }
    assert!(of_users >= 8, "{of_users} forms that are hidden");
    let csrf = visitor.csrf("/dashboard/instances/i").await;
    let fields = [
        ("csrf", csrf.as_str()),
        ("version", "3.5.30"),
        ("confirm", "i"),
    ];
    for path in forms() {
        let refused = visitor.post(&path, &fields).await;
        assert_eq!(refused.status, StatusCode::FORBIDDEN, "{path}");
        assert!(refused.body.contains("change nothing"), "{path}");
    }
    // A backup is all that a user has; what a restore of it would do changes nothing.
    let backups = visitor.get("/dashboard/instances/i/backups").await.body;
    let (_, row) = backups.split_once("id=\"backup-").expect("a backup");
    let (backup, _) = row.split_once('"').expect("an end");
    let path = format!("/dashboard/instances/i/backups/{backup}/restore");
    let told = visitor.get(&path).await;
    assert_eq!(told.status, StatusCode::OK, "{told:?}");
    assert!(told.body.contains("Nothing is in the way.") && !told.body.contains("id=\"restore\""));
    assert!(user.get(&path).await.body.contains("id=\"restore\""));
    let path = format!("/dashboard/instances/i/backups/{backup}/download");
    let refused = visitor.get(&path).await;
    assert_eq!(refused.status, StatusCode::FORBIDDEN, "{refused:?}");
    // Out is a way that everybody has.
    let out = visitor.post("/dashboard/sign-out", &fields[..1]).await;
    assert_eq!(out.status, StatusCode::SEE_OTHER, "{out:?}");
    assert!(!visitor.is_in("/dashboard/instances").await);
}

#[tokio::test(flavor = "multi_thread")]
async fn readers_are_a_setting_and_their_sessions_end_with_it() {
    let mut broker = BrokerProcess::stopped_with(|settings| {
        let readers = "watch:first,other:second".to_owned();
        settings.insert("READ_ONLY_CREDENTIALS", readers);
    });
    broker.start_again().await;
    for (username, password) in [("watch", "first"), ("other", "second")] {
        let read = broker.anonymous(Method::GET, "/operator/volumes");
        let read = answer(read.basic_auth(username, Some(password))).await;
        assert_eq!(read.status, StatusCode::OK, "{username}");
    }
    let wrong = broker.anonymous(Method::GET, "/operator/volumes");
    let wrong = answer(wrong.basic_auth("watch", Some("second"))).await;
    assert_eq!(wrong.status, StatusCode::UNAUTHORIZED);
    let cookie = {
        let visitor = reader(&broker, ("watch", "first")).await;
        assert!(visitor.is_in("/dashboard/instances").await);
        visitor.cookie.clone()
    };
    let audit: Value = answer(broker.osb(Method::GET, "/operator/audit"))
        .await
        .body;
    let signed_in = &audit["entries"][0];
    assert_eq!(signed_in["action"], "sign_in", "{audit}");
    assert_eq!(signed_in["user"], "read-only operator", "{audit}");
    assert!(!broker.logged().contains("first"));
    broker.kill();
    broker.change_settings(|settings| {
        settings.remove("READ_ONLY_CREDENTIALS");
    });
    broker.start_again().await;
    let mut visitor = Visitor::of(&broker);
    visitor.cookie = cookie;
    assert!(!visitor.is_in("/dashboard/instances").await);
}
