//! The copy of a store from a file of SQLite into a database of PostgreSQL.
//!
//! Rows go as JSON, page by page, by the columns that the file itself names: no table is forgotten, and none
//! has code of its own. The server makes its own types of them and compares each row that it has with the
//! row that came.
//!
//! Invariants: no broker works with either database meanwhile (the file's lock; the note of an unfinished
//! copy, which `refuse_unfit` heeds); a copy that was broken off goes on where it is begun anew, since rows
//! that are there are compared and not written again; when it has ended, the file is used no more.

use diesel::{
    Connection as _, OptionalExtension as _, PgConnection, QueryableByName, RunQueryDsl as _,
    SqliteConnection,
    connection::SimpleConnection as _,
    sql_query,
    sql_types::{BigInt, Bool, Nullable, Text},
};

use super::{
    Link, StoreError, connect, connection_error, database_of, lock_beside, migrated_postgres,
    migrations,
};
use crate::model::{
    database_url::DatabaseUrl, limits::postgres::POSTGRES_IDLE_IN_TRANSACTION, postgres::complete,
};

/// Rows that are copied in one transaction.
const ROWS_AT_ONCE: i64 = 500;

/// The moment as the target keeps it, whatever its sessions' zone is.
const NOW_IN_TARGET: &str = "timezone('utc', now())";
/// Tables of a database's own: its schema, its readiness, its writers, its copies.
const ITS_OWN: [&str; 4] = [
    "__diesel_schema_migrations",
    "readiness",
    "writers",
    "copies",
];

/// Tables that triggers of other tables fill: they are compared alone, after all others.
const FILLED_BY_TRIGGERS: [&str; 1] = ["placed"];

/// A table that was copied.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Copied {
    /// Its name.
    pub table: String,
    /// Its rows.
    pub rows: i64,
}

/// Why a store was not copied.
#[derive(Debug, thiserror::Error)]
pub enum CopyError {
    /// The addresses are not those of a file and a server.
    #[error("a store is copied from sqlite:// to postgres://, and not otherwise")]
    Direction,
    /// The file has an older schema.
    #[error(
        "the store at --from is of an older version; bring it to this one (compose-broker migrate), then copy \
         it"
    )]
    Old,
    /// Somebody else's store is there.
    #[error("the database at --to has a store of an older version already; copy into an empty one")]
    OldTarget,
    /// Something is there that was not copied.
    #[error(
        "the database at --to has a store already (its table {0} is not empty); copy into an empty one"
    )]
    NotEmpty(String),
    /// A row is there and is another.
    #[error(
        "{rows} of the rows of {table} are not the same in both databases; nothing of them was changed. Has \
         something worked with one of them since? Copy into an empty database"
    )]
    Differs {
        /// Their table.
        table: String,
        /// How many.
        rows: i64,
    },
    /// One of the databases could not do it.
    #[error(transparent)]
    Store(#[from] StoreError),
}

impl From<diesel::result::Error> for CopyError {
    fn from(error: diesel::result::Error) -> Self {
        Self::Store(error.into())
    }
}

/// A value of one column.
#[derive(QueryableByName)]
struct One {
    #[diesel(sql_type = BigInt)]
    value: i64,
}

#[derive(QueryableByName)]
struct Named {
    #[diesel(sql_type = Text)]
    name: String,
}

#[derive(QueryableByName)]
struct Column {
    #[diesel(sql_type = Text)]
    name: String,
    #[diesel(sql_type = BigInt)]
    pk: i64,
}

/// Some rows of a table, as a list in JSON, and the number of the last one.
#[derive(QueryableByName)]
struct Rows {
    #[diesel(sql_type = Nullable<Text>)]
    rows: Option<String>,
    #[diesel(sql_type = Nullable<BigInt>)]
    last: Option<i64>,
}

#[derive(QueryableByName)]
struct Note {
    #[diesel(sql_type = Bool)]
    has_ended: bool,
}

#[derive(QueryableByName)]
struct Schema {
    #[diesel(sql_type = Bool)]
    is_there: bool,
}

/// A table of the file.
struct Table {
    name: String,
    columns: Vec<String>,
    key: Vec<String>,
}

