//! How words begin a sentence, how they follow a number, and how a choice is offered.

/// The same words with a capital letter in front.
pub fn capitalized(words: &str) -> String {
    let mut letters = words.chars();
    let first = letters.next().map(char::to_uppercase);
    first.into_iter().flatten().chain(letters).collect()
}

/// `1 day`, `3 days`.
pub fn counted(count: impl TryInto<i64>, unit: &str) -> String {
    let count = count.try_into().unwrap_or(i64::MAX);
    let plural = if count == 1 { "" } else { "s" };
    format!("{count} {unit}{plural}")
}

/// `is` after one, `are` after any other number.
pub fn is_or_are(count: impl TryInto<i64>) -> &'static str {
    if count.try_into().unwrap_or(i64::MAX) == 1 {
        "is"
    } else {
        "are"
    }
}

/// A choice among `listed`: they follow the words `choose`. Where there are none, `otherwise` stands instead.
pub fn choice(choose: &str, listed: &str, otherwise: &str) -> String {
    match listed {
        "" => otherwise.to_owned(),
        listed => format!("{choose}: {listed}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_follow_their_number() {
        assert_eq!(counted(1, "unit"), "1 unit");
        assert_eq!(counted(0_u32, "unit"), "0 units");
        assert_eq!(counted(u64::MAX, "unit"), format!("{} units", i64::MAX));
        assert_eq!([0, 1, 2].map(is_or_are), ["are", "is", "are"]);
        assert_eq!(choice("one of", "a, b", "there is none"), "one of: a, b");
        assert_eq!(choice("one of", "", "there is none"), "there is none");
    }
}
