//! Black-box tests: a real broker over HTTP, real etcd processes, a real folder of backups.
//!
//! One binary, one file for each subject. [`broker`] starts brokers and speaks their APIs,
//! [`etcd`] uses the databases that they give, [`inside`] looks at what a broker keeps, and
//! [`saboteur`] breaks its work.

mod broker;
mod etcd;
mod faults;
mod inside;
mod saboteur;
mod story;
