//! Clocks that jump: days forward and back, in the middle of everything.

use std::{
    collections::HashSet,
    sync::{Arc, Mutex},
};

use chrono::TimeDelta;
use compose_broker::{
    app::Surroundings,
    model::{
        limits::SAFETY_KEPT,
        operation::{Operation, OperationKind, OperationState},
    },
    operation::fault::{Fault, Faults, Moment},
};
use reqwest::{Method, StatusCode};
use serde_json::json;

use crate::{
    broker::{TestBroker, answer, eventually, text},
    control::{Script, TestClock, surroundings},
    database::Database,
    faults::assert_same_story,
    inside::Inside,
    saboteur::all_steps,
};

/// How far clocks jump.
const JUMP: TimeDelta = TimeDelta::days(2);

/// The same where they jump in every step: by as much as all steps together can without a backup that
/// was taken in the first of them having come of age in the last. Nothing of the story cleans up.
fn jump_in_every_step() -> TimeDelta {
    SAFETY_KEPT / i32::try_from(all_steps().len() + 1).expect("a number of steps")
}

/// Lets the clock jump once in every step of every kind.
struct Jumps {
    clock: TestClock,
    by: TimeDelta,
    jumped: Mutex<HashSet<(OperationKind, String)>>,
}

impl Jumps {
    fn surroundings(by: TimeDelta) -> Surroundings {
        let clock = TestClock::default();
        Surroundings {
            clock: clock.clock(),
            faults: Arc::new(Self {
                clock,
                by,
                jumped: Mutex::default(),
            }),
            // Days that pass have their own backups.
            scheduled: false,
            ..surroundings()
        }
    }
}

impl Faults for Jumps {
    fn at(&self, operation: &Operation, step: &str, moment: Moment) -> Option<Fault> {
        let here = (operation.kind, step.to_owned());
        if moment == Moment::Begun && self.jumped.lock().expect("jumps").insert(here) {
            self.clock.shift(self.by);
        }
        None
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_clock_that_is_put_forward_in_every_step_changes_nothing() {
    let jumps = || Jumps::surroundings(jump_in_every_step());
    assert_same_story(&Database::in_memory(), jumps).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_clock_that_is_put_back_in_every_step_changes_nothing() {
    let jumps = || Jumps::surroundings(-jump_in_every_step());
    assert_same_story(&Database::in_memory(), jumps).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn work_that_was_put_off_goes_on_after_the_clock_was_set() {
    let (script, clock) = (Script::default(), TestClock::default());
    let surroundings = Surroundings {
        clock: clock.clock(),
        scheduled: false,
        ..script.surroundings()
    };
    let broker = TestBroker::start_with(&[], surroundings).await;
    let inside = Inside::of(&broker);
    broker.provision("source", json!({})).await;
    let credentials = broker.bind("source", "b").await;
    let mut backup = broker.back_up(&credentials).await;
    for by in [JUMP, -JUMP] {
        let held = script.hold(OperationKind::Restore, "start");
        let parameters =
            json!({ "source_service_instance_id": "source", "backup_id": backup["id"] });
        let copy = broker.put_instance("copy", parameters).await;
        assert_eq!(copy.status, StatusCode::ACCEPTED, "{copy:?}");
        // A newer backup displaces the old one, which stays as long as it is read.
        backup = broker.back_up(&credentials).await;
        eventually("a prune that waits", || async {
            let prune = inside.newest("source", OperationKind::Prune).await;
            (prune.epoch > 0 && prune.state == OperationState::Queued).then_some(())
        })
        .await;
        clock.shift(by);
        drop(held);
        let end = broker.instance_end("copy", &copy.body).await;
        assert_eq!(end["state"], "succeeded", "{end}");
        inside.idle("source").await;
        broker.deprovision("copy").await;
    }
    let path = format!(
        "/deployments/{}/backups",
        text(&credentials["deployment_id"])
    );
    let kept = answer(broker.compose(Method::GET, &credentials, &path)).await;
    let kept = kept.body["_embedded"]["backups"].clone();
    assert_eq!(kept.as_array().map(Vec::len), Some(1), "{kept}");
    assert_eq!(kept[0]["id"], backup["id"], "{kept}");
}
