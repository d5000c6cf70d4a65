//! Figures for Prometheus: one page, made at most every few seconds, however many ask.

use actix_web::{HttpRequest, HttpResponse, web};
use subtle::ConstantTimeEq as _;
use tokio::time::timeout;

use super::{
    Api,
    error::HttpError,
    operator::error::OperatorError,
    origin::ClientAddress,
    request::{bearer, check_operator},
};
use crate::{
    broker::BrokerError,
    metrics::Page,
    model::{failure::chain, limits::SCRAPE_TIMEOUT, throttle::Door},
};

/// The form of the page.
const OPEN_METRICS: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// Tells all figures to who shows the token, or an operator's credentials.
pub async fn scrape(
    api: web::Data<Api>,
    request: HttpRequest,
) -> Result<HttpResponse, OperatorError> {
    check(&request, &api)?;
    Ok(answer(&api).await)
}

/// The same at the address that metrics have for themselves: where there is no token, everybody
/// who reaches it is let in.
pub async fn scrape_aside(
    api: web::Data<Api>,
    request: HttpRequest,
) -> Result<HttpResponse, OperatorError> {
    if api.scrapes.token.is_some() {
        check(&request, &api)?;
    }
    Ok(answer(&api).await)
}

fn check(request: &HttpRequest, api: &Api) -> Result<(), HttpError> {
    let (Some(shown), Some(token)) = (bearer(request.headers()), &api.scrapes.token) else {
        return check_operator(request, api);
    };
    let address = ClientAddress::of(request);
    let sessions = &api.broker.sessions;
    if let Some(ClientAddress(address)) = address {
        sessions.may_show_credentials(address, Door::Api)?;
    }
    // Digests have one length, whatever was sent.
    let digest = |text: &str| ring::digest::digest(&ring::digest::SHA256, text.as_bytes());
    if bool::from(
        digest(shown)
            .as_ref()
            .ct_eq(digest(token.expose()).as_ref()),
    ) {
        return Ok(());
    }
    if let Some(ClientAddress(address)) = address {
        sessions.credentials_were_wrong(address, Door::Api);
    }
    Err(HttpError::Unauthorized)
}

async fn answer(api: &Api) -> HttpResponse {
    let page = api.scrapes.page(page(api)).await;
    HttpResponse::Ok().content_type(OPEN_METRICS).body(page)
}

async fn page(api: &Api) -> String {
    let broker = &api.broker;
    let asked = async {
        let work = broker.rounds.work().await?;
        Ok::<_, BrokerError>((work, broker.mirrors.seen().await?))
    };
    let seen = match timeout(SCRAPE_TIMEOUT, asked).await {
        Ok(Ok(seen)) => Some(seen),
        Ok(Err(error)) => {
            log::warn!("metrics lack what the store holds: {}", chain(&error));
            None
        }
        Err(_) => None,
    };
    let page = |page: &mut Page| {
        let labels = vec![crate::metrics::label("version", env!("CARGO_PKG_VERSION"))];
        page.gauges("build_info", "The broker; always 1", [(labels, 1.0)]);
        page.gauge(
            "store_up",
            "Whether the store answered this scrape",
            f64::from(u8::from(seen.is_some())),
        );
        if let Some((work, mirror)) = &seen {
            page.work(work, broker.clock.now());
            if let Some(mirror) = mirror {
                page.mirror(mirror, broker.clock.now());
            }
        }
        page.volumes(&broker.estates.volumes());
        let in_doubt = broker.time.clock_state().doubt.is_some();
        page.gauge(
            "clock_in_doubt",
            "Whether the clock differs from the time that has passed",
            f64::from(u8::from(in_doubt)),
        );
    };
    api.metrics.page(page)
}
