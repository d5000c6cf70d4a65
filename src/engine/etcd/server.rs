//! What runs: the flags of members. Pure.

use crate::model::{
    deployment::{Access, Deployment, DeploymentSecrets, Member, Membership, Shape, Site},
    secret::Secret,
    server::{DataOfServer, FILES, Probe, Program, Resources, Server, ServerFile},
    version::Version,
};

use super::{NAME, PROFILE, addresses, files::data_dir};

/// By how much the storage of a version that checks no rights when it is full is larger than the
/// quota: as long as it takes to write that much, the broker has to close the database.
pub const UNSAFE_QUOTA_FACTOR: u64 = 2;
/// Memory of a member beside its database, in bytes.
const MEMBER_MEMORY_BYTES: u64 = 256 * 1024 * 1024;

const CA_FILE: &str = "ca.crt";
const CERTIFICATE_FILE: &str = "member.crt";
const KEY_FILE: &str = "member.key";

/// Where a member keeps its log of changes: without it etcd takes itself for a new member.
const LOG: &str = "data/member/wal";
const LOG_SUFFIX: &str = ".wal";

pub(super) fn at_least(version: Version, major: u32, minor: u32) -> bool {
    (version.major, version.minor) >= (major, minor)
}

pub(super) fn program(version: Version, binary: &'static str) -> Program {
    Program {
        engine: NAME,
        version,
        binary,
    }
}

/// The members of a deployment as servers to run.
pub(super) fn servers(site: Site<'_>) -> Vec<Server> {
    let Site {
        deployment,
        secrets,
        access,
    } = site;
    deployment
        .members
        .iter()
        .map(|member| Server {
            deployment: deployment.id.clone(),
            member: member.name.clone(),
            program: program(deployment.shape_of(member).version, "etcd"),
            args: member_args(deployment, member, access),
            env: Vec::new(),
            files: files(secrets),
            addresses: member.addresses.clone(),
            resources: resources(deployment, deployment.shape_of(member)),
            data: member.membership.is_joined().then(|| DataOfServer {
                folder: LOG.to_owned(),
                suffix: LOG_SUFFIX.to_owned(),
            }),
            probe: probe(deployment.shape_of(member).version, member, access),
        })
        .collect()
}

/// Where a member says whether it serves: it has a majority, is no learner and knows of no damage. A full one
/// serves, since its keys can be deleted. Earlier versions call a full one or a learner so, or say nothing.
fn probe(version: Version, member: &Member, access: Access) -> Option<Probe> {
    let says = match version.line() {
        (3, 5) => version.patch >= 19,
        line => line >= (3, 6),
    };
    // Where certificates rule, nobody is asked without one.
    (says && access == Access::Passwords).then(|| Probe {
        port: addresses::own_port(member),
        path: "/readyz",
        alive: "/livez",
    })
}

/// How much of a database's history can be read: watches that were away no longer than this find
/// what they missed. Etcd's own form of a duration.
const HISTORY_RETENTION: &str = "1h";

fn member_args(deployment: &Deployment, member: &Member, access: Access) -> Vec<String> {
    let shape = deployment.shape_of(member);
    let client = addresses::client_url(member);
    let mut args = vec![
        format!("--data-dir={}", data_dir()),
        format!("--listen-client-urls={}", addresses::bound_urls(member)),
        format!("--advertise-client-urls={client}"),
        format!("--listen-peer-urls={}", addresses::bound_peer_url(member)),
        format!("--initial-cluster-state={}", cluster_state(member)),
        format!(
            "--quota-backend-bytes={}",
            hard_quota_bytes(deployment, shape)
        ),
        format!("--cert-file={FILES}/{CERTIFICATE_FILE}"),
        format!("--key-file={FILES}/{KEY_FILE}"),
        format!("--peer-cert-file={FILES}/{CERTIFICATE_FILE}"),
        format!("--peer-key-file={FILES}/{KEY_FILE}"),
        format!("--peer-trusted-ca-file={FILES}/{CA_FILE}"),
        "--peer-client-cert-auth".to_owned(),
        // Without this, every change ever made counts against the quota, and a tenant, who may not
        // compact since 3.5.30, would be locked out by his own history.
        "--auto-compaction-mode=periodic".to_owned(),
        format!("--auto-compaction-retention={HISTORY_RETENTION}"),
    ];
    args.extend(identity_args(deployment, member));
    if access == Access::Certificates {
        args.push("--client-cert-auth".to_owned());
        args.push(format!("--trusted-ca-file={FILES}/{CA_FILE}"));
    }
    if let Some(line) = PROFILE.line(shape.version) {
        args.extend(line.flags.iter().map(|flag| (*flag).to_owned()));
    }
    if member.checkpointing {
        // Given twice, a flag has its last value.
        args.push("--snapshot-count=1".to_owned());
    }
    args
}

