//! The certificates of a deployment.
//!
//! Each deployment has an authority of its own, so no certificate of one deployment opens another.
//! etcd lets anybody in as user X who shows a certificate of its trusted authority with the common
//! name X. Hence the lasting certificates are named after no user, and the one for `root` is made
//! when it is needed and never stored.

use std::time::{SystemTime, UNIX_EPOCH};

use chrono::{DateTime, SecondsFormat, TimeDelta, Utc};
use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa,
    Issuer, KeyPair, KeyUsagePurpose, PKCS_ECDSA_P256_SHA256,
};

use crate::{
    engine::EngineError,
    model::{
        deployment::{Authority, Deployment, DeploymentSecrets},
        ids::DeploymentId,
        limits::CERTIFICATE_BACKDATE,
        renewal::{Certificates, Renewal},
        secret::Secret,
    },
    seal::random_secret,
};

/// The administrator, as a user and as a role. etcd gives both names their meaning, and takes the
/// common name of a client's certificate for a login.
pub(super) const ROOT: &str = "root";

/// Common name of the members' certificate; no database user is ever named so.
pub(super) const MEMBER: &str = "member";

/// How long the certificate for `root` is good for: it is used at once.
const ROOT_LIFE: TimeDelta = TimeDelta::days(1);

/// A certificate with its private key, both PEM.
pub(super) struct Identity {
    pub(super) certificate: String,
    pub(super) key: Secret,
}

/// An authority, a certificate for the members where they are reached, and a password for `root`.
pub(super) fn first(
    deployment: &Deployment,
    certificates: &Certificates,
    now: DateTime<Utc>,
) -> Result<DeploymentSecrets, EngineError> {
    let first = new_authority(&deployment.id, certificates.authority_ends, now)?;
    let life = certificates.member_ends - now;
    let member = members_certificate(deployment, &first.certificate, &first.key, life)?;
    Ok(DeploymentSecrets {
        ca_certificate: first.certificate,
        ca_key: first.key,
        member_certificate: member.certificate,
        member_key: member.key,
        root_password: random_secret()?,
        certificates: Some(certificates.clone()),
        next_authority: None,
        former_ca_certificate: None,
        hosts: deployment.hosts(),
    })
}

/// The secrets after a renewal at `now`. `certificates`: their time from then on.
pub(super) fn renew(
    deployment: &Deployment,
    secrets: &DeploymentSecrets,
    what: Renewal,
    certificates: &Certificates,
    now: DateTime<Utc>,
) -> Result<DeploymentSecrets, EngineError> {
    let mut renewed = secrets.clone();
    renewed.certificates = Some(certificates.clone());
    match what {
        Renewal::Follow => {
            let ends = certificates.next_ends.unwrap_or(now);
            renewed.next_authority = Some(new_authority(&deployment.id, ends, now)?);
            return Ok(renewed);
        }
        Renewal::Retire => {
            renewed.former_ca_certificate = None;
            return Ok(renewed);
        }
        Renewal::Change => {
            if let Some(next) = renewed.next_authority.take() {
                renewed.former_ca_certificate = Some(renewed.ca_certificate);
                (renewed.ca_certificate, renewed.ca_key) = (next.certificate, next.key);
            }
        }
        Renewal::Members => {}
    }
    let life = certificates.member_ends - now;
    let member = members_certificate(deployment, &renewed.ca_certificate, &renewed.ca_key, life)?;
    (renewed.member_certificate, renewed.member_key) = (member.certificate, member.key);
    renewed.hosts = deployment.hosts();
    Ok(renewed)
}

/// A new authority. Several of one deployment are trusted side by side, so each has a name of its own:
/// some clients take the first that has the name of an issuer.
fn new_authority(
    id: &DeploymentId,
    ends: DateTime<Utc>,
    now: DateTime<Utc>,
) -> Result<Authority, EngineError> {
    let key = new_key()?;
    let common_name = format!("compose-broker deployment {id}");
    let mut params = named(
        CertificateParams::new(Vec::new())?,
        &common_name,
        ends - now,
    );
    let until = format!("until {}", ends.to_rfc3339_opts(SecondsFormat::Secs, true));
    let name = &mut params.distinguished_name;
    name.push(DnType::OrganizationalUnitName, until);
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    Ok(Authority {
        certificate: params.self_signed(&key)?.pem(),
        key: Secret::new(key.serialize_pem()),
    })
}

