//! One message, and the receipts that stand for its deliveries.

use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use md5::{Digest, Md5};
use uuid::Uuid;

/// Makes a receipt as long as one of SQS, which is made of some 130 bytes in base64.
const FILLER: &str = "Qx7ZfK2mVb9TgWc4RnYh8LsDp1AoJe6UuMiXq3HvBy5NkCtFz0EwGjSrPdOl\
                      a8IxTq2LmVz7KcWn4YbRf1HgUe9JsDp6AoXu3MiBv5QyNhCtZk0EwGjSrPdO";
/// What the receipts of SQS begin with, mostly.
const PREFIX: &str = "AQEB";
/// Prefix, number of the queue, number of the message and number of the delivery, these in hexadecimal.
const RECEIPT_LENGTH: usize = PREFIX.len() + 8 + 16 + 8 + FILLER.len();

/// A message in a queue.
pub(crate) struct Message {
    pub(crate) id: Uuid,
    /// As a JSON string, quotes included, so that an answer takes it over as it is.
    pub(crate) body: Box<str>,
    /// Of the body as the sender wrote it.
    pub(crate) md5: [u8; 16],
    /// Milliseconds since 1970.
    pub(crate) sent_at: u64,
    /// `MessageGroupId`.
    pub(crate) group: Option<Arc<str>>,
    pub(crate) place: Place,
    /// How often it was handed out, which is also the number of the latest delivery.
    pub(crate) deliveries: u32,
    pub(crate) valid: Valid,
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

/// Where a message is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Place {
    /// Can be received.
    Ready,
    /// Received, and hidden until then.
    Hidden(Instant),
    /// Sent with a delay that ends then.
    Delayed(Instant),
}

/// Which receipts of a message are good.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Valid {
    /// The first delivery whose receipt is good, up to the latest.
    pub(crate) from: u32,
    /// When they all end.
    pub(crate) until: Instant,
}

impl Message {
    /// A new message, ready to be received.
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
            valid: Valid { from: 1, until: Instant::now() },
        }
    }
}

fn escape(body: &str) -> Box<str> {
    // A string can always be written.
    serde_json::to_string(body).unwrap_or_default().into()
}

/// Appends bytes in hexadecimal. Not by `write!`: it is done several times a message.
pub(crate) fn push_hex(out: &mut String, bytes: &[u8]) {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    for byte in bytes {
        out.push(char::from(DIGITS[usize::from(byte >> 4)]));
        out.push(char::from(DIGITS[usize::from(byte & 15)]));
    }
}

/// Sixteen bytes in hexadecimal.
pub(crate) fn hex(bytes: [u8; 16]) -> String {
    let mut out = String::with_capacity(32);
    push_hex(&mut out, &bytes);
    out
}

/// What a receipt handle says: the delivery of a message of a queue.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Receipt {
    /// Differs for a queue made anew under an old name.
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
