//! Platforms and applications that use the brokers, and write down what they were told.
//!
//! A platform asks any of the brokers. When it does not hear the answer, or hears that there is none now, it asks
//! again, another one perhaps. So it knows of each thing that it asked for whether that was accepted.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex},
    time::Duration,
};

use compose_broker::model::operation::OperationKind;
use reqwest::{Method, StatusCode};
use serde_json::{Value, json};
use tokio::time::{Instant, sleep, timeout};

use super::{
    dice::Dice,
    journal::{Asked, Journal, Promise},
    plan::{PLACES, Plan, Turn, Wish},
};
use crate::{
    broker::{ENTERPRISE, SERVICE, text},
    database::Database,
};

/// A request that nobody answers is given up after so long.
const ANSWERED_WITHIN: Duration = Duration::from_secs(8);
/// A platform asks again and again, and must have an answer by then.
const PATIENCE: Duration = Duration::from_secs(240);
/// An application that is not answered by then has not written.
const WRITTEN_WITHIN: Duration = Duration::from_secs(3);

/// Where a broker is asked.
#[derive(Debug, Clone)]
pub struct Door {
    pub url: String,
    pub username: String,
    pub password: String,
}

/// What all tenants share.
pub struct Platform {
    pub doors: Vec<Door>,
    /// Where instances are put: a tenant's are all on one.
    pub clusters: Vec<String>,
    /// What instances are.
    pub database: Database,
    pub journal: Mutex<Journal>,
    /// Before it asks again.
    pause: Duration,
    http: reqwest::Client,
}

/// A request.
#[derive(Debug, Clone)]
struct Request {
    method: Method,
    path: String,
    body: Option<Value>,
}

/// An answer, after so many times that nobody knew what became of the request.
#[derive(Debug, Clone)]
struct Told {
    status: StatusCode,
    body: Value,
    unknown: usize,
}

/// Something that was accepted and whose end is not known yet.
struct Pending {
    /// Its place in the journal.
    asked: usize,
    path: String,
    is_recipe: bool,
}

impl Platform {
    pub fn new(
        doors: Vec<Door>,
        clusters: Vec<String>,
        database: Database,
        pause: Duration,
    ) -> Arc<Self> {
        // A connection to a broker that was killed would be of no use.
        let http = reqwest::Client::builder()
            .pool_max_idle_per_host(0)
            .timeout(ANSWERED_WITHIN)
            .build();
        Arc::new(Self {
            doors,
            clusters,
            database,
            journal: Mutex::default(),
            pause,
            http: http.expect("a client"),
        })
    }

    /// Says that something is not as it has to be.
    pub fn complain(&self, what: String) {
        self.journal().complaints.push(what);
    }

    pub fn journal(&self) -> std::sync::MutexGuard<'_, Journal> {
        self.journal.lock().expect("not poisoned")
    }

    /// Asks until somebody answers.
    async fn ask(&self, request: &Request, dice: &mut Dice) -> Told {
        let (begun, mut unknown) = (Instant::now(), 0);
        loop {
            let door = dice.one_of(&self.doors).expect("a broker");
            match self.ask_at(door, request).await {
                // A broker that stood still while a request came says 408: of that nobody knows, either.
                Some((status, body))
                    if !status.is_server_error() && status != StatusCode::REQUEST_TIMEOUT =>
                {
                    return Told {
                        status,
                        body,
                        unknown,
                    };
                }
                _ => unknown += 1,
            }
            let waited = begun.elapsed();
            assert!(waited < PATIENCE, "nobody answers {request:?}");
            sleep(self.pause).await;
        }
    }

    async fn ask_at(&self, door: &Door, request: &Request) -> Option<(StatusCode, Value)> {
        let url = format!("{}{}", door.url, request.path);
        let mut sent = self
            .http
            .request(request.method.clone(), url)
            .basic_auth(&door.username, Some(&door.password))
            .header("X-Broker-API-Version", "2.17");
        if let Some(body) = &request.body {
            sent = sent.json(body);
        }
        let answer = sent.send().await.ok()?;
        let (status, headers) = (answer.status(), answer.headers().clone());
        let said = answer.text().await.ok()?;
        let body = serde_json::from_str(&said).unwrap_or(Value::Null);
        if status.is_server_error() {
            let is_told = headers.contains_key("retry-after");
            if status != StatusCode::SERVICE_UNAVAILABLE || !is_told {
                let (method, path) = (&request.method, &request.path);
                self.complain(format!(
                    "{method} {path}: {status} {said}, retry: {is_told}"
                ));
            }
        }
        Some((status, body))
    }
}

