//! Writes rows to a relation, set by set, and finds which were already there.
//!
//! The rows travel as one array of the relation's own row type. The columns' types have already read its values. So the
//! statement has no cast, and no name but those of the relation and its columns.

use std::cell::Cell;
use std::collections::HashSet;
use std::ops::Range;

use masking::{Kind, Rows};
use pgrx::pg_sys;

use crate::error::Error;
use crate::pg::arrays::{array, array_of_rows};
use crate::pg::catalog::{Attribute, Conflict, Relation, with_unchanged};
use crate::pg::log::quietly;
use crate::pg::names::quoted;
use crate::pg::plan::{Bound, Plan};
use crate::pg::values::Reader;
use crate::store::key::Key;

/// Writes rows into one relation, set by set.
pub(crate) struct Writer {
    oid: pg_sys::Oid,
    relation: String,
    columns: Vec<Attribute>,
    kinds: Vec<Kind>,
    insert: Plan,
    /// An insert without ON CONFLICT, which raises the error of a conflict that `insert` skips. Only set if `insert` skips
    /// conflicts on any index.
    insert_alone: Option<Plan>,
    /// None if no column identifies a row.
    duplicates: Option<DuplicateLookup>,
}

thread_local! {
    /// The column whose value is being read from a row.
    static READING: Cell<Option<usize>> = const { Cell::new(None) };
}

/// Returns the column whose type refused its value in the last insert. Returns none if that insert failed in another way.
pub(crate) fn refusing_column() -> Option<usize> {
    READING.take()
}

/// Keeps the column that an outer insert is reading, until this is dropped. A type or a trigger of one inbox can insert into
/// another.
pub(crate) struct OuterColumn(Option<usize>);

impl OuterColumn {
    pub(crate) fn keep() -> Self {
        Self(READING.take())
    }
}

impl Drop for OuterColumn {
    fn drop(&mut self) {
        READING.set(self.0);
    }
}

/// The columns that identify a row, and the statements that look their values up.
struct DuplicateLookup {
    key: Key,
    /// Counts the keys that are not in the relation.
    missing: Plan,
    /// Returns the positions (from 1) of the keys that are in the relation.
    present: Plan,
}

impl Writer {
    /// Returns a writer for `columns` of a relation. `kinds` are the forms of their values.
    pub(crate) fn new(
        relation: &Relation,
        columns: Vec<Attribute>,
        kinds: Vec<Kind>,
        conflict: &Conflict,
    ) -> Result<Self, Error> {
        let duplicates = match Key::new(conflict.key(), &kinds) {
            Some(key) => {
                let lookup = key.lookup(&columns, &kinds);
                let prepare = |sql: &str| Plan::prepare(&Bound::to(relation.oid), sql, &lookup.types);
                Some(DuplicateLookup {
                    missing: prepare(&lookup.count_missing(&relation.name))?,
                    present: prepare(&lookup.present(&relation.name))?,
                    key,
                })
            }
            None => None,
        };
        let insert_alone = match conflict {
            Conflict::Any(_) => Some(insert(relation, &columns, &Conflict::Error)?),
            Conflict::Error | Conflict::On(_) => None,
        };
        Ok(Self {
            oid: relation.oid,
            relation: relation.name.clone(),
            insert: insert(relation, &columns, conflict)?,
            insert_alone,
            columns,
            kinds,
            duplicates,
        })
    }

    /// Returns the relation's name, schema-qualified and quoted as SQL needs it.
    pub(crate) fn relation(&self) -> &str {
        &self.relation
    }

    /// Inserts the rows in `range` and returns how many were new; the others are duplicates.
    ///
    /// Rows go in by the order of their keys, which COPY uses too. Otherwise sessions could wait for each other's rows, and
    /// deadlock.
    pub(crate) fn insert(&self, rows: &Rows, range: Range<usize>) -> Result<usize, Error> {
        let Some(duplicates) = &self.duplicates else {
            return self.insert_unkeyed(rows, &range.collect::<Vec<_>>());
        };
        let (keyed, others) = duplicates.key.sorted(rows, range);
        let keyed: Vec<usize> = keyed.iter().map(|keyed| keyed.row).collect();
        Ok(self.insert_keyed(duplicates, rows, &keyed)? + self.insert_unkeyed(rows, &others)?)
    }

    /// Inserts rows that have a complete key.
    fn insert_keyed(
        &self,
        duplicates: &DuplicateLookup,
        rows: &Rows,
        order: &[usize],
    ) -> Result<usize, Error> {
        if order.is_empty() {
            return Ok(0);
        }
        let values = self.values(rows, order)?;
        let count = |new: u64| usize::try_from(new).unwrap_or(usize::MAX).min(order.len());
        let missing =
            || Ok::<_, Error>(duplicates.missing.execute(&self.keys(duplicates, rows, order))?.first);
        let mut new = 0;
        // Only a look-up tells whether a row was already there, or was swallowed by a trigger or rule. A row that was there
        // may have been deleted before the look-up. Then the next attempt inserts it.
        for _ in 0..3 {
            new += self.insert.execute(&[values])?.rows;
            if new >= order.len() as u64 || missing()? == 0 {
                return Ok(count(new));
            }
        }
        if order.len() == 1
            && let Some(insert) = &self.insert_alone
        {
            new += insert.execute(&[values])?.rows;
        }
        match missing()? {
            0 => Ok(count(new)),
            missing => Err(Error::RowsSwallowed { relation: self.relation.clone(), missing }),
        }
    }

