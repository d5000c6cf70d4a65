//! The page of settings, in a real browser: another size, another name, protection, the end.

use compose_broker::model::schedule::minute_of_day;
use reqwest::{Method, StatusCode};
use serde_json::json;

use crate::{
    broker::{SERVICE, TestBroker, answer, eventually, instance_path, text},
    catalog::catalog_file,
    chromium::{CONTROL, ENTER, NARROW, SPACE},
    control,
    dashboard::Visit,
    database::Database,
    pages::{Visitor, between},
};

#[tokio::test(flavor = "multi_thread")]
async fn a_database_is_scaled_protected_and_what_was_restored_renamed_and_deleted() {
    let broker = TestBroker::start().await;
    broker.provision("db", json!({})).await;
    let credentials = broker.bind("db", "b").await;
    let backup = broker.back_up(&credentials).await;
    let visit = Visit::to(broker).await;
    let page = &visit.page;
    visit.sign_in(&credentials).await;
    page.click("link", "Settings").await;
    page.arrives_at("/instances/db/settings").await;
    page.says("#no-deletion", "A platform made this instance.")
        .await;
    page.says(
        "#fits",
        "The data fits into 1 unit. It can have 32 units at most.",
    )
    .await;
    page.look_over("settings").await;
    visit.check().await;

    // Told first, then done.
    let held = visit.broker.osb(Method::GET, &instance_path("db"));
    let before = answer(held).await.body["parameters"].clone();
    page.find("#units").await.fill("1").await;
    page.click("button", "Preview").await;
    page.says("#reason", "It has this size already.").await;
    page.look_over("settings-refused").await;
    page.find("#units").await.fill("2").await;
    page.click("button", "Preview").await;
    page.shows("Nothing is in the way.").await;
    page.says("#effect", "No data moves.").await;
    page.says("#size-now", "1 unit (256.0 MiB").await;
    page.look_over("settings-size").await;
    let held = visit.broker.osb(Method::GET, &instance_path("db"));
    assert_eq!(answer(held).await.body["parameters"], before);
    page.click("button", "Change the size").await;
    page.arrives_at("/instances/db").await;
    eventually("the change is done", || async {
        let tasks = page.text_of("#tasks li:first-child").await;
        (tasks.contains("Succeeded") && !tasks.contains("Backup")).then_some(())
    })
    .await;
    visit.open("db", "/settings").await;
    page.says("#size-now", "2 units (512.0 MiB").await;

    // Another schedule, kept within the plan's bounds.
    page.find("#hour").await.choose("3").await;
    page.find("#weekday").await.choose("Sunday").await;
    page.find("#days").await.fill("14").await;
    page.click("button", "Save the schedule").await;
    eventually("what was chosen", || async {
        let chosen = page
            .eval("[...document.querySelectorAll('#schedule [selected]')].map(o => o.value)")
            .await;
        (chosen == json!(["3", "sunday"])).then_some(())
    })
    .await;
    page.says("#message", "The schedule is saved.").await;
    let next = page.eval("document.querySelector('#next-backup time').dateTime");
    let next = text(&next.await).to_owned();
    // Where that hour is over today, today's backup still comes at the old one.
    let today = control::now().date_naive().to_string();
    assert!(next.contains("T03:") || next.starts_with(&today), "{next}");
    page.look_over("settings-schedule").await;
    page.click("link", "Backups").await;
    page.says("#retention", "for 14 days").await;
    page.click("link", "Schedule and retention").await;
    page.arrives_at("/settings#schedule").await;

    // Protected, and not any more, by keyboard alone.
    page.tab_to("button", "Protect against deletion").await;
    page.press([ENTER]).await;
    page.find("#protected").await;
    assert_eq!(
        visit.broker.delete_instance("db").await.status,
        StatusCode::UNPROCESSABLE_ENTITY
    );
    page.tab_to(
        "choice",
        "I know that a platform may be waiting to delete it: without protection this instance may be \
         gone at once, with its data.",
    )
    .await;
    page.press([SPACE]).await;
    page.tab_to("button", "Lift the protection").await;
    page.press([ENTER]).await;
    page.find("#unprotected").await;
    page.check(&visit.broker.url).await;

    // What was restored has nobody else who renames or deletes it.
    let path = format!(
        "/deployments/{}/backups/{}/restore",
        text(&credentials["deployment_id"]),
        text(&backup["id"])
    );
    let wanted = json!({ "deployment": { "name": "copy" } });
    let restore = visit.broker.compose(Method::POST, &credentials, &path);
    let restored = answer(restore.json(&wanted)).await;
    assert_eq!(restored.status, StatusCode::ACCEPTED, "{restored:?}");
    visit.open("db", "").await;
    page.click_in("#restored", "link", "copy").await;
    page.says("#state-text", "Ready").await;
    page.click("link", "Settings").await;
    page.find("#name").await.fill("other").await;
    page.click("button", "Rename").await;
    page.says("#delete", "Type the name, other, to confirm")
        .await;
    page.says("header", "other").await;
    // The schedule takes the first backup of what was restored at once.
    eventually("its first backup", || async {
        page.eval("location.reload()").await;
        let goes = page.text_of("#goes").await;
        goes.contains("1 backup, ").then_some(())
    })
    .await;
    page.says("#stays", "in the audit of who asked for it, for ever")
        .await;
    page.look_over("settings-restored").await;
    visit.check().await;

    // By keyboard alone, and not without the name.
    page.resize(NARROW).await;
    page.tab_to("field", "Type the name, other, to confirm")
        .await;
    page.type_text("othe").await;
    page.press([ENTER]).await;
    page.shows("Nothing was deleted").await;
    let _ = page.complaints().await;
    page.eval("history.back()").await;
    page.find("#delete").await;
    page.tab_to("field", "Type the name, other, to confirm")
        .await;
    page.press([CONTROL, 'a']).await;
    page.type_text("other").await;
    page.tab_to("button", "Delete").await;
    page.press([ENTER]).await;
    page.arrives_at("/instances/db").await;
    page.says("#restored", "Nothing yet.").await;
    page.check(&visit.broker.url).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn operators_delete_in_the_platform_s_place_and_nobody_deletes_what_is_protected() {
    let broker = TestBroker::in_memory().await;
    broker.provision("db", json!({})).await;
    let credentials = broker.bind("db", "b").await;
    broker.back_up(&credentials).await;
    let path = |below: &str| format!("/dashboard/instances/db/settings{below}");
    let user = Visitor::with_token(&broker, &credentials).await;
    let operator = Visitor::operator(&broker).await;
    let send = async |visitor: &Visitor<'_>, below: &str, field: (&str, &str)| {
        let csrf = visitor.csrf(&path("")).await;
        visitor.post(&path(below), &[("csrf", &csrf), field]).await
    };
    let sure = ("confirm", "db");
    let refused = send(&user, "/deletion", sure).await;
    assert_eq!(refused.status, StatusCode::FORBIDDEN, "{refused:?}");
    // No platform named it, so its users may.
    let wrong = send(&user, "/name", ("name", "-x")).await;
    assert_eq!(wrong.status, StatusCode::BAD_REQUEST, "{wrong:?}");
    assert!(wrong.body.contains("Not saved: "), "{wrong:?}");
    // The page itself says why, in the words of its form.
    let csrf = user.csrf(&path("")).await;
    let fields = [
        ("csrf", csrf.as_str()),
        ("hour", ""),
        ("weekday", ""),
        ("days", "99"),
        ("weeks", "1"),
        ("months", "1"),
    ];
    let refused = user.post(&path("/schedule"), &fields).await;
    assert_eq!(refused.status, StatusCode::BAD_REQUEST, "{refused:?}");
    for said in [
        "Not saved: Days for daily ones: 99 is more than 14.",
        "Save the schedule",
    ] {
        assert!(refused.body.contains(said), "{said}: {refused:?}");
    }
    let named = send(&user, "/name", ("name", "mine")).await;
    assert_eq!(named.status, StatusCode::SEE_OTHER, "{named:?}");
    let page = user.get(&path("")).await.body;
    assert!(page.contains("Settings of mine"), "{page}");
    // What a platform names, it renames.
    let update = json!({
        "service_id": SERVICE, "context": { "instance_name": "theirs" },
    });
    let update = broker
        .osb(Method::PATCH, &instance_path("db"))
        .json(&update);
    let update = answer(update).await;
    assert_eq!(update.status, StatusCode::OK, "{update:?}");
    let refused = send(&user, "/name", ("name", "mine")).await;
    assert_eq!(refused.status, StatusCode::FORBIDDEN, "{refused:?}");
    let page = user.get(&path("")).await.body;
    assert!(page.contains("The platform names it"), "{page}");

    let sure = ("confirm", "theirs");
    let protected = send(&user, "/protection", ("protect", "yes")).await;
    assert_eq!(protected.status, StatusCode::SEE_OTHER, "{protected:?}");
    let refused = send(&operator, "/deletion", sure).await;
    assert_eq!(refused.status, StatusCode::CONFLICT, "{refused:?}");
    let page = operator.get(&path("")).await.body;
    assert!(page.contains("Lift the protection first"), "{page}");
    let csrf = operator.csrf(&path("")).await;
    let fields = [("csrf", csrf.as_str()), ("protect", "no"), ("sure", "yes")];
    let lifted = operator.post(&path("/protection"), &fields).await;
    assert_eq!(lifted.status, StatusCode::SEE_OTHER, "{lifted:?}");
    let page = operator.get(&path("")).await.body;
    for told in [
        "<li>1 backup, ",
        "<li>Credentials: 1. ",
        "goes on listing it until it is deleted there too",
    ] {
        assert!(page.contains(told), "{told}: {page}");
    }
    let wrong = send(&operator, "/deletion", ("confirm", "bd")).await;
    assert_eq!(wrong.status, StatusCode::BAD_REQUEST, "{wrong:?}");
    let fetched = answer(broker.osb(Method::GET, &instance_path("db"))).await;
    assert_eq!(fetched.status, StatusCode::OK, "{fetched:?}");
    let deleted = send(&operator, "/deletion", sure).await;
    assert_eq!(deleted.status, StatusCode::SEE_OTHER, "{deleted:?}");
    let list = operator.get(deleted.header("location")).await.body;
    assert!(list.contains("theirs is being deleted."), "{list}");
    let again = broker.delete_instance("db").await;
    assert!(
        [StatusCode::ACCEPTED, StatusCode::GONE].contains(&again.status),
        "{again:?}"
    );
    let audit = answer(broker.osb(Method::GET, "/operator/audit?instance=db")).await;
    let entries = audit.body["entries"].as_array().expect("a list").clone();
    for (action, user) in [("deprovision", "operator"), ("name", "binding b")] {
        let entry = entries.iter().find(|e| e["action"] == action);
        let entry = entry.unwrap_or_else(|| panic!("{action}: {entries:?}"));
        assert_eq!(
            (&entry["origin"], &entry["user"]),
            (&json!("dashboard"), &json!(user))
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_schedule_that_the_plan_sets_is_told_in_full() {
    let mut catalog = catalog_file();
    let rules = catalog["services"][0]["plans"][0]["broker"].as_object_mut();
    rules.expect("rules").remove("backup_schedule");
    let database = Database::in_memory();
    let broker = database.broker_with(&catalog, &[], control::surroundings());
    let broker = broker.await;
    broker.provision("i", json!({})).await;
    let operator = Visitor::operator(&broker).await;
    let page = operator.get("/dashboard/instances/i/settings").await.body;
    let minute = minute_of_day(&"i".parse().expect("an id"));
    let schedule = between(
        &page,
        "<section class=\"card wide\" id=\"schedule\"",
        "</section>",
    );
    for told in [
        &format!(
            "<dt>Time of day</dt><dd>{:02}:{:02} UTC</dd>",
            minute / 60,
            minute % 60
        ),
        "<dt>Weekly backups</dt><dd>on the first free day</dd>",
        "<dt>Days for daily ones</dt><dd>7</dd>",
        "The plan sets this schedule",
    ] {
        assert!(schedule.contains(told), "{told}: {schedule}");
    }
    assert!(!schedule.contains("<form"), "{schedule}");
}
