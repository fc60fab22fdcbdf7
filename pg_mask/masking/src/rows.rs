//! Rows as they wait in a chunk, in the form that COPY takes, so that writing them only copies bytes.

use crate::memory::{self, OutOfMemory};

/// The form of a column's values: the binary form of one type.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// `text`: UTF-8. If the column has another type, that type reads the text later.
    Text,
    /// `integer`.
    Integer,
    /// `date`: days since 2000-01-01.
    Date,
    /// `timestamptz`: microseconds since 2000-01-01 UTC.
    Timestamp,
    /// `uuid`.
    Uuid,
}

/// Rows of equal width in one buffer, which is reused from chunk to chunk.
///
/// Each row is a tuple in COPY's binary format ("File Formats" in the documentation of COPY). It begins with the number of
/// fields in 16 bits. Each field is its length in bytes in 32 bits (-1 for NULL), then the bytes. Integers are big-endian.
pub struct Rows {
    width: i16,
    bytes: Vec<u8>,
    /// The end of each row in `bytes`.
    ends: Vec<usize>,
}

const NULL: i32 = -1;

impl Rows {
    /// Begins COPY's data: the signature, no flags, no header extension.
    pub const HEADER: &[u8] = b"PGCOPY\n\xff\r\n\0\0\0\0\0\0\0\0\0";
    /// Ends COPY's data, in place of a number of fields.
    pub const TRAILER: &[u8] = &(-1_i16).to_be_bytes();

    /// Creates an empty set of rows with `width` fields. Postgres allows 1,600.
    #[must_use]
    pub fn new(width: usize) -> Self {
        Self { width: i16::try_from(width).unwrap_or(i16::MAX), bytes: Vec::new(), ends: Vec::new() }
    }

    /// Adds the row that `write` writes, field by field. Adds nothing if `write` fails or memory runs out.
    pub fn add<E: From<OutOfMemory>>(
        &mut self,
        write: impl FnOnce(&mut Row<'_>) -> Result<(), E>,
    ) -> Result<(), E> {
        let start = self.bytes.len();
        memory::reserve(&mut self.ends, 1)?;
        memory::reserve(&mut self.bytes, size_of::<i16>())?;
        self.bytes.extend_from_slice(&self.width.to_be_bytes());
        let mut row = Row { bytes: &mut self.bytes, fields: 0, complete: true };
        let written = write(&mut row);
        let written = if row.complete { written } else { Err(OutOfMemory.into()) };
        debug_assert!(written.is_err() || row.fields == self.width, "a row has as many fields as all");
        match &written {
            Ok(()) => self.ends.push(self.bytes.len()),
            Err(_) => self.bytes.truncate(start),
        }
        written
    }

    /// Returns the number of rows.
    #[must_use]
    pub fn len(&self) -> usize {
        self.ends.len()
    }

    /// Whether there are no rows.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.ends.is_empty()
    }

    /// Returns the number of bytes held.
    #[must_use]
    pub fn bytes(&self) -> usize {
        self.bytes.len() + self.ends.len() * size_of::<usize>()
    }

    /// Removes all rows. Keeps the memory for the next rows, unless a huge event has grown it past twice `keep` bytes.
    pub fn clear(&mut self, keep: usize) {
        self.bytes.clear();
        // Freeing cannot fail, but shrinking allocates.
        if self.bytes.capacity() > keep.saturating_mul(2) {
            self.bytes = Vec::new();
        }
        self.ends.clear();
    }

    /// Returns a row in the form that COPY takes.
    #[must_use]
    pub fn tuple(&self, row: usize) -> &[u8] {
        let start = row.checked_sub(1).map_or(0, |before| self.ends[before]);
        &self.bytes[start..self.ends[row]]
    }

    /// Returns the fields of a row; a NULL is `None`.
    #[must_use]
    pub fn fields(&self, row: usize) -> Fields<'_> {
        Fields(&self.tuple(row)[size_of::<i16>()..])
    }

    /// Returns a field of a row; a NULL is `None`.
    #[must_use]
    pub fn field(&self, row: usize, column: usize) -> Option<&[u8]> {
        self.fields(row).nth(column).flatten()
    }
}

