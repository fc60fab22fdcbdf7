//! The messages of one queue, and the operations on them. Callers pass the time in.

use std::cmp::Reverse;
use std::collections::{BinaryHeap, HashMap};
use std::sync::Arc;
use std::time::{Duration, Instant};

use fastrand::Rng;

use crate::depth::Depth;
use crate::message::{Message, Outgoing, Place, Receipt, Sent, ValidReceipts};
use crate::ready::Ready;
use crate::refusal::Refusal;
use crate::settings::Settings;

/// Time after which a message with a receipt expired by a fault becomes visible again.
const EXPIRED_AGAIN_AFTER: Duration = Duration::from_millis(100);

/// The fault, if any, that affects a delivered message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fate {
    Normal,
    /// The message stays visible.
    Duplicate,
    /// Its receipt is invalid at once.
    Expire,
}

/// The receipts that were valid when a message was removed: those of the deliveries from `first` to `last`.
#[derive(Clone, Copy)]
struct GoneReceipts {
    first: u32,
    last: u32,
}

impl GoneReceipts {
    fn of(message: &Message) -> Self {
        Self { first: message.receipts.first, last: message.deliveries }
    }
}

/// The parameters of a receive call.
#[derive(Clone, Copy)]
pub(crate) struct ReceiveCall<'a> {
    /// Maximum messages to deliver.
    pub(crate) max: usize,
    /// Time for which the messages are hidden. `None` means the queue's visibility timeout.
    pub(crate) visibility: Option<Duration>,
    /// `ReceiveRequestAttemptId`.
    pub(crate) attempt: Option<&'a str>,
}

/// Outcome of an attempt to deliver a message.
enum Delivery {
    /// The message was no longer there, or not visible.
    Skipped,
    /// The message was received too often before. It is removed from the queue.
    Dead(Option<Message>),
    /// The message is delivered and stays visible.
    Duplicated,
    /// The message is delivered and hidden. Holds the number of the delivery.
    Hidden(u32),
}

/// The messages of one queue.
pub(crate) struct State {
    pub(crate) settings: Settings,
    pub(crate) depth: Depth,
    fifo: bool,
    messages: HashMap<u64, Message>,
    /// The number of the next message, which is also its sequence number.
    next: u64,
    ready: Ready,
    /// The times at which hidden and delayed messages become receivable. A timer is void if its message has another time by
    /// now.
    timers: BinaryHeap<Reverse<(Instant, u64)>>,
    /// Messages that are gone after several deliveries.
    gone: HashMap<u64, GoneReceipts>,
    /// Messages by the deduplication id that they were sent under.
    sent: HashMap<String, Sent>,
    /// Messages of a FIFO queue by the receive attempt id that they were delivered under, each with its delivery.
    attempts: HashMap<String, Vec<(u64, u32)>>,
    /// Has its own random seed: if message ids were equal in two runs, a receiver that remembers ids would take two messages
    /// for one.
    ids: Rng,
}

impl State {
    pub(crate) fn new(fifo: bool, settings: Settings) -> Self {
        Self {
            settings,
            depth: Depth::default(),
            fifo,
            messages: HashMap::new(),
            next: 1,
            ready: Ready::new(fifo),
            timers: BinaryHeap::new(),
            gone: HashMap::new(),
            sent: HashMap::new(),
            attempts: HashMap::new(),
            ids: Rng::new(),
        }
    }

    /// Adds a message, unless one with its deduplication id was sent before.
    pub(crate) fn send(&mut self, now: Instant, outgoing: Outgoing) -> Result<Sent, Refusal> {
        if !self.fifo {
            return Ok(self.send_without_deduplication(now, outgoing));
        }
        if outgoing.group.is_none() {
            return Err(Refusal::missing("MessageGroupId"));
        }
        let key = match outgoing.deduplication {
            Some(id) => id,
            None if self.settings.deduplicate_bodies => outgoing.body,
            None => return Err(Refusal::missing("MessageDeduplicationId")),
        };
        if let Some(sent) = self.sent.get(key) {
            return Ok(*sent);
        }
        let sent = self.send_without_deduplication(now, outgoing);
        self.sent.insert(key.to_owned(), sent);
        Ok(sent)
    }

    /// Adds a message, even if one with its deduplication id was sent before.
    pub(crate) fn send_without_deduplication(&mut self, now: Instant, outgoing: Outgoing) -> Sent {
        let id = uuid::Builder::from_random_bytes(self.ids.u128(..).to_ne_bytes()).into_uuid();
        let mut message = Message::new(id, outgoing.body, outgoing.group.map(Arc::from));
        let delay = outgoing.delay.unwrap_or(self.settings.delay);
        if !delay.is_zero() {
            message.place = Place::Delayed(now + delay);
        }
        let md5 = message.md5;
        Sent { id, md5, number: self.insert(message) }
    }

