//! A namespace for each tenant, and a broker that has the roles alone that are shipped for it.

use std::{collections::BTreeSet, fs, path::Path};

use compose_broker::provisioner::kubernetes::{
    DATABASES_RIGHTS, RESIDENCES_RIGHTS, TENANTS_RIGHTS,
};
use reqwest::StatusCode;
use serde_json::{Value, json};

use super::{
    databases::{Databases, name, told, waited},
    kubectl,
    role::{NAMESPACE, done, each_is_used, entitled, is_whole, requests_anywhere},
    story, try_kubectl,
};
use crate::{
    broker::{TestBroker, new_folder, text},
    control::surroundings,
    etcd, proofs,
    tidy::root,
};

const ACCOUNT: &str = "tenants";
/// Two databases and a proof.
const CLAIMS_MAX: &str = "7";

fn user() -> String {
    format!("system:serviceaccount:{NAMESPACE}:{ACCOUNT}")
}

/// Applies what is shipped for the namespaces of tenants, for the account and the namespace of this test.
fn entitle(folder: &Path) {
    let [role, tenants, databases, bounds] =
        ["role", "tenants", "databases", "bounds"].map(|file| {
            let path = format!("deploy/kubernetes/tenants/{file}.yaml");
            fs::read_to_string(root().join(path)).expect("a file")
        });
    let account = format!("name: {ACCOUNT}, namespace: {NAMESPACE} }}");
    let for_us = |text: String| {
        text.replace(
            "name: compose-broker, namespace: compose-broker }",
            &account,
        )
        .replace(
            "namespace: compose-broker-databases",
            &format!("namespace: {NAMESPACE}"),
        )
        .replace(
            "system:serviceaccount:compose-broker:compose-broker",
            &user(),
        )
        .replace("'compose-broker-databases-'", &format!("'{NAMESPACE}-'"))
    };
    let all = [for_us(role), for_us(tenants), databases, for_us(bounds)];
    let path = folder.join("tenants.yaml");
    fs::write(&path, all.join("\n---\n")).expect("written");
    kubectl(&["apply", "-f", path.to_str().expect("UTF-8")]);
}

/// Nobody gets further with the account than into namespaces that are called like those of tenants.
async fn is_kept_within_bounds() {
    let as_it = format!("--as={}", user());
    let role = "--clusterrole=compose-broker-databases";
    let elsewhere = [
        "-n",
        "kube-system",
        "create",
        "rolebinding",
        "theirs",
        role,
        "--user=they",
    ];
    let asked: [&[&str]; 3] = [
        &["create", "namespace", "theirs"],
        &["delete", "namespace", NAMESPACE],
        &elsewhere,
    ];
    for asked in asked {
        let how = ["--dry-run=server", as_it.as_str()];
        // It takes a moment until what was applied counts.
        waited(&format!("a refusal of {asked:?}"), || async {
            let words = try_kubectl(&[asked, &how].concat()).err()?;
            let is_ours = words.contains("the namespaces of tenants alone");
            is_ours.then_some(())
        })
        .await;
    }
}

/// Makes an instance for a space.
async fn provision(broker: &TestBroker, space: &str, id: &str) {
    let wanted = json!({ "db_version": "3.6.16" });
    let accepted = broker.put_instance_in(space, id, wanted).await;
    assert_eq!(accepted.status, StatusCode::ACCEPTED, "{accepted:?}");
    let end = broker.instance_end(id, &accepted.body).await;
    assert_eq!(end["state"], "succeeded", "{end}");
}

/// The namespace that the pods of a database are in.
fn namespace_of(cluster: &Databases, credentials: &Value) -> String {
    let deployment = text(&credentials["deployment_id"]);
    let pods = cluster.pods().into_iter();
    let its = pods.filter(|pod| {
        pod["metadata"]["labels"]["compose-broker/deployment"].as_str() == Some(deployment)
    });
    let namespaces: BTreeSet<String> = its
        .map(|pod| text(&pod["metadata"]["namespace"]).to_owned())
        .collect();
    let mut namespaces = namespaces.into_iter();
    let found = namespaces.next().expect("a pod");
    assert_eq!(namespaces.next(), None);
    found
}

/// The one of a kind that each namespace of a tenant has.
fn bound(kind: &str, namespace: &str) -> Value {
    let told = kubectl(&["-n", namespace, "get", kind, "compose-broker", "-o", "json"]);
    serde_json::from_str(&told).expect("JSON")
}

