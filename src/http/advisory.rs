//! The known faults of versions, as every interface shows them.

use serde::Serialize;
use utoipa::ToSchema;

use super::openapi::scalars::DatabaseVersion;
use crate::model::{engine::KnownFault, version::Version};

/// A known fault of a version.
#[derive(Serialize, ToSchema)]
#[schema(as = Advisory)]
pub struct AdvisoryBody {
    /// Its public name: a CVE, or the database's own number of it.
    id: &'static str,
    /// How grave it is: `lets_strangers_in` needs no login.
    #[schema(pattern = "^(lets_strangers_in|serious|minor)$")]
    severity: &'static str,
    /// What can happen, in one sentence.
    summary: &'static str,
    /// The nearest version without it; `null` where there is none.
    #[schema(required, value_type = Option<DatabaseVersion>)]
    fixed_in: Option<Version>,
}

impl AdvisoryBody {
    /// A fault's body.
    pub fn of(fault: &KnownFault) -> Self {
        Self {
            id: fault.id,
            severity: fault.severity.as_str(),
            summary: fault.summary,
            fixed_in: fault.fixed_in,
        }
    }
}
