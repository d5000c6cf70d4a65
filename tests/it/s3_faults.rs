//! What a store in a bucket makes of a server, and of a network, that are not as they should be: a real server
//! behind a proxy that breaks what it is told to.

use std::sync::{Arc, Mutex};

use bytes::Bytes;
use compose_broker::backups::{
    BackupStoreError, ObjectName,
    s3::{CredentialSource, LockMode, S3Settings, S3Store},
    store::{BackupStore as _, StorePlace as _},
};
use compose_broker::model::{ids::FolderMark, secret::Secret};
use futures::{StreamExt as _, TryStreamExt as _, stream};
use reqwest::Method;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpListener, TcpStream},
    task::JoinHandle,
};

use crate::{
    broker::eventually,
    s3::{Server, marker},
    skipped::skipped,
};

/// What befalls a request.
#[derive(Debug, Clone, Copy)]
enum Fault {
    /// It is answered with this status and S3's word for it, and never comes to the server.
    Answer(u16, &'static str),
    /// The answer breaks off after so many bytes of its body.
    Cut(usize),
    /// The server does it, and the answer is lost.
    LoseAnswer,
    /// Another byte than the last one comes to the server.
    Spoil,
    /// The answer comes in pieces of so many bytes, one after the other.
    Trickle(usize),
}

/// Requests of which these texts are part, in line and headers, the next so many times.
struct Rule {
    of: Vec<&'static str>,
    fault: Fault,
    times: usize,
}

/// Stands between a store and a server, one request for each connection.
struct Proxy {
    endpoint: String,
    rules: Arc<Mutex<Vec<Rule>>>,
    /// Lines and headers of what came.
    heard: Arc<Mutex<Vec<String>>>,
    serving: JoinHandle<()>,
}

impl Proxy {
    async fn before(server: &Server) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let address = listener.local_addr().expect("an address");
        let upstream = server.endpoint().strip_prefix("http://").expect("no TLS");
        let upstream = upstream.to_owned();
        let rules: Arc<Mutex<Vec<Rule>>> = Arc::default();
        let heard: Arc<Mutex<Vec<String>>> = Arc::default();
        let (of_requests, to_tell) = (rules.clone(), heard.clone());
        let serving = tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let passing = pass(
                    stream,
                    upstream.clone(),
                    of_requests.clone(),
                    to_tell.clone(),
                );
                tokio::spawn(passing);
            }
        });
        Self {
            endpoint: format!("http://{address}"),
            rules,
            heard,
            serving,
        }
    }

    /// Breaks the next so many requests of which these texts are part.
    fn break_next(&self, times: usize, of: &[&'static str], fault: Fault) {
        let of = of.to_vec();
        let rule = Rule { of, fault, times };
        self.rules.lock().expect("rules").push(rule);
    }

    /// How often the requests still to be broken were not sent; the rules are gone then.
    fn left(&self) -> usize {
        let rules = std::mem::take(&mut *self.rules.lock().expect("rules"));
        rules.iter().map(|rule| rule.times).sum()
    }

    fn heard(&self, of: &[&str]) -> Vec<String> {
        let heard = self.heard.lock().expect("requests");
        let is_of = |head: &&String| of.iter().all(|part| head.contains(part));
        heard.iter().filter(is_of).cloned().collect()
    }

    /// The store, with a marker, through the proxy.
    async fn store(&self, server: &Server, change: impl FnOnce(&mut S3Settings)) -> S3Store {
        let through = |settings: &mut S3Settings| {
            settings.endpoint = Some(self.endpoint.parse().expect("a URL"));
            settings.part_bytes = PART;
            change(settings);
        };
        server.store(through).await
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.serving.abort();
    }
}

