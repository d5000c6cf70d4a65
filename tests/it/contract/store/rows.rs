//! What rows promise: what is there once, order and pages, and all that comes back as it was.

use std::{collections::HashSet, sync::Arc};

use chrono::{DateTime, TimeDelta, Utc};
use compose_broker::{
    caller::Caller,
    model::{
        address::Address,
        alert::Incident,
        backup::{Backup, BackupState},
        binding::Binding,
        ids::{BackupId, DeploymentId},
        instance::{Instance, InstanceState},
        operation::Operation,
        origin::Origin,
        proof::{Finding, Next, Proof},
        trail::{Accessed, AuditedAccess, CountedAccess},
        trust::{ClockReading, KnownTime},
    },
    store::{
        Conn, Store, StoreError, audit, backup, binding, deployment, incident, instance,
        known_time, operation, oversight, proof, session,
    },
};
use futures::future::join_all;
use serde_json::json;

use super::{
    Kind, MANY, accept, backup_of, binding_of, deployment_at, id, instance_of, kept_backup, noon,
    note, own, read, seconds, text_of_note, trusted, write,
};

pub(super) async fn an_address_is_held_once<K: Kind>() {
    let Some(kind) = K::new() else { return };
    let stores = [kind.store().clone(), kind.replica()];
    let store = kind.store();
    write(store, |conn| {
        (1..=6).try_for_each(|number| deployment::insert(conn, &deployment_at(number, &[])))
    })
    .await;
    let allocate = |store: &Arc<Store>, number: u32, ports: &[u16]| {
        let (store, wanted) = (store.clone(), deployment_at(number, ports));
        async move {
            let work = move |conn: &mut Conn<'_>| deployment::allocate(conn, &wanted, "sealed");
            store.write(work).await
        }
    };
    // Of many at once, one gets it.
    let both = (1..=6).zip(stores.iter().cycle());
    let answers = join_all(both.map(|(i, s)| allocate(s, i, &[1000 + i as u16, 2000]))).await;
    let winners: Vec<u32> = (1..=6)
        .zip(&answers)
        .filter(|(_, a)| a.is_ok())
        .map(|(i, _)| i)
        .collect();
    let [winner] = winners[..] else {
        panic!("{winners:?}")
    };
    for answer in answers.into_iter().filter(Result::is_err) {
        refused!(answer, StoreError::Duplicate);
    }
    let at = |host: &str| {
        let hosts = [host.to_owned(), "elsewhere.example.org".to_owned()];
        read(store, move |conn| deployment::addresses(conn, &hosts))
    };
    let (held, of_others) = (at("db.example.org").await, at("db.example.com").await);
    assert_eq!(of_others, HashSet::new());
    assert_eq!(
        read(store, deployment::addresses_held).await,
        held.len() as i64
    );
    let address = |port| Address::at("db.example.org", port);
    assert_eq!(
        held,
        HashSet::from([address(1000 + winner as u16), address(2000)])
    );
    let other = winner % 6 + 1;
    let held_by_another = read(store, move |conn| {
        let wanted = [
            deployment_at(other, &[3000]),
            deployment_at(other, &[3000, 2000]),
        ];
        wanted
            .each_ref()
            .map(|d| deployment::held_by_another(conn, d))
            .into_iter()
            .collect::<Result<Vec<_>, _>>()
    })
    .await;
    assert_eq!(held_by_another, [None, Some(address(2000))]);
    // Another host has ports of its own; a listener on this machine has none.
    let mut elsewhere = deployment_at(other, &[2000]);
    for held in elsewhere.members[0].addresses.values_mut() {
        held.host = "DB.example.org".to_owned();
    }
    write(store, move |conn| {
        deployment::allocate(conn, &elsewhere, "sealed")
    })
    .await;
    let move_to = |number: u32, ports: &[u16]| {
        let moved = deployment_at(number, ports);
        write(store, move |conn| {
            deployment::readdress(conn, &moved.id, &moved.members)
        })
    };
    assert!(move_to(winner, &[2000, 2001]).await);
    assert!(!move_to(other, &[2001]).await);
    write(store, move |conn| deployment::release(conn, &own(winner))).await;
    assert!(move_to(other, &[2001]).await);
}

