//! The Open Service Broker API 2.17, as a platform is to speak it.
//!
//! Invariants: every request names the version and itself, and who acts; what is asked for may
//! take its time wherever a broker can tell its state. Answers mean what the specification's table
//! says: a create that cannot be known to have failed may have left an orphan.

use std::time::Duration;

use base64::{Engine as _, engine::general_purpose::STANDARD as BASE64};
use hyper::Method;
use serde_json::{Value, json};
use tokio::time::{Instant as Moment, sleep};
use url::Url;
use uuid::Uuid;

use super::{
    book::{Instance, Kind, Last, Said},
    error::{Error, HttpError, Result},
    http::{Header, Http, Reply, basic, below},
    show::Progress,
};
use crate::model::{
    limits::{CLIENT_FIRST_LOOK, CLIENT_POLL, CLIENT_POLL_MAX, CLIENT_POLLING_MAX},
    secret::Credentials,
};

/// What kind of platform we say to be: contexts of this one are understood everywhere.
const PLATFORM: &str = "cloudfoundry";

/// A broker's yes.
#[derive(Debug)]
pub enum Accepted {
    /// It is done, and this is what the broker tells of it.
    Done(Value),
    /// The broker goes on by itself; its word for that, and what else it tells.
    Pending(Option<String>, Value),
}

/// Why something was not created.
#[derive(Debug)]
pub enum NotCreated {
    /// There is nothing.
    Nothing(Error),
    /// There may be something that nobody asked for any more.
    Orphan(String),
}

/// The state of an operation.
#[derive(Debug)]
pub enum State {
    /// It goes on.
    InProgress(String),
    /// It is over and did what it was to do.
    Succeeded(String),
    /// It is over and did not.
    Failed(String),
    /// What it was to delete is not there.
    Gone,
    /// The answer tells nothing.
    Unclear(String),
}

/// A resource of the API: an instance, or the binding with this id.
#[derive(Clone, Copy)]
pub struct Resource<'a> {
    /// The instance.
    pub instance: &'a Instance,
    /// The binding of it.
    pub binding: Option<&'a str>,
}

/// A broker, as a platform knows it.
pub struct Osb {
    http: Http,
    base: Url,
    authorization: Header,
    identity: String,
    poll: Option<Duration>,
}

impl Osb {
    /// The broker at `base`. `user`: who acts; `poll`: the pause between two looks, whatever the
    /// broker says.
    pub fn new(
        http: Http,
        base: Url,
        credentials: &Credentials,
        user: &str,
        poll: Option<Duration>,
    ) -> Self {
        let identity = BASE64.encode(json!({ "user_id": user }).to_string());
        Self {
            http,
            base,
            authorization: basic(credentials),
            identity: format!("{PLATFORM} {identity}"),
            poll,
        }
    }

    /// How requests are sent.
    pub fn http(&self) -> &Http {
        &self.http
    }

    /// The catalog, as the broker tells it.
    pub async fn catalog(&self) -> Result<Value> {
        let url = below(&self.base, &["v2", "catalog"], &[]);
        self.call(Method::GET, &url, None).await?.expect(200)
    }

    /// Asks for what is for operators, at `path` below their place.
    pub async fn operator(
        &self,
        method: Method,
        path: &[&str],
        query: &[(&str, &str)],
        body: Option<&Value>,
        expected: u16,
    ) -> Result<Value> {
        let path = [&["operator"], path].concat();
        let url = below(&self.base, &path, query);
        self.call(method, &url, body).await?.expect(expected)
    }

    /// Asks for an instance.
    pub async fn provision(
        &self,
        instance: &Instance,
        parameters: Option<&Value>,
        maintenance: Option<&Value>,
    ) -> std::result::Result<Accepted, NotCreated> {
        let mut body = json!({
            "service_id": instance.service_id,
            "plan_id": instance.plan.id,
            "organization_guid": instance.organization,
            "space_guid": instance.space,
            "context": context(instance),
        });
        if let Some(parameters) = parameters {
            body["parameters"] = parameters.clone();
        }
        if let Some(maintenance) = maintenance {
            body["maintenance_info"] = maintenance.clone();
        }
        let url = self.url(
            Resource::of(instance),
            "",
            &[("accepts_incomplete", "true")],
        );
        self.create(&url, &body).await
    }

    /// Asks for a binding. `patiently`: the broker may take its time, for it can be asked later.
    pub async fn bind(
        &self,
        resource: Resource<'_>,
        parameters: Option<&Value>,
        patiently: bool,
    ) -> std::result::Result<Accepted, NotCreated> {
        let instance = resource.instance;
        let mut body = json!({
            "service_id": instance.service_id,
            "plan_id": instance.plan.id,
            "context": context(instance),
        });
        if let Some(parameters) = parameters {
            body["parameters"] = parameters.clone();
        }
        let query = [("accepts_incomplete", "true")];
        let url = self.url(resource, "", if patiently { &query } else { &[] });
        self.create(&url, &body).await
    }

