//! Text that must not be shown.

use std::fmt;

use serde::{Deserialize, Serialize};
use zeroize::Zeroize;

/// A secret text: erased from memory when dropped, never printed by `Debug`, and without
/// `Display`. [`Secret::expose`] is the one way to the text, so its uses are easily found.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Secret(String);

impl Secret {
    /// Wraps a text.
    pub fn new(text: impl Into<String>) -> Self {
        Self(text.into())
    }

    /// The text itself.
    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl Drop for Secret {
    fn drop(&mut self) {
        self.0.zeroize();
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret(***)")
    }
}

/// A user name and its password.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Credentials {
    /// The user name; it has no colon.
    pub username: String,
    /// The password.
    pub password: Secret,
}

impl Credentials {
    /// Both as HTTP Basic and forms have them: `user:password`.
    pub fn joined(&self) -> Secret {
        Secret::new(format!("{}:{}", self.username, self.password.expose()))
    }
}
