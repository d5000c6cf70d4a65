//! Alerts that the operator's webhook is told: signed, each change once and in order, though the receiver
//! falls and the broker ends between sending and noting.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex},
    time::Duration,
};

use base64::{Engine as _, engine::general_purpose::STANDARD as BASE64};
use compose_broker::model::{
    limits::{
        BACKUP_FAILURES_TELLING, BACKUP_LATE_AFTER, SCHEDULE_RETRY_FIRST, SCHEDULE_RETRY_MAX,
    },
    message::{Threshold, Webhook},
    operation::OperationKind,
    secret::Secret,
};
use reqwest::{Method, StatusCode};
use ring::hmac;
use serde_json::{Value, json};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpListener, TcpStream},
    time::sleep,
};

use crate::{
    alerts::failed_backups,
    broker::{TestBroker, eventually, text},
    control::{Script, TestClock, surroundings},
    dashboard::Visit,
    inside::Inside,
    pages::Visitor,
    process::{assert_one_line, refused, settings},
    user::User,
};

/// The secret of now, and the one of before.
const SECRETS: [&str; 2] = [
    "dGhlIG5ld2VzdCBvZiBhbGwgc2VjcmV0cw==",
    "YW4gb2xkZXIgb25lLCBzdGlsbCBnb29k",
];
/// In the address, as receivers of some services have it.
const HIDDEN: &str = "T0K3N-of-the-path";

/// What the receiver does with a message.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Mood {
    Takes,
    Fails,
    Redirects,
    Hangs,
    Closes,
}

/// A message as it came, and what was done with it.
#[derive(Debug, Clone)]
struct Came {
    mood: Mood,
    id: String,
    timestamp: i64,
    body: Value,
}

/// Who is told of alerts.
#[derive(Clone)]
struct Receiver {
    port: u16,
    mood: Arc<Mutex<Mood>>,
    came: Arc<Mutex<Vec<Came>>>,
}

