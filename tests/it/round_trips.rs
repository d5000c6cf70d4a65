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

/// How often each is asked for. What the broker does by itself falls between two of them now and then, so the one
/// with the fewest counts.
const ROUNDS: usize = 30;

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

async fn fewest(line: &Line, mut ask: impl AsyncFnMut(usize)) -> u64 {
    let mut fewest = u64::MAX;
    for round in 0..ROUNDS {
        let before = line.round_trips();
        ask(round).await;
        fewest = fewest.min(line.round_trips() - before);
    }
    fewest
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

    let catalog = fewest(&line, async |_| get(&broker, "/v2/catalog").await).await;
    let polls = fewest(&line, async |_| get(&broker, &poll).await).await;
    let fetches = fewest(&line, async |_| get(&broker, &instance).await).await;
    let held = script.hold(OperationKind::Provision, "allocate");
    let provisions = fewest(&line, async |round| {
        let accepted = broker.put_instance(&format!("n{round}"), json!({})).await;
        assert_eq!(accepted.status, StatusCode::ACCEPTED, "{accepted:?}");
    })
    .await;
    drop(held);
    let seen = [
        ("`GET /v2/catalog`", catalog),
        ("`last_operation`", polls),
        ("an instance", fetches),
        ("a provision that is accepted", provisions),
    ];
    assert_eq!(seen, seen.map(|(request, _)| (request, told(request))));
}
