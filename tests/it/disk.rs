//! Full disks, as small volumes of their own; mounting them needs root.

use std::{
    fs,
    io::Write as _,
    path::{Path, PathBuf},
    process::Command,
};

use reqwest::{Method, StatusCode};
use serde_json::{Value, json};

use crate::{
    broker::{
        CAPACITY_UNITS, ENTERPRISE, SERVICE, TestBroker, answer, instance_path, new_folder, text,
    },
    control::surroundings,
    etcd,
    skipped::skipped,
};

/// A volume in memory; it goes with this.
pub struct Volume(PathBuf);

impl Volume {
    /// A volume of `megabytes` at `folder`; none, and a line that says so, where that is not
    /// allowed.
    pub fn mount(folder: &Path, megabytes: u32) -> Option<Self> {
        fs::create_dir_all(folder).expect("a folder");
        let mounted = Command::new("mount")
            .args([
                "-t",
                "tmpfs",
                "-o",
                &format!("size={megabytes}m,mode=700"),
                "tmpfs",
            ])
            .arg(folder)
            .output();
        match mounted {
            Ok(output) if output.status.success() => Some(Self(folder.to_owned())),
            other => {
                let why = format!("no volume can be mounted here: {other:?}");
                skipped("a volume of its own", &why);
                None
            }
        }
    }

    /// Leaves no more than `megabytes` free.
    pub fn fill_up_to(&self, megabytes: u64) -> PathBuf {
        let volume = rustix::fs::statvfs(&self.0).expect("a volume");
        let free = volume.f_bavail * volume.f_frsize;
        let filler = self.0.join("lost+found");
        let bytes = vec![0; usize::try_from(free - megabytes * 1024 * 1024).expect("a size")];
        fs::write(&filler, bytes).expect("a file");
        filler
    }

    /// Takes all that is free; returns the file that has it.
    pub fn fill(&self) -> PathBuf {
        let filler = self.0.join(format!("filler-{}", uuid::Uuid::new_v4()));
        let mut file = fs::File::create(&filler).expect("a file");
        let block = vec![0; 64 * 1024];
        for bytes in [block.len(), 1] {
            while file.write_all(&block[..bytes]).is_ok() {}
        }
        filler
    }

    fn files(&self) -> Vec<String> {
        let found = Command::new("find")
            .arg(&self.0)
            .args(["-type", "f"])
            .output();
        let found = String::from_utf8(found.expect("find").stdout).expect("UTF-8");
        found.lines().map(str::to_owned).collect()
    }
}

impl Drop for Volume {
    fn drop(&mut self) {
        // A broker that is dropped later still runs on it.
        let _ = Command::new("umount").arg("--lazy").arg(&self.0).status();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_backup_that_does_not_fit_fails_and_the_earlier_one_stays_good() {
    let folder = tempfile::tempdir().expect("a folder");
    let Some(volume) = Volume::mount(&folder.path().join("backups"), 200) else {
        return;
    };
    let store = format!("file://{}", volume.0.display());
    let broker = TestBroker::start_with(&["--backup-store", &store], surroundings()).await;
    broker.provision("i", json!({})).await;
    let credentials = broker.bind("i", "b").await;
    etcd::fill(&mut etcd::connect(&credentials).await, 20, "v").await;
    let good = broker.back_up(&credentials).await;
    assert_eq!(good["status"], "complete", "{good}");

    let filler = volume.fill_up_to(20);
    let before = volume.files();
    let failed = broker.back_up(&credentials).await;
    assert_eq!(failed["status"], "failed", "{failed}");
    let reason = text(&failed["status_detail"]);
    assert!(reason.contains("full"), "{reason}");
    assert!(
        !reason.contains(folder.path().to_str().expect("UTF-8")),
        "{reason}"
    );
    assert_eq!(volume.files(), before);
    let download = reqwest::get(text(&good["download_link"]))
        .await
        .expect("an answer");
    assert_eq!(download.status(), StatusCode::OK);
    let parameters = json!({ "source_service_instance_id": "i", "backup_id": good["id"] });
    broker.provision("copy", parameters).await;
    let copy = broker.bind("copy", "b").await;
    assert_eq!(etcd::dump(&mut etcd::connect(&copy).await).await.len(), 20);

    fs::remove_file(filler).expect("room");
    let next = broker.back_up(&credentials).await;
    assert_eq!(next["status"], "complete", "{next}");
}

/// Asks for an instance on a cluster whose disk is too small, and sees that nothing stays there.
async fn assert_fails_cleanly(broker: &TestBroker, volume: &Volume, parameters: Value) -> String {
    let mut body = json!({
        "service_id": SERVICE, "plan_id": ENTERPRISE,
        "organization_guid": "org", "space_guid": "space", "parameters": parameters,
    });
    body["parameters"]["cluster_id"] = json!("small");
    let before = volume.files();
    let path = format!("{}?accepts_incomplete=true", instance_path("copy"));
    let accepted = answer(broker.osb(Method::PUT, &path).json(&body)).await;
    assert_eq!(accepted.status, StatusCode::ACCEPTED, "{accepted:?}");
    let end = broker.instance_end("copy", &accepted.body).await;
    assert_eq!(end["state"], "failed", "{end}");
    let query = format!("service_id={SERVICE}&plan_id={ENTERPRISE}&accepts_incomplete=true");
    let path = format!("{}?{query}", instance_path("copy"));
    let deleting = answer(broker.osb(Method::DELETE, &path)).await;
    assert_eq!(
        broker.instance_end("copy", &deleting.body).await["state"],
        "succeeded"
    );
    assert_eq!(volume.files(), before);
    text(&end["description"]).to_owned()
}

#[tokio::test(flavor = "multi_thread")]
async fn an_instance_that_does_not_fit_on_its_cluster_fails_and_says_so() {
    let folder = new_folder();
    let file = folder.join("clusters.json");
    // As operators may do at their own risk: the small one would take nothing.
    let clusters = ["large", "small"]
        .map(|id| json!({ "id": id, "name": "x", "capacity_units": CAPACITY_UNITS }));
    let clusters = json!(clusters);
    fs::write(&file, clusters.to_string()).expect("a file");
    let small = folder.join("data/clusters/small");
    let Some(volume) = Volume::mount(&small, 100) else {
        return;
    };
    let flags = ["--clusters", file.to_str().expect("UTF-8")];
    let broker = TestBroker::start_in(folder.clone(), &flags, surroundings()).await;
    // Gone before the broker, which clears its folder away.
    let volume = volume;
    broker.provision("source", json!({})).await;
    let credentials = broker.bind("source", "b").await;
    etcd::fill(&mut etcd::connect(&credentials).await, 20, "v").await;
    let backup = broker.back_up(&credentials).await;
    let members = broker.members();

    let restore = json!({ "source_service_instance_id": "source", "backup_id": backup["id"] });
    for (parameters, megabytes) in [(json!({}), 90), (restore.clone(), 10)] {
        let filler = volume.fill_up_to(megabytes);
        let reason = assert_fails_cleanly(&broker, &volume, parameters).await;
        assert!(
            reason.contains("disk") && reason.contains("full"),
            "{reason}"
        );
        assert!(
            !reason.contains(folder.to_str().expect("UTF-8")),
            "{reason}"
        );
        assert_eq!(broker.members(), members);
        fs::remove_file(filler).expect("room");
    }
    // Where there is room, the same backup is as good as before.
    broker.provision("copy", restore).await;
}
