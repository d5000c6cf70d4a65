//! Where deployments are, against an API server that has objects by their paths.

use std::{collections::HashSet, time::Duration};

use tokio::{net::TcpStream, time::sleep};

use super::*;
use crate::{
    model::tenant::{self, Tenant},
    provisioner::{
        ProvisionerError,
        kubernetes::{
            client::tests::{answer, refusal, served, whole_request},
            place::tests,
        },
    },
};

const ONE: &str = "5ae85b45e5717f0001533192";
const OTHER: &str = "5ae85b45e5717f0001533193";
/// The broker's own namespace.
const OWN: &str = "/api/v1/namespaces/here";
/// How long a namespace takes to go.
const ENDS_WITHIN: Duration = Duration::from_millis(300);

/// What the server has, by path, and what it was asked for.
#[derive(Default)]
struct There {
    objects: BTreeMap<String, Value>,
    asked: Vec<String>,
}

#[derive(Clone, Default)]
struct ApiServer(Arc<Mutex<There>>);

impl ApiServer {
    /// A server, and the cluster that it is of.
    async fn begin(settings: &Settings) -> (Self, Arc<Cluster>) {
        let server = Self::default();
        let serving = server.clone();
        let client = served(move |connection| serving.clone().serve(connection)).await;
        let cluster = Cluster::new(client.clone(), &client, settings.clone(), None);
        (server, cluster)
    }

    fn there(&self) -> MutexGuard<'_, There> {
        self.0.lock().expect("no panic")
    }

    async fn serve(self, mut connection: TcpStream) {
        while let Some((head, body)) = whole_request(&mut connection).await {
            let (status, body) = self.answer(&head, &body);
            let status = format!("{status} .");
            if answer(&mut connection, &status, &body).await.is_err() {
                return;
            }
        }
    }

    fn answer(&self, head: &str, body: &[u8]) -> (u16, String) {
        let mut words = head.split(' ');
        let (verb, target) = (words.next().expect("a verb"), words.next().expect("a path"));
        let (path, query) = target.split_once('?').unwrap_or((target, ""));
        if query.contains("watch=") || path.ends_with("sets") || path.ends_with("pods") {
            return (200, json!({ "metadata": {}, "items": [] }).to_string());
        }
        let mut there = self.there();
        let path = path.trim_end_matches('/').to_owned();
        there.asked.push(format!("{verb} {path}"));
        if is_within_a_tenant_s(&path) && !there.is_entered(&path) {
            return (403, refusal(403, "Forbidden", "no role"));
        }
        let body: Value = serde_json::from_slice(body).unwrap_or_default();
        match (verb, there.objects.get(&path).cloned()) {
            ("POST", _) if path.ends_with("selfsubjectreviews") => {
                let status = json!({ "userInfo": { "username": "the-broker" } });
                (201, json!({ "metadata": {}, "status": status }).to_string())
            }
            ("POST", _) => {
                let name = body["metadata"]["name"].as_str().expect("a name");
                let path = format!("{path}/{name}");
                if there.objects.contains_key(&path) {
                    return (409, refusal(409, "AlreadyExists", "it is there"));
                }
                there.objects.insert(path, body.clone());
                (201, body.to_string())
            }
            ("PATCH", _) => {
                let mut body = body;
                if kind(&path) == "resourcequotas" {
                    body["status"] = json!({ "hard": body["spec"]["hard"] });
                }
                there.objects.insert(path, body.clone());
                (200, body.to_string())
            }
            ("DELETE", Some(object)) => {
                self.delete(&mut there, &path);
                (200, object.to_string())
            }
            ("GET", Some(object)) => (200, object.to_string()),
            ("GET", None) if is_a_list(&path) => (200, there.list(&path, query)),
            _ => (404, refusal(404, "NotFound", "it is not there")),
        }
    }

    /// A namespace goes after a while, with all that is in it.
    fn delete(&self, there: &mut There, path: &str) {
        if kind(path) != "namespaces" {
            there.objects.remove(path);
            return;
        }
        let ending = there.objects.get_mut(path).expect("a namespace");
        ending["metadata"]["deletionTimestamp"] = json!("2026-12-01T00:00:00Z");
        let (server, path) = (self.clone(), path.to_owned());
        tokio::spawn(async move {
            sleep(ENDS_WITHIN).await;
            server.there().objects.retain(|of, _| !is_in(of, &path));
        });
    }

    fn put(&self, path: &str, object: Value) {
        self.there().objects.insert(path.to_owned(), object);
    }

    fn object(&self, path: &str) -> Option<Value> {
        self.there().objects.get(path).cloned()
    }

    /// The paths of all objects.
    fn paths(&self) -> Vec<String> {
        self.there().objects.keys().cloned().collect()
    }

    /// What was asked for since this was asked last.
    fn asked(&self) -> Vec<String> {
        std::mem::take(&mut self.there().asked)
    }
}

