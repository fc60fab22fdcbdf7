//! Messages in flight: every message received whose delete SQS has not yet confirmed.
//!
//! Receipts are kept here and nowhere else. The tasks of the pipeline pass messages on by `LeaseId`. So whichever task
//! fails, and wherever a message then is, the ledger still knows what must be extended and, in the end, made visible
//! again. It also limits how much is received, which holds the pollers back.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use metrics::{Gauge, gauge};
use tokio::sync::watch;
use tokio::time::Instant;

use crate::leases::capacity::{Capacity, Share};
use crate::leases::term::Term;
use crate::telemetry::metrics::name;
use crate::telemetry::stats::Census;
use crate::telemetry::trace::MessageSpan;

/// Maximum messages that one SQS call takes or returns.
pub(crate) const CALL_SIZE: usize = 10;
/// Bytes that a message takes besides its body, approximately.
pub(crate) const OVERHEAD: usize = 1024;

/// Identifies one delivery of one message. A message that is delivered twice has two, because it has two receipts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct LeaseId(u64);

impl LeaseId {
    /// For a message that came from no queue.
    pub(crate) const NONE: Self = Self(0);

    /// Returns an id for a test.
    #[cfg(test)]
    pub(crate) fn numbered(n: u64) -> Self {
        Self(n)
    }
}

/// Data that SQS needs to delete, extend or release one delivery of a message.
pub(crate) struct Lease {
    /// The key of this lease in the ledger.
    pub(crate) id: LeaseId,
    /// Number of its queue in this run.
    pub(crate) queue: usize,
    /// SQS's `MessageId`, which is fit for logs.
    pub(crate) message_id: String,
    /// SQS's `ReceiptHandle`.
    pub(crate) receipt: String,
    /// SQS's `MessageGroupId`, if the queue is a FIFO queue.
    pub(crate) group: Option<Arc<str>>,
    /// Trace of the message.
    pub(crate) trace: MessageSpan,
    pub(crate) received: Instant,
}

/// All leases that this process holds.
pub(crate) struct Ledger {
    held: Mutex<HeldLeases>,
    /// Capacity for messages that are received, or that a receive call can return.
    capacity: Capacity,
    /// Half of `capacity`, which limits receive calls to idle queues.
    idle_capacity: Capacity,
    /// Whether leases are about to expire. Nothing more is received meanwhile.
    endangered: watch::Sender<bool>,
    /// Gauge for the number of leases held.
    in_flight: Gauge,
}

/// Minimum capacity for bodies, in bytes. Less would only cause many small receive calls.
const LEAST_BYTES: usize = 12 * 1024 * 1024;

#[derive(Default)]
struct HeldLeases {
    last: u64,
    leases: HashMap<LeaseId, HeldLease>,
}

/// A lease in flight. It takes capacity for one message until it is removed.
struct HeldLease {
    lease: Arc<Lease>,
    term: Term<Instant>,
    _share: Share,
}

/// Capacity for the messages of one receive call. The unused part is given back when the reservation is dropped.
pub(crate) struct Reservation<'l> {
    ledger: &'l Ledger,
    /// Maximum messages that the call may ask for.
    pub(crate) call_size: usize,
    messages: Share,
    bytes: Share,
    _idle: Option<(Share, Share)>,
}

impl Reservation<'_> {
    /// Returns the memory for the whole answer.
    pub(crate) fn bytes(&mut self) -> &mut Share {
        &mut self.bytes
    }

    /// Takes the memory for a message with this body out of the reservation, and more if the body is larger than
    /// expected.
    pub(crate) fn memory(&mut self, body: Option<&String>) -> Share {
        self.bytes.split(body.map_or(0, String::len) + OVERHEAD)
    }

    /// Enters a delivery whose lease lasts at least until `until`.
    pub(crate) fn hold(
        &mut self,
        queue: usize,
        message_id: String,
        receipt: String,
        group: Option<Arc<str>>,
        until: Instant,
        trace: MessageSpan,
    ) -> LeaseId {
        let mut held = self.ledger.lock();
        held.last += 1;
        let id = LeaseId(held.last);
        let lease = Lease { id, queue, message_id, receipt, group, trace, received: Instant::now() };
        let held_lease =
            HeldLease { lease: Arc::new(lease), term: Term::begin(until), _share: self.messages.split(1) };
        held.leases.insert(id, held_lease);
        self.ledger.update_gauge(&held);
        id
    }
}

impl Ledger {
    /// Makes an empty ledger for this many messages at a time, and this many bytes of them that are not stored yet.
    pub(crate) fn new(messages: usize, bytes: usize) -> Self {
        let bytes = bytes.max(LEAST_BYTES);
        Self {
            held: Mutex::default(),
            capacity: Capacity::new(messages, bytes),
            idle_capacity: Capacity::new(messages / 2, bytes / 2),
            endangered: watch::Sender::new(false),
            in_flight: gauge!(name::IN_FLIGHT),
        }
    }

