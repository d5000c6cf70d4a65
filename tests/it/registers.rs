//! What stands beside the backups of a database and says which should be there: somebody who removes one, or puts back
//! what was there earlier, is found out, and the broker itself never is.

use std::{
    fs,
    path::{Path, PathBuf},
    time::Duration,
};

use compose_broker::{app::Surroundings, model::register::RegisterState};
use reqwest::{Method, StatusCode};
use serde_json::{Value, json};

use crate::{
    broker::{TestBroker, answer, eventually, text, with_one_backup},
    catalog::catalog_file,
    control::{Script, TestClock},
    database::Database,
    inside::Inside,
    reconcile::with_an_older_store,
    sealed::look,
};

/// When backups are called over again.
const CALLED_OVER: Duration = Duration::from_secs(24 * 3600 + 60);
/// What the register of a deployment is called, beside the folders of its backups.
pub const REGISTER: &str = "register.json";
/// How often a broker of these tests looks for registers that are to be written.
const OFTEN: Duration = Duration::from_millis(200);

/// A broker with an instance `i`, and who looks at its backups.
struct Registered {
    broker: TestBroker,
    credentials: Value,
    clock: TestClock,
}

impl Registered {
    /// With further flags.
    async fn new(flags: &[&str]) -> Self {
        Self::with(&with_one_backup(catalog_file()), flags).await
    }

    async fn with(catalog: &Value, flags: &[&str]) -> Self {
        let clock = TestClock::default();
        let surroundings = unscheduled(&clock);
        let database = Database::in_memory();
        let broker = database.broker_with(catalog, flags, surroundings).await;
        broker.provision("i", json!({})).await;
        let credentials = broker.bind("i", "app").await;
        broker.database.fill(&credentials, 20, "v").await;
        Self {
            broker,
            credentials,
            clock,
        }
    }

    fn deployment(&self) -> &str {
        text(&self.credentials["deployment_id"])
    }

    /// Where the backups of the instance lie.
    fn folder(&self) -> PathBuf {
        let backups = self.broker.data_dir().join("backups");
        backups.join(self.deployment())
    }

    async fn back_up(&self) -> Value {
        let backup = self.broker.back_up(&self.credentials).await;
        assert_eq!(backup["status"], "complete", "{backup}");
        backup
    }

    /// Has a backup kept, or not.
    async fn pin(&self, backup: &Value, pinned: bool) {
        let path = format!(
            "/deployments/{}/backups/{}",
            self.deployment(),
            text(&backup["id"])
        );
        let wanted = json!({ "backup": { "pinned": pinned } });
        let request = self.broker.compose(Method::PATCH, &self.credentials, &path);
        let told = answer(request.json(&wanted)).await;
        assert_eq!(told.status, StatusCode::OK, "{told:?}");
    }

    /// Waits until the register has these backups and no other, and the store knows that.
    async fn settled(&self, backups: &[&Value]) -> Value {
        eventually("a register that is recorded", || async {
            let state = Inside::of(&self.broker).register(self.deployment()).await;
            state.is_some_and(RegisterState::is_settled).then_some(())
        })
        .await;
        settled(&self.folder().join(REGISTER), backups).await
    }

    /// How a look without a broker ends.
    fn look(&self) -> (i32, String) {
        let store = self.broker.data_dir().join("backups");
        self.look_at(&store)
    }

    fn look_at(&self, store: &Path) -> (i32, String) {
        let ring = fs::read_to_string(self.broker.data_dir().join("encryption_keys"));
        let ring = ring.expect("a ring");
        look(&[&store.display().to_string()], Some(ring.trim()))
    }

    fn finds(&self, what: &[&str]) {
        let (code, printed) = self.look();
        assert_eq!(code, 1, "{printed}");
        for what in what {
            assert!(printed.contains(what), "{what}: {printed}");
        }
    }

    fn is_whole(&self) {
        let (code, printed) = self.look();
        assert_eq!(code, 0, "{printed}");
    }

    async fn findings(&self, method: Method) -> Value {
        let path = "/operator/reconciliation";
        let told = answer(self.broker.osb(method, path)).await;
        assert_eq!(told.status, StatusCode::OK, "{told:?}");
        told.body["findings"].clone()
    }

    async fn alerts(&self) -> String {
        let path = format!("/deployments/{}/alerts", self.deployment());
        let told = answer(self.broker.compose(Method::GET, &self.credentials, &path));
        told.await.body.to_string()
    }
}

