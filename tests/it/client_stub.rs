//! The client as a platform that knows its duties, with brokers that do not.

use std::{
    fs,
    fs::File,
    path::Path,
    sync::atomic::{AtomicUsize, Ordering},
    time::Duration,
};

use base64::{Engine as _, engine::general_purpose::STANDARD as BASE64};
use rustix::process::{Pid, Signal, kill_process};
use serde_json::{Value, json};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpListener,
};

use crate::{
    broker::eventually,
    stub::{Heard, Reply, Stub, catalog},
    user::{Ran, User},
};

/// A text that would do harm on a terminal.
const EVIL: &str = "\u{1b}]0;owned\u{7}\u{9b}31m\u{202e}evil\r\u{7f}";

fn user_of(stub: &Stub) -> User {
    User::of(&stub.url, "ada", "word")
}

/// How an operation ends that is polled for.
fn ended(state: &str, description: &str) -> Reply {
    Reply::Json(200, json!({ "state": state, "description": description }))
}

fn is_poll(request: &Heard) -> bool {
    request.target.contains("/last_operation")
}

/// Makes an instance that is called `orders`.
pub const CREATE: [&str; 4] = ["create-service", "db", "small", "orders"];
const CREATE_KEY: [&str; 3] = ["create-service-key", "orders", "app"];

