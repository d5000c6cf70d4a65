//! What one tenant may have. Pure: who counts does so where nobody else adds meanwhile.

use super::sentence::{counted, is_or_are};

/// What a tenant has, and the most that it may have.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Allowance {
    /// What there is, whatever state it is in.
    pub used: u64,
    /// The most that there may be; absent: any number.
    pub most: Option<u32>,
}

impl Allowance {
    /// Whether so many more would be too many.
    fn is_exceeded_by(self, more: u32) -> bool {
        let most = self.most.map(u64::from);
        most.is_some_and(|most| self.used.saturating_add(u64::from(more)) > most)
    }
}

/// Why a tenant gets no more. Each says what to do.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum QuotaRefusal {
    /// Too many instances.
    #[error(
        "this space has {used} of the {} of plan {plan} that one space may have; \
         delete one, or ask the operator for more",
        counted(*.most, "instance")
    )]
    Instances {
        /// The plan's name.
        plan: String,
        /// What there is.
        used: u64,
        /// The most there may be.
        most: u32,
    },
    /// Too many units.
    #[error(
        "this space has {used} of the {} that one space may have, and {more} more \
         {} asked for; ask for fewer, make another instance smaller, or ask the operator for more",
        counted(*.most, "unit"), is_or_are(*.more)
    )]
    Units {
        /// What there is.
        used: u64,
        /// The most there may be.
        most: u32,
        /// What is asked for beyond.
        more: u32,
    },
}

/// Checks one more instance of a plan.
pub fn one_more_instance(plan: &str, instances: Allowance) -> Result<(), QuotaRefusal> {
    match instances.most {
        Some(most) if instances.is_exceeded_by(1) => Err(QuotaRefusal::Instances {
            plan: plan.to_owned(),
            used: instances.used,
            most,
        }),
        _ => Ok(()),
    }
}

/// Checks `more` units. Who asks for none is not refused, also when there are too many already.
pub fn more_units(more: u32, units: Allowance) -> Result<(), QuotaRefusal> {
    match units.most {
        Some(most) if more > 0 && units.is_exceeded_by(more) => Err(QuotaRefusal::Units {
            used: units.used,
            most,
            more,
        }),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_quota_is_used_up_to_the_last_one() {
        let of = |used| Allowance {
            used,
            most: Some(2),
        };
        assert_eq!(one_more_instance("p", of(1)), Ok(()));
        let refusal = one_more_instance("p", of(2)).expect_err("a refusal");
        assert!(refusal.to_string().starts_with("this space has 2 of the 2"));
        assert_eq!(more_units(1, of(1)), Ok(()));
        let refusal = more_units(2, of(1)).expect_err("a refusal");
        assert!(refusal.to_string().contains("2 more"), "{refusal}");
        // The operator took some away: what is there may stay, and become smaller.
        assert_eq!(more_units(0, of(5)), Ok(()));
    }

    proptest! {
        #[test]
        fn without_a_limit_nothing_is_refused(used in any::<u64>(), more in any::<u32>()) {
            let none = Allowance { used, most: None };
            prop_assert_eq!(one_more_instance("p", none), Ok(()));
            prop_assert_eq!(more_units(more, none), Ok(()));
        }

        #[test]
        fn what_is_accepted_fits(used in 0u64..100, most in 0u32..100, more in 0u32..100) {
            let allowance = Allowance { used, most: Some(most) };
            let fits = used + u64::from(more) <= u64::from(most);
            prop_assert_eq!(more_units(more, allowance).is_ok(), fits || more == 0);
        }
    }
}
