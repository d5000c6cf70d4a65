//! What every kind of database must hold to.
//!
//! Each test is written once, against the trait, and run on each engine with members that really run, on
//! a provisioner that fits. A new engine is a [`Kind`] and a line at the end.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use base64::{Engine as _, engine::general_purpose::STANDARD as BASE64};
use compose_broker::{
    engine::{
        DatabaseUser, Description, EngineError, Holding, Issue, MemberChange, Relief, Seed,
        SharedEngine, UserChange,
        etcd::{self as etcd_engine, Etcd},
    },
    model::{
        backup::SnapshotContent,
        binding::Rights,
        deployment::{Access, Deployment, DeploymentSecrets, Member, Membership, Site},
        ids::DeploymentId,
        limits::{STOP_GRACE, UNITS_DEFAULT, UNITS_MAX},
        observation::{MemberHealth, MemberObservation},
        prefix::{PrefixDifference, PrefixMode, PrefixRestore},
        proof::Evidence,
        reach::Reach,
        renewal::{CertificateLife, Certificates, Renewal},
        secret::Secret,
        version::Version,
    },
    provisioner::{SharedProvisioner, local::LocalProvisioner},
};
use futures::{StreamExt, TryStreamExt};
use serde_json::json;

use crate::{
    broker::{engines_dir, eventually, kill, port_range, processes_below},
    contract::provisioner::tenant,
    control::now,
    etcd,
    memory::{
        cluster::MemoryCluster,
        pair::{self, Pair},
    },
};

mod versions;

use versions::members_become_a_newer_version_and_go_back_one_by_one;

/// What a change of a member may take.
const PATIENCE: Duration = Duration::from_secs(60);

/// A kind of database.
trait Kind: Sized {
    /// A version, and one that it is upgraded to in place.
    const VERSIONS: [&'static str; 2];
    /// An empty cluster.
    async fn new() -> Self;
    fn engine(&self) -> SharedEngine;
    fn provisioner(&self) -> SharedProvisioner;
    /// Writes a key as an application; fails with what it is told.
    async fn put(&self, of: &Deployed, user: &DatabaseUser, key: &str) -> Result<(), String> {
        self.set(of, user, (key, &format!("value of {key}"))).await
    }
    /// The same with that value.
    async fn set(
        &self,
        of: &Deployed,
        user: &DatabaseUser,
        key: (&str, &str),
    ) -> Result<(), String>;
    /// All keys and values, as an application.
    async fn dump(&self, of: &Deployed, user: &DatabaseUser) -> BTreeMap<String, String>;
}

struct OnEtcd {
    provisioner: Arc<LocalProvisioner>,
    folder: tempfile::TempDir,
}

impl OnEtcd {
    fn credentials(of: &Deployed, user: &DatabaseUser) -> serde_json::Value {
        let strings =
            etcd_engine::PROFILE.connection_strings(&of.deployment, &user.name, &user.password);
        json!({
            "uri": strings.uris[0].expose(),
            "ca_certificate_base64": BASE64.encode(of.secrets.trusted()),
        })
    }
}

impl Kind for OnEtcd {
    const VERSIONS: [&'static str; 2] = ["3.6.16", "3.7.3"];

    async fn new() -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        let binaries = etcd_engine::PROFILE.binaries;
        let ports = port_range().parse().expect("ports");
        let cluster = folder.path().join("cluster");
        let opened = LocalProvisioner::open(cluster, engines_dir(), &[binaries], ports).await;
        Self {
            provisioner: opened.expect("a cluster"),
            folder,
        }
    }

    fn engine(&self) -> SharedEngine {
        Arc::new(Etcd)
    }

    fn provisioner(&self) -> SharedProvisioner {
        self.provisioner.clone()
    }

    async fn set(
        &self,
        of: &Deployed,
        user: &DatabaseUser,
        (key, value): (&str, &str),
    ) -> Result<(), String> {
        let put = async {
            let mut client = etcd::connect_to(&Self::credentials(of, user), "uri").await?;
            client.put(key, value, None).await
        };
        put.await.map(drop).map_err(|error| error.to_string())
    }

