//! What clients see of a broker that is about to end: they come back by new connections, which a proxy leads
//! to another broker.

use actix_web::{
    Error,
    body::MessageBody,
    dev::{ServiceRequest, ServiceResponse},
    http::ConnectionType,
    middleware::Next,
    web,
};

use super::Api;

/// While the broker drains, has each connection of HTTP/1.1 closed with its answer.
pub async fn close_connections(
    shared: web::Data<Api>,
    request: ServiceRequest,
    next: Next<impl MessageBody>,
) -> Result<ServiceResponse<impl MessageBody>, Error> {
    let mut response = next.call(request).await?;
    if shared.readiness.is_draining() {
        let head = response.response_mut().head_mut();
        head.set_connection_type(ConnectionType::Close);
    }
    Ok(response)
}
