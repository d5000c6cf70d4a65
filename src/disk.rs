//! Files and folders of this machine, as everything that keeps some here does it: for the owner alone,
//! whole under their names, locked, and counted in bytes.
//!
//! A file is written beside its place under a hidden name of its own and gets its name when its bytes are
//! on the disk. So a crash at any moment leaves the whole file or what is unfinished, never half a file
//! under the last name, and two that write at once never write into the same file.

use std::{
    ffi::{OsStr, OsString},
    fs::{self, DirBuilder, File, Metadata, OpenOptions, TryLockError},
    io::{self, Write as _},
    os::unix::fs::{DirBuilderExt as _, MetadataExt as _, OpenOptionsExt as _},
    path::{Path, PathBuf},
    thread,
    time::Instant,
};

use rustix::{
    fs::{CWD, RenameFlags, renameat_with},
    io::Errno,
};
use tokio::io::AsyncWriteExt as _;
use uuid::Uuid;

use crate::model::{
    limits::{LOCK_POLL, LOCK_WAIT},
    volume::Space,
};

const PRIVATE_FOLDER: u32 = 0o700;
const PRIVATE_FILE: u32 = 0o600;
/// The unit in which Linux says how much room a file has (stat(2)).
const BLOCK_BYTES: u64 = 512;
const UNFINISHED: &str = ".tmp";

/// The one true path of a folder that is there or can be made.
pub fn full_path(path: &Path) -> io::Result<PathBuf> {
    let absolute = std::path::absolute(path)?;
    let (mut there, mut missing) = (absolute.as_path(), Vec::new());
    loop {
        match there.canonicalize() {
            Ok(found) if !found.is_dir() => return Err(io::ErrorKind::NotADirectory.into()),
            Ok(found) => {
                return Ok(missing
                    .iter()
                    .rev()
                    .fold(found, |path, name| path.join(name)));
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                let (Some(parent), Some(name)) = (there.parent(), there.file_name()) else {
                    return Err(error);
                };
                missing.push(name);
                there = parent;
            }
            Err(error) => return Err(error),
        }
    }
}

/// Makes a folder, and those above it, durably and for the owner alone; one that is there is fine.
pub fn make_folder(path: &Path) -> io::Result<()> {
    // Where a relative path begins, something is.
    if path.as_os_str().is_empty() {
        return Ok(());
    }
    let make = || DirBuilder::new().mode(PRIVATE_FOLDER).create(path);
    let made = match (make(), path.parent()) {
        (Err(error), Some(above)) if error.kind() == io::ErrorKind::NotFound => {
            make_folder(above)?;
            make()
        }
        (made, _) => made,
    };
    match made {
        Ok(()) => match sync_folder(folder_of(path)) {
            // One may make a folder where one may not look.
            Err(error) if error.kind() == io::ErrorKind::PermissionDenied => Ok(()),
            synced => synced,
        },
        Err(_) if path.is_dir() => Ok(()),
        Err(error) => Err(error),
    }
}

/// Options for opening a file that is its owner's alone once it is made.
pub fn private_file() -> OpenOptions {
    let mut options = OpenOptions::new();
    options.mode(PRIVATE_FILE);
    options
}

/// Writes a file whole or not at all, over one that is there. Of two that do so at once, the later one
/// wins; none fails.
pub fn write(path: &Path, contents: &[u8]) -> io::Result<()> {
    for name in names_in(folder_of(path))? {
        if finished_name(&name).is_some_and(|name| path.file_name() == Some(OsStr::new(name))) {
            there(fs::remove_file(path.with_file_name(name)))?;
        }
    }
    // Another one that begins takes what is unfinished for what broke off. Each does so once.
    while there(write_beside(path, contents)?.publish())?.is_none() {}
    Ok(())
}

/// Writes a file whole or not at all; `AlreadyExists` where one is there, also where somebody else makes
/// it meanwhile.
pub fn write_new(path: &Path, contents: &[u8]) -> io::Result<()> {
    write_beside(path, contents)?.publish_new()
}

fn write_beside(path: &Path, contents: &[u8]) -> io::Result<Unfinished> {
    let (unfinished, mut file) = Unfinished::beside(path)?;
    file.write_all(contents)?;
    file.sync_all()?;
    Ok(unfinished)
}

