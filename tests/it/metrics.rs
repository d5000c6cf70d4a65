//! What Prometheus is told, to whom, and whether pages, rules and board name what there is.

use std::{collections::BTreeSet, fs, path::Path, process::Command};

use reqwest::{Method, StatusCode, header::CONTENT_TYPE};

use crate::{
    broker::{TestBroker, eventually},
    control::surroundings,
    process::{BrokerProcess, free_port, refused, settings},
    proofs,
    skipped::skipped,
};

/// In front of each of our names.
const PREFIX: &str = "compose_broker_";
/// Told only where the broker speaks TLS itself.
const WITH_TLS: &str = "compose_broker_listener_certificate_end_timestamp_seconds";
const TOKEN: &str = "a-token-of-scrapes";

/// The page that a scrape gets with the platform's credentials.
async fn scraped(broker: &TestBroker) -> String {
    let response = broker.osb(Method::GET, "/metrics").send().await;
    let response = response.expect("an answer");
    assert_eq!(response.status(), StatusCode::OK);
    let kind = response.headers()[CONTENT_TYPE].to_str().expect("a text");
    assert!(kind.starts_with("application/openmetrics-text"), "{kind}");
    response.text().await.expect("a text")
}

/// Names of ours that a text has, as far as the metric's name goes.
fn names(text: &str) -> BTreeSet<String> {
    let is_name = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_';
    let words = text.split(|c: char| !is_name(c));
    words
        .filter(|word| word.starts_with(PREFIX))
        .map(str::to_owned)
        .collect()
}

/// The names of a page's metrics: of a histogram the one without what stands behind it.
fn told(page: &str) -> BTreeSet<String> {
    let types = page.lines().filter_map(|line| line.strip_prefix("# TYPE "));
    let named = types.filter_map(|line| line.split_once(' '));
    named
        .map(|(name, kind)| match kind {
            "counter" => format!("{name}_total"),
            _ => name.to_owned(),
        })
        .collect()
}

fn read(path: &str) -> String {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    fs::read_to_string(root.join(path)).expect(path)
}

/// The metrics that the page for operators has a row of.
fn documented() -> BTreeSet<String> {
    let page = read("docs/operating/metrics.md");
    let rows = page.lines().filter(|line| line.starts_with("| `"));
    let first = rows.filter_map(|row| row.split('|').nth(1));
    first.flat_map(names).collect()
}

/// Without what stands behind the name of a histogram.
fn of_metric(name: &str) -> &str {
    let behind = ["_bucket", "_count", "_sum"];
    let found = behind.iter().find_map(|end| name.strip_suffix(end));
    found
        .filter(|name| name.ends_with("_seconds"))
        .unwrap_or(name)
}

#[tokio::test(flavor = "multi_thread")]
async fn every_figure_is_on_the_page_for_operators_and_no_other_is() {
    let folder = tempfile::tempdir().expect("a folder");
    let mirror = format!("file://{}", folder.path().join("mirror").display());
    let flags = [&proofs::ON[..], &["--backup-mirror", &mirror]].concat();
    let broker = TestBroker::in_memory_with(&flags, surroundings()).await;
    broker.provision("db", serde_json::json!({})).await;
    let credentials = broker.bind("db", "app").await;
    broker.back_up(&credentials).await;
    let page = eventually("a backup in the metrics", || async {
        let page = scraped(&broker).await;
        let is_whole = |page: &str| {
            [
                "instance_backup_last_success_size_bytes",
                "instance_backup_last_proved_timestamp_seconds",
                "instance_storage_used_bytes",
            ]
            .iter()
            .all(|name| page.contains(&format!("{PREFIX}{name}{{instance_id=\"db\"}}")))
        };
        is_whole(&page).then_some(page)
    })
    .await;
    let mut known = documented();
    assert!(known.remove(WITH_TLS));
    assert_eq!(told(&page), known);
    let value = |series: &str| {
        let line = page.lines().find_map(|line| line.strip_prefix(series));
        let line = line.unwrap_or_else(|| panic!("{series} in {page}"));
        line.trim().parse::<f64>().expect("a number")
    };
    let of = |name: &str| value(&format!("{PREFIX}{name}"));
    assert_eq!(of("store_up "), 1.0);
    assert_eq!(of("instances{health=\"ready\"} "), 1.0);
    assert_eq!(of("members_up "), of("members "));
    assert_eq!(of("backups_late "), 0.0);
    assert_eq!(of("backups_unproved{state=\"never\"} "), 0.0);
    assert!(of("http_connections ") >= 1.0);
    let succeeded =
        |kind| format!("operations_ended_total{{kind=\"{kind}\",state=\"succeeded\"}} ");
    for kind in ["provision", "bind", "backup"] {
        assert_eq!(of(&succeeded(kind)), 1.0, "{kind}");
    }
    let bind = "{method=\"PUT\",route=\"/v2/service_instances/{instance}/service_bindings/{binding}\",status=\"201\"} ";
    assert_eq!(of(&format!("http_requests_total{bind}")), 1.0);
    assert!(of("volume_free_bytes{content=\"backups\",cluster=\"\"} ") > 0.0);
    assert!(!page.contains("route=\"/metrics\",status=\"401\""));
}

