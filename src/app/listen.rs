//! Where the broker listens, and how clients reach it there.

use std::{
    net::{SocketAddr, TcpListener},
    sync::Arc,
};

use actix_web::dev::Server;

use super::StartError;
use crate::{
    config::Config,
    http::{
        Api,
        gate::Room,
        server::{ServerError, server},
        tls::ServerCertificate,
    },
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
        let certificate = config.listening.tls.clone().map(ServerCertificate::load);
        Ok(Self {
            socket,
            asked: config.listening.address,
            address,
            public_url: public_url(config, address),
            certificate: certificate.transpose()?,
        })
    }

    /// The server of the API, which takes connections once it runs.
    pub(super) fn server(self, api: Api) -> Result<Server, StartError> {
        let room = Room::within(open_files());
        let made = server(self.socket, api, self.certificate.as_ref(), room);
        made.map_err(|error| match error {
            ServerError::Listen(source) => StartError::Listen {
                address: self.asked,
                source,
            },
            ServerError::Tls(error) => error.into(),
        })
    }
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
