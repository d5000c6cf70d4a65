//! Versions that let strangers in, on a cluster whose members are reached from other machines.

use chrono::TimeDelta;

use super::*;
use crate::{
    broker::{UpdateRequest, Updated},
    model::{
        address::Address,
        alert::{Gravity, Subject},
        deployment::{Member, Membership},
        exposure::{ExposedVersion, Withheld},
        limits::READDRESSES_AT_ONCE,
        operation::{Operation, OperationKind, OperationState},
    },
    store::Conn,
};

/// The cluster "near", reached from elsewhere; versions that are `named` are served all the same.
fn exposed(named: &[&str]) -> Office {
    let named = named.iter().map(|text| text.parse().expect("a version"));
    let exposure = Exposure {
        reach: Reach {
            listen: "0.0.0.0".parse().expect("an address"),
            host: "db.example".to_owned(),
        },
        versions: named.collect::<std::collections::BTreeSet<ExposedVersion>>(),
    };
    Office::open_with(|parts| {
        let mut clusters = parts.clusters.to_vec();
        clusters[0].exposure = exposure;
        parts.clusters = clusters.into();
        let installed = versions(&["3.5.16", "3.5.30", "3.5.35", "3.6.16"]);
        let of_near = BTreeMap::from([("etcd".to_owned(), installed)]);
        parts.versions.insert("near".to_owned(), of_near);
    })
}

fn refusal(made: Result<(), BrokerError>) -> String {
    match made {
        Err(BrokerError::BadRequest(reason)) => reason,
        other => panic!("{other:?}"),
    }
}

async fn upgrade(office: &Office, id: &InstanceId, to: &str) -> Result<Updated, BrokerError> {
    let of = id.clone();
    let instance = office
        .broker
        .store
        .read(move |conn| store::instance::get(conn, &of))
        .await
        .expect("an instance");
    let parameters = json!({ "db_version": to });
    let request = UpdateRequest::of(&instance, parameters, Origin::Compose);
    office.broker.updates.update(request).await
}

