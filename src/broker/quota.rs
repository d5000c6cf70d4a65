//! What a tenant may have: counted in the transaction that adds to it, and nobody else adds to it
//! meanwhile.

use super::{
    BrokerParts,
    refusal::{Refusal, RuleError},
};
use crate::{
    model::{
        catalog::Plan,
        quota::{Allowance, QuotaRefusal, more_units, one_more_instance},
        tenant::Tenant,
    },
    store::{self, Conn, StoreError},
};

/// What one tenant may have.
pub(super) struct Quotas {
    units_per_tenant: Option<u32>,
}

impl Quotas {
    pub(super) fn new(parts: &BrokerParts) -> Self {
        Self {
            units_per_tenant: parts.units_per_tenant,
        }
    }

    /// Refuses an instance that is one too many, or too large.
    pub(super) fn check_quotas(
        &self,
        conn: &mut Conn<'_>,
        tenant: &Tenant,
        plan: &Plan,
        units: u32,
    ) -> Result<(), RuleError> {
        let most = plan.rules.instances_per_tenant;
        let instances = Allowance {
            // Counting takes the longer the more there are.
            used: match most {
                Some(_) => store::instance::count_of(conn, tenant, &plan.id)?,
                None => 0,
            },
            most,
        };
        let within = self.units_within_quota(conn, tenant, units)?;
        let allowed = one_more_instance(&plan.name, instances).and(within);
        Ok(allowed.map_err(Refusal::from)?)
    }

    /// Whether a tenant may have so many units more.
    pub(super) fn units_within_quota(
        &self,
        conn: &mut Conn<'_>,
        tenant: &Tenant,
        more: u32,
    ) -> Result<Result<(), QuotaRefusal>, StoreError> {
        if self.units_per_tenant.is_none() {
            return Ok(Ok(()));
        }
        let units = Allowance {
            used: store::deployment::units_of(conn, tenant)?,
            most: self.units_per_tenant,
        };
        Ok(more_units(more, units))
    }
}
