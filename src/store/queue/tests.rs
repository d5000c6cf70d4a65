//! The choice of the queue's tables against the rules, applied to everything that waits.

use std::{collections::BTreeMap, sync::Arc};

use chrono::TimeDelta;
use proptest::prelude::*;

use super::*;
use crate::{
    model::{
        deployment::Deployment,
        ids::{DeploymentId, InstanceId},
        instance::{Instance, InstanceState, ProvisionIdentity},
        origin::Origin,
        tenant::Tenant,
    },
    store::{Store, claim, deployment, instance, operation},
};

const INSTANCES: usize = 6;
const LEASE: TimeDelta = TimeDelta::seconds(15);

fn noon() -> DateTime<Utc> {
    "2026-06-01T12:00:00Z".parse().expect("a time")
}

/// What is done to the queue.
#[derive(Debug, Clone)]
enum Act {
    /// An operation is accepted, so many seconds before noon.
    Accept(usize, OperationKind, Origin, i64),
    /// One is claimed.
    Claim(OperationKind),
    /// One that was claimed ends, or is put off.
    End(usize),
    PutOff(usize),
    /// One is told to stop.
    Halt(usize),
}

fn any_act() -> impl Strategy<Value = Act> {
    use OperationKind::{Backup, Bind, Prune, Relief, Update};
    let kind = prop::sample::select(vec![Backup, Bind, Prune, Update, Relief]);
    let origin = prop::sample::select(vec![
        Origin::Osb,
        Origin::Osb,
        Origin::Schedule,
        Origin::Guard,
    ]);
    let accept = (0..INSTANCES, kind.clone(), origin, -5i64..200)
        .prop_map(|(of, kind, origin, ago)| Act::Accept(of, kind, origin, ago));
    prop_oneof![
        5 => accept,
        4 => kind.prop_map(Act::Claim),
        2 => (0..9usize).prop_map(Act::End),
        1 => (0..9usize).prop_map(Act::PutOff),
        1 => (0..30usize).prop_map(Act::Halt),
    ]
}

/// An instance of one of three tenants, on one of two clusters; the last one has no row of its own.
fn rows_of(of: usize) -> Option<(Instance, Deployment)> {
    let id: InstanceId = format!("i{of}").parse().expect("an id");
    let deployment = DeploymentId::generate(noon());
    if of + 1 == INSTANCES {
        return None;
    }
    let instance = Instance {
        id: id.clone(),
        service_id: "s".to_owned(),
        plan_id: "p".to_owned(),
        tenant: Tenant {
            platform: "p".to_owned(),
            organization: "o".to_owned(),
            space: format!("s{}", of % 3),
            account: BTreeMap::new(),
        },
        name: None,
        restored_from: None,
        deployment: deployment.clone(),
        context: serde_json::json!({}),
        parameters: serde_json::json!({}),
        request: ProvisionIdentity {
            service_id: "s".to_owned(),
            plan_id: "p".to_owned(),
            organization: "o".to_owned(),
            space: "s".to_owned(),
            parameters: serde_json::json!({}),
        },
        state: InstanceState::Ready,
        created_at: noon(),
        ordinal: 0,
    };
    let deployment = Deployment {
        id: deployment,
        instance: id,
        name: "d".to_owned(),
        cluster: ["x", "y"][of % 2].to_owned(),
        engine: "etcd".to_owned(),
        version: "3.6.14".parse().expect("a version"),
        units: 1,
        members: Vec::new(),
        closed_since: None,
    };
    Some((instance, deployment))
}

