//! Addresses of backup stores, as settings have them. That of a bucket may end in settings of its own, so that a
//! mirror, or a store of before, may be a bucket of another provider:
//! `s3://copies/broker?endpoint=https://s3.example.com&credentials_file=/etc/broker/copies`.

use url::form_urlencoded;

use super::{
    ConfigError,
    s3::{AwsSettings, S3Flags},
};
use crate::backups::{self, SharedPlace, StoreSettings};

/// What the settings say of all stores. An address may say otherwise of its own.
pub(super) struct StoreAddresses<'a> {
    flags: &'a S3Flags,
    aws: AwsSettings,
    of_all: StoreSettings,
}

impl<'a> StoreAddresses<'a> {
    pub(super) fn check(flags: &'a S3Flags, aws: AwsSettings) -> Result<Self, ConfigError> {
        let of_all = flags.check(&aws)?;
        Ok(Self { flags, aws, of_all })
    }

    /// Whatever is wrong with the settings. No store is reached with it.
    pub(super) fn unchecked(flags: &'a S3Flags) -> Self {
        Self {
            flags,
            aws: AwsSettings::default(),
            of_all: StoreSettings::default(),
        }
    }

    /// The place that an address leads to. What is wrong is told in one line.
    pub(super) fn place(&self, address: &str) -> Result<SharedPlace, String> {
        let split = address
            .starts_with("s3://")
            .then(|| address.split_once('?'));
        let Some((plain, own)) = split.flatten() else {
            return backups::place(address, &self.of_all);
        };
        let told = |reason: String| format!("{plain:?} {reason}");
        let mut flags = self.flags.clone();
        for (name, value) in form_urlencoded::parse(own.as_bytes()) {
            flags.set(&name, value.into_owned()).map_err(told)?;
        }
        let own = flags.check(&self.aws).map_err(|error| {
            let name = error.setting.replace("COMPOSE_BROKER_S3_", "");
            told(format!(
                "has a setting that is wrong: {} {}",
                name.to_lowercase(),
                error.reason
            ))
        })?;
        backups::place(plain, &own)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::s3::tests::flags_of;

    fn read<T>(address: &str, then: impl FnOnce(Result<SharedPlace, String>) -> T) -> T {
        let flags = flags_of(&["--s3-endpoint", "https://s3.test", "--s3-region=x"]);
        let stores = StoreAddresses::check(&flags, AwsSettings::default()).expect("settings");
        then(stores.place(address))
    }

    fn is_at(address: &str) -> String {
        read(address, |place| place.expect("a place").address())
    }

    fn refusal(address: &str) -> String {
        read(address, |place| place.expect_err("refused"))
    }

    #[test]
    fn a_bucket_is_where_all_are_unless_its_address_says_otherwise() {
        assert_eq!(is_at("s3://backups/b/"), "https://s3.test/backups/b");
        assert_eq!(is_at("s3://backups?part_mib=16"), "https://s3.test/backups");
        assert_eq!(
            is_at("s3://backups?endpoint=https://s3.other:9000&credentials_file=/etc/keys"),
            "https://s3.other:9000/backups"
        );
        assert_eq!(
            is_at("s3://backups?endpoint=https%3A%2F%2Fs3.other&addressing=host"),
            "https://backups.s3.other"
        );
        // Amazon's.
        assert_eq!(
            is_at("s3://backups?endpoint=&region=eu-west-1"),
            "https://backups.s3.eu-west-1.amazonaws.com"
        );
        // A folder's name may have what it likes.
        assert_eq!(is_at("file:///mnt/what?part_mib=1"), "/mnt/what?part_mib=1");
    }

    #[test]
    fn what_is_wrong_with_an_address_names_its_part() {
        for (address, reason) in [
            (
                "s3://backups?part_mib=1",
                "has a setting that is wrong: part_mib ",
            ),
            (
                "s3://backups?endpoint=minio:9000",
                "has a setting that is wrong: endpoint ",
            ),
            (
                "s3://backups?ca=certs/ca.pem",
                "has a setting that is wrong: ca ",
            ),
            (
                "s3://backups?checksum=none",
                "has no setting \"checksum\": there are endpoint, ",
            ),
            (
                "s3://backups?secret_access_key=hidden",
                "has no setting \"secret_access_key\"",
            ),
        ] {
            let told = refusal(address);
            assert!(
                told.starts_with(&format!("\"s3://backups\" {reason}")),
                "{told}"
            );
            assert!(!told.contains("hidden"), "{told}");
        }
        assert!(refusal("s3://Backups?part_mib=8").starts_with("\"s3://Backups\" is not "));
    }
}