/// One request and its answer.
async fn pass(
    mut client: TcpStream,
    upstream: String,
    rules: Arc<Mutex<Vec<Rule>>>,
    heard: Arc<Mutex<Vec<String>>>,
) -> Option<()> {
    let mut request = Vec::new();
    let head = loop {
        client
            .read_buf(&mut request)
            .await
            .ok()
            .filter(|n| *n > 0)?;
        if let Some(at) = request.windows(4).position(|four| four == b"\r\n\r\n") {
            break at + 4;
        }
    };
    let text = String::from_utf8_lossy(&request[..head]).to_lowercase();
    let length = text.split("content-length: ").nth(1);
    let length = length.and_then(|rest| rest.split("\r\n").next()?.parse().ok());
    let whole = head + length.unwrap_or(0_usize);
    while request.len() < whole {
        client
            .read_buf(&mut request)
            .await
            .ok()
            .filter(|n| *n > 0)?;
    }
    let shown = String::from_utf8_lossy(&request[..head]).into_owned();
    heard.lock().expect("requests").push(shown.clone());
    let fault = {
        let mut rules = rules.lock().expect("rules");
        let is_of =
            |rule: &&mut Rule| rule.times > 0 && rule.of.iter().all(|part| shown.contains(part));
        rules.iter_mut().find(is_of).map(|rule| {
            rule.times -= 1;
            rule.fault
        })
    };
    if let Some(Fault::Answer(status, code)) = fault {
        let body = format!("<Error><Code>{code}</Code><Message>as the test says</Message></Error>");
        let answer = format!(
            "HTTP/1.1 {status} X\r\nConnection: close\r\nx-amz-bucket-region: eu-west-9\r\n\
             Content-Length: {}\r\n\r\n{body}",
            body.len()
        );
        return client.write_all(answer.as_bytes()).await.ok();
    }
    if let (Some(Fault::Spoil), Some(last)) = (fault, request.last_mut()) {
        *last ^= 1;
    }
    let line = request.iter().position(|byte| *byte == b'\n')? + 1;
    let mut server = TcpStream::connect(upstream).await.ok()?;
    server.write_all(&request[..line]).await.ok()?;
    server.write_all(b"Connection: close\r\n").await.ok()?;
    server.write_all(&request[line..]).await.ok()?;
    let mut answer = Vec::new();
    server.read_to_end(&mut answer).await.ok()?;
    let head = answer.windows(4).position(|four| four == b"\r\n\r\n")? + 4;
    match fault {
        Some(Fault::LoseAnswer) => Some(()),
        Some(Fault::Cut(bytes)) => {
            let end = answer.len().min(head + bytes);
            client.write_all(&answer[..end]).await.ok()
        }
        Some(Fault::Trickle(bytes)) => {
            for piece in answer.chunks(bytes) {
                client.write_all(piece).await.ok()?;
                client.flush().await.ok()?;
                tokio::task::yield_now().await;
            }
            Some(())
        }
        _ => client.write_all(&answer).await.ok(),
    }
}

const PART: usize = 5 * 1024 * 1024;

fn name(text: &str) -> ObjectName {
    ObjectName::found(text).expect("a name")
}

fn bytes(length: usize, seed: u8) -> Bytes {
    let byte = |at: usize| (at % 251) as u8 ^ (at / 65_536) as u8 ^ seed;
    (0..length).map(byte).collect()
}

async fn put(store: &S3Store, text: &str, content: &Bytes) -> Result<u64, BackupStoreError> {
    let content = stream::iter([Ok(content.clone())]).boxed();
    store.put(&name(text), content).await
}

async fn read(store: &S3Store, text: &str) -> Result<Bytes, BackupStoreError> {
    let content = store.get(&name(text), 0).await?;
    let parts: Result<Vec<Bytes>, _> = content.try_collect().await;
    let unpack = |error| BackupStoreError::unpack(error, BackupStoreError::of_source);
    Ok(parts.map_err(unpack)?.concat().into())
}

async fn list(store: &S3Store) -> Vec<String> {
    let names = store.list("").map_ok(|name| name.to_string());
    names.try_collect().await.expect("listed")
}

#[tokio::test]
async fn what_may_pass_is_made_again_whatever_was_asked() {
    let Some(server) = Server::start() else {
        return;
    };
    let proxy = Proxy::before(&server).await;
    let store = proxy.store(&server, |_| ()).await;
    let (small, large) = (bytes(1000, 0), bytes(2 * PART + 7, 0));
    let busy = [
        Fault::Answer(500, "InternalError"),
        Fault::Answer(503, "SlowDown"),
        Fault::Answer(429, "TooManyRequests"),
        Fault::LoseAnswer,
    ];
    for fault in busy {
        for of in [
            &["PUT ", "/small "][..],
            &["POST ", "?uploads"],
            &["PUT ", "partNumber=2"],
            &["POST ", "uploadId="],
            &["GET ", "list-type=2"],
            &["GET ", "?uploads"],
            &["GET ", "/small "],
            &["DELETE ", "/small "],
            &["GET ", ".compose-broker.json"],
        ] {
            proxy.break_next(1, of, fault);
        }
        put(&store, "a/small", &small).await.expect("stored");
        put(&store, "a/large", &large).await.expect("stored");
        assert_eq!(list(&store).await, ["a/large", "a/small"], "{fault:?}");
        assert_eq!(read(&store, "a/small").await.expect("read"), small);
        assert_eq!(read(&store, "a/large").await.expect("read"), large);
        store.delete(&name("a/small")).await.expect("deleted");
        assert_eq!(proxy.left(), 0, "{fault:?}");
        store.delete(&name("a/large")).await.expect("deleted");
        assert_eq!(list(&store).await, [""; 0], "{fault:?}");
    }
    // What was changed on its way is refused by the server, and sent once more.
    for of in [&["PUT ", "/small "][..], &["PUT ", "partNumber=1"]] {
        proxy.break_next(1, of, Fault::Spoil);
    }
    put(&store, "a/small", &small).await.expect("stored");
    put(&store, "a/large", &large).await.expect("stored");
    assert_eq!(proxy.left(), 0);
    assert_eq!(read(&store, "a/small").await.expect("read"), small);
    assert_eq!(read(&store, "a/large").await.expect("read"), large);
}