    async fn dump(&self, of: &Deployed, user: &DatabaseUser) -> BTreeMap<String, String> {
        let mut client = etcd::connect(&Self::credentials(of, user)).await;
        etcd::dump(&mut client).await.into_iter().collect()
    }
}

impl Drop for OnEtcd {
    fn drop(&mut self) {
        // Without its folder no member is started again.
        let cluster = self.folder.path().join("cluster");
        let _ = std::fs::rename(&cluster, self.folder.path().join("gone"));
        processes_below(&cluster).into_iter().for_each(kill);
    }
}

struct InMemory(Arc<Pair>);

impl Kind for InMemory {
    const VERSIONS: [&'static str; 2] = ["2.0.5", "3.1.0"];

    async fn new() -> Self {
        Self(Arc::new(Pair(MemoryCluster::new(pair::installed()))))
    }

    fn engine(&self) -> SharedEngine {
        self.0.clone()
    }

    fn provisioner(&self) -> SharedProvisioner {
        self.0.0.clone()
    }

    async fn set(
        &self,
        of: &Deployed,
        user: &DatabaseUser,
        (key, value): (&str, &str),
    ) -> Result<(), String> {
        let uri = of.uri(self, user);
        self.0.put(uri.expose(), key, value)
    }

    async fn dump(&self, of: &Deployed, user: &DatabaseUser) -> BTreeMap<String, String> {
        let keys = self.0.keys(of.uri(self, user).expose());
        keys.expect("keys")
    }
}

/// A deployment, as operations decide about one.
struct Deployed {
    deployment: Deployment,
    secrets: DeploymentSecrets,
    access: Access,
}

fn certificates() -> Certificates {
    Certificates::new(now(), &CertificateLife::default())
}

impl Deployed {
    /// One whose members have their places, and nothing else.
    async fn placed(kind: &impl Kind, version: &str) -> Self {
        Self::placed_with(kind, version, kind.engine().profile().members).await
    }

    /// The same with so many members.
    async fn placed_with(kind: &impl Kind, version: &str, members: usize) -> Self {
        let engine = kind.engine();
        let profile = engine.profile();
        let id = DeploymentId::generate(now());
        let names: Vec<String> = (0..members).map(|i| format!("m{i}")).collect();
        let provisioner = kind.provisioner();
        let running = provisioner.deployments().await.expect("deployments");
        let mut taken = std::collections::HashSet::new();
        for deployment in running {
            let members = provisioner.members(&deployment).await.expect("members");
            taken.extend(members.into_iter().flat_map(|m| m.addresses.into_values()));
        }
        let (ports, reach) = (profile.ports, Reach::loopback());
        let tenant = tenant();
        let of = tenant.owning(&id);
        let placed = provisioner.place(of, &names, ports, &reach, &taken).await;
        let members = names.into_iter().zip(placed.expect("places"));
        let deployment = Deployment {
            id,
            instance: "an instance".parse().expect("an id"),
            name: "a-deployment".to_owned(),
            cluster: "here".to_owned(),
            engine: engine.name().to_owned(),
            version: version.parse().expect("a version"),
            units: 1,
            members: members
                .map(|(name, addresses)| Member {
                    name,
                    addresses,
                    shape: None,
                    checkpointing: false,
                    membership: Membership::New,
                })
                .collect(),
            closed_since: None,
        };
        let secrets = engine.secrets(&deployment, Issue::First, &certificates(), now());
        Self {
            secrets: secrets.expect("secrets"),
            deployment,
            access: Access::Certificates,
        }
    }

    /// One that is in use: secured, and open to users.
    async fn open(kind: &impl Kind) -> Self {
        Self::open_with(kind, kind.engine().profile().members).await
    }

    /// The same with so many members.
    async fn open_with(kind: &impl Kind, members: usize) -> Self {
        let mut new = Self::placed_with(kind, Self::version(kind), members).await;
        new.start(kind).await;
        new.secure(kind, Holding::Nothing).await.expect("secured");
        new.let_users_in(kind).await;
        new
    }

    fn version<K: Kind>(_: &K) -> &'static str {
        K::VERSIONS[0]
    }

    fn site(&self) -> Site<'_> {
        Site::with_access(&self.deployment, &self.secrets, self.access)
    }

    /// Starts the members as they are decided, one after the other, and waits until they serve.
    async fn start(&self, kind: &impl Kind) {
        let engine = kind.engine();
        let servers = engine.servers(self.site());
        for (server, member) in servers.iter().zip(&self.deployment.members) {
            kind.provisioner().start(server).await.expect("started");
            engine.listening(member).await;
        }
        engine.ready(self.site()).await.expect("ready");
    }

    async fn secure(&self, kind: &impl Kind, holding: Holding) -> Result<(), EngineError> {
        kind.engine().secure(self.site(), holding).await
    }

