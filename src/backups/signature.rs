//! What is signed of the texts that stand beside backups: all that they say, whatever order or spaces they are written
//! with, but for what does not count. So a field that a later version adds is signed as well, for a reader that does
//! not know it.

use ring::digest::{SHA256, digest};
use serde::Serialize;
use serde_json::Value;

use crate::seal::hex;

/// What is known of who signed what stands beside backups.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Signature {
    /// A broker with this key.
    Good(String),
    /// It was not looked at: there was no ring, or not with this key.
    Unchecked(String),
    /// There is none, as beside backups of earlier versions.
    None,
}

/// What is signed of a JSON text, but for these of its fields; else what is wrong with the text.
pub(super) fn signed_text(text: &[u8], without: &[&str]) -> Result<String, String> {
    let told: Value = serde_json::from_slice(text).map_err(|error| error.to_string())?;
    Ok(plain(told, without))
}

/// The same of what is not written yet.
pub(super) fn signed_text_of(told: &impl Serialize, without: &[&str]) -> String {
    let told = serde_json::to_value(told)
        .expect("it has only text keys and writing to memory does not fail");
    plain(told, without)
}

/// The SHA-256 (hex) of what is signed.
pub(super) fn digest_of(signed: &str) -> String {
    hex(digest(&SHA256, signed.as_bytes()).as_ref())
}

/// In one form: no spaces, and fields in the order of their names.
fn plain(mut told: Value, without: &[&str]) -> String {
    if let Some(fields) = told.as_object_mut() {
        for field in without {
            fields.remove(*field);
        }
    }
    let mut text = String::new();
    write_plainly(&told, &mut text);
    text
}

fn write_plainly(value: &Value, into: &mut String) {
    match value {
        Value::Object(fields) => {
            let mut fields: Vec<(&String, &Value)> = fields.iter().collect();
            fields.sort_unstable_by_key(|(name, _)| *name);
            into.push('{');
            for (i, (name, value)) in fields.into_iter().enumerate() {
                if i > 0 {
                    into.push(',');
                }
                into.push_str(&Value::from(name.as_str()).to_string());
                into.push(':');
                write_plainly(value, into);
            }
            into.push('}');
        }
        Value::Array(values) => {
            into.push('[');
            for (i, value) in values.iter().enumerate() {
                if i > 0 {
                    into.push(',');
                }
                write_plainly(value, into);
            }
            into.push(']');
        }
        other => into.push_str(&other.to_string()),
    }
}
