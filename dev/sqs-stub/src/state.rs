//! The messages of one queue, and what can be done to them. Time comes in from outside.

use std::cmp::Reverse;
use std::collections::{BinaryHeap, HashMap};
use std::sync::Arc;
use std::time::{Duration, Instant};

use fastrand::Rng;

use crate::depth::Depth;
use crate::message::{Message, Outgoing, Place, Receipt, Sent, Valid};
use crate::ready::Ready;
use crate::refusal::Refusal;
use crate::settings::{Redrive, Settings};

/// After which time a message is visible again whose receipt was made to expire.
const EXPIRED_AGAIN_AFTER: Duration = Duration::from_millis(100);

/// What becomes of a message that is handed out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fate {
    Normal,
    /// It stays visible.
    Duplicate,
    /// Its receipt is bad at once.
    Expire,
}

/// The messages of one queue.
pub(crate) struct State {
    pub(crate) settings: Settings,
    pub(crate) depth: Depth,
    fifo: bool,
    messages: HashMap<u64, Message>,
    /// The number of the next message. It is the sequence number as well.
    next: u64,
    ready: Ready,
    /// When hidden and delayed messages can be received. One that no longer says what its message says does
    /// not count.
    timers: BinaryHeap<Reverse<(Instant, u64)>>,
    /// Messages that are gone after several deliveries: the first and the last one whose receipts were good.
    gone: HashMap<u64, (u32, u32)>,
    /// What was sent under a deduplication id.
    sent: HashMap<String, Sent>,
    /// Messages of a FIFO queue that were handed out under a receive attempt id, each with its delivery.
    attempts: HashMap<String, Vec<(u64, u32)>>,
    /// Of its own seed: equal message ids in two runs would be taken for one message by a receiver that
    /// remembers.
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

    /// Enters a message, unless one of its deduplication id was.
    pub(crate) fn send(&mut self, now: Instant, outgoing: Outgoing) -> Result<Sent, Refusal> {
        if !self.fifo {
            return Ok(self.enter(now, outgoing));
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
        let sent = self.enter(now, outgoing);
        self.sent.insert(key.to_owned(), sent);
        Ok(sent)
    }

    /// Enters a message whatever was sent before.
    pub(crate) fn enter(&mut self, now: Instant, outgoing: Outgoing) -> Sent {
        let id = uuid::Builder::from_random_bytes(self.ids.u128(..).to_ne_bytes()).into_uuid();
        let mut message = Message::new(id, outgoing.body, outgoing.group.map(Arc::from));
        let delay = outgoing.delay.unwrap_or(self.settings.delay);
        if !delay.is_zero() {
            message.place = Place::Delayed(now + delay);
        }
        let md5 = message.md5;
        Sent { id, md5, number: self.put(message) }
    }

    /// Enters a message of this or another queue.
    pub(crate) fn put(&mut self, mut message: Message) -> u64 {
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

    /// Makes visible what is due.
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

    /// When there may be something to receive next.
    pub(crate) fn next_due(&self) -> Option<Instant> {
        self.timers.peek().map(|Reverse((due, _))| *due)
    }

    /// Hands out up to `max` messages, telling of each its number. `fate` is asked what becomes of it, with
    /// whether it may be duplicated. Returns what was received too often and belongs elsewhere.
    pub(crate) fn receive(
        &mut self,
        now: Instant,
        max: usize,
        visibility: Option<Duration>,
        attempt: Option<&str>,
        mut fate: impl FnMut(bool) -> Fate,
        mut emit: impl FnMut(u64, &Message),
    ) -> Vec<Message> {
        self.advance(now);
        let until = now + visibility.unwrap_or(self.settings.visibility);
        let attempt = attempt.filter(|_| self.fifo);
        if attempt.is_some_and(|attempt| self.repeat(attempt, until, &mut emit)) {
            return Vec::new();
        }
        let mut delivered = Vec::new();
        let too_often = self.settings.redrive.as_ref().map_or(u32::MAX, |Redrive { after, .. }| *after);
        let (mut handed_out, mut again, mut dead) = (0, Vec::new(), Vec::new());
        while handed_out < max {
            let numbers = self.ready.take(max - handed_out);
            if numbers.is_empty() {
                break;
            }
            for number in numbers {
                let Some(message) = self.messages.get_mut(&number).filter(|m| m.place == Place::Ready) else {
                    continue;
                };
                // Only a duplicate is handed out while its receipt is good.
                let leased = message.deliveries > 0 && message.valid.until > now;
                if message.deliveries >= too_often && !leased {
                    dead.extend(self.bury(number));
                    continue;
                }
                handed_out += 1;
                message.deliveries += 1;
                let from = if leased { message.valid.from } else { message.deliveries };
                message.valid = Valid { from, until };
                let mut hidden_until = until;
                match fate(!self.fifo && !leased) {
                    Fate::Normal => {}
                    Fate::Expire => {
                        message.valid.from = message.deliveries + 1;
                        hidden_until = now + EXPIRED_AGAIN_AFTER;
                    }
                    Fate::Duplicate => {
                        again.push(number);
                        emit(number, message);
                        continue;
                    }
                }
                message.place = Place::Hidden(hidden_until);
                self.depth.visible -= 1;
                self.depth.hidden += 1;
                self.timers.push(Reverse((hidden_until, number)));
                delivered.push((number, message.deliveries));
                emit(number, message);
            }
        }
        if let Some(attempt) = attempt.filter(|_| !delivered.is_empty()) {
            self.attempts.insert(attempt.to_owned(), delivered);
        }
        for number in again.into_iter().rev() {
            self.ready.give_back(number, None);
        }
        self.compact();
        dead
    }

    /// Hands out again, with the same receipts, the messages of an earlier call of this id, and hides them again. None of
    /// them if one was deleted or became visible since.
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
            message.valid.until = until;
            self.timers.push(Reverse((until, *number)));
            emit(*number, message);
        }
        true
    }

