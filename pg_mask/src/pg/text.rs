//! Texts as Postgres stores them: read in place, and written directly into the result.

use pgrx::callconv::{Arg, ArgAbi, BoxRet, FcInfo};
use pgrx::datum::UnboxDatum;
use pgrx::pgrx_sql_entity_graph::metadata::{
    ArgumentError, ReturnsError, ReturnsRef, SqlMappingRef, SqlTranslatable, TypeOrigin,
};
use pgrx::{FromDatum, IntoDatum, pg_sys, varlena};

use crate::error::{Error, Raise, raise};
use crate::pg::unguarded;

/// Returns a text in place. Copies it only if it was compressed or stored out of line.
///
/// Fails if it is not UTF-8. CREATE EXTENSION refuses databases with another encoding, but Postgres does not check every text
/// that gets in: not what COPY reads with `ENCODING 'SQL_ASCII'`, and not the settings of a connection.
///
/// # Safety
/// `datum` is a text that lives as long as `'a`, or as the memory context of the row.
#[expect(unsafe_code, reason = "reads Postgres's structs")]
pub(crate) unsafe fn text<'a>(datum: pg_sys::Datum) -> Result<&'a str, Error> {
    // SAFETY: the caller's promise.
    let bytes = unsafe { varlena::varlena_to_byte_slice(detoasted(datum)) };
    std::str::from_utf8(bytes).map_err(|_| Error::NotUtf8)
}

/// Returns a value as it is, or decompressed.
///
/// # Safety
/// `datum` is a text.
#[expect(unsafe_code, reason = "reads Postgres's structs")]
unsafe fn detoasted(datum: pg_sys::Datum) -> *mut pg_sys::varlena {
    // SAFETY: the caller's promise.
    unsafe {
        let value = datum.cast_mut_ptr::<pg_sys::varlena>();
        if varlena::varatt_is_1b_e(value) || varlena::varatt_is_4b_c(value) {
            pg_sys::pg_detoast_datum_packed(value)
        } else {
            value
        }
    }
}

/// A text that a function takes or returns, in Postgres's memory.
///
/// A `String` would be allocated and copied once more, which takes as long as masking. A `&str` is detoasted by a guarded
/// call, whether it needs it or not, and pgrx does not check that it is UTF-8.
#[derive(Clone, Copy)]
pub(crate) struct Text(pg_sys::Datum);

impl Text {
    /// Returns the text, which lives as long as the memory context in which it was written. Fails if it is not UTF-8.
    pub(crate) fn as_str(&self) -> Result<&str, Error> {
        #[expect(unsafe_code, reason = "reads Postgres's structs")]
        // SAFETY: it is a text (see `write` and `FromDatum`), and that context outlives every use of it.
        unsafe {
            text(self.0)
        }
    }

    /// Returns the bytes of the text, for masks: each byte of them is checked anyway.
    pub(crate) fn as_bytes(&self) -> &[u8] {
        #[expect(unsafe_code, reason = "reads Postgres's structs")]
        // SAFETY: as for `as_str`.
        unsafe {
            varlena::varlena_to_byte_slice(detoasted(self.0))
        }
    }

    /// Returns a copy of a text.
    pub(crate) fn copy_of(text: &str) -> Self {
        let copied = Self::write(text.len(), |out| {
            out.copy_from_slice(text.as_bytes());
            Ok::<_, Error>(text.len())
        });
        copied.or_raise()
    }

    /// Creates a text of up to `most` bytes. `write` writes the bytes and returns their number. They must be UTF-8.
    pub(crate) fn write<E>(
        most: usize,
        write: impl FnOnce(&mut [u8]) -> Result<usize, E>,
    ) -> Result<Self, E> {
        #[expect(unsafe_code, reason = "calls Postgres")]
        // SAFETY: the allocation has room for the header and the bytes, which are zero at first. Its size is at most a third
        // more than that of a Postgres value. So it fits in the header, or palloc has raised an error.
        unsafe {
            let text = unguarded::palloc0(pg_sys::VARHDRSZ + most).cast::<pg_sys::varlena>();
            let bytes = text.cast::<u8>().add(pg_sys::VARHDRSZ);
            let written = write(std::slice::from_raw_parts_mut(bytes, most))?.min(most);
            let size = i32::try_from(pg_sys::VARHDRSZ + written).unwrap_or(i32::MAX);
            varlena::set_varsize_4b(text, size);
            Ok(Self(text.into()))
        }
    }
}

