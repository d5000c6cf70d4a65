//! The time of day, as something that is handed in.

use std::{
    fs,
    path::PathBuf,
    sync::{
        Arc,
        atomic::{AtomicI64, Ordering},
    },
};

use chrono::{DateTime, TimeDelta, Utc};

/// Tells the time. Everything that stores or compares a time of day asks the clock it was given;
/// pauses and time-outs run on the machine's monotonic clock instead.
#[derive(Clone)]
pub struct Clock(Arc<dyn Fn() -> DateTime<Utc> + Send + Sync>);

impl Clock {
    /// The machine's clock.
    pub fn system() -> Self {
        Self(Arc::new(Utc::now))
    }

    /// A clock that tells what `tell` returns.
    pub fn new(tell: impl Fn() -> DateTime<Utc> + Send + Sync + 'static) -> Self {
        Self(Arc::new(tell))
    }

    /// The machine's clock, ahead by as many seconds as `file` says at each moment (behind, when the
    /// number is negative). While the file cannot be read, what it said last goes on. For
    /// demonstrations and tests, which cannot wait for days.
    pub fn moved_by(file: PathBuf) -> Self {
        let last = AtomicI64::new(0);
        Self::new(move || {
            let said = fs::read_to_string(&file).ok();
            if let Some(seconds) =
                said.and_then(|text| text.trim_start_matches('\u{feff}').trim().parse().ok())
            {
                last.store(seconds, Ordering::Relaxed);
            }
            let (now, seconds) = (Utc::now(), last.load(Ordering::Relaxed));
            let moved = TimeDelta::try_seconds(seconds).and_then(|by| now.checked_add_signed(by));
            moved.unwrap_or(now)
        })
    }

    /// The time now.
    pub fn now(&self) -> DateTime<Utc> {
        (self.0)()
    }
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
}
