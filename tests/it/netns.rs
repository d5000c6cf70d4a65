//! Two machines out of network namespaces: one for a broker and its members, one for an application,
//! with a cable (veth) in between. Neither sees anything of the machine that the tests run on.

use std::{
    fmt::Write as _,
    fs, io,
    path::{Path, PathBuf},
    process::{Child, Command, Output, Stdio},
    time::Duration,
};

use rustix::process::{Resource, Rlimit};
use tokio::time::sleep;

use crate::{
    broker::{eventually, new_folder},
    skipped::skipped,
};

/// The broker's machine, as the application reaches it.
pub const NAME: &str = "db.example.test";
pub const V4: &str = "192.0.2.1";
pub const V6: &str = "2001:db8::1";
const OF_APPLICATION: [&str; 2] = ["192.0.2.2/24", "2001:db8::2/64"];

/// Names the process whose namespaces are the application's machine.
const APPLICATION: &str = "NETNS_OF_APPLICATION";
/// Names the part that a test plays in a process of its own.
const PART: &str = "NETNS_PART";

/// Both machines; they go with this.
pub struct Machines {
    brokers: Child,
    application: Child,
    /// Whether a user namespace stands in for root.
    is_mapped: bool,
    folder: PathBuf,
}

impl Machines {
    /// Both, with the cable; none where the kernel refuses, and a line that says so.
    pub async fn new() -> Option<Self> {
        let refused = |why: String| {
            let why = format!("this kernel gives this user none: {why}");
            skipped("network namespaces", &why);
        };
        let mut whys = String::new();
        for is_mapped in [false, true] {
            let mut unshare = Command::new("unshare");
            if is_mapped {
                unshare.args(["--user", "--map-root-user"]);
            }
            match hold(unshare.arg("--net")).await {
                Ok(brokers) => return Some(Self::beside(brokers, is_mapped).await),
                Err(why) => write!(whys, "{} ", why.trim()).expect("a text"),
            }
        }
        refused(whys);
        None
    }

    async fn beside(brokers: Child, is_mapped: bool) -> Self {
        let mut unshare = enter(&brokers, is_mapped, &["--user"]);
        unshare.args(["unshare", "--net", "--mount"]);
        let application = hold(&mut unshare).await.expect("a second machine");
        let machines = Self {
            brokers,
            application,
            is_mapped,
            folder: new_folder(),
        };
        machines.connect();
        machines
    }

    fn connect(&self) {
        let peer = self.application.id().to_string();
        let link = [
            "link", "add", "here", "type", "veth", "peer", "name", "there", "netns",
        ];
        self.here(&[&["ip"], &link[..], &[&peer]].concat());
        for address in [format!("{V4}/24"), format!("{V6}/64")] {
            self.here(&add(&address, "here"));
        }
        for address in OF_APPLICATION {
            self.there(&add(address, "there"));
        }
        for (device, of) in [
            ("here", true),
            ("lo", true),
            ("there", false),
            ("lo", false),
        ] {
            let up = ["ip", "link", "set", device, "up"];
            if of {
                self.here(&up)
            } else {
                self.there(&up)
            };
        }
        // A name that nobody but the application knows.
        let hosts = self.folder.join("hosts");
        fs::write(&hosts, format!("{V4} {NAME}\n127.0.0.1 localhost\n")).expect("a file");
        let hosts = hosts.display().to_string();
        self.there(&["mount", "--bind", &hosts, "/etc/hosts"]);
    }

    fn here(&self, words: &[&str]) {
        let mut command = enter(&self.brokers, self.is_mapped, &["--user", "--net"]);
        succeed(command.args(words));
    }

    fn there(&self, words: &[&str]) {
        let mut command = enter(
            &self.application,
            self.is_mapped,
            &["--user", "--net", "--mount"],
        );
        succeed(command.args(words));
    }

    /// Plays a part of the test `test` on the broker's machine, in a process of its own; fails as it
    /// does.
    pub fn play(&self, test: &str, part: &str) {
        let mut command = enter(&self.brokers, self.is_mapped, &["--user", "--net"]);
        command
            .args(itself(test))
            .env(APPLICATION, self.application.id().to_string())
            .env(PART, part)
            .stdin(Stdio::null());
        let output = command.output().expect("a process");
        let told = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        println!("{}{}", told(&output.stdout), told(&output.stderr));
        assert!(output.status.success(), "{part}: {}", output.status);
        // A name that no test has runs none.
        assert!(
            told(&output.stdout).contains("1 passed"),
            "{part} was not played"
        );
    }
}

