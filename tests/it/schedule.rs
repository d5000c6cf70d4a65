//! Backups that nobody asks for: days, weeks and months that pass.

use std::collections::HashSet;

use chrono::{DateTime, Days, Months, TimeDelta, Utc};
use compose_broker::{
    app::Surroundings,
    model::{
        ids::InstanceId,
        operation::{OperationKind, OperationState},
        schedule::{minute_of_day, slot_after},
    },
};
use reqwest::{Method, StatusCode};
use serde_json::{Value, json};

use crate::{
    broker::{SERVICE, TestBroker, answer, eventually, instance_path, text},
    control::{Script, TestClock},
    database::Database,
    inside::Inside,
    pages::Visitor,
};

/// A Tuesday. In the past, so that certificates made then are good on the real members' clocks.
const BEGIN: &str = "2025-06-10T00:00:00Z";

/// A broker with one instance, and the days in the test's hand.
struct Calendar {
    broker: TestBroker,
    clock: TestClock,
    script: Script,
    credentials: Value,
}

fn at(text: &str) -> DateTime<Utc> {
    text.parse().expect("a time")
}

/// The first slot of an instance after a moment.
fn slot_of(instance: &str, after: DateTime<Utc>) -> DateTime<Utc> {
    let id: InstanceId = instance.parse().expect("an id");
    slot_after(after, minute_of_day(&id))
}

impl Calendar {
    async fn begin() -> Self {
        Self::begin_with(&[]).await
    }

    async fn begin_with(flags: &[&str]) -> Self {
        Self::begin_on(Database::in_memory(), flags).await
    }

    async fn begin_on(database: Database, flags: &[&str]) -> Self {
        let (clock, script) = (TestClock::default(), Script::default());
        clock.set(at(BEGIN));
        let surroundings = script.surroundings_at(&clock);
        let broker = database.broker(flags, surroundings).await;
        broker.provision("i", json!({})).await;
        let credentials = broker.bind("i", "b").await;
        Self {
            broker,
            clock,
            script,
            credentials,
        }
    }

    /// Stops the broker, and starts it again at another time.
    async fn restart(&mut self, at: DateTime<Utc>) {
        // The old broker is left in its own time.
        self.clock = TestClock::default();
        self.clock.set(at);
        let surroundings = Surroundings {
            clock: self.clock.clock(),
            ..self.script.surroundings()
        };
        self.broker.restart_with(surroundings).await;
        // It listens elsewhere now, and new credentials tell where.
        self.broker.unbind("i", "b").await;
        self.credentials = self.broker.bind("i", "b").await;
    }

    fn now(&self) -> DateTime<Utc> {
        self.clock.now()
    }

    /// Lets time pass until a moment after the next slot; returns the slot.
    fn to_next_slot(&self) -> DateTime<Utc> {
        self.to_next_slot_after(TimeDelta::zero())
    }

    /// The same when so much time has passed besides, in one go: nobody sees the slots in between.
    fn to_next_slot_after(&self, time: TimeDelta) -> DateTime<Utc> {
        let slot = slot_of("i", self.now() + time);
        self.clock.set(slot + TimeDelta::seconds(1));
        slot
    }

    async fn listed(&self) -> Vec<Value> {
        let path = format!(
            "/deployments/{}/backups",
            text(&self.credentials["deployment_id"])
        );
        let listed = answer(self.broker.compose(Method::GET, &self.credentials, &path)).await;
        assert_eq!(listed.status, StatusCode::OK, "{listed:?}");
        let backups = listed.body["_embedded"]["backups"].as_array();
        backups.expect("backups").clone()
    }

    /// Kind, period and state of what is listed, newest first.
    async fn sight(&self) -> Vec<[String; 3]> {
        let listed = self.listed().await;
        let field = |backup: &Value, name: &str| backup[name].as_str().unwrap_or("-").to_owned();
        let fields = ["type", "period", "status"];
        listed
            .iter()
            .map(|backup| fields.map(|name| field(backup, name)))
            .collect()
    }