#[tokio::test]
async fn a_read_that_breaks_goes_on_from_where_it_broke() {
    let Some(server) = Server::start() else {
        return;
    };
    let proxy = Proxy::before(&server).await;
    let store = proxy.store(&server, |_| ()).await;
    let content = bytes(900_000, 0);
    put(&store, "a", &content).await.expect("stored");
    proxy.break_next(4, &["GET ", "/a "], Fault::Cut(150_000));
    assert_eq!(read(&store, "a").await.expect("read"), content);
    assert_eq!(proxy.left(), 0);
    let asked = proxy.heard(&["GET ", "/a "]);
    let from = |head: &String| {
        let head = head.to_lowercase();
        let range = head.split("range: bytes=").nth(1)?.split('-').next()?;
        range.parse::<u64>().ok()
    };
    let from: Vec<_> = asked.iter().map(from).collect();
    assert_eq!(
        from,
        [
            None,
            Some(150_000),
            Some(300_000),
            Some(450_000),
            Some(600_000)
        ]
    );
    proxy.break_next(1, &["GET ", "/a "], Fault::Trickle(7001));
    assert_eq!(read(&store, "a").await.expect("read"), content);

    // Not from another object that took its place.
    proxy.break_next(1, &["GET ", "/a "], Fault::Cut(150_000));
    let mut reading = store.get(&name("a"), 0).await.expect("opened");
    let mut passed = 0;
    while passed < 100_000 {
        passed += reading
            .try_next()
            .await
            .expect("read")
            .expect("bytes")
            .len();
    }
    put(&store, "a", &bytes(900_000, 9)).await.expect("stored");
    let rest: Result<Vec<Bytes>, _> = reading.try_collect().await;
    let told = rest.expect_err("other bytes").to_string();
    assert!(told.contains("412"), "{told}");
}

#[tokio::test]
async fn an_upload_that_comes_to_nothing_leaves_nothing() {
    let Some(server) = Server::start() else {
        return;
    };
    let proxy = Proxy::before(&server).await;
    let store = proxy.store(&server, |_| ()).await;
    let large = bytes(2 * PART + 7, 0);
    proxy.break_next(
        1,
        &["PUT ", "partNumber=2"],
        Fault::Answer(403, "AccessDenied"),
    );
    let refused = put(&store, "a/b", &large).await.expect_err("refused");
    assert!(refused.to_string().contains("may not do that"), "{refused}");
    assert_eq!(list(&store).await, [""; 0]);

    // One whose end is refused is none, either.
    proxy.break_next(
        1,
        &["POST ", "uploadId="],
        Fault::Answer(400, "InvalidPart"),
    );
    put(&store, "a/b", &large).await.expect_err("refused");
    assert_eq!(list(&store).await, [""; 0]);

    // One that nobody waits for any more is ended beside.
    let halting = stream::iter([Ok(large.slice(..PART)), Ok(large.slice(PART..))]);
    let halting = halting.chain(stream::pending()).boxed();
    let object = name("a/b");
    let heard_before = proxy.heard(&["PUT ", "partNumber=2"]).len();
    let is_sent =
        || async { (proxy.heard(&["PUT ", "partNumber=2"]).len() > heard_before).then_some(()) };
    tokio::select! {
        ended = store.put(&object, halting) => panic!("{ended:?}"),
        () = eventually("a part that is sent", is_sent) => {}
    }
    eventually("an upload that is ended", || async {
        list(&store).await.is_empty().then_some(())
    })
    .await;
}

