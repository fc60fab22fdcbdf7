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

use masking::{Kind, Rows};
use pgrx::pg_sys;

use crate::arrays::{array, array_oid, fixed};
use crate::catalog::{Attribute, Relation};
use crate::error::{Error, quoted};
use crate::inbox::changes;
use crate::plan::Plan;
use crate::security::with_settings;
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
    key: Option<Key>,
    /// Counts what this transaction has inserted into the table itself, whatever COPY says.
    inserted: Plan,
    /// Whether rows that COPY wrote have been seen in the table.
    seen: Cell<bool>,
    /// For how many more chunks duplicates are looked for before writing. Looking costs a fifth of writing, and most
    /// queues deliver nothing twice for days: so only a chunk that ran into a duplicate starts it, and many without one
    /// end it.
    looks: Cell<u32>,
    /// How many changes of relations there had been when this table was found to be one for COPY.
    checked: Cell<u64>,
}

/// For how many chunks without a duplicate the next one is expected.
const LOOKS: u32 = 16;

/// A column that the rows fill.
struct Column {
    name: CString,
    number: i16,
    type_oid: pg_sys::Oid,
    form: Form,
}

/// By what a row is known: the message id, and what a message has again at each delivery.
struct Key {
    id: usize,
    others: Vec<(usize, Kind)>,
    /// Gives the numbers, from 1, of those of many keys that are there.
    present: Plan,
}

/// A row with a key.
#[derive(Clone, Copy)]
struct Keyed {
    /// The id in the order of the index, which is that of its bytes.
    id: u128,
    row: usize,
}

impl CopyIn {
    /// Writes into `attributes` of `target`, where `key` are the numbers of those by which a row is known. When it was
    /// found to be one for COPY, there had been `checked` changes of relations. `None` where COPY does not take a type
    /// of a column.
    pub(crate) fn new(
        target: &Relation,
        attributes: &[Attribute],
        kinds: &[Kind],
        key: &[usize],
        checked: u64,
    ) -> Result<Option<Self>, Error> {
        let mut columns = Vec::new();
        for (attribute, &kind) in attributes.iter().zip(kinds) {
            let Some(form) = Form::of(attribute, kind) else { return Ok(None) };
            // A NUL cannot come in: the name is from the catalogs.
            let name = CString::new(attribute.name.as_str()).unwrap_or_default();
            columns.push(Column { name, number: attribute.number, type_oid: attribute.type_oid, form });
        }
        let key = match key.iter().find(|&&column| kinds[column] == Kind::Uuid) {
            Some(&id) => Some(Key::new(target, attributes, kinds, id, key)?),
            None => None,
        };
        // A table that has nothing to do with partitions has no tree of them.
        let inserted = Plan::prepare(
            "SELECT pg_catalog.sum(pg_catalog.pg_stat_get_xact_tuples_inserted(relid))::bigint
             FROM (SELECT relid FROM pg_catalog.pg_partition_tree($1) UNION SELECT $1) AS tree",
            &[pg_sys::REGCLASSOID],
        )?;
        Ok(Some(Self {
            relation: target.name.clone(),
            oid: target.oid,
            columns,
            key,
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
        let changes = changes();
        if self.checked.get() == changes {
            return Ok(true);
        }
        let relation = Relation::open(&self.relation)?;
        let filled: Vec<&str> =
            self.columns.iter().map(|column| column.name.to_str().unwrap_or_default()).collect();
        let holds = relation.oid == self.oid && relation.copy_obstacle(&filled)?.is_none();
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
        let written = match form::convert(rows, &order, &self.columns) {
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

    /// Of the rows in `range`, those with a key in its order, and those without. Of the same message twice, the first.
    fn by_key(&self, rows: &Rows, range: Range<usize>) -> (Vec<Keyed>, Vec<usize>) {
        let Some(key) = &self.key else { return (Vec::new(), range.collect()) };
        let mut keyed: Vec<Keyed> = Vec::with_capacity(range.len());
        let mut others = Vec::new();
        for row in range {
            match rows.field(row, key.id) {
                Some(id) => keyed.push(Keyed { id: u128::from_be_bytes(fixed(id)), row }),
                None => others.push(row),
            }
        }
        let rest = |keyed: &Keyed| {
            let row = keyed.row;
            key.others.iter().map(move |&(column, _)| rows.field(row, column))
        };
        keyed.sort_unstable_by(|a, b| {
            a.id.cmp(&b.id).then_with(|| rest(a).cmp(rest(b))).then_with(|| a.row.cmp(&b.row))
        });
        keyed.dedup_by(|later, first| later.id == first.id && rest(later).eq(rest(first)));
        (keyed, others)
    }

    /// The numbers, from 1 and in order, of those of `keyed` that are in the table.
    fn present(&self, rows: &Rows, keyed: &[Keyed]) -> Result<Vec<u64>, Error> {
        let Some(key) = &self.key else { return Ok(Vec::new()) };
        let column =
            |column: usize, kind| array(kind, keyed.iter().map(|keyed| rows.field(keyed.row, column)));
        let mut arguments = vec![column(key.id, Kind::Uuid)];
        arguments.extend(key.others.iter().map(|&(number, kind)| column(number, kind)));
        let mut present = with_settings(&BY_INDEX, || key.present.numbers(&arguments))?;
        present.sort_unstable();
        Ok(present)
    }

    fn inserted(&self) -> Result<usize, Error> {
        let inserted = self.inserted.execute(&[self.oid.into()])?.first;
        Ok(usize::try_from(inserted).unwrap_or(usize::MAX))
    }
}

impl Key {
    /// The key `key` of `target`, in which `id` is the message id.
    fn new(
        target: &Relation,
        attributes: &[Attribute],
        kinds: &[Kind],
        id: usize,
        key: &[usize],
    ) -> Result<Self, Error> {
        let others: Vec<(usize, Kind)> =
            key.iter().filter(|&&column| column != id).map(|&column| (column, kinds[column])).collect();
        let columns = || [(id, Kind::Uuid)].into_iter().chain(others.iter().copied()).zip(1..);
        let listed = |prefix: &str| -> String {
            columns().map(|(_, number)| format!("{prefix}{number}")).collect::<Vec<_>>().join(", ")
        };
        let same: Vec<String> = columns()
            .map(|((column, _), number)| format!("t.{} = v{number}", quoted(&[&attributes[column].name])))
            .collect();
        let sql = format!(
            "SELECT n FROM unnest({}) WITH ORDINALITY AS v({}, n)
             WHERE EXISTS (SELECT FROM {} AS t WHERE {})",
            listed("$"),
            listed("v"),
            target.name,
            same.join(" AND ")
        );
        let types: Vec<_> = columns().map(|((_, kind), _)| array_oid(kind)).collect();
        let present = Plan::prepare_generic_on(target.oid, &sql, &types)?;
        Ok(Self { id, others, present })
    }
}