    /// Inserts rows that conflict with none, and so must go in.
    fn insert_unkeyed(&self, rows: &Rows, order: &[usize]) -> Result<usize, Error> {
        if order.is_empty() {
            return Ok(0);
        }
        let new = self.insert.execute(&[self.values(rows, order)?])?.rows;
        let missing = (order.len() as u64).saturating_sub(new);
        if missing > 0 {
            return Err(Error::RowsSwallowed { relation: self.relation.clone(), missing });
        }
        Ok(order.len())
    }

    /// Returns which of these rows have a key that the relation already has.
    pub(crate) fn present(&self, rows: &Rows, numbers: &[usize]) -> Result<HashSet<usize>, Error> {
        let Some(duplicates) = &self.duplicates else { return Ok(HashSet::new()) };
        let keyed: Vec<usize> =
            numbers.iter().copied().filter(|&row| duplicates.key.is_whole(rows, row)).collect();
        if keyed.is_empty() {
            return Ok(HashSet::new());
        }
        let places = duplicates.present.numbers(&self.keys(duplicates, rows, &keyed))?;
        let row_at = |place: u64| keyed.get(usize::try_from(place).ok()?.checked_sub(1)?).copied();
        Ok(places.into_iter().filter_map(row_at).collect())
    }

    /// Runs an insert without rows, so that missing privileges show when an inbox is attached.
    pub(crate) fn probe(&self) -> Result<(), Error> {
        let none = Rows::new(self.kinds.len());
        self.insert.execute(&[self.values(&none, &[])?])?;
        if let Some(duplicates) = &self.duplicates {
            duplicates.missing.execute(&self.keys(duplicates, &none, &[]))?;
        }
        Ok(())
    }

    /// Returns these rows, in this order, as an array of the relation's row type.
    fn values(&self, rows: &Rows, order: &[usize]) -> Result<pg_sys::Datum, Error> {
        let mut readers: Vec<Reader> =
            self.columns.iter().zip(&self.kinds).map(|(column, kind)| Reader::of(column, *kind)).collect();
        let mut nulls_checked = vec![false; self.columns.len()];
        let parses = readers.iter().any(Reader::parses);
        let values = |row: &usize, set: &mut dyn FnMut(i16, pg_sys::Datum)| {
            let columns = self.columns.iter().zip(&mut readers).zip(&mut nulls_checked).enumerate();
            for ((index, ((column, reader), null_checked)), field) in columns.zip(rows.fields(*row)) {
                READING.set(Some(index));
                match field {
                    Some(field) => set(column.number, reader.read(field)),
                    // Checked once for each set of rows: a domain treats all NULLs alike.
                    None if *null_checked => {}
                    None => {
                        Reader::check_null(column);
                        *null_checked = true;
                    }
                }
            }
        };
        READING.set(None);
        let read =
            || with_unchanged(self.oid, &self.columns, |relation| array_of_rows(relation, order, values));
        let array = if parses { quietly(read) } else { read() }?;
        READING.set(None);
        Ok(array)
    }

    fn keys(&self, duplicates: &DuplicateLookup, rows: &Rows, order: &[usize]) -> Vec<pg_sys::Datum> {
        let column = |column| array(self.kinds[column], order.iter().map(|&row| rows.field(row, column)));
        duplicates.key.columns().map(column).collect()
    }
}

fn insert(relation: &Relation, columns: &[Attribute], conflict: &Conflict) -> Result<Plan, Error> {
    let names: Vec<&str> = columns.iter().map(|column| column.name.as_str()).collect();
    let values: Vec<String> = names.iter().map(|name| format!("v.{}", quoted(&[name]))).collect();
    let on_conflict = match conflict {
        Conflict::Error => String::new(),
        Conflict::On(key) => {
            let key: Vec<&str> = key.iter().map(|&column| names[column]).collect();
            format!(" ON CONFLICT ({}) DO NOTHING", quoted(&key))
        }
        Conflict::Any(_) => " ON CONFLICT DO NOTHING".into(),
    };
    let sql = format!(
        "INSERT INTO {} ({}) SELECT {} FROM pg_catalog.unnest($1) AS v{on_conflict}",
        relation.name,
        quoted(&names),
        values.join(", "),
    );
    // A plan for these values would hold them, and auto_explain would log it.
    Plan::prepare_generic(&Bound::to(relation.oid), &sql, &[relation.array_type()])
}
