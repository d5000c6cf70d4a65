//! What each trait and the store promise, run on every implementation that there is: one file for each.

mod backup_store;
mod engine;
pub mod provisioner;
mod store;
