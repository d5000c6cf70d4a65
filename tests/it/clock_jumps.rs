//! Clocks that show another time without any having passed: nothing is lost by their word.

use std::{collections::HashSet, fs, path::Path};

use chrono::{DateTime, TimeDelta, Utc};
use compose_broker::{
    app::Surroundings,
    model::{
        ids::InstanceId,
        operation::{OperationKind, OperationState},
        origin::Origin,
        schedule::{minute_of_day, slot_after},
    },
};
use reqwest::{Method, StatusCode};
use serde_json::{Value, json};

use crate::{
    broker::{Answer, SERVICE, STANDARD, TestBroker, answer, binding_path, eventually, text},
    control::TestClock,
    inside::Inside,
    process::BrokerProcess,
    transport::description,
};

/// A Tuesday. In the past, so that certificates made then are good on the real members' clocks.
const BEGIN: &str = "2025-06-10T00:00:00Z";
/// So many scheduled backups are stored: eight days, of which all are kept.
const DAYS: usize = 8;
const TEN_YEARS: TimeDelta = TimeDelta::days(3650);

async fn ready_detail(broker: &TestBroker) -> Option<String> {
    let ready = answer(broker.anonymous(Method::GET, "/readyz")).await;
    assert_eq!(ready.status, StatusCode::OK, "{ready:?}");
    ready.body["detail"].as_str().map(str::to_owned)
}

async fn clock_told(broker: &TestBroker) -> Value {
    let told = answer(broker.osb(Method::GET, "/operator/clock")).await;
    assert_eq!(told.status, StatusCode::OK, "{told:?}");
    told.body
}

async fn say(broker: &TestBroker, time: &str) -> Answer {
    let body = json!({ "time": time });
    answer(broker.osb(Method::POST, "/operator/clock").json(&body)).await
}

/// A broker with instance `i`, whose clock is in the test's hand.
async fn with_an_instance() -> (TestBroker, TestClock) {
    let clock = TestClock::default();
    clock.set(BEGIN.parse().expect("a time"));
    let broker = TestBroker::start_with(&[], clock.surroundings()).await;
    broker.provision("i", json!({})).await;
    (broker, clock)
}

/// Lets time pass to a moment after the next slot of instance `i`.
fn to_next_slot(clock: &TestClock) {
    to_next_slot_of(clock, TimeDelta::zero());
}

/// The same where the clock is wrong by so much; returns how much time passed.
fn to_next_slot_of(clock: &TestClock, wrong_by: TimeDelta) -> TimeDelta {
    let id: InstanceId = "i".parse().expect("an id");
    let now = clock.now() - wrong_by;
    let slot: DateTime<Utc> = slot_after(now, minute_of_day(&id));
    let passes = slot + TimeDelta::seconds(1) - now;
    clock.shift(passes);
    passes
}

async fn bind_for(broker: &TestBroker, binding: &str, seconds: u32) -> Value {
    let body = json!({
        "service_id": SERVICE, "plan_id": STANDARD, "parameters": { "expires_in": seconds },
    });
    let made = answer(
        broker
            .osb(Method::PUT, &binding_path("i", binding))
            .json(&body),
    )
    .await;
    assert_eq!(made.status, StatusCode::CREATED, "{made:?}");
    made.body["credentials"].clone()
}

/// Waits until so many scheduled backups of instance `i` have ended, with their prunes: the
/// scheduler has looked for everything by then.
async fn scheduled(broker: &TestBroker, number: usize) {
    let inside = Inside::of(broker);
    eventually("a scheduled backup", || async {
        let all = inside.operations("i").await;
        let done = all.iter().filter(|o| {
            o.origin == Origin::Schedule
                && o.kind == OperationKind::Backup
                && o.state == OperationState::Succeeded
        });
        (done.count() == number).then_some(())
    })
    .await;
    inside.idle("i").await;
}

async fn ends_by_expiry(broker: &TestBroker) -> usize {
    let all = Inside::of(broker).operations("i").await;
    all.iter().filter(|o| o.origin == Origin::Expiry).count()
}