/// A row that is being written.
///
/// Its methods don't report that memory ran out: they record it, and [`Rows::add`] drops the row and reports it.
pub struct Row<'r> {
    bytes: &'r mut Vec<u8>,
    fields: i16,
    /// Whether there was enough memory for every field so far.
    complete: bool,
}

/// Number of bytes in the length of a field.
const LENGTH: usize = size_of::<i32>();

impl Row<'_> {
    /// Writes a NULL.
    pub fn null(&mut self) {
        if self.reserve(LENGTH) {
            self.length(NULL);
        }
    }

    /// Writes a field that is already in the binary form of its type.
    pub fn field(&mut self, bytes: &[u8]) {
        self.joined([bytes, b""]);
    }

    /// Writes a field in two parts.
    pub fn joined(&mut self, parts: [&[u8]; 2]) {
        let [first, second] = parts;
        if self.reserve(LENGTH + first.len() + second.len()) {
            // Nothing from a Postgres value is longer than 1 GB.
            self.length(i32::try_from(first.len() + second.len()).unwrap_or(i32::MAX));
            self.bytes.extend_from_slice(first);
            self.bytes.extend_from_slice(second);
        }
    }

    /// Writes a field of up to `most` bytes: `write` fills them in place and returns their number. Returns that number, or 0
    /// if memory runs out.
    pub fn written(
        &mut self,
        most: usize,
        write: impl FnOnce(&mut [u8]) -> Result<usize, OutOfMemory>,
    ) -> usize {
        if !self.reserve(LENGTH.saturating_add(most)) {
            return 0;
        }
        let start = self.bytes.len();
        self.length(NULL);
        let field = self.bytes.len();
        self.bytes.resize(field + most, 0);
        let Ok(length) = write(&mut self.bytes[field..]) else {
            self.complete = false;
            return 0;
        };
        let length = length.min(most);
        self.bytes.truncate(field + length);
        self.bytes[start..field].copy_from_slice(&i32::try_from(length).unwrap_or(i32::MAX).to_be_bytes());
        length
    }

    /// Writes an `integer` or a `date`.
    pub fn integer(&mut self, value: i32) {
        self.field(&value.to_be_bytes());
    }

    /// Writes a `timestamptz`.
    pub fn timestamp(&mut self, value: i64) {
        self.field(&value.to_be_bytes());
    }

    /// Writes a field that may be NULL.
    pub fn optional(&mut self, field: Option<&[u8]>) {
        match field {
            Some(bytes) => self.field(bytes),
            None => self.null(),
        }
    }

    /// Makes room for `bytes` of a field, or records that there is none.
    #[inline]
    fn reserve(&mut self, bytes: usize) -> bool {
        let reserved = memory::reserve(self.bytes, bytes).is_ok();
        if !reserved {
            self.complete = false;
        }
        reserved
    }

    fn length(&mut self, length: i32) {
        self.fields += 1;
        self.bytes.extend_from_slice(&length.to_be_bytes());
    }
}

/// Iterates over the fields of a row, in order.
pub struct Fields<'r>(&'r [u8]);

impl<'r> Iterator for Fields<'r> {
    type Item = Option<&'r [u8]>;

