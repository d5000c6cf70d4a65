//! Who had what done, for operators.

use super::{Broker, BrokerError};
use crate::{
    model::{audit::AuditEntry, ids::InstanceId, limits::AUDIT_PAGE_MAX},
    store,
};

/// Which entries are asked for.
#[derive(Debug, Clone, Default)]
pub struct AuditQuery {
    /// Only those of this instance.
    pub instance: Option<InstanceId>,
    /// Only those before this one.
    pub before: Option<i64>,
    /// At most so many.
    pub limit: Option<i64>,
}

/// Entries, newest first.
#[derive(Debug)]
pub struct AuditPage {
    /// The entries.
    pub entries: Vec<AuditEntry>,
    /// What to ask for the ones before with ([`AuditQuery::before`]), when there are any.
    pub next: Option<i64>,
}

impl Broker {
    /// The newest entries of the audit.
    pub async fn audit(&self, query: AuditQuery) -> Result<AuditPage, BrokerError> {
        let limit = query.limit.unwrap_or(AUDIT_PAGE_MAX);
        if !(1..=AUDIT_PAGE_MAX).contains(&limit) {
            return Err(BrokerError::BadRequest(format!(
                "limit must be from 1 to {AUDIT_PAGE_MAX}"
            )));
        }
        let mut entries = self
            .store
            .read(move |conn| {
                let instance = query.instance.as_ref();
                store::audit::newest(conn, instance, query.before, limit + 1)
            })
            .await?;
        // One more than was asked for tells that there are more.
        let more = entries.len() > usize::try_from(limit).unwrap_or(usize::MAX);
        if more {
            entries.pop();
        }
        let next = entries.last().filter(|_| more).map(|entry| entry.id);
        Ok(AuditPage { entries, next })
    }
}
