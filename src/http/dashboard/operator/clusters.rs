//! Where instances run: the clusters with their room and members, and the volumes.

use actix_web::{http::StatusCode, web};
use askama::Template;

use super::{Count, address, counts};
use crate::{
    broker::{Backlog, ClusterSeen},
    http::dashboard::{
        Answer, Api, INSTANCES,
        shell::{Shell, answer},
        show::{counted, duration, number},
    },
    model::{
        session::Session,
        size::size,
        volume::{Content, Level, Volume},
    },
};

#[derive(Template)]
#[template(path = "operator_clusters.html", whitespace = "minimize")]
struct ClustersPage {
    shell: Shell,
    counts: Vec<Count>,
    rows: Vec<Row>,
    volumes: Vec<VolumeRow>,
    /// Where alerts go; none where they go nowhere.
    webhook: Option<String>,
    /// The messages that wait to be taken, and since when.
    waiting: String,
}

struct Row {
    id: String,
    name: String,
    kind: &'static str,
    takes: &'static str,
    href: String,
    instances: String,
    units: String,
    free: String,
    is_full: bool,
    members: String,
    is_unwell: bool,
    reach: String,
}

struct VolumeRow {
    holds: String,
    free: String,
    total: String,
    level: &'static str,
    tone: &'static str,
    percent: u64,
}

fn count(of: u64) -> String {
    number(i64::try_from(of).unwrap_or(i64::MAX))
}

fn row(of: ClusterSeen) -> Row {
    let seen = of.members.saturating_sub(of.unseen);
    let unseen = match of.unseen {
        0 => String::new(),
        unseen => format!(", {unseen} not seen lately"),
    };
    Row {
        href: address(INSTANCES, &[("cluster", &of.cluster.id)]),
        kind: of.cluster.kind,
        takes: if of.cluster.enabled { "yes" } else { "no" },
        instances: count(of.placed.instances),
        units: count(of.placed.units),
        free: of.units_free.map_or_else(|| "any number".to_owned(), count),
        is_full: of.cluster.enabled && of.units_free == Some(0),
        members: format!("{} of {seen} serve{unseen}", of.serving),
        is_unwell: of.serving < seen,
        reach: of.cluster.exposure.reach.host.clone(),
        id: of.cluster.id,
        name: of.cluster.name,
    }
}

fn volume(of: &Volume) -> VolumeRow {
    let holds: Vec<String> = of.holds.iter().map(Content::to_string).collect();
    let used = of.space.total.saturating_sub(of.space.free);
    let percent = u128::from(used) * 100 / u128::from(of.space.total.max(1));
    VolumeRow {
        holds: holds.join(", "),
        free: size(of.space.free),
        total: size(of.space.total),
        level: match of.level {
            Level::Ample => "Enough room",
            Level::Low => "Nearly full",
            Level::Full => "Full",
        },
        tone: match of.level {
            Level::Ample => "good",
            Level::Low => "warn",
            Level::Full => "bad",
        },
        percent: u64::try_from(percent).unwrap_or(100),
    }
}

/// What of the webhook's messages waits, as a sentence.
fn waiting(of: Backlog) -> String {
    if of.waiting == 0 {
        return "No message waits.".to_owned();
    }
    let (messages, age) = (counted(of.waiting, "message"), duration(of.oldest));
    let verb = if of.waiting == 1 { "waits" } else { "wait" };
    format!("{messages} {verb}: the webhook has taken none for {age}.")
}

/// `GET /dashboard/clusters`
pub async fn page(api: web::Data<Api>, session: web::ReqData<Session>) -> Answer {
    let estate = api.broker.estates.estate().await?;
    let clusters = api.broker.estates.clusters_seen(&estate).await?;
    let mut shell = Shell::signed_in("Clusters", &api.broker, &session);
    shell.here = "clusters";
    shell.follows = true;
    let page = ClustersPage {
        counts: counts(&api, &estate).await?,
        rows: clusters.into_iter().map(row).collect(),
        volumes: api.broker.estates.volumes().iter().map(volume).collect(),
        webhook: api.broker.webhook.place(),
        waiting: waiting(api.broker.outbox.backlog().await?),
        shell,
    };
    Ok(answer(StatusCode::OK, &page))
}
