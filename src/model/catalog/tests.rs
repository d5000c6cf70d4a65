//! Catalogs as they are written, and what is wrong with them.

use serde_json::json;

use super::*;

const OURS: &str = include_str!("../../../catalog.json");

fn parse(value: &Value) -> Result<Catalog, CatalogErrors> {
    Catalog::parse(&value.to_string(), &["etcd"])
}

fn changed(pointer: &str, value: Value) -> CatalogError {
    let mut document: Value = serde_json::from_str(OURS).expect("JSON");
    change(&mut document, pointer, value);
    let mut found = parse(&document).expect_err("refused").0;
    assert_eq!(found.len(), 1, "{found:?}");
    found.remove(0)
}

fn change(document: &mut Value, pointer: &str, value: Value) {
    let (parent, key) = pointer.rsplit_once('/').expect("a pointer");
    let parent = document.pointer_mut(parent).expect("a place");
    match parent {
        Value::Object(map) => drop(map.insert(key.to_owned(), value)),
        Value::Array(list) => list[key.parse::<usize>().expect("an index")] = value,
        _ => panic!("no place"),
    }
}

#[test]
fn our_own_catalog_is_sound_and_keeps_our_rules_to_itself() {
    let catalog = Catalog::parse(OURS, &["etcd"]).expect("sound");
    let shown = String::from_utf8_lossy(&catalog.served(true).body);
    assert!(!shown.contains("\"broker\""));
    let served: Value = serde_json::from_str(&shown).expect("JSON");
    let offering = &served["services"][0];
    assert_eq!(offering["name"], "compose-for-etcd");
    assert_eq!(offering["plans"][0]["name"], "Standard");
    assert_eq!(offering["plans"][1]["name"], "Enterprise");
}

#[test]
fn a_broken_catalog_names_the_place() {
    let standard_id = "/services/0/plans/0/id";
    let first = serde_json::from_str::<Value>(OURS)
        .expect("JSON")
        .pointer(standard_id)
        .expect("an id")
        .clone();
    let cases = [
        ("/services/0/plans/1/id", first, "services[0].plans[1].id"),
        (
            "/services/0/plans/0/free",
            json!("no"),
            "services[0].plans[0].free",
        ),
        (
            "/services/0/plan_updatable",
            json!(true),
            "services[0].plan_updatable",
        ),
        ("/services/0/name", json!("two words"), "services[0].name"),
        (
            "/services/0/description",
            json!(" "),
            "services[0].description",
        ),
        ("/services/0/plans", json!([]), "services[0].plans"),
        (
            "/services/0/requires",
            json!(["a_pony"]),
            "services[0].requires",
        ),
        (
            "/services/0/broker/engine",
            json!("oracle"),
            "services[0].broker.engine",
        ),
        (
            "/services/0/plans/0/maintenance_info",
            json!({"version": "1.0"}),
            "services[0].plans[0].maintenance_info.version",
        ),
        (
            "/services/0/plans/0/maintenance_info",
            json!({"version": "3.5.30-rc.1"}),
            "services[0].plans[0].maintenance_info.version",
        ),
        (
            "/services/0/plan_updateable",
            json!(true),
            "services[0].plan_updateable",
        ),
        (
            "/services/0/plans/1/plan_updateable",
            json!(true),
            "services[0].plans[1].plan_updateable",
        ),
        (
            "/services/0/plans/0/schemas/service_instance/create/parameters/$schema",
            json!("http://json-schema.org/draft-07/schema#"),
            "services[0].plans[0].schemas.service_instance.create.parameters",
        ),
        (
            "/services/0/plans/0/schemas/service_instance/create/parameters/type",
            json!("objekt"),
            "services[0].plans[0].schemas.service_instance.create.parameters",
        ),
        ("/services", json!([]), "services"),
    ];
    for (pointer, value, path) in cases {
        assert_eq!(changed(pointer, value).path, path);
    }
}

#[test]
fn parameters_are_held_to_the_schema_that_is_shown() {
    let catalog = Catalog::parse(OURS, &["etcd"]).expect("sound");
    let plan = &catalog.offerings[0].plans[0];
    assert_eq!(plan.provision_schema.check(&json!({})), Ok(()));
    assert_eq!(
        plan.provision_schema
            .check(&json!({"units": 4, "db_version": "3.5.16"})),
        Ok(())
    );
    let wrong = plan
        .provision_schema
        .check(&json!({"units": "four"}))
        .expect_err("a string");
    assert!(wrong.contains("units"), "{wrong}");
    assert!(
        plan.provision_schema
            .check(&json!({"unit": 4}))
            .expect_err("a typo")
            .contains("\"unit\" is none of its parameters")
    );
    assert!(plan.bind_schema.check(&json!({"x": 1})).is_err());
}

