//! Headers and payloads of age, against published test vectors and against ourselves.
//!
//! The vectors are those of the Community Cryptography Test Vectors for age (C2SP/CCTV), as values.

use base64::{Engine as _, engine::general_purpose::STANDARD};
use proptest::prelude::*;
use ring::aead::Aad;

use super::*;
use crate::seal::hex;

/// A pair that the documentation of age has for an example.
const PUBLIC: &str = "age1cy0su9fwf3gf9mw868g5yut09p6nytfmmnktexz2ya5uqg9vl9sss4euqm";
const PRIVATE: &str = "AGE-SECRET-KEY-184JMZMVQH3E6U0PSL869004Y3U2NYV7R30EU99CSEDNPH02YUVFSZW44VU";

/// The private key of most vectors, and the file's key in them.
const VECTOR_KEY: &str =
    "AGE-SECRET-KEY-1EGTZVFFV20835NWYV6270LXYVK2VKNX2MMDKWYKLMGR48UAWX40Q2P2LM0";
const VECTOR_FILE_KEY: &str = "59454c4c4f57205355424d4152494e45";
/// The vector `x25519`: a header, what follows it, and the hash of what is in that.
const VECTOR: &str = "age-encryption.org/v1
-> X25519 TEiF0ypqr+bpvcqXNyCVJpL7OuwPdVwPL7KQEbFDOCc
hjabGXwSLQ9c3S6Lw2i+S2Tu2fiwQHHslbBN6B41FLE
--- WyJp9F/9FOZh7gJdheq2WIJcwHgYc8NIVh3ddwhrcNg
";
const VECTOR_PAYLOAD: &str = "7s9ix86RtDMnTmjU8vkTTLdMW/73vqpSyPC8DpksHoMx+2Y=";
const VECTOR_SHA256: &str = "013f54400c82da08037759ada907a8b864e97de81c088a182062c4b5622fd2ab";

fn keys(text: &str) -> PrivateKeys {
    text.parse().expect("a private key")
}

fn recipient(text: &str) -> Recipient {
    text.parse().expect("a recipient")
}

fn opened(header: &str, key: &str) -> Result<String, HeaderError> {
    let header = Header::parse(header).ok_or(HeaderError::Damaged)?;
    Ok(hex(file_key(&header, &keys(key))?.bytes()))
}

#[test]
fn a_published_file_opens() {
    assert_eq!(opened(VECTOR, VECTOR_KEY).as_deref(), Ok(VECTOR_FILE_KEY));
    let header = Header::parse(VECTOR).expect("a header");
    let key = file_key(&header, &keys(VECTOR_KEY)).expect("a key");
    assert!(header.is_made_with(&key));

    let payload = STANDARD.decode(VECTOR_PAYLOAD).expect("base64");
    let (nonce, frame) = payload.split_at(PAYLOAD_NONCE_BYTES);
    let of_payload = LessSafeKey::new(key.of_payload(nonce.try_into().expect("a nonce")));
    let mut frame = frame.to_vec();
    let mut nonce = [0; NONCE_LEN];
    nonce[NONCE_LEN - 1] = 1;
    let nonce = Nonce::assume_unique_for_key(nonce);
    let plain = of_payload.open_in_place(nonce, Aad::empty(), &mut frame);
    let plain = plain.expect("the only frame opens");
    assert_eq!(hex(digest(&SHA256, plain).as_ref()), VECTOR_SHA256);
}

