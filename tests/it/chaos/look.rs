//! A look at all that there is: rows, processes, folders, objects, users.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::{Path, PathBuf},
    sync::Arc,
};

use compose_broker::model::{
    operation::{OperationKind, OperationState},
    origin::Origin,
};
use diesel::{
    Connection as _, PgConnection, QueryableByName, RunQueryDsl as _, SqliteConnection, sql_query,
    sql_types::{Nullable, Text},
};

use super::model::{BackupSeen, DeploymentSeen, OperationSeen, Seen};
use crate::{broker::processes_below, memory::cluster::MemoryCluster, registers::REGISTER};

/// Tables whose rows stay when the instance is gone, and tell of it.
const REMEMBER: [&str; 2] = ["operations", "audit"];
/// The same of the deployment.
const REMEMBER_DEPLOYMENTS: [&str; 2] = ["backups", "backup_registers"];
/// Deployments that backups may be of.
const WITH_BACKUPS: &str =
    "SELECT id FROM deployments UNION SELECT deployment_id FROM deleted_instances";

/// Where everything is.
#[derive(Clone)]
pub struct Places {
    /// The address of the store.
    pub store: String,
    pub members: Members,
    /// The backups' folder.
    pub backups: PathBuf,
}

/// Where members run.
#[derive(Clone)]
pub enum Members {
    /// As processes below these folders, each of a cluster.
    Processes(Vec<PathBuf>),
    Memory(Arc<MemoryCluster>),
}

impl Members {
    /// All that run.
    pub fn running(&self) -> usize {
        match self {
            Self::Processes(folders) => folders.iter().map(|of| processes_below(of).len()).sum(),
            Self::Memory(cluster) => cluster.running().len(),
        }
    }

    /// The deployments that have something there, with how many of their members run.
    fn deployments(&self) -> Vec<(String, usize)> {
        match self {
            Self::Processes(folders) => {
                let of = |cluster: &PathBuf| {
                    let count = |id: &String| processes_below(&cluster.join(id)).len();
                    let ids = folders_in(cluster).into_iter();
                    ids.map(|id| (id.clone(), count(&id))).collect::<Vec<_>>()
                };
                folders.iter().flat_map(of).collect()
            }
            Self::Memory(cluster) => cluster.deployments_running(),
        }
    }
}

/// Some columns of a row.
#[derive(QueryableByName)]
struct Row {
    #[diesel(sql_type = Nullable<Text>)]
    a: Option<String>,
    #[diesel(sql_type = Nullable<Text>)]
    b: Option<String>,
    #[diesel(sql_type = Nullable<Text>)]
    c: Option<String>,
    #[diesel(sql_type = Nullable<Text>)]
    d: Option<String>,
    #[diesel(sql_type = Nullable<Text>)]
    e: Option<String>,
    #[diesel(sql_type = Nullable<Text>)]
    f: Option<String>,
}

impl Row {
    fn all(self) -> [String; 6] {
        [self.a, self.b, self.c, self.d, self.e, self.f].map(Option::unwrap_or_default)
    }
}

/// The tables of a store.
enum Tables {
    Sqlite(SqliteConnection),
    Postgres(PgConnection),
}

impl Tables {
    fn of(url: &str) -> Self {
        match url.strip_prefix("sqlite://") {
            Some(file) => {
                let mut connection = SqliteConnection::establish(file).expect("a connection");
                let calm = sql_query("PRAGMA busy_timeout = 10000").execute(&mut connection);
                calm.expect("a setting");
                Self::Sqlite(connection)
            }
            None => Self::Postgres(PgConnection::establish(url).expect("a connection")),
        }
    }

    /// These columns, as texts, of what `from` says.
    fn rows(&mut self, columns: &[&str], from: &str) -> Vec<[String; 6]> {
        let names = ["a", "b", "c", "d", "e", "f"];
        let columns = names.iter().enumerate().map(|(at, name)| {
            let column = columns.get(at).copied().unwrap_or("NULL");
            format!("CAST({column} AS TEXT) AS {name}")
        });
        let columns: Vec<String> = columns.collect();
        let query = sql_query(format!("SELECT {} FROM {from}", columns.join(", ")));
        let rows: Vec<Row> = match self {
            Self::Sqlite(connection) => query.load(connection),
            Self::Postgres(connection) => query.load(connection),
        }
        .expect("rows");
        rows.into_iter().map(Row::all).collect()
    }

