//! Sealing for somebody else's key: the file format of age, version 1, for one X25519 recipient.
//!
//! The format is that of <https://c2sp.org/age>. A file begins with a header, in which the file's key is wrapped for
//! the recipient; what follows is sealed under a key that the file's key and a nonce make. So every program that
//! knows age opens it with the private key alone.
//!
//! Our headers have a second stanza, of a type that other programs pass over as the format asks: a hash of the place
//! that the file belongs to. The header's HMAC covers it, so nobody without the file's key moves a file elsewhere.

use std::{fmt, str::FromStr};

use base64::{Engine as _, engine::general_purpose::STANDARD_NO_PAD as BASE64};
use bech32::{Bech32, Hrp, primitives::decode::CheckedHrpstring};
use ring::{
    aead::{Aad, CHACHA20_POLY1305, LessSafeKey, NONCE_LEN, Nonce, UnboundKey},
    digest::{SHA256, digest},
    hkdf, hmac,
    rand::{SecureRandom, SystemRandom},
};
use x25519_dalek::{PublicKey as Point, StaticSecret};
use zeroize::Zeroizing;

#[cfg(test)]
mod tests;

/// The first line of a header.
pub const VERSION_LINE: &str = "age-encryption.org/v1";
/// Bytes between a header and the first frame.
pub const PAYLOAD_NONCE_BYTES: usize = 16;

/// What recipients begin with, before the `1` of bech32.
const RECIPIENT_PREFIX: &str = "age";
/// What private keys begin with.
const PRIVATE_PREFIX: &str = "AGE-SECRET-KEY-";
/// What a file's key is wrapped for.
const WRAP_LABEL: &[u8] = b"age-encryption.org/v1/X25519";
/// The type of the stanza that a file's key is wrapped in.
const RECIPIENT_STANZA: &str = "X25519";
/// The type of the stanza that says where a file belongs.
const PLACE_STANZA: &str = "compose-broker.place";
/// Bytes of a point, and of a private key.
const KEY_BYTES: usize = 32;
/// Bytes of a file's key.
const FILE_KEY_BYTES: usize = 16;
/// Letters of a full line of a stanza's body; a body ends with a shorter one.
const BODY_LINE: usize = 64;
/// A private key by which points are found out that no key makes a secret with.
const PROBE: [u8; KEY_BYTES] = [0x42; KEY_BYTES];

/// Why a text is no public key to seal for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum RecipientError {
    /// It is a private key, which nobody should have seen.
    #[error(
        "it is a private key, and belongs to you alone: give the public one, age1..., which age-keygen -y tells; \
         whatever has seen the private key here may have kept it, so make another pair"
    )]
    Private,
    /// It is of another kind.
    #[error("it is no X25519 key of age: such a key begins with age1 and has 62 characters")]
    Kind,
    /// It was mistyped.
    #[error("its checksum does not fit: a character of it is wrong, or missing")]
    Checksum,
    /// Everybody knows the secret that anybody makes with it.
    #[error("it is no key of anybody: what is sealed for it opens for everybody")]
    LowOrder,
}

/// Why a text holds no private key that is of use.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum PrivateKeyError {
    /// There is none in it.
    #[error("there is no private key of age in it: such a key begins with AGE-SECRET-KEY-1")]
    Nothing,
    /// It was mistyped, or is of another kind.
    #[error(
        "a private key in it cannot be read: a character of it is wrong, or missing, or it is no X25519 key"
    )]
    Unreadable,
}

/// Why a header gives no key away.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum HeaderError {
    /// It is none of the format, or was changed.
    #[error("the header of the sealed file was changed, or belongs elsewhere")]
    Damaged,
    /// It is wrapped for another key.
    #[error("it is sealed for another key")]
    OtherKey,
}

/// The system gave no random bytes, or there is no secret with this recipient.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("nothing can be sealed for the recipient")]
pub struct NotSealed;

/// A public key that files are sealed for.
#[derive(Clone, PartialEq, Eq)]
pub struct Recipient(Point);

impl FromStr for Recipient {
    type Err = RecipientError;

    fn from_str(text: &str) -> Result<Self, RecipientError> {
        if holds_private_key(text) {
            return Err(RecipientError::Private);
        }
        if !text.starts_with("age1") || text.len() != 62 {
            return Err(RecipientError::Kind);
        }
        let point = decoded(RECIPIENT_PREFIX, text).ok_or(RecipientError::Checksum)?;
        let point = Point::from(*point);
        let secret = StaticSecret::from(PROBE).diffie_hellman(&point);
        if !secret.was_contributory() {
            return Err(RecipientError::LowOrder);
        }
        Ok(Self(point))
    }
}

impl fmt::Display for Recipient {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let prefix = Hrp::parse(RECIPIENT_PREFIX).expect("three letters are a prefix");
        let text = bech32::encode::<Bech32>(prefix, self.0.as_bytes());
        f.write_str(&text.expect("32 bytes are not too long"))
    }
}

impl fmt::Debug for Recipient {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Recipient({self})")
    }
}

