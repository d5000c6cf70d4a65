//! What each kind of visitor may do on the pages, without a browser: with a token, with the operator's
//! credentials, and with neither.

use reqwest::{Method, StatusCode};
use serde_json::{Value, json};

use crate::{
    broker::{TestBroker, answer, binding_path, encoded, eventually, text},
    pages::{Page, Visitor},
};

fn path(instance: &str, below: &str) -> String {
    format!("/dashboard/instances/{}{below}", encoded(instance))
}

/// Sends a form of a page of an instance.
async fn send(visitor: &Visitor<'_>, instance: &str, below: &str, fields: &[(&str, &str)]) -> Page {
    let csrf = visitor.csrf(&path(instance, "")).await;
    let mut all = vec![("csrf", csrf.as_str())];
    all.extend_from_slice(fields);
    visitor.post(&path(instance, below), &all).await
}

/// Makes credentials on the page; returns their binding's id.
async fn make(visitor: &Visitor<'_>, instance: &str, name: &str) -> String {
    let made = send(visitor, instance, "/credentials", &[("name", name)]).await;
    assert_eq!(made.status, StatusCode::SEE_OTHER, "{made:?}");
    let id = made
        .header("location")
        .split_once("made=")
        .expect("an id")
        .1;
    let page = path(instance, &format!("/credentials?made={id}"));
    eventually("they are ready", || async {
        let body = visitor.get(&page).await.body;
        body.contains("is ready. Show it below").then_some(())
    })
    .await;
    id.to_owned()
}

