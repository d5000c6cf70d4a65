//! Where members of a cluster are reached. Each has a network of its own, so any port is free there.
//!
//! Members reach each other, and a broker in the cluster reaches them, by the name of the member's
//! service. By a node's port comes who is elsewhere: a broker, or applications where the settings say so.
//! Such a port has one number on all nodes and in the member's network, and is held for the whole cluster.
//! A load balancer has the port's number, too, and a host that is known once there is one (see `balancer`).

use std::{
    collections::{BTreeMap, HashSet},
    ops::RangeInclusive,
};

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

/// The ports of a member that are no ports of nodes.
pub(super) const OWN_PORTS: RangeInclusive<u16> = 10_000..=10_999;
/// Members that can be placed at once.
const MEMBERS_MAX: usize = 1000;

/// What a port is reached by.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum By {
    /// The name of the member's service, whatever the zone.
    Service,
    /// A node.
    Node,
    /// The member's load balancer.
    Balancer,
}

/// Where a port is reached.
struct Spot {
    /// Empty where it is a load balancer's.
    host: String,
    network: Network,
    by: By,
}

/// The name of a member's service in a zone.
fn host_in(zone: &str, settings: &Settings, deployment: &DeploymentId, member: &str) -> String {
    let service = labels::member_name(deployment, member);
    format!("{service}.{}.{zone}", settings.namespace)
}

/// What an address of a member is reached by. Settings may have changed since it was chosen.
pub(super) fn by(
    address: &Address,
    settings: &Settings,
    deployment: &DeploymentId,
    member: &str,
) -> By {
    let service = labels::member_name(deployment, member);
    let own = format!("{service}.{}.", settings.namespace);
    match address.host.starts_with(&own) {
        true => By::Service,
        false if OWN_PORTS.contains(&address.port) => By::Balancer,
        false => By::Node,
    }
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
        by: By::Service,
    };
    let by_node = |host: &str, network| Spot {
        host: host.to_owned(),
        network,
        by: By::Node,
    };
    match (used_by, &settings.broker) {
        (PortUser::Broker, BrokerPlace::Outside { node_host }) => {
            by_node(node_host, Network::Closed)
        }
        (PortUser::Applications, _) if !reach.is_loopback() => match settings.exposure {
            Exposure::Inside => inside(&reach.host, Network::Open),
            Exposure::NodePort => by_node(&reach.host, Network::Open),
            Exposure::LoadBalancer => Spot {
                host: String::new(),
                network: Network::Open,
                by: By::Balancer,
            },
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
    all.retain(|host| !host.is_empty());
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

/// Chooses addresses for new members; none where there are not enough. Those by a load balancer have no host yet.
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
        let has = |address: &&Address| by(address, settings, deployment, member) == By::Service;
        let own: HashSet<u16> = taken.iter().filter(has).map(|of| of.port).collect();
        let mut own = OWN_PORTS.filter(|number| !own.contains(number));
        let mut addresses = BTreeMap::new();
        for port in ports {
            let at = spot(settings, deployment, member, port.used_by, reach);
            let number = match at.by {
                By::Node => of_nodes.next()?,
                By::Service | By::Balancer => own.next()?,
            };
            let address = Address::within(at.network, &at.host, number);
            addresses.insert(port.name.to_owned(), address);
        }
        placed.push(addresses);
    }
    Some(placed)
}

