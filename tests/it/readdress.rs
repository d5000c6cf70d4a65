//! Members that are moved to where applications reach them now, after the configuration was changed or
//! the version that kept them where they were.

use std::sync::{
    Arc, Mutex,
    atomic::{AtomicUsize, Ordering},
};

use compose_broker::{
    app::Surroundings,
    model::operation::{Operation, OperationKind, OperationState},
    operation::fault::{Fault, Faults, Moment},
};
use reqwest::{Method, StatusCode};
use rustix::process::Signal;
use serde_json::{Value, json};

use crate::{
    broker::{SERVICE, TestBroker, answer, binding_path, eventually, instance_path, text},
    control::{Script, surroundings},
    database::Database,
    etcd,
    inside::Inside,
    memory::pair::PROFILE,
    pages::Visitor,
    repair::{process_of, says, signal},
    updates::{GAP_MAX, Writer, assert_same_everywhere},
    user::User,
};

/// A name that nobody resolves: the broker's own calls do without.
const UNRESOLVABLE: &str = "db.example.invalid";

/// Starts a broker again, with members that applications reach elsewhere. The broker itself stays where
/// it is, since credentials tell that.
pub async fn restart(broker: &mut TestBroker, listen: &str, host: &str, with: Surroundings) {
    let address = broker.address().to_string();
    broker.stop().await;
    broker.change_flag("--listen", &address);
    broker.change_flag("--member-listen", listen);
    broker.change_flag("--member-host", host);
    broker.start_again(with).await;
}

/// The flags that [`restart`] changes, with what there is without them.
pub const AT_FIRST: [&str; 4] = ["--member-listen", "127.0.0.1", "--member-host", "127.0.0.1"];

/// Waits until so many moves of the members of an instance have succeeded.
pub async fn moved(broker: &TestBroker, instance: &str, times: usize) {
    let inside = Inside::of(broker);
    eventually(&format!("{times} moves of {instance}"), || async {
        let all = inside.operations(instance).await;
        let moves = all.iter().filter(|o| o.kind == OperationKind::Readdress);
        let states: Vec<OperationState> = moves.map(|o| o.state).collect();
        assert!(!states.contains(&OperationState::Failed), "{all:?}");
        (states == vec![OperationState::Succeeded; times]).then_some(())
    })
    .await;
    inside.idle(instance).await;
}

/// Where the credentials of a new binding lead: the host of each URI.
async fn hosts(credentials: &Value) -> Vec<String> {
    let fields = ["uri", "uri_direct_1", "uri_direct_2"];
    let hosts = fields.map(|field| {
        let uri: url::Url = text(&credentials[field]).parse().expect("a URI");
        uri.host_str().expect("a host").to_owned()
    });
    assert!(text(&credentials["uri_cli"]).contains(&format!("https://{}:", hosts[0])));
    hosts.to_vec()
}

/// What the client makes of a binding of `i`, with these words after it.
async fn service_key(broker: &TestBroker, binding: &str, words: &[&str]) -> Value {
    let user = User::of_broker(broker);
    user.does(&["service", "i", "--id", "i"]).await;
    let key = ["service-key", "i", binding, "--id", binding];
    user.does(&[&key[..], words, &["-o", "json"]].concat())
        .await
        .json()
}

async fn fetched(broker: &TestBroker, binding: &str) -> Value {
    let fetched = answer(broker.osb(Method::GET, &binding_path("i", binding))).await;
    assert_eq!(fetched.status, StatusCode::OK, "{fetched:?}");
    fetched.body
}

/// A worker that dies again and again while it moves members.
#[derive(Default)]
struct Deadly {
    deaths: Mutex<usize>,
}

