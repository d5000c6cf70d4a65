//! The map of the house, compared with the house: which room may use which, and what belongs in one
//! room alone. What is checked here is promised in ARCHITECTURE.md.

use std::{
    collections::{BTreeMap, BTreeSet},
    env, fs,
    path::{Path, PathBuf},
    process::Command,
};

/// Each room with the rooms that it may use beside itself.
const ROOMS: [(&str, &[&str]); 33] = [
    ("main", &["app", "client", "config", "logging"]),
    (
        "app",
        &[
            "alerting",
            "backups",
            "broker",
            "census",
            "clock",
            "config",
            "courier",
            "disk",
            "engine",
            "folder",
            "guard",
            "http",
            "logbook",
            "metrics",
            "model",
            "observer",
            "operation",
            "provisioner",
            "registrar",
            "scheduler",
            "seal",
            "store",
            "timekeeper",
            "volumes",
            "watchdog",
        ],
    ),
    ("client", &["clock", "config", "dial", "disk", "model"]),
    (
        "config",
        &["backups", "disk", "logging", "model", "provisioner", "seal"],
    ),
    ("logging", &[]),
    (
        "http",
        &[
            "broker", "caller", "logging", "metrics", "model", "seal", "stream",
        ],
    ),
    (
        "observer",
        &[
            "broker",
            "clock",
            "engine",
            "model",
            "provisioner",
            "seal",
            "store",
        ],
    ),
    (
        "logbook",
        &["broker", "engine", "model", "provisioner", "stream"],
    ),
    ("census", &["broker", "model", "provisioner"]),
    ("scheduler", &["broker", "model"]),
    ("alerting", &["broker", "metrics", "model"]),
    ("courier", &["broker", "clock", "dial", "metrics", "model"]),
    ("guard", &["broker", "engine", "model", "provisioner"]),
    ("watchdog", &["broker", "engine", "model", "provisioner"]),
    (
        "broker",
        &[
            "backups",
            "caller",
            "clock",
            "healing",
            "model",
            "registrar",
            "seal",
            "store",
            "stream",
            "timekeeper",
            "volumes",
        ],
    ),
    (
        "operation",
        &[
            "backups",
            "clock",
            "engine",
            "healing",
            "logging",
            "metrics",
            "model",
            "provisioner",
            "registrar",
            "seal",
            "store",
            "stream",
            "timekeeper",
        ],
    ),
    (
        "backups",
        &["dial", "disk", "folder", "model", "seal", "stream"],
    ),
    ("engine", &["model", "seal", "stream", "workbench"]),
    (
        "provisioner",
        &["disk", "folder", "model", "stream", "workbench"],
    ),
    ("workbench", &["model", "stream"]),
    ("volumes", &["disk", "model", "store"]),
    ("store", &["caller", "disk", "model"]),
    ("caller", &[]),
    ("clock", &["model"]),
    ("healing", &["backups", "model", "store"]),
    ("registrar", &["backups", "clock", "model", "store"]),
    ("timekeeper", &["clock", "model", "store"]),
    ("dial", &["model"]),
    ("folder", &["disk", "model"]),
    ("disk", &["model"]),
    ("model", &[]),
    ("seal", &["model"]),
    ("metrics", &["model"]),
];

/// Rooms that everybody may be in without using anybody.
const LEAVES: [&str; 2] = ["lib", "stream"];

/// What only one room uses.
const ALONE: [(&str, &str); 14] = [
    ("prometheus_client", "metrics"),
    ("diesel", "store"),
    ("diesel_migrations", "store"),
    ("actix_web", "http"),
    ("etcd_client", "engine"),
    ("std::env", "config"),
    ("clap::Args", "config"),
    ("crate::backups::store", "backups"),
    ("Utc::now", "clock"),
    ("rustix::fs::statvfs", "disk"),
    ("rustix::fs::renameat_with", "disk"),
    ("fs::rename", "disk"),
    ("std::os::unix::fs::DirBuilderExt", "disk"),
    ("std::os::unix::fs::OpenOptionsExt", "disk"),
];

/// What the model does without: it is pure.
const NOT_IN_MODEL: [&str; 10] = [
    "std::fs",
    "std::io",
    "std::net",
    "std::process",
    "std::thread",
    "std::time::SystemTime",
    "std::time::Instant",
    "Instant::now",
    "SystemTime::now",
    "tokio",
];

