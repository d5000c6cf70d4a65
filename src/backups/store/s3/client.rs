//! What is asked of a server of S3: by the library what it can, the rest by requests that it signs.

use std::{sync::Arc, time::Duration};

use base64::{Engine as _, engine::general_purpose::STANDARD as BASE64};
use bytes::Bytes;
use chrono::{DateTime, Utc};
use hyper::{HeaderMap, Method, header, header::HeaderValue};
use object_store::{
    BackoffConfig, ClientOptions, RetryConfig,
    aws::{AmazonS3, AmazonS3Builder, AwsAuthorizer, AwsCredentialProvider, Checksum},
    client::{HttpRequest, HttpRequestBody},
    path::Path,
};
use ring::digest::{SHA256, digest};
use tokio::time::{Instant, sleep};
use url::Url;

use super::{
    address::Address,
    credentials,
    pace::Pace,
    refusal::{WireError, at_bottom},
    settings::S3Settings,
    wire::{self, Wire},
};
use crate::{backups::BackupStoreError, dial};

/// The pauses between tries grow from the first to the last.
const FIRST_PAUSE: Duration = Duration::from_millis(100);
const LAST_PAUSE: Duration = Duration::from_secs(10);
/// The bytes of an answer that is held as a whole, such as a page of a list.
const ANSWER_BYTES_MAX: usize = 16 * 1024 * 1024;

/// A bucket of a server, and a prefix in it.
#[derive(Debug)]
pub(super) struct Client {
    /// What the library does.
    pub(super) library: AmazonS3,
    pub(super) settings: S3Settings,
    pub(super) address: Address,
    bucket_url: Url,
    wire: Wire,
    credentials: AwsCredentialProvider,
}

/// An answer, read to its end.
pub(super) struct Answer {
    pub(super) headers: HeaderMap,
    pub(super) body: Bytes,
}

impl Client {
    /// The URL of what all its keys begin with.
    pub(super) fn place(&self) -> String {
        let bucket = self.bucket_url.as_str().trim_end_matches('/');
        let place = format!("{bucket}/{}", self.address.prefix);
        place.trim_end_matches('/').to_owned()
    }

    /// Begins nothing yet. What is wrong is told in words.
    pub(super) fn new(address: Address, settings: S3Settings) -> Result<Self, String> {
        let bucket_url = address.bucket_url(&settings)?;
        let trust = dial::trust(&bucket_url, settings.ca.as_deref())
            .map_err(|e| format!("cannot be used with COMPOSE_BROKER_S3_CA: {e}"))?;
        let pace = settings.bytes_per_second.map(|n| Arc::new(Pace::of(n)));
        let wire = Wire::to(&bucket_url, trust, pace);
        let told = |e: object_store::Error| format!("cannot be used: {e}");
        let credentials =
            credentials::provider(&settings.credentials, &settings.region, &wire).map_err(told)?;
        let builder = AmazonS3Builder::new()
            .with_http_connector(wire.clone())
            .with_client_options(ClientOptions::new().with_allow_http(true))
            .with_credentials(credentials.clone())
            .with_region(&settings.region)
            .with_bucket_name(&address.bucket)
            // The library's way to take an address with the bucket in it as it is.
            .with_virtual_hosted_style_request(true)
            .with_endpoint(bucket_url.as_str().trim_end_matches('/'))
            .with_retry(RetryConfig {
                backoff: BackoffConfig {
                    init_backoff: FIRST_PAUSE,
                    max_backoff: LAST_PAUSE,
                    base: 2.0,
                },
                max_retries: usize::MAX,
                retry_timeout: Duration::from_secs(settings.patience_seconds.into()),
            });
        let builder = match settings.sends_checksums {
            true => builder.with_checksum_algorithm(Checksum::SHA256),
            false => builder,
        };
        Ok(Self {
            library: builder.build().map_err(told)?,
            settings,
            address,
            bucket_url,
            wire,
            credentials,
        })
    }

    /// For how long a request is made again that came to nothing.
    pub(super) fn patience(&self) -> Duration {
        Duration::from_secs(self.settings.patience_seconds.into())
    }

    /// What an error of the library means, in the store's own words.
    pub(super) fn failed(
        &self,
        doing: &str,
    ) -> impl Fn(object_store::Error) -> BackupStoreError + use<> {
        let (place, doing) = (self.address.to_string(), doing.to_owned());
        move |error| at_bottom(&error).told(&place, &doing, 0)
    }

