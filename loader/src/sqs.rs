//! An SQS queue: receives, deletes, extends, releases and counts messages.

mod address;
mod attributes;
mod check;
mod client;
mod connector;
mod error;
mod open;

use std::collections::HashSet;
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use aws_sdk_sqs::types::{
    BatchResultErrorEntry, ChangeMessageVisibilityBatchRequestEntry, DeleteMessageBatchRequestEntry,
    MessageSystemAttributeName as SystemAttribute, QueueAttributeName,
};
use futures_util::{StreamExt, stream};
use metrics::gauge;
use tokio::time::Instant;
use tracing::warn;
use uuid::Uuid;

use crate::leases::ledger::{CALL_SIZE, Lease, Reservation};
use crate::message::{Message, message_uuid, sent_at};
use crate::telemetry::metrics::name;
use crate::telemetry::readiness::LastAnswer;
pub(crate) use crate::telemetry::stats::Depth;
use crate::telemetry::trace::{self, MessageSpan};
pub(crate) use address::Address;
use attributes::Attributes;
pub(crate) use client::Role;
use client::Service;
pub(crate) use error::SqsError;
pub(crate) use open::QueueSettings;
/// Maximum messages of a queue in flight. Above it, SQS returns no messages and no error.
pub(crate) const IN_FLIGHT_CAP: u64 = 120_000;
/// Maximum calls at a time when many messages are released.
const CALLS: usize = 16;

/// All queues of a run. `Lease::queue` is an index into it.
pub(crate) type Queues = Arc<[Queue]>;

/// One queue. Clones share the connection pool.
#[derive(Clone)]
pub(crate) struct Queue {
    service: Arc<Service>,
    /// Its index among the queues of the run.
    pub(crate) number: usize,
    /// Its name in metrics and logs. Queues with equal names also have the region, account or host by which they differ.
    pub(crate) name: Arc<str>,
    url: Arc<str>,
    /// Length of a long poll, in seconds.
    wait: i32,
    /// Time for which received messages are hidden, in whole seconds.
    visibility: Duration,
    /// Whether SQS keeps the order of message groups.
    pub(crate) fifo: bool,
    /// Whether the run goes on until it is stopped. If so, no failure of a call that has worked is final.
    is_service: bool,
    worked: Arc<Worked>,
}

/// Calls that have worked with a queue.
#[derive(Default)]
struct Worked(RwLock<HashSet<&'static str>>);

impl Worked {
    fn has(&self, call: &str) -> bool {
        self.0.read().unwrap_or_else(PoisonError::into_inner).contains(call)
    }

    fn note(&self, call: &'static str) {
        if !self.has(call) {
            self.0.write().unwrap_or_else(PoisonError::into_inner).insert(call);
        }
    }
}

impl Depth {
    /// Whether SQS may soon hand out nothing more from the queue.
    pub(crate) fn is_near_cap(self) -> bool {
        self.hidden >= IN_FLIGHT_CAP / 10 * 9
    }

    /// Sets the gauges of the queue. The calls are at least a second apart, so the lookup of the gauges is cheap enough.
    fn update_gauges(self, queue: &str) {
        for (state, messages) in
            [("visible", self.visible), ("hidden", self.hidden), ("delayed", self.delayed)]
        {
            let messages = u32::try_from(messages).unwrap_or(u32::MAX);
            gauge!(name::QUEUE_MESSAGES, "queue" => queue.to_owned(), "state" => state).set(messages);
        }
    }

    /// Returns the sum for all `queues`.
    pub(crate) async fn of(queues: &[Queue]) -> Result<Self, SqsError> {
        let mut sum = Self::default();
        for queue in queues {
            sum = sum + queue.depth().await?;
        }
        Ok(sum)
    }
}

/// SQS's answer for one message of a call that deletes or extends.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Answer {
    /// It is done.
    Done,
    /// It isn't done, and never will be with this receipt. Holds the code.
    Refused(String),
    /// It isn't done, but a retry may succeed. Holds the code.
    NotYet(String),
}

impl Queue {
    /// Receives at most as many messages as `reservation` allows, and enters each into the ledger. Nothing can come between the
    /// answer and the ledger: a message that SQS has handed over is in it. A call that repeats a failed one must have
    /// the failed call's `attempt`.
    pub(crate) async fn receive(
        &self,
        mut reservation: Reservation<'_>,
        attempt: Uuid,
    ) -> Result<Vec<Message>, SqsError> {
        // The lease is counted from before the call.
        let until = Instant::now() + self.visibility;
        let mut call = self
            .service
            .receiving()
            .receive_message()
            .queue_url(&*self.url)
            .max_number_of_messages(reservation.call_size.try_into().unwrap_or(1))
            .wait_time_seconds(self.wait)
            .visibility_timeout(self.seconds())
            .message_system_attribute_names(SystemAttribute::SentTimestamp)
            .message_system_attribute_names(SystemAttribute::ApproximateReceiveCount)
            .set_message_attribute_names(trace::message_attributes());
        if self.fifo {
            call = call
                .message_system_attribute_names(SystemAttribute::MessageGroupId)
                .receive_request_attempt_id(attempt.to_string());
        }
        let (answer, bytes) = connector::within(std::mem::take(reservation.bytes()), call.send()).await;
        *reservation.bytes() = bytes;
        let answer = self.checked("ReceiveMessage", answer).await?;
        let messages = answer.messages.unwrap_or_default();
        Ok(messages.into_iter().filter_map(|m| self.enter(m, &mut reservation, until)).collect())
    }

