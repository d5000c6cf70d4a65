//! Whose an instance is, on platforms that tell their tenants apart in different ways.

use reqwest::{Method, StatusCode};
use serde_json::{Value, json};

use crate::{
    broker::{Answer, SERVICE, STANDARD, TestBroker, answer, instance_path, text},
    control::surroundings,
    restores::from,
    transport::description,
};

/// Asks for an instance as a platform does that has no organizations and spaces.
async fn put(broker: &TestBroker, id: &str, context: &Value, parameters: Value) -> Answer {
    put_at("-", broker, id, context, parameters).await
}

/// Asks for an instance in an organization and a space of the same name.
async fn put_at(
    place: &str,
    broker: &TestBroker,
    id: &str,
    context: &Value,
    parameters: Value,
) -> Answer {
    let body = json!({
        "service_id": SERVICE, "plan_id": STANDARD,
        "organization_guid": place, "space_guid": place,
        "context": context, "parameters": parameters,
    });
    let path = format!("{}?accepts_incomplete=true", instance_path(id));
    answer(broker.osb(Method::PUT, &path).json(&body)).await
}

async fn provision(broker: &TestBroker, id: &str, context: &Value, parameters: Value) {
    let accepted = put(broker, id, context, parameters).await;
    assert_eq!(accepted.status, StatusCode::ACCEPTED, "{accepted:?}");
    let end = broker.instance_end(id, &accepted.body).await;
    assert_eq!(end["state"], "succeeded", "{end}");
}

/// The context of Service Manager, which has the same organization and space for everybody.
fn service_manager(tenant: &str, name: &str) -> Value {
    json!({ "platform": "service-manager", "tenant": tenant, "instance_name": name })
}

/// What a refusal says.
fn reason(refused: &Answer) -> String {
    description(refused, StatusCode::BAD_REQUEST).to_owned()
}

async fn owners(broker: &TestBroker, method: Method) -> Value {
    let found = answer(broker.osb(method, "/operator/owners")).await;
    assert_eq!(found.status, StatusCode::OK, "{found:?}");
    found.body["instances"].clone()
}

#[tokio::test(flavor = "multi_thread")]
async fn tenants_without_organizations_of_their_own_restore_from_each_other_nothing() {
    let flags = ["--restore-scope", "organization", "--tenant-units", "2"];
    let broker = TestBroker::start_with(&flags, surroundings()).await;
    let (a, b) = (
        service_manager("tenant-a", "i"),
        service_manager("tenant-b", "i"),
    );
    provision(&broker, "of a", &a, json!({})).await;
    let credentials = broker.bind("of a", "app").await;
    let backup = broker.back_up(&credentials).await;

    let foreign = put(&broker, "of b", &b, from("of a", &backup)).await;
    let unknown = put(&broker, "of b", &b, from("of c", &backup)).await;
    assert_eq!(reason(&foreign), reason(&unknown).replace("of c", "of a"));
    // Without an id of a tenant, and from another platform's tenant of that name.
    for (context, why) in [
        (
            json!({ "platform": "service-manager" }),
            "nothing in the request",
        ),
        (
            json!({ "platform": "service-manager", "tenant": "" }),
            "nothing in the request",
        ),
        (Value::Null, "nothing in the request"),
        (
            json!({ "platform": "other", "tenant": "tenant-a" }),
            "your own",
        ),
        (
            json!({ "platform": "service-manager", "tenant": "tenant-a", "zone_id": "z" }),
            "your own",
        ),
    ] {
        let refused = put(&broker, "of b", &context, from("of a", &backup)).await;
        assert!(reason(&refused).contains(why), "{context}: {refused:?}");
    }
    // The id of an instance does not make another tenant its owner.
    let taken = put(&broker, "of a", &b, json!({})).await;
    assert_eq!(taken.status, StatusCode::CONFLICT, "{taken:?}");
    let repeated = put(
        &broker,
        "of a",
        &service_manager("tenant-a", "j"),
        json!({}),
    )
    .await;
    assert_eq!(repeated.status, StatusCode::OK, "{repeated:?}");

    // What one has does not count against the other.
    provision(&broker, "of b", &b, json!({ "units": 2 })).await;
    provision(&broker, "copy", &a, from("of a", &backup)).await;
    let too_much = put(&broker, "third", &a, json!({})).await;
    assert!(
        reason(&too_much).contains("2 of the 2 unit"),
        "{too_much:?}"
    );
}