    async fn let_users_in(&mut self, kind: &impl Kind) {
        self.access = Access::Passwords;
        for member in &mut self.deployment.members {
            member.membership = Membership::Joined;
        }
        for member in &self.deployment.members {
            let (id, grace) = (&self.deployment.id, Duration::ZERO);
            let stopped = kind.provisioner().stop(id, &member.name, grace).await;
            stopped.expect("stopped");
        }
        self.start(kind).await;
    }

    async fn add(&self, kind: &impl Kind, user: &DatabaseUser) {
        let change = UserChange::Add(user);
        let added = kind.engine().change_user(self.site(), change).await;
        added.expect("added");
    }

    fn uri(&self, kind: &impl Kind, user: &DatabaseUser) -> Secret {
        let engine = kind.engine();
        let strings =
            engine
                .profile()
                .connection_strings(&self.deployment, &user.name, &user.password);
        strings.uris[0].clone()
    }

    async fn observe(&self, kind: &impl Kind) -> Vec<MemberObservation> {
        let seen = kind.engine().observe(self.site()).await;
        seen.expect("an observation")
    }

    async fn ready(&self, kind: &impl Kind) {
        eventually("members that are ready", || async {
            kind.engine().ready(self.site()).await.ok()
        })
        .await;
    }

    async fn stop(&self, kind: &impl Kind, place: usize) {
        let name = &self.deployment.members[place].name;
        let grace = Duration::ZERO;
        let stopped = kind
            .provisioner()
            .stop(&self.deployment.id, name, grace)
            .await;
        stopped.expect("stopped");
    }

    /// Puts a snapshot on a stage; returns what is in it.
    async fn back_up(&self, kind: &impl Kind, to: &DeploymentId) -> SnapshotContent {
        const STAGED: &str = "snapshot";
        let (engine, provisioner) = (kind.engine(), kind.provisioner());
        let snapshot = engine.snapshot(self.site()).await.expect("a snapshot");
        let chunks: Vec<_> = snapshot.content.collect().await;
        let whole = |chunks: &[std::io::Result<bytes::Bytes>]| {
            let chunks = chunks
                .iter()
                .map(|c| Ok(c.as_ref().expect("whole").clone()));
            futures::stream::iter(chunks.collect::<Vec<_>>()).boxed()
        };
        let mut content = None;
        for at in [&self.deployment.id, to] {
            let expected = snapshot.bytes_expected;
            let staged = provisioner
                .stage(at, STAGED, expected, whole(&chunks))
                .await;
            staged.expect("staged");
            if *at == self.deployment.id {
                let known = snapshot.known.as_ref();
                let bench: SharedProvisioner = provisioner.clone();
                let told = engine.describe(self.site(), STAGED, known, &*bench).await;
                match told.expect("a description") {
                    Description::Content(told) => content = Some(told),
                    Description::Unknown(why) => panic!("{why}"),
                }
            }
        }
        content.expect("what is in it")
    }

    /// Fills all homes from what is on the stage.
    async fn seed(&self, kind: &impl Kind, seed: Seed<'_>) {
        for place in 0..self.deployment.members.len() {
            let bench = kind.provisioner();
            let seeded = kind
                .engine()
                .seed(&self.deployment, place, seed, &*bench)
                .await;
            seeded.expect("seeded");
        }
    }
}

fn user(name: &str, password: &str) -> DatabaseUser {
    DatabaseUser {
        name: name.to_owned(),
        password: Secret::new(password),
        rights: Rights::default(),
    }
}

async fn a_profile_holds_together<K: Kind>() {
    let kind = K::new().await;
    let engine = kind.engine();
    let profile = engine.profile();
    assert_eq!(engine.name(), profile.name);
    assert!((1..=profile.members).contains(&profile.members_needed));
    assert!((UNITS_DEFAULT..=UNITS_MAX).contains(&profile.units_max));
    let numbers: Vec<_> = profile.lines.iter().map(|l| (l.major, l.minor)).collect();
    assert!(numbers.is_sorted());
    assert!(numbers.contains(&profile.default_line));
    let versions = K::VERSIONS.map(|v| v.parse::<Version>().expect("a version"));
    let hops = profile.hops(versions[0], versions[1], &versions);
    assert_eq!(hops.expect("a way"), [versions[1]]);
    let installed = kind.provisioner().versions(profile.name);
    for version in versions {
        assert!(
            profile.offers(version) && installed.contains(&version),
            "{version}"
        );
    }
    assert_eq!(
        profile
            .urls(&Deployed::placed(&kind, K::VERSIONS[0]).await.deployment)
            .len(),
        profile.members
    );
}