/// Brings what was written to a file to the disk. Without the flush, the error of the last write would
/// be lost.
pub async fn sync(file: &mut tokio::fs::File) -> io::Result<()> {
    file.flush().await?;
    file.sync_all().await
}

/// A file that has not got its name yet; removed when dropped before that.
#[derive(Debug)]
pub struct Unfinished {
    path: PathBuf,
    target: PathBuf,
    has_its_name: bool,
}

impl Unfinished {
    /// Begins the file that will be `target`, in the same folder, which is there.
    pub fn beside(target: &Path) -> io::Result<(Self, File)> {
        let path = target.with_file_name(unfinished_name(target.file_name().unwrap_or_default()));
        let file = private_file().write(true).create_new(true).open(&path)?;
        let unfinished = Self {
            path,
            target: target.to_owned(),
            has_its_name: false,
        };
        Ok((unfinished, file))
    }

    /// Where it lies for now.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Gives the file its name, durably; it takes the place of one that is there. Its bytes are on the
    /// disk by now.
    pub fn publish(self) -> io::Result<()> {
        let target = self.target.clone();
        self.take_name()?;
        sync_folder(folder_of(&target))
    }

    /// The same, unless there is one of that name: then `AlreadyExists`.
    pub fn publish_new(mut self) -> io::Result<()> {
        match renameat_with(CWD, &self.path, CWD, &self.target, RenameFlags::NOREPLACE) {
            Ok(()) => self.has_its_name = true,
            // Some file systems, as those of a network, cannot look and rename in one.
            Err(Errno::INVAL) if self.target.symlink_metadata().is_err() => {
                return self.publish();
            }
            Err(Errno::INVAL) => return Err(io::ErrorKind::AlreadyExists.into()),
            Err(error) => return Err(error.into()),
        }
        sync_folder(folder_of(&self.target))
    }

    /// Gives the file its name, which a power failure may still take from it.
    pub fn take_name(mut self) -> io::Result<()> {
        replace(&self.path, &self.target)?;
        self.has_its_name = true;
        Ok(())
    }
}

impl Drop for Unfinished {
    fn drop(&mut self) {
        if self.has_its_name {
            return;
        }
        if let Err(error) = there(fs::remove_file(&self.path)) {
            log::warn!(
                "cannot remove the unfinished {}: {error}",
                self.path.display()
            );
        }
    }
}

fn unfinished_name(file: &OsStr) -> OsString {
    let mut name = OsString::from(".");
    name.push(file);
    name.push(format!(".{}{UNFINISHED}", Uuid::new_v4().simple()));
    name
}

/// The name that an unfinished file would have got; none when `name` is not that of one.
pub fn finished_name(name: &str) -> Option<&str> {
    let (file, _random) = name
        .strip_prefix('.')?
        .strip_suffix(UNFINISHED)?
        .rsplit_once('.')?;
    Some(file)
}

/// Gives a file the name of another one, whose place it takes. A power failure may still undo it.
pub fn replace(from: &Path, to: &Path) -> io::Result<()> {
    fs::rename(from, to)
}

/// Moves a file or a folder, durably.
pub fn rename(from: &Path, to: &Path) -> io::Result<()> {
    replace(from, to)?;
    sync_folder(folder_of(to))?;
    if folder_of(from) != folder_of(to) {
        sync_folder(folder_of(from))?;
    }
    Ok(())
}

/// Makes the names in a folder survive a power failure.
pub fn sync_folder(folder: &Path) -> io::Result<()> {
    File::open(folder)?.sync_all()
}

/// The folder that a file or folder lies in.
fn folder_of(path: &Path) -> &Path {
    match path.parent() {
        Some(folder) if folder.as_os_str().is_empty() => Path::new("."),
        Some(folder) => folder,
        None => path,
    }
}

/// Locks a file, which is made when it is not there, until the returned handle is closed. Waits for
/// another process as long as that has it.
pub fn lock(path: &Path) -> io::Result<File> {
    let file = open_to_lock(path)?;
    file.lock()?;
    Ok(file)
}

