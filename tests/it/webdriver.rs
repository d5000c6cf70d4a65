//! The WebDriver protocol as far as our tests speak it: JSON over HTTP to a chromedriver on
//! loopback, Chromium's own protocol (CDP) through the same door.
//!
//! It is a handful of calls over the HTTP client that the tests have anyway. A crate for it brings
//! ten more, and what our tests lean on most, CDP and the browser's logs, would be written by hand
//! all the same.
//!
//! A driver and everything that it started end with the value, also when a test panics.

use std::{
    env, fs,
    io::{BufRead as _, BufReader},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    time::Duration,
};

use reqwest::Method;
use serde_json::{Value, json};

use crate::broker;

/// The member under which WebDriver names an element.
const ELEMENT: &str = "element-6066-11e4-a52e-4f735466cecf";
/// No call takes as long; a browser that hangs is a failure, not a test without end.
const CALL_MAX: Duration = Duration::from_secs(60);
/// What is left of a browser is looked for at this interval, so many times at the most.
const LOOK: Duration = Duration::from_millis(20);
const LOOKS_MAX: u32 = 250;

/// A chromedriver with one session: one Chromium with one page.
pub struct Driver {
    http: reqwest::Client,
    session: String,
    process: Child,
    /// Everything that the browser keeps: its profile, its settings, its downloads.
    folder: PathBuf,
}

/// What a driver answers instead of a value: WebDriver's code, such as `stale element reference`,
/// and a text.
#[derive(Debug)]
pub struct Refusal {
    pub code: String,
    pub message: String,
}

/// An element of the page as it is now: it goes stale when the page takes it away.
#[derive(Clone, Debug, PartialEq)]
pub struct ElementId(String);

impl Driver {
    /// Starts a driver on a port that is free, and a Chromium with an empty profile that looks up
    /// no name and speaks to nobody but loopback.
    pub async fn start() -> Self {
        let folder = broker::new_folder();
        let (process, port) = spawn(&folder);
        let mut driver = Self {
            http: reqwest::Client::builder()
                .no_proxy()
                .timeout(CALL_MAX)
                .build()
                .expect("a client"),
            session: format!("http://127.0.0.1:{port}/session"),
            process,
            folder,
        };
        let wanted = json!({ "capabilities": { "alwaysMatch": capabilities() } });
        let session = driver.expect(Method::POST, "", wanted).await;
        driver.session += "/";
        driver.session += broker::text(&session["sessionId"]);
        driver
    }

    /// The browser's own folder.
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// One call of the session: `path` is what stands below it.
    pub async fn call(&self, method: Method, path: &str, body: Value) -> Result<Value, Refusal> {
        let url = format!("{}{path}", self.session);
        let request = self.http.request(method.clone(), url);
        // A body where none belongs is refused.
        let request = if method == Method::POST {
            request.json(&body)
        } else {
            request
        };
        let response = request.send().await;
        let response = response.unwrap_or_else(|e| panic!("chromedriver, {path}: {e}"));
        let is_success = response.status().is_success();
        let mut answer: Value = response.json().await.expect("JSON of chromedriver");
        let value = answer["value"].take();
        if is_success {
            return Ok(value);
        }
        let of = |member: &str| value[member].as_str().unwrap_or_default().to_owned();
        Err(Refusal {
            code: of("error"),
            message: of("message"),
        })
    }

    /// A call that must not be refused.
    pub async fn expect(&self, method: Method, path: &str, body: Value) -> Value {
        let answer = self.call(method, path, body).await;
        answer.unwrap_or_else(|e| panic!("chromedriver, {path}: {}: {}", e.code, e.message))
    }

    /// A command of Chromium's own protocol, with its result.
    pub async fn cdp(&self, command: &str, parameters: Value) -> Value {
        let body = json!({ "cmd": command, "params": parameters });
        // What follows the hash is not sent: a failure names the command by it.
        let path = format!("/goog/cdp/execute#{command}");
        self.expect(Method::POST, &path, body).await
    }

    /// What an expression in the page comes to, promises awaited. Unlike scripts of the page's own
    /// this one asks no Content-Security-Policy.
    pub async fn eval(&self, expression: &str) -> Value {
        let parameters = json!({
            "expression": expression, "awaitPromise": true, "returnByValue": true,
            "userGesture": true,
        });
        let mut answer = self.cdp("Runtime.evaluate", parameters).await;
        let thrown = &answer["exceptionDetails"];
        assert!(thrown.is_null(), "{expression:.200}: {thrown}");
        answer["result"]["value"].take()
    }

