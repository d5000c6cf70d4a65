//! Reading requests: credentials, queries and bodies, forgiving where OSB asks for it.

use std::{io, time::SystemTime};

use actix_web::{
    HttpRequest,
    http::header::{
        self, ByteRangeSpec, EntityTag, Header as _, IfModifiedSince, IfNoneMatch, IfRange, Range,
    },
    web,
};
use base64::{Engine as _, engine::general_purpose::STANDARD as BASE64};
use futures::{StreamExt as _, stream};
use serde_json::{Map, Value};
use subtle::{Choice, ConstantTimeEq as _};
use tokio::{
    sync::mpsc,
    time::{Instant, timeout, timeout_at},
};

use super::{Api, error::HttpError, origin::ClientAddress};
use crate::{
    broker::read_only,
    model::{
        bom::bytes_without_bom,
        gzip::GZIP_MAGIC,
        ids::IdError,
        limits::{
            AUTHORIZATION_BYTES_MAX, BODY_BYTES_MAX, FORM_BYTES_MAX, REQUEST_BODY_TIMEOUT,
            upload::{UPLOAD_CHUNKS_AHEAD, UPLOAD_REQUEST_MAX, UPLOAD_SILENCE_MAX},
        },
        secret::{Credentials, Secret},
        throttle::Door,
    },
    stream::ByteStream,
};

fn authorization<'a>(headers: &'a header::HeaderMap, scheme: &str) -> Option<&'a str> {
    let value = headers.get(header::AUTHORIZATION)?;
    if value.len() > AUTHORIZATION_BYTES_MAX {
        return None;
    }
    let (given, rest) = value.to_str().ok()?.split_once(' ')?;
    given.eq_ignore_ascii_case(scheme).then(|| rest.trim())
}

/// What credentials let somebody do who shows them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Right {
    /// All that there is.
    Change,
    /// To read what the operator reads.
    Read,
}

/// Lets somebody in who may change everything.
pub fn check_basic(request: &HttpRequest, api: &Api) -> Result<(), HttpError> {
    match right_of(request, api)? {
        Right::Change => Ok(()),
        // They are no wrong ones, and who hears that looks for the right ones.
        Right::Read => Err(read_only().into()),
    }
}

/// Lets operators in: those who may change everything, and for reading also those who only read.
pub fn check_operator(request: &HttpRequest, api: &Api) -> Result<(), HttpError> {
    match right_of(request, api)? {
        Right::Read if !request.method().is_safe() => Err(read_only().into()),
        Right::Change | Right::Read => Ok(()),
    }
}

/// Whether a request shows a user name and a password, and no token.
pub fn shows_basic(headers: &header::HeaderMap) -> bool {
    authorization(headers, "basic").is_some()
}

/// The user name and the password that a request shows, `NAME:PASSWORD`.
pub fn shown_credentials(headers: &header::HeaderMap) -> Option<Secret> {
    let sent = BASE64.decode(authorization(headers, "basic")?).ok()?;
    String::from_utf8(sent).ok().map(Secret::new)
}

/// Checks HTTP Basic credentials, in a time that tells nothing about how much of them is right;
/// where too many were wrong, not at all. Who shows none guesses nothing.
///
/// # Errors
///
/// They are missing or wrong, or too many were wrong.
pub fn right_of(request: &HttpRequest, api: &Api) -> Result<Right, HttpError> {
    let sent = authorization(request.headers(), "basic").ok_or(HttpError::Unauthorized)?;
    if let Some(ClientAddress(address)) = ClientAddress::of(request) {
        api.broker
            .sessions
            .may_show_credentials(address, Door::Api)?;
    }
    let sent = BASE64.decode(sent).unwrap_or_default();
    // Digests have one length, whatever was sent.
    let digest = |bytes: &[u8]| ring::digest::digest(&ring::digest::SHA256, bytes);
    let sent = digest(&sent);
    // All are looked at, whichever it is.
    let among = |known: &[Credentials]| {
        known.iter().fold(Choice::from(0), |good, known| {
            let known = digest(known.joined().expose().as_bytes());
            good | sent.as_ref().ct_eq(known.as_ref())
        })
    };
    let (changes, reads) = (among(&api.credentials), among(&api.read_only));
    if bool::from(changes) {
        return Ok(Right::Change);
    }
    if bool::from(reads) {
        return Ok(Right::Read);
    }
    if let Some(ClientAddress(address)) = ClientAddress::of(request) {
        api.broker
            .sessions
            .credentials_were_wrong(address, Door::Api);
    }
    Err(HttpError::Unauthorized)
}