/// The same for what a process keeps as long as it runs: waits a moment for one that is just ending
/// ([`LOCK_WAIT`]), and not at all where the file cannot be locked.
pub fn lock_soon(path: &Path) -> Result<File, TryLockError> {
    let file = open_to_lock(path).map_err(TryLockError::Error)?;
    let deadline = Instant::now() + LOCK_WAIT;
    loop {
        match file.try_lock() {
            Err(TryLockError::WouldBlock) if Instant::now() < deadline => thread::sleep(LOCK_POLL),
            tried => return tried.map(|()| file),
        }
    }
}

fn open_to_lock(path: &Path) -> io::Result<File> {
    private_file().write(true).create(true).open(path)
}

/// The room of the volume that a folder is on.
pub fn space(folder: &Path) -> io::Result<Space> {
    let volume = rustix::fs::statvfs(folder)?;
    Ok(Space {
        total: volume.f_blocks.saturating_mul(volume.f_frsize),
        free: volume.f_bavail.saturating_mul(volume.f_frsize),
    })
}

/// What a file or folder has on the disk, in bytes: less than its length where it has holes.
pub fn bytes_on_disk(seen: &Metadata) -> u64 {
    seen.blocks().saturating_mul(BLOCK_BYTES)
}

/// What everything below a folder has on the disk, in bytes. Others write and remove files meanwhile:
/// what is gone by now has nothing. Links are not followed.
pub fn bytes_below(folder: &Path) -> io::Result<u64> {
    let mut bytes = 0_u64;
    let mut folders = vec![folder.to_owned()];
    while let Some(folder) = folders.pop() {
        for entry in there(fs::read_dir(&folder))?.into_iter().flatten() {
            let entry = entry?;
            let Some(seen) = there(entry.metadata())? else {
                continue;
            };
            bytes = bytes.saturating_add(bytes_on_disk(&seen));
            if seen.is_dir() {
                folders.push(entry.path());
            }
        }
    }
    Ok(bytes)
}

/// The names in a folder, sorted; a folder that is not there has none. What is no UTF-8 is left out:
/// all names of ours are.
pub fn names_in(folder: &Path) -> io::Result<Vec<String>> {
    let mut names = Vec::new();
    for entry in there(fs::read_dir(folder))?.into_iter().flatten() {
        names.extend(entry?.file_name().into_string());
    }
    names.sort();
    Ok(names)
}

/// `None` for what is not there.
pub fn there<T>(found: io::Result<T>) -> io::Result<Option<T>> {
    match found {
        Ok(found) => Ok(Some(found)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}

/// The same, also where a file lies on the way.
pub fn there_if_anything_can_be<T>(found: io::Result<T>) -> io::Result<Option<T>> {
    match found {
        Err(error) if is_absent(&error) => Ok(None),
        found => found.map(Some),
    }
}

/// Whether nothing can be there, also because what would be a folder on the way is a file.
pub fn is_absent(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::NotFound | io::ErrorKind::NotADirectory
    )
}

/// Whether the disk, or what the owner may have of it, is used up.
pub fn is_full(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded
    )
}

#[cfg(test)]
mod tests {
    use std::{os::unix::fs::PermissionsExt as _, sync::Barrier};

    use super::*;

    fn folder() -> tempfile::TempDir {
        tempfile::tempdir().expect("a folder")
    }

    fn mode(path: &Path) -> u32 {
        let seen = fs::metadata(path).expect("there");
        seen.permissions().mode() & 0o777
    }

    fn text(path: &Path) -> String {
        fs::read_to_string(path).expect("a text")
    }

    #[test]
    fn folders_and_files_are_their_owner_s_alone() {
        let root = folder();
        let deep = root.path().join("a/b/c");
        for _ in 0..2 {
            make_folder(&deep).expect("a folder");
        }
        for made in [&deep, &root.path().join("a"), &root.path().join("a/b")] {
            assert_eq!(mode(made), 0o700, "{}", made.display());
        }
        let file = deep.join("file");
        write(&file, b"1").expect("written");
        assert_eq!(mode(&file), 0o600);
        assert_eq!(mode(&deep), 0o700);
        make_folder(&file).expect_err("a file is there");
        make_folder(&file.join("below")).expect_err("a file is on the way");
        make_folder(Path::new("")).expect("here");
        make_folder(Path::new(".")).expect("here");
    }

