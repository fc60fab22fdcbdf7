//! Columns as the catalogs describe them, and which rules fit them.

use std::ffi::CStr;

use masking::{Kind, Rule};
use pgrx::pg_sys;

use super::{Relation, select};
use crate::error::Error;
use crate::pg::compat::{columns_of, letter};

/// A column as the catalogs describe it.
#[derive(Clone)]
pub(crate) struct Attribute {
    pub(crate) number: i16,
    pub(crate) name: String,
    pub(crate) type_oid: pg_sys::Oid,
    pub(crate) typmod: i32,
    /// The type's name without its modifier, for error messages.
    type_name: String,
    /// The type under any domains, and its modifier.
    pub(crate) base: pg_sys::Oid,
    pub(crate) base_typmod: i32,
    pub(crate) not_null: bool,
    /// NOT NULL, and filled by nothing but a rule.
    pub(crate) must_be_given: bool,
    generated: bool,
}

impl Relation {
    pub(crate) fn attributes(&self) -> Result<Vec<Attribute>, Error> {
        let attributes = select(
            "WITH RECURSIVE under (attnum, type, typmod) AS (
                 SELECT attnum, atttypid, atttypmod FROM pg_catalog.pg_attribute
                 WHERE attrelid = $1 AND attnum > 0 AND NOT attisdropped
                 UNION ALL SELECT u.attnum, t.typbasetype, t.typtypmod FROM under u
                 JOIN pg_catalog.pg_type t ON t.oid = u.type AND t.typtype = 'd')
             SELECT a.attnum, a.attname::text, a.atttypid, a.atttypmod, pg_catalog.format_type(a.atttypid, -1),
                    a.attnotnull, a.attgenerated <> '' OR a.attidentity = 'a',
                    a.attnotnull AND NOT a.atthasdef AND a.attidentity = '', u.type, u.typmod
             FROM pg_catalog.pg_attribute a
             JOIN under u ON u.attnum = a.attnum
             JOIN pg_catalog.pg_type t ON t.oid = u.type AND t.typtype <> 'd'
             WHERE a.attrelid = $1 ORDER BY a.attnum",
            &[self.oid.into()],
            |row| {
                let (number, name, type_oid, typmod) = (row.get(1)?, row.text(2)?, row.get(3)?, row.get(4)?);
                let (type_name, not_null, generated) = (row.text(5)?, row.get(6)?, row.get(7)?);
                let (must_be_given, base, base_typmod) = (row.get(8)?, row.get(9)?, row.get(10)?);
                Ok((|| {
                    Some(Attribute {
                        number: number?,
                        name: name?,
                        type_oid: type_oid?,
                        typmod: typmod?,
                        type_name: type_name?,
                        base: base?,
                        base_typmod: base_typmod?,
                        not_null: not_null?,
                        must_be_given: must_be_given?,
                        generated: generated?,
                    })
                })())
            },
        )?;
        Ok(attributes.into_iter().flatten().collect())
    }
}

impl Attribute {
    /// Checks that `rule` can fill this column.
    pub(crate) fn check(&self, rule: &Rule) -> Result<(), Error> {
        let kind = rule.kind();
        let (name, allowed, fits) = match rule {
            // These two types truncate longer texts without an error.
            Rule::Copy(_) => (
                "copy",
                "any but name and \"char\"",
                ![pg_sys::NAMEOID, pg_sys::CHAROID].contains(&self.base),
            ),
            Rule::Mask(_) => (
                "mask",
                "text or character varying",
                [pg_sys::TEXTOID, pg_sys::VARCHAROID].contains(&self.base),
            ),
            Rule::Version(_) => (
                "version",
                "integer, bigint or numeric",
                [pg_sys::INT4OID, pg_sys::INT8OID, pg_sys::NUMERICOID].contains(&self.base),
            ),
            Rule::SentDate => ("sent_date", "date", self.takes(kind)),
            Rule::SentAt => ("sent_at", "timestamp with time zone", self.takes(kind)),
            Rule::MessageId => ("message_id", "uuid", self.takes(kind)),
        };
        if self.generated {
            return Err(Error::GeneratedColumn { column: self.name.clone() });
        }
        if !fits {
            let (column, found) = (self.name.clone(), self.type_name.clone());
            return Err(Error::ColumnType { column, found, rule: name, allowed });
        }
        Ok(())
    }

