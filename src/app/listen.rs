//! Where the broker listens, and how clients reach it there.

use std::{
    net::{SocketAddr, TcpListener},
    sync::Arc,
};

use actix_web::{dev::Server, web::Data};

use super::StartError;
use crate::{
    config::Config,
    http::{
        Api,
        gate::Room,
        server::{ServerError, metrics_server, server},
        tls::ServerCertificate,
    },
    metrics::{Metrics, timestamp},
    model::limits::OPEN_FILES_ENOUGH,
};

/// An address that is the broker's, and nothing is served on yet.
pub(super) struct Listener {
    socket: TcpListener,
    /// The address in the settings.
    asked: SocketAddr,
    /// The one that it became.
    pub(super) address: SocketAddr,
    /// Where clients reach it.
    pub(super) public_url: String,
    /// What it shows to clients; none: it speaks plain HTTP.
    pub(super) certificate: Option<Arc<ServerCertificate>>,
    /// The address that metrics have for themselves, where they have one.
    metrics: Option<TcpListener>,
}

impl Listener {
    /// Takes the address, and reads the certificate.
    pub(super) fn bind(config: &Config) -> Result<Self, StartError> {
        let failed = |source| StartError::Listen {
            address: config.listening.address,
            source,
        };
        let socket = TcpListener::bind(config.listening.address).map_err(failed)?;
        let address = socket.local_addr().map_err(failed)?;
        let metrics = config.monitoring.listen.map(|address| {
            TcpListener::bind(address).map_err(|source| StartError::Listen { address, source })
        });
        let certificate = config.listening.tls.clone().map(ServerCertificate::load);
        Ok(Self {
            socket,
            asked: config.listening.address,
            address,
            public_url: public_url(config, address),
            certificate: certificate.transpose()?,
            metrics: metrics.transpose()?,
        })
    }

    /// Where metrics alone are served.
    pub(super) fn metrics_address(&self) -> Option<SocketAddr> {
        self.metrics.as_ref()?.local_addr().ok()
    }

    /// The server of the API, and that of the metrics alone; they take connections once they run.
    pub(super) fn servers(self, api: Api) -> Result<Vec<Server>, StartError> {
        let room = Room::within(open_files());
        let failed = |error| match error {
            ServerError::Listen(source) => StartError::Listen {
                address: self.asked,
                source,
            },
            ServerError::Tls(error) => error.into(),
        };
        let api = Data::new(api);
        if let Some(certificate) = &self.certificate {
            show_end_of(certificate, &api.metrics);
        }
        let certificate = self.certificate.as_ref();
        let mut servers =
            vec![server(self.socket, api.clone(), certificate, room).map_err(failed)?];
        if let Some(socket) = self.metrics {
            servers.push(metrics_server(socket, api).map_err(failed)?);
        }
        Ok(servers)
    }
}

/// Has metrics tell when the listener's certificate ends.
fn show_end_of(certificate: &Arc<ServerCertificate>, metrics: &Metrics) {
    let certificate = certificate.clone();
    metrics.add_source(move |page| {
        if let Some(ends) = certificate.ends_at() {
            page.gauge(
                "listener_certificate_end_timestamp_seconds",
                "When the certificate ends that the broker shows to its clients",
                timestamp(ends),
            );
        }
    });
}

/// Where clients reach a broker that listens on `address`.
pub(super) fn public_url(config: &Config, address: SocketAddr) -> String {
    let scheme = if config.listening.tls.is_some() {
        "https"
    } else {
        "http"
    };
    let url = config.listening.public_url.clone();
    url.unwrap_or_else(|| format!("{scheme}://{address}"))
}

/// How many files this process may have open. Members have limits of their own.
fn open_files() -> u64 {
    let limit = rustix::process::getrlimit(rustix::process::Resource::Nofile).current;
    let limit = limit.unwrap_or(u64::MAX);
    if limit < OPEN_FILES_ENOUGH {
        log::warn!(
            "the system lets this process have {limit} files open: few connections are taken, and \
             work may have to wait; raise the hard limit (LimitNOFILE, ulimit -Hn)"
        );
    }
    limit
}
