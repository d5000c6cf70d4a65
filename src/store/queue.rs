//! The queue: which operations are due, whose they are, and the claims on them.
//!
//! Operations wait in lines: those of a kind, asked for or not, on a cluster. In each line the store
//! keeps two things beside the operations themselves, in the transactions that change these
//! (`waiting.rs`): of each instance the operation that comes next (`waiting`), and of each payer the
//! oldest of these (`lanes`). So a claim looks at the first of each line and of each payer that has
//! something under way, however many wait behind them. Which of those begins is decided by
//! [`crate::model::queue`].

use std::collections::{BTreeSet, HashMap, hash_map::Entry};

use chrono::{DateTime, NaiveDateTime, Utc};
use diesel::{
    dsl::min,
    prelude::*,
    sql_query,
    sql_types::{Nullable, Text, Timestamp},
};

use super::{
    Conn, StoreError, cluster, each,
    operation::{ACTIVE, find},
    parse,
    prepared::Prepared,
    schema::{lanes, operations, waiting},
    time::of_store,
    waiting::{
        Line, Next, active, ahead, cluster_of, is_unasked, look_anew, must_wait, name_of, owner,
    },
};
use crate::model::{
    ids::OperationId,
    limits::{LEASE_AHEAD_MAX, PAUSE_AHEAD_MAX, REPLICA_ALIVE},
    operation::{Claim, Operation, OperationKind, OperationState, Weight},
    queue::{self, Limits, Place, Shares},
    wait::Wait,
};

/// Operations that are passed over at one look, since they must wait or cannot be read.
const PASSED_MAX: usize = 100;

/// What is claimed at one look.
pub struct Look<'a> {
    /// Who looks.
    pub owner: &'a str,
    /// The time, see [`super::time::of_store`].
    pub now: DateTime<Utc>,
    /// Until when others leave alone what is claimed, by the same clock.
    pub lease_until: DateTime<Utc>,
    /// The clusters whose operations are looked for, beside those that are on none; none: all of them.
    pub clusters: Option<&'a BTreeSet<String>>,
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

impl Look<'_> {
    fn is_of(&self, line: &Line) -> bool {
        let (clusters, cluster) = (self.clusters, line.cluster.as_ref());
        clusters
            .zip(cluster)
            .is_none_or(|(all, one)| all.contains(one))
    }
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
fn claimed(
    conn: &mut Conn<'_>,
    now: NaiveDateTime,
    kinds: &[OperationKind],
) -> Result<(Vec<Place>, Vec<Next>), StoreError> {
    let query = sql_query(
        "SELECT o.id, o.kind, o.instance_id, o.origin, o.not_before, o.lease_until, d.cluster_id
         FROM operations o LEFT JOIN deployments d ON d.instance_id = o.instance_id
         WHERE o.state = 'running'",
    );
    let all: Vec<Running> = each!(conn, |c| Prepared(query).load(c))?;
    let (mut running, mut lost) = (Vec::new(), Vec::new());
    for one in all {
        let kind = OperationKind::parse(&one.kind).filter(|kind| kinds.contains(kind));
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

/// The lines that somebody waits in and that the look is at.
fn lines(conn: &mut Conn<'_>, look: &Look<'_>) -> Result<Vec<(String, Line)>, StoreError> {
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
                .filter(|line| look.kinds.contains(&line.kind) && look.is_of(line))
                .map(|line| (name, line)),
        );
    }
}

/// Claims operations that are due and that nobody alive works on.
pub fn claim(conn: &mut Conn<'_>, look: &Look<'_>) -> Result<Vec<(Operation, Claim)>, StoreError> {
    if look.places == 0 {
        return Ok(Vec::new());
    }
    let now = look.now.naive_utc();
    let (running, mut lost) = claimed(conn, now, look.kinds)?;
    // The others wait for a broker that looks after their cluster.
    lost.retain(|next| Line::parse(&next.line).is_some_and(|line| look.is_of(&line)));
    let busy_with = look.busy_with.iter().map(|id| id.as_str().to_owned());
    let mut search = Search {
        now,
        lines: lines(conn, look)?,
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

/// Finds out what those of some operations wait for that nobody works on.
pub fn find_waits<'a>(
    conn: &mut Conn<'_>,
    operations: impl IntoIterator<Item = &'a mut Operation>,
    limits: &Limits,
    now: DateTime<Utc>,
) -> Result<(), StoreError> {
    let mut running = HashMap::new();
    let queued = |operation: &&mut Operation| operation.state == OperationState::Queued;
    for operation in operations.into_iter().filter(queued) {
        operation.wait = wait_of(conn, operation, limits, &mut running, now)?;
    }
    Ok(())
}

/// What an operation waits for. `running` has the places of what runs, by weight, as far as they were
/// looked for already.
fn wait_of(
    conn: &mut Conn<'_>,
    operation: &Operation,
    limits: &Limits,
    running: &mut HashMap<Weight, Vec<Place>>,
    now: DateTime<Utc>,
) -> Result<Option<Wait>, StoreError> {
    let instance = operation.instance.as_str();
    let active = active(conn, instance)?;
    let own = active
        .iter()
        .position(|one| one.id == operation.id.as_str());
    // It was just begun, or is behind more than are looked at.
    let Some(own) = own.filter(|own| active[*own].is_queued) else {
        return Ok(None);
    };
    if let Some(first) = ahead(&active, own) {
        let found = parse("an operation's id", &first.id).and_then(|id| find(conn, &id))?;
        return Ok(found.map(|first| match first.kind {
            // One that has failed is only cleaned up.
            OperationKind::FinalBackup if first.failure.is_none() => {
                Wait::LastBackup(first.trouble)
            }
            _ => Wait::Operation(first.words().into_owned()),
        }));
    }
    let now = of_store(conn, now)?;
    if active[own].not_before > now.naive_utc() {
        return Ok(None);
    }
    let cluster = cluster_of(conn, instance)?;
    if let Some(cluster) = &cluster
        && cluster::is_left_alone(conn, cluster, now - REPLICA_ALIVE)?
    {
        return Ok(Some(Wait::Lonely));
    }
    let place = Place {
        payer: owner(conn, instance)?,
        instance: instance.to_owned(),
        cluster,
        unasked: operation.origin.is_unasked(),
        late: false,
    };
    let weight = operation.kind.weight();
    let running = match running.entry(weight) {
        Entry::Occupied(known) => known.into_mut(),
        Entry::Vacant(unknown) => {
            unknown.insert(claimed(conn, now.naive_utc(), &weight.kinds())?.0)
        }
    };
    Ok(limits.wait(weight, &place, running))
}

#[cfg(test)]
mod tests;