/// What tells tests the machine's time of day, or gives it to a broker.
const MACHINE_CLOCKS: [&str; 5] = [
    "Utc::now",
    "SystemTime::now",
    "Clock::system",
    "Surroundings::default",
    "Default::default",
];

/// Names that tell nothing.
const EMPTY_NAMES: [&str; 6] = ["util", "utils", "common", "helper", "helpers", "manager"];

/// Lines of a file; of its tests apart.
const LINES_MAX: usize = 800;
const TEST_LINES_MAX: usize = 1000;

/// Everything that a file of ours does against the rules. `path` is relative to `src`.
fn offences(path: &str, text: &str) -> Vec<String> {
    let mut found = offences_of_form(path, text);
    if is_test(path) {
        return found;
    }
    let code = without_tests(&without_texts(text));
    let paths = paths(&code);
    found.extend(offences_of_imports(room_of(path), &paths));
    if code.contains(".unwrap()") {
        found.push("unwrap() outside of tests".to_owned());
    }
    found
}

fn offences_of_form(path: &str, text: &str) -> Vec<String> {
    let mut found = Vec::new();
    if !(text.starts_with("//!") || text.starts_with("#![doc = include_str!")) {
        found.push("does not begin with what it is".to_owned());
    }
    let lines_max = if is_test(path) {
        TEST_LINES_MAX
    } else {
        LINES_MAX
    };
    if text.lines().count() > lines_max {
        found.push(format!("has more than {lines_max} lines"));
    }
    let names = path.trim_end_matches(".rs").split(['/', '_']);
    for name in names.filter(|name| EMPTY_NAMES.contains(name)) {
        found.push(format!("{name} is a name that tells nothing"));
    }
    found
}

fn offences_of_imports(room: &str, paths: &[String]) -> Vec<String> {
    let mut found = Vec::new();
    let may_use = ROOMS.iter().find(|(name, _)| *name == room);
    if may_use.is_none() && !LEAVES.contains(&room) {
        found.push(format!("{room} is a room that is not on the map"));
    }
    let may_use = may_use.map_or(&[][..], |(_, rooms)| rooms);
    for path in paths {
        let mut parts = path.split("::");
        if matches!(parts.next(), Some("crate" | "compose_broker"))
            && let Some(other) = parts.next()
            && other != room
            && !may_use.contains(&other)
        {
            found.push(format!("{room} may not use {path}"));
        }
        for (what, home) in ALONE {
            if room != home && stands_in(what, path) && !is_exempt(room, what) {
                found.push(format!("only {home} may use {path}"));
            }
        }
        if room != "http" && path.split("::").any(|part| part == "StatusCode") {
            found.push(format!("only http may know of {path}"));
        }
        if room == "model" && NOT_IN_MODEL.iter().any(|what| stands_in(what, path)) {
            found.push(format!("model is pure and does without {path}"));
        }
        if path.starts_with("super::super") {
            found.push(format!("{path} hides where it leads to"));
        }
    }
    found
}

/// The composition root holds the server that `http` made; log records tell the machine's time; the client's
/// commands have arguments of their own.
fn is_exempt(room: &str, what: &str) -> bool {
    [
        ("app", "actix_web"),
        ("logging", "Utc::now"),
        ("client", "clap::Args"),
    ]
    .contains(&(room, what))
}

/// Whether the parts of `what` stand one after the other in `path`: a crate's or the standard
/// library's name at its beginning, everything else anywhere.
fn stands_in(what: &str, path: &str) -> bool {
    let (what, path): (Vec<&str>, Vec<&str>) =
        (what.split("::").collect(), path.split("::").collect());
    let from_start = what[0].starts_with(char::is_lowercase);
    path.windows(what.len())
        .enumerate()
        .any(|(i, parts)| parts == what && (i == 0 || !from_start))
}

fn room_of(path: &str) -> &str {
    let first = path.split('/').next().unwrap_or(path);
    first.trim_end_matches(".rs")
}

pub fn is_test(path: &str) -> bool {
    path.split('/')
        .any(|part| part == "tests" || part == "tests.rs")
}

