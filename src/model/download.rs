//! Who may download beside others, and how slowly. Pure.

use core::net::IpAddr;
use std::time::Duration;

use super::{
    address::network,
    ids::InstanceId,
    instance::Instance,
    limits::{
        DOWNLOAD_BYTES_PER_SECOND_MIN, DOWNLOAD_STALL_MAX, DOWNLOADS_AT_ONCE, DOWNLOADS_OF_ONE,
        DOWNLOADS_OF_TENANT,
    },
    tenant::Tenant,
};

/// For whom a download is sent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Taker {
    tenant: Tenant,
    instance: InstanceId,
    address: Option<IpAddr>,
}

impl Taker {
    /// Somebody at `address`, for what an instance has.
    pub fn of(instance: &Instance, address: Option<IpAddr>) -> Self {
        Self {
            tenant: instance.tenant.clone(),
            instance: instance.id.clone(),
            address: address.map(network),
        }
    }

    /// Whether there is a place beside those to whom something is `sent`.
    pub fn has_place(&self, sent: &[Self]) -> bool {
        let count = |is: &dyn Fn(&Self) -> bool| sent.iter().filter(|other| is(other)).count();
        sent.len() < DOWNLOADS_AT_ONCE
            && count(&|other| other.tenant == self.tenant) < DOWNLOADS_OF_TENANT
            && count(&|other| other.instance == self.instance) < DOWNLOADS_OF_ONE
            && (self.address.is_none()
                || count(&|other| other.address == self.address) < DOWNLOADS_OF_ONE)
    }
}

/// What a client has taken, and how long it let others wait.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Pace {
    taken: u64,
    waited: Duration,
}

impl Pace {
    /// How long it may take for the next bytes; zero when it was too slow in all.
    pub fn patience(&self) -> Duration {
        let earned = Duration::from_secs(self.taken / DOWNLOAD_BYTES_PER_SECOND_MIN);
        let left = (DOWNLOAD_STALL_MAX + earned).saturating_sub(self.waited);
        left.min(DOWNLOAD_STALL_MAX)
    }

    /// Counts bytes that were taken after so long.
    pub fn took(&mut self, bytes: usize, after: Duration) {
        self.taken += bytes as u64;
        self.waited += after;
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;

    fn taker(space: &str, instance: &str, address: &str) -> Taker {
        Taker {
            tenant: Tenant {
                platform: "p".to_owned(),
                organization: "o".to_owned(),
                space: space.to_owned(),
                account: BTreeMap::new(),
            },
            instance: instance.parse().expect("an id"),
            address: Some(network(address.parse().expect("an address"))),
        }
    }

    #[test]
    fn nobody_takes_all_places() {
        let two = [taker("a", "1", "192.0.2.1"), taker("a", "1", "192.0.2.2")];
        assert!(!taker("a", "1", "192.0.2.3").has_place(&two), "an instance");
        assert!(taker("a", "2", "192.0.2.3").has_place(&two));
        let two = [
            taker("a", "1", "2001:db8::1"),
            taker("b", "2", "2001:db8::2"),
        ];
        assert!(!taker("c", "3", "2001:db8::3").has_place(&two), "a network");
        assert!(taker("c", "3", "2001:db8:0:1::3").has_place(&two));
        let four = ["1", "2", "3", "4"].map(|id| taker("a", id, &format!("192.0.2.{id}")));
        assert!(!taker("a", "5", "192.0.2.5").has_place(&four), "a tenant");
        assert!(taker("b", "5", "192.0.2.5").has_place(&four));
        let all: Vec<Taker> = (0..DOWNLOADS_AT_ONCE)
            .map(|i| taker(&i.to_string(), &i.to_string(), &format!("192.0.2.{i}")))
            .collect();
        assert!(!taker("z", "z", "192.0.2.99").has_place(&all), "in all");
    }

    #[test]
    fn who_takes_next_to_nothing_is_given_up_after_a_while() {
        let (mut pace, mut passed) = (Pace::default(), Duration::ZERO);
        let pause = Duration::from_secs(10);
        while pace.patience() >= pause {
            pace.took(100, pause);
            passed += pause;
        }
        assert_eq!(passed, DOWNLOAD_STALL_MAX);
    }

    #[test]
    fn who_is_slow_but_steady_gets_all_of_it() {
        let mut pace = Pace::default();
        let a_second = usize::try_from(DOWNLOAD_BYTES_PER_SECOND_MIN).expect("small");
        for _ in 0..24 * 60 {
            pace.took(60 * a_second, Duration::from_secs(60));
            assert_eq!(pace.patience(), DOWNLOAD_STALL_MAX);
        }
        // What was taken fast is no reason to hold a place for longer.
        pace.took(1 << 40, Duration::ZERO);
        assert_eq!(pace.patience(), DOWNLOAD_STALL_MAX);
    }
}
