//! Which backups are kept: a verdict with its reason for each, by pure decision.

use super::{
    backup::{Backup, BackupKind, BackupState},
    ids::BackupId,
};

/// What becomes of one backup.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Verdict {
    /// The backup.
    pub backup: BackupId,
    /// Whether it is kept.
    pub keep: bool,
    /// Why.
    pub reason: &'static str,
}

/// Decides about the backups of one instance: the newest `on_demand_kept` successful on-demand
/// backups stay, the older ones go. Whatever is unfinished or failed neither goes nor displaces a
/// good one, and kinds with a schedule of their own stay.
pub fn verdicts(backups: &[Backup], on_demand_kept: u32) -> Vec<Verdict> {
    let mut complete: Vec<&Backup> = backups
        .iter()
        .filter(|b| b.kind == BackupKind::OnDemand && b.state == BackupState::Complete)
        .collect();
    complete.sort_by_key(|b| std::cmp::Reverse((b.created_at, b.id.clone())));
    let newest: Vec<&BackupId> = complete
        .iter()
        .take(on_demand_kept as usize)
        .map(|b| &b.id)
        .collect();
    backups
        .iter()
        .map(|backup| {
            let (keep, reason) = match (backup.kind, backup.state) {
                (BackupKind::OnDemand, BackupState::Complete) if newest.contains(&&backup.id) => {
                    (true, "among the most recent successful on-demand backups")
                }
                (BackupKind::OnDemand, BackupState::Complete) => {
                    (false, "a newer on-demand backup succeeded")
                }
                (_, BackupState::Complete) => (true, "kept by the schedule"),
                _ => (true, "holds no bytes"),
            };
            Verdict {
                backup: backup.id.clone(),
                keep,
                reason,
            }
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use chrono::DateTime;
    use proptest::prelude::*;

    use super::*;

    fn backup(second: i64, kind: BackupKind, state: BackupState) -> Backup {
        let at = DateTime::from_timestamp(1_700_000_000 + second, 0).expect("a time");
        Backup {
            id: BackupId::generate(at),
            instance: "i".parse().expect("an id"),
            deployment: "5ae85b45e5717f0001533192".parse().expect("an id"),
            operation: "5ae85b45e5717f0001533193".parse().expect("an id"),
            kind,
            state,
            failure: None,
            created_at: at,
            finished_at: Some(at),
            manifest: None,
        }
    }

    fn any_backup() -> impl Strategy<Value = Backup> {
        use BackupKind::{Daily, OnDemand};
        use BackupState::{Complete, Failed, Pending, Running};
        (
            0i64..1000,
            prop::sample::select(vec![OnDemand, Daily]),
            prop::sample::select(vec![Complete, Failed, Pending, Running]),
        )
            .prop_map(|(second, kind, state)| backup(second, kind, state))
    }

    #[test]
    fn a_failed_backup_never_displaces_a_good_one() {
        use BackupKind::OnDemand;
        let backups = [
            backup(1, OnDemand, BackupState::Complete),
            backup(2, OnDemand, BackupState::Complete),
            backup(3, OnDemand, BackupState::Failed),
        ];
        let keep: Vec<bool> = verdicts(&backups, 1).iter().map(|v| v.keep).collect();
        assert_eq!(keep, [false, true, true]);
    }

    proptest! {
        #[test]
        fn the_newest_good_backups_stay(backups in prop::collection::vec(any_backup(), 0..20), kept in 1u32..4) {
            let verdicts = verdicts(&backups, kept);
            let good = |b: &&Backup| b.kind == BackupKind::OnDemand && b.state == BackupState::Complete;
            let total = backups.iter().filter(good).count();
            let staying: Vec<&Backup> = backups.iter().zip(&verdicts).filter(|(b, v)| good(b) && v.keep).map(|(b, _)| b).collect();
            let going: Vec<&Backup> = backups.iter().zip(&verdicts).filter(|(_, v)| !v.keep).map(|(b, _)| b).collect();
            prop_assert_eq!(staying.len(), total.min(kept as usize));
            prop_assert!(going.iter().all(good));
            for stays in &staying {
                for goes in &going {
                    prop_assert!(stays.created_at >= goes.created_at);
                }
            }
        }
    }
}
