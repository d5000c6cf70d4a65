//! The mirror: a second backup store that gets a copy of each complete backup. Pure.

use chrono::{DateTime, Utc};

use super::{
    backup::{Backup, BackupState},
    ids::{BackupId, InstanceId},
    limits::mirror::MIRROR_LATE_AFTER,
    sentence::counted,
    trouble::Moment,
};

/// The mirror, as the store knows it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MirrorState {
    /// Since when it is the mirror: no backup is late that has waited for it no longer than it is there.
    pub since: DateTime<Utc>,
    /// What was wrong when it was used last, and when; none: it took what it was given.
    pub failure: Option<(String, DateTime<Utc>)>,
}

/// Complete backups of an instance that have no copy in the mirror yet.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Unmirrored {
    /// How many.
    pub count: usize,
    /// Since when the first of them waits.
    pub since: DateTime<Utc>,
    /// What was wrong last; none where nothing is known of that.
    pub why: Option<String>,
}

impl Unmirrored {
    /// Those of `backups` that wait for a copy in the mirror; none: none does.
    pub fn of(backups: &[Backup], mirror: &MirrorState) -> Option<Self> {
        let waits = |of: &&Backup| of.state == BackupState::Complete && of.mirrored_at.is_none();
        let waiting = backups.iter().filter(waits);
        let ends = waiting.map(|of| of.finished_at.unwrap_or(of.created_at));
        let (count, first) = ends.fold((0, None), |(count, first), end| {
            (count + 1, first.into_iter().chain([end]).min())
        });
        Some(Self {
            count,
            since: first?.max(mirror.since),
            why: mirror.failure.as_ref().map(|(why, _)| why.clone()),
        })
    }

    /// Whether one of them should have been copied long ago.
    pub fn is_late(&self, now: DateTime<Utc>) -> bool {
        now - self.since >= late_after()
    }

    /// What it is and what can be done, for people.
    pub fn message(&self) -> String {
        let what = match self.count {
            1 => "1 backup is not in the mirror".to_owned(),
            count => format!("{count} backups are not in the mirror"),
        };
        let why = match &self.why {
            Some(why) => format!(" When it was used last: {why}."),
            None => String::new(),
        };
        format!(
            "{what}, the first of them since {}: should the backup store be lost, so are they.{why} The broker goes \
             on trying by itself. Tell the operator, who looks whether the mirror is there, lets the broker in and \
             has room (compose-broker mirror).",
            Moment(self.since)
        )
    }
}

fn late_after() -> chrono::TimeDelta {
    chrono::TimeDelta::from_std(MIRROR_LATE_AFTER).unwrap_or(chrono::TimeDelta::MAX)
}

/// A backup is late that is complete since then and has no copy.
pub fn late_since(now: DateTime<Utc>) -> DateTime<Utc> {
    now - late_after()
}

/// The mirror in figures.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct MirrorSeen {
    /// Backups that have a copy there.
    pub copied: u64,
    /// Complete backups that have none yet.
    pub waiting: u64,
    /// Those of them that wait for too long.
    pub late: u64,
    /// When the first of those that wait was complete.
    pub oldest: Option<DateTime<Utc>>,
}

/// A backup that should have been copied long ago.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LateCopy {
    /// Which one.
    pub backup: BackupId,
    /// What it was taken of.
    pub instance: InstanceId,
    /// When it was complete.
    pub complete_at: DateTime<Utc>,
    /// Why it could not be copied the last time; none: nobody has tried.
    pub failure: Option<String>,
}

/// What befell a backup that was put back from the mirror, for people.
pub fn healed(backup: &BackupId, taken_at: DateTime<Utc>, bytes: u64, why: &str) -> String {
    let put_back = match bytes {
        0 => "Its manifest was put back".to_owned(),
        bytes => format!("{} were put back", counted(bytes, "byte")),
    };
    format!(
        "What was stored of the backup {backup} of {} was spoiled: {why}. {put_back} from the mirror, and it is whole \
         again. The operator looks at the disk or the server that the backup store is on: what spoiled this one may \
         spoil others.",
        Moment(taken_at)
    )
}

#[cfg(test)]
mod tests {
    use chrono::TimeDelta;

    use super::*;
    use crate::model::period::BackupKind;

    fn at(hour: i64) -> DateTime<Utc> {
        DateTime::UNIX_EPOCH + TimeDelta::hours(hour)
    }

    fn taken(hour: i64, mirrored_at: Option<DateTime<Utc>>) -> Backup {
        Backup {
            mirrored_at,
            finished_at: Some(at(hour)),
            ..Backup::taken(at(hour), BackupKind::Daily)
        }
    }

    fn mirror(hour: i64, failure: Option<&str>) -> MirrorState {
        MirrorState {
            since: at(hour),
            failure: failure.map(|why| (why.to_owned(), at(hour))),
        }
    }

    #[test]
    fn the_first_one_that_waits_tells_since_when_a_mirror_lags() {
        let all = [
            taken(10, None),
            taken(5, None),
            taken(1, Some(at(2))),
            Backup {
                state: BackupState::Failed,
                ..taken(0, None)
            },
        ];
        let found = Unmirrored::of(&all, &mirror(0, Some("it is full"))).expect("two");
        assert_eq!((found.count, found.since), (2, at(5)));
        assert!(!found.is_late(at(10)));
        assert!(found.is_late(at(11)));
        let message = found.message();
        assert!(
            message.starts_with("2 backups are not in the mirror"),
            "{message}"
        );
        assert!(message.contains("it is full."), "{message}");
        assert_eq!(Unmirrored::of(&all[2..], &mirror(0, None)), None);
    }

    #[test]
    fn what_is_older_than_the_mirror_waits_since_that_is_there() {
        let found = Unmirrored::of(&[taken(1, None)], &mirror(100, None)).expect("one");
        assert_eq!((found.since, found.is_late(at(105))), (at(100), false));
        assert!(found.is_late(at(106)));
        let message = found.message();
        assert!(
            message.starts_with("1 backup is not in the mirror"),
            "{message}"
        );
    }
}
