//! Backups as files below one folder.
//!
//! An object is written beside its place under a hidden temporary name and renamed into it after
//! its bytes are on the disk, so a crash at any moment leaves the whole object or a temporary
//! file, never half an object. A failed or dropped put takes its temporary file along (one that is
//! dropped during the rename itself may still have stored the whole object). What a crashed broker
//! left is listed under the object's name and goes when the same object is put again or deleted, or
//! with a sweep.
//! Folders are made when they are needed and go with their last file.
//!
//! Nothing here blocks the async runtime: files go through [`tokio::fs`], everything else through
//! [`spawn_blocking`]. The one exception is unlinking the temporary file of a dropped put, since
//! nothing else would be sure to happen.

use std::{
    fs, io,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use async_trait::async_trait;
use futures::{StreamExt, TryFutureExt, stream};
use tokio::{
    fs::File,
    io::{AsyncSeekExt, AsyncWriteExt},
    task::spawn_blocking,
};
use tokio_util::io::ReaderStream;

use super::{BackupStore, NameStream, SharedPlace, StoreKind, StorePlace, StoreSettings};
use crate::{
    backups::{BackupStoreError, ObjectName, name::is_part},
    disk::{self, Unfinished},
    folder,
    model::{
        ids::FolderMark,
        limits::{CHUNK_BYTES, DISK_RESERVE_BYTES},
        marker::Marker,
    },
    stream::ByteStream,
};

/// The kind of stores that are a folder of this machine.
pub(super) const KIND: StoreKind = StoreKind {
    scheme: "file",
    form: FORM,
    read,
};

const FORM: &str = "file:// and an absolute path";

fn read(path: &str, _: &StoreSettings) -> Result<SharedPlace, String> {
    let path = Path::new(path);
    if path.is_absolute() {
        Ok(Arc::new(FolderStore::at(path.to_owned())))
    } else {
        Err(format!("is not {FORM}"))
    }
}

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
    /// The store in the folder `root`, whether that is there or not.
    pub fn at(root: PathBuf) -> Self {
        Self { root, mark: None }
    }

    /// The same store, which is only where this mark is, if there is one.
    pub fn marked(&self, mark: Option<FolderMark>) -> Self {
        Self {
            root: self.root.clone(),
            mark,
        }
    }

    fn place(&self, name: &ObjectName) -> ObjectFile {
        let name = name.as_str();
        let (folder, file) = name.rsplit_once('/').unwrap_or(("", name));
        ObjectFile {
            root: self.root.clone(),
            folder: self.root.join(folder),
            file: file.to_owned(),
        }
    }

    /// The body of [`BackupStore::put`]; `written` tells how far it came.
    async fn write(
        &self,
        name: &ObjectName,
        mut content: ByteStream,
        written: &mut u64,
    ) -> Result<(), BackupStoreError> {
        let place = self.place(name);
        self.check().await?;
        let failed = || failed(format!("cannot store {name}"));
        let (begun, file) = blocking(move || Begun::at(place)).await.map_err(failed())?;
        let mut file = File::from_std(file);
        while let Some(chunk) = content.next().await {
            let chunk = chunk.map_err(BackupStoreError::of_source)?;
            *written += chunk.len() as u64;
            file.write_all(&chunk).await.map_err(failed())?;
        }
        disk::sync(&mut file).await.map_err(failed())?;
        blocking(move || begun.publish()).await.map_err(failed())
    }

    async fn free_bytes(&self) -> Result<u64, BackupStoreError> {
        self.check().await?;
        let root = self.root.clone();
        let space = blocking(move || disk::space(&root))
            .await
            .map_err(failed("cannot find out the free room for backups"))?;
        Ok(space.free)
    }
}

#[async_trait]
impl StorePlace for FolderStore {
    fn folder(&self) -> Option<&Path> {
        Some(&self.root)
    }

    fn shown(&self) -> String {
        self.root.display().to_string()
    }

