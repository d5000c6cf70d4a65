//! What the store promises of registers of backups: none is forgotten that is to be written, whatever changes.

use std::{
    sync::{Arc, Mutex},
    time::Duration,
};

use async_trait::async_trait;
use bytes::Bytes;
use compose_broker::{
    backups::{
        BackupStoreError, ObjectName, Vault,
        store::{BackupStore, NameStream, memory::MemoryStore},
    },
    clock::Clock,
    model::{
        backup::{Backup, BackupState},
        ids::{BackupId, DeploymentId},
        limits::register::CALLED_OVER_EVERY,
        register::RegisterState,
    },
    registrar::Registrar,
    seal::KeyRing,
    store::{
        Conn, Store, StoreError, backup,
        register::{self, DueRegisters, Written},
    },
    stream::ByteStream,
};
use futures::{StreamExt as _, TryStreamExt as _, future::ready, stream};
use tokio::sync::oneshot;

use super::{Kind, copies::manifest, kept_backup, noon, own, read, seconds, trusted, write};

/// How manifests of these tests name the deployment.
fn deployment() -> DeploymentId {
    own(0)
}

fn unsettled(conn: &mut Conn<'_>) -> Result<Vec<DeploymentId>, StoreError> {
    register::due(conn, &DueRegisters::Unsettled("key".to_owned()), None, 10)
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
    // The first is that without backups, which the first manifest names.
    assert_eq!(number().await, 4);
    let kept = read(store, |conn| register::kept(conn, &deployment())).await;
    let kept: Vec<_> = kept.into_iter().map(|of| of.manifest).collect();
    assert_eq!(kept, [manifest(1), manifest(2), manifest(3)]);
    write(store, |conn| {
        backup::expire(conn, &own(1), trusted(noon()))?;
        backup::expire(conn, &own(1), trusted(noon()))
    })
    .await;
    assert_eq!(number().await, 5, "it is told once");
    write(store, |conn| backup::fail(conn, &own(2), "lost", noon())).await;
    write(store, |conn| {
        backup::give_up_sealed_under(conn, "old", "no key", noon())
    })
    .await;
    assert_eq!(number().await, 7);
    let found = Backup {
        state: BackupState::Complete,
        finished_at: Some(noon()),
        ..kept_backup(5, None)
    };
    write(store, move |conn| backup::adopt(conn, &found)).await;
    assert_eq!(number().await, 8);
    assert_eq!(read(store, unsettled).await, [deployment()]);
    let known = read(store, |conn| register::known(conn, &[own(1), own(9)])).await;
    assert_eq!(known.into_iter().collect::<Vec<_>>(), [own(1)]);
    let elsewhere = |conn: &mut Conn<'_>| {
        let due = DueRegisters::Unsettled("key".to_owned());
        register::due(conn, &due, Some(&["elsewhere".to_owned()]), 10)
    };
    assert_eq!(read(store, elsewhere).await, []);
    write(store, |conn| register::forget(conn, &deployment())).await;
    assert_eq!(read(store, unsettled).await, []);
}

/// Backups of these numbers are complete.
async fn complete(store: &Arc<Store>, numbers: impl IntoIterator<Item = u32>) {
    let numbers: Vec<u32> = numbers.into_iter().collect();
    write(store, move |conn| {
        for number in &numbers {
            backup::insert(conn, &kept_backup(*number, None))?;
            backup::complete(conn, &manifest(*number), "", noon())?;
        }
        Ok(())
    })
    .await;
}

async fn expire(store: &Arc<Store>, number: u32) {
    write(store, move |conn| {
        backup::expire(conn, &own(number), trusted(noon()))
    })
    .await;
}

async fn state(store: &Arc<Store>) -> RegisterState {
    let state = read(store, |conn| register::state(conn, &deployment())).await;
    state.expect("a register")
}

