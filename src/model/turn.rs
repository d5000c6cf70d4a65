//! Which member has its turn in a step that takes one after the other. Pure.

use std::fmt;

use serde::{Deserialize, Serialize};

/// A member's turn: what is done in this step is done to it at the moment.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Turn {
    /// The member, by its name.
    pub member: String,
    /// The how many-th it is, from 1 on, in the order in which they have their turns.
    pub number: u32,
    /// How many have theirs in all.
    pub of: u32,
    /// What is done to it where the step does not say it: `to version 3.6.5`; else empty.
    pub what: String,
}

impl Turn {
    /// The turn of `member`, `before` others of `of` having had theirs.
    pub fn of(member: &str, before: usize, of: usize, what: impl Into<String>) -> Self {
        let of = u32::try_from(of).unwrap_or(u32::MAX);
        let before = u32::try_from(before).unwrap_or(u32::MAX);
        Self {
            member: member.to_owned(),
            number: before.saturating_add(1).min(of),
            of,
            what: what.into(),
        }
    }
}

/// A turn, with what was being done in the step that it belongs to: the next step begins without one.
#[derive(Debug, Serialize, Deserialize)]
pub struct TurnOfStep {
    /// What was being done, as [`Progress::step`](super::operation::Progress::step) has it.
    pub step: String,
    /// The turn.
    pub turn: Turn,
}

impl TurnOfStep {
    /// The turn, where it belongs to what is being done now.
    pub fn during(self, step: &str) -> Option<Turn> {
        (self.step == step).then_some(self.turn)
    }
}

impl fmt::Display for Turn {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "member {} of {} ({})", self.number, self.of, self.member)?;
        if !self.what.is_empty() {
            write!(f, " {}", self.what)?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_turn_says_which_member_has_it_and_how_many_there_are() {
        assert_eq!(Turn::of("m2", 0, 3, "").to_string(), "member 1 of 3 (m2)");
        let second = Turn::of("m0", 1, 3, "to version 3.6.5");
        assert_eq!(second.to_string(), "member 2 of 3 (m0) to version 3.6.5");
        assert_eq!(Turn::of("m0", 3, 3, "").number, 3);
        let of_step = || TurnOfStep {
            step: "Changing".to_owned(),
            turn: Turn::of("m0", 1, 3, ""),
        };
        assert_eq!(
            of_step().during("Changing").map(|turn| turn.number),
            Some(2)
        );
        assert_eq!(of_step().during("Checking"), None);
    }
}
