//! Restores: instances that are made from backups.

use serde_json::{Value, json};

use super::{
    Session,
    command::RestoreBackup,
    error::{Error, Result},
    instances::New,
};
use crate::model::{estimate::restore_takes, size::size};

impl Session {
    /// `restore-backup`: a new instance beside the one that the backup was taken of.
    pub async fn restore(&self, asked: RestoreBackup) -> Result<()> {
        let none = || Value::Object(serde_json::Map::new());
        let mut parameters = asked.parameters.read()?.unwrap_or_else(none);
        if let Some(version) = &asked.db_version {
            parameters["db_version"] = version.as_str().into();
        }
        if let Some(units) = asked.units {
            parameters["units"] = units.into();
        }
        if asked.dry_run {
            return self.rehearse_restore(&asked).await;
        }
        let source = self.any_instance(&asked.name).await?;
        if let Some(about) = self.about_restore(&source.id, &asked).await {
            self.show.note(&about);
        }
        if let Some(key) = asked.identity.read()? {
            parameters["backup_private_key"] = key.expose().into();
        }
        parameters["backup_id"] = asked.backup.into();
        if let Some(time) = asked.before {
            parameters["restore_time"] = time.into();
        }
        let catalog = self.catalog().await?;
        let plan = asked.plan.as_ref().unwrap_or(&source.plan.name);
        let offer = catalog.other_plan(&source, plan)?;
        parameters["source_service_instance_id"] = source.id.into();
        let new = New {
            name: asked.new_name,
            id: None,
            parameters: Some(parameters),
            tags: Vec::new(),
        };
        // Backups stay with their owner.
        let owner = (source.organization, source.space);
        self.create(offer, owner, new, asked.patience.wait).await
    }

    /// What it would do.
    async fn rehearse_restore(&self, asked: &RestoreBackup) -> Result<()> {
        if asked.plan.is_some() || asked.parameters.parameters.is_some() {
            let reason = "--dry-run tells of the plan of the source and its own parameters: leave out --plan and -c";
            return Err(Error::Usage(reason.into()));
        }
        let mut wanted = rehearsal(asked);
        wanted["backup_private_key"] = json!(asked.identity.read()?);
        let backup = asked.backup.as_str();
        let told = self
            .with_api(&asked.name, async |api| {
                api.restore_preflight(backup, &wanted).await
            })
            .await?;
        let text = |field: &str| told[field].as_str().map(str::to_owned);
        let number = |field: &str| told[field].as_u64();
        let reasons = told["reasons"].as_array().into_iter().flatten();
        let reasons: Vec<&str> = reasons.filter_map(Value::as_str).collect();
        let estimate = &told["restore_estimate"];
        let taken = text("taken_at").map(|_| format!(" of {}", self.time(&told["taken_at"])));
        let about = told["backup_id"].is_string().then(|| takes(estimate));
        let shown = self.show.fields([
            ("restore", Some(asked.new_name.clone())),
            (
                "backup",
                text("backup_id").map(|id| id + &taken.unwrap_or_default()),
            ),
            ("data", number("size_bytes").map(size)),
            ("from", text("from_version")),
            ("to", text("to_version")),
            ("units", number("units").map(|units| units.to_string())),
            (
                "units needed",
                number("units_needed").map(|units| units.to_string()),
            ),
            ("takes", about),
            (
                "refused",
                Some(reasons.join("; ")).filter(|text| !text.is_empty()),
            ),
        ]);
        self.show.result(&shown, &told)?;
        if told["possible"] == true {
            return Ok(());
        }
        Err(Error::Failed(format!(
            "{} would not be restored now; nothing was made",
            asked.new_name
        )))
    }

    /// What a restore brings and about how long it takes, where the broker tells.
    async fn about_restore(&self, source: &str, asked: &RestoreBackup) -> Option<String> {
        let api = self.api_of_platform(source).await.ok()??;
        // Which backup is meant, the broker decides here as it does for the restore.
        let wanted = rehearsal(asked);
        let told = api.restore_preflight(&asked.backup, &wanted).await.ok()?;
        let bytes = size(told["size_bytes"].as_u64()?);
        let takes = takes(&told["restore_estimate"]);
        Some(format!("restores {bytes} of data. {takes}"))
    }
}

/// How a broker is asked what a restore would do.
fn rehearsal(asked: &RestoreBackup) -> Value {
    json!({
        "name": asked.new_name,
        "version": asked.db_version,
        "units": asked.units,
        "restore_time": asked.before,
        "dry_run": true,
    })
}

/// How long a restore takes, as a sentence.
fn takes(estimate: &Value) -> String {
    let number = |field: &str| estimate[field].as_u64();
    restore_takes(number("seconds").zip(number("restores")))
}
