//! The tenant's own key: the public one that backups are sealed for, and the private one that a restore brings along.
//!
//! A private key is taken out of a request before anything keeps, compares or repeats its parameters. What is kept of
//! it is the key of one backup that it opens, sealed for the operation that restores it.

use serde_json::Value;

use super::{
    BrokerError,
    refusal::{Refusal, RuleError},
};
use crate::{
    model::{
        backup::Manifest,
        instance::BACKUP_PUBLIC_KEY,
        limits::tenant_key::PRIVATE_KEY_BYTES_MAX,
        operation::{Operation, RestoreSource},
        secret::Secret,
    },
    seal::{
        KeyRing, SealError,
        age::{FileKey, PrivateKeyError, PrivateKeys, Recipient, holds_private_key},
    },
};

/// The parameter of a restore with the tenant's private key.
pub const BACKUP_PRIVATE_KEY: &str = "backup_private_key";

/// The private key that a restore brings along.
#[derive(Debug, Clone, Default)]
pub enum PrivateKey {
    /// None.
    #[default]
    Absent,
    /// This text.
    Given(Secret),
    /// It comes with the restore itself, which this only rehearses.
    Later,
}

impl From<Option<Secret>> for PrivateKey {
    /// An empty text is none: forms and templates send that.
    fn from(given: Option<Secret>) -> Self {
        match given.filter(|key| !key.expose().trim().is_empty()) {
            Some(key) => Self::Given(key),
            None => Self::Absent,
        }
    }
}

/// Parameters without the private key among them, and that. Fails where there is one in another place.
pub fn without_private_key(
    parameters: Option<Value>,
) -> Result<(Option<Value>, PrivateKey), BrokerError> {
    let Some(Value::Object(mut fields)) = parameters else {
        return Ok((parameters, PrivateKey::Absent));
    };
    let key = match fields.remove(BACKUP_PRIVATE_KEY) {
        None | Some(Value::Null) => PrivateKey::Absent,
        Some(Value::String(key)) if key.len() <= PRIVATE_KEY_BYTES_MAX => {
            Some(Secret::new(key)).into()
        }
        // The schema itself never sees it.
        Some(_) => {
            return Err(BrokerError::BadRequest(format!(
                "the parameters do not fit the plan's schema: {BACKUP_PRIVATE_KEY} is no text of at most \
                 {PRIVATE_KEY_BYTES_MAX} bytes"
            )));
        }
    };
    let rest = Value::Object(fields);
    refuse_private_key(&rest)?;
    Ok((Some(rest), key))
}

/// Fails, and does not repeat it, where there is a private key among parameters: they are kept and shown.
pub(super) fn refuse_private_key(parameters: &Value) -> Result<(), BrokerError> {
    let Some(name) = place_of_private_key(parameters) else {
        return Ok(());
    };
    Err(BrokerError::BadRequest(match name {
        BACKUP_PUBLIC_KEY => format!(
            "{BACKUP_PUBLIC_KEY}: it is a private key, and belongs to you alone: give the public one, age1..., which \
             age-keygen -y tells. It was not kept; but make another pair if others may have seen the request"
        ),
        name => format!(
            "{name:?} has a private key in it, which belongs into {BACKUP_PRIVATE_KEY} of a restore alone. It was not \
             kept; but make another pair if others may have seen the request"
        ),
    }))
}

/// The name of the parameter that a private key is in, or is itself.
fn place_of_private_key(parameters: &Value) -> Option<&str> {
    fn is_in(value: &Value) -> bool {
        match value {
            Value::String(text) => holds_private_key(text),
            Value::Array(items) => items.iter().any(is_in),
            Value::Object(fields) => fields
                .iter()
                .any(|(name, value)| holds_private_key(name) || is_in(value)),
            Value::Null | Value::Bool(_) | Value::Number(_) => false,
        }
    }
    let mut fields = parameters.as_object()?.iter();
    let (name, _) = fields.find(|(name, value)| holds_private_key(name) || is_in(value))?;
    Some(if holds_private_key(name) {
        "a name"
    } else {
        name
    })
}

/// The public key that parameters name, as it is kept; none where they name none, and within where they take it away.
pub(super) fn public_key(parameters: &Value) -> Result<Option<Option<String>>, BrokerError> {
    let Some(given) = parameters.get(BACKUP_PUBLIC_KEY) else {
        return Ok(None);
    };
    let text = match given {
        Value::Null => "",
        Value::String(text) => text.as_str(),
        _ => {
            return Err(BrokerError::BadRequest(format!(
                "{BACKUP_PUBLIC_KEY} is not a text"
            )));
        }
    };
    if text.is_empty() {
        return Ok(Some(None));
    }
    let recipient = text.parse::<Recipient>();
    let recipient = recipient
        .map_err(|error| BrokerError::BadRequest(format!("{BACKUP_PUBLIC_KEY}: {error}")))?;
    Ok(Some(Some(recipient.to_string())))
}

/// Parameters with the public key that a request for them names; without one where it takes that away.
pub(super) fn with_public_key(mut parameters: Value, named: Option<Option<String>>) -> Value {
    if let (Some(fields), Some(key)) = (parameters.as_object_mut(), named) {
        match key {
            Some(key) => fields.insert(BACKUP_PUBLIC_KEY.to_owned(), key.into()),
            None => fields.remove(BACKUP_PUBLIC_KEY),
        };
    }
    parameters
}

