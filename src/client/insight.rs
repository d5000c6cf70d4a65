//! Commands that look at an instance: its alerts, its members, what was done to it and by whom.

use chrono::{DateTime, Utc};
use hyper::Method;
use serde_json::{Value, json};

use super::{
    Session,
    command::AuditOf,
    error::{Error, Result},
    operations::{by, door, named, text, there},
    osb::given,
    show::tied_size,
};
use crate::model::{duration::duration, operation::OperationState};

impl Session {
    /// `alerts`
    pub async fn alerts(&self, name: &str) -> Result<()> {
        let told = self
            .with_api(name, async |api| api.about("alerts").await)
            .await?;
        let alerts = embedded(&told, "alerts")?;
        let rows = alerts.iter().map(|alert| {
            [
                text(alert, "status"),
                self.time(&alert["since"]),
                text(alert, "message"),
            ]
        });
        let head = ["STATUS", "SINCE", "WHAT"];
        let shown = self.show.listed(head, rows, "No alerts.");
        self.show.result(&shown, &told)
    }

    /// `members`
    pub async fn members(&self, name: &str) -> Result<()> {
        let told = self
            .with_api(name, async |api| api.about("members").await)
            .await?;
        let members = embedded(&told, "members")?;
        let rows = members.iter().map(|member| {
            let bytes = |field: &str| member[field].as_u64().map_or(String::new(), tied_size);
            let state = match (member["status"].as_str(), member["detail"].as_str()) {
                (Some("serving"), Some(detail)) => format!("serves, but {detail}"),
                (Some("serving"), None) => "serves".to_owned(),
                (_, Some(detail)) => detail.trim_start_matches("it ").to_owned(),
                (state, None) => state.unwrap_or_default().replace('_', " "),
            };
            [
                text(member, "name"),
                state,
                text(member, "role"),
                text(member, "version"),
                bytes("allocated_bytes"),
                bytes("used_bytes"),
                text(member, "url"),
            ]
        });
        let head = [
            "MEMBER",
            "STATE",
            "ROLE",
            "VERSION",
            "ALLOCATED",
            "USED",
            "ADDRESS",
        ];
        let shown = self.show.listed(head, rows, "No member can be asked now.");
        self.show.result(&shown, &told)
    }

    /// `tasks`
    pub async fn tasks(&self, name: &str) -> Result<()> {
        let told = self
            .with_api(name, async |api| api.about("recipes").await)
            .await?;
        let rows = embedded(&told, "recipes")?.iter().map(|recipe| {
            let moment = |field: &str| -> Option<DateTime<Utc>> {
                recipe[field].as_str().and_then(|text| text.parse().ok())
            };
            let is_over = !matches!(recipe["status"].as_str(), Some("running" | "waiting"));
            let took = moment("created_at")
                .zip(moment("updated_at"))
                .filter(|_| is_over)
                .map(|(began, ended)| ended - began);
            let detail = detail_of(recipe).unwrap_or_default();
            [
                text(recipe, "id"),
                text(recipe, "name"),
                status_of_task(recipe).unwrap_or_default(),
                asked_by(recipe),
                self.time(&recipe["created_at"]),
                took.map_or(String::new(), duration),
                detail,
            ]
        });
        let head = [
            "TASK",
            "NAME",
            "STATUS",
            "BY",
            "ASKED FOR",
            "TOOK",
            "DETAIL",
        ];
        let shown = self.show.listed(head, rows, "No tasks yet.");
        self.show.result(&shown, &told)
    }

    /// `history`
    pub async fn history(&self, name: &str) -> Result<()> {
        let told = self
            .with_api(name, async |api| api.about("history").await)
            .await?;
        let readings = embedded(&told, "readings")?;
        let rows = readings.iter().map(|reading| {
            let bytes = |field: &str| reading[field].as_u64().map_or(String::new(), tied_size);
            let members = match reading["members_serving"].as_u64() {
                Some(serving) => format!("{serving} of {}", text(reading, "members")),
                None => "nobody could look".to_owned(),
            };
            let usable = match reading["usable"].as_bool() {
                Some(false) => "no",
                Some(true) => "yes",
                None => "",
            };
            [
                self.time(&reading["at"]),
                bytes("allocated_bytes"),
                bytes("used_bytes"),
                bytes("quota_bytes"),
                members,
                usable.to_owned(),
            ]
        });
        let head = [
            "FROM",
            "ALLOCATED",
            "USED",
            "OF",
            "SERVED AT WORST",
            "USABLE",
        ];
        let none = "No readings yet: the broker writes one down for each quarter of an hour.";
        let shown = self.show.listed(head, rows, none);
        self.show.result(&shown, &told)
    }

