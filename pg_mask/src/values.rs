//! Fields of rows as values of their columns' types.
//!
//! Types are known by OID, and their own input functions read the fields. A statement that casts would name the type, and
//! the owner of the type's schema could put another one in its place.

use std::mem::zeroed;

use masking::Kind;
use pgrx::pg_sys;

use crate::arrays::fixed;
use crate::catalog::Attribute;

/// Reads the fields of a column, many of them one after the other.
pub(crate) enum Reader {
    /// A text of any length, as it is.
    Text,
    /// A text of so many characters as it is. Other texts go through the type's input function.
    Short { characters: usize, input: Function },
    /// A text, or an integer as a text, through the type's input function.
    Input { input: Function, integer: bool },
    /// A field that has the binary form of the type already.
    Receive(Function),
}

/// A function that makes values of a type, and what it wants to know.
pub(crate) struct Function {
    call: pg_sys::FmgrInfo,
    parameter: pg_sys::Oid,
    modifier: i32,
}

impl Reader {
    /// Returns the reader of fields of `kind` for a column.
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

    /// Returns the reader of texts, or of integers as texts, by the input function of a type.
    pub(crate) fn by_input(type_oid: pg_sys::Oid, modifier: i32, integer: bool) -> Self {
        Self::Input { input: Function::input(type_oid, modifier), integer }
    }

    /// Checks NULL, which only a domain can refuse, by an error of Postgres's own.
    pub(crate) fn check_null(attribute: &Attribute) {
        if attribute.type_oid != attribute.base {
            Function::input(attribute.type_oid, attribute.typmod).read_null();
        }
    }

    /// Returns the value of a field, in the current memory context; an error of Postgres's own where the type refuses it.
    pub(crate) fn read(&mut self, field: &[u8]) -> pg_sys::Datum {
        match self {
            Self::Text => text(field),
            // So many bytes are so many characters at most.
            Self::Short { characters, .. } if field.len() <= *characters => text(field),
            Self::Short { input, .. } | Self::Input { input, integer: false } => input.read_text(field),
            Self::Input { input, integer: true } => {
                input.read_text(i32::from_be_bytes(fixed(field)).to_string().as_bytes())
            }
            Self::Receive(receive) => receive.read_binary(field),
        }
    }
}

/// Returns a field as a text, which is a copy.
pub(crate) fn text(field: &[u8]) -> pg_sys::Datum {
    // No single text is near 2 GB: it came out of a Postgres value, of 1 GB at most.
    let length = i32::try_from(field.len()).unwrap_or(i32::MAX);
    #[expect(unsafe_code, reason = "calls Postgres")]
    // SAFETY: pointer and length are those of one slice, which is copied.
    unsafe { pg_sys::cstring_to_text_with_len(field.as_ptr().cast(), length) }.into()
}

#[expect(unsafe_code, reason = "calls Postgres")]
impl Function {
    /// Returns the input function of a type. The current memory context must outlive its use.
    fn input(type_oid: pg_sys::Oid, modifier: i32) -> Self {
        Self::new(pg_sys::getTypeInputInfo, type_oid, modifier)
    }

    /// Returns the function that reads the binary form of a type.
    fn receive(type_oid: pg_sys::Oid, modifier: i32) -> Self {
        Self::new(pg_sys::getTypeBinaryInputInfo, type_oid, modifier)
    }

    fn new(
        find: unsafe fn(pg_sys::Oid, *mut pg_sys::Oid, *mut pg_sys::Oid),
        type_oid: pg_sys::Oid,
        modifier: i32,
    ) -> Self {
        let (mut oid, mut parameter) = (pg_sys::InvalidOid, pg_sys::InvalidOid);
        // SAFETY: pointers to locals; the type is that of a column. Zeros are what fmgr_info overwrites.
        unsafe {
            find(type_oid, &raw mut oid, &raw mut parameter);
            let mut call: pg_sys::FmgrInfo = zeroed();
            pg_sys::fmgr_info(oid, &raw mut call);
            Self { call, parameter, modifier }
        }
    }

    fn read_text(&mut self, text: &[u8]) -> pg_sys::Datum {
        // SAFETY: the copy ends with a NUL, and outlives the call. It is Postgres's memory, so running out of it is an error.
        unsafe {
            // No NUL is in the text: such an event was a reject before.
            let text = pg_sys::pnstrdup(text.as_ptr().cast(), text.len());
            pg_sys::InputFunctionCall(&raw mut self.call, text, self.parameter, self.modifier)
        }
    }

    fn read_null(&mut self) {
        // SAFETY: a NULL pointer stands for NULL; the input function of a domain is not strict.
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
        // SAFETY: the buffer points to the field for the time of the call, which only reads it. A receive function
        // must read all of it, as COPY demands; those of these types do.
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
