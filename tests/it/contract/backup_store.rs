//! What every store of objects must hold to.
//!
//! Each test is written once, against the trait, and run on each kind of store. A new kind is a
//! [`Kind`] and a line at the end.

use std::{
    fs, io,
    path::{Path, PathBuf},
    process::Command,
    sync::Arc,
    time::Duration,
};

use bytes::Bytes;
use compose_broker::{
    backups::{
        BackupStoreError, ObjectName,
        store::{
            BackupStore, StorePlace as _,
            folder::FolderStore,
            layers::Layers,
            memory::MemoryStore,
            s3::{LockMode, S3Store},
        },
    },
    folder,
    model::{limits::CHUNK_BYTES, marker::Marker},
    stream::ByteStream,
};
use futures::{StreamExt, TryStreamExt, stream};
use tokio::sync::Notify;

use crate::{
    control::now,
    s3::{self, Server, Wanted},
    skipped::skipped,
};

/// What a small store has room for.
const SMALL_BYTES: u64 = 1024 * 1024;

/// A kind of store, and what a test does to one from outside.
trait Kind: Sized {
    /// Whether it knows how much room is left.
    const TELLS_ROOM: bool = true;
    /// Whether it locks objects.
    const LOCKS: bool = false;
    /// An empty store; none where this machine has none, and a line that says so.
    async fn new() -> Option<Self>;
    /// An empty store that has room for [`SMALL_BYTES`]; none where this machine permits none.
    async fn small() -> Option<Self>;
    /// The store.
    fn store(&self) -> &dyn BackupStore;
    /// Leaves behind what a put leaves whose broker was killed that long ago; false where such a
    /// put leaves nothing.
    async fn leave_unfinished(&self, name: &ObjectName, age: Duration) -> bool;
    /// Puts the store out of reach, as a disk that is not mounted, or back.
    async fn take_away(&self, is_away: bool);
}

struct Memory(MemoryStore);

impl Kind for Memory {
    async fn new() -> Option<Self> {
        Some(Self(MemoryStore::default()))
    }
    async fn small() -> Option<Self> {
        Some(Self(MemoryStore::of_size(SMALL_BYTES)))
    }
    fn store(&self) -> &dyn BackupStore {
        &self.0
    }
    async fn leave_unfinished(&self, name: &ObjectName, age: Duration) -> bool {
        self.0.leave_unfinished(name, age);
        true
    }
    async fn take_away(&self, is_away: bool) {
        self.0.take_away(is_away);
    }
}

struct Folder {
    store: FolderStore,
    root: PathBuf,
    _disk: Disk,
}

/// A folder that goes with the test, maybe with a small file system of its own in it.
struct Disk {
    folder: tempfile::TempDir,
    is_mounted: bool,
}

impl Disk {
    fn new() -> Self {
        Self {
            folder: tempfile::tempdir().expect("a folder"),
            is_mounted: false,
        }
    }

    fn small() -> Option<Self> {
        let mut disk = Self::new();
        let size = format!("size={SMALL_BYTES}");
        let mut mount = Command::new("mount");
        mount.args(["-t", "tmpfs", "-o", &size, "tmpfs"]);
        let mounted = mount.arg(disk.folder.path()).status();
        disk.is_mounted = mounted.is_ok_and(|status| status.success());
        disk.is_mounted.then_some(disk)
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        if self.is_mounted {
            let _ = Command::new("umount").arg(self.folder.path()).status();
        }
    }
}

impl Folder {
    fn on(disk: Disk) -> Self {
        let root = disk.folder.path().join("backups");
        fs::create_dir_all(&root).expect("a folder");
        let store = FolderStore::at(root.clone());
        let marker = Marker {
            folder: "backups".to_owned(),
            id: "5ae85b45e5717f0001533192".parse().expect("an id"),
            path: None,
        };
        folder::mark(&root, &marker).expect("marked");
        Self {
            store: store.marked(Some(marker.id)),
            root,
            _disk: disk,
        }
    }

    fn aside(&self) -> PathBuf {
        self.root.with_extension("aside")
    }
}

