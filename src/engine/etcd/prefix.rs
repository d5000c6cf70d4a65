//! A part of a running database, compared with a backup that was restored aside, and put back from it.
//!
//! Both sides are read in the order of their keys, some at a time. The running one is read as it was at one
//! revision, whatever clients write meanwhile, and each change is made only where the key is still as it was
//! then. So the same call again changes nothing further, and what clients wrote since is left alone.

use std::cmp::Ordering;

use etcd_client::{Client, Compare, CompareOp, GetOptions, KeyValue, Txn, TxnOp, TxnOpResponse};
use tokio::time::Instant;

use super::{
    client::{Dialer, Fault, says},
    verify::current_revision,
};
use crate::{
    engine::{EngineError, PutBack},
    model::{
        limits::prefix::{
            PREFIX_BATCH_BYTES, PREFIX_BATCH_KEYS, PREFIX_PAGE_BYTES, PREFIX_PAGE_KEYS_FIRST,
            PREFIX_PAGE_KEYS_MAX, PREFIX_SLICE_TIME,
        },
        prefix::{PrefixDifference, PrefixRestore},
    },
};

const COMPARING: &str = "comparing keys with a backup";
const PUTTING_BACK: &str = "putting keys back from a backup";

/// Compares all keys with a prefix.
pub(super) async fn compare(
    aside: &Dialer<'_>,
    database: &Dialer<'_>,
    prefix: &str,
) -> Result<PrefixDifference, EngineError> {
    let revision = |mut client: Client| async move { current_revision(&mut client).await };
    let revision = database.trying_as_root(COMPARING, revision).await?;
    let (from, end) = range_of(prefix);
    let mut sides = Sides {
        aside: Keys::new(aside, 0, from.clone(), end.clone()),
        database: Keys::new(database, revision, from, end),
    };
    let mut found = PrefixDifference {
        point: revision.to_string(),
        ..PrefixDifference::default()
    };
    while let Some(key) = sides.next().await? {
        match key {
            Key::Ephemeral => found.ephemeral += 1,
            Key::Same => found.same += 1,
            Key::Missing(wanted) => {
                found.missing += 1;
                found.missing_bytes += bytes(&wanted);
            }
            Key::Changed(wanted, _) => {
                found.changed += 1;
                found.changed_bytes += bytes(&wanted);
            }
            Key::Extra(_) => found.extra += 1,
        }
    }
    Ok(found)
}

/// Puts back some of the keys with a prefix, from the key `from` on.
pub(super) async fn put_back(
    aside: &Dialer<'_>,
    database: &Dialer<'_>,
    wanted: &PrefixRestore,
    point: &str,
    from: Option<Vec<u8>>,
) -> Result<PutBack, EngineError> {
    let revision = point.parse().map_err(|_| {
        EngineError::Unexpected(format!("{point:?} is no point that a database was at"))
    })?;
    let (first, end) = range_of(&wanted.prefix);
    let from = from.unwrap_or(first);
    let mut sides = Sides {
        aside: Keys::new(aside, 0, from.clone(), end.clone()),
        database: Keys::new(database, revision, from, end),
    };
    let until = Instant::now() + PREFIX_SLICE_TIME;
    let (mut batch, mut done) = (Batch::default(), PutBack::default());
    while let Some(key) = sides.next().await? {
        let change = match key {
            Key::Missing(wanted) => Change::put(wanted, 0),
            Key::Changed(key, at) if wanted.mode.overwrites() => Change::put(key, at),
            Key::Extra(at) if wanted.mode.deletes() => Change::delete(&at),
            _ => continue,
        };
        if !batch.takes(&change) {
            commit(database, &mut batch, &mut done).await?;
            if Instant::now() >= until {
                done.next = Some(change.key);
                return Ok(done);
            }
        }
        batch.add(change);
    }
    commit(database, &mut batch, &mut done).await?;
    Ok(done)
}

/// The first key that may have a prefix, and the first behind all that have; that is a NUL where there is none.
fn range_of(prefix: &str) -> (Vec<u8>, Vec<u8>) {
    let nul = || vec![0];
    let mut end = prefix.as_bytes().to_vec();
    // Text has no byte that cannot grow.
    match end.last_mut() {
        Some(last) => *last += 1,
        None => return (nul(), nul()),
    }
    (prefix.as_bytes().to_vec(), end)
}

fn bytes(of: &KeyValue) -> u64 {
    (of.key().len() + of.value().len()) as u64
}

/// How a key stands on both sides.
enum Key {
    /// It lives only as long as a client does, here or there.
    Ephemeral,
    /// Both have the same value.
    Same,
    /// The backup alone has it.
    Missing(KeyValue),
    /// The database has another value, since this revision.
    Changed(KeyValue, i64),
    /// The database alone has it.
    Extra(KeyValue),
}

