//! Runs real members for tests, as a provisioner would, and ends them when it is dropped.

use std::{
    fs::{self, File},
    net::TcpListener,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    sync::atomic::{AtomicU16, Ordering},
    time::{Duration, Instant},
};

use async_trait::async_trait;
use chrono::Utc;
use etcd_client::{Certificate, Client, ConnectOptions, TlsOptions};
use futures::TryStreamExt;
use tempfile::TempDir;

use crate::{
    engine::{
        Description, Engine, EngineError, Holding, Issue, MemberChange, Passage, Seed, Snapshot,
        etcd::{
            Etcd, PROFILE,
            addresses::{client_url, member_at},
        },
    },
    model::{
        backup::SnapshotContent,
        deployment::{Access, Deployment, DeploymentSecrets, Member, Membership, Shape, Site},
        engine::FilesOfMember,
        ids::DeploymentId,
        renewal::{CertificateLife, Certificates},
        server::{FILES, HOME, Program, STAGE, Server, Task},
        version::Version,
    },
    stream::ByteStream,
    workbench::{ProvisionerError, Workbench},
};

const HOST: &str = "127.0.0.1";

/// Below the ports that systems give to outgoing connections, so that none is taken in between, and those of the
/// demo, which may run meanwhile. No other tests of this kind have these.
static NEXT_PORT: AtomicU16 = AtomicU16::new(0);
const PORTS_FROM: u16 = 20_000;
const PORTS: u16 = 3_000;

fn free_port() -> u16 {
    let own = (std::process::id() % u32::from(PORTS)) as u16;
    loop {
        let step = NEXT_PORT.fetch_add(1, Ordering::Relaxed).wrapping_add(own);
        let port = PORTS_FROM + step % PORTS;
        if TcpListener::bind((HOST, port)).is_ok() {
            return port;
        }
    }
}

/// No step takes nearly as long.
const STEP_PATIENCE: Duration = Duration::from_secs(120);

/// Does a step as the runner does: once more while no member answers. A machine that is busy with other tests
/// is enough for that, and it says nothing of the step.
pub async fn answered<T, F>(step: impl Fn() -> F) -> Result<T, EngineError>
where
    F: Future<Output = Result<T, EngineError>>,
{
    let begun = Instant::now();
    loop {
        match step().await {
            Err(error) if error.is_silence() && begun.elapsed() < STEP_PATIENCE => {
                println!("once more after {:?}: {error:?}", begun.elapsed());
            }
            done => return done,
        }
    }
}

pub struct Lab {
    pub deployment: Deployment,
    pub secrets: DeploymentSecrets,
    /// Put in place of the quota that the engine sets, to fill a database quickly.
    pub quota_bytes: Option<u64>,
    folder: TempDir,
    running: Vec<Child>,
}

impl Lab {
    pub fn new(version: &str, members: usize) -> Self {
        let now = Utc::now();
        let id = DeploymentId::generate(now);
        let certificates = Certificates::new(now, &CertificateLife::default());
        let members = (0..members).map(|index| Member {
            membership: Membership::New,
            ..member_at(&format!("m{index}"), HOST, [free_port(), free_port()])
        });
        let deployment = Deployment {
            id,
            instance: "an instance".parse().expect("an id"),
            cluster: "here".to_owned(),
            engine: Etcd.name().to_owned(),
            version: version.parse().expect("a version"),
            units: 1,
            members: members.collect(),
            name: "a-deployment".to_owned(),
            closed_since: None,
        };
        let secrets = Etcd
            .secrets(&deployment, Issue::First, &certificates, now)
            .expect("secrets");
        Self {
            deployment,
            secrets,
            quota_bytes: None,
            folder: TempDir::new().expect("a folder"),
            running: Vec::new(),
        }
    }

    /// A new deployment, ready and secured.
    pub async fn secured(version: &str, members: usize) -> Self {
        let mut lab = Self::new(version, members);
        lab.start(Access::Passwords).await;
        lab.secure_new().await.expect("secured");
        lab
    }

