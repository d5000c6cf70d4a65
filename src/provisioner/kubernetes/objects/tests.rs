//! What members are made of.

use insta::assert_json_snapshot;

use super::*;
use crate::{
    model::{
        secret::Secret,
        server::{DataOfServer, FILES, HOME, Probe, Program, ServerFile},
    },
    provisioner::kubernetes::settings::{Balancers, Exposure},
};

fn settings() -> Settings {
    Settings {
        cluster: "blue".to_owned(),
        namespace: "databases".to_owned(),
        tenants: None,
        tools_image: "registry.example/tools:1".to_owned(),
        images: BTreeMap::new(),
        withheld: Vec::new(),
        storage_class: Some("fast".to_owned()),
        broker: BrokerPlace::Outside {
            node_host: "node.example".to_owned(),
        },
        exposure: Exposure::Inside,
        balancers: Balancers::default(),
        node_ports: "30000-30099".parse().expect("ports"),
        spread: Spread::Required,
        node_selector: BTreeMap::from([("disk".to_owned(), "ssd".to_owned())]),
        tolerations: vec![json!({ "key": "databases", "operator": "Exists" })],
        priority_class: Some("important".to_owned()),
    }
}

fn inside() -> Settings {
    Settings {
        storage_class: None,
        broker: BrokerPlace::Inside,
        spread: Spread::Preferred,
        node_selector: BTreeMap::new(),
        tolerations: Vec::new(),
        priority_class: None,
        ..settings()
    }
}

fn server() -> Server {
    let host = "db-5ae85b45e5717f0001533192-m0.databases.svc";
    let addresses = [
        ("client", Address::within(Network::Open, host, 10_000)),
        ("others", Address::within(Network::Closed, host, 10_001)),
        (
            "own",
            Address::within(Network::Closed, "node.example", 30_007),
        ),
    ];
    Server {
        deployment: "5ae85b45e5717f0001533192".parse().expect("an id"),
        member: "m0".to_owned(),
        program: Program {
            engine: "sample",
            version: "1.2.3".parse().expect("a version"),
            binary: "sampled",
        },
        args: vec![
            format!("--data={HOME}/data"),
            format!("--key={FILES}/key.pem"),
        ],
        env: vec![("PLACE", HOME.to_owned())],
        files: vec![ServerFile {
            name: "key.pem",
            contents: Secret::new("PRIVATE"),
        }],
        addresses: addresses
            .into_iter()
            .map(|(name, address)| (name.to_owned(), address))
            .collect(),
        resources: Resources {
            disk_bytes: 1 << 30,
            memory_bytes: 1 << 29,
        },
        data: Some(DataOfServer {
            folder: "data/log".to_owned(),
            suffix: ".wal".to_owned(),
        }),
        probe: Some(Probe {
            port: "own",
            path: "/serves",
            alive: "/lives",
        }),
    }
}

/// The pod's spec without what scripts say.
fn without_scripts(mut set: Value) -> Value {
    let spec = &mut set["spec"]["template"]["spec"];
    for kind in ["initContainers", "containers"] {
        for container in spec[kind].as_array_mut().expect("containers") {
            container["command"][3] = json!("[script]");
        }
    }
    set
}

#[test]
fn a_set_has_one_pod_that_keeps_to_the_strictest_standard() {
    let (server, pin) = (server(), Pin::default());
    let set = set(
        &settings(),
        &server,
        &Described::of(&server),
        "registry.example/sample:1.2.3",
        &pin,
        2,
    );
    assert_json_snapshot!("set", without_scripts(set));
}

#[test]
fn a_volume_that_is_still_to_be_made_keeps_apart_from_those_that_are_there() {
    let (server, described) = (server(), Described::of(&server()));
    let pin = Pin {
        is_first: true,
        node: Some("n9".to_owned()),
        apart_from: vec!["n1".to_owned(), "n2".to_owned()],
    };
    let affinity = |settings: &Settings| {
        let set = set(settings, &server, &described, "image", &pin, 0);
        set["spec"]["template"]["spec"]["affinity"].clone()
    };
    assert_json_snapshot!("apart", affinity(&settings()));
    assert_json_snapshot!("apart_where_it_can_be", affinity(&inside()));
}

