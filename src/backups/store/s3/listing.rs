//! What is in a bucket: objects, uploads that were begun and not ended, and versions, page by page.
//!
//! The library lists objects alone, and fails at keys that it does not take for paths. So these lists are read
//! here.

use std::{collections::VecDeque, sync::Arc};

use chrono::{DateTime, Utc};
use futures::{StreamExt as _, stream};
use hyper::Method;
use object_store::path::Path;
use serde::Deserialize;

use super::{client::Client, refusal::WireError};
use crate::backups::{BackupStoreError, ObjectName, store::NameStream};

/// An upload that was begun and not ended.
#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub(super) struct Upload {
    pub(super) key: String,
    pub(super) upload_id: String,
    pub(super) initiated: DateTime<Utc>,
}

/// A version of an object, or the mark that it was deleted.
#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub(super) struct Version {
    key: String,
    pub(super) version_id: String,
    /// Whether it is the mark that the object was deleted.
    #[serde(skip)]
    pub(super) is_mark: bool,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
struct ObjectPage {
    is_truncated: bool,
    next_continuation_token: Option<String>,
    contents: Vec<Key>,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Key {
    key: String,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
struct UploadPage {
    is_truncated: bool,
    next_key_marker: Option<String>,
    next_upload_id_marker: Option<String>,
    upload: Vec<Upload>,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
struct VersionPage {
    is_truncated: bool,
    next_key_marker: Option<String>,
    next_version_id_marker: Option<String>,
    version: Vec<Version>,
    delete_marker: Vec<Version>,
}

/// The pages of a list, asked for when they are needed.
struct Pages<T> {
    client: Arc<Client>,
    /// What all keys begin with.
    prefix: String,
    /// What asks for the next page beside the prefix; none: the last one was read.
    next: Option<Vec<(&'static str, String)>>,
    ahead: VecDeque<T>,
}

impl<T> Pages<T> {
    fn of(client: &Arc<Client>, prefix: &str) -> Self {
        Self {
            client: client.clone(),
            prefix: prefix.to_owned(),
            next: Some(Vec::new()),
            ahead: VecDeque::new(),
        }
    }

    /// Asks for the next page, of which `of` is said.
    async fn ask(&mut self, of: &[(&str, &str)]) -> Result<super::client::Answer, WireError> {
        let next = self.next.take().unwrap_or_default();
        let next = next.iter().map(|(name, value)| (*name, value.as_str()));
        let prefix = [("prefix", self.prefix.as_str())];
        let query: Vec<(&str, &str)> = of.iter().copied().chain(prefix).chain(next).collect();
        self.client.ask(Method::GET, None, &query).await
    }
}

/// What asks for the page behind these places, of which the first is always told.
fn behind(
    first: (&'static str, Option<String>),
    second: (&'static str, Option<String>),
) -> Result<Vec<(&'static str, String)>, WireError> {
    let lacks = || WireError::Strange(format!("a page of a list does not say its {}", first.0));
    let mut next = vec![(first.0, first.1.clone().ok_or_else(lacks)?)];
    next.extend(second.1.map(|value| (second.0, value)));
    Ok(next)
}

impl Pages<Key> {
    async fn fetch(&mut self) -> Result<(), WireError> {
        while self.ahead.is_empty() && self.next.is_some() {
            let answer = self.ask(&[("list-type", "2")]).await?;
            let page: ObjectPage = answer.xml()?;
            if page.is_truncated {
                let token = ("continuation-token", page.next_continuation_token);
                self.next = Some(behind(token, ("", None))?);
            }
            self.ahead.extend(page.contents);
        }
        Ok(())
    }
}

impl Pages<Upload> {
    /// Returns what time it was for the server.
    async fn fetch(&mut self) -> Result<Option<DateTime<Utc>>, WireError> {
        let mut now = None;
        while self.ahead.is_empty() && self.next.is_some() {
            let answer = match self.ask(&[("uploads", "")]).await {
                // A server that cannot tell of uploads has none that could be ended.
                Err(WireError::Refused(refusal)) if refusal.status == 501 => {
                    return Ok(now);
                }
                answer => answer?,
            };
            now = answer.time();
            let page: UploadPage = answer.xml()?;
            if page.is_truncated {
                let key = ("key-marker", page.next_key_marker);
                let id = ("upload-id-marker", page.next_upload_id_marker);
                self.next = Some(behind(key, id)?);
            }
            self.ahead.extend(page.upload);
        }
        Ok(now)
    }
}

/// The objects whose names begin with `prefix`, and those of which there is an upload only, in order.
pub(super) fn names(client: Arc<Client>, prefix: String) -> NameStream {
    let failed = client.refused("cannot list backups");
    let prefix = format!("{}{prefix}", client.address.prefix);
    let merge = Merge {
        objects: Pages::of(&client, &prefix),
        uploads: Pages::of(&client, &prefix),
        last: None,
    };
    stream::try_unfold(merge, |mut merge| async move {
        let next = merge.next().await?;
        Ok(next.map(|name| (name, merge)))
    })
    .map(move |name| name.map_err(&failed))
    .boxed()
}

/// Two lists that are in order, as one.
struct Merge {
    objects: Pages<Key>,
    uploads: Pages<Upload>,
    last: Option<String>,
}

impl Merge {
    async fn next(&mut self) -> Result<Option<ObjectName>, WireError> {
        loop {
            self.objects.fetch().await?;
            self.uploads.fetch().await?;
            let object = self.objects.ahead.front().map(|object| &object.key);
            let upload = self.uploads.ahead.front().map(|upload| &upload.key);
            let is_object = match (object, upload) {
                (None, None) => return Ok(None),
                (Some(object), Some(upload)) => object <= upload,
                (object, _) => object.is_some(),
            };
            let key = match is_object {
                true => self.objects.ahead.pop_front().map(|object| object.key),
                false => self.uploads.ahead.pop_front().map(|upload| upload.key),
            };
            let Some(key) = key.filter(|key| self.last.as_ref() != Some(key)) else {
                continue;
            };
            if self.last.as_ref().is_some_and(|last| *last > key) {
                // What is of one backup would not stand together.
                let why = "its lists are not in the order of keys";
                return Err(WireError::Strange(why.to_owned()));
            }
            let name = self.objects.client.address.name(&key);
            self.last = Some(key);
            if name.is_some() {
                return Ok(name);
            }
        }
    }
}

/// The uploads of keys that begin with `prefix` and are of objects, with the time of the server.
async fn uploads(
    client: &Arc<Client>,
    prefix: &str,
) -> Result<(Vec<Upload>, Option<DateTime<Utc>>), WireError> {
    let mut pages = Pages::<Upload>::of(client, prefix);
    let (mut found, mut now) = (Vec::new(), None);
    loop {
        now = pages.fetch().await?.or(now);
        if pages.ahead.is_empty() {
            return Ok((found, now));
        }
        let is_ours = |upload: &Upload| client.address.name(&upload.key).is_some();
        found.extend(pages.ahead.drain(..).filter(is_ours));
    }
}

/// Ends the uploads below the prefix of the store that the server has had for longer than that; returns how
/// many.
pub(super) async fn end_old_uploads(
    client: &Arc<Client>,
    older_than: std::time::Duration,
) -> Result<u64, BackupStoreError> {
    let failed = client.refused("cannot end uploads that broke off");
    let (found, now) = uploads(client, &client.address.prefix)
        .await
        .map_err(&failed)?;
    let older_than = chrono::Duration::from_std(older_than).unwrap_or(chrono::Duration::MAX);
    let mut ended = 0;
    for upload in found {
        // Where the server does not say what time it is, none is old.
        let age = now.map(|now| now.signed_duration_since(upload.initiated));
        if age.is_some_and(|age| age > older_than) {
            end(client, &upload).await.map_err(&failed)?;
            ended += 1;
        }
    }
    Ok(ended)
}

/// Ends the uploads of one key.
pub(super) async fn end_uploads_of(client: &Arc<Client>, key: &Path) -> Result<(), WireError> {
    let (found, _) = uploads(client, key.as_ref()).await?;
    for upload in found {
        if upload.key == key.as_ref() {
            end(client, &upload).await?;
        }
    }
    Ok(())
}

async fn end(client: &Client, upload: &Upload) -> Result<(), WireError> {
    let query = [("uploadId", upload.upload_id.as_str())];
    let key = Path::from(upload.key.as_str());
    match client.ask(Method::DELETE, Some(&key), &query).await {
        // Somebody else ended it.
        Err(WireError::Refused(refusal)) if refusal.is_absence() => Ok(()),
        answer => answer.map(drop),
    }
}

/// Whether the server can tell of uploads, and the broker may ask.
pub(super) async fn tells_of_uploads(client: &Client) -> Result<bool, WireError> {
    let query = [
        ("uploads", ""),
        ("prefix", client.address.prefix.as_str()),
        ("max-uploads", "1"),
    ];
    match client.ask(Method::GET, None, &query).await {
        Err(WireError::Refused(refusal)) if refusal.status == 501 => Ok(false),
        answer => answer.map(|_| true),
    }
}

/// All versions of one key, and the marks that it was deleted.
pub(super) async fn versions(client: &Arc<Client>, key: &Path) -> Result<Vec<Version>, WireError> {
    let mut pages = Pages::<Version>::of(client, key.as_ref());
    let mut found = Vec::new();
    while pages.next.is_some() {
        let page: VersionPage = pages.ask(&[("versions", "")]).await?.xml()?;
        if page.is_truncated {
            let key = ("key-marker", page.next_key_marker);
            let id = ("version-id-marker", page.next_version_id_marker);
            pages.next = Some(behind(key, id)?);
        }
        let of_key = |version: &Version| version.key == key.as_ref();
        found.extend(page.version.into_iter().filter(of_key));
        let as_mark = |version| Version {
            is_mark: true,
            ..version
        };
        found.extend(page.delete_marker.into_iter().filter(of_key).map(as_mark));
    }
    Ok(found)
}

/// The first names of the store, so many at most.
pub(super) async fn first_names(
    client: &Arc<Client>,
    count: usize,
) -> Result<Vec<ObjectName>, BackupStoreError> {
    let names: Vec<_> = names(client.clone(), String::new())
        .take(count)
        .collect()
        .await;
    names.into_iter().collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pages_are_read_as_servers_write_them() {
        let page: ObjectPage = quick_xml::de::from_str(
            "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n<ListBucketResult \
             xmlns=\"http://s3.amazonaws.com/doc/2006-03-01/\"><Name>b</Name><KeyCount>2</KeyCount>\
             <IsTruncated>true</IsTruncated><NextContinuationToken>x&amp;=</NextContinuationToken>\
             <Contents><Key>a/b</Key><Size>1</Size></Contents><CommonPrefixes><Prefix>c/</Prefix>\
             </CommonPrefixes><Contents><Key>a&lt;/c</Key><Size>1</Size></Contents></ListBucketResult>",
        )
        .expect("a page");
        assert!(page.is_truncated);
        assert_eq!(page.next_continuation_token.as_deref(), Some("x&="));
        let keys: Vec<_> = page.contents.iter().map(|it| it.key.as_str()).collect();
        assert_eq!(keys, ["a/b", "a</c"]);
        let page: UploadPage = quick_xml::de::from_str(
            "<ListMultipartUploadsResult><IsTruncated>false</IsTruncated><NextKeyMarker></NextKeyMarker>\
             <Upload><Key>a</Key><UploadId>1</UploadId><Owner><ID>x</ID></Owner>\
             <Initiated>2026-11-29T10:00:00.000Z</Initiated></Upload></ListMultipartUploadsResult>",
        )
        .expect("a page");
        assert_eq!(
            (page.upload[0].key.as_str(), page.is_truncated),
            ("a", false)
        );
        let empty: VersionPage =
            quick_xml::de::from_str("<ListVersionsResult></ListVersionsResult>").expect("a page");
        assert!(empty.version.is_empty() && empty.delete_marker.is_empty());
        let lacking = behind(("continuation-token", None), ("", None));
        assert!(matches!(lacking, Err(WireError::Strange(_))), "{lacking:?}");
    }
}