/// What a tenant has in a place.
#[derive(Default)]
struct Held {
    /// By binding.
    credentials: BTreeMap<String, Value>,
    /// The last number that the database has said to keep.
    written: u64,
    /// The newest backup, with what was in the database before it was asked for.
    backup: Option<(String, u64)>,
}

/// A tenant: it asks for one thing after the other.
pub struct Tenant {
    lane: usize,
    platform: Arc<Platform>,
    plan: Plan,
    /// What is chosen here depends on answers, and is no part of the plan.
    dice: Dice,
    places: [Held; PLACES],
    pending: Vec<Pending>,
    number: u64,
}

/// The id of the instance in a place of a tenant.
pub fn instance_of(lane: usize, place: usize) -> String {
    format!("t{lane}-{place}")
}

/// The tenant that has such an instance.
pub fn lane_of(instance: &str) -> usize {
    let lane = instance.trim_start_matches('t').split('-').next();
    let lane = lane.and_then(|lane| lane.parse().ok());
    lane.expect("an instance of a tenant")
}

impl Tenant {
    pub fn new(lane: usize, platform: Arc<Platform>, mut dice: Dice) -> Self {
        Self {
            lane,
            platform,
            plan: Plan::new(dice.split()),
            dice,
            places: [Held::default(), Held::default()],
            pending: Vec::new(),
            number: 0,
        }
    }

    /// Asks for so many things, and waits for the end of all.
    pub async fn ask_for(&mut self, count: usize) {
        let mut done = 0;
        while done < count {
            let turn = self.plan.next().expect("a turn");
            if turn.wish == Wish::Write {
                self.write(turn.place).await;
                continue;
            }
            done += 1;
            self.take(turn).await;
        }
        self.await_all().await;
    }

    /// Deletes what it has, and waits for the end.
    pub async fn leave(&mut self) {
        for place in 0..PLACES {
            let turn = Turn {
                place,
                wish: Wish::Deprovision,
                twice: false,
                waits: true,
            };
            self.take(turn).await;
        }
    }

    /// Where the databases are that it can write to, with its credentials.
    pub fn databases(&self) -> Vec<(String, Value, u64)> {
        let places = self.places.iter().enumerate();
        let with = places.filter_map(|(place, held)| {
            let credentials = held.credentials.values().next_back()?.clone();
            Some((instance_of(self.lane, place), credentials, held.written))
        });
        with.collect()
    }

    /// What is in a backup: restored into an instance of its own, which goes again.
    pub async fn restored(&mut self, promise: &Promise) -> (Option<usize>, u64) {
        let instance = format!("{}-restored", promise.instance);
        let at = format!("/v2/service_instances/{instance}");
        let ids = format!("service_id={SERVICE}&plan_id={ENTERPRISE}");
        let send = |method, path: String, body| Request { method, path, body };
        let clusters = &self.platform.clusters;
        let body = json!({
            "service_id": SERVICE, "plan_id": ENTERPRISE,
            "organization_guid": format!("o{}", self.lane),
            "space_guid": format!("s{}", self.lane),
            "parameters": {
                "source_service_instance_id": promise.instance, "backup_id": promise.backup,
                "cluster_id": clusters[self.lane % clusters.len()],
            },
        });
        let path = format!("{at}?accepts_incomplete=true");
        self.have(
            OperationKind::Restore,
            send(Method::PUT, path, Some(body)),
            &instance,
        )
        .await;
        let path = format!("{at}/service_bindings/b");
        let body = json!({ "service_id": SERVICE, "plan_id": ENTERPRISE });
        let bind = send(Method::PUT, path, Some(body));
        let bound = self.platform.clone().ask(&bind, &mut self.dice).await;
        let credentials = &bound.body["credentials"];
        let found = content(&self.platform.database, credentials).await;
        let found = found.unwrap_or_else(|error| panic!("{promise:?}: {bound:?}: {error}"));
        self.note_kind(&instance, OperationKind::Bind, Some("b"), &bound);
        let path = format!("{at}?accepts_incomplete=true&{ids}");
        self.have(
            OperationKind::Deprovision,
            send(Method::DELETE, path, None),
            &instance,
        )
        .await;
        found
    }

