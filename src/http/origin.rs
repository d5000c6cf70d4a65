//! Where requests come from, and how many may come from one place.
//!
//! The address is the peer's, unless the peer is a trusted proxy: then it is what that one wrote
//! into `X-Forwarded-For`. No other header of that kind is looked at; one that proxies pass on
//! unseen would let anybody be anyone.

use std::{
    net::{IpAddr, SocketAddr},
    num::NonZeroU32,
    sync::atomic::{AtomicU32, Ordering},
    time::Duration,
};

use actix_web::{
    HttpMessage as _, HttpRequest,
    http::header::{HeaderMap, X_FORWARDED_FOR},
};
use governor::{
    Quota, RateLimiter,
    clock::{Clock as _, DefaultClock},
    state::keyed::HashMapStateStore,
};

use super::error::HttpError;
use crate::model::{
    address::network,
    ids::InstanceId,
    limits::{BURST_SECONDS, CLIENTS_TIDIED_EVERY},
    proxy::TrustedProxies,
};

/// The address that a request comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ClientAddress(pub IpAddr);

impl ClientAddress {
    /// Of a request that came from `peer`; none where nobody knows the peer.
    pub fn find(
        peer: Option<SocketAddr>,
        headers: &HeaderMap,
        proxies: &TrustedProxies,
    ) -> Option<Self> {
        let passed: Vec<Option<IpAddr>> = headers
            .get_all(X_FORWARDED_FOR)
            .flat_map(|value| value.to_str().unwrap_or("?").split(','))
            .map(address)
            .collect();
        Some(Self(proxies.client(peer?.ip(), passed.into_iter())))
    }

    /// Of a request that `super::trace` has seen.
    pub fn of(request: &HttpRequest) -> Option<Self> {
        request.extensions().get().copied()
    }
}

/// An address as proxies write it, with or without a port.
fn address(text: &str) -> Option<IpAddr> {
    let text = text.trim();
    let bare = text.strip_prefix('[').and_then(|t| t.strip_suffix(']'));
    let with_port = || text.parse().map(|address: SocketAddr| address.ip());
    bare.unwrap_or(text).parse().or_else(|_| with_port()).ok()
}

/// What is counted together.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Client {
    /// Everybody at an address.
    Address(IpAddr),
    /// Everybody with a token of an instance, wherever they are.
    Instance(InstanceId),
}

impl Client {
    /// One at an address.
    pub fn at(ClientAddress(address): ClientAddress) -> Self {
        Self::Address(network(address))
    }
}

/// How many requests are taken of each client: so many a second, and after a pause those of some
/// seconds at once.
pub struct Rates {
    limiter: RateLimiter<Client, HashMapStateStore<Client>, DefaultClock>,
    checks: AtomicU32,
}

impl Rates {
    /// `per_second` requests of each client; none: any number.
    pub fn new(per_second: u32) -> Option<Self> {
        let burst = NonZeroU32::new(per_second.saturating_mul(BURST_SECONDS))?;
        let quota = Quota::per_second(NonZeroU32::new(per_second)?).allow_burst(burst);
        Some(Self {
            limiter: RateLimiter::hashmap(quota),
            checks: AtomicU32::new(0),
        })
    }

    /// Counts a request. Fails when there were too many, with the time until the next is taken.
    pub fn count(&self, client: Client) -> Result<(), HttpError> {
        let checks = self.checks.fetch_add(1, Ordering::Relaxed);
        if checks.is_multiple_of(CLIENTS_TIDIED_EVERY) {
            // Who came a while ago begins anew either way.
            self.limiter.retain_recent();
        }
        self.limiter.check_key(&client).map_err(|until| {
            let wait = until.wait_time_from(DefaultClock::default().now());
            // The header has whole seconds.
            HttpError::TooMany(wait.max(Duration::from_secs(1)))
        })
    }
}

#[cfg(test)]
mod tests {
    use actix_web::http::header::HeaderValue;

    use super::*;

    fn ip(text: &str) -> IpAddr {
        text.parse().expect("an address")
    }

    #[test]
    fn addresses_are_read_as_proxies_write_them() {
        for (text, expected) in [
            ("192.0.2.1", "192.0.2.1"),
            (" 192.0.2.1:5000 ", "192.0.2.1"),
            ("2001:db8::1", "2001:db8::1"),
            ("[2001:db8::1]", "2001:db8::1"),
            ("[2001:db8::1]:443", "2001:db8::1"),
        ] {
            assert_eq!(address(text), Some(ip(expected)), "{text}");
        }
        for text in ["", "unknown", "_hidden", "192.0.2.1:x", "[::1"] {
            assert_eq!(address(text), None, "{text}");
        }
    }

    #[test]
    fn several_headers_are_one_list() {
        let mut headers = HeaderMap::new();
        for value in ["203.0.113.1, 203.0.113.2", "10.0.0.1"] {
            headers.append(X_FORWARDED_FOR, HeaderValue::from_static(value));
        }
        let proxies = "10.0.0.0/8".parse().expect("a list");
        let peer = Some(SocketAddr::from(([10, 0, 0, 2], 1)));
        let found = ClientAddress::find(peer, &headers, &proxies);
        assert_eq!(found, Some(ClientAddress(ip("203.0.113.2"))));
        assert_eq!(ClientAddress::find(None, &headers, &proxies), None);
    }

    #[test]
    fn each_client_has_a_burst_of_its_own() {
        assert!(Rates::new(0).is_none());
        let rates = Rates::new(1).expect("a limit");
        let neighbours = ["2001:db8::1", "2001:db8::ffff:2"].map(ip);
        for i in 0..BURST_SECONDS {
            let from = neighbours[i as usize % 2];
            let taken = rates.count(Client::at(ClientAddress(from)));
            assert!(taken.is_ok(), "{i}");
        }
        let over = rates.count(Client::at(ClientAddress(neighbours[0])));
        assert!(matches!(over, Err(HttpError::TooMany(wait)) if wait.as_secs() == 1));
        let elsewhere = rates.count(Client::at(ClientAddress(ip("2001:db8:0:1::1"))));
        assert!(elsewhere.is_ok());
        let instance = "i".parse().expect("an id");
        assert!(rates.count(Client::Instance(instance)).is_ok());
    }
}
