//! Looks at all instances, round after round: for the metrics, and for alerts of the broker as a whole.
//! A clockwork that decides nothing.
//!
//! Between two rounds lies many times what one takes, so that looking takes a small part of the time,
//! however many instances there are.

use std::{sync::Arc, time::Duration};

use tokio::time::{Instant, sleep};
use tokio_util::sync::CancellationToken;

use crate::{
    broker::{Broker, BrokerError},
    metrics::Metrics,
    model::{
        failure::chain,
        figures::Round,
        limits::{ROUND_PAUSE_MAX, ROUND_PAUSE_MIN, ROUND_PAUSES},
    },
};

/// Makes rounds until `stop`.
pub async fn run(broker: Arc<Broker>, metrics: Arc<Metrics>, stop: CancellationToken) {
    let mut fails = false;
    while !stop.is_cancelled() {
        let begun = Instant::now();
        let made = stop.run_until_cancelled(round(&broker, begun)).await;
        match made {
            None => return,
            Some(Ok(round)) => {
                metrics.set_round(round);
                fails = false;
            }
            Some(Err(error)) => {
                if !fails {
                    log::error!("cannot look at all instances: {}", chain(&error));
                }
                fails = true;
            }
        }
        tokio::select! {
            () = stop.cancelled() => {}
            () = sleep(pause_after(begun.elapsed())) => {}
        }
    }
}

/// How long nothing is looked at after a round that took so long.
fn pause_after(took: Duration) -> Duration {
    (took * ROUND_PAUSES).clamp(ROUND_PAUSE_MIN, ROUND_PAUSE_MAX)
}

async fn round(broker: &Broker, begun: Instant) -> Result<Round, BrokerError> {
    let mut instances = Vec::new();
    let mut next = Some(String::new());
    while let Some(after) = next {
        let (page, last) = broker.rounds.look_over(&after).await?;
        instances.extend(page.into_iter().map(|looked| looked.seen));
        next = last;
    }
    Ok(Round {
        ended_at: broker.clock.now(),
        took: begun.elapsed(),
        instances,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rounds_take_a_small_part_of_the_time() {
        assert_eq!(pause_after(Duration::from_millis(3)), ROUND_PAUSE_MIN);
        assert_eq!(pause_after(Duration::from_secs(2)), Duration::from_secs(20));
        assert_eq!(pause_after(Duration::from_secs(3600)), ROUND_PAUSE_MAX);
    }
}
