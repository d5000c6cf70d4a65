//! The pictures in docs/images: `make pictures` takes them anew, of a database that is some weeks
//! old, in the states that somebody may meet it in.

use std::{fs, path::Path, time::Duration};

use chrono::{DateTime, Days, NaiveTime, TimeDelta, Utc};
use compose_broker::{
    app::Surroundings,
    model::{
        ids::InstanceId,
        limits::READING_STRETCH,
        operation::OperationKind,
        schedule::{minute_of_day, slot_after},
    },
};
use etcd_client::Client;
use reqwest::{Method, StatusCode};
use rustix::process::Signal;
use serde_json::{Value, json};

use crate::{
    broker::{SERVICE, STANDARD, TestBroker, answer, eventually, instance_path, text},
    catalog::catalog_file,
    chromium::{Chromium, Scheme},
    control::{self, Script, TestClock, surroundings},
    dashboard::Visit,
    database::Database,
    etcd,
    health::signal,
};

const INSTANCE: &str = "0269e284-dcac-4618-89a7-f79e3f1cea6a";
/// Others, for the operator's lists; the last one cannot be made.
const PAYMENTS: &str = "5b0a7a0e-6f51-4a0c-9d37-0f1d8c2b7e46";
const SESSIONS: &str = "c35f1f52-2d0a-4f0d-8b0f-7a1d6c9e2b10";
const WRECK: &str = "e81c6d3a-90b7-4b83-a6e5-1c4f7d2a9b58";
/// How old the database is.
const DAYS: u64 = 36;
/// The largest picture, in bytes: each stays in the history for ever.
const PICTURE_MAX: usize = 80_000;
const NARROW: (u32, u32) = (360, 780);
const WIDE: (u32, u32) = (1000, 780);
/// What fills a database, at each put, in bytes: etcd takes requests up to 1.5 MiB.
const FILL_BYTES: usize = 1 << 20;
/// More than a database takes.
const FILLS_MAX: usize = 300;

#[tokio::test(flavor = "multi_thread")]
#[ignore = "make pictures takes them"]
async fn pictures_for_the_docs() {
    let (clock, script) = (TestClock::default(), Script::default());
    let today = clock.now();
    // At midnight: an instance that is younger than an hour waits for its second slot.
    let midnight = NaiveTime::MIN;
    clock.set(
        (today - Days::new(DAYS))
            .date_naive()
            .and_time(midnight)
            .and_utc(),
    );
    let broker = TestBroker::start_with(&[], script.surroundings_at(&clock)).await;
    provision(&broker, INSTANCE, "orders", "3.6.16").await;
    let members = broker.members();
    let credentials = broker.bind(INSTANCE, "shop").await;
    let mut visit = Visit::to(broker).await;
    let mut database = etcd::connect(&credentials).await;

    // Days pass.
    let minute = minute_of_day(&INSTANCE.parse::<InstanceId>().expect("an id"));
    loop {
        let slot = slot_after(clock.now(), minute);
        if slot > today {
            break;
        }
        etcd::fill(&mut database, 40, &slot.timestamp().to_string()).await;
        clock.set(slot + TimeDelta::seconds(1));
        eventually("the day's backup", || async {
            let newest = visit.backups(&credentials).await.into_iter().next()?;
            let requested: DateTime<Utc> = text(&newest["requested_at"]).parse().ok()?;
            (requested >= slot && newest["status"] == "complete").then_some(())
        })
        .await;
    }
    clock.set(control::now());

    let page = &visit.page;
    visit.sign_in(&credentials).await;
    page.hide_scrollbars().await;
    visit.open(INSTANCE, "/backups").await;
    let held = script.hold(OperationKind::Backup, "read_back");
    page.click("button", "Back up now").await;
    page.says("#backup-progress", "step 2 of").await;
    take(page, "backup-in-progress", "body", NARROW, Scheme::Dark).await;
    drop(held);
    page.says("#status", "The backup is complete.").await;
    take(page, "backups", "body", WIDE, Scheme::Light).await;
    page.find("#on_demand summary").await.click().await;
    take(page, "backup", "#on_demand", WIDE, Scheme::Light).await;
    page.click_in("#on_demand", "button", "Preview").await;
    page.says("#possible", "Nothing is in the way.").await;
    take(page, "restore", "body", WIDE, Scheme::Light).await;
    page.click_in("#restore", "button", "Restore").await;
    page.says("#status", "The restore succeeded").await;
    visit.open(INSTANCE, "").await;
    page.find("#members").await;
    page.find("#usage").await;
    take(page, "overview", "body", WIDE, Scheme::Light).await;
    take(page, "overview-narrow", "body", NARROW, Scheme::Dark).await;
    visit.open(INSTANCE, "/backups").await;
    take(page, "calendar", "#calendar", WIDE, Scheme::Light).await;
    visit.open(INSTANCE, "/settings").await;
    take(page, "settings", "body", WIDE, Scheme::Light).await;
    page.check(&visit.broker.url).await;
    pictures_of_credentials_and_versions(&visit).await;

    pictures_of_trouble(&visit, &members).await;
    picture_of_history(&visit, &clock, &credentials, members[2]).await;
    pictures_for_operators(&visit, &script).await;

    // The end of the database, and then that of the broker.
    visit.open(INSTANCE, "").await;
    page.says("#state-text", "Ready").await;
    fill_up(&mut database).await;
    page.says("#state-text", "Read-only").await;
    page.says("#members", "serves, but").await;
    take(page, "full", "body", WIDE, Scheme::Light).await;
    let held = script.hold(OperationKind::Deprovision, "destroy");
    visit.broker.delete_instance(INSTANCE).await;
    page.says("#state-text", "Deleting").await;
    take(page, "deleting", "body", WIDE, Scheme::Light).await;
    drop(held);
    page.says("h1", "orders was deleted").await;
    visit.open(PAYMENTS, "").await;
    page.says("#members", "leader").await;
    visit.broker.stop().await;
    visit.page.says("#contact", "No contact").await;
    take(&visit.page, "no-contact", "body", WIDE, Scheme::Light).await;
}

