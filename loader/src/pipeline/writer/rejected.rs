//! Logs rejected events, but not for each batch: with one reject in a hundred, nearly every batch would cause a line.

use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use tokio::time::Instant;
use tracing::warn;

use crate::telemetry::stats::{Account, Counts};

/// Minimum time between two warnings.
const EVERY: Duration = Duration::from_mins(1);

/// Rejects since the last warning.
#[derive(Default)]
pub(crate) struct Rejected(Mutex<PendingRejects>);

#[derive(Default)]
struct PendingRejects {
    /// Time of the last warning.
    told: Option<Instant>,
    rejected: u64,
    by_class: BTreeMap<String, u64>,
}

impl Rejected {
    /// Adds the rejects of a committed batch. The first rejects are logged at once.
    pub(super) fn add(&self, account: &Account) {
        if account.counts.rejected == 0 {
            return;
        }
        let mut untold = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        untold.rejected += account.counts.rejected;
        for (class, rejected) in &account.rejects {
            *untold.by_class.entry(class.clone()).or_default() += rejected;
        }
        untold.tell_if_due();
    }

    /// Logs waiting rejects if a warning is due. Called while no more arrive, because the last ones would not be logged
    /// otherwise.
    pub(super) fn tell_if_due(&self) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).tell_if_due();
    }

    /// Logs waiting rejects at the end of a run.
    pub(super) fn tell(&self) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).tell();
    }
}

impl PendingRejects {
    fn tell_if_due(&mut self) {
        if self.told.is_none_or(|told| told.elapsed() >= EVERY) {
            self.tell();
        }
    }

    fn tell(&mut self) {
        if self.rejected == 0 {
            return;
        }
        let rejects = std::mem::take(&mut self.by_class).into_iter().collect();
        let counts = Counts { rejected: std::mem::take(&mut self.rejected), ..Counts::default() };
        self.told = Some(Instant::now());
        warn!(
            rejected = counts.rejected,
            reasons = Account { counts, rejects }.reasons(),
            "events were rejected; the rejects table of the inbox has the reasons"
        );
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;
    use tokio::time::advance;

    use super::*;
    use crate::telemetry::log::tests::Lines;

    #[tokio::test(start_paused = true)]
    async fn rejects_are_told_of_at_once_and_then_once_a_minute_with_their_sum() {
        let (lines, _guard) = Lines::capture();
        let rejected = Rejected::default();
        let add = |class: &str, n: u64| {
            let counts = Counts { stored: 9, rejected: n, ..Counts::default() };
            let rejects = if n > 0 { vec![(class.to_owned(), n)] } else { Vec::new() };
            rejected.add(&Account { counts, rejects });
        };
        let expect = |rejected: u64, reasons: &str| {
            let [line] = lines.take().try_into().unwrap();
            assert_eq!(line["level"], "WARN");
            assert_eq!((&line["rejected"], &line["reasons"]), (&json!(rejected), &json!(reasons)));
        };
        add("", 0);
        assert_eq!(lines.take().len(), 0, "nothing is rejected");
        add("not_json", 1);
        expect(1, "not_json=1");
        for class in ["not_json", "missing_key", "not_json"] {
            advance(EVERY / 4).await;
            add(class, 2);
        }
        rejected.tell_if_due();
        assert_eq!(lines.take().len(), 0, "less than a minute after the last");
        advance(EVERY / 4).await;
        add("missing_key", 1);
        expect(7, "missing_key=3 not_json=4");
        advance(EVERY * 2).await;
        add("", 0);
        rejected.tell_if_due();
        assert_eq!(lines.take().len(), 0, "nothing is left to tell");
        add("not_json", 1);
        expect(1, "not_json=1");
        add("not_json", 3);
        advance(EVERY).await;
        rejected.tell_if_due();
        expect(3, "not_json=3");
        add("not_json", 4);
        rejected.tell();
        expect(4, "not_json=4");
    }
}
