//! Brokers that share clusters and a store, and all that may befall them.

use std::{fs, path::PathBuf, time::Duration};

use reqwest::Method;
use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;
use tempfile::TempDir;
use tokio::{
    task::block_in_place,
    time::{Instant, sleep},
};

use super::{client::Door, dice::Dice, look::Places};
use crate::{
    broker::{eventually, kill, processes_below},
    control::move_clock,
    inside::Inside,
    line::Line,
    postgres::Server,
    process::{
        BrokerProcess, Settings, new_key_ring, shared_cluster, shared_cluster_folder,
        shared_settings,
    },
};

/// Longer than the lease of a broker's claims.
const BEYOND_THE_LEASE: Duration = Duration::from_secs(17);
/// How long a database of the store is out of reach, at most, in ms.
const CUT_OFF_MS_MAX: usize = 4000;
/// How far a broker's clock is put ahead or back, at most, in seconds.
const SKEW_SECONDS_MAX: usize = 60;

/// A broker that is started serves by then.
const SERVES_WITHIN: Duration = Duration::from_secs(120);
/// Pause between two looks at a broker.
const LOOK: Duration = Duration::from_millis(100);

/// Something that befalls brokers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Blow {
    /// A broker is killed, and started again after a while.
    Kill,
    /// A broker is told to end, and started again.
    End,
    /// A broker stands still for longer than its claims hold.
    Pause,
    /// A member, or whatever works beside it, is killed.
    Member,
    /// The server of the store ends, at once or in order, and begins again.
    Store,
    /// A broker does not reach the store.
    CutOff,
    /// A broker's clock is put ahead or back.
    Skew,
}

/// What befalls brokers over PostgreSQL.
pub const OVER_POSTGRES: [Blow; 7] = [
    Blow::Kill,
    Blow::Pause,
    Blow::Member,
    Blow::Store,
    Blow::CutOff,
    Blow::Skew,
    Blow::End,
];
/// The same of one over a file.
pub const OVER_SQLITE: [Blow; 5] = [Blow::Kill, Blow::Member, Blow::Skew, Blow::End, Blow::Pause];

/// The brokers, and what they share.
pub struct World {
    nodes: Vec<Node>,
    common: TempDir,
    pub places: Places,
    /// The names of the clusters.
    pub clusters: Vec<String>,
    server: Option<Server>,
}

struct Node {
    broker: BrokerProcess,
    /// What leads to the store.
    line: Option<Line>,
    clock: PathBuf,
    /// Whether it has served since it was started.
    served: bool,
}

impl World {
    /// Three brokers over PostgreSQL: two on one machine with one cluster, and one on another machine with
    /// another. None where there is no PostgreSQL.
    pub async fn over_postgres() -> Option<Self> {
        let server = Server::own()?;
        let url = server.new_database();
        let common = tempfile::tempdir().expect("a folder");
        let clusters = [("first", Some("one")), ("second", Some("two"))];
        let mut shared = shared(&common, &clusters);
        shared.insert("DATABASE_URL", url.clone());
        shared.insert("ENCRYPTION_KEYS", new_key_ring());
        let nodes = ["one", "one", "two"].map(|machine| {
            let (line, url) = Line::to_server_of(&url);
            let mut settings = shared.clone();
            settings.insert("MACHINE", machine.to_owned());
            settings.insert("DATABASE_URL", url);
            Node::new(settings, Some(line))
        });
        let places = places(&common, &clusters, url);
        Some(Self::begun(nodes.into(), common, places, &clusters, Some(server)).await)
    }

    /// One broker over a file.
    pub async fn over_sqlite() -> Self {
        let common = tempfile::tempdir().expect("a folder");
        let clusters = [("only", None)];
        let file = common.path().join("store.db");
        let url = format!("sqlite://{}", file.display());
        let mut settings = shared(&common, &clusters);
        settings.insert("DATABASE_URL", url.clone());
        let nodes = vec![Node::new(settings, None)];
        let places = places(&common, &clusters, url);
        Self::begun(nodes, common, places, &clusters, None).await
    }

    async fn begun(
        nodes: Vec<Node>,
        common: TempDir,
        places: Places,
        clusters: &[(&str, Option<&str>)],
        server: Option<Server>,
    ) -> Self {
        let clusters = clusters.iter().map(|(id, _)| (*id).to_owned()).collect();
        let mut world = Self {
            nodes,
            common,
            places,
            clusters,
            server,
        };
        for node in &mut world.nodes {
            node.broker.start_again().await;
            node.served = true;
        }
        world
    }

    /// A look inside.
    pub fn inside(&self) -> Inside {
        Inside::of(&self.nodes[0].broker)
    }

    /// Where the brokers are asked.
    pub fn doors(&self) -> Vec<Door> {
        let doors = self.nodes.iter().map(|node| {
            let settings = node.broker.settings();
            Door {
                url: format!("http://{}", settings["LISTEN"]),
                username: settings["USERNAME"].clone(),
                password: settings["PASSWORD"].clone(),
            }
        });
        doors.collect()
    }

