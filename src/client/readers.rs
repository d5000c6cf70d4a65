//! What an operator sees of an instance whose credentials only read: all but what a platform alone is told.

use serde_json::json;

use super::{Session, error::Result, waits::health_in_full};

/// What is missing where an instance is shown to who only reads.
pub(super) const NOT_FOR_READERS: &str = "These credentials only read: the broker tells them neither of last \
     operations nor of upgrades. What was done: compose-broker tasks NAME";

impl Session {
    /// `service`, for who only reads. As with all that operators look at, it need not be among the names.
    pub(super) async fn service_as_reader(&self, name: &str) -> Result<()> {
        let instance = self.any_instance(name).await?;
        let (health, (_, restored, task)) =
            tokio::join!(self.health(&instance), self.by_api(&instance));
        let last = self.last_backup(&instance, health.as_ref()).await;
        let shown = self.show.fields([
            ("name", Some(instance.name.clone())),
            ("id", Some(instance.id.clone())),
            ("offering", Some(instance.offering.clone())),
            ("plan", Some(instance.plan.name.clone())),
            ("health", health.as_ref().map(health_in_full)),
            (
                "last backup",
                last.as_ref().map(|last| self.restorable(&instance, last)),
            ),
            ("last task", task.as_ref().map(|task| self.task(task))),
            (
                "restored from",
                restored.as_ref().map(|from| self.restored_from(from)),
            ),
        ]);
        let value = json!({
            "name": instance.name,
            "id": instance.id,
            "offering": instance.offering,
            "plan": instance.plan.name,
            "health": health,
            "last_backup": last,
            "last_task": task,
            "restored_from": restored,
        });
        self.show.result(&shown, &value)?;
        self.advise_operators(&instance, health.as_ref());
        self.show.note(NOT_FOR_READERS);
        Ok(())
    }
}
