//! The limit on requests, in front of everything that they ask for.

use actix_web::{
    Error, ResponseError,
    body::{EitherBody, MessageBody},
    dev::{ServiceRequest, ServiceResponse},
    middleware::Next,
    web,
};

use super::{
    Api,
    error::HttpError,
    origin::{Client, ClientAddress},
};

/// Lets a request in unless too many came from its address; `E` is how this is told.
pub async fn limited<E, B>(
    api: web::Data<Api>,
    request: ServiceRequest,
    next: Next<B>,
) -> Result<ServiceResponse<EitherBody<B>>, Error>
where
    E: From<HttpError> + ResponseError,
    B: MessageBody + 'static,
{
    let address = ClientAddress::of(request.request());
    let counted = match (&api.rates, address) {
        (Some(rates), Some(address)) => rates.count(Client::at(address)),
        _ => Ok(()),
    };
    match counted {
        Ok(()) => Ok(next.call(request).await?.map_into_left_body()),
        Err(error) => {
            let response = E::from(error).error_response();
            Ok(request.into_response(response).map_into_right_body())
        }
    }
}
