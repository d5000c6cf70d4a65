//! The certificates of a deployment.
//!
//! Each deployment has an authority of its own, so no certificate of one deployment opens another.
//! etcd lets anybody in as user X who shows a certificate of its trusted authority with the common
//! name X. Hence the lasting certificates are named after no user, and the one for `root` is made
//! when it is needed and never stored.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa,
    Issuer, KeyPair, KeyUsagePurpose, PKCS_ECDSA_P256_SHA256,
};

use crate::{
    engine::EngineError,
    model::{
        deployment::DeploymentSecrets,
        ids::DeploymentId,
        limits::{CERTIFICATE_BACKDATE, CERTIFICATE_DAYS},
        secret::Secret,
    },
    seal::random_secret,
};

use super::security::ROOT;

/// Common name of the members' certificate; no database user is ever named so.
pub(super) const MEMBER: &str = "member";

/// A certificate with its private key, both PEM.
pub(super) struct Identity {
    pub(super) certificate: String,
    pub(super) key: Secret,
}

/// An authority, a certificate for the members at `host`, and a password for `root`.
pub(super) fn generate_secrets(
    id: &DeploymentId,
    host: &str,
) -> Result<DeploymentSecrets, EngineError> {
    let ca_key = new_key()?;
    let ca_certificate = authority(id)?.self_signed(&ca_key)?.pem();
    let ca_key = Secret::new(ca_key.serialize_pem());

    let mut names = vec![host.to_owned()];
    if host != "localhost" {
        names.push("localhost".to_owned());
    }
    let both = [
        ExtendedKeyUsagePurpose::ServerAuth,
        ExtendedKeyUsagePurpose::ClientAuth,
    ];
    // Members are clients too: of each other.
    let member = issue(id, &ca_key, MEMBER, names, &both)?;

    Ok(DeploymentSecrets {
        ca_certificate,
        ca_key,
        member_certificate: member.certificate,
        member_key: member.key,
        root_password: random_secret()?,
    })
}

/// A certificate that lets the broker in as `root` where [`Access::Certificates`] rules.
///
/// [`Access::Certificates`]: crate::model::deployment::Access::Certificates
pub(super) fn root_client(
    id: &DeploymentId,
    secrets: &DeploymentSecrets,
) -> Result<Identity, EngineError> {
    issue(
        id,
        &secrets.ca_key,
        ROOT,
        Vec::new(),
        &[ExtendedKeyUsagePurpose::ClientAuth],
    )
}

fn issue(
    id: &DeploymentId,
    ca_key: &Secret,
    common_name: &str,
    names: Vec<String>,
    usages: &[ExtendedKeyUsagePurpose],
) -> Result<Identity, EngineError> {
    let authority = authority(id)?;
    let issuer = Issuer::from_params(&authority, KeyPair::from_pem(ca_key.expose())?);
    let mut params = named(CertificateParams::new(names)?, common_name);
    params.is_ca = IsCa::ExplicitNoCa;
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    params.extended_key_usages = usages.to_vec();
    params.use_authority_key_identifier_extension = true;
    let key = new_key()?;
    Ok(Identity {
        certificate: params.signed_by(&key, &issuer)?.pem(),
        key: Secret::new(key.serialize_pem()),
    })
}

/// The authority's description. What it issues refers to this name, so it follows from the id
/// alone.
fn authority(id: &DeploymentId) -> Result<CertificateParams, EngineError> {
    let common_name = format!("compose-broker deployment {id}");
    let mut params = named(CertificateParams::new(Vec::new())?, &common_name);
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    Ok(params)
}

fn named(mut params: CertificateParams, common_name: &str) -> CertificateParams {
    const DAY: Duration = Duration::from_secs(24 * 3600);
    let since_epoch = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap_or_default();
    let epoch = rcgen::date_time_ymd(1970, 1, 1);
    params.not_before = epoch + since_epoch.saturating_sub(CERTIFICATE_BACKDATE);
    params.not_after = epoch + since_epoch + DAY * CERTIFICATE_DAYS;
    params.distinguished_name = DistinguishedName::new();
    params
        .distinguished_name
        .push(DnType::CommonName, common_name);
    params
}

fn new_key() -> Result<KeyPair, EngineError> {
    Ok(KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256)?)
}
