//! For operators: what concerns the broker as a whole. The platform's own credentials let in.

use actix_web::{
    Error, HttpRequest, HttpResponse, ResponseError as _,
    body::{EitherBody, MessageBody},
    dev::{ServiceRequest, ServiceResponse},
    middleware::Next,
    web,
};
use serde_json::json;

use super::{
    Api,
    error::OsbError,
    request::{check_basic, query},
};

type Answer = Result<HttpResponse, OsbError>;

/// Lets a request in that has the broker's credentials.
pub async fn guard<B: MessageBody + 'static>(
    api: web::Data<Api>,
    request: ServiceRequest,
    next: Next<B>,
) -> Result<ServiceResponse<EitherBody<B>>, Error> {
    match check_basic(request.headers(), &api) {
        Ok(()) => Ok(next.call(request).await?.map_into_left_body()),
        Err(error) => {
            let response = OsbError(error).error_response();
            Ok(request.into_response(response).map_into_right_body())
        }
    }
}

/// `GET /operator/reconciliation`: where store and backup store disagree.
pub async fn reconciliation(api: web::Data<Api>) -> Answer {
    let findings = api.broker.reconciliation().await?;
    Ok(HttpResponse::Ok().json(json!({ "findings": findings })))
}

/// `POST /operator/reconciliation`: repairs; `?delete_leftovers=true` deletes bytes too.
pub async fn reconcile(api: web::Data<Api>, request: HttpRequest) -> Answer {
    let delete = query(&request, "delete_leftovers").as_deref() == Some("true");
    let findings = api.broker.reconcile(delete).await?;
    Ok(HttpResponse::Ok().json(json!({ "findings": findings })))
}
