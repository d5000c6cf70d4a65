//! The engine against real members of every version.

mod lab;

use std::time::{Duration, Instant};

use etcd_client::{AlarmAction, AlarmType, Client, CompactionOptions, PutOptions};
use futures::{TryStreamExt, future::join_all};

use self::lab::{Lab, answered, read_all};
use super::figures::figures;
use super::*;
use crate::model::{
    binding::Rights,
    deployment::Access,
    observation::{MemberHealth, MemberRole},
    secret::Secret,
};

/// Runs a scenario once for each version.
macro_rules! for_each_version {
    ($($scenario:ident),* $(,)?) => {
        for_each_version!(@ v3_3_25 "3.3.25" $($scenario)*);
        for_each_version!(@ v3_4_23 "3.4.23" $($scenario)*);
        for_each_version!(@ v3_5_35 "3.5.35" $($scenario)*);
        for_each_version!(@ v3_6_16 "3.6.16" $($scenario)*);
        for_each_version!(@ v3_7_3 "3.7.3" $($scenario)*);
    };
    (@ $module:ident $version:literal $($scenario:ident)*) => {
        mod $module {
            $(
                #[tokio::test(flavor = "multi_thread")]
                async fn $scenario() {
                    super::$scenario($version).await;
                }
            )*
        }
    };
}

mod full;
mod membership;
mod rights;
mod upgrade;

for_each_version!(
    secures_a_new_deployment_and_serves_its_users,
    takes_snapshots_whose_content_is_known,
    proves_what_was_saved,
    secures_a_new_deployment_that_nobody_can_reach,
    notices_who_was_there_before,
    lets_leases_end_after_a_restore,
    takes_over_a_source_without_users,
    survives_the_loss_of_a_member,
    tells_the_state_of_its_members,
);

macro_rules! for_each_step {
    ($($test:ident: $from:literal => $to:literal),* $(,)?) => {
        $(
            #[tokio::test(flavor = "multi_thread")]
            async fn $test() {
                restores($from, $to).await;
            }
        )*
    };
}

for_each_step!(
    restores_3_3_25_into_3_4_23: "3.3.25" => "3.4.23",
    restores_3_5_16_into_3_5_35: "3.5.16" => "3.5.35",
    restores_3_3_25_into_3_6_16: "3.3.25" => "3.6.16",
    restores_3_4_23_into_3_6_16: "3.4.23" => "3.6.16",
    restores_3_5_35_into_3_6_16: "3.5.35" => "3.6.16",
    restores_3_3_25_into_3_7_3: "3.3.25" => "3.7.3",
    restores_3_4_23_into_3_7_3: "3.4.23" => "3.7.3",
    restores_3_5_35_into_3_7_3: "3.5.35" => "3.7.3",
    restores_3_6_16_into_3_7_3: "3.6.16" => "3.7.3",
);

/// A member has noticed by then that the others are gone.
const PATIENCE: Duration = Duration::from_secs(30);

fn user(name: &str, password: &str) -> DatabaseUser {
    DatabaseUser {
        name: name.to_owned(),
        password: Secret::new(password),
        rights: Rights::default(),
    }
}

async fn add_user(lab: &Lab, user: &DatabaseUser) {
    answered(|| Etcd.change_user(lab.site(), UserChange::Add(user)))
        .await
        .expect("added");
}

async fn remove_user(lab: &Lab, name: &str) {
    answered(|| Etcd.change_user(lab.site(), UserChange::Remove(name)))
        .await
        .expect("removed");
}

async fn fill(client: &mut Client, keys: std::ops::Range<usize>) {
    for index in keys {
        client
            .put(format!("key {index}"), "value", None)
            .await
            .expect("put");
    }
}

fn message<T>(result: Result<T, etcd_client::Error>) -> String {
    match result {
        Ok(_) => "no error".to_owned(),
        Err(error) => error.to_string(),
    }
}