/// What is in each namespace of a tenant, whatever databases are.
fn is_bounded(cluster: &Databases, namespace: &str, space: &str) {
    let all = cluster.all("namespace");
    let found = all.iter().find(|of| name(of) == namespace);
    let meta = &found.expect("a namespace")["metadata"];
    assert_eq!(
        meta["labels"]["pod-security.kubernetes.io/enforce"],
        "restricted"
    );
    let whose = text(&meta["annotations"]["compose-broker/tenant"]);
    assert!(whose.contains(&format!("{space:?}")), "{whose}");
    let quota = bound("resourcequota", namespace);
    assert_eq!(quota["spec"]["hard"]["persistentvolumeclaims"], CLAIMS_MAX);
    let policy = bound("networkpolicy", namespace);
    assert_eq!(policy["spec"]["podSelector"], json!({}));
    assert_eq!(policy["spec"]["policyTypes"], json!(["Ingress", "Egress"]));
    assert_eq!(policy["spec"]["ingress"], Value::Null);
    assert_eq!(
        bound("rolebinding", namespace)["subjects"][0]["name"],
        user().as_str()
    );
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs the cluster of make kubernetes"]
async fn each_tenant_has_a_namespace_and_the_shipped_roles_are_enough_and_used() {
    let folder = tempfile::tempdir().expect("a folder");
    let file = entitled(ACCOUNT, folder.path());
    entitle(folder.path());
    is_kept_within_bounds().await;
    let quota = json!({ "limits.memory": "16Gi", "persistentvolumeclaims": CLAIMS_MAX });
    let cluster = Databases::new("tenants", "32150-32199").of(NAMESPACE, &file);
    let mut cluster = cluster.for_tenants(&quota);
    let home = new_folder();
    let clusters = cluster.file(&home);
    let flags = [&["--clusters", &clusters][..], &proofs::ON].concat();
    let mut broker = TestBroker::start_in(home.clone(), &flags, surroundings()).await;
    story::told(&cluster, &broker).await;

    // Two tenants at once.
    tokio::join!(
        provision(&broker, "blue", "one"),
        provision(&broker, "green", "other"),
    );
    let (one, other) = (
        broker.bind("one", "b").await,
        broker.bind("other", "b").await,
    );
    let [blue, green] = [&one, &other].map(|of| namespace_of(&cluster, of));
    assert_ne!(blue, green);
    for (namespace, space) in [(&blue, "blue"), (&green, "green")] {
        assert!(
            namespace.starts_with(&format!("{NAMESPACE}-")),
            "{namespace}"
        );
        is_bounded(&cluster, namespace, space);
    }
    for credentials in [&one, &other] {
        let mut client = etcd::connect(credentials).await;
        etcd::fill(&mut client, 20, "v").await;
        assert_eq!(etcd::dump(&mut client).await.len(), 20);
    }

    // More than a tenant may have.
    provision(&broker, "blue", "second").await;
    let wanted = json!({ "db_version": "3.6.16" });
    let accepted = broker.put_instance_in("blue", "third", wanted).await;
    assert_eq!(accepted.status, StatusCode::ACCEPTED, "{accepted:?}");
    told(&broker, "third", &accepted.body, "the cluster refuses").await;
    broker.deprovision("third").await;
    assert_eq!(cluster.all("persistentvolumeclaim").len(), 9);
    assert_eq!(cluster.all("configmap").len(), 3);

    // The operator takes the quota away.
    broker.stop().await;
    cluster.set_quota(&json!({}));
    assert_eq!(cluster.file(&home), clusters);
    broker.start_again(surroundings()).await;
    waited("namespaces without a quota", || async {
        cluster.all("resourcequota").is_empty().then_some(())
    })
    .await;
    assert_eq!(etcd::dump(&mut etcd::connect(&one).await).await.len(), 20);

    broker.deprovision("other").await;
    let left: Vec<String> = cluster
        .all("namespace")
        .iter()
        .map(|of| name(of).to_owned())
        .collect();
    assert_eq!(left, [blue]);
    for id in ["one", "second"] {
        broker.deprovision(id).await;
    }
    assert_eq!(cluster.left(), "");

    // What it has watched is written down when it watches no more.
    broker.stop().await;
    waited("the end of what was watched", || async {
        is_whole(&done_where(str::is_empty)).then_some(())
    })
    .await;
    each_is_used(
        &RESIDENCES_RIGHTS,
        &done_where(|namespace| namespace == NAMESPACE),
    );
    let in_tenants = |namespace: &str| namespace.starts_with(&format!("{NAMESPACE}-"));
    each_is_used(&DATABASES_RIGHTS, &done_where(in_tenants));
    // A namespace is in itself, as the API server writes down; what is heard of is in all of them.
    let (made, heard) = TENANTS_RIGHTS.split_at(2);
    each_is_used(made, &done_where(in_tenants));
    each_is_used(heard, &done_where(str::is_empty));
}

/// What the account did in some namespaces, or in none.
fn done_where(is_there: impl Fn(&str) -> bool) -> BTreeSet<(String, String)> {
    let all = requests_anywhere(ACCOUNT).into_iter();
    done(all.filter(|request| is_there(&request.namespace)))
}