/// Nothing is backed up that no test asked for.
fn unscheduled(clock: &TestClock) -> Surroundings {
    Surroundings {
        scheduled: false,
        ..often(Script::default().surroundings_at(clock))
    }
}

/// Registers are written as soon as they are to be.
pub fn often(of: Surroundings) -> Surroundings {
    Surroundings {
        registers_every: OFTEN,
        ..of
    }
}

/// Waits until the register in a file has these backups, all of them there, and no other.
async fn settled(file: &Path, backups: &[&Value]) -> Value {
    let mut wanted: Vec<&str> = backups.iter().map(|of| text(&of["id"])).collect();
    wanted.sort_unstable();
    eventually("a register that says so", || async {
        let read: Value = serde_json::from_slice(&fs::read(file).ok()?).ok()?;
        let listed = read["backups"].as_array()?;
        let there = listed.iter().filter(|of| of["awaited"] != true);
        let ids: Vec<&str> = there.map(|of| text(&of["backup_id"])).collect();
        (ids == wanted && listed.len() == wanted.len()).then_some(read.clone())
    })
    .await
}

fn copy_folder(from: &Path, to: &Path) {
    fs::create_dir_all(to).expect("a folder");
    for file in fs::read_dir(from).expect("a folder") {
        let file = file.expect("a file");
        fs::copy(file.path(), to.join(file.file_name())).expect("a copy");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn who_removes_a_backup_or_puts_an_older_register_back_is_found_out_without_the_brokers_store()
 {
    let of = Registered::new(&[]).await;
    let older = of.back_up().await;
    of.pin(&older, true).await;
    let first = of.settled(&[&older]).await;
    let register = of.folder().join(REGISTER);
    let first_text = fs::read(&register).expect("a register");
    let newer = of.back_up().await;
    let second = of.settled(&[&older, &newer]).await;
    assert!(
        second["number"].as_i64() > first["number"].as_i64(),
        "{second}"
    );
    of.is_whole();
    let (_, printed) = of.look();
    assert!(printed.contains("of 2 backups"), "{printed}");

    let (there, aside) = (of.folder().join(text(&older["id"])), of.broker.data_dir());
    let aside = aside.join("aside");
    fs::rename(&there, &aside).expect("moved");
    of.finds(&[text(&older["id"]), "it is missing: its register has it"]);
    // The register of then knew of no more; the manifest of the newer one does.
    let good = fs::read(&register).expect("a register");
    fs::write(&register, &first_text).expect("written");
    fs::rename(
        of.folder().join(text(&newer["id"])),
        of.broker.data_dir().join("newer"),
    )
    .expect("moved");
    fs::rename(&aside, &there).expect("moved back");
    // All of an earlier moment is as good as that was.
    of.is_whole();
    fs::rename(
        of.broker.data_dir().join("newer"),
        of.folder().join(text(&newer["id"])),
    )
    .expect("moved back");
    of.is_whole();
    fs::write(&register, &good).expect("written");

    // Nobody changes it, or takes it away.
    let changed = String::from_utf8(good.clone()).expect("a text");
    let changed = changed.replace(text(&older["id"]), &"0".repeat(24));
    fs::write(&register, changed).expect("written");
    of.finds(&["register.json: its signature"]);
    fs::remove_file(&register).expect("removed");
    of.finds(&["register.json: it is missing"]);
    fs::write(&register, &good[..good.len() / 2]).expect("written");
    of.finds(&["damaged: ", REGISTER]);
    fs::write(&register, &good).expect("written");
    of.is_whole();
}

#[tokio::test(flavor = "multi_thread")]
async fn an_older_register_beside_a_manifest_that_tells_of_a_newer_one_is_found_out() {
    let of = Registered::new(&[]).await;
    let older = of.back_up().await;
    of.pin(&older, true).await;
    of.settled(&[&older]).await;
    let register = of.folder().join(REGISTER);
    let first = fs::read(&register).expect("a register");
    let middle = of.back_up().await;
    of.pin(&middle, true).await;
    of.settled(&[&older, &middle]).await;
    let newest = of.back_up().await;
    of.settled(&[&older, &middle, &newest]).await;
    let good = fs::read(&register).expect("a register");

    // To hide that the one in the middle is gone.
    let there = of.folder().join(text(&middle["id"]));
    let aside = of.broker.data_dir().join("aside");
    fs::rename(&there, &aside).expect("moved");
    fs::write(&register, &first).expect("written");
    of.finds(&["register.json: it is an older one that was put back"]);
    let found = of.findings(Method::GET).await;
    let found = found.as_array().expect("findings");
    let wrong = found.iter().find(|of| of["finding"] == "wrong_register");
    let wrong = wrong.expect("what is wrong");
    assert_eq!(wrong["deployment"], of.deployment(), "{wrong}");
    assert!(text(&wrong["what"]).contains("is an older one"), "{wrong}");
    let missing = found.iter().any(|of| of["finding"] == "bytes_missing");
    assert!(missing, "{found:?}");
    fs::rename(&aside, &there).expect("moved back");
    let repaired = of.findings(Method::POST).await;
    assert_eq!(repaired[0]["repair"], "rewritten", "{repaired}");
    let again = of.settled(&[&older, &middle, &newest]).await;
    let good: Value = serde_json::from_slice(&good).expect("JSON");
    assert!(again["number"].as_i64() >= good["number"].as_i64());
    of.is_whole();
    assert_eq!(of.findings(Method::GET).await, json!([]));
    let alerts = of.alerts().await;
    assert!(alerts.contains("is an older one"), "{alerts}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_backup_that_was_given_up_and_comes_back_is_told_of() {
    let of = Registered::new(&[]).await;
    let older = of.back_up().await;
    of.settled(&[&older]).await;
    let kept = of.broker.data_dir().join("kept");
    let there = of.folder().join(text(&older["id"]));
    copy_folder(&there, &kept);
    // So soon after it was taken nobody would wonder.
    of.clock.forward(Duration::from_secs(600));
    let newer = of.back_up().await;
    Inside::of(&of.broker).idle("i").await;
    of.settled(&[&newer]).await;
    assert!(!there.join("manifest.json").exists());
    of.is_whole();
    copy_folder(&kept, &there);
    let (code, printed) = of.look();
    assert_eq!(code, 3, "{printed}");
    let line = printed.lines().find(|line| line.starts_with("given up: "));
    assert!(
        line.is_some_and(|line| line.contains(text(&older["id"]))),
        "{printed}"
    );
    let found = of.findings(Method::GET).await;
    assert_eq!(found[0]["finding"], "leftover", "{found}");
    assert_eq!(found[0]["adoptable"], false, "{found}");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_the_broker_removes_itself_is_missed_at_no_moment() {
    let mut of = Registered::new(&[]).await;
    of.back_up().await;
    for round in 0..4 {
        let looks = async {
            for _ in 0..3 {
                let (_, printed) = tokio::task::block_in_place(|| of.look());
                let said = [
                    "missing: its register",
                    "it is missing, and",
                    "older one",
                    "signature",
                ];
                let said = said.iter().find(|said| printed.contains(**said));
                assert_eq!(said, None, "{round}: {printed}");
            }
        };
        tokio::join!(of.back_up(), looks);
    }
    Inside::of(&of.broker).idle("i").await;
    assert_eq!(of.findings(Method::GET).await, json!([]));
    of.broker.restart_with(unscheduled(&of.clock)).await;
    of.credentials = of.broker.bind("i", "another").await;
    let last = of.back_up().await;
    Inside::of(&of.broker).idle("i").await;
    of.settled(&[&last]).await;
    of.is_whole();
    of.clock.forward(CALLED_OVER);
    eventually("backups that were called over", || async {
        let known = Inside::of(&of.broker).register(of.deployment()).await;
        known?
            .called_at
            .is_some_and(|at| at > of.clock.now() - chrono::TimeDelta::hours(1))
            .then_some(())
    })
    .await;
    let alerts = of.alerts().await;
    for said in ["register", "gone from the backup store"] {
        assert!(!alerts.contains(said), "{alerts}");
    }
    of.is_whole();
    // Nothing is left of what nobody keeps.
    let folder = of.folder();
    of.broker.deprovision("i").await;
    let left = fs::read_dir(&folder)
        .map(Iterator::count)
        .unwrap_or_default();
    assert_eq!(left, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn each_day_the_backups_are_called_over() {
    let of = Registered::new(&["--backup-proofs", "off"]).await;
    let backup = of.back_up().await;
    of.settled(&[&backup]).await;
    eventually("backups that were called over", || async {
        let known = Inside::of(&of.broker).register(of.deployment()).await;
        known?.called_at
    })
    .await;
    fs::remove_dir_all(of.folder()).expect("removed");
    of.clock.forward(CALLED_OVER);
    eventually(
        "an alert of the backup, and one of the register",
        || async {
            let alerts = of.alerts().await;
            let gone = format!("The backup {} of", text(&backup["id"]));
            (alerts.contains(&gone) && alerts.contains("which stands beside them, is gone"))
                .then_some(())
        },
    )
    .await;
    // It is there again, and says what should be.
    of.settled(&[&backup]).await;
    of.finds(&[text(&backup["id"]), "it is missing: its register has it"]);
    let repaired = of.findings(Method::POST).await;
    assert_eq!(repaired[0]["repair"], "marked_failed", "{repaired}");
    of.settled(&[]).await;
    of.is_whole();
}

#[tokio::test(flavor = "multi_thread")]
async fn what_an_older_store_does_not_know_stays_in_the_register() {
    let (broker, _, backup) = with_an_older_store(|_, _| ()).await;
    let deployment = text(&backup["deployment_id"]);
    let file = broker
        .data_dir()
        .join("backups")
        .join(deployment)
        .join(REGISTER);
    let before = settled(&file, &[&backup]).await;
    let repaired = answer(broker.osb(Method::POST, "/operator/reconciliation")).await;
    let repaired = &repaired.body["findings"];
    assert_eq!(repaired[0]["repair"], "adopted", "{repaired}");
    assert_eq!(repaired[1], Value::Null, "{repaired}");
    eventually("a register that the store knows", || async {
        let state = Inside::of(&broker).register(deployment).await;
        state.is_some_and(RegisterState::is_settled).then_some(())
    })
    .await;
    let now = settled(&file, &[&backup]).await;
    assert!(now["number"].as_i64() >= before["number"].as_i64(), "{now}");
    let found = answer(broker.osb(Method::GET, "/operator/reconciliation")).await;
    assert_eq!(found.body["findings"], json!([]));
}

#[tokio::test(flavor = "multi_thread")]
async fn the_last_backup_of_a_deleted_database_is_in_its_register() {
    let of = Registered::with(&catalog_file(), &[]).await;
    let backup = of.back_up().await;
    of.settled(&[&backup]).await;
    of.broker.deprovision("i").await;
    let register = of.folder().join(REGISTER);
    eventually("a register with both", || async {
        let read: Value = serde_json::from_slice(&fs::read(&register).ok()?).ok()?;
        let kinds = read["backups"]
            .as_array()?
            .iter()
            .map(|of| text(&of["kind"]));
        (kinds.collect::<Vec<_>>() == ["on_demand", "final"]).then_some(())
    })
    .await;
    of.is_whole();
    fs::remove_dir_all(of.folder().join(text(&backup["id"]))).expect("removed");
    of.finds(&[text(&backup["id"]), "it is missing: its register has it"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_mirror_has_a_register_of_its_own() {
    let mirror = tempfile::tempdir().expect("a folder");
    let root = mirror.path().join("mirror");
    let address = format!("file://{}", root.display());
    let of = Registered::new(&["--backup-mirror", &address]).await;
    let older = of.back_up().await;
    of.pin(&older, true).await;
    let register = root.join(of.deployment()).join(REGISTER);
    settled(&register, &[&older]).await;
    let newer = of.back_up().await;
    settled(&register, &[&older, &newer]).await;
    let (code, printed) = of.look_at(&root);
    assert_eq!(code, 0, "{printed}");
    of.pin(&older, false).await;
    let newest = of.back_up().await;
    settled(&register, &[&newest]).await;
    eventually("a mirror without what was given up", || async {
        (of.look_at(&root).0 == 0).then_some(())
    })
    .await;
    let copy = root.join(of.deployment()).join(text(&newest["id"]));
    fs::rename(&copy, mirror.path().join("aside")).expect("moved");
    let (code, printed) = of.look_at(&root);
    assert_eq!(code, 1, "{printed}");
    assert!(
        printed.contains("it is missing: its register has it"),
        "{printed}"
    );
    fs::rename(mirror.path().join("aside"), &copy).expect("moved back");
    of.broker.deprovision("i").await;
    eventually("a mirror that has nothing", || async {
        (!register.exists()).then_some(())
    })
    .await;
}
