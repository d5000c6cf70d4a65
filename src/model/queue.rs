//! Whose operation is begun next, when more is asked for than can be done at once. Pure.
//!
//! The tenant of an instance pays for all that is done for it, also for what the broker does by
//! itself. Every payer has a share of the places, each instance and each cluster; nobody's share is
//! all of them. What the broker does by itself and is late comes first. Of the rest, the payer with
//! the least under way does: however much one asks for, another's single request gets the next place
//! that becomes free.

use std::collections::BTreeMap;

use super::{
    limits::{HEAVY_OPERATIONS_AT_ONCE, LIGHT_OPERATIONS_OF_INSTANCE, LIGHT_OPERATIONS_OF_TENANT},
    operation::Weight,
    wait::Wait,
};

/// Who pays for an operation with its places.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Payer {
    /// Nobody: the instance is gone.
    Nobody,
    /// The tenant of the instance; the ids that tell a tenant from others, as they are stored.
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
    /// Who pays for it.
    pub payer: Payer,
    /// The instance that it is done for, by id.
    pub instance: String,
    /// Where it is done; absent: the deployment is gone.
    pub cluster: Option<String>,
    /// Nobody asked for it: its time has come, or a member needs it.
    pub unasked: bool,
    /// It is unasked, and has been due for long.
    pub late: bool,
}

/// What the operator says of how much runs at once.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Limits {
    /// Heavy operations that one tenant pays for.
    pub tenant: usize,
    /// Heavy operations on one cluster, by id; those that are not named have no limit.
    pub clusters: BTreeMap<String, usize>,
}

impl Limits {
    /// How the places for operations of a weight are shared.
    pub fn shares(&self, weight: Weight) -> Shares {
        match weight {
            Weight::Light => Shares {
                tenant: LIGHT_OPERATIONS_OF_TENANT,
                instance: LIGHT_OPERATIONS_OF_INSTANCE,
                clusters: BTreeMap::new(),
            },
            Weight::Heavy => Shares {
                tenant: self.tenant,
                instance: HEAVY_OPERATIONS_AT_ONCE,
                clusters: self.clusters.clone(),
            },
        }
    }

    /// What an operation of a weight waits for whose place would be `place`, beside those that run; none
    /// when it is only not begun yet.
    pub fn wait(&self, weight: Weight, place: &Place, running: &[Place]) -> Option<Wait> {
        let shares = self.shares(weight);
        let asked = running.iter().filter(|r| !r.unasked).count();
        let most = weight.at_once();
        let of_broker = || {
            let is_full = running.len() >= most || !place.unasked && asked >= most - weight.kept();
            is_full.then_some(Wait::Broker(running.len()))
        };
        shares.lack(place, running).or_else(of_broker)
    }
}

/// The most that runs at once.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Shares {
    /// Paid by one tenant. What nobody asked for may take one more: no tenant can keep its own
    /// backups from being taken.
    pub tenant: usize,
    /// For one instance: one whose members do not answer holds its places for long.
    pub instance: usize,
    /// On one cluster, by id; those that are not named have no limit.
    pub clusters: BTreeMap<String, usize>,
}

impl Shares {
    fn have_room(&self, place: &Place, running: &[Place]) -> bool {
        self.lack(place, running).is_none()
    }

    /// The share that has no room for one more.
    fn lack(&self, place: &Place, running: &[Place]) -> Option<Wait> {
        let count =
            |is_like: &dyn Fn(&Place) -> bool| running.iter().filter(|r| is_like(r)).count();
        let for_instance = count(&|r| r.instance == place.instance);
        if for_instance >= self.instance {
            return Some(Wait::Instance(for_instance));
        }
        let of_payer = count(&|r| r.payer == place.payer);
        let of_tenant = self.tenant + usize::from(place.unasked);
        if place.payer != Payer::Nobody && of_payer >= of_tenant {
            return Some(Wait::Owner(of_payer));
        }
        let most = self.clusters.get(place.cluster.as_ref()?)?;
        let on_cluster = count(&|r| r.cluster == place.cluster);
        (on_cluster >= *most).then_some(Wait::Cluster(on_cluster))
    }
}

