//! In-server COPY: writes rows to a table of Postgres's own, along the code path of the COPY command (`copyfrom.c`).
//!
//! A chunk is already in COPY's binary format, so only bytes are moved here. COPY cannot tell which rows are already there.
//! So once it fails on a duplicate, a chunk's keys are looked up first, all at once and in the order of the index.

mod binary_form;
mod copy_from;

use std::cell::Cell;
use std::ffi::{CStr, CString};
use std::ops::Range;
use std::rc::Rc;

use masking::{Kind, Rows};
use pgrx::pg_sys;

use crate::error::Error;
use crate::pg::arrays::{array, array_of_oids};
use crate::pg::catalog::{Attribute, Relation};
use crate::pg::plan::{Bound, Plan};
use crate::pg::relcache::Watch;
use crate::pg::settings::with_settings;
use crate::store::key::{Key, Keyed};
use binary_form::Form;
use copy_from::Table;

/// Settings for looking up keys, which are in the order of the index: one pass over it, whatever Postgres knows of the
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
    duplicates: Option<DuplicateLookup>,
    /// Counts changes of the table and of all relations that its rows may go into.
    watch: Rc<Watch>,
    /// Counts the rows that this transaction has inserted into the table and its partitions, whatever COPY reports.
    inserted: Plan,
    /// Whether rows that COPY wrote have been seen in the table.
    seen: Cell<bool>,
    /// Number of further chunks that look duplicates up before writing. A look-up takes a fifth of a write's time, and most
    /// queues deliver nothing twice for days. So a chunk that fails on a duplicate starts the look-ups, and `LOOKS` chunks
    /// without a duplicate end them.
    looks: Cell<u32>,
    /// Value of `watch.changes()` when COPY was last found possible for this table.
    checked: Cell<u64>,
}

/// Number of chunks without a duplicate after which look-ups end.
const LOOKS: u32 = 16;

/// A column that the rows fill.
struct Column {
    attribute: Attribute,
    /// The column's name as a C string.
    name: CString,
    form: Form,
}

/// The columns that identify a row, and the statement that looks their values up.
struct DuplicateLookup {
    key: Key,
    /// Returns the positions (from 1) of the keys that are in the table.
    present: Plan,
}

/// Returns the obstacle to COPY that a column's type is, if one has no binary form.
pub(crate) fn no_binary_form(attributes: &[Attribute], kinds: &[Kind]) -> Option<String> {
    let has_form = |(attribute, &kind): (&Attribute, &Kind)| Form::of(attribute, kind).is_some();
    let all_have = attributes.iter().zip(kinds).all(has_form);
    (!all_have).then(|| "a column's type has no binary form".into())
}

impl CopyIn {
    /// Returns a writer for the columns `attributes` of `target`, whose types have binary forms; `key` are the positions of
    /// those that identify a row.
    pub(crate) fn new(
        target: &Relation,
        attributes: &[Attribute],
        kinds: &[Kind],
        key: &[usize],
        watch: Rc<Watch>,
    ) -> Result<Self, Error> {
        let mut columns = Vec::new();
        for (attribute, &kind) in attributes.iter().zip(kinds) {
            let form = Form::of(attribute, kind).ok_or(Error::Internal("a type has no binary form"))?;
            // A NUL cannot occur: the name is from the catalogs.
            let name = CString::new(attribute.name.as_str()).unwrap_or_default();
            columns.push(Column { attribute: attribute.clone(), name, form });
        }
        let duplicates = match Key::new(key, kinds) {
            Some(key) => Some(DuplicateLookup { present: present(target, attributes, kinds, &key)?, key }),
            None => None,
        };
        let inserted = Plan::prepare(
            &Bound::default(),
            "SELECT pg_catalog.sum(pg_catalog.pg_stat_get_xact_tuples_inserted(relation))::bigint
             FROM pg_catalog.unnest($1) AS relation",
            &[pg_sys::OIDARRAYOID],
        )?;
        Ok(Self {
            oid: target.oid,
            relation: target.name.clone(),
            columns,
            kinds: kinds.to_vec(),
            duplicates,
            watch,
            inserted,
            seen: Cell::new(false),
            looks: Cell::new(0),
            // The watch has begun before COPY was found possible.
            checked: Cell::new(0),
        })
    }

