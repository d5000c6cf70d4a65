//! A service manager beside the broker: what it hears, and what stands in its unit.

use std::{
    fs, io,
    os::unix::net::UnixDatagram,
    process::{Child, Stdio},
    time::{Duration, Instant},
};

use rustix::process::{Pid, Signal, kill_process};
use serde_json::{Value, json};

use crate::{
    broker::{TestBroker, new_folder},
    control::set_clock,
    process::{Settings, command, settings},
};

const UNIT: &str = include_str!("../../deploy/compose-broker.service");
const CLUSTERS: &str = include_str!("../../examples/clusters.json");
const DOCKERFILE: &str = include_str!("../../deploy/Dockerfile");

/// How often the service manager wants to hear that the broker is well.
const WITHIN: Duration = Duration::from_secs(3);
/// Whatever it waits for comes by then, also on a busy machine.
const PATIENCE: Duration = Duration::from_secs(120);

/// A broker as a service manager starts it, and what that hears.
struct Served {
    ear: UnixDatagram,
    child: Child,
    settings: Settings,
}

impl Served {
    fn start() -> Self {
        let folder = new_folder();
        let settings = settings(&folder);
        let ear = UnixDatagram::bind(folder.join("ear")).expect("a socket");
        let mut broker = command(&["serve"], &settings);
        set_clock(&mut broker, &folder);
        let log = fs::File::create(folder.join("log")).expect("a file");
        let child = broker
            .env("NOTIFY_SOCKET", folder.join("ear"))
            .env("WATCHDOG_USEC", WITHIN.as_micros().to_string())
            .stdout(Stdio::null())
            .stderr(log)
            .spawn();
        Self {
            ear,
            child: child.expect("a process"),
            settings,
        }
    }

    /// What the service manager hears next; none when it hears nothing within `limit`.
    fn hears_within(&self, limit: Duration) -> Option<String> {
        self.ear.set_read_timeout(Some(limit)).expect("set");
        let mut heard = [0; 1024];
        loop {
            match self.ear.recv(&mut heard) {
                Ok(length) => return Some(String::from_utf8_lossy(&heard[..length]).into_owned()),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return None,
                // A child of another test has ended.
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => panic!("{error}"),
            }
        }
    }

    fn hears(&self) -> String {
        self.hears_within(PATIENCE).expect("a word of the broker")
    }

    fn signal(&self, signal: Signal) {
        kill_process(Pid::from_child(&self.child), signal).expect("a signal");
    }
}

