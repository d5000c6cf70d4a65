//! Why an instance that is asked for is refused, as values: an answer to who asks, and what pages and preflights
//! tell beforehand. A failure of the broker is none.

use super::BrokerError;
use crate::{
    model::{
        choice::ChoiceError,
        exposure::ExposureRefusal,
        ids::{BackupId, InstanceId},
        name::NameError,
        period::BackupKind,
        placement::PlacementRefusal,
        quota::QuotaRefusal,
        version::VersionRefusal,
    },
    seal::age::PrivateKeyError,
    store::StoreError,
};

/// Why it is refused; the text says what to do.
#[derive(Debug, thiserror::Error)]
pub(super) enum Refusal {
    /// No instance has that size.
    #[error("units is {units}; an instance has from 1 to {most} units")]
    Units {
        /// What was asked for.
        units: u32,
        /// What an instance of the engine has at most.
        most: u32,
    },
    /// The backup is larger than what it shall go into.
    #[error(
        "the backup holds {mebibytes} MiB, more than the {asked} asked for; give units as at least {needed}"
    )]
    TooLarge {
        /// The size of the backup, in MiB.
        mebibytes: u64,
        /// The units that were asked for, in words.
        asked: String,
        /// The units that it needs.
        needed: u32,
    },
    /// It can go nowhere.
    #[error(transparent)]
    Place(#[from] PlacementRefusal),
    /// There is no such version for it.
    #[error(transparent)]
    Version(#[from] VersionRefusal),
    /// The version lets strangers in, and these get there.
    #[error(transparent)]
    Exposure(#[from] ExposureRefusal),
    /// The tenant has as much as it may.
    #[error(transparent)]
    Quota(#[from] QuotaRefusal),
    /// Nothing can be called so.
    #[error(transparent)]
    Name(#[from] NameError),
    /// Something is called so.
    #[error("a service instance of yours has the name {0:?} already; choose another one")]
    NameTaken(String),
    /// The words for the backup mean none.
    #[error(transparent)]
    Choice(#[from] ChoiceError),
    /// A source without a backup.
    #[error(
        "a restore needs backup_id beside source_service_instance_id: list the source's backups to find it, or \
         give latest; or give restore_time, for the newest one from before"
    )]
    NoChoice,
    /// A backup without a source.
    #[error(
        "a restore needs source_service_instance_id beside backup_id or restore_time: the id of the service \
         instance that the backup was taken of"
    )]
    NoSource,
    /// Nothing tells the tenant from others on this platform.
    #[error(
        "nothing in the request tells you from others: organization_guid and space_guid are placeholders, or words \
         that the platform {0:?} may send for everybody, and the context has no id of a tenant. So the broker \
         restores nothing for it; the operator can name what tells tenants apart with COMPOSE_BROKER_TENANT_KEYS"
    )]
    AnyTenant(String),
    /// A foreign instance is answered exactly like an unknown one.
    #[error(
        "source_service_instance_id {0:?} is no service instance that you can restore from; give the id, not the \
         name, of one of your own"
    )]
    UnknownSource(String),
    /// The source is of another service.
    #[error(
        "source_service_instance_id {instance:?} is of another service than {offering}; restore it with the service \
         that it is of"
    )]
    OtherService {
        /// The source.
        instance: String,
        /// The service that was asked for.
        offering: String,
    },
    /// The source has no backup of that kind and time.
    #[error(
        "the service instance {instance:?} has no complete{which}; list its backups and choose one of them, or take \
         one"
    )]
    NoBackup {
        /// The source.
        instance: String,
        /// The backup, as the sentence goes on.
        which: String,
    },
    /// The source has no backup of that id.
    #[error(
        "the service instance {instance:?} has no backup {backup:?}; list its backups and choose one of them"
    )]
    UnknownBackup {
        /// The source.
        instance: String,
        /// The id.
        backup: String,
    },
    /// The backup is being taken.
    #[error("backup {0} is not finished; wait until its status is complete")]
    Unfinished(BackupId),
    /// The backup could not be taken.
    #[error("backup {0} failed and holds nothing; take a new one or choose another")]
    Failed(BackupId),
    /// The backup is on its way out.
    #[error("backup {0} has expired; choose one that is still listed")]
    Expired(BackupId),
    /// The backup is sealed for the tenant's key, and that is not given.
    #[error(
        "backup {0} is sealed for your own key {1}, and the broker cannot open it: give the private key to it as \
         backup_private_key"
    )]
    NeedsKey(BackupId, String),
    /// The private key opens another one.
    #[error("backup_private_key does not open backup {0}: that is sealed for the key {1}")]
    OtherKey(BackupId, String),
    /// The private key opens nothing.
    #[error("backup_private_key is of no use: {0}")]
    UnreadableKey(PrivateKeyError),
    /// The broker opens the backup by itself.
    #[error(
        "backup {0} is not sealed for a key of yours: leave backup_private_key out, and keep it to yourself"
    )]
    KeyNotNeeded(BackupId),
    /// There is nothing that a private key could open.
    #[error(
        "backup_private_key is about a restore: it needs source_service_instance_id and a backup; keep it to \
         yourself otherwise"
    )]
    KeyWithoutRestore,
    /// The backup was removed when its time was over.
    #[error("backup {0} has expired, as {1} backups do; choose one that is still listed")]
    OutOfTime(BackupId, BackupKind),
    /// The backup was removed for newer ones.
    #[error("backup {backup} gave way to {newer}; choose one that is still listed")]
    GaveWay {
        /// The backup.
        backup: BackupId,
        /// The newer ones, as the sentence goes on.
        newer: String,
    },
}

impl Refusal {
    /// See [`Refusal::UnknownBackup`].
    pub(super) fn unknown_backup(instance: &InstanceId, backup: &BackupId) -> Self {
        Self::UnknownBackup {
            instance: instance.as_str().to_owned(),
            backup: backup.as_str().to_owned(),
        }
    }
}

impl From<Refusal> for BrokerError {
    fn from(refusal: Refusal) -> Self {
        let reason = refusal.to_string();
        match refusal {
            Refusal::NameTaken(_) => Self::Conflict(reason),
            _ => Self::BadRequest(reason),
        }
    }
}

impl From<ChoiceError> for BrokerError {
    fn from(error: ChoiceError) -> Self {
        Refusal::from(error).into()
    }
}

/// Why a rule that looks into the store does not say yes.
#[derive(Debug)]
pub(super) enum RuleError {
    /// It says no.
    Refused(Refusal),
    /// It could not look.
    Store(StoreError),
}

impl From<Refusal> for RuleError {
    fn from(refusal: Refusal) -> Self {
        Self::Refused(refusal)
    }
}

impl From<StoreError> for RuleError {
    fn from(error: StoreError) -> Self {
        Self::Store(error)
    }
}

impl From<RuleError> for BrokerError {
    fn from(error: RuleError) -> Self {
        match error {
            RuleError::Refused(refusal) => refusal.into(),
            RuleError::Store(error) => error.into(),
        }
    }
}

/// Where a refusal is an answer like others: apart from what keeps the broker from looking.
pub(super) fn answer<T>(result: Result<T, RuleError>) -> Result<Result<T, Refusal>, StoreError> {
    match result {
        Ok(value) => Ok(Ok(value)),
        Err(RuleError::Refused(refusal)) => Ok(Err(refusal)),
        Err(RuleError::Store(error)) => Err(error),
    }
}
