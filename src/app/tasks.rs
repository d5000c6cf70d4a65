//! What works beside the server: each a task that ends when it is told to stop.

use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use futures::{FutureExt as _, future::select_all};

/// The tasks of a broker.
pub(super) struct Tasks {
    stop: CancellationToken,
    /// With what each is called, in the order in which their ends are waited for.
    running: Vec<(&'static str, JoinHandle<()>)>,
}

impl Tasks {
    /// None yet.
    pub(super) fn new() -> Self {
        Self {
            stop: CancellationToken::new(),
            running: Vec::new(),
        }
    }

    /// Begins one. `run` gets what tells it to stop.
    pub(super) fn begin<F>(&mut self, what: &'static str, run: impl FnOnce(CancellationToken) -> F)
    where
        F: Future<Output = ()> + Send + 'static,
    {
        let task = tokio::spawn(run(self.stop.clone()));
        self.running.push((what, task));
    }

    /// Waits until one of them ends by itself; tells which.
    pub(super) async fn ended(&mut self) -> &'static str {
        let ends = self.running.iter_mut();
        let ends = ends.map(|(what, task)| task.map(|_| *what));
        select_all(ends).await.0
    }

    /// Tells all to stop, and waits until they have.
    pub(super) async fn stop(self) {
        self.stop.cancel();
        for (what, task) in self.running {
            if let Err(error) = task.await {
                log::error!("the {what} ended badly: {error}");
            }
        }
    }
}
