//! The binary forms of column types: from the one in which a rule fills a column to that of the column's type.

use std::mem::zeroed;

use masking::memory::OutOfMemory;
use masking::{Kind, Row, Rows};
use pgrx::memcxt::PgMemoryContexts;
use pgrx::pg_sys;
use pgrx::varlena;

use super::Column;
use crate::arrays::fixed;
use crate::catalog::Attribute;
use crate::values::Reader;

/// How a field becomes what the column's type reads.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Form {
    /// It is that already.
    Same,
    /// JSON, behind the number of `jsonb`'s binary form.
    Jsonb,
    /// An `integer` as a `bigint`.
    Bigint,
    /// A text, or an integer as one, through the functions of the type: its input, and its binary output.
    Through { type_oid: pg_sys::Oid, modifier: i32, integer: bool },
}

impl Form {
    /// The form of values of `kind` for this column; none where its type has no binary form.
    pub(super) fn of(attribute: &Attribute, kind: Kind) -> Option<Self> {
        const TEXTS: [pg_sys::Oid; 4] =
            [pg_sys::TEXTOID, pg_sys::VARCHAROID, pg_sys::BPCHAROID, pg_sys::JSONOID];
        // A domain reads what its type does, and checks it.
        let base = attribute.base;
        match kind {
            Kind::Text if TEXTS.contains(&base) => Some(Self::Same),
            Kind::Text if base == pg_sys::JSONBOID => Some(Self::Jsonb),
            Kind::Integer if base == pg_sys::INT8OID => Some(Self::Bigint),
            Kind::Integer if base == pg_sys::INT4OID => Some(Self::Same),
            Kind::Text | Kind::Integer => {
                let (modifier, integer) = (attribute.base_typmod, kind == Kind::Integer);
                let through = Self::Through { type_oid: base, modifier, integer };
                has_binary_form(base).then_some(through)
            }
            Kind::Date | Kind::Timestamp | Kind::Uuid => Some(Self::Same),
        }
    }
}

/// The rows in `order` in the forms of the columns; none where they are in those already.
pub(super) fn convert(rows: &Rows, order: &[usize], columns: &[Column]) -> Result<Option<Rows>, OutOfMemory> {
    if columns.iter().all(|column| column.form == Form::Same) {
        return Ok(None);
    }
    let mut writers: Vec<Writer> = columns.iter().map(|column| Writer::new(column.form)).collect();
    // What the types' functions allocate goes with each row.
    let mut memory = PgMemoryContexts::new("pg_mask form");
    let mut converted = Rows::new(columns.len());
    for &number in order {
        converted.add(|row| {
            #[expect(unsafe_code, reason = "calls Postgres")]
            // SAFETY: the context outlives the row; after an error the end of the subtransaction chooses the context.
            let before = unsafe { pg_sys::MemoryContextSwitchTo(memory.value()) };
            for (field, writer) in rows.fields(number).zip(&mut writers) {
                match field {
                    Some(field) => writer.write(field, row),
                    None => row.null(),
                }
            }
            #[expect(unsafe_code, reason = "calls Postgres")]
            // SAFETY: the context that was current is so again, and nothing points into what is emptied.
            unsafe {
                pg_sys::MemoryContextSwitchTo(before);
                memory.reset();
            }
            Ok::<_, OutOfMemory>(())
        })?;
    }
    Ok(Some(converted))
}

/// Writes the fields of a column in its form.
enum Writer {
    Same,
    Jsonb,
    Bigint,
    Through { reader: Reader, send: Send },
}

/// The function that gives the binary form of a type.
struct Send(pg_sys::FmgrInfo);

impl Writer {
    fn new(form: Form) -> Self {
        match form {
            Form::Same => Self::Same,
            Form::Jsonb => Self::Jsonb,
            Form::Bigint => Self::Bigint,
            Form::Through { type_oid, modifier, integer } => {
                let reader = Reader::by_input(type_oid, modifier, integer);
                Self::Through { reader, send: Send::of(type_oid) }
            }
        }
    }

    fn write(&mut self, field: &[u8], row: &mut Row<'_>) {
        match self {
            Self::Same => row.field(field),
            Self::Jsonb => row.joined([&[1], field]),
            Self::Bigint => row.field(&i64::from(i32::from_be_bytes(fixed(field))).to_be_bytes()),
            Self::Through { reader, send } => send.write(reader.read(field), row),
        }
    }
}

#[expect(unsafe_code, reason = "calls Postgres")]
impl Send {
    fn of(type_oid: pg_sys::Oid) -> Self {
        let (mut oid, mut varlena) = (pg_sys::InvalidOid, false);
        // SAFETY: pointers to locals. What the function keeps is in the current memory context, that of the chunk.
        unsafe {
            pg_sys::getTypeBinaryOutputInfo(type_oid, &raw mut oid, &raw mut varlena);
            let mut send = Self(zeroed());
            pg_sys::fmgr_info(oid, &raw mut send.0);
            send
        }
    }

    fn write(&mut self, value: pg_sys::Datum, row: &mut Row<'_>) {
        // SAFETY: the value is of the function's type; what it allocates is read before it is freed.
        unsafe {
            let bytes = pg_sys::SendFunctionCall(&raw mut self.0, value);
            row.field(varlena::varlena_to_byte_slice(bytes));
        }
    }
}

/// Whether a type, and what it is made of, can be written and read in binary without a loss.
#[expect(unsafe_code, reason = "calls Postgres")]
fn has_binary_form(type_oid: pg_sys::Oid) -> bool {
    // xml's leaves out the declaration in front, which the text keeps.
    if type_oid == pg_sys::XMLOID {
        return false;
    }
    // SAFETY: the type is of a column or a part of one, so it is there. The row of the cache is released.
    unsafe {
        let tuple =
            pg_sys::SearchSysCache1(pg_sys::SysCacheIdentifier::TYPEOID.cast_signed(), type_oid.into());
        if tuple.is_null() {
            return false;
        }
        #[expect(clippy::cast_ptr_alignment, reason = "a row of the catalog is aligned as its struct")]
        let row = &*pg_sys::GETSTRUCT(tuple).cast::<pg_sys::FormData_pg_type>();
        let has = row.typsend != pg_sys::InvalidOid && row.typreceive != pg_sys::InvalidOid;
        let kind = row.typtype.cast_unsigned();
        pg_sys::ReleaseSysCache(tuple);
        let part = match kind {
            // Of a row type each column would have to be looked at: that is left to INSERT.
            pg_sys::TYPTYPE_COMPOSITE => return false,
            pg_sys::TYPTYPE_RANGE => pg_sys::get_range_subtype(type_oid),
            pg_sys::TYPTYPE_MULTIRANGE => pg_sys::get_multirange_range(type_oid),
            pg_sys::TYPTYPE_DOMAIN => pg_sys::getBaseType(type_oid),
            _ => pg_sys::get_element_type(type_oid),
        };
        has && (part == pg_sys::InvalidOid || has_binary_form(part))
    }
}
