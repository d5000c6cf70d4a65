//! Everything at once: tenants who ask brokers for one thing after the other, while these are killed, stand
//! still, lose their store and their members, and have clocks that are wrong. When all is calm again, what
//! platforms were told is compared with what there is.
//!
//! [`plan`] says what is asked for, [`client`] asks and keeps a [`journal`], a [`ground`] has the brokers and what
//! befalls them ([`world`]: processes with real databases; [`inside`]: some with databases in memory), [`look`] finds
//! what there is, and [`model`] knows what has to be true. A seed says what is asked for and what befalls whom.
//! When a run fails, it is printed; with it the next run chooses the same. What happens at the same moment is
//! left to chance.

mod client;
mod dice;
mod ground;
mod inside;
mod journal;
mod look;
mod model;
mod plan;
mod world;

use std::{
    env,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use futures::future::join_all;
use tokio::{
    task::block_in_place,
    time::{sleep, timeout},
};

use self::{
    client::{Door, Platform, Tenant, content, lane_of},
    dice::Dice,
    ground::{Blow, Ground},
    inside::{IN_MEMORY, IN_MEMORY_OVER_POSTGRES, Within},
    journal::Promise,
    look::{active, look},
    model::{Seen, violations},
    world::{OVER_POSTGRES, OVER_SQLITE, World},
};
use crate::{broker::eventually, database::Database};

/// Names the variable with the seed of a run.
const SEED: &str = "COMPOSE_BROKER_CHAOS_SEED";
/// Names the variable that says how many things are asked for.
const OPERATIONS: &str = "COMPOSE_BROKER_CHAOS_OPERATIONS";
/// What is asked for in a round, after which all is looked at.
const ROUND: usize = 60;
/// The same of databases in memory.
const ROUND_IN_MEMORY: usize = 200;
/// A database that is well answers by then.
const ANSWERS_WITHIN: Duration = Duration::from_secs(5);

/// How large a run is.
struct Size {
    tenants: usize,
    /// What is asked for in each round, by all tenants together.
    rounds: Vec<usize>,
    /// Backups that are restored after each round, at most.
    restores: usize,
    /// The same after the last one.
    restores_at_last: usize,
    /// Pause between two blows, at most.
    pause: Duration,
    /// Before a platform asks again.
    asks_again: Duration,
    /// What is chosen, unless the variable says another; none: each time something else.
    seed: Option<u64>,
}

impl Size {
    /// The same is asked for each time: what a change breaks shows with the change.
    fn short(operations: usize) -> Self {
        Self {
            seed: Some(1),
            tenants: 2,
            rounds: vec![operations],
            restores: 1,
            restores_at_last: 1,
            pause: Duration::from_millis(1500),
            asks_again: Duration::from_millis(250),
        }
    }

    /// As the variable says.
    fn long() -> Self {
        Self {
            seed: None,
            tenants: 4,
            rounds: rounds(ROUND),
            restores: 6,
            restores_at_last: usize::MAX,
            pause: Duration::from_secs(4),
            asks_again: Duration::from_millis(250),
        }
    }

    fn long_in_memory() -> Self {
        Self {
            rounds: rounds(ROUND_IN_MEMORY),
            ..Self::long()
        }
    }

    /// The same with databases in memory.
    fn in_memory(self) -> Self {
        Self {
            tenants: 4,
            restores: usize::MAX,
            restores_at_last: usize::MAX,
            pause: Duration::from_millis(1500),
            asks_again: Duration::from_millis(20),
            ..self
        }
    }
}

/// What is asked for in each round, as the variable says.
fn rounds(of: usize) -> Vec<usize> {
    let all = number_of(OPERATIONS).unwrap_or(1000);
    let all = usize::try_from(all).expect("a number");
    let mut rounds = vec![of; all / of];
    rounds.extend(Some(all % of).filter(|rest| *rest > 0));
    rounds
}

fn number_of(variable: &str) -> Option<u64> {
    let text = env::var(variable).ok()?;
    let number = text.parse();
    Some(number.unwrap_or_else(|error| panic!("{variable} is {text:?}: {error}")))
}

fn seed(size: &Size) -> u64 {
    let chosen = number_of(SEED).or(size.seed);
    chosen.unwrap_or_else(|| uuid::Uuid::new_v4().as_u64_pair().0)
}

/// A run: brokers, and those who use them.
struct Run<G> {
    ground: G,
    platform: Arc<Platform>,
    tenants: Vec<Tenant>,
    weather: Dice,
    blows: Vec<Blow>,
    pause: Duration,
}

impl<G: Ground> Run<G> {
    fn new(ground: G, size: &Size, seed: u64, blows: &[Blow]) -> Self {
        let mut dice = Dice::new(seed);
        let doors: Vec<Door> = ground.doors();
        let (clusters, database) = (ground.clusters(), ground.database());
        let platform = Platform::new(doors, clusters, database, size.asks_again);
        let weather = dice.split();
        let tenants = (0..size.tenants)
            .map(|lane| Tenant::new(lane, platform.clone(), dice.split()))
            .collect();
        Self {
            ground,
            platform,
            tenants,
            weather,
            blows: blows.to_vec(),
            pause: size.pause,
        }
    }

    /// Has so many things asked for while all kinds of blows fall, each once at least; then all is calm.
    async fn round(&mut self, operations: usize) {
        let Self {
            ground,
            tenants,
            weather: dice,
            blows,
            pause,
            ..
        } = self;
        let each = operations.div_ceil(tenants.len());
        let pause_ms = usize::try_from(pause.as_millis()).expect("a number");
        let is_over = AtomicBool::new(false);
        let asking = async {
            join_all(tenants.iter_mut().map(|tenant| tenant.ask_for(each))).await;
            is_over.store(true, Ordering::Relaxed);
        };
        let weather = async {
            let mut is_first = true;
            while is_first || !is_over.load(Ordering::Relaxed) {
                for blow in shuffled(blows, dice) {
                    if !is_first && is_over.load(Ordering::Relaxed) {
                        break;
                    }
                    sleep(Duration::from_millis(dice.below(pause_ms) as u64)).await;
                    ground.suffer(blow, dice).await;
                }
                is_first = false;
            }
        };
        tokio::join!(asking, weather);
        self.ground.calm_down().await;
    }

    /// Waits until nothing is at work.
    async fn idle(&self) {
        eventually("the end of all work", || async {
            let store = self.ground.places().store;
            block_in_place(|| active(&store)).is_empty().then_some(())
        })
        .await;
    }

    /// Compares what platforms were told with what there is; then restores backups, the newest ones where not all,
    /// and compares what is in them.
    async fn check(&mut self, restores: usize) {
        let seen = self.look().await;
        let mut found = violations(&self.platform.journal(), &seen);
        found.extend(self.wrong_content().await);
        found.extend(self.wrong_backups(&seen, restores).await);
        let list = found.join("\n");
        assert!(
            found.is_empty(),
            "{} things are wrong:\n{list}",
            found.len()
        );
    }

    async fn look(&self) -> Seen {
        let (places, database) = (self.ground.places(), self.ground.database());
        self.idle().await;
        let count = block_in_place(|| look(&places)).deployments.len();
        eventually(&format!("members of {count} deployments"), || async {
            let running = block_in_place(|| places.members.running());
            (running == database.members() * count).then_some(())
        })
        .await;
        self.idle().await;
        let mut seen = block_in_place(|| look(&places));
        (seen.members, seen.ports) = (database.members(), database.ports());
        let inside = self.ground.inside();
        let databases = self.tenants.iter().flat_map(Tenant::databases);
        for (instance, credentials, _) in databases {
            let mut deployments = seen.deployments.values_mut();
            if let Some(of) = deployments.find(|of| of.instance == instance) {
                of.users = match &database {
                    Database::Etcd => {
                        let (users, roles) = inside.users_and_roles(&instance, &credentials).await;
                        seen.orphans.extend(differ(&users, &roles));
                        users
                    }
                    Database::Memory(_) => database.users(&inside, &instance, &credentials).await,
                };
            }
        }
        seen
    }

    /// Databases that have not what was written into them, or something else.
    async fn wrong_content(&self) -> Vec<String> {
        let mut found = Vec::new();
        for (lane, tenant) in self.tenants.iter().enumerate() {
            for (instance, credentials, written) in tenant.databases() {
                let what = format!("an answer of {instance}");
                let reading = eventually(&what, || async {
                    let database = &self.platform.database;
                    let answer = timeout(ANSWERS_WITHIN, content(database, &credentials));
                    answer.await.ok()?.ok()
                });
                let (of, number) = reading.await;
                if of.is_some_and(|of| of != lane) || number < written {
                    found.push(format!(
                        "{instance} of tenant {lane} has {number} of tenant {of:?}; written was {written}"
                    ));
                }
            }
        }
        found
    }

    /// Restores the newest backups that are whole, each into an instance of its tenant's: those that the tenants
    /// asked for, and those that were due.
    async fn wrong_backups(&mut self, seen: &Seen, most: usize) -> Vec<String> {
        let mut found = Vec::new();
        let whole = seen.backups.iter().rev().filter(|(_, of)| of.is_complete);
        for (id, of) in whole.take(most) {
            let promise = {
                let lane = lane_of(&of.instance);
                self.platform.journal().promise(id, lane, &of.instance)
            };
            // One that was due meanwhile may have taken the place of another.
            if !block_in_place(|| self.is_there(id)) {
                continue;
            }
            let Promise { lane, at_least, .. } = promise;
            let (of, number) = self.tenants[lane].restored(&promise).await;
            if of.is_some_and(|of| of != lane) || number < at_least {
                found.push(format!("{promise:?} has {number} of tenant {of:?}"));
            }
        }
        found
    }

    /// Whether a backup is whole still.
    fn is_there(&self, backup: &str) -> bool {
        let seen = look(&self.ground.places());
        seen.backups.get(backup).is_some_and(|of| of.is_complete)
    }

    /// All tenants leave: nothing is left then.
    async fn leave(&mut self) {
        join_all(self.tenants.iter_mut().map(Tenant::leave)).await;
        let seen = self.look().await;
        let mut found = violations(&self.platform.journal(), &seen);
        found.extend(seen.instances.iter().map(|id| format!("instance {id}")));
        found.extend(seen.deployments.keys().map(|id| format!("deployment {id}")));
        found.extend(seen.backups.keys().map(|id| format!("backup {id}")));
        assert!(found.is_empty(), "left:\n{}", found.join("\n"));
    }
}

/// Each user has a role of its own, and no role is left without.
fn differ(users: &[String], roles: &[String]) -> Option<String> {
    (users != roles).then(|| format!("roles {roles:?} of users {users:?}"))
}

fn shuffled(blows: &[Blow], dice: &mut Dice) -> Vec<Blow> {
    let mut left = blows.to_vec();
    let mut shuffled = Vec::new();
    while !left.is_empty() {
        shuffled.push(left.swap_remove(dice.below(left.len())));
    }
    shuffled
}

/// Tells how a run is had again, where it fails.
struct SeedTold(u64);

impl Drop for SeedTold {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("this was the run of {SEED}={}", self.0);
        }
    }
}

