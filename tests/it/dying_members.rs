//! Members that end while a backup is taken of them.

use etcd_client::{Client, GetOptions};
use ring::rand::{SecureRandom as _, SystemRandom};
use serde_json::{Value, json};

use reqwest::{Method, StatusCode};

use crate::{
    broker::{TestBroker, answer, eventually, kill, text},
    etcd,
};

const VALUES: usize = 40;
const VALUE_BYTES: usize = 1024 * 1024;

/// Some 40 MiB that no compression makes smaller.
async fn fill(client: &mut Client) {
    let random = SystemRandom::new();
    let mut value = vec![0; VALUE_BYTES];
    for i in 0..VALUES {
        random.fill(&mut value).expect("random bytes");
        client
            .put(format!("k{i}"), value.clone(), None)
            .await
            .expect("a put");
    }
}

/// Begins a backup, kills `victims` of the three members when its first bytes are stored, and
/// waits for its end.
async fn back_up_while_members_end(
    broker: &TestBroker,
    credentials: &Value,
    victims: usize,
) -> Value {
    let path = format!(
        "/deployments/{}/backups",
        text(&credentials["deployment_id"])
    );
    let recipe = answer(broker.compose(Method::POST, credentials, &path)).await;
    assert_eq!(recipe.status, StatusCode::ACCEPTED, "{recipe:?}");
    let backup = text(&recipe.body["backup_id"]).to_owned();
    let members = broker.members();
    assert_eq!(members.len(), 3);
    eventually("the first bytes", || async {
        let begun = |file: &String| file.starts_with("backups/") && file.contains(&backup);
        broker.files().iter().any(begun).then_some(())
    })
    .await;
    for pid in members.iter().take(victims) {
        kill(*pid);
    }
    let end = broker.recipe_end(credentials, &recipe.body).await;
    eventually("three members again", || async {
        let now = broker.members();
        let replaced = members.iter().take(victims).all(|dead| !now.contains(dead));
        (now.len() == 3 && replaced).then_some(())
    })
    .await;
    let shown = answer(broker.compose(Method::GET, credentials, &format!("{path}/{backup}"))).await;
    assert_eq!(shown.body["status"], end["status"]);
    if end["status"] == "failed" {
        let left = |file: &String| file.starts_with("backups/") && file.contains(&backup);
        assert!(!broker.files().iter().any(left), "{:?}", broker.files());
        assert!(!text(&shown.body["status_detail"]).is_empty());
    }
    shown.body
}

#[tokio::test(flavor = "multi_thread")]
async fn members_that_end_during_a_backup_cost_time_and_no_more() {
    let broker = TestBroker::start().await;
    broker.provision("i", json!({})).await;
    let credentials = broker.bind("i", "b").await;
    fill(&mut etcd::connect(&credentials).await).await;
    for victims in [1, 3] {
        let backup = back_up_while_members_end(&broker, &credentials, victims).await;
        assert!(
            ["complete", "failed"].contains(&text(&backup["status"])),
            "{backup}"
        );
        if backup["status"] == "complete" {
            assert_eq!(backup["keys"], VALUES);
        }
    }
    let next = broker.back_up(&credentials).await;
    assert_eq!(next["status"], "complete", "{next}");
    assert_eq!(next["keys"], VALUES);
    let all = GetOptions::new().with_all_keys().with_count_only();
    let keys = etcd::connect(&credentials).await.get("", Some(all)).await;
    assert_eq!(keys.expect("a get").count(), VALUES as i64);
}
