//! Backups as files below one folder.
//!
//! An object is written beside its place under a hidden temporary name and renamed into it after
//! its bytes are on the disk, so a crash at any moment leaves the whole object or a temporary
//! file, never half an object. A failed or dropped put takes its temporary file along (one that is
//! dropped during the rename itself may still have stored the whole object). What a crashed broker
//! left is listed under the object's name and goes when the same object is put again or deleted.
//! Folders are made when they are needed and go with their last file.
//!
//! Nothing here blocks the async runtime: files go through [`tokio::fs`], everything else through
//! [`spawn_blocking`]. The one exception is unlinking the temporary file of a dropped put, since
//! nothing else would be sure to happen.

use std::{
    fs, io,
    os::unix::fs::{DirBuilderExt, OpenOptionsExt},
    path::{Path, PathBuf},
};

use async_trait::async_trait;
use futures::StreamExt;
use tokio::{fs::File, io::AsyncWriteExt, task::spawn_blocking};
use tokio_util::io::ReaderStream;
use uuid::Uuid;

use super::{BackupStore, BackupStoreError, object};
use crate::{
    folder,
    model::{
        ids::FolderMark,
        limits::{CHUNK_BYTES, DISK_RESERVE_BYTES},
    },
    stream::ByteStream,
};

/// Backups are for the broker's own user alone.
const FOLDER_MODE: u32 = 0o700;
const FILE_MODE: u32 = 0o600;
/// How often a put makes its folder anew when a delete beside it has just removed it as empty.
const MAKE_FOLDER_ATTEMPTS: u32 = 5;

/// A store in a folder.
#[derive(Debug, Clone)]
pub struct FolderStore {
    root: PathBuf,
    /// What the folder's marker has to say; none: nothing is asked of it.
    mark: Option<FolderMark>,
}

impl FolderStore {
    /// The store in the folder `root`, which is made when it is not there.
    pub fn open(root: PathBuf) -> Result<Self, BackupStoreError> {
        make_folder(&root).map_err(failed("cannot open the folder of backups", ""))?;
        Ok(Self { root, mark: None })
    }

    /// The same store, which from now on is only where this mark is.
    pub fn marked(self, mark: FolderMark) -> Self {
        Self {
            mark: Some(mark),
            ..self
        }
    }

    fn place(&self, name: &str) -> Result<Place, BackupStoreError> {
        if !object::is_name(name) {
            return Err(BackupStoreError::BadName(name.to_owned()));
        }
        let (folder, file) = name.rsplit_once('/').unwrap_or(("", name));
        Ok(Place {
            root: self.root.clone(),
            folder: self.root.join(folder),
            file: file.to_owned(),
        })
    }

    /// The body of [`BackupStore::put`]; `written` tells how far it came.
    async fn write(
        &self,
        name: &str,
        mut content: ByteStream,
        written: &mut u64,
    ) -> Result<(), BackupStoreError> {
        let place = self.place(name)?;
        self.check().await?;
        let failed = || failed("cannot store", name);
        let (temporary, file) = blocking(move || Temporary::create(place))
            .await
            .map_err(failed())?;
        let mut file = File::from_std(file);
        while let Some(chunk) = content.next().await {
            let chunk = chunk.map_err(BackupStoreError::of_source)?;
            *written += chunk.len() as u64;
            file.write_all(&chunk).await.map_err(failed())?;
        }
        // Without the flush, the error of the last write would be lost.
        file.flush().await.map_err(failed())?;
        file.sync_all().await.map_err(failed())?;
        blocking(move || temporary.publish())
            .await
            .map_err(failed())
    }

    async fn free_bytes(&self) -> Result<u64, BackupStoreError> {
        self.check().await?;
        let root = self.root.clone();
        let volume = blocking(move || Ok(rustix::fs::statvfs(&root)?))
            .await
            .map_err(failed("cannot tell the free room for backups", ""))?;
        Ok(volume.f_bavail.saturating_mul(volume.f_frsize))
    }
}

