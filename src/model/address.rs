//! Addresses of clients.

use core::net::{IpAddr, Ipv6Addr};

/// What is one place on the net: an address of version 4, or the 2^64 around one of version 6, since
/// whoever has one of those has all of them.
pub fn network(address: IpAddr) -> IpAddr {
    match address {
        IpAddr::V4(_) => address,
        IpAddr::V6(address) => {
            let network = address.to_bits() & !u128::from(u64::MAX);
            Ipv6Addr::from_bits(network).into()
        }
    }
}