    /// Deletes up to ten messages with one call. The answers are in the order of `leases`.
    pub(crate) async fn delete(&self, leases: &[Arc<Lease>]) -> Result<Vec<Answer>, SqsError> {
        let entries = leases
            .iter()
            .enumerate()
            // Ids must differ within a call. The same message may be in it twice, so the id is the position.
            .map(|(i, l)| {
                DeleteMessageBatchRequestEntry::builder().id(i.to_string()).receipt_handle(&l.receipt).build()
            })
            .collect::<Result<Vec<_>, _>>()
            .map_err(|e| SqsError::internal("DeleteMessageBatch", &e))?;
        let call =
            self.service.client().delete_message_batch().queue_url(&*self.url).set_entries(Some(entries));
        let answer = self.checked("DeleteMessageBatch", call.send().await).await?;
        let done = answer.successful.iter().map(|entry| entry.id.as_str());
        Ok(answers(leases.len(), done, &answer.failed))
    }

    /// Hides up to ten messages for the whole visibility timeout again. Returns the answers in the order of `leases`,
    /// and the time until which the messages are hidden.
    pub(crate) async fn extend(&self, leases: &[Arc<Lease>]) -> Result<(Vec<Answer>, Instant), SqsError> {
        let until = Instant::now() + self.visibility;
        Ok((self.hide(leases, self.seconds()).await?, until))
    }

    /// Makes messages visible again at once, with several calls at a time. Returns the number that SQS has confirmed,
    /// and the last reason why a message was not confirmed.
    pub(crate) async fn release(&self, leases: &[Arc<Lease>]) -> (usize, Option<String>) {
        let calls: Vec<_> = leases.chunks(CALL_SIZE).map(|chunk| self.hide(chunk, 0)).collect();
        stream::iter(calls)
            .buffer_unordered(CALLS)
            .fold((0, None), async |(mut released, mut reason), result| {
                match result {
                    Ok(answers) => {
                        for answer in answers {
                            match answer {
                                Answer::Done => released += 1,
                                Answer::Refused(code) | Answer::NotYet(code) => reason = Some(code),
                            }
                        }
                    }
                    Err(failure) => reason = Some(failure.to_string()),
                }
                (released, reason)
            })
            .await
    }

    async fn hide(&self, leases: &[Arc<Lease>], seconds: i32) -> Result<Vec<Answer>, SqsError> {
        let entries = leases
            .iter()
            .enumerate()
            .map(|(i, lease)| {
                ChangeMessageVisibilityBatchRequestEntry::builder()
                    .id(i.to_string())
                    .receipt_handle(&lease.receipt)
                    .visibility_timeout(seconds)
                    .build()
            })
            .collect::<Result<Vec<_>, _>>()
            .map_err(|e| SqsError::internal("ChangeMessageVisibilityBatch", &e))?;
        let call = self
            .service
            .client()
            .change_message_visibility_batch()
            .queue_url(&*self.url)
            .set_entries(Some(entries));
        let answer = self.checked("ChangeMessageVisibilityBatch", call.send().await).await?;
        let done = answer.successful.iter().map(|entry| entry.id.as_str());
        Ok(answers(leases.len(), done, &answer.failed))
    }

    /// Returns its URL.
    pub(crate) fn url(&self) -> &str {
        &self.url
    }

    /// Returns when SQS last answered a call, for any queue of the run.
    pub(crate) fn pulse(&self) -> Arc<LastAnswer> {
        Arc::clone(&self.service.pulse)
    }

    /// Returns the number of messages in the queue.
    pub(crate) async fn depth(&self) -> Result<Depth, SqsError> {
        use QueueAttributeName::{
            ApproximateNumberOfMessages as Visible, ApproximateNumberOfMessagesDelayed as Delayed,
            ApproximateNumberOfMessagesNotVisible as Hidden,
        };
        let call = self.service.client().get_queue_attributes().queue_url(&*self.url);
        let call = call.set_attribute_names(Some(vec![Visible, Hidden, Delayed]));
        let answer = self.checked("GetQueueAttributes", call.send().await).await?;
        let depth = Attributes(answer.attributes.unwrap_or_default()).depth();
        depth.update_gauges(&self.name);
        Ok(depth)
    }

    fn seconds(&self) -> i32 {
        i32::try_from(self.visibility.as_secs()).unwrap_or(i32::MAX)
    }

