//! What several operations do with the members of a deployment.

use std::{collections::BTreeMap, time::Duration};

use futures::future::try_join_all;
use tokio::time::Instant;

use super::{
    OpenDeployment, Outcome, StepError, Work, bind,
    liveness::{Seen, Vigil},
    sizes,
};
use crate::{
    engine::{DatabaseUser, EngineError, Holding, Issue},
    model::{
        address::Address,
        alert::Incident,
        binding::BindingState,
        deployment::{Access, Deployment, Member, Membership},
        limits::{
            AGREEMENT_POLL, CHANGE_WAIT, CRASH_WATCH, CRASHES_MAX, DAMAGED_ENDS_MIN,
            PLACE_TRIES_MAX, READY_TIMEOUT,
        },
        reach::Reach,
        renewal::Certificates,
        repair::time_to_start,
        server::Server,
    },
    provisioner::{ProcessState, ProvisionerError},
    store,
};

/// Chooses the members' places, reserves them and makes the deployment's secrets.
pub async fn allocate(work: &Work) -> Result<Outcome, StepError> {
    let deployment = work.deployment().await?;
    if !deployment.members.is_empty() {
        return Outcome::done();
    }
    let cluster = work.cluster(&deployment)?;
    let provisioner = &cluster.provisioner;
    let engine = work.engine(&deployment)?;
    let profile = engine.profile();
    let tenant = work.tenant().await?;
    let of = tenant.owning(&deployment.id);
    provisioner
        .room_for(of, profile.members as u64 * profile.member_bytes_min)
        .await?;
    let reach = cluster.exposure.reach_of(profile, &deployment);
    let names: Vec<String> = (0..profile.members).map(|i| format!("m{i}")).collect();
    let reserve = |placed| reserve(work, placed);
    place(work, &deployment, &names, &reach, reserve).await?;
    Outcome::done()
}

/// Chooses places for the new members `names` of a deployment, until `reserve` gets some for it; that says
/// whether nobody else has reserved one of them meanwhile. Returns the deployment with these members.
pub async fn place<R>(
    work: &Work,
    deployment: &Deployment,
    names: &[String],
    reach: &Reach,
    reserve: impl Fn(Deployment) -> R,
) -> Result<Deployment, StepError>
where
    R: Future<Output = Result<bool, StepError>>,
{
    let provisioner = &work.cluster(deployment)?.provisioner;
    let ports = work.engine(deployment)?.profile().ports;
    let tenant = work.tenant().await?;
    let of = tenant.owning(&deployment.id);
    for _ in 0..PLACE_TRIES_MAX {
        let hosts = provisioner.hosts(of, names, reach);
        let taken = work.scan(move |conn| store::deployment::addresses(conn, &hosts));
        let taken = taken.await?;
        let places = provisioner.place(of, names, ports, reach, &taken).await?;
        let members = names.iter().zip(places);
        let placed = Deployment {
            members: members.map(|(name, at)| new_member(name, at)).collect(),
            ..deployment.clone()
        };
        if reserve(placed.clone()).await? {
            return Ok(placed);
        }
    }
    Err(StepError::passing(
        "others reserve the cluster's ports at the same time",
    ))
}

/// A member that has its place, and nothing else.
fn new_member(name: &str, addresses: BTreeMap<String, Address>) -> Member {
    Member {
        name: name.to_owned(),
        addresses,
        shape: None,
        checkpointing: false,
        membership: Membership::New,
    }
}

/// Makes the secrets of a deployment and reserves its members' addresses; returns false when somebody
/// has reserved one of them meanwhile.
async fn reserve(work: &Work, placed: Deployment) -> Result<bool, StepError> {
    let life = work.parts.certificate_life;
    let now = work.parts.clock.now();
    let certificates = Certificates::new(now, &life);
    let engine = work.engine(&placed)?;
    let secrets = engine.secrets(&placed, Issue::First, &certificates, now)?;
    let sealed = work.seal(&placed.seal_context(), &secrets)?;
    work.write(move |conn| {
        if store::deployment::held_by_another(conn, &placed)?.is_some() {
            return Ok(false);
        }
        store::deployment::allocate(conn, &placed, &sealed)?;
        store::renewal::set(conn, &placed.id, &certificates.outlook(&life))?;
        Ok(true)
    })
    .await
}

