//! What the platform's users may ask of instances, as the schemas of the catalog describe it.

use serde::{Deserialize, Deserializer};
use serde_json::{Value, json};

use super::version::Version;

/// Parameters as they are in force: of a version that was asked for, the one that runs by now.
pub fn in_force(mut parameters: Value, version: Version) -> Value {
    if let Some(asked) = parameters.get_mut("db_version")
        && asked.is_string()
    {
        *asked = json!(version.to_string());
    }
    parameters
}

/// The parameters of a provision request.
#[derive(Debug, Default, Deserialize)]
pub struct ProvisionParameters {
    /// The instance whose backup the new one is made from.
    pub source_service_instance_id: Option<String>,
    /// The backup that the new one is made from: its id, or the newest of a kind
    /// ([`BackupChoice`](super::choice::BackupChoice)).
    pub backup_id: Option<String>,
    /// The newest backup from before that time is meant.
    pub restore_time: Option<String>,
    /// Clients that go on from what they saw in the source are told that this is another database.
    #[serde(rename = "revision_bump")]
    pub clients_notice: Option<bool>,
    /// The cluster that it goes to.
    pub cluster_id: Option<String>,
    /// The cluster that it goes to, by the instance that stands for it.
    pub cluster_service_instance_id: Option<String>,
    /// The engine's version.
    pub db_version: Option<String>,
    /// The size.
    pub units: Option<u32>,
}

/// The parameters of an update.
#[derive(Debug, Default, Deserialize)]
pub struct UpdateParameters {
    /// The engine's version from then on.
    pub db_version: Option<String>,
    /// The size from then on.
    pub units: Option<u32>,
    /// The hour of the day of backups from then on; `null`: as the schedule of the original has it. So with
    /// the others below.
    #[serde(default, deserialize_with = "named")]
    pub backup_hour: Option<Option<u32>>,
    /// The day of the week of weekly backups.
    #[serde(default, deserialize_with = "named")]
    pub backup_weekday: Option<Option<String>>,
    /// How many days daily backups are kept.
    #[serde(default, deserialize_with = "named")]
    pub daily_backups_kept: Option<Option<u32>>,
    /// How many weeks weekly backups are kept.
    #[serde(default, deserialize_with = "named")]
    pub weekly_backups_kept: Option<Option<u32>>,
    /// How many months monthly backups are kept.
    #[serde(default, deserialize_with = "named")]
    pub monthly_backups_kept: Option<Option<u32>>,
}

impl UpdateParameters {
    /// Whether anything of the schedule of backups is asked for.
    pub fn asks_for_schedule(&self) -> bool {
        self.backup_hour.is_some()
            || self.backup_weekday.is_some()
            || self.daily_backups_kept.is_some()
            || self.weekly_backups_kept.is_some()
            || self.monthly_backups_kept.is_some()
    }
}

/// What is named, which may be `null`; what is absent is no call of it.
fn named<'de, D, T>(given: D) -> Result<Option<Option<T>>, D::Error>
where
    D: Deserializer<'de>,
    T: Deserialize<'de>,
{
    Option::deserialize(given).map(Some)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_version_that_was_asked_for_is_the_one_that_runs() {
        let version: Version = "3.5.30".parse().expect("a version");
        for (asked, told) in [
            (
                json!({ "db_version": "3.4.23", "units": 2 }),
                json!({ "db_version": "3.5.30", "units": 2 }),
            ),
            (json!({ "units": 2 }), json!({ "units": 2 })),
            (json!({ "db_version": null }), json!({ "db_version": null })),
            (json!({}), json!({})),
        ] {
            assert_eq!(in_force(asked, version), told);
        }
    }
}
