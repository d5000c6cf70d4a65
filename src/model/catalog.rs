//! The catalog: which offerings and plans there are.
//!
//! It is data, read at start and when the operator asks for it. [`Catalog::parse`] checks all that
//! OSB v2.17 and Cloud Controller demand of a catalog and names the JSON path of what is wrong, so
//! that a broken file is refused here instead of later by a platform. Members named `broker` are ours
//! and never leave the broker.

use std::sync::Arc;

use bytes::Bytes;
use chrono::{DateTime, Utc};
use jsonschema::error::ValidationErrorKind;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::version::Version;

mod check;
mod current;
mod rules;

pub use current::CurrentCatalog;
pub use rules::{OfferingRules, Placement, PlanRules};

/// A violation, with the place where it stands.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{}{reason}", at(.path))]
pub struct CatalogError {
    /// JSON path, for example `services[0].plans[1].id`.
    pub path: String,
    /// What is wrong.
    pub reason: String,
}

/// Where a violation stands; nothing when it is of the whole.
fn at(path: &str) -> String {
    if path.is_empty() {
        return String::new();
    }
    format!("at {path}: ")
}

/// Everything that is wrong with a catalog; never empty.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CatalogErrors(pub Vec<CatalogError>);

impl std::fmt::Display for CatalogErrors {
    /// One line: the first, and how many more there are.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let mut all = self.0.iter();
        if let Some(first) = all.next() {
            write!(f, "{first}")?;
        }
        match all.len() {
            0 => Ok(()),
            more => write!(
                f,
                " (and {more} more; `compose-broker catalog check` lists all)"
            ),
        }
    }
}

impl std::error::Error for CatalogErrors {}

/// All offerings, checked.
#[derive(Debug)]
pub struct Catalog {
    offerings: Vec<Arc<Offering>>,
    served: Served,
    served_without_rotation: Served,
}

/// A body such as that of `GET /v2/catalog`, and what it is compared by.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Served {
    /// The body, which all answers share.
    pub body: Bytes,
    /// What is the same as long as the body is, over restarts too: 32 hexadecimal digits.
    pub tag: String,
    /// When it was changed, if that is known: a whole second.
    pub modified: Option<DateTime<Utc>>,
}

impl Served {
    /// A body, and the tag that it has.
    pub fn new(body: String) -> Self {
        let digest = ring::digest::digest(&ring::digest::SHA256, body.as_bytes());
        let hex = |byte: &u8| format!("{byte:02x}");
        Self {
            tag: digest.as_ref().iter().take(16).map(hex).collect(),
            body: body.into(),
            modified: None,
        }
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Document {
    services: Vec<OfferingDocument>,
}

#[derive(Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
struct OfferingDocument {
    id: String,
    name: String,
    description: String,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    tags: Vec<String>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    requires: Vec<String>,
    bindable: bool,
    #[serde(default)]
    instances_retrievable: bool,
    #[serde(default)]
    bindings_retrievable: bool,
    #[serde(default)]
    allow_context_updates: bool,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    metadata: Option<serde_json::Map<String, Value>>,
    #[serde(default)]
    plan_updateable: bool,
    plans: Vec<PlanDocument>,
    #[serde(skip_serializing)]
    broker: OfferingRules,
}

#[derive(Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
struct PlanDocument {
    id: String,
    name: String,
    description: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    metadata: Option<serde_json::Map<String, Value>>,
    // Korifi takes an absent `free` for false, everybody else for true: it is always written out.
    free: bool,
    // Korifi shows an absent one as false, whatever the offering says: it is written out too.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    bindable: Option<bool>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    plan_updateable: Option<bool>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    binding_rotatable: Option<bool>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    schemas: Option<Schemas>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    maximum_polling_duration: Option<u32>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    maintenance_info: Option<MaintenanceInfo>,
    #[serde(skip_serializing)]
    broker: PlanRules,
}

#[derive(Deserialize, Serialize, Default)]
#[serde(deny_unknown_fields)]
struct Schemas {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    service_instance: Option<InstanceSchemas>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    service_binding: Option<BindingSchemas>,
}

#[derive(Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
struct InstanceSchemas {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    create: Option<InputSchema>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    update: Option<InputSchema>,
}

#[derive(Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
struct BindingSchemas {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    create: Option<InputSchema>,
}

#[derive(Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
struct InputSchema {
    parameters: Value,
}

/// OSB's `maintenance_info`.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct MaintenanceInfo {
    /// Semantic version 2.0.
    pub version: String,
    /// For people.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub description: Option<String>,
}

/// An offering.
#[derive(Debug)]
pub struct Offering {
    /// OSB `service_id`.
    pub id: String,
    /// CLI name.
    pub name: String,
    /// Whether it can be bound, unless a plan says otherwise.
    pub bindable: bool,
    /// What we do with it.
    pub rules: OfferingRules,
    /// Its plans.
    pub plans: Vec<Arc<Plan>>,
}

/// A plan of an offering.
#[derive(Debug)]
pub struct Plan {
    /// OSB `plan_id`.
    pub id: String,
    /// CLI name.
    pub name: String,
    /// Whether its instances can be bound.
    pub bindable: bool,
    /// Whether a binding may take over from another one.
    pub binding_rotatable: bool,
    /// What we do with it.
    pub rules: PlanRules,
    /// The plan's maintenance version, if it has one.
    pub maintenance_info: Option<MaintenanceInfo>,
    /// Checks `parameters` of a provision request.
    pub provision_schema: ParameterSchema,
    /// Checks `parameters` of an update.
    pub update_schema: ParameterSchema,
    /// Checks `parameters` of a bind request.
    pub bind_schema: ParameterSchema,
}

/// The schema that request parameters are held to: the very one that the catalog shows.
#[derive(Debug, Default)]
pub struct ParameterSchema(Option<Compiled>);

#[derive(Debug)]
struct Compiled {
    schema: Value,
    validator: jsonschema::Validator,
}

impl ParameterSchema {
    /// Says what does not fit, naming the field.
    pub fn check(&self, parameters: &Value) -> Result<(), String> {
        let Some(Compiled { schema, validator }) = &self.0 else {
            return Ok(());
        };
        let Some(error) = validator.iter_errors(parameters).next() else {
            return Ok(());
        };
        let said = match error.kind() {
            ValidationErrorKind::AdditionalProperties { unexpected } => {
                let place = error.schema_path().to_string();
                unknown(unexpected, &properties_beside(schema, &place))
            }
            _ => error.to_string(),
        };
        let at = error.instance_path().to_string();
        Err(if at.is_empty() {
            said
        } else {
            format!("{at}: {said}")
        })
    }
}

/// The names that a schema knows, in its order; `place` is the pointer to one of its keywords.
fn properties_beside<'a>(schema: &'a Value, place: &str) -> Vec<&'a str> {
    let around = place.rsplit_once('/').map_or("", |(around, _)| around);
    let properties = schema
        .pointer(around)
        .and_then(|s| s["properties"].as_object());
    let names = properties.into_iter().flat_map(|p| p.keys());
    names.map(String::as_str).collect()
}

