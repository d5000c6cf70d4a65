//! The use cases on a store without a runner: what is decided, and nothing done about it.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use chrono::{DateTime, Utc};
use futures::future::BoxFuture;
use serde_json::{Value, json};

use super::*;
use crate::{
    backups::{Vault, store::memory::MemoryStore},
    engine::etcd,
    model::{
        backup::{Backup, BackupState, MANIFEST_FORMAT_CLEAR, Manifest, StoredSnapshot},
        capacity::Footprint,
        catalog::Catalog,
        deployment::Deployment,
        engine::{Obstacle, Port},
        exposure::Exposure,
        health::HealthState,
        ids::{BackupId, DeploymentId, OperationId},
        instance::InstanceState,
        limits::{PLATFORM_NAME_BYTES_MAX, SIGN_IN_FAILURES_OF_CLIENT, UNIT_BYTES},
        logfile::{LogPart, Logfile},
        observation::Observation,
        operation::DeletedPoll,
        origin::Origin,
        period::BackupKind,
        proof::Proof,
        reach::{Reach, Whereabouts},
        recovery::Remains,
        renewal::CertificateLife,
        secret::{Credentials, Secret},
        server::MemberSeen,
        trust::KnownTime,
        version::Version,
    },
    registrar::Registrar,
    store,
    stream::ByteStream,
};

mod estate;
mod exposure;
mod proofs;

const SERVICE: &str = "6f1c9f0e-52a4-4a39-8e0b-3c1f5b7a9d10";
const STANDARD: &str = "b8a0d3f4-7c1e-4b5f-9a52-1de2c4f60a11";
const ENTERPRISE: &str = "c2f7e6a9-0d4b-4c83-b1f6-58a9e3d7b212";

/// The capacity of the cluster "far".
const FAR_UNITS: u32 = 20;

/// A broker on three clusters, two of them with several versions and one that takes nothing new.
struct Office {
    broker: Arc<Broker>,
    _folder: tempfile::TempDir,
}

/// Nobody looks at deployments that nobody made.
struct Nobody;

impl Observer for Nobody {
    fn observe(&self, _: &Deployment) -> Option<Arc<Observation>> {
        None
    }

    fn seen(&self, _: &Deployment) -> Option<Arc<Observation>> {
        None
    }

    fn look(&self, _: &Deployment) -> BoxFuture<'static, Option<Arc<Observation>>> {
        Box::pin(async { None })
    }

    fn recent(&self, _: &Deployment) -> BoxFuture<'static, Option<Arc<Observation>>> {
        Box::pin(async { None })
    }

    fn alive(&self, _: &Deployment) -> BoxFuture<'static, Option<Vec<bool>>> {
        Box::pin(async { None })
    }

    fn survey(&self, _: &Deployment) -> BoxFuture<'static, Option<Vec<Remains>>> {
        Box::pin(async { None })
    }

    fn obstacles(&self, _: &Deployment, _: Version) -> BoxFuture<'static, Option<Vec<Obstacle>>> {
        Box::pin(async { None })
    }

    fn count_keys(&self, _: &Deployment, _: &str) -> BoxFuture<'static, Option<u64>> {
        Box::pin(async { None })
    }
}

impl Census for Nobody {
    fn looks_after(&self, _: &str) -> bool {
        true
    }

    fn finds(&self, _: &str) -> bool {
        true
    }

    fn deployments<'a>(
        &'a self,
        _: &'a str,
    ) -> BoxFuture<'a, Result<Vec<DeploymentId>, CensusError>> {
        Box::pin(async { Ok(Vec::new()) })
    }

    fn members<'a>(
        &'a self,
        _: &'a str,
        _: &'a DeploymentId,
    ) -> BoxFuture<'a, Result<Vec<MemberSeen>, CensusError>> {
        Box::pin(async { Ok(Vec::new()) })
    }

    fn whereabouts<'a>(
        &'a self,
        deployment: &'a Deployment,
        _: &'a [Port],
        _: &'a Reach,
    ) -> BoxFuture<'a, Result<Vec<Whereabouts>, CensusError>> {
        let nowhere = deployment.members.iter().map(|_| Whereabouts::default());
        let nowhere = nowhere.collect();
        Box::pin(async { Ok(nowhere) })
    }

    fn remove<'a>(
        &'a self,
        _: &'a str,
        _: &'a DeploymentId,
    ) -> BoxFuture<'a, Result<(), CensusError>> {
        Box::pin(async { Ok(()) })
    }
}

