//! What the broker talks about, as plain values.
//!
//! Invariants: nothing here does I/O, awaits, reads a clock or knows HTTP or SQL. Every decision
//! that depends on time takes the time as an argument.

pub mod address;
pub mod alert;
pub mod audit;
pub mod backoff;
pub mod backup;
pub mod binding;
pub mod bom;
pub mod breaker;
pub mod capacity;
pub mod catalog;
pub mod certificate;
pub mod defragment;
pub mod deployment;
pub mod download;
pub mod engine;
pub mod failure;
pub mod full;
pub mod holder;
pub mod ids;
pub mod instance;
pub mod limits;
pub mod logfile;
pub mod marker;
pub mod name;
pub mod observation;
pub mod operation;
pub mod oversight;
pub mod parameters;
pub mod patience;
pub mod period;
pub mod placement;
pub mod proxy;
pub mod queue;
pub mod quota;
pub mod reach;
pub mod recovery;
pub mod renewal;
pub mod repair;
pub mod retention;
pub mod schedule;
pub mod secret;
pub mod sentence;
pub mod server;
pub mod session;
pub mod size;
pub mod tenant;
pub mod throttle;
pub mod trail;
pub mod trouble;
pub mod trust;
pub mod update;
pub mod version;
pub mod volume;
