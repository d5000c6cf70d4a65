//! Rows of operations: those that are accepted, those that are told to halt or to be tried at once, and
//! those that are history. What a worker writes under its claim: `claim.rs`.

use chrono::{DateTime, NaiveDateTime, Utc};
use diesel::{
    dsl::{max, sql},
    prelude::*,
    sql_query,
    sql_types::{BigInt, Bool, Text, Timestamp},
};

use super::{
    Conn, StoreError, each, from_json, known, parse,
    prepared::Prepared,
    schema::{deployments, operation_steps, operations},
    time::of_store,
    to_json,
    waiting::{look_anew, look_at_new},
};
use crate::model::{
    ids::{BackupId, BindingId, InstanceId, OperationId},
    instance::Instance,
    operation::{Operation, OperationKind, OperationState, Progress, WaitsFor},
    origin::Origin,
    trust::Trusted,
    turn::{Turn, TurnOfStep},
};

pub(super) const ACTIVE: [&str; 2] = ["queued", "running"];
/// The same as the indexes of active operations have it, which serve queries that say it in these words.
const IS_ACTIVE: &str = "state IN ('queued', 'running')";

#[derive(Queryable, Insertable)]
#[diesel(table_name = operations)]
pub(super) struct Row {
    id: String,
    kind: String,
    instance_id: String,
    binding_id: Option<String>,
    backup_id: Option<String>,
    source: Option<String>,
    exclusive_key: Option<String>,
    waits_for: String,
    state: String,
    halted: bool,
    step: String,
    steps_done: i32,
    steps_total: i32,
    bytes_done: i64,
    bytes_total: i64,
    failure: Option<String>,
    origin: String,
    pub(super) owner: Option<String>,
    pub(super) lease_until: Option<NaiveDateTime>,
    pub(super) not_before: NaiveDateTime,
    epoch: i64,
    created_at: NaiveDateTime,
    updated_at: NaiveDateTime,
    change: Option<String>,
    delete_prefix: Option<String>,
    repair: Option<String>,
    survivor: Option<String>,
    trouble: Option<String>,
    abandoned: bool,
    ordinal: i64,
    prefix_restore: Option<String>,
    turn: Option<String>,
}

impl Row {
    pub(super) fn into_model(self) -> Result<Operation, StoreError> {
        let id = |what, text: Option<String>| -> Result<Option<_>, StoreError> {
            text.map(|text| parse(what, &text)).transpose()
        };
        Ok(Operation {
            id: parse("an operation's id", &self.id)?,
            kind: known("an operation's kind", &self.kind, OperationKind::parse)?,
            instance: parse("an instance's id", &self.instance_id)?,
            binding: self
                .binding_id
                .map(|b| parse("a binding's id", &b))
                .transpose()?,
            backup: id("a backup's id", self.backup_id)?,
            source: self
                .source
                .map(|text| from_json("a restore's source", &text))
                .transpose()?,
            change: self
                .change
                .map(|text| from_json("what an update changes", &text))
                .transpose()?,
            delete_prefix: self.delete_prefix,
            repair: self
                .repair
                .map(|text| from_json("what a repair repairs", &text))
                .transpose()?,
            survivor: self.survivor,
            prefix_restore: self
                .prefix_restore
                .map(|text| from_json("what is put back", &text))
                .transpose()?,
            state: known("an operation's state", &self.state, OperationState::parse)?,
            waits_for: known(
                "what an operation waits for",
                &self.waits_for,
                WaitsFor::parse,
            )?,
            halted: self.halted,
            progress: Progress {
                turn: turn_of(self.turn, &self.step)?,
                step: self.step,
                steps_done: self.steps_done.unsigned_abs(),
                steps_total: self.steps_total.unsigned_abs(),
                bytes_done: self.bytes_done.unsigned_abs(),
                bytes_total: self.bytes_total.unsigned_abs(),
            },
            trouble: self
                .trouble
                .map(|text| from_json("an operation's trouble", &text))
                .transpose()?,
            wait: None,
            failure: self.failure,
            abandoned: self.abandoned,
            origin: known("an operation's origin", &self.origin, Origin::parse)?,
            epoch: self.epoch,
            created_at: self.created_at.and_utc(),
            ordinal: self.ordinal,
            updated_at: self.updated_at.and_utc(),
        })
    }
}