    /// The tables that have a column of that name.
    fn with_column(&mut self, column: &str) -> Vec<String> {
        let from = match self {
            Self::Sqlite(_) => format!(
                "sqlite_master m JOIN pragma_table_info(m.name) p \
                 WHERE m.type = 'table' AND p.name = '{column}'"
            ),
            Self::Postgres(_) => format!(
                "information_schema.columns m \
                 WHERE m.table_schema = current_schema() AND m.column_name = '{column}'"
            ),
        };
        let name = match self {
            Self::Sqlite(_) => "m.name",
            Self::Postgres(_) => "m.table_name",
        };
        let rows = self.rows(&[name], &from);
        rows.into_iter().map(|[table, ..]| table).collect()
    }
}

/// How many operations are queued or running.
pub fn active(store: &str) -> Vec<String> {
    let columns = ["id", "kind", "instance_id", "state", "trouble"];
    let active = "operations WHERE state IN ('queued', 'running')";
    let rows = Tables::of(store).rows(&columns, active);
    rows.into_iter().map(|row| row.join(" ")).collect()
}

/// Looks at everything, but for the databases themselves.
pub fn look(at: &Places) -> Seen {
    let mut tables = Tables::of(&at.store);
    let mut seen = Seen {
        operations: operations(&mut tables),
        ..Seen::default()
    };
    let instances = tables.rows(&["id", "state"], "instances").into_iter();
    for [id, state, ..] in instances {
        if state != "ready" {
            seen.orphans.push(format!("instance {id} is {state}"));
        }
        seen.instances.insert(id);
    }
    let bindings = tables.rows(&["instance_id", "id", "state"], "bindings");
    for [instance, id, state, ..] in bindings {
        if state != "ready" {
            seen.orphans
                .push(format!("binding {id} of {instance} is {state}"));
        }
        seen.bindings.insert((instance, id));
    }
    deployments(&mut tables, at, &mut seen);
    backups(&mut tables, at, &mut seen);
    rows_of_nobody(&mut tables, &mut seen);
    seen
}

fn operations(tables: &mut Tables) -> BTreeMap<String, OperationSeen> {
    let told = tables.rows(
        &["a.operation_id", "COUNT(*)"],
        "audit a JOIN operations o ON o.id = a.operation_id AND a.action = o.kind \
         GROUP BY a.operation_id",
    );
    let told: BTreeMap<String, usize> = told
        .into_iter()
        .map(|[id, count, ..]| (id, count.parse().expect("a count")))
        .collect();
    let columns = ["id", "kind", "instance_id", "state", "origin", "failure"];
    let halted: BTreeSet<String> = tables
        .rows(&["id"], "operations WHERE halted")
        .into_iter()
        .map(|[id, ..]| id)
        .collect();
    let rows = tables.rows(&columns, "operations").into_iter();
    rows.map(|[id, kind, instance, state, origin, failure]| {
        let origin = Origin::parse(&origin).expect("an origin");
        let seen = OperationSeen {
            instance,
            kind: OperationKind::parse(&kind).expect("a kind"),
            state: OperationState::parse(&state).expect("a state"),
            is_asked: matches!(origin, Origin::Osb | Origin::Compose | Origin::Operator),
            halted: halted.contains(&id),
            failure: (!failure.is_empty()).then_some(failure),
            audited: told.get(&id).copied().unwrap_or_default(),
        };
        (id, seen)
    })
    .collect()
}

