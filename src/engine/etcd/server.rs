//! What runs: the flags of members and of the tools that restore and inspect. Pure.

use serde::Deserialize;

use crate::{
    engine::{EngineError, Inspection},
    model::{
        deployment::{Access, Deployment, DeploymentSecrets, Member},
        limits::{INSPECT_TASK_TIMEOUT, RESTORE_TASK_TIMEOUT},
        secret::Secret,
        server::{HOME, Program, STAGE, Server, ServerFile, Task},
        version::Version,
    },
};

use super::NAME;

const CA_FILE: &str = "ca.crt";
const CERTIFICATE_FILE: &str = "member.crt";
const KEY_FILE: &str = "member.key";

/// Where a member keeps its data.
fn data_dir() -> String {
    format!("{HOME}/data")
}

fn at_least(version: Version, major: u32, minor: u32) -> bool {
    (version.major, version.minor) >= (major, minor)
}

fn program(version: Version, binary: &'static str) -> Program {
    Program {
        engine: NAME,
        version,
        binary,
    }
}

/// The binaries that an installed version must have.
pub fn binaries(version: Version) -> &'static [&'static str] {
    if at_least(version, 3, 5) {
        &["etcd", "etcdctl", "etcdutl"]
    } else {
        &["etcd", "etcdctl"]
    }
}

/// Understands what `etcd --version` prints.
pub fn parse_version_output(output: &str) -> Option<Version> {
    output
        .lines()
        .find_map(|line| line.trim().strip_prefix("etcd Version:"))
        .and_then(|version| version.trim().parse().ok())
}

/// The members of a deployment as servers to run.
pub(super) fn servers(
    deployment: &Deployment,
    secrets: &DeploymentSecrets,
    access: Access,
) -> Vec<Server> {
    deployment
        .members
        .iter()
        .map(|member| Server {
            deployment: deployment.id.clone(),
            member: member.name.clone(),
            program: program(deployment.version, "etcd"),
            args: member_args(deployment, member, access),
            env: Vec::new(),
            files: files(secrets),
            ports: vec![member.client_port, member.peer_port],
        })
        .collect()
}

fn member_args(deployment: &Deployment, member: &Member, access: Access) -> Vec<String> {
    let mut args = vec![
        format!("--data-dir={}", data_dir()),
        format!("--listen-client-urls={}", member.client_url()),
        format!("--advertise-client-urls={}", member.client_url()),
        format!("--listen-peer-urls={}", member.peer_url()),
        "--initial-cluster-state=new".to_owned(),
        format!("--quota-backend-bytes={}", deployment.quota_bytes()),
        format!("--cert-file={HOME}/{CERTIFICATE_FILE}"),
        format!("--key-file={HOME}/{KEY_FILE}"),
        format!("--peer-cert-file={HOME}/{CERTIFICATE_FILE}"),
        format!("--peer-key-file={HOME}/{KEY_FILE}"),
        format!("--peer-trusted-ca-file={HOME}/{CA_FILE}"),
        "--peer-client-cert-auth".to_owned(),
    ];
    args.extend(identity_args(deployment, member));
    if access == Access::Certificates {
        args.push("--client-cert-auth".to_owned());
        args.push(format!("--trusted-ca-file={HOME}/{CA_FILE}"));
    }
    args.extend(version_args(deployment.version).map(str::to_owned));
    args
}

/// Who a member is in its cluster: the same when it is started and when it is restored.
fn identity_args(deployment: &Deployment, member: &Member) -> [String; 4] {
    let peers: Vec<String> = deployment
        .members
        .iter()
        .map(|peer| format!("{}={}", peer.name, peer.peer_url()))
        .collect();
    [
        format!("--name={}", member.name),
        format!("--initial-cluster={}", peers.join(",")),
        format!("--initial-cluster-token={}", deployment.id),
        format!("--initial-advertise-peer-urls={}", member.peer_url()),
    ]
}

fn version_args(version: Version) -> impl Iterator<Item = &'static str> {
    let args: &[&str] = if at_least(version, 3, 4) {
        &[
            "--logger=zap",
            "--log-outputs=stderr",
            // A high cost protects passwords that can be guessed. Ours are 256 random bits, and
            // every member pays the cost again for each new user and login.
            "--bcrypt-cost=4",
        ]
    } else {
        &[
            "--log-output=stderr",
            // Its old interface knows none of the users: anybody could write there.
            "--enable-v2=false",
        ]
    };
    args.iter().copied()
}

fn files(secrets: &DeploymentSecrets) -> Vec<ServerFile> {
    let file = |name, contents| ServerFile { name, contents };
    vec![
        file(CA_FILE, Secret::new(secrets.ca_certificate.as_str())),
        file(
            CERTIFICATE_FILE,
            Secret::new(secrets.member_certificate.as_str()),
        ),
        file(KEY_FILE, secrets.member_key.clone()),
    ]
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

/// The task that makes the data of member `index` out of the staged snapshot `file`. The tool
/// checks the snapshot's own checksum and refuses a home that holds data already.
pub(super) fn restore_task(deployment: &Deployment, index: usize, file: &str) -> Task {
    let (program, env) = snapshot_tool(deployment.version);
    let mut args = vec![
        "snapshot".to_owned(),
        "restore".to_owned(),
        format!("{STAGE}/{file}"),
        format!("--data-dir={}", data_dir()),
    ];
    args.extend(identity_args(deployment, &deployment.members[index]));
    Task {
        program,
        args,
        env,
        timeout: RESTORE_TASK_TIMEOUT,
    }
}

/// The task that tells what is in the staged snapshot `file`.
pub(super) fn inspect_task(version: Version, file: &str) -> Task {
    let (program, env) = snapshot_tool(version);
    let file = format!("{STAGE}/{file}");
    let args = ["snapshot", "status", &file, "--write-out=json"].map(str::to_owned);
    Task {
        program,
        args: args.into(),
        env,
        timeout: INSPECT_TASK_TIMEOUT,
    }
}

/// Understands what [`inspect_task`] printed. Its key count is left alone: it counts entries of
/// the history, not live keys.
pub(super) fn parse_inspection(output: &str) -> Result<Inspection, EngineError> {
    #[derive(Deserialize)]
    struct Status {
        revision: i64,
    }
    serde_json::from_str(output.trim())
        .map(|Status { revision }| Inspection { revision })
        .map_err(|error| EngineError::Output {
            tool: "snapshot status",
            reason: error.to_string(),
        })
}
