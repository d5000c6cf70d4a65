//! Counts the bytes of a step while they pass.

use std::sync::{
    Arc,
    atomic::{AtomicU64, Ordering},
};

use futures::StreamExt as _;

use crate::stream::ByteStream;

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

    /// Counts the bytes of `stream` towards `total` while they pass.
    pub fn count(self: &Arc<Self>, total: u64, stream: ByteStream) -> ByteStream {
        self.begin(total);
        let meter = self.clone();
        let mut passed = 0;
        stream
            .inspect(move |chunk| {
                if let Ok(chunk) = chunk {
                    passed += chunk.len() as u64;
                    meter.set(passed);
                }
            })
            .boxed()
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
