//! Commands about service keys: bindings without an application.

use std::{
    io::{self, IsTerminal as _},
    path::PathBuf,
};

use serde_json::{Value, json};
use uuid::Uuid;

use super::{
    Session,
    book::{Instance, Key, Kind, Last, check_id},
    catalog::Offer,
    confirm::certain,
    environment::{Environment, exports, object},
    error::{Error, Result},
    osb::{Accepted, NotCreated, Resource},
    show::Output,
    work::{Job, Status},
};

impl Session {
    /// `create-service-key`
    pub async fn create_key(
        &self,
        name: &str,
        key: &str,
        parameters: Option<Value>,
        wait: bool,
    ) -> Result<()> {
        let instance = self.own_instance(name).await?;
        let catalog = self.catalog().await?;
        let offer = catalog.of(&instance);
        let key = Key {
            name: key.to_owned(),
            id: Uuid::new_v4().to_string(),
            last: Last::asked(Kind::Create),
        };
        let (status, told) = self
            .bind(&instance, offer, &key, parameters.as_ref(), wait)
            .await?;
        if status.goes_on() {
            self.warn_of_a_late_key(&instance).await;
        }
        let mut value = json_of(&key, &status);
        // A broker that tells them once and never again: keep them now or never.
        if offer.is_none_or(|offer| !offer.bindings_retrievable())
            && let Some(credentials) = told
        {
            value["credentials"] = credentials.clone();
            self.show
                .note("the broker shows these credentials only now: keep them");
            return self.show.json(&value);
        }
        let shown = self.show.fields([
            ("name", Some(key.name.clone())),
            ("id", Some(key.id.clone())),
            ("last operation", Some(status.text())),
        ]);
        self.show.result(&shown, &value)
    }

    /// Makes a binding; tells how it stands, and the credentials if they came with the answer.
    pub async fn bind(
        &self,
        instance: &Instance,
        offer: Option<Offer<'_>>,
        key: &Key,
        parameters: Option<&Value>,
        wait: bool,
    ) -> Result<(Status, Option<Value>)> {
        self.book.add_key(&instance.id, key)?;
        let job = job_on(instance, offer, key);
        // What is made later has to be fetched then.
        let patiently = offer.is_some_and(|offer| offer.bindings_retrievable());
        let accepted = match self.osb.bind(job.resource, parameters, patiently).await {
            Ok(accepted) => accepted,
            Err(NotCreated::Nothing(error)) => {
                self.book.forget(&instance.id, Some(&key.id))?;
                return Err(error);
            }
            Err(NotCreated::Orphan(why)) => return Err(self.mitigate(&job, &why).await),
        };
        let status = self.go_on(&job, Kind::Create, &accepted, wait).await?;
        let credentials = match accepted {
            Accepted::Done(mut body) => Some(body["credentials"].take()),
            Accepted::Pending(..) => None,
        };
        Ok((status, credentials))
    }

    /// `service-key`
    pub async fn key(&self, name: &str, key: &str, id: Option<&str>) -> Result<()> {
        let found = self.found_key(name, key, id).await?;
        // What a key is for stands alone, so that it can be taken as it is.
        self.show.key(&found)
    }

    /// `service-key --env`
    pub async fn key_for_shell(
        &self,
        name: &str,
        key: &str,
        id: Option<&str>,
        cacert: Option<PathBuf>,
    ) -> Result<()> {
        let found = self.found_key(name, key, id).await?;
        let of = Environment::of(&found["credentials"]).ok_or_else(|| {
            Error::Failed(format!(
                "the credentials of {key} are none of etcd's: --env knows no other database"
            ))
        })?;
        let file = cacert.unwrap_or_else(|| of.default_file(&self.book.folder()));
        let variables = of.write(&file)?;
        if io::stdout().is_terminal() && self.show.output() == Output::Text {
            let text = "these lines hold a password; a shell takes them with: eval \"$(… --env)\"";
            self.show.note(text);
        }
        self.show.result(&exports(&variables), &object(&variables))
    }

    /// What the broker tells of a key, with its name.
    async fn found_key(&self, name: &str, key: &str, id: Option<&str>) -> Result<Value> {
        let instance = self.own_instance(name).await?;
        id.map_or(Ok(()), check_id)?;
        let key = match id {
            None => instance.key(key)?.clone(),
            Some(id) => Key {
                name: key.to_owned(),
                id: id.to_owned(),
                last: Last::done(Kind::Create),
            },
        };
        let resource = Resource::binding(&instance, &key.id);
        let Some(mut found) = self.osb.fetch(resource).await? else {
            let status = self.status(resource, &key.last).await?;
            let (key, text) = (&key.name, status.text());
            return Err(Error::Failed(if status.goes_on() {
                format!("the service key {key} of {name} is not made yet ({text})")
            } else {
                format!("the broker knows no service key {key} of {name} ({text})")
            }));
        };
        if id.is_some() {
            self.book.add_key(&instance.id, &key)?;
        }
        found["name"] = json!(key.name);
        found["id"] = json!(key.id);
        Ok(found)
    }

    /// `service-keys`
    pub fn keys(&self, name: &str) -> Result<()> {
        let keys = self.book.instance(name)?.keys;
        let rows = keys.iter().map(|key| [key.name.clone(), key.id.clone()]);
        let values: Vec<Value> = keys
            .iter()
            .map(|key| json!({ "name": key.name, "id": key.id }))
            .collect();
        let none = format!("{name} has no service keys here.");
        let shown = self.show.listed(["NAME", "ID"], rows, &none);
        self.show.result(&shown, &json!({ "keys": values }))
    }

    /// `delete-service-key`
    pub async fn delete_key(&self, name: &str, key: &str, force: bool, wait: bool) -> Result<()> {
        let known = self.book.instances()?.into_iter().find(|i| i.name == name);
        let Some(instance) = known.filter(|of| of.key(key).is_ok()) else {
            // Who wants it gone has what they want.
            self.show.note(&format!(
                "there is no service key {key} of {name}: nothing to delete"
            ));
            return Ok(());
        };
        let key = instance.key(key)?;
        certain(force, &format!("service key {} of {name}", key.name))?;
        let catalog = self.catalog().await?;
        let offer = catalog.of(&instance);
        let status = self.unbind(&instance, offer, key, wait).await?;
        let shown = self.show.fields([
            ("name", Some(key.name.clone())),
            ("id", Some(key.id.clone())),
            ("last operation", Some(status.text())),
        ]);
        self.show.result(&shown, &json_of(key, &status))
    }

    /// Takes a binding away.
    pub async fn unbind(
        &self,
        instance: &Instance,
        offer: Option<Offer<'_>>,
        key: &Key,
        wait: bool,
    ) -> Result<Status> {
        let job = job_on(instance, offer, key);
        let accepted = self.osb.delete(job.resource).await?;
        self.go_on(&job, Kind::Delete, &accepted, wait).await
    }
}

fn job_on<'a>(instance: &'a Instance, offer: Option<Offer<'_>>, key: &'a Key) -> Job<'a> {
    Job {
        resource: Resource::binding(instance, &key.id),
        what: format!("service key {} of {}", key.name, instance.name),
        longest: offer.and_then(|offer| offer.longest()),
    }
}

fn json_of(key: &Key, status: &Status) -> Value {
    json!({ "name": key.name, "id": key.id, "last_operation": status.json() })
}
