//! Names of the instances that the broker makes by itself, and of deployments. Platforms name their
//! instances as they like.

use std::str::FromStr;

use chrono::{DateTime, Utc};

use super::{
    ids::InstanceId,
    limits::{DEPLOYMENT_NAMES_BYTES_MAX, INSTANCE_NAME_CHARS_MAX},
};

/// How deployments are called: a text with `{instance}` in it, and where wanted with `{engine}` and
/// `{cluster}`. Scripts cut the instance's id out of the name, so each installation has the form that
/// its scripts know.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DeploymentNames(String);

const INSTANCE: &str = "{instance}";
const ENGINE: &str = "{engine}";
const CLUSTER: &str = "{cluster}";

/// A text is no form of names.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "{0:?} is no form of names: it needs {INSTANCE} once, may have {ENGINE} and {CLUSTER}, and has \
     up to {DEPLOYMENT_NAMES_BYTES_MAX} letters, digits and the characters - _ . beside them"
)]
pub struct DeploymentNamesError(String);

impl FromStr for DeploymentNames {
    type Err = DeploymentNamesError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let rest = [INSTANCE, ENGINE, CLUSTER]
            .iter()
            .fold(text.to_owned(), |rest, place| rest.replace(place, ""));
        let is_plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
        if text.matches(INSTANCE).count() == 1
            && text.len() <= DEPLOYMENT_NAMES_BYTES_MAX
            && rest.chars().all(is_plain)
        {
            Ok(Self(text.to_owned()))
        } else {
            Err(DeploymentNamesError(text.to_owned()))
        }
    }
}

impl DeploymentNames {
    /// The name of an instance's deployment.
    pub fn name(&self, engine: &str, cluster: &str, instance: &InstanceId) -> String {
        // The id comes last: whatever a platform has in it stays as it is.
        self.0
            .replace(ENGINE, engine)
            .replace(CLUSTER, cluster)
            .replace(INSTANCE, instance.as_str())
    }
}

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
    fn deployments_are_called_in_the_form_that_scripts_know() {
        let called = |form: &str, instance: &str| {
            let form: DeploymentNames = form.parse().expect("a form");
            form.name("etcd", "blue", &instance.parse().expect("an id"))
        };
        for (form, instance, name) in [
            (
                "compose-broker-{engine}-{instance}",
                "i-1",
                "compose-broker-etcd-i-1",
            ),
            ("bmix-eu-yp-{instance}", "i", "bmix-eu-yp-i"),
            (
                "{cluster}_{instance}.{engine}",
                "{engine} {cluster}",
                "blue_{engine} {cluster}.etcd",
            ),
        ] {
            assert_eq!(called(form, instance), name);
        }
        let longer = format!("{{instance}}{}", "x".repeat(DEPLOYMENT_NAMES_BYTES_MAX));
        for bad in [
            "",
            "x",
            "{instance}{instance}",
            "{instance} x",
            "{instance}-{plan}",
            "{instance}/",
            &longer,
        ] {
            assert!(bad.parse::<DeploymentNames>().is_err(), "{bad:?}");
        }
    }

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
