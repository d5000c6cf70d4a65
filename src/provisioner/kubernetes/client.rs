//! Calls of the API server of a cluster.
//!
//! Each is made once and bounded in time. The library's own tries anew are off: a refusal that is to be
//! told would hang instead. What comes back is told apart by code, then by reason.

use std::{error::Error as _, fmt::Debug, future::Future, io, time::Duration};

use futures::{
    StreamExt as _,
    stream::{self, BoxStream},
};
use k8s_openapi::{
    NamespaceResourceScope,
    api::{
        authentication::v1::SelfSubjectReview,
        authorization::v1::SelfSubjectAccessReview,
        core::v1::{Namespace, Pod},
    },
    apimachinery::pkg::apis::meta::v1::ObjectMeta,
};
use kube::{
    Api, Resource,
    api::{
        DeleteParams, ListParams, LogParams, Patch, PatchParams, PostParams, Preconditions,
        PropagationPolicy, WatchEvent, WatchParams,
    },
    config::{Config, KubeConfigOptions, Kubeconfig},
    core::{ObjectList, PartialObjectMeta},
};
use serde::{Serialize, de::DeserializeOwned};
use serde_json::Value;
use tokio::time::timeout;

use crate::{
    model::limits::kubernetes::{
        API_CALL_TIMEOUT, API_CONNECT_TIMEOUT, OBJECTS_LISTED_AT_ONCE, WATCH_LIFE,
        WATCH_SILENCE_MAX,
    },
    provisioner::ProvisionerError,
};

/// Who makes our changes, by the records of the API server.
const FIELD_MANAGER: &str = "compose-broker";

/// Kinds of objects that lie in a namespace.
pub(super) trait Kept:
    Resource<DynamicType = (), Scope = NamespaceResourceScope>
    + Clone
    + Debug
    + DeserializeOwned
    + Serialize
    + Send
    + Sync
    + 'static
{
}

impl<K> Kept for K where
    K: Resource<DynamicType = (), Scope = NamespaceResourceScope>
        + Clone
        + Debug
        + DeserializeOwned
        + Serialize
        + Send
        + Sync
        + 'static
{
}

/// Why a call came to nothing.
#[derive(Debug, thiserror::Error)]
pub(super) enum CallError {
    /// No answer, or one that it is busy or broken: the same may go well in a moment.
    #[error("{doing}: the API server {meaning}")]
    Silent {
        doing: String,
        /// For people.
        meaning: String,
        #[source]
        source: Option<Box<dyn std::error::Error + Send + Sync>>,
    },
    /// It refuses.
    #[error("{doing}: the API server refuses ({code} {reason}): {message}")]
    Refused {
        doing: String,
        /// The status code of HTTP.
        code: u16,
        /// Its own word for why.
        reason: String,
        /// What it says.
        message: String,
    },
}

impl CallError {
    /// Whether it refuses with this code.
    pub(super) fn is(&self, code: u16) -> bool {
        matches!(self, Self::Refused { code: refused, .. } if *refused == code)
    }

    /// What it says, where it refuses.
    pub(super) fn message(&self) -> &str {
        match self {
            Self::Refused { message, .. } => message,
            Self::Silent { meaning, .. } => meaning,
        }
    }

    fn of(doing: &str, error: kube::Error) -> Self {
        let doing = doing.to_owned();
        if let kube::Error::Api(status) = &error
            && let (Some(code), false) = (code_of(status), is_passing(status))
        {
            return Self::Refused {
                doing,
                code,
                reason: status.reason.clone(),
                message: status.message.clone(),
            };
        }
        let meaning = match &error {
            kube::Error::Api(status) => format!("cannot answer now ({})", status.code),
            error => meaning_of(error),
        };
        Self::Silent {
            doing,
            meaning,
            // A status holds what was sent, and some of that is secret.
            source: (!matches!(error, kube::Error::SerdeError(_))).then(|| error.into()),
        }
    }
}

/// The code of an answer; none where what answered is no API server.
fn code_of(status: &kube::core::Status) -> Option<u16> {
    (400..=599).contains(&status.code).then_some(status.code)
}

/// Whether the server could not, rather than would not.
fn is_passing(status: &kube::core::Status) -> bool {
    // An eviction that a budget forbids for now has the code of too many requests, and its own cause.
    let budget = status.details.as_ref().is_some_and(|details| {
        let mut causes = details.causes.iter();
        causes.any(|cause| cause.reason == "DisruptionBudget")
    });
    (status.code == 429 && !budget) || status.code >= 500
}

