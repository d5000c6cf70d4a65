//! The time of day, and the time that passes, as something that is handed in.
//!
//! A clock tells both, so that the one can be compared with the other ([`crate::model::trust`]): of
//! the machine, the time since the boot, which nobody sets, sleep included.
//!
//! Demonstrations and tests let days pass with a file. What it moves the clock by counts like the
//! downtime of a machine: so many days at once as could have gone by unseen
//! ([`CLOCK_DOWNTIME_MAX`]) count as time that passed, one after the other as many as you like.
//! Whatever is more, or goes back, is a clock that jumps, and is met as one. So there is no switch
//! that says "believe it", which somebody could forget: beside a file that stands still, the machine's
//! own clock is watched as ever. And a jump can be tried with the file alone.

use std::{
    fs,
    path::PathBuf,
    sync::{Arc, Mutex, PoisonError},
};

use chrono::{DateTime, TimeDelta, Utc};
use rustix::time::{ClockId, clock_gettime};

use crate::model::{limits::CLOCK_DOWNTIME_MAX, trust::ClockReading};

/// Tells the time. Everything that stores or compares a time of day asks the clock it was given;
/// pauses and time-outs run on the machine's monotonic clock instead.
#[derive(Clone)]
pub struct Clock(Arc<dyn Fn() -> ClockReading + Send + Sync>);

impl Clock {
    /// The machine's clock.
    pub fn system() -> Self {
        let boot = boot();
        Self::read_by(move || machine(boot.clone()))
    }

    /// A clock of a test, whose time passes as it is told: nothing that it shows is a jump.
    pub fn new(tell: impl Fn() -> DateTime<Utc> + Send + Sync + 'static) -> Self {
        Self::read_by(move || {
            let time = tell();
            ClockReading {
                time,
                elapsed: time - DateTime::UNIX_EPOCH,
                boot: "a test's".to_owned(),
            }
        })
    }

    /// A clock that is read by `read`.
    pub fn read_by(read: impl Fn() -> ClockReading + Send + Sync + 'static) -> Self {
        Self(Arc::new(read))
    }

    /// The machine's clock, ahead by as many seconds as `file` says at each moment (behind, when the
    /// number is negative). While the file cannot be read, what it said last goes on. For
    /// demonstrations and tests, which cannot wait for days.
    pub fn moved_by(file: PathBuf) -> Self {
        // What it says at a start may be anything: nothing is counted over a start.
        let boot = uuid::Uuid::new_v4().to_string();
        let moved = Mutex::new(None::<Moved>);
        Self::read_by(move || {
            let said = fs::read_to_string(&file).ok();
            let said =
                said.and_then(|text| text.trim_start_matches('\u{feff}').trim().parse().ok());
            let ClockReading { time, elapsed, .. } = machine(boot.clone());
            let mut moved = moved.lock().unwrap_or_else(PoisonError::into_inner);
            let said = said.map(|s| TimeDelta::try_seconds(s).unwrap_or_default());
            let now = Moved::after(*moved, said);
            *moved = Some(now);
            ClockReading {
                time: time.checked_add_signed(now.by).unwrap_or(time),
                elapsed: elapsed + now.passed,
                boot: boot.clone(),
            }
        })
    }

    /// The time now.
    pub fn now(&self) -> DateTime<Utc> {
        self.read().time
    }

    /// The time now, and what has passed.
    pub fn read(&self) -> ClockReading {
        (self.0)()
    }
}

/// How a file moves a clock.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
struct Moved {
    by: TimeDelta,
    /// What it moved the clock by when time passed last: from there further steps are counted.
    reached: TimeDelta,
    /// What counts as time that passed.
    passed: TimeDelta,
}

impl Moved {
    /// After the file said this, or nothing that can be read.
    fn after(last: Option<Self>, said: Option<TimeDelta>) -> Self {
        let Some(last) = last else {
            let by = said.unwrap_or_default();
            return Self {
                by,
                reached: by,
                passed: TimeDelta::zero(),
            };
        };
        let by = said.unwrap_or(last.by);
        let plausible = |step: &TimeDelta| TimeDelta::zero() < *step && *step <= CLOCK_DOWNTIME_MAX;
        match by.checked_sub(&last.reached).filter(plausible) {
            Some(step) => Self {
                by,
                reached: by,
                passed: last.passed + step,
            },
            None => Self { by, ..last },
        }
    }
}

fn machine(boot: String) -> ClockReading {
    let since_boot = clock_gettime(ClockId::Boottime);
    let seconds = TimeDelta::try_seconds(since_boot.tv_sec).unwrap_or_default();
    ClockReading {
        time: Utc::now(),
        elapsed: seconds + TimeDelta::nanoseconds(since_boot.tv_nsec),
        boot,
    }
}

/// What tells this boot of the machine from others; where the system does not, this process.
fn boot() -> String {
    procfs::sys::kernel::random::boot_id().unwrap_or_else(|_| uuid::Uuid::new_v4().to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_moves_the_clock_and_says_so_until_it_says_otherwise() {
        let folder = tempfile::tempdir().expect("a folder");
        let file = folder.path().join("offset");
        let clock = Clock::moved_by(file.clone());
        let ahead = || (clock.now() - Utc::now()).num_minutes();
        assert_eq!(ahead(), 0);
        for (text, minutes) in [("86430\n", 1440), ("-86370", -1439), ("what?", -1439)] {
            fs::write(&file, text).expect("a file");
            assert_eq!(ahead(), minutes, "{text}");
        }
        fs::remove_file(&file).expect("no file");
        assert_eq!(ahead(), -1439);
        fs::write(&file, i64::MAX.to_string()).expect("a file");
        assert_eq!(ahead(), 0, "no such time");
    }

    #[test]
    fn days_pass_by_the_file_and_years_do_not() {
        let days = |n| Some(TimeDelta::days(n));
        let mut moved = Moved::after(None, days(-101));
        assert_eq!(moved.passed, TimeDelta::zero());
        let steps = [
            (days(-99), 2),
            (days(-98), 3),
            (None, 3),
            // Jumps, ahead and back, and what comes after them.
            (days(3650), 3),
            (days(3651), 3),
            (days(-98), 3),
            (days(-100), 3),
            (days(-98), 3),
            (days(-97), 4),
        ];
        for (said, passed) in steps {
            moved = Moved::after(Some(moved), said);
            assert_eq!(moved.passed, TimeDelta::days(passed), "{said:?}");
        }
    }

    #[test]
    fn the_machine_counts_what_passes() {
        let clock = Clock::system();
        let (one, two) = (clock.read(), clock.read());
        assert_eq!(one.boot, two.boot);
        assert!(two.elapsed >= one.elapsed && one.elapsed > TimeDelta::zero());
    }
}