/// Which of `waiting`, the oldest first, is begun beside `running`; none when all must wait on.
/// `asked`: whether there is a place for what somebody asked for; one for the rest there is.
pub fn next(waiting: &[Place], running: &[Place], shares: &Shares, asked: bool) -> Option<usize> {
    let may_begin =
        |(_, place): &(usize, &Place)| (asked || place.unasked) && shares.have_room(place, running);
    let turn = |(i, place): &(usize, &Place)| {
        let of_payer = running.iter().filter(|r| r.payer == place.payer);
        (!place.late, of_payer.count(), *i)
    };
    let chosen = waiting.iter().enumerate().filter(may_begin);
    chosen.min_by_key(turn).map(|(i, _)| i)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Somebody's place; the instance is the only one in its space.
    fn place(space: &str, cluster: &str) -> Place {
        Place {
            payer: Payer::Tenant {
                platform: "p".into(),
                organization: "o".into(),
                space: space.into(),
                account: "{}".into(),
            },
            instance: space.into(),
            cluster: Some(cluster.into()),
            unasked: false,
            late: false,
        }
    }

    fn unasked(space: &str, late: bool) -> Place {
        Place {
            unasked: true,
            late,
            ..place(space, "c")
        }
    }

    fn shares(tenant: usize, clusters: &[(&str, usize)]) -> Shares {
        let named = clusters.iter().map(|(id, most)| ((*id).to_owned(), *most));
        Shares {
            tenant,
            instance: usize::MAX,
            clusters: named.collect(),
        }
    }

    #[test]
    fn a_single_request_overtakes_a_burst() {
        let burst = vec![place("a", "c"); 20];
        let mut waiting = burst.clone();
        waiting.push(place("b", "c"));
        assert_eq!(next(&waiting, &[], &shares(4, &[]), true), Some(0));
        assert_eq!(next(&waiting, &burst[..1], &shares(4, &[]), true), Some(20));
        assert_eq!(next(&burst, &burst[..4], &shares(4, &[]), true), None);
    }

    #[test]
    fn a_cluster_that_has_enough_to_do_does_not_hold_up_others() {
        let waiting = [place("a", "slow"), place("b", "slow"), place("a", "fast")];
        let limits = shares(4, &[("slow", 1)]);
        let running = [place("c", "slow")];
        assert_eq!(next(&waiting, &running, &limits, true), Some(2));
    }

    #[test]
    fn an_instance_that_holds_its_places_for_long_leaves_the_others_theirs() {
        let mut limits = shares(8, &[]);
        limits.instance = 2;
        let running = vec![unasked("a", true); 2];
        let mut waiting = vec![unasked("a", true); 20];
        assert_eq!(next(&waiting, &running, &limits, true), None);
        let of_the_same_tenant = Place {
            instance: "another".to_owned(),
            ..place("a", "c")
        };
        waiting.push(of_the_same_tenant);
        assert_eq!(next(&waiting, &running, &limits, true), Some(20));
    }

    #[test]
    fn what_nobody_asked_for_is_paid_like_the_rest_and_has_one_place_more() {
        let waiting = [unasked("a", false)];
        let limits = shares(1, &[]);
        let asked = place("a", "c");
        assert_eq!(
            next(&waiting, std::slice::from_ref(&asked), &limits, true),
            Some(0)
        );
        let running = [asked, unasked("a", false)];
        assert_eq!(next(&waiting, &running, &limits, true), None);
    }

    #[test]
    fn the_last_place_is_for_what_nobody_asks_for() {
        let waiting = [place("a", "c"), unasked("b", false)];
        assert_eq!(next(&waiting, &[], &shares(4, &[]), false), Some(1));
        assert_eq!(next(&waiting[..1], &[], &shares(4, &[]), false), None);
    }

    #[test]
    fn what_is_late_comes_first_within_its_share() {
        let waiting = [place("b", "c"), unasked("a", true)];
        let running = [place("a", "c")];
        assert_eq!(next(&waiting, &running, &shares(4, &[]), true), Some(1));
        let running = vec![unasked("a", true); 5];
        assert_eq!(next(&waiting, &running, &shares(4, &[]), true), Some(0));
    }

    #[test]
    fn what_waits_is_told_what_for() {
        let limits = Limits {
            tenant: 2,
            clusters: BTreeMap::from([("small".to_owned(), 1)]),
        };
        let wait = |place: &Place, running: &[Place]| limits.wait(Weight::Heavy, place, running);
        let own = place("a", "c");
        assert_eq!(wait(&own, &[]), None);
        assert_eq!(wait(&own, std::slice::from_ref(&own)), None);
        assert_eq!(wait(&own, &vec![own.clone(); 2]), Some(Wait::Owner(2)));
        let small = place("b", "small");
        assert_eq!(
            wait(&small, std::slice::from_ref(&small)),
            Some(Wait::Cluster(1))
        );
        let others: Vec<Place> = (0..Weight::Heavy.at_once() - Weight::Heavy.kept())
            .map(|of| place(&of.to_string(), "c"))
            .collect();
        assert_eq!(wait(&own, &others), Some(Wait::Broker(others.len())));
        // One place is kept for what nobody asks for.
        assert_eq!(wait(&unasked("a", false), &others), None);
        let light = vec![own.clone(); LIGHT_OPERATIONS_OF_INSTANCE];
        let told = limits.wait(Weight::Light, &own, &light);
        assert_eq!(told, Some(Wait::Instance(light.len())));
    }

    #[test]
    fn what_is_left_of_an_instance_that_is_gone_has_no_share() {
        let left = Place {
            payer: Payer::Nobody,
            cluster: None,
            ..place("a", "c")
        };
        let running = vec![left.clone(); 9];
        assert_eq!(next(&[left], &running, &shares(1, &[]), true), Some(0));
    }

    fn any_place() -> impl Strategy<Value = Place> {
        let space = prop::sample::select(vec!["a", "b", "c"]);
        let cluster = prop::sample::select(vec!["x", "y"]);
        (space, cluster, any::<bool>(), any::<bool>()).prop_map(
            |(space, cluster, unasked, late)| Place {
                unasked,
                late: unasked && late,
                ..place(space, cluster)
            },
        )
    }

    proptest! {
        #[test]
        fn shares_are_kept_and_no_place_is_left_empty(
            mut waiting in prop::collection::vec(any_place(), 0..30),
            tenant in 1usize..5,
            instance in 1usize..5,
            on_x in 1usize..5,
            places in 1usize..10,
        ) {
            let limits = Shares { instance, ..shares(tenant, &[("x", on_x)]) };
            let mut running: Vec<Place> = Vec::new();
            while running.len() < places
                && let Some(i) = next(&waiting, &running, &limits, true)
            {
                let begun = waiting.remove(i);
                let count = |all: &[Place]| all.iter().filter(|p| p.payer == begun.payer).count();
                let free: Vec<&Place> = waiting
                    .iter()
                    .filter(|p| limits.have_room(p, &running))
                    .collect();
                prop_assert!(begun.late || free.iter().all(|p| !p.late));
                let least = free
                    .iter()
                    .filter(|p| p.late == begun.late)
                    .map(|p| running.iter().filter(|r| r.payer == p.payer).count())
                    .min();
                prop_assert!(least.is_none_or(|least| count(&running) <= least));
                running.push(begun);
            }
            for place in &running {
                let of_payer = running.iter().filter(|r| r.payer == place.payer).count();
                prop_assert!(of_payer <= tenant + 1);
                let for_it = running.iter().filter(|r| r.instance == place.instance).count();
                prop_assert!(for_it <= instance);
            }
            let on = |id: &str| running.iter().filter(|r| r.cluster.as_deref() == Some(id)).count();
            prop_assert!(on("x") <= on_x);
            if running.len() < places {
                prop_assert!(waiting.iter().all(|p| !limits.have_room(p, &running)));
            }
        }
    }
}
