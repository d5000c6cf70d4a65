//! What is done, in words: kinds of operations, single operations, entries of the audit, and whence they
//! come. Page, client and every API say it with these.

use std::borrow::Cow;

use super::{
    audit::{AtOnce, AuditEntry},
    operation::{Operation, OperationKind},
    origin::Origin,
    sentence::capitalized,
    trail::Accessed,
    wait::Wait,
};

impl OperationKind {
    /// What such an operation does; what Compose calls a recipe, by its words where they are known.
    pub fn words(self) -> &'static str {
        match self {
            Self::Provision => "Provision",
            Self::Restore => "Restore",
            Self::Update => "Scale or upgrade deployment",
            Self::Deprovision => "Deprovision",
            Self::Bind => "Bind",
            Self::Unbind => "Unbind",
            Self::Backup => "Backup",
            Self::FinalBackup => "Last backup before the deletion",
            Self::Prune => "Remove expired backups",
            Self::Relief => "Make room in the database",
            Self::Defragment => "Defragment the database",
            Self::Repair => "Replace a member",
            Self::Recover => "Recover the database",
            Self::Renew => "Renew the certificates",
            Self::Readdress => "Move the members to other addresses",
            Self::Proof => "Prove a backup",
            Self::Import => "Import a backup",
            Self::RestorePrefix => "Restore keys",
        }
    }
}

impl Operation {
    /// What it does: as its kind says, and to what where it knows more.
    pub fn words(&self) -> Cow<'static, str> {
        match (self.kind, &self.change, &self.repair) {
            (OperationKind::Update, Some(change), _) => {
                let (goal, before) = (change.goal(), change.from.units);
                let (version, units) = (goal.version, goal.units);
                match (change.upgrades(), before == units) {
                    (false, _) => format!("Scale deployment to {units} units"),
                    (true, true) => format!("Upgrade deployment to version {version}"),
                    (true, false) => format!(
                        "Upgrade deployment to version {version} and scale it to {units} units"
                    ),
                }
                .into()
            }
            (OperationKind::Repair, _, Some(repair)) => {
                format!("Replace member {}", repair.member).into()
            }
            (OperationKind::RestorePrefix, ..) => match &self.prefix_restore {
                Some(wanted) => wanted.title().into(),
                None => self.kind.words().into(),
            },
            (kind, ..) => kind.words().into(),
        }
    }

    /// How far it has come, and what it waits for where that is known.
    pub fn standing(&self) -> String {
        match &self.wait {
            // That says it all.
            Some(wait @ (Wait::Operation(_) | Wait::LastBackup(_)))
                if self.progress.step.is_empty() =>
            {
                wait.to_string()
            }
            Some(wait) => format!("{}; {wait}", self.progress),
            None => self.progress.to_string(),
        }
    }
}

impl AtOnce {
    /// What was done.
    pub fn words(self) -> &'static str {
        match self {
            Self::Context => "Context from the platform",
            Self::Name => "Another name",
            Self::Schedule => "Another schedule of backups",
            Self::ProtectionOn => "Delete protection turned on",
            Self::ProtectionOff => "Delete protection turned off",
            Self::DeleteBackupsOn => "Backups set to be deleted with the instance",
            Self::DeleteBackupsOff => "Backups set to be kept after the deletion",
            Self::Parameters => "Version or size named as it is",
            Self::Notes => "Notes beside the deployment",
            Self::BackupNote => "Note beside a backup",
            Self::Upload => "Upload of a backup",
            Self::UploadEnd => "Upload of a backup given up",
            Self::Pin => "Backup kept beyond its time",
            Self::Unpin => "Backup let go of",
            Self::Catalog => "Another catalog",
            Self::Owner => "Another owner",
            Self::Reconciliation => "Store and backup store reconciled",
            Self::Retry => "Operation tried again",
            Self::Abandon => "Operation given up",
            Self::Clock => "Clock declared right",
            Self::Adoption => "Unknown deployment adopted",
            Self::Removal => "Unknown deployment removed",
            Self::DeletedPurge => "Backups of a deleted instance given up",
            Self::DeletedEnd => "Backups of a deleted instance removed",
            Self::Healing => "Backup put back from the mirror",
        }
    }
}

impl Accessed {
    /// What somebody got, or tried to get.
    pub fn words(self) -> &'static str {
        match self {
            Self::BackupLink => "Link to a backup",
            Self::Backup => "Download of a backup",
            Self::LogLink => "Link to a log",
            Self::Log => "Look into a log",
            Self::Credentials => "Look at credentials",
            Self::Session => "Sign-in to the dashboard",
            Self::OneTimeLink => "Sign-in with a one-time link",
            Self::Refused => "Refused sign-in",
        }
    }
}

impl AuditEntry {
    /// What it tells of.
    pub fn words(&self) -> String {
        (self.words.clone()).unwrap_or_else(|| words_of_action(&self.action))
    }
}

/// What an entry of the audit tells of, by its action. One that a later version wrote down keeps its name.
fn words_of_action(action: &str) -> String {
    let operation = OperationKind::parse(action).map(OperationKind::words);
    let at_once = || AtOnce::parse(action).map(AtOnce::words);
    let accessed = || Accessed::parse(action).map(Accessed::words);
    match operation.or_else(at_once).or_else(accessed) {
        Some(words) => words.to_owned(),
        None => capitalized(&action.replace('_', " ")),
    }
}

impl Origin {
    /// Who asked for it, by the door that it came through. Who stood there is told beside it, where it is known.
    pub fn words(self) -> &'static str {
        match self {
            Self::Osb => "the platform",
            Self::Compose => "the Compose API",
            Self::Dashboard => "the dashboard",
            Self::Operator => "the operator",
            Self::Schedule => "the schedule",
            Self::Retention => "the rules of retention",
            Self::Expiry => "the end of a binding",
            Self::Guard | Self::Night => "the broker, for room",
            Self::Watchdog => "the broker, for a member",
            Self::Renewal => "the broker, for certificates",
            Self::Configuration => "the broker, for new settings",
            Self::Proof => "the broker, for a proof",
        }
    }

    /// The same with who stood there, where it is known: `the dashboard: ada`.
    pub fn words_with(self, user: Option<&str>) -> String {
        match user {
            Some(user) => format!("{}: {user}", self.words()),
            None => self.words().to_owned(),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn every_action_has_words_of_its_own() {
        let names = (OperationKind::ALL.map(OperationKind::as_str).into_iter())
            .chain(AtOnce::ALL.map(AtOnce::as_str))
            .chain(Accessed::ALL.map(Accessed::as_str));
        let names: Vec<&str> = names.collect();
        let words: BTreeSet<String> = names.iter().map(|name| words_of_action(name)).collect();
        assert_eq!(words.len(), names.len(), "{words:?}");
        for words in words {
            assert_eq!(words, capitalized(&words));
            assert!(!words.contains('_'), "{words}");
        }
        assert_eq!(words_of_action("of_tomorrow"), "Of tomorrow");
    }
}
