//! What works beside the server: each a task that ends when it is told to stop.

use std::{
    future::poll_fn,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use futures::{FutureExt as _, future::select_all};
use tokio::{
    task::JoinHandle,
    time::{Instant, timeout_at},
};
use tokio_util::sync::CancellationToken;

use crate::model::limits::TASKS_END_WAIT;

/// The tasks of a broker.
pub(super) struct Tasks {
    stop: CancellationToken,
    /// With what each is called, in the order in which their ends are waited for.
    running: Vec<(&'static str, JoinHandle<()>)>,
    pulses: Pulses,
}

/// When each task moved last. All of them do something every few seconds; one that waits for something
/// that never comes, or that holds its thread, does not.
#[derive(Clone)]
pub(super) struct Pulses {
    since: Instant,
    /// With the milliseconds between `since` and the last move.
    of: Vec<(&'static str, Arc<AtomicU64>)>,
}

impl Pulses {
    /// The task that has not moved for longer than `limit`, if there is one.
    pub(super) fn silent_for(&self, limit: Duration) -> Option<&'static str> {
        let now = self.since.elapsed();
        let silent = |moved: &AtomicU64| {
            let moved = Duration::from_millis(moved.load(Ordering::Relaxed));
            now.saturating_sub(moved) > limit
        };
        let found = self.of.iter().find(|(_, moved)| silent(moved));
        found.map(|(what, _)| *what)
    }
}

impl Tasks {
    /// None yet.
    pub(super) fn new() -> Self {
        Self {
            stop: CancellationToken::new(),
            running: Vec::new(),
            pulses: Pulses {
                since: Instant::now(),
                of: Vec::new(),
            },
        }
    }

    /// Begins one. `run` gets what tells it to stop.
    pub(super) fn begin<F>(&mut self, what: &'static str, run: impl FnOnce(CancellationToken) -> F)
    where
        F: Future<Output = ()> + Send + 'static,
    {
        let since = self.pulses.since;
        let moved = Arc::new(AtomicU64::new(milliseconds(since.elapsed())));
        self.pulses.of.push((what, moved.clone()));
        let mut work = Box::pin(run(self.stop.clone()));
        let task = tokio::spawn(poll_fn(move |context| {
            moved.store(milliseconds(since.elapsed()), Ordering::Relaxed);
            work.as_mut().poll(context)
        }));
        self.running.push((what, task));
    }

    /// When they moved last.
    pub(super) fn pulses(&self) -> Pulses {
        self.pulses.clone()
    }

    /// Waits until one of them ends by itself; tells which.
    pub(super) async fn ended(&mut self) -> &'static str {
        let ends = self.running.iter_mut();
        let ends = ends.map(|(what, task)| task.map(|_| *what));
        select_all(ends).await.0
    }

    /// Tells all to stop, and waits until they have, but no longer than [`TASKS_END_WAIT`].
    pub(super) async fn stop(self) {
        self.stop.cancel();
        let deadline = Instant::now() + TASKS_END_WAIT;
        for (what, task) in self.running {
            match timeout_at(deadline, task).await {
                Ok(Ok(())) => {}
                Ok(Err(error)) => log::error!("the {what} ended badly: {error}"),
                Err(_) => log::warn!("the {what} does not end, and is not waited for"),
            }
        }
    }
}

fn milliseconds(of: Duration) -> u64 {
    u64::try_from(of.as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use std::future::pending;

    use tokio::time::sleep;

    use super::*;

    #[tokio::test]
    async fn a_task_that_waits_for_ever_is_found() {
        let (pause, limit) = (Duration::from_millis(1), Duration::from_millis(200));
        let mut tasks = Tasks::new();
        tasks.begin("worker", move |stop| async move {
            while !stop.is_cancelled() {
                sleep(pause).await;
            }
        });
        tasks.begin("sleeper", |_| pending());
        let pulses = tasks.pulses();
        assert_eq!(pulses.silent_for(Duration::from_secs(600)), None);
        // On a busy machine the worker may rest for a while, too, and would be found first.
        while pulses.silent_for(limit) != Some("sleeper") {
            sleep(pause).await;
        }
    }
}
