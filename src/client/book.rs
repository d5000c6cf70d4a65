//! The names: which instance and which key is meant by what a user calls it.
//!
//! OSB knows ids alone and lists nothing, so its client has to remember. What is remembered
//! stands in one file: names, ids, and what is needed to ask for what goes on. Never credentials.
//!
//! Invariants: a name is in the file before its id is sent to a broker, so that nothing is made that
//! nobody knows of. The file is replaced whole, under a lock of its own that no request is made
//! under, and is its owner's alone.

use std::{fs, path::PathBuf};

use serde::{Deserialize, Serialize};

use super::error::{Error, Result};
use crate::{
    disk,
    model::{bom::bytes_without_bom, limits::PLATFORM_NAME_BYTES_MAX},
};

/// The form of the file.
const VERSION: u32 = 1;

/// What an operation does.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Kind {
    /// It makes something.
    Create,
    /// It changes something.
    Update,
    /// It takes something away.
    Delete,
}

impl Kind {
    /// The word for it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Create => "create",
            Self::Update => "update",
            Self::Delete => "delete",
        }
    }
}

/// What a broker said to the last that was asked of it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Said {
    /// Nothing that was heard.
    Nothing,
    /// That it is done.
    Done,
    /// That it goes on by itself, with its own word for that.
    Accepted(Option<String>),
}

/// The last that was asked of a broker.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Last {
    /// What for.
    pub kind: Kind,
    /// What came of it.
    pub said: Said,
}

impl Last {
    /// What is about to be asked for.
    pub fn asked(kind: Kind) -> Self {
        Self {
            kind,
            said: Said::Nothing,
        }
    }

    /// What was over when this machine heard of it.
    pub fn done(kind: Kind) -> Self {
        Self {
            kind,
            said: Said::Done,
        }
    }
}

/// A plan by its id and its name.
#[derive(Debug, Default, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Plan {
    /// Its id.
    pub id: String,
    /// Its name.
    pub name: String,
}

/// A service key.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Key {
    /// What its user calls it.
    pub name: String,
    /// The binding's id.
    pub id: String,
    /// The last that was asked for.
    pub last: Last,
}

/// A service instance.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Instance {
    /// The address of its broker.
    pub broker: String,
    /// What its user calls it.
    pub name: String,
    /// Its id.
    pub id: String,
    /// The offering's id.
    pub service_id: String,
    /// The offering's name.
    pub offering: String,
    /// Its plan.
    pub plan: Plan,
    /// The plan that the update leads to that goes on.
    #[serde(default)]
    pub next_plan: Option<Plan>,
    /// Whose it is.
    pub organization: String,
    /// Whose it is, more closely.
    pub space: String,
    /// What its user put on it.
    #[serde(default)]
    pub tags: Vec<String>,
    /// The last that was asked for.
    pub last: Last,
    /// The broker's word for the newest operation on it that was asked for here. What was done at once has none,
    /// so this may be older than `last`.
    #[serde(default)]
    pub operation: Option<String>,
    /// Its keys.
    #[serde(default)]
    pub keys: Vec<Key>,
}

impl Instance {
    /// A key by its name.
    ///
    /// # Errors
    ///
    /// There is none.
    pub fn key(&self, name: &str) -> Result<&Key> {
        let key = self.keys.iter().find(|key| key.name == name);
        key.ok_or_else(|| Error::Failed(format!("{} has no service key {name}", self.name)))
    }
}

#[derive(Serialize, Deserialize)]
struct Pages {
    version: u32,
    instances: Vec<Instance>,
}

/// The file, for one broker.
pub struct Book {
    file: PathBuf,
    broker: String,
}

impl Book {
    /// The names of the instances of `broker` in `file`, which need not be there yet.
    pub fn new(file: PathBuf, broker: String) -> Self {
        Self { file, broker }
    }

    /// The address that the broker is known by.
    pub fn broker(&self) -> &str {
        &self.broker
    }

    /// The file's folder and name, for people.
    pub fn file(&self) -> String {
        self.file.display().to_string()
    }

    /// The folder that the file is in.
    pub fn folder(&self) -> PathBuf {
        let folder = self.file.parent();
        folder.map_or_else(PathBuf::new, PathBuf::from)
    }

    /// Every instance of the broker, by name.
    pub fn instances(&self) -> Result<Vec<Instance>> {
        let mut found = self.read()?.instances;
        found.retain(|instance| instance.broker == self.broker);
        found.sort_by(|a, b| a.name.cmp(&b.name));
        Ok(found)
    }

    /// The instance of that name.
    pub fn instance(&self, name: &str) -> Result<Instance> {
        let found = self.instances()?.into_iter().find(|i| i.name == name);
        found.ok_or_else(|| {
            Error::Failed(format!(
                "No service instance '{name}' for {}. See `services`; adopt one with `service {name} \
                 --id ID`",
                self.broker
            ))
        })
    }

    /// Writes down a new instance.
    ///
    /// # Errors
    ///
    /// Its name or id is taken.
    pub fn add(&self, instance: &Instance) -> Result<()> {
        check_name(&instance.name)?;
        check_id(&instance.id)?;
        self.change(|pages| {
            let mut ours = pages.iter().filter(|i| i.broker == self.broker);
            if let Some(taken) = ours.find(|i| i.name == instance.name || i.id == instance.id) {
                let (name, id) = (&taken.name, &taken.id);
                let text = format!("there is a service instance {name} already, with the id {id}");
                return Err(Error::Failed(text));
            }
            pages.push(instance.clone());
            Ok(())
        })
    }

