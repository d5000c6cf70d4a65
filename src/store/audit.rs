//! Rows of who had what done, and who got to see what: added with the work that they tell of, never
//! changed, and removed only when the operator keeps them for a time.

use std::collections::BTreeMap;

use chrono::{DateTime, NaiveDateTime, Utc};
use diesel::prelude::*;

use super::{
    Conn, StoreError, each, known, parse,
    prepared::Prepared,
    schema::{audit, audit_horizon},
};
use crate::caller::Caller;
use crate::model::{
    audit::{AtOnce, AuditEntry},
    ids::{BackupId, BindingId, InstanceId, OperationId},
    operation::{Operation, OperationKind},
    origin::Origin,
    trail::CountedAccess,
    trust::Trusted,
};

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
    backup_id: Option<String>,
    address: Option<String>,
    times: i64,
    words: Option<String>,
}

impl Row {
    fn into_model(self) -> Result<AuditEntry, StoreError> {
        let binding = self.binding_id.map(|id| parse("a binding's id", &id));
        let there = |text: String| Some(text).filter(|text| !text.is_empty());
        let instance = there(self.instance_id).map(|id| parse("an instance's id", &id));
        let operation = there(self.operation_id).map(|id| parse("an operation's id", &id));
        let backup = self.backup_id.map(|id| parse("a backup's id", &id));
        Ok(AuditEntry {
            id: self.id,
            at: self.at.and_utc(),
            action: self.action,
            origin: known("an entry's origin", &self.origin, Origin::parse)?,
            instance: instance.transpose()?,
            binding: binding.transpose()?,
            operation: operation.transpose()?,
            platform: self.platform,
            user: self.actor,
            request_id: self.request_id,
            backup: backup.transpose()?,
            address: self.address,
            times: self.times,
            words: self.words,
        })
    }
}

/// Writes down that an operation was accepted, and for whom.
pub(super) fn accepted(conn: &mut Conn<'_>, operation: &Operation) -> Result<(), StoreError> {
    let words = operation.words();
    let entry = Entry {
        at: operation.created_at,
        action: operation.kind.as_str(),
        origin: operation.origin,
        instance: operation.instance.as_str(),
        binding: operation.binding.as_ref().map(BindingId::as_str),
        operation: operation.id.as_str(),
        backup: operation.backup.as_ref().map(BackupId::as_str),
        times: 1,
        words: Some(&*words).filter(|words| *words != operation.kind.words()),
    };
    let caller = conn.caller.clone();
    add(conn, &entry, caller)
}

/// Writes down what is done at once, and for whom; `instance`: none for the broker as a whole.
pub fn done(
    conn: &mut Conn<'_>,
    what: AtOnce,
    origin: Origin,
    instance: Option<&InstanceId>,
    at: DateTime<Utc>,
) -> Result<(), StoreError> {
    add_done(conn, what, origin, (instance, None), at)
}

/// The same of one backup of an instance.
pub fn done_to_backup(
    conn: &mut Conn<'_>,
    what: AtOnce,
    origin: Origin,
    (instance, backup): (&InstanceId, &BackupId),
    at: DateTime<Utc>,
) -> Result<(), StoreError> {
    add_done(conn, what, origin, (Some(instance), Some(backup)), at)
}

fn add_done(
    conn: &mut Conn<'_>,
    what: AtOnce,
    origin: Origin,
    (instance, backup): (Option<&InstanceId>, Option<&BackupId>),
    at: DateTime<Utc>,
) -> Result<(), StoreError> {
    let entry = Entry {
        at,
        action: what.as_str(),
        origin,
        // Both columns came with the first version of the table, which knew no such entries.
        instance: instance.map_or("", InstanceId::as_str),
        binding: None,
        operation: "",
        backup: backup.map(BackupId::as_str),
        times: 1,
        words: None,
    };
    let caller = conn.caller.clone();
    add(conn, &entry, caller)
}

/// Writes down who got to see what.
pub fn accessed(conn: &mut Conn<'_>, told: &CountedAccess) -> Result<(), StoreError> {
    let access = &told.access;
    let entry = Entry {
        at: told.at,
        action: access.what.as_str(),
        origin: access.origin,
        instance: access.instance.as_ref().map_or("", InstanceId::as_str),
        binding: access.binding.as_ref().map(BindingId::as_str),
        operation: "",
        backup: access.backup.as_ref().map(BackupId::as_str),
        times: told.times.into(),
        words: None,
    };
    let caller = Caller {
        platform: access.platform.clone(),
        user: access.user.clone(),
        request_id: None,
        address: access.address,
    };
    add(conn, &entry, caller)
}

