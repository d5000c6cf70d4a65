//! Replaces a member that lost what it kept.
//!
//! A member without its data is another member: the others count on what the old one knew. So the old
//! one leaves the cluster first, its home is emptied only when it has left, and a new one comes in
//! its place, with the same name and the same addresses. Where the version can, it gives the new one
//! no vote before that one has caught up.
//!
//! Nothing is taken away unless enough members serve without it: each step that takes looks anew.
//! When a step fails for good, what is left is a cluster that serves, and a member whose data is
//! missing or that is [`Membership::Joining`]: the next repair begins from there.

use std::{sync::Arc, time::Duration};

use tokio::time::{Instant, sleep};

use super::{Definition, Ending, OpenDeployment, Outcome, Step, StepError, Work, members, sizes};
use crate::{
    engine::{EngineError, MemberChange},
    model::{
        alert::Incident,
        deployment::{Member, Membership},
        failure::chain,
        limits::{AGREEMENT_POLL, CHANGE_WAIT, JOIN_TIMEOUT},
        operation::Operation,
        repair::{Repair, time_to_start},
    },
    provisioner::ProvisionerError,
    store::{self, Conn, StoreError},
};

/// Repair.
pub const DEFINITION: Definition = Definition {
    steps: &[
        Step {
            name: "look",
            title: "Looking whether the others serve without it",
            run: |w| Box::pin(look(w)),
        },
        Step {
            name: "remove",
            title: "Taking the member out of its cluster",
            run: |w| Box::pin(remove(w)),
        },
        Step {
            name: "wipe",
            title: "Emptying the member's home",
            run: |w| Box::pin(wipe(w)),
        },
        Step {
            name: "add",
            title: "Taking a new member into the cluster",
            run: |w| Box::pin(add(w)),
        },
        Step {
            name: "start",
            title: "Starting the new member",
            run: |w| Box::pin(start(w)),
        },
        Step {
            name: "join",
            title: "Waiting until the new member has caught up",
            run: |w| Box::pin(join(w)),
        },
    ],
    begun: |_, _| Ok(()),
    cleanup: &[Step {
        name: "cleanup_member",
        title: "Starting the member as it was",
        run: |w| Box::pin(put_back(w)),
    }],
    succeed,
    fail: |_: &mut Conn<'_>, _: &Ending<'_>, _| Ok(()),
};

/// A member that is replaced, in its deployment as that is now.
struct Replacement {
    opened: OpenDeployment,
    index: usize,
}

impl Replacement {
    /// That of the member which a repair names.
    async fn named(work: &Work) -> Result<Self, StepError> {
        Self::of(work, &repair(&work.operation)?.member).await
    }

    async fn of(work: &Work, member: &str) -> Result<Self, StepError> {
        let opened = work.opened().await?;
        let index = opened.deployment.place_of(member);
        let index = index.ok_or_else(|| StepError::last(format!("there is no member {member}")))?;
        Ok(Self { opened, index })
    }

    fn member(&self) -> &Member {
        &self.opened.deployment.members[self.index]
    }

    async fn change(&self, place: usize, change: MemberChange) -> Result<(), EngineError> {
        let (engine, site) = (&self.opened.engine, self.opened.site());
        engine.change_member(site, place, change).await
    }

    /// Fails unless enough members serve without this one. Members that elect a leader are waited for.
    async fn check_others(&self, work: &Work) -> Result<(), StepError> {
        let deadline = Instant::now() + CHANGE_WAIT;
        loop {
            let seen = work.observe(&self.opened).await?;
            if seen.is_usable_without(self.index) {
                return Ok(());
            }
            if Instant::now() >= deadline {
                let name = &self.member().name;
                return Err(StepError::last(format!(
                    "too few members serve without {name}; nothing may be taken from them"
                )));
            }
            sleep(AGREEMENT_POLL).await;
        }
    }

    /// Takes the member out of the cluster; it does not run from then on.
    async fn remove(&self, work: &Work) -> Result<(), StepError> {
        self.check_others(work).await?;
        let heir = (self.index + 1) % self.opened.deployment.members.len();
        // The others would find a leader by themselves, only later.
        if let Err(error) = self.change(heir, MemberChange::Lead).await {
            log::info!(operation:% = work.operation.id; "{}", chain(&error));
        }
        let (id, name) = (&self.opened.deployment.id, &self.member().name);
        self.opened
            .provisioner()
            .stop(id, name, Duration::ZERO)
            .await?;
        self.check_others(work).await?;
        Ok(self.change(self.index, MemberChange::Leave).await?)
    }

