//! Looks at files that were had a moment ago. Several ask for the same again and again, and each look is a
//! command in a container. Where files stay as large as they are, they are looked at less often.

use std::{
    collections::HashMap,
    sync::{Mutex, PoisonError},
    time::Duration,
};

use tokio::time::Instant;

use crate::{
    model::{
        ids::DeploymentId,
        limits::kubernetes::{CLUSTER_FILES_AGE_MAX, CLUSTER_FILES_IDLE_AGE_MAX},
    },
    provisioner::FileSeen,
};

/// A deployment, a member and a folder.
type Place = (DeploymentId, String, String);

/// What was seen lately, by place.
#[derive(Default)]
pub(super) struct Looks(Mutex<Kept>);

#[derive(Default)]
struct Kept {
    seen: HashMap<Place, Look>,
    /// How often something of a deployment was forgotten: a look that began before tells nothing.
    changes: u64,
}

/// A look that found something.
struct Look {
    /// When it began.
    at: Instant,
    files: Vec<FileSeen>,
    /// How long what it found is told.
    age_max: Duration,
}

impl Look {
    fn age(&self, now: Instant) -> Duration {
        now.saturating_duration_since(self.at)
    }

    /// Whether the files were as large as these.
    fn is_like(&self, files: &[FileSeen]) -> bool {
        let sizes = |files: &[FileSeen]| -> Vec<(String, u64, u64)> {
            let size = |file: &FileSeen| (file.name.clone(), file.bytes, file.bytes_on_disk);
            files.iter().map(size).collect()
        };
        sizes(&self.files) == sizes(files)
    }
}

impl Looks {
    /// What was seen there not long ago; else the count of changes so far, for [`Looks::keep`].
    pub(super) fn lately(&self, place: &Place, now: Instant) -> Result<Vec<FileSeen>, u64> {
        let kept = self.kept();
        let found = kept.seen.get(place);
        let fresh = found.filter(|look| look.age(now) < look.age_max);
        fresh.map(|look| look.files.clone()).ok_or(kept.changes)
    }

    /// Keeps what a look found that began at `at`, after so many changes.
    pub(super) fn keep(&self, place: Place, at: Instant, changes: u64, files: &[FileSeen]) {
        let mut kept = self.kept();
        if kept.changes != changes {
            return;
        }
        // Older ones are compared with no more.
        kept.seen
            .retain(|_, look| look.age(at) < 2 * CLUSTER_FILES_IDLE_AGE_MAX);
        let before = kept.seen.get(&place).filter(|look| look.is_like(files));
        let age_max = before.map_or(CLUSTER_FILES_AGE_MAX, |look| {
            (2 * look.age_max).min(CLUSTER_FILES_IDLE_AGE_MAX)
        });
        let files = files.to_vec();
        kept.seen.insert(place, Look { at, files, age_max });
    }

    /// Forgets what was seen of a deployment: the broker changes it.
    pub(super) fn forget(&self, deployment: &DeploymentId) {
        let mut kept = self.kept();
        kept.changes += 1;
        kept.seen.retain(|(of, _, _), _| of != deployment);
    }

    fn kept(&self) -> std::sync::MutexGuard<'_, Kept> {
        // Every change is whole before anything can panic.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use chrono::DateTime;

    use super::*;

    fn place(deployment: &str) -> Place {
        let id = deployment.parse().expect("an id");
        (id, "m0".to_owned(), "data".to_owned())
    }

    #[test]
    fn what_was_seen_is_told_for_a_moment_unless_it_was_changed() {
        let (looks, now) = (Looks::default(), Instant::now());
        let (one, other) = (
            place("5ae85b45e5717f0001533192"),
            place("5ae85b45e5717f0001533193"),
        );
        for place in [&one, &other] {
            let changes = looks.lately(place, now).expect_err("nothing yet");
            looks.keep(place.clone(), now, changes, &[]);
            assert_eq!(looks.lately(place, now), Ok(Vec::new()));
        }
        looks.forget(&one.0);
        let changes = looks.lately(&one, now).expect_err("forgotten");
        assert_eq!(looks.lately(&other, now), Ok(Vec::new()));
        // It was changed while somebody looked.
        looks.forget(&one.0);
        looks.keep(one.clone(), now, changes, &[]);
        assert!(looks.lately(&one, now).is_err());
        assert!(looks.lately(&other, now + CLUSTER_FILES_AGE_MAX).is_err());
    }

    #[test]
    fn files_that_stay_as_large_as_they_are_are_looked_at_less_often() {
        let (looks, place, mut now) = (
            Looks::default(),
            place("5ae85b45e5717f0001533192"),
            Instant::now(),
        );
        // How long what a look finds now is told.
        let mut told = |bytes: u64| {
            let changes = looks.lately(&place, now).expect_err("too old");
            let file = FileSeen {
                name: "db".to_owned(),
                bytes,
                bytes_on_disk: bytes,
                written_at: DateTime::UNIX_EPOCH,
            };
            looks.keep(place.clone(), now, changes, &[file]);
            let begun = now;
            while looks.lately(&place, now).is_ok() {
                now += Duration::from_secs(1);
            }
            (now - begun).as_secs()
        };
        assert_eq!([1, 1, 1, 1].map(&mut told), [4, 8, 16, 16]);
        assert_eq!([2, 3, 3, 2].map(&mut told), [4, 4, 8, 4]);
    }
}