/// When the oldest entry was written; none when there is none.
pub fn oldest(conn: &mut Conn<'_>) -> Result<Option<DateTime<Utc>>, StoreError> {
    let at: Option<NaiveDateTime> = each!(conn, |c| audit::table
        .select(audit::at)
        .order(audit::id)
        .first(c)
        .optional())?;
    Ok(at.map(|at| at.and_utc()))
}

/// Forgets the oldest entries from before `before`, at most `limit`; returns how many. The database
/// lets go of nothing later.
pub fn forget(conn: &mut Conn<'_>, before: Trusted, limit: i64) -> Result<usize, StoreError> {
    let before = before.time().naive_utc();
    let oldest: Vec<(i64, NaiveDateTime)> = each!(conn, |c| audit::table
        .select((audit::id, audit::at))
        .order(audit::id)
        .limit(limit)
        .load(c))?;
    let old = oldest.iter().take_while(|(_, at)| *at < before);
    let Some((last, _)) = old.last() else {
        return Ok(0);
    };
    each!(conn, |c| diesel::delete(audit_horizon::table).execute(c))?;
    each!(conn, |c| diesel::insert_into(audit_horizon::table)
        .values((
            audit_horizon::id.eq(1),
            audit_horizon::forgotten_before.eq(before),
        ))
        .execute(c))?;
    Ok(each!(conn, |c| diesel::delete(
        audit::table
            .filter(audit::id.le(last))
            .filter(audit::at.lt(before))
    )
    .execute(c))?)
}

/// Writes down what an operator had done about an operation.
pub fn ordered(
    conn: &mut Conn<'_>,
    what: AtOnce,
    operation: &Operation,
    at: DateTime<Utc>,
) -> Result<(), StoreError> {
    let entry = Entry {
        at,
        action: what.as_str(),
        origin: Origin::Operator,
        instance: operation.instance.as_str(),
        binding: operation.binding.as_ref().map(BindingId::as_str),
        operation: operation.id.as_str(),
        backup: None,
        times: 1,
        words: None,
    };
    let caller = conn.caller.clone();
    add(conn, &entry, caller)
}

struct Entry<'a> {
    at: DateTime<Utc>,
    action: &'a str,
    origin: Origin,
    instance: &'a str,
    binding: Option<&'a str>,
    operation: &'a str,
    backup: Option<&'a str>,
    times: i64,
    words: Option<&'a str>,
}

fn add(conn: &mut Conn<'_>, entry: &Entry<'_>, caller: Caller) -> Result<(), StoreError> {
    let insert = diesel::insert_into(audit::table).values((
        audit::at.eq(entry.at.naive_utc()),
        audit::action.eq(entry.action),
        audit::origin.eq(entry.origin.as_str()),
        audit::instance_id.eq(entry.instance),
        audit::binding_id.eq(entry.binding),
        audit::operation_id.eq(entry.operation),
        audit::platform.eq(caller.platform),
        audit::actor.eq(caller.user),
        audit::request_id.eq(caller.request_id),
        audit::backup_id.eq(entry.backup),
        audit::address.eq(caller.address.map(|address| address.to_string())),
        audit::times.eq(entry.times),
        audit::words.eq(entry.words),
    ));
    each!(conn, |c| Prepared(insert).execute(c))?;
    Ok(())
}

/// The place of the entry that tells how the instance of this id that there is now came to be; none where
/// it is forgotten, and all that is older with it.
pub fn place_of_making(
    conn: &mut Conn<'_>,
    instance: &InstanceId,
) -> Result<Option<i64>, StoreError> {
    let makings = [
        OperationKind::Provision.as_str(),
        OperationKind::Restore.as_str(),
        AtOnce::Adoption.as_str(),
    ];
    Ok(each!(conn, |c| audit::table
        .filter(audit::instance_id.eq(instance.as_str()))
        .filter(audit::action.eq_any(makings))
        .order(audit::id.desc())
        .select(audit::id)
        .first(c)
        .optional())?)
}

/// Who asked for these operations of an instance, where the audit still knows.
pub fn askers(
    conn: &mut Conn<'_>,
    instance: &InstanceId,
    operations: &[OperationId],
) -> Result<BTreeMap<OperationId, String>, StoreError> {
    let ids: Vec<&str> = operations.iter().map(OperationId::as_str).collect();
    let rows: Vec<(String, Option<String>)> = each!(conn, |c| audit::table
        .filter(audit::instance_id.eq(instance.as_str()))
        .filter(audit::operation_id.eq_any(&ids))
        .order(audit::id)
        .select((audit::operation_id, audit::actor))
        .load(c))?;
    let mut askers = BTreeMap::new();
    for (id, actor) in rows {
        // What comes later about an operation is an operator's word on it.
        if let Some(actor) = actor {
            askers
                .entry(parse("an operation's id", &id)?)
                .or_insert(actor);
        }
    }
    Ok(askers)
}

