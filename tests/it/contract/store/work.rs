//! What the queue promises: claims, leases, the fence, results of steps and keys.

use std::{
    collections::{HashMap, HashSet},
    sync::Arc,
    time::Duration,
};

use chrono::TimeDelta;
use compose_broker::{
    model::{
        deployment::Deployment,
        operation::{Claim, Operation, OperationKind, OperationState, Progress, WaitsFor},
        patience::Trial,
        trouble::Trouble,
        turn::Turn,
    },
    store::{
        Conn, Store, StoreError,
        claim::{self, Held},
        deployment, notes, operation, oversight, step,
    },
};
use futures::future::join_all;
use serde_json::json;

use super::{
    Kind, LEASE, MANY, accept, backup_of, claim, claim_one, deployment_at, found, id, noon, note,
    own, read, seconds, trusted, write,
};

pub(super) async fn an_operation_has_one_claimer<K: Kind>() {
    const OPERATIONS: usize = 24;
    let Some(kind) = K::new() else { return };
    let stores = [kind.store().clone(), kind.replica()];
    let all: Vec<Operation> = (0..OPERATIONS)
        .map(|i| backup_of(&format!("i{i}")))
        .collect();
    accept(kind.store(), &all).await;
    let claim_all = async |store: &Arc<Store>| {
        let mut claims = Vec::new();
        loop {
            let more = claim(store, "somebody", noon(), 3).await;
            if more.is_empty() {
                return claims;
            }
            claims.extend(more);
        }
    };
    let claims = join_all(stores.iter().cycle().take(6).map(claim_all)).await;
    let claims = claims.concat();
    assert_eq!(claims.len(), OPERATIONS);
    let ids: HashSet<_> = claims.iter().map(|(o, _)| o.id.clone()).collect();
    assert_eq!(ids.len(), OPERATIONS);
    for (operation, claim) in claims {
        assert_eq!((claim.epoch, operation.epoch), (1, 1));
        assert_eq!(operation.state, OperationState::Running);
    }
}

pub(super) async fn what_is_due_is_claimed_the_oldest_first<K: Kind>() {
    let Some(kind) = K::new() else { return };
    let store = kind.store();
    let at = |instance: &str, created: i64| Operation {
        created_at: seconds(created),
        ..backup_of(instance)
    };
    let [third, first, second] = [at("a", 3), at("b", 1), at("c", 2)];
    let ahead = at("d", 60);
    let other = Operation {
        kind: OperationKind::Bind,
        ..at("e", 0)
    };
    let deletion = Operation {
        kind: OperationKind::Deprovision,
        waits_for: WaitsFor::Instance,
        ..at("b", 9)
    };
    let all = [&third, &first, &second, &ahead, &other, &deletion];
    accept(store, &all.map(Clone::clone)).await;
    assert!(claim(store, "w", seconds(10), 0).await.is_empty());
    let two = claim(store, "w", seconds(10), 2).await;
    let ids = |claims: &[(Operation, Claim)]| -> Vec<_> {
        claims.iter().map(|(o, _)| o.id.clone()).collect()
    };
    assert_eq!(ids(&two), [first.id.clone(), second.id]);
    let rest = claim(store, "w", seconds(10), 9).await;
    assert_eq!(ids(&rest), [third.id]);
    // The deletion waits for what its instance has under way.
    assert!(claim(store, "w", seconds(10), 9).await.is_empty());
    let done = two[0].1.clone();
    write(store, move |conn| {
        claim::finish(conn, &done, OperationState::Succeeded, seconds(11))
    })
    .await;
    assert_eq!(ids(&claim(store, "w", seconds(12), 9).await), [deletion.id]);
}

pub(super) async fn claims_on_a_cluster_are_freed_by_who_has_it<K: Kind>() {
    let Some(kind) = K::new() else { return };
    let store = kind.store();
    let places = [("i1", "c"), ("i2", "other")];
    for (number, (_, cluster)) in (1..).zip(places) {
        let deployment = Deployment {
            cluster: cluster.to_owned(),
            ..deployment_at(number, &[])
        };
        write(store, move |conn| deployment::insert(conn, &deployment)).await;
    }
    accept(store, &places.map(|(instance, _)| backup_of(instance))).await;
    let claims = claim(store, "first", noon(), 2).await;
    assert_eq!(claims.len(), 2);
    let freed = write(store, |conn| claim::release_on(conn, "c")).await;
    assert_eq!(freed, 1);
    let again = claim(store, "second", noon(), 2).await;
    let again: Vec<_> = again
        .iter()
        .map(|(o, c)| (o.instance.as_str(), c.epoch))
        .collect();
    assert_eq!(again, [("i1", 2)]);
}

