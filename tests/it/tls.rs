//! HTTPS, as a client of its own sees it: curl.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Stdio,
};

use rcgen::{CertificateParams, CertifiedIssuer, KeyPair};

use crate::{
    broker::{eventually, new_folder},
    process::{BrokerProcess, refused, settings},
    user::User,
};

/// An authority, and the files of certificates that it gives out.
pub struct Authority {
    folder: PathBuf,
    issuer: CertifiedIssuer<'static, KeyPair>,
}

impl Authority {
    pub fn new() -> Self {
        let folder = new_folder();
        let mut params = CertificateParams::new(Vec::new()).expect("names");
        // Another name than a certificate's own, which would look signed by itself.
        let name = rcgen::DnType::CommonName;
        params.distinguished_name.push(name, "a test's authority");
        params.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
        let key = KeyPair::generate().expect("a key");
        let issuer = CertifiedIssuer::self_signed(params, key).expect("an authority");
        fs::write(folder.join("ca.crt"), issuer.pem()).expect("a file");
        Self { folder, issuer }
    }

    pub fn file(&self, name: &str) -> PathBuf {
        self.folder.join(name)
    }

    /// Gives out a certificate for this machine, with a serial number that tells it from others.
    pub fn give_out(&self, serial: u64) {
        let mut params = CertificateParams::new(vec!["127.0.0.1".to_owned()]).expect("names");
        params.serial_number = Some(serial.into());
        let key = KeyPair::generate().expect("a key");
        let certificate = params.signed_by(&key, &self.issuer).expect("a certificate");
        fs::write(self.file("server.crt"), certificate.pem()).expect("a file");
        fs::write(self.file("server.key"), key.serialize_pem()).expect("a file");
    }
}

impl Drop for Authority {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.folder);
    }
}

/// What curl prints; what it fails with otherwise.
async fn curl(authority: &Path, arguments: &[&str]) -> Result<String, String> {
    let mut command = tokio::process::Command::new("curl");
    command.args(["--silent", "--show-error", "--cacert"]);
    command.arg(authority).args(arguments).stdin(Stdio::null());
    let ended = command.output().await.expect("curl");
    let text = |bytes: Vec<u8>| String::from_utf8_lossy(&bytes).into_owned();
    if ended.status.success() {
        Ok(text(ended.stdout))
    } else {
        Err(text(ended.stderr))
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn https_is_served_in_both_versions_of_http_and_the_certificate_is_read_anew() {
    let authority = Authority::new();
    authority.give_out(0x1111);
    let mut broker = BrokerProcess::stopped_with(|settings| {
        let path = |name| authority.file(name).display().to_string();
        settings.insert("TLS_CERTIFICATE", path("server.crt"));
        settings.insert("TLS_KEY", path("server.key"));
    });
    broker.spawn();
    let url = format!("{}/healthz", broker.url.replace("http://", "https://"));
    let ca = authority.file("ca.crt");
    eventually("a broker that serves", || async {
        curl(&ca, &[&url]).await.ok().map(drop)
    })
    .await;
    for (version, told) in [("--http1.1", "1.1"), ("--http2", "2")] {
        let asked = [version, "--write-out", " %{http_version}", &url];
        let answer = curl(&ca, &asked).await.expect("an answer");
        assert_eq!(answer, format!("{{\"status\":\"ok\"}} {told}"));
    }
    let plain = url.replace("https://", "http://");
    assert!(curl(&ca, &[&plain]).await.is_err());
    let stranger = Authority::new();
    assert!(curl(&stranger.file("ca.crt"), &[&url]).await.is_err());

    let serial = async || {
        let shown = ["--write-out", "%{certs}", "--output", "/dev/null", &url];
        curl(&ca, &shown).await.expect("an answer").to_lowercase()
    };
    assert!(serial().await.contains("1111"));
    // A broken file changes nothing, also when others come after it.
    fs::write(authority.file("server.key"), "nothing").expect("a file");
    broker.hang_up();
    eventually("a word about the broken key", || async {
        broker.logged().contains("stays what it was").then_some(())
    })
    .await;
    assert!(serial().await.contains("1111"));
    authority.give_out(0x2222);
    broker.hang_up();
    eventually("the new certificate", || async {
        serial().await.contains("2222").then_some(())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_certificate_that_cannot_be_used_stops_the_start() {
    let authority = Authority::new();
    authority.give_out(1);
    fs::rename(authority.file("server.key"), authority.file("one.key")).expect("a file");
    authority.give_out(2);
    fs::write(authority.file("empty"), "").expect("a file");
    for (name, begin) in [
        ("encrypted", "-----BEGIN ENCRYPTED PRIVATE KEY-----"),
        (
            "formerly",
            "-----BEGIN RSA PRIVATE KEY-----\nProc-Type: 4,ENCRYPTED",
        ),
    ] {
        fs::write(authority.file(name), format!("{begin}\nAAAA\n")).expect("a file");
    }
    let cases = [
        ("server.crt", Some("one.key"), "fit together"),
        ("server.crt", Some("missing"), "missing"),
        ("server.crt", Some("encrypted"), "is encrypted"),
        ("server.crt", Some("formerly"), "is encrypted"),
        ("server.crt", Some("empty"), "empty"),
        ("empty", Some("server.key"), "no certificate"),
        ("server.crt", None, "COMPOSE_BROKER_TLS_KEY"),
    ];
    for (certificate, key, told) in cases {
        let folder = new_folder();
        let mut settings = settings(&folder);
        let path = |name: &str| authority.file(name).display().to_string();
        settings.insert("TLS_CERTIFICATE", path(certificate));
        if let Some(key) = key {
            settings.insert("TLS_KEY", path(key));
        }
        let printed = refused(&settings).await;
        let printed = String::from_utf8_lossy(&printed.stderr).into_owned();
        assert!(printed.contains("COMPOSE_BROKER_TLS_"), "{printed}");
        assert!(printed.contains(told), "{printed}");
        assert_eq!(printed.lines().count(), 1, "{printed}");
        let _ = fs::remove_dir_all(folder);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_client_trusts_the_authority_that_it_is_told_of_and_no_other() {
    let (authority, another) = (Authority::new(), Authority::new());
    authority.give_out(0x1111);
    // Some editors put a mark in front.
    for name in ["server.crt", "server.key", "ca.crt"] {
        let pem = fs::read_to_string(authority.file(name)).expect("a file");
        fs::write(authority.file(name), format!("\u{feff}{pem}")).expect("a file");
    }
    let mut broker = BrokerProcess::stopped_with(|settings| {
        let path = |name| authority.file(name).display().to_string();
        settings.insert("TLS_CERTIFICATE", path("server.crt"));
        settings.insert("TLS_KEY", path("server.key"));
    });
    broker.spawn();
    let url = format!("https://{}", broker.settings()["LISTEN"]);
    let (username, password) = broker.platform();
    let user = User::of(&url, username, password);
    let ca = authority.file("ca.crt").display().to_string();
    let ask = ["marketplace", "--ca", &ca];
    eventually("a broker that serves", || async {
        let ran = user.run(&ask).await;
        (ran.code == 0).then_some(())
    })
    .await;
    let other = another.file("ca.crt").display().to_string();
    for arguments in [&["marketplace"][..], &["marketplace", "--ca", &other]] {
        let ran = user.run(arguments).await;
        ran.must_say(1, "cannot reach https://127.0.0.1");
    }
}
