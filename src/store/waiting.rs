//! What waits: of each instance the operation that comes next in each line, and of each payer the oldest
//! of these. The transactions that change operations keep it (see [`look_anew`]); claims read it
//! ([`super::queue`]).

use std::collections::BTreeMap;

use chrono::NaiveDateTime;
use diesel::{
    prelude::*,
    sql_query,
    sql_types::{BigInt, Bool, Nullable, Text, Timestamp},
};

use super::{
    Conn, StoreError, each,
    prepared::Prepared,
    schema::{deployments, instances, lanes, operations, waiting},
};
use crate::model::{
    limits::UNASKED_LATE_AFTER,
    operation::{Operation, OperationKind, OperationState, WaitsFor},
    origin::Origin,
    queue::{Payer, Place},
};

/// Active operations of one instance that are looked at, the oldest; more wait for their end.
const SEEN_OF_INSTANCE_MAX: i64 = 256;

/// The operation of an instance that comes next in a line.
#[derive(Debug, Clone, PartialEq, Eq, Queryable, Insertable)]
#[diesel(table_name = waiting)]
pub(super) struct Next {
    pub(super) instance_id: String,
    pub(super) line: String,
    pub(super) payer: String,
    pub(super) due: NaiveDateTime,
    pub(super) operation_id: String,
}

impl Next {
    pub(super) fn place(&self, now: NaiveDateTime) -> Place {
        let line = Line::parse(&self.line);
        let unasked = line.as_ref().is_some_and(|line| line.unasked);
        Place {
            payer: payer_of(&self.payer),
            instance: self.instance_id.clone(),
            cluster: line.and_then(|line| line.cluster),
            unasked,
            late: unasked && self.due + UNASKED_LATE_AFTER < now,
        }
    }
}

/// A line that operations wait in; its name has all of it.
pub(super) struct Line {
    pub(super) kind: OperationKind,
    pub(super) unasked: bool,
    pub(super) cluster: Option<String>,
}

impl Line {
    pub(super) fn parse(name: &str) -> Option<Self> {
        let mut parts = name.splitn(3, ' ');
        let kind = OperationKind::parse(parts.next()?)?;
        let unasked = parts.next()? == "unasked";
        let cluster = parts.next().filter(|id| !id.is_empty());
        Some(Self {
            kind,
            unasked,
            cluster: cluster.map(str::to_owned),
        })
    }

    pub(super) fn name(&self) -> String {
        let asked = if self.unasked { "unasked" } else { "asked" };
        let cluster = self.cluster.as_deref().unwrap_or_default();
        format!("{} {asked} {cluster}", self.kind)
    }
}

/// Whether the broker began it because its time has come. What a later version has left is passed over
/// when it is read whole.
pub(super) fn is_unasked(origin: &str) -> bool {
    Origin::parse(origin).is_some_and(Origin::is_unasked)
}

/// How a payer is stored.
pub(super) fn name_of(payer: &Payer) -> String {
    match payer {
        Payer::Nobody => String::new(),
        Payer::Tenant {
            platform,
            organization,
            space,
            account,
        } => serde_json::json!([platform, organization, space, account]).to_string(),
    }
}

fn payer_of(name: &str) -> Payer {
    match serde_json::from_str::<[String; 4]>(name) {
        Ok([platform, organization, space, account]) => Payer::Tenant {
            platform,
            organization,
            space,
            account,
        },
        Err(_) => Payer::Nobody,
    }
}

/// An active operation, as far as the queue goes.
#[derive(QueryableByName)]
pub(super) struct Active {
    #[diesel(sql_type = Text)]
    pub(super) id: String,
    #[diesel(sql_type = Text)]
    pub(super) kind: String,
    #[diesel(sql_type = Bool)]
    pub(super) is_queued: bool,
    #[diesel(sql_type = Text)]
    pub(super) origin: String,
    #[diesel(sql_type = Text)]
    pub(super) waits_for: String,
    #[diesel(sql_type = Nullable<Text>)]
    pub(super) binding_id: Option<String>,
    #[diesel(sql_type = Timestamp)]
    pub(super) not_before: NaiveDateTime,
}

