//! The one that writes: a thread with the one connection for it.
//!
//! Decisions that wait are made together, in one transaction: the disk is asked once for all of them.
//! Each has a savepoint, so that a refusal undoes its own changes alone, and sees what those before it
//! have changed. Nobody has an answer before all of it is durable.
//!
//! Where the transaction as a whole comes to nothing (the disk is full, say), each of its decisions is
//! made once more in a transaction of its own: what one of them meets is nobody else's matter. Where a
//! server's failure passes ([`passing`]), a decision is made anew for a while. So a decision may be run more
//! than once, and of all but the last run nothing is left. When the answer to a commit was lost, the next
//! connection tells what became of it ([`mark`]).

use std::{
    any::Any,
    panic::{AssertUnwindSafe, catch_unwind, resume_unwind},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
        mpsc::{Receiver, SyncSender, TrySendError, sync_channel},
    },
    thread::JoinHandle,
    time::{Duration, Instant},
};

use diesel::{Connection as _, QueryResult, SqliteConnection};
use tokio::{sync::oneshot, time::timeout};

use super::{
    Changed, Changes, Conn, Link, PostgresPool, StoreError, connection_error, copy, prepared,
};
use crate::{
    caller::Caller,
    model::{
        failure::chain,
        limits::{
            DECISION_ANSWER_WAIT, DECISION_PAUSES, DECISION_TRIES_TIME, DECISION_WAIT,
            DECISIONS_TOGETHER_MAX, DECISIONS_TOGETHER_TIME, DECISIONS_WAITING_MAX,
            LOST_COMMIT_WAIT,
        },
    },
};

mod mark;
mod passing;

use mark::Marks;
use passing::Passing;

/// Where decisions are handed in.
pub(super) struct Writer {
    /// There until the store ends.
    jobs: Option<SyncSender<Box<dyn Job>>>,
    thread: Option<JoinHandle<()>>,
}

/// What the thread writes to.
pub(super) enum Database {
    /// A file.
    Sqlite {
        connection: SqliteConnection,
        /// Held while the store is open: nobody else may take this process's claims for dead.
        _lock: std::fs::File,
    },
    /// One connection, which is made anew when it is lost.
    Postgres { pool: PostgresPool, marks: Marks },
}

impl Database {
    /// See [`copy::refuse_unfit`].
    pub(super) fn refuse_unfit(&mut self) -> Result<(), StoreError> {
        match self {
            Self::Sqlite { connection, .. } => copy::refuse_unfit(&mut Link::Sqlite(connection)),
            Self::Postgres { pool, .. } => {
                let mut connection = pool.get().map_err(connection_error)?;
                copy::refuse_unfit(&mut Link::Postgres(&mut connection))
            }
        }
    }

    /// What a pool of one connection leads to.
    pub(super) fn postgres(pool: PostgresPool) -> Result<Self, StoreError> {
        let mut connection = pool.get().map_err(connection_error)?;
        Marks::forget_old(&mut connection)?;
        drop(connection);
        let marks = Marks::new();
        Ok(Self::Postgres { pool, marks })
    }
}

impl Writer {
    /// Begins the thread. `changes` counts what is committed of operations.
    pub(super) fn begin(database: Database, changes: Changes) -> Result<Self, StoreError> {
        let (sender, jobs) = sync_channel(DECISIONS_WAITING_MAX);
        let desk = Desk {
            database,
            jobs,
            changes,
            passing: Passing::default(),
        };
        let thread = std::thread::Builder::new().name("store".to_owned());
        let thread = thread
            .spawn(move || desk.serve())
            .map_err(connection_error)?;
        Ok(Self {
            jobs: Some(sender),
            thread: Some(thread),
        })
    }

