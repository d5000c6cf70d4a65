//! The files that `kubectl apply -k` takes, compared with what they speak of: the image, the settings, and
//! each other.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::{Path, PathBuf},
};

use serde_json::Value;

use crate::tidy::root;

const SETTINGS: &str = include_str!("../../docs/operating/settings.md");
const DOCKERFILE: &str = include_str!("../../deploy/Dockerfile");

/// Each file below `deploy/kubernetes`, by its path from there on.
fn files() -> BTreeMap<PathBuf, String> {
    let home = root().join("deploy/kubernetes");
    let mut folders = vec![home.clone()];
    let mut found = BTreeMap::new();
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).expect("a folder").flatten() {
            let path = entry.path();
            if path.is_dir() {
                folders.push(path);
            } else {
                let text = fs::read_to_string(&path).expect("a text");
                let name = path.strip_prefix(&home).expect("a file below");
                found.insert(name.to_owned(), text);
            }
        }
    }
    found
}

fn file(name: &str) -> String {
    files().remove(Path::new(name)).expect(name)
}

/// What stands behind `key:` each time, in a line of its own or between braces.
fn values<'a>(text: &'a str, key: &str) -> Vec<&'a str> {
    let lines = text.lines().map(str::trim_start);
    let lines = lines.filter(|line| !line.starts_with('#'));
    let parts = lines.flat_map(|line| line.split(['{', ',']));
    let parts = parts.filter_map(|part| part.trim_start_matches([' ', '-']).strip_prefix(key));
    let parts = parts.filter_map(|rest| rest.strip_prefix(':'));
    parts
        .map(|rest| rest.trim_matches(|c: char| c.is_whitespace() || "}\"]".contains(c)))
        .filter(|value| !value.is_empty())
        .collect()
}

/// The settings of an overlay's file.
fn settings(text: &str) -> BTreeMap<&str, &str> {
    let lines = text.lines().filter(|line| !line.starts_with('#'));
    let lines = lines.filter(|line| !line.is_empty());
    lines
        .map(|line| line.split_once('=').expect("a setting"))
        .collect()
}

/// What follows an instruction in the image's last stage.
fn instruction(name: &str) -> &'static str {
    let last = DOCKERFILE.rsplit("\nFROM ").next().expect("a stage");
    let mut lines = last.lines();
    let found = lines.find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
    found.expect(name)
}

#[test]
fn each_file_is_named_and_each_that_is_named_is_there() {
    let files = files();
    let home = root().join("deploy/kubernetes");
    let mut named = BTreeSet::new();
    for (name, text) in &files {
        if !name.ends_with("kustomization.yaml") {
            continue;
        }
        let folder = name.parent().expect("a folder");
        let entries = text.lines().map(str::trim_start);
        let entries = entries.filter_map(|line| {
            let entry = line.strip_prefix("- path: ").or(line.strip_prefix("- "));
            let lists = ["envs: [", "files: ["];
            let mut in_lists = lists.iter().filter_map(|list| line.strip_prefix(list));
            let listed = in_lists.next();
            listed.map(|rest| rest.trim_end_matches(']')).or(entry)
        });
        for entry in entries.filter(|entry| !entry.contains(':')) {
            let path = home.join(folder).join(entry);
            let path = path.canonicalize().expect(entry);
            assert!(
                path.is_file() || path.join("kustomization.yaml").is_file(),
                "{entry} of {} is no part",
                name.display()
            );
            named.insert(path.strip_prefix(&home).expect("a file below").to_owned());
        }
    }
    for name in files
        .keys()
        .filter(|name| !name.ends_with("kustomization.yaml"))
    {
        assert!(
            named.contains(name),
            "{} is applied by nobody",
            name.display()
        );
    }
}

#[test]
fn what_is_set_is_a_setting() {
    let mut seen = 0;
    for (name, text) in files() {
        let in_environment = values(&text, "name");
        let set = match name.extension() {
            Some(end) if end == "env" => settings(&text).into_keys().collect(),
            _ => in_environment,
        };
        for setting in set.iter().filter(|name| name.contains("COMPOSE_BROKER_")) {
            seen += 1;
            let row = format!("| `{setting}` |");
            assert!(SETTINGS.contains(&row), "{setting} in {}", name.display());
        }
    }
    assert!(seen > 5, "{seen}");
}

#[test]
fn the_pod_is_what_the_image_is_made_for() {
    let pod = file("base/deployment.yaml");
    let (user, group) = instruction("USER").split_once(':').expect("a group");
    assert_eq!(values(&pod, "runAsUser"), [user]);
    assert_eq!(values(&pod, "runAsGroup"), [group]);
    assert_eq!(values(&pod, "fsGroup"), [group]);
    assert_eq!(values(&pod, "containerPort"), [instruction("EXPOSE")]);
    let volume = instruction("VOLUME");
    assert_eq!(values(&pod, "mountPath"), [volume, "/tmp"]);
    let base = file("base/settings.env");
    let folder = settings(&base)["COMPOSE_BROKER_DATA_DIR"];
    assert!(folder.starts_with(&format!("{volume}/")), "{folder}");
    // A restart of a container ends what runs in it, so that only silence may lead to one.
    let asked: Vec<&str> = ["startupProbe", "livenessProbe", "readinessProbe"]
        .iter()
        .map(|probe| {
            let of_it = pod.split(probe).nth(1).expect("a probe");
            values(of_it, "path")[0]
        })
        .collect();
    assert_eq!(asked, ["/healthz", "/healthz", "/readyz"]);
    // Services' names in its environment would be settings.
    assert_eq!(values(&pod, "enableServiceLinks"), ["false"]);
}

