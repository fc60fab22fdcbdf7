//! One message, and the receipts of its deliveries.

use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use md5::{Digest, Md5};
use uuid::Uuid;

/// Makes a receipt as long as an SQS receipt, which is about 130 bytes in base64.
const FILLER: &str = "Qx7ZfK2mVb9TgWc4RnYh8LsDp1AoJe6UuMiXq3HvBy5NkCtFz0EwGjSrPdOl\
                      a8IxTq2LmVz7KcWn4YbRf1HgUe9JsDp6AoXu3MiBv5QyNhCtZk0EwGjSrPdO";
/// The usual beginning of SQS receipts.
const PREFIX: &str = "AQEB";
/// Length of the prefix, then the numbers of the queue, the message and the delivery in hexadecimal, then the filler.
const RECEIPT_LENGTH: usize = PREFIX.len() + 8 + 16 + 8 + FILLER.len();

/// A message in a queue.
pub(crate) struct Message {
    pub(crate) id: Uuid,
    /// The body as a JSON string with its quotes, so that an answer can contain it unchanged.
    pub(crate) body: Box<str>,
    /// MD5 of the body as the sender wrote it.
    pub(crate) md5: [u8; 16],
    /// Milliseconds since 1970.
    pub(crate) sent_at: u64,
    /// `MessageGroupId`.
    pub(crate) group: Option<Arc<str>>,
    pub(crate) place: Place,
    /// Number of times that it was delivered, which is also the number of the latest delivery.
    pub(crate) deliveries: u32,
    pub(crate) receipts: ValidReceipts,
}

/// A message to be sent.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Outgoing<'a> {
    pub(crate) body: &'a str,
    pub(crate) group: Option<&'a str>,
    pub(crate) deduplication: Option<&'a str>,
    pub(crate) delay: Option<Duration>,
}

/// A message that was sent.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Sent {
    pub(crate) id: Uuid,
    pub(crate) number: u64,
    pub(crate) md5: [u8; 16],
}

/// The state of a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Place {
    /// It can be received.
    Ready,
    /// It was received, and is hidden until this time.
    Hidden(Instant),
    /// It was sent with a delay that ends at this time.
    Delayed(Instant),
}

/// The valid receipts of a message.
#[derive(Clone, Copy, Debug)]
pub(crate) struct ValidReceipts {
    /// Number of the first delivery whose receipt is valid. Receipts of later deliveries are valid too.
    pub(crate) first: u32,
    /// Time at which all of them expire.
    pub(crate) expire_at: Instant,
}

impl Message {
    /// Creates a message that can be received.
    pub(crate) fn new(id: Uuid, body: &str, group: Option<Arc<str>>) -> Self {
        let since_1970 = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        Self {
            id,
            body: escape(body),
            md5: Md5::digest(body.as_bytes()).into(),
            sent_at: u64::try_from(since_1970.as_millis()).unwrap_or(u64::MAX),
            group,
            place: Place::Ready,
            deliveries: 0,
            receipts: ValidReceipts { first: 1, expire_at: Instant::now() },
        }
    }
}

fn escape(body: &str) -> Box<str> {
    // Writing a string as JSON never fails.
    serde_json::to_string(body).unwrap_or_default().into()
}

/// Appends bytes in hexadecimal. Does not use `write!`, because this runs several times per message.
pub(crate) fn push_hex(out: &mut String, bytes: &[u8]) {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    for byte in bytes {
        out.push(char::from(DIGITS[usize::from(byte >> 4)]));
        out.push(char::from(DIGITS[usize::from(byte & 15)]));
    }
}

/// Returns sixteen bytes in hexadecimal.
pub(crate) fn hex(bytes: [u8; 16]) -> String {
    let mut out = String::with_capacity(32);
    push_hex(&mut out, &bytes);
    out
}

/// The contents of a receipt handle: the delivery of a message from a queue.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Receipt {
    /// The queue's number. A queue that is created again under a name gets a new one.
    pub(crate) queue: u32,
    /// The message's number in the queue.
    pub(crate) message: u64,
    pub(crate) delivery: u32,
}

impl Receipt {
    /// Reads a receipt handle.
    pub(crate) fn parse(handle: &str) -> Option<Self> {
        if handle.len() != RECEIPT_LENGTH || !handle.ends_with(FILLER) {
            return None;
        }
        let numbers = handle.strip_prefix(PREFIX)?;
        Some(Self {
            queue: u32::from_str_radix(numbers.get(..8)?, 16).ok()?,
            message: u64::from_str_radix(numbers.get(8..24)?, 16).ok()?,
            delivery: u32::from_str_radix(numbers.get(24..32)?, 16).ok()?,
        })
    }

    /// Appends the receipt handle.
    pub(crate) fn write(self, out: &mut String) {
        let Self { queue, message, delivery } = self;
        out.push_str(PREFIX);
        push_hex(out, &queue.to_be_bytes());
        push_hex(out, &message.to_be_bytes());
        push_hex(out, &delivery.to_be_bytes());
        out.push_str(FILLER);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_receipt_is_read_back_and_nothing_else_is() {
        let receipt = Receipt { queue: 3, message: u64::MAX, delivery: 12 };
        let mut handle = String::new();
        receipt.write(&mut handle);
        assert_eq!(Receipt::parse(&handle), Some(receipt));
        assert_eq!(Receipt::parse(&handle.replace("AQEB", "AQEC")), None);
        assert_eq!(Receipt::parse(&handle[1..]), None);
        assert_eq!(Receipt::parse("xx"), None);
    }

    #[test]
    fn a_body_is_kept_as_json_with_the_md5_of_what_was_sent() {
        let message = Message::new(Uuid::nil(), "hello \"world\"\n", None);
        assert_eq!(&*message.body, r#""hello \"world\"\n""#);
        assert_eq!(
            hex(Message::new(Uuid::nil(), "hello world", None).md5),
            "5eb63bbbe01eeed093cb22bb8f5acdc3"
        );
    }
}