/// A backup and a database, key by key.
struct Sides<'a> {
    aside: Keys<'a>,
    database: Keys<'a>,
}

impl Sides<'_> {
    async fn next(&mut self) -> Result<Option<Key>, EngineError> {
        let order = match (self.aside.peek().await?, self.database.peek().await?) {
            (None, None) => return Ok(None),
            (Some(_), None) => Ordering::Less,
            (None, Some(_)) => Ordering::Greater,
            (Some(there), Some(here)) => there.key().cmp(here.key()),
        };
        let there = (order != Ordering::Greater).then(|| self.aside.take());
        let here = (order != Ordering::Less).then(|| self.database.take());
        Ok(match (there.flatten(), here.flatten()) {
            (there, here) if [&there, &here].into_iter().flatten().any(is_ephemeral) => {
                Some(Key::Ephemeral)
            }
            (Some(there), Some(here)) if there.value() == here.value() => Some(Key::Same),
            (Some(there), Some(here)) => Some(Key::Changed(there, here.mod_revision())),
            (Some(there), None) => Some(Key::Missing(there)),
            (None, here) => here.map(Key::Extra),
        })
    }
}

fn is_ephemeral(key: &KeyValue) -> bool {
    key.lease() != 0
}

/// The keys of one side in their order, of which some are in memory.
struct Keys<'a> {
    dialer: &'a Dialer<'a>,
    /// As they were at this revision; 0: as they are.
    revision: i64,
    /// Where the next page begins; none behind the last one.
    from: Option<Vec<u8>>,
    end: Vec<u8>,
    /// How many keys are asked for at a time.
    limit: i64,
    /// What was read, the last one in front.
    page: Vec<KeyValue>,
}

impl<'a> Keys<'a> {
    fn new(dialer: &'a Dialer<'a>, revision: i64, from: Vec<u8>, end: Vec<u8>) -> Self {
        Self {
            dialer,
            revision,
            from: Some(from),
            end,
            limit: PREFIX_PAGE_KEYS_FIRST,
            page: Vec::new(),
        }
    }

    async fn peek(&mut self) -> Result<Option<&KeyValue>, EngineError> {
        while self.page.is_empty() {
            let Some(from) = self.from.take() else {
                return Ok(None);
            };
            self.read(from).await?;
        }
        Ok(self.page.last())
    }

    fn take(&mut self) -> Option<KeyValue> {
        self.page.pop()
    }

    /// Reads the next page. Nobody knows how large values are: as many keys are asked for as would have fitted
    /// of those of the page before, at most twice as many.
    async fn read(&mut self, from: Vec<u8>) -> Result<(), EngineError> {
        let (start, end, limit, revision) = (&from, &self.end, self.limit, self.revision);
        let ask = |mut client: Client| async move {
            let options = GetOptions::new()
                .with_range(end.clone())
                .with_limit(limit)
                .with_revision(revision);
            match client
                .get(start.clone(), Some(options))
                .await
                .map_err(Fault::from)
            {
                Ok(answer) => Ok(Some(answer)),
                // More than a client takes: values have become larger.
                Err(fault) if fault.says(says::TOO_MUCH) && limit > 1 => Ok(None),
                Err(fault) if fault.says(says::COMPACTED) => {
                    let text = "the database has forgotten how it was when it was compared with the \
                                backup; ask for it again";
                    Err(EngineError::Unexpected(text.to_owned()).into())
                }
                Err(fault) => Err(fault),
            }
        };
        let Some(mut answer) = self.dialer.trying_as_root(COMPARING, ask).await? else {
            self.limit = (limit / 2).max(1);
            self.from = Some(from);
            return Ok(());
        };
        let more = answer.more();
        self.page = answer.take_kvs();
        let read: u64 = self.page.iter().map(bytes).sum();
        let fit = PREFIX_PAGE_BYTES * limit.unsigned_abs() / read.max(1);
        let fit = fit.clamp(1, 2 * limit.unsigned_abs());
        self.limit = i64::try_from(fit)
            .unwrap_or(PREFIX_PAGE_KEYS_MAX)
            .min(PREFIX_PAGE_KEYS_MAX);
        self.from = self.page.last().filter(|_| more).map(|last| {
            let mut next = last.key().to_vec();
            next.push(0);
            next
        });
        self.page.reverse();
        Ok(())
    }
}

/// One change, which is made only where the key is as it was.
struct Change {
    key: Vec<u8>,
    /// The value that it gets; none: it goes.
    value: Option<Vec<u8>>,
    /// The revision that last changed the key; 0: there is none.
    at: i64,
}

impl Change {
    fn put(wanted: KeyValue, at: i64) -> Self {
        let (key, value) = wanted.into_key_value();
        Self {
            key,
            value: Some(value),
            at,
        }
    }