    /// `audit`
    pub async fn audit(&self, of: &AuditOf) -> Result<()> {
        let instance = match &of.name {
            Some(name) => Some(self.any_instance(name).await?.id),
            None => None,
        };
        let (before, limit) = (
            of.before.map(|id| id.to_string()),
            of.limit.map(|limit| limit.to_string()),
        );
        let query = given([
            ("instance", instance.as_deref()),
            ("before", before.as_deref()),
            ("limit", limit.as_deref()),
        ]);
        let told = self
            .osb
            .operator(Method::GET, &["audit"], &query, None, 200)
            .await?;
        let Some(entries) = told["entries"].as_array() else {
            let text = "the broker's answer lists no entries";
            return Err(Error::Failed(text.into()));
        };
        let rows = entries.iter().map(|entry| {
            let user = match (entry["user"].as_str(), entry["platform"].as_str()) {
                (Some(user), Some(platform)) => format!("{user} ({platform})"),
                (Some(user), None) => user.to_owned(),
                (None, _) => String::new(),
            };
            let times = entry["times"].as_i64().filter(|times| *times > 1);
            [
                self.time(&entry["at"]),
                there(entry, "what").unwrap_or_else(|| text(entry, "action")),
                door(&text(entry, "origin")),
                user,
                text(entry, "address"),
                named(entry),
                times.map_or(String::new(), |times| times.to_string()),
            ]
        });
        let shown = self.entries(rows.collect());
        self.show.result(&shown, &told)?;
        if let Some(next) = told["next_before"].as_i64() {
            self.show
                .note(&format!("there are more: add --before {next}"));
        }
        Ok(())
    }

    /// Entries of the audit. Most stand for one time each: without one of several, nothing is said of it.
    fn entries(&self, rows: Vec<[String; 7]>) -> String {
        let head = ["AT", "WHAT", "BY", "USER", "FROM", "INSTANCE", "TIMES"];
        if rows.iter().any(|row| !row[6].is_empty()) {
            return self.show.listed(head, rows, "");
        }
        let [at, what, by, user, from, instance, _] = head;
        let rows = rows.into_iter();
        self.show.listed(
            [at, what, by, user, from, instance],
            rows.map(|[at, what, by, user, from, instance, _]| {
                [at, what, by, user, from, instance]
            }),
            "No entries.",
        )
    }

    /// `dashboard-link`
    pub async fn dashboard_link(&self, name: &str) -> Result<()> {
        let instance = self.any_instance(name).await?;
        let path = ["instances", &instance.id, "dashboard-link"];
        let told = self
            .osb
            .operator(Method::POST, &path, &[], None, 201)
            .await?;
        self.show.result(&text(&told, "link"), &told)
    }

    /// `test-webhook`
    pub async fn test_webhook(&self) -> Result<()> {
        let path = ["webhook", "test"];
        let told = self
            .osb
            .operator(Method::POST, &path, &[], None, 200)
            .await?;
        let webhook = text(&told, "webhook");
        if told["taken"] != true {
            let reason = text(&told, "reason");
            let text = format!("{webhook} did not take the test message: {reason}");
            return Err(Error::Failed(text));
        }
        let id = text(&told, "message_id");
        let shown = format!("{webhook} took the test message {id}.");
        self.show.result(&shown, &told)
    }

    /// `settings`
    pub fn settings(&self) -> Result<()> {
        let facts = &self.facts;
        let shown = self.show.fields([
            ("broker", Some(facts.broker.clone())),
            ("user name", Some(facts.username.clone())),
            ("password", Some(format!("from {}", facts.password_from))),
            ("authorities", Some(facts.authorities.clone())),
            ("organization", Some(self.organization.clone())),
            ("space", Some(self.space.clone())),
            ("names", Some(self.book.file())),
        ]);
        let value = json!({
            "broker": facts.broker,
            "username": facts.username,
            "password_from": facts.password_from,
            "authorities": facts.authorities,
            "organization": self.organization,
            "space": self.space,
            "names": self.book.file(),
        });
        self.show.result(&shown, &value)
    }
}

fn embedded<'a>(told: &'a Value, what: &str) -> Result<&'a Vec<Value>> {
    told["_embedded"][what]
        .as_array()
        .ok_or_else(|| Error::Failed(format!("the broker's answer lists no {what}")))
}

/// Where a task is in its life, as the platform says it of the last operation: backups are what is complete.
pub(super) fn status_of_task(task: &Value) -> Option<String> {
    let status = task["status"].as_str()?;
    Some(match status {
        "complete" => OperationState::Succeeded.as_str().to_owned(),
        status => status.to_owned(),
    })
}

/// What a task says of how it stands. Of one that went well the status says it all.
pub(super) fn detail_of(task: &Value) -> Option<String> {
    match task["status"].as_str() {
        Some("complete") => None,
        _ => there(task, "status_detail"),
    }
}

/// Who asked for a task: through which door, and as whom where that is known.
pub(super) fn asked_by(task: &Value) -> String {
    by(&text(task, "source"), task["user"].as_str())
}