/// What a failure below HTTP means, for people.
fn meaning_of(error: &kube::Error) -> String {
    let mut next = error.source();
    while let Some(error) = next {
        if let Some(error) = error.downcast_ref::<io::Error>()
            && error.kind() != io::ErrorKind::Other
        {
            return format!("cannot be reached: {}", error.kind());
        }
        next = error.source();
    }
    match error {
        kube::Error::Auth(_) => "gets no login: its credentials cannot be had".to_owned(),
        kube::Error::SerdeError(_) => "answers with something else than asked for".to_owned(),
        _ => "cannot be reached".to_owned(),
    }
}

impl From<CallError> for ProvisionerError {
    fn from(error: CallError) -> Self {
        match error {
            CallError::Silent { .. } => Self::ClusterSilent {
                source: error.into(),
            },
            CallError::Refused {
                doing,
                code,
                reason,
                message,
            } => Self::ClusterRefuses {
                doing,
                why: match reason.is_empty() {
                    true => format!("{code}: {message}"),
                    false => format!("{reason}: {message}"),
                },
            },
        }
    }
}

type Result<T> = std::result::Result<T, CallError>;

/// The API server of a cluster, and the namespace of members.
#[derive(Clone)]
pub(super) struct Client {
    api: kube::Client,
    /// Empty, as the API server has it, for all that there are.
    namespace: String,
    /// How long a call may take.
    limit: Duration,
}

impl Client {
    /// A client by a file of contexts, or, without one, by the identity that a pod is given.
    pub(super) async fn open(
        kubeconfig: Option<&std::path::Path>,
        context: Option<&str>,
        namespace: &str,
    ) -> std::result::Result<Self, String> {
        let config = match kubeconfig {
            None => Config::incluster().map_err(|error| {
                format!("there is no kubeconfig, and no identity of a pod: {error}")
            })?,
            Some(path) => {
                let told = |error| format!("{}: {error}", path.display());
                let file = Kubeconfig::read_from(path).map_err(told)?;
                let options = KubeConfigOptions {
                    context: context.map(str::to_owned),
                    ..KubeConfigOptions::default()
                };
                let config = Config::from_custom_kubeconfig(file, &options);
                config.await.map_err(told)?
            }
        };
        Self::new(config, namespace, API_CALL_TIMEOUT).map_err(|error| error.to_string())
    }

    fn new(mut config: Config, namespace: &str, limit: Duration) -> kube::Result<Self> {
        config.default_retry = false;
        config.connect_timeout = Some(API_CONNECT_TIMEOUT);
        Ok(Self {
            api: kube::Client::try_from(config)?,
            namespace: namespace.to_owned(),
            limit,
        })
    }

    /// The same API server and another namespace; without a name, all of them.
    pub(super) fn within(&self, namespace: &str) -> Self {
        Self {
            namespace: namespace.to_owned(),
            ..self.clone()
        }
    }

    /// The namespace of members.
    pub(super) fn namespace(&self) -> &str {
        &self.namespace
    }

    /// Objects of a kind, for what has no call of its own here.
    pub(super) fn objects<K: Kept>(&self) -> Api<K> {
        match self.namespace.as_str() {
            "" => Api::all(self.api.clone()),
            namespace => Api::namespaced(self.api.clone(), namespace),
        }
    }

    /// Makes a call within the time that calls have.
    pub(super) async fn call<T>(
        &self,
        doing: &str,
        call: impl Future<Output = kube::Result<T>>,
    ) -> Result<T> {
        match timeout(self.limit, call).await {
            Ok(answer) => answer.map_err(|error| CallError::of(doing, error)),
            Err(_) => Err(CallError::Silent {
                doing: doing.to_owned(),
                meaning: format!("does not answer within {} s", self.limit.as_secs()),
                source: None,
            }),
        }
    }

    /// The version that the server says it has, as `major` and `minor`.
    pub(super) async fn version(&self) -> Result<(String, String)> {
        let asked = self.api.apiserver_version();
        let version = self.call("asking for the version", asked).await?;
        Ok((version.major, version.minor))
    }

    /// Asks what this broker is allowed to do.
    pub(super) async fn review(
        &self,
        asked: &SelfSubjectAccessReview,
    ) -> Result<SelfSubjectAccessReview> {
        let reviews = Api::<SelfSubjectAccessReview>::all(self.api.clone());
        let made = PostParams::default();
        let asking = reviews.create(&made, asked);
        self.call("asking what the broker may do", asking).await
    }

    /// The name of the user that this broker is to the API server.
    pub(super) async fn user(&self) -> Result<String> {
        let reviews = Api::<SelfSubjectReview>::all(self.api.clone());
        let (made, asked) = (PostParams::default(), SelfSubjectReview::default());
        let doing = "asking who the broker is";
        let answer = self.call(doing, reviews.create(&made, &asked)).await?;
        let user = answer.status.and_then(|status| status.user_info?.username);
        user.ok_or_else(|| CallError::Silent {
            doing: doing.to_owned(),
            meaning: "names no user".to_owned(),
            source: None,
        })
    }

