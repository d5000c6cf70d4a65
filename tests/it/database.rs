//! The kinds of databases that a story can be told with: real etcd, and the engine in memory.

use std::{collections::BTreeMap, fs, path::Path, sync::Arc};

use compose_broker::{app::Surroundings, config::Config, model::deployment::Site};
use serde_json::Value;

use crate::{
    broker::{TestBroker, new_folder, text, with_one_backup},
    catalog::catalog_file,
    etcd,
    inside::{Inside, files_of_deployments, files_without_ids},
    memory::{
        cluster::{MemoryBacking, MemoryCluster},
        pair::{self, Pair},
    },
    recover,
};

/// Runs tests with a kind of database.
macro_rules! with {
    ($kind:ident, $database:expr, $($test:ident)+) => {
        mod $kind {
            use crate::database::Database;
            $(
                #[tokio::test(flavor = "multi_thread")]
                async fn $test() {
                    super::$test($database).await;
                }
            )+
        }
    };
}
pub(crate) use with;

/// A kind of database.
#[derive(Clone)]
pub enum Database {
    /// Real members, as processes.
    Etcd,
    /// Members in memory.
    Memory(Arc<Pair>),
}

impl Database {
    /// One in memory, on a cluster of its own.
    pub fn in_memory() -> Self {
        let cluster = MemoryCluster::new(pair::installed());
        Self::Memory(Arc::new(Pair(cluster)))
    }

    /// What a broker of such databases gets from outside.
    pub fn surroundings(&self, of: Surroundings) -> Surroundings {
        match self {
            Self::Etcd => of,
            Self::Memory(pair) => Surroundings {
                engines: vec![pair.clone()],
                ..of
            },
        }
    }

    /// Puts a cluster of such databases in the place of `local`.
    pub fn configure(&self, config: &mut Config) {
        if let Self::Memory(pair) = self {
            for of in &mut config.places.clusters {
                if of.cluster.id == "local" {
                    of.backing = Arc::new(MemoryBacking(pair.0.clone()));
                }
            }
        }
    }

    /// A broker of such databases.
    pub async fn broker(&self, flags: &[&str], surroundings: Surroundings) -> TestBroker {
        let catalog = with_one_backup(catalog_file());
        self.broker_with(&catalog, flags, surroundings).await
    }

    /// A broker whose catalog, a file `catalog.json`, is one of etcd but for the databases.
    pub async fn broker_with(
        &self,
        catalog: &Value,
        flags: &[&str],
        surroundings: Surroundings,
    ) -> TestBroker {
        let folder = new_folder();
        let file = self.catalog_in(&folder, catalog);
        let catalog = ["--catalog", file.as_str()];
        let flags: Vec<&str> = flags.iter().copied().chain(catalog).collect();
        TestBroker::start_on(self.clone(), folder.clone(), &flags, surroundings).await
    }

    /// The file of a catalog of etcd but for the databases, below `folder`.
    pub fn catalog_in(&self, folder: &Path, catalog: &Value) -> String {
        let file = folder.join("catalog.json");
        let catalog = match self {
            Self::Etcd => catalog.to_string(),
            Self::Memory(_) => of_pair(catalog.clone()).to_string(),
        };
        fs::write(&file, catalog).expect("a file");
        file.display().to_string()
    }

