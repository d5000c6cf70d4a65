//! What is asked of a cluster before it is used: its version, what the broker may do there, and what the
//! settings name.

use k8s_openapi::api::{
    authorization::v1::{ResourceAttributes, SelfSubjectAccessReview, SelfSubjectAccessReviewSpec},
    storage::v1::StorageClass,
};

use super::{client::Client, settings::Settings};
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

/// Fails where a cluster is not fit for members, with what its operator has to do.
pub(super) async fn check(client: &Client, settings: &Settings) -> Result<(), ProvisionerError> {
    let (major, minor) = client.version().await?;
    if !is_new_enough(&major, &minor) {
        return Err(unfit(format!(
            "it has Kubernetes {major}.{minor}, and 1.{MINOR_MIN} is the oldest that will do"
        )));
    }
    let mut lacking = Vec::new();
    for (group, resource, verbs) in RIGHTS {
        for verb in verbs {
            if !is_allowed(client, group, resource, verb).await? {
                lacking.push(format!("{verb} {resource}"));
            }
        }
    }
    if !lacking.is_empty() {
        return Err(unfit(format!(
            "the broker may not do what it has to in the namespace {}: {}; give it the role that is \
             shipped with it, or make the namespace",
            settings.namespace,
            lacking.join(", ")
        )));
    }
    check_storage_class(client, settings).await
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

async fn is_allowed(
    client: &Client,
    group: &str,
    resource: &str,
    verb: &str,
) -> Result<bool, ProvisionerError> {
    let (resource, part) = resource.split_once('/').unwrap_or((resource, ""));
    let text = |text: &str| (!text.is_empty()).then(|| text.to_owned());
    let asked = SelfSubjectAccessReview {
        spec: SelfSubjectAccessReviewSpec {
            resource_attributes: Some(ResourceAttributes {
                namespace: text(client.namespace()),
                group: text(group),
                resource: text(resource),
                subresource: text(part),
                verb: text(verb),
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

    #[test]
    fn the_role_that_is_shipped_has_what_is_needed_and_nothing_else() {
        let rule = |(group, resource, verbs): &Right| {
            let group = if group.is_empty() { "\"\"" } else { group };
            let verbs = verbs.join(", ");
            format!("- {{ apiGroups: [{group}], resources: [{resource}], verbs: [{verbs}] }}")
        };
        let mut needed: Vec<String> = RIGHTS.iter().map(rule).collect();
        let rules = ROLE.lines().filter(|line| line.contains("apiGroups"));
        let mut shipped: Vec<&str> = rules.collect();
        needed.sort_unstable();
        shipped.sort_unstable();
        assert_eq!(shipped, needed);
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