    pub async fn start(&mut self, access: Access) {
        let servers = Etcd.servers(Site::with_access(&self.deployment, &self.secrets, access));
        for (server, member) in servers.iter().zip(&self.deployment.members) {
            let child = self.spawn(server);
            self.running.push(child);
            Etcd.listening(member).await;
        }
        self.ready(access).await;
    }

    pub async fn ready(&self, access: Access) {
        let site = Site::with_access(&self.deployment, &self.secrets, access);
        answered(|| Etcd.ready(site)).await.expect("ready");
    }

    fn spawn(&self, server: &Server) -> Child {
        let home = self.home(&server.member);
        for file in &server.files {
            fs::write(home.join(file.name), file.contents.expose()).expect("a file");
        }
        let mut args = self.placed(&server.args, &home);
        if let Some(bytes) = self.quota_bytes {
            args.push(format!("--quota-backend-bytes={bytes}"));
        }
        let log = File::create(home.join("log")).expect("a log");
        Command::new(binary(&server.program))
            .args(args)
            .env_clear()
            .envs(server.env.iter().map(|(name, value)| (name, value)))
            .stdin(Stdio::null())
            .stdout(log.try_clone().expect("a log"))
            .stderr(log)
            .spawn()
            .expect("a member")
    }

    /// Starts the members anew as another version, one after the other.
    pub async fn become_version(&mut self, version: Version) {
        for index in 0..self.deployment.members.len() {
            self.deployment.members[index].shape = Some(Shape { version, units: 1 });
            self.restart(index).await;
        }
        self.deployment = self
            .deployment
            .clone()
            .reshaped(Shape { version, units: 1 });
    }

