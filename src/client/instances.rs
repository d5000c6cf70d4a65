//! Commands about service instances.

use std::pin::pin;

use futures::{StreamExt as _, stream};
use serde_json::{Value, json};
use tokio::time::timeout;
use uuid::Uuid;

use super::{
    Session,
    book::{Instance, Kind, Last, Plan, Said, check_id},
    catalog::{Catalog, Offer},
    command::{CreateService, UpdateService, UpgradeService},
    confirm::{askable, certain, sure},
    deleted::brought_back,
    error::{Error, Result},
    osb::{Accepted, NotCreated, Resource},
    past::add_times,
    readers::NOT_FOR_READERS,
    waits::{health_in_full, health_word, state_of, waits_until},
    work::{Job, Status, look_at},
};
use crate::model::{
    health::HealthState,
    instance::DELETE_PROTECTION,
    limits::{CLIENT_LOOKS_AT_ONCE, CLIENT_UNBIND_PATIENCE},
    sentence::counted,
};

/// What is asked for when an instance is made.
pub(super) struct New {
    /// What to call it.
    pub(super) name: String,
    /// Its id, if the user chose one.
    pub(super) id: Option<String>,
    /// Its parameters.
    pub(super) parameters: Option<Value>,
    /// What its user puts on it.
    pub(super) tags: Vec<String>,
}

impl Session {
    /// `create-service`
    pub async fn create_service(&self, asked: CreateService) -> Result<()> {
        let new = New {
            name: asked.name,
            id: asked.id,
            parameters: asked.parameters.read()?,
            tags: without_blanks(asked.tags),
        };
        let catalog = self.catalog().await?;
        let offer = catalog.find(&asked.offering, &asked.plan)?;
        let owner = (self.organization.clone(), self.space.clone());
        self.create(offer, owner, new, asked.patience.wait).await
    }

    pub(super) async fn create(
        &self,
        offer: Offer<'_>,
        (organization, space): (String, String),
        new: New,
        wait: bool,
    ) -> Result<()> {
        let chosen = new.id.is_some();
        let instance = Instance {
            broker: self.book.broker().to_owned(),
            name: new.name,
            id: new.id.unwrap_or_else(|| Uuid::new_v4().to_string()),
            service_id: offer.service_id(),
            offering: offer.offering(),
            plan: offer.plan(),
            next_plan: None,
            organization,
            space,
            tags: new.tags,
            last: Last::asked(Kind::Create),
            operation: None,
            keys: Vec::new(),
        };
        self.book.add(&instance)?;
        let job = job_on(&instance, Some(offer));
        let (parameters, maintenance) = (new.parameters.as_ref(), offer.maintenance());
        let asked = self
            .osb
            .provision(&instance, parameters, maintenance.as_ref());
        let accepted = match asked.await {
            Ok(accepted) => accepted,
            Err(NotCreated::Nothing(error)) => {
                self.book.forget(&instance.id, None)?;
                return Err(error);
            }
            Err(NotCreated::Orphan(why)) if chosen => {
                return Err(Error::Failed(format!(
                    "{why}; since you chose the id, nothing was deleted: {}",
                    look_at(&instance)
                )));
            }
            Err(NotCreated::Orphan(why)) => return Err(self.mitigate(&job, &why).await),
        };
        let status = self.go_on(&job, Kind::Create, &accepted, wait).await?;
        let (Accepted::Done(body) | Accepted::Pending(_, body)) = &accepted;
        self.show_end(&instance, &status, body["dashboard_url"].as_str())
    }

