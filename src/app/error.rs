//! Why a broker does not start, or does not take over what was changed.

use std::{io, net::SocketAddr, path::PathBuf};

use crate::{
    backups::BackupStoreError,
    broker::{BrokerError, CatalogRefusal, LostPlans},
    config::ConfigError,
    folder,
    http::tls::TlsError,
    model::{catalog::CatalogErrors, ids::FolderMark, marker::FolderName, replicas::RingConflict},
    provisioner::ProvisionerError,
    seal::SealError,
    store::StoreError,
};

/// Why a folder is not used.
#[derive(Debug, thiserror::Error)]
pub enum FolderError {
    /// It is a copy.
    #[error(
        "{} is a copy of {}, which is still there: use that one, or end its broker and members and \
         rename it; or start once with --accept {name}", folder.display(), original.display()
    )]
    Copy {
        /// The folder.
        folder: PathBuf,
        /// What it was copied from.
        original: PathBuf,
        /// Which one it is.
        name: FolderName,
    },
    /// Its marker is missing, or all that should be in it.
    #[error(
        "{} is not the folder that the broker knows, since it has {lacks}: is its disk mounted? If \
         the content is lost for good, or this is a new place for it, start once with --accept {name}", folder.display()
    )]
    Missing {
        /// The folder.
        folder: PathBuf,
        /// What was looked for.
        lacks: String,
        /// Which one it is.
        name: FolderName,
    },
    /// Brokers on the store have another one of that name.
    #[error(
        "{} is not what the brokers on this database have for it: is its disk mounted? Where each broker has one of \
         its own, {}. If the content is lost for good, or this is a new place for it, start once with --accept \
         {name}", folder.display(), instead_of(name)
    )]
    Elsewhere {
        /// The folder, or the address of the place.
        folder: PathBuf,
        /// Which one it is.
        name: FolderName,
    },
    /// It has another one's marker.
    #[error(
        "{} is not the folder that the broker knows: its {} says that it is {found}, not {known}. Is \
         the right disk mounted there? To take it as it is, start once with --accept {name}",
        folder.display(), folder::MARKER
    )]
    Foreign {
        /// The folder.
        folder: PathBuf,
        /// What its marker says.
        found: FolderMark,
        /// What the store knows.
        known: String,
        /// Which one it is.
        name: FolderName,
    },
    /// It cannot be looked at.
    #[error("{}", folder.display())]
    Unreadable {
        /// The folder.
        folder: PathBuf,
        /// What the system said.
        #[source]
        source: io::Error,
    },
}

/// What brokers that share a store are to have instead of one each.
fn instead_of(name: &FolderName) -> &'static str {
    match name {
        FolderName::Cluster(_) => {
            "give each machine's cluster an id of its own and its machine in COMPOSE_BROKER_CLUSTERS, the same file \
             for all brokers"
        }
        _ => "name a place that all of them reach",
    }
}

