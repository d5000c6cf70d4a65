//! The documents, compared with the house: where links lead, whether every page is reached from the
//! README, what is said to be in a file, and whether what holds and tests each invariant exists.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::{Component, Path, PathBuf},
};

use crate::promises::tests;

/// Where a reader begins.
const FIRST_PAGE: &str = "README.md";

/// Words in front of the name of what they declare.
const DECLARING: [&str; 8] = [
    "const", "enum", "fn", "mod", "static", "struct", "trait", "type",
];

/// Texts by their paths from the root on.
type Documents = BTreeMap<String, String>;

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).to_owned()
}

fn documents() -> Documents {
    let mut found = Documents::new();
    let mut folders = vec![PathBuf::new(), PathBuf::from("docs")];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(root().join(&folder)).expect("a folder") {
            let entry = entry.expect("a file");
            let path = folder.join(entry.file_name());
            if entry.path().is_dir() && folder.starts_with("docs") {
                folders.push(path);
            } else if path.extension().is_some_and(|e| e == "md") {
                let text = fs::read_to_string(entry.path()).expect("a text");
                found.insert(path.display().to_string(), text);
            }
        }
    }
    found
}

/// The lines that are no code: `#` begins a heading there alone.
fn prose(text: &str) -> impl Iterator<Item = &str> {
    let mut is_code = false;
    text.lines().filter(move |line| {
        let is_fence = line.trim_start().starts_with("```");
        is_code ^= is_fence;
        !is_code && !is_fence
    })
}

/// The words of a heading, as links name it.
fn anchor(heading: &str) -> String {
    let kept = heading.trim_start_matches('#').trim().to_lowercase();
    let kept = kept.chars().filter_map(|c| match c {
        ' ' => Some('-'),
        '-' | '_' => Some(c),
        c if c.is_alphanumeric() => Some(c),
        _ => None,
    });
    kept.collect()
}

fn has_anchor(text: &str, wanted: &str) -> bool {
    let mut headings = prose(text).filter(|line| line.starts_with('#'));
    headings.any(|heading| anchor(heading) == wanted)
}

/// Each link of a page within the project: the path from the root on, and the heading, if it names
/// one.
fn links(page: &str, text: &str) -> Vec<(String, Option<String>)> {
    let text = prose(text).collect::<Vec<_>>().join("\n");
    let targets = text.split("](").skip(1);
    let targets = targets.filter_map(|rest| Some(rest.split_once(')')?.0));
    let inside = targets.filter(|target| !target.contains("://") && !target.contains(' '));
    let folder = Path::new(page).parent().unwrap_or(Path::new(""));
    inside
        .map(|target| match target.split_once('#') {
            Some(("", heading)) => (page.to_owned(), Some(heading.to_owned())),
            Some((file, heading)) => (plain(&folder.join(file)), Some(heading.to_owned())),
            None => (plain(&folder.join(target)), None),
        })
        .collect()
}

/// The path without `..`.
fn plain(path: &Path) -> String {
    let mut parts = Vec::new();
    for part in path.components() {
        match part {
            Component::ParentDir => drop(parts.pop()),
            Component::Normal(part) => parts.push(part.to_string_lossy()),
            _ => {}
        }
    }
    parts.join("/")
}

/// The links that lead nowhere.
fn astray(documents: &Documents) -> Vec<String> {
    let mut found = Vec::new();
    for (page, text) in documents {
        for (target, heading) in links(page, text) {
            let is_there = match (documents.get(&target), &heading) {
                (Some(led), Some(heading)) => has_anchor(led, heading),
                (Some(_), None) => true,
                (None, Some(_)) => false,
                (None, None) => root().join(&target).exists(),
            };
            if !is_there {
                let heading = heading.map_or(String::new(), |heading| format!("#{heading}"));
                found.push(format!("{page}: {target}{heading}"));
            }
        }
    }
    found
}

/// The pages that no way leads to from the first one.
fn out_of_reach(documents: &Documents) -> Vec<&str> {
    let mut reached = BTreeSet::new();
    let mut next = vec![FIRST_PAGE.to_owned()];
    while let Some(page) = next.pop() {
        if let Some(text) = documents.get(&page)
            && reached.insert(page.clone())
        {
            next.extend(links(&page, text).into_iter().map(|(target, _)| target));
        }
    }
    let pages = documents.keys().map(String::as_str);
    pages.filter(|page| !reached.contains(*page)).collect()
}

