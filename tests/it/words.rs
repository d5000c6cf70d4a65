//! What the broker says, to whom, and what it makes of what is written a little differently.

use std::{
    fs,
    io::Read as _,
    process::{Command, Stdio},
};

use compose_broker::model::limits::{OBSERVATION_FRESH, PLATFORM_NAME_BYTES_MAX};
use reqwest::{Method, StatusCode, header};
use rustix::process::{Pid, Signal, kill_process};
use serde_json::{Value, json};

use crate::{
    alerts::told,
    broker::{
        Answer, SERVICE, STANDARD, TestBroker, answer, eventually, instance_path, kill, new_folder,
        text,
    },
    catalog::catalog_file,
    control::surroundings,
    etcd, inside,
    process::{BrokerProcess, Settings, assert_one_line, command, refused},
    skipped::skipped,
    transport::description,
};

const BOM: &str = "\u{feff}";

/// A request for an instance with these fields beside those that all need.
fn provision(more: &Value) -> Value {
    let mut body = json!({
        "service_id": SERVICE, "plan_id": STANDARD,
        "organization_guid": "org", "space_guid": "space",
    });
    for (field, value) in more.as_object().expect("an object") {
        body[field] = value.clone();
    }
    body
}

async fn put(broker: &TestBroker, id: &str, more: &Value) -> Answer {
    let path = format!("{}?accepts_incomplete=true", instance_path(id));
    answer(broker.osb(Method::PUT, &path).json(&provision(more))).await
}

/// A command whose standard output cannot be written to.
fn into_the_full_device(arguments: &[&str]) -> std::process::Output {
    let full = fs::File::options().write(true).open("/dev/full");
    let mut command = command(arguments, &Settings::new());
    let ran = command.stdout(full.expect("a device")).output();
    ran.expect("an end")
}