/// The code without comments and without the insides of texts and characters.
pub fn without_texts(text: &str) -> String {
    // Lines stay lines.
    let lines = |told: &[char]| {
        told.iter()
            .copied()
            .filter(|c| *c == '\n')
            .collect::<String>()
    };
    with_texts_as(text, |told| lines(told) + " ")
}

/// The code with something else in the place of each comment, text and character.
fn with_texts_as(text: &str, instead: impl Fn(&[char]) -> String) -> String {
    let chars: Vec<char> = text.chars().collect();
    let mut code = String::new();
    let mut i = 0;
    while i < chars.len() {
        let end = end_of_text(&chars, i);
        if end == i {
            code.push(chars[i]);
            i += 1;
        } else {
            code.push_str(&instead(&chars[i..end]));
            i = end;
        }
    }
    code
}

/// Where the comment, text or character that begins at `i` ends; `i` when none begins there.
fn end_of_text(chars: &[char], i: usize) -> usize {
    let rest = &chars[i..];
    let begins = |with: &str| with.chars().eq(rest.iter().copied().take(with.len()));
    let until = |end: &str, from: usize| {
        let end: Vec<char> = end.chars().collect();
        let found = (from..rest.len()).find(|&j| rest[j..].starts_with(&end));
        i + found.map_or(rest.len(), |j| j + end.len())
    };
    if begins("//") {
        return until("\n", 2) - 1;
    }
    if begins("/*") {
        return until("*/", 2);
    }
    let in_a_name = i > 0 && (chars[i - 1].is_alphanumeric() || chars[i - 1] == '_');
    if begins("r\"") && !in_a_name {
        return until("\"", 2);
    }
    if begins("r#") && !in_a_name {
        let hashes = rest[1..].iter().take_while(|c| **c == '#').count();
        if rest.get(1 + hashes) == Some(&'"') {
            return until(&format!("\"{}", "#".repeat(hashes)), 2 + hashes);
        }
    }
    if begins("\"") {
        return end_of_quoted(chars, i, '"');
    }
    // A quote is a character's, unless it begins a lifetime.
    let is_character = rest.get(1) == Some(&'\\') || rest.get(2) == Some(&'\'');
    if begins("'") && is_character {
        return end_of_quoted(chars, i, '\'');
    }
    i
}

fn end_of_quoted(chars: &[char], i: usize, quote: char) -> usize {
    let mut j = i + 1;
    while j < chars.len() && chars[j] != quote {
        j += if chars[j] == '\\' { 2 } else { 1 };
    }
    (j + 1).min(chars.len())
}

/// The code without what is compiled for tests alone.
pub fn without_tests(code: &str) -> String {
    cut_tests(code, code)
}

/// The same of a file as it stands: its comments and texts stay, and no brace in them counts.
pub fn file_without_tests(text: &str) -> String {
    // What stands after it keeps its place.
    let bytes = |told: &[char]| told.iter().map(|c| c.len_utf8()).sum();
    let code = with_texts_as(text, |told| " ".repeat(bytes(told)));
    cut_tests(text, &code)
}

/// What is left of `text` where `code`, which has everything at the same place, has no tests.
fn cut_tests(text: &str, code: &str) -> String {
    const MARK: &str = "#[cfg(test)]";
    let mut from = 0;
    let mut kept = String::new();
    while let Some(found) = code[from..].find(MARK) {
        kept.push_str(&text[from..from + found]);
        let item = from + found + MARK.len();
        from = item + end_of_item(&code[item..]);
    }
    kept + &text[from..]
}

/// Where the item at the beginning of `code` ends: at its semicolon or its closing brace.
fn end_of_item(code: &str) -> usize {
    let mut depth = 0;
    for (i, c) in code.char_indices() {
        match c {
            ';' if depth == 0 => return i + 1,
            '{' | '(' | '[' => depth += 1,
            '}' if depth == 1 => return i + 1,
            '}' | ')' | ']' => depth -= 1,
            _ => {}
        }
    }
    code.len()
}

