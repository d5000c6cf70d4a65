//! All that is wrong with a catalog: what OSB v2.17 and Cloud Controller demand, and what this broker
//! needs to work with it.
//!
//! Everything is looked at, whatever is wrong elsewhere: its author wants to know it all
//! at once. So these checks work on plain JSON and pass over what has not the right shape, which
//! [`shape`] tells by itself.

use std::{collections::HashSet, sync::LazyLock};

use jsonschema::{Draft, Validator, error::ValidationErrorKind};
use serde_json::Value;

use super::CatalogError;
use crate::model::version::Version;

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

/// Members, their types, and which must be there.
static SHAPE: LazyLock<Validator> = LazyLock::new(|| {
    let shape = serde_json::from_str(include_str!("shape.json")).expect("our own file is JSON");
    let options = jsonschema::options().with_draft(Draft::Draft4);
    options.build(&shape).expect("our own file is a schema")
});

/// Every violation, in the order of the file. `engines` are the engines that this broker has.
pub(super) fn violations(catalog: &Value, engines: &[&str]) -> Vec<CatalogError> {
    let mut found = Found::default();
    shape(catalog, &mut found);
    let services = list(&catalog["services"]);
    if catalog["services"].is_array() && services.is_empty() {
        let reason = "has no offering; Cloud Controller refuses such a catalog";
        found.at("services", reason);
    }
    let mut offerings = Names::default();
    let mut plan_ids = HashSet::new();
    for (i, service) in services.iter().enumerate() {
        let path = format!("services[{i}]");
        offering(service, &path, engines, &mut found);
        offerings.check(service, &path, "an earlier offering", &mut found);
        let mut plan_names = HashSet::new();
        for (j, one) in list(&service["plans"]).iter().enumerate() {
            let path = format!("{path}.plans[{j}]");
            plan(one, &path, &mut found);
            is_new(
                &one["id"],
                &mut plan_ids,
                &format!("{path}.id"),
                "an earlier plan",
                &mut found,
            );
            let whose = "an earlier plan of this offering";
            is_new(
                &one["name"],
                &mut plan_names,
                &format!("{path}.name"),
                whose,
                &mut found,
            );
        }
    }
    found.0
}

/// What was found so far.
#[derive(Default)]
struct Found(Vec<CatalogError>);

impl Found {
    fn at(&mut self, path: impl Into<String>, reason: impl Into<String>) {
        self.0.push(CatalogError {
            path: path.into(),
            reason: reason.into(),
        });
    }
}

fn list(value: &Value) -> &[Value] {
    value.as_array().map_or(&[], Vec::as_slice)
}

fn shape(catalog: &Value, found: &mut Found) {
    for error in SHAPE.iter_errors(catalog) {
        let path = json_path(error.instance_path().as_str());
        let below = |name: &str| {
            let dot = if path.is_empty() { "" } else { "." };
            format!("{path}{dot}{name}")
        };
        match error.kind() {
            ValidationErrorKind::AdditionalProperties { unexpected } => {
                for name in unexpected {
                    found.at(below(name), "is unknown");
                }
            }
            ValidationErrorKind::Required { property } => {
                found.at(below(property.as_str().unwrap_or_default()), "is missing");
            }
            _ => found.at(path, error.to_string()),
        }
    }
}

/// `/services/0/id` as `services[0].id`.
fn json_path(pointer: &str) -> String {
    let mut path = String::new();
    for part in pointer.split('/').skip(1) {
        let part = part.replace("~1", "/").replace("~0", "~");
        if part.bytes().all(|b| b.is_ascii_digit()) {
            path.push_str(&format!("[{part}]"));
        } else {
            if !path.is_empty() {
                path.push('.');
            }
            path.push_str(&part);
        }
    }
    path
}

/// The ids and names of offerings, to find those that are used twice.
#[derive(Default)]
struct Names {
    ids: HashSet<String>,
    names: HashSet<String>,
}

impl Names {
    fn check(&mut self, value: &Value, path: &str, whose: &str, found: &mut Found) {
        is_new(
            &value["id"],
            &mut self.ids,
            &format!("{path}.id"),
            whose,
            found,
        );
        is_new(
            &value["name"],
            &mut self.names,
            &format!("{path}.name"),
            whose,
            found,
        );
    }
}

fn is_new(value: &Value, seen: &mut HashSet<String>, path: &str, whose: &str, found: &mut Found) {
    if let Some(text) = value.as_str()
        && !seen.insert(text.to_owned())
    {
        found.at(path, format!("is used by {whose}"));
    }
}

