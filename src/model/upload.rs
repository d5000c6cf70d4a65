//! Backups that users bring along: a snapshot that was taken elsewhere comes in parts, and is a backup of the
//! instance once it was restored aside.

use chrono::{DateTime, Utc};

use super::{
    backup::StoredSnapshot,
    ids::{BackupId, DeploymentId, InstanceId, PartId},
    limits::upload::{UPLOAD_BYTES_MAX, UPLOAD_KEPT},
    version::Version,
};

/// An upload that is not over.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Upload {
    /// The backup that it becomes.
    pub backup: BackupId,
    /// The instance that it is brought to.
    pub instance: InstanceId,
    /// That instance's deployment.
    pub deployment: DeploymentId,
    /// The length of the whole snapshot, in bytes.
    pub bytes: u64,
    /// The SHA-256 (hex) of it, where its user tells it.
    pub sha256: Option<String>,
    /// The version of the database that it was taken of.
    pub version: Version,
    /// The bytes that have come by now.
    pub received: u64,
    /// When the last of them came.
    pub touched_at: DateTime<Utc>,
}

/// Some bytes of an upload, as they are stored.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Part {
    /// Its id: no two parts have one object, even where the same bytes come twice at once.
    pub id: PartId,
    /// Where it begins in the snapshot, in bytes.
    pub at: u64,
    /// Its bytes.
    pub stored: StoredSnapshot,
    /// The key that they are sealed under, sealed under the key ring.
    pub sealed_key: String,
}

/// Why an upload takes no bytes.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum UploadError {
    /// It is no length of a snapshot.
    #[error(
        "an upload needs its length in bytes: 1 to {UPLOAD_BYTES_MAX}, as many as the largest database has"
    )]
    Length,
    /// It is no hash.
    #[error("sha256 is no SHA-256 in 64 hexadecimal digits")]
    Hash,
    /// The bytes begin elsewhere than what has come ends.
    #[error("the upload has {0} bytes by now: go on from there, with Upload-Offset: {0}")]
    Offset(u64),
    /// More comes than was told.
    #[error("the upload has more bytes than the {0} that it was begun for; begin another one")]
    TooLong(u64),
}

/// Fails when a snapshot of that length and hash cannot be taken in; returns the hash in one form.
pub fn check(bytes: u64, sha256: Option<&str>) -> Result<Option<String>, UploadError> {
    if bytes == 0 || bytes > UPLOAD_BYTES_MAX {
        return Err(UploadError::Length);
    }
    let is_hash = |text: &str| text.len() == 64 && text.bytes().all(|b| b.is_ascii_hexdigit());
    match sha256 {
        Some(text) if !is_hash(text) => Err(UploadError::Hash),
        hash => Ok(hash.map(str::to_ascii_lowercase)),
    }
}

impl Upload {
    /// Whether all of it has come: it is being made a backup.
    pub fn is_whole(&self) -> bool {
        self.received == self.bytes
    }

    /// When it is given up, if nothing more comes.
    pub fn ends_at(&self) -> DateTime<Utc> {
        self.touched_at + UPLOAD_KEPT
    }

    /// Fails when bytes from `offset` on are not the next ones.
    pub fn goes_on_at(&self, offset: u64) -> Result<(), UploadError> {
        match offset == self.received {
            true => Ok(()),
            false => Err(UploadError::Offset(self.received)),
        }
    }

    /// The upload with a part more.
    pub fn with(&self, part: &Part, now: DateTime<Utc>) -> Result<Self, UploadError> {
        self.goes_on_at(part.at)?;
        let received = part.at + part.stored.snapshot_bytes;
        if received > self.bytes {
            return Err(UploadError::TooLong(self.bytes));
        }
        Ok(Self {
            received,
            touched_at: now,
            ..self.clone()
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn upload(bytes: u64, received: u64) -> Upload {
        Upload {
            backup: "5ae85b45e5717f00015331aa".parse().expect("an id"),
            instance: "i".parse().expect("an id"),
            deployment: "5ae85b45e5717f0001533192".parse().expect("an id"),
            bytes,
            sha256: None,
            version: "3.5.16".parse().expect("a version"),
            received,
            touched_at: DateTime::UNIX_EPOCH,
        }
    }

    fn part(at: u64, bytes: u64) -> Part {
        Part {
            id: "5ae85b45e5717f00015331ab".parse().expect("an id"),
            at,
            stored: StoredSnapshot {
                snapshot_bytes: bytes,
                snapshot_sha256: String::new(),
                object_bytes: 1,
                object_sha256: String::new(),
                compression: "zstd".to_owned(),
                sealing: None,
            },
            sealed_key: String::new(),
        }
    }

    #[test]
    fn a_length_and_a_hash_are_looked_at() {
        let hash = "AB".repeat(32);
        assert_eq!(check(1, None), Ok(None));
        assert_eq!(
            check(UPLOAD_BYTES_MAX, Some(&hash)),
            Ok(Some("ab".repeat(32)))
        );
        for bytes in [0, UPLOAD_BYTES_MAX + 1, u64::MAX] {
            assert_eq!(check(bytes, None), Err(UploadError::Length));
        }
        for wrong in ["", "ab", &"x".repeat(64), &"é".repeat(32)] {
            assert_eq!(check(1, Some(wrong)), Err(UploadError::Hash), "{wrong}");
        }
    }

    #[test]
    fn parts_follow_each_other_and_end_at_the_length() {
        let later = DateTime::UNIX_EPOCH + chrono::TimeDelta::hours(1);
        let begun = upload(10, 4);
        let more = begun.with(&part(4, 5), later).expect("a part");
        assert_eq!((more.received, more.is_whole()), (9, false));
        assert_eq!(more.ends_at(), later + UPLOAD_KEPT);
        assert!(more.with(&part(9, 1), later).expect("a part").is_whole());
        for at in [0, 3, 5] {
            assert_eq!(begun.with(&part(at, 1), later), Err(UploadError::Offset(4)));
        }
        assert_eq!(
            begun.with(&part(4, 7), later),
            Err(UploadError::TooLong(10))
        );
    }
}
