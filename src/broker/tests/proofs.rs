//! Whose backup is proved next.

use super::*;
use crate::{
    model::{
        limits::PROOF_WAIT_MAX,
        operation::{Operation, OperationKind},
    },
    store::Conn,
};

/// Looks so much later than it was.
async fn look(office: &Office) -> usize {
    office.broker.proofs.begin_due().await.expect("a look")
}

/// What is under way on an instance.
async fn under_way(office: &Office, of: &InstanceId) -> Vec<Operation> {
    let of = of.clone();
    let read = move |conn: &mut Conn<'_>| store::operation::active_on_instance(conn, &of);
    office.broker.store.read(read).await.expect("operations")
}

/// An instance that nothing is done for.
async fn idle(office: &Office, id: &str) -> InstanceId {
    idle_on(office, id, STANDARD, json!({})).await
}

async fn idle_on(office: &Office, id: &str, plan: &str, parameters: Value) -> InstanceId {
    let id = office.instance(id, plan, parameters).await;
    end_all(office, &id).await;
    id
}

async fn end_all(office: &Office, of: &InstanceId) {
    let ended: Vec<_> = under_way(office, of)
        .await
        .into_iter()
        .map(|o| o.id)
        .collect();
    let forget = move |conn: &mut Conn<'_>| store::operation::forget(conn, &ended);
    office.broker.store.write(forget).await.expect("forgotten");
}

#[tokio::test(flavor = "multi_thread")]
async fn one_backup_of_a_cluster_is_proved_at_a_time() {
    let office = Office::open();
    let near = [idle(&office, "a").await, idle(&office, "b").await];
    let far = idle_on(&office, "c", ENTERPRISE, json!({ "cluster_id": "far" })).await;
    assert_eq!(look(&office).await, 0, "there is no backup");
    let mut backups = Vec::new();
    for of in near.iter().chain([&far]) {
        backups.push(office.backup(of, BackupState::Complete, 1).await);
    }
    office.backup(&near[1], BackupState::Failed, 1).await;
    assert_eq!(look(&office).await, 2, "one on each cluster");
    assert_eq!(look(&office).await, 0);
    // Both are of one moment.
    let mut proved = Vec::new();
    for (of, backup) in near.iter().chain([&far]).zip(&backups) {
        for proof in under_way(&office, of).await {
            assert_eq!(proof.kind, OperationKind::Proof);
            assert_eq!(proof.backup.as_ref(), Some(backup));
            proved.push(of.clone());
        }
    }
    assert_eq!(proved.len(), 2);
    assert!(proved.contains(&far), "{proved:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_proof_waits_for_other_work_on_databases_but_not_for_ever() {
    let office = Office::open();
    let (of, other) = (idle(&office, "a").await, idle(&office, "b").await);
    office.backup(&of, BackupState::Complete, 1).await;
    let (kind, origin) = (OperationKind::Update, Origin::Osb);
    let busy = Operation::queued(kind, &other, origin, now());
    let queue = move |conn: &mut Conn<'_>| store::operation::insert(conn, &busy, None);
    office.broker.store.write(queue).await.expect("queued");
    assert_eq!(look(&office).await, 0, "others come first");
    end_all(&office, &other).await;
    assert_eq!(look(&office).await, 1);

    let late = Office::open_with(|parts| {
        parts.clock = Clock::new(|| now() + PROOF_WAIT_MAX);
    });
    let (of, other) = (idle(&late, "a").await, idle(&late, "b").await);
    late.backup(&of, BackupState::Complete, 1).await;
    let busy = Operation::queued(kind, &other, origin, now());
    let queue = move |conn: &mut Conn<'_>| store::operation::insert(conn, &busy, None);
    late.broker.store.write(queue).await.expect("queued");
    assert_eq!(look(&late).await, 1, "it has waited for long enough");
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_is_proved_of_what_is_not_usable_or_where_it_is_switched_off() {
    let office = Office::open();
    let of = idle(&office, "a").await;
    office.backup(&of, BackupState::Complete, 1).await;
    let gone = of.clone();
    let state = InstanceState::Deleting;
    let deleting = move |conn: &mut Conn<'_>| store::instance::set_state(conn, &gone, state);
    office.broker.store.write(deleting).await.expect("written");
    assert_eq!(look(&office).await, 0);

    let off = Office::open_with(|parts| parts.proves_backups = false);
    let of = idle(&off, "a").await;
    off.backup(&of, BackupState::Complete, 1).await;
    assert_eq!(look(&off).await, 0);
}
