//! The dashboard's Backups page: back up, see it become complete, download, restore.

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
    process::Command,
};

use compose_broker::model::operation::OperationKind;
use reqwest::{Method, StatusCode};
use serde_json::{Value, json};

use crate::{
    broker::{TestBroker, answer, eventually, new_folder, text},
    chromium::Chromium,
    clusters,
    control::{Script, surroundings},
    dashboard::Visit,
    etcd,
};

#[tokio::test(flavor = "multi_thread")]
async fn a_backup_is_taken_watched_downloaded_and_restored() {
    let script = Script::default();
    let broker = TestBroker::start_with(&[], script.surroundings()).await;
    broker
        .provision("source", json!({ "db_version": "3.5.16" }))
        .await;
    let credentials = broker.bind("source", "b").await;
    let mut database = etcd::connect(&credentials).await;
    etcd::fill(&mut database, 50, "v").await;
    let visit = Visit::to(broker).await;
    let page = &visit.page;
    visit.sign_in(&credentials).await;

    // Nothing yet: the page says what will be.
    page.click("link", "Backups").await;
    page.arrives_at("/instances/source/backups").await;
    page.find("#retention").await;
    page.look_over("backups-none").await;
    visit.check().await;

    // The row is pending while it is worked on, and becomes complete without anybody's doing.
    let held = script.hold(OperationKind::Backup, "read_back");
    page.click("button", "Back up now").await;
    page.says("#status", "A backup is running.").await;
    page.eval("window.stayed = true").await;
    page.find("li.backup:is([data-state=pending], [data-state=running])")
        .await;
    page.says("#backup-progress", "step 2 of").await;
    page.look_over("backups-pending").await;
    drop(held);
    page.find("li.backup[data-state=complete]").await;
    page.shows("The backup is complete.").await;
    assert_eq!(
        page.eval("window.stayed").await,
        true,
        "the page was loaded anew"
    );
    let backup = visit.backups(&credentials).await.remove(0);
    let id = text(&backup["id"]);
    page.find(&format!("#on_demand #backup-{id}")).await;

    // Everything about it is there.
    page.find(&format!("#details-{id} > summary"))
        .await
        .click()
        .await;
    // It stands in the calendar, on its day, with a way to its row; what goes, goes otherwise.
    let today = text(&backup["requested_at"])[..10].to_owned();
    let day = page.text_of(&format!("#day-{today}")).await;
    assert!(day.contains("On demand"), "{day}");
    page.find(&format!("#day-{today} a[href='#backup-{id}']"))
        .await;
    let otherwise = page.text_of("#otherwise").await;
    assert!(
        otherwise.contains("With the next on-demand backup"),
        "{otherwise}"
    );
    let said = page.text_of(&format!("#backup-{id}")).await;
    let revision = backup["revision"].to_string();
    for what in ["3.5.16", &revision, id, "UTC", "the dashboard: "] {
        assert!(said.contains(what), "{what}: {said}");
    }
    page.look_over("backups-expanded").await;
    for (code, what) in [
        ("id", "backup ID"),
        ("cf", "cf command"),
        ("ibmcloud", "ibmcloud command"),
    ] {
        let shown = page.text_of(&format!("#{code}-{id}")).await;
        page.eval("navigator.clipboard.writeText('')").await;
        let row = format!("#details-{id}");
        page.click_in(&row, "button", &format!("Copy the {what}"))
            .await;
        eventually("something copied", || async {
            (page.clipboard().await == shown).then_some(())
        })
        .await;
    }
    let arguments = command(page, &format!("#cf-{id}")).await;
    assert_eq!(
        &arguments[..4],
        ["cf", "create-service", "compose-for-etcd", "Standard"]
    );
    let (with, parameters) = (&arguments[5], &arguments[6]);
    assert_eq!(with, "-c");
    let parameters: Value = serde_json::from_str(parameters).expect("JSON");
    assert_eq!(
        parameters,
        json!({ "source_service_instance_id": "source", "backup_id": id })
    );
    let other = command(page, &format!("#ibmcloud-{id}")).await;
    assert_eq!(
        &other[..5],
        [
            "ibmcloud",
            "service",
            "create",
            "compose-for-etcd",
            "Standard"
        ]
    );
    assert_eq!(&other[5..], &arguments[4..]);
    let accepted = visit.broker.put_instance("by command", parameters).await;
    assert_eq!(accepted.status, StatusCode::ACCEPTED, "{accepted:?}");
    let end = visit
        .broker
        .instance_end("by command", &accepted.body)
        .await;
    assert_eq!(end["state"], "succeeded", "{end}");

    // The download is what the API's is.
    let name = format!("{}.tar.gz", text(&backup["name"]));
    page.click_in(&format!("#details-{id}"), "link", "Download")
        .await;
    let file = page.downloaded(&name).await;
    let path = format!(
        "/deployments/{}/backups/{id}",
        text(&credentials["deployment_id"])
    );
    let fetched = answer(visit.broker.compose(Method::GET, &credentials, &path)).await;
    let link = reqwest::get(text(&fetched.body["download_link"])).await;
    let bytes = link.expect("an answer").bytes().await.expect("a body");
    let other = file.with_extension("other");
    std::fs::write(&other, bytes).expect("a file");
    let (ours, theirs) = (unpacked(&file), unpacked(&other));
    assert_eq!(
        ours.keys().collect::<Vec<_>>(),
        ["manifest.json", "snapshot.db"]
    );
    assert!(ours == theirs, "other bytes than the API's");

    // What is to be remembered of it, and that it is kept.
    page.find(&format!("#note-{id}"))
        .await
        .fill("before the move")
        .await;
    page.find(&format!("#pinned-{id}")).await.click().await;
    page.click_in(&format!("#keep-{id}"), "button", "Save")
        .await;
    page.says(&format!("#note-of-{id}"), "before the move")
        .await;
    page.says(&format!("#kept-{id}"), "Kept").await;

    // It says how long it takes: one restore was done, by the command above, since the page was opened.
    page.reload().await;
    page.find(&format!("#details-{id} > summary"))
        .await
        .click()
        .await;
    page.says(&format!("#takes-{id}"), "as the one restore so far took")
        .await;

    // Restored under a name of one's own, into a version of one's choice.
    let name = page.find(&format!("#name-{id}")).await;
    let proposed = name.property("value").await;
    let digits = text(&proposed)
        .strip_prefix("etcd-restore-")
        .expect("a name");
    assert!(
        digits.starts_with("20") && digits.len() == "2026-11-22-13-57-31".len(),
        "{digits}"
    );
    name.fill("by-hand").await;
    let versions = page.find(&format!("#version-{id}")).await;
    assert_eq!(versions.property("value").await, "3.5.35");
    versions.choose("3.7.3").await;
    page.click_in(&format!("#restore-{id}"), "button", "Preview")
        .await;
    page.arrives_at("/restore?").await;
    page.says("#possible", "Nothing is in the way.").await;
    page.says("#h-rehearsal", "What a restore into by-hand does")
        .await;
    for told in [
        "on demand",
        "etcd 3.7.3; the backup is of 3.5.16",
        "1 unit: 256.0 MiB on each of 3 members",
        "as the one restore so far took",
    ] {
        page.says("#facts", told).await;
    }
    page.says("#effect", "nothing that was written since").await;
    page.look_over("restore").await;
    visit.check().await;
    // So far it was told, and not done. What would be refused says why, and cannot be begun.
    let here = page.url().await;
    page.open(
        &here
            .replace("by-hand", "by+hand")
            .replace("3.7.3", "3.4.23"),
    )
    .await;
    page.says("#impossible", "make nothing").await;
    page.says("#reasons", "3.4.23").await;
    page.says("#reasons", "by hand").await;
    assert!(page.all("#restore").await.is_empty());
    page.look_over("restore-refused").await;
    page.click("link", "Choose something else").await;
    page.arrives_at(&format!("#backup-{id}")).await;
    page.open(&here).await;
    let held = script.hold(OperationKind::Restore, "verify");
    page.click_in("#restore", "button", "Restore").await;
    page.shows("by-hand is being made").await;
    page.look_over("backups-restoring").await;
    page.eval("window.stayed = true").await;
    drop(held);
    page.shows("The restore succeeded: by-hand is ready.").await;
    assert_eq!(
        page.eval("window.stayed").await,
        true,
        "the page was loaded anew"
    );

    // It is listed where it comes from, and has a page of its own, for the same session.
    page.click("link", "Overview").await;
    page.click_in("#restored", "link", "by-hand").await;
    page.says("h1", "by-hand").await;
    page.says("#state-text", "Ready").await;
    page.says("#version", "3.7.3").await;
    page.find("#members").await;
    page.look_over("restored").await;
    // No platform knows it: its credentials are made here.
    page.click_in("#reach", "link", "credentials").await;
    page.find("#name").await.fill("first").await;
    page.click("button", "Make credentials").await;
    page.click("button", "Show once: first").await;
    page.find("#whole").await;
    let whole = page
        .eval("document.querySelector('#whole').textContent")
        .await;
    let whole: Value = serde_json::from_str(text(&whole)).expect("JSON");
    let mut restored = etcd::connect(&whole).await;
    assert_eq!(etcd::dump(&mut restored).await.len(), 50);
    page.click("link", "Back to all credentials").await;
    page.find("#credentials").await;
    visit.check().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_restore_goes_to_the_cluster_that_was_chosen() {
    let folder = new_folder();
    let clusters = clusters::described(&folder);
    let broker = clusters::start(&folder, &clusters, surroundings()).await;
    let old = json!({ "cluster_id": "red", "db_version": "3.4.23" });
    clusters::provision(&broker, "old", old).await;
    let credentials = clusters::bind(&broker, "old").await;
    let backup = broker.back_up(&credentials).await;
    let id = text(&backup["id"]);
    let visit = Visit::to(broker).await;
    let page = &visit.page;
    visit.sign_in(&credentials).await;
    visit.open("old", "/backups").await;
    page.find(&format!("#summary-{id}")).await.click().await;
    let arguments = command(page, &format!("#cf-{id}")).await;
    assert_eq!(arguments[3], "Enterprise");
    let parameters: Value = serde_json::from_str(&arguments[6]).expect("JSON");
    assert_eq!(
        parameters,
        json!({
            "source_service_instance_id": "old", "backup_id": id, "cluster_id": "red",
        })
    );
    let cluster = page.find(&format!("#cluster-{id}")).await;
    assert_eq!(cluster.property("value").await, "red");
    page.look_over("backups-clusters").await;
    cluster.choose("Blue").await;
    let version = page.find(&format!("#version-{id}")).await;
    version.choose("3.5.30").await;
    page.find(&format!("#name-{id}")).await.fill("moved").await;
    page.find(&format!("#units-{id}")).await.fill("2").await;
    page.click_in(&format!("#restore-{id}"), "button", "Preview")
        .await;
    page.says("#facts", "Blue").await;
    page.says("#facts", "2 units: 512.0 MiB on each of 3 members")
        .await;
    page.click_in("#restore", "button", "Restore").await;
    page.shows("The restore succeeded: moved is ready.").await;
    page.click("link", "Overview").await;
    page.click_in("#restored", "link", "moved").await;
    page.shows("Blue").await;
    page.shows("2 units: 512.0 MiB").await;
    page.says("#version", "3.5.30").await;
    visit.check().await;
}

/// What a shell makes of a command that stands on the page: its words.
async fn command(page: &Chromium, selector: &str) -> Vec<String> {
    let code = page.find(selector).await.property("textContent").await;
    // Each program is a function that says what it was called with.
    let said = r#"say() { printf '%s\0' "$@"; }; cf() { say cf "$@"; }; ibmcloud() { say ibmcloud "$@"; }"#;
    let ran = Command::new("bash")
        .args([
            "--noprofile",
            "--norc",
            "-euc",
            &format!("{said}\n{}", text(&code)),
        ])
        .env_clear()
        .output()
        .expect("bash");
    assert!(
        ran.status.success() && ran.stderr.is_empty(),
        "{code}: {ran:?}"
    );
    let words = String::from_utf8(ran.stdout).expect("a text");
    words.split_terminator('\0').map(str::to_owned).collect()
}

/// The files in an archive, by name.
fn unpacked(archive: &Path) -> BTreeMap<String, Vec<u8>> {
    let folder = PathBuf::from(format!("{}.unpacked", archive.display()));
    std::fs::create_dir(&folder).expect("a folder");
    let done = Command::new("tar")
        .args([
            "-xzf".as_ref(),
            archive.as_os_str(),
            "-C".as_ref(),
            folder.as_os_str(),
        ])
        .status();
    assert!(done.expect("tar").success());
    let files = std::fs::read_dir(&folder).expect("a folder").flatten();
    files
        .map(|file| {
            let name = file.file_name().into_string().expect("a text");
            (name, std::fs::read(file.path()).expect("a file"))
        })
        .collect()
}