/// With `new`, members without data begin a cluster under the ids of the one that they had.
fn cluster_state(member: &Member) -> &'static str {
    match member.membership {
        Membership::New => "new",
        Membership::Joining | Membership::Joined => "existing",
    }
}

/// The storage at which etcd itself takes no more writes. A version that checks no rights from then
/// on must not get there: the broker closes its database before, and has this long to do so.
///
/// One full member is an alarm for all: as long as some are of such a version, all have the room.
fn hard_quota_bytes(deployment: &Deployment, shape: Shape) -> u64 {
    if PROFILE.full_is_safe(deployment.version) && PROFILE.full_is_safe(shape.version) {
        shape.quota_bytes()
    } else {
        shape.quota_bytes() * UNSAFE_QUOTA_FACTOR
    }
}

/// A full database is copied when a member gives storage back, and lies beside its log. It is mapped into
/// memory, beside what the member itself needs.
pub(super) fn resources(deployment: &Deployment, shape: Shape) -> Resources {
    let quota = hard_quota_bytes(deployment, shape);
    Resources {
        disk_bytes: 2 * quota + PROFILE.log_bytes_max,
        memory_bytes: shape.quota_bytes() + MEMBER_MEMORY_BYTES,
    }
}

/// Who a member is in its cluster: the same when it is started and when it is restored.
pub(super) fn identity_args(deployment: &Deployment, member: &Member) -> [String; 4] {
    let peers: Vec<String> = deployment
        .members
        .iter()
        .map(|peer| format!("{}={}", peer.name, addresses::peer_url(peer)))
        .collect();
    [
        format!("--name={}", member.name),
        format!("--initial-cluster={}", peers.join(",")),
        format!("--initial-cluster-token={}", deployment.id),
        format!(
            "--initial-advertise-peer-urls={}",
            addresses::peer_url(member)
        ),
    ]
}

