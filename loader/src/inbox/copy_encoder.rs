//! Encodes binary COPY data by hand.
//!
//! tokio-postgres's own `BinaryCopyInWriter` passes data on in pieces of 4 KB, through a channel with one slot. Pieces
//! of 256 KB were two to three times faster. The format must be binary: if a *text* COPY fails, `PostgreSQL` writes the
//! raw line into its log.
//!
//! The format is in `PostgreSQL`'s manual under COPY, "Binary Format".

use bytes::{BufMut, Bytes, BytesMut};

use crate::message::Message;

/// Size of a chunk, in bytes.
pub(crate) const CHUNK: usize = 256 * 1024;

/// Signature, no flags, no header extension.
const HEADER: &[u8; 19] = b"PGCOPY\n\xff\r\n\0\0\0\0\0\0\0\0\0";
/// Ends the stream, in place of a row's field count.
const TRAILER: i16 = -1;
/// Marks a NULL, in place of a field's length.
const NULL: i32 = -1;

/// Encodes messages as rows of (`message_id` uuid, `sent_at` timestamptz, `body` text).
pub(crate) struct Encoder {
    buffer: BytesMut,
}

impl Encoder {
    /// Begins a COPY stream.
    pub(crate) fn new() -> Self {
        let mut buffer = BytesMut::with_capacity(CHUNK);
        buffer.put_slice(HEADER);
        Self { buffer }
    }

    /// Appends a row, and returns a chunk as soon as one is full. A chunk ends with a whole row, so it can be longer
    /// than [`CHUNK`].
    pub(crate) fn push(&mut self, message: &Message) -> Option<Bytes> {
        let row = 2 + (4 + 16) + (4 + 8) + 4 + message.size();
        self.buffer.reserve(row);
        self.buffer.put_i16(3);
        self.buffer.put_i32(16);
        self.buffer.put_slice(message.id.as_bytes());
        match message.sent_at {
            Some(micros) => {
                self.buffer.put_i32(8);
                self.buffer.put_i64(micros);
            }
            None => self.buffer.put_i32(NULL),
        }
        match &message.body {
            Some(body) => {
                // A message in SQS has at most 1 MiB. Past 2 GiB the stream would be malformed. PostgreSQL would refuse
                // it and store nothing.
                self.buffer.put_i32(i32::try_from(body.len()).unwrap_or(i32::MAX));
                self.buffer.put_slice(body.as_bytes());
            }
            None => self.buffer.put_i32(NULL),
        }
        (self.buffer.len() >= CHUNK).then(|| {
            let chunk = self.buffer.split().freeze();
            self.buffer.reserve(CHUNK);
            chunk
        })
    }

    /// Ends the stream and returns the rest of it.
    pub(crate) fn finish(mut self) -> Bytes {
        self.buffer.put_i16(TRAILER);
        self.buffer.freeze()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::leases::capacity::Share;
    use crate::leases::ledger::LeaseId;
    use crate::message::message_uuid;

    fn message(sent_at: Option<i64>, body: Option<&str>) -> Message {
        let id = message_uuid("00010203-0405-0607-0809-0a0b0c0d0e0f");
        Message {
            lease: LeaseId::NONE,
            id,
            sent_at,
            receive_count: 1,
            group: None,
            body: body.map(str::to_owned),
            _memory: Share::default(),
        }
    }

    #[test]
    fn a_small_batch_is_encoded_byte_for_byte() {
        let mut encoder = Encoder::new();
        assert!(encoder.push(&message(Some(1), Some("{é"))).is_none());
        assert!(encoder.push(&message(None, None)).is_none());
        let id = [0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15];
        let mut expected = b"PGCOPY\n\xff\r\n\0".to_vec();
        expected.extend([0; 8]);
        expected.extend([0, 3, 0, 0, 0, 16]);
        expected.extend(id);
        expected.extend([0, 0, 0, 8, 0, 0, 0, 0, 0, 0, 0, 1]);
        expected.extend([0, 0, 0, 3, b'{', 0xc3, 0xa9]);
        expected.extend([0, 3, 0, 0, 0, 16]);
        expected.extend(id);
        expected.extend([0xff; 4]);
        expected.extend([0xff; 4]);
        expected.extend([0xff; 2]);
        assert_eq!(encoder.finish(), expected);
    }

    #[test]
    fn chunks_are_full_and_nothing_is_lost_between_them() {
        let mut encoder = Encoder::new();
        let row = message(Some(0), Some(&"x".repeat(1000)));
        let chunks: Vec<Bytes> = (0..600).filter_map(|_| encoder.push(&row)).collect();
        assert_eq!(chunks.len(), 2);
        assert!(chunks.iter().all(|c| (CHUNK..CHUNK + 1100).contains(&c.len())));
        let total = chunks.iter().map(Bytes::len).sum::<usize>() + encoder.finish().len();
        assert_eq!(total, 19 + 600 * (2 + 20 + 12 + 4 + 1000) + 2);
    }
}