/// What is active on an instance, in the order in which it was accepted.
pub(super) fn active(conn: &mut Conn<'_>, instance: &str) -> Result<Vec<Active>, StoreError> {
    let query = sql_query(
        "SELECT id, kind, state = 'queued' AS is_queued, origin, waits_for, binding_id, not_before
         FROM operations WHERE instance_id = $1 AND state IN ('queued', 'running')
         ORDER BY ordinal, id LIMIT $2",
    );
    let query = query
        .bind::<Text, _>(instance)
        .bind::<BigInt, _>(SEEN_OF_INSTANCE_MAX);
    Ok(each!(conn, |c| Prepared(query).load(c))?)
}

/// What comes before one of the active operations of an instance; what is worked on in front, then the
/// oldest. What follows something follows what is older, and a deletion is the last that is accepted: so no
/// two wait for each other.
pub(super) fn ahead(active: &[Active], place: usize) -> Option<&Active> {
    let own = &active[place];
    let kind = OperationKind::parse(&own.kind);
    let comes_before = |(at, other): &(usize, &Active)| {
        let barred = match WaitsFor::parse(&own.waits_for) {
            Some(WaitsFor::Nothing) | None => false,
            Some(WaitsFor::Binding) => other.binding_id == own.binding_id,
            Some(WaitsFor::Instance) => true,
        };
        let follows = || Some(kind?.follows(OperationKind::parse(&other.kind)?));
        *at != place && (barred || *at < place && follows() == Some(true))
    };
    let ahead = active.iter().enumerate().filter(comes_before);
    ahead
        .min_by_key(|(at, other)| (other.is_queued, *at))
        .map(|(_, other)| other)
}

/// Whether something else comes before one of the active operations of an instance.
pub(super) fn must_wait(active: &[Active], place: usize) -> bool {
    ahead(active, place).is_some()
}

/// Finds out anew which operations of an instance come next. Whatever changes which of them wait, who
/// pays for them or where they are done has this done too.
pub(super) fn look_anew(conn: &mut Conn<'_>, instance: &str) -> Result<(), StoreError> {
    let before = known_of(conn, instance)?;
    look_anew_beside(conn, instance, &before)
}

/// The same where `before` is what was known of the instance.
fn look_anew_beside(
    conn: &mut Conn<'_>,
    instance: &str,
    before: &[Next],
) -> Result<(), StoreError> {
    let after = next_of(conn, instance)?;
    // Of each line and payer what alone has come, and where something has gone, nothing.
    let mut touched = BTreeMap::new();
    for old in before.iter().filter(|old| !after.contains(old)) {
        let row = waiting::table.find((instance, &old.line));
        each!(conn, |c| diesel::delete(row).execute(c))?;
        touched.insert((&old.line, &old.payer), None);
    }
    for new in after.iter().filter(|new| !before.contains(new)) {
        let insert = diesel::insert_into(waiting::table).values(new);
        each!(conn, |c| Prepared(insert).execute(c))?;
        touched.entry((&new.line, &new.payer)).or_insert(Some(new));
    }
    for ((line, payer), come) in touched {
        set_oldest(conn, line, payer, come)?;
    }
    Ok(())
}

/// What the queue has of an instance.
fn known_of(conn: &mut Conn<'_>, instance: &str) -> Result<Vec<Next>, StoreError> {
    let of_instance = waiting::table.filter(waiting::instance_id.eq(instance));
    Ok(each!(conn, |c| of_instance.load(c))?)
}

/// The same for an operation that was just accepted, and is due: as a rule it is behind others of its kind, or the
/// only one.
pub(super) fn look_at_new(
    conn: &mut Conn<'_>,
    operation: &Operation,
    due: NaiveDateTime,
) -> Result<(), StoreError> {
    let instance = operation.instance.as_str();
    let before = known_of(conn, instance)?;
    let own = (due, operation.id.as_str());
    let unasked = operation.origin.is_unasked();
    let is_ahead = |next: &Next| {
        let line = Line::parse(&next.line);
        line.is_some_and(|line| line.kind == operation.kind && line.unasked == unasked)
            && (next.due, next.operation_id.as_str()) < own
    };
    if before.iter().any(is_ahead) {
        return Ok(());
    }
    look_anew_beside(conn, instance, &before)
}

