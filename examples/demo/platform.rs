//! The marketplace: Open Service Broker API 2.17.

use std::time::{Duration, Instant};

use reqwest::{Client, Method, StatusCode};
use serde_json::{Value, json};
use tokio::time::sleep;
use url::Url;
use uuid::Uuid;

use crate::{
    broker::Broker,
    database::Credentials,
    error::{Context, Result, ensure},
    show::Step,
};

const SERVICE: &str = "compose-for-etcd";
const PLAN: &str = "Standard";

/// Pause between two looks at an operation. Real platforms wait as long as `Retry-After` says.
const POLL: Duration = Duration::from_millis(200);
/// Longest time that an operation may take here.
const OPERATION_LIMIT: Duration = Duration::from_secs(60);

/// A platform that knows the broker's catalog.
pub struct Platform {
    /// The offering and plan that it uses, for people.
    pub offer: String,
    http: Client,
    url: String,
    username: String,
    password: String,
    service_id: String,
    plan_id: String,
    organization: Uuid,
    space: Uuid,
}

impl Platform {
    /// Reads the broker's catalog and chooses the plan.
    pub async fn connect(broker: &Broker) -> Result<Self> {
        let mut platform = Self {
            offer: String::new(),
            http: Client::new(),
            url: format!("{}/v2", broker.url),
            username: broker.username.clone(),
            password: broker.password.clone(),
            service_id: String::new(),
            plan_id: String::new(),
            organization: Uuid::new_v4(),
            space: Uuid::new_v4(),
        };
        let url = platform.address("catalog", &[])?;
        let (status, catalog) = platform.call(Method::GET, url, None).await?;
        ensure(status == StatusCode::OK, || {
            format!("GET catalog says {status}: {catalog}")
        })?;
        let service = named(&catalog["services"], SERVICE)?;
        let plan = named(&service["plans"], PLAN)?;
        platform.service_id = text(service, "id")?;
        platform.plan_id = text(plan, "id")?;
        platform.offer = format!("{SERVICE}, {PLAN}: {}", text(plan, "description")?);
        Ok(platform)
    }

    /// Makes a service instance and waits until it is there.
    pub async fn provision(&self, instance: &Uuid, parameters: &Value, step: &Step) -> Result<()> {
        let path = format!("service_instances/{instance}");
        let body = json!({
            "service_id": self.service_id,
            "plan_id": self.plan_id,
            "organization_guid": self.organization,
            "space_guid": self.space,
            "context": {
                "platform": "cloudfoundry",
                "organization_guid": self.organization,
                "space_guid": self.space,
                "instance_name": "demo",
            },
            "parameters": parameters,
        });
        let url = self.address(&path, &[("accepts_incomplete", "true")])?;
        let (status, answer) = self.call(Method::PUT, url, Some(&body)).await?;
        match status {
            StatusCode::CREATED => Ok(()),
            StatusCode::ACCEPTED => self.wait(&path, &answer, step).await,
            _ => Err(format!("the broker refused to provision ({status}): {answer}").into()),
        }
    }

    /// Makes a service binding and returns its credentials.
    pub async fn bind(&self, instance: &Uuid, binding: &Uuid, step: &Step) -> Result<Credentials> {
        let path = format!("service_instances/{instance}/service_bindings/{binding}");
        let body = json!({ "service_id": self.service_id, "plan_id": self.plan_id });
        let url = self.address(&path, &[("accepts_incomplete", "true")])?;
        let (status, answer) = self.call(Method::PUT, url, Some(&body)).await?;
        let answer = match status {
            StatusCode::CREATED => answer,
            StatusCode::ACCEPTED => {
                self.wait(&path, &answer, step).await?;
                let url = self.address(&path, &[])?;
                let (status, answer) = self.call(Method::GET, url, None).await?;
                ensure(status == StatusCode::OK, || {
                    format!("the broker does not give the binding ({status}): {answer}")
                })?;
                answer
            }
            _ => return Err(format!("the broker refused to bind ({status}): {answer}").into()),
        };
        Credentials::read(&answer["credentials"])
    }

