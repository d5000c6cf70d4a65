//! How much the broker asks of the API server.

use std::{collections::BTreeMap, time::Duration};

use serde_json::json;
use tokio::time::{Instant, sleep};

use super::{
    databases::Databases,
    role::{NAMESPACE, entitled, requests},
};
use crate::control::surroundings;

const ACCOUNT: &str = "counted";
/// The most requests of a provision. What takes longer, on a busy machine, is asked about more often.
const OF_A_PROVISION_MAX: usize = 400;
/// The most requests in an hour for a database that nothing happens to.
const OF_AN_HOUR_MAX: usize = 1200;
/// After so long files that stay as they are, are looked at as seldom as ever.
const SETTLED_AFTER: Duration = Duration::from_secs(40);
const COUNTED_FOR: Duration = Duration::from_secs(60);

/// What the broker asked for while `done` was done, by what: without its lease, which is the cluster's.
async fn asked<T>(done: impl Future<Output = T>) -> BTreeMap<(String, String), usize> {
    let before = requests(ACCOUNT).len();
    done.await;
    let mut counts = BTreeMap::new();
    let all = requests(ACCOUNT).into_iter().skip(before);
    for request in all.filter(|request| request.resource != "leases") {
        *counts.entry((request.verb, request.resource)).or_default() += 1;
    }
    counts
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs the cluster of make kubernetes"]
async fn a_provision_asks_some_hundred_times_and_an_idle_database_seldom() {
    let folder = tempfile::tempdir().expect("a folder");
    let file = entitled(ACCOUNT, folder.path());
    let cluster = Databases::new("requests", "32100-32149").of(NAMESPACE, &file);
    let broker = cluster.broker(&[], surroundings()).await;
    let begun = Instant::now();
    let provision = asked(broker.provision("i", json!({ "db_version": "3.6.16" }))).await;
    let total: usize = provision.values().sum();
    println!("{total} requests in {:.0?}: {provision:?}", begun.elapsed());
    assert!(total <= OF_A_PROVISION_MAX, "{total}");

    sleep(SETTLED_AFTER).await;
    let idle = asked(sleep(COUNTED_FOR)).await;
    let per_hour = idle.values().sum::<usize>() * 60;
    println!("{per_hour} requests an hour of one that is idle: {idle:?}");
    assert!(per_hour <= OF_AN_HOUR_MAX, "{per_hour}: {idle:?}");
    broker.deprovision("i").await;
    assert_eq!(cluster.left(), "");
}