    /// Asks for a change of an instance; `change` is what the request says beside the ids.
    pub async fn update(&self, instance: &Instance, change: &Value) -> Result<Accepted> {
        let mut body = json!({
            "service_id": instance.service_id,
            "plan_id": instance.plan.id,
            "context": context(instance),
            "previous_values": {
                "service_id": instance.service_id,
                "plan_id": instance.plan.id,
                "organization_id": instance.organization,
                "space_id": instance.space,
            },
        });
        for (name, value) in change.as_object().into_iter().flatten() {
            body[name] = value.clone();
        }
        let url = self.url(
            Resource::of(instance),
            "",
            &[("accepts_incomplete", "true")],
        );
        let answer = self.call(Method::PATCH, &url, Some(&body)).await?;
        match answer.status {
            200 => answer.expect(200).map(Accepted::Done),
            202 => Ok(pending(answer)),
            _ => Err(answer.refusal().into()),
        }
    }

    /// Asks for a deletion; that something is gone already is as good as that it goes now.
    pub async fn delete(&self, resource: Resource<'_>) -> Result<Accepted> {
        self.deletion(resource, true).await
    }

    /// Asks for the deletion of what may have been left behind. No user asks for that.
    pub async fn delete_orphan(&self, resource: Resource<'_>) -> Result<Accepted> {
        self.deletion(resource, false).await
    }

    async fn deletion(&self, resource: Resource<'_>, by_user: bool) -> Result<Accepted> {
        let query = [
            ("service_id", resource.instance.service_id.as_str()),
            ("plan_id", &resource.instance.plan.id),
            ("accepts_incomplete", "true"),
        ];
        let url = self.url(resource, "", &query);
        let answer = self.send(Method::DELETE, &url, None, by_user).await?;
        match answer.status {
            200 | 410 => Ok(Accepted::Done(Value::Null)),
            202 => Ok(pending(answer)),
            _ => Err(answer.refusal().into()),
        }
    }

    /// What the broker tells of an instance or a binding; nothing when it has none, or tells of none.
    pub async fn fetch(&self, resource: Resource<'_>) -> Result<Option<Value>> {
        let url = self.url(resource, "", &[]);
        let answer = self.call(Method::GET, &url, None).await?;
        match answer.status {
            404 | 410 => Ok(None),
            _ => answer.expect(200).map(Some),
        }
    }

    /// The state of what was asked for last, and how long the broker asks to be left alone.
    pub async fn state(
        &self,
        resource: Resource<'_>,
        last: &Last,
    ) -> std::result::Result<(State, Option<Duration>), HttpError> {
        let mut query = vec![
            ("service_id", resource.instance.service_id.as_str()),
            ("plan_id", &resource.instance.plan.id),
        ];
        if let Said::Accepted(Some(operation)) = &last.said {
            query.push(("operation", operation));
        }
        let url = self.url(resource, "last_operation", &query);
        let answer = match self.call(Method::GET, &url, None).await {
            Ok(answer) => answer,
            Err(HttpError::Interrupted) => return Err(HttpError::Interrupted),
            Err(error) => return Ok((State::Unclear(error.to_string()), None)),
        };
        let told = answer.body.as_ref();
        let text = |name: &str| told.and_then(|body| body[name].as_str());
        let description = text("description").unwrap_or_default().to_owned();
        let state = match (answer.status, text("state")) {
            (200, Some("in progress")) => State::InProgress(description),
            (200, Some("succeeded")) => State::Succeeded(description),
            (200, Some("failed")) => State::Failed(description),
            // Of what is made or changed it means nothing.
            (410, _) if last.kind == Kind::Delete => State::Gone,
            _ => State::Unclear(answer.refusal().to_string()),
        };
        Ok((state, answer.retry_after))
    }

