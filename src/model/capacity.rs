//! What databases may be promised on a volume, so that none of them runs out of it. Pure: the caller
//! brings the numbers.
//!
//! A database may grow to its quota whenever its users like, so all of it counts from the moment that
//! it is promised, however small the database is. What is placed and what it has written already are
//! the same bytes: the room of a volume is what is free *and* what members have of it.
//!
//! What an instance has beside its units is reckoned alike for all of them, whatever their engines
//! ([`Footprint`]).

use super::{
    engine::Profile,
    limits::{DISK_RESERVE_BYTES, MEMBER_LOG_BYTES_MAX, UNIT_BYTES, UNITS_MAX},
};

/// What an instance takes of a volume beside its units. Where engines differ, the most of each.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Footprint {
    /// Members of each instance.
    pub members: usize,
    /// What a member's log of changes has at most, in bytes.
    pub log_bytes_max: u64,
}

impl Footprint {
    /// That of an instance of any of these engines.
    pub fn of<'p>(engines: impl IntoIterator<Item = &'p Profile>) -> Self {
        let none = Self::default();
        engines.into_iter().fold(none, |most, engine| Self {
            members: most.members.max(engine.members),
            log_bytes_max: most.log_bytes_max.max(engine.log_bytes_max),
        })
    }
}

/// What is placed somewhere: everything that was accepted and is not gone.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Placed {
    /// Units of all instances; of those that become larger, the units that they become.
    pub units: u64,
    /// Instances.
    pub instances: u64,
}

impl Placed {
    /// What its members may have in all, in bytes: their quotas, and beside them their logs of changes
    /// and what they print.
    pub fn bytes(self, each: Footprint) -> u64 {
        let beside = each.log_bytes_max.saturating_add(2 * MEMBER_LOG_BYTES_MAX);
        let of_each_member = self
            .units
            .saturating_mul(UNIT_BYTES)
            .saturating_add(self.instances.saturating_mul(beside));
        of_each_member.saturating_mul(each.members as u64)
    }

    /// The least volume that holds it, in bytes: with the staged file of one restore, backup or
    /// defragmentation of the largest instance that there may be, and a reserve.
    pub fn volume_bytes(self, each: Footprint) -> u64 {
        let in_flight = self.units.min(u64::from(UNITS_MAX)) * UNIT_BYTES;
        self.bytes(each)
            .saturating_add(in_flight)
            .saturating_add(DISK_RESERVE_BYTES)
    }

    /// So many units more.
    pub fn and_units(self, units: u64) -> Self {
        Self {
            units: self.units.saturating_add(units),
            ..self
        }
    }

    /// One instance more, without its units.
    pub fn and_instance(self) -> Self {
        Self {
            instances: self.instances.saturating_add(1),
            ..self
        }
    }

    /// The units that may be added on a volume that has `bytes` for members.
    pub fn units_free(self, bytes: u64, each: Footprint) -> u64 {
        largest(bytes, |units| {
            self.and_units(units).volume_bytes(each) <= bytes
        })
    }

    /// The most units that instances may have there in all, when they are as few as can be: each has a
    /// log of its own.
    pub fn units_at_most(bytes: u64, each: Footprint) -> u64 {
        largest(bytes, |units| {
            let instances = units.div_ceil(u64::from(UNITS_MAX));
            Self { units, instances }.volume_bytes(each) <= bytes
        })
    }
}