async fn is_gone(visitor: &Visitor<'_>, instance: &str, binding: &str) {
    eventually("the binding is gone", || async {
        let page = visitor.get(&path(instance, "/credentials")).await;
        (!page.body.contains(binding)).then_some(())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_platform_asked_for_is_the_platform_s_and_what_a_page_made_ends_with_its_token() {
    let broker = TestBroker::in_memory().await;
    broker.provision("mine", json!({})).await;
    broker.provision("foreign", json!({})).await;
    let credentials = broker.bind("mine", "key").await;
    broker.bind("mine", "other").await;
    let visitor = Visitor::with_token(&broker, &credentials).await;

    // Not what belongs to others, and nothing without the form's own token.
    let foreign = send(&visitor, "mine", "/credentials/nope/show", &[]).await;
    assert_eq!(foreign.status, StatusCode::NOT_FOUND);
    let csrf = visitor.csrf(&path("mine", "")).await;
    let fields = [("csrf", csrf.as_str()), ("name", "x")];
    let foreign = visitor
        .post(&path("foreign", "/credentials"), &fields)
        .await;
    assert_eq!(foreign.status, StatusCode::NOT_FOUND);
    let forged = visitor
        .post(&path("mine", "/credentials"), &[("name", "x")])
        .await;
    assert_eq!(forged.status, StatusCode::FORBIDDEN);

    // What the platform asked for it alone shows, replaces and ends.
    let sure = [("sure", "yes")];
    for (what, status) in [
        ("show", StatusCode::NOT_FOUND),
        ("rotate", StatusCode::FORBIDDEN),
        ("revoke", StatusCode::FORBIDDEN),
    ] {
        let refused = send(
            &visitor,
            "mine",
            &format!("/credentials/other/{what}"),
            &sure,
        )
        .await;
        assert_eq!(refused.status, status, "{what}: {refused:?}");
    }

    // What one makes is audited, shown once, and nobody's but the page's.
    let id = make(&visitor, "mine", "reports").await;
    let fetched = answer(broker.osb(Method::GET, &binding_path("mine", &id))).await;
    assert_eq!(fetched.status, StatusCode::OK, "{fetched:?}");
    let show = format!("/credentials/{id}/show");
    let shown = send(&visitor, "mine", &show, &[]).await;
    assert_eq!(shown.status, StatusCode::OK, "{shown:?}");
    assert!(shown.header("cache-control").contains("no-store"));
    let again = send(&visitor, "mine", &show, &[]).await;
    assert_eq!(again.status, StatusCode::CONFLICT, "{again:?}");
    let fetched = answer(broker.osb(Method::GET, &binding_path("mine", &id))).await;
    assert_eq!(fetched.status, StatusCode::NOT_FOUND, "{fetched:?}");
    let audit = answer(broker.osb(Method::GET, "/operator/audit?instance_id=mine")).await;
    let entries = audit.body["entries"].as_array().expect("a list").clone();
    let of_binding = |action: &str| {
        let found = entries
            .iter()
            .find(|e| e["action"] == action && e["binding_id"] == id.as_str());
        found
            .cloned()
            .unwrap_or_else(|| panic!("{action}: {entries:?}"))
    };
    for action in ["bind", "credentials"] {
        let entry = of_binding(action);
        assert_eq!(
            (text(&entry["origin"]), text(&entry["user"])),
            ("dashboard", "binding key")
        );
    }

    // Without the box nothing is revoked.
    let revoke = format!("/credentials/{id}/revoke");
    let unsure = send(&visitor, "mine", &revoke, &[]).await;
    assert_eq!(unsure.status, StatusCode::BAD_REQUEST);

    // What wears names that no store keeps is refused, and so is what no database holds.
    for fields in [
        [("name", ""), ("role", "writer")],
        [("name", "x"), ("role", "king")],
        [("name", "x"), ("expires_in", "soon")],
        [("name", "x"), ("expires_in", "1")],
    ] {
        let refused = send(&visitor, "mine", "/credentials", &fields).await;
        assert_eq!(refused.status, StatusCode::BAD_REQUEST, "{fields:?}");
    }

    // It ends with the binding that it was made with; the operator's does not.
    let operator = Visitor::operator(&broker).await;
    let kept = make(&operator, "mine", "kept").await;
    let second = send(&visitor, "mine", &format!("/credentials/{id}/rotate"), &[]).await;
    assert_eq!(second.status, StatusCode::SEE_OTHER, "{second:?}");
    broker.unbind("mine", "key").await;
    is_gone(&operator, "mine", "reports").await;
    let page = operator.get(&path("mine", "/credentials")).await.body;
    assert!(page.contains(&kept) && page.contains("other"), "{page}");
    // An operator ends in the platform's place.
    let ended = send(&operator, "mine", "/credentials/other/revoke", &sure).await;
    assert_eq!(ended.status, StatusCode::SEE_OTHER, "{ended:?}");
    is_gone(&operator, "mine", ">other<").await;
    let gone = broker.unbind("mine", "other").await;
    assert_eq!(gone.status, StatusCode::GONE, "{gone:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_takes_over_from_a_visitor_s_own_credentials_outlives_them() {
    let broker = TestBroker::in_memory().await;
    broker.provision("mine", json!({})).await;
    let operator = Visitor::operator(&broker).await;
    let first = make(&operator, "mine", "first").await;
    let fetched = answer(broker.osb(Method::GET, &binding_path("mine", &first))).await;
    let visitor = Visitor::with_token(&broker, &fetched.body["credentials"]).await;
    let rotate = format!("/credentials/{first}/rotate");
    let rotated = send(&visitor, "mine", &rotate, &[]).await;
    let second = rotated
        .header("location")
        .split_once("made=")
        .expect("an id")
        .1;
    let child = make(&visitor, "mine", "child").await;
    let revoke = format!("/credentials/{first}/revoke");
    let ended = send(&visitor, "mine", &revoke, &[("sure", "yes")]).await;
    assert_eq!(ended.status, StatusCode::SEE_OTHER, "{ended:?}");
    is_gone(&operator, "mine", &child).await;
    is_gone(&operator, "mine", &first).await;
    let page = operator.get(&path("mine", "/credentials")).await.body;
    assert!(page.contains(second), "{page}");
    let usable = answer(broker.osb(Method::GET, &binding_path("mine", second))).await;
    assert_eq!(usable.status, StatusCode::OK, "{usable:?}");
    let _: Value = usable.body;
}
