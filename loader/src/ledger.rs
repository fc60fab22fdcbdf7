//! What is in hand: every message received whose delete SQS has not yet confirmed.
//!
//! Receipts live here and nowhere else. The tasks of the pipeline pass messages on by `LeaseId`, so that
//! whichever of them fails, and wherever a message then is, the ledger still knows what must be extended and,
//! in the end, made visible again. It also bounds how much is received, which is what holds the pollers back.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use metrics::{Gauge, gauge};
use tokio::sync::watch;
use tokio::time::Instant;

use crate::budget::{Budget, Share};
use crate::lease::Term;
use crate::message::OVERHEAD;
use crate::monitoring::name;
use crate::queue::CALL_SIZE;
use crate::trace::MessageSpan;

/// Names one delivery of one message. A message that is delivered twice has two, since it has two receipts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct LeaseId(u64);

impl LeaseId {
    /// Of a message that came from no queue.
    pub(crate) const NONE: Self = Self(0);

    /// One for a test.
    #[cfg(test)]
    pub(crate) fn numbered(n: u64) -> Self {
        Self(n)
    }
}

/// What SQS has to be told to delete, extend or release one delivery of a message.
pub(crate) struct Lease {
    /// The key of this lease in the ledger.
    pub(crate) id: LeaseId,
    /// Which of the run's queues it is of.
    pub(crate) queue: usize,
    /// SQS's `MessageId`, which is fit for logs.
    pub(crate) message_id: String,
    /// SQS's `ReceiptHandle`.
    pub(crate) receipt: String,
    /// SQS's `MessageGroupId`, where the queue is a FIFO queue.
    pub(crate) group: Option<Arc<str>>,
    /// What is traced of it.
    pub(crate) trace: MessageSpan,
    pub(crate) received: Instant,
}

/// Messages in flight, by what they wait for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Census {
    /// Received, and no COMMIT answered yet.
    pub(crate) to_store: usize,
    /// Committed, and no delete confirmed yet.
    pub(crate) to_delete: usize,
    /// Time since the first of them was received.
    pub(crate) oldest: Duration,
}

/// All leases that this process holds.
pub(crate) struct Ledger {
    held: Mutex<Held>,
    /// Room for messages that are received, or that a receive call may bring.
    room: Room,
    /// The half of it that receive calls to idle queues may hold.
    idle: Room,
    /// Whether leases are about to run out: nothing more is received meanwhile.
    endangered: watch::Sender<bool>,
    /// Shows how many leases are held.
    in_flight: Gauge,
}

/// Least room for bodies. Less would only make for many small receive calls.
const LEAST_BYTES: usize = 12 * 1024 * 1024;

/// Room for messages.
struct Room {
    /// Until their delete is confirmed.
    messages: Arc<Budget>,
    /// Until they are stored.
    bytes: Arc<Budget>,
}

impl Room {
    fn new(messages: usize, bytes: usize) -> Self {
        Self { messages: Budget::new(messages), bytes: Budget::new(bytes) }
    }

    /// Returns how many messages of `size` bytes a receive call may ask for if `calls` calls must fit in at a time.
    fn call_size(&self, size: usize, calls: usize) -> usize {
        let fitting = self.messages.limit().min(self.bytes.limit() / size.max(1)) / calls;
        fitting.clamp(1, CALL_SIZE)
    }

    /// Waits until there is room for so many messages of `size` bytes.
    async fn take(&self, messages: usize, size: usize) -> (Share, Share) {
        (self.messages.take(messages).await, self.bytes.take(messages * size).await)
    }
}

#[derive(Default)]
struct Held {
    last: u64,
    leases: HashMap<LeaseId, (Arc<Lease>, Term<Instant>, Share)>,
}

/// Room for what one receive call may bring. What of it is not used is given back when this is dropped.
pub(crate) struct Reservation<'l> {
    ledger: &'l Ledger,
    /// How many messages the call may ask for.
    pub(crate) call_size: usize,
    messages: Share,
    bytes: Share,
    _idle: Option<(Share, Share)>,
}

impl Reservation<'_> {
    /// Memory for the answer as a whole.
    pub(crate) fn bytes(&mut self) -> &mut Share {
        &mut self.bytes
    }

    /// Takes the memory of a message with such a body out of the room, and more if it is larger than expected.
    pub(crate) fn memory(&mut self, body: Option<&String>) -> Share {
        self.bytes.split(body.map_or(0, String::len) + OVERHEAD)
    }

    /// Enters a delivery whose lease lasts at least `until`.
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
        held.leases.insert(id, (Arc::new(lease), Term::begin(until), self.messages.split(1)));
        self.ledger.show(&held);
        id
    }
}

