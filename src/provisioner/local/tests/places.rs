//! Where new members are reached.

use super::*;
use crate::{
    model::{
        deployment::{Member, Membership},
        engine::{Port, PortUser},
        tenant::tests::tenant,
    },
    provisioner::local::places::whereabouts,
};

const PORTS: [Port; 3] = [
    Port {
        name: "sql",
        used_by: PortUser::Applications,
    },
    Port {
        name: "copies",
        used_by: PortUser::Members,
    },
    Port {
        name: "own",
        used_by: PortUser::Broker,
    },
];

#[tokio::test(flavor = "multi_thread")]
async fn a_port_with_a_listener_is_not_free_and_one_in_time_wait_is() {
    let listener = TcpListener::bind((HOST, 0)).unwrap();
    let port = listener.local_addr().unwrap().port();
    assert!(!ports::is_free(ports::on_loopback(port)));
    let client = TcpStream::connect((HOST, port)).unwrap();
    // The side that closes first is left in TIME_WAIT.
    drop(listener.accept().unwrap());
    drop(client);
    drop(listener);
    eventually("the port is free", async || {
        ports::is_free(ports::on_loopback(port))
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn new_members_get_ports_that_nobody_has() {
    let mut world = World::with_sleeper();
    world.ports = free_ports(3);
    let first = world.ports.first;
    let listener = TcpListener::bind((HOST, first + 1)).unwrap();
    let provisioner = world.open().await;
    let id = new_id();
    let place = |members: &[&str], taken: HashSet<Address>| {
        let members: Vec<String> = members.iter().map(|name| (*name).to_owned()).collect();
        let (provisioner, id) = (provisioner.clone(), id.clone());
        let reach = Reach::loopback();
        async move {
            provisioner
                .place(
                    tenant("acme", "blue").owning(&id),
                    &members,
                    &PORTS[..1],
                    &reach,
                    &taken,
                )
                .await
        }
    };
    // Again and again: a process that another test starts has this process' sockets until it executes its
    // program, and a port with a socket counts as taken.
    let get = async |members: &[&str], taken: HashSet<Address>, expected: &[u16]| {
        let expected: Vec<_> = (expected.iter().map(|port| Address::on_loopback(*port)))
            .map(|address| BTreeMap::from([("sql".to_owned(), address)]))
            .collect();
        eventually("the places that are free", async || {
            matches!(place(members, taken.clone()).await, Ok(placed) if placed == expected)
        })
        .await;
    };
    let nobody = HashSet::new();
    get(&["m0", "m1"], nobody, &[first, first + 2]).await;
    let ours = HashSet::from([Address::on_loopback(first)]);
    get(&["m0"], ours.clone(), &[first + 2]).await;
    let full = place(&["m0", "m1"], ours).await;
    assert!(
        matches!(full, Err(ProvisionerError::NoFreePort)),
        "{full:?}"
    );
    drop(listener);
    let elsewhere = HashSet::from([Address::at("another.example", first)]);
    let all = [first, first + 1, first + 2];
    get(&["m0", "m1", "m2"], elsewhere, &all).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn applications_alone_come_from_elsewhere() {
    let provisioner = World::with_sleeper().open().await;
    let id = new_id();
    let place = |listen: &str, host: &str, ports: &'static [Port]| {
        let reach = Reach {
            listen: listen.parse().unwrap(),
            host: host.to_owned(),
        };
        let (provisioner, id) = (provisioner.clone(), id.clone());
        async move {
            let (members, taken) = (["m0".to_owned()], HashSet::new());
            let placed = provisioner
                .place(
                    tenant("acme", "blue").owning(&id),
                    &members,
                    ports,
                    &reach,
                    &taken,
                )
                .await;
            placed.map(|mut of| of.remove(0))
        }
    };
    let near = place("127.0.0.1", "127.0.0.1", &PORTS).await.unwrap();
    assert_eq!(near.len(), 2, "{near:?}");
    assert!(near.values().all(|at| *at == Address::on_loopback(at.port)));
    for (listen, host, shown) in [
        ("0.0.0.0", "db.example", "db.example:"),
        ("::", "2001:db8::1", "[2001:db8::1]:"),
        ("127.0.0.2", "127.0.0.2", "127.0.0.2:"),
    ] {
        let far = place(listen, host, &PORTS).await.unwrap();
        let ports: HashSet<u16> = far.values().map(|at| at.port).collect();
        assert_eq!(ports.len(), far.len(), "{far:?}");
        assert!(far["sql"].to_string().starts_with(shown), "{far:?}");
        assert_eq!(far["sql"].binds().ip().to_string(), listen);
        assert_eq!(far["copies"], Address::on_loopback(far["copies"].port));
        assert_eq!(far.contains_key("own"), listen != "127.0.0.2");
        if let Some(own) = far.get("own") {
            assert_eq!(*own, Address::on_loopback(own.port));
        }
        // Whatever applications call it, it is a port of this machine.
        assert_eq!(far["sql"].held(), Address::on_loopback(far["sql"].port));
    }
    let nowhere = place("192.0.2.1", "db.example", &PORTS).await;
    assert!(
        matches!(nowhere, Err(ProvisionerError::NotOurAddress { .. })),
        "{nowhere:?}"
    );
}

#[test]
fn a_member_is_moved_where_applications_reach_it_and_keeps_its_ports() {
    let reach = |listen: &str, host: &str| Reach {
        listen: listen.parse().unwrap(),
        host: host.to_owned(),
    };
    let member = |addresses: &[(&str, Address)]| Member {
        name: "m0".to_owned(),
        addresses: (addresses.iter())
            .map(|(name, address)| ((*name).to_owned(), address.clone()))
            .collect(),
        shape: None,
        checkpointing: false,
        membership: Membership::Joined,
    };
    let here = member(&[
        ("sql", Address::on_loopback(1)),
        ("copies", Address::on_loopback(2)),
    ]);
    for (listen, host, is_needed) in [
        ("127.0.0.1", "127.0.0.1", false),
        ("127.0.0.2", "127.0.0.2", false),
        ("::1", "::1", false),
        ("127.0.0.1", "localhost", true),
        ("127.0.0.1", "db.example", true),
        ("192.0.2.7", "192.0.2.7", true),
        ("0.0.0.0", "db.example", true),
        ("::", "2001:db8::1", true),
    ] {
        let reach = reach(listen, host);
        let wanted = whereabouts(&here, &PORTS, &reach);
        let lacking: &[Port] = if is_needed { &PORTS[2..] } else { &[] };
        assert_eq!(wanted.lacking, lacking, "{listen} {host}");
        let at = &wanted.addresses["sql"];
        assert_eq!((at.host.as_str(), at.port), (host, 1));
        assert_eq!(at.binds().ip(), reach.listen);
        assert_eq!(wanted.addresses["copies"], here.addresses["copies"]);
        // With the port that it lacks it is there, and stays there.
        let mut there = here.clone();
        there.addresses.clone_from(&wanted.addresses);
        let own = wanted
            .lacking
            .iter()
            .map(|port| (port.name.to_owned(), Address::on_loopback(3)));
        there.addresses.extend(own);
        assert!(whereabouts(&there, &PORTS, &reach).are_of(&there));
        assert_eq!(wanted.are_of(&here), reach == Reach::loopback());
        // Back again; the port that the broker has by now it keeps.
        let back = whereabouts(&there, &PORTS, &Reach::loopback());
        assert_eq!(back.lacking, []);
        assert_eq!(back.addresses["sql"], here.addresses["sql"]);
        assert_eq!(back.addresses.len(), there.addresses.len());
    }
}