async fn secrets_are_renewed_piece_by_piece<K: Kind>() {
    let kind = K::new().await;
    let engine = kind.engine();
    let of = Deployed::placed(&kind, K::VERSIONS[0]).await;
    let other = Deployed::placed(&kind, K::VERSIONS[0]).await;
    assert_ne!(of.secrets.root_password, other.secrets.root_password);
    assert_ne!(of.secrets.ca_certificate, other.secrets.ca_certificate);
    let renew = |secrets: &DeploymentSecrets, what| {
        let issue = Issue::Renewal { secrets, what };
        let renewed = engine.secrets(&of.deployment, issue, &certificates(), now());
        renewed.expect("secrets")
    };
    let first = &of.secrets;
    let members = renew(first, Renewal::Members);
    assert_ne!(members.member_certificate, first.member_certificate);
    assert_ne!(members.member_key, first.member_key);
    assert_eq!(members.root_password, first.root_password);
    assert_eq!(members.trusted(), first.trusted());
    let followed = renew(first, Renewal::Follow);
    assert!(followed.trusted().contains(first.ca_certificate.trim_end()));
    assert_eq!(followed.ca_certificate, first.ca_certificate);
    assert_eq!(followed.member_certificate, first.member_certificate);
    let next = followed.next_authority.clone().expect("a next authority");
    let changed = renew(&followed, Renewal::Change);
    assert_eq!(changed.ca_certificate, next.certificate);
    assert_eq!(
        changed.former_ca_certificate.as_ref(),
        Some(&first.ca_certificate)
    );
    assert_ne!(changed.member_certificate, first.member_certificate);
    let retired = renew(&changed, Renewal::Retire);
    assert_eq!(retired.trusted(), next.certificate);
    assert_eq!(retired.member_certificate, changed.member_certificate);
}

async fn servers_are_told_apart_and_without_secrets<K: Kind>() {
    let kind = K::new().await;
    let engine = kind.engine();
    let mut of = Deployed::placed(&kind, K::VERSIONS[0]).await;
    let closed = engine.servers(of.site());
    assert_eq!(closed.len(), engine.profile().members);
    for (server, member) in closed.iter().zip(&of.deployment.members) {
        assert_eq!(server.member, member.name);
        assert_eq!(server.addresses, member.addresses);
        assert!(server.resources.disk_bytes >= of.deployment.quota_bytes());
        // One that never served has nothing to lose.
        assert_eq!(server.data, None);
        let secrets = [
            &of.secrets.member_key,
            &of.secrets.root_password,
            &of.secrets.ca_key,
        ];
        for secret in secrets {
            let env = server.env.iter().map(|(_, value)| value);
            assert!(
                !server
                    .args
                    .iter()
                    .chain(env)
                    .any(|arg| arg.contains(secret.expose()))
            );
        }
    }
    of.deployment.members[0].membership = Membership::Joined;
    assert!(engine.servers(of.site())[0].data.is_some());
    of.deployment.members[0].membership = Membership::New;
    of.access = Access::Passwords;
    let open = engine.servers(of.site());
    assert_ne!(
        open[0].args, closed[0].args,
        "they are started anew when users are let in"
    );
}

async fn a_new_database_lets_in_its_users_alone<K: Kind>() {
    let kind = K::new().await;
    let mut of = Deployed::placed(&kind, K::VERSIONS[0]).await;
    of.start(&kind).await;
    for _ in 0..2 {
        of.secure(&kind, Holding::Nothing).await.expect("secured");
    }
    let ada = user("ada", "first");
    of.add(&kind, &ada).await;
    kind.put(&of, &ada, "a")
        .await
        .expect_err("nobody is let in yet");
    of.let_users_in(&kind).await;
    eventually("a key", || async { kind.put(&of, &ada, "a").await.ok() }).await;
    let wrong = kind.put(&of, &user("ada", "wrong"), "b").await;
    wrong.expect_err("a wrong password");
    let nobody = kind.put(&of, &user("eve", "first"), "b").await;
    nobody.expect_err("nobody's name");
    assert_eq!(kind.dump(&of, &ada).await.keys().collect::<Vec<_>>(), ["a"]);
}

