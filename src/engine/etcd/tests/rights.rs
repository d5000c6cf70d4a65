//! What users who are held to a role or a prefix can get at, by all the ways that we know.

use etcd_client::{
    Compare, CompareOp, DeleteOptions, GetOptions, LeaseTimeToLiveOptions, PutOptions, Txn, TxnOp,
    WatchOptions,
};

use super::*;
use crate::model::{
    binding::{Rights, Role},
    version::Version,
};

for_each_version!(
    holds_users_to_their_role_and_prefix,
    gives_a_repeated_user_the_same_rights
);

const PREFIX: &str = "/app/";
/// Just before and after what `PREFIX` covers, and far away.
const OUTSIDE: [&str; 7] = ["\0", "/", "/app", "/app.", "/app0", "/apq/", "zzz"];
const DENIED: &str = "permission denied";

async fn limited(lab: &Lab, name: &str, role: Role, prefix: &str) -> Client {
    let user = DatabaseUser {
        rights: Rights {
            role,
            prefix: prefix.to_owned(),
        },
        ..user(name, "password")
    };
    add_user(lab, &user).await;
    lab.login(name, "password").await.expect("logged in")
}

fn assert_denied<T>(what: &str, result: Result<T, etcd_client::Error>) {
    let said = message(result);
    assert!(said.contains(DENIED), "{what}: {said}");
}

/// Key and end of every range that begins, ends or lies outside of `PREFIX`.
fn ranges_outside() -> Vec<(Vec<u8>, Vec<u8>)> {
    let mut ranges: Vec<(Vec<u8>, Vec<u8>)> = vec![
        // Everything, and all from here on.
        (vec![0], vec![0]),
        (b"/app/".to_vec(), vec![0]),
        (b"/app/a".to_vec(), vec![0]),
        // One byte too far at either end.
        (b"/app/".to_vec(), b"/app0\0".to_vec()),
        (b"/app.\xff".to_vec(), b"/app0".to_vec()),
        (b"/app".to_vec(), b"/app0".to_vec()),
        (b"/app/a".to_vec(), b"zzz".to_vec()),
        (b"/app/".to_vec(), vec![0xff]),
        // An end before the beginning.
        (b"zzz".to_vec(), b"/app/a".to_vec()),
    ];
    for key in OUTSIDE {
        ranges.push((key.into(), Vec::new()));
        ranges.push((key.into(), key.into()));
    }
    ranges
}

async fn holds_users_to_their_role_and_prefix(version: &str) {
    let lab = Lab::secured(version, 1).await;
    let mut root = lab.root().await;
    for key in OUTSIDE.into_iter().chain(["/app/", "/app/a"]) {
        root.put(key, "secret", None).await.expect("put");
    }
    let mut reader = limited(&lab, "reader", Role::Reader, "").await;
    let mut app = limited(&lab, "app", Role::Writer, PREFIX).await;
    let mut app_reader = limited(&lab, "appreader", Role::Reader, PREFIX).await;

    reads_everything(&mut reader).await;
    for client in [&mut app, &mut app_reader] {
        reads_inside(client).await;
        reads_nothing_outside(client).await;
        watches_nothing_outside(client, version).await;
    }
    writes_inside(&mut app).await;
    writes_nothing_outside(&mut app, &OUTSIDE).await;
    for client in [&mut reader, &mut app_reader] {
        writes_nothing_outside(client, &["/app/a", "/app/new", "/app0", "zzz"]).await;
    }
    takes_no_lease_of_others(&mut root, &mut app).await;
    takes_no_lease_of_others(&mut root, &mut reader).await;
    promises_are_made_where_they_hold(&lab, &mut root).await;

    let all = GetOptions::new().with_all_keys();
    let left = root.get("", Some(all)).await.expect("got");
    let changed: Vec<_> = left
        .kvs()
        .iter()
        .filter(|kv| !kv.key().starts_with(PREFIX.as_bytes()))
        .filter(|kv| kv.value() != b"secret" || kv.version() != 1)
        .collect();
    assert!(changed.is_empty(), "{changed:?}");
    for key in OUTSIDE {
        assert!(left.kvs().iter().any(|kv| kv.key() == key.as_bytes()));
    }
}

async fn reads_everything(reader: &mut Client) {
    let all = GetOptions::new().with_all_keys();
    let got = reader.get("", Some(all)).await.expect("got");
    assert_eq!(got.kvs().len(), OUTSIDE.len() + 2);
    let all = WatchOptions::new().with_all_keys();
    let mut watch = reader.watch("", Some(all)).await.expect("a watch");
    let first = watch.message().await.expect("an answer").expect("more");
    assert!(first.created() && !first.canceled(), "{first:?}");
}