    fn next(&mut self) -> Option<Self::Item> {
        let (length, rest) = self.0.split_first_chunk()?;
        // Only a NULL has a negative length.
        let Ok(length) = usize::try_from(i32::from_be_bytes(*length)) else {
            self.0 = rest;
            return Some(None);
        };
        let (field, rest) = rest.split_at(length);
        self.0 = rest;
        Some(Some(field))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// More bytes than any machine has.
    const TOO_MUCH: usize = isize::MAX.unsigned_abs() - (1 << 20);

    #[derive(Debug, PartialEq)]
    enum Error {
        Refused,
        OutOfMemory,
    }

    impl From<OutOfMemory> for Error {
        fn from(_: OutOfMemory) -> Self {
            Self::OutOfMemory
        }
    }

    fn rows_of(width: usize, rows: &[Vec<Option<Vec<u8>>>]) -> Rows {
        let mut all = Rows::new(width);
        for fields in rows {
            all.add(|row| {
                for field in fields {
                    row.optional(field.as_deref());
                }
                Ok::<_, OutOfMemory>(())
            })
            .expect("nothing fails");
        }
        all
    }

    #[test]
    fn a_row_is_a_tuple_of_copys_binary_format() {
        let mut rows = Rows::new(5);
        rows.add(|row| {
            row.field(b"ab");
            row.null();
            row.integer(563);
            row.timestamp(-2);
            row.written(9, |out| {
                out[..8].copy_from_slice(b"Zm9vYg==");
                Ok(8)
            });
            Ok::<_, OutOfMemory>(())
        })
        .expect("nothing fails");
        let tuple = b"\0\x05\0\0\0\x02ab\xff\xff\xff\xff\0\0\0\x04\0\0\x02\x33\0\0\0\x08\xff\xff\xff\xff\xff\xff\xff\xfe\0\0\0\x08Zm9vYg==";
        assert_eq!(rows.tuple(0), tuple);
    }

    #[test]
    fn a_row_that_fails_leaves_nothing() {
        let mut rows = rows_of(1, &[vec![Some(b"kept".to_vec())]]);
        let failed = rows.add(|row| {
            row.field(b"half");
            Err(Error::Refused)
        });
        assert_eq!(failed, Err(Error::Refused));
        let bytes = rows.bytes();
        assert_eq!((rows.len(), rows.field(0, 0)), (1, Some(&b"kept"[..])));
        rows.clear(0);
        assert_eq!((rows.len(), rows.bytes(), bytes), (0, 0, 2 + 4 + 4 + size_of::<usize>()));
    }

    #[test]
    fn a_huge_row_does_not_keep_its_memory() {
        let mut rows = rows_of(1, &[vec![Some(vec![0; 1000])]]);
        rows.clear(600);
        assert!(rows.bytes.capacity() >= 1000, "no more than twice what is kept");
        rows.clear(400);
        assert_eq!(rows.bytes.capacity(), 0);
    }

    /// The point in a row at which memory runs out.
    #[derive(Debug, Clone, Copy)]
    enum MemoryEnds {
        /// There is no room for a field.
        Room,
        /// There is no memory for the work of writing a field.
        Work,
        /// There is no room for a field, and then the row is refused.
        RoomBeforeRefusal,
    }

    proptest! {
        #[test]
        fn a_row_without_memory_is_an_error_and_leaves_nothing(
            rows in prop::collection::vec(prop::collection::vec(any::<Option<Vec<u8>>>(), 3), 0..5),
            before in 0_usize..3,
            failure in prop_oneof![Just(MemoryEnds::Room), Just(MemoryEnds::Work), Just(MemoryEnds::RoomBeforeRefusal)],
        ) {
            let mut all = rows_of(3, &rows);
            let bytes = all.bytes.clone();
            let failed = all.add(|row| {
                for _ in 0..before {
                    row.field(b"field");
                }
                let length = match failure {
                    MemoryEnds::Work => row.written(9, |_| Err(OutOfMemory)),
                    MemoryEnds::Room | MemoryEnds::RoomBeforeRefusal => row.written(TOO_MUCH, |_| Ok(1)),
                };
                assert_eq!(length, 0);
                row.null();
                if matches!(failure, MemoryEnds::RoomBeforeRefusal) { Err(Error::Refused) } else { Ok(()) }
            });
            prop_assert_eq!(failed, Err(Error::OutOfMemory));
            prop_assert_eq!((&all.bytes, all.len()), (&bytes, rows.len()));
            // The next row goes in.
            prop_assert_eq!(all.add(|row| { (0..3).for_each(|_| row.null()); Ok::<_, Error>(()) }), Ok(()));
            prop_assert_eq!(all.fields(rows.len()).collect::<Vec<_>>(), vec![None; 3]);
        }

        #[test]
        fn fields_come_back_as_they_were(
            rows in prop::collection::vec(prop::collection::vec(any::<Option<Vec<u8>>>(), 3), 0..5)
        ) {
            let all = rows_of(3, &rows);
            prop_assert_eq!(all.len(), rows.len());
            for (number, fields) in rows.iter().enumerate() {
                let found: Vec<_> = all.fields(number).map(|field| field.map(<[u8]>::to_vec)).collect();
                prop_assert_eq!(&found, fields);
                prop_assert_eq!(all.field(number, 2).map(<[u8]>::to_vec), fields[2].clone());
            }
        }
    }
}
