//! Manifests as they are stored: JSON, for people too, and signed.
//!
//! A signature is over all that a manifest says, but for the signature itself and what is sealed: that shows by
//! itself, when it is opened, whether it was changed.

use serde::Deserialize;

use super::{
    cipher::{Identity, ObjectKey},
    signature::{Signed, Unfit, check_signature, digest_of, signed, signed_text, signed_text_of},
};
use crate::{
    model::backup::{MANIFEST_FORMAT, MANIFEST_FORMAT_CLEAR, MANIFEST_FORMAT_TENANT, Manifest},
    seal::{KeyRing, SealError},
};

#[cfg(test)]
mod tests;

impl Signed for Manifest {
    const PURPOSE: &'static str = "backup manifest";
    const UNSIGNED: &'static [&'static str] = &["signature", "sealed_key", "sealed_credentials"];

    fn signature(&self) -> Option<&str> {
        self.signature.as_deref()
    }

    fn with_signature(self, signature: String) -> Self {
        Self {
            signature: Some(signature),
            ..self
        }
    }
}

/// The manifest that `text` is; else the reason why it is none. Its signature is not looked at.
pub(super) fn parse(text: &[u8]) -> Result<Manifest, String> {
    /// Looked at first, since another format need not have the rest.
    #[derive(Deserialize)]
    struct Form {
        format: u32,
    }
    let Form { format } = serde_json::from_slice(text).map_err(|error| error.to_string())?;
    if !(MANIFEST_FORMAT_CLEAR..=MANIFEST_FORMAT_TENANT).contains(&format) {
        return Err(format!(
            "it has format {format}, and only {MANIFEST_FORMAT_CLEAR}, {MANIFEST_FORMAT} and \
             {MANIFEST_FORMAT_TENANT} are known"
        ));
    }
    let manifest: Manifest = serde_json::from_slice(text).map_err(|error| error.to_string())?;
    if manifest.stored.manifest_format() != format {
        return Err("its format is not that of the object that it tells of".to_owned());
    }
    let is_for_tenant = format == MANIFEST_FORMAT_TENANT;
    if manifest.sealed_for.is_some() != is_for_tenant
        || manifest.sealed_key.is_some() && is_for_tenant
    {
        return Err("what it says of the key to its object is not of its format".to_owned());
    }
    Ok(manifest)
}

/// Fails unless it is certain that the broker wrote this manifest, which is `text`, as it is. What an earlier
/// version wrote has no signature, and is believed.
pub(super) fn check_own(text: &[u8], manifest: &Manifest, keys: &KeyRing) -> Result<(), Unfit> {
    if manifest.format == MANIFEST_FORMAT_CLEAR {
        return Ok(());
    }
    check_signature(text, manifest, keys)?;
    let Some(sealed) = &manifest.sealed_credentials else {
        return Err(Unfit::Form("it has no sealed credentials".to_owned()));
    };
    keys.open(&manifest.seal_context(), sealed)
        .map_err(|error| Unfit::Seal("its text of sealed credentials", error))?;
    match manifest.sealed_for {
        // The tenant has the key, and the signature covers what it is wrapped in.
        Some(_) => Ok(()),
        None => object_key(manifest, keys).map(drop),
    }
}

/// What tells a manifest, which is `text`, from an older one of the same backup: the same whatever key it is signed
/// under. None where it is not signed.
pub(super) fn digest(text: &[u8], manifest: &Manifest) -> Option<String> {
    let signed = signed_text::<Manifest>(text).ok()?;
    (manifest.format != MANIFEST_FORMAT_CLEAR).then(|| digest_of(&signed))
}

/// The same of a manifest that the broker's store knows.
pub(super) fn digest_of_known(manifest: &Manifest) -> Option<String> {
    let signed = signed_text_of(manifest);
    (manifest.format != MANIFEST_FORMAT_CLEAR).then(|| digest_of(&signed))
}

/// The key that opens the object of a manifest.
pub(super) fn object_key(manifest: &Manifest, keys: &KeyRing) -> Result<ObjectKey, Unfit> {
    let Some(sealed) = &manifest.sealed_key else {
        return Err(Unfit::Form("it has no key to its object".to_owned()));
    };
    ObjectKey::open(keys, &Identity::from(manifest), sealed)
        .map_err(|error| Unfit::Seal("the key to its object", error))
}

/// What others than the broker are shown of a manifest, signed.
pub(super) fn shown(manifest: &Manifest, keys: &KeyRing) -> Manifest {
    signed(manifest.bare(), keys)
}

/// The same manifest with all that it has of the ring's under the first key; none where it is so already.
pub(super) fn renewed(manifest: &Manifest, keys: &KeyRing) -> Result<Option<Manifest>, SealError> {
    let renewed = |context: &str, sealed: &Option<String>| match sealed {
        Some(sealed) => keys.renewed(context, sealed),
        None => Ok(None),
    };
    let of = Identity::from(manifest);
    let key = renewed(&of.key_context(), &manifest.sealed_key)?;
    let credentials = renewed(&manifest.seal_context(), &manifest.sealed_credentials)?;
    let is_signed = manifest.signature.is_some();
    let signs_anew = is_signed && !keys.is_under_first(manifest.signature.as_deref());
    if key.is_none() && credentials.is_none() && !signs_anew {
        return Ok(None);
    }
    let renewed = Manifest {
        sealed_key: key.or_else(|| manifest.sealed_key.clone()),
        sealed_credentials: credentials.or_else(|| manifest.sealed_credentials.clone()),
        ..manifest.clone()
    };
    Ok(Some(if is_signed {
        signed(renewed, keys)
    } else {
        renewed
    }))
}