impl There {
    /// Whether the broker has its role where this is.
    fn is_entered(&self, path: &str) -> bool {
        let of = namespace(path).expect("it is in one");
        let mut all = self.objects.keys();
        all.any(|path| namespace(path) == Some(of) && kind(path) == "rolebindings")
    }

    fn list(&self, path: &str, query: &str) -> String {
        let query = url::form_urlencoded::parse(query.as_bytes());
        let mut selectors = query.filter(|(name, _)| name == "labelSelector");
        let selector = selectors
            .next()
            .map_or(String::new(), |(_, of)| of.into_owned());
        let is_wanted = |object: &&Value| {
            let mut wanted = selector.split(',').filter_map(|of| of.split_once('='));
            wanted.all(|(label, value)| object["metadata"]["labels"][label] == value)
        };
        let its = self.objects.iter();
        let its = its.filter(|(of, _)| of.rsplit_once('/').is_some_and(|(of, _)| of == path));
        let its: Vec<&Value> = its.map(|(_, object)| object).filter(is_wanted).collect();
        json!({ "metadata": {}, "items": its }).to_string()
    }
}

/// The parts of a path behind the version of its group.
fn parts(path: &str) -> Vec<&str> {
    let all: Vec<&str> = path.split('/').skip(1).collect();
    let skipped = if all[0] == "api" { 2 } else { 3 };
    all.into_iter().skip(skipped).collect()
}

fn namespace(path: &str) -> Option<&str> {
    match parts(path)[..] {
        ["namespaces", of, ..] => Some(of),
        _ => None,
    }
}

/// The kind of an object, or of a list.
fn kind(path: &str) -> &str {
    match parts(path)[..] {
        ["namespaces", _, kind, ..] | [kind, ..] => kind,
        [] => "",
    }
}

fn is_a_list(path: &str) -> bool {
    matches!(parts(path)[..], ["namespaces", _, _] | [_])
}

/// Whether it is done by a role that the broker gives itself.
fn is_within_a_tenant_s(path: &str) -> bool {
    let is_bound = !["namespaces", "rolebindings"].contains(&kind(path));
    is_bound && namespace(path).is_some_and(|of| of != "here")
}

fn is_in(path: &str, of: &str) -> bool {
    namespace(path) == namespace(of)
}

fn settings(quota: Option<&[(&str, &str)]>) -> Settings {
    let text = |(name, amount): &(&str, &str)| ((*name).to_owned(), (*amount).to_owned());
    Settings {
        namespace: "here".to_owned(),
        tenants: quota.map(|hard| TenantNamespaces {
            quota: hard.iter().map(text).collect(),
        }),
        ..tests::settings()
    }
}

fn tenant(space: &str) -> Tenant {
    tenant::tests::tenant("acme", space)
}

fn id(text: &str) -> DeploymentId {
    text.parse().expect("an id")
}

/// The residences in a cluster as a broker finds them that begins.
async fn residences(cluster: &Arc<Cluster>) -> Arc<Residences> {
    let listed = list(&cluster.client, &cluster.settings).await;
    Residences::new(cluster.clone(), listed.expect("a list"))
}

/// The same cluster with other settings.
fn with(cluster: &Cluster, settings: &Settings) -> Arc<Cluster> {
    let client = &cluster.client;
    Cluster::new(client.clone(), client, settings.clone(), None)
}

/// The namespace that a deployment comes to be in.
async fn settled(residences: &Residences, tenant: &Tenant, deployment: &str) -> String {
    let id = id(deployment);
    let place = residences
        .settle(tenant.owning(&id))
        .await
        .expect("a place");
    place.settings.namespace.clone()
}

/// Where a deployment is known to be.
async fn found(residences: &Residences, deployment: &str) -> String {
    let place = residences.of(&id(deployment)).await.expect("a place");
    place.settings.namespace.clone()
}