/// The bearer token of a request.
pub fn bearer(headers: &header::HeaderMap) -> Option<&str> {
    authorization(headers, "bearer").filter(|token| !token.is_empty())
}

/// Whether the client has it already. Who names tags is not asked for a time.
pub fn is_known(request: &HttpRequest, tag: &EntityTag, modified: Option<SystemTime>) -> bool {
    if request.headers().contains_key(header::IF_NONE_MATCH) {
        return match IfNoneMatch::parse(request) {
            Ok(IfNoneMatch::Any) => true,
            Ok(IfNoneMatch::Items(tags)) => tags.iter().any(|known| known.weak_eq(tag)),
            Err(_) => false,
        };
    }
    let since = IfModifiedSince::parse(request);
    let since = since
        .ok()
        .map(|IfModifiedSince(date)| SystemTime::from(date));
    matches!((since, modified), (Some(since), Some(modified)) if modified <= since)
}

/// The one range of bytes that a client wants of what has that tag. None where it wants all, or what
/// need not be understood: several ranges, other units, a part of something else.
pub fn wanted_range(request: &HttpRequest, tag: &EntityTag) -> Option<ByteRangeSpec> {
    if request.headers().contains_key(header::IF_RANGE) {
        match IfRange::parse(request) {
            Ok(IfRange::EntityTag(known)) if known.strong_eq(tag) => {}
            _ => return None,
        }
    }
    match Range::parse(request) {
        // From the first byte on is all of it.
        Ok(Range::Bytes(ranges)) => match ranges[..] {
            [ByteRangeSpec::From(0)] => None,
            [ref range] => Some(range.clone()),
            _ => None,
        },
        _ => None,
    }
}

/// A value of the query; of several the last one counts.
pub fn query(request: &HttpRequest, name: &str) -> Option<String> {
    url::form_urlencoded::parse(request.query_string().as_bytes())
        .filter(|(key, _)| key == name)
        .last()
        .map(|(_, value)| value.into_owned())
}

/// Whether the platform takes a 202; only `true` says so.
pub fn accepts_incomplete(request: &HttpRequest) -> bool {
    query(request, "accepts_incomplete").as_deref() == Some("true")
}

async fn bytes_of(payload: web::Payload, bytes_max: usize) -> Result<web::Bytes, HttpError> {
    timeout(REQUEST_BODY_TIMEOUT, payload.to_bytes_limited(bytes_max))
        .await
        .map_err(|_| HttpError::TooSlow)?
        .map_err(|_| HttpError::TooLarge(bytes_max))?
        .map_err(|e| HttpError::bad_request(format!("the body cannot be read: {e}")))
}

/// Fails when the body is said to be compressed.
fn check_encoding(request: &HttpRequest) -> Result<(), HttpError> {
    let encodings = request.headers().get_all(header::CONTENT_ENCODING);
    let mut encodings = encodings.flat_map(|value| value.as_bytes().split(|byte| *byte == b','));
    let plain = |name: &[u8]| {
        let name = name.trim_ascii();
        name.is_empty() || name.eq_ignore_ascii_case(b"identity")
    };
    if encodings.all(plain) {
        Ok(())
    } else {
        Err(HttpError::Compressed)
    }
}

