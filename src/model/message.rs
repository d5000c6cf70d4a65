//! What the operator's webhook is told: each change of an alert, once. Pure: the caller brings what was
//! told, what is seen, and the time.
//!
//! Invariants: what comes and goes again within [`Settling`]'s time is never told; what nobody could look
//! at has not ended; of a change that waits to be told, the next one takes the place.

use std::{
    collections::{HashMap, HashSet},
    fmt,
    path::PathBuf,
    time::Duration,
};

use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};
use url::Url;

use super::{
    alert::{Alert, Gravity, Subject},
    figures::InstanceSeen,
    ids::{InstanceId, MessageId},
    limits::{MESSAGE_SUBJECT_CHARS_MAX, MESSAGE_TEXT_CHARS_MAX},
    remembered::Roll,
    secret::Secret,
};

/// How grave an alert must be for the operator to be told.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Threshold {
    /// Critical.
    Critical,
    /// Something will go wrong, or nobody can say.
    Warning,
    /// Whatever it is.
    Notice,
}

impl Threshold {
    /// The threshold that is called so.
    pub fn parse(text: &str) -> Option<Self> {
        match text {
            "critical" => Some(Self::Critical),
            "warning" => Some(Self::Warning),
            "notice" => Some(Self::Notice),
            _ => None,
        }
    }

    /// Whether the operator is told of alerts as grave as this.
    pub fn includes(self, gravity: Gravity) -> bool {
        match self {
            Self::Critical => gravity == Gravity::Critical,
            Self::Warning => gravity != Gravity::Notice,
            Self::Notice => true,
        }
    }
}

/// Where the operator wants to be told, and how.
#[derive(Clone)]
pub struct Webhook {
    /// Who gets the messages. It may have a secret in its path.
    pub url: Url,
    /// What messages are signed with, each in base64; the newest in front.
    pub secrets: Vec<Secret>,
    /// The authorities that the receiver's certificate may be of; absent: those of the machine.
    pub ca: Option<PathBuf>,
    /// What is told.
    pub threshold: Threshold,
}

impl Webhook {
    /// The receiver without what may be secret: scheme, host and port.
    pub fn place(&self) -> String {
        self.url.origin().ascii_serialization()
    }
}

impl fmt::Debug for Webhook {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Webhook")
            .field("place", &self.place())
            .finish_non_exhaustive()
    }
}

/// What became of an alert.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum AlertChange {
    /// It began.
    #[serde(rename = "alert.opened")]
    Opened,
    /// It is graver, or less grave, than before.
    #[serde(rename = "alert.changed")]
    Changed,
    /// It is over.
    #[serde(rename = "alert.ended")]
    Ended,
}

/// A message, as the receiver gets it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Message {
    /// The receiver knows by it what it has got already.
    pub id: MessageId,
    /// What became of the alert.
    #[serde(rename = "type")]
    pub turn: AlertChange,
    /// When that was seen.
    pub timestamp: DateTime<Utc>,
    /// What it is about.
    pub data: MessageData,
}

/// What is told of an alert.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct MessageData {
    /// Where clients reach the broker.
    pub broker: String,
    /// The instance.
    pub instance: InstanceData,
    /// The alert.
    pub alert: AlertData,
}

/// What is told of an instance.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct InstanceData {
    /// Which one.
    pub id: InstanceId,
    /// Where it is.
    pub cluster: String,
    /// Its plan's name.
    pub plan: String,
    /// Its kind of database.
    pub engine: String,
    /// The version that runs.
    pub version: String,
    /// Its page.
    pub page: String,
}

/// What is told of an alert beside its instance.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct AlertData {
    /// What it is about, for programs.
    pub about: String,
    /// The member that it is about; null when it is about the whole.
    pub member: Option<String>,
    /// How bad it is; when it has ended, how bad it was last.
    pub severity: String,
    /// How bad it was before it changed; null when it did not.
    pub previous_severity: Option<String>,
    /// Since when it is so; where nobody knows, when it was sent as open.
    pub since: DateTime<Utc>,
    /// What it is and what can be done, for people.
    pub message: String,
}

