//! The client against answers that a server was told to give.

use std::{
    net::SocketAddr,
    sync::{Arc, Mutex},
};

use k8s_openapi::api::core::v1::Secret;
use serde_json::json;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
};

use super::*;

/// What the server does with the next request.
#[derive(Clone)]
enum Answer {
    /// A status line, further headers, and a body.
    Says(&'static str, String),
    /// A list of two secrets, one at a time.
    ListsInParts,
    /// Nothing, for ever.
    Hangs,
    /// It closes the connection.
    BreaksOff,
}

/// A refusal, as the API server writes them.
pub(in super::super) fn refusal(code: u16, reason: &str, message: &str) -> String {
    json!({
        "kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure",
        "message": message, "reason": reason, "code": code,
    })
    .to_string()
}

/// A server that answers every request so, and the first lines of those that came.
async fn server(answer: Answer) -> (Client, Arc<Mutex<Vec<String>>>) {
    let requests = Arc::new(Mutex::new(Vec::new()));
    let seen = requests.clone();
    let client = served(move |connection| serve(connection, answer.clone(), seen.clone())).await;
    (client, requests)
}

/// A client of a server that serves each connection so.
pub(in super::super) async fn served<F>(serve: impl Fn(TcpStream) -> F + Send + 'static) -> Client
where
    F: Future<Output = ()> + Send + 'static,
{
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let at = listener.local_addr().expect("an address");
    tokio::spawn(async move {
        while let Ok((connection, _)) = listener.accept().await {
            tokio::spawn(serve(connection));
        }
    });
    client(at)
}

/// Answers a request; fails when nobody takes it.
pub(in super::super) async fn answer(
    connection: &mut TcpStream,
    status: &str,
    body: &str,
) -> io::Result<()> {
    let length = body.len();
    let text = format!(
        "HTTP/1.1 {status}\r\ncontent-type: application/json\r\ncontent-length: {length}\r\n\r\n{body}"
    );
    connection.write_all(text.as_bytes()).await
}

/// A client of a server of the test's own.
fn client(at: SocketAddr) -> Client {
    let config = Config::new(format!("http://{at}").parse().expect("an address"));
    let limit = Duration::from_millis(400);
    Client::new(config, "here", limit).expect("a client")
}

async fn serve(mut connection: TcpStream, answer: Answer, seen: Arc<Mutex<Vec<String>>>) {
    loop {
        let Some(head) = request(&mut connection).await else {
            return;
        };
        let first = head.lines().next().unwrap_or_default().to_owned();
        seen.lock().expect("no panic").push(first.clone());
        let (status, body) = match &answer {
            Answer::Hangs => std::future::pending().await,
            Answer::BreaksOff => return,
            Answer::Says(status, body) => (*status, body.clone()),
            Answer::ListsInParts => ("200 OK", part(first.contains("continue=the-rest"))),
        };
        if self::answer(&mut connection, status, &body).await.is_err() {
            return;
        }
    }
}

/// The first or the last part of a list of secrets.
fn part(is_last: bool) -> String {
    let (name, rest) = match is_last {
        true => ("last", ""),
        false => ("first", "the-rest"),
    };
    json!({
        "kind": "SecretList", "apiVersion": "v1",
        "metadata": { "resourceVersion": "7", "continue": rest },
        "items": [{ "metadata": { "name": name, "managedFields": [{ "manager": "somebody" }] } }],
    })
    .to_string()
}

/// The head of the next request, whose body is read too.
pub(in super::super) async fn request(connection: &mut TcpStream) -> Option<String> {
    Some(whole_request(connection).await?.0)
}

/// The next request, as its head and its body.
pub(in super::super) async fn whole_request(
    connection: &mut TcpStream,
) -> Option<(String, Vec<u8>)> {
    let mut bytes = Vec::new();
    loop {
        let end = bytes.windows(4).position(|four| four == b"\r\n\r\n");
        if let Some(end) = end {
            let head = String::from_utf8_lossy(&bytes[..end]).into_owned();
            let length = head.to_lowercase().lines().find_map(|line| {
                let length = line.strip_prefix("content-length:")?;
                length.trim().parse::<usize>().ok()
            });
            if bytes.len() >= end + 4 + length.unwrap_or_default() {
                return Some((head, bytes.split_off(end + 4)));
            }
        }
        let mut chunk = [0; 4096];
        match connection.read(&mut chunk).await {
            Ok(read @ 1..) => bytes.extend_from_slice(&chunk[..read]),
            _ => return None,
        }
    }
}

fn secret() -> Value {
    json!({
        "apiVersion": "v1", "kind": "Secret",
        "metadata": { "name": "s" }, "stringData": { "key": "SECRET" },
    })
}

#[tokio::test]
async fn what_is_not_there_is_none() {
    let body = refusal(404, "NotFound", "secrets \"s\" not found");
    let (client, requests) = server(Answer::Says("404 Not Found", body)).await;
    assert!(client.find::<Secret>("s").await.expect("none").is_none());
    let gone = client.delete::<Secret>("s", Some("uid"), None).await;
    gone.expect("gone already");
    let changed = client.change::<Secret>("s", &json!({})).await;
    assert!(changed.expect("none").is_none());
    let requests = requests.lock().expect("no panic");
    assert!(
        requests[0].starts_with("GET /api/v1/namespaces/here/secrets/s"),
        "{requests:?}"
    );
    assert_eq!(requests.len(), 3);
}

#[tokio::test]
async fn what_there_may_be_much_of_is_listed_some_at_a_time() {
    let (client, requests) = server(Answer::ListsInParts).await;
    let mut parts = Vec::new();
    let take = |some: Vec<Secret>| parts.push(some);
    let version = client.list_some_at_a_time("a=b", take).await;
    assert_eq!(version.expect("a list"), "7");
    assert_eq!(parts.iter().map(Vec::len).collect::<Vec<_>>(), [1, 1]);
    let described = client.list_meta::<Secret>("a=b").await.expect("a list");
    let names = described.iter().map(|of| of.name.as_deref());
    assert_eq!(names.collect::<Vec<_>>(), [Some("first"), Some("last")]);
    assert!(described.iter().all(|of| of.managed_fields.is_none()));
    let requests = requests.lock().expect("no panic");
    let limit = format!("limit={OBJECTS_LISTED_AT_ONCE}");
    assert!(
        requests.iter().all(|line| line.contains(&limit)),
        "{requests:?}"
    );
    assert_eq!(requests.len(), 4);
}

#[tokio::test]
async fn one_that_is_another_by_now_is_not_deleted_and_fine() {
    let body = refusal(409, "Conflict", "the UID in the precondition differs");
    let (client, _) = server(Answer::Says("409 Conflict", body)).await;
    let deleted = client.delete::<Secret>("s", Some("uid"), None).await;
    deleted.expect("another one");
}

#[tokio::test]
async fn refusals_are_told_by_code_and_reason_after_one_call() {
    for (status, code, reason) in [
        ("401 Unauthorized", 401, "Unauthorized"),
        ("403 Forbidden", 403, "Forbidden"),
        ("409 Conflict", 409, "AlreadyExists"),
        ("422 Unprocessable Entity", 422, "Invalid"),
    ] {
        let body = refusal(code, reason, "because");
        let (client, requests) = server(Answer::Says(status, body)).await;
        let error = client.apply::<Secret>(&secret()).await.expect_err(status);
        assert!(error.is(code), "{error}");
        assert_eq!(error.message(), "because");
        let error = ProvisionerError::from(error);
        let expected = format!("the cluster refuses, applying Secret s: {reason}: because");
        assert_eq!(error.to_string(), expected);
        assert_eq!(requests.lock().expect("no panic").len(), 1, "{status}");
    }
}

#[tokio::test]
async fn a_server_that_cannot_is_silent_and_asked_once() {
    for (status, code) in [
        ("429 Too Many Requests", 429),
        ("500 Internal Server Error", 500),
        ("503 Service Unavailable", 503),
        ("504 Gateway Timeout", 504),
    ] {
        let body = refusal(code, "", "later");
        let (client, requests) = server(Answer::Says(status, body)).await;
        let error = client.find::<Secret>("s").await.expect_err(status);
        assert!(matches!(error, CallError::Silent { .. }), "{error:?}");
        let error = ProvisionerError::from(error);
        assert_eq!(error.to_string(), "the cluster does not answer");
        assert_eq!(requests.lock().expect("no panic").len(), 1, "{status}");
    }
}

#[tokio::test]
async fn an_eviction_that_a_budget_forbids_is_a_refusal() {
    let body = json!({
        "kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure", "code": 429,
        "message": "Cannot evict pod as it would violate the pod's disruption budget.",
        "reason": "TooManyRequests",
        "details": { "causes": [{ "reason": "DisruptionBudget", "message": "needs 2 of 3" }] },
    });
    let (client, requests) = server(Answer::Says("429 Too Many Requests", body.to_string())).await;
    let error = client.find::<Secret>("s").await.expect_err("refused");
    assert!(error.is(429), "{error:?}");
    assert_eq!(requests.lock().expect("no panic").len(), 1);
}

#[tokio::test]
async fn nobody_is_waited_for_longer_than_a_call_may_take() {
    let (client, _) = server(Answer::Hangs).await;
    let begun = tokio::time::Instant::now();
    let error = client.list::<Secret>("a=b").await.expect_err("too slow");
    assert!(begun.elapsed() < Duration::from_secs(5));
    assert_eq!(error.message(), "does not answer within 0 s");
}

#[tokio::test]
async fn a_server_that_is_not_there_is_silent() {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let at = listener.local_addr().expect("an address");
    drop(listener);
    let config = Config::new(format!("http://{at}").parse().expect("an address"));
    let client = Client::new(config, "here", Duration::from_secs(5)).expect("a client");
    let error = client.find::<Secret>("s").await.expect_err("nobody");
    assert_eq!(error.message(), "cannot be reached: connection refused");
    let (client, _) = server(Answer::BreaksOff).await;
    let error = client.find::<Secret>("s").await.expect_err("broken off");
    assert!(matches!(error, CallError::Silent { .. }), "{error:?}");
}

#[tokio::test]
async fn something_else_than_an_api_server_is_silent_and_what_it_says_is_not_told() {
    let (client, _) = server(Answer::Says("200 OK", "<html>SECRET</html>".to_owned())).await;
    let error = client.find::<Secret>("s").await.expect_err("a page");
    assert!(matches!(error, CallError::Silent { .. }), "{error:?}");
    assert!(!format!("{error:?}").contains("SECRET"), "{error:?}");
    let (client, _) = server(Answer::Says("502 Bad Gateway", "SECRET".to_owned())).await;
    let error = client.find::<Secret>("s").await.expect_err("a page");
    assert!(matches!(error, CallError::Silent { .. }), "{error:?}");
}