/// Every path in the code, such as `std::fs::read`, those in braces made whole.
pub fn paths(code: &str) -> Vec<String> {
    let mut words = Vec::new();
    let mut word = String::new();
    for c in code.chars() {
        if c.is_alphanumeric() || c == '_' {
            word.push(c);
            continue;
        }
        if !word.is_empty() {
            words.push(std::mem::take(&mut word));
        }
        if !c.is_whitespace() {
            words.push(c.to_string());
        }
    }
    words.push(word);
    let mut found = Vec::new();
    let mut i = 0;
    while i < words.len() {
        i = read_path(&words, i, "", &mut found).max(i + 1);
    }
    found
}

/// Reads one path, which stands below `prefix`; returns where it ends.
fn read_path(words: &[String], mut i: usize, prefix: &str, found: &mut Vec<String>) -> usize {
    let is = |i: usize, what: &str| words.get(i).is_some_and(|word| word == what);
    let mut path = prefix.to_owned();
    loop {
        if is(i, "{") && path.ends_with("::") {
            i += 1;
            while i < words.len() && !is(i, "}") {
                i = read_path(words, i, &path, found).max(i + 1);
            }
            return i + 1;
        }
        match words.get(i) {
            Some(word) if word.starts_with(|c: char| c.is_alphanumeric() || c == '_') => {
                path.push_str(word);
                i += 1;
            }
            // All that is in there.
            Some(word) if word == "*" && path.ends_with("::") => {
                found.push(path.trim_end_matches("::").to_owned());
                return i + 1;
            }
            _ => return i,
        }
        if is(i, ":") && is(i + 1, ":") {
            path.push_str("::");
            i += 2;
        } else {
            found.push(path);
            return i;
        }
    }
}

pub fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).to_owned()
}

/// Every file below `folder`, relative to it, with its text.
pub fn sources(folder: &Path) -> Vec<(String, String)> {
    let mut folders = vec![folder.to_owned()];
    let mut found = Vec::new();
    while let Some(next) = folders.pop() {
        for entry in fs::read_dir(&next).expect("a folder").flatten() {
            let path = entry.path();
            if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|e| e == "rs") {
                let text = fs::read_to_string(&path).expect("a text");
                let relative = path.strip_prefix(folder).expect("a file below");
                found.push((relative.display().to_string(), text));
            }
        }
    }
    found
}

/// What `look` finds in the files below a folder of the project, of which there are not few.
fn found_below(folder: &str, look: impl Fn(&str, &str) -> Vec<String>) -> Vec<String> {
    let sources = sources(&root().join(folder));
    assert!(sources.len() > 50, "{folder} has {} files", sources.len());
    let found = sources.iter().flat_map(|(path, text)| {
        let found = look(path, text).into_iter();
        found.map(move |offence| format!("{folder}/{path}: {offence}"))
    });
    found.collect()
}

#[test]
fn every_file_keeps_to_the_map() {
    assert_eq!(found_below("src", offences), Vec::<String>::new());
}

#[test]
fn every_file_of_the_tests_is_as_short_as_one_of_tests_may_be_and_says_what_it_is() {
    let look = |path: &str, text: &str| offences_of_form(&format!("tests/{path}"), text);
    assert_eq!(found_below("tests", look), Vec::<String>::new());
}

#[test]
fn every_room_is_told_of_and_every_room_that_is_told_of_exists() {
    let map = fs::read_to_string(root().join("ARCHITECTURE.md")).expect("a map");
    let library = fs::read_to_string(root().join("src/lib.rs")).expect("a text");
    let rooms: Vec<&str> = library
        .lines()
        .filter_map(|line| line.strip_prefix("pub mod ")?.strip_suffix(';'))
        .collect();
    assert!(rooms.len() > 10, "{rooms:?}");
    let told: Vec<&str> = map.lines().flat_map(rooms_told_of).collect();
    for room in &rooms {
        assert!(told.contains(room), "{room} is not told of");
        let known = ROOMS.iter().any(|(name, _)| name == room) || LEAVES.contains(room);
        assert!(known, "{room} has no rule");
    }
    for room in told {
        let path = root().join("src").join(room.replace("::", "/"));
        let exists = path.is_dir() || path.with_extension("rs").is_file();
        assert!(exists, "{room} is told of only");
    }
}

