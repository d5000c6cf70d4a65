//! Brings the messages of the outbox to the operator's webhook: signed, one after the other, and again with
//! growing pauses until they are taken.
//!
//! Invariants: a message leaves the outbox only when the webhook took it, or when its time is over; each try
//! has an end; no redirect is followed and no answer's body is read; the log tells nothing of the address but
//! its host.

use std::{sync::Arc, time::Duration};

use base64::{Engine as _, engine::general_purpose::STANDARD as BASE64};
use bytes::Bytes;
use futures::future::BoxFuture;
use http_body_util::Full;
use hyper::{Method, client::conn::http1, header};
use hyper_util::rt::TokioIo;
use ring::hmac;
use tokio::time::{sleep, timeout};
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use crate::{
    broker::{BrokerError, Messenger, Outbox},
    clock::Clock,
    dial::{self, DialError, Trust, dial, trust},
    metrics::Metrics,
    model::{
        backoff::backoff,
        failure::chain,
        ids::MessageId,
        limits::{
            OUTBOX_LOOK, WEBHOOK_ANSWER_BYTES_MAX, WEBHOOK_PAUSE_FIRST, WEBHOOK_PAUSE_MAX,
            WEBHOOK_SILENCE_MAX, WEBHOOK_TIMEOUT,
        },
        message::Webhook,
        secret::Secret,
    },
};

/// Names of the headers of a message, as the Standard Webhooks have them.
const ID: &str = "webhook-id";
const TIMESTAMP: &str = "webhook-timestamp";
const SIGNATURE: &str = "webhook-signature";