    /// Makes a namespace as described, whatever others have changed of what we describe.
    pub(super) async fn apply_namespace(&self, object: &Value) -> Result<()> {
        let name = name_in(object);
        let by = PatchParams::apply(FIELD_MANAGER).force();
        let namespaces = Api::<Namespace>::all(self.api.clone());
        let (patch, doing) = (Patch::Apply(object), format!("applying Namespace {name}"));
        let applied = namespaces.patch(name, &by, &patch);
        self.call(&doing, applied).await.map(drop)
    }

    /// Deletes a namespace with all that is in it; one that is gone, or is another one by now than that of this
    /// `uid`, is fine.
    pub(super) async fn delete_namespace(&self, name: &str, uid: Option<&str>) -> Result<()> {
        let how = DeleteParams {
            preconditions: uid.map(that_of),
            ..DeleteParams::default()
        };
        let namespaces = Api::<Namespace>::all(self.api.clone());
        let doing = format!("deleting Namespace {name}");
        match self.call(&doing, namespaces.delete(name, &how)).await {
            Err(error) if error.is(404) || error.is(409) => Ok(()),
            other => other.map(drop),
        }
    }

    /// An object that lies in no namespace; none where there is none of that name.
    pub(super) async fn find_in_cluster<K>(&self, name: &str) -> Result<Option<K>>
    where
        K: Resource<DynamicType = ()> + Clone + Debug + DeserializeOwned,
    {
        let doing = format!("looking at {} {name}", K::kind(&()));
        let objects = Api::<K>::all(self.api.clone());
        match self.call(&doing, objects.get(name)).await {
            Err(error) if error.is(404) => Ok(None),
            other => other.map(Some),
        }
    }

    /// An object; none where there is none of that name.
    pub(super) async fn find<K: Kept>(&self, name: &str) -> Result<Option<K>> {
        let doing = format!("looking at {} {name}", kind::<K>());
        let objects = self.objects::<K>();
        match self.call(&doing, objects.get(name)).await {
            Err(error) if error.is(404) => Ok(None),
            other => other.map(Some),
        }
    }

    /// The objects that have these labels.
    pub(super) async fn list<K: Kept>(&self, labels: &str) -> Result<Vec<K>> {
        let mut all = Vec::new();
        self.list_some_at_a_time(labels, |some| all.extend(some))
            .await?;
        Ok(all)
    }

    /// Hands over the objects that have these labels, some at a time: all that the server says of a thousand databases
    /// takes a thousand MiB. Returns the version from which on their changes are told.
    pub(super) async fn list_some_at_a_time<K: Kept>(
        &self,
        labels: &str,
        take: impl FnMut(Vec<K>),
    ) -> Result<String> {
        let (doing, objects) = (format!("listing each {}", kind::<K>()), self.objects::<K>());
        let list = |wanted: ListParams| {
            let objects = &objects;
            async move { objects.list(&wanted).await }
        };
        self.list_by(&doing, labels, list, take).await
    }

    /// Lists objects by calls of `list`, which asks for some of them each.
    async fn list_by<T: Clone, F>(
        &self,
        doing: &str,
        labels: &str,
        list: impl Fn(ListParams) -> F,
        mut take: impl FnMut(Vec<T>),
    ) -> Result<String>
    where
        F: Future<Output = kube::Result<ObjectList<T>>>,
    {
        let mut wanted = ListParams::default()
            .labels(labels)
            .limit(OBJECTS_LISTED_AT_ONCE);
        loop {
            let listed = self.call(doing, list(wanted.clone())).await?;
            take(listed.items);
            match listed.metadata.continue_.filter(|rest| !rest.is_empty()) {
                Some(rest) => wanted = wanted.continue_token(&rest),
                None => return Ok(listed.metadata.resource_version.unwrap_or_default()),
            }
        }
    }