/// Who may import whom, as the map tells it: a room, an arrow, and rooms with a comma after each but the last.
fn imports_told_of(map: &str) -> BTreeMap<&str, BTreeSet<&str>> {
    let told = map.split_once("\n## Who may import whom\n\n```text\n");
    let told = told.and_then(|(_, rest)| rest.split_once("\n```"));
    let mut found = BTreeMap::new();
    let mut room = "";
    for line in told.expect("a table").0.lines() {
        let (name, others) = line.split_once(" -> ").unwrap_or((room, line));
        room = name.trim();
        // What stands in brackets says what for.
        let others = others
            .split(',')
            .map(|other| other.split(" (").next().unwrap_or_default().trim());
        let of: &mut BTreeSet<&str> = found.entry(room).or_default();
        of.extend(others.filter(|other| !other.is_empty()));
    }
    found
}

#[test]
fn the_map_tells_who_may_import_whom() {
    let map = fs::read_to_string(root().join("ARCHITECTURE.md")).expect("a map");
    let rules = ROOMS.iter().filter(|(_, others)| !others.is_empty());
    let rules: BTreeMap<&str, BTreeSet<&str>> = rules
        .map(|(room, others)| (*room, others.iter().copied().collect()))
        .collect();
    assert_eq!(imports_told_of(&map), rules);
}

#[test]
fn no_test_asks_the_machine_for_the_time_of_day() {
    let asks = |code: &str| {
        let paths = paths(&without_texts(code));
        let asked = |path: &String| MACHINE_CLOCKS.iter().find(|what| stands_in(what, path));
        paths.iter().find_map(asked).copied()
    };
    for (path, text) in sources(&root().join("tests/it")) {
        if path != "control.rs" {
            assert_eq!(asks(&text), None, "{path}: `control` tells the time of day");
        }
    }
    assert!(asks("fn f() { let now = chrono::Utc::now(); }").is_some());
    assert!(asks("fn f() { start(Surroundings::default()); }").is_some());
}

#[test]
fn the_tests_that_are_promised_exist() {
    let told = fs::read_to_string(root().join("docs/compose.md")).expect("a table");
    // What stands between backticks and looks like a path.
    let promised: Vec<&str> = told
        .lines()
        .filter(|line| line.starts_with('|'))
        .flat_map(|line| line.split('`').skip(1).step_by(2))
        .filter(|name| name.contains("::") && !name.contains(' '))
        .collect();
    assert!(promised.len() > 20, "{promised:?}");
    for name in promised {
        let (place, test) = name.split_once("::").expect("a path");
        let found = if place == "model" {
            root().join(format!("src/model/{test}/tests.rs")).is_file()
        } else {
            let file = root().join(format!("tests/it/{place}.rs"));
            let text = fs::read_to_string(file).unwrap_or_default();
            text.contains(&format!("fn {test}()"))
        };
        assert!(found, "there is no test {name}");
    }
}

/// The file of a program in one of the folders of a `PATH`.
fn found_in(path: &str, program: &str) -> Option<String> {
    let mut files = env::split_paths(path).map(|folder| folder.join(program));
    let file = files.find(|file| file.is_file())?;
    Some(file.display().to_string())
}

/// Build scripts deep among the dependencies ask for protoc and libpq, minutes after a build has begun.
#[test]
fn what_a_bare_build_lacks_is_said_before_anything_is_compiled() {
    let wrapper = root().join("scripts/rustc");
    let path = env::var("PATH").expect("a PATH");
    // Where nothing but a shell is, nothing leads to libpq.
    let bare = tempfile::tempdir().expect("a folder");
    let bare = bare.path().display().to_string();
    let protoc = env::var("PROTOC")
        .ok()
        .or_else(|| found_in(&path, "protoc"));
    let protoc = protoc.expect("protoc");
    let run = |protoc: &str, path: &str| {
        let mut command = Command::new("/bin/bash");
        command.arg(&wrapper).args(["/bin/echo", "compiles"]);
        command.env("PROTOC", protoc).env("PATH", path);
        command.env_remove("PQ_LIB_DIR");
        command.output().expect("an end")
    };
    let readme = fs::read_to_string(root().join("README.md")).expect("a text");
    let lacks: [(_, &str, &[&str]); 2] = [
        (
            run("/nowhere/protoc", &path),
            "protoc",
            &["protobuf-compiler", "libprotobuf-dev"],
        ),
        (run(&protoc, &bare), "libpq", &["libpq-dev"]),
    ];
    for (lacking, what, packages) in lacks {
        let said = String::from_utf8(lacking.stderr).expect("a text");
        assert!(!lacking.status.success() && lacking.stdout.is_empty());
        for word in [what, "make setup"].iter().chain(packages) {
            assert!(said.contains(word), "{word}: {said}");
        }
        // And where it is read first.
        for package in packages {
            assert!(readme.contains(&format!("`{package}`")), "{package}");
        }
    }
    assert_eq!(run(&protoc, &path).stdout, b"compiles\n");
}

