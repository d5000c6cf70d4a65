//! An engine in memory that is unlike etcd wherever it may be: two members, a primary and a replica of
//! which one is enough, one port each, keys and no count of changes in its snapshots, and versions whose
//! lines are major numbers.
//!
//! A member's database is one file in its home. What is written goes to the primary; the replica copies
//! it whenever somebody looks at the two. When the primary is gone, the replica takes its place.

use std::{collections::BTreeMap, sync::Arc};

use async_trait::async_trait;
use bytes::Bytes;
use chrono::{DateTime, Utc};
use compose_broker::{
    engine::{
        DatabaseUser, Description, Engine, EngineError, Holding, Issue, MemberChange, Passage,
        PutBack, Relief, Seed, Snapshot, UserChange,
    },
    model::{
        backup::SnapshotContent,
        deployment::{Access, Authority, Deployment, DeploymentSecrets, Member, Membership, Site},
        engine::{Entry, Figure, FilesOfMember, Line, Obstacle, Port, PortUser, Profile},
        observation::{
            Degradation, MemberHealth, MemberObservation, MemberRole, Silence, SilenceCause,
        },
        prefix::{PrefixDifference, PrefixRestore},
        proof::Evidence,
        renewal::{Certificates, Renewal},
        secret::Secret,
        server::{
            DataOfServer, EngineBinaries, FILES, HOME, Program, Resources, STAGE, Server,
            ServerFile, Task,
        },
        version::Version,
    },
    stream::ByteStream,
    workbench::Workbench,
};
use futures::{StreamExt, TryStreamExt, stream};
use uuid::Uuid;

use super::{
    base::{BASE, Base, END, HASH, UNREADABLE, User, run, serve},
    cluster::{Installed, MemoryCluster, Running, flag, listens_at},
    keys,
};

/// The engine's name.
pub const NAME: &str = "pair";
/// What people are told of the figures of its snapshots.
pub const CONTENT_NOTE: &str = "Keys are all that a pair holds.";
/// Its versions that are installed, oldest first.
pub const VERSIONS: [&str; 3] = ["1.4.2", "2.0.5", "3.1.0"];
/// The members' port.
const PORT: &str = "sql";
/// Where the database's file lies.
const FOLDER: &str = "data";
/// A member with this runs and serves nobody: it is in doubt whether it has all that was written.
pub const DOUBT: &str = "data/doubt";

const fn line(major: u32, minor: u32, entry: Option<Entry>) -> Line {
    Line {
        major,
        minor,
        offered_from: 0,
        restores_from: (1, 4),
        entry,
        limits_users_from: Some(0),
        full_is_safe_from: Some(0),
        alarms_guarded_from: Some(0),
        flags: &[],
    }
}

pub static PROFILE: Profile = Profile {
    name: NAME,
    members: 2,
    members_needed: 1,
    units_max: 16,
    member_bytes_min: 1 << 20,
    log_bytes_max: 1 << 20,
    ports: &[Port {
        name: PORT,
        used_by: PortUser::Applications,
    }],
    binaries: EngineBinaries {
        engine: NAME,
        probe: "pair",
        probe_args: &["--version"],
        parse_version: |printed| printed.trim().parse().ok(),
        required: |_| &["pair"],
        offered: |version| PROFILE.offers(*version),
    },
    lines: &[
        line(1, 4, None),
        line(
            2,
            0,
            Some(Entry {
                leaves_from: 0,
                checkpointed: false,
                has_way_back: false,
            }),
        ),
        line(
            3,
            1,
            Some(Entry {
                leaves_from: 0,
                checkpointed: true,
                has_way_back: true,
            }),
        ),
    ],
    default_line: (2, 0),
    advisories: &[],
    unsound_giving_back: None,
    snapshot_file: "snapshot.pair",
    content: &[Figure {
        name: "keys",
        plural: "keys",
        counts_changes: false,
        words: |_, written| format!("{written} keys"),
    }],
    url: |address| format!("pair://{address}"),
    uri: |address, login| format!("pair://{login}@{address}"),
    command_line: |_, urls, login| format!("pair --login={login} {}", urls.join(" ")),
    database_file: FilesOfMember {
        folder: FOLDER,
        has: |name| name == "base.db",
    },
    checkpoints: FilesOfMember {
        folder: FOLDER,
        has: |name| name.ends_with(".state"),
    },
    tells_clients: |_| false,
    check_head: |head| match head.starts_with(b"{") {
        true => Ok(()),
        false => Err("it does not begin as a pair does".to_owned()),
    },
    tells_damage: |printed| printed.ends_with(UNREADABLE),
    content_note: CONTENT_NOTE,
    unobstructed: "Neither member has anything against it.",
    without_secrets: str::to_owned,
};

