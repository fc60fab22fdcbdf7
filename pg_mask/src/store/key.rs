//! The key of a row: its message id, and other values that each redelivery repeats.

use std::ops::Range;

use masking::{Kind, Rows};
use pgrx::pg_sys;

use crate::pg::arrays::{array_oid, fixed};
use crate::pg::catalog::Attribute;
use crate::pg::names::quoted;

/// The columns that identify a row, as positions.
pub(crate) struct Key {
    id: usize,
    others: Vec<usize>,
}

/// A row with a key.
#[derive(Clone, Copy)]
pub(crate) struct Keyed {
    /// The id, in the order of the index, which is the order of its bytes.
    id: u128,
    pub(crate) row: usize,
}

/// Parts of a statement that looks up keys `v` in table `t`. Columns of `v` are qualified, because the table may have
/// columns with these names.
pub(crate) struct Lookup {
    /// The keys: one array for each column.
    unnest: String,
    /// The names of the keys' columns in `v`.
    columns: String,
    /// The condition that a row of `t` has the key.
    same: String,
    /// The types of the arrays.
    pub(crate) types: Vec<pg_sys::Oid>,
}

impl Lookup {
    /// Returns a query for the number of keys that a table does not have.
    pub(crate) fn count_missing(&self, table: &str) -> String {
        let Self { unnest, columns, same, .. } = self;
        format!(
            "SELECT pg_catalog.count(*) FROM {unnest} AS v({columns}) WHERE NOT EXISTS (SELECT FROM {table} AS t WHERE {same})"
        )
    }

    /// Returns a query for the positions (from 1) of the keys that a table has.
    pub(crate) fn present(&self, table: &str) -> String {
        let Self { unnest, columns, same, .. } = self;
        format!(
            "SELECT v.n FROM {unnest} WITH ORDINALITY AS v({columns}, n)
             WHERE EXISTS (SELECT FROM {table} AS t WHERE {same})"
        )
    }
}

impl Key {
    /// Returns the key of these columns, or none if no id is among them.
    pub(crate) fn new(columns: &[usize], kinds: &[Kind]) -> Option<Self> {
        let id = *columns.iter().find(|&&column| kinds[column] == Kind::Uuid)?;
        Some(Self { id, others: columns.iter().copied().filter(|&column| column != id).collect() })
    }

    /// Returns the columns, the id first.
    pub(crate) fn columns(&self) -> impl Iterator<Item = usize> {
        [self.id].into_iter().chain(self.others.iter().copied())
    }

    /// Returns the names of the columns, the id first. `names` are the names of all columns.
    pub(crate) fn names(&self, names: &[&str]) -> Vec<String> {
        self.columns().map(|column| names[column].to_owned()).collect()
    }

    /// Returns the parts of a statement that looks keys up, for columns with these attributes and kinds.
    pub(crate) fn lookup(&self, attributes: &[Attribute], kinds: &[Kind]) -> Lookup {
        let numbered = |prefix: &str| {
            let all = self.columns().zip(1..).map(|(_, number)| format!("{prefix}{number}"));
            all.collect::<Vec<_>>().join(", ")
        };
        let same: Vec<String> = self
            .columns()
            .zip(1..)
            .map(|(column, number)| {
                let attribute = &attributes[column];
                format!(
                    "t.{} = {}",
                    quoted(&[&attribute.name]),
                    as_stored(attribute, &format!("v.v{number}"))
                )
            })
            .collect();
        Lookup {
            // unnest with several arguments must not be schema-qualified.
            unnest: format!("unnest({})", numbered("$")),
            columns: numbered("v"),
            same: same.join(" AND "),
            types: self.columns().map(|column| array_oid(kinds[column])).collect(),
        }
    }

    /// Whether a row has a complete key. A row without one conflicts with none.
    pub(crate) fn is_whole(&self, rows: &Rows, row: usize) -> bool {
        self.columns().all(|column| rows.field(row, column).is_some())
    }

    /// Splits the rows in `range` into rows with a key and rows without. Rows with a key are in key order; equal keys keep
    /// their order.
    pub(crate) fn sorted(&self, rows: &Rows, range: Range<usize>) -> (Vec<Keyed>, Vec<usize>) {
        let mut keyed: Vec<Keyed> = Vec::with_capacity(range.len());
        let mut others = Vec::new();
        for row in range {
            match rows.field(row, self.id) {
                Some(id) if self.is_whole(rows, row) => {
                    keyed.push(Keyed { id: u128::from_be_bytes(fixed(id)), row });
                }
                _ => others.push(row),
            }
        }
        keyed.sort_unstable_by(|a, b| {
            a.id.cmp(&b.id).then_with(|| self.rest(rows, a).cmp(self.rest(rows, b))).then(a.row.cmp(&b.row))
        });
        (keyed, others)
    }

    /// Keeps the first row of each key in the result of [`Self::sorted`].
    pub(crate) fn dedup(&self, rows: &Rows, keyed: &mut Vec<Keyed>) {
        keyed.dedup_by(|later, first| {
            later.id == first.id && self.rest(rows, later).eq(self.rest(rows, first))
        });
    }

    fn rest<'r>(&self, rows: &'r Rows, keyed: &Keyed) -> impl Iterator<Item = Option<&'r [u8]>> {
        let row = keyed.row;
        self.others.iter().map(move |&column| rows.field(row, column))
    }
}

/// Returns the SQL for a value as its column stores it: a timestamp column can have fewer digits.
fn as_stored(attribute: &Attribute, value: &str) -> String {
    match attribute.base_typmod {
        digits @ 0.. if attribute.base == pg_sys::TIMESTAMPTZOID => {
            format!("{value}::pg_catalog.timestamptz({digits})")
        }
        _ => value.to_owned(),
    }
}
