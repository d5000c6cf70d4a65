//! The catalog: which offerings and plans there are.
//!
//! It is data, read once at start. [`Catalog::parse`] checks all that OSB v2.17 and Cloud
//! Controller demand of a catalog and names the JSON path of what is wrong, so that a broken file
//! stops the start instead of being refused later by a platform. Members named `broker` are ours
//! and never leave the broker.

use std::collections::HashSet;

use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::version::Version;

/// Longest description that Cloud Controller stores, in characters.
const DESCRIPTION_CHARS_MAX: usize = 10_000;
/// Longest list of tags that Cloud Controller stores, joined, in characters.
const TAGS_CHARS_MAX: usize = 2_048;
/// Longest parameter schema that OSB allows, in bytes.
const SCHEMA_BYTES_MAX: usize = 64 * 1024;
/// Longest `maintenance_info` that Cloud Controller stores, in characters of JSON.
const MAINTENANCE_INFO_CHARS_MAX: usize = 2_000;
/// What OSB lets an offering require.
const REQUIRES: [&str; 3] = ["syslog_drain", "route_forwarding", "volume_mount"];
/// The one meta-schema that OSB demands support for.
const DRAFT_04: &str = "http://json-schema.org/draft-04/schema#";

/// Why a catalog must not promise what is not done.
const NO_CHANGE_OF_PLAN: &str = "must be false: an instance keeps its plan";

/// A violation, with the place where it stands.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("at {path}: {reason}")]
pub struct CatalogError {
    /// JSON path, for example `services[0].plans[1].id`.
    pub path: String,
    /// What is wrong.
    pub reason: String,
}

/// All offerings, checked.
#[derive(Debug)]
pub struct Catalog {
    offerings: Vec<Offering>,
    served: String,
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
    #[serde(default, skip_serializing_if = "Option::is_none")]
    bindable: Option<bool>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    plan_updateable: Option<bool>,
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
}

