//! A column of a table, and the statements that re-mask it.

use std::ffi::CStr;

use pgrx::memcxt::PgMemoryContexts;
use pgrx::pg_sys;
use pgrx::pg_sys::panic::{CaughtError, ErrorReport};

use super::tid::{datum, row_of};
use crate::error::{Error, raise, sqlstate};
use crate::pg::catalog::{Attribute, Relation, with_unchanged};
use crate::pg::names::{name_of_role, name_of_schema, quoted};
use crate::pg::plan::{Bound, Plan};
use crate::pg::security::{
    as_owner, current_role, function, has_policies, is_superuser, make_constraints_immediate, may_call,
};
use crate::pg::settings::with_settings;
use crate::pg::subtransaction::{SubtransactionError, in_subtransaction};
use crate::pg::values::text;

/// Makes Postgres find rows by their TIDs. Otherwise it could take a batch for a large part of the table.
const BY_PLACE: [(&CStr, &CStr); 2] = [(c"enable_seqscan", c"off"), (c"enable_tidscan", c"on")];

/// A column of a table, to re-mask.
pub(super) struct Column {
    pub(super) table: pg_sys::Oid,
    pub(super) attribute: Attribute,
    functions: Functions,
}

/// The extension's functions that a statement calls.
#[derive(Clone)]
pub(super) struct Functions {
    /// The functions' names, schema-qualified and quoted as SQL needs it.
    remask: String,
    key: String,
    oids: Vec<pg_sys::Oid>,
    schema: pg_sys::Oid,
}

impl Functions {
    pub(super) fn of(schema: pg_sys::Oid) -> Result<Self, Error> {
        let name = quoted(&[name_of_schema(schema)?]);
        let oid = |name| function(schema, name, &[pg_sys::TEXTOID]);
        Ok(Self {
            remask: format!("{name}.remask_pii"),
            key: format!("{name}.mask_key"),
            oids: vec![oid(c"remask_pii"), oid(c"mask_key")],
            schema,
        })
    }
}

/// Parts of a statement on a column, quoted as SQL needs it.
struct Names {
    table: String,
    column: String,
    /// The expression for the new mask.
    masked: String,
    /// The condition that the mask's key isn't the one in the first parameter.
    other: String,
}

impl Column {
    pub(super) fn open(table: pg_sys::Oid, name: &str, functions: &Functions) -> Result<Self, Error> {
        let relation = Relation::open(table)?;
        let columns = relation.attributes()?;
        let listed = || columns.iter().map(|column| column.name.clone()).collect();
        let attribute = columns.iter().find(|column| column.name == name).ok_or_else(|| {
            Error::UnknownColumn { column: name.to_owned(), target: relation.name.clone(), columns: listed() }
        })?;
        if !attribute.is_text() {
            return Err(Error::NotAText { column: name.to_owned() });
        }
        Ok(Self { table, attribute: attribute.clone(), functions: functions.clone() })
    }

    /// Returns the table's current name, schema-qualified and quoted as SQL needs it.
    pub(super) fn name(&self) -> Result<String, Error> {
        Ok(Relation::open(self.table)?.name)
    }

    /// Locks the table until the end of the transaction. Then runs `act`, which sees all of the table's rows.
    ///
    /// A superuser's call runs with the rights of the table's owner: else the table's triggers, and the functions in its
    /// indexes and constraints, would run as a superuser. Any other call keeps the caller's rights. But it is restricted too,
    /// since a trigger could `RESET ROLE` to those of the role that logged in.
    fn locked<R>(&self, act: impl FnOnce(pg_sys::Relation) -> Result<R, Error>) -> Result<R, Error> {
        with_unchanged(self.table, std::slice::from_ref(&self.attribute), |relation| {
            // A deferred trigger would run at COMMIT, under the caller's search path.
            make_constraints_immediate();
            let act = || {
                if has_policies(self.table) {
                    return Err(Error::HiddenRows { relation: self.name()? });
                }
                act(relation)
            };
            if !is_superuser() {
                return as_owner(current_role(), act);
            }
            #[expect(unsafe_code, reason = "reads Postgres's structs")]
            // SAFETY: an open relation has its row of pg_class.
            let owner = unsafe { (*(*relation).rd_rel).relowner };
            if !may_call(owner, self.functions.schema, c"remask_pii", &[pg_sys::TEXTOID]) {
                return Err(Error::OwnerMayNotRemask { relation: self.name()?, owner: name_of_role(owner) });
            }
            as_owner(owner, act)
        })?
    }

    /// Returns the number of the table's blocks.
    pub(super) fn blocks(&self) -> Result<u64, Error> {
        self.locked(|relation| {
            #[expect(unsafe_code, reason = "calls Postgres")]
            // SAFETY: the relation is open.
            let blocks = unsafe {
                pg_sys::RelationGetNumberOfBlocksInFork(relation, pg_sys::ForkNumber::MAIN_FORKNUM)
            };
            Ok(blocks.into())
        })
    }

