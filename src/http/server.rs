//! The HTTP server itself.

use std::{io, net::TcpListener, sync::Arc};

use actix_web::{App, HttpServer, dev::Server, middleware::from_fn, web};

use super::{
    Api,
    openapi::Documents,
    path, routes,
    tls::{ServerCertificate, TlsError},
    trace,
};
use crate::model::limits::{DRAIN_TIMEOUT, HTTP_WORKERS, REQUEST_HEAD_TIMEOUT};

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

/// A server on `listener`, with TLS where there is a certificate; it runs when it is awaited, and
/// is stopped through its handle.
pub fn server(
    listener: TcpListener,
    api: Api,
    certificate: Option<&Arc<ServerCertificate>>,
) -> Result<Server, ServerError> {
    let api = web::Data::new(api);
    let documents = web::Data::new(Documents::default());
    let server = HttpServer::new(move || {
        App::new()
            .app_data(api.clone())
            .app_data(documents.clone())
            .configure(routes)
            .wrap(from_fn(trace::trace))
            .wrap(from_fn(path::one_slash_in_front))
    })
    .workers(HTTP_WORKERS)
    .client_request_timeout(REQUEST_HEAD_TIMEOUT)
    .shutdown_timeout(DRAIN_TIMEOUT.as_secs())
    .disable_signals();
    let server = match certificate {
        // HTTP/2 and 1.1, as the client likes.
        Some(certificate) => server.listen_rustls_0_23(listener, certificate.server_config()?)?,
        None => server.listen(listener)?,
    };
    Ok(server.run())
}