async fn reads_inside(client: &mut Client) {
    let prefix = GetOptions::new().with_prefix();
    let got = client.get(PREFIX, Some(prefix)).await.expect("got");
    assert!(got.kvs().len() >= 2);
    let range = GetOptions::new().with_range("/app/b");
    assert_eq!(
        client.get("/app/", Some(range)).await.expect("got").count(),
        2
    );
    let prefix = WatchOptions::new().with_prefix();
    let mut watch = client.watch(PREFIX, Some(prefix)).await.expect("a watch");
    let first = watch.message().await.expect("an answer").expect("more");
    assert!(first.created() && !first.canceled(), "{first:?}");
}

async fn reads_nothing_outside(client: &mut Client) {
    for (key, end) in ranges_outside() {
        let what = format!("{} to {}", key.escape_ascii(), end.escape_ascii());
        let range = || GetOptions::new().with_range(end.clone());
        for options in [
            range(),
            range().with_count_only(),
            range().with_keys_only(),
            range().with_limit(1),
            range().with_serializable(),
            range().with_revision(2),
        ] {
            assert_denied(&what, client.get(key.clone(), Some(options)).await);
        }
        let get = TxnOp::get(key.clone(), Some(range()));
        assert_denied(&what, client.txn(Txn::new().and_then([get.clone()])).await);
        assert_denied(&what, client.txn(Txn::new().or_else([get])).await);
        // A comparison tells one bit at a time.
        let compare = Compare::value(key.clone(), CompareOp::Greater, "r").with_range(end.clone());
        assert_denied(&what, client.txn(Txn::new().when([compare])).await);
    }
}

/// Whether a version has one of these faults, as it is told of it.
fn has_fault(version: &str, ids: &[&str]) -> bool {
    let version: Version = version.parse().expect("a version");
    let faults = PROFILE.known_faults(version);
    faults.iter().any(|fault| ids.contains(&fault.id))
}

/// Some versions take a watch of everything from a key on for a watch of that key alone when they
/// ask who watches. Nothing that a role says helps.
const WATCHES: &str = "CVE-2026-73499";
/// Ways past a role through transactions and leases.
const TRANSACTIONS: [&str; 3] = ["CVE-2026-33343", "CVE-2026-44283", "CVE-2023-32082"];

async fn watches_nothing_outside(client: &mut Client, version: &str) {
    let held = !has_fault(version, &[WATCHES]);
    for (key, end) in ranges_outside() {
        let from_inside_on = key.starts_with(PREFIX.as_bytes()) && end == [0];
        let what = format!("{} to {}", key.escape_ascii(), end.escape_ascii());
        let options = WatchOptions::new()
            .with_range(end.clone())
            .with_start_revision(1)
            .with_prev_key();
        let mut watch = match client.watch(key, Some(options)).await {
            Ok(watch) => watch,
            Err(error) => {
                assert!(error.to_string().contains(DENIED), "{what}: {error}");
                continue;
            }
        };
        let first = watch.message().await.expect("an answer").expect("more");
        if from_inside_on && !held {
            let events = watch.message().await.expect("events").expect("more");
            let leaks = |e: &etcd_client::Event| e.kv().is_some_and(|kv| kv.key() == b"zzz");
            assert!(
                events.events().iter().any(leaks),
                "this can be promised now"
            );
            continue;
        }
        // An end before the beginning is no range, and told so.
        assert!(
            first.canceled() && first.events().is_empty(),
            "{what}: {first:?}"
        );
    }
}

async fn writes_inside(app: &mut Client) {
    app.put("/app/b", "v", None).await.expect("put");
    let swap = Txn::new()
        .when([Compare::value("/app/b", CompareOp::Equal, "v")])
        .and_then([TxnOp::put("/app/b", "w", None), TxnOp::get("/app/a", None)]);
    assert!(app.txn(swap).await.expect("done").succeeded());
    let all = DeleteOptions::new().with_range("/app/c");
    assert_eq!(
        app.delete("/app/b", Some(all))
            .await
            .expect("deleted")
            .deleted(),
        1
    );
}

async fn writes_nothing_outside(client: &mut Client, keys: &[&str]) {
    for &key in keys {
        let put = || TxnOp::put(key, "x", None);
        let delete = || TxnOp::delete(key, None);
        assert_denied(key, client.put(key, "x", None).await);
        let ignoring = PutOptions::new().with_ignore_value();
        assert_denied(key, client.put(key, "", Some(ignoring)).await);
        assert_denied(key, client.delete(key, None).await);
        let previous = DeleteOptions::new().with_prev_key();
        assert_denied(key, client.delete(key, Some(previous)).await);
        assert_denied(key, client.txn(Txn::new().and_then([put()])).await);
        assert_denied(key, client.txn(Txn::new().or_else([put()])).await);
        assert_denied(key, client.txn(Txn::new().and_then([delete()])).await);
        // What is allowed comes first.
        let both = [TxnOp::get("/app/a", None), delete()];
        assert_denied(key, client.txn(Txn::new().and_then(both)).await);
    }
    for (key, end) in ranges_outside() {
        let range = DeleteOptions::new().with_range(end);
        assert_denied("a range", client.delete(key, Some(range)).await);
    }
}

