//! What members are asked while they are changed one after the other.

use std::sync::Arc;

use bytes::Bytes;
use etcd_client::Client;
use futures::future::join_all;
use http_body_util::{BodyExt as _, Empty, Limited};
use hyper::{Request, client::conn::http1, header};
use hyper_util::rt::TokioIo;
use serde::Deserialize;
use tokio::{net::TcpStream, task::JoinSet, time::timeout};
use tokio_rustls::{
    TlsConnector,
    rustls::{
        ClientConfig, RootCertStore,
        crypto::ring,
        pki_types::{CertificateDer, PrivateKeyDer, ServerName, pem::PemObject as _},
    },
};

use crate::{
    engine::EngineError,
    model::{
        deployment::Member,
        limits::{ENGINE_CALL_TIMEOUT, LIVENESS_TIMEOUT, OBSERVATION_TIMEOUT},
        version::Version,
    },
};

use super::{
    addresses,
    client::{Dialer, Fault},
};

/// Longest answer to the question for a version that is read, in bytes.
const ANSWER_BYTES_MAX: usize = 16 * 1024;
/// What a member tells its versions at.
const VERSION: &str = "/version";

/// Makes the member at place `heir` the leader.
pub(super) async fn hand_over(dialer: &Dialer<'_>, heir: usize) -> Result<(), EngineError> {
    const DOING: &str = "handing the leadership over";
    match timeout(ENGINE_CALL_TIMEOUT, move_leader(dialer, heir)).await {
        Ok(Ok(())) => Ok(()),
        Ok(Err(fault)) => Err(fault.into_engine_error(DOING)),
        Err(_) => Err(Fault::Silent(ENGINE_CALL_TIMEOUT).into_engine_error(DOING)),
    }
}

async fn move_leader(dialer: &Dialer<'_>, heir: usize) -> Result<(), Fault> {
    let members = &dialer.deployment.members;
    let (_, heir, leader) = ask(dialer, &members[heir]).await?;
    if heir == leader {
        return Ok(());
    }
    for member in members {
        // One that is down cannot be the leader.
        if let Ok((mut client, id, _)) = ask(dialer, member).await
            && id == leader
        {
            client.move_leader(heir).await?;
            return Ok(());
        }
    }
    Err(EngineError::NotReady("its leader does not answer".to_owned()).into())
}

/// A member's own id, and its leader's.
pub(super) async fn ask(dialer: &Dialer<'_>, member: &Member) -> Result<(Client, u64, u64), Fault> {
    let mut client = dialer.client(member).await?;
    dialer.become_root(&mut client).await?;
    let status = client.status().await?;
    let id = status.header().map_or(0, |header| header.member_id());
    Ok((client, id, status.leader()))
}

/// The newest version that a member knows the others to have agreed on.
///
/// It is told over HTTP alone, to anybody.
pub(super) async fn agreed_version(dialer: &Dialer<'_>) -> Result<Version, EngineError> {
    const DOING: &str = "asking for the version that the members agree on";
    let failed = |source| EngineError::Call {
        doing: DOING,
        meaning: "a member does not tell it".to_owned(),
        is_final: false,
        is_silence: false,
        source,
    };
    let tls = TlsConnector::from(Arc::new(tls(dialer).map_err(failed)?));
    let answers = dialer
        .deployment
        .members
        .iter()
        .map(|member| timeout(OBSERVATION_TIMEOUT, get_version(&tls, member)));
    let mut newest = None;
    let mut failure = EngineError::NotReady("no member tells its version".to_owned());
    for answer in join_all(answers).await {
        match answer {
            Ok(Ok(version)) => newest = newest.max(Some(version)),
            Ok(Err(source)) => failure = failed(source),
            Err(_) => {}
        }
    }
    newest.ok_or(failure)
}

type AnyError = Box<dyn std::error::Error + Send + Sync>;

