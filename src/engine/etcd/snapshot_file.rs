//! Snapshot files, and copies of a member's database, which are alike but for the checksum: what is in
//! them, and how members' data is made of them. etcd's own tools do it, where the members run.

use std::io;

use serde::Deserialize;

use crate::{
    engine::{Description, EngineError, Seed},
    model::{
        backup::SnapshotContent,
        deployment::{Deployment, Member},
        failure::chain,
        limits::{INSPECT_TASK_TIMEOUT, RESTORE_TASK_TIMEOUT},
        server::{Program, STAGE, Task},
        version::Version,
    },
    workbench::{ProvisionerError, Workbench},
};

use super::{
    client::Dialer,
    figures::{REVISION_BUMP, figures, newest, tells_clients},
    files::{DATABASE, DATABASE_NAME, data_dir},
    server::{at_least, identity_args, program, resources},
    verify,
};

/// What is in the snapshot `staged` of a running deployment. The tool tells the newest revision among
/// the stored entries: it is the snapshot's own, unless the newest entries were compacted away. Then
/// the keys at it cannot be counted any more.
pub(super) async fn describe(
    dialer: &Dialer<'_>,
    staged: &str,
    known: Option<&SnapshotContent>,
    bench: &dyn Workbench,
) -> Result<Description, EngineError> {
    let deployment = dialer.deployment;
    let reader = &deployment.members[0];
    let inspected = inspect(deployment, reader, deployment.version, staged, bench).await?;
    if let Some(known) = known {
        let (revision, _) = figures(known)?;
        return Ok(if inspected > revision {
            let reason = "the snapshot holds more than was known of it";
            Description::Unknown(reason.to_owned())
        } else {
            Description::Content(known.clone())
        });
    }
    Ok(match verify::content_at(dialer, inspected).await {
        Ok(content) => Description::Content(content),
        Err(error) => Description::Unknown(format!(
            "the keys at the snapshot's revision cannot be counted any more: {error}"
        )),
    })
}

/// What is in the snapshot `staged`, of which the deployment was made. Where the newest entries were compacted
/// away, a database made of it is at the revision that they had.
pub(super) async fn take_stock(
    dialer: &Dialer<'_>,
    staged: &str,
    bench: &dyn Workbench,
) -> Result<SnapshotContent, EngineError> {
    match describe(dialer, staged, None, bench).await? {
        Description::Content(content) => Ok(content),
        Description::Unknown(_) => verify::content_now(dialer).await,
    }
}

/// Makes the data of the member at `place`. The tool refuses a home that holds data already.
pub(super) async fn seed(
    deployment: &Deployment,
    place: usize,
    seed: Seed<'_>,
    bench: &dyn Workbench,
) -> Result<(), EngineError> {
    let member = &deployment.members[place];
    let task = restore_task(deployment, member, seed);
    bench.run(&deployment.id, &member.name, &task).await?;
    Ok(())
}

/// Puts a copy of the database file of the member at `place` on the stage.
pub(super) async fn salvage(
    deployment: &Deployment,
    place: usize,
    staged: &str,
    bench: &dyn Workbench,
) -> Result<(), EngineError> {
    let member = &deployment.members[place];
    stage_database(deployment, member, staged, bench)
        .await
        .map_err(|error| match error {
            ProvisionerError::Io { source, .. } if source.kind() == io::ErrorKind::NotFound => {
                let name = &member.name;
                EngineError::Unexpected(format!("member {name} has no database"))
            }
            other => other.into(),
        })
}

async fn stage_database(
    deployment: &Deployment,
    member: &Member,
    staged: &str,
    bench: &dyn Workbench,
) -> Result<(), ProvisionerError> {
    let path = format!("{}/{DATABASE_NAME}", DATABASE.folder);
    bench
        .stage_file(&deployment.id, &member.name, &path, staged)
        .await
}

/// The newest revision in the database of the member at `place`, by a copy: the member may have it
/// open.
pub(super) async fn survey(
    deployment: &Deployment,
    place: usize,
    bench: &dyn Workbench,
) -> Result<SnapshotContent, EngineError> {
    let member = &deployment.members[place];
    let version = deployment.shape_of(member).version;
    let copy = format!("survey-{}.db", member.name);
    let read = async {
        stage_database(deployment, member, &copy, bench).await?;
        inspect(deployment, member, version, &copy, bench).await
    };
    let revision = read.await;
    if let Err(error) = bench.unstage(&deployment.id, &copy).await {
        log::warn!(deployment:% = deployment.id; "{}", chain(&error));
    }
    Ok(newest(revision?))
}

/// The newest revision in the file `staged`, by the tools of `version` in the home of a member.
async fn inspect(
    deployment: &Deployment,
    member: &Member,
    version: Version,
    staged: &str,
    bench: &dyn Workbench,
) -> Result<i64, EngineError> {
    let task = inspect_task(deployment, member, version, staged);
    let printed = bench.run(&deployment.id, &member.name, &task).await?;
    revision_in(&printed)
}

