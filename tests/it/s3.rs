//! A server of S3 of the tests' own: versitygw, that `scripts/setup.sh --s3` builds. Each test that needs one
//! has one, in its own folder and at its own port.
//!
//! Another server is used where `COMPOSE_BROKER_TEST_S3` names one and a bucket in it, as in
//! `http://127.0.0.1:9000/bucket`, with its keys in `AWS_ACCESS_KEY_ID` and `AWS_SECRET_ACCESS_KEY`: each test
//! has a prefix in it then, and what only the own server can be made to do is skipped.

use std::{
    env, fs,
    net::TcpStream,
    os::unix::process::CommandExt as _,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    thread,
    time::{Duration, Instant},
};

use compose_broker::backups::{
    s3::{CredentialSource, S3Settings, S3Store},
    store::StorePlace as _,
};
use compose_broker::model::{marker::Marker, secret::Secret};
use object_store::{
    aws::{AwsAuthorizer, AwsCredential},
    client::{HttpRequest, HttpRequestBody},
};
use reqwest::{Method, Response};

use crate::{process::free_port, skipped::skipped};

const TEST_S3: &str = "COMPOSE_BROKER_TEST_S3";
/// A server that has not begun by then does not.
const PATIENCE: Duration = Duration::from_secs(60);
const KEY_ID: &str = "of-the-tests";
pub const SECRET_KEY: &str = "hidden-of-the-tests";

/// Ends the server when nobody holds the other end of its input any more.
const SCRIPT: &str = r#"
"$@" >"$LOG" 2>&1 &
read -r _
kill -KILL $!
wait $!
"#;

/// What a server is to be like.
#[derive(Default)]
pub struct Wanted {
    /// Where it keeps its objects, instead of a folder of its own.
    pub data: Option<PathBuf>,
    /// Certificate and key.
    pub tls: Option<(PathBuf, PathBuf)>,
}

/// A server, or a bucket of one that was there before.
pub struct Server {
    endpoint: String,
    bucket: String,
    prefix: String,
    credential: AwsCredential,
    /// Where its objects are; none of one that was there before.
    data: Option<PathBuf>,
    own: Option<Own>,
}

/// A process of the tests' own.
struct Own {
    port: u16,
    tls: Option<(PathBuf, PathBuf)>,
    folder: tempfile::TempDir,
    child: Option<Child>,
}

fn program() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tools/versitygw/versitygw")
}

impl Own {
    /// Starts it; false where somebody else has its port.
    fn begin(&mut self, data: &Path) -> bool {
        let versions = self.folder.path().join("versions");
        fs::create_dir_all(&versions).expect("a folder");
        let log = self.folder.path().join("log");
        let mut script = Command::new("sh");
        script.args(["-c", SCRIPT, "sh"]).arg(program());
        let address = format!("127.0.0.1:{}", self.port);
        script.args(["--quiet", "--port", &address]);
        script.args(["--access", KEY_ID, "--secret", SECRET_KEY]);
        if let Some((certificate, key)) = &self.tls {
            script.arg("--cert").arg(certificate).arg("--key").arg(key);
        }
        script.arg("posix").arg("--versioning-dir").arg(&versions);
        // An interrupt at the terminal is for the tests: the server ends after them.
        script.arg(data).env("LOG", &log).process_group(0);
        script.stdin(Stdio::piped()).stdout(Stdio::null());
        let child = script.stderr(Stdio::null()).spawn().expect("a shell");
        self.child = Some(child);
        let deadline = Instant::now() + PATIENCE;
        loop {
            let said = fs::read_to_string(&log).unwrap_or_default();
            if said.contains("address already in use") {
                self.stop();
                return false;
            }
            if TcpStream::connect(("127.0.0.1", self.port)).is_ok() {
                return true;
            }
            assert!(Instant::now() < deadline, "no server of S3: {said}");
            thread::sleep(Duration::from_millis(10));
        }
    }

    fn stop(&mut self) {
        if let Some(mut child) = self.child.take() {
            drop(child.stdin.take());
            let _ = child.wait();
        }
    }
}

impl Drop for Own {
    fn drop(&mut self) {
        self.stop();
    }
}

impl Server {
    /// A server; none where it was not built, and a line that says so.
    pub fn start() -> Option<Self> {
        match env::var(TEST_S3) {
            Ok(address) => Some(Self::there_before(&address)),
            Err(_) => Self::own(Wanted::default()),
        }
    }

    fn there_before(address: &str) -> Self {
        let (endpoint, bucket) = address.rsplit_once('/').expect("a server and a bucket");
        let variable = |name| env::var(name).unwrap_or_else(|_| panic!("{name} is not set"));
        Self {
            endpoint: endpoint.to_owned(),
            bucket: bucket.to_owned(),
            prefix: format!("t{}", uuid::Uuid::new_v4().simple()),
            credential: AwsCredential {
                key_id: variable("AWS_ACCESS_KEY_ID"),
                secret_key: variable("AWS_SECRET_ACCESS_KEY"),
                token: None,
            },
            data: None,
            own: None,
        }
    }

    /// A server of the test's own; none where it was not built, and a line that says so.
    pub fn own(wanted: Wanted) -> Option<Self> {
        if !program().exists() {
            skipped("S3", "tools/versitygw is not there (scripts/setup.sh --s3)");
            return None;
        }
        let folder = tempfile::tempdir().expect("a folder");
        let data = wanted.data.unwrap_or_else(|| folder.path().join("data"));
        fs::create_dir_all(&data).expect("a folder");
        let scheme = if wanted.tls.is_some() {
            "https"
        } else {
            "http"
        };
        let mut server = Self {
            endpoint: String::new(),
            bucket: "backups".to_owned(),
            prefix: "of/a-broker".to_owned(),
            credential: AwsCredential {
                key_id: KEY_ID.to_owned(),
                secret_key: SECRET_KEY.to_owned(),
                token: None,
            },
            data: Some(data.clone()),
            own: Some(Own {
                port: 0,
                tls: wanted.tls,
                folder,
                child: None,
            }),
        };
        fs::create_dir_all(data.join(&server.bucket)).expect("a bucket");
        let own = server.own.as_mut().expect("its own");
        own.port = free_port();
        while !own.begin(&data) {
            own.port = free_port();
        }
        server.endpoint = format!("{scheme}://127.0.0.1:{}", own.port);
        Some(server)
    }

