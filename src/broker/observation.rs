//! Who looks at deployments.

use std::sync::Arc;

use futures::future::BoxFuture;

use crate::model::{
    deployment::Deployment, engine::Obstacle, observation::Observation, recovery::Remains,
    version::Version,
};

/// Looks at running deployments. Pages take what was seen last; few use cases wait for a
/// look: alerts, what an upgrade would do, an instance that becomes smaller.
pub trait Observer: Send + Sync {
    /// What was seen of a deployment a moment ago, without waiting. None while the first look is
    /// under way; who asks again a second later finds it.
    fn observe(&self, deployment: &Deployment) -> Option<Arc<Observation>>;

    /// What was seen last of a deployment, by any part of the broker; none where that is too long ago to
    /// tell of its health. Begins no look.
    fn seen(&self, deployment: &Deployment) -> Option<Arc<Observation>>;

    /// What was seen of a deployment within [`OBSERVATION_FRESH`](crate::model::limits::OBSERVATION_FRESH),
    /// by a look that is waited for where there was none. None when that comes to nothing.
    fn recent(&self, deployment: &Deployment) -> BoxFuture<'static, Option<Arc<Observation>>>;

    /// Looks at a deployment now. None when that comes to nothing.
    fn look(&self, deployment: &Deployment) -> BoxFuture<'static, Option<Arc<Observation>>>;

    /// Whether each member gives a sign of life now, in member order. None when nobody can ask.
    fn alive(&self, deployment: &Deployment) -> BoxFuture<'static, Option<Vec<bool>>>;

    /// Looks at what each member still has, on its disk where it does not serve. None when that comes
    /// to nothing.
    fn survey(&self, deployment: &Deployment) -> BoxFuture<'static, Option<Vec<Remains>>>;

    /// Asks the members what is in the way of taking them to a version. None when that comes to
    /// nothing.
    fn obstacles(
        &self,
        deployment: &Deployment,
        to: Version,
    ) -> BoxFuture<'static, Option<Vec<Obstacle>>>;

    /// Asks how many keys begin with a prefix. None when that comes to nothing.
    fn count_keys(&self, deployment: &Deployment, prefix: &str) -> BoxFuture<'static, Option<u64>>;
}
