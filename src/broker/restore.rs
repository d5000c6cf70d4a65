//! What may be restored, by whom: every refusal says what to do, and comes before anything is
//! made.

use super::{Broker, BrokerError, instance::ProvisionParameters};
use crate::{
    model::{
        backup::{BackupState, Manifest},
        catalog::Offering,
        ids::{BackupId, InstanceId},
        instance::InstanceState,
        tenant::Tenant,
    },
    store::{self, Conn},
};

impl Broker {
    /// The manifest of the backup that a provision request names; none when it names none.
    pub(super) fn restore_source(
        &self,
        conn: &mut Conn<'_>,
        tenant: &Tenant,
        offering: &Offering,
        asked: &ProvisionParameters,
    ) -> Result<Option<Manifest>, BrokerError> {
        let refuse = |reason: String| Err(BrokerError::BadRequest(reason));
        let (source_id, backup_id) = match (&asked.source_service_instance_id, &asked.backup_id) {
            (None, None) => return Ok(None),
            (Some(source), Some(backup)) => (source, backup),
            (Some(_), None) => {
                return refuse(
                    "a restore needs backup_id beside source_service_instance_id; list the \
                     source's backups to find it"
                        .to_owned(),
                );
            }
            (None, Some(_)) => {
                return refuse(
                    "a restore needs source_service_instance_id beside backup_id: the id of the \
                     service instance that the backup was taken of"
                        .to_owned(),
                );
            }
        };
        // A foreign instance is answered exactly like an unknown one.
        let unknown_source = || {
            BrokerError::BadRequest(format!(
                "source_service_instance_id {source_id:?} is no service instance that you can \
                 restore from; give the id of one of your own"
            ))
        };
        let id: InstanceId = source_id.parse().map_err(|_| unknown_source())?;
        let source = store::instance::find(conn, &id)?
            .filter(|source| source.state == InstanceState::Ready)
            .filter(|source| tenant.may_restore_from(&source.tenant, self.restore_scope))
            .ok_or_else(unknown_source)?;
        if source.service_id != offering.id {
            return refuse(format!(
                "source_service_instance_id {source_id:?} is of another service than {}; restore \
                 it with the service that it is of",
                offering.name
            ));
        }
        let unknown_backup = || {
            BrokerError::BadRequest(format!(
                "the service instance {source_id:?} has no backup {backup_id:?}; list its backups \
                 and choose one of them"
            ))
        };
        let id: BackupId = backup_id.parse().map_err(|_| unknown_backup())?;
        let backup = store::backup::find(conn, &id)?
            .filter(|backup| backup.instance == source.id)
            .ok_or_else(unknown_backup)?;
        match (backup.state, backup.manifest) {
            (BackupState::Complete, Some(manifest)) => Ok(Some(manifest)),
            (BackupState::Pending | BackupState::Running, _) => refuse(format!(
                "backup {id} is not finished; wait until its status is complete"
            )),
            (BackupState::Failed, _) => refuse(format!(
                "backup {id} failed and holds nothing; take a new one or choose another"
            )),
            (BackupState::Expired | BackupState::Complete, _) => refuse(format!(
                "backup {id} has expired; choose one that is still listed"
            )),
        }
    }
}