impl Drop for Machines {
    fn drop(&mut self) {
        for child in [&mut self.application, &mut self.brokers] {
            let _ = child.kill();
            let _ = child.wait();
        }
        let _ = fs::remove_dir_all(&self.folder);
    }
}

/// The part that this process plays; none in a run of all tests.
pub fn part() -> Option<String> {
    std::env::var(PART).ok()
}

/// A command on the application's machine, for the part that runs on the broker's.
pub fn there(program: impl AsRef<Path>) -> Command {
    let pid = std::env::var(APPLICATION).expect("a process");
    let mut command = Command::new("nsenter");
    command
        .args(["--target", &pid, "--net", "--mount", "--"])
        .arg(program.as_ref());
    command
}

/// A part of the test `test` on the application's machine, in a process of its own.
pub fn part_there(test: &str, part: &str) -> Command {
    let [program, rest @ ..] = &itself(test)[..] else {
        unreachable!("there is a program")
    };
    let mut command = there(program);
    command.args(rest).env(PART, part);
    command
}

/// Lets this process have as many files open as the system does.
pub fn raise_open_files() {
    let most = rustix::process::getrlimit(Resource::Nofile).maximum;
    let all = Rlimit {
        current: most,
        maximum: most,
    };
    rustix::process::setrlimit(Resource::Nofile, all).expect("a limit");
}

fn add<'a>(address: &'a str, device: &'a str) -> Vec<&'a str> {
    let mut words = vec!["ip", "address", "add", address, "dev", device];
    if address.contains(':') {
        // It is in use at once, and nobody else has it.
        words.push("nodad");
    }
    words
}

fn itself(test: &str) -> Vec<String> {
    let program = std::env::current_exe().expect("a program");
    let rest = ["--ignored", "--exact", "--nocapture", test];
    let mut words = vec![program.display().to_string()];
    words.extend(rest.map(str::to_owned));
    words
}

/// A command in namespaces of a process; that of users only where one stands in for root.
fn enter(of: &Child, is_mapped: bool, namespaces: &[&str]) -> Command {
    let mut command = Command::new("nsenter");
    command.arg("--target").arg(of.id().to_string());
    let mut entered = namespaces.iter().filter(|of| is_mapped || **of != "--user");
    match entered.next() {
        // Without any it would start a program of its own.
        None => {
            command = Command::new("env");
            return command;
        }
        Some(first) => command.arg(first).args(entered),
    };
    if is_mapped {
        command.arg("--preserve-credentials");
    }
    command.arg("--");
    command
}

fn succeed(command: &mut Command) {
    let Output { status, stderr, .. } = command.output().expect("a process");
    let said = String::from_utf8_lossy(&stderr);
    assert!(status.success(), "{command:?}: {said}");
}

/// A process that does nothing in the namespaces that `unshare` makes, once it is in them.
async fn hold(unshare: &mut Command) -> Result<Child, String> {
    let mut child = unshare
        .args(["sleep", "infinity"])
        .stdin(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .map_err(|e| e.to_string())?;
    let namespace = |pid: &str| fs::read_link(format!("/proc/{pid}/ns/net"));
    let own = namespace("self").map_err(|e| e.to_string())?;
    let pid = child.id().to_string();
    let is_sleep = || -> io::Result<bool> {
        let name = fs::read_to_string(format!("/proc/{pid}/comm"))?;
        Ok(name.trim() == "sleep" && namespace(&pid)? != own)
    };
    for _ in 0..500 {
        if child.try_wait().map_err(|e| e.to_string())?.is_some() {
            let output = child.wait_with_output().map_err(|e| e.to_string())?;
            return Err(String::from_utf8_lossy(&output.stderr).into_owned());
        }
        if is_sleep().unwrap_or(false) {
            return Ok(child);
        }
        sleep(Duration::from_millis(20)).await;
    }
    let _ = child.kill();
    let _ = child.wait();
    Err("it did not begin in time".to_owned())
}

/// Waits until a command on the application's machine succeeds, and returns what it printed.
pub async fn succeeds_there(what: &str, command: impl Fn() -> Command) -> String {
    eventually(what, || async {
        let output = command().output().expect("a process");
        let printed = String::from_utf8_lossy(&output.stdout).into_owned();
        output.status.success().then_some(printed)
    })
    .await
}