impl Receiver {
    async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let receiver = Self {
            port: listener.local_addr().expect("an address").port(),
            mood: Arc::new(Mutex::new(Mood::Fails)),
            came: Arc::default(),
        };
        let inner = receiver.clone();
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let receiver = inner.clone();
                tokio::spawn(async move { receiver.serve(stream).await });
            }
        });
        receiver
    }

    fn webhook(&self) -> Webhook {
        let url = format!("http://127.0.0.1:{}/hooks/{HIDDEN}", self.port);
        Webhook {
            url: url.parse().expect("an address"),
            secrets: SECRETS.map(Secret::new).to_vec(),
            ca: None,
            threshold: Threshold::Warning,
        }
    }

    fn is_in(&self, mood: Mood) {
        *self.mood.lock().expect("a mood") = mood;
    }

    /// Reads one request, checks who sent it, and does as the mood is.
    async fn serve(self, mut stream: TcpStream) {
        let mut read = Vec::new();
        let (head, length) = loop {
            if stream.read_buf(&mut read).await.unwrap_or(0) == 0 {
                return;
            }
            let all = String::from_utf8_lossy(&read).into_owned();
            if let Some((head, _)) = all.split_once("\r\n\r\n") {
                let lines = head
                    .lines()
                    .skip(1)
                    .filter_map(|line| line.split_once(": "));
                let headers: BTreeMap<String, String> = lines
                    .map(|(name, value)| (name.to_lowercase(), value.to_owned()))
                    .collect();
                let length: usize = headers["content-length"].parse().expect("a number");
                if read.len() >= head.len() + 4 + length {
                    assert!(head.starts_with(&format!("POST /hooks/{HIDDEN} HTTP/1.1")));
                    break (headers, head.len() + 4);
                }
            }
        };
        let body = String::from_utf8(read.split_off(length)).expect("a text");
        let mood = *self.mood.lock().expect("a mood");
        let came = Came {
            mood,
            id: head["webhook-id"].clone(),
            timestamp: head["webhook-timestamp"].parse().expect("a number"),
            body: serde_json::from_str(&body).expect("JSON"),
        };
        let signed = format!("{}.{}.{body}", came.id, came.timestamp);
        let signatures: Vec<&str> = head["webhook-signature"].split(' ').collect();
        assert_eq!(signatures.len(), SECRETS.len());
        for (secret, signature) in SECRETS.iter().zip(signatures) {
            let key = BASE64.decode(secret).expect("base64");
            let key = hmac::Key::new(hmac::HMAC_SHA256, &key);
            let signature = signature.strip_prefix("v1,").expect("a version");
            let signature = BASE64.decode(signature).expect("base64");
            hmac::verify(&key, signed.as_bytes(), &signature).expect("a good signature");
        }
        self.came.lock().expect("what came").push(came);
        let answer = match mood {
            Mood::Closes => return,
            Mood::Hangs => {
                sleep(Duration::from_secs(3600)).await;
                return;
            }
            Mood::Takes => "204 No Content\r\n".to_owned(),
            Mood::Fails => "500 Internal Server Error\r\ncontent-length: 0\r\n".to_owned(),
            Mood::Redirects => format!(
                "307 Temporary Redirect\r\ncontent-length: 0\r\nlocation: http://127.0.0.1:{}/else\r\n",
                self.port
            ),
        };
        let answer = format!("HTTP/1.1 {answer}\r\n");
        // The broker may have gone.
        let _ = stream.write_all(answer.as_bytes()).await;
    }

    /// What came about scheduled backups.
    fn of_backups(&self) -> Vec<Came> {
        let came = self.came.lock().expect("what came");
        let of_backup = |came: &&Came| came.body["data"]["alert"]["about"] == "backup";
        came.iter().filter(of_backup).cloned().collect()
    }

    /// Waits until one came of this type that was treated so.
    async fn heard(&self, kind: &str, mood: Mood) -> Came {
        eventually(&format!("{kind}, {mood:?}"), || async {
            let mut came = self.of_backups().into_iter();
            came.find(|came| came.body["type"] == kind && came.mood == mood)
        })
        .await
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn each_change_of_an_alert_is_told_once_and_in_order_whatever_becomes_of_both_sides() {
    let (clock, script) = (TestClock::default(), Script::default());
    let surroundings = || script.surroundings_at(&clock);
    let mut broker = TestBroker::in_memory_with(&[], surroundings()).await;
    broker.provision("i", json!({})).await;
    let receiver = Receiver::start().await;
    broker.stop().await;
    // Nobody is told where there is no webhook, and nothing waits for one.
    let inside = Inside::of(&broker);
    assert_eq!(inside.messages().await, 0);
    broker.webhook = Some(receiver.webhook());
    broker.start_again(surroundings()).await;
    let failing = script.fail(OperationKind::Backup, "snapshot");
    clock.set(inside.next_scheduled("i").await.expect("a schedule"));
    for times in 1..=BACKUP_FAILURES_TELLING {
        if times > 1 {
            clock.forward(SCHEDULE_RETRY_FIRST * 2u32.pow(times));
        }
        failed_backups(&inside, times).await;
    }
    for mood in [Mood::Fails, Mood::Redirects, Mood::Closes, Mood::Takes] {
        receiver.is_in(mood);
        receiver.heard("alert.opened", mood).await;
    }
    // What is sent when the broker ends is sent again.
    receiver.is_in(Mood::Hangs);
    clock.forward(BACKUP_LATE_AFTER);
    receiver.heard("alert.changed", Mood::Hangs).await;
    broker.stop().await;
    assert!(inside.messages().await > 0);
    receiver.is_in(Mood::Takes);
    broker.start_again(surroundings()).await;
    receiver.heard("alert.changed", Mood::Takes).await;
    drop(failing);
    clock.forward(SCHEDULE_RETRY_MAX);
    receiver.heard("alert.ended", Mood::Takes).await;
    eventually("an empty outbox", || async {
        (inside.messages().await == 0).then_some(())
    })
    .await;

    let all = receiver.of_backups();
    let told: Vec<_> = all
        .iter()
        .filter(|came| came.mood == Mood::Takes)
        .map(|came| {
            let alert = &came.body["data"]["alert"];
            (
                text(&came.body["type"]).to_owned(),
                alert["severity"].clone(),
                alert["previous_severity"].clone(),
            )
        })
        .collect();
    let expected = [
        ("alert.opened", json!("warning"), Value::Null),
        ("alert.changed", json!("critical"), json!("warning")),
        ("alert.ended", json!("critical"), Value::Null),
    ];
    assert_eq!(
        told,
        expected.map(|(kind, is, was)| (kind.to_owned(), is, was))
    );
    // The receiver knows each again by its id, and knows when it was signed.
    let ids: BTreeMap<String, Vec<&Came>> = all.iter().fold(BTreeMap::new(), |mut ids, came| {
        ids.entry(came.id.clone()).or_default().push(came);
        ids
    });
    assert_eq!(ids.len(), 3);
    for (id, tries) in ids {
        assert!(
            tries
                .iter()
                .all(|came| came.body == tries[0].body && came.body["id"] == *id)
        );
        assert!(tries.is_sorted_by_key(|came| came.timestamp));
    }
    assert!(
        all.iter()
            .all(|came| came.body["data"]["instance"]["id"] == "i")
    );

    let page = broker.osb(Method::GET, "/metrics").send().await;
    let page = page.expect("an answer").text().await.expect("a text");
    let waiting = "compose_broker_webhook_messages_waiting 0";
    assert!(page.lines().any(|line| line == waiting), "{page}");
    assert!(
        !page.contains("compose_broker_webhook_messages_sent_total 0\n"),
        "{page}"
    );
    assert!(
        page.contains("compose_broker_webhook_messages_given_up_total 0\n"),
        "{page}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn an_operator_tries_the_webhook_out() {
    let mut broker = TestBroker::in_memory().await;
    let user = User::of_broker(&broker);
    let none = user.run(&["test-webhook"]).await;
    none.must_say(1, "alerts go to no webhook: set COMPOSE_BROKER_WEBHOOK_URL");
    let receiver = Receiver::start().await;
    broker.stop().await;
    broker.webhook = Some(receiver.webhook());
    broker.start_again(surroundings()).await;
    let user = User::of_broker(&broker);
    let place = format!("http://127.0.0.1:{}", receiver.port);
    receiver.is_in(Mood::Takes);
    let taken = user.does(&["test-webhook"]).await.out;
    assert!(taken.starts_with(&format!("{place} took the test message ")));
    let came = receiver.came.lock().expect("what came").pop();
    let came = came.expect("a message");
    assert_eq!(came.body["type"], "test");
    assert!(taken.contains(&came.id), "{taken}");
    assert_eq!(came.body["data"]["broker"], broker.url);
    receiver.is_in(Mood::Fails);
    let refused = user.run(&["test-webhook"]).await;
    refused.must_say(
        1,
        "did not take the test message: it answered with status 500",
    );
    assert!(!refused.err.contains(HIDDEN), "{refused:?}");
}

/// The same from the page of clusters, which says too what waits.
#[tokio::test(flavor = "multi_thread")]
async fn an_operator_tries_the_webhook_out_from_a_page() {
    let mut broker = TestBroker::in_memory().await;
    {
        let visitor = Visitor::operator(&broker).await;
        let page = visitor.get("/dashboard/clusters").await;
        assert!(page.body.contains("To no webhook"), "{}", page.body);
        assert!(!page.body.contains("id=\"test-webhook\""));
        let csrf = visitor.csrf("/dashboard/clusters").await;
        let form = [("csrf", csrf.as_str())];
        let none = visitor.post("/dashboard/webhook/test", &form).await;
        assert_eq!(none.status, StatusCode::CONFLICT, "{none:?}");
        assert!(none.body.contains("COMPOSE_BROKER_WEBHOOK_URL"));
    }
    let receiver = Receiver::start().await;
    broker.stop().await;
    broker.webhook = Some(receiver.webhook());
    broker.start_again(surroundings()).await;
    let place = format!("http://127.0.0.1:{}", receiver.port);

    let visit = Visit::to(broker).await;
    let page = &visit.page;
    visit.sign_in_as_operator().await;
    page.click("link", "Clusters").await;
    page.says("#webhook", &place).await;
    page.says("#waiting", "No message waits.").await;
    page.look_over("operator-webhook").await;
    receiver.is_in(Mood::Takes);
    page.click("button", "Send a test message").await;
    page.says("#taken", "took the test message").await;
    let came = receiver.came.lock().expect("what came").pop();
    let came = came.expect("a message");
    assert_eq!(came.body["type"], "test");
    assert_eq!(page.text_of("#message-id").await, came.id);
    receiver.is_in(Mood::Fails);
    page.click("button", "Send another one").await;
    page.says("#refused", "it answered with status 500").await;
    page.look_over("operator-webhook-refused").await;
    assert!(!page.text_of("main").await.contains(HIDDEN));
    page.check(&visit.broker.url).await;
    page.click("link", "Back to clusters").await;
    page.arrives_at("/dashboard/clusters").await;

    // Who only reads sees where alerts go, and sends nothing.
    page.forget_cookies().await;
    visit.sign_in_as_reader().await;
    page.click("link", "Clusters").await;
    page.says("#webhook", &place).await;
    assert!(page.all("#test-webhook").await.is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_webhook_that_cannot_be_used_is_told_without_its_secrets() {
    let folder = tempfile::tempdir().expect("a folder");
    let good = ("WEBHOOK_SECRET", SECRETS[0]);
    for (wrong, given) in [
        ("WEBHOOK_URL", [("WEBHOOK_URL", "hidden"), good]),
        ("WEBHOOK_URL", [("WEBHOOK_URL", "ftp://host/hidden"), good]),
        (
            "WEBHOOK_URL",
            [("WEBHOOK_URL", "http://192.0.2.1/hidden"), good],
        ),
        (
            "WEBHOOK_URL",
            [("WEBHOOK_URL", "https://me:hidden@host/"), good],
        ),
        ("WEBHOOK_URL", [("WEBHOOK_SEVERITY", "critical"), good]),
        (
            "WEBHOOK_SECRET",
            [
                ("WEBHOOK_URL", "https://host/hidden"),
                ("WEBHOOK_SECRET", "hidden"),
            ],
        ),
        (
            "WEBHOOK_SECRET",
            [
                ("WEBHOOK_URL", "https://host/hidden"),
                ("WEBHOOK_SEVERITY", "notice"),
            ],
        ),
        ("WEBHOOK_SEVERITY", [("WEBHOOK_SEVERITY", "loud"), good]),
        ("WEBHOOK_HTTP", [("WEBHOOK_HTTP", "never"), good]),
    ] {
        let mut settings = settings(folder.path());
        settings.extend(given.map(|(name, value)| (name, value.to_owned())));
        let refused = refused(&settings).await;
        assert_one_line(&refused, &format!("COMPOSE_BROKER_{wrong}"));
    }
}
