//! Black-box tests: a real broker over HTTP, real etcd processes, a real folder of backups.
//!
//! One binary, one file for each subject. [`broker`] starts brokers and speaks their APIs,
//! [`etcd`] uses the databases that they give, [`inside`] looks at what a broker keeps,
//! [`control`] stops time and work where a test needs it, [`saboteur`] breaks work, [`raw`] speaks
//! HTTP as no decent client would.

mod backups;
mod bindings;
mod broker;
mod catalog;
mod control;
mod crashes;
mod damage;
mod disk;
mod etcd;
mod faults;
mod ids;
mod inside;
mod instances;
mod raw;
mod restores;
mod saboteur;
mod secrecy;
mod story;
mod transport;
