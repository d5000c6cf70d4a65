//! Brokers within the tests, with databases in memory: no process and no certificate takes time there, so far
//! more is asked for. Their workers fail, run twice and die at any place of their work. One keeps its store in a
//! file; three have one of PostgreSQL in common, and each of them looks after the cluster.

use std::{
    path::PathBuf,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use compose_broker::{
    app::Surroundings,
    model::{operation::Operation, patience::Patience},
    operation::fault::{Fault, Faults, Moment},
};
use tokio::time::sleep;

use super::{
    client::Door,
    dice::Dice,
    ground::{Blow, Ground, skew},
    look::{Members, Places},
};
use crate::{
    broker::{TestBroker, with_one_backup},
    catalog::catalog_file,
    control::{TestClock, little_patience},
    database::Database,
    inside::Inside,
    line::Line,
    memory::cluster::MemoryCluster,
    process::free_port,
    together::Common,
};

/// How many in a hundred moments have a fault.
const FAULTS_PERCENT: usize = 3;
/// More faults in a row than there ever are.
const TRIES: u32 = 50;

/// What befalls one over a file.
pub const IN_MEMORY: [Blow; 3] = [Blow::Member, Blow::Skew, Blow::End];
/// The same of several over PostgreSQL.
pub const IN_MEMORY_OVER_POSTGRES: [Blow; 4] = [Blow::Member, Blow::Skew, Blow::End, Blow::CutOff];
/// How many there are then.
const BROKERS: usize = 3;
/// How long one does not reach the store, at most, in ms.
const CUT_OFF_MS_MAX: usize = 2000;

/// The brokers.
pub struct Within {
    nodes: Vec<Node>,
    cluster: Arc<MemoryCluster>,
    database: Database,
    /// The address of the store, and the folder of the backups.
    store: String,
    backups: PathBuf,
    faults: Arc<Trips>,
    /// What several have in common.
    _common: Option<Common>,
}

struct Node {
    broker: TestBroker,
    clock: TestClock,
    /// How far the clock is ahead, in seconds.
    ahead: i64,
    /// What leads to the store, where others have it as well.
    line: Option<Line>,
}

/// Faults at moments of work, as dice say.
struct Trips {
    dice: Mutex<Dice>,
    are_on: AtomicBool,
}

impl Faults for Trips {
    fn at(&self, _: &Operation, _: &str, moment: Moment) -> Option<Fault> {
        let mut dice = self.dice.lock().expect("not poisoned");
        if !self.are_on.load(Ordering::Relaxed) || !dice.chance(FAULTS_PERCENT) {
            return None;
        }
        let faults: &[Fault] = match moment {
            Moment::Begun => &[Fault::Fail, Fault::Silence, Fault::Shortage, Fault::Die],
            Moment::Done => &[Fault::Fail, Fault::Repeat, Fault::Die],
            Moment::Recorded => &[Fault::Die],
        };
        dice.one_of(faults).copied()
    }
}

impl Within {
    /// One broker; a seed says which moments have faults.
    pub async fn new(seed: u64) -> Self {
        let database = Database::in_memory();
        let listen = format!("127.0.0.1:{}", free_port());
        let flags = ["--listen", listen.as_str(), "--failed-sign-ins", "0"];
        let (clock, faults) = (TestClock::default(), Trips::new(seed));
        let catalog = with_one_backup(catalog_file());
        let surroundings = surroundings(&clock, &faults);
        let broker = database.broker_with(&catalog, &flags, surroundings).await;
        let (store, backups) = (broker.store_url(), broker.data_dir().join("backups"));
        let node = Node::new(broker, clock, None);
        Self::of(vec![node], database, (store, backups), faults, None)
    }

    /// Several over PostgreSQL; none where that is not installed.
    pub async fn over_postgres(seed: u64) -> Option<Self> {
        let (common, faults) = (Common::new()?, Trips::new(seed));
        let mut nodes = Vec::new();
        for _ in 0..BROKERS {
            let (line, url) = Line::to_server_of(&common.url);
            let clock = TestClock::default();
            let surroundings = surroundings(&clock, &faults);
            let broker = common.broker_at(&url, surroundings).await;
            nodes.push(Node::new(broker, clock, Some(line)));
        }
        let (database, places) = (
            common.database.clone(),
            (common.url.clone(), common.backups()),
        );
        Some(Self::of(nodes, database, places, faults, Some(common)))
    }

    fn of(
        nodes: Vec<Node>,
        database: Database,
        (store, backups): (String, PathBuf),
        faults: Arc<Trips>,
        common: Option<Common>,
    ) -> Self {
        let Database::Memory(pair) = &database else {
            unreachable!("it is in memory");
        };
        Self {
            nodes,
            cluster: pair.0.clone(),
            database,
            store,
            backups,
            faults,
            _common: common,
        }
    }
}

impl Node {
    fn new(broker: TestBroker, clock: TestClock, line: Option<Line>) -> Self {
        Self {
            broker,
            clock,
            ahead: 0,
            line,
        }
    }

    fn put_clock(&mut self, ahead: i64) {
        let by = chrono::TimeDelta::seconds(ahead - self.ahead);
        self.clock.jump(by);
        self.ahead = ahead;
    }
}

impl Trips {
    fn new(seed: u64) -> Arc<Self> {
        Arc::new(Self {
            dice: Mutex::new(Dice::new(seed)),
            are_on: AtomicBool::new(false),
        })
    }
}

fn surroundings(clock: &TestClock, faults: &Arc<Trips>) -> Surroundings {
    let patience = Patience {
        tries_min: TRIES,
        ..little_patience()
    };
    Surroundings {
        faults: faults.clone(),
        patience,
        ..clock.surroundings()
    }
}

impl Ground for Within {
    fn doors(&self) -> Vec<Door> {
        let door = |node: &Node| {
            let (username, password) = node.broker.platform();
            Door {
                url: node.broker.url.clone(),
                username: username.to_owned(),
                password: password.to_owned(),
            }
        };
        self.nodes.iter().map(door).collect()
    }

    fn clusters(&self) -> Vec<String> {
        vec!["local".to_owned()]
    }

    fn database(&self) -> Database {
        self.database.clone()
    }

    fn places(&self) -> Places {
        Places {
            store: self.store.clone(),
            members: Members::Memory(self.cluster.clone()),
            backups: self.backups.clone(),
        }
    }

    fn inside(&self) -> Inside {
        Inside::of(&self.nodes[0].broker)
    }

    async fn suffer(&mut self, blow: Blow, dice: &mut Dice) {
        self.faults.are_on.store(true, Ordering::Relaxed);
        let at = dice.below(self.nodes.len());
        let node = &mut self.nodes[at];
        match blow {
            Blow::End => {
                let surroundings = surroundings(&node.clock, &self.faults);
                node.broker.restart_with(surroundings).await;
            }
            Blow::Member => self.cluster.kill_one(|count| dice.below(count)),
            Blow::Skew => node.put_clock(skew(dice)),
            Blow::CutOff => {
                let line = node.line.as_ref().expect("a line");
                line.cut();
                sleep(Duration::from_millis(dice.below(CUT_OFF_MS_MAX) as u64)).await;
                line.mend();
            }
            other => unreachable!("{other:?} does not happen here"),
        }
    }

    async fn calm_down(&mut self) {
        self.faults.are_on.store(false, Ordering::Relaxed);
        for node in &mut self.nodes {
            node.put_clock(0);
            node.broker.becomes_ready().await;
        }
    }
}
