//! A look at what a broker keeps: its store and its disk. Only for what no API tells.

use std::{fs, sync::Mutex};

use compose_broker::{
    model::{
        deployment::DeploymentSecrets,
        operation::{OperationKind, OperationState},
    },
    seal::KeyRing,
};
use diesel::{
    Connection as _, QueryableByName, RunQueryDsl, SqliteConnection, connection::SimpleConnection,
    sql_types::Text,
};
use etcd_client::Client;
use serde_json::Value;

use crate::{
    broker::{TestBroker, eventually, text},
    etcd,
};

/// A reader of one broker's store: it takes no part in what the broker locks.
pub struct Inside {
    store: Mutex<SqliteConnection>,
    keys: KeyRing,
}

/// A row of a question: one JSON text.
#[derive(QueryableByName)]
struct Row {
    #[diesel(sql_type = Text)]
    value: String,
}

/// An operation, as it is written down.
#[derive(Debug)]
pub struct OperationRow {
    pub id: String,
    pub kind: OperationKind,
    pub state: OperationState,
    pub backup: Option<String>,
    pub remembers: bool,
}

impl Inside {
    /// Looks into what `broker` keeps.
    pub fn of(broker: &TestBroker) -> Self {
        let folder = broker.data_dir();
        let path = folder.join("broker.db").display().to_string();
        let mut store = SqliteConnection::establish(&path).expect("a store");
        store
            .batch_execute("PRAGMA busy_timeout = 10000; PRAGMA query_only = 1;")
            .expect("a reader");
        let keys = fs::read_to_string(folder.join("encryption_keys")).expect("a key ring");
        Self {
            store: Mutex::new(store),
            keys: KeyRing::parse(keys.trim()).expect("a key ring"),
        }
    }

    /// Asks for `object`, a list of names and columns, and rows that `rest` selects by `text`.
    fn ask(&self, object: &str, rest: &str, text: &str) -> Vec<Value> {
        let question = format!("SELECT json_object({object}) AS value FROM {rest}");
        let rows: Vec<Row> = diesel::sql_query(question)
            .bind::<Text, _>(text)
            .load(&mut *self.store.lock().expect("a reader"))
            .expect("an answer of the store");
        rows.iter()
            .map(|row| serde_json::from_str(&row.value).expect("JSON"))
            .collect()
    }

    /// How many ports are reserved.
    pub fn ports_reserved(&self) -> usize {
        self.ask("'port', port", "ports WHERE host <> ?", "").len()
    }

    /// All operations of an instance, newest first; they are kept after the instance is gone.
    pub fn operations(&self, instance: &str) -> Vec<OperationRow> {
        let remembers = "source IS NOT NULL OR EXISTS (SELECT 1 FROM operation_steps
            WHERE operation_id = operations.id AND result IS NOT NULL)";
        let object = format!(
            "'id', id, 'kind', kind, 'state', state, 'backup', backup_id, 'remembers', {remembers}"
        );
        let rest = "operations WHERE instance_id = ? ORDER BY created_at DESC, id DESC";
        self.ask(&object, rest, instance)
            .iter()
            .map(|row| OperationRow {
                id: text(&row["id"]).to_owned(),
                kind: OperationKind::parse(text(&row["kind"])).expect("a kind"),
                state: OperationState::parse(text(&row["state"])).expect("a state"),
                backup: row["backup"].as_str().map(str::to_owned),
                remembers: row["remembers"] == 1,
            })
            .collect()
    }

    /// The newest operation of a kind.
    pub fn newest(&self, instance: &str, kind: OperationKind) -> OperationRow {
        let all = self.operations(instance);
        let found = all.into_iter().find(|o| o.kind == kind);
        found.unwrap_or_else(|| panic!("{instance} has no operation of kind {kind}"))
    }

    /// The backup whose operation is stuck.
    pub fn stuck_backup(&self, instance: &str) -> String {
        let all = self.operations(instance);
        let stuck = all.into_iter().find(|o| o.state == OperationState::Stuck);
        stuck.and_then(|o| o.backup).expect("a stuck backup")
    }

    /// Waits until nothing is queued or running on an instance.
    pub async fn idle(&self, instance: &str) {
        eventually("the end of all operations", || async {
            let all = self.operations(instance);
            all.iter().all(|o| !o.state.is_active()).then_some(())
        })
        .await;
    }

    /// Kind and state of each operation of an instance, sorted.
    pub fn outcomes(&self, instance: &str) -> Vec<(&'static str, OperationState)> {
        let all = self.operations(instance);
        let mut outcomes: Vec<_> = all.iter().map(|o| (o.kind.as_str(), o.state)).collect();
        outcomes.sort_by_key(|(kind, _)| *kind);
        outcomes
    }

    /// Whether anything that operations of an instance worked with is still written down: it may
    /// hold secrets.
    pub fn work_is_remembered(&self, instance: &str) -> bool {
        self.operations(instance).iter().any(|o| o.remembers)
    }

    /// The secrets of the deployment behind an instance, once it has some.
    pub fn secrets(&self, instance: &str) -> Option<DeploymentSecrets> {
        let found = self.ask(
            "'id', id, 'sealed', sealed_secrets",
            "deployments WHERE instance_id = ?",
            instance,
        );
        let row = found.first()?;
        let context = format!("deployment secrets {}", text(&row["id"]));
        let plain = self.keys.open(&context, row["sealed"].as_str()?);
        let plain = plain.expect("a secret of this broker");
        Some(serde_json::from_slice(&plain).expect("secrets"))
    }

    /// The database behind an instance, as its administrator. Any binding's `credentials` tell
    /// where it is.
    pub async fn administrator(&self, instance: &str, credentials: &Value) -> Client {
        let password = self.secrets(instance).expect("secrets").root_password;
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
        folders.iter().any(|folder| file.starts_with(folder)) && !file.ends_with("/.lock")
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
