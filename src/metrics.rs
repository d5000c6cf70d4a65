//! What the broker counts of itself, and how all figures are written for Prometheus.
//!
//! Invariants: to count costs no more than a look into a map; no name or label comes from a client or a
//! tenant, but the ids of so many instances as the operator says; a page is made of what is in memory.

use std::{
    fmt,
    sync::{Arc, Mutex, MutexGuard, PoisonError, atomic::AtomicU64},
    time::Duration,
};

use prometheus_client::{
    encoding::text::{encode_eof, encode_registry},
    metrics::{
        counter::Counter,
        family::Family,
        gauge::Gauge,
        histogram::{Histogram, exponential_buckets},
    },
    registry::Registry,
};

use crate::model::{
    figures::Round,
    operation::{OperationKind, OperationState},
};

mod page;

pub use page::{Page, label, timestamp};

/// Names and values of labels.
pub type Labels = Vec<(&'static str, String)>;

/// In front of each name.
const PREFIX: &str = "compose_broker";
/// Methods of requests that are told by name.
const METHODS: [&str; 6] = ["GET", "HEAD", "PUT", "POST", "PATCH", "DELETE"];

type Source = Box<dyn Fn(&mut Page) + Send + Sync>;
type Histograms = Family<Labels, Histogram, fn() -> Histogram>;

/// What came of a try of a step.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Tried {
    /// It is done.
    Done,
    /// It is not done yet, and nothing failed.
    Again,
    /// It failed, and may do better.
    Failed,
    /// Its members did not answer, or are left alone since they do not.
    Silent,
    /// The machine or the store is short of something.
    Short,
    /// It failed for good.
    Refused,
}

impl Tried {
    fn as_str(self) -> &'static str {
        match self {
            Self::Done => "done",
            Self::Again => "again",
            Self::Failed => "failed",
            Self::Silent => "silent",
            Self::Short => "short",
            Self::Refused => "refused",
        }
    }
}

/// What became of messages to the operator's webhook.
#[derive(Debug, Default, Clone)]
struct Messages {
    sent: Counter,
    failed: Counter,
    given_up: Counter,
    /// How many wait, and for how long the first of them.
    waiting: Gauge,
    oldest: Gauge<f64, AtomicU64>,
}

impl Messages {
    fn register(&self, counted: &mut Registry) {
        counted.register(
            "webhook_messages_sent",
            "Messages that the webhook took",
            self.sent.clone(),
        );
        counted.register(
            "webhook_tries_failed",
            "Messages that the webhook did not take, each time they were sent",
            self.failed.clone(),
        );
        counted.register(
            "webhook_messages_given_up",
            "Messages that the webhook did not take in time, and that are lost",
            self.given_up.clone(),
        );
        counted.register(
            "webhook_messages_waiting",
            "Messages that the webhook has not taken yet",
            self.waiting.clone(),
        );
        counted.register(
            "webhook_oldest_age_seconds",
            "How long ago the oldest of these was made",
            self.oldest.clone(),
        );
    }
}

/// What is counted, and where the other figures come from.
pub struct Metrics {
    counted: Registry,
    requests: Family<Labels, Counter>,
    request_durations: Histograms,
    operations_ended: Family<Labels, Counter>,
    operation_durations: Histograms,
    tries: Family<Labels, Counter>,
    leases_lost: Counter,
    messages: Messages,
    /// Tell what changes all the time, when they are asked.
    sources: Mutex<Vec<Source>>,
    round: Mutex<Option<Arc<Round>>>,
    /// Instances that are told of one by one.
    instances_told: usize,
}

impl fmt::Debug for Metrics {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Metrics").finish_non_exhaustive()
    }
}

fn of_requests() -> Histogram {
    // 1 ms to 33 s.
    Histogram::new(exponential_buckets(0.001, 2.0, 16))
}

fn of_operations() -> Histogram {
    // 1 s to 4.5 h.
    Histogram::new(exponential_buckets(1.0, 2.0, 15))
}

impl Metrics {
    /// Nothing counted yet. Of so many instances each is told of by itself.
    pub fn new(instances_told: usize) -> Self {
        let (requests, operations_ended, tries) =
            (Family::default(), Family::default(), Family::default());
        let request_durations = Histograms::new_with_constructor(of_requests);
        let operation_durations = Histograms::new_with_constructor(of_operations);
        let leases_lost = Counter::default();
        let mut counted = Registry::with_prefix(PREFIX);
        counted.register(
            "http_requests",
            "Requests that were answered, by route and status",
            Family::clone(&requests),
        );
        counted.register(
            "http_request_duration_seconds",
            "How long requests took until their answers began",
            Family::clone(&request_durations),
        );
        counted.register(
            "operations_ended",
            "Operations that ended in this process, by what became of them",
            Family::clone(&operations_ended),
        );
        counted.register(
            "operation_duration_seconds",
            "How long operations took that succeeded, from their acceptance on",
            Family::clone(&operation_durations),
        );
        counted.register(
            "step_tries",
            "Tries of steps of operations, by what came of them",
            Family::clone(&tries),
        );
        counted.register(
            "leases_lost",
            "Operations that this process lost to another worker or to an operator",
            leases_lost.clone(),
        );
        let messages = Messages::default();
        messages.register(&mut counted);
        Self {
            counted,
            requests,
            request_durations,
            operations_ended,
            operation_durations,
            tries,
            leases_lost,
            messages,
            sources: Mutex::default(),
            round: Mutex::default(),
            instances_told,
        }
    }

