//! How far a piece of work is, for a bar and its label.

use chrono::{DateTime, Utc};

use super::show::dates_whole;
use crate::{broker::status_of, model::operation::Operation};

/// Parts of a whole bar for each step, so that bytes move it too.
const PARTS: u64 = 1000;

/// How far a piece of work is, for a bar.
pub struct Bar {
    /// What is being done, for people.
    pub text: String,
    /// Parts done.
    pub done: u64,
    /// Parts in all; never 0.
    pub total: u64,
}

impl Bar {
    /// How far an operation is at `now`.
    pub fn of(operation: &Operation, now: DateTime<Utc>) -> Self {
        let progress = &operation.progress;
        let total = u64::from(progress.steps_total) * PARTS;
        let within = match (progress.bytes_total, &progress.turn) {
            (0, None) => 0,
            // Those that had their turns are done.
            (0, Some(turn)) => share(turn.number.saturating_sub(1).into(), turn.of.into()),
            (bytes, _) => share(progress.bytes_done, bytes),
        };
        Self {
            text: dates_whole(&status_of(operation, now).description),
            done: (u64::from(progress.steps_done) * PARTS + within).min(total),
            total: total.max(1),
        }
    }
}

/// How much of a step is done, in [`PARTS`].
fn share(done: u64, of: u64) -> u64 {
    let of = u128::from(of.max(1));
    let part = u128::from(done).min(of) * u128::from(PARTS);
    u64::try_from(part / of).unwrap_or(PARTS)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{
        operation::{OperationKind, Progress},
        origin::Origin,
        turn::Turn,
    };

    #[test]
    fn bytes_move_the_bar_within_a_step() {
        let instance = "i".parse().expect("an id");
        let mut operation = Operation::queued(
            OperationKind::Backup,
            &instance,
            Origin::Dashboard,
            DateTime::UNIX_EPOCH,
        );
        let bar = |operation: &Operation| {
            let bar = Bar::of(operation, DateTime::UNIX_EPOCH);
            (bar.done, bar.total)
        };
        assert_eq!(bar(&operation), (0, 1));
        operation.progress = Progress {
            step: "Taking the snapshot".into(),
            steps_done: 1,
            steps_total: 4,
            bytes_done: 50,
            bytes_total: 100,
            turn: None,
        };
        assert_eq!(bar(&operation), (1500, 4000));
        operation.progress.bytes_done = 1000;
        assert_eq!(bar(&operation), (2000, 4000));
        operation.progress.steps_done = 9;
        assert_eq!(bar(&operation), (4000, 4000));
    }

    #[test]
    fn members_that_had_their_turns_move_the_bar_within_a_step() {
        let instance = "i".parse().expect("an id");
        let now = DateTime::UNIX_EPOCH;
        let mut update = Operation::queued(OperationKind::Update, &instance, Origin::Osb, now);
        update.progress = Progress {
            step: "Changing the members, one after the other".into(),
            steps_done: 1,
            steps_total: 2,
            turn: Some(Turn::of("m0", 1, 3, "to version 3.6.5")),
            ..Progress::default()
        };
        let bar = Bar::of(&update, now);
        assert_eq!((bar.done, bar.total), (1333, 2000));
        assert_eq!(
            bar.text,
            "Changing the members, one after the other (step 2 of 2), member 2 of 3 (m0) to version 3.6.5"
        );
    }
}
