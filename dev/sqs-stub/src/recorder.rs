//! A log of what happened, for tests that ask about order.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

use uuid::Uuid;

/// Something that happened, in the order in which it did.
#[derive(Clone, Debug)]
pub enum Event {
    /// A receive call came in.
    Receive {
        /// When it came, before any waiting.
        at: Instant,
        /// The queue.
        queue: Arc<str>,
    },
    /// A message was handed out.
    Deliver(Record),
    /// A message was deleted.
    Delete(Record),
}

/// A message that something happened to.
#[derive(Clone, Debug)]
pub struct Record {
    /// When.
    pub at: Instant,
    /// The queue.
    pub queue: Arc<str>,
    /// `MessageId`.
    pub message_id: Uuid,
    /// `MessageGroupId`.
    pub group: Option<Arc<str>>,
    /// `SequenceNumber`. Standard queues have numbers, too, though they do not tell them.
    pub sequence: u64,
    /// How often the message has been handed out.
    pub deliveries: u32,
}

/// Keeps events while it is switched on.
#[derive(Default)]
pub(crate) struct Recorder {
    on: AtomicBool,
    events: Mutex<Vec<Event>>,
}

impl Recorder {
    pub(crate) fn switch(&self, on: bool) {
        self.on.store(on, Ordering::Relaxed);
    }

    /// Keeps an event, which is only made if it is wanted.
    pub(crate) fn keep(&self, event: impl FnOnce() -> Event) {
        if self.on.load(Ordering::Relaxed) {
            self.events.lock().unwrap_or_else(PoisonError::into_inner).push(event());
        }
    }

    /// Takes out all that was kept.
    pub(crate) fn take(&self) -> Vec<Event> {
        std::mem::take(&mut self.events.lock().unwrap_or_else(PoisonError::into_inner))
    }
}
