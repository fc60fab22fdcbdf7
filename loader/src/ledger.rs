//! What is in hand: every message received whose delete SQS has not yet confirmed.
//!
//! Receipts live here and nowhere else. The tasks of the pipeline pass messages on by `LeaseId`, so that
//! whichever of them fails, and wherever a message then is, the ledger still knows what must be extended and,
//! in the end, made visible again. It also bounds how much is in hand, which is what holds the pollers back.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use metrics::{Gauge, gauge};
use tokio::sync::{Semaphore, watch};
use tokio::time::Instant;

use crate::lease::Term;
use crate::monitoring::name;
use crate::queue::CALL_SIZE;
use crate::trace::MessageSpan;

/// Names one delivery of one message. A message that is delivered twice has two, since it has two receipts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct LeaseId(u64);

impl LeaseId {
    /// Of a message that came from no queue.
    pub(crate) const NONE: Self = Self(0);
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
}

/// All leases that this process holds.
pub(crate) struct Ledger {
    held: Mutex<Held>,
    /// A permit for each message that may still be received.
    room: Semaphore,
    /// Whether leases are about to run out: nothing more is received meanwhile.
    endangered: watch::Sender<bool>,
    /// A permit for each unit of bodies that may still wait to be stored.
    bodies: Semaphore,
    /// Shows how many leases are held.
    in_flight: Gauge,
}

/// The largest answer of a receive call must fit: ten messages of 1 MiB.
const LEAST_BYTES: usize = 12 * 1024 * 1024;
/// Bodies are counted in units of so many bytes, what else a message takes included.
const UNIT: usize = 1024;

#[derive(Default)]
struct Held {
    last: u64,
    leases: HashMap<LeaseId, (Arc<Lease>, Term<Instant>)>,
}

/// Room for what one receive call may bring. What of it is not used is given back when this is dropped.
pub(crate) struct Reservation<'l> {
    ledger: &'l Ledger,
    left: usize,
}

impl Drop for Reservation<'_> {
    fn drop(&mut self) {
        self.ledger.room.add_permits(self.left);
    }
}

impl Reservation<'_> {
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
        // SQS never hands out more than it was asked for; if it did, the room would shrink by as much.
        self.left = self.left.saturating_sub(1);
        let mut held = self.ledger.lock();
        held.last += 1;
        let id = LeaseId(held.last);
        let lease = Lease { id, queue, message_id, receipt, group, trace };
        held.leases.insert(id, (Arc::new(lease), Term::begin(until)));
        self.ledger.show(&held);
        id
    }
}

impl Ledger {
    /// An empty ledger for so many messages at a time, and so many bytes of them that are not stored yet.
    pub(crate) fn new(messages: usize, bytes: usize) -> Self {
        Self {
            held: Mutex::default(),
            room: Semaphore::new(messages.max(CALL_SIZE)),
            endangered: watch::Sender::new(false),
            bodies: Semaphore::new(bytes.max(LEAST_BYTES) / UNIT),
            in_flight: gauge!(name::IN_FLIGHT),
        }
    }