/// The bytes of a body of any length, as they come. They end with an error where the client breaks off, or sends
/// nothing for [`UPLOAD_SILENCE_MAX`], and after [`UPLOAD_REQUEST_MAX`].
pub fn content(request: &HttpRequest, payload: web::Payload) -> Result<ByteStream, HttpError> {
    check_encoding(request)?;
    // What comes of a connection stays on its thread.
    let (chunks, reader) = mpsc::channel(UPLOAD_CHUNKS_AHEAD);
    actix_web::rt::spawn(async move {
        let mut payload = payload;
        let end = Instant::now() + UPLOAD_REQUEST_MAX;
        loop {
            let patience = end.min(Instant::now() + UPLOAD_SILENCE_MAX);
            let chunk = match timeout_at(patience, payload.next()).await {
                Ok(None) => return,
                Ok(Some(chunk)) => chunk.map_err(io::Error::other),
                Err(_) => Err(io::ErrorKind::TimedOut.into()),
            };
            let is_over = chunk.is_err();
            if chunks.send(chunk).await.is_err() || is_over {
                return;
            }
        }
    });
    let next = |mut reader: mpsc::Receiver<_>| async { Some((reader.recv().await?, reader)) };
    Ok(stream::unfold(reader, next).boxed())
}

/// The header that says where the bytes of a request begin in the snapshot, as that protocol of resumable uploads
/// has it which is known as tus.
pub const UPLOAD_OFFSET: &str = "Upload-Offset";

/// What it says.
pub fn upload_offset(request: &HttpRequest) -> Result<u64, HttpError> {
    let given = request.headers().get(UPLOAD_OFFSET);
    let read = given.and_then(|value| value.to_str().ok()?.parse().ok());
    read.ok_or_else(|| {
        HttpError::bad_request(format!("{UPLOAD_OFFSET} is missing, or no number of bytes"))
    })
}

/// The fields of a form that a browser sent.
pub struct Form(Vec<(String, String)>);

impl Form {
    /// Reads the body.
    pub async fn read(payload: web::Payload) -> Result<Self, HttpError> {
        let bytes = bytes_of(payload, FORM_BYTES_MAX).await?;
        Ok(Self(
            url::form_urlencoded::parse(&bytes).into_owned().collect(),
        ))
    }

    /// The first field of that name; empty when there is none.
    pub fn text(&self, name: &str) -> &str {
        let found = self.0.iter().find(|(key, _)| key == name);
        found.map_or("", |(_, value)| value)
    }
}

/// Not every database keeps such a text.
fn has_nul(name: &str) -> HttpError {
    HttpError::bad_request(format!("{name} has a NUL character"))
}

/// A JSON object from a request's body. What is unknown in it is ignored.
pub struct Body(Map<String, Value>);

impl Body {
    /// Reads the body, whatever its content type says.
    pub async fn read(request: &HttpRequest, payload: web::Payload) -> Result<Self, HttpError> {
        check_encoding(request)?;
        Self::parse(&bytes_of(payload, BODY_BYTES_MAX).await?)
    }

    /// Reads a body that may be missing.
    pub async fn read_or_nothing(
        request: &HttpRequest,
        payload: web::Payload,
    ) -> Result<Self, HttpError> {
        check_encoding(request)?;
        let bytes = bytes_of(payload, BODY_BYTES_MAX).await?;
        if bytes.is_empty() {
            Ok(Self(Map::new()))
        } else {
            Self::parse(&bytes)
        }
    }

    fn parse(bytes: &[u8]) -> Result<Self, HttpError> {
        // Compressed, and nobody said so.
        if bytes.starts_with(&GZIP_MAGIC) {
            return Err(HttpError::Compressed);
        }
        match serde_json::from_slice(bytes_without_bom(bytes)) {
            Ok(Value::Object(fields)) => Ok(Self(fields)),
            Ok(_) => Err(HttpError::bad_request("the body is not a JSON object")),
            Err(e) => Err(HttpError::bad_request(format!("the body is not JSON: {e}"))),
        }
    }

    fn field(&self, name: &str) -> Option<&Value> {
        self.0.get(name).filter(|value| !value.is_null())
    }

    /// An id that may be absent, `null` or empty, which are one.
    pub fn id<T>(&self, name: &str) -> Result<Option<T>, HttpError>
    where
        T: std::str::FromStr<Err = IdError>,
    {
        let id = self.text(name)?.map(|text| text.parse()).transpose();
        id.map_err(|e: IdError| HttpError::bad_request(format!("{name} {e}")))
    }