/// The programs, for a cluster.
pub fn installed() -> Vec<Installed> {
    let of = |version: &str| Installed {
        engine: NAME,
        version: version.parse().expect("a version"),
        serve,
        run,
    };
    VERSIONS.map(of).into()
}

/// The engine, over the members of one cluster.
pub struct Pair(pub Arc<MemoryCluster>);

/// The members of a database that run, and what they hold.
struct Members<'r, 'm> {
    running: &'r mut [Running<'m>],
    /// The place of the primary among them.
    primary: usize,
    base: Base,
}

impl Members<'_, '_> {
    /// What was changed goes to every member.
    fn write(&mut self) {
        self.base.changes += 1;
        self.copy();
    }

    fn copy(&mut self) {
        let base = &self.base;
        for member in self.running.iter_mut() {
            if base.members.contains(&member.server.member) {
                member.home.remove(DOUBT);
                base.write(member.home);
            }
        }
    }
}

fn silent(doing: &'static str) -> EngineError {
    EngineError::Call {
        doing,
        meaning: "no member answers".to_owned(),
        is_final: false,
        is_silence: true,
        source: "nothing runs".into(),
    }
}

/// What a task may use.
const RESOURCES: Resources = Resources {
    disk_bytes: 1 << 20,
    memory_bytes: 1 << 20,
};

fn tool(deployment: &Deployment, args: Vec<String>) -> Task {
    Task {
        program: program(deployment.version, "pairtool"),
        args,
        env: Vec::new(),
        resources: RESOURCES,
        timeout: std::time::Duration::from_secs(10),
    }
}

fn program(version: Version, binary: &'static str) -> Program {
    Program {
        engine: NAME,
        version,
        binary,
    }
}

fn names(deployment: &Deployment) -> String {
    let names: Vec<&str> = deployment.members.iter().map(|m| m.name.as_str()).collect();
    names.join(",")
}

/// Finds the primary among the members that run, or makes one, and lets the others copy it.
fn together<'r, 'm>(running: &'r mut [Running<'m>]) -> Option<Members<'r, 'm>> {
    let bases = running
        .iter()
        .map(|member| match member.home.contains_key(DOUBT) {
            true => None,
            false => Base::read(member.home),
        });
    let bases = bases
        .enumerate()
        .filter_map(|(place, base)| Some((place, base?)));
    let of_members =
        bases.filter(|(place, base)| base.members.contains(&running[*place].server.member));
    let (place, mut base) = of_members.max_by_key(|(_, base)| (base.term, base.changes))?;
    let is_primary = |member: &Running<'_>| member.server.member == base.primary;
    let primary = match running.iter().position(is_primary) {
        Some(primary) => primary,
        None => {
            base.primary.clone_from(&running[place].server.member);
            base.term += 1;
            place
        }
    };
    let mut members = Members {
        running,
        primary,
        base,
    };
    members.copy();
    Some(members)
}

impl Pair {
    /// Does something with the members of a deployment, which must serve.
    fn ask<T>(
        &self,
        site: Site<'_>,
        doing: &'static str,
        ask: impl FnOnce(&mut Members<'_, '_>) -> Result<T, EngineError>,
    ) -> Result<T, EngineError> {
        self.0
            .visit(&site.deployment.id, |running| match together(running) {
                Some(mut members) => ask(&mut members),
                None => Err(silent(doing)),
            })
    }