async fn users_come_change_and_go<K: Kind>() {
    let kind = K::new().await;
    let engine = kind.engine();
    let of = Deployed::open(&kind).await;
    for password in ["first", "second"] {
        of.add(&kind, &user("ada", password)).await;
    }
    let ada = user("ada", "second");
    kind.put(&of, &ada, "a").await.expect("a key");
    kind.put(&of, &user("ada", "first"), "b")
        .await
        .expect_err("the password was changed");
    let nameless = engine
        .change_user(of.site(), UserChange::Add(&user("", "x")))
        .await;
    nameless.expect_err("a user without a name");
    let open = engine
        .change_user(of.site(), UserChange::Add(&user("bob", "")))
        .await;
    open.expect_err("a user without a password");

    of.add(&kind, &user("eve", "eve")).await;
    of.add(&kind, &user("other", "other")).await;
    let others = ["other".to_owned(), "never".to_owned()];
    let users = [user("ada", "third"), user("new", "new")];
    let found = engine
        .restore_users(of.site(), &users, &others)
        .await
        .expect("restored");
    assert!(found.len() >= 3, "{found:?}");
    let told = found.join("\n");
    for (name, password) in [("ada", "third"), ("new", "new"), ("other", "other")] {
        kind.put(&of, &user(name, password), name)
            .await
            .expect("a key");
        assert!(
            !told.contains(&format!("{password} ")) || password == name,
            "{told}"
        );
    }
    kind.put(&of, &user("eve", "eve"), "e")
        .await
        .expect_err("a stranger");
    let again = engine
        .restore_users(of.site(), &users, &others)
        .await
        .expect("restored");
    assert_eq!(again, Vec::<String>::new());

    for _ in 0..2 {
        let removed = engine
            .change_user(of.site(), UserChange::Remove("new"))
            .await;
        removed.expect("removed");
    }
    kind.put(&of, &user("new", "new"), "n")
        .await
        .expect_err("a user that is gone");
}

async fn a_backup_becomes_another_database<K: Kind>() {
    let kind = K::new().await;
    let engine = kind.engine();
    let of = Deployed::open(&kind).await;
    let ada = user("ada", "first");
    of.add(&kind, &ada).await;
    for key in ["a", "b", "c"] {
        kind.put(&of, &ada, key).await.expect("a key");
    }
    let mut copy = Deployed::placed(&kind, K::VERSIONS[0]).await;
    let content = of.back_up(&kind, &copy.deployment.id).await;
    assert_eq!(content.get("keys"), Some(3), "{content:?}");
    let words = engine
        .profile()
        .content_in_words(&content, |n| n.to_string());
    assert!(words.contains("3 keys"), "{words}");

    copy.seed(&kind, Seed::Snapshot("snapshot")).await;
    copy.start(&kind).await;
    for _ in 0..2 {
        copy.secure(&kind, Holding::Backup).await.expect("secured");
    }
    copy.let_users_in(&kind).await;
    engine
        .verify(copy.site(), &content)
        .await
        .expect("the same");
    let bob = user("bob", "bob");
    copy.add(&kind, &bob).await;
    assert_eq!(kind.dump(&copy, &bob).await, kind.dump(&of, &ada).await);
    kind.put(&copy, &ada, "d")
        .await
        .expect_err("a user of the source");
    kind.put(&copy, &bob, "d").await.expect("a key");
    let other = engine.verify(copy.site(), &content).await;
    assert!(
        matches!(other, Err(EngineError::Unexpected(_))),
        "{other:?}"
    );
    assert_eq!(kind.dump(&of, &ada).await.len(), 3);
}

