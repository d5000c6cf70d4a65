//! Keeps the claims of this process: one statement a second renews the leases of all that it works on.
//!
//! Invariant: a step that has heard for a lease's time of no renewal is broken off, since somebody else
//! may have its operation by then.

use std::collections::HashMap;

use tokio::{sync::watch, time::Instant};

use super::{Interruption, Runner, log_failure};
use crate::{
    model::{
        ids::OperationId,
        limits::{LEASE, LEASE_RENEWAL, PROGRESS_INTERVAL},
        operation::Claim,
    },
    operation::Meter,
    store::{self, StoreError, claim::Held},
};

/// What the last renewal has found.
pub(super) struct Leases(watch::Sender<Renewal>);

struct Renewal {
    /// When it began.
    begun: Instant,
    /// The claims that this process still has.
    held: HashMap<OperationId, Held>,
}

/// What a renewal says about a claim.
#[derive(Debug, PartialEq, Eq)]
enum Word {
    Kept,
    /// Kept, and the operation was told to halt.
    Halted,
    Lost,
    /// It began before the claim was made, perhaps.
    Unknown,
}

impl Leases {
    pub(super) fn new() -> Self {
        let (begun, held) = (Instant::now(), HashMap::new());
        Self(watch::Sender::new(Renewal { begun, held }))
    }
}

impl Renewal {
    /// About a claim that was there at `since`.
    fn says(&self, claim: &Claim, since: Instant) -> Word {
        match self.held.get(&claim.operation) {
            Some(held) if held.epoch == claim.epoch && held.halted => Word::Halted,
            Some(held) if held.epoch == claim.epoch => Word::Kept,
            _ if self.begun < since => Word::Unknown,
            _ => Word::Lost,
        }
    }
}

impl Runner {
    /// Renews the leases of all that this process works on, again and again.
    pub(super) async fn keep_leases(&self) {
        loop {
            tokio::time::sleep(LEASE_RENEWAL).await;
            let works_on: Vec<OperationId> = self.running().keys().cloned().collect();
            if works_on.is_empty() {
                continue;
            }
            let begun = Instant::now();
            match self.renew_all(works_on).await {
                Ok(held) => drop(self.leases.0.send_replace(Renewal { begun, held })),
                Err(error) => log_failure(&error, "cannot renew the claims"),
            }
        }
    }

    async fn renew_all(
        &self,
        works_on: Vec<OperationId>,
    ) -> Result<HashMap<OperationId, Held>, StoreError> {
        let (owner, now) = (self.owner.clone(), self.parts.clock.now());
        self.parts
            .store
            .write_beside(move |conn| {
                let until = store::time::of_store(conn, now)? + LEASE;
                store::claim::renew_all(conn, &owner, &works_on, now, until)
            })
            .await
    }

    /// Watches over the claim and writes the progress down; returns when the step must break off.
    pub(super) async fn heartbeat(
        &self,
        claim: &Claim,
        meter: &Meter,
        heed_halt: bool,
    ) -> Interruption {
        let mut halts = self.parts.store.halts();
        let mut renewals = self.leases.0.subscribe();
        // A renewal that begins from now on names the claim, since the runner works on it already.
        let since = Instant::now();
        let mut renewed = since;
        let mut written = (0, 0);
        loop {
            tokio::select! {
                () = tokio::time::sleep(PROGRESS_INTERVAL) => {}
                Ok(()) = renewals.changed() => {
                    let renewal = renewals.borrow_and_update();
                    match renewal.says(claim, since) {
                        Word::Halted if heed_halt => return Interruption::Halted,
                        Word::Kept | Word::Halted => renewed = renewal.begun,
                        Word::Lost => return Interruption::Lost,
                        Word::Unknown => {}
                    }
                    continue;
                }
                Ok(()) = halts.changed() => {
                    if heed_halt && self.was_halted(&claim.operation).await {
                        return Interruption::Halted;
                    }
                }
            }
            if renewed.elapsed() >= LEASE {
                return Interruption::Lost;
            }
            let reading = meter.reading();
            if reading == written {
                continue;
            }
            // Where the store hangs, the lease ends all the same.
            let set = tokio::time::timeout_at(renewed + LEASE, self.set_bytes(claim, reading));
            match set.await {
                Ok(Ok(())) => written = reading,
                Ok(Err(StoreError::Fenced)) | Err(_) => return Interruption::Lost,
                Ok(Err(error)) => log_failure(&error, "cannot write progress down"),
            }
        }
    }

    async fn set_bytes(&self, claim: &Claim, reading: (u64, u64)) -> Result<(), StoreError> {
        let (claim, now) = (claim.clone(), self.parts.clock.now());
        self.parts
            .store
            .write_beside(move |conn| store::claim::set_bytes(conn, &claim, now, reading))
            .await
    }

    pub(super) async fn was_halted(&self, id: &OperationId) -> bool {
        let id = id.clone();
        let read = self
            .parts
            .store
            .read(move |conn| store::operation::find(conn, &id))
            .await;
        matches!(read, Ok(Some(operation)) if operation.halted)
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn a_claim_is_lost_when_a_renewal_that_began_after_it_does_not_name_it() {
        let claim = |epoch| Claim {
            operation: "1".repeat(24).parse().expect("an id"),
            epoch,
        };
        let begun = Instant::now();
        let (before, after) = (begun, begun + Duration::from_nanos(1));
        let with = |halted| {
            let held = HashMap::from([(claim(2).operation, Held { epoch: 2, halted })]);
            Renewal { begun, held }
        };
        assert_eq!(with(false).says(&claim(2), before), Word::Kept);
        assert_eq!(with(true).says(&claim(2), before), Word::Halted);
        assert_eq!(with(false).says(&claim(1), before), Word::Lost);
        // The renewal saw the earlier claim of the same operation.
        assert_eq!(with(false).says(&claim(3), after), Word::Unknown);
        let empty = Renewal {
            begun,
            held: HashMap::new(),
        };
        assert_eq!(empty.says(&claim(2), before), Word::Lost);
        assert_eq!(empty.says(&claim(2), after), Word::Unknown);
    }
}
