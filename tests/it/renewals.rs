//! Certificates that are renewed before they end, while clients go on working. What members show is
//! looked at where clients see it: in the handshake.

use std::{
    fs,
    path::{Path, PathBuf},
    sync::{Arc, Condvar, Mutex},
};

use base64::{Engine as _, engine::general_purpose::STANDARD as BASE64};
use chrono::TimeDelta;
use compose_broker::{
    app::Surroundings,
    engine::{Engine as _, Issue, etcd::Etcd},
    model::{
        deployment::{Deployment, DeploymentSecrets},
        operation::{Operation, OperationKind, OperationState},
        origin::Origin,
        renewal::{CertificateLife, Certificates, Renewal},
    },
    operation::fault::{Fault, Faults, Moment},
    seal::KeyRing,
    store::{self, Store},
};
use reqwest::{Method, StatusCode};
use rustls::{
    ClientConfig, RootCertStore,
    pki_types::{CertificateDer, ServerName, pem::PemObject as _},
};
use serde_json::{Value, json};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

use crate::{
    broker::{SERVICE, STANDARD, TestBroker, answer, binding_path, eventually, kill, text},
    control::{Script, TestClock, now, surroundings},
    etcd,
    inside::Inside,
    repair::{alerts, data_of, deployment, patch, process_of, says},
    transport::description,
    updates::{GAP_MAX, Writer, assert_same_everywhere},
};

const MEMBERS: [&str; 3] = ["uri", "uri_direct_1", "uri_direct_2"];

/// Lives that are soon over: members' certificates are renewed after 250 days, an authority is followed
/// by another after 350, which issues after 500, and it ends after 600.
fn short_life() -> CertificateLife {
    CertificateLife {
        authority: TimeDelta::days(600),
        followed_before: TimeDelta::days(250),
        changes_before: TimeDelta::days(100),
        changes_at_latest: TimeDelta::days(30),
        member: TimeDelta::days(300),
        renewed_before: TimeDelta::days(50),
    }
}

fn short_lived(clock: &TestClock) -> Surroundings {
    Surroundings {
        certificate_life: short_life(),
        ..clock.surroundings()
    }
}

fn pass(clock: &TestClock, days: i64) {
    clock.shift(TimeDelta::days(days));
}

/// The authorities that credentials tell (PEM).
fn authorities(credentials: &Value) -> String {
    let pem = BASE64.decode(text(&credentials["ca_certificate_base64"]));
    String::from_utf8(pem.expect("base64")).expect("PEM")
}

fn count(pem: &str) -> usize {
    pem.matches("BEGIN CERTIFICATE").count()
}

/// The certificate that a member shows to a client that trusts what `credentials` tell; none when that
/// client does not take it.
async fn shown(credentials: &Value, field: &str) -> Option<CertificateDer<'static>> {
    let mut roots = RootCertStore::empty();
    for authority in CertificateDer::pem_slice_iter(authorities(credentials).as_bytes()) {
        let authority = authority.expect("a certificate");
        roots.add(authority).expect("an authority");
    }
    let config = ClientConfig::builder()
        .with_root_certificates(roots)
        .with_no_client_auth();
    let uri: url::Url = text(&credentials[field]).parse().expect("a URI");
    let host = uri.host_str().expect("a host").to_owned();
    let port = uri.port().expect("a port");
    let stream = TcpStream::connect((host.as_str(), port)).await.ok()?;
    let name = ServerName::try_from(host).expect("a name");
    let connector = TlsConnector::from(Arc::new(config));
    let connected = connector.connect(name, stream).await.ok()?;
    let shown = connected.get_ref().1.peer_certificates()?;
    Some(shown.first()?.clone().into_owned())
}

/// The one certificate that all members show to such a client.
async fn shown_by_all(credentials: &Value) -> Option<CertificateDer<'static>> {
    let mut all = Vec::new();
    for field in MEMBERS {
        all.push(shown(credentials, field).await?);
    }
    assert!(all.windows(2).all(|pair| pair[0] == pair[1]), "different");
    all.pop()
}

