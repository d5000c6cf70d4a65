//! Looks at the volumes of store, members and backups now and then: tells operators when one runs
//! out, and keeps the store's reserve.

use std::{
    fs, io,
    os::unix::fs::MetadataExt as _,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use tokio::time::{Instant, sleep};
use tokio_util::sync::CancellationToken;

use crate::{
    disk,
    model::{
        capacity::{Footprint, Placed},
        failure::chain,
        limits::{MEMBERS_MEASURED_EVERY, VOLUMES_LOOK_INTERVAL},
        placement::Cluster,
        sentence::counted,
        volume::{Content, Level, Space, Volume},
    },
    store::Store,
};

/// What is told when it cannot be measured what members have.
const NOT_MEASURED: &str = "what a cluster can be promised is not looked at anew";

/// A folder of the broker.
#[derive(Debug, Clone)]
pub struct ContentFolder {
    /// What lies in it.
    pub content: Content,
    /// Where it is. It is there.
    pub folder: PathBuf,
}

/// Looks at volumes.
pub struct Volumes {
    store: Arc<Store>,
    places: Vec<ContentFolder>,
    each: Footprint,
    seen: Mutex<Vec<Volume>>,
    rooms: Mutex<Vec<Room>>,
}

/// What a volume has for members.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Room {
    /// The clusters on it.
    clusters: Vec<String>,
    /// What is free, and what their members have of it, in bytes. It stays the same while they fill it.
    bytes: u64,
}

impl Volumes {
    /// Knows of nothing yet.
    ///
    /// `each`: what an instance takes beside its units.
    pub fn of(store: Arc<Store>, places: Vec<ContentFolder>, each: Footprint) -> Self {
        Self {
            store,
            places,
            each,
            seen: Mutex::default(),
            rooms: Mutex::default(),
        }
    }

    /// What was seen last.
    pub fn seen(&self) -> Vec<Volume> {
        self.known().clone()
    }

    /// What each instance takes beside its units.
    pub fn each(&self) -> Footprint {
        self.each
    }

    /// What a cluster's volume has for its members beside those of others, in bytes; none where it is
    /// not known. `placed` is what is on each cluster.
    pub fn bytes_for(&self, cluster: &str, placed: &[(&str, Placed)]) -> Option<u64> {
        let rooms = self.rooms();
        let holds = |room: &Room, id: &str| room.clusters.iter().any(|one| one == id);
        let room = rooms.iter().find(|room| holds(room, cluster))?;
        let others = placed
            .iter()
            .filter(|(id, _)| *id != cluster && holds(room, id));
        Some(others.fold(room.bytes, |left, (_, placed)| {
            left.saturating_sub(placed.bytes(self.each))
        }))
    }

    /// Looks for the first time; tells what shares a volume and should not, and where more is promised
    /// than there is.
    pub async fn begin(&self, clusters: &[Cluster]) {
        self.look().await;
        if let Err(error) = self.measure().await {
            log::warn!("{NOT_MEASURED}: {error}");
        }
        for room in self.rooms().iter() {
            self.warn_of_promises(room, clusters);
        }
        for volume in self.seen().iter().filter(|volume| volume.is_shared()) {
            log::warn!(
                "one volume holds {}: when one of them fills it, the others suffer too; give each a \
                 volume of its own",
                volume.content()
            );
        }
    }

    /// Tells where the operator promises more than a volume has.
    fn warn_of_promises(&self, room: &Room, clusters: &[Cluster]) {
        let here = |cluster: &&Cluster| room.clusters.contains(&cluster.id);
        let promised = clusters
            .iter()
            .filter(here)
            .filter_map(|c| c.capacity_units);
        let promised: u64 = promised.map(u64::from).sum();
        let there = Placed::units_at_most(room.bytes, self.each);
        if promised > there {
            let names: Vec<String> = room.clusters.iter().map(|id| format!("{id:?}")).collect();
            log::warn!(
                "capacity_units promises {} on the volume of cluster {}, which has room for \
                 {there}: it can fill up",
                counted(promised, "unit"),
                names.join(", ")
            );
        }
    }

    /// Looks until `stop`.
    pub async fn run(self: Arc<Self>, stop: CancellationToken) {
        let (mut fails, mut is_blind) = (false, false);
        let mut measured = Instant::now();
        while !stop.is_cancelled() {
            self.look().await;
            if measured.elapsed() >= MEMBERS_MEASURED_EVERY {
                let done = self.measure().await;
                if let Err(error) = &done
                    && !is_blind
                {
                    log::warn!("{NOT_MEASURED}: {error}");
                }
                is_blind = done.is_err();
                measured = Instant::now();
            }
            // The reserve itself must not be what fills the disk.
            if self.level_of_store() < Some(Level::Full) {
                match self.store.keep_reserve().await {
                    Ok(_) => fails = false,
                    Err(error) => {
                        if !fails {
                            log::error!("the store has nothing in reserve: {}", chain(&error));
                        }
                        fails = true;
                    }
                }
            }
            tokio::select! {
                () = stop.cancelled() => {}
                () = sleep(VOLUMES_LOOK_INTERVAL) => {}
            }
        }
    }

    /// How much is left on the store's volume; none where it is on no volume of this machine.
    fn level_of_store(&self) -> Option<Level> {
        let known = self.known();
        let volume = known.iter().find(|v| v.holds.contains(&Content::Store));
        volume.map(|volume| volume.level)
    }

