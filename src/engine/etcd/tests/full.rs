//! Databases whose storage runs out: what is told of versions is so, room can be made, and clients that
//! came in meanwhile is found.

use etcd_client::AlarmOptions;

use super::*;
use crate::model::{
    binding::{Rights, Role},
    full::Fullness,
    observation::Observation,
};

for_each_version!(
    is_as_safe_when_full_as_is_told_of_it,
    lets_strangers_say_that_it_is_full_as_is_told_of_it,
    gives_unused_storage_back,
    finds_who_came_in,
);

fn tenant() -> DatabaseUser {
    DatabaseUser {
        rights: Rights {
            role: Role::Writer,
            prefix: "/tenant/".to_owned(),
        },
        ..user("tenant", "password")
    }
}

async fn look(lab: &Lab) -> Fullness {
    let members = Etcd.observe(lab.site()).await.expect("a look");
    let at = chrono::DateTime::UNIX_EPOCH;
    let seen = Observation::first(members, PROFILE.members_needed, at);
    let is_safe = PROFILE.full_is_safe(lab.deployment.version);
    Fullness::of(&seen, lab.deployment.quota_bytes(), is_safe, false)
}

/// Fills the database by nothing but puts.
async fn fill_up(tenant: &mut Client) {
    let large = vec![7; 100_000];
    while tenant
        .put("/tenant/large", large.clone(), None)
        .await
        .is_ok()
    {}
}

async fn is_as_safe_when_full_as_is_told_of_it(version: &str) {
    let mut lab = Lab::new(version, 1);
    lab.quota_bytes = Some(2 * 1024 * 1024);
    lab.start(Access::Passwords).await;
    lab.secure_new().await.expect("secured");
    let mut root = lab.root().await;
    root.put("/secret", "secret", None).await.expect("put");
    add_user(&lab, &tenant()).await;
    let mut client = lab.login("tenant", "password").await.expect("logged in");
    assert!(!look(&lab).await.is_full);
    fill_up(&mut client).await;
    assert!(look(&lab).await.is_full);

    assert!(message(client.get("/secret", None).await).contains("permission denied"));
    let deleted = message(client.delete("/secret", None).await);
    let granted = message(client.user_grant_role("tenant", "root").await);
    let safe = [&deleted, &granted].map(|said| said.contains("permission denied"));
    let told = PROFILE.full_is_safe(lab.deployment.version);
    assert_eq!(safe, [told; 2], "{deleted} {granted}");
    if told {
        client.get("/tenant/large", None).await.expect("readable");
        let deleted = client.delete("/tenant/large", None).await;
        assert_eq!(deleted.expect("deleted").deleted(), 1);
    }
}

async fn lets_strangers_say_that_it_is_full_as_is_told_of_it(version: &str) {
    let lab = Lab::secured(version, 1).await;
    let options = AlarmOptions::new();
    let mut stranger = lab.anonymous().await;
    let said = stranger
        .alarm(AlarmAction::Activate, AlarmType::Nospace, Some(options))
        .await;
    let told = PROFILE.strangers_say_full(lab.deployment.version);
    assert_eq!(said.is_ok(), told, "{}", message(said));
    assert_eq!(look(&lab).await.is_full, told);
    for _ in 0..2 {
        Etcd.relieve(lab.site(), Relief::ClearAlarms)
            .await
            .expect("cleared");
    }
    assert!(!look(&lab).await.is_full);
}

