//! The byte order mark that some editors put in front of a text in UTF-8. It says nothing there and
//! is no part of what somebody wrote.

/// The text without the mark.
pub fn without_bom(text: &str) -> &str {
    text.strip_prefix('\u{feff}').unwrap_or(text)
}

/// The bytes of a text without the mark.
pub fn bytes_without_bom(text: &[u8]) -> &[u8] {
    text.strip_prefix("\u{feff}".as_bytes()).unwrap_or(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_mark_goes_and_nothing_else() {
        for (text, rest) in [
            ("\u{feff}{}", "{}"),
            ("{}\u{feff}", "{}\u{feff}"),
            (" {}", " {}"),
            ("", ""),
        ] {
            assert_eq!(without_bom(text), rest);
            assert_eq!(bytes_without_bom(text.as_bytes()), rest.as_bytes());
        }
    }
}