    /// What an application does with a database: `uri` as it was given to it. An error is what the
    /// member says.
    fn enter<T>(
        &self,
        uri: &str,
        act: impl FnOnce(&User, &mut Members<'_, '_>) -> Result<T, String>,
    ) -> Result<T, String> {
        let uri: url::Url = uri.parse().expect("a URI");
        let (host, port) = (uri.host_str().expect("a host"), uri.port().expect("a port"));
        let deployment = self.0.listening_at(host, port).ok_or("nobody listens")?;
        self.0.visit(&deployment, |running| {
            let at = |m: &&Running<'_>| listens_at(m.server, host, port);
            let access = running
                .iter()
                .find(at)
                .and_then(|m| flag(&m.server.args, "access"));
            if access != Some("passwords") {
                return Err("a certificate is needed".to_owned());
            }
            let mut members = together(running).ok_or("no database")?;
            let user = members.base.users.get(uri.username()).cloned();
            let user = user.filter(|user| Some(user.password.as_str()) == uri.password());
            act(&user.ok_or("wrong password")?, &mut members)
        })
    }

    /// Writes a key as an application.
    pub fn put(&self, uri: &str, key: &str, value: &str) -> Result<(), String> {
        self.enter(uri, |user, members| {
            if user.is_reader || !key.starts_with(&user.prefix) {
                return Err("no right to do this".to_owned());
            }
            let args = &members.running[members.primary].server.args;
            let quota: u64 = flag(args, "quota")
                .and_then(|q| q.parse().ok())
                .expect("a quota");
            let base = &mut members.base;
            if base.used_bytes() + base.unused + value.len() as u64 > quota {
                base.is_full = true;
            }
            if base.is_full {
                members.write();
                return Err("the database is full".to_owned());
            }
            base.keys.insert(key.to_owned(), value.to_owned());
            members.write();
            Ok(())
        })
    }

    /// All keys, as an application.
    pub fn keys(&self, uri: &str) -> Result<BTreeMap<String, String>, String> {
        self.enter(uri, |user, members| {
            let keys = members.base.keys.iter();
            let seen = keys.filter(|(key, _)| key.starts_with(&user.prefix));
            Ok(seen.map(|(k, v)| (k.clone(), v.clone())).collect())
        })
    }

    /// The names of a deployment's users.
    pub fn users(&self, site: Site<'_>) -> Vec<String> {
        let names = self.ask(site, "listing users", |members| {
            Ok(members.base.users.keys().cloned().collect())
        });
        names.expect("a database")
    }
}

/// Keys and certificates are texts that differ: nobody speaks TLS here.
fn new_secret(what: &str) -> String {
    format!("{what} {}\n", Uuid::new_v4())
}