    /// The changes of objects that have these labels, from a version on, as they come. It ends after a while;
    /// who was told of nothing for longer than the server says nothing gets an error.
    pub(super) async fn watch<K: Kept>(
        &self,
        labels: &str,
        version: &str,
    ) -> Result<BoxStream<'static, Result<WatchEvent<K>>>> {
        let doing = format!("hearing of each {}", kind::<K>());
        let seconds = u32::try_from(WATCH_LIFE.as_secs()).unwrap_or(u32::MAX);
        let wanted = WatchParams::default().labels(labels).timeout(seconds);
        let objects = self.objects::<K>();
        let events = self.call(&doing, objects.watch(&wanted, version)).await?;
        let next = |(mut events, doing): (BoxStream<'static, _>, String)| async {
            let event = match timeout(WATCH_SILENCE_MAX, events.next()).await {
                Ok(None) => return None,
                Ok(Some(Ok(WatchEvent::Error(status)))) => {
                    Err(CallError::of(&doing, kube::Error::Api(status)))
                }
                Ok(Some(event)) => event.map_err(|error| CallError::of(&doing, error)),
                Err(_) => Err(CallError::Silent {
                    meaning: format!("says nothing for {} s", WATCH_SILENCE_MAX.as_secs()),
                    doing: doing.clone(),
                    source: None,
                }),
            };
            Some((event, (events, doing)))
        };
        Ok(stream::unfold((events.boxed(), doing), next).boxed())
    }

    /// What is said of objects that have these labels, without the objects themselves.
    pub(super) async fn list_meta<K: Kept>(&self, labels: &str) -> Result<Vec<ObjectMeta>> {
        let doing = format!("listing the names of each {}", kind::<K>());
        let objects = self.objects::<K>();
        let list = |wanted: ListParams| {
            let objects = &objects;
            async move { objects.list_metadata(&wanted).await }
        };
        let mut all = Vec::new();
        let take = |some: Vec<PartialObjectMeta<K>>| {
            all.extend(some.into_iter().map(|of| ObjectMeta {
                managed_fields: None,
                ..of.metadata
            }));
        };
        self.list_by(&doing, labels, list, take).await?;
        Ok(all)
    }

    /// Makes an object that is not there.
    pub(super) async fn create<K: Kept>(&self, object: &Value) -> Result<K> {
        let doing = format!("making {} {}", kind::<K>(), name_in(object));
        let object =
            serde_json::from_value(object.clone()).map_err(|error| CallError::Refused {
                doing: doing.clone(),
                code: 400,
                reason: String::new(),
                message: error.to_string(),
            })?;
        let by = PostParams {
            field_manager: Some(FIELD_MANAGER.to_owned()),
            ..PostParams::default()
        };
        let objects = self.objects::<K>();
        self.call(&doing, objects.create(&by, &object)).await
    }

    /// Makes an object as described, whatever others have changed of what we describe.
    pub(super) async fn apply<K: Kept>(&self, object: &Value) -> Result<K> {
        let name = name_in(object);
        let doing = format!("applying {} {name}", kind::<K>());
        let by = PatchParams::apply(FIELD_MANAGER).force();
        let objects = self.objects::<K>();
        self.call(&doing, objects.patch(name, &by, &Patch::Apply(object)))
            .await
    }

    /// Changes some fields of an object; none where there is none of that name.
    pub(super) async fn change<K: Kept>(&self, name: &str, fields: &Value) -> Result<Option<K>> {
        let doing = format!("changing {} {name}", kind::<K>());
        let by = PatchParams {
            field_manager: Some(FIELD_MANAGER.to_owned()),
            ..PatchParams::default()
        };
        let objects = self.objects::<K>();
        let fields = Patch::Merge(fields);
        let changed = objects.patch(name, &by, &fields);
        match self.call(&doing, changed).await {
            Err(error) if error.is(404) => Ok(None),
            other => other.map(Some),
        }
    }

    /// Deletes an object, and what the server makes of it; one that is gone, or is another one by now than
    /// that of this `uid`, is fine.
    pub(super) async fn delete<K: Kept>(
        &self,
        name: &str,
        uid: Option<&str>,
        grace: Option<Duration>,
    ) -> Result<()> {
        let doing = format!("deleting {} {name}", kind::<K>());
        let seconds = |grace: Duration| u32::try_from(grace.as_secs()).unwrap_or(u32::MAX);
        let how = DeleteParams {
            grace_period_seconds: grace.map(seconds),
            propagation_policy: Some(PropagationPolicy::Background),
            preconditions: uid.map(that_of),
            ..DeleteParams::default()
        };
        let objects = self.objects::<K>();
        match self.call(&doing, objects.delete(name, &how)).await {
            Err(error) if error.is(404) || error.is(409) => Ok(()),
            other => other.map(drop),
        }
    }

    /// What a container of a pod printed, at most so many bytes of its beginning.
    pub(super) async fn printed(
        &self,
        pod: &str,
        container: &str,
        bytes_max: usize,
    ) -> Result<String> {
        let which = LogParams {
            container: Some(container.to_owned()),
            limit_bytes: i64::try_from(bytes_max).ok(),
            ..LogParams::default()
        };
        let pods = self.objects::<Pod>();
        self.call("reading what a pod printed", pods.logs(pod, &which))
            .await
    }
}

/// The object of that `uid` alone.
fn that_of(uid: &str) -> Preconditions {
    Preconditions {
        uid: Some(uid.to_owned()),
        resource_version: None,
    }
}

fn kind<K: Kept>() -> String {
    K::kind(&()).into_owned()
}

fn name_in(object: &Value) -> &str {
    object["metadata"]["name"].as_str().unwrap_or_default()
}

#[cfg(test)]
pub(super) mod tests;
