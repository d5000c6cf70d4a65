//! Brokers that are started anew one after the other, under load and behind a proxy as users have one: nobody
//! who asks notices.

use std::{
    net::SocketAddr,
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    time::Duration,
};

use diesel::{Connection as _, PgConnection, QueryableByName, RunQueryDsl as _, sql_query};
use futures::future::join_all;
use reqwest::{Client, Method, StatusCode};
use serde_json::{Value, json};
use tokio::{
    io::copy_bidirectional,
    net::{TcpListener, TcpStream},
    task::JoinHandle,
    time::sleep,
};

use crate::{
    broker::{SERVICE, STANDARD, answer, eventually, text},
    migrate::bring_forward,
    postgres,
    process::{BrokerProcess, Settings, new_key_ring, shared_cluster, shared_settings},
};

/// For how long a broker says that it is about to end, in seconds.
const DRAIN: &str = "1";
/// How often the proxy asks the brokers whether they are ready.
const LOOK: Duration = Duration::from_millis(100);
/// Clients that bind at the same time.
const CLIENTS: usize = 3;

/// A proxy: it leads each connection to a broker that said lately that it is ready.
struct Front {
    url: String,
    tasks: Vec<JoinHandle<()>>,
}

struct Target {
    address: SocketAddr,
    is_ready: AtomicBool,
}

impl Front {
    async fn of(brokers: &[BrokerProcess]) -> Self {
        let target = |broker: &BrokerProcess| {
            let address = broker.settings()["LISTEN"].parse().expect("an address");
            let is_ready = AtomicBool::new(true);
            Arc::new(Target { address, is_ready })
        };
        let targets: Vec<Arc<Target>> = brokers.iter().map(target).collect();
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a listener");
        let url = format!("http://{}", listener.local_addr().expect("an address"));
        let mut tasks: Vec<JoinHandle<()>> = targets.iter().cloned().map(watch).collect();
        tasks.push(tokio::spawn(async move {
            let next = Arc::<AtomicUsize>::default();
            while let Ok((client, _)) = listener.accept().await {
                tokio::spawn(lead(client, targets.clone(), next.clone()));
            }
        }));
        Self { url, tasks }
    }
}

impl Drop for Front {
    fn drop(&mut self) {
        self.tasks.iter().for_each(JoinHandle::abort);
    }
}

fn watch(target: Arc<Target>) -> JoinHandle<()> {
    let http = Client::builder().pool_max_idle_per_host(0).build();
    let http = http.expect("a client");
    tokio::spawn(async move {
        loop {
            let asked = http.get(format!("http://{}/readyz", target.address));
            let is_ready = asked.send().await.is_ok_and(|a| a.status().is_success());
            target.is_ready.store(is_ready, Ordering::Relaxed);
            sleep(LOOK).await;
        }
    })
}

async fn lead(mut client: TcpStream, targets: Vec<Arc<Target>>, next: Arc<AtomicUsize>) {
    let first = next.fetch_add(1, Ordering::Relaxed);
    let turns = (0..targets.len()).map(|i| &targets[(first + i) % targets.len()]);
    for target in turns.filter(|target| target.is_ready.load(Ordering::Relaxed)) {
        // One that takes no connection any more has heard nothing: the next one is asked.
        if let Ok(mut server) = TcpStream::connect(target.address).await {
            let _ = copy_bidirectional(&mut client, &mut server).await;
            return;
        }
    }
}

fn shared(folder: &Path, url: &str) -> Settings {
    let mut settings = shared_settings(folder, &[shared_cluster("local", folder, None)]);
    settings.extend([
        ("DATABASE_URL", url.to_owned()),
        ("ENCRYPTION_KEYS", new_key_ring()),
        ("DRAIN_SECONDS", DRAIN.to_owned()),
        ("REQUESTS_PER_SECOND", "0".to_owned()),
    ]);
    settings
}

/// A client that goes on until it is told to stop.
#[derive(Clone)]
struct Asker {
    http: Client,
    front: String,
    credentials: (String, String),
    is_over: Arc<AtomicBool>,
}

impl Asker {
    async fn ask(&self, method: Method, path: &str, body: Option<Value>) -> (StatusCode, Value) {
        let mut asked = self
            .http
            .request(method.clone(), format!("{}{path}", self.front))
            .basic_auth(&self.credentials.0, Some(&self.credentials.1))
            .header("X-Broker-API-Version", "2.17");
        if let Some(body) = body {
            asked = asked.json(&body);
        }
        let answer = asked.send().await;
        let answer = answer.unwrap_or_else(|error| panic!("{method} {path}: {error:?}"));
        let status = answer.status();
        let said = answer.text().await.expect("a body");
        assert!(
            !status.is_server_error(),
            "{method} {path}: {status} {said}"
        );
        (status, serde_json::from_str::<Value>(&said).expect("JSON"))
    }

