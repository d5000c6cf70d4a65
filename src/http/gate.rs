//! How many connections are held, in all and from one place, so that none takes what the rest of
//! the broker needs: the store, the look after members and the work have descriptors of their own.
//!
//! Invariants: no more than [`Room::in_all`] connections are open; no client has more than
//! [`Room::of_client`], but a trusted proxy, which speaks for many. Where there is no room, the
//! connection that was silent for longest makes some: one that never said anything. One that has
//! spoken is never closed for another; then the new one is.

use std::{
    collections::{BTreeMap, HashMap},
    io,
    net::SocketAddr,
    pin::Pin,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    task::{Context, Poll},
};

use futures::task::AtomicWaker;
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    net::TcpStream,
};

use super::origin::{Client, ClientAddress};
use crate::model::{
    limits::{CONNECTIONS_MAX, CONNECTIONS_OF_CLIENT_MIN},
    proxy::TrustedProxies,
};

/// How many connections are held.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Room {
    /// From everywhere.
    pub in_all: usize,
    /// From one address; of IPv6 from one network of 64 bits.
    pub of_client: usize,
}

impl Room {
    /// The room where a process may have so many files open: half of them are for connections, and
    /// a quarter of those for one client.
    pub fn within(descriptors: u64) -> Self {
        let half = usize::try_from(descriptors / 2).unwrap_or(usize::MAX);
        let in_all = half.clamp(2 * CONNECTIONS_OF_CLIENT_MIN, CONNECTIONS_MAX);
        let of_client = (in_all / 4).max(CONNECTIONS_OF_CLIENT_MIN);
        Self { in_all, of_client }
    }

    /// Connections that are open, with those that the gate has not looked at or that are about to
    /// be closed.
    pub fn at_the_gate(self) -> usize {
        self.in_all + self.in_all / 2
    }
}

/// Lets connections in, as long as there is room.
pub struct Gate {
    room: Room,
    proxies: TrustedProxies,
    open: Mutex<Open>,
}

#[derive(Default)]
struct Open {
    /// By the order in which they came.
    connections: BTreeMap<u64, (Client, Arc<Signs>)>,
    of_client: HashMap<Client, usize>,
    came: u64,
}

/// What the gate and a connection tell each other.
#[derive(Default)]
struct Signs {
    has_spoken: AtomicBool,
    must_close: AtomicBool,
    /// Of the task that waits for the client to speak.
    waker: AtomicWaker,
}

impl Gate {
    /// A gate with this room; `proxies` speak for many clients.
    pub fn new(room: Room, proxies: TrustedProxies) -> Arc<Self> {
        let open = Mutex::default();
        Arc::new(Self {
            room,
            proxies,
            open,
        })
    }

    /// The room that it has.
    pub fn room(&self) -> Room {
        self.room
    }

    /// Connections that are open.
    pub fn held(&self) -> usize {
        self.open().connections.len()
    }

    /// Lets a connection in that came from `peer`; none where there is no room for it.
    pub fn admit(self: &Arc<Self>, stream: TcpStream, peer: SocketAddr) -> Option<Connection> {
        let client = Client::at(ClientAddress(peer.ip().to_canonical()));
        let of_client = if self.proxies.has(peer.ip()) {
            usize::MAX
        } else {
            self.room.of_client
        };
        let mut open = self.open();
        if open.of_client.get(&client).is_some_and(|n| *n >= of_client)
            && !open.close_silent(Some(&client))
        {
            return None;
        }
        if open.connections.len() >= self.room.in_all && !open.close_silent(None) {
            return None;
        }
        let signs = Arc::<Signs>::default();
        let id = open.add(client, signs.clone());
        let gate = self.clone();
        Some(Connection {
            stream,
            ticket: Ticket { gate, id, signs },
        })
    }