pub(super) async fn what_there_is_once_is_refused_a_second_time<K: Kind>() {
    type Insert = fn(&mut Conn<'_>) -> Result<(), StoreError>;
    const INSERTS: [Insert; 5] = [
        |conn| instance::insert(conn, &instance_of("i", "o")),
        |conn| binding::insert(conn, &binding_of("i", "b")),
        |conn| session::use_link(conn, "a nonce", noon()),
        |conn| binding::grant_token(conn, "a fingerprint", &binding_of("i", "b"), noon()),
        |conn| {
            let random = uuid::Uuid::new_v4().as_u128();
            let number = u32::try_from(random % (1 << 31)).expect("small");
            backup::insert(conn, &kept_backup(number, Some("2026-06-01")))
        },
    ];
    let Some(kind) = K::new() else { return };
    let (store, replica) = (kind.store(), kind.replica());
    for insert in INSERTS {
        write(store, insert).await;
        for again in [store, &replica] {
            refused!(again.write(insert).await, StoreError::Duplicate);
        }
    }
    // The period of a backup that failed is free.
    write(store, |conn| {
        let day = "2026-06-01".parse().expect("a day");
        assert_eq!(backup::taken(conn, &id("i"), &[day])?, [day]);
        let failed = backup::of_instance(conn, &id("i"))?.remove(0).id;
        backup::fail(conn, &failed, "a reason", noon())?;
        assert_eq!(backup::taken(conn, &id("i"), &[day])?, []);
        INSERTS[4](conn)
    })
    .await;
}

pub(super) async fn pages_have_all_and_nothing_twice<K: Kind>() {
    const PAGE: i64 = 2;
    let Some(kind) = K::new() else { return };
    let store = kind.store();
    let ids = [
        "B", "a", "A", "b-1", "b1", "ä", "é", "z", "Z", "1", "-", "日本",
    ];
    write(store, move |conn| {
        for name in ids {
            instance::insert(conn, &instance_of(name, "o"))?;
            operation::insert(conn, &backup_of(name), None)?;
        }
        Ok(())
    })
    .await;
    let (by_id, searched, operations, trail) = read(store, move |conn| {
        let (mut by_id, mut searched) = (Vec::<String>::new(), Vec::new());
        let (mut operations, mut trail) = (Vec::<Operation>::new(), Vec::new());
        loop {
            let last = by_id.last().cloned().unwrap_or_default();
            let page = instance::after(conn, &last, PAGE)?;
            if page.is_empty() {
                break;
            }
            by_id.extend(page.into_iter().map(|i| i.id.to_string()));
        }
        for skipped in (0..ids.len()).step_by(2) {
            let page = instance::search(conn, "", skipped, 2)?;
            searched.extend(page.into_iter().map(|i| i.id.to_string()));
        }
        loop {
            let filter = oversight::Filter {
                after: operations.last().map(|o| o.id.clone()),
                ..oversight::Filter::default()
            };
            let page = oversight::list(conn, &filter, PAGE)?;
            if page.is_empty() {
                break;
            }
            operations.extend(page.into_iter().map(|seen| seen.operation));
        }
        let mut before = None;
        loop {
            let page = audit::newest(conn, None, (None, before), PAGE)?;
            let Some(last) = page.last() else { break };
            before = Some(last.id);
            trail.extend(page.into_iter().filter_map(|entry| entry.operation));
        }
        Ok((by_id, searched, operations, trail))
    })
    .await;
    for mut page in [by_id, searched] {
        page.sort();
        let mut all = ids.map(str::to_owned);
        all.sort();
        assert_eq!(page, all);
    }
    // All were made in one moment: what was asked for last comes first all the same.
    let asked: Vec<&str> = operations.iter().map(|o| o.instance.as_str()).collect();
    assert_eq!(asked, ids.iter().rev().copied().collect::<Vec<_>>());
    assert!(operations.is_sorted_by(|a, b| a.ordinal > b.ordinal));
    assert_eq!(
        trail,
        operations.iter().map(|o| o.id.clone()).collect::<Vec<_>>()
    );
}

pub(super) async fn what_is_to_be_proved_is_found_in_its_turn<K: Kind>() {
    let Some(kind) = K::new() else { return };
    let store = kind.store();
    let complete = |number: u32, minutes: i64| Backup {
        state: BackupState::Complete,
        instance: id("i1"),
        deployment: own(1),
        finished_at: Some(noon() + TimeDelta::minutes(minutes)),
        ..kept_backup(number, None)
    };
    write(store, move |conn| {
        instance::insert(conn, &instance_of("i1", "o"))?;
        deployment::insert(conn, &deployment_at(1, &[]))?;
        backup::insert(conn, &kept_backup(1, None))?;
        backup::insert(conn, &complete(2, 2))?;
        backup::insert(conn, &complete(3, 1))
    })
    .await;
    let due = async |at: i64, limit| -> Vec<String> {
        let at = noon() + TimeDelta::minutes(at);
        let due = read(store, move |conn| proof::due(conn, "c", at, limit)).await;
        due.into_iter().map(|due| due.backup.to_string()).collect()
    };
    let none: [String; 0] = [];
    assert_eq!(due(9, MANY).await, none, "it is not usable");
    let ready = InstanceState::Ready;
    write(store, move |conn| {
        instance::set_state(conn, &id("i1"), ready)
    })
    .await;
    let [second, third] = [2, 3].map(own::<BackupId>);
    let both = [third.to_string(), second.to_string()];
    assert_eq!(
        due(9, MANY).await,
        both,
        "the one that has waited longest first"
    );
    assert_eq!(due(9, 1).await, both[..1]);
    assert_eq!(due(-900, MANY).await, both, "the first goes by no clock");
    let other = read(store, |conn| proof::due(conn, "d", seconds(900), MANY)).await;
    assert!(other.is_empty(), "on another cluster");

    let untried = Proof::default().after(
        &[Finding::Untried {
            reason: "there is no room".to_owned(),
        }],
        noon(),
    );
    let (of, kept) = (third.clone(), untried.clone());
    let again = noon() + TimeDelta::minutes(30);
    write(store, move |conn| {
        proof::set(conn, &of, &kept, Next::Proof(again))
    })
    .await;
    assert_eq!(due(29, MANY).await, both[1..]);
    assert_eq!(due(30, MANY).await, [both[1].clone(), both[0].clone()]);
    let day_before = -2 * 24 * 60;
    assert_eq!(
        due(day_before, MANY).await.len(),
        2,
        "the clock was set back"
    );
    let of = third.clone();
    let found = read(store, move |conn| backup::find(conn, &of)).await;
    assert_eq!(found.expect("a backup").proof, untried);
    let proved = Proof::default().after(&[Finding::Intact], noon());
    let (of, kept) = (second.clone(), proved.clone());
    let month = 29 * 24 * 60;
    let again = Next::Reading(noon() + TimeDelta::minutes(month - 1));
    write(store, move |conn| proof::set(conn, &of, &kept, again)).await;
    assert_eq!(due(30, MANY).await, both[..1], "it needs no further one");
    assert_eq!(due(month, MANY).await, both, "proofs before readings");
    assert_eq!(due(month, 1).await, both[..1]);
    assert_eq!(due(-month, MANY).await, both, "the clock was set back");
    let found = read(store, move |conn| backup::find(conn, &second)).await;
    assert_eq!(found.expect("a backup").proof, proved);
}

pub(super) async fn a_text_is_found_as_it_stands<K: Kind>() {
    let Some(kind) = K::new() else { return };
    let store = kind.store();
    let names = ["Ärger", "100%", "a_b", "a\\b", "axb", "O'Neil", "日本語"];
    write(store, move |conn| {
        let mut all = names.iter().enumerate();
        all.try_for_each(|(i, name)| instance::insert(conn, &instance_of(&format!("i{i}"), name)))
    })
    .await;
    let expected = [
        ("Ärger", vec!["Ärger"]),
        ("ÄRGER", vec!["Ärger"]),
        ("0%", vec!["100%"]),
        ("a_b", vec!["a_b"]),
        ("A_B", vec!["a_b"]),
        ("\\", vec!["a\\b"]),
        ("o'n", vec!["O'Neil"]),
        ("本", vec!["日本語"]),
        ("nobody", vec![]),
    ];
    for (text, expected) in expected {
        let found = read(store, move |conn| instance::search(conn, text, 0, 9)).await;
        let found: Vec<_> = found
            .iter()
            .map(|i| i.tenant.organization.as_str())
            .collect();
        assert_eq!(found, expected, "{text}");
    }
    let tenant = instance_of("i0", "Ärger").tenant;
    let count = read(store, move |conn| {
        instance::count_of(conn, &tenant, "standard")
    })
    .await;
    assert_eq!(count, 1);
}

pub(super) async fn what_befell_is_told_newest_first_and_the_audit_is_kept<K: Kind>() {
    let Some(kind) = K::new() else { return };
    let store = kind.store();
    let ada = Caller {
        platform: Some("cloudfoundry".to_owned()),
        user: Some("Ada \u{1f9ee}".to_owned()),
        request_id: Some("r".to_owned()),
        address: Some(std::net::Ipv6Addr::LOCALHOST.into()),
    };
    let operations: Vec<Operation> = (0..5)
        .map(|i| Operation {
            created_at: seconds(i),
            ..backup_of("i")
        })
        .collect();
    ada.during(accept(store, &operations)).await;
    // Several that are told as one, later than they were.
    let folded = CountedAccess {
        access: AuditedAccess {
            what: Accessed::Credentials,
            origin: Origin::Osb,
            instance: Some(id("i")),
            binding: None,
            backup: None,
            platform: None,
            user: None,
            address: None,
        },
        at: seconds(2),
        times: 3,
    };
    write(store, move |conn| audit::accessed(conn, &folded)).await;
    let page = |before| {
        read(store, move |conn| {
            audit::newest(conn, Some(&id("i")), (None, before), 2)
        })
    };
    let mut trail = page(None).await;
    while trail.len() % 2 == 0 {
        let more = page(trail.last().map(|entry| entry.id)).await;
        if more.is_empty() {
            break;
        }
        trail.extend(more);
    }
    let told: Vec<_> = trail.iter().map(|entry| (entry.at, entry.times)).collect();
    let in_order = [(4, 1), (3, 1), (2, 3), (2, 1), (1, 1), (0, 1)];
    assert_eq!(told, in_order.map(|(at, times)| (seconds(at), times)));
    assert_eq!(trail[0].user.as_deref(), Some("Ada \u{1f9ee}"));
    assert_eq!(trail[0].address.as_deref(), Some("::1"));
    let forget = |before: DateTime<Utc>, limit| {
        write(store, move |conn| {
            audit::forget(conn, trusted(before), limit)
        })
    };
    assert_eq!(forget(seconds(0), 9).await, 0);
    assert_eq!(forget(seconds(3), 2).await, 2);
    assert_eq!(forget(seconds(3), 2).await, 1);
    assert_eq!(forget(seconds(3), 2).await, 0);
    assert_eq!(read(store, audit::oldest).await, Some(seconds(3)));
    let told = write(store, |conn| {
        for (message, at) in [("one", 1), ("two", 2), ("one", 3)] {
            let at = seconds(at);
            let message = message.to_owned();
            incident::add(conn, &own(1), &Incident { at, message })?;
        }
        incident::since(conn, &own(1), seconds(1))
    })
    .await;
    let told: Vec<_> = told.iter().map(|i| (i.message.as_str(), i.at)).collect();
    assert_eq!(told, [("one", seconds(3)), ("two", seconds(2))]);
}

pub(super) async fn what_is_sealed_comes_back_as_it_was_and_goes<K: Kind>() {
    let Some(kind) = K::new() else { return };
    let store = kind.store();
    // Longer than what fits into a page of any database.
    let sealed: String = (0..100_000_u32)
        .map(|i| char::from(b'!' + (i * 7 % 94) as u8))
        .collect();
    let bound = Binding {
        sealed_secrets: sealed.clone(),
        sealed_credentials: Some(sealed.clone()),
        expires_at: Some(seconds(1)),
        ..binding_of("i1", "b")
    };
    let (made, kept, text) = (deployment_at(1, &[1]), bound.clone(), sealed.clone());
    write(store, move |conn| {
        deployment::insert(conn, &made)?;
        deployment::allocate(conn, &made, &text)?;
        binding::insert(conn, &kept)?;
        binding::grant_token(conn, "a fingerprint", &kept, noon())
    })
    .await;
    let sealed_of = async || {
        read(store, |conn| {
            let sealed = deployment::of_instance(conn, &id("i1"))?;
            let bound = binding::get(conn, &id("i1"), &id("b"))?;
            Ok((
                sealed,
                bound,
                deployment::sealed_after(conn, "", 10)?.len(),
                binding::sealed_after(conn, ("", ""), 10)?.len(),
            ))
        })
        .await
    };
    let pages = read(store, |conn| {
        let last: DeploymentId = own(1);
        let of_deployments = deployment::sealed_after(conn, last.as_str(), 10)?.len();
        let mut pages = vec![of_deployments];
        for after in [("i0", "z"), ("i1", "a"), ("i1", "b"), ("i2", "")] {
            pages.push(binding::sealed_after(conn, after, 10)?.len());
        }
        Ok(pages)
    });
    assert_eq!(pages.await, [0, 1, 1, 0, 0]);
    let expected = (Some((deployment_at(1, &[1]), Some(sealed))), bound, 1, 1);
    assert_eq!(sealed_of().await, expected);
    write(store, |conn| {
        deployment::release(conn, &own(1))?;
        binding::retire(conn, &id("i1"), &id("b"))
    })
    .await;
    let (made, bound, ..) = sealed_of().await;
    let (made, sealed) = made.expect("a row");
    assert_eq!((made.members, sealed), (vec![], None));
    assert_eq!(
        (bound.sealed_secrets.as_str(), bound.sealed_credentials),
        ("", None)
    );
    let token = |conn: &mut Conn<'_>| binding::instance_of_token(conn, "a fingerprint");
    assert_eq!(read(store, token).await, None);
}

pub(super) async fn texts_come_back_whatever_stands_in_them<K: Kind>() {
    let Some(kind) = K::new() else { return };
    let store = kind.store();
    let strange =
        "Zoë \u{1f468}\u{200d}\u{1f4bb} e\u{301} שלום \u{feff}\u{10ffff} '\"\\%_;--$1 ?\r\n\t";
    let context = json!({
        "large": strange.repeat(20_000),
        "nul": "\u{0}",
        strange: [u64::MAX, i64::MIN, 0.1, true, null],
    });
    let asked = Instance {
        name: Some(strange.trim_end().to_owned()),
        context: context.clone(),
        parameters: context.clone(),
        ..instance_of("ид 日本 %_\\'", strange)
    };
    let kept = asked.clone();
    write(store, move |conn| {
        instance::insert(conn, &kept)?;
        note(conn, strange)
    })
    .await;
    let of = asked.id.clone();
    let found = read(store, move |conn| instance::get(conn, &of)).await;
    let ordinal = found.ordinal;
    assert_eq!(
        found,
        Instance {
            ordinal,
            ..asked.clone()
        }
    );
    assert_eq!(text_of_note(store).await, strange);
    let named = read(store, move |conn| {
        instance::is_named(
            conn,
            &asked.tenant,
            asked.name.as_deref().unwrap_or_default(),
        )
    });
    assert!(named.await);
}

pub(super) async fn times_keep_their_precision<K: Kind>() {
    let Some(kind) = K::new() else { return };
    let store = kind.store();
    let times = [
        "1970-01-01T00:00:00Z",
        "2024-02-29T23:59:59.999999Z",
        "2026-06-01T12:00:00.000001Z",
        "2026-06-01T12:00:00.1Z",
        "9999-12-31T23:59:59.999999Z",
    ];
    let times: Vec<DateTime<Utc>> = times.iter().map(|t| t.parse().expect("a time")).collect();
    let bindings: Vec<Binding> = (0..)
        .zip(&times)
        .map(|(i, at): (u32, _)| Binding {
            created_at: *at,
            expires_at: Some(*at),
            ..binding_of("i", &format!("b{i}"))
        })
        .collect();
    let kept = bindings.clone();
    write(store, move |conn| {
        kept.iter().try_for_each(|b| binding::insert(conn, b))
    })
    .await;
    let found = read(store, |conn| binding::of_instance(conn, &id("i"))).await;
    assert_eq!(found, bindings);
    // Also what is compared.
    for (i, at) in times.iter().enumerate() {
        let due = |now| move |conn: &mut Conn<'_>| binding::due_to_expire(conn, now, MANY);
        assert_eq!(read(store, due(*at)).await.len(), i + 1, "{at}");
        let before = read(store, due(*at - TimeDelta::microseconds(1))).await;
        assert_eq!(before.len(), i, "{at}");
    }
    let reading = ClockReading {
        time: noon() + TimeDelta::nanoseconds(7),
        elapsed: TimeDelta::milliseconds(1),
        boot: "b".to_owned(),
    };
    let known = KnownTime::begin(&reading);
    let told = known.clone();
    write(store, move |conn| known_time::keep(conn, &told)).await;
    assert_eq!(read(store, known_time::find).await, Some(known));
}