impl Kind for Folder {
    async fn new() -> Option<Self> {
        Some(Self::on(Disk::new()))
    }
    async fn small() -> Option<Self> {
        Disk::small().map(Self::on)
    }
    fn store(&self) -> &dyn BackupStore {
        &self.store
    }
    async fn leave_unfinished(&self, name: &ObjectName, age: Duration) -> bool {
        let file = self.root.join(name.as_str());
        let folder = file.parent().expect("a folder");
        fs::create_dir_all(folder).expect("made");
        let of = file.file_name().and_then(|name| name.to_str());
        let unfinished = format!(".{}.{}.tmp", of.expect("a name"), age.as_secs());
        let path = folder.join(unfinished);
        fs::write(&path, "half").expect("written");
        set_back(&path, age);
        true
    }
    async fn take_away(&self, is_away: bool) {
        if is_away {
            fs::rename(&self.root, self.aside()).expect("moved");
            fs::create_dir(&self.root).expect("made");
        } else {
            fs::remove_dir(&self.root).expect("still empty");
            fs::rename(self.aside(), &self.root).expect("moved back");
        }
    }
}

/// One store in front of another.
struct Layered {
    store: Layers,
    front: MemoryStore,
    behind: MemoryStore,
}

impl Layered {
    fn on(front: MemoryStore) -> Self {
        let behind = MemoryStore::default();
        let store = Layers::of(Arc::new(front.clone()), vec![Arc::new(behind.clone())]);
        Self {
            store,
            front,
            behind,
        }
    }
}

impl Kind for Layered {
    async fn new() -> Option<Self> {
        Some(Self::on(MemoryStore::default()))
    }
    async fn small() -> Option<Self> {
        Some(Self::on(MemoryStore::of_size(SMALL_BYTES)))
    }
    fn store(&self) -> &dyn BackupStore {
        &self.store
    }
    async fn leave_unfinished(&self, name: &ObjectName, age: Duration) -> bool {
        self.front.leave_unfinished(name, age);
        true
    }
    async fn take_away(&self, is_away: bool) {
        self.front.take_away(is_away);
    }
}

#[tokio::test]
async fn what_is_behind_is_read_listed_and_deleted_there_and_new_objects_go_in_front() {
    let layers = Layered::on(MemoryStore::default());
    let Layered {
        store,
        front,
        behind,
    } = &layers;
    for (text, length) in [("a/old", 10), ("b", 20), ("d", 30)] {
        put(behind, text, &bytes(length)).await;
    }
    put(store, "b", &bytes(21)).await;
    put(store, "c", &bytes(40)).await;
    assert_eq!(list(front, "").await, ["b", "c"]);
    assert_eq!(list(store, "").await, ["a/old", "b", "c", "d"]);
    assert_eq!(list(store, "a/").await, ["a/old"]);
    assert_eq!(read(store, "a/old", 4).await, Some(bytes(10).slice(4..)));
    assert_eq!(read(store, "b", 0).await, Some(bytes(21)), "the newer one");
    store.delete(&name("b")).await.expect("deleted");
    assert_eq!(read(store, "b", 0).await, None);
    store.delete(&name("d")).await.expect("deleted");
    assert_eq!(list(behind, "").await, ["a/old"]);
    for text in ["a/old", "c"] {
        let replaced = store.replace(&name(text), bytes(41)).await;
        replaced.expect("replaced");
    }
    assert_eq!(
        read(behind, "a/old", 0).await,
        Some(bytes(41)),
        "in its place"
    );
    assert_eq!(list(front, "").await, ["c"]);

    // What cannot be looked for is not missing, and new objects go on.
    behind.take_away(true);
    let results = [
        store.check().await,
        store.get(&name("x"), 0).await.map(drop),
        store.delete(&name("c")).await,
        store.list("").try_next().await.map(drop),
        store.sweep(Duration::ZERO).await.map(drop),
    ];
    for result in results {
        let is_away = matches!(result, Err(BackupStoreError::Absent { .. }));
        assert!(is_away, "{result:?}");
    }
    put(store, "e", &bytes(1)).await;
    assert_eq!(
        read(store, "c", 0).await,
        Some(bytes(41)),
        "not even deleted"
    );
}