/// What the image is built of: each is there, is let through to the build, and decides how it goes.
#[test]
fn the_image_is_built_of_all_that_a_build_needs() {
    let read = |file: &str| fs::read_to_string(root().join(file)).expect(file);
    let (dockerfile, ignored) = (
        read("deploy/Dockerfile"),
        read("deploy/Dockerfile.dockerignore"),
    );
    let copies = dockerfile
        .lines()
        .filter_map(|line| line.strip_prefix("COPY "))
        .filter(|line| !line.starts_with("--from"));
    let copied: Vec<&str> = copies
        .flat_map(|line| {
            let mut words: Vec<&str> = line.split_whitespace().collect();
            words.pop();
            words
        })
        .collect();
    for path in &copied {
        assert!(root().join(path).exists(), "{path} is not there");
        let first = path.split('/').next().expect("a name");
        let is_seen = ignored.lines().any(|line| line == format!("!{first}"));
        assert!(is_seen, "{path} does not reach the build");
    }
    // How libraries are compiled, and what the sources take in beside themselves.
    let needed = [".cargo", "Cargo.lock", "migrations", "templates", "assets"];
    for path in needed {
        assert!(copied.contains(&path), "{path} is not copied");
    }
}

/// Words that the house has no use for, and what it says instead.
const WORDS_GONE: [(&str, &str); 5] = [
    ("whoever", "the name of the actor"),
    ("fares", "its state"),
    ("fare", "their state"),
    ("held against", "compared with"),
    ("nobody knows why", "no reason was recorded"),
];

/// Migrations that speak so and stay as they are: what was applied once is not changed any more.
const APPLIED: [&str; 2] = ["2026-11-28-000080_queue", "2026-11-28-000084_provenances"];

/// Those that stand in a text, whole and in any case, also over the end of a line or within a name.
fn words_gone(text: &str) -> Vec<&'static str> {
    let text = text.to_lowercase().replace('-', " ");
    let words = text
        .split(|c: char| !c.is_alphanumeric())
        .filter(|word| !word.is_empty());
    let text = format!(" {} ", words.collect::<Vec<_>>().join(" "));
    let stands = |word: &&str| text.contains(&format!(" {word} "));
    let words = WORDS_GONE.iter().map(|(word, _)| *word);
    words.filter(stands).collect()
}

/// Figures in units that the house does not use: sizes are in powers of 1024.
fn decimal_sizes(text: &str) -> Vec<String> {
    let words: Vec<&str> = text.split_whitespace().collect();
    let pairs = words.windows(2).filter(|pair| {
        let unit = pair[1].trim_matches(|c: char| !c.is_alphanumeric());
        let is_figure = |c: char| c.is_ascii_digit() || c == '}';
        ["kB", "KB", "MB", "GB", "TB"].contains(&unit) && pair[0].ends_with(is_figure)
    });
    pairs
        .map(|pair| {
            let unit = pair[1].trim_matches(|c: char| !c.is_alphanumeric());
            format!("{} {unit}", pair[0])
        })
        .collect()
}

