//! All queues, and the state that the whole server shares.

use std::collections::{BTreeMap, HashMap};
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock};
use std::time::{Duration, Instant};

use tokio::sync::Notify;

use crate::counters::Tally;
use crate::faults::{Dice, Fault, Faults};
use crate::message::{Message, Outgoing};
use crate::recorder::{Event, Record, Recorder};
use crate::refusal::Refusal;
use crate::settings::Settings;
use crate::state::State;

/// One queue.
pub(crate) struct Queue {
    pub(crate) name: Arc<str>,
    /// The queue's number. A queue that is created again under a name gets a new one.
    pub(crate) number: u32,
    pub(crate) fifo: bool,
    /// Wakes waiting receive calls: there is a new message, or a new time at which one becomes receivable.
    pub(crate) changed: Notify,
    attributes: Mutex<BTreeMap<String, String>>,
    state: Mutex<State>,
}

impl Queue {
    /// Locks the messages. They are consistent even after a panic: an operation that fails does so before it changes
    /// anything.
    pub(crate) fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Returns the attributes that were set.
    pub(crate) fn attributes(&self) -> BTreeMap<String, String> {
        self.attributes.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Sets some attributes and keeps the others.
    pub(crate) fn set_attributes(&self, changed: BTreeMap<String, String>) -> Result<(), Refusal> {
        let mut attributes = self.attributes.lock().unwrap_or_else(PoisonError::into_inner);
        let mut new = attributes.clone();
        new.extend(changed);
        self.state().settings = Settings::read(&new)?;
        *attributes = new;
        self.changed.notify_waiters();
        Ok(())
    }

    pub(crate) fn record(&self, at: Instant, sequence: u64, message: &Message) -> Record {
        Record {
            at,
            queue: Arc::clone(&self.name),
            message_id: message.id,
            group: message.group.clone(),
            sequence,
            deliveries: message.deliveries,
        }
    }
}

/// The server without its HTTP.
pub(crate) struct Broker {
    pub(crate) tally: Tally,
    pub(crate) recorder: Recorder,
    /// The beginning of every queue's URL, without the slash before the account.
    pub(crate) base_url: String,
    queues: RwLock<HashMap<String, Arc<Queue>>>,
    next_queue: AtomicU32,
    delay_ms: AtomicU64,
    faults: RwLock<Arc<Faults>>,
    dice: Dice,
}

impl Broker {
    pub(crate) fn new(base_url: String, seed: u64) -> Self {
        Self {
            tally: Tally::default(),
            recorder: Recorder::default(),
            base_url,
            queues: RwLock::default(),
            next_queue: AtomicU32::new(1),
            delay_ms: AtomicU64::new(0),
            faults: RwLock::default(),
            dice: Dice::new(seed),
        }
    }

    /// Returns the queue with this name. Accepts its URL too, whose last part is the name.
    pub(crate) fn queue(&self, name: &str) -> Result<Arc<Queue>, Refusal> {
        let name = name.rsplit('/').next().unwrap_or(name);
        let queues = self.queues.read().unwrap_or_else(PoisonError::into_inner);
        queues.get(name).cloned().ok_or_else(Refusal::no_queue)
    }

    /// Creates a queue, or returns the existing one if these attributes are equal.
    pub(crate) fn create(
        &self,
        name: &str,
        attributes: BTreeMap<String, String>,
    ) -> Result<Arc<Queue>, Refusal> {
        let mut queues = self.queues.write().unwrap_or_else(PoisonError::into_inner);
        if let Some(queue) = queues.get(name) {
            let present = queue.attributes();
            return match attributes.iter().find(|&(name, value)| present.get(name) != Some(value)) {
                None => Ok(Arc::clone(queue)),
                Some((attribute, _)) => Err(Refusal::queue_differs(attribute)),
            };
        }
        let fifo =
            name.strip_suffix(".fifo").is_some() || attributes.get("FifoQueue").is_some_and(|v| v == "true");
        let queue = Arc::new(Queue {
            name: name.into(),
            number: self.next_queue.fetch_add(1, Ordering::Relaxed),
            fifo,
            changed: Notify::new(),
            state: Mutex::new(State::new(fifo, Settings::read(&attributes)?)),
            attributes: Mutex::new(attributes),
        });
        queues.insert(name.to_owned(), Arc::clone(&queue));
        Ok(queue)
    }

    pub(crate) fn remove(&self, queue: &Queue) {
        self.queues.write().unwrap_or_else(PoisonError::into_inner).remove(&*queue.name);
    }

    /// Returns the queue with this name, and creates it if it is missing.
    pub(crate) fn ensure(&self, name: &str) -> Result<Arc<Queue>, Refusal> {
        self.queue(name).or_else(|_| self.create(name, BTreeMap::new()))
    }

    /// Puts messages into a queue. A FIFO queue's groups are used in turn.
    pub(crate) fn fill(
        &self,
        queue: &Queue,
        count: usize,
        groups: usize,
        mut body: impl FnMut(usize) -> String,
    ) {
        let now = Instant::now();
        let mut state = queue.state();
        for i in 0..count {
            let group = queue.fifo.then(|| (i % groups.max(1)).to_string());
            let outgoing = Outgoing { body: &body(i), group: group.as_deref(), ..Outgoing::default() };
            state.send_without_deduplication(now, outgoing);
        }
        drop(state);
        crate::counters::add(&self.tally.sent, count);
        queue.changed.notify_waiters();
    }

    /// Moves messages that were received too often to the dead-letter queue. If that does not exist, puts them back, so that
    /// none is lost.
    pub(crate) fn bury(&self, from: &Queue, dead: Vec<Message>) {
        if dead.is_empty() {
            return;
        }
        let name = from.state().settings.redrive.as_ref().map(|redrive| redrive.to.clone());
        let to = name.and_then(|name| self.queue(&name).ok());
        let to = to.as_deref().unwrap_or(from);
        crate::counters::add(&self.tally.dead, dead.len());
        let mut state = to.state();
        for message in dead {
            state.insert(message);
        }
        drop(state);
        to.changed.notify_waiters();
    }

    pub(crate) fn delay(&self) -> Duration {
        Duration::from_millis(self.delay_ms.load(Ordering::Relaxed))
    }

    pub(crate) fn set_delay(&self, delay: Duration) {
        self.delay_ms.store(u64::try_from(delay.as_millis()).unwrap_or(u64::MAX), Ordering::Relaxed);
    }

    pub(crate) fn faults(&self) -> Arc<Faults> {
        Arc::clone(&self.faults.read().unwrap_or_else(PoisonError::into_inner))
    }

    pub(crate) fn set_faults(&self, faults: Faults) {
        if let Some(seed) = faults.seed {
            self.dice.restart(seed);
        }
        *self.faults.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(faults);
    }

    /// Decides whether a fault with this probability happens now, and counts it if so.
    pub(crate) fn strikes(&self, fault: Fault, probability: f64) -> bool {
        let strikes = self.dice.falls(probability);
        if strikes {
            self.tally.fault(fault);
        }
        strikes
    }

    /// Returns true with probability 1/2.
    pub(crate) fn coin(&self) -> bool {
        self.dice.falls(0.5)
    }

    pub(crate) fn keep_receive(&self, queue: &Queue) {
        let event = || Event::Receive { at: Instant::now(), queue: Arc::clone(&queue.name) };
        self.recorder.keep(event);
    }
}
