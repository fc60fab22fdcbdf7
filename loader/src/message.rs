//! An event on its way from SQS to the inbox.

use std::collections::HashSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use uuid::{Uuid, uuid};

use crate::budget::Share;
use crate::ledger::LeaseId;

/// The namespace of the `UUIDv5` that stands for an SQS message id which is no UUID.
///
/// It is the `UUIDv5` of `message-id.pg_mask` in RFC 9562's DNS namespace. It must never change: a message
/// that is delivered again is known for a duplicate by its UUID alone.
pub(crate) const MESSAGE_ID_NAMESPACE: Uuid = uuid!("5cc165c0-8dad-53aa-80bd-05a9cdd72664");

/// Microseconds from the epoch of SQS's timestamps (1970-01-01) to that of `PostgreSQL`'s (2000-01-01), both
/// UTC.
const POSTGRES_EPOCH_MICROS: i64 = 946_684_800_000_000;

/// Bytes that a message takes besides its body, about.
pub(crate) const OVERHEAD: usize = 1024;
/// Size of SQS's largest message: 1 MiB.
const LARGEST: usize = 1024 * 1024;

/// One event as the inbox takes it. There is no `Debug`: the body is raw PII.
pub(crate) struct Message {
    /// Where the ledger keeps the receipt for this delivery.
    pub(crate) lease: LeaseId,
    /// What duplicates are told by.
    pub(crate) id: Uuid,
    /// When the message was sent, in `PostgreSQL`'s microseconds; `None` where the queue does not say.
    pub(crate) sent_at: Option<i64>,
    /// How often the message was handed out, this time included. SQS calls it approximate.
    pub(crate) receive_count: u32,
    /// The message group, where the queue is a FIFO queue: of these, order is kept.
    pub(crate) group: Option<Arc<str>>,
    /// The event, unread. `None` becomes NULL, which the database rejects.
    pub(crate) body: Option<String>,
    /// Memory that it takes, given back with it.
    pub(crate) _memory: Share,
}

impl Message {
    /// Whether it belongs to one of these message groups.
    pub(crate) fn is_of(&self, groups: &HashSet<Arc<str>>) -> bool {
        self.group.as_ref().is_some_and(|group| groups.contains(group))
    }

    /// How long ago it was sent, where the queue says when. Never negative, though clocks differ.
    pub(crate) fn age(&self, now: SystemTime) -> Option<Duration> {
        let now = i64::try_from(now.duration_since(UNIX_EPOCH).ok()?.as_micros()).ok()?;
        let age = now.checked_sub(POSTGRES_EPOCH_MICROS)?.checked_sub(self.sent_at?)?;
        Some(Duration::from_micros(age.try_into().unwrap_or(0)))
    }

    /// Bytes that the body takes.
    pub(crate) fn size(&self) -> usize {
        self.body.as_ref().map_or(0, String::len)
    }
}

/// Bytes that each message of a queue is expected to take, from those received lately.
pub(crate) struct MessageSize(AtomicUsize);

impl Default for MessageSize {
    /// Expects the largest messages, until there are any.
    fn default() -> Self {
        Self(AtomicUsize::new(LARGEST + OVERHEAD))
    }
}

impl MessageSize {
    /// Returns the expected size.
    pub(crate) fn get(&self) -> usize {
        self.0.load(Relaxed)
    }

    /// Learns from what a call brought: at once that messages are larger, and slowly that they are smaller.
    pub(crate) fn note(&self, messages: &[Message]) {
        let bytes: usize = messages.iter().map(|message| message.size() + OVERHEAD).sum();
        let mean = bytes / messages.len().max(1);
        let expected = self.get();
        // A note that another call overwrites is soon made again.
        self.0.store(mean.max(expected - expected.saturating_sub(mean).div_ceil(8)), Relaxed);
    }
}

/// The UUID of an SQS `MessageId`: itself where it is one in the usual 36 characters, else its `UUIDv5`.
///
/// Other spellings of UUIDs (braces, `urn:uuid:`) are not read as such: two different ids must not become
/// one.
pub(crate) fn message_uuid(message_id: &str) -> Uuid {
    match Uuid::try_parse(message_id) {
        Ok(id) if message_id.len() == 36 => id,
        _ => Uuid::new_v5(&MESSAGE_ID_NAMESPACE, message_id.as_bytes()),
    }
}

/// SQS's `SentTimestamp` (milliseconds since 1970, as text) in `PostgreSQL`'s microseconds since 2000.
pub(crate) fn sent_at(sent_timestamp: &str) -> Option<i64> {
    let millis: i64 = sent_timestamp.parse().ok()?;
    millis.checked_mul(1000)?.checked_sub(POSTGRES_EPOCH_MICROS)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_namespace_is_what_its_documentation_says() {
        assert_eq!(MESSAGE_ID_NAMESPACE, Uuid::new_v5(&Uuid::NAMESPACE_DNS, b"message-id.pg_mask"));
    }

    #[test]
    fn a_uuid_stays_itself() {
        let id = "424cdd21-063a-43a7-b91b-7ca1a833afae";
        assert_eq!(message_uuid(id).to_string(), id);
    }

    #[test]
    fn any_other_id_becomes_a_fixed_uuid() {
        // A change of these values would make stored messages look new.
        assert_eq!(message_uuid("msg-1"), uuid!("d308d33d-3c8d-5a85-84d9-f28cc9667295"));
        for id in ["", "424cdd21063a43a7b91b7ca1a833afae", "{424cdd21-063a-43a7-b91b-7ca1a833afae}"] {
            assert_eq!(message_uuid(id).get_version_num(), 5, "{id}");
        }
    }

    #[test]
    fn an_age_is_never_negative() {
        let message = |sent: &str| Message {
            lease: LeaseId::NONE,
            id: Uuid::nil(),
            sent_at: sent_at(sent),
            receive_count: 1,
            group: None,
            body: None,
            _memory: Share::default(),
        };
        let now = UNIX_EPOCH + Duration::from_secs(1_700_000_000);
        assert_eq!(message("1699999998500").age(now), Some(Duration::from_millis(1500)));
        assert_eq!(message("1700000000001").age(now), Some(Duration::ZERO), "sent by a clock that is ahead");
        assert_eq!(message("soon").age(now), None);
    }

    #[test]
    fn a_larger_size_is_expected_at_once_and_a_smaller_one_after_some_calls() {
        let size = MessageSize::default();
        assert_eq!(size.get(), LARGEST + OVERHEAD, "before the first message");
        let message = |size: usize| Message {
            lease: LeaseId::NONE,
            id: Uuid::nil(),
            sent_at: None,
            receive_count: 1,
            group: None,
            body: Some("x".repeat(size)),
            _memory: Share::default(),
        };
        let small = [message(100), message(300)];
        size.note(&small);
        assert!(size.get() > LARGEST / 2, "{}", size.get());
        for _ in 0..100 {
            size.note(&small);
        }
        assert_eq!(size.get(), 200 + OVERHEAD);
        size.note(&[message(1000)]);
        assert_eq!(size.get(), 1000 + OVERHEAD);
    }

    #[test]
    fn sent_timestamps_become_postgres_microseconds() {
        assert_eq!(sent_at("946684800000"), Some(0));
        assert_eq!(sent_at("1700000000123"), Some(753_315_200_123_000));
        assert_eq!(sent_at("0"), Some(-POSTGRES_EPOCH_MICROS));
        for bad in ["", "soon", "9223372036854775807", "1.5"] {
            assert_eq!(sent_at(bad), None, "{bad}");
        }
    }
}
