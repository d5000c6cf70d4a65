//! How the broker's objects are called, and told from those of others.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use ring::digest;
use serde_json::{Value, json};

use super::settings::Settings;
use crate::model::ids::DeploymentId;

const MANAGED_BY: &str = "app.kubernetes.io/managed-by";
const COMPONENT: &str = "app.kubernetes.io/component";
const CLUSTER: &str = "compose-broker/cluster";
/// The label with the id of a deployment.
pub(super) const DEPLOYMENT: &str = "compose-broker/deployment";
/// The label with the name of a member.
pub(super) const MEMBER: &str = "compose-broker/member";
/// The label with the name of the namespace that a deployment is in.
pub(super) const NAMESPACE: &str = "compose-broker/namespace";
const BROKER: &str = "compose-broker";

/// What an object is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Part {
    /// A member runs in it, or by it.
    Member,
    /// Work is done with it on a member's volume.
    Bench,
    /// A task runs in it.
    Task,
    /// It holds a file for tasks.
    Stage,
    /// It is the whole deployment's.
    Deployment,
    /// It is a tenant's, whatever deployments are there.
    Tenant,
}

impl Part {
    fn as_str(self) -> &'static str {
        match self {
            Self::Member => "member",
            Self::Bench => "bench",
            Self::Task => "task",
            Self::Stage => "stage",
            Self::Deployment => "deployment",
            Self::Tenant => "tenant",
        }
    }
}

/// What an object is, and whose.
#[derive(Debug, Clone, Copy)]
pub(super) struct Owned<'a> {
    pub(super) deployment: &'a DeploymentId,
    pub(super) member: Option<&'a str>,
    pub(super) part: Part,
}

impl<'a> Owned<'a> {
    /// Of a member.
    pub(super) fn of(deployment: &'a DeploymentId, member: &'a str, part: Part) -> Self {
        Self {
            deployment,
            member: Some(member),
            part,
        }
    }

    /// The labels of an object.
    pub(super) fn labels(&self, settings: &Settings) -> Value {
        let mut labels = json!({
            MANAGED_BY: BROKER,
            COMPONENT: self.part.as_str(),
            CLUSTER: settings.cluster,
            DEPLOYMENT: self.deployment.as_str(),
        });
        if let Some(member) = self.member {
            labels[MEMBER] = member.into();
        }
        labels
    }

    /// The same as a selector of objects.
    pub(super) fn selector(&self, settings: &Settings) -> String {
        let of = match self.member {
            Some(member) => of_member(settings, self.deployment, member),
            None => of_deployment(settings, self.deployment),
        };
        format!("{of},{COMPONENT}={}", self.part.as_str())
    }
}

/// The labels of an object that is a tenant's.
pub(super) fn of_tenant(settings: &Settings) -> Value {
    json!({
        MANAGED_BY: BROKER,
        COMPONENT: Part::Tenant.as_str(),
        CLUSTER: settings.cluster,
    })
}

/// Selects the objects of a cluster.
pub(super) fn of_cluster(settings: &Settings) -> String {
    format!("{MANAGED_BY}={BROKER},{CLUSTER}={}", settings.cluster)
}

/// Selects what members of a cluster run in, or by.
pub(super) fn members_of_cluster(settings: &Settings) -> String {
    let member = Part::Member.as_str();
    format!("{},{COMPONENT}={member}", of_cluster(settings))
}

/// Selects the objects of a deployment.
pub(super) fn of_deployment(settings: &Settings, deployment: &DeploymentId) -> String {
    format!("{},{DEPLOYMENT}={deployment}", of_cluster(settings))
}

/// Selects what says that deployments are in a namespace.
pub(super) fn in_namespace(settings: &Settings, namespace: &str) -> String {
    format!("{},{NAMESPACE}={namespace}", of_cluster(settings))
}

/// Selects the objects of a member.
pub(super) fn of_member(settings: &Settings, deployment: &DeploymentId, member: &str) -> String {
    format!("{},{MEMBER}={member}", of_deployment(settings, deployment))
}

/// Whether an object is one that the broker has made for this deployment of the cluster; without an id, for none.
pub(super) fn are_ours(of: &ObjectMeta, settings: &Settings, deployment: &str) -> bool {
    let is = |name: &str, value: &str| label(of, name) == value;
    is(MANAGED_BY, BROKER) && is(CLUSTER, &settings.cluster) && is(DEPLOYMENT, deployment)
}

/// A label of an object; empty where it has none of that name.
pub(super) fn label<'o>(of: &'o ObjectMeta, name: &str) -> &'o str {
    let labels = of.labels.as_ref();
    labels
        .and_then(|all| all.get(name))
        .map_or("", String::as_str)
}

/// The name of what is the whole deployment's.
pub(super) fn deployment_name(deployment: &DeploymentId) -> String {
    format!("db-{deployment}")
}

/// The name of what is a member's: a part of the name of its pod, and the name of its service.
pub(super) fn member_name(deployment: &DeploymentId, member: &str) -> String {
    format!("db-{deployment}-{member}")
}

/// The name of a member's pod, which its set gives it.
pub(super) fn pod_name(deployment: &DeploymentId, member: &str) -> String {
    format!("{}-0", member_name(deployment, member))
}

/// The name of the pod for work on a member's volume.
pub(super) fn bench_name(deployment: &DeploymentId, member: &str) -> String {
    format!("{}-bench", member_name(deployment, member))
}

/// The name of the pod of a member's task.
pub(super) fn task_name(deployment: &DeploymentId, member: &str) -> String {
    format!("{}-task", member_name(deployment, member))
}

/// The name of the pod that holds a staged file. A file may be called what no object may.
pub(super) fn stage_name(deployment: &DeploymentId, file: &str) -> String {
    let hash = &sha256(file)[..12];
    format!("{}-stage-{hash}", deployment_name(deployment))
}

/// The SHA-256 of a text, in hexadecimal digits.
pub(super) fn sha256(text: &str) -> String {
    let digest = digest::digest(&digest::SHA256, text.as_bytes());
    let bytes = digest.as_ref().iter();
    bytes.map(|byte| format!("{byte:02x}")).collect()
}
