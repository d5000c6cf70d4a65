//! What a folder does beside what every store does.

use std::{collections::BTreeSet, os::unix::fs::PermissionsExt};

use bytes::Bytes;
use futures::TryStreamExt;

use super::*;
use crate::{
    backups::samples::{broken, collect, noise, whole},
    model::marker::Marker,
};

/// A store in a new folder, which goes with the first value.
fn store() -> (tempfile::TempDir, FolderStore) {
    let folder = tempfile::tempdir().expect("a folder");
    let root = folder.path().join("backups");
    disk::make_folder(&root).expect("a folder");
    let store = FolderStore::at(root);
    (folder, store)
}

fn name(text: &str) -> ObjectName {
    ObjectName::found(text).expect("a name")
}

async fn list(store: &FolderStore, prefix: &str) -> Vec<String> {
    let names = store.list(prefix).map_ok(|name| name.to_string());
    names.try_collect().await.expect("listed")
}

/// Everything below the root, folders and hidden files too.
fn everything(store: &FolderStore) -> Vec<PathBuf> {
    let mut found = Vec::new();
    let mut folders = vec![store.root.clone()];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).expect("a folder") {
            let path = entry.expect("an entry").path();
            if path.is_dir() {
                folders.push(path.clone());
            }
            found.push(path);
        }
    }
    found
}

fn mode(path: &Path) -> u32 {
    let metadata = fs::metadata(path).expect("there");
    metadata.permissions().mode() & 0o777
}

async fn content_of(store: &FolderStore, text: &str) -> Bytes {
    let content = store.get(&name(text), 0).await.expect("an object");
    collect(content).await.expect("readable")
}

#[tokio::test]
async fn files_are_for_the_broker_alone_and_folders_go_with_their_last() {
    let (_folder, store) = store();
    let object = name("a/b/c");
    store.put(&object, whole(&noise(10))).await.expect("stored");
    for path in everything(&store) {
        let expected = if path.is_dir() { 0o700 } else { 0o600 };
        assert_eq!(mode(&path), expected, "{}", path.display());
    }
    for _ in 0..2 {
        store.delete(&object).await.expect("deleted");
        assert!(everything(&store).is_empty());
    }
}

#[tokio::test]
async fn a_folder_is_no_object() {
    let (_folder, store) = store();
    store
        .put(&name("a/b"), whole(&noise(1)))
        .await
        .expect("stored");
    assert!(matches!(
        store.get(&name("a"), 0).await.map(drop),
        Err(BackupStoreError::NotFound(_))
    ));
}

#[tokio::test]
async fn what_is_none_of_ours_is_passed_over() {
    let (_folder, store) = store();
    store
        .put(&name("x"), whole(&noise(1)))
        .await
        .expect("stored");
    fs::create_dir(store.root.join("lost+found")).expect("made");
    fs::write(store.root.join("lost+found/y"), "").expect("written");
    fs::write(store.root.join(".hidden"), "").expect("written");
    std::os::unix::fs::symlink("x", store.root.join("link")).expect("made");
    assert_eq!(list(&store, "").await, ["x"]);
    assert_eq!(list(&store, "../").await, [""; 0]);
}

#[tokio::test]
async fn a_stream_that_breaks_off_leaves_nothing() {
    let (_folder, store) = store();
    let result = store.put(&name("a/b/c"), broken(&noise(3_000_000))).await;
    assert!(
        matches!(&result, Err(BackupStoreError::BrokenSource(reason))
            if reason == "the member went away"),
        "{result:?}"
    );
    assert!(everything(&store).is_empty());
}

#[tokio::test]
async fn a_dropped_put_leaves_nothing() {
    let (_folder, store) = store();
    let endless = whole(&noise(3_000_000)).chain(stream::pending());
    let object = name("a/b/c");
    let put = store.put(&object, endless.boxed());
    let dropped = tokio::time::timeout(Duration::from_millis(200), put).await;
    assert!(dropped.is_err(), "the put cannot have ended");
    assert!(everything(&store).is_empty());
}

#[test]
fn a_put_dropped_at_any_step_leaves_all_or_nothing() {
    // With one thread for all work on files, what comes last in its queue comes after all of it.
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .max_blocking_threads(1)
        .build()
        .expect("a runtime");
    let work_on_files = || async { tokio::task::spawn_blocking(|| ()).await.expect("its turn") };
    runtime.block_on(async {
        let (_folder, store) = store();
        let (object, content) = (name("a/b/c"), noise(100_000));
        let mut ends = BTreeSet::new();
        for steps in 0..30 {
            let mut put = store.put(&object, whole(&content));
            for _ in 0..steps {
                if futures::poll!(&mut put).is_ready() {
                    break;
                }
                work_on_files().await;
            }
            drop(put);
            // What was handed to a thread before the drop still comes to its end.
            work_on_files().await;
            let files = everything(&store).len();
            match files {
                0 => {}
                3 => assert_eq!(content_of(&store, "a/b/c").await, content),
                files => panic!("{files} files and folders after {steps} steps"),
            }
            ends.insert(files);
            store.delete(&name("a/b/c")).await.expect("deleted");
        }
        assert_eq!(ends, BTreeSet::from([0, 3]));
    });
}

