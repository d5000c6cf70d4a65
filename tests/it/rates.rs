//! How many requests are taken of a client, and who that is behind a proxy.

use reqwest::{Method, RequestBuilder, StatusCode};

use crate::{
    broker::{Answer, TestBroker, answer},
    control::surroundings,
    inside::Inside,
    transport::description,
};

/// Asks again and again until it was too often; returns how often it was not, and the refusal.
async fn until_refused(ask: impl Fn() -> RequestBuilder) -> (u32, Answer) {
    for taken in 0..5000 {
        let answer = answer(ask()).await;
        if answer.status == StatusCode::TOO_MANY_REQUESTS {
            return (taken, answer);
        }
    }
    panic!("nobody minds");
}

#[tokio::test(flavor = "multi_thread")]
async fn too_many_requests_are_refused_in_each_dialect() {
    let flags = ["--requests-per-second", "1"];
    let broker = TestBroker::in_memory_with(&flags, surroundings()).await;
    let (taken, refused) = until_refused(|| broker.osb(Method::GET, "/v2/catalog")).await;
    assert!(taken >= 10, "{taken}");
    let reason = description(&refused, StatusCode::TOO_MANY_REQUESTS);
    assert!(reason.contains("try again in 1 s"), "{reason}");
    assert_eq!(refused.headers["retry-after"], "1");
    // Other parts of the broker have the same counter, each says it in its own way.
    let (_, refused) =
        until_refused(|| broker.anonymous(Method::GET, "/api/2016-07/instances/i")).await;
    assert!(refused.body["errors"]["base"][0].is_string(), "{refused:?}");
    assert_eq!(refused.headers["retry-after"], "1");
    // Before credentials are looked at: guessing them is what the limit is for, too.
    let (_, refused) = until_refused(|| broker.anonymous(Method::GET, "/operator/audit")).await;
    description(&refused, StatusCode::TOO_MANY_REQUESTS);
    // Links that carry their own permission are no way around.
    for of in ["backups/b", "logfiles/l"] {
        let path = format!("/api/2016-07/instances/i/deployments/d/{of}/download");
        let (_, refused) = until_refused(|| broker.anonymous(Method::GET, &path)).await;
        assert!(refused.body["errors"]["base"][0].is_string(), "{refused:?}");
    }
    loop {
        let page = broker
            .anonymous(Method::GET, "/dashboard/sign-in")
            .send()
            .await
            .expect("an answer");
        if page.status() == StatusCode::TOO_MANY_REQUESTS {
            assert_eq!(page.headers()["retry-after"], "1");
            let text = page.text().await.expect("a page");
            assert!(text.contains("too many requests"), "{text}");
            break;
        }
    }
    // Health checks are never refused.
    for _ in 0..30 {
        let alive = answer(broker.anonymous(Method::GET, "/healthz")).await;
        assert_eq!(alive.status, StatusCode::OK);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_behind_a_trusted_proxy_is_known_by_its_own_address() {
    let flags = [
        "--requests-per-second",
        "1",
        "--trusted-proxies",
        "127.0.0.0/8",
    ];
    let broker = TestBroker::in_memory_with(&flags, surroundings()).await;
    let from = |client: &str| {
        let request = broker.osb(Method::GET, "/v2/catalog");
        request.header("X-Forwarded-For", client)
    };
    until_refused(|| from("203.0.113.1")).await;
    assert_eq!(answer(from("203.0.113.2")).await.status, StatusCode::OK);
    // What a client writes before the proxy does is not believed.
    let other_names = ["203.0.113.7, 203.0.113.1", "127.0.0.1, 203.0.113.1"];
    for (i, client) in other_names.into_iter().cycle().take(40).enumerate() {
        if answer(from(client)).await.status == StatusCode::TOO_MANY_REQUESTS {
            break;
        }
        assert!(i < 30, "a client has more than one name");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn nobody_else_is_believed_about_where_a_request_comes_from() {
    let flags = [
        "--requests-per-second",
        "1",
        "--trusted-proxies",
        "192.0.2.0/24",
    ];
    let broker = TestBroker::in_memory_with(&flags, surroundings()).await;
    let invented = std::sync::atomic::AtomicU32::new(0);
    let (taken, _) = until_refused(|| {
        let number = invented.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        let client = std::net::Ipv4Addr::from_bits(number).to_string();
        broker
            .osb(Method::GET, "/v2/catalog")
            .header("X-Forwarded-For", client)
    })
    .await;
    assert!(taken < 500, "{taken}");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_holders_of_an_instance_s_tokens_count_together_wherever_they_are() {
    // So few that a slow machine asks too often, too; so the store is asked how the making goes.
    let flags = [
        "--requests-per-second",
        "2",
        "--trusted-proxies",
        "127.0.0.1",
    ];
    let broker = TestBroker::in_memory_with(&flags, surroundings()).await;
    broker.put_instance("i", serde_json::json!({})).await;
    Inside::of(&broker).idle("i").await;
    let credentials = broker.bind("i", "b").await;
    let places = std::sync::atomic::AtomicU32::new(0);
    let (taken, refused) = until_refused(|| {
        let number = places.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        let client = std::net::Ipv4Addr::from_bits(number).to_string();
        broker
            .compose(Method::GET, &credentials, "")
            .header("X-Forwarded-For", client)
    })
    .await;
    assert!(taken >= 20, "{taken}");
    assert!(refused.body["errors"]["base"][0].is_string(), "{refused:?}");
    // The platform is not held up by them.
    let platform = broker.osb(Method::GET, "/v2/catalog");
    let platform = answer(platform.header("X-Forwarded-For", "203.0.113.1")).await;
    assert_eq!(platform.status, StatusCode::OK);
}
