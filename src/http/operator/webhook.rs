//! The operator's webhook, tried out.

use actix_web::{HttpResponse, web};
use serde::Serialize;
use utoipa::ToSchema;

use super::Answer;
use crate::{
    http::{Api, openapi::scalars::OwnId},
    model::ids::MessageId,
};

/// What came of a test message.
#[derive(Serialize, ToSchema)]
pub struct WebhookTest {
    /// The message.
    #[schema(value_type = OwnId)]
    message_id: MessageId,
    /// Where it went: scheme, host and port.
    webhook: String,
    /// Whether it was taken.
    taken: bool,
    /// Why not.
    #[schema(required)]
    reason: Option<String>,
}

/// Sends a test message to the webhook, once, and tells whether it was taken.
#[utoipa::path(
    post, path = "/operator/webhook/test", operation_id = "test_webhook",
    responses(
        (status = 200, description = "It was sent, or could not be", body = WebhookTest),
        (status = 409, description = "No webhook is set"),
    )
)]
pub async fn test(api: web::Data<Api>) -> Answer {
    let tested = api.broker.webhook.send().await?;
    Ok(HttpResponse::Ok().json(WebhookTest {
        message_id: tested.id,
        webhook: tested.webhook,
        taken: tested.refusal.is_none(),
        reason: tested.refusal,
    }))
}
