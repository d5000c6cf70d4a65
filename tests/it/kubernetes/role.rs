//! The broker with the role that is shipped for it, and nothing beside it.

use std::{collections::BTreeSet, fs};

use compose_broker::provisioner::kubernetes::RIGHTS;
use serde_json::Value;

use super::{
    databases::Databases, kubeconfig, kubeconfig_of, kubectl, namespace, story, try_kubectl,
};
use crate::{broker::text, control::surroundings, proofs, tidy::root};

/// Whose accounts the test cluster writes down the doings of.
const NAMESPACE: &str = "compose-broker-role";
/// The one of them that the broker of the test has.
const ACCOUNT: &str = "outside";
/// Rights whose use no good day shows: why a pod was not made is asked when it was not, and newer servers
/// ask for the second one of those to whom a command in a pod is allowed.
const UNSEEN: [(&str, &str); 2] = [("list", "events"), ("create", "pods/exec")];

/// What the accounts of the namespace did, as a verb and a resource.
fn done() -> BTreeSet<(String, String)> {
    let log = kubeconfig().with_file_name("control/log/audit.log");
    let log = fs::read_to_string(log).expect("what was written down");
    let mut all = BTreeSet::new();
    for line in log.lines() {
        let event: Value = serde_json::from_str(line).expect("JSON");
        let what = &event["objectRef"];
        if what["namespace"] != NAMESPACE {
            continue;
        }
        let resource = match what["subresource"].as_str() {
            Some(part) => format!("{}/{part}", text(&what["resource"])),
            None => text(&what["resource"]).to_owned(),
        };
        // What is applied and was not there is made.
        if event["verb"] == "patch" && event["responseStatus"]["code"] == 201 {
            all.insert(("create".to_owned(), resource.clone()));
        }
        all.insert((text(&event["verb"]).to_owned(), resource));
    }
    all
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs the cluster of make kubernetes"]
async fn the_shipped_role_is_enough_and_each_of_its_rights_is_used() {
    namespace(NAMESPACE);
    let role = root().join("deploy/kubernetes/databases/role.yaml");
    let role = role.to_str().expect("UTF-8");
    kubectl(&["-n", NAMESPACE, "apply", "-f", role]);
    let folder = tempfile::tempdir().expect("a folder");
    let file = kubeconfig_of(ACCOUNT, NAMESPACE, folder.path());
    // The role's own binding is to the account of the broker in the cluster.
    let account = format!("--serviceaccount={NAMESPACE}:{ACCOUNT}");
    let bind = [
        "create",
        "rolebinding",
        ACCOUNT,
        "--role=compose-broker",
        &account,
    ];
    // It may be there.
    let _ = try_kubectl(&[&["-n", NAMESPACE][..], &bind].concat());
    let cluster = Databases::new("role", "32000-32049").of(NAMESPACE, &file);
    let broker = cluster.broker(&proofs::ON, surroundings()).await;
    story::told(&cluster, &broker).await;

    let done = done();
    for (_, resource, verbs) in RIGHTS {
        for verb in verbs {
            let right = (*verb, resource);
            let is_used = done.contains(&(right.0.to_owned(), right.1.to_owned()));
            assert!(is_used || UNSEEN.contains(&right), "{right:?}: {done:?}");
        }
    }
}
