//! Puts a part of a running database back, by what its keys begin with.
//!
//! The backup is restored aside, and the two are compared key by key. What was found then is written down once:
//! another try, or another worker, goes by it, and so does what is told of it afterwards. The database is
//! written to in small transactions, each of which leaves alone what clients changed since.

use std::sync::Arc;

use super::{Definition, Ending, OpenDeployment, Outcome, Step, StepError, Work, aside, safety};
use crate::{
    model::prefix::{PrefixChanges, PrefixDifference, PrefixRestore},
    store::{self, Conn, StoreError},
};

/// Restore of a prefix.
pub const DEFINITION: Definition = Definition {
    steps: &[
        Step {
            name: "check",
            title: "Checking the backup of before",
            run: |w| Box::pin(check(w)),
        },
        Step {
            name: PUT_BACK,
            title: "Comparing with the backup, and putting keys back",
            run: |w| Box::pin(compare_and_put_back(w)),
        },
    ],
    begun: |_, _| Ok(()),
    // What is written stays: it is what was asked for, key by key, and there is a backup of before.
    cleanup: &[aside::CLEANUP],
    succeed,
    fail: |_: &mut Conn<'_>, _: &Ending<'_>, _| Ok(()),
};

const PUT_BACK: &str = "put_back";

/// What is wanted, with what was found by now.
async fn wanted(work: &Work) -> Result<PrefixRestore, StepError> {
    let id = work.operation.id.clone();
    let operation = work.read(move |conn| store::operation::get(conn, &id));
    let wanted = operation.await?.prefix_restore;
    wanted.ok_or_else(|| StepError::last("the operation names no prefix"))
}

async fn check(work: Arc<Work>) -> Result<Outcome, StepError> {
    let wanted = wanted(&work).await?;
    if !wanted.dry_run {
        safety::check(&work, wanted.safety_backup, "the restore").await?;
    }
    Outcome::done()
}

async fn compare_and_put_back(work: Arc<Work>) -> Result<Outcome, StepError> {
    let deployment = work.deployment().await?;
    aside::remove(&work, &deployment).await?;
    let source = work.operation.source.as_ref();
    let manifest = source.map(|source| &source.manifest);
    let manifest = manifest.ok_or_else(|| StepError::last("the operation names no source"))?;
    let version = aside::own_version(&work, &deployment, manifest)?.map_err(StepError::last)?;
    let aside = aside::restore(&work, &deployment, manifest, version).await?;
    let changes = put_back_from(&work, &aside).await;
    aside::remove(&work, &deployment).await?;
    Outcome::with(&changes?)
}

/// Returns what was changed; none when nothing was to be.
async fn put_back_from(
    work: &Work,
    aside: &OpenDeployment,
) -> Result<Option<PrefixChanges>, StepError> {
    let wanted = wanted(work).await?;
    let opened = work.opened().await?;
    let difference = match &wanted.difference {
        Some(difference) => difference.clone(),
        None => {
            let engine = &opened.engine;
            let found = engine.compare_prefix(aside.site(), opened.site(), &wanted.prefix);
            let found = found.await?;
            note(work, &wanted, &found).await?;
            found
        }
    };
    if wanted.dry_run {
        return Ok(None);
    }
    check_room(work, &opened, difference.bytes(wanted.mode)).await?;
    let changes = put_back(work, (aside, &opened), &wanted, &difference).await?;
    Ok(Some(changes))
}

/// A database that is filled up is of no use to anybody. What was written by an earlier try is counted twice.
async fn check_room(work: &Work, opened: &OpenDeployment, bytes: u64) -> Result<(), StepError> {
    let seen = work.observe(opened).await?;
    let used = seen.used_bytes().unwrap_or_default();
    let quota = opened.deployment.quota_bytes();
    if used + bytes <= quota {
        return Ok(());
    }
    let mib = |bytes: u64| bytes.div_ceil(1024 * 1024);
    let (bytes, used, quota) = (mib(bytes), mib(used), mib(quota));
    Err(StepError::last(format!(
        "{bytes} MiB would be written beside {used} MiB, and the database holds {quota} MiB: it needs more units"
    )))
}

async fn put_back(
    work: &Work,
    (aside, opened): (&OpenDeployment, &OpenDeployment),
    wanted: &PrefixRestore,
    difference: &PrefixDifference,
) -> Result<PrefixChanges, StepError> {
    let (mut left, mut kept, mut bytes) = (0, 0, 0);
    let mut from = None;
    work.meter.begin(difference.bytes(wanted.mode));
    loop {
        // A worker that stood still must not write over what its users did since the end.
        aside::has_claim(work).await?;
        let (engine, site) = (&opened.engine, opened.site());
        let done = engine
            .put_back(aside.site(), site, wanted, &difference.point, from)
            .await?;
        left += done.left;
        kept += done.kept;
        bytes += done.bytes;
        work.meter.set(bytes);
        let Some(next) = done.next else {
            return Ok(PrefixChanges::of(wanted.mode, difference, left, kept));
        };
        from = Some(next);
    }
}

async fn note(
    work: &Work,
    wanted: &PrefixRestore,
    found: &PrefixDifference,
) -> Result<(), StepError> {
    let noted = PrefixRestore {
        difference: Some(found.clone()),
        ..wanted.clone()
    };
    let id = work.operation.id.clone();
    work.write(move |conn| store::prefix::set(conn, &id, &noted))
        .await
}

/// Writes down what was changed.
fn succeed(conn: &mut Conn<'_>, ending: &Ending<'_>) -> Result<(), StoreError> {
    let id = &ending.operation.id;
    let found = store::step::results(conn, id)?.remove(PUT_BACK);
    let changes = serde_json::from_value(found.unwrap_or_default())
        .map_err(|_| StoreError::Missing("what was put back".to_owned()))?;
    let Some(wanted) = store::operation::get(conn, id)?.prefix_restore else {
        return Ok(());
    };
    let noted = PrefixRestore { changes, ..wanted };
    store::prefix::set(conn, id, &noted)
}
