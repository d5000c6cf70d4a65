//! What tasks of this process hear of changes of operations: each of what it waits for, and of nothing else.
//! In a burst some hundred transactions a second accept operations, and a task that heard of those without
//! need would ask the store as often.

use tokio::sync::watch;

/// What was done to operations, one or more.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Changed {
    /// They may be begun from now on, or sooner than before.
    pub(super) queued: bool,
    /// They were told to halt.
    pub(super) halted: bool,
    /// They have ended.
    pub(super) ended: bool,
}

impl Changed {
    /// This and that.
    pub(super) fn and(self, other: Self) -> Self {
        Self {
            queued: self.queued || other.queued,
            halted: self.halted || other.halted,
            ended: self.ended || other.ended,
        }
    }
}

/// Tells tasks of it. What they get counts how often there was something.
#[derive(Clone, Default)]
pub(super) struct Changes {
    pub(super) all: watch::Sender<u64>,
    pub(super) halts: watch::Sender<u64>,
    pub(super) ends: watch::Sender<u64>,
}

impl Changes {
    /// Tells of what is durable.
    pub(super) fn tell(&self, of: Changed) {
        for (told, is_so) in [
            (&self.all, of.queued || of.halted || of.ended),
            (&self.halts, of.halted),
            (&self.ends, of.ended),
        ] {
            if is_so {
                told.send_modify(|count| *count = count.wrapping_add(1));
            }
        }
    }
}