async fn secures_a_new_deployment_and_serves_its_users(version: &str) {
    let mut lab = Lab::new(version, 3);
    let begun = Instant::now();
    lab.start(Access::Passwords).await;
    let ready = begun.elapsed();
    lab.secure_new().await.expect("secured");
    println!("{version}: ready {ready:?}, secured {:?}", begun.elapsed());
    lab.secure_new().await.expect("secured again");
    lab.ready(Access::Passwords).await;
    another_password_is_refused_at_once(&lab).await;

    let refused = message(lab.anonymous().await.get("a", None).await);
    assert!(refused.contains("user name is empty"), "{refused}");

    one_user(&lab).await;
    many_users(&lab).await;
}

async fn observed(lab: &Lab) -> Vec<MemberHealth> {
    let seen = Etcd.observe(lab.site()).await;
    let members = seen.expect("a look");
    members.into_iter().map(|member| member.health).collect()
}

async fn tells_the_state_of_its_members(version: &str) {
    let mut lab = Lab::secured(version, 3).await;
    let health = observed(&lab).await;
    let leaders = health.iter().filter(|h| {
        matches!(
            h,
            MemberHealth::Serving {
                role: MemberRole::Leads,
                ..
            }
        )
    });
    assert_eq!(leaders.count(), 1, "{health:?}");
    for member in &health {
        let MemberHealth::Serving {
            version: told,
            database_bytes,
            complaints,
            ..
        } = member
        else {
            panic!("{health:?}");
        };
        assert_eq!(told, version);
        assert!(*database_bytes > 0 && complaints.is_empty(), "{health:?}");
    }
    lab.lose(0);
    let health = observed(&lab).await;
    assert!(matches!(health[0], MemberHealth::Silent(_)), "{health:?}");
    lab.lose(1);
    let begun = Instant::now();
    while observed(&lab)
        .await
        .iter()
        .any(|h| matches!(h, MemberHealth::Serving { .. }))
    {
        assert!(
            begun.elapsed() < PATIENCE,
            "a member without a majority serves"
        );
    }
}

async fn secures_a_new_deployment_that_nobody_can_reach(version: &str) {
    let mut lab = Lab::new(version, 3);
    let begun = Instant::now();
    lab.start(Access::Certificates).await;
    assert!(message(lab.anonymous().await.get("a", None).await) != "no error");
    for _ in 0..2 {
        let site = Site::with_access(&lab.deployment, &lab.secrets, Access::Certificates);
        answered(|| Etcd.secure(site, Holding::Nothing))
            .await
            .expect("secured");
    }
    let secured = begun.elapsed();
    lab.stop();
    lab.start(Access::Passwords).await;
    println!(
        "{version}: secured {secured:?}, ready {:?}",
        begun.elapsed()
    );
    let refused = message(lab.anonymous().await.get("a", None).await);
    assert!(refused.contains("user name is empty"), "{refused}");
    lab.root().await.put("a", "b", None).await.expect("put");
}

async fn another_password_is_refused_at_once(lab: &Lab) {
    let wrong = DeploymentSecrets {
        root_password: Secret::new("wrong"),
        ..lab.secrets.clone()
    };
    let refused = Etcd
        .ready(Site::with_access(
            &lab.deployment,
            &wrong,
            Access::Passwords,
        ))
        .await;
    assert!(matches!(refused, Err(EngineError::Call { .. })));
    let refused = Etcd
        .secure(
            Site::with_access(&lab.deployment, &wrong, Access::Passwords),
            Holding::Nothing,
        )
        .await;
    assert!(matches!(refused, Err(EngineError::Unexpected(_))));
}

async fn one_user(lab: &Lab) {
    add_user(lab, &user("ada", "first")).await;
    add_user(lab, &user("ada", "second")).await;
    assert!(message(lab.login("ada", "first").await).contains("authentication failed"));
    let mut ada = lab.login("ada", "second").await.expect("logged in");
    ada.put("key", "value", None).await.expect("put");
    ada.put([255, 255], "value", None).await.expect("put");
    assert_eq!(ada.get("key", None).await.expect("got").kvs().len(), 1);
    shows_its_members(lab, &user("ada", "second")).await;

    let denied = [
        message(ada.user_add("eve", "password", None).await),
        message(ada.user_change_password("root", "password").await),
        message(ada.role_add("eve").await),
        message(ada.auth_disable().await),
        match ada.snapshot().await {
            Ok(mut stream) => message(stream.message().await),
            Err(error) => error.to_string(),
        },
    ];
    for text in denied {
        assert!(text.contains("permission denied"), "{text}");
    }

    for _ in 0..2 {
        remove_user(lab, "ada").await;
    }
    assert!(message(ada.get("key", None).await) != "no error");
    assert!(message(lab.login("ada", "second").await).contains("authentication failed"));
}

