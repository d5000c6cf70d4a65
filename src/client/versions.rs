//! Commands about the versions and the room of a database, by the Compose API.

use serde_json::{Value, json};

use super::{
    Session,
    error::{Error, Result},
    show::{fields, table},
};

impl Session {
    /// `versions`: what an instance can be taken to, and what is known to be wrong with it.
    pub async fn versions(&self, name: &str) -> Result<()> {
        let transitions = self
            .with_api(name, async |api| api.transitions().await)
            .await?;
        let rows = transitions.iter().map(|transition| {
            let method = match transition["method"].as_str() {
                Some("in_place") => "upgrade-service",
                Some("restore") => "restore-backup",
                _ => "",
            };
            let faults = transition["advisories"].as_array();
            let ids: Vec<&str> = faults
                .into_iter()
                .flatten()
                .filter_map(|fault| fault["id"].as_str())
                .collect();
            let faults = if ids.is_empty() {
                "none".to_owned()
            } else {
                ids.join(", ")
            };
            let version = transition["to_version"].as_str().unwrap_or_default();
            [version.to_owned(), method.to_owned(), faults]
        });
        let shown = table(["VERSION", "BY", "KNOWN FAULTS"], rows);
        self.show
            .result(&shown, &json!({ "versions": transitions }))
    }

    /// `upgrade-service --dry-run`: what an upgrade would do. It fails when it would not be done.
    pub async fn rehearse_upgrade(&self, name: &str, version: Option<String>) -> Result<()> {
        let version = match version {
            Some(version) => version,
            None => self.version_of_plan(name).await?,
        };
        let told = self
            .with_api(name, async |api| api.preflight(&version).await)
            .await?;
        let texts = |field: &str| -> Vec<String> {
            let texts = told[field].as_array();
            let texts = texts.into_iter().flatten().filter_map(Value::as_str);
            texts.map(str::to_owned).collect()
        };
        let shown_as = |texts: Vec<String>, between: &str| {
            Some(texts.join(between)).filter(|text| !text.is_empty())
        };
        let shown = fields([
            ("upgrade", Some(name.to_owned())),
            ("from", told["from_version"].as_str().map(str::to_owned)),
            ("to", Some(version.clone())),
            ("by way of", shown_as(texts("path"), ", ")),
            ("beside", shown_as(texts("notes"), " ")),
            ("refused", shown_as(texts("reasons"), " ")),
        ]);
        self.show.result(&shown, &told)?;
        if told["possible"] == true {
            return Ok(());
        }
        Err(Error::Failed(format!(
            "{name} would not be upgraded to {version} now; nothing was changed"
        )))
    }

    /// `make-room`
    pub async fn make_room(
        &self,
        name: &str,
        delete_prefix: Option<String>,
        wait: bool,
    ) -> Result<()> {
        let recipe = self
            .with_api(name, async |api| {
                let recipe = api.begin_relief(delete_prefix.as_deref()).await?;
                let id = recipe["id"].as_str().unwrap_or_default().to_owned();
                if wait {
                    let title = format!("make room in {name}");
                    let left = "room is being made; it goes on without you";
                    self.wait_for_recipe(api, &title, left, &id).await?;
                } else {
                    self.show.note("room is being made; it goes on by itself");
                }
                api.recipe(&id).await
            })
            .await?;
        let text = |field: &str| recipe[field].as_str().map(str::to_owned);
        let shown = fields([
            ("service instance", Some(name.to_owned())),
            ("status", text("status")),
            ("detail", text("status_detail")),
        ]);
        self.show.result(&shown, &recipe)
    }
}
