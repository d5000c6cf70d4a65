//! One broker within the tests, with databases in memory: no process and no certificate takes time there, so far
//! more is asked for. Its workers fail, run twice and die at any place of their work.

use std::sync::{
    Arc, Mutex,
    atomic::{AtomicBool, Ordering},
};

use compose_broker::{
    app::Surroundings,
    model::{operation::Operation, patience::Patience},
    operation::fault::{Fault, Faults, Moment},
};

use super::{
    client::Door,
    dice::Dice,
    ground::{Blow, Ground, skew},
    look::{Members, Places},
};
use crate::{
    broker::{TestBroker, eventually, with_one_backup},
    catalog::catalog_file,
    control::{TestClock, little_patience},
    database::Database,
    inside::Inside,
    memory::cluster::MemoryCluster,
    process::free_port,
};

/// How many in a hundred moments have a fault.
const FAULTS_PERCENT: usize = 3;
/// More faults in a row than there ever are.
const TRIES: u32 = 50;

/// What befalls it.
pub const IN_MEMORY: [Blow; 3] = [Blow::Member, Blow::Skew, Blow::End];

/// The broker.
pub struct Within {
    broker: TestBroker,
    cluster: Arc<MemoryCluster>,
    clock: TestClock,
    /// How far the clock is ahead, in seconds.
    ahead: i64,
    faults: Arc<Trips>,
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
    /// A broker; a seed says which moments have faults.
    pub async fn new(seed: u64) -> Self {
        let database = Database::in_memory();
        let Database::Memory(pair) = &database else {
            unreachable!("it is in memory");
        };
        let cluster = pair.0.clone();
        let listen = format!("127.0.0.1:{}", free_port());
        let flags = ["--listen", listen.as_str(), "--failed-sign-ins", "0"];
        let (clock, faults) = (TestClock::default(), Trips::new(seed));
        let catalog = with_one_backup(catalog_file());
        let surroundings = surroundings(&clock, &faults);
        let broker = database.broker_with(&catalog, &flags, surroundings).await;
        Self {
            broker,
            cluster,
            clock,
            ahead: 0,
            faults,
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
        let (username, password) = self.broker.platform();
        vec![Door {
            url: self.broker.url.clone(),
            username: username.to_owned(),
            password: password.to_owned(),
        }]
    }

    fn clusters(&self) -> Vec<String> {
        vec!["local".to_owned()]
    }

    fn database(&self) -> Database {
        self.broker.database.clone()
    }

    fn places(&self) -> Places {
        Places {
            store: self.broker.store_url(),
            members: Members::Memory(self.cluster.clone()),
            backups: self.broker.data_dir().join("backups"),
        }
    }

    fn inside(&self) -> Inside {
        Inside::of(&self.broker)
    }

    async fn suffer(&mut self, blow: Blow, dice: &mut Dice) {
        self.faults.are_on.store(true, Ordering::Relaxed);
        match blow {
            Blow::End => {
                let surroundings = surroundings(&self.clock, &self.faults);
                self.broker.restart_with(surroundings).await;
            }
            Blow::Member => self.cluster.kill_one(|count| dice.below(count)),
            Blow::Skew => self.put_clock(skew(dice)),
            other => unreachable!("{other:?} does not happen here"),
        }
    }

    async fn calm_down(&mut self) {
        self.faults.are_on.store(false, Ordering::Relaxed);
        self.put_clock(0);
        eventually("a broker that serves", || async {
            let asked = self.broker.anonymous(reqwest::Method::GET, "/readyz");
            let asked = asked.send().await;
            asked.is_ok_and(|a| a.status().is_success()).then_some(())
        })
        .await;
    }
}
