//! Keys that are put back into an instance from a backup of it.

use serde_json::{Value, json};

use super::{Session, command::RestoreKeys, confirm::sure, error::Result, insight::status_of_task};
use crate::model::size::size;

impl Session {
    /// `restore-keys`. What it would do is waited for: there is nothing else to tell.
    pub async fn restore_keys(&self, asked: RestoreKeys) -> Result<()> {
        let dry_run = asked.dry_run;
        let name = asked.into.as_deref().unwrap_or(&asked.name);
        let keys = match asked.prefix.as_str() {
            "" => format!("keys of {name}"),
            prefix => format!("keys of {name} that begin with {prefix:?}"),
        };
        if asked.mode == "mirror" && !dry_run {
            let does = format!("this deletes {keys} that the backup has not");
            let question = format!("Really delete {keys} that the backup has not?");
            sure(asked.certainty.force, &does, &question, "changed")?;
        }
        let target = match &asked.into {
            Some(into) => Some(self.any_instance(into).await?.id),
            None => None,
        };
        let wanted = json!({
            "target_service_instance_id": target,
            "prefix": asked.prefix,
            "mode": asked.mode,
            "restore_time": asked.before,
            "backup_private_key": asked.identity.read()?,
            "dry_run": dry_run,
        });
        let begun = self
            .with_api(&asked.name, async |api| {
                api.begin_prefix_restore(&asked.backup, &wanted).await
            })
            .await?;
        // It is told of where the keys are put.
        let recipe = self
            .with_api(name, async |api| {
                let id = begun["id"].as_str().unwrap_or_default().to_owned();
                let goes_on = match dry_run {
                    true => format!("{keys} are being compared"),
                    false => format!("{keys} are being put back"),
                };
                if dry_run || asked.patience.wait {
                    let title = format!("restore {keys}");
                    let left = format!("{goes_on}; it goes on without you");
                    self.wait_for_recipe(api, &title, &left, &id).await?;
                } else {
                    self.show.note(&format!("{goes_on}; it goes on by itself"));
                }
                api.recipe(&id).await
            })
            .await?;
        self.show_restored(name, &recipe)
    }

    fn show_restored(&self, name: &str, recipe: &Value) -> Result<()> {
        let told = &recipe["prefix_restore"];
        let text = |value: &Value| value.as_str().map(str::to_owned);
        let count = |of: &str, field: &str| told[of][field].as_u64();
        let number = |of: &str, field: &str| count(of, field).map(|n| n.to_string());
        let shown = self.show.fields([
            ("service instance", Some(name.to_owned())),
            ("status", status_of_task(recipe)),
            ("detail", text(&recipe["status_detail"])),
            ("backup", text(&recipe["backup_id"])),
            ("backup of before", text(&told["safety_backup_id"])),
            ("missing", number("difference", "missing")),
            ("another value", number("difference", "changed")),
            ("not in the backup", number("difference", "extra")),
            ("the same", number("difference", "same")),
            ("with a lease", number("difference", "ephemeral")),
            ("to write", count("difference", "bytes").map(size)),
            ("written", number("changes", "written")),
            ("deleted", number("changes", "deleted")),
            ("left, changed since", number("changes", "left")),
        ]);
        self.show.result(&shown, recipe)
    }
}
