//! Links to bytes that carry their own permission: good for a while, and as long as the user who made
//! them has it.

use std::sync::Arc;

use chrono::DateTime;

use super::{
    BrokerError, BrokerParts,
    session::{Sessions, is_within},
    token::descends,
};
use crate::{
    caller::Caller,
    clock::Clock,
    model::{
        holder::Holder,
        ids::{BackupId, BindingId, InstanceId},
        limits::DOWNLOAD_LINK_TTL,
        origin::Origin,
        trail::{Accessed, AuditedAccess},
    },
    seal::KeyRing,
    store::{self, Store},
};

/// What gives the follower of a link the right to it.
pub(super) struct Held {
    origin: Origin,
    binding: Option<BindingId>,
    platform: String,
    user: String,
}

impl Held {
    /// That somebody gets what the link leads to.
    pub(super) fn access(
        self,
        what: Accessed,
        instance: &InstanceId,
        backup: Option<&BackupId>,
    ) -> AuditedAccess {
        AuditedAccess {
            what,
            origin: self.origin,
            instance: Some(instance.clone()),
            binding: self.binding,
            backup: backup.cloned(),
            platform: Some(self.platform),
            user: Some(self.user),
            address: Caller::current().address,
        }
    }
}

/// Signs links and checks them.
pub struct Links {
    store: Arc<Store>,
    keys: Arc<KeyRing>,
    clock: Clock,
    sessions: Arc<Sessions>,
}

impl Links {
    pub(super) fn new(parts: &BrokerParts, sessions: Arc<Sessions>) -> Self {
        Self {
            store: parts.store.clone(),
            keys: parts.keys.clone(),
            clock: parts.clock.clone(),
            sessions,
        }
    }

    /// The query of a link to what has that id, good from now on for [`DOWNLOAD_LINK_TTL`].
    pub(super) fn query(&self, purpose: &str, id: &str, holder: &Holder) -> String {
        let expires = self.clock.now().timestamp() + DOWNLOAD_LINK_TTL.as_secs().cast_signed();
        let signature = self.keys.sign(purpose, &message(id, expires, holder));
        format!("expires={expires}&signature={holder}.{signature}")
    }

    /// Whose the query of a link is. Fails when it is not good (any more).
    pub(super) async fn check(
        &self,
        purpose: &str,
        (id, instance): (&str, &InstanceId),
        expires: &str,
        signature: &str,
    ) -> Result<Held, BrokerError> {
        let expires: i64 = expires.parse().map_err(|_| bad_link())?;
        let (holder, signature) = signature.split_once('.').ok_or_else(bad_link)?;
        let holder: Holder = holder.parse().map_err(|_| bad_link())?;
        let now = self.clock.now();
        let end = DateTime::from_timestamp(expires, 0);
        let in_time = end.is_some_and(|end| is_within(end, now, DOWNLOAD_LINK_TTL));
        let message = message(id, expires, &holder);
        if !in_time || !self.keys.verify(purpose, &message, signature) {
            return Err(bad_link());
        }
        self.held(&holder, instance).await?.ok_or_else(bad_link)
    }

    /// What a holder has of an instance now; none when that has ended.
    pub(super) async fn held(
        &self,
        holder: &Holder,
        instance: &InstanceId,
    ) -> Result<Option<Held>, BrokerError> {
        match holder {
            Holder::Token(token) => {
                let (token, instance) = (token.clone(), instance.clone());
                let binding = self
                    .store
                    .read(move |conn| {
                        let holder = store::binding::holder_of_token(conn, &token)?;
                        let Some((granted, binding)) = holder else {
                            return Ok(None);
                        };
                        let reached = granted == instance || descends(conn, &instance, &granted)?;
                        Ok(reached.then_some(binding))
                    })
                    .await?;
                Ok(binding.map(|binding| Held {
                    origin: Origin::Compose,
                    platform: Origin::Compose.to_string(),
                    user: format!("binding {binding}"),
                    binding: Some(binding),
                }))
            }
            Holder::Session(fingerprint) => {
                let Some(session) = self.sessions.find(fingerprint.clone()).await? else {
                    return Ok(None);
                };
                if session.is_read_only()
                    || !self.sessions.reaches(&session, instance.clone()).await?
                {
                    return Ok(None);
                }
                Ok(Some(Held {
                    origin: Origin::Dashboard,
                    platform: Origin::Dashboard.to_string(),
                    binding: None,
                    user: self.sessions.user_of(&session).await?,
                }))
            }
            Holder::Operator(mark) if self.sessions.is_operator(mark) => {
                // Who makes a link may be known by name; who follows it shows nothing else.
                let caller = Caller::current().or_operator();
                Ok(Some(Held {
                    origin: Origin::Compose,
                    binding: None,
                    platform: caller.platform.unwrap_or_default(),
                    user: caller.user.unwrap_or_default(),
                }))
            }
            Holder::Operator(_) => Ok(None),
        }
    }
}

pub(super) fn bad_link() -> BrokerError {
    let reason = "this link is not good (any more); ask for a new one";
    BrokerError::NotFound(reason.to_owned())
}

/// Who has a link learns nothing of what it does not lead to.
pub(super) fn as_bad_link(error: BrokerError) -> BrokerError {
    match error {
        BrokerError::NotFound(_) => bad_link(),
        other => other,
    }
}

fn message(id: &str, expires: i64, holder: &Holder) -> String {
    format!("{id} {expires} {holder}")
}