fn one() -> u32 {
    1
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
    pub plans: Vec<Plan>,
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
pub struct ParameterSchema(Option<jsonschema::Validator>);

impl ParameterSchema {
    /// Says what does not fit, naming the field.
    pub fn check(&self, parameters: &Value) -> Result<(), String> {
        let Some(validator) = &self.0 else {
            return Ok(());
        };
        match validator.iter_errors(parameters).next() {
            None => Ok(()),
            Some(error) => {
                let at = error.instance_path().to_string();
                Err(if at.is_empty() {
                    error.to_string()
                } else {
                    format!("{at}: {error}")
                })
            }
        }
    }
}

impl Catalog {
    /// Reads and checks a catalog file's text. `engines` are the engines that this broker has.
    pub fn parse(text: &str, engines: &[&str]) -> Result<Self, CatalogError> {
        let mut json = serde_json::Deserializer::from_str(text);
        let document: Document =
            serde_path_to_error::deserialize(&mut json).map_err(|e| CatalogError {
                path: e.path().to_string(),
                reason: e.inner().to_string(),
            })?;
        json.end().map_err(|e| error("", e.to_string()))?;
        check(&document, engines)?;
        let served = serde_json::to_string(&serde_json::json!({ "services": document.services }))
            .map_err(|e| error("services", e.to_string()))?;
        let offerings = document
            .services
            .into_iter()
            .enumerate()
            .map(|(i, offering)| Offering::build(offering, &format!("services[{i}]")))
            .collect::<Result<_, _>>()?;
        Ok(Self { offerings, served })
    }

    /// The body of `GET /v2/catalog`.
    pub fn served(&self) -> &str {
        &self.served
    }

    /// The ids of the first offering and its first plan, for examples.
    pub fn first_plan(&self) -> (String, String) {
        // A catalog without them is not accepted.
        let offering = self.offerings.first();
        let plan = offering.and_then(|o| o.plans.first());
        (
            offering.map(|o| o.id.clone()).unwrap_or_default(),
            plan.map(|p| p.id.clone()).unwrap_or_default(),
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
    pub fn offering(&self, id: &str) -> Option<&Offering> {
        self.offerings.iter().find(|o| o.id == id)
    }
}

impl Offering {
    fn build(document: OfferingDocument, path: &str) -> Result<Self, CatalogError> {
        let bindable = document.bindable;
        let plans = document
            .plans
            .into_iter()
            .enumerate()
            .map(|(i, plan)| Plan::build(plan, bindable, &format!("{path}.plans[{i}]")))
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
    pub fn plan(&self, id: &str) -> Option<&Plan> {
        self.plans.iter().find(|p| p.id == id)
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
    let Some(InputSchema { parameters }) = schema else {
        return Ok(ParameterSchema::default());
    };
    let path = format!("{path}.parameters");
    if parameters.get("$schema").and_then(Value::as_str) != Some(DRAFT_04) {
        return Err(error(&path, format!("\"$schema\" must be {DRAFT_04:?}")));
    }
    if parameters.to_string().len() > SCHEMA_BYTES_MAX {
        return Err(error(
            &path,
            format!("is larger than {SCHEMA_BYTES_MAX} bytes"),
        ));
    }
    jsonschema::options()
        .with_draft(jsonschema::Draft::Draft4)
        .build(&parameters)
        .map(|validator| ParameterSchema(Some(validator)))
        .map_err(|e| error(&path, e.to_string()))
}

fn error(path: &str, reason: impl Into<String>) -> CatalogError {
    CatalogError {
        path: path.to_owned(),
        reason: reason.into(),
    }
}

fn check(document: &Document, engines: &[&str]) -> Result<(), CatalogError> {
    if document.services.is_empty() {
        return Err(error(
            "services",
            "has no offering; Cloud Controller refuses such a catalog",
        ));
    }
    let mut offering_ids = HashSet::new();
    let mut offering_names = HashSet::new();
    let mut plan_ids = HashSet::new();
    for (i, offering) in document.services.iter().enumerate() {
        let path = format!("services[{i}]");
        check_named(&path, &offering.id, &offering.name, &offering.description)?;
        if !offering_ids.insert(&offering.id) {
            return Err(error(
                &format!("{path}.id"),
                "is used by an earlier offering",
            ));
        }
        if !offering_names.insert(&offering.name) {
            return Err(error(
                &format!("{path}.name"),
                "is used by an earlier offering",
            ));
        }
        if !engines.contains(&offering.broker.engine.as_str()) {
            let known = engines.join(", ");
            return Err(error(
                &format!("{path}.broker.engine"),
                format!("is not one of: {known}"),
            ));
        }
        if offering.tags.join("").chars().count() > TAGS_CHARS_MAX {
            return Err(error(
                &format!("{path}.tags"),
                format!("have more than {TAGS_CHARS_MAX} characters"),
            ));
        }
        if let Some(other) = offering
            .requires
            .iter()
            .find(|r| !REQUIRES.contains(&r.as_str()))
        {
            return Err(error(
                &format!("{path}.requires"),
                format!("{other:?} is not one of {REQUIRES:?}"),
            ));
        }
        if let Some(shareable) = offering.metadata.as_ref().and_then(|m| m.get("shareable"))
            && !shareable.is_boolean()
        {
            return Err(error(
                &format!("{path}.metadata.shareable"),
                "is not a boolean",
            ));
        }
        if offering.bindable && !offering.bindings_retrievable {
            return Err(error(
                &format!("{path}.bindings_retrievable"),
                "must be true: bindings are made asynchronously and fetched afterwards",
            ));
        }
        if offering.plan_updateable {
            return Err(error(&format!("{path}.plan_updateable"), NO_CHANGE_OF_PLAN));
        }
        if offering.plans.is_empty() {
            return Err(error(&format!("{path}.plans"), "has no plan"));
        }
        let mut plan_names = HashSet::new();
        for (j, plan) in offering.plans.iter().enumerate() {
            let path = format!("{path}.plans[{j}]");
            check_named(&path, &plan.id, &plan.name, &plan.description)?;
            if !plan_ids.insert(&plan.id) {
                return Err(error(&format!("{path}.id"), "is used by an earlier plan"));
            }
            if !plan_names.insert(&plan.name) {
                return Err(error(
                    &format!("{path}.name"),
                    "is used by an earlier plan of this offering",
                ));
            }
            check_plan(&path, plan)?;
        }
    }
    Ok(())
}

fn check_named(path: &str, id: &str, name: &str, description: &str) -> Result<(), CatalogError> {
    for (field, text) in [("id", id), ("name", name), ("description", description)] {
        if text.trim().is_empty() {
            return Err(error(&format!("{path}.{field}"), "is blank"));
        }
    }
    let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
    if !name.chars().all(plain) {
        return Err(error(
            &format!("{path}.name"),
            "has characters that command lines do not take",
        ));
    }
    if description.chars().count() > DESCRIPTION_CHARS_MAX {
        return Err(error(
            &format!("{path}.description"),
            format!("has more than {DESCRIPTION_CHARS_MAX} characters"),
        ));
    }
    Ok(())
}

fn check_plan(path: &str, plan: &PlanDocument) -> Result<(), CatalogError> {
    if plan.broker.on_demand_backups_kept == 0 {
        return Err(error(
            &format!("{path}.broker.on_demand_backups_kept"),
            "is 0; the most recent successful backup is always kept",
        ));
    }
    if plan.plan_updateable == Some(true) {
        return Err(error(&format!("{path}.plan_updateable"), NO_CHANGE_OF_PLAN));
    }
    if let Some(info) = &plan.maintenance_info {
        let path = format!("{path}.maintenance_info");
        if !is_semantic_version(&info.version) {
            return Err(error(
                &format!("{path}.version"),
                "is not a semantic version 2.0",
            ));
        }
        if info.version.parse::<Version>().is_err() {
            return Err(error(
                &format!("{path}.version"),
                "is not a version of the engine, such as 3.5.30: what instances are upgraded to",
            ));
        }
        let length = serde_json::to_string(info).map_or(usize::MAX, |text| text.chars().count());
        if length > MAINTENANCE_INFO_CHARS_MAX {
            return Err(error(
                &path,
                format!("has more than {MAINTENANCE_INFO_CHARS_MAX} characters"),
            ));
        }
    }
    Ok(())
}

fn is_semantic_version(text: &str) -> bool {
    let core = text.split(['-', '+']).next().unwrap_or_default();
    let number = |p: &str| {
        !p.is_empty() && p.bytes().all(|b| b.is_ascii_digit()) && (p == "0" || !p.starts_with('0'))
    };
    let suffix = &text[core.len()..];
    let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '+' | '.');
    core.split('.').count() == 3
        && core.split('.').all(number)
        && suffix.chars().all(plain)
        && suffix.len() != 1
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    const OURS: &str = include_str!("../../catalog.json");

    fn parse(value: &Value) -> Result<Catalog, CatalogError> {
        Catalog::parse(&value.to_string(), &["etcd"])
    }

    fn changed(pointer: &str, value: Value) -> CatalogError {
        let mut document: Value = serde_json::from_str(OURS).expect("JSON");
        let (parent, key) = pointer.rsplit_once('/').expect("a pointer");
        let parent = document.pointer_mut(parent).expect("a place");
        match parent {
            Value::Object(map) => drop(map.insert(key.to_owned(), value)),
            Value::Array(list) => list[key.parse::<usize>().expect("an index")] = value,
            _ => panic!("no place"),
        }
        parse(&document).expect_err("refused")
    }

    #[test]
    fn our_own_catalog_is_sound_and_keeps_our_rules_to_itself() {
        let catalog = Catalog::parse(OURS, &["etcd"]).expect("sound");
        assert!(!catalog.served().contains("\"broker\""));
        let served: Value = serde_json::from_str(catalog.served()).expect("JSON");
        let offering = &served["services"][0];
        assert_eq!(offering["name"], "compose-for-etcd");
        assert_eq!(offering["plans"][0]["name"], "Standard");
        assert_eq!(offering["plans"][1]["name"], "Enterprise");
    }

    #[test]
    fn a_broken_catalog_names_the_place() {
        let standard_id = "/services/0/plans/0/id";
        let first = serde_json::from_str::<Value>(OURS)
            .expect("JSON")
            .pointer(standard_id)
            .expect("an id")
            .clone();
        let cases = [
            ("/services/0/plans/1/id", first, "services[0].plans[1].id"),
            (
                "/services/0/plans/0/free",
                json!("no"),
                "services[0].plans[0].free",
            ),
            (
                "/services/0/plan_updatable",
                json!(true),
                "services[0].plan_updatable",
            ),
            ("/services/0/name", json!("two words"), "services[0].name"),
            (
                "/services/0/description",
                json!(" "),
                "services[0].description",
            ),
            ("/services/0/plans", json!([]), "services[0].plans"),
            (
                "/services/0/requires",
                json!(["a_pony"]),
                "services[0].requires",
            ),
            (
                "/services/0/broker/engine",
                json!("oracle"),
                "services[0].broker.engine",
            ),
            (
                "/services/0/plans/0/maintenance_info",
                json!({"version": "1.0"}),
                "services[0].plans[0].maintenance_info.version",
            ),
            (
                "/services/0/plans/0/maintenance_info",
                json!({"version": "3.5.30-rc.1"}),
                "services[0].plans[0].maintenance_info.version",
            ),
            (
                "/services/0/plan_updateable",
                json!(true),
                "services[0].plan_updateable",
            ),
            (
                "/services/0/plans/1/plan_updateable",
                json!(true),
                "services[0].plans[1].plan_updateable",
            ),
            (
                "/services/0/plans/0/schemas/service_instance/create/parameters/$schema",
                json!("http://json-schema.org/draft-07/schema#"),
                "services[0].plans[0].schemas.service_instance.create.parameters",
            ),
            (
                "/services/0/plans/0/schemas/service_instance/create/parameters/type",
                json!("objekt"),
                "services[0].plans[0].schemas.service_instance.create.parameters",
            ),
            ("/services", json!([]), "services"),
        ];
        for (pointer, value, path) in cases {
            assert_eq!(changed(pointer, value).path, path);
        }
    }

    #[test]
    fn parameters_are_held_to_the_schema_that_is_shown() {
        let catalog = Catalog::parse(OURS, &["etcd"]).expect("sound");
        let plan = &catalog.offerings[0].plans[0];
        assert_eq!(plan.provision_schema.check(&json!({})), Ok(()));
        assert_eq!(
            plan.provision_schema
                .check(&json!({"units": 4, "db_version": "3.5.16"})),
            Ok(())
        );
        let wrong = plan
            .provision_schema
            .check(&json!({"units": "four"}))
            .expect_err("a string");
        assert!(wrong.contains("units"), "{wrong}");
        assert!(
            plan.provision_schema
                .check(&json!({"unit": 4}))
                .expect_err("a typo")
                .contains("unit")
        );
        assert!(plan.bind_schema.check(&json!({"x": 1})).is_err());
    }

    #[test]
    fn semantic_versions() {
        for good in ["1.0.0", "0.0.1", "1.2.3-rc.1+build.5"] {
            assert!(is_semantic_version(good), "{good}");
        }
        for bad in ["1.0", "v1.0.0", "01.0.0", "1.0.0-", "1.0.x", ""] {
            assert!(!is_semantic_version(bad), "{bad}");
        }
    }
}
