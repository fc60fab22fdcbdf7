//! Fields of rows as values of their columns' types.
//!
//! Types are identified by OID, and their own input functions read the fields. A statement with a cast would name the type,
//! and the owner of the type's schema could put another one in its place.

use std::mem::zeroed;

use masking::Kind;
use pgrx::pg_sys;

use crate::pg::arrays::fixed;
use crate::pg::catalog::Attribute;

/// Reads the fields of one column, for many rows.
pub(crate) enum Reader {
    /// Takes a text of any length unchanged.
    Text,
    /// Takes a text of at most this many bytes unchanged. Longer texts go through the type's input function.
    Short { characters: usize, input: Function },
    /// Reads a text, or an integer as a text, through the type's input function.
    Input { input: Function, integer: bool },
    /// Reads a field that is already in the type's binary form.
    Receive(Function),
}

/// A function that makes values of a type, and its arguments.
pub(crate) struct Function {
    call: pg_sys::FmgrInfo,
    parameter: pg_sys::Oid,
    modifier: i32,
}

impl Reader {
    /// Returns the reader for fields of `kind` in a column.
    pub(crate) fn of(attribute: &Attribute, kind: Kind) -> Self {
        let (type_oid, modifier) = (attribute.type_oid, attribute.typmod);
        let input = || Function::input(type_oid, modifier);
        match kind {
            Kind::Text if type_oid == pg_sys::TEXTOID => Self::Text,
            Kind::Text if type_oid == pg_sys::VARCHAROID => match attribute.limit() {
                None => Self::Text,
                Some(characters) => Self::Short { characters, input: input() },
            },
            Kind::Text => Self::Input { input: input(), integer: false },
            Kind::Integer if attribute.base != pg_sys::INT4OID => {
                Self::Input { input: input(), integer: true }
            }
            Kind::Integer | Kind::Date | Kind::Timestamp | Kind::Uuid => {
                Self::Receive(Function::receive(type_oid, modifier))
            }
        }
    }

    /// Returns the reader that passes texts, or integers as texts, to a type's input function.
    pub(crate) fn by_input(type_oid: pg_sys::Oid, modifier: i32, integer: bool) -> Self {
        Self::Input { input: Function::input(type_oid, modifier), integer }
    }

    /// Whether the type's input function reads every field, and so may print a notice about it.
    pub(crate) fn parses(&self) -> bool {
        matches!(self, Self::Input { .. })
    }

    /// Checks whether NULL is allowed, which only a domain can refuse. A refusal is Postgres's own error.
    pub(crate) fn check_null(attribute: &Attribute) {
        if attribute.type_oid != attribute.base {
            Function::input(attribute.type_oid, attribute.typmod).read_null();
        }
    }

    /// Returns the value of a field, in the current memory context. If the type refuses it, raises Postgres's own error.
    pub(crate) fn read(&mut self, field: &[u8]) -> pg_sys::Datum {
        match self {
            Self::Text => text(field),
            // A text has at most as many characters as bytes.
            Self::Short { characters, .. } if field.len() <= *characters => text(field),
            Self::Short { input, .. } | Self::Input { input, integer: false } => input.read_text(field),
            Self::Input { input, integer: true } => {
                input.read_text(i32::from_be_bytes(fixed(field)).to_string().as_bytes())
            }
            Self::Receive(receive) => receive.read_binary(field),
        }
    }
}

/// Returns a copy of a field as a text.
pub(crate) fn text(field: &[u8]) -> pg_sys::Datum {
    // No single text approaches 2 GB: it came from a Postgres value, which has at most 1 GB.
    let length = i32::try_from(field.len()).unwrap_or(i32::MAX);
    #[expect(unsafe_code, reason = "calls Postgres")]
    // SAFETY: pointer and length belong to one slice, which is copied.
    unsafe { pg_sys::cstring_to_text_with_len(field.as_ptr().cast(), length) }.into()
}

#[expect(unsafe_code, reason = "calls Postgres")]
impl Function {
    /// Returns the input function of a type. The current memory context must outlive its use.
    fn input(type_oid: pg_sys::Oid, modifier: i32) -> Self {
        Self::new(pg_sys::getTypeInputInfo, type_oid, modifier)
    }

    /// Returns the function that reads a type's binary form.
    fn receive(type_oid: pg_sys::Oid, modifier: i32) -> Self {
        Self::new(pg_sys::getTypeBinaryInputInfo, type_oid, modifier)
    }

    fn new(
        find: unsafe fn(pg_sys::Oid, *mut pg_sys::Oid, *mut pg_sys::Oid),
        type_oid: pg_sys::Oid,
        modifier: i32,
    ) -> Self {
        let (mut oid, mut parameter) = (pg_sys::InvalidOid, pg_sys::InvalidOid);
        // SAFETY: pointers to locals. The type is a column's. fmgr_info overwrites the zeros.
        unsafe {
            find(type_oid, &raw mut oid, &raw mut parameter);
            let mut call: pg_sys::FmgrInfo = zeroed();
            pg_sys::fmgr_info(oid, &raw mut call);
            Self { call, parameter, modifier }
        }
    }

    fn read_text(&mut self, text: &[u8]) -> pg_sys::Datum {
        // SAFETY: the copy ends with a NUL, and outlives the call. It is in Postgres's memory, so running out of memory is
        // an error.
        unsafe {
            // The text contains no NUL: such an event was rejected earlier.
            let text = pg_sys::pnstrdup(text.as_ptr().cast(), text.len());
            pg_sys::InputFunctionCall(&raw mut self.call, text, self.parameter, self.modifier)
        }
    }

    fn read_null(&mut self) {
        // SAFETY: a NULL pointer stands for NULL. The input function of a domain isn't strict.
        unsafe {
            pg_sys::InputFunctionCall(
                &raw mut self.call,
                std::ptr::null_mut(),
                self.parameter,
                self.modifier,
            );
        }
    }

    fn read_binary(&mut self, field: &[u8]) -> pg_sys::Datum {
        let length = i32::try_from(field.len()).unwrap_or(i32::MAX);
        // SAFETY: the buffer points to the field during the call, which only reads it. A receive function must read all of
        // it, as COPY requires; the receive functions of these types do.
        unsafe {
            let mut buffer = pg_sys::StringInfoData {
                data: field.as_ptr().cast_mut().cast(),
                len: length,
                maxlen: length,
                cursor: 0,
            };
            pg_sys::ReceiveFunctionCall(&raw mut self.call, &raw mut buffer, self.parameter, self.modifier)
        }
    }
}