    fn delete(there: &KeyValue) -> Self {
        Self {
            key: there.key().to_vec(),
            value: None,
            at: there.mod_revision(),
        }
    }

    fn bytes(&self) -> u64 {
        self.value
            .as_ref()
            .map_or(0, |value| (self.key.len() + value.len()) as u64)
    }

    fn guard(&self) -> Compare {
        Compare::mod_revision(self.key.clone(), CompareOp::Equal, self.at)
    }

    fn act(&self) -> TxnOp {
        match &self.value {
            Some(value) => TxnOp::put(self.key.clone(), value.clone(), None),
            None => TxnOp::delete(self.key.clone(), None),
        }
    }

    fn look(&self) -> TxnOp {
        TxnOp::get(self.key.clone(), None)
    }

    /// Whether a key is as it should become.
    fn is_made(&self, now: Option<&KeyValue>) -> bool {
        now.map(KeyValue::value) == self.value.as_deref()
    }
}

/// Changes that are made together.
#[derive(Default)]
struct Batch {
    changes: Vec<Change>,
    bytes: u64,
}

impl Batch {
    fn takes(&self, change: &Change) -> bool {
        let fits = self.bytes + change.bytes() <= PREFIX_BATCH_BYTES;
        self.changes.is_empty() || (fits && self.changes.len() < PREFIX_BATCH_KEYS)
    }

    fn add(&mut self, change: Change) {
        self.bytes += change.bytes();
        self.changes.push(change);
    }
}

/// Makes what is in a batch, which is empty then, and counts it.
async fn commit(
    database: &Dialer<'_>,
    batch: &mut Batch,
    done: &mut PutBack,
) -> Result<(), EngineError> {
    let Batch { changes, bytes } = std::mem::take(batch);
    done.bytes += bytes;
    if changes.is_empty() || make(database, &changes).await? {
        return Ok(());
    }
    // Some key is not as it was: the others are changed one by one.
    for change in changes {
        if !make(database, std::slice::from_ref(&change)).await? {
            match change.value {
                Some(_) => done.left += 1,
                None => done.kept += 1,
            }
        }
    }
    Ok(())
}

/// Makes changes together; returns whether they are made.
async fn make(database: &Dialer<'_>, changes: &[Change]) -> Result<bool, EngineError> {
    let made = |mut client: Client| async move {
        let all = |of: fn(&Change) -> TxnOp| changes.iter().map(of).collect::<Vec<_>>();
        let guards: Vec<_> = changes.iter().map(Change::guard).collect();
        let txn = Txn::new()
            .when(guards)
            .and_then(all(Change::act))
            .or_else(all(Change::look));
        match client.txn(txn).await.map_err(Fault::from) {
            Ok(answer) if answer.succeeded() => Ok(true),
            Ok(answer) => {
                let now = answer.op_responses();
                Ok(changes.iter().zip(&now).all(|(change, now)| match now {
                    TxnOpResponse::Get(now) => change.is_made(now.kvs().first()),
                    _ => false,
                }))
            }
            // A value that a client could just write, and a transaction around it cannot.
            Err(fault) if fault.says(says::TOO_LARGE) && changes.len() == 1 => {
                make_alone(client, &changes[0]).await
            }
            Err(fault) => Err(fault),
        }
    };
    database.trying_as_root(PUTTING_BACK, made).await
}

async fn make_alone(mut client: Client, change: &Change) -> Result<bool, Fault> {
    let now = client.get(change.key.clone(), None).await?;
    let now = now.kvs().first();
    if change.is_made(now) || now.map_or(0, KeyValue::mod_revision) != change.at {
        return Ok(change.is_made(now));
    }
    let value = change.value.clone().unwrap_or_default();
    client.put(change.key.clone(), value, None).await?;
    Ok(true)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_prefix_is_a_range_of_keys() {
        assert_eq!(range_of("/a/"), (b"/a/".to_vec(), b"/a0".to_vec()));
        assert_eq!(range_of("é"), (vec![0xc3, 0xa9], vec![0xc3, 0xaa]));
        assert_eq!(range_of(""), (vec![0], vec![0]));
    }

    #[test]
    fn batches_are_small_and_take_any_change() {
        let change = |bytes: u64| Change {
            key: Vec::new(),
            value: Some(vec![0; usize::try_from(bytes).expect("small")]),
            at: 0,
        };
        let mut batch = Batch::default();
        assert!(batch.takes(&change(4 * PREFIX_BATCH_BYTES)));
        batch.add(change(PREFIX_BATCH_BYTES));
        assert!(batch.takes(&change(0)));
        assert!(!batch.takes(&change(1)));
        let mut batch = Batch::default();
        for _ in 0..PREFIX_BATCH_KEYS {
            assert!(batch.takes(&change(1)));
            batch.add(change(1));
        }
        assert!(!batch.takes(&change(1)));
    }
}