#[test]
fn names_and_ports_in_settings_are_those_of_services_and_policies() {
    let namespace = values(&file("base/namespace.yaml"), "name")[0].to_owned();
    let base = file("base/settings.env");
    let service = file("base/service.yaml");
    assert_eq!(
        settings(&base)["COMPOSE_BROKER_PUBLIC_URL"],
        format!(
            "http://{}.{namespace}.svc:{}",
            values(&service, "name")[0],
            values(&service, "port")[0]
        )
    );
    let sqlite = file("sqlite/settings.env");
    let set = settings(&sqlite);
    let databases = file("sqlite/databases.yaml");
    let (headless, policy) = databases.split_once("\n---\n").expect("two objects");
    assert_eq!(
        set["COMPOSE_BROKER_MEMBER_HOST"],
        format!("{}.{namespace}.svc", values(headless, "name")[0])
    );
    let (first, last) = set["COMPOSE_BROKER_PORT_RANGE"]
        .split_once('-')
        .expect("a range");
    assert_eq!(values(headless, "port"), [first]);
    assert_eq!(values(policy, "port"), [first]);
    assert_eq!(values(policy, "endPort"), [last]);
}

/// Brokers that look after databases in Pods of their own.
#[test]
fn brokers_may_do_what_is_said_where_the_databases_are() {
    let account = values(&file("base/account.yaml"), "name")[0].to_owned();
    let brokers = values(&file("base/namespace.yaml"), "name")[0].to_owned();
    let databases = values(&file("databases/namespace.yaml"), "name")[0].to_owned();
    let (role, binding) = {
        let file = file("databases/role.yaml");
        let (role, binding) = file.split_once("\n---\n").expect("two objects");
        (role.to_owned(), binding.to_owned())
    };
    assert_eq!(values(&role, "kind"), ["Role"]);
    assert_eq!(
        values(&binding, "kind"),
        ["RoleBinding", "Role", "ServiceAccount"]
    );
    assert_eq!(values(&binding, "namespace"), [&brokers]);
    assert_eq!(values(&binding, "name").last(), Some(&account.as_str()));
    let kustomization = file("databases/kustomization.yaml");
    assert_eq!(values(&kustomization, "namespace"), [&databases]);
    let clusters = file("postgresql/clusters.json");
    let clusters: Value = serde_json::from_str(&clusters).expect("JSON");
    assert_eq!(clusters[0]["namespace"], databases.as_str());
    // Secrets stand in no file of ours.
    let pod = file("postgresql/deployment.yaml");
    assert!(pod.contains("- secretRef: { name: compose-broker }"));
}

/// Where tenants have namespaces.
#[test]
fn brokers_are_kept_to_the_namespaces_of_tenants() {
    let account = values(&file("base/account.yaml"), "name")[0].to_owned();
    let brokers = values(&file("base/namespace.yaml"), "name")[0].to_owned();
    let databases = values(&file("databases/namespace.yaml"), "name")[0].to_owned();
    let whose = format!("- {{ kind: ServiceAccount, name: {account}, namespace: {brokers} }}");
    for name in ["tenants/role.yaml", "tenants/tenants.yaml"] {
        assert!(file(name).contains(&whose), "{name}");
    }
    let role = file("tenants/role.yaml");
    assert_eq!(
        values(&role, "namespace"),
        [&databases, &databases, &brokers]
    );
    let bounds = file("tenants/bounds.yaml");
    for text in [
        format!("'system:serviceaccount:{brokers}:{account}'"),
        format!(".startsWith('{databases}-')"),
    ] {
        assert!(bounds.contains(&text), "{text}");
    }
}

#[test]
fn a_broker_that_ends_has_time_for_it() {
    let [ends_within, serves_on] = [
        file("postgresql/deployment.yaml"),
        file("postgresql/settings.env"),
    ];
    let ends_within: u64 = values(&ends_within, "terminationGracePeriodSeconds")[0]
        .parse()
        .expect("seconds");
    let serves_on: u64 = settings(&serves_on)["COMPOSE_BROKER_DRAIN_SECONDS"]
        .parse()
        .expect("seconds");
    // What it answers has 10 s more.
    assert!(ends_within > serves_on + 10, "{ends_within} {serves_on}");
    let base: u64 = values(
        &file("base/deployment.yaml"),
        "terminationGracePeriodSeconds",
    )[0]
    .parse()
    .expect("seconds");
    assert!(base > 10, "{base}");
}
