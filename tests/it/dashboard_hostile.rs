//! The dashboard and names that were chosen to break it: they are text, and nothing else.

use reqwest::{Method, StatusCode};
use serde_json::json;

use crate::{
    broker::{self, SERVICE, STANDARD, TestBroker, answer, encoded, instance_path},
    chromium::Chromium,
    dashboard::Visit,
};

/// Markup, quotes of each kind, a character that turns the reading direction round and is never
/// turned back, an emoji of several, and then a word without end.
fn worst() -> String {
    let mut worst = "<script>alert(1)</script>\"'`><img src=x onerror=alert(2)>{{7*7}}&amp;\
                     \u{202E}drow\u{202E} 👩‍🚀 "
        .to_owned();
    while worst.len() < 255 {
        worst.push('w');
    }
    worst
}

/// Texts with a character that turns the reading direction round and that are not kept apart from
/// their neighbours. Commands are: they stand in lines of their own.
async fn reordered(page: &Chromium) -> Vec<String> {
    let found = page
        .eval(
            "(() => {
                const walker = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
                const found = [];
                for (let text; text = walker.nextNode();) {
                    const home = text.parentElement, marks = text.data.split('\\u202e').length - 1;
                    if (marks === 0 || home.closest('pre')) continue;
                    const isolated = /isolate|plaintext/.test(getComputedStyle(home).unicodeBidi);
                    if (!isolated || marks > 2 || home.textContent.trim() !== text.data.trim())
                        found.push(`${home.tagName} #${home.id} .${home.className}`);
                }
                return found;
            })()",
        )
        .await;
    serde_json::from_value(found).expect("texts")
}

#[tokio::test(flavor = "multi_thread")]
async fn hostile_names_and_parameters_are_text() {
    let broker = TestBroker::start().await;
    let worst = worst();
    assert_eq!(worst.len(), 255);
    let body = json!({
        "service_id": SERVICE, "plan_id": STANDARD,
        "organization_guid": worst, "space_guid": worst,
        "context": { "platform": "cloudfoundry", "instance_name": worst },
    });
    let path = format!("{}?accepts_incomplete=true", instance_path(&worst));
    let accepted = answer(broker.osb(Method::PUT, &path).json(&body)).await;
    assert_eq!(accepted.status, StatusCode::ACCEPTED, "{accepted:?}");
    let visit = Visit::to(broker).await;
    let page = &visit.page;

    // While it is being made, too.
    visit.sign_in_as_operator().await;
    visit.open(&worst, "").await;
    page.shows("<script>alert(1)</script>").await;
    page.look_over("hostile-unready").await;
    visit.broker.instance_end(&worst, &accepted.body).await;
    let credentials = visit.broker.bind(&worst, "b").await;
    visit.broker.back_up(&credentials).await;

    page.open(&visit.url("/instances")).await;
    page.shows("<script>alert(1)</script>").await;
    assert_eq!(reordered(page).await, Vec::<String>::new());
    page.look_over("hostile-instances").await;
    visit.check().await;
    for path in ["", "/backups", "/activity"] {
        visit.open(&worst, path).await;
        assert!(
            page.text().await.contains("<img src=x onerror=alert(2)>"),
            "{path}"
        );
        assert_eq!(reordered(page).await, Vec::<String>::new(), "{path}");
        for closed in page.all("details:not([open]) > summary").await {
            closed.click().await;
        }
        page.look_over(&format!("hostile{}", path.replace('/', "-")))
            .await;
        visit.check().await;
    }

    // In every place of an address that something is read from.
    let tag = encoded("\"'><script>alert(3)</script>");
    for path in [
        format!("/instances?q={tag}&page={tag}"),
        format!("/instances/{tag}"),
        format!(
            "/instances/{}/backups?kind={tag}&page={tag}&operation={tag}&again={tag}",
            encoded(&worst)
        ),
        format!("/instances/{}/room?prefix={tag}", encoded(&worst)),
        format!("/link?code={tag}"),
        format!("/{tag}"),
    ] {
        page.open(&visit.url(&path)).await;
        assert_eq!(page.overflow().await, Vec::<String>::new(), "{path}");
        let ran = page.complaints().await;
        // Some of these are not there; none of them runs anything.
        assert!(
            ran.iter().all(|c| c.contains("status of 40")),
            "{path}: {ran:?}"
        );
    }
    // A way back that leads elsewhere is none.
    for elsewhere in [
        "//127.0.0.2/",
        "/\\127.0.0.2/",
        "http://127.0.0.2/",
        "javascript:alert(4)",
    ] {
        page.forget_cookies().await;
        let path = format!("/sign-in?next={}", encoded(elsewhere));
        page.open(&visit.url(&path)).await;
        let token = broker::text(&credentials["instance_administration_api"]["token"]);
        visit.show_token(token).await;
        page.find("#sign-out").await;
        page.check(&visit.broker.url).await;
    }
}