    async fn wipe(&self) -> Result<(), StepError> {
        let (id, name) = (&self.opened.deployment.id, &self.member().name);
        Ok(self.opened.provisioner().wipe(id, name).await?)
    }

    /// Takes a new member into the cluster. That it comes is written down before.
    async fn add(&mut self, work: &Work) -> Result<(), StepError> {
        self.check_others(work).await?;
        self.set_membership(work, Membership::Joining).await?;
        Ok(self.change(self.index, MemberChange::Enter).await?)
    }

    /// Starts the member as it is decided now.
    async fn start(&self) -> Result<(), StepError> {
        members::start_one(&self.opened, self.index).await
    }

    /// Waits until the new member has a vote and serves like the others; it has a time of its own for
    /// that, by how much it has to catch up.
    async fn join(&mut self, work: &Work) -> Result<(), StepError> {
        let bytes = sizes::bytes_on_disk(&self.opened).await?;
        let patience = JOIN_TIMEOUT + time_to_start(bytes);
        self.change(self.index, MemberChange::Vote { patience })
            .await?;
        members::await_ready(work, &self.opened).await?;
        self.set_membership(work, Membership::Joined).await?;
        // It runs so already; from now on it is not started without its data.
        self.start().await
    }

    async fn set_membership(&mut self, work: &Work, now: Membership) -> Result<(), StepError> {
        let deployment = &mut self.opened.deployment;
        deployment.members[self.index].membership = now;
        let (id, members) = (deployment.id.clone(), deployment.members.clone());
        work.write(move |conn| store::deployment::set_members(conn, &id, &members))
            .await
    }
}

fn repair(operation: &Operation) -> Result<&Repair, StepError> {
    let repair = operation.repair.as_ref();
    repair.ok_or_else(|| StepError::last("the repair does not say what it repairs"))
}

async fn look(work: Arc<Work>) -> Result<Outcome, StepError> {
    Replacement::named(&work).await?.check_others(&work).await?;
    Outcome::done()
}

async fn remove(work: Arc<Work>) -> Result<Outcome, StepError> {
    Replacement::named(&work).await?.remove(&work).await?;
    Outcome::done()
}

async fn wipe(work: Arc<Work>) -> Result<Outcome, StepError> {
    Replacement::named(&work).await?.wipe().await?;
    Outcome::done()
}

async fn add(work: Arc<Work>) -> Result<Outcome, StepError> {
    Replacement::named(&work).await?.add(&work).await?;
    Outcome::done()
}

async fn start(work: Arc<Work>) -> Result<Outcome, StepError> {
    Replacement::named(&work).await?.start().await?;
    Outcome::done()
}

async fn join(work: Arc<Work>) -> Result<Outcome, StepError> {
    Replacement::named(&work).await?.join(&work).await?;
    Outcome::done()
}

/// All of it at once, for an operation that meets such a member on its way: each call begins from the beginning.
pub async fn replace(work: &Work, member: &str) -> Result<(), StepError> {
    let mut replacement = Replacement::of(work, member).await?;
    log::warn!(operation:% = work.operation.id, member; "the member lost its data and is replaced");
    replacement.remove(work).await?;
    replacement.wipe().await?;
    replacement.add(work).await?;
    replacement.start().await?;
    replacement.join(work).await
}

/// A member that was only stopped goes on. One that has left, or whose data is gone, stays as it is:
/// the next repair takes it from there.
async fn put_back(work: Arc<Work>) -> Result<Outcome, StepError> {
    // It goes with the instance.
    if work.was_halted().await? {
        return Outcome::done();
    }
    let replacement = Replacement::named(&work).await?;
    if !replacement.member().membership.is_joined() {
        return Outcome::done();
    }
    let Replacement { opened, index } = replacement;
    match opened.provisioner().start(&opened.servers()[index]).await {
        Ok(()) | Err(ProvisionerError::DataLost { .. }) => Outcome::done(),
        Err(error) => Err(error.into()),
    }
}

/// Users are told of it for a while.
fn succeed(conn: &mut Conn<'_>, ending: &Ending<'_>) -> Result<(), StoreError> {
    let (operation, at) = (ending.operation, ending.now);
    let found = store::deployment::of_instance(conn, &operation.instance)?;
    let (Some((deployment, _)), Some(repair)) = (found, &operation.repair) else {
        return Ok(());
    };
    let message = format!(
        "Member {} {}. It was replaced, and holds again what the others hold.",
        repair.member, repair.because
    );
    store::incident::add(conn, &deployment.id, &Incident { at, message })
}
