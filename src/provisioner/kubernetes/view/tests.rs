//! What is known of members, against an API server that has three kinds of objects and tells of their changes.

use std::{collections::HashSet, time::Duration};

use serde_json::{Value, json};
use tokio::{
    io::AsyncWriteExt as _,
    net::TcpStream,
    sync::mpsc::{UnboundedSender, unbounded_channel},
};

use super::*;
use crate::provisioner::kubernetes::client::tests::{answer, request, served};

const ID: &str = "5ae85b45e5717f0001533192";
const KINDS: [&str; 3] = ["StatefulSet", "Pod", "Service"];

fn id() -> DeploymentId {
    ID.parse().expect("an id")
}

/// What the server has, and who is told of its changes.
#[derive(Default)]
struct There {
    version: u64,
    /// By kind and name.
    objects: BTreeMap<(&'static str, String), Value>,
    told: Vec<(&'static str, UnboundedSender<String>)>,
    lists: usize,
}

#[derive(Clone, Default)]
struct ApiServer(Arc<Mutex<There>>);

impl ApiServer {
    /// A server, and what is known of it.
    async fn begin() -> (Self, View) {
        let server = Self::default();
        let serving = server.clone();
        let client = served(move |connection| serving.clone().serve(connection)).await;
        (server, View::new(&client, "any=one"))
    }

    async fn serve(self, mut connection: TcpStream) {
        while let Some(head) = request(&mut connection).await {
            let paths = ["/statefulsets?", "/pods?", "/services?"];
            let kind = paths.iter().position(|path| head.contains(path));
            let kind = KINDS[kind.expect("a kind")];
            if !head.contains("watch=true") {
                let answered = answer(&mut connection, "200 OK", &self.list(kind)).await;
                answered.expect("an answer");
                continue;
            }
            let (told, mut changes) = unbounded_channel();
            locked(&self.0).told.push((kind, told));
            let head = "HTTP/1.1 200 OK\r\nconnection: close\r\n\r\n";
            let begun = connection.write_all(head.as_bytes()).await;
            begun.expect("the beginning of an answer");
            while let Some(change) = changes.recv().await {
                if connection.write_all(change.as_bytes()).await.is_err() {
                    break;
                }
            }
            return;
        }
    }

    fn list(&self, kind: &str) -> String {
        let mut there = locked(&self.0);
        there.lists += 1;
        let its = there.objects.iter().filter(|((of, _), _)| *of == kind);
        let its: Vec<&Value> = its.map(|(_, object)| object).collect();
        let meta = json!({ "resourceVersion": there.version.to_string() });
        json!({ "kind": format!("{kind}List"), "metadata": meta, "items": its }).to_string()
    }

    fn tell(&self, kind: &str, change: &str, object: &Value) {
        let told = json!({ "type": change, "object": object }).to_string() + "\n";
        let mut there = locked(&self.0);
        let all = there.told.iter_mut().filter(|(of, _)| *of == kind);
        // One that is gone is told of nothing.
        all.for_each(|(_, to)| drop(to.send(told.clone())));
    }

    /// Has an object from now on, and tells nobody.
    fn put_unheard(&self, kind: &'static str, name: &str) -> Value {
        let mut there = locked(&self.0);
        there.version += 1;
        let version = if kind == "StatefulSet" {
            "apps/v1"
        } else {
            "v1"
        };
        let object = json!({
            "apiVersion": version, "kind": kind,
            "metadata": {
                "name": name, "namespace": "here", "uid": format!("uid of {name}"),
                "resourceVersion": there.version.to_string(),
                "labels": { labels::DEPLOYMENT: ID },
            },
        });
        there
            .objects
            .insert((kind, name.to_owned()), object.clone());
        object
    }

    fn put(&self, kind: &'static str, name: &str) {
        let object = self.put_unheard(kind, name);
        self.tell(kind, "MODIFIED", &object);
    }

    fn remove(&self, kind: &'static str, name: &str) {
        let object = locked(&self.0).objects.remove(&(kind, name.to_owned()));
        self.tell(kind, "DELETED", &object.expect("an object"));
    }

    /// What somebody is answered who asks.
    fn members(&self) -> Members {
        let there = locked(&self.0);
        let of = |kind: &str| -> Vec<Value> {
            let its = there.objects.iter().filter(|((of, _), _)| *of == kind);
            its.map(|(_, object)| object.clone()).collect()
        };
        let [sets, pods, services] = KINDS.map(|kind| json!(of(kind)));
        Members {
            sets: serde_json::from_value(sets).expect("sets"),
            pods: serde_json::from_value(pods).expect("pods"),
            services: serde_json::from_value(services).expect("services"),
        }
    }

    fn lists(&self) -> usize {
        locked(&self.0).lists
    }

    /// Waits until it is asked to tell of the changes of all kinds.
    async fn is_watched(&self) {
        until(|| {
            let there = locked(&self.0);
            let kinds: HashSet<&str> = there.told.iter().map(|(kind, _)| *kind).collect();
            kinds.len() == KINDS.len()
        })
        .await;
    }

    /// Ends what it tells of changes.
    fn hang_up(&self) {
        locked(&self.0).told.clear();
    }
}

async fn until(is_so: impl Fn() -> bool) {
    let waiting = async {
        while !is_so() {
            sleep(Duration::from_millis(5)).await;
        }
    };
    let waited = tokio::time::timeout(Duration::from_secs(20), waiting).await;
    waited.expect("it never came about");
}

/// The names of the pods that are known.
fn pods(view: &View) -> Option<Vec<String>> {
    let members = view.members("here", &id())?;
    let names = members.pods.into_iter().map(|pod| pod.metadata.name);
    Some(names.map(|name| name.expect("a name")).collect())
}

async fn knows(view: &View, names: &[&str]) {
    let names: Vec<String> = names.iter().map(|&name| name.to_owned()).collect();
    until(|| pods(view).as_ref() == Some(&names)).await;
}

#[tokio::test]
async fn what_is_known_follows_what_is_there_and_nobody_asks() {
    let (server, view) = ApiServer::begin().await;
    server.is_watched().await;
    knows(&view, &[]).await;
    for name in ["b", "a", "a"] {
        server.put("Pod", name);
    }
    knows(&view, &["a", "b"]).await;
    server.put("StatefulSet", "s");
    server.remove("Pod", "b");
    knows(&view, &["a"]).await;
    until(|| {
        view.members("here", &id())
            .is_some_and(|of| of.sets.len() == 1)
    })
    .await;
    let other = "5ae85b45e5717f0001533193".parse().expect("an id");
    assert!(
        view.members("here", &other)
            .expect("it is known")
            .pods
            .is_empty()
    );
    assert_eq!(server.lists(), 3);
}

#[tokio::test]
async fn one_that_the_broker_has_changed_is_asked_about_until_the_same_is_known() {
    let (server, view) = ApiServer::begin().await;
    server.is_watched().await;
    knows(&view, &[]).await;
    view.changes(&id());
    let unheard = server.put_unheard("Pod", "a");
    assert_eq!(pods(&view), None);
    let compare = |asked_after| view.compare("here", &id(), asked_after, &server.members());
    compare(view.changes_so_far());
    assert_eq!(pods(&view), None, "it was not heard of yet");
    server.tell("Pod", "ADDED", &unheard);
    until(|| {
        view.known("here", &id())
            .is_some_and(|of| of.pods.len() == 1)
    })
    .await;
    // Who asked before the last change knows nothing of that one.
    let before = view.changes_so_far();
    view.changes(&id());
    compare(before);
    assert_eq!(pods(&view), None);
    compare(view.changes_so_far());
    assert_eq!(pods(&view), Some(vec!["a".to_owned()]));
}

#[tokio::test]
async fn a_watch_that_ends_goes_on_and_one_that_breaks_begins_anew() {
    let (server, view) = ApiServer::begin().await;
    server.is_watched().await;
    server.put("Pod", "a");
    knows(&view, &["a"]).await;
    // Ended by the server.
    server.hang_up();
    server.is_watched().await;
    server.put("Pod", "b");
    knows(&view, &["a", "b"]).await;
    assert_eq!(server.lists(), 3);
    // It has forgotten what came after the version that it was asked from.
    server.put_unheard("Pod", "c");
    let expired = json!({
        "kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure",
        "message": "too old resource version", "reason": "Expired", "code": 410,
    });
    server.tell("Pod", "ERROR", &expired);
    until(|| pods(&view).is_none()).await;
    knows(&view, &["a", "b", "c"]).await;
    assert_eq!(server.lists(), 4);
}

#[tokio::test]
async fn an_object_of_another_namespace_is_none_of_a_member_s_whatever_its_labels() {
    let (server, view) = ApiServer::begin().await;
    server.is_watched().await;
    server.put("Pod", "a");
    knows(&view, &["a"]).await;
    let mut theirs = server.put_unheard("Pod", "b");
    theirs["metadata"]["namespace"] = json!("elsewhere");
    theirs["metadata"]["name"] = json!("a");
    for change in ["ADDED", "DELETED"] {
        server.tell("Pod", change, &theirs);
    }
    server.put("Pod", "c");
    knows(&view, &["a", "c"]).await;
    assert!(
        view.members("elsewhere", &id()).is_none(),
        "it is not watched"
    );
}