    /// A text that must be there and not be empty.
    pub fn required_text(&self, name: &str) -> Result<String, HttpError> {
        match self.field(name) {
            Some(Value::String(text)) if text.contains('\0') => Err(has_nul(name)),
            Some(Value::String(text)) if !text.is_empty() => Ok(text.clone()),
            None => Err(HttpError::bad_request(format!("{name} is missing"))),
            Some(Value::String(_)) => Err(HttpError::bad_request(format!("{name} is empty"))),
            Some(_) => Err(HttpError::bad_request(format!("{name} is not a string"))),
        }
    }

    /// A text that must be there, and may be empty.
    pub fn given_text(&self, name: &str) -> Result<String, HttpError> {
        match self.field(name) {
            Some(_) => Ok(self.text(name)?.unwrap_or_default()),
            None => Err(HttpError::bad_request(format!("{name} is missing"))),
        }
    }

    /// The fields of an object that may be absent or `null`: then there are none.
    pub fn section(&self, name: &str) -> Result<Self, HttpError> {
        match self.object(name)? {
            Some(Value::Object(fields)) => Ok(Self(fields)),
            _ => Ok(Self(Map::new())),
        }
    }

    /// A text; one that is absent, `null` or empty is none.
    pub fn text(&self, name: &str) -> Result<Option<String>, HttpError> {
        match self.field(name) {
            None => Ok(None),
            Some(Value::String(text)) if text.contains('\0') => Err(has_nul(name)),
            Some(Value::String(text)) => Ok(Some(text.clone()).filter(|text| !text.is_empty())),
            Some(_) => Err(HttpError::bad_request(format!("{name} is not a string"))),
        }
    }

    /// A whole number; one that is absent, `null` or 0 is none. What no limit of ours reaches is
    /// [`u32::MAX`].
    pub fn count(&self, name: &str) -> Result<Option<u32>, HttpError> {
        match self.field(name).map(Value::as_u64) {
            None | Some(Some(0)) => Ok(None),
            Some(Some(number)) => Ok(Some(u32::try_from(number).unwrap_or(u32::MAX))),
            Some(None) => Err(HttpError::bad_request(format!(
                "{name} is not a whole number"
            ))),
        }
    }

    /// A number of bytes that must be there.
    pub fn bytes(&self, name: &str) -> Result<u64, HttpError> {
        match self.field(name) {
            Some(value) => value.as_u64().ok_or_else(|| {
                HttpError::bad_request(format!("{name} is not a whole number of bytes"))
            }),
            None => Err(HttpError::bad_request(format!("{name} is missing"))),
        }
    }

    /// A truth; one that is absent or `null` is false.
    pub fn flag(&self, name: &str) -> Result<bool, HttpError> {
        match self.field(name) {
            None => Ok(false),
            Some(Value::Bool(flag)) => Ok(*flag),
            Some(_) => Err(HttpError::bad_request(format!(
                "{name} is not true or false"
            ))),
        }
    }

    /// A text that may be absent or `null`, but not empty.
    pub fn optional_text(&self, name: &str) -> Result<Option<String>, HttpError> {
        match self.field(name) {
            None => Ok(None),
            Some(_) => self.required_text(name).map(Some),
        }
    }

    /// An object that may be absent or `null`.
    pub fn object(&self, name: &str) -> Result<Option<Value>, HttpError> {
        match self.field(name) {
            None => Ok(None),
            Some(value) if value.is_object() => Ok(Some(value.clone())),
            Some(_) => Err(HttpError::bad_request(format!("{name} is not an object"))),
        }
    }

    /// The version inside `maintenance_info`; an object without one is taken for absent.
    pub fn maintenance_version(&self) -> Result<Option<String>, HttpError> {
        let info = self.object("maintenance_info")?;
        match info
            .as_ref()
            .and_then(|info| info.get("version"))
            .filter(|v| !v.is_null())
        {
            None => Ok(None),
            Some(Value::String(version)) => Ok(Some(version.clone())),
            Some(_) => Err(HttpError::bad_request(
                "maintenance_info.version is not a string",
            )),
        }
    }
}
