//! What is asked of a cluster before it is used: its version, what the broker may do there, and what the
//! settings name.

use k8s_openapi::api::{
    authorization::v1::{ResourceAttributes, SelfSubjectAccessReview, SelfSubjectAccessReviewSpec},
    storage::v1::StorageClass,
};

use super::{client::Client, settings::Settings, tenants};
use crate::provisioner::ProvisionerError;

/// The first version whose containers beside a server begin before it and end after it, and whose commands
/// are told where their input ends.
const MINOR_MIN: u32 = 31;

/// A group of the API, a resource (a part of one behind a slash), and what is done with it.
pub type Right = (&'static str, &'static str, &'static [&'static str]);

/// What objects are made, changed, listed and removed with.
const ALL: &[&str] = &["get", "list", "create", "patch", "delete"];
/// The same with what is watched beside it.
const WATCHED: &[&str] = &["get", "list", "watch", "create", "patch", "delete"];

/// What the broker does, and so must be allowed to do. The role that is shipped has just these.
pub const RIGHTS: [Right; 12] = [
    ("apps", "statefulsets", WATCHED),
    ("", "persistentvolumeclaims", ALL),
    ("", "secrets", ALL),
    ("", "services", WATCHED),
    ("policy", "poddisruptionbudgets", ALL),
    ("networking.k8s.io", "networkpolicies", ALL),
    ("", "pods", WATCHED),
    ("", "pods/log", &["get"]),
    // A client of web sockets begins with GET.
    ("", "pods/exec", &["get", "create"]),
    ("", "resourcequotas", &["list"]),
    ("", "events", &["list"]),
    ("coordination.k8s.io", "leases", &["get", "create", "patch"]),
];

/// What it does beside that where tenants have namespaces, in its own one: it writes down which deployments are in
/// which.
pub const RESIDENCES_RIGHTS: [Right; 1] = [("", "configmaps", &["list", "create", "delete"])];

/// And in all namespaces: it makes and removes those of tenants, gives itself a role there, and hears of members
/// wherever they are.
pub const TENANTS_RIGHTS: [Right; 5] = [
    ("", "namespaces", &["get", "create", "patch", "delete"]),
    (
        "rbac.authorization.k8s.io",
        "rolebindings",
        &["get", "create", "patch"],
    ),
    ("apps", "statefulsets", &["list", "watch"]),
    ("", "pods", &["list", "watch"]),
    ("", "services", &["list", "watch"]),
];

/// What that role has: what it does in a tenant's namespace, whose bounds are its own to set.
pub const DATABASES_RIGHTS: [Right; 11] = [
    ("apps", "statefulsets", ALL),
    ("", "persistentvolumeclaims", ALL),
    ("", "secrets", ALL),
    ("", "services", ALL),
    ("policy", "poddisruptionbudgets", ALL),
    ("networking.k8s.io", "networkpolicies", ALL),
    ("", "pods", ALL),
    ("", "pods/log", &["get"]),
    ("", "pods/exec", &["get", "create"]),
    ("", "resourcequotas", ALL),
    ("", "events", &["list"]),
];

/// Fails where a cluster is not fit for members, with what its operator has to do.
pub(super) async fn check(client: &Client, settings: &Settings) -> Result<(), ProvisionerError> {
    let (major, minor) = client.version().await?;
    if !is_new_enough(&major, &minor) {
        return Err(unfit(format!(
            "it has Kubernetes {major}.{minor}, and 1.{MINOR_MIN} is the oldest that will do"
        )));
    }
    let mut lacking = lacking(client, &RIGHTS).await?;
    let has_tenants = settings.tenants.is_some();
    if has_tenants {
        lacking.extend(self::lacking(client, &RESIDENCES_RIGHTS).await?);
    }
    if !lacking.is_empty() {
        return Err(unfit(format!(
            "the broker may not do what it has to in the namespace {}: {}; give it the role that is \
             shipped with it, or make the namespace",
            settings.namespace,
            lacking.join(", ")
        )));
    }
    if has_tenants {
        check_tenants(client).await?;
    }
    check_storage_class(client, settings).await
}

/// What the broker may do of the namespaces of tenants is said for all namespaces.
async fn check_tenants(client: &Client) -> Result<(), ProvisionerError> {
    let everywhere = client.within("");
    let mut lacking = lacking(&everywhere, &TENANTS_RIGHTS).await?;
    let bind = Asked {
        name: tenants::ROLE,
        ..Asked::of("rbac.authorization.k8s.io", "clusterroles", "bind")
    };
    if !is_allowed(&everywhere, bind).await? {
        lacking.push(format!("bind clusterroles/{}", tenants::ROLE));
    }
    match lacking.is_empty() {
        true => Ok(()),
        false => Err(unfit(format!(
            "the broker may not do what it has to in the namespaces of tenants: {}; give it the cluster \
             roles that are shipped with it",
            lacking.join(", ")
        ))),
    }
}

/// Those of some rights that the broker has not where a client's calls lead.
async fn lacking(client: &Client, rights: &[Right]) -> Result<Vec<String>, ProvisionerError> {
    let mut lacking = Vec::new();
    for (group, resource, verbs) in rights {
        for verb in *verbs {
            if !is_allowed(client, Asked::of(group, resource, verb)).await? {
                lacking.push(format!("{verb} {resource}"));
            }
        }
    }
    Ok(lacking)
}

