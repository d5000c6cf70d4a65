//! Black-box tests: a real broker over HTTP, real etcd processes, a real folder of backups.
//!
//! One binary, one file for each subject. [`broker`] starts brokers and speaks their APIs,
//! [`etcd`] uses the databases that they give, [`inside`] looks at what a broker keeps,
//! [`saboteur`] breaks its work and [`process`] runs brokers that can be killed.

mod broker;
mod crash;
mod etcd;
mod faults;
mod inside;
mod process;
mod saboteur;
mod start;
mod story;
