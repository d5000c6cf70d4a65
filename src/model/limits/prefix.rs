//! Limits of parts of a database, by what their keys begin with.

use std::time::Duration;

/// Longest key prefix that a binding may be held to, or that is restored, in bytes.
pub const KEY_PREFIX_BYTES_MAX: usize = 1024;

/// Bytes of keys and values that are read at a time, about. A client takes an answer of 4 MiB at most.
pub const PREFIX_PAGE_BYTES: u64 = 1024 * 1024;
/// Keys that are read at first: nobody knows yet how large values are.
pub const PREFIX_PAGE_KEYS_FIRST: i64 = 16;
/// Keys that are read at a time.
pub const PREFIX_PAGE_KEYS_MAX: i64 = 1000;
/// Keys that are changed in one transaction: half of what a database takes that was set up by nobody.
pub const PREFIX_BATCH_KEYS: usize = 64;
/// Bytes that are written in one transaction, if it has more than one key: a third of what such a database takes.
pub const PREFIX_BATCH_BYTES: u64 = 512 * 1024;
/// For so long keys are put back between two looks whether another worker has taken over.
pub const PREFIX_SLICE_TIME: Duration = Duration::from_secs(5);
