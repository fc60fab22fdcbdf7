//! The SQS queue: receive, delete, release, and how much is in it.

mod failure;
mod setup;

use std::sync::Arc;
use std::time::Duration;

use aws_sdk_sqs::Client;
use aws_sdk_sqs::config::timeout::TimeoutConfig;
use aws_sdk_sqs::types::{
    BatchResultErrorEntry, ChangeMessageVisibilityBatchRequestEntry, DeleteMessageBatchRequestEntry,
    MessageSystemAttributeName as SystemAttribute, QueueAttributeName,
};
use futures_util::{StreamExt, stream};
use tracing::warn;

use crate::ledger::{Lease, Ledger};
use crate::message::{Message, message_uuid, sent_at};
pub(crate) use failure::Failure;

/// The most messages that one call of SQS takes or gives.
pub(crate) const CALL_SIZE: usize = 10;
/// How long one attempt of a call other than receive may take.
const CALL_TIMEOUT: Duration = Duration::from_secs(8);

/// One queue. Clones share the connection pool.
#[derive(Clone)]
pub(crate) struct Queue {
    client: Client,
    url: String,
    /// Seconds of a long poll.
    wait: i32,
    /// Seconds for which received messages are hidden.
    visibility: i32,
    receive_timeout: Duration,
}

/// How many messages are in a queue. SQS calls all three approximate.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Depth {
    /// Can be received.
    pub(crate) visible: u64,
    /// Received by someone and not yet deleted.
    pub(crate) hidden: u64,
    /// Sent with a delay that has not passed.
    pub(crate) delayed: u64,
}

impl Depth {
    /// All of them.
    pub(crate) fn total(self) -> u64 {
        self.visible + self.hidden + self.delayed
    }
}

/// What SQS answered to the delete of one message.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Deleted {
    /// It is gone.
    Yes,
    /// It is not, and will not be with this receipt; with the code.
    Refused(String),
    /// It is not, but may be next time; with the code.
    NotYet(String),
}

impl Queue {
    /// Receives up to ten messages, entering each into the ledger. Nothing can come between the answer and
    /// the ledger: a message that SQS has handed over is in it.
    pub(crate) async fn receive(&self, ledger: &Ledger) -> Result<Vec<Message>, Failure> {
        let timeouts = TimeoutConfig::builder().operation_attempt_timeout(self.receive_timeout).build();
        let answer = self
            .client
            .receive_message()
            .queue_url(&self.url)
            .max_number_of_messages(10)
            .wait_time_seconds(self.wait)
            .visibility_timeout(self.visibility)
            .message_system_attribute_names(SystemAttribute::SentTimestamp)
            .message_system_attribute_names(SystemAttribute::ApproximateReceiveCount)
            .customize()
            .config_override(aws_sdk_sqs::config::Builder::new().timeout_config(timeouts))
            .send()
            .await
            .map_err(|e| Failure::of("ReceiveMessage", &e))?;
        Ok(answer.messages.unwrap_or_default().into_iter().filter_map(|m| enter(m, ledger)).collect())
    }

    /// Deletes up to ten messages with one call. The answers are in the order of `leases`.
    pub(crate) async fn delete(&self, leases: &[Arc<Lease>]) -> Result<Vec<Deleted>, Failure> {
        let entries = leases
            .iter()
            .enumerate()
            // Ids must differ within a call. The same message may be in it twice, so a position it is.
            .map(|(i, l)| {
                DeleteMessageBatchRequestEntry::builder().id(i.to_string()).receipt_handle(&l.receipt).build()
            })
            .collect::<Result<Vec<_>, _>>()
            .map_err(|e| Failure::internal("DeleteMessageBatch", &e))?;
        let answer = self
            .client
            .delete_message_batch()
            .queue_url(&self.url)
            .set_entries(Some(entries))
            .send()
            .await
            .map_err(|e| Failure::of("DeleteMessageBatch", &e))?;
        // What SQS says nothing about is not confirmed.
        let mut results = vec![Deleted::NotYet("no answer".to_owned()); leases.len()];
        let mut set = |id: &str, result| {
            if let Some(slot) = id.parse::<usize>().ok().and_then(|i| results.get_mut(i)) {
                *slot = result;
            }
        };
        answer.successful.iter().for_each(|entry| set(&entry.id, Deleted::Yes));
        answer.failed.iter().for_each(|entry| set(&entry.id, not_deleted(entry)));
        Ok(results)
    }

    /// Makes messages visible again at once, with several calls at a time. Returns how many SQS has
    /// confirmed, and why a call failed if one did.
    pub(crate) async fn release(&self, leases: &[Arc<Lease>]) -> (usize, Option<Failure>) {
        let calls: Vec<_> = leases.chunks(CALL_SIZE).map(|ten| self.release_ten(ten)).collect();
        stream::iter(calls)
            .buffer_unordered(16)
            .fold((0, None), async |(sum, failure), result| match result {
                Ok(released) => (sum + released, failure),
                Err(failure) => (sum, Some(failure)),
            })
            .await
    }

