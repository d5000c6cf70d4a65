//! Paths as clients write them whose broker address ends with a slash: `//v2/catalog`.

use actix_web::{
    Error,
    body::MessageBody,
    dev::{ServiceRequest, ServiceResponse},
    http::Uri,
    middleware::Next,
};

/// Takes several slashes in front of a path for one. Those further behind stay: a part that is
/// missing there is no part.
pub async fn one_slash_in_front<B: MessageBody>(
    mut request: ServiceRequest,
    next: Next<B>,
) -> Result<ServiceResponse<B>, Error> {
    if let Some(uri) = with_one_slash(request.uri()) {
        request.match_info_mut().get_mut().update(&uri);
        request.head_mut().uri = uri;
    }
    next.call(request).await
}

/// The address with one slash in front of its path; none where it has no more.
fn with_one_slash(uri: &Uri) -> Option<Uri> {
    let path = uri.path();
    if !path.starts_with("//") {
        return None;
    }
    let mut text = format!("/{}", path.trim_start_matches('/'));
    if let Some(query) = uri.query() {
        text.push('?');
        text.push_str(query);
    }
    let mut parts = uri.clone().into_parts();
    parts.path_and_query = Some(text.parse().ok()?);
    Uri::from_parts(parts).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_stands_in_front_is_taken_together() {
        for (uri, expected) in [
            ("//v2/catalog?a=//b", Some("/v2/catalog?a=//b")),
            ("///v2//x", Some("/v2//x")),
            ("//", Some("/")),
            ("/v2//x", None),
            ("/%2Fv2", None),
            (
                "http://broker.example//v2/catalog",
                Some("http://broker.example/v2/catalog"),
            ),
        ] {
            let uri: Uri = uri.parse().expect("an address");
            let found = with_one_slash(&uri).map(|uri| uri.to_string());
            assert_eq!(found.as_deref(), expected, "{uri}");
        }
    }
}