async fn run(ground: impl Ground, size: Size, seed: u64, blows: &[Blow]) {
    let _told = SeedTold(seed);
    let mut run = Run::new(ground, &size, seed, blows);
    let last = size.rounds.len() - 1;
    for (round, operations) in size.rounds.into_iter().enumerate() {
        run.round(operations).await;
        let restores = if round == last {
            size.restores_at_last
        } else {
            size.restores
        };
        run.check(restores).await;
        println!("{}", run.platform.journal().summary());
    }
    run.leave().await;
}

async fn over_postgres(world: World, size: Size) {
    let seed = seed(&size);
    run(world, size, seed, &OVER_POSTGRES).await;
}

async fn over_a_file(size: Size) {
    let seed = seed(&size);
    run(World::over_sqlite().await, size, seed, &OVER_SQLITE).await;
}

async fn with_databases_in_memory(size: Size) {
    let seed = seed(&size);
    run(Within::new(seed).await, size.in_memory(), seed, &IN_MEMORY).await;
}

async fn with_databases_in_memory_over_postgres(size: Size) {
    let seed = seed(&size);
    if let Some(brokers) = Within::over_postgres(seed).await {
        run(brokers, size.in_memory(), seed, &IN_MEMORY_OVER_POSTGRES).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn brokers_over_postgresql_keep_what_they_promise_whatever_befalls_them() {
    if let Some(world) = World::over_postgres().await {
        over_postgres(world, Size::short(24)).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_broker_over_a_file_keeps_what_it_promises_whatever_befalls_it() {
    over_a_file(Size::short(16)).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_broker_with_databases_in_memory_keeps_what_it_promises_whatever_befalls_it() {
    with_databases_in_memory(Size::short(160)).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn brokers_over_postgresql_with_databases_in_memory_keep_what_they_promise() {
    with_databases_in_memory_over_postgres(Size::short(60)).await;
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "takes a quarter of an hour: make chaos"]
async fn a_thousand_operations_over_postgresql() {
    let world = World::over_postgres()
        .await
        .expect("PostgreSQL is installed");
    over_postgres(world, Size::long()).await;
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "takes a quarter of an hour: make chaos"]
async fn a_thousand_operations_over_a_file() {
    over_a_file(Size::long()).await;
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "takes some minutes: make chaos"]
async fn a_thousand_operations_with_databases_in_memory() {
    with_databases_in_memory(Size::long_in_memory()).await;
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "takes some minutes: make chaos"]
async fn a_thousand_operations_over_postgresql_with_databases_in_memory() {
    with_databases_in_memory_over_postgres(Size::long_in_memory()).await;
}