/// The newest entries, at most `limit`: those of one instance, those that come after the entry `before` in this
/// order, and those that were written down from `from` on, where that is asked for. An entry that stands for several
/// accesses is written down later than it tells of, so they are in the order of what they tell of.
pub fn newest(
    conn: &mut Conn<'_>,
    instance: Option<&InstanceId>,
    (from, before): (Option<i64>, Option<i64>),
    limit: i64,
) -> Result<Vec<AuditEntry>, StoreError> {
    let place = |id: i64| audit::table.find(id).select(audit::at);
    let told_at: Option<NaiveDateTime> = match before {
        Some(before) => each!(conn, |c| place(before).first(c).optional())?,
        None => None,
    };
    let rows: Vec<Row> = each!(conn, |c| {
        let mut query = audit::table
            .order((audit::at.desc(), audit::id.desc()))
            .limit(limit)
            .into_boxed();
        if let Some(instance) = instance {
            query = query.filter(audit::instance_id.eq(instance.as_str()));
        }
        match (before, told_at) {
            (Some(before), Some(at)) => {
                let is_after = audit::at.lt(at).or(audit::id.lt(before));
                query = query.filter(audit::at.le(at)).filter(is_after);
            }
            // One that is forgotten by now, or never was.
            (Some(before), None) => query = query.filter(audit::id.lt(before)),
            (None, _) => {}
        }
        if let Some(from) = from {
            query = query.filter(audit::id.ge(from));
        }
        query.load(c)
    })?;
    rows.into_iter().map(Row::into_model).collect()
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::store::{Store, operation};

    async fn with_an_entry() -> (Arc<Store>, tempfile::TempDir) {
        let folder = tempfile::tempdir().expect("a folder");
        let url = format!("sqlite://{}", folder.path().join("db").display());
        let store = Arc::new(Store::open(&url).expect("a store"));
        let ada = Caller {
            platform: Some("cloudfoundry".to_owned()),
            user: Some("ada".to_owned()),
            request_id: Some("r".to_owned()),
            address: Some(std::net::Ipv4Addr::LOCALHOST.into()),
        };
        let instance: InstanceId = "i".parse().expect("an id");
        let backup = Operation::queued(
            OperationKind::Backup,
            &instance,
            Origin::Compose,
            Utc::now(),
        );
        let accept = store.write(move |conn| operation::insert(conn, &backup, None));
        ada.during(accept).await.expect("accepted");
        (store, folder)
    }

    async fn all(store: &Arc<Store>) -> Vec<AuditEntry> {
        let read = store
            .read(|conn| newest(conn, None, (None, None), 10))
            .await;
        read.expect("entries")
    }

    #[tokio::test]
    async fn what_is_accepted_is_written_down_with_who_asked() {
        let (store, _folder) = with_an_entry().await;
        let entry = &all(&store).await[0];
        assert_eq!(
            (entry.action.as_str(), entry.origin),
            ("backup", Origin::Compose)
        );
        assert_eq!(entry.user.as_deref(), Some("ada"));
        assert_eq!(entry.platform.as_deref(), Some("cloudfoundry"));
        assert_eq!(entry.request_id.as_deref(), Some("r"));
        assert_eq!(entry.address.as_deref(), Some("127.0.0.1"));
    }

    #[tokio::test]
    async fn what_is_undone_was_not_written_down() {
        let (store, _folder) = with_an_entry().await;
        let instance: InstanceId = "j".parse().expect("an id");
        let backup = Operation::queued(
            OperationKind::Backup,
            &instance,
            Origin::Compose,
            Utc::now(),
        );
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

    #[tokio::test]
    async fn only_what_is_old_is_forgotten_and_the_database_keeps_the_rest() {
        let (store, _folder) = with_an_entry().await;
        let at = all(&store).await[0].at;
        let forget =
            |before| store.write(move |conn| super::forget(conn, Trusted::assumed(before), 10));
        assert_eq!(forget(at).await.expect("looked"), 0);
        let hand = store.write(|conn| {
            each!(conn, |c| diesel::delete(audit::table).execute(c))?;
            Ok(())
        });
        assert!(hand.await.is_err());
        let later = at + chrono::TimeDelta::seconds(1);
        assert_eq!(forget(later).await.expect("looked"), 1);
        assert!(all(&store).await.is_empty());
    }
}
