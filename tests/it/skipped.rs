//! What this machine does not let tests try: told, so that nobody takes it for tried.

use std::{
    env,
    fs::{self, File},
    io::Write as _,
    thread,
};

use crate::tidy::{root, sources};

/// Names a file that every skip is written down in, a line each: the output of tests that pass is not shown.
const LIST: &str = "COMPOSE_BROKER_TEST_SKIPPED";

/// Tells that a test goes without `part`, and why.
pub fn skipped(part: &str, why: &str) {
    let test = thread::current().name().unwrap_or("a test").to_owned();
    let why = why.replace('\n', " ");
    let line = format!("SKIPPED: {part} ({test}): {why}\n");
    print!("{line}");
    if let Some(list) = env::var_os(LIST) {
        let list = File::options().create(true).append(true).open(list);
        let written = list.and_then(|mut list| list.write_all(line.as_bytes()));
        written.expect("the list of what was skipped");
    }
}

/// The parts that a text of a test may go without.
fn parts(text: &str) -> Vec<&str> {
    let calls = text.split("skipped(").skip(1);
    let named = calls.filter_map(|rest| rest.trim_start().strip_prefix('"'));
    named
        .filter_map(|rest| Some(rest.split_once('"')?.0))
        .collect()
}

#[test]
fn what_tests_may_go_without_is_looked_for_on_the_machine() {
    let script = fs::read_to_string(root().join("scripts/test.sh")).expect("a text");
    let looks = script.split_once("\nhas() {").expect("its function").1;
    let looks = looks.split_once("\n}").expect("its end").0;
    let known = |part: &str| {
        let mut cases = looks.lines().filter_map(|line| line.split_once(") "));
        cases.any(|(case, _)| {
            case.split(" | ")
                .any(|of| of.trim().trim_matches('\'') == part)
        })
    };
    let mut found = 0;
    for (path, text) in sources(&root().join("tests/it")) {
        if path != "skipped.rs" {
            for part in parts(&text) {
                assert!(known(part), "{path}: {part}");
                found += 1;
            }
        }
    }
    assert!(found > 8, "{found}");
    assert!(!known("a telescope"));
}
