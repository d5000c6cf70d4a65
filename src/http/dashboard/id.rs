//! Ids in the paths of pages.

use std::future::{Ready, ready};

use actix_web::{FromRequest, HttpRequest, dev::Payload};

use super::error::PageError;
use crate::{
    broker::no_such_page,
    http::id::{PathId, path_id},
};

/// An id in the path. One that cannot be is as unknown as any other.
pub struct Id<T>(pub T);

impl<T: PathId> FromRequest for Id<T> {
    type Error = PageError;
    type Future = Ready<Result<Self, PageError>>;

    fn from_request(request: &HttpRequest, _: &mut Payload) -> Self::Future {
        ready(
            path_id(request)
                .map(Self)
                .map_err(|_| no_such_page().into()),
        )
    }
}
