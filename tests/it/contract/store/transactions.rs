//! What transactions promise: one writer, all or nothing, and readers that see what was committed.

use std::{
    panic::AssertUnwindSafe,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU32, Ordering},
        mpsc,
    },
};

use compose_broker::{
    model::operation::{Operation, OperationState},
    store::{Store, StoreError, audit, claim, notes, operation},
};
use futures::{FutureExt, future::join_all};
use tokio::{sync::oneshot, time::timeout};

use super::{
    Kind, MANY, SOON, accept, backup_of, claim, claim_one, id, noon, note, own, read, text_of_note,
    write,
};

pub(super) async fn decisions_are_one_at_a_time<K: Kind>() {
    const EACH: u32 = 10;
    let Some(kind) = K::new() else { return };
    let others = [kind.store().clone(), kind.replica()];
    let inside = Arc::new(AtomicBool::new(false));
    let count_up = async |store: &Arc<Store>| {
        for _ in 0..EACH {
            let inside = inside.clone();
            write(store, move |conn| {
                assert!(!inside.swap(true, Ordering::SeqCst), "two at a time");
                let count: u32 = notes::of(conn, &own(1))?.text.parse().unwrap_or(0);
                std::thread::yield_now();
                note(conn, &(count + 1).to_string())?;
                inside.store(false, Ordering::SeqCst);
                Ok(())
            })
            .await;
        }
    };
    join_all(others.iter().cycle().take(8).map(count_up)).await;
    assert_eq!(text_of_note(kind.store()).await, (8 * EACH).to_string());
}

pub(super) async fn what_is_refused_or_panics_leaves_nothing<K: Kind>() {
    let Some(kind) = K::new() else { return };
    let store = kind.store();
    write(store, |conn| note(conn, "before")).await;
    let followed = Arc::new(AtomicU32::new(0));
    let changes = store.changes();
    let spoil = |then: fn() -> StoreError| {
        let followed = followed.clone();
        store.write(move |conn| -> Result<(), StoreError> {
            note(conn, "half")?;
            operation::insert(conn, &backup_of("i"), None)?;
            let followed = followed.clone();
            conn.once_committed(move || {
                followed.fetch_add(1, Ordering::SeqCst);
            });
            Err(then())
        })
    };
    for _ in 0..3 {
        refused!(
            spoil(|| StoreError::Missing("a reason".to_owned())).await,
            StoreError::Missing(_)
        );
        let panicked = AssertUnwindSafe(spoil(|| panic!("on purpose")));
        assert!(panicked.catch_unwind().await.is_err());
    }
    assert_eq!(text_of_note(store).await, "before");
    let left = read(store, |conn| operation::of_instance(conn, &id("i"), MANY)).await;
    assert_eq!(left, []);
    let trail = read(store, |conn| audit::newest(conn, None, (None, None), MANY)).await;
    assert!(trail.is_empty());
    assert_eq!(followed.load(Ordering::SeqCst), 0);
    assert!(!changes.has_changed().expect("a store"));
    // It works on as before.
    write(store, |conn| note(conn, "after")).await;
    assert_eq!(text_of_note(store).await, "after");
    store.ping().await.expect("it takes writes");
}

pub(super) async fn a_part_that_fails_is_undone_alone<K: Kind>() {
    let Some(kind) = K::new() else { return };
    let store = kind.store();
    let followed = Arc::new(AtomicU32::new(0));
    let counted = followed.clone();
    let parts = store.write(move |conn| {
        let mut came = Vec::new();
        for i in [1, 1, 2] {
            let counted = counted.clone();
            came.push(conn.apart(|conn| {
                conn.once_committed(move || {
                    counted.fetch_add(1, Ordering::SeqCst);
                });
                let before = notes::of(conn, &own(1))?.text;
                note(conn, &format!("{before}{i}"))?;
                operation::insert(
                    conn,
                    &Operation {
                        id: own(i),
                        ..backup_of("i")
                    },
                    None,
                )
            })?);
        }
        Ok(came)
    });
    let parts = parts.await.expect("the others");
    assert!(
        matches!(parts[..], [Ok(()), Err(StoreError::Duplicate), Ok(())]),
        "{parts:?}"
    );
    assert_eq!(text_of_note(store).await, "12");
    assert_eq!(followed.load(Ordering::SeqCst), 2);
    let left = read(store, |conn| operation::of_instance(conn, &id("i"), MANY)).await;
    assert_eq!(left.len(), 2);
}

