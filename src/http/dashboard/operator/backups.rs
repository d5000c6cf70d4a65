//! Instances whose scheduled backup did not come, with what is known of it.

use actix_web::{HttpRequest, http::StatusCode, web};
use askama::Template;
use chrono::{DateTime, Utc};

use super::{Count, address, counts, page_number, tries};
use crate::{
    broker::MirrorView,
    http::dashboard::{
        Answer, Api, LATE_BACKUPS, path_of,
        shell::{Shell, answer},
        show::{Moment, counted},
        state::{Label, label_of_health},
    },
    model::session::Session,
};

#[derive(Template)]
#[template(path = "operator_late.html", whitespace = "minimize")]
struct LatePage {
    shell: Shell,
    counts: Vec<Count>,
    rows: Vec<Row>,
    found: String,
    newer: Option<String>,
    older: Option<String>,
    mirror: Option<Mirror>,
}

/// How much of the backups the mirror has.
struct Mirror {
    copied: String,
    waiting: String,
    late: u64,
    failure: Option<(String, Moment)>,
}

fn mirror_of(view: MirrorView, now: DateTime<Utc>) -> Mirror {
    let MirrorView { state, seen, .. } = view;
    Mirror {
        copied: counted(seen.copied, "backup"),
        waiting: counted(seen.waiting, "backup"),
        late: seen.late,
        failure: state.failure.map(|(why, at)| (why, Moment::new(at, now))),
    }
}

struct Row {
    /// What tells its row from others.
    key: String,
    href: String,
    name: String,
    id: String,
    label: Label,
    since: Moment,
    newest_good: Option<Moment>,
    last_backup: Option<Moment>,
    failures: String,
}

/// `GET /dashboard/late-backups`
pub async fn page(
    api: web::Data<Api>,
    session: web::ReqData<Session>,
    request: HttpRequest,
) -> Answer {
    let estate = api.broker.estates.estate().await?;
    let now = api.broker.clock.now();
    let found = estate.late(page_number(&request));
    let rows = found.shown.iter().filter_map(|listed| {
        let late = listed.late?;
        Some(Row {
            key: listed.instance.id.in_path(),
            href: format!("{}/backups", path_of(&listed.instance.id)),
            name: listed.name().to_owned(),
            id: listed.instance.id.to_string(),
            label: label_of_health(listed.health.state),
            since: Moment::new(late.since, now),
            newest_good: late.newest_good.map(|at| Moment::new(at, now)),
            last_backup: listed.last_backup.map(|at| Moment::new(at, now)),
            failures: match late.failures {
                0 => "none since then".to_owned(),
                failures => format!("{} in a row failed", tries(failures)),
            },
        })
    });
    let link = |page: usize| address(LATE_BACKUPS, &[("page", &page.to_string())]);
    let mirror = api.broker.mirrors.view().await?;
    let mut shell = Shell::signed_in("Late backups", &api.broker, &session);
    shell.here = "late-backups";
    shell.follows = true;
    let page = LatePage {
        rows: rows.collect(),
        found: counted(found.found, "instance"),
        newer: (found.page > 1).then(|| link(found.page - 1)),
        older: (found.page < found.pages).then(|| link(found.page + 1)),
        counts: counts(&api, &estate).await?,
        mirror: mirror.map(|view| mirror_of(view, now)),
        shell,
    };
    Ok(answer(StatusCode::OK, &page))
}