    /// Waits until there is room for the messages of one more receive call, and time to look after them.
    pub(crate) async fn reserve(&self) -> Reservation<'_> {
        // It fails only where nobody can say any more that they are.
        _ = self.endangered.subscribe().wait_for(|endangered| !endangered).await;
        let size = u32::try_from(CALL_SIZE).unwrap_or(u32::MAX);
        if let Ok(permits) = self.room.acquire_many(size).await {
            permits.forget();
        }
        Reservation { ledger: self, left: CALL_SIZE }
    }

    /// Waits until bodies of these sizes may wait to be stored.
    pub(crate) async fn keep(&self, sizes: impl Iterator<Item = usize>) {
        let units = u32::try_from(units(sizes)).unwrap_or(u32::MAX);
        if let Ok(permits) = self.bodies.acquire_many(units).await {
            permits.forget();
        }
    }

    /// Bodies of these sizes wait no more.
    pub(crate) fn free(&self, sizes: impl Iterator<Item = usize>) {
        self.bodies.add_permits(units(sizes));
    }

    /// COMMIT of the transaction that these are in was answered.
    pub(crate) fn commit(&self, ids: &[LeaseId]) {
        let mut held = self.lock();
        for id in ids {
            if let Some((_, term)) = held.leases.get_mut(id) {
                term.commit();
            }
        }
    }

    /// Those of `ids` that may be deleted, and until when SQS must have answered.
    pub(crate) fn deletable(&self, ids: &[LeaseId], now: Instant) -> Option<(Vec<Arc<Lease>>, Instant)> {
        let held = self.lock();
        let leases = ids.iter().filter_map(|id| held.leases.get(id)).filter(|(_, term)| term.may_delete(now));
        let until = leases.clone().map(|(_, term)| term.until()).min()?;
        Some((leases.map(|(lease, _)| Arc::clone(lease)).collect(), until))
    }

    /// The leases that end before `then` unless they are extended, those first that end first.
    pub(crate) fn ending_before(&self, then: Instant) -> Vec<Arc<Lease>> {
        let held = self.lock();
        let mut ending: Vec<_> = held.leases.values().filter(|(_, term)| term.until() < then).collect();
        ending.sort_by_key(|(_, term)| term.until());
        ending.into_iter().map(|(lease, _)| Arc::clone(lease)).collect()
    }

    /// Holds receiving back while leases end before `then`: what SQS cannot be told in time, of what is in hand, would
    /// only become more.
    pub(crate) fn hold_back(&self, then: Instant) {
        let endangered = self.lock().leases.values().any(|(_, term)| term.until() < then);
        self.endangered.send_if_modified(|before| std::mem::replace(before, endangered) != endangered);
    }

    /// SQS confirmed that it hides the message until then.
    pub(crate) fn extend(&self, id: LeaseId, until: Instant) {
        let mut held = self.lock();
        if let Some((_, term)) = held.leases.get_mut(&id) {
            term.extend(Instant::now(), until);
        }
    }

    /// Strikes a delivery out: it is deleted, or nothing more can or should be done about it.
    /// Whether it was still in hand.
    pub(crate) fn settle(&self, id: LeaseId) -> bool {
        let mut held = self.lock();
        let settled = held.leases.remove(&id).is_some();
        self.show(&held);
        drop(held);
        self.room.add_permits(usize::from(settled));
        settled
    }

    /// Strikes out and returns those whose lease has run out.
    pub(crate) fn take_lapsed(&self, now: Instant) -> Vec<Arc<Lease>> {
        let mut held = self.lock();
        let lapsed = held.leases.extract_if(|_, (_, term)| term.has_lapsed(now));
        let lapsed: Vec<_> = lapsed.map(|(_, (lease, _))| lease).collect();
        self.show(&held);
        drop(held);
        self.room.add_permits(lapsed.len());
        lapsed
    }

    /// Strikes out and returns everything that is still ours.
    pub(crate) fn take_all(&self) -> Vec<Arc<Lease>> {
        let now = Instant::now();
        let mut ledger = self.lock();
        let held: Vec<_> = ledger.leases.drain().map(|(_, held)| held).collect();
        self.show(&ledger);
        drop(ledger);
        self.room.add_permits(held.len());
        held.into_iter().filter(|(_, term)| !term.has_lapsed(now)).map(|(lease, _)| lease).collect()
    }

    /// The leases of these, as far as they are still in hand.
    pub(crate) fn leases(&self, ids: impl Iterator<Item = LeaseId>) -> Vec<Arc<Lease>> {
        let held = self.lock();
        ids.filter_map(|id| held.leases.get(&id)).map(|(lease, _)| Arc::clone(lease)).collect()
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

fn units(sizes: impl Iterator<Item = usize>) -> usize {
    sizes.map(|bytes| bytes / UNIT + 1).sum()
}

#[cfg(test)]
mod tests {
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
        let mut reservation = ledger.reserve().await;
        let first = hold(&mut reservation, "receipt 1");
        // The same message, delivered again.
        let second = hold(&mut reservation, "receipt 2");
        ledger.settle(first);
        ledger.commit(&[first, second]);
        let (leases, _) = ledger.deletable(&[first, second], Instant::now()).unwrap();
        assert_eq!(leases.iter().map(|l| l.id).collect::<Vec<_>>(), [second]);
        let left = ledger.take_all();
        assert_eq!(left.iter().map(|l| l.receipt.as_str()).collect::<Vec<_>>(), ["receipt 2"]);
        assert!(ledger.is_empty());
    }

    #[tokio::test(start_paused = true)]
    async fn no_more_is_received_than_there_is_room_for() {
        let ledger = Ledger::new(25, 0);
        let mut first = ledger.reserve().await;
        let held = [(); 10].map(|()| hold(&mut first, "r"));
        drop(first);
        // A call that brought little gives the rest back.
        let mut second = ledger.reserve().await;
        hold(&mut second, "r");
        drop(second);
        let third = ledger.reserve().await;
        assert!(timeout(MINUTE, ledger.reserve()).await.is_err(), "21 of 25 are taken");
        drop(third);
        for id in held {
            ledger.settle(id);
            ledger.settle(id);
        }
        let (third, fourth) = (ledger.reserve().await, ledger.reserve().await);
        assert!(timeout(MINUTE, ledger.reserve()).await.is_err(), "settling twice makes no room");
        drop((third, fourth));
    }

    #[tokio::test(start_paused = true)]
    async fn a_lapsed_lease_is_dropped_and_makes_room() {
        let ledger = Ledger::new(10, 0);
        let mut reservation = ledger.reserve().await;
        let id = hold(&mut reservation, "r");
        ledger.commit(&[id]);
        assert!(ledger.take_lapsed(Instant::now()).is_empty());
        assert_eq!(ledger.ending_before(Instant::now() + MINUTE * 2).len(), 1);
        tokio::time::advance(MINUTE).await;
        ledger.extend(id, Instant::now() + MINUTE);
        assert!(ledger.deletable(&[id], Instant::now()).is_none(), "the extension came too late");
        assert_eq!(ledger.take_lapsed(Instant::now()).len(), 1);
        drop(reservation);
        timeout(MINUTE, ledger.reserve()).await.unwrap();
    }

    #[tokio::test(start_paused = true)]
    async fn nothing_is_received_while_leases_are_about_to_run_out() {
        let ledger = Ledger::new(100, 0);
        let id = hold(&mut ledger.reserve().await, "r");
        ledger.hold_back(Instant::now() + MINUTE * 2);
        assert!(timeout(MINUTE / 2, ledger.reserve()).await.is_err());
        ledger.extend(id, Instant::now() + MINUTE * 5);
        ledger.hold_back(Instant::now() + MINUTE * 2);
        timeout(MINUTE, ledger.reserve()).await.unwrap();
    }

    #[tokio::test(start_paused = true)]
    async fn bodies_that_wait_are_bounded() {
        let ledger = Ledger::new(100, 0);
        let mebibyte = || std::iter::repeat_n(1 << 20, 10);
        ledger.keep(mebibyte()).await;
        assert!(timeout(MINUTE, ledger.keep(mebibyte())).await.is_err());
        ledger.free(mebibyte());
        timeout(MINUTE, ledger.keep(mebibyte())).await.unwrap();
    }
}
