//! What is remembered of instances from one round over all of them to the next. Pure.
//!
//! Invariant: after a round, nothing is remembered of an instance that was not seen at it.

use std::collections::HashMap;

use super::ids::InstanceId;

/// Something about each instance that was seen at this round or at the one before.
#[derive(Debug)]
pub struct Roll<T> {
    /// With the round that each was seen at last.
    known: HashMap<InstanceId, (u64, T)>,
    /// The number of this round.
    round: u64,
}

impl<T> Default for Roll<T> {
    fn default() -> Self {
        Self {
            known: HashMap::new(),
            round: 0,
        }
    }
}

impl<T> Roll<T> {
    /// What is remembered of an instance that is seen at this round; `new` where that is nothing.
    pub fn seen(&mut self, id: &InstanceId, new: impl FnOnce() -> T) -> &mut T {
        let round = self.round;
        let known = self.known.entry(id.clone());
        let (seen_at, known) = known.or_insert_with(|| (round, new()));
        *seen_at = round;
        known
    }

    /// What is remembered of an instance.
    pub fn known(&self, id: &InstanceId) -> Option<&T> {
        self.known.get(id).map(|(_, known)| known)
    }

    /// Forgets one instance.
    pub fn forget(&mut self, id: &InstanceId) {
        self.known.remove(id);
    }

    /// Ends a round: forgets instances that were not seen at it.
    pub fn forget_gone(&mut self) {
        let round = self.round;
        self.known.retain(|_, (seen_at, _)| *seen_at == round);
        self.round += 1;
    }

    /// Forgets all.
    pub fn forget_all(&mut self) {
        self.known.clear();
    }

    /// Of how many instances something is remembered.
    pub fn count(&self) -> usize {
        self.known.len()
    }
}