    /// Gives an instance another name.
    ///
    /// # Errors
    ///
    /// The name is taken, or the instance is forgotten.
    pub fn rename(&self, id: &str, name: &str) -> Result<()> {
        self.check_free(name)?;
        self.change_instance(id, |instance| {
            name.clone_into(&mut instance.name);
            Ok(())
        })
    }

    /// Says no to a name that is none, or that an instance has.
    pub fn check_free(&self, name: &str) -> Result<()> {
        check_name(name)?;
        if self.instances()?.iter().any(|i| i.name == name) {
            let text = format!("there is a service instance {name} already");
            return Err(Error::Failed(text));
        }
        Ok(())
    }

    /// Writes down a new key.
    ///
    /// # Errors
    ///
    /// The instance is forgotten, or the key's name is taken.
    pub fn add_key(&self, instance: &str, key: &Key) -> Result<()> {
        check_name(&key.name)?;
        check_id(&key.id)?;
        self.change_instance(instance, |instance| {
            if instance.keys.iter().any(|k| k.name == key.name) {
                let (name, key) = (&instance.name, &key.name);
                return Err(Error::Failed(format!(
                    "{name} has a service key {key} already"
                )));
            }
            instance.keys.push(key.clone());
            Ok(())
        })
    }

    /// Changes what is known of an instance, by its id.
    pub fn change_instance(
        &self,
        id: &str,
        change: impl FnOnce(&mut Instance) -> Result<()>,
    ) -> Result<()> {
        self.change(|pages| {
            let mut ours = pages.iter_mut().filter(|i| i.broker == self.broker);
            match ours.find(|i| i.id == id) {
                Some(instance) => change(instance),
                None => Err(Error::Failed(
                    "somebody else has just deleted the service instance".into(),
                )),
            }
        })
    }

    /// Writes down the last that was asked for: of the instance, or of one of its keys.
    pub fn note(&self, instance: &str, key: Option<&str>, kind: Kind, said: Said) -> Result<Last> {
        let last = Last { kind, said };
        self.change(|pages| {
            // What another client has forgotten meanwhile is gone.
            for of in pages.iter_mut().filter(|i| i.broker == self.broker) {
                if of.id != instance {
                    continue;
                }
                match key {
                    None => {
                        of.last = last.clone();
                        if let Said::Accepted(Some(operation)) = &last.said {
                            of.operation = Some(operation.clone());
                        }
                    }
                    Some(id) => {
                        let keys = of.keys.iter_mut().filter(|k| k.id == id);
                        keys.for_each(|key| key.last = last.clone());
                    }
                }
            }
            Ok(())
        })?;
        Ok(last)
    }

    /// Forgets an instance with its keys, or one of its keys. What is forgotten already is no error.
    pub fn forget(&self, instance: &str, key: Option<&str>) -> Result<()> {
        self.change(|pages| {
            match key {
                None => pages.retain(|i| i.broker != self.broker || i.id != instance),
                Some(key) => {
                    for of in pages.iter_mut().filter(|i| i.broker == self.broker) {
                        if of.id == instance {
                            of.keys.retain(|k| k.id != key);
                        }
                    }
                }
            }
            Ok(())
        })
    }

    fn change<T>(&self, change: impl FnOnce(&mut Vec<Instance>) -> Result<T>) -> Result<T> {
        let wrong = |e| Error::file(&self.file)(e);
        if let Some(folder) = self.file.parent() {
            disk::make_folder(folder).map_err(Error::file(folder))?;
        }
        // Another file than the one that is replaced. The lock ends with the handle.
        let lock = self.file.with_extension("lock");
        let _locked = disk::lock(&lock).map_err(Error::file(&lock))?;
        let mut pages = self.read()?;
        let done = change(&mut pages.instances)?;
        let text = serde_json::to_vec_pretty(&pages).map_err(|e| wrong(e.into()))?;
        disk::write(&self.file, &text).map_err(wrong)?;
        Ok(done)
    }

    fn read(&self) -> Result<Pages> {
        let found = disk::there(fs::read(&self.file)).map_err(Error::file(&self.file))?;
        let Some(text) = found else {
            return Ok(Pages {
                version: VERSION,
                instances: Vec::new(),
            });
        };
        let pages: Pages = serde_json::from_slice(bytes_without_bom(&text))
            .map_err(|e| Error::file(&self.file)(e.into()))?;
        if pages.version != VERSION {
            let text = format!("{} was written by another version", self.file());
            return Err(Error::Failed(text));
        }
        Ok(pages)
    }
}

/// Whether an id can be a part of a path that means nothing else.
///
/// # Errors
///
/// It cannot.
pub fn check_id(id: &str) -> Result<()> {
    if ["", ".", ".."].contains(&id) || id.chars().any(char::is_control) {
        return Err(Error::Usage(format!("{id:?} is no id")));
    }
    Ok(())
}

fn check_name(name: &str) -> Result<()> {
    if name.is_empty() || name.len() > PLATFORM_NAME_BYTES_MAX || name.chars().any(char::is_control)
    {
        return Err(Error::Usage(format!(
            "{name:?} is no name: it is empty, longer than {PLATFORM_NAME_BYTES_MAX} bytes, or has \
             control characters"
        )));
    }
    Ok(())
}
