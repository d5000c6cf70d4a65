//! Where members are reached. Each has a port for clients and one for the other members. Where clients
//! come from elsewhere, there is one for the broker too: etcd limits connections by listener, so that
//! those who take all of one leave the other alone.

use crate::model::{
    address::Address,
    deployment::Member,
    engine::{Port, PortUser},
};

const CLIENT: &str = "client";
const PEER: &str = "peer";
const BROKER: &str = "broker";

/// The ports of each member. Members of earlier versions have the first two.
pub(super) const PORTS: [Port; 3] = [
    Port {
        name: CLIENT,
        used_by: PortUser::Applications,
    },
    Port {
        name: PEER,
        used_by: PortUser::Members,
    },
    Port {
        name: BROKER,
        used_by: PortUser::Broker,
    },
];

/// Where clients reach a member.
pub(super) fn client(member: &Member) -> &Address {
    member.address(CLIENT)
}

/// Where the other members reach a member.
pub(super) fn peer(member: &Member) -> &Address {
    member.address(PEER)
}

/// Where the broker reaches a member.
pub(super) fn own(member: &Member) -> &Address {
    let own = member.addresses.get(BROKER);
    own.unwrap_or_else(|| client(member))
}

/// The name of the port by which the broker reaches a member.
pub(super) fn own_port(member: &Member) -> &'static str {
    match member.addresses.contains_key(BROKER) {
        true => BROKER,
        false => CLIENT,
    }
}

/// What a member binds for clients, the broker among them.
pub(super) fn bound_urls(member: &Member) -> String {
    let own = member.addresses.get(BROKER);
    let all = [client(member)].into_iter().chain(own);
    let bound: Vec<String> = all
        .map(|address| format!("https://{}", address.binds()))
        .collect();
    bound.join(",")
}

/// What a member binds for the other members, as a URL. Of a name it would bind nothing.
pub(super) fn bound_peer_url(member: &Member) -> String {
    format!("https://{}", peer(member).binds())
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
