//! What a run has done so far, in messages. Each fact is counted here by one call, for the run's last line, for the log
//! and, where there is a recorder, for its metrics.

mod by_value;
mod history;
mod of_queue;

use std::fmt::{self, Write as _};
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use metrics::{Counter, Gauge, Histogram, counter, gauge, histogram};

use crate::ledger::Census;
use crate::message::Message;
use crate::monitoring::{Pulse, name};
use crate::queue::Depth;
use by_value::ByValue;
pub(crate) use by_value::Tally;
pub(crate) use history::{History, Rates, SAMPLE_EVERY};
use of_queue::OfQueue;

/// What the inbox did with the events of one batch.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Counts {
    /// New rows in the target.
    pub(crate) stored: u64,
    /// Events whose message id was there already.
    pub(crate) duplicate: u64,
    /// Events that could not be rows and were kept, masked whole, among the rejects.
    pub(crate) rejected: u64,
}

/// The same, and why events were rejected: how many of which class.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Account {
    pub(crate) counts: Counts,
    pub(crate) rejects: Vec<(String, u64)>,
}

impl Account {
    /// The classes for a line of the log: `not_json=3 missing_key=2`.
    pub(crate) fn reasons(&self) -> String {
        let mut text = String::new();
        for (class, rejected) in &self.rejects {
            // Writing into a String does not fail.
            _ = write!(text, "{}{class}={rejected}", if text.is_empty() { "" } else { " " });
        }
        text
    }
}

/// Codes of failures that no server has sent.
const OWN_CODES: [&str; 2] = ["connection", "timeout"];

/// Counters that all tasks of the pipeline share.
pub(crate) struct Stats {
    queues: Vec<OfQueue>,
    stored: Count,
    duplicate: Count,
    rejected: AtomicU64,
    reasons: ByValue,
    left: Count,
    connections: AtomicU64,
    reconnects: Counter,
    store_failures: ByValue,
    trial_failures: ByValue,
    batch_messages: Histogram,
    batch_duration: Histogram,
    message_age: Histogram,
    last_commit: Gauge,
    oldest_in_flight: Gauge,
    moment: Mutex<Moment>,
    pub(crate) history: History,
    /// The database's.
    pub(crate) pulse: Arc<Pulse>,
}

/// Numbers for the status page, as last sampled.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Moment {
    /// Committed batches.
    pub(crate) batches: u64,
    pub(crate) last_commit: Option<Instant>,
    /// Messages in flight.
    pub(crate) census: Census,
    /// Messages in all queues together, and when SQS said so.
    pub(crate) depth: Option<(Depth, Instant)>,
}

/// A failure that was counted: which kind of work, in which queue, with which code.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct CountedFailure {
    pub(crate) work: &'static str,
    pub(crate) queue: Option<Box<str>>,
    pub(crate) code: String,
    pub(crate) tally: Tally,
}

/// A counter that the run reads, too.
struct Count {
    total: AtomicU64,
    shown: Counter,
}

impl Count {
    fn of(shown: Counter) -> Self {
        Self { total: AtomicU64::new(0), shown }
    }

    fn add(&self, n: u64) {
        self.total.fetch_add(n, Relaxed);
        self.shown.increment(n);
    }

    fn total(&self) -> u64 {
        self.total.load(Relaxed)
    }
}

