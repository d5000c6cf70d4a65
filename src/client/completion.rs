//! What completes command lines with names of this machine. Nothing is asked of a broker, and whatever
//! cannot be read completes nothing.

use std::ffi::OsStr;

use clap_complete::engine::CompletionCandidate;

use super::book::{Book, Instance};
use crate::config::{names_of_environment, words};

/// The instances of the broker that the environment names, whose names begin so.
pub fn instances(current: &OsStr) -> Vec<CompletionCandidate> {
    let known = known();
    candidates(current, known.iter().map(|instance| instance.name.as_str()))
}

/// The keys of the instance that the command line names already.
pub fn keys(current: &OsStr) -> Vec<CompletionCandidate> {
    let words = words();
    let known = known();
    let named = known.iter().filter(|of| words.contains(&of.name));
    let keys = named.flat_map(|of| of.keys.iter().map(|key| key.name.as_str()));
    candidates(current, keys)
}

fn known() -> Vec<Instance> {
    let Some((file, broker)) = names_of_environment() else {
        return Vec::new();
    };
    Book::new(file, broker).instances().unwrap_or_default()
}

fn candidates<'a>(
    current: &OsStr,
    names: impl Iterator<Item = &'a str>,
) -> Vec<CompletionCandidate> {
    let current = current.to_string_lossy();
    names
        .filter(|name| name.starts_with(&*current))
        .map(CompletionCandidate::new)
        .collect()
}