    /// `service --id`: an instance that is there, under a name of this machine.
    pub async fn take_up(&self, name: &str, id: &str) -> Result<()> {
        check_id(id)?;
        let mut instance = Instance {
            broker: self.book.broker().to_owned(),
            name: name.to_owned(),
            id: id.to_owned(),
            service_id: String::new(),
            offering: String::new(),
            plan: Plan::default(),
            next_plan: None,
            organization: self.organization.clone(),
            space: self.space.clone(),
            tags: Vec::new(),
            last: Last::done(Kind::Create),
            operation: None,
            keys: Vec::new(),
        };
        let found = self.osb.fetch(Resource::of(&instance)).await?;
        let found =
            found.ok_or_else(|| Error::Failed(format!("the broker knows no instance {id}")))?;
        let id_of = |field: &str| found[field].as_str().unwrap_or_default();
        let catalog = self.catalog().await?;
        let offer = catalog.by_ids(id_of("service_id"), id_of("plan_id"));
        let offer =
            offer.ok_or_else(|| Error::Failed("the instance is of no plan on offer".into()))?;
        instance.service_id = offer.service_id();
        instance.offering = offer.offering();
        instance.plan = offer.plan();
        self.book.add(&instance)?;
        self.service(name).await
    }

    /// `service`
    pub async fn service(&self, name: &str) -> Result<()> {
        match self.catalog().await {
            Err(error) if error.is_denied() => self.service_as_reader(name).await,
            catalog => self.service_as_owner(name, catalog).await,
        }
    }

    async fn service_as_owner(&self, name: &str, catalog: Result<Catalog>) -> Result<()> {
        let instance = self.own_instance(name).await?;
        let status = self.status_unless_deleted(&instance).await?;
        let resource = Resource::of(&instance);
        let catalog = catalog?;
        let offer = catalog.of(&instance);
        // At once: the broker may look at the members for each, and those that are silent take their time.
        let (fetched, health, (times, restored, task)) = tokio::join!(
            self.fetched(resource, offer, status),
            self.health(&instance),
            self.by_api(&instance),
        );
        let (status, fetched) = fetched?;
        let last = self.last_backup(&instance, health.as_ref()).await;
        let last_backup = last.as_ref().map(|last| self.restorable(&instance, last));
        // Settled meanwhile: the plan may be another one.
        let instance = self.book.instance(name)?;
        let text = |value: &Value| value.as_str().map(str::to_owned);
        let time = |field: &str| times.as_ref().map(|of| self.time(&of[field]));
        let (began, came_further) = (time("created_at"), time("updated_at"));
        let version = text(&fetched["maintenance_info"]["version"]);
        let newest = offer.and_then(|offer| text(&offer.maintenance()?["version"]));
        let upgrade = newest.filter(|newest| version.as_ref().is_some_and(|v| v != newest));
        let upgrade_to = upgrade.as_ref().map(|to| format!("{to} (upgrade-service)"));
        let parameters = &fetched["parameters"];
        let shown = self.show.fields([
            ("name", Some(instance.name.clone())),
            ("id", Some(instance.id.clone())),
            ("offering", Some(instance.offering.clone())),
            ("plan", Some(instance.plan.name.clone())),
            ("health", health.as_ref().map(health_in_full)),
            ("last backup", last_backup),
            ("tags", tags_of(&instance)),
            ("last operation", Some(status.text())),
            ("started", began),
            ("updated", came_further),
            ("last task", task.as_ref().map(|task| self.task(task))),
            ("version", version.clone()),
            ("upgrade to", upgrade_to),
            ("parameters", parameters_in_short(parameters, &version)),
            (
                "restored from",
                restored.as_ref().map(|from| self.restored_from(from)),
            ),
            ("dashboard", text(&fetched["dashboard_url"])),
            ("keys", names_of_keys(&instance)),
        ]);
        let mut value = json_of(&instance, &status);
        add_times(&mut value["last_operation"], times.as_ref());
        value["last_task"] = json!(task);
        value["health"] = json!(health);
        value["last_backup"] = json!(last);
        value["version"] = json!(version);
        value["restored_from"] = json!(restored);
        value["upgrade"] = json!(upgrade);
        value["parameters"] = parameters.clone();
        value["dashboard_url"] = fetched["dashboard_url"].clone();
        self.advise_operators(&instance, health.as_ref());
        self.show.result(&shown, &value)
    }

    /// How the last operation of an instance stands. Fails where that was its deletion, and it is done.
    async fn status_unless_deleted(&self, instance: &Instance) -> Result<Status> {
        let status = self.status(Resource::of(instance), &instance.last).await?;
        if status.kind == Kind::Delete && status.is_done() {
            let gone = Error::Failed(format!("service instance {} is deleted", instance.name));
            return Err(self.deleted_or(&instance.name, gone).await);
        }
        Ok(status)
    }

