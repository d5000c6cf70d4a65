//! Ids in the paths of the Compose API.

use std::{
    future::{Ready, ready},
    str::FromStr,
};

use actix_web::{FromRequest, HttpRequest, dev::Payload};

use super::error::ComposeError;
use crate::{
    broker::BrokerError,
    http::{
        error::HttpError,
        id::{PathId, PathIds, path_id},
    },
    model::ids::{DeploymentId, IdError, InstanceId, OperationId},
};

/// An id in the path. One that cannot be is as unknown as any other.
pub struct Id<T>(pub T);

impl<T: PathId> FromRequest for Id<T> {
    type Error = ComposeError;
    type Future = Ready<Result<Self, ComposeError>>;

    fn from_request(request: &HttpRequest, _: &mut Payload) -> Self::Future {
        ready(known(request).map(Self).map_err(ComposeError))
    }
}

/// The id in the path of a request. One that cannot be is as unknown as any other.
pub fn known<T: PathId>(request: &HttpRequest) -> Result<T, HttpError> {
    path_id(request).map_err(|_| unknown(T::PLACE))
}

fn unknown(what: &str) -> HttpError {
    BrokerError::NotFound(format!("there is no such {what}")).into()
}

/// The id of a recipe, which is an operation in this API's words.
pub struct RecipeId(pub OperationId);

impl FromStr for RecipeId {
    type Err = IdError;

    fn from_str(text: &str) -> Result<Self, IdError> {
        text.parse().map(Self)
    }
}

impl PathId for RecipeId {
    const PLACE: &'static str = "recipe";

    fn in_path(ids: PathIds) -> Option<String> {
        ids.recipe
    }
}

/// The ids in the path of a link that carries its own permission. Where one of them cannot be, there is
/// nothing that it leads to.
pub struct LinkIds<T> {
    /// The instance.
    pub instance: InstanceId,
    /// Its deployment.
    pub deployment: DeploymentId,
    /// What the link leads to.
    pub leads_to: T,
}

impl<T: PathId> LinkIds<T> {
    fn of(request: &HttpRequest) -> Result<Self, HttpError> {
        Ok(Self {
            instance: path_id(request)?,
            deployment: path_id(request)?,
            leads_to: path_id(request)?,
        })
    }
}

impl<T: PathId> FromRequest for LinkIds<T> {
    type Error = ComposeError;
    type Future = Ready<Result<Self, ComposeError>>;

    fn from_request(request: &HttpRequest, _: &mut Payload) -> Self::Future {
        ready(Self::of(request).map_err(|_| unknown(T::PLACE).into()))
    }
}