fn tls(dialer: &Dialer<'_>) -> Result<ClientConfig, AnyError> {
    let mut authorities = RootCertStore::empty();
    for authority in CertificateDer::pem_slice_iter(dialer.secrets.trusted().as_bytes()) {
        authorities.add(authority?)?;
    }
    let config = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions()?
        .with_root_certificates(authorities);
    let Some(root) = &dialer.root else {
        return Ok(config.with_no_client_auth());
    };
    let certificate = CertificateDer::from_pem_slice(root.certificate.as_bytes())?;
    let key = PrivateKeyDer::from_pem_slice(root.key.expose().as_bytes())?;
    Ok(config.with_client_auth_cert(vec![certificate], key)?)
}

/// Whether each member gives a sign of life: it answers a question well that it needs neither the others
/// nor a login for. One that has no leader does, too.
pub(super) async fn alive(dialer: &Dialer<'_>) -> Result<Vec<bool>, EngineError> {
    let tls = tls(dialer).map_err(|source| EngineError::Call {
        doing: "asking for a sign of life",
        meaning: "no connection can be secured".to_owned(),
        is_final: false,
        is_silence: false,
        source,
    })?;
    let tls = TlsConnector::from(Arc::new(tls));
    let members = dialer.deployment.members.iter();
    Ok(join_all(members.map(|member| is_alive(&tls, member))).await)
}

async fn is_alive(tls: &TlsConnector, member: &Member) -> bool {
    let answer = timeout(LIVENESS_TIMEOUT, get(tls, member, VERSION)).await;
    matches!(answer, Ok(Ok(_)))
}

async fn get_version(tls: &TlsConnector, member: &Member) -> Result<Version, AnyError> {
    let answer = get(tls, member, VERSION).await?;
    parse_version(&answer).map_err(Into::into)
}

/// The body of a member's answer, where that is a good one.
async fn get(tls: &TlsConnector, member: &Member, path: &str) -> Result<Bytes, AnyError> {
    let address = addresses::own(member);
    let stream = TcpStream::connect((address.host.as_str(), address.port)).await?;
    let name = ServerName::try_from(address.host.clone())?;
    let stream = TokioIo::new(tls.connect(name, stream).await?);
    let request = Request::get(path)
        .header(header::HOST, address.to_string())
        .header(header::CONNECTION, "close")
        .body(Empty::<Bytes>::new())?;
    let (mut sender, connection) = http1::Builder::new()
        .max_buf_size(ANSWER_BYTES_MAX)
        .handshake(stream)
        .await?;
    // It goes with this call.
    let mut connections = JoinSet::new();
    connections.spawn(connection);
    let answer = sender.send_request(request).await?;
    let status = answer.status();
    if !status.is_success() {
        return Err(format!("it answers {path} with {status}").into());
    }
    let body = Limited::new(answer.into_body(), ANSWER_BYTES_MAX);
    Ok(body.collect().await?.to_bytes())
}

/// Understands the answer to `GET /version`.
fn parse_version(answer: &[u8]) -> Result<Version, EngineError> {
    #[derive(Deserialize)]
    struct Versions {
        etcdcluster: String,
    }
    let unreadable = |reason: String| EngineError::Output {
        tool: VERSION,
        reason,
    };
    let versions: Versions =
        serde_json::from_slice(answer).map_err(|e| unreadable(e.to_string()))?;
    let version = versions.etcdcluster.parse();
    version.map_err(|e: crate::model::version::VersionError| unreadable(e.to_string()))
}

#[cfg(test)]
mod tests {
    use rcgen::generate_simple_self_signed;
    use tokio::{
        io::{AsyncReadExt as _, AsyncWriteExt as _},
        net::TcpListener,
    };
    use tokio_rustls::{TlsAcceptor, rustls::ServerConfig};

    use super::*;

    const LOOPBACK: &str = "127.0.0.1";

