//! A pooler before a server of the tests: pgbouncer. In its mode `transaction` it gives each transaction another
//! one of its few connections, and keeps nothing of a session apart. It ends, and its folder goes, with the
//! tests.

use std::{
    env, fs,
    path::{Path, PathBuf},
    process::{Child, Command},
    thread,
    time::{Duration, Instant},
};

use diesel::{Connection as _, PgConnection};

use super::{PATIENCE, as_server, give_away, new_folder};
use crate::skipped::skipped;

/// Runs the pooler until nobody holds the other end of the script's input any more.
const SCRIPT: &str = r#"
"$0" pgbouncer.ini >log 2>&1 &
read -r _
kill -INT $!
wait $!
rm -rf "$PWD"
"#;
/// Connections to the server for each database. Fewer than two brokers have, so that these have to share.
const CONNECTIONS: usize = 4;
/// Those for a database that nobody uses any more end after so many seconds.
const IDLE_SECONDS: u32 = 2;
/// Where Debian has the program, besides what the `PATH` has.
const PROGRAMS: [&str; 2] = ["/usr/sbin", "/usr/bin"];

/// A pooler.
pub struct Pooler {
    folder: PathBuf,
    /// With its input, which stays open as long as this is kept.
    _script: Child,
}

impl Pooler {
    /// One in that mode before the server that a database's address leads to; none where it is not installed, and a
    /// line that says so.
    pub fn to_server_of(url: &str, mode: &str) -> Option<Self> {
        let Some(program) = program() else {
            let why = "it is not installed here (Debian: pgbouncer)";
            skipped("a pooler of PostgreSQL", why);
            return None;
        };
        let (_, server) = parts(url);
        let folder = new_folder();
        let settings = folder.join("pgbouncer.ini");
        fs::write(&settings, configuration(&folder, server, mode)).expect("a file");
        give_away(&folder);
        let mut script = Command::new("sh");
        script.args(["-c", SCRIPT]).arg(program);
        let script = as_server(&mut script, &folder).spawn();
        let pooler = Self {
            folder,
            _script: script.expect("a shell"),
        };
        let deadline = Instant::now() + PATIENCE;
        while let Err(error) = PgConnection::establish(&pooler.before(url)) {
            let log = fs::read_to_string(pooler.folder.join("log")).unwrap_or_default();
            assert!(Instant::now() < deadline, "no pooler: {error}\n{log}");
            thread::sleep(Duration::from_millis(20));
        }
        Some(pooler)
    }

    /// The address of a database of that server, by way of the pooler.
    pub fn before(&self, url: &str) -> String {
        let (database, _) = parts(url);
        format!("{database}&host={}", self.folder.display())
    }
}

/// An address without the server's folder, and that folder.
fn parts(url: &str) -> (&str, &str) {
    url.split_once("&host=").expect("the server's folder")
}

/// Connections take turns even where one would be enough, so that nothing is in the same session by chance.
fn configuration(folder: &Path, server: &str, mode: &str) -> String {
    let folder = folder.display();
    format!(
        "[databases]\n\
         * = host={server} user=broker\n\
         [pgbouncer]\n\
         unix_socket_dir = {folder}\n\
         listen_port = 5432\n\
         auth_type = any\n\
         pool_mode = {mode}\n\
         default_pool_size = {CONNECTIONS}\n\
         min_pool_size = {CONNECTIONS}\n\
         server_round_robin = 1\n\
         autodb_idle_timeout = {IDLE_SECONDS}\n\
         max_client_conn = 1000\n"
    )
}

fn program() -> Option<PathBuf> {
    let path = env::var_os("PATH").unwrap_or_default();
    let folders = PROGRAMS.iter().map(PathBuf::from);
    let mut programs = folders
        .chain(env::split_paths(&path))
        .map(|folder| folder.join("pgbouncer"));
    programs.find(|program| program.is_file())
}
