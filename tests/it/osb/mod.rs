//! What OSB v2.17 asks of a broker, item by item: each test has the number that its item has in
//! `docs/osb.md`, and `promises.rs` holds the two together.
//!
//! One file for each section of that table. What several tests need stands here: a broker whose steps
//! and clock are in the test's hand, and requests with a change laid over the usual ones. What the
//! specification asks for is the broker's affair, so databases are in memory, but where a test names
//! versions, looks at processes or is about the catalog that is shipped; and one of each kind of
//! operation is on etcd.

use std::ops::{Deref, DerefMut};

use compose_broker::app::Surroundings;
use reqwest::{Method, RequestBuilder, StatusCode};
use serde_json::{Value, json};

use crate::{
    broker::{
        Answer, SERVICE, STANDARD, TestBroker, answer, binding_path, instance_path,
        nothing_after_delete, text, with_rules,
    },
    catalog::catalog_file,
    control::{Script, TestClock},
    database::Database,
    transport::description,
};

mod bind;
mod catalog;
mod durability;
mod fetch;
mod headers;
mod last_operation;
mod platforms;
mod provision;
mod unbind_and_orphans;
mod update;

/// The fields that every provision and every bind needs.
fn ids() -> Value {
    json!({ "service_id": SERVICE, "plan_id": STANDARD })
}

/// `change` laid over `body`.
fn with(mut body: Value, change: &Value) -> Value {
    for (field, value) in change.as_object().expect("an object") {
        body[field] = value.clone();
    }
    body
}

/// The body of a provision.
fn provision_body(change: &Value) -> Value {
    let body = with(
        ids(),
        &json!({ "organization_guid": "org", "space_guid": "space" }),
    );
    with(body, change)
}

/// A broker whose steps and clock are in the test's hand. Its instance is `i`, where it has one.
struct Bench {
    broker: TestBroker,
    script: Script,
    clock: TestClock,
}

impl Deref for Bench {
    type Target = TestBroker;

    fn deref(&self) -> &TestBroker {
        &self.broker
    }
}

impl DerefMut for Bench {
    fn deref_mut(&mut self) -> &mut TestBroker {
        &mut self.broker
    }
}

impl Bench {
    /// Without an instance: it starts in a moment.
    async fn new() -> Self {
        Self::with_flags(&[]).await
    }

    /// The same with real databases.
    async fn on_etcd() -> Self {
        Self::of(Database::Etcd, &catalog_file(), &[]).await
    }

    async fn with_flags(flags: &[&str]) -> Self {
        Self::of(Database::in_memory(), &catalog_file(), flags).await
    }

    /// With a catalog of the test's own.
    async fn with_catalog(catalog: &Value) -> Self {
        Self::of(Database::in_memory(), catalog, &[]).await
    }

    /// With an instance `i` that can be used.
    async fn with_instance(parameters: Value) -> Self {
        let bench = Self::new().await;
        bench.provision("i", parameters).await;
        bench
    }

    /// The same with real databases.
    async fn with_etcd(parameters: Value) -> Self {
        let bench = Self::on_etcd().await;
        bench.provision("i", parameters).await;
        bench
    }

    async fn of(database: Database, catalog: &Value, flags: &[&str]) -> Self {
        let (script, clock) = (Script::default(), TestClock::default());
        let surroundings = surroundings(&script, &clock);
        // What is deleted leaves nothing, as OSB has it.
        let catalog = with_rules(catalog.clone(), |rules| {
            rules["after_delete"] = nothing_after_delete();
        });
        Self {
            broker: database.broker_with(&catalog, flags, surroundings).await,
            script,
            clock,
        }
    }

    /// Stops the broker and starts it again.
    async fn restart(&mut self) {
        let surroundings = surroundings(&self.script, &self.clock);
        self.broker.restart_with(surroundings).await;
    }

    /// A request as a platform makes it that speaks 2.`minor`.
    fn as_minor(&self, minor: u32, method: Method, path: &str) -> RequestBuilder {
        let (username, password) = self.platform();
        self.anonymous(method, path)
            .basic_auth(username, Some(password))
            .header("X-Broker-API-Version", format!("2.{minor}"))
    }

    async fn get(&self, path: &str) -> Answer {
        answer(self.osb(Method::GET, path)).await
    }

    /// Asks for an instance.
    async fn put(&self, id: &str, change: Value) -> Answer {
        let path = format!("{}?accepts_incomplete=true", instance_path(id));
        let request = self.osb(Method::PUT, &path);
        answer(request.json(&provision_body(&change))).await
    }

    /// Asks for an instance as a platform does that cannot poll.
    async fn put_waiting(&self, id: &str, change: Value) -> Answer {
        let request = self.osb(Method::PUT, &instance_path(id));
        answer(request.json(&provision_body(&change))).await
    }