/// A store whose requests are not made again for long.
fn impatient(server: &Server, change: impl FnOnce(&mut S3Settings)) -> S3Store {
    let mut settings = server.settings();
    settings.patience_seconds = 1;
    change(&mut settings);
    S3Store::at(&server.address(), settings).expect("a store")
}

#[tokio::test]
async fn what_is_wrong_is_told_with_what_to_do() {
    let Some(server) = Server::start() else {
        return;
    };
    let proxy = Proxy::before(&server).await;
    let through = |settings: &mut S3Settings| {
        settings.endpoint = Some(proxy.endpoint.parse().expect("a URL"));
    };
    let store = impatient(&server, through);
    let told = |error: BackupStoreError| {
        let told = error.to_string();
        assert!(
            !told.contains("hidden") && told.lines().count() == 1,
            "{told}"
        );
        told
    };
    for (status, code, why, advice, may_pass) in [
        (
            403,
            "SignatureDoesNotMatch",
            "does not accept the signature",
            "the secret key",
            false,
        ),
        (
            403,
            "InvalidAccessKeyId",
            "does not know the access key",
            "correct its id",
            false,
        ),
        (400, "ExpiredToken", "have expired", "give new ones", false),
        (
            403,
            "RequestTimeTooSkewed",
            "the clocks of this machine",
            "NTP",
            false,
        ),
        (
            403,
            "AccessDenied",
            "may not do that",
            "docs/operating/backups.md",
            false,
        ),
        (
            301,
            "PermanentRedirect",
            "region eu-west-9",
            "COMPOSE_BROKER_S3_REGION",
            false,
        ),
        (
            501,
            "NotImplemented",
            "cannot do that",
            "COMPOSE_BROKER_S3_CHECKSUMS=none",
            false,
        ),
        (
            503,
            "SlowDown",
            "too busy",
            "COMPOSE_BROKER_S3_PARTS_AT_ONCE",
            true,
        ),
        (500, "InternalError", "500", "log", true),
    ] {
        proxy.break_next(usize::MAX, &["PUT "], Fault::Answer(status, code));
        let error = put(&store, "a", &bytes(10, 0)).await.expect_err("refused");
        assert_eq!(error.may_pass(), may_pass, "{error}");
        let told = told(error);
        assert!(told.contains(why) && told.contains(advice), "{told}");
        assert!(told.contains("cannot store a in s3://"), "{told}");
        proxy.rules.lock().expect("rules").clear();
    }
    for code in ["InsufficientStorage", "QuotaExceeded"] {
        proxy.break_next(1, &["PUT "], Fault::Answer(507, code));
        let full = put(&store, "a", &bytes(10, 0)).await;
        let is_full = matches!(
            full,
            Err(BackupStoreError::Full {
                needed: 10,
                free: None
            })
        );
        assert!(is_full, "{full:?}");
    }

    // By the real server.
    let keys = |id: &str, secret: &str| CredentialSource::Keys {
        id: id.to_owned(),
        secret: Secret::new(secret),
        token: None,
    };
    let wrong = impatient(&server, |s3| {
        s3.credentials = keys(server.key_id(), "hidden, and wrong")
    });
    let wrong = told(wrong.make().await.expect_err("refused"));
    assert!(
        wrong.contains("signature") && wrong.contains("the secret key"),
        "{wrong}"
    );
    let unknown = impatient(&server, |s3| s3.credentials = keys("nobody", "hidden"));
    let unknown = told(unknown.make().await.expect_err("refused"));
    assert!(unknown.contains("access key"), "{unknown}");
    let no_bucket = S3Store::at("no-such-bucket", server.settings()).expect("a store");
    let no_bucket = no_bucket.make().await.expect_err("refused");
    assert!(
        matches!(no_bucket, BackupStoreError::Absent { .. }),
        "{no_bucket:?}"
    );
    assert!(told(no_bucket).contains("no such bucket"));

    // By nobody.
    let nobody = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let address = nobody.local_addr().expect("an address");
    drop(nobody);
    let nowhere = |s3: &mut S3Settings| {
        s3.endpoint = Some(format!("http://{address}").parse().expect("a URL"));
    };
    let nowhere = impatient(&server, nowhere)
        .make()
        .await
        .expect_err("nobody");
    assert!(nowhere.may_pass(), "{nowhere:?}");
    assert!(told(nowhere).contains("cannot be reached"));
    let no_file = |s3: &mut S3Settings| {
        s3.credentials = CredentialSource::File {
            path: "/nonexistent".into(),
            profile: "default".to_owned(),
        };
    };
    let no_file = told(
        impatient(&server, no_file)
            .make()
            .await
            .expect_err("no file"),
    );
    assert!(
        no_file.contains("/nonexistent") && no_file.contains("AWS_ACCESS_KEY_ID"),
        "{no_file}"
    );
}

