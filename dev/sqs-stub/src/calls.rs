//! The calls of SQS: from a request's JSON to its answer's.

mod messages;
mod queues;
mod receive;

use std::collections::HashSet;

use serde::{Deserialize, Serialize};

use crate::broker::Broker;
use crate::protocol::Action;
use crate::refusal::Refusal;

/// Maximum number of entries in a call.
const MOST_ENTRIES: usize = 10;

/// Performs a call.
pub(crate) async fn perform(broker: &Broker, action: Action, request: &[u8]) -> Result<String, Refusal> {
    match action {
        Action::CreateQueue => queues::create(broker, request),
        Action::GetQueueUrl => queues::url(broker, request),
        Action::DeleteQueue => queues::delete(broker, request),
        Action::PurgeQueue => queues::purge(broker, request),
        Action::GetQueueAttributes => queues::attributes(broker, request),
        Action::SetQueueAttributes => queues::set_attributes(broker, request),
        Action::SendMessage => messages::send(broker, request),
        Action::SendMessageBatch => messages::send_batch(broker, request),
        Action::ReceiveMessage => receive::receive(broker, request).await,
        Action::DeleteMessage => messages::delete(broker, request),
        Action::DeleteMessageBatch => messages::delete_batch(broker, request),
        Action::ChangeMessageVisibility => messages::change(broker, request),
        Action::ChangeMessageVisibilityBatch => messages::change_batch(broker, request),
    }
}

pub(crate) fn parse<'a, T: Deserialize<'a>>(request: &'a [u8]) -> Result<T, Refusal> {
    serde_json::from_slice(request).map_err(|e| Refusal::unreadable(&e))
}

pub(crate) fn json(answer: &impl Serialize) -> Result<String, Refusal> {
    serde_json::to_string(answer).map_err(|e| Refusal::unreadable(&e))
}

/// Checks SQS's requirements for every batch.
fn check_batch<'a>(ids: impl ExactSizeIterator<Item = &'a str>) -> Result<(), Refusal> {
    let entries = ids.len();
    if entries == 0 {
        return Err(Refusal::empty_batch());
    }
    if entries > MOST_ENTRIES {
        return Err(Refusal::too_many_entries(entries));
    }
    let mut seen = HashSet::with_capacity(entries);
    for id in ids {
        if !seen.insert(id) {
            return Err(Refusal::same_ids(id));
        }
    }
    Ok(())
}