/// A store in a bucket of a real server.
struct Bucket {
    store: S3Store,
    server: Server,
    _disk: Disk,
}

impl Bucket {
    async fn on(disk: Disk) -> Option<Self> {
        let server = match disk.is_mounted {
            false => Server::start()?,
            true => Server::own(Wanted {
                data: Some(disk.folder.path().to_owned()),
                ..Wanted::default()
            })?,
        };
        Some(Self {
            // Several parts of a large object, and the same for all but the last.
            store: server.store(|s3| s3.part_bytes = 5 * 1024 * 1024).await,
            server,
            _disk: disk,
        })
    }
}

impl Kind for Bucket {
    const TELLS_ROOM: bool = false;

    async fn new() -> Option<Self> {
        Self::on(Disk::new()).await
    }
    async fn small() -> Option<Self> {
        Self::on(Disk::small()?).await
    }
    fn store(&self) -> &dyn BackupStore {
        &self.store
    }
    async fn leave_unfinished(&self, name: &ObjectName, age: Duration) -> bool {
        self.server.leave_upload(name.as_str(), age).await
    }
    async fn take_away(&self, is_away: bool) {
        let mut marker = s3::marker();
        if is_away {
            marker.id = "5ae85b45e5717f00015331ff".parse().expect("an id");
        }
        self.store.mark(&marker).await.expect("marked");
    }
}

/// A store in a bucket that locks objects.
struct LockingBucket {
    store: S3Store,
    _server: Server,
}

impl Kind for LockingBucket {
    const TELLS_ROOM: bool = false;
    const LOCKS: bool = true;

    async fn new() -> Option<Self> {
        let server = Server::start()?;
        let bucket = format!("locked-{}", uuid::Uuid::new_v4().simple());
        if !server.make_locking_bucket(&bucket).await {
            skipped("object lock", "the server makes no bucket that locks");
            return None;
        }
        let mut settings = server.settings();
        settings.lock = Some(LockMode::Governance);
        let place = S3Store::at(&format!("{bucket}/b"), settings).expect("a place");
        place.make().await.expect("a bucket that locks");
        place.mark(&s3::marker()).await.expect("marked");
        let store = place.marked(Some(s3::marker().id));
        Some(Self {
            store,
            _server: server,
        })
    }
    async fn small() -> Option<Self> {
        None
    }
    fn store(&self) -> &dyn BackupStore {
        &self.store
    }
    async fn leave_unfinished(&self, _: &ObjectName, _: Duration) -> bool {
        false
    }
    async fn take_away(&self, _: bool) {}
}

fn set_back(path: &Path, age: Duration) {
    let file = fs::File::options().write(true).open(path).expect("opened");
    let written = file.metadata().and_then(|seen| seen.modified());
    let then = written.expect("a time").checked_sub(age);
    file.set_modified(then.expect("a time")).expect("set back");
}

fn name(text: &str) -> ObjectName {
    ObjectName::found(text).expect("a name")
}

/// Bytes that differ from place to place.
fn bytes(length: usize) -> Bytes {
    let byte = |at: usize| (at % 251) as u8 ^ (at / 65_536) as u8;
    (0..length).map(byte).collect()
}

fn whole(content: &Bytes) -> ByteStream {
    let chunks: Vec<_> = content.chunks(10_000).map(Bytes::copy_from_slice).collect();
    stream::iter(chunks.into_iter().map(Ok)).boxed()
}

/// `content`, and then the connection breaks.
fn broken(content: &Bytes) -> ByteStream {
    let end = io::Error::new(io::ErrorKind::ConnectionReset, "the member went away");
    let end = stream::iter([Err(end)]);
    whole(content).chain(end).boxed()
}

/// A stream that stops in the middle.
struct Halting {
    content: ByteStream,
    /// Says that all before the middle was taken.
    reached: Arc<Notify>,
    /// Lets the rest come.
    go_on: Arc<Notify>,
}