/// Credentials that a platform and a visitor asked for, and what an upgrade would do.
async fn pictures_of_credentials_and_versions(visit: &Visit) {
    let page = &visit.page;
    visit.open(INSTANCE, "/credentials").await;
    page.find("#name").await.fill("reports").await;
    page.find("#role").await.choose("Read only").await;
    page.click("button", "Make credentials").await;
    page.says("#message", "reports is ready.").await;
    take(page, "credentials", "body", WIDE, Scheme::Light).await;
    visit.open(INSTANCE, "/versions").await;
    page.click("link", "What an upgrade to 3.7.3 does").await;
    page.shows("Nothing is in the way.").await;
    take(page, "versions", "body", WIDE, Scheme::Light).await;
}

/// Some quarters of an hour go by, and a member stands still in one of them.
async fn picture_of_history(visit: &Visit, clock: &TestClock, credentials: &Value, member: i32) {
    let path = format!(
        "/deployments/{}/history",
        text(&credentials["deployment_id"])
    );
    let newest = async || {
        let told = answer(visit.broker.compose(Method::GET, credentials, &path)).await;
        told.body["_embedded"]["readings"][0].clone()
    };
    let stretch = READING_STRETCH.to_std().expect("a time");
    for quarter in 0..7 {
        let before = newest().await["at"].clone();
        clock.forward(stretch);
        let serving = if quarter == 4 { 2 } else { 3 };
        if quarter == 4 {
            signal(&[member], Signal::STOP);
        }
        eventually("a reading", || async {
            let reading = newest().await;
            (reading["at"] != before && reading["members_serving"] == serving).then_some(())
        })
        .await;
        if quarter == 4 {
            signal(&[member], Signal::CONT);
        }
    }
    let page = &visit.page;
    visit.open(INSTANCE, "").await;
    page.says("#state-text", "Ready").await;
    take(page, "history", "#history", WIDE, Scheme::Light).await;
}

/// Days go by in which no backup is taken.
#[tokio::test(flavor = "multi_thread")]
#[ignore = "make pictures takes it"]
async fn picture_of_late_backups() {
    let clock = TestClock::default();
    let surroundings = Surroundings {
        scheduled: false,
        ..clock.surroundings()
    };
    let broker = TestBroker::in_memory_with(&[], surroundings).await;
    for (id, name) in [
        (INSTANCE, "orders"),
        (PAYMENTS, "payments"),
        (SESSIONS, "sessions"),
    ] {
        ask_for(&broker, id, name, &json!({})).await;
    }
    clock.forward(Duration::from_secs(3 * 24 * 60 * 60));
    let visit = Visit::to(broker).await;
    visit.sign_in_as_operator().await;
    visit.page.hide_scrollbars().await;
    visit.page.open(&visit.url("/late-backups")).await;
    visit.page.says("#how-many", "3 instances").await;
    take(
        &visit.page,
        "operator-late-backups",
        "body",
        WIDE,
        Scheme::Light,
    )
    .await;
}

