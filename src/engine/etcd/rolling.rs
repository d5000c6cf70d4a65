//! What members are asked while they are changed one after the other.

use std::sync::Arc;

use etcd_client::Client;
use futures::future::join_all;
use serde::Deserialize;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
    time::timeout,
};
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
const ANSWER_BYTES_MAX: u64 = 16 * 1024;

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

/// Whether each member gives a sign of life: it answers a question that it needs neither the others
/// nor a login for. One that has no leader answers, too.
pub(super) async fn alive(dialer: &Dialer<'_>) -> Result<Vec<bool>, EngineError> {
    let tls = tls(dialer).map_err(|source| EngineError::Call {
        doing: "asking for a sign of life",
        meaning: "no connection can be secured".to_owned(),
        is_final: false,
        is_silence: false,
        source,
    })?;
    let tls = TlsConnector::from(Arc::new(tls));
    let answers = dialer.deployment.members.iter().map(|member| async {
        let answer = timeout(LIVENESS_TIMEOUT, get(&tls, member, "/version")).await;
        matches!(answer, Ok(Ok(answer)) if !answer.is_empty())
    });
    Ok(join_all(answers).await)
}

async fn get_version(tls: &TlsConnector, member: &Member) -> Result<Version, AnyError> {
    let answer = get(tls, member, "/version").await?;
    parse_version(&answer).map_err(Into::into)
}

async fn get(tls: &TlsConnector, member: &Member, path: &str) -> Result<String, AnyError> {
    let address = addresses::own(member);
    let connection = TcpStream::connect((address.host.as_str(), address.port)).await?;
    let name = ServerName::try_from(address.host.clone())?;
    let mut connection = tls.connect(name, connection).await?;
    let request = format!("GET {path} HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n\r\n");
    connection.write_all(request.as_bytes()).await?;
    let mut answer = Vec::new();
    connection
        .take(ANSWER_BYTES_MAX)
        .read_to_end(&mut answer)
        .await?;
    Ok(String::from_utf8_lossy(&answer).into_owned())
}

/// Understands the answer to `GET /version`.
fn parse_version(answer: &str) -> Result<Version, EngineError> {
    #[derive(Deserialize)]
    struct Versions {
        etcdcluster: String,
    }
    let unreadable = |reason: String| EngineError::Output {
        tool: "/version",
        reason,
    };
    let begin = answer.find('{').unwrap_or_default();
    let end = answer.rfind('}').map_or(answer.len(), |at| at + 1);
    let versions: Versions = answer
        .get(begin..end)
        .ok_or_else(|| unreadable("no JSON".to_owned()))
        .and_then(|json| serde_json::from_str(json).map_err(|e| unreadable(e.to_string())))?;
    let version = versions.etcdcluster.parse();
    version.map_err(|e: crate::model::version::VersionError| unreadable(e.to_string()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_agreed_version_is_the_cluster_s() {
        let answer = "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n\r\n\
                      {\"etcdserver\":\"3.5.16\",\"etcdcluster\":\"3.4.0\"}";
        let version = parse_version(answer).expect("understood");
        assert_eq!(version.to_string(), "3.4.0");
        for early in [
            "{\"etcdserver\":\"3.5.16\",\"etcdcluster\":\"not_decided\"}",
            "",
            "}{",
        ] {
            assert!(parse_version(early).is_err(), "{early}");
        }
    }
}
