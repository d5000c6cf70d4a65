//! Placement targets, and which one an instance goes to.

use serde::Deserialize;

use super::{
    capacity::{Footprint, Placed},
    catalog::Placement,
    exposure::Exposure,
    ids::InstanceId,
    limits::SNAPSHOTS_AT_ONCE_PER_CLUSTER,
    sentence::{choice, counted, is_or_are},
};

/// A placement target, as the rules know it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Cluster {
    /// Its id, the value of the parameter `cluster_id`.
    pub id: String,
    /// For people.
    pub name: String,
    /// Its kind, the value of the field `kind` in the file of clusters.
    pub kind: &'static str,
    /// The cluster's own service instance, the value of `cluster_service_instance_id`.
    pub service_instance_id: Option<InstanceId>,
    /// Whether it takes new instances. What it has is looked after in any case.
    pub enabled: bool,
    /// The units of all its instances together, where the operator says so; absent: as many as its
    /// volume has room for.
    pub capacity_units: Option<u32>,
    /// Backups that the schedule lets run at once on it; absent: the limit that all have.
    pub snapshots_at_once: Option<u32>,
    /// Operations that start databases or move their bytes, and that run at once on it; absent: as
    /// many as there are places for.
    pub operations_at_once: Option<u32>,
    /// What it shows of its members to applications.
    pub exposure: Exposure,
}

impl Cluster {
    /// Backups that the schedule lets run at once on it.
    pub fn snapshots_at_once(&self) -> usize {
        let own = self.snapshots_at_once.map(usize::try_from);
        own.and_then(Result::ok)
            .unwrap_or(SNAPSHOTS_AT_ONCE_PER_CLUSTER)
    }
}

/// TCP ports from `first` to `last`, both included.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(try_from = "String")]
pub struct PortRange {
    /// The first port.
    pub first: u16,
    /// The last port.
    pub last: u16,
}

impl PortRange {
    /// Whether some port is in both.
    pub fn overlaps(&self, other: &PortRange) -> bool {
        self.first <= other.last && other.first <= self.last
    }
}

/// A text is no port range.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is not a port range of the form 20000-29999, within 1024-65535")]
pub struct PortRangeError(String);

impl std::str::FromStr for PortRange {
    type Err = PortRangeError;

    fn from_str(text: &str) -> Result<Self, PortRangeError> {
        let wrong = || PortRangeError(text.to_owned());
        let (first, last) = text.split_once('-').ok_or_else(wrong)?;
        let first: u16 = first.trim().parse().map_err(|_| wrong())?;
        let last: u16 = last.trim().parse().map_err(|_| wrong())?;
        if first < 1024 || last < first {
            Err(wrong())
        } else {
            Ok(Self { first, last })
        }
    }
}

impl TryFrom<String> for PortRange {
    type Error = PortRangeError;

    fn try_from(text: String) -> Result<Self, PortRangeError> {
        text.parse()
    }
}

impl std::fmt::Display for PortRange {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}-{}", self.first, self.last)
    }
}

/// A cluster, and how much of it is in use.
#[derive(Debug, Clone, Copy)]
pub struct Candidate<'a> {
    /// The cluster.
    pub cluster: &'a Cluster,
    /// The instances that are on it, whatever state they are in.
    pub placed: Placed,
    /// What its volume has for its members, in bytes; absent: it is not known.
    pub volume_bytes: Option<u64>,
    /// What each instance takes there beside its units.
    pub each: Footprint,
}

impl Candidate<'_> {
    /// The units that a new instance may have; none: as many as you like.
    pub fn units_free(&self) -> Option<u64> {
        self.units_free_beside(self.placed.and_instance())
    }

    /// The units by which the instances that are there may grow; none: as many as you like.
    pub fn units_free_to_grow(&self) -> Option<u64> {
        self.units_free_beside(self.placed)
    }

    fn units_free_beside(&self, placed: Placed) -> Option<u64> {
        match self.cluster.capacity_units {
            Some(capacity) => Some(u64::from(capacity).saturating_sub(placed.units)),
            None => {
                let free = |bytes| placed.units_free(bytes, self.each);
                self.volume_bytes.map(free)
            }
        }
    }

    /// The units that there are in all; none: no limit.
    fn capacity(&self) -> Option<u64> {
        let own = self.cluster.capacity_units.map(u64::from);
        own.or_else(|| Some(self.placed.units + self.units_free()?))
    }

    fn has_room_for(&self, units: u32) -> bool {
        self.units_free()
            .is_none_or(|free| free >= u64::from(units))
    }
}

const NO_ROOM: &str = "no cluster has room for it at the moment: ask the operator for more";
const FEWER_UNITS: &str = "ask for fewer units: no other cluster has room for it";

