//! Where members of this machine are reached: applications reach them as the cluster says, other members
//! and the broker by loopback.

use crate::model::{
    address::Address,
    deployment::Member,
    engine::{Port, PortUser},
    reach::{Reach, Whereabouts},
};

/// Whether members have a port that applications reach so. The broker has one of its own where others may
/// take all connections of the one for applications, and where the host may be a name that this machine does
/// not know.
pub(super) fn is_needed(port: &Port, reach: &Reach) -> bool {
    let keeps_broker_apart = !reach.listen.is_loopback() || reach.host != reach.listen.to_string();
    port.used_by != PortUser::Broker || keeps_broker_apart
}

/// Where a port is reached at a member that applications reach so.
pub(super) fn address(port: &Port, reach: &Reach, number: u16) -> Address {
    match port.used_by {
        PortUser::Applications if *reach != Reach::loopback() => {
            Address::bound_at(reach.listen, &reach.host, number)
        }
        _ => Address::on_loopback(number),
    }
}

/// Where a member is to be reached. Its ports stay, also those that it does not need there.
pub(super) fn whereabouts(member: &Member, ports: &[Port], reach: &Reach) -> Whereabouts {
    let mut addresses = member.addresses.clone();
    let entrances = ports
        .iter()
        .filter(|port| port.used_by == PortUser::Applications);
    for port in entrances {
        if let Some(at) = addresses.get_mut(port.name) {
            *at = address(port, reach, at.port);
        }
    }
    let lacks = |port: &&Port| is_needed(port, reach) && !addresses.contains_key(port.name);
    Whereabouts {
        lacking: ports.iter().filter(lacks).copied().collect(),
        addresses,
    }
}
