//! What is remembered of who had what done.

use chrono::{DateTime, Utc};

use super::ids::{BindingId, InstanceId, OperationId};

/// One thing that was accepted to be done.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AuditEntry {
    /// Its place: later entries have higher ones.
    pub id: i64,
    /// When.
    pub at: DateTime<Utc>,
    /// What: the name of the operation's kind.
    pub action: String,
    /// The door that it came through: `osb`, `compose`, or the broker itself.
    pub origin: String,
    /// The instance.
    pub instance: InstanceId,
    /// The binding, where it is about one.
    pub binding: Option<BindingId>,
    /// The operation that does it; forgotten long before this.
    pub operation: OperationId,
    /// Where `user` is known.
    pub platform: Option<String>,
    /// Who asked for it.
    pub user: Option<String>,
    /// The platform's name of the request.
    pub request_id: Option<String>,
}
