//! How a row that is already there is found.

use masking::{Column, Rule};

use super::{Relation, select};
use crate::error::Error;
use crate::pg::names::quoted;

/// The handling of a row that is already there. The numbers are positions of the columns that identify a row.
pub(crate) enum Conflict {
    /// An error: nothing identifies two rows as one message.
    Error,
    /// A duplicate, by the unique index on these columns. A conflict on any other index is an error.
    On(Vec<usize>),
    /// A duplicate, by any index behind a foreign table or view.
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

impl Relation {
    /// Returns how a redelivered message is found again in this target.
    pub(crate) fn conflict(&self, columns: &[Column]) -> Result<Conflict, Error> {
        let index_of = |name: &String| columns.iter().position(|column| column.name == *name);
        let Some(id) = columns.iter().find(|column| column.rule == Rule::MessageId) else {
            return Ok(Conflict::Error);
        };
        // The index may contain, besides the id, values that a message repeats at each delivery. On a partitioned table, it
        // must contain the partition key.
        let same_again: Vec<String> = columns
            .iter()
            .filter(|column| column.rule.key().is_none())
            .map(|column| column.name.clone())
            .collect();
        let key = match self.kind.as_str() {
            "r" | "p" => self.unique_index(&id.name, &same_again)?.ok_or_else(|| Error::NoUniqueIndex {
                relation: self.name.clone(),
                columns: quoted(&[&id.name]),
            })?,
            // The index is behind a foreign table or a view, and cannot be named.
            _ => return Ok(Conflict::Any(index_of(&id.name).into_iter().collect())),
        };
        Ok(Conflict::On(key.iter().filter_map(index_of).collect()))
    }

    /// Returns the columns of a unique index that contains `column`, and besides it only columns in `others`.
    pub(crate) fn unique_index(&self, column: &str, others: &[String]) -> Result<Option<Vec<String>>, Error> {
        let indexes = select(
            "SELECT pg_catalog.array_agg(a.attname::text ORDER BY a.attnum), i.indimmediate
             FROM pg_catalog.pg_index i
             CROSS JOIN LATERAL pg_catalog.unnest(i.indkey) WITH ORDINALITY k(attnum, n)
             LEFT JOIN pg_catalog.pg_attribute a ON a.attrelid = i.indrelid AND a.attnum = k.attnum
             WHERE i.indrelid = $1 AND i.indisunique AND i.indisvalid
               AND NOT i.indnullsnotdistinct
               AND i.indpred IS NULL AND i.indexprs IS NULL AND k.n <= i.indnkeyatts
             GROUP BY i.indexrelid
             HAVING pg_catalog.array_agg(a.attname::text) @> ARRAY[$2] AND pg_catalog.array_agg(a.attname::text) <@ $3
             ORDER BY pg_catalog.count(*)",
            &[self.oid.into(), column.into(), others.to_vec().into()],
            |row| Ok((row.texts(1)?, row.get::<bool>(2)?)),
        )?;
        // ON CONFLICT (columns) uses all indexes on these columns, and fails if one of them is deferrable.
        let deferrable = |key: &Vec<String>| indexes.contains(&(Some(key.clone()), Some(false)));
        Ok(indexes.iter().filter_map(|(key, _)| key.as_ref()).find(|key| !deferrable(key)).cloned())
    }
}