/// Makes all members run, one after the other: a new member asks the others whether
/// it was there before, and waits a whole second for each that listens but does not serve yet. None
/// waits for the one before to serve: this is for deployments that nobody uses.
pub async fn start(opened: &OpenDeployment) -> Result<(), StepError> {
    let (provisioner, servers) = (opened.provisioner(), opened.servers());
    if !provisioner.starts_in_turn() {
        let started = servers.iter().map(|server| provisioner.start(server));
        try_join_all(started).await?;
        return Ok(());
    }
    for (server, member) in servers.iter().zip(&opened.deployment.members) {
        provisioner.start(server).await?;
        opened.engine.listening(member).await;
    }
    Ok(())
}

/// Opens a deployment that nobody but the broker could enter so far to its users. Its members have
/// served together, so that from now on none of them starts without what it keeps.
pub async fn open(work: &Work) -> Result<Outcome, StepError> {
    let deployment = work.deployment().await?;
    let mut members = deployment.members;
    if members.iter().any(|m| m.membership == Membership::New) {
        for member in &mut members {
            member.membership = Membership::Joined;
        }
        let id = deployment.id;
        work.write(move |conn| store::deployment::set_members(conn, &id, &members))
            .await?;
    }
    start_anew(work, Access::Passwords).await?;
    Outcome::done()
}

/// Makes all members run with another `access` than so far, and waits until they serve.
///
/// The members are started anew: a connection from before could go on with the rights that it
/// had. They are killed: an orderly end takes seconds, and what they have acknowledged is on their
/// disks. Those that run with this `access` already were started since it was decided, and are left
/// alone: large ones would never be ready if each try began from the beginning.
pub async fn start_anew(work: &Work, access: Access) -> Result<(), StepError> {
    let opened = work.opened().await?.with_access(access);
    let provisioner = opened.provisioner();
    let stop = |server: Server| async move {
        if provisioner.runs_as(&server).await? {
            return Ok(());
        }
        let (of, member) = (&server.deployment, &server.member);
        provisioner.stop(of, member, Duration::ZERO).await
    };
    try_join_all(opened.servers().into_iter().map(stop)).await?;
    start(&opened).await?;
    await_ready(work, &opened).await
}

/// Makes the members run as is decided for each of them. Those that do not run are started first,
/// since they wait for each other; then one that has to be started anew serves again before the next
/// one is touched.
pub async fn start_as_decided(work: &Work, opened: &OpenDeployment) -> Result<(), StepError> {
    let (provisioner, servers) = (opened.provisioner(), opened.servers());
    let observed = provisioner.observe(&opened.deployment.id).await?;
    let runs = |name: &str| observed.iter().any(|m| m.member == name && m.running);
    for server in servers.iter().filter(|server| !runs(&server.member)) {
        provisioner.start(server).await?;
    }
    for server in &servers {
        provisioner.start(server).await?;
        await_ready(work, opened).await?;
    }
    Ok(())
}

/// Makes the members run as is decided for each of them, as far as they can: one whose data is gone
/// is left to its repair. Waits for none.
pub async fn start_what_can(opened: &OpenDeployment) -> Result<(), StepError> {
    start_some(opened, |_| true).await
}

/// The same of those that do not run; the others are left alone, however they run.
pub async fn start_stopped(opened: &OpenDeployment) -> Result<(), StepError> {
    let provisioner = opened.provisioner();
    let observed = provisioner.observe(&opened.deployment.id).await?;
    let runs = |name: &str| observed.iter().any(|m| m.member == name && m.running);
    start_some(opened, |name| !runs(name)).await
}

