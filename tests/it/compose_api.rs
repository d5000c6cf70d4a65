//! What the Compose API tells beside backups, recipes and changes: deployments, clusters,
//! databases.

use std::collections::BTreeSet;

use compose_broker::model::limits::{BILLING_CODE_BYTES_MAX, NOTES_BYTES_MAX};
use reqwest::{Method, StatusCode};
use serde_json::{Value, json};

use crate::{
    broker::{Answer, TestBroker, answer, encoded, eventually, new_folder, text},
    clusters,
    control::surroundings,
    etcd,
};

/// What stands at a path below an instance, with and without a slash at its end.
async fn get(broker: &TestBroker, credentials: &Value, path: &str) -> Answer {
    let ask = |path: String| answer(broker.compose(Method::GET, credentials, &path));
    // The broker may look at the members between the two.
    eventually("the same at both addresses", || async {
        let plain = ask(path.to_owned()).await;
        let slash = ask(format!("{path}/")).await;
        assert_eq!(plain.status, slash.status);
        (without_ends(&plain.body) == without_ends(&slash.body)).then_some(plain)
    })
    .await
}

/// An answer without what follows the address of each link, and without the health: until when the one is
/// good, and what the other says, differ from second to second.
fn without_ends(value: &Value) -> Value {
    match value {
        Value::String(link) if link.contains("expires=") => {
            json!(link.split('?').next().unwrap_or_default())
        }
        Value::Array(all) => all.iter().map(without_ends).collect(),
        Value::Object(fields) => {
            let fields = fields
                .iter()
                .filter(|(name, _)| *name != "health")
                .map(|(name, of)| (name.clone(), without_ends(of)));
            Value::Object(fields.collect())
        }
        other => other.clone(),
    }
}

async fn found(broker: &TestBroker, credentials: &Value, path: &str) -> Value {
    let answer = get(broker, credentials, path).await;
    assert_eq!(answer.status, StatusCode::OK, "{answer:?}");
    answer.body
}