async fn complete(broker: &TestBroker, credentials: &Value) -> Vec<String> {
    let path = format!(
        "/deployments/{}/backups",
        text(&credentials["deployment_id"])
    );
    let listed = answer(broker.compose(Method::GET, credentials, &path)).await;
    let backups = listed.body["_embedded"]["backups"].as_array();
    let backups = backups.expect("backups").iter();
    let complete = backups.filter(|backup| backup["status"] == "complete");
    complete
        .map(|backup| text(&backup["id"]).to_owned())
        .collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_clock_that_runs_ten_years_ahead_removes_nothing() {
    let (broker, clock) = with_an_instance().await;
    let credentials = broker.bind("i", "b").await;
    for day in 1..=DAYS {
        to_next_slot(&clock);
        scheduled(&broker, day).await;
    }
    clock.shift(TimeDelta::hours(12));
    let ends = bind_for(&broker, "ends", 86_400).await;
    let before = complete(&broker, &credentials).await;
    assert_eq!(before.len(), DAYS);
    assert_eq!(ready_detail(&broker).await, None);

    clock.jump(TEN_YEARS);
    let told = clock_told(&broker).await;
    assert_eq!(told["trusted"], false, "{told}");
    assert!(told["doubted_since"].is_string(), "{told}");
    let detail = ready_detail(&broker).await.expect("a detail");
    assert!(detail.contains("clock"), "{detail}");
    // By that clock everything is old. The schedule goes on by the time that passes.
    to_next_slot_of(&clock, TEN_YEARS);
    scheduled(&broker, DAYS + 1).await;
    // Nothing waits for certificates that go by a clock in doubt.
    let renewal = answer(broker.osb(Method::POST, "/operator/instances/i/renew")).await;
    let why = description(&renewal, StatusCode::CONFLICT);
    assert!(why.contains("clock is in doubt"), "{why}");
    let link = {
        let all = complete(&broker, &credentials).await;
        let path = format!(
            "/deployments/{}/backups/{}",
            text(&credentials["deployment_id"]),
            all[0]
        );
        let told = answer(broker.compose(Method::GET, &credentials, &path)).await;
        text(&told.body["download_link"]).to_owned()
    };
    let status = reqwest::get(&link).await.expect("an answer").status();
    assert_eq!(status, StatusCode::OK);
    // So does what has an end.
    let hour = bind_for(&broker, "hour", 3600).await;
    let by_then = clock.now() - TEN_YEARS + TimeDelta::seconds(3600);
    clock.jump(-TEN_YEARS);
    let api = answer(broker.compose(Method::GET, &hour, "")).await;
    assert_eq!(api.status, StatusCode::OK, "{api:?}");
    let path = format!(
        "{}?service_id={SERVICE}&plan_id={STANDARD}",
        binding_path("i", "hour")
    );
    let fetched = answer(broker.osb(Method::GET, &path)).await;
    let end: DateTime<Utc> = text(&fetched.body["metadata"]["expires_at"])
        .parse()
        .expect("a time");
    let apart = (end - by_then).abs();
    assert!(apart < TimeDelta::minutes(10), "{fetched:?}");
    broker.unbind("i", "hour").await;
    // A link lives for minutes, not until that clock's time comes.
    let status = reqwest::get(&link).await.expect("an answer").status();
    assert_eq!(status, StatusCode::NOT_FOUND);
    assert_eq!(clock_told(&broker).await["trusted"], true);
    assert_eq!(ready_detail(&broker).await, None);
    let after = complete(&broker, &credentials).await;
    assert_eq!(after[1..], before);
    let path = format!(
        "/deployments/{}/backups/{}",
        text(&credentials["deployment_id"]),
        after[0]
    );
    let meanwhile = answer(broker.compose(Method::GET, &credentials, &path)).await;
    let requested: DateTime<Utc> = text(&meanwhile.body["requested_at"])
        .parse()
        .expect("a time");
    assert!(requested <= clock.now(), "{meanwhile:?}");
    assert_eq!(ends_by_expiry(&broker).await, 0);
    let api = answer(broker.compose(Method::GET, &ends, "")).await;
    assert_eq!(api.status, StatusCode::OK, "{api:?}");
    // It goes on by itself: what is over now ends.
    clock.shift(TimeDelta::hours(13));
    eventually("the end of a binding", || async {
        (ends_by_expiry(&broker).await == 1).then_some(())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_clock_that_is_wrong_ends_no_binding_until_it_proved_itself_or_an_operator_believes_it() {
    for by_word in [false, true] {
        let (mut broker, clock) = with_an_instance().await;
        bind_for(&broker, "b", 3600).await;
        let month = TimeDelta::days(31);
        clock.jump(month);
        assert_eq!(clock_told(&broker).await["trusted"], false);
        let passed = to_next_slot_of(&clock, month);
        scheduled(&broker, 1).await;
        assert_eq!(ends_by_expiry(&broker).await, 0);
        // Another broker of this store knows no better.
        broker.restart_with(clock.surroundings()).await;
        let told = clock_told(&broker).await;
        assert_eq!(told["trusted"], false, "{told}");
        assert!(told["ahead_seconds"].as_i64() >= Some(month.num_seconds() - 1));
        if by_word {
            for wrong in [BEGIN, "2036-01-01T00:00:00+01:00"] {
                let refused = say(&broker, wrong).await;
                let said = description(&refused, StatusCode::CONFLICT);
                assert!(said.contains("put the clock right"), "{said}");
            }
            for broken in ["", "now", "2025-06-10"] {
                description(&say(&broker, broken).await, StatusCode::BAD_REQUEST);
            }
            assert_eq!(ends_by_expiry(&broker).await, 0);
            let believed = say(&broker, &clock.now().to_rfc3339()).await;
            assert_eq!(believed.body["trusted"], true, "{believed:?}");
            let audit = answer(broker.osb(Method::GET, "/operator/audit?limit=20")).await;
            let entries = audit.body["entries"].as_array().expect("entries").clone();
            assert!(entries.iter().any(|e| e["action"] == "clock"), "{audit:?}");
        } else {
            clock.shift(TimeDelta::hours(23) - passed);
            assert_eq!(clock_told(&broker).await["trusted"], false);
            clock.shift(TimeDelta::hours(1));
            assert_eq!(clock_told(&broker).await["trusted"], true);
        }
        eventually("the end of a binding", || async {
            (ends_by_expiry(&broker).await == 1).then_some(())
        })
        .await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_clock_file_lets_days_pass_and_shows_jumps_as_what_they_are() {
    let mut broker = BrokerProcess::stopped_with(|settings| {
        let file = Path::new(&settings["DATA_DIR"]).with_file_name("ahead");
        fs::write(&file, "0").expect("a file");
        settings.insert("CLOCK_OFFSET_FILE", file.display().to_string());
    });
    let file = broker.settings()["CLOCK_OFFSET_FILE"].clone();
    let ahead = |by: TimeDelta| fs::write(&file, by.num_seconds().to_string()).expect("a file");
    broker.start_again().await;
    let trusted = || async { clock_told(&broker).await["trusted"] == true };
    // Day by day, as many as you like.
    let mut days = TimeDelta::zero();
    for _ in 0..10 {
        days += TimeDelta::days(1);
        ahead(days);
        assert!(trusted().await, "{days}");
    }
    for jump in [TEN_YEARS, TimeDelta::days(-3), TimeDelta::minutes(-10)] {
        ahead(days + jump);
        assert!(!trusted().await, "{jump}");
        ahead(days);
        assert!(trusted().await, "after {jump}");
    }
    let errors = |broker: &BrokerProcess| broker.logged().matches("No backup, binding").count();
    assert_eq!(errors(&broker), 3, "each is told once");
    // While no broker runs, two days are believed at once; a month is not.
    for (away, believed) in [(2, true), (31, false)] {
        tokio::task::spawn_blocking(broker.terminate())
            .await
            .expect("an end");
        let before = days;
        days += TimeDelta::days(away);
        ahead(days);
        broker.start_again().await;
        assert_eq!(clock_told(&broker).await["trusted"], believed, "{away}");
        if !believed {
            ahead(before);
            assert_eq!(clock_told(&broker).await["trusted"], true);
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_shown_is_the_true_time_and_what_came_later_is_newer() {
    let clock = TestClock::default();
    clock.set(BEGIN.parse().expect("a time"));
    let surroundings = Surroundings {
        scheduled: false,
        ..clock.surroundings()
    };
    let broker = TestBroker::start_with(&[], surroundings).await;
    let inside = Inside::of(&broker);
    let ahead = TimeDelta::seconds(600);
    clock.jump(ahead);
    broker.provision("i", json!({})).await;
    let credentials = broker.bind("i", "b").await;
    let early = broker.back_up(&credentials).await;
    inside.idle("i").await;
    // Both of the others are asked for in one second.
    clock.jump(-ahead);
    clock.stop();
    let first = broker.back_up(&credentials).await;
    inside.idle("i").await;
    let second = broker.back_up(&credentials).await;
    inside.idle("i").await;
    let requested = |backup: &Value| -> DateTime<Utc> {
        let text = text(&backup["requested_at"]);
        text.parse().expect("a time")
    };
    for backup in [&first, &second] {
        let differs = clock.now() - requested(backup);
        assert!(differs < TimeDelta::seconds(1), "{backup}");
    }
    assert!(requested(&early) > requested(&first));
    let names: HashSet<&str> = [&early, &first, &second]
        .map(|backup| text(&backup["name"]))
        .into();
    assert_eq!(names.len(), 3, "{names:?}");
    // The plan keeps one: that which was asked for last.
    assert_eq!(
        complete(&broker, &credentials).await,
        [text(&second["id"]).to_owned()]
    );
    let path = format!(
        "/deployments/{}/recipes",
        text(&credentials["deployment_id"])
    );
    let listed = answer(broker.compose(Method::GET, &credentials, &path)).await;
    let recipes = listed.body["_embedded"]["recipes"].as_array();
    let recipes = recipes.expect("recipes");
    let kinds = inside.operations("i").await;
    assert_eq!(recipes.len(), kinds.len(), "{listed:?}");
    for (recipe, operation) in recipes.iter().zip(kinds) {
        assert_eq!(recipe["id"], operation.id.to_string());
        assert!(
            text(&recipe["created_at"]) <= text(&recipe["updated_at"]),
            "{recipe}"
        );
    }
}
