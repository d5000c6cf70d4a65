//! Somebody on another machine who tries to get into databases, at each of some ports, all the time: without
//! TLS, and with TLS but without a certificate and without a password.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs::{self, File},
    io::{self, Write as _},
    net::SocketAddr,
    path::{Path, PathBuf},
    process::{Child, Command},
    sync::Arc,
    time::Duration,
};

use rustls::{
    ClientConfig, DigitallySignedStruct, SignatureScheme,
    client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier},
    crypto::ring::default_provider,
    pki_types::{CertificateDer, ServerName, UnixTime},
};
use tokio::{
    io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _},
    net::{TcpListener, TcpStream},
    time::{sleep, timeout},
};
use tokio_rustls::TlsConnector;

use crate::broker::eventually;

/// Names the address whose ports are tried, the ports, and where it is written down what came of it.
const AT: &str = "STRANGER_AT";
const NOTES: &str = "STRANGER_NOTES";

/// How long it waits before it tries a port again that nobody listens at: a member that comes up is tried
/// this soon.
const CLOSED_PAUSE: Duration = Duration::from_millis(20);
/// The same where it was told no.
const REFUSED_PAUSE: Duration = Duration::from_millis(100);
/// How long it waits for an answer.
const PATIENCE: Duration = Duration::from_secs(1);

