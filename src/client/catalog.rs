//! What a broker has on offer, as its catalog tells it.

use std::time::Duration;

use serde_json::{Value, json};

use super::{
    book::{Instance, Plan},
    error::{Error, Result},
    show::Show,
};

/// A broker's catalog.
pub struct Catalog(pub Value);

/// One plan of one offering.
#[derive(Clone, Copy)]
pub struct Offer<'a> {
    service: &'a Value,
    plan: &'a Value,
}

impl Catalog {
    fn services(&self) -> impl Iterator<Item = &Value> {
        self.0["services"].as_array().into_iter().flatten()
    }

    /// The plan of that name.
    ///
    /// # Errors
    ///
    /// There is no such offering or plan; those that there are are told.
    pub fn find(&self, offering: &str, plan: &str) -> Result<Offer<'_>> {
        let service = self
            .services()
            .find(|s| s["name"] == offering)
            .ok_or_else(|| missing("offering", offering, self.services()))?;
        Self::plan_of(service, plan)
    }

    /// Another plan of an instance's offering.
    pub fn other_plan(&self, instance: &Instance, plan: &str) -> Result<Offer<'_>> {
        let by_id = self.services().find(|s| s["id"] == instance.service_id);
        match by_id {
            Some(service) => Self::plan_of(service, plan),
            None => self.find(&instance.offering, plan),
        }
    }

    fn plan_of<'a>(service: &'a Value, name: &str) -> Result<Offer<'a>> {
        let plan = plans(service).find(|p| p["name"] == name);
        let plan = plan.ok_or_else(|| missing("plan", name, plans(service)))?;
        Ok(Offer { service, plan })
    }

    /// The plan with those ids. A broker may have taken it from its catalog.
    pub fn by_ids(&self, service_id: &str, plan_id: &str) -> Option<Offer<'_>> {
        let service = self.services().find(|s| s["id"] == service_id)?;
        let plan = plans(service).find(|p| p["id"] == plan_id)?;
        Some(Offer { service, plan })
    }

    /// The plan that an instance has. Of one that this machine does not know the names are known alone.
    pub fn of(&self, instance: &Instance) -> Option<Offer<'_>> {
        if instance.service_id.is_empty() {
            return self.find(&instance.offering, &instance.plan.name).ok();
        }
        self.by_ids(&instance.service_id, &instance.plan.id)
    }

    /// All that is on offer, for people and for programs. `only`: of this offering.
    pub fn listing(&self, show: &Show, only: Option<&str>) -> Result<(String, Value)> {
        let services: Vec<&Value> = self
            .services()
            .filter(|s| only.is_none_or(|name| s["name"] == name))
            .collect();
        if let (Some(name), true) = (only, services.is_empty()) {
            return Err(missing("offering", name, self.services()));
        }
        let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        let rows = services.iter().flat_map(|service| {
            plans(service).map(|plan| {
                // OSB: a plan is free unless it says otherwise.
                let free = plan["free"].as_bool().unwrap_or(true);
                [
                    text(&service["name"]),
                    text(&plan["name"]),
                    if free { "free" } else { "paid" }.to_owned(),
                    text(&plan["maintenance_info"]["version"]),
                    text(&plan["description"]),
                ]
            })
        });
        let head = ["OFFERING", "PLAN", "COSTS", "VERSION", "DESCRIPTION"];
        Ok((show.table(head, rows), json!({ "offerings": services })))
    }
}

impl Offer<'_> {
    /// The offering's id.
    pub fn service_id(&self) -> String {
        self.service["id"].as_str().unwrap_or_default().to_owned()
    }

    /// The offering's name.
    pub fn offering(&self) -> String {
        self.service["name"].as_str().unwrap_or_default().to_owned()
    }

    /// The plan.
    pub fn plan(&self) -> Plan {
        let text = |name: &str| self.plan[name].as_str().unwrap_or_default().to_owned();
        Plan {
            id: text("id"),
            name: text("name"),
        }
    }

    /// Whether the broker tells of instances that it is asked for.
    pub fn instances_retrievable(&self) -> bool {
        self.service["instances_retrievable"] == true
    }

    /// Whether the broker is told of another name of an instance.
    pub fn takes_contexts(&self) -> bool {
        self.service["allow_context_updates"] == true
    }

    /// Whether the broker tells of bindings that it is asked for.
    pub fn bindings_retrievable(&self) -> bool {
        self.service["bindings_retrievable"] == true
    }

    /// How long operations may take.
    pub fn longest(&self) -> Option<Duration> {
        let seconds = self.plan["maximum_polling_duration"].as_u64();
        seconds
            .filter(|seconds| *seconds > 0)
            .map(Duration::from_secs)
    }

    /// What new instances are made of, in a platform's words.
    pub fn maintenance(&self) -> Option<Value> {
        let info = &self.plan["maintenance_info"];
        info["version"].is_string().then(|| info.clone())
    }
}

fn plans(service: &Value) -> impl Iterator<Item = &Value> {
    service["plans"].as_array().into_iter().flatten()
}

fn missing<'a>(what: &str, name: &str, there: impl Iterator<Item = &'a Value>) -> Error {
    let names: Vec<&str> = there.filter_map(|entry| entry["name"].as_str()).collect();
    // `standard` in place of `Standard`.
    let meant = names.iter().find(|other| other.eq_ignore_ascii_case(name));
    let meant = meant.map_or_else(String::new, |other| format!("; did you mean {other}?"));
    let names = names.join(", ");
    Error::Failed(format!(
        "the broker has no {what} {name}; it has: {names}{meant}"
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_in_the_wrong_case_is_asked_about() {
        let plans = json!([{ "id": "1", "name": "Small" }, { "id": "2", "name": "Large" }]);
        let catalog = Catalog(json!({ "services": [{ "id": "s", "name": "db", "plans": plans }] }));
        let refused = |offering: &str, plan: &str| {
            let found = catalog.find(offering, plan);
            found.err().map(|error| error.to_string())
        };
        assert_eq!(refused("db", "Small"), None);
        assert_eq!(
            refused("db", "small").as_deref(),
            Some("the broker has no plan small; it has: Small, Large; did you mean Small?")
        );
        assert_eq!(
            refused("DB", "Small").as_deref(),
            Some("the broker has no offering DB; it has: db; did you mean db?")
        );
        assert_eq!(
            refused("db", "tiny").as_deref(),
            Some("the broker has no plan tiny; it has: Small, Large")
        );
    }
}
