//! Whether the listener answers, asked as any client would: over the network.

use std::{
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    time::Duration,
};

use futures::future::join_all;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
    time::timeout,
};

use crate::model::limits::{HTTP_WORKERS, LISTENER_SILENCE_MAX};

const QUESTION: &[u8] = b"GET /healthz HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n";

/// Whether each of the threads that answer requests does. What is closed on us is an answer too: it is
/// what a broker does that has all the connections it may have, and one with TLS to who speaks without.
pub async fn answers(listener: SocketAddr) -> bool {
    answers_within(LISTENER_SILENCE_MAX, listener).await
}

async fn answers_within(limit: Duration, listener: SocketAddr) -> bool {
    // New connections go to the threads in turn.
    let asked = (0..HTTP_WORKERS).map(|_| timeout(limit, ask(listener)));
    let answers = join_all(asked).await;
    answers.iter().all(|answer| *answer == Ok(true))
}

async fn ask(listener: SocketAddr) -> bool {
    let Ok(mut stream) = TcpStream::connect(on_this_machine(listener)).await else {
        return false;
    };
    // Where this fails, the connection was closed.
    let _ = stream.write_all(QUESTION).await;
    let mut answer = [0; 1];
    let _ = stream.read(&mut answer).await;
    true
}

/// Where this machine reaches a listener.
fn on_this_machine(listener: SocketAddr) -> SocketAddr {
    let ip = match listener.ip() {
        IpAddr::V4(ip) if ip.is_unspecified() => Ipv4Addr::LOCALHOST.into(),
        IpAddr::V6(ip) if ip.is_unspecified() => Ipv6Addr::LOCALHOST.into(),
        ip => ip,
    };
    SocketAddr::new(ip, listener.port())
}

#[cfg(test)]
mod tests {
    use tokio::net::TcpListener;

    use super::*;

    async fn listener(at: &str) -> (TcpListener, SocketAddr) {
        let listener = TcpListener::bind(at).await.expect("a listener");
        let address = listener.local_addr().expect("an address");
        (listener, address)
    }

    #[tokio::test]
    async fn what_answers_or_closes_is_alive() {
        let (listener, address) = listener("0.0.0.0:0").await;
        let closes = async {
            loop {
                drop(listener.accept().await);
            }
        };
        tokio::select! {
            answered = answers(address) => assert!(answered),
            () = closes => {}
        }
    }

    #[tokio::test]
    async fn what_takes_connections_and_says_nothing_is_not() {
        let (_listener, address) = listener("127.0.0.1:0").await;
        assert!(!answers_within(Duration::from_millis(50), address).await);
    }

    #[tokio::test]
    async fn what_is_not_there_does_not_answer() {
        let (listener, address) = listener("127.0.0.1:0").await;
        drop(listener);
        assert!(!answers(address).await);
    }
}