/// The command line that people are given works for the user it is given to.
async fn shows_its_members(lab: &Lab, user: &DatabaseUser) {
    lab.put_on_stage("ca.pem", lab.secrets.ca_certificate.as_bytes());
    let strings = PROFILE.connection_strings(&lab.deployment, &user.name, &user.password);
    let words: Vec<&str> = strings.cli.expose().split(' ').collect();
    let (env, words) = match words.strip_prefix(&["ETCDCTL_API=3"]) {
        Some(words) => (vec![("ETCDCTL_API", "3".to_owned())], words),
        None => (Vec::new(), &words[..]),
    };
    assert_eq!(words[0], "etcdctl");
    let task = crate::model::server::Task {
        program: crate::model::server::Program {
            engine: NAME,
            version: lab.deployment.version,
            binary: "etcdctl",
        },
        args: words[1..]
            .iter()
            .map(|word| word.replace("=ca.pem", "={stage}/ca.pem"))
            .collect(),
        env,
        resources: crate::model::server::Resources {
            disk_bytes: 0,
            memory_bytes: 0,
        },
        timeout: Duration::from_secs(10),
    };
    let output = lab.run(&lab.deployment.id, "m0", &task).await;
    let output = output.expect("works for its user");
    for member in &lab.deployment.members {
        assert!(output.contains(&addresses::client_url(member)), "{output}");
    }
}

async fn many_users(lab: &Lab) {
    let users: Vec<DatabaseUser> = (0..50)
        .map(|index| user(&format!("user{index}"), &format!("password{index}")))
        .collect();
    let begun = Instant::now();
    join_all(users.iter().map(|user| add_user(lab, user))).await;
    println!(
        "{}: 50 users in {:?}",
        lab.deployment.version,
        begun.elapsed()
    );
    let last = &users[49];
    let mut client = lab
        .login(&last.name, last.password.expose())
        .await
        .expect("logged in");
    client.put("key", "value", None).await.expect("put");
    join_all(users.iter().map(|user| remove_user(lab, &user.name))).await;
    let users = lab.root().await.user_list().await.expect("users");
    assert_eq!(users.users(), ["root"]);
    let roles = lab.root().await.role_list().await.expect("roles");
    assert!(roles.roles().iter().all(|role| role == "root"));
}

fn content_of(revision: i64, keys: i64) -> SnapshotContent {
    [("revision", revision), ("keys", keys)].into()
}

fn assert_whole(content: &[u8]) {
    let (before, trailer) = content.split_at(content.len() - 32);
    let digest = ring::digest::digest(&ring::digest::SHA256, before);
    assert_eq!((content.len() % 512, digest.as_ref()), (32, trailer));
}

async fn takes_snapshots_whose_content_is_known(version: &str) {
    let lab = Lab::secured(version, 3).await;
    let mut root = lab.root().await;
    fill(&mut root, 0..20).await;
    root.delete("key 3", None).await.expect("deleted");

    let snapshot = lab.snapshot().await;
    let bytes_expected = snapshot.bytes_expected;
    let known = snapshot.known.clone().expect("nobody wrote");
    assert_eq!(figures(&known).expect("figures"), (22, 19));
    let content = read_all(snapshot).await;
    // Only about so many: etcd may give its file another page between the two.
    assert!((content.len() as u64).abs_diff(bytes_expected) <= 16 * 4096);
    assert_whole(&content);
    for told in [Some(&known), None] {
        let described = lab.describe(&content, told).await;
        assert_eq!(described, Description::Content(known.clone()));
    }

    let snapshots = write_and_save(&lab, root.clone()).await;
    for snapshot in snapshots {
        let known = snapshot.known.clone();
        let content = read_all(snapshot).await;
        assert_whole(&content);
        let Description::Content(found) = lab.describe(&content, None).await else {
            panic!("its keys can be counted");
        };
        let (revision, keys) = figures(&found).expect("figures");
        assert_eq!(keys, 19 + revision - 22);
        assert_eq!(known.unwrap_or_else(|| found.clone()), found);
    }

    newest_entry_compacted_away(&lab, root).await;
}