#[async_trait]
impl BackupStore for FolderStore {
    async fn check(&self) -> Result<(), BackupStoreError> {
        let Some(mark) = &self.mark else {
            return Ok(());
        };
        let root = self.root.clone();
        let found = blocking(move || folder::marker(&root))
            .await
            .map_err(failed("cannot read the marker of the backup store", ""))?;
        let reason = match found {
            Some(found) if found.id == *mark => return Ok(()),
            Some(found) => format!("its marker is {}, not {mark}", found.id),
            None => format!("it has no {}", folder::MARKER),
        };
        Err(BackupStoreError::Absent {
            folder: self.root.display().to_string(),
            reason,
        })
    }

    async fn put(&self, name: &str, content: ByteStream) -> Result<u64, BackupStoreError> {
        let mut written = 0;
        match self.write(name, content, &mut written).await {
            Ok(()) => Ok(written),
            Err(BackupStoreError::Io { source, .. }) if is_full(&source) => {
                Err(BackupStoreError::Full {
                    needed: written,
                    free: self.free_bytes().await?,
                })
            }
            Err(error) => Err(error),
        }
    }

    async fn get(&self, name: &str) -> Result<ByteStream, BackupStoreError> {
        let path = self.place(name)?.target();
        let opened = async {
            let file = File::open(path).await?;
            let is_file = file.metadata().await?.is_file();
            is_file
                .then_some(file)
                .ok_or(io::ErrorKind::NotFound.into())
        };
        match opened.await {
            Ok(file) => Ok(ReaderStream::with_capacity(file, CHUNK_BYTES).boxed()),
            Err(error) if is_absent(&error) => {
                self.check().await?;
                Err(BackupStoreError::NotFound(name.to_owned()))
            }
            Err(error) => Err(failed("cannot open", name)(error)),
        }
    }

    async fn delete(&self, name: &str) -> Result<(), BackupStoreError> {
        let place = self.place(name)?;
        self.check().await?;
        blocking(move || place.clear())
            .await
            .map_err(failed("cannot delete", name))
    }

    async fn list(&self, prefix: &str) -> Result<Vec<String>, BackupStoreError> {
        // Only whole parts of the prefix are a folder; `ab` also begins `abc/d`.
        let folder = prefix.rsplit_once('/').map_or("", |(folder, _)| folder);
        if !folder.is_empty() && !object::is_name(folder) {
            return Err(BackupStoreError::BadName(prefix.to_owned()));
        }
        self.check().await?;
        let (root, folder) = (self.root.clone(), folder.to_owned());
        let mut names = blocking(move || names_below(&root, &folder))
            .await
            .map_err(failed("cannot list", prefix))?;
        names.retain(|name| name.starts_with(prefix));
        names.sort_unstable();
        names.dedup();
        Ok(names)
    }

    async fn room_for(&self, bytes: u64) -> Result<(), BackupStoreError> {
        let needed = bytes.saturating_add(DISK_RESERVE_BYTES);
        let free = self.free_bytes().await?;
        if free < needed {
            return Err(BackupStoreError::Full { needed, free });
        }
        Ok(())
    }
}

/// Where one object lives.
#[derive(Debug)]
struct Place {
    root: PathBuf,
    folder: PathBuf,
    file: String,
}

impl Place {
    fn target(&self) -> PathBuf {
        self.folder.join(&self.file)
    }

    /// Removes the object, its leftovers and the folders that are empty then, durably.
    fn clear(&self) -> io::Result<()> {
        allow_absent(fs::remove_file(self.target()))?;
        self.clear_leftovers()?;
        self.sync_up_from(self.remove_empty_folders()?)
    }

    /// Removes the temporary files of this object.
    fn clear_leftovers(&self) -> io::Result<()> {
        for entry in entries(&self.folder)? {
            let entry = entry?;
            if entry.file_name().to_str().and_then(temporary_of) == Some(&self.file) {
                allow_absent(fs::remove_file(entry.path()))?;
            }
        }
        Ok(())
    }

    /// Removes the folder and those above it as far as they are empty, never the root; returns
    /// the first that stays.
    fn remove_empty_folders(&self) -> io::Result<&Path> {
        let below_root = |folder: &&Path| *folder != self.root;
        for folder in self.folder.ancestors().take_while(below_root) {
            match fs::remove_dir(folder) {
                Err(error) if error.kind() == io::ErrorKind::DirectoryNotEmpty => {
                    return Ok(folder);
                }
                result => allow_absent(result)?,
            }
        }
        Ok(&self.root)
    }

