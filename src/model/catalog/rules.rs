//! What a catalog says to the broker alone: the members named `broker`.

use serde::{Deserialize, Serialize};

use crate::model::{
    deleted::AfterDelete,
    limits::{PINNED_BACKUPS_DEFAULT, PROVED_WITHIN_HOURS_DEFAULT},
    timetable::TimetableBounds,
};

/// What this broker does with an offering.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct OfferingRules {
    /// The engine behind it.
    pub engine: String,
}

/// What this broker does with a plan.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct PlanRules {
    /// Where its instances go.
    pub placement: Placement,
    /// How many successful on-demand backups are kept; the fixed schedule of the original is 1.
    #[serde(default = "one")]
    pub on_demand_backups_kept: u32,
    /// How many backups of an instance its users may keep beyond their time.
    #[serde(default = "some_pins")]
    pub pinned_backups_max: u32,
    /// A backup that is proved is to be no older than this, in hours.
    #[serde(default = "a_day_and_two_hours")]
    pub proved_backup_hours: u32,
    /// What users may choose of the schedule of backups; absent: nothing.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub backup_schedule: Option<TimetableBounds>,
    /// The most instances of one tenant; absent: no limit.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub instances_per_tenant: Option<u32>,
    /// What is kept of deleted instances.
    #[serde(default)]
    pub after_delete: AfterDelete,
}

impl Default for PlanRules {
    fn default() -> Self {
        Self {
            placement: Placement::Default,
            on_demand_backups_kept: one(),
            pinned_backups_max: some_pins(),
            proved_backup_hours: a_day_and_two_hours(),
            backup_schedule: None,
            instances_per_tenant: None,
            after_delete: AfterDelete::default(),
        }
    }
}

fn one() -> u32 {
    1
}

fn a_day_and_two_hours() -> u32 {
    PROVED_WITHIN_HOURS_DEFAULT
}

fn some_pins() -> u32 {
    PINNED_BACKUPS_DEFAULT
}

/// Where a plan's instances go.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Placement {
    /// To the default cluster; naming one is refused.
    Default,
    /// To the cluster that the user names.
    Chosen,
}