    /// Has something done, and waits for its end.
    async fn have(&mut self, kind: OperationKind, request: Request, instance: &str) {
        let told = self.platform.clone().ask(&request, &mut self.dice).await;
        let asked = self.note_kind(instance, kind, None, &told);
        let operation = operation_of(kind, &told);
        let operation = operation.unwrap_or_else(|| panic!("{request:?}: {told:?}"));
        let pending = Pending {
            asked,
            path: format!("/v2/service_instances/{instance}/last_operation?operation={operation}"),
            is_recipe: false,
        };
        self.await_end(pending).await;
    }

    async fn take(&mut self, turn: Turn) {
        let Some((kind, request)) = self.request(&turn).await else {
            return;
        };
        let told = self.platform.clone().ask(&request, &mut self.dice).await;
        let asked = self.note(&turn, kind, &told);
        if turn.twice {
            let again = self.platform.clone().ask(&request, &mut self.dice).await;
            self.compare(&turn, kind, asked, &told, &again);
        }
        self.remember(&turn, &told);
        if let Some(pending) = self.pending_of(&turn, asked, &told) {
            match turn.waits {
                true => self.await_end(pending).await,
                false => self.pending.push(pending),
            }
        }
        if turn.waits {
            self.fetch(&turn).await;
        }
    }

    /// What is sent for a turn; none where the tenant knows of nothing that it could ask it of.
    async fn request(&mut self, turn: &Turn) -> Option<(OperationKind, Request)> {
        let instance = instance_of(self.lane, turn.place);
        let at = format!("/v2/service_instances/{instance}");
        let ids = json!({ "service_id": SERVICE, "plan_id": ENTERPRISE });
        let query = format!("accepts_incomplete=true&service_id={SERVICE}&plan_id={ENTERPRISE}");
        let send = |method, path: String, body| Request { method, path, body };
        let cluster = &self.platform.clusters[self.lane % self.platform.clusters.len()];
        let make = |mut parameters: Value| {
            parameters["cluster_id"] = json!(cluster);
            let mut body = ids.clone();
            body["organization_guid"] = json!(format!("o{}", self.lane));
            body["space_guid"] = json!(format!("s{}", self.lane));
            body["parameters"] = parameters;
            send(Method::PUT, format!("{at}?{query}"), Some(body))
        };
        Some(match &turn.wish {
            Wish::Provision => (OperationKind::Provision, make(json!({}))),
            Wish::Restore => {
                let other = 1 - turn.place;
                let (backup, _) = self.places[other].backup.clone()?;
                let source = instance_of(self.lane, other);
                let from = json!({ "source_service_instance_id": source, "backup_id": backup });
                (OperationKind::Restore, make(from))
            }
            Wish::Steal => {
                let lane = self.lane;
                let of_others = self.platform.journal().newest_backup_of_others(lane)?;
                let from = json!({
                    "source_service_instance_id": of_others.instance, "backup_id": of_others.backup,
                });
                (OperationKind::Restore, make(from))
            }
            Wish::Bind { binding } => {
                let path = format!("{at}/service_bindings/{binding}?{query}");
                (OperationKind::Bind, send(Method::PUT, path, Some(ids)))
            }
            Wish::Rotate {
                binding,
                predecessor,
            } => {
                let path = format!("{at}/service_bindings/{binding}?{query}");
                let body = json!({ "predecessor_binding_id": predecessor });
                (OperationKind::Bind, send(Method::PUT, path, Some(body)))
            }
            Wish::Unbind { binding } => {
                let path = format!("{at}/service_bindings/{binding}?{query}");
                (OperationKind::Unbind, send(Method::DELETE, path, None))
            }
            Wish::BackUp => {
                let deployment = self.deployment(turn.place)?;
                let api = format!("/api/2016-07/instances/{instance}/deployments/{deployment}");
                let path = format!("{api}/backups");
                (OperationKind::Backup, send(Method::POST, path, None))
            }
            Wish::Update { units } => {
                let body = json!({ "service_id": SERVICE, "parameters": { "units": units } });
                let path = format!("{at}?{query}");
                (OperationKind::Update, send(Method::PATCH, path, Some(body)))
            }
            Wish::Repair { member } => {
                let body = json!({ "member": format!("m{member}") });
                let path = format!("/operator/instances/{instance}/repair");
                (OperationKind::Repair, send(Method::POST, path, Some(body)))
            }
            Wish::Deprovision => {
                let path = format!("{at}?{query}");
                (OperationKind::Deprovision, send(Method::DELETE, path, None))
            }
            Wish::Write => return None,
        })
    }

