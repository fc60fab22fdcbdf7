//! Messages: the rows that are inserted into an inbox.

use masking::masker::Masker;
use masking::memory::OutOfMemory;
use masking::{Row, Rows};

use crate::counts::Class;
use crate::inbox::rejects::Rejects;
use crate::pg::transaction::now;

/// A row inserted into an inbox.
pub(crate) struct InboxRow<'a> {
    pub(crate) id: Option<[u8; 16]>,
    /// Microseconds since 2000-01-01 UTC.
    pub(crate) sent_at: Option<i64>,
    pub(crate) body: Option<&'a str>,
}

/// The messages of a chunk's rows. They are kept until the rows are written, because any row may still become a reject.
pub(crate) struct Messages(Rows);

impl Messages {
    pub(crate) fn new() -> Self {
        Self(Rows::new(3))
    }

    pub(crate) fn push(&mut self, message: &InboxRow<'_>) -> Result<(), OutOfMemory> {
        add(&mut self.0, |row| {
            row.optional(message.id.as_ref().map(<[u8; 16]>::as_slice));
            row.optional(message.sent_at.map(i64::to_be_bytes).as_ref().map(<[u8; 8]>::as_slice));
            row.optional(message.body.map(str::as_bytes));
        })
    }

    /// Returns the number of bytes held.
    pub(crate) fn bytes(&self) -> usize {
        self.0.bytes()
    }

    /// Removes all messages. Keeps the memory for the next ones, but at most twice `keep` bytes.
    pub(crate) fn clear(&mut self, keep: usize) {
        self.0.clear(keep);
    }

    /// Adds the reject for message `row`.
    pub(crate) fn reject(
        &self,
        row: usize,
        class: Class,
        reason: &str,
        masker: Masker<'_>,
        rejects: &mut Rejects,
    ) -> Result<(), OutOfMemory> {
        add(rejects.of(class), |reject| {
            reject.optional(self.0.field(row, 0));
            reject.optional(self.0.field(row, 1));
            reject.field(reason.as_bytes());
            match self.0.field(row, 2) {
                // Any body is masked, even one that is a mask: unmasking must return this body.
                Some(body) => {
                    reject.written(masker.masked_len(body), |out| masker.mask_any(body, out));
                }
                None => reject.null(),
            }
            reject.timestamp(now());
        })
    }
}

/// Adds a row, which fails only if memory runs out.
fn add(rows: &mut Rows, write: impl FnOnce(&mut Row<'_>)) -> Result<(), OutOfMemory> {
    rows.add(|row| {
        write(row);
        Ok(())
    })
}
