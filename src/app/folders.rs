//! Whether the folders in the settings are the broker's own: looked at before anything is written
//! or deleted in one of them.
//!
//! A marker is written before the store gets to know its id. When a start breaks off in between,
//! the next one takes the id from the marker. So of a folder that the store knows there is a marker, and of
//! brokers that share a store, one that finds none has another folder. Of those that mark a new folder at
//! the same time, all take the id of the first one; of those that have a folder each, the first to tell the
//! store has the one that counts.

use std::{
    collections::BTreeMap,
    fs, io,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use chrono::{DateTime, Utc};
use tokio::time::timeout;

use super::error::{FolderError, StartError};
use crate::{
    backups::{BackupStoreError, SharedPlace, Vault},
    config::{ClusterSettings, Config},
    disk, folder,
    model::{
        failure::chain,
        ids::{DeploymentId, FolderMark},
        marker::{Accepted, FolderName, Look, Marker, Refusal},
        postgres::DatabaseAddress,
        sentence::counted,
        volume::Content,
    },
    store::{self, Store},
    volumes::ContentFolder,
};

/// A start waits no longer for a server that keeps backups, when the broker has used it before.
const LOOK_AT_BACKUPS_MAX: Duration = Duration::from_secs(10);

/// Rows whose files are looked for, to recognise a folder that has no marker yet.
const ROWS_LOOKED_AT: i64 = 1000;

/// The folders that were looked at, with the ids that they will have. Nothing is written yet.
pub(super) struct Checked {
    folders: Vec<(Folder, Look, FolderMark)>,
    /// The places of backups that are out of reach for now: nothing is made there.
    away: Vec<FolderName>,
    /// The mirror, where it is not there: its disk is not mounted.
    absent_mirror: Option<FolderMark>,
    /// Whether an operator says that the mirror is as good as new.
    is_mirror_accepted: bool,
}

/// The ids of places that bytes of backups are in.
#[derive(Debug, Default)]
pub(super) struct Marks {
    /// That of the backup store, where it keeps one.
    pub(super) backups: Option<FolderMark>,
    /// That of the mirror, where there is one.
    pub(super) mirror: Option<FolderMark>,
    /// Whether copies in the mirror count no more that were made before.
    pub(super) is_mirror_new: bool,
}

/// A folder; or where backups are kept elsewhere, which has a marker like one.
struct Folder {
    name: FolderName,
    /// Where it is; of a place elsewhere, its address.
    path: PathBuf,
    /// The place, where it is no folder.
    place: Option<SharedPlace>,
}

/// What was found of a marker.
enum Found {
    Marker(Option<Marker>),
    /// Nobody can tell for now; this is what it said.
    Unreachable(Marker),
}

/// The folders of a configuration.
fn folders(config: &Config) -> Vec<Folder> {
    let data = (FolderName::Data, config.places.data_dir.clone(), None);
    let of_backups = [
        (FolderName::Backups, Some(&config.places.backups)),
        (FolderName::Mirror, config.places.mirror.as_ref()),
    ];
    let of_backups = of_backups.into_iter().filter_map(|(name, place)| {
        let place = place?;
        let (path, elsewhere) = match place.folder() {
            Some(folder) => (folder.to_owned(), None),
            None => (PathBuf::from(place.shown()), Some(place.clone())),
        };
        let keeps = elsewhere.as_ref().is_none_or(|place| place.keeps_marker());
        keeps.then_some((name, path, elsewhere))
    });
    let here = config.places.clusters.iter().filter(|of| of.is_here);
    let clusters = here.filter_map(|of| {
        let name = FolderName::Cluster(of.cluster.id.clone());
        Some((name, of.backing.folder()?.to_owned(), None))
    });
    let all = [data].into_iter().chain(of_backups).chain(clusters);
    all.map(|(name, path, place)| Folder { name, path, place })
        .collect()
}

/// The folders whose volumes are looked at.
pub(super) fn places(config: &Config) -> Vec<ContentFolder> {
    let store = Store::file(config.places.database_url.expose()).and_then(Path::parent);
    let store = store.map(|folder| (Content::Store, folder.to_owned()));
    let here = config.places.clusters.iter().filter(|of| of.is_here);
    let members = here.filter_map(|of| {
        let content = Content::Members(of.cluster.id.clone());
        Some((content, of.backing.folder()?.to_owned()))
    });
    let backups = config.places.backups.folder();
    let backups = backups.map(|folder| (Content::Backups, folder.to_owned()));
    let mirror = config.places.mirror.as_ref();
    let mirror = mirror.and_then(|place| Some((Content::Mirror, place.folder()?.to_owned())));
    store
        .into_iter()
        .chain(members)
        .chain(backups)
        .chain(mirror)
        .map(|(content, folder)| ContentFolder { content, folder })
        .collect()
}

/// The clusters whose folders are beyond doubt before anything else is looked at: they have the marker
/// of a cluster of that name and are no copies, and the store knows no other id, where it can be read.
pub(super) async fn beyond_doubt<'a>(
    clusters: &'a [ClusterSettings],
    database: Option<DatabaseAddress<'_>>,
) -> Vec<&'a ClusterSettings> {
    let known = known_so_far(database).await;
    let is_own = |of: &&ClusterSettings| {
        let name = FolderName::Cluster(of.cluster.id.clone()).to_string();
        let Some(folder) = of.backing.folder() else {
            return false;
        };
        let Ok(Some(marker)) = folder::marker(folder) else {
            return false;
        };
        let is_copy = folder::original_of(folder, &marker);
        let is_known = known.get(&name).is_none_or(|known| *known == marker.id);
        marker.folder == name && is_known && matches!(is_copy, Ok(None))
    };
    let here = clusters.iter().filter(|of| of.is_here);
    here.filter(is_own).collect()
}

