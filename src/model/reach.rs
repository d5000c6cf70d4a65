//! Where applications reach members: what is wanted of a cluster, and what its provisioner makes of it.

use core::net::{IpAddr, Ipv4Addr};
use std::collections::BTreeMap;

use super::{
    address::{Address, is_here_alone, stands_for_all},
    deployment::Member,
    engine::Port,
};

/// The longest name of a host (RFC 1035), in bytes.
const HOST_BYTES_MAX: usize = 253;
/// The longest part of one between two dots.
const LABEL_BYTES_MAX: usize = 63;

/// Where applications are to reach members.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reach {
    /// The address that members bind for applications: one of the broker's machine, or all of them.
    pub listen: IpAddr,
    /// The name or address by which applications find it, without brackets.
    pub host: String,
}

/// Where a member is to be reached, as what runs it says.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Whereabouts {
    /// The address of each port that it has, by the port's name.
    pub addresses: BTreeMap<String, Address>,
    /// Ports that it needs there and does not have.
    pub lacking: Vec<Port>,
}

impl Whereabouts {
    /// Whether a member is there already.
    pub fn are_of(&self, member: &Member) -> bool {
        self.lacking.is_empty() && self.addresses == member.addresses
    }
}

impl Reach {
    /// Nobody but programs on the broker's machine; where members run elsewhere, nobody but the broker and
    /// the members.
    pub fn loopback() -> Self {
        let listen = IpAddr::V4(Ipv4Addr::LOCALHOST);
        Self {
            listen,
            host: listen.to_string(),
        }
    }

    /// Whether nobody but programs on the broker's machine is to find members there.
    pub fn is_loopback(&self) -> bool {
        is_here_alone(self.listen, &self.host)
    }
}

/// Why applications cannot be given a host. Each says what to do.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum HostError {
    /// It has more than a name.
    #[error(
        "{0:?} is no host: give a name or an address alone, without a port, a path or https://"
    )]
    NotAlone(String),
    /// It is an address that means all of them.
    #[error("{0} means all addresses of a machine; give the one that applications connect to")]
    Wildcard(IpAddr),
    /// It cannot be a name.
    #[error("{0:?} is neither an IP address nor a name of letters, digits, - and dots")]
    BadName(String),
}

/// Checks what applications are to find members by; returns it as it is written in credentials.
pub fn check_host(text: &str) -> Result<String, HostError> {
    if let Ok(address) = text.parse::<IpAddr>() {
        if stands_for_all(address) {
            return Err(HostError::Wildcard(address));
        }
        return Ok(address.to_string());
    }
    let odd = |c: char| c.is_whitespace() || c.is_control() || ":/?#@[]%\\".contains(c);
    if text.contains(odd) {
        return Err(HostError::NotAlone(text.to_owned()));
    }
    if is_name(text) {
        Ok(text.to_ascii_lowercase())
    } else {
        Err(HostError::BadName(text.to_owned()))
    }
}

/// A name that every client takes for one: some take 10.1 for 10.0.0.1.
fn is_name(text: &str) -> bool {
    let fits = |label: &str| {
        let plain = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'-';
        (1..=LABEL_BYTES_MAX).contains(&label.len())
            && label.bytes().all(plain)
            && !label.starts_with('-')
            && !label.ends_with('-')
    };
    let in_urls = url::Host::parse(text);
    let stays = matches!(in_urls, Ok(url::Host::Domain(name)) if name.eq_ignore_ascii_case(text));
    text.len() <= HOST_BYTES_MAX && text.split('.').all(fits) && stays
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn strangers_come_from_beyond_the_machine_also_by_a_proxy_on_it() {
        for (listen, host, is_loopback) in [
            ("127.0.0.1", "127.0.0.1", true),
            ("127.0.0.2", "127.0.0.2", true),
            ("::1", "::1", true),
            ("127.0.0.1", "localhost", true),
            // A proxy that forwards there brings strangers.
            ("127.0.0.1", "db.example", false),
            ("127.0.0.1", "192.0.2.7", false),
            ("192.0.2.7", "192.0.2.7", false),
            ("192.0.2.7", "localhost", false),
            ("0.0.0.0", "db.example", false),
            ("::", "2001:db8::1", false),
        ] {
            let of = Reach {
                listen: listen.parse().expect("an address"),
                host: host.to_owned(),
            };
            assert_eq!(of.is_loopback(), is_loopback, "{listen} {host}");
        }
    }

    #[test]
    fn hosts() {
        for good in [
            "db.example.org",
            "db",
            "a-1.example",
            "192.0.2.7",
            "2001:db8::1",
            "localhost",
            "1and1.example",
        ] {
            assert_eq!(check_host(good), Ok(good.to_owned()));
        }
        assert_eq!(check_host("DB.Example"), Ok("db.example".to_owned()));
        assert_eq!(check_host("2001:DB8:0::1"), Ok("2001:db8::1".to_owned()));
        for bad in ["0.0.0.0", "::", "::ffff:0.0.0.0"] {
            assert!(
                matches!(check_host(bad), Err(HostError::Wildcard(_))),
                "{bad}"
            );
        }
        for bad in [
            "https://db.example",
            "db.example:2379",
            "db example",
            "[2001:db8::1]",
            "fe80::1%eth0",
            "user@db",
            "db/x",
            "db\n",
        ] {
            assert!(
                matches!(check_host(bad), Err(HostError::NotAlone(_))),
                "{bad}"
            );
        }
        let long = ["x".repeat(63).as_str(); 5].join(".");
        for bad in [
            "", ".", "db.", "-db", "db-", "d_b", "*.db", "10.1", "ä", "db.0x7f", &long,
        ] {
            assert!(
                matches!(check_host(bad), Err(HostError::BadName(_))),
                "{bad}"
            );
        }
    }

    proptest! {
        #[test]
        fn a_host_that_is_taken_stands_in_a_url_as_it_is(text in "\\PC{0,40}|[a-z0-9.:-]{0,30}") {
            if let Ok(host) = check_host(&text) {
                let url = format!("https://{}", Address::at(&host, 2379));
                let parsed = url::Url::parse(&url).expect("a URL");
                prop_assert_eq!(parsed.port(), Some(2379));
                let shown = parsed.host_str().expect("a host");
                prop_assert_eq!(shown.trim_matches(['[', ']']), host);
                prop_assert_eq!(parsed.path(), "/");
            }
        }
    }
}
