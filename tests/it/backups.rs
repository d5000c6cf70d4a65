//! The administration API: deployments, recipes, backups and their downloads, in the words and
//! shapes of the Compose 2016-07 API.

use std::{fs, path::Path, process::Command};

use chrono::{DateTime, TimeDelta};
use compose_broker::model::operation::OperationKind;
use futures::future::join_all;
use reqwest::{Method, StatusCode};
use ring::digest::{SHA256, digest};
use serde_json::{Value, json};

use crate::{
    broker::{Answer, TestBroker, answer, engines_dir, eventually, text},
    control::{Script, TestClock},
    etcd,
    inside::Inside,
    raw,
    registers::REGISTER,
};

/// An id of ours that nothing has.
const UNKNOWN: &str = "0123456789abcdef01234567";

/// Below the deployment that `credentials` are of.
fn deployment(credentials: &Value, below: &str) -> String {
    format!(
        "/deployments/{}{below}",
        text(&credentials["deployment_id"])
    )
}

async fn get(broker: &TestBroker, credentials: &Value, path: &str) -> Answer {
    answer(broker.compose(Method::GET, credentials, path)).await
}

async fn ok(broker: &TestBroker, credentials: &Value, path: &str) -> Value {
    let answer = get(broker, credentials, path).await;
    assert_eq!(answer.status, StatusCode::OK, "{path}: {answer:?}");
    answer.body
}

async fn post_backup(broker: &TestBroker, credentials: &Value) -> Value {
    let path = deployment(credentials, "/backups");
    let answer = answer(broker.compose(Method::POST, credentials, &path)).await;
    assert_eq!(answer.status, StatusCode::ACCEPTED, "{answer:?}");
    answer.body
}

/// The ids of the listed backups.
async fn listed(broker: &TestBroker, credentials: &Value) -> Vec<String> {
    let list = ok(broker, credentials, &deployment(credentials, "/backups")).await;
    let backups = list["_embedded"]["backups"].as_array().expect("a list");
    backups
        .iter()
        .map(|backup| text(&backup["id"]).to_owned())
        .collect()
}

fn fields(value: &Value) -> Vec<&str> {
    let mut fields: Vec<&str> = value
        .as_object()
        .expect("an object")
        .keys()
        .map(String::as_str)
        .collect();
    fields.sort_unstable();
    fields
}

/// A time that Go's clients can read.
fn assert_time(value: &Value) {
    let parsed = DateTime::parse_from_rfc3339(text(value));
    assert!(parsed.is_ok(), "{value}");
}

