//! Names of the instances that the broker makes by itself. Platforms name theirs as they like.

use chrono::{DateTime, Utc};

use super::limits::INSTANCE_NAME_CHARS_MAX;

/// A text is no name.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "{0:?} is no name for an instance; give up to {INSTANCE_NAME_CHARS_MAX} letters, digits and \
     the characters - _ . with a letter or a digit first"
)]
pub struct NameError(String);

/// Checks a name that a user chose. It can stand in every command line as it is: nothing in it
/// needs quotes, and it is never taken for an option.
pub fn check(name: &str) -> Result<(), NameError> {
    let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
    let begins_well = name.starts_with(|c: char| c.is_ascii_alphanumeric());
    if begins_well && name.len() <= INSTANCE_NAME_CHARS_MAX && name.chars().all(plain) {
        Ok(())
    } else {
        Err(NameError(name.to_owned()))
    }
}

/// The names for what is restored at a moment and was given none, the first one first: with the
/// time in UTC, then numbered.
pub fn of_restore(engine: &str, at: DateTime<Utc>) -> impl Iterator<Item = String> {
    let name = format!("{engine}-restore-{}", at.format("%Y-%m-%d-%H-%M-%S"));
    let numbered = {
        let name = name.clone();
        (2_u32..).map(move |number| format!("{name}-{number}"))
    };
    std::iter::once(name).chain(numbered)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn names_that_need_no_quotes_are_names() {
        let longest = "x".repeat(INSTANCE_NAME_CHARS_MAX);
        for good in ["a", "7", "my-copy_2.old", longest.as_str()] {
            assert_eq!(check(good), Ok(()), "{good}");
        }
        let longer = "x".repeat(INSTANCE_NAME_CHARS_MAX + 1);
        for bad in [
            "", "-x", ".x", "_x", "a b", "a/b", "ä", "a\n", "<b>", &longer,
        ] {
            assert!(check(bad).is_err(), "{bad:?}");
        }
    }

    proptest! {
        #[test]
        fn made_names_are_names_and_differ(second in 0_i64..4_102_444_800) {
            let at = DateTime::from_timestamp(second, 0).expect("a time");
            let names: Vec<String> = of_restore("etcd", at).take(12).collect();
            for (i, name) in names.iter().enumerate() {
                prop_assert_eq!(check(name), Ok(()));
                prop_assert!(!names[..i].contains(name));
            }
        }
    }

    #[test]
    fn a_made_name_tells_what_when() {
        let at = DateTime::from_timestamp(1_795_355_851, 0).expect("a time");
        let names: Vec<String> = of_restore("etcd", at).take(2).collect();
        let first = format!("etcd-restore-{}", at.format("%Y-%m-%d-%H-%M-%S"));
        assert_eq!(names, [first.clone(), format!("{first}-2")]);
        assert_eq!(first, "etcd-restore-2026-11-22-13-57-31");
    }
}