    /// Waits until exactly this is listed.
    async fn eventually(&self, expected: &[[&str; 3]]) {
        eventually(&format!("{expected:?}"), || async {
            (self.sight().await == expected).then_some(())
        })
        .await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn every_day_is_backed_up_as_what_it_counts_for() {
    let calendar = Calendar::begin_on(Database::Etcd, &[]).await;
    assert_eq!(calendar.listed().await, [] as [Value; 0]);
    let first = calendar.to_next_slot();
    let month = ["monthly", "2025-06", "complete"];
    calendar.eventually(&[month]).await;
    calendar.to_next_slot();
    let week = ["weekly", "2025-W24", "complete"];
    calendar.eventually(&[week, month]).await;
    calendar.to_next_slot();
    let day = ["daily", "2025-06-12", "complete"];
    calendar.eventually(&[day, week, month]).await;

    let listed = calendar.listed().await;
    let time = |backup: &Value, field: &str| at(text(&backup[field]));
    let kept = |backup: &Value| time(backup, "expires_at") - time(backup, "requested_at");
    assert_eq!(kept(&listed[0]), TimeDelta::days(7));
    assert_eq!(kept(&listed[1]), TimeDelta::days(28));
    let requested = time(&listed[2], "requested_at");
    assert_eq!(time(&listed[2], "expires_at"), requested + Months::new(3));
    assert!(requested >= first && requested < first + TimeDelta::minutes(1));
    for backup in &listed {
        assert_eq!(backup["is_restorable"], true, "{backup}");
        let path = format!("/recipes/{}", text(&backup["recipe_id"]));
        let recipe = calendar
            .broker
            .compose(Method::GET, &calendar.credentials, &path);
        assert_eq!(answer(recipe).await.body["source"], "schedule");
    }
    // What the schedule took can be restored like anything else.
    let parameters = json!({
        "source_service_instance_id": "i", "backup_id": listed[2]["id"],
    });
    calendar.broker.provision("copy", parameters).await;
    // Each instance has a schedule of its own, from its beginning to its end.
    let inside = Inside::of(&calendar.broker);
    // A restored one's begins with a backup at once.
    eventually("a slot of its own", || async {
        let next = inside.next_scheduled("copy").await.expect("a schedule");
        (next == slot_of("copy", next - TimeDelta::seconds(1))).then_some(())
    })
    .await;
    for id in ["copy", "i"] {
        let held = calendar.script.hold(OperationKind::Deprovision, "destroy");
        let deletion = calendar.broker.delete_instance(id).await;
        assert_eq!(deletion.status, StatusCode::ACCEPTED, "{deletion:?}");
        assert_eq!(inside.next_scheduled(id).await, None, "{id}");
        drop(held);
        calendar.broker.instance_end(id, &deletion.body).await;
    }
    calendar.broker.provision("i", json!({})).await;
    assert!(inside.next_scheduled("i").await.is_some());
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_old_enough_is_marked_and_goes_when_its_grace_is_over() {
    let calendar = Calendar::begin_with(&["--backup-grace-hours", "12"]).await;
    let inside = Inside::of(&calendar.broker);
    let [month, week, day, next] = [
        ["monthly", "2025-06", "complete"],
        ["weekly", "2025-W24", "complete"],
        ["daily", "2025-06-12", "complete"],
        ["weekly", "2025-W25", "complete"],
    ];
    calendar.to_next_slot();
    calendar.eventually(&[month]).await;
    calendar.to_next_slot();
    calendar.eventually(&[week, month]).await;
    calendar.to_next_slot();
    calendar.eventually(&[day, week, month]).await;
    calendar.to_next_slot_after(TimeDelta::days(7));
    calendar.eventually(&[next, day, week, month]).await;
    inside.idle("i").await;
    let listed = calendar.listed().await;
    let removal = &listed[1]["removal"];
    assert_eq!(removal["reason"], "old enough to go");
    let goes = at(text(&removal["at"]));
    assert!(goes > calendar.now() + TimeDelta::hours(11), "{removal}");
    assert!(goes <= calendar.now() + TimeDelta::hours(12), "{removal}");
    for kept in [0, 2, 3] {
        assert_eq!(listed[kept]["removal"], Value::Null, "{listed:?}");
    }
    let visitor = Visitor::with_token(&calendar.broker, &calendar.credentials).await;
    let page = visitor.get("/dashboard/instances/i/backups").await.body;
    assert_eq!(page.matches("old enough to go").count(), 1, "{page}");
    // Its calendar has the day on which that goes, and tells where one looks for daily ones in vain.
    let days = [
        goes.format("%Y-%m-%d"),
        "2025-06-12"
            .parse::<chrono::NaiveDate>()
            .expect("a day")
            .format("%Y-%m-%d"),
    ];
    for day in days {
        assert!(page.contains(&format!("id=\"day-{day}\"")), "{day}: {page}");
    }
    assert_eq!(
        page.matches("title=\"Removed: Daily of 12 Jun").count(),
        1,
        "{page}"
    );
    assert!(
        page.contains("Of those of the last 7 days, 1 counts as weekly."),
        "{page}"
    );
    // Until then it is as good as any.
    assert_eq!(listed[1]["is_restorable"], true);
    let parameters = json!({
        "source_service_instance_id": "i", "backup_id": listed[1]["id"],
    });
    calendar.broker.provision("copy", parameters).await;
    // Nothing else is due then that could take it along.
    calendar.clock.set(goes + TimeDelta::seconds(1));
    calendar.eventually(&[next, week, month]).await;
    inside.idle("i").await;
    let prunes = inside.operations("i").await;
    let prunes = prunes.iter().filter(|o| o.kind == OperationKind::Prune);
    assert_eq!(prunes.count(), 2, "one for the mark, and one for the end");
}

#[tokio::test(flavor = "multi_thread")]
async fn few_are_marked_at_a_time_and_a_mark_goes_with_its_reason() {
    let calendar = Calendar::begin_with(&["--backup-grace-hours", "12"]).await;
    // Ages are looked at only when a week has passed over a handful of days.
    let held = calendar.script.hold(OperationKind::Prune, "expire");
    for taken in 1..=6 {
        calendar.to_next_slot();
        eventually("a backup", || async {
            let sight = calendar.sight().await;
            (sight.len() == taken && sight[0][2] == "complete").then_some(())
        })
        .await;
    }
    calendar.to_next_slot_after(TimeDelta::days(9));
    let daily = |day| ["daily", day, "complete"];
    let days = ["2025-06-15", "2025-06-14", "2025-06-13", "2025-06-12"].map(daily);
    let [week, month] = [
        ["weekly", "2025-W24", "complete"],
        ["monthly", "2025-06", "complete"],
    ];
    let newest = ["weekly", "2025-W26", "complete"];
    let all = [&[newest][..], &days, &[week, month]].concat();
    calendar.eventually(&all).await;
    drop(held);
    let inside = Inside::of(&calendar.broker);
    inside.idle("i").await;
    let marked = |listed: &[Value]| -> Vec<String> {
        let marked = listed.iter().filter(|b| !b["removal"].is_null());
        marked.map(|b| text(&b["period"]).to_owned()).collect()
    };
    let listed = calendar.listed().await;
    let oldest = ["2025-06-14", "2025-06-13", "2025-06-12"];
    assert_eq!(marked(&listed), oldest);

    // The newest two are lost, so that one of the marked is the newest good one that there is.
    for lost in &listed[..2] {
        let (deployment, id) = (text(&lost["deployment_id"]), text(&lost["id"]));
        let folder = calendar.broker.data_dir().join("backups").join(deployment);
        std::fs::remove_dir_all(folder.join(id)).expect("removed");
    }
    let repaired = calendar
        .broker
        .osb(Method::POST, "/operator/reconciliation");
    let repaired = answer(repaired).await;
    assert_eq!(repaired.status, StatusCode::OK, "{repaired:?}");
    let failing = calendar.script.fail(OperationKind::Backup, "snapshot");
    calendar.to_next_slot();
    eventually("the end of those that stay marked", || async {
        let complete = calendar.sight().await;
        let complete = complete.iter().filter(|b| b[2] == "complete");
        let periods: Vec<&str> = complete.map(|b| b[1].as_str()).collect();
        (periods == ["2025-06-14", "2025-W24", "2025-06"]).then_some(())
    })
    .await;
    drop(failing);
    inside.idle("i").await;
    assert_eq!(marked(&calendar.listed().await), [""; 0]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_failed_backup_is_shown_and_tried_again() {
    let calendar = Calendar::begin().await;
    for _ in 0..3 {
        let before = calendar.listed().await.len();
        calendar.to_next_slot();
        eventually("a backup", || async {
            let sight = calendar.sight().await;
            (sight.len() > before && sight[0][2] == "complete").then_some(())
        })
        .await;
    }
    calendar.broker.back_up(&calendar.credentials).await;
    let good = [
        ["on_demand", "-", "complete"],
        ["daily", "2025-06-12", "complete"],
        ["weekly", "2025-W24", "complete"],
        ["monthly", "2025-06", "complete"],
    ];
    calendar.eventually(&good).await;

    // A week later nothing works any more. Ages are honoured nevertheless.
    let failing = calendar.script.fail(OperationKind::Backup, "snapshot");
    let slot = calendar.to_next_slot_after(TimeDelta::days(7));
    let (on_demand, week, month) = (good[0], good[2], good[3]);
    let failed = ["weekly", "2025-W25", "failed"];
    calendar.eventually(&[failed, on_demand, week, month]).await;
    let why = calendar.listed().await[0]["status_detail"].clone();
    assert!(text(&why).contains("a deliberate fault"), "{why}");
    let inside = Inside::of(&calendar.broker);
    let mut next = inside.next_scheduled("i").await.expect("a schedule");
    assert!(next <= calendar.now() + TimeDelta::minutes(1));
    calendar.clock.set(next + TimeDelta::seconds(1));
    calendar
        .eventually(&[failed, failed, on_demand, week, month])
        .await;
    eventually("a longer pause", || async {
        let then = inside.next_scheduled("i").await.expect("a schedule");
        let pause = then - inside.newest("i", OperationKind::Backup).await.updated_at;
        (pause > TimeDelta::minutes(1) && pause <= TimeDelta::minutes(2)).then_some(())
    })
    .await;
    drop(failing);
    next = inside.next_scheduled("i").await.expect("a schedule");
    calendar.clock.set(next + TimeDelta::seconds(1));
    let good = ["weekly", "2025-W25", "complete"];
    calendar
        .eventually(&[good, failed, failed, on_demand, week, month])
        .await;
    let next = inside.next_scheduled("i").await;
    assert_eq!(next, Some(slot + Days::new(1)));

    // In time nobody wants to know of them any more.
    inside.idle("i").await;
    calendar.to_next_slot_after(TimeDelta::days(40));
    calendar
        .eventually(&[["monthly", "2025-07", "complete"], on_demand, month])
        .await;
    inside.idle("i").await;
    let remembered = inside.operations("i").await;
    let is_of_schedule = |kind| matches!(kind, OperationKind::Backup | OperationKind::Prune);
    let left = remembered.iter().filter(|o| is_of_schedule(o.kind)).count();
    // Those of what is listed, of the two weeks that are gone since a moment ago, and one prune.
    assert_eq!(left, 3 + 2 + 1, "{remembered:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_restart_takes_nothing_twice_and_four_months_of_silence_are_made_up_for_once() {
    let mut calendar = Calendar::begin().await;
    calendar.to_next_slot();
    let june = ["monthly", "2025-06", "complete"];
    calendar.eventually(&[june]).await;
    calendar.restart(calendar.now()).await;
    calendar.to_next_slot();
    let week = ["weekly", "2025-W24", "complete"];
    calendar.eventually(&[week, june]).await;

    calendar.restart(calendar.now() + Months::new(4)).await;
    let october = ["monthly", "2025-10", "complete"];
    calendar.eventually(&[october]).await;
    calendar.to_next_slot();
    let week = ["weekly", "2025-W41", "complete"];
    calendar.eventually(&[week, october]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_clock_that_jumps_misses_nothing_for_long_and_doubles_nothing() {
    let calendar = Calendar::begin().await;
    calendar.to_next_slot();
    let june = ["monthly", "2025-06", "complete"];
    calendar.eventually(&[june]).await;
    let right = calendar.now();
    calendar.clock.shift(TimeDelta::days(40));
    let july = ["monthly", "2025-07", "complete"];
    calendar.eventually(&[july, june]).await;
    calendar.clock.set(right);
    // That day's slot is over, and its backup counts for the month.
    let week = ["weekly", "2025-W24", "complete"];
    calendar.eventually(&[week, july, june]).await;
    for day in ["2025-06-11", "2025-06-12"] {
        calendar.to_next_slot();
        let newest = ["daily", day, "complete"];
        eventually(day, || async {
            (calendar.sight().await[0] == newest).then_some(())
        })
        .await;
    }
    let sight = calendar.sight().await;
    let periods: HashSet<_> = sight.iter().map(|[_, period, _]| period).collect();
    assert_eq!((periods.len(), sight.len()), (5, 5), "{sight:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn users_and_the_schedule_keep_out_of_each_others_way() {
    let calendar = Calendar::begin().await;
    let held = calendar.script.hold(OperationKind::Backup, "snapshot");
    let path = format!(
        "/deployments/{}/backups",
        text(&calendar.credentials["deployment_id"])
    );
    let post = || {
        calendar
            .broker
            .compose(Method::POST, &calendar.credentials, &path)
    };
    let asked = answer(post()).await.body;
    // The schedule's minute does not pass before the test says so.
    calendar.clock.stop();
    calendar.to_next_slot();
    let inside = Inside::of(&calendar.broker);
    eventually("a schedule that waits", || async {
        let next = inside.next_scheduled("i").await.expect("a schedule");
        (next > calendar.now() && next <= calendar.now() + TimeDelta::minutes(1)).then_some(())
    })
    .await;
    drop(held);
    calendar
        .broker
        .recipe_end(&calendar.credentials, &asked)
        .await;
    let on_demand = ["on_demand", "-", "complete"];
    calendar.eventually(&[on_demand]).await;

    // The other way round: who asks while the schedule is at it hears of that one.
    let held = calendar.script.hold(OperationKind::Backup, "snapshot");
    calendar.clock.shift(TimeDelta::minutes(1));
    calendar
        .eventually(&[["monthly", "2025-06", "running"], on_demand])
        .await;
    let told = answer(post()).await.body;
    assert_eq!(told["backup_id"], calendar.listed().await[0]["id"]);
    assert_eq!(told["source"], "schedule");
    calendar.clock.go_on();
    drop(held);
    let month = ["monthly", "2025-06", "complete"];
    calendar.eventually(&[month, on_demand]).await;
    // A newer one that a user asks for displaces his older one only.
    calendar.broker.back_up(&calendar.credentials).await;
    calendar.eventually(&[on_demand, month]).await;
    // One that is under way goes with its instance.
    let held = calendar.script.hold(OperationKind::Backup, "snapshot");
    calendar.to_next_slot();
    calendar
        .eventually(&[["weekly", "2025-W24", "running"], on_demand, month])
        .await;
    let deletion = calendar.broker.delete_instance("i").await;
    drop(held);
    let end = calendar.broker.instance_end("i", &deletion.body).await;
    assert_eq!(end["state"], "succeeded", "{end}");
    assert_eq!(inside.next_scheduled("i").await, None);
}

#[tokio::test(flavor = "multi_thread")]
async fn only_so_many_are_taken_at_once() {
    let calendar = Calendar::begin().await;
    for id in ["j", "k"] {
        calendar.broker.provision(id, json!({})).await;
    }
    let inside = Inside::of(&calendar.broker);
    let count = |state: fn(OperationState) -> bool| {
        let inside = &inside;
        async move {
            let mut count = 0;
            for id in ["i", "j", "k"] {
                let operations = inside.operations(id).await;
                let backups = operations
                    .iter()
                    .filter(|o| o.kind == OperationKind::Backup);
                count += backups.filter(|o| state(o.state)).count();
            }
            count
        }
    };
    let held = calendar.script.hold(OperationKind::Backup, "snapshot");
    calendar.clock.shift(TimeDelta::days(2));
    eventually("two backups", || async {
        (count(OperationState::is_active).await == 2).then_some(())
    })
    .await;
    // Whatever else happens, the scheduler looks again.
    for i in 0..3 {
        calendar.broker.bind("i", &format!("b-{i}")).await;
        assert_eq!(count(OperationState::is_active).await, 2);
    }
    drop(held);
    eventually("three good ones", || async {
        assert!(count(OperationState::is_active).await <= 2);
        let good = count(|state| state == OperationState::Succeeded).await;
        (good == 3).then_some(())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn users_choose_hour_day_and_time_within_the_bounds_of_their_plan() {
    let calendar = Calendar::begin_with(&["--backup-grace-hours", "0"]).await;
    let broker = &calendar.broker;
    let path = format!(
        "/deployments/{}/backup_schedule",
        text(&calendar.credentials["deployment_id"])
    );
    let schedule = async || {
        let read = broker.compose(Method::GET, &calendar.credentials, &path);
        answer(read).await.body
    };
    let change = async |wanted: Value| {
        let change = broker.compose(Method::PATCH, &calendar.credentials, &path);
        answer(change.json(&json!({ "backup_schedule": wanted }))).await
    };
    let usual = schedule().await;
    let next = slot_of("i", calendar.now() + TimeDelta::hours(1));
    assert_eq!(at(text(&usual["next_at"])), next);
    let bounds = json!({ "daily_kept_max": 14, "weekly_kept_max": 8, "monthly_kept_max": 12 });
    assert_eq!(
        usual,
        json!({
            "next_at": usual["next_at"], "hour": null, "weekday": null, "daily_kept": 7,
            "weekly_kept": 4, "monthly_kept": 3, "bounds": bounds,
        })
    );

    // By the API, and in bounds alone.
    for (wanted, reason) in [
        (json!({ "hour": 24 }), "backup_hour"),
        (json!({ "weekday": "someday" }), "backup_weekday"),
        (json!({ "daily_kept": 15 }), "daily_backups_kept"),
        (json!({ "monthly_kept": 0 }), "monthly_backups_kept"),
        (json!({ "days": 3 }), "nothing to change"),
    ] {
        let refused = change(wanted).await;
        assert_eq!(refused.status, StatusCode::BAD_REQUEST, "{refused:?}");
        assert!(refused.body.to_string().contains(reason), "{refused:?}");
    }
    assert_eq!(schedule().await, usual);
    let wanted = json!({ "hour": 21, "weekday": "thursday", "daily_kept": 1 });
    let changed = change(wanted.clone()).await;
    assert_eq!(changed.status, StatusCode::OK, "{changed:?}");
    assert_eq!(
        change(wanted).await.body,
        changed.body,
        "once more is the same"
    );
    let minute = next.format("%M");
    let own = format!("2025-06-10T21:{minute}:00Z");
    assert_eq!(at(text(&changed.body["next_at"])), at(&own));

    // A Tuesday, a Wednesday, and the Thursday that was chosen.
    let inside = Inside::of(broker);
    for expected in [
        ["monthly", "2025-06", "complete"],
        ["daily", "2025-06-11", "complete"],
        ["weekly", "2025-W24", "complete"],
        ["daily", "2025-06-13", "complete"],
    ] {
        let due = inside.next_scheduled("i").await.expect("a schedule");
        calendar.clock.set(due + TimeDelta::seconds(1));
        eventually(&format!("{expected:?}"), || async {
            let sight = calendar.sight().await;
            sight
                .first()
                .is_some_and(|newest| newest == &expected)
                .then_some(())
        })
        .await;
        let listed = calendar.listed().await;
        assert!(
            text(&listed[0]["requested_at"]).contains("T21:"),
            "{listed:?}"
        );
    }
    let days = |of: &Value| at(text(&of["expires_at"])) - at(text(&of["requested_at"]));
    let listed = calendar.listed().await;
    assert_eq!(days(&listed[0]), TimeDelta::days(1));
    // The first daily one was over by the last one.
    inside.idle("i").await;
    assert_eq!(calendar.listed().await[2]["period"], "2025-06");

    // By the platform; a choice that is taken back is the usual.
    let update = async |parameters: Value| {
        let body = json!({ "service_id": SERVICE, "parameters": parameters });
        answer(broker.osb(Method::PATCH, &instance_path("i")).json(&body)).await
    };
    let refused = update(json!({ "backup_hour": 24 })).await;
    assert_eq!(refused.status, StatusCode::BAD_REQUEST, "{refused:?}");
    let back = json!({ "backup_hour": null, "backup_weekday": null, "daily_backups_kept": null });
    let back = update(back).await;
    assert_eq!(back.status, StatusCode::OK, "{back:?}");
    let now = schedule().await;
    assert_eq!(
        (&now["hour"], &now["daily_kept"]),
        (&Value::Null, &json!(7))
    );
    let next = at(text(&now["next_at"]));
    assert_eq!(next, slot_of("i", next - TimeDelta::seconds(1)));
    let audit = answer(broker.osb(Method::GET, "/operator/audit?instance=i")).await;
    let entries = audit.body["entries"].as_array().expect("entries");
    let changes = entries.iter().filter(|of| of["action"] == "schedule");
    let by: Vec<(&Value, &Value)> = changes.map(|of| (&of["origin"], &of["user"])).collect();
    assert_eq!(
        by,
        [
            (&json!("osb"), &Value::Null),
            (&json!("compose"), &json!("binding b"))
        ]
    );
}
