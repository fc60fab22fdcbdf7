//! The key of a row: its message id, and other values that each redelivery repeats.

use std::ops::Range;

use masking::{Kind, Rows};
use pgrx::pg_sys;

use crate::arrays::{array_oid, fixed};
use crate::catalog::Attribute;
use crate::error::quoted;

/// The columns by which a row is known, by their numbers.
pub(crate) struct Key {
    id: usize,
    others: Vec<usize>,
}

/// A row with a key.
#[derive(Clone, Copy)]
pub(crate) struct Keyed {
    /// The id in the order of the index, which is that of its bytes.
    id: u128,
    pub(crate) row: usize,
}

/// Parts of a statement that looks up keys `v` in table `t`. Columns of `v` are qualified, since the table can have columns
/// of their names.
pub(crate) struct Lookup {
    /// The keys: an array for each column.
    unnest: String,
    /// Their columns.
    columns: String,
    /// The condition that a row has this key.
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

    /// Returns a query for the places, counted from 1, of keys that a table has.
    pub(crate) fn present(&self, table: &str) -> String {
        let Self { unnest, columns, same, .. } = self;
        format!(
            "SELECT v.n FROM {unnest} WITH ORDINALITY AS v({columns}, n)
             WHERE EXISTS (SELECT FROM {table} AS t WHERE {same})"
        )
    }
}

impl Key {
    /// Returns the key of these columns; none where no id is among them.
    pub(crate) fn new(columns: &[usize], kinds: &[Kind]) -> Option<Self> {
        let id = *columns.iter().find(|&&column| kinds[column] == Kind::Uuid)?;
        Some(Self { id, others: columns.iter().copied().filter(|&column| column != id).collect() })
    }

    /// The columns, the id first.
    pub(crate) fn columns(&self) -> impl Iterator<Item = usize> {
        [self.id].into_iter().chain(self.others.iter().copied())
    }

    /// Returns the names of the columns, the id first. `names` are those of all columns.
    pub(crate) fn names(&self, names: &[&str]) -> Vec<String> {
        self.columns().map(|column| names[column].to_owned()).collect()
    }

    /// Returns the parts of a statement that looks keys up, where the columns have these attributes and kinds.
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
            // More than one argument of unnest goes with no schema.
            unnest: format!("unnest({})", numbered("$")),
            columns: numbered("v"),
            same: same.join(" AND "),
            types: self.columns().map(|column| array_oid(kinds[column])).collect(),
        }
    }

    /// Whether a row has all of its key. One without is in conflict with none.
    pub(crate) fn is_whole(&self, rows: &Rows, row: usize) -> bool {
        self.columns().all(|column| rows.field(row, column).is_some())
    }

    /// Returns those of the rows in `range` with a key, in its order and of equal ones the first first; and the others.
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

    /// Keeps the first of each key of what [`Self::sorted`] returned.
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

/// Returns a value as its column stores it: a timestamp can have fewer digits there.
fn as_stored(attribute: &Attribute, value: &str) -> String {
    match attribute.base_typmod {
        digits @ 0.. if attribute.base == pg_sys::TIMESTAMPTZOID => {
            format!("{value}::pg_catalog.timestamptz({digits})")
        }
        _ => value.to_owned(),
    }
}
