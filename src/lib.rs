//! compose-broker.

pub mod backup_store;
pub mod broker;
pub mod clock;
pub mod engine;
pub mod http;
pub mod logging;
pub mod model;
pub mod operation;
pub mod provisioner;
pub mod seal;
pub mod store;
pub mod stream;