impl Logs for Nobody {
    fn list(&self, _: &Deployment) -> BoxFuture<'_, Result<Vec<Logfile>, LogError>> {
        Box::pin(async { Ok(Vec::new()) })
    }

    fn read(
        &self,
        _: &Deployment,
        _: &str,
        _: LogPart,
        _: Option<u64>,
    ) -> BoxFuture<'_, Result<Option<ByteStream>, LogError>> {
        Box::pin(async { Ok(None) })
    }
}

fn versions(texts: &[&str]) -> Vec<Version> {
    texts
        .iter()
        .map(|t| t.parse().expect("a version"))
        .collect()
}

fn now() -> DateTime<Utc> {
    DateTime::from_timestamp(1_795_355_851, 0).expect("a time")
}

impl Office {
    fn open() -> Self {
        Self::open_with(|_| {})
    }

    /// With parts that differ by `change`.
    fn open_with(change: impl FnOnce(&mut BrokerParts)) -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        let url = format!("sqlite://{}", folder.path().join("broker.db").display());
        let catalog = include_str!("../../catalog.json");
        let cluster = |id: &str, name: &str, enabled, capacity_units| Cluster {
            id: id.to_owned(),
            name: name.to_owned(),
            kind: "local",
            service_instance_id: format!("instance of {id}").parse().ok(),
            enabled,
            capacity_units,
            snapshots_at_once: None,
            operations_at_once: None,
            exposure: Exposure::default(),
        };
        let clusters = vec![
            cluster("near", "Near", true, None),
            cluster("far", "Far away", true, Some(FAR_UNITS)),
            cluster("off", "Off", false, None),
        ];
        let installed = [
            ("near", versions(&["3.3.25", "3.4.23", "3.5.16", "3.5.30"])),
            ("far", versions(&["3.5.16"])),
            ("off", versions(&["3.5.30"])),
        ];
        let ring = KeyRing::generate().expect("a key ring");
        let keys = Arc::new(KeyRing::parse(ring.expose()).expect("a key ring"));
        let store = Arc::new(Store::open(&url).expect("a store"));
        let clock = Clock::new(now);
        let known = KnownTime::begin(&clock.read());
        let time = Timekeeper::knowing(store.clone(), clock.clone(), known);
        let backups = Vault::over(MemoryStore::default(), keys.clone());
        let mut parts = BrokerParts {
            volumes: Arc::new(Volumes::of(
                store.clone(),
                Vec::new(),
                Footprint::of([&etcd::PROFILE]),
            )),
            audit_days: None,
            proves_backups: true,
            step_titles: |_, _| None,
            certificate_life: CertificateLife::default(),
            on_demand_pause: Duration::ZERO,
            doorkeeper: Arc::new(Doorkeeper::new(
                &keys,
                &[Credentials {
                    username: "ada".to_owned(),
                    password: Secret::new("word"),
                }],
                &[],
                SIGN_IN_FAILURES_OF_CLIENT,
            )),
            time: Arc::new(time),
            store: store.clone(),
            replica: String::new(),
            catalog: Arc::new(CurrentCatalog::new(
                Catalog::parse(catalog, &["etcd"]).expect("a catalog"),
            )),
            registrar: Registrar::new(store.clone(), backups.clone(), clock.clone()),
            backups,
            keys,
            clock,
            clusters: clusters.into(),
            versions: installed
                .map(|(id, v)| (id.to_owned(), BTreeMap::from([("etcd".to_owned(), v)])))
                .into(),
            profiles: BTreeMap::from([("etcd".to_owned(), &etcd::PROFILE)]).into(),
            limits: crate::model::queue::Limits::default(),
            units_per_tenant: None,
            restore_scope: RestoreScope::Space,
            tenant_keys: TenantKeys::default(),
            deleted_poll: DeletedPoll::Gone,
            deployment_names: "compose-broker-{engine}-{instance}"
                .parse()
                .expect("a form"),
            public_url: "http://broker".to_owned(),
            downloads: Arc::new(Downloads::on(tokio::runtime::Handle::current())),
            observer: Arc::new(Nobody),
            census: Arc::new(Nobody),
            logs: Arc::new(Nobody),
            messenger: None,
        };
        change(&mut parts);
        Self {
            broker: Arc::new(Broker::new(&parts)),
            _folder: folder,
        }
    }

    async fn provision(&self, id: &str, plan: &str, parameters: Value) -> Result<(), BrokerError> {
        self.provision_named(id, plan, parameters, None).await
    }

    async fn provision_named(
        &self,
        id: &str,
        plan: &str,
        parameters: Value,
        name: Option<&str>,
    ) -> Result<(), BrokerError> {
        let request = ProvisionRequest {
            instance: id.parse().expect("an id"),
            service_id: SERVICE.to_owned(),
            plan_id: plan.to_owned(),
            organization: "org".to_owned(),
            space: "space".to_owned(),
            context: name.map(|name| json!({ "instance_name": name })),
            parameters: Some(parameters),
            private_key: PrivateKey::Absent,
            maintenance_version: None,
            accepts_incomplete: true,
        };
        self.broker.instances.provision(request).await.map(|_| ())
    }

    /// An instance that is usable.
    async fn instance(&self, id: &str, plan: &str, parameters: Value) -> InstanceId {
        let made = self.provision(id, plan, parameters).await;
        made.expect("accepted");
        let id: InstanceId = id.parse().expect("an id");
        let of = id.clone();
        let ready = self
            .broker
            .store
            .write(move |conn| store::instance::set_state(conn, &of, InstanceState::Ready));
        ready.await.expect("written");
        id
    }

    /// A complete backup of an instance that holds `bytes`, or one in another state.
    async fn backup(&self, of: &InstanceId, state: BackupState, bytes: u64) -> BackupId {
        let of = of.clone();
        let kept = self.broker.store.write(move |conn| {
            let instance = store::instance::get(conn, &of)?;
            let (deployment, _) = store::deployment::of_instance(conn, &of)?.expect("a deployment");
            let id = BackupId::generate(now());
            let complete = state == BackupState::Complete;
            let backup = Backup {
                id: id.clone(),
                instance: of.clone(),
                deployment: deployment.id.clone(),
                operation: OperationId::generate(now()),
                kind: BackupKind::OnDemand,
                period: None,
                state,
                failure: None,
                created_at: now(),
                ordinal: 0,
                namesake: 0,
                finished_at: complete.then(now),
                manifest: complete.then(|| Manifest {
                    format: MANIFEST_FORMAT_CLEAR,
                    backup_id: id.clone(),
                    kind: BackupKind::OnDemand,
                    instance_id: of.clone(),
                    deployment_id: deployment.id.clone(),
                    service_id: instance.service_id.clone(),
                    plan_id: None,
                    tenant: instance.tenant.clone(),
                    engine: "etcd".to_owned(),
                    version: deployment.version,
                    units: deployment.units,
                    content: [("revision", 1), ("keys", 0)].into(),
                    stored: StoredSnapshot {
                        snapshot_bytes: bytes,
                        snapshot_sha256: String::new(),
                        object_bytes: 1,
                        object_sha256: String::new(),
                        compression: "zstd".to_owned(),
                        sealing: None,
                    },
                    requested_at: now(),
                    started_at: now(),
                    finished_at: now(),
                    locked_until: None,
                    register: None,
                    sealed_for: None,
                    sealed_credentials: None,
                    sealed_key: None,
                    signature: None,
                }),
                removal: None,
                note: String::new(),
                pinned: false,
                proof: Proof::default(),
                mirrored_at: None,
            };
            store::backup::insert(conn, &backup)?;
            Ok(id)
        });
        kept.await.expect("written")
    }

    async fn options(&self, source: &InstanceId, backup: &BackupId) -> RestoreOptions {
        let options = self
            .broker
            .restores
            .restore_options(source.clone(), vec![backup.clone()])
            .await;
        options.expect("options").remove(0)
    }

    async fn restore(
        &self,
        source: &InstanceId,
        backup: &BackupId,
        place: Option<&str>,
        version: Option<Version>,
    ) -> Result<Restored, BrokerError> {
        let request = RestoreRequest {
            source: source.clone(),
            backup: backup.to_string(),
            restore_time: None,
            clients_notice: false,
            name: None,
            version: version.map(|v| v.to_string()),
            cluster: place.map(str::to_owned),
            units: None,
            private_key: PrivateKey::Absent,
            origin: Origin::Compose,
        };
        self.broker.restores.restore_here(request).await
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_options_of_a_restore_are_what_a_restore_takes() {
    let office = Office::open();
    let old = json!({ "cluster_id": "far", "db_version": "3.5.16", "units": 2 });
    let source = office.instance("source", ENTERPRISE, old).await;
    let backup = office
        .backup(&source, BackupState::Complete, UNIT_BYTES + 1)
        .await;
    let options = office.options(&source, &backup).await;
    assert_eq!(options.refusal, None);
    assert_eq!(options.name, "etcd-restore-2026-11-22-13-57-31");
    assert!(options.chooses_cluster);
    assert_eq!((options.units_needed, options.units), (2, 2));
    let places: Vec<_> = options
        .places
        .iter()
        .map(|p| (p.cluster.as_str(), p.name.as_str(), p.versions.clone()))
        .collect();
    assert_eq!(
        places,
        [
            ("far", "Far away", versions(&["3.5.16"])),
            ("near", "Near", versions(&["3.5.30", "3.5.16"])),
        ]
    );
    // Every cell of the table, those that are not among the options too.
    for cluster in ["near", "far", "off", "none"] {
        for version in versions(&["3.3.25", "3.4.23", "3.5.16", "3.5.30", "3.6.0"]) {
            let place = options.places.iter().find(|p| p.cluster == cluster);
            let offered = place.is_some_and(|p| p.versions.contains(&version));
            let taken = office
                .restore(&source, &backup, Some(cluster), Some(version))
                .await;
            assert_eq!(taken.is_ok(), offered, "{cluster} {version}: {taken:?}");
        }
    }
    for place in &options.places {
        let made = office
            .restore(&source, &backup, Some(&place.cluster), None)
            .await
            .expect("a restore");
        assert_eq!(Some(made.deployment.version), place.version);
        assert_eq!(made.deployment.cluster, place.cluster);
        assert_eq!(made.deployment.units, options.units);
    }
    // Without a choice an instance stays where its source is.
    let made = office.restore(&source, &backup, None, None).await;
    assert_eq!(made.expect("a restore").deployment.cluster, "far");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_options_say_why_there_are_none() {
    let office = Office::open();
    let source = office
        .instance("source", STANDARD, json!({ "db_version": "3.4.23" }))
        .await;
    for state in [
        BackupState::Pending,
        BackupState::Running,
        BackupState::Failed,
        BackupState::Expired,
    ] {
        let backup = office.backup(&source, state, 1).await;
        let options = office.options(&source, &backup).await;
        let refused = office.restore(&source, &backup, None, None).await;
        let reason = refused.expect_err("a refusal").to_string();
        assert_eq!(options.refusal, Some(reason), "{state:?}");
        assert!(options.places.is_empty());
    }
    let good = office.backup(&source, BackupState::Complete, 1).await;
    let options = office.options(&source, &good).await;
    assert!(!options.chooses_cluster && options.refusal.is_none());
    assert_eq!(options.places.len(), 1);
    assert_eq!(options.places[0].cluster, "near");
    assert_eq!(
        options.places[0].versions,
        versions(&["3.5.30", "3.5.16", "3.4.23"])
    );
    let nobody: InstanceId = "nobody".parse().expect("an id");
    let unknown = office
        .broker
        .restores
        .restore_options(nobody, vec![good])
        .await;
    assert!(matches!(unknown, Err(BrokerError::NotFound(_))));
}

#[tokio::test(flavor = "multi_thread")]
async fn restores_are_told_newest_first_and_of_their_source_alone() {
    let office = Office::open();
    let source = office.instance("source", STANDARD, json!({})).await;
    let other = office.instance("other", STANDARD, json!({})).await;
    let backup = office.backup(&source, BackupState::Complete, 1).await;
    let mut made = Vec::new();
    for version in [None, Some("3.5.30")] {
        let version = version.map(|v| v.parse().expect("a version"));
        let restored = office.restore(&source, &backup, None, version).await;
        made.push(restored.expect("a restore").instance.id);
    }
    let told = office.broker.restores.restores_of(source.clone()).await;
    let told: Vec<_> = told.expect("restores").into_iter().collect();
    let mut ids: Vec<_> = told.iter().map(|r| r.instance.id.clone()).collect();
    ids.sort();
    made.sort();
    assert_eq!(ids, made);
    assert!(told.iter().all(|r| r.restore.instance == r.instance.id));
    let none = office.broker.restores.restores_of(other.clone()).await;
    assert!(none.expect("restores").is_empty());
    for (granted, asked, reached) in [
        (&source, &made[0], true),
        (&made[0], &source, false),
        (&made[0], &made[1], false),
        (&other, &made[0], false),
        (&other, &other, true),
    ] {
        let answer = office
            .broker
            .tokens
            .reaches(granted.clone(), asked.clone())
            .await;
        assert_eq!(answer.expect("an answer"), reached, "{granted} {asked}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_full_cluster_is_among_the_options_and_says_so() {
    let office = Office::open();
    let half = json!({ "cluster_id": "far", "db_version": "3.5.16", "units": FAR_UNITS / 2 });
    let source = office.instance("source", ENTERPRISE, half.clone()).await;
    let backup = office.backup(&source, BackupState::Complete, 1).await;
    let free = |options: &RestoreOptions| {
        let free: Vec<_> = options.places.iter().map(|p| p.units_free).collect();
        free
    };
    let half_free = Some(u64::from(FAR_UNITS / 2));
    let options = office.options(&source, &backup).await;
    assert_eq!(free(&options), [half_free, None]);
    assert!(options.places.iter().all(|p| p.refusal.is_none()));
    office
        .provision("other", ENTERPRISE, half)
        .await
        .expect("room");
    let options = office.options(&source, &backup).await;
    assert_eq!(free(&options), [None, Some(0)]);
    assert_eq!(options.refusal, None);
    let refused = office.restore(&source, &backup, None, None).await;
    let reason = refused.expect_err("no room").to_string();
    assert!(reason.contains("one of: near"), "{reason}");
    assert_eq!(options.places[1].refusal, Some(reason));
    assert!(options.places[1].versions.is_empty());
    let elsewhere = office.restore(&source, &backup, Some("near"), None).await;
    assert_eq!(elsewhere.expect("room").deployment.cluster, "near");
    // The id of a cluster's own service instance is nobody else's.
    let taken = office
        .provision("instance of near", STANDARD, json!({}))
        .await;
    assert!(matches!(taken, Err(BrokerError::Conflict(_))), "{taken:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_platform_names_its_instances_as_it_likes() {
    let office = Office::open();
    let longest = "x".repeat(PLATFORM_NAME_BYTES_MAX);
    for (id, name, kept) in [
        ("a", Some("my db"), Some("my db")),
        // Names are unique where we give them; a platform's are its own affair.
        ("b", Some("my db"), Some("my db")),
        ("c", Some(""), None),
        ("d", Some(longest.as_str()), Some(longest.as_str())),
        ("e", None, None),
    ] {
        let made = office.provision_named(id, STANDARD, json!({}), name).await;
        made.expect("accepted");
        let id: InstanceId = id.parse().expect("an id");
        let found = office
            .broker
            .store
            .read(move |conn| store::instance::get(conn, &id));
        assert_eq!(found.await.expect("an instance").name.as_deref(), kept);
    }
    for name in [format!("{longest}x"), "a\0b".to_owned()] {
        let refused = office.provision_named("f", STANDARD, json!({}), Some(&name));
        let refused = refused.await;
        assert!(
            matches!(refused, Err(BrokerError::BadRequest(_))),
            "{refused:?}"
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_nobody_looked_at_is_not_called_well() {
    let office = Office::open();
    office.instance("seen-by-nobody", STANDARD, json!({})).await;
    let made = office.provision("being-made", STANDARD, json!({})).await;
    made.expect("accepted");
    let (listed, more) = office.broker.views.instances("", 1).await.expect("a list");
    assert!(!more);
    let state_of = |id: &str| {
        let found = listed.iter().find(|of| of.instance.id.as_str() == id);
        found.expect("an instance").health.state
    };
    assert_eq!(state_of("being-made"), HealthState::Changing);
    // The store has it as ready: nobody has seen its members. What was accepted to be made goes on.
    assert_ne!(state_of("seen-by-nobody"), HealthState::Ready);
    let view = office
        .broker
        .deployments
        .deployment_of("seen-by-nobody".parse().expect("an id"))
        .await
        .expect("a deployment");
    let health = office
        .broker
        .vitals
        .health(&view)
        .await
        .expect("its health");
    assert_eq!(health.state, HealthState::Unknown);
}
