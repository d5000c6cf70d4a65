//! How often a request waits for a server of PostgreSQL: as often as docs/performance.md says.

use std::fs;

use compose_broker::model::operation::OperationKind;
use reqwest::{Method, StatusCode};
use serde_json::json;

use crate::{
    broker::{TestBroker, answer, instance_path, text},
    control::Script,
    line::Line,
    together::Common,
};

/// How often each is asked for, and as many times more as it takes to see what is told. What the broker does by itself
/// falls into most of them on a busy machine, so the one with the fewest counts.
const ROUNDS: usize = 10;
const ROUNDS_MAX: usize = 400;

/// What stands in the table of the document.
fn told(request: &str) -> u64 {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/docs/performance.md");
    let document = fs::read_to_string(path).expect("a document");
    let (_, section) = (document.split_once("## Over PostgreSQL")).expect("a section");
    let row = format!("| {request} | ");
    let row = section.lines().find_map(|line| line.strip_prefix(&row));
    let figure = row.and_then(|row| row.split(' ').next());
    let figure = figure.unwrap_or_else(|| panic!("no row of {request}"));
    figure.parse().expect("a figure")
}

/// A request, and how often it waits for the server. Each of them ends with a commit, which wakes those who look for
/// work: they may be faster than the answer.
async fn fewest<'a>(
    line: &Line,
    request: &'a str,
    mut ask: impl AsyncFnMut(usize),
) -> (&'a str, u64) {
    let (told, mut fewest) = (told(request), u64::MAX);
    for round in 0..ROUNDS_MAX {
        let before = line.round_trips();
        ask(round).await;
        fewest = fewest.min(line.round_trips_to_commit().saturating_sub(before));
        if round >= ROUNDS && fewest <= told {
            break;
        }
    }
    (request, fewest)
}

async fn get(broker: &TestBroker, path: &str) {
    let told = answer(broker.osb(Method::GET, path)).await;
    assert_eq!(told.status, StatusCode::OK, "{told:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn requests_wait_for_the_server_as_often_as_is_told() {
    let Some(common) = Common::new() else {
        return;
    };
    let (line, url) = Line::to_server_of(&common.url);
    let script = Script::default();
    let broker = common.broker_at(&url, script.surroundings()).await;
    let accepted = broker.put_instance("i", json!({})).await;
    broker.instance_end("i", &accepted.body).await;
    let operation = text(&accepted.body["operation"]);
    let instance = instance_path("i");
    let poll = format!("{instance}/last_operation?operation={operation}");

    let get = async |path: &str| get(&broker, path).await;
    let catalog = fewest(&line, "`GET /v2/catalog`", async |_| {
        get("/v2/catalog").await
    })
    .await;
    let polls = fewest(&line, "`last_operation`", async |_| get(&poll).await).await;
    let fetches = fewest(&line, "an instance", async |_| get(&instance).await).await;
    let held = script.hold(OperationKind::Provision, "allocate");
    let provisions = fewest(&line, "a provision that is accepted", async |round| {
        let accepted = broker.put_instance(&format!("n{round}"), json!({})).await;
        assert_eq!(accepted.status, StatusCode::ACCEPTED, "{accepted:?}");
    })
    .await;
    drop(held);
    let seen = [catalog, polls, fetches, provisions];
    assert_eq!(seen, seen.map(|(request, _)| (request, told(request))));
}
