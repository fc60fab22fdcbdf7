//! In-server COPY: rows into a table of Postgres's own, on the way that COPY itself takes (`copyfrom.c`).
//!
//! A chunk waits in COPY's binary format already, so that nothing but bytes is moved here. What COPY lacks is knowing
//! which rows are there already: once it ran into one, those of a chunk are looked up first, all at once and in the
//! order of the index.

mod form;
mod table;

use std::cell::Cell;
use std::ffi::{CStr, CString};
use std::ops::Range;
use std::rc::Rc;

use masking::{Kind, Rows};
use pgrx::pg_sys;

use crate::arrays::{array, array_of_oids};
use crate::catalog::{Attribute, Relation};
use crate::error::Error;
use crate::key::{Key, Keyed};
use crate::plan::{Bound, Plan};
use crate::security::with_settings;
use crate::watch::Watch;
use form::Form;
use table::Table;

/// For the look-up of keys, which come in the order of the index: so one pass over it, whatever Postgres knows of the
/// table's size.
const BY_INDEX: [(&CStr, &CStr); 7] = [
    (c"enable_seqscan", c"off"),
    (c"enable_bitmapscan", c"off"),
    (c"enable_hashjoin", c"off"),
    (c"enable_mergejoin", c"off"),
    (c"enable_nestloop", c"on"),
    (c"enable_indexscan", c"on"),
    (c"enable_indexonlyscan", c"on"),
];

/// Writes rows into one table by COPY.
pub(crate) struct CopyIn {
    relation: String,
    oid: pg_sys::Oid,
    columns: Vec<Column>,
    kinds: Vec<Kind>,
    known: Option<Known>,
    /// Tells of changes of the table and all that its rows may go into.
    watch: Rc<Watch>,
    /// Counts what this transaction has inserted into the table and its partitions, whatever COPY says.
    inserted: Plan,
    /// Whether rows that COPY wrote have been seen in the table.
    seen: Cell<bool>,
    /// For how many more chunks duplicates are looked for before writing. Looking costs a fifth of writing, and most
    /// queues deliver nothing twice for days: so only a chunk that ran into a duplicate starts it, and many without one
    /// end it.
    looks: Cell<u32>,
    /// How many changes there had been when this table was found to be one for COPY.
    checked: Cell<u64>,
}

/// For how many chunks without a duplicate the next one is expected.
const LOOKS: u32 = 16;

/// A column that the rows fill.
struct Column {
    attribute: Attribute,
    /// Its name as C has it.
    name: CString,
    form: Form,
}

/// The key of a row, and the statement that looks it up.
struct Known {
    key: Key,
    /// Gives the numbers, from 1, of those of many keys that are there.
    present: Plan,
}

impl CopyIn {
    /// Writes into `attributes` of `target`, where `key` are the numbers of those by which a row is known. When it was
    /// found to be one for COPY, the watch had told of `checked` changes. `None` where COPY does not take a type of a
    /// column.
    pub(crate) fn new(
        target: &Relation,
        attributes: &[Attribute],
        kinds: &[Kind],
        key: &[usize],
        watch: Rc<Watch>,
        checked: u64,
    ) -> Result<Option<Self>, Error> {
        let mut columns = Vec::new();
        for (attribute, &kind) in attributes.iter().zip(kinds) {
            let Some(form) = Form::of(attribute, kind) else { return Ok(None) };
            // A NUL cannot come in: the name is from the catalogs.
            let name = CString::new(attribute.name.as_str()).unwrap_or_default();
            columns.push(Column { attribute: attribute.clone(), name, form });
        }
        let known = match Key::new(key, kinds) {
            Some(key) => Some(Known { present: present(target, attributes, kinds, &key)?, key }),
            None => None,
        };
        let inserted = Plan::prepare(
            &Bound::default(),
            "SELECT pg_catalog.sum(pg_catalog.pg_stat_get_xact_tuples_inserted(relation))::bigint
             FROM pg_catalog.unnest($1) AS relation",
            &[pg_sys::OIDARRAYOID],
        )?;
        Ok(Some(Self {
            oid: target.oid,
            relation: target.name.clone(),
            columns,
            kinds: kinds.to_vec(),
            known,
            watch,
            inserted,
            seen: Cell::new(false),
            looks: Cell::new(0),
            checked: Cell::new(checked),
        }))
    }

