//! The engines of this broker, by what is known of each.

use std::{collections::BTreeMap, sync::Arc};

use super::BrokerError;
use crate::{model::engine::Profile, store::StoreError};

/// The profiles of all engines, by name.
#[derive(Clone)]
pub struct Profiles(Arc<BTreeMap<String, &'static Profile>>);

impl Profiles {
    /// The profile of an engine. Fails when this broker does not have it.
    pub fn get(&self, engine: &str) -> Result<&'static Profile, BrokerError> {
        let profile = self.0.get(engine).copied();
        profile.ok_or_else(|| StoreError::Missing(format!("the engine {engine}")).into())
    }

    /// The engines' names.
    pub fn engines(&self) -> impl Iterator<Item = &str> {
        self.0.keys().map(String::as_str)
    }
}

impl From<BTreeMap<String, &'static Profile>> for Profiles {
    fn from(profiles: BTreeMap<String, &'static Profile>) -> Self {
        Self(Arc::new(profiles))
    }
}
