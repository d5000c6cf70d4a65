//! What is asked of the API server for one member, and in which order.

use std::sync::Mutex;

use super::*;
use crate::provisioner::kubernetes::{
    client::tests::{answer, refusal, request, served},
    place::tests::settings,
};

/// A server that has a member's set and its pod, and what it was told to change.
async fn with_a_member(deployment: &DeploymentId, member: &str) -> (Arc<Cluster>, Asked) {
    let labels = Owned::of(deployment, member, Part::Member).labels(&settings());
    let object = json!({ "metadata": { "name": "any", "uid": "its", "labels": labels } });
    let asked = Asked::default();
    let told = asked.clone();
    let client = served(move |mut connection| {
        let (object, told) = (object.to_string(), told.clone());
        async move {
            while let Some(head) = request(&mut connection).await {
                let (status, body) = told.answer(&head, &object);
                if answer(&mut connection, status, &body).await.is_err() {
                    return;
                }
            }
        }
    });
    let client = client.await;
    (
        Cluster::new(client.clone(), &client, settings(), None),
        asked,
    )
}

/// The changes that were asked for, in their order.
#[derive(Clone, Default)]
struct Asked(Arc<Mutex<Vec<&'static str>>>);

impl Asked {
    fn all(&self) -> Vec<&'static str> {
        self.0.lock().expect("no panic").clone()
    }

    fn answer(&self, head: &str, object: &str) -> (&'static str, String) {
        let mut asked = self.0.lock().expect("no panic");
        let of_pods = head.contains("/pods/");
        match head.split(' ').next() {
            Some("DELETE") if of_pods => asked.push("end the pod"),
            Some("PATCH") if !of_pods => asked.push("let the set have none"),
            Some("GET") if head.contains("/pods?") || head.contains("sets?") => {
                let none = json!({ "metadata": {}, "items": [] });
                return ("200 OK", none.to_string());
            }
            Some("GET") if of_pods && asked.contains(&"end the pod") => {
                let gone = refusal(404, "NotFound", "no such pod");
                return ("404 Not Found", gone);
            }
            _ => {}
        }
        ("200 OK", object.to_owned())
    }
}

#[tokio::test]
async fn a_pod_is_told_to_end_before_its_set_is_for_the_grace_of_the_first_counts() {
    let deployment: DeploymentId = "5ae85b45e5717f0001533192".parse().expect("an id");
    let (cluster, asked) = with_a_member(&deployment, "m0").await;
    let stopped = stop(cluster, deployment, "m0".to_owned(), Duration::ZERO).await;
    stopped.expect("it is stopped");
    assert_eq!(asked.all(), ["end the pod", "let the set have none"]);
}
