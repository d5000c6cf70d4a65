//! PostgreSQL servers of the tests' own: one for all tests of a run, and one for a test that has it end and
//! begin. Each is reached by a socket in its own folder, and ends, and its folder goes, when the tests have
//! ended, however they did.

use std::{
    cmp::Reverse,
    env, fs,
    io::Write as _,
    os::unix::{
        fs::{PermissionsExt as _, chown},
        process::CommandExt as _,
    },
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    sync::{Mutex, OnceLock},
    thread,
    time::{Duration, Instant},
};

use diesel::{Connection as _, PgConnection, connection::SimpleConnection as _};
use uuid::Uuid;

use crate::skipped::skipped;

mod pooler;

pub use pooler::Pooler;

/// PostgreSQL does not run as root: as `nobody` then.
const NOBODY: u32 = 65534;
/// A server that has not begun by then does not.
const PATIENCE: Duration = Duration::from_secs(60);

/// Makes a server in this folder, with the order of letters that people expect where it knows one,
/// and ends it when nobody holds the other end of the script's input any more. Until then it ends the server
/// with a signal that it is told, or starts it.
const SCRIPT: &str = r#"
make() { "$0/initdb" --pgdata=data --username=broker --auth=trust --no-sync --encoding=UTF8 "$@"; }
{ make --locale-provider=icu --icu-locale=en-US || make --locale=C; } >log 2>&1 || exit 1
start() {
    "$0/postgres" -D data -k "$PWD" -c max_connections=300 -c fsync=off -c full_page_writes=off "$@" >>log 2>&1 &
    server=$!
}
end() {
    kill "-$1" $server
    wait $server
}
start "$@"
while read -r word; do
    case $word in
        start) start "$@" ;;
        *) end "$word" ;;
    esac
    echo "$word" >>done
done
end QUIT
rm -rf "$PWD"
"#;
/// What is faster, and may lose what was said to be kept where a server ends at once.
const CARELESS: [&str; 2] = ["synchronous_commit=off", "listen_addresses="];
/// Keeps what was said to be kept, as long as the machine runs.
const CAREFUL: [&str; 1] = ["listen_addresses="];
/// Keeps little of what was written.
const SPARING: [&str; 2] = ["max_wal_size=48MB", "min_wal_size=32MB"];
/// The port of a server, which its socket is named after.
const PORT: u16 = 5432;

/// A server.
pub struct Server {
    folder: PathBuf,
    port: u16,
    /// With its input, which stays open as long as this process runs.
    script: Mutex<Child>,
}

/// Names what the brokers of tests keep their store in: `postgres`, `pooled` (the same behind a pooler), or else
/// SQLite.
pub const STORE: &str = "COMPOSE_BROKER_TEST_STORE";
/// Names the folder of the server's programs, for another version than the one that is installed.
const PROGRAMS: &str = "COMPOSE_BROKER_TEST_POSTGRES";

/// An empty database for a broker, where the tests are run with PostgreSQL as the broker's store.
///
/// # Panics
///
/// Where that is asked for, and there is no PostgreSQL.
pub fn for_broker() -> Option<String> {
    let new = match is_pooled() {
        true => new_pooled_database_of_own_time,
        false => new_database,
    };
    is_store().then(|| new().expect("PostgreSQL is installed, and a pooler where one is used"))
}

/// Whether the tests are run with PostgreSQL as the broker's store.
pub fn is_store() -> bool {
    match env::var(STORE).as_deref() {
        Ok("postgres" | "pooled") => true,
        Ok(other) => panic!("{STORE} is {other:?}; it may be postgres or pooled"),
        Err(_) => false,
    }
}

/// Whether there is a pooler in between then.
pub fn is_pooled() -> bool {
    env::var(STORE).is_ok_and(|store| store == "pooled")
}

/// An empty database; none where PostgreSQL is not installed, and a line that says so.
pub fn new_database() -> Option<String> {
    static SERVER: OnceLock<Option<Server>> = OnceLock::new();
    let server = SERVER.get_or_init(|| installed().map(|at| Server::start(&at, &CARELESS)));
    server.as_ref().map(Server::new_database)
}

/// The same behind a pooler. What a broker says in its sessions otherwise, the database says.
pub fn new_pooled_database() -> Option<String> {
    pooled_database(&[])
}

/// The same for brokers whose clocks do as they are told.
pub fn new_pooled_database_of_own_time() -> Option<String> {
    pooled_database(&["compose_broker.own_time = 'on'"])
}

fn pooled_database(more: &[&str]) -> Option<String> {
    static POOLER: OnceLock<Option<Pooler>> = OnceLock::new();
    let url = new_database()?;
    let limits = [
        "statement_timeout = '60s'",
        "lock_timeout = '10s'",
        "idle_in_transaction_session_timeout = '10s'",
    ];
    let mut inside = PgConnection::establish(&url).expect("a connection");
    for setting in limits.iter().chain(more) {
        let set = format!("ALTER DATABASE {} SET {setting}", name_of(&url));
        inside.batch_execute(&set).expect("a setting");
    }
    // Its connections know the settings that were there when they began.
    let pooler = POOLER.get_or_init(|| Pooler::to_server_of(&url, "transaction"));
    pooler.as_ref().map(|pooler| pooler.before(&url))
}

/// The name of the database that an address leads to.
pub fn name_of(url: &str) -> &str {
    let name = url.trim_start_matches("postgres:///");
    name.split('?').next().expect("a name")
}

/// Where the programs are; none where they are not, and a line that says so.
fn installed() -> Option<PathBuf> {
    let found = programs();
    if found.is_none() {
        skipped(
            "PostgreSQL",
            "it is not installed here (Debian: postgresql)",
        );
    }
    found
}

