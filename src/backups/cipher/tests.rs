//! Frames that open in their own place alone.

use proptest::prelude::*;

use super::*;
use crate::backups::samples::{self, BACKUP, DEPLOYMENT, broken, chunked, collect, noise, whole};

const SEALED_BYTES: usize = SEALED_FRAME_BYTES + TAG_BYTES;

fn identity() -> Identity {
    Identity {
        instance: "instance-1".parse().expect("an id"),
        deployment: DEPLOYMENT.parse().expect("an id"),
        backup: BACKUP.parse().expect("an id"),
    }
}

fn name() -> ObjectName {
    let of = identity();
    ObjectName::snapshot(&of.deployment, &of.backup)
}

/// A key to which there is a second one, as after a restart.
fn key_of(of: &Identity) -> (ObjectKey, String) {
    ObjectKey::generate(&samples::ring(&["k1"]), of).expect("a key")
}

fn opened_key(of: &Identity, sealed: &str) -> ObjectKey {
    ObjectKey::open(&samples::ring(&["k1"]), of, sealed).expect("opens")
}

async fn sealed(content: &Bytes) -> (Bytes, String) {
    let (key, sealed_key) = key_of(&identity());
    let object = collect(seal(whole(content), key)).await.expect("sealed");
    (object, sealed_key)
}

async fn opens(object: Bytes, sizes: &[usize], sealed_key: &str) -> io::Result<Bytes> {
    let key = opened_key(&identity(), sealed_key);
    collect(unseal(chunked(&object, sizes), key, &name())).await
}

async fn assert_refused(object: impl Into<Bytes>, sealed_key: &str, how: &str) {
    let refused = opens(object.into(), &[32 * 1024], sealed_key).await;
    let told = refused.expect_err(how).to_string();
    assert!(told.contains("does not open"), "{how}: {told}");
}

fn in_runtime<T>(work: impl Future<Output = T>) -> T {
    tokio::runtime::Runtime::new()
        .expect("a runtime")
        .block_on(work)
}

#[tokio::test]
async fn every_length_comes_back_with_a_tag_for_each_frame() {
    for (length, frames) in [
        (0, 1),
        (1, 1),
        (SEALED_FRAME_BYTES - 1, 1),
        (SEALED_FRAME_BYTES, 1),
        (SEALED_FRAME_BYTES + 1, 2),
        (3 * SEALED_FRAME_BYTES, 3),
        (1_000_000, 16),
    ] {
        let content = noise(length);
        let (object, key) = sealed(&content).await;
        assert_eq!(object.len(), length + frames * TAG_BYTES, "{length}");
        let opened = opens(object, &[1, 4096, 100_000], &key).await;
        assert_eq!(opened.expect("whole"), content, "{length}");
    }
}

#[tokio::test]
async fn what_breaks_off_is_sealed_as_no_end() {
    let (key, _) = key_of(&identity());
    let mut stream = seal(broken(&noise(200_000)), key);
    let mut frames = 0;
    let end = loop {
        match stream.try_next().await {
            Ok(Some(_)) => frames += 1,
            end => break end,
        }
    };
    assert!(end.is_err(), "the source's own error ends it");
    assert_eq!(frames, 3, "200,000 bytes are three frames and a part");
}