/// What the store knows of folders; nothing where it cannot be read, as one of an earlier version.
async fn known_so_far(database: Option<DatabaseAddress<'_>>) -> BTreeMap<String, FolderMark> {
    let Some(Ok(store)) = database.map(Store::open_for_reading) else {
        return BTreeMap::new();
    };
    let known = Arc::new(store).read(store::folder::known).await;
    known.unwrap_or_default()
}

/// Fails where a database file is about to be made beside clusters or backups: it was lost, or its
/// disk is not mounted, and the databases would run on without anybody who knows of them.
pub(super) async fn check_before_store(config: &Config) -> Result<(), StartError> {
    let Some(file) = Store::file(config.places.database_url.expose()) else {
        return Ok(());
    };
    if !file.exists() {
        check_nothing_is_held(config).await?;
        if file.starts_with(&config.places.data_dir) {
            config.make_data_dir()?;
        }
    }
    Ok(())
}

async fn check_nothing_is_held(config: &Config) -> Result<(), StartError> {
    if config.accepted.contains(&Accepted::Database) {
        log::warn!("the database is a new one, as was accepted");
        return Ok(());
    }
    let mut held = Vec::new();
    for folder in folders(config) {
        let count = match &folder.place {
            Some(place) => {
                let counted = place.deployments().await;
                counted.map_err(|source| folder.failed(source))?
            }
            None => deployments_in(&folder.path).map_err(|source| folder.unreadable(source))?,
        };
        let path = folder.path.display();
        match &folder.name {
            _ if count == 0 => {}
            FolderName::Data => {}
            FolderName::Backups => held.push(format!(
                "backups of {} in {path}",
                counted(count, "deployment")
            )),
            FolderName::Mirror => held.push(format!(
                "copies of backups of {} in {path}",
                counted(count, "deployment")
            )),
            FolderName::Cluster(_) => {
                held.push(format!("{} in {path}", counted(count, "deployment")))
            }
        }
    }
    if held.is_empty() {
        return Ok(());
    }
    Err(StartError::NewDatabase(held.join(", ")))
}