/// Copies the store at `from` into the empty database at `to`, or goes on with a copy that was broken off.
pub fn copy(from: &str, to: &str) -> Result<Vec<Copied>, CopyError> {
    let (DatabaseUrl::Sqlite(file), DatabaseUrl::Postgres) = (database_of(from)?, database_of(to)?)
    else {
        return Err(CopyError::Direction);
    };
    if !std::path::Path::new(file).exists() {
        let reason = "no broker has kept anything at --from".to_owned();
        return Err(StoreError::Address(reason).into());
    }
    // Held until the copy ends.
    let _lock = lock_beside(file)?;
    let mut source = connect(file, false)?;
    if !migrations::pending(&mut Link::Sqlite(&mut source))?.is_empty() {
        return Err(CopyError::Old);
    }
    let mut target = PgConnection::establish(&complete(to)).map_err(connection_error)?;
    // A store that somebody works with is not brought forward by the way.
    let schema: Schema =
        sql_query("SELECT to_regclass('__diesel_schema_migrations') IS NOT NULL AS is_there")
            .get_result(&mut target)?;
    if schema.is_there && !super::Store::pending_migrations(to)?.is_empty() {
        return Err(CopyError::OldTarget);
    }
    drop(migrated_postgres(to.into())?);
    target.batch_execute(&format!(
        "SET idle_in_transaction_session_timeout = {}",
        POSTGRES_IDLE_IN_TRANSACTION.as_millis()
    ))?;
    let tables = tables(&mut source)?;
    let writes = begin(&mut target, &tables)?;
    let mut copied = Vec::with_capacity(tables.len());
    for table in &tables {
        let writes = writes && !FILLED_BY_TRIGGERS.contains(&table.name.as_str());
        let rows = copy_table(&mut source, &mut target, table, writes)?;
        copied.push(Copied {
            table: table.name.clone(),
            rows,
        });
    }
    set_numbers(&mut target)?;
    let end = |direction, now| {
        format!(
            "INSERT INTO copies (direction, begun_at, ended_at) VALUES ('{direction}', {now}, {now}) \
             ON CONFLICT (direction) DO UPDATE SET ended_at = excluded.ended_at"
        )
    };
    target.batch_execute(&end("in", NOW_IN_TARGET))?;
    source.batch_execute(&end("out", "CURRENT_TIMESTAMP"))?;
    Ok(copied)
}

/// Refuses a database that no broker may use: a copy into it has not ended, or it was copied elsewhere.
pub(super) fn refuse_unfit(link: &mut Link<'_>) -> Result<(), StoreError> {
    let note = |direction: &str| {
        sql_query(format!(
            "SELECT ended_at IS NOT NULL AS has_ended FROM copies WHERE direction = '{direction}'"
        ))
    };
    match link {
        Link::Sqlite(connection) => {
            let out: Option<Note> = note("out").get_result(*connection).optional()?;
            out.map_or(Ok(()), |_| Err(StoreError::Moved))
        }
        Link::Postgres(connection) => {
            let copied: Option<Note> = note("in").get_result(*connection).optional()?;
            match copied {
                Some(Note { has_ended: false }) => Err(StoreError::Unfinished),
                _ => Ok(()),
            }
        }
    }
}

/// All tables of the file, those that triggers fill at the end.
fn tables(source: &mut SqliteConnection) -> Result<Vec<Table>, CopyError> {
    let names: Vec<Named> = sql_query(
        "SELECT name FROM sqlite_master WHERE type = 'table' AND name NOT LIKE 'sqlite\\_%' ESCAPE '\\'
         ORDER BY name",
    )
    .load(source)?;
    let names = names.into_iter().map(|table| table.name);
    let mut tables = Vec::new();
    for name in names.filter(|name| !ITS_OWN.contains(&name.as_str())) {
        let columns: Vec<Column> =
            sql_query("SELECT name, pk FROM pragma_table_info($1) ORDER BY cid")
                .bind::<Text, _>(&name)
                .load(source)?;
        let mut key: Vec<&Column> = columns.iter().filter(|column| column.pk > 0).collect();
        key.sort_by_key(|column| column.pk);
        tables.push(Table {
            key: key.iter().map(|column| column.name.clone()).collect(),
            columns: columns.into_iter().map(|column| column.name).collect(),
            name,
        });
    }
    tables.sort_by_key(|table| FILLED_BY_TRIGGERS.contains(&table.name.as_str()));
    Ok(tables)
}

