//! Errors as texts.

use std::error::Error;

/// An error with all its causes, in one line: for the log, and where an error has to go on as text.
pub fn chain(error: &(dyn Error + 'static)) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(error) = source {
        text.push_str(": ");
        text.push_str(&error.to_string());
        source = error.source();
    }
    text
}
