//! Identifiers.
//!
//! Two families: ids that a platform chose (any non-empty text up to
//! [`PLATFORM_ID_BYTES_MAX`]) and ids of our own, 24
//! lower-case hexadecimal digits as the Compose API has them. Platform ids never become part of a
//! path, a program argument or a name in an engine: our own ids do.

use std::fmt;

use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};

use super::limits::PLATFORM_ID_BYTES_MAX;

/// What ids begin with that stand for deleted instances.
const DELETED: &str = "deleted:";

/// Why a text is no id.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum IdError {
    /// The text is empty.
    #[error("is empty")]
    Empty,
    /// The text has more bytes than we keep.
    #[error("is longer than {PLATFORM_ID_BYTES_MAX} bytes")]
    TooLong,
    /// The text has a control character.
    #[error("contains a control character")]
    ControlCharacter,
    /// The text is not 24 hexadecimal digits.
    #[error("is not 24 hexadecimal digits")]
    NotHex,
}

macro_rules! platform_id {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
        #[serde(try_from = "String", into = "String")]
        pub struct $name(String);

        impl TryFrom<String> for $name {
            type Error = IdError;

            fn try_from(text: String) -> Result<Self, IdError> {
                if text.is_empty() {
                    Err(IdError::Empty)
                } else if text.len() > PLATFORM_ID_BYTES_MAX {
                    Err(IdError::TooLong)
                } else if text.chars().any(char::is_control) {
                    Err(IdError::ControlCharacter)
                } else {
                    Ok(Self(text))
                }
            }
        }

        impl $name {
            /// The id as one part of a URL's path: all but letters, digits and `-_~.` as `%XX`.
            pub fn in_path(&self) -> String {
                let part = |byte: u8| match byte {
                    b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'_' | b'~' | b'.' => {
                        char::from(byte).to_string()
                    }
                    _ => format!("%{byte:02X}"),
                };
                self.0.bytes().map(part).collect()
            }
        }

        impl_text!($name);
    };
}

macro_rules! own_id {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
        #[serde(try_from = "String", into = "String")]
        pub struct $name(String);

        impl $name {
            /// A new id: `now` in front, so that ids sort by age, then 48 random bits. The time is its second in
            /// four bytes, as in ids of the Compose API, and in two more the part of the second that has passed,
            /// in steps of 15 µs.
            pub fn generate(now: DateTime<Utc>) -> Self {
                let seconds = u32::try_from(now.timestamp()).unwrap_or(u32::MAX);
                // A leap second is told as more than the whole of the one before it.
                let part = (u64::from(now.timestamp_subsec_nanos()) << 16) / 1_000_000_000;
                let part = u16::try_from(part).unwrap_or(u16::MAX);
                let (_, random) = uuid::Uuid::new_v4().as_u64_pair();
                Self(format!("{seconds:08x}{part:04x}{:012x}", random & 0xffff_ffff_ffff))
            }

            /// When it was made, to the second.
            pub fn made_at(&self) -> DateTime<Utc> {
                let seconds = u32::from_str_radix(&self.0[..8], 16).unwrap_or_default();
                DateTime::from_timestamp(seconds.into(), 0).unwrap_or_default()
            }
        }

        impl TryFrom<String> for $name {
            type Error = IdError;

            fn try_from(text: String) -> Result<Self, IdError> {
                let hex = |byte: u8| byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte);
                if text.len() == 24 && text.bytes().all(hex) {
                    Ok(Self(text))
                } else {
                    Err(IdError::NotHex)
                }
            }
        }

        impl_text!($name);
    };
}

macro_rules! impl_text {
    ($name:ident) => {
        impl $name {
            /// The id as text.
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }

        impl From<$name> for String {
            fn from(id: $name) -> String {
                id.0
            }
        }

        impl std::str::FromStr for $name {
            type Err = IdError;

            fn from_str(text: &str) -> Result<Self, IdError> {
                Self::try_from(text.to_owned())
            }
        }
    };
}

platform_id!(
    /// A service instance, as the platform names it (OSB `instance_id`).
    InstanceId
);
impl InstanceId {
    /// A new id for an instance that no platform asked for, of the form that platforms use.
    pub fn generate() -> Self {
        Self(uuid::Uuid::new_v4().to_string())
    }

    /// What stands for a deleted instance where its backups are kept: no platform's id
    /// ([`Self::is_of_deleted`]).
    pub fn of_deleted(deployment: &DeploymentId) -> Self {
        Self(format!("{DELETED}{deployment}"))
    }

    /// Whether it is such an id; nothing is made under one.
    pub fn is_of_deleted(&self) -> bool {
        self.0.starts_with(DELETED)
    }
}
platform_id!(
    /// A service binding, as the platform names it (OSB `binding_id`). Unique within its instance.
    BindingId
);
impl BindingId {
    /// A new id for a binding that no platform asked for, of the form that platforms use.
    pub fn generate() -> Self {
        Self(uuid::Uuid::new_v4().to_string())
    }
}

own_id!(
    /// The database cluster behind one instance.
    DeploymentId
);
own_id!(
    /// A backup.
    BackupId
);
own_id!(
    /// A file of what a member printed. Not a new one each time: made of what the file is.
    LogfileId
);
own_id!(
    /// What stands in the marker of a folder that the broker keeps things in.
    FolderMark
);
own_id!(
    /// A part of an upload.
    PartId
);
own_id!(
    /// A message to the operator's webhook.
    MessageId
);
own_id!(
    /// A durable operation: OSB's `operation` token and Compose's recipe id are this same id.
    OperationId
);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn own_ids_are_24_hex_digits_and_sort_by_age() {
        let at = |s, nanos| DateTime::from_timestamp(s, nanos).expect("a valid time");
        let older = BackupId::generate(at(1_700_000_000, 0));
        for newer in [
            at(1_700_000_000, 1_000_000),
            at(1_700_000_000, 999_999_999),
            at(1_700_000_001, 0),
        ] {
            let id = BackupId::generate(newer);
            assert!(older < id, "{newer}");
            assert_eq!(id.made_at().timestamp(), newer.timestamp());
        }
        // 23:59:60, a leap second.
        let last = BackupId::generate(at(1_700_000_039, 1_500_000_000));
        assert!(last < BackupId::generate(at(1_700_000_040, 0)));
        assert_eq!(older.as_str().parse::<BackupId>(), Ok(older));
        assert_eq!("../../etc/passwd".parse::<BackupId>(), Err(IdError::NotHex));
        assert_eq!(
            "5AE85B45E5717F0001533192".parse::<BackupId>(),
            Err(IdError::NotHex)
        );
    }

    #[test]
    fn platform_ids_are_any_text_without_control_characters_up_to_the_cap() {
        for good in ["a/b", "..", "🦀", "0269e284-dcac-4618-89a7-f79e3f1cea6a"] {
            assert!(good.parse::<InstanceId>().is_ok(), "{good}");
        }
        let hostile: InstanceId = "a/b ?é".parse().expect("an id");
        assert_eq!(hostile.in_path(), "a%2Fb%20%3F%C3%A9");
        assert_eq!("".parse::<InstanceId>(), Err(IdError::Empty));
        assert_eq!("a\0b".parse::<InstanceId>(), Err(IdError::ControlCharacter));
        assert_eq!(
            "x".repeat(5000).parse::<InstanceId>(),
            Err(IdError::TooLong)
        );
    }
}
