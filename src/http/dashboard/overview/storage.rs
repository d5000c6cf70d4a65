//! How much one instance holds, and what can be done about it.

use crate::{
    broker::InstanceView,
    model::{
        defragment::Storage,
        health::DownReason,
        instance::InstanceState,
        limits::{QUOTA_NEAR_PERCENT, prefix::KEY_PREFIX_BYTES_MAX},
        observation::Observation,
        size::size,
    },
};

/// How much it holds, and what can be done about it.
pub(super) struct StorageCard {
    pub(super) usage: Option<Usage>,
    pub(super) quota: String,
    /// Why nobody knows how much of it is in use.
    pub(super) unseen: &'static str,
    pub(super) can_defragment: bool,
    /// Until when not, where that is so because the database is down.
    pub(super) no_defragmentation: Option<&'static str>,
    /// Whether it is full or nearly so: the form that makes room stands open.
    pub(super) wants_room: bool,
    pub(super) prefix_max: usize,
}

pub(super) struct Usage {
    pub(super) used: u64,
    pub(super) quota: u64,
    /// From here on somebody should do something.
    pub(super) near: u64,
    /// Beyond this it takes no more writes.
    pub(super) full: u64,
    pub(super) text: String,
    pub(super) tone: &'static str,
    /// What it means for who writes.
    pub(super) means: String,
    /// What of it holds something, and what giving the rest back would do.
    pub(super) held: String,
}

/// The card of what is seen.
pub(super) fn storage(
    view: &InstanceView,
    seen: Option<&Observation>,
    down: Option<DownReason>,
) -> StorageCard {
    let deployment = &view.of.deployment;
    let is_ready = view.of.instance.state == InstanceState::Ready;
    let usage = seen.and_then(|seen| usage(view, seen));
    let is_closed = is_ready && deployment.closed_since.is_some();
    let is_short = usage.as_ref().is_some_and(|usage| !usage.tone.is_empty());
    StorageCard {
        wants_room: is_ready && (is_closed || is_short),
        prefix_max: KEY_PREFIX_BYTES_MAX,
        quota: size(deployment.quota_bytes()),
        unseen: match view.database.is_elsewhere {
            true => "The broker on the members' machine sees how much of it is in use.",
            false => "The broker is asking how much of it is in use.",
        },
        can_defragment: is_ready && !is_closed && down.is_none(),
        no_defragmentation: down.and_then(DownReason::waits_until),
        usage,
    }
}

fn usage(view: &InstanceView, seen: &Observation) -> Option<Usage> {
    let quota = view.of.deployment.quota_bytes();
    let used = seen.database_bytes()?;
    let percent = match u128::from(used) * 100 / u128::from(quota.max(1)) {
        0 if used > 0 => "under 1".to_owned(),
        percent => percent.to_string(),
    };
    let near = quota / 100 * QUOTA_NEAR_PERCENT;
    let engine = &view.of.deployment.engine;
    let comes = match view.database.is_safe_full {
        true => format!("{engine} takes no more writes"),
        false => "nobody but the broker is let in any more".to_owned(),
    };
    let (tone, means) = match used {
        _ if view.of.deployment.closed_since.is_some() => (
            "bad",
            "It is full, and closed to its users until there is room. Ask for more units, or make room."
                .to_owned(),
        ),
        used if used >= quota || seen.is_full() => (
            "bad",
            format!("It is full: {comes}. Ask for more units, or delete keys."),
        ),
        used if used > near => (
            "warn",
            format!(
                "It is nearly full. At its quota {comes}. Ask for more units, or delete keys."
            ),
        ),
        _ => (
            "",
            format!("Storage of each member. At its quota {comes}."),
        ),
    };
    Some(Usage {
        used: used.min(quota),
        quota,
        near,
        full: quota.saturating_sub(1),
        tone,
        means,
        text: format!("{} of {} allocated ({percent} %)", size(used), size(quota)),
        held: Storage::of(seen).map_or_else(String::new, held),
    })
}

/// What of the files holds something, and what it would cost to have the rest back.
fn held(storage: Storage) -> String {
    let stall = storage.stall().as_secs();
    let cost = format!("each member in turn is unavailable for about {stall} s meanwhile");
    match (storage.used, storage.unused()) {
        (Some(used), Some(unused)) => format!(
            "{} of that hold data. Defragmenting would give {} back; {cost}.",
            size(used),
            size(unused)
        ),
        _ => format!(
            "This version does not say how much of that holds data. When it is defragmented, {cost}."
        ),
    }
}