    async fn make(&self) -> Result<(), BackupStoreError> {
        let root = self.root.clone();
        blocking(move || disk::make_folder(&root))
            .await
            .map_err(failed("cannot open the folder of backups"))
    }

    fn store(&self, mark: Option<FolderMark>) -> Arc<dyn BackupStore> {
        Arc::new(self.marked(mark))
    }

    async fn marker(&self) -> Result<Option<Marker>, BackupStoreError> {
        let root = self.root.clone();
        blocking(move || folder::marker(&root))
            .await
            .map_err(failed("cannot read the marker of the backup store"))
    }
}

#[async_trait]
impl BackupStore for FolderStore {
    async fn check(&self) -> Result<(), BackupStoreError> {
        let Some(mark) = &self.mark else {
            return Ok(());
        };
        let reason = match self.marker().await? {
            Some(found) if found.id == *mark => return Ok(()),
            Some(found) => format!("its marker is {}, not {mark}", found.id),
            None => format!("it has no {}; is its disk mounted?", folder::MARKER),
        };
        Err(BackupStoreError::Absent {
            folder: self.root.display().to_string(),
            reason,
        })
    }

    async fn put(&self, name: &ObjectName, content: ByteStream) -> Result<u64, BackupStoreError> {
        let mut written = 0;
        match self.write(name, content, &mut written).await {
            Ok(()) => Ok(written),
            Err(BackupStoreError::Io { source, .. }) if disk::is_full(&source) => {
                Err(BackupStoreError::Full {
                    needed: written,
                    free: Some(self.free_bytes().await?),
                })
            }
            Err(error) => Err(error),
        }
    }

    async fn get(&self, name: &ObjectName, from: u64) -> Result<ByteStream, BackupStoreError> {
        let path = self.place(name).target();
        let opened = async {
            let mut file = File::open(path).await?;
            let metadata = file.metadata().await?;
            if !metadata.is_file() {
                return Err(io::ErrorKind::NotFound.into());
            }
            file.seek(io::SeekFrom::Start(from.min(metadata.len())))
                .await?;
            Ok(file)
        };
        match opened.await {
            Ok(file) => Ok(ReaderStream::with_capacity(file, CHUNK_BYTES).boxed()),
            Err(error) if disk::is_absent(&error) => {
                self.check().await?;
                Err(BackupStoreError::NotFound(name.to_string()))
            }
            Err(error) => Err(failed(format!("cannot open {name}"))(error)),
        }
    }

    async fn delete(&self, name: &ObjectName) -> Result<(), BackupStoreError> {
        let place = self.place(name);
        self.check().await?;
        blocking(move || place.clear())
            .await
            .map_err(failed(format!("cannot delete {name}")))
    }

    fn list(&self, prefix: &str) -> NameStream {
        let (store, prefix) = (self.clone(), prefix.to_owned());
        let begin = async move {
            store.check().await?;
            Ok(Walk::of(store.root, prefix).names())
        };
        begin.try_flatten_stream().boxed()
    }

    async fn room_for(&self, bytes: u64) -> Result<(), BackupStoreError> {
        let needed = bytes.saturating_add(DISK_RESERVE_BYTES);
        let free = self.free_bytes().await?;
        if free < needed {
            return Err(BackupStoreError::Full {
                needed,
                free: Some(free),
            });
        }
        Ok(())
    }

    async fn sweep(&self, older_than: Duration) -> Result<u64, BackupStoreError> {
        self.check().await?;
        let root = self.root.clone();
        blocking(move || sweep_below(&root, older_than))
            .await
            .map_err(failed("cannot sweep the folder of backups"))
    }
}

/// Where one object lives.
#[derive(Debug)]
struct ObjectFile {
    root: PathBuf,
    folder: PathBuf,
    file: String,
}

impl ObjectFile {
    fn target(&self) -> PathBuf {
        self.folder.join(&self.file)
    }

