//! Folders that were copied or moved, and ports that somebody else has.

use std::net::TcpListener;

use super::*;

/// A copy of the cluster's folder, as `cp -a` makes it.
fn copy_of_cluster(world: &World) -> PathBuf {
    let copy = world.cluster().with_file_name("copy");
    let copied = std::process::Command::new("cp")
        .arg("-a")
        .args([world.cluster(), copy.clone()])
        .status();
    assert!(copied.unwrap().success());
    copy
}

#[tokio::test(flavor = "multi_thread")]
async fn a_copied_cluster_never_touches_what_runs_in_the_original() {
    let world = World::with_sleeper();
    let provisioner = world.open().await;
    let id = new_id();
    provisioner.start(&server(&id)).await.unwrap();
    let process = world.process(&id);
    let copy = copy_of_cluster(&world);

    let opened = LocalProvisioner::open(
        copy.clone(),
        world.engines.clone(),
        &world.discover,
        world.ports,
    )
    .await;
    match opened.map(drop).unwrap_err() {
        ProvisionerError::RunsElsewhere { pid, place, .. } => {
            assert_eq!(
                (pid, place),
                (process.pid, world.member(&id).home().display().to_string())
            );
        }
        error => panic!("{error}"),
    }
    // Nor does one that goes by what the copied records say.
    let member = DeploymentFolder::new(&copy, &id).member(MEMBER);
    assert!(!member::observe(&member).unwrap().unwrap().running);
    let mut deployment = Deployment::adopt(&copy, &id, &[]).unwrap();
    let programs = &provisioner.cluster.programs;
    let copied = deployment.known_member(MEMBER).unwrap();
    copied.look_after(programs);
    assert!(copied.process().is_none());
    copied.stop(programs, STOP_GRACE).unwrap();
    copied.wipe(programs).unwrap();
    deployment.destroy(programs).unwrap();
    assert!(!copy.join(id.as_str()).exists());
    assert!(process.is_alive().unwrap());
    assert!(observed(&provisioner, &id).await.running);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_moved_cluster_is_the_same_one_and_its_members_follow() {
    let world = World::with_sleeper();
    let provisioner = world.open().await;
    let id = new_id();
    provisioner.start(&server(&id)).await.unwrap();
    let process = world.process(&id);
    drop(provisioner);
    let moved = world.cluster().with_file_name("moved");
    fs::rename(world.cluster(), &moved).unwrap();

    let provisioner = LocalProvisioner::open(
        moved.clone(),
        world.engines.clone(),
        &world.discover,
        world.ports,
    )
    .await
    .unwrap();
    // What it opens by the old path would be another file.
    assert!(!process.is_alive().unwrap());
    eventually("it runs at its new place", async || {
        observed(&provisioner, &id).await.running
    })
    .await;
    let found = process::processes_below(&moved, &world.engines)
        .unwrap()
        .ours;
    let home = DeploymentFolder::new(&moved, &id).member(MEMBER).home();
    assert!(found.iter().all(|found| found.place == home), "{found:?}");
    provisioner.destroy(&id).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_member_waits_for_ports_that_somebody_else_has() {
    let world = World::with_sleeper();
    let provisioner = world.open().await;
    let id = new_id();
    let stranger = TcpListener::bind((HOST, 0)).unwrap();
    let port = stranger.local_addr().unwrap().port();
    let server = Server {
        addresses: BTreeMap::from([("p".to_owned(), Address::on_loopback(port))]),
        ..server(&id)
    };
    let refused = provisioner.start(&server).await.unwrap_err();
    assert!(
        matches!(&refused, ProvisionerError::PortTaken { port: taken, .. } if *taken == port),
        "{refused}"
    );
    assert!(!observed(&provisioner, &id).await.running);
    drop(stranger);
    eventually("it runs", async || {
        observed(&provisioner, &id).await.running
    })
    .await;
}