/// Deployments that have something in a folder.
fn deployments_in(folder: &Path) -> io::Result<usize> {
    let names = disk::names_in(folder)?;
    let ids = names
        .iter()
        .filter(|name| name.parse::<DeploymentId>().is_ok());
    Ok(ids.count())
}

/// Looks at every folder, and fails when one is not what the store knows.
pub(super) async fn check(
    store: &Arc<Store>,
    config: &Config,
    now: DateTime<Utc>,
) -> Result<Checked, StartError> {
    if store.read(store::folder::is_unused).await? {
        check_nothing_is_held(config).await?;
    }
    let accepts = |name: &FolderName| {
        let accepted = Accepted::Folder(name.clone());
        config.accepted.contains(&accepted)
    };
    let mut checked = Checked {
        folders: Vec::new(),
        away: Vec::new(),
        absent_mirror: None,
        is_mirror_accepted: accepts(&FolderName::Mirror),
    };
    for folder in folders(config) {
        let (look, is_away) = folder.look(store, config).await?;
        if is_away {
            checked.away.push(folder.name.clone());
        }
        let id = match look.decide() {
            Ok(id) => id,
            Err(refusal) if accepts(&folder.name) => {
                let path = folder.path.display();
                log::warn!(folder:% = path; "accepted as it is: {}", folder.error(refusal, &look));
                look.accept()
            }
            // Databases and their backups do without it, and it does not hold them up.
            Err(Refusal::Missing) if folder.name == FolderName::Mirror => {
                let why = chain(&folder.refused(folder.error(Refusal::Missing, &look)));
                log::error!("backups are not copied until their mirror is there: {why}");
                checked.away.push(FolderName::Mirror);
                checked.absent_mirror = look.known;
                continue;
            }
            Err(refusal) => return Err(folder.refused(folder.error(refusal, &look))),
        };
        let id = id.unwrap_or_else(|| FolderMark::generate(now));
        checked.folders.push((folder, look, id));
    }
    Ok(checked)
}

impl Folder {
    /// Also tells whether it is out of reach for now.
    async fn look(&self, store: &Arc<Store>, config: &Config) -> Result<(Look, bool), StartError> {
        let name = self.name.to_string();
        let known = store.read(store::folder::known).await?.remove(&name);
        let marker = match self.marker(known.as_ref()).await? {
            Found::Marker(marker) => marker,
            Found::Unreachable(marker) => {
                let look = Look {
                    known,
                    marker: Some(marker),
                    promised: false,
                    evident: false,
                    original: None,
                    shared: false,
                };
                return Ok((look, true));
            }
        };
        // A copy of backups is as good as the backups.
        let original = match &marker {
            Some(marker) if !matches!(self.name, FolderName::Backups | FolderName::Mirror) => {
                folder::original_of(&self.path, marker).map_err(|e| self.unreadable(e))?
            }
            _ => None,
        };
        let (promised, evident) = match &self.name {
            FolderName::Data => self.own_files(store, config).await?,
            FolderName::Backups => backups_at(store, config).await?,
            FolderName::Mirror => (store.read(store::mirror::has_copies).await?, false),
            FolderName::Cluster(id) => self.members(store, id.clone()).await?,
        };
        let shared = !store.is_private() && self.name != FolderName::Data;
        let look = Look {
            // Brokers that share a database have a folder each for what is their own.
            known: known.filter(|_| shared || store.is_private()),
            marker,
            promised,
            evident,
            original,
            shared,
        };
        Ok((look, false))
    }

