//! Registers as they are stored: JSON, for people too, and signed.

use bytes::Bytes;
use futures::{StreamExt as _, future::ready, stream};
use serde::Deserialize;

use super::{
    BackupStoreError, ObjectName, Vault, manifest,
    signature::{Signed, Unfit, check_signature, signed, to_json},
};
use crate::{
    model::{
        backup::Manifest,
        ids::DeploymentId,
        limits::register::REGISTER_BYTES_MAX,
        register::{REGISTER_FORMAT, Register, Registered},
    },
    seal::key_of,
};

impl Signed for Register {
    const PURPOSE: &'static str = "register of backups";
    const UNSIGNED: &'static [&'static str] = &["signature"];

    fn signature(&self) -> Option<&str> {
        self.signature.as_deref()
    }

    fn with_signature(self, signature: String) -> Self {
        Self {
            signature: Some(signature),
            ..self
        }
    }
}

/// What a register says of a backup that is there.
pub fn registered(manifest: &Manifest) -> Registered {
    Registered {
        backup_id: manifest.backup_id.clone(),
        kind: manifest.kind,
        started_at: manifest.started_at,
        manifest_sha256: manifest::digest_of_known(manifest),
        awaited: false,
    }
}

impl Vault {
    /// Reads the register of a deployment, which has to be one that a broker with this ring wrote, as it wrote it;
    /// none: there is none.
    pub async fn read_register(
        &self,
        deployment: &DeploymentId,
    ) -> Result<Option<Register>, BackupStoreError> {
        let name = ObjectName::register(deployment);
        let Some((text, register)) = self.read_register_text(deployment).await? else {
            return Ok(None);
        };
        check_signature(&text, &register, &self.keys).map_err(|unfit| match unfit {
            Unfit::Form(reason) => BackupStoreError::damaged(&name, reason),
            Unfit::Seal(what, error) => BackupStoreError::of_seal(&name, what, error),
        })?;
        Ok(Some(register))
    }

    /// Reads a register with its text, and does not look at its signature: it may be anybody's.
    pub(super) async fn read_register_text(
        &self,
        deployment: &DeploymentId,
    ) -> Result<Option<(Bytes, Register)>, BackupStoreError> {
        let name = ObjectName::register(deployment);
        let text = match self.read_text(&name, REGISTER_BYTES_MAX).await {
            Err(BackupStoreError::NotFound(_)) => return Ok(None),
            text => text?,
        };
        let register = parse(&text).map_err(|reason| BackupStoreError::damaged(&name, reason))?;
        if register.deployment_id != *deployment {
            let reason = "it belongs to another deployment";
            return Err(BackupStoreError::damaged(&name, reason));
        }
        Ok(Some((text, register)))
    }

    /// Sees to it that the register of a deployment is stored, signed under the ring's first key; returns that key's
    /// name. Where `present`, which was read, is as good, nothing is written; else it is replaced wherever it is.
    pub async fn write_register(
        &self,
        register: Register,
        present: Option<&Register>,
    ) -> Result<String, BackupStoreError> {
        let first = self.keys.first();
        let is_as_good = |of: &Register| {
            let key = of.signature.as_deref().and_then(key_of);
            of.says_as(&register) && key == Some(first)
        };
        if present.is_some_and(is_as_good) {
            return Ok(first.to_owned());
        }
        let name = ObjectName::register(&register.deployment_id);
        let text = to_json(&signed(register, &self.keys));
        match self.store.get(&name, 0).await {
            Ok(_) => self.store.replace(&name, text).await?,
            Err(BackupStoreError::NotFound(_)) => {
                let content = stream::once(ready(Ok(text))).boxed();
                self.store.put(&name, content).await?;
            }
            Err(error) => return Err(error),
        }
        Ok(first.to_owned())
    }

    /// Deletes the register of a deployment that has no backups any more.
    pub async fn remove_register(&self, deployment: &DeploymentId) -> Result<(), BackupStoreError> {
        self.store.delete(&ObjectName::register(deployment)).await
    }
}

/// The register that `text` is; else the reason why it is none. Its signature is not looked at.
fn parse(text: &[u8]) -> Result<Register, String> {
    /// Looked at first, since another format need not have the rest.
    #[derive(Deserialize)]
    struct Form {
        format: u32,
    }
    let Form { format } = serde_json::from_slice(text).map_err(|error| error.to_string())?;
    if format != REGISTER_FORMAT {
        return Err(format!(
            "it has format {format}, and only {REGISTER_FORMAT} is known"
        ));
    }
    serde_json::from_slice(text).map_err(|error| error.to_string())
}
