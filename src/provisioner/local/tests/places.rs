//! Where new members are reached.

use super::*;

#[tokio::test(flavor = "multi_thread")]
async fn a_port_with_a_listener_is_not_free_and_one_in_time_wait_is() {
    let listener = TcpListener::bind((HOST, 0)).unwrap();
    let port = listener.local_addr().unwrap().port();
    assert!(!ports::is_free(port));
    let client = TcpStream::connect((HOST, port)).unwrap();
    // The side that closes first is left in TIME_WAIT.
    drop(listener.accept().unwrap());
    drop(client);
    drop(listener);
    eventually("the port is free", async || ports::is_free(port)).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn new_members_get_ports_that_nobody_has() {
    let (first, listener) = loop {
        let first = free_port();
        // The second of three; nobody has the others.
        let listener = TcpListener::bind((HOST, first + 1));
        if let (Ok(listener), true) = (listener, ports::is_free(first + 2)) {
            break (first, listener);
        }
    };
    let mut world = World::with_sleeper();
    world.ports = PortRange {
        first,
        last: first + 2,
    };
    let provisioner = world.open().await;
    let id = new_id();
    let place = |members: &[&str], taken: HashSet<Address>| {
        let members: Vec<String> = members.iter().map(|name| (*name).to_owned()).collect();
        let (provisioner, id) = (provisioner.clone(), id.clone());
        async move { provisioner.place(&id, &members, &["sql"], &taken).await }
    };
    let at = |port| Address {
        host: HOST.to_string(),
        port,
    };
    let both = place(&["m0", "m1"], HashSet::new()).await.unwrap();
    let expected = [first, first + 2].map(|port| BTreeMap::from([("sql".to_owned(), at(port))]));
    assert_eq!(both, expected);
    let second = place(&["m0"], HashSet::from([at(first)])).await.unwrap();
    assert_eq!(second[0]["sql"], at(first + 2));
    let full = place(&["m0", "m1"], HashSet::from([at(first)])).await;
    assert!(
        matches!(full, Err(ProvisionerError::NoFreePort)),
        "{full:?}"
    );
    drop(listener);
    let elsewhere = Address {
        host: "another.example".to_owned(),
        port: first,
    };
    let three = place(&["m0", "m1", "m2"], HashSet::from([elsewhere])).await;
    assert_eq!(three.unwrap().len(), 3);
}
