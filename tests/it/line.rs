//! Stands between a broker and its PostgreSQL: cuts it off, loses what the server answers, answers something else, or
//! lets nothing through while all connections stay, as a server that hangs.

use std::{
    io::{Read as _, Write as _},
    net::Shutdown,
    os::unix::net::{UnixListener, UnixStream},
    path::{Path, PathBuf},
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    thread,
    time::Duration,
};

/// What a server's socket is called in its folder.
const SOCKET: &str = ".s.PGSQL.5432";

/// A line between a broker and its server.
pub struct Line {
    folder: tempfile::TempDir,
    state: Arc<State>,
}

#[derive(Default)]
struct State {
    is_cut: AtomicBool,
    hangs: AtomicBool,
    /// Whether nobody has the other end any more.
    is_over: AtomicBool,
    /// Whether the next commit comes to the server, and its answer to nobody.
    loses_commit: AtomicBool,
    /// Whether that commit is the last that gets through.
    cuts_then: AtomicBool,
    /// What is answered instead of what: as many bytes.
    lie: Mutex<Option<(String, String)>>,
    /// How often the server has said that it is ready for what comes next.
    answers: AtomicU64,
    /// As many as there were with the last commit.
    answers_at_commit: AtomicU64,
    /// Both ends of each connection that there was.
    ends: Mutex<Vec<UnixStream>>,
}

impl Line {
    /// A line to the server that `url` leads to, and the address at its other end.
    pub fn to_server_of(url: &str) -> (Self, String) {
        let (rest, server) = url.split_once("&host=").expect("the server's folder");
        let server = Path::new(server).join(SOCKET);
        let folder = tempfile::tempdir().expect("a folder");
        let listener = UnixListener::bind(folder.path().join(SOCKET)).expect("a socket");
        let url = format!("{rest}&host={}", folder.path().display());
        let state = Arc::<State>::default();
        let of_line = state.clone();
        thread::spawn(move || accept_all(&listener, &server, &of_line));
        (Self { folder, state }, url)
    }

    /// Breaks all connections, and lets none be made until it is mended.
    pub fn cut(&self) {
        self.state.is_cut.store(true, Ordering::SeqCst);
        let mut ends = self.state.ends.lock().expect("not poisoned");
        for end in ends.drain(..) {
            let _ = end.shutdown(Shutdown::Both);
        }
    }

    /// Lets connections be made again.
    pub fn mend(&self) {
        self.state.is_cut.store(false, Ordering::SeqCst);
    }

    /// Lets nothing through from now on, in either direction. Connections stay, and are made.
    pub fn hang(&self) {
        self.state.hangs.store(true, Ordering::SeqCst);
    }

    /// Lets through what was held, and all that comes.
    pub fn go_on(&self) {
        self.state.hangs.store(false, Ordering::SeqCst);
    }

    /// Has the server say one text instead of another one that is as long.
    pub fn say(&self, instead: &str, of: &str) {
        assert_eq!(instead.len(), of.len());
        let lie = Some((of.to_owned(), instead.to_owned()));
        *self.state.lie.lock().expect("not poisoned") = lie;
    }

    /// Gives the server the next commit, and the one who made it no answer. `cuts_then`: no connection is made
    /// from then on until it is mended.
    pub fn lose_next_commit(&self, cuts_then: bool) {
        self.state.cuts_then.store(cuts_then, Ordering::SeqCst);
        self.state.loses_commit.store(true, Ordering::SeqCst);
    }

    /// How often somebody has waited for the server, over all connections.
    pub fn round_trips(&self) -> u64 {
        self.state.answers.load(Ordering::SeqCst)
    }

    /// The same up to the last commit: what a commit has others do does not count.
    pub fn round_trips_to_commit(&self) -> u64 {
        self.state.answers_at_commit.load(Ordering::SeqCst)
    }

    /// Whether that commit has come.
    pub fn has_lost_commit(&self) -> bool {
        !self.state.loses_commit.load(Ordering::SeqCst)
    }
}

impl Drop for Line {
    fn drop(&mut self) {
        self.cut();
        self.state.is_over.store(true, Ordering::SeqCst);
        // Wakes the thread that accepts, which ends.
        let _ = UnixStream::connect(self.folder.path().join(SOCKET));
    }
}

fn accept_all(listener: &UnixListener, server: &PathBuf, state: &Arc<State>) {
    for client in listener.incoming().map_while(Result::ok) {
        if state.is_over.load(Ordering::SeqCst) {
            break;
        }
        if state.is_cut.load(Ordering::SeqCst) {
            continue;
        }
        let Ok(server) = UnixStream::connect(server) else {
            continue;
        };
        let ends = [&client, &server].map(|end| end.try_clone().expect("one more"));
        state.ends.lock().expect("not poisoned").extend(ends);
        let ends = [&client, &server].map(|end| end.try_clone().expect("one more"));
        let [from_client, from_server] = ends;
        let is_lost = Arc::<AtomicBool>::default();
        let (loses, of_server) = (is_lost.clone(), state.clone());
        let state = state.clone();
        thread::spawn(move || {
            pass(from_client, server, &state, |bytes| {
                if bytes.windows(7).any(|part| part == b"COMMIT\0")
                    && state.loses_commit.swap(false, Ordering::SeqCst)
                {
                    loses.store(true, Ordering::SeqCst);
                    let cuts = state.cuts_then.load(Ordering::SeqCst);
                    state.is_cut.store(cuts, Ordering::SeqCst);
                }
                true
            });
        });
        // What the server says after the commit has begun is its answer to that.
        thread::spawn(move || {
            pass(from_server, client, &of_server, |bytes| {
                of_server.replace(bytes);
                of_server.count(bytes);
                !is_lost.load(Ordering::SeqCst)
            });
        });
    }
}

impl State {
    fn replace(&self, bytes: &mut [u8]) {
        let lie = self.lie.lock().expect("not poisoned").clone();
        let Some((of, instead)) = lie else { return };
        let mut windows = bytes.windows(of.len());
        if let Some(at) = windows.position(|part| part == of.as_bytes()) {
            bytes[at..at + of.len()].copy_from_slice(instead.as_bytes());
        }
    }

    /// `ReadyForQuery` of its protocol, which ends each of its answers: a letter, five bytes with this length, and
    /// how the transaction stands.
    fn count(&self, bytes: &[u8]) {
        let is_end = |part: &&[u8]| part[..5] == *b"Z\0\0\0\x05" && b"ITE".contains(&part[5]);
        let ends = bytes.windows(6).filter(is_end).count() as u64;
        let answers = self.answers.fetch_add(ends, Ordering::SeqCst) + ends;
        if bytes.windows(8).any(|part| part == b"COMMIT\0Z") {
            self.answers_at_commit.fetch_max(answers, Ordering::SeqCst);
        }
    }

    fn wait_while_it_hangs(&self) {
        while self.hangs.load(Ordering::SeqCst) && !self.is_over.load(Ordering::SeqCst) {
            thread::sleep(Duration::from_millis(5));
        }
    }
}

fn pass(
    mut from: UnixStream,
    mut to: UnixStream,
    state: &State,
    goes_on: impl Fn(&mut [u8]) -> bool,
) {
    let mut bytes = [0; 16 * 1024];
    while let Ok(read @ 1..) = from.read(&mut bytes) {
        state.wait_while_it_hangs();
        if !goes_on(&mut bytes[..read]) || to.write_all(&bytes[..read]).is_err() {
            break;
        }
    }
    for end in [&from, &to] {
        let _ = end.shutdown(Shutdown::Both);
    }
}