impl Halting {
    fn of(content: &Bytes) -> Self {
        let (reached, go_on) = (Arc::new(Notify::new()), Arc::new(Notify::new()));
        let (before, after) = (content.slice(..content.len() / 2), content.clone());
        let after = after.slice(before.len()..);
        let (says, waits) = (reached.clone(), go_on.clone());
        let rest = stream::once(async move {
            says.notify_one();
            waits.notified().await;
            Ok(after)
        });
        Self {
            content: whole(&before).chain(rest).boxed(),
            reached,
            go_on,
        }
    }
}

async fn put(store: &dyn BackupStore, text: &str, content: &Bytes) {
    let stored = store.put(&name(text), whole(content)).await;
    assert_eq!(stored.expect("stored"), content.len() as u64, "{text}");
}

/// The bytes of an object from a place on; none when there is no object.
async fn read(store: &dyn BackupStore, text: &str, from: u64) -> Option<Bytes> {
    let content = match store.get(&name(text), from).await {
        Ok(content) => content,
        Err(BackupStoreError::NotFound(missing)) => {
            assert_eq!(missing, text);
            return None;
        }
        Err(error) => panic!("{text}: {error}"),
    };
    let parts: Vec<Bytes> = content.try_collect().await.expect("readable");
    Some(parts.concat().into())
}

async fn list(store: &dyn BackupStore, prefix: &str) -> Vec<String> {
    let names = store.list(prefix).map_ok(|name| name.to_string());
    names.try_collect().await.expect("listed")
}

async fn an_object_is_stored_replaced_and_deleted<K: Kind>() {
    let Some(kind) = K::new().await else {
        return;
    };
    let store = kind.store();
    let (first, second) = (bytes(300_000), bytes(10));
    assert_eq!(read(store, "a/b/c", 0).await, None);
    put(store, "a/b/c", &first).await;
    assert_eq!(read(store, "a/b/c", 0).await, Some(first));
    put(store, "a/b/c", &second).await;
    assert_eq!(read(store, "a/b/c", 0).await, Some(second));
    put(store, "empty", &Bytes::new()).await;
    assert_eq!(read(store, "empty", 0).await, Some(Bytes::new()));
    for _ in 0..2 {
        store.delete(&name("a/b/c")).await.expect("deleted");
        assert_eq!(read(store, "a/b/c", 0).await, None);
        assert_eq!(list(store, "").await, ["empty"]);
    }
}

async fn what_is_replaced_has_its_new_content_alone<K: Kind>() {
    let Some(kind) = K::new().await else {
        return;
    };
    let store = kind.store();
    put(store, "a/b", &bytes(300_000)).await;
    put(store, "a/c", &bytes(10)).await;
    for length in [20, 400_000] {
        let content = bytes(length);
        let replaced = store.replace(&name("a/b"), content.clone()).await;
        replaced.expect("replaced");
        assert_eq!(read(store, "a/b", 0).await, Some(content));
    }
    assert_eq!(read(store, "a/c", 0).await, Some(bytes(10)));
    assert_eq!(list(store, "").await, ["a/b", "a/c"]);
    store.delete(&name("a/b")).await.expect("deleted");
    assert_eq!(read(store, "a/b", 0).await, None);
}

async fn what_is_locked_is_read_replaced_and_deleted_like_any_object<K: Kind>() {
    let Some(kind) = K::new().await else {
        return;
    };
    let store = kind.store();
    assert_eq!(store.locks(), K::LOCKS);
    let until = now() + chrono::TimeDelta::seconds(2);
    let missing = store.lock(&name("a"), until).await;
    match K::LOCKS {
        true => assert!(
            matches!(missing, Err(BackupStoreError::NotFound(_))),
            "{missing:?}"
        ),
        false => missing.expect("there is nothing to do"),
    }
    put(store, "a", &bytes(100)).await;
    for _ in 0..2 {
        store.lock(&name("a"), until).await.expect("locked");
    }
    assert_eq!(read(store, "a", 0).await, Some(bytes(100)));
    let replaced = store.replace(&name("a"), bytes(200)).await;
    replaced.expect("replaced");
    assert_eq!(read(store, "a", 0).await, Some(bytes(200)));
    store.lock(&name("a"), until).await.expect("locked");
    // The lock keeps the bytes, under no name that anybody finds.
    store.delete(&name("a")).await.expect("deleted");
    assert_eq!(read(store, "a", 0).await, None);
    put(store, "a", &bytes(5)).await;
    assert_eq!(read(store, "a", 0).await, Some(bytes(5)));
}

