//! Counters of a run, in messages. One call counts each fact here: for the run's last line, for the log and, if there
//! is a recorder, for its metrics.

mod census;
mod history;
mod labelled_counter;
mod queue_stats;

use std::fmt::{self, Write as _};
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use metrics::{Counter, Gauge, Histogram, counter, gauge, histogram};

use crate::telemetry::metrics::name;
use crate::telemetry::readiness::LastAnswer;
pub(crate) use census::{Census, Depth};
pub(crate) use history::{History, Rates, SAMPLE_EVERY};
use labelled_counter::LabelledCounter;
pub(crate) use labelled_counter::Tally;
use queue_stats::QueueStats;
pub(crate) use queue_stats::Received;

/// Outcome of the events in one batch.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Counts {
    /// New rows in the target.
    pub(crate) stored: u64,
    /// Events whose message id existed already.
    pub(crate) duplicate: u64,
    /// Events that couldn't become rows. They are kept among the rejects, masked whole.
    pub(crate) rejected: u64,
}

/// Outcome of the events in one batch, with the number of rejects by class of the reason.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Account {
    pub(crate) counts: Counts,
    pub(crate) rejects: Vec<(String, u64)>,
}

impl Account {
    /// Returns the classes for a log line: `not_json=3 missing_key=2`.
    pub(crate) fn reasons(&self) -> String {
        let mut text = String::new();
        for (class, rejected) in &self.rejects {
            // Writing to a String doesn't fail.
            _ = write!(text, "{}{class}={rejected}", if text.is_empty() { "" } else { " " });
        }
        text
    }
}

/// Codes for failures that no server has reported.
const OWN_CODES: [&str; 2] = ["connection", "timeout"];

/// Counters that all tasks of the pipeline share.
pub(crate) struct Stats {
    queues: Vec<QueueStats>,
    stored: Count,
    duplicate: Count,
    rejected: AtomicU64,
    reasons: LabelledCounter,
    left: Count,
    connections: AtomicU64,
    reconnects: Counter,
    store_failures: LabelledCounter,
    trial_failures: LabelledCounter,
    batch_messages: Histogram,
    batch_duration: Histogram,
    message_age: Histogram,
    last_commit: Gauge,
    oldest_in_flight: Gauge,
    moment: Mutex<Moment>,
    pub(crate) history: History,
    /// Time of the database's last answer.
    pub(crate) pulse: Arc<LastAnswer>,
}

/// Numbers for the status page, as last sampled.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Moment {
    /// Number of committed batches.
    pub(crate) batches: u64,
    pub(crate) last_commit: Option<Instant>,
    /// Messages in flight.
    pub(crate) census: Census,
    /// Messages in all queues together, and when SQS reported them.
    pub(crate) depth: Option<(Depth, Instant)>,
}

/// A failure that was counted: its kind of work, its queue and its code.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct CountedFailure {
    pub(crate) work: &'static str,
    pub(crate) queue: Option<Box<str>>,
    pub(crate) code: String,
    pub(crate) tally: Tally,
}

