//! `ReceiveMessage`, with its long poll.

use std::borrow::Cow;
use std::fmt::Write;
use std::pin::pin;
use std::time::{Duration, Instant};

use super::{MOST_ENTRIES, parse};
use crate::broker::{Broker, Queue};
use crate::counters::add;
use crate::faults::{Fault, Faults};
use crate::message::{Message, Receipt, push_hex};
use crate::protocol;
use crate::recorder::Event;
use crate::refusal::Refusal;
use crate::state::{Fate, ReceiveCall};

/// Approximate number of bytes that a message takes in an answer, besides its body.
const OVERHEAD: usize = 420;

pub(super) async fn receive(broker: &Broker, request: &[u8]) -> Result<String, Refusal> {
    let call: protocol::Receive = parse(request)?;
    let max = call.max_number_of_messages.unwrap_or(1);
    if !(1..=MOST_ENTRIES).contains(&max) {
        return Err(Refusal::bad_value("MaxNumberOfMessages", &max.to_string()));
    }
    let queue = broker.queue(&call.queue_url)?;
    broker.keep_receive(&queue);
    let ask = Ask {
        max,
        visibility: call.visibility_timeout.map(|s| Duration::from_secs(s.into())),
        attempt: call.attempt.as_deref(),
        attributes: Attributes::read(&call.message_system_attribute_names, &call.attribute_names),
    };
    let wait = match call.wait_time_seconds {
        Some(seconds) => Duration::from_secs(seconds.into()),
        None => queue.state().settings.wait,
    };
    let end = Instant::now() + wait;
    loop {
        // Registered before looking for messages, so that any later change wakes this call.
        let mut changed = pin!(queue.changed.notified());
        changed.as_mut().enable();
        let now = Instant::now();
        let (answer, due) = hand_out(broker, &queue, &ask, now);
        if answer.is_some() || now >= end {
            return Ok(answer.unwrap_or_else(|| "{}".into()));
        }
        let next = due.map_or(end, |due| due.min(end));
        tokio::select! {
            () = changed => {}
            () = tokio::time::sleep_until(next.into()) => {}
        }
    }
}

/// The parameters of a call.
struct Ask<'a> {
    max: usize,
    visibility: Option<Duration>,
    attempt: Option<&'a str>,
    attributes: Attributes,
}

/// Returns the answer, if there are messages, and the next time at which there may be more.
fn hand_out(
    broker: &Broker,
    queue: &Queue,
    ask: &Ask<'_>,
    now: Instant,
) -> (Option<String>, Option<Instant>) {
    let faults = broker.faults();
    let mut answer = String::new();
    let (mut received, mut redelivered) = (0, 0);
    let mut state = queue.state();
    let dead = state.receive(
        now,
        ReceiveCall { max: ask.max, visibility: ask.visibility, attempt: ask.attempt },
        |may_duplicate| fate(broker, &faults, may_duplicate),
        |number, message| {
            received += 1;
            redelivered += usize::from(message.deliveries > 1);
            broker.recorder.keep(|| Event::Deliver(queue.record(now, number, message)));
            if answer.is_empty() {
                // The other messages will have about this length.
                answer.reserve(ask.max * (message.body.len() + OVERHEAD));
                answer.push_str("{\"Messages\":[");
            } else {
                answer.push(',');
            }
            write(&mut answer, queue, number, message, ask.attributes);
        },
    );
    let (due, hidden) = (state.next_due(), state.depth.hidden);
    drop(state);
    broker.bury(queue, dead);
    if received == 0 {
        return (None, due);
    }
    answer.push_str("]}");
    broker.tally.in_flight(hidden);
    broker.tally.note_received();
    add(&broker.tally.received, received);
    add(&broker.tally.redelivered, redelivered);
    // Other waiting calls do not know yet when these messages become receivable again.
    queue.changed.notify_waiters();
    (Some(answer), due)
}

fn fate(broker: &Broker, faults: &Faults, may_duplicate: bool) -> Fate {
    if broker.strikes(Fault::Expire, faults.expire) {
        Fate::Expire
    } else if may_duplicate && broker.strikes(Fault::Duplicate, faults.duplicate) {
        Fate::Duplicate
    } else {
        Fate::Normal
    }
}

/// The attributes of a message that a call requests.
#[derive(Clone, Copy)]
#[expect(clippy::struct_excessive_bools, reason = "any of them may be asked for")]
struct Attributes {
    sent_at: bool,
    deliveries: bool,
    group: bool,
    sequence: bool,
}

impl Attributes {
    fn read(names: &[Cow<str>], older_names: &[Cow<str>]) -> Self {
        let asks = |name| names.iter().chain(older_names).any(|asked| asked == name || asked == "All");
        Self {
            sent_at: asks("SentTimestamp"),
            deliveries: asks("ApproximateReceiveCount"),
            group: asks("MessageGroupId"),
            sequence: asks("SequenceNumber"),
        }
    }

    fn write(self, out: &mut String, number: u64, message: &Message) {
        let start = out.len();
        if self.sent_at {
            _ = write!(out, ",\"SentTimestamp\":\"{}\"", message.sent_at);
        }
        if self.deliveries {
            _ = write!(out, ",\"ApproximateReceiveCount\":\"{}\"", message.deliveries);
        }
        if let Some(group) = &message.group {
            if self.group {
                _ = write!(out, ",\"MessageGroupId\":{}", serde_json::Value::from(&**group));
            }
            if self.sequence {
                _ = write!(out, ",\"SequenceNumber\":\"{number:020}\"");
            }
        }
        if out.len() > start {
            out.replace_range(start..=start, ",\"Attributes\":{");
            out.push('}');
        }
    }
}

fn write(out: &mut String, queue: &Queue, number: u64, message: &Message, attributes: Attributes) {
    let receipt = Receipt { queue: queue.number, message: number, delivery: message.deliveries };
    out.push_str("{\"MessageId\":\"");
    out.push_str(message.id.hyphenated().encode_lower(&mut uuid::Uuid::encode_buffer()));
    out.push_str("\",\"ReceiptHandle\":\"");
    receipt.write(out);
    out.push_str("\",\"MD5OfBody\":\"");
    push_hex(out, &message.md5);
    out.push_str("\",\"Body\":");
    out.push_str(&message.body);
    attributes.write(out, number, message);
    out.push('}');
}
