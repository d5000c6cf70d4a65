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
    osb::{Accepted, Place, State},
};
use crate::model::limits::{ORPHAN_RETRY_FIRST, ORPHAN_TRIES_MAX};

/// Something that a broker is asked to do.
pub struct Work<'a> {
    /// To what.
    pub place: Place<'a>,
    /// What that is called: `service instance orders`.
    pub what: String,
    /// How long it may take, if the plan says so.
    pub longest: Option<Duration>,
}

/// How something stands.
#[derive(Debug, Clone)]
pub struct Standing {
    /// What it is.
    pub kind: Kind,
    /// One of OSB's three words, or `unknown`.
    pub state: &'static str,
    /// What the broker says of it.
    pub description: String,
}

impl Standing {
    /// For programs.
    pub fn json(&self) -> Value {
        json!({
            "type": self.kind.as_str(),
            "state": self.state,
            "description": self.description,
        })
    }

    /// For people.
    pub fn text(&self) -> String {
        let head = format!("{} {}", self.kind.as_str(), self.state);
        match self.description.as_str() {
            "" => head,
            description => format!("{head}: {description}"),
        }
    }

    /// Whether it is over, well.
    pub fn is_done(&self) -> bool {
        self.state == "succeeded"
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
        work: &Work<'_>,
        kind: Kind,
        accepted: &Accepted,
        wait: bool,
    ) -> Result<Standing> {
        let (instance, key) = (&work.place.instance.id, work.place.binding);
        let over = |description| Standing {
            kind,
            state: "succeeded",
            description,
        };
        let operation = match accepted {
            Accepted::Done(_) => {
                self.book.note(instance, key, kind, Said::Done)?;
                self.settle(&work.place, kind, true)?;
                return Ok(over(String::new()));
            }
            Accepted::Pending(operation, _) => operation.clone(),
        };
        let last = self
            .book
            .note(instance, key, kind, Said::Accepted(operation))?;
        if !wait {
            let look = look_at(work.place.instance);
            let (word, what) = (kind.as_str(), &work.what);
            self.show.note(&format!(
                "{word} of {what} goes on; look at it with: {look}"
            ));
            return Ok(Standing {
                kind,
                state: "in progress",
                description: String::new(),
            });
        }
        match self.follow(work, &last).await? {
            State::Failed(description) => {
                self.settle(&work.place, kind, false)?;
                let (word, what) = (kind.as_str(), &work.what);
                Err(Error::Failed(format!(
                    "{word} of {what} failed: {description}"
                )))
            }
            State::Succeeded(description) => {
                self.settle(&work.place, kind, true)?;
                Ok(over(description))
            }
            _ => {
                self.settle(&work.place, kind, true)?;
                Ok(over(String::new()))
            }
        }
    }

    async fn follow(&self, work: &Work<'_>, last: &Last) -> Result<State> {
        let word = last.kind.as_str();
        let progress = self.show.progress(&format!("{word} {}", work.what));
        let end = self
            .osb
            .wait(work.place, last, work.longest, &progress)
            .await;
        match end {
            Err(Error::Http(HttpError::Interrupted)) => Err(Error::Interrupted(format!(
                "{word} of {} goes on without you; look at it with: {}",
                work.what,
                look_at(work.place.instance)
            ))),
            end => end,
        }
    }

    /// Writes down what an end means for the book.
    pub fn settle(&self, place: &Place<'_>, kind: Kind, well: bool) -> Result<()> {
        match (kind, place.binding) {
            (Kind::Delete, key) if well => self.book.forget(&place.instance.id, key),
            (Kind::Update, None) => self.book.change_instance(&place.instance.id, |instance| {
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
    pub async fn standing(&self, place: Place<'_>, last: &Last) -> Result<Standing> {
        let standing = |state, description| Standing {
            kind: last.kind,
            state,
            description,
        };
        match &last.said {
            Said::Done => return Ok(standing("succeeded", String::new())),
            Said::Nothing => {
                let text = "the broker's answer was never heard".to_owned();
                return Ok(standing("unknown", text));
            }
            Said::Accepted(_) => {}
        }
        let (state, _) = self.osb.state(place, last).await?;
        let (word, description, well) = match state {
            State::InProgress(text) => return Ok(standing("in progress", text)),
            State::Unclear(text) => return Ok(standing("unknown", text)),
            State::Succeeded(text) => ("succeeded", text, true),
            State::Gone => ("succeeded", String::new(), true),
            State::Failed(text) => ("failed", text, false),
        };
        self.settle(&place, last.kind, well)?;
        Ok(standing(word, description))
    }

    /// Deletes what a request may have made whose answer nobody heard. Tells why, and what is left.
    pub async fn mitigate(&self, work: &Work<'_>, why: &str) -> Error {
        let what = &work.what;
        self.show.note(&format!(
            "{why}\n{what} may be there all the same: deleting it"
        ));
        let mut pause = ORPHAN_RETRY_FIRST;
        for last_try in (0..ORPHAN_TRIES_MAX).rev() {
            let failure = match self.osb.delete_orphan(work.place).await {
                Ok(accepted) => match self.go_on(work, Kind::Delete, &accepted, true).await {
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
        let name = &work.place.instance.name;
        Error::Failed(format!(
            "{why}; {what} may have been left behind and is still listed: try to delete it again \
             (compose-broker delete-service {name})"
        ))
    }
}