impl Stats {
    /// Of a run with the queues of these names.
    pub(crate) fn new<'q>(queues: impl IntoIterator<Item = &'q str>) -> Self {
        Self {
            queues: queues.into_iter().map(OfQueue::new).collect(),
            stored: Count::of(counter!(name::STORED)),
            duplicate: Count::of(counter!(name::DUPLICATE)),
            rejected: AtomicU64::new(0),
            reasons: ByValue::new(name::REJECTED, "reason", Vec::new(), &[]),
            left: Count::of(counter!(name::LEFT)),
            connections: AtomicU64::new(0),
            reconnects: counter!(name::RECONNECTS),
            store_failures: ByValue::new(
                name::STORE_FAILURES,
                "sqlstate",
                Vec::new(),
                &[OWN_CODES.as_slice(), &["commit", "count", "setup"]].concat(),
            ),
            trial_failures: ByValue::new(
                name::TRIAL_FAILURES,
                "sqlstate",
                Vec::new(),
                &[OWN_CODES.as_slice(), &["setup"]].concat(),
            ),
            batch_messages: histogram!(name::BATCH_MESSAGES),
            batch_duration: histogram!(name::BATCH_DURATION),
            message_age: histogram!(name::MESSAGE_AGE),
            last_commit: gauge!(name::LAST_COMMIT),
            oldest_in_flight: gauge!(name::OLDEST_IN_FLIGHT),
            moment: Mutex::default(),
            history: History::default(),
            pulse: Arc::default(),
        }
    }

    /// Those of one of the run's queues, by its place among them, which `Queue::number` and `Lease::queue` tell.
    pub(crate) fn of(&self, queue: usize) -> &OfQueue {
        &self.queues[queue]
    }

    /// A batch was committed by a transaction that took so long.
    pub(crate) fn add_committed(&self, batch: &[Message], account: &Account, took: Duration) {
        let Counts { stored, duplicate, rejected } = account.counts;
        self.stored.add(stored);
        self.duplicate.add(duplicate);
        self.rejected.fetch_add(rejected, Relaxed);
        for (class, rejected) in &account.rejects {
            self.reasons.add(class, *rejected);
        }
        // Whatever the database has to say of them, all are counted.
        let classed = account.rejects.iter().map(|(_, rejected)| rejected).sum();
        self.reasons.add("", rejected.saturating_sub(classed));
        self.batch_messages.record(u32::try_from(batch.len()).unwrap_or(u32::MAX));
        self.batch_duration.record(took);
        let now = SystemTime::now();
        self.last_commit.set(now.duration_since(UNIX_EPOCH).unwrap_or_default().as_secs_f64());
        self.change_moment(|moment| {
            moment.batches += 1;
            moment.last_commit = Some(Instant::now());
        });
        batch.iter().filter_map(|message| message.age(now)).for_each(|age| self.message_age.record(age));
    }

    /// A batch was not stored; with the SQLSTATE, or what stands for it.
    pub(crate) fn add_store_failure(&self, code: &str) {
        self.store_failures.add(code, 1);
    }

    /// A trial failed; with the SQLSTATE, or the word that stands for it.
    pub(crate) fn add_trial_failure(&self, code: &str) {
        self.trial_failures.add(code, 1);
    }

    /// Messages that the database can neither store nor reject were left to the queue's redrive policy.
    pub(crate) fn add_left(&self, messages: usize) {
        self.left.add(messages as u64);
    }

    /// A connection to the database was made, perhaps in the place of one that was lost.
    pub(crate) fn add_connection(&self, again: bool) {
        self.connections.fetch_add(1, Relaxed);
        self.reconnects.increment(again.into());
    }

    /// Takes a sample for the status page and for gauges, every `SAMPLE_EVERY`.
    pub(crate) fn sample(&self, census: Census) {
        self.oldest_in_flight.set(census.oldest.as_secs_f64());
        self.change_moment(|moment| moment.census = census);
        self.history.add(self.summary());
    }

    /// SQS said how many messages are in the queues.
    pub(crate) fn set_depth(&self, depth: Depth) {
        self.change_moment(|moment| moment.depth = Some((depth, Instant::now())));
    }

    fn change_moment(&self, change: impl FnOnce(&mut Moment)) {
        change(&mut self.moment.lock().unwrap_or_else(PoisonError::into_inner));
    }

    /// Returns the last sample.
    pub(crate) fn moment(&self) -> Moment {
        *self.moment.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Rejects by class of their reason, the latest first.
    pub(crate) fn rejects(&self) -> Vec<(String, Tally)> {
        self.reasons.tallies()
    }

    /// Failures by kind and code, the latest first.
    pub(crate) fn failures(&self) -> Vec<CountedFailure> {
        let of = |work, queue: Option<&OfQueue>, counters: &ByValue| {
            let queue = queue.map(|queue| queue.name.clone());
            let failure = |(code, tally)| CountedFailure { work, queue: queue.clone(), code, tally };
            counters.tallies().into_iter().map(failure).collect::<Vec<_>>()
        };
        let mut failures = of("store", None, &self.store_failures);
        failures.extend(of("trial", None, &self.trial_failures));
        for queue in &self.queues {
            failures.extend(of("receive", Some(queue), &queue.receive_failures));
            failures.extend(of("delete", Some(queue), &queue.delete_failures));
        }
        failures.sort_by_key(|failure| std::cmp::Reverse(failure.tally.last));
        failures
    }

    /// Tasks that receive, of all queues.
    pub(crate) fn pollers(&self) -> usize {
        self.queues.iter().map(OfQueue::pollers).sum()
    }

    /// The counters now.
    pub(crate) fn summary(&self) -> Summary {
        let sum = |of: fn(&OfQueue) -> u64| self.queues.iter().map(of).sum();
        Summary {
            received: sum(|queue| queue.received.total()),
            stored: self.stored.total(),
            duplicate: self.duplicate.total(),
            rejected: self.rejected.load(Relaxed),
            deleted: sum(|queue| queue.deleted.total()),
            undeleted: sum(|queue| queue.undeleted.load(Relaxed)),
            extended: sum(|queue| queue.extended.total()),
            lapsed: sum(|queue| queue.lapsed.total()),
            left: self.left.total(),
            connections: self.connections.load(Relaxed),
        }
    }
}

