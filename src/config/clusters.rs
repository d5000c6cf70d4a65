//! Clusters: their file, read and checked as a whole before anything is begun, and who reaches their
//! members.

use std::{
    collections::BTreeSet,
    fs, io,
    net::IpAddr,
    path::{Path, PathBuf},
};

use clap::Args;
use serde::Deserialize;

use super::{ConfigError, kept::full_path, wrong};
use crate::model::{
    address::stands_for_all,
    bom::without_bom,
    exposure::{ExposedVersion, Exposure},
    ids::InstanceId,
    placement::{Cluster, PortRange},
    reach::{Reach, check_host},
};

/// Who reaches the members of clusters that say nothing else.
#[derive(Debug, Clone, Args)]
pub struct MemberSettings {
    /// Address that members listen at for applications; 0.0.0.0 or ::, all addresses of the machine
    #[arg(
        long,
        env = "COMPOSE_BROKER_MEMBER_LISTEN",
        default_value = "127.0.0.1"
    )]
    pub member_listen: String,

    /// Name or address by which applications find members; goes into credentials and certificates
    /// [default: MEMBER_LISTEN; required when that is all addresses]
    #[arg(long, env = "COMPOSE_BROKER_MEMBER_HOST")]
    pub member_host: Option<String>,

    /// Versions that let strangers in and are served all the same where applications come from
    /// elsewhere: engine, space, version; separated by commas [default: none]
    #[arg(long, env = "COMPOSE_BROKER_MEMBER_EXPOSED_VERSIONS")]
    pub member_exposed_versions: Option<String>,
}

impl MemberSettings {
    pub(super) fn exposure(&self) -> Result<Exposure, ConfigError> {
        const LISTEN: &str = "COMPOSE_BROKER_MEMBER_LISTEN";
        const HOST: &str = "COMPOSE_BROKER_MEMBER_HOST";
        const VERSIONS: &str = "COMPOSE_BROKER_MEMBER_EXPOSED_VERSIONS";
        let listen = listen_of(&self.member_listen).map_err(|e| wrong(LISTEN, e))?;
        let host = host_of(self.member_host.as_deref(), listen).map_err(|e| wrong(HOST, e))?;
        let versions = self.member_exposed_versions.as_deref().unwrap_or_default();
        let versions = versions.split(',').filter(|text| !text.trim().is_empty());
        let versions = versions.map(|text| text.trim().parse());
        Ok(Exposure {
            reach: Reach { listen, host },
            versions: versions
                .collect::<Result<_, _>>()
                .map_err(|e| wrong(VERSIONS, e))?,
        })
    }
}

fn listen_of(text: &str) -> Result<IpAddr, String> {
    let address = text.parse::<IpAddr>();
    address.map_err(|_| format!("{text:?} is not an IP address, as in: 0.0.0.0"))
}

fn host_of(text: Option<&str>, listen: IpAddr) -> Result<String, String> {
    match text {
        Some(text) => check_host(text).map_err(|e| e.to_string()),
        None if stands_for_all(listen) => Err(format!(
            "is needed when members listen at all addresses ({listen}): the name or address by which \
             applications find them"
        )),
        None => Ok(listen.to_string()),
    }
}

/// A cluster on this machine, with all that it takes to open it.
#[derive(Debug, Clone)]
pub struct LocalCluster {
    /// What the rules of placement know of it.
    pub cluster: Cluster,
    /// The folder of its deployments. No other cluster's folder is, holds or lies in it.
    pub folder: PathBuf,
    /// The folder of the engines' binaries on it.
    pub engines_dir: PathBuf,
    /// TCP ports for members on it.
    pub ports: PortRange,
}

/// What clusters have that say nothing else.
pub(super) struct Defaults<'a> {
    pub data_dir: &'a Path,
    pub backup_folder: &'a Path,
    pub engines_dir: &'a Path,
    pub ports: PortRange,
    pub exposure: &'a Exposure,
}

/// A cluster as it is written.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Entry {
    id: String,
    name: String,
    service_instance_id: Option<InstanceId>,
    #[serde(default = "yes")]
    enabled: bool,
    port_range: Option<PortRange>,
    data_dir: Option<PathBuf>,
    engines_dir: Option<PathBuf>,
    capacity_units: Option<u32>,
    snapshots_at_once: Option<u32>,
    operations_at_once: Option<u32>,
    listen: Option<String>,
    host: Option<String>,
    exposed_versions: Option<BTreeSet<ExposedVersion>>,
}