    async fn look(&self) {
        let places = self.places.clone();
        let looked = tokio::task::spawn_blocking(move || look_at(&places)).await;
        let Ok(mut now) = looked else {
            return;
        };
        let mut known = self.known();
        for volume in &mut now {
            let before = known.iter().find(|known| known.holds == volume.holds);
            let before = before.map_or(Level::Ample, |known| known.level);
            volume.level = Level::after(before, volume.space);
            log_change(volume, before);
        }
        *known = now;
    }

    /// Measures what members have. Where that fails, all that was known stays: a cluster of which
    /// nothing is known would be given everything.
    async fn measure(&self) -> io::Result<()> {
        let places = self.places.clone();
        let now = tokio::task::spawn_blocking(move || rooms_of(&places)).await??;
        *self.rooms() = now;
        Ok(())
    }

    fn rooms(&self) -> MutexGuard<'_, Vec<Room>> {
        self.rooms.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn known(&self) -> MutexGuard<'_, Vec<Volume>> {
        // It is replaced as a whole, so it is whole even after a panic.
        self.seen.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Tells of a volume that has more or less room than before, once.
fn log_change(volume: &Volume, before: Level) {
    let (content, Space { total, free }) = (volume.content(), volume.space);
    match volume.level {
        now if now == before => {}
        Level::Ample => log::info!(free, total; "the volume of {content} has room again"),
        Level::Low => log::warn!(free, total; "the volume of {content} is nearly full"),
        Level::Full => log::error!(
            free, total; "the volume of {content} is full: nothing begins that needs room there"
        ),
    }
}

/// The volumes that these places are on. One that cannot be looked at is left out: what uses it
/// tells what is wrong.
fn look_at(places: &[ContentFolder]) -> Vec<Volume> {
    let mut found: Vec<(u64, Volume)> = Vec::new();
    for place in places {
        let (device, space) = match look_at_one(&place.folder) {
            Ok(seen) => seen,
            Err(error) => {
                log::debug!("{}: {error}", place.folder.display());
                continue;
            }
        };
        if let Some((_, volume)) = found.iter_mut().find(|(id, _)| *id == device) {
            volume.holds.push(place.content.clone());
        } else {
            let volume = Volume {
                holds: vec![place.content.clone()],
                space,
                level: Level::Ample,
            };
            found.push((device, volume));
        }
    }
    found.into_iter().map(|(_, volume)| volume).collect()
}

/// What the volumes of members have for them.
fn rooms_of(places: &[ContentFolder]) -> io::Result<Vec<Room>> {
    let mut found: Vec<(u64, Room)> = Vec::new();
    for place in places {
        let Content::Members(cluster) = &place.content else {
            continue;
        };
        let bytes = disk::bytes_below(&place.folder)?;
        let (device, space) = look_at_one(&place.folder)?;
        if let Some((_, room)) = found.iter_mut().find(|(id, _)| *id == device) {
            room.clusters.push(cluster.clone());
            room.bytes = room.bytes.saturating_add(bytes);
        } else {
            let room = Room {
                clusters: vec![cluster.clone()],
                bytes: space.free.saturating_add(bytes),
            };
            found.push((device, room));
        }
    }
    Ok(found.into_iter().map(|(_, room)| room).collect())
}

/// The volume of a folder, and its room.
fn look_at_one(folder: &Path) -> io::Result<(u64, Space)> {
    let device = fs::metadata(folder)?.dev();
    Ok((device, disk::space(folder)?))
}

#[cfg(test)]
mod tests {
    use super::*;

    const EACH: Footprint = Footprint {
        members: 3,
        log_bytes_max: 1024 * 1024,
    };

    #[tokio::test]
    async fn what_is_placed_counts_once_and_for_all_clusters_of_a_volume() {
        let folder = tempfile::tempdir().expect("a folder");
        let store = format!("sqlite://{}", folder.path().join("db").display());
        let store = Arc::new(Store::open(&store).expect("a store"));
        let places = ["a", "b"].map(|id| {
            let place = folder.path().join(id);
            fs::create_dir_all(place.join("members")).expect("a folder");
            ContentFolder {
                content: Content::Members(id.to_owned()),
                folder: place,
            }
        });
        let written = 1024 * 1024;
        fs::write(places[0].folder.join("members/file"), vec![1; written]).expect("a file");
        assert!(disk::bytes_below(&places[0].folder).expect("a size") >= written as u64);
        let volumes = Volumes::of(store, places.to_vec(), EACH);
        assert_eq!(
            volumes.bytes_for("a", &[]),
            None,
            "nothing was looked at yet"
        );
        volumes.begin(&[]).await;
        let bytes = volumes.bytes_for("a", &[]).expect("a volume");
        assert_eq!(volumes.bytes_for("b", &[]), Some(bytes));
        let one = Placed {
            units: 1,
            instances: 1,
        };
        let placed = [("a", one), ("b", Placed::default()), ("elsewhere", one)];
        assert_eq!(volumes.bytes_for("a", &placed), Some(bytes));
        let left = bytes.saturating_sub(one.bytes(EACH));
        assert_eq!(volumes.bytes_for("b", &placed), Some(left));
        let seen = volumes.seen();
        assert_eq!(seen.len(), 1, "{seen:?}");
    }
}