    /// Looks until an operation is over: `Succeeded`, `Failed` or `Gone`. `longest` is the plan's
    /// own limit.
    ///
    /// # Errors
    ///
    /// The user wants to wait no longer, or the limit is reached.
    pub async fn wait(
        &self,
        resource: Resource<'_>,
        last: &Last,
        longest: Option<Duration>,
        progress: &Progress,
    ) -> Result<State> {
        let longest = longest.unwrap_or(CLIENT_POLLING_MAX);
        let began = Moment::now();
        let mut pause = self.poll.unwrap_or(CLIENT_FIRST_LOOK);
        loop {
            let left = longest.saturating_sub(began.elapsed());
            if left.is_zero() {
                return Err(Error::Failed(format!(
                    "the broker did not end it within {} s, and so it counts as failed",
                    longest.as_secs()
                )));
            }
            tokio::select! {
                () = sleep(pause.min(left)) => {}
                () = self.http.interrupt().cancelled() => return Err(HttpError::Interrupted.into()),
            }
            let (state, retry_after) = self.state(resource, last).await?;
            match state {
                State::InProgress(description) => progress.say(&description),
                // It may pass: the client goes on asking.
                State::Unclear(why) => progress.say(&why),
                over => return Ok(over),
            }
            let asked = retry_after.unwrap_or(CLIENT_POLL);
            let asked = asked.clamp(CLIENT_FIRST_LOOK, CLIENT_POLL_MAX);
            pause = self.poll.unwrap_or(asked);
        }
    }

    async fn create(&self, url: &Url, body: &Value) -> std::result::Result<Accepted, NotCreated> {
        let answer = match self.call(Method::PUT, url, Some(body)).await {
            Ok(answer) => answer,
            Err(HttpError::Lost(why)) => return Err(NotCreated::Orphan(why)),
            Err(error) => return Err(NotCreated::Nothing(error.into())),
        };
        let refusal = answer.refusal();
        match (answer.status, &answer.body) {
            (200 | 201, Some(_)) => Ok(Accepted::Done(answer.body.unwrap_or_default())),
            (200, None) => Err(NotCreated::Nothing(Error::Failed(
                "the broker's answer is no JSON object".into(),
            ))),
            (202, _) => Ok(pending(answer)),
            (201, None) | (203..=299 | 500..=599, _) => {
                Err(NotCreated::Orphan(refusal.to_string()))
            }
            _ => Err(NotCreated::Nothing(refusal.into())),
        }
    }

    async fn call(
        &self,
        method: Method,
        url: &Url,
        body: Option<&Value>,
    ) -> std::result::Result<Reply, HttpError> {
        self.send(method, url, body, true).await
    }

    async fn send(
        &self,
        method: Method,
        url: &Url,
        body: Option<&Value>,
        by_user: bool,
    ) -> std::result::Result<Reply, HttpError> {
        let mut headers = vec![
            self.authorization.clone(),
            ("x-broker-api-version", "2.17".to_owned()),
            request_identity(),
        ];
        if by_user {
            headers.push(self.originator());
        }
        self.http.call(method, url, &headers, body).await
    }

    /// Says who acts.
    fn originator(&self) -> Header {
        ("x-broker-api-originating-identity", self.identity.clone())
    }

    /// Where the broker is.
    pub fn base(&self) -> &Url {
        &self.base
    }

    /// What says who asks, at any of the broker's doors.
    pub fn who(&self) -> Vec<Header> {
        vec![self.authorization.clone(), self.originator()]
    }

    fn url(&self, resource: Resource<'_>, further: &str, query: &[(&str, &str)]) -> Url {
        let mut path = vec!["v2", "service_instances", &resource.instance.id];
        if let Some(binding) = resource.binding {
            path.extend(["service_bindings", binding]);
        }
        if !further.is_empty() {
            path.push(further);
        }
        below(&self.base, &path, query)
    }
}

impl<'a> Resource<'a> {
    /// Where an instance stands.
    pub fn of(instance: &'a Instance) -> Self {
        Self {
            instance,
            binding: None,
        }
    }

    /// Where a binding of an instance stands.
    pub fn binding(instance: &'a Instance, id: &'a str) -> Self {
        Self {
            instance,
            binding: Some(id),
        }
    }
}

/// Of what may be asked for, what is.
pub(super) fn given<'a, const N: usize>(
    asked: [(&'static str, Option<&'a str>); N],
) -> Vec<(&'static str, &'a str)> {
    asked
        .into_iter()
        .filter_map(|(name, value)| Some((name, value?)))
        .collect()
}

/// A name for a request, by which the broker's log knows it.
pub fn request_identity() -> Header {
    ("x-broker-api-request-identity", Uuid::new_v4().to_string())
}

fn context(instance: &Instance) -> Value {
    json!({
        "platform": PLATFORM,
        "organization_guid": instance.organization,
        "organization_name": instance.organization,
        "space_guid": instance.space,
        "space_name": instance.space,
        "instance_name": instance.name,
    })
}

fn pending(answer: Reply) -> Accepted {
    let body = answer.body.unwrap_or_default();
    let operation = body["operation"].as_str().map(str::to_owned);
    Accepted::Pending(operation, body)
}