    /// Inserts the rows in `range` and returns how many were new; the others were there already. `None`, and nothing
    /// is done, where the table has changed so that COPY is no longer the way to write it.
    pub(crate) fn insert(&self, rows: &Rows, range: Range<usize>) -> Result<Option<usize>, Error> {
        Table::with(self.oid, |table| {
            if !table.takes(&self.columns) || !self.is_still_for_copy()? {
                return Ok(None);
            }
            table.check_rights(&self.columns);
            self.insert_new(table, rows, range).map(Some)
        })
    }

    /// After a row that is there already made an insert fail: whether another try would look for such rows first, which
    /// the last did not.
    pub(crate) fn looks_next_time(&self) -> bool {
        self.looks.replace(LOOKS) == 0
    }

    /// Whether what was found when the inbox was made ready still holds, now that the table is locked.
    fn is_still_for_copy(&self) -> Result<bool, Error> {
        let changes = self.watch.changes();
        if self.checked.get() == changes {
            return Ok(true);
        }
        let relation = Relation::open(self.oid)?;
        let filled: Vec<&str> = self.columns.iter().map(|column| column.attribute.name.as_str()).collect();
        let key = self.known.as_ref().map_or_else(Vec::new, |known| known.key.names(&filled));
        let holds = relation.copy_obstacle(&relation.tree()?, &filled, &key)?.is_none();
        if holds {
            self.checked.set(changes);
        }
        Ok(holds)
    }

    fn insert_new(&self, table: &Table, rows: &Rows, range: Range<usize>) -> Result<usize, Error> {
        let (mut keyed, others) = self.by_key(rows, range);
        if self.looks.get() > 0 {
            let present = self.present(rows, &keyed)?;
            self.looks.set(if present.is_empty() { self.looks.get() - 1 } else { LOOKS });
            let mut number = 0;
            keyed.retain(|_| {
                number += 1;
                present.binary_search(&number).is_err()
            });
        }
        let order: Vec<usize> = keyed.iter().map(|keyed| keyed.row).chain(others).collect();
        if order.is_empty() {
            return Ok(0);
        }
        let look = !self.seen.get();
        let before = if look { self.inserted()? } else { 0 };
        let written = match form::convert(rows, &order, &self.columns)? {
            None => table.copy(&self.columns, rows, &order),
            Some(rows) => table.copy(&self.columns, &rows, &(0..rows.len()).collect::<Vec<_>>()),
        };
        if look || written < order.len() {
            let mut missing = keyed.len() - self.present(rows, &keyed)?.len();
            if keyed.len() < order.len() {
                // What has no key cannot be looked for, but counted.
                let counted = if look { self.inserted()?.saturating_sub(before) } else { written };
                missing = missing.max(order.len().saturating_sub(counted.min(written)));
            }
            if missing > 0 {
                let missing = missing as u64;
                return Err(Error::RowsSwallowed { relation: self.relation.clone(), missing });
            }
            self.seen.set(true);
        }
        Ok(written)
    }

    /// Returns those of the rows in `range` with a key in its order, and those without. Of the same message twice, the first.
    fn by_key(&self, rows: &Rows, range: Range<usize>) -> (Vec<Keyed>, Vec<usize>) {
        let Some(known) = &self.known else { return (Vec::new(), range.collect()) };
        let (mut keyed, others) = known.key.sorted(rows, range);
        known.key.dedup(rows, &mut keyed);
        (keyed, others)
    }

    /// The numbers, from 1 and in order, of those of `keyed` that are in the table.
    fn present(&self, rows: &Rows, keyed: &[Keyed]) -> Result<Vec<u64>, Error> {
        let Some(known) = &self.known else { return Ok(Vec::new()) };
        let column =
            |column| array(self.kinds[column], keyed.iter().map(|keyed| rows.field(keyed.row, column)));
        let arguments: Vec<_> = known.key.columns().map(column).collect();
        let mut present = with_settings(&BY_INDEX, || known.present.numbers(&arguments))?;
        present.sort_unstable();
        Ok(present)
    }

    fn inserted(&self) -> Result<usize, Error> {
        let inserted = self.inserted.execute(&[array_of_oids(self.watch.relations())])?.first;
        Ok(usize::try_from(inserted).unwrap_or(usize::MAX))
    }
}

/// Prepares the statement that gives the numbers, from 1, of those of many keys that are in the table.
fn present(target: &Relation, attributes: &[Attribute], kinds: &[Kind], key: &Key) -> Result<Plan, Error> {
    let lookup = key.lookup(attributes, kinds);
    Plan::prepare_generic(&Bound::to(target.oid), &lookup.present(&target.name), &lookup.types)
}
