//! Logs that grow and are turned over while somebody reads them.

use std::{
    io::Write as _,
    sync::atomic::{AtomicBool, Ordering},
    thread,
};

use proptest::prelude::*;
use tempfile::TempDir;

use super::*;
use crate::{
    model::limits::LOG_LINE_BYTES_MAX,
    provisioner::{lines::CUT, local::folders::DeploymentFolder},
};

/// Logs of the tests are turned over from this on, in bytes.
const LARGE: u64 = 1000;

struct World {
    cluster: TempDir,
    folder: MemberFolder,
    /// The number of the next line.
    next: usize,
}

impl World {
    fn new() -> Self {
        let cluster = TempDir::new().unwrap();
        let id = "5ae85b45e5717f0001533192".parse().unwrap();
        let folder = DeploymentFolder::new(cluster.path(), &id).member("m0");
        fs::create_dir_all(folder.path()).unwrap();
        let world = Self {
            cluster,
            folder,
            next: 0,
        };
        world.append(b"");
        world
    }

    fn append(&self, bytes: &[u8]) {
        let mut options = File::options();
        let log = options.append(true).create(true).open(self.folder.log());
        log.unwrap().write_all(bytes).unwrap();
    }

    /// Writes a line that has its number in it.
    fn line(&mut self) {
        let line = format!("{} {}\n", self.next, "x".repeat(300));
        self.append(line.as_bytes());
        self.next += 1;
    }

    fn begin(&self, part: LogPart) -> Option<Reading> {
        self.begin_at_end(part, None)
    }

    fn begin_at_end(&self, part: LogPart, last: Option<u64>) -> Option<Reading> {
        let places = (self.cluster.path(), Path::new("/engines of this machine"));
        Reading::begin(self.folder.clone(), part, last, places).unwrap()
    }

    fn read(&self, part: LogPart) -> String {
        rest(&mut self.begin(part).unwrap())
    }

    fn now(&self) -> String {
        fs::read_to_string(self.folder.log()).unwrap()
    }
}

fn rest(reading: &mut Reading) -> String {
    try_rest(reading).unwrap()
}

/// The numbers of lines.
fn numbers(text: &str) -> Vec<usize> {
    let number = |line: &str| line.split_once(' ').unwrap().0.parse().unwrap();
    text.lines().map(number).collect()
}

#[test]
fn what_is_not_there_is_not_read() {
    let world = World::new();
    assert!(world.begin(LogPart::Older).is_none());
    assert_eq!(world.read(LogPart::Current), "");
    fs::remove_file(world.folder.log()).unwrap();
    assert!(world.begin(LogPart::Current).is_none());
    assert_eq!(list(&world.folder).unwrap(), []);
}

#[test]
fn places_of_the_machine_and_what_moves_a_terminal_are_left_out() {
    let world = World::new();
    let home = world.folder.home();
    let cluster = world.cluster.path();
    world.append(
        format!(
            "data dir = {}/data\n\nof {}/other, run by /engines of this machine/etcd/3.5.30/etcd\n",
            home.display(),
            cluster.display()
        )
        .as_bytes(),
    );
    world.append(b"key \x00 \x1b[31m \xff \tis updated\nthe last words");
    assert_eq!(
        world.read(LogPart::Current),
        "data dir = {home}/data\n\nof {cluster}/other, run by {engines}/etcd/3.5.30/etcd\nkey \
         \\u{0} \\u{1b}[31m \u{fffd} \tis updated\nthe last words\n"
    );
}

#[test]
fn of_a_line_without_end_the_beginning_is_kept() {
    let world = World::new();
    for bytes in [LOG_LINE_BYTES_MAX, LOG_LINE_BYTES_MAX + 1, 5 * CHUNK_BYTES] {
        world.append(&vec![b'y'; bytes]);
        world.append(b"\n");
    }
    let whole = "y".repeat(LOG_LINE_BYTES_MAX);
    let expected = format!("{whole}\n{whole}{CUT}\n{whole}{CUT}\n");
    assert!(world.read(LogPart::Current) == expected);
}

#[test]
fn the_end_of_a_log_begins_with_a_whole_line() {
    let mut world = World::new();
    (0..4).for_each(|_| world.line());
    world.append(b"last words");
    let end = |world: &World, last| {
        let mut reading = world.begin_at_end(LogPart::Current, Some(last)).unwrap();
        rest(&mut reading)
    };
    let whole = world.read(LogPart::Current);
    let length = world.now().len() as u64;
    // A line is of 303 bytes, and what has no end yet of 10.
    assert_eq!(end(&world, 10), "last words\n");
    assert_eq!(end(&world, 9), "");
    assert_eq!(end(&world, 312), "last words\n");
    assert!(whole.ends_with(&end(&world, 313)));
    assert!(end(&world, 313).starts_with("3 x"));
    assert!(end(&world, length - 1).starts_with("1 x"));
    for last in [length, length + 1, u64::MAX] {
        assert!(end(&world, last) == whole);
    }
    // Also where it is turned over meanwhile.
    let mut reading = world.begin_at_end(LogPart::Current, Some(313)).unwrap();
    turn_over(&world.folder, LARGE).unwrap();
    world.append(b"of later\n");
    assert!(whole.ends_with(&rest(&mut reading)));
}