fn deployments(tables: &mut Tables, at: &Places, seen: &mut Seen) {
    for [id, instance, ..] in tables.rows(&["id", "instance_id"], "deployments") {
        let of = DeploymentSeen {
            instance,
            ..DeploymentSeen::default()
        };
        seen.deployments.insert(id, of);
    }
    for [id, count, ..] in tables.rows(
        &["deployment_id", "COUNT(*)"],
        "ports GROUP BY deployment_id",
    ) {
        match seen.deployments.get_mut(&id) {
            Some(of) => of.ports = count.parse().expect("a count"),
            None => seen
                .orphans
                .push(format!("{count} ports of deployment {id}")),
        }
    }
    let mut known = 0;
    for (id, processes) in at.members.deployments() {
        known += processes;
        match seen.deployments.get_mut(&id) {
            Some(of) => (of.has_folder, of.processes) = (true, processes),
            None => seen
                .orphans
                .push(format!("folder of {id}, {processes} processes")),
        }
    }
    let all = at.members.running();
    if all != known {
        seen.orphans
            .push(format!("{all} processes, of which {known} are members"));
    }
    let users = tables.rows(&["instance_id", "database_user"], "bindings ORDER BY 2");
    for of in seen.deployments.values_mut() {
        let own = users
            .iter()
            .filter(|[instance, ..]| *instance == of.instance);
        of.users_of_bindings = own.map(|[_, user, ..]| user.clone()).collect();
        // As long as nobody has asked the database.
        of.users.clone_from(&of.users_of_bindings);
    }
}

/// The folders of deployments in a cluster's.
fn folders_in(cluster: &Path) -> Vec<String> {
    let entries = fs::read_dir(cluster).into_iter().flatten().flatten();
    let folders = entries.filter(|entry| entry.path().is_dir());
    folders
        .map(|entry| entry.file_name().to_string_lossy().into_owned())
        .collect()
}

fn backups(tables: &mut Tables, at: &Places, seen: &mut Seen) {
    for [id, instance, state, ..] in tables.rows(&["id", "instance_id", "state"], "backups") {
        let of = BackupSeen {
            instance,
            is_complete: state == "complete",
            objects: 0,
        };
        seen.backups.insert(id, of);
    }
    let nobodys = format!("backup_registers WHERE deployment_id NOT IN ({WITH_BACKUPS})");
    for [id, ..] in tables.rows(&["deployment_id"], &nobodys) {
        seen.orphans
            .push(format!("what is known of a register of {id}"));
    }
    let known = tables.rows(&["id"], &format!("({WITH_BACKUPS}) known"));
    let is_known = |name: &str| known.iter().any(|[id, ..]| name.contains(id.as_str()));
    let mut files = Vec::new();
    collect(&at.backups, &mut files);
    for file in files {
        let name = file.display().to_string();
        if file.ends_with(REGISTER) && is_known(&name) {
            continue;
        }
        // What tells whose the folder is.
        if name.ends_with("/.compose-broker.json") {
            continue;
        }
        match seen
            .backups
            .iter_mut()
            .find(|(id, _)| name.contains(id.as_str()))
        {
            Some((_, of)) => of.objects += 1,
            None => seen.orphans.push(format!("object {name}")),
        }
    }
}

fn collect(folder: &Path, files: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
        let path = entry.path();
        match path.is_dir() {
            true => collect(&path, files),
            false => files.push(path),
        }
    }
}

/// Rows of instances, deployments and operations that are not there, in whatever table.
fn rows_of_nobody(tables: &mut Tables, seen: &mut Seen) {
    let kinds: [(&str, &str, &[&str]); 3] = [
        ("instance_id", "instances", &REMEMBER),
        ("deployment_id", "deployments", &REMEMBER_DEPLOYMENTS),
        ("operation_id", "operations", &["audit"]),
    ];
    for (column, of, remember) in kinds {
        for table in tables.with_column(column) {
            if table == of || remember.contains(&table.as_str()) {
                continue;
            }
            let nobody = format!(
                "{table} WHERE {column} IS NOT NULL AND {column} NOT IN (SELECT id FROM {of})"
            );
            for [id, ..] in tables.rows(&[column], &nobody) {
                seen.orphans
                    .push(format!("row of {table} with {column} {id}"));
            }
        }
    }
    let left = "operation_steps s JOIN operations o ON o.id = s.operation_id \
                WHERE o.state = 'succeeded' AND s.result IS NOT NULL";
    for [id, step, ..] in tables.rows(&["o.id", "s.name"], left) {
        seen.orphans
            .push(format!("what step {step} of {id} worked with"));
    }
    for table in ["waiting", "lanes"] {
        for [id, ..] in tables.rows(&["operation_id"], table) {
            seen.orphans
                .push(format!("{table} has operation {id}, which has ended"));
        }
    }
}