/// Where the programs are that were named, or else the newest server's; Debian has a folder for each version.
fn programs() -> Option<PathBuf> {
    if let Some(named) = env::var_os(PROGRAMS).map(PathBuf::from) {
        assert!(named.join("initdb").is_file(), "{PROGRAMS} has no initdb");
        return Some(named);
    }
    let versions = fs::read_dir("/usr/lib/postgresql").into_iter().flatten();
    let version = |folder: &PathBuf| folder.file_name()?.to_str()?.parse::<u32>().ok();
    let mut versions: Vec<PathBuf> = versions.flatten().map(|entry| entry.path()).collect();
    versions.sort_by_key(|folder| Reverse(version(folder)));
    let path = env::var_os("PATH").unwrap_or_default();
    let folders = versions.into_iter().map(|folder| folder.join("bin"));
    let mut folders = folders.chain(env::split_paths(&path));
    folders.find(|folder| {
        ["initdb", "postgres"]
            .iter()
            .all(|p| folder.join(p).is_file())
    })
}

fn new_folder() -> PathBuf {
    tempfile::tempdir().expect("a folder").keep()
}

/// Gives a file or folder to whom the server runs as.
fn give_away(path: &Path) {
    if rustix::process::geteuid().is_root() {
        chown(path, Some(NOBODY), Some(NOBODY)).expect("given away");
    }
}

/// Has a script run in its folder as the server does. An interrupt at the terminal is for the tests: the script
/// ends after them.
fn as_server<'c>(script: &'c mut Command, folder: &Path) -> &'c mut Command {
    if rustix::process::geteuid().is_root() {
        script.uid(NOBODY).gid(NOBODY);
    }
    script
        .current_dir(folder)
        .process_group(0)
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
}

impl Server {
    /// A server of one test's own in a folder that there is, on a small volume perhaps. It keeps what it said
    /// that it keeps when it is told to end. None where it is not installed.
    pub fn own_in(folder: PathBuf) -> Option<Self> {
        let options = [&CAREFUL[..], &SPARING[..]].concat();
        installed().map(|programs| Self::start_in(folder, &programs, &options, PORT))
    }

    /// A server that serves TLS with these files at a port of this machine.
    pub fn over_tls(certificate: &Path, key: &Path, port: u16) -> Option<Self> {
        let programs = installed()?;
        let folder = new_folder();
        let own = [("server.crt", certificate), ("server.key", key)].map(|(name, from)| {
            let to = folder.join(name);
            fs::copy(from, &to).expect("a file");
            let private = fs::Permissions::from_mode(0o600);
            fs::set_permissions(&to, private).expect("private");
            give_away(&to);
            to.display().to_string()
        });
        let [certificate, key] = own;
        let options = [
            "listen_addresses=127.0.0.1".to_owned(),
            format!("port={port}"),
            "ssl=on".to_owned(),
            format!("ssl_cert_file={certificate}"),
            format!("ssl_key_file={key}"),
        ];
        let options = options.each_ref().map(String::as_str);
        Some(Self::start_in(folder, &programs, &options, port))
    }

    /// Ends the server: `INT` in order, `QUIT` at once.
    pub fn end(&self, signal: &str) {
        self.tell(signal);
    }

    /// Starts the server again; it may take a moment until it serves.
    pub fn start_again(&self) {
        self.tell("start");
    }

    /// Has the script do something, and waits until it has.
    fn tell(&self, word: &str) {
        let count =
            || fs::read_to_string(self.folder.join("done")).map_or(0, |d| d.lines().count());
        let before = count();
        let mut script = self.script.lock().expect("not poisoned");
        let input = script.stdin.as_mut().expect("an input");
        writeln!(input, "{word}").expect("the script listens");
        let deadline = Instant::now() + PATIENCE;
        while count() == before {
            assert!(Instant::now() < deadline, "PostgreSQL does not {word}");
            thread::sleep(Duration::from_millis(5));
        }
    }

    fn start(programs: &Path, options: &[&str]) -> Self {
        Self::start_in(new_folder(), programs, options, PORT)
    }

    fn start_in(folder: PathBuf, programs: &Path, options: &[&str], port: u16) -> Self {
        let mut script = Command::new("sh");
        script
            .args(["-c", SCRIPT])
            .arg(programs)
            .args(options.iter().flat_map(|option| ["-c", option]));
        give_away(&folder);
        let script = as_server(&mut script, &folder).spawn();
        let server = Self {
            folder,
            port,
            script: Mutex::new(script.expect("a shell")),
        };
        let deadline = Instant::now() + PATIENCE;
        while let Err(error) = PgConnection::establish(&server.url("postgres")) {
            let mut script = server.script.lock().expect("not poisoned");
            let ended = script.try_wait().expect("a look");
            if ended.is_some() || Instant::now() > deadline {
                let log = fs::read_to_string(server.folder.join("log")).unwrap_or_default();
                panic!("PostgreSQL does not start: {error}\n{log}");
            }
            thread::sleep(Duration::from_millis(20));
        }
        server
    }

    fn url(&self, database: &str) -> String {
        format!(
            "postgres:///{database}?user=broker{}&host={}",
            match self.port {
                PORT => String::new(),
                other => format!("&port={other}"),
            },
            self.folder.display()
        )
    }

    /// The address of a new database, which is empty.
    pub fn new_database(&self) -> String {
        // One at a time: each is a copy of the same one, which nobody else may use meanwhile.
        let _alone = self.script.lock().expect("not poisoned");
        let name = format!("t{}", Uuid::new_v4().simple());
        let mut admin = PgConnection::establish(&self.url("postgres")).expect("a connection");
        let made = admin.batch_execute(&format!("CREATE DATABASE {name}"));
        made.expect("a database");
        self.url(&name)
    }
}
