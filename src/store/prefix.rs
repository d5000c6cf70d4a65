//! What restores of a part of a database have found and changed.

use diesel::prelude::*;

use super::{Conn, StoreError, each, schema::operations, to_json};
use crate::model::{ids::OperationId, prefix::PrefixRestore};

/// Writes down what is known by now.
pub fn set(conn: &mut Conn<'_>, id: &OperationId, known: &PrefixRestore) -> Result<(), StoreError> {
    let known = to_json(known)?;
    each!(conn, |c| diesel::update(
        operations::table.find(id.as_str())
    )
    .set(operations::prefix_restore.eq(Some(&known)))
    .execute(c))?;
    Ok(())
}