fn turn_of(text: Option<String>, step: &str) -> Result<Option<Turn>, StoreError> {
    let turn = text.map(|text| from_json("a member's turn", &text));
    let turn: Option<TurnOfStep> = turn.transpose()?;
    Ok(turn.and_then(|of| of.during(step)))
}

/// The place of what is asked for next.
pub(super) fn next_ordinal(conn: &mut Conn<'_>) -> Result<i64, StoreError> {
    if let Some(next) = conn.next_ordinal {
        return Ok(next);
    }
    let last: Option<i64> = each!(conn, |c| operations::table
        .select(max(operations::ordinal))
        .first(c))?;
    let next = last.unwrap_or_default() + 1;
    conn.next_ordinal = Some(next);
    Ok(next)
}

/// Accepts an operation, and writes down for whom. `exclusive` is what nobody else may work on meanwhile: `Duplicate` when
/// an active operation has it.
pub fn insert(
    conn: &mut Conn<'_>,
    operation: &Operation,
    exclusive: Option<&str>,
) -> Result<(), StoreError> {
    let ordinal = next_ordinal(conn)?;
    let due = of_store(conn, operation.created_at)?.naive_utc();
    let row = Row {
        id: operation.id.to_string(),
        kind: operation.kind.as_str().to_owned(),
        instance_id: operation.instance.to_string(),
        binding_id: operation.binding.as_ref().map(BindingId::to_string),
        backup_id: operation.backup.as_ref().map(BackupId::to_string),
        source: operation.source.as_ref().map(to_json).transpose()?,
        exclusive_key: exclusive.map(str::to_owned),
        waits_for: operation.waits_for.as_str().to_owned(),
        state: operation.state.as_str().to_owned(),
        halted: operation.halted,
        step: operation.progress.step.clone(),
        steps_done: 0,
        steps_total: 0,
        bytes_done: 0,
        bytes_total: 0,
        failure: operation.failure.clone(),
        origin: operation.origin.as_str().to_owned(),
        owner: None,
        lease_until: None,
        not_before: due,
        epoch: operation.epoch,
        created_at: operation.created_at.naive_utc(),
        updated_at: operation.updated_at.naive_utc(),
        change: operation.change.as_ref().map(to_json).transpose()?,
        delete_prefix: operation.delete_prefix.clone(),
        repair: operation.repair.as_ref().map(to_json).transpose()?,
        survivor: operation.survivor.clone(),
        trouble: None,
        abandoned: operation.abandoned,
        ordinal,
        prefix_restore: operation.prefix_restore.as_ref().map(to_json).transpose()?,
        turn: None,
    };
    each!(conn, |c| Prepared(
        diesel::insert_into(operations::table).values(row)
    )
    .execute(c))?;
    conn.next_ordinal = Some(ordinal + 1);
    super::audit::accepted(conn, operation)?;
    conn.changed.queued = true;
    look_at_new(conn, operation, due)
}

/// The operation of that id.
pub fn find(conn: &mut Conn<'_>, id: &OperationId) -> Result<Option<Operation>, StoreError> {
    let row: Option<Row> = each!(conn, |c| operations::table
        .find(id.as_str())
        .first(c)
        .optional())?;
    row.map(Row::into_model).transpose()
}

/// The operation of that id, which some other row names.
pub fn get(conn: &mut Conn<'_>, id: &OperationId) -> Result<Operation, StoreError> {
    find(conn, id)?.ok_or_else(|| StoreError::Missing("the operation".to_owned()))
}

fn models(rows: Vec<Row>) -> Result<Vec<Operation>, StoreError> {
    rows.into_iter().map(Row::into_model).collect()
}

/// What is queued or running on an instance, oldest first.
pub fn active_on_instance(
    conn: &mut Conn<'_>,
    instance: &InstanceId,
) -> Result<Vec<Operation>, StoreError> {
    let active = operations::table
        .filter(operations::instance_id.eq(instance.as_str()))
        .filter(sql::<Bool>(IS_ACTIVE))
        .order((operations::ordinal, operations::id));
    models(each!(conn, |c| Prepared(active).load(c))?)
}

/// The updates that are queued or running.
pub fn active_updates(conn: &mut Conn<'_>) -> Result<Vec<Operation>, StoreError> {
    let updates = operations::table
        .filter(operations::kind.eq(OperationKind::Update.as_str()))
        .filter(sql::<Bool>(IS_ACTIVE));
    models(each!(conn, |c| Prepared(updates).load(c))?)
}

