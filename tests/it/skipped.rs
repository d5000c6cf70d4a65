//! What this machine does not let tests try: told, so that nobody takes it for tried.

use std::{env, fs::File, io::Write as _, thread};

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
