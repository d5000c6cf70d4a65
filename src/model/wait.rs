//! What an operation that nobody works on waits for.

use std::fmt;

use super::{
    sentence::{counted, is_or_are},
    trouble::{Moment, Trouble},
};

/// What keeps an operation from being begun, where it is not its own trouble.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Wait {
    /// The end of another operation on the same instance; in words.
    Operation(String),
    /// The last backup before the deletion, whose tries may come to nothing.
    LastBackup(Option<Trouble>),
    /// As many are done for its instance as may be at once.
    Instance(usize),
    /// As many are done for its owner as may be at once.
    Owner(usize),
    /// As many are done on its cluster as may be at once.
    Cluster(usize),
    /// As many are done by the broker as may be at once.
    Broker(usize),
    /// A broker that looks after its cluster: none says that it does.
    Lonely,
}

impl fmt::Display for Wait {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (count, of) = match self {
            Self::Operation(words) => return write!(f, "waiting for another task: {words}"),
            Self::LastBackup(trouble) => return last_backup(trouble.as_ref(), f),
            Self::Lonely => return f.write_str("no broker looks after its cluster at the moment"),
            Self::Instance(count) => (count, "for this instance"),
            Self::Owner(count) => (count, "for the same owner"),
            Self::Cluster(count) => (count, "on the same cluster"),
            Self::Broker(count) => (count, "by the broker"),
        };
        let (tasks, are) = (counted(*count, "task"), is_or_are(*count));
        write!(f, "{tasks} {are} done {of}, as many as may be at once")
    }
}

/// What a deletion waits for, why, until when, and what then.
fn last_backup(trouble: Option<&Trouble>, f: &mut fmt::Formatter<'_>) -> fmt::Result {
    f.write_str("the deletion waits for its last backup")?;
    let Some(trouble) = trouble else {
        return Ok(());
    };
    write!(
        f,
        ", which fails ({}); the broker tries it ",
        trouble.reason
    )?;
    match trouble.until {
        Some(until) => write!(f, "until {}", Moment(until))?,
        None => f.write_str("for some minutes")?,
    }
    f.write_str(", and then deletes the instance without it: older backups stay")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_deletion_says_what_it_waits_for_and_until_when() {
        let since: chrono::DateTime<chrono::Utc> =
            "2026-11-30T18:30:09Z".parse().expect("a moment");
        let trouble = Trouble {
            tries: 2,
            since,
            reason: "taking a snapshot: no answer within 20 s".to_owned(),
            next: None,
            until: Some(since + chrono::TimeDelta::minutes(2)),
        };
        assert_eq!(
            Wait::LastBackup(Some(trouble)).to_string(),
            "the deletion waits for its last backup, which fails (taking a snapshot: no answer within 20 s); the \
             broker tries it until 2026-11-30 18:32:09 UTC, and then deletes the instance without it: older \
             backups stay"
        );
        assert_eq!(
            Wait::LastBackup(None).to_string(),
            "the deletion waits for its last backup"
        );
    }

    #[test]
    fn a_wait_reads_like_a_sentence() {
        let told = [
            Wait::Operation("Backup".to_owned()),
            Wait::Instance(2),
            Wait::Cluster(1),
            Wait::Lonely,
        ]
        .map(|wait| wait.to_string());
        assert_eq!(
            told,
            [
                "waiting for another task: Backup",
                "2 tasks are done for this instance, as many as may be at once",
                "1 task is done on the same cluster, as many as may be at once",
                "no broker looks after its cluster at the moment",
            ]
        );
    }
}
