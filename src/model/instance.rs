//! Service instances, and when two requests are the same request.

use std::collections::BTreeMap;

use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::{
    ids::{DeploymentId, InstanceId},
    tenant::Tenant,
};

/// The parameter of an update that protects an instance against deletion.
pub const DELETE_PROTECTION: &str = "delete_protection";
/// The parameter of an update that has the backups of an instance deleted with it.
pub const DELETE_BACKUPS: &str = "delete_backups";

/// The parameter with the key of the tenant that backups are sealed for; empty for none.
pub const BACKUP_PUBLIC_KEY: &str = "backup_public_key";

/// Where the dashboard of an instance is; `public_url` is where clients reach the broker.
pub fn dashboard_url(public_url: &str, instance: &InstanceId) -> String {
    format!("{public_url}/dashboard/instances/{}", instance.in_path())
}

/// What people call instances, of those of which it is known.
pub type Names = BTreeMap<InstanceId, String>;

/// Where an instance is in its life.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum InstanceState {
    /// Being made.
    Provisioning,
    /// Usable.
    Ready,
    /// Could not be made, or not be deleted; only a deprovision is possible.
    Failed,
    /// Being deleted.
    Deleting,
}

impl InstanceState {
    /// The name used in the store.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Provisioning => "provisioning",
            Self::Ready => "ready",
            Self::Failed => "failed",
            Self::Deleting => "deleting",
        }
    }

    /// The state of that name.
    pub fn parse(text: &str) -> Option<Self> {
        [
            Self::Provisioning,
            Self::Ready,
            Self::Failed,
            Self::Deleting,
        ]
        .into_iter()
        .find(|state| state.as_str() == text)
    }
}

/// A service instance.
#[derive(Debug, Clone, PartialEq)]
pub struct Instance {
    /// The platform's id of it.
    pub id: InstanceId,
    /// Its offering.
    pub service_id: String,
    /// Its plan.
    pub plan_id: String,
    /// Its owner.
    pub tenant: Tenant,
    /// What people call it, where that is known.
    pub name: Option<String>,
    /// The deployment whose backup the broker itself made it of; none where a platform asked for
    /// the instance. Not the source's instance id: a platform may use that again.
    pub restored_from: Option<DeploymentId>,
    /// The deployment behind it.
    pub deployment: DeploymentId,
    /// The platform's context, as it came.
    pub context: Value,
    /// The parameters, as they came.
    pub parameters: Value,
    /// What it was asked for with, to recognise a repeat.
    pub request: ProvisionIdentity,
    /// Where it is in its life.
    pub state: InstanceState,
    /// When it was asked for.
    pub created_at: DateTime<Utc>,
    /// The place of the operation that made it; given by the store.
    pub ordinal: i64,
}

impl Instance {
    /// Whether it refuses to be deleted. What failed is never kept from going.
    pub fn is_protected(&self) -> bool {
        self.state == InstanceState::Ready && self.parameters[DELETE_PROTECTION] == true
    }

    /// Whether its backups are to go with it.
    pub fn deletes_backups(&self) -> bool {
        self.parameters[DELETE_BACKUPS] == true
    }

    /// The key of its tenant that its backups are sealed for; none where the broker opens them.
    pub fn recipient(&self) -> Option<&str> {
        let given = self.parameters[BACKUP_PUBLIC_KEY].as_str();
        given.filter(|key| !key.is_empty())
    }
}

/// What makes two provision requests the same (OSB "Provisioning", 200 and 409). The context
/// and `maintenance_info` do not count: names in them change.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ProvisionIdentity {
    /// OSB `service_id`.
    pub service_id: String,
    /// OSB `plan_id`.
    pub plan_id: String,
    /// OSB `organization_guid`.
    pub organization: String,
    /// OSB `space_guid`.
    pub space: String,
    /// The parameters in normal form, see [`normal_form`].
    pub parameters: Value,
}

/// Parameters in a form in which equal means the same: `null` and absent are `{}`, and a whole
/// number is the same number whether it was written `1` or `1.0`.
pub fn normal_form(parameters: Option<&Value>) -> Value {
    match parameters {
        None | Some(Value::Null) => Value::Object(serde_json::Map::new()),
        Some(value) => normal_numbers(value),
    }
}

fn normal_numbers(value: &Value) -> Value {
    // Beyond 2^53 a float no longer tells neighbouring whole numbers apart.
    const WHOLE_MAX: f64 = 9_007_199_254_740_992.0;
    match value {
        Value::Number(number) => match number.as_f64() {
            Some(float) if number.is_f64() && float.fract() == 0.0 && float.abs() <= WHOLE_MAX => {
                #[expect(
                    clippy::cast_possible_truncation,
                    reason = "whole and within i64 by the guard"
                )]
                let whole = float as i64;
                Value::from(whole)
            }
            _ => value.clone(),
        },
        Value::Array(items) => items.iter().map(normal_numbers).collect(),
        Value::Object(map) => Value::Object(
            map.iter()
                .map(|(key, v)| (key.clone(), normal_numbers(v)))
                .collect(),
        ),
        other => other.clone(),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;

    #[test]
    fn absent_null_and_empty_parameters_are_the_same() {
        assert_eq!(normal_form(None), json!({}));
        assert_eq!(normal_form(Some(&Value::Null)), json!({}));
        assert_eq!(normal_form(Some(&json!({}))), json!({}));
        assert_ne!(normal_form(Some(&json!({"a": null}))), json!({}));
    }

    #[test]
    fn equality_is_of_values_not_of_texts() {
        let one = json!({"units": 1, "deep": [{"x": 2.0}]});
        let other: Value =
            serde_json::from_str(r#"{ "deep":[{"x":2}], "units":1.0 }"#).expect("JSON");
        assert_eq!(normal_form(Some(&one)), normal_form(Some(&other)));
        assert_ne!(
            normal_form(Some(&json!({"units": 1}))),
            normal_form(Some(&json!({"units": "1"})))
        );
        assert_ne!(
            normal_form(Some(&json!({"x": 1.5}))),
            normal_form(Some(&json!({"x": 1})))
        );
    }

    proptest! {
        #[test]
        fn the_normal_form_is_stable(numbers in prop::collection::vec(any::<f64>(), 0..5), key in "[a-z]{1,4}") {
            let value = json!({ key: numbers });
            let once = normal_form(Some(&value));
            prop_assert_eq!(normal_form(Some(&once)), once);
        }
    }
}