    /// Turns a message from SQS into one whose receipt the ledger holds.
    fn enter(
        &self,
        received: aws_sdk_sqs::types::Message,
        reservation: &mut Reservation<'_>,
        until: Instant,
    ) -> Option<Message> {
        let trace = MessageSpan::begin(&self.name, &received);
        let (Some(message_id), Some(receipt)) = (received.message_id, received.receipt_handle) else {
            // SQS always sends both. Without them the message can't be told from others or deleted, so it stays in the
            // queue.
            warn!("SQS handed over a message without id or receipt; it is left in the queue");
            return None;
        };
        let attributes = received.attributes.unwrap_or_default();
        let attribute = |name| attributes.get(&name).map(String::as_str);
        let group: Option<Arc<str>> = attribute(SystemAttribute::MessageGroupId).map(Arc::from);
        Some(Message {
            id: message_uuid(&message_id),
            sent_at: attribute(SystemAttribute::SentTimestamp).and_then(sent_at),
            receive_count: attribute(SystemAttribute::ApproximateReceiveCount)
                .and_then(|n| n.parse().ok())
                .unwrap_or(1),
            _memory: reservation.memory(received.body.as_ref()),
            body: received.body,
            group: group.clone(),
            lease: reservation.hold(self.number, message_id, receipt, group, until, trace),
        })
    }
}

/// Sorts the entries of an answer by their ids, which are positions.
fn answers<'a>(
    count: usize,
    done: impl Iterator<Item = &'a str>,
    failed: &[BatchResultErrorEntry],
) -> Vec<Answer> {
    // A message that SQS says nothing about is not confirmed.
    let mut answers = vec![Answer::NotYet("no answer".to_owned()); count];
    let mut set = |id: &str, answer| {
        if let Some(slot) = id.parse::<usize>().ok().and_then(|i| answers.get_mut(i)) {
            *slot = answer;
        }
    };
    done.for_each(|id| set(id, Answer::Done));
    for entry in failed {
        set(&entry.id, not_done(entry));
    }
    answers
}

/// Codes that count as the sender's fault, but pass.
const PASSING: [&str; 2] = ["Throttl", "OverLimit"];

/// Classifies a message that wasn't done. A fault in the request, such as an expired receipt, is permanent.
fn not_done(entry: &BatchResultErrorEntry) -> Answer {
    if PASSING.iter().any(|code| entry.code.contains(code)) {
        Answer::NotYet(entry.code.clone())
    } else if entry.sender_fault || entry.code.contains("ReceiptHandleIsInvalid") {
        Answer::Refused(entry.code.clone())
    } else {
        Answer::NotYet(entry.code.clone())
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use super::*;
    use crate::leases::ledger::Ledger;

    #[tokio::test]
    async fn a_received_message_is_in_the_ledger() {
        let ledger = Ledger::new(10, 0);
        let queue = Queue::of_a_test();
        let sqs = aws_sdk_sqs::types::Message::builder()
            .message_id("424cdd21-063a-43a7-b91b-7ca1a833afae")
            .receipt_handle("r")
            .body("{}")
            .set_attributes(Some(HashMap::from([
                (SystemAttribute::SentTimestamp, "946684800001".to_owned()),
                (SystemAttribute::ApproximateReceiveCount, "3".to_owned()),
                (SystemAttribute::MessageGroupId, "g".to_owned()),
            ])))
            .build();
        let mut reservation = ledger.reserve(1).await;
        let message = queue.enter(sqs, &mut reservation, Instant::now() + queue.visibility).unwrap();
        assert_eq!((message.sent_at, message.receive_count), (Some(1000), 3));
        assert_eq!(message.group.as_deref(), Some("g"));

        let no_receipt = aws_sdk_sqs::types::Message::builder().message_id("m").build();
        assert!(queue.enter(no_receipt, &mut reservation, Instant::now()).is_none());
        let held = ledger.take_all();
        assert_eq!(held.iter().map(|lease| lease.receipt.as_str()).collect::<Vec<_>>(), ["r"]);
        assert_eq!(held[0].id, message.lease);
    }

    #[test]
    fn a_queue_is_near_its_cap_at_nine_tenths() {
        let depth = |hidden| Depth { hidden, ..Depth::default() };
        assert!(!depth(107_999).is_near_cap() && depth(108_000).is_near_cap());
    }

    #[test]
    fn an_entry_without_an_answer_is_not_confirmed() {
        let entry = |id: &str, code: &str, fault| {
            BatchResultErrorEntry::builder().id(id).code(code).sender_fault(fault).build().unwrap()
        };
        let failed = [
            entry("1", "InternalError", false),
            entry("2", "ReceiptHandleIsInvalid", false),
            entry("3", "Anything", true),
            entry("4", "KmsThrottled", true),
        ];
        let expected = [
            Answer::Done,
            Answer::NotYet("InternalError".into()),
            Answer::Refused("ReceiptHandleIsInvalid".into()),
            Answer::Refused("Anything".into()),
            Answer::NotYet("KmsThrottled".into()),
            Answer::NotYet("no answer".into()),
        ];
        assert_eq!(answers(6, ["0"].into_iter(), &failed), expected);
    }
}
