//! Limits of the keys that tenants seal their backups with.

/// Longest text with private keys that is read, in bytes: a key has 74 letters, and a file of age-keygen 190.
pub const PRIVATE_KEY_BYTES_MAX: usize = 4096;
