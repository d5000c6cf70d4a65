//! Who had what done and who got to see what, as a page.

use actix_web::{HttpRequest, http::StatusCode, web};
use askama::Template;

use super::{Count, Meant, address, counts};
use crate::{
    broker::AuditQuery,
    http::dashboard::{
        AUDIT, Answer, Api, OPERATIONS, path_of,
        shell::{Shell, answer},
        show::Moment,
    },
    http::request::query,
    model::{audit::AuditEntry, instance::Names, limits::ROWS_ON_A_PAGE, session::Session},
};

#[derive(Template)]
#[template(path = "operator_audit.html", whitespace = "minimize")]
struct AuditPage {
    shell: Shell,
    counts: Vec<Count>,
    instance: String,
    rows: Vec<Row>,
    newest: Option<String>,
    older: Option<String>,
    /// Those that are called as was asked for, where it is several.
    called: Vec<(String, String)>,
}

struct Row {
    id: i64,
    at: Moment,
    what: String,
    times: Option<String>,
    who: String,
    way: &'static str,
    address: String,
    instance: Option<Instance>,
    about: String,
    operation: Option<(String, String)>,
}

/// What an entry is about.
struct Instance {
    href: String,
    /// What people call it, where that is known.
    name: Option<String>,
    id: String,
}

/// `GET /dashboard/audit`
pub async fn page(
    api: web::Data<Api>,
    session: web::ReqData<Session>,
    request: HttpRequest,
) -> Answer {
    let asked = query(&request, "instance").unwrap_or_default();
    let instance = asked.trim().to_owned();
    let before = query(&request, "before").and_then(|before| before.parse().ok());
    let estate = api.broker.estates.estate().await?;
    let meant = Meant::by(&instance, &estate);
    let found = if matches!(meant, Meant::Several(_) | Meant::Nobody) {
        crate::broker::AuditPage {
            entries: Vec::new(),
            names: Names::new(),
            next: None,
        }
    } else {
        let asked = AuditQuery {
            instance: meant.one(),
            before,
            limit: Some(ROWS_ON_A_PAGE),
        };
        api.broker.audit.newest(asked).await?
    };
    let now = api.broker.clock.now();
    let older = found.next.map(|next| {
        let before = next.to_string();
        address(AUDIT, &[("instance", &instance), ("before", &before)])
    });
    let mut shell = Shell::signed_in("Audit", &api.broker, &session);
    shell.here = "audit";
    shell.follows = true;
    let page = AuditPage {
        counts: counts(&api, &estate).await?,
        rows: (found.entries.into_iter())
            .map(|of| row(of, &found.names, now))
            .collect(),
        newest: before.map(|_: i64| address(AUDIT, &[("instance", &instance)])),
        older,
        called: meant.links(AUDIT),
        instance,
        shell,
    };
    Ok(answer(StatusCode::OK, &page))
}

fn row(of: AuditEntry, names: &Names, now: chrono::DateTime<chrono::Utc>) -> Row {
    let what = of.words();
    let about = [
        of.binding.map(|id| format!("binding {id}")),
        of.backup.map(|id| format!("backup {id}")),
    ];
    let about: Vec<String> = about.into_iter().flatten().collect();
    Row {
        id: of.id,
        at: Moment::new(of.at, now),
        what,
        times: (of.times > 1).then(|| format!("{} times", of.times)),
        who: match (of.user, of.platform) {
            (Some(user), Some(platform)) => format!("{user} ({platform})"),
            (Some(name), None) | (None, Some(name)) => name,
            (None, None) => String::new(),
        },
        way: of.origin.words(),
        address: of.address.unwrap_or_default(),
        instance: of.instance.map(|id| Instance {
            href: path_of(&id),
            // One that is its id says nothing more.
            name: names.get(&id).filter(|name| *name != id.as_str()).cloned(),
            id: id.to_string(),
        }),
        about: about.join(", "),
        operation: of
            .operation
            .map(|id| (format!("{OPERATIONS}/{id}"), id.to_string())),
    }
}
