//! The catalog: what is in it, what a file must not say, and how it is served.

use std::fs;

use compose_broker::{model::operation::OperationKind, store::POSTGRES_LOCK};
use diesel::{Connection as _, connection::SimpleConnection as _};
use reqwest::{Method, StatusCode};
use serde_json::{Value, json};

use super::{Bench, ids, provision_body, refused, token, with};
use crate::{
    broker::{ENTERPRISE, SERVICE, STANDARD, answer, binding_path, instance_path, text},
    catalog::{catalog_file, two_services},
    inside::Inside,
    process::{Settings, command},
};

/// The catalog as a platform sees it that speaks 2.`minor`.
async fn served(bench: &Bench, minor: u32) -> Value {
    let answer = answer(bench.as_minor(minor, Method::GET, "/v2/catalog")).await;
    assert_eq!(answer.status, StatusCode::OK, "{answer:?}");
    answer.body
}

fn offerings(catalog: &Value) -> &[Value] {
    catalog["services"].as_array().expect("services")
}

fn plans(catalog: &Value) -> impl Iterator<Item = &Value> {
    let of = |offering: &'_ Value| offering["plans"].as_array().expect("plans").len();
    offerings(catalog)
        .iter()
        .flat_map(move |o| (0..of(o)).map(move |i| &o["plans"][i]))
}

/// The places at which `compose-broker catalog check` finds something wrong with our catalog when
/// `change` has been done to it.
fn violations(change: impl FnOnce(&mut Value)) -> Vec<String> {
    let mut catalog = catalog_file();
    change(&mut catalog);
    let folder = tempfile::tempdir().expect("a folder");
    let file = folder.path().join("catalog.json");
    fs::write(&file, catalog.to_string()).expect("a file");
    let file = file.display().to_string();
    let output = command(&["catalog", "check", &file], &Settings::new()).output();
    let output = output.expect("an end");
    let told = String::from_utf8(output.stdout).expect("a text");
    let places: Vec<String> = told
        .lines()
        .filter_map(|line| line.strip_prefix("at ")?.split_once(": "))
        .map(|(place, _)| place.to_owned())
        .collect();
    assert_eq!(output.status.success(), places.is_empty(), "{told}");
    places
}

/// Checks that with `value` at `pointer` the catalog is refused at `place`.
fn assert_violates(pointer: &str, value: &Value, place: &str) {
    let found =
        violations(|catalog| *catalog.pointer_mut(pointer).expect("a place") = value.clone());
    let near = |found: &&String| found.starts_with(place);
    assert!(
        found.iter().any(|f| near(&f)),
        "{pointer} {value:.60}: {found:?}"
    );
}

