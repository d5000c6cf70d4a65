//! Folders that are not what they seem: copies, swaps, disks that are not mounted. They are
//! recognised before anything is written or deleted.

use std::{path::Path, process::Command};

use serde_json::json;

use crate::process::{BrokerProcess, assert_one_line, refused};

/// Copies a folder as `cp -a` does.
fn copy(from: &Path, to: &Path) {
    let copied = Command::new("cp").arg("-a").args([from, to]).status();
    assert!(copied.expect("cp").success());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_broker_on_a_copy_leaves_the_original_s_members_alone() {
    let original = BrokerProcess::start().await;
    let accepted = original.put_instance("i", json!({})).await;
    original.instance_end("i", &accepted.body).await;
    let members = original.members();
    assert_eq!(members.len(), 3);

    let other = BrokerProcess::stopped_with(|_| ());
    copy(&original.data_dir(), &other.data_dir());
    assert_one_line(&refused(other.settings()).await, "is a copy");
    assert_eq!(original.members(), members);
    assert_eq!(other.members(), [0; 0]);
}
