//! Who owns an instance, and who may restore from whom.
//!
//! Invariant: an owner is what the *platform* says of the request, by ids that the platform gives to
//! no two tenants. Where it gives none, nobody restores: an owner that everybody has owns nothing.
//! What is known of Cloud Foundry and Kubernetes is known of no other platform: a name that stands
//! where they have an organization may stand there for everybody.

use std::{collections::BTreeMap, str::FromStr};

use serde::{Deserialize, Serialize};
use serde_json::Value;
use uuid::Uuid;

use super::{ids::DeploymentId, limits::PLATFORM_NAME_BYTES_MAX};

/// The platform of a request without a context, and the one whose ids all requests have.
const CLOUD_FOUNDRY: &str = "cloudfoundry";
const KUBERNETES: &str = "kubernetes";

/// The ids in contexts by which platforms without organizations and spaces tell tenants apart:
/// Service Manager's, SAP BTP's, IBM Cloud's.
const ACCOUNT_KEYS: [&str; 5] = [
    "tenant",
    "tenant_id",
    "account_id",
    "subaccount_id",
    "zone_id",
];

/// What stands where a platform has no organization or space, in small letters.
const PLACEHOLDERS: [&str; 9] = [
    "none",
    "null",
    "nil",
    "n/a",
    "undefined",
    "unknown",
    "unused",
    "not-used",
    "placeholder",
];

/// The owner of an instance, as the platform names it.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Tenant {
    /// Kind of platform (`cloudfoundry`, `kubernetes`, ...).
    pub platform: String,
    /// CF organization, or the Kubernetes cluster.
    pub organization: String,
    /// CF space, or the Kubernetes namespace.
    pub space: String,
    /// Further ids of the context that tell tenants apart, by their names there.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub account: BTreeMap<String, String>,
}

/// A deployment, and whose it is.
#[derive(Debug, Clone, Copy)]
pub struct Resident<'a> {
    /// The deployment.
    pub deployment: &'a DeploymentId,
    /// The owner of the instance that it is for.
    pub tenant: &'a Tenant,
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
        self.is_told_apart(scope)
            && self.platform == owner.platform
            && self.account == owner.account
            && self.organization == owner.organization
            && (scope == RestoreScope::Organization || self.space == owner.space)
    }

    /// Whether something tells this tenant from all others of its platform, within a scope.
    pub fn is_told_apart(&self, scope: RestoreScope) -> bool {
        let tells = |place: &str| !is_placeholder(place) && (self.is_known() || is_made(place));
        !self.account.is_empty()
            || tells(&self.organization)
            || scope == RestoreScope::Space && tells(&self.space)
    }

    /// A deployment of one of its instances.
    pub fn owning<'a>(&'a self, deployment: &'a DeploymentId) -> Resident<'a> {
        Resident {
            deployment,
            tenant: self,
        }
    }

    /// Whether its platform is one whose organizations and spaces are known to be tenants.
    fn is_known(&self) -> bool {
        [CLOUD_FOUNDRY, KUBERNETES].contains(&self.platform.as_str())
    }

    /// Whether it is known by a place that its platform gives to one tenant alone.
    fn has_places(&self) -> bool {
        self.is_known() && !is_placeholder(&self.organization) && !is_placeholder(&self.space)
    }
}

impl Tenant {
    /// What its platform says of it, without placeholders: for people.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        let ids = self.account.values().map(String::as_str);
        let places = [self.organization.as_str(), self.space.as_str()];
        ids.chain(places).filter(|name| !is_placeholder(name))
    }
}

/// Whether a text stands where a platform has no such id: it says nothing (`-`), is all zeros, or
/// is a word for that.
fn is_placeholder(id: &str) -> bool {
    let says_something = |c: char| c.is_alphanumeric() && c != '0';
    !id.chars().any(says_something) || PLACEHOLDERS.contains(&id.to_lowercase().as_str())
}

/// Whether an id was made for one thing alone, as no word is that a platform fills in for everybody.
fn is_made(id: &str) -> bool {
    Uuid::try_parse(id).is_ok_and(|id| !id.is_nil() && !id.is_max())
}

/// Why a request has no owner.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum OwnerError {
    /// The operator says that the platform tells tenants by an id that is not there.
    #[error(
        "the context has no {key:?}, by which this broker tells the tenants of the platform \
         {platform:?} apart"
    )]
    Missing {
        /// The platform.
        platform: String,
        /// The name of the id in the context.
        key: String,
    },
    /// An id is too long to be kept.
    #[error("{key:?} in the context is longer than {PLATFORM_NAME_BYTES_MAX} bytes")]
    TooLong {
        /// The name of the id in the context.
        key: String,
    },
}

/// The ids of contexts that tell tenants apart, by platform, where an operator names them.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct TenantKeys(BTreeMap<String, Vec<String>>);