    /// Ends the server, with all that it keeps still there.
    pub fn stop(&mut self) {
        self.own.as_mut().expect("the test's own").stop();
    }

    /// Starts it again, where it was.
    pub fn start_again(&mut self) {
        let data = self.data.clone().expect("the test's own");
        let own = self.own.as_mut().expect("the test's own");
        assert!(own.begin(&data), "its port was taken meanwhile");
    }

    /// Where it is.
    pub fn endpoint(&self) -> &str {
        &self.endpoint
    }

    /// The id of its access key.
    pub fn key_id(&self) -> &str {
        &self.credential.key_id
    }

    /// The folder of its bucket; none of a server that was there before.
    pub fn bucket_folder(&self) -> Option<PathBuf> {
        Some(self.data.as_ref()?.join(&self.bucket))
    }

    /// The address of a store in it, without its scheme.
    pub fn address(&self) -> String {
        format!("{}/{}", self.bucket, self.prefix)
    }

    /// The path of a key of the store.
    pub fn path(&self, key: &str) -> String {
        format!("/{}/{}/{key}", self.bucket, self.prefix)
    }

    /// The settings of a store in it.
    pub fn settings(&self) -> S3Settings {
        S3Settings {
            endpoint: Some(self.endpoint.parse().expect("a URL")),
            patience_seconds: 20,
            credentials: CredentialSource::Keys {
                id: self.credential.key_id.clone(),
                secret: Secret::new(&*self.credential.secret_key),
                token: None,
            },
            ..S3Settings::default()
        }
    }

    /// A store in it that has a marker, with settings that were changed.
    pub async fn store(&self, change: impl FnOnce(&mut S3Settings)) -> S3Store {
        let mut settings = self.settings();
        change(&mut settings);
        let store = S3Store::at(&self.address(), settings).expect("a store");
        let marker = marker();
        store.mark(&marker).await.expect("marked");
        store.marked(Some(marker.id))
    }

    /// Writes the credentials into a file as the AWS command line keeps them.
    pub fn write_credentials(&self, file: &Path) {
        let AwsCredential {
            key_id, secret_key, ..
        } = &self.credential;
        let text = format!(
            "[default]\naws_access_key_id = {key_id}\naws_secret_access_key = {secret_key}\n"
        );
        fs::write(file, text).expect("written");
    }

    /// Sends a request of the test's own, signed.
    pub async fn send(&self, method: Method, target: &str, body: &'static str) -> Response {
        self.send_with(method, target, &[], body).await
    }

    /// Makes another bucket, which locks objects; false where the server can do no such thing.
    pub async fn make_locking_bucket(&self, bucket: &str) -> bool {
        let header = [("x-amz-bucket-object-lock-enabled", "true")];
        let path = format!("/{bucket}");
        let made = self.send_with(Method::PUT, &path, &header, "").await;
        made.status().is_success()
    }

    /// The same with further headers.
    pub async fn send_with(
        &self,
        method: Method,
        target: &str,
        headers: &[(&'static str, &'static str)],
        body: &'static str,
    ) -> Response {
        let url = format!("{}{target}", self.endpoint);
        let mut signed = HttpRequest::new(HttpRequestBody::from(body.to_owned()));
        *signed.method_mut() = method.as_str().parse().expect("a method");
        *signed.uri_mut() = url.parse().expect("a URI");
        for (name, value) in headers {
            let value = value.parse().expect("a value");
            signed.headers_mut().insert(*name, value);
        }
        AwsAuthorizer::new(&self.credential, "s3", "us-east-1")
            .try_authorize(&mut signed, None)
            .expect("signed");
        let mut request = reqwest::Client::new().request(method, url).body(body);
        for (name, value) in signed.headers() {
            request = request.header(name.as_str(), value.as_bytes());
        }
        request.send().await.expect("an answer")
    }

    /// Begins an upload that nobody ends, as one would that long ago; false where a server keeps no such.
    pub async fn leave_upload(&self, key: &str, age: Duration) -> bool {
        let Some(bucket) = self.bucket_folder() else {
            return false;
        };
        let target = format!("{}?uploads=", self.path(key));
        let answer = self.send(Method::POST, &target, "").await;
        let text = answer.text().await.expect("a text");
        let id = text.split("<UploadId>").nth(1).expect("an id");
        let id = id.split('<').next().expect("an id");
        let uploads = fs::read_dir(bucket.join(".sgwtmp/multipart")).expect("uploads");
        let mut uploads = uploads.map(|of_key| of_key.expect("a folder").path().join(id));
        let upload = uploads.find(|upload| upload.exists()).expect("the upload");
        let folder = fs::File::open(upload).expect("a folder");
        let begun = folder.metadata().and_then(|seen| seen.modified());
        let then = begun.expect("a time").checked_sub(age).expect("a time");
        folder.set_modified(then).expect("set back");
        true
    }
}

/// The marker of a store of a test.
pub fn marker() -> Marker {
    Marker {
        folder: "backups".to_owned(),
        id: "5ae85b45e5717f0001533192".parse().expect("an id"),
        path: None,
    }
}
