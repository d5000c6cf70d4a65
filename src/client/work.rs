//! What goes on at a broker: followed to its end, written down, or cleaned up.
//!
//! Invariants: whatever the broker says yes to is in the book before it is waited for, so a user who
//! gives up waiting can look later. What may have been made by a request that failed is deleted
//! again, unless its user chose its id: that may be somebody's database.

use std::time::Duration;

use serde_json::{Value, json};
use tokio::time::sleep;

use super::{
    Session,
    book::{Instance, Kind, Last, Said},
    error::{Error, HttpError, Result},
    osb::{Accepted, Resource, State},
};
use crate::model::limits::{ORPHAN_RETRY_FIRST, ORPHAN_TRIES_MAX};

/// Something that a broker is asked to do.
pub struct Job<'a> {
    /// To what.
    pub resource: Resource<'a>,
    /// What that is called: `service instance orders`.
    pub what: String,
    /// How long it may take, if the plan says so.
    pub longest: Option<Duration>,
}

/// What became of the last operation so far.
#[derive(Debug, Clone)]
pub struct Status {
    /// What the operation does.
    pub kind: Kind,
    /// One of OSB's three words, or `unknown`.
    pub state: &'static str,
    /// What the broker says of it.
    pub description: String,
}

impl Status {
    /// For programs.
    pub fn json(&self) -> Value {
        json!({
            "type": self.kind.as_str(),
            "state": self.state,
            "description": self.description,
        })
    }

    /// For people. Of what went well there is nothing else to say.
    pub fn text(&self) -> String {
        let head = format!("{} {}", self.kind.as_str(), self.state);
        match self.description.as_str() {
            "" => head,
            _ if self.is_done() => head,
            description => format!("{head}: {description}"),
        }
    }

    /// Whether it is not over.
    pub fn goes_on(&self) -> bool {
        self.state == "in progress"
    }

    /// Whether it is over, well.
    pub fn is_done(&self) -> bool {
        self.state == "succeeded"
    }
}

/// What is done, as the subject of a sentence.
fn noun(kind: Kind) -> &'static str {
    match kind {
        Kind::Create => "Creation",
        Kind::Update => "Update",
        Kind::Delete => "Deletion",
    }
}

/// How to look at an instance, for people.
pub fn look_at(instance: &Instance) -> String {
    format!("compose-broker service {}", instance.name)
}

impl Session {
    /// After a broker's yes: writes it down and, if that is asked for, waits for the end.
    ///
    /// # Errors
    ///
    /// It ended badly, or nobody knows how, or the user wants to wait no longer.
    pub async fn go_on(
        &self,
        job: &Job<'_>,
        kind: Kind,
        accepted: &Accepted,
        wait: bool,
    ) -> Result<Status> {
        let (instance, key) = (&job.resource.instance.id, job.resource.binding);
        let over = |description| Status {
            kind,
            state: "succeeded",
            description,
        };
        let operation = match accepted {
            Accepted::Done(_) => {
                self.book.note(instance, key, kind, Said::Done)?;
                self.settle(&job.resource, kind, true)?;
                return Ok(over(String::new()));
            }
            Accepted::Pending(operation, _) => operation.clone(),
        };
        let last = self
            .book
            .note(instance, key, kind, Said::Accepted(operation))?;
        if !wait {
            let look = look_at(job.resource.instance);
            let what = &job.what;
            self.show.note(&format!(
                "{} of {what} has started. Check: {look}",
                noun(kind)
            ));
            return Ok(Status {
                kind,
                state: "in progress",
                description: String::new(),
            });
        }
        match self.follow(job, &last).await? {
            State::Failed(description) => {
                self.settle(&job.resource, kind, false)?;
                let (word, what) = (kind.as_str(), &job.what);
                Err(Error::Failed(format!(
                    "{word} of {what} failed: {description}"
                )))
            }
            State::Succeeded(description) => {
                self.settle(&job.resource, kind, true)?;
                Ok(over(description))
            }
            _ => {
                self.settle(&job.resource, kind, true)?;
                Ok(over(String::new()))
            }
        }
    }

    async fn follow(&self, job: &Job<'_>, last: &Last) -> Result<State> {
        let word = last.kind.as_str();
        let progress = self.show.progress(&format!("{word} {}", job.what));
        let end = self
            .osb
            .wait(job.resource, last, job.longest, &progress)
            .await;
        match end {
            Err(Error::Http(HttpError::Interrupted)) => Err(Error::Interrupted(format!(
                "{} of {} goes on without you. Check: {}",
                noun(last.kind),
                job.what,
                look_at(job.resource.instance)
            ))),
            Ok(end @ (State::Succeeded(_) | State::Gone)) => {
                progress.done();
                Ok(end)
            }
            end => end,
        }
    }

    /// Writes down what an end means for the book.
    pub fn settle(&self, resource: &Resource<'_>, kind: Kind, well: bool) -> Result<()> {
        match (kind, resource.binding) {
            (Kind::Delete, key) if well => self.book.forget(&resource.instance.id, key),
            (Kind::Update, None) => self
                .book
                .change_instance(&resource.instance.id, |instance| {
                    if let Some(plan) = instance.next_plan.take()
                        && well
                    {
                        instance.plan = plan;
                    }
                    Ok(())
                }),
            _ => Ok(()),
        }
    }

    /// How the last stands that was asked for; what is over is written down.
    pub async fn status(&self, resource: Resource<'_>, last: &Last) -> Result<Status> {
        let status = |state, description| Status {
            kind: last.kind,
            state,
            description,
        };
        match &last.said {
            Said::Done => return Ok(status("succeeded", String::new())),
            Said::Nothing => {
                let text = "the broker's answer was never heard".to_owned();
                return Ok(status("unknown", text));
            }
            Said::Accepted(_) => {}
        }
        let (state, _) = self.osb.state(resource, last).await?;
        let (word, description, well) = match state {
            State::InProgress(text) => return Ok(status("in progress", text)),
            State::Unclear(text) => return Ok(status("unknown", text)),
            State::Succeeded(text) => ("succeeded", text, true),
            State::Gone => ("succeeded", String::new(), true),
            State::Failed(text) => ("failed", text, false),
        };
        self.settle(&resource, last.kind, well)?;
        Ok(status(word, description))
    }

    /// Deletes what a request may have made whose answer nobody heard. Tells why, and what is left.
    pub async fn mitigate(&self, job: &Job<'_>, why: &str) -> Error {
        let what = &job.what;
        self.show.note(&format!(
            "{why}\n{what} may be there all the same: deleting it"
        ));
        let mut pause = ORPHAN_RETRY_FIRST;
        for last_try in (0..ORPHAN_TRIES_MAX).rev() {
            let failure = match self.osb.delete_orphan(job.resource).await {
                Ok(accepted) => match self.go_on(job, Kind::Delete, &accepted, true).await {
                    Ok(_) => return Error::Failed(format!("{why}; nothing is left of {what}")),
                    Err(error) => error,
                },
                Err(error) => error,
            };
            self.show.note(&failure.to_string());
            if last_try == 0 {
                break;
            }
            tokio::select! {
                () = sleep(pause) => pause *= 2,
                () = self.osb.http().interrupt().cancelled() => break,
            }
        }
        let name = &job.resource.instance.name;
        Error::Failed(format!(
            "{why}; {what} may have been left behind and is still listed: try to delete it again \
             (compose-broker delete-service {name})"
        ))
    }
}
