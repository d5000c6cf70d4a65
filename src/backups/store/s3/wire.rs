//! Requests to a server of S3, over connections that are kept for the next one.
//!
//! The library asks for an HTTP client, and this is ours: by the house's own [`dial`], which
//! knows whom to trust. Every answer that is no success becomes a [`WireError`] here, so that what went wrong
//! is known as a type and not as a text, and whether it may pass.

use std::{
    fmt,
    pin::Pin,
    sync::{Arc, Mutex, PoisonError},
    task::{Context, Poll},
    time::{Duration, Instant},
};

use async_trait::async_trait;
use bytes::{Bytes, BytesMut};
use http_body_util::BodyExt as _;
use hyper::{
    body::{Body, Frame, Incoming, SizeHint},
    client::conn::http1::{self, SendRequest},
    header::{HOST, HeaderValue, USER_AGENT},
    http::Uri,
};
use hyper_util::rt::TokioIo;
use object_store::{
    ClientOptions,
    client::{
        HttpClient, HttpConnector, HttpError, HttpErrorKind, HttpRequest, HttpRequestBody,
        HttpResponse, HttpResponseBody, HttpService,
    },
};
use tokio::time::{sleep, timeout};
use url::Url;

use super::{
    pace::{Pace, Paced},
    refusal::{Refusal, WireError},
};
use crate::dial::{self, Trust};

/// How long a connection may take to be made.
const CONNECTING_MAX: Duration = Duration::from_secs(10);
/// How long an answer may take that needs nothing sent.
const ANSWERING_MAX: Duration = Duration::from_secs(60);
/// A connection that takes fewer bytes per second than these is given up.
const BYTES_PER_SECOND_MIN: u64 = 32 * 1024;
/// How long the next bytes of an answer may take.
const SILENCE_MAX: Duration = Duration::from_secs(60);
/// How long a connection is kept that nothing goes over. Servers close them after longer than that.
const IDLE_MAX: Duration = Duration::from_secs(10);
/// Connections that are kept, at most.
const IDLE_CONNECTIONS_MAX: usize = 16;
/// What is read of an answer that is no success.
const REFUSAL_BYTES_MAX: usize = 64 * 1024;

type Sender = SendRequest<Paced<HttpRequestBody>>;

/// Connections to a server, and to who hands out credentials for it. Copies share them.
#[derive(Clone)]
pub(super) struct Wire(Arc<Inner>);

struct Inner {
    /// The host whose certificate is of `trust`; others' are of the machine's authorities.
    host: String,
    trust: Option<Trust>,
    pace: Option<Arc<Pace>>,
    idle: Mutex<Vec<Idle>>,
}

/// A connection that waits for the next request.
struct Idle {
    origin: String,
    sender: Sender,
    since: Instant,
}

impl Wire {
    /// To the server at `bucket`, whose certificate is of `trust`.
    pub(super) fn to(bucket: &Url, trust: Option<Trust>, pace: Option<Arc<Pace>>) -> Self {
        Self(Arc::new(Inner {
            host: bucket.host_str().unwrap_or_default().to_owned(),
            trust,
            pace,
            idle: Mutex::default(),
        }))
    }

    /// Sends a request and returns the answer that is a success.
    pub(super) async fn send(&self, request: HttpRequest) -> Result<HttpResponse, WireError> {
        let url = request.uri().to_string();
        let url = Url::parse(&url).map_err(|_| WireError::Unsound(url.clone()))?;
        let host = url.host_str().unwrap_or_default().to_owned();
        let bytes = request.body().content_length() as u64;
        let sending_max = ANSWERING_MAX + Duration::from_secs(bytes / BYTES_PER_SECOND_MIN);
        let answer = timeout(sending_max, self.exchange(&url, request));
        let late = |_| WireError::Late(host.clone());
        let (answer, sender) = answer.await.map_err(late)??;
        let (parts, body) = answer.into_parts();
        let body = Answer {
            body: Paced::new(body, self.0.pace.clone()),
            host: host.clone(),
            silence: Box::pin(sleep(SILENCE_MAX)),
            is_over: false,
            returned: Some((self.clone(), url.origin().ascii_serialization(), sender)),
        };
        if parts.status.is_success() {
            return Ok(HttpResponse::from_parts(parts, HttpResponseBody::new(body)));
        }
        let text = read(body, REFUSAL_BYTES_MAX).await.unwrap_or_default();
        Err(Refusal::of(parts.status.as_u16(), &parts.headers, &text).into())
    }

    async fn exchange(
        &self,
        url: &Url,
        request: HttpRequest,
    ) -> Result<(hyper::Response<Incoming>, Sender), WireError> {
        let mut request = self.spelt(url, request)?;
        loop {
            let kept = self.kept(url);
            let was_kept = kept.is_some();
            let mut sender = match kept {
                Some(sender) => sender,
                None => self.connect(url).await?,
            };
            match sender.try_send_request(request).await {
                Ok(answer) => return Ok((answer, sender)),
                Err(mut error) => match error.take_message() {
                    // The server closed the connection while nothing went over it.
                    Some(unsent) if was_kept => request = unsent,
                    _ => return Err(WireError::Broken(error.into_error())),
                },
            }
        }
    }

