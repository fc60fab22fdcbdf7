//! Rows as they wait in a chunk: in the very form in which COPY takes them, so that writing them is copying bytes.

/// How a column's values travel: as the binary form of one type.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// `text`: UTF-8, still to be read by the column's type where that is another.
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

/// Rows of equal width in one buffer, which is used again from chunk to chunk.
///
/// Each is a tuple of COPY's binary format ("File Formats" in the documentation of the statement): the number of fields in
/// 16 bits, and for each field the number of its bytes in 32 bits, -1 for NULL, and the bytes. Integers are big-endian.
pub struct Rows {
    width: i16,
    bytes: Vec<u8>,
    /// Where each row ends in `bytes`.
    ends: Vec<usize>,
}

const NULL: i32 = -1;

impl Rows {
    /// No rows of `width` fields, of which Postgres allows 1,600.
    #[must_use]
    pub fn new(width: usize) -> Self {
        Self { width: i16::try_from(width).unwrap_or(i16::MAX), bytes: Vec::new(), ends: Vec::new() }
    }

    /// Adds the row that `write` writes, field by field; nothing where it fails.
    pub fn add<E>(&mut self, write: impl FnOnce(&mut Row<'_>) -> Result<(), E>) -> Result<(), E> {
        let start = self.bytes.len();
        self.bytes.extend_from_slice(&self.width.to_be_bytes());
        let mut row = Row { bytes: &mut self.bytes, fields: 0 };
        let written = write(&mut row);
        debug_assert!(written.is_err() || row.fields == self.width, "a row has as many fields as all");
        match &written {
            Ok(()) => self.ends.push(self.bytes.len()),
            Err(_) => self.bytes.truncate(start),
        }
        written
    }

    /// How many rows there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.ends.len()
    }

    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.ends.is_empty()
    }

    /// Bytes held.
    #[must_use]
    pub fn bytes(&self) -> usize {
        self.bytes.len() + self.ends.len() * size_of::<usize>()
    }

    /// Takes all rows out. Keeps the memory for the next ones, up to `keep` bytes: one huge event may have grown it.
    pub fn clear(&mut self, keep: usize) {
        self.bytes.clear();
        self.bytes.shrink_to(keep);
        self.ends.clear();
    }

    /// A row as COPY takes it.
    #[must_use]
    pub fn tuple(&self, row: usize) -> &[u8] {
        let start = row.checked_sub(1).map_or(0, |before| self.ends[before]);
        &self.bytes[start..self.ends[row]]
    }

    /// The fields of a row; none is a NULL.
    #[must_use]
    pub fn fields(&self, row: usize) -> Fields<'_> {
        Fields(&self.tuple(row)[size_of::<i16>()..])
    }

    /// A field of a row; none is a NULL.
    #[must_use]
    pub fn field(&self, row: usize, column: usize) -> Option<&[u8]> {
        self.fields(row).nth(column).flatten()
    }
}

/// A row that is being written.
pub struct Row<'r> {
    bytes: &'r mut Vec<u8>,
    fields: i16,
}

impl Row<'_> {
    /// A NULL.
    pub fn null(&mut self) {
        self.length(NULL);
    }

    /// A field that is already in the binary form of its type.
    pub fn field(&mut self, bytes: &[u8]) {
        self.joined([bytes, b""]);
    }

    /// The same from two parts.
    pub fn joined(&mut self, parts: [&[u8]; 2]) {
        let [first, second] = parts;
        // Nothing that came out of a Postgres value is longer than 1 GB.
        self.length(i32::try_from(first.len() + second.len()).unwrap_or(i32::MAX));
        self.bytes.extend_from_slice(first);
        self.bytes.extend_from_slice(second);
    }

    /// A field of up to `most` bytes, which `write` writes where they are to be, and counts. Returns their number.
    pub fn written(&mut self, most: usize, write: impl FnOnce(&mut [u8]) -> usize) -> usize {
        let start = self.bytes.len();
        self.length(NULL);
        let field = self.bytes.len();
        self.bytes.resize(field + most, 0);
        let length = write(&mut self.bytes[field..]).min(most);
        self.bytes.truncate(field + length);
        self.bytes[start..field].copy_from_slice(&i32::try_from(length).unwrap_or(i32::MAX).to_be_bytes());
        length
    }

    /// An `integer` or a `date`.
    pub fn integer(&mut self, value: i32) {
        self.field(&value.to_be_bytes());
    }

    /// A `timestamptz`.
    pub fn timestamp(&mut self, value: i64) {
        self.field(&value.to_be_bytes());
    }

    /// A field that may be NULL.
    pub fn optional(&mut self, field: Option<&[u8]>) {
        match field {
            Some(bytes) => self.field(bytes),
            None => self.null(),
        }
    }

    fn length(&mut self, length: i32) {
        self.fields += 1;
        self.bytes.extend_from_slice(&length.to_be_bytes());
    }
}

/// The fields of a row, in order.
pub struct Fields<'r>(&'r [u8]);

impl<'r> Iterator for Fields<'r> {
    type Item = Option<&'r [u8]>;

    fn next(&mut self) -> Option<Self::Item> {
        let (length, rest) = self.0.split_first_chunk()?;
        // Only a NULL's is negative.
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
    use std::convert::Infallible;

    fn rows_of(width: usize, rows: &[Vec<Option<Vec<u8>>>]) -> Rows {
        let mut all = Rows::new(width);
        for fields in rows {
            all.add(|row| {
                for field in fields {
                    row.optional(field.as_deref());
                }
                Ok::<_, Infallible>(())
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
                8
            });
            Ok::<_, Infallible>(())
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
            Err("refused")
        });
        assert_eq!(failed, Err("refused"));
        let bytes = rows.bytes();
        assert_eq!((rows.len(), rows.field(0, 0)), (1, Some(&b"kept"[..])));
        rows.clear(0);
        assert_eq!((rows.len(), rows.bytes(), bytes), (0, 0, 2 + 4 + 4 + size_of::<usize>()));
    }

    proptest! {
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
