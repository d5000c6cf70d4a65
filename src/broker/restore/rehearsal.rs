//! What a restore would do, told before anything is made, with every reason why it would be refused.

use super::{
    Estimate, RestoreRequest, Restored, Restores, deployment_of, estimate, given_name, known,
};
use crate::{
    broker::{
        BrokerError,
        refusal::{Refusal, answer},
        source::{Source, chosen, restorable},
        target::units_of_a_restore,
        tenant_key::PrivateKey,
    },
    model::{
        backup::Manifest,
        catalog::{Offering, Placement, Plan},
        choice::BackupChoice,
        instance::Instance,
        parameters::ProvisionParameters,
        version::Version,
    },
    store::{self, Conn, StoreError},
};

/// What a restore would do.
#[derive(Debug, Clone, Default)]
pub struct RestorePreflight {
    /// Why it would not be done now; empty when it would.
    pub reasons: Vec<String>,
    /// The public key that the backup is sealed for, where the request lacks the private one. Nothing else is told
    /// otherwise by that.
    pub lacks_key_of: Option<String>,
    /// The backup that would be taken, where there is one.
    pub backup: Option<Manifest>,
    /// What the new instance would be called.
    pub name: Option<String>,
    /// Its version.
    pub version: Option<Version>,
    /// Its size.
    pub units: Option<u32>,
    /// The cluster that it would go to.
    pub cluster: Option<String>,
    /// About how long it would take; none where no restore of this engine is known that succeeded.
    pub estimate: Option<Estimate>,
}

/// How a rehearsal ends, so that all it did is taken back.
enum Rehearsed {
    Told(Box<RestorePreflight>),
    Failed(BrokerError),
}

impl From<StoreError> for Rehearsed {
    fn from(error: StoreError) -> Self {
        Self::Failed(error.into())
    }
}

impl Restores {
    /// What [`Self::restore_here`] would do. Nothing is made: its decision is taken back.
    pub async fn rehearse(
        self: &std::sync::Arc<Self>,
        request: RestoreRequest,
    ) -> Result<RestorePreflight, BrokerError> {
        let restores = self.clone();
        let rehearsed = self.store.decide(move |conn| -> Result<(), Rehearsed> {
            Err(match restores.rehearse_in(conn, &request) {
                Ok(preflight) => Rehearsed::Told(Box::new(preflight)),
                Err(error) => Rehearsed::Failed(error),
            })
        });
        match rehearsed.await {
            Err(Rehearsed::Told(preflight)) => Ok(*preflight),
            Err(Rehearsed::Failed(error)) => Err(error),
            Ok(()) => Ok(RestorePreflight::default()),
        }
    }

    fn rehearse_in(
        &self,
        conn: &mut Conn<'_>,
        request: &RestoreRequest,
    ) -> Result<RestorePreflight, BrokerError> {
        let source = known(conn, &request.source)?;
        let (offering, plan) = self
            .inventory
            .offering_and_plan(&source.service_id, &source.plan_id)?;
        let mut told = RestorePreflight::default();
        let of_the_source = |found: &Instance| found.deployment == source.deployment;
        let restorable = restorable(conn, of_the_source, &offering, source.id.as_str());
        note(&mut told.reasons, answer(restorable)?);
        if let Some(name) = &request.name {
            let name = given_name(conn, &source.tenant, name);
            note(&mut told.reasons, answer(name)?);
        }
        let choice = BackupChoice::read(Some(&request.backup), request.restore_time.as_deref());
        let choice = note(&mut told.reasons, choice.map_err(Refusal::from)).flatten();
        if let Some(choice) = choice {
            let chosen = chosen(conn, &Source::from(&source), &choice);
            told.backup = note(&mut told.reasons, answer(chosen)?);
        }
        if let Some(manifest) = told.backup.clone() {
            let of = (&*offering, &*plan);
            let refused = self.refusals(conn, &source, of, request, &manifest)?;
            told.reasons.extend(refused);
            let past = store::restore_time::last(conn, &offering.rules.engine)?;
            told.estimate = estimate(&past, manifest.stored.snapshot_bytes);
        }
        let mut request = request.clone();
        if let (PrivateKey::Absent, Some(manifest)) = (&request.private_key, &told.backup) {
            told.lacks_key_of = manifest.recipient().map(str::to_owned);
            request.private_key = PrivateKey::Later;
        }
        // What it comes to in all: the rules are those of the restore itself.
        let made = self.restore_here_in(conn, &request);
        if let Some(made) = note(&mut told.reasons, answer_to_request(made)?) {
            let Restored {
                instance,
                deployment,
                ..
            } = made;
            told.name = instance.name;
            told.version = Some(deployment.version);
            told.units = Some(deployment.units);
            told.cluster = Some(deployment.cluster);
        }
        Ok(told)
    }

    /// Why a restore of a backup would be refused for its place, its version, its size, each looked at by itself.
    fn refusals(
        &self,
        conn: &mut Conn<'_>,
        source: &Instance,
        (offering, plan): (&Offering, &Plan),
        request: &RestoreRequest,
        manifest: &Manifest,
    ) -> Result<Vec<String>, BrokerError> {
        let mut reasons = Vec::new();
        let cluster = match (&request.cluster, plan.rules.placement) {
            (None, Placement::Chosen) => Some(deployment_of(conn, source)?.cluster),
            (cluster, _) => cluster.clone(),
        };
        let candidates = self.targets.candidates(conn)?;
        let target = |with_version: bool, with_units: bool| {
            let asked = ProvisionParameters {
                cluster_id: cluster.clone(),
                db_version: request.version.clone().filter(|_| with_version),
                units: request.units.filter(|_| with_units),
                ..ProvisionParameters::default()
            };
            self.targets
                .target_among(&candidates, offering, plan, &asked, Some(manifest))
        };
        // What is wrong is told, and then what would be wrong if that were not.
        if note(&mut reasons, target(true, true)?).is_none() {
            note(&mut reasons, target(false, true)?);
            note(&mut reasons, target(true, false)?);
        }
        let units = request
            .units
            .unwrap_or_else(|| units_of_a_restore(manifest));
        let quotas = self.quotas.check_quotas(conn, &source.tenant, plan, units);
        note(&mut reasons, answer(quotas)?);
        Ok(reasons)
    }
}

/// The value; a refusal goes to the others, once.
fn note<T>(reasons: &mut Vec<String>, result: Result<T, impl ToString>) -> Option<T> {
    let refusal = match result {
        Ok(value) => return Some(value),
        Err(refusal) => refusal.to_string(),
    };
    if !reasons.contains(&refusal) {
        reasons.push(refusal);
    }
    None
}

/// What a whole request is answered where it is refused, apart from a failure.
fn answer_to_request<T>(result: Result<T, BrokerError>) -> Result<Result<T, String>, BrokerError> {
    match result {
        Ok(value) => Ok(Ok(value)),
        Err(BrokerError::BadRequest(reason) | BrokerError::Conflict(reason)) => Ok(Err(reason)),
        Err(error) => Err(error),
    }
}
