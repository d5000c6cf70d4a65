//! What platforms were told, in the order in which they heard it.

use std::collections::BTreeMap;

use compose_broker::model::operation::OperationKind;

/// Something that was asked for, and what was said to it.
#[derive(Debug, Clone)]
pub struct Asked {
    pub instance: String,
    pub binding: Option<String>,
    pub kind: OperationKind,
    pub status: u16,
    /// The operation that the answer names.
    pub operation: Option<String>,
    /// How often it was sent and nobody knew what became of it.
    pub unknown: usize,
    /// How it ended, as the platform was told: `gone` where nobody tells any more.
    pub end: Option<String>,
}

impl Asked {
    /// Whether it was accepted, or done at once.
    pub fn is_accepted(&self) -> bool {
        (200..300).contains(&self.status)
    }
}

/// A backup that a tenant was promised.
#[derive(Debug, Clone)]
pub struct Promise {
    pub lane: usize,
    pub instance: String,
    pub backup: String,
    /// What the database had kept before: the backup has no smaller number.
    pub at_least: u64,
}

/// All of it.
#[derive(Debug, Default)]
pub struct Journal {
    pub asked: Vec<Asked>,
    pub backups: Vec<Promise>,
    /// What was not as it has to be, seen at once.
    pub complaints: Vec<String>,
}

impl Journal {
    /// How much was asked for so far, and what was said to it.
    pub fn summary(&self) -> String {
        let mut by_status = BTreeMap::<u16, usize>::new();
        let mut unknown = 0;
        for of in &self.asked {
            *by_status.entry(of.status).or_default() += 1;
            unknown += of.unknown;
        }
        let count = self.asked.len();
        format!("asked for {count}, answers {by_status:?}, unanswered {unknown}")
    }

    /// What was promised of a backup of a tenant's instance: of one that nobody asked for, that it is the tenant's.
    pub fn promise(&self, backup: &str, lane: usize, instance: &str) -> Promise {
        let known = self.backups.iter().find(|of| of.backup == backup).cloned();
        known.unwrap_or_else(|| Promise {
            lane,
            instance: instance.to_owned(),
            backup: backup.to_owned(),
            at_least: 0,
        })
    }

    /// The newest backup that another tenant was promised.
    pub fn newest_backup_of_others(&self, lane: usize) -> Option<Promise> {
        let mut newest = self.backups.iter().rev();
        newest.find(|promise| promise.lane != lane).cloned()
    }
}