    /// The request as it goes over a connection to its host.
    fn spelt(
        &self,
        url: &Url,
        request: HttpRequest,
    ) -> Result<hyper::Request<Paced<HttpRequestBody>>, WireError> {
        let unsound = || WireError::Unsound(url.to_string());
        let (mut parts, body) = request.into_parts();
        let host = match url.port() {
            Some(port) => format!("{}:{port}", url.host_str().unwrap_or_default()),
            None => url.host_str().unwrap_or_default().to_owned(),
        };
        let host = HeaderValue::from_str(&host).map_err(|_| unsound())?;
        parts.headers.insert(HOST, host);
        let agent = concat!("compose-broker/", env!("CARGO_PKG_VERSION"));
        parts
            .headers
            .insert(USER_AGENT, HeaderValue::from_static(agent));
        let target = parts.uri.path_and_query().map_or("/", |it| it.as_str());
        parts.uri = Uri::try_from(target).map_err(|_| unsound())?;
        let body = Paced::new(body, self.0.pace.clone());
        Ok(hyper::Request::from_parts(parts, body))
    }

    async fn connect(&self, url: &Url) -> Result<Sender, WireError> {
        let host = url.host_str().unwrap_or_default().to_owned();
        let unreachable = |source| WireError::Unreachable {
            host: host.clone(),
            source,
        };
        let of_machine;
        let trust = match host == self.0.host {
            true => &self.0.trust,
            false => {
                of_machine = dial::trust(url, None).map_err(unreachable)?;
                &of_machine
            }
        };
        let dialling = timeout(CONNECTING_MAX, dial::dial(url, trust.as_ref()));
        let late = |_| WireError::Late(host.clone());
        let stream = dialling.await.map_err(late)?.map_err(unreachable)?;
        let (sender, connection) = http1::handshake(TokioIo::new(stream))
            .await
            .map_err(WireError::Broken)?;
        // It ends when nobody has its sender any more, or with its server.
        tokio::spawn(connection);
        Ok(sender)
    }

    fn idle(&self) -> std::sync::MutexGuard<'_, Vec<Idle>> {
        self.0.idle.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A connection to that origin that was kept.
    fn kept(&self, url: &Url) -> Option<Sender> {
        let origin = url.origin().ascii_serialization();
        let mut idle = self.idle();
        idle.retain(|kept| kept.since.elapsed() < IDLE_MAX && !kept.sender.is_closed());
        let is_usable = |kept: &Idle| kept.origin == origin && kept.sender.is_ready();
        let at = idle.iter().rposition(is_usable)?;
        Some(idle.swap_remove(at).sender)
    }

    fn keep(&self, origin: String, sender: Sender) {
        let mut idle = self.idle();
        if idle.len() < IDLE_CONNECTIONS_MAX && !sender.is_closed() {
            let since = Instant::now();
            idle.push(Idle {
                origin,
                sender,
                since,
            });
        }
    }
}

impl fmt::Debug for Wire {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Wire").field(&self.0.host).finish()
    }
}

impl HttpConnector for Wire {
    fn connect(&self, _options: &ClientOptions) -> object_store::Result<HttpClient> {
        Ok(HttpClient::new(self.clone()))
    }
}

#[async_trait]
impl HttpService for Wire {
    async fn call(&self, request: HttpRequest) -> Result<HttpResponse, HttpError> {
        self.send(request).await.map_err(packed)
    }
}

/// The library makes requests again by kind: as `Request` always, as `Unknown` never.
fn packed(error: WireError) -> HttpError {
    let kind = match &error {
        WireError::Late(_) => HttpErrorKind::Timeout,
        _ if error.may_pass() => HttpErrorKind::Request,
        _ => HttpErrorKind::Unknown,
    };
    HttpError::new(kind, Arc::new(error))
}

/// All of an answer, which has no more than `bytes_max`.
pub(super) async fn read<B>(body: B, bytes_max: usize) -> Result<Bytes, WireError>
where
    B: Body<Data = Bytes, Error = HttpError> + Unpin,
{
    let mut body = body;
    let mut bytes = BytesMut::new();
    while let Some(frame) = body.frame().await {
        let frame = frame.map_err(WireError::Cut)?;
        bytes.extend_from_slice(frame.data_ref().map_or(&[][..], |data| data));
        if bytes.len() > bytes_max {
            return Err(WireError::TooLong(bytes_max));
        }
    }
    Ok(bytes.freeze())
}

/// The body of an answer. Its connection is kept when it was read to its end.
struct Answer {
    body: Paced<Incoming>,
    host: String,
    silence: Pin<Box<tokio::time::Sleep>>,
    is_over: bool,
    returned: Option<(Wire, String, Sender)>,
}

impl Body for Answer {
    type Data = Bytes;
    type Error = HttpError;

    fn poll_frame(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, HttpError>>> {
        let this = self.get_mut();
        let Poll::Ready(frame) = Pin::new(&mut this.body).poll_frame(context) else {
            return match this.silence.as_mut().poll(context) {
                Poll::Ready(()) => {
                    let late = WireError::Late(this.host.clone());
                    Poll::Ready(Some(Err(packed(late))))
                }
                Poll::Pending => Poll::Pending,
            };
        };
        let next = tokio::time::Instant::now() + SILENCE_MAX;
        this.silence.as_mut().reset(next);
        this.is_over = frame.is_none();
        let cut = |error| HttpError::new(HttpErrorKind::Interrupted, WireError::Broken(error));
        Poll::Ready(frame.map(|frame| frame.map_err(cut)))
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

impl Drop for Answer {
    fn drop(&mut self) {
        let is_over = self.is_over || self.body.is_end_stream();
        if let Some((wire, origin, sender)) = self.returned.take().filter(|_| is_over) {
            wire.keep(origin, sender);
        }
    }
}
