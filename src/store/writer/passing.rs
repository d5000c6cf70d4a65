//! Which failures of a server pass: a lost connection, another transaction in the way, a server that ends.
//!
//! A decision may turn a failure into an error of its own, or go on without what it asked for. So the
//! connection itself is watched.

use std::sync::{
    Arc,
    atomic::{AtomicBool, Ordering},
};

use diesel::{
    connection::{Instrumentation, InstrumentationEvent},
    result::{DatabaseErrorKind, Error},
};

/// Whether a statement met a failure that passes.
#[derive(Debug, Clone, Default)]
pub(super) struct Passing(Arc<AtomicBool>);

impl Passing {
    /// Whether there was one.
    pub(super) fn was_met(&self) -> bool {
        self.0.load(Ordering::Acquire)
    }

    /// Whether there was one; it is forgotten.
    pub(super) fn take(&self) -> bool {
        self.0.swap(false, Ordering::AcqRel)
    }
}

impl Instrumentation for Passing {
    fn on_connection_event(&mut self, event: InstrumentationEvent<'_>) {
        if let InstrumentationEvent::FinishQuery {
            error: Some(error), ..
        } = event
            && passes(error)
        {
            self.0.store(true, Ordering::Release);
        }
    }
}

/// A deadlock, a lock that was waited for too long and a server that is told to end have no kind of their
/// own, and are told in the server's language. So all passes that is not known to stay.
fn passes(error: &Error) -> bool {
    matches!(
        error,
        Error::DatabaseError(
            DatabaseErrorKind::SerializationFailure
                | DatabaseErrorKind::ClosedConnection
                | DatabaseErrorKind::UnableToSendCommand
                | DatabaseErrorKind::Unknown,
            _
        )
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_breaks_a_rule_of_the_schema_does_not_pass() {
        let of = |kind| Error::DatabaseError(kind, Box::new("told".to_owned()));
        assert!(passes(&of(DatabaseErrorKind::SerializationFailure)));
        assert!(passes(&of(DatabaseErrorKind::ClosedConnection)));
        assert!(passes(&of(DatabaseErrorKind::Unknown)));
        assert!(!passes(&of(DatabaseErrorKind::UniqueViolation)));
        assert!(!passes(&of(DatabaseErrorKind::NotNullViolation)));
        assert!(!passes(&Error::NotFound));
    }
}
