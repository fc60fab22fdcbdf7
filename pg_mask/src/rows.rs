//! Rows as they wait in a chunk, and as Postgres takes them: an array a column.

use std::borrow::Cow;
use std::ops::Range;

use masking::Value;
use pgrx::pg_sys;

/// How a column's values travel to Postgres.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    Text,
    Integer,
    Date,
    Timestamp,
    Uuid,
}

impl Kind {
    /// The type's name, to cast a parameter of an array of it.
    pub(crate) fn array_oid(self) -> pg_sys::Oid {
        match self {
            Self::Text => pg_sys::TEXTARRAYOID,
            Self::Integer => pg_sys::INT4ARRAYOID,
            Self::Date => pg_sys::DATEARRAYOID,
            Self::Timestamp => pg_sys::TIMESTAMPTZARRAYOID,
            Self::Uuid => pg_sys::UUIDARRAYOID,
        }
    }

    /// Oid, length, by value, alignment: what `pg_type` says of the type, which never changes for these.
    fn layout(self) -> (pg_sys::Oid, i32, bool, u8) {
        match self {
            Self::Text => (pg_sys::TEXTOID, -1, false, pg_sys::TYPALIGN_INT),
            Self::Integer => (pg_sys::INT4OID, 4, true, pg_sys::TYPALIGN_INT),
            Self::Date => (pg_sys::DATEOID, 4, true, pg_sys::TYPALIGN_INT),
            Self::Timestamp => (pg_sys::TIMESTAMPTZOID, 8, true, pg_sys::TYPALIGN_DOUBLE),
            Self::Uuid => (pg_sys::UUIDOID, 16, false, pg_sys::TYPALIGN_CHAR),
        }
    }
}

/// Rows of equal width, in two flat buffers that are used again from chunk to chunk.
pub(crate) struct Rows {
    width: usize,
    cells: Vec<Cell>,
    /// The texts of all cells, one after another.
    text: String,
}

enum Cell {
    Null,
    Text(Range<usize>),
    Integer(i32),
    Date(i32),
    Timestamp(i64),
    Uuid([u8; 16]),
}

impl Rows {
    pub(crate) fn new(width: usize) -> Self {
        Self { width, cells: Vec::new(), text: String::new() }
    }

    /// Adds a row, which must have this width.
    pub(crate) fn push<'v>(&mut self, row: impl IntoIterator<Item = Value<'v>>) {
        for value in row {
            self.cells.push(match value {
                Value::Null => Cell::Null,
                Value::Text(text) => {
                    let start = self.text.len();
                    self.text.push_str(&text);
                    Cell::Text(start..self.text.len())
                }
                Value::Integer(number) => Cell::Integer(number),
                Value::Date(days) => Cell::Date(days),
                Value::Timestamp(micros) => Cell::Timestamp(micros),
                Value::Uuid(bytes) => Cell::Uuid(bytes),
            });
        }
        debug_assert_eq!(self.cells.len() % self.width, 0);
    }

    pub(crate) fn len(&self) -> usize {
        self.cells.len() / self.width
    }

    /// Bytes held, near enough to bound memory by.
    pub(crate) fn bytes(&self) -> usize {
        self.text.len() + self.cells.len() * size_of::<Cell>()
    }

    /// Takes all rows out, and keeps the memory for the next ones unless one huge event had grown it.
    pub(crate) fn clear(&mut self, keep: usize) {
        self.cells.clear();
        self.text.clear();
        self.text.shrink_to(keep);
    }

    pub(crate) fn get(&self, row: usize, column: usize) -> Value<'_> {
        match &self.cells[row * self.width + column] {
            Cell::Null => Value::Null,
            Cell::Text(range) => Value::Text(Cow::Borrowed(&self.text[range.clone()])),
            Cell::Integer(number) => Value::Integer(*number),
            Cell::Date(days) => Value::Date(*days),
            Cell::Timestamp(micros) => Value::Timestamp(*micros),
            Cell::Uuid(bytes) => Value::Uuid(*bytes),
        }
    }

    /// One column of the rows in `range` as a Postgres array, in the current memory context.
    #[expect(unsafe_code, reason = "calls Postgres")]
    pub(crate) fn array(&self, range: Range<usize>, column: usize, kind: Kind) -> pg_sys::Datum {
        let (oid, length, by_value, alignment) = kind.layout();
        let mut elements = Vec::with_capacity(range.len());
        let mut nulls = Vec::with_capacity(range.len());
        for row in range {
            let cell = &self.cells[row * self.width + column];
            nulls.push(matches!(cell, Cell::Null));
            elements.push(match cell {
                Cell::Null => pg_sys::Datum::null(),
                Cell::Text(range) => {
                    let text = &self.text[range.clone()];
                    // No single text is near 2 GB: it came out of a Postgres value, of 1 GB at most.
                    let bytes = i32::try_from(text.len()).unwrap_or(i32::MAX);
                    // SAFETY: pointer and length are those of one string.
                    unsafe { pg_sys::cstring_to_text_with_len(text.as_ptr().cast(), bytes) }.into()
                }
                Cell::Integer(value) | Cell::Date(value) => pg_sys::Datum::from(*value),
                Cell::Timestamp(value) => pg_sys::Datum::from(*value),
                // The bytes stay where they are until the array, which copies them, is made.
                Cell::Uuid(bytes) => pg_sys::Datum::from(bytes.as_ptr()),
            });
        }
        // SAFETY: both vectors have the length given as the one dimension; the layout is that of the type.
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
}
