//! Whose operation is begun next, when more is asked for than can be done at once. Pure.
//!
//! Everybody has a share of the places, and each cluster; nobody's share is all of them. Of those
//! who wait, the party with the least under way comes first: however much one asks for, another's
//! single request gets the next place that becomes free.

use std::collections::BTreeMap;

/// For whom an operation is done.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Party {
    /// What the broker does by itself: scheduled backups, expired backups and bindings.
    Broker,
    /// What a tenant asked for; the ids that tell it from others, as they are stored.
    Tenant {
        /// The kind of platform.
        platform: String,
        /// The organization.
        organization: String,
        /// The space.
        space: String,
        /// The further ids, as one text.
        account: String,
    },
}

/// What an operation takes up while it runs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Place {
    /// For whom it is.
    pub party: Party,
    /// Where it is done; absent: the deployment is gone.
    pub cluster: Option<String>,
}

/// The most that runs at once.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Shares {
    /// For one tenant. What the broker does by itself has limits where it is asked for.
    pub tenant: usize,
    /// On one cluster, by id; those that are not named have no limit.
    pub clusters: BTreeMap<String, usize>,
}

impl Shares {
    fn have_room(&self, place: &Place, running: &[Place]) -> bool {
        let of_party = || running.iter().filter(|r| r.party == place.party).count();
        let on_cluster = || {
            running
                .iter()
                .filter(|r| r.cluster == place.cluster)
                .count()
        };
        let most = place.cluster.as_ref().and_then(|id| self.clusters.get(id));
        (place.party == Party::Broker || of_party() < self.tenant)
            && most.is_none_or(|most| on_cluster() < *most)
    }
}

/// Which of `waiting`, the oldest first, is begun beside `running`; none when all must wait on.
pub fn next(waiting: &[Place], running: &[Place], shares: &Shares) -> Option<usize> {
    let may_begin = |(_, place): &(usize, &Place)| shares.have_room(place, running);
    let under_way = |(i, place): &(usize, &Place)| {
        let of_party = running.iter().filter(|r| r.party == place.party);
        (of_party.count(), *i)
    };
    let chosen = waiting.iter().enumerate().filter(may_begin);
    chosen.min_by_key(under_way).map(|(i, _)| i)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn place(space: &str, cluster: &str) -> Place {
        Place {
            party: Party::Tenant {
                platform: "p".into(),
                organization: "o".into(),
                space: space.into(),
                account: "{}".into(),
            },
            cluster: Some(cluster.into()),
        }
    }

    fn shares(tenant: usize, clusters: &[(&str, usize)]) -> Shares {
        let named = clusters.iter().map(|(id, most)| ((*id).to_owned(), *most));
        Shares {
            tenant,
            clusters: named.collect(),
        }
    }

    #[test]
    fn a_single_request_overtakes_a_burst() {
        let burst = vec![place("a", "c"); 20];
        let mut waiting = burst.clone();
        waiting.push(place("b", "c"));
        assert_eq!(next(&waiting, &[], &shares(4, &[])), Some(0));
        assert_eq!(next(&waiting, &burst[..1], &shares(4, &[])), Some(20));
        assert_eq!(next(&burst, &burst[..4], &shares(4, &[])), None);
    }

    #[test]
    fn a_cluster_that_has_enough_to_do_does_not_hold_up_others() {
        let waiting = [place("a", "slow"), place("b", "slow"), place("a", "fast")];
        let limits = shares(4, &[("slow", 1)]);
        assert_eq!(next(&waiting, &[place("c", "slow")], &limits), Some(2));
    }

    #[test]
    fn what_the_broker_does_by_itself_has_no_share() {
        let own = Place {
            party: Party::Broker,
            cluster: None,
        };
        assert_eq!(
            next(
                std::slice::from_ref(&own),
                &vec![own.clone(); 9],
                &shares(1, &[])
            ),
            Some(0)
        );
    }

    fn any_place() -> impl Strategy<Value = Place> {
        let party = prop_oneof![
            1 => Just(None),
            4 => prop::sample::select(vec!["a", "b", "c"]).prop_map(Some),
        ];
        let cluster = prop::sample::select(vec!["x", "y"]);
        (party, cluster).prop_map(|(space, cluster)| match space {
            Some(space) => place(space, cluster),
            None => Place {
                party: Party::Broker,
                cluster: Some(cluster.to_owned()),
            },
        })
    }

    proptest! {
        #[test]
        fn shares_are_kept_and_no_place_is_left_empty(
            mut waiting in prop::collection::vec(any_place(), 0..30),
            tenant in 1usize..5,
            on_x in 1usize..5,
            places in 1usize..10,
        ) {
            let limits = shares(tenant, &[("x", on_x)]);
            let mut running: Vec<Place> = Vec::new();
            while running.len() < places && let Some(i) = next(&waiting, &running, &limits) {
                let begun = waiting.remove(i);
                let count = |all: &[Place]| all.iter().filter(|p| p.party == begun.party).count();
                let least = waiting
                    .iter()
                    .filter(|p| limits.have_room(p, &running))
                    .map(|p| running.iter().filter(|r| r.party == p.party).count())
                    .min();
                prop_assert!(least.is_none_or(|least| count(&running) <= least));
                running.push(begun);
            }
            for party in running.iter().map(|p| &p.party).filter(|p| **p != Party::Broker) {
                prop_assert!(running.iter().filter(|r| r.party == *party).count() <= tenant);
            }
            let on = |id: &str| running.iter().filter(|r| r.cluster.as_deref() == Some(id)).count();
            prop_assert!(on("x") <= on_x);
            if running.len() < places {
                prop_assert!(waiting.iter().all(|p| !limits.have_room(p, &running)));
            }
        }
    }
}
