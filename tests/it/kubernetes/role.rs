//! The broker with the role that is shipped for it, and nothing beside it; and what of it is used.

use std::{
    collections::BTreeSet,
    fs,
    path::{Path, PathBuf},
};

use compose_broker::provisioner::kubernetes::{RIGHTS, Right};
use serde_json::Value;

use super::{
    databases::{Databases, waited},
    kubeconfig, kubeconfig_of, kubectl, namespace, story, try_kubectl,
};
use crate::{broker::text, control::surroundings, proofs, tidy::root};

/// Whose accounts the test cluster writes down the doings of.
pub const NAMESPACE: &str = "compose-broker-role";
/// Rights whose use no good day shows: why a pod was not made is asked when it was not, and newer servers
/// ask for the second one of those to whom a command in a pod is allowed.
const UNSEEN: [(&str, &str); 2] = [("list", "events"), ("create", "pods/exec")];

/// Gives an account of the namespace the shipped role; a file of contexts for it.
pub fn entitled(account: &str, folder: &Path) -> PathBuf {
    namespace(NAMESPACE);
    let role = root().join("deploy/kubernetes/databases/role.yaml");
    let role = role.to_str().expect("UTF-8");
    kubectl(&["-n", NAMESPACE, "apply", "-f", role]);
    let file = kubeconfig_of(account, NAMESPACE, folder);
    // The role's own binding is to the account of the broker in the cluster.
    let whose = format!("--serviceaccount={NAMESPACE}:{account}");
    let bind = ["create", "rolebinding", account, "--role=compose-broker"];
    // It may be there.
    let _ = try_kubectl(&[&["-n", NAMESPACE][..], &bind, &[&whose]].concat());
    file
}

/// What an account has asked for.
pub struct Request {
    pub verb: String,
    /// A part of a resource stands behind a slash.
    pub resource: String,
    /// Empty where it is asked for in all of them, or is in none.
    pub namespace: String,
    /// Whether it has made an object.
    made: bool,
}

/// What an account of the namespace has asked for there. What goes on is not among it, such as a watch.
pub fn requests(account: &str) -> Vec<Request> {
    let mut all = requests_anywhere(account);
    all.retain(|request| request.namespace == NAMESPACE);
    all
}

/// The verbs and resources of requests. What was applied and was not there was made.
pub fn done(requests: impl Iterator<Item = Request>) -> BTreeSet<(String, String)> {
    let mut done = BTreeSet::new();
    for request in requests {
        if request.made {
            done.insert(("create".to_owned(), request.resource.clone()));
        }
        done.insert((request.verb, request.resource));
    }
    done
}

/// Whether the end of all that was watched is written down among what was done.
pub fn is_whole(done: &BTreeSet<(String, String)>) -> bool {
    done.iter().filter(|(verb, _)| verb == "watch").count() == 3
}

/// Fails where a right is not used.
pub fn each_is_used(rights: &[Right], done: &BTreeSet<(String, String)>) {
    for (_, resource, verbs) in rights {
        for verb in *verbs {
            let right = (*verb, *resource);
            let is_used = done.contains(&(right.0.to_owned(), right.1.to_owned()));
            assert!(is_used || UNSEEN.contains(&right), "{right:?}: {done:?}");
        }
    }
}

/// What an account of the namespace has asked for wherever.
pub fn requests_anywhere(account: &str) -> Vec<Request> {
    let log = kubeconfig().with_file_name("control/log/audit.log");
    let log = fs::read_to_string(log).expect("what was written down");
    let user = format!("system:serviceaccount:{NAMESPACE}:{account}");
    let mut all = Vec::new();
    // The last line may be half a one.
    for line in log
        .split_inclusive('\n')
        .filter(|line| line.ends_with('\n'))
    {
        let event: Value = serde_json::from_str(line).expect("JSON");
        let what = &event["objectRef"];
        if event["user"]["username"] != user || what.is_null() {
            continue;
        }
        let resource = match what["subresource"].as_str() {
            Some(part) => format!("{}/{part}", text(&what["resource"])),
            None => text(&what["resource"]).to_owned(),
        };
        all.push(Request {
            verb: text(&event["verb"]).to_owned(),
            resource,
            namespace: what["namespace"].as_str().unwrap_or_default().to_owned(),
            made: event["responseStatus"]["code"] == 201,
        });
    }
    all
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs the cluster of make kubernetes"]
async fn the_shipped_role_is_enough_and_each_of_its_rights_is_used() {
    let folder = tempfile::tempdir().expect("a folder");
    let file = entitled("outside", folder.path());
    let cluster = Databases::new("role", "32000-32049").of(NAMESPACE, &file);
    let mut broker = cluster.broker(&proofs::ON, surroundings()).await;
    story::told(&cluster, &broker).await;

    // What it has watched is written down when it watches no more.
    broker.stop().await;
    let done = waited("the end of what was watched", || async {
        let done = done(requests("outside").into_iter());
        is_whole(&done).then_some(done)
    })
    .await;
    each_is_used(&RIGHTS, &done);
}
