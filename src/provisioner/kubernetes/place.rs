//! Where members of a cluster are reached. Each has a network of its own, so any port is free there.
//!
//! Members reach each other, and a broker in the cluster reaches them, by the name of the member's
//! service. By a node's port comes who is elsewhere: a broker, or applications where the settings say so.
//! Such a port has one number on all nodes and in the member's network, and is held for the whole cluster.

use std::collections::{BTreeMap, HashSet};

use super::{
    labels,
    settings::{BrokerPlace, Exposure, Settings},
};
use crate::model::{
    address::{Address, Network},
    deployment::Member,
    engine::{Port, PortUser},
    ids::DeploymentId,
    reach::{Reach, Whereabouts},
};

/// The first port of a member that is reached by its service.
const FIRST_PORT: u16 = 10_000;
/// Members that can be placed at once.
const MEMBERS_MAX: usize = 1000;

/// Where a port is reached.
struct Spot {
    host: String,
    network: Network,
    /// Whether it is a port of the nodes.
    is_by_node: bool,
}

/// The name of a member's service in a zone.
fn host_in(zone: &str, settings: &Settings, deployment: &DeploymentId, member: &str) -> String {
    let service = labels::member_name(deployment, member);
    format!("{service}.{}.{zone}", settings.namespace)
}

/// Whether an address is one of the member's own service, whatever the zone; else it is one of the nodes.
pub(super) fn is_by_service(
    address: &Address,
    settings: &Settings,
    deployment: &DeploymentId,
    member: &str,
) -> bool {
    let service = labels::member_name(deployment, member);
    let own = format!("{service}.{}.", settings.namespace);
    address.host.starts_with(&own)
}

fn spot(
    settings: &Settings,
    deployment: &DeploymentId,
    member: &str,
    used_by: PortUser,
    reach: &Reach,
) -> Spot {
    let inside = |zone: &str, network| Spot {
        host: host_in(zone, settings, deployment, member),
        network,
        is_by_node: false,
    };
    let by_node = |host: &str, network| Spot {
        host: host.to_owned(),
        network,
        is_by_node: true,
    };
    match (used_by, &settings.broker) {
        (PortUser::Broker, BrokerPlace::Outside { node_host }) => {
            by_node(node_host, Network::Closed)
        }
        (PortUser::Applications, _) if !reach.is_loopback() => match settings.exposure {
            Exposure::Inside => inside(&reach.host, Network::Open),
            Exposure::NodePort => by_node(&reach.host, Network::Open),
        },
        _ => inside("svc", Network::Closed),
    }
}

/// The hosts of all addresses that can be chosen for these members.
pub(super) fn hosts(
    settings: &Settings,
    deployment: &DeploymentId,
    members: &[String],
    reach: &Reach,
) -> Vec<String> {
    let users = [PortUser::Applications, PortUser::Members, PortUser::Broker];
    let hosts = |member: &String| {
        users.map(|used_by| spot(settings, deployment, member, used_by, reach).host)
    };
    let mut all: Vec<String> = members.iter().flat_map(hosts).collect();
    all.extend(node_hosts(settings, reach));
    all.sort();
    all.dedup();
    all
}

/// The names that nodes go by: a port of theirs is the same one under each.
fn node_hosts(settings: &Settings, reach: &Reach) -> Vec<String> {
    let mut hosts = Vec::new();
    if let BrokerPlace::Outside { node_host } = &settings.broker {
        hosts.push(node_host.clone());
    }
    if settings.exposure == Exposure::NodePort && !reach.is_loopback() {
        hosts.push(reach.host.clone());
    }
    hosts
}

