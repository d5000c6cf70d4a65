//! HTTP/1.1 to a broker: one connection for each request, with TLS where the address says so.
//!
//! Invariants: every request ends, at the latest with its time-out; what was surely not sent is told
//! from what may have been done; no redirect is followed, so credentials go where they were meant to.
//! A first Ctrl-C breaks off what only reads, never what changes something.

use std::{path::PathBuf, time::Duration};

use base64::{Engine as _, engine::general_purpose::STANDARD as BASE64};
use bytes::Bytes;
use http_body_util::{BodyExt as _, Full, Limited};
use hyper::{
    Method, Request, Response, body::Incoming, client::conn::http1, header, header::HeaderValue,
};
use hyper_util::rt::TokioIo;
use serde_json::Value;
use tokio::time::{timeout, timeout_at};
use tokio_util::sync::CancellationToken;
use url::Url;

use super::{
    error::{Error, HttpError, Refusal, Result},
    show::note,
};
use crate::{
    dial::{self, DialError, Stream, dial, trust},
    model::{
        failure::chain,
        limits::{CLIENT_ANSWER_BYTES_MAX, CLIENT_CONNECT_TIMEOUT, DOWNLOAD_STALL_MAX},
        secret::Credentials,
    },
};

/// A header of a request: its name and its value.
pub type Header = (&'static str, String);

/// An answer that was read whole.
#[derive(Debug)]
pub struct Reply {
    /// Its status.
    pub status: u16,
    /// How long the broker asks to be left alone.
    pub retry_after: Option<Duration>,
    /// Its body, when that is a JSON object.
    pub body: Option<Value>,
}

impl Reply {
    /// What this answer says when it is not what was asked for. Both APIs' ways are known.
    pub fn refusal(&self) -> Refusal {
        let body = self.body.as_ref();
        let text = |field: &Value| field.as_str().map(str::to_owned);
        let told = |name: &str| body.and_then(|body| text(&body[name]));
        let errors = body.map(|body| &body["errors"]);
        let listed = errors.and_then(|errors| text(&errors["base"][0]).or_else(|| text(errors)));
        Refusal {
            status: self.status,
            code: told("error"),
            description: told("description").or(listed),
        }
    }

    /// The body of an answer with this status.
    ///
    /// # Errors
    ///
    /// Another status, or no JSON object.
    pub fn expect(self, status: u16) -> Result<Value> {
        if self.status != status {
            return Err(self.refusal().into());
        }
        self.body
            .ok_or_else(|| Error::Failed("the broker's answer is no JSON object".into()))
    }
}

/// A way to send requests.
pub struct Http {
    ca: Option<PathBuf>,
    timeout: Duration,
    interrupt: CancellationToken,
}

impl Http {
    /// Answers must come within `timeout`. `ca`: the authorities to trust, else the machine's own.
    pub fn new(ca: Option<PathBuf>, timeout: Duration, interrupt: CancellationToken) -> Self {
        Self {
            ca,
            timeout,
            interrupt,
        }
    }

    /// What tells that the user wants to wait no longer.
    pub fn interrupt(&self) -> &CancellationToken {
        &self.interrupt
    }

    /// Sends a request and reads its answer.
    pub async fn call(
        &self,
        method: Method,
        url: &Url,
        headers: &[Header],
        body: Option<&Value>,
    ) -> std::result::Result<Reply, HttpError> {
        let may_break_off = method == Method::GET;
        let request = request(method, url, headers, body)?;
        self.exchange(url, request, may_break_off).await
    }

    /// Sends bytes and reads the answer. They may be sent again: Ctrl-C breaks them off.
    pub async fn send_bytes(
        &self,
        url: &Url,
        headers: &[Header],
        bytes: Bytes,
    ) -> std::result::Result<Reply, HttpError> {
        let mut request = request(Method::PATCH, url, headers, None)?;
        let content_type = HeaderValue::from_static("application/octet-stream");
        request
            .headers_mut()
            .insert(header::CONTENT_TYPE, content_type);
        *request.body_mut() = Full::new(bytes);
        self.exchange(url, request, true).await
    }

    async fn exchange(
        &self,
        url: &Url,
        request: Request<Full<Bytes>>,
        may_break_off: bool,
    ) -> std::result::Result<Reply, HttpError> {
        let exchange = async {
            let deadline = tokio::time::Instant::now() + self.timeout;
            let too_late = |_| {
                let seconds = self.timeout.as_secs_f64();
                HttpError::Lost(format!("{} gave no answer within {seconds} s", place(url)))
            };
            let response = timeout_at(deadline, self.send(url, request));
            let response = response.await.map_err(too_late)??;
            let status = response.status().as_u16();
            let retry_after = response.headers().get(header::RETRY_AFTER);
            let retry_after = retry_after
                .and_then(|value| value.to_str().ok()?.trim().parse().ok())
                .map(Duration::from_secs);
            let whole = Limited::new(response.into_body(), CLIENT_ANSWER_BYTES_MAX).collect();
            let whole = timeout_at(deadline, whole).await.map_err(too_late)?;
            let whole = whole.map_err(|e| {
                let why = chain(&*e);
                HttpError::Lost(format!("the answer of {} broke off: {why}", place(url)))
            })?;
            let body = serde_json::from_slice(&whole.to_bytes()).ok();
            Ok(Reply {
                status,
                retry_after,
                body: body.filter(Value::is_object),
            })
        };
        tokio::pin!(exchange);
        tokio::select! {
            biased;
            answer = &mut exchange => return answer,
            () = self.interrupt.cancelled() => {}
        }
        if may_break_off {
            return Err(HttpError::Interrupted);
        }
        note("the broker has been asked, and its answer is waited for; Ctrl-C again gives it up");
        exchange.await
    }

    /// Begins to read what stands at `url`, which needs no credentials.
    pub async fn download(&self, url: &Url) -> Result<Download> {
        let sent = async {
            let request = request(Method::GET, url, &[], None)?;
            let answer = timeout(self.timeout, self.send(url, request)).await;
            answer.unwrap_or_else(|_| {
                let seconds = self.timeout.as_secs_f64();
                let why = format!("{} gave no answer within {seconds} s", place(url));
                Err(HttpError::Lost(why))
            })
        };
        let response = tokio::select! {
            response = sent => response?,
            () = self.interrupt.cancelled() => return Err(HttpError::Interrupted.into()),
        };
        let status = response.status().as_u16();
        if status != 200 {
            let refusal = Reply {
                status,
                retry_after: None,
                body: None,
            };
            return Err(refusal.refusal().into());
        }
        let length = response.headers().get(header::CONTENT_LENGTH);
        let length = length.and_then(|value| value.to_str().ok()?.parse().ok());
        Ok(Download {
            length,
            body: response.into_body(),
            interrupt: self.interrupt.clone(),
        })
    }

    async fn send(
        &self,
        url: &Url,
        request: Request<Full<Bytes>>,
    ) -> std::result::Result<Response<Incoming>, HttpError> {
        let stream = self.connect(url).await?;
        let not_sent = |e| HttpError::NotSent(format!("{}: {}", place(url), chain(&e)));
        let (mut sender, connection) = http1::handshake(TokioIo::new(stream))
            .await
            .map_err(not_sent)?;
        // It ends with the answer; what goes wrong with it, the answer tells.
        tokio::spawn(connection);
        let answer = sender.send_request(request).await;
        answer.map_err(|e| {
            let why = match chain(&e) {
                why if e.is_parse() && url.scheme() == "http" => {
                    format!("{why}; it may speak HTTPS: give https://…")
                }
                why => why,
            };
            HttpError::Lost(format!("{} gave no answer: {why}", place(url)))
        })
    }

    async fn connect(&self, url: &Url) -> std::result::Result<Stream, HttpError> {
        let not_sent =
            |why: String| HttpError::NotSent(format!("cannot reach {}: {why}", place(url)));
        let reach = async {
            let trust = trust(url, self.ca.as_deref())?;
            dial(url, trust.as_ref()).await
        };
        match timeout(CLIENT_CONNECT_TIMEOUT.min(self.timeout), reach).await {
            Ok(Ok(stream)) => Ok(stream),
            Ok(Err(error @ DialError::NoAuthorities)) => {
                Err(not_sent(format!("{error}; name one with --ca")))
            }
            Ok(Err(error)) => Err(not_sent(chain(&error))),
            Err(_) => Err(not_sent("it takes no connection".into())),
        }
    }
}

/// Bytes that come.
pub struct Download {
    /// How many there will be, if that is told.
    pub length: Option<u64>,
    body: Incoming,
    interrupt: CancellationToken,
}

impl Download {
    /// The next bytes; none at the end of what is whole.
    pub async fn next(&mut self) -> Result<Option<Bytes>> {
        let lost = |why: String| HttpError::Lost(format!("the download broke off: {why}"));
        loop {
            let frame = tokio::select! {
                frame = timeout(DOWNLOAD_STALL_MAX, self.body.frame()) => frame,
                () = self.interrupt.cancelled() => return Err(HttpError::Interrupted.into()),
            };
            match frame {
                Err(_) => {
                    let seconds = DOWNLOAD_STALL_MAX.as_secs();
                    return Err(lost(format!("nothing came for {seconds} s")).into());
                }
                Ok(None) => return Ok(None),
                Ok(Some(Err(error))) => return Err(lost(chain(&error)).into()),
                Ok(Some(Ok(frame))) => {
                    // What is no data is a trailer, of which there is nothing to know.
                    if let Ok(bytes) = frame.into_data() {
                        return Ok(Some(bytes));
                    }
                }
            }
        }
    }
}

/// The header for a user name and a password.
pub fn basic(credentials: &Credentials) -> Header {
    let joined = BASE64.encode(credentials.joined().expose());
    ("authorization", format!("Basic {joined}"))
}

/// An address below another one.
pub fn below(base: &Url, path: &[&str], query: &[(&str, &str)]) -> Url {
    let mut url = base.clone();
    if let Ok(mut segments) = url.path_segments_mut() {
        segments.pop_if_empty().extend(path);
    }
    if !query.is_empty() {
        url.query_pairs_mut().extend_pairs(query);
    }
    url
}

/// A host and its port, for people.
fn place(url: &Url) -> String {
    url.origin().ascii_serialization()
}

fn request(
    method: Method,
    url: &Url,
    headers: &[Header],
    body: Option<&Value>,
) -> std::result::Result<Request<Full<Bytes>>, HttpError> {
    let mut request = dial::request(url)
        .method(method)
        .header(header::ACCEPT, "application/json");
    for (name, value) in headers {
        request = request.header(*name, value);
    }
    let bytes = match body {
        None => Bytes::new(),
        Some(body) => {
            request = request.header(header::CONTENT_TYPE, "application/json");
            body.to_string().into()
        }
    };
    let unsound = |_| HttpError::NotSent("this cannot be sent: it has control characters".into());
    request.body(Full::new(bytes)).map_err(unsound)
}
