//! What a server may do to a transaction: each decision is made once, or its caller is told that nobody knows.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU32, Ordering},
        mpsc,
    },
    time::{Duration, Instant},
};

use compose_broker::{
    model::limits::{DECISION_TRIES_TIME, DECISION_WAIT, postgres::POSTGRES_IDLE_IN_TRANSACTION},
    store::{Conn, POSTGRES_LOCK, Store, StoreError, claim, notes},
};
use diesel::{Connection as _, PgConnection, connection::SimpleConnection as _};
use futures::future::join_all;
use tokio::time::timeout;

use super::{
    Kind as _, LEASE, Pooled, Postgres, SOON, accept, backup_of, claim_one, found, noon, note, own,
    seconds, text_of_note,
};
use crate::{line::Line, postgres::name_of};

/// Has the database do this to the first two transactions that write a note: at once, or in their commit.
fn stumble(database: &Postgres, does: &str, in_commit: bool) {
    let trigger = match in_commit {
        false => "CREATE TRIGGER stumbles BEFORE INSERT ON notes",
        true => {
            "CREATE CONSTRAINT TRIGGER stumbles AFTER INSERT ON notes \
             DEFERRABLE INITIALLY DEFERRED"
        }
    };
    let mut admin = PgConnection::establish(&database.url).expect("a connection");
    // A sequence goes on also where the transaction is undone.
    let made = admin.batch_execute(&format!(
        "CREATE SEQUENCE stumbled;
         CREATE FUNCTION stumble() RETURNS trigger LANGUAGE plpgsql AS $$
         BEGIN IF nextval('stumbled') <= 2 THEN {does}; END IF; RETURN NEW; END $$;
         {trigger} FOR EACH ROW EXECUTE FUNCTION stumble()"
    ));
    made.expect("a trigger");
}

/// Writes a note; returns how often that was begun.
async fn write_note(store: &Arc<Store>, text: &'static str) -> (Result<(), StoreError>, u32) {
    let (runs, counted) = (Arc::new(AtomicU32::new(0)), Arc::<AtomicU32>::default());
    let (begun, committed) = (runs.clone(), counted.clone());
    let work = move |conn: &mut Conn<'_>| {
        begun.fetch_add(1, Ordering::SeqCst);
        let committed = committed.clone();
        conn.once_committed(move || {
            committed.fetch_add(1, Ordering::SeqCst);
        });
        note(conn, text)
    };
    let written = store.write(work).await;
    let follows = counted.load(Ordering::SeqCst);
    assert_eq!(follows, u32::from(written.is_ok()), "once or not at all");
    (written, runs.load(Ordering::SeqCst))
}