#[test]
fn no_text_has_a_word_that_is_gone() {
    let mut texts = texts_of_the_project();
    // Where the words themselves stand.
    texts.retain(|(path, _)| path != "tests/it/tidy.rs");
    texts.retain(|(path, _)| !APPLIED.iter().any(|of| path.contains(of)));
    assert!(texts.len() > 700, "{} texts", texts.len());
    let found: Vec<String> = texts
        .iter()
        .flat_map(|(path, text)| {
            words_gone(text)
                .into_iter()
                .map(move |word| format!("{path}: {word}"))
        })
        .collect();
    assert_eq!(found, Vec::<String>::new(), "say instead: {WORDS_GONE:?}");
    let sizes: Vec<String> = texts
        .iter()
        .flat_map(|(path, text)| {
            decimal_sizes(text)
                .into_iter()
                .map(move |size| format!("{path}: {size}"))
        })
        .collect();
    assert_eq!(sizes, Vec::<String>::new(), "say instead: KiB, MiB, GiB");
    assert_eq!(
        decimal_sizes("16 MB, {} KB. 8 kB,"),
        ["16 MB", "{} KB", "8 kB"]
    );
    assert_eq!(decimal_sizes("10 * GB, 16 MiB"), [""; 0]);
    assert_eq!(
        words_gone("/// What its quota is held\n/// against."),
        ["held against"]
    );
    assert_eq!(words_gone("Whoever asks"), ["whoever"]);
    assert_eq!(words_gone("fn tells_how_they_fare()"), ["fare"]);
    assert_eq!(words_gone("farewell, fared"), [""; 0]);
}

/// Every text of the project by its path from the root on: what its people write, and not what programs do.
fn texts_of_the_project() -> Vec<(String, String)> {
    const FOLDERS: [&str; 11] = [
        ".cargo",
        ".ci",
        "assets",
        "benches",
        "deploy",
        "docs",
        "examples",
        "migrations",
        "scripts",
        "src",
        "templates",
    ];
    let mut texts = Vec::new();
    let mut paths: Vec<PathBuf> = FOLDERS.map(|folder| root().join(folder)).into();
    paths.push(root().join("tests/it"));
    let top = fs::read_dir(root()).expect("the project").flatten();
    let mut top: Vec<PathBuf> = top.map(|entry| entry.path()).collect();
    top.retain(|path| path.is_file() && !path.ends_with("Cargo.lock"));
    paths.extend(top);
    while let Some(path) = paths.pop() {
        if path.is_dir() {
            let below = fs::read_dir(&path).expect("a folder").flatten();
            paths.extend(below.map(|entry| entry.path()));
            continue;
        }
        let is_made = path
            .extension()
            .is_some_and(|end| ["sum", "snap"].iter().any(|made| end == *made));
        if let (false, Ok(text)) = (is_made, fs::read_to_string(&path)) {
            let relative = path.strip_prefix(root()).expect("below the root");
            texts.push((relative.display().to_string(), text));
        }
    }
    texts
}

/// The rooms that a line of the map's table is about: those in its first cell.
fn rooms_told_of(line: &str) -> impl Iterator<Item = &str> {
    let cell = line
        .strip_prefix("| [`")
        .and_then(|rest| rest.split_once(" |"));
    let rooms = cell.map_or("", |(cell, _)| cell).split(", ");
    rooms
        .map(|room| room.trim_matches(['[', ']', '`']))
        .filter(|room| !room.is_empty())
}

/// The only offence of a file, or none.
fn offence(path: &str, code: &str) -> Option<String> {
    let mut found = offences(path, &format!("//! A file.\n{code}"));
    assert!(found.len() <= 1, "{found:?}");
    found.pop()
}

