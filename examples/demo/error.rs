//! Errors as plain texts: the demo reports them and ends.

use std::{error::Error, fmt::Display};

/// What the demo's functions return.
pub type Result<T> = std::result::Result<T, Box<dyn Error>>;

/// Says what was being done when an error came up.
pub trait Context<T> {
    /// The error with `doing` in front and all its causes behind.
    fn context(self, doing: impl Display) -> Result<T>;
}

impl<T, E: Error> Context<T> for std::result::Result<T, E> {
    fn context(self, doing: impl Display) -> Result<T> {
        self.map_err(|error| {
            let mut text = format!("{doing}: {error}");
            let mut cause = error.source();
            while let Some(error) = cause {
                let inner = error.to_string();
                // Some errors repeat their cause in their own text.
                if !text.ends_with(&inner) {
                    text = format!("{text}: {inner}");
                }
                cause = error.source();
            }
            text.into()
        })
    }
}

/// Fails with `otherwise` unless the condition holds.
pub fn ensure(holds: bool, otherwise: impl FnOnce() -> String) -> Result<()> {
    if holds {
        Ok(())
    } else {
        Err(otherwise().into())
    }
}
