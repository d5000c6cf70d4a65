//! Writes beside decisions: heartbeats and facts of single rows, which no decision needs to stand still.
//!
//! A server of PostgreSQL lets several write. These take neither the writers' lock nor the writer's thread, so a
//! decision that takes long, here or of another broker, delays no lease. What else they would meet of decisions is
//! the lock of a row. SQLite has one writer, who makes them like decisions.

use std::sync::Arc;

use tokio::{sync::Semaphore, time::timeout};

use super::{
    Conn, Link, StoreError, connection_error, on_a_blocking_thread, postgres::PostgresPool,
};
use crate::{caller::Caller, model::limits::STORE_READ_WAIT};

/// What writes beside decisions: a connection of its own.
pub(super) struct Beside {
    pool: PostgresPool,
    /// One, as there is one connection.
    place: Arc<Semaphore>,
}

impl Beside {
    /// `pool` has one connection.
    pub(super) fn over(pool: PostgresPool) -> Self {
        let place = Arc::new(Semaphore::new(1));
        Self { pool, place }
    }

    /// Does all of `work` or nothing; [`StoreError::Unknown`] where no answer comes within [`STORE_READ_WAIT`].
    pub(super) async fn write<T, F>(&self, work: F) -> Result<T, StoreError>
    where
        T: Send + 'static,
        F: FnOnce(&mut Conn<'_>) -> Result<T, StoreError> + Send + 'static,
    {
        let (pool, place) = (self.pool.clone(), self.place.clone());
        let writing = async move {
            let place = place.acquire_owned().await.map_err(connection_error)?;
            on_a_blocking_thread(move || {
                let _place = place;
                let mut connection = pool.get().map_err(connection_error)?;
                connection
                    .build_transaction()
                    .read_committed()
                    .run(|c| work(&mut Conn::new(Link::Postgres(c), Caller::default())))
            })
            .await
        };
        match timeout(STORE_READ_WAIT, writing).await {
            Ok(written) => written,
            Err(elapsed) => Err(StoreError::Unknown(Box::new(connection_error(elapsed)))),
        }
    }
}
