//! Commands of a broker's operator: what the broker works on, and what to do about work that does
//! not get on. They speak this broker's own interface, with the credentials of a platform.

use clap::Subcommand;
use hyper::Method;
use serde_json::Value;

use super::{
    Session,
    error::{Error, Result},
    osb::given,
    show::Show,
};

/// What an operator can ask for.
#[derive(Debug, Subcommand)]
pub enum Operations {
    /// List operations, the newest first
    List(Wanted),
    /// Show all that is known of an operation: its steps, tries and errors, and what is left of it
    Show {
        /// The operation's id
        operation: String,
    },
    /// Have an operation tried again at once: one that waits for its next try, is stuck or abandoned
    Retry {
        /// The operation's id
        operation: String,
    },
    /// Give an operation up: it is cleaned up; one that cleans up or deletes ends as it is
    Abandon {
        /// The operation's id
        operation: String,
    },
}

/// Which operations are listed.
#[derive(Debug, clap::Args)]
pub struct Wanted {
    /// Only those in this state: queued, running, succeeded, failed, stuck or abandoned
    // The client's own settings have a `state` already.
    #[arg(long, value_name = "STATE")]
    in_state: Option<String>,
    /// Only those of this kind, such as provision or backup
    #[arg(long)]
    kind: Option<String>,
    /// Only those of the instance with this id
    #[arg(long, value_name = "ID")]
    instance: Option<String>,
    /// Only those that were accepted longer ago than so many seconds
    #[arg(long, value_name = "SECONDS")]
    older_than: Option<u32>,
    /// Only those that were accepted before this one: how a list ends that has more
    #[arg(long, value_name = "OPERATION")]
    before: Option<String>,
    /// At most so many
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
                self.show.result(&in_full(&self.show, &told), &told)
            }
            Operations::Retry { operation } => {
                let told = self.about(Method::POST, &operation, Some("retry")).await?;
                self.show.note("it is tried again");
                self.show.result(&in_full(&self.show, &told), &told)
            }
            Operations::Abandon { operation } => {
                let told = self
                    .about(Method::POST, &operation, Some("abandon"))
                    .await?;
                self.show.note("it is given up");
                self.show.result(&in_full(&self.show, &told), &told)
            }
        }
    }

    async fn list_operations(&self, wanted: &Wanted) -> Result<()> {
        let numbers = [wanted.older_than, wanted.limit].map(|n| n.map(|n| n.to_string()));
        let [older_than, limit] = numbers.each_ref().map(Option::as_deref);
        let query = given([
            ("state", wanted.in_state.as_deref()),
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
            [
                "id",
                "kind",
                "instance_id",
                "state",
                "created_at",
                "description",
            ]
            .map(|field| text(operation, field))
        });
        let head = [
            "OPERATION",
            "KIND",
            "INSTANCE",
            "STATE",
            "ACCEPTED",
            "HOW IT STANDS",
        ];
        let shown = self.show.table(head, rows);
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
}

/// A field as a text; nothing for none.
pub fn text(of: &Value, field: &str) -> String {
    match &of[field] {
        Value::Null => String::new(),
        Value::String(text) => text.clone(),
        other => other.to_string(),
    }
}

fn in_full(show: &Show, told: &Value) -> String {
    let there = |field: &str| Some(text(told, field)).filter(|text| !text.is_empty());
    let lease = &told["lease"];
    let worker = lease.is_object().then(|| {
        let (owner, until) = (text(lease, "owner"), text(lease, "until"));
        format!("{owner}, until {until}")
    });
    let mut shown = show.fields([
        ("operation", there("id")),
        ("kind", there("kind")),
        ("instance", there("instance_id")),
        ("binding", there("binding_id")),
        ("backup", there("backup_id")),
        ("asked by way of", there("origin")),
        ("state", there("state")),
        ("how it stands", there("description")),
        ("next try", there("next_try_at")),
        ("accepted", there("created_at")),
        ("got on", there("updated_at")),
        ("worker", worker),
    ]);
    let listed = |field: &str| told[field].as_array().cloned().unwrap_or_default();
    let steps = listed("steps");
    if !steps.is_empty() {
        let rows = steps.iter().map(|step| {
            let done = if step["done"] == true { "yes" } else { "" };
            [
                text(step, "name"),
                done.to_owned(),
                text(step, "failures"),
                text(step, "shortages"),
                text(step, "last_error"),
            ]
        });
        let head = ["STEP", "DONE", "FAILED", "SHORT", "LAST ERROR"];
        shown.push_str("\n\n");
        shown.push_str(&show.table(head, rows));
    }
    let left = listed("left_behind");
    if !left.is_empty() {
        let rows = left
            .iter()
            .map(|left| [left.as_str().unwrap_or_default().to_owned()]);
        shown.push_str("\n\n");
        shown.push_str(&show.table(["LEFT BEHIND"], rows));
    }
    shown
}