/// Says which names there are, to somebody who gave others.
fn unknown(given: &[String], known: &[&str]) -> String {
    let given: Vec<String> = given.iter().map(|name| format!("{name:?}")).collect();
    let is = if given.len() == 1 { "is" } else { "are" };
    let given = given.join(", ");
    if known.is_empty() {
        return format!("{given} {is} not known here: there are no parameters");
    }
    format!(
        "{given} {is} none of its parameters; these are: {}",
        known.join(", ")
    )
}

impl Catalog {
    /// Reads and checks a catalog file's text. `engines` are the engines that this broker has.
    pub fn parse(text: &str, engines: &[&str]) -> Result<Self, CatalogErrors> {
        let one = |error| CatalogErrors(vec![error]);
        let value: Value =
            serde_json::from_str(text).map_err(|e| one(error("", format!("not JSON: {e}"))))?;
        let violations = check::violations(&value, engines);
        if !violations.is_empty() {
            return Err(CatalogErrors(violations));
        }
        let mut document: Document = serde_path_to_error::deserialize(&value)
            .map_err(|e| one(error(&e.path().to_string(), e.inner().to_string())))?;
        for offering in &mut document.services {
            for plan in &mut offering.plans {
                plan.bindable.get_or_insert(offering.bindable);
            }
        }
        let mut shown = serde_json::json!({ "services": document.services });
        let served = Served::new(shown.to_string());
        hide_rotation(&mut shown);
        let served_without_rotation = Served::new(shown.to_string());
        let offerings = document
            .services
            .into_iter()
            .enumerate()
            .map(|(i, offering)| Offering::build(offering, &format!("services[{i}]")).map(Arc::new))
            .collect::<Result<_, _>>()
            .map_err(one)?;
        Ok(Self {
            offerings,
            served,
            served_without_rotation,
        })
    }

    /// The same, known to be so since `modified`.
    pub fn modified_at(mut self, modified: DateTime<Utc>) -> Self {
        for served in [&mut self.served, &mut self.served_without_rotation] {
            served.modified = Some(modified);
        }
        self
    }

    /// What `GET /v2/catalog` answers; without a word of rotation for platforms that are older than
    /// that, whose schemas refuse it.
    pub fn served(&self, with_rotation: bool) -> &Served {
        if with_rotation {
            &self.served
        } else {
            &self.served_without_rotation
        }
    }

    /// How many offerings and plans there are.
    pub fn counts(&self) -> (usize, usize) {
        let plans = self.offerings.iter().map(|o| o.plans.len()).sum();
        (self.offerings.len(), plans)
    }

