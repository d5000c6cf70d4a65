//! Ids in paths. Each API has its own answer to one that cannot be: the extractor beside its handlers.

use std::str::FromStr;

use actix_web::{FromRequest as _, HttpRequest, web};
use serde::Deserialize;

use super::error::HttpError;
use crate::model::ids::{
    BackupId, BindingId, DeploymentId, IdError, InstanceId, LogfileId, OperationId,
};

/// The ids that a path holds, decoded; each route has some of them.
#[derive(Default, Deserialize)]
#[serde(default)]
pub struct PathIds {
    instance: Option<String>,
    binding: Option<String>,
    deployment: Option<String>,
    pub(super) backup: Option<String>,
    pub(super) recipe: Option<String>,
    logfile: Option<String>,
    operation: Option<String>,
}

/// An id that has a place in routes.
pub trait PathId: FromStr<Err = IdError> {
    /// The place's name in routes, and what people are told that it is.
    const PLACE: &'static str;

    /// What a path has in that place; none where its route has no such place.
    fn in_path(ids: PathIds) -> Option<String>;
}

impl PathId for InstanceId {
    const PLACE: &'static str = "instance";

    fn in_path(ids: PathIds) -> Option<String> {
        ids.instance
    }
}

impl PathId for BindingId {
    const PLACE: &'static str = "binding";

    fn in_path(ids: PathIds) -> Option<String> {
        ids.binding
    }
}

impl PathId for DeploymentId {
    const PLACE: &'static str = "deployment";

    fn in_path(ids: PathIds) -> Option<String> {
        ids.deployment
    }
}

impl PathId for BackupId {
    const PLACE: &'static str = "backup";

    fn in_path(ids: PathIds) -> Option<String> {
        ids.backup
    }
}

impl PathId for LogfileId {
    const PLACE: &'static str = "logfile";

    fn in_path(ids: PathIds) -> Option<String> {
        ids.logfile
    }
}

impl PathId for OperationId {
    const PLACE: &'static str = "operation";

    fn in_path(ids: PathIds) -> Option<String> {
        ids.operation
    }
}

/// The id in a request's path, decoded once.
///
/// # Panics
///
/// When the request's route has no such place: its handler asks for what it never gets.
pub fn path_id<T: PathId>(request: &HttpRequest) -> Result<T, HttpError> {
    let wrong = |reason: String| HttpError::bad_request(format!("the {} id {reason}", T::PLACE));
    let ids = web::Path::<PathIds>::extract(request)
        .into_inner()
        .map_err(|e| wrong(e.to_string()))?
        .into_inner();
    let text = T::in_path(ids).expect("a handler asks for the ids that its route has");
    // What is not UTF-8 comes as replacement characters: two such ids would be one.
    if text.contains(char::REPLACEMENT_CHARACTER) {
        return Err(wrong("is not UTF-8".to_owned()));
    }
    text.parse().map_err(|e: IdError| wrong(e.to_string()))
}

#[cfg(test)]
mod tests {
    use actix_web::test::TestRequest;

    use super::*;

    #[test]
    fn an_id_is_read_from_its_own_place() {
        let own = "0123456789abcdef01234567";
        let request = TestRequest::default()
            .param("instance", "a%2Fb")
            .param("backup", own)
            .to_http_request();
        let instance: InstanceId = path_id(&request).expect("an id");
        let backup: BackupId = path_id(&request).expect("an id");
        assert_eq!((instance.as_str(), backup.as_str()), ("a/b", own));
        let empty = TestRequest::default()
            .param("binding", "")
            .to_http_request();
        let empty = path_id::<BindingId>(&empty).map_err(|e| e.to_string());
        assert_eq!(empty.expect_err("none"), "the binding id is empty");
    }

    #[test]
    #[should_panic(expected = "a handler asks for the ids that its route has")]
    fn an_id_that_the_route_has_no_place_for_is_the_handler_s_fault() {
        let request = TestRequest::default()
            .param("instance", "mine")
            .to_http_request();
        let _ = path_id::<BindingId>(&request);
    }
}
