//! What is looked at and done around a change of versions, on real members.

use super::*;

for_each_version!(
    writes_its_whole_state_down_when_told_to,
    tells_of_learners_and_of_users_without_a_password,
);

macro_rules! for_each_way_back {
    ($($test:ident: $from:literal => $to:literal),* $(,)?) => {
        $(
            #[tokio::test(flavor = "multi_thread")]
            async fn $test() {
                goes_back($from, $to).await;
            }
        )*
    };
}

for_each_way_back!(
    goes_back_from_3_6_16_to_3_5_35: "3.6.16" => "3.5.35",
    goes_back_from_3_7_3_to_3_6_16: "3.7.3" => "3.6.16",
);

fn version(text: &str) -> crate::model::version::Version {
    text.parse().expect("a version")
}

async fn writes_its_whole_state_down_when_told_to(version: &str) {
    let mut lab = Lab::secured(version, 3).await;
    let mut root = lab.root().await;
    fill(&mut root, 0..3).await;
    let revision = |answer: &etcd_client::PutResponse| answer.header().map(|h| h.revision());
    let before = revision(&root.put("last", "", None).await.expect("put"));
    lab.stop();
    for member in &mut lab.deployment.members {
        member.checkpointing = true;
    }
    lab.start(Access::Passwords).await;
    let newest = |lab: &Lab| lab.newest_files(PROFILE.checkpoints);
    let at_first = newest(&lab);
    Etcd.pass(lab.site(), Passage::FillLogs)
        .await
        .expect("filled");
    let begun = Instant::now();
    while newest(&lab)
        .iter()
        .zip(&at_first)
        .any(|(now, before)| now <= before)
    {
        assert!(begun.elapsed() < PATIENCE, "a member writes nothing down");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    let after = revision(&lab.root().await.put("last", "", None).await.expect("put"));
    assert_eq!(
        after,
        before.map(|revision| revision + 1),
        "no revision was used up"
    );
}

async fn tells_of_learners_and_of_users_without_a_password(from: &str) {
    let lab = Lab::secured(from, 3).await;
    let newest = version("3.7.99");
    let obstacles = || async {
        let found = Etcd.obstacles(lab.site(), newest).await;
        found.expect("asked")
    };
    add_user(&lab, &user("ada", "password")).await;
    let is_newest = lab.deployment.version.same_line(&newest);
    assert_eq!(obstacles().await, []);
    let mut root = lab.root().await;
    root.user_add("open", "", None).await.expect("a user");
    let found = obstacles().await;
    if lab.deployment.version.minor < 6 {
        assert_eq!(found.len(), 1, "{found:?}");
        assert!(
            found[0].is_mended && found[0].text.contains("open"),
            "{found:?}"
        );
    } else {
        assert_eq!(
            found,
            [],
            "newer lines store passwords as they are given: {is_newest}"
        );
    }
    root.user_delete("open").await.expect("deleted");
    if lab.deployment.version.minor < 4 {
        return;
    }
    let begun = Instant::now();
    loop {
        let learner = etcd_client::MemberAddOptions::new().with_is_learner();
        let added = root
            .member_add(["https://127.0.0.1:1"], Some(learner))
            .await;
        let Err(error) = added else { break };
        // Members that have just met do not count for five seconds.
        assert!(error.to_string().contains("unhealthy cluster"), "{error}");
        assert!(begun.elapsed() < PATIENCE, "{error}");
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    let found = obstacles().await;
    assert_eq!(found.len(), 1, "{found:?}");
    assert!(
        !found[0].is_mended && found[0].text.contains("learner"),
        "{found:?}"
    );
}

/// All members have agreed on the newer line, and go back one by one; then forward again.
async fn goes_back(from: &str, to: &str) {
    let mut lab = Lab::secured(to, 3).await;
    add_user(&lab, &user("ada", "password")).await;
    let mut ada = lab.login("ada", "password").await.expect("logged in");
    fill(&mut ada, 0..5).await;
    lab.checkpoint().await;
    lab.become_version(version(from)).await;
    lab.agree_on(version(from)).await;

    for _ in 0..2 {
        Etcd.pass(lab.site(), Passage::BeginWayBack(version(to)))
            .await
            .expect("begun");
    }
    lab.become_version(version(to)).await;
    for _ in 0..2 {
        Etcd.pass(lab.site(), Passage::EndWayBack)
            .await
            .expect("ended");
    }
    lab.agree_on(version(to)).await;
    let mut ada = lab.login("ada", "password").await.expect("logged in");
    assert_eq!(ada.get("key 3", None).await.expect("got").count(), 1);
    fill(&mut ada, 5..10).await;

    lab.checkpoint().await;
    lab.become_version(version(from)).await;
    Etcd.pass(lab.site(), Passage::EndWayBack)
        .await
        .expect("nothing to end");
    lab.agree_on(version(from)).await;
    let mut ada = lab.login("ada", "password").await.expect("logged in");
    assert_eq!(ada.get("key 7", None).await.expect("got").count(), 1);
}

/// A cluster of 3.5.16 whose member was replaced, by way of a learner, goes up to the newest line:
/// the case in which newer lines refuse to start, or panic over what older ones wrote.
#[tokio::test(flavor = "multi_thread")]
async fn a_cluster_with_a_replaced_member_goes_up_the_ladder() {
    let mut lab = Lab::secured("3.5.16", 3).await;
    add_user(&lab, &user("ada", "password")).await;
    let mut ada = lab.login("ada", "password").await.expect("logged in");
    fill(&mut ada, 0..5).await;
    lab.replace(2).await;
    for to in ["3.5.35", "3.6.16", "3.7.3"].map(version) {
        let obstacles = Etcd.obstacles(lab.site(), to).await;
        assert_eq!(obstacles.expect("asked"), [], "{to}");
        if PROFILE.checkpoints(lab.deployment.version, to) {
            lab.checkpoint().await;
        }
        lab.become_version(to).await;
        lab.agree_on(to).await;
        let mut ada = lab.login("ada", "password").await.expect("logged in");
        fill(&mut ada, 5..10).await;
    }
    let health = observed(&lab).await;
    assert!(
        health
            .iter()
            .all(|h| matches!(h, MemberHealth::Serving { .. })),
        "{health:?}"
    );
}