    /// Whether there is such a plan of such an offering.
    pub fn has_plan(&self, service_id: &str, plan_id: &str) -> bool {
        let offering = self.offering(service_id);
        offering.is_some_and(|offering| offering.plan(plan_id).is_some())
    }

    /// All plans, each with the id of its offering.
    pub fn plan_ids(&self) -> Vec<(String, String)> {
        let plans = self.offerings.iter().flat_map(|offering| {
            let of_it = offering.plans.iter();
            of_it.map(|plan| (offering.id.clone(), plan.id.clone()))
        });
        plans.collect()
    }

    /// The names of the first offering and its first plan, for examples.
    pub fn first_plan(&self) -> (String, String) {
        // A catalog without them is not accepted.
        let offering = self.offerings.first();
        let plan = offering.and_then(|o| o.plans.first());
        (
            offering.map(|o| o.name.clone()).unwrap_or_default(),
            plan.map(|p| p.name.clone()).unwrap_or_default(),
        )
    }

    /// The versions that plans have their instances upgraded to: engine, plan's name, version.
    pub fn maintained(&self) -> impl Iterator<Item = (&str, &str, Version)> {
        let plans = self.offerings.iter().flat_map(|offering| {
            let engine = offering.rules.engine.as_str();
            offering.plans.iter().map(move |plan| (engine, plan))
        });
        plans.filter_map(|(engine, plan)| {
            let info = plan.maintenance_info.as_ref()?;
            Some((engine, plan.name.as_str(), info.version.parse().ok()?))
        })
    }

    /// The offering of that id.
    pub fn offering(&self, id: &str) -> Option<&Arc<Offering>> {
        self.offerings.iter().find(|o| o.id == id)
    }

    /// The rules of a plan; when it is gone, those of a plan that says nothing.
    pub fn rules_of(&self, service: &str, plan: &str) -> PlanRules {
        let offering = self.offering(service);
        let plan = offering.and_then(|offering| offering.plan(plan));
        plan.map_or_else(PlanRules::default, |plan| plan.rules.clone())
    }

    /// The offering of that name.
    pub fn offering_named(&self, name: &str) -> Option<&Arc<Offering>> {
        self.offerings.iter().find(|o| o.name == name)
    }
}

fn hide_rotation(shown: &mut Value) {
    let services = shown["services"].as_array_mut();
    let plans = services
        .into_iter()
        .flatten()
        .filter_map(|service| service["plans"].as_array_mut())
        .flatten();
    for plan in plans.filter_map(Value::as_object_mut) {
        plan.remove("binding_rotatable");
    }
}

impl Offering {
    fn build(document: OfferingDocument, path: &str) -> Result<Self, CatalogError> {
        let bindable = document.bindable;
        let plans = document
            .plans
            .into_iter()
            .enumerate()
            .map(|(i, plan)| {
                Plan::build(plan, bindable, &format!("{path}.plans[{i}]")).map(Arc::new)
            })
            .collect::<Result<_, _>>()?;
        Ok(Self {
            id: document.id,
            name: document.name,
            bindable,
            rules: document.broker,
            plans,
        })
    }

    /// The offering's own plan of that id.
    pub fn plan(&self, id: &str) -> Option<&Arc<Plan>> {
        self.plans.iter().find(|p| p.id == id)
    }

    /// The offering's own plan of that name.
    pub fn plan_named(&self, name: &str) -> Option<&Arc<Plan>> {
        self.plans.iter().find(|p| p.name == name)
    }
}

impl Plan {
    fn build(document: PlanDocument, bindable: bool, path: &str) -> Result<Self, CatalogError> {
        let schemas = document.schemas.unwrap_or_default();
        let instance = schemas.service_instance;
        let (create, update) = instance.map_or((None, None), |i| (i.create, i.update));
        Ok(Self {
            id: document.id,
            name: document.name,
            bindable: document.bindable.unwrap_or(bindable),
            binding_rotatable: document.binding_rotatable.unwrap_or(false),
            rules: document.broker,
            maintenance_info: document.maintenance_info,
            provision_schema: compile(create, &format!("{path}.schemas.service_instance.create"))?,
            update_schema: compile(update, &format!("{path}.schemas.service_instance.update"))?,
            bind_schema: compile(
                schemas.service_binding.and_then(|b| b.create),
                &format!("{path}.schemas.service_binding.create"),
            )?,
        })
    }
}

fn compile(schema: Option<InputSchema>, path: &str) -> Result<ParameterSchema, CatalogError> {
    let compiled = schema.map(|InputSchema { parameters: schema }| {
        let validator = check::compile(&schema).map_err(|e| error(path, e))?;
        Ok(Compiled { schema, validator })
    });
    Ok(ParameterSchema(compiled.transpose()?))
}

fn error(path: &str, reason: impl Into<String>) -> CatalogError {
    CatalogError {
        path: path.to_owned(),
        reason: reason.into(),
    }
}

#[cfg(test)]
mod tests;
