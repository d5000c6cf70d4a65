//! The secrets in the store, under the key ring that the broker is started with.

use std::sync::Arc;

use super::StartError;
use crate::{
    seal::KeyRing,
    store::{self, Conn, Store},
};

/// Opens one secret, so that a wrong key ring stops the start and not the first user.
pub(super) async fn check_keys(store: &Arc<Store>, keys: &KeyRing) -> Result<(), StartError> {
    if let Some((context, sealed)) = store.read(store::deployment::newest_sealed).await? {
        keys.open(&context, &sealed).map_err(StartError::Keys)?;
    }
    Ok(())
}

/// Seals anew, under the ring's first key, what an older one sealed: all of it or nothing. After
/// that the store needs no older key. It is left alone where others may write to it meanwhile.
pub(super) async fn renew_seals(store: &Arc<Store>, keys: &Arc<KeyRing>) -> Result<(), StartError> {
    if !store.is_private() {
        return Ok(());
    }
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
    for (deployment, sealed) in store::deployment::all_sealed(conn)? {
        if let Some(sealed) = renewed(&deployment.seal_context(), &sealed)? {
            store::deployment::set_sealed(conn, &deployment.id, &sealed)?;
            count += 1;
        }
    }
    for binding in store::binding::all_sealed(conn)? {
        let (instance, id) = (&binding.instance, &binding.id);
        if let Some(sealed) = renewed(&binding.secrets_context(), &binding.sealed_secrets)? {
            store::binding::set_secrets(conn, instance, id, &sealed)?;
            count += 1;
        }
        let Some(credentials) = &binding.sealed_credentials else {
            continue;
        };
        if let Some(sealed) = renewed(&binding.credentials_context(), credentials)? {
            store::binding::set_credentials(conn, instance, id, &sealed)?;
            count += 1;
        }
    }
    Ok(count)
}