    /// What the broker tells of an instance, where it tells of any, and the status that goes with it.
    async fn fetched(
        &self,
        resource: Resource<'_>,
        offer: Option<Offer<'_>>,
        mut status: Status,
    ) -> Result<(Status, Value)> {
        if !offer.is_some_and(|offer| offer.instances_retrievable()) {
            return Ok((status, Value::Null));
        }
        let fetched = self.osb.fetch(resource).await?;
        if fetched.is_none() && status.is_done() {
            // Somebody else has deleted it.
            status.state = "unknown";
            status.description = "the broker knows no such instance".into();
        }
        Ok((status, fetched.unwrap_or_default()))
    }

    /// `services`
    pub async fn services(&self) -> Result<()> {
        let instances = self.book.instances()?;
        if instances.is_empty() {
            let text = format!("No instance is known for {}.", self.book.broker());
            self.show.result(&text, &json!({ "services": [] }))?;
            if let Some(hint) = self.facts.hint {
                self.show.note(hint);
            }
            return Ok(());
        }
        let catalog = self.catalog().await;
        // Why it is not there, the end of the command says once.
        let is_gone = matches!(catalog, Err(Error::Http(_)));
        let only_reads = catalog.as_ref().is_err_and(Error::is_denied);
        let offers = catalog.as_ref().ok();
        let looks = stream::iter(&instances).map(|instance| async move {
            match (is_gone, only_reads) {
                (true, _) => unheard(instance),
                (_, true) => self.look_as_reader(instance).await,
                _ => self.look_over(instance, offers).await,
            }
        });
        let looks: Vec<Look> = looks.buffered(CLIENT_LOOKS_AT_ONCE).collect().await;
        let (mut rows, mut values) = (Vec::new(), Vec::new());
        let is_told = looks.iter().any(|(_, health, _)| health.is_some());
        for (instance, (status, health, upgrade)) in instances.iter().zip(looks) {
            let status = status?;
            if status.kind == Kind::Delete && status.is_done() {
                continue;
            }
            rows.push([
                instance.name.clone(),
                instance.offering.clone(),
                instance.plan.name.clone(),
                instance.keys.len().to_string(),
                health
                    .as_ref()
                    .map_or(HealthState::Unknown.word(), health_word)
                    .to_owned(),
                status.text(),
                upgrade.in_short().to_owned(),
            ]);
            let mut value = json_of(instance, &status);
            value["health"] = json!(health);
            value["upgrade"] = match upgrade {
                Upgrade::To(version) => json!(version),
                Upgrade::None | Upgrade::Untold => Value::Null,
            };
            values.push(value);
        }
        let shown = self.table_of_services(rows, is_told);
        self.show.result(&shown, &json!({ "services": values }))?;
        // Without its broker, what this machine knows is listed all the same; a script learns of it by the end.
        match catalog {
            Err(_) if only_reads => {
                self.show.note(NOT_FOR_READERS);
                Ok(())
            }
            catalog => catalog.map(drop),
        }
    }

    /// What who only reads sees of an instance: its health, and of the last operation what this machine knows.
    async fn look_as_reader(&self, instance: &Instance) -> Look {
        let (status, unknown, upgrade) = unheard(instance);
        (status, self.health(instance).await.or(unknown), upgrade)
    }

    async fn look_over(&self, instance: &Instance, offers: Option<&Catalog>) -> Look {
        let status = self.status(Resource::of(instance), &instance.last).await;
        let offer = offers.and_then(|catalog| catalog.of(instance));
        (
            status,
            self.health(instance).await,
            self.upgrade(instance, offer).await,
        )
    }