    fn open(&self) -> MutexGuard<'_, Open> {
        // Each change is whole before the next one, so it is sound even after a panic.
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Open {
    fn add(&mut self, client: Client, signs: Arc<Signs>) -> u64 {
        self.came += 1;
        *self.of_client.entry(client.clone()).or_default() += 1;
        self.connections.insert(self.came, (client, signs));
        self.came
    }

    /// Closes the connection that has been silent for longest, of `client` or of anybody; returns
    /// whether there was one.
    fn close_silent(&mut self, of: Option<&Client>) -> bool {
        let is_silent = |(client, signs): &(Client, Arc<Signs>)| {
            of.is_none_or(|of| of == client) && !signs.has_spoken.load(Ordering::Relaxed)
        };
        let found = self.connections.iter().find(|(_, each)| is_silent(each));
        let Some((id, signs)) = found.map(|(id, (_, signs))| (*id, signs.clone())) else {
            return false;
        };
        // It counts no longer: its task closes it as soon as it runs.
        self.remove(id);
        signs.must_close.store(true, Ordering::Release);
        signs.waker.wake();
        true
    }

    fn remove(&mut self, id: u64) {
        let Some((client, _)) = self.connections.remove(&id) else {
            return;
        };
        if let Some(count) = self.of_client.get_mut(&client) {
            *count -= 1;
            if *count == 0 {
                self.of_client.remove(&client);
            }
        }
    }
}

/// A place at the gate; it is free again when this goes.
struct Ticket {
    gate: Arc<Gate>,
    id: u64,
    signs: Arc<Signs>,
}

impl Drop for Ticket {
    fn drop(&mut self) {
        self.gate.open().remove(self.id);
    }
}

/// A connection that was let in.
pub struct Connection {
    stream: TcpStream,
    ticket: Ticket,
}

impl Connection {
    fn check(&self, context: &Context<'_>) -> io::Result<()> {
        let signs = &self.ticket.signs;
        if !signs.has_spoken.load(Ordering::Relaxed) {
            signs.waker.register(context.waker());
        }
        if signs.must_close.load(Ordering::Acquire) {
            return Err(io::ErrorKind::ConnectionAborted.into());
        }
        Ok(())
    }
}

impl AsyncRead for Connection {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        self.check(context)?;
        let before = buffer.filled().len();
        let read = Pin::new(&mut self.stream).poll_read(context, buffer);
        if buffer.filled().len() > before {
            self.ticket.signs.has_spoken.store(true, Ordering::Relaxed);
        }
        read
    }
}

impl AsyncWrite for Connection {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        self.check(context)?;
        Pin::new(&mut self.stream).poll_write(context, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        self.check(context)?;
        Pin::new(&mut self.stream).poll_write_vectored(context, bytes)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }
}

#[cfg(test)]
mod tests {
    use tokio::{
        io::{AsyncReadExt as _, AsyncWriteExt as _},
        net::TcpListener,
    };

    use super::*;

    const ROOM: Room = Room {
        in_all: 3,
        of_client: 2,
    };

    fn peer(text: &str) -> SocketAddr {
        text.parse().expect("an address")
    }

    /// A connection and its other end.
    async fn connected() -> (TcpStream, TcpStream) {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a listener");
        let address = listener.local_addr().expect("an address");
        let (there, here) = tokio::join!(TcpStream::connect(address), listener.accept());
        (here.expect("a connection").0, there.expect("a connection"))
    }

    async fn admit(gate: &Arc<Gate>, from: &str) -> Option<(Connection, TcpStream)> {
        let (here, there) = connected().await;
        let admitted = gate.admit(here, peer(from))?;
        Some((admitted, there))
    }

    async fn speak((connection, there): &mut (Connection, TcpStream)) {
        there.write_all(b"x").await.expect("a byte sent");
        connection.read_u8().await.expect("a byte heard");
    }

    #[test]
    fn half_of_the_descriptors_are_left_to_the_broker() {
        let (in_all, of_client) = (512, 128);
        assert_eq!(Room::within(1024), Room { in_all, of_client });
        let few = Room::within(64);
        assert!(few.in_all <= 32 && few.of_client <= few.in_all, "{few:?}");
        assert_eq!(Room::within(u64::MAX).in_all, CONNECTIONS_MAX);
    }

    #[tokio::test]
    async fn the_one_that_was_silent_for_longest_makes_room() {
        let gate = Gate::new(ROOM, TrustedProxies::default());
        let mut first = admit(&gate, "192.0.2.1:1").await.expect("room");
        let mut second = admit(&gate, "192.0.2.1:2").await.expect("room");
        let mut third = admit(&gate, "192.0.2.1:3").await.expect("room");
        let closed = first.0.read_u8().await.expect_err("it was closed");
        assert_eq!(closed.kind(), io::ErrorKind::ConnectionAborted);
        drop(first);
        speak(&mut second).await;
        speak(&mut third).await;
        assert!(admit(&gate, "192.0.2.1:4").await.is_none());
        let other = admit(&gate, "192.0.2.2:1").await.expect("room");
        // All places are taken: the silent one goes, whichever client's it is.
        let mut last = admit(&gate, "192.0.2.3:1").await.expect("room");
        speak(&mut last).await;
        assert!(admit(&gate, "192.0.2.4:1").await.is_none());
        drop((other, second, third, last));
        assert!(gate.open().connections.is_empty() && gate.open().of_client.is_empty());
    }

    #[tokio::test]
    async fn a_trusted_proxy_has_all_the_room_there_is() {
        let gate = Gate::new(ROOM, "192.0.2.1".parse().expect("a list"));
        let mut held = Vec::new();
        for port in 1..=3 {
            let mut admitted = admit(&gate, &format!("192.0.2.1:{port}"))
                .await
                .expect("room");
            speak(&mut admitted).await;
            held.push(admitted);
        }
        assert!(admit(&gate, "192.0.2.1:4").await.is_none());
    }
}