    /// Makes what stands at `path`, and deletes it, again and again; returns how many answers it got.
    async fn make_and_delete(self, path: String, more: Value) -> usize {
        let mut count = 0;
        let ids = format!("service_id={SERVICE}&plan_id={STANDARD}&accepts_incomplete=true");
        while !self.is_over.load(Ordering::Relaxed) {
            self.ask(Method::GET, "/v2/catalog", None).await;
            for method in [Method::PUT, Method::DELETE] {
                let mut body = json!({ "service_id": SERVICE, "plan_id": STANDARD });
                for (name, value) in more.as_object().expect("fields") {
                    body[name] = value.clone();
                }
                let body = (method == Method::PUT).then_some(body);
                let (status, told) = self.ask(method, &format!("{path}?{ids}"), body).await;
                assert_eq!(status, StatusCode::ACCEPTED, "{told}");
                let operation = text(&told["operation"]);
                let poll = format!("{path}/last_operation?operation={operation}");
                loop {
                    let (status, told) = self.ask(Method::GET, &poll, None).await;
                    count += 1;
                    if status == StatusCode::GONE || told["state"] != "in progress" {
                        assert_ne!(told["state"], "failed", "{told}");
                        break;
                    }
                    sleep(LOOK).await;
                }
            }
            count += 3;
        }
        count
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn brokers_are_started_anew_one_after_the_other_and_no_request_is_lost() {
    let Some(url) = postgres::new_database() else {
        return;
    };
    let folder = tempfile::tempdir().expect("a folder");
    let settings = shared(folder.path(), &url);
    let new = || BrokerProcess::stopped_with(|own| own.extend(settings.clone()));
    let mut brokers = [new(), new()];
    for broker in &mut brokers {
        broker.start_again().await;
    }
    brokers[0].provision("i", json!({})).await;
    let front = Front::of(&brokers).await;
    let is_over = Arc::<AtomicBool>::default();
    // It keeps its connections, as clients do.
    let http = Client::builder().timeout(Duration::from_secs(30)).build();
    let http = http.expect("a client");
    let (username, password) = brokers[0].platform();
    let asker = Asker {
        http,
        front: front.url.clone(),
        credentials: (username.to_owned(), password.to_owned()),
        is_over: is_over.clone(),
    };
    let binding = |number| {
        let path = format!("/v2/service_instances/i/service_bindings/b{number}");
        tokio::spawn(asker.clone().make_and_delete(path, json!({})))
    };
    let mut clients: Vec<JoinHandle<usize>> = (0..CLIENTS).map(binding).collect();
    let place = json!({ "organization_guid": "o", "space_guid": "s" });
    let instance = "/v2/service_instances/j".to_owned();
    clients.push(tokio::spawn(asker.make_and_delete(instance, place)));
    let mut is_first = true;
    for broker in &mut brokers {
        if !std::mem::take(&mut is_first) {
            // As the first one that is new does.
            tokio::task::block_in_place(|| bring_forward(&url));
        }
        let ending = tokio::task::spawn_blocking(broker.terminate());
        // It answers, and says that it is about to end.
        eventually("a broker that is about to end", || async {
            let told = answer(broker.anonymous(Method::GET, "/readyz")).await;
            let ends = told.status == StatusCode::SERVICE_UNAVAILABLE;
            assert!(
                !ends || text(&told.body["status"]).contains("about to end"),
                "{told:?}"
            );
            ends.then_some(())
        })
        .await;
        let told = answer(broker.osb(Method::GET, "/v2/catalog")).await;
        assert_eq!(told.status, StatusCode::OK, "{told:?}");
        assert_eq!(told.headers["connection"], "close", "{told:?}");
        assert!(ending.await.expect("an end").success());
        broker.start_again().await;
    }
    is_over.store(true, Ordering::Relaxed);
    let counts = join_all(clients).await;
    let counts: Vec<usize> = counts.into_iter().map(|c| c.expect("a count")).collect();
    assert!(counts.iter().all(|count| *count > 5), "{counts:?}");
    brokers[0].deprovision("i").await;
}

#[derive(QueryableByName)]
struct Claimed {
    #[diesel(sql_type = diesel::sql_types::Nullable<diesel::sql_types::Text>)]
    owner: Option<String>,
    #[diesel(sql_type = diesel::sql_types::BigInt)]
    epoch: i64,
}

/// The claim on the one operation that runs.
fn claim(url: &str) -> Option<Claimed> {
    let mut inside = PgConnection::establish(url).expect("a connection");
    let running = "SELECT owner, epoch FROM operations WHERE state = 'running'";
    let mut rows: Vec<Claimed> = sql_query(running).load(&mut inside).expect("rows");
    rows.pop()
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_broker_was_at_work_on_waits_for_no_lease_when_it_ends_or_dies() {
    let Some(url) = postgres::new_database() else {
        return;
    };
    let folder = tempfile::tempdir().expect("a folder");
    let mut settings = shared(folder.path(), &url);
    settings.insert("DRAIN_SECONDS", "0".to_owned());
    let mut broker = BrokerProcess::stopped_with(|own| own.extend(settings));
    broker.start_again().await;
    let accepted = broker.put_instance("i", json!({})).await;
    assert_eq!(accepted.status, StatusCode::ACCEPTED, "{accepted:?}");
    let begun = async |epoch: i64| {
        eventually("a claim", || async {
            claim(&url).filter(|of| of.owner.is_some() && of.epoch == epoch)
        })
        .await;
    };
    begun(1).await;
    let ended = tokio::task::spawn_blocking(broker.terminate()).await;
    assert!(ended.expect("an end").success());
    let left = claim(&url).expect("work that is not done");
    assert_eq!((left.owner, left.epoch), (None, 1), "it was given back");

    broker.start_again().await;
    begun(2).await;
    broker.kill();
    let left = claim(&url).expect("work that is not done");
    assert!(left.owner.is_some(), "nobody gave it back");
    let killed = tokio::time::Instant::now();
    broker.start_again().await;
    begun(3).await;
    // The cluster is this broker's now, so the one that had the claim is gone.
    let lease = compose_broker::model::limits::LEASE;
    assert!(killed.elapsed() < lease, "{:?}", killed.elapsed());
    let end = broker.instance_end("i", &accepted.body).await;
    assert_eq!(end["state"], "succeeded", "{end}");
    broker.deprovision("i").await;
}
