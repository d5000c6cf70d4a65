//! Whose permission a link carries on. A link ends with it.

use std::{fmt, str::FromStr};

/// Who made a link.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Holder {
    /// Somebody with a token of the administration API, by its fingerprint.
    Token(String),
    /// Somebody with a session of the dashboard, by the fingerprint of its cookie.
    Session(String),
    /// Somebody with the credentials that platforms use, by the fingerprint of the broker's mark of them.
    Operator(String),
}

impl fmt::Display for Holder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (kind, fingerprint) = match self {
            Self::Token(fingerprint) => ('t', fingerprint),
            Self::Session(fingerprint) => ('s', fingerprint),
            Self::Operator(fingerprint) => ('o', fingerprint),
        };
        write!(f, "{kind}{fingerprint}")
    }
}

/// What is no holder.
#[derive(Debug, thiserror::Error)]
#[error("is no holder of a link")]
pub struct HolderError;

impl FromStr for Holder {
    type Err = HolderError;

    fn from_str(text: &str) -> Result<Self, HolderError> {
        let mut chars = text.chars();
        let kind = chars.next();
        let fingerprint = chars.as_str().to_owned();
        match kind {
            Some('t') => Ok(Self::Token(fingerprint)),
            Some('s') => Ok(Self::Session(fingerprint)),
            Some('o') => Ok(Self::Operator(fingerprint)),
            _ => Err(HolderError),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn holders_are_read_back() {
        for holder in [
            Holder::Token("ab".into()),
            Holder::Session("ab".into()),
            Holder::Operator("ab".into()),
        ] {
            assert_eq!(
                holder.to_string().parse::<Holder>().expect("a holder"),
                holder
            );
        }
        assert!("".parse::<Holder>().is_err() && "xab".parse::<Holder>().is_err());
    }
}
