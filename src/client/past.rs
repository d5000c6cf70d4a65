//! What a broker of this kind tells of an instance's past: when the last operation on it went on, what was done
//! to it elsewhere since, and which backup it was restored from.

use serde_json::Value;

use super::{
    Session,
    book::{Instance, Last, Said},
    compose::Compose,
    insight::{asked_by, status_of_task},
    operations::text,
    waits::state_of,
};
use crate::model::{
    health::HealthState, operation::OperationKind, origin::Origin, period::BackupKind,
};

/// The template of recipes that change an instance: neither its backups nor its end.
const TEMPLATE_OF_CHANGES: &str = "Recipes::Deployment::Run";

impl Session {
    /// What the Compose API tells of an instance: when the last operation on it began and came further, which
    /// backup it was restored from, and what was done to it elsewhere since that operation.
    pub(super) async fn by_api(
        &self,
        instance: &Instance,
    ) -> (Option<Value>, Option<Value>, Option<Value>) {
        let last = &instance.last;
        match self.api_of_platform(&instance.id).await {
            Ok(Some(api)) => {
                tokio::join!(times(&api, last), restored(&api), elsewhere(&api, instance))
            }
            _ => (None, None, None),
        }
    }

    /// The newest complete backup of an instance that is down, by which it can be had again meanwhile; none of one
    /// that can be used.
    pub(super) async fn last_backup(
        &self,
        instance: &Instance,
        health: Option<&Value>,
    ) -> Option<Value> {
        if state_of(health?) != Some(HealthState::Down) {
            return None;
        }
        let api = self.api_of_platform(&instance.id).await.ok()??;
        let (backups, _) = api.backups().await.ok()?;
        // As a restore of the latest chooses.
        let is_meant = |backup: &Value| {
            let of = BackupKind::parse(&text(backup, "type"));
            backup["status"] == "complete" && of.is_none_or(BackupKind::is_own)
        };
        backups.into_iter().find(is_meant)
    }

    /// What a backup of an instance is good for that is down.
    pub(super) fn restorable(&self, instance: &Instance, backup: &Value) -> String {
        let (at, name) = (self.time(&backup["requested_at"]), &instance.name);
        format!(
            "{at}; to have it in a new instance meanwhile: compose-broker restore-backup {name} {} NEW_NAME",
            text(backup, "id")
        )
    }

    /// What was done to an instance, how that ended, when and by whom.
    pub(super) fn task(&self, recipe: &Value) -> String {
        let name = text(recipe, "name");
        let status = status_of_task(recipe).unwrap_or_default();
        let (at, by) = (self.time(&recipe["updated_at"]), asked_by(recipe));
        let since = match status == "running" || status == "waiting" {
            true => "as of ",
            false => "",
        };
        format!("{name}: {status}, {since}{at}, asked for by {by}")
    }

    /// Which backup an instance was restored from, in words.
    pub(super) fn restored_from(&self, from: &Value) -> String {
        let text = |field: &str| from[field].as_str().unwrap_or_default();
        let (id, name) = (text("instance_id"), from["instance_name"].as_str());
        let name = name.map_or_else(|| id.to_owned(), |name| format!("{name} ({id})"));
        let gone = match from["instance_exists"] == false {
            true => ", which was deleted since",
            false => "",
        };
        let taken = self.time(&from["backup_requested_at"]);
        format!("{name}{gone}: backup {} of {taken}", text("backup_id"))
    }
}

/// When the last operation on an instance began and when it last came further, where the broker keeps
/// it as a recipe of the same id.
async fn times(api: &Compose<'_>, last: &Last) -> Option<Value> {
    let Said::Accepted(Some(operation)) = &last.said else {
        return None;
    };
    let recipe = api.recipe(operation).await.ok()?;
    recipe["created_at"].is_string().then_some(recipe)
}

/// The newest task that changed an instance, unless it is the newest operation that this machine asked for: what
/// the page or another machine had done.
async fn elsewhere(api: &Compose<'_>, instance: &Instance) -> Option<Value> {
    let mut told = api.about("recipes").await.ok()?;
    let Value::Array(recipes) = told["_embedded"]["recipes"].take() else {
        return None;
    };
    let changes = |recipe: &Value| {
        let is_asked = Origin::parse(&text(recipe, "source")).is_some_and(|of| !of.is_own());
        let name = text(recipe, "name");
        let is_of_a_key = [OperationKind::Bind, OperationKind::Unbind]
            .iter()
            .any(|kind| kind.words() == name);
        is_asked && !is_of_a_key && recipe["template"] == TEMPLATE_OF_CHANGES
    };
    let newest = recipes.into_iter().find(changes)?;
    let ours = match &instance.last.said {
        Said::Accepted(Some(ours)) => Some(ours),
        _ => instance.operation.as_ref(),
    };
    (!ours.is_some_and(|ours| newest["id"] == *ours)).then_some(newest)
}

/// Writes down when an operation began and when it last came further, where that is told.
pub(super) fn add_times(operation: &mut Value, times: Option<&Value>) {
    if let Some(times) = times {
        operation["started"] = times["created_at"].clone();
        operation["updated"] = times["updated_at"].clone();
    }
}

/// Which backup an instance was restored from, where the broker tells.
async fn restored(api: &Compose<'_>) -> Option<Value> {
    let mut deployment = api.deployment().await.ok()?;
    Some(deployment["restored_from"].take()).filter(Value::is_object)
}
