//! Deleted instances whose backups are kept.

use actix_web::{HttpRequest, http::StatusCode, web};
use askama::Template;

use super::{Count, address, counts, page_number};
use crate::{
    broker::DeletedListed,
    http::dashboard::{
        Answer, Api, DELETED, parameters_of_latest,
        shell::{Shell, answer},
        show::{Moment, counted, dates_whole},
    },
    model::session::Session,
};

#[derive(Template)]
#[template(path = "operator_deleted.html", whitespace = "minimize")]
struct DeletedPage {
    shell: Shell,
    counts: Vec<Count>,
    rows: Vec<Row>,
    newer: Option<String>,
    older: Option<String>,
}

struct Row {
    /// The deployment that was behind it, which tells its row from others.
    deployment: String,
    name: String,
    id: String,
    owner: String,
    version: String,
    deleted_at: Moment,
    backups: String,
    newest: Option<Moment>,
    kept_until: Moment,
    failure: Option<String>,
    /// The parameters of a provision that makes a new instance of its newest backup.
    parameters: String,
}

/// `GET /dashboard/deleted`
pub async fn page(
    api: web::Data<Api>,
    session: web::ReqData<Session>,
    request: HttpRequest,
) -> Answer {
    let now = api.broker.clock.now();
    let number = page_number(&request).max(1);
    let (found, has_more) = api.broker.retention.deleted.page(number).await?;
    let row = |listed: DeletedListed| {
        let of = listed.deleted;
        Row {
            name: of.name.unwrap_or_else(|| of.instance.to_string()),
            id: of.instance.to_string(),
            owner: format!("{} / {}", of.tenant.organization, of.tenant.space),
            version: format!("{} {}", of.engine, of.version),
            deleted_at: Moment::new(of.deleted_at, now),
            backups: counted(listed.backups, "backup"),
            newest: listed.newest.map(|(_, at)| Moment::new(at, now)),
            kept_until: Moment::new(of.kept_until, now),
            failure: of.final_backup_failure.as_deref().map(dates_whole),
            parameters: parameters_of_latest(&of.instance),
            deployment: of.deployment.to_string(),
        }
    };
    let link = |page: usize| address(DELETED, &[("page", &page.to_string())]);
    let estate = api.broker.estates.estate().await?;
    let mut shell = Shell::signed_in("Deleted instances", &api.broker, &session);
    shell.here = "deleted";
    shell.follows = true;
    let page = DeletedPage {
        rows: found.into_iter().map(row).collect(),
        newer: (number > 1).then(|| link(number - 1)),
        older: has_more.then(|| link(number + 1)),
        counts: counts(&api, &estate).await?,
        shell,
    };
    Ok(answer(StatusCode::OK, &page))
}
