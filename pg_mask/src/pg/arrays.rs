//! Arrays for statements that take the values of many rows: one array per column.

use masking::Kind;
use pgrx::memcxt::PgMemoryContexts;
use pgrx::pg_sys;

use crate::pg::compat::c_letter;
use crate::pg::subtransaction::in_context;
use crate::pg::values::text;

/// Returns the type of an array of `kind`.
pub(crate) fn array_oid(kind: Kind) -> pg_sys::Oid {
    match kind {
        Kind::Text => pg_sys::TEXTARRAYOID,
        Kind::Integer => pg_sys::INT4ARRAYOID,
        Kind::Date => pg_sys::DATEARRAYOID,
        Kind::Timestamp => pg_sys::TIMESTAMPTZARRAYOID,
        Kind::Uuid => pg_sys::UUIDARRAYOID,
    }
}

/// Returns the layout of the type of `kind`: its OID, length, whether it is passed by value, and alignment. These are the
/// values in `pg_type`, which never change for these types.
fn layout(kind: Kind) -> (pg_sys::Oid, i32, bool, u8) {
    match kind {
        Kind::Text => (pg_sys::TEXTOID, -1, false, pg_sys::TYPALIGN_INT),
        Kind::Integer => (pg_sys::INT4OID, 4, true, pg_sys::TYPALIGN_INT),
        Kind::Date => (pg_sys::DATEOID, 4, true, pg_sys::TYPALIGN_INT),
        Kind::Timestamp => (pg_sys::TIMESTAMPTZOID, 8, true, pg_sys::TYPALIGN_DOUBLE),
        Kind::Uuid => (pg_sys::UUIDOID, 16, false, pg_sys::TYPALIGN_CHAR),
    }
}

/// Returns a field as Postgres passes a value of its kind. The datum may point to the field, so it lives no longer than the
/// field.
fn datum(kind: Kind, field: &[u8]) -> pg_sys::Datum {
    match kind {
        Kind::Text => text(field),
        Kind::Integer | Kind::Date => pg_sys::Datum::from(i32::from_be_bytes(fixed(field))),
        Kind::Timestamp => pg_sys::Datum::from(i64::from_be_bytes(fixed(field))),
        Kind::Uuid => pg_sys::Datum::from(field.as_ptr()),
    }
}

/// Returns the bytes of a fixed-length field, or zeros if the field has another length.
pub(crate) fn fixed<const N: usize>(field: &[u8]) -> [u8; N] {
    field.try_into().unwrap_or([0; N])
}

/// Returns fields of one kind as a Postgres array in the current memory context. A missing field is NULL.
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
    // SAFETY: both vectors have the length given as the one dimension. The layout is that of the type. The data that
    // elements point to outlives the call, which copies it.
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
            c_letter(alignment),
        )
        .into()
    }
}

/// Returns OIDs as a Postgres array in the current memory context.
pub(crate) fn array_of_oids(oids: &[pg_sys::Oid]) -> pg_sys::Datum {
    let mut elements: Vec<pg_sys::Datum> = oids.iter().map(|oid| (*oid).into()).collect();
    let length = i32::try_from(elements.len()).unwrap_or(i32::MAX);
    let alignment = c_letter(pg_sys::TYPALIGN_INT);
    #[expect(unsafe_code, reason = "calls Postgres")]
    // SAFETY: the vector has the length given; the layout is that of the type oid, which never changes.
    unsafe { pg_sys::construct_array(elements.as_mut_ptr(), length, pg_sys::OIDOID, 4, true, alignment) }
        .into()
}

/// Returns rows as a Postgres array of an open relation's row type, in the current memory context. `fill` sets the values of
/// a row's columns by column number. Columns that it does not set are NULL.
pub(crate) fn array_of_rows<R>(
    relation: pg_sys::Relation,
    rows: &[R],
    mut fill: impl FnMut(&R, &mut dyn FnMut(i16, pg_sys::Datum)),
) -> pg_sys::Datum {
    #[expect(unsafe_code, reason = "calls Postgres")]
    // SAFETY: the relation is open, so it has a descriptor with as many columns as the vectors have elements. Its row type
    // is a composite type, and all composite types have one layout. The array is made of copies.
    unsafe {
        let description = (*relation).rd_att;
        let width = usize::try_from((*description).natts).unwrap_or_default();
        let mut elements = Vec::with_capacity(rows.len());
        let (mut values, mut nulls) = (vec![pg_sys::Datum::null(); width], vec![true; width]);
        // Memory that the types' functions allocate is freed after each row.
        let mut memory = PgMemoryContexts::new("pg_mask row");
        for row in rows {
            nulls.fill(true);
            memory.reset();
            in_context(&memory, || {
                fill(row, &mut |number, value| {
                    let column = usize::try_from(number - 1).unwrap_or(usize::MAX);
                    (values[column], nulls[column]) = (value, false);
                });
            });
            let tuple = pg_sys::heap_form_tuple(description, values.as_mut_ptr(), nulls.as_mut_ptr());
            elements.push(pg_sys::HeapTupleHeaderGetDatum((*tuple).t_data));
        }
        let length = i32::try_from(elements.len()).unwrap_or(i32::MAX);
        let row_type = (*(*relation).rd_rel).reltype;
        let alignment = c_letter(pg_sys::TYPALIGN_DOUBLE);
        let elements = elements.as_mut_ptr();
        pg_sys::construct_array(elements, length, row_type, -1, false, alignment).into()
    }
}