#[tokio::test(flavor = "multi_thread")]
async fn a_failure_that_passes_has_the_decision_made_anew() {
    let raise = |code: &str| format!("RAISE EXCEPTION 'stumbled' USING ERRCODE = '{code}'");
    let does = [
        raise("40001"), // serialization failure
        raise("40P01"), // deadlock
        "PERFORM pg_terminate_backend(pg_backend_pid())".to_owned(),
    ];
    for does in does {
        for in_commit in [false, true] {
            let Some(database) = Postgres::new() else {
                return;
            };
            stumble(&database, &does, in_commit);
            let (written, runs) = write_note(database.store(), "kept").await;
            written.unwrap_or_else(|error| panic!("{does}, in commit: {in_commit}: {error:?}"));
            assert_eq!(runs, 3, "{does}, in commit: {in_commit}");
            assert_eq!(text_of_note(database.store()).await, "kept");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_failure_that_stays_is_told_after_a_few_tries() {
    let Some(database) = Postgres::new() else {
        return;
    };
    let does = "PERFORM setval('stumbled', 1, false); RAISE EXCEPTION 'as always'";
    stumble(&database, does, false);
    let (written, runs) = write_note(database.store(), "never").await;
    let Err(StoreError::Database(error)) = written else {
        panic!("{written:?}");
    };
    assert_eq!(error.to_string(), "as always");
    assert!(runs > 1, "{runs}");
    assert_eq!(text_of_note(database.store()).await, "");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_breaks_a_rule_of_the_schema_is_not_tried_again() {
    let Some(database) = Postgres::new() else {
        return;
    };
    let does = "RAISE EXCEPTION 'broken' USING ERRCODE = '23514'"; // a check
    stumble(&database, does, false);
    let (written, runs) = write_note(database.store(), "never").await;
    refused!(written, StoreError::Database(_));
    assert_eq!(runs, 1);
}

/// Whatever the administrator has set, a decision sees what the one before it has written.
#[tokio::test(flavor = "multi_thread")]
async fn the_server_s_default_isolation_is_not_ours() {
    let Some(database) = Postgres::new() else {
        return;
    };
    let mut admin = PgConnection::establish(&database.url).expect("a connection");
    let name = name_of(&database.url);
    let strict = "SET default_transaction_isolation = 'serializable'";
    let set = admin.batch_execute(&format!("ALTER DATABASE {name} {strict}"));
    set.expect("a setting");
    let stores = [database.replica(), database.replica()];
    let runs = Arc::<AtomicU32>::default();
    let written = stores.iter().cycle().take(20).map(|store| {
        let runs = runs.clone();
        store.write(move |conn| {
            runs.fetch_add(1, Ordering::SeqCst);
            let count: u32 = notes::of(conn, &own(1))?.text.parse().unwrap_or(0);
            note(conn, &(count + 1).to_string())
        })
    });
    for written in join_all(written).await {
        written.expect("written");
    }
    assert_eq!(text_of_note(&stores[0]).await, "20");
    assert_eq!(runs.load(Ordering::SeqCst), 20, "each at once");
}

/// Loses the answer to a commit of a store that is opened at the address of a line.
async fn a_lost_commit_is_found(url: &str, open: impl Fn(&str) -> Arc<Store>) {
    let (line, url) = Line::to_server_of(url);
    let store = open(&url);
    assert_eq!(write_note(&store, "first").await.1, 1);
    line.lose_next_commit(false);
    let (written, runs) = write_note(&store, "second").await;
    written.expect("it was kept");
    assert!(line.has_lost_commit(), "nothing was cut");
    assert_eq!(runs, 1);
    assert_eq!(text_of_note(&store).await, "second");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_commit_whose_answer_was_lost_is_found_and_not_made_twice() {
    let open = |url: &str| Arc::new(Store::open(url).expect("a store"));
    if let Some(database) = Postgres::new() {
        a_lost_commit_is_found(&database.url, open).await;
    }
    if let Some(database) = Pooled::new() {
        a_lost_commit_is_found(&database.url, Pooled::open).await;
    }
}

/// A broker that takes long over a decision, or stands still in one, delays no lease of another.
#[tokio::test(flavor = "multi_thread")]
async fn heartbeats_wait_for_no_decision() {
    let Some(database) = Postgres::new() else {
        return;
    };
    let store = database.store();
    accept(store, &[backup_of("i")]).await;
    let claim = claim_one(store, "w", noon()).await.expect("a claim");
    let mut decides = PgConnection::establish(&database.url).expect("a connection");
    let lock = format!("BEGIN; SELECT pg_advisory_xact_lock{POSTGRES_LOCK}");
    decides.batch_execute(&lock).expect("the lock");
    let mut waits = Box::pin(store.write(|conn| note(conn, "late")));
    assert!(futures::poll!(&mut waits).is_pending());
    let (renewed, of) = (seconds(10), claim.clone());
    let beats = store.write_beside(move |conn| {
        claim::set_bytes(conn, &of, renewed, (1, 2))?;
        let works_on = [of.operation.clone()];
        claim::renew_all(conn, "w", &works_on, renewed, renewed + LEASE)
    });
    let held = timeout(SOON, beats).await.expect("nobody decides that");
    let held = held.expect("renewed");
    assert_eq!(held[&claim.operation].epoch, claim.epoch);
    assert!(futures::poll!(&mut waits).is_pending());
    decides.batch_execute("COMMIT").expect("an end");
    waits.await.expect("written");
    // Nobody else gets it in the meantime.
    assert_eq!(claim_one(store, "x", seconds(20)).await, None);
    let progress = found(store, &claim.operation).await.progress;
    assert_eq!((progress.bytes_done, progress.bytes_total), (1, 2));
}

/// It waits for as long as a read may take.
#[tokio::test(flavor = "multi_thread")]
async fn nobody_waits_for_ever_for_a_server_that_hangs() {
    const READS: usize = 600; // more than there are threads for them
    let Some(database) = Postgres::new() else {
        return;
    };
    let (line, url) = Line::to_server_of(&database.url);
    let store = Arc::new(Store::open(&url).expect("a store"));
    write_note(&store, "first").await.0.expect("written");
    line.hang();
    let begun = Instant::now();
    let hanging = tokio::spawn({
        let store = store.clone();
        async move { write_note(&store, "second").await.0 }
    });
    let reads = join_all((0..READS).map(|_| store.read(|conn| notes::of(conn, &own(1)))));
    let waits = async {
        // The writer has begun the other one by then.
        tokio::time::sleep(Duration::from_secs(1)).await;
        write_note(&store, "third").await.0
    };
    let (third, reads) = tokio::join!(waits, reads);
    let took = begun.elapsed();
    assert!(took < DECISION_WAIT + SOON / 2, "{took:?}");
    refused!(third, StoreError::Busy);
    for read in reads {
        let error = read.expect_err("the server hangs");
        assert!(error.is_shortage(), "{error:?}");
    }

    // Nothing of that is in the way when it goes on.
    line.go_on();
    hanging.await.expect("no panic").expect("written");
    assert_eq!(text_of_note(&store).await, "second");
    write_note(&store, "fourth").await.0.expect("written");
    assert_eq!(text_of_note(&store).await, "fourth");
}

/// It waits for as long as a writer looks for a lost commit.
#[tokio::test(flavor = "multi_thread")]
async fn a_commit_that_nobody_can_ask_about_is_told_to_be_unknown() {
    let Some(database) = Postgres::new() else {
        return;
    };
    let (line, url) = Line::to_server_of(&database.url);
    let store = Arc::new(Store::open(&url).expect("a store"));
    line.lose_next_commit(true);
    let (written, runs) = write_note(&store, "kept").await;
    refused!(&written, StoreError::Unknown(_));
    assert!(written.is_err_and(|error| error.is_shortage()));
    assert_eq!(runs, 1, "it may be made already");
    // It was: its caller was told that nobody knows, and finds it when it looks.
    assert_eq!(text_of_note(database.store()).await, "kept");
    line.mend();
    let (written, runs) = write_note(&store, "later").await;
    written.expect("the server is there again");
    assert_eq!(runs, 1);
    assert_eq!(text_of_note(&store).await, "later");
}

/// A broker that stands still in the midst of a decision, with the lock of all.
#[tokio::test(flavor = "multi_thread")]
async fn a_decision_that_stands_still_loses_its_turn_and_changes_nothing() {
    let Some(database) = Postgres::new() else {
        return;
    };
    let (still, other) = (database.replica(), database.replica());
    let (begun, begins) = mpsc::channel::<()>();
    let (go_on, stands) = mpsc::channel::<()>();
    let runs = Arc::<AtomicU32>::default();
    let counted = runs.clone();
    let standing = tokio::spawn(async move {
        let decision = still.write(move |conn| {
            if counted.fetch_add(1, Ordering::SeqCst) == 0 {
                note(conn, "half")?;
                begun.send(()).expect("a listener");
                stands.recv().expect("an end");
            }
            let seen = notes::of(conn, &own(1))?.text;
            note(conn, &format!("{seen}, then this"))
        });
        decision.await
    });
    tokio::task::block_in_place(|| begins.recv()).expect("it was begun");
    let since = Instant::now();
    let (written, ran) = loop {
        // One that has waited for too long is refused, and is asked for again.
        match write_note(&other, "that first").await {
            (Err(StoreError::Busy), _) => {}
            other => break other,
        }
    };
    let took = since.elapsed();
    written.expect("the lock is free again");
    assert!(ran > 0);
    let most = POSTGRES_IDLE_IN_TRANSACTION + DECISION_TRIES_TIME;
    assert!(took < most, "{took:?}");
    go_on.send(()).expect("it stands still");
    let standing = standing.await.expect("no panic");
    standing.expect("it was made anew");
    assert!(runs.load(Ordering::SeqCst) > 1);
    assert_eq!(text_of_note(&other).await, "that first, then this");
}
