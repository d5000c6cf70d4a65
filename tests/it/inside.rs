//! A look at what a broker keeps: its store and its disk. Only for what no API tells.

use std::{fs, sync::Arc};

use chrono::{DateTime, Utc};
use compose_broker::{
    model::{
        deployment::{Deployment, DeploymentSecrets},
        ids::InstanceId,
        instance::Instance,
        operation::{Operation, OperationKind, OperationState},
        postgres::DatabaseAddress,
        register::RegisterState,
    },
    seal::KeyRing,
    store::{self, Conn, Store, StoreError, oversight::Filter},
};
use etcd_client::Client;
use serde_json::Value;

use crate::{
    broker::{TestBroker, eventually},
    etcd, postgres,
};

/// Where members run.
/// More operations than any test makes.
const MANY: i64 = 1000;

/// A reader of one broker's store.
pub struct Inside {
    store: Arc<Store>,
    keys: KeyRing,
}

impl Inside {
    /// Looks into what `broker` keeps.
    pub fn of(broker: &TestBroker) -> Self {
        let keys = broker.data_dir().join("encryption_keys");
        let keys = fs::read_to_string(keys).expect("a key ring");
        let url = broker.store_url();
        let mut at = DatabaseAddress::from(&url);
        at.postgres.behind_pooler = postgres::is_pooled();
        Self {
            store: Arc::new(Store::open_for_reading(at).expect("a store")),
            keys: KeyRing::parse(keys.trim()).expect("a key ring"),
        }
    }

    async fn read<T: Send + 'static>(
        &self,
        look: impl FnOnce(&mut Conn<'_>) -> Result<T, StoreError> + Send + 'static,
    ) -> T {
        self.store.read(look).await.expect("an answer of the store")
    }

    /// How many ports are reserved.
    pub async fn ports_reserved(&self) -> usize {
        let held = self.read(store::deployment::addresses_held).await;
        usize::try_from(held).expect("a count")
    }

    /// How many messages wait for the webhook.
    pub async fn messages(&self) -> i64 {
        self.read(store::outbox::backlog).await.0
    }

    /// All operations of an instance, newest first; they are kept after the instance is gone.
    pub async fn operations(&self, instance: &str) -> Vec<Operation> {
        let id: InstanceId = instance.parse().expect("an id");
        self.read(move |conn| store::operation::of_instance(conn, &id, MANY))
            .await
    }

    /// The newest operation of a kind.
    pub async fn newest(&self, instance: &str, kind: OperationKind) -> Operation {
        let all = self.operations(instance).await;
        let found = all.into_iter().find(|o| o.kind == kind);
        found.unwrap_or_else(|| panic!("{instance} has no operation of kind {kind}"))
    }

    /// When an instance is looked at next by the scheduler.
    pub async fn next_scheduled(&self, instance: &str) -> Option<DateTime<Utc>> {
        let id: InstanceId = instance.parse().expect("an id");
        let schedule = self
            .read(move |conn| store::schedule::find(conn, &id))
            .await;
        schedule.map(|schedule| schedule.next_at)
    }

    /// What is known of the register of a deployment.
    pub async fn register(&self, deployment: &str) -> Option<RegisterState> {
        let id = deployment.parse().expect("an id");
        self.read(move |conn| store::register::state(conn, &id))
            .await
    }

    /// The backup whose operation is stuck.
    pub async fn stuck_backup(&self, instance: &str) -> String {
        let all = self.operations(instance).await;
        let stuck = all.into_iter().find(|o| o.state == OperationState::Stuck);
        let backup = stuck.and_then(|o| o.backup).expect("a stuck backup");
        backup.to_string()
    }

    /// Whether a step of an operation is done and recorded.
    pub async fn is_recorded(&self, operation: &Operation, step: &str) -> bool {
        let id = operation.id.clone();
        let results = self.read(move |conn| store::step::results(conn, &id)).await;
        results.contains_key(step)
    }

    /// When provisions in this state were changed last, of the newest ones at most `most`.
    pub async fn provisions(&self, state: OperationState, most: i64) -> Vec<DateTime<Utc>> {
        let filter = Filter {
            state: Some(state),
            kind: Some(OperationKind::Provision),
            ..Filter::default()
        };
        let found = self.read(move |conn| store::oversight::list(conn, &filter, most));
        let found = found.await.into_iter();
        found.map(|of| of.operation.updated_at).collect()
    }