async fn a_backup_is_proved_by_all_that_is_in_it<K: Kind>() {
    let kind = K::new().await;
    let engine = kind.engine();
    let ada = user("ada", "first");
    let mut contents = Vec::new();
    for keys in [["a", "b", "d"], ["a", "b", "c"]] {
        let of = Deployed::open_with(&kind, 1).await;
        of.add(&kind, &ada).await;
        for key in keys {
            kind.put(&of, &ada, key).await.expect("a key");
        }
        for version in K::VERSIONS {
            let copy = Deployed::placed_with(&kind, version, 1).await;
            let content = of.back_up(&kind, &copy.deployment.id).await;
            contents.push(content.clone());
            let told = engine.profile().content.iter();
            let figures = told.map(|f| (f.name.to_owned(), content.get(f.name).expect("a figure")));
            let figures = SnapshotContent(figures.collect());
            copy.seed(&kind, Seed::Snapshot("snapshot")).await;
            copy.start(&kind).await;
            let bench = kind.provisioner();
            let stock = engine.take_stock(copy.site(), "snapshot", &*bench).await;
            assert_eq!(stock.expect("what is in it"), content);
            let prove = async |content| engine.prove(copy.site(), content).await;
            for _ in 0..2 {
                assert_eq!(prove(&content).await.expect("the same"), Evidence::Whole);
            }
            let proved = prove(&figures).await.expect("the same");
            assert_eq!(proved, Evidence::Figures, "of an earlier version");
            if contents[0] != content {
                // As many keys, and as many changes.
                let other = prove(&contents[0]).await;
                assert!(
                    matches!(other, Err(EngineError::Unexpected(_))),
                    "{other:?}"
                );
            }
        }
    }
    assert_ne!(contents[0], contents[2]);
}

async fn a_file_is_known_by_its_beginning_and_its_end<K: Kind>() {
    let kind = K::new().await;
    let (engine, of) = (kind.engine(), Deployed::open_with(&kind, 1).await);
    let snapshot = engine.snapshot(of.site()).await.expect("a snapshot");
    let whole: Vec<bytes::Bytes> = snapshot.content.try_collect().await.expect("whole");
    let whole = whole.concat();
    let check = engine.profile().check_head;
    assert_eq!(check(&whole[..whole.len().min(4096)]), Ok(()));
    assert!(check(b"").is_err() && check(&whole[1..]).is_err());
    for (bytes, is_whole) in [(&whole[..], true), (&whole[..whole.len() - 1], false)] {
        let chunks = bytes.chunks(1000).map(bytes::Bytes::copy_from_slice);
        let chunks: Vec<_> = chunks.map(Ok).collect();
        let passed = engine.whole(futures::stream::iter(chunks).boxed());
        let passed: Result<Vec<bytes::Bytes>, _> = passed.try_collect().await;
        assert_eq!(
            passed.is_ok_and(|passed| passed.concat() == bytes),
            is_whole
        );
    }
}

async fn keys_are_put_back_from_a_backup<K: Kind>() {
    let kind = K::new().await;
    let engine = kind.engine();
    let ada = user("ada", "first");
    let of = Deployed::open_with(&kind, 1).await;
    of.add(&kind, &ada).await;
    // More than are changed at a time.
    for key in 100..170 {
        let key = format!("a/{key}");
        kind.put(&of, &ada, &key).await.expect("a key");
    }
    kind.put(&of, &ada, "b").await.expect("a key");
    let aside = Deployed::placed_with(&kind, K::VERSIONS[0], 1).await;
    of.back_up(&kind, &aside.deployment.id).await;
    aside.seed(&kind, Seed::Snapshot("snapshot")).await;
    aside.start(&kind).await;
    let set = async |key, value| kind.set(&of, &ada, (key, value)).await.expect("a key");
    // One line is gone, one key is another, two are new, and so is what is of no interest.
    let gone = Relief::DeleteKeys("a/11");
    assert_eq!(engine.relieve(of.site(), gone).await.expect("room"), 10);
    for key in ["a/120", "a/new", "a/newer", "b"] {
        set(key, "of later").await;
    }
    let compare = async |prefix| {
        let found = engine.compare_prefix(aside.site(), of.site(), prefix);
        found.await.expect("a difference")
    };
    let found = compare("a/").await;
    let bytes = ("a/110value of a/110".len() * 10) as u64;
    let expected = PrefixDifference {
        same: 59,
        missing: 10,
        changed: 1,
        extra: 2,
        ephemeral: 0,
        missing_bytes: bytes,
        changed_bytes: bytes / 10,
        point: found.point.clone(),
    };
    assert_eq!(found, expected);
    let all = compare("").await;
    assert_eq!((all.same, all.changed, all.extra), (59, 2, 2));
    assert_eq!(compare("c").await.same, 0);
    // Clients go on.
    for key in ["a/111", "a/130", "a/newer"] {
        set(key, "of last").await;
    }
    let mut values = kind.dump(&of, &ada).await;
    for (mode, left, kept) in [
        (PrefixMode::Missing, 1, 0),
        (PrefixMode::Overwrite, 1, 0),
        (PrefixMode::Mirror, 1, 1),
    ] {
        for key in (110..120).filter(|key| *key != 111) {
            values.insert(format!("a/{key}"), format!("value of a/{key}"));
        }
        if mode.overwrites() {
            values.insert("a/120".to_owned(), "value of a/120".to_owned());
        }
        if mode.deletes() {
            values.remove("a/new");
        }
        // Another worker goes on where the first one has died.
        for _ in 0..2 {
            let wanted = PrefixRestore::wanted("a/", mode.as_str(), false).expect("a wish");
            let (mut seen, mut from) = ((0, 0), None);
            loop {
                let (there, here) = (aside.site(), of.site());
                let done = engine.put_back(there, here, &wanted, &found.point, from);
                let done = done.await.expect("keys");
                seen = (seen.0 + done.left, seen.1 + done.kept);
                from = done.next;
                if from.is_none() {
                    break;
                }
            }
            assert_eq!(seen, (left, kept), "{mode:?}");
            assert_eq!(kind.dump(&of, &ada).await, values, "{mode:?}");
        }
    }
}

