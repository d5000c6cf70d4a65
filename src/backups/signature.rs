//! What is signed of the texts that stand beside backups: all that they say, whatever order or spaces they are written
//! with, but for what does not count. So a field that a later version adds is signed as well, for a reader that does
//! not know it.

use bytes::Bytes;
use ring::digest::{SHA256, digest};
use serde::Serialize;
use serde_json::Value;

use crate::seal::{KeyRing, SealError, hex};

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

/// What stands beside backups with its signature.
pub(super) trait Signed: Serialize {
    /// What its signatures are made for: none is good for anything else.
    const PURPOSE: &'static str;
    /// Its fields that are not signed; one of them is the signature.
    const UNSIGNED: &'static [&'static str];

    /// Its signature; none where it has none.
    fn signature(&self) -> Option<&str>;

    /// The same with this signature.
    fn with_signature(self, signature: String) -> Self;
}

/// Why a text is nothing that can be used.
#[derive(Debug)]
pub(super) enum Unfit {
    /// It is not what it should be.
    Form(String),
    /// Something in it does not open, or was not signed by this ring.
    Seal(&'static str, SealError),
}

/// The form that is stored: JSON, for people too.
pub(super) fn to_json(document: &impl Signed) -> Bytes {
    let mut text = serde_json::to_vec_pretty(document)
        .expect("it has only text keys and writing to memory does not fail");
    text.push(b'\n');
    text.into()
}

/// The same document, signed under the ring's first key.
pub(super) fn signed<D: Signed>(document: D, keys: &KeyRing) -> D {
    let signature = keys.sign_named(D::PURPOSE, &signed_text_of(&document));
    document.with_signature(signature)
}

/// Fails unless the signature in `text`, which is that document, was made by a key of the ring.
pub(super) fn check_signature<D: Signed>(
    text: &[u8],
    document: &D,
    keys: &KeyRing,
) -> Result<(), Unfit> {
    let Some(signature) = document.signature() else {
        return Err(Unfit::Form("it is not signed".to_owned()));
    };
    let signed = signed_text::<D>(text).map_err(Unfit::Form)?;
    keys.verify_named(D::PURPOSE, &signed, signature)
        .map_err(|error| Unfit::Seal("its signature", error))
}

/// What is signed of the text of a document; else what is wrong with the text.
pub(super) fn signed_text<D: Signed>(text: &[u8]) -> Result<String, String> {
    let read: Value = serde_json::from_slice(text).map_err(|error| error.to_string())?;
    Ok(plain(read, D::UNSIGNED))
}

/// The same of what is not written yet.
pub(super) fn signed_text_of<D: Signed>(document: &D) -> String {
    let written = serde_json::to_value(document)
        .expect("it has only text keys and writing to memory does not fail");
    plain(written, D::UNSIGNED)
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
