//! A broker that does as a test tells it: wrong, late or never.

use std::sync::{Arc, Mutex};

use serde_json::{Value, json};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpListener, TcpStream},
    task::JoinHandle,
};

use crate::broker::eventually;

/// A request that came.
#[derive(Debug, Clone)]
pub struct Heard {
    pub method: String,
    /// Path and query.
    pub target: String,
    /// Names in small letters.
    pub headers: Vec<(String, String)>,
    pub body: Value,
    pub at: std::time::Instant,
}

impl Heard {
    /// A header's value.
    pub fn header(&self, name: &str) -> Option<&str> {
        let mut all = self.headers.iter();
        all.find(|(n, _)| n == name)
            .map(|(_, value)| value.as_str())
    }
}

/// What is answered.
pub enum Reply {
    /// A JSON object.
    Json(u16, Value),
    /// One with a `Retry-After`.
    Later(u32, Value),
    /// Anything after the status line.
    Raw(u16, Vec<u8>),
    /// The connection ends.
    Drop,
    /// Nothing, ever.
    Silence,
}

type Answers = dyn Fn(&Heard) -> Reply + Send + Sync;

/// The broker. It serves its catalog by itself.
pub struct Stub {
    pub url: String,
    heard: Arc<Mutex<Vec<Heard>>>,
    serving: JoinHandle<()>,
}

/// The catalog of every stub, changed by `change`.
pub fn catalog(change: impl FnOnce(&mut Value)) -> Value {
    let mut service = json!({
        "id": "service-1", "name": "db", "description": "a database", "bindable": true,
        "instances_retrievable": true, "bindings_retrievable": true,
        "plans": [
            { "id": "plan-1", "name": "small", "description": "small",
              "maintenance_info": { "version": "2.0.0" } },
            { "id": "plan-2", "name": "large", "description": "large", "free": false },
        ],
    });
    change(&mut service);
    json!({ "services": [service] })
}

impl Stub {
    /// A broker whose answers, but the catalog, are those of `answers`.
    pub async fn start(answers: impl Fn(&Heard) -> Reply + Send + Sync + 'static) -> Self {
        Self::start_with(catalog(|_| ()), answers).await
    }

    /// A broker with another catalog.
    pub async fn start_with(
        catalog: Value,
        answers: impl Fn(&Heard) -> Reply + Send + Sync + 'static,
    ) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let url = format!("http://{}", listener.local_addr().expect("an address"));
        let heard: Arc<Mutex<Vec<Heard>>> = Arc::default();
        let answers: Arc<Answers> = Arc::new(move |request: &Heard| {
            if request.target == "/v2/catalog" {
                return Reply::Json(200, catalog.clone());
            }
            answers(request)
        });
        let ears = heard.clone();
        let serving = tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                tokio::spawn(serve(stream, ears.clone(), answers.clone()));
            }
        });
        Self {
            url,
            heard,
            serving,
        }
    }

    /// All that came, but questions for the catalog.
    pub fn heard(&self) -> Vec<Heard> {
        let heard = self.heard.lock().expect("what was heard").clone();
        let of_interest = |request: &Heard| request.target != "/v2/catalog";
        heard.into_iter().filter(of_interest).collect()
    }

    /// The methods of all that came, in order.
    pub fn methods(&self) -> Vec<String> {
        self.heard().into_iter().map(|heard| heard.method).collect()
    }

    /// Waits until so many requests of a kind have come.
    pub async fn hears(&self, method: &str, count: usize) {
        eventually(&format!("{count} {method}"), || async {
            let found = self.methods().iter().filter(|m| *m == method).count();
            (found >= count).then_some(())
        })
        .await;
    }
}

impl Drop for Stub {
    fn drop(&mut self) {
        self.serving.abort();
    }
}

async fn serve(mut stream: TcpStream, heard: Arc<Mutex<Vec<Heard>>>, answers: Arc<Answers>) {
    let Some(request) = read(&mut stream).await else {
        return;
    };
    let reply = answers(&request);
    heard.lock().expect("what was heard").push(request);
    let (status, retry, body) = match reply {
        Reply::Json(status, body) => (status, None, body.to_string().into_bytes()),
        Reply::Later(seconds, body) => (200, Some(seconds), body.to_string().into_bytes()),
        Reply::Raw(status, bytes) => {
            let _ = stream
                .write_all(format!("HTTP/1.1 {status} X\r\n").as_bytes())
                .await;
            let _ = stream.write_all(&bytes).await;
            return;
        }
        Reply::Drop => return,
        Reply::Silence => std::future::pending().await,
    };
    let retry = retry.map_or(String::new(), |s| format!("Retry-After: {s}\r\n"));
    let head = format!(
        "HTTP/1.1 {status} X\r\nContent-Type: application/json\r\nConnection: close\r\n\
         Content-Length: {}\r\n{retry}\r\n",
        body.len()
    );
    let _ = stream.write_all(&[head.as_bytes(), &body].concat()).await;
}

async fn read(stream: &mut TcpStream) -> Option<Heard> {
    let mut bytes = Vec::new();
    let end = loop {
        let mut chunk = [0; 4096];
        let length = stream.read(&mut chunk).await.ok().filter(|n| *n > 0)?;
        bytes.extend_from_slice(&chunk[..length]);
        if let Some(end) = bytes.windows(4).position(|w| w == b"\r\n\r\n") {
            break end + 4;
        }
    };
    let head = String::from_utf8(bytes[..end].to_vec()).ok()?;
    let mut lines = head.lines();
    let mut first = lines.next()?.split(' ');
    let headers: Vec<(String, String)> = lines
        .filter_map(|line| line.split_once(": "))
        .map(|(name, value)| (name.to_lowercase(), value.to_owned()))
        .collect();
    let length = headers.iter().find(|(name, _)| name == "content-length");
    let length = length
        .and_then(|(_, value)| value.parse().ok())
        .unwrap_or(0);
    let mut body = bytes[end..].to_vec();
    while body.len() < length {
        let mut chunk = [0; 4096];
        let read = stream.read(&mut chunk).await.ok().filter(|n| *n > 0)?;
        body.extend_from_slice(&chunk[..read]);
    }
    Some(Heard {
        method: first.next()?.to_owned(),
        target: first.next()?.to_owned(),
        headers,
        body: serde_json::from_slice(&body).unwrap_or_default(),
        at: std::time::Instant::now(),
    })
}