/// A text that names no such ids.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is not of the form platform:key+key")]
pub struct TenantKeysError(String);

impl FromStr for TenantKeys {
    type Err = TenantKeysError;

    /// Reads `platform:key+key,platform:key`.
    fn from_str(text: &str) -> Result<Self, TenantKeysError> {
        let mut all = BTreeMap::new();
        let entries = text.split(',').map(str::trim);
        for entry in entries.filter(|entry| !entry.is_empty()) {
            let wrong = || TenantKeysError(entry.to_owned());
            let (platform, keys) = entry.split_once(':').ok_or_else(wrong)?;
            let platform = platform.trim();
            let keys: Vec<String> = keys.split('+').map(|key| key.trim().to_owned()).collect();
            let is_known = all.contains_key(platform);
            if platform.is_empty() || is_known || keys.iter().any(String::is_empty) {
                return Err(wrong());
            }
            all.insert(platform.to_owned(), keys);
        }
        Ok(Self(all))
    }
}

impl TenantKeys {
    /// The owner of an instance that is asked for with OSB's `organization_guid`, `space_guid` and
    /// `context`.
    ///
    /// Cloud Foundry's organizations and spaces, and Kubernetes' clusters and namespaces, have ids
    /// of their own. Of other platforms, and where these are placeholders, the ids of the context
    /// count as well. Where the operator names a platform's ids, all of them must be there;
    /// `organization_guid` and `space_guid` are also looked for beside the context.
    pub fn owner(
        &self,
        organization: &str,
        space: &str,
        context: Option<&Value>,
    ) -> Result<Tenant, OwnerError> {
        let id = |key: &str| match context?.get(key)? {
            Value::String(text) if !text.is_empty() => Some(text.clone()),
            Value::Number(number) => Some(number.to_string()),
            _ => None,
        };
        let platform = id("platform").unwrap_or_else(|| CLOUD_FOUNDRY.to_owned());
        let (cluster, namespace) = if platform == KUBERNETES {
            (id("clusterid"), id("namespace"))
        } else {
            (None, None)
        };
        let mut owner = Tenant {
            organization: cluster.unwrap_or_else(|| organization.to_owned()),
            space: namespace.unwrap_or_else(|| space.to_owned()),
            account: BTreeMap::new(),
            platform,
        };
        let own = |key: &str| match key {
            "organization_guid" => (!is_placeholder(organization)).then(|| organization.to_owned()),
            "space_guid" => (!is_placeholder(space)).then(|| space.to_owned()),
            _ => None,
        };
        if let Some(keys) = self.0.get(&owner.platform) {
            for key in keys {
                let id = id(key)
                    .or_else(|| own(key))
                    .ok_or_else(|| OwnerError::Missing {
                        platform: owner.platform.clone(),
                        key: key.clone(),
                    })?;
                owner.account.insert(key.clone(), id);
            }
        } else if !owner.has_places() {
            let ids = ACCOUNT_KEYS.iter().filter_map(|key| Some((key, id(key)?)));
            owner.account = ids.map(|(key, id)| ((*key).to_owned(), id)).collect();
        }
        let too_long = |(_, id): &(&String, &String)| id.len() > PLATFORM_NAME_BYTES_MAX;
        match owner.account.iter().find(too_long) {
            Some((key, _)) => Err(OwnerError::TooLong { key: key.clone() }),
            None => Ok(owner),
        }
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;

    /// A space of Cloud Foundry.
    pub(crate) fn tenant(organization: &str, space: &str) -> Tenant {
        owner(organization, space, &json!(null))
    }

    fn owner(organization: &str, space: &str, context: &Value) -> Tenant {
        let owner = TenantKeys::default().owner(organization, space, Some(context));
        owner.expect("an owner")
    }

    #[test]
    fn a_restore_reaches_no_further_than_its_scope() {
        let cases = [
            (("o", "s"), ("o", "s"), true, true),
            (("o", "s"), ("o", "t"), false, true),
            (("o", "s"), ("p", "s"), false, false),
            (("-", "-"), ("-", "-"), false, false),
            (("-", "s"), ("-", "s"), true, false),
            (("o", "-"), ("o", "-"), true, true),
        ];
        for ((o, s), (p, t), same_space, same_organization) in cases {
            let (target, owner) = (tenant(o, s), tenant(p, t));
            assert_eq!(
                target.may_restore_from(&owner, RestoreScope::Space),
                same_space,
                "{target:?}"
            );
            assert_eq!(
                target.may_restore_from(&owner, RestoreScope::Organization),
                same_organization,
                "{target:?}"
            );
        }
        let elsewhere = owner("o", "s", &json!({ "platform": "kubernetes" }));
        assert!(!elsewhere.may_restore_from(&tenant("o", "s"), RestoreScope::Organization));
    }

    #[test]
    fn platforms_without_organizations_have_tenants_of_their_own() {
        let of = |name: &str| {
            let context = json!({ "platform": "service-manager", "tenant": name });
            owner("-", "-", &context)
        };
        for scope in [RestoreScope::Space, RestoreScope::Organization] {
            assert!(of("a").may_restore_from(&of("a"), scope));
            assert!(!of("a").may_restore_from(&of("b"), scope));
        }
        let context = json!({ "platform": "ibmcloud", "account_id": 7, "zone_id": "" });
        let account = owner("o", "s", &context).account;
        assert_eq!(account, BTreeMap::from([("account_id".into(), "7".into())]));
    }

    #[test]
    fn a_name_that_an_unknown_platform_may_give_to_everybody_tells_nobody_apart() {
        let made = "87d7aa07-2ecc-4b1b-b5f2-7cdee74a2f6d";
        let same = |organization: &str, space: &str| {
            let context = json!({ "platform": "paas", "customer": "a" });
            let owner = owner(organization, space, &context);
            [RestoreScope::Space, RestoreScope::Organization]
                .map(|scope| owner.may_restore_from(&owner, scope))
        };
        assert_eq!(same("default", "default"), [false, false]);
        assert_eq!(same("default", made), [true, false]);
        assert_eq!(same(made, "default"), [true, true]);
        let keys: TenantKeys = "paas:organization_guid".parse().expect("keys");
        let context = json!({ "platform": "paas" });
        let of = |organization| keys.owner(organization, "s", Some(&context));
        let acme = of("acme").expect("an owner");
        assert!(acme.may_restore_from(&acme, RestoreScope::Space));
        assert!(matches!(of("-"), Err(OwnerError::Missing { .. })));
    }

    #[test]
    fn what_cloud_foundry_and_kubernetes_say_beside_their_places_does_not_count() {
        let context = json!({ "platform": "cloudfoundry", "subaccount_id": "a" });
        assert_eq!(owner("o", "s", &context), tenant("o", "s"));
        assert!(!owner("-", "-", &context).account.is_empty());
        let context = json!({
            "platform": "kubernetes", "clusterid": "c", "namespace": "n", "tenant": "t",
        });
        let owner = owner("-", "-", &context);
        let places = (owner.organization.as_str(), owner.space.as_str());
        assert_eq!((places, owner.account.len()), (("c", "n"), 0));
    }

    #[test]
    fn ids_that_the_operator_names_must_be_there() {
        let keys: TenantKeys = "cloudfoundry:a + b, x:c".parse().expect("keys");
        let there = json!({ "a": "1", "b": "2" });
        let owner = keys.owner("o", "s", Some(&there)).expect("an owner");
        assert_eq!(owner.account.len(), 2);
        for context in [None, Some(json!({ "a": "1" })), Some(json!({ "b": [] }))] {
            let refused = keys.owner("o", "s", context.as_ref());
            assert!(matches!(refused, Err(OwnerError::Missing { .. })));
        }
        let long = json!({ "platform": "x", "c": "c".repeat(PLATFORM_NAME_BYTES_MAX + 1) });
        let refused = keys.owner("o", "s", Some(&long));
        assert_eq!(refused, Err(OwnerError::TooLong { key: "c".into() }));
        for wrong in ["x", "x:", ":a", "x:a+", "x:a,x:b"] {
            assert!(wrong.parse::<TenantKeys>().is_err(), "{wrong}");
        }
    }

    #[test]
    fn placeholders_are_known() {
        for id in [
            "-",
            "",
            "  ",
            "none",
            "NULL",
            "N/A",
            "00000000-0000-0000-0000-000000000000",
        ] {
            assert!(is_placeholder(id), "{id}");
        }
        for id in ["o", "default", "0e", "-1", "é", "87d7aa07-2ecc-4b1b-b5f2"] {
            assert!(!is_placeholder(id), "{id}");
        }
    }

    proptest! {
        #[test]
        fn who_differs_in_an_id_restores_nothing(
            ids in prop::array::uniform3("[a-b-]{1,2}"),
            others in prop::array::uniform3("[a-b-]{1,2}"),
            platform in prop::sample::select(vec!["cloudfoundry", "kubernetes", "other"]),
        ) {
            let of = |[organization, space, account]: &[String; 3]| {
                owner(organization, space, &json!({ "platform": platform, "tenant": account }))
            };
            let (target, source) = (of(&ids), of(&others));
            if target.may_restore_from(&source, RestoreScope::Space) {
                prop_assert_eq!(&target, &source);
                let told = [&target.organization, &target.space];
                prop_assert!(
                    !target.account.is_empty() || told.into_iter().any(|id| !is_placeholder(id))
                );
            }
        }
    }
}
