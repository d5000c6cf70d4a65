//! How long what fails in passing is tried again, and how often. Pure.
//!
//! What is spent is counted in time that failed tries and the pauses after them took, not by the
//! clock: so neither a clock that jumps nor a broker that was away for a day uses up anybody's
//! patience.

use std::time::Duration;

use super::{
    backoff::backoff,
    limits::{
        patience::{
            CLEANUP_BACKOFF_FIRST, CLEANUP_PATIENCE, DELETION_BACKOFF_MAX, FINAL_BACKUP_PATIENCE,
            HALTED_CLEANUP_BACKOFF_MAX, HALTED_CLEANUP_PATIENCE, PATIENCE,
            PATIENCE_BYTES_PER_SECOND, RELIEF_PATIENCE, SHORTAGE_PATIENCE, STEP_BACKOFF_FIRST,
            STEP_BACKOFF_MAX, STEP_TRIES_MIN,
        },
        upload::IMPORT_PATIENCE,
    },
    operation::OperationKind,
};

/// How the tries of a step follow each other.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Tries {
    /// The pause before the second try; doubled for each further one.
    pub first_pause: Duration,
    /// The longest pause.
    pub longest_pause: Duration,
    /// What failed tries and their pauses may take, of all steps of a way together.
    pub budget: Duration,
}

/// A way through steps.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Course {
    /// Does what was asked for; moves so many bytes, as far as is known.
    Forward {
        /// Of which kind.
        kind: OperationKind,
        /// Of a backup or a restore.
        bytes: u64,
    },
    /// Cleans up after it.
    CleanUp {
        /// A deletion waits for the end, and removes what is left.
        halted: bool,
    },
}

/// What kind of failure a try had.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Cause {
    /// What was worked on did not do its part.
    Failure,
    /// The machine or the store is short of something; it is not the operation's fault.
    Shortage,
}

/// What a step's tries have come to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Trial {
    /// Tries that failed.
    pub failures: u32,
    /// Tries that came to nothing for a shortage.
    pub shortages: u32,
    /// What failed tries and their pauses took.
    pub spent: Duration,
    /// The same of those that came to nothing for a shortage.
    pub waited: Duration,
}

impl Trial {
    /// Counts a try that took so long.
    pub fn count(&mut self, cause: Cause, took: Duration) {
        match cause {
            Cause::Failure => self.failures += 1,
            Cause::Shortage => self.shortages += 1,
        }
        self.took(cause, took);
    }

    /// Counts the time of a try, or of the pause after it.
    pub fn took(&mut self, cause: Cause, time: Duration) {
        match cause {
            Cause::Failure => self.spent += time,
            Cause::Shortage => self.waited += time,
        }
    }

    /// Tries so far.
    pub fn tries(&self) -> u32 {
        self.failures + self.shortages
    }
}

/// What comes after a failed try.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// The next one, after this pause.
    Again(Duration),
    /// Nothing: the way ends here.
    GiveUp,
}

/// How patient a broker is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Patience {
    /// Failed tries that a step has at least, however long they take.
    pub tries_min: u32,
    /// Of ways forward.
    pub forward: Tries,
    /// A way that moves bytes has a second more for so many of them.
    pub bytes_per_second: u64,
    /// Of deletions, which are their own clean-up.
    pub deletion: Tries,
    /// Of making room and giving storage back: the guard asks again soon.
    pub relief: Tries,
    /// Of clean-ups.
    pub cleanup: Tries,
    /// Of clean-ups that a deletion waits for.
    pub halted_cleanup: Tries,
    /// Of the last backup before a deletion, which waits for it.
    pub final_backup: Tries,
    /// Of the import of a backup: what does not come up from its file will not later.
    pub import: Tries,
    /// How long a shortage is waited out.
    pub shortage: Duration,
}

impl Default for Patience {
    fn default() -> Self {
        let forward = Tries {
            first_pause: STEP_BACKOFF_FIRST,
            longest_pause: STEP_BACKOFF_MAX,
            budget: PATIENCE,
        };
        let deletion = Tries {
            longest_pause: DELETION_BACKOFF_MAX,
            budget: CLEANUP_PATIENCE,
            ..forward
        };
        Self {
            tries_min: STEP_TRIES_MIN,
            forward,
            bytes_per_second: PATIENCE_BYTES_PER_SECOND,
            deletion,
            relief: Tries {
                budget: RELIEF_PATIENCE,
                ..forward
            },
            cleanup: Tries {
                first_pause: CLEANUP_BACKOFF_FIRST,
                ..deletion
            },
            halted_cleanup: Tries {
                longest_pause: HALTED_CLEANUP_BACKOFF_MAX,
                budget: HALTED_CLEANUP_PATIENCE,
                ..forward
            },
            final_backup: Tries {
                budget: FINAL_BACKUP_PATIENCE,
                ..forward
            },
            import: Tries {
                budget: IMPORT_PATIENCE,
                ..forward
            },
            shortage: SHORTAGE_PATIENCE,
        }
    }
}

impl Patience {
    /// What comes after a failed try of a step. `own`: what the step's tries have come to with it;
    /// `all`: what those of all steps of the way have.
    pub fn verdict(&self, course: Course, cause: Cause, own: Trial, all: Trial) -> Verdict {
        let tries = self.tries(course);
        let is_over = match cause {
            Cause::Failure => own.failures >= self.tries_min && all.spent >= tries.budget,
            Cause::Shortage => all.waited >= self.shortage.max(tries.budget),
        };
        // A deletion of what a shortage holds up is held up too, and waits for nothing; nor does one wait for
        // its last backup.
        let holds_up_a_deletion = match course {
            Course::CleanUp { halted } => halted,
            Course::Forward { kind, .. } => kind == OperationKind::FinalBackup,
        };
        let gives_way = holds_up_a_deletion
            && own.tries() >= self.tries_min
            && all.spent + all.waited >= tries.budget;
        if is_over || gives_way {
            return Verdict::GiveUp;
        }
        let pause = backoff(own.tries(), tries.first_pause, tries.longest_pause);
        Verdict::Again(match course {
            // The last try begins when the time is over, and not a pause later.
            Course::Forward {
                kind: OperationKind::FinalBackup,
                ..
            } => pause.min(self.left(course, all).max(tries.first_pause)),
            _ => pause,
        })
    }