/// A counter that the run itself reads, too.
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
    /// Makes the counters of a run with queues of these names.
    pub(crate) fn new<'q>(queues: impl IntoIterator<Item = &'q str>) -> Self {
        Self {
            queues: queues.into_iter().map(QueueStats::new).collect(),
            stored: Count::of(counter!(name::STORED)),
            duplicate: Count::of(counter!(name::DUPLICATE)),
            rejected: AtomicU64::new(0),
            reasons: LabelledCounter::new(name::REJECTED, "reason", Vec::new(), &[]),
            left: Count::of(counter!(name::MESSAGES_LEFT)),
            connections: AtomicU64::new(0),
            reconnects: counter!(name::RECONNECTS),
            store_failures: LabelledCounter::new(
                name::STORE_FAILURES,
                "sqlstate",
                Vec::new(),
                &[OWN_CODES.as_slice(), &["commit", "count", "setup"]].concat(),
            ),
            trial_failures: LabelledCounter::new(
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

    /// Returns the counters of a queue, by its index in the run (`Queue::number`, `Lease::queue`).
    pub(crate) fn queue(&self, queue: usize) -> &QueueStats {
        &self.queues[queue]
    }

    /// Counts a committed batch. `took` is the time of its transaction. `ages` are the ages of its messages, if the
    /// queue says when they were sent.
    pub(crate) fn add_committed(
        &self,
        ages: impl ExactSizeIterator<Item = Option<Duration>>,
        account: &Account,
        took: Duration,
    ) {
        let Counts { stored, duplicate, rejected } = account.counts;
        self.stored.add(stored);
        self.duplicate.add(duplicate);
        self.rejected.fetch_add(rejected, Relaxed);
        for (class, rejected) in &account.rejects {
            self.reasons.add(class, *rejected);
        }
        // Counts all rejects, even those that the database gives no class for.
        let classed = account.rejects.iter().map(|(_, rejected)| rejected).sum();
        self.reasons.add("", rejected.saturating_sub(classed));
        self.batch_messages.record(u32::try_from(ages.len()).unwrap_or(u32::MAX));
        self.batch_duration.record(took);
        let now = SystemTime::now();
        self.last_commit.set(now.duration_since(UNIX_EPOCH).unwrap_or_default().as_secs_f64());
        self.change_moment(|moment| {
            moment.batches += 1;
            moment.last_commit = Some(Instant::now());
        });
        ages.flatten().for_each(|age| self.message_age.record(age));
    }

    /// Counts a batch that was not stored, under the SQLSTATE or the word in its place.
    pub(crate) fn add_store_failure(&self, code: &str) {
        self.store_failures.add(code, 1);
    }

    /// Counts a failed trial, under the SQLSTATE or the word in its place.
    pub(crate) fn add_trial_failure(&self, code: &str) {
        self.trial_failures.add(code, 1);
    }

    /// Counts messages that the database can neither store nor reject. They were left to the queue's redrive policy.
    pub(crate) fn add_left(&self, messages: usize) {
        self.left.add(messages as u64);
    }

    /// Counts a connection to the database. `again` is true if there was one before.
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

    /// Records how many messages SQS counts in the queues.
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

    /// Returns the rejects by class of their reason, the latest first.
    pub(crate) fn rejects(&self) -> Vec<(String, Tally)> {
        self.reasons.tallies()
    }

    /// Returns the failures by kind and code, the latest first.
    pub(crate) fn failures(&self) -> Vec<CountedFailure> {
        let of = |work, queue: Option<&QueueStats>, counters: &LabelledCounter| {
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

    /// Returns the number of tasks that receive, for all queues.
    pub(crate) fn pollers(&self) -> usize {
        self.queues.iter().map(QueueStats::pollers).sum()
    }

    /// Returns the current counters.
    pub(crate) fn summary(&self) -> Summary {
        let sum = |of: fn(&QueueStats) -> u64| self.queues.iter().map(of).sum();
        Summary {
            received: sum(|queue| queue.received.total()),
            stored: self.stored.total(),
            duplicate: self.duplicate.total(),
            rejected: self.rejected.load(Relaxed),
            deleted: sum(|queue| queue.deleted.total()),
            undeleted: sum(|queue| queue.undeleted.load(Relaxed)),
            extended: sum(|queue| queue.extended.total()),
            expired: sum(|queue| queue.expired.total()),
            left: self.left.total(),
            connections: self.connections.load(Relaxed),
        }
    }
}

/// Counters at one moment. Its `Display` is the line that ends a run, which scripts read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Summary {
    pub(crate) received: u64,
    pub(crate) stored: u64,
    pub(crate) duplicate: u64,
    pub(crate) rejected: u64,
    pub(crate) deleted: u64,
    pub(crate) undeleted: u64,
    pub(crate) extended: u64,
    pub(crate) expired: u64,
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
        stats.queue(0).add_received(4);
        stats.queue(1).add_received(2);
        stats.add_committed(std::iter::empty(), &account(3, 2, &[("not_json", 1)]), Duration::ZERO);
        stats.queue(1).add_deleted(1);
        stats.queue(1).add_undeleted(1);
        assert_eq!(stats.summary().to_string(), "received 6, stored 3, duplicate 2, rejected 1, deleted 1");
    }

    #[test]
    fn reasons_are_counted_by_class() {
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
        metrics::with_local_recorder(&recorder, || {
            stats.add_committed(std::iter::empty(), &account, Duration::ZERO);
        });
        let shown = recorder.handle().render();
        for line in [
            "pg_mask_loader_events_rejected_total{reason=\"not_json\"} 3",
            "pg_mask_loader_events_rejected_total{reason=\"other\"} 2",
        ] {
            assert!(shown.contains(line), "{line} is not in {shown}");
        }
    }
}
