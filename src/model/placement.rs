//! Placement targets, and which one an instance goes to.

use serde::Deserialize;

use super::{catalog::Placement, limits::SNAPSHOTS_AT_ONCE_PER_CLUSTER};

/// A placement target as the operator describes it.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Cluster {
    /// Its id, the value of the parameter `cluster_id`.
    pub id: String,
    /// For people.
    pub name: String,
    /// The cluster's own service instance, the value of `cluster_service_instance_id`.
    #[serde(default)]
    pub service_instance_id: Option<String>,
    /// Whether it takes new instances.
    #[serde(default = "yes")]
    pub enabled: bool,
    /// Ports for members on it, `first-last`. Absent: the broker's own range.
    #[serde(default)]
    pub port_range: Option<PortRange>,
}

impl Cluster {
    /// Backups that the schedule lets run at once on it.
    pub fn snapshots_at_once(&self) -> usize {
        SNAPSHOTS_AT_ONCE_PER_CLUSTER
    }
}

fn yes() -> bool {
    true
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

/// Why an instance cannot be placed. Each says what to do.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PlacementRefusal {
    /// The plan does not let the user choose.
    #[error("this plan has no choice of a cluster; leave out cluster_id, or take a plan that has")]
    NotChosenHere,
    /// The plan needs a choice.
    #[error("this plan needs a cluster to be placed on; give cluster_id, one of: {0}")]
    Missing(String),
    /// There is no such cluster, or it takes no new instances.
    #[error("no cluster {wanted:?} takes new instances; choose one of: {available}")]
    Unknown {
        /// What was asked for.
        wanted: String,
        /// What there is.
        available: String,
    },
    /// Both ways of naming were used, for different clusters.
    #[error("cluster_id and cluster_service_instance_id name different clusters; give one of them")]
    Contradiction,
}

/// The cluster that an instance goes to. The first cluster is the default one.
pub fn place<'a>(
    placement: Placement,
    cluster_id: Option<&str>,
    cluster_service_instance_id: Option<&str>,
    clusters: &'a [Cluster],
) -> Result<&'a Cluster, PlacementRefusal> {
    let available = || {
        let ids: Vec<&str> = clusters
            .iter()
            .filter(|c| c.enabled)
            .map(|c| c.id.as_str())
            .collect();
        if ids.is_empty() {
            "none".to_owned()
        } else {
            ids.join(", ")
        }
    };
    let named = cluster_id.or(cluster_service_instance_id);
    match (placement, named) {
        (Placement::Default, Some(_)) => Err(PlacementRefusal::NotChosenHere),
        (Placement::Default, None) => {
            clusters
                .iter()
                .find(|c| c.enabled)
                .ok_or_else(|| PlacementRefusal::Unknown {
                    wanted: "default".to_owned(),
                    available: available(),
                })
        }
        (Placement::Chosen, None) => Err(PlacementRefusal::Missing(available())),
        (Placement::Chosen, Some(_)) => {
            let find = |wanted: &str, matches: &dyn Fn(&Cluster) -> bool| {
                clusters
                    .iter()
                    .find(|c| c.enabled && matches(c))
                    .ok_or_else(|| PlacementRefusal::Unknown {
                        wanted: wanted.to_owned(),
                        available: available(),
                    })
            };
            let by_id = cluster_id.map(|id| find(id, &|c| c.id == id)).transpose()?;
            let by_instance = cluster_service_instance_id
                .map(|id| find(id, &|c| c.service_instance_id.as_deref() == Some(id)))
                .transpose()?;
            match (by_id, by_instance) {
                (Some(a), Some(b)) if a.id != b.id => Err(PlacementRefusal::Contradiction),
                (Some(cluster), _) | (None, Some(cluster)) => Ok(cluster),
                (None, None) => Err(PlacementRefusal::Missing(available())),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn clusters() -> Vec<Cluster> {
        let cluster = |id: &str, enabled| Cluster {
            id: id.into(),
            name: id.into(),
            service_instance_id: Some(format!("si-{id}")),
            enabled,
            port_range: None,
        };
        vec![
            cluster("a", true),
            cluster("b", true),
            cluster("off", false),
        ]
    }

    #[test]
    fn where_an_instance_goes() {
        use Placement::{Chosen, Default};
        let clusters = clusters();
        let placed = |p, id, si| place(p, id, si, &clusters).map(|c| c.id.as_str());
        assert_eq!(placed(Default, None, None), Ok("a"));
        assert_eq!(
            placed(Default, Some("a"), None),
            Err(PlacementRefusal::NotChosenHere)
        );
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
