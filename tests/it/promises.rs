//! What `docs/osb.md` promises: a row and a test for each item of the specification's list, and no
//! test of an item that its row does not name.

use std::{
    collections::{BTreeMap, BTreeSet},
    env, fs,
    path::Path,
    process::Command,
};

/// How many items the list has, and how many traps.
const ITEMS: u32 = 122;
const TRAPS: u32 = 9;

/// Every number that must have a row and a test, as tests are named: `001`, `t1`.
fn numbers() -> BTreeSet<String> {
    let items = (1..=ITEMS).map(|item| format!("{item:03}"));
    items
        .chain((1..=TRAPS).map(|trap| format!("t{trap}")))
        .collect()
}

/// The number that a test is named after.
fn number_of(test: &str) -> Option<&str> {
    let name = test.rsplit("::").next()?.strip_prefix("osb_")?;
    let number = name.split('_').next()?;
    let digits = number.strip_prefix('t').unwrap_or(number);
    (!digits.is_empty() && digits.bytes().all(|b| b.is_ascii_digit())).then_some(number)
}

/// The tests that each row of a table names, by the row's number; a number that comes twice is an
/// offence.
fn rows(doc: &str, offences: &mut Vec<String>) -> BTreeMap<String, Vec<String>> {
    let mut rows = BTreeMap::new();
    for line in doc.lines() {
        let cells: Vec<&str> = line.split('|').map(str::trim).collect();
        let [_, number, asked, tests, _decision, _] = cells.as_slice() else {
            continue;
        };
        let number = match (number.strip_prefix('T'), number.parse::<u32>()) {
            (Some(trap), _) if trap.parse::<u32>().is_ok() => format!("t{trap}"),
            (None, Ok(item)) => format!("{item:03}"),
            _ => continue,
        };
        if asked.is_empty() {
            offences.push(format!("the row of {number} says nothing"));
        }
        let named = tests.split('`').skip(1).step_by(2).map(str::to_owned);
        if rows.insert(number.clone(), named.collect()).is_some() {
            offences.push(format!("{number} has two rows"));
        }
    }
    rows
}

/// All that is wrong between the table and the tests that there are.
fn offences(doc: &str, tests: &BTreeSet<String>) -> Vec<String> {
    let mut found = Vec::new();
    let rows = rows(doc, &mut found);
    for number in numbers() {
        if !tests.iter().any(|test| number_of(test) == Some(&number)) {
            found.push(format!("{number} has no test"));
        }
        match rows.get(&number) {
            None => found.push(format!("{number} has no row")),
            Some(named) if named.iter().all(|test| number_of(test) != Some(&number)) => {
                found.push(format!("the row of {number} names no test of its own"));
            }
            Some(_) => {}
        }
    }
    for number in rows.keys().filter(|number| !numbers().contains(*number)) {
        found.push(format!("{number} is not on the list"));
    }
    for test in rows
        .values()
        .flatten()
        .filter(|test| !tests.contains(*test))
    {
        found.push(format!("there is no test {test}"));
    }
    for test in tests {
        let Some(number) = number_of(test) else {
            continue;
        };
        if !rows.get(number).is_some_and(|named| named.contains(test)) {
            found.push(format!("the row of {number} does not name {test}"));
        }
    }
    found
}

/// The tests that this program has and runs, by their full names.
pub fn tests() -> BTreeSet<String> {
    let list = |only: &[&str]| -> BTreeSet<String> {
        let myself = env::current_exe().expect("this program");
        let listed = Command::new(myself).arg("--list").args(only).output();
        let listed = listed.expect("a list").stdout;
        String::from_utf8(listed)
            .expect("a text")
            .lines()
            .filter_map(|line| line.strip_suffix(": test"))
            .map(str::to_owned)
            .collect()
    };
    &list(&[]) - &list(&["--ignored"])
}

#[test]
fn each_item_of_the_specification_has_a_row_and_a_test() {
    let doc = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/osb.md");
    let doc = fs::read_to_string(doc).expect("a table");
    assert_eq!(offences(&doc, &tests()), Vec::<String>::new());
}

#[test]
fn an_item_without_a_row_or_a_test_is_found() {
    let test = |number: &str| format!("osb::somewhere::osb_{number}_it_is_so");
    let row = |number: &str| {
        let shown = match number.strip_prefix('t') {
            Some(trap) => format!("T{trap}"),
            None => number.trim_start_matches('0').to_owned(),
        };
        format!("| {shown} | asked | `{}` | |\n", test(number))
    };
    let tests: BTreeSet<String> = numbers().iter().map(|number| test(number)).collect();
    let all: String = numbers().iter().map(|number| row(number)).collect();
    assert_eq!(offences(&all, &tests), Vec::<String>::new());
    for number in ["001", "047", "122", "t1", "t9"] {
        let without_row = all.replace(&row(number), "");
        assert_eq!(offences(&without_row, &tests).len(), 2, "{number}");
        let mut without_test = tests.clone();
        without_test.remove(&test(number));
        assert_eq!(offences(&all, &without_test).len(), 2, "{number}");
    }
    let mut more = tests.clone();
    more.insert("elsewhere::osb_047_and_it_is_not_told".to_owned());
    assert_eq!(offences(&all, &more).len(), 1);
    for (with, count) in [
        (
            "| 123 | asked | `osb::somewhere::osb_001_it_is_so` | |\n",
            1,
        ),
        ("| 47 | asked | `osb::somewhere::osb_047_it_is_so` | |\n", 1),
    ] {
        assert_eq!(
            offences(&format!("{all}{with}"), &tests).len(),
            count,
            "{with}"
        );
    }
    let silent = all.replace("| 47 | asked |", "| 47 | |");
    assert_eq!(offences(&silent, &tests).len(), 1);
    let wrong = all.replace("osb_047_it_is_so", "osb_047_it_was_so");
    assert_eq!(offences(&wrong, &tests).len(), 2);
}
