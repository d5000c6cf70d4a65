//! Members that heal: what one of them loses comes back, by itself or when an operator says so, and
//! nobody who uses the database has to do anything.

use std::{
    fs::{self, OpenOptions},
    os::unix::fs::FileExt as _,
    path::PathBuf,
    sync::{Arc, Mutex},
    time::Duration,
};

use compose_broker::{
    app::Surroundings,
    model::{
        deployment::Deployment,
        limits::{HANG_AFTER, HANG_PATIENCES_WITHOUT_SERVICE, REPAIRS_MAX},
        operation::{Operation, OperationKind, OperationState},
    },
    operation::fault::{Fault, Faults, Moment},
};
use etcd_client::{AlarmAction, AlarmOptions, AlarmType};
use reqwest::{Method, StatusCode};
use rustix::process::{Pid, Signal};
use serde_json::{Value, json};
use tokio::time::Instant;

use crate::{
    broker::{
        Answer, SERVICE, TestBroker, answer, eventually, instance_path, kill, new_folder,
        processes_below, text,
    },
    control::{self, InForce, Script},
    etcd,
    inside::Inside,
};

const KEYS: usize = 50;

/// An instance `i` with some keys.
pub async fn with_keys(broker: &TestBroker, version: &str) -> Value {
    broker
        .provision("i", json!({ "db_version": version }))
        .await;
    let credentials = broker.bind("i", "b").await;
    etcd::fill(&mut etcd::connect(&credentials).await, KEYS, "v").await;
    credentials
}

/// Where a member of `i` keeps its data.
pub fn data_of(broker: &TestBroker, deployment: &Deployment, member: &str) -> PathBuf {
    let of = format!(
        "clusters/local/{}/members/{member}/home/data",
        deployment.id
    );
    broker.data_dir().join(of)
}

pub async fn deployment(broker: &TestBroker) -> Deployment {
    let found = Inside::of(broker).deployment("i").await;
    found.expect("a deployment").0
}

/// The process of a member of `i`.
pub fn process_of(broker: &TestBroker, member: &str) -> Option<i32> {
    broker.members().into_iter().find(|pid| {
        let line = procfs::process::Process::new(*pid).and_then(|process| process.cmdline());
        line.is_ok_and(|line| line.contains(&format!("--name={member}")))
    })
}

pub fn signal(pid: i32, signal: Signal) {
    let pid = Pid::from_raw(pid).expect("a pid");
    rustix::process::kill_process(pid, signal).expect("a signal");
}

/// A member of `i` loses all it had.
pub async fn lose(broker: &TestBroker, member: &str) {
    let data = data_of(broker, &deployment(broker).await, member);
    fs::remove_dir_all(&data).expect("removed");
    kill(process_of(broker, member).expect("a process"));
}

/// The field of the credentials that leads to a member.
fn field_of(member: &str) -> &'static str {
    match member {
        "m0" => "uri",
        "m1" => "uri_direct_1",
        _ => "uri_direct_2",
    }
}

/// Waits until so many repairs were done, and nothing more is being done; returns how long it took.
pub async fn repaired(broker: &TestBroker, times: usize) -> Duration {
    let (inside, begun) = (Inside::of(broker), Instant::now());
    eventually("the end of a repair", || async {
        let all = inside.operations("i").await;
        let done = |state: OperationState| !state.is_active();
        let repairs = all.iter().filter(|o| o.kind == OperationKind::Repair);
        let mut ended = repairs.filter(|o| done(o.state));
        let newest = ended.next()?;
        assert_eq!(newest.state, OperationState::Succeeded, "{newest:?}");
        (ended.count() + 1 == times).then_some(())
    })
    .await;
    begun.elapsed()
}

/// A member serves all that was written, and has a say.
pub async fn is_whole(credentials: &Value, member: &str) {
    eventually("a member that serves", || async {
        let mut client = etcd::connect_to(credentials, field_of(member)).await.ok()?;
        client.put("afterwards", member, None).await.ok()?;
        (etcd::dump(&mut client).await.len() == KEYS + 1).then_some(())
    })
    .await;
}

pub async fn alerts(broker: &TestBroker, credentials: &Value) -> Value {
    let path = format!(
        "/deployments/{}/alerts",
        text(&credentials["deployment_id"])
    );
    answer(broker.compose(Method::GET, credentials, &path))
        .await
        .body
}