/// Where a member is to be reached. It keeps its ports, but for those that become ports of the nodes or of a
/// load balancer, or cease to be ports of the nodes: they are chosen anew. `balancer`: the host of the load
/// balancer that it has.
pub(super) fn whereabouts(
    settings: &Settings,
    deployment: &DeploymentId,
    member: &Member,
    ports: &[Port],
    reach: &Reach,
    balancer: Option<&str>,
) -> Whereabouts {
    let (mut addresses, mut lacking) = (BTreeMap::new(), Vec::new());
    for port in ports {
        let at = spot(settings, deployment, &member.name, port.used_by, reach);
        let has = member.addresses.get(port.name);
        let has = has.map(|has| (has, by(has, settings, deployment, &member.name)));
        let stays = match (at.by, has) {
            (By::Service, Some((has, By::Service | By::Balancer)))
            | (By::Node, Some((has, By::Node))) => Some((at.host.as_str(), has.port)),
            // One that is being made anew has no host meanwhile.
            (By::Balancer, Some((has, By::Balancer))) => {
                Some((balancer.unwrap_or(&has.host), has.port))
            }
            _ => None,
        };
        match stays {
            Some((host, number)) => {
                let address = Address::within(at.network, host, number);
                addresses.insert(port.name.to_owned(), address);
            }
            None => lacking.push(*port),
        }
    }
    Whereabouts { addresses, lacking }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use crate::{
        model::deployment::Membership,
        provisioner::kubernetes::settings::{Balancers, Spread},
    };

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

    /// Settings of a cluster that the broker is in.
    pub(in super::super) fn settings() -> Settings {
        settings_of(BrokerPlace::Inside, Exposure::Inside)
    }

    fn settings_of(broker: BrokerPlace, exposure: Exposure) -> Settings {
        Settings {
            cluster: "blue".to_owned(),
            namespace: "databases".to_owned(),
            tenants: None,
            tools_image: "tools".to_owned(),
            images: BTreeMap::new(),
            withheld: Vec::new(),
            storage_class: None,
            broker,
            exposure,
            balancers: Balancers::default(),
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
        let inside = settings_of(BrokerPlace::Inside, Exposure::Inside);
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
        let by_node = settings_of(outside(), Exposure::NodePort);
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
        let by_node = settings_of(outside(), Exposure::NodePort);
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
        let inside = settings_of(BrokerPlace::Inside, Exposure::Inside);
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
        let by_node = settings_of(outside(), Exposure::NodePort);
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
        let stays = whereabouts(&by_node, &id(), &member, &PORTS, &closed, None);
        assert!(stays.are_of(&member), "{stays:?}");
        let moves = whereabouts(&by_node, &id(), &member, &PORTS, &zone("db.example"), None);
        assert_eq!(moves.lacking, [PORTS[0]]);
        assert!(!moves.addresses.contains_key("client"));
        assert_eq!(moves.addresses["own"], member.addresses["own"]);
        let inside = settings_of(outside(), Exposure::Inside);
        let zone = zone("svc.cluster.local");
        let moves = whereabouts(&inside, &id(), &member, &PORTS, &zone, None);
        assert_eq!(moves.lacking, []);
        let client = &moves.addresses["client"];
        assert!(client.is_reached_from_elsewhere());
        assert_eq!(client.port, member.addresses["client"].port);
    }

    #[test]
    fn a_load_balancer_s_port_is_chosen_before_its_host_is_known_and_stays() {
        let balanced = settings_of(outside(), Exposure::LoadBalancer);
        let (members, reach, none) = (["m0".to_owned()], zone("any"), HashSet::new());
        assert_eq!(
            hosts(&balanced, &id(), &members, &reach),
            [
                "db-5ae85b45e5717f0001533192-m0.databases.svc",
                "node.example"
            ]
        );
        let placed = place(&balanced, &id(), &members, &PORTS, &reach, &none);
        let mut addresses = placed.expect("places").remove(0);
        assert_eq!(
            addresses["client"],
            Address::within(Network::Open, "", 10_000)
        );
        assert_eq!(addresses["own"].port, 30_000);
        let client = addresses.get_mut("client").expect("a port");
        "192.0.2.7".clone_into(&mut client.host);
        let mut member = Member {
            name: "m0".to_owned(),
            addresses,
            shape: None,
            checkpointing: false,
            membership: Membership::Joined,
        };
        let seen = |member: &Member, reach: &Reach, balancer: Option<&str>| {
            whereabouts(&balanced, &id(), member, &PORTS, reach, balancer)
        };
        assert!(seen(&member, &reach, Some("192.0.2.7")).are_of(&member));
        assert!(seen(&member, &reach, None).are_of(&member));
        let moves = seen(&member, &reach, Some("192.0.2.8"));
        assert_eq!(moves.lacking, []);
        assert_eq!(moves.addresses["client"].to_string(), "192.0.2.8:10000");
        // Nobody is to reach it any more, and then somebody is again.
        member.addresses = seen(&member, &Reach::loopback(), Some("192.0.2.7")).addresses;
        assert!(!member.addresses["client"].is_reached_from_elsewhere());
        assert_eq!(seen(&member, &reach, None).lacking, [PORTS[0]]);
    }
}
