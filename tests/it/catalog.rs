//! What the marketplace shows.

use std::{fs, process::Command};

use reqwest::{Method, StatusCode};
use serde_json::{Value, json};

use crate::{
    broker::{TestBroker, answer, engines_dir, new_folder},
    control::surroundings,
};

/// The catalog file in the repository.
pub fn catalog_file() -> Value {
    serde_json::from_str(include_str!("../../catalog.json")).expect("JSON")
}

/// The catalog with a second service of one plan (`second-service`, `second-plan`).
pub fn two_services() -> Value {
    let mut catalog = catalog_file();
    let mut second = catalog["services"][0].clone();
    second["id"] = json!("second-service");
    second["name"] = json!("second");
    second["plans"].as_array_mut().expect("plans").truncate(1);
    second["plans"][0]["id"] = json!("second-plan");
    catalog["services"]
        .as_array_mut()
        .expect("services")
        .push(second);
    catalog
}

async fn catalog(broker: &TestBroker) -> Value {
    let answer = answer(broker.osb(Method::GET, "/v2/catalog")).await;
    assert_eq!(answer.status, StatusCode::OK, "{answer:?}");
    answer.body
}

fn has_member(value: &Value, name: &str) -> bool {
    match value {
        Value::Object(map) => {
            map.contains_key(name) || map.values().any(|value| has_member(value, name))
        }
        Value::Array(items) => items.iter().any(|value| has_member(value, name)),
        _ => false,
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_catalog_is_what_was_reviewed() {
    let broker = TestBroker::start().await;
    insta::assert_json_snapshot!(catalog(&broker).await);
}

#[tokio::test(flavor = "multi_thread")]
async fn our_own_rules_are_not_shown() {
    let broker = TestBroker::start().await;
    let served = catalog(&broker).await;
    assert!(has_member(&catalog_file(), "broker"));
    assert!(!has_member(&served, "broker"), "{served}");
}

#[tokio::test(flavor = "multi_thread")]
async fn another_catalog_file_is_another_marketplace() {
    let folder = new_folder();
    let file = folder.join("another.json");
    let mut another = catalog_file();
    another["services"][0]["id"] = json!("another-service");
    another["services"][0]["plans"][0]["name"] = json!("Tiny");
    fs::write(&file, another.to_string()).expect("a file");
    let flags = ["--catalog", file.to_str().expect("UTF-8")];
    let broker = TestBroker::start_in(folder.clone(), &flags, surroundings()).await;
    let served = catalog(&broker).await;
    assert_eq!(served["services"][0]["id"], "another-service");
    assert_eq!(served["services"][0]["plans"][0]["name"], "Tiny");
}

#[test]
fn a_broken_catalog_stops_the_start_with_one_line_that_names_the_place() {
    let folder = tempfile::tempdir().expect("a folder");
    let file = folder.path().join("broken.json");
    let mut broken = catalog_file();
    broken["services"][0]["plans"][1]["free"] = json!("no");
    fs::write(&file, broken.to_string()).expect("a file");
    let output = Command::new(env!("CARGO_BIN_EXE_compose-broker"))
        .arg("serve")
        .args(["--listen", "127.0.0.1:0"])
        .arg("--catalog")
        .arg(&file)
        .arg("--data-dir")
        .arg(folder.path().join("data"))
        .arg("--engines-dir")
        .arg(engines_dir())
        .output()
        .expect("a process");
    assert!(!output.status.success());
    let told = String::from_utf8_lossy(&output.stderr).into_owned();
    let lines: Vec<&str> = told.lines().collect();
    assert_eq!(lines.len(), 1, "{told}");
    assert!(lines[0].contains("COMPOSE_BROKER_CATALOG"), "{told}");
    assert!(lines[0].contains("services[0].plans[1].free"), "{told}");
}
