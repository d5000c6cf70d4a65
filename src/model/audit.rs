//! What is remembered of who had what done.

use chrono::{DateTime, Utc};

use super::{
    ids::{BackupId, BindingId, InstanceId, OperationId},
    origin::Origin,
};

/// What was done at once, without an operation; the store's and operators' names of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AtOnce {
    /// A platform's context of an instance.
    Context,
    /// A name that a visitor of the pages gave an instance.
    Name,
    /// The schedule of an instance's backups.
    Schedule,
    /// An instance refuses to be deleted.
    ProtectionOn,
    /// An instance may be deleted again.
    ProtectionOff,
    /// The backups of an instance go with it, once it is deleted.
    DeleteBackupsOn,
    /// They are kept after it.
    DeleteBackupsOff,
    /// Parameters of an instance that name its version or its size as it is.
    Parameters,
    /// Notes beside a deployment.
    Notes,
    /// A note beside a backup.
    BackupNote,
    /// Somebody began to bring a backup along.
    Upload,
    /// A backup that somebody was bringing along was given up.
    UploadEnd,
    /// A backup is kept beyond its time.
    Pin,
    /// A backup is kept no longer than others.
    Unpin,
    /// Another catalog.
    Catalog,
    /// Another owner of an instance.
    Owner,
    /// Repairs of what the store and the backup store disagreed about.
    Reconciliation,
    /// An operator had an operation tried again.
    Retry,
    /// An operator gave an operation up.
    Abandon,
    /// An operator said that the clock is right.
    Clock,
    /// A deployment that the store did not know is an instance's again.
    Adoption,
    /// A deployment that the store did not know was removed.
    Removal,
    /// An operator had the backups of a deleted instance removed.
    DeletedPurge,
    /// The backups of a deleted instance are gone.
    DeletedEnd,
    /// What was spoiled of a backup was put back from the mirror.
    Healing,
}

impl AtOnce {
    /// All of them.
    pub const ALL: [Self; 25] = [
        Self::Context,
        Self::Name,
        Self::Schedule,
        Self::ProtectionOn,
        Self::ProtectionOff,
        Self::DeleteBackupsOn,
        Self::DeleteBackupsOff,
        Self::Parameters,
        Self::Notes,
        Self::BackupNote,
        Self::Upload,
        Self::UploadEnd,
        Self::Pin,
        Self::Unpin,
        Self::Catalog,
        Self::Owner,
        Self::Reconciliation,
        Self::Retry,
        Self::Abandon,
        Self::Clock,
        Self::Adoption,
        Self::Removal,
        Self::DeletedPurge,
        Self::DeletedEnd,
        Self::Healing,
    ];

    /// The name.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Context => "context",
            Self::Name => "name",
            Self::Schedule => "schedule",
            Self::ProtectionOn => "delete_protection_on",
            Self::ProtectionOff => "delete_protection_off",
            Self::DeleteBackupsOn => "delete_backups_on",
            Self::DeleteBackupsOff => "delete_backups_off",
            Self::Parameters => "parameters",
            Self::Notes => "notes",
            Self::BackupNote => "backup_note",
            Self::Upload => "upload",
            Self::UploadEnd => "upload_end",
            Self::Pin => "pin",
            Self::Unpin => "unpin",
            Self::Catalog => "catalog",
            Self::Owner => "owner",
            Self::Reconciliation => "reconciliation",
            Self::Retry => "retry",
            Self::Abandon => "abandon",
            Self::Clock => "clock",
            Self::Adoption => "adoption",
            Self::Removal => "removal",
            Self::DeletedPurge => "deleted_purge",
            Self::DeletedEnd => "deleted_end",
            Self::Healing => "healing",
        }
    }

    /// The one of that name.
    pub fn parse(text: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|done| done.as_str() == text)
    }
}

/// One thing that was accepted to be done, or done at once, or that somebody got to see.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AuditEntry {
    /// Its place: later entries have higher ones.
    pub id: i64,
    /// When.
    pub at: DateTime<Utc>,
    /// What: the name of the operation's kind, or one of [`AtOnce`], or one of
    /// [`Accessed`](super::trail::Accessed).
    ///
    /// [`AuditEntry::words`] says it in words.
    pub action: String,
    /// The door that it came through, or the broker itself.
    pub origin: Origin,
    /// The instance; none where it is about the broker as a whole.
    pub instance: Option<InstanceId>,
    /// The binding, where it is about one.
    pub binding: Option<BindingId>,
    /// The operation that does it, forgotten long before this; none for what was done at once.
    pub operation: Option<OperationId>,
    /// Where `user` is known.
    pub platform: Option<String>,
    /// Who asked for it.
    pub user: Option<String>,
    /// The platform's name of the request.
    pub request_id: Option<String>,
    /// The backup, where it is about one.
    pub backup: Option<BackupId>,
    /// The address that it was asked for from.
    pub address: Option<String>,
    /// How many it stands for; more than one where somebody did the same again and again.
    pub times: i64,
    /// What the operation does, in words, where that is more than its kind says.
    pub words: Option<String>,
}
