//! Values as a statement takes those of many rows: an array a column.

use masking::Kind;
use pgrx::pg_sys;

/// The type of an array of `kind`.
pub(crate) fn array_oid(kind: Kind) -> pg_sys::Oid {
    match kind {
        Kind::Text => pg_sys::TEXTARRAYOID,
        Kind::Integer => pg_sys::INT4ARRAYOID,
        Kind::Date => pg_sys::DATEARRAYOID,
        Kind::Timestamp => pg_sys::TIMESTAMPTZARRAYOID,
        Kind::Uuid => pg_sys::UUIDARRAYOID,
    }
}

/// The type of `kind`: its oid, length, whether it is passed by value, alignment. What `pg_type` says of it, which never
/// changes for these.
fn layout(kind: Kind) -> (pg_sys::Oid, i32, bool, u8) {
    match kind {
        Kind::Text => (pg_sys::TEXTOID, -1, false, pg_sys::TYPALIGN_INT),
        Kind::Integer => (pg_sys::INT4OID, 4, true, pg_sys::TYPALIGN_INT),
        Kind::Date => (pg_sys::DATEOID, 4, true, pg_sys::TYPALIGN_INT),
        Kind::Timestamp => (pg_sys::TIMESTAMPTZOID, 8, true, pg_sys::TYPALIGN_DOUBLE),
        Kind::Uuid => (pg_sys::UUIDOID, 16, false, pg_sys::TYPALIGN_CHAR),
    }
}

/// A field as Postgres passes a value of its kind. It may point to the field, so it lives no longer.
fn datum(kind: Kind, field: &[u8]) -> pg_sys::Datum {
    match kind {
        Kind::Text => {
            // No single text is near 2 GB: it came out of a Postgres value, of 1 GB at most.
            let length = i32::try_from(field.len()).unwrap_or(i32::MAX);
            #[expect(unsafe_code, reason = "calls Postgres")]
            // SAFETY: pointer and length are those of one slice, which is copied.
            unsafe { pg_sys::cstring_to_text_with_len(field.as_ptr().cast(), length) }.into()
        }
        Kind::Integer | Kind::Date => pg_sys::Datum::from(i32::from_be_bytes(fixed(field))),
        Kind::Timestamp => pg_sys::Datum::from(i64::from_be_bytes(fixed(field))),
        Kind::Uuid => pg_sys::Datum::from(field.as_ptr()),
    }
}

/// A field of a type of fixed length; zeros where it has another.
pub(crate) fn fixed<const N: usize>(field: &[u8]) -> [u8; N] {
    field.try_into().unwrap_or([0; N])
}

/// Fields of one kind, NULL where there is none, as a Postgres array in the current memory context.
pub(crate) fn array<'r>(
    kind: Kind,
    fields: impl ExactSizeIterator<Item = Option<&'r [u8]>>,
) -> pg_sys::Datum {
    let (oid, length, by_value, alignment) = layout(kind);
    let mut elements = Vec::with_capacity(fields.len());
    let mut nulls = Vec::with_capacity(fields.len());
    for field in fields {
        nulls.push(field.is_none());
        elements.push(field.map_or(pg_sys::Datum::null(), |field| datum(kind, field)));
    }
    #[expect(unsafe_code, reason = "calls Postgres")]
    // SAFETY: both vectors have the length given as the one dimension; the layout is that of the type; what elements
    // point to outlives the call, which copies it.
    unsafe {
        let mut dimension = i32::try_from(elements.len()).unwrap_or(i32::MAX);
        let mut lower_bound = 1;
        pg_sys::construct_md_array(
            elements.as_mut_ptr(),
            nulls.as_mut_ptr(),
            1,
            &raw mut dimension,
            &raw mut lower_bound,
            oid,
            length,
            by_value,
            alignment.cast_signed(),
        )
        .into()
    }
}
