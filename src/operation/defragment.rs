//! Gives the storage back that the files of a database do not use: one member after the other, the
//! leader last, and each only while all of them serve. Nobody's history is forgotten, and nobody is let
//! in or out, unless the database fills up meanwhile.

use std::sync::Arc;

use super::{Definition, Ending, OpenDeployment, Outcome, Step, StepError, Work, relief, sizes};
use crate::{
    engine::Relief,
    model::{
        defragment::{self, Storage},
        full::Need,
        observation::MemberObservation,
        origin::Origin,
        turn::Turn,
    },
    provisioner::ProvisionerError,
    store::Conn,
};

/// Defragmentation.
pub const DEFINITION: Definition = Definition {
    steps: &[
        Step {
            name: "give_back",
            title: "Giving unused storage back, member by member",
            run: |w| Box::pin(give_back(w)),
        },
        Step {
            name: "clear_alarms",
            title: "Looking whether there is room again",
            run: |w| Box::pin(clear_alarms(w)),
        },
    ],
    begun: |_, _| Ok(()),
    // A member whose file was not written anew goes on with the old one.
    cleanup: &[],
    succeed: |_, _| Ok(()),
    fail: |_: &mut Conn<'_>, _: &Ending<'_>, _| Ok(()),
};

async fn give_back(work: Arc<Work>) -> Result<Outcome, StepError> {
    let is_asked_for = work.operation.origin != Origin::Night;
    let mut done = Vec::new();
    loop {
        let opened = work.opened().await?;
        // No relief comes in between, and one that is closed is its affair.
        let is_closed = opened.deployment.closed_since.is_some();
        if is_closed || relief::close_if_unsafe(&work, &opened).await? {
            return Outcome::done();
        }
        let seen = all_serve(&opened).await?;
        let Some(place) = defragment::next(&seen, &done, is_asked_for) else {
            return Outcome::done();
        };
        room_for_one(&work, &opened, &seen[place]).await?;
        let turn = Turn::of(&seen[place].name, done.len(), seen.len(), "");
        work.take_turn(turn).await?;
        let relief = Relief::GiveBackOf(place);
        opened.engine.relieve(opened.site(), relief).await?;
        done.push(place);
    }
}

/// A database that was full takes writes again where there is room now.
async fn clear_alarms(work: Arc<Work>) -> Result<Outcome, StepError> {
    let opened = work.opened().await?;
    let fullness = sizes::fullness(&work, &opened).await?;
    if !fullness.is_closed && fullness.need() == Some(Need::Open) {
        let relief = Relief::ClearAlarms;
        opened.engine.relieve(opened.site(), relief).await?;
    }
    Outcome::done()
}

/// Fails for good where one more file does not fit on the disk: an operation that waited for the disk would hold
/// up backups and updates, and what is unused harms nobody.
async fn room_for_one(
    work: &Work,
    opened: &OpenDeployment,
    member: &MemberObservation,
) -> Result<(), StepError> {
    let bytes = Storage::of_member(member).map_or(0, Storage::written);
    let tenant = work.tenant().await?;
    let of = tenant.owning(&opened.deployment.id);
    match opened.provisioner().room_for(of, bytes).await {
        Err(error @ ProvisionerError::DiskFull { .. }) => {
            Err(StepError::last(StepError::from(error).to_string()))
        }
        other => Ok(other?),
    }
}

/// What the members say; fails while one of them does not serve.
async fn all_serve(opened: &OpenDeployment) -> Result<Vec<MemberObservation>, StepError> {
    let seen = opened.engine.observe(opened.site()).await?;
    match seen.iter().find(|member| !member.serves()) {
        None => Ok(seen),
        Some(down) => Err(StepError::passing(format!(
            "member {} does not serve, and no other one may stand still meanwhile",
            down.name
        ))),
    }
}
