//! Ids in paths. Each API has its own answer to one that cannot be: the extractor beside its handlers.

use std::{collections::HashMap, str::FromStr};

use actix_web::{FromRequest as _, HttpRequest, web};

use super::error::HttpError;
use crate::model::ids::{
    BackupId, BindingId, DeploymentId, IdError, InstanceId, LogfileId, OperationId,
};

/// An id that has a place in routes.
pub trait PathId: FromStr<Err = IdError> {
    /// The place's name, and what people are told that it is.
    const PLACE: &'static str;
}

impl PathId for InstanceId {
    const PLACE: &'static str = "instance";
}

impl PathId for BindingId {
    const PLACE: &'static str = "binding";
}

impl PathId for DeploymentId {
    const PLACE: &'static str = "deployment";
}

impl PathId for BackupId {
    const PLACE: &'static str = "backup";
}

impl PathId for LogfileId {
    const PLACE: &'static str = "logfile";
}

impl PathId for OperationId {
    const PLACE: &'static str = "operation";
}

/// The id in a request's path, decoded once.
pub fn path_id<T: PathId>(request: &HttpRequest) -> Result<T, HttpError> {
    let wrong = |reason: String| HttpError::bad_request(format!("the {} id {reason}", T::PLACE));
    let mut ids = web::Path::<HashMap<String, String>>::extract(request)
        .into_inner()
        .map_err(|e| wrong(e.to_string()))?
        .into_inner();
    let text = ids.remove(T::PLACE).unwrap_or_default();
    // What is not UTF-8 comes as replacement characters: two such ids would be one.
    if text.contains(char::REPLACEMENT_CHARACTER) {
        return Err(wrong("is not UTF-8".to_owned()));
    }
    text.parse().map_err(|e: IdError| wrong(e.to_string()))
}