    /// Has `work` done, and waits until it is durable. Fails with [`StoreError::Busy`], and nothing is
    /// done, where the writer does not come to it within [`DECISION_WAIT`]; with [`StoreError::Unknown`] where it
    /// was begun, and no answer has come within [`DECISION_ANSWER_WAIT`].
    pub(super) async fn decide<T, E, F>(&self, caller: Caller, work: F) -> Result<T, E>
    where
        T: Send + 'static,
        E: From<StoreError> + Send + 'static,
        F: Fn(&mut Conn<'_>) -> Result<T, E> + Send + 'static,
    {
        let waits = (DECISION_WAIT, DECISION_ANSWER_WAIT);
        self.decide_within(waits, caller, work).await
    }

    /// Waits so long for its beginning, and for an answer where it was begun.
    async fn decide_within<T, E, F>(
        &self,
        (begins, ends): (Duration, Duration),
        caller: Caller,
        work: F,
    ) -> Result<T, E>
    where
        T: Send + 'static,
        E: From<StoreError> + Send + 'static,
        F: Fn(&mut Conn<'_>) -> Result<T, E> + Send + 'static,
    {
        let (answer, mut answered) = oneshot::channel();
        let turn = Turn::default();
        let decision = Decision {
            work,
            caller,
            turn: turn.clone(),
            result: None,
            answer,
        };
        let ended = || connection_error(std::io::Error::other("the store has ended"));
        let jobs = self.jobs.as_ref().ok_or_else(ended)?;
        jobs.try_send(Box::new(decision)).map_err(|e| match e {
            TrySendError::Full(_) => StoreError::Busy,
            TrySendError::Disconnected(_) => ended(),
        })?;
        let told = match timeout(begins, &mut answered).await {
            Ok(told) => told,
            Err(_) if turn.take() => return Err(StoreError::Busy.into()),
            Err(_) => match timeout(ends.saturating_sub(begins), answered).await {
                Ok(told) => told,
                Err(elapsed) => {
                    let reason = Box::new(connection_error(elapsed));
                    return Err(StoreError::Unknown(reason).into());
                }
            },
        };
        match told {
            Ok(Ok(result)) => result,
            Ok(Err(panic)) => resume_unwind(panic),
            Err(_) => Err(ended().into()),
        }
    }
}

impl Drop for Writer {
    fn drop(&mut self) {
        self.jobs = None;
        // The last that has the store may be a decision, which the thread itself lets go of.
        if let Some(thread) = self.thread.take()
            && thread.thread().id() != std::thread::current().id()
        {
            // Its callers know already what it met.
            let _ = thread.join();
        }
    }
}

/// Who has a decision: the writer from when it begins it, or its caller, who has waited too long and
/// takes it back. The first of them has it for good.
#[derive(Clone, Default)]
struct Turn(Arc<AtomicBool>);

impl Turn {
    /// Whether it was nobody's.
    fn take(&self) -> bool {
        !self.0.swap(true, Ordering::AcqRel)
    }
}

/// A decision, whatever its result is.
trait Job: Send {
    /// Takes it from its caller, before it is run for the first time; false: it was taken back.
    fn begin(&self) -> bool;
    /// Runs it.
    fn run(&mut self, link: Link<'_>) -> Run;
    /// Gives the result to the caller; of one that was kept, what came of the commit.
    fn answer(self: Box<Self>, committed: Result<(), StoreError>);
}

/// What a run of a decision came to.
#[derive(Default)]
struct Run {
    is_kept: bool,
    changed: Changed,
    once_committed: Vec<Box<dyn FnOnce()>>,
}

struct Decision<T, E, F> {
    work: F,
    caller: Caller,
    turn: Turn,
    result: Option<Result<Result<T, E>, Box<dyn Any + Send>>>,
    answer: oneshot::Sender<Result<Result<T, E>, Box<dyn Any + Send>>>,
}

impl<T, E, F> Job for Decision<T, E, F>
where
    T: Send,
    E: From<StoreError> + Send,
    F: Fn(&mut Conn<'_>) -> Result<T, E> + Send,
{
    fn begin(&self) -> bool {
        self.turn.take()
    }

    fn run(&mut self, link: Link<'_>) -> Run {
        let mut conn = Conn::new(link, self.caller.clone());
        // What it has changed is undone, as after a refusal.
        let result = catch_unwind(AssertUnwindSafe(|| (self.work)(&mut conn)));
        let is_kept = matches!(result, Ok(Ok(_)));
        self.result = Some(result);
        if !is_kept {
            return Run::default();
        }
        Run {
            is_kept,
            changed: conn.changed,
            once_committed: conn.once_committed,
        }
    }

    fn answer(self: Box<Self>, committed: Result<(), StoreError>) {
        let Self {
            work,
            result,
            answer,
            ..
        } = *self;
        // First, so that a caller with its answer does not share with this thread what the work holds.
        drop(work);
        let told = match (result, committed) {
            (Some(Ok(Ok(_))) | None, Err(error)) => Ok(Err(error.into())),
            (Some(result), _) => result,
            (None, Ok(())) => return,
        };
        // The one that asked may have gone.
        let _ = answer.send(told);
    }
}

/// A decision that was run.
struct Decided {
    job: Box<dyn Job>,
    run: Run,
}

impl Decided {
    fn not_run(job: Box<dyn Job>) -> Self {
        let run = Run::default();
        Self { job, run }
    }
}

/// Why a transaction came to nothing, or is not known to have come to anything.
struct Failure {
    error: StoreError,
    /// Whether it is certain that nothing of it was kept.
    is_undone: bool,
    /// Whether the same may succeed a little later.
    passes: bool,
}

/// What undid a transaction, as far as its connection knows.
enum Undoing {
    /// It did not come to a commit.
    Before(StoreError),
    /// The commit has failed, or its answer was lost.
    Commit(StoreError),
}

/// What became of a transaction.
enum Fate {
    Kept,
    Undone,
    Unknown,
}

/// What the thread works with.
struct Desk {
    database: Database,
    jobs: Receiver<Box<dyn Job>>,
    changes: Changes,
    passing: Passing,
}

impl Desk {
    fn serve(mut self) {
        while let Ok(first) = self.jobs.recv() {
            if !first.begin() {
                continue;
            }
            let mut decided = Vec::new();
            match self.transaction(first, DECISIONS_TOGETHER_MAX, &mut decided) {
                Err(failure) if failure.is_undone && (decided.len() > 1 || failure.passes) => {
                    self.decide_each(decided.into_iter().map(|decided| decided.job));
                }
                Ok(()) => self.end(decided, Ok(())),
                Err(failure) => self.end(decided, Err(&failure.error)),
            }
        }
    }

    /// Makes each in a transaction of its own, as long as there is a database.
    fn decide_each(&mut self, mut jobs: impl Iterator<Item = Box<dyn Job>>) {
        while let Some(job) = jobs.next() {
            let Err(StoreError::Connection(gone)) = self.decide_alone(job) else {
                continue;
            };
            let left: Vec<_> = jobs.by_ref().map(Decided::not_run).collect();
            self.end(left, Err(&StoreError::Connection(gone)));
        }
    }

    /// Makes a decision in a transaction of its own, and anew while what undoes it passes. Returns what
    /// came of the last transaction.
    fn decide_alone(&mut self, mut job: Box<dyn Job>) -> Result<(), StoreError> {
        let begun = Instant::now();
        let mut pauses = DECISION_PAUSES.into_iter();
        loop {
            let mut alone = Vec::new();
            let made = self.transaction(job, 1, &mut alone);
            let may_succeed = matches!(&made, Err(failure) if failure.is_undone && failure.passes);
            let pause = pauses.next().filter(|_| may_succeed);
            match (pause, alone.pop()) {
                (Some(pause), Some(again)) if begun.elapsed() < DECISION_TRIES_TIME => {
                    std::thread::sleep(pause);
                    job = again.job;
                }
                (_, decided) => {
                    let made = made.map_err(|failure| failure.error);
                    self.end(decided.into_iter().collect(), made.as_ref().copied());
                    return made;
                }
            }
        }
    }

    /// Runs `first`, and what comes meanwhile, at most so many, in one transaction.
    fn transaction(
        &mut self,
        first: Box<dyn Job>,
        most: usize,
        decided: &mut Vec<Decided>,
    ) -> Result<(), Failure> {
        self.passing.take();
        match self.try_transaction(first, most, decided) {
            Ok(()) => Ok(()),
            Err(Undoing::Before(error)) => Err(Failure {
                passes: self.passing.take(),
                is_undone: true,
                error,
            }),
            Err(Undoing::Commit(error)) => {
                let passes = self.passing.take();
                match self.fate() {
                    Fate::Kept => Ok(()),
                    Fate::Undone => Err(Failure {
                        passes,
                        is_undone: true,
                        error,
                    }),
                    Fate::Unknown => Err(Failure {
                        passes: false,
                        is_undone: false,
                        error: StoreError::Unknown(Box::new(error)),
                    }),
                }
            }
        }
    }

    fn try_transaction(
        &mut self,
        first: Box<dyn Job>,
        most: usize,
        decided: &mut Vec<Decided>,
    ) -> Result<(), Undoing> {
        let mut pooled;
        let (mut link, marks) = match &mut self.database {
            Database::Sqlite { connection, .. } => (Link::Sqlite(connection), None),
            Database::Postgres { pool, marks } => match pool.get() {
                Ok(connection) => {
                    pooled = connection;
                    pooled.set_instrumentation(self.passing.clone());
                    (Link::Postgres(&mut pooled), Some(marks))
                }
                Err(error) => {
                    decided.push(Decided::not_run(first));
                    return Err(Undoing::Before(connection_error(error)));
                }
            },
        };
        let begun = prepared::begin_to_write(&mut link);
        let begun = begun.and_then(|()| match (&mut link, marks) {
            (Link::Postgres(connection), Some(marks)) => marks.set(connection),
            _ => Ok(()),
        });
        let made = match begun {
            Ok(()) => {
                let (jobs, passing) = (&self.jobs, &self.passing);
                run_all(&mut link, jobs, passing, first, most, decided)
            }
            Err(error) => {
                decided.push(Decided::not_run(first));
                Err(error)
            }
        };
        let made = made.map_err(|error| Undoing::Before(error.into()));
        let made = made.and_then(|()| {
            prepared::commit(&mut link).map_err(|error| Undoing::Commit(error.into()))
        });
        if made.is_err() {
            // Most failures have ended it already.
            let _ = prepared::roll_back(&mut link);
        }
        made
    }

    /// What became of a transaction whose commit has failed.
    fn fate(&self) -> Fate {
        let Database::Postgres { pool, marks } = &self.database else {
            return Fate::Undone;
        };
        let begun = Instant::now();
        while begun.elapsed() < LOST_COMMIT_WAIT {
            let asked = pool.get().map_err(connection_error);
            let told = asked.and_then(|mut connection| Ok(marks.was_kept(&mut connection)?));
            match told {
                Ok(true) => return Fate::Kept,
                Ok(false) => return Fate::Undone,
                Err(error) => log::warn!("cannot ask what became of a commit: {}", chain(&error)),
            }
        }
        Fate::Unknown
    }

    /// Does what follows a transaction, and answers.
    fn end(&self, decided: Vec<Decided>, made: Result<(), &StoreError>) {
        let mut jobs = Vec::new();
        let mut changed = Changed::default();
        for Decided { job, run } in decided {
            jobs.push(job);
            if made.is_ok() {
                changed = changed.and(run.changed);
                run.once_committed.into_iter().for_each(follow);
            }
        }
        self.changes.tell(changed);
        for job in jobs {
            job.answer(made.map_err(StoreError::again));
        }
    }
}

/// Does in memory what follows a commit. A mistake in it is not the writer's end: the database has what
/// was decided.
fn follow(change: Box<dyn FnOnce()>) {
    if catch_unwind(AssertUnwindSafe(change)).is_err() {
        log::error!("the broker made a mistake after a commit");
    }
}

fn run_all(
    link: &mut Link<'_>,
    jobs: &Receiver<Box<dyn Job>>,
    passing: &Passing,
    first: Box<dyn Job>,
    most: usize,
    decided: &mut Vec<Decided>,
) -> QueryResult<()> {
    let begun = Instant::now();
    let mut next = Some(first);
    while let Some(mut job) = next.take() {
        if let Err(error) = prepared::set_savepoint(link) {
            decided.push(Decided::not_run(job));
            return Err(error);
        }
        let run = job.run(link.again());
        let (is_kept, follows) = (run.is_kept, !run.once_committed.is_empty());
        decided.push(Decided { job, run });
        if passing.was_met() {
            return Err(diesel::result::Error::RollbackTransaction);
        }
        if !is_kept {
            prepared::undo_to_savepoint(link)?;
        }
        // Fails where an error was passed over that ended the transaction.
        prepared::release_savepoint(link)?;
        // What follows in memory comes before anything else is decided.
        if !follows && decided.len() < most && begun.elapsed() < DECISIONS_TOGETHER_TIME {
            next = jobs.try_iter().find(|job| job.begin());
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::{
        sync::{Arc, Mutex, mpsc},
        task::Poll,
        time::Duration,
    };

    use diesel::RunQueryDsl as _;
    use futures::future::join_all;

    use super::super::{Conn, Store, StoreError, each};
    use crate::{caller::Caller, model::limits::DECISIONS_WAITING_MAX};

    fn url(folder: &tempfile::TempDir) -> String {
        format!("sqlite://{}", folder.path().join("db").display())
    }

    fn run(conn: &mut Conn<'_>, statement: &str) -> Result<(), StoreError> {
        each!(conn, |c| diesel::sql_query(statement).execute(c))?;
        Ok(())
    }

    #[tokio::test]
    async fn a_panic_after_a_commit_undoes_nothing_and_does_not_end_the_writer() {
        let store =
            Arc::new(Store::open(&url(&tempfile::tempdir().expect("a folder"))).expect("a store"));
        let made = store.write(|conn| {
            run(conn, "CREATE TABLE made (i INTEGER)")?;
            conn.once_committed(|| panic!("a deliberate panic"));
            Ok(())
        });
        made.await.expect("it is made");
        let kept = store.write(|conn| run(conn, "INSERT INTO made VALUES (1)"));
        kept.await.expect("the table is there");
    }

    #[tokio::test]
    async fn a_decision_that_waits_behind_a_disk_that_hangs_is_taken_back_and_one_that_was_begun_is_not()
     {
        let folder = tempfile::tempdir().expect("a folder");
        let store = Arc::new(Store::open(&url(&folder)).expect("a store"));
        let (begun, begins) = mpsc::channel::<()>();
        let (go_on, hangs) = mpsc::channel::<()>();
        let hanging = tokio::spawn({
            let store = store.clone();
            async move {
                let hanging = store.write(move |conn| {
                    begun.send(()).expect("a listener");
                    hangs.recv().expect("an end");
                    run(conn, "CREATE TABLE made (i INTEGER)")
                });
                hanging.await
            }
        });
        tokio::task::yield_now().await;
        begins.recv().expect("it was begun");
        let unwanted = |conn: &mut Conn<'_>| run(conn, "CREATE TABLE unwanted (i INTEGER)");
        let writer = store.writer.as_ref().expect("a writer");
        let moment = Duration::from_millis(1);
        let refused = writer.decide_within((moment, moment), Caller::default(), unwanted);
        let refused = refused.await;
        assert!(matches!(refused, Err(StoreError::Busy)), "{refused:?}");
        assert!(!hanging.is_finished());
        go_on.send(()).expect("it hangs");
        hanging.await.expect("no panic").expect("it is made");
        store
            .write(unwanted)
            .await
            .expect("what was taken back was not made");
    }

    #[tokio::test]
    async fn nobody_waits_for_ever_for_a_disk_that_hangs_and_no_more_wait_than_may() {
        let folder = tempfile::tempdir().expect("a folder");
        let store = Arc::new(Store::open(&url(&folder)).expect("a store"));
        let (begun, begins) = mpsc::channel::<()>();
        let (go_on, hangs) = mpsc::channel::<()>();
        let hanging = move |conn: &mut Conn<'_>| {
            begun.send(()).expect("a listener");
            hangs.recv().expect("an end");
            run(conn, "CREATE TABLE made (i INTEGER)")
        };
        let writer = store.writer.as_ref().expect("a writer");
        let (begin, end) = (Duration::from_millis(500), Duration::from_millis(600));
        let mut unknown = Box::pin(writer.decide_within((begin, end), Caller::default(), hanging));
        assert!(futures::poll!(&mut unknown).is_pending());
        begins.recv().expect("it was begun");
        let told = unknown.await;
        assert!(matches!(told, Err(StoreError::Unknown(_))), "{told:?}");

        let mut waiting = Vec::new();
        for _ in 0..DECISIONS_WAITING_MAX {
            let mut one = Box::pin(store.write(|_| Ok(())));
            assert!(futures::poll!(&mut one).is_pending());
            waiting.push(one);
        }
        let mut more = Box::pin(store.write(|_| Ok(())));
        let more = futures::poll!(&mut more);
        assert!(
            matches!(more, Poll::Ready(Err(StoreError::Busy))),
            "{more:?}"
        );
        go_on.send(()).expect("it hangs");
        for told in join_all(waiting).await {
            told.expect("it is made in the end");
        }
        let kept = store.write(|conn| run(conn, "INSERT INTO made VALUES (1)"));
        kept.await.expect("what nobody waited for was made too");
    }

    #[tokio::test]
    async fn what_spoils_a_transaction_is_told_to_the_one_that_did_and_the_others_are_made_again() {
        let folder = tempfile::tempdir().expect("a folder");
        let store = Arc::new(Store::open(&url(&folder)).expect("a store"));
        store
            .write(|conn| run(conn, "CREATE TABLE made (i INTEGER)"))
            .await
            .expect("a table");
        let (go_on, waits) = mpsc::channel::<()>();
        let holding = store.write(move |conn| {
            // The last of its transaction.
            conn.once_committed(|| ());
            waits.recv().expect("the others");
            Ok(())
        });
        let runs = Arc::new(Mutex::new(Vec::new()));
        let decide = |i: usize| {
            let runs = runs.clone();
            store.write(move |conn| {
                runs.lock().expect("no panic").push(i);
                run(conn, &format!("INSERT INTO made VALUES ({i})"))?;
                match i {
                    // As SQLite does by itself when its disk is full.
                    2 => run(conn, "ROLLBACK"),
                    _ => Ok(()),
                }
            })
        };
        let all = async {
            let deciding = join_all((0..4).map(decide));
            tokio::pin!(deciding);
            assert!(futures::poll!(&mut deciding).is_pending());
            go_on.send(()).expect("it waits");
            deciding.await
        };
        // In the order in which they are handed in.
        let (held, all) = tokio::join!(holding, all);
        held.expect("held");
        let made: Vec<bool> = all.iter().map(Result::is_ok).collect();
        assert_eq!(made, [true, true, false, true], "{all:?}");
        let runs = runs.lock().expect("no panic").clone();
        assert!(runs.len() > 4, "{runs:?}");
        let rows = store.write(|conn| {
            let kept = diesel::sql_query("DELETE FROM made");
            Ok(each!(conn, |c| kept.execute(c))?)
        });
        assert_eq!(rows.await.expect("rows"), 3);
    }
}
