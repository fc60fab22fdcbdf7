//! Writing rows into a relation, set by set, and knowing which were there already.

use std::ops::Range;

use masking::{Kind, Rows};
use pgrx::pg_sys;

use crate::arrays::{array, array_oid};
use crate::error::{Error, quoted};
use crate::plan::Plan;

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
    relation: String,
    kinds: Vec<Kind>,
    insert: Plan,
    /// Counts the rows that are not there although they were inserted; there is none where no column tells rows apart.
    missing: Option<Plan>,
    key: Vec<usize>,
}

impl Writer {
    /// A writer of `columns` (name, form in which the values travel, type to cast to) of `relation`.
    pub(crate) fn new(
        relation: String,
        oid: pg_sys::Oid,
        columns: &[(String, Kind, Option<String>)],
        conflict: &Conflict,
    ) -> Result<Self, Error> {
        let key = conflict.key().to_vec();
        let names: Vec<&str> = columns.iter().map(|(name, ..)| name.as_str()).collect();
        let key_names: Vec<&str> = key.iter().map(|&column| names[column]).collect();
        let numbered = |count: usize, prefix: &str| {
            (1..=count).map(|number| format!("{prefix}{number}")).collect::<Vec<_>>().join(", ")
        };
        let values: Vec<String> = columns
            .iter()
            .zip(1..)
            .map(|((_, _, cast), number)| match cast {
                Some(cast) => format!("v{number}::{cast}"),
                None => format!("v{number}"),
            })
            .collect();
        let on_conflict = match conflict {
            Conflict::Error => String::new(),
            // In the order in which COPY writes, since sessions that wait for each other's rows crosswise deadlock.
            Conflict::On(key) => {
                let order: Vec<String> = key.iter().map(|column| format!("v{}", column + 1)).collect();
                format!(" ORDER BY {}, n ON CONFLICT ({}) DO NOTHING", order.join(", "), quoted(&key_names))
            }
            Conflict::Any(_) => " ON CONFLICT DO NOTHING".into(),
        };
        let insert = format!(
            "INSERT INTO {relation} ({}) SELECT {} FROM unnest({}) WITH ORDINALITY AS v({}, n){on_conflict}",
            quoted(&names),
            values.join(", "),
            numbered(columns.len(), "$"),
            numbered(columns.len(), "v"),
        );
        let types = |columns: &[usize], kinds: &[Kind]| -> Vec<pg_sys::Oid> {
            columns.iter().map(|&column| array_oid(kinds[column])).collect()
        };
        let kinds: Vec<Kind> = columns.iter().map(|(_, kind, _)| *kind).collect();
        let all: Vec<usize> = (0..kinds.len()).collect();
        let missing = if key.is_empty() {
            None
        } else {
            let same: Vec<String> = key_names
                .iter()
                .zip(1..)
                .map(|(name, number)| format!("t.{} = v{number}", quoted(&[name])))
                .collect();
            // A NULL in the key is in no conflict, so such a row cannot have been left out for one.
            let present: Vec<String> =
                (1..=key.len()).map(|number| format!("v{number} IS NOT NULL")).collect();
            let sql = format!(
                "SELECT pg_catalog.count(*) FROM unnest({}) AS v({}) WHERE {} AND NOT EXISTS (SELECT FROM {relation} AS t WHERE {})",
                numbered(key.len(), "$"),
                numbered(key.len(), "v"),
                present.join(" AND "),
                same.join(" AND "),
            );
            Some(Plan::prepare_on(oid, &sql, &types(&key, &kinds))?)
        };
        Ok(Self {
            relation,
            insert: Plan::prepare_on(oid, &insert, &types(&all, &kinds))?,
            kinds,
            missing,
            key,
        })
    }

    /// The relation, schema-qualified and quoted as SQL needs it.
    pub(crate) fn relation(&self) -> &str {
        &self.relation
    }

    /// Inserts the rows in `range` and returns how many were new; the others were there already.
    pub(crate) fn insert(&self, rows: &Rows, range: Range<usize>) -> Result<usize, Error> {
        let mut new = 0;
        let mut start = range.start;
        while start < range.end {
            let keyed = self.is_keyed(rows, start);
            let end = (start..range.end).find(|&row| self.is_keyed(rows, row) != keyed).unwrap_or(range.end);
            new += self.insert_alike(rows, start..end, keyed)?;
            start = end;
        }
        Ok(new)
    }

    /// Whether a row has what it is known by. One without is in conflict with none, and must go in.
    fn is_keyed(&self, rows: &Rows, row: usize) -> bool {
        !self.key.is_empty() && self.key.iter().all(|&column| rows.field(row, column).is_some())
    }

    /// Inserts rows that all have a key, or all have none.
    fn insert_alike(&self, rows: &Rows, range: Range<usize>, keyed: bool) -> Result<usize, Error> {
        let arguments = self.arguments(rows, &range);
        let mut new = 0;
        let mut missing = 0;
        // Whether a row was left out for being there already, or swallowed by a trigger or rule, only looking tells.
        // One that was there may have been deleted before the look: then it goes in the next time.
        for _ in 0..3 {
            new += self.insert.execute(&arguments)?.rows;
            missing = match &self.missing {
                Some(plan) if keyed && new < range.len() as u64 => {
                    plan.execute(&self.only_key(&arguments))?.first
                }
                _ if keyed => 0,
                _ => (range.len() as u64).saturating_sub(new),
            };
            if missing == 0 || !keyed {
                break;
            }
        }
        if missing > 0 {
            return Err(Error::RowsSwallowed { relation: self.relation.clone(), missing });
        }
        Ok(usize::try_from(new).unwrap_or(usize::MAX).min(range.len()))
    }

    /// Whether the relation has a row with the key of this one.
    pub(crate) fn has(&self, rows: &Rows, row: usize) -> Result<bool, Error> {
        match &self.missing {
            Some(plan) if self.is_keyed(rows, row) => {
                Ok(plan.execute(&self.only_key(&self.arguments(rows, &(row..row + 1))))?.first == 0)
            }
            _ => Ok(false),
        }
    }

    fn arguments(&self, rows: &Rows, range: &Range<usize>) -> Vec<pg_sys::Datum> {
        let argument = |(column, &kind)| array(kind, range.clone().map(|row| rows.field(row, column)));
        self.kinds.iter().enumerate().map(argument).collect()
    }

    fn only_key(&self, arguments: &[pg_sys::Datum]) -> Vec<pg_sys::Datum> {
        self.key.iter().map(|&column| arguments[column]).collect()
    }

    /// Does all that an insert does, with no row: so rights that are missing show when an inbox is attached.
    pub(crate) fn probe(&self) -> Result<(), Error> {
        let none = self.arguments(&Rows::new(self.kinds.len()), &(0..0));
        self.insert.execute(&none)?;
        if let Some(plan) = &self.missing {
            plan.execute(&self.only_key(&none))?;
        }
        Ok(())
    }
}
