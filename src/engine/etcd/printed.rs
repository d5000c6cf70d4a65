//! What members print.
//!
//! etcd tells of requests that take long, logins among them: with the name of the user, without the
//! password, and with most of the token that the login gives. The rest of it is a number that can be
//! guessed, and a token of the administrator is as good as his password for as long as it is used.

/// Stands before such a token.
const TOKEN: &str = "simple_token:";
/// Stands in its place.
const REMOVED: &str = "[removed]";

/// Lines without tokens.
pub(super) fn without_secrets(printed: &str) -> String {
    let mut rest = printed;
    let mut clean = String::with_capacity(printed.len());
    while let Some((before, token)) = rest.split_once(TOKEN) {
        clean.push_str(before);
        clean.push_str(TOKEN);
        clean.push_str(REMOVED);
        let ends = |c: char| c.is_whitespace() || ">\",}".contains(c);
        rest = &token[token.find(ends).unwrap_or(token.len())..];
    }
    clean + rest
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn the_tokens_of_slow_logins_are_left_out() {
        let line = |token| {
            format!(
                "2026-11-22 17:46:05.627330 W | etcdserver: request \"header:<ID:1 > \
                 authenticate:<name:root simple_token:{token}>\" with result \"size:48\" took too \
                 long (101.046322ms) to execute\n"
            )
        };
        let two = [line("HIykNgaWvVAAbFpl"), line("UCYfHsDDWVoasjkd")].concat();
        assert_eq!(without_secrets(&two), line("[removed]").repeat(2));
        assert_eq!(
            without_secrets("simple_token:abc"),
            "simple_token:[removed]"
        );
        let harmless = "auth: simple token is not cryptographically signed\n";
        assert_eq!(without_secrets(harmless), harmless);
    }

    proptest! {
        #[test]
        fn no_token_comes_through(before in any::<String>(), token in "[a-zA-Z]{16}(\\.[0-9]{1,9})?", after in "([>\" \n].*)?") {
            let printed = format!("{before}{TOKEN}{token}{after}");
            prop_assume!(!before.contains(&token) && !after.contains(&token));
            prop_assert!(!without_secrets(&printed).contains(&token));
        }
    }
}
