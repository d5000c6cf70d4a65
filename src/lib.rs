//! compose-broker.

pub mod backup_store;
pub mod engine;
pub mod model;
pub mod provisioner;
pub mod seal;
pub mod store;
pub mod stream;
