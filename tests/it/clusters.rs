//! Two clusters of one machine, each with its own folder, ports, engine versions and capacity.

use std::{
    fs,
    os::unix::fs::symlink,
    path::{Path, PathBuf},
};

use compose_broker::{app::Surroundings, model::operation::OperationKind};
use reqwest::{Method, StatusCode};
use serde_json::{Value, json};

use crate::{
    broker::{
        Answer, CAPACITY_UNITS, ENTERPRISE, SERVICE, STANDARD, TestBroker, answer, binding_path,
        encoded, engines_dir, instance_path, new_folder, port_range, text,
    },
    control::{Script, surroundings},
    etcd,
    process::{BrokerProcess, refused},
    transport::description,
};

/// The clusters' own service instances, as the platform knows them.
const RED: &str = "11111111-2222-4333-8444-red";
pub const BLUE: &str = "11111111-2222-4333-8444-blue";

/// A folder of engines with some of the versions that are installed.
fn engines(folder: &Path, name: &str, versions: &[&str]) -> PathBuf {
    let engines = folder.join(name);
    fs::create_dir_all(engines.join("etcd")).expect("a folder");
    for version in versions {
        let installed = engines_dir().canonicalize().expect("engines");
        symlink(
            installed.join("etcd").join(version),
            engines.join("etcd").join(version),
        )
        .expect("a link");
    }
    engines
}

/// The description of the clusters "red", with 3.4.23 and 3.5.16, and "blue", with 3.5.30 alone and
/// a folder of its own.
pub fn described(folder: &Path) -> Value {
    json!([
        {
            "id": "red", "name": "Red", "service_instance_id": RED,
            "port_range": port_range(), "capacity_units": CAPACITY_UNITS,
            "engines_dir": engines(folder, "red-engines", &["3.4.23", "3.5.16"]),
        },
        {
            "id": "blue", "name": "Blue", "service_instance_id": BLUE,
            "port_range": port_range(), "capacity_units": CAPACITY_UNITS,
            "data_dir": folder.join("blue"),
            "engines_dir": engines(folder, "blue-engines", &["3.5.30"]),
        },
    ])
}

/// Puts the file of clusters into the folder.
fn write(folder: &Path, clusters: &Value) -> PathBuf {
    let file = folder.join("clusters.json");
    fs::write(&file, clusters.to_string()).expect("a file");
    file
}

/// A broker with these clusters.
pub async fn start(folder: &Path, clusters: &Value, surroundings: Surroundings) -> TestBroker {
    let file = write(folder, clusters);
    let flags = ["--clusters", file.to_str().expect("UTF-8")];
    TestBroker::start_in(folder.to_owned(), &flags, surroundings).await
}

async fn put(broker: &TestBroker, id: &str, plan: &str, parameters: Value) -> Answer {
    let body = json!({
        "service_id": SERVICE, "plan_id": plan,
        "organization_guid": "org", "space_guid": "space", "parameters": parameters,
    });
    let path = format!("{}?accepts_incomplete=true", instance_path(id));
    answer(broker.osb(Method::PUT, &path).json(&body)).await
}

/// An Enterprise instance that is usable.
pub async fn provision(broker: &TestBroker, id: &str, parameters: Value) {
    let accepted = put(broker, id, ENTERPRISE, parameters).await;
    assert_eq!(accepted.status, StatusCode::ACCEPTED, "{accepted:?}");
    let end = broker.instance_end(id, &accepted.body).await;
    assert_eq!(end["state"], "succeeded", "{end}");
}

pub async fn bind(broker: &TestBroker, instance: &str) -> Value {
    let body = json!({ "service_id": SERVICE, "plan_id": ENTERPRISE });
    let put = broker.osb(Method::PUT, &binding_path(instance, "b"));
    let bound = answer(put.json(&body)).await;
    assert_eq!(bound.status, StatusCode::CREATED, "{bound:?}");
    bound.body["credentials"].clone()
}

