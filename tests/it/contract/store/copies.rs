//! What the store promises of copies in the mirror: one broker works on each, and none is forgotten.

use chrono::{DateTime, TimeDelta, Utc};
use compose_broker::{
    model::{
        backup::{Backup, BackupState, Manifest},
        ids::{BackupId, FolderMark},
        limits::proof::BYTES_READ_EVERY,
        mirror::MirrorState,
    },
    store::{
        backup,
        mirror::{self, CopyHolder},
    },
};
use serde_json::json;

use super::{Kind, LEASE, id, kept_backup, noon, own, read, seconds, write};

/// The manifest of the backup of that number.
pub(super) fn manifest(number: u32) -> Manifest {
    let manifest = json!({
        "format": 2,
        "backup_id": own::<BackupId>(number),
        "kind": "on_demand",
        "instance_id": "i",
        "deployment_id": format!("{:024x}", 0),
        "service_id": "etcd",
        "tenant": { "platform": "", "organization": "", "space": "", "account": {} },
        "engine": "etcd",
        "version": "3.6.16",
        "units": 1,
        "content": {},
        "stored": {
            "snapshot_bytes": 1, "snapshot_sha256": "", "object_bytes": 1, "object_sha256": "",
            "compression": "zstd",
        },
        "requested_at": noon(), "started_at": noon(), "finished_at": noon(),
    });
    serde_json::from_value(manifest).expect("a manifest")
}

fn holder(broker: &str, now: DateTime<Utc>) -> CopyHolder {
    CopyHolder {
        broker: broker.to_owned(),
        now,
        until: now + LEASE,
    }
}

fn mark() -> FolderMark {
    id("5ae85b45e5717f0001533192")
}

pub(super) async fn a_copy_is_made_by_one_broker_and_none_is_forgotten<K: Kind>() {
    let Some(kind) = K::new() else { return };
    let store = kind.store();
    write(store, |conn| {
        mirror::begin(conn, &mark(), false, noon())?;
        for number in [1, 2] {
            backup::insert(conn, &kept_backup(number, None))?;
            backup::complete(conn, &manifest(number), "key", seconds(number.into()))?;
        }
        Ok(())
    })
    .await;
    let next = async |broker: &'static str, at| {
        let held = write(store, move |conn| {
            mirror::hold_next(conn, &holder(broker, at))
        });
        held.await
    };
    // The newest one first, and each once, until its holder says nothing for too long.
    let newest = next("a", seconds(10)).await.expect("one");
    assert_eq!(newest.manifest, manifest(2));
    let older = next("b", seconds(10)).await.expect("one");
    assert_eq!(older.manifest, manifest(1));
    assert!(next("c", seconds(10)).await.is_none());
    let taken = seconds(11) + LEASE;
    assert!(next("c", taken).await.is_some());
    let still = write(store, move |conn| {
        mirror::hold(conn, &own(2), &holder("a", taken))
    });
    assert!(!still.await, "another one has it");
    let let_go = write(store, |conn| {
        mirror::let_go(conn, &own(2), "a")?;
        mirror::hold(conn, &own(2), &holder("b", seconds(12) + LEASE))
    });
    assert!(!let_go.await, "who lost it lets nobody in");

    // A manifest that was sealed anew meanwhile is copied at once, and a whole copy is looked at after long.
    write(store, move |conn| {
        backup::set_sealed_under(conn, &own(2), "next", taken)?;
        mirror::set_copied(conn, &newest, taken, taken)?;
        mirror::set_copied(conn, &older, taken, taken)
    })
    .await;
    let again = next("a", taken).await.expect("one");
    assert_eq!(
        (
            again.manifest.backup_id.clone(),
            again.sealed_under.as_str()
        ),
        (own(2), "next")
    );
    write(store, move |conn| {
        mirror::set_copied(conn, &again, taken, taken)
    })
    .await;
    assert!(next("a", taken).await.is_none());
    let keys = read(store, mirror::keys_needed).await;
    assert_eq!(keys, [("key".to_owned(), 1), ("next".to_owned(), 1)]);
    let seen = read(store, move |conn| {
        let state = mirror::state(conn)?.expect("a mirror");
        mirror::seen(conn, &state, taken)
    });
    let seen = seen.await;
    assert_eq!((seen.copied, seen.waiting, seen.late), (2, 0, 0));
    assert!(next("a", taken + BYTES_READ_EVERY).await.is_some());

    // Whatever ended a backup, its copy is found.
    write(store, |conn| {
        backup::fail(conn, &own(1), "lost", seconds(20))?;
        backup::forget(conn, &own(2))
    })
    .await;
    let (gone, last) = read(store, |conn| mirror::superfluous(conn, None, 1)).await;
    assert_eq!((gone, last.clone()), (vec![(own(1), own(0))], Some(own(1))));
    let (gone, last) = read(store, move |conn| {
        mirror::superfluous(conn, last.as_ref(), 10)
    })
    .await;
    assert_eq!((gone, last), (vec![(own(2), own(0))], Some(own(2))));
    write(store, |conn| mirror::forget(conn, &own(1))).await;
    assert!(read(store, mirror::has_copies).await);
}

