//! Load balancers of members. The test has the part of a cloud: it gives each an address, of which the cluster's nodes
//! then take packets.

use std::time::Duration;

use futures::FutureExt as _;
use reqwest::{Method, StatusCode};
use serde_json::{Value, json};
use tokio::time::sleep;

use super::{
    databases::{Databases, NAMESPACE, name, told, waited},
    kubectl, node_host,
};
use crate::{
    broker::{TestBroker, answer, binding_path, text},
    control::surroundings,
    etcd,
};

/// An address that is nobody's, and that this machine sends to a node.
fn address(number: usize) -> String {
    let node = node_host();
    let net: Vec<&str> = node.split('.').take(2).collect();
    format!("{}.200.{number}", net.join("."))
}

/// Gives a service an address.
fn give(service: &str, address: &str) {
    let status = json!({ "status": { "loadBalancer": { "ingress": [{ "ip": address }] } } });
    let patch = ["patch", "service", service, "--subresource=status"];
    let how = ["--type=merge", "-p", &status.to_string()];
    kubectl(&[&["-n", NAMESPACE][..], &patch, &how].concat());
}

/// The load balancers of a cluster's members.
fn balancers(cluster: &Databases) -> Vec<Value> {
    let mut all = cluster.all("service");
    all.retain(|service| service["spec"]["type"] == "LoadBalancer");
    all
}

/// Gives each load balancer an address, as long as it is polled.
async fn provider(cluster: &Databases) {
    let mut number = 0;
    loop {
        for service in balancers(cluster) {
            if service["status"]["loadBalancer"]["ingress"].is_null() {
                number += 1;
                give(name(&service), &address(number));
            }
        }
        sleep(Duration::from_secs(1)).await;
    }
}

/// Where applications are told that members are.
fn hosts(credentials: &Value) -> Vec<String> {
    let fields = ["uri", "uri_direct_1", "uri_direct_2"];
    let hosts = fields.map(|field| {
        let uri: url::Url = text(&credentials[field]).parse().expect("a URI");
        uri.host_str().expect("a host").to_owned()
    });
    hosts.to_vec()
}

async fn fetched(broker: &TestBroker) -> Value {
    let fetched = answer(broker.osb(Method::GET, &binding_path("i", "b"))).await;
    assert_eq!(fetched.status, StatusCode::OK, "{fetched:?}");
    fetched.body["credentials"].clone()
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs the cluster of make kubernetes"]
async fn applications_reach_members_by_load_balancers_wherever_these_are() {
    let cluster = Databases::new("balanced", "32050-32099").balanced();
    let broker = cluster.broker(&[], surroundings()).await;
    let accepted = broker
        .put_instance("i", json!({ "db_version": "3.6.16" }))
        .await;
    assert_eq!(accepted.status, StatusCode::ACCEPTED, "{accepted:?}");
    let words = "the cluster's provider has given it no address";
    told(&broker, "i", &accepted.body, words).await;

    let provided = async {
        let end = broker.instance_end("i", &accepted.body).await;
        assert_eq!(end["state"], "succeeded", "{end}");
    };
    tokio::select! {
        () = provided => {}
        () = provider(&cluster) => {}
    }
    let mut given = [1, 2, 3].map(address).to_vec();
    let credentials = broker.bind("i", "b").await;
    let mut found = hosts(&credentials);
    found.sort();
    assert_eq!(found, given);
    for balancer in balancers(&cluster) {
        let told = &balancer["metadata"]["annotations"]["example.org/visible"];
        assert_eq!(told, "no", "{balancer}");
    }
    etcd::fill(&mut etcd::connect(&credentials).await, 20, "v").await;

    // The cloud moves one elsewhere.
    let moved = balancers(&cluster).remove(0);
    let was = text(&moved["status"]["loadBalancer"]["ingress"][0]["ip"]).to_owned();
    given.retain(|address| *address != was);
    given.push(address(9));
    give(name(&moved), &address(9));
    let credentials = waited("credentials that name the new address", || {
        let fetched = fetched(&broker);
        fetched.map(|credentials| {
            let mut found = hosts(&credentials);
            found.sort();
            (found == given).then_some(credentials)
        })
    })
    .await;
    for field in ["uri", "uri_direct_1", "uri_direct_2"] {
        // It may be on its way there.
        let client = waited("a member that serves where it is told to be", || async {
            etcd::connect_to(&credentials, field).await.ok()
        });
        let keys = etcd::dump(&mut client.await).await;
        assert_eq!(keys.len(), 20);
    }
    sleep(Duration::from_secs(1)).await;
    broker.deprovision("i").await;
    assert_eq!(cluster.left(), "");
}