async fn deprovision(broker: &TestBroker, id: &str) {
    let path = format!(
        "{}?service_id={SERVICE}&plan_id={ENTERPRISE}&accepts_incomplete=true",
        instance_path(id)
    );
    let accepted = answer(broker.osb(Method::DELETE, &path)).await;
    assert_eq!(accepted.status, StatusCode::ACCEPTED, "{accepted:?}");
    let end = broker.instance_end(id, &accepted.body).await;
    assert_eq!(end["state"], "succeeded", "{end}");
}

/// The reason of a refused request for an Enterprise instance.
async fn refusal(broker: &TestBroker, parameters: Value) -> String {
    let refused = put(broker, "refused", ENTERPRISE, parameters).await;
    description(&refused, StatusCode::BAD_REQUEST).to_owned()
}

/// The deployment behind an instance, as it is shown.
async fn deployment(broker: &TestBroker, credentials: &Value) -> Value {
    let path = format!("/deployments/{}", text(&credentials["deployment_id"]));
    answer(broker.compose(Method::GET, credentials, &path))
        .await
        .body
}

fn ports_of(credentials: &Value) -> u16 {
    let uri = url::Url::parse(text(&credentials["uri"])).expect("a URL");
    uri.port().expect("a port")
}

fn within(range: &Value, port: u16) -> bool {
    let (first, last) = text(range).split_once('-').expect("a range");
    let number = |text: &str| text.parse::<u16>().expect("a port");
    (number(first)..=number(last)).contains(&port)
}

