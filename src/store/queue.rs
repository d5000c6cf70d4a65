//! The queue: which operations are due, whose they are, and the claims on them.
//!
//! A burst of one tenant is seen in part only, so that others' operations are seen however many it
//! is, and so is a burst for one of its instances; which of those that are seen begins is decided by
//! [`crate::model::queue`].

use chrono::{DateTime, NaiveDateTime, Utc};
use diesel::{
    prelude::*,
    sql_query,
    sql_types::{BigInt, Nullable, Text, Timestamp},
};

use super::{
    Conn, StoreError, each,
    operation::{ACTIVE, active_on_instance, find},
    parse,
    schema::operations,
};
use crate::model::{
    ids::OperationId,
    limits::{LEASE_AHEAD_MAX, PAUSE_AHEAD_MAX, UNASKED_LATE_AFTER},
    operation::{Claim, Operation, OperationKind, OperationState, WaitsFor},
    origin::Origin,
    queue::{self, Payer, Place, Shares},
};

/// Due operations of one tenant that are looked at for one claim; more are left for the next one.
const SEEN_OF_TENANT_MAX: i64 = 100;
/// Due operations of everybody that are looked at for one claim.
const SEEN_MAX: i64 = 500;

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

#[derive(QueryableByName)]
struct Seen {
    #[diesel(sql_type = Text)]
    id: String,
    #[diesel(sql_type = Text)]
    instance_id: String,
    #[diesel(sql_type = Text)]
    origin: String,
    #[diesel(sql_type = Timestamp)]
    not_before: NaiveDateTime,
    #[diesel(sql_type = Nullable<Text>)]
    platform: Option<String>,
    #[diesel(sql_type = Nullable<Text>)]
    organization: Option<String>,
    #[diesel(sql_type = Nullable<Text>)]
    space: Option<String>,
    #[diesel(sql_type = Nullable<Text>)]
    account: Option<String>,
    #[diesel(sql_type = Nullable<Text>)]
    cluster_id: Option<String>,
}

impl Seen {
    fn into_place(self, now: NaiveDateTime) -> (String, Place) {
        let payer = match (self.platform, self.organization, self.space, self.account) {
            (Some(platform), Some(organization), Some(space), Some(account)) => Payer::Tenant {
                platform,
                organization,
                space,
                account,
            },
            _ => Payer::Nobody,
        };
        // One that this version does not know is passed over when it is read whole.
        let unasked = Origin::parse(&self.origin).is_some_and(Origin::is_unasked);
        let place = Place {
            payer,
            instance: self.instance_id,
            cluster: self.cluster_id,
            unasked,
            late: unasked && self.not_before + UNASKED_LATE_AFTER < now,
        };
        (self.id, place)
    }
}

/// Names of ours, as a list in SQL.
fn listed<'a>(names: impl IntoIterator<Item = &'a str>) -> String {
    let quoted: Vec<String> = names.into_iter().map(|name| format!("'{name}'")).collect();
    quoted.join(", ")
}

fn kinds_of(look: &Look<'_>) -> String {
    listed(look.kinds.iter().map(|kind| kind.as_str()))
}

fn unasked_origins() -> String {
    let unasked = Origin::ALL.into_iter().filter(|origin| origin.is_unasked());
    listed(unasked.map(Origin::as_str))
}

/// What somebody alive works on, here or on another replica.
fn running(conn: &mut Conn<'_>, look: &Look<'_>) -> Result<Vec<Place>, StoreError> {
    let kinds = kinds_of(look);
    let query = format!(
        "SELECT o.id, o.instance_id, o.origin, o.not_before,
                i.platform, i.organization, i.space, i.account, d.cluster_id
         FROM operations o
         LEFT JOIN instances i ON i.id = o.instance_id
         LEFT JOIN deployments d ON d.instance_id = o.instance_id
         WHERE o.state = 'running' AND o.kind IN ({kinds})
           AND o.lease_until >= $1 AND o.lease_until <= $2"
    );
    let now = look.now.naive_utc();
    let seen: Vec<Seen> = each!(conn, |c| sql_query(&query)
        .bind::<Timestamp, _>(now)
        .bind::<Timestamp, _>(now + LEASE_AHEAD_MAX)
        .load(c))?;
    let places = seen.into_iter().map(|seen| seen.into_place(now).1);
    Ok(places.collect())
}

/// What is due and nobody alive works on, each tenant's oldest first.
fn due(conn: &mut Conn<'_>, look: &Look<'_>) -> Result<Vec<(String, Place)>, StoreError> {
    let (kinds, active, unasked) = (kinds_of(look), listed(ACTIVE), unasked_origins());
    let query = format!(
        "SELECT id, instance_id, origin, not_before,
                platform, organization, space, account, cluster_id FROM (
             SELECT of_instance.*,
                    row_number() OVER (
                        PARTITION BY platform, organization, space, account, origin IN ({unasked})
                        ORDER BY turn, not_before, id
                    ) AS place
             FROM (
                 SELECT o.id, o.instance_id, o.origin, o.not_before,
                        i.platform, i.organization, i.space, i.account, d.cluster_id,
                        row_number() OVER (
                            PARTITION BY o.instance_id, o.origin IN ({unasked})
                            ORDER BY o.not_before, o.id
                        ) AS turn
                 FROM operations o
                 LEFT JOIN instances i ON i.id = o.instance_id
                 LEFT JOIN deployments d ON d.instance_id = o.instance_id
                 WHERE o.state IN ({active}) AND o.kind IN ({kinds})
                   AND (o.not_before <= $1 OR o.not_before > $2)
                   AND (o.lease_until IS NULL OR o.lease_until < $3 OR o.lease_until > $4)
             ) AS of_instance
         ) AS seen
         WHERE place <= $5
         ORDER BY place, not_before, id
         LIMIT $6"
    );
    let now: NaiveDateTime = look.now.naive_utc();
    let seen: Vec<Seen> = each!(conn, |c| sql_query(&query)
        .bind::<Timestamp, _>(now)
        .bind::<Timestamp, _>(now + PAUSE_AHEAD_MAX)
        .bind::<Timestamp, _>(now)
        .bind::<Timestamp, _>(now + LEASE_AHEAD_MAX)
        .bind::<BigInt, _>(SEEN_OF_TENANT_MAX)
        .bind::<BigInt, _>(SEEN_MAX)
        .load(c))?;
    let places = seen.into_iter().map(|seen| seen.into_place(now));
    Ok(places.collect())
}

