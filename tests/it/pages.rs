//! The dashboard without a browser: who gets in and for how long, what answers carry, and what is
//! on the pages.

use std::{path::Path, time::Duration};

use compose_broker::model::{
    limits::{DASHBOARD_LINK_TTL, SESSION_TTL, SIGN_IN_FAILURES_OF_CLIENT, SIGN_IN_REST_OF_CLIENT},
    operation::OperationKind,
};
use reqwest::{Method, StatusCode, header};
use serde_json::{Value, json};

use crate::{
    broker::{TestBroker, answer, encoded, eventually, instance_path, text},
    control::{Script, TestClock, surroundings},
    inside::Inside,
    process::BrokerProcess,
    user::User,
};

/// Somebody with a browser's cookie, whom nothing is done for that they did not ask for.
pub struct Visitor<'a> {
    broker: &'a TestBroker,
    http: reqwest::Client,
    pub cookie: String,
}

/// What came back.
#[derive(Debug)]
pub struct Page {
    pub status: StatusCode,
    headers: header::HeaderMap,
    pub body: String,
}

impl Page {
    pub fn header(&self, name: &str) -> &str {
        let value = self.headers.get(name);
        value.map_or("", |value| value.to_str().expect("a text"))
    }
}

impl<'a> Visitor<'a> {
    pub fn of(broker: &'a TestBroker) -> Self {
        let http = reqwest::Client::builder()
            .redirect(reqwest::redirect::Policy::none())
            .build();
        Self {
            broker,
            http: http.expect("a client"),
            cookie: String::new(),
        }
    }

    pub async fn with_token(broker: &'a TestBroker, credentials: &Value) -> Self {
        let mut visitor = Self::of(broker);
        let token = text(&credentials["instance_administration_api"]["token"]);
        let page = visitor.sign_in(&[("way", "token"), ("token", token)]).await;
        assert_eq!(page.status, StatusCode::SEE_OTHER, "{page:?}");
        visitor
    }

    pub async fn operator(broker: &'a TestBroker) -> Self {
        let mut visitor = Self::of(broker);
        let page = visitor.sign_in(&operator_of(broker)).await;
        assert_eq!(page.status, StatusCode::SEE_OTHER, "{page:?}");
        visitor
    }

    fn request(&self, method: Method, path: &str) -> reqwest::RequestBuilder {
        let url = format!("{}{path}", self.broker.url);
        let request = self.http.request(method, url);
        if self.cookie.is_empty() {
            request
        } else {
            request.header(header::COOKIE, &self.cookie)
        }
    }

    pub async fn get(&self, path: &str) -> Page {
        page(self.request(Method::GET, path)).await
    }

    pub async fn get_with(&self, path: &str, headers: &[(&str, &str)]) -> Page {
        let request = self.request(Method::GET, path);
        let with = |request: reqwest::RequestBuilder, (name, value): &(&str, &str)| {
            request.header(*name, *value)
        };
        page(headers.iter().fold(request, with)).await
    }

    pub async fn post(&self, path: &str, fields: &[(&str, &str)]) -> Page {
        page(with_form(self.request(Method::POST, path), fields)).await
    }

    pub async fn sign_in(&mut self, fields: &[(&str, &str)]) -> Page {
        let page = self.post("/dashboard/sign-in", fields).await;
        self.take_cookie(&page);
        page
    }

    pub fn take_cookie(&mut self, page: &Page) {
        if let Some((cookie, _)) = page.header("set-cookie").split_once(';') {
            cookie.clone_into(&mut self.cookie);
        }
    }

    /// What the forms of a page carry.
    pub async fn csrf(&self, path: &str) -> String {
        let page = self.get(path).await;
        between(&page.body, "name=\"csrf\" value=\"", "\"").to_owned()
    }

    pub async fn is_in(&self, path: &str) -> bool {
        let page = self.get(path).await;
        match page.status {
            StatusCode::OK => true,
            StatusCode::SEE_OTHER => false,
            _ => panic!("{page:?}"),
        }
    }
}

async fn page(request: reqwest::RequestBuilder) -> Page {
    let response = request.send().await.expect("an answer");
    Page {
        status: response.status(),
        headers: response.headers().clone(),
        body: response.text().await.expect("a text"),
    }
}

fn with_form(request: reqwest::RequestBuilder, fields: &[(&str, &str)]) -> reqwest::RequestBuilder {
    let mut form = url::form_urlencoded::Serializer::new(String::new());
    form.extend_pairs(fields);
    let form_type = "application/x-www-form-urlencoded";
    request
        .header(header::CONTENT_TYPE, form_type)
        .body(form.finish())
}

pub fn between<'a>(body: &'a str, before: &str, after: &str) -> &'a str {
    let found = body
        .split_once(before)
        .and_then(|(_, rest)| rest.split_once(after));
    found.unwrap_or_else(|| panic!("no {before:?} in {body}")).0
}

