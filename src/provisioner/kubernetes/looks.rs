//! Looks at files that were had a moment ago. Several ask for the same again and again, and each look is a
//! command in a container.

use std::{
    collections::HashMap,
    sync::{Mutex, PoisonError},
};

use tokio::time::Instant;

use crate::{
    model::{ids::DeploymentId, limits::kubernetes::CLUSTER_FILES_AGE_MAX},
    provisioner::FileSeen,
};

/// A deployment, a member and a folder.
type Place = (DeploymentId, String, String);

/// What was seen lately, by place.
#[derive(Default)]
pub(super) struct Looks(Mutex<Kept>);

#[derive(Default)]
struct Kept {
    seen: HashMap<Place, (Instant, Vec<FileSeen>)>,
    /// How often something of a deployment was forgotten: a look that began before tells nothing.
    changes: u64,
}

impl Looks {
    /// What was seen there not long ago; else the count of changes so far, for [`Looks::keep`].
    pub(super) fn lately(&self, place: &Place, now: Instant) -> Result<Vec<FileSeen>, u64> {
        let kept = self.kept();
        let found = kept.seen.get(place);
        let fresh = found.filter(|(at, _)| is_fresh(*at, now));
        fresh.map(|(_, files)| files.clone()).ok_or(kept.changes)
    }

    /// Keeps what a look found that began at `at`, after so many changes.
    pub(super) fn keep(&self, place: Place, at: Instant, changes: u64, files: &[FileSeen]) {
        let mut kept = self.kept();
        if kept.changes == changes {
            kept.seen.retain(|_, (seen, _)| is_fresh(*seen, at));
            kept.seen.insert(place, (at, files.to_vec()));
        }
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

fn is_fresh(at: Instant, now: Instant) -> bool {
    now.saturating_duration_since(at) < CLUSTER_FILES_AGE_MAX
}

#[cfg(test)]
mod tests {
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
}