    /// What stands in for a member, and gives every request this answer.
    async fn who_answers(answer: String) -> (TlsConnector, Member) {
        let provider = || Arc::new(ring::default_provider());
        let issued = generate_simple_self_signed([LOOPBACK.to_owned()]).expect("a certificate");
        let certificate = issued.cert.der().clone();
        let key = issued.signing_key.serialize_der();
        let key = PrivateKeyDer::try_from(key).expect("a key");
        let served = ServerConfig::builder_with_provider(provider())
            .with_safe_default_protocol_versions()
            .expect("TLS")
            .with_no_client_auth()
            .with_single_cert(vec![certificate.clone()], key)
            .expect("a certificate");
        let mut authorities = RootCertStore::empty();
        authorities.add(certificate).expect("an authority");
        let asked = ClientConfig::builder_with_provider(provider())
            .with_safe_default_protocol_versions()
            .expect("TLS")
            .with_root_certificates(authorities)
            .with_no_client_auth();
        let listener = TcpListener::bind((LOOPBACK, 0)).await.expect("a port");
        let port = listener.local_addr().expect("an address").port();
        tokio::spawn(async move {
            let tls = TlsAcceptor::from(Arc::new(served));
            while let Ok((stream, _)) = listener.accept().await {
                let mut stream = tls.accept(stream).await.expect("TLS");
                let mut request = Vec::new();
                while !request.ends_with(b"\r\n\r\n") {
                    request.push(stream.read_u8().await.expect("a request"));
                }
                assert!(request.starts_with(b"GET /version HTTP/1.1\r\n"));
                // Who finds it too long leaves before its end.
                let _ = stream.write_all(answer.as_bytes()).await;
                let _ = stream.shutdown().await;
            }
        });
        let member = addresses::member_at("m0", LOOPBACK, [port, 1]);
        (TlsConnector::from(Arc::new(asked)), member)
    }

    #[tokio::test]
    async fn a_good_answer_alone_is_a_sign_of_life() {
        const VERSIONS: &str = "{\"etcdserver\":\"3.5.16\",\"etcdcluster\":\"3.5.0\"}";
        let whole = |status: &str| {
            let length = VERSIONS.len();
            format!("HTTP/1.1 {status}\r\nContent-Length: {length}\r\n\r\n{VERSIONS}")
        };
        let length = format!("{:x}", VERSIONS.len());
        let good = [
            whole("200 OK"),
            format!(
                "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n\
                 {length}\r\n{VERSIONS}\r\n0\r\n\r\n"
            ),
            format!("HTTP/1.1 200 OK\r\nConnection: close\r\n\r\n{VERSIONS}"),
        ];
        for answer in good {
            let (tls, member) = who_answers(answer.clone()).await;
            assert!(is_alive(&tls, &member).await, "{answer}");
            let version = get_version(&tls, &member).await.expect(&answer);
            assert_eq!(version.to_string(), "3.5.0", "{answer}");
        }
        let cut = whole("200 OK");
        let bad = [
            whole("500 Internal Server Error"),
            whole("503 Service Unavailable"),
            whole("302 Found"),
            cut[..cut.len() - 1].to_owned(),
            VERSIONS.to_owned(),
            String::new(),
            format!(
                "HTTP/1.1 200 OK\r\n\r\n{}",
                "x".repeat(ANSWER_BYTES_MAX + 1)
            ),
        ];
        for answer in bad {
            let (tls, member) = who_answers(answer.clone()).await;
            assert!(!is_alive(&tls, &member).await, "{answer}");
            assert!(get_version(&tls, &member).await.is_err(), "{answer}");
        }
    }

    #[test]
    fn the_agreed_version_is_the_cluster_s() {
        let answer = b"{\"etcdserver\":\"3.5.16\",\"etcdcluster\":\"3.4.0\"}";
        let version = parse_version(answer).expect("understood");
        assert_eq!(version.to_string(), "3.4.0");
        for early in [
            "{\"etcdserver\":\"3.5.16\",\"etcdcluster\":\"not_decided\"}",
            "",
            "}{",
        ] {
            assert!(parse_version(early.as_bytes()).is_err(), "{early}");
        }
    }
}