fn operator_of(broker: &TestBroker) -> [(&str, &str); 3] {
    let (username, password) = broker.platform();
    [
        ("way", "operator"),
        ("username", username),
        ("password", password),
    ]
}

fn overview(instance: &str) -> String {
    format!("/dashboard/instances/{}", encoded(instance))
}

fn backups(instance: &str) -> String {
    format!("{}/backups", overview(instance))
}

fn code_of(link: &str) -> &str {
    link.split_once("code=").expect("a code").1
}

#[tokio::test(flavor = "multi_thread")]
async fn each_way_in_opens_what_it_is_for() {
    let broker = TestBroker::in_memory().await;
    broker.provision("mine", json!({})).await;
    broker.provision("foreign", json!({})).await;
    let credentials = broker.bind("mine", "key").await;

    let mut visitor = Visitor::of(&broker);
    assert_eq!(visitor.get("/").await.header("location"), "/dashboard");
    let refused = visitor
        .sign_in(&[("way", "token"), ("token", "guessed")])
        .await;
    assert_eq!(refused.status, StatusCode::FORBIDDEN);
    assert!(refused.body.contains("role=\"alert\""), "{}", refused.body);
    assert_eq!(visitor.cookie, "");
    let token = text(&credentials["instance_administration_api"]["token"]);
    let pasted = format!(" {token}\n");
    let entered = visitor
        .sign_in(&[("way", "token"), ("token", &pasted)])
        .await;
    assert_eq!(entered.status, StatusCode::SEE_OTHER);
    assert_eq!(entered.header("location"), overview("mine"));
    let cookie = entered.header("set-cookie");
    for attribute in [
        "HttpOnly",
        "SameSite=Lax",
        "Path=/dashboard",
        "Max-Age=7200",
    ] {
        assert!(cookie.contains(attribute), "{cookie}");
    }
    assert!(!cookie.contains("Secure"), "this broker has no TLS");
    assert!(visitor.is_in(&overview("mine")).await);
    assert!(visitor.is_in(&backups("mine")).await);

    // What is foreign is answered like what is unknown, and like what cannot be.
    let unknown = visitor.get(&overview("nobody")).await;
    assert_eq!(unknown.status, StatusCode::NOT_FOUND);
    let too_long = overview(&"x".repeat(300));
    let csrf = visitor.csrf(&backups("mine")).await;
    for path in [
        overview("foreign"),
        backups("foreign"),
        too_long,
        overview("a\u{1}b"),
        format!("{}/backups/../../foreign", overview("mine")),
        format!("{}/0123456789abcdef01234567/download", backups("foreign")),
        format!("{}/0123456789abcdef01234567/download", backups("mine")),
        format!("{}/x/download", backups("mine")),
        "/dashboard/instances".to_owned(),
        "/dashboard/assets/none.css".to_owned(),
        "/dashboard/nothing".to_owned(),
    ] {
        let page = visitor.get(&path).await;
        assert_eq!(
            (page.status, &page.body),
            (unknown.status, &unknown.body),
            "{path}"
        );
    }
    for path in [
        backups("foreign"),
        backups("nobody"),
        backups(&"x".repeat(300)),
    ] {
        let page = visitor.post(&path, &[("csrf", &csrf)]).await;
        assert_eq!(
            (page.status, &page.body),
            (unknown.status, &unknown.body),
            "{path}"
        );
    }
    assert_eq!(Inside::of(&broker).operations("foreign").await.len(), 1);

    let operator = Visitor::operator(&broker).await;
    assert_eq!(
        operator.get("/dashboard").await.header("location"),
        "/dashboard/instances"
    );
    for instance in ["mine", "foreign"] {
        assert!(operator.is_in(&overview(instance)).await);
    }
    let wrong = [
        ("way", "operator"),
        ("username", "broker"),
        ("password", "guessed"),
    ];
    let refused = Visitor::of(&broker).sign_in(&wrong).await;
    assert_eq!(refused.status, StatusCode::FORBIDDEN);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_link_opens_one_instance_once_and_not_for_long() {
    let clock = TestClock::default();
    let broker = TestBroker::in_memory_with(&[], clock.surroundings()).await;
    broker.put_instance("mine", json!({})).await;
    let link = broker.dashboard_link("mine").await;
    let link = link.expect("a link");

    let mut visitor = Visitor::of(&broker);
    // A look alone uses nothing up.
    for _ in 0..3 {
        let page = visitor.get(&link).await;
        assert_eq!(page.status, StatusCode::OK);
        assert_eq!(page.header("set-cookie"), "");
    }
    let form = [("code", code_of(&link))];
    let entered = visitor.post("/dashboard/link", &form).await;
    assert_eq!(entered.header("location"), overview("mine"), "{entered:?}");
    visitor.take_cookie(&entered);
    assert!(visitor.is_in(&overview("mine")).await);
    let again = visitor.post("/dashboard/link", &form).await;
    assert_eq!(again.status, StatusCode::FORBIDDEN);
    assert_eq!(visitor.get(&link).await.status, StatusCode::FORBIDDEN);

    let late = broker.dashboard_link("mine").await;
    let late = late.expect("a link");
    for forged in [
        "",
        "x",
        "a.b.c.d",
        &code_of(&late).replace("bWluZQ", "Zm9yZWlnbg"),
    ] {
        let page = visitor.post("/dashboard/link", &[("code", forged)]).await;
        assert_eq!(page.status, StatusCode::FORBIDDEN, "{forged}");
    }
    clock.forward(DASHBOARD_LINK_TTL);
    let page = visitor
        .post("/dashboard/link", &[("code", code_of(&late))])
        .await;
    assert_eq!(page.status, StatusCode::FORBIDDEN);

    let none = broker.dashboard_link("nobody").await;
    let none = none.expect_err("nothing to lead to");
    assert_eq!(none.status, StatusCode::NOT_FOUND, "{none:?}");
    // The session ends with its instance, also for the next one of this id.
    assert!(visitor.is_in(&overview("mine")).await);
    broker.deprovision("mine").await;
    broker.put_instance("mine", json!({})).await;
    assert!(!visitor.is_in(&overview("mine")).await);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_link_of_the_command_line_is_made_by_the_broker_s_clock() {
    let mut broker = BrokerProcess::stopped_with(|settings| {
        let ten_days_ahead = "864000";
        let file = Path::new(&settings["DATA_DIR"]).with_file_name("ahead");
        std::fs::write(&file, ten_days_ahead).expect("a file");
        settings.insert("CLOCK_OFFSET_FILE", file.display().to_string());
    });
    broker.start_again().await;
    broker.put_instance("mine", json!({})).await;
    // By its id, from an empty folder, with nothing but the credentials.
    let user = User::of_broker(&broker);
    let printed = user.does(&["dashboard-link", "mine"]).await.out;
    let link = &printed[printed.find("/dashboard/").expect("a link")..];
    let page = Visitor::of(&broker).get(link.trim_end()).await;
    assert_eq!(page.status, StatusCode::OK, "{page:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_session_ends_with_what_it_stands_on() {
    let clock = TestClock::default();
    let surroundings = || clock.surroundings();
    let mut broker = TestBroker::in_memory_with(&[], surroundings()).await;
    broker.provision("mine", json!({})).await;
    let credentials = broker.bind("mine", "key").await;
    let other = broker.bind("mine", "other").await;
    let path = overview("mine");
    let visitor = Visitor::with_token(&broker, &credentials).await;
    let second = Visitor::with_token(&broker, &other).await;
    assert!(visitor.is_in(&path).await);
    broker.unbind("mine", "key").await;
    assert!(!visitor.is_in(&path).await, "the token is gone");
    assert!(second.is_in(&path).await, "this one is another binding's");

    let csrf = second.csrf(&path).await;
    clock.stop();
    let third = Visitor::with_token(&broker, &other).await;
    let foreign = third.post("/dashboard/sign-out", &[("csrf", &csrf)]).await;
    assert_eq!(foreign.status, StatusCode::FORBIDDEN);
    let left = second.post("/dashboard/sign-out", &[("csrf", &csrf)]).await;
    assert_eq!(left.header("location"), "/dashboard/sign-in");
    assert!(left.header("set-cookie").contains("Max-Age=0"));
    assert!(!second.is_in(&path).await, "signed out");
    assert!(third.is_in(&path).await);

    clock.forward(SESSION_TTL - Duration::from_secs(1));
    assert!(third.is_in(&path).await);
    clock.forward(Duration::from_secs(1));
    clock.go_on();
    assert!(
        !third.is_in(&path).await,
        "its time is over, though it was used"
    );

    let operator = Visitor::operator(&broker).await;
    let kept = Visitor::with_token(&broker, &other).await;
    assert!(operator.is_in(&path).await);
    let cookies = [operator.cookie.clone(), kept.cookie.clone()];
    broker.stop().await;
    std::fs::write(broker.data_dir().join("password"), "changed").expect("a file");
    broker.start_again(surroundings()).await;
    let [operator, kept] = cookies.map(|cookie| Visitor {
        cookie,
        ..Visitor::of(&broker)
    });
    assert!(!operator.is_in(&path).await, "the password is another one");
    assert!(kept.is_in(&path).await, "the token is the same");
    broker.deprovision("mine").await;
    assert!(!kept.is_in(&path).await, "the instance is gone");
}

#[tokio::test(flavor = "multi_thread")]
async fn every_answer_keeps_browsers_from_harm() {
    let broker = TestBroker::in_memory().await;
    broker.put_instance("mine", json!({})).await;
    let operator = Visitor::operator(&broker).await;
    let sign_in = operator.get("/dashboard/sign-in").await;
    let assets = ["href=\"/dashboard/assets/", "src=\"/dashboard/assets/"]
        .map(|before| format!("/dashboard/assets/{}", between(&sign_in.body, before, "\"")));
    let nobody = Visitor::of(&broker);
    for (visitor, method, path, status) in [
        (&nobody, Method::GET, "/dashboard", 303),
        (&nobody, Method::GET, "/dashboard/sign-in", 200),
        (&nobody, Method::POST, "/dashboard/sign-in", 400),
        (&nobody, Method::PUT, "/dashboard/sign-in", 405),
        (&nobody, Method::GET, "/dashboard/link?code=x", 403),
        (&nobody, Method::GET, "/dashboard/nothing", 404),
        (&nobody, Method::GET, &assets[0], 200),
        (&nobody, Method::GET, &assets[1], 200),
        (&nobody, Method::GET, &overview("mine"), 303),
        (&nobody, Method::POST, &backups("mine"), 303),
        (&operator, Method::GET, "/dashboard/instances", 200),
        (&operator, Method::GET, &overview("mine"), 200),
        (&operator, Method::GET, &backups("mine"), 200),
        (&operator, Method::GET, &overview("nobody"), 404),
        (&operator, Method::POST, &backups("mine"), 403),
        (&operator, Method::DELETE, &overview("mine"), 405),
    ] {
        let page = page(visitor.request(method.clone(), path)).await;
        assert_eq!(page.status.as_u16(), status, "{method} {path}");
        let policy = page.header("content-security-policy");
        assert!(
            policy.starts_with("default-src 'none'; script-src 'self';"),
            "{path}"
        );
        assert!(policy.contains("frame-ancestors 'none'"), "{path}");
        assert!(!policy.contains("unsafe"), "{path}");
        assert_eq!(page.header("x-content-type-options"), "nosniff", "{path}");
        assert_eq!(page.header("referrer-policy"), "same-origin", "{path}");
        let kept = page.header("cache-control");
        let for_ever = path.contains("assets/");
        assert_eq!(kept.contains("immutable"), for_ever, "{path}");
        assert_eq!(kept == "no-store", !for_ever, "{path}");
        for inline in [
            "style=",
            "<style",
            "<script>",
            "onclick",
            "javascript:",
            "//fonts",
        ] {
            let is_page = page.header("content-type").starts_with("text/html");
            assert!(
                !is_page || !page.body.contains(inline),
                "{path} has {inline}"
            );
        }
    }
    // Where TLS is in front, the cookie never leaves it.
    let flags = ["--public-url", "https://broker.example.org"];
    let broker = TestBroker::in_memory_with(&flags, surroundings()).await;
    let secure = format!("http://{}", broker.address());
    let mut visitor = Visitor::of(&broker);
    let request = visitor.http.post(format!("{secure}/dashboard/sign-in"));
    let entered = page(with_form(request, &operator_of(&broker))).await;
    visitor.take_cookie(&entered);
    assert!(
        entered.header("set-cookie").ends_with("; Secure"),
        "{entered:?}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn no_other_site_can_sign_in_or_change_anything() {
    let broker = TestBroker::in_memory().await;
    broker.provision("mine", json!({})).await;
    let visitor = Visitor::of(&broker);
    let own = broker.url.clone();
    for (name, value, status) in [
        ("sec-fetch-site", "cross-site", 403),
        ("sec-fetch-site", "same-site", 403),
        ("sec-fetch-site", "same-origin", 303),
        ("origin", "https://evil.example", 403),
        ("origin", "null", 403),
        ("origin", &own, 303),
    ] {
        let request = visitor.request(Method::POST, "/dashboard/sign-in");
        let request = request.header(name, value);
        let answer = page(with_form(request, &operator_of(&broker))).await;
        assert_eq!(answer.status.as_u16(), status, "{name}: {value}");
        let request = visitor.request(Method::POST, "/dashboard/link");
        let link = broker.dashboard_link("mine").await;
        let link = link.expect("a link");
        let form = [("code", code_of(&link))];
        let answer = page(with_form(request.header(name, value), &form)).await;
        assert_eq!(answer.status.as_u16(), status, "{name}: {value}");
    }
    let operator = Visitor::operator(&broker).await;
    let other = Visitor::operator(&broker).await;
    let foreign = other.csrf(&backups("mine")).await;
    let restore = format!("{}/0123456789abcdef01234567/restore", backups("mine"));
    for path in [&backups("mine"), &restore, "/dashboard/sign-out"] {
        for form in [&[][..], &[("csrf", "")], &[("csrf", &foreign)]] {
            let refused = operator.post(path, form).await;
            assert_eq!(refused.status, StatusCode::FORBIDDEN, "{path} {form:?}");
        }
    }
    assert!(operator.is_in(&overview("mine")).await);
    assert_eq!(Inside::of(&broker).operations("mine").await.len(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn guessing_has_an_end() {
    let clock = TestClock::default();
    clock.stop();
    let broker = TestBroker::in_memory_with(&[], clock.surroundings()).await;
    let mut visitor = Visitor::of(&broker);
    for _ in 0..SIGN_IN_FAILURES_OF_CLIENT {
        let refused = visitor.sign_in(&[("way", "token"), ("token", "x")]).await;
        assert_eq!(refused.status, StatusCode::FORBIDDEN);
    }
    let held = visitor.sign_in(&operator_of(&broker)).await;
    assert_eq!(held.status, StatusCode::TOO_MANY_REQUESTS);
    let wait: u64 = held.header("retry-after").parse().expect("seconds");
    assert!(
        (1..=SIGN_IN_REST_OF_CLIENT.as_secs()).contains(&wait),
        "{wait}"
    );
    assert!(
        held.body.contains("Too many sign-ins failed"),
        "{}",
        held.body
    );
    let link = visitor.post("/dashboard/link", &[("code", "x")]).await;
    assert_eq!(link.status, StatusCode::TOO_MANY_REQUESTS);
    clock.forward(SIGN_IN_REST_OF_CLIENT);
    let entered = visitor.sign_in(&operator_of(&broker)).await;
    assert_eq!(entered.status, StatusCode::SEE_OTHER);
}

#[tokio::test(flavor = "multi_thread")]
async fn who_signs_in_gets_where_they_wanted_and_nowhere_else() {
    let broker = TestBroker::in_memory().await;
    broker.provision("my own", json!({})).await;
    let credentials = broker.bind("my own", "key").await;
    let token = text(&credentials["instance_administration_api"]["token"]);
    let wanted = backups("my own");
    let sent = Visitor::of(&broker).get(&wanted).await;
    let door = sent.header("location");
    assert!(door.starts_with("/dashboard/sign-in?next="), "{door}");
    let page = Visitor::of(&broker).get(door).await;
    assert!(
        page.body.contains(&format!("value=\"{wanted}\"")),
        "{}",
        page.body
    );
    let own = overview("my own");
    for (next, arrives) in [
        (wanted.as_str(), wanted.as_str()),
        ("", &own),
        ("/dashboard/instances/foreign", &own),
        ("/dashboard/instances", &own),
        ("https://evil.example/", &own),
        ("//evil.example/dashboard/instances", &own),
        ("/\\evil.example", &own),
    ] {
        let form = [("way", "token"), ("token", token), ("next", next)];
        let entered = Visitor::of(&broker).sign_in(&form).await;
        assert_eq!(entered.header("location"), arrives, "{next}");
    }
    let (username, password) = broker.platform();
    for (next, arrives) in [
        (wanted.as_str(), wanted.as_str()),
        (
            "https://evil.example/dashboard/instances",
            "/dashboard/instances",
        ),
        ("//evil.example/x", "/dashboard/instances"),
        ("/v2/catalog", "/dashboard/instances"),
    ] {
        let form = [
            ("way", "operator"),
            ("username", username),
            ("password", password),
            ("next", next),
        ];
        let entered = Visitor::of(&broker).sign_in(&form).await;
        assert_eq!(entered.header("location"), arrives, "{next}");
    }
    // A form whose session is over leads back to the page that it stands on.
    let restore = format!("{wanted}/0123456789abcdef01234567/restore");
    let sent = Visitor::of(&broker).post(&restore, &[]).await;
    assert_eq!(sent.header("location"), door);
}

#[tokio::test(flavor = "multi_thread")]
async fn hostile_texts_are_texts() {
    let broker = TestBroker::in_memory().await;
    let id = "<script>alert('1')</script>\"&'--/..";
    let body = json!({
        "service_id": crate::broker::SERVICE, "plan_id": crate::broker::STANDARD,
        "organization_guid": "<img src=x>", "space_guid": "</main>",
        "context": { "platform": "cloudfoundry", "instance_name": "<b onmouseover=alert(1)>name" },
    });
    let path = format!("{}?accepts_incomplete=true", instance_path(id));
    let accepted = answer(broker.osb(Method::PUT, &path).json(&body)).await;
    assert_eq!(accepted.status, StatusCode::ACCEPTED, "{accepted:?}");
    assert_eq!(
        broker.instance_end(id, &accepted.body).await["state"],
        "succeeded"
    );
    let credentials = broker.bind(id, "key").await;
    broker.back_up(&credentials).await;
    let operator = Visitor::operator(&broker).await;
    for path in [
        overview(id),
        backups(id),
        "/dashboard/instances?q=%3Cscript%3Ealert".to_owned(),
        "/dashboard/sign-in?next=%22%3E%3Cscript%3Ealert".to_owned(),
        format!("{}?operation=%3Cscript%3Ealert&kind=%3Cb%20on", backups(id)),
    ] {
        let page = operator.get(&path).await;
        assert_eq!(page.status, StatusCode::OK, "{path}: {page:?}");
        for raw in [
            "<script>alert",
            "<b on",
            "<img",
            "</main>\u{20}",
            "\"><script",
        ] {
            assert!(!page.body.contains(raw), "{path} has {raw}");
        }
    }
    let page = operator.get(&backups(id)).await;
    // The command holds the id as one word of the shell, and as text of the page.
    let command = between(&page.body, "id=\"cf-", "</code>");
    assert!(command.contains("&#60;script&#62;alert("), "{command}");
    let quoted_twice = command.contains("&#39;\\&#39;&#39;");
    assert!(
        quoted_twice,
        "the quotes of the id are not quoted: {command}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn osb_tells_where_the_dashboard_is() {
    let broker = TestBroker::in_memory().await;
    let id = "odd id/?";
    let url = format!("{}{}", broker.url, "/dashboard/instances/odd%20id%2F%3F");
    let accepted = broker.put_instance(id, json!({})).await;
    assert_eq!(accepted.body["dashboard_url"], url);
    let again = broker.put_instance(id, json!({})).await;
    assert_eq!(again.body["dashboard_url"], url);
    broker.instance_end(id, &accepted.body).await;
    let exists = broker.put_instance(id, json!({})).await;
    assert_eq!(exists.status, StatusCode::OK);
    assert_eq!(exists.body["dashboard_url"], url);
    let fetched = answer(broker.osb(Method::GET, &instance_path(id))).await;
    assert_eq!(fetched.body["dashboard_url"], url);
    let operator = Visitor::operator(&broker).await;
    assert!(
        operator
            .is_in(url.strip_prefix(&broker.url).expect("a path"))
            .await
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn operators_find_instances() {
    let script = Script::default();
    let broker = TestBroker::in_memory_with(&[], script.surroundings()).await;
    let held = script.hold(OperationKind::Provision, "allocate");
    for i in 0..60 {
        broker
            .put_instance_in("crowd", &format!("crowd-{i}"), json!({}))
            .await;
    }
    broker
        .put_instance_in("Needle%_space", "needle", json!({}))
        .await;
    let operator = Visitor::operator(&broker).await;
    let rows = |page: &Page| page.body.matches("href=\"/dashboard/instances/").count();
    let all = operator.get("/dashboard/instances").await;
    assert_eq!(rows(&all), 50);
    assert!(all.body.contains("id=\"older\"") && !all.body.contains("id=\"newer\""));
    let rest = operator.get("/dashboard/instances?page=2").await;
    assert_eq!(rows(&rest), 11);
    assert!(!rest.body.contains("id=\"older\"") && rest.body.contains("id=\"newer\""));
    for (text, count) in [
        ("NEEDLE", 1),
        ("needle%25_SPACE", 1),
        ("%25", 1),
        ("_", 1),
        ("crowd-7", 1),
        ("org", 50),
        ("no such text", 0),
    ] {
        let found = operator
            .get(&format!("/dashboard/instances?q={text}"))
            .await;
        assert_eq!(rows(&found), count, "{text}");
    }
    drop(held);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_backup_is_taken_followed_and_downloaded() {
    let script = Script::default();
    let broker = TestBroker::start_with(&[], script.surroundings()).await;
    broker.provision("mine", json!({})).await;
    let credentials = broker.bind("mine", "key").await;
    let visitor = Visitor::with_token(&broker, &credentials).await;
    let list = backups("mine");
    let before = visitor.get(&list).await;
    assert!(!before.body.contains("data-under-way"));
    assert!(before.body.contains("for 7 days") && before.body.contains("for 3 months"));
    let csrf = visitor.csrf(&list).await;
    let held = script.hold(OperationKind::Backup, "snapshot");
    let begun = visitor.post(&list, &[("csrf", &csrf)]).await;
    assert_eq!(begun.status, StatusCode::SEE_OTHER, "{begun:?}");
    let follow = begun.header("location").to_owned();
    let page = visitor.get(&follow).await;
    assert!(page.body.contains("A backup is running."), "{}", page.body);
    assert!(page.body.contains(" data-under-way>"));
    assert!(page.body.contains("id=\"backup-progress\""));
    let again = visitor.post(&list, &[("csrf", &csrf)]).await;
    let page = visitor.get(again.header("location")).await;
    assert!(
        page.body.contains("A backup is running already."),
        "{}",
        page.body
    );
    assert_eq!(page.body.matches("class=\"backup\"").count(), 1);
    drop(held);
    let page = eventually("the end of a backup", || async {
        let page = visitor.get(&follow).await;
        page.body
            .contains("The backup is complete.")
            .then_some(page)
    })
    .await;
    assert!(page.body.contains("data-state=\"complete\""));
    let id = between(&page.body, "id=\"backup-", "\"");
    let link = visitor.get(&format!("{list}/{id}/download")).await;
    assert_eq!(link.status, StatusCode::SEE_OTHER);
    let url = link.header("location");
    let file = visitor.http.get(url).send().await.expect("a file");
    assert_eq!(file.status(), StatusCode::OK);
    assert!(
        file.bytes()
            .await
            .expect("bytes")
            .starts_with(&[0x1f, 0x8b])
    );
    // What fails is told with its reason, and cannot be restored.
    let _failing = script.fail(OperationKind::Backup, "snapshot");
    let begun = visitor.post(&list, &[("csrf", &csrf)]).await;
    let follow = begun.header("location").to_owned();
    let page = eventually("a failed backup", || async {
        let page = visitor.get(&follow).await;
        page.body.contains("The backup failed: ").then_some(page)
    })
    .await;
    assert!(page.body.contains("data-state=\"failed\""));
    assert_eq!(page.body.matches("class=\"restore\"").count(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_restore_is_begun_followed_and_opened() {
    let broker = TestBroker::start().await;
    broker
        .provision("mine", json!({ "db_version": "3.4.23" }))
        .await;
    broker.provision("foreign", json!({})).await;
    let credentials = broker.bind("mine", "key").await;
    let backup = broker.back_up(&credentials).await;
    let id = text(&backup["id"]);
    let visitor = Visitor::with_token(&broker, &credentials).await;
    let list = backups("mine");
    let page = visitor.get(&list).await;
    let form = between(&page.body, "class=\"restore\"", "</form>");
    assert!(form.contains("value=\"etcd-restore-20"), "{form}");
    for (version, faults) in [
        ("3.4.23", " ("),
        ("3.6.16", " (1 known fault)<"),
        ("3.7.3", "<"),
    ] {
        assert!(form.contains(&format!(">{version}{faults}")), "{form}");
    }
    assert!(!form.contains("3.3.25"), "older than the backup: {form}");
    let csrf = visitor.csrf(&list).await;
    let restore = format!("{list}/{id}/restore");
    let form = |name: &'static str, version: &'static str| {
        [
            ("csrf", csrf.clone()),
            ("name", name.into()),
            ("version", version.into()),
        ]
    };
    for (name, version, status) in [
        ("two words", "3.6.16", StatusCode::BAD_REQUEST),
        ("copy", "3.3.25", StatusCode::BAD_REQUEST),
        ("copy", "3.6.16", StatusCode::SEE_OTHER),
        ("copy", "3.7.3", StatusCode::CONFLICT),
    ] {
        let fields = form(name, version);
        let fields = fields
            .each_ref()
            .map(|(name, value)| (*name, value.as_str()));
        let page = visitor.post(&restore, &fields).await;
        assert_eq!(page.status, status, "{name} {version}: {page:?}");
        if status != StatusCode::SEE_OTHER {
            continue;
        }
        let follow = page.header("location").to_owned();
        let page = visitor.get(&follow).await;
        assert!(
            page.body.contains(" is being made from the backup."),
            "{}",
            page.body
        );
        let page = eventually("the end of a restore", || async {
            let page = visitor.get(&follow).await;
            page.body.contains("The restore succeeded").then_some(page)
        })
        .await;
        let link = between(&page.body, "id=\"message\">", "</p>");
        let href = between(link, "href=\"", "\"");
        // Users of its source may open its page, which tells how to reach it.
        let restored = visitor.get(href).await;
        assert_eq!(restored.status, StatusCode::OK);
        assert!(restored.body.contains("etcd (3.6.16)") && restored.body.contains("id=\"reach\""));
        let other = broker.bind("foreign", "key").await;
        let foreign = Visitor::with_token(&broker, &other).await;
        assert_eq!(foreign.get(href).await.status, StatusCode::NOT_FOUND);
    }
    let source = visitor.get(&overview("mine")).await;
    assert!(between(&source.body, "id=\"restored\"", "</section>").contains("copy"));
    assert!(source.body.contains("Newer version available: 3.7.3"));
}

#[tokio::test(flavor = "multi_thread")]
async fn an_instance_that_is_not_ready_has_a_page_too() {
    let script = Script::default();
    let broker = TestBroker::start_with(&[], script.surroundings()).await;
    let held = script.hold(OperationKind::Provision, "allocate");
    let accepted = broker.put_instance("young", json!({})).await;
    let operator = Visitor::operator(&broker).await;
    let page = operator.get(&overview("young")).await;
    assert!(page.body.contains("Changing") && page.body.contains("id=\"progress\""));
    assert!(page.body.contains(" data-under-way>"));
    let page = operator.get(&backups("young")).await;
    assert!(page.body.contains("id=\"no-backup\"") && page.body.contains(" disabled"));
    let csrf = operator.csrf(&backups("young")).await;
    let refused = operator.post(&backups("young"), &[("csrf", &csrf)]).await;
    assert_eq!(refused.status, StatusCode::CONFLICT);
    drop(held);
    broker.instance_end("young", &accepted.body).await;
    // The first page knows the members by name, also when nobody has looked at them.
    let page = operator.get(&overview("young")).await;
    assert!(page.body.contains("id=\"member-m2\""), "{}", page.body);
    let page = eventually("members that were looked at", || async {
        let page = operator.get(&overview("young")).await;
        page.body.contains("leader").then_some(page)
    })
    .await;
    assert!(
        page.body.contains("leader") && page.body.contains("<meter"),
        "{}",
        page.body
    );
    assert!(page.body.contains("USER:PASSWORD@127.0.0.1"));

    let failing = script.fail(OperationKind::Provision, "start");
    let accepted = broker.put_instance("failed", json!({})).await;
    broker.instance_end("failed", &accepted.body).await;
    drop(failing);
    let page = operator.get(&overview("failed")).await;
    assert!(
        page.body.contains("Its creation failed at "),
        "{}",
        page.body
    );
    let held = script.hold(OperationKind::Deprovision, "destroy");
    broker.delete_instance("failed").await;
    let page = operator.get(&overview("failed")).await;
    assert!(page.body.contains("Deleting"), "{}", page.body);
    drop(held);
}

/// A platform's deletion may be waiting for the protection to be lifted.
#[tokio::test(flavor = "multi_thread")]
async fn an_instance_is_protected_at_once_and_given_up_only_by_who_knows_what_waits() {
    let broker = TestBroker::start().await;
    broker.provision("i", json!({})).await;
    let credentials = broker.bind("i", "b").await;
    let browser = Visitor::with_token(&broker, &credentials).await;
    let settings = format!("{}/settings", overview("i"));
    let path = &format!("{settings}/protection");
    let csrf = browser.csrf(&settings).await;
    let form = async |fields: &[(&str, &str)]| {
        let fields = [&[("csrf", csrf.as_str())], fields].concat();
        browser.post(path, &fields).await
    };
    let refused = browser.post(path, &[("protect", "yes")]).await;
    assert_eq!(refused.status, StatusCode::FORBIDDEN);
    let protected = form(&[("protect", "yes")]).await;
    assert_eq!(
        protected.status,
        StatusCode::SEE_OTHER,
        "{}",
        protected.body
    );
    let page = browser.get(&settings).await.body;
    assert!(
        page.contains("a platform may be waiting to delete it"),
        "{page}"
    );
    let deletion = broker.delete_instance("i").await;
    assert_eq!(deletion.status, StatusCode::UNPROCESSABLE_ENTITY);
    for unsure in [
        &[("protect", "no")][..],
        &[("protect", "no"), ("sure", "")],
        &[],
    ] {
        let refused = form(unsure).await;
        assert_eq!(refused.status, StatusCode::BAD_REQUEST, "{unsure:?}");
    }
    let deletion = broker.delete_instance("i").await;
    assert_eq!(deletion.status, StatusCode::UNPROCESSABLE_ENTITY);
    let lifted = form(&[("protect", "no"), ("sure", "yes")]).await;
    assert_eq!(lifted.status, StatusCode::SEE_OTHER, "{}", lifted.body);
    assert_eq!(broker.unbind("i", "b").await.status, StatusCode::OK);
    broker.deprovision("i").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_audit_knows_who_was_signed_in() {
    let broker = TestBroker::in_memory().await;
    broker.provision("i", json!({})).await;
    let credentials = broker.bind("i", "b").await;
    let path = backups("i");
    for visitor in [
        Visitor::with_token(&broker, &credentials).await,
        Visitor::operator(&broker).await,
    ] {
        let csrf = visitor.csrf(&path).await;
        let asked = visitor.post(&path, &[("csrf", &csrf)]).await;
        assert_eq!(asked.status, StatusCode::SEE_OTHER, "{asked:?}");
        Inside::of(&broker).idle("i").await;
    }
    let told = answer(broker.osb(Method::GET, "/operator/audit?instance=i")).await;
    let told = told.body["entries"].as_array().expect("entries").clone();
    let of_dashboard = told.iter().filter(|e| e["origin"] == "dashboard");
    let seen: Vec<Value> = of_dashboard
        .map(|e| json!([e["action"], e["platform"], e["user"]]))
        .collect();
    let expected = json!([
        ["backup", "dashboard", "operator"],
        ["backup", "dashboard", "binding b"],
        ["sign_in", "dashboard", "binding b"],
    ]);
    assert_eq!(json!(seen), expected);
}