    /// The engine's name.
    pub fn engine(&self) -> &'static str {
        match self {
            Self::Etcd => "etcd",
            Self::Memory(_) => pair::NAME,
        }
    }

    /// A version, and one that it is upgraded to.
    pub fn versions(&self) -> [&'static str; 2] {
        match self {
            Self::Etcd => ["3.5.35", "3.6.16"],
            Self::Memory(_) => ["2.0.5", "3.1.0"],
        }
    }

    /// Ports of an instance, when the broker has none of its own.
    pub fn ports(&self) -> usize {
        match self {
            Self::Etcd => 6,
            Self::Memory(_) => 2,
        }
    }

    /// Members of an instance.
    pub fn members(&self) -> usize {
        match self {
            Self::Etcd => 3,
            Self::Memory(_) => 2,
        }
    }

    /// The name of the last member.
    pub fn last_member(&self) -> &'static str {
        match self {
            Self::Etcd => "m2",
            Self::Memory(_) => "m1",
        }
    }

    /// Whether a database lets these credentials in; where they are held to a prefix, to `/app/`.
    pub async fn lets_in(&self, credentials: &Value) -> bool {
        match self {
            Self::Etcd => match etcd::connect_to(credentials, "uri").await {
                Ok(mut client) => client.get("/app/k", None).await.is_ok(),
                Err(_) => false,
            },
            Self::Memory(pair) => pair.keys(text(&credentials["uri"])).is_ok(),
        }
    }

    /// Writes a value under a key; what went wrong, if it did.
    pub async fn put(&self, credentials: &Value, key: &str, value: String) -> Result<(), String> {
        match self {
            Self::Etcd => {
                let connected = etcd::connect_to(credentials, "uri").await;
                let mut client = connected.map_err(|error| error.to_string())?;
                let put = client.put(key, value, None).await;
                put.map(drop).map_err(|error| error.to_string())
            }
            Self::Memory(pair) => pair.put(text(&credentials["uri"]), key, &value),
        }
    }

    /// All keys and values; what went wrong, if it did.
    pub async fn read(&self, credentials: &Value) -> Result<BTreeMap<String, String>, String> {
        match self {
            Self::Etcd => {
                let connected = etcd::connect_to(credentials, "uri").await;
                let mut client = connected.map_err(|error| error.to_string())?;
                let pairs = etcd::read(&mut client).await;
                let pairs = pairs.map_err(|error| error.to_string())?;
                Ok(pairs.into_iter().collect())
            }
            Self::Memory(pair) => pair.keys(text(&credentials["uri"])),
        }
    }

    /// Writes keys `key-0000` and so on.
    pub async fn fill(&self, credentials: &Value, count: usize, value: &str) {
        match self {
            Self::Etcd => {
                let mut client = etcd::connect(credentials).await;
                etcd::fill(&mut client, count, value).await;
            }
            Self::Memory(pair) => {
                for i in 0..count {
                    let (key, value) = (format!("key-{i:04}"), format!("{value}-{i}"));
                    let put = pair.put(text(&credentials["uri"]), &key, &value);
                    put.expect("a put");
                }
            }
        }
    }

    /// All keys and values, by key.
    pub async fn dump(&self, credentials: &Value) -> Vec<(String, String)> {
        match self {
            Self::Etcd => etcd::dump(&mut etcd::connect(credentials).await).await,
            Self::Memory(pair) => {
                let keys = pair.keys(text(&credentials["uri"]));
                keys.expect("keys").into_iter().collect()
            }
        }
    }

    /// The names of all users, without the administrator's; each has nothing but what is its own.
    pub async fn users(&self, inside: &Inside, instance: &str, credentials: &Value) -> Vec<String> {
        match self {
            Self::Etcd => {
                let (users, roles) = inside.users_and_roles(instance, credentials).await;
                assert_eq!(roles, users);
                users
            }
            Self::Memory(pair) => {
                let found = inside.deployment(instance).await.expect("a deployment");
                let secrets = found.1.expect("secrets");
                pair.users(Site::new(&found.0, &secrets))
            }
        }
    }

    /// Takes so many members from a database of an instance that it cannot be used, and leaves the
    /// data of `m0`.
    pub async fn lose_all_but_one(&self, broker: &TestBroker, instance: &str) {
        match self {
            Self::Etcd => recover::lose_all_but(broker, instance, &["m0"]).await,
            Self::Memory(pair) => {
                let found = Inside::of(broker).deployment(instance).await;
                let id = found.expect("a deployment").0.id;
                pair.0.lose(&id, "m1");
                pair.0.leave(&id, "m0", pair::DOUBT);
            }
        }
    }

    /// The members that run: their processes, or their names.
    pub fn running(&self, broker: &TestBroker) -> Vec<String> {
        match self {
            Self::Etcd => broker.members().iter().map(ToString::to_string).collect(),
            Self::Memory(pair) => pair.0.running(),
        }
    }

    /// Files of deployments and backups, without what databases keep in their homes as they like.
    pub fn files(&self, broker: &TestBroker) -> Vec<String> {
        let mut files = files_of_deployments(broker);
        files.retain(|file| !file.contains("/home/"));
        if let Self::Memory(pair) = self {
            files.extend(pair.0.files());
        }
        files
    }

    /// All files that a broker keeps, with `ID` for each of our own ids.
    pub fn files_without_ids(&self, broker: &TestBroker) -> Vec<String> {
        let mut files = files_without_ids(broker);
        if let Self::Memory(pair) = self {
            files.extend(pair.0.files());
        }
        files
    }
}

/// A catalog with its plans as those of the engine in memory.
fn of_pair(mut catalog: Value) -> Value {
    let services = catalog["services"].as_array_mut().expect("services");
    for service in services {
        service["broker"]["engine"] = pair::NAME.into();
        for plan in service["plans"].as_array_mut().expect("plans") {
            plan["maintenance_info"]["version"] = pair::VERSIONS[2].into();
        }
    }
    catalog
}