/// In each line that an instance waits in, the first that has to wait for nothing but its turn.
fn next_of(conn: &mut Conn<'_>, instance: &str) -> Result<Vec<Next>, StoreError> {
    let active = active(conn, instance)?;
    let mut queued: Vec<usize> = (0..active.len())
        .filter(|at| active[*at].is_queued && !must_wait(&active, *at))
        .collect();
    if queued.is_empty() {
        return Ok(Vec::new());
    }
    queued.sort_by_key(|at| (active[*at].not_before, &active[*at].id));
    let payer = name_of(&owner(conn, instance)?);
    let cluster = cluster_of(conn, instance)?;
    let mut next: Vec<Next> = Vec::new();
    for operation in queued.into_iter().map(|at| &active[at]) {
        // What a later version has left is passed over.
        let Some(kind) = OperationKind::parse(&operation.kind) else {
            continue;
        };
        let line = Line {
            kind,
            unasked: is_unasked(&operation.origin),
            cluster: cluster.clone(),
        };
        let line = line.name();
        if next.iter().all(|first| first.line != line) {
            next.push(Next {
                instance_id: instance.to_owned(),
                line,
                payer: payer.clone(),
                due: operation.not_before,
                operation_id: operation.id.clone(),
            });
        }
    }
    Ok(next)
}

/// Where what is done for an instance is done; none when its deployment is gone.
pub(super) fn cluster_of(
    conn: &mut Conn<'_>,
    instance: &str,
) -> Result<Option<String>, StoreError> {
    Ok(each!(conn, |c| deployments::table
        .filter(deployments::instance_id.eq(instance))
        .select(deployments::cluster_id)
        .first(c)
        .optional())?)
}

/// Who pays for what is done for an instance.
pub(super) fn owner(conn: &mut Conn<'_>, instance: &str) -> Result<Payer, StoreError> {
    let found: Option<(String, String, String, String)> = each!(conn, |c| instances::table
        .find(instance)
        .select((
            instances::platform,
            instances::organization,
            instances::space,
            instances::account,
        ))
        .first(c)
        .optional())?;
    Ok(
        found.map_or(Payer::Nobody, |(platform, organization, space, account)| {
            Payer::Tenant {
                platform,
                organization,
                space,
                account,
            }
        }),
    )
}

/// Keeps what of a payer's is the oldest in a line; `come`: nothing has changed but that this has come.
fn set_oldest(
    conn: &mut Conn<'_>,
    line: &str,
    payer: &str,
    come: Option<&Next>,
) -> Result<(), StoreError> {
    let lane = lanes::table.find((line, payer));
    let known: Option<(NaiveDateTime, String)> = each!(conn, |c| lane
        .select((lanes::due, lanes::operation_id))
        .first(c)
        .optional())?;
    let come = come.map(|next| (next.due, next.operation_id.clone()));
    let oldest = match come {
        Some(come) if known.as_ref().is_some_and(|known| *known < come) => return Ok(()),
        Some(come) => Some(come),
        None => oldest_of(conn, line, payer)?,
    };
    if oldest == known {
        return Ok(());
    }
    if known.is_some() {
        each!(conn, |c| diesel::delete(lane).execute(c))?;
    }
    if let Some((due, operation)) = oldest {
        let insert = diesel::insert_into(lanes::table).values((
            lanes::line.eq(line),
            lanes::payer.eq(payer),
            lanes::due.eq(due),
            lanes::operation_id.eq(operation),
        ));
        each!(conn, |c| Prepared(insert).execute(c))?;
    }
    Ok(())
}

/// What of a payer's is the oldest in a line.
fn oldest_of(
    conn: &mut Conn<'_>,
    line: &str,
    payer: &str,
) -> Result<Option<(NaiveDateTime, String)>, StoreError> {
    let of_payer = waiting::table
        .filter(waiting::line.eq(line))
        .filter(waiting::payer.eq(payer));
    Ok(each!(conn, |c| of_payer
        .order((waiting::due, waiting::operation_id))
        .select((waiting::due, waiting::operation_id))
        .first(c)
        .optional())?)
}

/// Fills the queue with what waits, where an earlier version has left none.
pub(super) fn fill(conn: &mut Conn<'_>) -> Result<(), StoreError> {
    let any: Option<String> = each!(conn, |c| waiting::table
        .select(waiting::operation_id)
        .first(c)
        .optional())?;
    if any.is_some() {
        return Ok(());
    }
    let waits: Vec<String> = each!(conn, |c| operations::table
        .filter(operations::state.eq(OperationState::Queued.as_str()))
        .select(operations::instance_id)
        .distinct()
        .load(c))?;
    waits.iter().try_for_each(|id| look_anew(conn, id))
}