#[tokio::test(flavor = "multi_thread")]
async fn requests_are_those_of_a_platform() {
    let stub = Stub::start(|request| match request.method.as_str() {
        _ if is_poll(request) => ended("succeeded", "made"),
        "GET" => Reply::Json(404, json!({})),
        _ => Reply::Json(202, json!({ "operation": "task 1/ä" })),
    })
    .await;
    let user = user_of(&stub);
    user.does(&[&CREATE[..], &["-c", r#"{"a": 1}"#, "--wait"]].concat())
        .await;
    let update = ["update-service", "orders", "-p", "large", "--wait"];
    user.does(&update).await;
    user.does(&[&CREATE_KEY[..], &["--wait"]].concat()).await;
    user.does(&["delete-service", "orders", "-f", "-w"]).await;

    let heard = stub.heard();
    let mut identities = Vec::new();
    for request in &heard {
        assert_eq!(request.header("x-broker-api-version"), Some("2.17"));
        assert_eq!(request.header("authorization"), Some("Basic YWRhOndvcmQ="));
        let identity = request.header("x-broker-api-originating-identity");
        let identity = identity.and_then(|text| text.strip_prefix("cloudfoundry "));
        let identity = BASE64
            .decode(identity.expect("an identity"))
            .expect("base64");
        let identity: Value = serde_json::from_slice(&identity).expect("JSON");
        assert_eq!(identity, json!({ "user_id": "ada" }));
        identities.push(
            request
                .header("x-broker-api-request-identity")
                .expect("an identity"),
        );
        if request.method != "GET" {
            assert!(
                request.target.contains("accepts_incomplete=true"),
                "{request:?}"
            );
        }
        if is_poll(request) {
            let query = "?service_id=service-1&plan_id=plan-";
            assert!(request.target.contains(query), "{request:?}");
            let operation = "&operation=task+1%2F%C3%A4";
            assert!(request.target.ends_with(operation), "{request:?}");
        }
    }
    identities.sort_unstable();
    identities.dedup();
    assert_eq!(identities.len(), heard.len(), "each request has its own");

    let context = json!({
        "platform": "cloudfoundry", "instance_name": "orders",
        "organization_guid": "org", "organization_name": "org",
        "space_guid": "space", "space_name": "space",
    });
    let create = json!({
        "service_id": "service-1", "plan_id": "plan-1",
        "organization_guid": "org", "space_guid": "space",
        "context": context, "parameters": { "a": 1 },
        "maintenance_info": { "version": "2.0.0" },
    });
    assert_eq!(heard[0].body, create);
    let update = json!({
        "service_id": "service-1", "plan_id": "plan-2", "context": context,
        "previous_values": {
            "service_id": "service-1", "plan_id": "plan-1",
            "organization_id": "org", "space_id": "space",
        },
    });
    assert_eq!(heard[2].body, update);
    // The plan is the new one from then on, and the keys go before their instance.
    let key = json!({ "service_id": "service-1", "plan_id": "plan-2", "context": context });
    assert_eq!(heard[4].body, key);
    let deleted: Vec<bool> = heard
        .iter()
        .filter(|request| request.method == "DELETE")
        .map(|request| request.target.contains("/service_bindings/"))
        .collect();
    assert_eq!(deleted, [true, false]);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_may_have_been_made_is_deleted_as_the_specification_s_table_says() {
    let malformed = || {
        Reply::Raw(
            201,
            b"Content-Length: 2\r\nConnection: close\r\n\r\n[]".into(),
        )
    };
    type Case = (&'static str, fn() -> Reply, bool);
    let cases: [Case; 11] = [
        (
            "500",
            || Reply::Json(500, json!({ "description": "boom" })),
            true,
        ),
        ("503", || Reply::Json(503, json!({})), true),
        ("201 malformed", malformed, true),
        (
            "204",
            || Reply::Raw(204, b"Connection: close\r\n\r\n".into()),
            true,
        ),
        ("no answer", || Reply::Silence, true),
        ("a lost answer", || Reply::Drop, true),
        (
            "200 malformed",
            || Reply::Raw(200, b"Content-Length: 2\r\n\r\n[]".into()),
            false,
        ),
        (
            "400",
            || Reply::Json(400, json!({ "description": "no" })),
            false,
        ),
        ("408", || Reply::Json(408, json!({})), false),
        ("409", || Reply::Json(409, json!({})), false),
        (
            "422",
            || Reply::Json(422, json!({ "error": "ConcurrencyError" })),
            false,
        ),
    ];
    for (case, reply, orphan) in cases {
        for of_key in [false, true] {
            let stub = Stub::start(move |request| match request.method.as_str() {
                "PUT" if request.target.contains("/service_bindings/") == of_key => reply(),
                _ => Reply::Json(200, json!({})),
            })
            .await;
            let user = user_of(&stub);
            if of_key {
                user.does(&CREATE).await;
            }
            let asked = if of_key { &CREATE_KEY[..] } else { &CREATE };
            // Only who never answers has to be given up soon.
            let patience = if case == "no answer" { "4" } else { "60" };
            let ran = user.run(&[asked, &["--timeout", patience]].concat()).await;
            assert_eq!(ran.code, 1, "{case}: {ran:?}");
            let deletions: Vec<Heard> = stub
                .heard()
                .into_iter()
                .filter(|request| request.method == "DELETE")
                .collect();
            assert_eq!(deletions.len(), usize::from(orphan), "{case}: {ran:?}");
            for deletion in deletions {
                let put = stub.heard().into_iter().rfind(|r| r.method == "PUT");
                let path = |target: &str| target.split('?').next().map(str::to_owned);
                let put = put.expect("a PUT");
                assert_eq!(path(&deletion.target), path(&put.target), "{case}");
                // No user asked for that.
                assert_eq!(deletion.header("x-broker-api-originating-identity"), None);
                assert!(ran.err.contains("nothing is left"), "{case}: {ran:?}");
            }
            // Nothing is remembered of it.
            if of_key {
                assert_eq!(
                    user.asks(&["service-keys", "orders"]).await["keys"],
                    json!([])
                );
            } else {
                assert_eq!(user.services().await, Vec::<String>::new(), "{case}");
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_orphan_that_stays_is_not_forgotten_and_a_chosen_id_is_not_deleted() {
    let failing = || Stub::start(|_| Reply::Json(500, json!({ "description": "boom" })));
    let stub = failing().await;
    let user = user_of(&stub);
    user.run(&CREATE)
        .await
        .must_say(1, "may have been left behind");
    assert_eq!(
        stub.methods(),
        ["PUT", "DELETE", "DELETE", "DELETE", "DELETE"]
    );
    assert_eq!(user.services().await, ["orders"]);

    // It might be somebody's database.
    let stub = failing().await;
    let user = user_of(&stub);
    let chosen = [&CREATE[..], &["--id", "theirs"]].concat();
    user.run(&chosen).await.must_say(1, "nothing was deleted");
    assert_eq!(stub.methods(), ["PUT"]);
    assert_eq!(
        stub.heard()[0].target,
        "/v2/service_instances/theirs?accepts_incomplete=true"
    );
    assert_eq!(user.services().await, ["orders"]);

    // Nobody listens: nothing was made.
    let url = stub.url.clone();
    drop(stub);
    // What this machine knows is listed all the same.
    let listed = user.run(&["services"]).await;
    assert_eq!(listed.code, 1, "{listed:?}");
    assert!(listed.out.contains("orders"), "{listed:?}");
    assert!(listed.out.contains("Unknown"), "{listed:?}");
    // Why is said once, and not in each row.
    assert!(!listed.out.contains("cannot reach"), "{listed:?}");
    assert_eq!(listed.err.matches("cannot reach").count(), 1, "{listed:?}");
    let user = User::of(&url, "ada", "word");
    user.run(&CREATE).await.must_say(1, "cannot reach");
}

#[tokio::test(flavor = "multi_thread")]
async fn polls_go_on_through_whatever_tells_nothing() {
    let looks = std::sync::atomic::AtomicUsize::new(0);
    let stub = Stub::start(move |request| {
        if !is_poll(request) {
            return Reply::Json(202, json!({}));
        }
        match looks.fetch_add(1, std::sync::atomic::Ordering::Relaxed) {
            0 => Reply::Json(410, json!({})),
            1 => Reply::Json(500, json!({})),
            2 => Reply::Json(404, json!({})),
            3 => Reply::Drop,
            4 => Reply::Raw(200, b"Content-Length: 3\r\n\r\n???".into()),
            5 => Reply::Later(
                3,
                json!({ "state": "in progress", "description": "10% done" }),
            ),
            6 => ended("succeeded", "made"),
            _ => Reply::Json(410, json!({})),
        }
    })
    .await;
    let user = user_of(&stub);
    let mut create = user.command(&[&CREATE[..], &["--wait", "-o", "json"]].concat());
    // As the broker wants it, once it says so; at its own pace before.
    create.env_remove("COMPOSE_BROKER_POLL");
    let ran = Ran::of(create.output().await.expect("a process"));
    assert_eq!(
        ran.json()["last_operation"]["state"],
        "succeeded",
        "{ran:?}"
    );
    assert!(ran.err.contains("10% done"), "{ran:?}");
    let polls: Vec<Heard> = stub.heard().into_iter().filter(is_poll).collect();
    assert_eq!(polls.len(), 7);
    let pause = polls[6].at - polls[5].at;
    assert!(pause > Duration::from_millis(2900), "{pause:?}");
    assert!(
        !polls[0].target.contains("operation="),
        "there is no operation"
    );
    // A 410 is the end of a deletion.
    user.does(&["delete-service", "orders", "-f", "-w"]).await;
    assert_eq!(user.services().await, Vec::<String>::new());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_key_that_does_not_go_does_not_hold_up_its_instance() {
    for refuses_first in [false, true] {
        let asked = AtomicUsize::new(0);
        let stub = Stub::start(move |request| {
            let is_of_key = request.target.contains("/service_bindings/");
            match request.method.as_str() {
                // Its end comes after the instance's deletion was asked for, if it comes.
                _ if is_poll(request) && is_of_key && asked.load(Ordering::Relaxed) == 0 => {
                    ended("in progress", "no member answers")
                }
                _ if is_poll(request) => ended("succeeded", ""),
                "GET" => Reply::Json(404, json!({})),
                "DELETE"
                    if !is_of_key
                        && asked.fetch_add(1, Ordering::Relaxed) == 0
                        && refuses_first =>
                {
                    Reply::Json(422, json!({ "error": "ConcurrencyError" }))
                }
                "PUT" => Reply::Json(201, json!({})),
                _ => Reply::Json(202, json!({ "operation": "o" })),
            }
        })
        .await;
        let user = user_of(&stub);
        user.does(&CREATE).await;
        for key in ["app", "other"] {
            user.does(&["create-service-key", "orders", key]).await;
        }
        let deleted = user.does(&["delete-service", "orders", "-f", "-w"]).await;
        assert_eq!(
            deleted.err.contains("takes its keys along"),
            !refuses_first,
            "{deleted:?}"
        );
        let of_keys: Vec<bool> = stub
            .heard()
            .iter()
            .filter(|request| request.method == "DELETE")
            .map(|request| request.target.contains("/service_bindings/"))
            .collect();
        let expected: &[bool] = match refuses_first {
            false => &[true, false],
            true => &[true, false, true, false],
        };
        assert_eq!(of_keys, expected);
        assert_eq!(user.services().await, Vec::<String>::new());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_fails_or_takes_too_long_is_told_and_stays_listed() {
    let stub = Stub::start(|request| match is_poll(request) {
        true => ended("failed", "no room left"),
        false => Reply::Json(202, json!({ "operation": "x" })),
    })
    .await;
    let user = user_of(&stub);
    let create = [&CREATE[..], &["--wait"]].concat();
    user.run(&create).await.must_say(1, "failed: no room left");
    let listed = user.does(&["services"]).await.out;
    assert!(listed.contains("create failed: no room left"), "{listed}");

    let brief = catalog(|service| service["plans"][0]["maximum_polling_duration"] = json!(1));
    let stub = Stub::start_with(brief, |request| match is_poll(request) {
        true => ended("in progress", ""),
        false => Reply::Json(202, json!({ "operation": "x" })),
    })
    .await;
    let user = user_of(&stub);
    user.run(&create)
        .await
        .must_say(1, "did not end it within 1 s");
    assert_eq!(user.services().await, ["orders"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn ctrl_c_leaves_the_work_going() {
    let stub = Stub::start(|request| match is_poll(request) {
        true => ended("in progress", "step 1 of 9"),
        false => Reply::Json(202, json!({ "operation": "x" })),
    })
    .await;
    let user = user_of(&stub);
    let waiting = user.command(&[&CREATE[..], &["--wait"]].concat()).spawn();
    let waiting = waiting.expect("a process");
    stub.hears("GET", 2).await;
    interrupt(waiting.id());
    let ran = Ran::of(waiting.wait_with_output().await.expect("an end"));
    ran.must_say(
        130,
        "Creation of service instance orders goes on without you. Check: compose-broker service orders",
    );
    assert!(!stub.methods().contains(&"DELETE".to_owned()));
    let listed = user.does(&["services"]).await.out;
    assert!(
        listed.contains("create in progress: step 1 of 9"),
        "{listed}"
    );
}

/// Presses Ctrl-C.
pub fn interrupt(pid: Option<u32>) {
    let pid = pid.and_then(|pid| Pid::from_raw(i32::try_from(pid).expect("a pid")));
    kill_process(pid.expect("a process"), Signal::INT).expect("a signal");
}

#[tokio::test(flavor = "multi_thread")]
async fn many_clients_lose_none_of_each_other_s_names() {
    let stub = Stub::start(|_| Reply::Json(201, json!({}))).await;
    let user = user_of(&stub);
    user.does(&CREATE).await;
    // As long as another one writes, nobody does.
    let lock = File::create(user.book().with_extension("lock")).expect("a file");
    lock.lock().expect("a lock");
    let names: Vec<String> = (0..20).map(|i| format!("name-{i:02}")).collect();
    let all: Vec<_> = names
        .iter()
        .map(|name| {
            user.command(&["create-service", "db", "small", name])
                .spawn()
        })
        .collect();
    tokio::time::sleep(Duration::from_millis(300)).await;
    assert_eq!(user.services().await, ["orders"]);
    let mut asked = stub.methods();
    // How an instance is, a list asks for.
    asked.retain(|method| method != "GET");
    assert_eq!(asked, ["PUT"], "a name is written down first");
    drop(lock);
    for child in all {
        let ended = child.expect("a process").wait_with_output().await;
        let ran = Ran::of(ended.expect("an end"));
        assert_eq!(ran.code, 0, "{ran:?}");
    }
    assert_eq!(user.services().await[..20], names);
    user.run(&CREATE)
        .await
        .must_say(1, "there is a service instance orders already");

    // What cannot be read is not overwritten.
    fs::write(user.book(), "what?").expect("a file");
    user.run(&CREATE).await.must_say(1, "client.json");
    assert_eq!(fs::read(user.book()).expect("a file"), b"what?");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_broker_cannot_speak_to_the_terminal() {
    let evil = catalog(|service| {
        service["plans"][0]["description"] = json!(EVIL);
        service["description"] = json!(EVIL);
    });
    let stub = Stub::start_with(evil, |request| match request.method.as_str() {
        _ if is_poll(request) => ended("in progress", EVIL),
        "PUT" if request.target.contains("refused") => {
            Reply::Json(400, json!({ "error": EVIL, "description": EVIL }))
        }
        "PUT" => Reply::Json(202, json!({ "operation": EVIL, "dashboard_url": EVIL })),
        _ => Reply::Json(
            200,
            json!({
                "parameters": { EVIL: EVIL }, "dashboard_url": EVIL,
                "credentials": { "password": EVIL }, "maintenance_info": { "version": EVIL },
            }),
        ),
    })
    .await;
    let user = user_of(&stub);
    let refused = ["create-service", "db", "small", "x", "--id", "refused"];
    let obeyed = |c: char| (c.is_control() && c != '\n') || c == '\u{202e}';
    for (code, arguments) in [
        (0, &["marketplace"][..]),
        (0, &CREATE),
        (0, &CREATE_KEY),
        (0, &["services"]),
        (0, &["service", "orders"]),
        (0, &["service-key", "orders", "app"]),
        (1, &refused),
    ] {
        for form in ["text", "json"] {
            let ran = user.run(&[arguments, &["-o", form]].concat()).await;
            // Once made, the names are taken.
            if arguments[0].starts_with("create") && form == "json" {
                continue;
            }
            assert_eq!(ran.code, code, "{arguments:?}: {ran:?}");
            let said = format!("{}{}", ran.out, ran.err);
            assert!(!said.contains(obeyed), "{arguments:?}: {ran:?}");
        }
    }
    let key = user.asks(&["service-key", "orders", "app"]).await;
    assert_eq!(
        key["credentials"]["password"], EVIL,
        "JSON stays what it is"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_broker_that_tells_nothing_later_is_asked_for_nothing_later() {
    let silent = catalog(|service| {
        service["instances_retrievable"] = json!(false);
        service["bindings_retrievable"] = json!(false);
    });
    let stub = Stub::start_with(silent, |request| match request.method.as_str() {
        "DELETE" => Reply::Json(200, json!({})),
        "GET" => Reply::Json(500, json!({})),
        _ => Reply::Json(201, json!({ "credentials": { "password": "secret" } })),
    })
    .await;
    let user = user_of(&stub);
    user.does(&CREATE).await;
    let made = user.does(&CREATE_KEY).await;
    assert_eq!(made.json()["credentials"]["password"], "secret");
    assert!(made.err.contains("only now"), "{made:?}");
    // A binding that is made later could not be fetched.
    let bind = stub.heard().pop().expect("a bind");
    assert!(!bind.target.contains("accepts_incomplete"), "{bind:?}");
    assert!(
        !fs::read_to_string(user.book())
            .expect("a book")
            .contains("secret")
    );
    user.does(&["service", "orders"]).await;
    user.run(&["backups", "orders"]).await.must_say(1, "");
    user.does(&["delete-service", "orders", "-f"]).await;
}

/// Where a request went.
fn url_of(request: &Heard) -> String {
    format!("http://{}", request.header("host").expect("a host"))
}

/// A binding that leads to backups, at the broker that was asked for it.
fn with_backups(request: &Heard) -> Reply {
    let api = json!({
        "root": url_of(request), "instance_id": "i", "deployment_id": "d", "token": "t",
    });
    let credentials = json!({ "instance_administration_api": api });
    Reply::Json(200, json!({ "credentials": credentials }))
}

/// What a platform or a token is told of an instance.
pub fn is_instance(request: &Heard) -> bool {
    request.method == "GET"
        && request.target.starts_with("/api/2016-07/instances/")
        && !request.target.contains("/deployments/")
        && !request.target.contains("/recipes/")
}

#[tokio::test(flavor = "multi_thread")]
async fn backups_are_had_with_a_platform_s_credentials_else_with_a_key_that_is_there() {
    for by_platform in [true, false] {
        let stub = Stub::start(move |request| match request.method.as_str() {
            _ if is_instance(request) && by_platform => {
                let told = json!({ "id": "i", "resource_type": "deployment", "resource_id": "d" });
                Reply::Json(200, told)
            }
            _ if is_instance(request) => Reply::Json(401, json!({ "errors": "invalid_token" })),
            _ if request.target.contains("/recipes/") => Reply::Json(
                200,
                json!({ "status": "running", "status_detail": "reading" }),
            ),
            _ if request.target.contains("/backups/") => Reply::Json(404, json!({})),
            "POST" => Reply::Json(202, json!({ "id": "r", "backup_id": "b" })),
            "GET" if request.target.contains("/service_bindings/") => with_backups(request),
            _ => Reply::Json(201, json!({})),
        })
        .await;
        let user = user_of(&stub);
        user.does(&CREATE).await;
        if !by_platform {
            let refused = user.run(&["create-backup", "orders"]).await;
            refused.must_say(1, "compose-broker create-service-key orders KEY");
            user.does(&CREATE_KEY).await;
        }
        let waiting = user.command(&["create-backup", "orders", "--wait"]).spawn();
        let waiting = waiting.expect("a process");
        eventually("a look at the recipe", || async {
            let heard = stub.heard();
            let looked = heard.iter().any(|r| r.target.contains("/recipes/"));
            looked.then_some(())
        })
        .await;
        interrupt(waiting.id());
        let ran = Ran::of(waiting.wait_with_output().await.expect("an end"));
        ran.must_say(
            130,
            "The backup goes on without you. Check: compose-broker backups orders",
        );
        let failed = user.run(&["download-backup", "orders", "missing"]).await;
        failed.must_say(
            1,
            "orders has no backup missing; see: compose-broker backups orders",
        );
        let heard = stub.heard();
        // No key is made for a command, so none is left by one that was ended.
        let keys = heard
            .iter()
            .filter(|r| r.target.contains("/service_bindings/"));
        let made = keys.filter(|r| r.method == "PUT").count();
        assert_eq!(made, usize::from(!by_platform));
        let shown = if by_platform {
            "Basic YWRhOndvcmQ="
        } else {
            "Bearer t"
        };
        let asked = heard.iter().filter(|r| r.target.contains("/deployments/"));
        for request in asked {
            assert_eq!(request.header("authorization"), Some(shown));
            let named = request.header("x-broker-api-originating-identity");
            assert_eq!(named.is_some(), by_platform, "{request:?}");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_download_is_whole_or_not_there() {
    let stub = Stub::start(|request| {
        let target = request.target.as_str();
        let id = target.rsplit('/').next().unwrap_or_default();
        if target.contains("/deployments/d/backups/") {
            let known = json!("ab".repeat(32));
            let backup = json!({
                "id": id, "name": "../../evil", "status": "complete",
                "sha256": if id == "plain" { Value::Null } else { known },
                "download_link": format!("{}/download/{id}", url_of(request)),
            });
            return Reply::Json(200, backup);
        }
        let raw = |text: &str| Reply::Raw(200, text.as_bytes().to_vec());
        match target {
            "/download/short" => raw("Content-Length: 1000\r\n\r\nbegins"),
            "/download/broken" => raw("Transfer-Encoding: chunked\r\n\r\n6\r\nbegins\r\n"),
            "/download/other" | "/download/plain" => raw("Content-Length: 6\r\n\r\nbegins"),
            "/download/late" => Reply::Silence,
            "/download/gone" => Reply::Json(404, json!({})),
            _ if request.method == "GET" => with_backups(request),
            _ => Reply::Json(201, json!({})),
        }
    })
    .await;
    let user = user_of(&stub);
    user.does(&CREATE).await;
    user.does(&CREATE_KEY).await;
    let files = |folder: &Path| {
        let entries = fs::read_dir(folder).expect("a folder").flatten();
        let mut names: Vec<String> = entries
            .map(|entry| entry.file_name().to_string_lossy().into_owned())
            .collect();
        names.retain(|name| name != "state");
        names
    };
    for (backup, reason) in [
        ("short", "broke off"),
        ("broken", "broke off"),
        ("other", "is not the backup"),
        ("gone", "404"),
    ] {
        let ran = user.run(&["download-backup", "orders", backup]).await;
        ran.must_say(1, reason);
        assert_eq!(files(user.folder()), Vec::<String>::new(), "{backup}");
    }
    let waiting = user.command(&["download-backup", "orders", "late"]).spawn();
    let waiting = waiting.expect("a process");
    eventually("a download", || async {
        let heard = stub.heard();
        heard
            .iter()
            .any(|r| r.target == "/download/late")
            .then_some(())
    })
    .await;
    interrupt(waiting.id());
    let ran = Ran::of(waiting.wait_with_output().await.expect("an end"));
    ran.must_say(130, "interrupted");
    assert_eq!(files(user.folder()), Vec::<String>::new());
    // The name that the broker gives leads nowhere else; a link needs no token.
    let done = user.does(&["download-backup", "orders", "plain"]).await;
    assert!(done.err.contains("not compared"), "{done:?}");
    assert_eq!(files(user.folder()), ["backup.tar.gz"]);
    let heard = stub.heard();
    let download = heard.iter().find(|r| r.target == "/download/plain");
    assert_eq!(download.expect("a download").header("authorization"), None);
}

#[tokio::test(flavor = "multi_thread")]
async fn wrong_use_is_refused_before_anything_is_asked() {
    let stub = Stub::start(|_| Reply::Json(201, json!({}))).await;
    let user = user_of(&stub);
    for arguments in [
        &["create-service"][..],
        &["create-service", "db", "small", "orders", "-c", "[]"],
        &["create-service", "db", "small", "orders", "-c", "{"],
        &[
            "create-service",
            "db",
            "small",
            "orders",
            "-c",
            "@missing.json",
        ],
        &["create-service", "db", "small", "a\nb"],
        &["create-service", "db", "small", "orders", "--id", ".."],
        &["service", "orders", "--id", ""],
        &[
            "create-service",
            "db",
            "small",
            "orders",
            "--password",
            "word",
        ],
        &["services", "--broker", "http://ada:word@127.0.0.1"],
        &["services", "--poll", "0"],
        &["services", "-o", "yaml"],
    ] {
        user.run(arguments).await.must_say(2, "");
    }
    let mut command = user.command(&["services"]);
    command.env_remove("COMPOSE_BROKER_PASSWORD");
    let ran = Ran::of(command.output().await.expect("a process"));
    ran.must_say(2, "COMPOSE_BROKER_PASSWORD: is not set");
    ran.must_say(2, "; name the broker's folder with --data-dir");
    assert_eq!(stub.methods(), Vec::<String>::new());

    // Parameters lie in files, too.
    fs::write(user.folder().join("p.json"), r#"{"units": 2}"#).expect("a file");
    let marked = "\u{feff}{\"units\": 2}";
    fs::write(user.folder().join("marked.json"), marked).expect("a file");
    user.does(&["create-service", "db", "small", "a", "-c", "p.json"])
        .await;
    user.does(&["create-service", "db", "small", "b", "-c", "@p.json"])
        .await;
    user.does(&["create-service", "db", "small", "c", "-c", "marked.json"])
        .await;
    for request in stub.heard() {
        assert_eq!(request.body["parameters"], json!({ "units": 2 }));
    }
}

/// A broker with a certificate answers plain HTTP in the language of TLS.
#[tokio::test(flavor = "multi_thread")]
async fn who_speaks_http_to_a_broker_with_a_certificate_is_told_to_speak_https() {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let url = format!("http://{}", listener.local_addr().expect("an address"));
    let serving = tokio::spawn(async move {
        // TLS 1.2: a fatal alert, unexpected_message.
        let alert = [21, 3, 3, 0, 2, 2, 10];
        let (mut stream, _) = listener.accept().await.expect("a connection");
        let heard = stream.read(&mut [0; 1024]).await.expect("a request");
        assert!(heard > 0);
        stream.write_all(&alert).await.expect("an alert");
    });
    let user = User::of(&url, "ada", "word");
    let ran = user.run(&["marketplace"]).await;
    ran.must_say(1, "it may speak HTTPS: give https://…");
    serving.await.expect("served");
}

/// What bash offers for a command line that ends in the word that is being written.
fn offered(user: &User, words: &[&str]) -> Vec<String> {
    let script = format!(
        "source <({program} completion bash)\n\
         COMP_WORDS=({program} \"$@\"); COMP_CWORD=$#; COMP_TYPE=9\n\
         _clap_complete_compose_broker {program} \"${{!#}}\"\n\
         printf '%s\\n' \"${{COMPREPLY[@]}}\"",
        program = env!("CARGO_BIN_EXE_compose-broker"),
    );
    let ran = std::process::Command::new("bash")
        .args(["-c", &script, "bash"])
        .args(words)
        .env("XDG_STATE_HOME", user.folder().join("state"))
        .env("COMPOSE_BROKER_URL", user.url())
        .output();
    let ran = Ran::of(ran.expect("bash"));
    assert_eq!(ran.code, 0, "{ran:?}");
    // What stands behind a word says what it is.
    let words = ran
        .out
        .lines()
        .filter_map(|line| line.split_whitespace().next());
    words.map(str::to_owned).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn shells_learn_every_command_and_the_names_of_this_machine() {
    let stub = Stub::start(|request| match request.method.as_str() {
        "GET" => Reply::Json(404, json!({})),
        _ => Reply::Json(201, json!({})),
    })
    .await;
    let user = user_of(&stub);
    user.does(&CREATE).await;
    user.does(&CREATE_KEY).await;
    user.does(&["create-service", "db", "small", "others"])
        .await;
    for shell in ["zsh", "fish"] {
        let script = user.does(&["completion", shell]).await.out;
        assert!(script.contains("COMPOSE_BROKER_COMPLETE"), "{script}");
    }
    user.run(&["completion", "tcsh"]).await.must_say(2, "tcsh");
    let asked = stub.heard().len();
    let commands = offered(&user, &["create-"]);
    for command in ["create-service", "create-service-key", "create-backup"] {
        assert!(commands.contains(&command.to_owned()), "{commands:?}");
    }
    for command in [
        "backups",
        "service",
        "delete-service",
        "logs",
        "restore-backup",
        "pin",
        "backup-note",
    ] {
        assert_eq!(
            offered(&user, &[command, "o"]),
            ["orders", "others"],
            "{command}"
        );
    }
    assert_eq!(offered(&user, &["backups", "ord"]), ["orders"]);
    assert_eq!(offered(&user, &["service-key", "orders", ""])[0], "app");
    assert!(offered(&user, &["upgrade-service", "x", "--db"]).contains(&"--db-version".to_owned()));
    // What this machine does not know is completed with no file of it.
    let ids = offered(&user, &["pin", "orders", ""]);
    assert!(ids.iter().all(|word| word.starts_with('-')), "{ids:?}");
    // Nothing is asked of the broker for that.
    assert_eq!(stub.heard().len(), asked);
}

#[tokio::test(flavor = "multi_thread")]
async fn help_is_about_the_command_and_mistakes_are_told_from_it() {
    let user = User::of("http://127.0.0.1:1", "ada", "word");
    let help = user.does(&["create-backup", "--help"]).await.out;
    assert!(help.starts_with("Take a backup"), "{help}");
    assert!(help.lines().count() < 30, "{help}");
    assert!(help.contains("compose-broker settings --help"), "{help}");
    let settings = user.does(&["settings", "--help"]).await.out;
    for flag in ["-b, --broker", "--timeout", "COMPOSE_BROKER_PASSWORD"] {
        assert!(settings.contains(flag), "{settings}");
    }
    // Nothing that may be left out stands where something is missing.
    let missing = user.run(&["create-service", "db"]).await;
    missing.must_say(
        2,
        "Usage: compose-broker create-service [OPTIONS] <OFFERING> <PLAN> <NAME>",
    );
    assert!(!missing.err.contains("--broker"), "{missing:?}");
    let typing = user.run(&["create-servce"]).await;
    typing.must_say(2, "'create-service', 'create-service-key'");
    let lost = user.run(&["services"]).await;
    assert_eq!(lost.code, 0, "{lost:?}: there are none");
    assert_eq!(
        lost.out.trim(),
        "No instance is known for http://127.0.0.1:1."
    );
    let mut elsewhere = user.command(&["services"]);
    elsewhere.env_remove("COMPOSE_BROKER_URL");
    elsewhere.env("COMPOSE_BROKER_LISTEN", "127.0.0.1:9000");
    let elsewhere = Ran::of(elsewhere.output().await.expect("a process"));
    assert_eq!(
        elsewhere.out.trim(),
        "No instance is known for http://127.0.0.1:8080."
    );
    assert!(
        elsewhere.err.contains("COMPOSE_BROKER_LISTEN"),
        "{elsewhere:?}"
    );
    let lost = user.run(&["marketplace"]).await;
    lost.must_say(1, "cannot reach http://127.0.0.1:1");
    assert!(!lost.err.contains("COMPOSE_BROKER_LISTEN"), "{lost:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn no_line_of_the_help_is_wider_than_the_terminal() {
    let user = User::of("http://127.0.0.1:1", "ada", "word");
    let helped = async |command: &[&str], columns: &str| {
        let mut help = user.command(&[command, &["--help"]].concat());
        let ran = Ran::of(
            help.env("COLUMNS", columns)
                .output()
                .await
                .expect("a process"),
        );
        assert_eq!(ran.code, 0, "{ran:?}");
        ran.out
    };
    let all = helped(&[], "1000").await;
    let commands = all.lines().filter(|line| line.starts_with("  "));
    let commands: Vec<&str> = commands
        .filter_map(|line| line.split_whitespace().next())
        .filter(|word| *word != "help" && !word.starts_with('-'))
        .collect();
    assert!(commands.len() > 40, "{commands:?}");
    for columns in [60, 80] {
        for command in std::iter::once(None).chain(commands.iter().map(Some)) {
            let command: Vec<&str> = command.into_iter().copied().collect();
            let told = helped(&command, &columns.to_string()).await;
            let wide: Vec<&str> = (told.lines())
                .filter(|line| line.chars().count() > columns)
                .collect();
            assert!(wide.is_empty(), "{command:?}: {wide:#?}");
            assert!(told.contains("Usage: compose-broker"), "{told}");
        }
    }
    let told = helped(&["create-service"], "60").await;
    let usage =
        "\nUsage: compose-broker create-service [OPTIONS] <OFFERING>\n       <PLAN> <NAME>\n";
    assert!(told.contains(usage), "{told}");
}

#[tokio::test(flavor = "multi_thread")]
async fn short_names_and_flags_are_those_of_cf() {
    let stub = Stub::start(|request| match request.method.as_str() {
        _ if is_poll(request) => ended("succeeded", "made"),
        "GET" if request.target.contains("/service_bindings/") => {
            Reply::Json(200, json!({ "credentials": { "a": 1 } }))
        }
        "GET" if request.target.starts_with("/v2/") => {
            Reply::Json(200, json!({ "maintenance_info": { "version": "1.0.0" } }))
        }
        "GET" => Reply::Json(404, json!({})),
        "DELETE" => Reply::Json(410, json!({})),
        _ => Reply::Json(202, json!({ "operation": "o" })),
    })
    .await;
    // The broker is named on the command line, as another one is in the environment.
    let user = User::of("http://127.0.0.1:1", "ada", "word");
    let at = ["-b", &stub.url];
    let does = async |arguments: &[&str]| user.does(&[arguments, &at].concat()).await;
    assert!(does(&["m"]).await.out.contains("small"));
    let made = ["cs", "db", "small", "orders", "-t", "red, blue,", "-w"];
    does(&made).await;
    does(&["csk", "orders", "app", "-w"]).await;
    assert!(does(&["sk", "orders"]).await.out.contains("app"));
    let shown = does(&["service", "orders"]).await.out;
    assert!(shown.contains("tags:             red, blue"), "{shown}");
    does(&["update-service", "orders", "-t", "green"]).await;
    let updates = stub.methods().iter().filter(|m| *m == "PATCH").count();
    assert_eq!(updates, 0, "tags are kept here");
    let listed = does(&["s"]).await.out;
    let mut lines = listed.lines();
    let head = "NAME     OFFERING   PLAN    KEYS   LAST OPERATION     UPGRADE AVAILABLE";
    assert_eq!(lines.next(), Some(head));
    let row = "orders   db         small   1      create succeeded   yes";
    assert_eq!(lines.next(), Some(row));
    does(&["rename-service", "orders", "bills"]).await;
    let named = stub.methods().iter().filter(|m| *m == "PATCH").count();
    assert_eq!(named, 0, "the offering takes no contexts");
    let taken = [&["cs", "db", "small", "orders", "-w"], &at[..]].concat();
    user.does(&taken).await;
    let again = user
        .run(&[&["rename-service", "orders", "bills"], &at[..]].concat())
        .await;
    again.must_say(1, "there is a service instance bills already");
    // What is gone is gone: that is no failure.
    for gone in [
        &["dsk", "bills", "app", "-f", "-w"][..],
        &["dsk", "bills", "app", "-f"],
        &["ds", "bills", "-f", "-w"],
        &["ds", "bills", "-f"],
        &["dsk", "bills", "app", "-f"],
    ] {
        does(gone).await;
    }
}
