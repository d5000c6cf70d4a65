//! Which catalog is in force: no instance ever loses its plan.

use std::{fmt, sync::Arc};

use chrono::{DateTime, Utc};

use super::{BrokerError, BrokerParts};
use crate::{
    clock::Clock,
    model::{
        audit::AtOnce,
        catalog::{Catalog, CurrentCatalog, Offering, Plan},
        ids::InstanceId,
        limits::{LOST_INSTANCES_NAMED_MAX, REPLICA_ALIVE},
        origin::Origin,
    },
    store::{self, Conn, Store, StoreError},
};

/// A plan that instances use and that a catalog lacks.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LostPlan {
    /// OSB `service_id`.
    pub service_id: String,
    /// OSB `plan_id`.
    pub plan_id: String,
    /// How many instances use it.
    pub instances: i64,
    /// Some of them.
    pub some: Vec<InstanceId>,
}

/// Why a catalog cannot come into force: it lacks what instances use. Never empty.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LostPlans(pub Vec<LostPlan>);

impl fmt::Display for LostPlans {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("it lacks what instances use:")?;
        for (i, lost) in self.0.iter().enumerate() {
            let (service, plan) = (&lost.service_id, &lost.plan_id);
            let separator = if i == 0 { "" } else { ";" };
            write!(f, "{separator} plan {plan:?} of service {service:?} (")?;
            for (i, id) in lost.some.iter().enumerate() {
                let separator = if i == 0 { "" } else { ", " };
                write!(f, "{separator}{:?}", id.as_str())?;
            }
            let named = i64::try_from(lost.some.len()).unwrap_or(i64::MAX);
            match lost.instances - named {
                0 => f.write_str(")")?,
                more => write!(f, " and {more} more)")?,
            }
        }
        Ok(())
    }
}

impl std::error::Error for LostPlans {}

/// Why a catalog did not come into force.
#[derive(Debug, thiserror::Error)]
pub enum CatalogRefusal {
    /// Instances need another one.
    #[error(transparent)]
    Lost(#[from] LostPlans),
    /// It could not be decided.
    #[error(transparent)]
    Broker(#[from] BrokerError),
}

impl From<StoreError> for CatalogRefusal {
    fn from(error: StoreError) -> Self {
        Self::Broker(error.into())
    }
}

/// Refuses a catalog that lacks a plan which an instance has.
pub fn keeps_all_plans(conn: &mut Conn<'_>, catalog: &Catalog) -> Result<(), CatalogRefusal> {
    let mut lost = Vec::new();
    for (service_id, plan_id) in store::instance::plans(conn)? {
        if !catalog.has_plan(&service_id, &plan_id) {
            let most = LOST_INSTANCES_NAMED_MAX;
            let instances = store::instance::count_of_plan(conn, &service_id, &plan_id)?;
            let some = store::instance::of_plan(conn, &service_id, &plan_id, most)?;
            lost.push(LostPlan {
                service_id,
                plan_id,
                instances,
                some,
            });
        }
    }
    if lost.is_empty() {
        Ok(())
    } else {
        Err(LostPlans(lost).into())
    }
}

/// Refuses a plan for an instance that is about to be there, where another broker on the store lacks it: one that
/// has dropped it, since no instance had it, or that has not heard of it yet.
pub(super) fn is_offered_by_all(
    conn: &mut Conn<'_>,
    plan: (&str, &str),
    now: DateTime<Utc>,
) -> Result<(), BrokerError> {
    // A file has one broker, and its catalog was asked already.
    if conn.is_private() {
        return Ok(());
    }
    let plan = (plan.0.to_owned(), plan.1.to_owned());
    let alive = store::time::of_store(conn, now)? - REPLICA_ALIVE;
    let all = store::broker::alive_since(conn, alive)?;
    match all.into_iter().find(|other| other.lacks(&plan)) {
        None => Ok(()),
        Some(other) => Err(BrokerError::NotOfferedByAll(other.machine)),
    }
}

/// The offering and its own plan of those ids.
pub(super) fn offering_and_plan(
    catalog: &CurrentCatalog,
    service_id: &str,
    plan_id: &str,
) -> Result<(Arc<Offering>, Arc<Plan>), BrokerError> {
    let catalog = catalog.get();
    let offering = catalog.offering(service_id).ok_or_else(|| {
        let named = catalog.offering_named(service_id);
        let hint = named.map_or_else(String::new, |of| its_id(&of.id));
        BrokerError::BadRequest(format!(
            "service_id {service_id:?} is not in the catalog{hint}"
        ))
    })?;
    let plan = offering.plan(plan_id).ok_or_else(|| {
        let named = offering.plan_named(plan_id);
        let hint = named.map_or_else(String::new, |plan| its_id(&plan.id));
        BrokerError::BadRequest(format!(
            "plan_id {plan_id:?} is not a plan of {}{hint}",
            offering.name
        ))
    })?;
    Ok((offering.clone(), plan.clone()))
}

/// What is said to somebody who gave a name where an id is wanted.
fn its_id(id: &str) -> String {
    format!(": that is the name; the id is {id:?}")
}

/// Brings catalogs into force.
pub struct Catalogs {
    store: Arc<Store>,
    clock: Clock,
    current: Arc<CurrentCatalog>,
    /// See [`BrokerParts::replica`].
    replica: String,
}

impl Catalogs {
    pub(super) fn new(parts: &BrokerParts) -> Self {
        Self {
            store: parts.store.clone(),
            clock: parts.clock.clone(),
            current: parts.catalog.clone(),
            replica: parts.replica.clone(),
        }
    }

    /// Brings another catalog into force, unless an instance would lose its plan. Nobody is accepted
    /// under the old one meanwhile, nor by another broker for a plan that this one has no more.
    pub async fn replace_catalog(&self, catalog: Catalog) -> Result<(), CatalogRefusal> {
        let (current, now) = (self.current.clone(), self.clock.now());
        let (catalog, replica) = (Arc::new(catalog), self.replica.clone());
        self.store
            .decide(move |conn| {
                keeps_all_plans(conn, &catalog)?;
                store::broker::set_plans(conn, &replica, &catalog.plan_ids())?;
                store::audit::done(conn, AtOnce::Catalog, Origin::Operator, None, now)?;
                let (current, catalog) = (current.clone(), catalog.clone());
                conn.once_committed(move || current.replace(catalog));
                Ok(())
            })
            .await
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_would_be_lost_is_told_in_one_line_with_some_of_whom_it_is_lost_for() {
        let plan = |plan_id: &str, instances| LostPlan {
            service_id: "s".to_owned(),
            plan_id: plan_id.to_owned(),
            instances,
            some: vec!["a".parse().expect("an id"), "b".parse().expect("an id")],
        };
        let lost = LostPlans(vec![plan("p", 2), plan("q", 7)]);
        assert_eq!(
            lost.to_string(),
            "it lacks what instances use: plan \"p\" of service \"s\" (\"a\", \"b\"); \
             plan \"q\" of service \"s\" (\"a\", \"b\" and 5 more)"
        );
    }
}
