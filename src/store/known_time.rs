//! The row of what is known of the time.

use diesel::prelude::*;

use super::{Conn, StoreError, each, from_json, schema::known_time, to_json};
use crate::model::trust::KnownTime;

/// What was known last.
pub fn find(conn: &mut Conn<'_>) -> Result<Option<KnownTime>, StoreError> {
    let text: Option<String> = each!(conn, |c| known_time::table
        .find(1)
        .select(known_time::state)
        .first(c)
        .optional())?;
    text.map(|text| from_json("what is known of the time", &text))
        .transpose()
}

/// Keeps what is known now.
pub fn keep(conn: &mut Conn<'_>, known: &KnownTime) -> Result<(), StoreError> {
    let text = to_json(known)?;
    each!(conn, |c| diesel::delete(known_time::table).execute(c))?;
    each!(conn, |c| diesel::insert_into(known_time::table)
        .values((known_time::id.eq(1), known_time::state.eq(&text)))
        .execute(c))?;
    Ok(())
}