    fn deployment(&self, place: usize) -> Option<String> {
        let credentials = self.places[place].credentials.values().next_back()?;
        Some(text(&credentials["deployment_id"]).to_owned())
    }

    /// Writes down what was asked for and said; returns its place in the journal.
    fn note(&self, turn: &Turn, kind: OperationKind, told: &Told) -> usize {
        let instance = instance_of(self.lane, turn.place);
        let stolen = turn.wish == Wish::Steal;
        if stolen && told.status.is_success() {
            let said = format!("{instance} was given what is another tenant's: {told:?}");
            self.platform.complain(said);
        }
        let is_expected =
            told.status.is_success() || [400, 404, 409, 410, 422].contains(&told.status.as_u16());
        if !is_expected {
            self.platform.complain(format!("{turn:?}: {told:?}"));
        }
        let binding = match &turn.wish {
            Wish::Bind { binding } | Wish::Rotate { binding, .. } | Wish::Unbind { binding } => {
                Some(binding.clone())
            }
            _ => None,
        };
        self.note_kind(&instance, kind, binding.as_deref(), told)
    }

    fn note_kind(
        &self,
        instance: &str,
        kind: OperationKind,
        binding: Option<&str>,
        told: &Told,
    ) -> usize {
        let mut journal = self.platform.journal();
        journal.asked.push(Asked {
            instance: instance.to_owned(),
            binding: binding.map(str::to_owned),
            kind,
            status: told.status.as_u16(),
            operation: operation_of(kind, told),
            unknown: told.unknown,
            end: None,
        });
        journal.asked.len() - 1
    }

    /// The same request once more: it is the same work, or it is over.
    fn compare(&self, turn: &Turn, kind: OperationKind, asked: usize, first: &Told, again: &Told) {
        let mut journal = self.platform.journal();
        let of = &mut journal.asked[asked];
        of.unknown += again.unknown;
        let (one, other) = (operation_of(kind, first), operation_of(kind, again));
        if let (Some(one), Some(other)) = (&one, &other)
            && one != other
        {
            // A backup, a repair or a change that has ended meanwhile is done once more.
            let once_more = Asked {
                status: again.status.as_u16(),
                operation: Some(other.clone()),
                unknown: 0,
                ..of.clone()
            };
            if !matches!(kind, OperationKind::Backup | OperationKind::Repair) {
                let said = format!("{turn:?} began twice: {first:?}, {again:?}");
                journal.complaints.push(said);
            }
            journal.asked.push(once_more);
        } else if let (None, Some(other)) = (one, other) {
            // What was refused at first, since something else was in the way, was accepted now.
            of.operation = Some(other);
            of.status = again.status.as_u16();
        }
    }

    /// What the tenant has from now on.
    fn remember(&mut self, turn: &Turn, told: &Told) {
        // What is gone is gone, also where the first answer was lost.
        if !told.status.is_success() && told.status != StatusCode::GONE {
            return;
        }
        let lane = self.lane;
        let (own, other) = (turn.place, 1 - turn.place);
        match &turn.wish {
            Wish::Provision if told.status.is_success() => self.places[own] = Held::default(),
            Wish::Restore if told.status.is_success() => {
                let written = self.places[other].backup.as_ref().map_or(0, |(_, n)| *n);
                self.places[own] = Held {
                    written,
                    ..Held::default()
                };
            }
            Wish::Unbind { binding } => drop(self.places[own].credentials.remove(binding)),
            Wish::BackUp if told.status.is_success() => {
                let backup = text(&told.body["backup_id"]).to_owned();
                let at_least = self.places[own].written;
                self.places[own].backup = Some((backup.clone(), at_least));
                self.platform.journal().backups.push(Promise {
                    lane,
                    instance: instance_of(lane, own),
                    backup,
                    at_least,
                });
            }
            Wish::Deprovision => self.places[own] = Held::default(),
            _ => {}
        }
    }