#[expect(unsafe_code, reason = "pgrx asks for the SQL type of what a function returns")]
// SAFETY: it is a text (see `write`).
unsafe impl SqlTranslatable for Text {
    const TYPE_IDENT: &'static str = pgrx::pgrx_resolved_type!(Text);
    const TYPE_ORIGIN: TypeOrigin = TypeOrigin::External;
    const ARGUMENT_SQL: Result<SqlMappingRef, ArgumentError> = Ok(SqlMappingRef::literal("text"));
    const RETURN_SQL: Result<ReturnsRef, ReturnsError> = Ok(ReturnsRef::One(SqlMappingRef::literal("text")));
}

#[expect(unsafe_code, reason = "pgrx hands over arguments and columns by it")]
impl FromDatum for Text {
    unsafe fn from_polymorphic_datum(datum: pg_sys::Datum, is_null: bool, _: pg_sys::Oid) -> Option<Self> {
        (!is_null).then_some(Self(datum))
    }
}

impl IntoDatum for Text {
    fn into_datum(self) -> Option<pg_sys::Datum> {
        Some(self.0)
    }

    fn type_oid() -> pg_sys::Oid {
        pg_sys::TEXTOID
    }
}

#[expect(unsafe_code, reason = "pgrx asks how a function takes it")]
// SAFETY: the argument is declared as text. It lives until the function returns, and so do references made from it.
unsafe impl<'fcx> ArgAbi<'fcx> for Text {
    unsafe fn unbox_arg_unchecked(arg: Arg<'_, 'fcx>) -> Self {
        // SAFETY: it reads the datum.
        unsafe { arg.unbox_arg_using_from_datum() }
            .unwrap_or_else(|| raise(Error::Internal("an argument is NULL")))
    }
}

#[expect(unsafe_code, reason = "pgrx asks for the datum of what a function returns")]
// SAFETY: the text is allocated in the memory context in which the function was called.
unsafe impl BoxRet for Text {
    unsafe fn box_into<'fcx>(self, fcinfo: &mut FcInfo<'fcx>) -> pgrx::datum::Datum<'fcx> {
        // SAFETY: the datum is a text, which the function is declared to return.
        unsafe { fcinfo.return_raw_datum(self.0) }
    }
}

/// A text from the catalogs. Bytes that are not UTF-8 are replaced, because anybody can give an object a name with some.
pub(crate) struct Name(pub(crate) String);

impl Name {
    /// # Safety
    /// `datum` is a text.
    #[expect(unsafe_code, reason = "reads Postgres's structs")]
    unsafe fn of(datum: pg_sys::Datum) -> Self {
        // SAFETY: the caller's promise.
        let bytes = unsafe { varlena::varlena_to_byte_slice(detoasted(datum)) };
        Self(String::from_utf8_lossy(bytes).into_owned())
    }
}

#[expect(unsafe_code, reason = "pgrx hands over columns by it")]
impl FromDatum for Name {
    unsafe fn from_polymorphic_datum(datum: pg_sys::Datum, is_null: bool, _: pg_sys::Oid) -> Option<Self> {
        // SAFETY: pgrx has compared the type.
        (!is_null).then(|| unsafe { Self::of(datum) })
    }
}

#[expect(unsafe_code, reason = "pgrx hands over elements of arrays by it")]
// SAFETY: the element is a text, as pgrx has compared the array's type.
unsafe impl UnboxDatum for Name {
    type As<'src> = Self;

    unsafe fn unbox<'src>(datum: pgrx::datum::Datum<'src>) -> Self
    where
        Self: 'src,
    {
        // SAFETY: as above.
        unsafe { Self::of(datum.sans_lifetime()) }
    }
}

impl IntoDatum for Name {
    fn into_datum(self) -> Option<pg_sys::Datum> {
        self.0.into_datum()
    }

    fn type_oid() -> pg_sys::Oid {
        pg_sys::TEXTOID
    }
}
