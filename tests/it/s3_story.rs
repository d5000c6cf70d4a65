//! A broker whose backups lie in a bucket, from the first start to the last deletion, with the server away in
//! between.

use std::{fs, net::TcpListener, path::Path};

use reqwest::{Method, StatusCode};
use serde_json::json;

use crate::{
    broker::{TestBroker, answer, eventually, text},
    etcd,
    inside::Inside,
    process::{BrokerProcess, assert_one_line, command, refused},
    s3::{SECRET_KEY, Server, Wanted},
    tls::Authority,
};

/// All files below a folder that are objects, but for the marker.
fn objects(folder: &Path) -> Vec<String> {
    let mut found = Vec::new();
    let mut ahead = vec![folder.to_owned()];
    while let Some(folder) = ahead.pop() {
        for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
            let path = entry.path();
            let name = entry.file_name().to_string_lossy().into_owned();
            match path.is_dir() {
                _ if name.starts_with('.') => {}
                true => ahead.push(path),
                false => found.push(name),
            }
        }
    }
    found.sort();
    found
}

#[tokio::test(flavor = "multi_thread")]
async fn backups_in_a_bucket_are_stored_downloaded_restored_and_deleted() {
    let authority = Authority::new();
    authority.give_out(1);
    let tls = (authority.file("server.crt"), authority.file("server.key"));
    let wanted = Wanted {
        tls: Some(tls),
        ..Wanted::default()
    };
    let Some(mut server) = Server::own(wanted) else {
        return;
    };
    let bucket = server.bucket_folder().expect("the test's own");
    let keys = authority.file("credentials");
    server.write_credentials(&keys);
    let mut broker = BrokerProcess::stopped_with(|settings| {
        settings.extend([
            ("BACKUP_STORE", format!("s3://{}", server.address())),
            ("S3_ENDPOINT", server.endpoint().to_owned()),
            ("S3_CA", authority.file("ca.crt").display().to_string()),
            ("S3_CREDENTIALS_FILE", keys.display().to_string()),
            ("S3_PATIENCE", "1".to_owned()),
        ]);
    });

    // A first start looks before it begins.
    let mut distrusting = broker.settings().clone();
    distrusting.remove("S3_CA");
    let told = refused(&distrusting).await;
    assert_one_line(&told, "COMPOSE_BROKER_BACKUP_STORE");
    assert_one_line(&told, "COMPOSE_BROKER_S3_CA");
    server.stop();
    let told = refused(broker.settings()).await;
    assert_one_line(&told, "cannot be reached");
    server.start_again();

    broker.start_again().await;
    let version = json!({ "db_version": "3.5.16" });
    broker.provision("old", version).await;
    let credentials = broker.bind("old", "b").await;
    etcd::fill(&mut etcd::connect(&credentials).await, 50, "v").await;
    let backup = broker.back_up(&credentials).await;
    assert_eq!(backup["status"], "complete", "{backup}");
    assert_eq!(
        objects(&bucket),
        ["manifest.json", "register.json", "snapshot.db.zst.sealed"]
    );
    let download = reqwest::get(text(&backup["download_link"])).await;
    let download = download.expect("an answer");
    assert_eq!(download.status(), StatusCode::OK);
    let archive = download.bytes().await.expect("all of it");
    assert!(
        archive.starts_with(&[0x1f, 0x8b]),
        "{} bytes",
        archive.len()
    );

    // The server goes away: a backup waits, the broker serves, also when it starts anew.
    server.stop();
    let backups = format!(
        "/deployments/{}/backups",
        text(&credentials["deployment_id"])
    );
    let waiting = answer(broker.compose(Method::POST, &credentials, &backups)).await;
    assert_eq!(waiting.status, StatusCode::ACCEPTED, "{waiting:?}");
    let waits = || async {
        let recipe = format!("/recipes/{}", text(&waiting.body["id"]));
        let told = answer(broker.compose(Method::GET, &credentials, &recipe)).await;
        let reason = text(&told.body["status_detail"]);
        let waits = reason.contains("the backup store cannot be reached");
        (waits && told.body["status"] == "running").then_some(())
    };
    eventually("a backup that waits", waits).await;
    let ready = answer(broker.anonymous(Method::GET, "/readyz")).await;
    assert_eq!(ready.status, StatusCode::OK, "{ready:?}");
    assert!(
        text(&ready.body["status"]).contains("out of reach"),
        "{ready:?}"
    );
    // Also where it takes connections and says nothing.
    broker.kill();
    let hanging = TcpListener::bind(server.endpoint().trim_start_matches("https://"));
    broker.start_again().await;
    drop(hanging.expect("its port"));
    server.start_again();
    let done = broker.recipe_end(&credentials, &waiting.body).await;
    assert_eq!(done["status"], "complete", "{done}");

    // Another bucket is not taken for an empty one.
    broker.kill();
    fs::create_dir(bucket.with_file_name("other")).expect("a bucket");
    let mut elsewhere = broker.settings().clone();
    elsewhere.insert("BACKUP_STORE", "s3://other/broker".to_owned());
    let told = refused(&elsewhere).await;
    assert_one_line(
        &told,
        "COMPOSE_BROKER_BACKUP_STORE: s3://other/broker is not",
    );
    assert_eq!(objects(&bucket.with_file_name("other")), [""; 0]);
    broker.start_again().await;

    let source =
        json!({ "source_service_instance_id": "old", "backup_id": waiting.body["backup_id"] });
    broker.provision("new", source).await;
    let restored = broker.bind("new", "b").await;
    let keys = etcd::dump(&mut etcd::connect(&restored).await).await;
    assert_eq!(keys.len(), 50);
    for id in ["old", "new"] {
        Inside::of(&broker).idle(id).await;
        broker.deprovision(id).await;
    }
    assert_eq!(objects(&bucket), [""; 0]);
    let logged = broker.logged();
    assert!(!logged.contains(SECRET_KEY), "{logged}");
}

