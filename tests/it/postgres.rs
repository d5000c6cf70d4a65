//! A PostgreSQL server of the tests' own: one for all tests of a run, reached by a socket in its own
//! folder alone. It ends, and its folder goes, when the tests have ended, however they did.

use std::{
    cmp::Reverse,
    env, fs,
    os::unix::{fs::chown, process::CommandExt as _},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    sync::{Mutex, OnceLock},
    thread,
    time::{Duration, Instant},
};

use diesel::{Connection as _, PgConnection, connection::SimpleConnection as _};
use uuid::Uuid;

use crate::skipped::skipped;

/// PostgreSQL does not run as root: as `nobody` then.
const NOBODY: u32 = 65534;
/// A server that has not begun by then does not.
const PATIENCE: Duration = Duration::from_secs(60);

/// Makes a server in this folder, with the order of letters that people expect where it knows one,
/// and ends it when nobody holds the other end of the script's input any more.
const SCRIPT: &str = r#"
make() { "$0/initdb" --pgdata=data --username=broker --auth=trust --no-sync --encoding=UTF8 "$@"; }
{ make --locale-provider=icu --icu-locale=en-US || make --locale=C; } >log 2>&1 || exit 1
"$0/postgres" -D data -k "$PWD" -c listen_addresses= -c max_connections=300 -c fsync=off \
    -c synchronous_commit=off -c full_page_writes=off >>log 2>&1 &
read -r _
kill -QUIT $!
wait $!
rm -rf "$PWD"
"#;

struct Server {
    folder: PathBuf,
    /// With its input, which stays open as long as this process runs.
    script: Mutex<Child>,
}

/// Names what the brokers of tests keep their store in: `postgres`, or else SQLite.
pub const STORE: &str = "COMPOSE_BROKER_TEST_STORE";

/// An empty database for a broker, where the tests are run with PostgreSQL as the broker's store.
///
/// # Panics
///
/// Where that is asked for, and there is no PostgreSQL.
pub fn for_broker() -> Option<String> {
    is_store().then(|| new_database().expect("PostgreSQL is installed"))
}

/// Whether the tests are run with PostgreSQL as the broker's store.
pub fn is_store() -> bool {
    match env::var(STORE).as_deref() {
        Ok("postgres") => true,
        Ok(other) => panic!("{STORE} is {other:?}; it may be postgres"),
        Err(_) => false,
    }
}

/// An empty database; none where PostgreSQL is not installed, and a line that says so.
pub fn new_database() -> Option<String> {
    static SERVER: OnceLock<Option<Server>> = OnceLock::new();
    let server = SERVER.get_or_init(|| programs().map(|programs| Server::start(&programs)));
    if server.is_none() {
        skipped(
            "PostgreSQL",
            "it is not installed here (Debian: postgresql)",
        );
    }
    server.as_ref().map(Server::new_database)
}

/// Where the newest server's programs are; Debian has a folder for each version.
fn programs() -> Option<PathBuf> {
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

impl Server {
    fn start(programs: &Path) -> Self {
        let folder = tempfile::tempdir().expect("a folder").keep();
        let mut script = Command::new("sh");
        script
            .args(["-c", SCRIPT])
            .arg(programs)
            .current_dir(&folder);
        if rustix::process::geteuid().is_root() {
            chown(&folder, Some(NOBODY), Some(NOBODY)).expect("given away");
            script.uid(NOBODY).gid(NOBODY);
        }
        // An interrupt at the terminal is for the tests: the server ends after them.
        script.process_group(0).stdin(Stdio::piped());
        let script = script.stdout(Stdio::null()).stderr(Stdio::null()).spawn();
        let server = Self {
            folder,
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
            "postgres:///{database}?user=broker&host={}",
            self.folder.display()
        )
    }

    fn new_database(&self) -> String {
        // One at a time: each is a copy of the same one, which nobody else may use meanwhile.
        let _alone = self.script.lock().expect("not poisoned");
        let name = format!("t{}", Uuid::new_v4().simple());
        let mut admin = PgConnection::establish(&self.url("postgres")).expect("a connection");
        let made = admin.batch_execute(&format!("CREATE DATABASE {name}"));
        made.expect("a database");
        self.url(&name)
    }
}