/// Whether there is a private key in a text.
pub fn holds_private_key(text: &str) -> bool {
    text.to_ascii_uppercase().contains(PRIVATE_PREFIX)
}

/// The 32 bytes that a text of bech32 with that prefix has.
fn decoded(prefix: &str, text: &str) -> Option<Zeroizing<[u8; KEY_BYTES]>> {
    let checked = CheckedHrpstring::new::<Bech32>(text).ok()?;
    if checked.hrp().to_string() != prefix {
        return None;
    }
    let mut bytes = Zeroizing::new([0; KEY_BYTES]);
    let mut given = checked.byte_iter();
    if given.len() != KEY_BYTES {
        return None;
    }
    bytes
        .iter_mut()
        .zip(&mut given)
        .for_each(|(to, from)| *to = from);
    Some(bytes)
}

/// Private keys, as a file of age-keygen has them. They are erased from memory when dropped.
pub struct PrivateKeys(Vec<StaticSecret>);

impl fmt::Debug for PrivateKeys {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("PrivateKeys(***)")
    }
}

impl FromStr for PrivateKeys {
    type Err = PrivateKeyError;

    /// Reads one key in each line; empty lines and those that begin with `#` are passed over.
    fn from_str(text: &str) -> Result<Self, PrivateKeyError> {
        let lines = text.lines().map(str::trim);
        let lines = lines.filter(|line| !line.is_empty() && !line.starts_with('#'));
        let mut keys = Vec::new();
        for line in lines {
            if !line.starts_with(PRIVATE_PREFIX) {
                return Err(PrivateKeyError::Nothing);
            }
            let key = decoded(PRIVATE_PREFIX, line).ok_or(PrivateKeyError::Unreadable)?;
            keys.push(StaticSecret::from(*key));
        }
        match keys.is_empty() {
            true => Err(PrivateKeyError::Nothing),
            false => Ok(Self(keys)),
        }
    }
}

/// The key of one file. It is erased from memory when dropped.
#[derive(Clone)]
pub struct FileKey(Zeroizing<[u8; FILE_KEY_BYTES]>);

impl fmt::Debug for FileKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("FileKey(***)")
    }
}

impl FileKey {
    /// A new one.
    pub fn generate() -> Result<Self, NotSealed> {
        random().map(Self)
    }

    /// The one that these bytes are; none where they are none.
    pub fn from_bytes(bytes: &[u8]) -> Option<Self> {
        let key = bytes.try_into().ok()?;
        Some(Self(Zeroizing::new(key)))
    }

    /// Its bytes.
    pub fn bytes(&self) -> &[u8] {
        &self.0[..]
    }

    /// The key that what follows the header is sealed under.
    pub fn of_payload(&self, nonce: &[u8; PAYLOAD_NONCE_BYTES]) -> UnboundKey {
        let salt = hkdf::Salt::new(hkdf::HKDF_SHA256, nonce);
        let made = salt.extract(&self.0[..]);
        let made = made.expand(&[b"payload"], &CHACHA20_POLY1305);
        made.expect("a key of this length can always be derived")
            .into()
    }

    fn mac(&self, header: &str) -> hmac::Tag {
        let made = hkdf::Salt::new(hkdf::HKDF_SHA256, &[]).extract(&self.0[..]);
        let key = made.expand(&[b"header"], hmac::HMAC_SHA256);
        let key: hmac::Key = key
            .expect("a key of the hash's own length can always be derived")
            .into();
        hmac::sign(&key, header.as_bytes())
    }
}

/// Random bytes.
fn random<const N: usize>() -> Result<Zeroizing<[u8; N]>, NotSealed> {
    let mut bytes = Zeroizing::new([0; N]);
    SystemRandom::new()
        .fill(&mut *bytes)
        .map_err(|_| NotSealed)?;
    Ok(bytes)
}

/// A nonce for a payload.
pub fn payload_nonce() -> Result<[u8; PAYLOAD_NONCE_BYTES], NotSealed> {
    Ok(*random()?)
}

/// The header of a file that belongs to `place`, whose key only the recipient's private key gets out of it.
pub fn wrap(key: &FileKey, recipient: &Recipient, place: &str) -> Result<String, NotSealed> {
    let ephemeral = StaticSecret::from(*random()?);
    let share = Point::from(&ephemeral);
    let wrapping = wrapping(&ephemeral, &recipient.0, (&share, &recipient.0)).ok_or(NotSealed)?;
    let mut body = key.bytes().to_vec();
    wrapping
        .seal_in_place_append_tag(no_nonce(), Aad::empty(), &mut body)
        .map_err(|_| NotSealed)?;
    let (share, body) = (BASE64.encode(share.as_bytes()), BASE64.encode(body));
    let place = digest_of(place);
    let header = format!(
        "{VERSION_LINE}\n-> {RECIPIENT_STANZA} {share}\n{body}\n-> {PLACE_STANZA} {place}\n\n---"
    );
    let mac = BASE64.encode(key.mac(&header));
    Ok(format!("{header} {mac}\n"))
}

