//! What operators see of the mirror of backups.

use std::sync::Arc;

use super::{BrokerError, BrokerParts};
use crate::{
    clock::Clock,
    model::{
        limits::mirror::MIRROR_LATE_TOLD_MAX,
        mirror::{LateCopy, MirrorSeen, MirrorState, late_since},
    },
    store::{self, Store},
};

/// The mirror, as operators see it.
#[derive(Debug)]
pub struct MirrorView {
    /// Since when there is one, and what was wrong with it last.
    pub state: MirrorState,
    /// In figures.
    pub seen: MirrorSeen,
    /// Backups that should have been copied long ago, the first one in front: not all, where there are many.
    pub late: Vec<LateCopy>,
}

/// The mirror of backups.
pub struct Mirrors {
    store: Arc<Store>,
    clock: Clock,
    is_set: bool,
}

impl Mirrors {
    pub(super) fn new(parts: &BrokerParts) -> Self {
        Self {
            store: parts.store.clone(),
            clock: parts.clock.clone(),
            is_set: parts.backups.has_mirror(),
        }
    }

    /// The mirror; none where the settings name none.
    pub async fn view(&self) -> Result<Option<MirrorView>, BrokerError> {
        if !self.is_set {
            return Ok(None);
        }
        let now = self.clock.now();
        let read = self.store.scan(move |conn| {
            let Some(state) = store::mirror::state(conn)? else {
                return Ok(None);
            };
            let seen = store::mirror::seen(conn, &state, now)?;
            let late = match seen.late {
                0 => Vec::new(),
                _ => store::mirror::late(conn, late_since(now), MIRROR_LATE_TOLD_MAX)?,
            };
            Ok(Some(MirrorView { state, seen, late }))
        });
        Ok(read.await?)
    }

    /// In figures; none where the settings name no mirror.
    pub async fn seen(&self) -> Result<Option<MirrorSeen>, BrokerError> {
        if !self.is_set {
            return Ok(None);
        }
        let now = self.clock.now();
        let read = self.store.scan(move |conn| {
            let state = store::mirror::state(conn)?;
            let seen = state.map(|state| store::mirror::seen(conn, &state, now));
            seen.transpose()
        });
        Ok(read.await?)
    }
}