    /// Takes out a message that waited and is to go to another queue. No receipt of it is good any more.
    fn bury(&mut self, number: u64) -> Option<Message> {
        let mut message = self.messages.remove(&number)?;
        self.depth.visible -= 1;
        self.ready.settle(message.group.as_ref());
        message.valid.from = message.deliveries + 1;
        self.gone.insert(number, (message.valid.from, message.deliveries));
        Some(message)
    }

    /// Deletes a message and returns it with its number. None means that it was deleted before.
    pub(crate) fn delete(
        &mut self,
        now: Instant,
        receipt: Receipt,
        late: bool,
    ) -> Result<Option<(u64, Message)>, Refusal> {
        self.advance(now);
        let number = receipt.message;
        let Some(message) = self.messages.get(&number) else {
            let (first, last) = self.gone.get(&number).copied().unwrap_or((1, u32::MAX));
            let good = number < self.next && (first..=last).contains(&receipt.delivery);
            return if good { Ok(None) } else { Err(Refusal::bad_receipt()) };
        };
        if !self.is_good(message, receipt, now, late) {
            return Err(Refusal::bad_receipt());
        }
        if message.deliveries > 1 {
            self.gone.insert(number, (message.valid.from, message.deliveries));
        }
        match message.place {
            Place::Ready => self.ready.forget(number, message.group.as_ref()),
            Place::Hidden(_) | Place::Delayed(_) => self.ready.settle(message.group.as_ref()),
        }
        *self.depth.of(message.place) -= 1;
        Ok(self.messages.remove_entry(&number))
    }

    /// Hides a received message for this long from now on.
    pub(crate) fn change(
        &mut self,
        now: Instant,
        receipt: Receipt,
        visibility: Duration,
        late: bool,
    ) -> Result<(), Refusal> {
        self.advance(now);
        let number = receipt.message;
        let Some(message) = self.messages.get(&number) else {
            return Err(Refusal::bad_value("ReceiptHandle", "of a message that does not exist"));
        };
        if !self.is_good(message, receipt, now, late) {
            return Err(Refusal::bad_receipt());
        }
        let until = now + visibility;
        let Some(message) = self.messages.get_mut(&number) else { return Ok(()) };
        if let Place::Hidden(hidden_until) = &mut message.place {
            *hidden_until = until;
            self.timers.push(Reverse((until, number)));
        } else if message.valid.until <= now {
            return Err(Refusal::not_in_flight());
        }
        message.valid.until = until;
        self.advance(now);
        self.compact();
        Ok(())
    }

    fn is_good(&self, message: &Message, receipt: Receipt, now: Instant, late: bool) -> bool {
        let last = receipt.delivery == message.deliveries;
        (message.valid.from..=message.deliveries).contains(&receipt.delivery)
            && (now < message.valid.until || late && last && !self.fifo)
    }

    /// Deletes all.
    pub(crate) fn purge(&mut self) {
        self.messages.clear();
        self.timers.clear();
        self.gone.clear();
        self.attempts.clear();
        self.ready = Ready::new(self.fifo);
        self.depth = Depth::default();
    }

    /// Keeps the timers of what was deleted long since from filling the memory.
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
