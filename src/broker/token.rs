//! Tokens of the administration API: each is good for one instance.

use super::{Broker, BrokerError};
use crate::{model::ids::InstanceId, seal::fingerprint, store};

impl Broker {
    /// The instance that a token is for. Tokens are kept as fingerprints: the look-up by the hash
    /// of 256 random bits tells nothing by its time.
    pub async fn instance_of_token(&self, token: &str) -> Result<Option<InstanceId>, BrokerError> {
        let fingerprint = fingerprint(token);
        let found = self
            .store
            .read(move |conn| store::binding::instance_of_token(conn, &fingerprint))
            .await?;
        Ok(found)
    }
}