#[tokio::test]
async fn a_bucket_that_keeps_versions_keeps_none_of_what_is_deleted_unless_it_must() {
    let Some(server) = Server::start().filter(|server| server.bucket_folder().is_some()) else {
        return;
    };
    let proxy = Proxy::before(&server).await;
    let store = proxy.store(&server, |_| ()).await;
    let enabled = "<VersioningConfiguration xmlns=\"http://s3.amazonaws.com/doc/2006-03-01/\">\
                   <Status>Enabled</Status></VersioningConfiguration>";
    let answer = server
        .send(Method::PUT, "/backups?versioning=", enabled)
        .await;
    assert!(answer.status().is_success(), "{answer:?}");
    let versions = || async {
        let target = "/backups?prefix=of%2Fa-broker%2Fa&versions=";
        let page = server.send(Method::GET, target, "").await;
        let page = page.text().await.expect("a page");
        page.matches("<VersionId>").count()
    };
    for seed in 0..3 {
        put(&store, "a", &bytes(100, seed)).await.expect("stored");
    }
    put(&store, "ab", &bytes(100, 0)).await.expect("stored");
    assert_eq!(versions().await, 4);
    store.delete(&name("a")).await.expect("deleted");
    assert_eq!(versions().await, 1, "the neighbour's");

    // What a lock holds stays, and is no object any more.
    put(&store, "a", &bytes(100, 0)).await.expect("stored");
    proxy.break_next(
        1,
        &["DELETE ", "versionId="],
        Fault::Answer(403, "AccessDenied"),
    );
    store.delete(&name("a")).await.expect("deleted");
    assert_eq!(proxy.left(), 0);
    let gone = read(&store, "a").await;
    assert!(
        matches!(gone, Err(BackupStoreError::NotFound(_))),
        "{gone:?}"
    );
    assert_eq!(list(&store).await, ["ab"]);
}

#[tokio::test]
async fn what_is_locked_outlives_its_deletion_and_is_no_object_any_more() {
    let Some(server) = Server::start() else {
        return;
    };
    let bucket = format!("locked-{}", uuid::Uuid::new_v4().simple());
    if !server.make_locking_bucket(&bucket).await {
        skipped("object lock", "the server makes no bucket that locks");
        return;
    }
    let mut settings = server.settings();
    settings.lock = Some(LockMode::Compliance);
    let place = S3Store::at(&format!("{bucket}/b"), settings).expect("a place");
    place.make().await.expect("a bucket that locks");
    place.mark(&marker()).await.expect("marked");
    let store = place.marked(Some(marker().id));
    put(&store, "a", &bytes(100, 1)).await.expect("stored");
    let until = crate::control::now() + chrono::TimeDelta::seconds(10);
    store.lock(&name("a"), until).await.expect("locked");
    let told = server
        .send(Method::GET, &format!("/{bucket}/b/a?retention="), "")
        .await;
    let told = told.text().await.expect("a text");
    assert!(told.contains("COMPLIANCE"), "{told}");
    let day = until.format("%Y-%m-%dT%H:%M:%S").to_string();
    assert!(told.contains(&day), "{told} and {day}");
    // The same once more, and longer, is no trouble.
    let longer = until + chrono::TimeDelta::seconds(1);
    store.lock(&name("a"), longer).await.expect("locked");
    let none = store.lock(&name("none"), until).await;
    assert!(
        matches!(none, Err(BackupStoreError::NotFound(_))),
        "{none:?}"
    );

    let versions = || async {
        let page = server
            .send(
                Method::GET,
                &format!("/{bucket}?prefix=b%2Fa&versions="),
                "",
            )
            .await;
        let page = page.text().await.expect("a page");
        page.matches("<Version>").count()
    };
    store.delete(&name("a")).await.expect("deleted");
    assert_eq!(versions().await, 1, "the locked one stays");
    let gone = read(&store, "a").await;
    assert!(
        matches!(gone, Err(BackupStoreError::NotFound(_))),
        "{gone:?}"
    );
    // When its time is over, deleting it once more deletes it.
    while crate::control::now() <= longer + chrono::TimeDelta::seconds(1) {
        tokio::time::sleep(std::time::Duration::from_millis(200)).await;
    }
    store.delete(&name("a")).await.expect("deleted");
    assert_eq!(versions().await, 0);
}

