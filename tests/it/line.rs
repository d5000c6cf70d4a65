//! Stands between a broker and its PostgreSQL: cuts it off, or loses what the server answers.

use std::{
    io::{Read as _, Write as _},
    net::Shutdown,
    os::unix::net::{UnixListener, UnixStream},
    path::{Path, PathBuf},
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, Ordering},
    },
    thread,
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
    /// Whether nobody has the other end any more.
    is_over: AtomicBool,
    /// Whether the next commit comes to the server, and its answer to nobody.
    loses_commit: AtomicBool,
    /// Whether that commit is the last that gets through.
    cuts_then: AtomicBool,
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

    /// Gives the server the next commit, and the one who made it no answer. `cuts_then`: no connection is made
    /// from then on until it is mended.
    pub fn lose_next_commit(&self, cuts_then: bool) {
        self.state.cuts_then.store(cuts_then, Ordering::SeqCst);
        self.state.loses_commit.store(true, Ordering::SeqCst);
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
        let (loses, state) = (is_lost.clone(), state.clone());
        thread::spawn(move || {
            pass(from_client, server, |bytes| {
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
        thread::spawn(move || pass(from_server, client, |_| !is_lost.load(Ordering::SeqCst)));
    }
}

fn pass(mut from: UnixStream, mut to: UnixStream, goes_on: impl Fn(&[u8]) -> bool) {
    let mut bytes = [0; 16 * 1024];
    while let Ok(read @ 1..) = from.read(&mut bytes) {
        if !goes_on(&bytes[..read]) || to.write_all(&bytes[..read]).is_err() {
            break;
        }
    }
    for end in [&from, &to] {
        let _ = end.shutdown(Shutdown::Both);
    }
}
