//! What the platform's users may ask of instances, as the schemas of the catalog describe it.

use serde::{Deserialize, Deserializer};

/// The parameters of a provision request.
#[derive(Debug, Default, Deserialize)]
pub struct ProvisionParameters {
    /// The instance whose backup the new one is made from.
    pub source_service_instance_id: Option<String>,
    /// The backup that the new one is made from.
    pub backup_id: Option<String>,
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