/// The key of the file with that header, which has to belong to `place`, by the first of the private keys that it is
/// wrapped for.
pub fn unwrap(header: &str, keys: &PrivateKeys, place: &str) -> Result<FileKey, HeaderError> {
    let key = file_key(&Header::parse(header).ok_or(HeaderError::Damaged)?, keys)?;
    match is_of(header, &key, place) {
        true => Ok(key),
        false => Err(HeaderError::Damaged),
    }
}

/// Whether a header is one of the file with that key, as it was made, and belongs to `place`.
pub fn is_of(header: &str, key: &FileKey, place: &str) -> bool {
    let Some(header) = Header::parse(header) else {
        return false;
    };
    let place = digest_of(place);
    let names = |stanza: &Stanza<'_>| stanza.kind == PLACE_STANZA && stanza.arguments == [&place];
    header.is_made_with(key) && header.stanzas.iter().any(names)
}

/// What a place is told by in a header.
fn digest_of(place: &str) -> String {
    BASE64.encode(digest(&SHA256, place.as_bytes()))
}

fn file_key(header: &Header<'_>, keys: &PrivateKeys) -> Result<FileKey, HeaderError> {
    let wrapped = header.stanzas.iter();
    for stanza in wrapped.filter(|stanza| stanza.kind == RECIPIENT_STANZA) {
        let [share] = stanza.arguments[..] else {
            return Err(HeaderError::Damaged);
        };
        let share = BASE64.decode(share).map_err(|_| HeaderError::Damaged)?;
        let share: [u8; KEY_BYTES] = share.try_into().map_err(|_| HeaderError::Damaged)?;
        let share = Point::from(share);
        if stanza.body.len() != FILE_KEY_BYTES + CHACHA20_POLY1305.tag_len() {
            return Err(HeaderError::Damaged);
        }
        for key in &keys.0 {
            let own = Point::from(key);
            let wrapping = wrapping(key, &share, (&share, &own)).ok_or(HeaderError::Damaged)?;
            let mut body = Zeroizing::new(stanza.body.clone());
            let opened = wrapping.open_in_place(no_nonce(), Aad::empty(), &mut body);
            if let Some(key) = opened.ok().and_then(|key| FileKey::from_bytes(key)) {
                return Ok(key);
            }
        }
    }
    Err(HeaderError::OtherKey)
}

/// The key that a file's key is wrapped under; none where the two make no secret.
fn wrapping(
    own: &StaticSecret,
    other: &Point,
    (share, recipient): (&Point, &Point),
) -> Option<LessSafeKey> {
    let secret = own.diffie_hellman(other);
    if !secret.was_contributory() {
        return None;
    }
    let salt = [share.as_bytes().as_slice(), recipient.as_bytes()].concat();
    let made = hkdf::Salt::new(hkdf::HKDF_SHA256, &salt).extract(secret.as_bytes());
    let made = made.expand(&[WRAP_LABEL], &CHACHA20_POLY1305).ok()?;
    Some(LessSafeKey::new(made.into()))
}

/// The key that wraps does so once.
fn no_nonce() -> Nonce {
    Nonce::assume_unique_for_key([0; NONCE_LEN])
}

/// A part of a header.
struct Stanza<'a> {
    kind: &'a str,
    arguments: Vec<&'a str>,
    body: Vec<u8>,
}

/// A header as it was read.
struct Header<'a> {
    stanzas: Vec<Stanza<'a>>,
    /// What its HMAC is of.
    told: &'a str,
    mac: Vec<u8>,
}

impl<'a> Header<'a> {
    /// The header that a text is; none where it is none of this format, or not in its one form.
    fn parse(text: &'a str) -> Option<Self> {
        let mut rest = text.strip_prefix(VERSION_LINE)?.strip_prefix('\n')?;
        let mut stanzas = Vec::new();
        loop {
            let (line, after) = rest.split_once('\n')?;
            if let Some(mac) = line.strip_prefix("--- ") {
                let told = &text[..text.len() - rest.len() + "---".len()];
                let mac = BASE64.decode(mac).ok()?;
                return after.is_empty().then_some(Self { stanzas, told, mac });
            }
            let mut words = line.strip_prefix("-> ")?.split(' ');
            let kind = words.next().filter(|kind| !kind.is_empty())?;
            let (body, after) = body(after)?;
            stanzas.push(Stanza {
                kind,
                arguments: words.collect(),
                body,
            });
            rest = after;
        }
    }

    fn is_made_with(&self, key: &FileKey) -> bool {
        use subtle::ConstantTimeEq as _;
        key.mac(self.told).as_ref().ct_eq(&self.mac).into()
    }
}

/// The body of a stanza, and what comes after it.
fn body(text: &str) -> Option<(Vec<u8>, &str)> {
    let mut letters = String::new();
    let mut rest = text;
    loop {
        let (line, after) = rest.split_once('\n')?;
        if line.len() > BODY_LINE {
            return None;
        }
        letters.push_str(line);
        rest = after;
        if line.len() < BODY_LINE {
            return Some((BASE64.decode(letters).ok()?, rest));
        }
    }
}