#[tokio::test(flavor = "multi_thread")]
async fn what_lets_strangers_in_is_not_made_where_they_come_from() {
    let office = exposed(&[]);
    let made = office.provision("i", STANDARD, json!({ "db_version": "3.5.35" }));
    let reason = refusal(made.await);
    assert!(reason.contains("etcd 3.5.35"), "{reason}");
    assert!(reason.contains("etcd#22386"), "{reason}");
    assert!(reason.ends_with("one of: 3.6.16"), "{reason}");
    let safe = office.provision("i", STANDARD, json!({})).await;
    safe.expect("the default is safe");
    let elsewhere = json!({ "cluster_id": "far", "db_version": "3.5.16" });
    let elsewhere = office.provision("j", ENTERPRISE, elsewhere).await;
    elsewhere.expect("members of the other cluster are reached by loopback");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_lets_strangers_in_is_made_where_the_operator_names_it() {
    let office = exposed(&["etcd 3.5.35"]);
    for (version, is_made) in [("3.5.35", true), ("3.5.30", false)] {
        let made = office.provision(version, STANDARD, json!({ "db_version": version }));
        assert_eq!(made.await.is_ok(), is_made, "{version}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_backup_is_restored_into_what_keeps_strangers_out() {
    let office = exposed(&[]);
    let old = json!({ "cluster_id": "far", "db_version": "3.5.16" });
    let source = office.instance("source", ENTERPRISE, old).await;
    let backup = office.backup(&source, BackupState::Complete, 1).await;
    let options = office.options(&source, &backup).await;
    let near = options.places.iter().find(|of| of.cluster == "near");
    let near = near.expect("a place");
    assert_eq!(near.versions, versions(&["3.6.16"]));
    assert_eq!(near.version, None, "of its own line there is none");
    let reason = near.refusal.clone().unwrap_or_default();
    assert!(reason.ends_with("one of: 3.6.16"), "{reason}");
    let restored = office.restore(&source, &backup, Some("near"), None).await;
    assert!(matches!(restored, Err(BrokerError::BadRequest(_))));
    let safe = Some("3.6.16".parse().expect("a version"));
    let restored = office.restore(&source, &backup, Some("near"), safe).await;
    restored.expect("accepted");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_upgrade_ends_where_strangers_are_kept_out() {
    let office = exposed(&["etcd 3.5.16"]);
    let id = office
        .instance("i", STANDARD, json!({ "db_version": "3.5.16" }))
        .await;
    let is_refused = async |to: &str| match upgrade(&office, &id, to).await {
        Err(BrokerError::UpdateRefused { reason, repeatable }) => {
            assert!(!repeatable);
            assert!(reason.ends_with("one of: 3.6.16"), "{reason}");
            true
        }
        // The provision, which nobody works on here, has the instance still.
        Ok(Updated::Accepted(_)) | Err(BrokerError::Concurrency(_)) => false,
        other => panic!("{other:?}"),
    };
    assert!(is_refused("3.5.35").await);
    assert!(
        !is_refused("3.6.16").await,
        "members stay on loopback on the way"
    );
    let reach = office.broker.inventory.clusters[0].exposure.reach.clone();
    reached(&office, &id, &reach).await;
    assert!(is_refused("3.6.16").await, "the way leads through 3.5.35");
}

/// Gives an instance a member that applications reach so.
async fn reached(office: &Office, id: &InstanceId, reach: &Reach) {
    let of = id.clone();
    let at = Address::bound_at(reach.listen, &reach.host, 20000);
    let moved = office.broker.store.write(move |conn| {
        let (deployment, _) = store::deployment::of_instance(conn, &of)?.expect("a deployment");
        let member = Member {
            name: "m0".to_owned(),
            addresses: BTreeMap::from([("client".to_owned(), at.clone())]),
            shape: None,
            checkpointing: false,
            membership: Membership::Joined,
        };
        store::deployment::set_members(conn, &deployment.id, &[member])
    });
    moved.await.expect("written");
}

/// What is to be done for an instance.
async fn active(office: &Office, id: &InstanceId) -> Vec<OperationKind> {
    let of = id.clone();
    let read = move |conn: &mut Conn<'_>| store::operation::active_on_instance(conn, &of);
    let found = office.broker.store.read(read).await.expect("operations");
    found.into_iter().map(|operation| operation.kind).collect()
}

/// Leaves an instance with one operation, which changed last so many seconds ago.
async fn leave(office: &Office, id: &InstanceId, kind: OperationKind, ended: Option<i64>) {
    let of = id.clone();
    let left = office.broker.store.write(move |conn| {
        let before = store::operation::active_on_instance(conn, &of)?;
        let before: Vec<_> = before.into_iter().map(|operation| operation.id).collect();
        store::operation::forget(conn, &before)?;
        let queued = Operation::queued(kind, &of, Origin::Configuration, now());
        let operation = Operation {
            state: ended.map_or(OperationState::Queued, |_| OperationState::Failed),
            updated_at: now() - TimeDelta::seconds(ended.unwrap_or_default()),
            ..queued
        };
        store::operation::insert(conn, &operation, None)
    });
    left.await.expect("written");
}

/// An instance that nothing is done for, reached so.
async fn settled(office: &Office, id: &str, reach: &Reach) -> InstanceId {
    let id = office.instance(id, STANDARD, json!({})).await;
    reached(office, &id, reach).await;
    // Long ago, under another configuration.
    leave(office, &id, OperationKind::Readdress, Some(86_400)).await;
    id
}

#[tokio::test(flavor = "multi_thread")]
async fn what_strangers_reach_is_moved_before_all_others_and_told_of_as_it_is() {
    let office = exposed(&[]);
    let reach = office.broker.inventory.clusters[0].exposure.reach.clone();
    let since = now() - TimeDelta::hours(2);
    for i in 0..=READDRESSES_AT_ONCE {
        settled(&office, &format!("other-{i}"), &Reach::loopback()).await;
    }
    let begun = office.broker.moves.begin_due(since).await.expect("a look");
    assert_eq!(begun, usize::try_from(READDRESSES_AT_ONCE).expect("few"));
    let id = settled(&office, "i", &reach).await;
    // A newer broker knows more faults: the version that runs there lets strangers in.
    let of = id.clone();
    let faulty = office.broker.store.write(move |conn| {
        let (deployment, _) = store::deployment::of_instance(conn, &of)?.expect("a deployment");
        let version = "3.5.35".parse().expect("a version");
        let faulty = Deployment {
            version,
            ..deployment
        };
        store::deployment::reshape(conn, &faulty)
    });
    faulty.await.expect("written");
    let moves = &office.broker.moves;
    let told = async || {
        let view = office.broker.deployments.deployment_of(id.clone()).await;
        let told = office
            .broker
            .vitals
            .alerts(&view.expect("a deployment"))
            .await;
        let told = told.expect("alerts").into_iter();
        let about = told.filter(|alert| alert.subject == Subject::Loopback);
        let about: Vec<_> = about.map(|alert| (alert.gravity, alert.message)).collect();
        about
    };
    let withheld = async || {
        let all = moves.all_withheld().await.expect("a look");
        let all: Vec<_> = all
            .into_iter()
            .map(|(of, how)| (of.instance, how))
            .collect();
        all
    };

    assert_eq!(moves.begin_due(since).await.expect("a look"), 1);
    assert_eq!(active(&office, &id).await, [OperationKind::Readdress]);
    let critical = told().await;
    assert_eq!(critical.len(), 1, "{critical:?}");
    assert_eq!(critical[0].0, Gravity::Critical);
    assert!(
        critical[0]
            .1
            .starts_with("Other machines still reach this database"),
        "{critical:?}"
    );
    assert_eq!(withheld().await, [(id.clone(), Withheld::Exposed)]);

    // What failed is tried again soon, and nothing else on the instance is got in the way of.
    for (kind, ended, is_begun) in [
        (OperationKind::Readdress, Some(30), false),
        (OperationKind::Readdress, Some(61), true),
        (OperationKind::Repair, None, false),
        (OperationKind::Backup, None, true),
    ] {
        leave(&office, &id, OperationKind::Readdress, Some(3600)).await;
        leave(&office, &id, kind, ended).await;
        let begun = moves.begin_due(since).await.expect("a look");
        assert_eq!(begun, usize::from(is_begun), "{kind:?} {ended:?}");
    }

    reached(&office, &id, &Reach::loopback()).await;
    let kept = told().await;
    assert_eq!(kept.len(), 1, "{kept:?}");
    assert_eq!(kept[0].0, Gravity::Warning);
    assert!(
        kept[0].1.starts_with("Only programs on the broker"),
        "{kept:?}"
    );
    assert_eq!(withheld().await, [(id.clone(), Withheld::Kept)]);
}