    async fn release_ten(&self, leases: &[Arc<Lease>]) -> Result<usize, Failure> {
        let entries = leases
            .iter()
            .enumerate()
            .map(|(i, lease)| {
                ChangeMessageVisibilityBatchRequestEntry::builder()
                    .id(i.to_string())
                    .receipt_handle(&lease.receipt)
                    .visibility_timeout(0)
                    .build()
            })
            .collect::<Result<Vec<_>, _>>()
            .map_err(|e| Failure::internal("ChangeMessageVisibilityBatch", &e))?;
        let answer = self
            .client
            .change_message_visibility_batch()
            .queue_url(&self.url)
            .set_entries(Some(entries))
            .send()
            .await
            .map_err(|e| Failure::of("ChangeMessageVisibilityBatch", &e))?;
        Ok(answer.successful.len())
    }

    /// How many messages are in the queue.
    pub(crate) async fn depth(&self) -> Result<Depth, Failure> {
        use QueueAttributeName::{
            ApproximateNumberOfMessages as Visible, ApproximateNumberOfMessagesDelayed as Delayed,
            ApproximateNumberOfMessagesNotVisible as Hidden,
        };
        let answer = self
            .client
            .get_queue_attributes()
            .queue_url(&self.url)
            .set_attribute_names(Some(vec![Visible, Hidden, Delayed]))
            .send()
            .await
            .map_err(|e| Failure::of("GetQueueAttributes", &e))?;
        let attributes = answer.attributes.unwrap_or_default();
        let number = |name| attributes.get(&name).and_then(|n| n.parse().ok()).unwrap_or(0);
        Ok(Depth { visible: number(Visible), hidden: number(Hidden), delayed: number(Delayed) })
    }
}

/// Turns what SQS handed over into a message whose receipt the ledger holds.
fn enter(received: aws_sdk_sqs::types::Message, ledger: &Ledger) -> Option<Message> {
    let (Some(message_id), Some(receipt)) = (received.message_id, received.receipt_handle) else {
        // SQS always sends both. Without them it can be neither told from others nor deleted: it stays in the
        // queue.
        warn!("SQS handed over a message without id or receipt; it is left in the queue");
        return None;
    };
    let attributes = received.attributes.unwrap_or_default();
    Some(Message {
        id: message_uuid(&message_id),
        sent_at: attributes.get(&SystemAttribute::SentTimestamp).and_then(|t| sent_at(t)),
        receive_count: attributes
            .get(&SystemAttribute::ApproximateReceiveCount)
            .and_then(|n| n.parse().ok())
            .unwrap_or(1),
        body: received.body,
        lease: ledger.hold(message_id, receipt),
    })
}

/// A fault of the request, such as a receipt that has run out, is one for ever.
fn not_deleted(entry: &BatchResultErrorEntry) -> Deleted {
    if entry.sender_fault || entry.code.contains("ReceiptHandleIsInvalid") {
        Deleted::Refused(entry.code.clone())
    } else {
        Deleted::NotYet(entry.code.clone())
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use super::*;

    #[test]
    fn a_received_message_is_in_the_ledger() {
        let ledger = Ledger::default();
        let sqs = aws_sdk_sqs::types::Message::builder()
            .message_id("424cdd21-063a-43a7-b91b-7ca1a833afae")
            .receipt_handle("r")
            .body("{}")
            .set_attributes(Some(HashMap::from([
                (SystemAttribute::SentTimestamp, "946684800001".to_owned()),
                (SystemAttribute::ApproximateReceiveCount, "3".to_owned()),
            ])))
            .build();
        let message = enter(sqs, &ledger).unwrap();
        assert_eq!((message.sent_at, message.receive_count), (Some(1000), 3));
        assert_eq!(ledger.leases(&[message.lease])[0].receipt, "r");

        let no_receipt = aws_sdk_sqs::types::Message::builder().message_id("m").build();
        assert!(enter(no_receipt, &Ledger::default()).is_none());
    }

    #[test]
    fn only_faults_of_the_sender_are_final() {
        let entry = |code: &str, fault| {
            BatchResultErrorEntry::builder().id("0").code(code).sender_fault(fault).build().unwrap()
        };
        assert_eq!(not_deleted(&entry("InternalError", false)), Deleted::NotYet("InternalError".into()));
        assert_eq!(
            not_deleted(&entry("ReceiptHandleIsInvalid", false)),
            Deleted::Refused("ReceiptHandleIsInvalid".into())
        );
        assert_eq!(not_deleted(&entry("Anything", true)), Deleted::Refused("Anything".into()));
    }
}