    /// Removes the object, its leftovers and the folders that are empty then, durably.
    fn clear(&self) -> io::Result<()> {
        match fs::remove_file(self.target()) {
            // A folder is no object.
            Err(error) if error.kind() == io::ErrorKind::IsADirectory => {}
            removed => allow_absent(removed)?,
        }
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
            allow_absent(disk::sync_folder(folder))?;
        }
        disk::sync_folder(&self.root)
    }
}

/// The unfinished object of a put; gone with its folders when dropped before it was published.
struct Begun {
    // Dropped in this order.
    file: Unfinished,
    folders: Folders,
}

/// The folders of an object; those that are empty in the end go.
struct Folders(ObjectFile);

impl Begun {
    fn at(place: ObjectFile) -> io::Result<(Self, fs::File)> {
        // Of two puts of one object at once, the later one wins and the earlier one fails.
        place.clear_leftovers()?;
        let folders = Folders(place);
        let begin = |place: &ObjectFile| {
            disk::make_folder(&place.folder)?;
            Unfinished::beside(&place.target())
        };
        let mut attempt = 1;
        let (file, opened) = loop {
            match begin(&folders.0) {
                Err(error) if disk::is_absent(&error) && attempt < MAKE_FOLDER_ATTEMPTS => {
                    attempt += 1;
                }
                result => break result?,
            }
        };
        Ok((Self { file, folders }, opened))
    }

    fn publish(self) -> io::Result<()> {
        let place = &self.folders.0;
        self.file.take_name()?;
        place.sync_up_from(&place.folder).inspect_err(|_| {
            // An object that may vanish with the next power cut is none.
            let _ = fs::remove_file(place.target());
        })
    }
}

impl Drop for Folders {
    fn drop(&mut self) {
        if let Err(error) = self.0.remove_empty_folders() {
            log::warn!(
                "cannot remove the empty {}: {error}",
                self.0.folder.display()
            );
        }
    }
}

/// The object's file that was to be made under this temporary name.
fn temporary_of(name: &str) -> Option<&str> {
    disk::finished_name(name).filter(|file| is_part(file))
}

/// A walk over the names that begin with a prefix. It holds what is in one folder, and in those
/// that lead to it.
struct Walk {
    root: PathBuf,
    prefix: String,
    /// What is still ahead in each of the folders on the way, the next one at the end.
    ahead: Vec<Vec<Entry>>,
}

/// What is in a folder. Objects stand where their names stand among all names: a folder begins
/// those of what is in it with its own and `/`.
#[derive(Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Entry {
    /// A folder, with `/` at its end.
    Folder(String),
    Object(ObjectName),
}

impl Entry {
    fn text(&self) -> &str {
        match self {
            Self::Folder(text) => text,
            Self::Object(name) => name.as_str(),
        }
    }
}

impl Walk {
    fn of(root: PathBuf, prefix: String) -> Self {
        // Only whole parts of the prefix are a folder; `ab` also begins `abc/d`.
        let start = match prefix.rsplit_once('/') {
            None => Some(String::new()),
            // No name begins with what is none.
            Some((folder, _)) => ObjectName::found(folder).map(|folder| format!("{folder}/")),
        };
        Self {
            root,
            prefix,
            ahead: vec![start.map(Entry::Folder).into_iter().collect()],
        }
    }

    fn names(self) -> NameStream {
        stream::try_unfold(self, |mut walk| async move {
            let next = walk.next().await;
            let next = next.map_err(failed(format!("cannot list {}", walk.prefix)))?;
            Ok(next.map(|name| (name, walk)))
        })
        .boxed()
    }