    /// The elements that the body of a function returns as a list; `arguments` are its own.
    pub async fn elements(&self, body: &str, arguments: Value) -> Vec<ElementId> {
        let call = json!({ "script": body, "args": arguments });
        let found = self.expect(Method::POST, "/execute/sync", call).await;
        let found = found.as_array().expect("a list of elements");
        found.iter().map(ElementId::of).collect()
    }
}

impl ElementId {
    fn of(value: &Value) -> Self {
        Self(broker::text(&value[ELEMENT]).to_owned())
    }

    /// Where the element's own calls stand.
    pub fn path(&self, below: &str) -> String {
        format!("/element/{}/{below}", self.0)
    }

    /// The element as an argument of a script.
    pub fn argument(&self) -> Value {
        json!({ ELEMENT: self.0 })
    }
}

/// A driver's process and the port that it has chosen.
fn spawn(folder: &Path) -> (Child, u16) {
    let process = Command::new("chromedriver")
        .args(["--port=0", "--log-level=WARNING"])
        // Chromium looks for settings at home, and writes some there.
        .envs(["HOME", "XDG_CONFIG_HOME", "XDG_CACHE_HOME", "TMPDIR"].map(|name| (name, folder)))
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn();
    let mut process = process.unwrap_or_else(|e| {
        panic!("no chromedriver ({e}): scripts/setup.sh --browser installs what is missing")
    });
    let printed = BufReader::new(process.stdout.take().expect("its output"));
    let port = printed.lines().map_while(Result::ok).find_map(|line| {
        let (_, port) = line.split_once("started successfully on port ")?;
        port.trim_end_matches('.').parse().ok()
    });
    (process, port.expect("chromedriver's port"))
}

/// The part of Chromium that shows pages, without the windows and services of a desktop's browser around
/// it: it takes a third less of the processors. Its profile is a folder of the driver's.
fn browser() -> PathBuf {
    let path = env::var_os("PATH").unwrap_or_default();
    let mut places = env::split_paths(&path).map(|folder| folder.join("chromium-headless-shell"));
    places.find(|place| place.exists()).unwrap_or_else(|| {
        panic!("no chromium-headless-shell: scripts/setup.sh --browser installs what is missing")
    })
}

fn capabilities() -> Value {
    json!({
        "browserName": "chrome",
        // A dialog that opens by itself is a script of somebody's that ran: the next call says so.
        "unhandledPromptBehavior": "ignore",
        "goog:loggingPrefs": { "browser": "ALL", "performance": "ALL" },
        "goog:chromeOptions": {
            "binary": browser(),
            "perfLoggingPrefs": { "enableNetwork": true, "enablePage": false },
            "args": [
                "--no-sandbox", // which root cannot have
                "--disable-gpu",
                "--disable-dev-shm-usage", // small in containers
                "--disable-quic",
                "--no-first-run",
                "--disable-background-networking",
                "--disable-component-update",
                "--disable-sync",
                "--no-proxy-server",
                "--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1",
                // Instead of a port: when the driver goes, so does the browser.
                "--remote-debugging-pipe",
                "--lang=en-US",
            ],
        },
    })
}

impl Drop for Driver {
    fn drop(&mut self) {
        // Children are known by their parents only as long as those live.
        let process = i32::try_from(self.process.id()).expect("a pid");
        let family = family_of(process);
        family.into_iter().for_each(broker::kill);
        let _ = self.process.wait();
        for _ in 0..LOOKS_MAX {
            let left = broker::processes_below(&self.folder);
            if left.is_empty() {
                break;
            }
            left.into_iter().for_each(broker::kill);
            std::thread::sleep(LOOK);
        }
        let _ = fs::remove_dir_all(&self.folder);
    }
}

/// A process with all that it has started, by pid, parents first.
fn family_of(process: i32) -> Vec<i32> {
    let all = procfs::process::all_processes().into_iter().flatten();
    let parents: Vec<(i32, i32)> = all
        .filter_map(|p| Some((p.as_ref().ok()?.pid, p.as_ref().ok()?.stat().ok()?.ppid)))
        .collect();
    let mut family = vec![process];
    let mut next = 0;
    while let Some(&parent) = family.get(next) {
        let children = parents.iter().filter(|(_, of)| *of == parent);
        family.extend(children.map(|(pid, _)| pid));
        next += 1;
    }
    family
}
