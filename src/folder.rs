//! Folders of the machine: which one a path leads to, and the marker that says whose it is.

use std::{fs, io, os::unix::fs::MetadataExt as _, path::Path};

use crate::{disk, model::marker::Marker};

/// The marker's file. Hidden, so that no object and no deployment has its name.
pub const MARKER: &str = ".compose-broker.json";

/// A folder by what it is, not by how it is called: one that was moved, or has a second path, is the
/// same; a copy is another.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FolderId {
    device: u64,
    inode: u64,
}

impl FolderId {
    /// What a path leads to now; none when nothing is there.
    pub fn of(path: &Path) -> io::Result<Option<Self>> {
        Ok(disk::there_if_anything_can_be(fs::metadata(path))?
            .as_ref()
            .map(Self::from))
    }
}

impl From<&fs::Metadata> for FolderId {
    fn from(seen: &fs::Metadata) -> Self {
        Self {
            device: seen.dev(),
            inode: seen.ino(),
        }
    }
}

/// Reads a folder's marker; none where there is none.
pub fn marker(folder: &Path) -> io::Result<Option<Marker>> {
    let text = disk::there_if_anything_can_be(fs::read(folder.join(MARKER)))?;
    Ok(text.map(|text| serde_json::from_slice(&text)).transpose()?)
}

/// Writes a folder's marker, whole or not at all.
pub fn mark(folder: &Path, marker: &Marker) -> io::Result<()> {
    disk::write(&folder.join(MARKER), &text_of(marker)?)
}

/// The same for a folder without a marker. Fails with `AlreadyExists` where another broker writes one meanwhile.
pub fn mark_new(folder: &Path, marker: &Marker) -> io::Result<()> {
    disk::write_new(&folder.join(MARKER), &text_of(marker)?)
}

fn text_of(marker: &Marker) -> io::Result<Vec<u8>> {
    let mut text = serde_json::to_vec_pretty(marker)?;
    text.push(b'\n');
    Ok(text)
}

/// The folder that this one is a copy of: where its marker says that it is stands another one with
/// the same marker.
pub fn original_of(folder: &Path, marker: &Marker) -> io::Result<Option<std::path::PathBuf>> {
    let Some(path) = marker.path.as_deref().filter(|path| *path != folder) else {
        return Ok(None);
    };
    let same_marker = match self::marker(path) {
        Ok(found) => found.is_some_and(|found| found.id == marker.id),
        // What cannot be looked into is not known to be one.
        Err(error) => {
            log::warn!(folder:% = path.display(); "cannot look where a folder was before: {error}");
            false
        }
    };
    let is_another = same_marker && FolderId::of(path)? != FolderId::of(folder)?;
    Ok(is_another.then(|| path.to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_copy_is_told_from_a_folder_that_was_moved_or_has_a_second_path() {
        let root = tempfile::tempdir().expect("a folder");
        let [here, copy, link] = ["here", "copy", "link"].map(|name| root.path().join(name));
        for folder in [&here, &copy] {
            fs::create_dir(folder).expect("a folder");
        }
        assert_eq!(super::marker(&here).expect("readable"), None);
        assert_eq!(
            super::marker(&root.path().join("none")).expect("readable"),
            None
        );
        let marker = Marker {
            folder: "data".to_owned(),
            id: "0123456789abcdef01234567".parse().expect("an id"),
            path: Some(here.clone()),
        };
        mark(&here, &marker).expect("written");
        assert_eq!(
            super::marker(&here).expect("readable"),
            Some(marker.clone())
        );
        let original = |folder: &Path| original_of(folder, &marker).expect("readable");
        assert_eq!(original(&here), None);
        std::os::unix::fs::symlink(&here, &link).expect("a link");
        assert_eq!(original(&link), None);
        mark(&copy, &marker).expect("written");
        assert_eq!(original(&copy), Some(here.clone()));
        fs::rename(&here, root.path().join("elsewhere")).expect("moved");
        assert_eq!(original(&copy), None);
        fs::create_dir(&here).expect("a folder of somebody else");
        assert_eq!(original(&copy), None);
    }
}