async fn reading_begins_where_it_is_asked_to<K: Kind>() {
    let Some(kind) = K::new().await else {
        return;
    };
    let content = bytes(3 * CHUNK_BYTES + 5);
    put(kind.store(), "a", &content).await;
    let chunk = CHUNK_BYTES as u64;
    let length = content.len() as u64;
    for from in [0, 1, chunk - 1, chunk, 2 * chunk + 1, length - 1] {
        let rest = content.slice(from as usize..);
        assert_eq!(read(kind.store(), "a", from).await, Some(rest), "{from}");
    }
    for behind in [length, length + 1, u64::MAX] {
        let nothing = Some(Bytes::new());
        assert_eq!(read(kind.store(), "a", behind).await, nothing, "{behind}");
    }
}

async fn what_is_read_stays_while_it_is_replaced<K: Kind>() {
    let Some(kind) = K::new().await else {
        return;
    };
    let (first, second) = (bytes(4 * CHUNK_BYTES), bytes(100));
    put(kind.store(), "a", &first).await;
    let mut content = kind.store().get(&name("a"), 0).await.expect("an object");
    let begun = content.try_next().await.expect("readable").expect("bytes");
    put(kind.store(), "a", &second).await;
    let rest: Vec<Bytes> = content.try_collect().await.expect("readable");
    assert_eq!([&begun[..], &rest.concat()].concat(), first);
    assert_eq!(read(kind.store(), "a", 0).await, Some(second));
}

async fn a_put_that_breaks_off_leaves_what_was_there<K: Kind>() {
    let Some(kind) = K::new().await else {
        return;
    };
    let store = kind.store();
    let older = bytes(1000);
    put(store, "old", &older).await;
    for length in [0, 70_000, 3_000_000] {
        for text in ["old", "new/object"] {
            let broken = store.put(&name(text), broken(&bytes(length))).await;
            assert!(
                matches!(&broken, Err(BackupStoreError::BrokenSource(reason))
                    if reason == "the member went away"),
                "{broken:?}"
            );
        }
        assert_eq!(list(store, "").await, ["old"]);
        assert_eq!(read(store, "old", 0).await, Some(older.clone()));
    }
}

async fn a_put_that_is_dropped_leaves_what_was_there<K: Kind>() {
    let Some(kind) = K::new().await else {
        return;
    };
    let store = kind.store();
    let older = bytes(1000);
    put(store, "old", &older).await;
    for text in ["old", "new/object"] {
        let object = name(text);
        let halting = Halting::of(&bytes(500_000));
        tokio::select! {
            ended = store.put(&object, halting.content) => panic!("{ended:?}"),
            () = halting.reached.notified() => {}
        }
        assert_eq!(list(store, "").await, ["old"]);
    }
    assert_eq!(read(store, "old", 0).await, Some(older));
}

async fn an_object_is_seen_only_when_it_is_whole<K: Kind>() {
    let Some(kind) = K::new().await else {
        return;
    };
    let store = kind.store();
    let (first, second) = (bytes(200_000), bytes(400_000));
    let object = name("a/b");
    for (before, content) in [(None, first.clone()), (Some(first), second)] {
        let halting = Halting::of(&content);
        let looking = async {
            halting.reached.notified().await;
            let seen = read(store, "a/b", 0).await;
            halting.go_on.notify_one();
            seen
        };
        let (stored, seen) = tokio::join!(store.put(&object, halting.content), looking);
        assert_eq!(seen, before);
        assert_eq!(stored.expect("stored"), content.len() as u64);
        assert_eq!(read(store, "a/b", 0).await, Some(content));
    }
}

