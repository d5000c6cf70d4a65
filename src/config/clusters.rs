//! Clusters: their file, read and checked as a whole before anything is begun, and who reaches their
//! members.

use std::{
    collections::BTreeSet,
    fs,
    net::{IpAddr, Ipv4Addr},
    path::{Path, PathBuf},
};

use clap::Args;
use rustix::system::uname;
use serde::Deserialize;
use serde_json::{Map, Value, json};

use super::{ConfigError, wrong};
use crate::{
    model::{
        address::stands_for_all,
        bom::without_bom,
        exposure::{ExposedVersion, Exposure},
        ids::InstanceId,
        placement::Cluster,
        reach::{Reach, check_host},
    },
    provisioner::{ClusterKind, Defaults, KINDS, SharedBacking},
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

    /// Name of the machine that the broker is on, where several share a store: it looks after the clusters
    /// that name it or none [default: the machine's own name]
    #[arg(long, env = "COMPOSE_BROKER_MACHINE")]
    pub machine: Option<String>,

    /// Versions that let strangers in and are served all the same where applications come from
    /// elsewhere: engine, space, version; separated by commas [default: none]
    #[arg(long, env = "COMPOSE_BROKER_MEMBER_EXPOSED_VERSIONS")]
    pub member_exposed_versions: Option<String>,
}

impl MemberSettings {
    /// The name of the machine that the broker is on.
    pub(super) fn machine(&self) -> String {
        let own = || uname().nodename().to_string_lossy().into_owned();
        self.machine.clone().unwrap_or_else(own)
    }

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
    let address = address.map_err(|_| format!("{text:?} is not an IP address, as in: 0.0.0.0"))?;
    if address.is_multicast() || address == IpAddr::V4(Ipv4Addr::BROADCAST) {
        return Err(format!(
            "{text} is an address of many machines, where nothing can listen; give one of this machine"
        ));
    }
    Ok(address)
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

/// A cluster as its settings say, before it is opened.
#[derive(Debug, Clone)]
pub struct ClusterSettings {
    /// What the rules of placement know of it.
    pub cluster: Cluster,
    /// What runs its members. No other cluster's folder is, holds or lies in its own.
    pub backing: SharedBacking,
    /// Whether its members run on this broker's machine, or wherever the broker is.
    pub is_here: bool,
}

/// What holds for all clusters.
pub(super) struct OfAll<'a> {
    pub defaults: Defaults<'a>,
    /// The folder of this machine that backups are kept in; none where they lie elsewhere.
    pub backup_folder: Option<&'a Path>,
    pub exposure: &'a Exposure,
    /// The name of the machine that the broker is on.
    pub machine: &'a str,
}

/// The fields that clusters of every kind may have.
const FIELDS: [&str; 12] = [
    "id",
    "name",
    "kind",
    "service_instance_id",
    "enabled",
    "capacity_units",
    "snapshots_at_once",
    "operations_at_once",
    "listen",
    "host",
    "exposed_versions",
    "machine",
];

/// A cluster as it is written.
#[derive(Debug, Deserialize)]
struct Entry {
    id: String,
    name: String,
    kind: Option<String>,
    service_instance_id: Option<InstanceId>,
    #[serde(default = "yes")]
    enabled: bool,
    capacity_units: Option<u32>,
    snapshots_at_once: Option<u32>,
    operations_at_once: Option<u32>,
    listen: Option<String>,
    host: Option<String>,
    exposed_versions: Option<BTreeSet<ExposedVersion>>,
    machine: Option<String>,
    /// What clusters of its kind have.
    #[serde(flatten)]
    own: Map<String, Value>,
}

