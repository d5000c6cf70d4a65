//! What the client shows of an instance: to whom it belongs or not, in the columns that there are, and for
//! a shell.

use std::{fs, os::unix::fs::MetadataExt as _, process::Command};

use reqwest::Method;
use rustix::process::Signal;
use serde_json::{Value, json};
use tokio::io::{AsyncBufReadExt as _, BufReader};

use crate::{
    broker::{READER, TestBroker, answer, engines_dir, eventually, text},
    client_stub::{CREATE, is_instance},
    health,
    stub::{Reply, Stub},
    user::{Ran, User},
};

/// A number of days that the clock of the day the tests run on says something else of each day.
fn without_ages(text: &str) -> String {
    let mut told = String::new();
    let mut rest = text;
    while let Some(end) = rest.find(" days ago)") {
        let begin = rest[..end].rfind('(').expect("where it begins");
        told.push_str(&rest[..=begin]);
        told.push_str(&"N".repeat(end - begin - 1));
        rest = &rest[end..];
        told.push_str(" days ago)");
        rest = &rest[" days ago)".len()..];
    }
    told + rest
}

fn backup(i: u32, kind: &str, status: &str, more: Value) -> Value {
    let mut backup = json!({
        "id": format!("6b02d81d552a392a0231493{i}"), "type": kind, "status": status,
        "requested_at": format!("2020-11-2{i}T09:12:31Z"), "version": "3.6.16",
        "keys": 1_234, "size_bytes": 268_000_000 + i, "recipe_id": format!("r{i}"),
    });
    for (name, value) in more.as_object().expect("fields") {
        backup[name] = value.clone();
    }
    backup
}

