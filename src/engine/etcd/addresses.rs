//! Where members are reached. Each has a port for clients and one for the other members.

use crate::model::{
    address::Address,
    deployment::{Deployment, Member},
};

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

/// Where clients reach the members, in member order.
pub(super) fn client_urls(deployment: &Deployment) -> Vec<String> {
    let members = deployment.members.iter();
    members.map(client_url).collect()
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