/// The key to what a restore takes its bytes from; none where the broker opens that by itself. Fails where a private
/// key is missing, opens something else, or has nothing to open.
pub(super) fn opened(
    source: Option<&Manifest>,
    key: &PrivateKey,
) -> Result<Option<FileKey>, RuleError> {
    let given = match (source, key) {
        (None, PrivateKey::Given(_)) => return Err(Refusal::KeyWithoutRestore.into()),
        (None, _) | (_, PrivateKey::Later) => return Ok(None),
        (Some(_), PrivateKey::Given(key)) => Some(key),
        (Some(_), PrivateKey::Absent) => None,
    };
    let Some(manifest) = source else {
        return Ok(None);
    };
    let backup = manifest.backup_id.clone();
    let (recipient, given) = match (manifest.recipient(), given) {
        (None, None) => return Ok(None),
        (None, Some(_)) => return Err(Refusal::KeyNotNeeded(backup).into()),
        (Some(recipient), None) => {
            return Err(Refusal::NeedsKey(backup, recipient.to_owned()).into());
        }
        (Some(recipient), Some(given)) => (recipient, given),
    };
    let keys = read(given).map_err(Refusal::UnreadableKey)?;
    match crate::backups::file_key(manifest, &keys) {
        Some(Ok(key)) => Ok(Some(key)),
        Some(Err(_)) | None => Err(Refusal::OtherKey(backup, recipient.to_owned()).into()),
    }
}

fn read(given: &Secret) -> Result<PrivateKeys, PrivateKeyError> {
    let text = given.expose();
    if text.len() > PRIVATE_KEY_BYTES_MAX {
        return Err(PrivateKeyError::Unreadable);
    }
    text.parse()
}

/// What an operation restores: the backup, and the key to it, sealed for that operation.
pub(super) fn source_of(
    operation: &Operation,
    manifest: Manifest,
    key: Option<FileKey>,
    keys: &KeyRing,
) -> Result<RestoreSource, SealError> {
    let sealed = key.map(|key| keys.seal(&operation.key_context(), key.bytes()));
    Ok(RestoreSource {
        sealed_key: sealed.transpose()?,
        ..RestoreSource::of(manifest)
    })
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    const PUBLIC: &str = "age1cy0su9fwf3gf9mw868g5yut09p6nytfmmnktexz2ya5uqg9vl9sss4euqm";
    const PRIVATE: &str =
        "AGE-SECRET-KEY-184JMZMVQH3E6U0PSL869004Y3U2NYV7R30EU99CSEDNPH02YUVFSZW44VU";

    #[test]
    fn a_private_key_is_taken_out_of_its_own_place() {
        let sent = json!({ "units": 1, "backup_private_key": PRIVATE });
        let (rest, key) = without_private_key(Some(sent)).expect("taken");
        assert_eq!(rest, Some(json!({ "units": 1 })));
        assert!(matches!(key, PrivateKey::Given(key) if key.expose() == PRIVATE));
        for none in [
            json!({}),
            json!({ "backup_private_key": null }),
            json!({ "backup_private_key": " " }),
        ] {
            let (rest, key) = without_private_key(Some(none)).expect("taken");
            assert_eq!(rest, Some(json!({})));
            assert!(matches!(key, PrivateKey::Absent));
        }
        assert!(matches!(
            without_private_key(None),
            Ok((None, PrivateKey::Absent))
        ));
    }

    #[test]
    fn a_private_key_in_any_other_place_is_refused_and_not_repeated() {
        for sent in [
            json!({ "backup_public_key": PRIVATE }),
            json!({ "backup_public_key": [PRIVATE] }),
            json!({ "backup_public_key": format!("# created: today\n{PRIVATE}\n") }),
            json!({ "db_version": PRIVATE.to_lowercase() }),
            json!({ "x": { "y": [{ "z": PRIVATE }] } }),
            json!({ PRIVATE: 1 }),
            json!({ "x": { PRIVATE: 1 } }),
            json!({ "backup_private_key": [PRIVATE] }),
            json!({ "backup_private_key": PRIVATE.repeat(60) }),
        ] {
            let refused = without_private_key(Some(sent.clone())).expect_err("refused");
            let told = format!("{refused} {refused:?}").to_uppercase();
            assert!(!told.contains("184JMZMV"), "{sent}: {told}");
        }
    }

    #[test]
    fn an_empty_public_key_takes_the_present_one_away() {
        let named = |value: Value| public_key(&json!({ "backup_public_key": value }));
        assert_eq!(public_key(&json!({})).expect("read"), None);
        assert_eq!(named(json!("")).expect("read"), Some(None));
        assert_eq!(named(json!(null)).expect("read"), Some(None));
        assert_eq!(
            named(json!(PUBLIC)).expect("read"),
            Some(Some(PUBLIC.to_owned()))
        );
        assert!(named(json!(1)).is_err());
        assert!(named(json!("age1")).is_err());
        let with = json!({ "units": 2, "backup_public_key": PUBLIC });
        assert_eq!(with_public_key(with.clone(), None), with);
        assert_eq!(
            with_public_key(with.clone(), Some(None)),
            json!({ "units": 2 })
        );
        let set = with_public_key(json!({ "units": 2 }), Some(Some(PUBLIC.to_owned())));
        assert_eq!(set, with);
    }
}
