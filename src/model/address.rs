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
    /// Who gets into the network that the member has to itself; none: it has none, and binds ports of
    /// the broker's own machine.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub network: Option<Network>,
}

/// Who gets into a network that is a member's own.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Network {
    /// All who find the address.
    Open,
    /// The broker, the other members, and nobody from elsewhere.
    Closed,
}

impl Address {
    /// A port that is bound where it is reached.
    pub fn at(host: &str, port: u16) -> Self {
        Self {
            host: host.to_owned(),
            port,
            listen: None,
            network: None,
        }
    }

    /// A port of the broker's own machine that is bound at `listen`, whatever it is reached by.
    pub fn bound_at(listen: IpAddr, host: &str, port: u16) -> Self {
        Self {
            listen: Some(listen),
            ..Self::at(host, port)
        }
    }

    /// A port in a network that is the member's own, which binds it at all addresses there.
    pub fn within(network: Network, host: &str, port: u16) -> Self {
        Self {
            network: Some(network),
            ..Self::bound_at(Ipv4Addr::UNSPECIFIED.into(), host, port)
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

    /// What is held so that no two have it: of the broker's own machine a port, on whichever address;
    /// elsewhere a port of that host.
    #[must_use]
    pub fn held(&self) -> Self {
        match (self.network, self.listen) {
            (None, Some(_)) => Self::on_loopback(self.port),
            _ => Self::at(&self.host, self.port),
        }
    }

    /// Whether others than programs on the broker's machine and the members get there.
    pub fn is_reached_from_elsewhere(&self) -> bool {
        match self.network {
            Some(network) => network == Network::Open,
            None => !is_here_alone(self.binds().ip(), &self.host),
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

/// Whether nobody but programs on the broker's machine finds what is bound there, by that host.
pub fn is_here_alone(listen: IpAddr, host: &str) -> bool {
    let address: Result<IpAddr, _> = host.parse();
    let is_local = address.map_or(host == "localhost", |host| host.is_loopback());
    listen.is_loopback() && is_local
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_of_this_machine_are_apart_by_port_and_others_by_host_too() {
        let far: IpAddr = "0.0.0.0".parse().expect("an address");
        let here = Address::bound_at(far, "db.example", 2379);
        assert_eq!(here.held(), Address::on_loopback(2379));
        let own = Address::within(Network::Open, "m0.db.example", 2379);
        assert_eq!(own.held(), Address::at("m0.db.example", 2379));
        assert_eq!(own.binds().to_string(), "0.0.0.0:2379");
        for (of, is_reached) in [
            (Address::on_loopback(1), false),
            (Address::at("db.example", 1), true),
            (here, true),
            (own, true),
            (Address::within(Network::Closed, "m0.db.example", 1), false),
        ] {
            assert_eq!(of.is_reached_from_elsewhere(), is_reached, "{of:?}");
        }
    }

    #[test]
    fn addresses_that_were_written_down_before_are_read_as_they_were_meant() {
        for (written, meant) in [
            (r#"{"host":"127.0.0.1","port":1}"#, Address::on_loopback(1)),
            (
                r#"{"host":"db.example","port":1,"listen":"::"}"#,
                Address::bound_at(Ipv6Addr::UNSPECIFIED.into(), "db.example", 1),
            ),
        ] {
            let read: Address = serde_json::from_str(written).expect("an address");
            assert_eq!(read, meant);
            assert_eq!(serde_json::to_string(&read).expect("JSON"), written);
        }
    }
}