async fn names_are_listed_in_order_by_their_prefix<K: Kind>() {
    let Some(kind) = K::new().await else {
        return;
    };
    let store = kind.store();
    let sorted = [
        "A", "a-b/c", "a.b", "a/b", "a/b-c/d", "a/b.c", "ab/c", "ab/d", "abc/e", "b",
    ];
    for text in sorted.iter().rev() {
        put(store, text, &bytes(1)).await;
    }
    for prefix in [
        "", "a", "a/", "a/b", "a/b-", "ab", "ab/", "ab/d", "abc/e", "abc/e/", "b", "c", "nothing/",
    ] {
        let begins = |name: &&str| name.starts_with(prefix);
        let expected: Vec<_> = sorted.into_iter().filter(begins).collect();
        assert_eq!(list(store, prefix).await, expected, "{prefix:?}");
    }
    for no_prefix in ["/", "../", "a//", "./", ".a", "a/../a", "A/"] {
        assert_eq!(list(store, no_prefix).await, [""; 0], "{no_prefix:?}");
    }
}

async fn many_names_are_listed_once_each<K: Kind>() {
    let Some(kind) = K::new().await else {
        return;
    };
    let store = kind.store();
    let names: Vec<_> = (0..1100)
        .map(|at| format!("{:02}/{at:04}", at % 7))
        .collect();
    let putting = stream::iter(&names);
    let at_once = 32;
    putting
        .for_each_concurrent(at_once, |text| async move {
            put(store, text, &Bytes::new()).await;
        })
        .await;
    let mut sorted = names.clone();
    sorted.sort();
    assert_eq!(list(store, "").await, sorted);
    // A list may be given up at any place.
    let few: Vec<_> = store.list("").take(3).try_collect().await.expect("listed");
    assert_eq!(few.len(), 3);
}

async fn deleting_spares_the_neighbours<K: Kind>() {
    let Some(kind) = K::new().await else {
        return;
    };
    let store = kind.store();
    for text in ["a/b/c", "a/b/c.d", "a/b/d", "a/e/c", "f"] {
        put(store, text, &bytes(1)).await;
    }
    store.delete(&name("a/b/c")).await.expect("deleted");
    store.delete(&name("a/e/c")).await.expect("deleted");
    for nothing in ["a/b", "f/g", "x"] {
        store.delete(&name(nothing)).await.expect("nothing to do");
        assert_eq!(read(store, nothing, 0).await, None);
    }
    assert_eq!(list(store, "").await, ["a/b/c.d", "a/b/d", "f"]);
}

async fn what_a_crash_left_is_found_and_goes<K: Kind>() {
    let Some(kind) = K::new().await else {
        return;
    };
    let store = kind.store();
    let age = Duration::from_secs(60);
    if !kind.leave_unfinished(&name("a/b/c"), age).await {
        return;
    }
    kind.leave_unfinished(&name("a/b/c.d"), age).await;
    assert_eq!(list(store, "a/").await, ["a/b/c", "a/b/c.d"]);
    assert_eq!(read(store, "a/b/c", 0).await, None);

    put(store, "a/b/c", &bytes(5)).await;
    store.delete(&name("a/b/c")).await.expect("deleted");
    assert_eq!(
        list(store, "").await,
        ["a/b/c.d"],
        "a put takes its own along"
    );

    put(store, "a/b/e", &bytes(5)).await;
    kind.leave_unfinished(&name("a/b/e"), age).await;
    assert_eq!(list(store, "").await, ["a/b/c.d", "a/b/e"], "each once");
    for left in list(store, "").await {
        store.delete(&name(&left)).await.expect("deleted");
    }
    assert_eq!(list(store, "").await, [""; 0]);
}