async fn start_some(
    opened: &OpenDeployment,
    is_one: impl Fn(&str) -> bool,
) -> Result<(), StepError> {
    let (provisioner, servers) = (opened.provisioner(), opened.servers());
    for server in servers.iter().filter(|server| is_one(&server.member)) {
        match provisioner.start(server).await {
            Ok(()) | Err(ProvisionerError::DataLost { .. }) => {}
            Err(error) => return Err(error.into()),
        }
    }
    Ok(())
}

/// Waits until enough members serve so that the database can be used.
pub async fn await_usable(work: &Work, opened: &OpenDeployment) -> Result<(), StepError> {
    let bytes = sizes::bytes_on_disk(opened).await?;
    let deadline = Instant::now() + READY_TIMEOUT + time_to_start(bytes);
    loop {
        let seen = work.observe(opened).await?;
        if seen.is_usable() {
            return Ok(());
        }
        if Instant::now() >= deadline {
            return Err(StepError::passing("too few members serve"));
        }
        tokio::time::sleep(AGREEMENT_POLL).await;
    }
}

/// The name of a member that lost its data, or that ends because of it; the first if there are more.
pub async fn lost(opened: &OpenDeployment) -> Result<Option<String>, StepError> {
    let (provisioner, id) = (opened.provisioner(), &opened.deployment.id);
    for member in provisioner.observe(id).await? {
        let ends = !member.running && member.restarts >= DAMAGED_ENDS_MIN;
        let words = match ends {
            true => provisioner.last_words(id, &member.member).await?,
            false => None,
        };
        let tells = words.is_some_and(|words| (opened.profile().tells_damage)(&words));
        if member.has_lost_data || tells {
            return Ok(Some(member.member));
        }
    }
    Ok(None)
}

/// Whether no member of a deployment runs.
pub async fn are_stopped(opened: &OpenDeployment) -> Result<bool, StepError> {
    let observed = opened.provisioner().observe(&opened.deployment.id).await?;
    Ok(observed.iter().all(|member| !member.running))
}

/// Who may enter a deployment: the users of its bindings, and the names of those that may be there or
/// not.
pub async fn users(
    work: &Work,
    deployment: &Deployment,
) -> Result<(Vec<DatabaseUser>, Vec<String>), StepError> {
    let instance = deployment.instance.clone();
    let bindings = work
        .read(move |conn| store::binding::of_instance(conn, &instance))
        .await?;
    let (mut users, mut others) = (Vec::new(), Vec::new());
    for binding in &bindings {
        if binding.state == BindingState::Ready {
            users.push(bind::user_of(work, binding)?);
        } else {
            // It is being made or removed by somebody else.
            others.push(binding.database_user.clone());
        }
    }
    Ok((users, others))
}

/// Puts right who may enter a deployment, and writes down for its users what was not so.
pub async fn restore_users(work: &Work, opened: &OpenDeployment) -> Result<(), StepError> {
    let (users, others) = users(work, &opened.deployment).await?;
    let found = opened
        .engine
        .restore_users(opened.site(), &users, &others)
        .await?;
    if found.is_empty() {
        return Ok(());
    }
    let (id, message) = (&opened.deployment.id, found.join(" "));
    log::error!(deployment:% = id; "its users were not as the broker made them: {message}");
    record_incident(work, &opened.deployment, message).await
}

/// Writes down what befell a deployment, for its users to be told.
pub async fn record_incident(
    work: &Work,
    deployment: &Deployment,
    message: String,
) -> Result<(), StepError> {
    let (id, at) = (deployment.id.clone(), work.parts.clock.now());
    let incident = Incident { at, message };
    work.write(move |conn| store::incident::add(conn, &id, &incident))
        .await
}

/// Fails when a member lost its data: it is replaced before anything else is done with the members.
pub async fn check_none_lost(opened: &OpenDeployment) -> Result<(), StepError> {
    match lost(opened).await? {
        None => Ok(()),
        Some(lost) => Err(StepError::last(format!(
            "member {lost} has lost its data, and is replaced first"
        ))),
    }
}

/// Makes the member at `place` run as is decided for it. Does not wait for it.
pub async fn start_one(opened: &OpenDeployment, place: usize) -> Result<(), StepError> {
    let servers = opened.servers();
    Ok(opened.provisioner().start(&servers[place]).await?)
}

