//! What a bucket can and does, looked at when a broker starts; and its marker.

use std::sync::Arc;

use bytes::Bytes;
use chrono::{DateTime, SecondsFormat, Utc};
use hyper::Method;
use object_store::{ObjectStore as _, PutMode, PutOptions, path::Path};
use serde::Deserialize;

use super::{
    client::Client,
    listing,
    refusal::{WireError, at_bottom},
    settings::LockMode,
};
use crate::{backups::BackupStoreError, folder::MARKER, model::marker::Marker};

/// Fails when the bucket cannot be used, and tells the log what its operator should know of it.
pub(super) async fn look(client: &Arc<Client>) -> Result<(), BackupStoreError> {
    let failed = client.refused("cannot use the bucket");
    let query = [
        ("list-type", "2"),
        ("prefix", client.address.prefix.as_str()),
        ("max-keys", "1"),
    ];
    client
        .ask(Method::GET, None, &query)
        .await
        .map_err(&failed)?;
    let place = &client.address;
    if !listing::tells_of_uploads(client)
        .await
        .map_err(client.refused("cannot list uploads"))?
    {
        log::warn!(
            "the server of {place} does not list uploads that broke off: have a rule of the bucket end them"
        );
    }
    let is_plain = client
        .settings
        .endpoint
        .as_ref()
        .is_some_and(|url| url.scheme() == "http");
    if is_plain {
        log::warn!("backups go to {place} without TLS: who is on the way can read them");
    }
    if keeps_versions(client).await {
        log::info!(
            "the bucket of {place} keeps versions: the broker deletes all versions of what it deletes, and \
             those that a lock or the broker's permissions keep go by the bucket's own rules"
        );
    }
    look_at_locks(client).await?;
    if let Some(marker) = raw_marker(client).await? {
        probe_conditions(client, marker).await?;
    }
    Ok(())
}

/// How a bucket locks objects, as it says.
#[derive(Default, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
struct Locks {
    object_lock_enabled: Option<String>,
    rule: Option<LockRule>,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
struct LockRule {
    default_retention: Option<DefaultRetention>,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
struct DefaultRetention {
    mode: Option<String>,
    days: Option<u32>,
    years: Option<u32>,
}

/// Fails where objects are to be locked in a bucket that locks none, and tells the log of what it locks by itself.
async fn look_at_locks(client: &Client) -> Result<(), BackupStoreError> {
    let answer = client.ask(Method::GET, None, &[("object-lock", "")]).await;
    let locks = match answer.and_then(|answer| answer.xml::<Locks>()) {
        Ok(locks) => locks,
        // It has none, or says nothing of it.
        Err(WireError::Refused(refusal)) if (400..500).contains(&refusal.status) => {
            Locks::default()
        }
        Err(_) if client.settings.lock.is_none() => return Ok(()),
        Err(error) => {
            return Err(client.refused("cannot look at the bucket's object lock")(
                error,
            ));
        }
    };
    let is_on = locks.object_lock_enabled.as_deref() == Some("Enabled");
    if client.settings.lock.is_some() && !is_on {
        return Err(BackupStoreError::Server {
            doing: format!("cannot lock objects in {}", client.address),
            why: "the bucket has no object lock, or the broker may not ask for it \
                  (s3:GetBucketObjectLockConfiguration)"
                .to_owned(),
            advice: "use a bucket that was made with object lock, or set COMPOSE_BROKER_S3_OBJECT_LOCK to off"
                .to_owned(),
            may_pass: false,
        });
    }
    let rule = locks.rule.and_then(|rule| rule.default_retention);
    if let Some(rule) = rule {
        let (mode, days) = (rule.mode.unwrap_or_default(), rule.days.unwrap_or_default());
        let days = days.max(rule.years.unwrap_or_default().saturating_mul(365));
        log::warn!(
            "the bucket of {} locks by itself what is stored ({mode}, {days} days): what the broker deletes before \
             that stays there, hidden, until then",
            client.address
        );
    }
    Ok(())
}

/// Locks the object of a key, as it is now, until then.
pub(super) async fn lock(
    client: &Client,
    key: &Path,
    mode: LockMode,
    until: DateTime<Utc>,
) -> Result<(), WireError> {
    let retention = format!(
        "<Retention xmlns=\"http://s3.amazonaws.com/doc/2006-03-01/\"><Mode>{}</Mode>\
         <RetainUntilDate>{}</RetainUntilDate></Retention>",
        mode.as_str(),
        until.to_rfc3339_opts(SecondsFormat::Secs, true)
    );
    let asked = client.put_beside(key, &[("retention", "")], retention);
    asked.await.map(drop)
}

/// Whether the bucket keeps versions, as far as it tells.
async fn keeps_versions(client: &Client) -> bool {
    #[derive(Default, Deserialize)]
    #[serde(rename_all = "PascalCase", default)]
    struct Versioning {
        status: Option<String>,
    }
    let answer = client.ask(Method::GET, None, &[("versioning", "")]).await;
    let versioning = answer.and_then(|answer| answer.xml::<Versioning>());
    versioning.is_ok_and(|versioning| versioning.status.as_deref() == Some("Enabled"))
}

/// Tells whether the server minds that nothing may be there yet: where it does not, two brokers that begin
/// with an empty bucket at the same moment do not notice each other. The marker is written once more, as it is.
pub(super) async fn probe_conditions(
    client: &Client,
    marker: Bytes,
) -> Result<(), BackupStoreError> {
    let key = client.address.hidden(MARKER);
    let options = PutOptions::from(PutMode::Create);
    let written = client.library.put_opts(&key, marker.into(), options).await;
    let refused = written.map_err(|error| at_bottom(&error));
    match refused {
        Ok(_) => log::warn!(
            "the server of {} ignores conditions (If-None-Match): let one broker alone use the bucket",
            client.address
        ),
        Err(error) => match error.refusal() {
            Some(refusal) if matches!(refusal.status, 409 | 412) => {}
            Some(refusal) if refusal.status == 501 => log::warn!(
                "the server of {} knows no conditions: let one broker alone use the bucket",
                client.address
            ),
            _ => {
                let place = client.address.to_string();
                return Err(error.told(&place, "cannot write the marker", 0));
            }
        },
    }
    Ok(())
}

async fn raw_marker(client: &Client) -> Result<Option<Bytes>, BackupStoreError> {
    let key = client.address.hidden(MARKER);
    match client.ask(Method::GET, Some(&key), &[]).await {
        Ok(answer) => Ok(Some(answer.body)),
        Err(WireError::Refused(refusal)) if refusal.is_absence() => Ok(None),
        Err(error) => Err(client.refused("cannot read the marker")(error)),
    }
}

/// The marker of the store; none where there is none.
pub(super) async fn marker(client: &Client) -> Result<Option<Marker>, BackupStoreError> {
    let Some(text) = raw_marker(client).await? else {
        return Ok(None);
    };
    let read = serde_json::from_slice(&text);
    read.map(Some).map_err(|error| BackupStoreError::Absent {
        folder: client.address.to_string(),
        reason: format!("its {MARKER} cannot be read: {error}"),
    })
}