#[test]
fn a_result_that_nobody_reads_is_no_trouble_and_one_that_is_lost_is_told() {
    let folder = tempfile::tempdir().expect("a folder");
    let catalog = folder.path().join("catalog.json");
    fs::write(&catalog, catalog_file().to_string()).expect("a file");
    let catalog = catalog.display().to_string();
    for arguments in [
        &["completion", "bash"][..],
        &["completion", "zsh"],
        &["completion", "fish"],
        &["catalog", "check", &catalog],
    ] {
        let mut command = command(arguments, &Settings::new());
        let mut child = command
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .expect("a process");
        drop(child.stdout.take());
        let mut said = String::new();
        let mut errors = child.stderr.take().expect("an error output");
        errors.read_to_string(&mut said).expect("a text");
        let ended = child.wait().expect("an end");
        assert_eq!(
            (ended.code(), said.as_str()),
            (Some(0), ""),
            "{arguments:?}"
        );

        let lost = into_the_full_device(arguments);
        let said = String::from_utf8(lost.stderr).expect("a text");
        assert_eq!(lost.status.code(), Some(1), "{arguments:?}: {said}");
        assert_eq!(said.lines().count(), 1, "{said}");
        assert!(
            said.starts_with("compose-broker: standard output: "),
            "{said}"
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_empty_path_is_told_in_one_line_that_names_the_setting() {
    let catalog = concat!(env!("CARGO_MANIFEST_DIR"), "/catalog.json");
    for name in [
        "DATA_DIR",
        "CATALOG",
        "ENGINES_DIR",
        "CLUSTERS",
        "TLS_CERTIFICATE",
        "TLS_KEY",
        "CLOCK_OFFSET_FILE",
    ] {
        let mut settings = Settings::from([("CATALOG", catalog.to_owned())]);
        settings.insert(name, String::new());
        let told = refused(&settings).await;
        assert_one_line(&told, &format!("COMPOSE_BROKER_{name}: is empty"));
        assert_eq!(told.status.code(), Some(1));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_broker_serves_whether_or_not_somebody_reads_its_greeting() {
    for greeting in [
        ">/dev/full 2>/dev/null",
        ">&- 2>&-",
        ">/dev/full 2>/dev/full",
    ] {
        let broker = BrokerProcess::stopped_with(|_| ());
        let mut shell = Command::new("sh");
        shell
            .args(["-c", &format!("exec \"$0\" serve {greeting}")])
            .arg(env!("CARGO_BIN_EXE_compose-broker"))
            .env_clear()
            .stdin(Stdio::null());
        for (name, value) in broker.settings() {
            shell.env(format!("COMPOSE_BROKER_{name}"), value);
        }
        let mut child = shell.spawn().expect("a process");
        broker.serving().await;
        let served = answer(broker.osb(Method::GET, "/v2/catalog")).await;
        assert_eq!(served.status, StatusCode::OK, "{greeting}");
        let pid = i32::try_from(child.id()).ok().and_then(Pid::from_raw);
        kill_process(pid.expect("a pid"), Signal::TERM).expect("a signal");
        let ended = child.wait().expect("an end");
        assert_eq!(ended.code(), Some(0), "{greeting}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_instance_is_called_what_the_platform_calls_it_now() {
    let broker = TestBroker::start().await;
    let named = |name: &str| json!({ "platform": "cloudfoundry", "instance_name": name });
    let accepted = put(&broker, "i", &json!({ "context": named("old") })).await;
    broker.instance_end("i", &accepted.body).await;
    let credentials = broker.bind("i", "b").await;
    let deployment = format!("/deployments/{}", text(&credentials["deployment_id"]));
    let update = async |context: Value| {
        let path = format!("{}?accepts_incomplete=true", instance_path("i"));
        let body = json!({ "service_id": SERVICE, "context": context });
        answer(broker.osb(Method::PATCH, &path).json(&body)).await
    };
    let name = async || {
        let shown = answer(broker.compose(Method::GET, &credentials, &deployment)).await;
        shown.body["instance_name"].clone()
    };
    assert_eq!(name().await, "old");
    assert_eq!(update(named("new")).await.status, StatusCode::OK);
    assert_eq!(name().await, "new");
    // A context that names nothing takes no name away.
    assert_eq!(
        update(json!({ "platform": "cloudfoundry" })).await.status,
        StatusCode::OK
    );
    assert_eq!(name().await, "new");
    for wrong in ["a\0b".to_owned(), "x".repeat(PLATFORM_NAME_BYTES_MAX + 1)] {
        description(&update(named(&wrong)).await, StatusCode::BAD_REQUEST);
    }
    assert_eq!(name().await, "new");
}

/// The process of a member; none while it is down.
fn member(broker: &TestBroker, name: &str) -> Option<i32> {
    let is_it = |pid: &&i32| {
        let line = procfs::process::Process::new(**pid).and_then(|process| process.cmdline());
        line.is_ok_and(|line| line.contains(&format!("--name={name}")))
    };
    broker.members().iter().find(is_it).copied()
}

fn signal(pid: i32, signal: Signal) {
    kill_process(Pid::from_raw(pid).expect("a pid"), signal).expect("a signal");
}

#[tokio::test(flavor = "multi_thread")]
async fn alerts_tell_what_is_and_not_what_was() {
    let broker = TestBroker::start().await;
    broker
        .provision("i", json!({ "db_version": "3.7.3" }))
        .await;
    let credentials = broker.bind("i", "b").await;
    let path = format!(
        "/deployments/{}/alerts",
        text(&credentials["deployment_id"])
    );
    told(&broker, &credentials, "ok").await;
    // It hangs right after a look that saw it well.
    let hanging = member(&broker, "m1").expect("a member");
    signal(hanging, Signal::STOP);
    tokio::time::sleep(OBSERVATION_FRESH).await;
    let asked = answer(broker.compose(Method::GET, &credentials, &path)).await;
    signal(hanging, Signal::CONT);
    assert_eq!(asked.body["summary"], "warning", "{asked:?}");
    let alerts = asked.body["_embedded"]["alerts"].as_array();
    let messages: Vec<&str> = alerts
        .expect("alerts")
        .iter()
        .map(|alert| text(&alert["message"]))
        .collect();
    let hangs = "Member m1 does not answer: nothing came within 3 s.";
    assert!(messages.contains(&hangs), "{messages:?}");
    told(&broker, &credentials, "ok").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn users_are_told_of_a_member_in_one_sentence_and_the_log_has_the_rest() {
    let broker = BrokerProcess::start().await;
    broker
        .provision("i", json!({ "db_version": "3.7.3" }))
        .await;
    let credentials = broker.bind("i", "b").await;
    let path = format!(
        "/deployments/{}/alerts",
        text(&credentials["deployment_id"])
    );
    told(&broker, &credentials, "ok").await;
    let silent = eventually("a member that is down", || async {
        // Started again and again, with pauses that grow.
        member(&broker, "m1").into_iter().for_each(kill);
        let asked = answer(broker.compose(Method::GET, &credentials, &path)).await;
        let alerts = asked.body["_embedded"]["alerts"].as_array()?.clone();
        let message = alerts
            .iter()
            .map(|alert| text(&alert["message"]).to_owned());
        message
            .into_iter()
            .find(|m| m.starts_with("Member m1 does"))
    });
    assert_eq!(
        silent.await,
        "Member m1 does not answer: nobody accepts a connection there."
    );
    let log = broker.logged();
    // The others may be silent, too, while they choose a leader.
    let lines: Vec<&str> = log
        .lines()
        .filter(|line| line.contains("member m1 does not answer: ") && line.contains("member=m1"))
        .collect();
    // What is said of a connection that is not made, or of one that the member's end broke off.
    let reasons = ["os error", "connection reset", "unexpected end of file"];
    let has_reason = |line: &&str| reasons.iter().any(|reason| line.contains(reason));
    assert!(lines.iter().any(has_reason), "{lines:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_address_with_a_slash_at_its_end_leads_to_the_broker() {
    let broker = TestBroker::start().await;
    for path in ["//v2/catalog", "///v2/catalog", "//healthz"] {
        let told = answer(broker.osb(Method::GET, path)).await;
        assert_eq!(told.status, StatusCode::OK, "{path}: {told:?}");
    }
    let accepted = answer(
        broker
            .osb(
                Method::PUT,
                &format!("/{}?accepts_incomplete=true", instance_path("a/b")),
            )
            .json(&provision(&json!({}))),
    )
    .await;
    assert_eq!(accepted.status, StatusCode::ACCEPTED, "{accepted:?}");
    // The credentials are asked for there, too, and a part that is missing further on is missing.
    let nobody = answer(broker.anonymous(Method::GET, "//v2/catalog")).await;
    assert_eq!(nobody.status, StatusCode::UNAUTHORIZED);
    let missing = answer(broker.osb(Method::GET, "/v2//catalog")).await;
    assert_eq!(missing.status, StatusCode::NOT_FOUND);
    let missing = answer(broker.osb(Method::GET, "/v2/service_instances//last_operation")).await;
    assert_eq!(missing.status, StatusCode::NOT_FOUND);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_byte_order_mark_is_no_part_of_what_is_written() {
    let folder = new_folder();
    let marked = |name: &str, content: &str| {
        let path = folder.join(name);
        fs::create_dir_all(path.parent().expect("a folder")).expect("a folder");
        fs::write(&path, format!("{BOM}{content}")).expect("a file");
        path.display().to_string()
    };
    let catalog = marked("catalog.json", &catalog_file().to_string());
    let clusters = marked(
        "clusters.json",
        r#"[{ "id": "local", "name": "Here", "capacity_units": 8 }]"#,
    );
    marked("data/username", "ada\r\n");
    marked("data/password", "word\r\n");
    let checked = command(&["catalog", "check", &catalog], &Settings::new()).output();
    assert!(checked.expect("an end").status.success());
    let flags = ["--catalog", &catalog, "--clusters", &clusters];
    let broker = TestBroker::start_in(folder.clone(), &flags, surroundings()).await;
    assert_eq!(broker.platform(), ("ada", "word"));
    let path = format!("{}?accepts_incomplete=true", instance_path("i"));
    let body = format!("{BOM}{}", provision(&json!({})));
    let accepted = answer(broker.osb(Method::PUT, &path).body(body)).await;
    assert_eq!(accepted.status, StatusCode::ACCEPTED, "{accepted:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_compressed_body_is_refused_for_what_it_is() {
    let broker = TestBroker::start().await;
    let path = format!("{}?accepts_incomplete=true", instance_path("i"));
    let put = || broker.osb(Method::PUT, &path);
    let body = provision(&json!({})).to_string();
    let gzipped: &[u8] = &[0x1f, 0x8b, 8, 0, 0, 0, 0, 0, 0, 0xff];
    for request in [
        put().header(header::CONTENT_ENCODING, "gzip").body(gzipped),
        put()
            .header(header::CONTENT_ENCODING, "br")
            .body(body.clone()),
        put()
            .header(header::CONTENT_ENCODING, "identity, deflate")
            .body(body.clone()),
        put().body(gzipped),
    ] {
        let told = answer(request).await;
        let reason = description(&told, StatusCode::UNSUPPORTED_MEDIA_TYPE);
        assert!(reason.contains("compressed"), "{reason}");
        assert_eq!(told.headers[header::ACCEPT_ENCODING], "identity");
    }
    let plain = put()
        .header(header::CONTENT_ENCODING, "identity")
        .body(body);
    assert_eq!(answer(plain).await.status, StatusCode::ACCEPTED);
}

#[tokio::test(flavor = "multi_thread")]
async fn names_that_no_store_keeps_are_refused() {
    let broker = TestBroker::start().await;
    let long = "x".repeat(3000);
    for text in ["a\0b", &long] {
        for field in ["organization_guid", "space_guid"] {
            let told = put(&broker, "i", &json!({ field: text })).await;
            let reason = description(&told, StatusCode::BAD_REQUEST);
            assert!(reason.contains(field), "{reason}");
        }
        for field in ["platform", "instance_name", "clusterid", "namespace"] {
            let mut context = json!({ "platform": "kubernetes" });
            context[field] = json!(text);
            let told = put(&broker, "i", &json!({ "context": context })).await;
            let reason = description(&told, StatusCode::BAD_REQUEST);
            assert!(reason.contains(field), "{reason}");
        }
    }
    broker.provision("i", json!({})).await;
    let credentials = broker.bind("i", "b").await;
    let deployment = format!("/deployments/{}", text(&credentials["deployment_id"]));
    let notes = json!({ "deployment": { "notes": "a\0b" } });
    let noted = broker.compose(Method::PATCH, &credentials, &deployment);
    let noted = answer(noted.json(&notes)).await;
    assert_eq!(noted.status, StatusCode::BAD_REQUEST, "{noted:?}");
}

async fn bytes_of(request: reqwest::RequestBuilder) -> (StatusCode, header::HeaderMap, Vec<u8>) {
    let response = request.send().await.expect("an answer");
    let (status, headers) = (response.status(), response.headers().clone());
    let bytes = response.bytes().await.expect("a body");
    (status, headers, bytes.to_vec())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_download_that_broke_off_is_gone_on_with() {
    let broker = TestBroker::start().await;
    broker.provision("i", json!({})).await;
    let credentials = broker.bind("i", "b").await;
    etcd::fill(
        &mut etcd::connect(&credentials).await,
        200,
        &"value ".repeat(200),
    )
    .await;
    let backup = broker.back_up(&credentials).await;
    let link = text(&backup["download_link"]);
    let http = reqwest::Client::new();
    let (status, headers, all) = bytes_of(http.get(link)).await;
    assert_eq!(status, StatusCode::OK);
    assert_eq!(headers[header::ACCEPT_RANGES], "bytes");
    let tag = headers[header::ETAG].clone();
    for _ in 0..5 {
        let (_, headers, again) = bytes_of(http.get(link)).await;
        assert!(again == all && headers[header::ETAG] == tag);
    }
    let (length, half) = (all.len(), all.len() / 2);
    let last = length - 1;
    for (range, first, end) in [
        (format!("bytes={half}-"), half, last),
        ("bytes=0-99".to_owned(), 0, 99),
        (format!("bytes={half}-{}", length * 2), half, last),
        ("bytes=-10".to_owned(), length - 10, last),
    ] {
        let asked = http.get(link).header(header::RANGE, &range);
        let (status, headers, part) = bytes_of(asked).await;
        assert_eq!(status, StatusCode::PARTIAL_CONTENT, "{range}");
        assert_eq!(
            headers[header::CONTENT_RANGE],
            format!("bytes {first}-{end}/{length}").as_str()
        );
        assert_eq!(
            headers[header::CONTENT_LENGTH],
            (end - first + 1).to_string().as_str()
        );
        assert_eq!(headers[header::ETAG], tag);
        assert!(part == all[first..=end], "{range}");
    }
    // What need not be understood is all of it.
    for range in [
        "bytes=0-",
        "bytes=0-1,5-6",
        "lines=1-2",
        "bytes=x",
        "bytes=5-2",
    ] {
        let (status, _, whole) = bytes_of(http.get(link).header(header::RANGE, range)).await;
        let is_whole = status == StatusCode::OK && whole == all;
        let is_refused = status == StatusCode::RANGE_NOT_SATISFIABLE;
        assert!(is_whole || (range == "bytes=5-2" && is_refused), "{range}");
    }
    let behind = http
        .get(link)
        .header(header::RANGE, format!("bytes={length}-"));
    let (status, headers, _) = bytes_of(behind).await;
    assert_eq!(status, StatusCode::RANGE_NOT_SATISFIABLE);
    assert_eq!(
        headers[header::CONTENT_RANGE],
        format!("bytes */{length}").as_str()
    );
    for (known, expected) in [
        (tag.to_str().expect("a text"), StatusCode::PARTIAL_CONTENT),
        ("\"another\"", StatusCode::OK),
        ("Sat, 01 Jan 2000 00:00:00 GMT", StatusCode::OK),
    ] {
        let asked = http.get(link).header(header::RANGE, "bytes=10-19");
        let (status, ..) = bytes_of(asked.header(header::IF_RANGE, known)).await;
        assert_eq!(status, expected, "{known}");
    }
    // As people do it.
    let folder = tempfile::tempdir().expect("a folder");
    let file = folder.path().join("backup.tar.gz");
    fs::write(&file, &all[..half]).expect("a file");
    let curl = Command::new("curl")
        .args(["--silent", "--show-error", "--fail", "--continue-at", "-"])
        .arg("--output")
        .arg(&file)
        .arg(link)
        .output();
    let curl = curl.expect("curl");
    assert!(curl.status.success(), "{curl:?}");
    assert!(fs::read(&file).expect("a file") == all);
}

/// A file that cannot be removed; it can again when this goes.
struct Held(std::path::PathBuf);

impl Held {
    /// None, and a line that says so, where mounting is not allowed.
    fn hold(file: std::path::PathBuf) -> Option<Self> {
        let mounted = Command::new("mount")
            .arg("--bind")
            .args([&file, &file])
            .output();
        match mounted {
            Ok(output) if output.status.success() => Some(Self(file)),
            other => {
                let why = format!("nothing can be mounted here: {other:?}");
                skipped("a file that cannot be removed", &why);
                None
            }
        }
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("--lazy").arg(&self.0).status();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn of_a_deletion_that_breaks_off_nothing_is_left_that_opens() {
    let broker = TestBroker::start().await;
    broker.provision("i", json!({})).await;
    let credentials = broker.bind("i", "b").await;
    let backup = broker.back_up(&credentials).await;
    let folder = broker
        .data_dir()
        .join("backups")
        .join(text(&credentials["deployment_id"]))
        .join(text(&backup["id"]));
    let Some(held) = Held::hold(folder.join("snapshot.db.zst.sealed")) else {
        return;
    };
    let accepted = broker.delete_instance("i").await;
    let end = broker.instance_end("i", &accepted.body).await;
    assert_eq!(end["state"], "failed", "{end}");
    // The key to what is left was in it.
    assert!(!folder.join("manifest.json").exists());
    assert!(folder.join("snapshot.db.zst.sealed").exists());
    drop(held);
    broker.deprovision("i").await;
    assert_eq!(inside::files_of_deployments(&broker), Vec::<String>::new());
}
