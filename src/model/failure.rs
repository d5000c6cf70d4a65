//! Errors as texts.

use std::error::Error;

use super::limits::ERROR_CHARS_MAX;

/// Stands for what is left out.
const LEFT_OUT: &str = "[left out]";
/// What a secret stands behind, in texts of programs and libraries.
const BEFORE_SECRETS: [&str; 6] = [
    "password",
    "passwd",
    "secret",
    "token",
    "authorization",
    "bearer",
];

/// An error with all its causes, in one line: for the log, and where an error has to go on as text. What an
/// error says of its cause already is not told again.
pub fn chain(error: &(dyn Error + 'static)) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(error) = source {
        let cause = error.to_string();
        if !text.ends_with(&cause) {
            text.push_str(": ");
            text.push_str(&cause);
        }
        source = error.source();
    }
    text
}

/// An error's text as it may be kept and shown to operators: of a bounded length, in one line, and
/// without what looks like a secret. No error of ours holds one; texts of other programs might.
pub fn kept(text: &str) -> String {
    let text: String = text
        .chars()
        .map(|c| if c.is_control() { ' ' } else { c })
        .collect();
    // Keys come at the end, or are all there is.
    let text = text.find("-----BEGIN").map_or_else(
        || text.clone(),
        |begin| format!("{}{LEFT_OUT}", &text[..begin]),
    );
    let mut words: Vec<String> = Vec::new();
    let mut hides = false;
    for word in text.split_whitespace() {
        let bare = word.to_lowercase();
        let names_one = BEFORE_SECRETS.iter().any(|name| bare.contains(name));
        let holds_one = names_one && bare.trim_end_matches(['=', ':']).contains(['=', ':']);
        words.push(match (hides || holds_one, word.split_once("://")) {
            (true, _) => LEFT_OUT.to_owned(),
            (false, Some((scheme, rest))) => format!("{scheme}://{}", without_user(rest)),
            (false, None) => word.to_owned(),
        });
        // `password: x`, `Bearer x`
        hides = names_one && (bare.ends_with([':', '=']) || bare.ends_with("bearer"));
    }
    words.join(" ").chars().take(ERROR_CHARS_MAX).collect()
}

/// What stands behind the scheme of an address, without who is to be let in there.
fn without_user(rest: &str) -> String {
    let end = rest.find(['/', '?', '#']).unwrap_or(rest.len());
    match rest[..end].rfind('@') {
        Some(at) => format!("{LEFT_OUT}{}", &rest[at..]),
        None => rest.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, thiserror::Error)]
    #[error("{text}")]
    struct Failed {
        text: &'static str,
        source: Option<Box<Failed>>,
    }

    #[test]
    fn causes_are_told_once() {
        for (texts, expected) in [
            (&["a"][..], "a"),
            (&["taking it", "no answer"], "taking it: no answer"),
            (
                &["taking it: no answer", "no answer"],
                "taking it: no answer",
            ),
            (&["a", "b", "b", "c"], "a: b: c"),
        ] {
            let nested = texts
                .iter()
                .rev()
                .fold(None, |source, text| Some(Box::new(Failed { text, source })));
            assert_eq!(chain(&*nested.expect("an error")), expected);
        }
    }

    #[test]
    fn what_is_kept_of_an_error_holds_no_secret_and_has_an_end() {
        for (text, expected) in [
            (
                "taking a snapshot: no answer within 20 s",
                "taking a snapshot: no answer within 20 s",
            ),
            (
                "etcdutl failed (exit status: 1): open /data/x: no such file",
                "etcdutl failed (exit status: 1): open /data/x: no such file",
            ),
            (
                "dial https://root:hunter2@127.0.0.1:2379/v3: refused",
                "dial https://[left out]@127.0.0.1:2379/v3: refused",
            ),
            (
                "password=hunter2 is wrong, and so is Password: hunter2 here",
                "[left out] is wrong, and so is Password: [left out] here",
            ),
            ("Authorization: hunter2", "Authorization: [left out]"),
            ("sent Bearer hunter2", "sent Bearer [left out]"),
            (
                "a key:\n-----BEGIN PRIVATE KEY-----\nhunter2",
                "a key: [left out]",
            ),
            ("authentication failed", "authentication failed"),
            ("a token is void", "a token is void"),
        ] {
            assert_eq!(kept(text), expected);
        }
        assert_eq!(kept(&"x".repeat(9999)).chars().count(), ERROR_CHARS_MAX);
    }
}