/// All operations of an instance, newest first, at most `limit`.
pub fn of_instance(
    conn: &mut Conn<'_>,
    instance: &InstanceId,
    limit: i64,
) -> Result<Vec<Operation>, StoreError> {
    models(each!(conn, |c| operations::table
        .filter(operations::instance_id.eq(instance.as_str()))
        .order((operations::ordinal.desc(), operations::id.desc()))
        .limit(limit)
        .load(c))?)
}

/// Operations of an instance since it was made, newest first, at most `limit`: those before `before`, where
/// that is asked for and still known.
pub fn page_of_instance(
    conn: &mut Conn<'_>,
    instance: &Instance,
    before: Option<&OperationId>,
    limit: i64,
) -> Result<Vec<Operation>, StoreError> {
    let of_it = || operations::table.filter(operations::instance_id.eq(instance.id.as_str()));
    let before: Option<(i64, String)> = match before {
        None => None,
        Some(id) => each!(conn, |c| of_it()
            .filter(operations::id.eq(id.as_str()))
            .select((operations::ordinal, operations::id))
            .first(c)
            .optional())?,
    };
    models(each!(conn, |c| {
        let mut query = of_it()
            .filter(operations::ordinal.ge(instance.ordinal))
            .order((operations::ordinal.desc(), operations::id.desc()))
            .limit(limit)
            .into_boxed();
        if let Some((at, id)) = &before {
            query = query.filter(
                operations::ordinal
                    .lt(at)
                    .or(operations::ordinal.eq(at).and(operations::id.lt(id))),
            );
        }
        query.load(c)
    })?)
}

/// The newest operation of one of `kinds` on an instance, or on one of its bindings.
pub fn newest(
    conn: &mut Conn<'_>,
    instance: &InstanceId,
    binding: Option<&BindingId>,
    kinds: &[OperationKind],
) -> Result<Option<Operation>, StoreError> {
    let kinds: Vec<&str> = kinds.iter().map(|k| k.as_str()).collect();
    let row: Option<Row> = each!(conn, |c| {
        let mut query = operations::table
            .filter(operations::instance_id.eq(instance.as_str()))
            .filter(operations::kind.eq_any(kinds))
            .order((operations::ordinal.desc(), operations::id.desc()))
            .into_boxed();
        if let Some(binding) = binding {
            query = query.filter(operations::binding_id.eq(binding.as_str()));
        }
        Prepared(query.limit(1)).get_result(c).optional()
    })?;
    row.map(Row::into_model).transpose()
}

/// How many operations of a kind are under way, or will be.
pub fn active_of_kind(conn: &mut Conn<'_>, kind: OperationKind) -> Result<i64, StoreError> {
    let active = operations::table
        .filter(operations::kind.eq(kind.as_str()))
        .filter(sql::<Bool>(IS_ACTIVE))
        .count();
    Ok(each!(conn, |c| Prepared(active).get_result(c))?)
}

/// How many operations of these kinds are under way on a cluster, or will be.
pub fn active_on(
    conn: &mut Conn<'_>,
    cluster: &str,
    kinds: &[OperationKind],
) -> Result<usize, StoreError> {
    let kinds = kinds.iter().map(|kind| kind.as_str());
    let count: i64 = each!(conn, |c| operations::table
        .inner_join(deployments::table.on(deployments::instance_id.eq(operations::instance_id)))
        .filter(sql::<Bool>(IS_ACTIVE))
        .filter(operations::kind.eq_any(kinds.clone()))
        .filter(deployments::cluster_id.eq(cluster))
        .count()
        .get_result(c))?;
    Ok(usize::try_from(count).unwrap_or_default())
}

/// The operation of a kind that is under way on an instance, or will be; the oldest of several.
pub fn under_way(
    conn: &mut Conn<'_>,
    instance: &InstanceId,
    kind: OperationKind,
) -> Result<Option<Operation>, StoreError> {
    let active = active_on_instance(conn, instance)?;
    Ok(active.into_iter().find(|operation| operation.kind == kind))
}

/// Whether an operation of a kind is under way on an instance, or will be.
pub fn is_active(
    conn: &mut Conn<'_>,
    instance: &InstanceId,
    kind: OperationKind,
) -> Result<bool, StoreError> {
    let active = operations::table
        .filter(operations::instance_id.eq(instance.as_str()))
        .filter(operations::kind.eq(kind.as_str()))
        .filter(sql::<Bool>(IS_ACTIVE))
        .select(operations::id)
        .limit(1);
    let found: Option<String> = each!(conn, |c| Prepared(active).get_result(c).optional())?;
    Ok(found.is_some())
}

