//! Whose a folder is: what stands in its marker, compared with what the store knows.
//!
//! A folder is a path in a setting, and a path may lead elsewhere tomorrow: to a disk that is not
//! mounted, to another broker's folder, to a copy. So each folder of a broker has a marker with an
//! id that the store knows too, and what does not fit is recognised before anything is written or
//! deleted there.

use std::{fmt, path::PathBuf, str::FromStr};

use serde::{Deserialize, Serialize};

use super::ids::FolderMark;

/// A folder that a broker keeps something in.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum FolderName {
    /// Everything that the broker keeps for itself.
    Data,
    /// The bytes of backups.
    Backups,
    /// Copies of the bytes of backups.
    Mirror,
    /// The members of a cluster, by its id.
    Cluster(String),
}

impl fmt::Display for FolderName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Data => f.write_str("data"),
            Self::Backups => f.write_str("backups"),
            Self::Mirror => f.write_str("mirror"),
            Self::Cluster(id) => write!(f, "cluster:{id}"),
        }
    }
}

/// What an operator may say of one start: that the broker shall go on although something is not
/// what it knows.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Accepted {
    /// This folder is the broker's from now on, as it is.
    Folder(FolderName),
    /// The database is a new one.
    Database,
    /// Keys are gone, and with them what is in the backups that are sealed under them.
    Keys,
}

/// A text names nothing that can be accepted.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is not one of: data, backups, mirror, cluster:ID, database, keys")]
pub struct AcceptedError(String);

impl FromStr for Accepted {
    type Err = AcceptedError;

    fn from_str(text: &str) -> Result<Self, AcceptedError> {
        match (text, text.strip_prefix("cluster:")) {
            ("data", _) => Ok(Self::Folder(FolderName::Data)),
            ("backups", _) => Ok(Self::Folder(FolderName::Backups)),
            ("mirror", _) => Ok(Self::Folder(FolderName::Mirror)),
            ("database", _) => Ok(Self::Database),
            ("keys", _) => Ok(Self::Keys),
            (_, Some(id)) if !id.is_empty() => Ok(Self::Folder(FolderName::Cluster(id.to_owned()))),
            _ => Err(AcceptedError(text.to_owned())),
        }
    }
}

/// What stands in a folder's marker.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Marker {
    /// Which folder of the broker it is, for people.
    pub folder: String,
    /// The id that the store knows.
    pub id: FolderMark,
    /// Where the folder was when the broker last started: a copy still says so.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub path: Option<PathBuf>,
}

/// What was found out about a folder.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Look {
    /// The id that the store knows.
    pub known: Option<FolderMark>,
    /// What the folder's marker says.
    pub marker: Option<Marker>,
    /// Whether the store says that something is in the folder.
    pub promised: bool,
    /// Whether some of that is there.
    pub evident: bool,
    /// The folder that this one is a copy of, and that is still there.
    pub original: Option<PathBuf>,
    /// Whether other brokers have the same folder, or should have: one that is known has its marker then.
    pub shared: bool,
}

/// Why a folder is not used.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Refusal {
    /// It is a copy of this folder.
    Copy(PathBuf),
    /// It has no marker, or nothing of what the store says is in it.
    Missing,
    /// It has another one's marker.
    Foreign(FolderMark),
}

impl Look {
    /// The id that the folder has from now on, none for a new one; or why it is not used.
    ///
    /// A store and a folder that never heard of markers (those of an earlier version) get to know
    /// each other by what is in them.
    pub fn decide(&self) -> Result<Option<FolderMark>, Refusal> {
        if let Some(original) = &self.original {
            return Err(Refusal::Copy(original.clone()));
        }
        let marker = self.marker.as_ref().map(|marker| &marker.id);
        match (&self.known, marker) {
            (Some(known), Some(marker)) if known == marker => Ok(Some(known.clone())),
            (_, Some(marker)) if self.known.is_some() || (self.promised && !self.evident) => {
                Err(Refusal::Foreign(marker.clone()))
            }
            (None, Some(marker)) => Ok(Some(marker.clone())),
            (Some(_), None) if self.promised || self.shared => Err(Refusal::Missing),
            (None, None) if self.promised && !self.evident => Err(Refusal::Missing),
            (known, _) => Ok(known.clone()),
        }
    }