#[tokio::test]
async fn a_namespace_comes_with_the_first_deployment_and_goes_with_the_last() {
    let (server, cluster) = ApiServer::begin(&settings(Some(&[("pods", "20")]))).await;
    let residences = residences(&cluster).await;
    server.asked();
    let blue = tenant("blue");
    let of_blue = settled(&residences, &blue, ONE).await;
    let path = format!("/api/v1/namespaces/{of_blue}");
    // What says where it is was there before anything else.
    let made = server.asked().into_iter();
    let made: Vec<String> = made.filter(|asked| !asked.starts_with("GET")).collect();
    assert_eq!(
        made,
        [
            format!("POST {OWN}/configmaps"),
            format!("PATCH {path}"),
            "POST /apis/authentication.k8s.io/v1/selfsubjectreviews".to_owned(),
            format!(
                "PATCH /apis/rbac.authorization.k8s.io/v1/namespaces/{of_blue}/rolebindings/compose-broker"
            ),
            format!(
                "PATCH /apis/networking.k8s.io/v1/namespaces/{of_blue}/networkpolicies/compose-broker"
            ),
            format!("PATCH {path}/resourcequotas/compose-broker"),
        ]
    );
    let quota = server.object(&format!("{path}/resourcequotas/compose-broker"));
    assert_eq!(quota.expect("a quota")["spec"]["hard"]["pods"], "20");
    assert_eq!(settled(&residences, &blue, OTHER).await, of_blue);
    assert_ne!(
        settled(&residences, &tenant("green"), "5ae85b45e5717f0001533194").await,
        of_blue
    );
    assert_eq!(
        residences.deployments().await.expect("deployments").len(),
        3
    );

    residences.leave(&id(ONE)).await.expect("gone");
    assert!(server.object(&path).is_some(), "another one is there");
    assert_eq!(found(&residences, OTHER).await, of_blue);
    residences.leave(&id(OTHER)).await.expect("gone");
    let left = server.paths();
    assert!(!left.iter().any(|path| path.contains(&of_blue)), "{left:?}");
    assert_eq!(
        residences.deployments().await.expect("deployments").len(),
        1
    );
    residences
        .leave(&id("5ae85b45e5717f0001533194"))
        .await
        .expect("gone");
    assert_eq!(server.paths(), Vec::<String>::new());
    // It is nowhere, and nothing is done about it.
    residences.leave(&id(ONE)).await.expect("gone before");
}

#[tokio::test]
async fn a_deployment_stays_where_it_is_whatever_settings_say_later() {
    let (server, cluster) = ApiServer::begin(&settings(None)).await;
    let blue = tenant("blue");
    let before = residences(&cluster).await;
    assert_eq!(settled(&before, &blue, ONE).await, "here");
    let labels = Owned::of(&id(ONE), "m0", Part::Member).labels(&cluster.settings);
    let service = json!({ "metadata": { "name": "s", "labels": labels } });
    server.put(&format!("{OWN}/services/s"), service);

    let split = with(&cluster, &settings(Some(&[])));
    let meanwhile = residences(&split).await;
    assert_eq!(settled(&meanwhile, &blue, ONE).await, "here");
    let of_blue = settled(&meanwhile, &blue, OTHER).await;
    assert_ne!(of_blue, "here");

    server.asked();
    let after = residences(&cluster).await;
    assert_eq!(found(&after, ONE).await, "here");
    assert_eq!(found(&after, OTHER).await, of_blue);
    assert_eq!(settled(&after, &blue, OTHER).await, of_blue);
    let id = id(OTHER);
    let possible = after.possible(blue.owning(&id));
    assert_eq!(possible.len(), 1);
    assert_eq!(possible[0].settings.namespace, of_blue);
    // All of that was known from one look.
    assert_eq!(server.asked(), [format!("GET {OWN}/configmaps")]);
    after.leave(&id).await.expect("gone");
    assert_eq!(server.paths(), [format!("{OWN}/services/s")]);
}

#[tokio::test]
async fn what_another_broker_has_written_down_is_read_once_the_cluster_is_taken_over_again() {
    let (server, cluster) = ApiServer::begin(&settings(Some(&[]))).await;
    let (first, second) = (residences(&cluster).await, residences(&cluster).await);
    let of_blue = settled(&second, &tenant("blue"), ONE).await;
    assert_eq!(found(&first, ONE).await, "here");
    first.known().times_taken += 1;
    server.asked();
    assert_eq!(found(&first, ONE).await, of_blue);
    assert_eq!(found(&first, OTHER).await, "here");
    assert_eq!(server.asked(), [format!("GET {OWN}/configmaps")]);
    // What it began before it lost the cluster comes to the same.
    assert_eq!(settled(&second, &tenant("blue"), OTHER).await, of_blue);
    assert_eq!(settled(&first, &tenant("blue"), OTHER).await, of_blue);
}