#[async_trait]
impl Engine for Pair {
    fn profile(&self) -> &'static Profile {
        &PROFILE
    }

    fn secrets(
        &self,
        deployment: &Deployment,
        issue: Issue<'_>,
        certificates: &Certificates,
        _: DateTime<Utc>,
    ) -> Result<DeploymentSecrets, EngineError> {
        let (secrets, what) = match issue {
            Issue::Renewal { secrets, what } => (secrets, what),
            Issue::First => {
                return Ok(DeploymentSecrets {
                    ca_certificate: new_secret("authority"),
                    ca_key: Secret::new(new_secret("key of an authority")),
                    member_certificate: new_secret("certificate"),
                    member_key: Secret::new(new_secret("key")),
                    root_password: Secret::new(Uuid::new_v4().to_string()),
                    certificates: Some(certificates.clone()),
                    next_authority: None,
                    former_ca_certificate: None,
                    hosts: deployment.hosts(),
                });
            }
        };
        let mut renewed = DeploymentSecrets {
            certificates: Some(certificates.clone()),
            ..secrets.clone()
        };
        match what {
            Renewal::Follow => {
                renewed.next_authority = Some(Authority {
                    certificate: new_secret("authority"),
                    key: Secret::new(new_secret("key of an authority")),
                });
                return Ok(renewed);
            }
            Renewal::Retire => {
                renewed.former_ca_certificate = None;
                return Ok(renewed);
            }
            Renewal::Change => {
                if let Some(next) = renewed.next_authority.take() {
                    renewed.former_ca_certificate = Some(renewed.ca_certificate);
                    (renewed.ca_certificate, renewed.ca_key) = (next.certificate, next.key);
                }
            }
            Renewal::Members => {}
        }
        renewed.hosts = deployment.hosts();
        renewed.member_certificate = new_secret("certificate");
        renewed.member_key = Secret::new(new_secret("key"));
        Ok(renewed)
    }

    fn servers(&self, site: Site<'_>) -> Vec<Server> {
        let Site {
            deployment,
            secrets,
            access,
        } = site;
        let access = match access {
            Access::Passwords => "passwords",
            Access::Certificates => "certificates",
        };
        let server = |member: &Member| {
            let shape = deployment.shape_of(member);
            let state = match member.membership {
                Membership::New => "new",
                Membership::Joining | Membership::Joined => "existing",
            };
            let mut args = vec![
                format!("--name={}", member.name),
                format!("--of={}", deployment.id),
                format!("--members={}", names(deployment)),
                format!("--state={state}"),
                format!("--access={access}"),
                format!("--quota={}", shape.quota_bytes()),
                format!("--key={FILES}/key"),
            ];
            if member.checkpointing {
                args.push("--checkpoints".to_owned());
            }
            let file = |name, contents| ServerFile { name, contents };
            Server {
                deployment: deployment.id.clone(),
                member: member.name.clone(),
                program: program(shape.version, "paird"),
                args,
                env: Vec::new(),
                files: vec![
                    file("authorities", Secret::new(secrets.trusted())),
                    file(
                        "certificate",
                        Secret::new(secrets.member_certificate.as_str()),
                    ),
                    file("key", secrets.member_key.clone()),
                ],
                addresses: member.addresses.clone(),
                resources: Resources {
                    disk_bytes: shape.quota_bytes(),
                    memory_bytes: shape.quota_bytes(),
                },
                data: member.membership.is_joined().then(|| DataOfServer {
                    folder: FOLDER.to_owned(),
                    suffix: ".db".to_owned(),
                }),
                probe: None,
            }
        };
        deployment.members.iter().map(server).collect()
    }

    async fn seed(
        &self,
        deployment: &Deployment,
        place: usize,
        seed: Seed<'_>,
        bench: &dyn Workbench,
    ) -> Result<(), EngineError> {
        let (Seed::Snapshot(staged) | Seed::Backup(staged) | Seed::Salvage(staged)) = seed;
        let args = vec![
            "restore".to_owned(),
            format!("{STAGE}/{staged}"),
            format!("--of={}", deployment.id),
            format!("--members={}", names(deployment)),
        ];
        let member = &deployment.members[place].name;
        bench
            .run(&deployment.id, member, &tool(deployment, args))
            .await?;
        Ok(())
    }

    async fn salvage(
        &self,
        deployment: &Deployment,
        place: usize,
        staged: &str,
        bench: &dyn Workbench,
    ) -> Result<(), EngineError> {
        let member = &deployment.members[place].name;
        bench
            .stage_file(&deployment.id, member, BASE, staged)
            .await?;
        Ok(())
    }

    async fn survey(
        &self,
        deployment: &Deployment,
        place: usize,
        bench: &dyn Workbench,
    ) -> Result<SnapshotContent, EngineError> {
        let member = &deployment.members[place].name;
        count(deployment, member, &format!("{HOME}/{BASE}"), bench).await
    }

    async fn listening(&self, _: &Member) {}

    async fn ready(&self, site: Site<'_>) -> Result<(), EngineError> {
        let wanted = site.deployment.members.len();
        self.ask(site, "waiting for members", |members| {
            let names = members.running.iter().map(|m| &m.server.member);
            let serving = names
                .filter(|name| members.base.members.contains(name))
                .count();
            match serving == wanted {
                true => Ok(()),
                false => Err(EngineError::NotReady(format!(
                    "{serving} of {wanted} serve"
                ))),
            }
        })
    }

    async fn secure(&self, site: Site<'_>, holding: Holding) -> Result<(), EngineError> {
        let password = Some(site.secrets.root_password.expose().to_owned());
        self.ask(site, "securing a database", |members| {
            let base = &mut members.base;
            match holding {
                Holding::Nothing if base.administrator == password => return Ok(()),
                Holding::Nothing if base.changes > 0 => {
                    let text = "somebody was there first".to_owned();
                    return Err(EngineError::Unexpected(text));
                }
                Holding::Nothing => {}
                Holding::Backup => {
                    base.users.clear();
                    base.is_full = false;
                }
            }
            base.administrator = password;
            members.write();
            Ok(())
        })
    }

    async fn verify(&self, site: Site<'_>, expected: &SnapshotContent) -> Result<(), EngineError> {
        self.ask(site, "comparing a database", |members| {
            let found = members.base.content();
            match found.get("keys") == expected.get("keys") {
                true => Ok(()),
                false => Err(different(&found, expected)),
            }
        })
    }

    async fn prove(
        &self,
        site: Site<'_>,
        expected: &SnapshotContent,
    ) -> Result<Evidence, EngineError> {
        self.verify(site, expected).await?;
        self.ask(site, "comparing all of a database", |members| {
            let found = members.base.content();
            match expected.get(HASH) {
                None => Ok(Evidence::Figures),
                hash if hash == found.get(HASH) => Ok(Evidence::Whole),
                Some(_) => Err(different(&found, expected)),
            }
        })
    }

    async fn compare_prefix(
        &self,
        aside: Site<'_>,
        site: Site<'_>,
        prefix: &str,
    ) -> Result<PrefixDifference, EngineError> {
        let doing = "comparing keys";
        let there = self.ask(aside, doing, |members| Ok(members.base.part(prefix)))?;
        self.ask(site, doing, |members| {
            let base = &mut members.base;
            base.compared.insert(base.changes, base.keys.clone());
            members.copy();
            let (here, point) = (members.base.part(prefix), members.base.changes);
            Ok(keys::difference(&there, &here, point))
        })
    }

    async fn put_back(
        &self,
        aside: Site<'_>,
        site: Site<'_>,
        wanted: &PrefixRestore,
        point: &str,
        from: Option<Vec<u8>>,
    ) -> Result<PutBack, EngineError> {
        let (doing, mode) = ("putting keys back", wanted.mode);
        let there = self.ask(aside, doing, |members| {
            Ok(members.base.part(&wanted.prefix))
        })?;
        let point: i64 = point.parse().expect("a number of changes");
        let from = from.map(|from| String::from_utf8(from).expect("text"));
        self.ask(site, doing, |members| {
            let base = &mut members.base;
            let mut then = base.compared.get(&point).expect("a comparison").clone();
            then.retain(|key, _| key.starts_with(&wanted.prefix));
            let done = keys::put_back_one(&mut base.keys, (&there, &then), mode, from);
            members.write();
            Ok(done)
        })
    }

    async fn observe(&self, site: Site<'_>) -> Result<Vec<MemberObservation>, EngineError> {
        let deployment = site.deployment;
        Ok(self.0.visit(&deployment.id, |running| {
            let runs: Vec<String> = running.iter().map(|m| m.server.member.clone()).collect();
            let members = together(running);
            let observe = |member: &Member| {
                let of_it = |m: &&Running<'_>| m.server.member == member.name;
                let found = members.as_ref().and_then(|all| {
                    let running = all.running.iter().find(of_it)?;
                    all.base
                        .members
                        .contains(&member.name)
                        .then_some((all, running))
                });
                let silence = || Silence {
                    cause: SilenceCause::Unreachable,
                    detail: "it does not run".to_owned(),
                };
                MemberObservation {
                    name: member.name.clone(),
                    url: (PROFILE.url)(member.address(PORT)),
                    health: match found {
                        None if runs.contains(&member.name) => {
                            MemberHealth::Degraded(Degradation::Other("has nothing to serve"))
                        }
                        None => MemberHealth::Silent(silence()),
                        Some((all, running)) => MemberHealth::Serving {
                            role: MemberRole::of(all.base.primary == member.name),
                            version: running.server.program.version.to_string(),
                            database_bytes: all.base.used_bytes() + all.base.unused,
                            used_bytes: Some(all.base.used_bytes()),
                            changes: all.base.changes,
                            is_full: all.base.is_full,
                            differs: false,
                            complaints: Vec::new(),
                        },
                    },
                }
            };
            deployment.members.iter().map(observe).collect()
        }))
    }

    async fn alive(&self, site: Site<'_>) -> Result<Vec<bool>, EngineError> {
        Ok(self.0.visit(&site.deployment.id, |running| {
            let runs = |name: &str| running.iter().any(|m| m.server.member == name);
            let members = site.deployment.members.iter();
            members.map(|member| runs(&member.name)).collect()
        }))
    }

    async fn snapshot(&self, site: Site<'_>) -> Result<Snapshot, EngineError> {
        self.ask(site, "asking a member for its data", |members| {
            let mut bytes = serde_json::to_vec(&members.base).expect("JSON");
            bytes.extend(END.as_bytes());
            let chunks: Vec<_> = bytes
                .chunks(64)
                .map(|c| Ok(Bytes::copy_from_slice(c)))
                .collect();
            Ok(Snapshot {
                bytes_expected: bytes.len() as u64,
                known: None,
                content: stream::iter(chunks).boxed(),
            })
        })
    }

    async fn describe(
        &self,
        site: Site<'_>,
        staged: &str,
        _: Option<&SnapshotContent>,
        bench: &dyn Workbench,
    ) -> Result<Description, EngineError> {
        let member = &site.deployment.members[0].name;
        let file = format!("{STAGE}/{staged}");
        let content = count(site.deployment, member, &file, bench).await?;
        Ok(Description::Content(content))
    }

    fn whole(&self, snapshot: ByteStream) -> ByteStream {
        let read = async move {
            let bytes: Vec<Bytes> = snapshot.try_collect().await?;
            let bytes = Bytes::from(bytes.concat());
            match bytes.ends_with(END.as_bytes()) {
                true => Ok(bytes),
                false => Err(std::io::Error::other("it has no end")),
            }
        };
        stream::once(read).boxed()
    }

    async fn take_stock(
        &self,
        site: Site<'_>,
        staged: &str,
        bench: &dyn Workbench,
    ) -> Result<SnapshotContent, EngineError> {
        match self.describe(site, staged, None, bench).await? {
            Description::Content(content) => Ok(content),
            Description::Unknown(why) => Err(EngineError::Unexpected(why)),
        }
    }

    async fn agreed_version(&self, site: Site<'_>) -> Result<Version, EngineError> {
        self.ask(site, "asking for the version", |members| {
            let versions = members.running.iter().map(|m| m.server.program.version);
            Ok(versions.min().expect("a member that runs"))
        })
    }

    async fn obstacles(&self, _: Site<'_>, _: Version) -> Result<Vec<Obstacle>, EngineError> {
        Ok(Vec::new())
    }

    async fn pass(&self, site: Site<'_>, passage: Passage) -> Result<(), EngineError> {
        self.ask(site, "preparing for another version", |members| {
            if passage == Passage::FillLogs {
                for member in members.running.iter_mut() {
                    if member.server.args.iter().any(|arg| arg == "--checkpoints") {
                        let files = member.home.keys().filter(|f| f.ends_with(".state"));
                        let name = format!("{FOLDER}/{:04}.state", files.count());
                        member.home.insert(name, Vec::new());
                    }
                }
            }
            Ok(())
        })
    }

    async fn change_member(
        &self,
        site: Site<'_>,
        place: usize,
        change: MemberChange,
    ) -> Result<(), EngineError> {
        let name = site.deployment.members[place].name.clone();
        self.ask(site, "changing a member", |members| {
            let runs = members.running.iter().any(|m| m.server.member == name);
            let base = &mut members.base;
            let is_in = base.members.contains(&name);
            match change {
                MemberChange::Lead if is_in && runs => {
                    base.primary = name;
                    base.term += 1;
                }
                MemberChange::Vote { .. } if is_in && runs => return Ok(()),
                MemberChange::Lead | MemberChange::Vote { .. } => {
                    return Err(EngineError::NotReady(format!("{name} does not serve")));
                }
                MemberChange::Leave => base.members.retain(|member| *member != name),
                MemberChange::Enter if is_in => return Ok(()),
                MemberChange::Enter => base.members.push(name),
            }
            members.copy();
            Ok(())
        })
    }

    async fn count_keys(&self, site: Site<'_>, prefix: &str) -> Result<u64, EngineError> {
        self.ask(site, "counting keys", |members| {
            let keys = members.base.keys.keys();
            Ok(keys.filter(|key| key.starts_with(prefix)).count() as u64)
        })
    }

    async fn relieve(&self, site: Site<'_>, relief: Relief<'_>) -> Result<u64, EngineError> {
        self.ask(site, "making room", |members| {
            let base = &mut members.base;
            let mut deleted = 0;
            match relief {
                Relief::DeleteKeys("") => {
                    let text = "keys are deleted by a prefix".to_owned();
                    return Err(EngineError::Unexpected(text));
                }
                Relief::DeleteKeys(prefix) => {
                    let before = (base.keys.len(), base.used_bytes());
                    base.keys.retain(|key, _| !key.starts_with(prefix));
                    deleted = (before.0 - base.keys.len()) as u64;
                    base.unused += before.1 - base.used_bytes();
                    base.changes += 1;
                }
                Relief::ForgetHistory => {}
                Relief::GiveBack | Relief::GiveBackOf(_) => base.unused = 0,
                Relief::ClearAlarms => base.is_full = false,
            }
            members.copy();
            Ok(deleted)
        })
    }

    async fn change_user(&self, site: Site<'_>, change: UserChange<'_>) -> Result<(), EngineError> {
        self.ask(site, "changing a user", |members| {
            let users = &mut members.base.users;
            match change {
                UserChange::Add(user) => {
                    if user.name.is_empty() || user.password.expose().is_empty() {
                        let text = "a user needs a name and a password".to_owned();
                        return Err(EngineError::Unexpected(text));
                    }
                    users.insert(user.name.clone(), User::of(user));
                }
                UserChange::Remove(name) => _ = users.remove(name),
            }
            members.copy();
            Ok(())
        })
    }

    async fn restore_users(
        &self,
        site: Site<'_>,
        users: &[DatabaseUser],
        others: &[String],
    ) -> Result<Vec<String>, EngineError> {
        let password = Some(site.secrets.root_password.expose().to_owned());
        self.ask(site, "restoring users", |members| {
            let base = &mut members.base;
            let mut found = Vec::new();
            if base.administrator != password {
                base.administrator = password;
                found.push("The administrator's password was changed.".to_owned());
            }
            let is_ours = |name: &String| {
                users.iter().any(|user| user.name == *name) || others.contains(name)
            };
            base.users.retain(|name, _| {
                let ours = is_ours(name);
                if !ours {
                    found.push(format!("There was a user {name}."));
                }
                ours
            });
            for user in users {
                let wanted = User::of(user);
                if base.users.get(&user.name) != Some(&wanted) {
                    found.push(format!("The user {} was not as it was made.", user.name));
                    base.users.insert(user.name.clone(), wanted);
                }
            }
            members.copy();
            Ok(found)
        })
    }
}

fn different(found: &SnapshotContent, expected: &SnapshotContent) -> EngineError {
    EngineError::Unexpected(format!(
        "{found:?} is there, and {expected:?} is in the backup"
    ))
}

async fn count(
    deployment: &Deployment,
    member: &str,
    file: &str,
    bench: &dyn Workbench,
) -> Result<SnapshotContent, EngineError> {
    let task = tool(deployment, vec!["count".to_owned(), file.to_owned()]);
    let printed = bench.run(&deployment.id, member, &task).await?;
    serde_json::from_str(&printed).map_err(|_| EngineError::Output {
        tool: "pairtool",
        reason: format!("{printed:?} tells no content"),
    })
}