/// Why a message was not taken.
#[derive(Debug, thiserror::Error)]
enum SendError {
    /// Nobody takes the connection.
    #[error("it cannot be reached")]
    Dial(#[from] DialError),
    /// The connection broke off.
    #[error("it gave no answer")]
    Lost(#[from] hyper::Error),
    /// It took too long.
    #[error("it gave no answer within {} s", WEBHOOK_TIMEOUT.as_secs())]
    Late,
    /// It answered that it does not take it.
    #[error("it answered with status {status}{}", advice(*.status))]
    Refused {
        /// The status.
        status: u16,
    },
    /// The message cannot be sent.
    #[error("the message cannot be sent")]
    Unsound(#[from] hyper::http::Error),
    /// A secret is no base64, though that was checked.
    #[error("a secret of the webhook is no base64")]
    Secret(#[from] base64::DecodeError),
}

impl SendError {
    /// Whether others would not be taken either.
    fn concerns_all(&self) -> bool {
        match self {
            Self::Dial(_) | Self::Lost(_) | Self::Late => true,
            Self::Refused { status } => *status >= 500 || *status == 429,
            Self::Unsound(_) | Self::Secret(_) => false,
        }
    }
}

fn advice(status: u16) -> &'static str {
    match status {
        300..=399 => "; redirects are not followed: give the address that it leads to",
        401 | 403 => "; does it check signatures with the same secret?",
        404 | 405 => "; is the path of the address right?",
        _ => "",
    }
}

/// Sends single messages to the webhook.
#[derive(Clone)]
pub struct Sender {
    webhook: Webhook,
    clock: Clock,
}

/// Brings messages to the webhook.
pub struct Courier {
    sender: Sender,
    outbox: Arc<Outbox>,
    metrics: Arc<Metrics>,
    /// How often in a row it took nothing.
    failures: u32,
    /// Whether the log was told that the store does not answer.
    is_store_down: bool,
}

impl Courier {
    /// One that sends by this sender.
    pub fn new(sender: Sender, outbox: Arc<Outbox>, metrics: Arc<Metrics>) -> Self {
        Self {
            sender,
            outbox,
            metrics,
            failures: 0,
            is_store_down: false,
        }
    }

    /// Sends until `stop`. What is being sent then is sent again by the next start.
    pub async fn run(mut self, stop: CancellationToken) {
        log::info!(webhook:% = self.sender.webhook.place(); "alerts are sent to the webhook");
        while !stop.is_cancelled() {
            let pause = match stop.run_until_cancelled(self.send_due()).await {
                None => break,
                Some(Ok(pause)) => {
                    self.is_store_down = false;
                    pause
                }
                Some(Err(error)) => {
                    if !self.is_store_down {
                        log::error!("cannot look for messages: {}", chain(&error));
                    }
                    self.is_store_down = true;
                    OUTBOX_LOOK
                }
            };
            tokio::select! {
                () = stop.cancelled() => {}
                () = sleep(pause) => {}
            }
        }
        if let Err(error) = self.outbox.let_go().await {
            log::warn!(
                "another broker has to wait before it sends alerts: {}",
                chain(&error)
            );
        }
    }

    /// Sends what is due; returns after which time to look again.
    async fn send_due(&mut self) -> Result<Duration, BrokerError> {
        if !self.outbox.is_ours().await? {
            self.metrics.set_messages_waiting(0, Duration::ZERO);
            return Ok(OUTBOX_LOOK);
        }
        self.give_up().await?;
        let mut pause = OUTBOX_LOOK;
        let due = self.outbox.due().await?;
        for message in due {
            if !self.outbox.is_ours().await? {
                break;
            }
            let sent = self.sender.send(&message.id, message.body).await;
            self.metrics.message_sent(sent.is_ok());
            let Err(error) = sent else {
                self.outbox.was_taken(message.id).await?;
                self.is_taken_again().await?;
                // There may be more, and what stood behind this one is due now.
                pause = Duration::ZERO;
                continue;
            };
            let tries = message.tries.saturating_add(1);
            self.log_failure(&message.id, tries, &error);
            let next = jittered(backoff(tries, WEBHOOK_PAUSE_FIRST, WEBHOOK_PAUSE_MAX));
            self.outbox.was_not_taken(message.id, next).await?;
            if error.concerns_all() {
                self.failures = self.failures.saturating_add(1);
                let first = OUTBOX_LOOK.min(WEBHOOK_PAUSE_FIRST);
                pause = jittered(backoff(self.failures, first, WEBHOOK_SILENCE_MAX));
                break;
            }
        }
        let standing = self.outbox.backlog().await?;
        let oldest = standing.oldest.to_std().unwrap_or_default();
        self.metrics.set_messages_waiting(standing.waiting, oldest);
        Ok(pause)
    }

    /// What waits for its next try need not wait any more when the webhook is back.
    async fn is_taken_again(&mut self) -> Result<(), BrokerError> {
        if self.failures == 0 {
            return Ok(());
        }
        log::info!(webhook:% = self.sender.webhook.place(); "the webhook takes messages again");
        self.failures = 0;
        self.outbox.hurry().await
    }

    async fn give_up(&self) -> Result<(), BrokerError> {
        let lost = self.outbox.give_up().await?;
        for message in &lost {
            log::error!(instance:% = message.instance, message:% = message.id, tries = message.tries;
                "the webhook did not take a message in time: it is lost");
        }
        let count = u64::try_from(lost.len()).unwrap_or(u64::MAX);
        self.metrics.messages_given_up(count);
        Ok(())
    }

    /// Tells the log, at the first time and then ever more seldom.
    fn log_failure(&self, id: &MessageId, tries: u32, error: &SendError) {
        if tries.is_power_of_two() && (self.failures == 0 || !error.concerns_all() || tries > 1) {
            log::warn!(message:% = id, tries, webhook:% = self.sender.webhook.place();
                "the webhook did not take a message: {}", chain(error));
        }
    }
}

impl Sender {
    /// One for this webhook.
    pub fn new(webhook: Webhook, clock: Clock) -> Self {
        Self { webhook, clock }
    }

    async fn send(&self, id: &MessageId, body: String) -> Result<(), SendError> {
        let sending = async {
            let trust = self.trust().await?;
            self.exchange(id, body, trust.as_ref()).await
        };
        let status = timeout(WEBHOOK_TIMEOUT, sending)
            .await
            .unwrap_or(Err(SendError::Late))?;
        if (200..300).contains(&status) {
            Ok(())
        } else {
            Err(SendError::Refused { status })
        }
    }

    /// Whom to trust: read anew each time, since files change.
    async fn trust(&self) -> Result<Option<Trust>, DialError> {
        let (url, ca) = (self.webhook.url.clone(), self.webhook.ca.clone());
        let reading = tokio::task::spawn_blocking(move || trust(&url, ca.as_deref()));
        reading.await.unwrap_or(Err(DialError::NoAuthorities))
    }

    async fn exchange(
        &self,
        id: &MessageId,
        body: String,
        trust: Option<&Trust>,
    ) -> Result<u16, SendError> {
        let url = &self.webhook.url;
        let at = self.clock.now().timestamp();
        let request = dial::request(url)
            .method(Method::POST)
            .header(header::CONTENT_TYPE, "application/json")
            .header(header::CONNECTION, "close")
            .header(ID, id.as_str())
            .header(TIMESTAMP, at)
            .header(
                SIGNATURE,
                signatures(&self.webhook.secrets, id.as_str(), at, &body)?,
            )
            .body(Full::new(Bytes::from(body)))?;
        let stream = dial(url, trust).await?;
        let (mut sender, connection) = http1::Builder::new()
            .max_buf_size(WEBHOOK_ANSWER_BYTES_MAX)
            .handshake(TokioIo::new(stream))
            .await?;
        let connection = tokio::spawn(connection);
        let answer = sender.send_request(request).await;
        // Whatever it still sends, nobody reads.
        connection.abort();
        Ok(answer?.status().as_u16())
    }
}

impl Messenger for Sender {
    fn place(&self) -> String {
        self.webhook.place()
    }

    fn try_once(&self, id: MessageId, body: String) -> BoxFuture<'static, Result<(), String>> {
        let sender = self.clone();
        Box::pin(async move { sender.send(&id, body).await.map_err(|error| chain(&error)) })
    }
}

/// The signatures of a message, one with each secret.
fn signatures(
    secrets: &[Secret],
    id: &str,
    at: i64,
    body: &str,
) -> Result<String, base64::DecodeError> {
    let signed = format!("{id}.{at}.{body}");
    let sign = |secret: &Secret| {
        let secret = zeroize::Zeroizing::new(BASE64.decode(secret.expose())?);
        let key = hmac::Key::new(hmac::HMAC_SHA256, &secret);
        let signature = BASE64.encode(hmac::sign(&key, signed.as_bytes()));
        Ok(format!("v1,{signature}"))
    };
    let all: Result<Vec<String>, _> = secrets.iter().map(sign).collect();
    Ok(all?.join(" "))
}

/// A pause between half of it and all of it, so that brokers do not come all at once.
fn jittered(pause: Duration) -> Duration {
    let (random, _) = Uuid::new_v4().as_u64_pair();
    let part = u32::try_from(random % 512).unwrap_or_default();
    pause / 2 + pause / 1024 * part
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn signatures_are_those_of_the_standard_webhooks() {
        // The example of the specification.
        let secrets = [Secret::new("MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw")];
        let signed = signatures(
            &secrets,
            "msg_p5jXN8AQM9LWM0D4loKWxJek",
            1_614_265_330,
            r#"{"test": 2432232314}"#,
        );
        assert_eq!(
            signed.expect("signed"),
            "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE="
        );
    }

    #[test]
    fn pauses_differ_and_are_never_longer() {
        let pause = Duration::from_secs(300);
        let some: Vec<Duration> = (0..50).map(|_| jittered(pause)).collect();
        assert!(some.iter().all(|of| *of >= pause / 2 && *of <= pause));
        assert!(some.iter().any(|of| *of != some[0]));
    }
}
