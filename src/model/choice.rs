//! Which backup a restore takes: one by its id, or the newest that fits.

use chrono::{DateTime, Utc};

use super::{backup::Backup, ids::BackupId, period::BackupKind};

/// What stands in place of an id for the newest backup.
pub const LATEST: &str = "latest";

/// Which backup is meant.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum BackupChoice {
    /// This one.
    Given(BackupId),
    /// The newest complete one that fits. One that was taken of another database has to be named.
    Latest {
        /// Of this kind alone.
        kind: Option<BackupKind>,
        /// Whose snapshot was begun then or before.
        until: Option<DateTime<Utc>>,
    },
}

/// Why no choice can be read.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ChoiceError {
    /// It is neither an id nor a word for the newest one.
    #[error(
        "the service instance has no backup {0:?}; list its backups and choose one of them, or give latest, \
         latest:daily, latest:weekly, latest:monthly, latest:on_demand, latest:safety or latest:imported"
    )]
    Unknown(String),
    /// It is no time.
    #[error("restore_time {0:?} is no time; write it as in 2026-11-29T04:00:00Z")]
    NoTime(String),
    /// A backup that is named has a time of its own.
    #[error(
        "restore_time chooses the newest backup from before that time: leave backup_id out, or give latest or \
         latest:daily and the like"
    )]
    GivenAndTime,
}

impl BackupChoice {
    /// The choice that a request's `backup_id` and `restore_time` are; none where it has neither.
    pub fn read(
        backup_id: Option<&str>,
        restore_time: Option<&str>,
    ) -> Result<Option<Self>, ChoiceError> {
        let until = restore_time.map(time).transpose()?;
        let Some(text) = backup_id else {
            return Ok(until.map(|_| Self::Latest { kind: None, until }));
        };
        let kind = match text.split_once(':') {
            None if text == LATEST => None,
            Some((LATEST, kind)) => {
                let kind = BackupKind::parse(kind);
                Some(kind.ok_or_else(|| ChoiceError::Unknown(text.to_owned()))?)
            }
            _ => {
                let id = text.parse();
                let id = id.map_err(|_| ChoiceError::Unknown(text.to_owned()))?;
                return match until {
                    None => Ok(Some(Self::Given(id))),
                    Some(_) => Err(ChoiceError::GivenAndTime),
                };
            }
        };
        Ok(Some(Self::Latest { kind, until }))
    }

    /// The newest of the complete backups, which come newest first, that fits.
    pub fn newest(
        kind: Option<BackupKind>,
        until: Option<DateTime<Utc>>,
        complete: &[Backup],
    ) -> Option<&Backup> {
        complete.iter().find(|backup| {
            let manifest = backup.manifest.as_ref();
            let is_of_kind = kind.map_or(backup.kind.is_own(), |kind| backup.kind == kind);
            let in_time = |at: DateTime<Utc>| until.is_none_or(|until| at <= until);
            is_of_kind && manifest.is_some_and(|manifest| in_time(manifest.started_at))
        })
    }
}

fn time(text: &str) -> Result<DateTime<Utc>, ChoiceError> {
    let time = DateTime::parse_from_rfc3339(text);
    time.map(|time| time.to_utc())
        .map_err(|_| ChoiceError::NoTime(text.to_owned()))
}

#[cfg(test)]
mod tests {
    use chrono::TimeDelta;
    use serde_json::json;

    use super::*;
    use crate::model::backup::Manifest;

    const ID: &str = "5ae85b45e5717f00015331aa";

    fn at(minute: i64) -> DateTime<Utc> {
        DateTime::UNIX_EPOCH + TimeDelta::minutes(minute)
    }

    fn manifest_of(backup: &Backup) -> Manifest {
        serde_json::from_value(json!({
            "format": 1, "backup_id": backup.id, "kind": backup.kind, "instance_id": "i",
            "deployment_id": backup.deployment, "service_id": "s",
            "tenant": { "platform": "p", "organization": "o", "space": "s" },
            "engine": "thing", "version": "3.6.16", "units": 1, "content": {},
            "stored": { "snapshot_bytes": 1, "snapshot_sha256": "", "object_bytes": 1,
                "object_sha256": "", "compression": "zstd" },
            "requested_at": backup.created_at, "started_at": backup.created_at,
            "finished_at": backup.created_at,
        }))
        .expect("a manifest")
    }

    #[test]
    fn a_choice_is_an_id_or_the_newest_that_fits() {
        let latest = |kind, until| Ok(Some(BackupChoice::Latest { kind, until }));
        let time = Some("1970-01-01T02:05:00+02:00");
        for (id, until, choice) in [
            (None, None, Ok(None)),
            (Some("latest"), None, latest(None, None)),
            (
                Some("latest:weekly"),
                None,
                latest(Some(BackupKind::Weekly), None),
            ),
            (None, time, latest(None, Some(at(5)))),
            (
                Some("latest:daily"),
                time,
                latest(Some(BackupKind::Daily), Some(at(5))),
            ),
            (
                Some(ID),
                None,
                Ok(Some(BackupChoice::Given(ID.parse().expect("an id")))),
            ),
            (Some(ID), time, Err(ChoiceError::GivenAndTime)),
            (
                Some("latest"),
                Some("yesterday"),
                Err(ChoiceError::NoTime("yesterday".to_owned())),
            ),
        ] {
            assert_eq!(BackupChoice::read(id, until), choice, "{id:?} {until:?}");
        }
        for text in ["", "Latest", "latest:", "latest:hourly", "newest", "5ae8"] {
            let unknown = Err(ChoiceError::Unknown(text.to_owned()));
            assert_eq!(BackupChoice::read(Some(text), None), unknown);
        }
    }

    #[test]
    fn the_newest_that_fits_is_taken_and_none_that_is_not_whole() {
        let backup = |minute, kind, is_whole: bool| {
            let mut backup = Backup::taken(at(minute), kind);
            backup.manifest = is_whole.then(|| manifest_of(&backup));
            backup
        };
        let complete = [
            backup(60, BackupKind::Imported, true),
            backup(50, BackupKind::OnDemand, false),
            backup(40, BackupKind::Daily, true),
            backup(30, BackupKind::Weekly, true),
            backup(20, BackupKind::Daily, true),
        ];
        let picked = |kind, until: Option<i64>| {
            let found = BackupChoice::newest(kind, until.map(at), &complete);
            found.map(|backup| backup.created_at)
        };
        assert_eq!(picked(None, None), Some(at(40)));
        assert_eq!(picked(Some(BackupKind::Weekly), None), Some(at(30)));
        assert_eq!(picked(Some(BackupKind::Monthly), None), None);
        assert_eq!(picked(Some(BackupKind::Imported), None), Some(at(60)));
        assert_eq!(picked(None, Some(40)), Some(at(40)));
        assert_eq!(picked(None, Some(39)), Some(at(30)));
        assert_eq!(picked(Some(BackupKind::Daily), Some(39)), Some(at(20)));
        assert_eq!(picked(None, Some(19)), None);
    }
}
