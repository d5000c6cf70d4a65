//! What an instance becomes: its cluster, version and size. The one set of rules for requests
//! for an instance, and for questions beforehand of what would be refused.

use std::sync::Arc;

use super::{BrokerError, BrokerParts, inventory::Inventory, refusal::Refusal};
use crate::{
    model::{
        backup::Manifest,
        capacity::Placed,
        catalog::{Offering, Plan},
        engine::Profile,
        limits::UNITS_DEFAULT,
        parameters::ProvisionParameters,
        placement::{self, Candidate, Cluster},
        sentence::counted,
        version::Version,
    },
    store::{self, Conn, StoreError},
    volumes::Volumes,
};

/// What was decided about an instance that is to be made.
pub(super) struct Target<'a> {
    /// Where it goes.
    pub cluster: &'a Cluster,
    /// The engine's version.
    pub version: Version,
    /// Its size.
    pub units: u32,
}

/// Where instances go.
pub(super) struct Targets {
    inventory: Arc<Inventory>,
    volumes: Arc<Volumes>,
}

impl Targets {
    pub(super) fn new(parts: &BrokerParts, inventory: Arc<Inventory>) -> Self {
        Self {
            inventory,
            volumes: parts.volumes.clone(),
        }
    }

    /// Decides about an instance that is asked for, or that is made from a backup.
    pub(super) fn target(
        &self,
        conn: &mut Conn<'_>,
        offering: &Offering,
        plan: &Plan,
        asked: &ProvisionParameters,
        source: Option<&Manifest>,
    ) -> Result<Target<'_>, BrokerError> {
        let candidates = self.candidates(conn)?;
        let target = self.target_among(&candidates, offering, plan, asked, source)?;
        Ok(target?)
    }

    /// The clusters with what is in use of each.
    pub(super) fn candidates(&self, conn: &mut Conn<'_>) -> Result<Vec<Candidate<'_>>, StoreError> {
        let of = |cluster: &Cluster| store::deployment::placed_on(conn, &cluster.id);
        let placed: Vec<Placed> = self
            .inventory
            .clusters
            .iter()
            .map(of)
            .collect::<Result<_, _>>()?;
        Ok(self.candidates_with(&placed))
    }

    /// The clusters with what is in use of each, in their order.
    pub(super) fn candidates_with(&self, placed: &[Placed]) -> Vec<Candidate<'_>> {
        let of_all = self.inventory.clusters.iter().zip(placed);
        let placed: Vec<(&str, Placed)> = of_all
            .map(|(cluster, of_it)| (cluster.id.as_str(), *of_it))
            .collect();
        let candidate = |(cluster, (_, of_it)): (_, &(&str, Placed))| Candidate {
            cluster,
            placed: *of_it,
            volume_bytes: self.volumes.bytes_for(&cluster.id, &placed),
            each: self.volumes.each(),
        };
        self.inventory
            .clusters
            .iter()
            .zip(&placed)
            .map(candidate)
            .collect()
    }

    /// [`Self::target`] for many questions in a row: nothing is counted anew, and a refusal is an answer.
    pub(super) fn target_among<'a>(
        &self,
        candidates: &[Candidate<'a>],
        offering: &Offering,
        plan: &Plan,
        asked: &ProvisionParameters,
        source: Option<&Manifest>,
    ) -> Result<Result<Target<'a>, Refusal>, BrokerError> {
        let profile = self.inventory.profile(&offering.rules.engine)?;
        Ok(self.decide(candidates, profile, plan, asked, source))
    }

    fn decide<'a>(
        &self,
        candidates: &[Candidate<'a>],
        profile: &'static Profile,
        plan: &Plan,
        asked: &ProvisionParameters,
        source: Option<&Manifest>,
    ) -> Result<Target<'a>, Refusal> {
        let units = asked
            .units
            .unwrap_or_else(|| source.map_or(UNITS_DEFAULT, units_of_a_restore));
        let most = self.inventory.units_max(profile.name);
        if !(1..=most).contains(&units) {
            return Err(Refusal::Units { units, most });
        }
        let cluster = placement::place(
            plan.rules.placement,
            asked.cluster_id.as_deref(),
            asked.cluster_service_instance_id.as_deref(),
            units,
            candidates,
        )?;
        let available = self.inventory.versions_on(&cluster.id, profile.name);
        let wanted = asked.db_version.as_deref();
        let exposure = &cluster.exposure;
        let served = exposure.served(profile, &available);
        let version = match source {
            // A request that names no version gets one that is served there.
            None if wanted.is_none() && !served.is_empty() => profile.for_new(None, &served),
            None => profile.for_new(wanted, &available),
            Some(manifest) => profile.for_restore(manifest.version, wanted, &available),
        }?;
        let fits = |v: &Version| source.is_none_or(|of| profile.restores(of.version, *v));
        let instead: Vec<Version> = served.into_iter().filter(fits).collect();
        exposure.check(profile, version, &instead)?;
        if let Some(manifest) = source {
            check_size(manifest, units)?;
        }
        Ok(Target {
            cluster,
            version,
            units,
        })
    }
}

/// The size of what is restored, when nobody asks for another one.
pub(super) fn units_of_a_restore(manifest: &Manifest) -> u32 {
    manifest.units_needed().max(manifest.units)
}

fn check_size(manifest: &Manifest, units: u32) -> Result<(), Refusal> {
    let needed = manifest.units_needed();
    if needed <= units {
        return Ok(());
    }
    Err(Refusal::TooLarge {
        mebibytes: manifest.stored.snapshot_bytes.div_ceil(1024 * 1024),
        asked: counted(units, "unit"),
        needed,
    })
}