fn changes(member: &MemberObservation) -> i64 {
    match &member.health {
        MemberHealth::Serving { changes, .. } => *changes,
        other => panic!("{other:?}"),
    }
}

async fn the_state_of_members_is_told<K: Kind>() {
    let kind = K::new().await;
    let engine = kind.engine();
    let of = Deployed::open(&kind).await;
    let ada = user("ada", "first");
    of.add(&kind, &ada).await;
    let seen = of.observe(&kind).await;
    let names: Vec<&str> = seen.iter().map(|m| m.name.as_str()).collect();
    let expected: Vec<&str> = of
        .deployment
        .members
        .iter()
        .map(|m| m.name.as_str())
        .collect();
    assert_eq!(names, expected);
    assert!(seen.iter().all(MemberObservation::serves), "{seen:?}");
    assert_eq!(seen.iter().filter(|m| m.leads()).count(), 1);
    kind.put(&of, &ada, "a").await.expect("a key");
    eventually("a change that is told", || async {
        let now = of.observe(&kind).await;
        now.iter()
            .all(|m| changes(m) > changes(&seen[0]))
            .then_some(())
    })
    .await;
    assert!(
        engine
            .alive(of.site())
            .await
            .expect("signs")
            .iter()
            .all(|alive| *alive)
    );

    let leader = seen
        .iter()
        .position(MemberObservation::leads)
        .expect("a leader");
    let heir = (leader + 1) % seen.len();
    for _ in 0..2 {
        let lead = engine
            .change_member(of.site(), heir, MemberChange::Lead)
            .await;
        lead.expect("handed over");
    }
    eventually("another leader", || async {
        of.observe(&kind).await[heir].leads().then_some(())
    })
    .await;
    of.stop(&kind, leader).await;
    eventually("a silent member", || async {
        let now = of.observe(&kind).await;
        let others = now.iter().enumerate().filter(|(place, _)| *place != leader);
        let serving = others.filter(|(_, m)| m.serves()).count();
        (now[leader].silence().is_some() && serving == now.len() - 1).then_some(())
    })
    .await;
    assert!(
        seen.len() > engine.profile().members_needed,
        "one may be missing"
    );
    kind.put(&of, &ada, "b").await.err();
    let alive = engine.alive(of.site()).await.expect("signs");
    assert_eq!(alive.iter().position(|alive| !alive), Some(leader));
}

async fn a_member_is_replaced_by_a_new_one<K: Kind>() {
    let kind = K::new().await;
    let engine = kind.engine();
    let mut of = Deployed::open(&kind).await;
    let ada = user("ada", "first");
    of.add(&kind, &ada).await;
    kind.put(&of, &ada, "a").await.expect("a key");
    let place = of.deployment.members.len() - 1;
    let heir = engine.change_member(of.site(), 0, MemberChange::Lead).await;
    heir.expect("handed over");
    of.stop(&kind, place).await;
    let name = of.deployment.members[place].name.clone();
    kind.provisioner()
        .wipe(&of.deployment.id, &name)
        .await
        .expect("wiped");
    of.deployment.members[place].membership = Membership::Joining;
    for change in [MemberChange::Leave, MemberChange::Enter] {
        for _ in 0..2 {
            let changed = engine.change_member(of.site(), place, change).await;
            changed.unwrap_or_else(|error| panic!("{change:?}: {error:?}"));
        }
    }
    let server = &engine.servers(of.site())[place];
    kind.provisioner().start(server).await.expect("started");
    let vote = MemberChange::Vote { patience: PATIENCE };
    for _ in 0..2 {
        engine
            .change_member(of.site(), place, vote)
            .await
            .expect("a vote");
    }
    of.ready(&kind).await;
    assert_eq!(kind.dump(&of, &ada).await.len(), 1);
}