fn offering(service: &Value, path: &str, engines: &[&str], found: &mut Found) {
    named(service, path, found);
    if let Some(engine) = service["broker"]["engine"].as_str()
        && !engines.contains(&engine)
    {
        let known = engines.join(", ");
        found.at(
            format!("{path}.broker.engine"),
            format!("is not one of: {known}"),
        );
    }
    let tags = list(&service["tags"]).iter().filter_map(Value::as_str);
    if tags.map(|tag| tag.chars().count()).sum::<usize>() > TAGS_CHARS_MAX {
        let reason = format!("have more than {TAGS_CHARS_MAX} characters");
        found.at(format!("{path}.tags"), reason);
    }
    for other in list(&service["requires"]).iter().filter_map(Value::as_str) {
        if !REQUIRES.contains(&other) {
            let reason = format!("{other:?} is not one of {REQUIRES:?}");
            found.at(format!("{path}.requires"), reason);
        }
    }
    if let Some(shareable) = service["metadata"].get("shareable")
        && !shareable.is_boolean()
    {
        found.at(format!("{path}.metadata.shareable"), "is not a boolean");
    }
    if service["bindable"] == true && service["bindings_retrievable"] != true {
        let reason = "must be true: bindings are made asynchronously and fetched afterwards";
        found.at(format!("{path}.bindings_retrievable"), reason);
    }
    if service["plan_updateable"] == true {
        found.at(format!("{path}.plan_updateable"), NO_CHANGE_OF_PLAN);
    }
    if service["plans"].as_array().is_some_and(Vec::is_empty) {
        found.at(format!("{path}.plans"), "has no plan");
    }
}

fn named(value: &Value, path: &str, found: &mut Found) {
    for field in ["id", "name", "description"] {
        if value[field]
            .as_str()
            .is_some_and(|text| text.trim().is_empty())
        {
            found.at(format!("{path}.{field}"), "is blank");
        }
    }
    let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
    if value["name"]
        .as_str()
        .is_some_and(|name| !name.chars().all(plain))
    {
        let reason = "has characters that command lines do not take";
        found.at(format!("{path}.name"), reason);
    }
    let long = |text: &str| text.chars().count() > DESCRIPTION_CHARS_MAX;
    if value["description"].as_str().is_some_and(long) {
        let reason = format!("has more than {DESCRIPTION_CHARS_MAX} characters");
        found.at(format!("{path}.description"), reason);
    }
}

fn plan(plan: &Value, path: &str, found: &mut Found) {
    named(plan, path, found);
    if plan["broker"]["on_demand_backups_kept"] == 0 {
        let reason = "is 0; the most recent successful backup is always kept";
        found.at(format!("{path}.broker.on_demand_backups_kept"), reason);
    }
    if plan["plan_updateable"] == true {
        found.at(format!("{path}.plan_updateable"), NO_CHANGE_OF_PLAN);
    }
    let info = &plan["maintenance_info"];
    if let Some(version) = info["version"].as_str() {
        let place = format!("{path}.maintenance_info.version");
        if !is_semantic_version(version) {
            found.at(place, "is not a semantic version 2.0");
        } else if version.parse::<Version>().is_err() {
            let reason =
                "is not a version of the engine, such as 3.6.16: what instances are upgraded to";
            found.at(place, reason);
        }
    }
    if info.is_object() && info.to_string().chars().count() > MAINTENANCE_INFO_CHARS_MAX {
        let reason = format!("has more than {MAINTENANCE_INFO_CHARS_MAX} characters");
        found.at(format!("{path}.maintenance_info"), reason);
    }
    for (whose, when) in [
        ("service_instance", "create"),
        ("service_instance", "update"),
        ("service_binding", "create"),
    ] {
        let parameters = &plan["schemas"][whose][when]["parameters"];
        if parameters.is_object() {
            let path = format!("{path}.schemas.{whose}.{when}.parameters");
            schema(parameters, &path, found);
        }
    }
}

fn schema(schema: &Value, path: &str, found: &mut Found) {
    if schema["$schema"] != DRAFT_04 {
        found.at(path, format!("\"$schema\" must be {DRAFT_04:?}"));
        return;
    }
    if schema.to_string().len() > SCHEMA_BYTES_MAX {
        found.at(path, format!("is larger than {SCHEMA_BYTES_MAX} bytes"));
    }
    if let Err(error) = compile(schema) {
        found.at(path, error);
    }
}

/// A schema of the one kind that OSB knows.
pub(super) fn compile(schema: &Value) -> Result<Validator, String> {
    let options = jsonschema::options().with_draft(Draft::Draft4);
    options.build(schema).map_err(|e| e.to_string())
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
    use super::*;

    #[test]
    fn semantic_versions() {
        for good in ["1.0.0", "0.0.1", "1.2.3-rc.1+build.5"] {
            assert!(is_semantic_version(good), "{good}");
        }
        for bad in ["1.0", "v1.0.0", "01.0.0", "1.0.0-", "1.0.x", ""] {
            assert!(!is_semantic_version(bad), "{bad}");
        }
    }

    #[test]
    fn paths_are_told_as_people_write_them() {
        for (pointer, path) in [
            ("", ""),
            ("/services", "services"),
            ("/services/0/plans/12/id", "services[0].plans[12].id"),
            ("/services/0/a~1b/c", "services[0].a/b.c"),
        ] {
            assert_eq!(json_path(pointer), path);
        }
    }
}
