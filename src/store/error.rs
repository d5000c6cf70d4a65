//! What can go wrong in the store.

use diesel::result::{DatabaseErrorKind, Error as DieselError};

use crate::model::failure::chain;

/// Why the store could not do what it was asked.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// A row of that key is there already. The transaction is of no further use.
    #[error("such a row exists already")]
    Duplicate,
    /// The operation was claimed by another worker meanwhile, or ended.
    #[error("the operation belongs to another worker now")]
    Fenced,
    /// A row is missing that another row names.
    #[error("{0} is not in the store")]
    Missing(String),
    /// A row holds something that this version of the broker does not understand.
    #[error("the store holds something unreadable: {0}")]
    Unreadable(String),
    /// The address of the database is of no known kind.
    #[error("{0}")]
    Address(String),
    /// The database refused.
    #[error("the database refused")]
    Database(#[source] DieselError),
    /// No connection.
    #[error("no connection to the database")]
    Connection(#[source] Box<dyn std::error::Error + Send + Sync>),
    /// It did not come to it in time; nothing was done.
    #[error("the store is too slow now, and nothing was changed")]
    Busy,
    /// The connection was lost in the commit, or no answer came, and nothing tells what became of it.
    #[error(
        "the database gave no answer while it kept the change, so that nobody knows whether it did: look before \
         you ask for it again"
    )]
    Unknown(#[source] Box<Self>),
    /// A newer version of the broker has brought the database to its own schema.
    #[error(
        "the database is newer than this version of the broker, which does not know its migration {0}: \
         start the newer version again, or restore the database of before"
    )]
    Newer(String),
    /// It was copied into another database.
    #[error(
        "this store was copied into another database, which has gone on without it: name that one \
         (COMPOSE_BROKER_DATABASE_URL)"
    )]
    Moved,
    /// A copy into it was broken off.
    #[error(
        "the copy of a store into this database has not ended: repeat `compose-broker store copy`, which goes \
         on with it"
    )]
    Unfinished,
    /// A pooler stands before the server, and nobody has said so.
    #[error(
        "a pooler before the database gives each transaction any of its connections, and the broker would run \
         statements of others there: say so by COMPOSE_BROKER_DATABASE_POOLER=transaction, or name the server \
         itself"
    )]
    Pooler,
    /// The server is too old.
    #[error(
        "the server is PostgreSQL {found}, and the broker needs {first} or newer: upgrade it, or name another one"
    )]
    OldServer {
        /// Its version.
        found: u32,
        /// The first that would do.
        first: u32,
    },
    /// The migrations did not run.
    #[error("the database could not be brought to this version")]
    Migration(#[source] Box<dyn std::error::Error + Send + Sync>),
}

impl From<DieselError> for StoreError {
    fn from(error: DieselError) -> Self {
        match error {
            DieselError::DatabaseError(DatabaseErrorKind::UniqueViolation, _) => Self::Duplicate,
            other => Self::Database(other),
        }
    }
}

/// What databases say when their disk is full.
const FULL: [&str; 2] = ["database or disk is full", "No space left"];

/// What databases say when their machine is short of something, or somebody else holds them up.
const SHORT: [&str; 12] = [
    "database or disk is full",
    "disk I/O error",
    "unable to open database file",
    "readonly database",
    "database is locked",
    "table is locked",
    "out of memory",
    "No space left",
    "too many open files",
    "Too many open files",
    "too many clients",
    "timeout",
];

impl StoreError {
    /// Whether the database may do the same a little later: it was short of something, or gave no
    /// answer in time.
    pub fn is_shortage(&self) -> bool {
        match self {
            Self::Connection(_) | Self::Busy | Self::Unknown(_) => true,
            Self::Database(DieselError::DatabaseError(kind, told)) => match kind {
                DatabaseErrorKind::ClosedConnection
                | DatabaseErrorKind::UnableToSendCommand
                | DatabaseErrorKind::SerializationFailure
                | DatabaseErrorKind::ReadOnlyTransaction => true,
                DatabaseErrorKind::Unknown => {
                    SHORT.iter().any(|text| told.message().contains(text))
                }
                _ => false,
            },
            _ => false,
        }
    }

    /// Whether the database's disk is full.
    pub fn is_full(&self) -> bool {
        let Self::Database(DieselError::DatabaseError(_, told)) = self else {
            return false;
        };
        FULL.iter().any(|text| told.message().contains(text))
    }

    /// The same for one more that has to be told.
    pub(super) fn again(&self) -> Self {
        match self {
            Self::Database(DieselError::DatabaseError(kind, told)) => {
                let told = Box::new(told.message().to_owned());
                Self::Database(DieselError::DatabaseError(*kind, told))
            }
            Self::Unknown(reason) => Self::Unknown(Box::new(reason.again())),
            other => Self::Connection(chain(other).into()),
        }
    }

    /// Wraps what a row's conversion said.
    pub(super) fn unreadable(what: &str, reason: impl std::fmt::Display) -> Self {
        Self::Unreadable(format!("{what}: {reason}"))
    }
}