#[tokio::test(flavor = "multi_thread")]
async fn backups_move_from_a_folder_into_a_bucket_while_the_broker_runs() {
    let Some(server) = Server::own(Wanted::default()) else {
        return;
    };
    let bucket = server.bucket_folder().expect("the test's own");
    let keys = bucket.with_file_name("credentials");
    server.write_credentials(&keys);
    let mut broker = BrokerProcess::stopped_with(|settings| {
        settings.insert("S3_ENDPOINT", server.endpoint().to_owned());
        settings.insert("S3_CREDENTIALS_FILE", keys.display().to_string());
    });
    broker.start_again().await;
    let data: &TestBroker = &broker;
    let folder = data.data_dir().join("backups");
    broker.provision("i", json!({})).await;
    let credentials = broker.bind("i", "b").await;
    etcd::fill(&mut etcd::connect(&credentials).await, 20, "v").await;
    let older = broker.back_up(&credentials).await;
    assert_eq!(older["status"], "complete", "{older}");
    assert_eq!(objects(&folder).len(), 3);

    // A new place has no marker, as a disk that is not mounted.
    broker.kill();
    broker.change_settings(|settings| {
        settings.insert("BACKUP_STORE", format!("s3://{}", server.address()));
    });
    let told = refused(broker.settings()).await;
    assert_one_line(&told, "--accept backups");
    broker.change_settings(|settings| {
        let older = format!("file://{}", folder.display());
        settings.insert("OLDER_BACKUP_STORES", older);
    });
    let mut copying = command(&["copy-backups"], broker.settings());
    let told = copying.output().expect("a process");
    assert_one_line(&told, "has not the marker of");
    broker.spawn_with(&["--accept", "backups"]);
    broker.serving().await;

    // The older one is read where it is, and moves.
    let download = reqwest::get(text(&older["download_link"])).await;
    assert_eq!(download.expect("an answer").status(), StatusCode::OK);
    assert_eq!(objects(&bucket), [""; 0]);
    for (arguments, there, left) in [
        (&["copy-backups"][..], 3, 3),
        (&["copy-backups", "--delete"], 3, 0),
        (&["copy-backups"], 3, 0),
    ] {
        let copied = command(arguments, broker.settings()).output();
        let copied = copied.expect("a process");
        let said = String::from_utf8_lossy(&copied.stderr).into_owned();
        assert!(copied.status.success(), "{said}");
        assert!(said.contains("backups copied: "), "{said}");
        assert_eq!(
            (objects(&bucket).len(), objects(&folder).len()),
            (there, left)
        );
    }
    let download = reqwest::get(text(&older["download_link"])).await;
    assert_eq!(download.expect("an answer").status(), StatusCode::OK);
    broker.deprovision("i").await;
    assert_eq!(objects(&bucket), [""; 0]);
}