    /// Asks for an update of `i`, as Cloud Foundry does unless `change` says otherwise.
    async fn patch(&self, change: Value) -> Answer {
        let path = format!("{}?accepts_incomplete=true", instance_path("i"));
        self.patch_at(&path, change).await
    }

    async fn patch_at(&self, path: &str, change: Value) -> Answer {
        let body = with(ids(), &json!({ "parameters": {} }));
        answer(self.osb(Method::PATCH, path).json(&with(body, &change))).await
    }

    async fn fetch(&self, id: &str) -> Answer {
        self.get(&instance_path(id)).await
    }

    /// The state of an operation on an instance; none: without a token.
    async fn poll(&self, id: &str, token: Option<&str>) -> Answer {
        self.get(&poll_path(&instance_path(id), token)).await
    }

    /// Waits for the end of what an answer accepted.
    async fn end(&self, id: &str, accepted: &Answer) -> Value {
        self.end_of(&poll_path(&instance_path(id), Some(token(accepted))))
            .await
    }

    /// Asks for a binding of `i`.
    async fn put_binding(&self, binding: &str, change: Value) -> Answer {
        let path = format!("{}?accepts_incomplete=true", binding_path("i", binding));
        answer(self.osb(Method::PUT, &path).json(&with(ids(), &change))).await
    }

    /// Asks for a binding of `i` as a platform does that cannot poll.
    async fn put_binding_waiting(&self, binding: &str, change: Value) -> Answer {
        let request = self.osb(Method::PUT, &binding_path("i", binding));
        answer(request.json(&with(ids(), &change))).await
    }

    async fn fetch_binding(&self, binding: &str) -> Answer {
        self.get(&binding_path("i", binding)).await
    }

    async fn poll_binding(&self, binding: &str, token: Option<&str>) -> Answer {
        self.get(&poll_path(&binding_path("i", binding), token))
            .await
    }

    async fn end_of_binding(&self, binding: &str, accepted: &Answer) -> Value {
        self.end_of(&poll_path(
            &binding_path("i", binding),
            Some(token(accepted)),
        ))
        .await
    }

    /// Asks for the end of a binding of `i`.
    async fn delete_binding(&self, binding: &str) -> Answer {
        let path = binding_path("i", binding);
        self.delete_at(&path, &format!("{IDS}&accepts_incomplete=true"))
            .await
    }

    async fn delete_at(&self, path: &str, query: &str) -> Answer {
        answer(self.osb(Method::DELETE, &format!("{path}?{query}"))).await
    }

    /// Makes an instance that fails at once, without a member.
    async fn fail_to_provision(&self, id: &str) -> Answer {
        let failing = self.script.fail(
            compose_broker::model::operation::OperationKind::Provision,
            "allocate",
        );
        let accepted = self.put(id, json!({})).await;
        let end = self.end(id, &accepted).await;
        assert_eq!(end["state"], "failed", "{end}");
        drop(failing);
        accepted
    }
}

fn surroundings(script: &Script, clock: &TestClock) -> Surroundings {
    Surroundings {
        clock: clock.clock(),
        ..script.surroundings()
    }
}

/// The ids of the usual service and plan, in a query.
const IDS: &str = "service_id=6f1c9f0e-52a4-4a39-8e0b-3c1f5b7a9d10\
                   &plan_id=b8a0d3f4-7c1e-4b5f-9a52-1de2c4f60a11";

fn poll_path(path: &str, token: Option<&str>) -> String {
    let query = token.map_or(String::new(), |token| format!("?operation={token}"));
    format!("{path}/last_operation{query}")
}

/// An accepted answer's token.
fn token(answer: &Answer) -> &str {
    assert_eq!(answer.status, StatusCode::ACCEPTED, "{answer:?}");
    text(&answer.body["operation"])
}

/// The state that an answer of `last_operation` tells.
fn state(answer: &Answer) -> &str {
    assert_eq!(answer.status, StatusCode::OK, "{answer:?}");
    text(&answer.body["state"])
}

/// Checks that an answer is a 422 with one of OSB's own codes.
fn coded(answer: &Answer, code: &str) {
    description(answer, StatusCode::UNPROCESSABLE_ENTITY);
    assert_eq!(answer.body["error"], code, "{answer:?}");
}

/// The description of a refusal without a code.
fn refused(answer: &Answer, status: StatusCode) -> &str {
    assert_eq!(answer.body.get("error"), None, "{answer:?}");
    description(answer, status)
}

/// Checks that nothing was ever done under an id.
async fn assert_never_made(bench: &Bench, id: &str) {
    assert_eq!(bench.fetch(id).await.status, StatusCode::NOT_FOUND);
    assert_eq!(bench.poll(id, None).await.status, StatusCode::NOT_FOUND);
    assert_eq!(bench.delete_instance(id).await.status, StatusCode::GONE);
}