#[test]
fn a_log_is_turned_over_when_it_is_large_alone() {
    let mut world = World::new();
    world.line();
    turn_over(&world.folder, LARGE).unwrap();
    assert_eq!(numbers(&world.now()), [0]);
    let parts = |world: &World| -> Vec<(LogPart, u64)> {
        let logs = list(&world.folder).unwrap();
        logs.iter().map(|log| (log.part, log.bytes)).collect()
    };
    assert_eq!(parts(&world), [(LogPart::Current, 303)]);
    (0..4).for_each(|_| world.line());
    turn_over(&world.folder, LARGE).unwrap();
    assert_eq!(
        parts(&world),
        [(LogPart::Current, 0), (LogPart::Older, 5 * 303)]
    );
    assert_eq!(numbers(&world.read(LogPart::Older)), [0, 1, 2, 3, 4]);
    // A reader of the older one has it to its end.
    let mut reading = world.begin(LogPart::Older).unwrap();
    (0..9).for_each(|_| world.line());
    turn_over(&world.folder, LARGE).unwrap();
    assert_eq!(numbers(&rest(&mut reading)), [0, 1, 2, 3, 4]);
    assert_eq!(
        numbers(&world.read(LogPart::Older)),
        [5, 6, 7, 8, 9, 10, 11, 12, 13]
    );
}

#[derive(Debug, Clone)]
enum Event {
    Written(usize),
    TurnedOver,
    Read,
}

fn events() -> impl Strategy<Value = Vec<Event>> {
    let event = prop_oneof![
        (1usize..400).prop_map(Event::Written),
        Just(Event::TurnedOver),
        Just(Event::Read),
    ];
    prop::collection::vec(event, 0..8)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 40, ..ProptestConfig::default() })]

    #[test]
    fn a_reading_has_what_was_there_when_it_began_and_nothing_else(before in 0usize..800, events in events()) {
        let mut world = World::new();
        (0..before).for_each(|_| world.line());
        let expected = world.now();
        let mut reading = world.begin(LogPart::Current).unwrap();
        let mut read = String::new();
        let mut overtaken = false;
        for event in events {
            match event {
                Event::Written(lines) => (0..lines).for_each(|_| world.line()),
                Event::TurnedOver => turn_over(&world.folder, LARGE).unwrap(),
                Event::Read => match reading.next() {
                    Ok(lines) => read.push_str(&lines),
                    Err(_) => overtaken = true,
                },
            }
        }
        match try_rest(&mut reading) {
            Ok(lines) if !overtaken => {
                read.push_str(&lines);
                prop_assert!(read == expected, "{} of {} bytes", read.len(), expected.len());
            }
            // What was turned over twice between two looks is gone, and nothing else is told instead.
            _ => prop_assert!(expected.starts_with(&read)),
        }
    }
}

fn try_rest(reading: &mut Reading) -> io::Result<String> {
    let mut text = String::new();
    loop {
        let lines = reading.next()?;
        if lines.is_empty() {
            return Ok(text);
        }
        text.push_str(&lines);
    }
}

#[test]
fn no_reading_is_torn_however_it_falls_together_with_a_turn() {
    let mut world = World::new();
    let stop = AtomicBool::new(false);
    let (folder, cluster) = (world.folder.clone(), world.cluster.path().to_owned());
    thread::scope(|scope| {
        scope.spawn(|| {
            while !stop.load(Ordering::Relaxed) {
                (0..600).for_each(|_| world.line());
                turn_over(&world.folder, LARGE).unwrap();
            }
        });
        let mut whole = 0;
        while whole < 100 {
            let part = LogPart::Current;
            let places = (cluster.as_path(), Path::new("/engines"));
            let reading = Reading::begin(folder.clone(), part, None, places).unwrap();
            let Ok(text) = try_rest(&mut reading.unwrap()) else {
                continue;
            };
            let numbers = numbers(&text);
            let gap = numbers.windows(2).find(|pair| pair[1] != pair[0] + 1);
            assert_eq!(gap, None);
            whole += 1;
        }
        stop.store(true, Ordering::Relaxed);
    });
}
