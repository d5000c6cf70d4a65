//! The story, chapter by chapter.

use std::{
    path::Path,
    time::{Duration, Instant},
};

use serde_json::Value;
use tokio::time::sleep;

use crate::{
    administration::Administration,
    broker::{Broker, LOOK_AGAIN},
    calendar,
    client::{Client, text},
    database::{Content, Credentials, Database},
    download,
    engines::{self, Engines},
    error::{Result, ensure},
    machine::Traces,
    show::Show,
};

/// The versions of the story, if they are installed.
const SOURCE_VERSION: &str = "3.4.23";
const TARGET_VERSION: &str = "3.6.16";
const UPGRADE_VERSION: &str = "3.7.3";

const KEYS: usize = 1000;

const OFFERING: &str = "compose-for-etcd";
const PLAN: &str = "Standard";
/// What each instance's one key is called.
const KEY: &str = "key";

/// Each database has so many members, and each member a port for clients and one for the others.
const MEMBERS: usize = 3;
const PORTS: usize = 2 * MEMBERS;

/// What is there in passing is gone by then.
const TRACES_LIMIT: Duration = Duration::from_secs(60);

/// Where the story plays.
pub struct Story<'a> {
    /// Shows the steps.
    pub show: &'a Show,
    /// The tools to check with.
    pub engines: &'a Engines,
    /// A folder for files.
    pub place: &'a Path,
}

/// A service instance with a key, as its user knows it.
struct Instance {
    name: &'static str,
    version: String,
    credentials: Credentials,
    database: Database,
}

/// A backup of what was known to be in the source.
struct BackedUp {
    id: String,
    content: Content,
}