    /// What is left of the time of a way whose tries and pauses have come to this.
    pub fn left(&self, course: Course, all: Trial) -> Duration {
        let budget = self.tries(course).budget;
        budget.saturating_sub(all.spent + all.waited)
    }

    /// The same with more time for so many bytes.
    fn with_time_for(&self, bytes: u64, tries: Tries) -> Tries {
        Tries {
            budget: tries.budget + Duration::from_secs(bytes / self.bytes_per_second.max(1)),
            ..tries
        }
    }

    fn tries(&self, course: Course) -> Tries {
        match course {
            Course::CleanUp { halted: true } => self.halted_cleanup,
            Course::CleanUp { halted: false } => self.cleanup,
            Course::Forward { kind, bytes } => match kind {
                OperationKind::Deprovision | OperationKind::Unbind => self.deletion,
                OperationKind::Relief | OperationKind::Defragment => self.relief,
                OperationKind::Import => self.with_time_for(bytes, self.import),
                OperationKind::FinalBackup => self.with_time_for(bytes, self.final_backup),
                _ => self.with_time_for(bytes, self.forward),
            },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const QUICK: Duration = Duration::from_millis(10);
    const BIND: Course = Course::Forward {
        kind: OperationKind::Bind,
        bytes: 0,
    };

    /// The tries that a step has which always fails at once, and what they take with the pauses.
    fn tries(patience: &Patience, course: Course, cause: Cause) -> (u32, Duration) {
        let mut trial = Trial::default();
        loop {
            trial.count(cause, QUICK);
            match patience.verdict(course, cause, trial, trial) {
                Verdict::Again(pause) => trial.took(cause, pause),
                Verdict::GiveUp => return (trial.tries(), trial.spent + trial.waited),
            }
        }
    }

    #[test]
    fn each_way_is_gone_on_with_as_long_as_it_is_told() {
        const HOUR: Duration = Duration::from_secs(3600);
        let patience = Patience::default();
        let forward = |kind, bytes| Course::Forward { kind, bytes };
        let cleanup = Course::CleanUp { halted: false };
        for (course, at_least, at_most) in [
            (BIND, HOUR, HOUR * 2),
            (forward(OperationKind::Restore, 8 << 30), HOUR * 3, HOUR * 4),
            (forward(OperationKind::Unbind, 0), HOUR * 72, HOUR * 73),
            (cleanup, HOUR * 72, HOUR * 73),
        ] {
            let (tries, took) = tries(&patience, course, Cause::Failure);
            assert!(took >= at_least && took < at_most, "{course:?}: {took:?}");
            assert!(tries >= 60, "{course:?}: {tries}");
        }
        for held_up in [
            Course::CleanUp { halted: true },
            forward(OperationKind::FinalBackup, 0),
        ] {
            let (_, took) = tries(&patience, held_up, Cause::Shortage);
            assert!(took < HOUR / 6, "{held_up:?}: {took:?}");
        }
    }

    #[test]
    fn a_deletion_does_not_wait_for_its_last_backup_longer_than_it_says() {
        let patience = Patience::default();
        let course = Course::Forward {
            kind: OperationKind::FinalBackup,
            bytes: 0,
        };
        let try_takes = Duration::from_secs(5);
        let mut trial = Trial::default();
        loop {
            trial.count(Cause::Failure, try_takes);
            match patience.verdict(course, Cause::Failure, trial, trial) {
                Verdict::Again(pause) => trial.took(Cause::Failure, pause),
                Verdict::GiveUp => break,
            }
        }
        let most = FINAL_BACKUP_PATIENCE + STEP_BACKOFF_FIRST + try_takes;
        assert!(
            (FINAL_BACKUP_PATIENCE..=most).contains(&trial.spent),
            "{trial:?}"
        );
    }

    #[test]
    fn a_step_that_takes_its_time_to_fail_is_tried_again_all_the_same() {
        let patience = Patience::default();
        let mut trial = Trial::default();
        for _ in 1..patience.tries_min {
            trial.count(Cause::Failure, PATIENCE * 2);
            let verdict = patience.verdict(BIND, Cause::Failure, trial, trial);
            assert!(matches!(verdict, Verdict::Again(_)));
        }
        trial.count(Cause::Failure, PATIENCE * 2);
        let verdict = patience.verdict(BIND, Cause::Failure, trial, trial);
        assert_eq!(verdict, Verdict::GiveUp);
    }

    #[test]
    fn a_shortage_uses_up_no_try() {
        let patience = Patience::default();
        let (short, _) = tries(&patience, BIND, Cause::Shortage);
        assert!(short > tries(&patience, BIND, Cause::Failure).0 * 5);
        let mut trial = Trial::default();
        for _ in 0..1000 {
            trial.count(Cause::Shortage, QUICK);
        }
        trial.count(Cause::Failure, QUICK);
        let verdict = patience.verdict(BIND, Cause::Failure, trial, trial);
        assert_eq!(verdict, Verdict::Again(STEP_BACKOFF_MAX));
    }
}