    /// Makes what changed in `folder`, and its own place below the root, survive a power cut.
    fn sync_up_from(&self, folder: &Path) -> io::Result<()> {
        let below_root = |folder: &&Path| *folder != self.root;
        for folder in folder.ancestors().take_while(below_root) {
            // A delete beside this may just have removed a folder that was empty.
            allow_absent(sync_folder(folder))?;
        }
        sync_folder(&self.root)
    }
}

/// The unfinished file of a put; gone when dropped before it was published.
struct Temporary {
    place: Place,
    path: PathBuf,
    published: bool,
}

impl Temporary {
    fn create(place: Place) -> io::Result<(Self, fs::File)> {
        // Of two puts of one object at once, the later one wins and the earlier one fails.
        place.clear_leftovers()?;
        let path = place.folder.join(temporary_name(&place.file));
        let mut attempt = 1;
        let file = loop {
            match make_folder(&place.folder).and_then(|()| make_file(&path)) {
                Err(error) if is_absent(&error) && attempt < MAKE_FOLDER_ATTEMPTS => attempt += 1,
                result => break result?,
            }
        };
        let temporary = Self {
            place,
            path,
            published: false,
        };
        Ok((temporary, file))
    }

    fn publish(mut self) -> io::Result<()> {
        let target = self.place.target();
        fs::rename(&self.path, &target)?;
        self.published = true;
        self.place
            .sync_up_from(&self.place.folder)
            .inspect_err(|_| {
                // An object that may vanish with the next power cut is none.
                let _ = fs::remove_file(&target);
            })
    }
}

impl Drop for Temporary {
    fn drop(&mut self) {
        if self.published {
            return;
        }
        let removed = allow_absent(fs::remove_file(&self.path))
            .and_then(|()| self.place.remove_empty_folders().map(drop));
        if let Err(error) = removed {
            log::warn!(
                "cannot remove the unfinished {}: {error}",
                self.path.display()
            );
        }
    }
}

fn temporary_name(file: &str) -> String {
    format!(".{file}.{}.tmp", Uuid::new_v4().simple())
}

/// The object's file whose temporary name this is.
fn temporary_of(name: &str) -> Option<&str> {
    let (file, _random) = name
        .strip_prefix('.')?
        .strip_suffix(".tmp")?
        .rsplit_once('.')?;
    object::is_part(file).then_some(file)
}

/// Names of all objects below `folder` of `root`, unfinished ones too; what cannot be of ours
/// (`lost+found`) is passed over.
fn names_below(root: &Path, folder: &str) -> io::Result<Vec<String>> {
    let mut names = Vec::new();
    let mut folders = vec![folder.to_owned()];
    while let Some(folder) = folders.pop() {
        for entry in entries(&root.join(&folder))? {
            let entry = entry?;
            let file = entry.file_name();
            let Some(file) = file.to_str().map(|file| temporary_of(file).unwrap_or(file)) else {
                continue;
            };
            if !object::is_part(file) {
                continue;
            }
            let name = match folder.as_str() {
                "" => file.to_owned(),
                folder => format!("{folder}/{file}"),
            };
            match entry.file_type()? {
                kind if kind.is_dir() => folders.push(name),
                kind if kind.is_file() => names.push(name),
                _ => {}
            }
        }
    }
    Ok(names)
}

/// What is in a folder; nothing when there is no such folder.
fn entries(folder: &Path) -> io::Result<impl Iterator<Item = io::Result<fs::DirEntry>>> {
    let entries = match fs::read_dir(folder) {
        Err(error) if is_absent(&error) => None,
        result => Some(result?),
    };
    Ok(entries.into_iter().flatten())
}

fn make_folder(folder: &Path) -> io::Result<()> {
    fs::DirBuilder::new()
        .recursive(true)
        .mode(FOLDER_MODE)
        .create(folder)
}

