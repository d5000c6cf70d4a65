//! Pauses between tries that double. Pure.

use std::time::Duration;

/// The pause before something is tried again that failed `attempts` times so far.
pub fn backoff(attempts: u32, first: Duration, longest: Duration) -> Duration {
    let doublings = attempts.saturating_sub(1).min(16);
    first.saturating_mul(1 << doublings).min(longest)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_double_up_to_the_longest() {
        let (first, longest) = (Duration::from_millis(200), Duration::from_secs(5));
        let pauses: Vec<u64> = [1, 2, 3, 6, 1000]
            .map(|n| u64::try_from(backoff(n, first, longest).as_millis()).expect("small"))
            .to_vec();
        assert_eq!(pauses, [200, 400, 800, 5000, 5000]);
    }
}
