//! What each trait promises, run on every implementation that there is: one file for each trait.

mod backup_store;
mod engine;
mod provisioner;
