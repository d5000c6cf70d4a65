//! For operators: what concerns the broker as a whole. The platform's own credentials let in.

use actix_web::{
    Error, HttpRequest, HttpResponse, ResponseError as _,
    body::{EitherBody, MessageBody},
    dev::{ServiceRequest, ServiceResponse},
    middleware::Next,
    web,
};
use chrono::SecondsFormat;
use serde_json::{Value, json};

use super::{
    Api,
    error::{HttpError, OsbError},
    request::{check_basic, query},
};
use crate::{
    broker::{AuditPage, AuditQuery},
    model::audit::AuditEntry,
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

/// `GET /operator/audit`: who had what done, newest first; `?instance=`, `?before=`, `?limit=`.
pub async fn audit(api: web::Data<Api>, request: HttpRequest) -> Answer {
    let wrong = |name: &str| HttpError::bad_request(format!("{name} is not what it should be"));
    let number = |name: &str| -> Result<Option<i64>, HttpError> {
        let text = query(&request, name).filter(|text| !text.is_empty());
        let number = text.map(|text| text.parse()).transpose();
        number.map_err(|_| wrong(name))
    };
    let instance = query(&request, "instance").filter(|id| !id.is_empty());
    let asked = AuditQuery {
        instance: instance
            .map(|id| id.parse())
            .transpose()
            .map_err(|_| wrong("instance"))?,
        before: number("before")?,
        limit: number("limit")?,
    };
    let AuditPage { entries, next } = api.broker.audit(asked).await?;
    let entries: Vec<Value> = entries.iter().map(entry).collect();
    Ok(HttpResponse::Ok().json(json!({ "entries": entries, "next_before": next })))
}

fn entry(entry: &AuditEntry) -> Value {
    json!({
        "id": entry.id,
        "at": entry.at.to_rfc3339_opts(SecondsFormat::Millis, true),
        "action": entry.action,
        "origin": entry.origin,
        "instance_id": entry.instance,
        "binding_id": entry.binding,
        "operation": entry.operation,
        "platform": entry.platform,
        "user": entry.user,
        "request_id": entry.request_id,
    })
}