/// Notes in the target that a copy has begun. Returns whether rows are written: where an earlier copy has
/// ended, they are compared alone.
fn begin(target: &mut PgConnection, tables: &[Table]) -> Result<bool, CopyError> {
    let earlier: Option<Note> =
        sql_query("SELECT ended_at IS NOT NULL AS has_ended FROM copies WHERE direction = 'in'")
            .get_result(target)
            .optional()?;
    if let Some(Note { has_ended }) = earlier {
        return Ok(!has_ended);
    }
    target.transaction(|target| {
        for table in tables {
            let any: One = sql_query(format!(
                "SELECT count(*) AS value FROM (SELECT 1 FROM {} LIMIT 1) AS first",
                table.name
            ))
            .get_result(target)?;
            if any.value > 0 {
                return Err(CopyError::NotEmpty(table.name.clone()));
            }
        }
        Ok(target.batch_execute(&format!(
            "INSERT INTO copies (direction, begun_at) VALUES ('in', {NOW_IN_TARGET})"
        ))?)
    })?;
    Ok(true)
}

/// Copies the rows of a table, and compares them; returns how many there are.
fn copy_table(
    source: &mut SqliteConnection,
    target: &mut PgConnection,
    table: &Table,
    writes: bool,
) -> Result<i64, CopyError> {
    let Table { name, columns, key } = table;
    let members: Vec<String> = columns.iter().map(|c| format!("'{c}', \"{c}\"")).collect();
    let read = format!(
        "SELECT json_group_array(json_object({})) AS rows, max(row_here) AS last FROM
         (SELECT rowid AS row_here, * FROM {name} WHERE rowid > $1 ORDER BY rowid LIMIT {ROWS_AT_ONCE})",
        members.join(", ")
    );
    let came = format!("json_populate_recordset(NULL::{name}, $1::json)");
    let write = format!(
        "INSERT INTO {name} OVERRIDING SYSTEM VALUE SELECT * FROM {came} ON CONFLICT DO NOTHING"
    );
    let same: Vec<String> = key
        .iter()
        .map(|column| format!("here.\"{column}\" = came.\"{column}\""))
        .collect();
    let compare = format!(
        "SELECT count(*) AS value FROM {came} AS came LEFT JOIN {name} AS here ON {}
         WHERE here IS DISTINCT FROM came",
        same.join(" AND ")
    );
    let differ = |rows| CopyError::Differs {
        table: name.clone(),
        rows,
    };
    let mut after = i64::MIN;
    loop {
        let page: Rows = sql_query(&read)
            .bind::<BigInt, _>(after)
            .get_result(source)?;
        let (Some(rows), Some(last)) = (page.rows, page.last) else {
            break;
        };
        target.transaction(|target| {
            if writes {
                sql_query(&write).bind::<Text, _>(&rows).execute(target)?;
            }
            let differing: One = sql_query(&compare)
                .bind::<Text, _>(&rows)
                .get_result(target)?;
            match differing.value {
                0 => Ok(()),
                rows => Err(differ(rows)),
            }
        })?;
        after = last;
    }
    let counted = format!("SELECT count(*) AS value FROM {name}");
    let there: One = sql_query(&counted).get_result(source)?;
    let here: One = sql_query(&counted).get_result(target)?;
    match here.value - there.value {
        0 => Ok(there.value),
        more => Err(differ(more.abs())),
    }
}

/// Has the server number new rows after those that came.
fn set_numbers(target: &mut PgConnection) -> Result<(), CopyError> {
    let numbered: Vec<Numbered> = sql_query(
        "SELECT table_name::text, column_name::text FROM information_schema.columns
         WHERE table_schema = current_schema()
           AND (is_identity = 'YES' OR column_default LIKE 'nextval(%')",
    )
    .load(target)?;
    for Numbered {
        table_name: table,
        column_name: column,
    } in numbered
    {
        target.batch_execute(&format!(
            "SELECT setval(pg_get_serial_sequence('{table}', '{column}'), max(\"{column}\")) FROM {table}"
        ))?;
    }
    Ok(())
}

#[derive(QueryableByName)]
struct Numbered {
    #[diesel(sql_type = Text)]
    table_name: String,
    #[diesel(sql_type = Text)]
    column_name: String,
}