/// Chooses addresses for new members; none where there are not enough.
pub(super) fn place(
    settings: &Settings,
    deployment: &DeploymentId,
    members: &[String],
    ports: &[Port],
    reach: &Reach,
    taken: &HashSet<Address>,
) -> Option<Vec<BTreeMap<String, Address>>> {
    if members.len() > MEMBERS_MAX {
        return None;
    }
    let names = node_hosts(settings, reach);
    let is_free = |number: &u16| {
        let mut held = names.iter().map(|host| Address::at(host, *number));
        !held.any(|address| taken.contains(&address))
    };
    let range = settings.node_ports;
    let mut of_nodes = (range.first..=range.last).filter(is_free);
    let mut placed = Vec::new();
    for member in members {
        // Whatever zone it is called by, it is one network.
        let has = |address: &&Address| is_by_service(address, settings, deployment, member);
        let own: HashSet<u16> = taken.iter().filter(has).map(|of| of.port).collect();
        let mut own = (FIRST_PORT..).filter(|number| !own.contains(number));
        let mut addresses = BTreeMap::new();
        for port in ports {
            let at = spot(settings, deployment, member, port.used_by, reach);
            let number = match at.is_by_node {
                true => of_nodes.next()?,
                false => own.next()?,
            };
            let address = Address::within(at.network, &at.host, number);
            addresses.insert(port.name.to_owned(), address);
        }
        placed.push(addresses);
    }
    Some(placed)
}

