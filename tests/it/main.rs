//! Black-box tests: a real broker over HTTP, real etcd processes, a real folder of backups.
//!
//! One binary, one file for each subject. [`broker`] starts brokers and speaks their APIs,
//! [`process`] runs brokers that can be killed, [`etcd`] uses the databases that they give,
//! [`inside`] looks at what a broker keeps, [`control`] stops time and work where a test needs it,
//! [`saboteur`] breaks work, [`raw`] speaks HTTP as no decent client would, [`user`] is a person
//! with the client at a terminal, [`stub`] a broker that does as it is told, [`chromium`] a person
//! at a browser, over [`webdriver`]. [`osb`] has one test for each thing that the specification
//! asks for, and [`contract`] what each trait and the store promise, for all that implement it.

#![allow(clippy::too_many_lines)] // A test may tell a whole story.

mod alerts;
mod audit;
mod backups;
mod binding_life;
mod bindings;
mod broker;
mod brokers;
mod bursts;
mod catalog;
mod catalog_life;
mod chaos;
mod chromium;
mod chromium_self;
mod circles;
mod client;
mod client_looks;
mod client_stub;
mod clock_jumps;
mod clusters;
mod compose_api;
mod compose_platform;
mod connections;
mod contract;
mod control;
mod crash;
mod damage;
mod dashboard;
mod dashboard_activity;
mod dashboard_backups;
mod dashboard_credentials;
mod dashboard_hostile;
mod dashboard_keyboard;
mod dashboard_live;
mod dashboard_operator;
mod dashboard_overview;
mod dashboard_pictures;
mod dashboard_settings;
mod dashboard_sign_in;
mod dashboard_versions;
mod database;
mod defragment;
mod disaster;
mod disk;
mod dying_members;
mod engine_words;
mod etcd;
mod fair_shares;
mod faults;
mod folders;
mod former;
mod full;
mod halts;
mod health;
mod ids;
mod inside;
mod instances;
mod line;
mod logfiles;
mod memory;
mod metrics;
mod migrate;
mod netns;
mod openapi;
mod operations;
mod osb;
mod page_authority;
mod pages;
mod patience;
mod pins;
mod postgres;
mod postgres_tls;
mod process;
mod promises;
mod proofs;
mod protection;
mod provenance;
mod rates;
mod raw;
mod reach;
mod read_only;
mod readdress;
mod reasons;
mod reconcile;
mod recover;
mod renewals;
mod repair;
mod restore_here;
mod restores;
mod rolling;
mod room;
mod s3;
mod s3_faults;
mod s3_story;
mod saboteur;
mod schedule;
mod sealed;
mod secrecy;
mod service;
mod skipped;
mod start;
mod store_copy;
mod story;
mod stub;
mod tenants;
mod tidy;
mod tidy_docs;
mod time;
mod tls;
mod trail;
mod transport;
mod updates;
mod user;
mod way_back;
mod webdriver;
mod webhook;
mod words;
