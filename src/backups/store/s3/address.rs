//! Addresses of stores in buckets, such as `s3://backups/broker`.

use std::fmt;

use object_store::path::Path;
use url::Url;

use super::settings::{Addressing, S3Settings};
use crate::backups::{ObjectName, name::is_part};

/// How these addresses are written, for people.
pub(super) const FORM: &str = "s3:// and a bucket, or a bucket, / and a prefix";

/// The bytes of a bucket's name.
const BUCKET_BYTES: std::ops::RangeInclusive<usize> = 3..=63;
/// The bytes of a prefix at most: with the longest name of an object, a key stays below S3's 1024.
const PREFIX_BYTES_MAX: usize = 256;

/// A bucket, and where in it the store is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Address {
    pub(super) bucket: String,
    /// What all keys begin with, with `/` at its end; empty where the bucket is the store.
    pub(super) prefix: String,
}

impl Address {
    /// Reads what stands behind `s3://`.
    pub(super) fn read(text: &str) -> Result<Self, String> {
        let (bucket, prefix) = text.split_once('/').unwrap_or((text, ""));
        let prefix = prefix.strip_suffix('/').unwrap_or(prefix);
        let allowed =
            |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-' || c == '.';
        let ends = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit();
        let is_bucket = BUCKET_BYTES.contains(&bucket.len())
            && bucket.chars().all(allowed)
            && bucket.starts_with(ends)
            && bucket.ends_with(ends)
            && !bucket.contains("..");
        if !is_bucket {
            return Err(format!("is not {FORM}"));
        }
        let is_prefix = prefix.is_empty() || prefix.split('/').all(is_part);
        if !is_prefix || prefix.len() > PREFIX_BYTES_MAX {
            return Err(format!(
                "has a prefix that is not made of letters, digits, \".\", \"_\" and \"-\" with / between \
                 its parts, {PREFIX_BYTES_MAX} bytes in all"
            ));
        }
        let prefix = match prefix {
            "" => String::new(),
            prefix => format!("{prefix}/"),
        };
        Ok(Self {
            bucket: bucket.to_owned(),
            prefix,
        })
    }

    /// Where the bucket is.
    pub(super) fn bucket_url(&self, settings: &S3Settings) -> Result<Url, String> {
        let server = match &settings.endpoint {
            Some(endpoint) => endpoint.clone(),
            None => {
                let region = &settings.region;
                let of_china = if region.starts_with("cn-") { ".cn" } else { "" };
                let server = format!("https://s3.{region}.amazonaws.com{of_china}/");
                Url::parse(&server).map_err(|_| format!("{region:?} is no region"))?
            }
        };
        // A certificate for all buckets of a server is not one for names with dots in them.
        let by_host = match settings.addressing {
            Some(addressing) => addressing == Addressing::Host,
            None => settings.endpoint.is_none() && !self.bucket.contains('.'),
        };
        let mut url = server;
        if by_host {
            let host = format!("{}.{}", self.bucket, url.host_str().unwrap_or_default());
            let set = url.set_host(Some(&host));
            set.map_err(|_| format!("{host:?} is no name of a host"))?;
        } else {
            let folder = url.path().trim_end_matches('/').to_owned();
            url.set_path(&format!("{folder}/{}", self.bucket));
        }
        Ok(url)
    }

    /// The key of an object.
    pub(super) fn key(&self, name: &ObjectName) -> Path {
        Path::from(format!("{}{name}", self.prefix))
    }

    /// The key of what is no object, such as the marker.
    pub(super) fn hidden(&self, name: &str) -> Path {
        Path::from(format!("{}{name}", self.prefix))
    }

    /// The object that has this key; none where it is that of something else.
    pub(super) fn name(&self, key: &str) -> Option<ObjectName> {
        ObjectName::found(key.strip_prefix(&self.prefix)?)
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let prefix = self.prefix.trim_end_matches('/');
        match prefix {
            "" => write!(f, "s3://{}", self.bucket),
            prefix => write!(f, "s3://{}/{prefix}", self.bucket),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_is_a_bucket_and_maybe_a_prefix() {
        for (text, bucket, prefix) in [
            ("backups", "backups", ""),
            ("backups/", "backups", ""),
            ("my.backups-1/broker", "my.backups-1", "broker/"),
            ("backups/a/b_c/", "backups", "a/b_c/"),
        ] {
            let address = Address::read(text).expect("an address");
            assert_eq!(
                (address.bucket.as_str(), address.prefix.as_str()),
                (bucket, prefix)
            );
            let shown = format!("s3://{}", text.trim_end_matches('/'));
            assert_eq!(address.to_string(), shown);
        }
        for text in [
            "",
            "/",
            "ab",
            "Backups",
            "-backups",
            "backups.",
            "back..ups",
            "back_ups",
            "back ups",
            "user:word@backups",
            "backups/../x",
            "backups//x",
            "backups/.x",
            "backups/x y",
        ] {
            assert!(Address::read(text).is_err(), "{text}");
        }
    }

    #[test]
    fn a_bucket_stands_in_the_path_of_a_server_that_is_named_and_in_the_host_of_amazon() {
        let url = |text: &str, settings: &S3Settings| {
            let address = Address::read(text).expect("an address");
            address.bucket_url(settings).expect("a URL").to_string()
        };
        let mut settings = S3Settings {
            region: "eu-west-1".to_owned(),
            ..S3Settings::default()
        };
        assert_eq!(
            url("backups/x", &settings),
            "https://backups.s3.eu-west-1.amazonaws.com/"
        );
        assert_eq!(
            url("back.ups", &settings),
            "https://s3.eu-west-1.amazonaws.com/back.ups"
        );
        settings.endpoint = Some(Url::parse("http://127.0.0.1:9000").expect("a URL"));
        assert_eq!(url("backups", &settings), "http://127.0.0.1:9000/backups");
        settings.endpoint = Some(Url::parse("https://s3.test:9000/under/").expect("a URL"));
        assert_eq!(
            url("backups", &settings),
            "https://s3.test:9000/under/backups"
        );
        settings.addressing = Some(Addressing::Host);
        assert_eq!(
            url("backups", &settings),
            "https://backups.s3.test:9000/under/"
        );
    }
}
