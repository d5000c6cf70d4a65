//! Which instance a user means: one of the names on this machine, else one that the broker tells its
//! operators of, by id or by name.

use hyper::Method;
use serde_json::Value;

use super::{
    Session,
    book::{Instance, Kind, Last, Plan, check_id},
    deleted::brought_back,
    error::{Error, Result},
};

impl Session {
    /// The instance that is called so. One that this machine does not know has no keys here, and is not
    /// written down.
    pub(super) async fn any_instance(&self, name: &str) -> Result<Instance> {
        let unknown = match self.book.instance(name) {
            Ok(instance) => return Ok(instance),
            Err(error) => error,
        };
        match self.find_as_operator(name).await? {
            Some(told) => Ok(self.instance_of(&told)),
            None => Err(self.deleted_or(name, unknown).await),
        }
    }

    /// The instance that this machine calls so.
    ///
    /// # Errors
    ///
    /// There is none: of one that was deleted, what is left of it.
    pub(super) async fn own_instance(&self, name: &str) -> Result<Instance> {
        match self.book.instance(name) {
            Ok(instance) => Ok(instance),
            Err(unknown) => Err(self.deleted_or(name, unknown).await),
        }
    }

    /// That an instance was deleted, and what is left of it, where the broker tells of that.
    pub(super) async fn deleted_or(&self, name: &str, unknown: Error) -> Error {
        let Ok(Some(told)) = self.find_deleted(name).await else {
            return unknown;
        };
        let id = told["instance_id"].as_str().unwrap_or_default();
        let until = self.time(&told["kept_until"]);
        let back = brought_back(id, "OFFERING", "PLAN");
        Error::Failed(format!(
            "service instance '{name}' was deleted; its backups stay until {until}. To make a new \
             instance of them: {back}"
        ))
    }

    /// What the broker tells its operators of the instance with that id, else of the one with that name.
    /// None where there is none, and of a broker that tells nothing of the kind.
    async fn find_as_operator(&self, name: &str) -> Result<Option<Value>> {
        if check_id(name).is_err() {
            return Ok(None);
        }
        let path = ["instances", name];
        if let Some(told) = self.ask_as_operator(&path, &[]).await? {
            return Ok(Some(told));
        }
        let mut found = Vec::new();
        let mut page = 1_u64;
        loop {
            let number = page.to_string();
            let query = [("q", name), ("page", &number)];
            let Some(mut told) = self.ask_as_operator(&["instances"], &query).await? else {
                break;
            };
            if let Value::Array(instances) = told["instances"].take() {
                found.extend(instances.into_iter().filter(|of| of["name"] == name));
            }
            match told["next_page"].as_u64() {
                Some(next) if next > page => page = next,
                _ => break,
            }
        }
        if found.len() > 1 {
            let ids = found.iter().filter_map(|of| of["instance_id"].as_str());
            let ids: Vec<&str> = ids.collect();
            return Err(Error::Failed(format!(
                "several service instances are called '{name}'; give an id: {}",
                ids.join(", ")
            )));
        }
        Ok(found.pop())
    }

    /// What the broker answers its operators; none for a no, whatever its reason.
    pub(super) async fn ask_as_operator(
        &self,
        path: &[&str],
        query: &[(&str, &str)],
    ) -> Result<Option<Value>> {
        match self.osb.operator(Method::GET, path, query, None, 200).await {
            Ok(told) => Ok(Some(told)),
            Err(Error::Http(error)) => Err(error.into()),
            Err(_) => Ok(None),
        }
    }

    fn instance_of(&self, told: &Value) -> Instance {
        let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        let id = text(&told["instance_id"]);
        Instance {
            broker: self.book.broker().to_owned(),
            name: told["name"].as_str().unwrap_or(&id).to_owned(),
            id,
            service_id: String::new(),
            offering: text(&told["offering"]),
            plan: Plan {
                id: String::new(),
                name: text(&told["plan"]),
            },
            next_plan: None,
            organization: text(&told["owner"]["organization"]),
            space: text(&told["owner"]["space"]),
            tags: Vec::new(),
            last: Last::done(Kind::Create),
            operation: None,
            keys: Vec::new(),
        }
    }
}