/// One right.
struct Asked<'a> {
    group: &'a str,
    resource: &'a str,
    /// Empty where it is for objects of any name.
    name: &'a str,
    verb: &'a str,
}

impl<'a> Asked<'a> {
    fn of(group: &'a str, resource: &'a str, verb: &'a str) -> Self {
        Self {
            group,
            resource,
            name: "",
            verb,
        }
    }
}

fn unfit(why: String) -> ProvisionerError {
    ProvisionerError::Unfit { why }
}

/// Some servers say more than a number, as in `31+`.
fn is_new_enough(major: &str, minor: &str) -> bool {
    let digits = minor.trim_end_matches(|c: char| !c.is_ascii_digit());
    let minor: u32 = digits.parse().unwrap_or_default();
    major
        .parse::<u32>()
        .is_ok_and(|major| major > 1 || (major == 1 && minor >= MINOR_MIN))
}

async fn is_allowed(client: &Client, right: Asked<'_>) -> Result<bool, ProvisionerError> {
    let (resource, part) = right
        .resource
        .split_once('/')
        .unwrap_or((right.resource, ""));
    let text = |text: &str| (!text.is_empty()).then(|| text.to_owned());
    let asked = SelfSubjectAccessReview {
        spec: SelfSubjectAccessReviewSpec {
            resource_attributes: Some(ResourceAttributes {
                namespace: text(client.namespace()),
                group: text(right.group),
                resource: text(resource),
                subresource: text(part),
                name: text(right.name),
                verb: text(right.verb),
                ..ResourceAttributes::default()
            }),
            ..SelfSubjectAccessReviewSpec::default()
        },
        ..SelfSubjectAccessReview::default()
    };
    let answer = client.review(&asked).await?;
    Ok(answer.status.is_some_and(|status| status.allowed))
}

/// Who may not look at classes is told of a wrong one when the first volume is not made.
async fn check_storage_class(client: &Client, settings: &Settings) -> Result<(), ProvisionerError> {
    let Some(name) = &settings.storage_class else {
        return Ok(());
    };
    match client.find_in_cluster::<StorageClass>(name).await {
        Ok(Some(_)) => Ok(()),
        Ok(None) => Err(unfit(format!("it has no storage class {name:?}"))),
        Err(error) if error.is(403) => Ok(()),
        Err(error) => Err(error.into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What an administrator applies.
    const ROLE: &str = include_str!("../../../deploy/kubernetes/databases/role.yaml");
    /// And where tenants have namespaces.
    const RESIDENCES: &str = include_str!("../../../deploy/kubernetes/tenants/role.yaml");
    const TENANTS: &str = include_str!("../../../deploy/kubernetes/tenants/tenants.yaml");
    const DATABASES: &str = include_str!("../../../deploy/kubernetes/tenants/databases.yaml");

    /// Compares the rules of a shipped role with rights, and with a rule beside these.
    fn is_shipped(role: &str, rights: &[Right], beside: &[&str]) {
        let rule = |(group, resource, verbs): &Right| {
            let group = if group.is_empty() { "\"\"" } else { group };
            let verbs = verbs.join(", ");
            format!("- {{ apiGroups: [{group}], resources: [{resource}], verbs: [{verbs}] }}")
        };
        let mut needed: Vec<String> = rights.iter().map(rule).collect();
        needed.extend(beside.iter().map(|&rule| rule.to_owned()));
        let rules = role.lines().filter(|line| line.contains("apiGroups"));
        let mut shipped: Vec<&str> = rules.collect();
        needed.sort_unstable();
        shipped.sort_unstable();
        assert_eq!(shipped, needed);
    }

    #[test]
    fn the_roles_that_are_shipped_have_what_is_needed_and_nothing_else() {
        is_shipped(ROLE, &RIGHTS, &[]);
        is_shipped(RESIDENCES, &RESIDENCES_RIGHTS, &[]);
        let bind =
            "- { apiGroups: [rbac.authorization.k8s.io], resources: [clusterroles], verbs: [bind],";
        is_shipped(TENANTS, &TENANTS_RIGHTS, &[bind]);
        is_shipped(DATABASES, &DATABASES_RIGHTS, &[]);
        let of_that_name = format!("{bind}\n    resourceNames: [{}] }}\n", tenants::ROLE);
        assert!(TENANTS.contains(&of_that_name));
        assert!(DATABASES.contains(&format!("name: {}\n", tenants::ROLE)));
    }

    #[test]
    fn what_is_done_with_a_database_is_the_same_in_either_namespace() {
        for (group, resource, verbs) in RIGHTS {
            let mut same = DATABASES_RIGHTS.iter();
            let same = same.find(|(of, what, _)| *of == group && *what == resource);
            let mut verbs = verbs.iter().filter(|verb| **verb != "watch");
            match same {
                Some((_, _, there)) => {
                    assert!(verbs.all(|verb| there.contains(verb)), "{resource}")
                }
                None => assert_eq!(resource, "leases"),
            }
        }
    }

    #[test]
    fn versions_are_compared_as_servers_write_them() {
        for (major, minor, expected) in [
            ("1", "34", true),
            ("1", "31", true),
            ("1", "31+", true),
            ("2", "0", true),
            ("1", "30", false),
            ("1", "9", false),
            ("", "", false),
            ("v1", "34", false),
        ] {
            assert_eq!(is_new_enough(major, minor), expected, "{major}.{minor}");
        }
    }
}