/// Why an instance cannot be placed. Each says what to do.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PlacementRefusal {
    /// The plan does not let the user choose.
    #[error("this plan has no choice of a cluster; leave out cluster_id, or take a plan that has")]
    NotChosenHere,
    /// The plan needs a choice.
    #[error("this plan needs a cluster to be placed on; {}", choice("give cluster_id, one of", .0, NO_ROOM))]
    Missing(String),
    /// There is no such cluster, or it takes no new instances.
    #[error(
        "no cluster {wanted:?} takes new instances; {}",
        choice("choose one of", available, NO_ROOM)
    )]
    Unknown {
        /// What was asked for.
        wanted: String,
        /// Those that have room.
        available: String,
    },
    /// The cluster that the user chose has too few units left.
    #[error(
        "cluster {wanted:?} has no room for {}, {free} of {capacity} {} free; {}",
        counted(*.units, "unit"), is_or_are(*.free),
        choice("ask for fewer units, or choose one of", available, FEWER_UNITS)
    )]
    Full {
        /// What was asked for.
        wanted: String,
        /// The units that were asked for.
        units: u32,
        /// The units that are left.
        free: u64,
        /// The units that there are.
        capacity: u64,
        /// Those that have room.
        available: String,
    },
    /// The cluster that the plan's instances go to has too few units left.
    #[error(
        "the cluster of this plan has no room for {}, {free} of {capacity} {} free; \
         ask for fewer units, deprovision what is not needed, or take a plan with a choice of \
         clusters",
        counted(*.units, "unit"), is_or_are(*.free)
    )]
    DefaultFull {
        /// The units that were asked for.
        units: u32,
        /// The units that are left.
        free: u64,
        /// The units that there are.
        capacity: u64,
    },
    /// Both ways of naming were used, for different clusters.
    #[error("cluster_id and cluster_service_instance_id name different clusters; give one of them")]
    Contradiction,
}

/// The cluster of plans that have no choice: the first one that takes new instances.
pub fn default_cluster(clusters: &[Cluster]) -> Option<&Cluster> {
    clusters.iter().find(|cluster| cluster.enabled)
}

