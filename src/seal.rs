//! Secrets at rest: a ring of keys, AES-256-GCM.
//!
//! The first key of the ring seals; every key opens, so a key is rotated by putting a new one in
//! front, and by sealing anew what an older one sealed ([`KeyRing::renewed`]). What is sealed is bound to its place (`context`), so that one row's secret cannot be
//! moved into another row.

use base64::{Engine as _, engine::general_purpose::STANDARD as BASE64};
use ring::{
    aead::{AES_256_GCM, Aad, LessSafeKey, NONCE_LEN, Nonce, UnboundKey},
    hkdf, hmac,
    rand::{SecureRandom, SystemRandom},
};

use serde::de::DeserializeOwned;
use zeroize::Zeroizing;

use crate::model::{replicas::KeyMark, secret::Secret};

pub mod age;

/// Bytes of one key.
const KEY_BYTES: usize = 32;
/// What a key's mark is made from, so that it is no other use of the key.
const MARK_LABEL: &[u8] = b"compose-broker: mark of a key";
/// Bytes of a mark.
const MARK_BYTES: usize = 8;

/// Why something sealed could not be opened, or a ring not be read.
#[derive(Debug, thiserror::Error)]
pub enum SealError {
    /// The text is not what [`KeyRing::seal`] makes.
    #[error("is not a sealed text")]
    Malformed,
    /// No key of that name is in the ring.
    #[error("was sealed under key {0}, which is not in the key ring")]
    UnknownKey(String),
    /// The bytes or their place were changed.
    #[error("does not open: it was changed, or belongs elsewhere")]
    Forged,
    /// What was sealed is of another form than is asked for.
    #[error("opens, and is not what it should be")]
    Unreadable(#[source] serde_json::Error),
    /// The ring itself.
    #[error("the key ring is not a list of name:base64 of 32 bytes, separated by commas")]
    Ring,
    /// The system gave no random bytes.
    #[error("the system gives no random bytes")]
    Random,
}

struct RingKey {
    name: String,
    aead: LessSafeKey,
    material: [u8; KEY_BYTES],
}

/// The keys, newest first.
pub struct KeyRing {
    keys: Vec<RingKey>,
    random: SystemRandom,
}

impl std::fmt::Debug for KeyRing {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let names: Vec<&str> = self.keys.iter().map(|k| k.name.as_str()).collect();
        f.debug_struct("KeyRing").field("names", &names).finish()
    }
}

impl KeyRing {
    /// Reads a ring: `name:base64,name:base64`, newest first. A name has letters, digits, `-`, `_`.
    pub fn parse(text: &str) -> Result<Self, SealError> {
        let mut keys: Vec<RingKey> = Vec::new();
        for entry in text.split(',').map(str::trim).filter(|e| !e.is_empty()) {
            let (name, key) = entry.split_once(':').ok_or(SealError::Ring)?;
            let plain = |c: char| c.is_ascii_alphanumeric() || c == '-' || c == '_';
            if name.is_empty() || !name.chars().all(plain) || keys.iter().any(|k| k.name == name) {
                return Err(SealError::Ring);
            }
            let material: [u8; KEY_BYTES] = BASE64
                .decode(key.trim())
                .ok()
                .and_then(|bytes| bytes.try_into().ok())
                .ok_or(SealError::Ring)?;
            let unbound = UnboundKey::new(&AES_256_GCM, &material).map_err(|_| SealError::Ring)?;
            keys.push(RingKey {
                name: name.to_owned(),
                aead: LessSafeKey::new(unbound),
                material,
            });
        }
        if keys.is_empty() {
            return Err(SealError::Ring);
        }
        Ok(Self {
            keys,
            random: SystemRandom::new(),
        })
    }

    /// A ring of one new key, as text for [`KeyRing::parse`].
    pub fn generate() -> Result<Secret, SealError> {
        let mut key = [0u8; KEY_BYTES];
        SystemRandom::new()
            .fill(&mut key)
            .map_err(|_| SealError::Random)?;
        Ok(Secret::new(format!("k1:{}", BASE64.encode(key))))
    }

