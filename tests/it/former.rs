//! What earlier versions wrote down is read, and goes on. `former/` has data folders that they made, with
//! all that a broker keeps and the credentials of a binding in `app.json`.

use std::{fs, process::Command};

use reqwest::{Method, StatusCode};
use serde_json::{Value, json};

use crate::{
    broker::{TestBroker, answer, eventually, have_former_ports, new_folder, text},
    control::surroundings,
    etcd,
    inside::{Inside, files_of_deployments},
    postgres,
};

/// The state of the program at which the folder was made: with SQLite, one cluster, an instance `i` of
/// etcd 3.5.30 at the ports 19980 to 19985, a binding `app`, twenty keys and a backup.
const FORMER: &str = "031d729";
const KEYS: usize = 20;

#[tokio::test(flavor = "multi_thread")]
async fn a_data_folder_of_an_earlier_version_goes_on() {
    // The store is in it.
    if postgres::is_store() {
        return;
    }
    have_former_ports().await;
    let folder = new_folder();
    let data = folder.join("data");
    fs::create_dir_all(&data).expect("a folder");
    let archive = format!(
        "{}/tests/it/former/{FORMER}.tar.gz",
        env!("CARGO_MANIFEST_DIR")
    );
    let unpacked = Command::new("tar")
        .arg("-xzf")
        .arg(archive)
        .arg("-C")
        .arg(&data)
        .status();
    assert!(unpacked.expect("tar").success());
    let credentials = fs::read(data.join("app.json")).expect("credentials");
    let mut credentials: Value = serde_json::from_slice(&credentials).expect("JSON");

    let broker = TestBroker::start_in(folder, &[], surroundings()).await;
    credentials["instance_administration_api"]["root"] = json!(format!("{}/api", broker.url));
    let keys = eventually("the database serves", || async {
        let mut client = etcd::connect_to(&credentials, "uri").await.ok()?;
        client.get("key-0000", None).await.ok()?;
        Some(etcd::dump(&mut client).await.len())
    })
    .await;
    assert_eq!(keys, KEYS);
    assert_eq!(broker.members().len(), 3);

    let path = format!(
        "/deployments/{}/backups",
        text(&credentials["deployment_id"])
    );
    let listed = answer(broker.compose(Method::GET, &credentials, &path)).await;
    // Its own; the schedule may be taking a newer one.
    let all = listed.body["_embedded"]["backups"].as_array();
    let backup = all.and_then(|all| all.last()).expect("a backup");
    assert_eq!(backup["status"], "complete", "{listed:?}");
    let restored = json!({ "source_service_instance_id": "i", "backup_id": backup["id"] });
    broker.provision("copy", restored).await;
    let copy = broker.bind("copy", "app").await;
    assert_eq!(
        etcd::dump(&mut etcd::connect(&copy).await).await.len(),
        KEYS
    );

    // Everything else goes on, too.
    let later = broker.bind("i", "later").await;
    etcd::connect(&later)
        .await
        .put("later", "v", None)
        .await
        .expect("put");
    assert_eq!(broker.back_up(&credentials).await["status"], "complete");
    let unbound = broker.unbind("i", "app").await;
    assert_eq!(unbound.status, StatusCode::OK, "{unbound:?}");
    for instance in ["i", "copy"] {
        Inside::of(&broker).idle(instance).await;
        broker.deprovision(instance).await;
    }
    assert_eq!(files_of_deployments(&broker), Vec::<String>::new());
}
