//! The secrets in the store, under the key ring that the broker is started with.

use std::sync::Arc;

use chrono::{DateTime, Utc};

use super::StartError;
use crate::{
    backups::Identity,
    broker::keeps_all_plans,
    config::{Accepted, Config},
    model::{
        backup::KEY_LOST,
        binding::Binding,
        catalog::Catalog,
        limits::{PAGE_OF_ALL, REPLICA_ALIVE},
        replicas::{Replica, check_rings},
        sentence::counted,
    },
    seal::KeyRing,
    store::{self, Conn, Store},
};

/// Opens one secret, so that a wrong key ring stops the start and not the first user. Where others use the
/// store too, nothing in it may be sealed under a key that this ring lacks.
pub(super) async fn check_keys(store: &Arc<Store>, keys: &KeyRing) -> Result<(), StartError> {
    if let Some((context, sealed)) = store.read(store::deployment::newest_sealed).await? {
        keys.open(&context, &sealed).map_err(StartError::Keys)?;
    }
    if !store.is_private() {
        let names: Vec<String> = keys.marks().into_iter().map(|mark| mark.name).collect();
        let foreign = store.scan(move |conn| {
            Ok(store::deployment::is_sealed_otherwise(conn, &names)?
                || store::binding::is_sealed_otherwise(conn, &names)?)
        });
        if foreign.await? {
            return Err(StartError::KeyGone);
        }
    }
    Ok(())
}

/// The keys that the ring lacks although backups are sealed under them, where it was accepted that these are
/// given up; else it fails when there are any.
pub(super) async fn check_keys_of_backups(
    store: &Arc<Store>,
    config: &Config,
) -> Result<Vec<String>, StartError> {
    let mut needed = store.scan(store::backup::keys_needed).await?;
    if config.places.mirror.is_some() {
        // A copy gets the newest manifest as soon as the mirror is in reach; until then it needs the older key.
        for (key, count) in store.scan(store::mirror::keys_needed).await? {
            match needed.iter_mut().find(|(needed, _)| *needed == key) {
                Some((_, needed)) => *needed = count.max(*needed),
                None => needed.push((key, count)),
            }
        }
    }
    needed.retain(|(key, _)| !config.access.keys.has(key));
    let told: Vec<String> = needed
        .iter()
        .map(|(key, count)| format!("{key} ({})", counted(count.unsigned_abs(), "backup")))
        .collect();
    if !told.is_empty() && !config.accepted.contains(&Accepted::Keys) {
        return Err(StartError::KeysOfBackupsGone(told.join(", ")));
    }
    Ok(needed.into_iter().map(|(key, _)| key).collect())
}

/// Gives up the backups that are sealed under these keys, which are gone.
pub(super) async fn give_up_backups(
    store: &Arc<Store>,
    keys: Vec<String>,
    now: DateTime<Utc>,
) -> Result<(), StartError> {
    if keys.is_empty() {
        return Ok(());
    }
    log::warn!(
        "backups are given up, as was accepted, since the keys to them are gone: {}",
        keys.join(", ")
    );
    let given_up = store.write(move |conn| {
        keys.iter().try_for_each(|key| {
            let failure = format!("{KEY_LOST}: {key}");
            store::backup::give_up_sealed_under(conn, key, &failure, now)
        })
    });
    Ok(given_up.await?)
}

/// Begins to work beside the other brokers on the store, unless a key ring is in the way, or an instance that
/// another one has accepted meanwhile.
pub(super) async fn join(
    store: &Arc<Store>,
    own: Replica,
    catalog: Arc<Catalog>,
    now: DateTime<Utc>,
) -> Result<(), StartError> {
    let joined = store.decide(move |conn| {
        let now = store::time::of_store(conn, now)?;
        let others = store::broker::alive_since(conn, now - REPLICA_ALIVE)?;
        check_rings(&own, &others)?;
        keeps_all_plans(conn, &catalog)?;
        store::broker::set(conn, &own, now)?;
        Ok::<_, StartError>(())
    });
    joined.await
}

/// Seals anew, under the ring's first key, what an older one sealed: all of it or nothing. After
/// that the store needs no older key. No other broker may seal under another one meanwhile.
pub(super) async fn renew_seals(store: &Arc<Store>, keys: &Arc<KeyRing>) -> Result<(), StartError> {
    let keys = keys.clone();
    let renewed = store
        .decide(move |conn| renew_seals_in(conn, &keys))
        .await?;
    if renewed > 0 {
        log::info!(renewed; "secrets were sealed anew under the first key of the ring");
    }
    Ok(())
}

fn renew_seals_in(conn: &mut Conn<'_>, keys: &KeyRing) -> Result<usize, StartError> {
    let renewed = |context: &str, sealed: &str| {
        let renewed = keys.renewed(context, sealed);
        renewed.map_err(StartError::Keys)
    };
    let mut count = 0;
    // Page by page, so that nobody holds the secrets of all.
    let mut after = String::new();
    loop {
        let page = store::deployment::sealed_after(conn, &after, PAGE_OF_ALL)?;
        let Some((last, _)) = page.last() else {
            break;
        };
        after = last.id.to_string();
        for (deployment, sealed) in page {
            if let Some(sealed) = renewed(&deployment.seal_context(), &sealed)? {
                store::deployment::set_sealed(conn, &deployment.id, &sealed)?;
                count += 1;
            }
        }
    }
    let mut after = (String::new(), String::new());
    loop {
        let page = store::binding::sealed_after(conn, (&after.0, &after.1), PAGE_OF_ALL)?;
        let Some(last) = page.last() else {
            return Ok(count + renew_parts(conn, &renewed)?);
        };
        after = (last.instance.to_string(), last.id.to_string());
        for binding in page {
            count += renew_binding(conn, &binding, &renewed)?;
        }
    }
}

/// Returns how many parts of uploads were.
fn renew_parts(
    conn: &mut Conn<'_>,
    renewed: &impl Fn(&str, &str) -> Result<Option<String>, StartError>,
) -> Result<usize, StartError> {
    let mut count = 0;
    for upload in store::upload::all(conn)? {
        let context = Identity::from(&upload).key_context();
        for part in store::upload::parts(conn, &upload.backup)? {
            if let Some(sealed) = renewed(&context, &part.sealed_key)? {
                store::upload::set_sealed_key(conn, &part.id, &sealed)?;
                count += 1;
            }
        }
    }
    Ok(count)
}

/// Returns how much of a binding's was sealed anew.
fn renew_binding(
    conn: &mut Conn<'_>,
    binding: &Binding,
    renewed: &impl Fn(&str, &str) -> Result<Option<String>, StartError>,
) -> Result<usize, StartError> {
    let (instance, id) = (&binding.instance, &binding.id);
    let mut count = 0;
    if let Some(sealed) = renewed(&binding.secrets_context(), &binding.sealed_secrets)? {
        store::binding::set_secrets(conn, instance, id, &sealed)?;
        count += 1;
    }
    if let Some(credentials) = &binding.sealed_credentials
        && let Some(sealed) = renewed(&binding.credentials_context(), credentials)?
    {
        store::binding::set_credentials(conn, instance, id, &sealed)?;
        count += 1;
    }
    Ok(count)
}
