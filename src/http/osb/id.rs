//! Ids in the paths of the OSB API and of the operator's.

use std::future::{Ready, ready};

use actix_web::{FromRequest, HttpRequest, dev::Payload};

use super::error::OsbError;
use crate::http::id::{PathId, path_id};

/// An id in the path. One that cannot be is a bad request.
pub struct Id<T>(pub T);

impl<T: PathId> FromRequest for Id<T> {
    type Error = OsbError;
    type Future = Ready<Result<Self, OsbError>>;

    fn from_request(request: &HttpRequest, _: &mut Payload) -> Self::Future {
        ready(path_id(request).map(Self).map_err(OsbError))
    }
}
