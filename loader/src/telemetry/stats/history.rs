//! The last ten minutes of a run, in samples, for the status page.

use std::collections::VecDeque;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

use super::Summary;

/// Time between samples.
pub(crate) const SAMPLE_EVERY: Duration = Duration::from_secs(5);
/// Maximum samples kept: the two ends of each of 120 intervals of 5 s.
const SAMPLES: usize = 121;

/// Totals of a run at one moment.
#[derive(Clone, Copy)]
struct Sample {
    at: Instant,
    summary: Summary,
}

/// Messages per second between two samples.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(crate) struct Rates {
    pub(crate) received: f64,
    pub(crate) stored: f64,
    pub(crate) rejected: f64,
    pub(crate) deleted: f64,
}

/// The newest samples.
#[derive(Default)]
pub(crate) struct History {
    samples: Mutex<VecDeque<Sample>>,
}

impl History {
    /// Adds a sample. Drops the oldest one if there are too many.
    pub(super) fn add(&self, summary: Summary) {
        let mut samples = self.samples.lock().unwrap_or_else(PoisonError::into_inner);
        samples.push_back(Sample { at: Instant::now(), summary });
        if samples.len() > SAMPLES {
            samples.pop_front();
        }
    }

    /// Returns the rates between neighbouring samples, the oldest first.
    pub(crate) fn rates(&self) -> Vec<Rates> {
        let samples = self.samples.lock().unwrap_or_else(PoisonError::into_inner);
        samples.iter().zip(samples.iter().skip(1)).map(|(from, to)| Rates::between(from, to)).collect()
    }
}

impl Rates {
    fn between(from: &Sample, to: &Sample) -> Self {
        let seconds = to.at.duration_since(from.at).as_secs_f64().max(0.001);
        let rate = |count: fn(&Summary) -> u64| {
            let messages = count(&to.summary).saturating_sub(count(&from.summary));
            f64::from(u32::try_from(messages).unwrap_or(u32::MAX)) / seconds
        };
        Self {
            received: rate(|summary| summary.received),
            stored: rate(|summary| summary.stored),
            rejected: rate(|summary| summary.rejected),
            deleted: rate(|summary| summary.deleted),
        }
    }
}

#[cfg(test)]
mod tests {
    use tokio::time::advance;

    use super::*;
    use crate::telemetry::stats::Stats;

    #[tokio::test(start_paused = true)]
    async fn rates_are_of_ten_minutes_at_most() {
        let (stats, history) = (Stats::new(["q"]), History::default());
        assert!(history.rates().is_empty());
        for _ in 0..1000 {
            history.add(stats.summary());
            stats.queue(0).add_received(35);
            stats.queue(0).add_deleted(10);
            advance(SAMPLE_EVERY).await;
        }
        let rates = history.rates();
        let expected = Rates { received: 7.0, deleted: 2.0, ..Rates::default() };
        assert_eq!(rates, vec![expected; SAMPLES - 1]);
    }
}