#[tokio::test(flavor = "multi_thread")]
async fn scrapes_are_for_those_who_may_and_an_address_of_its_own_has_nothing_else() {
    let port = free_port();
    let mut broker = BrokerProcess::stopped_with(|settings| {
        settings.insert("METRICS_LISTEN", format!("127.0.0.1:{port}"));
        settings.insert("METRICS_TOKEN", TOKEN.to_owned());
        settings.insert("METRICS_INSTANCES", "0".to_owned());
    });
    broker.start_again().await;
    let client = reqwest::Client::new();
    let aside = format!("http://127.0.0.1:{port}");
    for url in [&broker.url, &aside] {
        let metrics = || client.get(format!("{url}/metrics"));
        for (request, status) in [
            (metrics(), StatusCode::UNAUTHORIZED),
            (
                metrics().bearer_auth("another-token-here"),
                StatusCode::UNAUTHORIZED,
            ),
            (
                metrics().basic_auth("ada", Some("wrong")),
                StatusCode::UNAUTHORIZED,
            ),
            (metrics().bearer_auth(TOKEN), StatusCode::OK),
            (metrics().basic_auth("ada", Some("word")), StatusCode::OK),
        ] {
            let answer = request.send().await.expect("an answer");
            assert_eq!(answer.status(), status, "{url}");
        }
    }
    for path in ["/v2/catalog", "/operator/instances", "/dashboard"] {
        let request = client.get(format!("{aside}{path}"));
        let answer = request.basic_auth("ada", Some("word")).send().await;
        assert_eq!(
            answer.expect("an answer").status(),
            StatusCode::NOT_FOUND,
            "{path}"
        );
    }
    assert!(!broker.logged().contains(TOKEN));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_setting_of_metrics_that_cannot_be_used_is_told() {
    let folder = tempfile::tempdir().expect("a folder");
    for (setting, value) in [
        ("METRICS_LISTEN", "localhost"),
        ("METRICS_TOKEN", "hidden"),
        ("METRICS_INSTANCES", "10001"),
    ] {
        let mut settings = settings(folder.path());
        settings.insert(setting, value.to_owned());
        let refused = refused(&settings).await;
        crate::process::assert_one_line(&refused, &format!("COMPOSE_BROKER_{setting}"));
    }
}

#[test]
fn rules_and_board_ask_for_what_there_is() {
    let known = documented();
    for path in [
        "deploy/prometheus/rules.yml",
        "deploy/prometheus/rules_test.yml",
        "deploy/prometheus/prometheus.yml",
        "deploy/grafana/compose-broker.json",
    ] {
        let text = read(path);
        let asked = names(&text);
        let unknown: Vec<_> = asked
            .iter()
            .filter(|name| !known.contains(of_metric(name)))
            .collect();
        assert!(unknown.is_empty(), "{path}: {unknown:?}");
        assert!(
            !asked.is_empty() || path.ends_with("prometheus.yml"),
            "{path}"
        );
    }
    let board: serde_json::Value =
        serde_json::from_str(&read("deploy/grafana/compose-broker.json")).expect("JSON");
    let panels = board["panels"].as_array().expect("panels");
    let mut ids = BTreeSet::new();
    for panel in panels {
        assert!(ids.insert(panel["id"].as_u64().expect("an id")), "{panel}");
    }
}

#[test]
fn the_board_adds_up_what_each_broker_sees_of_its_own_clusters() {
    let board = read("deploy/grafana/compose-broker.json");
    for metric in [
        "instances",
        "members",
        "members_up",
        "backups_late",
        "backups_failing",
    ] {
        let asked = format!("(compose_broker_{metric})");
        let before: Vec<&str> = board.split(&asked).collect();
        let [before, _] = before[..] else {
            panic!("{metric} is asked for {} times", before.len() - 1);
        };
        let is_added = before.ends_with("sum") || before.ends_with("sum by (health) ");
        assert!(is_added, "{metric}");
    }
}

#[test]
fn each_rule_says_how_bad_it_is_and_what_to_do() {
    let rules = read("deploy/prometheus/rules.yml");
    let each: Vec<&str> = rules.split("- alert: ").skip(1).collect();
    let mut seen = BTreeSet::new();
    for rule in &each {
        let name = rule.lines().next().expect("a name");
        assert!(seen.insert(name), "{name} is there twice");
        for part in [
            "expr:",
            "severity:",
            "summary:",
            "description:",
            "page: docs/operating/",
        ] {
            assert!(rule.contains(part), "{name} has no {part}");
        }
        let page = rule
            .split("page: ")
            .nth(1)
            .and_then(|rest| rest.lines().next());
        let page = page.expect("a page").split('#').next().expect("a path");
        let there = Path::new(env!("CARGO_MANIFEST_DIR")).join(page.trim());
        assert!(there.exists(), "{name}: {page}");
    }
    assert!(each.len() >= 15, "{}", each.len());
}

#[test]
fn each_rule_has_a_test_that_sees_it_fire() {
    let rules = read("deploy/prometheus/rules.yml");
    let tests = read("deploy/prometheus/rules_test.yml");
    let tried = |name: &str| {
        let fires = format!("labels: '{{alertname=\"{name}\"}}', value: 1");
        let told = format!("alertname: {name}\n        exp_alerts:\n");
        tests.contains(&fires) || tests.contains(&told)
    };
    let names = rules.split("- alert: ").skip(1);
    let untried: Vec<_> = names
        .filter_map(|rule| rule.lines().next())
        .filter(|name| !tried(name))
        .collect();
    assert!(untried.is_empty(), "no test sees {untried:?} fire");
    assert!(!tried("ComposeBrokerNoSuchRule"));
}

/// Prometheus' own tool, as setup fetched it or as the machine has it.
fn promtool() -> Option<Command> {
    let fetched = Path::new(env!("CARGO_MANIFEST_DIR")).join("tools/promtool/promtool");
    let program = if fetched.exists() {
        fetched.into_os_string()
    } else {
        "promtool".into()
    };
    let runs = Command::new(&program).arg("--version").output().is_ok();
    runs.then(|| Command::new(program))
}

/// The end of `promtool` on files of ours, and what it said.
fn checked(arguments: &[&str]) -> Option<(bool, String)> {
    let mut tool = promtool()?;
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("deploy/prometheus");
    let ended = tool.args(arguments).current_dir(folder).output();
    let ended = ended.expect("an end");
    let mut said = String::from_utf8_lossy(&ended.stdout).into_owned();
    said.push_str(&String::from_utf8_lossy(&ended.stderr));
    Some((ended.status.success(), said))
}

#[test]
fn prometheus_takes_the_rules_and_they_fire_when_they_should() {
    for arguments in [
        ["check", "config", "--syntax-only", "prometheus.yml"].as_slice(),
        &["check", "rules", "rules.yml"],
        &["test", "rules", "rules_test.yml"],
    ] {
        let Some((good, said)) = checked(arguments) else {
            skipped("promtool", "it is not here (scripts/setup.sh --rules)");
            return;
        };
        assert!(good, "{arguments:?}: {said}");
        assert!(said.contains("SUCCESS"), "{arguments:?}: {said}");
    }
}