pub(super) async fn another_mirror_gets_all_copies_anew<K: Kind>() {
    let Some(kind) = K::new() else { return };
    let store = kind.store();
    write(store, |conn| {
        mirror::begin(conn, &mark(), false, noon())?;
        backup::insert(conn, &kept_backup(1, None))?;
        backup::complete(conn, &manifest(1), "key", noon())?;
        let due = mirror::hold_next(conn, &holder("a", noon()))?.expect("one");
        mirror::set_copied(conn, &due, seconds(1), seconds(1))?;
        mirror::set_failure(conn, Some("it is full"), seconds(2))
    })
    .await;
    let found = async || -> Backup {
        let found = read(store, |conn| backup::find(conn, &own(1))).await;
        found.expect("a backup")
    };
    let before = found().await;
    assert_eq!(
        (before.state, before.mirrored_at),
        (BackupState::Complete, Some(seconds(1)))
    );
    // The same one is as it was, also when it was told of as the mirror before.
    write(store, |conn| {
        mirror::begin(conn, &mark(), false, seconds(9))
    })
    .await;
    assert_eq!(found().await, before);
    let state = read(store, mirror::state).await.expect("a mirror");
    let expected = MirrorState {
        since: noon(),
        failure: Some(("it is full".to_owned(), seconds(2))),
    };
    assert_eq!(state, expected);
    for is_new in [true, false] {
        let at = seconds(100);
        write(store, move |conn| {
            let other = match is_new {
                true => mark(),
                false => id("5ae85b45e5717f0001533193"),
            };
            mirror::begin(conn, &other, is_new, at)
        })
        .await;
        assert_eq!(found().await.mirrored_at, None, "{is_new}");
        let due = write(store, move |conn| mirror::hold_next(conn, &holder("a", at))).await;
        let due = due.expect("one");
        assert_eq!(due.read_at, None);
        write(store, move |conn| mirror::set_copied(conn, &due, at, at)).await;
        assert_eq!(found().await.mirrored_at, Some(at));
    }
    let late = seconds(100) + TimeDelta::hours(7);
    write(store, |conn| {
        backup::insert(conn, &kept_backup(2, None))?;
        backup::complete(conn, &manifest(2), "key", seconds(100))?;
        mirror::hold_next(conn, &holder("a", seconds(101)))?;
        mirror::set_failed(conn, &own(2), "it is spoiled", seconds(101))
    })
    .await;
    let told = read(store, move |conn| mirror::late(conn, late, 10)).await;
    assert_eq!(told.len(), 1);
    assert_eq!(
        (&told[0].backup, told[0].failure.as_deref()),
        (&own(2), Some("it is spoiled"))
    );
}