async fn a_sweep_takes_what_is_unfinished_and_old<K: Kind>() {
    let Some(kind) = K::new().await else {
        return;
    };
    let store = kind.store();
    let (hour, day) = (Duration::from_secs(3600), Duration::from_secs(24 * 3600));
    put(store, "a/b", &bytes(5)).await;
    let leaves = kind.leave_unfinished(&name("a/b"), 2 * day).await;
    kind.leave_unfinished(&name("c/d/old"), 2 * day).await;
    kind.leave_unfinished(&name("c/d/young"), hour).await;
    let swept = store.sweep(day).await.expect("swept");
    assert_eq!(swept, if leaves { 2 } else { 0 });
    let left: &[&str] = if leaves {
        &["a/b", "c/d/young"]
    } else {
        &["a/b"]
    };
    assert_eq!(list(store, "").await, left);
    assert_eq!(store.sweep(day).await.expect("swept"), 0);
    assert_eq!(read(store, "a/b", 0).await, Some(bytes(5)));
}

async fn a_sweep_lets_a_put_that_is_under_way_go_on<K: Kind>() {
    let Some(kind) = K::new().await else {
        return;
    };
    let store = kind.store();
    let content = bytes(500_000);
    let halting = Halting::of(&content);
    let sweeping = async {
        halting.reached.notified().await;
        let swept = store.sweep(Duration::from_secs(3600)).await;
        halting.go_on.notify_one();
        swept
    };
    let object = name("a/b");
    let (stored, swept) = tokio::join!(store.put(&object, halting.content), sweeping);
    assert_eq!(swept.expect("swept"), 0);
    assert_eq!(stored.expect("stored"), 500_000);
    assert_eq!(read(store, "a/b", 0).await, Some(content));
}

async fn of_puts_of_one_name_one_is_there_as_a_whole<K: Kind>() {
    let Some(kind) = K::new().await else {
        return;
    };
    let store = kind.store();
    let object = name("a/b");
    for _ in 0..20 {
        let contents: Vec<Bytes> = (1..=4).map(|times| bytes(times * 30_000)).collect();
        let puts = contents.iter().map(|c| store.put(&object, whole(c)));
        let results = futures::future::join_all(puts).await;
        assert!(results.iter().any(Result::is_ok), "{results:?}");
        let found = read(store, "a/b", 0).await.expect("an object");
        assert!(contents.contains(&found), "{} bytes", found.len());
        assert_eq!(list(store, "").await, ["a/b"]);
    }
    store.delete(&object).await.expect("deleted");
    assert_eq!(list(store, "").await, [""; 0]);
}

async fn puts_and_deletes_beside_each_other_do_no_harm<K: Kind>() {
    let Some(kind) = K::new().await else {
        return;
    };
    let store = kind.store();
    let churn = |worker: u32| async move {
        let text = format!("deployment/{worker}/file");
        for _ in 0..25 {
            put(store, &text, &bytes(10)).await;
            store.delete(&name(&text)).await.expect("deleted");
        }
    };
    futures::future::join_all((0..4).map(churn)).await;
    assert_eq!(list(store, "").await, [""; 0]);
}

async fn a_large_object_passes_in_small_chunks<K: Kind>() {
    const CHUNKS: usize = 512;
    let Some(kind) = K::new().await else {
        return;
    };
    let chunk = bytes(CHUNK_BYTES);
    let twice = [&chunk[..], &chunk[..]].concat();
    let large = stream::iter(0..CHUNKS).map(move |_| Ok(chunk.clone()));
    let stored = kind.store().put(&name("large"), large.boxed()).await;
    assert_eq!(stored.expect("stored"), (CHUNKS * CHUNK_BYTES) as u64);
    let mut content = kind
        .store()
        .get(&name("large"), 0)
        .await
        .expect("an object");
    let mut passed = 0;
    while let Some(part) = content.try_next().await.expect("readable") {
        assert!(part.len() <= CHUNK_BYTES, "{} bytes at once", part.len());
        assert!(
            part == twice[passed % CHUNK_BYTES..][..part.len()],
            "{passed}"
        );
        passed += part.len();
    }
    assert_eq!(passed, CHUNKS * CHUNK_BYTES);
}

async fn there_is_room_for_a_byte<K: Kind>() {
    let Some(kind) = K::new().await else {
        return;
    };
    kind.store().room_for(1).await.expect("room for a byte");
}