/// Two databases were deleted, and their backups are kept.
#[tokio::test(flavor = "multi_thread")]
#[ignore = "make pictures takes it"]
async fn picture_of_deleted_instances() {
    let broker = Database::Etcd
        .broker_with(&catalog_file(), &[], surroundings())
        .await;
    for (id, name) in [(INSTANCE, "orders"), (PAYMENTS, "payments")] {
        ask_for(&broker, id, name, &json!({})).await;
        let credentials = broker.bind(id, "shop").await;
        broker.back_up(&credentials).await;
        broker.deprovision(id).await;
    }
    let visit = Visit::to(broker).await;
    visit.sign_in_as_operator().await;
    visit.page.hide_scrollbars().await;
    visit.page.open(&visit.url("/deleted")).await;
    visit.page.says("#deleted", "2 backups").await;
    take(&visit.page, "operator-deleted", "body", WIDE, Scheme::Light).await;
}

/// Two of three members stand still, then all.
async fn pictures_of_trouble(visit: &Visit, members: &[i32]) {
    let page = &visit.page;
    visit.open(INSTANCE, "").await;
    page.says("#members", "leader").await;
    signal(&members[1..], Signal::STOP);
    page.says("#state-text", "Down").await;
    page.says("#members", "answers, but has no majority behind it")
        .await;
    take(page, "two-members-stopped", "body", WIDE, Scheme::Light).await;
    visit.open(INSTANCE, "/activity").await;
    page.says("#alerts", "does not answer").await;
    take(page, "activity", "body", WIDE, Scheme::Light).await;
    visit.open(INSTANCE, "").await;
    signal(&members[..1], Signal::STOP);
    eventually("three silent members", || async {
        let told = page.text_of("#members").await;
        (told.matches("does not answer").count() == 3).then_some(())
    })
    .await;
    take(page, "all-members-stopped", "body", NARROW, Scheme::Dark).await;
    signal(members, Signal::CONT);
    page.says("#state-text", "Ready").await;
}

/// The pages of who runs the broker, with more than one database.
async fn pictures_for_operators(visit: &Visit, script: &Script) {
    let page = &visit.page;
    provision(&visit.broker, PAYMENTS, "payments", "3.5.35").await;
    provision(&visit.broker, SESSIONS, "sessions", "3.7.3").await;
    let fails = script.fail(OperationKind::Provision, "allocate");
    provision(&visit.broker, WRECK, "invoices", "3.6.16").await;
    drop(fails);
    page.forget_cookies().await;
    visit.sign_in_as_operator().await;
    for (name, path) in [
        ("operator-instances", "/instances"),
        ("operator-operations", "/operations"),
        ("operator-clusters", "/clusters"),
        ("operator-audit", "/audit"),
    ] {
        page.open(&visit.url(path)).await;
        page.says("#counts", "0 unknown").await;
        take(page, name, "body", WIDE, Scheme::Light).await;
    }
}

async fn provision(broker: &TestBroker, id: &str, name: &str, version: &str) {
    ask_for(broker, id, name, &json!({ "db_version": version })).await;
}

async fn ask_for(broker: &TestBroker, id: &str, name: &str, parameters: &Value) {
    let body = json!({
        "service_id": SERVICE, "plan_id": STANDARD,
        "organization_guid": "c1a9d7a4-1d5f-4c08-9b57-3d2f60c9f1ab",
        "space_guid": "7be5a2f0-88d3-4a5e-a0b6-52c7e4a1d903",
        "context": { "platform": "cloudfoundry", "instance_name": name },
        "parameters": parameters,
    });
    let path = format!("{}?accepts_incomplete=true", instance_path(id));
    let accepted = answer(broker.osb(Method::PUT, &path).json(&body)).await;
    assert_eq!(accepted.status, StatusCode::ACCEPTED, "{accepted:?}");
    broker.instance_end(id, &accepted.body).await;
}

/// Puts until the database takes no more.
async fn fill_up(database: &mut Client) {
    for number in 0..FILLS_MAX {
        let value = vec![u8::try_from(number % 256).expect("a byte"); FILL_BYTES];
        if database
            .put(format!("fill-{number}"), value, None)
            .await
            .is_err()
        {
            return;
        }
    }
    panic!("{FILLS_MAX} puts, and it is not full");
}

/// Takes a picture of the page from `top` on, which is a selector.
async fn take(page: &Chromium, name: &str, top: &str, size: (u32, u32), scheme: Scheme) {
    page.resize(size).await;
    page.prefer(scheme).await;
    let look =
        format!("document.activeElement.blur(); document.querySelector('{top}').scrollIntoView()");
    page.eval(&look).await;
    let picture = page.small_picture().await;
    assert!(
        picture.len() <= PICTURE_MAX,
        "{name}: {} bytes",
        picture.len()
    );
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/images");
    fs::create_dir_all(&folder).expect("a folder");
    fs::write(folder.join(format!("{name}.webp")), picture).expect("a file");
    println!("docs/images/{name}.webp");
}
