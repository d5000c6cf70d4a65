//! Whether the operator's webhook takes messages: asked by one that tells of nothing.

use std::sync::Arc;

use futures::future::BoxFuture;

use super::{BrokerError, BrokerParts};
use crate::{
    clock::Clock,
    model::{ids::MessageId, message::TestMessage},
};

/// Brings messages to the operator's webhook.
pub trait Messenger: Send + Sync {
    /// The webhook without what may be secret: scheme, host and port.
    fn place(&self) -> String;

    /// Sends a message once. Why it was not taken, where it was not.
    fn try_once(&self, id: MessageId, body: String) -> BoxFuture<'static, Result<(), String>>;
}

/// What came of a test message.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Tested {
    /// The message.
    pub id: MessageId,
    /// Where it went, without what may be secret.
    pub webhook: String,
    /// Why it was not taken; none when it was.
    pub refusal: Option<String>,
}

/// Tries the operator's webhook out.
pub struct WebhookTests {
    messenger: Option<Arc<dyn Messenger>>,
    clock: Clock,
    public_url: String,
}

impl WebhookTests {
    pub(super) fn new(parts: &BrokerParts) -> Self {
        Self {
            messenger: parts.messenger.clone(),
            clock: parts.clock.clone(),
            public_url: parts.public_url.clone(),
        }
    }

    /// Where alerts go, without what may be secret; none where they go nowhere.
    pub fn place(&self) -> Option<String> {
        self.messenger.as_ref().map(|messenger| messenger.place())
    }

    /// Sends a message that says only that it is a test, once, past all that waits.
    pub async fn send(&self) -> Result<Tested, BrokerError> {
        let Some(messenger) = &self.messenger else {
            let text = "alerts go to no webhook: set COMPOSE_BROKER_WEBHOOK_URL and \
                        COMPOSE_BROKER_WEBHOOK_SECRET, and start the broker anew";
            return Err(BrokerError::Conflict(text.to_owned()));
        };
        let message = TestMessage::new(&self.public_url, self.clock.now());
        let body = serde_json::to_string(&message)?;
        let sent = messenger.try_once(message.id.clone(), body).await;
        Ok(Tested {
            id: message.id,
            webhook: messenger.place(),
            refusal: sent.err(),
        })
    }
}