    /// Waits until there is capacity for one more receive call with messages of `size` bytes each, and until no lease
    /// is about to expire. One call takes at most half of the capacity.
    pub(crate) async fn reserve(&self, size: usize) -> Reservation<'_> {
        self.reserve_call(call_size(&self.capacity, size, 2), size).await
    }

    /// Reserves for a call to one of `queues` idle queues. Such a call holds its capacity for its whole long poll. So all
    /// of these calls together leave half of the capacity to busy queues.
    pub(crate) async fn reserve_idle(&self, size: usize, queues: usize) -> Reservation<'_> {
        let call_size = call_size(&self.idle_capacity, size, queues);
        let idle = self.idle_capacity.take(call_size, size).await;
        Reservation { _idle: Some(idle), ..self.reserve_call(call_size, size).await }
    }

    async fn reserve_call(&self, call_size: usize, size: usize) -> Reservation<'_> {
        // It fails only if the sender is gone, so that nothing can report endangered leases any more.
        _ = self.endangered.subscribe().wait_for(|endangered| !endangered).await;
        let (messages, bytes) = self.capacity.take(call_size, size).await;
        Reservation { ledger: self, call_size, messages, bytes, _idle: None }
    }

    /// Records that COMMIT of these leases' transaction was answered.
    pub(crate) fn commit(&self, ids: &[LeaseId]) {
        let mut held = self.lock();
        for id in ids {
            if let Some(held) = held.leases.get_mut(id) {
                held.term.commit();
            }
        }
    }

    /// Returns the time by which SQS must have answered the delete of a message. `None` if the message must not be
    /// deleted.
    pub(crate) fn deletable_until(&self, id: LeaseId, now: Instant) -> Option<Instant> {
        let held = self.lock();
        let term = &held.leases.get(&id)?.term;
        term.may_delete(now).then(|| term.until())
    }

    /// Returns the leases of `ids` whose COMMIT was answered.
    pub(crate) fn committed(&self, ids: &[LeaseId]) -> Vec<Arc<Lease>> {
        let held = self.lock();
        let leases = ids.iter().filter_map(|id| held.leases.get(id));
        leases.filter(|held| held.term.is_committed()).map(|held| Arc::clone(&held.lease)).collect()
    }

    /// Returns the leases that end before `then` unless they are extended. The lease that ends first comes first.
    pub(crate) fn ending_before(&self, then: Instant) -> Vec<Arc<Lease>> {
        let held = self.lock();
        let mut ending: Vec<_> = held.leases.values().filter(|held| held.term.until() < then).collect();
        ending.sort_by_key(|held| held.term.until());
        ending.into_iter().map(|held| Arc::clone(&held.lease)).collect()
    }

    /// Pauses receiving while any lease ends before `then`. More messages would only delay the extension of these
    /// leases.
    pub(crate) fn pause_receiving_if_ending_before(&self, then: Instant) {
        let endangered = self.lock().leases.values().any(|held| held.term.until() < then);
        self.endangered.send_if_modified(|before| std::mem::replace(before, endangered) != endangered);
    }

    /// Records SQS's confirmation that it hides the message until `until`.
    pub(crate) fn extend(&self, id: LeaseId, until: Instant) {
        let mut held = self.lock();
        if let Some(held) = held.leases.get_mut(&id) {
            held.term.extend(Instant::now(), until);
        }
    }

    /// Removes a delivery that is deleted, or for which nothing more can or should be done. Returns whether it was
    /// still in flight.
    pub(crate) fn settle(&self, id: LeaseId) -> bool {
        let mut held = self.lock();
        let settled = held.leases.remove(&id).is_some();
        self.update_gauge(&held);
        settled
    }

    /// Removes and returns the leases that have expired.
    pub(crate) fn take_expired(&self, now: Instant) -> Vec<Arc<Lease>> {
        let mut held = self.lock();
        let expired = held.leases.extract_if(|_, held| held.term.has_expired(now));
        let expired: Vec<_> = expired.map(|(_, held)| held.lease).collect();
        self.update_gauge(&held);
        expired
    }

    /// Removes all leases, and returns those that have not expired.
    pub(crate) fn take_all(&self) -> Vec<Arc<Lease>> {
        let now = Instant::now();
        let mut ledger = self.lock();
        let held: Vec<_> = ledger.leases.drain().map(|(_, held)| held).collect();
        self.update_gauge(&ledger);
        drop(ledger);
        held.into_iter().filter(|held| !held.term.has_expired(now)).map(|held| held.lease).collect()
    }

    /// Returns the leases of `ids` that are still in flight.
    pub(crate) fn leases(&self, ids: impl Iterator<Item = LeaseId>) -> Vec<Arc<Lease>> {
        let held = self.lock();
        ids.filter_map(|id| held.leases.get(&id)).map(|held| Arc::clone(&held.lease)).collect()
    }

    /// Counts the messages in flight.
    pub(crate) fn census(&self, now: Instant) -> Census {
        let held = self.lock();
        let to_delete = held.leases.values().filter(|held| held.term.may_delete(now)).count();
        let oldest = held.leases.values().map(|held| held.lease.received).min();
        Census {
            to_store: held.leases.len() - to_delete,
            to_delete,
            oldest: oldest.map_or(Duration::ZERO, |received| now.saturating_duration_since(received)),
        }
    }

    /// Returns the number of messages in flight.
    pub(crate) fn len(&self) -> usize {
        self.lock().leases.len()
    }

    /// Whether everything received has been settled.
    pub(crate) fn is_empty(&self) -> bool {
        self.len() == 0
    }

    fn update_gauge(&self, held: &HeldLeases) {
        self.in_flight.set(u32::try_from(held.leases.len()).unwrap_or(u32::MAX));
    }

    /// A task that panicked while it held the lock left the map whole, because each change above is one call on it.
    /// Going on allows its messages to be released.
    fn lock(&self) -> MutexGuard<'_, HeldLeases> {
        self.held.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Returns how many messages of `size` bytes a receive call can ask for, if `calls` calls must fit into `capacity`.
fn call_size(capacity: &Capacity, size: usize, calls: usize) -> usize {
    (capacity.messages_of(size) / calls).clamp(1, CALL_SIZE)
}

#[cfg(test)]
#[path = "ledger_tests.rs"]
mod tests;