impl Story<'_> {
    /// Tells it all.
    pub async fn tell(&self, broker: &mut Broker) -> Result<()> {
        let step = self.show.step("Start the broker");
        broker.wait_until_ready(&step).await?;
        step.done(format!("it listens on {}", broker.url));

        let client = Client::of(broker, self.place);
        let step = self.show.step("See what is on offer");
        let offers = client.run(&["marketplace"], &step).await?;
        let plans = &offers["offerings"][0]["plans"];
        step.done(format!("{OFFERING}: {}", names(plans).join(", ")));

        let source = self.make_source(&client).await?;
        let backup = self.back_up(&client, &source).await?;
        self.let_days_pass(broker, &source).await?;
        let restored = self.restore(&client, &source, &backup).await?;
        self.compare(&source, &restored, &backup.content).await?;
        let restored = self.upgrade(&client, restored, &backup.content).await?;
        self.take_down(&client, broker, &[source, restored]).await?;

        let step = self.show.step("Stop the broker");
        broker.stop().await?;
        step.done("it ended by itself");
        Ok(())
    }

    /// A new database of the older version.
    async fn make_source(&self, client: &Client) -> Result<Instance> {
        let version = self.engines.preferably(SOURCE_VERSION)?;
        let parameters = format!(r#"{{"db_version": "{version}"}}"#);
        let command = [
            "create-service",
            OFFERING,
            PLAN,
            "source",
            "-c",
            &parameters,
        ];
        let title = format!("Make a database of etcd {version}");
        let source = self
            .make(client, &title, "source", version, &command)
            .await?;

        let step = self.show.step("Run the etcdctl line of the key");
        let table = source
            .credentials
            .run_cli(self.place, self.engines, &source.version)
            .await?;
        let started = table.matches("started").count();
        ensure(started == MEMBERS, || {
            format!("etcdctl lists {started} started members:\n{table}")
        })?;
        step.done(format!("it lists {started} members, all started"));
        Ok(source)
    }

    /// Makes an instance by a command, and a key to it.
    async fn make(
        &self,
        client: &Client,
        title: &str,
        name: &'static str,
        version: String,
        command: &[&str],
    ) -> Result<Instance> {
        let step = self.show.step(title);
        let made = client.run(&[command, &["--wait"]].concat(), &step).await?;
        step.done(format!("service instance {}", text(&made, "id")?));

        let step = self.show.step("Make a key to it");
        let command = ["create-service-key", name, KEY, "--wait"];
        client.run(&command, &step).await?;
        let key = client.run(&["service-key", name, KEY], &step).await?;
        let credentials = Credentials::read(&key["credentials"])?;
        let database = Database::connect(&credentials).await?;
        step.done(format!("{credentials}"));
        Ok(Instance {
            name,
            version,
            credentials,
            database,
        })
    }

    /// Fills the source and takes a backup, which is then looked at from all sides.
    async fn back_up(&self, client: &Client, source: &Instance) -> Result<BackedUp> {
        let step = self.show.step("Write keys as the key's user");
        let content = Content::sample(KEYS);
        source.database.write(&content, &step).await?;
        step.done(format!("{content}"));

        let step = self.show.step("Back up now");
        let command = ["create-backup", source.name, "--wait"];
        let backup = client.run(&command, &step).await?;
        let id = text(&backup, "id")?;
        step.done(format!("backup {id}, {}", text(&backup, "status")?));

        let step = self.show.step("Find it in the list");
        let list = client.run(&["backups", source.name], &step).await?;
        let newest = &list["backups"][0];
        ensure(newest["id"] == id.as_str(), || {
            format!("the backup {id} is not the first in the list")
        })?;
        let usable = newest["is_downloadable"] == true && newest["is_restorable"] == true;
        ensure(usable, || format!("the backup {id} cannot be used"))?;
        step.done(text(newest, "name")?);

        let step = self.show.step("Download it");
        let archive = self.place.join("backup.tar.gz");
        let to = archive.display().to_string();
        let command = ["download-backup", source.name, &id, "--to", &to];
        let done = client.run(&command, &step).await?;
        let bytes = done["bytes"].as_u64().unwrap_or_default();
        step.done(format!("{} KiB", bytes / 1024));

        let step = self
            .show
            .step("Unpack it and let etcd's own tool look at it");
        let unpacked = download::unpack(&archive, self.place).await?;
        let checked = unpacked.check(self.engines, &source.version, KEYS).await?;
        step.done(checked);

        let step = self
            .show
            .step("Write on in the source, after the backup was taken");
        source.database.write_on().await?;
        step.done("one key changed, one deleted, one added");
        Ok(BackedUp { id, content })
    }

    /// The broker's clock was far behind until now; it goes on to today.
    async fn let_days_pass(&self, broker: &Broker, source: &Instance) -> Result<()> {
        let title = format!("Let {} days pass, with a backup each", calendar::DAYS);
        let step = self.show.step(title);
        let api = Administration::of(&source.credentials);
        let left = calendar::pass(broker, &api, &step).await?;
        step.done(left);
        Ok(())
    }

    /// Restores the backup into a new database of a newer version.
    async fn restore(
        &self,
        client: &Client,
        source: &Instance,
        backup: &BackedUp,
    ) -> Result<Instance> {
        let step = self.show.step("Ask which newer versions can be reached");
        let newer = Administration::of(&source.credentials).versions().await?;
        // Without any, the backup is restored into its own version.
        let version = engines::choose(&newer, TARGET_VERSION);
        let version = version.unwrap_or_else(|| source.version.clone());
        step.done(format!("[{}]; taking {version}", newer.join(", ")));

        let name = "restored";
        let from = ["restore-backup", source.name, &backup.id, name];
        let command = [&from[..], &["--db-version", &version]].concat();
        let title = format!("Restore the backup into a new database of etcd {version}");
        self.make(client, &title, name, version.clone(), &command)
            .await
    }

    /// The new database is what the source was, and nothing of the source gets in.
    async fn compare(
        &self,
        source: &Instance,
        restored: &Instance,
        expected: &Content,
    ) -> Result<()> {
        let step = self.show.step("Compare every key and value");
        let found = restored.database.read_all().await?;
        expected.compare(&found)?;
        step.done(format!("{found}, all as they were backed up"));

        let step = self.show.step("Ask the servers for their versions");
        for instance in [source, restored] {
            let versions = instance.credentials.versions(self.place).await?;
            let expected = &instance.version;
            ensure(versions == vec![expected.clone(); MEMBERS], || {
                format!("the servers say {versions:?}, not {expected} each")
            })?;
        }
        let (old, new) = (&source.version, &restored.version);
        step.done(format!("the source is {old}, the restored one {new}"));

        let step = self
            .show
            .step("Try the source's password at the restored one");
        let foreign = restored.credentials.with_user_of(&source.credentials);
        let answer = Database::must_refuse(&foreign).await?;
        step.done(format!("refused: {answer}"));
        Ok(())
    }

    /// Takes the restored database to the newest line in place, while a key goes on working.
    async fn upgrade(
        &self,
        client: &Client,
        restored: Instance,
        expected: &Content,
    ) -> Result<Instance> {
        let newer = Administration::of(&restored.credentials).versions().await?;
        let Some(version) = newer.iter().find(|version| *version == UPGRADE_VERSION) else {
            return Ok(restored);
        };
        let step = self.show.step("Ask what an upgrade would do");
        let choice = ["--db-version", version];
        let command = [
            &["upgrade-service", restored.name, "--dry-run"][..],
            &choice,
        ]
        .concat();
        let told = client.run(&command, &step).await?;
        let path = told["path"].as_array().into_iter().flatten();
        let path: Vec<&str> = path.filter_map(Value::as_str).collect();
        step.done(format!(
            "it leads through {}, after a backup",
            path.join(", ")
        ));

        let step = self
            .show
            .step(format!("Upgrade it in place to etcd {version}"));
        let command = [&["upgrade-service", restored.name, "--wait"][..], &choice].concat();
        client.run(&command, &step).await?;
        let versions = restored.credentials.versions(self.place).await?;
        ensure(versions == vec![version.clone(); MEMBERS], || {
            format!("the servers say {versions:?}, not {version} each")
        })?;
        // Members that were started anew ask for a new login.
        let database = Database::connect(&restored.credentials).await?;
        expected.compare(&database.read_all().await?)?;
        step.done("every key is there, the same user gets in");
        Ok(Instance {
            version: version.clone(),
            database,
            ..restored
        })
    }

    /// Deletes keys and databases, and makes sure that it is true.
    async fn take_down(
        &self,
        client: &Client,
        broker: &Broker,
        instances: &[Instance; 2],
    ) -> Result<()> {
        let step = self.show.step("Delete both keys");
        for Instance { name, .. } in instances {
            let command = ["delete-service-key", name, KEY, "--force", "--wait"];
            client.run(&command, &step).await?;
        }
        step.done("they are gone");

        let step = self.show.step("Try their users and tokens once more");
        for instance in instances {
            Database::must_refuse(&instance.credentials).await?;
            instance.database.must_be_cut_off().await?;
            Administration::of(&instance.credentials)
                .must_refuse()
                .await?;
        }
        step.done("refused: new logins, open connections, and the API");

        // What is looked for afterwards has to be found before, or the look would prove nothing.
        let step = self.show.step("Look for what they have on this machine");
        let deployments = instances
            .each_ref()
            .map(|instance| instance.credentials.api.deployment_id.as_str());
        // Two members' folders, the one of the source's backups, and that of the one before the
        // upgrade.
        let backups = 1 + usize::from(instances[1].version == UPGRADE_VERSION);
        let expected = (2 * MEMBERS, 2 + backups, 2 * PORTS);
        let traces = traces_become(broker, &deployments, expected).await?;
        step.done(format!("{traces}"));

        let step = self.show.step("Delete both databases");
        for Instance { name, .. } in instances {
            let command = ["delete-service", name, "--force", "--wait"];
            client.run(&command, &step).await?;
        }
        let left = client.run(&["services"], &step).await?;
        let left = names(&left["services"]);
        ensure(left.is_empty(), || format!("{} are left", left.join(", ")))?;
        step.done("both are gone");
        self.give_up_what_is_kept(broker, client, &deployments)
            .await
    }

    /// A deleted database leaves its backups for a while; an operator ends that.
    async fn give_up_what_is_kept(
        &self,
        broker: &Broker,
        client: &Client,
        deployments: &[&str],
    ) -> Result<()> {
        let step = self.show.step("See what is kept of them");
        let listed = client.run(&["deleted", "list"], &step).await?;
        let kept = listed["deleted_instances"].as_array();
        let kept: Vec<&Value> = kept.into_iter().flatten().collect();
        let backups: u64 = kept.iter().filter_map(|of| of["backups"].as_u64()).sum();
        let traces = broker.traces(deployments)?;
        ensure(
            kept.len() == 2 && traces.counts() == (0, kept.len(), 0),
            || format!("this is not what there should be: {traces:?}, {listed}"),
        )?;
        step.done(format!("{backups} backups, for some days"));

        let step = self.show.step("Give that up, as an operator");
        for deployment in deployments {
            let command = ["deleted", "purge", deployment, "--force"];
            client.run(&command, &step).await?;
        }
        let left = traces_become(broker, deployments, (0, 0, 0)).await?;
        step.done(format!("{left}"));
        Ok(())
    }
}

/// Waits until there is so much of databases on this machine: for a moment there is also the member that a backup
/// is proved with, and bytes that were given up.
async fn traces_become(
    broker: &Broker,
    deployments: &[&str],
    expected: (usize, usize, usize),
) -> Result<Traces> {
    let deadline = Instant::now() + TRACES_LIMIT;
    loop {
        let traces = broker.traces(deployments)?;
        if traces.counts() == expected {
            return Ok(traces);
        }
        ensure(Instant::now() < deadline, || {
            format!("this is not what there should be: {traces:?}")
        })?;
        sleep(LOOK_AGAIN).await;
    }
}

/// The names in a list.
fn names(list: &Value) -> Vec<&str> {
    let list = list.as_array().into_iter().flatten();
    list.filter_map(|entry| entry["name"].as_str()).collect()
}