/// Members are clients too: of each other.
fn members_certificate(
    deployment: &Deployment,
    ca_certificate: &str,
    ca_key: &Secret,
    life: TimeDelta,
) -> Result<Identity, EngineError> {
    let names = deployment.hosts().into_iter().collect();
    let both = [
        ExtendedKeyUsagePurpose::ServerAuth,
        ExtendedKeyUsagePurpose::ClientAuth,
    ];
    issue(ca_certificate, ca_key, MEMBER, names, &both, life)
}

/// A certificate that lets the broker in as `root` where [`Access::Certificates`] rules.
///
/// [`Access::Certificates`]: crate::model::deployment::Access::Certificates
pub(super) fn root_client(secrets: &DeploymentSecrets) -> Result<Identity, EngineError> {
    issue(
        &secrets.ca_certificate,
        &secrets.ca_key,
        ROOT,
        Vec::new(),
        &[ExtendedKeyUsagePurpose::ClientAuth],
        ROOT_LIFE,
    )
}

fn issue(
    ca_certificate: &str,
    ca_key: &Secret,
    common_name: &str,
    names: Vec<String>,
    usages: &[ExtendedKeyUsagePurpose],
    life: TimeDelta,
) -> Result<Identity, EngineError> {
    let issuer = Issuer::from_ca_cert_pem(ca_certificate, KeyPair::from_pem(ca_key.expose())?)?;
    let mut params = named(CertificateParams::new(names)?, common_name, life);
    params.use_authority_key_identifier_extension = true;
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

/// From a day before now on for so long: by the machine's clock, since members go by that.
fn named(mut params: CertificateParams, common_name: &str, life: TimeDelta) -> CertificateParams {
    let since_epoch = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap_or_default();
    let now = rcgen::date_time_ymd(1970, 1, 1) + since_epoch;
    let length = |of: TimeDelta| of.to_std().unwrap_or_default();
    params.not_before = now - length(CERTIFICATE_BACKDATE);
    params.not_after = now + length(life);
    params.distinguished_name = DistinguishedName::new();
    params
        .distinguished_name
        .push(DnType::CommonName, common_name);
    params
}

fn new_key() -> Result<KeyPair, EngineError> {
    Ok(KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256)?)
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use rustls::{
        RootCertStore,
        client::{WebPkiServerVerifier, danger::ServerCertVerifier as _},
        crypto::ring,
        pki_types::{CertificateDer, ServerName, UnixTime, pem::PemObject as _},
    };
    use x509_parser::{pem::Pem, prelude::Validity};

    use super::*;
    use crate::engine::etcd::server::tests::deployment;
    use crate::model::{ids::OperationId, renewal::CertificateLife};

    const HOST: &str = "127.0.0.1";

    /// Whether a client that trusts `authorities` takes what members show.
    fn is_taken(secrets: &DeploymentSecrets, authorities: &str) -> bool {
        let certificate = |pem: &str| CertificateDer::from_pem_slice(pem.as_bytes()).expect("one");
        let mut roots = RootCertStore::empty();
        for authority in CertificateDer::pem_slice_iter(authorities.as_bytes()) {
            roots.add(authority.expect("a certificate")).expect("added");
        }
        let provider = Arc::new(ring::default_provider());
        let verifier = WebPkiServerVerifier::builder_with_provider(Arc::new(roots), provider);
        verifier
            .build()
            .expect("a verifier")
            .verify_server_cert(
                &certificate(&secrets.member_certificate),
                &[],
                &ServerName::try_from(HOST).expect("a name"),
                &[],
                UnixTime::now(),
            )
            .is_ok()
    }

    fn days(pem: &str) -> (i64, i64) {
        let pem = Pem::iter_from_buffer(pem.as_bytes()).next();
        let pem = pem.expect("a certificate").expect("PEM");
        let Validity {
            not_before,
            not_after,
        } = pem.parse_x509().expect("X.509").validity;
        let from_now = |at: i64| {
            let seconds = at - Utc::now().timestamp();
            // A moment has passed since.
            (seconds + 60).div_euclid(24 * 3600)
        };
        (
            from_now(not_before.timestamp()),
            from_now(not_after.timestamp()),
        )
    }

    fn name(pem: &str) -> String {
        let pem = Pem::iter_from_buffer(pem.as_bytes()).next();
        let pem = pem.expect("a certificate").expect("PEM");
        pem.parse_x509().expect("X.509").subject.to_string()
    }

    struct Deployed {
        deployment: Deployment,
        secrets: DeploymentSecrets,
        now: DateTime<Utc>,
    }

    impl Deployed {
        fn new() -> Self {
            let now = Utc::now();
            let deployment = deployment("3.6.16");
            let certificates = Certificates::new(now, &CertificateLife::default());
            let secrets = first(&deployment, &certificates, now).expect("secrets");
            Self {
                deployment,
                secrets,
                now,
            }
        }

        fn renew(&mut self, what: Renewal, after: TimeDelta) {
            self.now += after;
            let by = OperationId::generate(self.now);
            let certificates = self.secrets.certificates(&self.deployment.id);
            let renewed = certificates.renewed(what, self.now, &by, &CertificateLife::default());
            let secrets = renew(&self.deployment, &self.secrets, what, &renewed, self.now);
            self.secrets = secrets.expect("secrets");
        }
    }

    #[test]
    fn certificates_begin_a_day_before_and_end_as_decided() {
        let mut of = Deployed::new();
        assert_eq!(days(&of.secrets.ca_certificate), (-1, 3653));
        assert_eq!(days(&of.secrets.member_certificate), (-1, 731));
        of.renew(Renewal::Members, TimeDelta::days(548));
        assert_eq!(days(&of.secrets.member_certificate), (-1, 731));
        of.renew(Renewal::Members, TimeDelta::days(3000));
        assert_eq!(days(&of.secrets.member_certificate), (-1, 3653 - 3548));
    }

    #[test]
    fn a_client_of_the_overlap_takes_what_each_authority_issues_and_no_other_does() {
        let mut of = Deployed::new();
        let first = of.secrets.trusted();
        assert!(is_taken(&of.secrets, &first));
        let before = of.secrets.member_certificate.clone();
        of.renew(Renewal::Members, TimeDelta::days(548));
        assert_ne!(of.secrets.member_certificate, before);
        assert!(is_taken(&of.secrets, &first));

        of.renew(Renewal::Follow, TimeDelta::days(3000));
        let both = of.secrets.trusted();
        let next = of.secrets.next_authority.clone().expect("a next one");
        assert_eq!(both.matches("BEGIN CERTIFICATE").count(), 2);
        assert_ne!(name(&next.certificate), name(&first), "told apart by name");
        assert!(is_taken(&of.secrets, &both) && is_taken(&of.secrets, &first));
        assert!(!is_taken(&of.secrets, &next.certificate));

        of.renew(Renewal::Change, TimeDelta::days(1));
        assert_eq!(of.secrets.ca_certificate, next.certificate);
        assert_eq!(of.secrets.former_ca_certificate, Some(first.clone()));
        assert!(is_taken(&of.secrets, &both) && is_taken(&of.secrets, &next.certificate));
        assert!(!is_taken(&of.secrets, &first), "it knows the former alone");

        of.renew(Renewal::Retire, TimeDelta::days(366));
        assert_eq!(of.secrets.trusted(), next.certificate);
        assert!(is_taken(&of.secrets, &both));
    }

    #[test]
    fn secrets_of_earlier_versions_are_read_and_renewed() {
        let mut of = Deployed::new();
        let mut written = serde_json::to_value(&of.secrets).expect("JSON");
        let fields = written.as_object_mut().expect("fields");
        assert!(fields.remove("certificates").is_some());
        assert!(fields.remove("hosts").is_some());
        assert_eq!(fields.len(), 5, "{:?}", fields.keys());
        of.secrets = serde_json::from_value(written).expect("secrets");
        let certificates = of.secrets.certificates(&of.deployment.id);
        assert_eq!(certificates.member_ends, certificates.authority_ends);
        for what in [Renewal::Members, Renewal::Follow, Renewal::Change] {
            of.renew(what, TimeDelta::days(1));
            assert!(is_taken(&of.secrets, &of.secrets.trusted()), "{what:?}");
        }
    }
}