/// Waits until so many renewals of `i` have succeeded, and nothing more is being done.
async fn renewed(broker: &TestBroker, times: usize) {
    let inside = Inside::of(broker);
    eventually(&format!("{times} renewals"), || async {
        let all = inside.operations("i").await;
        let mut renewals = all.iter().filter(|o| o.kind == OperationKind::Renew);
        assert!(
            renewals.clone().all(|o| o.state != OperationState::Failed),
            "{all:?}"
        );
        let done = renewals.clone().count() == times
            && renewals.all(|o| o.state == OperationState::Succeeded);
        done.then_some(())
    })
    .await;
    inside.idle("i").await;
}

/// The credentials of a binding, as a platform fetches them.
async fn fetched(broker: &TestBroker, binding: &str) -> Value {
    let fetched = answer(broker.osb(Method::GET, &binding_path("i", binding))).await;
    assert_eq!(fetched.status, StatusCode::OK, "{fetched:?}");
    fetched.body["credentials"].clone()
}

/// An operator asks for other certificates of `i`; returns the operation's end.
async fn renew(broker: &TestBroker) -> Operation {
    let path = "/operator/instances/i/renew";
    let accepted = answer(broker.osb(Method::POST, path)).await;
    assert_eq!(accepted.status, StatusCode::ACCEPTED, "{accepted:?}");
    let inside = Inside::of(broker);
    inside.idle("i").await;
    inside.newest("i", OperationKind::Renew).await
}

/// What a member is given beside its data.
fn files_of(broker: &TestBroker, deployment: &Deployment, member: &str) -> PathBuf {
    let data = data_of(broker, deployment, member);
    let member = data.parent().and_then(Path::parent).expect("a member");
    member.join("files")
}

/// What members have on their disks as trusted.
async fn trusted_by_members(broker: &TestBroker) -> Vec<usize> {
    let deployment = deployment(broker).await;
    let trusted = ["m0", "m1", "m2"].map(|member| {
        let file = files_of(broker, &deployment, member).join("ca.crt");
        count(&fs::read_to_string(file).expect("a file"))
    });
    trusted.to_vec()
}

macro_rules! for_each_version {
    ($($test:ident: $version:literal),* $(,)?) => {
        $(
            #[tokio::test(flavor = "multi_thread")]
            async fn $test() {
                certificates_follow_each_other($version).await;
            }
        )*
    };
}

for_each_version!(
    certificates_and_authorities_of_etcd_3_4_follow_each_other_under_a_client: "3.4.23",
    certificates_and_authorities_of_etcd_3_7_follow_each_other_under_a_client: "3.7.3",
);