/// What a throw-away member finds that is made of a snapshot.
async fn proved(
    version: &str,
    snapshot: &[u8],
    expected: &SnapshotContent,
) -> Result<Evidence, EngineError> {
    let mut lab = Lab::new(version, 1);
    lab.restore(snapshot).await;
    lab.start(Access::Certificates).await;
    let site = Site::with_access(&lab.deployment, &lab.secrets, Access::Certificates);
    let first = Etcd.prove(site, expected).await;
    let again = Etcd.prove(site, expected).await;
    assert_eq!(format!("{first:?}"), format!("{again:?}"));
    first
}

const NEWEST: &str = "3.7.3";

/// With a history of which a part was forgotten, keys that were deleted and keys whose leases end.
async fn proves_what_was_saved(version: &str) {
    let lab = Lab::secured(version, 3).await;
    let mut root = lab.root().await;
    for _ in 0..2 {
        fill(&mut root, 0..20).await;
    }
    let forgotten = root.delete("key 3", None).await.expect("deleted");
    let forgotten = forgotten.header().expect("a header").revision();
    fill(&mut root, 10..15).await;
    let lease = root.lease_grant(1, None).await.expect("granted").id();
    let leased = PutOptions::new().with_lease(lease);
    root.put("leased", "for a second", Some(leased))
        .await
        .expect("put");
    let before = lab.snapshot().await;
    let compacted = root.compact(forgotten - 1, None).await;
    compacted.expect("compacted");
    fill(&mut root, 15..17).await;
    let after = lab.snapshot().await;

    for snapshot in [before, after] {
        let known = snapshot.known.clone().expect("nobody wrote");
        let saved = read_all(snapshot).await;
        for restored in [version, NEWEST] {
            let evidence = proved(restored, &saved, &known).await.expect("the same");
            assert_eq!(
                evidence,
                Evidence::Whole,
                "{version} in {restored}: {known:?}"
            );
        }
        let Description::Content(found) = lab.describe(&saved, None).await else {
            panic!("its keys can be counted");
        };
        // By then the members have forgotten more than is forgotten in the first of them.
        let evidence = proved(version, &saved, &found).await.expect("the same");
        assert_eq!(evidence, Evidence::Whole, "{found:?}");
        let mut other = known.clone();
        other.0.insert("hash".to_owned(), 1);
        let error = proved(version, &saved, &other).await.expect_err("another");
        assert!(matches!(error, EngineError::Unexpected(_)), "{error}");
        assert!(error.to_string().contains("hash over all"), "{error}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_holds_no_key_is_proved_by_its_figures() {
    let lab = Lab::secured(NEWEST, 1).await;
    let snapshot = lab.snapshot().await;
    let known = snapshot.known.clone().expect("nobody wrote");
    assert_eq!(known, content_of(1, 0));
    let saved = read_all(snapshot).await;
    let evidence = proved(NEWEST, &saved, &known).await.expect("the same");
    assert_eq!(evidence, Evidence::Figures);
}

/// Old versions throw away a deletion that is compacted, even the newest. Then the inspection alone
/// would lead astray.
async fn newest_entry_compacted_away(lab: &Lab, mut root: Client) {
    let newest = root.delete("key 4", None).await.expect("deleted");
    let newest = newest.header().expect("a header").revision();
    let thoroughly = CompactionOptions::new().with_physical();
    root.compact(newest, Some(thoroughly))
        .await
        .expect("compacted");

    let snapshot = lab.snapshot().await;
    let known = snapshot.known.clone().expect("nobody wrote");
    assert_eq!(known.get("revision"), Some(newest));
    let content = read_all(snapshot).await;
    let described = lab.describe(&content, None).await;
    if lab.deployment.version.minor < 5 {
        assert!(
            matches!(described, Description::Unknown(_)),
            "{described:?}"
        );
    } else {
        assert_eq!(described, Description::Content(known.clone()));
    }
    let described = lab.describe(&content, Some(&known)).await;
    assert_eq!(described, Description::Content(known.clone()));
    // What is in it cannot be newer than what was known.
    let older = content_of(1, 1);
    let described = lab.describe(&content, Some(&older)).await;
    assert!(
        matches!(described, Description::Unknown(_)),
        "{described:?}"
    );
}

/// Takes snapshots while somebody writes new keys all the time.
async fn write_and_save(lab: &Lab, mut client: Client) -> Vec<Snapshot> {
    let writer = tokio::spawn(async move {
        for index in 0.. {
            fill(&mut client, 1000 + index..1001 + index).await;
        }
    });
    let mut snapshots = Vec::new();
    for _ in 0..3 {
        snapshots.push(lab.snapshot().await);
    }
    writer.abort();
    snapshots
}

async fn notices_who_was_there_before(version: &str) {
    type Trace = for<'a> fn(&'a mut Client) -> futures::future::BoxFuture<'a, ()>;
    let traces: [Trace; 5] = [
        |client| {
            Box::pin(async {
                client.put("a", "b", None).await.expect("put");
                client.delete("a", None).await.expect("deleted");
            })
        },
        |client| {
            Box::pin(async {
                client.lease_grant(600, None).await.expect("granted");
            })
        },
        |client| {
            Box::pin(async {
                client
                    .user_add("eve", "password", None)
                    .await
                    .expect("user");
            })
        },
        |client| {
            Box::pin(async {
                client.role_add("eve").await.expect("role");
            })
        },
        |client| {
            Box::pin(async {
                client.user_add("root", "other", None).await.expect("user");
            })
        },
    ];
    for leave_trace in traces {
        let mut lab = Lab::new(version, 1);
        lab.start(Access::Passwords).await;
        leave_trace(&mut lab.anonymous().await).await;
        for _ in 0..2 {
            let noticed = lab.secure_new().await.expect_err("noticed");
            assert!(matches!(noticed, EngineError::Unexpected(_)), "{noticed}");
        }
    }
}

/// The snapshot of a source that is full and has users.
async fn source_snapshot(version: &str) -> (Vec<u8>, SnapshotContent, Secret) {
    let mut lab = Lab::new(version, 1);
    lab.quota_bytes = Some(2 * 1024 * 1024);
    lab.start(Access::Passwords).await;
    lab.secure_new().await.expect("secured");
    add_user(&lab, &user("ada", "password")).await;
    let mut ada = lab.login("ada", "password").await.expect("logged in");
    fill(&mut ada, 0..5).await;
    while ada.put("large", vec![7; 100_000], None).await.is_ok() {}
    let mut root = lab.root().await;
    let alarms = root.alarm(AlarmAction::Get, AlarmType::None, None).await;
    assert_eq!(alarms.expect("alarms").alarms().len(), 1);
    let snapshot = lab.snapshot().await;
    let known = snapshot.known.clone().expect("nobody wrote");
    let content = read_all(snapshot).await;
    (content, known, lab.secrets.root_password.clone())
}

async fn restores(from: &str, to: &str) {
    let (content, expected, old_password) = source_snapshot(from).await;
    let mut lab = Lab::new(to, 3);
    lab.restore(&content).await;
    lab.start(Access::Certificates).await;

    assert!(message(lab.anonymous().await.get("a", None).await) != "no error");
    assert!(lab.login("root", old_password.expose()).await.is_err());
    for _ in 0..2 {
        lab.secure_restored().await.expect("secured");
    }
    verify(&lab, Access::Certificates, &expected)
        .await
        .expect("the same");

    lab.stop();
    lab.start(Access::Passwords).await;
    verify(&lab, Access::Passwords, &expected)
        .await
        .expect("the same");
    wrong_content_is_noticed(&lab, &expected).await;
    for (name, password) in [("ada", "password"), ("root", old_password.expose())] {
        let refused = message(lab.login(name, password).await);
        assert!(refused.contains("authentication failed"), "{refused}");
    }
    let mut root = lab.root().await;
    root.put("key", "writes are allowed again", None)
        .await
        .expect("put");
    let changed = verify(&lab, Access::Passwords, &expected).await;
    assert!(matches!(changed, Err(EngineError::Unexpected(_))));
}

async fn verify(lab: &Lab, access: Access, expected: &SnapshotContent) -> Result<(), EngineError> {
    let site = Site::with_access(&lab.deployment, &lab.secrets, access);
    answered(|| Etcd.verify(site, expected)).await
}

async fn wrong_content_is_noticed(lab: &Lab, right: &SnapshotContent) {
    for (revision, keys) in [(0, 1), (1, 0), (-1, 0)] {
        let figure = |name| right.get(name).expect("a figure");
        let wrong = content_of(figure("revision") + revision, figure("keys") + keys);
        let noticed = verify(lab, Access::Passwords, &wrong).await;
        assert!(
            matches!(noticed, Err(EngineError::Unexpected(_))),
            "{wrong:?}"
        );
    }
}

async fn lets_leases_end_after_a_restore(version: &str) {
    let source = Lab::secured(version, 1).await;
    let mut root = source.root().await;
    fill(&mut root, 0..5).await;
    // A slow machine may see the lease end before the snapshot.
    let (snapshot, expected) = loop {
        let lease = root.lease_grant(2, None).await.expect("granted").id();
        let leased = PutOptions::new().with_lease(lease);
        root.put("leased", "", Some(leased)).await.expect("put");
        let snapshot = source.snapshot().await;
        let expected = snapshot.known.clone().expect("nobody wrote");
        if expected.get("keys") == Some(6) {
            break (snapshot, expected);
        }
    };

    let mut lab = Lab::new(version, 1);
    lab.restore(&read_all(snapshot).await).await;
    lab.start(Access::Certificates).await;
    lab.secure_restored().await.expect("secured");
    lab.stop();
    lab.start(Access::Passwords).await;
    let mut root = lab.root().await;
    while root.get("leased", None).await.expect("got").count() > 0 {
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    verify(&lab, Access::Passwords, &expected)
        .await
        .expect("a lease's end is no change");
    root.put("key 1", "changed", None).await.expect("put");
    verify(&lab, Access::Passwords, &expected)
        .await
        .expect_err("a change");
}

async fn takes_over_a_source_without_users(version: &str) {
    let mut source = Lab::new(version, 1);
    source.start(Access::Passwords).await;
    let mut client = source.anonymous().await;
    fill(&mut client, 0..5).await;
    client
        .user_add("eve", "password", None)
        .await
        .expect("user");
    client.role_add("eve").await.expect("role");
    let mut stream = client.snapshot().await.expect("a snapshot");
    let mut content = Vec::new();
    while let Some(message) = stream.message().await.expect("more") {
        content.extend_from_slice(message.blob());
    }

    let mut lab = Lab::new(version, 1);
    lab.restore(&content).await;
    lab.start(Access::Certificates).await;
    for _ in 0..2 {
        lab.secure_restored().await.expect("secured");
    }
    lab.stop();
    lab.start(Access::Passwords).await;
    let refused = message(lab.anonymous().await.get("a", None).await);
    assert!(refused.contains("user name is empty"), "{refused}");
    assert!(lab.login("eve", "password").await.is_err());
    let users = lab.root().await.user_list().await.expect("users");
    assert_eq!(users.users(), ["root"]);
}

async fn survives_the_loss_of_a_member(version: &str) {
    let mut lab = Lab::secured(version, 3).await;
    let mut root = lab.root().await;
    for index in 0..30 {
        root.put(format!("large {index}"), vec![7; 1_000_000], None)
            .await
            .expect("put");
    }
    lab.lose(0);
    add_user(&lab, &user("ada", "password")).await;

    let mut snapshot = lab.snapshot().await;
    let known = snapshot.known.as_ref().and_then(|known| known.get("keys"));
    assert_eq!(known, Some(30));
    snapshot
        .content
        .try_next()
        .await
        .expect("a chunk")
        .expect("more");
    lab.stop();
    let broken = snapshot.content.try_collect::<Vec<_>>().await;
    let broken = broken.expect_err("the end is missing");
    assert!(broken.get_ref().is_some(), "{broken}");
}
