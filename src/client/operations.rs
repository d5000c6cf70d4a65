//! Commands of a broker's operator: what the broker works on, and what to do about work that does
//! not get on. They speak this broker's own interface, with the credentials of a platform.

use clap::Subcommand;
use hyper::Method;
use serde_json::Value;

use super::{
    Session,
    error::{Error, Result},
    osb::given,
};
use crate::model::origin::Origin;

/// What an operator can ask for.
#[derive(Debug, Subcommand)]
pub enum Operations {
    /// List operations, the newest first
    List(Wanted),
    /// Show an operation in full: its steps, tries and errors, and what it left behind
    Show {
        /// The operation's id
        operation: String,
    },
    /// Try an operation again at once that waits for its next try, or is stuck or abandoned
    Retry {
        /// The operation's id
        operation: String,
    },
    /// Give up an operation: the broker cleans it up; one that cleans up or deletes ends as it is
    Abandon {
        /// The operation's id
        operation: String,
    },
}

/// Which operations are listed.
#[derive(Debug, clap::Args)]
pub struct Wanted {
    /// Only operations in this state: waiting, running, succeeded, failed, stuck or abandoned
    // The client's own settings have a `state` already.
    #[arg(long, value_name = "STATE")]
    in_state: Option<String>,
    /// Only operations of this kind, such as provision or backup
    #[arg(long)]
    kind: Option<String>,
    /// Only operations of the instance with this id
    #[arg(long, value_name = "ID")]
    instance: Option<String>,
    /// Only operations that were accepted more than this many seconds ago
    #[arg(long, value_name = "SECONDS")]
    older_than: Option<u32>,
    /// Only operations older than this one; the end of a longer list names it
    #[arg(long, value_name = "OPERATION")]
    before: Option<String>,
    /// The most operations to list
    #[arg(long, value_name = "NUMBER")]
    limit: Option<u32>,
}

impl Session {
    /// `operations`
    pub async fn operations(&self, command: Operations) -> Result<()> {
        match command {
            Operations::List(wanted) => self.list_operations(&wanted).await,
            Operations::Show { operation } => {
                let told = self.about(Method::GET, &operation, None).await?;
                self.show.result(&self.in_full(&told), &told)
            }
            Operations::Retry { operation } => {
                let told = self.about(Method::POST, &operation, Some("retry")).await?;
                self.show.note("the broker tries it again now");
                self.show.result(&self.in_full(&told), &told)
            }
            Operations::Abandon { operation } => {
                let told = self
                    .about(Method::POST, &operation, Some("abandon"))
                    .await?;
                self.show.note("the broker gives it up");
                self.show.result(&self.in_full(&told), &told)
            }
        }
    }

    async fn list_operations(&self, wanted: &Wanted) -> Result<()> {
        let numbers = [wanted.older_than, wanted.limit].map(|n| n.map(|n| n.to_string()));
        let [older_than, limit] = numbers.each_ref().map(Option::as_deref);
        let query = given([
            ("state", wanted.in_state.as_deref().map(queued)),
            ("kind", wanted.kind.as_deref()),
            ("instance", wanted.instance.as_deref()),
            ("older_than", older_than),
            ("before", wanted.before.as_deref()),
            ("limit", limit),
        ]);
        let told = self
            .osb
            .operator(Method::GET, &["operations"], &query, None, 200)
            .await?;
        let Some(listed) = told["operations"].as_array() else {
            let text = "the broker's answer lists no operations";
            return Err(Error::Failed(text.into()));
        };
        let rows = listed.iter().map(|operation| {
            let (id, state) = (text(operation, "id"), state(operation));
            let what = there(operation, "name").unwrap_or_else(|| text(operation, "kind"));
            // Of one that succeeded there is no more to say.
            let description = match state.as_str() {
                "succeeded" => String::new(),
                _ => text(operation, "description"),
            };
            let accepted = self.time(&operation["created_at"]);
            [id, what, named(operation), state, accepted, description]
        });
        let head = [
            "OPERATION",
            "WHAT",
            "INSTANCE",
            "STATE",
            "ACCEPTED",
            "DESCRIPTION",
        ];
        let shown = self.show.listed(head, rows, "No operations.");
        self.show.result(&shown, &told)?;
        if let Some(next) = told["next_before"].as_str() {
            self.show
                .note(&format!("there are more: add --before {next}"));
        }
        Ok(())
    }