    /// Whether neither the store nor the folder has heard of the other.
    pub fn is_new(&self) -> bool {
        self.known.is_none() && self.marker.is_none()
    }

    /// What the same comes to where an operator accepts the folder as it is.
    pub fn accept(&self) -> Option<FolderMark> {
        let marker = self.marker.as_ref().map(|marker| marker.id.clone());
        marker.or_else(|| self.known.clone())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn id(digit: char) -> FolderMark {
        let text: String = std::iter::repeat_n(digit, 24).collect();
        text.parse().expect("an id")
    }

    fn look(known: Option<char>, marker: Option<char>, promised: bool, evident: bool) -> Look {
        Look {
            known: known.map(id),
            marker: marker.map(|digit| Marker {
                folder: "backups".to_owned(),
                id: id(digit),
                path: None,
            }),
            promised,
            evident,
            original: None,
            shared: false,
        }
    }

    #[test]
    fn a_folder_is_used_when_it_is_the_one_that_the_store_knows_or_when_nothing_can_be_lost() {
        let foreign = || Err(Refusal::Foreign(id('b')));
        let missing = || Err(Refusal::Missing);
        let cases = [
            // The usual start.
            (look(Some('a'), Some('a'), true, true), Ok(Some(id('a')))),
            // All that was promised is lost, in the very folder: reconciliation tells.
            (look(Some('a'), Some('a'), true, false), Ok(Some(id('a')))),
            // A disk that is not mounted; a copy that lacks the hidden file.
            (look(Some('a'), None, true, false), missing()),
            (look(Some('a'), None, true, true), missing()),
            // Another folder before anything was kept there.
            (look(Some('a'), None, false, false), Ok(Some(id('a')))),
            // Two folders that changed places, or another broker's.
            (look(Some('a'), Some('b'), true, true), foreign()),
            (look(Some('a'), Some('b'), false, false), foreign()),
            // The very first start.
            (look(None, None, false, false), Ok(None)),
            // The first start of a version with markers.
            (look(None, None, true, true), Ok(None)),
            (look(None, None, true, false), missing()),
            // One that broke off between the marker and the store.
            (look(None, Some('b'), true, true), Ok(Some(id('b')))),
            (look(None, Some('b'), false, false), Ok(Some(id('b')))),
            (look(None, Some('b'), true, false), foreign()),
        ];
        for (look, decided) in cases {
            assert_eq!(look.decide(), decided, "{look:?}");
        }
        let copy = Look {
            original: Some("/data".into()),
            ..look(Some('a'), Some('a'), true, true)
        };
        assert_eq!(copy.decide(), Err(Refusal::Copy("/data".into())));
    }

    #[test]
    fn of_brokers_that_share_a_folder_none_takes_another_for_it() {
        let shared = |known, marker, promised| Look {
            shared: true,
            ..look(known, marker, promised, promised)
        };
        for promised in [false, true] {
            let other = shared(Some('a'), None, promised);
            assert_eq!(other.decide(), Err(Refusal::Missing), "{other:?}");
            let same = shared(Some('a'), Some('a'), promised);
            assert_eq!(same.decide(), Ok(Some(id('a'))), "{same:?}");
        }
        assert_eq!(shared(None, None, false).decide(), Ok(None));
    }

    #[test]
    fn what_is_accepted_is_named() {
        for (text, name) in [
            ("data", FolderName::Data),
            ("backups", FolderName::Backups),
            ("mirror", FolderName::Mirror),
            ("cluster:blue", FolderName::Cluster("blue".to_owned())),
        ] {
            assert_eq!(name.to_string(), text);
            assert_eq!(text.parse(), Ok(Accepted::Folder(name)));
        }
        assert_eq!("database".parse(), Ok(Accepted::Database));
        assert_eq!("keys".parse(), Ok(Accepted::Keys));
        for text in ["", "all", "cluster", "cluster:"] {
            assert_eq!(
                text.parse::<Accepted>(),
                Err(AcceptedError(text.to_owned()))
            );
        }
    }

    #[test]
    fn an_operator_can_write_a_marker_by_hand() {
        let text = format!(r#"{{"folder": "backups", "id": "{}"}}"#, id('a'));
        let marker: Marker = serde_json::from_str(&text).expect("a marker");
        assert_eq!((marker.id, marker.path), (id('a'), None));
    }
}