    /// Has every member write its whole state down.
    pub async fn checkpoint(&mut self) {
        for index in 0..self.deployment.members.len() {
            self.deployment.members[index].checkpointing = true;
            self.restart(index).await;
        }
        let before = self.newest_files(PROFILE.checkpoints);
        Etcd.pass(self.site(), Passage::FillLogs)
            .await
            .expect("filled");
        let newer = |lab: &Self| {
            let now = lab.newest_files(PROFILE.checkpoints);
            now.iter().zip(&before).all(|(now, before)| now > before)
        };
        while !newer(self) {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        for member in &mut self.deployment.members {
            member.checkpointing = false;
        }
    }

    /// Replaces a member that lost all it had, as the broker does.
    pub async fn replace(&mut self, index: usize) {
        self.lose(index);
        let (of, secrets) = (self.deployment.clone(), self.secrets.clone());
        let site = Site::new(&of, &secrets);
        // Each is done twice: what was not answered may be done.
        for _ in 0..2 {
            answered(|| Etcd.change_member(site, index, MemberChange::Leave))
                .await
                .expect("removed");
        }
        let data = self.home(&of.members[index].name).join("data");
        fs::remove_dir_all(data).unwrap_or_default();
        for _ in 0..2 {
            answered(|| Etcd.change_member(site, index, MemberChange::Enter))
                .await
                .expect("added");
        }
        self.deployment.members[index].membership = Membership::Joining;
        self.begin(index);
        let vote = MemberChange::Vote {
            patience: HEALTHY_AFTER,
        };
        Etcd.change_member(Site::new(&self.deployment, &secrets), index, vote)
            .await
            .expect("joined");
        self.ready(self.deployment.access()).await;
        self.deployment.members[index].membership = Membership::Joined;
    }

    /// Starts one member that does not run.
    pub fn begin(&mut self, index: usize) {
        let access = self.deployment.access();
        let servers = Etcd.servers(Site::with_access(&self.deployment, &self.secrets, access));
        let child = self.spawn(&servers[index]);
        self.running.insert(index, child);
    }

    /// Waits until a member has ended by itself; returns what it printed. One that goes on is ended the hard way: none.
    pub async fn last_words(&mut self, index: usize) -> Option<String> {
        let mut child = self.running.remove(index);
        let log = self.home(&self.deployment.members[index].name).join("log");
        let words = || String::from_utf8_lossy(&fs::read(&log).expect("a log")).into_owned();
        let begun = tokio::time::Instant::now();
        while child.try_wait().expect("a look").is_none() {
            if begun.elapsed() > HEALTHY_AFTER {
                child.kill().expect("killed");
                child.wait().expect("ended");
                println!("the member goes on: {}", words());
                return None;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        Some(words())
    }

    /// Waits until the members agree on a line.
    pub async fn agree_on(&self, version: Version) {
        let agreed = || Etcd.agreed_version(self.site());
        while !agreed().await.expect("a version").same_line(&version) {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }

    async fn restart(&mut self, index: usize) {
        let mut child = self.running.remove(index);
        child.kill().expect("killed");
        child.wait().expect("ended");
        let servers = Etcd.servers(Site::with_access(
            &self.deployment,
            &self.secrets,
            self.deployment.access(),
        ));
        let child = self.spawn(&servers[index]);
        self.running.insert(index, child);
        self.ready(self.deployment.access()).await;
    }

    /// The name of each member's last file of a kind.
    pub fn newest_files(&self, files: FilesOfMember) -> Vec<Option<String>> {
        let newest = |member: &Member| {
            let folder = self.home(&member.name).join(files.folder);
            let names = fs::read_dir(folder).into_iter().flatten();
            names
                .filter_map(|file| file.ok()?.file_name().into_string().ok())
                .filter(|name| (files.has)(name))
                .max()
        };
        self.deployment.members.iter().map(newest).collect()
    }

    /// Lets a member hang.
    pub fn pause(&self, index: usize) {
        self.signal(index, rustix::process::Signal::STOP);
    }

    /// Lets a member that hangs go on.
    pub fn go_on(&self, index: usize) {
        self.signal(index, rustix::process::Signal::CONT);
    }

    fn signal(&self, index: usize, signal: rustix::process::Signal) {
        let pid = rustix::process::Pid::from_child(&self.running[index]);
        rustix::process::kill_process(pid, signal).expect("a signal");
    }

    /// Ends one member the hard way.
    pub fn lose(&mut self, index: usize) {
        let mut child = self.running.remove(index);
        child.kill().expect("killed");
        child.wait().expect("ended");
    }

    /// Ends the members the hard way, as a crash would.
    pub fn stop(&mut self) {
        for child in &mut self.running {
            child.kill().expect("killed");
        }
        for mut child in self.running.drain(..) {
            child.wait().expect("ended");
        }
    }

    pub fn home(&self, member: &str) -> PathBuf {
        let home = self.folder.path().join(member);
        fs::create_dir_all(&home).expect("a home");
        home
    }

    fn placed(&self, args: &[String], home: &Path) -> Vec<String> {
        let (home, stage) = (home.to_str(), self.folder.path().to_str());
        args.iter()
            .map(|arg| {
                arg.replace(HOME, home.expect("text"))
                    .replace(FILES, home.expect("text"))
                    .replace(STAGE, stage.expect("text"))
            })
            .collect()
    }

    /// Puts a file where tasks find it.
    pub fn put_on_stage(&self, name: &str, content: &[u8]) {
        fs::write(self.folder.path().join(name), content).expect("staged");
    }

    /// The deployment, entered as was decided.
    pub fn site(&self) -> Site<'_> {
        Site::new(&self.deployment, &self.secrets)
    }

    pub async fn describe(&self, content: &[u8], known: Option<&SnapshotContent>) -> Description {
        self.put_on_stage("described", content);
        Etcd.describe(self.site(), "described", known, self)
            .await
            .expect("described")
    }

    pub async fn restore(&self, content: &[u8]) {
        self.put_on_stage("restored", content);
        for place in 0..self.deployment.members.len() {
            Etcd.seed(&self.deployment, place, Seed::Snapshot("restored"), self)
                .await
                .expect("restored");
        }
    }

    pub async fn secure_new(&self) -> Result<(), EngineError> {
        let site = Site::with_access(&self.deployment, &self.secrets, Access::Passwords);
        answered(|| Etcd.secure(site, Holding::Nothing)).await
    }

    pub async fn secure_restored(&self) -> Result<(), EngineError> {
        let site = Site::with_access(&self.deployment, &self.secrets, Access::Certificates);
        answered(|| Etcd.secure(site, Holding::Backup)).await
    }

    pub async fn snapshot(&self) -> Snapshot {
        answered(|| Etcd.snapshot(self.site()))
            .await
            .expect("a snapshot")
    }

    /// A client of the first member that nobody logged in.
    pub async fn anonymous(&self) -> Client {
        self.client(None).await.expect("a client")
    }

    pub async fn root(&self) -> Client {
        let password = self.secrets.root_password.expose();
        self.login("root", password).await.expect("logged in")
    }

    pub async fn login(&self, name: &str, password: &str) -> Result<Client, etcd_client::Error> {
        self.client(Some((name, password))).await
    }

    pub async fn login_at(
        &self,
        index: usize,
        name: &str,
        password: &str,
    ) -> Result<Client, etcd_client::Error> {
        let asked = &self.deployment.members[index];
        self.client_at(asked, Some((name, password))).await
    }

    async fn client(&self, user: Option<(&str, &str)>) -> Result<Client, etcd_client::Error> {
        self.client_at(&self.deployment.members[0], user).await
    }

    async fn client_at(
        &self,
        member: &Member,
        user: Option<(&str, &str)>,
    ) -> Result<Client, etcd_client::Error> {
        let authority = Certificate::from_pem(&self.secrets.ca_certificate);
        let mut options =
            ConnectOptions::new().with_tls(TlsOptions::new().ca_certificate(authority));
        if let Some((name, password)) = user {
            options = options.with_user(name, password);
        }
        Client::connect([client_url(member)], Some(options)).await
    }
}

/// Its folder is the stage, and has the members' homes in it.
#[async_trait]
impl Workbench for Lab {
    async fn run(
        &self,
        _: &DeploymentId,
        member: &str,
        task: &Task,
    ) -> Result<String, ProvisionerError> {
        let home = self.home(member);
        let output = Command::new(binary(&task.program))
            .args(self.placed(&task.args, &home))
            .env_clear()
            .envs(task.env.iter().map(|(name, value)| (name, value)))
            .output()
            .expect("run");
        if output.status.success() {
            return Ok(String::from_utf8(output.stdout).expect("text"));
        }
        Err(ProvisionerError::TaskFailed {
            binary: task.program.binary,
            status: output.status.to_string(),
            output: String::from_utf8_lossy(&output.stderr).into_owned(),
        })
    }

    async fn stage(
        &self,
        _: &DeploymentId,
        name: &str,
        _: u64,
        content: ByteStream,
    ) -> Result<(), ProvisionerError> {
        let chunks: Vec<_> = content.try_collect().await.expect("a whole stream");
        self.put_on_stage(name, &chunks.concat());
        Ok(())
    }

    async fn stage_file(
        &self,
        _: &DeploymentId,
        member: &str,
        path: &str,
        name: &str,
    ) -> Result<(), ProvisionerError> {
        let copied = fs::copy(self.home(member).join(path), self.folder.path().join(name));
        copied.map_err(ProvisionerError::while_doing("copying"))?;
        Ok(())
    }

    async fn unstage(&self, _: &DeploymentId, name: &str) -> Result<(), ProvisionerError> {
        fs::remove_file(self.folder.path().join(name)).expect("unstaged");
        Ok(())
    }
}

/// Longer than a small member takes to catch up, or to end.
const HEALTHY_AFTER: Duration = Duration::from_secs(60);

impl Drop for Lab {
    fn drop(&mut self) {
        self.stop();
    }
}

fn binary(program: &Program) -> PathBuf {
    let engines = std::env::var_os("COMPOSE_BROKER_ENGINES_DIR").map_or_else(
        || Path::new(env!("CARGO_MANIFEST_DIR")).join("engines"),
        PathBuf::from,
    );
    engines
        .join(program.engine)
        .join(program.version.to_string())
        .join(program.binary)
}

pub async fn read_all(snapshot: Snapshot) -> Vec<u8> {
    let chunks: Vec<_> = snapshot
        .content
        .try_collect()
        .await
        .expect("a whole stream");
    chunks.concat()
}