#[test]
fn everything_that_is_wrong_is_told_at_once() {
    let mut document: Value = serde_json::from_str(OURS).expect("JSON");
    let broken = [
        ("/services/0/name", json!("two words"), "services[0].name"),
        ("/services/0/bindable", json!("yes"), "services[0].bindable"),
        (
            "/services/0/tags",
            json!(["x".repeat(3000)]),
            "services[0].tags",
        ),
        (
            "/services/0/plans/0/free",
            json!(1),
            "services[0].plans[0].free",
        ),
        (
            "/services/0/plans/0/price",
            json!(1),
            "services[0].plans[0].price",
        ),
        (
            "/services/0/plans/1/maintenance_info",
            json!({ "version": "1", "note": "" }),
            "services[0].plans[1].maintenance_info.version",
        ),
        (
            "/services/0/plans/1/name",
            json!("Standard"),
            "services[0].plans[1].name",
        ),
        (
            "/services/0/plans/1/broker/placement",
            json!("anywhere"),
            "services[0].plans[1].broker.placement",
        ),
        ("/extra", json!({}), "extra"),
    ];
    let mut expected = vec!["services[0].plans[1].maintenance_info.note"];
    for (pointer, value, path) in broken {
        change(&mut document, pointer, value);
        expected.push(path);
    }
    document["services"][0]["plans"][0]
        .as_object_mut()
        .expect("a plan")
        .remove("description");
    expected.push("services[0].plans[0].description");
    let found = parse(&document).expect_err("refused");
    let mut paths: Vec<&str> = found.0.iter().map(|e| e.path.as_str()).collect();
    paths.sort_unstable();
    expected.sort_unstable();
    assert_eq!(paths, expected);
    let line = found.to_string();
    assert!(
        line.contains("and 10 more") && !line.contains('\n'),
        "{line}"
    );
    for text in ["", "[]", "5", "{\"services\": 1}", "{", "{}{}"] {
        assert!(Catalog::parse(text, &["etcd"]).is_err(), "{text}");
    }
}

/// The file `shape.json` and the types say the same: what one lets through, the other does.
#[test]
fn the_shape_that_is_checked_is_the_shape_that_is_read() {
    let ours: Value = serde_json::from_str(OURS).expect("JSON");
    let mut places = Vec::new();
    collect(&ours, String::new(), &mut places);
    assert!(places.len() > 100);
    for place in places {
        for value in [
            Value::Null,
            json!(true),
            json!(-1),
            json!("x"),
            json!([]),
            json!({}),
        ] {
            let mut changed = ours.clone();
            change(&mut changed, &place, value.clone());
            let reads = Document::deserialize(&changed).is_ok();
            let violations = check::violations(&changed, &["etcd"]);
            // Not everything that can be read is sound, but what cannot be read never is.
            assert!(reads || !violations.is_empty(), "{place}: {value}");
        }
    }
}

fn collect(value: &Value, at: String, places: &mut Vec<String>) {
    if !at.is_empty() {
        places.push(at.clone());
    }
    match value {
        Value::Object(map) => {
            for (key, value) in map {
                let key = key.replace('~', "~0").replace('/', "~1");
                collect(value, format!("{at}/{key}"), places);
            }
        }
        Value::Array(items) => {
            for (i, value) in items.iter().enumerate() {
                collect(value, format!("{at}/{i}"), places);
            }
        }
        _ => {}
    }
}

#[test]
fn equal_catalogs_have_equal_tags_and_others_have_others() {
    let parse = |text: &str| Catalog::parse(text, &["etcd"]).expect("sound");
    let value: Value = serde_json::from_str(OURS).expect("JSON");
    let (ours, compact) = (parse(OURS), parse(&value.to_string()));
    for rotation in [true, false] {
        assert_eq!(ours.served(rotation), compact.served(rotation));
    }
    assert_ne!(ours.served(true).tag, ours.served(false).tag);
    assert_eq!(ours.served(true).tag.len(), 32);
    let mut other = value;
    change(&mut other, "/services/0/description", json!("Another"));
    let other = parse(&other.to_string());
    assert_ne!(ours.served(true).tag, other.served(true).tag);
}

#[test]
fn a_plan_says_how_old_its_proved_backups_may_be() {
    const HOURS: &str = "/services/0/plans/0/broker/proved_backup_hours";
    let mut document: Value = serde_json::from_str(OURS).expect("JSON");
    let id = |pointer: &str, of: &Value| {
        of.pointer(pointer)
            .and_then(Value::as_str)
            .map(str::to_owned)
    };
    let service = id("/services/0/id", &document).expect("an id");
    let plan = id("/services/0/plans/0/id", &document).expect("an id");
    let within = |document: &Value| {
        let catalog = parse(document).expect("a catalog");
        catalog.rules_of(&service, &plan).proved_backup_hours
    };
    assert_eq!(within(&document), 26);
    change(&mut document, HOURS, json!(50));
    assert_eq!(within(&document), 50);
    let gone = parse(&document)
        .expect("a catalog")
        .rules_of("gone", "gone");
    assert_eq!(gone.proved_backup_hours, 26);
    for wrong in [0, 24, 8_761] {
        let error = changed(HOURS, json!(wrong));
        assert!(error.path.ends_with("proved_backup_hours"), "{error:?}");
    }
}
