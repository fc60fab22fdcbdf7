//! An event on its way from SQS to the inbox.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use uuid::{Uuid, uuid};

use crate::leases::capacity::Share;
use crate::leases::ledger::{LeaseId, OVERHEAD};

/// Namespace of the `UUIDv5` for an SQS message id that isn't a UUID.
///
/// It is the `UUIDv5` of `message-id.pg_mask` in RFC 9562's DNS namespace. It must never change: a message that is
/// delivered again is recognized as a duplicate by its UUID alone.
pub(crate) const MESSAGE_ID_NAMESPACE: Uuid = uuid!("5cc165c0-8dad-53aa-80bd-05a9cdd72664");

/// Microseconds from the epoch of SQS's timestamps (1970-01-01 UTC) to `PostgreSQL`'s epoch (2000-01-01 UTC).
const POSTGRES_EPOCH_MICROS: i64 = 946_684_800_000_000;

/// Maximum size of an SQS message: 1 MiB.
const LARGEST: usize = 1024 * 1024;

/// One event in the form that the inbox takes. There is no `Debug`, because the body is raw PII.
pub(crate) struct Message {
    /// Key of this delivery's receipt in the ledger.
    pub(crate) lease: LeaseId,
    /// Id that duplicates are recognized by.
    pub(crate) id: Uuid,
    /// Time when the message was sent, in `PostgreSQL`'s microseconds. `None` if the queue doesn't say.
    pub(crate) sent_at: Option<i64>,
    /// Number of times the message was handed out, including this one. SQS calls it approximate.
    pub(crate) receive_count: u32,
    /// Message group, if the queue is a FIFO queue. Order is kept within a group.
    pub(crate) group: Option<Arc<str>>,
    /// The event, unread. `None` becomes NULL, which the database rejects.
    pub(crate) body: Option<String>,
    /// Memory that the message takes. It is given back with the message.
    pub(crate) _memory: Share,
}

impl Message {
    /// Returns the time since the message was sent, if the queue says when. Never negative, even if clocks differ.
    pub(crate) fn age(&self, now: SystemTime) -> Option<Duration> {
        let now = i64::try_from(now.duration_since(UNIX_EPOCH).ok()?.as_micros()).ok()?;
        let age = now.checked_sub(POSTGRES_EPOCH_MICROS)?.checked_sub(self.sent_at?)?;
        Some(Duration::from_micros(age.try_into().unwrap_or(0)))
    }

    /// Returns the size of the body in bytes.
    pub(crate) fn size(&self) -> usize {
        self.body.as_ref().map_or(0, String::len)
    }
}

/// Bytes that each message of a queue is expected to take, estimated from recent messages.
pub(crate) struct MessageSize(AtomicUsize);

impl Default for MessageSize {
    /// Expects the largest messages until some are received.
    fn default() -> Self {
        Self(AtomicUsize::new(LARGEST + OVERHEAD))
    }
}

impl MessageSize {
    /// Returns the expected size.
    pub(crate) fn get(&self) -> usize {
        self.0.load(Relaxed)
    }

    /// Learns from the messages of a call. The expected size rises at once and falls slowly.
    pub(crate) fn note(&self, messages: &[Message]) {
        let bytes: usize = messages.iter().map(|message| message.size() + OVERHEAD).sum();
        let mean = bytes / messages.len().max(1);
        let expected = self.get();
        // If another call overwrites this value, the next calls correct it.
        self.0.store(mean.max(expected - expected.saturating_sub(mean).div_ceil(8)), Relaxed);
    }
}

/// Returns the UUID of an SQS `MessageId`. A UUID in the usual 36 characters stays itself; any other id becomes its
/// `UUIDv5`.
///
/// Other spellings of UUIDs (braces, `urn:uuid:`) aren't parsed as UUIDs, because two different ids must not become
/// one.
pub(crate) fn message_uuid(message_id: &str) -> Uuid {
    match Uuid::try_parse(message_id) {
        Ok(id) if message_id.len() == 36 => id,
        _ => Uuid::new_v5(&MESSAGE_ID_NAMESPACE, message_id.as_bytes()),
    }
}

/// Converts SQS's `SentTimestamp` (milliseconds since 1970, as text) to `PostgreSQL`'s microseconds since 2000.
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
        // If these values changed, stored messages would look new.
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
