//! The binary forms of column types: from the one in which a rule fills a column to that of the column's type.

use std::convert::Infallible;
use std::ffi::CString;
use std::mem::zeroed;

use masking::{Kind, Row, Rows};
use pgrx::memcxt::PgMemoryContexts;
use pgrx::pg_sys;
use pgrx::varlena;

use super::Column;
use crate::arrays::fixed;
use crate::catalog::Attribute;

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
    Through { type_oid: pg_sys::Oid, integer: bool },
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
                let through = Self::Through { type_oid: base, integer: kind == Kind::Integer };
                has_binary_form(base).then_some(through)
            }
            Kind::Date | Kind::Timestamp | Kind::Uuid => Some(Self::Same),
        }
    }
}

/// The rows in `order` in the forms of the columns; none where they are in those already.
pub(super) fn convert(rows: &Rows, order: &[usize], columns: &[Column]) -> Option<Rows> {
    if columns.iter().all(|column| column.form == Form::Same) {
        return None;
    }
    let mut writers: Vec<Writer> = columns.iter().map(|column| Writer::new(column.form)).collect();
    // What the types' functions allocate goes with each row.
    let mut memory = PgMemoryContexts::new("pg_mask form");
    let mut converted = Rows::new(columns.len());
    for &number in order {
        let Ok(()) = converted.add(|row| {
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
            Ok::<_, Infallible>(())
        });
    }
    Some(converted)
}

/// Writes the fields of a column in its form.
enum Writer {
    Same,
    Jsonb,
    Bigint,
    Through { functions: Functions, integer: bool },
}

/// The functions of a type, looked up once for many values.
struct Functions {
    input: pg_sys::FmgrInfo,
    parameter: pg_sys::Oid,
    send: pg_sys::FmgrInfo,
}

impl Writer {
    fn new(form: Form) -> Self {
        match form {
            Form::Same => Self::Same,
            Form::Jsonb => Self::Jsonb,
            Form::Bigint => Self::Bigint,
            Form::Through { type_oid, integer } => {
                Self::Through { functions: Functions::of(type_oid), integer }
            }
        }
    }

    fn write(&mut self, field: &[u8], row: &mut Row<'_>) {
        match self {
            Self::Same => row.field(field),
            Self::Jsonb => row.joined([&[1], field]),
            Self::Bigint => row.field(&i64::from(i32::from_be_bytes(fixed(field))).to_be_bytes()),
            Self::Through { functions, integer: false } => functions.write(field.to_vec(), row),
            Self::Through { functions, integer: true } => {
                functions.write(i32::from_be_bytes(fixed(field)).to_string().into_bytes(), row);
            }
        }
    }
}

#[expect(unsafe_code, reason = "calls Postgres")]
impl Functions {
    fn of(type_oid: pg_sys::Oid) -> Self {
        let (mut input, mut parameter, mut send, mut varlena) =
            (pg_sys::InvalidOid, pg_sys::InvalidOid, pg_sys::InvalidOid, false);
        // SAFETY: pointers to locals. What the functions keep is in the current memory context, that of the chunk.
        unsafe {
            pg_sys::getTypeInputInfo(type_oid, &raw mut input, &raw mut parameter);
            pg_sys::getTypeBinaryOutputInfo(type_oid, &raw mut send, &raw mut varlena);
            let mut functions = Self { input: zeroed(), parameter, send: zeroed() };
            pg_sys::fmgr_info(input, &raw mut functions.input);
            pg_sys::fmgr_info(send, &raw mut functions.send);
            functions
        }
    }

    /// Writes what the type makes of a text; an error of Postgres's own where it refuses it.
    fn write(&mut self, text: Vec<u8>, row: &mut Row<'_>) {
        // A NUL cannot come in: such an event was a reject before.
        let text = CString::new(text).unwrap_or_default();
        // SAFETY: the string outlives the call, and what the functions allocate is read before it is freed.
        unsafe {
            let value =
                pg_sys::InputFunctionCall(&raw mut self.input, text.as_ptr().cast_mut(), self.parameter, -1);
            let bytes = pg_sys::SendFunctionCall(&raw mut self.send, value);
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