async fn certificates_follow_each_other(version: &str) {
    let clock = TestClock::default();
    let broker = TestBroker::start_with(&[], short_lived(&clock)).await;
    broker
        .provision("i", json!({ "db_version": version }))
        .await;
    let first = broker.bind("i", "b").await;
    let shown_first = shown_by_all(&first).await.expect("a certificate");
    let mut keys = 0;

    // The members' certificate, under the same authority.
    let writer = Writer::start(&first);
    pass(&clock, 250);
    renewed(&broker, 1).await;
    let written = writer.end().await;
    println!("{version}: another certificate: {written:?}");
    assert!(written.longest_gap < GAP_MAX, "{written:?}");
    keys = keys.max(written.keys);
    let shown_second = shown_by_all(&first).await.expect("a certificate");
    assert_ne!(shown_second, shown_first);
    assert_eq!(fetched(&broker, "b").await, first, "credentials stay");

    // The next authority: trusted by all, and told, before it issues anything.
    let writer = Writer::start(&first);
    pass(&clock, 100);
    renewed(&broker, 2).await;
    let written = writer.end().await;
    println!("{version}: the next authority: {written:?}");
    assert!(written.longest_gap < GAP_MAX, "{written:?}");
    let both = fetched(&broker, "b").await;
    assert_eq!(count(&authorities(&both)), 2);
    assert!(authorities(&both).starts_with(&authorities(&first)));
    let body = json!({ "service_id": SERVICE, "plan_id": STANDARD });
    let again = answer(broker.osb(Method::PUT, &binding_path("i", "b")).json(&body)).await;
    assert_eq!(again.status, StatusCode::OK, "{again:?}");
    assert_eq!(again.body["credentials"], both);
    let later = broker.bind("i", "later").await;
    assert_eq!(authorities(&later), authorities(&both));
    let path = format!("/deployments/{}", text(&first["deployment_id"]));
    let shown_there = answer(broker.compose(Method::GET, &first, &path)).await;
    assert_eq!(
        shown_there.body["ca_certificate_base64"],
        both["ca_certificate_base64"]
    );
    assert_eq!(trusted_by_members(&broker).await, [2; 3]);
    assert!(shown_by_all(&first).await.is_some(), "the old one issues");

    // Users are told, and have two months.
    says(&broker, &first, "certificates of a new authority").await;
    pass(&clock, 95);
    let told = alerts(&broker, &first).await;
    let alert = told["_embedded"]["alerts"].as_array().expect("alerts");
    let fetch = alert
        .iter()
        .find(|a| text(&a["message"]).contains("fetch them anew"));
    assert_eq!(fetch.expect("an alert")["status"], "warning", "{told}");

    // The next authority issues; who has heard of it notices nothing.
    let writer = Writer::start(&both);
    pass(&clock, 55);
    renewed(&broker, 3).await;
    assert!(shown_by_all(&both).await.is_some());
    for field in MEMBERS {
        assert!(shown(&first, field).await.is_none(), "{field}: former one");
    }
    let overlap = fetched(&broker, "b").await;
    assert_eq!(count(&authorities(&overlap)), 2);
    assert!(!authorities(&overlap).starts_with(&authorities(&first)));
    assert_eq!(trusted_by_members(&broker).await, [2; 3]);
    let told = alerts(&broker, &first).await.to_string();
    assert!(!told.contains("new authority"), "{told}");

    // The former one goes when it has ended.
    pass(&clock, 100);
    renewed(&broker, 4).await;
    let written = writer.end().await;
    println!("{version}: from one authority to the other: {written:?}");
    assert!(written.longest_gap < GAP_MAX, "{written:?}");
    let alone = fetched(&broker, "b").await;
    assert_eq!(count(&authorities(&alone)), 1);
    assert!(!authorities(&both).starts_with(&authorities(&alone)));
    assert_eq!(trusted_by_members(&broker).await, [1; 3]);
    assert!(shown_by_all(&alone).await.is_some());
    assert!(shown_by_all(&both).await.is_some());
    assert_same_everywhere(&both, keys.max(written.keys)).await;
    let backup = broker.back_up(&alone).await;
    assert_eq!(backup["status"], "complete", "{backup}");
}

/// Faults of renewals, by how often their step was passed over.
#[derive(Default)]
struct Passes {
    /// So many times the worker dies.
    deaths: usize,
    /// At this pass the step is held until it is let go.
    held: Mutex<Option<usize>>,
    changed: Condvar,
    passed: Mutex<usize>,
}

impl Passes {
    fn surroundings(self, clock: &TestClock) -> (Arc<Self>, Surroundings) {
        let passes = Arc::new(self);
        let surroundings = Surroundings {
            faults: passes.clone(),
            ..short_lived(clock)
        };
        (passes, surroundings)
    }

    fn passed(&self) -> usize {
        *self.passed.lock().expect("a count")
    }

    async fn is_held(&self, at: usize) {
        eventually("a renewal that is held", || async {
            (self.passed() == at).then_some(())
        })
        .await;
    }

