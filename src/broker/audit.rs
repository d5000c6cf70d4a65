//! Who had what done, and who got to see what, for operators.

use std::{
    net::IpAddr,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use chrono::TimeDelta;

use super::{BrokerError, BrokerParts, page};
use crate::{
    clock::Clock,
    model::{
        address::network,
        audit::AuditEntry,
        failure::chain,
        ids::InstanceId,
        instance::{Instance, Names},
        limits::{AUDIT_FORGOTTEN_AT_ONCE, AUDIT_ON_A_PAGE, AUDIT_PAGE_MAX},
        origin::Origin,
        trail::{Accessed, AuditedAccess, CountedAccess, Trail},
    },
    store::{self, Store},
    timekeeper::Timekeeper,
};

/// The audit: writes down who got to see what, shows it, and forgets what is old.
pub struct Audit {
    store: Arc<Store>,
    clock: Clock,
    time: Arc<Timekeeper>,
    /// How many days entries are kept; absent: for ever.
    days: Option<u32>,
    /// Accesses since they were last written down.
    trail: Mutex<Trail>,
}

/// Which entries are asked for.
#[derive(Debug, Clone, Default)]
pub struct AuditQuery {
    /// Only those of this instance.
    pub instance: Option<InstanceId>,
    /// Only those before this one.
    pub before: Option<i64>,
    /// At most so many.
    pub limit: Option<i64>,
}

/// Entries, newest first.
#[derive(Debug)]
pub struct AuditPage {
    /// The entries.
    pub entries: Vec<AuditEntry>,
    /// What people call the instances of the broker that these are about, where that is known.
    pub names: Names,
    /// What to ask for the ones before with ([`AuditQuery::before`]), when there are any.
    pub next: Option<i64>,
}

impl Audit {
    pub(super) fn new(parts: &BrokerParts) -> Self {
        Self {
            store: parts.store.clone(),
            clock: parts.clock.clone(),
            time: parts.time.clone(),
            days: parts.audit_days,
            trail: Mutex::default(),
        }
    }

    fn trail(&self) -> MutexGuard<'_, Trail> {
        self.trail.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Writes down that somebody got to see something, before they do. When the store does not take
    /// it, the log has it: a user who needs a backup because a disk is full must get it.
    pub(super) async fn note(&self, access: AuditedAccess) {
        let now = self.clock.now();
        let entries = self.trail().notice(access, now);
        self.record(entries).await;
    }

    /// Writes down that what somebody showed at a door was not good.
    pub async fn note_refusal(&self, origin: Origin, address: Option<IpAddr>) {
        let access = AuditedAccess {
            what: Accessed::Refused,
            origin,
            instance: None,
            binding: None,
            backup: None,
            platform: None,
            user: None,
            address: address.map(network),
        };
        self.note(access).await;
    }

    /// Writes down what was counted and whose time is over.
    pub async fn note_counted(&self) {
        let now = self.clock.now();
        let entries = self.trail().over(now);
        self.record(entries).await;
    }

    /// Writes down all that was counted: the broker stops.
    pub async fn note_all_counted(&self) {
        let entries = self.trail().end();
        self.record(entries).await;
    }

    async fn record(&self, told: Vec<CountedAccess>) {
        if told.is_empty() {
            return;
        }
        let rows = told.clone();
        let written = self.store.write(move |conn| {
            rows.iter()
                .try_for_each(|told| store::audit::accessed(conn, told))
        });
        let written = written.await;
        for CountedAccess { access, times, .. } in &told {
            let text = |of: Option<&str>| of.unwrap_or_default().to_owned();
            log::info!(
                action = access.what.as_str(), origin = access.origin.as_str(),
                instance = text(access.instance.as_ref().map(|id| id.as_str())),
                binding = text(access.binding.as_ref().map(|id| id.as_str())),
                backup = text(access.backup.as_ref().map(|id| id.as_str())),
                user = text(access.user.as_deref()),
                from = access.address.map_or_else(String::new, |a| a.to_string()), times;
                "noted in the audit"
            );
        }
        if let Err(error) = written {
            log::error!(
                "what was noted just now is not in the audit: {}",
                chain(&error)
            );
        }
    }

    /// Forgets what is older than the operator wants the audit to be, unless the clock is in doubt;
    /// returns how many entries.
    pub async fn forget(&self) -> Result<usize, BrokerError> {
        let Some(days) = self.days else {
            return Ok(0);
        };
        let Some(now) = self.time.trusted() else {
            return Ok(0);
        };
        let before = now.before(TimeDelta::days(days.into()));
        let oldest = self.store.read(store::audit::oldest).await?;
        if oldest.is_none_or(|oldest| oldest >= before.time()) {
            return Ok(0);
        }
        let forget = move |conn: &mut store::Conn<'_>| {
            store::audit::forget(conn, before, AUDIT_FORGOTTEN_AT_ONCE)
        };
        Ok(self.store.write(forget).await?)
    }

    /// Entries about an instance, newest first, those before `before` where that is asked for. Of one that
    /// had its id before it there are none: its users may have been others.
    pub async fn of_instance(
        &self,
        instance: &Instance,
        before: Option<i64>,
    ) -> Result<AuditPage, BrokerError> {
        let (id, made_at) = (instance.id.clone(), instance.created_at);
        let entries = self
            .store
            .scan(move |conn| {
                let from = store::audit::place_of_making(conn, &id)?;
                store::audit::newest(conn, Some(&id), (from, before), AUDIT_ON_A_PAGE + 1)
            })
            .await?;
        let mut page = paged((Names::new(), entries), AUDIT_ON_A_PAGE);
        // What was counted is told later than it was, maybe after the next instance of the id was made.
        page.entries.retain(|entry| entry.at >= made_at);
        Ok(page)
    }

    /// The newest entries of the audit.
    pub async fn newest(&self, query: AuditQuery) -> Result<AuditPage, BrokerError> {
        let limit = query.limit.unwrap_or(AUDIT_PAGE_MAX);
        if !(1..=AUDIT_PAGE_MAX).contains(&limit) {
            return Err(BrokerError::BadRequest(format!(
                "limit must be from 1 to {AUDIT_PAGE_MAX}"
            )));
        }
        let entries = self
            .store
            .scan(move |conn| {
                let instance = query.instance.as_ref();
                let entries =
                    store::audit::newest(conn, instance, (None, query.before), limit + 1)?;
                let instances = entries.iter().filter_map(|entry| entry.instance.as_ref());
                Ok((store::instance::names(conn, instances)?, entries))
            })
            .await?;
        Ok(paged(entries, limit))
    }
}

fn paged((names, mut entries): (Names, Vec<AuditEntry>), limit: i64) -> AuditPage {
    let more = page::cut(&mut entries, limit);
    let next = entries.last().filter(|_| more).map(|entry| entry.id);
    AuditPage {
        entries,
        names,
        next,
    }
}
