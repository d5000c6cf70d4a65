//! Has a database made anew whose majority is lost. Only a broker's operator may, and says yes after what
//! that loses was told.

use hyper::Method;
use serde_json::{Value, json};

use super::{
    Session,
    error::{Error, Result},
    operations::{text, there},
};

/// What is recovered, and of what.
#[derive(Debug, clap::Args)]
pub struct Recovery {
    /// The instance's id
    instance: String,
    /// Where the data comes from
    #[arg(long, value_enum)]
    from: Source,
    /// The member to take it from [default: the one with the highest revision]
    #[arg(long, value_name = "NAME")]
    member: Option<String>,
    /// The backup to take it from [default: the newest]
    #[arg(long, value_name = "ID")]
    backup: Option<String>,
    /// Do it; without this, the command only says what it would do and what would be lost
    #[arg(long)]
    yes: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
enum Source {
    /// What one of the members still has
    Survivor,
    /// A backup
    Backup,
}

impl Recovery {
    fn body(&self) -> Result<Value> {
        let (from, wrong) = match self.from {
            Source::Survivor => ("survivor", self.backup.as_ref().map(|_| "--backup")),
            Source::Backup => ("backup", self.member.as_ref().map(|_| "--member")),
        };
        if let Some(wrong) = wrong {
            let text = format!("{wrong} does not go with --from {from}");
            return Err(Error::Usage(text));
        }
        let mut body = json!({ "from": from, "yes": self.yes });
        for (field, value) in [("member", &self.member), ("backup_id", &self.backup)] {
            if let Some(value) = value {
                body[field] = json!(value);
            }
        }
        Ok(body)
    }
}

impl Session {
    /// `recover`
    pub async fn recover(&self, of: &Recovery) -> Result<()> {
        let body = of.body()?;
        let path = ["instances", &of.instance, "recover"];
        let status = if of.yes { 202 } else { 200 };
        let asked = self
            .osb
            .operator(Method::POST, &path, &[], Some(&body), status);
        let told = asked.await?;
        if of.yes {
            let id = text(&told, "operation");
            self.show.note(&format!(
                "it is being done: compose-broker operations show {id}"
            ));
            return self
                .show
                .result(&self.show.fields([("operation", Some(id))]), &told);
        }
        self.show.result(&self.plan(&told), &told)?;
        if told["possible"] == true {
            self.show.note("nothing is done yet: add --yes");
        }
        Ok(())
    }

    /// What would be done, and what would be lost.
    fn plan(&self, told: &Value) -> String {
        let there = |field| there(told, field);
        let mut shown = self.show.fields([
            ("possible", there("possible")),
            ("why not", there("reason")),
            ("member", there("member")),
            ("backup", there("backup_id")),
            ("revision", there("revision")),
            ("of", there("of").map(|_| self.time(&told["of"]))),
        ]);
        let listed = |field: &str| told[field].as_array().cloned().unwrap_or_default();
        for sentence in listed("lost") {
            shown.push_str("\n\n");
            shown.push_str(sentence.as_str().unwrap_or_default());
        }
        let rows = listed("members").into_iter().map(|member| {
            let [name, serves, has_data, revision] =
                ["name", "serves", "has_data", "revision"].map(|field| text(&member, field));
            let written_at = self.time(&member["written_at"]);
            [name, serves, has_data, revision, written_at]
        });
        shown.push_str("\n\n");
        shown.push_str(&self.show.table(
            ["MEMBER", "SERVES", "HAS DATA", "REVISION", "WRITTEN AT"],
            rows,
        ));
        shown
    }
}