    /// Its keys as other brokers are shown them, newest first.
    pub fn marks(&self) -> Vec<KeyMark> {
        let mark = |key: &RingKey| {
            let secret = hmac::Key::new(hmac::HMAC_SHA256, &key.material);
            let digest = hmac::sign(&secret, MARK_LABEL);
            KeyMark {
                name: key.name.clone(),
                digest: hex(&digest.as_ref()[..MARK_BYTES]),
            }
        };
        self.keys.iter().map(mark).collect()
    }

    /// The name of the first key, which seals.
    pub fn first(&self) -> &str {
        &self.keys[0].name
    }

    /// Whether the ring has a key of that name.
    pub fn has(&self, name: &str) -> bool {
        self.keys.iter().any(|key| key.name == name)
    }

    /// Whether a sealed or signed text is under the first key; also where there is none.
    pub fn is_under_first(&self, sealed: Option<&str>) -> bool {
        sealed.is_none_or(|sealed| key_of(sealed) == Some(self.first()))
    }

    /// Seals `plain` for the place `context`.
    pub fn seal(&self, context: &str, plain: &[u8]) -> Result<String, SealError> {
        let key = &self.keys[0];
        let mut nonce = [0u8; NONCE_LEN];
        self.random
            .fill(&mut nonce)
            .map_err(|_| SealError::Random)?;
        let mut bytes = plain.to_vec();
        key.aead
            .seal_in_place_append_tag(
                Nonce::assume_unique_for_key(nonce),
                Aad::from(context.as_bytes()),
                &mut bytes,
            )
            .map_err(|_| SealError::Random)?;
        let mut sealed = nonce.to_vec();
        sealed.append(&mut bytes);
        Ok(format!("{}:{}", key.name, BASE64.encode(sealed)))
    }

    /// Opens what was sealed for the same `context`.
    pub fn open(&self, context: &str, sealed: &str) -> Result<Vec<u8>, SealError> {
        let (name, bytes) = sealed.split_once(':').ok_or(SealError::Malformed)?;
        let key = self
            .keys
            .iter()
            .find(|k| k.name == name)
            .ok_or_else(|| SealError::UnknownKey(name.to_owned()))?;
        let bytes = BASE64.decode(bytes).map_err(|_| SealError::Malformed)?;
        let (nonce, cipher) = bytes
            .split_at_checked(NONCE_LEN)
            .ok_or(SealError::Malformed)?;
        let nonce = Nonce::try_assume_unique_for_key(nonce).map_err(|_| SealError::Malformed)?;
        let mut buffer = cipher.to_vec();
        let length = key
            .aead
            .open_in_place(nonce, Aad::from(context.as_bytes()), &mut buffer)
            .map_err(|_| SealError::Forged)?
            .len();
        buffer.truncate(length);
        Ok(buffer)
    }

    /// Opens what was sealed as JSON for this place.
    pub fn open_as<T: DeserializeOwned>(
        &self,
        context: &str,
        sealed: &str,
    ) -> Result<T, SealError> {
        let plain = self.open(context, sealed)?;
        serde_json::from_slice(&plain).map_err(SealError::Unreadable)
    }

    /// The same secret under the first key; none when it is under that one already.
    pub fn renewed(&self, context: &str, sealed: &str) -> Result<Option<String>, SealError> {
        if self.is_under_first(Some(sealed)) {
            return Ok(None);
        }
        let plain = self.open(context, sealed)?;
        self.seal(context, &plain).map(Some)
    }

    /// Signs `message` for `purpose` (hex). Signatures of every key of the ring are accepted by
    /// [`KeyRing::verify`].
    pub fn sign(&self, purpose: &str, message: &str) -> String {
        hex(hmac::sign(&signing_key(&self.keys[0], purpose), message.as_bytes()).as_ref())
    }