fn make_file(path: &Path) -> io::Result<fs::File> {
    fs::OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(FILE_MODE)
        .open(path)
}

fn sync_folder(folder: &Path) -> io::Result<()> {
    fs::File::open(folder)?.sync_all()
}

fn allow_absent(result: io::Result<()>) -> io::Result<()> {
    result.or_else(|error| {
        if is_absent(&error) {
            Ok(())
        } else {
            Err(error)
        }
    })
}

fn is_absent(error: &io::Error) -> bool {
    error.kind() == io::ErrorKind::NotFound
}

fn is_full(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded
    )
}

fn failed(doing: &str, name: &str) -> impl FnOnce(io::Error) -> BackupStoreError {
    let doing = format!("{doing} {name}").trim_end().to_owned();
    |source| BackupStoreError::Io { doing, source }
}

async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> io::Result<T> + Send + 'static,
) -> io::Result<T> {
    spawn_blocking(work).await?
}

#[cfg(test)]
mod tests {
    use std::{os::unix::fs::PermissionsExt, process::Command, time::Duration};

    use bytes::Bytes;
    use futures::stream;

    use super::*;
    use crate::backup_store::samples::{broken, chunked, collect, noise, store, whole};
    use crate::model::marker::Marker;

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

    async fn content_of(store: &FolderStore, name: &str) -> Bytes {
        let content = store.get(name).await.expect("an object");
        collect(content).await.expect("readable")
    }

    #[tokio::test]
    async fn an_object_is_stored_replaced_listed_and_deleted() {
        let (_folder, store) = store();
        let (first, second) = (noise(300_000), noise(10));
        assert_eq!(store.put("a/b/c", whole(&first)).await.ok(), Some(300_000));
        assert_eq!(content_of(&store, "a/b/c").await, first);
        store.put("a/b/c", whole(&second)).await.expect("stored");
        assert_eq!(content_of(&store, "a/b/c").await, second);
        assert_eq!(store.list("a/").await.expect("listed"), ["a/b/c"]);
        for path in everything(&store) {
            let expected = if path.is_dir() { 0o700 } else { 0o600 };
            assert_eq!(mode(&path), expected, "{}", path.display());
        }
        for _ in 0..2 {
            store.delete("a/b/c").await.expect("deleted");
            assert!(everything(&store).is_empty());
        }
        assert!(matches!(
            store.get("a/b/c").await.map(drop),
            Err(BackupStoreError::NotFound(name)) if name == "a/b/c"
        ));
    }

    #[tokio::test]
    async fn a_folder_is_no_object() {
        let (_folder, store) = store();
        store.put("a/b", whole(&noise(1))).await.expect("stored");
        assert!(matches!(
            store.get("a").await.map(drop),
            Err(BackupStoreError::NotFound(_))
        ));
    }

    #[tokio::test]
    async fn deleting_spares_the_neighbours() {
        let (_folder, store) = store();
        for name in ["a/b/c", "a/b/d", "a/e/c", "f"] {
            store.put(name, whole(&noise(1))).await.expect("stored");
        }
        store.delete("a/b/c").await.expect("deleted");
        store.delete("a/e/c").await.expect("deleted");
        assert_eq!(store.list("").await.expect("listed"), ["a/b/d", "f"]);
        assert!(!store.root.join("a/e").exists());
    }

    #[tokio::test]
    async fn a_prefix_need_not_end_at_a_part() {
        let (_folder, store) = store();
        for name in ["ab/c", "ab/d", "abc/e", "x"] {
            store.put(name, whole(&noise(1))).await.expect("stored");
        }
        fs::create_dir(store.root.join("lost+found")).expect("made");
        for (prefix, names) in [
            ("", &["ab/c", "ab/d", "abc/e", "x"][..]),
            ("ab", &["ab/c", "ab/d", "abc/e"]),
            ("ab/", &["ab/c", "ab/d"]),
            ("ab/d", &["ab/d"]),
            ("nothing/", &[]),
        ] {
            assert_eq!(store.list(prefix).await.expect("listed"), names, "{prefix}");
        }
    }

