//! Documents compared with the routes, and with themselves.

use std::collections::BTreeSet;

use super::*;

/// The file in which every route stands.
const ROUTES: &str = include_str!("../mod.rs");

/// Prefixes of what must be documented.
const DOCUMENTED: [&str; 5] = ["/v2", "/api/", "/operator", "/healthz", "/readyz"];

const METHODS: [&str; 6] = ["get", "head", "put", "post", "patch", "delete"];

/// The file with what a function of its own adds to a scope where it is added.
fn in_place(text: &str) -> String {
    let mut text = text.to_owned();
    while let Some((before, rest)) = text.split_once(".configure(") {
        let (name, after) = rest.split_once(')').expect("a name");
        let head = format!("fn {name}(config: &mut web::ServiceConfig) {{");
        let (between, function) = after.split_once(&head).expect("a function further down");
        let (body, below) = function.split_once("\n}\n").expect("its end");
        text = format!("{before}{body}{between}{below}");
    }
    text
}

/// Methods and paths of the routes: scopes hold what stands between their parentheses.
fn routes(text: &str) -> BTreeSet<(String, String)> {
    let text = in_place(text);
    let mut found = BTreeSet::new();
    // Each with the depth at which it ends.
    let mut scopes: Vec<(usize, String)> = Vec::new();
    let mut path = String::new();
    let mut depth = 0;
    for (i, c) in text.char_indices() {
        let rest = &text[i..];
        let begins = |what: &str| {
            let rest = rest.strip_prefix(what)?.trim_start();
            rest.strip_prefix('"')?.split('"').next()
        };
        match c {
            '(' => depth += 1,
            ')' => {
                depth -= 1;
                scopes.retain(|(end, _)| *end <= depth);
            }
            _ => {}
        }
        let prefix = || scopes.iter().map(|(_, p)| p.as_str()).collect::<String>();
        if let Some(scope) = begins("web::scope(") {
            scopes.push((depth, scope.to_owned()));
        } else if let Some(place) = ["only(", "either(", "page("].into_iter().find_map(begins) {
            path = prefix() + place;
        } else if let Some(rest) = rest.strip_prefix("web::")
            && let Some(method) = METHODS.iter().find(|m| {
                rest.strip_prefix(**m)
                    .is_some_and(|rest| rest.starts_with("()"))
            })
        {
            found.insert(((*method).to_owned(), path.clone()));
        }
    }
    found
}

fn documents() -> [Value; 3] {
    [
        osb::document::document(),
        compose::document::document(),
        operator::document::document(),
    ]
}

fn documented() -> BTreeSet<(String, String)> {
    let mut found = BTreeSet::new();
    for document in documents() {
        for (path, operations) in document["paths"].as_object().expect("paths") {
            for method in operations.as_object().expect("operations").keys() {
                found.insert((method.clone(), path.clone()));
            }
        }
    }
    found
}

#[test]
fn every_route_is_in_a_document_and_no_other_is() {
    let mut routes = routes(ROUTES);
    assert!(routes.contains(&("put".into(), "/v2/service_instances/{instance}".into())));
    assert!(routes.contains(&(
        "post".into(),
        "/dashboard/instances/{instance}/settings/size".into()
    )));
    routes.retain(|(_, path)| DOCUMENTED.iter().any(|prefix| path.starts_with(prefix)));
    let documented = documented();
    let missing: Vec<_> = routes.difference(&documented).collect();
    assert!(
        missing.is_empty(),
        "without a word in a document: {missing:?}"
    );
    let invented: Vec<_> = documented.difference(&routes).collect();
    assert!(
        invented.is_empty(),
        "documented, and not there: {invented:?}"
    );
}

#[test]
fn a_document_leads_nowhere_else_and_names_everything() {
    let catalog = include_str!("../../../catalog.json");
    for mut document in documents() {
        show_parameters(&mut document, catalog);
        assert_eq!(document["openapi"], "3.1.0");
        let mut stack = vec![&document];
        while let Some(value) = stack.pop() {
            if let Some(to) = value.get("$ref").and_then(Value::as_str) {
                let to = to.strip_prefix('#').expect("a place in the document");
                assert!(document.pointer(to).is_some(), "{to} is not there");
            }
            stack.extend(value.as_array().into_iter().flatten());
            stack.extend(value.as_object().into_iter().flat_map(Map::values));
        }
        let paths = document["paths"].as_object().expect("paths");
        let operations = paths
            .iter()
            .flat_map(|(_, o)| o.as_object().expect("operations"));
        let mut ids = BTreeSet::new();
        for (method, operation) in operations {
            let id = operation["operationId"].as_str().expect("an id");
            assert!(ids.insert(id), "{id} is there twice");
            assert!(operation["summary"].is_string(), "{method} {id}");
            for (status, response) in operation["responses"].as_object().expect("responses") {
                let text = response["description"].as_str().expect("a description");
                assert!(!text.is_empty(), "{id} {status}");
                let has_body = response.get("content").is_some();
                assert_eq!(
                    has_body,
                    status != "304" && method != "head",
                    "{id} {status}"
                );
            }
        }
    }
}

#[test]
fn parameters_are_those_of_the_catalog() {
    let mut document = osb::document::document();
    show_parameters(&mut document, include_str!("../../../catalog.json"));
    let schemas = &document["components"]["schemas"];
    let of = |name: &str| &schemas[name]["anyOf"][0]["properties"];
    assert_eq!(of("ProvisionParameters")["units"]["maximum"], 32);
    assert_eq!(of("BindParameters")["role"]["enum"][0], "reader");
    assert_eq!(of("UpdateParameters")["backup_id"], Value::Null);
    let old = json!({ "$schema": "http://json-schema.org/draft-04/schema#", "properties": {
        "n": { "minimum": 1, "exclusiveMinimum": true, "maximum": 9, "exclusiveMaximum": false },
    }});
    let mut new = old.clone();
    modernise(&mut new);
    assert_eq!(
        new,
        json!({ "properties": { "n": { "exclusiveMinimum": 1, "maximum": 9 } } })
    );
    show_parameters(&mut document, r#"{"services": []}"#);
    let bare = &document["components"]["schemas"]["BindParameters"];
    assert_eq!(
        (&bare["type"], &bare["anyOf"]),
        (&json!("object"), &Value::Null)
    );
}