impl Entry {
    /// What it does not say is as it is for all. One that listens elsewhere has another host.
    fn exposure(&self, of_all: &Exposure) -> Result<Exposure, String> {
        let told = |field: &'static str| {
            let id = self.id.clone();
            move |reason: String| format!("{field} of cluster {id:?}: {reason}")
        };
        let listen = self.listen.as_deref().map(listen_of).transpose();
        let listen = listen.map_err(told("listen"))?;
        let host = match (&self.host, listen) {
            (None, None) => of_all.reach.host.clone(),
            (host, listen) => {
                let listen = listen.unwrap_or(of_all.reach.listen);
                host_of(host.as_deref(), listen).map_err(told("host"))?
            }
        };
        let versions = self.exposed_versions.as_ref();
        Ok(Exposure {
            reach: Reach {
                listen: listen.unwrap_or(of_all.reach.listen),
                host,
            },
            versions: versions.unwrap_or(&of_all.versions).clone(),
        })
    }
}

fn yes() -> bool {
    true
}

/// The clusters that `file` lists; without one, the one that every machine has. What is wrong is
/// told in one line.
pub(super) fn read(
    file: Option<&Path>,
    defaults: &Defaults<'_>,
) -> Result<Vec<LocalCluster>, String> {
    let entries = match file {
        None => vec![Entry {
            id: "local".to_owned(),
            name: "This machine".to_owned(),
            service_instance_id: None,
            enabled: true,
            port_range: None,
            data_dir: None,
            engines_dir: None,
            capacity_units: None,
            snapshots_at_once: None,
            operations_at_once: None,
            listen: None,
            host: None,
            exposed_versions: None,
        }],
        Some(file) => {
            let in_file = |reason: &dyn std::fmt::Display| format!("{}: {reason}", file.display());
            let text = fs::read_to_string(file).map_err(|e| in_file(&e))?;
            serde_json::from_str(without_bom(&text)).map_err(|e| in_file(&e))?
        }
    };
    check_names(&entries)?;
    check_numbers(&entries)?;
    check_ports(&entries, defaults.ports)?;
    let clusters: Vec<LocalCluster> = entries
        .into_iter()
        .map(|entry| open(entry, defaults))
        .collect::<Result<_, _>>()?;
    check_folders(&clusters, defaults)?;
    Ok(clusters)
}

/// The pairs of a list, each once.
fn pairs<T>(all: &[T]) -> impl Iterator<Item = (&T, &T)> {
    let with_later = |(i, first)| all[i + 1..].iter().map(move |second| (first, second));
    all.iter().enumerate().flat_map(with_later)
}

fn check_names(entries: &[Entry]) -> Result<(), String> {
    let plain = |c: char| c.is_ascii_alphanumeric() || c == '-' || c == '_';
    // The id is a folder's name too.
    let bad = |entry: &&Entry| entry.id.is_empty() || !entry.id.chars().all(plain);
    if let Some(entry) = entries.iter().find(bad) {
        return Err(format!("id {:?} is not letters, digits, - and _", entry.id));
    }
    for (a, b) in pairs(entries) {
        if a.id == b.id {
            return Err(format!("id {:?} is used twice", a.id));
        }
        if let Some(id) = &a.service_instance_id
            && a.service_instance_id == b.service_instance_id
        {
            let id = id.as_str();
            return Err(format!(
                "service_instance_id {id:?} is that of two clusters, {:?} and {:?}",
                a.id, b.id
            ));
        }
    }
    if entries.iter().any(|entry| entry.enabled) {
        Ok(())
    } else {
        Err("no cluster is enabled".to_owned())
    }
}

fn check_numbers(entries: &[Entry]) -> Result<(), String> {
    for entry in entries {
        for (name, number) in [
            ("capacity_units", entry.capacity_units),
            ("snapshots_at_once", entry.snapshots_at_once),
            ("operations_at_once", entry.operations_at_once),
        ] {
            if number == Some(0) {
                return Err(format!(
                    "{name} of cluster {:?} is 0; give at least 1, or leave it out",
                    entry.id
                ));
            }
        }
    }
    Ok(())
}

/// Clusters without a range of their own share the broker's. Any other two are apart.
fn check_ports(entries: &[Entry], own: PortRange) -> Result<(), String> {
    for (a, b) in pairs(entries) {
        if a.port_range.is_none() && b.port_range.is_none() {
            continue;
        }
        let of = |entry: &Entry| entry.port_range.unwrap_or(own);
        if of(a).overlaps(&of(b)) {
            return Err(format!(
                "the port ranges of clusters {:?} ({}) and {:?} ({}) overlap; members of both \
                 listen on this machine",
                a.id,
                of(a),
                b.id,
                of(b)
            ));
        }
    }
    Ok(())
}