    /// The marker. A server that is out of reach for now is taken for the one that is known: whatever is done
    /// there looks at the marker first.
    async fn marker(&self, known: Option<&FolderMark>) -> Result<Found, StartError> {
        // Nothing else waits for a mirror that was used before.
        let is_spared = self.name == FolderName::Mirror && known.is_some();
        let Some(place) = &self.place else {
            return match (folder::marker(&self.path), known) {
                (Err(error), Some(known)) if is_spared => {
                    let why = chain(&self.unreadable(error));
                    Ok(self.unreachable(known, &why))
                }
                (marker, _) => Ok(Found::Marker(marker.map_err(|e| self.unreadable(e))?)),
            };
        };
        let Some(known) = known else {
            let marker = place.marker().await;
            return Ok(Found::Marker(marker.map_err(|source| self.failed(source))?));
        };
        let why = match timeout(LOOK_AT_BACKUPS_MAX, place.marker()).await {
            Ok(Err(error)) if is_spared || error.may_pass() => chain(&error),
            Ok(marker) => {
                return Ok(Found::Marker(marker.map_err(|source| self.failed(source))?));
            }
            Err(_) => format!("{} does not answer", place.shown()),
        };
        Ok(self.unreachable(known, &why))
    }

    /// It is taken for the one that is known, until somebody uses it.
    fn unreachable(&self, known: &FolderMark, why: &str) -> Found {
        let what = match self.name {
            FolderName::Mirror => "backups are not copied until their mirror",
            _ => "backups wait until their store",
        };
        log::error!("{what} is in reach: {why}");
        Found::Unreachable(self.marker_of(known))
    }

    /// What its marker says with this id.
    fn marker_of(&self, id: &FolderMark) -> Marker {
        Marker {
            folder: self.name.to_string(),
            id: id.clone(),
            path: Some(self.path.clone()),
        }
    }

    /// Writes the marker, unless it is what it should be; returns the id that it has.
    async fn mark(&self, look: &Look, id: FolderMark) -> Result<FolderMark, StartError> {
        let marker = self.marker_of(&id);
        if look.marker.as_ref() == Some(&marker) {
            return Ok(id);
        }
        let marked = match &self.place {
            Some(place) => place.mark(&marker).await.map_err(|e| self.failed(e)),
            None if look.is_new() => {
                folder::mark_new(&self.path, &marker).map_err(|e| self.unreadable(e))
            }
            None => folder::mark(&self.path, &marker).map_err(|e| self.unreadable(e)),
        };
        match marked {
            Ok(()) => Ok(id),
            // Another broker may have done so a moment before.
            Err(error) if look.is_new() => match self.marker(None).await? {
                Found::Marker(Some(first)) => Ok(first.id),
                _ => Err(error),
            },
            Err(error) => Err(error),
        }
    }

    /// Lets the store know the id that is in the marker. Fails where another broker was the first to tell it of a
    /// folder of this name, and that one has another id.
    async fn tell(
        &self,
        store: &Arc<Store>,
        look: &Look,
        id: &FolderMark,
    ) -> Result<(), StartError> {
        if look.known.as_ref() == Some(id) {
            return Ok(());
        }
        let (name, told) = (self.name.clone(), id.clone());
        // What brokers have each for themselves, and what an operator has accepted, takes the place of what was
        // known.
        if look.known.is_some() || !look.shared {
            let known = store.write(move |conn| store::folder::know(conn, &name, &told));
            return Ok(known.await?);
        }
        let first = store
            .write(move |conn| store::folder::know_first(conn, &name, &told))
            .await?;
        if first == *id {
            return Ok(());
        }
        let (folder, name) = (self.path.clone(), self.name.clone());
        Err(self.refused(FolderError::Elsewhere { folder, name }))
    }

    /// A folder with the database in it is the one that the database was in.
    async fn own_files(
        &self,
        store: &Arc<Store>,
        config: &Config,
    ) -> Result<(bool, bool), StartError> {
        let file = Store::file(config.places.database_url.expose());
        if !store.is_private() || file.is_some_and(|file| file.starts_with(&self.path)) {
            return Ok((false, false));
        }
        let promised = !store.read(store::folder::is_unused).await?;
        let entries = disk::there(fs::read_dir(&self.path)).map_err(|e| self.unreadable(e))?;
        let evident = entries.is_some_and(|mut entries| entries.next().is_some());
        Ok((promised, evident))
    }