    /// How many operations are in each state, as the operator's pages count them.
    pub async fn operation_counts(&self) -> Vec<(OperationState, u64)> {
        self.read(store::oversight::counts).await
    }

    /// Waits until nothing is queued or running on an instance.
    pub async fn idle(&self, instance: &str) {
        eventually("the end of all operations", || async {
            let all = self.operations(instance).await;
            all.iter().all(|o| !o.state.is_active()).then_some(())
        })
        .await;
    }

    /// Kind and state of each operation of an instance, sorted.
    pub async fn outcomes(&self, instance: &str) -> Vec<(&'static str, OperationState)> {
        let all = self.operations(instance).await;
        let mut outcomes: Vec<_> = all.iter().map(|o| (o.kind.as_str(), o.state)).collect();
        outcomes.sort_by_key(|(kind, _)| *kind);
        outcomes
    }

    /// Whether anything that operations of an instance worked with is still written down: it may
    /// hold secrets.
    pub async fn work_is_remembered(&self, instance: &str) -> bool {
        for operation in self.operations(instance).await {
            let id = operation.id.clone();
            let results = self.read(move |conn| store::step::results(conn, &id)).await;
            if operation.source.is_some() || !results.is_empty() {
                return true;
            }
        }
        false
    }

    /// An instance.
    pub async fn instance(&self, id: &str) -> Instance {
        self.find(id).await.expect("an instance")
    }

    /// An instance, if it is there.
    pub async fn find(&self, id: &str) -> Option<Instance> {
        let id: InstanceId = id.parse().expect("an id");
        self.read(move |conn| store::instance::find(conn, &id))
            .await
    }

    /// The deployment behind an instance, with its secrets if it has any.
    pub async fn deployment(
        &self,
        instance: &str,
    ) -> Option<(Deployment, Option<DeploymentSecrets>)> {
        let id: InstanceId = instance.parse().expect("an id");
        let (deployment, sealed) = self
            .read(move |conn| store::deployment::of_instance(conn, &id))
            .await?;
        let secrets = sealed.map(|sealed| {
            let plain = self.keys.open(&deployment.seal_context(), &sealed);
            serde_json::from_slice(&plain.expect("a secret of this broker")).expect("secrets")
        });
        Some((deployment, secrets))
    }

    /// The database behind an instance, as its administrator. Any binding's `credentials` tell
    /// where it is.
    pub async fn administrator(&self, instance: &str, credentials: &Value) -> Client {
        let found = self.deployment(instance).await;
        let (_, secrets) = found.expect("a deployment");
        let password = secrets.expect("secrets").root_password;
        etcd::connect_as(credentials, "uri", "root", password.expose())
            .await
            .expect("a connection")
    }

    /// The users and roles that a database has beside its administrator.
    pub async fn users_and_roles(
        &self,
        instance: &str,
        credentials: &Value,
    ) -> (Vec<String>, Vec<String>) {
        let mut root = self.administrator(instance, credentials).await;
        let users = root.user_list().await.expect("users");
        let roles = root.role_list().await.expect("roles");
        let others = |names: &[String]| {
            let mut others: Vec<_> = names.iter().filter(|n| *n != "root").cloned().collect();
            others.sort();
            others
        };
        (others(users.users()), others(roles.roles()))
    }
}

/// The files that a broker keeps, with `ID` for each of our own ids. What a database keeps in its
/// home is its own affair.
pub fn files_without_ids(broker: &TestBroker) -> Vec<String> {
    let mut files: Vec<String> = broker
        .files()
        .iter()
        .filter(|file| !file.contains("/home/"))
        .map(|file| without_ids(file))
        .collect();
    files.sort();
    files
}

/// Files of deployments and backups; what a broker keeps for itself is none.
pub fn files_of_deployments(broker: &TestBroker) -> Vec<String> {
    let of_deployments = |file: &String| {
        let folders = ["clusters/", "backups/"];
        let own = ["/.lock", "/.compose-broker.json"];
        folders.iter().any(|folder| file.starts_with(folder))
            && !own.iter().any(|name| file.ends_with(name))
    };
    broker.files().into_iter().filter(of_deployments).collect()
}

fn without_ids(path: &str) -> String {
    let is_id = |part: &str| part.len() == 24 && part.bytes().all(|b| b.is_ascii_hexdigit());
    let parts: Vec<&str> = path
        .split('/')
        .map(|part| if is_id(part) { "ID" } else { part })
        .collect();
    parts.join("/")
}