    async fn next(&mut self) -> io::Result<Option<ObjectName>> {
        while let Some(folder) = self.ahead.last_mut() {
            match folder.pop() {
                None => {
                    self.ahead.pop();
                }
                Some(entry) if !self.may_begin(entry.text()) => {}
                Some(Entry::Object(name)) => return Ok(Some(name)),
                Some(Entry::Folder(folder)) => {
                    let root = self.root.clone();
                    let entries = blocking(move || entries_backwards(&root, &folder)).await?;
                    self.ahead.push(entries);
                }
            }
        }
        Ok(None)
    }

    /// Whether names that begin with `text` may begin with the prefix.
    fn may_begin(&self, text: &str) -> bool {
        let is_above = text.is_empty() || text.ends_with('/');
        text.starts_with(&self.prefix) || is_above && self.prefix.starts_with(text)
    }
}

/// What is in `folder` of `root`, sorted backwards, unfinished objects too, each once; what cannot
/// be of ours (`lost+found`) is passed over.
fn entries_backwards(root: &Path, folder: &str) -> io::Result<Vec<Entry>> {
    let mut found = Vec::new();
    for entry in entries(&root.join(folder))? {
        let entry = entry?;
        let file = entry.file_name();
        let Some(file) = file.to_str().map(|file| temporary_of(file).unwrap_or(file)) else {
            continue;
        };
        let Some(name) = ObjectName::found(&format!("{folder}{file}")) else {
            continue;
        };
        match entry.file_type()? {
            kind if kind.is_dir() => found.push(Entry::Folder(format!("{name}/"))),
            kind if kind.is_file() => found.push(Entry::Object(name)),
            _ => {}
        }
    }
    found.sort_unstable_by(|one, other| other.text().cmp(one.text()));
    found.dedup();
    Ok(found)
}

/// Removes unfinished objects that are older than that, and the folders that are empty then.
fn sweep_below(root: &Path, older_than: Duration) -> io::Result<u64> {
    let mut swept = 0;
    let mut folders = vec![root.to_owned()];
    while let Some(folder) = folders.pop() {
        for entry in entries(&folder)? {
            let entry = entry?;
            let (path, name) = (entry.path(), entry.file_name());
            let Some(name) = name.to_str() else {
                continue;
            };
            let kind = entry.file_type()?;
            if kind.is_dir() && is_part(name) {
                folders.push(path);
            } else if kind.is_file()
                && let Some(file) = temporary_of(name)
                && is_older(&path, older_than)?
            {
                let place = ObjectFile {
                    root: root.to_owned(),
                    folder: folder.clone(),
                    file: file.to_owned(),
                };
                allow_absent(fs::remove_file(path))?;
                place.sync_up_from(place.remove_empty_folders()?)?;
                swept += 1;
            }
        }
    }
    Ok(swept)
}

/// Whether nothing was written to a file for so long; one that is gone is not.
fn is_older(path: &Path, than: Duration) -> io::Result<bool> {
    let modified = match fs::metadata(path) {
        Err(error) if disk::is_absent(&error) => return Ok(false),
        metadata => metadata?.modified()?,
    };
    // One of the future is young.
    Ok(modified.elapsed().is_ok_and(|age| age > than))
}

/// What is in a folder; nothing when there is no such folder.
fn entries(folder: &Path) -> io::Result<impl Iterator<Item = io::Result<fs::DirEntry>>> {
    let entries = match fs::read_dir(folder) {
        Err(error) if disk::is_absent(&error) => None,
        result => Some(result?),
    };
    Ok(entries.into_iter().flatten())
}

fn allow_absent(result: io::Result<()>) -> io::Result<()> {
    result.or_else(|error| {
        if disk::is_absent(&error) {
            Ok(())
        } else {
            Err(error)
        }
    })
}

fn failed(doing: impl Into<String>) -> impl FnOnce(io::Error) -> BackupStoreError {
    let doing = doing.into();
    |source| BackupStoreError::Io { doing, source }
}

async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> io::Result<T> + Send + 'static,
) -> io::Result<T> {
    spawn_blocking(work).await?
}

#[cfg(test)]
mod tests;