/// The same for a field of an object that may not be there yet.
fn assert_field_violates(object: &str, field: &str, value: &Value, place: &str) {
    let found = violations(|catalog| {
        catalog.pointer_mut(object).expect("an object")[field] = value.clone();
    });
    let near = |found: &&String| found.starts_with(place);
    assert!(
        found.iter().any(|f| near(&f)),
        "{field} {value:.60}: {found:?}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn osb_023_the_catalog_has_an_offering() {
    let bench = Bench::on_etcd().await;
    assert!(!offerings(&served(&bench, 17).await).is_empty());
    assert_violates("/services", &json!([]), "services");
}

#[tokio::test(flavor = "multi_thread")]
async fn osb_024_offerings_and_plans_have_what_they_must_have() {
    let bench = Bench::on_etcd().await;
    let catalog = served(&bench, 17).await;
    for thing in offerings(&catalog).iter().chain(plans(&catalog)) {
        for field in ["id", "name", "description"] {
            assert!(!text(&thing[field]).trim().is_empty(), "{field}: {thing}");
        }
    }
    for offering in offerings(&catalog) {
        assert!(offering["bindable"].is_boolean());
        assert!(!offering["plans"].as_array().expect("plans").is_empty());
    }
    for field in ["id", "name", "description"] {
        for blank in [json!(" "), json!(""), json!(null), json!(1)] {
            assert_violates(&format!("/services/0/{field}"), &blank, "services[0]");
            let plan = "services[0].plans[1]";
            assert_violates(&format!("/services/0/plans/1/{field}"), &blank, plan);
        }
    }
    for wrong in [json!("true"), json!(1), json!(null)] {
        assert_violates("/services/0/bindable", &wrong, "services[0].bindable");
    }
    assert_violates("/services/0/plans", &json!([]), "services[0].plans");
}

#[tokio::test(flavor = "multi_thread")]
async fn osb_025_ids_and_names_are_used_once() {
    assert_violates(
        "/services/0/plans/1/id",
        &json!(STANDARD),
        "services[0].plans[1].id",
    );
    assert_violates(
        "/services/0/plans/1/name",
        &json!("Standard"),
        "services[0].plans[1].name",
    );
    for (field, value) in [("id", SERVICE), ("name", "compose-for-etcd")] {
        let found = violations(|catalog| {
            let mut second = catalog["services"][0].clone();
            second["id"] = json!("second");
            second["name"] = json!("second");
            second["plans"].as_array_mut().expect("plans").truncate(1);
            // A plan's id is its own in the whole catalog, its name in the offering.
            second["plans"][0]["id"] = json!("another");
            second[field] = json!(value);
            catalog["services"]
                .as_array_mut()
                .expect("services")
                .push(second);
        });
        assert_eq!(found, [format!("services[1].{field}")]);
    }
    let mut two = two_services();
    assert_eq!(
        violations(|catalog| *catalog = two.clone()),
        Vec::<String>::new()
    );
    two["services"][1]["plans"][0]["id"] = json!(ENTERPRISE);
    let found = violations(|catalog| *catalog = two);
    assert_eq!(found, ["services[1].plans[0].id"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn osb_026_ids_are_the_same_after_a_restart_and_in_each_release() {
    let mut bench = Bench::on_etcd().await;
    let before = served(&bench, 17).await;
    // What platforms have written down: another id here would be another offering.
    assert_eq!(before["services"][0]["id"], SERVICE);
    let ids: Vec<&Value> = plans(&before).map(|plan| &plan["id"]).collect();
    assert_eq!(ids, [STANDARD, ENTERPRISE]);
    bench.restart().await;
    assert_eq!(served(&bench, 17).await, before);
}

#[tokio::test(flavor = "multi_thread")]
async fn osb_027_names_are_fit_for_command_lines() {
    for name in ["two words", "a/b", "ä", "a'b"] {
        assert_violates("/services/0/name", &json!(name), "services[0].name");
        assert_violates(
            "/services/0/plans/0/name",
            &json!(name),
            "services[0].plans[0].name",
        );
    }
    let catalog = catalog_file();
    let plain = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-';
    assert!(text(&catalog["services"][0]["name"]).chars().all(plain));
    // Our plans keep the names that the original had; see T8 for a file with other ones.
    let names: Vec<&Value> = plans(&catalog).map(|plan| &plan["name"]).collect();
    assert_eq!(names, ["Standard", "Enterprise"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn osb_028_descriptions_and_tags_fit_into_cloud_controller() {
    let bench = Bench::on_etcd().await;
    let catalog = served(&bench, 17).await;
    for thing in offerings(&catalog).iter().chain(plans(&catalog)) {
        assert!(text(&thing["description"]).chars().count() <= 255);
    }
    let long = json!("x".repeat(10_001));
    assert_violates("/services/0/description", &long, "services[0].description");
    let place = "services[0].plans[0].description";
    assert_violates("/services/0/plans/0/description", &long, place);
    let tags = json!(vec!["x".repeat(30); 69]);
    assert_violates("/services/0/tags", &tags, "services[0].tags");
    let most = violations(|catalog| {
        catalog["services"][0]["description"] = json!("x".repeat(10_000));
        catalog["services"][0]["tags"] = json!(vec!["x".repeat(32); 64]);
    });
    assert_eq!(most, Vec::<String>::new());
}

#[tokio::test(flavor = "multi_thread")]
async fn osb_029_nothing_is_required_of_the_platform() {
    let bench = Bench::on_etcd().await;
    for offering in offerings(&served(&bench, 17).await) {
        assert_eq!(offering.get("requires"), None);
    }
    let wrong = json!(["pony"]);
    assert_field_violates("/services/0", "requires", &wrong, "services[0].requires");
}

#[tokio::test(flavor = "multi_thread")]
async fn osb_030_metadata_is_an_object_and_shareable_a_boolean() {
    let bench = Bench::on_etcd().await;
    let catalog = served(&bench, 17).await;
    for thing in offerings(&catalog).iter().chain(plans(&catalog)) {
        assert!(thing["metadata"].is_object());
    }
    assert!(catalog["services"][0]["metadata"]["shareable"].is_boolean());
    let place = "services[0].metadata.shareable";
    assert_violates("/services/0/metadata/shareable", &json!("no"), place);
    assert_violates("/services/0/metadata", &json!([]), "services[0].metadata");
}

#[tokio::test(flavor = "multi_thread")]
async fn osb_031_plan_updateable_is_spelt_as_the_specification_does() {
    let bench = Bench::on_etcd().await;
    let catalog = served(&bench, 17).await;
    assert_eq!(catalog["services"][0]["plan_updateable"], false);
    // What would be believed by a platform must be true here, at the offering and at the plan.
    let truth = json!(true);
    assert_violates(
        "/services/0/plan_updateable",
        &truth,
        "services[0].plan_updateable",
    );
    let place = "services[0].plans[0].plan_updateable";
    assert_field_violates("/services/0/plans/0", "plan_updateable", &truth, place);
    let place = "services[0].plan_updatable";
    assert_field_violates("/services/0", "plan_updatable", &truth, place);
}

#[tokio::test(flavor = "multi_thread")]
async fn osb_032_each_plan_says_whether_it_is_free() {
    let bench = Bench::on_etcd().await;
    for plan in plans(&served(&bench, 17).await) {
        assert!(plan["free"].is_boolean(), "{plan}");
    }
    let found = violations(|catalog| {
        let plan = catalog["services"][0]["plans"][0].as_object_mut();
        plan.expect("a plan").remove("free");
    });
    assert_eq!(found, ["services[0].plans[0].free"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn osb_033_what_is_called_retrievable_can_be_retrieved() {
    let bench = Bench::with_instance(json!({})).await;
    let catalog = served(&bench, 17).await;
    assert_eq!(catalog["services"][0]["instances_retrievable"], true);
    assert_eq!(catalog["services"][0]["bindings_retrievable"], true);
    assert_eq!(bench.fetch("i").await.status, StatusCode::OK);
    let accepted = bench.put_binding("b", json!({})).await;
    assert_eq!(
        bench.end_of_binding("b", &accepted).await["state"],
        "succeeded"
    );
    assert_eq!(bench.fetch_binding("b").await.status, StatusCode::OK);
    // Binds are asynchronous, so a platform has to fetch what they made.
    let place = "services[0].bindings_retrievable";
    assert_violates("/services/0/bindings_retrievable", &json!(false), place);
}

#[tokio::test(flavor = "multi_thread")]
async fn osb_034_platforms_are_told_how_long_work_may_take() {
    let bench = Bench::on_etcd().await;
    for plan in plans(&served(&bench, 17).await) {
        let seconds = plan["maximum_polling_duration"].as_u64();
        // Longer than a restore may take: half an hour for the one command, twice.
        assert!(seconds.is_some_and(|s| s >= 2 * 60 * 60), "{plan}");
    }
    for wrong in [json!("3600"), json!(1.5)] {
        let place = "services[0].plans[0].maximum_polling_duration";
        assert_violates(
            "/services/0/plans/0/maximum_polling_duration",
            &wrong,
            place,
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn osb_035_maintenance_info_is_a_version_and_a_description() {
    let bench = Bench::on_etcd().await;
    for plan in plans(&served(&bench, 17).await) {
        let info = plan["maintenance_info"].as_object().expect("an object");
        assert!(
            info.keys()
                .all(|key| ["version", "description"].contains(&key.as_str()))
        );
    }
    let place = "services[0].plans[0].maintenance_info";
    let pointer = "/services/0/plans/0/maintenance_info";
    for version in ["3.5", "v3.5.30", "03.5.30", "3.5.30-", "", "latest"] {
        assert_violates(pointer, &json!({ "version": version }), place);
    }
    for info in [
        json!({ "version": "3.5.30", "public": true }),
        json!({ "description": "x" }),
        json!({ "version": "3.5.30", "description": "x".repeat(2_000) }),
    ] {
        assert_violates(pointer, &info, place);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn osb_036_schemas_are_of_draft_04_and_stand_alone() {
    let bench = Bench::on_etcd().await;
    for plan in plans(&served(&bench, 17).await) {
        let schemas = &plan["schemas"];
        for schema in [
            &schemas["service_instance"]["create"]["parameters"],
            &schemas["service_instance"]["update"]["parameters"],
            &schemas["service_binding"]["create"]["parameters"],
        ] {
            assert_eq!(schema["$schema"], "http://json-schema.org/draft-04/schema#");
            assert!(schema.to_string().len() < 64 * 1024);
            assert!(!schema.to_string().contains("$ref"));
        }
    }
    let pointer = "/services/0/plans/0/schemas/service_instance/create/parameters";
    let place = "services[0].plans[0].schemas.service_instance.create.parameters";
    let draft = "http://json-schema.org/draft-04/schema#";
    for schema in [
        json!({ "type": "object" }),
        json!({ "$schema": "http://json-schema.org/draft-07/schema#", "type": "object" }),
        json!({ "$schema": "http://example.org/own", "type": "object" }),
        json!({ "$schema": draft, "type": "pony" }),
        json!({ "$schema": draft, "$ref": "http://example.org/other.json" }),
        json!({ "$schema": draft, "properties": { "x": { "$ref": "file:///etc/passwd" } } }),
        json!({ "$schema": draft, "description": "x".repeat(65_536) }),
    ] {
        assert_violates(pointer, &schema, place);
    }
}

/// A value that a schema of a property refuses.
fn unfit(schema: &Value) -> Value {
    // Of several types null is the last.
    let types = &schema["type"];
    match text(types.get(0).unwrap_or(types)) {
        "integer" => json!(schema["maximum"].as_i64().expect("a maximum") + 1),
        "boolean" => json!("yes"),
        _ if schema.get("enum").is_some() => json!("none of these"),
        _ => json!("x".repeat(
            usize::try_from(schema["maxLength"].as_u64().expect("a length")).expect("small") + 1
        )),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn osb_037_the_schemas_that_are_shown_are_the_ones_that_hold() {
    let bench = Bench::with_instance(json!({})).await;
    let catalog = served(&bench, 17).await;
    for plan in plans(&catalog) {
        let ids = json!({ "service_id": SERVICE, "plan_id": plan["id"] });
        let schemas = &plan["schemas"];
        for (method, path, body, schema) in [
            (
                Method::PUT,
                instance_path("j"),
                with(provision_body(&json!({})), &ids),
                &schemas["service_instance"]["create"]["parameters"],
            ),
            (
                Method::PATCH,
                instance_path("i"),
                super::ids(),
                &schemas["service_instance"]["update"]["parameters"],
            ),
            (
                Method::PUT,
                binding_path("i", "b"),
                ids.clone(),
                &schemas["service_binding"]["create"]["parameters"],
            ),
        ] {
            assert_eq!(schema["additionalProperties"], false);
            let properties = schema["properties"].as_object().expect("properties");
            let mut cases: Vec<(&str, Value)> = properties
                .iter()
                .flat_map(|(name, schema)| {
                    [(name.as_str(), unfit(schema)), (name.as_str(), json!([]))]
                })
                .collect();
            cases.push(("unknown", json!(1)));
            for (name, value) in cases {
                let parameters = json!({ "parameters": { name: value } });
                let request = bench.osb(method.clone(), &format!("{path}?accepts_incomplete=true"));
                let answer = answer(request.json(&with(body.clone(), &parameters))).await;
                let reason = refused(&answer, StatusCode::BAD_REQUEST);
                assert!(reason.contains("schema"), "{method} {name}: {reason}");
                assert!(reason.contains(name), "{method} {name}: {reason}");
            }
        }
    }
    // What they allow is not refused for its form.
    let _held = bench.script.hold(OperationKind::Provision, "allocate");
    token(
        &bench
            .put("j", json!({ "parameters": { "units": 16 } }))
            .await,
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn osb_038_what_is_newer_than_the_caller_is_not_shown_and_what_is_shown_works() {
    let bench = Bench::with_instance(json!({})).await;
    for (minor, told) in [
        (13, false),
        (15, false),
        (16, false),
        (17, true),
        (18, true),
    ] {
        for plan in plans(&served(&bench, minor).await) {
            assert_eq!(plan.get("binding_rotatable").is_some(), told, "2.{minor}");
        }
    }
    let catalog = served(&bench, 17).await;
    assert_eq!(catalog["services"][0]["allow_context_updates"], true);
    let context = json!({ "instance_name": "renamed" });
    let request = bench.osb(Method::PATCH, &instance_path("i"));
    let body = with(ids(), &json!({ "context": context }));
    let renamed = answer(request.json(&body)).await;
    assert_eq!(renamed.status, StatusCode::OK, "{renamed:?}");
    assert_eq!(Inside::of(&bench).instance("i").await.context, context);
}

#[tokio::test(flavor = "multi_thread")]
async fn osb_040_the_catalog_is_ready_made_and_needs_nothing_else() {
    let bench = Bench::on_etcd().await;
    let bytes = async || {
        let request = bench.osb(Method::GET, "/v2/catalog");
        let response = request.send().await.expect("an answer");
        assert_eq!(response.status(), StatusCode::OK);
        response.bytes().await.expect("a body")
    };
    let first = bytes().await;
    // Nobody gets at the store, no engine is there, and still it is the same, byte for byte.
    let store = lock(&bench);
    let _ = fs::remove_dir_all(bench.data_dir().join("clusters"));
    for _ in 0..20 {
        assert_eq!(bytes().await, first);
    }
    store.release();
}

/// The right to write to a broker's store, which nobody else has meanwhile.
pub enum Lock {
    Sqlite(diesel::SqliteConnection),
    Postgres(diesel::PgConnection),
}

/// Keeps everybody else from writing to a broker's store.
pub fn lock(bench: &Bench) -> Lock {
    let url = bench.store_url();
    let (lock, taken) = if let Some(file) = url.strip_prefix("sqlite://") {
        let mut store = diesel::SqliteConnection::establish(file).expect("the store");
        let taken = store.batch_execute("PRAGMA busy_timeout = 10000; BEGIN IMMEDIATE");
        (Lock::Sqlite(store), taken)
    } else {
        let mut store = diesel::PgConnection::establish(&url).expect("the store");
        // As writers take it.
        let taken = store.batch_execute(&format!(
            "BEGIN; SELECT pg_advisory_xact_lock{POSTGRES_LOCK}"
        ));
        (Lock::Postgres(store), taken)
    };
    taken.expect("the lock");
    lock
}

impl Lock {
    pub fn release(self) {
        let released = match self {
            Self::Sqlite(mut store) => store.batch_execute("ROLLBACK"),
            Self::Postgres(mut store) => store.batch_execute("ROLLBACK"),
        };
        released.expect("its end");
    }
}
