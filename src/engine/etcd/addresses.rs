//! Where members are reached. Each has a port for clients and one for the other members.

use crate::model::{address::Address, deployment::Member};

const CLIENT: &str = "client";
const PEER: &str = "peer";

/// The ports of each member; applications use the first one.
pub(super) const PORTS: [&str; 2] = [CLIENT, PEER];

/// Where clients reach a member.
pub(super) fn client(member: &Member) -> &Address {
    member.address(CLIENT)
}

/// Where the other members reach a member.
pub(super) fn peer(member: &Member) -> &Address {
    member.address(PEER)
}

/// Where clients reach a member, as a URL.
pub(super) fn client_url(member: &Member) -> String {
    url(client(member))
}

/// Where the other members reach a member, as a URL.
pub(super) fn peer_url(member: &Member) -> String {
    url(peer(member))
}

/// Members speak TLS alone, to clients and to each other.
pub(super) fn url(address: &Address) -> String {
    format!("https://{address}")
}

/// The same with a login, `user:password`.
pub(super) fn uri(address: &Address, login: &str) -> String {
    format!("https://{login}@{address}")
}

/// A member that was part of its cluster once, at these ports.
#[cfg(test)]
pub(super) fn member_at(name: &str, host: &str, ports: [u16; 2]) -> Member {
    Member {
        name: name.to_owned(),
        addresses: super::PROFILE.addresses(host, &ports),
        shape: None,
        checkpointing: false,
        membership: crate::model::deployment::Membership::Joined,
    }
}
