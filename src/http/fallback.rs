//! What is answered where no route leads: in JSON, in the form of the API that the path belongs to.

use actix_web::{
    HttpRequest, HttpResponse,
    http::{StatusCode, header},
};

use super::{compose::error::ComposeErrorBody, error::Refusal, openapi, osb::error::OsbErrorBody};

/// A path that leads nowhere.
pub async fn no_such_route(request: HttpRequest) -> HttpResponse {
    plain(
        &request,
        StatusCode::NOT_FOUND,
        "there is nothing at this path",
    )
}

/// A method that a path does not have.
pub async fn no_such_method(request: HttpRequest) -> HttpResponse {
    let mut response = plain(
        &request,
        StatusCode::METHOD_NOT_ALLOWED,
        "this path does not have this method",
    );
    let route = request.match_pattern();
    if let Some(methods) = route.and_then(|route| openapi::methods_of(&route)) {
        let methods = header::HeaderValue::from_static(methods);
        response.headers_mut().insert(header::ALLOW, methods);
    }
    response
}

fn plain(request: &HttpRequest, status: StatusCode, reason: &str) -> HttpResponse {
    let mut response = HttpResponse::build(status);
    let mut response = if request.path().starts_with("/api/") {
        response.json(ComposeErrorBody::new(reason.to_owned()))
    } else {
        response.json(OsbErrorBody::new(reason.to_owned()))
    };
    response.extensions_mut().insert(Refusal(reason.to_owned()));
    response
}