/// The active restores, also of a part, and recoveries whose source is one of `backups`.
pub fn restores_reading(
    conn: &mut Conn<'_>,
    backups: &[BackupId],
) -> Result<Vec<Operation>, StoreError> {
    let ids: Vec<&str> = backups.iter().map(BackupId::as_str).collect();
    use OperationKind::{Recover, Restore, RestorePrefix};
    let reading = [Restore, Recover, RestorePrefix].map(OperationKind::as_str);
    models(each!(conn, |c| operations::table
        .filter(operations::kind.eq_any(reading))
        .filter(operations::backup_id.eq_any(ids))
        .filter(operations::state.eq_any(ACTIVE))
        .filter(operations::halted.eq(false))
        .filter(operations::failure.is_null())
        .load(c))?)
}

/// A backup that is queued or being taken.
#[derive(Debug)]
pub struct BackupUnderWay {
    /// Of which instance.
    pub instance: InstanceId,
    /// On which cluster.
    pub cluster: String,
    /// Whether somebody works on it.
    pub is_running: bool,
    /// Nobody begins it before then.
    pub not_before: DateTime<Utc>,
    /// Whether the schedule asked for it.
    pub is_scheduled: bool,
}

/// The backups that are queued or being taken.
pub fn backups_under_way(conn: &mut Conn<'_>) -> Result<Vec<BackupUnderWay>, StoreError> {
    type Row = (String, String, String, String, NaiveDateTime);
    let under_way = operations::table
        .inner_join(deployments::table.on(deployments::instance_id.eq(operations::instance_id)))
        .filter(sql::<Bool>(IS_ACTIVE))
        .filter(operations::kind.eq(OperationKind::Backup.as_str()))
        .select((
            operations::instance_id,
            deployments::cluster_id,
            operations::state,
            operations::origin,
            operations::not_before,
        ));
    let rows: Vec<Row> = each!(conn, |c| Prepared(under_way).load(c))?;
    rows.into_iter()
        .map(|(instance, cluster, state, origin, not_before)| {
            Ok(BackupUnderWay {
                instance: parse("an instance's id", &instance)?,
                cluster,
                is_running: state == OperationState::Running.as_str(),
                is_scheduled: origin == Origin::Schedule.as_str(),
                not_before: not_before.and_utc(),
            })
        })
        .collect()
}

/// The operations of a kind on an instance that ended before `before` and need nobody's eyes.
pub fn ended_before(
    conn: &mut Conn<'_>,
    instance: &InstanceId,
    kind: OperationKind,
    before: DateTime<Utc>,
) -> Result<Vec<OperationId>, StoreError> {
    let ended = [OperationState::Succeeded, OperationState::Failed].map(OperationState::as_str);
    let ids: Vec<String> = each!(conn, |c| operations::table
        .filter(operations::instance_id.eq(instance.as_str()))
        .filter(operations::kind.eq(kind.as_str()))
        .filter(operations::state.eq_any(ended))
        .filter(operations::updated_at.le(before.naive_utc()))
        .select(operations::id)
        .load(c))?;
    ids.iter()
        .map(|id| parse("an operation's id", id))
        .collect()
}

/// How many repairs of an instance of one origin were accepted since a moment.
pub fn repairs_since(
    conn: &mut Conn<'_>,
    instance: &InstanceId,
    origin: Origin,
    since: DateTime<Utc>,
) -> Result<i64, StoreError> {
    Ok(each!(conn, |c| operations::table
        .filter(operations::instance_id.eq(instance.as_str()))
        .filter(operations::kind.eq(OperationKind::Repair.as_str()))
        .filter(operations::origin.eq(origin.as_str()))
        .filter(operations::created_at.gt(since.naive_utc()))
        .count()
        .get_result(c))?)
}

/// Tells an active operation to stop, and gives up what it had for itself. One that waits for its
/// next try is due at once, as one that has waited since it was accepted.
pub fn halt(conn: &mut Conn<'_>, id: &OperationId, now: DateTime<Utc>) -> Result<(), StoreError> {
    let due = of_store(conn, now)?.min(get(conn, id)?.created_at);
    each!(conn, |c| diesel::update(
        operations::table.find(id.as_str())
    )
    .set((
        operations::halted.eq(true),
        operations::exclusive_key.eq(None::<String>),
        operations::not_before.eq(due.naive_utc()),
    ))
    .execute(c))?;
    conn.changed.halted = true;
    look_anew_at(conn, id)
}

