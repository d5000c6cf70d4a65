//! Whom to believe about where a request comes from. Pure.

use core::{net::IpAddr, str::FromStr};

use ipnet::IpNet;

/// The proxies whose word counts: what they say of who came to them is taken for true.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct TrustedProxies(Vec<IpNet>);

/// A text is no list of proxies.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is neither an IP address nor a network such as 10.0.0.0/8")]
pub struct TrustedProxiesError(String);

impl FromStr for TrustedProxies {
    type Err = TrustedProxiesError;

    /// Addresses and networks, separated by commas; an empty text is none.
    fn from_str(text: &str) -> Result<Self, TrustedProxiesError> {
        let entries = text.split(',').map(str::trim).filter(|e| !e.is_empty());
        let network = |entry: &str| {
            let address = entry.parse::<IpAddr>().map(IpNet::from);
            address
                .or_else(|_| entry.parse())
                .map_err(|_| TrustedProxiesError(entry.to_owned()))
        };
        entries.map(network).collect::<Result<_, _>>().map(Self)
    }
}

impl TrustedProxies {
    /// Whether the word of the client at this address counts.
    pub fn has(&self, address: IpAddr) -> bool {
        let address = address.to_canonical();
        self.0.iter().any(|network| network.contains(&address))
    }

    /// Who sent a request that came from `peer`. `passed` is what proxies on its way wrote down,
    /// the nearest one last; none: something that is no address. From the peer backwards, each is
    /// believed as long as it is one of ours; the first other one is the client.
    pub fn client(
        &self,
        peer: IpAddr,
        passed: impl DoubleEndedIterator<Item = Option<IpAddr>>,
    ) -> IpAddr {
        let mut client = peer.to_canonical();
        for before in passed.rev() {
            match before {
                Some(address) if self.has(client) => client = address.to_canonical(),
                _ => break,
            }
        }
        client
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn ip(text: &str) -> IpAddr {
        text.parse().expect("an address")
    }

    fn ours() -> TrustedProxies {
        "10.0.0.0/8, ::1,192.0.2.7".parse().expect("a list")
    }

    fn client(peer: &str, passed: &[&str]) -> IpAddr {
        let passed = passed.iter().map(|text| text.parse().ok());
        ours().client(ip(peer), passed)
    }

    #[test]
    fn the_first_one_that_is_not_ours_is_the_client() {
        // Nobody in between, or somebody who only says so.
        assert_eq!(client("198.51.100.1", &[]), ip("198.51.100.1"));
        assert_eq!(client("198.51.100.1", &["10.1.1.1"]), ip("198.51.100.1"));
        // One proxy, two, and a client that writes what it likes before them.
        assert_eq!(client("10.1.1.1", &["203.0.113.9"]), ip("203.0.113.9"));
        assert_eq!(
            client("::1", &["127.0.0.1", "203.0.113.9", "192.0.2.7"]),
            ip("203.0.113.9")
        );
        // All are ours: the furthest.
        assert_eq!(client("10.1.1.1", &["10.2.2.2"]), ip("10.2.2.2"));
        assert_eq!(client("10.1.1.1", &[]), ip("10.1.1.1"));
        // What cannot be read ends the chain.
        assert_eq!(
            client("10.1.1.1", &["203.0.113.9", "unknown", "10.2.2.2"]),
            ip("10.2.2.2")
        );
        // One host, two notations.
        assert_eq!(
            client("::ffff:10.1.1.1", &["203.0.113.9"]),
            ip("203.0.113.9")
        );
    }

    #[test]
    fn a_list_is_read_as_a_whole() {
        assert_eq!("".parse(), Ok(TrustedProxies::default()));
        let wrong = "10.0.0.0/8,proxy.example".parse::<TrustedProxies>();
        assert_eq!(wrong, Err(TrustedProxiesError("proxy.example".to_owned())));
        assert!("10.0.0.0/33".parse::<TrustedProxies>().is_err());
    }

    proptest! {
        #[test]
        fn nobody_outside_is_believed(peer in any::<u32>(), lies in prop::collection::vec(any::<u32>(), 0..5)) {
            let (peer, lies) = (IpAddr::from(peer.to_be_bytes()), lies.into_iter().map(|a| Some(IpAddr::from(a.to_be_bytes()))));
            prop_assume!(!ours().has(peer));
            let lies: Vec<_> = lies.collect();
            prop_assert_eq!(ours().client(peer, lies.into_iter()), peer);
        }
    }
}