pub(super) async fn what_was_written_is_settled_unless_it_changed_meanwhile<K: Kind>() {
    let Some(kind) = K::new() else { return };
    let store = kind.store();
    complete(store, [1]).await;
    let begun = state(store).await;
    assert_eq!((begun.number, begun.written), (2, 0));
    let numbers = async || {
        let state = state(store).await;
        (state.number, state.written)
    };
    let written = async |of, number| {
        let written = Written {
            deployment: deployment(),
            of,
            number,
            key: "key".to_owned(),
        };
        write(store, move |conn| register::set_written(conn, &written)).await;
    };
    written(begun, 2).await;
    assert_eq!(numbers().await, (2, 2));
    assert_eq!(read(store, unsettled).await, []);
    for first in ["a", "z"] {
        let other = DueRegisters::Unsettled(first.to_owned());
        let signed_otherwise = read(store, move |conn| register::due(conn, &other, None, 10)).await;
        assert_eq!(signed_otherwise, [deployment()], "{first}");
    }

    // It changed while it was written.
    let seen = state(store).await;
    complete(store, [2]).await;
    written(seen, 2).await;
    assert_eq!(numbers().await, (3, 2));
    assert_eq!(read(store, unsettled).await, [deployment()]);
    // What is there was newer.
    let seen = state(store).await;
    written(seen, 9).await;
    assert_eq!(numbers().await, (9, 9));
    let stale = seen;
    written(stale, 5).await;
    assert_eq!(numbers().await, (9, 5));
    write(store, register::set_all_unwritten).await;
    assert_eq!(numbers().await, (9, 0));

    let calling =
        |at| move |conn: &mut Conn<'_>| register::due(conn, &DueRegisters::Calling(at), None, 10);
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

/// A broker that keeps registers beside these objects.
fn registrar(store: &Arc<Store>, vault: &Vault) -> Registrar {
    Registrar::new(store.clone(), vault.clone(), Clock::new(noon))
}

fn ring() -> Arc<KeyRing> {
    let ring = KeyRing::generate().expect("a ring");
    Arc::new(KeyRing::parse(ring.expose()).expect("a ring"))
}

/// The number of the register that is there, and what it has.
async fn present(vault: &Vault) -> (i64, Vec<BackupId>) {
    let register = vault.read_register(&deployment()).await.expect("read");
    let register = register.expect("a register");
    let backups = register.backups.into_iter().map(|of| of.backup_id);
    (register.number, backups.collect())
}

/// Says that something is reached, and waits until it may go on.
type Gate = (oneshot::Sender<()>, oneshot::Receiver<()>);

/// Objects the first of which is written only when a test lets it.
#[derive(Clone)]
struct Held {
    store: MemoryStore,
    hold: Arc<Mutex<Option<Gate>>>,
}

#[async_trait]
impl BackupStore for Held {
    async fn check(&self) -> Result<(), BackupStoreError> {
        self.store.check().await
    }
    async fn put(&self, name: &ObjectName, content: ByteStream) -> Result<u64, BackupStoreError> {
        let held = self.hold.lock().expect("sound").take();
        if let Some((reached, go_on)) = held {
            reached.send(()).expect("a test");
            go_on.await.expect("a test");
        }
        self.store.put(name, content).await
    }
    async fn get(&self, name: &ObjectName, from: u64) -> Result<ByteStream, BackupStoreError> {
        self.store.get(name, from).await
    }
    async fn delete(&self, name: &ObjectName) -> Result<(), BackupStoreError> {
        self.store.delete(name).await
    }
    fn list(&self, prefix: &str) -> NameStream {
        self.store.list(prefix)
    }
    async fn room_for(&self, bytes: u64) -> Result<(), BackupStoreError> {
        self.store.room_for(bytes).await
    }
    async fn sweep(&self, older_than: Duration) -> Result<u64, BackupStoreError> {
        self.store.sweep(older_than).await
    }
}

pub(super) async fn of_two_brokers_that_write_a_register_the_older_one_does_not_stay<K: Kind>() {
    let Some(kind) = K::new() else { return };
    let (store, objects, ring) = (kind.store(), MemoryStore::default(), ring());
    let (reached, is_there) = oneshot::channel();
    let (lets, go_on) = oneshot::channel();
    let held = Held {
        store: objects.clone(),
        hold: Arc::new(Mutex::new(Some((reached, go_on)))),
    };
    let vault = Vault::over(objects, ring.clone());
    complete(store, [1, 2]).await;
    let slow = registrar(store, &Vault::over(held, ring));
    let slow = tokio::spawn(async move { slow.write(&deployment()).await });
    is_there.await.expect("a broker that writes");
    // The other one gives a backup up meanwhile, and its bytes go.
    expire(store, 1).await;
    let quick = registrar(store, &vault);
    quick.settle(&deployment()).await.expect("settled");
    assert_eq!(present(&vault).await, (4, vec![own(2)]));
    lets.send(()).expect("a broker that waits");
    let written = slow.await.expect("no panic").expect("written");
    assert_eq!(present(&vault).await, (4, vec![own(2)]));
    let written: Vec<Written> = written.into_iter().collect();
    quick
        .record(written, vec![deployment()])
        .await
        .expect("recorded");
    let known = state(store).await;
    assert_eq!((known.number, known.written), (4, 4));
    assert_eq!(known.called_at, Some(noon()));
}

pub(super) async fn no_bytes_go_that_a_register_has_unless_there_is_no_room_for_it<K: Kind>() {
    const BYTES: usize = 4000;
    let Some(kind) = K::new() else { return };
    let (store, objects) = (kind.store(), MemoryStore::of_size(BYTES as u64));
    let vault = Vault::over(objects.clone(), ring());
    let registrar = registrar(store, &vault);
    let begun = registrar.begin(&deployment()).await.expect("begun");
    assert_eq!((begun, vec![]), present(&vault).await);
    complete(store, [1, 2]).await;
    let written = registrar.write(&deployment()).await.expect("written");
    assert_eq!(present(&vault).await, (3, vec![own(1), own(2)]));
    // It was killed before that was recorded: it is done again, and comes to the same.
    let again = registrar.write(&deployment()).await.expect("written");
    let number = |of: &Option<Written>| of.as_ref().map(|of| of.number);
    assert_eq!(number(&again), number(&written));
    let again = again.into_iter().collect();
    registrar.record(again, Vec::new()).await.expect("recorded");
    assert!(state(store).await.is_settled());

    expire(store, 1).await;
    objects.take_away(true);
    let settled = registrar.settle(&deployment()).await;
    settled.expect_err("the store is away, and so its bytes may not go");
    objects.take_away(false);
    let register = ObjectName::register(&deployment());
    let text = objects.get(&register, 0).await.expect("a register");
    let text: Vec<Bytes> = text.try_collect().await.expect("read");
    let used: usize = text.iter().map(Bytes::len).sum();
    let other = ObjectName::manifest(&deployment(), &own(1));
    let filling = Bytes::from(vec![0; BYTES - used - 100]);
    let filling = stream::once(ready(Ok(filling))).boxed();
    objects.put(&other, filling).await.expect("stored");
    registrar.settle(&deployment()).await.expect("let pass");
    assert_eq!(present(&vault).await, (3, vec![own(1), own(2)]));
    vault.remove(&deployment(), &own(1)).await.expect("removed");
    registrar.write(&deployment()).await.expect("written");
    assert_eq!(present(&vault).await, (4, vec![own(2)]));
}

pub(super) async fn a_register_that_is_newer_than_the_store_loses_nothing<K: Kind>() {
    let (Some(before), Some(after)) = (K::new(), K::new()) else {
        return;
    };
    let vault = Vault::over(MemoryStore::default(), ring());
    complete(before.store(), [1, 2, 3]).await;
    expire(before.store(), 2).await;
    let of = registrar(before.store(), &vault);
    of.write(&deployment()).await.expect("written");
    assert_eq!(present(&vault).await, (5, vec![own(1), own(3)]));
    // The store was put back to a state in which it knows one of them, and takes another one.
    let store = after.store();
    complete(store, [1, 4]).await;
    let of = registrar(store, &vault);
    let written = of.write(&deployment()).await.expect("written");
    assert_eq!(present(&vault).await, (6, vec![own(1), own(3), own(4)]));
    let written = written.into_iter().collect();
    of.record(written, Vec::new()).await.expect("recorded");
    let known = state(store).await;
    assert_eq!((known.number, known.written), (6, 6));
    assert_eq!(read(store, unsettled).await.len(), 1, "another key");
    // Until somebody has decided about what nobody knows.
    of.remove_unknown(&deployment(), &own(3))
        .await
        .expect("removed");
    assert_eq!(present(&vault).await, (7, vec![own(1), own(4)]));
    assert!(state(store).await.is_settled());
}