/// To end somebody's lease is to delete keys.
async fn takes_no_lease_of_others(root: &mut Client, client: &mut Client) {
    let lease = root.lease_grant(600, None).await.expect("granted").id();
    let leased = || PutOptions::new().with_lease(lease);
    root.put("zzz", "secret", Some(leased()))
        .await
        .expect("put");
    assert_denied("revoking", client.lease_revoke(lease).await);
    assert_denied("attaching", client.put("/app/a", "x", Some(leased())).await);
    root.put("zzz", "secret", None).await.expect("put");
    root.delete("zzz", None).await.expect("deleted");
    root.put("zzz", "secret", None).await.expect("put");
    root.lease_revoke(lease).await.expect("revoked");
    // Leases of its own are nobody else's affair.
    let own = client.lease_grant(600, None).await.expect("granted").id();
    let own_options = PutOptions::new().with_lease(own);
    assert_denied("zzz", client.put("zzz", "x", Some(own_options)).await);
    client.lease_revoke(own).await.expect("revoked");
}

/// The ways past a role that older versions leave open: they are why no limits are promised there.
/// Where limits are promised, none of them leads anywhere.
async fn promises_are_made_where_they_hold(lab: &Lab, root: &mut Client) {
    let mut app = limited(lab, "nested", Role::Writer, PREFIX).await;
    let mut reader = limited(lab, "nestedreader", Role::Reader, "").await;
    let lease = root.lease_grant(600, None).await.expect("granted").id();
    root.put(
        "leased",
        "secret",
        Some(PutOptions::new().with_lease(lease)),
    )
    .await
    .expect("put");
    let nested = |operation: TxnOp| {
        let inner = TxnOp::txn(Txn::new().and_then([operation]));
        Txn::new().and_then([inner])
    };
    let twice = |operation: TxnOp| {
        let inner = TxnOp::txn(nested(operation));
        Txn::new().and_then([inner.clone()]).or_else([inner])
    };
    let compare = Compare::value("zzz", CompareOp::Greater, "r");
    let comparing = TxnOp::txn(Txn::new().when([compare]));
    let leased = PutOptions::new().with_lease(lease);
    let keys = LeaseTimeToLiveOptions::new().with_keys();
    let attempts = [
        message(app.txn(nested(TxnOp::get("zzz", None))).await),
        message(app.txn(nested(TxnOp::put("past", "x", None))).await),
        message(app.txn(nested(TxnOp::delete("past", None))).await),
        message(app.txn(twice(TxnOp::get("zzz", None))).await),
        message(app.txn(Txn::new().and_then([comparing])).await),
        message(reader.txn(nested(TxnOp::put("past", "x", None))).await),
        message(reader.txn(twice(TxnOp::delete("past", None))).await),
        message(
            app.txn(Txn::new().and_then([TxnOp::put("/app/l", "x", Some(leased))]))
                .await,
        ),
        message(app.lease_time_to_live(lease, Some(keys)).await),
    ];
    let denied = attempts.iter().filter(|said| said.contains(DENIED)).count();
    if has_fault(&lab.deployment.version.to_string(), &TRANSACTIONS) {
        assert!(denied < attempts.len(), "limits could be promised here");
        assert!(!PROFILE.limits_users(lab.deployment.version));
        root.delete("past", None).await.expect("deleted");
    } else {
        assert_eq!(denied, attempts.len(), "{attempts:#?}");
    }
    root.delete("leased", None).await.expect("deleted");
}

async fn gives_a_repeated_user_the_same_rights(version: &str) {
    let lab = Lab::secured(version, 1).await;
    for _ in 0..2 {
        let mut app = limited(&lab, "app", Role::Reader, PREFIX).await;
        assert_denied("a put", app.put("/app/a", "x", None).await);
        app.get("/app/a", None).await.expect("got");
    }
    let role = lab.root().await.role_get("app").await.expect("a role");
    assert_eq!(role.permissions().len(), 1);
    remove_user(&lab, "app").await;
    let roles = lab.root().await.role_list().await.expect("roles");
    assert!(roles.roles().iter().all(|role| role == "root"));
}