    /// Whether the column's base type takes values of `kind` without a conversion.
    pub(crate) fn takes(&self, kind: Kind) -> bool {
        let base = self.base;
        match kind {
            Kind::Text => base == pg_sys::TEXTOID || base == pg_sys::VARCHAROID,
            Kind::Integer => base == pg_sys::INT4OID,
            Kind::Date => base == pg_sys::DATEOID,
            Kind::Timestamp => base == pg_sys::TIMESTAMPTZOID,
            Kind::Uuid => base == pg_sys::UUIDOID,
        }
    }

    /// Returns the category of the column's base type, as in `pg_type.typcategory`.
    pub(crate) fn category(&self) -> u8 {
        let (mut category, mut preferred) = (0, false);
        #[expect(unsafe_code, reason = "calls Postgres")]
        // SAFETY: pointers to locals; the type is that of a column.
        unsafe {
            pg_sys::get_type_category_preferred(self.base, &raw mut category, &raw mut preferred);
        }
        letter(category)
    }

    /// Whether the column takes a text without a cast. A cast would be wrong here: an explicit cast to `varchar(n)`
    /// truncates a text that an assignment refuses.
    pub(crate) fn is_text(&self) -> bool {
        [pg_sys::TEXTOID, pg_sys::VARCHAROID, pg_sys::BPCHAROID].contains(&self.base)
    }

    /// Whether an open relation still has this column as it was read.
    ///
    /// # Safety
    /// The relation is open.
    #[expect(unsafe_code, reason = "reads Postgres's structs")]
    pub(crate) unsafe fn is_in(&self, relation: pg_sys::Relation) -> bool {
        // SAFETY: an open relation has a descriptor with every column that it ever had, each with a name.
        unsafe {
            let index = usize::try_from(self.number - 1).unwrap_or(usize::MAX);
            columns_of(&*(*relation).rd_att).get(index).is_some_and(|column| {
                !column.attisdropped
                    && (column.atttypid, column.atttypmod) == (self.type_oid, self.typmod)
                    && CStr::from_ptr(column.attname.data.as_ptr()).to_bytes() == self.name.as_bytes()
            })
        }
    }

    /// Returns the maximum length of a text in the column, in characters, if it has one.
    pub(crate) fn limit(&self) -> Option<usize> {
        // The modifier includes the length word of a varlena (varchar.c).
        let length = usize::try_from(self.base_typmod).ok()?.checked_sub(pg_sys::VARHDRSZ)?;
        [pg_sys::VARCHAROID, pg_sys::BPCHAROID].contains(&self.base).then_some(length)
    }
}

/// Opens a relation for `act` if its columns are unchanged since they were read; otherwise returns an error. The lock lasts
/// until the end of the transaction, as for any insert, so the columns stay unchanged. After an error, the end of the
/// (sub)transaction closes the relation.
pub(crate) fn with_unchanged<R>(
    oid: pg_sys::Oid,
    columns: &[Attribute],
    act: impl FnOnce(pg_sys::Relation) -> R,
) -> Result<R, Error> {
    #[expect(unsafe_code, reason = "calls Postgres")]
    // SAFETY: the opened relation is closed. An error raised within `act` leaves that to the (sub)transaction.
    unsafe {
        let relation = pg_sys::try_relation_open(oid, pg_sys::RowExclusiveLock.cast_signed());
        if relation.is_null() {
            return Err(Error::Dropped);
        }
        let unchanged = columns.iter().all(|column| column.is_in(relation));
        let result = if unchanged { Ok(act(relation)) } else { Err(Error::Altered) };
        pg_sys::relation_close(relation, pg_sys::NoLock.cast_signed());
        result
    }
}