/// What it asks for: a put, and a user of its own, as etcd has them in JSON.
const CALLS: [(&str, &str); 2] = [
    ("kv/put", r#"{"key":"Zm9v","value":"YmFy"}"#),
    ("auth/user/add", r#"{"name":"eve","password":"eve"}"#),
];

/// A process that goes on until it is ended, and no longer than its test.
pub struct Running(pub Child);

impl Running {
    pub fn begin(command: &mut Command) -> Self {
        Self(command.spawn().expect("a process"))
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// A stranger who is at it as long as this is there.
pub struct Stranger {
    process: Running,
    notes: PathBuf,
}

impl Stranger {
    /// Has `part`, a process that plays [`tries`], begin with the ports of an address.
    pub fn begin(
        mut part: Command,
        folder: &Path,
        at: &str,
        ports: impl Iterator<Item = u16>,
    ) -> Self {
        let notes = folder.join("stranger");
        let addresses: Vec<String> = ports.map(|port| format!("{at}:{port}")).collect();
        part.env(AT, addresses.join(" ")).env(NOTES, &notes);
        Self {
            process: Running::begin(&mut part),
            notes,
        }
    }

    /// Waits until it was told no at each of these ports since now, by a database that answers.
    pub async fn is_told_no_at(&self, ports: &[u16]) {
        let before = self.notes().len();
        let told = || async {
            let notes = self.notes();
            let answered = notes[before..].iter().filter(|note| note.is_refusal());
            let by: BTreeSet<u16> = answered.map(|note| note.port).collect();
            ports.iter().all(|port| by.contains(port)).then_some(())
        };
        eventually("a stranger that is told no", told).await;
    }

    /// Ends it: it never got in, and no port took what was not encrypted.
    pub fn end(self) {
        let notes = self.notes();
        drop(self.process);
        let mut answers: BTreeMap<&str, usize> = BTreeMap::new();
        for note in &notes {
            *answers.entry(&note.answer).or_default() += 1;
        }
        println!("what a stranger was answered: {answers:?}");
        let got_in: Vec<&Note> = notes.iter().filter(|note| note.is_entry()).collect();
        assert!(got_in.is_empty(), "a stranger got in: {got_in:?}");
    }

    /// What came of all its tries until now.
    fn notes(&self) -> Vec<Note> {
        let text = fs::read_to_string(&self.notes).unwrap_or_default();
        // The last one may be on its way.
        let whole = text.rfind('\n').map_or("", |end| &text[..end]);
        whole.lines().filter_map(Note::parse).collect()
    }
}

/// What came of one try.
#[derive(Debug)]
struct Note {
    port: u16,
    /// The way in: `plain`, or the call over TLS.
    way: String,
    /// The code of the answer, or `none`.
    answer: String,
}

impl Note {
    fn parse(line: &str) -> Option<Self> {
        let mut words = line.split(' ');
        let port = words.next()?.parse().ok()?;
        let (way, answer) = (words.next()?.to_owned(), words.next()?.to_owned());
        Some(Self { port, way, answer })
    }

    fn is_entry(&self) -> bool {
        self.answer.starts_with('2')
    }

    fn is_refusal(&self) -> bool {
        self.way != "plain" && self.answer.starts_with('4')
    }
}

/// Whom it talks to it does not care.
#[derive(Debug)]
struct Anybody;

impl ServerCertVerifier for Anybody {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn verify_tls13_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        let provider = default_provider();
        provider
            .signature_verification_algorithms
            .supported_schemes()
    }
}

fn tls() -> TlsConnector {
    let config = ClientConfig::builder()
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(Anybody))
        .with_no_client_auth();
    TlsConnector::from(Arc::new(config))
}

/// The part of the stranger: it tries until it is ended.
pub async fn tries() {
    let said = |name: &str| std::env::var(name).expect("what it is told");
    let (addresses, notes) = (said(AT), said(NOTES));
    let notes = File::options().create(true).append(true).open(notes);
    let notes = Arc::new(notes.expect("a file"));
    let mut ports = tokio::task::JoinSet::new();
    for address in addresses.split(' ') {
        let address = address.parse().expect("an address");
        ports.spawn(tries_port(address, notes.clone()));
    }
    ports.join_all().await;
}

async fn tries_port(address: SocketAddr, notes: Arc<File>) {
    loop {
        let answers = tries_once(address).await;
        for (way, answer) in &answers {
            let line = format!("{} {way} {answer}\n", address.port());
            notes.as_ref().write_all(line.as_bytes()).expect("a note");
        }
        sleep(match answers.is_empty() {
            true => CLOSED_PAUSE,
            false => REFUSED_PAUSE,
        })
        .await;
    }
}

/// Each way in with the answer to it; none where nobody listens.
async fn tries_once(address: SocketAddr) -> Vec<(&'static str, String)> {
    let Ok(connection) = TcpStream::connect(address).await else {
        return Vec::new();
    };
    let plain = async {
        let asked = asks(connection, CALLS[0]);
        ("plain", told(timeout(PATIENCE, asked).await))
    };
    let (plain, put, user) = tokio::join!(
        plain,
        encrypted(address, CALLS[0]),
        encrypted(address, CALLS[1])
    );
    vec![plain, put, user]
}

async fn encrypted(
    address: SocketAddr,
    call: (&'static str, &'static str),
) -> (&'static str, String) {
    let asked = async {
        let connection = TcpStream::connect(address).await?;
        let name = ServerName::from(address.ip());
        asks(tls().connect(name, connection).await?, call).await
    };
    (call.0, told(timeout(PATIENCE, asked).await))
}

/// The code of an answer to a call over HTTP/1.1.
async fn asks(
    mut connection: impl AsyncRead + AsyncWrite + Unpin,
    (path, body): (&str, &str),
) -> io::Result<String> {
    let request = format!(
        "POST /v3/{path} HTTP/1.1\r\nHost: stranger\r\nConnection: close\r\n\
         Content-Type: application/json\r\nContent-Length: {}\r\n\r\n{body}",
        body.len()
    );
    connection.write_all(request.as_bytes()).await?;
    let mut answer = Vec::new();
    let mut some = [0; 1024];
    while !answer.contains(&b'\n') {
        match connection.read(&mut some).await? {
            0 => break,
            read => answer.extend_from_slice(&some[..read]),
        }
    }
    let answer = String::from_utf8_lossy(&answer);
    let code = answer
        .strip_prefix("HTTP/1.")
        .and_then(|rest| rest.split(' ').nth(1));
    Ok(code.unwrap_or("none").to_owned())
}

fn told(answer: Result<io::Result<String>, tokio::time::error::Elapsed>) -> String {
    let answer = answer.ok().and_then(Result::ok);
    answer.unwrap_or_else(|| "none".to_owned())
}

#[tokio::test]
async fn a_stranger_sees_a_port_that_answers_anybody() {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let address = listener.local_addr().expect("an address");
    let serve = async {
        loop {
            let (mut connection, _) = listener.accept().await.expect("a connection");
            let mut asked = [0; 512];
            let read = connection.read(&mut asked).await.expect("a request");
            if asked[..read].starts_with(b"POST") {
                let answer = b"HTTP/1.1 200 OK\r\n\r\n{}";
                connection.write_all(answer).await.expect("an answer");
            }
        }
    };
    let tried = tries_once(address);
    let answers = tokio::select! {
        answers = tried => answers,
        () = serve => unreachable!("it serves until it is asked no more"),
    };
    let told = |way: &str| {
        let found = answers.iter().find(|(of, _)| *of == way).expect("a try");
        let line = format!("{} {way} {}", address.port(), found.1);
        Note::parse(&line).expect("a note")
    };
    assert!(told("plain").is_entry(), "{answers:?}");
    for (way, _) in CALLS {
        assert!(!told(way).is_entry(), "{answers:?}");
        assert!(!told(way).is_refusal(), "nobody said no: {answers:?}");
    }
    drop(listener);
    assert!(tries_once(address).await.is_empty());
}