/// The largest number of units that fits into `bytes`; 0 where none does.
fn largest(bytes: u64, fits: impl Fn(u64) -> bool) -> u64 {
    let (mut fitting, mut too_many) = (0, bytes / UNIT_BYTES + 1);
    while too_many - fitting > 1 {
        let middle = fitting + (too_many - fitting) / 2;
        if fits(middle) {
            fitting = middle;
        } else {
            too_many = middle;
        }
    }
    fitting
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::model::engine::tests::ENGINE;

    /// As an engine with three members that keep 384 MiB of log each has it.
    const EACH: Footprint = Footprint {
        members: 3,
        log_bytes_max: 384 * 1024 * 1024,
    };
    const GB: u64 = 1024 * 1024 * 1024;

    fn one() -> Placed {
        Placed::default().and_instance()
    }

    #[test]
    fn a_small_volume_holds_little_and_a_large_one_much() {
        for (bytes, expected) in [
            // What was once promised 32 units.
            (900 * 1024 * 1024, 0),
            (2 * GB, 0),
            (3 * GB, 1),
            (34 * GB, 32),
            (1000 * GB, 1320),
        ] {
            assert_eq!(one().units_free(bytes, EACH), expected, "{bytes}");
        }
    }

    #[test]
    fn of_engines_that_differ_the_most_counts() {
        let small = Profile {
            members: 1,
            log_bytes_max: 2 * GB,
            ..ENGINE
        };
        let most = Footprint {
            members: ENGINE.members,
            log_bytes_max: 2 * GB,
        };
        assert_eq!(Footprint::of([&small, &ENGINE]), most);
        assert_eq!(Footprint::of([&ENGINE, &small]), most);
        let alone = Footprint::of([&ENGINE]);
        assert!(one().bytes(alone) < one().bytes(most));
        assert!(one().units_free(100 * GB, alone) > one().units_free(100 * GB, most));
    }

    #[test]
    fn each_instance_has_a_log_of_its_own() {
        let volume = 100 * GB;
        let mut placed = Placed::default();
        while placed.and_instance().units_free(volume, EACH) > 0 {
            placed = placed.and_instance().and_units(1);
        }
        assert_eq!(placed.units, placed.instances);
        assert!(
            placed.units < one().units_free(volume, EACH) / 2,
            "{placed:?}"
        );
        assert!(Placed::units_at_most(volume, EACH) > placed.units);
    }

    proptest! {
        #[test]
        fn what_is_promised_fits_and_one_unit_more_does_not(
            bytes in 0u64..1 << 46, units in 0u64..5000, instances in 0u64..500,
        ) {
            let placed = Placed { units, instances };
            let free = placed.units_free(bytes, EACH);
            if free > 0 {
                prop_assert!(placed.and_units(free).volume_bytes(EACH) <= bytes);
            }
            prop_assert!(placed.and_units(free + 1).volume_bytes(EACH) > bytes);
        }

        #[test]
        fn a_larger_volume_and_less_on_it_have_no_less_room(
            bytes in 0u64..1 << 46, more in 0u64..1 << 40, units in 0u64..5000,
            instances in 0u64..500, less in 0u64..5000,
        ) {
            let placed = Placed { units, instances };
            let free = placed.units_free(bytes, EACH);
            prop_assert!(placed.units_free(bytes + more, EACH) >= free);
            prop_assert!(placed.and_instance().units_free(bytes, EACH) <= free);
            let fewer = Placed { units: units.saturating_sub(less), instances };
            prop_assert!(fewer.units_free(bytes, EACH) >= free);
        }

        /// However instances come and grow, as long as each was accepted.
        #[test]
        fn accepted_one_after_the_other_they_fit(
            bytes in 0u64..1 << 42, asked in prop::collection::vec((1u64..=32, any::<bool>()), 0..60),
        ) {
            let mut placed = Placed::default();
            for (units, is_new) in asked {
                let before = if is_new || placed.instances == 0 { placed.and_instance() } else { placed };
                if before.units_free(bytes, EACH) >= units {
                    placed = before.and_units(units);
                }
            }
            if placed.instances > 0 {
                prop_assert!(placed.volume_bytes(EACH) <= bytes);
                // No instance has more than it may.
                if placed.units <= placed.instances * u64::from(UNITS_MAX) {
                    prop_assert!(placed.units <= Placed::units_at_most(bytes, EACH));
                }
            }
        }

        #[test]
        fn nothing_overflows(units in any::<u64>(), instances in any::<u64>(), bytes in any::<u64>()) {
            let placed = Placed { units, instances };
            prop_assert!(placed.units_free(bytes, EACH) <= bytes / UNIT_BYTES);
            prop_assert!(Placed::units_at_most(bytes, EACH) <= bytes / UNIT_BYTES);
        }
    }
}
