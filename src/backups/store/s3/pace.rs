//! How many bytes go in a second, over all connections of a store.

use std::{
    pin::Pin,
    sync::{Arc, Mutex, PoisonError},
    task::{Context, Poll, ready},
    time::Duration,
};

use bytes::Buf;
use hyper::body::{Body, Frame, SizeHint};
use tokio::time::{Instant, Sleep, sleep_until};

/// A number of bytes per second that all who share it keep to together.
#[derive(Debug)]
pub(super) struct Pace {
    bytes_per_second: u64,
    /// When all that was promised so far has gone.
    free_at: Mutex<Instant>,
}

impl Pace {
    pub(super) fn of(bytes_per_second: u64) -> Self {
        Self {
            bytes_per_second: bytes_per_second.max(1),
            free_at: Mutex::new(Instant::now()),
        }
    }

    /// Takes the place of so many bytes; returns when the next ones may go.
    fn take(&self, bytes: u64) -> Instant {
        let needed = Duration::from_secs_f64(bytes as f64 / self.bytes_per_second as f64);
        let mut free_at = self.free_at.lock().unwrap_or_else(PoisonError::into_inner);
        *free_at = (*free_at).max(Instant::now()) + needed;
        *free_at
    }
}

/// A body whose bytes keep to a pace, where there is one.
pub(super) struct Paced<B> {
    body: B,
    pace: Option<Arc<Pace>>,
    pause: Option<Pin<Box<Sleep>>>,
}

impl<B> Paced<B> {
    pub(super) fn new(body: B, pace: Option<Arc<Pace>>) -> Self {
        Self {
            body,
            pace,
            pause: None,
        }
    }
}

impl<B: Body<Data: Buf> + Unpin> Body for Paced<B> {
    type Data = B::Data;
    type Error = B::Error;

    fn poll_frame(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<B::Data>, B::Error>>> {
        let this = self.get_mut();
        if let Some(pause) = &mut this.pause {
            ready!(pause.as_mut().poll(context));
            this.pause = None;
        }
        let frame = ready!(Pin::new(&mut this.body).poll_frame(context));
        if let (Some(pace), Some(Ok(frame))) = (&this.pace, &frame) {
            let bytes = frame.data_ref().map_or(0, |data| data.remaining() as u64);
            this.pause = Some(Box::pin(sleep_until(pace.take(bytes))));
        }
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use futures::future::join_all;
    use http_body_util::{BodyExt as _, Full};

    use super::*;

    #[tokio::test]
    async fn all_who_share_a_pace_keep_to_it_together() {
        let begun = Instant::now();
        let pace = Some(Arc::new(Pace::of(100_000)));
        let sent = (0..4).map(|_| {
            let body = Full::new(Bytes::from(vec![0; 500]));
            Paced::new(body, pace.clone()).collect()
        });
        for collected in join_all(sent).await {
            assert_eq!(collected.expect("sent").to_bytes().len(), 500);
        }
        // All 2000 bytes have to go before the next one, and their bodies end no earlier.
        let all = begun + Duration::from_millis(20);
        assert!(Instant::now() >= all);
        let next = pace.map(|pace| pace.take(0));
        assert!(next >= Some(all), "{next:?}");
    }
}