#[tokio::test(flavor = "multi_thread")]
async fn instances_and_restores_land_where_they_are_asked_to() {
    let folder = new_folder();
    let clusters = described(&folder);
    let broker = start(&folder, &clusters, surroundings()).await;
    // Versions are those of the cluster.
    let unavailable = json!({ "cluster_id": "blue", "db_version": "3.4.23" });
    let reason = refusal(&broker, unavailable).await;
    assert!(reason.ends_with("choose one of: 3.5.30"), "{reason}");
    let old = json!({ "cluster_id": "red", "db_version": "3.4.23" });
    provision(&broker, "old", old).await;
    provision(
        &broker,
        "new",
        json!({ "cluster_service_instance_id": BLUE }),
    )
    .await;
    let (old, new) = (bind(&broker, "old").await, bind(&broker, "new").await);
    assert_eq!(deployment(&broker, &old).await["cluster_id"], "red");
    let shown = deployment(&broker, &new).await;
    assert_eq!(shown["cluster_id"], "blue");
    assert_eq!(shown["version"], "3.5.30");
    let lies_in = |place: PathBuf, credentials: &Value| {
        let home = place.join(text(&credentials["deployment_id"]));
        home.join("members").is_dir()
    };
    assert!(lies_in(broker.data_dir().join("clusters/red"), &old));
    assert!(lies_in(folder.join("blue"), &new));
    assert!(within(&clusters[0]["port_range"], ports_of(&old)));
    assert!(within(&clusters[1]["port_range"], ports_of(&new)));
    let path = format!("/deployments/{}/versions", text(&old["deployment_id"]));
    let offered = answer(broker.compose(Method::GET, &old, &path)).await.body;
    let offered = offered["_embedded"]["transitions"].as_array().map(Vec::len);
    assert_eq!(
        offered,
        Some(2),
        "3.5.16 alone is on that cluster, in two ways"
    );

    // From one cluster to the other and back, by the platform's way and by the broker's own.
    etcd::fill(&mut etcd::connect(&old).await, 20, "v").await;
    let backup = broker.back_up(&old).await;
    let elsewhere = json!({
        "source_service_instance_id": "old", "backup_id": backup["id"],
        "cluster_id": "blue", "db_version": "3.5.30",
    });
    provision(&broker, "moved", elsewhere.clone()).await;
    let moved = bind(&broker, "moved").await;
    assert_eq!(etcd::dump(&mut etcd::connect(&moved).await).await.len(), 20);
    assert!(within(&clusters[1]["port_range"], ports_of(&moved)));
    let mut without_version = elsewhere;
    let removed = without_version.as_object_mut().expect("an object");
    removed.remove("db_version");
    let reason = refusal(&broker, without_version).await;
    assert!(
        reason.contains("3.4") && reason.ends_with("3.5.30"),
        "{reason}"
    );
    let backup = broker.back_up(&moved).await;
    let path = format!(
        "/deployments/{}/backups/{}/restore",
        text(&moved["deployment_id"]),
        text(&backup["id"])
    );
    let ask = |wanted: Value| {
        let request = broker.compose(Method::POST, &moved, &path);
        answer(request.json(&json!({ "deployment": wanted })))
    };
    // Red has nothing that is new enough to go back to.
    let back = ask(json!({ "cluster_id": "red" })).await;
    assert_eq!(back.status, StatusCode::BAD_REQUEST, "{back:?}");
    let stays = ask(json!({ "name": "stays" })).await;
    assert_eq!(stays.body["cluster_id"], "blue", "{stays:?}");
    let recipe = json!({ "id": stays.body["provision_recipe_id"] });
    let end = broker.recipe_end(&moved, &recipe).await;
    assert_eq!(end["status"], "complete", "{end}");
    for id in ["old", "new", "moved", text(&stays.body["instance_id"])] {
        deprovision(&broker, id).await;
    }
    let left = fs::read_dir(folder.join("blue")).expect("a folder");
    let mut left: Vec<_> = left.flatten().map(|entry| entry.file_name()).collect();
    left.sort();
    assert_eq!(left, [".compose-broker.json", ".lock"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn osb_061_the_last_unit_is_given_once() {
    let folder = new_folder();
    let mut clusters = described(&folder);
    clusters[0]["capacity_units"] = json!(2);
    clusters[1]["capacity_units"] = json!(4);
    let script = Script::default();
    let broker = start(&folder, &clusters, script.surroundings()).await;
    let held = script.hold(OperationKind::Provision, "allocate");
    let ids: Vec<String> = (0..8).map(|i| format!("i{i}")).collect();
    let blue = json!({ "cluster_id": "blue" });
    let requests = ids
        .iter()
        .map(|id| put(&broker, id, ENTERPRISE, blue.clone()));
    let answers = futures::future::join_all(requests).await;
    let (accepted, refused): (Vec<_>, Vec<_>) = ids
        .iter()
        .zip(&answers)
        .partition(|(_, answer)| answer.status == StatusCode::ACCEPTED);
    assert_eq!((accepted.len(), refused.len()), (4, 4), "{answers:?}");
    for (_, answer) in refused {
        assert_eq!(
            description(answer, StatusCode::BAD_REQUEST),
            "cluster \"blue\" has no room for 1 unit, 0 of 4 are free; ask for fewer units, or \
             choose one of: red"
        );
    }
    // A repeat asks for nothing new, also where there is no room any more.
    let repeated = put(&broker, accepted[0].0, ENTERPRISE, blue.clone()).await;
    assert_eq!(repeated.body, accepted[0].1.body);

    // The plan without a choice goes to the first cluster, and says so when that is full.
    let large = put(&broker, "large", STANDARD, json!({ "units": 3 })).await;
    let reason = description(&large, StatusCode::BAD_REQUEST);
    assert!(reason.contains("3 units, 2 of 2 are free"), "{reason}");
    let fits = put(&broker, "fits", STANDARD, json!({ "units": 2 })).await;
    assert_eq!(fits.status, StatusCode::ACCEPTED, "{fits:?}");
    let reason = refusal(&broker, json!({})).await;
    assert!(
        reason.contains("no cluster has room for it at the moment"),
        "{reason}"
    );
    // What is deleted makes room when it is gone.
    let id = accepted[0].0.clone();
    drop(held);
    deprovision(&broker, &id).await;
    let again = put(&broker, &id, ENTERPRISE, blue).await;
    assert_eq!(again.status, StatusCode::ACCEPTED, "{again:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_disabled_cluster_looks_after_what_it_has() {
    let folder = new_folder();
    let mut clusters = described(&folder);
    let mut broker = start(&folder, &clusters, surroundings()).await;
    provision(&broker, "i", json!({ "cluster_id": "blue" })).await;
    let credentials = bind(&broker, "i").await;
    etcd::fill(&mut etcd::connect(&credentials).await, 20, "v").await;
    let members = broker.members();
    clusters[1]["enabled"] = json!(false);
    write(&folder, &clusters);
    broker.restart_with(surroundings()).await;
    assert_eq!(broker.members(), members);
    for parameters in [
        json!({ "cluster_id": "blue" }),
        json!({ "cluster_service_instance_id": BLUE }),
        json!({ "cluster_id": "green" }),
    ] {
        let reason = refusal(&broker, parameters).await;
        assert!(
            reason.ends_with("takes new instances; choose one of: red"),
            "{reason}"
        );
    }
    // The broker's address has changed with the start, its tokens have not.
    let mut here = credentials.clone();
    here["instance_administration_api"]["root"] = json!(format!("{}/api", broker.url));
    let backup = broker.back_up(&here).await;
    assert_eq!(backup["status"], "complete", "{backup}");
    // What is restored must go elsewhere, and there is no version for it.
    let path = format!(
        "/deployments/{}/backups/{}/restore",
        text(&here["deployment_id"]),
        text(&backup["id"])
    );
    let stays = answer(broker.compose(Method::POST, &here, &path)).await;
    assert_eq!(stays.status, StatusCode::BAD_REQUEST, "{stays:?}");
    let unbound = format!(
        "{}?service_id={SERVICE}&plan_id={ENTERPRISE}",
        binding_path("i", "b")
    );
    let unbound = answer(broker.osb(Method::DELETE, &unbound)).await;
    assert_eq!(unbound.status, StatusCode::OK, "{unbound:?}");
    let again = bind(&broker, "i").await;
    assert_eq!(etcd::dump(&mut etcd::connect(&again).await).await.len(), 20);
    deprovision(&broker, "i").await;
    assert!(broker.members().is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cluster_tells_its_id_to_the_platform_and_to_its_users() {
    let folder = new_folder();
    let clusters = described(&folder);
    let broker = start(&folder, &clusters, surroundings()).await;
    provision(&broker, "on blue", json!({ "cluster_id": "blue" })).await;
    let (on_red, accepted) = ("on red", put(&broker, "on red", STANDARD, json!({})).await);
    broker.instance_end(on_red, &accepted.body).await;
    let blue = bind(&broker, "on blue").await;
    let red = broker.bind(on_red, "b").await;
    let url = |id: &str| format!("/api/2016-07/instances/{}", encoded(id));
    let with_token = |path: String, credentials: &Value| {
        let token = text(&credentials["instance_administration_api"]["token"]).to_owned();
        answer(broker.anonymous(Method::GET, &path).bearer_auth(token))
    };
    let expected = json!({
        "id": BLUE, "resource_type": "cluster", "resource_id": "blue", "cluster_id": "blue",
    });
    for path in [url(BLUE), format!("{}/", url(BLUE))] {
        let told = answer(broker.osb(Method::GET, &path)).await;
        assert_eq!((told.status, &told.body), (StatusCode::OK, &expected));
        let told = with_token(path, &blue).await;
        assert_eq!((told.status, &told.body), (StatusCode::OK, &expected));
    }
    // An instance on another cluster gets no answer.
    let (foreign, unknown) = (
        with_token(url(BLUE), &red).await,
        with_token(url("nobody"), &red).await,
    );
    assert_eq!(foreign.status, StatusCode::NOT_FOUND);
    assert_eq!(foreign.body, unknown.body);
    for request in [
        broker.anonymous(Method::GET, &url(BLUE)),
        broker.anonymous(Method::GET, &url(BLUE)).bearer_auth("x"),
        broker
            .anonymous(Method::GET, &url(BLUE))
            .basic_auth(broker.platform().0, Some("x")),
    ] {
        let refused = answer(request).await;
        assert_eq!(refused.status, StatusCode::UNAUTHORIZED, "{refused:?}");
    }
    // There is nothing below it, and nobody else gets its id.
    let below = format!("{}/deployments/{}", url(BLUE), text(&blue["deployment_id"]));
    for found in [
        answer(broker.osb(Method::GET, &below)).await,
        with_token(below.clone(), &blue).await,
    ] {
        assert_eq!(found.status, StatusCode::NOT_FOUND, "{found:?}");
    }
    let taken = put(&broker, BLUE, ENTERPRISE, json!({ "cluster_id": "blue" })).await;
    assert_eq!(taken.status, StatusCode::CONFLICT, "{taken:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cluster_that_is_missed_stops_the_start() {
    let mut broker = BrokerProcess::stopped_with(|settings| {
        let file = Path::new(&settings["DATA_DIR"]).with_file_name("clusters.json");
        settings.insert("CLUSTERS", file.display().to_string());
    });
    let chosen = broker.settings().clone();
    let file = PathBuf::from(&chosen["CLUSTERS"]);
    let folder = file.parent().expect("a folder");
    let mut clusters = described(folder);
    write(folder, &clusters);
    broker.start_again().await;
    provision(&broker, "i", json!({ "cluster_id": "blue" })).await;
    let members = broker.members();
    broker.kill();
    let both = clusters.clone();
    let others = [
        (json!([both[0]]), "\"i\" on \"blue\""),
        (
            {
                clusters[0]["service_instance_id"] = json!("i");
                clusters
            },
            "service_instance_id \"i\"",
        ),
    ];
    for (wrong, words) in others {
        write(folder, &wrong);
        let output = refused(&chosen).await;
        let said = String::from_utf8_lossy(&output.stderr);
        assert_eq!(said.lines().count(), 1, "{said}");
        assert!(said.contains("COMPOSE_BROKER_CLUSTERS"), "{said}");
        assert!(said.contains(words), "{said}");
    }
    assert_eq!(broker.members(), members, "nobody touched them");
    write(folder, &both);
    broker.start_again().await;
    deprovision(&broker, "i").await;
}

/// A file of contexts that leads to a port where nobody listens.
fn leads_nowhere(folder: &Path) -> PathBuf {
    let file = folder.join("kubeconfig");
    let contexts = json!({
        "apiVersion": "v1", "kind": "Config", "current-context": "it",
        "clusters": [{ "name": "it", "cluster": { "server": "http://127.0.0.1:9" } }],
        "users": [{ "name": "it", "user": { "token": "SECRET" } }],
        "contexts": [{ "name": "it", "context": { "cluster": "it", "user": "it" } }],
    });
    fs::write(&file, contexts.to_string()).expect("a file");
    file
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cluster_that_does_not_answer_keeps_no_other_from_being_served() {
    let mut broker = BrokerProcess::stopped_with(|settings| {
        let folder = Path::new(&settings["DATA_DIR"]).parent().expect("a folder");
        let clusters = json!([
            { "id": "here", "name": "Here", "capacity_units": CAPACITY_UNITS },
            {
                "kind": "kubernetes", "id": "away", "name": "Away", "capacity_units": CAPACITY_UNITS,
                "kubeconfig": leads_nowhere(folder), "namespace": "databases",
                "tools_image": "registry.example/tools:1",
                "images": { "etcd": { "3.6.16": "registry.example/etcd:3.6.16" } },
                "node_host": "127.0.0.1", "node_ports": "30000-30099",
            },
        ]);
        let file = folder.join("two-clusters.json");
        fs::write(&file, clusters.to_string()).expect("a file");
        settings.insert("CLUSTERS", file.display().to_string());
    });
    broker.start_again().await;
    let logged = broker.logged();
    let told = logged
        .matches("the cluster is left alone until it answers")
        .count();
    assert_eq!(told, 1, "{logged}");
    provision(&broker, "i", json!({ "cluster_id": "here" })).await;
    bind(&broker, "i").await;
    deprovision(&broker, "i").await;
    // What is asked of the other one waits for it.
    let away = json!({ "cluster_id": "away" });
    let accepted = put(&broker, "waits", ENTERPRISE, away).await;
    assert_eq!(accepted.status, StatusCode::ACCEPTED, "{accepted:?}");
    let path = format!("{}/last_operation", instance_path("waits"));
    let told = answer(broker.osb(Method::GET, &path)).await;
    assert_eq!(told.body["state"], "in progress", "{told:?}");
}
