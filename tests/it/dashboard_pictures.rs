//! The pictures in docs/images: `make pictures` takes them anew, of a database that is some weeks
//! old.

use std::{fs, path::Path};

use chrono::{DateTime, Days, NaiveTime, TimeDelta, Utc};
use compose_broker::model::{
    ids::InstanceId,
    operation::OperationKind,
    schedule::{minute_of_day, slot_after},
};
use reqwest::{Method, StatusCode};
use serde_json::json;

use crate::{
    broker::{SERVICE, STANDARD, TestBroker, answer, eventually, instance_path, text},
    chromium::{Chromium, Scheme},
    control::{Script, TestClock},
    dashboard::Visit,
    etcd,
};

const INSTANCE: &str = "0269e284-dcac-4618-89a7-f79e3f1cea6a";
/// How old the database is.
const DAYS: u64 = 36;
/// The largest picture, in bytes: each stays in the history for ever.
const PICTURE_MAX: usize = 150_000;

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
    let body = json!({
        "service_id": SERVICE, "plan_id": STANDARD,
        "organization_guid": "c1a9d7a4-1d5f-4c08-9b57-3d2f60c9f1ab",
        "space_guid": "7be5a2f0-88d3-4a5e-a0b6-52c7e4a1d903",
        "context": { "platform": "cloudfoundry", "instance_name": "orders" },
        "parameters": { "db_version": "3.6.16" },
    });
    let path = format!("{}?accepts_incomplete=true", instance_path(INSTANCE));
    let accepted = answer(broker.osb(Method::PUT, &path).json(&body)).await;
    assert_eq!(accepted.status, StatusCode::ACCEPTED, "{accepted:?}");
    broker.instance_end(INSTANCE, &accepted.body).await;
    let credentials = broker.bind(INSTANCE, "shop").await;
    let visit = Visit::to(broker).await;
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
    clock.set(today);

    let page = &visit.page;
    visit.sign_in(&credentials).await;
    page.hide_scrollbars().await;
    visit.open(INSTANCE, "/backups").await;
    let held = script.hold(OperationKind::Backup, "read_back");
    page.click("button", "Back up now").await;
    page.says("#backup-progress", "step 2 of").await;
    let (narrow, wide) = ((360, 780), (1000, 780));
    take(page, "backup-in-progress", "body", narrow, Scheme::Dark).await;
    drop(held);
    page.says("#status", "The backup is complete.").await;
    take(page, "backups", "body", wide, Scheme::Light).await;
    page.find("#on_demand summary").await.click().await;
    take(page, "backup", "#on_demand", wide, Scheme::Light).await;
    page.click_in("#on_demand", "button", "Restore").await;
    page.says("#status", "The restore is complete").await;
    visit.open(INSTANCE, "").await;
    page.find("#members").await;
    page.find("#usage").await;
    take(page, "overview", "body", wide, Scheme::Light).await;
    take(page, "overview-narrow", "body", narrow, Scheme::Dark).await;
    page.check(&visit.broker.url).await;
}

/// Takes a picture of the page from `top` on, which is a selector.
async fn take(page: &Chromium, name: &str, top: &str, size: (u32, u32), scheme: Scheme) {
    page.resize(size).await;
    page.prefer(scheme).await;
    let look =
        format!("document.activeElement.blur(); document.querySelector('{top}').scrollIntoView()");
    page.eval(&look).await;
    let picture = page.picture().await;
    assert!(
        picture.len() <= PICTURE_MAX,
        "{name}: {} bytes",
        picture.len()
    );
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/images");
    fs::create_dir_all(&folder).expect("a folder");
    fs::write(folder.join(format!("{name}.png")), picture).expect("a file");
    println!("docs/images/{name}.png");
}
