//! The catalog that is in force. It is replaced as a whole; work that has begun keeps the one it has.

use std::sync::{Arc, PoisonError, RwLock};

use super::Catalog;

/// The catalog in force.
#[derive(Debug)]
pub struct CurrentCatalog(RwLock<Arc<Catalog>>);

impl CurrentCatalog {
    /// Begins with `catalog`.
    pub fn new(catalog: impl Into<Arc<Catalog>>) -> Self {
        Self(RwLock::new(catalog.into()))
    }

    /// The catalog as it is now.
    pub fn get(&self) -> Arc<Catalog> {
        let current = self.0.read().unwrap_or_else(PoisonError::into_inner);
        current.clone()
    }

    /// From now on `catalog` is in force.
    pub fn replace(&self, catalog: Arc<Catalog>) {
        let mut current = self.0.write().unwrap_or_else(PoisonError::into_inner);
        *current = catalog;
    }
}
