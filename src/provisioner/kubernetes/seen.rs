//! What the API server says of sets and pods, in our words. Pure.

use k8s_openapi::api::{
    apps::v1::StatefulSet,
    core::v1::{ContainerStatus, Pod},
};

use super::{
    objects::{KEEPER, RUNS, SERVER},
    pods::PREPARE,
    scripts::NOTHING_THERE,
};
use crate::provisioner::ProvisionerError;

/// Reasons for which a container waits that do not pass by themselves soon.
const STUCK: [&str; 6] = [
    "CreateContainerConfigError",
    "ErrImageNeverPull",
    "ErrImagePull",
    "ImageInspectError",
    "ImagePullBackOff",
    "InvalidImageName",
];

/// Whether the member of a set is to run.
pub(super) fn is_wanted(set: &StatefulSet) -> bool {
    set.spec.as_ref().and_then(|spec| spec.replicas) != Some(0)
}

/// How a container ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Exit {
    pub(super) code: i32,
    /// What it left to be told.
    pub(super) message: String,
    /// Why, in a word of the cluster.
    pub(super) reason: String,
}

fn status<'p>(pod: &'p Pod, container: &str) -> Option<&'p ContainerStatus> {
    let status = pod.status.as_ref()?;
    let all = [&status.init_container_statuses, &status.container_statuses];
    let mut all = all.into_iter().flatten().flatten();
    all.find(|status| status.name == container)
}

/// Whether a container runs now.
pub(super) fn runs(pod: &Pod, container: &str) -> bool {
    let status = status(pod, container);
    let state = status.and_then(|status| status.state.as_ref());
    state.is_some_and(|state| state.running.is_some())
}

/// How a container ended that does not run; none where it has not, or was begun anew since.
pub(super) fn exit(pod: &Pod, container: &str) -> Option<Exit> {
    let status = status(pod, container)?;
    let (now, last) = (status.state.as_ref(), status.last_state.as_ref());
    if now.is_some_and(|state| state.running.is_some()) {
        return None;
    }
    let ended = [now, last].into_iter().flatten();
    let ended = ended.filter_map(|state| state.terminated.as_ref()).next()?;
    Some(Exit {
        code: ended.exit_code,
        message: ended.message.clone().unwrap_or_default(),
        reason: ended.reason.clone().unwrap_or_default(),
    })
}

/// Whether a member's pod found nothing of the data that it must have.
pub(super) fn lacks_data(pod: &Pod) -> bool {
    let lacks = |container| exit(pod, container).is_some_and(|exit| exit.code == NOTHING_THERE);
    lacks(PREPARE) || lacks(SERVER)
}

/// Whether a member's server was begun, whatever became of it.
pub(super) fn has_begun(pod: &Pod) -> bool {
    runs(pod, SERVER) || exit(pod, SERVER).is_some()
}

/// How often the cluster began the server of a member's pod anew.
pub(super) fn restarts(pod: &Pod) -> u32 {
    let count = status(pod, SERVER).map_or(0, |status| status.restart_count);
    u32::try_from(count).unwrap_or_default()
}

/// Whether commands can be run beside a member's server.
pub(super) fn keeps(pod: &Pod) -> bool {
    !is_ending(pod) && runs(pod, KEEPER)
}

/// Whether it was told to end.
pub(super) fn is_ending(pod: &Pod) -> bool {
    pod.metadata.deletion_timestamp.is_some()
}

/// What a member's pod runs, as a hash.
pub(super) fn runs_what(pod: &Pod) -> &str {
    let annotations = pod.metadata.annotations.as_ref();
    annotations
        .and_then(|all| all.get(RUNS))
        .map_or("", String::as_str)
}

/// The node that it is on.
pub(super) fn node(pod: &Pod) -> Option<&str> {
    pod.spec.as_ref()?.node_name.as_deref()
}

pub(super) fn uid(pod: &Pod) -> &str {
    pod.metadata.uid.as_deref().unwrap_or_default()
}

/// Whether it ended as a whole, or was ended by its node, and does not begin again.
pub(super) fn is_over(pod: &Pod) -> bool {
    let phase = pod
        .status
        .as_ref()
        .and_then(|status| status.phase.as_deref());
    matches!(phase, Some("Failed" | "Succeeded"))
}

/// Why a pod has not started yet.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Wait {
    /// For users.
    pub(super) told: &'static str,
    /// What the cluster says, for its operator; empty where it says nothing more.
    pub(super) why: String,
    /// Whether it does not pass by itself soon.
    pub(super) stays: bool,
}

impl Wait {
    /// The same as an error: `what` has not started.
    pub(super) fn of(self, what: String) -> ProvisionerError {
        ProvisionerError::NotStarted {
            what,
            told: self.told,
            why: self.why,
        }
    }
}

/// What users are told of a container that waits for one of the reasons of [`STUCK`].
fn told_of_stuck(reason: &str) -> &'static str {
    match reason {
        "CreateContainerConfigError" => "its container cannot be made",
        "InvalidImageName" => "the name of its image is none",
        _ => "its image cannot be pulled",
    }
}

/// Why a pod has not started yet.
pub(super) fn waits_for(pod: &Pod) -> Wait {
    let wait = |told, why, stays| Wait { told, why, stays };
    let Some(status) = pod.status.as_ref() else {
        return wait("the cluster has not looked at it yet", String::new(), false);
    };
    if is_over(pod) {
        let words = [&status.reason, &status.message];
        let words: Vec<&str> = words.into_iter().flatten().map(String::as_str).collect();
        return wait("its node has ended it", words.join(": "), true);
    }
    let conditions = status.conditions.iter().flatten();
    let unplaced = conditions
        .clone()
        .find(|of| of.type_ == "PodScheduled" && of.status == "False");
    if let Some(unplaced) = unplaced {
        let message = unplaced.message.clone().unwrap_or_default();
        return wait("no node of the cluster takes it", message, false);
    }
    let all = [&status.init_container_statuses, &status.container_statuses];
    let all = all.into_iter().flatten().flatten();
    let all = all.filter_map(|of| of.state.as_ref()?.waiting.as_ref());
    let told = |reason: &str| reason != "PodInitializing" && reason != "ContainerCreating";
    for waiting in all {
        let reason = waiting.reason.as_deref().unwrap_or_default();
        if told(reason) {
            let message = waiting.message.clone().unwrap_or_default();
            let why = format!("{reason}: {message}");
            return match STUCK.contains(&reason) {
                true => wait(told_of_stuck(reason), why, true),
                false => wait("its node does not start it", why, false),
            };
        }
    }
    let node = node(pod).unwrap_or_default().to_owned();
    wait("its node is still getting it ready", node, false)
}
