//! TLS of the listener, when the broker is given a certificate.
//!
//! Invariants: a certificate is taken into use only as a whole, with the key that belongs to it; one
//! that cannot be read leaves the one before in use. Connections that are open keep theirs.

use std::{
    fmt, fs, io,
    path::PathBuf,
    sync::{Arc, PoisonError, RwLock},
};

use chrono::{DateTime, Utc};
use rustls::{
    ServerConfig,
    crypto::{CryptoProvider, ring},
    pki_types::{
        CertificateDer, PrivateKeyDer,
        pem::{self, PemObject as _},
    },
    server::{ClientHello, ResolvesServerCert},
    sign::CertifiedKey,
};
use x509_parser::prelude::{FromDer as _, X509Certificate};

use crate::model::{bom::bytes_without_bom, certificate::CertificateFiles};

/// How PEM files say that a key is encrypted, today and formerly.
const ENCRYPTED: [&str; 2] = ["BEGIN ENCRYPTED PRIVATE KEY", "Proc-Type: 4,ENCRYPTED"];

/// Why a certificate cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// The file cannot be read.
    #[error("{}", file.display())]
    File {
        /// The file.
        file: PathBuf,
        /// What the system said.
        #[source]
        source: io::Error,
    },
    /// The file is not PEM, or has nothing of what is looked for.
    #[error("{} is no PEM file of the right kind", file.display())]
    Pem {
        /// The file.
        file: PathBuf,
        /// What is wrong with it.
        #[source]
        source: pem::Error,
    },
    /// There is no certificate in the file.
    #[error("{} holds no certificate", .0.display())]
    Empty(PathBuf),
    /// The key asks for a passphrase, which nobody can type here.
    #[error(
        "{} is encrypted; give the key without a passphrase, as `openssl pkey -in KEY -out PLAIN` \
         writes it",
        .0.display()
    )]
    EncryptedKey(PathBuf),
    /// The two do not belong together, or the key is of a kind that is not known.
    #[error("certificate and key do not fit together")]
    Mismatch(#[source] rustls::Error),
    /// TLS itself cannot be set up.
    #[error("TLS cannot be set up")]
    Setup(#[source] rustls::Error),
}

/// The listener's certificate, which can be replaced while the server runs.
pub struct ServerCertificate {
    files: CertificateFiles,
    current: RwLock<Arc<CertifiedKey>>,
}

impl ServerCertificate {
    /// Reads the certificate for the first time.
    pub fn load(files: CertificateFiles) -> Result<Arc<Self>, TlsError> {
        let current = RwLock::new(read(&files)?);
        Ok(Arc::new(Self { files, current }))
    }

    /// Reads the files anew. On an error, the certificate stays what it was.
    pub fn reload(&self) -> Result<(), TlsError> {
        let next = read(&self.files)?;
        // The change is one assignment, so it is whole even after a panic.
        *self.current.write().unwrap_or_else(PoisonError::into_inner) = next;
        Ok(())
    }

    /// When the certificate ends that clients are shown; none where it does not tell.
    pub fn ends_at(&self) -> Option<DateTime<Utc>> {
        let current = self.current.read().unwrap_or_else(PoisonError::into_inner);
        let (_, certificate) = X509Certificate::from_der(current.cert.first()?).ok()?;
        DateTime::from_timestamp(certificate.validity().not_after.timestamp(), 0)
    }

    /// TLS 1.2 and 1.3 with this certificate; clients show none.
    pub fn server_config(self: &Arc<Self>) -> Result<ServerConfig, TlsError> {
        let config = ServerConfig::builder_with_provider(provider())
            .with_safe_default_protocol_versions()
            .map_err(TlsError::Setup)?;
        Ok(config
            .with_no_client_auth()
            .with_cert_resolver(self.clone()))
    }
}

impl fmt::Debug for ServerCertificate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ServerCertificate")
            .field("files", &self.files)
            .finish_non_exhaustive()
    }
}

impl ResolvesServerCert for ServerCertificate {
    fn resolve(&self, _: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        let current = self.current.read().unwrap_or_else(PoisonError::into_inner);
        Some(current.clone())
    }
}

fn provider() -> Arc<CryptoProvider> {
    Arc::new(ring::default_provider())
}

fn read(files: &CertificateFiles) -> Result<Arc<CertifiedKey>, TlsError> {
    let bytes = |file: &PathBuf| match fs::read(file) {
        Ok(bytes) => Ok(bytes_without_bom(&bytes).to_vec()),
        Err(source) => Err(TlsError::File {
            file: file.clone(),
            source,
        }),
    };
    let pem = |file: &PathBuf| {
        let file = file.clone();
        move |source| TlsError::Pem { file, source }
    };
    let chain: Vec<_> = CertificateDer::pem_slice_iter(&bytes(&files.certificate)?)
        .collect::<Result<_, _>>()
        .map_err(pem(&files.certificate))?;
    if chain.is_empty() {
        return Err(TlsError::Empty(files.certificate.clone()));
    }
    let key = bytes(&files.key)?;
    let says = |text: &str| key.windows(text.len()).any(|part| part == text.as_bytes());
    if ENCRYPTED.iter().any(|text| says(text)) {
        return Err(TlsError::EncryptedKey(files.key.clone()));
    }
    let key = PrivateKeyDer::from_pem_slice(&key).map_err(pem(&files.key))?;
    let certified = CertifiedKey::from_der(chain, key, &provider());
    Ok(Arc::new(certified.map_err(TlsError::Mismatch)?))
}