pub async fn says(broker: &TestBroker, credentials: &Value, words: &str) {
    eventually(&format!("alerts: {words}"), || async {
        let told = alerts(broker, credentials).await.to_string();
        told.contains(words).then_some(())
    })
    .await;
}

pub async fn patch(broker: &TestBroker, parameters: Value) -> Answer {
    let path = format!("{}?accepts_incomplete=true", instance_path("i"));
    let body = json!({ "service_id": SERVICE, "parameters": parameters });
    answer(broker.osb(Method::PATCH, &path).json(&body)).await
}

async fn ask_for_repair(broker: &TestBroker, body: Value) -> Answer {
    let request = broker.osb(Method::POST, "/operator/instances/i/repair");
    answer(request.json(&body)).await
}

macro_rules! for_each_version {
    ($($test:ident: $version:literal),* $(,)?) => {
        $(
            #[tokio::test(flavor = "multi_thread")]
            async fn $test() {
                a_member_without_data_is_replaced($version).await;
            }
        )*
    };
}

for_each_version!(
    a_member_of_etcd_3_3_25_without_data_is_replaced: "3.3.25",
    a_member_of_etcd_3_4_23_without_data_is_replaced: "3.4.23",
    a_member_of_etcd_3_5_16_without_data_is_replaced: "3.5.16",
    a_member_of_etcd_3_5_35_without_data_is_replaced: "3.5.35",
    a_member_of_etcd_3_6_16_without_data_is_replaced: "3.6.16",
    a_member_of_etcd_3_7_3_without_data_is_replaced: "3.7.3",
);