    async fn about(&self, method: Method, id: &str, verb: Option<&str>) -> Result<Value> {
        let path: Vec<&str> = ["operations", id].into_iter().chain(verb).collect();
        let status = if verb.is_some() { 202 } else { 200 };
        self.osb.operator(method, &path, &[], None, status).await
    }

    fn in_full(&self, told: &Value) -> String {
        let there = |field| there(told, field);
        let time = |field: &str| Some(self.time(&told[field])).filter(|time| !time.is_empty());
        let lease = &told["lease"];
        let worker = lease.is_object().then(|| {
            let (owner, until) = (text(lease, "owner"), self.time(&lease["until"]));
            format!("{owner}, until {until}")
        });
        let mut shown = self.show.fields([
            ("operation", there("id")),
            ("what", there("name")),
            ("kind", there("kind")),
            ("instance", Some(named(told))),
            ("binding", there("binding_id")),
            ("backup", there("backup_id")),
            (
                "asked for by",
                there("origin").map(|origin| by(&origin, told["user"].as_str())),
            ),
            ("state", Some(state(told))),
            // Of one that succeeded the state says it all.
            (
                "description",
                there("description").filter(|_| told["state"] != "succeeded"),
            ),
            ("next try", time("next_try_at")),
            ("accepted", time("created_at")),
            ("updated", time("updated_at")),
            ("worker", worker),
        ]);
        let listed = |field: &str| told[field].as_array().cloned().unwrap_or_default();
        let steps = listed("steps");
        if !steps.is_empty() {
            let rows = steps.iter().map(|step| {
                let done = if step["done"] == true { "yes" } else { "" };
                // A broker of before tells names alone.
                let title = step["title"].as_str().or(step["name"].as_str());
                [
                    title.unwrap_or_default().to_owned(),
                    done.to_owned(),
                    text(step, "failures"),
                    text(step, "shortages"),
                    text(step, "last_error"),
                ]
            });
            let head = ["STEP", "DONE", "FAILED", "SHORTAGES", "LAST ERROR"];
            shown.push_str("\n\n");
            shown.push_str(&self.show.table(head, rows));
        }
        let left = listed("left_behind");
        if !left.is_empty() {
            let rows = left
                .iter()
                .map(|left| [left.as_str().unwrap_or_default().to_owned()]);
            shown.push_str("\n\n");
            shown.push_str(&self.show.table(["LEFT BEHIND"], rows));
        }
        shown
    }
}

/// The broker's name of the state that people call so.
fn queued(state: &str) -> &str {
    match state {
        "waiting" => "queued",
        other => other,
    }
}

/// Where an operation is in its life, in the words of all other work.
fn state(operation: &Value) -> String {
    match operation["state"].as_str() {
        Some("queued") => "waiting".to_owned(),
        _ => text(operation, "state"),
    }
}

/// The instance that something is about: its id, and its name where that is known.
pub fn named(of: &Value) -> String {
    let id = text(of, "instance_id");
    match there(of, "instance_name") {
        Some(name) if name != id => format!("{name} ({id})"),
        _ => id,
    }
}

/// Who asked for something: through which door, and as whom where that is known.
pub fn by(origin: &str, user: Option<&str>) -> String {
    let door = door(origin);
    user.map_or(door.clone(), |user| format!("{door}: {user}"))
}

/// A door in words; one that a later broker has by its name.
pub fn door(origin: &str) -> String {
    let known = Origin::parse(origin);
    known.map_or_else(|| origin.to_owned(), |known| known.words().to_owned())
}

/// A field as people read it, where there is something to read.
pub fn there(of: &Value, field: &str) -> Option<String> {
    Some(text(of, field)).filter(|text| !text.is_empty())
}

/// A field as people read it; nothing for none.
pub fn text(of: &Value, field: &str) -> String {
    match &of[field] {
        Value::Null => String::new(),
        Value::Bool(true) => "yes".to_owned(),
        Value::Bool(false) => "no".to_owned(),
        Value::String(text) => text.clone(),
        other => other.to_string(),
    }
}