    /// Prepares a statement on this column.
    fn prepare(&self, sql: impl FnOnce(&Names) -> String, more: &[pg_sys::Oid]) -> Result<Plan, Error> {
        let column = quoted(&[&self.attribute.name]);
        let Functions { remask, key, oids, .. } = &self.functions;
        let names = Names {
            table: self.name()?,
            masked: format!("{remask}({column}::pg_catalog.text)"),
            // Whatever the column's collation, this finds two ids equal only if they are identical.
            other: format!(
                "{column} IS NOT NULL AND ({key}({column}::pg_catalog.text) = \
                 $1::pg_catalog.text COLLATE pg_catalog.\"C\") IS NOT TRUE"
            ),
            column,
        };
        let bound = Bound { relations: vec![self.table], functions: oids.clone() };
        Plan::prepare(&bound, &sql(&names), &[&[pg_sys::TEXTOID], more].concat())
    }

    /// Replaces the masks of other keys between two TIDs. Returns the number of rows replaced.
    pub(super) fn batch(&self, key: &str, places: [pg_sys::ItemPointerData; 2]) -> Result<u64, Error> {
        self.locked(|_| {
            let update = self.prepare(
                |Names { table, column, masked, other }| {
                    format!("UPDATE ONLY {table} SET {column} = {masked} WHERE ctid >= $2 AND ctid < $3 AND {other}")
                },
                &[pg_sys::TIDOID; 2],
            )?;
            let mut memory = PgMemoryContexts::new("pg_mask remask");
            let key = text(key.as_bytes());
            let [first, end] = places.each_ref().map(datum);
            let updated = in_subtransaction(&mut memory, || {
                with_settings(&BY_PLACE, || update.run(&[key, first, end], false, |_| Ok(())))
            });
            match updated {
                Ok(rows) => Ok(rows),
                Err(failure) if is_of_a_row(&failure.error) => {
                    self.raise_of_row(failure, [key, first, end], &mut memory)
                }
                Err(failure) => failure.raise(),
            }
        })
    }

    /// Raises a batch's error with the row that caused it. Only the extension's own words stay: a trigger's, or a type's, can
    /// quote a value.
    fn raise_of_row(
        &self,
        batch: SubtransactionError,
        arguments: [pg_sys::Datum; 3],
        memory: &mut PgMemoryContexts,
    ) -> Result<u64, Error> {
        let rows = self.prepare(
            |Names { table, other, .. }| {
                format!("SELECT ctid FROM ONLY {table} WHERE ctid >= $2 AND ctid < $3 AND {other}")
            },
            &[pg_sys::TIDOID; 2],
        )?;
        let one = self.prepare(
            |Names { table, column, masked, other }| {
                format!("UPDATE ONLY {table} SET {column} = {masked} WHERE ctid = $2 AND {other}")
            },
            &[pg_sys::TIDOID],
        )?;
        let name = self.name()?;
        rows.run(&arguments, false, |row| {
            let Some(place) = row.datum(1) else { return Ok(()) };
            let tried = in_subtransaction(memory, || one.run(&[arguments[0], place], false, |_| Ok(())));
            if let Err(failure) = tried {
                #[expect(unsafe_code, reason = "reads a value of a row")]
                // SAFETY: the statement returns a tid, which lives as long as the row.
                let place = unsafe { *place.cast_mut_ptr::<pg_sys::ItemPointerData>() };
                let is_own = failure.report().function_name() == Some("pg_mask");
                let words = if is_own { failure.message().to_owned() } else { failure.condition() };
                let message = format!("{}: {words}", row_of(place, &name));
                let mut found = ErrorReport::new(failure.report().sql_error_code(), message, "pg_mask");
                if let Some(hint) = failure.report().hint().filter(|_| is_own) {
                    found = found.set_hint(hint.to_owned());
                }
                raise(found);
            }
            Ok(())
        })?;
        batch.raise()
    }

    /// Whether any row of the table has a mask of another key.
    pub(super) fn any_left(&self, key: &str) -> Result<bool, Error> {
        self.any_left_in("ONLY ", key)
    }

    /// Whether any row of the table or its partitions has a mask of another key.
    pub(super) fn any_left_in_tree(&self, key: &str) -> Result<bool, Error> {
        self.any_left_in("", key)
    }

    fn any_left_in(&self, only: &str, key: &str) -> Result<bool, Error> {
        self.locked(|_| {
            let left = self.prepare(
                |Names { table, other, .. }| {
                    format!("SELECT pg_catalog.count(*) FROM (SELECT FROM {only}{table} WHERE {other} LIMIT 1) AS others")
                },
                &[],
            )?;
            let left = with_settings(&[], || left.execute(&[text(key.as_bytes())]))?;
            Ok(left.first > 0)
        })
    }
}

/// Whether an error is caused by a row: its value isn't a mask, cannot be unmasked, or its new mask does not fit.
fn is_of_a_row(error: &CaughtError) -> bool {
    match error {
        CaughtError::PostgresError(report) | CaughtError::ErrorReport(report) => {
            let state = sqlstate(report.sql_error_code() as i32);
            ["22", "23", "39"].iter().any(|class| state.starts_with(class)) || state == "42704"
        }
        CaughtError::RustPanic { .. } => false,
    }
}
