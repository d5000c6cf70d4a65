//! Watches over members: one that lost what it kept is replaced, one that hangs is ended and started
//! anew.
//!
//! Invariants: it takes a member's data only while a majority of sound ones serves, ends one that
//! hangs only while another one answers, one at a time, and touches none while an operation has the
//! members in hand. A loss is known by what is found in the member's
//! home, by its last words, or by the others; that it hangs, by signs of life that do not come.

use std::{
    collections::{BTreeMap, HashMap},
    mem,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use tokio::time::{Instant, sleep};
use tokio_util::sync::CancellationToken;

use crate::{
    broker::{BrokerError, Observer, RepairBegun, Upkeep},
    engine::SharedEngine,
    model::{
        deployment::{Deployment, Member, Membership},
        failure::chain,
        ids::DeploymentId,
        limits::{DAMAGED_ENDS_MIN, DIFFERENCE_INTERVAL, LIVENESS_INTERVAL, WATCHDOG_INTERVAL},
        observation::Observation,
        repair::{
            Damage, Patient, Repair, Silences, all_hang, hang_patience, next_hung, next_repair,
        },
    },
    provisioner::{ProcessState, ProvisionerError, SharedProvisioner, files_of_all, signs_of_life},
};

/// Watches over members.
pub struct Watchdog {
    upkeep: Arc<Upkeep>,
    /// With looks of its own: those of pages and of clients must not hold it up.
    observer: Box<dyn Observer>,
    engines: BTreeMap<String, SharedEngine>,
    provisioners: BTreeMap<String, SharedProvisioner>,
    /// How long a small member may give no sign of life.
    hang_after: Duration,
    known: Mutex<HashMap<DeploymentId, Known>>,
    /// What silences are counted from.
    begun: Instant,
}

/// What is remembered of one deployment.
#[derive(Debug, Default)]
struct Known {
    /// When its members were asked last for a sign of life.
    asked: Option<Instant>,
    /// Since when members run and give no sign of life.
    silences: Silences,
    /// Why the last look came to nothing.
    trouble: Option<String>,
    /// That all of them hang was logged.
    told_all_hang: bool,
    /// When its members were asked last whether they hold the same.
    compared: Option<Instant>,
    /// What was logged last of it that stays as it is.
    told: Option<&'static str>,
}

/// Why a look came to nothing.
#[derive(Debug, thiserror::Error)]
enum WatchError {
    #[error(transparent)]
    Broker(#[from] BrokerError),
    #[error(transparent)]
    Provisioner(#[from] ProvisionerError),
}

impl Watchdog {
    /// A watchdog over all members of this broker.
    pub fn new(
        upkeep: Arc<Upkeep>,
        observer: Box<dyn Observer>,
        engines: BTreeMap<String, SharedEngine>,
        provisioners: BTreeMap<String, SharedProvisioner>,
        hang_after: Duration,
    ) -> Self {
        Self {
            upkeep,
            observer,
            engines,
            provisioners,
            hang_after,
            known: Mutex::default(),
            begun: Instant::now(),
        }
    }

    /// Watches until `stop`.
    pub async fn run(self, stop: CancellationToken) {
        let mut fails = false;
        while !stop.is_cancelled() {
            match self.look_at_all().await {
                Ok(()) => fails = false,
                Err(error) => {
                    if !fails {
                        log::error!("cannot watch over members: {}", chain(&error));
                    }
                    fails = true;
                }
            }
            tokio::select! {
                () = stop.cancelled() => {}
                () = sleep(WATCHDOG_INTERVAL) => {}
            }
        }
    }

    async fn look_at_all(&self) -> Result<(), BrokerError> {
        let looking = self.upkeep.look_at_each(|deployment| async move {
            let trouble = self.look_at(&deployment).await.err();
            let trouble = trouble.map(|error| chain(&error));
            let before = self.with_known(&deployment, |of| {
                mem::replace(&mut of.trouble, trouble.clone())
            });
            // Trouble that stays is logged once.
            if let Some(trouble) = trouble.filter(|now| before.as_ref() != Some(now)) {
                log::warn!(deployment:% = deployment.id; "{trouble}");
            }
        });
        let there = looking.await?;
        self.known().retain(|id, _| there.contains(id));
        Ok(())
    }

    async fn look_at(&self, deployment: &Deployment) -> Result<(), WatchError> {
        let (Some(engine), Some(provisioner)) = (
            self.engines.get(&deployment.engine),
            self.provisioners.get(&deployment.cluster),
        ) else {
            return Ok(());
        };
        let processes = provisioner.observe(&deployment.id).await?;
        let mut damages = Vec::new();
        for member in &deployment.members {
            let process = processes.iter().find(|p| p.member == member.name);
            damages.push(damage(deployment, member, process, engine, provisioner).await?);
        }
        if damages.iter().any(Option::is_some) && self.upkeep.is_in_hand(deployment).await? {
            // It is being seen to, or will look different afterwards.
            return Ok(());
        }
        let compares = self.is_due(deployment, |known| &mut known.compared, DIFFERENCE_INTERVAL)
            // Where strangers may raise alarms, they are no proof.
            && !engine.profile().strangers_say_full(deployment.version);
        if (compares || damages.iter().any(Option::is_some))
            && let Some(seen) = self.observer.look(deployment).await
        {
            self.repair(deployment, &damages, &seen, compares).await?;
        }
        if self.is_due(deployment, |known| &mut known.asked, LIVENESS_INTERVAL)
            && let Some(alive) = self.observer.alive(deployment).await
        {
            self.upkeep.look_if_unwell(deployment, &alive);
            self.end_hung(deployment, engine, provisioner, &processes, &alive)
                .await?;
        }
        Ok(())
    }

    /// Has a damaged member replaced, if the others do without it.
    async fn repair(
        &self,
        deployment: &Deployment,
        damages: &[Option<Damage>],
        seen: &Observation,
        compares: bool,
    ) -> Result<(), WatchError> {
        let patients = seen.members.iter().zip(damages).map(|(member, damage)| {
            let differs = (compares && member.differs()).then_some(Damage::Differs);
            Patient {
                serves: member.serves(),
                damage: damage.or(differs),
            }
        });
        let patients: Vec<Patient> = patients.collect();
        if patients.iter().all(|patient| patient.damage.is_none()) {
            self.is_new(deployment, None);
            return Ok(());
        }
        let Some((place, because)) = next_repair(&patients, seen.needed) else {
            let text = "Members lost their data, and too few serve without them. The operator can \
                        recover the database from what is left, or from a backup.";
            return self.report_once(deployment, text).await;
        };
        let member = deployment.members[place].name.clone();
        let repair = Repair { member, because };
        let name = repair.member.as_str();
        match self
            .upkeep
            .repair_damaged(deployment, repair.clone())
            .await?
        {
            RepairBegun::Begun => {
                log::warn!(deployment:% = deployment.id, member = name;
                    "the member {because}; it is replaced");
            }
            RepairBegun::Waits => {}
            RepairBegun::TooOften => {
                let text = "A member lost its data again, after members were replaced so often \
                            within a day that the broker leaves it to the operator.";
                self.report_once(deployment, text).await?;
            }
        }
        Ok(())
    }

    /// Ends and starts anew a member that hangs, if the others go on.
    async fn end_hung(
        &self,
        deployment: &Deployment,
        engine: &SharedEngine,
        provisioner: &SharedProvisioner,
        processes: &[ProcessState],
        alive: &[bool],
    ) -> Result<(), WatchError> {
        let signs = signs_of_life(deployment, alive, processes);
        let members = self.with_known(deployment, |known| {
            known.silences.note(self.begun.elapsed(), &signs)
        });
        // A silence goes on meanwhile: what has members in hand may come again and again.
        if members.iter().all(|m| m.silent_for.is_none())
            || self.upkeep.is_in_hand(deployment).await?
        {
            return Ok(());
        }
        let files = files_of_all(provisioner, deployment, &engine.profile().database_file).await;
        let largest = files.iter().map(|file| file.bytes_on_disk).max();
        let patience = hang_patience(self.hang_after, largest.unwrap_or(0));
        let hang = all_hang(&members, patience);
        let were_told = self.with_known(deployment, |known| {
            mem::replace(&mut known.told_all_hang, hang)
        });
        if hang && !were_told {
            log::error!(deployment:% = deployment.id;
                "no member gives a sign of life, and all their processes run: look at the machine \
                 and its disk. None is ended, since nothing tells that it would come back");
        }
        let Some(place) = next_hung(&members, engine.profile().members_needed, patience) else {
            return Ok(());
        };
        let name = &deployment.members[place].name;
        log::warn!(deployment:% = deployment.id, member = name.as_str();
            "the member gave no sign of life for {:?} while others did; it is ended and started \
             anew", members[place].silent_for.unwrap_or_default());
        provisioner.restart(&deployment.id, name).await?;
        self.with_known(deployment, |known| known.silences.forget());
        let text = format!(
            "Member {name} gave no sign of life while others did. The broker ended it and started \
             it anew."
        );
        self.upkeep.report(deployment, text).await?;
        Ok(())
    }

    /// What is done with all that is remembered of a deployment.
    fn with_known<T>(&self, deployment: &Deployment, change: impl FnOnce(&mut Known) -> T) -> T {
        change(self.known().entry(deployment.id.clone()).or_default())
    }

    fn known(&self) -> MutexGuard<'_, HashMap<DeploymentId, Known>> {
        // Every change of the map is one call, so it is whole even after a panic.
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether something is due that is done every `interval`; if so, it counts as done.
    fn is_due(
        &self,
        deployment: &Deployment,
        last: impl Fn(&mut Known) -> &mut Option<Instant>,
        interval: std::time::Duration,
    ) -> bool {
        let now = Instant::now();
        self.with_known(deployment, |known| {
            let last = last(known);
            let due = last.is_none_or(|last| now - last >= interval);
            if due {
                *last = Some(now);
            }
            due
        })
    }

    /// Tells operators and users what stays as it is, once.
    async fn report_once(
        &self,
        deployment: &Deployment,
        text: &'static str,
    ) -> Result<(), WatchError> {
        if self.is_new(deployment, Some(text)) {
            log::error!(deployment:% = deployment.id; "{text}");
            self.upkeep.report(deployment, text.to_owned()).await?;
        }
        Ok(())
    }

    /// Whether this was not what was told of a deployment last; from now on it is.
    fn is_new(&self, deployment: &Deployment, text: Option<&'static str>) -> bool {
        self.with_known(deployment, |known| mem::replace(&mut known.told, text)) != text
    }
}

/// What is wrong with what a member kept, as far as its home and its last words tell.
async fn damage(
    deployment: &Deployment,
    member: &Member,
    process: Option<&ProcessState>,
    engine: &SharedEngine,
    provisioner: &SharedProvisioner,
) -> Result<Option<Damage>, ProvisionerError> {
    if member.membership == Membership::Joining {
        return Ok(Some(Damage::Unfinished));
    }
    let Some(process) = process else {
        return Ok(None);
    };
    if process.has_lost_data {
        return Ok(Some(Damage::Lost));
    }
    if process.running || process.restarts < DAMAGED_ENDS_MIN {
        return Ok(None);
    }
    let words = provisioner.last_words(&deployment.id, &member.name).await?;
    let tells = words.is_some_and(|words| (engine.profile().tells_damage)(&words));
    Ok(tells.then_some(Damage::Damaged))
}