impl Drop for Served {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_service_manager_hears_that_the_broker_serves_is_well_and_stops() {
    let mut served = Served::start();
    let ready = served.hears();
    let url = format!("http://{}", served.settings["LISTEN"]);
    assert_eq!(ready, format!("READY=1\nSTATUS=serves {url}\n"));
    // A client that hears that has an answer at the first try.
    let answered = reqwest::get(format!("{url}/readyz")).await;
    assert!(answered.expect("an answer").status().is_success());
    for _ in 0..2 {
        let begun = Instant::now();
        assert_eq!(served.hears(), "WATCHDOG=1\n");
        assert!(begun.elapsed() < PATIENCE);
    }
    // One that hangs is silent, for as long as it does.
    served.signal(Signal::STOP);
    while served.hears_within(Duration::from_millis(1)).is_some() {}
    assert_eq!(served.hears_within(WITHIN), None);
    served.signal(Signal::CONT);
    assert_eq!(served.hears(), "WATCHDOG=1\n");
    served.signal(Signal::TERM);
    let last = loop {
        let heard = served.hears();
        if heard != "WATCHDOG=1\n" {
            break heard;
        }
    };
    assert_eq!(last, "STOPPING=1\n");
    assert!(served.child.wait().expect("an end").success());
}

/// Members are nobody's business but the broker's: they neither say anything to its service manager nor
/// find it.
#[tokio::test(flavor = "multi_thread")]
async fn members_hear_nothing_of_the_service_manager() {
    let served = Served::start();
    assert!(served.hears().starts_with("READY=1"));
    let (url, settings) = (
        format!("http://{}", served.settings["LISTEN"]),
        &served.settings,
    );
    let folder = std::path::Path::new(&settings["DATA_DIR"]).parent();
    let broker = TestBroker::beside(
        folder.expect("a folder").to_owned(),
        url,
        settings["USERNAME"].clone(),
        settings["PASSWORD"].clone(),
    );
    broker.provision("i", json!({})).await;
    let mut members = 0;
    for process in procfs::process::all_processes().expect("processes") {
        let Ok(process) = process else { continue };
        let Ok(environment) = process.environ() else {
            continue;
        };
        let place = environment.get(std::ffi::OsStr::new("COMPOSE_BROKER_PLACE"));
        let data = settings["DATA_DIR"].as_str();
        if !place.is_some_and(|place| place.to_string_lossy().starts_with(data)) {
            continue;
        }
        members += 1;
        let names: Vec<_> = environment
            .keys()
            .map(|name| name.to_string_lossy())
            .collect();
        assert!(
            !names.iter().any(|name| name == "NOTIFY_SOCKET"),
            "{names:?}"
        );
    }
    assert_eq!(members, 3);
    broker.deprovision("i").await;
    while let Some(heard) = served.hears_within(Duration::from_millis(1)) {
        assert_eq!(heard, "WATCHDOG=1\n");
    }
}

/// The lines of the unit that set `name`.
fn of_unit(name: &str) -> Vec<&str> {
    let lines = UNIT.lines().filter_map(|line| line.split_once('='));
    let of = lines.filter(|(key, _)| *key == name);
    of.map(|(_, value)| value).collect()
}

/// What a change of the unit must not lose: databases depend on it.
#[test]
fn the_unit_leaves_databases_alone_and_lets_the_broker_find_them_again() {
    for (name, value) in [
        ("KillMode", "process"),
        ("OOMPolicy", "continue"),
        ("Type", "notify"),
        ("NotifyAccess", "main"),
        ("StartLimitIntervalSec", "0"),
        ("Restart", "on-failure"),
        ("NoNewPrivileges", "yes"),
        ("CapabilityBoundingSet", ""),
        ("ProtectSystem", "strict"),
    ] {
        assert_eq!(of_unit(name), [value], "{name}");
    }
    let within: u64 = of_unit("WatchdogSec")[0].parse().expect("seconds");
    // What is asked before it hears anything may take so long.
    let asked = compose_broker::model::limits::LISTENER_SILENCE_MAX
        + compose_broker::model::limits::STORE_SILENCE_MAX;
    assert!(Duration::from_secs(within) > 2 * asked);
    // What the example writes to, it may.
    let clusters: Vec<Value> = serde_json::from_str(CLUSTERS).expect("clusters");
    for folder in clusters.iter().filter_map(|of| of["data_dir"].as_str()) {
        let may = of_unit("ReadWritePaths").contains(&format!("-{folder}").as_str());
        assert!(may, "{folder}");
    }
    // With these a new broker sees nothing of members that an earlier one started.
    assert!(of_unit("PrivateUsers").is_empty() && of_unit("ProcSubset").is_empty());
    assert!(of_unit("DynamicUser").is_empty() && of_unit("PrivatePIDs").is_empty());
}

#[test]
fn images_are_pinned_and_the_container_says_how_it_is() {
    let images: Vec<&str> = DOCKERFILE
        .lines()
        .filter_map(|line| line.strip_prefix("ARG "))
        .filter_map(|line| line.split_once("_IMAGE="))
        .map(|(_, image)| image)
        .collect();
    assert_eq!(images.len(), 3);
    for image in images {
        let (_, tag) = image.split_once(':').expect("a tag");
        let numbers = tag
            .split(['-', '.'])
            .filter(|part| part.parse::<u32>().is_ok());
        assert!(numbers.count() >= 2, "{image} changes under its tag");
    }
    let from = DOCKERFILE
        .lines()
        .filter_map(|line| line.strip_prefix("FROM "));
    assert!(
        from.clone().all(|image| image.starts_with("${")),
        "{DOCKERFILE}"
    );
    assert!(DOCKERFILE.contains("\nHEALTHCHECK ") && DOCKERFILE.contains("/healthz"));
}
