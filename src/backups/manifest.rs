//! Manifests as they are stored: JSON, for people too.

use bytes::Bytes;
use serde::Deserialize;

use crate::model::backup::{MANIFEST_FORMAT, Manifest};

/// A manifest in the form that is stored.
pub(super) fn to_json(manifest: &Manifest) -> Bytes {
    let mut text = serde_json::to_vec_pretty(manifest)
        .expect("a manifest has only text keys and writing to memory does not fail");
    text.push(b'\n');
    text.into()
}

/// The manifest that `text` is; else the reason why it is none.
pub(super) fn parse(text: &[u8]) -> Result<Manifest, String> {
    /// Looked at first, since another format need not have the rest.
    #[derive(Deserialize)]
    struct Form {
        format: u32,
    }
    let Form { format } = serde_json::from_slice(text).map_err(|error| error.to_string())?;
    if format != MANIFEST_FORMAT {
        return Err(format!(
            "it has format {format}, and only {MANIFEST_FORMAT} is known"
        ));
    }
    serde_json::from_slice(text).map_err(|error| error.to_string())
}