    /// A broker that tells nothing of health has no column for it.
    fn table_of_services(&self, rows: Vec<[String; 7]>, has_health: bool) -> String {
        let head = [
            "NAME",
            "OFFERING",
            "PLAN",
            "KEYS",
            "HEALTH",
            "LAST OPERATION",
            "UPGRADE AVAILABLE",
        ];
        if has_health {
            return self.show.table(head, rows);
        }
        let [name, offering, plan, keys, _, last, upgrade] = head;
        let rows = rows.into_iter();
        self.show.table(
            [name, offering, plan, keys, last, upgrade],
            rows.map(|[name, offering, plan, keys, _, last, upgrade]| {
                [name, offering, plan, keys, last, upgrade]
            }),
        )
    }

    /// Whether the plan of an instance has another version than the instance.
    async fn upgrade(&self, instance: &Instance, offer: Option<Offer<'_>>) -> Upgrade {
        let newest = offer
            .filter(|offer| offer.instances_retrievable())
            .and_then(|offer| offer.maintenance());
        let newest = newest.and_then(|info| info["version"].as_str().map(str::to_owned));
        let Some(newest) = newest else {
            return Upgrade::Untold;
        };
        let found = self.osb.fetch(Resource::of(instance)).await.ok().flatten();
        match found.unwrap_or_default()["maintenance_info"]["version"].as_str() {
            None => Upgrade::Untold,
            Some(version) if version == newest => Upgrade::None,
            Some(_) => Upgrade::To(newest),
        }
    }

    /// `rename-service`: in the file of names, and at a broker that keeps names.
    pub async fn rename(&self, name: &str, new_name: &str) -> Result<()> {
        let known = self.book.instance(name).is_ok();
        let mut instance = self.any_instance(name).await?;
        if known {
            self.book.check_free(new_name)?;
        }
        let catalog = self.catalog().await?;
        let offer = catalog.of(&instance);
        if let Some(offer) = offer.filter(|offer| offer.takes_contexts()) {
            new_name.clone_into(&mut instance.name);
            (instance.service_id, instance.plan) = (offer.service_id(), offer.plan());
            let accepted = self.osb.update(&instance, &json!({})).await?;
            if let (Accepted::Pending(..), true) = (&accepted, known) {
                let job = job_on(&instance, Some(offer));
                self.go_on(&job, Kind::Update, &accepted, true).await?;
            }
        } else if !known {
            let text = format!("the broker keeps no names of instances, and {name} has none here");
            return Err(Error::Failed(text));
        }
        if known {
            self.book.rename(&instance.id, new_name)?;
        }
        let shown = self.show.fields([
            ("name", Some(new_name.to_owned())),
            ("id", Some(instance.id.clone())),
        ]);
        let value = json!({ "name": new_name, "id": instance.id });
        self.show.result(&shown, &value)
    }

    /// `update-service`
    pub async fn update_service(&self, asked: UpdateService) -> Result<()> {
        let (name, parameters) = (&asked.name, asked.parameters.read()?);
        let is_about_tags_alone = parameters.is_none() && asked.plan.is_none();
        if is_about_tags_alone && asked.tags.is_none() {
            let text = "say what to change: -c for parameters, -p for the plan, -t for the tags";
            return Err(Error::Usage(text.into()));
        }
        let instance = self.own_instance(name).await?;
        if is_about_tags_alone {
            self.set_tags(&instance, asked.tags)?;
            return self.service(name).await;
        }
        if parameters
            .as_ref()
            .is_some_and(|p| p[DELETE_PROTECTION] == false)
        {
            let waiting = "a deletion that a platform goes on asking for deletes it at once";
            sure(
                asked.force,
                &format!("this lets service instance {name} be deleted: {waiting}"),
                &format!(
                    "Really lift the protection of {name}? It can be deleted then, and {waiting}."
                ),
                "changed",
            )?;
        }
        let catalog = self.catalog().await?;
        let mut change = json!({});
        if let Some(parameters) = parameters {
            change["parameters"] = parameters;
        }
        let mut next_plan = None;
        if let Some(plan) = &asked.plan {
            let plan = catalog.other_plan(&instance, plan)?.plan();
            change["plan_id"] = json!(plan.id);
            next_plan = Some(plan);
        }
        let wait = asked.patience.wait;
        self.change(&instance, &catalog, &change, next_plan, wait)
            .await?;
        self.set_tags(&instance, asked.tags)
    }