/// Whom the rules choose of all that waits.
fn chosen(conn: &mut Conn<'_>, look: &Look<'_>) -> Result<Option<String>, StoreError> {
    let now = look.now.naive_utc();
    let (running, lost) = claimed(conn, now, look.kinds)?;
    let mut all: Vec<(usize, Next)> = lost.into_iter().map(|next| (0, next)).collect();
    for of in 0..INSTANCES {
        let instance = format!("i{of}");
        let active = active(conn, &instance)?;
        let rows = rows_of(of);
        let payer = owner(conn, &instance)?;
        let mut turns: BTreeMap<String, usize> = BTreeMap::new();
        let mut due: Vec<usize> = (0..active.len())
            .filter(|at| active[*at].is_queued && !must_wait(&active, *at))
            .filter(|at| active[*at].not_before <= now)
            .collect();
        due.sort_by_key(|at| (active[*at].not_before, &active[*at].id));
        for one in due.into_iter().map(|at| &active[at]) {
            let line = Line {
                kind: OperationKind::parse(&one.kind).expect("a kind"),
                unasked: is_unasked(&one.origin),
                cluster: rows.as_ref().map(|(_, d)| d.cluster.clone()),
            };
            if !look.kinds.contains(&line.kind) {
                continue;
            }
            let turn = turns.entry(line.name()).or_default();
            *turn += 1;
            let next = Next {
                instance_id: instance.clone(),
                line: line.name(),
                payer: name_of(&payer),
                due: one.not_before,
                operation_id: one.id.clone(),
            };
            all.push((*turn, next));
        }
    }
    all.sort_by(|(turn, a), (other, b)| {
        (turn, a.due, &a.operation_id).cmp(&(other, b.due, &b.operation_id))
    });
    let places: Vec<Place> = all.iter().map(|(_, next)| next.place(now)).collect();
    let next = queue::next(&places, &running, look.shares, look.asked > 0);
    Ok(next.map(|at| all[at].1.operation_id.clone()))
}

fn run(acts: Vec<Act>, tenant: usize, instance_share: usize, on_x: usize, asked: bool) {
    let folder = tempfile::tempdir().expect("a folder");
    let url = format!("sqlite://{}", folder.path().join("db").display());
    let store = Arc::new(Store::open(&url).expect("a store"));
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_time()
        .build();
    // All in one transaction: nothing here is about that.
    let all = store.write(move |conn| {
        for (row, placed) in (0..INSTANCES).filter_map(rows_of) {
            instance::insert(conn, &row)?;
            deployment::insert(conn, &placed)?;
        }
        let (mut claims, mut accepted): (Vec<Claim>, Vec<OperationId>) = (Vec::new(), Vec::new());
        for act in &acts {
            match *act {
                Act::Accept(of, kind, origin, ago) => {
                    let id: InstanceId = format!("i{of}").parse().expect("an id");
                    let at = noon() - TimeDelta::seconds(ago);
                    let queued = Operation::queued(kind, &id, origin, at);
                    accepted.push(queued.id.clone());
                    operation::insert(conn, &queued, None)?;
                }
                Act::Claim(kind) => {
                    let kinds = kind.weight().kinds();
                    let shares = Shares {
                        tenant,
                        instance: instance_share,
                        clusters: [("x".to_owned(), on_x)].into(),
                    };
                    let look = Look {
                        owner: "w",
                        now: noon(),
                        lease_until: noon() + LEASE,
                        clusters: None,
                        kinds: &kinds,
                        places: 1,
                        asked: usize::from(asked),
                        shares: &shares,
                        busy_with: &[],
                    };
                    let expected = chosen(conn, &look)?;
                    let found = claim(conn, &look)?;
                    let found = found.into_iter().next().map(|(_, claim)| claim);
                    let id = found.as_ref().map(|claim| claim.operation.to_string());
                    assert_eq!(id, expected);
                    claims.extend(found);
                }
                Act::End(i) if i < claims.len() => {
                    let claim = claims.swap_remove(i);
                    claim::finish(conn, &claim, OperationState::Succeeded, noon())?;
                }
                Act::PutOff(i) if i < claims.len() => {
                    let claim = claims.swap_remove(i);
                    claim::postpone(conn, &claim, noon(), std::time::Duration::from_secs(1))?;
                }
                Act::Halt(i) if i < accepted.len() => operation::halt(conn, &accepted[i], noon())?,
                Act::End(_) | Act::PutOff(_) | Act::Halt(_) => {}
            }
        }
        Ok(())
    });
    runtime.expect("a runtime").block_on(all).expect("written");
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]
    #[test]
    fn the_tables_choose_what_the_rules_choose(
        acts in prop::collection::vec(any_act(), 1..80),
        tenant in 1usize..4,
        instance in 1usize..3,
        on_x in 1usize..3,
        asked in any::<bool>(),
    ) {
        run(acts, tenant, instance, on_x, asked);
    }
}
