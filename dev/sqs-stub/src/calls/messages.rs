//! Sends and deletes messages and changes their visibility, singly and in batches.

use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use super::{check_batch, json, parse};
use crate::broker::{Broker, Queue};
use crate::counters::add;
use crate::faults::Fault;
use crate::message::{Outgoing, Receipt, Sent, hex};
use crate::protocol::{
    Batch, BatchAnswer, DoneEntry, FailedEntry, OneReceipt, ReceiptEntry, Send, SentEntry,
};
use crate::recorder::Event;
use crate::refusal::Refusal;

pub(super) fn send(broker: &Broker, request: &[u8]) -> Result<String, Refusal> {
    let call: Send = parse(request)?;
    let queue = broker.queue(&call.queue_url)?;
    let sent = send_one(broker, &queue, &call)?;
    queue.changed.notify_waiters();
    json(&sent)
}

pub(super) fn send_batch(broker: &Broker, request: &[u8]) -> Result<String, Refusal> {
    let call: Batch<Send> = parse(request)?;
    let queue = broker.queue(&call.queue_url)?;
    check_batch(call.entries.iter().map(|e| &*e.id))?;
    let results = call.entries.iter().map(|entry| (&*entry.id, send_one(broker, &queue, entry)));
    let answer = answer(results, |_, sent| sent);
    queue.changed.notify_waiters();
    json(&answer)
}

fn send_one<'a>(broker: &Broker, queue: &Queue, entry: &'a Send) -> Result<SentEntry<'a>, Refusal> {
    let outgoing = Outgoing {
        body: &entry.message_body,
        group: entry.message_group_id.as_deref(),
        deduplication: entry.message_deduplication_id.as_deref(),
        delay: entry.delay_seconds.map(|s| Duration::from_secs(s.into())),
    };
    let Sent { id, number, md5 } = queue.state().send(Instant::now(), outgoing)?;
    add(&broker.tally.sent, 1);
    Ok(SentEntry {
        id: &entry.id,
        message_id: id.to_string(),
        md5: hex(md5),
        sequence_number: queue.fifo.then(|| format!("{number:020}")),
    })
}

pub(super) fn delete(broker: &Broker, request: &[u8]) -> Result<String, Refusal> {
    let call: OneReceipt = parse(request)?;
    let queue = broker.queue(&call.queue_url)?;
    delete_one(broker, &queue, &call.receipt_handle)?;
    Ok("{}".into())
}

pub(super) fn delete_batch(broker: &Broker, request: &[u8]) -> Result<String, Refusal> {
    let call: Batch<ReceiptEntry> = parse(request)?;
    let queue = broker.queue(&call.queue_url)?;
    check_batch(call.entries.iter().map(|e| &*e.id))?;
    let probability = broker.faults().partial_delete;
    let results = call.entries.iter().map(|entry| {
        let result = if broker.strikes(Fault::PartialDelete, probability) {
            Err(Refusal::server_error(false))
        } else {
            delete_one(broker, &queue, &entry.receipt_handle)
        };
        (&*entry.id, result)
    });
    json(&answer(results, |id, ()| DoneEntry { id }))
}

fn delete_one(broker: &Broker, queue: &Queue, handle: &str) -> Result<(), Refusal> {
    let now = Instant::now();
    let accept_expired = broker.faults().late_receipts;
    let Some(receipt) = Receipt::parse(handle).filter(|receipt| receipt.queue == queue.number) else {
        return Err(Refusal::bad_receipt());
    };
    let mut state = queue.state();
    match state.delete(now, receipt, accept_expired) {
        Ok(Some((number, message))) => {
            // This happens under the lock, so that the log is in the order of the deletes.
            broker.recorder.keep(|| Event::Delete(queue.record(now, number, &message)));
            drop(state);
            broker.tally.note_deleted();
            broker.tally.deleted.fetch_add(1, Ordering::Relaxed);
            if queue.fifo {
                // The message's group may have more to deliver.
                queue.changed.notify_waiters();
            }
            Ok(())
        }
        Ok(None) => Ok(()),
        Err(refusal) => {
            add(&broker.tally.stale_deletes, 1);
            Err(refusal)
        }
    }
}

pub(super) fn change(broker: &Broker, request: &[u8]) -> Result<String, Refusal> {
    let call: OneReceipt = parse(request)?;
    let queue = broker.queue(&call.queue_url)?;
    change_one(broker, &queue, &call.receipt_handle, call.visibility_timeout)?;
    queue.changed.notify_waiters();
    Ok("{}".into())
}

pub(super) fn change_batch(broker: &Broker, request: &[u8]) -> Result<String, Refusal> {
    let call: Batch<ReceiptEntry> = parse(request)?;
    let queue = broker.queue(&call.queue_url)?;
    check_batch(call.entries.iter().map(|e| &*e.id))?;
    let probability = broker.faults().partial_extend;
    let results = call.entries.iter().map(|entry| {
        let result = if broker.strikes(Fault::PartialExtend, probability) {
            Err(Refusal::server_error(false))
        } else {
            change_one(broker, &queue, &entry.receipt_handle, entry.visibility_timeout)
        };
        (&*entry.id, result)
    });
    let answer = answer(results, |id, ()| DoneEntry { id });
    queue.changed.notify_waiters();
    json(&answer)
}

fn change_one(broker: &Broker, queue: &Queue, handle: &str, seconds: u32) -> Result<(), Refusal> {
    let accept_expired = broker.faults().late_receipts;
    let receipt = Receipt::parse(handle).filter(|receipt| receipt.queue == queue.number);
    let receipt = receipt.ok_or_else(Refusal::bad_receipt)?;
    queue.state().change(Instant::now(), receipt, Duration::from_secs(seconds.into()), accept_expired)
}

/// Sorts the results of a batch's entries into successes and failures.
fn answer<'a, T, S>(
    results: impl Iterator<Item = (&'a str, Result<T, Refusal>)>,
    done: impl Fn(&'a str, T) -> S,
) -> BatchAnswer<'a, S> {
    let mut answer = BatchAnswer { successful: Vec::new(), failed: Vec::new() };
    for (id, result) in results {
        match result {
            Ok(result) => answer.successful.push(done(id, result)),
            Err(refusal) => answer.failed.push(FailedEntry {
                id,
                code: refusal.code,
                sender_fault: refusal.is_senders_fault(),
                message: refusal.message,
            }),
        }
    }
    answer
}