#[test]
fn what_is_beside_a_set() {
    let (server, settings) = (server(), settings());
    let (id, member) = (&server.deployment, server.member.as_str());
    assert_json_snapshot!("claim", claim(&settings, id, member, 1 << 30));
    assert_json_snapshot!("service", service(&settings, &server));
    assert_json_snapshot!("node_service", node_service(&settings, &server));
    assert_json_snapshot!("budget", budget(&settings, id));
    let described = Described::of(&server);
    let secret = secret(&settings, &server, &described);
    assert_eq!(secret["stringData"]["key.pem"], "PRIVATE");
    assert_eq!(secret["immutable"], true);
    assert_eq!(secret["metadata"]["name"], described.secret);
}

#[test]
fn who_gets_to_a_member() {
    let server = server();
    assert_json_snapshot!("policy", policy(&settings(), &server));
    let mut closed = server.clone();
    for address in closed.addresses.values_mut() {
        let host = "db-5ae85b45e5717f0001533192-m0.databases.svc";
        *address = Address::within(Network::Closed, host, address.port);
    }
    assert_json_snapshot!("policy_inside", policy(&inside(), &closed));
    assert_eq!(node_service(&inside(), &closed), None);
    closed.addresses.clear();
    let policy = policy(&inside(), &closed);
    // Nobody gets in where nothing is said.
    assert_eq!(policy["spec"]["ingress"], json!([]));
    assert_eq!(service(&inside(), &closed)["spec"]["ports"], Value::Null);
}

#[test]
fn what_a_process_is_started_with_makes_it_another_one_and_nothing_else_does() {
    let first = server();
    let runs = |server: &Server| Described::of(server).runs;
    let moved = Server {
        addresses: BTreeMap::new(),
        data: None,
        resources: Resources {
            disk_bytes: 1,
            memory_bytes: 1,
        },
        ..first.clone()
    };
    assert_eq!(runs(&first), runs(&moved));
    let other_key = Server {
        files: vec![ServerFile {
            name: "key.pem",
            contents: Secret::new("OTHER"),
        }],
        ..first.clone()
    };
    let other_args = Server {
        args: Vec::new(),
        ..first.clone()
    };
    assert_ne!(runs(&first), runs(&other_key));
    assert_ne!(runs(&first), runs(&other_args));
    // No pod is given the files of another description.
    assert_ne!(
        Described::of(&first).secret,
        Described::of(&other_key).secret
    );
    assert_eq!(
        Described::of(&first).secret,
        Described::of(&other_args).secret
    );
}

#[test]
fn no_secret_stands_anywhere_but_in_the_secret() {
    let (server, settings) = (server(), settings());
    let described = Described::of(&server);
    let pin = Pin::default();
    for object in [
        set(&settings, &server, &described, "image", &pin, 0),
        service(&settings, &server),
        policy(&settings, &server),
    ] {
        assert!(!object.to_string().contains("PRIVATE"), "{object}");
    }
}

#[test]
fn a_load_balancer_has_what_its_provider_is_told_and_the_ports_that_it_brings() {
    let settings = Settings {
        exposure: Exposure::LoadBalancer,
        balancers: Balancers {
            class: Some("example.org/inner".to_owned()),
            annotations: BTreeMap::from([("example.org/visible".to_owned(), "no".to_owned())]),
        },
        ..settings()
    };
    let mut server = server();
    let balancer = |server: &Server| {
        balancer(
            &settings,
            &server.deployment,
            &server.member,
            &server.addresses,
        )
    };
    assert_eq!(balancer(&server), None);
    let address = Address::within(Network::Open, "192.0.2.7", 10_000);
    server.addresses.insert("client".to_owned(), address);
    assert_json_snapshot!("balancer", balancer(&server));
    // It is in no other service.
    let ports = |service: Value| service["spec"]["ports"].to_string();
    assert!(!ports(service(&settings, &server)).contains("client"));
    let of_nodes = node_service(&settings, &server).expect("a service");
    assert!(!ports(of_nodes).contains("client"));
}