pub(super) async fn a_claim_lasts_as_long_as_it_is_renewed<K: Kind>() {
    let Some(kind) = K::new() else { return };
    let (store, replica) = (kind.store(), kind.replica());
    let backup = backup_of("i");
    accept(store, std::slice::from_ref(&backup)).await;
    let first = claim_one(store, "first", noon()).await.expect("a claim");
    let end = noon() + LEASE;
    assert_eq!(claim_one(&replica, "second", end).await, None);
    let works_on = first.clone();
    write(store, move |conn| {
        claim::set_bytes(conn, &works_on, seconds(1), (7, u64::MAX))
    })
    .await;
    // One statement for all that it works on, and for nothing else.
    let other = backup_of("other");
    accept(store, std::slice::from_ref(&other)).await;
    let others = claim_one(&replica, "second", noon())
        .await
        .expect("a claim");
    let all = vec![backup.id.clone(), other.id.clone()];
    let held = store.write_beside(move |conn| {
        claim::renew_all(conn, "first", &all, seconds(1), seconds(1) + LEASE)
    });
    let held = held.await.expect("written");
    let kept = Held {
        epoch: 1,
        halted: false,
    };
    assert_eq!(held, HashMap::from([(backup.id.clone(), kept)]));
    let none = write(store, |conn| {
        claim::renew_all(conn, "first", &[], seconds(9), seconds(9) + LEASE)
    });
    assert_eq!(none.await, HashMap::new());
    write(&replica, move |conn| {
        claim::finish(conn, &others, OperationState::Failed, noon())
    })
    .await;
    let seen = found(store, &backup.id).await;
    assert_eq!(seen.updated_at, seconds(1));
    assert_eq!(seen.progress.bytes_done, 7);
    assert_eq!(seen.progress.bytes_total, i64::MAX.unsigned_abs());
    let micro = TimeDelta::microseconds(1);
    assert_eq!(
        claim_one(&replica, "second", seconds(1) + LEASE).await,
        None
    );
    let second = claim_one(&replica, "second", seconds(1) + LEASE + micro).await;
    let second = second.expect("nobody renewed it");
    assert_eq!((first.epoch, second.epoch), (1, 2));
    // What ends cleanly frees its claims alone.
    write(store, |conn| claim::release(conn, Some("first"))).await;
    assert_eq!(claim_one(store, "third", seconds(17)).await, None);
    write(store, |conn| claim::release(conn, Some("second"))).await;
    let third = claim_one(store, "third", seconds(17))
        .await
        .expect("a claim");
    assert_eq!(third.epoch, 3);
    write(store, move |conn| {
        claim::postpone(conn, &third, noon(), Duration::from_secs(60))
    })
    .await;
    assert_eq!(claim_one(store, "fourth", seconds(59)).await, None);
    assert_eq!(
        claim_one(store, "fourth", seconds(60))
            .await
            .map(|c| c.epoch),
        Some(4)
    );
}

pub(super) async fn what_has_failed_in_passing_can_be_tried_at_once<K: Kind>() {
    let Some(kind) = K::new() else { return };
    let store = kind.store();
    accept(store, &["silent", "other", "later"].map(backup_of)).await;
    for (instance, fails) in [("silent", true), ("other", true), ("later", false)] {
        let (operation, claim) = claim(store, "first", noon(), 3)
            .await
            .into_iter()
            .find(|(operation, _)| operation.instance.as_str() == instance)
            .expect("a claim");
        write(store, move |conn| {
            let trouble = Trouble {
                tries: 1,
                since: noon(),
                reason: "the members do not answer".to_owned(),
                next: Some(seconds(60)),
                until: Some(seconds(90)),
            };
            claim::set_trouble(conn, &claim, Some(&trouble).filter(|_| fails))?;
            claim::postpone(conn, &claim, noon(), Duration::from_secs(60))
        })
        .await;
        assert_eq!(operation.instance.as_str(), instance);
        write(store, |conn| claim::release(conn, Some("first"))).await;
    }
    let due = async |at| -> Vec<String> {
        let claimed = claim(store, "second", seconds(at), 3).await.into_iter();
        claimed.map(|(o, _)| o.instance.to_string()).collect()
    };
    assert_eq!(due(1).await, Vec::<String>::new());
    let mut changes = store.changes();
    changes.mark_unchanged();
    let silent = id("silent");
    write(store, move |conn| {
        operation::hasten(conn, Some(&silent), seconds(1))
    })
    .await;
    assert!(changes.has_changed().expect("a store"));
    assert_eq!(due(1).await, ["silent"]);
    write(store, |conn| operation::hasten(conn, None, seconds(2))).await;
    // What waits for its time, and has not failed, goes on waiting.
    assert_eq!(due(2).await, ["other"]);
    assert!(due(60).await.contains(&"later".to_owned()));
}

