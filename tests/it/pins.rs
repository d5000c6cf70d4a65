//! Notes beside backups, and backups that their users keep: by the API, and on the page.

use std::path::Path;

use reqwest::{Method, StatusCode};
use serde_json::{Value, json};

use crate::{
    broker::{Answer, TestBroker, answer, eventually, text},
    control::surroundings,
    dashboard::Visit,
};

fn path_of(credentials: &Value, below: &str) -> String {
    let deployment = text(&credentials["deployment_id"]);
    format!("/deployments/{deployment}/backups{below}")
}

async fn change(broker: &TestBroker, key: &Value, backup: &Value, wanted: Value) -> Answer {
    let path = path_of(key, &format!("/{}", text(&backup["id"])));
    let body = json!({ "backup": wanted });
    answer(broker.compose(Method::PATCH, key, &path).json(&body)).await
}

async fn list(broker: &TestBroker, key: &Value) -> Value {
    answer(broker.compose(Method::GET, key, &path_of(key, "")))
        .await
        .body
}

/// Waits until these backups are listed and no others, newest first.
async fn are_listed(broker: &TestBroker, key: &Value, backups: &[&Value]) {
    let wanted: Vec<&Value> = backups.iter().map(|backup| &backup["id"]).collect();
    eventually("the backups that are kept", || async {
        let list = list(broker, key).await;
        let listed = list["_embedded"]["backups"].as_array().expect("a list");
        let ids: Vec<&Value> = listed.iter().map(|backup| &backup["id"]).collect();
        (ids == wanted).then_some(())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_its_users_keep_gives_way_to_no_newer_one() {
    let broker = TestBroker::start().await;
    broker.provision("i", json!({})).await;
    let key = broker.bind("i", "b").await;
    let first = broker.back_up(&key).await;
    assert_eq!(
        (&first["note"], &first["pinned"]),
        (&json!(""), &json!(false))
    );
    let told = list(&broker, &key).await;
    assert_eq!(
        told["retention"],
        json!({
            "on_demand_kept": 1, "replaced_by_next": [first["id"]], "pinned": 0, "pinned_max": 3,
            "kept_after_delete_days": 0,
        })
    );
    let wanted = json!({ "note": "before the move", "pinned": true });
    let changed = change(&broker, &key, &first, wanted).await;
    assert_eq!(changed.status, StatusCode::OK, "{changed:?}");
    assert_eq!(changed.body["note"], "before the move");
    assert_eq!(changed.body["pinned"], true);
    let told = list(&broker, &key).await;
    assert_eq!(told["retention"]["replaced_by_next"], json!([]));
    assert_eq!(told["retention"]["pinned"], 1);

    // It takes no place of the others, and stays where those go.
    let second = broker.back_up(&key).await;
    let third = broker.back_up(&key).await;
    are_listed(&broker, &key, &[&third, &first]).await;
    // What is absent stays as it is.
    let noted = change(&broker, &key, &third, json!({ "note": "a second" })).await;
    assert_eq!(noted.body["pinned"], false, "{noted:?}");
    let gone = change(&broker, &key, &second, json!({ "pinned": true })).await;
    assert_eq!(gone.status, StatusCode::NOT_FOUND, "{gone:?}");

    // No more than the plan says.
    let pin = json!({ "pinned": true });
    let mut kept = vec![third];
    for _ in 0..2 {
        let last = &kept[kept.len() - 1];
        let done = change(&broker, &key, last, pin.clone()).await;
        assert_eq!(done.status, StatusCode::OK, "{done:?}");
        kept.push(broker.back_up(&key).await);
    }
    let refused = change(&broker, &key, &kept[2], pin).await;
    assert_eq!(
        refused.status,
        StatusCode::UNPROCESSABLE_ENTITY,
        "{refused:?}"
    );
    assert!(
        refused
            .body
            .to_string()
            .contains("its plan keeps 3 at most"),
        "{refused:?}"
    );
    for wrong in [
        json!({ "note": "x".repeat(256) }),
        json!({ "note": "two\nlines" }),
        json!({ "note": 1 }),
        json!({ "pinned": "yes" }),
    ] {
        let refused = change(&broker, &key, &first, wrong.clone()).await;
        assert_eq!(
            refused.status,
            StatusCode::BAD_REQUEST,
            "{wrong}: {refused:?}"
        );
    }

    // Let go of, it goes with the next one.
    let let_go = change(&broker, &key, &first, json!({ "pinned": false })).await;
    assert_eq!(let_go.body["note"], "before the move", "{let_go:?}");
    let last = broker.back_up(&key).await;
    are_listed(&broker, &key, &[&last, &kept[1], &kept[0]]).await;

    let audit = answer(broker.osb(Method::GET, "/operator/audit?instance=i")).await;
    let entries = audit.body["entries"].as_array().expect("entries").clone();
    let actions = ["pin", "unpin", "backup_note"].map(|action| {
        let of_first = |e: &&Value| e["action"] == action && e["backup_id"] == first["id"];
        entries.iter().filter(of_first).count()
    });
    assert_eq!(actions, [1, 1, 1], "{entries:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_page_says_what_is_replaced_and_keeps_what_it_is_told_to() {
    let catalog = Path::new(env!("CARGO_MANIFEST_DIR")).join("catalog.json");
    let flags = ["--catalog", catalog.to_str().expect("UTF-8")];
    let broker = TestBroker::start_with(&flags, surroundings()).await;
    broker.provision("db", json!({})).await;
    let key = broker.bind("db", "b").await;
    // The plan that is shipped keeps three.
    let first = broker.back_up(&key).await;
    broker.back_up(&key).await;
    let visit = Visit::to(broker).await;
    let page = &visit.page;
    visit.sign_in(&key).await;
    visit.open("db", "/backups").await;
    page.find("#back-up-button").await;
    assert!(page.all("#replaces").await.is_empty());
    visit.broker.back_up(&key).await;
    page.says("#replaces", "Replaces the on-demand backup of ")
        .await;
    let button = page.find("#back-up-button").await;
    let described = button.attribute("aria-describedby").await;
    assert_eq!(described.as_deref(), Some("replaces"));
    page.look_over("backups-replaces").await;

    // By keyboard alone: a note, and that it is kept.
    let id = text(&first["id"]);
    page.find(&format!("#summary-{id}")).await.click().await;
    page.tab_to("field", "What to remember about it").await;
    page.type_text("before the move").await;
    page.tab_to("choice", "Keep it: neither age nor newer backups remove it")
        .await;
    page.press([crate::chromium::SPACE]).await;
    page.tab_to("button", "Save").await;
    page.press([crate::chromium::ENTER]).await;
    page.says("#status", "Saved. The backup is kept").await;
    page.says(&format!("#kept-{id}"), "Kept").await;
    page.says(&format!("#note-of-{id}"), "before the move")
        .await;
    page.says("#retention", "1 of 3 at most").await;
    page.look_over("backups-kept").await;
    assert!(page.all("#replaces").await.is_empty());
    let told = list(&visit.broker, &key).await;
    let listed = told["_embedded"]["backups"]
        .as_array()
        .expect("a list")
        .clone();
    let kept = listed.iter().find(|backup| backup["id"] == first["id"]);
    assert_eq!(kept.expect("the backup")["note"], "before the move");
    visit.check().await;
}