    #[test]
    fn a_file_is_written_whole_over_what_broke_off() {
        let root = folder();
        let file = root.path().join("file");
        let (broken_off, mut half) = Unfinished::beside(&file).expect("begun");
        half.write_all(b"ha").expect("written");
        std::mem::forget(broken_off);
        let (of_another, _file) = Unfinished::beside(&root.path().join("file.b")).expect("begun");
        assert!(!file.exists());
        for contents in ["whole", "anew"] {
            write(&file, contents.as_bytes()).expect("written");
            assert_eq!(text(&file), contents);
        }
        let names = names_in(root.path()).expect("names");
        assert_eq!(names.len(), 2, "{names:?}");
        assert_eq!(finished_name(&names[0]), Some("file.b"));
        drop(of_another);
        assert_eq!(names_in(root.path()).expect("names"), ["file"]);
    }

    #[test]
    fn of_two_that_write_at_once_none_ends_in_the_other_s_file() {
        let root = folder();
        let file = root.path().join("file");
        let (slow, mut half) = Unfinished::beside(&file).expect("begun");
        half.write_all(b"ha").expect("written");
        write(&file, b"whole").expect("written");
        half.write_all(b"lf").expect("written");
        assert_eq!(text(&file), "whole");
        slow.publish().expect_err("it was taken away");
        assert_eq!(text(&file), "whole");
        assert_eq!(names_in(root.path()).expect("names"), ["file"]);
    }

    #[test]
    fn of_many_that_write_at_once_none_fails_and_one_is_last() {
        let root = folder();
        let file = root.path().join("file");
        let all: Vec<String> = (0..8).map(|n| n.to_string().repeat(1 << 16)).collect();
        let begin = Barrier::new(all.len());
        thread::scope(|scope| {
            for contents in &all {
                scope.spawn(|| {
                    begin.wait();
                    for _ in 0..20 {
                        write(&file, contents.as_bytes()).expect("written");
                    }
                });
            }
        });
        assert!(all.contains(&text(&file)));
        assert_eq!(names_in(root.path()).expect("names"), ["file"]);
    }

    #[test]
    fn what_is_there_is_not_written_over_by_what_is_new() {
        let root = folder();
        let file = root.path().join("file");
        let (late, _file) = Unfinished::beside(&file).expect("begun");
        write_new(&file, b"first").expect("written");
        for refused in [late.publish_new(), write_new(&file, b"second")] {
            let error = refused.expect_err("there is one");
            assert_eq!(error.kind(), io::ErrorKind::AlreadyExists);
        }
        assert_eq!(text(&file), "first");
        assert_eq!(names_in(root.path()).expect("names"), ["file"]);
    }

    #[test]
    fn an_unfinished_name_gives_the_file_s_back_and_others_give_none() {
        for file in ["a", "a.b", ".hidden"] {
            let name = unfinished_name(OsStr::new(file));
            let name = name.to_str().expect("a text");
            assert_eq!(finished_name(name), Some(file));
        }
        for other in ["a", ".hidden", ".a.tmp", "a.0.tmp", ".a.0.part"] {
            assert_eq!(finished_name(other), None, "{other}");
        }
    }

    #[test]
    fn what_cannot_be_locked_is_said_at_once_and_what_is_held_is_said_to_be() {
        let root = folder();
        let no_file = lock_soon(root.path());
        assert!(
            matches!(&no_file, Err(TryLockError::Error(error)) if error.kind() == io::ErrorKind::IsADirectory),
            "{no_file:?}"
        );
        let file = root.path().join("lock");
        let held = lock_soon(&file).expect("nobody has it");
        assert_eq!(mode(&file), 0o600);
        let second = lock_soon(&file);
        assert!(
            matches!(second, Err(TryLockError::WouldBlock)),
            "{second:?}"
        );
        drop(held);
        lock(&file).expect("nobody has it");
    }

    #[test]
    fn a_folder_has_the_bytes_of_all_below_it() {
        let root = folder();
        let before = bytes_below(root.path()).expect("a size");
        make_folder(&root.path().join("a/b")).expect("a folder");
        let written = 1024 * 1024;
        fs::write(root.path().join("a/b/file"), vec![1; written]).expect("written");
        std::os::unix::fs::symlink("..", root.path().join("a/up")).expect("a link");
        let after = bytes_below(root.path()).expect("a size");
        assert!(after >= before + written as u64);
        assert!(after < before + 2 * written as u64);
        assert_eq!(bytes_below(&root.path().join("none")).expect("a size"), 0);
    }
}
