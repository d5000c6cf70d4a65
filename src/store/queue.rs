//! The queue: which operations are due, whose they are, and the claims on them.
//!
//! Operations wait in lines: those of a kind, asked for or not, on a cluster. In each line the store
//! keeps two things beside the operations themselves, in the transactions that change these (see
//! [`look_anew`]): of each instance the operation that comes next (`waiting`), and of each payer the
//! oldest of these (`lanes`). So a claim looks at the first of each line and of each payer that has
//! something under way, however many wait behind them. Which of those begins is decided by
//! [`crate::model::queue`].

use std::collections::BTreeSet;

use chrono::{DateTime, NaiveDateTime, Utc};
use diesel::{
    dsl::min,
    prelude::*,
    sql_query,
    sql_types::{BigInt, Bool, Nullable, Text, Timestamp},
};

use super::{
    Conn, StoreError, each,
    operation::{ACTIVE, find},
    parse,
    prepared::Prepared,
    schema::{deployments, instances, lanes, operations, waiting},
};
use crate::model::{
    ids::OperationId,
    limits::{LEASE_AHEAD_MAX, PAUSE_AHEAD_MAX, UNASKED_LATE_AFTER},
    operation::{Claim, Operation, OperationKind, OperationState, WaitsFor},
    origin::Origin,
    queue::{self, Payer, Place, Shares},
};

/// Active operations of one instance that are looked at, the oldest; more wait for their end.
const SEEN_OF_INSTANCE_MAX: i64 = 256;
/// Operations that are passed over at one look, since they must wait or cannot be read.
const PASSED_MAX: usize = 100;

/// What is claimed at one look.
pub struct Look<'a> {
    /// Who looks.
    pub owner: &'a str,
    /// The time of day.
    pub now: DateTime<Utc>,
    /// Until when others leave alone what is claimed.
    pub lease_until: DateTime<Utc>,
    /// The operations that are looked for.
    pub kinds: &'a [OperationKind],
    /// How many are claimed at most.
    pub places: usize,
    /// How many of them, at most, that somebody asked for.
    pub asked: usize,
    /// How the places are shared, over all replicas.
    pub shares: &'a Shares,
    /// What the owner works on already.
    pub busy_with: &'a [OperationId],
}

/// The operation of an instance that comes next in a line.
#[derive(Debug, Clone, PartialEq, Eq, Queryable, Insertable)]
#[diesel(table_name = waiting)]
struct Next {
    instance_id: String,
    line: String,
    payer: String,
    due: NaiveDateTime,
    operation_id: String,
}