    /// Inserts the rows in `range` and returns how many were new; the others are duplicates. Returns `None`, and does
    /// nothing, if the table has changed so that COPY no longer fits it.
    pub(crate) fn insert(&self, rows: &Rows, range: Range<usize>) -> Result<Option<usize>, Error> {
        Table::with(self.oid, |table| {
            if !table.takes(&self.columns) || !self.is_still_for_copy()? {
                return Ok(None);
            }
            table.check_rights(&self.columns);
            self.insert_new(table, rows, range).map(Some)
        })
    }

    /// Starts looking duplicates up, after an insert failed on one. Returns whether the failed insert had not looked them
    /// up, so that a retry can help.
    pub(crate) fn start_lookups(&self) -> bool {
        self.looks.replace(LOOKS) == 0
    }

    /// Whether COPY is still possible, now that the table is locked.
    fn is_still_for_copy(&self) -> Result<bool, Error> {
        let changes = self.watch.changes();
        if self.checked.get() == changes {
            return Ok(true);
        }
        let relation = Relation::open(self.oid)?;
        let filled: Vec<&str> = self.columns.iter().map(|column| column.attribute.name.as_str()).collect();
        let key = self.duplicates.as_ref().map_or_else(Vec::new, |duplicates| duplicates.key.names(&filled));
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
        let written = match binary_form::convert(rows, &order, &self.columns)? {
            None => table.copy(&self.columns, rows, &order),
            Some(rows) => table.copy(&self.columns, &rows, &(0..rows.len()).collect::<Vec<_>>()),
        };
        if look || written < order.len() {
            let mut missing = keyed.len() - self.present(rows, &keyed)?.len();
            if keyed.len() < order.len() {
                // Rows without a key cannot be looked up, but they can be counted.
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

    /// Splits the rows in `range` into rows with a key, in key order, and rows without one. Keeps only the first row of each
    /// message.
    fn by_key(&self, rows: &Rows, range: Range<usize>) -> (Vec<Keyed>, Vec<usize>) {
        let Some(duplicates) = &self.duplicates else { return (Vec::new(), range.collect()) };
        let (mut keyed, others) = duplicates.key.sorted(rows, range);
        duplicates.key.dedup(rows, &mut keyed);
        (keyed, others)
    }

    /// Returns the positions (from 1, ascending) of the keys in `keyed` that are in the table.
    fn present(&self, rows: &Rows, keyed: &[Keyed]) -> Result<Vec<u64>, Error> {
        let Some(duplicates) = &self.duplicates else { return Ok(Vec::new()) };
        let column =
            |column| array(self.kinds[column], keyed.iter().map(|keyed| rows.field(keyed.row, column)));
        let arguments: Vec<_> = duplicates.key.columns().map(column).collect();
        let mut present = with_settings(&BY_INDEX, || duplicates.present.numbers(&arguments))?;
        present.sort_unstable();
        Ok(present)
    }

    fn inserted(&self) -> Result<usize, Error> {
        let inserted = self.inserted.execute(&[array_of_oids(self.watch.relations())])?.first;
        Ok(usize::try_from(inserted).unwrap_or(usize::MAX))
    }
}

/// Prepares the statement that returns the positions (from 1) of the keys that are in the table.
fn present(target: &Relation, attributes: &[Attribute], kinds: &[Kind], key: &Key) -> Result<Plan, Error> {
    let lookup = key.lookup(attributes, kinds);
    Plan::prepare_generic(&Bound::to(target.oid), &lookup.present(&target.name), &lookup.types)
}
