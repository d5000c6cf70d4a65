//! No circle inside a room: files that use each other can only be understood together.
//!
//! The rule: no file of a room may use, over any number of others, one that uses it, where a file
//! uses another one when a path in its code leads to what the other one defines, through whatever
//! re-exports, and a parent and what is below it are one family, whose uses of each other do not
//! count.
//!
//! So a `mod.rs` may define a trait or a type that its children need and build the children, as most
//! here do. What the `impl` blocks of one type call of each other is not seen: a call of a method
//! names no path.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use crate::tidy::{is_test, paths, root, sources, without_tests, without_texts};

/// Re-exports that a name is followed through.
const REEXPORTS_MAX: usize = 8;

/// A module's place, such as `["http", "osb", "view"]`.
type Place = Vec<String>;

/// One file, as far as paths tell of it.
#[derive(Default)]
struct Module {
    /// Names of the modules that it declares.
    children: BTreeSet<String>,
    /// What its `use` lines say.
    imports: Vec<Import>,
    /// The paths in its other code.
    paths: Vec<String>,
}

/// One name that a file imports.
struct Import {
    /// The name that it has in that file.
    name: String,
    path: String,
    /// Whether it is a re-export, which is no use by itself.
    public: bool,
}

/// The files of the crate, by their places.
struct House(BTreeMap<Place, Module>);

impl House {
    /// Reads files, whose paths are relative to `src`.
    fn new(files: &[(String, String)]) -> Self {
        let mut modules = BTreeMap::new();
        let code = files.iter().filter(|(path, _)| !is_test(path));
        for (path, text) in code {
            modules.insert(place_of(path), module(text));
        }
        let places: Vec<Place> = modules.keys().cloned().collect();
        for place in places {
            if let Some((name, parent)) = place.split_last()
                && let Some(parent) = modules.get_mut(parent)
            {
                parent.children.insert(name.clone());
            }
        }
        Self(modules)
    }

    /// The file of the same room that defines what `path` names, when it is read in `place`.
    fn leads_to(&self, place: &Place, path: &str) -> Option<Place> {
        let found = self.resolve(place, path, 0)?;
        let same_room = found.first() == place.first();
        let one_holds_the_other = found.starts_with(place) || place.starts_with(&found);
        (same_room && !one_holds_the_other).then_some(found)
    }

    /// The file that defines what `path` names. `depth`: re-exports that led here.
    fn resolve(&self, place: &Place, path: &str, depth: usize) -> Option<Place> {
        let mut parts = path.split("::").peekable();
        let mut at = place.clone();
        match *parts.peek()? {
            "crate" => {
                parts.next();
                at.clear();
            }
            "self" => {
                parts.next();
            }
            "super" => {}
            child if self.0.get(place)?.children.contains(child) => {}
            _ => return None,
        }
        while parts.next_if_eq(&"super").is_some() {
            at.pop()?;
        }
        let parts: Vec<&str> = parts.collect();
        for (i, part) in parts.iter().enumerate() {
            let mut child = at.clone();
            child.push((*part).to_owned());
            if self.0.contains_key(&child) {
                at = child;
                continue;
            }
            let imports = &self.0.get(&at)?.imports;
            // What is imported there is defined elsewhere.
            if let Some(import) = imports.iter().find(|import| import.name == *part)
                && depth < REEXPORTS_MAX
            {
                let rest = parts[i + 1..].iter().map(|part| format!("::{part}"));
                let path = import.path.clone() + &rest.collect::<String>();
                return self.resolve(&at, &path, depth + 1);
            }
            break;
        }
        self.0.contains_key(&at).then_some(at)
    }

    /// Each file with those of its room that it uses.
    fn uses(&self) -> BTreeMap<Place, BTreeSet<Place>> {
        let uses = self.0.iter().map(|(place, module)| {
            let imports = module.imports.iter().filter(|import| !import.public);
            let paths = imports.map(|import| &import.path).chain(&module.paths);
            let used = paths.filter_map(|path| self.leads_to(place, path));
            (place.clone(), used.collect())
        });
        uses.collect()
    }

    /// Every circle once, such as `http::error -> http::osb -> http::error`, the shortest through
    /// each file.
    fn circles(&self) -> BTreeSet<String> {
        let uses = self.uses();
        let circles = uses.keys().filter_map(|place| circle(&uses, place));
        circles.map(|circle| told(&circle)).collect()
    }
}

/// The shortest way from `start` back to it.
fn circle(uses: &BTreeMap<Place, BTreeSet<Place>>, start: &Place) -> Option<Vec<Place>> {
    let mut ways = VecDeque::from([vec![start.clone()]]);
    let mut seen = BTreeSet::new();
    while let Some(way) = ways.pop_front() {
        for next in uses.get(way.last()?)? {
            if next == start {
                return Some(way);
            }
            if seen.insert(next.clone()) {
                ways.push_back(way.iter().chain([next]).cloned().collect());
            }
        }
    }
    None
}

/// A circle in words, beginning with the file whose name comes first.
fn told(circle: &[Place]) -> String {
    let mut names: Vec<String> = circle.iter().map(|place| place.join("::")).collect();
    let first = (0..names.len()).min_by_key(|&i| &names[i]);
    names.rotate_left(first.unwrap_or_default());
    names.push(names[0].clone());
    names.join(" -> ")
}