async fn room_is_made<K: Kind>() {
    let kind = K::new().await;
    let engine = kind.engine();
    let of = Deployed::open(&kind).await;
    let ada = user("ada", "first");
    of.add(&kind, &ada).await;
    for key in ["old/a", "old/b", "new/a"] {
        kind.put(&of, &ada, key).await.expect("a key");
    }
    let all = engine.relieve(of.site(), Relief::DeleteKeys("")).await;
    assert!(matches!(all, Err(EngineError::Unexpected(_))), "{all:?}");
    for expected in [2, 0] {
        let deleted = engine.relieve(of.site(), Relief::DeleteKeys("old/")).await;
        assert_eq!(deleted.expect("deleted"), expected);
    }
    let reliefs = [
        Relief::ForgetHistory,
        Relief::GiveBack,
        Relief::GiveBackOf(0),
        Relief::ClearAlarms,
    ];
    for relief in reliefs {
        for _ in 0..2 {
            let relieved = engine.relieve(of.site(), relief).await;
            let deleted = relieved.unwrap_or_else(|error| panic!("{relief:?}: {error:?}"));
            assert_eq!(deleted, 0);
        }
    }
    assert_eq!(
        kind.dump(&of, &ada).await.keys().collect::<Vec<_>>(),
        ["new/a"]
    );
}

async fn what_a_member_still_has_is_found_and_used<K: Kind>() {
    let kind = K::new().await;
    let (engine, provisioner) = (kind.engine(), kind.provisioner());
    let mut of = Deployed::open(&kind).await;
    let ada = user("ada", "first");
    of.add(&kind, &ada).await;
    for key in ["a", "b"] {
        kind.put(&of, &ada, key).await.expect("a key");
    }
    let before = kind.dump(&of, &ada).await;
    for member in &of.deployment.members {
        // An orderly end: what a member has taken in reaches its file a moment later.
        let stopped = provisioner
            .stop(&of.deployment.id, &member.name, STOP_GRACE)
            .await;
        stopped.expect("stopped");
    }
    let content = engine.survey(&of.deployment, 0, &*provisioner).await;
    assert_ne!(content.expect("a content"), SnapshotContent::default());
    let salvaged = engine
        .salvage(&of.deployment, 0, "salvage", &*provisioner)
        .await;
    salvaged.expect("salvaged");
    for member in &mut of.deployment.members {
        member.membership = Membership::New;
        let wiped = provisioner.wipe(&of.deployment.id, &member.name).await;
        wiped.expect("wiped");
    }
    let nothing = engine
        .salvage(&of.deployment, 0, "other", &*provisioner)
        .await;
    nothing.expect_err("nothing to salvage");
    of.access = Access::Certificates;
    of.seed(&kind, Seed::Salvage("salvage")).await;
    of.start(&kind).await;
    of.let_users_in(&kind).await;
    assert_eq!(
        kind.dump(&of, &ada).await,
        before,
        "users and keys are those of before"
    );
}

/// Runs every test on a kind of database.
macro_rules! contract {
    ($room:ident, $kind:ty) => {
        mod $room {
            use super::*;

            contract!(@tests $kind:
                a_profile_holds_together,
                secrets_are_renewed_piece_by_piece,
                servers_are_told_apart_and_without_secrets,
                a_new_database_lets_in_its_users_alone,
                users_come_change_and_go,
                a_backup_becomes_another_database,
                a_backup_is_proved_by_all_that_is_in_it,
                a_file_is_known_by_its_beginning_and_its_end,
                keys_are_put_back_from_a_backup,
                the_state_of_members_is_told,
                a_member_is_replaced_by_a_new_one,
                members_become_a_newer_version_and_go_back_one_by_one,
                room_is_made,
                what_a_member_still_has_is_found_and_used,
            );
        }
    };
    (@tests $kind:ty: $($test:ident),* $(,)?) => {
        $(
            #[tokio::test(flavor = "multi_thread")]
            async fn $test() {
                super::$test::<$kind>().await;
            }
        )*
    };
}

contract!(etcd_on_this_machine, OnEtcd);
contract!(in_memory, InMemory);
