//! The HTTP server itself.

use std::{io, net::TcpListener};

use actix_web::{App, HttpServer, dev::Server, middleware::from_fn, web};

use super::{Api, routes, trace};
use crate::model::limits::{DRAIN_TIMEOUT, HTTP_WORKERS, REQUEST_HEAD_TIMEOUT};

/// A server on `listener`; it runs when it is awaited, and is stopped through its handle.
pub fn server(listener: TcpListener, api: Api) -> io::Result<Server> {
    let api = web::Data::new(api);
    let server = HttpServer::new(move || {
        App::new()
            .app_data(api.clone())
            .configure(routes)
            .wrap(from_fn(trace::trace))
    })
    .workers(HTTP_WORKERS)
    .client_request_timeout(REQUEST_HEAD_TIMEOUT)
    .shutdown_timeout(DRAIN_TIMEOUT.as_secs())
    .disable_signals()
    .listen(listener)?;
    Ok(server.run())
}