/// Where a member is to be reached. It keeps its ports, but for those that become ports of the nodes or
/// cease to be: they are chosen anew.
pub(super) fn whereabouts(
    settings: &Settings,
    deployment: &DeploymentId,
    member: &Member,
    ports: &[Port],
    reach: &Reach,
) -> Whereabouts {
    let (mut addresses, mut lacking) = (BTreeMap::new(), Vec::new());
    for port in ports {
        let at = spot(settings, deployment, &member.name, port.used_by, reach);
        let has = member
            .addresses
            .get(port.name)
            .filter(|has| is_by_service(has, settings, deployment, &member.name) != at.is_by_node);
        match has {
            Some(has) => {
                let address = Address::within(at.network, &at.host, has.port);
                addresses.insert(port.name.to_owned(), address);
            }
            None => lacking.push(*port),
        }
    }
    Whereabouts { addresses, lacking }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{model::deployment::Membership, provisioner::kubernetes::settings::Spread};

    const PORTS: [Port; 3] = [
        Port {
            name: "client",
            used_by: PortUser::Applications,
        },
        Port {
            name: "others",
            used_by: PortUser::Members,
        },
        Port {
            name: "own",
            used_by: PortUser::Broker,
        },
    ];

    fn settings(broker: BrokerPlace, exposure: Exposure) -> Settings {
        Settings {
            cluster: "blue".to_owned(),
            namespace: "databases".to_owned(),
            tools_image: "tools".to_owned(),
            images: BTreeMap::new(),
            withheld: Vec::new(),
            storage_class: None,
            broker,
            exposure,
            node_ports: "30000-30003".parse().expect("ports"),
            spread: Spread::Required,
            node_selector: BTreeMap::new(),
            tolerations: Vec::new(),
            priority_class: None,
        }
    }

    fn outside() -> BrokerPlace {
        BrokerPlace::Outside {
            node_host: "node.example".to_owned(),
        }
    }

    fn id() -> DeploymentId {
        "5ae85b45e5717f0001533192".parse().expect("an id")
    }

    fn zone(host: &str) -> Reach {
        Reach {
            host: host.to_owned(),
            ..Reach::loopback()
        }
    }

    /// Where one member is placed, by port.
    fn placed(settings: &Settings, reach: &Reach, taken: &HashSet<Address>) -> Vec<String> {
        let members = ["m0".to_owned()];
        let placed = place(settings, &id(), &members, &PORTS, reach, taken);
        let addresses = placed.expect("places").remove(0);
        let told = |address: &Address| match address.is_reached_from_elsewhere() {
            true => format!("{address} open"),
            false => address.to_string(),
        };
        addresses.values().map(told).collect()
    }

    #[test]
    fn who_is_in_the_cluster_comes_by_a_service_and_who_is_not_by_a_node() {
        let own = "db-5ae85b45e5717f0001533192-m0.databases";
        let none = HashSet::new();
        let inside = settings(BrokerPlace::Inside, Exposure::Inside);
        assert_eq!(
            placed(&inside, &Reach::loopback(), &none),
            [
                format!("{own}.svc:10000"),
                format!("{own}.svc:10001"),
                format!("{own}.svc:10002"),
            ]
        );
        assert_eq!(
            placed(&inside, &zone("svc.cluster.local"), &none)[0],
            format!("{own}.svc.cluster.local:10000 open")
        );
        let by_node = settings(outside(), Exposure::NodePort);
        assert_eq!(
            placed(&by_node, &zone("db.example"), &none),
            [
                "db.example:30000 open".to_owned(),
                format!("{own}.svc:10000"),
                "node.example:30001".to_owned(),
            ]
        );
        assert_eq!(
            placed(&by_node, &Reach::loopback(), &none)[0],
            format!("{own}.svc:10000")
        );
    }

    #[test]
    fn a_port_of_the_nodes_is_one_by_whatever_name() {
        let by_node = settings(outside(), Exposure::NodePort);
        let reach = zone("db.example");
        let taken = HashSet::from([
            Address::at("node.example", 30_000),
            Address::at("db.example", 30_001),
        ]);
        let got = placed(&by_node, &reach, &taken);
        assert_eq!(
            [&got[0], &got[2]],
            ["db.example:30002 open", "node.example:30003"]
        );
        let members = ["m0", "m1"].map(str::to_owned);
        assert_eq!(
            place(&by_node, &id(), &members, &PORTS, &reach, &taken),
            None
        );
        let hosts = hosts(&by_node, &id(), &members, &reach);
        assert!(hosts.contains(&"node.example".to_owned()), "{hosts:?}");
        assert!(hosts.contains(&"db.example".to_owned()), "{hosts:?}");
    }

    #[test]
    fn a_member_has_one_network_whatever_zone_its_service_is_called_in() {
        let own = "db-5ae85b45e5717f0001533192-m0.databases";
        let inside = settings(BrokerPlace::Inside, Exposure::Inside);
        let taken = HashSet::from([
            Address::at(&format!("{own}.svc"), 10_000),
            Address::at(&format!("{own}.svc.cluster.local"), 10_001),
            Address::at("another.databases.svc", 10_002),
        ]);
        let got = placed(&inside, &Reach::loopback(), &taken);
        assert_eq!(got[0], format!("{own}.svc:10002"));
    }

    #[test]
    fn a_member_keeps_its_ports_but_for_those_that_become_ports_of_nodes() {
        let by_node = settings(outside(), Exposure::NodePort);
        let members = ["m0".to_owned()];
        let closed = Reach::loopback();
        let none = HashSet::new();
        let placed = place(&by_node, &id(), &members, &PORTS, &closed, &none);
        let member = Member {
            name: "m0".to_owned(),
            addresses: placed.expect("places").remove(0),
            shape: None,
            checkpointing: false,
            membership: Membership::Joined,
        };
        let stays = whereabouts(&by_node, &id(), &member, &PORTS, &closed);
        assert!(stays.are_of(&member), "{stays:?}");
        let moves = whereabouts(&by_node, &id(), &member, &PORTS, &zone("db.example"));
        assert_eq!(moves.lacking, [PORTS[0]]);
        assert!(!moves.addresses.contains_key("client"));
        assert_eq!(moves.addresses["own"], member.addresses["own"]);
        let inside = settings(outside(), Exposure::Inside);
        let moves = whereabouts(&inside, &id(), &member, &PORTS, &zone("svc.cluster.local"));
        assert_eq!(moves.lacking, []);
        let client = &moves.addresses["client"];
        assert!(client.is_reached_from_elsewhere());
        assert_eq!(client.port, member.addresses["client"].port);
    }
}
