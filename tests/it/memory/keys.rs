//! Keys of a database in memory, compared with those of a backup and put back from it.

use std::collections::BTreeMap;

use compose_broker::{
    engine::PutBack,
    model::prefix::{PrefixDifference, PrefixMode},
};

type Keys = BTreeMap<String, String>;

fn bytes(key: &str, value: &str) -> u64 {
    (key.len() + value.len()) as u64
}

/// In what the keys of a database, `here`, differ from those of its backup, `there`.
pub fn difference(there: &Keys, here: &Keys, point: i64) -> PrefixDifference {
    let mut found = PrefixDifference {
        extra: here.keys().filter(|key| !there.contains_key(*key)).count() as u64,
        point: point.to_string(),
        ..PrefixDifference::default()
    };
    for (key, value) in there {
        match here.get(key) {
            None => {
                found.missing += 1;
                found.missing_bytes += bytes(key, value);
            }
            Some(now) if now == value => found.same += 1,
            Some(_) => {
                found.changed += 1;
                found.changed_bytes += bytes(key, value);
            }
        }
    }
    found
}

/// Puts back the first key from `from` on: among those that were `there`, and those of the database `then`, when
/// it was compared.
pub fn put_back_one(
    keys: &mut Keys,
    (there, then): (&Keys, &Keys),
    mode: PrefixMode,
    from: Option<String>,
) -> PutBack {
    let mut all: Vec<&String> = there.keys().chain(then.keys()).collect();
    all.sort();
    all.dedup();
    let mut all = all.into_iter().filter(|key| Some(*key) >= from.as_ref());
    let Some(key) = all.next() else {
        return PutBack::default();
    };
    let mut done = PutBack {
        next: all.next().map(|next| next.clone().into_bytes()),
        ..PutBack::default()
    };
    let (value, before, now) = (there.get(key), then.get(key), keys.get(key));
    let is_wanted = match (value, before) {
        (value, before) if value == before => false,
        (Some(_), None) => true,
        (Some(_), Some(_)) => mode.overwrites(),
        (None, _) => mode.deletes(),
    };
    match value {
        value if !is_wanted || value == now => {}
        Some(_) if now != before => done.left = 1,
        None if now != before => done.kept = 1,
        Some(value) => {
            done.bytes = bytes(key, value);
            keys.insert(key.clone(), value.clone());
        }
        None => _ = keys.remove(key),
    }
    done
}
