//! Ports of this machine: whether somebody has them.

use std::{
    fs,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    thread,
    time::{Duration, Instant},
};

use rustix::{
    io::Errno,
    net::{AddressFamily, SocketFlags, SocketType, bind, socket_with, sockopt},
};

use crate::model::{limits::PROCESS_POLL, placement::PortRange};

/// Where members of this machine reach each other.
pub(super) const HOST: Ipv4Addr = Ipv4Addr::LOCALHOST;

/// A port that this machine alone reaches.
pub(super) fn on_loopback(port: u16) -> SocketAddr {
    SocketAddr::from((HOST, port))
}

/// Why a member cannot listen.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum NotFree {
    /// Somebody has the port.
    Taken(u16),
    /// The address is none of this machine.
    Elsewhere(IpAddr),
}

/// Whether nobody has the TCP port there. No connection comes in meanwhile: it is taken, but nothing
/// listens.
pub(super) fn is_free(at: SocketAddr) -> bool {
    at.port() != 0 && take(at).is_ok()
}

/// Whether this machine has the address.
pub(super) fn is_ours(address: IpAddr) -> bool {
    !matches!(take(SocketAddr::new(address, 0)), Err(Errno::ADDRNOTAVAIL))
}

/// Waits until nobody has any of these, `patience` at the most: a process that has just ended may have
/// them a moment longer. Fails with one that is not to be had.
pub(super) fn all_free(wanted: &[SocketAddr], patience: Duration) -> Result<(), NotFree> {
    let deadline = Instant::now() + patience;
    loop {
        match wanted.iter().find(|at| !is_free(**at)) {
            None => return Ok(()),
            Some(at) if Instant::now() >= deadline => {
                return Err(match is_ours(at.ip()) {
                    true => NotFree::Taken(at.port()),
                    false => NotFree::Elsewhere(at.ip()),
                });
            }
            Some(_) => thread::sleep(PROCESS_POLL),
        }
    }
}

/// The ports from which this machine opens connections of its own; none where it does not tell.
pub(super) fn outgoing() -> Option<PortRange> {
    let text = fs::read_to_string("/proc/sys/net/ipv4/ip_local_port_range").ok()?;
    let mut numbers = text.split_whitespace().map(str::parse);
    let (first, last) = (numbers.next()?.ok()?, numbers.next()?.ok()?);
    Some(PortRange { first, last })
}

fn take(at: SocketAddr) -> Result<(), Errno> {
    // Go's programs that listen at all addresses do so in both versions, where the machine has both.
    let all = SocketAddr::new(IpAddr::V6(Ipv6Addr::UNSPECIFIED), at.port());
    match at {
        SocketAddr::V4(v4) if v4.ip().is_unspecified() => match take_one(all) {
            Err(Errno::AFNOSUPPORT | Errno::ADDRNOTAVAIL) => take_one(at),
            taken => taken,
        },
        _ => take_one(at),
    }
}

fn take_one(at: SocketAddr) -> Result<(), Errno> {
    let family = match at {
        SocketAddr::V4(_) => AddressFamily::INET,
        SocketAddr::V6(_) => AddressFamily::INET6,
    };
    let socket = socket_with(family, SocketType::STREAM, SocketFlags::CLOEXEC, None)?;
    // As the members do: a listener is in the way nevertheless, and old connections in TIME_WAIT
    // are not.
    sockopt::set_socket_reuseaddr(&socket, true)?;
    bind(&socket, &at)
}