#[tokio::test]
async fn a_bucket_that_locks_nothing_is_refused_where_locks_are_wanted() {
    let Some(server) = Server::start() else {
        return;
    };
    let mut settings = server.settings();
    settings.lock = Some(LockMode::Governance);
    let place = S3Store::at(&server.address(), settings).expect("a place");
    let refused = place.make().await.expect_err("no lock");
    assert!(
        refused
            .to_string()
            .contains("COMPOSE_BROKER_S3_OBJECT_LOCK"),
        "{refused}"
    );
    assert!(!refused.may_pass(), "{refused}");
}

#[tokio::test]
async fn of_two_brokers_that_begin_with_an_empty_bucket_one_has_it() {
    let Some(server) = Server::start() else {
        return;
    };
    let proxy = Proxy::before(&server).await;
    let through = |settings: &mut S3Settings| {
        settings.endpoint = Some(proxy.endpoint.parse().expect("a URL"));
    };
    let (first, second) = (impatient(&server, through), impatient(&server, |_| ()));
    for store in [&first, &second] {
        store.make().await.expect("there");
        assert_eq!(store.marker().await.expect("readable"), None);
    }
    let mut other = marker();
    other.id = "5ae85b45e5717f00015331ff".parse().expect("an id");
    // Its answer is lost, and the marker is its own all the same.
    proxy.break_next(1, &["PUT ", "-none-match"], Fault::LoseAnswer);
    first.mark(&marker()).await.expect("marked");
    assert_eq!(proxy.left(), 0);
    // The second one has looked before the first one marked it, and takes its chance.
    proxy.break_next(
        1,
        &["GET ", ".compose-broker.json"],
        Fault::Answer(404, "NoSuchKey"),
    );
    let late = impatient(&server, through).mark(&other).await;
    assert!(
        matches!(late, Err(BackupStoreError::Absent { .. })),
        "{late:?}"
    );
    assert_eq!(second.marker().await.expect("readable"), Some(marker()));
    let foreign: FolderMark = other.id.clone();
    let foreign = second.marked(Some(foreign)).check().await;
    assert!(
        matches!(foreign, Err(BackupStoreError::Absent { .. })),
        "{foreign:?}"
    );
    assert_eq!(second.deployments().await.expect("counted"), 0);
    let object = "5ae85b45e5717f0001533192/5ae85b45e5717f00015331aa/manifest.json";
    put(&second, object, &bytes(1, 0)).await.expect("stored");
    assert_eq!(second.deployments().await.expect("counted"), 1);
    second.check().await.expect("nothing is asked of it");
}

#[tokio::test]
async fn a_machine_s_role_is_asked_for_its_credentials() {
    let Some(server) = Server::start().filter(|server| server.bucket_folder().is_some()) else {
        return;
    };
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let address = listener.local_addr().expect("an address");
    let settings = server.settings();
    let CredentialSource::Keys { id, secret, .. } = settings.credentials else {
        unreachable!("the tests' own server has keys");
    };
    let keys = serde_json::json!({
        "AccessKeyId": id,
        "SecretAccessKey": secret.expose(),
        "Token": "",
        "Expiration": "2099-01-01T00:00:00Z",
    })
    .to_string();
    let handing_out = tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            let mut request = vec![0; 4096];
            let read = stream.read(&mut request).await.unwrap_or(0);
            let request = String::from_utf8_lossy(&request[..read]).into_owned();
            let body = match request.split(' ').nth(1).unwrap_or_default() {
                "/latest/api/token" => "a token",
                path if path.ends_with("/security-credentials/") => "role",
                _ => &keys,
            };
            let answer = format!(
                "HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: {}\r\n\r\n{body}",
                body.len()
            );
            let _ = stream.write_all(answer.as_bytes()).await;
        }
    });
    let of_role = |s3: &mut S3Settings| {
        s3.credentials = CredentialSource::Machine {
            endpoint: Some(format!("http://{address}")),
        };
    };
    let store = server.store(of_role).await;
    put(&store, "a", &bytes(10, 0)).await.expect("stored");
    handing_out.abort();
    let gone = impatient(&server, of_role)
        .make()
        .await
        .expect_err("nobody hands out any");
    assert!(
        gone.to_string().contains("there are no credentials"),
        "{gone}"
    );
}
