//! What the store promises of registers of backups: none is forgotten that is to be written, whatever changes.

use compose_broker::{
    model::{
        backup::{Backup, BackupState},
        ids::DeploymentId,
        limits::register::CALLED_OVER_EVERY,
    },
    store::{
        Conn, StoreError, backup,
        register::{self, Due},
    },
};

use super::{Kind, copies::manifest, kept_backup, noon, own, read, seconds, trusted, write};

/// How manifests of these tests name the deployment.
fn deployment() -> DeploymentId {
    own(0)
}

fn unsettled(conn: &mut Conn<'_>) -> Result<Vec<DeploymentId>, StoreError> {
    register::due(conn, &Due::Unsettled("key".to_owned()), None, 10)
}

pub(super) async fn each_change_of_a_deployments_backups_has_its_register_written<K: Kind>() {
    let Some(kind) = K::new() else { return };
    let store = kind.store();
    let number = async || {
        let state = read(store, |conn| register::state(conn, &deployment())).await;
        state.map_or(0, |state| state.number)
    };
    write(store, |conn| {
        for number in 1..=4 {
            backup::insert(conn, &kept_backup(number, None))?;
        }
        backup::fail(conn, &own(4), "never was", noon())
    })
    .await;
    assert_eq!(number().await, 0, "what is not complete is in none");
    assert_eq!(read(store, unsettled).await, []);
    write(store, |conn| {
        for number in 1..=3 {
            backup::complete(conn, &manifest(number), "old", noon())?;
        }
        Ok(())
    })
    .await;
    assert_eq!(number().await, 3);
    let kept = read(store, |conn| register::kept(conn, &deployment())).await;
    let kept: Vec<_> = kept.into_iter().map(|of| of.manifest).collect();
    assert_eq!(kept, [manifest(1), manifest(2), manifest(3)]);
    write(store, |conn| {
        backup::expire(conn, &own(1), trusted(noon()))?;
        backup::expire(conn, &own(1), trusted(noon()))
    })
    .await;
    assert_eq!(number().await, 4, "it is told once");
    write(store, |conn| backup::fail(conn, &own(2), "lost", noon())).await;
    write(store, |conn| {
        backup::give_up_sealed_under(conn, "old", "no key", noon())
    })
    .await;
    assert_eq!(number().await, 6);
    let found = Backup {
        state: BackupState::Complete,
        finished_at: Some(noon()),
        ..kept_backup(5, None)
    };
    write(store, move |conn| backup::adopt(conn, &found)).await;
    assert_eq!(number().await, 7);
    assert_eq!(read(store, unsettled).await, [deployment()]);
    let known = read(store, |conn| register::known(conn, &[own(1), own(9)])).await;
    assert_eq!(known.into_iter().collect::<Vec<_>>(), [own(1)]);
    let elsewhere = |conn: &mut Conn<'_>| {
        let due = Due::Unsettled("key".to_owned());
        register::due(conn, &due, Some(&["elsewhere".to_owned()]), 10)
    };
    assert_eq!(read(store, elsewhere).await, []);
    write(store, |conn| register::forget(conn, &deployment())).await;
    assert_eq!(read(store, unsettled).await, []);
}

pub(super) async fn what_was_written_is_settled_unless_it_changed_meanwhile<K: Kind>() {
    let Some(kind) = K::new() else { return };
    let store = kind.store();
    let begun = write(store, |conn| register::begin(conn, &deployment())).await;
    assert_eq!((begun.number, begun.written), (1, 0));
    let again = write(store, |conn| register::begin(conn, &deployment())).await;
    assert_eq!(again, begun);
    let state = async || {
        let state = read(store, |conn| register::state(conn, &deployment())).await;
        let state = state.expect("a register");
        (state.number, state.written)
    };
    let written = async |of, number| {
        write(store, move |conn| {
            register::set_written(conn, &deployment(), of, number, "key")
        })
        .await;
    };
    written(begun, 1).await;
    assert_eq!(state().await, (1, 1));
    assert_eq!(read(store, unsettled).await, []);
    let other = Due::Unsettled("next".to_owned());
    let signed_otherwise = read(store, move |conn| register::due(conn, &other, None, 10)).await;
    assert_eq!(signed_otherwise, [deployment()]);

    // It changed while it was written.
    let seen = write(store, |conn| {
        backup::insert(conn, &kept_backup(1, None))?;
        let seen = register::begin(conn, &deployment())?;
        backup::complete(conn, &manifest(1), "", noon())?;
        Ok(seen)
    })
    .await;
    written(seen, 1).await;
    assert_eq!(state().await, (2, 1));
    assert_eq!(read(store, unsettled).await, [deployment()]);
    // What is there was newer.
    let seen = write(store, |conn| register::begin(conn, &deployment())).await;
    written(seen, 9).await;
    assert_eq!(state().await, (9, 9));
    let stale = seen;
    written(stale, 5).await;
    assert_eq!(state().await, (9, 5));
    write(store, register::set_all_unwritten).await;
    assert_eq!(state().await, (9, 0));

    let calling = |at| move |conn: &mut Conn<'_>| register::due(conn, &Due::Calling(at), None, 10);
    assert_eq!(read(store, calling(noon())).await, [deployment()]);
    write(store, |conn| {
        register::set_called(conn, &deployment(), noon())
    })
    .await;
    assert_eq!(read(store, calling(seconds(10))).await, []);
    let later = noon() + CALLED_OVER_EVERY;
    assert_eq!(read(store, calling(later)).await, [deployment()]);
    assert_eq!(read(store, calling(seconds(-10))).await, [deployment()]);
}
