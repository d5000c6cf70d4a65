//! A part of a database, by what its keys begin with, that is put back from a backup while the rest of it
//! goes on.

use std::fmt;

use serde::{Deserialize, Serialize};

use super::ids::BackupId;
use super::limits::prefix::KEY_PREFIX_BYTES_MAX;

/// What is put back of what the backup holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum PrefixMode {
    /// Keys that the database has no more. What it has stays as it is.
    Missing,
    /// These, and the values of keys that have others now.
    Overwrite,
    /// All that, and keys that the backup has not are deleted: the part becomes as it was.
    Mirror,
}

impl PrefixMode {
    /// All modes.
    pub const ALL: [Self; 3] = [Self::Missing, Self::Overwrite, Self::Mirror];

    /// The name in the API.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Missing => "missing",
            Self::Overwrite => "overwrite",
            Self::Mirror => "mirror",
        }
    }

    /// The mode of that name.
    pub fn parse(text: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|mode| mode.as_str() == text)
    }

    /// Whether keys that have other values now get those of the backup.
    pub fn overwrites(self) -> bool {
        matches!(self, Self::Overwrite | Self::Mirror)
    }

    /// Whether keys go that the backup has not.
    pub fn deletes(self) -> bool {
        self == Self::Mirror
    }
}

/// In what a part of a database differs from a backup, key by key. Keys that live only as long as a client
/// does, on either side, are counted apart and stay as they are: that client is not in the backup.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct PrefixDifference {
    /// Keys with the same value.
    pub same: u64,
    /// Keys of the backup that the database has no more.
    pub missing: u64,
    /// Keys that have another value now.
    pub changed: u64,
    /// Keys that the backup has not.
    pub extra: u64,
    /// Keys that live only as long as a client does.
    pub ephemeral: u64,
    /// Bytes of the keys and values that are missing.
    pub missing_bytes: u64,
    /// Bytes of the keys and values of the backup that have another value now.
    pub changed_bytes: u64,
    /// Where the database was when it was compared, in the engine's own words. What is changed later is
    /// nobody's to undo.
    pub point: String,
}

impl PrefixDifference {
    /// Bytes that are written when `mode` is done.
    pub fn bytes(&self, mode: PrefixMode) -> u64 {
        match mode {
            PrefixMode::Missing => self.missing_bytes,
            PrefixMode::Overwrite | PrefixMode::Mirror => self.missing_bytes + self.changed_bytes,
        }
    }
}

/// What was changed in the database.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct PrefixChanges {
    /// Keys that have the value of the backup, and had not.
    pub written: u64,
    /// Keys that are gone since the backup has them not.
    pub deleted: u64,
    /// Keys that others changed meanwhile, which were left as they are.
    pub left: u64,
}

impl PrefixChanges {
    /// What has come of doing `mode` about a difference, when so many keys were `left` unwritten and `kept`
    /// undeleted since others changed them. It goes by what was found, so it is the same however often the work
    /// was begun anew.
    pub fn of(mode: PrefixMode, found: &PrefixDifference, left: u64, kept: u64) -> Self {
        let wanted = match mode.overwrites() {
            true => found.missing + found.changed,
            false => found.missing,
        };
        let unwanted = if mode.deletes() { found.extra } else { 0 };
        Self {
            written: wanted.saturating_sub(left),
            deleted: unwanted.saturating_sub(kept),
            left: left + kept,
        }
    }
}

/// A part of a database that is put back from a backup, or only compared with it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PrefixRestore {
    /// What the keys begin with; empty: all keys.
    pub prefix: String,
    /// What is put back.
    pub mode: PrefixMode,
    /// It is only compared, and nothing is changed.
    pub dry_run: bool,
    /// The backup of just before, which is taken for it; none where nothing is changed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub safety_backup: Option<BackupId>,
    /// What the comparison found, once there is one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub difference: Option<PrefixDifference>,
    /// What was changed, once all is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub changes: Option<PrefixChanges>,
}

impl PrefixRestore {
    /// One that is asked for. Fails with what is wrong with it.
    pub fn wanted(prefix: &str, mode: &str, dry_run: bool) -> Result<Self, String> {
        if prefix.len() > KEY_PREFIX_BYTES_MAX {
            return Err(format!(
                "prefix must have at most {KEY_PREFIX_BYTES_MAX} bytes"
            ));
        }
        if prefix.contains('\0') {
            return Err("prefix must not contain a NUL character".to_owned());
        }
        let mode = PrefixMode::parse(mode).ok_or_else(|| {
            let names = PrefixMode::ALL.map(PrefixMode::as_str).join(", ");
            format!("mode must be one of {names}")
        })?;
        Ok(Self {
            prefix: prefix.to_owned(),
            mode,
            dry_run,
            safety_backup: None,
            difference: None,
            changes: None,
        })
    }

