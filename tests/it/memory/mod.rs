//! An engine and a cluster in memory: whole stories in milliseconds, and the cheap place for faults.
//!
//! They keep the contracts that every engine and every provisioner keeps (`contract/`), so the
//! operations cannot tell them from real ones. They never stand where a test is about etcd, processes
//! or a disk.

mod base;
pub mod cluster;
mod keys;
pub mod pair;
