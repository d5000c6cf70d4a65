//! Who owns an instance, and who may restore from whom.

use serde::{Deserialize, Serialize};

/// The owner of an instance, as the platform names it.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Tenant {
    /// Kind of platform (`cloudfoundry`, `kubernetes`, ...).
    pub platform: String,
    /// CF organization, or the Kubernetes cluster.
    pub organization: String,
    /// CF space, or the Kubernetes namespace.
    pub space: String,
}

/// How far a restore may reach for its source.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum RestoreScope {
    /// The source lives in the same space.
    #[default]
    Space,
    /// The source lives in the same organization.
    Organization,
}

impl Tenant {
    /// Whether this tenant may restore from a backup of `owner`.
    pub fn may_restore_from(&self, owner: &Tenant, scope: RestoreScope) -> bool {
        self.platform == owner.platform
            && self.organization == owner.organization
            && (scope == RestoreScope::Organization || self.space == owner.space)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_restore_reaches_no_further_than_its_scope() {
        let tenant = |o: &str, s: &str| Tenant {
            platform: "cloudfoundry".into(),
            organization: o.into(),
            space: s.into(),
        };
        let cases = [
            (("o", "s"), ("o", "s"), true, true),
            (("o", "s"), ("o", "t"), false, true),
            (("o", "s"), ("p", "s"), false, false),
        ];
        for ((o, s), (p, t), same_space, same_organization) in cases {
            let (target, owner) = (tenant(o, s), tenant(p, t));
            assert_eq!(
                target.may_restore_from(&owner, RestoreScope::Space),
                same_space
            );
            assert_eq!(
                target.may_restore_from(&owner, RestoreScope::Organization),
                same_organization
            );
        }
        let elsewhere = Tenant {
            platform: "kubernetes".into(),
            ..tenant("o", "s")
        };
        assert!(!elsewhere.may_restore_from(&tenant("o", "s"), RestoreScope::Organization));
    }
}