pub(super) async fn decisions_that_wait_are_made_together_and_refused_each_by_itself<K: Kind>() {
    let Some(kind) = K::new() else { return };
    let store = kind.store();
    let (begun, has_begun) = oneshot::channel();
    let (go_on, waits) = mpsc::channel::<()>();
    let begun = std::sync::Mutex::new(Some(begun));
    let holding = store.write(move |conn| {
        let begun = begun.lock().expect("no panic").take();
        begun.expect("one run").send(()).expect("the test waits");
        waits.recv_timeout(SOON).expect("the others");
        note(conn, "held")
    });
    let all = async {
        has_begun.await.expect("a writer that is busy");
        let decide = |i: usize| {
            store.write(move |conn| {
                let seen = notes::of(conn, &own(1))?.text;
                note(conn, &format!("{seen} {i}"))?;
                operation::insert(conn, &backup_of(&format!("i{i}")), None)?;
                match i % 3 {
                    0 => Err(StoreError::Missing("a reason".to_owned())),
                    _ => Ok(()),
                }
            })
        };
        let deciding: Vec<_> = (0..K::WAITING).map(decide).collect();
        let deciding = join_all(deciding);
        tokio::pin!(deciding);
        // Handed in, each of them.
        assert!(futures::poll!(&mut deciding).is_pending());
        go_on.send(()).expect("it waits");
        deciding.await
    };
    let (held, all) = tokio::join!(holding, all);
    held.expect("written");
    for (i, result) in all.iter().enumerate() {
        assert_eq!(result.is_err(), i % 3 == 0, "{i}: {result:?}");
    }
    let kept = (0..K::WAITING).filter(|i| i % 3 != 0);
    let expected = kept
        .clone()
        .fold("held".to_owned(), |text, i| format!("{text} {i}"));
    assert_eq!(text_of_note(store).await, expected);
    let claims = claim(store, "w", noon(), K::WAITING).await;
    assert_eq!(claims.len(), kept.count());
}

pub(super) async fn a_read_sees_one_state_and_what_was_committed<K: Kind>() {
    let Some(kind) = K::new() else { return };
    let (store, replica) = (kind.store(), kind.replica());
    write(store, |conn| note(conn, "old")).await;
    let (begun, has_begun) = oneshot::channel();
    let (written, is_written) = mpsc::channel::<()>();
    let reading = store.clone();
    // A short read keeps its thread.
    let looking = tokio::spawn(async move {
        let look = reading.read(move |conn| {
            let first = notes::of(conn, &own(1))?.text;
            begun.send(()).expect("the test waits");
            is_written.recv_timeout(SOON).expect("a write meanwhile");
            Ok((first, notes::of(conn, &own(1))?.text))
        });
        look.await.expect("read")
    });
    let writing = async {
        has_begun.await.expect("a read");
        write(&replica, |conn| note(conn, "new")).await;
        for store in [store, &replica] {
            assert_eq!(text_of_note(store).await, "new");
        }
        written.send(()).expect("the read waits");
    };
    let (seen, ()) = tokio::join!(looking, writing);
    assert_eq!(
        seen.expect("no panic"),
        ("old".to_owned(), "old".to_owned())
    );
    assert!(store.read(|conn| note(conn, "never")).await.is_err());
    assert_eq!(text_of_note(store).await, "new");
}

pub(super) async fn who_waits_is_woken_by_work_alone<K: Kind>() {
    let Some(kind) = K::new() else { return };
    let store = kind.store();
    let mut changes = store.changes();
    let (mut halts, ends) = (store.halts(), store.ends());
    write(store, |conn| note(conn, "nothing to do")).await;
    read(store, operation::active_updates).await;
    assert!(!changes.has_changed().expect("a store"));
    let backup = backup_of("i");
    let waiting = timeout(SOON, changes.changed());
    let (woken, ()) = tokio::join!(waiting, accept(store, std::slice::from_ref(&backup)));
    woken.expect("woken").expect("a store");
    // What is accepted is nothing to who waits for a halt or an end.
    assert!(!halts.has_changed().expect("a store"));
    // It finds what it was woken for.
    let claim = claim_one(store, "w", noon()).await.expect("a claim");
    let renewed = claim.clone();
    write(store, move |conn| {
        claim::set_bytes(conn, &renewed, noon(), (1, 1))
    })
    .await;
    assert!(!changes.has_changed().expect("a store"));
    write(store, move |conn| operation::halt(conn, &backup.id, noon())).await;
    assert!(changes.has_changed().expect("a store"));
    assert!(halts.has_changed().expect("a store"));
    assert!(!ends.has_changed().expect("a store"));
    changes.mark_unchanged();
    halts.mark_unchanged();
    write(store, move |conn| {
        claim::finish(conn, &claim, OperationState::Failed, noon())
    })
    .await;
    assert!(changes.has_changed().expect("a store"));
    assert!(!halts.has_changed().expect("a store"));
    assert!(ends.has_changed().expect("a store"));
}
