//! What is compressed with gzip.

/// How it begins (RFC 1952).
pub const GZIP_MAGIC: [u8; 2] = [0x1f, 0x8b];