/// Waits until all members serve, the longer the more they have to read; breaks off when one of them
/// keeps crashing or has nothing to read.
pub async fn await_ready(work: &Work, opened: &OpenDeployment) -> Result<(), StepError> {
    let bytes = sizes::bytes_on_disk(opened).await?;
    let deadline = Instant::now() + time_to_start(bytes);
    let ready = async {
        loop {
            match opened.engine.ready(opened.site()).await {
                Err(EngineError::NotReady(_)) if Instant::now() < deadline => {}
                ended => return ended,
            }
        }
    };
    let vigil = Vigil::begin(work, opened).await?;
    tokio::select! {
        ready = ready => Ok(ready?),
        down = a_member_stays_down(opened) => Err(down),
        failed = vigil.keep() => Err(failed),
    }
}

/// Waits until the members of a new deployment serve, and lets in the administrator alone.
pub async fn secure(work: &Work, holding: Holding) -> Result<Outcome, StepError> {
    let opened = work.opened().await?.with_access(Access::Certificates);
    await_ready(work, &opened).await?;
    opened.engine.secure(opened.site(), holding).await?;
    Outcome::done()
}

/// Looks whether all members serve before any of them is touched. A member that does not serve then does
/// not start either, so this waits for a moment, and what it finds is told by name. One that hangs is
/// ended and started anew when its time is over.
pub async fn check_serving(work: &Work, opened: &OpenDeployment) -> Result<(), StepError> {
    let mut vigil = Vigil::begin(work, opened).await?;
    let mut deadline = Instant::now() + CHANGE_WAIT;
    // For one that hangs, and for what comes after it.
    let longest = deadline + vigil.patience();
    loop {
        let seen = opened.engine.observe(opened.site()).await?;
        let Some(down) = seen.iter().find(|member| !member.serves()) else {
            return Ok(());
        };
        match vigil.look().await? {
            Seen::Nothing => {}
            Seen::Silence => deadline = longest,
            Seen::Restart => deadline = Instant::now() + vigil.patience(),
        }
        if Instant::now() >= deadline {
            let name = &down.name;
            return Err(StepError::last(format!(
                "member {name} does not serve, and members are changed only while all do; the \
                 broker brings it back by itself where it can"
            )));
        }
        tokio::time::sleep(AGREEMENT_POLL).await;
    }
}

/// Tells of a member that is down now and will not come up by itself.
async fn a_member_stays_down(opened: &OpenDeployment) -> StepError {
    // In a row: one look may come between an end and a start.
    let mut stopped = 0;
    loop {
        tokio::time::sleep(CRASH_WATCH).await;
        match opened.provisioner().observe(&opened.deployment.id).await {
            Ok(members) => {
                if members.iter().all(|member| !member.running) {
                    stopped += 1;
                } else {
                    stopped = 0;
                }
                if stopped > 1 {
                    return StepError::passing("all members were stopped");
                }
                if let Some(member) = members.iter().find(|m| m.has_lost_data) {
                    return StepError::passing(format!(
                        "member {} has lost its data",
                        member.member
                    ));
                }
                // One that crashed before and runs by now is none of these.
                let down = |m: &&ProcessState| !m.running && m.restarts >= CRASHES_MAX;
                if let Some(member) = members.iter().find(down) {
                    return StepError::passing(format!("member {} keeps crashing", member.member));
                }
            }
            Err(error) => return error.into(),
        }
    }
}

/// Ends and removes all that a deployment has on its cluster.
pub async fn destroy(work: &Work) -> Result<Outcome, StepError> {
    let deployment = work.deployment().await?;
    work.cluster(&deployment)?
        .provisioner
        .destroy(&deployment.id)
        .await?;
    Outcome::done()
}

/// Gives the deployment's ports back and forgets its secrets; nothing runs there any more.
pub async fn release(work: &Work) -> Result<Outcome, StepError> {
    let deployment = work.deployment().await?;
    work.write(move |conn| store::deployment::release(conn, &deployment.id))
        .await?;
    Outcome::done()
}
