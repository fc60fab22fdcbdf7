//! How far a column is re-masked, in the table `remask_progress`.

use pgrx::pg_sys;

use super::column::Column;
use crate::error::Error;
use crate::pg::catalog::{Relation, with_unchanged};
use crate::pg::plan::{Bound, Plan};
use crate::pg::transaction::commit;
use crate::pg::values::text;

/// Progress within one column.
pub(super) struct At {
    pub(super) pass: i32,
    pub(super) blocks_done: u64,
    pub(super) blocks_total: u64,
    pub(super) remasked: u64,
}

/// The table `remask_progress`. Each write to it is committed at once, together with the preceding batch.
pub(super) struct Progress {
    table: pg_sys::Oid,
    read: Plan,
    forget: Plan,
    begin: Plan,
    note: Plan,
    finish: Plan,
}

impl Progress {
    pub(super) fn new(schema: pg_sys::Oid) -> Result<Self, Error> {
        const BIGINT: pg_sys::Oid = pg_sys::INT8OID;
        #[expect(unsafe_code, reason = "calls Postgres")]
        // SAFETY: a C string and an OID.
        let table = unsafe { pg_sys::get_relname_relid(c"remask_progress".as_ptr(), schema) };
        let name = Relation::open(table)?.name;
        let of_column = "p.relation = $1 AND p.column_name = $2";
        let prepare = |sql: String, more: &[pg_sys::Oid]| {
            let types = [&[pg_sys::OIDOID, pg_sys::TEXTOID], more].concat();
            Plan::prepare(&Bound::to(table), &sql, &types)
        };
        Ok(Self {
            table,
            read: prepare(
                format!(
                    "SELECT p.blocks_done, p.remasked FROM {name} p
                     WHERE {of_column} AND p.key = $3 AND p.pass = 1 AND p.finished_at IS NULL"
                ),
                &[pg_sys::TEXTOID],
            )?,
            forget: prepare(format!("DELETE FROM {name} p WHERE {of_column}"), &[])?,
            begin: prepare(
                format!(
                    "INSERT INTO {name} VALUES
                     ($1, $2, $3, 1, 0, 0, 0, pg_catalog.now(), pg_catalog.now(), NULL)"
                ),
                &[pg_sys::TEXTOID],
            )?,
            note: prepare(
                format!(
                    "UPDATE {name} p SET pass = $3, blocks_done = $4, blocks_total = $5, remasked = $6,
                        updated_at = pg_catalog.clock_timestamp() WHERE {of_column}"
                ),
                &[pg_sys::INT4OID, BIGINT, BIGINT, BIGINT],
            )?,
            finish: prepare(
                format!("UPDATE {name} p SET finished_at = pg_catalog.clock_timestamp() WHERE {of_column}"),
                &[],
            )?,
        })
    }

    /// Locks the table until the end of the transaction, and fails if it has a trigger. That would run with the rights of the
    /// caller, perhaps of a superuser.
    fn lock(&self) -> Result<(), Error> {
        #[expect(unsafe_code, reason = "reads Postgres's structs")]
        // SAFETY: the relation is open.
        let has_triggers =
            with_unchanged(self.table, &[], |relation| unsafe { !(*relation).trigdesc.is_null() })?;
        if has_triggers { Err(Error::ProgressHasTriggers) } else { Ok(()) }
    }

    /// Returns where to begin. An interrupted first pass resumes where it stopped, because the last pass looks at every
    /// block anyway.
    pub(super) fn begin(&self, column: &Column, key: &str) -> Result<At, Error> {
        self.lock()?;
        let mut at = None;
        let number = |datum: Option<pg_sys::Datum>| datum.map_or(0, |datum| datum.value() as u64);
        self.read.run(&with_key(column, key), false, |row| {
            let (blocks_done, remasked) = (number(row.datum(1)), number(row.datum(2)));
            at = Some(At { pass: 1, blocks_done, blocks_total: 0, remasked });
            Ok(())
        })?;
        if let Some(at) = at {
            return Ok(at);
        }
        self.forget.execute(&known(column))?;
        self.begin.execute(&with_key(column, key))?;
        commit();
        Ok(At { pass: 1, blocks_done: 0, blocks_total: 0, remasked: 0 })
    }

    pub(super) fn note(&self, column: &Column, at: &At) -> Result<(), Error> {
        self.lock()?;
        let numbers =
            [at.blocks_done, at.blocks_total, at.remasked].map(|number| number.cast_signed().into());
        self.note.execute(&[&known(column)[..], &[at.pass.into()], &numbers].concat())?;
        commit();
        Ok(())
    }

    pub(super) fn finish(&self, column: &Column) -> Result<(), Error> {
        self.lock()?;
        self.finish.execute(&known(column))?;
        commit();
        Ok(())
    }
}

/// Returns the arguments that identify a column.
fn known(column: &Column) -> [pg_sys::Datum; 2] {
    [column.table.into(), text(column.attribute.name.as_bytes())]
}

fn with_key(column: &Column, key: &str) -> [pg_sys::Datum; 3] {
    let [table, name] = known(column);
    [table, name, text(key.as_bytes())]
}
