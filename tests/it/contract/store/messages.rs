//! What the outbox promises: messages leave in order, and one broker sends.

use chrono::TimeDelta;
use compose_broker::{
    model::{
        alert::{Alert, Gravity, Subject},
        ids::MessageId,
        message::{InstanceData, Message, key},
    },
    store::outbox::{self, NotifiedAlert},
};

use super::{Kind, LEASE, id, noon, read, seconds, write};

fn message(instance: &str, about: Subject) -> Message {
    let alert = Alert {
        subject: about,
        gravity: Gravity::Warning,
        member: None,
        since: None,
        message: "So it is.".to_owned(),
    };
    let instance = InstanceData {
        id: id(instance),
        cluster: "local".to_owned(),
        plan: "Standard".to_owned(),
        engine: "etcd".to_owned(),
        version: "3.6.16".to_owned(),
        page: "https://broker.example.com/".to_owned(),
    };
    Message::opened("https://broker.example.com", instance, &alert, noon())
}

pub(super) async fn messages_of_an_instance_leave_one_after_the_other<K: Kind>() {
    let Some(kind) = K::new() else { return };
    let store = kind.store();
    let messages = [
        message("a", Subject::Backup),
        message("a", Subject::Storage),
        message("b", Subject::Backup),
    ];
    let [first, second, other] = messages.clone().map(|message| message.id);
    write(store, move |conn| {
        messages
            .iter()
            .try_for_each(|message| outbox::add(conn, message))
    })
    .await;
    let due = async |second| -> Vec<MessageId> {
        let due = read(store, move |conn| outbox::due(conn, seconds(second), 10)).await;
        due.into_iter().map(|message| message.id).collect()
    };
    assert_eq!(due(0).await, [first.clone(), other.clone()]);
    // What waits for its next try holds up those behind it, and no others.
    let late = first.clone();
    write(store, move |conn| outbox::put_off(conn, &late, seconds(60))).await;
    assert_eq!(due(59).await, std::slice::from_ref(&other));
    let again = read(store, |conn| outbox::due(conn, seconds(60), 1)).await;
    assert_eq!((&again[0].id, again[0].tries), (&first, 1));
    write(store, |conn| outbox::hurry(conn, seconds(5))).await;
    assert_eq!(due(5).await, [first.clone(), other.clone()]);
    write(store, move |conn| outbox::remove(conn, &first)).await;
    assert_eq!(due(5).await, [second, other]);
    let (waiting, oldest) = read(store, outbox::backlog).await;
    assert_eq!((waiting, oldest), (2, Some(noon())));
    let old = read(store, |conn| outbox::made_before(conn, noon(), 10)).await;
    assert_eq!(old, []);
    let old = read(store, |conn| outbox::made_before(conn, seconds(1), 10)).await;
    assert_eq!(old.len(), 2);
}

pub(super) async fn what_was_told_of_an_alert_is_kept_until_it_ends<K: Kind>() {
    let Some(kind) = K::new() else { return };
    let store = kind.store();
    let told = message("a", Subject::Member("m1".to_owned())).data;
    let alert = |gravity| NotifiedAlert {
        key: key(&Subject::Member("m1".to_owned())),
        gravity,
        told: told.clone(),
    };
    for gravity in [Gravity::Warning, Gravity::Critical] {
        let alert = alert(gravity);
        write(store, move |conn| {
            outbox::set_notified(conn, &id("a"), &alert)
        })
        .await;
    }
    let kept = read(store, |conn| outbox::notified(conn, &id("a"))).await;
    assert_eq!(kept, [alert(Gravity::Critical)]);
    let instances = read(store, |conn| outbox::instances_notified(conn, "", 10)).await;
    assert_eq!(instances, [id("a")]);
    write(store, |conn| {
        outbox::forget_notified(conn, &id("a"), "member m1")
    })
    .await;
    assert_eq!(
        read(store, |conn| outbox::notified(conn, &id("a"))).await,
        []
    );
}

pub(super) async fn one_broker_sends_messages<K: Kind>() {
    let Some(kind) = K::new() else { return };
    let (store, replica) = (kind.store(), kind.replica());
    let hold = async |store, owner: &'static str, at| {
        write(store, move |conn| outbox::hold(conn, owner, at, at + LEASE)).await
    };
    assert!(hold(store, "one", noon()).await);
    assert!(!hold(&replica, "two", seconds(1)).await);
    assert!(hold(store, "one", seconds(10)).await);
    assert!(!hold(&replica, "two", seconds(10) + LEASE - TimeDelta::seconds(1)).await);
    assert!(hold(&replica, "two", seconds(10) + LEASE).await);
    assert!(!hold(store, "one", seconds(11) + LEASE).await);
    // One that ends lets the next one in at once; it cannot let go for another.
    write(store, |conn| outbox::let_go(conn, "one")).await;
    assert!(!hold(store, "one", seconds(11) + LEASE).await);
    write(&replica, |conn| outbox::let_go(conn, "two")).await;
    assert!(hold(store, "one", seconds(11) + LEASE).await);
    // A clock that ran ahead keeps nobody out for longer than a lease.
    let ahead = noon() + TimeDelta::days(3650);
    assert!(hold(store, "one", ahead).await);
    assert!(hold(&replica, "two", seconds(100)).await);
}