/// What each of a list's members says in a field.
fn each<'a>(list: &'a Value, of: &str, field: &str) -> Vec<&'a str> {
    let list = list["_embedded"][of].as_array().expect("a list");
    list.iter().map(|one| text(&one[field])).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_token_lists_its_deployment_and_what_was_restored_from_it() {
    let broker = TestBroker::start().await;
    broker.provision("source", json!({})).await;
    broker.provision("other", json!({})).await;
    let source = broker.bind("source", "b").await;
    let other = broker.bind("other", "b").await;
    let id = text(&source["deployment_id"]);
    let alone = found(&broker, &source, "/deployments").await;
    assert_eq!(each(&alone, "deployments", "id"), [id]);
    let mut single = found(&broker, &source, &format!("/deployments/{id}")).await;
    let fields = single.as_object_mut().expect("an object");
    fields
        .remove("connection_strings")
        .expect("how to reach it");
    assert_eq!(alone["_embedded"]["deployments"][0], single);

    // What users write down beside it.
    let path = format!("/deployments/{id}");
    let patched = async |deployment: Value| {
        let request = broker.compose(Method::PATCH, &source, &path);
        answer(request.json(&json!({ "deployment": deployment }))).await
    };
    let written = json!({ "notes": "ours:\nof Ada \u{1f980}", "customer_billing_code": "42" });
    let answered = patched(written).await;
    assert_eq!(answered.status, StatusCode::OK, "{answered:?}");
    let answered = patched(json!({ "customer_billing_code": "", "notes": null, "x": 1 })).await;
    assert_eq!(answered.status, StatusCode::OK, "{answered:?}");
    let now = found(&broker, &source, &path).await;
    assert_eq!(now, answered.body);
    assert_eq!(now["notes"], "ours:\nof Ada \u{1f980}");
    assert_eq!(now["customer_billing_code"], "");
    for bad in [
        json!({ "notes": 1 }),
        json!({ "notes": "x".repeat(NOTES_BYTES_MAX + 1) }),
        json!({ "customer_billing_code": "x".repeat(BILLING_CODE_BYTES_MAX + 1) }),
        json!({ "notes": "\0" }),
    ] {
        let refused = patched(bad).await;
        assert_eq!(refused.status, StatusCode::BAD_REQUEST, "{refused:?}");
    }
    assert_eq!(found(&broker, &source, &path).await, now);
    let foreign = answer(
        broker
            .compose(Method::PATCH, &other, &path)
            .json(&json!({})),
    )
    .await;
    assert_eq!(foreign.status, StatusCode::NOT_FOUND, "{foreign:?}");

    // What the broker restored here is in the list of the source, and not the other way round.
    let backup = broker.back_up(&source).await;
    let path = format!("/deployments/{id}/backups/{}/restore", text(&backup["id"]));
    let restored = answer(broker.compose(Method::POST, &source, &path)).await;
    assert_eq!(restored.status, StatusCode::ACCEPTED, "{restored:?}");
    let recipe = json!({ "id": restored.body["provision_recipe_id"] });
    broker.recipe_end(&source, &recipe).await;
    let restored_id = text(&restored.body["id"]);
    let both = found(&broker, &source, "/deployments").await;
    assert_eq!(each(&both, "deployments", "id"), [id, restored_id]);
    let mut below = source.clone();
    below["instance_administration_api"]["instance_id"] = restored.body["instance_id"].clone();
    let there = found(&broker, &below, "/deployments").await;
    assert_eq!(each(&there, "deployments", "id"), [restored_id]);
    let foreign = found(&broker, &other, "/deployments").await;
    assert_eq!(
        each(&foreign, "deployments", "id"),
        [text(&other["deployment_id"])]
    );
    let mut crossed = source.clone();
    crossed["instance_administration_api"]["token"] =
        other["instance_administration_api"]["token"].clone();
    let refused = get(&broker, &crossed, "/deployments").await;
    assert_eq!(refused.status, StatusCode::NOT_FOUND, "{refused:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn clusters_are_those_that_a_user_may_choose_or_has() {
    let folder = new_folder();
    let described = clusters::described(&folder);
    let broker = clusters::start(&folder, &described, surroundings()).await;
    clusters::provision(&broker, "chosen", json!({ "cluster_id": "blue" })).await;
    broker.provision("given", json!({})).await;
    let chosen = clusters::bind(&broker, "chosen").await;
    let given = broker.bind("given", "b").await;
    let all = found(&broker, &chosen, "/clusters").await;
    assert_eq!(each(&all, "clusters", "id"), ["red", "blue"]);
    insta::assert_json_snapshot!(all["_embedded"]["clusters"][1]);
    let one = found(&broker, &chosen, "/clusters/blue").await;
    assert_eq!(one, all["_embedded"]["clusters"][1]);
    let own = found(&broker, &given, "/clusters").await;
    assert_eq!(each(&own, "clusters", "id"), ["red"]);
    for unseen in ["blue", "nobody", "..%2Fred", "%00", "re%64x"] {
        let refused = get(&broker, &given, &format!("/clusters/{unseen}")).await;
        assert_eq!(refused.status, StatusCode::NOT_FOUND, "{refused:?}");
        assert_eq!(
            refused.body,
            json!({ "errors": { "base": ["there is no such cluster"] } })
        );
    }

    // A cluster's own service instance tells of itself alone, to its users and to the platform.
    let path = format!(
        "/api/2016-07/instances/{}/clusters",
        encoded(clusters::BLUE)
    );
    let asked = [
        broker.osb(Method::GET, &path),
        broker
            .anonymous(Method::GET, &path)
            .bearer_auth(text(&chosen["instance_administration_api"]["token"])),
    ];
    for request in asked {
        let told = answer(request).await;
        assert_eq!(each(&told.body, "clusters", "id"), ["blue"], "{told:?}");
    }
    let below = answer(broker.osb(Method::GET, &path.replace("clusters", "deployments"))).await;
    assert_eq!(below.status, StatusCode::NOT_FOUND, "{below:?}");

    // Versions are those of the clusters that may be chosen.
    let versions = |databases: &Value| -> BTreeSet<String> {
        let all = databases["_embedded"]["applications"][0]["_embedded"]["versions"].clone();
        let all = all.as_array().expect("versions").clone();
        all.iter().map(|v| text(&v["version"]).to_owned()).collect()
    };
    let databases = found(&broker, &chosen, "/databases").await;
    insta::assert_json_snapshot!(databases);
    let databases = found(&broker, &given, "/databases").await;
    let of_red = ["3.4.23", "3.5.16"].map(str::to_owned).into();
    assert_eq!(versions(&databases), of_red);
}

/// Clients have one address for all that they know, and put the ids below it that it listed.
#[tokio::test(flavor = "multi_thread")]
async fn what_a_path_lists_it_serves() {
    let broker = TestBroker::start().await;
    broker.provision("source", json!({})).await;
    broker.provision("other", json!({})).await;
    let source = broker.bind("source", "b").await;
    let other = broker.bind("other", "b").await;
    etcd::fill(&mut etcd::connect(&source).await, 5, "v").await;
    let own = text(&source["deployment_id"]).to_owned();
    let backup = broker.back_up(&source).await;
    let restore = async |deployment: &str, backup: &Value, name: &str| {
        let backup = text(&backup["id"]);
        let path = format!("/deployments/{deployment}/backups/{backup}/restore");
        let request = broker.compose(Method::POST, &source, &path);
        let wanted = json!({ "deployment": { "name": name } });
        let made = answer(request.json(&wanted)).await;
        assert_eq!(made.status, StatusCode::ACCEPTED, "{made:?}");
        let recipe = json!({ "id": made.body["provision_recipe_id"] });
        let end = broker.recipe_end(&source, &recipe).await;
        assert_eq!(end["status"], "complete", "{end}");
        text(&made.body["id"]).to_owned()
    };
    let child = restore(&own, &backup, "child").await;

    // All that is asked for at the one address is done to the restored one, and found there.
    let path = format!("/deployments/{child}");
    let request = broker.compose(Method::PATCH, &source, &path);
    let noted = json!({ "deployment": { "notes": "from the source" } });
    let noted = answer(request.json(&noted)).await;
    assert_eq!(noted.body["notes"], "from the source", "{noted:?}");
    let of_child = {
        let mut at_the_source = source.clone();
        at_the_source["deployment_id"] = json!(child);
        broker.back_up(&at_the_source).await
    };
    assert_eq!(of_child["deployment_id"], child);
    let scaled = broker.compose(Method::POST, &source, &format!("{path}/scalings"));
    let scaled = answer(scaled.json(&json!({ "deployment": { "units": 2 } }))).await;
    assert_eq!(scaled.status, StatusCode::OK, "{scaled:?}");
    broker.recipe_end(&source, &scaled.body).await;
    let grandchild = restore(&child, &of_child, "grandchild").await;

    let listed = found(&broker, &source, "/deployments").await;
    assert_eq!(
        each(&listed, "deployments", "id"),
        [&own, &child, &grandchild]
    );
    assert_eq!(
        each(&listed, "deployments", "name"),
        ["compose-broker-etcd-source", "child", "grandchild"]
    );
    for id in [&own, &child, &grandchild] {
        let path = format!("/deployments/{id}");
        assert_eq!(found(&broker, &source, &path).await["id"], id.as_str());
        for (list, below) in [
            ("backups", &path),
            ("logfiles", &path),
            ("recipes", &String::new()),
        ] {
            let all = found(&broker, &source, &format!("{path}/{list}")).await;
            for one in each(&all, list, "id") {
                let one = found(&broker, &source, &format!("{below}/{list}/{one}")).await;
                assert_eq!(one["deployment_id"], id.as_str(), "{list}: {one}");
            }
        }
        for list in ["alerts", "versions", "scalings"] {
            found(&broker, &source, &format!("{path}/{list}")).await;
        }
        // It is nobody else's, at whatever address.
        if *id != own {
            for list in ["", "/backups", "/recipes", "/logfiles"] {
                let refused = get(&broker, &other, &format!("{path}{list}")).await;
                assert_eq!(refused.status, StatusCode::NOT_FOUND, "{refused:?}");
            }
        }
    }
}

/// What clients ask for before anything else, and link to.
#[tokio::test(flavor = "multi_thread")]
async fn a_token_tells_who_it_is_of_and_where_to_look() {
    let folder = new_folder();
    let described = clusters::described(&folder);
    let broker = clusters::start(&folder, &described, surroundings()).await;
    clusters::provision(&broker, "chosen", json!({ "cluster_id": "blue" })).await;
    broker.provision("given", json!({})).await;
    let chosen = clusters::bind(&broker, "chosen").await;
    let given = broker.bind("given", "b").await;
    let one = found(&broker, &given, "/datacenters").await;
    assert_eq!(
        one["_embedded"]["datacenters"],
        json!([{ "region": "red", "provider": "local", "slug": "local:red" }])
    );
    let all = found(&broker, &chosen, "/datacenters").await;
    assert_eq!(
        each(&all, "datacenters", "slug"),
        ["local:red", "local:blue"]
    );
    let user = found(&broker, &given, "/user").await;
    assert_eq!(user["name"], "binding b");
    let theirs = found(&broker, &chosen, "/user").await;
    assert_ne!(
        theirs["id"], user["id"],
        "the same name of another instance"
    );
    let path = format!("/deployments/{}", text(&given["deployment_id"]));
    let deployment = found(&broker, &given, &path).await;
    let accounts = found(&broker, &given, "/accounts").await;
    let account = json!({
        "id": deployment["account_id"], "slug": deployment["account_id"], "name": "org / space",
    });
    assert_eq!(accounts["_embedded"]["accounts"], json!([account]));
    let page = format!("{}/dashboard/instances/given", broker.url);
    assert_eq!(
        deployment["_links"]["compose_web_ui"],
        json!({ "href": page, "templated": false })
    );
    // The token signs in there, and stands beside the address.
    assert_eq!(
        given["instance_administration_api"]["dashboard_url"],
        json!(page)
    );

    // A cluster's own service instance belongs to the operator.
    let path = format!("/api/2016-07/instances/{}", encoded(clusters::BLUE));
    let told = async |what: &str| {
        let told = answer(broker.osb(Method::GET, &format!("{path}/{what}"))).await;
        assert_eq!(told.status, StatusCode::OK, "{told:?}");
        told.body
    };
    assert_eq!(told("user").await["name"], "platform");
    let cluster = found(&broker, &chosen, "/clusters/blue").await;
    let accounts = told("accounts").await;
    assert_eq!(
        each(&accounts, "accounts", "id"),
        [text(&cluster["account_id"])]
    );
    assert_eq!(
        each(&told("datacenters").await, "datacenters", "region"),
        ["blue"]
    );
}

/// Scripts cut the instance's id out of the name that they know.
#[tokio::test(flavor = "multi_thread")]
async fn deployments_are_called_as_the_operator_wants_and_keep_their_names() {
    let form = "bmix-eu-{engine}-{instance}";
    let mut broker = TestBroker::start_with(&["--deployment-names", form], surroundings()).await;
    broker.provision("i-1", json!({})).await;
    let credentials = broker.bind("i-1", "b").await;
    assert_eq!(credentials["name"], "bmix-eu-etcd-i-1");
    let backup = broker.back_up(&credentials).await;
    let name = text(&backup["name"]);
    assert!(name.starts_with("bmix-eu-etcd-i-1_"), "{name}");
    broker.change_flag("--deployment-names", "other-{instance}");
    broker.restart_with(surroundings()).await;
    let listed = found(&broker, &broker.bind("i-1", "c").await, "/deployments").await;
    assert_eq!(each(&listed, "deployments", "name"), ["bmix-eu-etcd-i-1"]);
    broker.provision("i-2", json!({})).await;
    assert_eq!(broker.bind("i-2", "b").await["name"], "other-i-2");
}
