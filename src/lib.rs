#![doc = include_str!("../ARCHITECTURE.md")]
// A test may tell a whole story.
#![cfg_attr(test, allow(clippy::too_many_lines))]

// In layer order: each imports only what stands below it.
pub mod app;
pub mod census;
pub mod client;
pub mod config;
pub mod logbook;
pub mod logging;

pub mod alerting;
pub mod courier;
pub mod guard;
pub mod http;
pub mod observer;
pub mod scheduler;
pub mod watchdog;

pub mod broker;
pub mod operation;

pub mod healing;
pub mod metrics;
pub mod registrar;
pub mod timekeeper;

pub mod backups;
pub mod engine;
pub mod provisioner;
pub mod store;
pub mod volumes;

pub mod workbench;

pub mod caller;
pub mod clock;
pub mod dial;
pub mod disk;
pub mod folder;
pub mod model;
pub mod seal;
pub mod stream;
