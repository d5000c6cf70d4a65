//! What befalls a whole cluster: nodes that end or are emptied, an API server that is away. These tests have
//! the cluster to themselves, one at a time.

use std::{process::Command, time::Duration};

use reqwest::{Method, StatusCode};
use serde_json::{Value, json};
use tokio::time::{Instant, sleep};

use super::{
    databases::{Databases, NAMESPACE, is_ready, name, uid},
    evict, kubectl, try_kubectl,
};
use crate::{
    broker::{answer, text},
    control::surroundings,
    repair,
    tidy::root,
    updates::{GAP_MAX, Writer, assert_same_everywhere},
};

/// A node that nobody reaches the cluster by.
const NODE: &str = "n3";
/// How long the API server is away: longer than a broker holds its lease, than a call may take, and than a
/// member that hangs is left alone.
const AWAY: Duration = Duration::from_secs(75);

/// Runs a script of the test cluster.
fn script(name: &str, argument: &str) {
    let path = root().join("scripts/kubernetes").join(name);
    let ended = Command::new(path).arg(argument).output().expect("a script");
    assert!(ended.status.success(), "{name} {argument}: {ended:?}");
}

/// Has the cluster as it was when a test ends, whatever comes of it. What is dropped after it may ask the API
/// server.
struct Mended(&'static dyn Fn());

impl Drop for Mended {
    fn drop(&mut self) {
        (self.0)();
    }
}

fn node_of(pod: &Value) -> &str {
    text(&pod["spec"]["nodeName"])
}

/// The member that is on a node.
fn member_on(cluster: &Databases, node: &str) -> Value {
    let pods = cluster.pods();
    let found = pods.into_iter().find(|pod| node_of(pod) == node);
    found.unwrap_or_else(|| panic!("no member on {node}"))
}

fn member_of(pod: &Value) -> &str {
    text(&pod["metadata"]["labels"]["compose-broker/member"])
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs the cluster of make kubernetes, alone"]
async fn a_member_whose_node_ends_comes_back_with_it() {
    let cluster = Databases::new("node", "31800-31849");
    let broker = cluster.broker(&[], surroundings()).await;
    let credentials = repair::with_keys(&broker, "3.6.16").await;
    cluster.ready(3).await;
    let pod = member_on(&cluster, NODE);
    let member = member_of(&pod);
    let writer = Writer::start_slow(&credentials);

    script("down.sh", NODE);
    let lost = Instant::now();
    cluster
        .pod_that(member, "is not ready", |pod| !is_ready(pod))
        .await;
    println!("its node was missed after {:.0?}", lost.elapsed());
    let is_given_up = |pod: &Value| !pod["metadata"]["deletionTimestamp"].is_null();
    cluster.pod_that(member, "was given up", is_given_up).await;
    println!("it was given up after {:.0?}", lost.elapsed());
    // Others are served meanwhile, and nobody takes the volume from the one that may still run.
    broker.bind("i", "meanwhile").await;
    assert_eq!(cluster.all("persistentvolumeclaim").len(), 3);

    script("up.sh", NODE);
    let back = Instant::now();
    cluster.ready(3).await;
    println!("it served {:.0?} after its node was back", back.elapsed());
    assert_ne!(uid(&cluster.pod(member).expect("a pod")), uid(&pod));
    let written = writer.end().await;
    println!("{written:?}");
    assert!(written.longest_gap < GAP_MAX, "{written:?}");
    assert_same_everywhere(&credentials, written.keys).await;
    broker.deprovision("i").await;
    assert_eq!(cluster.left(), "");
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs the cluster of make kubernetes, alone"]
async fn a_drain_takes_one_member_at_a_time() {
    let cluster = Databases::new("drain", "31850-31899");
    let broker = cluster.broker(&[], surroundings()).await;
    let credentials = repair::with_keys(&broker, "3.5.35").await;
    cluster.ready(3).await;
    let (second, third) = (member_on(&cluster, "n2"), member_on(&cluster, "n3"));
    let _mended = Mended(&|| {
        kubectl(&["uncordon", "n2", "n3"]);
    });
    let writer = Writer::start_slow(&credentials);
    let drain = |node: &str, limit: &str| {
        let how = ["--ignore-daemonsets", "--delete-emptydir-data", limit];
        try_kubectl(&[&["drain", node][..], &how].concat())
    };
    drain("n2", "--timeout=120s").expect("emptied");
    // Its volume is on that node: it waits for it. Another one is not taken meanwhile.
    let waits = |pod: &Value| uid(pod) != uid(&second) && !is_ready(pod);
    cluster.pod_that(member_of(&second), "waits", waits).await;
    let refused = evict(NAMESPACE, name(&third)).expect_err("a budget");
    assert!(refused.contains("disruption budget"), "{refused}");
    drain("n3", "--timeout=10s").expect_err("a budget");
    let kept = cluster.pod(member_of(&third)).expect("a pod");
    assert!(uid(&kept) == uid(&third) && is_ready(&kept), "{kept}");

    // Back on its node it serves, and the drain of the other one goes on.
    kubectl(&["uncordon", "n2"]);
    drain("n3", "--timeout=120s").expect("emptied");
    kubectl(&["uncordon", "n3"]);
    cluster.ready(3).await;
    let written = writer.end().await;
    println!("{written:?}");
    assert!(written.longest_gap < GAP_MAX, "{written:?}");
    assert_same_everywhere(&credentials, written.keys).await;
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs the cluster of make kubernetes, alone"]
async fn operations_wait_for_an_api_server_and_applications_do_not() {
    let cluster = Databases::new("away", "31900-31949");
    let broker = cluster.broker(&[], surroundings()).await;
    let credentials = repair::with_keys(&broker, "3.5.35").await;
    cluster.ready(3).await;
    let before: Vec<Value> = cluster.pods();
    let _mended = Mended(&|| script("api.sh", "go-on"));
    let writer = Writer::start_slow(&credentials);

    script("api.sh", "hang");
    let begun = Instant::now();
    let accepted = repair::patch(&broker, json!({ "db_version": "3.6.16" })).await;
    assert_eq!(accepted.status, StatusCode::ACCEPTED, "{accepted:?}");
    let path = format!(
        "/v2/service_instances/i/last_operation?operation={}",
        text(&accepted.body["operation"])
    );
    while begun.elapsed() < AWAY {
        let told = answer(broker.osb(Method::GET, &path)).await.body;
        assert_eq!(told["state"], "in progress", "{told}");
        sleep(Duration::from_secs(5)).await;
    }
    script("api.sh", "go-on");
    let back = Instant::now();
    let end = broker.instance_end("i", &accepted.body).await;
    assert_eq!(end["state"], "succeeded", "{end}");
    println!(
        "upgraded {:.0?} after the API server was back",
        back.elapsed()
    );
    // It was none of the members' doing.
    let alerts = repair::alerts(&broker, &credentials).await.to_string();
    assert!(!alerts.contains("gave no sign of life"), "{alerts}");
    cluster.ready(3).await;
    let restarts = |pod: &Value| pod["status"]["containerStatuses"][0]["restartCount"].clone();
    let all: Vec<Value> = cluster.pods().iter().map(restarts).collect();
    assert_eq!(all, [0, 0, 0], "{before:?}");

    // It ends, and begins anew.
    script("api.sh", "end");
    broker.provision("other", json!({})).await;
    let written = writer.end().await;
    println!("{written:?}");
    assert!(written.longest_gap < GAP_MAX, "{written:?}");
    assert_same_everywhere(&credentials, written.keys).await;
    for id in ["i", "other"] {
        broker.deprovision(id).await;
    }
    assert_eq!(cluster.left(), "");
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs the cluster of make kubernetes, alone"]
async fn a_broker_that_begins_while_the_api_server_is_away_goes_on_when_it_is_back() {
    let cluster = Databases::new("begun", "31950-31999");
    let mut broker = cluster.broker(&[], surroundings()).await;
    let credentials = repair::with_keys(&broker, "3.5.35").await;
    cluster.ready(3).await;
    let writer = Writer::start_slow(&credentials);
    broker.stop().await;
    let mended = Mended(&|| script("api.sh", "go-on"));
    script("api.sh", "hang");
    broker.start_again(surroundings()).await;
    let accepted = repair::patch(&broker, json!({ "db_version": "3.6.16" })).await;
    assert_eq!(accepted.status, StatusCode::ACCEPTED, "{accepted:?}");
    drop(mended);
    let end = broker.instance_end("i", &accepted.body).await;
    assert_eq!(end["state"], "succeeded", "{end}");
    broker.bind("i", "afterwards").await;
    broker.provision("other", json!({})).await;
    let written = writer.end().await;
    println!("{written:?}");
    assert!(written.longest_gap < GAP_MAX, "{written:?}");
    for id in ["i", "other"] {
        broker.deprovision(id).await;
    }
    assert_eq!(cluster.left(), "");
}
