//! What comes of several things that are due: one that fails holds up no other.

use super::BrokerError;

/// What was made of them so far.
#[derive(Debug, Default)]
pub(super) struct Outcome {
    done: usize,
    failure: Option<BrokerError>,
}

impl Outcome {
    /// Notes what came of one, and whether it was done. Returns whether the next one may come: not where the
    /// store does nothing for anybody now.
    pub(super) fn goes_on(&mut self, came: Result<bool, impl Into<BrokerError>>) -> bool {
        match came.map_err(Into::into) {
            Ok(is_done) => {
                self.done += usize::from(is_done);
                true
            }
            Err(error) => {
                let goes_on = match &error {
                    BrokerError::Store(error) => !error.is_shortage(),
                    BrokerError::StoreFull(_) => false,
                    BrokerError::BackupStore(error) => !error.may_pass(),
                    _ => true,
                };
                self.failure.get_or_insert(error);
                goes_on
            }
        }
    }

    /// How many were done; or why the first of those failed that did.
    pub(super) fn end(self) -> Result<usize, BrokerError> {
        match self.failure {
            None => Ok(self.done),
            Some(error) => Err(error),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::StoreError;

    #[test]
    fn one_that_fails_holds_up_no_other_and_a_store_that_is_short_holds_up_all() {
        let mut outcome = Outcome::default();
        let refused = || BrokerError::Conflict("a reason".to_owned());
        assert!(outcome.goes_on(Ok::<_, BrokerError>(true)));
        assert!(outcome.goes_on(Err(refused())));
        assert!(outcome.goes_on(Err(StoreError::Duplicate)));
        assert!(outcome.goes_on(Ok::<_, BrokerError>(false)));
        assert!(!outcome.goes_on(Err(StoreError::Busy)));
        let told = outcome.end().expect_err("the first failure");
        assert_eq!(told.to_string(), refused().to_string());
        assert_eq!(Outcome::default().end().expect("none failed"), 0);
    }
}