    fn set_tags(&self, instance: &Instance, tags: Option<Vec<String>>) -> Result<()> {
        let Some(tags) = tags else {
            return Ok(());
        };
        self.book.change_instance(&instance.id, |instance| {
            instance.tags = without_blanks(tags);
            Ok(())
        })
    }

    /// The version that the plan of an instance has now.
    pub(super) async fn version_of_plan(&self, name: &str) -> Result<String> {
        let instance = self.own_instance(name).await?;
        let catalog = self.catalog().await?;
        let maintained = catalog.of(&instance).and_then(|offer| offer.maintenance());
        let version = maintained.and_then(|info| info["version"].as_str().map(str::to_owned));
        version.ok_or_else(|| {
            let plan = &instance.plan.name;
            Error::Failed(format!("the plan {plan} has no version to upgrade to"))
        })
    }

    /// `upgrade-service`
    pub async fn upgrade_service(&self, asked: UpgradeService) -> Result<()> {
        let (name, wait) = (&asked.name, asked.patience.wait);
        match asked.db_version {
            version if asked.dry_run => self.rehearse_upgrade(name, version).await,
            Some(version) => self.upgrade_to(name, &version, wait).await,
            None => self.upgrade_with_plan(name, wait).await,
        }
    }

    /// To a version that the user named.
    async fn upgrade_to(&self, name: &str, version: &str, wait: bool) -> Result<()> {
        let instance = self.own_instance(name).await?;
        let catalog = self.catalog().await?;
        let change = json!({ "parameters": { "db_version": version } });
        self.change(&instance, &catalog, &change, None, wait).await
    }

    /// To the version that the plan has now.
    async fn upgrade_with_plan(&self, name: &str, wait: bool) -> Result<()> {
        let instance = self.own_instance(name).await?;
        let catalog = self.catalog().await?;
        let offer = catalog.of(&instance);
        let newest = offer.and_then(|offer| offer.maintenance());
        let newest = newest.ok_or_else(|| {
            let plan = &instance.plan.name;
            Error::Failed(format!("the plan {plan} has no version to upgrade to"))
        })?;
        let mut change = json!({ "maintenance_info": newest });
        if offer.is_some_and(|offer| offer.instances_retrievable())
            && let Some(found) = self.osb.fetch(Resource::of(&instance)).await?
        {
            let now = &found["maintenance_info"];
            if now["version"] == newest["version"] {
                let version = newest["version"].as_str().unwrap_or_default();
                self.show
                    .note(&format!("{name} has version {version} already"));
                let status = Status {
                    kind: Kind::Update,
                    state: "succeeded",
                    description: String::new(),
                };
                return self.show_end(&instance, &status, None);
            }
            if now.is_object() {
                // Beside the other values of before.
                change["previous_values"] = json!({
                    "service_id": instance.service_id,
                    "plan_id": instance.plan.id,
                    "organization_id": instance.organization,
                    "space_id": instance.space,
                    "maintenance_info": now,
                });
            }
        }
        self.change(&instance, &catalog, &change, None, wait).await
    }

    async fn change(
        &self,
        instance: &Instance,
        catalog: &Catalog,
        change: &Value,
        next_plan: Option<Plan>,
        wait: bool,
    ) -> Result<()> {
        self.warn_of_a_wait(instance, change).await;
        let accepted = self.osb.update(instance, change).await?;
        self.book.change_instance(&instance.id, |instance| {
            instance.next_plan = next_plan;
            Ok(())
        })?;
        let job = job_on(instance, catalog.of(instance));
        let status = self.go_on(&job, Kind::Update, &accepted, wait).await?;
        self.show_end(instance, &status, None)
    }