impl Next {
    fn place(&self, now: NaiveDateTime) -> Place {
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
struct Line {
    kind: OperationKind,
    unasked: bool,
    cluster: Option<String>,
}

impl Line {
    fn parse(name: &str) -> Option<Self> {
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

    fn name(&self) -> String {
        let asked = if self.unasked { "unasked" } else { "asked" };
        let cluster = self.cluster.as_deref().unwrap_or_default();
        format!("{} {asked} {cluster}", self.kind)
    }
}

/// Whether the broker began it because its time has come. What a later version has left is passed over
/// when it is read whole.
fn is_unasked(origin: &str) -> bool {
    Origin::parse(origin).is_some_and(Origin::is_unasked)
}

/// How a payer is stored.
fn name_of(payer: &Payer) -> String {
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
struct Active {
    #[diesel(sql_type = Text)]
    id: String,
    #[diesel(sql_type = Text)]
    kind: String,
    #[diesel(sql_type = Bool)]
    is_queued: bool,
    #[diesel(sql_type = Text)]
    origin: String,
    #[diesel(sql_type = Text)]
    waits_for: String,
    #[diesel(sql_type = Nullable<Text>)]
    binding_id: Option<String>,
    #[diesel(sql_type = Timestamp)]
    not_before: NaiveDateTime,
}

/// What is active on an instance, in the order in which it was accepted.
fn active(conn: &mut Conn<'_>, instance: &str) -> Result<Vec<Active>, StoreError> {
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

/// Whether something else comes before one of the active operations of an instance. What follows
/// something follows what is older, and a deletion is the last that is accepted: so no two wait for
/// each other.
fn must_wait(active: &[Active], place: usize) -> bool {
    let own = &active[place];
    let kind = OperationKind::parse(&own.kind);
    active.iter().enumerate().any(|(at, other)| {
        let barred = match WaitsFor::parse(&own.waits_for) {
            Some(WaitsFor::Nothing) | None => false,
            Some(WaitsFor::Binding) => other.binding_id == own.binding_id,
            Some(WaitsFor::Instance) => true,
        };
        let follows = || Some(kind?.follows(OperationKind::parse(&other.kind)?));
        at != place && (barred || at < place && follows() == Some(true))
    })
}

/// Finds out anew which operations of an instance come next. Whatever changes which of them wait, who
/// pays for them or where they are done has this done too.
pub(super) fn look_anew(conn: &mut Conn<'_>, instance: &str) -> Result<(), StoreError> {
    let of_instance = waiting::table.filter(waiting::instance_id.eq(instance));
    let before: Vec<Next> = each!(conn, |c| of_instance.load(c))?;
    let after = next_of(conn, instance)?;
    let mut touched = BTreeSet::new();
    for old in before.iter().filter(|old| !after.contains(old)) {
        let row = waiting::table.find((instance, &old.line));
        each!(conn, |c| diesel::delete(row).execute(c))?;
        touched.insert((&old.line, &old.payer));
    }
    for new in after.iter().filter(|new| !before.contains(new)) {
        let insert = diesel::insert_into(waiting::table).values(new);
        each!(conn, |c| Prepared(insert).execute(c))?;
        touched.insert((&new.line, &new.payer));
    }
    for (line, payer) in touched {
        find_oldest(conn, line, payer)?;
    }
    Ok(())
}

/// The same for an operation that was just accepted: as a rule it is behind others of its kind, or the
/// only one.
pub(super) fn look_at_new(conn: &mut Conn<'_>, operation: &Operation) -> Result<(), StoreError> {
    let instance = operation.instance.as_str();
    let of_instance = waiting::table.filter(waiting::instance_id.eq(instance));
    let ahead: Vec<Next> = each!(conn, |c| of_instance.load(c))?;
    let own = (operation.created_at.naive_utc(), operation.id.as_str());
    let unasked = operation.origin.is_unasked();
    let is_ahead = |next: &Next| {
        let line = Line::parse(&next.line);
        line.is_some_and(|line| line.kind == operation.kind && line.unasked == unasked)
            && (next.due, next.operation_id.as_str()) < own
    };
    if ahead.iter().any(is_ahead) {
        return Ok(());
    }
    look_anew(conn, instance)
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
    let cluster: Option<String> = each!(conn, |c| deployments::table
        .filter(deployments::instance_id.eq(instance))
        .select(deployments::cluster_id)
        .first(c)
        .optional())?;
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

fn owner(conn: &mut Conn<'_>, instance: &str) -> Result<Payer, StoreError> {
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

/// Finds out anew what of a payer's is the oldest in a line.
fn find_oldest(conn: &mut Conn<'_>, line: &str, payer: &str) -> Result<(), StoreError> {
    let of_payer = waiting::table
        .filter(waiting::line.eq(line))
        .filter(waiting::payer.eq(payer));
    let oldest: Option<(NaiveDateTime, String)> = each!(conn, |c| of_payer
        .order((waiting::due, waiting::operation_id))
        .select((waiting::due, waiting::operation_id))
        .first(c)
        .optional())?;
    let lane = lanes::table.find((line, payer));
    let known: Option<(NaiveDateTime, String)> = each!(conn, |c| lane
        .select((lanes::due, lanes::operation_id))
        .first(c)
        .optional())?;
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

/// A running operation.
#[derive(QueryableByName)]
struct Running {
    #[diesel(sql_type = Text)]
    id: String,
    #[diesel(sql_type = Text)]
    kind: String,
    #[diesel(sql_type = Text)]
    instance_id: String,
    #[diesel(sql_type = Text)]
    origin: String,
    #[diesel(sql_type = Timestamp)]
    not_before: NaiveDateTime,
    #[diesel(sql_type = Nullable<Timestamp>)]
    lease_until: Option<NaiveDateTime>,
    #[diesel(sql_type = Nullable<Text>)]
    cluster_id: Option<String>,
}

/// What was claimed and has not ended: the places of what somebody alive works on, here or on another
/// replica, and what has lost its worker and is due.
fn claimed(conn: &mut Conn<'_>, look: &Look<'_>) -> Result<(Vec<Place>, Vec<Next>), StoreError> {
    let query = sql_query(
        "SELECT o.id, o.kind, o.instance_id, o.origin, o.not_before, o.lease_until, d.cluster_id
         FROM operations o LEFT JOIN deployments d ON d.instance_id = o.instance_id
         WHERE o.state = 'running'",
    );
    let all: Vec<Running> = each!(conn, |c| Prepared(query).load(c))?;
    let now = look.now.naive_utc();
    let (mut running, mut lost) = (Vec::new(), Vec::new());
    for one in all {
        let kind = OperationKind::parse(&one.kind).filter(|kind| look.kinds.contains(kind));
        let Some(kind) = kind else { continue };
        let line = Line {
            kind,
            unasked: is_unasked(&one.origin),
            cluster: one.cluster_id,
        };
        let next = Next {
            payer: name_of(&owner(conn, &one.instance_id)?),
            instance_id: one.instance_id,
            line: line.name(),
            due: one.not_before,
            operation_id: one.id,
        };
        let holds = |until| until >= now && until <= now + LEASE_AHEAD_MAX;
        if one.lease_until.is_some_and(holds) {
            running.push(next.place(now));
        } else if next.due <= now || next.due > now + PAUSE_AHEAD_MAX {
            lost.push(next);
        }
    }
    Ok((running, lost))
}

/// Where a claim looks.
struct Search<'a> {
    now: NaiveDateTime,
    /// The names of the lines, with what they say.
    lines: Vec<(String, Line)>,
    shares: &'a Shares,
    /// Operations that are not looked at again.
    passed: BTreeSet<String>,
    running: Vec<Place>,
    lost: Vec<Next>,
}

impl Search<'_> {
    /// Of everything that is due, enough for [`queue::next`] to find what comes next: the oldest in front.
    fn candidates(&self, conn: &mut Conn<'_>) -> Result<Vec<Next>, StoreError> {
        let payers: BTreeSet<String> = self.running.iter().map(|r| name_of(&r.payer)).collect();
        let lost = self.lost.iter();
        let mut found: Vec<Next> = lost
            .filter(|next| !self.passed.contains(&next.operation_id))
            .cloned()
            .collect();
        for (line, of) in &self.lines {
            if self.is_full(of.cluster.as_ref()) {
                continue;
            }
            for payer in &payers {
                found.extend(self.first_of(conn, line, payer)?);
            }
            for payer in self.oldest_lanes(conn, line, payers.len())? {
                if !payers.contains(&payer)
                    && let Some(first) = self.first_of(conn, line, &payer)?
                {
                    found.push(first);
                    break;
                }
            }
        }
        found.sort_by(|a, b| (a.due, &a.operation_id).cmp(&(b.due, &b.operation_id)));
        Ok(found)
    }

    fn is_full(&self, cluster: Option<&String>) -> bool {
        let most = cluster.and_then(|id| self.shares.clusters.get(id));
        let there = || {
            self.running
                .iter()
                .filter(|r| r.cluster.as_ref() == cluster)
        };
        most.is_some_and(|most| there().count() >= *most)
    }

    /// The payers in a line whose oldest operations are due, one of them at least with nothing under
    /// way and nothing that was passed over, where there is such a one.
    fn oldest_lanes(
        &self,
        conn: &mut Conn<'_>,
        line: &str,
        payers: usize,
    ) -> Result<Vec<String>, StoreError> {
        let of_line = lanes::table
            .filter(lanes::line.eq(line))
            .order((lanes::due, lanes::operation_id))
            .select(lanes::payer)
            .limit(as_limit(payers + self.passed.len()));
        let come: Vec<String> = each!(conn, |c| of_line.filter(lanes::due.le(self.now)).load(c))?;
        let ahead = lanes::due.gt(self.now + PAUSE_AHEAD_MAX);
        let ahead: Vec<String> = each!(conn, |c| of_line.filter(ahead).load(c))?;
        Ok([come, ahead].concat())
    }

    /// What of a payer's comes first in a line, of those whose instances have not all that they may.
    fn first_of(
        &self,
        conn: &mut Conn<'_>,
        line: &str,
        payer: &str,
    ) -> Result<Option<Next>, StoreError> {
        let of_payer = waiting::table
            .filter(waiting::line.eq(line))
            .filter(waiting::payer.eq(payer))
            .order((waiting::due, waiting::operation_id))
            .limit(as_limit(self.running.len() + self.passed.len()));
        let has_room = |next: &Next| {
            let of_it = self
                .running
                .iter()
                .filter(|r| r.instance == next.instance_id);
            !self.passed.contains(&next.operation_id) && of_it.count() < self.shares.instance
        };
        let come: Vec<Next> = each!(conn, |c| of_payer.filter(waiting::due.le(self.now)).load(c))?;
        if let Some(first) = come.into_iter().find(has_room) {
            return Ok(Some(first));
        }
        let ahead = waiting::due.gt(self.now + PAUSE_AHEAD_MAX);
        let ahead: Vec<Next> = each!(conn, |c| of_payer.filter(ahead).load(c))?;
        Ok(ahead.into_iter().find(has_room))
    }
}

/// One more than are passed by.
fn as_limit(passed_by: usize) -> i64 {
    i64::try_from(passed_by + 1).unwrap_or(i64::MAX)
}

/// The lines of those kinds that somebody waits in.
fn lines(conn: &mut Conn<'_>, kinds: &[OperationKind]) -> Result<Vec<(String, Line)>, StoreError> {
    let (mut lines, mut last) = (Vec::new(), String::new());
    loop {
        let next: Option<String> = each!(conn, |c| lanes::table
            .filter(lanes::line.gt(&last))
            .select(min(lanes::line))
            .get_result(c))?;
        let Some(name) = next else { return Ok(lines) };
        last.clone_from(&name);
        lines.extend(
            Line::parse(&name)
                .filter(|line| kinds.contains(&line.kind))
                .map(|line| (name, line)),
        );
    }
}

/// Claims operations that are due and that nobody alive works on.
pub fn claim(conn: &mut Conn<'_>, look: &Look<'_>) -> Result<Vec<(Operation, Claim)>, StoreError> {
    if look.places == 0 {
        return Ok(Vec::new());
    }
    let (running, lost) = claimed(conn, look)?;
    let busy_with = look.busy_with.iter().map(|id| id.as_str().to_owned());
    let mut search = Search {
        now: look.now.naive_utc(),
        lines: lines(conn, look.kinds)?,
        shares: look.shares,
        passed: busy_with.collect(),
        running,
        lost,
    };
    let most = search.passed.len() + PASSED_MAX + look.places;
    let (mut claims, mut asked) = (Vec::new(), 0);
    while claims.len() < look.places && search.passed.len() < most {
        let found = search.candidates(conn)?;
        let places: Vec<Place> = found.iter().map(|next| next.place(search.now)).collect();
        let may_be_asked = asked < look.asked;
        let next = queue::next(&places, &search.running, look.shares, may_be_asked);
        let Some(next) = next else { break };
        let (place, chosen) = (&places[next], &found[next]);
        if let Some(claimed) = claim_one(conn, look, chosen)? {
            asked += usize::from(!place.unasked);
            search.running.push(place.clone());
            claims.push(claimed);
        }
        search.passed.insert(chosen.operation_id.clone());
    }
    Ok(claims)
}

fn claim_one(
    conn: &mut Conn<'_>,
    look: &Look<'_>,
    next: &Next,
) -> Result<Option<(Operation, Claim)>, StoreError> {
    // One row that this version cannot read must not stop the work on all others.
    let found = parse("an operation's id", &next.operation_id).and_then(|id| find(conn, &id));
    let operation = match found {
        Ok(Some(operation)) => operation,
        Ok(None) => {
            look_anew(conn, &next.instance_id)?;
            return Ok(None);
        }
        Err(error @ StoreError::Unreadable(_)) => {
            log::error!(operation = next.operation_id.as_str(); "an operation is passed over: {error}");
            return Ok(None);
        }
        Err(error) => return Err(error),
    };
    let active = active(conn, &next.instance_id)?;
    let place = active.iter().position(|one| one.id == next.operation_id);
    if place.is_none_or(|place| must_wait(&active, place)) {
        look_anew(conn, &next.instance_id)?;
        return Ok(None);
    }
    let claim = Claim {
        operation: operation.id.clone(),
        epoch: operation.epoch + 1,
    };
    let claimed = each!(conn, |c| diesel::update(
        operations::table
            .find(operation.id.as_str())
            .filter(operations::epoch.eq(operation.epoch))
            .filter(operations::state.eq_any(ACTIVE))
    )
    .set((
        operations::state.eq(OperationState::Running.as_str()),
        operations::owner.eq(look.owner),
        operations::lease_until.eq(look.lease_until.naive_utc()),
        operations::epoch.eq(claim.epoch),
    ))
    .execute(c))?;
    if claimed != 1 {
        return Ok(None);
    }
    look_anew(conn, &next.instance_id)?;
    let operation = Operation {
        state: OperationState::Running,
        epoch: claim.epoch,
        ..operation
    };
    Ok(Some((operation, claim)))
}

#[cfg(test)]
mod tests;