impl Message {
    /// Tells that an alert began at `now`.
    pub fn opened(broker: &str, instance: InstanceData, alert: &Alert, now: DateTime<Utc>) -> Self {
        let told = AlertData {
            about: alert.subject.as_str().to_owned(),
            member: alert.member.clone(),
            severity: alert.gravity.as_str().to_owned(),
            previous_severity: None,
            since: alert.since.unwrap_or(now),
            message: shortened(&alert.message, MESSAGE_TEXT_CHARS_MAX),
        };
        let data = MessageData {
            broker: broker.to_owned(),
            instance,
            alert: told,
        };
        Self::new(AlertChange::Opened, data, now)
    }

    /// Tells that an alert that was told is graver, or less grave, from `now` on.
    pub fn changed(
        before: &MessageData,
        instance: InstanceData,
        alert: &Alert,
        now: DateTime<Utc>,
    ) -> Self {
        let mut message = Self::opened(&before.broker, instance, alert, now);
        message.turn = AlertChange::Changed;
        message.data.alert.previous_severity = Some(before.alert.severity.clone());
        message.data.alert.since = before.alert.since;
        message
    }

    /// Tells that an alert that was told is over at `now`.
    pub fn ended(mut told: MessageData, now: DateTime<Utc>) -> Self {
        told.alert.previous_severity = None;
        Self::new(AlertChange::Ended, told, now)
    }

    fn new(turn: AlertChange, data: MessageData, now: DateTime<Utc>) -> Self {
        Self {
            id: MessageId::generate(now),
            turn,
            timestamp: now,
            data,
        }
    }
}

/// A message that tells of no alert: operators who set a webhook up see by it that messages come.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct TestMessage {
    /// As that of [`Message`].
    pub id: MessageId,
    #[serde(rename = "type")]
    kind: &'static str,
    timestamp: DateTime<Utc>,
    data: TestData,
}

/// What a test message says.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
struct TestData {
    broker: String,
    message: &'static str,
}

impl TestMessage {
    /// One of the broker that clients reach there.
    pub fn new(broker: &str, now: DateTime<Utc>) -> Self {
        Self {
            id: MessageId::generate(now),
            kind: "test",
            timestamp: now,
            data: TestData {
                broker: broker.to_owned(),
                message: "This is a test that an operator asked for. No alert began or ended.",
            },
        }
    }
}

impl InstanceData {
    /// Of an instance that was seen, and its page.
    pub fn of(seen: &InstanceSeen, page: String) -> Self {
        Self {
            id: seen.id.clone(),
            cluster: seen.cluster.clone(),
            plan: seen.plan.clone(),
            engine: seen.engine.clone(),
            version: seen.version.clone(),
            page,
        }
    }
}

fn shortened(text: &str, chars: usize) -> String {
    match text.char_indices().nth(chars) {
        None => text.to_owned(),
        Some((end, _)) => format!("{}…", &text[..end]),
    }
}

/// What an alert is called while it lasts; no other one of its instance is called so.
pub fn key(subject: &Subject) -> String {
    let word = subject.as_str();
    match subject {
        Subject::Member(name) | Subject::Complaint(name) => {
            shortened(&format!("{word} {name}"), MESSAGE_SUBJECT_CHARS_MAX)
        }
        Subject::Incident(at) => format!("{word} {}", at.timestamp_micros()),
        _ => word.to_owned(),
    }
}

/// Whether only a look at the members tells that the alert is over.
fn needs_a_look(key: &str) -> bool {
    let word = key.split(' ').next();
    matches!(word, Some("member" | "complaint" | "storage"))
}