/// The cluster that an instance of `units` goes to.
pub fn place<'a>(
    placement: Placement,
    cluster_id: Option<&str>,
    cluster_service_instance_id: Option<&str>,
    units: u32,
    candidates: &[Candidate<'a>],
) -> Result<&'a Cluster, PlacementRefusal> {
    let enabled = || candidates.iter().filter(|c| c.cluster.enabled);
    let available = || {
        let with_room = enabled().filter(|c| c.has_room_for(units));
        let ids: Vec<&str> = with_room.map(|c| c.cluster.id.as_str()).collect();
        ids.join(", ")
    };
    let unknown = |wanted: &str| PlacementRefusal::Unknown {
        wanted: wanted.to_owned(),
        available: available(),
    };
    let by_id = |id: &str| enabled().find(|c| c.cluster.id == id);
    let by_instance = |id: &str| {
        let of = |c: &&Candidate<'_>| {
            let own = c.cluster.service_instance_id.as_ref();
            own.is_some_and(|own| own.as_str() == id)
        };
        enabled().find(of)
    };
    let chosen = match (placement, cluster_id, cluster_service_instance_id) {
        (Placement::Default, None, None) => enabled().next().ok_or_else(|| unknown("default"))?,
        (Placement::Default, ..) => return Err(PlacementRefusal::NotChosenHere),
        (Placement::Chosen, None, None) => return Err(PlacementRefusal::Missing(available())),
        (Placement::Chosen, Some(id), None) => by_id(id).ok_or_else(|| unknown(id))?,
        (Placement::Chosen, None, Some(id)) => by_instance(id).ok_or_else(|| unknown(id))?,
        (Placement::Chosen, Some(id), Some(instance)) => {
            let chosen = by_id(id).ok_or_else(|| unknown(id))?;
            let other = by_instance(instance).ok_or_else(|| unknown(instance))?;
            if chosen.cluster.id != other.cluster.id {
                return Err(PlacementRefusal::Contradiction);
            }
            chosen
        }
    };
    match (chosen.units_free(), chosen.capacity()) {
        (Some(free), Some(capacity)) if free < u64::from(units) => Err(match placement {
            Placement::Default => PlacementRefusal::DefaultFull {
                units,
                free,
                capacity,
            },
            Placement::Chosen => PlacementRefusal::Full {
                wanted: chosen.cluster.id.clone(),
                units,
                free,
                capacity,
                available: available(),
            },
        }),
        _ => Ok(chosen.cluster),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const EACH: Footprint = Footprint {
        members: 3,
        log_bytes_max: 384 * 1024 * 1024,
    };

    fn cluster(id: &str, enabled: bool, capacity_units: Option<u32>) -> Cluster {
        Cluster {
            id: id.into(),
            name: id.into(),
            kind: "local",
            service_instance_id: format!("si-{id}").parse().ok(),
            enabled,
            capacity_units,
            snapshots_at_once: None,
            operations_at_once: None,
            exposure: Exposure::default(),
        }
    }

    fn with_used<'a>(clusters: &'a [Cluster], used: &[u64]) -> Vec<Candidate<'a>> {
        let both = clusters.iter().zip(used);
        both.map(|(cluster, used)| Candidate {
            cluster,
            placed: Placed {
                units: *used,
                instances: 1,
            },
            volume_bytes: None,
            each: EACH,
        })
        .collect()
    }

    #[test]
    fn where_an_instance_goes() {
        use Placement::{Chosen, Default};
        let clusters = [
            cluster("a", true, None),
            cluster("b", true, None),
            cluster("off", false, None),
        ];
        let candidates = with_used(&clusters, &[1_000_000, 0, 0]);
        let placed = |p, id, si| place(p, id, si, 1, &candidates).map(|c| c.id.as_str());
        assert_eq!(placed(Default, None, None), Ok("a"));
        for (id, si) in [(Some("a"), None), (None, Some("si-a"))] {
            assert_eq!(
                placed(Default, id, si),
                Err(PlacementRefusal::NotChosenHere)
            );
        }
        assert_eq!(placed(Chosen, Some("b"), None), Ok("b"));
        assert_eq!(placed(Chosen, None, Some("si-b")), Ok("b"));
        assert_eq!(placed(Chosen, Some("b"), Some("si-b")), Ok("b"));
        assert_eq!(
            placed(Chosen, Some("a"), Some("si-b")),
            Err(PlacementRefusal::Contradiction)
        );
        assert_eq!(
            placed(Chosen, None, None),
            Err(PlacementRefusal::Missing("a, b".into()))
        );
        let unknown = placed(Chosen, Some("off"), None).expect_err("disabled");
        assert_eq!(
            unknown.to_string(),
            "no cluster \"off\" takes new instances; choose one of: a, b"
        );
    }

    #[test]
    fn a_full_cluster_takes_nothing_and_names_those_that_do() {
        use Placement::{Chosen, Default};
        let clusters = [
            cluster("a", true, Some(4)),
            cluster("b", true, Some(8)),
            cluster("c", true, None),
            cluster("off", false, Some(100)),
        ];
        let placed = |p, id, units, used: [u64; 4]| {
            let placed = place(p, id, None, units, &with_used(&clusters, &used));
            placed.map(|c| c.id.clone()).map_err(|e| e.to_string())
        };
        // The last unit is there to be had.
        assert_eq!(placed(Default, None, 2, [2, 0, 0, 0]), Ok("a".to_owned()));
        let refusal = placed(Default, None, 2, [3, 0, 0, 0]).expect_err("full");
        assert!(refusal.contains("2 units, 1 of 4 is free"), "{refusal}");
        let refusal = placed(Chosen, Some("a"), 2, [3, 7, 9, 0]).expect_err("full");
        assert!(refusal.contains("\"a\" has no room for 2"), "{refusal}");
        assert!(refusal.ends_with("choose one of: c"), "{refusal}");
        let refusal = placed(Chosen, None, 2, [3, 6, 0, 0]).expect_err("no choice");
        assert!(refusal.ends_with("one of: b, c"), "{refusal}");
        // A capacity that was made smaller than what is in use is no debt.
        let refusal = placed(Chosen, Some("a"), 1, [40, 0, 0, 0]).expect_err("full");
        assert!(refusal.contains("0 of 4"), "{refusal}");
        let nowhere = place(Chosen, None, None, 1, &[]).map_err(|refusal| refusal.to_string());
        let refusal = nowhere.expect_err("nothing takes it");
        assert!(refusal.contains("no cluster has room for it"), "{refusal}");
    }

    #[test]
    fn without_a_number_the_volume_is_the_limit() {
        const GB: u64 = 1024 * 1024 * 1024;
        let clusters = [cluster("a", true, None), cluster("b", true, Some(7))];
        let on = |cluster, volume_bytes| Candidate {
            cluster,
            placed: Placed {
                units: 2,
                instances: 1,
            },
            volume_bytes,
            each: EACH,
        };
        let free = |volume_bytes| on(&clusters[0], volume_bytes).units_free();
        assert_eq!(free(None), None);
        assert_eq!(free(Some(GB)), Some(0));
        assert_eq!(free(Some(8 * GB)), Some(3));
        // What is there has its logs already.
        let grows = on(&clusters[0], Some(8 * GB)).units_free_to_grow();
        assert_eq!(grows, Some(4));
        // The operator's word counts, whatever the volume has.
        assert_eq!(on(&clusters[1], Some(GB)).units_free(), Some(5));
        let candidates = [on(&clusters[0], Some(8 * GB))];
        let refusal = place(Placement::Default, None, None, 32, &candidates);
        let refusal = refusal.expect_err("full").to_string();
        assert!(refusal.contains("32 units, 3 of 5 are free"), "{refusal}");
    }

    #[test]
    fn port_ranges() {
        assert_eq!(
            "20000-20001".parse(),
            Ok(PortRange {
                first: 20000,
                last: 20001
            })
        );
        for bad in ["", "1", "80-90", "30000-20000", "20000-70000", "a-b"] {
            assert!(bad.parse::<PortRange>().is_err(), "{bad}");
        }
    }
}
