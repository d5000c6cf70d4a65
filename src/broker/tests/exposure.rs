//! Versions that let strangers in, on a cluster whose members are reached from other machines.

use super::*;
use crate::{
    broker::{UpdateRequest, Updated},
    model::{
        deployment::{Member, Membership},
        exposure::ExposedVersion,
        reach::Reach,
    },
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
    let of = id.clone();
    let moved = office.broker.store.write(move |conn| {
        let (deployment, _) = store::deployment::of_instance(conn, &of)?.expect("a deployment");
        let member = Member {
            name: "m0".to_owned(),
            addresses: BTreeMap::from([("client".to_owned(), reach.address(20000))]),
            shape: None,
            checkpointing: false,
            membership: Membership::Joined,
        };
        store::deployment::set_members(conn, &deployment.id, &[member])
    });
    moved.await.expect("written");
    assert!(is_refused("3.6.16").await, "the way leads through 3.5.35");
}