#[test]
fn published_headers_that_do_not_open_do_not() {
    // `x25519_no_match`: another key.
    let other = "AGE-SECRET-KEY-143WN7DCXU4G8R5AXQSSYD9AEPYDNT3HXSLWSPK36CDU6E8M59SSSAGZ3KG";
    assert_eq!(opened(VECTOR, other), Err(HeaderError::OtherKey));
    // `x25519_bad_tag`: the wrapped key was changed.
    let bad_tag = VECTOR.replace("41FLE", "41FE4");
    assert_eq!(opened(&bad_tag, VECTOR_KEY), Err(HeaderError::OtherKey));
    // `x25519_low_order`: everybody knows the secret.
    let low_order = "age-encryption.org/v1
-> X25519 X5yVvKNQjCSx0LFVnIPvWwREXMRYHI6G2CJO3dCfEdc
3E0NpFans/m0WLWF7+54ZBdNj3iqQqpraGDFiaRkvBA
--- sXw327YMT1/ULXe+ZyRMbMY0Z2jnWHGgI9j1we6yQ8A
";
    assert_eq!(opened(low_order, VECTOR_KEY), Err(HeaderError::Damaged));
    // `hmac_bad`: the header was changed.
    let bad_mac = VECTOR.replace(
        "WyJp9F/9FOZh7gJdheq2WIJcwHgYc8NIVh3ddwhrcNg",
        "8McE3ix9R34E/vLrQv3yepsHjo/LXhfs22Ab3UyInmg",
    );
    let header = Header::parse(&bad_mac).expect("a header");
    let key = file_key(&header, &keys(VECTOR_KEY)).expect("a key");
    assert!(!header.is_made_with(&key));
}

#[test]
fn a_header_is_read_in_its_one_form_alone() {
    for (how, text) in [
        ("empty", String::new()),
        ("of another version", VECTOR.replace("/v1", "/v2")),
        ("with carriage returns", VECTOR.replace('\n', "\r\n")),
        ("cut", VECTOR[..VECTOR.len() - 1].to_owned()),
        ("with more behind it", format!("{VECTOR}x")),
        ("without its HMAC", VECTOR[..120].to_owned()),
        (
            "with padding",
            VECTOR.replace("OCc\n", "OCc=\n").replace("FLE\n", "FLE=\n"),
        ),
        ("with a long line", VECTOR.replace("hjab", &"h".repeat(65))),
        ("not canonical", VECTOR.replace("FLE\n", "FLF\n")),
    ] {
        let is_read =
            Header::parse(&text).is_some_and(|header| file_key(&header, &keys(VECTOR_KEY)).is_ok());
        assert!(!is_read, "{how}: {text}");
    }
}

#[test]
fn what_is_wrapped_for_a_recipient_opens_with_its_private_key_at_its_place_alone() {
    let key = FileKey::generate().expect("random");
    let header = wrap(&key, &recipient(PUBLIC), "backup 1").expect("wrapped");
    let found = unwrap(&header, &keys(PRIVATE), "backup 1").expect("opens");
    assert_eq!(found.bytes(), key.bytes());
    assert!(is_of(&header, &key, "backup 1"));
    assert!(!is_of(&header, &key, "backup 2"));
    assert!(!is_of(
        &header,
        &FileKey::generate().expect("random"),
        "backup 1"
    ));
    let elsewhere = unwrap(&header, &keys(PRIVATE), "backup 2");
    assert_eq!(elsewhere.expect_err("refused"), HeaderError::Damaged);
    let other = unwrap(&header, &keys(VECTOR_KEY), "backup 1");
    assert_eq!(other.expect_err("refused"), HeaderError::OtherKey);
    // One of several serves.
    let several = keys(&format!("# created: today\n{VECTOR_KEY}\n\n{PRIVATE}\r\n"));
    assert!(unwrap(&header, &several, "backup 1").is_ok());
    // The same again looks otherwise: nothing in it is used twice.
    let again = wrap(&key, &recipient(PUBLIC), "backup 1").expect("wrapped");
    assert_ne!(again, header);
    // What programs of age need comes first, and our own stanza is one that they pass over.
    let lines: Vec<&str> = header.lines().collect();
    assert_eq!(lines.len(), 6, "{header}");
    assert_eq!(lines[0], VERSION_LINE);
    assert!(lines[1].starts_with("-> X25519 "));
    assert!(lines[3].starts_with("-> compose-broker.place "));
    assert_eq!(lines[4], "");
    assert!(lines[5].starts_with("--- "));
}