    #[tokio::test]
    async fn a_stream_that_breaks_off_leaves_nothing() {
        let (_folder, store) = store();
        let result = store.put("a/b/c", broken(&noise(3_000_000))).await;
        assert!(
            matches!(&result, Err(BackupStoreError::BrokenSource(reason))
                if reason == "the member went away"),
            "{result:?}"
        );
        assert!(everything(&store).is_empty());
    }

    #[tokio::test]
    async fn a_put_that_fails_keeps_the_older_object() {
        let (_folder, store) = store();
        let content = noise(1000);
        store.put("a/b", whole(&content)).await.expect("stored");
        assert!(store.put("a/b", broken(&noise(70_000))).await.is_err());
        assert_eq!(content_of(&store, "a/b").await, content);
        assert_eq!(everything(&store).len(), 2);
    }

    #[tokio::test]
    async fn a_dropped_put_leaves_nothing() {
        let (_folder, store) = store();
        let endless = whole(&noise(3_000_000)).chain(stream::pending());
        let put = store.put("a/b/c", endless.boxed());
        let dropped = tokio::time::timeout(Duration::from_millis(200), put).await;
        assert!(dropped.is_err(), "the put cannot have ended");
        assert!(everything(&store).is_empty());
    }

    #[tokio::test]
    async fn a_put_dropped_at_any_step_leaves_all_or_nothing() {
        let (_folder, store) = store();
        let content = noise(100_000);
        for steps in 0..30 {
            let mut put = store.put("a/b/c", whole(&content));
            for _ in 0..steps {
                if futures::poll!(&mut put).is_ready() {
                    break;
                }
                tokio::time::sleep(Duration::from_millis(2)).await;
            }
            drop(put);
            // What was handed to a thread before the drop still comes to its end.
            tokio::time::sleep(Duration::from_millis(20)).await;
            match everything(&store).len() {
                0 => {}
                3 => assert_eq!(content_of(&store, "a/b/c").await, content),
                files => panic!("{files} files and folders after {steps} steps"),
            }
            store.delete("a/b/c").await.expect("deleted");
        }
    }

    #[tokio::test]
    async fn a_put_reads_its_stream_no_faster_than_it_writes() {
        const CHUNKS: u64 = 64;
        // What tokio may hold of a file, and our own chunk.
        const AHEAD_BYTES_MAX: u64 = 2 * CHUNK_BYTES as u64;
        let (_folder, store) = store();
        let root = store.root.clone();
        let content = stream::iter(0..CHUNKS).map(move |chunk| {
            let written = match everything(&FolderStore {
                root: root.clone(),
                mark: None,
            }) {
                found if found.is_empty() => 0,
                found => found.iter().map(|path| file_bytes(path)).sum(),
            };
            let pulled = chunk * CHUNK_BYTES as u64;
            assert!(pulled - written <= AHEAD_BYTES_MAX, "{pulled} {written}");
            Ok(noise(CHUNK_BYTES))
        });
        let bytes = store.put("a", content.boxed()).await.expect("stored");
        assert_eq!(bytes, CHUNKS * CHUNK_BYTES as u64);
    }

    fn file_bytes(path: &Path) -> u64 {
        fs::metadata(path).expect("there").len()
    }

    /// What a broker leaves that was killed while it put this object.
    fn crash(store: &FolderStore, folder: &str, file: &str) -> PathBuf {
        let folder = store.root.join(folder);
        fs::create_dir_all(&folder).expect("made");
        let path = folder.join(temporary_name(file));
        fs::write(&path, "half").expect("written");
        path
    }

    #[tokio::test]
    async fn what_a_crash_left_is_listed_and_vanishes() {
        let (_folder, store) = store();
        let left = crash(&store, "a/b", "c");
        let other = crash(&store, "a/b", "c.d");
        assert_eq!(
            store.list("a/").await.expect("listed"),
            ["a/b/c", "a/b/c.d"]
        );
        assert!(matches!(
            store.get("a/b/c").await.map(drop),
            Err(BackupStoreError::NotFound(_))
        ));

        store.put("a/b/c", whole(&noise(5))).await.expect("stored");
        assert!(!left.exists() && other.exists());

        crash(&store, "a/b", "c");
        for name in store.list("a/").await.expect("listed") {
            store.delete(&name).await.expect("deleted");
        }
        assert!(everything(&store).is_empty());
    }