#[tokio::test]
async fn one_that_has_begun_to_go_is_waited_for_and_made_anew() {
    let (server, cluster) = ApiServer::begin(&settings(Some(&[]))).await;
    let (residences, blue) = (residences(&cluster).await, tenant("blue"));
    let of_blue = settled(&residences, &blue, ONE).await;
    let path = format!("/api/v1/namespaces/{of_blue}");
    let uid = |uid: &str| {
        let mut of = server.object(&path).expect("a namespace");
        of["metadata"]["uid"] = json!(uid);
        server.put(&path, of);
    };
    uid("the first");
    server.delete(&mut server.there(), &path);
    assert_eq!(settled(&residences, &blue, OTHER).await, of_blue);
    let made = server.object(&path).expect("a namespace");
    assert_eq!(made["metadata"]["uid"], Value::Null);

    // Somebody places one while the last one before goes.
    residences.leave(&id(ONE)).await.expect("gone");
    let other = id(OTHER);
    let (gone, placed) = tokio::join!(residences.leave(&other), settled(&residences, &blue, ONE));
    gone.expect("gone");
    assert_eq!(placed, of_blue);
    assert!(server.object(&path).is_some());
    let kinds = server.paths();
    let kinds: HashSet<&str> = kinds.iter().map(|path| kind(path)).collect();
    assert!(kinds.contains("rolebindings") && kinds.contains("networkpolicies"));
}

#[tokio::test]
async fn a_namespace_of_somebody_else_stays_as_it_is() {
    let (server, cluster) = ApiServer::begin(&settings(Some(&[]))).await;
    let (residences, blue) = (residences(&cluster).await, tenant("blue"));
    let name = tenants::name(&cluster.settings, &blue);
    let path = format!("/api/v1/namespaces/{name}");
    let theirs = json!({ "metadata": { "name": name, "labels": { "whose": "theirs" } } });
    server.put(&path, theirs.clone());
    let one = id(ONE);
    let refused = residences.settle(blue.owning(&one)).await.err();
    assert!(
        matches!(&refused, Some(ProvisionerError::NameTaken { kind, .. }) if kind == "Namespace"),
        "{refused:?}"
    );
    // Nor does it go with what could not be placed there.
    residences.leave(&one).await.expect("gone");
    assert_eq!(server.object(&path), Some(theirs));
    assert_eq!(server.paths(), [path.as_str()]);
    // Of one that is the broker's, the tenant may be another one.
    server.there().objects.remove(&path);
    settled(&residences, &blue, OTHER).await;
    let mut other = server.object(&path).expect("a namespace");
    other["metadata"]["annotations"]["compose-broker/tenant"] = json!("another one");
    server.put(&path, other);
    let refused = residences.settle(blue.owning(&one)).await.err();
    assert!(
        matches!(refused, Some(ProvisionerError::NameTaken { .. })),
        "{refused:?}"
    );
}

#[tokio::test]
async fn a_namespace_is_seen_to_when_settings_have_changed() {
    let (server, cluster) = ApiServer::begin(&settings(Some(&[("pods", "20")]))).await;
    let of_blue = settled(&*residences(&cluster).await, &tenant("blue"), ONE).await;
    let quota = format!("/api/v1/namespaces/{of_blue}/resourcequotas/compose-broker");
    let larger = with(&cluster, &settings(Some(&[("pods", "30")])));
    residences(&larger).await.see_to_all().await;
    let hard = server.object(&quota).expect("a quota")["spec"]["hard"].clone();
    assert_eq!(hard, json!({ "pods": "30" }));
    let without = with(&cluster, &settings(Some(&[])));
    residences(&without).await.see_to_all().await;
    assert_eq!(server.object(&quota), None);
}

#[tokio::test]
async fn room_is_looked_for_where_a_deployment_is_or_is_to_be() {
    let quota: &[(&str, &str)] = &[("requests.storage", "1Gi")];
    let (server, cluster) = ApiServer::begin(&settings(Some(quota))).await;
    let (residences, blue, one) = (residences(&cluster).await, tenant("blue"), id(ONE));
    let of = blue.owning(&one);
    residences.check_room(of, 1 << 30).await.expect("room");
    let full = residences.check_room(of, (1 << 30) + 1).await;
    assert!(
        matches!(full, Err(ProvisionerError::DiskFull { .. })),
        "{full:?}"
    );
    let of_blue = settled(&residences, &blue, ONE).await;
    let path = format!("/api/v1/namespaces/{of_blue}/resourcequotas/compose-broker");
    let mut used = server.object(&path).expect("a quota");
    used["status"] = json!({
        "hard": { "requests.storage": "1Gi" }, "used": { "requests.storage": "1Gi" },
    });
    server.put(&path, used);
    let full = residences.check_room(of, 1).await;
    assert!(
        matches!(full, Err(ProvisionerError::DiskFull { free: 0, .. })),
        "{full:?}"
    );
}
