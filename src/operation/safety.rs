//! The backup of just before what cannot be taken back.

use super::{StepError, Work};
use crate::{
    model::{backup::BackupState, ids::BackupId},
    store,
};

/// Fails where there is no complete backup of before `what`, which the operation names.
pub async fn check(work: &Work, backup: Option<BackupId>, what: &str) -> Result<(), StepError> {
    let Some(id) = backup else {
        return Err(StepError::last(format!("{what} names no backup")));
    };
    let backup = work
        .read(move |conn| store::backup::find(conn, &id))
        .await?;
    match backup.map(|backup| (backup.state, backup.failure)) {
        Some((BackupState::Complete, _)) => Ok(()),
        Some((_, Some(failure))) => Err(StepError::last(format!(
            "the backup before {what} failed: {failure}"
        ))),
        _ => Err(StepError::last(format!(
            "there is no backup of before {what}"
        ))),
    }
}