    /// What it does, for people.
    pub fn title(&self) -> String {
        let keys = match self.prefix.as_str() {
            "" => "all keys".to_owned(),
            prefix => format!("keys that begin with {prefix:?}"),
        };
        match (self.dry_run, self.mode) {
            (true, _) => format!("Compare {keys} with a backup"),
            (false, PrefixMode::Missing) => format!("Put missing {keys} back from a backup"),
            (false, PrefixMode::Overwrite) => format!("Put {keys} back from a backup"),
            (false, PrefixMode::Mirror) => format!("Take {keys} back to a backup"),
        }
    }

    /// Whether both ask for the same.
    pub fn asks_as(&self, other: &Self) -> bool {
        (&self.prefix, self.mode, self.dry_run) == (&other.prefix, other.mode, other.dry_run)
    }
}

impl fmt::Display for PrefixRestore {
    /// What came of it so far, for people; nothing before it was compared.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Some(found) = &self.difference else {
            return Ok(());
        };
        if let Some(done) = &self.changes {
            write!(
                f,
                "{} written, {} deleted",
                keys(done.written),
                done.deleted
            )?;
            if done.left > 0 {
                write!(f, ", {} changed meanwhile and left", done.left)?;
            }
            return Ok(());
        }
        let (missing, changed) = (found.missing, found.changed);
        write!(
            f,
            "{} missing, {changed} with another value, ",
            keys(missing)
        )?;
        write!(
            f,
            "{} not in the backup, {} the same",
            found.extra, found.same
        )
    }
}

fn keys(count: u64) -> String {
    match count {
        1 => "1 key".to_owned(),
        _ => format!("{count} keys"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn wanted() -> PrefixRestore {
        PrefixRestore::wanted("/app/", "mirror", false).expect("a wish")
    }

    #[test]
    fn modes_do_what_their_names_say() {
        let does = |mode: PrefixMode| (mode.overwrites(), mode.deletes());
        assert_eq!(
            PrefixMode::ALL.map(does),
            [(false, false), (true, false), (true, true)]
        );
        for mode in PrefixMode::ALL {
            assert_eq!(PrefixMode::parse(mode.as_str()), Some(mode));
        }
        let found = PrefixDifference {
            missing_bytes: 3,
            changed_bytes: 4,
            ..PrefixDifference::default()
        };
        assert_eq!(PrefixMode::ALL.map(|mode| found.bytes(mode)), [3, 7, 7]);
    }

    #[test]
    fn what_cannot_be_wanted_is_told() {
        let told = |prefix: &str, mode| PrefixRestore::wanted(prefix, mode, true).err();
        assert_eq!(told("", "missing"), None);
        assert_eq!(told(&"x".repeat(KEY_PREFIX_BYTES_MAX), "overwrite"), None);
        let long = told(&"x".repeat(KEY_PREFIX_BYTES_MAX + 1), "missing");
        assert_eq!(long.as_deref(), Some("prefix must have at most 1024 bytes"));
        assert!(told("a\0", "missing").is_some_and(|why| why.contains("NUL")));
        assert_eq!(
            told("", "all").as_deref(),
            Some("mode must be one of missing, overwrite, mirror")
        );
    }

    #[test]
    fn it_tells_what_came_of_it() {
        let mut of = wanted();
        assert_eq!(of.to_string(), "");
        of.difference = Some(PrefixDifference {
            same: 4,
            missing: 1,
            changed: 2,
            extra: 3,
            ..PrefixDifference::default()
        });
        assert_eq!(
            of.to_string(),
            "1 key missing, 2 with another value, 3 not in the backup, 4 the same"
        );
        assert!(of.asks_as(&wanted()));
        let found = of.difference.clone().expect("a difference");
        for (mode, left, kept, told) in [
            (PrefixMode::Missing, 0, 0, "1 key written, 0 deleted"),
            (PrefixMode::Overwrite, 0, 0, "3 keys written, 0 deleted"),
            (PrefixMode::Mirror, 0, 0, "3 keys written, 3 deleted"),
            (
                PrefixMode::Mirror,
                2,
                1,
                "1 key written, 2 deleted, 3 changed meanwhile and left",
            ),
        ] {
            of.changes = Some(PrefixChanges::of(mode, &found, left, kept));
            assert_eq!(of.to_string(), told);
        }
    }
}