async fn a_member_without_data_is_replaced(version: &str) {
    let broker = TestBroker::start().await;
    let credentials = with_keys(&broker, version).await;
    lose(&broker, "m1").await;
    let took = repaired(&broker, 1).await;
    println!("{version}: whole again {took:.1?} after the loss");
    is_whole(&credentials, "m1").await;
    says(
        &broker,
        &credentials,
        "Member m1 lost its data. It was replaced",
    )
    .await;
    // Everything else goes on.
    broker.bind("i", "later").await;
    let backup = broker.back_up(&credentials).await;
    assert_eq!(backup["status"], "complete", "{backup}");
    let grown = patch(&broker, json!({ "units": 2 })).await;
    assert_eq!(grown.status, StatusCode::ACCEPTED, "{grown:?}");
    let end = broker.instance_end("i", &grown.body).await;
    assert_eq!(end["state"], "succeeded", "{end}");
    is_whole(&credentials, "m1").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_member_whose_data_is_damaged_is_replaced_and_the_ladder_stays_open() {
    let broker = TestBroker::start().await;
    let credentials = with_keys(&broker, "3.5.16").await;
    let data = data_of(&broker, &deployment(&broker).await, "m2");
    let database = OpenOptions::new()
        .write(true)
        .open(data.join("member/snap/db"));
    database
        .expect("a file")
        .write_all_at(&[0; 32 * 1024], 0)
        .expect("written");
    // It may have met it by itself already, and ended.
    if let Some(process) = process_of(&broker, "m2") {
        kill(process);
    }
    repaired(&broker, 1).await;
    is_whole(&credentials, "m2").await;
    says(
        &broker,
        &credentials,
        "Member m2 could not use its data any more",
    )
    .await;
    // A cluster that had a learner is what newer lines refused once.
    let upgraded = patch(&broker, json!({ "db_version": "3.7.3" })).await;
    assert_eq!(upgraded.status, StatusCode::ACCEPTED, "{upgraded:?}");
    let end = broker.instance_end("i", &upgraded.body).await;
    assert_eq!(end["state"], "succeeded", "{end}");
    is_whole(&credentials, "m2").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_member_that_differs_is_replaced_and_writes_are_taken_again() {
    let broker = TestBroker::start().await;
    let credentials = with_keys(&broker, "3.6.16").await;
    let mut root = Inside::of(&broker).administrator("i", &credentials).await;
    let listed = root.member_list().await.expect("members");
    let m0 = listed.members().iter().find(|member| member.name() == "m0");
    let mut options = AlarmOptions::new();
    options.with_member(m0.expect("a member").id());
    root.alarm(AlarmAction::Activate, AlarmType::Corrupt, Some(options))
        .await
        .expect("an alarm");
    let mut client = etcd::connect_to(&credentials, "uri_direct_1")
        .await
        .expect("in");
    let refused = client.put("key", "", None).await.expect_err("a refusal");
    assert!(refused.to_string().contains("corrupt"), "{refused}");
    repaired(&broker, 1).await;
    is_whole(&credentials, "m0").await;
    says(
        &broker,
        &credentials,
        "Member m0 did not hold what the others hold",
    )
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_operator_replaces_any_member_and_is_refused_what_cannot_be() {
    let broker = TestBroker::start().await;
    let unknown = ask_for_repair(&broker, json!({ "member": "m1" })).await;
    assert_eq!(unknown.status, StatusCode::NOT_FOUND, "{unknown:?}");
    let credentials = with_keys(&broker, "3.7.3").await;
    for wrong in [
        json!({}),
        json!({ "member": "" }),
        json!({ "member": 1 }),
        json!({ "member": "m3" }),
        json!({ "member": "../m1" }),
        json!([]),
    ] {
        let refused = ask_for_repair(&broker, wrong.clone()).await;
        assert_eq!(
            refused.status,
            StatusCode::BAD_REQUEST,
            "{wrong}: {refused:?}"
        );
    }
    let stranger = broker.anonymous(Method::POST, "/operator/instances/i/repair");
    let stranger = answer(stranger.json(&json!({ "member": "m1" }))).await;
    assert_eq!(stranger.status, StatusCode::UNAUTHORIZED, "{stranger:?}");
    // The leader too.
    for (times, member) in ["m0", "m1", "m2"].into_iter().enumerate() {
        let before = process_of(&broker, member);
        let accepted = ask_for_repair(&broker, json!({ "member": member })).await;
        assert_eq!(accepted.status, StatusCode::ACCEPTED, "{accepted:?}");
        repaired(&broker, times + 1).await;
        assert_ne!(process_of(&broker, member), before);
        is_whole(&credentials, member).await;
    }
    // Nothing is taken from members that are too few.
    let down = process_of(&broker, "m0").expect("a process");
    signal(down, Signal::STOP);
    let accepted = ask_for_repair(&broker, json!({ "member": "m1" })).await;
    let recipe = json!({ "id": accepted.body["operation"] });
    let end = broker.recipe_end(&credentials, &recipe).await;
    assert_eq!(end["status"], "failed", "{end}");
    let why = text(&end["status_detail"]);
    assert!(why.contains("too few members serve without m1"), "{why}");
    signal(down, Signal::CONT);
    is_whole(&credentials, "m0").await;
    is_whole(&credentials, "m1").await;
    let audit = answer(broker.osb(Method::GET, "/operator/audit?instance=i")).await;
    let entry = &audit.body["entries"][0];
    assert_eq!(entry["action"], "repair", "{entry}");
    assert_eq!(entry["origin"], "operator", "{entry}");
}

#[tokio::test(flavor = "multi_thread")]
async fn members_are_replaced_only_so_often_a_day() {
    let broker = TestBroker::start().await;
    let credentials = with_keys(&broker, "3.6.16").await;
    let most = usize::try_from(REPAIRS_MAX).expect("a number");
    for times in 1..=most {
        lose(&broker, "m1").await;
        repaired(&broker, times).await;
    }
    lose(&broker, "m1").await;
    says(
        &broker,
        &credentials,
        "the broker leaves it to the operator",
    )
    .await;
    assert_eq!(process_of(&broker, "m1"), None);
    let accepted = ask_for_repair(&broker, json!({ "member": "m1" })).await;
    assert_eq!(accepted.status, StatusCode::ACCEPTED, "{accepted:?}");
    repaired(&broker, most + 1).await;
    is_whole(&credentials, "m1").await;
}

/// A broker that does nothing by itself.
async fn without_watchdog() -> TestBroker {
    let surroundings = Surroundings {
        scheduled: false,
        ..control::surroundings()
    };
    TestBroker::start_with(&[], surroundings).await
}

#[tokio::test(flavor = "multi_thread")]
async fn an_update_names_the_member_that_is_down_now_and_the_instance_stays_usable() {
    let broker = without_watchdog().await;
    let credentials = with_keys(&broker, "3.6.16").await;
    // One member has a past.
    let deployment = deployment(&broker).await;
    let record = data_of(&broker, &deployment, "m0").join("../../process.json");
    eventually("a member that ended often", || async {
        if let Some(pid) = process_of(&broker, "m0") {
            kill(pid);
        }
        let record: Value = serde_json::from_slice(&fs::read(&record).ok()?).ok()?;
        (record["restarts"].as_u64()? >= 4).then_some(())
    })
    .await;
    is_whole(&credentials, "m0").await;
    lose(&broker, "m1").await;
    let accepted = patch(&broker, json!({ "units": 2 })).await;
    assert_eq!(accepted.status, StatusCode::ACCEPTED, "{accepted:?}");
    let end = broker.instance_end("i", &accepted.body).await;
    assert_eq!(end["state"], "failed", "{end}");
    let why = text(&end["description"]);
    assert!(why.contains("m1") && !why.contains("m0"), "{why}");
    assert_eq!(end["instance_usable"], true, "{end}");
    assert_eq!(end["update_repeatable"], true, "{end}");
    let update = Inside::of(&broker).newest("i", OperationKind::Update).await;
    assert_eq!(update.state, OperationState::Failed);
    // What is usable is told as it is at that moment.
    let path = format!(
        "{}/last_operation?operation={}",
        instance_path("i"),
        text(&accepted.body["operation"])
    );
    let other = process_of(&broker, "m2").expect("a process");
    signal(other, Signal::STOP);
    eventually("an instance that is not usable", || async {
        let now = answer(broker.osb(Method::GET, &path)).await;
        (now.body["instance_usable"] == false).then_some(())
    })
    .await;
    signal(other, Signal::CONT);
    eventually("an instance that is usable", || async {
        let now = answer(broker.osb(Method::GET, &path)).await;
        (now.body["instance_usable"] == true).then_some(())
    })
    .await;
    ask_for_repair(&broker, json!({ "member": "m1" })).await;
    repaired(&broker, 1).await;
    let again = patch(&broker, json!({ "units": 2 })).await;
    let end = broker.instance_end("i", &again.body).await;
    assert_eq!(end["state"], "succeeded", "{end}");
    is_whole(&credentials, "m1").await;
}

/// How long a member may hang in these tests: shorter than is waited elsewhere, and longer than a busy
/// machine keeps one waiting.
const HANGS: Duration = Duration::from_secs(20);

/// Surroundings in which a member that hangs is ended soon.
fn hanging(of: Surroundings) -> Surroundings {
    Surroundings {
        hang_after: HANGS,
        ..of
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_member_that_hangs_is_ended_and_started_anew() {
    let broker = TestBroker::start_with(&[], hanging(control::surroundings())).await;
    let credentials = with_keys(&broker, "3.7.3").await;
    let (first, second) = (process_of(&broker, "m1"), process_of(&broker, "m2"));
    let (first, second) = (first.expect("a process"), second.expect("a process"));
    let begun = Instant::now();
    signal(first, Signal::STOP);
    eventually("another process", || async {
        process_of(&broker, "m1").filter(|pid| *pid != first)
    })
    .await;
    assert!(begun.elapsed() >= HANGS, "{:?}", begun.elapsed());
    println!("started anew after {:.1?}", begun.elapsed());
    is_whole(&credentials, "m1").await;
    says(&broker, &credentials, "Member m1 gave no sign of life").await;
    assert_eq!(process_of(&broker, "m2"), Some(second));
}

/// Lets the opening of an instance fail once when it is done, and remembers which members ran then.
struct FailsWhenOpen {
    folder: PathBuf,
    ran: Mutex<Option<Vec<i32>>>,
}

impl Faults for FailsWhenOpen {
    fn at(&self, operation: &Operation, step: &str, moment: Moment) -> Option<Fault> {
        let is_there = operation.kind == OperationKind::Provision && step == "open";
        let mut ran = self.ran.lock().expect("pids");
        if !is_there || moment != Moment::Done || ran.is_some() {
            return None;
        }
        *ran = Some(processes_below(&self.folder));
        Some(Fault::Fail)
    }
}

/// Large members would never be ready if each try began from the beginning.
#[tokio::test(flavor = "multi_thread")]
async fn members_that_are_open_already_are_left_alone_when_opening_is_tried_again() {
    let folder = new_folder();
    let faults = Arc::new(FailsWhenOpen {
        folder: folder.clone(),
        ran: Mutex::default(),
    });
    let surroundings = Surroundings {
        faults: faults.clone(),
        ..control::surroundings()
    };
    let broker = TestBroker::start_in(folder, &[], surroundings).await;
    broker.provision("i", json!({})).await;
    let ran = faults.ran.lock().expect("pids").clone();
    assert_eq!(ran, Some(broker.members()));
}

/// What has the members in hand again and again does not keep a member that hangs alive.
#[tokio::test(flavor = "multi_thread")]
async fn a_member_that_hangs_is_started_anew_by_an_update_that_finds_it_so() {
    let broker = TestBroker::start_with(&[], hanging(control::surroundings())).await;
    let credentials = with_keys(&broker, "3.6.16").await;
    let hung = process_of(&broker, "m1").expect("a process");
    signal(hung, Signal::STOP);
    let begun = Instant::now();
    let accepted = patch(&broker, json!({ "units": 2 })).await;
    let end = broker.instance_end("i", &accepted.body).await;
    println!("after {:.1?}: {end}", begun.elapsed());
    assert_eq!(end["state"], "succeeded", "{end}");
    assert_ne!(process_of(&broker, "m1"), Some(hung));
    is_whole(&credentials, "m1").await;
}

/// Nothing is lost by starting them anew, and the database comes back.
#[tokio::test(flavor = "multi_thread")]
#[ignore = "waits for four minutes; model/repair.rs has the rule"]
async fn a_majority_that_hangs_is_started_anew_one_after_the_other() {
    let broker = TestBroker::start().await;
    let credentials = with_keys(&broker, "3.6.16").await;
    let hung = ["m0", "m2"].map(|name| process_of(&broker, name).expect("a process"));
    let begun = Instant::now();
    for pid in hung {
        signal(pid, Signal::STOP);
    }
    // Longer than anything else is waited for.
    let until = HANG_AFTER * HANG_PATIENCES_WITHOUT_SERVICE;
    while begun.elapsed() < until {
        assert_eq!(process_of(&broker, "m0"), Some(hung[0]));
        tokio::time::sleep(Duration::from_secs(5)).await;
    }
    for (name, pid) in ["m0", "m2"].into_iter().zip(hung) {
        eventually("another process", || async {
            process_of(&broker, name).filter(|now| *now != pid)
        })
        .await;
        println!("{name} after {:.1?}", begun.elapsed());
    }
    is_whole(&credentials, "m2").await;
}

/// An update of `i` that has checked everything and has touched no member yet.
async fn held_before_it_rolls(broker: &TestBroker, script: &Script) -> (InForce, Answer) {
    let held = script.hold(OperationKind::Update, "roll");
    let accepted = patch(broker, json!({ "units": 2 })).await;
    let inside = Inside::of(broker);
    eventually("an update that is held", || async {
        let update = inside.newest("i", OperationKind::Update).await;
        inside.is_recorded(&update, "check").await.then_some(())
    })
    .await;
    (held, accepted)
}

/// A member that loses its data while an update has the members in hand is replaced by it.
#[tokio::test(flavor = "multi_thread")]
async fn a_member_that_loses_its_data_during_an_update_is_replaced_by_it() {
    let script = Script::default();
    let broker = TestBroker::start_with(&[], script.surroundings()).await;
    let credentials = with_keys(&broker, "3.6.16").await;
    let (held, accepted) = held_before_it_rolls(&broker, &script).await;
    lose(&broker, "m2").await;
    drop(held);
    let end = broker.instance_end("i", &accepted.body).await;
    assert_eq!(end["state"], "succeeded", "{end}");
    for member in ["m0", "m1", "m2"] {
        is_whole(&credentials, member).await;
    }
}

/// The watchdog leaves members alone that an update has in hand: the update itself ends one that hangs.
#[tokio::test(flavor = "multi_thread")]
async fn a_member_that_hangs_during_an_update_is_started_anew_by_it() {
    let script = Script::default();
    let broker = TestBroker::start_with(&[], hanging(script.surroundings())).await;
    let credentials = with_keys(&broker, "3.6.16").await;
    let (held, accepted) = held_before_it_rolls(&broker, &script).await;
    signal(process_of(&broker, "m1").expect("a process"), Signal::STOP);
    drop(held);
    let begun = Instant::now();
    let end = broker.instance_end("i", &accepted.body).await;
    println!("after {:.1?}: {end}", begun.elapsed());
    assert_eq!(end["state"], "succeeded", "{end}");
    is_whole(&credentials, "m1").await;
}