#[tokio::test]
async fn a_put_reads_its_stream_no_faster_than_it_writes() {
    const CHUNKS: u64 = 64;
    // What tokio may hold of a file, and our own chunk.
    const AHEAD_BYTES_MAX: u64 = 2 * CHUNK_BYTES as u64;
    let (_folder, store) = store();
    let root = store.root.clone();
    let content = stream::iter(0..CHUNKS).map(move |chunk| {
        let written = match everything(&FolderStore::at(root.clone())) {
            found if found.is_empty() => 0,
            found => found.iter().map(|path| file_bytes(path)).sum(),
        };
        let pulled = chunk * CHUNK_BYTES as u64;
        assert!(pulled - written <= AHEAD_BYTES_MAX, "{pulled} {written}");
        Ok(noise(CHUNK_BYTES))
    });
    let bytes = store
        .put(&name("a"), content.boxed())
        .await
        .expect("stored");
    assert_eq!(bytes, CHUNKS * CHUNK_BYTES as u64);
}

fn file_bytes(path: &Path) -> u64 {
    fs::metadata(path).expect("there").len()
}

/// What a broker leaves that was killed while it put this object.
fn crash(store: &FolderStore, folder: &str, file: &str) -> PathBuf {
    let folder = store.root.join(folder);
    fs::create_dir_all(&folder).expect("made");
    let (unfinished, _) = Unfinished::beside(&folder.join(file)).expect("begun");
    let path = unfinished.path().to_owned();
    std::mem::forget(unfinished);
    fs::write(&path, "half").expect("written");
    path
}

#[tokio::test]
async fn what_a_crash_left_is_listed_and_vanishes() {
    let (_folder, store) = store();
    let left = crash(&store, "a/b", "c");
    let other = crash(&store, "a/b", "c.d");
    assert_eq!(list(&store, "a/").await, ["a/b/c", "a/b/c.d"]);
    assert!(matches!(
        store.get(&name("a/b/c"), 0).await.map(drop),
        Err(BackupStoreError::NotFound(_))
    ));

    store
        .put(&name("a/b/c"), whole(&noise(5)))
        .await
        .expect("stored");
    assert!(!left.exists() && other.exists());

    crash(&store, "a/b", "c");
    for left in list(&store, "a/").await {
        store.delete(&name(&left)).await.expect("deleted");
    }
    assert!(everything(&store).is_empty());
}

#[tokio::test]
async fn a_sweep_takes_what_is_old_and_its_empty_folders_along() {
    let (_folder, store) = store();
    store
        .put(&name("a/d"), whole(&noise(5)))
        .await
        .expect("stored");
    let young = crash(&store, "a/e", "f");
    for (folder, file) in [("a/b", "c"), ("a", "d")] {
        let path = crash(&store, folder, file);
        let old = fs::File::options().write(true).open(path).expect("opened");
        let then = std::time::SystemTime::now() - Duration::from_secs(7200);
        old.set_modified(then).expect("set back");
    }
    assert_eq!(store.sweep(Duration::from_secs(3600)).await.ok(), Some(2));
    assert!(young.exists() && !store.root.join("a/b").exists());
    assert_eq!(list(&store, "").await, ["a/d", "a/e/f"]);
    assert_eq!(everything(&store).len(), 4);
}

#[tokio::test]
async fn puts_and_deletes_side_by_side_do_not_disturb_each_other() {
    let (_folder, store) = store();
    let churn = |worker: u32| {
        let store = store.clone();
        tokio::spawn(async move {
            let name = name(&format!("deployment/{worker}/file"));
            for _ in 0..50 {
                store.put(&name, whole(&noise(10))).await.expect("stored");
                store.delete(&name).await.expect("deleted");
            }
        })
    };
    for worker in (0..4).map(churn).collect::<Vec<_>>() {
        worker.await.expect("no worker failed");
    }
    assert!(everything(&store).is_empty());
}

#[tokio::test]
async fn a_store_without_its_mark_is_neither_read_nor_changed() {
    let (_folder, store) = store();
    let [mark, other] = ["a", "b"].map(|digit| digit.repeat(24).parse().expect("an id"));
    let marker = |id: &FolderMark| Marker {
        folder: "backups".to_owned(),
        id: id.clone(),
        path: None,
    };
    let store = store.marked(Some(mark));
    for there in [None, Some(marker(&other))] {
        if let Some(marker) = &there {
            folder::mark(&store.root, marker).expect("marked");
        }
        let results = [
            store.put(&name("a/b"), whole(&noise(1))).await.map(drop),
            store.get(&name("a/b"), 0).await.map(drop),
            store.delete(&name("a/b")).await,
            store.list("").try_next().await.map(drop),
            store.room_for(1).await,
            store.sweep(Duration::ZERO).await.map(drop),
            store.check().await,
        ];
        for result in results {
            assert!(
                matches!(result, Err(BackupStoreError::Absent { .. })),
                "{there:?}: {result:?}"
            );
        }
    }
    let mark = store.mark.clone().expect("a mark");
    folder::mark(&store.root, &marker(&mark)).expect("marked");
    store
        .put(&name("a/b"), whole(&noise(1)))
        .await
        .expect("stored");
    assert_eq!(list(&store, "").await, ["a/b"]);
}

#[tokio::test]
async fn more_than_the_disk_has_does_not_fit() {
    let (_folder, store) = store();
    store.room_for(1).await.expect("room for a byte");
    assert!(matches!(
        store.room_for(u64::MAX).await,
        Err(BackupStoreError::Full { needed: u64::MAX, free }) if free > Some(DISK_RESERVE_BYTES)
    ));
}
