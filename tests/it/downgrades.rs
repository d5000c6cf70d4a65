//! Members that are taken back when an update fails on its way, and those that cannot be.

use std::{
    fs,
    path::{Path, PathBuf},
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use compose_broker::{
    app::Surroundings,
    model::operation::{Operation, OperationKind},
    operation::fault::{Fault, Faults, Moment},
};
use diesel::{Connection, RunQueryDsl, SqliteConnection};
use serde_json::json;

use crate::{
    broker::{TestBroker, kill, new_folder, processes_below, text},
    control,
    updates::{
        DEFAULT, NEWEST, Passes, Writer, all, assert_same_everywhere, fetched,
        members_are_checkpointing, running, to, updated,
    },
};

#[tokio::test(flavor = "multi_thread")]
async fn members_are_taken_back_when_an_upgrade_fails_on_the_way() {
    taken_back("3.4.23", NEWEST).await;
}

/// Lets an update fail when its members have agreed on their new line, and it does not know yet.
struct FailsWhenAgreed {
    from: &'static str,
    /// The version that the members are taken to.
    ahead: &'static str,
    /// They agree when the first of them is taken back already.
    late: bool,
    data: PathBuf,
    failed: AtomicBool,
    agreed_late: AtomicBool,
}

impl FailsWhenAgreed {
    async fn broker(
        from: &'static str,
        ahead: &'static str,
        late: bool,
    ) -> (Arc<Self>, TestBroker) {
        let folder = new_folder();
        let faults = Arc::new(Self {
            from,
            ahead,
            late,
            data: folder.clone(),
            failed: AtomicBool::default(),
            agreed_late: AtomicBool::default(),
        });
        let surroundings = Surroundings {
            faults: faults.clone(),
            ..control::surroundings()
        };
        let broker = TestBroker::start_in(folder, &[], surroundings).await;
        (faults, broker)
    }

    fn wait_for_agreement(&self) {
        let line = self.ahead.rsplit_once('.').expect("a version").0;
        let agreed = format!(r#""to":"{line}""#);
        let begun = std::time::Instant::now();
        while !printed_by_members(&self.data).contains(&agreed) {
            assert!(begun.elapsed() < Duration::from_secs(60), "no agreement");
            std::thread::sleep(Duration::from_millis(50));
        }
    }

    /// What a member is in for that was taken back when the others had not agreed, and is started
    /// when they have.
    fn take_one_back(&self) {
        let file = self.data.join("broker.db");
        let mut store = SqliteConnection::establish(&file.display().to_string()).expect("a store");
        let back = json!({ "version": self.from, "units": 1 });
        let changed = diesel::sql_query(
            "UPDATE deployments SET members = json_set(members, '$[0].shape', json(?))",
        )
        .bind::<diesel::sql_types::Text, _>(back.to_string())
        .execute(&mut store)
        .expect("an update");
        assert_eq!(changed, 1);
        for pid in processes_below(&self.data) {
            let process = procfs::process::Process::new(pid).expect("a process");
            let line = process.cmdline().expect("a command");
            if line.iter().any(|word| word.ends_with("/m0/data")) {
                kill(pid);
            }
        }
    }
}

impl Faults for FailsWhenAgreed {
    fn at(&self, operation: &Operation, step: &str, moment: Moment) -> Option<Fault> {
        if operation.kind != OperationKind::Update || moment != Moment::Begun {
            return None;
        }
        if step == "cleanup_members" && self.late && !self.agreed_late.swap(true, Ordering::Relaxed)
        {
            self.take_one_back();
        }
        if step != "roll" || self.failed.load(Ordering::Relaxed) {
            return None;
        }
        let versions = running_in(&self.data);
        if versions.len() < 3 || versions.iter().any(|version| version != self.ahead) {
            return None;
        }
        // Each of them has been started as the new version: they agree within some seconds.
        self.wait_for_agreement();
        self.failed.store(true, Ordering::Relaxed);
        Some(Fault::FailForGood)
    }
}

/// The version of each member that runs below a folder.
fn running_in(data: &Path) -> Vec<String> {
    let versions = processes_below(data).into_iter().filter_map(|pid| {
        let line = procfs::process::Process::new(pid).and_then(|p| p.cmdline());
        let line = line.ok()?;
        Some(line.first()?.rsplit('/').nth(1)?.to_owned())
    });
    versions.collect()
}

fn printed_by_members(data: &Path) -> String {
    let mut all = String::new();
    let mut folders = vec![data.to_owned()];
    while let Some(folder) = folders.pop() {
        for file in fs::read_dir(folder).into_iter().flatten().flatten() {
            let path = file.path();
            if path.is_dir() {
                folders.push(path);
            } else if path.ends_with("member.log") {
                all += &fs::read_to_string(path).unwrap_or_default();
            }
        }
    }
    all
}

#[tokio::test(flavor = "multi_thread")]
async fn members_are_taken_back_from_a_line_that_they_have_agreed_on() {
    taken_back_after_agreement(false).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn members_that_agree_while_the_first_one_is_taken_back_are_taken_back() {
    taken_back_after_agreement(true).await;
}

async fn taken_back_after_agreement(late: bool) {
    let (faults, broker) = FailsWhenAgreed::broker("3.5.35", DEFAULT, late).await;
    broker
        .provision("i", json!({ "db_version": "3.5.35" }))
        .await;
    let credentials = broker.bind("i", "b").await;
    let before = fetched(&broker).await;
    let writer = Writer::start(&credentials);
    let end = updated(&broker, to(DEFAULT)).await;
    assert!(faults.failed.load(Ordering::Relaxed), "it was never broken");
    assert_eq!(end["state"], "failed", "{end}");
    assert_eq!(end["instance_usable"], true, "{end}");
    assert_eq!(fetched(&broker).await, before);
    assert_eq!(running(&broker), all("3.5.35", 1));
    assert!(!members_are_checkpointing(&broker));
    // And forward again, which members refuse while a way back is open.
    let end = updated(&broker, to(DEFAULT)).await;
    assert_eq!(end["state"], "succeeded", "{end}");
    let written = writer.end().await;
    assert_eq!(running(&broker), all(DEFAULT, 1));
    assert_same_everywhere(&credentials, written.keys).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn members_that_agree_while_the_first_one_is_taken_back_go_on_where_no_way_leads_back() {
    let (faults, broker) = FailsWhenAgreed::broker("3.4.23", "3.5.35", true).await;
    broker
        .provision("i", json!({ "db_version": "3.4.23" }))
        .await;
    let credentials = broker.bind("i", "b").await;
    let writer = Writer::start(&credentials);
    let end = updated(&broker, to("3.5.35")).await;
    assert!(faults.failed.load(Ordering::Relaxed), "it was never broken");
    assert_eq!(end["state"], "failed", "{end}");
    assert_eq!(end["instance_usable"], true, "{end}");
    let version = fetched(&broker).await["maintenance_info"]["version"].clone();
    assert_eq!(version, "3.5.35");
    assert_eq!(running(&broker), all("3.5.35", 1));
    let written = writer.end().await;
    assert_same_everywhere(&credentials, written.keys).await;
}

async fn taken_back(from: &str, goal: &str) {
    // One member is changed, then two, then all of them: but not the deployment.
    for changed in 1..=3 {
        let (_, surroundings) = Passes {
            fault: Fault::FailForGood,
            moments: &[Moment::Begun],
            from: changed + 1,
            upto: changed + 1,
            passed: Mutex::default(),
        }
        .surroundings();
        let broker = TestBroker::start_with(&[], surroundings).await;
        broker.provision("i", json!({ "db_version": from })).await;
        let credentials = broker.bind("i", "b").await;
        let before = fetched(&broker).await;
        let writer = Writer::start(&credentials);
        let change = json!({ "parameters": { "db_version": goal, "units": 2 } });
        let end = updated(&broker, change.clone()).await;
        assert_eq!(end["state"], "failed", "{end}");
        assert_eq!(end["instance_usable"], true, "{end}");
        assert_eq!(end["update_repeatable"], true, "{end}");
        let after = fetched(&broker).await;
        assert_eq!(after["parameters"], before["parameters"]);
        let version = text(&after["maintenance_info"]["version"]).to_owned();
        let whole = if version == NEWEST { 2 } else { 1 };
        assert_eq!(running(&broker), all(&version, whole), "after {changed}");
        assert!(
            changed == 3 || version == "3.4.23",
            "after {changed}: {version}"
        );
        let end = updated(&broker, change).await;
        assert_eq!(end["state"], "succeeded", "{end}");
        let written = writer.end().await;
        assert_eq!(running(&broker), all(NEWEST, 2));
        assert_same_everywhere(&credentials, written.keys).await;
    }
}
