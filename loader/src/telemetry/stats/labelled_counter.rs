//! Counters with a label whose values come from outside: codes from SQS and `PostgreSQL`, classes of rejects.

use std::cmp::Reverse;
use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};
use std::time::Instant;

use metrics::{Counter, Label, counter};

/// Maximum number of values with their own counter. There are far fewer, unless some server invents them.
const MOST: usize = 64;
/// Maximum bytes of a code. Codes are short, and a longer text may be anything.
const LONGEST: usize = 64;
/// Replaces all further values, and those that don't look like codes: such a text may quote something.
const OTHER: &str = "other";

/// The counters of one metric.
pub(super) struct LabelledCounter {
    name: &'static str,
    /// Label that tells the counters apart.
    label: &'static str,
    /// Labels that all counters share.
    common: Vec<Label>,
    counters: Mutex<HashMap<String, Entry>>,
}

/// The counter of one value.
struct Entry {
    shown: Counter,
    tally: Tally,
}

/// Number of times that a value was counted, and the last time.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Tally {
    pub(crate) count: u64,
    pub(crate) last: Option<Instant>,
}

impl LabelledCounter {
    /// Makes the counters. Each value in `known`, and the one for all others, has a counter at 0 from the start. So the
    /// first failure is seen as an increase.
    pub(super) fn new(name: &'static str, label: &'static str, common: Vec<Label>, known: &[&str]) -> Self {
        let family = Self { name, label, common, counters: Mutex::default() };
        known.iter().chain([&OTHER]).for_each(|value| family.add(value, 0));
        family
    }

    /// Counts `n` of `value`.
    pub(super) fn add(&self, value: &str, n: u64) {
        let mut counters = self.counters.lock().unwrap_or_else(PoisonError::into_inner);
        let fits = is_code(value) && (counters.contains_key(value) || counters.len() < MOST);
        let value = if fits { value } else { OTHER };
        if let Some(entry) = counters.get_mut(value) {
            return entry.add(n);
        }
        let mut labels = self.common.clone();
        labels.push(Label::new(self.label, value.to_owned()));
        let mut entry = Entry { shown: counter!(self.name, labels), tally: Tally::default() };
        entry.add(n);
        counters.insert(value.to_owned(), entry);
    }

    /// Returns the values that were counted, the latest first.
    pub(super) fn tallies(&self) -> Vec<(String, Tally)> {
        let counters = self.counters.lock().unwrap_or_else(PoisonError::into_inner);
        let counted = counters.iter().filter(|(_, entry)| entry.tally.count > 0);
        let mut tallies: Vec<_> = counted.map(|(value, entry)| (value.clone(), entry.tally)).collect();
        tallies.sort_by_key(|(_, tally)| Reverse(tally.last));
        tallies
    }
}

impl Entry {
    fn add(&mut self, n: u64) {
        self.shown.increment(n);
        if n > 0 {
            self.tally.count += n;
            self.tally.last = Some(Instant::now());
        }
    }
}

fn is_code(value: &str) -> bool {
    (1..=LONGEST).contains(&value.len())
        && value.bytes().all(|b| b.is_ascii_alphanumeric() || b"_.-".contains(&b))
}

#[cfg(test)]
mod tests {
    use metrics_exporter_prometheus::PrometheusBuilder;

    use super::*;

    #[test]
    fn the_values_of_a_label_are_codes_and_bounded() {
        let recorder = PrometheusBuilder::new().build_recorder();
        metrics::with_local_recorder(&recorder, || {
            let family =
                LabelledCounter::new("failures_total", "code", vec![Label::new("queue", "q")], &["timeout"]);
            family.add("23505", 2);
            family.add("23505", 1);
            for quoted in ["", "not user-3", "{\"ip\":", &"x".repeat(65)] {
                family.add(quoted, 1);
            }
            for n in 0..1000 {
                family.add(&format!("code{n}"), 1);
            }
            // Known values still have their own counters.
            family.add("23505", 1);
        });
        let shown = recorder.handle().render();
        let line = |labels: &str| shown.lines().find(|line| line.contains(labels)).unwrap().to_owned();
        assert_eq!(line("timeout"), "failures_total{queue=\"q\",code=\"timeout\"} 0");
        assert_eq!(line("23505"), "failures_total{queue=\"q\",code=\"23505\"} 4");
        let own = MOST - ["timeout", "other", "23505"].len();
        let others = 4 + 1000 - own;
        assert_eq!(line("other"), format!("failures_total{{queue=\"q\",code=\"other\"}} {others}"));
        assert_eq!(shown.lines().filter(|line| line.starts_with("failures_total")).count(), MOST);
        assert!(!shown.contains("user-3") && !shown.contains("ip"), "{shown}");
    }

    #[test]
    fn tallies_are_of_what_was_counted_the_latest_first() {
        let family = LabelledCounter::new("failures_total", "code", Vec::new(), &["timeout"]);
        for code in ["23505", "23505", "40001"] {
            family.add(code, 2);
        }
        let tallies: Vec<_> = family.tallies().into_iter().map(|(code, tally)| (code, tally.count)).collect();
        assert_eq!(tallies, [("40001".to_owned(), 2), ("23505".to_owned(), 4)]);
    }
}
