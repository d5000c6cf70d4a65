//! How etcd's programs are recognised where they are installed.

use super::NAME;
use crate::model::{server::EngineBinaries, version::Version};

/// How they are recognised. Which versions are offered is left to the lines.
pub(super) const BINARIES: EngineBinaries = EngineBinaries {
    engine: NAME,
    probe: "etcd",
    probe_args: &["--version"],
    parse_version: parse_version_output,
    required: |version| binaries(*version),
    offered: |_| false,
};

/// The binaries that an installed version must have.
fn binaries(version: Version) -> &'static [&'static str] {
    if version.line() >= (3, 5) {
        &["etcd", "etcdctl", "etcdutl"]
    } else {
        &["etcd", "etcdctl"]
    }
}

/// Understands what `etcd --version` prints.
fn parse_version_output(output: &str) -> Option<Version> {
    output
        .lines()
        .find_map(|line| line.trim().strip_prefix("etcd Version:"))
        .and_then(|version| version.trim().parse().ok())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn version(text: &str) -> Version {
        text.parse().expect("a version")
    }

    #[test]
    fn versions_tell_their_name_and_have_their_tools() {
        let output = "etcd Version: 3.5.30\nGit SHA: Not provided\nGo Version: go1.26.4\n";
        assert_eq!(parse_version_output(output), Some(version("3.5.30")));
        assert_eq!(parse_version_output("Redis server v=7.0.15"), None);
        assert_eq!(binaries(version("3.4.23")), ["etcd", "etcdctl"]);
        assert_eq!(binaries(version("3.5.0")), ["etcd", "etcdctl", "etcdutl"]);
    }
}