    /// The same of an error of our own requests.
    pub(super) fn refused(&self, doing: &str) -> impl Fn(WireError) -> BackupStoreError + use<> {
        let (place, doing) = (self.address.to_string(), doing.to_owned());
        move |error| error.told(&place, &doing, 0)
    }

    /// Sends a request without a body, to a key or to the bucket, as often as it takes within the patience
    /// that the settings say.
    pub(super) async fn ask(
        &self,
        method: Method,
        key: Option<&Path>,
        query: &[(&str, &str)],
    ) -> Result<Answer, WireError> {
        self.send((method, None), key, query).await
    }

    /// Puts something beside a key. Its SHA-256 goes along, for the server to compare.
    pub(super) async fn put_beside(
        &self,
        key: &Path,
        query: &[(&str, &str)],
        body: String,
    ) -> Result<Answer, WireError> {
        self.send((Method::PUT, Some(body)), Some(key), query).await
    }

    async fn send(
        &self,
        (method, body): (Method, Option<String>),
        key: Option<&Path>,
        query: &[(&str, &str)],
    ) -> Result<Answer, WireError> {
        let until = Instant::now() + self.patience();
        let mut pauses = pauses();
        loop {
            let asked = self.send_once((method.clone(), body.as_deref()), key, query);
            match asked.await {
                Err(error) if error.may_pass() && Instant::now() < until => {
                    log::debug!("{method} in {} is made again: {error}", self.address);
                    sleep(pauses.next().unwrap_or(LAST_PAUSE)).await;
                }
                result => return result,
            }
        }
    }

    async fn send_once(
        &self,
        (method, content): (Method, Option<&str>),
        key: Option<&Path>,
        query: &[(&str, &str)],
    ) -> Result<Answer, WireError> {
        let mut url = self.bucket_url.clone();
        if let Some(key) = key {
            let folder = url.path().trim_end_matches('/').to_owned();
            url.set_path(&format!("{folder}/{key}"));
        }
        if !query.is_empty() {
            url.query_pairs_mut().extend_pairs(query);
        }
        let unsound = |_| WireError::Unsound(url.to_string());
        let mut request = match content {
            None => HttpRequest::new(HttpRequestBody::empty()),
            Some(text) => {
                let sum = BASE64.encode(digest(&SHA256, text.as_bytes()));
                let mut request = HttpRequest::new(HttpRequestBody::from(text.to_owned()));
                let sum = HeaderValue::from_str(&sum).map_err(|_| WireError::Unsound(sum))?;
                request.headers_mut().insert("x-amz-checksum-sha256", sum);
                request
            }
        };
        *request.method_mut() = method;
        *request.uri_mut() = url.as_str().parse().map_err(unsound)?;
        let credential = self.credentials.get_credential().await;
        let credential = credential.map_err(|error| match &*at_bottom(&error) {
            WireError::NoCredentials(why) => WireError::NoCredentials(why.clone()),
            other => WireError::NoCredentials(other.to_string()),
        })?;
        AwsAuthorizer::new(&credential, "s3", &self.settings.region)
            .try_authorize(&mut request, None)
            .map_err(|error| WireError::Unsigned(error.to_string()))?;
        let (parts, body) = self.wire.send(request).await?.into_parts();
        Ok(Answer {
            headers: parts.headers,
            body: wire::read(body, ANSWER_BYTES_MAX).await?,
        })
    }
}

impl Answer {
    /// What the answer says in XML.
    pub(super) fn xml<T: serde::de::DeserializeOwned>(&self) -> Result<T, WireError> {
        let text = String::from_utf8_lossy(&self.body);
        quick_xml::de::from_str(&text).map_err(|error| WireError::Strange(error.to_string()))
    }

    /// What time it is for the server, where it says so.
    pub(super) fn time(&self) -> Option<DateTime<Utc>> {
        let date = self.headers.get(header::DATE)?.to_str().ok()?;
        let date = DateTime::parse_from_rfc2822(date).ok()?;
        Some(date.to_utc())
    }
}

/// The pauses between tries.
pub(super) fn pauses() -> impl Iterator<Item = Duration> + Send {
    std::iter::successors(Some(FIRST_PAUSE), |pause| {
        Some((*pause * 2).min(LAST_PAUSE))
    })
}