    /// Whether `signature` was made by [`KeyRing::sign`] for the same purpose and message.
    pub fn verify(&self, purpose: &str, message: &str, signature: &str) -> bool {
        let Some(signature) = unhex(signature) else {
            return false;
        };
        self.keys.iter().any(|key| {
            hmac::verify(&signing_key(key, purpose), message.as_bytes(), &signature).is_ok()
        })
    }
}

impl KeyRing {
    /// Signs as [`KeyRing::sign`] does, with the name of the key in front: `name:hex`.
    pub fn sign_named(&self, purpose: &str, message: &str) -> String {
        format!("{}:{}", self.first(), self.sign(purpose, message))
    }

    /// Fails when `signature` was not made by [`KeyRing::sign_named`] under a key of the ring, for the same
    /// purpose and message.
    pub fn verify_named(
        &self,
        purpose: &str,
        message: &str,
        signature: &str,
    ) -> Result<(), SealError> {
        let (name, digits) = signature.split_once(':').ok_or(SealError::Malformed)?;
        let key = self.keys.iter().find(|key| key.name == name);
        let key = key.ok_or_else(|| SealError::UnknownKey(name.to_owned()))?;
        let made = unhex(digits).ok_or(SealError::Malformed)?;
        if hex(&made) != digits {
            // Other letters for the same digits: the text was changed.
            return Err(SealError::Malformed);
        }
        hmac::verify(&signing_key(key, purpose), message.as_bytes(), &made)
            .map_err(|_| SealError::Forged)
    }
}

/// The name of the key that a text was sealed or signed under; none where it has none in front.
pub fn key_of(sealed: &str) -> Option<&str> {
    sealed.split_once(':').map(|(name, _)| name)
}

/// A key that seals one thing and is kept sealed under the ring. It is erased from memory when dropped.
pub struct OneUseKey(Zeroizing<[u8; KEY_BYTES]>);

impl OneUseKey {
    /// A new one.
    pub fn generate() -> Result<Self, SealError> {
        let mut key = Zeroizing::new([0; KEY_BYTES]);
        SystemRandom::new()
            .fill(&mut *key)
            .map_err(|_| SealError::Random)?;
        Ok(Self(key))
    }

    /// The one that these bytes are.
    pub fn from_bytes(bytes: Vec<u8>) -> Result<Self, SealError> {
        let bytes = Zeroizing::new(bytes);
        let key: [u8; KEY_BYTES] = bytes[..].try_into().map_err(|_| SealError::Malformed)?;
        Ok(Self(Zeroizing::new(key)))
    }

    /// Its bytes.
    pub fn bytes(&self) -> &[u8] {
        &self.0[..]
    }
}

/// A key of its own for each purpose, so that no signature serves for another.
fn signing_key(key: &RingKey, purpose: &str) -> hmac::Key {
    let info = [b"sign ", purpose.as_bytes()];
    hkdf::Salt::new(hkdf::HKDF_SHA256, b"compose-broker")
        .extract(&key.material)
        .expand(&info, hmac::HMAC_SHA256)
        .expect("a key of the hash's own length can always be derived")
        .into()
}

/// New random text of 256 bits, safe in URLs, for passwords and tokens.
pub fn random_secret() -> Result<Secret, SealError> {
    let mut bytes = [0u8; 32];
    SystemRandom::new()
        .fill(&mut bytes)
        .map_err(|_| SealError::Random)?;
    Ok(Secret::new(
        base64::engine::general_purpose::URL_SAFE_NO_PAD.encode(bytes),
    ))
}

/// SHA-256 of a text (hex): how tokens are kept.
pub fn fingerprint(text: &str) -> String {
    hex(ring::digest::digest(&ring::digest::SHA256, text.as_bytes()).as_ref())
}

/// Bytes as lower-case hexadecimal digits.
pub fn hex(bytes: &[u8]) -> String {
    use std::fmt::Write as _;
    bytes
        .iter()
        .fold(String::with_capacity(bytes.len() * 2), |mut text, byte| {
            write!(text, "{byte:02x}").expect("writing to a string does not fail");
            text
        })
}

