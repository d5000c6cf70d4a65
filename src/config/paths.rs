//! Settings that are paths. An empty one, as of an environment variable without a value, is told by its
//! setting's name like everything else that is wrong.

use std::path::{Path, PathBuf};

use clap::builder::{OsStringValueParser, TypedValueParser};

use super::{ConfigError, wrong};

/// Any path, also an empty one: [`check`] finds it.
pub(super) fn path() -> impl TypedValueParser<Value = PathBuf> {
    OsStringValueParser::new().map(PathBuf::from)
}

/// Fails with the first setting whose path is there and empty.
pub(super) fn check(paths: &[(&'static str, Option<&Path>)]) -> Result<(), ConfigError> {
    for (setting, path) in paths {
        if path.is_some_and(|path| path.as_os_str().is_empty()) {
            return Err(wrong(setting, "is empty"));
        }
    }
    Ok(())
}