fn files(secrets: &DeploymentSecrets) -> Vec<ServerFile> {
    let file = |name, contents| ServerFile { name, contents };
    vec![
        file(CA_FILE, Secret::new(secrets.trusted())),
        file(
            CERTIFICATE_FILE,
            Secret::new(secrets.member_certificate.as_str()),
        ),
        file(KEY_FILE, secrets.member_key.clone()),
    ]
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use crate::model::{address::Address, server::HOME};

    pub(in super::super) fn deployment(version: &str) -> Deployment {
        let member = |index: u16| {
            let ports = [2379 + 2 * index, 2380 + 2 * index];
            addresses::member_at(&format!("m{index}"), "127.0.0.1", ports)
        };
        Deployment {
            id: "5ae85b45e5717f0001533192".parse().expect("an id"),
            instance: "instance".parse().expect("an id"),
            cluster: "here".to_owned(),
            engine: NAME.to_owned(),
            version: version.parse().expect("a version"),
            units: 2,
            members: vec![member(0), member(1)],
            name: "a-deployment".to_owned(),
            closed_since: None,
        }
    }

    fn secrets() -> DeploymentSecrets {
        DeploymentSecrets {
            ca_certificate: "ca".to_owned(),
            ca_key: Secret::new("SECRET"),
            member_certificate: "certificate".to_owned(),
            member_key: Secret::new("SECRET"),
            root_password: Secret::new("SECRET"),
            certificates: None,
            next_authority: None,
            former_ca_certificate: None,
            hosts: std::collections::BTreeSet::new(),
        }
    }

    pub(in super::super) fn version(text: &str) -> Version {
        text.parse().expect("a version")
    }

    pub(in super::super) const IDENTITY: [&str; 4] = [
        "--name=m1",
        "--initial-cluster=m0=https://127.0.0.1:2380,m1=https://127.0.0.1:2382",
        "--initial-cluster-token=5ae85b45e5717f0001533192",
        "--initial-advertise-peer-urls=https://127.0.0.1:2382",
    ];

    #[test]
    fn members_listen_at_their_host_alone_and_know_each_other_by_certificate() {
        let servers = servers(Site::with_access(
            &deployment("3.5.30"),
            &secrets(),
            Access::Passwords,
        ));
        let server = &servers[1];
        assert_eq!(server.member, "m1");
        let ports: Vec<u16> = server.addresses.values().map(|at| at.port).collect();
        assert_eq!(ports, [2381, 2382]);
        assert_eq!(server.program.binary, "etcd");
        assert!(server.env.is_empty());
        let mut args = vec![
            "--data-dir={home}/data",
            "--listen-client-urls=https://127.0.0.1:2381",
            "--advertise-client-urls=https://127.0.0.1:2381",
            "--listen-peer-urls=https://127.0.0.1:2382",
            "--initial-cluster-state=existing",
            "--quota-backend-bytes=1073741824",
            "--cert-file={files}/member.crt",
            "--key-file={files}/member.key",
            "--peer-cert-file={files}/member.crt",
            "--peer-key-file={files}/member.key",
            "--peer-trusted-ca-file={files}/ca.crt",
            "--peer-client-cert-auth",
            "--auto-compaction-mode=periodic",
            "--auto-compaction-retention=1h",
        ];
        args.extend(IDENTITY);
        args.extend([
            "--logger=zap",
            "--log-outputs=stderr",
            "--bcrypt-cost=4",
            "--snapshot-count=10000",
        ]);
        assert_eq!(server.args, args);
        let files: Vec<(&str, &str)> = server
            .files
            .iter()
            .map(|file| (file.name, file.contents.expose()))
            .collect();
        assert_eq!(
            files,
            [
                ("ca.crt", "ca"),
                ("member.crt", "certificate"),
                ("member.key", "SECRET")
            ]
        );
    }

    #[test]
    fn applications_and_the_broker_have_a_listener_each_where_applications_come_from_elsewhere() {
        let mut deployment = deployment("3.6.16");
        let urls = |deployment: &Deployment| {
            let servers = servers(Site::with_access(deployment, &secrets(), Access::Passwords));
            let args = servers[1].args.iter().filter(|arg| arg.contains("urls="));
            args.cloned().collect::<Vec<_>>()
        };
        // Where clients of the second member come to.
        let at = |address: Address, mut deployment: Deployment| {
            let own = &mut deployment.members[1].addresses;
            own.insert("client".to_owned(), address);
            deployment
        };
        deployment.members[1]
            .addresses
            .insert("broker".to_owned(), Address::on_loopback(2400));
        for (listen, host, bound, told) in [
            ("0.0.0.0", "db.example", "0.0.0.0", "db.example"),
            ("192.0.2.7", "192.0.2.7", "192.0.2.7", "192.0.2.7"),
            ("::", "2001:db8::1", "[::]", "[2001:db8::1]"),
        ] {
            let listen = listen.parse().expect("an address");
            let moved = at(Address::bound_at(listen, host, 2381), deployment.clone());
            assert_eq!(
                urls(&moved),
                [
                    format!("--listen-client-urls=https://{bound}:2381,https://127.0.0.1:2400"),
                    format!("--advertise-client-urls=https://{told}:2381"),
                    "--listen-peer-urls=https://127.0.0.1:2382".to_owned(),
                    "--initial-advertise-peer-urls=https://127.0.0.1:2382".to_owned(),
                ]
            );
            assert_eq!(
                addresses::own(&moved.members[1]).to_string(),
                "127.0.0.1:2400"
            );
            let hosts = moved.hosts();
            assert!(
                hosts.contains(host) && hosts.contains("127.0.0.1"),
                "{hosts:?}"
            );
            assert!(
                !hosts.contains("0.0.0.0") && !hosts.contains("::"),
                "{hosts:?}"
            );
        }
    }

    #[test]
    fn only_a_member_that_never_served_makes_a_new_cluster_and_starts_without_data() {
        let mut deployment = deployment("3.6.16");
        let mut seen = |membership| {
            deployment.members[0].membership = membership;
            let server = servers(Site::with_access(
                &deployment,
                &secrets(),
                Access::Passwords,
            ))
            .swap_remove(0);
            let state = server.args.into_iter().find(|arg| arg.contains("-state="));
            (state.expect("a state"), server.data.is_some())
        };
        let state = |state: &str| format!("--initial-cluster-state={state}");
        assert_eq!(seen(Membership::New), (state("new"), false));
        assert_eq!(seen(Membership::Joining), (state("existing"), false));
        assert_eq!(seen(Membership::Joined), (state("existing"), true));
    }

    #[test]
    fn a_member_says_whether_it_serves_where_its_version_does_so_without_a_login() {
        let probe = |version: &str, access| {
            let deployment = deployment(version);
            let mut servers = servers(Site::with_access(&deployment, &secrets(), access));
            servers.swap_remove(0).probe
        };
        for (version, says) in [
            ("3.3.25", false),
            ("3.4.23", false),
            ("3.5.16", false),
            ("3.5.35", true),
            ("3.6.16", true),
            ("3.7.3", true),
        ] {
            let said = probe(version, Access::Passwords);
            assert_eq!(said.is_some(), says, "{version}");
            assert!(said.is_none_or(|probe| probe.port == "client"), "{version}");
            assert_eq!(probe(version, Access::Certificates), None, "{version}");
        }
    }

    #[test]
    fn versions_differ_in_few_flags() {
        let last = |version| {
            let args = servers(Site::with_access(
                &deployment(version),
                &secrets(),
                Access::Passwords,
            ))[0]
                .args
                .clone();
            args[18..].to_vec()
        };
        assert_eq!(
            last("3.3.25"),
            [
                "--log-output=stderr",
                "--enable-v2=false",
                "--snapshot-count=10000"
            ]
        );
        assert_eq!(last("3.4.23"), last("3.5.30"));
        assert_eq!(
            last("3.6.16"),
            [
                "--logger=zap",
                "--log-outputs=stderr",
                "--bcrypt-cost=4",
                "--feature-gates=CompactHashCheck=true"
            ]
        );
        assert_eq!(last("3.7.3"), last("3.6.16"));
    }

    #[test]
    fn members_get_more_than_their_quota_where_full_ones_are_not_safe() {
        let quota = |version| {
            let servers = servers(Site::with_access(
                &deployment(version),
                &secrets(),
                Access::Passwords,
            ));
            let args = servers[0].args.iter();
            args.filter_map(|arg| arg.strip_prefix("--quota-backend-bytes="))
                .map(|bytes| bytes.parse::<u64>().expect("a number"))
                .collect::<Vec<_>>()
        };
        let of_units = deployment("3.6.16").quota_bytes();
        assert_eq!(quota("3.6.16"), [of_units]);
        assert_eq!(quota("3.5.35"), [of_units * 2]);
    }

    #[test]
    fn a_member_that_is_checkpointing_writes_its_state_down_at_every_chance() {
        let mut deployment = deployment("3.5.35");
        deployment.members[1].checkpointing = true;
        let servers = servers(Site::with_access(
            &deployment,
            &secrets(),
            Access::Passwords,
        ));
        let last = |index: usize| servers[index].args.last().cloned();
        assert_eq!(last(0), Some("--snapshot-count=10000".to_owned()));
        assert_eq!(last(1), Some("--snapshot-count=1".to_owned()));
    }

    #[test]
    fn a_member_that_is_being_changed_differs_from_the_others() {
        let mut deployment = deployment("3.4.23");
        deployment.members[1].shape = Some(crate::model::deployment::Shape {
            version: version("3.5.16"),
            units: 4,
        });
        let servers = servers(Site::with_access(
            &deployment,
            &secrets(),
            Access::Passwords,
        ));
        let seen = servers.iter().map(|server| {
            let quota = server.args.iter().find(|arg| arg.contains("quota"));
            (server.program.version.to_string(), quota.cloned())
        });
        let quota = |bytes: u64| Some(format!("--quota-backend-bytes={bytes}"));
        let expected = [
            ("3.4.23".to_owned(), quota(1_073_741_824)),
            ("3.5.16".to_owned(), quota(2_147_483_648)),
        ];
        assert_eq!(seen.collect::<Vec<_>>(), expected);
    }

    #[test]
    fn certificates_are_asked_of_clients_only_where_they_rule() {
        let asked = |access| {
            let args = servers(Site::with_access(&deployment("3.3.25"), &secrets(), access))[0]
                .args
                .clone();
            ["--client-cert-auth", "--trusted-ca-file={files}/ca.crt"]
                .map(|flag| args.iter().any(|arg| arg == flag))
        };
        assert_eq!(asked(Access::Certificates), [true, true]);
        assert_eq!(asked(Access::Passwords), [false, false]);
    }

    #[test]
    fn no_secret_is_an_argument() {
        for access in [Access::Passwords, Access::Certificates] {
            for server in servers(Site::with_access(&deployment("3.5.30"), &secrets(), access)) {
                assert!(server.args.iter().all(|arg| !arg.contains("SECRET")));
                assert!(server.args[0].contains(HOME));
            }
        }
    }
}