#[tokio::test(flavor = "multi_thread")]
async fn tables_fit_their_terminal() {
    let stub = Stub::start(|request| {
        let target = request.target.as_str();
        if is_instance(request) {
            return Reply::Json(200, json!({ "resource_type": "deployment", "resource_id": "d" }));
        }
        if target.ends_with("/backups") {
            let expires = json!({
                "expires_at": "2020-12-04T09:12:31Z", "proof": "flawed",
                "unverified_reason": "restored into 3.6.16 it is not what its manifest says: its \
                                      number of keys is 1233, not 1234",
            });
            let failed = json!({
                "status_detail": "no member answered within 60 s; the next try comes with the next \
                                  scheduled backup",
                "version": null, "keys": null, "size_bytes": null,
            });
            let backups = [
                backup(4, "on_demand", "complete", json!({ "proof": "proved" })),
                backup(3, "daily", "complete", expires),
                backup(2, "daily", "failed", failed),
            ];
            let retention = json!({ "on_demand_kept": 3 });
            let listed = json!({ "_embedded": { "backups": backups }, "retention": retention });
            return Reply::Json(200, listed);
        }
        if target.ends_with("/recipes") {
            let recipe = |i: u32, name: &str, status: &str, detail: &str| {
                json!({
                    "id": format!("6b02d81d552a392a0231493{i}"), "name": name, "status": status,
                    "source": "compose", "user": "ada", "status_detail": detail,
                    "created_at": format!("2020-11-2{i}T09:12:31Z"),
                    "updated_at": format!("2020-11-2{i}T09:15:43Z"),
                })
            };
            let recipes = [
                recipe(4, "Upgrade deployment to version 3.7.3", "running", "Upgrading (step 5 of 7)"),
                recipe(3, "Backup", "complete", "All operations have completed successfully"),
            ];
            return Reply::Json(200, json!({ "_embedded": { "recipes": recipes } }));
        }
        if target.ends_with("/members") {
            let member = |i: u32, status: &str, detail: Value| {
                json!({
                    "name": format!("m{i}"), "status": status, "detail": detail, "version": "3.6.16",
                    "role": if i == 0 { "leader" } else { "follower" },
                    "allocated_bytes": 268_000_000, "used_bytes": 1_000_000,
                    "url": format!("https://db.example.org:2000{i}"),
                })
            };
            let silent = json!("it does not answer: no connection to it comes about");
            let members = [
                member(0, "serving", Value::Null),
                member(1, "serving", Value::Null),
                member(2, "silent", silent),
            ];
            return Reply::Json(200, json!({ "_embedded": { "members": members } }));
        }
        Reply::Json(201, json!({}))
    })
    .await;
    let user = User::of(&stub.url, "ada", "word");
    user.does(&CREATE).await;
    for columns in ["", "80", "60"] {
        for what in ["backups", "tasks", "members"] {
            let mut command = user.command(&[what, "orders"]);
            let ran = Ran::of(
                command
                    .env("COLUMNS", columns)
                    .output()
                    .await
                    .expect("an end"),
            );
            assert_eq!(ran.code, 0, "{ran:?}");
            let shown = without_ages(&ran.out);
            let width = columns.parse().unwrap_or(usize::MAX);
            for line in shown.lines().take_while(|line| !line.is_empty()) {
                assert!(line.chars().count() <= width, "{columns}: {line}");
            }
            insta::assert_snapshot!(format!("{what}_{columns}"), shown);
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_done_elsewhere_is_told_beside_the_last_operation() {
    let stub = Stub::start(|request| {
        let recipe = |id: &str, name: &str, template: &str, source: &str| {
            json!({
                "id": id, "name": name, "status": "complete", "source": source, "user": "operator",
                "template": format!("Recipes::Deployment::{template}"),
                "created_at": "2020-11-24T09:12:31Z", "updated_at": "2020-11-24T09:15:43Z",
            })
        };
        let target = request.target.as_str();
        if is_instance(request) {
            let told = json!({ "resource_type": "deployment", "resource_id": "d" });
            return Reply::Json(200, told);
        }
        if target.ends_with("/recipes") {
            let recipes = [
                recipe("5", "Bind", "Run", "osb"),
                recipe("4", "Backup", "Backup", "dashboard"),
                recipe("3", "Prove a backup", "Run", "proof"),
                recipe(
                    "2",
                    "Upgrade deployment to version 3.7.3",
                    "Run",
                    "dashboard",
                ),
                recipe("1", "Provision", "Run", "osb"),
            ];
            return Reply::Json(200, json!({ "_embedded": { "recipes": recipes } }));
        }
        match request.method.as_str() {
            "GET" => Reply::Json(200, json!({})),
            _ => Reply::Json(201, json!({})),
        }
    })
    .await;
    let user = User::of(&stub.url, "ada", "word");
    user.does(&CREATE).await;
    let told = without_ages(&user.does(&["service", "orders"]).await.out);
    let expected = "last task:        Upgrade deployment to version 3.7.3: succeeded, 2020-11-24 \
                    09:15:43 UTC (NNNN days ago), asked for by the dashboard: operator\n";
    let told = told.split_whitespace().collect::<Vec<_>>().join(" ");
    let expected = expected.split_whitespace().collect::<Vec<_>>().join(" ");
    assert!(told.contains(&expected), "{told}");
    assert!(told.contains("last operation: create succeeded"), "{told}");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_asked_for_here_is_no_task_of_others() {
    let broker = TestBroker::in_memory().await;
    let user = User::of_broker(&broker);
    user.makes_database().await;
    let protect = [
        "update-service",
        "db",
        "-c",
        r#"{"delete_protection":true}"#,
    ];
    user.does(&protect).await;
    let told = user.asks(&["service", "db"]).await;
    assert_eq!(told["last_operation"]["type"], "update", "{told}");
    assert_eq!(told["last_task"], json!(null), "{told}");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_operator_sees_into_instances_that_this_machine_does_not_know() {
    let broker = TestBroker::start().await;
    let owner = User::of_broker(&broker);
    let credentials = owner.makes_database().await;
    let id = text(&owner.asks(&["service", "db"]).await["id"]).to_owned();
    let operator = User::of_broker(&broker);
    assert_eq!(operator.services().await, Vec::<String>::new());

    // By the name that its owner gave it, and by its id.
    for name in ["db", id.as_str()] {
        let members = operator.asks(&["members", name]).await;
        let members = members["_embedded"]["members"]
            .as_array()
            .expect("a list")
            .clone();
        assert_eq!(members.len(), 3, "{members:?}");
        let leaders = members.iter().filter(|member| member["role"] == "leader");
        assert_eq!(leaders.count(), 1, "{members:?}");
        assert!(members.iter().all(|member| member["status"] == "serving"));
    }
    let shown = operator.does(&["members", "db"]).await.out;
    assert!(shown.starts_with("MEMBER   STATE    ROLE"), "{shown}");
    let tasks = operator.does(&["tasks", "db"]).await.out;
    assert!(
        tasks.contains("Provision") && tasks.contains("the platform: ada"),
        "{tasks}"
    );
    let audit = operator.does(&["audit", "db"]).await.out;
    assert!(
        audit.contains("Provision")
            && audit.contains("the platform")
            && audit.contains("ada (cloudfoundry)"),
        "{audit}"
    );
    // The broker's own lists name instances beside their ids.
    let named = format!("db ({id})");
    for list in [
        &["audit", "db"][..],
        &["operations", "list", "--kind", "bind"],
    ] {
        let shown = operator.does(list).await.out;
        assert!(shown.contains(&named), "{shown}");
    }
    let bind = operator.asks(&["operations", "list", "--kind", "bind"]);
    let bind = bind.await["operations"][0]["id"].clone();
    let shown = operator
        .does(&["operations", "show", text(&bind)])
        .await
        .out;
    let shown = shown.split_whitespace().collect::<Vec<_>>().join(" ");
    assert!(shown.contains("asked for by: the platform: ada"), "{shown}");
    let all = operator.does(&["audit", "--limit", "1"]).await;
    assert!(all.err.contains("there are more: add --before"), "{all:?}");
    // Notices tell of the version alone.
    let alerts = operator.asks(&["alerts", "db"]).await;
    assert_eq!(alerts["summary"], "ok", "{alerts}");
    let link = operator.does(&["dashboard-link", "db"]).await.out;
    let (_, code) = link
        .trim_end()
        .split_once(&broker.url)
        .expect("a link of the broker's");
    let page = broker
        .anonymous(Method::GET, code)
        .send()
        .await
        .expect("an answer");
    assert!(page.status().is_success());
    let dry = operator.asks(&["defragment", "db", "--dry-run"]).await;
    assert!(dry["allocated_bytes"].is_u64(), "{dry}");
    let done = operator.does(&["defragment", "db", "--wait"]).await;
    assert!(done.err.contains("defragment db: done in "), "{done:?}");

    let member = broker.members()[0];
    health::signal(&[member], Signal::STOP);
    eventually("an alert", || async {
        let told = operator.does(&["alerts", "db"]).await.out;
        told.contains("does not answer").then_some(())
    })
    .await;
    let shown = operator.does(&["members", "db"]).await.out;
    assert!(shown.contains("does not answer"), "{shown}");
    health::signal(&[member], Signal::CONT);

    // Another name, here and at the broker; the one of before means nothing then.
    operator.does(&["rename-service", "db", "bills"]).await;
    let renamed = answer(broker.osb(Method::GET, &format!("/operator/instances/{id}"))).await;
    assert_eq!(renamed.body["name"], "bills");
    let lost = operator.run(&["members", "db"]).await;
    lost.must_say(1, "No service instance 'db' for ");
    operator.does(&["members", "bills"]).await;
    owner.does(&["rename-service", "db", "mine"]).await;
    assert_eq!(owner.services().await, ["mine"]);
    assert_eq!(
        owner.does(&["service-key", "mine", "app"]).await.json(),
        credentials
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn logs_are_printed_by_member_and_followed() {
    let broker = TestBroker::start().await;
    let user = User::of_broker(&broker);
    user.makes_database().await;
    let all = user.asks(&["logs", "db", "-n", "5"]).await;
    let logs = all["logs"].as_array().expect("a list");
    assert_eq!(logs.len(), 3, "{all}");
    for log in logs {
        assert_eq!(log["lines"].as_array().expect("lines").len(), 5, "{log}");
    }
    let one = user.does(&["logs", "db", "-m", "m1", "-n", "3"]).await.out;
    assert_eq!(one.lines().count(), 3, "{one}");
    assert!(one.lines().all(|line| line.starts_with("m1 ")), "{one}");
    user.run(&["logs", "db", "-m", "m9"])
        .await
        .must_say(1, "no member m9");

    let mut following = user.command(&["logs", "db", "-f", "-n", "1"]);
    let mut following = following.spawn().expect("a process");
    let printed = following.stdout.take().expect("its output");
    let mut lines = BufReader::new(printed).lines();
    for _ in 0..3 {
        lines.next_line().await.expect("read").expect("a line");
    }
    // A member says so when its storage is given back.
    user.does(&["defragment", "db", "--wait"]).await;
    loop {
        let line = lines.next_line().await.expect("read").expect("a line");
        if line.contains("defragment") {
            break;
        }
    }
    crate::client_stub::interrupt(following.id());
    let ended = following.wait().await.expect("an end");
    assert_eq!(ended.code(), Some(0));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_shell_logs_in_with_what_a_key_says() {
    let broker = TestBroker::start().await;
    let user = User::of_broker(&broker);
    user.makes_database().await;
    let lines = user.does(&["service-key", "db", "app", "--env"]).await.out;
    let variables = user.asks(&["service-key", "db", "app", "--env"]).await;
    let endpoints = text(&variables["ETCDCTL_ENDPOINTS"]);
    assert_eq!(endpoints.split(',').count(), 3, "{endpoints}");
    let file = text(&variables["ETCDCTL_CACERT"]);
    assert!(lines.contains(file), "{lines}");
    let mode = fs::metadata(file).expect("a file").mode();
    assert_eq!(mode & 0o777, 0o600);
    let chosen = user.folder().join("chosen's.pem");
    let chosen = chosen.to_str().expect("a path");
    for (version, cacert) in [("3.6.16", None), ("3.4.23", Some(chosen))] {
        let cacert = cacert.map_or(Vec::new(), |file| vec!["--cacert", file]);
        let flags = [&["service-key", "db", "app", "--env"], &cacert[..]].concat();
        let lines = user.does(&flags).await.out;
        let etcdctl = engines_dir().join("etcd").join(version).join("etcdctl");
        let script = "eval \"$1\"; \"$2\" put \"it's $3\" v && \"$2\" endpoint health 2>&1";
        let etcdctl = etcdctl.to_str().expect("a path");
        let ran = Command::new("bash")
            .args(["-c", script, "bash", &lines, etcdctl, version])
            .env_clear()
            .output();
        let ran = Ran::of(ran.expect("bash"));
        assert_eq!(ran.code, 0, "{version}: {ran:?}");
        assert_eq!(
            ran.out.matches("is healthy").count(),
            3,
            "{version}: {ran:?}"
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_backup_replaces_is_told_before() {
    let broker = TestBroker::in_memory().await;
    let user = User::of_broker(&broker);
    user.does(&["cs", "compose-for-etcd", "Standard", "db", "-w"])
        .await;
    let first = user.does(&["create-backup", "db", "-w"]).await;
    assert!(!first.err.contains("Replaces"), "{first:?}");
    let second = user.does(&["create-backup", "db", "-w"]).await;
    let mut said = second.err.lines();
    let told = said.next().expect("a line");
    assert!(
        told.starts_with("Replaces the on-demand backup of "),
        "{told}"
    );
    assert!(second.err.contains("back up db: done in "), "{second:?}");
    let listed = user.does(&["backups", "db"]).await.out;
    assert!(
        listed.lines().next().expect("a head").ends_with("EXPIRES"),
        "{listed}"
    );

    // What is pinned stays, as the line before says, and takes no other one's place.
    let ids = user.asks(&["backups", "db"]).await;
    let id = text(&ids["backups"][0]["id"]).to_owned();
    let noted = user
        .does(&["backup-note", "db", &id, "before the move"])
        .await;
    assert!(
        noted.out.contains("note:        before the move"),
        "{noted:?}"
    );
    let pinned = user.does(&["pin", "db", &id]).await;
    assert!(
        pinned.out.contains("expires:     not while pinned"),
        "{pinned:?}"
    );
    let third = user.does(&["create-backup", "db", "-w"]).await;
    assert!(!third.err.contains("Replaces"), "{third:?}");
    let listed = user.does(&["backups", "db"]).await.out;
    assert!(
        listed.contains(&format!("{id}: before the move")),
        "{listed}"
    );
    assert!(listed.contains("not while pinned"), "{listed}");
    let newest = user.asks(&["backups", "db"]).await;
    let newest = text(&newest["backups"][0]["id"]).to_owned();
    assert_ne!(newest, id);
    let unpinned = user.asks(&["unpin", "db", &id]).await;
    assert_eq!(unpinned["pinned"], false, "{unpinned}");
    assert_eq!(unpinned["note"], "before the move", "{unpinned}");
    let unknown = user.run(&["pin", "db", "no-backup"]).await;
    unknown.must_say(1, "db has no backup no-backup");
    // The hint is a command.
    let fourth = user.does(&["create-backup", "db"]).await;
    let hint = fourth.err.lines().find(|line| line.starts_with("Replaces"));
    let hint = hint.expect("a line that tells what is replaced");
    let (_, command) = hint.split_once("compose-broker ").expect("a command");
    assert_eq!(command, format!("pin db {newest}"));
}

#[tokio::test(flavor = "multi_thread")]
async fn who_only_reads_sees_what_the_pages_show_and_is_told_of_the_rest() {
    let broker = TestBroker::in_memory().await;
    let owner = User::of_broker(&broker);
    owner
        .does(&["cs", "compose-for-etcd", "Standard", "db", "-w"])
        .await;
    owner.does(&["create-backup", "db", "-w"]).await;
    let (username, password) = READER;
    let reader = User::of(&broker.url, username, password);
    for what in [
        "service", "members", "alerts", "tasks", "history", "backups", "versions", "audit",
    ] {
        let shown = reader.does(&[what, "db"]).await;
        assert!(!shown.out.is_empty(), "{what}: {shown:?}");
        assert!(!shown.err.contains("40"), "{what}: {shown:?}");
    }
    let shown = reader.does(&["service", "db"]).await;
    assert!(shown.out.contains("health:"), "{shown:?}");
    assert!(
        shown.err.contains("These credentials only read"),
        "{shown:?}"
    );
    for words in [
        &["logs", "db"][..],
        &["download-backup", "db", "latest"],
        &["create-backup", "db"],
        &["defragment", "db"],
        &["dashboard-link", "db"],
        &["marketplace"],
    ] {
        let refused = reader.run(words).await;
        assert_eq!(refused.code, 1, "{words:?}: {refused:?}");
        let told = refused.err.as_str();
        assert!(
            told.contains("the broker refuses (403): These credentials only read"),
            "{told}"
        );
        assert!(!told.contains("create-service-key"), "{told}");
    }
    // Of what this machine knows by name, too.
    let mut services = reader.command(&["services"]);
    let services = services.env("COMPOSE_BROKER_STATE", owner.book());
    let listed = Ran::of(services.output().await.expect("an end"));
    assert_eq!(listed.code, 0, "{listed:?}");
    assert!(
        listed.out.contains("db ") && !listed.out.contains("403"),
        "{listed:?}"
    );
    assert!(
        listed.err.contains("These credentials only read"),
        "{listed:?}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_deletion_that_is_under_way_is_waited_for() {
    for tells_health in [true, false] {
        let stub = Stub::start(move |request| {
            let target = request.target.as_str();
            match request.method.as_str() {
                _ if target.contains("/last_operation") => {
                    Reply::Json(200, json!({ "state": "succeeded" }))
                }
                "GET" if target.starts_with("/operator/instances/") && tells_health => {
                    Reply::Json(200, json!({ "health": { "state": "deleting" } }))
                }
                "GET" => Reply::Json(404, json!({})),
                "DELETE" if target.contains("/service_bindings/") => {
                    Reply::Json(422, json!({ "error": "ConcurrencyError" }))
                }
                "DELETE" => Reply::Json(202, json!({ "operation": "o" })),
                _ => Reply::Json(201, json!({})),
            }
        })
        .await;
        let user = User::of(&stub.url, "ada", "word");
        user.does(&CREATE).await;
        user.does(&["create-service-key", "orders", "app"]).await;
        let deleted = user.does(&["delete-service", "orders", "-f", "-w"]).await;
        assert!(deleted.out.contains("delete succeeded"), "{deleted:?}");
        let said = match tells_health {
            true => "orders is being deleted already, with its keys",
            false => "takes its keys along",
        };
        assert!(deleted.err.contains(said), "{deleted:?}");
        assert_eq!(user.services().await, Vec::<String>::new());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn room_that_is_still_not_enough_is_no_success() {
    for (closed, state, how) in [
        (
            json!("2020-11-24T09:12:31.079Z"),
            "down",
            "closed to its users",
        ),
        (Value::Null, "read_only", "read-only"),
        (Value::Null, "ready", ""),
    ] {
        let stub = Stub::start(move |request| {
            let target = request.target.as_str();
            if is_instance(request) {
                let told = json!({ "resource_type": "deployment", "resource_id": "d" });
                return Reply::Json(200, told);
            }
            if target.contains("/recipes/") {
                let detail = "All operations have completed successfully";
                let told = json!({ "id": "r", "status": "complete", "status_detail": detail });
                return Reply::Json(200, told);
            }
            if target.ends_with("/reliefs") {
                return Reply::Json(202, json!({ "id": "r" }));
            }
            if target.ends_with("/deployments/d") {
                let since = "2020-11-24T09:12:31.079Z";
                let health = json!({ "state": state, "reason": "closed", "since": since });
                let told = json!({ "closed_since": closed, "health": health });
                return Reply::Json(200, told);
            }
            Reply::Json(201, json!({}))
        })
        .await;
        let user = User::of(&stub.url, "ada", "word");
        user.does(&CREATE).await;
        let ran = user.run(&["make-room", "orders", "--wait"]).await;
        assert!(!ran.out.contains("All operations"), "{ran:?}");
        if how.is_empty() {
            assert_eq!(ran.code, 0, "{ran:?}");
            continue;
        }
        assert_eq!(ran.code, 1, "{ran:?}");
        assert!(
            ran.out.contains("done; there is not room enough yet"),
            "{ran:?}"
        );
        let told = ran.err.replace('\u{a0}', " ");
        let since = format!("orders is {how} since 2020-11-24 09:12:31 UTC (");
        assert!(told.contains(&since), "{told}");
        assert!(
            told.contains("compose-broker make-room orders --delete-prefix PREFIX"),
            "{told}"
        );
    }
}
