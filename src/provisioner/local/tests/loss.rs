//! Members that lost what they must have, and members that hang.

use super::*;
use crate::model::server::DataOfServer;

#[tokio::test(flavor = "multi_thread")]
async fn a_member_that_lost_its_data_is_not_started_without_it() {
    let world = World::with_sleeper();
    let provisioner = world.open().await;
    let id = new_id();
    let new = server(&id);
    provisioner.start(&new).await.unwrap();
    eventually("it started", async || world.starts(&id) == 1).await;
    let process = world.process(&id);
    let used = Server {
        data: Some(DataOfServer {
            folder: "data".to_owned(),
            suffix: ".log".to_owned(),
        }),
        ..new
    };
    // What it must have is asked for at its next start.
    provisioner.start(&used).await.unwrap();
    assert_eq!(world.process(&id), process);
    assert!(provisioner.runs_as(&used).await.unwrap());
    assert!(!observed(&provisioner, &id).await.has_lost_data);
    kill(&process);
    eventually("the loss is noticed", async || {
        observed(&provisioner, &id).await.has_lost_data
    })
    .await;
    for _ in 0..2 {
        let error = provisioner.start(&used).await.unwrap_err();
        assert!(matches!(error, ProvisionerError::DataLost { .. }));
    }
    let error = provisioner.restart(&id, MEMBER).await.unwrap_err();
    assert!(matches!(error, ProvisionerError::DataLost { .. }));
    assert_eq!(world.starts(&id), 1);
    assert!(!provisioner.runs_as(&used).await.unwrap());
    // It comes back with its data, by itself.
    fs::create_dir(world.member(&id).home().join("data")).unwrap();
    fs::write(world.member(&id).home().join("data/0.log"), "").unwrap();
    eventually("it came back", async || {
        observed(&provisioner, &id).await.running
    })
    .await;
    assert!(!observed(&provisioner, &id).await.has_lost_data);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_member_that_hangs_is_ended_and_started_again_as_it_was() {
    let world = World::with_sleeper();
    let provisioner = world.open().await;
    let id = new_id();
    provisioner.restart(&id, MEMBER).await.unwrap();
    provisioner.start(&server(&id)).await.unwrap();
    eventually("it started", async || world.starts(&id) == 1).await;
    let hangs = world.process(&id);
    let pid = rustix::process::Pid::from_raw(hangs.pid).unwrap();
    rustix::process::kill_process(pid, rustix::process::Signal::STOP).unwrap();
    provisioner.restart(&id, MEMBER).await.unwrap();
    assert!(!hangs.is_alive().unwrap());
    eventually("it started", async || world.starts(&id) == 2).await;
    let observation = observed(&provisioner, &id).await;
    assert_eq!((observation.running, observation.restarts), (true, 1));
    provisioner.stop(&id, MEMBER, STOP_GRACE).await.unwrap();
    provisioner.restart(&id, MEMBER).await.unwrap();
    assert!(!observed(&provisioner, &id).await.running);
}

#[tokio::test(flavor = "multi_thread")]
async fn last_words_are_those_of_the_last_process_alone() {
    let world = World::with_sleeper();
    let provisioner = world.open().await;
    let id = new_id();
    assert_eq!(provisioner.last_words(&id, MEMBER).await.unwrap(), None);
    let says = |words: &str| Server {
        args: vec!["say".to_owned(), words.to_owned()],
        ..server(&id)
    };
    for words in ["once", "never"] {
        provisioner.start(&says(words)).await.unwrap();
        let said = format!("{words}\n");
        eventually("last words", async || {
            let last = provisioner.last_words(&id, MEMBER).await.unwrap();
            last.is_some_and(|last| last == said)
        })
        .await;
    }
    provisioner.start(&server(&id)).await.unwrap();
    assert_eq!(provisioner.last_words(&id, MEMBER).await.unwrap(), None);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_member_had_is_set_aside_and_comes_back() {
    let world = World::with_sleeper();
    let provisioner = world.open().await;
    let id = new_id();
    provisioner.start(&server(&id)).await.unwrap();
    eventually("it started", async || world.starts(&id) == 1).await;
    let refused = provisioner
        .set_aside(&id, MEMBER, "before")
        .await
        .unwrap_err();
    assert!(matches!(refused, ProvisionerError::NotStopped { .. }));
    provisioner
        .stage_file(&id, MEMBER, "starts", "copied")
        .await
        .unwrap();
    let place = task(&["print", "{stage}"], PATIENCE);
    let stage = provisioner.run(&id, MEMBER, &place).await.unwrap();
    let copied = fs::read_to_string(Path::new(stage.trim()).join("copied")).unwrap();
    assert_eq!(copied.lines().count(), 1);
    provisioner.stop(&id, MEMBER, STOP_GRACE).await.unwrap();
    let starts = || world.member(&id).home().join("starts");
    for _ in 0..2 {
        provisioner.set_aside(&id, MEMBER, "before").await.unwrap();
        assert!(!starts().exists());
        assert!(world.member(&id).home().exists());
    }
    provisioner.start(&server(&id)).await.unwrap();
    eventually("it started anew", async || world.starts(&id) == 1).await;
    for _ in 0..2 {
        provisioner.put_back(&id, MEMBER, "before").await.unwrap();
        assert_eq!(fs::read_to_string(starts()).unwrap(), copied);
    }
    assert!(!observed(&provisioner, &id).await.running);
    provisioner
        .put_back(&id, MEMBER, "elsewhere")
        .await
        .unwrap();
    for name in ["..", "a/b", ""] {
        assert!(provisioner.set_aside(&id, MEMBER, name).await.is_err());
        assert!(provisioner.put_back(&id, MEMBER, name).await.is_err());
        let staged = provisioner.stage_file(&id, MEMBER, name, "copied").await;
        assert!(staged.is_err(), "{name}");
    }
    provisioner.destroy(&id).await.unwrap();
    assert!(!world.cluster().join(id.as_str()).exists());
}