/// What has become of an instance's alerts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Change {
    /// This one began.
    Opened(Alert),
    /// This one, which is called so, is as grave as this now.
    Changed(String, Alert),
    /// The one that is called so is over.
    Ended(String),
}

/// The alerts of an instance, as far as they have been so for a while.
#[derive(Debug, Clone, Default)]
pub struct Settled {
    alerts: Vec<Alert>,
    /// What may be over, or is of another gravity, since a moment ago only.
    unsettled: HashSet<String>,
    /// Nothing that is not there is known to be over.
    none_ended: bool,
    was_looked_at: bool,
}

impl Settled {
    /// What has changed since the alerts of these names and gravities were told.
    pub fn changes(&self, told: &[(String, Gravity)]) -> Vec<Change> {
        let found: Vec<(String, &Alert)> = self
            .alerts
            .iter()
            .map(|alert| (key(&alert.subject), alert))
            .collect();
        let has_ended = |of: &String| {
            let is_there = found.iter().any(|(key, _)| key == of) || self.unsettled.contains(of);
            !is_there && !self.none_ended && (self.was_looked_at || !needs_a_look(of))
        };
        let ended = told.iter().map(|(key, _)| key).filter(|key| has_ended(key));
        let ended = ended.cloned().map(Change::Ended);
        let others = found.iter().filter_map(|(key, alert)| {
            let before = told.iter().find(|(told, _)| told == key);
            match before {
                None => Some(Change::Opened((*alert).clone())),
                Some((_, gravity)) if *gravity != alert.gravity => {
                    Some(Change::Changed(key.clone(), (*alert).clone()))
                }
                Some(_) => None,
            }
        });
        ended.chain(others).collect()
    }
}

/// Remembers how long alerts have been as they are, so that nobody is told of what comes and goes: a
/// member that is started anew, a size about a limit.
#[derive(Debug, Default)]
pub struct Settling {
    /// What has been so for so long is told.
    time: Duration,
    known: Roll<Known>,
}

#[derive(Debug)]
struct Known {
    since: Duration,
    /// As grave as this, or not there, since when.
    alerts: HashMap<String, (Option<Gravity>, Duration)>,
}

impl Settling {
    /// Tells what has been so for this time.
    pub fn over(time: Duration) -> Self {
        Self {
            time,
            known: Roll::default(),
        }
    }

    /// Takes up the alerts that an instance has `now`; returns what of them has been so for a while.
    pub fn settle(
        &mut self,
        instance: &InstanceId,
        found: Vec<Alert>,
        was_looked_at: bool,
        now: Duration,
    ) -> Settled {
        let known = self.known.seen(instance, || Known {
            since: now,
            alerts: HashMap::new(),
        });
        let is_settled = |since: Duration| now.saturating_sub(since) >= self.time;
        let mut settled = Settled {
            none_ended: !is_settled(known.since),
            was_looked_at,
            ..Settled::default()
        };
        let mut there = HashSet::new();
        for alert in found {
            let key = key(&alert.subject);
            // The worst of a name is in front.
            if !there.insert(key.clone()) {
                continue;
            }
            let gravity = Some(alert.gravity);
            let (before, since) = known.alerts.entry(key.clone()).or_insert((gravity, now));
            if *before != gravity {
                (*before, *since) = (gravity, now);
            }
            if is_settled(*since) {
                settled.alerts.push(alert);
            } else {
                settled.unsettled.insert(key);
            }
        }
        known.alerts.retain(|key, (gravity, since)| {
            if there.contains(key) || (!was_looked_at && needs_a_look(key)) {
                return true;
            }
            if gravity.is_some() {
                (*gravity, *since) = (None, now);
            }
            if is_settled(*since) {
                return false;
            }
            settled.unsettled.insert(key.clone());
            true
        });
        settled
    }

    /// Ends a round over all instances: forgets those that were not seen at it.
    pub fn forget_gone(&mut self) {
        self.known.forget_gone();
    }
}

#[cfg(test)]
mod tests;