    /// Adds a message in the state that it has, and returns its number in this queue.
    pub(crate) fn insert(&mut self, mut message: Message) -> u64 {
        let number = self.next;
        self.next += 1;
        if self.fifo && message.group.is_none() {
            message.group = Some("".into());
        }
        *self.depth.of(message.place) += 1;
        match message.place {
            Place::Ready => self.ready.append(number, message.group.as_ref()),
            Place::Hidden(until) | Place::Delayed(until) => self.timers.push(Reverse((until, number))),
        }
        self.messages.insert(number, message);
        number
    }

    /// Makes due messages visible.
    pub(crate) fn advance(&mut self, now: Instant) {
        while let Some(&Reverse((due, number))) = self.timers.peek()
            && due <= now
        {
            self.timers.pop();
            let Some(message) = self.messages.get_mut(&number) else { continue };
            let group = message.group.as_ref();
            if message.place == Place::Hidden(due) {
                self.ready.give_back(number, group);
            } else if message.place == Place::Delayed(due) {
                self.ready.append(number, group);
            } else {
                continue;
            }
            *self.depth.of(message.place) -= 1;
            self.depth.visible += 1;
            message.place = Place::Ready;
        }
    }

    /// Returns the next time at which there may be something to receive.
    pub(crate) fn next_due(&self) -> Option<Instant> {
        self.timers.peek().map(|Reverse((due, _))| *due)
    }

    /// Delivers messages, and passes each with its number to `emit`. `fate` chooses each message's fault; its argument says
    /// whether the message can be duplicated. Returns the messages that were received too often, for the dead-letter queue.
    pub(crate) fn receive(
        &mut self,
        now: Instant,
        call: ReceiveCall<'_>,
        mut fate: impl FnMut(bool) -> Fate,
        mut emit: impl FnMut(u64, &Message),
    ) -> Vec<Message> {
        self.advance(now);
        let until = now + call.visibility.unwrap_or(self.settings.visibility);
        let attempt = call.attempt.filter(|_| self.fifo);
        if attempt.is_some_and(|attempt| self.repeat(attempt, until, &mut emit)) {
            return Vec::new();
        }
        let (mut hidden, mut duplicated, mut dead) = (Vec::new(), Vec::new(), Vec::new());
        while hidden.len() + duplicated.len() < call.max {
            let numbers = self.ready.take(call.max - hidden.len() - duplicated.len());
            if numbers.is_empty() {
                break;
            }
            for number in numbers {
                match self.deliver_one(number, now, until, &mut fate, &mut emit) {
                    Delivery::Skipped => {}
                    Delivery::Dead(message) => dead.extend(message),
                    Delivery::Duplicated => duplicated.push(number),
                    Delivery::Hidden(delivery) => hidden.push((number, delivery)),
                }
            }
        }
        if let Some(attempt) = attempt.filter(|_| !hidden.is_empty()) {
            self.attempts.insert(attempt.to_owned(), hidden);
        }
        for number in duplicated.into_iter().rev() {
            self.ready.give_back(number, None);
        }
        self.compact();
        dead
    }

    /// Delivers the message with this number, and hides it until `until` unless `fate` chooses a fault.
    fn deliver_one(
        &mut self,
        number: u64,
        now: Instant,
        until: Instant,
        fate: &mut impl FnMut(bool) -> Fate,
        emit: &mut impl FnMut(u64, &Message),
    ) -> Delivery {
        let too_often = self.settings.redrive.as_ref().map_or(u32::MAX, |redrive| redrive.after);
        let Some(message) = self.messages.get_mut(&number).filter(|m| m.place == Place::Ready) else {
            return Delivery::Skipped;
        };
        // Only a duplicate is delivered while an earlier receipt is valid.
        let leased = message.deliveries > 0 && message.receipts.expire_at > now;
        if message.deliveries >= too_often && !leased {
            return Delivery::Dead(self.bury(number));
        }
        message.deliveries += 1;
        let first = if leased { message.receipts.first } else { message.deliveries };
        message.receipts = ValidReceipts { first, expire_at: until };
        let hidden_until = match fate(!self.fifo && !leased) {
            Fate::Normal => until,
            Fate::Expire => {
                message.receipts.first = message.deliveries + 1;
                now + EXPIRED_AGAIN_AFTER
            }
            Fate::Duplicate => {
                emit(number, message);
                return Delivery::Duplicated;
            }
        };
        message.place = Place::Hidden(hidden_until);
        self.depth.visible -= 1;
        self.depth.hidden += 1;
        self.timers.push(Reverse((hidden_until, number)));
        emit(number, message);
        Delivery::Hidden(message.deliveries)
    }