/// Tells an active operation to stop, for a reason that the one who asked for it reads.
pub fn halt_because(
    conn: &mut Conn<'_>,
    id: &OperationId,
    reason: &str,
    now: DateTime<Utc>,
) -> Result<(), StoreError> {
    each!(conn, |c| diesel::update(
        operations::table.find(id.as_str())
    )
    .set(operations::failure.eq(reason))
    .execute(c))?;
    halt(conn, id, now)
}

/// Lets what has failed in passing be tried at once instead of later; of one instance, or of all.
pub fn hasten(
    conn: &mut Conn<'_>,
    instance: Option<&InstanceId>,
    now: DateTime<Utc>,
) -> Result<(), StoreError> {
    let now = of_store(conn, now)?;
    let found: Vec<(String, String)> = each!(conn, |c| {
        let mut query = operations::table
            .filter(operations::state.eq(OperationState::Queued.as_str()))
            .filter(operations::not_before.gt(now.naive_utc()))
            .filter(operations::trouble.is_not_null())
            .into_boxed();
        if let Some(instance) = instance {
            query = query.filter(operations::instance_id.eq(instance.as_str()));
        }
        query
            .select((operations::id, operations::instance_id))
            .load(c)
    })?;
    for (id, instance) in &found {
        each!(conn, |c| diesel::update(operations::table.find(id))
            .set(operations::not_before.eq(now.naive_utc()))
            .execute(c))?;
        look_anew(conn, instance)?;
    }
    conn.changed.queued |= !found.is_empty();
    Ok(())
}

/// The queue, after a change of an operation.
pub(super) fn look_anew_at(conn: &mut Conn<'_>, id: &OperationId) -> Result<(), StoreError> {
    let instance: Option<String> = each!(conn, |c| operations::table
        .find(id.as_str())
        .select(operations::instance_id)
        .first(c)
        .optional())?;
    instance.map_or(Ok(()), |instance| look_anew(conn, &instance))
}

/// Operations that ended before `before` and that need not be told of any more, at most `limit`. Of an
/// instance, and of a binding, that is there the newest of each kind is not among them, nor what an
/// operator has to look at; its backups and their removals go with the backups' rows.
pub fn history(
    conn: &mut Conn<'_>,
    before: Trusted,
    limit: i64,
) -> Result<Vec<OperationId>, StoreError> {
    #[derive(QueryableByName)]
    struct Old {
        #[diesel(sql_type = Text)]
        id: String,
    }
    let before = before.time().naive_utc();
    let old: Vec<Old> = each!(conn, |c| sql_query(
        "SELECT o.id FROM operations o
         WHERE o.updated_at < $1 AND o.state NOT IN ('queued', 'running') AND (
             NOT EXISTS (SELECT 1 FROM instances i WHERE i.id = o.instance_id)
             OR o.state IN ('succeeded', 'failed') AND o.kind NOT IN ('backup', 'prune') AND (
                 EXISTS (
                     SELECT 1 FROM operations newer
                     WHERE newer.instance_id = o.instance_id AND newer.kind = o.kind
                       AND coalesce(newer.binding_id, '') = coalesce(o.binding_id, '')
                       AND newer.ordinal > o.ordinal
                 )
                 OR o.binding_id IS NOT NULL AND NOT EXISTS (
                     SELECT 1 FROM bindings b
                     WHERE b.instance_id = o.instance_id AND b.id = o.binding_id
                 )
             )
         )
         ORDER BY o.updated_at
         LIMIT $2"
    )
    .bind::<Timestamp, _>(before)
    .bind::<BigInt, _>(limit)
    .load(c))?;
    old.iter()
        .map(|row| parse("an operation's id", &row.id))
        .collect()
}

/// Removes operations that ended, with their steps.
pub fn forget(conn: &mut Conn<'_>, ids: &[OperationId]) -> Result<(), StoreError> {
    let ids: Vec<&str> = ids.iter().map(OperationId::as_str).collect();
    each!(conn, |c| diesel::delete(
        operation_steps::table.filter(operation_steps::operation_id.eq_any(&ids))
    )
    .execute(c))?;
    each!(conn, |c| diesel::delete(
        operations::table.filter(operations::id.eq_any(&ids))
    )
    .execute(c))?;
    Ok(())
}