/// Why the broker does not start. Each is one line and names the setting behind it.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The catalog is broken.
    #[error("COMPOSE_BROKER_CATALOG")]
    Catalog(#[from] CatalogErrors),
    /// The catalog lacks what instances use.
    #[error("COMPOSE_BROKER_CATALOG: {0}")]
    CatalogLost(LostPlans),
    /// Whether it lacks anything cannot be told.
    #[error("COMPOSE_BROKER_CATALOG")]
    CatalogCheck(#[source] BrokerError),
    /// The store does not open.
    #[error("COMPOSE_BROKER_DATABASE_URL")]
    Store(#[from] StoreError),
    /// The key ring is not the one that this store's secrets were sealed under.
    #[error("COMPOSE_BROKER_ENCRYPTION_KEYS: the key ring does not open what the store holds")]
    Keys(#[source] SealError),
    /// Something in the store is sealed under a key that the ring lacks.
    #[error(
        "COMPOSE_BROKER_ENCRYPTION_KEYS: the store holds secrets that no key of the ring opens: give the key \
         that they were sealed under too, behind the first one"
    )]
    KeyGone,
    /// Backups are sealed under a key that the ring lacks.
    #[error(
        "COMPOSE_BROKER_ENCRYPTION_KEYS: backups are sealed under keys that the ring lacks: {0}; put them back, \
         behind the first one, until no backup needs them (the log says when), or give these backups up \
         with --accept keys"
    )]
    KeysOfBackupsGone(String),
    /// The ring does not fit those of other brokers on the store.
    #[error("COMPOSE_BROKER_ENCRYPTION_KEYS")]
    Rings(#[from] RingConflict),
    /// A cluster cannot be used.
    #[error(
        "cluster {cluster:?} (COMPOSE_BROKER_DATA_DIR, COMPOSE_BROKER_ENGINES_DIR, \
         COMPOSE_BROKER_CLUSTERS)"
    )]
    Cluster {
        /// The cluster's id.
        cluster: String,
        /// What is wrong with it.
        #[source]
        source: ProvisionerError,
    },
    /// No engine is installed.
    #[error(
        "COMPOSE_BROKER_ENGINES_DIR: {folder} holds no usable engine for cluster {cluster:?}; \
         scripts/engines.sh installs some"
    )]
    NoEngine {
        /// The cluster's id.
        cluster: String,
        /// Where its engines were looked for.
        folder: String,
    },
    /// An instance of ours would be taken for a cluster.
    #[error(
        "COMPOSE_BROKER_CLUSTERS: service_instance_id {0:?} is that of a service instance of this \
         broker, not of a cluster"
    )]
    ClusterIsInstance(String),
    /// Instances would be left alone.
    #[error(
        "COMPOSE_BROKER_CLUSTERS: instances live on clusters that are not listed (any more): \
         {0}; list them, with \"enabled\": false if they shall take nothing new"
    )]
    ClusterGone(String),
    /// A setting that shows to be wrong only when something is made.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// The database is new, and other things are not.
    #[error(
        "COMPOSE_BROKER_DATABASE_URL: the database is a new one, but there are {0}. If it was lost, \
         put its copy back; to begin with an empty one beside them, start once with --accept \
         database"
    )]
    NewDatabase(String),
    /// The folder of what the broker keeps is not what it seems.
    #[error("COMPOSE_BROKER_DATA_DIR")]
    DataFolder(#[source] FolderError),
    /// The folder of backups is not what it seems.
    #[error("COMPOSE_BROKER_BACKUP_STORE")]
    BackupFolder(#[source] FolderError),
    /// The folder of the mirror is not what it seems.
    #[error("COMPOSE_BROKER_BACKUP_MIRROR")]
    MirrorFolder(#[source] FolderError),
    /// The mirror cannot be used.
    #[error("COMPOSE_BROKER_BACKUP_MIRROR")]
    Mirror(#[source] BackupStoreError),
    /// The folder of a cluster is not what it seems.
    #[error("cluster {cluster:?} (COMPOSE_BROKER_DATA_DIR, COMPOSE_BROKER_CLUSTERS)")]
    ClusterFolder {
        /// The cluster's id.
        cluster: String,
        /// What is wrong with the folder.
        #[source]
        source: FolderError,
    },
    /// The folder of backups cannot be used.
    #[error("COMPOSE_BROKER_BACKUP_STORE")]
    BackupStore(#[from] BackupStoreError),
    /// The listener's certificate cannot be used.
    #[error("COMPOSE_BROKER_TLS_CERTIFICATE, COMPOSE_BROKER_TLS_KEY")]
    Tls(#[from] TlsError),
    /// The address is taken, or not ours.
    #[error("COMPOSE_BROKER_LISTEN: cannot listen on {address}")]
    Listen {
        /// The address.
        address: SocketAddr,
        /// What the system said.
        #[source]
        source: io::Error,
    },
}

impl From<CatalogRefusal> for StartError {
    fn from(refusal: CatalogRefusal) -> Self {
        match refusal {
            CatalogRefusal::Lost(lost) => Self::CatalogLost(lost),
            CatalogRefusal::Broker(BrokerError::Store(error) | BrokerError::StoreFull(error)) => {
                error.into()
            }
            CatalogRefusal::Broker(error) => Self::CatalogCheck(error),
        }
    }
}

/// Why the catalog is not replaced.
#[derive(Debug, thiserror::Error)]
pub(super) enum ReloadError {
    /// It cannot be read.
    #[error("the file cannot be read")]
    File(#[from] io::Error),
    /// It is broken.
    #[error(transparent)]
    Broken(#[from] CatalogErrors),
    /// It lacks what instances use.
    #[error(transparent)]
    Refused(#[from] CatalogRefusal),
}
