//! Brokers whose PostgreSQL is behind a pooler (pgbouncer).

use std::path::Path;

use futures::future::join_all;
use reqwest::{Method, StatusCode};
use serde_json::json;

use crate::{
    broker::{SERVICE, answer, eventually, instance_path},
    etcd,
    postgres::{self, Pooler},
    process::{
        BrokerProcess, Settings, assert_one_line, command, new_key_ring, refused, settings,
        shared_cluster, shared_settings,
    },
};

/// What brokers over one store have in common.
fn shared(folder: &Path, url: &str) -> Settings {
    let mut settings = shared_settings(folder, &[shared_cluster("local", folder, None)]);
    settings.insert("DATABASE_URL", url.to_owned());
    settings.insert("DATABASE_POOLER", "transaction".to_owned());
    settings.insert("ENCRYPTION_KEYS", new_key_ring());
    settings
}

#[tokio::test(flavor = "multi_thread")]
async fn two_brokers_behind_one_in_transaction_mode_do_what_others_do() {
    let Some(url) = postgres::new_pooled_database() else {
        return;
    };
    let folder = tempfile::tempdir().expect("a folder");
    let common = shared(folder.path(), &url);
    let new = |_| BrokerProcess::stopped_with(|own| own.extend(common.clone()));
    let mut brokers: Vec<_> = (0..2).map(new).collect();
    // Both would make the schema.
    brokers.iter_mut().for_each(BrokerProcess::spawn);
    join_all(brokers.iter().map(BrokerProcess::serving)).await;
    let [one, two] = brokers.as_mut_slice() else {
        unreachable!("there are two");
    };
    // One hears from the other what is installed.
    let accepted = eventually("the versions of the cluster", || async {
        let accepted = one.put_instance("i", json!({})).await;
        (accepted.status == StatusCode::ACCEPTED).then_some(accepted)
    })
    .await;
    let end = two.instance_end("i", &accepted.body).await;
    assert_eq!(end["state"], "succeeded", "{end}");
    let bound = two.bind("i", "b").await;
    etcd::fill(&mut etcd::connect(&bound).await, 5, "v").await;
    let backup = one.back_up(&bound).await;
    assert_eq!(backup["status"], "complete", "{backup}");
    // Many at once, so that transactions of both are in the pooler's connections by turns.
    let names: Vec<String> = (0..8).map(|i| format!("b{i}")).collect();
    let of_one = names.iter().step_by(2).map(|name| one.bind("i", name));
    let of_two = names.iter().skip(1).step_by(2);
    let of_two = of_two.map(|name| two.bind("i", name));
    futures::join!(join_all(of_one), join_all(of_two));

    one.kill();
    let parameters = json!({ "source_service_instance_id": "i", "backup_id": backup["id"] });
    two.provision("copy", parameters).await;
    let copy = two.bind("copy", "b").await;
    assert_eq!(etcd::dump(&mut etcd::connect(&copy).await).await.len(), 5);
    one.start_again().await;
    let body = json!({ "service_id": SERVICE, "parameters": { "units": 2 } });
    let path = format!("{}?accepts_incomplete=true", instance_path("i"));
    let accepted = answer(one.osb(Method::PATCH, &path).json(&body)).await;
    assert_eq!(accepted.status, StatusCode::ACCEPTED, "{accepted:?}");
    let end = two.instance_end("i", &accepted.body).await;
    assert_eq!(end["state"], "succeeded", "{end}");
    for instance in ["copy", "i"] {
        one.deprovision(instance).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn one_in_transaction_mode_that_nobody_told_of_is_refused_and_one_in_session_mode_is_not() {
    let (Some(url), Some(direct)) = (postgres::new_pooled_database(), postgres::new_database())
    else {
        return;
    };
    let folder = tempfile::tempdir().expect("a folder");
    let mut untold = settings(folder.path());
    untold.extend(shared(folder.path(), &url));
    untold.remove("DATABASE_POOLER");
    let migrated = command(&["migrate"], &untold).output().expect("a process");
    for refused in [refused(&untold).await, migrated] {
        assert_one_line(&refused, "COMPOSE_BROKER_DATABASE_POOLER=transaction");
    }
    untold.insert("DATABASE_POOLER", "transaction".to_owned());
    let migrated = command(&["migrate"], &untold).output().expect("a process");
    assert!(migrated.status.success(), "{migrated:?}");

    let Some(pooler) = Pooler::to_server_of(&direct, "session") else {
        return;
    };
    let folder = tempfile::tempdir().expect("a folder");
    let mut broker = BrokerProcess::stopped_with(|own| {
        own.extend(shared(folder.path(), &pooler.before(&direct)));
        own.remove("DATABASE_POOLER");
        // No more connections than the pooler has.
        own.insert("DATABASE_READERS", "2".to_owned());
    });
    broker.start_again().await;
}