#[tokio::test]
async fn frames_that_are_moved_repeated_or_left_out_do_not_open() {
    let (object, key) = sealed(&noise(3 * SEALED_FRAME_BYTES + 1000)).await;
    let frames: Vec<Bytes> = object
        .chunks(SEALED_BYTES)
        .map(Bytes::copy_from_slice)
        .collect();
    for (how, order) in [
        ("cut before the last", &[0, 1, 2][..]),
        ("the first alone", &[0]),
        ("the last alone", &[3]),
        ("the first left out", &[1, 2, 3]),
        ("one left out", &[0, 2, 3]),
        ("two swapped", &[1, 0, 2, 3]),
        ("one repeated", &[0, 0, 1, 2, 3]),
        ("more after the end", &[0, 1, 2, 3, 3]),
        ("all twice", &[0, 1, 2, 3, 0, 1, 2, 3]),
    ] {
        let moved: Vec<&[u8]> = order.iter().map(|i: &usize| &frames[*i][..]).collect();
        assert_refused(moved.concat(), &key, how).await;
    }
    assert_refused(Bytes::new(), &key, "nothing").await;
    // A whole frame of another object, in the same place.
    let (other, other_key) = sealed(&noise(3 * SEALED_FRAME_BYTES + 999)).await;
    for at in 0..3 {
        let mut mixed = object.to_vec();
        let place = at * SEALED_BYTES..(at + 1) * SEALED_BYTES;
        mixed[place.clone()].copy_from_slice(&other[place]);
        assert_refused(mixed, &key, "a frame of another object").await;
    }
    assert_refused(object, &other_key, "the key of another object").await;
}

#[tokio::test]
async fn an_object_opens_as_no_other_backup_s() {
    let of = identity();
    let content = noise(1000);
    let (key, sealed_key) = key_of(&of);
    let object = collect(seal(whole(&content), key)).await.expect("sealed");
    let others = [
        Identity {
            instance: "instance-2".parse().expect("an id"),
            ..of.clone()
        },
        Identity {
            deployment: BACKUP.parse().expect("an id"),
            ..of.clone()
        },
        Identity {
            backup: DEPLOYMENT.parse().expect("an id"),
            ..of.clone()
        },
    ];
    for other in others {
        let keys = samples::ring(&["k1"]);
        let refused = ObjectKey::open(&keys, &other, &sealed_key).err();
        assert!(matches!(refused, Some(SealError::Forged)), "{other:?}");
        // Not even where the very key was sealed for it.
        let bytes = keys.open(&of.key_context(), &sealed_key).expect("opens");
        let moved = keys.seal(&other.key_context(), &bytes).expect("sealed");
        let key = ObjectKey::open(&keys, &other, &moved).expect("opens");
        let refused = collect(unseal(whole(&object), key, &name())).await;
        assert!(refused.is_err(), "{other:?}");
    }
    let foreign = KeyRing::parse(&format!("k1:{}", "A".repeat(43) + "=")).expect("a ring");
    let refused = ObjectKey::open(&foreign, &of, &sealed_key).err();
    assert!(
        matches!(refused, Some(SealError::Forged)),
        "another key of that name"
    );
    let refused = ObjectKey::open(&samples::ring(&["k2"]), &of, &sealed_key).err();
    assert!(matches!(refused, Some(SealError::UnknownKey(name)) if name == "k1"));
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 48, failure_persistence: None, ..Default::default() })]
    #[test]
    fn any_flipped_bit_and_any_cut_is_refused(
        length in 0usize..3 * SEALED_FRAME_BYTES,
        at in any::<prop::sample::Index>(),
        bit in 0u32..8,
    ) {
        in_runtime(async {
            let (good, key) = sealed(&noise(length)).await;
            let at = at.index(good.len());
            let mut bad = good.to_vec();
            bad[at] ^= 1 << bit;
            assert_refused(bad, &key, "a flipped bit").await;
            assert_refused(good.slice(..at), &key, "a cut").await;
            assert_refused([&good[..], &[0]].concat(), &key, "a byte more").await;
        });
    }

    #[test]
    fn chunks_of_any_size_come_back(
        length in 0usize..200_000,
        sizes in proptest::collection::vec(1usize..90_000, 1..10),
    ) {
        in_runtime(async {
            let content = noise(length);
            let (key, sealed_key) = key_of(&identity());
            let object = collect(seal(chunked(&content, &sizes), key)).await.expect("sealed");
            let opened = opens(object, &sizes, &sealed_key).await;
            assert_eq!(opened.expect("whole"), content);
        });
    }
}
