//! Commands about the versions and the room of a database, by the Compose API.

use serde_json::{Value, json};
use tokio::time::sleep;

use super::{
    Session,
    error::{Error, Result},
    insight::{detail_of, status_of_task},
    waits::state_of,
};
use crate::model::{engine::Severity, health::HealthState, limits::OBSERVATION_FRESH, size::size};

impl Session {
    /// `versions`: the version of an instance with its known faults, and what it can be taken to.
    pub async fn versions(&self, name: &str) -> Result<()> {
        let (deployment, transitions) = self
            .with_api(name, async |api| {
                Ok((api.deployment().await?, api.transitions().await?))
            })
            .await?;
        let text = |value: &Value, field: &str| value[field].as_str().unwrap_or("none").to_owned();
        let running = format!("{} runs {}", name, text(&deployment, "version"));
        let own = deployment["advisories"].as_array();
        let own = own.into_iter().flatten().map(|fault| {
            let [id, severity, fixed_in, summary] =
                ["id", "severity", "fixed_in", "summary"].map(|field| text(fault, field));
            let known = Severity::parse(&severity);
            let severity = known.map_or(severity, |known| known.words().to_owned());
            [id, severity, fixed_in, summary]
        });
        let own: Vec<[String; 4]> = own.collect();
        let own = if own.is_empty() {
            format!("{running}, which has no known faults.")
        } else {
            let head = ["KNOWN FAULT", "SEVERITY", "FIXED IN", "WHAT CAN HAPPEN"];
            format!("{running}\n\n{}", self.show.table(head, own))
        };
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
            [text(transition, "to_version"), method.to_owned(), faults]
        });
        let head = ["VERSION", "BY", "KNOWN FAULTS"];
        let none = "There is no newer version that it can be taken to.";
        let ways = self.show.listed(head, rows, none);
        let value = json!({
            "version": deployment["version"],
            "advisories": deployment["advisories"],
            "versions": transitions,
        });
        self.show.result(&format!("{own}\n\n{ways}"), &value)
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
        let shown = self.show.fields([
            ("upgrade", Some(name.to_owned())),
            ("from", told["from_version"].as_str().map(str::to_owned)),
            ("to", Some(version.clone())),
            ("steps", shown_as(texts("path"), ", ")),
            ("also", shown_as(texts("notes"), " ")),
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
        let (recipe, deployment) = self
            .with_api(name, async |api| {
                let recipe = api.begin_relief(delete_prefix.as_deref()).await?;
                let id = recipe["id"].as_str().unwrap_or_default().to_owned();
                if wait {
                    let title = format!("make room in {name}");
                    let left = "room is being made; it goes on without you";
                    self.wait_for_recipe(api, &title, left, &id).await?;
                    if state_of(&api.deployment().await?["health"]) == Some(HealthState::ReadOnly) {
                        // What members tell is up to so old.
                        sleep(OBSERVATION_FRESH).await;
                    }
                } else {
                    self.show.note("room is being made; it goes on by itself");
                }
                Ok((api.recipe(&id).await?, api.deployment().await?))
            })
            .await?;
        let lacks = match wait {
            true => self.lacks_room(&deployment),
            false => None,
        };
        let detail = match lacks {
            Some(_) => Some("done; there is not room enough yet".to_owned()),
            None => detail_of(&recipe),
        };
        let shown = self.show.fields([
            ("service instance", Some(name.to_owned())),
            ("status", status_of_task(&recipe)),
            ("detail", detail),
        ]);
        self.show.result(&shown, &recipe)?;
        match lacks {
            Some(how) => Err(Error::Failed(format!(
                "{name} is {how}: there is not room enough yet. Delete keys (compose-broker make-room {name} \
                 --delete-prefix PREFIX), ask for more units (compose-broker update-service {name} -c \
                 '{{\"units\": NUMBER}}'), or upgrade it (compose-broker upgrade-service {name})"
            ))),
            None => Ok(()),
        }
    }

    /// How a deployment is that has no room, and since when.
    fn lacks_room(&self, deployment: &Value) -> Option<String> {
        let health = &deployment["health"];
        let (how, since) = match deployment["closed_since"].is_string() {
            true => ("closed to its users", &deployment["closed_since"]),
            false if state_of(health) == Some(HealthState::ReadOnly) => {
                ("read-only", &health["since"])
            }
            false => return None,
        };
        let since = Some(self.time(since)).filter(|since| !since.is_empty());
        Some(since.map_or(how.to_owned(), |since| format!("{how} since {since}")))
    }

    /// `defragment`
    pub async fn defragment(&self, name: &str, dry_run: bool, wait: bool) -> Result<()> {
        let (storage, recipe) = self
            .with_api(name, async |api| {
                let before = api.defragmentation().await?;
                if dry_run {
                    return Ok((before, Value::Null));
                }
                if let Some(stall) = before["stall_seconds"].as_u64() {
                    self.show.note(&format!(
                        "each member in turn is unavailable for about {stall} s"
                    ));
                }
                let recipe = api.begin_defragmentation().await?;
                let id = recipe["id"].as_str().unwrap_or_default().to_owned();
                if !wait {
                    self.show.note("it goes on by itself");
                    return Ok((before, recipe));
                }
                let title = format!("defragment {name}");
                let left = "storage is being given back; it goes on without you";
                self.wait_for_recipe(api, &title, left, &id).await?;
                // What members tell is up to so old.
                sleep(OBSERVATION_FRESH).await;
                Ok((api.defragmentation().await?, api.recipe(&id).await?))
            })
            .await?;
        let bytes = |field: &str| storage[field].as_u64().map(size);
        let stall = storage["stall_seconds"].as_u64();
        let refusal = storage["refusal"].as_str().filter(|_| dry_run);
        let shown = self.show.fields([
            ("service instance", Some(name.to_owned())),
            ("refused", refusal.map(str::to_owned)),
            ("allocated", bytes("allocated_bytes")),
            ("used", bytes("used_bytes")),
            ("would be freed", bytes("unused_bytes")),
            (
                "each member unavailable for",
                stall.map(|s| format!("about {s} s")),
            ),
            ("status", status_of_task(&recipe)),
            ("detail", detail_of(&recipe)),
        ]);
        let told = if dry_run { &storage } else { &recipe };
        self.show.result(&shown, told)?;
        match refusal {
            Some(_) => Err(Error::Failed(format!(
                "{name} would not be defragmented now; nothing was changed"
            ))),
            None => Ok(()),
        }
    }
}