    #[tokio::test]
    async fn puts_and_deletes_side_by_side_do_not_disturb_each_other() {
        let (_folder, store) = store();
        let churn = |worker: u32| {
            let store = store.clone();
            tokio::spawn(async move {
                let name = format!("deployment/{worker}/file");
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
    async fn hostile_names_are_refused() {
        let (folder, store) = store();
        fs::write(folder.path().join("secret"), "secret").expect("written");
        for name in [
            "",
            "../secret",
            "/etc/passwd",
            "a/../../secret",
            "a//b",
            "a\0",
            "a\\b",
            ".a",
        ] {
            let results = [
                store.put(name, whole(&noise(1))).await.map(drop),
                store.get(name).await.map(drop),
                store.delete(name).await,
            ];
            for result in results {
                assert!(
                    matches!(&result, Err(BackupStoreError::BadName(bad)) if bad == name),
                    "{name:?}: {result:?}"
                );
            }
        }
        assert!(matches!(
            store.list("../").await,
            Err(BackupStoreError::BadName(_))
        ));
        assert!(folder.path().join("secret").exists());
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
        let store = store.marked(mark);
        for there in [None, Some(marker(&other))] {
            if let Some(marker) = &there {
                folder::mark(&store.root, marker).expect("marked");
            }
            let results = [
                store.put("a/b", whole(&noise(1))).await.map(drop),
                store.get("a/b").await.map(drop),
                store.delete("a/b").await,
                store.list("").await.map(drop),
                store.room_for(1).await,
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
        store.put("a/b", whole(&noise(1))).await.expect("stored");
        assert_eq!(store.list("").await.expect("listed"), ["a/b"]);
    }

    #[tokio::test]
    async fn more_than_the_disk_has_does_not_fit() {
        let (_folder, store) = store();
        store.room_for(1).await.expect("room for a byte");
        assert!(matches!(
            store.room_for(u64::MAX).await,
            Err(BackupStoreError::Full { needed: u64::MAX, free }) if free > DISK_RESERVE_BYTES
        ));
    }

    /// A small file system of its own.
    struct SmallDisk(tempfile::TempDir);

    impl SmallDisk {
        const BYTES: u64 = 1024 * 1024;

        fn mount() -> Option<Self> {
            let folder = tempfile::tempdir().expect("a folder");
            let mounted = Command::new("mount")
                .args([
                    "-t",
                    "tmpfs",
                    "-o",
                    &format!("size={}", Self::BYTES),
                    "tmpfs",
                ])
                .arg(folder.path())
                .status();
            mounted
                .is_ok_and(|status| status.success())
                .then(|| Self(folder))
        }
    }

    impl Drop for SmallDisk {
        fn drop(&mut self) {
            let _ = Command::new("umount").arg(self.0.path()).status();
        }
    }

    #[tokio::test]
    async fn a_full_disk_is_told_and_left_clean() {
        let Some(disk) = SmallDisk::mount() else {
            eprintln!("skipped: this machine does not permit mounting a small disk");
            return;
        };
        let store = FolderStore::open(disk.0.path().join("backups")).expect("a store");
        let kept = noise(200_000);
        store.put("a/kept", whole(&kept)).await.expect("stored");
        let large = noise(1_500_000);
        // In one chunk, the very last write is the one that fails.
        for chunk in [32 * 1024, large.len()] {
            let result = store.put("a/b/c", chunked(&large, &[chunk])).await;
            assert!(
                matches!(result, Err(BackupStoreError::Full { needed, free })
                    if needed > free && free > SmallDisk::BYTES / 2),
                "{result:?}"
            );
        }
        assert_eq!(store.list("").await.expect("listed"), ["a/kept"]);
        assert_eq!(content_of(&store, "a/kept").await, kept);
        assert_eq!(everything(&store).len(), 2);
        assert!(matches!(
            store.room_for(1).await,
            Err(BackupStoreError::Full { .. })
        ));
        store
            .put("a/b/c", whole(&noise(500_000)))
            .await
            .expect("fits");
    }
}