    /// Deletes a service binding and waits until it is gone.
    pub async fn unbind(&self, instance: &Uuid, binding: &Uuid, step: &Step) -> Result<()> {
        let path = format!("service_instances/{instance}/service_bindings/{binding}");
        self.delete(&path, step).await
    }

    /// Deletes a service instance and waits until it is gone.
    pub async fn deprovision(&self, instance: &Uuid, step: &Step) -> Result<()> {
        self.delete(&format!("service_instances/{instance}"), step)
            .await
    }

    async fn delete(&self, path: &str, step: &Step) -> Result<()> {
        let query = [
            ("service_id", self.service_id.as_str()),
            ("plan_id", &self.plan_id),
            ("accepts_incomplete", "true"),
        ];
        let url = self.address(path, &query)?;
        let (status, answer) = self.call(Method::DELETE, url.clone(), None).await?;
        match status {
            StatusCode::OK => {}
            StatusCode::ACCEPTED => self.wait(path, &answer, step).await?,
            _ => return Err(format!("the broker refused to delete ({status}): {answer}").into()),
        }
        let (status, answer) = self.call(Method::DELETE, url, None).await?;
        ensure(status == StatusCode::GONE, || {
            format!("what was deleted is not gone ({status}): {answer}")
        })
    }

    /// Asks for the last operation until it has ended. `accepted` is the answer that began it.
    async fn wait(&self, path: &str, accepted: &Value, step: &Step) -> Result<()> {
        let path = format!("{path}/last_operation");
        let operation = text(accepted, "operation")?;
        let url = self.address(&path, &[("operation", &operation)])?;
        let deadline = Instant::now() + OPERATION_LIMIT;
        while Instant::now() < deadline {
            let (status, answer) = self.call(Method::GET, url.clone(), None).await?;
            // What was to be deleted is gone: that is its end.
            if status == StatusCode::GONE {
                return Ok(());
            }
            ensure(status == StatusCode::OK, || {
                format!("last_operation says {status}: {answer}")
            })?;
            let description = answer["description"].as_str().unwrap_or_default();
            match text(&answer, "state")?.as_str() {
                "succeeded" => return Ok(()),
                "in progress" => step.say(description),
                state => return Err(format!("the operation {state}: {description}").into()),
            }
            sleep(POLL).await;
        }
        let limit = OPERATION_LIMIT.as_secs();
        Err(format!("the operation did not end within {limit} s").into())
    }

    fn address(&self, path: &str, query: &[(&str, &str)]) -> Result<Url> {
        let address = format!("{}/{path}", self.url);
        let parsed = if query.is_empty() {
            Url::parse(&address)
        } else {
            Url::parse_with_params(&address, query)
        };
        parsed.context(address)
    }

    async fn call(
        &self,
        method: Method,
        url: Url,
        body: Option<&Value>,
    ) -> Result<(StatusCode, Value)> {
        let doing = format!("{method} {}", url.path());
        let mut request = self
            .http
            .request(method, url)
            .basic_auth(&self.username, Some(&self.password))
            .header("X-Broker-API-Version", "2.17");
        if let Some(body) = body {
            request = request.json(body);
        }
        let answer = request.send().await.context(&doing)?;
        let status = answer.status();
        // Every answer of a broker is a JSON object, also a refusal.
        Ok((status, answer.json().await.context(&doing)?))
    }
}

fn named<'a>(list: &'a Value, name: &str) -> Result<&'a Value> {
    let list = list.as_array().into_iter().flatten();
    list.into_iter()
        .find(|entry| entry["name"] == name)
        .ok_or_else(|| format!("the catalog has no {name}").into())
}

fn text(object: &Value, field: &str) -> Result<String> {
    let text = object[field].as_str().map(str::to_owned);
    text.ok_or_else(|| format!("there is no {field} in {object}").into())
}