fn assert_id(value: &Value) {
    let id = text(value);
    assert!(
        id.len() == 24 && id.bytes().all(|b| b.is_ascii_hexdigit()),
        "{id}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn every_answer_has_the_shape_that_clients_know() {
    let broker = TestBroker::start().await;
    broker
        .provision("i", json!({ "db_version": "3.4.23" }))
        .await;
    let credentials = broker.bind("i", "b").await;
    let posted = post_backup(&broker, &credentials).await;
    broker.recipe_end(&credentials, &posted).await;

    let instance = ok(&broker, &credentials, "").await;
    let expected = json!({
        "id": "i", "resource_type": "deployment", "resource_id": credentials["deployment_id"],
    });
    assert_eq!(instance, expected);

    let shown = ok(&broker, &credentials, &deployment(&credentials, "")).await;
    assert_eq!(shown["id"], credentials["deployment_id"]);
    assert_eq!(shown["name"], credentials["name"]);
    assert_eq!(
        (&shown["type"], &shown["version"]),
        (&json!("etcd"), &json!("3.4.23"))
    );
    assert_eq!(shown["cluster_id"], "");
    assert_eq!(
        shown["ca_certificate_base64"],
        credentials["ca_certificate_base64"]
    );
    assert_time(&shown["created_at"]);
    let strings = &shown["connection_strings"];
    assert_eq!(
        fields(strings),
        ["admin", "cli", "direct", "health", "maps", "misc", "ssh"]
    );
    for field in ["admin", "cli", "direct", "health", "maps", "ssh"] {
        assert!(strings[field].is_array(), "{field}");
    }
    assert_eq!(strings["direct"].as_array().expect("a list").len(), 3);
    let link = &shown["_links"]["backups"];
    assert_eq!(link["templated"], true);
    let href = text(&link["href"])
        .strip_suffix("{?embed}")
        .expect("the marker");
    let token = text(&credentials["instance_administration_api"]["token"]);
    let followed = reqwest::Client::new()
        .get(href)
        .bearer_auth(token)
        .send()
        .await;
    assert_eq!(followed.expect("an answer").status(), StatusCode::OK);

    assert_recipe(&broker, &credentials, &posted).await;
    assert_backup(&broker, &credentials, &posted).await;

    let mut versions = ok(
        &broker,
        &credentials,
        &deployment(&credentials, "/versions"),
    )
    .await;
    // Beyond the original's fields: what is known to be wrong with each.
    let transitions = versions["_embedded"]["transitions"].as_array_mut();
    for transition in transitions.expect("a list") {
        let known = transition
            .as_object_mut()
            .and_then(|t| t.remove("advisories"));
        let known = known.expect("known faults");
        let count = known.as_array().expect("a list").len();
        assert_eq!(count == 0, transition["to_version"] == "3.7.3", "{known}");
        for fault in known.as_array().expect("a list") {
            assert_eq!(
                fields(fault),
                ["fixed_in", "id", "severity", "summary"],
                "{fault}"
            );
        }
    }
    let to = |method: &str, version: &str| {
        json!({
            "application": "etcd", "method": method,
            "from_version": "3.4.23", "to_version": version,
        })
    };
    let ways = ["3.5.16", "3.5.30", "3.5.35", "3.6.16", "3.7.3"]
        .map(|v| [to("in_place", v), to("restore", v)]);
    let expected = json!({ "_embedded": { "transitions": ways.as_flattened() } });
    assert_eq!(versions, expected);
}

async fn assert_recipe(broker: &TestBroker, credentials: &Value, posted: &Value) {
    let path = format!("/recipes/{}", text(&posted["id"]));
    let recipe = ok(broker, credentials, &path).await;
    assert_eq!(fields(&recipe), fields(posted));
    for field in ["id", "deployment_id", "account_id", "backup_id"] {
        assert_id(&recipe[field]);
        assert_eq!(recipe[field], posted[field]);
    }
    assert_eq!(recipe["status"], "complete");
    assert_eq!(
        recipe["status_detail"],
        "All operations have completed successfully"
    );
    assert_eq!(recipe["parent_id"], json!(null));
    assert_eq!(recipe["_embedded"], json!({ "recipes": [] }));
    let total = recipe["operations_total"].as_u64().expect("a number");
    assert!(total > 0 && recipe["operations_complete"].as_u64() <= Some(total));
    assert_time(&recipe["created_at"]);
    assert_time(&recipe["updated_at"]);
    let list = ok(broker, credentials, &deployment(credentials, "/recipes")).await;
    let recipes = list["_embedded"]["recipes"].as_array().expect("a list");
    let names: Vec<&str> = recipes.iter().map(|recipe| text(&recipe["name"])).collect();
    assert!(
        names.ends_with(&["Backup", "Bind", "Provision"]),
        "{names:?}"
    );
    let shown = ok(broker, credentials, &deployment(credentials, "")).await;
    assert_eq!(
        shown["provision_recipe_id"],
        recipes[recipes.len() - 1]["id"]
    );
}

async fn assert_backup(broker: &TestBroker, credentials: &Value, posted: &Value) {
    let list = ok(broker, credentials, &deployment(credentials, "/backups")).await;
    // Of ours beside what Compose had: what the plan keeps.
    assert_eq!(fields(&list), ["_embedded", "retention"]);
    let listed = &list["_embedded"]["backups"][0];
    assert_eq!(listed["id"], posted["backup_id"]);
    assert_eq!(listed["deployment_id"], credentials["deployment_id"]);
    assert_eq!(
        (&listed["type"], &listed["status"]),
        (&json!("on_demand"), &json!("complete"))
    );
    assert_eq!(listed["is_downloadable"], true);
    assert_eq!(listed["is_restorable"], true);
    assert_time(&listed["created_at"]);
    let name = text(&listed["name"]);
    assert!(name.starts_with(text(&credentials["name"])), "{name}");
    assert!(name.ends_with("_utc_on_demand"), "{name}");
    // Only the one that was asked for has a link.
    assert_eq!(listed.get("download_link"), None);
    let path = format!("/backups/{}", text(&posted["backup_id"]));
    let mut single = ok(broker, credentials, &deployment(credentials, &path)).await;
    let mut own = |field: &str| {
        let removed = single.as_object_mut().expect("an object").remove(field);
        removed.expect(field)
    };
    assert!(text(&own("download_link")).starts_with(&broker.url));
    assert_eq!(own("archive_bytes"), Value::Null);
    assert!(own("archive_bytes_estimate").is_u64());
    // Nothing was restored so far.
    assert_eq!(own("restore_estimate"), Value::Null);
    assert_eq!(single, *listed);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_last_slash_changes_nothing() {
    let broker = TestBroker::start().await;
    broker.provision("i", json!({})).await;
    let credentials = broker.bind("i", "b").await;
    let recipe = post_backup(&broker, &credentials).await;
    broker.recipe_end(&credentials, &recipe).await;
    // What a backup brings with it is in the list of recipes, too.
    Inside::of(&broker).idle("i").await;
    let backup = format!("/backups/{}", text(&recipe["backup_id"]));
    let mut paths = vec![String::new(), format!("/recipes/{}", text(&recipe["id"]))];
    for below in [
        "",
        "/backups",
        &backup,
        "/recipes",
        "/versions",
        "/scalings",
    ] {
        paths.push(deployment(&credentials, below));
    }
    for path in paths {
        // Between the two, the broker may have looked at the members.
        eventually(&format!("the same with a slash: {path}"), || async {
            let mut plain = ok(&broker, &credentials, &path).await;
            let mut slash = ok(&broker, &credentials, &format!("{path}/")).await;
            for body in [&mut plain, &mut slash] {
                // It tells until when it is good.
                body.as_object_mut()
                    .expect("an object")
                    .remove("download_link");
            }
            (plain == slash).then_some(())
        })
        .await;
    }
    let path = format!("{}/", deployment(&credentials, "/backups"));
    let posted = answer(broker.compose(Method::POST, &credentials, &path)).await;
    assert_eq!(posted.status, StatusCode::ACCEPTED);
}

#[tokio::test(flavor = "multi_thread")]
async fn without_a_good_token_the_answer_is_invalid_token() {
    let broker = TestBroker::start().await;
    let (username, password) = broker.platform();
    let basic = broker
        .anonymous(Method::GET, "/")
        .basic_auth(username, Some(format!("{password}x")));
    let basic = basic.build().expect("a request").headers()["authorization"].clone();
    let basic = basic.to_str().expect("ASCII").to_owned();
    let huge = format!("Bearer {}", "x".repeat(60_000));
    let wrong = [
        "",
        "Bearer",
        "Bearer ",
        "Bearer wrong",
        &format!("Bearer {password}"),
        &basic,
        &huge,
    ];
    let paths = [
        "",
        "/deployments/x",
        "/deployments/x/backups",
        "/recipes/x",
        "/nothing",
        "/%00",
    ];
    for path in paths {
        for authorization in wrong {
            for method in ["GET", "POST", "DELETE"] {
                let target = format!("/api/2016-07/instances/i{path}");
                let headers = format!("Authorization: {authorization}\r\n");
                let answer = raw::send(&broker, method, &target, &headers, "").await;
                assert_eq!(
                    answer.status, 401,
                    "{method} {path} {authorization:.30}: {answer:?}"
                );
                assert_eq!(answer.json(), json!({ "errors": "invalid_token" }));
                assert!(
                    answer
                        .header("www-authenticate")
                        .is_some_and(|h| h.starts_with("bearer"))
                );
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn another_tenant_s_things_are_answered_like_things_that_do_not_exist() {
    let broker = TestBroker::start().await;
    broker.provision("mine", json!({})).await;
    broker.provision("foreign", json!({})).await;
    let mine = broker.bind("mine", "b").await;
    let foreign = broker.bind("foreign", "b").await;
    let my_backup = broker.back_up(&mine).await;
    let backup = broker.back_up(&foreign).await;
    let (backup, recipe) = (text(&backup["id"]), text(&backup["recipe_id"]));

    let mut unknown = mine.clone();
    unknown["instance_administration_api"]["instance_id"] = json!("unknown");
    let mut other = foreign.clone();
    let my_token = &mine["instance_administration_api"]["token"];
    other["instance_administration_api"]["token"] = my_token.clone();
    for method in [Method::GET, Method::POST, Method::DELETE] {
        for below in [
            String::new(),
            deployment(&foreign, ""),
            deployment(&foreign, "/backups"),
            deployment(&foreign, &format!("/backups/{backup}")),
            deployment(&foreign, "/recipes"),
            format!("/recipes/{recipe}"),
            "/nothing".to_owned(),
        ] {
            let theirs = answer(broker.compose(method.clone(), &other, &below)).await;
            let nobodys = answer(broker.compose(method.clone(), &unknown, &below)).await;
            assert_eq!(theirs.status, StatusCode::NOT_FOUND, "{below}");
            assert!(theirs.body["errors"]["base"][0].is_string(), "{theirs:?}");
            assert_eq!(
                (theirs.status, theirs.body),
                (nobodys.status, nobodys.body),
                "{below}"
            );
        }
    }
    // Foreign ids below an instance of one's own.
    let my_backup_path = |deployment: &str| {
        format!(
            "/deployments/{deployment}/backups/{}",
            text(&my_backup["id"])
        )
    };
    let pairs = [
        (deployment(&foreign, ""), format!("/deployments/{UNKNOWN}")),
        (
            deployment(&foreign, "/backups"),
            format!("/deployments/{UNKNOWN}/backups"),
        ),
        (
            deployment(&foreign, "/versions"),
            format!("/deployments/{UNKNOWN}/versions"),
        ),
        (
            my_backup_path(text(&foreign["deployment_id"])),
            my_backup_path(UNKNOWN),
        ),
        (
            deployment(&mine, &format!("/backups/{backup}")),
            deployment(&mine, &format!("/backups/{UNKNOWN}")),
        ),
        (format!("/recipes/{recipe}"), format!("/recipes/{UNKNOWN}")),
    ];
    for (theirs, nobodys) in pairs {
        let theirs = get(&broker, &mine, &theirs).await;
        let nobodys = get(&broker, &mine, &nobodys).await;
        assert_eq!(theirs.status, StatusCode::NOT_FOUND, "{theirs:?}");
        assert_eq!(theirs.body, nobodys.body);
    }
    let before = listed(&broker, &foreign).await;
    let path = deployment(&foreign, "/backups");
    let refused = answer(broker.compose(Method::POST, &mine, &path)).await;
    assert_eq!(refused.status, StatusCode::NOT_FOUND);
    assert_eq!(listed(&broker, &foreign).await, before);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_no_id_is_unknown_and_what_is_no_method_is_told() {
    let broker = TestBroker::start().await;
    broker.provision("i", json!({})).await;
    let credentials = broker.bind("i", "b").await;
    let long = "x".repeat(5_000);
    let upper = UNKNOWN.to_uppercase();
    for id in [
        "x",
        "%2e%2e%2f",
        "%00",
        "%ff",
        "%F0%9F%A6%80",
        "..%2f..",
        &upper,
        &long,
    ] {
        for path in [
            format!("/deployments/{id}"),
            format!("/deployments/{id}/backups"),
            deployment(&credentials, &format!("/backups/{id}")),
            format!("/recipes/{id}"),
        ] {
            let unknown = get(&broker, &credentials, &path).await;
            assert_eq!(
                unknown.status,
                StatusCode::NOT_FOUND,
                "{path:.100}: {unknown:?}"
            );
            assert!(unknown.body["errors"]["base"][0].is_string(), "{unknown:?}");
        }
    }
    let nowhere = get(&broker, &credentials, "/nothing/here").await;
    assert_eq!(nowhere.status, StatusCode::NOT_FOUND);
    assert!(nowhere.body["errors"]["base"][0].is_string());
    for method in [Method::PUT, Method::DELETE, Method::PATCH] {
        let path = deployment(&credentials, "/backups");
        let wrong = answer(broker.compose(method, &credentials, &path)).await;
        assert_eq!(wrong.status, StatusCode::METHOD_NOT_ALLOWED);
        assert!(wrong.body["errors"]["base"][0].is_string(), "{wrong:?}");
    }
    // Clients send all kinds of bodies along.
    for (content_type, body) in [
        ("application/hal+json", ""),
        ("application/json", "{}"),
        ("text/plain", "}"),
    ] {
        let path = deployment(&credentials, "/backups");
        let request = broker
            .compose(Method::POST, &credentials, &path)
            .header("Content-Type", content_type)
            .body(body);
        let posted = answer(request).await;
        assert_eq!(posted.status, StatusCode::ACCEPTED, "{posted:?}");
        broker.recipe_end(&credentials, &posted.body).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn while_a_backup_is_taken_asking_again_tells_of_it() {
    let script = Script::default();
    let broker = TestBroker::start_with(&[], script.surroundings()).await;
    broker.provision("i", json!({})).await;
    let credentials = broker.bind("i", "b").await;
    let held = script.hold(OperationKind::Backup, "snapshot");
    let asked = join_all((0..10).map(|_| post_backup(&broker, &credentials))).await;
    assert!(
        asked.iter().all(|recipe| recipe["id"] == asked[0]["id"]),
        "{asked:?}"
    );
    assert!(["waiting", "running"].contains(&text(&asked[0]["status"])));
    let path = format!("/backups/{}", text(&asked[0]["backup_id"]));
    let unfinished = ok(&broker, &credentials, &deployment(&credentials, &path)).await;
    assert!(
        ["pending", "running"].contains(&text(&unfinished["status"])),
        "{unfinished}"
    );
    assert_eq!(unfinished["is_downloadable"], false);
    assert_eq!(unfinished["is_restorable"], false);
    assert_eq!(unfinished["download_link"], json!(null));
    drop(held);
    let end = broker.recipe_end(&credentials, &asked[0]).await;
    assert_eq!(end["status"], "complete", "{end}");
    let next = post_backup(&broker, &credentials).await;
    assert_ne!(next["id"], asked[0]["id"]);
    broker.recipe_end(&credentials, &next).await;
    // While an instance goes, nothing new is begun on it.
    let _held = script.hold(OperationKind::Deprovision, "destroy");
    broker.delete_instance("i").await;
    let path = deployment(&credentials, "/backups");
    let refused = answer(broker.compose(Method::POST, &credentials, &path)).await;
    assert!(refused.status.is_client_error(), "{refused:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_most_recent_successful_backup_is_kept_and_no_failed_one_displaces_it() {
    let script = Script::default();
    let broker = TestBroker::start_with(&[], script.surroundings()).await;
    broker.provision("i", json!({})).await;
    let credentials = broker.bind("i", "b").await;
    let first = broker.back_up(&credentials).await;
    let link_to_first = text(&first["download_link"]).to_owned();
    let failing = script.fail(OperationKind::Backup, "read_back");
    let failed = broker.back_up(&credentials).await;
    assert_eq!(failed["status"], "failed", "{failed}");
    assert!(
        text(&failed["status_detail"]).contains("Reading the backup back"),
        "{failed}"
    );
    assert_eq!(failed["is_restorable"], false);
    assert_eq!(failed["download_link"], json!(null));
    drop(failing);
    let newest_first = [text(&failed["id"]), text(&first["id"])];
    assert_eq!(listed(&broker, &credentials).await, newest_first);
    assert_eq!(stored(&broker), [text(&first["id"])]);
    let download = reqwest::get(&link_to_first).await.expect("an answer");
    assert_eq!(download.status(), StatusCode::OK);

    let second = broker.back_up(&credentials).await;
    assert_eq!(second["status"], "complete");
    eventually("the end of the first backup", || async {
        let listed = listed(&broker, &credentials).await;
        let gone = !listed.contains(&text(&first["id"]).to_owned());
        (gone && stored(&broker) == [text(&second["id"])]).then_some(())
    })
    .await;
    assert_eq!(
        listed(&broker, &credentials).await,
        [text(&second["id"]), text(&failed["id"])]
    );
    let path = deployment(&credentials, &format!("/backups/{}", text(&first["id"])));
    assert_eq!(
        get(&broker, &credentials, &path).await.status,
        StatusCode::NOT_FOUND
    );
    let refused = reqwest::get(&link_to_first).await.expect("an answer");
    assert_eq!(refused.status(), StatusCode::NOT_FOUND);
}

/// The ids of the backups that have any bytes in the store.
fn stored(broker: &TestBroker) -> Vec<String> {
    let mut ids: Vec<String> = broker
        .files()
        .iter()
        .filter_map(|file| {
            file.strip_prefix("backups/")?
                .split('/')
                .nth(1)
                .filter(|name| *name != REGISTER)
                .map(str::to_owned)
        })
        .collect();
    ids.dedup();
    ids
}

#[tokio::test(flavor = "multi_thread")]
async fn a_download_is_what_was_backed_up() {
    let broker = TestBroker::start().await;
    broker
        .provision("i", json!({ "db_version": "3.5.16" }))
        .await;
    let credentials = broker.bind("i", "b").await;
    etcd::fill(&mut etcd::connect(&credentials).await, 100, "v").await;
    let backup = broker.back_up(&credentials).await;
    let download = reqwest::get(text(&backup["download_link"]))
        .await
        .expect("an answer");
    assert_eq!(download.status(), StatusCode::OK);
    let name = format!("{}.tar.gz", text(&backup["name"]));
    assert_eq!(
        download.headers()["content-disposition"],
        format!("attachment; filename=\"{name}\"")
    );
    assert_eq!(download.headers()["content-type"], "application/gzip");
    let folder = tempfile::tempdir().expect("a folder");
    let file = folder.path().join(&name);
    // It is a guess how long it is, until it was made once. Nor may one that breaks off seem whole.
    let bytes = download.bytes().await.expect("all of it");
    fs::write(&file, &bytes).expect("a file");
    let guess = backup["archive_bytes_estimate"].as_u64().expect("a guess");
    let length = bytes.len() as u64;
    assert!(
        (length / 2..length * 2).contains(&guess),
        "{guess}: {length}"
    );
    let path = deployment(&credentials, &format!("/backups/{}", text(&backup["id"])));
    let known = eventually("its length", || async {
        let told = ok(&broker, &credentials, &path).await;
        told["archive_bytes"].is_u64().then_some(told)
    })
    .await;
    assert_eq!(known["archive_bytes"], length);
    let again = reqwest::get(text(&known["download_link"])).await;
    let again = again.expect("an answer");
    assert_eq!(again.headers().get("content-length"), None);
    assert!(again.bytes().await.expect("all of it") == bytes);
    let unpacked = Command::new("tar")
        .args(["xzf", &name])
        .current_dir(folder.path())
        .status()
        .expect("tar");
    assert!(unpacked.success());
    assert_content(folder.path(), &backup, &credentials);
    let snapshot = folder.path().join("snapshot.db");
    let printed = Command::new(engines_dir().join("etcd/3.5.16/etcdctl"))
        .env("ETCDCTL_API", "3")
        .args(["snapshot", "status", "--write-out=json"])
        .arg(&snapshot)
        .output()
        .expect("etcdctl");
    let status: Value = serde_json::from_slice(&printed.stdout).expect("JSON");
    assert_eq!(status["revision"], backup["revision"]);
    assert_eq!(backup["keys"], 100);
}

fn assert_content(folder: &Path, backup: &Value, credentials: &Value) {
    let snapshot = fs::read(folder.join("snapshot.db")).expect("a snapshot");
    let manifest = fs::read_to_string(folder.join("manifest.json")).expect("a manifest");
    let manifest: Value = serde_json::from_str(&manifest).expect("JSON");
    let hash: String = digest(&SHA256, &snapshot)
        .as_ref()
        .iter()
        .map(|byte| format!("{byte:02x}"))
        .collect();
    assert_eq!(manifest["stored"]["snapshot_sha256"], hash);
    assert_eq!(backup["sha256"], hash);
    assert_eq!(backup["size_bytes"], snapshot.len());
    assert_eq!(manifest["backup_id"], backup["id"]);
    assert_eq!(manifest["deployment_id"], credentials["deployment_id"]);
    assert_eq!(manifest["instance_id"], "i");
    assert_eq!(manifest["version"], "3.5.16");
    // The administrator's password of then is not for tenants, sealed or not.
    assert_eq!(manifest.get("sealed_credentials"), None);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_link_is_good_for_one_backup_and_a_quarter_of_an_hour() {
    let clock = TestClock::default();
    let surroundings = clock.surroundings();
    let broker = TestBroker::start_with(&[], surroundings).await;
    for id in ["one", "other"] {
        broker.provision(id, json!({})).await;
    }
    let one = broker.bind("one", "b").await;
    let other = broker.bind("other", "b").await;
    let begun = clock.now();
    let (of_one, of_other) = (broker.back_up(&one).await, broker.back_up(&other).await);
    let link = text(&of_one["download_link"]).to_owned();
    let follow = async |link: &str| reqwest::get(link).await.expect("an answer").status();
    assert_eq!(follow(&link).await, StatusCode::OK);

    let (path, query) = link.split_once('?').expect("a query");
    let (expires, signature) = query.split_once("&signature=").expect("a signature");
    let until: i64 = expires
        .strip_prefix("expires=")
        .expect("a time")
        .parse()
        .expect("a number");
    // It was told between these two moments.
    let quarter = 15 * 60;
    let (begun, ended) = (
        begun.timestamp() + quarter,
        clock.now().timestamp() + quarter,
    );
    assert!((begun..=ended).contains(&until), "{begun} {until} {ended}");
    let end = DateTime::from_timestamp(until, 0).expect("a time");
    clock.stop();
    clock.set(end - TimeDelta::seconds(1));
    assert_eq!(follow(&link).await, StatusCode::OK);
    let first = signature.chars().next().expect("a character");
    let flipped = signature.replacen(first, if first == 'a' { "b" } else { "a" }, 1);
    let others = text(&of_other["download_link"]);
    let (others_path, others_query) = others.split_once('?').expect("a query");
    let instance = |id: &str| path.replace("/instances/one/", &format!("/instances/{id}/"));
    let forged = [
        path.to_owned(),
        format!("{path}?{expires}"),
        format!("{path}?{expires}&signature="),
        format!("{path}?{expires}&signature={flipped}"),
        format!("{path}?{expires}&signature={signature}0"),
        format!("{path}?signature={signature}"),
        format!("{path}?expires={}&signature={signature}", until + 1),
        format!("{path}?expires={}&signature={signature}", i64::MAX),
        format!("{path}?expires=-1&signature={signature}"),
        format!("{path}?expires=x&signature={signature}"),
        format!("{path}?{others_query}"),
        format!("{others_path}?{query}"),
        format!("{}?{query}", instance("other")),
        format!("{}?{query}", instance("unknown")),
        format!(
            "{}?{query}",
            path.replace(text(&one["deployment_id"]), UNKNOWN)
        ),
        format!("{}?{query}", path.replace(text(&of_one["id"]), UNKNOWN)),
    ];
    let unknown = reqwest::get(&forged[forged.len() - 1])
        .await
        .expect("an answer");
    let unknown = unknown.text().await.expect("a body");
    for link in &forged {
        let refused = reqwest::get(link).await.expect("an answer");
        assert_eq!(refused.status(), StatusCode::NOT_FOUND, "{link}");
        assert_eq!(refused.text().await.expect("a body"), unknown, "{link}");
    }
    // With a token it is the link that counts all the same.
    let token = text(&one["instance_administration_api"]["token"]);
    let with_token = reqwest::Client::new()
        .get(path)
        .bearer_auth(token)
        .send()
        .await;
    assert_eq!(
        with_token.expect("an answer").status(),
        StatusCode::NOT_FOUND
    );

    clock.set(end);
    assert_eq!(follow(&link).await, StatusCode::NOT_FOUND);
    clock.go_on();
    let anew = ok(
        &broker,
        &one,
        &deployment(&one, &format!("/backups/{}", text(&of_one["id"]))),
    )
    .await;
    assert_eq!(follow(text(&anew["download_link"])).await, StatusCode::OK);
    // A link ends with the binding that it was given to.
    broker.unbind("one", "b").await;
    assert_eq!(
        follow(text(&anew["download_link"])).await,
        StatusCode::NOT_FOUND
    );
}