/// The counters at one moment. Its `Display` is the line that ends a run, which scripts read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Summary {
    pub(crate) received: u64,
    pub(crate) stored: u64,
    pub(crate) duplicate: u64,
    pub(crate) rejected: u64,
    pub(crate) deleted: u64,
    pub(crate) undeleted: u64,
    pub(crate) extended: u64,
    pub(crate) lapsed: u64,
    pub(crate) left: u64,
    pub(crate) connections: u64,
}

impl fmt::Display for Summary {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { received, stored, duplicate, rejected, deleted, .. } = self;
        write!(
            f,
            "received {received}, stored {stored}, duplicate {duplicate}, rejected {rejected}, deleted \
             {deleted}"
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn account(stored: u64, duplicate: u64, rejects: &[(&str, u64)]) -> Account {
        let rejected = rejects.iter().map(|(_, n)| n).sum();
        let rejects = rejects.iter().map(|(class, n)| ((*class).to_owned(), *n)).collect();
        Account { counts: Counts { stored, duplicate, rejected }, rejects }
    }

    #[test]
    fn the_summary_reads_as_documented() {
        let stats = Stats::new(["a", "b"]);
        stats.of(0).add_received(4);
        stats.of(1).add_received(2);
        stats.add_committed(&[], &account(3, 2, &[("not_json", 1)]), Duration::ZERO);
        stats.of(1).add_deleted(1);
        stats.of(1).add_undeleted(1);
        assert_eq!(stats.summary().to_string(), "received 6, stored 3, duplicate 2, rejected 1, deleted 1");
    }

    #[test]
    fn reasons_are_told_by_their_class() {
        assert_eq!(account(1, 0, &[]).reasons(), "");
        assert_eq!(
            account(1, 0, &[("not_json", 3), ("missing_key", 2)]).reasons(),
            "not_json=3 missing_key=2"
        );
    }

    #[test]
    fn every_reject_is_counted_with_or_without_a_class() {
        let recorder = metrics_exporter_prometheus::PrometheusBuilder::new().build_recorder();
        let stats = metrics::with_local_recorder(&recorder, || Stats::new([]));
        let mut account = account(0, 0, &[("not_json", 3)]);
        account.counts.rejected = 5;
        metrics::with_local_recorder(&recorder, || stats.add_committed(&[], &account, Duration::ZERO));
        let shown = recorder.handle().render();
        for line in [
            "pg_mask_loader_events_rejected_total{reason=\"not_json\"} 3",
            "pg_mask_loader_events_rejected_total{reason=\"other\"} 2",
        ] {
            assert!(shown.contains(line), "{line} is not in {shown}");
        }
    }
}
