//! Writing rows into a relation, set by set, and knowing which were there already.
//!
//! The rows travel as one array of the relation's own row type, whose values the columns' types have read before. So the
//! statement has no cast, and no name but those of the relation and its columns.

use std::cell::Cell;
use std::collections::HashSet;
use std::ops::Range;

use masking::{Kind, Rows};
use pgrx::pg_sys;

use crate::arrays::{array, array_of_rows};
use crate::catalog::{Attribute, Relation, with_unchanged};
use crate::error::{Error, quoted};
use crate::key::Key;
use crate::plan::{Bound, Plan};
use crate::values::Reader;

/// What an insert does with a row that is there already. The numbers are those of the columns by which it is known.
pub(crate) enum Conflict {
    /// It is an error: nothing says that two rows are the same message.
    Error,
    /// It is a duplicate by the unique index on these columns; a conflict on any other index is an error.
    On(Vec<usize>),
    /// It is a duplicate by whatever index stands behind a foreign table or view.
    Any(Vec<usize>),
}

impl Conflict {
    pub(crate) fn key(&self) -> &[usize] {
        match self {
            Self::Error => &[],
            Self::On(key) | Self::Any(key) => key,
        }
    }
}

/// Writes rows into one relation, set by set.
pub(crate) struct Writer {
    oid: pg_sys::Oid,
    relation: String,
    columns: Vec<Attribute>,
    kinds: Vec<Kind>,
    insert: Plan,
    /// Raises the error of a conflict that `insert` passes over, where it passes over those of any index.
    insert_alone: Option<Plan>,
    /// None where no column tells rows apart.
    known: Option<Known>,
}

thread_local! {
    /// The column whose value is being read from a row.
    static READING: Cell<Option<usize>> = const { Cell::new(None) };
}

/// Returns the column whose type refused its value in the last insert; none if that failed in another way.
pub(crate) fn refusing_column() -> Option<usize> {
    READING.take()
}

/// The key of a row, and the statement that looks it up.
struct Known {
    key: Key,
    /// Counts the keys that are not there.
    missing: Plan,
    /// Numbers the keys that are there.
    present: Plan,
}

impl Writer {
    /// Returns a writer of `columns` of a relation, whose values travel as `kinds`.
    pub(crate) fn new(
        relation: &Relation,
        columns: Vec<Attribute>,
        kinds: Vec<Kind>,
        conflict: &Conflict,
    ) -> Result<Self, Error> {
        let known = match Key::new(conflict.key(), &kinds) {
            Some(key) => {
                let lookup = key.lookup(&columns, &kinds);
                let prepare = |sql: &str| Plan::prepare(&Bound::to(relation.oid), sql, &lookup.types);
                Some(Known {
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
            known,
        })
    }

    /// The relation, schema-qualified and quoted as SQL needs it.
    pub(crate) fn relation(&self) -> &str {
        &self.relation
    }

    /// Inserts the rows in `range` and returns how many were new; the others were there already.
    ///
    /// They go in by the order of their keys, which is that of COPY too: sessions that wait for each other's rows
    /// crosswise would deadlock.
    pub(crate) fn insert(&self, rows: &Rows, range: Range<usize>) -> Result<usize, Error> {
        let Some(known) = &self.known else { return self.insert_unknown(rows, &range.collect::<Vec<_>>()) };
        let (keyed, others) = known.key.sorted(rows, range);
        let keyed: Vec<usize> = keyed.iter().map(|keyed| keyed.row).collect();
        Ok(self.insert_known(known, rows, &keyed)? + self.insert_unknown(rows, &others)?)
    }

    /// Inserts rows that have all by which they are known.
    fn insert_known(&self, known: &Known, rows: &Rows, order: &[usize]) -> Result<usize, Error> {
        if order.is_empty() {
            return Ok(0);
        }
        let values = self.values(rows, order)?;
        let keys = self.keys(known, rows, order);
        let mut new = 0;
        // Whether a row was left out for being there already, or swallowed by a trigger or rule, only looking tells.
        // One that was there may have been deleted before the look: then it goes in the next time.
        for _ in 0..3 {
            new += self.insert.execute(&[values])?.rows;
            if new >= order.len() as u64 || known.missing.execute(&keys)?.first == 0 {
                return Ok(usize::try_from(new).unwrap_or(usize::MAX).min(order.len()));
            }
        }
        if order.len() == 1
            && let Some(insert) = &self.insert_alone
        {
            new += insert.execute(&[values])?.rows;
        }
        match known.missing.execute(&keys)?.first {
            0 => Ok(usize::try_from(new).unwrap_or(usize::MAX).min(order.len())),
            missing => Err(Error::RowsSwallowed { relation: self.relation.clone(), missing }),
        }
    }

    /// Inserts rows that are in conflict with none, and must go in.
    fn insert_unknown(&self, rows: &Rows, order: &[usize]) -> Result<usize, Error> {
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

    /// Returns those of these rows whose key the relation has.
    pub(crate) fn present(&self, rows: &Rows, numbers: &[usize]) -> Result<HashSet<usize>, Error> {
        let Some(known) = &self.known else { return Ok(HashSet::new()) };
        let keyed: Vec<usize> =
            numbers.iter().copied().filter(|&row| known.key.is_whole(rows, row)).collect();
        if keyed.is_empty() {
            return Ok(HashSet::new());
        }
        let places = known.present.numbers(&self.keys(known, rows, &keyed))?;
        let row_at = |place: u64| keyed.get(usize::try_from(place).ok()?.checked_sub(1)?).copied();
        Ok(places.into_iter().filter_map(row_at).collect())
    }

    /// Does all that an insert does, with no row: so rights that are missing show when an inbox is attached.
    pub(crate) fn probe(&self) -> Result<(), Error> {
        let none = Rows::new(self.kinds.len());
        self.insert.execute(&[self.values(&none, &[])?])?;
        if let Some(known) = &self.known {
            known.missing.execute(&self.keys(known, &none, &[]))?;
        }
        Ok(())
    }

    /// Returns these rows, in this order, as an array of the relation's row type.
    fn values(&self, rows: &Rows, order: &[usize]) -> Result<pg_sys::Datum, Error> {
        let mut readers: Vec<Reader> =
            self.columns.iter().zip(&self.kinds).map(|(column, kind)| Reader::of(column, *kind)).collect();
        let mut nulls_checked = vec![false; self.columns.len()];
        let values = |row: &usize, set: &mut dyn FnMut(i16, pg_sys::Datum)| {
            let columns = self.columns.iter().zip(&mut readers).zip(&mut nulls_checked).enumerate();
            for ((index, ((column, reader), null_checked)), field) in columns.zip(rows.fields(*row)) {
                READING.set(Some(index));
                match field {
                    Some(field) => set(column.number, reader.read(field)),
                    // One look for each set of rows: a domain says the same of each NULL.
                    None if *null_checked => {}
                    None => {
                        Reader::check_null(column);
                        *null_checked = true;
                    }
                }
            }
        };
        READING.set(None);
        let array =
            with_unchanged(self.oid, &self.columns, |relation| array_of_rows(relation, order, values))?;
        READING.set(None);
        Ok(array)
    }

    fn keys(&self, known: &Known, rows: &Rows, order: &[usize]) -> Vec<pg_sys::Datum> {
        let column = |column| array(self.kinds[column], order.iter().map(|&row| rows.field(row, column)));
        known.key.columns().map(column).collect()
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
    Plan::prepare(&Bound::to(relation.oid), &sql, &[relation.array_type()])
}
