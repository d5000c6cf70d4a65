//! What the broker keeps, opened and checked: nothing is served before all of it is in order.

use std::sync::Arc;

use chrono::{DateTime, SubsecRound as _, Utc};

use super::{
    StartError, Surroundings,
    clusters::check_clusters,
    folders::{self, Marks},
    seals::{check_keys, check_keys_of_backups, give_up_backups, join, renew_seals},
};
use crate::{
    backups::{self, CopiedBackup, Looked, Vault},
    broker::keeps_all_plans,
    clock::Clock,
    config::{Accepted, CatalogFile, Config, OfflineError, OfflineLook},
    model::{
        catalog::{Catalog, CatalogError, CatalogErrors, CurrentCatalog},
        ids::FolderMark,
        marker::FolderName,
        replicas::Replica,
        sentence::counted,
    },
    registrar::Registrar,
    store::{
        self, Store,
        copy::{Copied, CopyError, copy},
    },
    timekeeper::Timekeeper,
};

/// What the broker keeps.
pub(super) struct Kept {
    /// The broker, as others on its store see it.
    pub(super) replica: Replica,
    pub(super) store: Arc<Store>,
    pub(super) time: Arc<Timekeeper>,
    /// A catalog under which every instance has a plan.
    pub(super) catalog: Arc<CurrentCatalog>,
    pub(super) backups: Vault,
    pub(super) registrar: Registrar,
}

impl Kept {
    /// Opens it, each part once those that tell whether it is the right one are checked.
    pub(super) async fn open(
        config: &Config,
        clock: &Clock,
        catalog: Catalog,
    ) -> Result<Self, StartError> {
        folders::check_before_store(config).await?;
        let store = Arc::new(Store::open(config.places.database())?);
        let checked = folders::check(&store, config, clock.now()).await?;
        check_keys(&store, &config.access.keys).await?;
        let given_up = check_keys_of_backups(&store, config).await?;
        let time = Arc::new(Timekeeper::start(&store, clock.clone()).await?);
        if store.is_private() {
            renew_seals(&store, &config.access.keys).await?;
        }
        check_clusters(&store, &config.places.clusters).await?;
        let catalog = Arc::new(CurrentCatalog::new(check_plans(&store, catalog).await?));
        config.keep()?;
        if !checked.is_away(&FolderName::Backups) {
            config.places.backups.make().await?;
        }
        if let Some(mirror) = &config.places.mirror
            && !checked.is_away(&FolderName::Mirror)
        {
            mirror.make().await.map_err(StartError::Mirror)?;
        }
        let replica = Replica {
            id: checked
                .data_id()
                .map_or_else(String::new, FolderMark::to_string),
            machine: config.places.machine.clone(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            keys: config.access.keys.marks(),
            plans: Some(catalog.get().plan_ids()),
        };
        let marks = checked.mark(&store).await?;
        let backups = vault(&store, config, marks, clock.now()).await?;
        if !store.is_private() {
            join(&store, replica.clone(), catalog.get(), clock.now()).await?;
        }
        // Only now: a ring that is in the way of other brokers gives nothing up.
        give_up_backups(&store, given_up, clock.now()).await?;
        let registrar = Registrar::new(store.clone(), backups.clone(), clock.clone());
        Ok(Self {
            replica,
            store,
            time,
            catalog,
            registrar,
            backups,
        })
    }
}

/// The vault, with the mirror where there is one.
async fn vault(
    store: &Arc<Store>,
    config: &Config,
    marks: Marks,
    now: DateTime<Utc>,
) -> Result<Vault, StartError> {
    let places = &config.places;
    let vault = Vault::at(&places.backups, marks.backups, config.access.keys.clone());
    if config
        .accepted
        .contains(&Accepted::Folder(FolderName::Backups))
    {
        // It may be the mirror, or a copy of some time ago.
        store.write(store::register::set_all_unwritten).await?;
    }
    let Some(place) = &places.mirror else {
        return Ok(vault);
    };
    if let Some(mark) = marks.mirror.clone() {
        let is_new = marks.is_mirror_new;
        store
            .write(move |conn| store::mirror::begin(conn, &mark, is_new, now))
            .await?;
    }
    Ok(vault.with_mirror(place, marks.mirror))
}

/// The migrations that the broker's store lacks.
pub fn pending_migrations(config: &Config) -> Result<Vec<String>, StartError> {
    Ok(Store::pending_migrations(
        config.places.database_url.expose(),
    )?)
}

/// Brings the broker's store to this version, as a start does; returns the migrations that were made. A store
/// that is not there yet is made, unless it seems to be lost.
pub async fn migrate(config: &Config) -> Result<Vec<String>, StartError> {
    folders::check_before_store(config).await?;
    Ok(Store::migrate(config.places.database())?)
}

/// Copies the broker's store from one database into another, which no broker uses meanwhile. Returns the
/// tables, with their rows.
pub fn copy_store(from: &str, to: &str) -> Result<Vec<Copied>, CopyError> {
    copy(from, to)
}

/// Copies, or moves, backups from the older stores into the one for new ones; `tell` is told of each.
pub async fn copy_backups(
    config: &Config,
    moves: bool,
    tell: impl FnMut(&CopiedBackup),
) -> Result<(), backups::CopyError> {
    let (place, keys) = (&config.places.backups, &config.access.keys);
    backups::copy(place, keys, moves, tell).await
}

/// Looks at backups without a broker; `tell` is told of each.
pub async fn verify_backups(
    look: &OfflineLook,
    tell: impl FnMut(Looked),
) -> Result<(), OfflineError> {
    let (suspect, wanted) = look.read()?;
    Ok(backups::verify(&suspect, &wanted, tell).await?)
}

/// How many services and plans a catalog has, in words, or everything that is wrong with it.
pub fn check_catalog(text: &str) -> Result<String, Vec<CatalogError>> {
    match Catalog::parse(text, &Surroundings::default().engine_names()) {
        Ok(catalog) => {
            let (services, plans) = catalog.counts();
            let (services, plans) = (counted(services, "service"), counted(plans, "plan"));
            Ok(format!("{services}, {plans}"))
        }
        Err(CatalogErrors(violations)) => Err(violations),
    }
}

/// The catalog in a file, changed when the file was. Its plans are of these engines.
pub(super) fn parse_catalog(
    file: &CatalogFile,
    engines: &[&str],
    now: DateTime<Utc>,
) -> Result<Catalog, CatalogErrors> {
    let catalog = Catalog::parse(&file.text, engines)?;
    Ok(match file.modified {
        // HTTP knows whole seconds, and nothing was changed in the future.
        Some(modified) => catalog.modified_at(modified.min(now).trunc_subsecs(0)),
        None => catalog,
    })
}

/// Refuses a catalog under which an instance would have no plan.
async fn check_plans(store: &Arc<Store>, catalog: Catalog) -> Result<Arc<Catalog>, StartError> {
    let catalog = Arc::new(catalog);
    let checked =
        store.decide(move |conn| keeps_all_plans(conn, &catalog).map(|()| catalog.clone()));
    Ok(checked.await?)
}
