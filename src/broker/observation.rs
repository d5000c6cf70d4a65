//! How deployments fare, as it is shown.

use std::sync::Arc;

use futures::future::BoxFuture;

use super::{Broker, DeploymentView};
use crate::model::{
    defragment::Storage, deployment::Deployment, engine::Obstacle, observation::Observation,
    recovery::Remains, version::Version,
};

/// Looks at running deployments. Pages take what was seen last; few use cases wait for a
/// look: alerts, what an upgrade would do, an instance that becomes smaller.
pub trait Observer: Send + Sync {
    /// What was seen of a deployment a moment ago, without waiting. None while the first look is
    /// under way; who asks again a second later finds it.
    fn observe(&self, deployment: &Deployment) -> Option<Arc<Observation>>;

    /// What was seen last of a deployment, by whoever looked at it; none where that is too long ago to
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
}

impl Broker {
    /// How a deployment fares, see [`Observer::observe`].
    pub fn observation(&self, deployment: &Deployment) -> Option<Arc<Observation>> {
        self.observer.observe(deployment)
    }

    /// What the files of a deployment's database have and use, as its members tell now; none when
    /// nobody does.
    pub async fn storage(&self, of: &DeploymentView) -> Option<Storage> {
        let seen = self.seen_now(&of.deployment).await?;
        Storage::of(&seen)
    }

    /// What was seen of it last, see [`Observer::seen`].
    pub fn last_seen(&self, deployment: &Deployment) -> Option<Arc<Observation>> {
        self.observer.seen(deployment)
    }
}
