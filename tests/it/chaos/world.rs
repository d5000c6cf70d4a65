//! Brokers that share clusters and a store, and all that may befall them.

use std::{fs, os::unix::fs::PermissionsExt as _, path::PathBuf, time::Duration};

use reqwest::Method;
use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;
use tempfile::TempDir;
use tokio::{
    task::block_in_place,
    time::{Instant, sleep},
};

use super::{
    client::Door,
    dice::Dice,
    ground::{Blow, Ground, skew},
    look::{Members, Places},
};
use crate::{
    broker::{kill, processes_below},
    control::move_clock,
    database::Database,
    disk::Volume,
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

/// The folders of the store and of the backups below what is common, and the sizes of their volumes.
const STORE: &str = "store";
const STORE_MEGABYTES: u32 = 320;
const BACKUPS: &str = "backups";
const BACKUPS_MEGABYTES: u32 = 128;

/// A broker that is started serves by then.
const SERVES_WITHIN: Duration = Duration::from_secs(120);
/// Pause between two looks at a broker.
const LOOK: Duration = Duration::from_millis(100);

/// What befalls brokers over PostgreSQL.
pub const OVER_POSTGRES: [Blow; 9] = [
    Blow::Kill,
    Blow::Pause,
    Blow::Member,
    Blow::Store,
    Blow::CutOff,
    Blow::Skew,
    Blow::FullStore,
    Blow::FullBackups,
    Blow::End,
];
/// The same of one over a file.
pub const OVER_SQLITE: [Blow; 7] = [
    Blow::Kill,
    Blow::Member,
    Blow::FullStore,
    Blow::Skew,
    Blow::FullBackups,
    Blow::End,
    Blow::Pause,
];

/// The brokers, and what they share.
pub struct World {
    nodes: Vec<Node>,
    disks: Disks,
    common: TempDir,
    places: Places,
    /// The names of the clusters.
    clusters: Vec<String>,
    server: Option<Server>,
}

/// Small volumes of their own, where this machine lets the tests mount some; nothing is full otherwise.
struct Disks {
    store: Option<Volume>,
    backups: Option<Volume>,
}

impl Disks {
    fn below(common: &TempDir) -> Self {
        let mount = |name, megabytes| Volume::mount(&common.path().join(name), megabytes);
        Self {
            store: mount(STORE, STORE_MEGABYTES),
            backups: mount(BACKUPS, BACKUPS_MEGABYTES),
        }
    }
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
        let common = tempfile::tempdir().expect("a folder");
        // The server runs as another user.
        let passable = fs::Permissions::from_mode(0o711);
        fs::set_permissions(common.path(), passable).expect("a folder that others pass");
        let disks = Disks::below(&common);
        let server = Server::own_in(store_folder(&common))?;
        let url = server.new_database();
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
        let world = Self::begun(nodes.into(), disks, common, places, &clusters, Some(server));
        Some(world.await)
    }

    /// One broker over a file.
    pub async fn over_sqlite() -> Self {
        let common = tempfile::tempdir().expect("a folder");
        let disks = Disks::below(&common);
        let clusters = [("only", None)];
        let file = store_folder(&common).join("store.db");
        let url = format!("sqlite://{}", file.display());
        let mut settings = shared(&common, &clusters);
        settings.insert("DATABASE_URL", url.clone());
        let nodes = vec![Node::new(settings, None)];
        let places = places(&common, &clusters, url);
        Self::begun(nodes, disks, common, places, &clusters, None).await
    }

    async fn begun(
        nodes: Vec<Node>,
        disks: Disks,
        common: TempDir,
        places: Places,
        clusters: &[(&str, Option<&str>)],
        server: Option<Server>,
    ) -> Self {
        let clusters = clusters.iter().map(|(id, _)| (*id).to_owned()).collect();
        let mut world = Self {
            nodes,
            disks,
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

    /// All processes of the clusters.
    fn processes(&self) -> Vec<i32> {
        let Members::Processes(folders) = &self.places.members else {
            return Vec::new();
        };
        folders.iter().flat_map(|of| processes_below(of)).collect()
    }
}

impl Ground for World {
    fn inside(&self) -> Inside {
        Inside::of(&self.nodes[0].broker)
    }

    fn doors(&self) -> Vec<Door> {
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

    fn clusters(&self) -> Vec<String> {
        self.clusters.clone()
    }

    fn database(&self) -> Database {
        Database::Etcd
    }

    fn places(&self) -> Places {
        self.places.clone()
    }

    async fn suffer(&mut self, blow: Blow, dice: &mut Dice) {
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
                self.nodes[at].skew(skew(dice));
            }
            Blow::FullStore => {
                be_full(self.disks.store.as_ref(), moment).await;
                // A server that could not write down what it promised has ended.
                if let Some(server) = &self.server {
                    block_in_place(|| server.end("INT"));
                    block_in_place(|| server.start_again());
                }
            }
            Blow::FullBackups => be_full(self.disks.backups.as_ref(), moment).await,
        }
        self.look_after().await;
    }

    async fn calm_down(&mut self) {
        for node in &mut self.nodes {
            node.skew(0);
        }
        for at in 0..self.nodes.len() {
            self.wait_for(at).await;
        }
    }
}

/// Leaves no room on a disk for so long.
async fn be_full(disk: Option<&Volume>, moment: Duration) {
    let Some(disk) = disk else {
        return;
    };
    let filler = block_in_place(|| disk.fill());
    sleep(moment).await;
    fs::remove_file(filler).expect("room");
}

/// Where the store is.
fn store_folder(common: &TempDir) -> PathBuf {
    let folder = common.path().join(STORE);
    fs::create_dir_all(&folder).expect("a folder");
    folder
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
    let of = clusters.iter();
    let folders = of.map(|(id, _)| shared_cluster_folder(id, folder));
    Places {
        store,
        members: Members::Processes(folders.collect()),
        backups: folder.join(BACKUPS),
    }
}