/// Finds out the one true path of the cluster's folder.
fn open(entry: Entry, defaults: &Defaults<'_>) -> Result<LocalCluster, String> {
    let folder = match &entry.data_dir {
        Some(folder) => folder.clone(),
        None => defaults.data_dir.join("clusters").join(&entry.id),
    };
    let folder = full_path(&folder).map_err(|e: io::Error| {
        let place = folder.display();
        format!("data_dir {place} of cluster {:?}: {e}", entry.id)
    })?;
    let exposure = entry.exposure(defaults.exposure)?;
    Ok(LocalCluster {
        folder,
        engines_dir: entry
            .engines_dir
            .unwrap_or_else(|| defaults.engines_dir.to_owned()),
        ports: entry.port_range.unwrap_or(defaults.ports),
        cluster: Cluster {
            id: entry.id,
            name: entry.name,
            service_instance_id: entry.service_instance_id,
            enabled: entry.enabled,
            capacity_units: entry.capacity_units,
            snapshots_at_once: entry.snapshots_at_once,
            operations_at_once: entry.operations_at_once,
            exposure,
        },
    })
}

fn check_folders(clusters: &[LocalCluster], defaults: &Defaults<'_>) -> Result<(), String> {
    for (a, b) in pairs(clusters) {
        if a.folder.starts_with(&b.folder) || b.folder.starts_with(&a.folder) {
            return Err(format!(
                "clusters {:?} and {:?} need folders of their own: {} and {}",
                a.cluster.id,
                b.cluster.id,
                a.folder.display(),
                b.folder.display()
            ));
        }
    }
    for LocalCluster {
        cluster, folder, ..
    } in clusters
    {
        let holds_others =
            defaults.data_dir.starts_with(folder) || defaults.backup_folder.starts_with(folder);
        if holds_others || folder.starts_with(defaults.backup_folder) {
            return Err(format!(
                "data_dir {} of cluster {:?} is not the cluster's alone",
                folder.display(),
                cluster.id
            ));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn check(folder: &Path, clusters: Value) -> Result<Vec<LocalCluster>, String> {
        let file = folder.join("clusters.json");
        fs::write(&file, clusters.to_string()).expect("a file");
        let data = full_path(&folder.join("data")).expect("a folder");
        let defaults = Defaults {
            backup_folder: &data.join("backups"),
            data_dir: &data,
            engines_dir: Path::new("engines"),
            ports: "20000-29999".parse().expect("a range"),
            exposure: &Exposure {
                reach: Reach {
                    listen: "192.0.2.7".parse().expect("an address"),
                    host: "db.example".to_owned(),
                },
                versions: BTreeSet::new(),
            },
        };
        read(Some(&file), &defaults)
    }

    #[test]
    fn what_is_not_said_is_the_broker_s_own() {
        let folder = tempfile::tempdir().expect("a folder");
        let blue = folder.path().join("blue");
        let clusters = json!([
            { "id": "shared", "name": "Shared" },
            { "id": "other", "name": "Other" },
            {
                "id": "blue", "name": "Blue", "service_instance_id": "si", "enabled": false,
                "port_range": "30000-30099", "data_dir": blue, "engines_dir": "blue-engines",
                "capacity_units": 8, "snapshots_at_once": 2,
            },
        ]);
        let clusters = check(folder.path(), clusters).expect("clusters");
        let at = |i: usize| (&clusters[i], &clusters[i].cluster);
        let (shared, rules) = at(0);
        assert!(shared.folder.ends_with("data/clusters/shared"));
        assert_eq!(shared.engines_dir, Path::new("engines"));
        assert_eq!(shared.ports.to_string(), "20000-29999");
        assert!(rules.enabled && rules.capacity_units.is_none());
        let (blue, rules) = at(2);
        assert!(blue.folder.ends_with("blue") && blue.folder.is_absolute());
        assert_eq!(blue.engines_dir, Path::new("blue-engines"));
        assert_eq!(blue.ports.to_string(), "30000-30099");
        assert!(!rules.enabled);
        assert_eq!(
            (rules.capacity_units, rules.snapshots_at_once),
            (Some(8), Some(2))
        );
    }

    #[test]
    fn a_cluster_says_who_reaches_its_members() {
        let folder = tempfile::tempdir().expect("a folder");
        let clusters = json!([
            { "id": "as-all", "name": "A" },
            { "id": "near", "name": "B", "listen": "127.0.0.1" },
            { "id": "named", "name": "C", "host": "other.example" },
            { "id": "all", "name": "D", "listen": "::", "host": "2001:DB8::1",
              "exposed_versions": ["sample 3.5.35"] },
        ]);
        let clusters = check(folder.path(), clusters).expect("clusters");
        let told: Vec<(String, String)> = clusters
            .iter()
            .map(|of| &of.cluster.exposure.reach)
            .map(|reach| (reach.listen.to_string(), reach.host.clone()))
            .collect();
        let expected = [
            ("192.0.2.7", "db.example"),
            ("127.0.0.1", "127.0.0.1"),
            ("192.0.2.7", "other.example"),
            ("::", "2001:db8::1"),
        ]
        .map(|(listen, host)| (listen.to_owned(), host.to_owned()));
        assert_eq!(told, expected);
        let versions = |i: usize| clusters[i].cluster.exposure.versions.len();
        assert_eq!((versions(0), versions(3)), (0, 1));
    }

    #[test]
    fn the_example_is_one() {
        let text = include_str!("../../examples/clusters.json");
        let entries: Vec<Entry> = serde_json::from_str(text).expect("clusters");
        check_names(&entries).expect("names");
        check_numbers(&entries).expect("numbers");
        check_ports(&entries, "20000-29999".parse().expect("a range")).expect("ports");
    }

    #[test]
    fn what_cannot_be_is_told_in_one_line() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = |name: &str| folder.path().join(name).display().to_string();
        std::os::unix::fs::symlink(folder.path(), folder.path().join("link")).expect("a link");
        let two = |first: Value, second: Value| {
            let mut clusters = json!([{ "id": "a", "name": "A" }, { "id": "b", "name": "B" }]);
            for (i, more) in [first, second].iter().enumerate() {
                for (name, value) in more.as_object().expect("an object") {
                    clusters[i][name] = value.clone();
                }
            }
            clusters
        };
        let none = || json!({});
        let cases = [
            (json!([]), "no cluster is enabled"),
            (json!({}), "clusters.json"),
            (two(json!({ "id": "" }), none()), "letters, digits"),
            (two(json!({ "id": "../x" }), none()), "letters, digits"),
            (two(json!({ "id": "b" }), none()), "\"b\" is used twice"),
            (two(json!({ "colour": "red" }), none()), "unknown field"),
            (two(json!({ "port_range": "9-1" }), none()), "port range"),
            (
                two(json!({ "capacity_units": 0 }), none()),
                "capacity_units",
            ),
            (two(json!({ "snapshots_at_once": 0 }), none()), "snapshots"),
            (
                two(json!({ "listen": "db.example" }), none()),
                "listen of cluster \"a\"",
            ),
            (
                two(json!({ "listen": "0.0.0.0" }), none()),
                "host of cluster \"a\": is needed",
            ),
            (
                two(json!({ "host": "https://db.example" }), none()),
                "without a port, a path or https://",
            ),
            (two(json!({ "host": "::" }), none()), "all addresses"),
            (
                two(json!({ "exposed_versions": ["3.5.35"] }), none()),
                "an engine and a version of it",
            ),
            (
                two(json!({ "service_instance_id": "" }), none()),
                "is empty",
            ),
            (
                two(
                    json!({ "service_instance_id": "x" }),
                    json!({ "service_instance_id": "x" }),
                ),
                "two clusters, \"a\" and \"b\"",
            ),
            (
                two(
                    json!({ "port_range": "30000-30099" }),
                    json!({ "port_range": "30099-30199" }),
                ),
                "\"a\" (30000-30099) and \"b\" (30099-30199) overlap",
            ),
            (
                two(json!({ "port_range": "29999-30099" }), none()),
                "overlap",
            ),
            (
                two(
                    json!({ "data_dir": path("x") }),
                    json!({ "data_dir": path("x") }),
                ),
                "folders of their own",
            ),
            (
                two(
                    json!({ "data_dir": path("x") }),
                    json!({ "data_dir": path("link/x/y") }),
                ),
                "folders of their own",
            ),
            (
                two(json!({ "data_dir": path("data/clusters/b") }), none()),
                "folders of their own",
            ),
            (
                two(json!({ "data_dir": path("data") }), none()),
                "of their own",
            ),
            (
                two(json!({ "data_dir": path("data/backups/x") }), none()),
                "alone",
            ),
            (
                two(json!({ "data_dir": path("clusters.json/x") }), none()),
                "data_dir",
            ),
        ];
        for (clusters, words) in cases {
            let text = clusters.to_string();
            let reason = check(folder.path(), clusters).expect_err(&text);
            assert!(reason.contains(words), "{text}: {reason}");
            assert!(!reason.contains('\n'), "{reason}");
        }
        let alone = json!([{ "id": "a", "name": "A", "data_dir": path("data") }]);
        let reason = check(folder.path(), alone).expect_err("the broker's own folder");
        assert!(reason.contains("alone"), "{reason}");
    }
}
