//! Brokers that share a store: what each must know of the keys and the plans of the others.
//!
//! Invariants: no broker ever reads a secret whose key it lacks. So none begins to seal under a key that
//! another one lacks, and nothing is sealed anew before all of them seal under the same one. And none meets an
//! instance whose plan it lacks: so a plan that one lacks is given to nobody.

use serde::{Deserialize, Serialize};

/// A key of a ring, as others are shown it: its name, and a digest that tells it from another key of that name.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct KeyMark {
    /// Its name.
    pub name: String,
    /// The beginning of a digest of the key, in hexadecimal.
    pub digest: String,
}

/// A broker.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Replica {
    /// The id of its data folder.
    pub id: String,
    /// The machine that it is on.
    pub machine: String,
    /// Its version.
    pub version: String,
    /// The keys of its ring; it seals under the first one.
    pub keys: Vec<KeyMark>,
    /// The plans of its catalog; none where it is of a version that does not say so.
    pub plans: Option<Vec<PlanMark>>,
}

impl Replica {
    /// Whether its catalog has no such plan.
    pub fn lacks(&self, plan: &PlanMark) -> bool {
        let plans = self.plans.as_ref();
        plans.is_some_and(|plans| !plans.contains(plan))
    }
}

/// A plan: the id of its offering, and its own.
pub type PlanMark = (String, String);

/// Why a broker cannot work beside another one. Each says what to do.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum RingConflict {
    /// The other one could not open what this one seals.
    #[error(
        "the broker on {machine} lacks the key {key} that this one seals under, or has another one of that \
         name: give it the key behind its own first one and restart it, and then this one"
    )]
    OtherLacks {
        /// Where the other one is.
        machine: String,
        /// The key's name.
        key: String,
    },
    /// This one could not open what the other one seals.
    #[error(
        "the broker on {machine} seals under the key {key}, which the ring of this one lacks, or has \
         another one of that name: give it the key too"
    )]
    Lacks {
        /// Where the other one is.
        machine: String,
        /// The key's name.
        key: String,
    },
}

/// Whether a broker can work beside the others that are alive.
pub fn check_rings(own: &Replica, others: &[Replica]) -> Result<(), RingConflict> {
    let first = |of: &Replica| of.keys.first().cloned();
    for other in others.iter().filter(|other| other.id != own.id) {
        let machine = || other.machine.clone();
        if let Some(key) = first(own).filter(|key| !other.keys.contains(key)) {
            let (machine, key) = (machine(), key.name);
            return Err(RingConflict::OtherLacks { machine, key });
        }
        if let Some(key) = first(other).filter(|key| !own.keys.contains(key)) {
            let (machine, key) = (machine(), key.name);
            return Err(RingConflict::Lacks { machine, key });
        }
    }
    Ok(())
}

/// Whether all brokers that are alive seal under the same key, so that what an older one sealed can be sealed
/// anew.
pub fn seal_alike(own: &Replica, others: &[Replica]) -> bool {
    let mut firsts = others.iter().map(|other| other.keys.first());
    firsts.all(|first| first == own.keys.first())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A broker with keys of these names, each but `x` the same everywhere.
    fn replica(id: &str, keys: &[&str]) -> Replica {
        let mark = |name: &&str| KeyMark {
            name: (*name).to_owned(),
            digest: if *name == "x" { id } else { name }.to_owned(),
        };
        Replica {
            id: id.to_owned(),
            machine: format!("db-{id}"),
            version: "1.0.0".to_owned(),
            keys: keys.iter().map(mark).collect(),
            plans: None,
        }
    }

    #[test]
    fn a_broker_lacks_what_it_has_said_that_it_does_not_have() {
        let plan = |id: &str| ("s".to_owned(), id.to_owned());
        let mut of = replica("1", &["a"]);
        assert!(!of.lacks(&plan("p")), "it says nothing of plans");
        of.plans = Some(vec![plan("p")]);
        assert!(!of.lacks(&plan("p")));
        assert!(of.lacks(&plan("q")));
    }

    #[test]
    fn a_key_goes_in_front_once_all_others_have_it() {
        let beside = |own: &[&str], other: &[&str]| {
            let checked = check_rings(
                &replica("1", own),
                &[replica("1", &["z"]), replica("2", other)],
            );
            checked.map_err(|conflict| conflict.to_string())
        };
        assert_eq!(beside(&["a"], &["a"]), Ok(()));
        // The way of a rotation: known to all, in front here, in front there, the old one gone.
        for (own, other) in [
            (&["a", "b"][..], &["a"][..]),
            (&["a", "b"], &["a", "b"]),
            (&["b", "a"], &["a", "b"]),
            (&["b", "a"], &["b", "a"]),
            (&["b"], &["b", "a"]),
        ] {
            assert_eq!(beside(own, other), Ok(()), "{own:?} {other:?}");
        }
        let lacks = beside(&["b", "a"], &["a"]).expect_err("refused");
        assert!(
            lacks.starts_with("the broker on db-2 lacks the key b that"),
            "{lacks}"
        );
        let lacks = beside(&["b"], &["a", "b"]).expect_err("refused");
        assert!(
            lacks.contains("db-2 seals under the key a, which"),
            "{lacks}"
        );
        assert!(beside(&["x"], &["x"]).is_err(), "two keys of one name");
    }

    #[test]
    fn nothing_is_sealed_anew_before_all_seal_alike() {
        let own = replica("1", &["b", "a"]);
        assert!(seal_alike(&own, &[]));
        assert!(seal_alike(&own, &[own.clone(), replica("2", &["b"])]));
        assert!(!seal_alike(&own, &[own.clone(), replica("2", &["a", "b"])]));
    }
}
