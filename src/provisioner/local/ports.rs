//! Ports of this machine: whether somebody has them.

use std::{
    fs, io,
    net::{Ipv4Addr, SocketAddrV4},
    thread,
    time::{Duration, Instant},
};

use rustix::net::{AddressFamily, SocketFlags, SocketType, bind, socket_with, sockopt};

use crate::model::{limits::PROCESS_POLL, placement::PortRange};

/// Where members of this machine are reached.
pub(super) const HOST: Ipv4Addr = Ipv4Addr::LOCALHOST;

/// Whether nobody has the TCP port. No connection comes in meanwhile: it is taken, but nothing
/// listens.
pub(super) fn is_free(port: u16) -> bool {
    port != 0 && take(port).is_ok()
}

/// Waits until nobody has any of these ports, `patience` at the most: a process that has just ended
/// may have them a moment longer. Fails with one that somebody has.
pub(super) fn all_free(ports: &[u16], patience: Duration) -> Result<(), u16> {
    let deadline = Instant::now() + patience;
    loop {
        match ports.iter().find(|port| !is_free(**port)) {
            None => return Ok(()),
            Some(port) if Instant::now() >= deadline => return Err(*port),
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

fn take(port: u16) -> io::Result<()> {
    let socket = socket_with(
        AddressFamily::INET,
        SocketType::STREAM,
        SocketFlags::CLOEXEC,
        None,
    )?;
    // As the members do: a listener is in the way nevertheless, and old connections in TIME_WAIT
    // are not.
    sockopt::set_socket_reuseaddr(&socket, true)?;
    Ok(bind(&socket, &SocketAddrV4::new(HOST, port))?)
}
