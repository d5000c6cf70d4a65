//! The documents of both APIs, as clients get them.

use std::fs;

use reqwest::{
    Method, StatusCode,
    header::{ALLOW, ETAG, IF_NONE_MATCH},
};
use serde_json::{Value, json};

use crate::{
    broker::{TestBroker, answer, new_folder},
    catalog::catalog_file,
    control::surroundings,
    memory::pair,
    pages::Visitor,
};

const DOCUMENTS: [&str; 3] = [
    "/openapi/osb.json",
    "/openapi/compose.json",
    "/openapi/operator.json",
];

async fn fetch(broker: &TestBroker, document: &str) -> Value {
    let answer = answer(broker.anonymous(Method::GET, document)).await;
    assert_eq!(answer.status, StatusCode::OK);
    answer.body
}

/// Each path with its methods.
fn paths(document: &Value) -> impl Iterator<Item = (String, Vec<String>)> {
    let paths = document["paths"].as_object().expect("paths");
    paths.iter().map(|(path, operations)| {
        let methods = operations.as_object().expect("operations").keys();
        (path.clone(), methods.map(|m| m.to_uppercase()).collect())
    })
}

#[tokio::test(flavor = "multi_thread")]
async fn documents_are_told_to_anybody_and_not_twice() {
    let broker = TestBroker::in_memory().await;
    for document in DOCUMENTS {
        let first = answer(broker.anonymous(Method::GET, document)).await;
        assert_eq!(first.body["openapi"], "3.1.0");
        let tag = first.headers[ETAG].clone();
        let again = broker
            .anonymous(Method::GET, document)
            .header(IF_NONE_MATCH, tag);
        let again = again.send().await.expect("an answer");
        assert_eq!(again.status(), StatusCode::NOT_MODIFIED);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_documented_operation_is_there_and_other_methods_are_told_so() {
    let broker = TestBroker::in_memory().await;
    for document in ["/openapi/osb.json", "/openapi/operator.json"] {
        let document = fetch(&broker, document).await;
        for (path, methods) in paths(&document) {
            let place = path.replace("{instance}", "i").replace("{binding}", "b");
            // HEAD has no body to look at.
            for method in methods.iter().filter(|method| *method != "HEAD") {
                let method: Method = method.parse().expect("a method");
                let answer = answer(broker.osb(method.clone(), &place)).await;
                let said = answer.body.to_string();
                assert_ne!(
                    answer.status,
                    StatusCode::METHOD_NOT_ALLOWED,
                    "{method} {path}"
                );
                assert!(
                    !said.contains("nothing at this path"),
                    "{method} {path}: {said}"
                );
                let told = &document["paths"][&path][method.as_str().to_lowercase()]["responses"];
                let status = answer.status.as_str();
                assert!(
                    told[status].is_object(),
                    "{method} {path} answers {status}: {said}"
                );
            }
            let answer = answer(broker.osb(Method::OPTIONS, &place)).await;
            assert_eq!(answer.status, StatusCode::METHOD_NOT_ALLOWED, "{path}");
            assert_eq!(answer.headers[ALLOW], methods.join(", "), "{path}");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_catalog_s_own_schemas_are_in_the_document() {
    let mut catalog = catalog_file();
    let schemas = &mut catalog["services"][0]["plans"][0]["schemas"];
    schemas["service_instance"]["create"]["parameters"]["properties"]["units"]["maximum"] =
        7.into();
    let folder = new_folder();
    let file = folder.join("catalog.json");
    fs::write(&file, catalog.to_string()).expect("a file");
    let flags = ["--catalog", file.to_str().expect("a path")];
    let broker = TestBroker::start_in(folder, &flags, surroundings()).await;
    let document = fetch(&broker, "/openapi/osb.json").await;
    let parameters = &document["components"]["schemas"]["ProvisionParameters"];
    let of_plan = &parameters["anyOf"][0]["properties"]["units"];
    assert_eq!(of_plan["maximum"], 7);
}

/// The databases in memory have two members, and keys alone.
#[tokio::test(flavor = "multi_thread")]
async fn what_is_told_of_databases_holds_for_an_engine_unlike_etcd() {
    let broker = TestBroker::in_memory().await;
    broker.provision("i", json!({})).await;
    let credentials = broker.bind("i", "b").await;
    let document = fetch(&broker, "/openapi/osb.json").await;
    let schema = &document["components"]["schemas"]["Credentials"];
    let required = schema["required"].as_array().expect("fields");
    assert!(required.contains(&json!("uri")), "{schema}");
    for field in required {
        let name = field.as_str().expect("a name");
        assert!(!credentials[name].is_null(), "{name}: {credentials}");
    }
    for name in credentials.as_object().expect("fields").keys() {
        assert!(schema["properties"][name].is_object(), "{name}: {schema}");
    }
    let visitor = Visitor::with_token(&broker, &credentials).await;
    let page = visitor.get("/dashboard/instances/i/backups").await;
    assert_eq!(page.status, StatusCode::OK);
    assert!(page.body.contains(pair::CONTENT_NOTE), "{}", page.body);
    assert!(!page.body.contains("users and roles"), "{}", page.body);
}
