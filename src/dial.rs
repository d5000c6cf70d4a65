//! Connections to servers of others, with TLS where the address says so.
//!
//! Invariants: nothing but the host and the port of an address is looked at; an answer comes from who has a
//! certificate of a trusted authority, or not at all.

use std::{fs, io, path::Path, sync::Arc};

use hyper::{Request, header};
use rustls::{
    ClientConfig, RootCertStore,
    crypto::ring,
    pki_types::{CertificateDer, ServerName, pem::PemObject as _},
};
use tokio::net::TcpStream;
use tokio_rustls::{TlsConnector, client::TlsStream};
use tokio_util::either::Either;
use url::{Host, Url};

use crate::model::{bom::bytes_without_bom, failure::chain};

/// A connection.
pub type Stream = Either<TcpStream, TlsStream<TcpStream>>;

/// Whom connections with TLS trust.
pub type Trust = Arc<ClientConfig>;

/// Why there is no connection.
#[derive(Debug, thiserror::Error)]
pub enum DialError {
    /// The address names no host.
    #[error("there is no host in it")]
    NoHost,
    /// Nobody takes the connection, or who does is not trusted.
    #[error(transparent)]
    Refused(#[from] io::Error),
    /// This machine knows no authorities.
    #[error("this machine knows no authorities")]
    NoAuthorities,
    /// The authorities cannot be used that were named.
    #[error("{0}")]
    Authorities(String),
}

/// Connects to the host and port of `url`; with TLS where there is a `trust`.
pub async fn dial(url: &Url, trust: Option<&Trust>) -> Result<Stream, DialError> {
    let host = match url.host().ok_or(DialError::NoHost)? {
        Host::Domain(name) => name.to_owned(),
        Host::Ipv4(address) => address.to_string(),
        Host::Ipv6(address) => address.to_string(),
    };
    let port = url.port_or_known_default().unwrap_or(80);
    let stream = TcpStream::connect((host.as_str(), port)).await?;
    stream.set_nodelay(true)?;
    let Some(trust) = trust else {
        return Ok(Either::Left(stream));
    };
    let name = ServerName::try_from(host).map_err(io::Error::other)?;
    let secured = TlsConnector::from(trust.clone()).connect(name, stream);
    Ok(Either::Right(secured.await?))
}

/// Whom a connection to `url` trusts: the authorities of the file `ca`, or those of this machine. Nobody,
/// where it needs no TLS.
pub fn trust(url: &Url, ca: Option<&Path>) -> Result<Option<Trust>, DialError> {
    if url.scheme() != "https" {
        return Ok(None);
    }
    let mut roots = RootCertStore::empty();
    match ca {
        Some(file) => {
            let unusable = |why: String| {
                let shown = file.display();
                DialError::Authorities(format!("{shown}: {why}"))
            };
            let pem = fs::read(file).map_err(|e| unusable(e.to_string()))?;
            let certificates: Result<Vec<_>, _> =
                CertificateDer::pem_slice_iter(bytes_without_bom(&pem)).collect();
            for certificate in certificates.map_err(|e| unusable(e.to_string()))? {
                let added = roots.add(certificate);
                added.map_err(|e| unusable(e.to_string()))?;
            }
            if roots.is_empty() {
                let shown = file.display();
                return Err(DialError::Authorities(format!(
                    "{shown} holds no certificate"
                )));
            }
        }
        None => {
            roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
            if roots.is_empty() {
                return Err(DialError::NoAuthorities);
            }
        }
    }
    let provider = Arc::new(ring::default_provider());
    let config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(|e| DialError::Authorities(chain(&e)))?;
    let config = config.with_root_certificates(roots).with_no_client_auth();
    Ok(Some(Arc::new(config)))
}

/// The beginning of every request to `url`.
pub fn request(url: &Url) -> hyper::http::request::Builder {
    let host = match (url.host_str(), url.port()) {
        (Some(host), Some(port)) => format!("{host}:{port}"),
        (host, _) => host.unwrap_or_default().to_owned(),
    };
    let target = match url.query() {
        Some(query) => format!("{}?{query}", url.path()),
        None => url.path().to_owned(),
    };
    Request::builder()
        .uri(target)
        .header(header::HOST, host)
        .header(
            header::USER_AGENT,
            concat!("compose-broker/", env!("CARGO_PKG_VERSION")),
        )
}