    /// `delete-service`: the keys go first, as a broker may expect; those that do not get on go with their
    /// instance.
    pub async fn delete_service(&self, name: &str, force: bool, wait: bool) -> Result<()> {
        // Who wants it gone has what they want.
        let Some(instance) = self.book.instances()?.into_iter().find(|i| i.name == name) else {
            self.show.note(&format!(
                "there is no service instance {name} for {}: nothing to delete",
                self.book.broker()
            ));
            return Ok(());
        };
        let what = format!("service instance {name} with its keys and its data");
        askable(force, &format!("this deletes {what}"))?;
        // Its keys would be gone before the broker says no. Not every broker tells of instances.
        let told = self.osb.fetch(Resource::of(&instance)).await.ok().flatten();
        let told = told.unwrap_or_default();
        if told["parameters"][DELETE_PROTECTION] == true {
            return Err(Error::Failed(format!(
                "service instance {name} is protected against deletion; nothing was deleted. To \
                 lift that: compose-broker update-service {name} -c '{{\"{DELETE_PROTECTION}\": false}}'"
            )));
        }
        let kept = self.kept_after_delete(&instance, &told).await;
        match kept {
            Some(0) => self.show.note("its backups are deleted with it"),
            Some(days) => {
                let days = counted(days, "day");
                let note = format!("its backups stay for {days} after the deletion");
                self.show.note(&note);
                self.tell_of_the_last_backup(&instance).await;
            }
            None => {}
        }
        certain(force, &what)?;
        let catalog = self.catalog().await?;
        let offer = catalog.of(&instance);
        let accepted = match self.delete_keys(&instance, offer).await? {
            Some(accepted) => accepted,
            // Of a deletion that is under way this tells how to wait for it.
            None => self.osb.delete(Resource::of(&instance)).await?,
        };
        let job = job_on(&instance, offer);
        let status = self.go_on(&job, Kind::Delete, &accepted, wait).await?;
        self.show_end(&instance, &status, None)?;
        if kept.is_some_and(|days| days > 0) {
            let back = brought_back(&instance.id, &instance.offering, &instance.plan.name);
            self.show
                .note(&format!("to make a new instance of its backups: {back}"));
        }
        Ok(())
    }

    /// Says what becomes of the last backup of an instance whose database is down, as far as the broker tells.
    async fn tell_of_the_last_backup(&self, instance: &Instance) {
        let health = self.health(instance).await.unwrap_or_default();
        // While it is closed, backups are taken all the same.
        if waits_until(&health).is_some() {
            self.show.note(&format!(
                "{} is down: a last backup is tried for a few minutes before anything is deleted; if the database \
                 stays down, it is deleted all the same",
                instance.name
            ));
        }
    }

    /// How many days the backups of an instance stay when it is deleted, where the broker, whose OSB API has
    /// `told` of it, is one of this kind.
    async fn kept_after_delete(&self, instance: &Instance, told: &Value) -> Option<u64> {
        let dashboard = told["dashboard_url"].as_str()?;
        if !dashboard.contains("/dashboard/instances/") {
            return None;
        }
        let api = self.api_of_platform(&instance.id).await.ok()??;
        let (_, retention) = api.backups().await.ok()?;
        retention["kept_after_delete_days"].as_u64()
    }

    /// Takes the keys of an instance away, one after the other. The broker may need the database for that,
    /// and the database may be down: where it takes long, the instance's own deletion is asked for, and its
    /// answer returned if it is a yes. While the instance is being deleted its keys go with it.
    async fn delete_keys(
        &self,
        instance: &Instance,
        offer: Option<Offer<'_>>,
    ) -> Result<Option<Accepted>> {
        let health = self.health(instance).await.unwrap_or_default();
        if state_of(&health) == Some(HealthState::Deleting) {
            let name = &instance.name;
            self.show
                .note(&format!("{name} is being deleted already, with its keys"));
            return Ok(None);
        }
        for key in &instance.keys {
            let mut unbinding = pin!(self.unbind(instance, offer, key, true));
            let end = timeout(CLIENT_UNBIND_PATIENCE, &mut unbinding).await;
            let (key, name) = (&key.name, &instance.name);
            let (why, failed) = match end {
                Ok(Ok(_)) => continue,
                Ok(Err(Error::Failed(why))) => (why.clone(), Some(Error::Failed(why))),
                // A broker that tells of no health may be deleting the instance.
                Ok(Err(error)) if error.is_concurrency() => (error.to_string(), Some(error)),
                Ok(Err(error)) => return Err(error),
                Err(_) => {
                    let seconds = CLIENT_UNBIND_PATIENCE.as_secs();
                    let why = format!("service key {key} of {name} is not gone after {seconds} s");
                    (why, None)
                }
            };
            match (self.osb.delete(Resource::of(instance)).await, failed) {
                (Ok(accepted), _) => {
                    let text = "the instance is deleted now, and takes its keys along";
                    self.show.note(&format!("{why}; {text}"));
                    return Ok(Some(accepted));
                }
                (Err(_), Some(failed)) => return Err(failed),
                // A broker that wants to be rid of the keys first.
                (Err(_), None) => _ = unbinding.await?,
            }
        }
        Ok(None)
    }