    async fn members(
        &self,
        store: &Arc<Store>,
        cluster: String,
    ) -> Result<(bool, bool), StartError> {
        let allocated = store
            .scan(move |conn| store::deployment::allocated_on(conn, &cluster, ROWS_LOOKED_AT))
            .await?;
        let is_there = |id: &DeploymentId| self.path.join(id.as_str()).exists();
        Ok((!allocated.is_empty(), allocated.iter().any(is_there)))
    }

    fn error(&self, refusal: Refusal, look: &Look) -> FolderError {
        let (folder, name) = (self.path.clone(), self.name.clone());
        match refusal {
            Refusal::Copy(original) => FolderError::Copy {
                folder,
                original,
                name,
            },
            Refusal::Missing if look.shared && look.known.is_some() => {
                FolderError::Elsewhere { folder, name }
            }
            Refusal::Missing => FolderError::Missing {
                folder,
                lacks: match &look.known {
                    Some(id) => format!(
                        "no {} with {{\"folder\":\"{name}\",\"id\":\"{id}\"}}",
                        folder::MARKER
                    ),
                    None => "nothing of what the database says is in it".to_owned(),
                },
                name,
            },
            Refusal::Foreign(found) => FolderError::Foreign {
                folder,
                found,
                known: look
                    .known
                    .as_ref()
                    .map_or_else(|| "one of its own".to_owned(), FolderMark::to_string),
                name,
            },
        }
    }

    fn unreadable(&self, source: io::Error) -> StartError {
        self.refused(FolderError::Unreadable {
            folder: self.path.clone(),
            source,
        })
    }

    /// What it means that a place of backups cannot be used.
    fn failed(&self, source: BackupStoreError) -> StartError {
        match self.name {
            FolderName::Mirror => StartError::Mirror(source),
            _ => StartError::BackupStore(source),
        }
    }

    fn refused(&self, error: FolderError) -> StartError {
        match &self.name {
            FolderName::Data => StartError::DataFolder(error),
            FolderName::Backups => StartError::BackupFolder(error),
            FolderName::Mirror => StartError::MirrorFolder(error),
            FolderName::Cluster(id) => StartError::ClusterFolder {
                cluster: id.clone(),
                source: error,
            },
        }
    }
}

/// Whether the store knows of backups, and whether one of them is where they should be.
async fn backups_at(store: &Arc<Store>, config: &Config) -> Result<(bool, bool), StartError> {
    let complete = store
        .scan(|conn| store::backup::complete_after(conn, None, ROWS_LOOKED_AT))
        .await?;
    let vault = Vault::at(&config.places.backups, None, config.access.keys.clone());
    for (backup, deployment) in &complete {
        if !vault.stored(deployment, backup).await?.objects.is_empty() {
            return Ok((true, true));
        }
    }
    Ok((!complete.is_empty(), false))
}

impl Checked {
    /// The id that the folder of the broker's own files has, or will have.
    pub(super) fn data_id(&self) -> Option<&FolderMark> {
        let mut folders = self.folders.iter();
        let (.., id) = folders.find(|(folder, ..)| folder.name == FolderName::Data)?;
        Some(id)
    }

    /// Whether a place of backups is out of reach for now.
    pub(super) fn is_away(&self, name: &FolderName) -> bool {
        self.away.contains(name)
    }

    /// Marks the folders, which are there by now, and lets the store know; returns the ids of those of backups.
    pub(super) async fn mark(self, store: &Arc<Store>) -> Result<Marks, StartError> {
        let mut marks = Marks {
            backups: None,
            mirror: self.absent_mirror,
            is_mirror_new: self.is_mirror_accepted,
        };
        for (folder, look, id) in self.folders {
            let id = folder.mark(&look, id).await?;
            folder.tell(store, &look, &id).await?;
            match folder.name {
                FolderName::Backups => marks.backups = Some(id),
                FolderName::Mirror => marks.mirror = Some(id),
                FolderName::Data | FolderName::Cluster(_) => {}
            }
        }
        Ok(marks)
    }
}
