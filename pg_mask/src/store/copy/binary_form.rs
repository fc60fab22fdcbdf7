//! Converts fields from the binary form that a rule produces to the binary form of the column's type.

use std::mem::zeroed;

use masking::memory::OutOfMemory;
use masking::{Kind, Row, Rows};
use pgrx::memcxt::PgMemoryContexts;
use pgrx::pg_sys;
use pgrx::varlena;

use super::Column;
use crate::pg::arrays::fixed;
use crate::pg::catalog::Attribute;
use crate::pg::compat::letter;
use crate::pg::log::quietly;
use crate::pg::subtransaction::in_context;
use crate::pg::values::Reader;

/// The conversion of a field to the binary form of the column's type.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Form {
    /// None: the field already has that form.
    Same,
    /// JSON, after the version number in `jsonb`'s binary form.
    Jsonb,
    /// An `integer` as a `bigint`.
    Bigint,
    /// A text, or an integer as a text, through the type's input function and its binary output function.
    Through { type_oid: pg_sys::Oid, modifier: i32, integer: bool },
}

impl Form {
    /// Returns the conversion of values of `kind` for this column, or none if the column's type has no binary form.
    pub(super) fn of(attribute: &Attribute, kind: Kind) -> Option<Self> {
        const TEXTS: [pg_sys::Oid; 4] =
            [pg_sys::TEXTOID, pg_sys::VARCHAROID, pg_sys::BPCHAROID, pg_sys::JSONOID];
        // A domain reads the binary form of its base type, and checks the value.
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

/// Returns the rows in `order` in the columns' binary forms. Returns none if they already have those forms.
pub(super) fn convert(rows: &Rows, order: &[usize], columns: &[Column]) -> Result<Option<Rows>, OutOfMemory> {
    if columns.iter().all(|column| column.form == Form::Same) {
        return Ok(None);
    }
    quietly(|| convert_fields(rows, order, columns)).map(Some)
}

fn convert_fields(rows: &Rows, order: &[usize], columns: &[Column]) -> Result<Rows, OutOfMemory> {
    let mut writers: Vec<Writer> = columns.iter().map(|column| Writer::new(column.form)).collect();
    // Memory that the types' functions allocate is freed after each row.
    let mut memory = PgMemoryContexts::new("pg_mask form");
    let mut converted = Rows::new(columns.len());
    for &number in order {
        converted.add(|row| {
            in_context(&memory, || {
                for (field, writer) in rows.fields(number).zip(&mut writers) {
                    match field {
                        Some(field) => writer.write(field, row),
                        None => row.null(),
                    }
                }
            });
            #[expect(unsafe_code, reason = "calls Postgres")]
            // SAFETY: nothing points into the memory that is emptied.
            unsafe {
                memory.reset();
            }
            Ok::<_, OutOfMemory>(())
        })?;
    }
    Ok(converted)
}

/// Writes the fields of a column in the form of its type.
enum Writer {
    Same,
    Jsonb,
    Bigint,
    Through { reader: Reader, send: Send },
}

/// The function that returns the binary form of a type.
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
        // SAFETY: pointers to locals. Memory that the function keeps is in the current memory context, which is the chunk's.
        unsafe {
            pg_sys::getTypeBinaryOutputInfo(type_oid, &raw mut oid, &raw mut varlena);
            let mut send = Self(zeroed());
            pg_sys::fmgr_info(oid, &raw mut send.0);
            send
        }
    }

    fn write(&mut self, value: pg_sys::Datum, row: &mut Row<'_>) {
        // SAFETY: the value is of the function's type. The allocated memory is read before it is freed.
        unsafe {
            let bytes = pg_sys::SendFunctionCall(&raw mut self.0, value);
            row.field(varlena::varlena_to_byte_slice(bytes));
        }
    }
}

/// Whether a type, and the types it consists of, can be written and read in binary without a loss.
#[expect(unsafe_code, reason = "calls Postgres")]
fn has_binary_form(type_oid: pg_sys::Oid) -> bool {
    // The binary form of xml leaves out the declaration in front, which the text keeps.
    if type_oid == pg_sys::XMLOID {
        return false;
    }
    // SAFETY: the type belongs to a column or is a part of such a type, so it exists. The row of the cache is released.
    unsafe {
        let tuple =
            pg_sys::SearchSysCache1(pg_sys::SysCacheIdentifier::TYPEOID.cast_signed(), type_oid.into());
        if tuple.is_null() {
            return false;
        }
        #[expect(clippy::cast_ptr_alignment, reason = "a row of the catalog is aligned as its struct")]
        let row = &*pg_sys::GETSTRUCT(tuple).cast::<pg_sys::FormData_pg_type>();
        let has = row.typsend != pg_sys::InvalidOid && row.typreceive != pg_sys::InvalidOid;
        let kind = letter(row.typtype);
        pg_sys::ReleaseSysCache(tuple);
        let part = match kind {
            // Each column of a row type would have to be checked. INSERT writes row types instead.
            pg_sys::TYPTYPE_COMPOSITE => return false,
            pg_sys::TYPTYPE_RANGE => pg_sys::get_range_subtype(type_oid),
            pg_sys::TYPTYPE_MULTIRANGE => pg_sys::get_multirange_range(type_oid),
            pg_sys::TYPTYPE_DOMAIN => pg_sys::getBaseType(type_oid),
            _ => pg_sys::get_element_type(type_oid),
        };
        has && (part == pg_sys::InvalidOid || has_binary_form(part))
    }
}
