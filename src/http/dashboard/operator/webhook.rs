//! The operator's webhook, tried out from a page.

use actix_web::{http::StatusCode, web};
use askama::Template;

use crate::{
    broker::Tested,
    http::dashboard::{
        Answer, Api, CLUSTERS, form_of,
        shell::{Shell, answer},
    },
    model::session::Session,
};

#[derive(Template)]
#[template(path = "operator_webhook.html", whitespace = "minimize")]
struct TestedPage {
    shell: Shell,
    tested: Tested,
    back: &'static str,
}

/// `POST /dashboard/webhook/test`: sends a test message, and shows what came of it.
pub async fn test(
    api: web::Data<Api>,
    session: web::ReqData<Session>,
    payload: web::Payload,
) -> Answer {
    form_of(&api, &session, payload).await?;
    let tested = api.broker.webhook.send().await?;
    let mut shell = Shell::signed_in("Webhook", &api.broker, &session);
    shell.here = "clusters";
    let page = TestedPage {
        shell,
        tested,
        back: CLUSTERS,
    };
    Ok(answer(StatusCode::OK, &page))
}
