//! A log of events, for tests of their order.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

use uuid::Uuid;

/// An event. Events are kept in the order in which they happened.
#[derive(Clone, Debug)]
pub enum Event {
    /// A receive call came in.
    Receive {
        /// Time of the call, before any waiting.
        at: Instant,
        /// The queue.
        queue: Arc<str>,
    },
    /// A message was delivered.
    Deliver(Record),
    /// A message was deleted.
    Delete(Record),
}

/// The message of an event.
#[derive(Clone, Debug)]
pub struct Record {
    /// Time of the event.
    pub at: Instant,
    /// The queue.
    pub queue: Arc<str>,
    /// `MessageId`.
    pub message_id: Uuid,
    /// `MessageGroupId`.
    pub group: Option<Arc<str>>,
    /// `SequenceNumber`. Standard queues have numbers too, although they do not return them.
    pub sequence: u64,
    /// Number of times that the message was delivered.
    pub deliveries: u32,
}

/// Keeps events while it is on.
#[derive(Default)]
pub(crate) struct Recorder {
    on: AtomicBool,
    events: Mutex<Vec<Event>>,
}

impl Recorder {
    pub(crate) fn switch(&self, on: bool) {
        self.on.store(on, Ordering::Relaxed);
    }

    /// Keeps an event while it is on. The event is only created then.
    pub(crate) fn keep(&self, event: impl FnOnce() -> Event) {
        if self.on.load(Ordering::Relaxed) {
            self.events.lock().unwrap_or_else(PoisonError::into_inner).push(event());
        }
    }

    /// Removes and returns all kept events.
    pub(crate) fn take(&self) -> Vec<Event> {
        std::mem::take(&mut self.events.lock().unwrap_or_else(PoisonError::into_inner))
    }
}
