//! Counts the bytes of a step while they pass.

use std::sync::atomic::{AtomicU64, Ordering};

/// Bytes done and in all. Steps count, the runner writes it down now and then.
#[derive(Debug, Default)]
pub struct Meter {
    done: AtomicU64,
    total: AtomicU64,
}

impl Meter {
    /// Begins to count towards `total` bytes.
    pub fn begin(&self, total: u64) {
        self.done.store(0, Ordering::Relaxed);
        self.total.store(total, Ordering::Relaxed);
    }

    /// So many bytes are done by now.
    pub fn set(&self, done: u64) {
        self.done.store(done, Ordering::Relaxed);
    }

    /// Bytes done, bytes in all.
    pub fn reading(&self) -> (u64, u64) {
        let (done, total) = (
            self.done.load(Ordering::Relaxed),
            self.total.load(Ordering::Relaxed),
        );
        (done.min(total), total)
    }
}