fn place_of(path: &str) -> Place {
    let path = path.trim_end_matches(".rs");
    let path = path.strip_suffix("/mod").unwrap_or(path);
    path.split('/').map(str::to_owned).collect()
}

fn module(text: &str) -> Module {
    let code = without_tests(&without_texts(text));
    let mut module = Module::default();
    let mut other = String::new();
    let mut code = code.as_str();
    while let Some((before, public, import, after)) = next_import(code) {
        other.push_str(before);
        module.imports.extend(imports(import, public));
        code = after;
    }
    other.push_str(code);
    let paths = paths(&other).into_iter();
    module.paths = paths.filter(|path| path.contains("::")).collect();
    module
}

/// The first `use` of the code: what is before it, whether it is public, what it says, what is after it.
fn next_import(code: &str) -> Option<(&str, bool, &str, &str)> {
    let starts = code.match_indices("use ").map(|(i, _)| i);
    for start in starts {
        let before = code[..start].trim_end();
        let line = before.rsplit([';', '}', '{', ']']).next()?.trim();
        if !(line.is_empty() || line == "pub" || line.starts_with("pub(") && line.ends_with(')')) {
            continue;
        }
        let (import, after) = code[start + "use ".len()..].split_once(';')?;
        return Some((&code[..start], line.starts_with("pub"), import, after));
    }
    None
}

fn imports(import: &str, public: bool) -> Vec<Import> {
    let mut found: Vec<Import> = Vec::new();
    let mut words = paths(import).into_iter();
    while let Some(path) = words.next() {
        if path == "as" {
            if let (Some(last), Some(name)) = (found.last_mut(), words.next()) {
                last.name = name;
            }
            continue;
        }
        let path = path.strip_suffix("::self").unwrap_or(&path).to_owned();
        let name = path.rsplit("::").next().unwrap_or(&path).to_owned();
        found.push(Import { name, path, public });
    }
    found
}

#[test]
fn no_files_of_a_room_use_each_other() {
    let house = House::new(&sources(&root().join("src")));
    let circles: Vec<String> = house.circles().into_iter().collect();
    assert_eq!(circles, Vec::<String>::new());
    // And they were read.
    let uses = house.uses();
    let uses: usize = uses.values().map(BTreeSet::len).sum();
    assert!(uses > 300, "{uses} uses");
}

/// The circles of a room whose files these are.
fn circles_of(files: &[(&str, &str)]) -> Vec<String> {
    let texts = files.iter().map(|(path, code)| {
        let text = format!("//! A file.\n{code}");
        ((*path).to_owned(), text)
    });
    let house = House::new(&texts.collect::<Vec<_>>());
    house.circles().into_iter().collect()
}

#[test]
fn a_circle_is_found_whatever_its_paths_look_like() {
    for (there, back) in [
        ("use super::b::B;", "use super::a::A;"),
        (
            "use super::{b::{B, C}, d};",
            "fn f() { crate::room::a::f() }",
        ),
        (
            "use crate::room::b;",
            "use crate::{other, room::{a::A as X}};",
        ),
        // Through what the parent re-exports.
        ("use super::B;", "use super::a;"),
        (
            "fn f() -> super::B { todo!() }",
            "fn f() -> super::a::A { todo!() }",
        ),
    ] {
        let found = circles_of(&[
            ("room/mod.rs", "mod a;\nmod b;\npub use b::B;\n"),
            ("room/a.rs", there),
            ("room/b.rs", back),
        ]);
        assert_eq!(found, ["room::a -> room::b -> room::a"], "{there} {back}");
    }
    let longer = circles_of(&[
        ("room/mod.rs", ""),
        ("room/a/mod.rs", "mod c;"),
        ("room/a/c.rs", "use crate::room::b::B;"),
        ("room/b.rs", "use super::d;"),
        ("room/d.rs", "use super::a::c;"),
    ]);
    assert_eq!(longer, ["room::a::c -> room::b -> room::d -> room::a::c"]);
}

#[test]
fn what_goes_one_way_is_no_circle() {
    for (parent, a, b) in [
        // One of them alone.
        ("", "use super::b::B;", "use std::fmt;"),
        // A comment, a text and a test are no use.
        ("", "use super::b::B;", "/// See [`super::a`].\nfn f() {}"),
        ("", "use super::b::B;", "const S: &str = \"use super::a;\";"),
        (
            "",
            "use super::b::B;",
            "#[cfg(test)]\nmod tests {\n    use super::super::a;\n}",
        ),
        // Another room's file of the same name.
        ("", "use super::b::B;", "use crate::other::a::A;"),
        // A parent that re-exports, and one that builds its children.
        ("pub use a::A;\npub(crate) use b::B;", "use super::B;", ""),
        (
            "use a::A;\npub struct P;\nfn f() { b::g() }",
            "use super::P;",
            "use super::P;",
        ),
    ] {
        let files = [("room/mod.rs", parent), ("room/a.rs", a), ("room/b.rs", b)];
        assert_eq!(circles_of(&files), Vec::<String>::new(), "{parent} {a} {b}");
    }
}