/// A text between backticks.
#[derive(Debug, Clone, Copy)]
enum Code<'a> {
    /// A file or folder, from the root or from `src` on.
    Path(&'a str),
    /// A link to an item of the crate, such as `store::Store::read`.
    Item(&'a str),
    /// Any other name.
    Name(&'a str),
}

fn codes(text: &str) -> Vec<Code<'_>> {
    let parts: Vec<&str> = text.split('`').collect();
    let code = |i: usize| match parts[i] {
        item if parts[i - 1].ends_with('[') && parts.get(i + 1)?.starts_with(']') => {
            Some(Code::Item(item))
        }
        path if path.contains('/') || path.ends_with(".rs") => Some(Code::Path(path)),
        name => Some(Code::Name(name)),
    };
    (1..parts.len()).step_by(2).filter_map(code).collect()
}

/// Where a path that a document names lies.
fn place(path: &str) -> Option<PathBuf> {
    let places = ["src", ""].map(|folder| root().join(folder).join(path));
    places.into_iter().find(|place| place.exists())
}

fn text_at(path: &str) -> String {
    let text = place(path).and_then(|place| fs::read_to_string(place).ok());
    text.unwrap_or_default()
}

fn words(text: &str) -> impl Iterator<Item = &str> {
    text.split(|c: char| !c.is_alphanumeric() && c != '_')
        .filter(|word| !word.is_empty())
}

/// Whether a module declares a name, or has it from a module below.
fn declares(text: &str, name: &str) -> bool {
    let words: Vec<&str> = words(text).collect();
    let mut pairs = words.windows(2);
    pairs.any(|pair| DECLARING.contains(&pair[0]) && pair[1] == name) || passes_on(text, name)
}

/// Whether a module has a name of a module below it as its own.
fn passes_on(text: &str, name: &str) -> bool {
    let uses = text.split("pub use ").skip(1);
    let mut uses = uses.filter_map(|rest| Some(rest.split_once(';')?.0));
    uses.any(|names| words(names).any(|word| word == name))
}

/// Whether the crate has a module of this path, or a module that declares the rest of it.
fn is_item(path: &str) -> bool {
    let parts: Vec<&str> = path.split("::").collect();
    (1..=parts.len()).rev().any(|modules| {
        let (module, rest) = parts.split_at(modules);
        let module = module.join("/");
        let files = [format!("{module}.rs"), format!("{module}/mod.rs")];
        let file = files.iter().find(|file| place(file).is_some());
        file.is_some_and(|file| rest.iter().all(|name| declares(&text_at(file), name)))
    })
}

/// Whether a file has a test of this name: in this program its list says so, elsewhere an attribute
/// or a macro that makes one test for each version.
fn is_test(file: &str, name: &str, tests: &BTreeSet<String>) -> bool {
    if let Some(module) = file.strip_prefix("tests/it/") {
        let module = module.trim_end_matches(".rs").replace('/', "::");
        // One that runs with several kinds of databases has a room for each of them.
        let (module, name) = (format!("{module}::"), format!("::{name}"));
        let is_it = |test: &String| test.starts_with(&module) && test.ends_with(&name);
        return tests.iter().any(is_it);
    }
    let text = text_at(file);
    let lines: Vec<&str> = text.lines().map(str::trim).collect();
    let declared = format!("fn {name}(");
    let has_attribute = lines.iter().enumerate().any(|(i, line)| {
        let above = lines[..i].iter().rev();
        let mut above = above.take_while(|line| line.starts_with("#[") || line.starts_with("//"));
        line.contains(&declared)
            && above.any(|line| line.starts_with("#[") && line.contains("test"))
    });
    let mut made = text.split("\nfor_e").skip(1);
    has_attribute
        || made.any(|rest| {
            let list = rest.split_once(");").map_or("", |(list, _)| list);
            words(list).any(|word| word == name)
        })
}

/// The invariants, each with its title and its text in one line.
fn invariants(map: &str) -> Vec<(String, String)> {
    let section = map.split_once("\n## Invariants\n").map_or("", |(_, s)| s);
    let section = section.split("\n## ").next().unwrap_or_default();
    let mut found: Vec<(String, String)> = Vec::new();
    for line in section.lines() {
        let title = line.split_once(". **").filter(|(number, _)| {
            !number.is_empty() && number.bytes().all(|byte| byte.is_ascii_digit())
        });
        if let Some((number, title)) = title {
            let title = title.split("**").next().unwrap_or_default();
            found.push((format!("{number}. {title}"), String::new()));
        }
        if let Some((_, text)) = found.last_mut() {
            text.push_str(line.trim());
            text.push(' ');
        }
    }
    found
}

/// All that is wrong with what is said to hold and to test the invariants.
fn offences(map: &str, tests: &BTreeSet<String>) -> Vec<String> {
    let mut found = Vec::new();
    for (i, (title, text)) in invariants(map).into_iter().enumerate() {
        let mut offend = |what: String| found.push(format!("{title} {what}"));
        if !title.starts_with(&format!("{}. ", i + 1)) {
            offend("is out of order".to_owned());
        }
        let Some((held, tested)) = text
            .split_once(" - Held by ")
            .and_then(|(_, rest)| rest.split_once(" - Tested "))
        else {
            offend("does not say what holds it, and then what tests it".to_owned());
            continue;
        };
        offences_of_keepers(held).into_iter().for_each(&mut offend);
        offences_of_tests(tested, tests)
            .into_iter()
            .for_each(&mut offend);
    }
    found
}

fn offences_of_keepers(held: &str) -> Vec<String> {
    let codes = codes(held);
    let paths: Vec<&str> = codes
        .iter()
        .filter_map(|code| match code {
            Code::Path(path) => Some(*path),
            _ => None,
        })
        .collect();
    let mut found = Vec::new();
    for code in &codes {
        let exists = match code {
            Code::Path(path) => place(path).is_some(),
            Code::Item(item) => is_item(item),
            Code::Name(name) => paths
                .iter()
                .any(|path| words(&text_at(path)).any(|word| word == *name)),
        };
        if !exists {
            found.push(format!("is held by {code:?}, which is not there"));
        }
    }
    if codes.iter().all(|code| matches!(code, Code::Name(_))) {
        found.push("is held by no file".to_owned());
    }
    found
}

fn offences_of_tests(tested: &str, tests: &BTreeSet<String>) -> Vec<String> {
    let mut found = Vec::new();
    let mut file: Option<(&str, usize)> = None;
    let untested = |file: Option<(&str, usize)>| {
        let (file, _) = file.filter(|(_, tests)| *tests == 0)?;
        Some(format!("names no test in {file}"))
    };
    for code in codes(tested) {
        match (code, &mut file) {
            (Code::Path(path), _) => {
                found.extend(untested(file));
                file = Some((path, 0));
            }
            (Code::Name(name), Some((path, tests_named))) => {
                *tests_named += 1;
                if !is_test(path, name, tests) {
                    found.push(format!("is tested by {name}, which is not in {path}"));
                }
            }
            (Code::Name(other) | Code::Item(other), _) => {
                found.push(format!("is tested by {other}, in no file"));
            }
        }
    }
    found.extend(untested(file));
    if file.is_none() {
        found.push("is tested in no file".to_owned());
    }
    found
}

#[test]
fn links_of_the_documents_lead_somewhere() {
    assert_eq!(astray(&documents()), Vec::<String>::new());
}

#[test]
fn every_page_is_reached_from_the_readme() {
    let documents = documents();
    assert!(documents.len() > 40, "{:?}", documents.keys());
    assert_eq!(out_of_reach(&documents), Vec::<&str>::new());
}

#[test]
fn a_link_that_leads_nowhere_and_a_page_out_of_reach_are_found() {
    let pages = |readme: &str| {
        Documents::from([
            (FIRST_PAGE.to_owned(), readme.to_owned()),
            (
                "docs/page.md".to_owned(),
                "# A page\n\n```sh\n# no heading\n```\n\n[up](../README.md)\n".to_owned(),
            ),
        ])
    };
    for (readme, leads_astray) in [
        ("[page](docs/page.md)", false),
        ("[page](docs/page.md#a-page)", false),
        ("[page](docs/page.md#another)", true),
        ("[page](docs/page.md#no-heading)", true),
        ("[page](docs/page.md) [none](docs/nowhere.md)", true),
        ("[page](docs/page.md) [none](#nowhere)", true),
    ] {
        let pages = pages(readme);
        assert_eq!(!astray(&pages).is_empty(), leads_astray, "{readme}");
        assert_eq!(out_of_reach(&pages), Vec::<&str>::new(), "{readme}");
    }
    let alone = pages("nothing");
    assert_eq!(out_of_reach(&alone), ["docs/page.md"]);
}

#[test]
fn the_decisions_stand_in_order_each_once_and_a_number_without_a_page_is_named() {
    let index = text_at("docs/decisions/README.md");
    let number = |text: &str| {
        text.split_once('.')
            .and_then(|(number, _)| number.parse().ok())
    };
    let mut listed = Vec::new();
    for section in index.split("\n## ").skip(1) {
        let entries = section.lines().filter_map(|line| line.strip_prefix("- ["));
        let numbers: Vec<u32> = entries.filter_map(number).collect();
        assert!(numbers.is_sorted(), "{section}");
        listed.extend(numbers);
    }
    let pages = fs::read_dir(root().join("docs/decisions"))
        .expect("the pages")
        .flatten();
    let name = |page: fs::DirEntry| page.file_name().into_string().expect("a name");
    let mut pages: Vec<u32> = pages
        .filter_map(|page| name(page).split('-').next()?.parse().ok())
        .collect();
    listed.sort_unstable();
    pages.sort_unstable();
    assert_eq!(listed, pages);
    let head = index.split("\n## ").next().unwrap_or_default();
    let unused: Vec<u32> = words(head).filter_map(|word| word.parse().ok()).collect();
    let last = pages.last().copied().unwrap_or_default();
    let gaps: Vec<u32> = (1..last).filter(|number| !pages.contains(number)).collect();
    assert_eq!(gaps, unused);
}

#[test]
fn what_is_said_to_be_in_a_file_is_in_it() {
    let is_name = |text: &str| text.chars().all(|c| c.is_ascii_alphanumeric() || c == '_');
    let mut missing = Vec::new();
    for (page, text) in documents() {
        let joined = text.split_whitespace().collect::<Vec<_>>().join(" ");
        let parts: Vec<&str> = joined.split('`').collect();
        for (i, between) in parts.iter().enumerate() {
            let [Some(name), Some(file)] = [i.checked_sub(1), Some(i + 1)].map(|at| parts.get(at?))
            else {
                continue;
            };
            if i % 2 != 0 || *between != " in " || !file.ends_with(".rs") || !is_name(name) {
                continue;
            }
            if !text_at(file).contains(*name) {
                missing.push(format!("{page}: {name} in {file}"));
            }
        }
    }
    assert_eq!(missing, Vec::<String>::new());
}

#[test]
fn what_holds_and_tests_each_invariant_exists() {
    let map = text_at("ARCHITECTURE.md");
    assert!(invariants(&map).len() > 30, "{:?}", invariants(&map));
    assert_eq!(offences(&map, &tests()), Vec::<String>::new());
}

#[test]
fn the_links_of_the_map_into_the_crate_lead_to_something() {
    let map = text_at("ARCHITECTURE.md");
    let text = prose(&map).collect::<Vec<_>>().join("\n");
    // The crate's own pages find them by their paths, since the map is the page of the crate itself.
    let items: BTreeSet<&str> = codes(&text)
        .into_iter()
        .filter_map(|code| match code {
            Code::Item(item) => Some(item),
            Code::Path(_) | Code::Name(_) => None,
        })
        .collect();
    assert!(items.len() > 50, "{items:?}");
    for item in items {
        assert!(is_item(item), "{item} leads nowhere");
    }
}

#[test]
fn a_keeper_or_a_test_that_does_not_exist_is_found() {
    const SOUND: &str = "
## Invariants

1. **All is well.** It is.
   - Held by `sources` in `tests/it/tidy.rs`, `operation/` and
     [`store::Store::read`].
   - Tested in `tests/it/tidy_docs.rs`: `a_keeper_or_a_test_that_does_not_exist_is_found`;
     `model/ids.rs`: `own_ids_are_24_hex_digits_and_sort_by_age`; with every version in
     `engine/etcd/tests/full.rs`: `finds_who_came_in`.
2. **So it stays.** It does.
   - Held by [`model::limits`].
   - Tested in `tests/it/tidy_docs.rs`: `every_page_is_reached_from_the_readme`.

## Walks
";
    let tests = tests();
    assert_eq!(offences(SOUND, &tests), Vec::<String>::new());
    for (right, wrong) in [
        ("`operation/`", "`operations/`"),
        ("`sources`", "`poetry`"),
        ("[`store::Store::read`]", "[`store::Store::guess`]"),
        ("[`model::limits`]", "[`model::bounds`]"),
        ("   - Held by [`model::limits`].\n", ""),
        ("[`model::limits`]", "the limits"),
        ("[`model::limits`]", "`limits`"),
        ("`every_page_is_reached_from_the_readme`", "`no_page_is`"),
        ("`every_page_is_reached_from_the_readme`", "`documents`"),
        (": `every_page_is_reached_from_the_readme`", ""),
        ("`own_ids_are_24_hex_digits_and_sort_by_age`", "`new`"),
        ("`model/ids.rs`", "`model/names.rs`"),
        // A function of that file, and no test.
        ("`finds_who_came_in`", "`fill_up`"),
        ("2. **So", "3. **So"),
    ] {
        assert!(SOUND.contains(right), "{right}");
        let broken = SOUND.replacen(right, wrong, 1);
        assert!(!offences(&broken, &tests).is_empty(), "{right}: {wrong}");
    }
}