    /// Tells what became of an instance.
    fn show_end(&self, instance: &Instance, done: &Status, dashboard: Option<&str>) -> Result<()> {
        // What is known now, or was before it went.
        let known = self.book.instance(&instance.name);
        let instance = known.as_ref().unwrap_or(instance);
        let mut value = json_of(instance, done);
        if let Some(dashboard) = dashboard {
            value["dashboard_url"] = json!(dashboard);
        }
        let shown = self.show.fields([
            ("name", Some(instance.name.clone())),
            ("id", Some(instance.id.clone())),
            ("last operation", Some(done.text())),
            ("dashboard", dashboard.map(str::to_owned)),
        ]);
        self.show.result(&shown, &value)
    }
}

/// The tags that its user gave an instance; none where there are none.
fn tags_of(instance: &Instance) -> Option<String> {
    Some(instance.tags.join(", ")).filter(|tags| !tags.is_empty())
}

/// What the keys of an instance are called; none where it has none.
fn names_of_keys(instance: &Instance) -> Option<String> {
    let keys: Vec<&str> = instance.keys.iter().map(|key| key.name.as_str()).collect();
    (!keys.is_empty()).then(|| keys.join(", "))
}

/// What is seen of an instance: its last operation, its health, and whether it can be upgraded.
type Look = (Result<Status>, Option<Value>, Upgrade);

/// What is known of an instance where the broker is not there to say.
fn unheard(instance: &Instance) -> Look {
    let last = &instance.last;
    let status = Status {
        kind: last.kind,
        state: match last.said {
            Said::Done => "succeeded",
            Said::Nothing | Said::Accepted(_) => "unknown",
        },
        description: String::new(),
    };
    let unknown = json!({ "state": HealthState::Unknown.as_str() });
    (Ok(status), Some(unknown), Upgrade::Untold)
}

/// Whether an instance can be brought to another version.
enum Upgrade {
    /// To this one.
    To(String),
    /// It has the one of its plan.
    None,
    /// The broker does not tell.
    Untold,
}

impl Upgrade {
    fn in_short(&self) -> &str {
        match self {
            Self::To(_) => "yes",
            Self::None => "no",
            Self::Untold => "",
        }
    }
}

fn without_blanks(tags: Vec<String>) -> Vec<String> {
    let tags = tags.into_iter().map(|tag| tag.trim().to_owned());
    tags.filter(|tag| !tag.is_empty()).collect()
}

/// What is done to an instance.
pub fn job_on<'a>(instance: &'a Instance, offer: Option<Offer<'_>>) -> Job<'a> {
    Job {
        resource: Resource::of(instance),
        what: format!("service instance {}", instance.name),
        longest: offer.and_then(|offer| offer.longest()),
    }
}

/// The parameters in one line, unless there are none. The version that was asked for once is another
/// one after an upgrade: where the true one is told, it is left out.
fn parameters_in_short(parameters: &Value, version: &Option<String>) -> Option<String> {
    let mut told = parameters.as_object()?.clone();
    if version.is_some() {
        told.remove("db_version");
    }
    (!told.is_empty()).then(|| Value::Object(told).to_string())
}

fn json_of(instance: &Instance, status: &Status) -> Value {
    let keys: Vec<&str> = instance.keys.iter().map(|key| key.name.as_str()).collect();
    json!({
        "name": instance.name,
        "id": instance.id,
        "offering": instance.offering,
        "plan": instance.plan.name,
        "keys": keys,
        "tags": instance.tags,
        "last_operation": status.json(),
    })
}
