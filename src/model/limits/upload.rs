//! Limits of backups that users bring along.

use std::time::Duration;

use super::{UNIT_BYTES, UNITS_MAX};

/// Longest snapshot that is taken in, in bytes: a unit more than the largest database has.
pub const UPLOAD_BYTES_MAX: u64 = (UNITS_MAX as u64 + 1) * UNIT_BYTES;
/// An upload is kept in objects of this length at most, in bytes: so much is sent anew after it broke off.
pub const UPLOAD_PART_BYTES: u64 = 16 * 1024 * 1024;
/// Bytes at the beginning of an upload by which a file of another kind is refused at once.
pub const UPLOAD_HEAD_BYTES: usize = 80;
/// Uploads of one instance that may be open at once.
pub const UPLOADS_OPEN_MAX: usize = 2;
/// How long an upload waits for its next bytes before it is given up.
pub const UPLOAD_KEPT: Duration = Duration::from_secs(24 * 60 * 60);
/// How long one request of an upload may stand still.
pub const UPLOAD_SILENCE_MAX: Duration = Duration::from_secs(30);
/// Time between two looks for uploads that are given up.
pub const UPLOADS_LOOK: Duration = Duration::from_secs(60);
/// Uploads that are given up in one look.
pub const UPLOADS_ENDED_AT_ONCE: i64 = 20;
/// Imported backups of an instance that are kept, the newest.
pub const IMPORTED_BACKUPS_MAX: usize = 3;
/// What failed tries of an import and their pauses may take before it gives up.
pub const IMPORT_PATIENCE: Duration = Duration::from_secs(5 * 60);
/// Requests of uploads that one broker receives at once, of each upload one.
pub const UPLOADS_RECEIVED_AT_ONCE: usize = 8;
/// The longest time of one request of an upload: after that the rest has to come with another one.
pub const UPLOAD_REQUEST_MAX: Duration = Duration::from_secs(60 * 60);
/// Chunks of an upload that are received ahead of those that are stored.
pub const UPLOAD_CHUNKS_AHEAD: usize = 16;
/// The client sends an upload in requests of so many bytes.
pub const CLIENT_PIECE_BYTES: u64 = 8 * 1024 * 1024;
/// How often in a row the client sends the next bytes again when it hears nothing.
pub const CLIENT_PIECE_TRIES: u32 = 20;
/// How long is looked whether a member that did not come up with an imported snapshot ends again and again.
pub const ENDS_AGAIN_WITHIN: Duration = Duration::from_secs(20);