async fn gives_unused_storage_back(version: &str) {
    let lab = Lab::secured(version, 3).await;
    let mut root = lab.root().await;
    for index in 0..40 {
        let key = format!("/{}/{index}", if index < 30 { "old" } else { "new" });
        root.put(key, vec![7; 100_000], None).await.expect("put");
    }
    let before = look(&lab).await.database_bytes.expect("a size");
    let count = || Etcd.count_keys(lab.site(), "/old/");
    assert_eq!(count().await.expect("counted"), 30);
    let none = Etcd.count_keys(lab.site(), "").await;
    assert!(matches!(none, Err(EngineError::Unexpected(_))));
    let deleted = Etcd.relieve(lab.site(), Relief::DeleteKeys("/old/"));
    assert_eq!(deleted.await.expect("deleted"), 30);
    assert_eq!(count().await.expect("counted"), 0);
    let none = Etcd.relieve(lab.site(), Relief::DeleteKeys("")).await;
    assert!(matches!(none, Err(EngineError::Unexpected(_))));
    for _ in 0..2 {
        Etcd.relieve(lab.site(), Relief::ForgetHistory)
            .await
            .expect("forgotten");
        Etcd.relieve(lab.site(), Relief::GiveBack)
            .await
            .expect("given back");
    }
    let after = look(&lab).await.database_bytes.expect("a size");
    assert!(after < before / 2, "{after} of {before}");
    // One alone does so only while the others serve.
    let alone = || Etcd.relieve(lab.site(), Relief::GiveBackOf(0));
    lab.pause(2);
    let refused = alone().await;
    assert!(
        matches!(refused, Err(EngineError::NotReady(_))),
        "{refused:?}"
    );
    lab.go_on(2);
    let begun = Instant::now();
    while let Err(error) = alone().await {
        assert!(begun.elapsed() < PATIENCE, "{error:?}");
    }
    let all = etcd_client::GetOptions::new()
        .with_all_keys()
        .with_count_only();
    let left = root.get("", Some(all)).await.expect("got").count();
    assert_eq!(left, 10);
}

async fn finds_who_came_in(version: &str) {
    let mut lab = Lab::secured(version, 3).await;
    let users = [tenant(), user("ada", "password")];
    for user in &users {
        add_user(&lab, user).await;
    }
    add_user(&lab, &user("coming", "password")).await;
    let others = ["coming".to_owned(), "going".to_owned()];
    let mut intruder = lab.root().await;
    intruder
        .user_add("eve", "password", None)
        .await
        .expect("eve");
    intruder.role_add("backdoor").await.expect("a role");
    intruder
        .user_grant_role("tenant", "root")
        .await
        .expect("granted");
    intruder.user_delete("ada").await.expect("deleted");
    intruder
        .role_grant_permission("tenant", etcd_client::Permission::read_write("/secret"))
        .await
        .expect("granted");
    intruder
        .user_change_password("tenant", "known to eve")
        .await
        .expect("changed");
    intruder.auth_disable().await.expect("disabled");

    lab.stop();
    lab.start(Access::Certificates).await;
    lab.deployment.closed_since = Some(chrono::DateTime::UNIX_EPOCH);
    let restore = || Etcd.restore_users(lab.site(), &users, &others);
    let found = restore().await.expect("restored");
    for what in ["switched off", "\"eve\"", "\"backdoor\"", "tenant", "ada"] {
        assert!(
            found.iter().any(|said| said.contains(what)),
            "{what}: {found:#?}"
        );
    }
    assert!(
        found.iter().all(|said| !said.contains("password\"")),
        "{found:?}"
    );
    assert_eq!(restore().await.expect("restored"), Vec::<String>::new());

    lab.stop();
    lab.deployment.closed_since = None;
    lab.start(Access::Passwords).await;
    assert!(lab.login("eve", "password").await.is_err());
    assert!(lab.login("tenant", "known to eve").await.is_err());
    let mut tenant = lab.login("tenant", "password").await.expect("logged in");
    tenant.put("/tenant/a", "a", None).await.expect("put");
    assert!(message(tenant.put("/secret", "a", None).await).contains("permission denied"));
    assert!(message(tenant.user_list().await).contains("permission denied"));
    for name in ["ada", "coming"] {
        let mut client = lab.login(name, "password").await.expect("logged in");
        client.put("/anything", "a", None).await.expect("put");
    }
}
