//! Only an engine's own folder speaks its language: a second engine finds no rule that was made for the
//! first.

use crate::tidy::{file_without_tests, is_test, root, sources};

/// What etcd alone has or calls so.
const WORDS: [&str; 6] = [
    "etcd",
    "revision",
    "peer",
    "learner",
    "nospace",
    "snapshot.db",
];

/// Where a word stands nevertheless, and why: a file or a folder of `src`, the word, the reason.
const ALLOWED: &[(&str, &str, &str)] = &[
    ("engine/etcd/", "", "the engine itself"),
    ("engine/mod.rs", "etcd", "the list of engines"),
    (
        "model/limits.rs",
        "etcd",
        "reasons for numbers that were measured on it",
    ),
    ("model/proxy.rs", "peer", "the other end of a connection"),
    ("http/gate.rs", "peer", "the other end of a connection"),
    ("http/origin.rs", "peer", "the other end of a connection"),
    ("http/server.rs", "peer", "the other end of a connection"),
    ("http/trace.rs", "peer", "the other end of a connection"),
    ("http/operator/members.rs", "revision", "a field of the API"),
    ("http/compose/restore.rs", "revision", "a field of the API"),
    ("http/openapi/requests.rs", "revision", "a field of the API"),
    ("model/parameters.rs", "revision", "a parameter"),
    ("broker/instance.rs", "revision", "a parameter"),
    ("broker/restore.rs", "revision", "a parameter"),
    (
        "http/compose/view/backup.rs",
        "revision",
        "a field of the API",
    ),
    (
        "provisioner/kubernetes/objects.rs",
        "revision",
        "a field of the cluster's API",
    ),
    (
        "http/compose/mod.rs",
        "snapshot.db",
        "a file of the download",
    ),
    ("backups/archive.rs", "revision", "of the archive's form"),
    (
        "model/backup.rs",
        "snapshot.db",
        "the name of stored objects and of a file of the download",
    ),
    ("backups/samples.rs", "etcd", "a sample for tests"),
    ("backups/samples.rs", "revision", "a sample for tests"),
    ("client/recover.rs", "revision", "a field of the API"),
    (
        "client/environment.rs",
        "etcd",
        "what etcdctl goes by, for `service-key --env`",
    ),
    (
        "client/keys.rs",
        "etcd",
        "the refusal of `service-key --env` for another engine's credentials",
    ),
    (
        "client/command.rs",
        "etcd",
        "the help of `service-key --env`",
    ),
];

/// The words of etcd that stand in a file.
fn words_in(text: &str) -> Vec<&'static str> {
    let text = file_without_tests(text).to_lowercase();
    let stands = |word: &&str| {
        let begins = |at: usize| !text[..at].ends_with(|c: char| c.is_ascii_alphanumeric());
        text.match_indices(*word).any(|(at, _)| begins(at))
    };
    WORDS.into_iter().filter(stands).collect()
}

/// Whether a line of [`ALLOWED`] is about a word in a file.
fn allows((place, allowed, _): &(&str, &str, &str), path: &str, word: &str) -> bool {
    path.starts_with(place) && (allowed.is_empty() || *allowed == word)
}

/// The words of etcd that stand in a file and may not. `path` is relative to `src`.
fn offences(path: &str, text: &str) -> Vec<&'static str> {
    let mut words = words_in(text);
    words.retain(|word| !ALLOWED.iter().any(|line| allows(line, path, word)));
    words
}

#[test]
fn only_an_engine_s_own_folder_speaks_its_language() {
    let mut found = Vec::new();
    for (path, text) in sources(&root().join("src")) {
        if !is_test(&path) {
            let words = offences(&path, &text).into_iter();
            found.extend(words.map(|word| format!("src/{path}: {word}")));
        }
    }
    for (path, text) in templates() {
        let words = offences(&path, &text).into_iter();
        found.extend(words.map(|word| format!("{path}: {word}")));
    }
    found.sort();
    assert_eq!(found, Vec::<String>::new());
}

/// One that nothing needs any more would let the word come back unseen.
#[test]
fn every_word_that_may_stand_somewhere_stands_there() {
    let mut unused: Vec<_> = ALLOWED.iter().collect();
    for (path, text) in sources(&root().join("src")) {
        if !is_test(&path) {
            let words = words_in(&text);
            unused.retain(|line| !words.iter().any(|word| allows(line, &path, word)));
        }
    }
    assert_eq!(unused, Vec::<&(&str, &str, &str)>::new());
    let folders = ALLOWED
        .iter()
        .filter(|(place, word, _)| word.is_empty() && !place.ends_with('/'));
    assert_eq!(folders.count(), 0, "a file says which word it has");
}

/// The templates of pages, by their names from the root.
fn templates() -> Vec<(String, String)> {
    let folder = std::fs::read_dir(root().join("templates")).expect("the templates");
    let read = |entry: std::io::Result<std::fs::DirEntry>| {
        let path = entry.expect("a template").path();
        let name = path.strip_prefix(root()).expect("below the root");
        let text = std::fs::read_to_string(&path).expect("its text");
        (name.display().to_string(), text)
    };
    folder.map(read).collect()
}

#[test]
fn every_word_is_found_where_it_may_not_stand() {
    let found = |text: &str| offences("broker/binding.rs", text);
    assert_eq!(found("let port = etcd::port();"), ["etcd"]);
    assert_eq!(found("/// The newest revision."), ["revision"]);
    assert_eq!(found("member.peer_port"), ["peer"]);
    assert_eq!(found("No member is a learner."), ["learner"]);
    assert_eq!(
        found("const NAME: &str = \"snapshot.db\";"),
        ["snapshot.db"]
    );
    assert_eq!(found("fn speeper() {}"), [""; 0]);
    let tests = "#[cfg(test)]\nmod samples;\nfn f() {}\n#[cfg(test)]\nmod tests {\n// etcd\n}";
    assert_eq!(found(tests), [""; 0]);
    assert_eq!(found(&tests.replace("f()", "etcd()")), ["etcd"]);
    let between = "#[cfg(test)]\nimpl T { const A: &str = \"{ etcd\"; }\nfn f() {} // etcd";
    assert_eq!(found(between), ["etcd"], "after what is for tests");
    assert_eq!(found(between.trim_end_matches("etcd")), [""; 0]);
}