#[test]
fn a_recipient_is_what_it_was_given_as() {
    assert_eq!(recipient(PUBLIC).to_string(), PUBLIC);
    let of_private = Point::from(&keys(PRIVATE).0[0]);
    assert!(
        of_private == recipient(PUBLIC).0,
        "the pair belongs together"
    );
}

#[test]
fn what_is_no_public_key_is_refused_and_not_repeated() {
    let low_order = |point: [u8; KEY_BYTES]| {
        let prefix = Hrp::parse(RECIPIENT_PREFIX).expect("a prefix");
        bech32::encode::<Bech32>(prefix, &point).expect("a text")
    };
    let mut one = [0; KEY_BYTES];
    one[0] = 1;
    for (text, expected) in [
        (PRIVATE.to_owned(), RecipientError::Private),
        (format!("# a file\n{PRIVATE}\n"), RecipientError::Private),
        (PRIVATE.to_lowercase(), RecipientError::Private),
        (
            PUBLIC.replace("age1cy0", "age1cy8"),
            RecipientError::Checksum,
        ),
        (
            PUBLIC.replace("age1cy0", "age1cyO"),
            RecipientError::Checksum,
        ),
        (PUBLIC[..61].to_owned(), RecipientError::Kind),
        (format!("{PUBLIC}\n"), RecipientError::Kind),
        (PUBLIC.to_uppercase(), RecipientError::Kind),
        (String::new(), RecipientError::Kind),
        (
            "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIHsKLqeplhpW".to_owned(),
            RecipientError::Kind,
        ),
        (
            "age1yubikey1qwt50d05nh5vutpdzmlg5wn80xq5negm4uj9ghv0snvdd3yysf5yw3rhl3t".to_owned(),
            RecipientError::Kind,
        ),
        (low_order([0; KEY_BYTES]), RecipientError::LowOrder),
        (low_order(one), RecipientError::LowOrder),
    ] {
        let refused = text.parse::<Recipient>().expect_err("refused");
        assert_eq!(refused, expected, "{text}");
        assert!(
            text.is_empty() || !refused.to_string().contains(text.trim()),
            "{refused}"
        );
    }
}

#[test]
fn what_is_no_private_key_is_refused() {
    let refused = |text: &str| text.parse::<PrivateKeys>().expect_err("refused");
    for text in [
        "",
        "# a comment\n",
        PUBLIC,
        "AGE-PLUGIN-YUBIKEY-1Q",
        "a word",
    ] {
        assert_eq!(refused(text), PrivateKeyError::Nothing, "{text}");
    }
    let mistyped = PRIVATE.replace("184JM", "184JN");
    for text in [mistyped.as_str(), &PRIVATE[..70], "AGE-SECRET-KEY-1"] {
        assert_eq!(refused(text), PrivateKeyError::Unreadable, "{text}");
    }
    // One that cannot be read is told of, also beside a good one.
    assert_eq!(
        refused(&format!("{PRIVATE}\n{mistyped}")),
        PrivateKeyError::Unreadable
    );
    assert_eq!(format!("{:?}", keys(PRIVATE)), "PrivateKeys(***)");
    assert_eq!(
        format!("{:?}", FileKey::generate().expect("random")),
        "FileKey(***)"
    );
}

proptest! {
    #[test]
    fn no_changed_header_opens(place in 0usize..300, with in any::<u8>()) {
        let key = FileKey::from_bytes(&[7; FILE_KEY_BYTES]).expect("a key");
        let header = wrap(&key, &recipient(PUBLIC), "backup 1").expect("wrapped");
        let mut bytes = header.clone().into_bytes();
        let place = place % bytes.len();
        bytes[place] = with;
        if let Ok(changed) = String::from_utf8(bytes) && changed != header {
            prop_assert!(unwrap(&changed, &keys(PRIVATE), "backup 1").is_err());
            prop_assert!(!is_of(&changed, &key, "backup 1"));
        }
    }

    #[test]
    fn no_text_breaks_the_readers(text in ".*") {
        let _ = text.parse::<Recipient>();
        let _ = text.parse::<PrivateKeys>();
        let _ = Header::parse(&text);
    }
}