    /// Counts a request. `route` is the pattern of its path; none where no route leads there.
    pub fn request(&self, method: &str, route: Option<String>, status: u16, took: Duration) {
        let method = METHODS.iter().find(|known| **known == method);
        let method = method.map_or("other", |known| known);
        let of_route = vec![
            label("method", method),
            label("route", route.as_deref().unwrap_or("none")),
        ];
        let durations = self.request_durations.get_or_create(&of_route);
        durations.observe(took.as_secs_f64());
        drop(durations);
        let mut labels = of_route;
        labels.push(label("status", &status.to_string()));
        self.requests.get_or_create(&labels).inc();
    }

    /// Counts an operation that ended so long after it was accepted.
    pub fn operation_ended(&self, kind: OperationKind, state: OperationState, took: Duration) {
        let mut labels = vec![label("kind", kind.as_str())];
        if state == OperationState::Succeeded {
            let durations = self.operation_durations.get_or_create(&labels);
            durations.observe(took.as_secs_f64());
        }
        labels.push(label("state", state.as_str()));
        self.operations_ended.get_or_create(&labels).inc();
    }

    /// Counts a try of a step.
    pub fn tried(&self, kind: OperationKind, tried: Tried) {
        let labels = vec![
            label("kind", kind.as_str()),
            label("outcome", tried.as_str()),
        ];
        self.tries.get_or_create(&labels).inc();
    }

    /// Counts an operation whose claim is somebody else's by now.
    pub fn lease_lost(&self) {
        self.leases_lost.inc();
    }

    /// Counts a message that the webhook took, or did not.
    pub fn message_sent(&self, was_taken: bool) {
        if was_taken {
            self.messages.sent.inc();
        } else {
            self.messages.failed.inc();
        }
    }

    /// Counts messages that are given up.
    pub fn messages_given_up(&self, count: u64) {
        self.messages.given_up.inc_by(count);
    }

    /// Keeps how many messages wait for the webhook, and how old the oldest of them is.
    pub fn set_messages_waiting(&self, count: u64, oldest: Duration) {
        let count = i64::try_from(count).unwrap_or(i64::MAX);
        self.messages.waiting.set(count);
        self.messages.oldest.set(oldest.as_secs_f64());
    }

    /// Has something asked for its figures at each scrape. It waits for nothing.
    pub fn add_source(&self, source: impl Fn(&mut Page) + Send + Sync + 'static) {
        lock(&self.sources).push(Box::new(source));
    }

    /// Of how many instances each is told of by itself.
    pub fn instances_told(&self) -> usize {
        self.instances_told
    }

    /// Keeps what was seen at the last round.
    pub fn set_round(&self, round: Round) {
        *lock(&self.round) = Some(Arc::new(round));
    }

    /// A page for a scrape, with `more` on it.
    pub fn page(&self, more: impl FnOnce(&mut Page)) -> String {
        let mut page = Page::new(PREFIX);
        more(&mut page);
        for source in lock(&self.sources).iter() {
            source(&mut page);
        }
        if let Some(round) = lock(&self.round).clone() {
            page.round(&round);
        }
        let mut text = String::new();
        let written = encode_registry(&mut text, &self.counted)
            .and_then(|()| encode_registry(&mut text, &page.registry()))
            .and_then(|()| encode_eof(&mut text));
        // A text takes all that is written to it. Without its end no scraper believes it.
        if written.is_err() {
            log::error!("the metrics cannot be written");
        }
        text
    }
}

fn lock<T>(of: &Mutex<T>) -> MutexGuard<'_, T> {
    // Every change is one assignment, so it is whole even after a panic.
    of.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_client_sends_makes_no_label() {
        let metrics = Metrics::new(0);
        let took = Duration::from_millis(3);
        metrics.request("GET", Some("/v2/catalog".to_owned()), 200, took);
        for method in ["BREW", "PROPFIND", "get"] {
            metrics.request(method, None, 404, took);
        }
        let page = metrics.page(|_| ());
        let told = |line: &str| assert!(page.lines().any(|l| l == line), "{line}: {page}");
        told(
            r#"compose_broker_http_requests_total{method="GET",route="/v2/catalog",status="200"} 1"#,
        );
        told(r#"compose_broker_http_requests_total{method="other",route="none",status="404"} 3"#);
        told(
            r#"compose_broker_http_request_duration_seconds_count{method="GET",route="/v2/catalog"} 1"#,
        );
        told("compose_broker_leases_lost_total 0");
        assert!(
            page.ends_with("# EOF\n") && !page.contains("BREW"),
            "{page}"
        );
    }

    #[test]
    fn operations_are_counted_by_their_ends_and_timed_when_they_succeed() {
        let metrics = Metrics::new(0);
        let (kind, took) = (OperationKind::Backup, Duration::from_secs(3));
        metrics.operation_ended(kind, OperationState::Succeeded, took);
        metrics.operation_ended(kind, OperationState::Failed, took);
        metrics.tried(kind, Tried::Silent);
        let page = metrics.page(|_| ());
        for line in [
            r#"compose_broker_operations_ended_total{kind="backup",state="failed"} 1"#,
            r#"compose_broker_operation_duration_seconds_count{kind="backup"} 1"#,
            r#"compose_broker_step_tries_total{kind="backup",outcome="silent"} 1"#,
        ] {
            assert!(page.lines().any(|l| l == line), "{line}: {page}");
        }
    }
}
