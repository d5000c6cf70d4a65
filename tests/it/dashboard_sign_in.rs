//! The dashboard's doors: every way in leads to what is one's own, and nothing else leads in.

use std::time::Duration;

use compose_broker::app::Surroundings;
use futures::future::join;
use serde_json::json;

use crate::{
    broker::{TestBroker, eventually, text},
    control::TestClock,
    dashboard::Visit,
    user::User,
};

/// A link of the command line, for somebody without a token.
async fn link_to(broker: &TestBroker, instance: &str) -> String {
    let user = User::of_broker(broker);
    let printed = user.does(&["dashboard-link", instance]).await.out;
    printed.trim_end().to_owned()
}

#[tokio::test(flavor = "multi_thread")]
async fn every_way_in_leads_to_ones_own_and_nothing_else_does() {
    let clock = TestClock::default();
    let surroundings = Surroundings {
        // The hours that pass here may have an instance's slot among them.
        scheduled: false,
        ..clock.surroundings()
    };
    let broker = TestBroker::start_with(&[], surroundings).await;
    let (mine, theirs) = ("mine", "theirs");
    join(
        broker.provision(mine, json!({})),
        broker.provision(theirs, json!({})),
    )
    .await;
    let credentials = broker.bind(mine, "b").await;
    let token = text(&credentials["instance_administration_api"]["token"]).to_owned();
    let visit = Visit::to(broker).await;
    let page = &visit.page;

    // The way that somebody comes who follows the platform's link.
    visit.open(mine, "").await;
    page.arrives_at("/dashboard/sign-in").await;
    page.look_over("sign-in").await;
    visit.check().await;
    visit.show_token("not a token").await;
    page.says("#message[role=alert]", "token").await;
    page.look_over("sign-in-refused").await;
    refused(&visit, "403").await;
    visit.open(mine, "/backups").await;
    visit.show_token(&token).await;
    page.arrives_at("/instances/mine/backups").await;
    assert_eq!(page.eval("document.cookie").await, "");
    let cookies = page.cookies().await;
    assert_eq!(cookies.len(), 1, "{cookies:?}");
    assert_eq!(cookies[0]["httpOnly"], true);
    visit.check().await;

    // What is another's is like what nobody has.
    visit.open(theirs, "").await;
    let foreign = page.text().await;
    visit.open("nobody's", "").await;
    assert_eq!(page.text().await, foreign);
    visit.open(theirs, "/backups").await;
    assert_eq!(page.text().await, foreign);
    page.look_over("not-found").await;
    refused(&visit, "404").await;
    page.open(&visit.url("/instances")).await;
    assert!(!page.text().await.contains(theirs));
    page.complaints().await;

    // Out.
    visit.open(mine, "").await;
    page.click("button", "Sign out").await;
    page.arrives_at("/dashboard/sign-in").await;
    visit.open(mine, "").await;
    page.arrives_at("/dashboard/sign-in").await;
    page.check(&visit.broker.url).await;

    // By a link, which is good once and not for long.
    let link = link_to(&visit.broker, mine).await;
    page.open(&link).await;
    page.look_over("link").await;
    page.click("button", "Open the dashboard").await;
    page.arrives_at("/dashboard/instances/mine").await;
    page.check(&visit.broker.url).await;
    page.forget_cookies().await;
    let late = link_to(&visit.broker, mine).await;
    clock.forward(Duration::from_secs(15 * 60));
    for link in [
        &link,
        &late,
        &format!("{link}x"),
        &visit.url("/link?code=<b>"),
    ] {
        page.open(link).await;
        page.shows("not good").await;
        assert!(
            page.all_named("button", "Open the dashboard")
                .await
                .is_empty()
        );
    }
    page.complaints().await;

    // The operator has them all.
    visit.sign_in_as_operator().await;
    page.arrives_at("/dashboard/instances").await;
    page.named("link", mine).await;
    page.look_over("instances").await;
    visit.check().await;
    page.find("#q").await.fill("their").await;
    page.press([crate::chromium::ENTER]).await;
    page.arrives_at("q=their").await;
    assert!(page.all_named("link", mine).await.is_empty());
    page.click("link", theirs).await;
    page.arrives_at("/instances/theirs").await;
    page.check(&visit.broker.url).await;
    // Sessions end by themselves.
    clock.forward(Duration::from_secs(3 * 60 * 60));
    page.reload().await;
    page.arrives_at("/dashboard/sign-in").await;

    // A visitor who guesses has to wait, and then may go on. The clock stands still, so that a slow
    // browser changes nothing.
    clock.stop();
    let is_held_up = || async { page.text().await.to_lowercase().contains("too many") };
    let mut guesses = 0;
    while !is_held_up().await {
        guesses += 1;
        assert!(guesses < 30);
        page.open(&visit.url("/sign-in")).await;
        visit.show_password("operator", "guess").await;
        page.find("#message").await;
    }
    page.open(&visit.url("/sign-in")).await;
    let (username, password) = visit.broker.platform();
    visit.show_password(username, password).await;
    eventually("a refusal", || async { is_held_up().await.then_some(()) }).await;
    page.look_over("sign-in-too-often").await;
    page.complaints().await;
    clock.forward(Duration::from_secs(60));
    clock.go_on();
    visit.sign_in_as_operator().await;
    // A token's session ends with the token.
    page.forget_cookies().await;
    visit.sign_in(&credentials).await;
    visit.broker.unbind(mine, "b").await;
    page.reload().await;
    page.arrives_at("/dashboard/sign-in").await;
    page.check(&visit.broker.url).await;
}

/// The only complaints are about documents with this status.
async fn refused(visit: &Visit, status: &str) {
    let complaints = visit.page.complaints().await;
    assert!(!complaints.is_empty());
    for complaint in complaints {
        assert!(
            complaint.contains(&format!("status of {status}")),
            "{complaint}"
        );
    }
}
