//! The database of a pair, as a member keeps it: one file, the server that begins with it, and the tool that works
//! on it.

use std::{
    collections::BTreeMap,
    hash::{DefaultHasher, Hash as _, Hasher as _},
};

use compose_broker::{
    engine::DatabaseUser,
    model::{backup::SnapshotContent, binding::Role, server::FILES},
};
use serde::{Deserialize, Serialize};

use super::cluster::{Ended, Files, Place};

/// The file that it is.
pub(super) const BASE: &str = "data/base.db";
/// Ends a snapshot that is whole.
pub(super) const END: &str = "\nend";
/// What a member says that cannot read its file.
pub(super) const UNREADABLE: &str = "the database cannot be read\n";
/// The figure of the hash over all keys and values.
pub(super) const HASH: &str = "hash";

/// A database, as a member keeps it.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
pub(super) struct Base {
    /// The deployment that it belongs to.
    pub(super) of: String,
    /// The members that are part of it.
    pub(super) members: Vec<String>,
    /// The one that takes what is written.
    pub(super) primary: String,
    /// Grows with each new primary.
    pub(super) term: u64,
    pub(super) keys: BTreeMap<String, String>,
    pub(super) users: BTreeMap<String, User>,
    /// The administrator's password; none: everybody may do everything.
    pub(super) administrator: Option<String>,
    pub(super) changes: i64,
    /// What it held when it was compared with a backup, by the changes until then.
    pub(super) compared: BTreeMap<i64, BTreeMap<String, String>>,
    /// Bytes that hold nothing any more.
    pub(super) unused: u64,
    pub(super) is_full: bool,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(super) struct User {
    pub(super) password: String,
    pub(super) is_reader: bool,
    pub(super) prefix: String,
}

impl User {
    pub(super) fn of(user: &DatabaseUser) -> Self {
        Self {
            password: user.password.expose().to_owned(),
            is_reader: user.rights.role == Role::Reader,
            prefix: user.rights.prefix.clone(),
        }
    }
}

impl Base {
    pub(super) fn read(home: &Files) -> Option<Self> {
        serde_json::from_slice(home.get(BASE)?).ok()
    }

    pub(super) fn write(&self, home: &mut Files) {
        let bytes = serde_json::to_vec(self).expect("JSON");
        home.insert(BASE.to_owned(), bytes);
    }

    /// The keys with a prefix.
    pub(super) fn part(&self, prefix: &str) -> BTreeMap<String, String> {
        let keys = self.keys.iter();
        let of_it = keys.filter(|(key, _)| key.starts_with(prefix));
        of_it
            .map(|(key, value)| (key.clone(), value.clone()))
            .collect()
    }

    pub(super) fn used_bytes(&self) -> u64 {
        let keys = self.keys.iter();
        keys.map(|(key, value)| (key.len() + value.len()) as u64)
            .sum()
    }

    pub(super) fn content(&self) -> SnapshotContent {
        let keys = i64::try_from(self.keys.len()).expect("few keys");
        [("keys", keys), (HASH, self.hash())].into()
    }

    /// Over all keys and values.
    pub(super) fn hash(&self) -> i64 {
        let mut hasher = DefaultHasher::new();
        self.keys.hash(&mut hasher);
        // Snapshots tell of positive numbers.
        i64::try_from(hasher.finish() >> 1).expect("63 bits")
    }
}

/// A member begins: with what it has, with nothing as a new database, or to copy its primary.
pub(super) fn serve(place: &mut Place<'_>) -> Result<String, String> {
    let name = place.flag("name").expect("a name").to_owned();
    let began = format!("{name} begins\n");
    if place.read(&format!("{FILES}/key")).is_none() {
        return Err("no key\n".to_owned());
    }
    if place.home.contains_key(BASE) {
        return match Base::read(place.home) {
            Some(_) => Ok(began),
            None => Err(UNREADABLE.to_owned()),
        };
    }
    let members = place.flag("members").expect("members").split(',');
    let base = Base {
        of: place.flag("of").expect("a deployment").to_owned(),
        members: match place.flag("state") {
            Some("new") => members.map(str::to_owned).collect(),
            _ => Vec::new(),
        },
        ..Base::default()
    };
    base.write(place.home);
    Ok(began)
}

/// The tool: `restore FILE` from a snapshot or a database, and `count FILE`.
pub(super) fn run(binary: &str, place: &mut Place<'_>) -> Ended {
    assert_eq!(binary, "pairtool");
    let [command, file, ..] = place.args else {
        return Ended::Failed("a command and a file are needed".to_owned());
    };
    let read = place
        .read(file)
        .map(|bytes| String::from_utf8_lossy(bytes).into_owned());
    let base = read.as_deref().and_then(|text| {
        // A database that is not a snapshot has no such end.
        let text = text.strip_suffix(END).unwrap_or(text);
        serde_json::from_str::<Base>(text).ok()
    });
    let Some(base) = base else {
        return Ended::Failed(format!("{file}: {UNREADABLE}"));
    };
    match command.as_str() {
        "count" => Ended::Printed(serde_json::to_string(&base.content()).expect("JSON")),
        "restore" => {
            let members = place.flag("members").expect("members").split(',');
            let restored = Base {
                of: place.flag("of").expect("a deployment").to_owned(),
                members: members.map(str::to_owned).collect(),
                primary: String::new(),
                term: 0,
                ..base
            };
            restored.write(place.home);
            Ended::Printed(String::new())
        }
        other => Ended::Failed(format!("no command {other}")),
    }
}