/// Claims operations that are due and that nobody alive works on.
pub fn claim(conn: &mut Conn<'_>, look: &Look<'_>) -> Result<Vec<(Operation, Claim)>, StoreError> {
    if look.places == 0 {
        return Ok(Vec::new());
    }
    let mut due = due(conn, look)?;
    due.retain(|(id, _)| look.busy_with.iter().all(|busy| busy.as_str() != id));
    if due.is_empty() {
        return Ok(Vec::new());
    }
    let mut running = running(conn, look)?;
    let (mut ids, mut waiting): (Vec<String>, Vec<Place>) = due.into_iter().unzip();
    let (mut claims, mut asked) = (Vec::new(), 0);
    while claims.len() < look.places
        && let Some(next) = queue::next(&waiting, &running, look.shares, asked < look.asked)
    {
        let (id, place) = (ids.remove(next), waiting.remove(next));
        if let Some(claimed) = claim_one(conn, look, &id)? {
            asked += usize::from(!place.unasked);
            running.push(place);
            claims.push(claimed);
        }
    }
    Ok(claims)
}

fn claim_one(
    conn: &mut Conn<'_>,
    look: &Look<'_>,
    id: &str,
) -> Result<Option<(Operation, Claim)>, StoreError> {
    // One row that this version cannot read must not stop the work on all others.
    let found = parse("an operation's id", id).and_then(|id| find(conn, &id));
    let operation = match found {
        Ok(Some(operation)) => operation,
        Ok(None) => return Ok(None),
        Err(error @ StoreError::Unreadable(_)) => {
            log::error!(operation = id; "an operation is passed over: {error}");
            return Ok(None);
        }
        Err(error) => return Err(error),
    };
    if must_wait(conn, &operation)? {
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
    let operation = Operation {
        state: OperationState::Running,
        epoch: claim.epoch,
        ..operation
    };
    Ok(Some((operation, claim)))
}

/// Whether something else comes first. What follows something follows what is older, and a
/// deletion is the last that is accepted: so no two wait for each other.
fn must_wait(conn: &mut Conn<'_>, operation: &Operation) -> Result<bool, StoreError> {
    let others = active_on_instance(conn, &operation.instance)?;
    Ok(others.iter().any(|other| {
        let barred = match operation.waits_for {
            WaitsFor::Nothing => false,
            WaitsFor::Binding => other.binding == operation.binding,
            WaitsFor::Instance => true,
        };
        let is_older = (other.ordinal, &other.id) < (operation.ordinal, &operation.id);
        other.id != operation.id && (barred || is_older && operation.kind.follows(other.kind))
    }))
}

#[cfg(test)]
mod tests {
    use std::{collections::BTreeMap, sync::Arc};

    use super::*;
    use crate::store::{Store, operation};

    #[tokio::test]
    async fn one_of_unknown_origin_is_passed_over_and_the_others_are_claimed() {
        let folder = tempfile::tempdir().expect("a folder");
        let url = format!("sqlite://{}", folder.path().join("db").display());
        let store = Arc::new(Store::open(&url).expect("a store"));
        let now = DateTime::UNIX_EPOCH;
        let all = Origin::ALL.map(|origin| {
            let instance = format!("of-{origin}").parse().expect("an id");
            Operation::queued(OperationKind::Backup, &instance, origin, now)
        });
        let strange = all[0].id.clone();
        let written = store.write(move |conn| {
            for backup in &all {
                operation::insert(conn, backup, None)?;
            }
            each!(conn, |c| diesel::update(
                operations::table.find(strange.as_str())
            )
            .set(operations::origin.eq("moon"))
            .execute(c))?;
            Ok(())
        });
        written.await.expect("written");
        let claimed = store.write(move |conn| {
            let look = Look {
                owner: "somebody",
                now,
                lease_until: now + chrono::TimeDelta::seconds(1),
                kinds: &[OperationKind::Backup],
                places: Origin::ALL.len(),
                asked: Origin::ALL.len(),
                shares: &Shares {
                    tenant: 1,
                    instance: 1,
                    clusters: BTreeMap::new(),
                },
                busy_with: &[],
            };
            claim(conn, &look)
        });
        let claimed = claimed.await.expect("a look");
        let mut origins: Vec<&str> = claimed.iter().map(|(of, _)| of.origin.as_str()).collect();
        origins.sort_unstable();
        let mut known: Vec<&str> = Origin::ALL[1..].iter().map(|of| of.as_str()).collect();
        known.sort_unstable();
        assert_eq!(origins, known);
    }
}