impl Entry {
    /// Its kind, and what its members run on.
    fn backing(
        &mut self,
        defaults: &Defaults<'_>,
    ) -> Result<(&'static str, SharedBacking), String> {
        let named = |kind: &&ClusterKind| self.kind.as_deref().is_none_or(|name| name == kind.name);
        let kind = KINDS.iter().find(named).ok_or_else(|| {
            let kinds: Vec<&str> = KINDS.iter().map(|kind| kind.name).collect();
            let kind = self.kind.as_deref().unwrap_or_default();
            format!(
                "kind {kind:?} of cluster {:?} is not one of: {}",
                self.id,
                kinds.join(", ")
            )
        })?;
        let is_unknown = |name: &&String| !kind.fields.contains(&name.as_str());
        if let Some(name) = self.own.keys().find(is_unknown) {
            let known: Vec<&str> = FIELDS.iter().chain(kind.fields).copied().collect();
            return Err(format!(
                "cluster {:?} has an unknown field {name:?}; those of kind {} have: {}",
                self.id,
                kind.name,
                known.join(", ")
            ));
        }
        let backing = (kind.read)(&self.id, std::mem::take(&mut self.own), defaults)?;
        Ok((kind.name, backing))
    }

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
    of_all: &OfAll<'_>,
) -> Result<Vec<ClusterSettings>, String> {
    let entries: Vec<Entry> = match file {
        None => {
            let own = json!([{ "id": "local", "name": "This machine" }]);
            serde_json::from_value(own).map_err(|e| e.to_string())?
        }
        Some(file) => {
            let in_file = |reason: &dyn std::fmt::Display| format!("{}: {reason}", file.display());
            let text = fs::read_to_string(file).map_err(|e| in_file(&e))?;
            serde_json::from_str(without_bom(&text)).map_err(|e| in_file(&e))?
        }
    };
    check_names(&entries)?;
    check_numbers(&entries)?;
    let clusters: Vec<ClusterSettings> = entries
        .into_iter()
        .map(|entry| understood(entry, of_all))
        .collect::<Result<_, _>>()?;
    check_ports(&clusters)?;
    check_folders(&clusters, of_all)?;
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
fn check_ports(clusters: &[ClusterSettings]) -> Result<(), String> {
    let here: Vec<&ClusterSettings> = clusters.iter().filter(|of| of.is_here).collect();
    for (a, b) in pairs(&here) {
        let (Some(of_a), Some(of_b)) = (a.backing.ports(), b.backing.ports()) else {
            continue;
        };
        if of_a.is_shared && of_b.is_shared {
            continue;
        }
        if of_a.range.overlaps(&of_b.range) {
            return Err(format!(
                "the port ranges of clusters {:?} ({}) and {:?} ({}) overlap; members of both \
                 listen on this machine",
                a.cluster.id, of_a.range, b.cluster.id, of_b.range
            ));
        }
    }
    Ok(())
}

fn understood(mut entry: Entry, of_all: &OfAll<'_>) -> Result<ClusterSettings, String> {
    let (kind, backing) = entry.backing(&of_all.defaults)?;
    let exposure = entry.exposure(of_all.exposure)?;
    let is_here = entry.machine.is_none_or(|name| name == of_all.machine);
    let cluster = Cluster {
        id: entry.id,
        name: entry.name,
        kind,
        service_instance_id: entry.service_instance_id,
        enabled: entry.enabled,
        capacity_units: entry.capacity_units,
        snapshots_at_once: entry.snapshots_at_once,
        operations_at_once: entry.operations_at_once,
        exposure,
    };
    Ok(ClusterSettings {
        cluster,
        backing,
        is_here,
    })
}

fn check_folders(clusters: &[ClusterSettings], of_all: &OfAll<'_>) -> Result<(), String> {
    let with_folder =
        |of: &ClusterSettings| Some((of.cluster.id.clone(), of.backing.folder()?.to_owned()));
    let here = clusters.iter().filter(|of| of.is_here);
    let folders: Vec<(String, PathBuf)> = here.filter_map(with_folder).collect();
    for ((a, of_a), (b, of_b)) in pairs(&folders) {
        if of_a.starts_with(of_b) || of_b.starts_with(of_a) {
            return Err(format!(
                "clusters {a:?} and {b:?} need folders of their own: {} and {}",
                of_a.display(),
                of_b.display()
            ));
        }
    }
    let (data_dir, backups) = (of_all.defaults.data_dir, of_all.backup_folder);
    for (id, folder) in &folders {
        let meets_backups =
            backups.is_some_and(|of| of.starts_with(folder) || folder.starts_with(of));
        if data_dir.starts_with(folder) || meets_backups {
            return Err(format!(
                "data_dir {} of cluster {id:?} is not the cluster's alone",
                folder.display()
            ));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{disk::full_path, provisioner::Backing};

    fn check(folder: &Path, clusters: Value) -> Result<Vec<ClusterSettings>, String> {
        let file = folder.join("clusters.json");
        fs::write(&file, clusters.to_string()).expect("a file");
        let data = full_path(&folder.join("data")).expect("a folder");
        let of_all = OfAll {
            defaults: Defaults {
                data_dir: &data,
                engines_dir: Path::new("engines"),
                ports: "20000-29999".parse().expect("a range"),
            },
            backup_folder: Some(&data.join("backups")),
            exposure: &Exposure {
                reach: Reach {
                    listen: "192.0.2.7".parse().expect("an address"),
                    host: "db.example".to_owned(),
                },
                versions: BTreeSet::new(),
            },
            machine: "here",
        };
        read(Some(&file), &of_all)
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
        let at = |i: usize| (clusters[i].backing.as_ref(), &clusters[i].cluster);
        let ports = |of: &dyn Backing| of.ports().expect("ports").range.to_string();
        let (shared, rules) = at(0);
        let folder = shared.folder().expect("a folder");
        assert!(folder.ends_with("data/clusters/shared"));
        assert_eq!(shared.engines_from(), "engines");
        assert_eq!(ports(shared), "20000-29999");
        assert!(rules.enabled && rules.capacity_units.is_none());
        let (blue, rules) = at(2);
        let folder = blue.folder().expect("a folder");
        assert!(folder.ends_with("blue") && folder.is_absolute());
        assert_eq!(blue.engines_from(), "blue-engines");
        assert_eq!(ports(blue), "30000-30099");
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
        let mut clusters: Value = serde_json::from_str(text).expect("clusters");
        let folder = tempfile::tempdir().expect("a folder");
        for (i, cluster) in clusters
            .as_array_mut()
            .expect("a list")
            .iter_mut()
            .enumerate()
        {
            if cluster.get("data_dir").is_some() {
                cluster["data_dir"] = json!(folder.path().join(i.to_string()));
            }
        }
        check(folder.path(), clusters).expect("clusters");
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
            (
                two(json!({ "colour": "red" }), none()),
                "cluster \"a\" has an unknown field \"colour\"; those of kind local have: id, name",
            ),
            (
                two(none(), json!({ "kind": "far" })),
                "kind \"far\" of cluster \"b\" is not one of: local, kubernetes",
            ),
            (
                two(none(), json!({ "kind": "local", "data_dir": 7 })),
                "cluster \"b\": invalid type",
            ),
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