/// A platform of which nothing is known sends the same words for everybody, and names its tenants in a
/// way of its own.
#[tokio::test(flavor = "multi_thread")]
async fn words_that_a_platform_sends_for_everybody_tell_nobody_apart() {
    let keys = ["--tenant-keys", "rooms:organization_guid"];
    let broker = TestBroker::in_memory_with(&keys, surroundings()).await;
    let of = |platform: &str, customer: &str| json!({ "platform": platform, "customer": customer, "instance_name": customer });
    for platform in ["paas", "rooms"] {
        let id = format!("{platform} a");
        let accepted = put_at("default", &broker, &id, &of(platform, "a"), json!({})).await;
        assert_eq!(accepted.status, StatusCode::ACCEPTED, "{accepted:?}");
        broker.instance_end(&id, &accepted.body).await;
        let credentials = broker.bind(&id, "app").await;
        let backup = broker.back_up(&credentials).await;
        let copy = format!("{platform} b");
        let parameters = from(&id, &backup);
        let restored = put_at("default", &broker, &copy, &of(platform, "b"), parameters).await;
        if platform == "paas" {
            let why = reason(&restored);
            assert!(why.contains("may send for everybody"), "{why}");
        } else {
            // The operator says that these do.
            assert_eq!(restored.status, StatusCode::ACCEPTED, "{restored:?}");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn who_is_not_told_apart_restores_by_the_token_of_the_instance_alone() {
    let broker = TestBroker::in_memory().await;
    let nobody = json!({ "platform": "service-manager" });
    provision(&broker, "i", &nobody, json!({})).await;
    let credentials = broker.bind("i", "app").await;
    let backup = broker.back_up(&credentials).await;
    let refused = put(&broker, "copy", &nobody, from("i", &backup)).await;
    let why = reason(&refused);
    assert!(why.contains("COMPOSE_BROKER_TENANT_KEYS"), "{why}");

    let path = format!(
        "/deployments/{}/backups/{}/restore",
        text(&credentials["deployment_id"]),
        text(&backup["id"])
    );
    let body = json!({ "deployment": { "name": "copy" } });
    let made = answer(
        broker
            .compose(Method::POST, &credentials, &path)
            .json(&body),
    )
    .await;
    assert_eq!(made.status, StatusCode::ACCEPTED, "{made:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn instances_keep_their_owner_until_an_operator_says_otherwise() {
    let mut broker = TestBroker::in_memory().await;
    let of = |tenant: &str| json!({ "platform": "ours", "department": tenant });
    provision(&broker, "i", &of("a"), json!({})).await;
    let credentials = broker.bind("i", "app").await;
    let backup = broker.back_up(&credentials).await;
    assert_eq!(owners(&broker, Method::GET).await, json!([]));

    broker.stop().await;
    broker.also(&["--tenant-keys", "ours:department"]);
    broker.start_again(surroundings()).await;
    let missing = put(&broker, "j", &json!({ "platform": "ours" }), json!({})).await;
    assert!(reason(&missing).contains("\"department\""), "{missing:?}");
    let refused = put(&broker, "copy", &of("a"), from("i", &backup)).await;
    assert!(reason(&refused).contains("your own"), "{refused:?}");

    let seen = owners(&broker, Method::GET).await;
    let mut finding = json!({
        "instance_id": "i", "changed": false,
        "owner": { "platform": "ours", "organization": "-", "space": "-", "account": {} },
        "named": {
            "platform": "ours", "organization": "-", "space": "-",
            "account": { "department": "a" },
        },
    });
    assert_eq!(seen, json!([finding]));
    assert_eq!(
        owners(&broker, Method::GET).await,
        seen,
        "looking changes nothing"
    );
    finding["changed"] = json!(true);
    assert_eq!(owners(&broker, Method::POST).await, json!([finding]));
    assert_eq!(owners(&broker, Method::POST).await, json!([]));
    let audit = answer(broker.osb(Method::GET, "/operator/audit?instance=i")).await;
    assert_eq!(audit.body["entries"][0]["action"], "owner");

    let foreign = put(&broker, "copy", &of("b"), from("i", &backup)).await;
    assert!(reason(&foreign).contains("your own"), "{foreign:?}");
    provision(&broker, "copy", &of("a"), from("i", &backup)).await;
}