    /// Delivers the messages of an earlier call with this attempt id again, with their old receipts, and hides them again.
    /// Delivers none if one was deleted or became visible since.
    fn repeat(&mut self, attempt: &str, until: Instant, mut emit: impl FnMut(u64, &Message)) -> bool {
        let Some(delivered) = self.attempts.get(attempt) else { return false };
        let is_hidden = |(number, delivery): &(u64, u32)| {
            self.messages
                .get(number)
                .is_some_and(|m| m.deliveries == *delivery && matches!(m.place, Place::Hidden(_)))
        };
        if !delivered.iter().all(is_hidden) {
            return false;
        }
        for (number, _) in delivered {
            let Some(message) = self.messages.get_mut(number) else { continue };
            message.place = Place::Hidden(until);
            message.receipts.expire_at = until;
            self.timers.push(Reverse((until, *number)));
            emit(*number, message);
        }
        true
    }

    /// Removes a waiting message, to move it to another queue. None of its receipts remain valid.
    fn bury(&mut self, number: u64) -> Option<Message> {
        let mut message = self.messages.remove(&number)?;
        self.depth.visible -= 1;
        self.ready.settle(message.group.as_ref());
        message.receipts.first = message.deliveries + 1;
        self.gone.insert(number, GoneReceipts::of(&message));
        Some(message)
    }

    /// Deletes a message, and returns it with its number. Returns `None` if it was deleted before. `accept_expired` says
    /// whether the last receipt of a message in a standard queue is valid after it expired.
    pub(crate) fn delete(
        &mut self,
        now: Instant,
        receipt: Receipt,
        accept_expired: bool,
    ) -> Result<Option<(u64, Message)>, Refusal> {
        self.advance(now);
        let number = receipt.message;
        let Some(message) = self.messages.get(&number) else {
            let any = GoneReceipts { first: 1, last: u32::MAX };
            let GoneReceipts { first, last } = self.gone.get(&number).copied().unwrap_or(any);
            let good = number < self.next && (first..=last).contains(&receipt.delivery);
            return if good { Ok(None) } else { Err(Refusal::bad_receipt()) };
        };
        if !self.is_good(message, receipt, now, accept_expired) {
            return Err(Refusal::bad_receipt());
        }
        if message.deliveries > 1 {
            self.gone.insert(number, GoneReceipts::of(message));
        }
        match message.place {
            Place::Ready => self.ready.forget(number, message.group.as_ref()),
            Place::Hidden(_) | Place::Delayed(_) => self.ready.settle(message.group.as_ref()),
        }
        *self.depth.of(message.place) -= 1;
        Ok(self.messages.remove_entry(&number))
    }

    /// Hides a received message for this time from now on.
    pub(crate) fn change(
        &mut self,
        now: Instant,
        receipt: Receipt,
        visibility: Duration,
        accept_expired: bool,
    ) -> Result<(), Refusal> {
        self.advance(now);
        let number = receipt.message;
        let Some(message) = self.messages.get(&number) else {
            return Err(Refusal::bad_value("ReceiptHandle", "of a message that does not exist"));
        };
        if !self.is_good(message, receipt, now, accept_expired) {
            return Err(Refusal::bad_receipt());
        }
        let until = now + visibility;
        let Some(message) = self.messages.get_mut(&number) else { return Ok(()) };
        if let Place::Hidden(hidden_until) = &mut message.place {
            *hidden_until = until;
            self.timers.push(Reverse((until, number)));
        } else if message.receipts.expire_at <= now {
            return Err(Refusal::not_in_flight());
        }
        message.receipts.expire_at = until;
        self.advance(now);
        self.compact();
        Ok(())
    }

    fn is_good(&self, message: &Message, receipt: Receipt, now: Instant, accept_expired: bool) -> bool {
        let is_last = receipt.delivery == message.deliveries;
        (message.receipts.first..=message.deliveries).contains(&receipt.delivery)
            && (now < message.receipts.expire_at || accept_expired && is_last && !self.fifo)
    }

    /// Deletes all messages.
    pub(crate) fn purge(&mut self) {
        self.messages.clear();
        self.timers.clear();
        self.gone.clear();
        self.attempts.clear();
        self.ready = Ready::new(self.fifo);
        self.depth = Depth::default();
    }

    /// Removes void timers once there are many, so that timers of deleted messages do not fill the memory.
    fn compact(&mut self) {
        let waiting = self.depth.hidden + self.depth.delayed;
        if self.timers.len() as u64 > 2 * waiting + 1024 {
            let messages = &self.messages;
            self.timers.retain(|Reverse((due, number))| {
                let place = messages.get(number).map(|m| m.place);
                place == Some(Place::Hidden(*due)) || place == Some(Place::Delayed(*due))
            });
        }
    }
}