fn unhex(text: &str) -> Option<Vec<u8>> {
    if !text.is_ascii() || !text.len().is_multiple_of(2) {
        return None;
    }
    (0..text.len())
        .step_by(2)
        .map(|i| u8::from_str_radix(&text[i..i + 2], 16).ok())
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ring(text: &str) -> KeyRing {
        KeyRing::parse(text).expect("a ring")
    }

    #[test]
    fn what_is_sealed_opens_in_its_place_only() {
        let keys = ring(KeyRing::generate().expect("random").expose());
        let sealed = keys.seal("deployment 1", b"root password").expect("sealed");
        assert!(!sealed.contains("root"));
        assert_eq!(
            keys.open("deployment 1", &sealed).expect("opens"),
            b"root password"
        );
        assert!(matches!(
            keys.open("deployment 2", &sealed),
            Err(SealError::Forged)
        ));
        assert!(matches!(
            keys.open("deployment 1", "k1:AAAA"),
            Err(SealError::Malformed)
        ));
    }

    #[test]
    fn a_rotated_ring_opens_what_the_old_key_sealed() {
        let old = BASE64.encode([1u8; 32]);
        let new = BASE64.encode([2u8; 32]);
        let sealed = ring(&format!("old:{old}")).seal("c", b"x").expect("sealed");
        let rotated = ring(&format!("new:{new},old:{old}"));
        assert_eq!(rotated.open("c", &sealed).expect("opens"), b"x");
        assert!(rotated.seal("c", b"x").expect("sealed").starts_with("new:"));
        let other = ring(&format!("new:{new}"));
        assert!(
            matches!(other.open("c", &sealed), Err(SealError::UnknownKey(name)) if name == "old")
        );
    }

    #[test]
    fn signatures_hold_for_one_purpose_and_message() {
        let keys = ring(&format!("k:{}", BASE64.encode([7u8; 32])));
        let signature = keys.sign("download", "backup 1");
        assert!(keys.verify("download", "backup 1", &signature));
        assert!(!keys.verify("download", "backup 2", &signature));
        assert!(!keys.verify("session", "backup 1", &signature));
        assert!(!keys.verify("download", "backup 1", "zz"));
        assert!(!keys.verify("download", "backup 1", "é"));
    }

    #[test]
    fn a_signature_that_names_its_key_holds_for_that_key() {
        let key = |name: &str, byte: u8| format!("{name}:{}", BASE64.encode([byte; 32]));
        let old = ring(&key("old", 1));
        let signature = old.sign_named("p", "m");
        assert!(signature.starts_with("old:"), "{signature}");
        let rotated = ring(&format!("{},{}", key("new", 2), key("old", 1)));
        assert!(rotated.verify_named("p", "m", &signature).is_ok());
        assert!(!rotated.is_under_first(Some(&signature)));
        assert!(old.is_under_first(Some(&signature)));
        for (purpose, message, made) in [
            ("p", "other", signature.clone()),
            ("other", "m", signature.clone()),
            ("p", "m", signature.replacen("old", "new", 1)),
            ("p", "m", signature.to_uppercase().replacen("OLD", "old", 1)),
            ("p", "m", "old:".to_owned()),
            ("p", "m", "old".to_owned()),
        ] {
            let checked = rotated.verify_named(purpose, message, &made);
            assert!(checked.is_err(), "{purpose} {message} {made}");
        }
        let other = ring(&key("new", 2)).verify_named("p", "m", &signature);
        assert!(matches!(other, Err(SealError::UnknownKey(name)) if name == "old"));
    }

    #[test]
    fn a_broken_ring_is_refused() {
        for text in ["", "k1", "k1:AAAA", "k 1:AAAA", ","] {
            assert!(KeyRing::parse(text).is_err(), "{text}");
        }
    }
}
