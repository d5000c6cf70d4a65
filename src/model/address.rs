//! Addresses: where a port is reached, and what counts as one place on the net.

use core::{
    fmt,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
};

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

/// Where a port of a member is reached.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Address {
    /// A name, or an address without brackets.
    pub host: String,
    /// The TCP port.
    pub port: u16,
    /// What the member binds, where that is not `host`: an address of the broker's own machine, or all
    /// of them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub listen: Option<IpAddr>,
}

impl Address {
    /// A port that is bound where it is reached.
    pub fn at(host: &str, port: u16) -> Self {
        Self {
            host: host.to_owned(),
            port,
            listen: None,
        }
    }

    /// A port that the broker's machine alone reaches.
    pub fn on_loopback(port: u16) -> Self {
        Self::at(&Ipv4Addr::LOCALHOST.to_string(), port)
    }

    /// What the member binds. A name is one of where the member runs, and of nobody else there.
    pub fn binds(&self) -> SocketAddr {
        let host = || self.host.parse().unwrap_or(Ipv4Addr::UNSPECIFIED.into());
        SocketAddr::new(self.listen.unwrap_or_else(host), self.port)
    }

    /// What is held so that no two have it: of the broker's own machine a port, on whichever address.
    #[must_use]
    pub fn held(&self) -> Self {
        match self.listen {
            Some(_) => Self::on_loopback(self.port),
            None => self.clone(),
        }
    }
}

impl fmt::Display for Address {
    /// As in a URL: an address of version 6 stands in brackets.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { host, port, .. } = self;
        match host.contains(':') {
            true => write!(f, "[{host}]:{port}"),
            false => write!(f, "{host}:{port}"),
        }
    }
}

/// Addresses on `host` by the names of their ports: `numbers` in the order of `names`.
pub fn by_name(host: &str, names: &[&str], numbers: &[u16]) -> BTreeMap<String, Address> {
    let at = |port: &u16| Address::at(host, *port);
    let names = names.iter().map(|name| (*name).to_owned());
    names.zip(numbers.iter().map(at)).collect()
}

/// Whether an address means all addresses of a machine, in one of its forms.
pub fn stands_for_all(address: IpAddr) -> bool {
    address.to_canonical().is_unspecified()
}

/// What is one place on the net: an address of version 4, or the 2^64 around one of version 6, since
/// a host that has one of those has all of them.
pub fn network(address: IpAddr) -> IpAddr {
    match address {
        IpAddr::V4(_) => address,
        IpAddr::V6(address) => {
            let network = address.to_bits() & !u128::from(u64::MAX);
            Ipv6Addr::from_bits(network).into()
        }
    }
}