    /// Lets something befall one of the brokers, and waits until that is over.
    pub async fn suffer(&mut self, blow: Blow, dice: &mut Dice) {
        let at = dice.below(self.nodes.len());
        let moment = Duration::from_millis(dice.below(CUT_OFF_MS_MAX) as u64);
        match blow {
            Blow::Kill => {
                self.nodes[at].kill();
                sleep(moment / 2).await;
                self.nodes[at].spawn();
            }
            Blow::End => {
                // One that begins would be killed by it.
                self.wait_for(at).await;
                let ending = self.nodes[at].broker.terminate();
                let ended = tokio::task::spawn_blocking(ending).await;
                assert!(ended.expect("an end").success());
                self.nodes[at].spawn();
            }
            Blow::Pause => {
                self.nodes[at].signal(Signal::STOP);
                sleep(BEYOND_THE_LEASE).await;
                self.nodes[at].signal(Signal::CONT);
            }
            Blow::Member => {
                let all = self.processes();
                dice.one_of(&all).inspect(|pid| kill(**pid));
            }
            Blow::Store => {
                let server = self.server.as_ref().expect("a server");
                let signal = if dice.chance(50) { "QUIT" } else { "INT" };
                block_in_place(|| server.end(signal));
                sleep(moment / 2).await;
                block_in_place(|| server.start_again());
            }
            Blow::CutOff => {
                let line = self.nodes[at].line.as_ref().expect("a line");
                line.cut();
                sleep(moment).await;
                line.mend();
            }
            Blow::Skew => {
                let by = dice.below(2 * SKEW_SECONDS_MAX + 1) as i64;
                self.nodes[at].skew(by - SKEW_SECONDS_MAX as i64);
            }
        }
        self.look_after().await;
    }

    /// Waits until a broker serves.
    async fn wait_for(&mut self, at: usize) {
        let deadline = Instant::now() + SERVES_WITHIN;
        while !self.nodes[at].is_ready().await {
            assert!(Instant::now() < deadline, "a broker does not serve");
            self.look_after().await;
            sleep(LOOK).await;
        }
    }

    /// Starts brokers again that have ended by themselves, as a service manager does. One that serves does
    /// not; one whose start found no store does.
    async fn look_after(&mut self) {
        for node in &mut self.nodes {
            node.served = node.served || node.is_ready().await;
            if let Some(status) = node.broker.ended() {
                assert!(!node.served, "a broker ended by itself: {status}");
                node.spawn();
            }
        }
    }

    /// Lets everything be calm, and waits until all brokers serve.
    pub async fn calm_down(&mut self) {
        for node in &mut self.nodes {
            node.skew(0);
        }
        for at in 0..self.nodes.len() {
            self.wait_for(at).await;
        }
    }

    /// All processes of the clusters.
    pub fn processes(&self) -> Vec<i32> {
        let clusters = self.places.clusters.iter();
        clusters
            .flat_map(|folder| processes_below(folder))
            .collect()
    }

    /// Waits until the members of this many deployments run, and nothing beside them.
    pub async fn members_run(&self, deployments: usize) {
        eventually(&format!("members of {deployments} deployments"), || async {
            (self.processes().len() == 3 * deployments).then_some(())
        })
        .await;
    }
}

impl Drop for World {
    fn drop(&mut self) {
        for node in &mut self.nodes {
            node.signal(Signal::CONT);
            node.broker.end_at_once();
        }
        // Nobody starts them again.
        for _ in 0..20 {
            self.processes().into_iter().for_each(kill);
            std::thread::sleep(Duration::from_millis(20));
        }
        let _ = fs::remove_dir_all(self.common.path());
    }
}

impl Node {
    fn new(shared: Settings, line: Option<Line>) -> Self {
        let broker = BrokerProcess::stopped_with(|settings| {
            let folder = PathBuf::from(&settings["DATA_DIR"]);
            let clock = folder.with_file_name("clock");
            settings.insert("CLOCK_OFFSET_FILE", clock.display().to_string());
            settings.extend(shared);
            if let Some(ring) = settings.get("ENCRYPTION_KEYS") {
                // Where those who look inside find it.
                let _ = fs::create_dir(&folder);
                fs::write(folder.join("encryption_keys"), ring).expect("a file");
            }
        });
        let clock = PathBuf::from(&broker.settings()["CLOCK_OFFSET_FILE"]);
        let node = Self {
            broker,
            line,
            clock,
            served: false,
        };
        node.skew(0);
        node
    }

    fn skew(&self, seconds: i64) {
        move_clock(&self.clock, seconds);
    }

    fn spawn(&mut self) {
        self.served = false;
        self.broker.spawn();
    }

    fn kill(&mut self) {
        if self.broker.ended().is_none() {
            self.broker.kill();
        }
    }

    fn signal(&self, signal: Signal) {
        if let Some(pid) = self.broker.running() {
            let pid = i32::try_from(pid).ok().and_then(Pid::from_raw);
            let _ = kill_process(pid.expect("a pid"), signal);
        }
    }

    async fn is_ready(&self) -> bool {
        let asked = self.broker.anonymous(Method::GET, "/readyz");
        let asked = asked.timeout(Duration::from_secs(4)).send().await;
        asked.is_ok_and(|answer| answer.status().is_success())
    }
}

/// What all brokers are told.
fn shared(common: &TempDir, clusters: &[(&str, Option<&str>)]) -> Settings {
    let of = |(id, machine): &(&str, Option<&str>)| shared_cluster(id, common.path(), *machine);
    let clusters: Vec<Value> = clusters.iter().map(of).collect();
    let mut settings = shared_settings(common.path(), &clusters);
    settings.extend([
        ("REQUESTS_PER_SECOND", "0".to_owned()),
        // A client that is told to try again does so at once.
        ("FAILED_SIGN_INS", "0".to_owned()),
        ("BACKUP_GRACE_HOURS", "0".to_owned()),
    ]);
    settings
}

fn places(common: &TempDir, clusters: &[(&str, Option<&str>)], store: String) -> Places {
    let folder = common.path();
    Places {
        store,
        clusters: clusters
            .iter()
            .map(|(id, _)| shared_cluster_folder(id, folder))
            .collect(),
        backups: folder.join("backups"),
    }
}
