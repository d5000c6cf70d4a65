//! The HTTP server itself.
//!
//! It is put together from actix's parts, since its own builder lets nobody look at connections
//! before they speak: see [`gate`](super::gate).

use std::{
    io,
    net::{SocketAddr, TcpListener},
    sync::Arc,
};

use actix_http::{HttpService, Protocol, error::DispatchError};
use actix_server::Server;
use actix_service::{IntoServiceFactory as _, ServiceFactoryExt as _, fn_service, map_config};
use actix_web::{App, dev::AppConfig, middleware::from_fn, web};
use tokio::{net::TcpStream, time::timeout};
use tokio_rustls::{TlsAcceptor, server::TlsStream};
use tokio_util::either::Either;

use super::{
    Api, draining,
    gate::{Connection, Gate, Room},
    metrics_routes,
    openapi::Documents,
    path, routes,
    tls::{ServerCertificate, TlsError},
    trace,
};
use crate::model::limits::{
    DISCONNECT_TIMEOUT, DRAIN_TIMEOUT, HTTP_WORKERS, REQUEST_HEAD_TIMEOUT, SCRAPE_CONNECTIONS_MAX,
    TLS_HANDSHAKE_TIMEOUT,
};

/// What the two sides agree to speak over TLS, the better one in front.
const ALPN: [&[u8]; 2] = [b"h2", b"http/1.1"];

/// Why there is no server.
#[derive(Debug, thiserror::Error)]
pub enum ServerError {
    /// The listener cannot be used.
    #[error("cannot listen")]
    Listen(#[from] io::Error),
    /// The certificate cannot be used.
    #[error(transparent)]
    Tls(#[from] TlsError),
}

/// A server on `listener` with `room` for connections, with TLS where there is a certificate; it
/// runs when it is awaited, and is stopped through its handle.
pub fn server(
    listener: TcpListener,
    api: web::Data<Api>,
    certificate: Option<&Arc<ServerCertificate>>,
    room: Room,
) -> Result<Server, ServerError> {
    let gate = Gate::new(room, api.proxies.clone());
    count_connections(&api, &gate, room);
    let tls = certificate.map(tls).transpose()?;
    Ok(serve(listener, api, gate, tls, HTTP_WORKERS, routes)?)
}

/// A server of the metrics alone.
pub fn metrics_server(listener: TcpListener, api: web::Data<Api>) -> Result<Server, ServerError> {
    let room = Room {
        in_all: SCRAPE_CONNECTIONS_MAX,
        of_client: SCRAPE_CONNECTIONS_MAX / 2,
    };
    let gate = Gate::new(room, api.proxies.clone());
    Ok(serve(listener, api, gate, None, 1, metrics_routes)?)
}

/// Has metrics tell how many connections there are.
fn count_connections(api: &web::Data<Api>, gate: &Arc<Gate>, room: Room) {
    let gate = Arc::downgrade(gate);
    let count = |n: usize| f64::from(u32::try_from(n).unwrap_or(u32::MAX));
    api.metrics.add_source(move |page| {
        let held = gate.upgrade().map_or(0, |gate| gate.held());
        page.gauge("http_connections", "Open connections", count(held));
        page.gauge(
            "http_connections_max",
            "The most connections that may be open",
            count(room.in_all),
        );
    });
}

fn serve(
    listener: TcpListener,
    api: web::Data<Api>,
    gate: Arc<Gate>,
    tls: Option<TlsAcceptor>,
    workers: usize,
    routes: fn(&mut web::ServiceConfig),
) -> io::Result<Server> {
    let room = gate.room();
    let documents = web::Data::new(Documents::default());
    let server = Server::build()
        .workers(workers)
        // Connections are taken before the gate sees them: as many as this wait for it, and the
        // rest in the system's queue.
        .max_concurrent_connections(room.at_the_gate() / workers)
        .shutdown_timeout(DRAIN_TIMEOUT.as_secs())
        .disable_signals();
    let stops = server.graceful_shutdown_signal();
    let server = server.listen("http", listener, move || {
        let app = App::new()
            .app_data(api.clone())
            .app_data(documents.clone())
            .configure(routes)
            .wrap(from_fn(trace::trace))
            .wrap(from_fn(draining::close_connections))
            .wrap(from_fn(path::one_slash_in_front));
        let app = app
            .into_factory()
            .map_err(|error: actix_web::Error| error.error_response());
        let stops = stops.clone();
        let http = HttpService::build()
            .graceful_shutdown_signal(move || {
                let stops = stops.clone();
                async move { stops.notified().await }
            })
            .client_request_timeout(REQUEST_HEAD_TIMEOUT)
            .client_disconnect_timeout(DISCONNECT_TIMEOUT)
            .finish(map_config(app, |()| AppConfig::default()));
        let (gate, tls) = (gate.clone(), tls.clone());
        fn_service(move |stream| enter(stream, gate.clone(), tls.clone())).and_then(http)
    })?;
    Ok(server.run())
}

/// HTTP/2 and 1.1, as the client likes.
fn tls(certificate: &Arc<ServerCertificate>) -> Result<TlsAcceptor, TlsError> {
    let mut config = certificate.server_config()?;
    config.alpn_protocols = ALPN.map(<[u8]>::to_vec).into();
    Ok(TlsAcceptor::from(Arc::new(config)))
}

type Entered = (
    Either<Connection, TlsStream<Connection>>,
    Protocol,
    Option<SocketAddr>,
);

/// The way of a new connection to the routes.
async fn enter(
    stream: TcpStream,
    gate: Arc<Gate>,
    tls: Option<TlsAcceptor>,
) -> Result<Entered, DispatchError> {
    let peer = stream.peer_addr()?;
    let no_room = || io::Error::from(io::ErrorKind::ConnectionRefused);
    let connection = gate.admit(stream, peer).ok_or_else(no_room)?;
    let Some(tls) = tls else {
        return Ok((Either::Left(connection), Protocol::Http1, Some(peer)));
    };
    let greeted = timeout(TLS_HANDSHAKE_TIMEOUT, tls.accept(connection)).await;
    let stream = greeted.map_err(|_| io::Error::from(io::ErrorKind::TimedOut))??;
    let protocol = match stream.get_ref().1.alpn_protocol() {
        Some(b"h2") => Protocol::Http2,
        _ => Protocol::Http1,
    };
    Ok((Either::Right(stream), protocol, Some(peer)))
}