async fn a_full_store_says_so_and_is_left_clean<K: Kind>() {
    let Some(kind) = K::small().await else {
        skipped("a small store", "no volume can be mounted here");
        return;
    };
    let store = kind.store();
    let kept = bytes(200_000);
    put(store, "a/kept", &kept).await;
    let large = bytes(1_500_000);
    // In one chunk, the very last write is the one that fails.
    let at_once = stream::iter([Ok(large.clone())]).boxed();
    for content in [whole(&large), at_once] {
        let full = store.put(&name("a/b/c"), content).await;
        assert!(
            matches!(full, Err(BackupStoreError::Full { needed, free })
                if free.is_none_or(|free| needed > free && free > SMALL_BYTES / 2)
                    && free.is_some() == K::TELLS_ROOM),
            "{full:?}"
        );
        assert_eq!(list(store, "").await, ["a/kept"]);
        assert_eq!(read(store, "a/kept", 0).await, Some(kept.clone()));
    }
    let full = store.room_for(SMALL_BYTES).await;
    let is_full =
        matches!(full, Err(BackupStoreError::Full { needed, free }) if free < Some(needed));
    assert_eq!(is_full, K::TELLS_ROOM, "{full:?}");
    put(store, "a/b/c", &bytes(500_000)).await;
}

async fn a_store_that_is_away_has_lost_nothing<K: Kind>() {
    let Some(kind) = K::new().await else {
        return;
    };
    let store = kind.store();
    store.check().await.expect("there");
    put(store, "a/b", &bytes(100)).await;
    kind.take_away(true).await;
    let object = name("a/b");
    let results = [
        store.check().await,
        store.put(&object, whole(&bytes(1))).await.map(drop),
        store.get(&object, 0).await.map(drop),
        store.replace(&object, bytes(1)).await,
        store.delete(&object).await,
        store.list("").try_next().await.map(drop),
        store.room_for(1).await,
        store.sweep(Duration::ZERO).await.map(drop),
    ];
    for result in results {
        let is_away = matches!(result, Err(BackupStoreError::Absent { .. }));
        assert!(is_away, "{result:?}");
    }
    kind.take_away(false).await;
    store.check().await.expect("there again");
    assert_eq!(read(store, "a/b", 0).await, Some(bytes(100)));
}

/// Runs every test on a kind of store.
macro_rules! contract {
    ($room:ident, $kind:ty) => {
        mod $room {
            use super::*;

            contract!(@tests $kind:
                an_object_is_stored_replaced_and_deleted,
                what_is_replaced_has_its_new_content_alone,
                what_is_locked_is_read_replaced_and_deleted_like_any_object,
                reading_begins_where_it_is_asked_to,
                what_is_read_stays_while_it_is_replaced,
                a_put_that_breaks_off_leaves_what_was_there,
                a_put_that_is_dropped_leaves_what_was_there,
                an_object_is_seen_only_when_it_is_whole,
                names_are_listed_in_order_by_their_prefix,
                many_names_are_listed_once_each,
                deleting_spares_the_neighbours,
                what_a_crash_left_is_found_and_goes,
                a_sweep_takes_what_is_unfinished_and_old,
                a_sweep_lets_a_put_that_is_under_way_go_on,
                of_puts_of_one_name_one_is_there_as_a_whole,
                puts_and_deletes_beside_each_other_do_no_harm,
                a_large_object_passes_in_small_chunks,
                there_is_room_for_a_byte,
                a_full_store_says_so_and_is_left_clean,
                a_store_that_is_away_has_lost_nothing,
            );
        }
    };
    (@tests $kind:ty: $($test:ident),* $(,)?) => {
        $(
            #[tokio::test]
            async fn $test() {
                super::$test::<$kind>().await;
            }
        )*
    };
}

contract!(in_a_folder, Folder);
contract!(in_memory, Memory);
contract!(in_a_bucket, Bucket);
contract!(in_layers, Layered);

/// What locks may change of the contract.
mod in_a_bucket_that_locks {
    use super::*;

    contract!(@tests LockingBucket:
        an_object_is_stored_replaced_and_deleted,
        what_is_replaced_has_its_new_content_alone,
        what_is_locked_is_read_replaced_and_deleted_like_any_object,
    );
}