pub(super) async fn an_old_worker_changes_nothing<K: Kind>() {
    type Write = fn(&mut Conn<'_>, &Claim) -> Result<(), StoreError>;
    const WRITES: [Write; 11] = [
        |conn, claim| claim::fence(conn, claim),
        |conn, claim| claim::set_bytes(conn, claim, noon(), (1, 1)),
        |conn, claim| {
            let progress = Progress::default();
            step::begin(conn, claim, "old", &progress, noon()).map(drop)
        },
        |conn, claim| {
            let trouble = Trouble {
                tries: 1,
                since: noon(),
                reason: "old".to_owned(),
                next: None,
                until: None,
            };
            let failed = step::FailedTry {
                step: "step",
                trial: Trial::default(),
                trouble: &trouble,
                error: "old",
                at: noon(),
            };
            step::note_failure(conn, claim, &failed)
        },
        |conn, claim| claim::set_trouble(conn, claim, None),
        |conn, claim| step::record(conn, claim, "step", &json!("old"), noon()),
        |conn, claim| step::forget_results(conn, claim),
        |conn, claim| claim::give_up(conn, claim, "old"),
        |conn, claim| claim::postpone(conn, claim, noon(), Duration::ZERO),
        |conn, claim| claim::finish(conn, claim, OperationState::Failed, noon()),
        // Whatever else stands in the same transaction.
        |conn, claim| {
            note(conn, "old")?;
            claim::fence(conn, claim)
        },
    ];
    let Some(kind) = K::new() else { return };
    let (store, replica) = (kind.store(), kind.replica());
    accept(store, &[backup_of("i")]).await;
    let old = claim_one(store, "old", noon()).await.expect("a claim");
    let late = noon() + LEASE * 2;
    let new = claim_one(&replica, "new", late).await.expect("a claim");
    let step = new.clone();
    write(&replica, move |conn| {
        step::begin(conn, &step, "step", &Progress::default(), noon())?;
        step::record(conn, &step, "step", &json!("new"), noon())
    })
    .await;
    let state = async || {
        let of = new.operation.clone();
        read(store, move |conn| {
            Ok((
                operation::get(conn, &of)?,
                step::results(conn, &of)?,
                step::trials(conn, &of)?,
                notes::of(conn, &own(1))?,
                oversight::find(conn, &of)?.map(|seen| seen.not_before),
            ))
        })
        .await
    };
    let before = state().await;
    let refuse = async |claim: &Claim| {
        for (i, old_write) in WRITES.into_iter().enumerate() {
            let claim = claim.clone();
            let result = store.write(move |conn| old_write(conn, &claim)).await;
            assert!(matches!(result, Err(StoreError::Fenced)), "{i}: {result:?}");
        }
    };
    refuse(&old).await;
    assert_eq!(state().await, before);
    // Nor does the last one, once all is over.
    let end = new.clone();
    write(&replica, move |conn| {
        claim::finish(conn, &end, OperationState::Succeeded, late)
    })
    .await;
    let before = state().await;
    refuse(&new).await;
    assert_eq!(state().await, before);
}

pub(super) async fn results_of_steps_are_kept_until_the_work_is_over<K: Kind>() {
    let Some(kind) = K::new() else { return };
    let store = kind.store();
    let backup = backup_of("i");
    accept(store, std::slice::from_ref(&backup)).await;
    let mut now = noon();
    let progress = Progress {
        step: "Taking a snapshot".to_owned(),
        steps_done: 1,
        steps_total: 2,
        ..Progress::default()
    };
    let trial = Trial {
        failures: 2,
        shortages: 1,
        spent: Duration::from_millis(1500),
        waited: Duration::from_secs(7),
    };
    let trouble = Trouble {
        tries: 3,
        since: noon(),
        reason: "it does not answer".to_owned(),
        next: Some(noon()),
        until: None,
    };
    let result = json!({"key": "a secret", "parts": [1, 2.5, null]});
    let turn = Turn::of("m1", 1, 3, "to version 3.6.5");
    // As often as its worker dies.
    for _ in 0..2 {
        let claim = claim_one(store, "w", now).await.expect("a claim");
        let (begun, noted, kept) = (progress.clone(), trouble.clone(), result.clone());
        let taken = turn.clone();
        write(store, move |conn| {
            for name in ["first", "second"] {
                step::begin(conn, &claim, name, &begun, noon())?;
            }
            step::take_turn(conn, &claim, &taken)?;
            step::record(conn, &claim, "first", &kept, seconds(3))?;
            let failed = step::FailedTry {
                step: "second",
                trial,
                trouble: &noted,
                error: "the very error",
                at: noon(),
            };
            step::note_failure(conn, &claim, &failed)
        })
        .await;
        let of = backup.id.clone();
        let (results, trials, steps) = read(store, move |conn| {
            let results = step::results(conn, &of)?;
            Ok((
                results,
                step::trials(conn, &of)?,
                oversight::steps(conn, &of)?,
            ))
        })
        .await;
        assert_eq!(
            results.into_iter().collect::<Vec<_>>(),
            [("first".to_owned(), result.clone())]
        );
        assert_eq!(
            (trials["first"], trials["second"]),
            (Trial::default(), trial)
        );
        let told: Vec<_> = steps.iter().map(|s| (s.name.as_str(), s.is_done)).collect();
        assert_eq!(told, [("first", true), ("second", false)]);
        assert_eq!(steps[0].took, Some(TimeDelta::seconds(3)));
        assert_eq!(steps[1].last_error.as_deref(), Some("the very error"));
        let seen = found(store, &backup.id).await;
        assert_eq!(seen.trouble.as_ref(), Some(&trouble));
        let turn = Some(turn.clone());
        assert_eq!(
            seen.progress,
            Progress {
                turn,
                ..progress.clone()
            }
        );
        now += LEASE * 2;
    }
    let last = claim_one(store, "w", now).await.expect("a claim");
    // The next step has no turn of the one before.
    let (claim, next) = (
        last.clone(),
        Progress {
            step: "Another".to_owned(),
            ..progress.clone()
        },
    );
    write(store, move |conn| {
        step::begin(conn, &claim, "third", &next, now)
    })
    .await;
    assert_eq!(found(store, &backup.id).await.progress.turn, None);
    let of = backup.id.clone();
    let (results, trials) = write(store, move |conn| {
        claim::finish(conn, &last, OperationState::Succeeded, now)?;
        step::forget_work(conn, &of)?;
        Ok((step::results(conn, &of)?, step::trials(conn, &of)?))
    })
    .await;
    assert!(results.is_empty(), "{results:?}");
    assert_eq!(trials.len(), 3);
    let seen = found(store, &backup.id).await;
    assert_eq!((seen.progress.steps_done, seen.trouble), (2, None));
    // Its instance is gone: then it is, too, in its time.
    let look = |before| move |conn: &mut Conn<'_>| operation::history(conn, trusted(before), MANY);
    assert_eq!(read(store, look(now)).await, []);
    let old = read(store, look(now + TimeDelta::microseconds(1))).await;
    assert_eq!(old, std::slice::from_ref(&backup.id));
    let trials = write(store, move |conn| {
        operation::forget(conn, &old)?;
        step::trials(conn, &old[0])
    });
    assert!(trials.await.is_empty());
    let left = read(store, move |conn| operation::find(conn, &backup.id)).await;
    assert_eq!(left, None);
}

pub(super) async fn one_active_operation_has_a_key<K: Kind>() {
    let Some(kind) = K::new() else { return };
    let stores = [kind.store().clone(), kind.replica()];
    let ask = async |store: &Arc<Store>| {
        let backup = backup_of("i");
        let of = backup.id.clone();
        let accepted = store.write(move |conn| operation::insert(conn, &backup, Some("i")));
        accepted.await.map(|()| of)
    };
    let answers = join_all(stores.iter().cycle().take(6).map(ask)).await;
    let (accepted, refused): (Vec<_>, Vec<_>) = answers.into_iter().partition(Result::is_ok);
    assert_eq!(accepted.len(), 1);
    for refused in refused {
        refused!(refused, StoreError::Duplicate);
    }
    let [store, replica] = &stores;
    // What halts gives it up, and so does what ends.
    let halted = accepted.into_iter().flatten().next().expect("one");
    write(store, move |conn| operation::halt(conn, &halted, noon())).await;
    let second = ask(replica).await.expect("accepted");
    refused!(ask(store).await, StoreError::Duplicate);
    let claims = claim(store, "w", noon(), 2).await;
    let ended = claims.into_iter().find(|(o, _)| o.id == second);
    // A backup follows the one before it.
    assert!(ended.is_none());
    write(store, move |conn| operation::halt(conn, &second, noon())).await;
    ask(store).await.expect("accepted");
}