impl Ledger {
    /// Makes an empty ledger for this many messages at a time, and this many bytes of them that are not stored yet.
    pub(crate) fn new(messages: usize, bytes: usize) -> Self {
        let bytes = bytes.max(LEAST_BYTES);
        Self {
            held: Mutex::default(),
            room: Room::new(messages, bytes),
            idle: Room::new(messages / 2, bytes / 2),
            endangered: watch::Sender::new(false),
            in_flight: gauge!(name::IN_FLIGHT),
        }
    }

    /// Waits until there is room for the messages of one more receive call, of `size` bytes each, and time to look
    /// after them. One call takes at most half of the room.
    pub(crate) async fn reserve(&self, size: usize) -> Reservation<'_> {
        self.reserve_call(self.room.call_size(size, 2), size).await
    }

    /// Reserves for a call to an idle queue, one of `queues`. Such a call holds its room for the whole of its long poll, so
    /// all of them together leave half of the room to busy queues.
    pub(crate) async fn reserve_idle(&self, size: usize, queues: usize) -> Reservation<'_> {
        let call_size = self.idle.call_size(size, queues);
        let idle = self.idle.take(call_size, size).await;
        Reservation { _idle: Some(idle), ..self.reserve_call(call_size, size).await }
    }

    async fn reserve_call(&self, call_size: usize, size: usize) -> Reservation<'_> {
        // It fails only where nobody can say any more that they are.
        _ = self.endangered.subscribe().wait_for(|endangered| !endangered).await;
        let (messages, bytes) = self.room.take(call_size, size).await;
        Reservation { ledger: self, call_size, messages, bytes, _idle: None }
    }

    /// COMMIT of the transaction that these are in was answered.
    pub(crate) fn commit(&self, ids: &[LeaseId]) {
        let mut held = self.lock();
        for id in ids {
            if let Some((_, term, _)) = held.leases.get_mut(id) {
                term.commit();
            }
        }
    }

    /// Until when SQS must have answered the delete of a message. None if the message must not be deleted.
    pub(crate) fn deletable_until(&self, id: LeaseId, now: Instant) -> Option<Instant> {
        let held = self.lock();
        let (_, term, _) = held.leases.get(&id)?;
        term.may_delete(now).then(|| term.until())
    }

    /// The leases of `ids` whose COMMIT was answered.
    pub(crate) fn committed(&self, ids: &[LeaseId]) -> Vec<Arc<Lease>> {
        let held = self.lock();
        let leases = ids.iter().filter_map(|id| held.leases.get(id));
        leases.filter(|(_, term, _)| term.is_committed()).map(|(lease, ..)| Arc::clone(lease)).collect()
    }

    /// The leases that end before `then` unless they are extended, those first that end first.
    pub(crate) fn ending_before(&self, then: Instant) -> Vec<Arc<Lease>> {
        let held = self.lock();
        let mut ending: Vec<_> = held.leases.values().filter(|(_, term, _)| term.until() < then).collect();
        ending.sort_by_key(|(_, term, _)| term.until());
        ending.into_iter().map(|(lease, ..)| Arc::clone(lease)).collect()
    }

    /// Holds receiving back while leases end before `then`: what SQS cannot be told in time, of what is in hand, would
    /// only become more.
    pub(crate) fn hold_back(&self, then: Instant) {
        let endangered = self.lock().leases.values().any(|(_, term, _)| term.until() < then);
        self.endangered.send_if_modified(|before| std::mem::replace(before, endangered) != endangered);
    }

    /// SQS confirmed that it hides the message until then.
    pub(crate) fn extend(&self, id: LeaseId, until: Instant) {
        let mut held = self.lock();
        if let Some((_, term, _)) = held.leases.get_mut(&id) {
            term.extend(Instant::now(), until);
        }
    }

    /// Strikes a delivery out: it is deleted, or nothing more can or should be done about it.
    /// Whether it was still in hand.
    pub(crate) fn settle(&self, id: LeaseId) -> bool {
        let mut held = self.lock();
        let settled = held.leases.remove(&id).is_some();
        self.show(&held);
        settled
    }

    /// Strikes out and returns those whose lease has run out.
    pub(crate) fn take_lapsed(&self, now: Instant) -> Vec<Arc<Lease>> {
        let mut held = self.lock();
        let lapsed = held.leases.extract_if(|_, (_, term, _)| term.has_lapsed(now));
        let lapsed: Vec<_> = lapsed.map(|(_, (lease, ..))| lease).collect();
        self.show(&held);
        lapsed
    }

    /// Strikes out and returns everything that is still ours.
    pub(crate) fn take_all(&self) -> Vec<Arc<Lease>> {
        let now = Instant::now();
        let mut ledger = self.lock();
        let held: Vec<_> = ledger.leases.drain().map(|(_, held)| held).collect();
        self.show(&ledger);
        drop(ledger);
        held.into_iter().filter(|(_, term, _)| !term.has_lapsed(now)).map(|(lease, ..)| lease).collect()
    }

    /// The leases of these, as far as they are still in hand.
    pub(crate) fn leases(&self, ids: impl Iterator<Item = LeaseId>) -> Vec<Arc<Lease>> {
        let held = self.lock();
        ids.filter_map(|id| held.leases.get(&id)).map(|(lease, ..)| Arc::clone(lease)).collect()
    }

    /// Counts what is in flight.
    pub(crate) fn census(&self, now: Instant) -> Census {
        let held = self.lock();
        let to_delete = held.leases.values().filter(|(_, term, _)| term.may_delete(now)).count();
        let oldest = held.leases.values().map(|(lease, ..)| lease.received).min();
        Census {
            to_store: held.leases.len() - to_delete,
            to_delete,
            oldest: oldest.map_or(Duration::ZERO, |received| now.saturating_duration_since(received)),
        }
    }

    /// How many messages are in hand.
    pub(crate) fn len(&self) -> usize {
        self.lock().leases.len()
    }

    /// Whether everything received has been settled.
    pub(crate) fn is_empty(&self) -> bool {
        self.len() == 0
    }

    fn show(&self, held: &Held) {
        self.in_flight.set(u32::try_from(held.leases.len()).unwrap_or(u32::MAX));
    }

    /// A task that panicked while it held the lock left the map whole: each change above is one call on it.
    /// Going on is what lets its messages be released.
    fn lock(&self) -> MutexGuard<'_, Held> {
        self.held.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use std::pin::pin;
    use std::time::Duration;

    use tokio::time::timeout;

    use super::*;

    const MINUTE: Duration = Duration::from_mins(1);

    fn hold(reservation: &mut Reservation<'_>, receipt: &str) -> LeaseId {
        let until = Instant::now() + MINUTE;
        reservation.hold(0, "m".into(), receipt.into(), None, until, MessageSpan::default())
    }

    #[tokio::test]
    async fn what_is_not_settled_is_still_held() {
        let ledger = Ledger::new(100, 0);
        let mut reservation = ledger.reserve(1).await;
        let first = hold(&mut reservation, "receipt 1");
        // The same message, delivered again.
        let second = hold(&mut reservation, "receipt 2");
        ledger.settle(first);
        ledger.commit(&[first, second]);
        assert_eq!(ledger.committed(&[first, second]).iter().map(|l| l.id).collect::<Vec<_>>(), [second]);
        assert!(ledger.deletable_until(second, Instant::now()).is_some());
        let left = ledger.take_all();
        assert_eq!(left.iter().map(|l| l.receipt.as_str()).collect::<Vec<_>>(), ["receipt 2"]);
        assert!(ledger.is_empty());
    }

    #[tokio::test(start_paused = true)]
    async fn no_more_is_received_than_there_is_room_for() {
        let ledger = Ledger::new(25, 0);
        let mut first = ledger.reserve(1).await;
        let held = [(); 10].map(|()| hold(&mut first, "r"));
        drop(first);
        // A call that brought little gives the rest back.
        let mut second = ledger.reserve(1).await;
        hold(&mut second, "r");
        drop(second);
        let third = ledger.reserve(1).await;
        assert!(timeout(MINUTE, ledger.reserve(1)).await.is_err(), "21 of 25 are taken");
        drop(third);
        for id in held {
            ledger.settle(id);
            ledger.settle(id);
        }
        let (third, fourth) = (ledger.reserve(1).await, ledger.reserve(1).await);
        assert!(timeout(MINUTE, ledger.reserve(1)).await.is_err(), "settling twice makes no room");
        drop((third, fourth));
    }

    #[tokio::test(start_paused = true)]
    async fn a_lapsed_lease_is_dropped_and_makes_room() {
        let ledger = Ledger::new(10, 0);
        let mut reservation = ledger.reserve(1).await;
        let id = hold(&mut reservation, "r");
        ledger.commit(&[id]);
        assert!(ledger.take_lapsed(Instant::now()).is_empty());
        assert_eq!(ledger.ending_before(Instant::now() + MINUTE * 2).len(), 1);
        tokio::time::advance(MINUTE).await;
        ledger.extend(id, Instant::now() + MINUTE);
        assert!(ledger.deletable_until(id, Instant::now()).is_none(), "the extension came too late");
        assert_eq!(ledger.take_lapsed(Instant::now()).len(), 1);
        drop(reservation);
        timeout(MINUTE, ledger.reserve(1)).await.unwrap();
    }

    #[tokio::test(start_paused = true)]
    async fn nothing_is_received_while_leases_are_about_to_run_out() {
        let ledger = Ledger::new(100, 0);
        let id = hold(&mut ledger.reserve(1).await, "r");
        ledger.hold_back(Instant::now() + MINUTE * 2);
        assert!(timeout(MINUTE / 2, ledger.reserve(1)).await.is_err());
        ledger.extend(id, Instant::now() + MINUTE * 5);
        ledger.hold_back(Instant::now() + MINUTE * 2);
        timeout(MINUTE, ledger.reserve(1)).await.unwrap();
    }

    #[tokio::test(start_paused = true)]
    async fn a_call_reserves_the_bytes_that_it_may_bring() {
        let ledger = Ledger::new(100, 24 << 20);
        let mut calls = Vec::new();
        while let Ok(call) = timeout(MINUTE, ledger.reserve(1 << 20)).await {
            calls.push(call);
        }
        assert_eq!(calls.iter().map(|call| call.call_size).collect::<Vec<_>>(), [10, 10]);
        // It brought nothing.
        calls.pop();
        let next = timeout(MINUTE, ledger.reserve(1 << 20)).await.unwrap();
        drop((calls, next));
        assert_eq!(ledger.reserve(2 << 20).await.call_size, 6, "half the room");
    }

    #[tokio::test(start_paused = true)]
    async fn calls_to_idle_queues_leave_half_of_the_room() {
        const QUEUES: usize = 4;
        let ledger = Ledger::new(40, 24 << 20);
        for (size, call_size, calls) in [(1, 5, 4), (1 << 20, 3, 4), (7 << 20, 1, 1)] {
            let mut idle = Vec::new();
            while let Ok(call) = timeout(MINUTE, ledger.reserve_idle(size, QUEUES)).await {
                assert_eq!(call.call_size, call_size);
                idle.push(call);
            }
            assert_eq!(idle.len(), calls);
            timeout(MINUTE, ledger.reserve(size)).await.unwrap();
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_call_to_an_idle_queue_has_its_turn_beside_busy_ones() {
        let ledger = Ledger::new(10, 0);
        let [first, _second] = [ledger.reserve(1).await, ledger.reserve(1).await];
        let mut idle = pin!(ledger.reserve_idle(1, 20));
        assert!(timeout(MINUTE, &mut idle).await.is_err());
        drop(first);
        assert!(timeout(MINUTE, ledger.reserve(1)).await.is_err(), "the idle queue was first");
        assert_eq!(timeout(MINUTE, idle).await.unwrap().call_size, 1);
    }

    #[tokio::test(start_paused = true)]
    async fn a_message_larger_than_all_room_for_bodies_is_received_alone() {
        let ledger = Ledger::new(100, 0);
        let small = ledger.reserve(1).await;
        let large = || ledger.reserve(2 * LEAST_BYTES);
        assert!(timeout(MINUTE, large()).await.is_err());
        drop(small);
        let mut room = timeout(MINUTE, large()).await.unwrap();
        assert_eq!(room.call_size, 1);
        let memory = room.memory(Some(&"x".repeat(2 * LEAST_BYTES)));
        drop(room);
        assert!(timeout(MINUTE, ledger.reserve(1)).await.is_err());
        drop(memory);
        timeout(MINUTE, ledger.reserve(1)).await.unwrap();
    }
}