impl Faults for Deadly {
    fn at(&self, operation: &Operation, _: &str, moment: Moment) -> Option<Fault> {
        let mut deaths = self.deaths.lock().expect("a count");
        let kills = operation.kind == OperationKind::Readdress && *deaths > 0;
        let kills = kills && matches!(moment, Moment::Begun | Moment::Done);
        *deaths -= usize::from(kills);
        kills.then_some(Fault::Die)
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn members_move_while_they_serve_and_old_credentials_go_on_where_the_address_does() {
    let mut broker = TestBroker::start_with(&AT_FIRST, surroundings()).await;
    broker.provision("i", json!({})).await;
    let first = broker.bind("i", "first").await;
    assert_eq!(hosts(&first).await, ["127.0.0.1"; 3]);
    assert_eq!(Inside::of(&broker).ports_reserved().await, 6);

    // The same address under a name: the broker has a port of its own from then on.
    let writer = Writer::start(&first);
    restart(&mut broker, "127.0.0.1", "localhost", surroundings()).await;
    moved(&broker, "i", 1).await;
    let written = writer.end().await;
    println!("{written:?}");
    assert!(written.longest_gap < GAP_MAX, "{written:?}");
    assert_eq!(Inside::of(&broker).ports_reserved().await, 9);
    let named = broker.bind("i", "named").await;
    assert_eq!(hosts(&named).await, ["localhost"; 3]);
    let shell = service_key(&broker, "named", &["--env"]).await;
    let endpoints = text(&shell["ETCDCTL_ENDPOINTS"]).split(',');
    let elsewhere = endpoints.filter(|of| !of.starts_with("https://localhost:"));
    assert_eq!(elsewhere.count(), 0, "{shell}");
    assert_same_everywhere(&named, written.keys).await;
    assert_same_everywhere(&first, written.keys).await;
    // Credentials that are fetched again have the members' new addresses.
    let again = fetched(&broker, "first").await;
    assert_eq!(hosts(&again["credentials"]).await, ["localhost"; 3]);
    assert_eq!(again["endpoints"][2]["host"], "localhost", "{again}");
    assert_eq!(
        etcd::password(&again["credentials"]),
        etcd::password(&first)
    );

    // Elsewhere: what was bound before is not served any more.
    restart(&mut broker, "::1", "::1", surroundings()).await;
    moved(&broker, "i", 2).await;
    let sixth = broker.bind("i", "sixth").await;
    assert_eq!(hosts(&sixth).await, ["[::1]"; 3]);
    assert_same_everywhere(&sixth, written.keys).await;
    assert!(etcd::connect_to(&first, "uri").await.is_err());
    let backup = broker.back_up(&sixth).await;
    assert_eq!(backup["status"], "complete", "{backup}");

    // Back again, with the ports that they have.
    restart(&mut broker, "127.0.0.1", "127.0.0.1", surroundings()).await;
    moved(&broker, "i", 3).await;
    assert_same_everywhere(&first, written.keys).await;
    assert_eq!(Inside::of(&broker).ports_reserved().await, 9);
    broker.deprovision("i").await;
    assert_eq!(Inside::of(&broker).ports_reserved().await, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_worker_that_dies_again_and_again_moves_all_members_all_the_same() {
    const DEATHS: usize = 16;
    let mut broker = TestBroker::start_with(&AT_FIRST, surroundings()).await;
    broker.provision("i", json!({})).await;
    let first = broker.bind("i", "first").await;
    let deadly = Arc::new(Deadly {
        deaths: Mutex::new(DEATHS),
    });
    let with = Surroundings {
        faults: deadly.clone(),
        ..surroundings()
    };
    let writer = Writer::start(&first);
    restart(&mut broker, "127.0.0.1", UNRESOLVABLE, with).await;
    moved(&broker, "i", 1).await;
    let written = writer.end().await;
    println!("{written:?}");
    assert!(written.longest_gap < GAP_MAX, "{written:?}");
    assert_eq!(*deadly.deaths.lock().expect("a count"), 0);
    let named = broker.bind("i", "named").await;
    assert_eq!(hosts(&named).await, [UNRESOLVABLE; 3]);
    assert_same_everywhere(&first, written.keys).await;
}

/// A worker that gets as far as to move the first member, and no further.
#[derive(Default)]
struct Stuck(AtomicUsize);

impl Faults for Stuck {
    fn at(&self, operation: &Operation, step: &str, moment: Moment) -> Option<Fault> {
        let moves = operation.kind == OperationKind::Readdress && step == "move";
        let dies = moves && moment == Moment::Begun;
        dies.then(|| self.0.fetch_add(1, Ordering::Relaxed));
        dies.then_some(Fault::Die)
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn members_that_are_wanted_elsewhere_while_they_move_get_a_certificate_for_it() {
    let mut broker = TestBroker::start_with(&AT_FIRST, surroundings()).await;
    broker.provision("i", json!({})).await;
    let stuck = Arc::new(Stuck::default());
    let with = Surroundings {
        faults: stuck.clone(),
        ..surroundings()
    };
    restart(&mut broker, "127.0.0.2", "127.0.0.2", with).await;
    eventually("a move that has begun", || async {
        (stuck.0.load(Ordering::Relaxed) > 0).then_some(())
    })
    .await;
    restart(&mut broker, "127.0.0.3", "127.0.0.3", surroundings()).await;
    moved(&broker, "i", 1).await;
    let third = broker.bind("i", "third").await;
    assert_eq!(hosts(&third).await, ["127.0.0.3"; 3]);
    assert_same_everywhere(&third, 0).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_lets_strangers_in_stays_on_loopback_until_it_is_upgraded() {
    let mut broker = TestBroker::start_with(&AT_FIRST, surroundings()).await;
    broker
        .provision("i", json!({ "db_version": "3.5.35" }))
        .await;
    broker.provision("safe", json!({})).await;
    let first = broker.bind("i", "first").await;
    restart(&mut broker, "127.0.0.1", UNRESOLVABLE, surroundings()).await;
    moved(&broker, "safe", 1).await;
    let safe = broker.bind("safe", "app").await;
    assert_eq!(hosts(&safe).await, [UNRESOLVABLE; 3]);
    let backup = broker.back_up(&safe).await;
    assert_eq!(backup["status"], "complete", "{backup}");
    moved(&broker, "i", 0).await;
    assert_eq!(
        hosts(&broker.bind("i", "second").await).await,
        ["127.0.0.1"; 3]
    );
    says(
        &broker,
        &first,
        "Only programs on the broker's own machine reach",
    )
    .await;
    says(&broker, &first, "Upgrade to 3.7.3").await;

    let refused = broker
        .put_instance("new", json!({ "db_version": "3.5.35" }))
        .await;
    assert_eq!(refused.status, StatusCode::BAD_REQUEST, "{refused:?}");
    assert!(
        text(&refused.body["description"]).contains("3.6.16"),
        "{refused:?}"
    );
    let update = async |version: &str| {
        let path = format!("{}?accepts_incomplete=true", instance_path("i"));
        let body = json!({ "service_id": SERVICE, "parameters": { "db_version": version } });
        answer(broker.osb(Method::PATCH, &path).json(&body)).await
    };
    let upgraded = update("3.6.16").await;
    assert_eq!(upgraded.status, StatusCode::ACCEPTED, "{upgraded:?}");
    let end = broker.instance_end("i", &upgraded.body).await;
    assert_eq!(end["state"], "succeeded", "{end}");
    moved(&broker, "i", 1).await;
    assert_eq!(
        hosts(&broker.bind("i", "third").await).await,
        [UNRESOLVABLE; 3]
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn what_lets_strangers_in_is_taken_away_from_them_at_once_however_its_members_are() {
    const VERSION: &str = "3.5.35";
    const ELSEWHERE: [&str; 6] = [
        "--member-listen",
        "127.0.0.1",
        "--member-host",
        UNRESOLVABLE,
        "--member-exposed-versions",
        "etcd 3.5.35",
    ];
    let mut broker = TestBroker::start_with(&ELSEWHERE, surroundings()).await;
    broker
        .provision("i", json!({ "db_version": VERSION }))
        .await;
    let first = broker.bind("i", "first").await;
    assert_eq!(hosts(&first).await, [UNRESOLVABLE; 3]);
    let inside = Inside::of(&broker);
    let entrances = async || {
        let (deployment, _) = inside.deployment("i").await.expect("a deployment");
        let members = deployment.members.iter();
        let hosts = members.map(|member| member.address("client").host.clone());
        hosts.collect::<Vec<String>>()
    };

    // Most members hang, so that nobody moves one after the other.
    let hung = ["m0", "m1"].map(|member| process_of(&broker, member).expect("a process"));
    for pid in hung {
        signal(pid, Signal::STOP);
    }
    let script = Script::default();
    let before = script.hold(OperationKind::Readdress, "withdraw");
    let after = script.hold(OperationKind::Readdress, "move");
    broker.change_flag("--member-exposed-versions", "");
    restart(
        &mut broker,
        "127.0.0.1",
        UNRESOLVABLE,
        script.surroundings(),
    )
    .await;
    says(&broker, &first, "Other machines still reach this database").await;
    assert_eq!(entrances().await, [UNRESOLVABLE; 3]);
    drop(before);
    says(
        &broker,
        &first,
        "Only programs on the broker's own machine reach",
    )
    .await;
    assert_eq!(entrances().await, ["127.0.0.1"; 3]);
    drop(after);
    moved(&broker, "i", 1).await;
    assert_eq!(
        hosts(&broker.bind("i", "second").await).await,
        ["127.0.0.1"; 3]
    );
    assert_same_everywhere(&broker.bind("i", "third").await, 0).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn members_that_have_a_host_each_are_moved_once() {
    let mut broker = TestBroker::in_memory_with(&AT_FIRST, surroundings()).await;
    broker.provision("i", json!({})).await;
    let near = broker.bind("i", "near").await;
    let Database::Memory(pair) = broker.database.clone() else {
        panic!("it is in memory");
    };
    let host = |credentials: &Value| {
        let uri: url::Url = text(&credentials["uri"]).parse().expect("a URI");
        uri.host_str().expect("a host").to_owned()
    };
    assert!(host(&near).ends_with(".inside"), "{near}");
    pair.put(text(&near["uri"]), "key", "value").expect("a put");

    let with = broker.database.surroundings(surroundings());
    restart(&mut broker, "127.0.0.1", UNRESOLVABLE, with).await;
    moved(&broker, "i", 1).await;
    // The broker looks again and again, and finds them where they are to be.
    let (before, members) = (pair.0.asked(), PROFILE.members);
    eventually("two more looks", || async {
        (pair.0.asked() >= before + 2 * members).then_some(())
    })
    .await;
    moved(&broker, "i", 1).await;
    let far = broker.bind("i", "far").await;
    assert!(host(&far).ends_with(UNRESOLVABLE), "{far}");
    assert_ne!(host(&far), UNRESOLVABLE, "each has its own");
    let key = service_key(&broker, "far", &[]).await;
    assert_eq!(host(&key["credentials"]), host(&far));
    let visitor = Visitor::with_token(&broker, &far).await;
    let page = visitor.get("/dashboard/instances/i").await.body;
    assert!(page.contains(&format!("pair://{}:", host(&far))), "{page}");
    assert!(!page.contains(&host(&near)), "{page}");
    let keys = pair.keys(text(&far["uri"])).expect("keys");
    assert_eq!(keys["key"], "value");
    assert!(
        pair.keys(text(&near["uri"])).is_err(),
        "nobody is there any more"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn members_that_cannot_listen_there_stay_where_they_are() {
    let mut broker = TestBroker::start_with(&AT_FIRST, surroundings()).await;
    broker.provision("i", json!({})).await;
    let first = broker.bind("i", "first").await;
    // An address for examples: no machine has it.
    restart(&mut broker, "192.0.2.1", "192.0.2.1", surroundings()).await;
    let inside = Inside::of(&broker);
    let failure = eventually("a move that fails", || async {
        let all = inside.operations("i").await;
        let moves = all.into_iter().find(|o| o.kind == OperationKind::Readdress);
        moves.filter(|o| o.state == OperationState::Failed)?.failure
    })
    .await;
    assert!(failure.contains("does not have that address"), "{failure}");
    says(
        &broker,
        &first,
        "not all where applications are to reach them",
    )
    .await;
    assert_same_everywhere(&first, 0).await;
    let later = broker.bind("i", "later").await;
    assert_eq!(hosts(&later).await, ["127.0.0.1"; 3]);
    let refused = broker.put_instance("new", json!({})).await;
    assert_eq!(refused.status, StatusCode::ACCEPTED, "{refused:?}");
    let end = broker.instance_end("new", &refused.body).await;
    assert_eq!(end["state"], "failed", "{end}");
    assert!(text(&end["description"]).contains("192.0.2.1"), "{end}");
}
