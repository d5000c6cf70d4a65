//! What handlers have at hand.

use std::sync::Arc;

use super::{origin::Rates, readiness::Readiness, scrapes::Scrapes};
use crate::{
    broker::Broker,
    metrics::Metrics,
    model::{proxy::TrustedProxies, secret::Credentials},
};

/// What the handlers work with.
pub struct Api {
    /// The use cases.
    pub broker: Arc<Broker>,
    /// The platforms' credentials; each of them lets in.
    pub credentials: Vec<Credentials>,
    /// Credentials that read what the operator reads, and change nothing.
    pub read_only: Vec<Credentials>,
    /// Whose word counts about where a request comes from.
    pub proxies: TrustedProxies,
    /// What was found when somebody last asked whether the broker is ready.
    pub readiness: Arc<Readiness>,
    /// How many requests are taken of each client; absent: any number.
    pub rates: Option<Rates>,
    /// What is counted, and told to scrapes.
    pub metrics: Arc<Metrics>,
    /// Who may scrape, and what scrapes were told last.
    pub scrapes: Scrapes,
}