#[test]
fn a_use_of_a_room_that_is_out_of_reach_is_found() {
    for (path, code) in [
        ("http/osb/mod.rs", "use crate::store::Store;"),
        ("http/osb/mod.rs", "use crate::{broker::Broker, operation};"),
        ("http/mod.rs", "fn f() { crate::engine::etcd::start() }"),
        (
            "broker/mod.rs",
            "use crate::{\n    provisioner::{Provisioner},\n};",
        ),
        ("broker/backup.rs", "use crate::http::Api;"),
        ("operation/bind.rs", "use crate::broker::Broker;"),
        ("engine/etcd/mod.rs", "use crate::provisioner;"),
        ("provisioner/mod.rs", "use crate::engine::Engine;"),
        ("store/mod.rs", "use crate::operation::Step;"),
        ("model/ids.rs", "use crate::clock::Clock;"),
        ("main.rs", "use compose_broker::store::Store;"),
        ("client/keys.rs", "use crate::broker::Broker;"),
        ("client/mod.rs", "use crate::store::Store;"),
        ("client/osb.rs", "use crate::http::Api;"),
        ("cellar.rs", ""),
        ("broker/mod.rs", "use super::super::app;"),
    ] {
        assert!(offence(path, code).is_some(), "{path}: {code}");
    }
    for (path, code) in [
        (
            "http/mod.rs",
            "use crate::{broker::Broker, model::ids::InstanceId};",
        ),
        ("http/mod.rs", "// use crate::store::Store;"),
        ("http/mod.rs", "/// See [`crate::store`].\nfn f() {}"),
        (
            "http/mod.rs",
            "fn f() -> &'static str { \"use crate::store;\" }",
        ),
        (
            "http/mod.rs",
            "const S: &str = r#\"use \"crate::store\";\"#;",
        ),
        (
            "http/mod.rs",
            "#[cfg(test)]\nmod tests {\n    use crate::store;\n}",
        ),
        (
            "operation/bind.rs",
            "use crate::{engine, provisioner, store::Conn};",
        ),
        ("provisioner/local/tests.rs", "use crate::engine::etcd;"),
    ] {
        assert_eq!(offence(path, code), None, "{path}: {code}");
    }
}

#[test]
fn what_belongs_in_one_room_is_found_in_others() {
    for (path, code) in [
        ("broker/mod.rs", "use diesel::prelude::*;"),
        ("operation/runner.rs", "fn f() { diesel::insert_into(t) }"),
        ("broker/mod.rs", "use actix_web::HttpRequest;"),
        ("broker/mod.rs", "use reqwest::StatusCode;"),
        ("broker/mod.rs", "fn f() -> http::StatusCode { todo!() }"),
        ("operation/backup.rs", "use etcd_client::Client;"),
        ("app/mod.rs", "fn f() { std::env::var(N); }"),
        (
            "operation/backup.rs",
            "use crate::backups::{Vault, store::BackupStore};",
        ),
        ("provisioner/mod.rs", "use std::{env, fs};"),
        ("broker/mod.rs", "fn f() { chrono::Utc::now(); }"),
        ("model/ids.rs", "fn f() { let now = Utc::now(); }"),
        ("model/ids.rs", "use std::{fmt, fs::File};"),
        ("model/ids.rs", "fn f() { std::time::SystemTime::now(); }"),
        ("model/ids.rs", "use tokio::sync::Mutex;"),
        ("seal.rs", "fn f() { g().unwrap(); }"),
        ("broker/utils.rs", ""),
        ("engine/manager/mod.rs", ""),
    ] {
        assert!(offence(path, code).is_some(), "{path}: {code}");
    }
    for (path, code) in [
        ("store/mod.rs", "use diesel::prelude::*;"),
        ("config.rs", "fn f() { std::env::var(N); }"),
        ("model/limits.rs", "use std::time::Duration;"),
        ("seal.rs", "fn f() { g().unwrap_or_default(); }"),
        (
            "seal.rs",
            "#[cfg(test)]\nmod tests {\n    fn f() { g('}').unwrap(); }\n}\nfn h() {}",
        ),
    ] {
        assert_eq!(offence(path, code), None, "{path}: {code}");
    }
}

#[test]
fn a_file_without_a_first_sentence_or_without_an_end_is_found() {
    assert_eq!(offences("seal.rs", "fn f() {}").len(), 1);
    let long = format!("//! A file.\n{}", "\n".repeat(LINES_MAX));
    assert_eq!(offences("seal.rs", &long).len(), 1);
    assert_eq!(offences("engine/etcd/tests/mod.rs", &long).len(), 0);
}

#[test]
fn an_item_for_tests_ends_where_it_ends() {
    let code = "a\n#[cfg(test)]\nmod tests;\nb\n#[cfg(test)]\nmod t { fn f() { {} } }\nc\n\
                #[cfg(test)]\nfn f(a: [u8; 2]) { g(); }\nd";
    let kept = without_tests(code);
    let kept: Vec<&str> = kept.split_whitespace().collect();
    assert_eq!(kept, ["a", "b", "c", "d"]);
    assert_eq!(
        paths("use a::{b::{c, d}, e::*};").as_slice(),
        ["use", "a::b::c", "a::b::d", "a::e"]
    );
}