    fn let_go(&self) {
        *self.held.lock().expect("a pass") = None;
        self.changed.notify_all();
    }
}

impl Faults for Passes {
    fn at(&self, operation: &Operation, step: &str, moment: Moment) -> Option<Fault> {
        if operation.kind != OperationKind::Renew || step != "renew" {
            return None;
        }
        let counts = moment == Moment::Begun || moment == Moment::Done && self.deaths > 0;
        let pass = {
            let mut passed = self.passed.lock().expect("a count");
            *passed += usize::from(counts);
            *passed
        };
        if pass <= self.deaths {
            return counts.then_some(Fault::Die);
        }
        // Others of the runtime's tasks go on meanwhile.
        tokio::task::block_in_place(|| {
            let mut held = self.held.lock().expect("a pass");
            while *held == Some(pass) && counts {
                held = self.changed.wait(held).expect("a pass");
            }
        });
        None
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_worker_that_dies_at_every_member_is_made_up_for() {
    const DEATHS: usize = 24;
    let clock = TestClock::default();
    let (passes, surroundings) = Passes {
        deaths: DEATHS,
        ..Passes::default()
    }
    .surroundings(&clock);
    let broker = TestBroker::start_with(&[], surroundings).await;
    broker.provision("i", json!({})).await;
    let first = broker.bind("i", "b").await;
    let writer = Writer::start(&first);
    pass(&clock, 250);
    renewed(&broker, 1).await;
    pass(&clock, 100);
    renewed(&broker, 2).await;
    let written = writer.end().await;
    println!("{written:?}");
    assert!(written.longest_gap < GAP_MAX, "{written:?}");
    assert!(passes.passed() >= DEATHS, "{}", passes.passed());
    assert_eq!(trusted_by_members(&broker).await, [2; 3]);
    assert!(shown_by_all(&first).await.is_some());
    *passes.passed.lock().expect("a count") = 0;
    let both = fetched(&broker, "b").await;
    let writer = Writer::start(&both);
    pass(&clock, 150);
    renewed(&broker, 3).await;
    let written = writer.end().await;
    println!("{written:?}");
    assert!(written.longest_gap < GAP_MAX, "{written:?}");
    assert!(passes.passed() >= DEATHS, "{}", passes.passed());
    assert!(shown_by_all(&both).await.is_some());
    assert!(shown_by_all(&first).await.is_none());
    assert_same_everywhere(&both, written.keys).await;
}

/// The pass that finds one member changed: the first makes the certificate.
const ONE_CHANGED: usize = 3;

async fn held_midway() -> (Arc<Passes>, TestClock, TestBroker, Value) {
    let clock = TestClock::default();
    let (passes, surroundings) = Passes {
        held: Mutex::new(Some(ONE_CHANGED)),
        ..Passes::default()
    }
    .surroundings(&clock);
    let broker = TestBroker::start_with(&[], surroundings).await;
    broker.provision("i", json!({})).await;
    let credentials = broker.bind("i", "b").await;
    etcd::fill(&mut etcd::connect(&credentials).await, 20, "v").await;
    let backup = broker.back_up(&credentials).await;
    Inside::of(&broker).idle("i").await;
    pass(&clock, 250);
    passes.is_held(ONE_CHANGED).await;
    (passes, clock, broker, backup)
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_asked_for_midway_finds_all_members_with_the_new_certificate() {
    let (passes, _, broker, backup) = held_midway().await;
    let credentials = fetched(&broker, "b").await;
    let mut different = Vec::new();
    for field in MEMBERS {
        different.push(shown(&credentials, field).await.expect("a certificate"));
    }
    different.dedup();
    assert!(
        different.len() > 1,
        "one has come along, the others have not"
    );
    let parameters = json!({ "source_service_instance_id": "i", "backup_id": backup["id"] });
    broker.provision("copy", parameters).await;
    let grown = patch(&broker, json!({ "units": 2 })).await;
    assert_eq!(grown.status, StatusCode::ACCEPTED, "{grown:?}");
    let path = "/operator/instances/i/repair";
    let body = json!({ "member": "m1" });
    let replaced = answer(broker.osb(Method::POST, path).json(&body)).await;
    assert_eq!(replaced.status, StatusCode::ACCEPTED, "{replaced:?}");
    let inside = Inside::of(&broker);
    let waiting = inside.newest("i", OperationKind::Update).await;
    assert_eq!(waiting.state, OperationState::Queued, "{waiting:?}");
    passes.let_go();
    let end = broker.instance_end("i", &grown.body).await;
    assert_eq!(end["state"], "succeeded", "{end}");
    inside.idle("i").await;
    for (kind, state) in inside.outcomes("i").await {
        assert_eq!(state, OperationState::Succeeded, "{kind}");
    }
    assert!(shown_by_all(&credentials).await.is_some());
    assert_same_everywhere(&credentials, 20).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_deletion_midway_ends_it() {
    let (passes, _, broker, _) = held_midway().await;
    let deleted = broker.delete_instance("i").await;
    assert_eq!(deleted.status, StatusCode::ACCEPTED, "{deleted:?}");
    passes.let_go();
    let end = broker.instance_end("i", &deleted.body).await;
    assert_eq!(end["state"], "succeeded", "{end}");
    assert_eq!(broker.members(), Vec::<i32>::new());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_member_that_loses_its_data_midway_is_replaced_first() {
    let (passes, clock, broker, _) = held_midway().await;
    let credentials = fetched(&broker, "b").await;
    let deployment = deployment(&broker).await;
    fs::remove_dir_all(data_of(&broker, &deployment, "m2")).expect("removed");
    kill(process_of(&broker, "m2").expect("a process"));
    passes.let_go();
    let inside = Inside::of(&broker);
    eventually("a repair", || async {
        let all = inside.operations("i").await;
        let ended = |kind, state| all.iter().any(|o| o.kind == kind && o.state == state);
        let failed = ended(OperationKind::Renew, OperationState::Failed);
        let repaired = ended(OperationKind::Repair, OperationState::Succeeded);
        (failed && repaired).then_some(())
    })
    .await;
    let failed = inside.newest("i", OperationKind::Renew).await;
    let why = failed.failure.expect("a reason");
    assert!(why.contains("member m2 has lost its data"), "{why}");
    inside.idle("i").await;
    pass(&clock, 1);
    eventually("the next try", || async {
        let newest = inside.newest("i", OperationKind::Renew).await;
        (newest.state == OperationState::Succeeded).then_some(())
    })
    .await;
    assert!(shown_by_all(&credentials).await.is_some());
    assert_same_everywhere(&credentials, 20).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_cannot_be_renewed_is_told_of_from_60_days_on_until_it_is() {
    let (script, clock) = (Script::default(), TestClock::default());
    let broker = TestBroker::start_with(&[], script.surroundings_at(&clock)).await;
    broker
        .provision("i", json!({ "db_version": "3.7.3" }))
        .await;
    let credentials = broker.bind("i", "b").await;
    let inside = Inside::of(&broker);
    let fails = script.fail(OperationKind::Renew, "renew");
    let of_certificate = async || {
        let told = alerts(&broker, &credentials).await;
        let told = told["_embedded"]["alerts"].as_array()?.clone();
        let mut told = told.into_iter();
        told.find(|alert| text(&alert["message"]).contains("certificate"))
    };
    pass(&clock, 731 - 61);
    eventually("a renewal that fails", || async {
        let all = inside.operations("i").await;
        let mut renewals = all.iter().filter(|o| o.kind == OperationKind::Renew);
        renewals
            .any(|o| o.state == OperationState::Failed)
            .then_some(())
    })
    .await;
    assert_eq!(of_certificate().await, None);
    for (days, status) in [(1, "warning"), (60, "critical")] {
        pass(&clock, days);
        let alert = of_certificate().await.expect("an alert");
        assert_eq!(alert["status"], status, "{alert}");
        let message = text(&alert["message"]);
        assert!(message.contains("bring back"), "what to do: {message}");
    }
    inside.idle("i").await;
    drop(fails);
    let ended = renew(&broker).await;
    assert_eq!(ended.state, OperationState::Succeeded, "{ended:?}");
    assert_eq!(of_certificate().await, None);
    assert!(shown_by_all(&credentials).await.is_some());
}

#[tokio::test(flavor = "multi_thread")]
async fn an_operator_has_certificates_replaced_and_is_refused_what_cannot_be() {
    let broker = TestBroker::start().await;
    let path = "/operator/instances/i/renew";
    let unknown = answer(broker.osb(Method::POST, path)).await;
    assert_eq!(unknown.status, StatusCode::NOT_FOUND, "{unknown:?}");
    broker.provision("i", json!({})).await;
    let credentials = broker.bind("i", "b").await;
    let before = shown_by_all(&credentials).await;
    let ended = renew(&broker).await;
    assert_eq!(ended.state, OperationState::Succeeded, "{ended:?}");
    assert_eq!(ended.origin, Origin::Operator);
    let after = shown_by_all(&credentials).await;
    assert!(after.is_some() && after != before);
    let recipe = json!({ "id": ended.id });
    let recipe = broker.recipe_end(&credentials, &recipe).await;
    assert_eq!(recipe["name"], "Renew the certificates");
}

#[tokio::test(flavor = "multi_thread")]
async fn no_authority_comes_or_goes_by_a_clock_in_doubt() {
    let clock = TestClock::default();
    let broker = TestBroker::start_with(&[], clock.surroundings()).await;
    broker.provision("i", json!({})).await;
    let credentials = broker.bind("i", "b").await;
    clock.jump(TimeDelta::days(3650));
    // Nothing is begun that others would wait for.
    let path = "/operator/instances/i/renew";
    let refused = answer(broker.osb(Method::POST, path)).await;
    let why = description(&refused, StatusCode::CONFLICT);
    assert!(why.contains("clock is in doubt"), "{why}");
    clock.jump(TimeDelta::days(-3650));
    let ended = renew(&broker).await;
    assert_eq!(ended.state, OperationState::Succeeded, "{ended:?}");
    assert_eq!(fetched(&broker, "b").await, credentials);
    let all = Inside::of(&broker).operations("i").await;
    let asked = |o: &&Operation| o.kind == OperationKind::Renew;
    assert_eq!(all.iter().filter(asked).count(), 1, "none by itself");
}

/// One that is under way when the clock comes into doubt does not hold up the others until that is over.
#[tokio::test(flavor = "multi_thread")]
async fn a_renewal_gives_way_to_all_else_while_the_clock_is_in_doubt() {
    let (clock, script) = (TestClock::default(), Script::default());
    let broker = TestBroker::start_with(&[], script.surroundings_at(&clock)).await;
    broker.provision("i", json!({})).await;
    let held = script.hold(OperationKind::Renew, "renew");
    let path = "/operator/instances/i/renew";
    let accepted = answer(broker.osb(Method::POST, path)).await;
    assert_eq!(accepted.status, StatusCode::ACCEPTED, "{accepted:?}");
    clock.jump(TimeDelta::days(3650));
    drop(held);
    broker.bind("i", "b").await;
    let ended = Inside::of(&broker).newest("i", OperationKind::Renew).await;
    assert_eq!(ended.state, OperationState::Failed, "{ended:?}");
    let why = ended.failure.expect("a reason");
    assert!(why.contains("clock is in doubt"), "{why}");
}

/// Changes what the store of a stopped broker has as the secrets of `i`, as if nobody had looked at its
/// certificates yet.
async fn with_other_secrets(
    broker: &TestBroker,
    change: impl FnOnce(&mut DeploymentSecrets, &compose_broker::model::deployment::Deployment),
) -> DeploymentSecrets {
    let found = Inside::of(broker).deployment("i").await;
    let (deployment, secrets) = found.expect("a deployment");
    let mut secrets = secrets.expect("secrets");
    change(&mut secrets, &deployment);
    let folder = broker.data_dir();
    let keys = fs::read_to_string(folder.join("encryption_keys")).expect("a key ring");
    let keys = KeyRing::parse(keys.trim()).expect("a key ring");
    let plain = serde_json::to_vec(&secrets).expect("JSON");
    let sealed = keys.seal(&deployment.seal_context(), &plain);
    let sealed = sealed.expect("sealed");
    let store = Arc::new(Store::open(&broker.store_url()).expect("a store"));
    let write = store.write(move |conn| {
        store::deployment::set_sealed(conn, &deployment.id, &sealed)?;
        store::renewal::forget(conn, &deployment.id)
    });
    write.await.expect("written");
    secrets
}

#[tokio::test(flavor = "multi_thread")]
async fn deployments_of_earlier_versions_are_renewed_in_their_time() {
    let clock = TestClock::default();
    let mut broker = TestBroker::start_with(&[], clock.surroundings()).await;
    broker.provision("i", json!({})).await;
    let credentials = broker.bind("i", "b").await;
    broker.stop().await;
    with_other_secrets(&broker, |secrets, _| secrets.certificates = None).await;
    broker.start_again(clock.surroundings()).await;
    assert_eq!(fetched(&broker, "b").await, credentials);
    // Theirs live for ten years.
    pass(&clock, 3653 - 731 - 1);
    let later = broker.bind("i", "later").await;
    assert_eq!(authorities(&later), authorities(&credentials));
    pass(&clock, 2);
    renewed(&broker, 1).await;
    let both = fetched(&broker, "b").await;
    assert_eq!(count(&authorities(&both)), 2);
    pass(&clock, 365);
    renewed(&broker, 2).await;
    assert!(shown_by_all(&both).await.is_some());
    assert!(shown_by_all(&credentials).await.is_none());
}

/// As after half a year without a broker: members go on, and nobody renews what they have.
#[tokio::test(flavor = "multi_thread")]
async fn a_database_whose_certificates_have_ended_serves_again() {
    let mut broker = TestBroker::start().await;
    broker.provision("i", json!({})).await;
    let credentials = broker.bind("i", "b").await;
    etcd::fill(&mut etcd::connect(&credentials).await, 20, "v").await;
    broker.stop().await;
    let now = now();
    let ended = with_other_secrets(&broker, |secrets, deployment| {
        let before = now - TimeDelta::days(1);
        let certificates = Certificates {
            member_ends: before,
            ..secrets.certificates(&deployment.id)
        };
        let what = Renewal::Members;
        *secrets = Etcd
            .secrets(
                deployment,
                Issue::Renewal { secrets, what },
                &certificates,
                now,
            )
            .expect("secrets");
    })
    .await;
    let deployment = deployment(&broker).await;
    for member in ["m0", "m1", "m2"] {
        let files = files_of(&broker, &deployment, member);
        fs::write(files.join("member.crt"), &ended.member_certificate).expect("a file");
        fs::write(files.join("member.key"), ended.member_key.expose()).expect("a file");
        kill(process_of(&broker, member).expect("a process"));
    }
    broker.start_again(surroundings()).await;
    let put = async || {
        let mut client = etcd::connect(&credentials).await;
        client.put("afterwards", "", None).await.ok().map(drop)
    };
    renewed(&broker, 1).await;
    assert!(shown_by_all(&credentials).await.is_some());
    eventually("a write", put).await;
    assert_same_everywhere(&credentials, 21).await;
}
