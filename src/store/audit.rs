//! Rows of who had what done: added with the work that they tell of, never changed.

use chrono::NaiveDateTime;
use diesel::prelude::*;

use super::{Conn, StoreError, each, parse, schema::audit};
use crate::model::{audit::AuditEntry, ids::InstanceId, operation::Operation};

#[derive(Queryable)]
struct Row {
    id: i64,
    at: NaiveDateTime,
    action: String,
    origin: String,
    instance_id: String,
    binding_id: Option<String>,
    operation_id: String,
    platform: Option<String>,
    actor: Option<String>,
    request_id: Option<String>,
}

impl Row {
    fn into_model(self) -> Result<AuditEntry, StoreError> {
        let binding = self.binding_id.map(|id| parse("a binding's id", &id));
        Ok(AuditEntry {
            id: self.id,
            at: self.at.and_utc(),
            action: self.action,
            origin: self.origin,
            instance: parse("an instance's id", &self.instance_id)?,
            binding: binding.transpose()?,
            operation: parse("an operation's id", &self.operation_id)?,
            platform: self.platform,
            user: self.actor,
            request_id: self.request_id,
        })
    }
}

/// Writes down that an operation was accepted, and for whom.
pub(super) fn accepted(conn: &mut Conn<'_>, operation: &Operation) -> Result<(), StoreError> {
    let caller = conn.caller.clone();
    each!(conn, |c| diesel::insert_into(audit::table)
        .values((
            audit::at.eq(operation.created_at.naive_utc()),
            audit::action.eq(operation.kind.as_str()),
            audit::origin.eq(&operation.origin),
            audit::instance_id.eq(operation.instance.as_str()),
            audit::binding_id.eq(operation.binding.as_ref().map(|id| id.as_str())),
            audit::operation_id.eq(operation.id.as_str()),
            audit::platform.eq(caller.platform),
            audit::actor.eq(caller.user),
            audit::request_id.eq(caller.request_id),
        ))
        .execute(c))?;
    Ok(())
}

/// The newest entries, at most `limit`: those of one instance, and those before `before`, where
/// that is asked for.
pub fn newest(
    conn: &mut Conn<'_>,
    instance: Option<&InstanceId>,
    before: Option<i64>,
    limit: i64,
) -> Result<Vec<AuditEntry>, StoreError> {
    let rows: Vec<Row> = each!(conn, |c| {
        let mut query = audit::table
            .order(audit::id.desc())
            .limit(limit)
            .into_boxed();
        if let Some(instance) = instance {
            query = query.filter(audit::instance_id.eq(instance.as_str()));
        }
        if let Some(before) = before {
            query = query.filter(audit::id.lt(before));
        }
        query.load(c)
    })?;
    rows.into_iter().map(Row::into_model).collect()
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use chrono::Utc;

    use super::*;
    use crate::{
        caller::Caller,
        model::operation::OperationKind,
        store::{Store, operation},
    };

    async fn with_an_entry() -> (Arc<Store>, tempfile::TempDir) {
        let folder = tempfile::tempdir().expect("a folder");
        let url = format!("sqlite://{}", folder.path().join("db").display());
        let store = Arc::new(Store::open(&url).expect("a store"));
        let ada = Caller {
            platform: Some("cloudfoundry".to_owned()),
            user: Some("ada".to_owned()),
            request_id: Some("r".to_owned()),
        };
        let instance: InstanceId = "i".parse().expect("an id");
        let backup = Operation::queued(OperationKind::Backup, &instance, "compose", Utc::now());
        let accept = store.write(move |conn| operation::insert(conn, &backup, None));
        ada.during(accept).await.expect("accepted");
        (store, folder)
    }

    async fn all(store: &Arc<Store>) -> Vec<AuditEntry> {
        let read = store.read(|conn| newest(conn, None, None, 10)).await;
        read.expect("entries")
    }

    #[tokio::test]
    async fn what_is_accepted_is_written_down_with_whoever_asked() {
        let (store, _folder) = with_an_entry().await;
        let entry = &all(&store).await[0];
        assert_eq!(
            (entry.action.as_str(), entry.origin.as_str()),
            ("backup", "compose")
        );
        assert_eq!(entry.user.as_deref(), Some("ada"));
        assert_eq!(entry.platform.as_deref(), Some("cloudfoundry"));
        assert_eq!(entry.request_id.as_deref(), Some("r"));
    }

    #[tokio::test]
    async fn what_is_undone_was_not_written_down() {
        let (store, _folder) = with_an_entry().await;
        let instance: InstanceId = "j".parse().expect("an id");
        let backup = Operation::queued(OperationKind::Backup, &instance, "compose", Utc::now());
        let refused: Result<(), StoreError> = store
            .write(move |conn| {
                operation::insert(conn, &backup, None)?;
                Err(StoreError::Missing("a reason".to_owned()))
            })
            .await;
        assert!(refused.is_err());
        assert_eq!(all(&store).await.len(), 1);
    }

    #[tokio::test]
    async fn the_database_refuses_to_change_or_remove_what_was_written() {
        let (store, _folder) = with_an_entry().await;
        for change in ["UPDATE audit SET actor = 'eve'", "DELETE FROM audit"] {
            let changed = store
                .write(move |conn| {
                    each!(conn, |c| diesel::sql_query(change).execute(c))?;
                    Ok(())
                })
                .await;
            assert!(matches!(changed, Err(StoreError::Database(_))), "{change}");
        }
        assert_eq!(all(&store).await[0].user.as_deref(), Some("ada"));
    }
}
