//! Whose instances are whose.
//!
//! An instance keeps the owner that it was made with, also when the broker learns to tell the
//! tenants of its platform apart. Until an operator gives such an instance the owner that its own
//! request names, nobody new restores from it.

use std::sync::Arc;

use super::{BrokerError, BrokerParts, ProvisionRequest};
use crate::{
    clock::Clock,
    model::{
        audit::AtOnce,
        ids::InstanceId,
        instance::Instance,
        limits::OWNERS_PAGE,
        origin::Origin,
        tenant::{OwnerError, Tenant, TenantKeys},
    },
    store::{self, Conn, Store},
};

/// An instance whose request names another owner than it has.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OwnerFinding {
    /// The instance.
    pub instance: InstanceId,
    /// The owner that it has.
    pub owner: Tenant,
    /// The owner that the platform's request and context name today; none: one of the ids that
    /// must be there is not.
    pub named: Option<Tenant>,
    /// Whether it has got that owner now.
    pub changed: bool,
}

/// Who owns an instance.
pub struct Owners {
    store: Arc<Store>,
    clock: Clock,
    keys: TenantKeys,
}

impl Owners {
    pub(super) fn new(parts: &BrokerParts) -> Self {
        Self {
            store: parts.store.clone(),
            clock: parts.clock.clone(),
            keys: parts.tenant_keys.clone(),
        }
    }

    /// The owner of an instance that a platform asks for.
    pub(super) fn owner(&self, request: &ProvisionRequest) -> Result<Tenant, OwnerError> {
        let (organization, space) = (&request.organization, &request.space);
        let context = request.context.as_ref();
        self.keys.owner(organization, space, context)
    }

    /// Whether a request comes from the owner of an instance that is there. Both requests are
    /// compared, not the owner: that one may be of a time when tenants were not told apart.
    pub(super) fn is_owner(&self, instance: &Instance, request: &ProvisionRequest) -> bool {
        self.named_owner(instance) == self.owner(request).ok()
    }

    fn named_owner(&self, instance: &Instance) -> Option<Tenant> {
        let (organization, space) = (&instance.request.organization, &instance.request.space);
        let context = Some(&instance.context);
        self.keys.owner(organization, space, context).ok()
    }

    /// The instances whose requests name another owner than they have; `change`: they get it.
    pub async fn owners(self: &Arc<Self>, change: bool) -> Result<Vec<OwnerFinding>, BrokerError> {
        let (mut found, mut after) = (Vec::new(), String::new());
        loop {
            let (owners, last) = (self.clone(), after.clone());
            let look = move |conn: &mut Conn<'_>| owners.owners_after(conn, &last, change);
            let page = if change {
                self.store.decide(look).await
            } else {
                self.store.scan(move |conn| Ok(look(conn))).await?
            };
            let Some((last, findings)) = page? else {
                return Ok(found);
            };
            found.extend(findings);
            after = last;
        }
    }

    /// One page of [`Self::owners`], and the id of its last instance.
    fn owners_after(
        &self,
        conn: &mut Conn<'_>,
        after: &str,
        change: bool,
    ) -> Result<Option<(String, Vec<OwnerFinding>)>, BrokerError> {
        let page = store::instance::after(conn, after, OWNERS_PAGE)?;
        let Some(last) = page.last().map(|instance| instance.id.to_string()) else {
            return Ok(None);
        };
        let mut findings = Vec::new();
        for instance in page {
            let named = self.named_owner(&instance);
            if named.as_ref() == Some(&instance.tenant) {
                continue;
            }
            let new_owner = named.as_ref().filter(|_| change);
            if let Some(owner) = new_owner {
                store::instance::set_tenant(conn, &instance.id, owner)?;
                let (id, now) = (&instance.id, self.clock.now());
                store::audit::done(conn, AtOnce::Owner, Origin::Operator, Some(id), now)?;
            }
            findings.push(OwnerFinding {
                changed: new_owner.is_some(),
                instance: instance.id,
                owner: instance.tenant,
                named,
            });
        }
        Ok(Some((last, findings)))
    }
}