    fn pending_of(&self, turn: &Turn, asked: usize, told: &Told) -> Option<Pending> {
        let journal = self.platform.journal();
        let of = &journal.asked[asked];
        if told.status != StatusCode::ACCEPTED {
            return None;
        }
        let operation = of.operation.as_ref()?;
        let instance = &of.instance;
        let (path, is_recipe) = match (&turn.wish, &of.binding) {
            (Wish::BackUp | Wish::Repair { .. }, _) => (
                format!("/api/2016-07/instances/{instance}/recipes/{operation}"),
                true,
            ),
            (_, Some(binding)) => (
                format!(
                    "/v2/service_instances/{instance}/service_bindings/{binding}/last_operation\
                     ?operation={operation}"
                ),
                false,
            ),
            (_, None) => (
                format!("/v2/service_instances/{instance}/last_operation?operation={operation}"),
                false,
            ),
        };
        Some(Pending {
            asked,
            path,
            is_recipe,
        })
    }

    async fn await_all(&mut self) {
        for pending in std::mem::take(&mut self.pending) {
            self.await_end(pending).await;
        }
    }

    /// Polls until something has ended, and writes down how.
    async fn await_end(&mut self, pending: Pending) {
        let begun = Instant::now();
        let request = Request {
            method: Method::GET,
            path: pending.path,
            body: None,
        };
        loop {
            let told = self.platform.clone().ask(&request, &mut self.dice).await;
            let field = if pending.is_recipe { "status" } else { "state" };
            let state = told.body[field].as_str().unwrap_or_default().to_owned();
            let end = match told.status {
                StatusCode::OK
                    if ["in progress", "waiting", "running"].contains(&state.as_str()) =>
                {
                    None
                }
                StatusCode::OK => Some(state),
                // A deletion that is over leaves nothing to ask of; so does an instance, of its recipes.
                StatusCode::GONE | StatusCode::NOT_FOUND => Some("gone".to_owned()),
                _ => Some(format!("{told:?}")),
            };
            if let Some(end) = end {
                self.platform.journal().asked[pending.asked].end = Some(end);
                return;
            }
            let waited = begun.elapsed();
            assert!(waited < PATIENCE, "{request:?} does not end: {told:?}");
            sleep(self.platform.pause).await;
        }
    }

    /// Gets the credentials of a binding that there is now.
    async fn fetch(&mut self, turn: &Turn) {
        let (Wish::Bind { binding } | Wish::Rotate { binding, .. }) = &turn.wish else {
            return;
        };
        let instance = instance_of(self.lane, turn.place);
        let request = Request {
            method: Method::GET,
            path: format!("/v2/service_instances/{instance}/service_bindings/{binding}"),
            body: None,
        };
        let told = self.platform.clone().ask(&request, &mut self.dice).await;
        if told.status == StatusCode::OK {
            let credentials = told.body["credentials"].clone();
            let held = &mut self.places[turn.place].credentials;
            held.insert(binding.clone(), credentials);
        }
    }

    /// Writes whose database it is and a new number.
    async fn write(&mut self, place: usize) {
        self.number += 1;
        let (number, lane) = (self.number, self.lane);
        let Some(credentials) = self.places[place].credentials.values().next_back() else {
            return;
        };
        let database = &self.platform.database;
        let writing = async {
            let put = |key, value| database.put(credentials, key, value);
            put("tenant", lane.to_string()).await?;
            put("number", number.to_string()).await
        };
        if let Ok(Ok(())) = timeout(WRITTEN_WITHIN, writing).await {
            self.places[place].written = number;
        }
    }
}

/// The operation that an answer names.
fn operation_of(kind: OperationKind, told: &Told) -> Option<String> {
    let field = if kind == OperationKind::Backup {
        "id"
    } else {
        "operation"
    };
    let named = told.status.is_success().then(|| &told.body[field])?;
    named.as_str().map(str::to_owned)
}

/// What a tenant wrote into a database: whose it is, and the number.
pub async fn content(of: &Database, credentials: &Value) -> Result<(Option<usize>, u64), String> {
    let pairs = of.read(credentials).await?;
    let tenant = pairs.get("tenant").and_then(|lane| lane.parse().ok());
    let number = pairs.get("number").and_then(|number| number.parse().ok());
    Ok((tenant, number.unwrap_or_default()))
}
