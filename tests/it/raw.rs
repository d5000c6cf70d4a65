//! HTTP by hand, for what a decent client would not send.

use base64::{Engine as _, engine::general_purpose::STANDARD as BASE64};
use serde_json::Value;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
};

use crate::broker::TestBroker;

/// An answer, read to the end of the connection.
#[derive(Debug)]
pub struct RawAnswer {
    pub status: u16,
    /// Status line and headers, in small letters.
    pub head: String,
    pub body: String,
}

impl RawAnswer {
    /// The body, which must be a JSON object.
    pub fn json(&self) -> Value {
        let value: Value = serde_json::from_str(&self.body)
            .unwrap_or_else(|e| panic!("{self:?} is not JSON: {e}"));
        assert!(value.is_object(), "{self:?} is not an object");
        value
    }

    /// A header's value.
    pub fn header(&self, name: &str) -> Option<&str> {
        let prefix = format!("{name}: ");
        self.head
            .lines()
            .find_map(|line| line.strip_prefix(&prefix))
    }
}

/// The lines that let the platform in.
pub fn platform(broker: &TestBroker) -> String {
    let (username, password) = broker.platform();
    let credentials = BASE64.encode(format!("{username}:{password}"));
    format!("Authorization: Basic {credentials}\r\nX-Broker-API-Version: 2.17\r\n")
}

/// Sends one request, whose `headers` each end with a line break, and reads the answer.
pub async fn send(
    broker: &TestBroker,
    method: &str,
    target: &str,
    headers: &str,
    body: &str,
) -> RawAnswer {
    let head = format!(
        "{method} {target} HTTP/1.1\r\nHost: broker\r\nConnection: close\r\n\
         Content-Length: {}\r\n{headers}\r\n",
        body.len()
    );
    send_bytes(broker, &[head.as_bytes(), body.as_bytes()].concat()).await
}

/// Sends those bytes and reads the answer.
pub async fn send_bytes(broker: &TestBroker, bytes: &[u8]) -> RawAnswer {
    let address = broker.url.strip_prefix("http://").expect("an address");
    let stream = TcpStream::connect(address).await.expect("a connection");
    let (mut reader, mut writer) = stream.into_split();
    // A server may answer and hang up before it has read all.
    let write = async {
        let _ = writer.write_all(bytes).await;
        writer
    };
    let read = async {
        let mut answer = Vec::new();
        let end = reader.read_to_end(&mut answer).await;
        assert!(end.is_ok() || !answer.is_empty(), "no answer: {end:?}");
        answer
    };
    let (_writer, answer) = tokio::join!(write, read);
    let answer = String::from_utf8(answer).expect("UTF-8");
    let (head, body) = answer.split_once("\r\n\r\n").expect("a head");
    let status = head.split(' ').nth(1).expect("a status");
    RawAnswer {
        status: status.parse().expect("a number"),
        head: head.to_lowercase(),
        body: body.to_owned(),
    }
}
