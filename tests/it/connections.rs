//! Clients that hold connections and say nothing: they cost themselves their own, and the broker
//! goes on with its work.

use std::time::Duration;

use reqwest::Method;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use serde_json::json;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
    time::timeout,
};

use crate::broker::{TestBroker, answer};

/// Connections that are held.
const HELD: usize = 1500;

/// As many connections as that, all silent.
async fn hold(broker: &TestBroker) -> Vec<TcpStream> {
    // This process holds the other ends.
    let maximum = getrlimit(Resource::Nofile).maximum;
    let current = maximum;
    let _ = setrlimit(Resource::Nofile, Rlimit { current, maximum });
    let address = broker.url.strip_prefix("http://").expect("an address");
    let mut held = Vec::new();
    for _ in 0..HELD {
        held.push(TcpStream::connect(address).await.expect("a connection"));
    }
    held
}

/// Whether the broker has let go of a connection. What it says when it does is of no matter.
async fn is_closed(stream: &mut TcpStream) -> bool {
    let mut said = Vec::new();
    timeout(Duration::from_millis(1), stream.read_to_end(&mut said))
        .await
        .is_ok()
}

/// How many connections the broker holds on to. A busy machine brings the end of one late: those that seem
/// open are looked at again until none of them has ended meanwhile.
async fn open_of(held: &mut [TcpStream]) -> usize {
    let mut open: Vec<&mut TcpStream> = held.iter_mut().collect();
    loop {
        let before = open.len();
        let mut still = Vec::new();
        for stream in open {
            if !is_closed(stream).await {
                still.push(stream);
            }
        }
        open = still;
        if open.len() == before {
            return before;
        }
    }
}

/// Sees a broker work that may have so many files open, while its clients hold connections; returns
/// how many of these are left to them.
async fn works_within(soft: u32, hard: u32, flags: &[&str]) -> usize {
    let broker = TestBroker::spawn_within(soft, hard, flags).await;
    let mut held = hold(&broker).await;
    broker.becomes_ready().await;
    let left = open_of(&mut held).await;
    // Others come in place of those that were given up.
    held.extend(hold(&broker).await);
    broker.provision("i", json!({})).await;
    broker.bind("i", "b").await;
    broker.deprovision("i").await;
    drop(held);
    let printed = broker.printed();
    assert!(!printed.contains("Too many open files"), "{printed}");
    assert!(!printed.contains("too many open files"), "{printed}");
    left
}

#[tokio::test(flavor = "multi_thread")]
async fn silent_connections_beyond_a_low_limit_make_room_for_others() {
    // An eighth of the limit for one address.
    let left = works_within(1024, 1024, &[]).await;
    assert!(left <= 1024 / 8, "{left}");
}

/// It speaks for many, which share half of the limit.
#[tokio::test(flavor = "multi_thread")]
async fn a_trusted_proxy_may_hold_more_than_one_client() {
    let left = works_within(1024, 1024, &["--trusted-proxies", "127.0.0.1"]).await;
    assert!(left > 1024 / 8 && left <= 1024 / 2, "{left}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_low_soft_limit_is_none() {
    works_within(1024, 8192, &[]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_very_low_limit_is_told_of() {
    let broker = TestBroker::spawn_within(256, 256, &[]).await;
    let held = hold(&broker).await;
    broker.becomes_ready().await;
    let printed = broker.printed();
    assert!(printed.contains("have 256 files open"), "{printed}");
    drop(held);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_connection_that_has_spoken_is_not_closed_for_another() {
    let broker = TestBroker::spawn_within(1024, 1024, &[]).await;
    let address = broker.url.strip_prefix("http://").expect("an address");
    let mut speaks = TcpStream::connect(address).await.expect("a connection");
    speaks.write_all(b"GET /healthz HT").await.expect("a word");
    // Each thread that serves has read what came before, when it has answered later connections.
    for _ in 0..8 {
        answer(broker.anonymous(Method::GET, "/healthz")).await;
    }
    let held = hold(&broker).await;
    let rest = b"TP/1.1\r\nHost: broker\r\nConnection: close\r\n\r\n";
    speaks.write_all(rest).await.expect("the rest");
    let mut said = String::new();
    speaks.read_to_string(&mut said).await.expect("an answer");
    assert!(said.starts_with("HTTP/1.1 200 "), "{said}");
    drop(held);
}