/// The tool that works on snapshot files, and what it needs in its environment.
fn snapshot_tool(version: Version) -> (Program, Vec<(&'static str, String)>) {
    if at_least(version, 3, 5) {
        (program(version, "etcdutl"), Vec::new())
    } else {
        let env = vec![("ETCDCTL_API", "3".to_owned())];
        (program(version, "etcdctl"), env)
    }
}

/// The tool checks a snapshot's own checksum; a copy of a database has none.
fn restore_task(deployment: &Deployment, member: &Member, seed: Seed<'_>) -> Task {
    let (program, env) = snapshot_tool(deployment.version);
    let (file, has_checksum) = match seed {
        Seed::Snapshot(file) | Seed::Backup(file) => (file, true),
        Seed::Salvage(file) => (file, false),
    };
    let is_known = !matches!(seed, Seed::Snapshot(_));
    let mut args = vec![
        "snapshot".to_owned(),
        "restore".to_owned(),
        format!("{STAGE}/{file}"),
        format!("--data-dir={}", data_dir()),
    ];
    args.extend(identity_args(deployment, member));
    if !has_checksum {
        args.push("--skip-hash-check".to_owned());
    }
    if is_known && tells_clients(deployment.version) {
        args.push(format!("--bump-revision={REVISION_BUMP}"));
        args.push("--mark-compacted".to_owned());
    }
    Task {
        program,
        args,
        env,
        resources: resources(deployment, deployment.shape_of(member)),
        timeout: RESTORE_TASK_TIMEOUT,
    }
}

/// The task that tells what is in the staged snapshot `file`.
fn inspect_task(deployment: &Deployment, member: &Member, version: Version, file: &str) -> Task {
    let (program, env) = snapshot_tool(version);
    let file = format!("{STAGE}/{file}");
    let args = ["snapshot", "status", &file, "--write-out=json"].map(str::to_owned);
    Task {
        program,
        args: args.into(),
        env,
        resources: resources(deployment, deployment.shape_of(member)),
        timeout: INSPECT_TASK_TIMEOUT,
    }
}

/// Understands what [`inspect_task`] printed. Its key count is left alone: it counts entries of
/// the history before 3.6, and live keys from then on.
fn revision_in(output: &str) -> Result<i64, EngineError> {
    #[derive(Deserialize)]
    struct Status {
        revision: i64,
    }
    serde_json::from_str(output.trim())
        .map(|Status { revision }| revision)
        .map_err(|error| EngineError::Output {
            tool: "snapshot status",
            reason: error.to_string(),
        })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::etcd::server::tests::{IDENTITY, deployment, version};

    fn restore_task_of(version: &str, seed: Seed<'_>) -> Task {
        let deployment = deployment(version);
        restore_task(&deployment, &deployment.members[1], seed)
    }

    #[test]
    fn a_member_is_restored_as_the_one_that_will_run() {
        let new = restore_task_of("3.5.16", Seed::Snapshot("snapshot.db"));
        assert_eq!(new.program.binary, "etcdutl");
        assert!(new.env.is_empty());
        let mut args = vec![
            "snapshot",
            "restore",
            "{stage}/snapshot.db",
            "--data-dir={home}/data",
        ];
        args.extend(IDENTITY);
        assert_eq!(new.args, args);

        let old = restore_task_of("3.4.23", Seed::Snapshot("snapshot.db"));
        assert_eq!(old.program.binary, "etcdctl");
        assert_eq!(old.env, [("ETCDCTL_API", "3".to_owned())]);
        assert_eq!(old.args, args);

        let bump = ["--bump-revision=1000000000", "--mark-compacted"];
        let again = restore_task_of("3.5.16", Seed::Backup("snapshot.db"));
        assert_eq!(again.args, [&args[..], &bump].concat());
        let again = restore_task_of("3.4.23", Seed::Backup("snapshot.db"));
        assert_eq!(again.args, args, "the tool knows no such thing");

        args.push("--skip-hash-check");
        let salvaged = restore_task_of("3.4.23", Seed::Salvage("snapshot.db"));
        assert_eq!(salvaged.args, args);
        let salvaged = restore_task_of("3.7.3", Seed::Salvage("snapshot.db"));
        assert_eq!(salvaged.args, [&args[..], &bump].concat());
    }

    #[test]
    fn a_snapshot_is_inspected_with_the_tools_of_the_version() {
        let deployment = deployment("3.3.25");
        let member = &deployment.members[0];
        let task = inspect_task(&deployment, member, version("3.3.25"), "snapshot.db");
        assert_eq!(task.program.binary, "etcdctl");
        assert_eq!(
            task.args,
            [
                "snapshot",
                "status",
                "{stage}/snapshot.db",
                "--write-out=json"
            ]
        );
        let output = r#"{"hash":3121519834,"revision":606,"totalKey":907,"totalSize":69632}"#;
        assert_eq!(revision_in(output).expect("understood"), 606);
        assert!(revision_in("Error: invalid database").is_err());
    }
}
