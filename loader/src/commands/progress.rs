//! Progress of a run: log lines, and the bar while draining.

use std::sync::Arc;
use std::time::{Duration, Instant};

use indicatif::{HumanCount, HumanFloatCount, ProgressBar, ProgressDrawTarget, ProgressStyle};
use tracing::{info, warn};

use crate::clock::in_words;
use crate::sqs::{Depth, IN_FLIGHT_CAP, Queues};
use crate::telemetry::stats::{Stats, Summary};

/// Interval of log lines while draining without a terminal, and of asking the queues how much is left.
const DRAIN_EVERY: Duration = Duration::from_secs(3);
/// Interval at which the bar is drawn.
const DRAW_EVERY: Duration = Duration::from_millis(200);
/// Time until the bar shows a rate and an estimate. Earlier, they would be guesses.
const ESTIMATE_AFTER: Duration = Duration::from_secs(2);
/// Length of the bar in characters.
const BAR: u64 = 10;
/// Interval of log lines in a loader that runs indefinitely.
const SERVICE_EVERY: Duration = Duration::from_mins(1);

/// Logs once a minute the totals and the counts of the last minute. Runs until it is dropped.
pub(crate) async fn log_every_minute(queues: Queues, stats: Arc<Stats>) {
    let mut before = stats.summary();
    loop {
        tokio::time::sleep(SERVICE_EVERY).await;
        before = log(&stats, Some(before));
        let mut sum = Depth::default();
        for queue in queues.iter() {
            // A failure is reported elsewhere.
            let Ok(depth) = queue.depth().await else { continue };
            sum = sum + depth;
            if depth.is_near_cap() {
                warn!(
                    queue = &*queue.name,
                    in_flight = depth.hidden,
                    "the queue is near {IN_FLIGHT_CAP} messages in flight; SQS then hands out no more, without an error. \
                     Look for a consumer that does not delete"
                );
            }
        }
        stats.set_depth(sum);
    }
}

/// Logs all counters.
pub(crate) fn log_all(stats: &Stats) {
    log(stats, None);
}

/// Logs all counters and returns them. Also logs the difference to the counters of a minute `before`, for people who read
/// the log. Alerts should use the totals.
fn log(stats: &Stats, before: Option<Summary>) -> Summary {
    let now = stats.summary();
    let Summary {
        received,
        stored,
        duplicate,
        rejected,
        deleted,
        undeleted,
        extended,
        expired,
        left,
        connections,
    } = now;
    let last = |count: fn(&Summary) -> u64| before.as_ref().map(|before| count(&now) - count(before));
    let pollers = stats.pollers();
    info!(
        received_last_minute = last(|summary| summary.received),
        stored_last_minute = last(|summary| summary.stored),
        duplicate_last_minute = last(|summary| summary.duplicate),
        rejected_last_minute = last(|summary| summary.rejected),
        deleted_last_minute = last(|summary| summary.deleted),
        received,
        stored,
        duplicate,
        rejected,
        deleted,
        undeleted,
        extended,
        expired,
        messages_left = left,
        connections_made = connections,
        pollers,
        "since start"
    );
    now
}

/// Logs the progress of draining. Runs until it is dropped.
pub(crate) async fn log_drain(queues: Queues, stats: Arc<Stats>, depth: Depth) {
    info!(left = depth.total(), "draining");
    let (mut since, mut deleted_before) = (Instant::now(), 0);
    loop {
        tokio::time::sleep(DRAIN_EVERY).await;
        let Summary { received, stored, duplicate, rejected, deleted, .. } = stats.summary();
        // A failure is reported elsewhere. Here a line without the number is enough.
        let depth = Depth::of(&queues).await.ok();
        if let Some(depth) = depth {
            stats.set_depth(depth);
        }
        let (left, hidden) = (depth.map(Depth::total), depth.map(|depth| depth.hidden));
        let rate = per_second(deleted - deleted_before, since.elapsed());
        (since, deleted_before) = (Instant::now(), deleted);
        let seconds_left = left.and_then(|left| left.checked_div(rate));
        info!(
            received,
            stored,
            duplicate,
            rejected,
            deleted,
            left,
            hidden,
            per_second = rate,
            seconds_left,
            "draining"
        );
    }
}

/// Draws the progress of draining. Runs until it is dropped.
pub(crate) async fn draw_drain(bar: ProgressBar, queues: Queues, stats: Arc<Stats>, depth: Depth) {
    // The template is a constant. If it were wrong, the default style would do. Text that is too long for the terminal
    // is cut off, because the next line would tear one that wraps. The message holds everything: position and message
    // are drawn one after the other and would contradict each other.
    if let Ok(style) = ProgressStyle::with_template("{wide_msg}") {
        bar.set_style(style);
    }
    bar.reset();
    bar.set_length(depth.total());
    let mut asked = Instant::now();
    loop {
        let done = stats.summary();
        bar.set_position(done.deleted);
        let total = bar.length().unwrap_or_default();
        let estimate = (bar.elapsed() >= ESTIMATE_AFTER).then(|| (bar.per_sec(), bar.eta()));
        bar.set_message(format!("{} {}", drawn(done.deleted, total), beside_bar(&done, total, estimate)));
        if bar.is_hidden() {
            // Shown only when there is something to draw.
            bar.set_draw_target(ProgressDrawTarget::stderr());
        }
        tokio::time::sleep(DRAW_EVERY).await;
        if asked.elapsed() >= DRAIN_EVERY {
            asked = Instant::now();
            if let Ok(left) = Depth::of(&queues).await {
                stats.set_depth(left);
                bar.set_length(stats.summary().deleted + left.total());
            }
        }
    }
}

/// Returns the bar and the percentage done: `[====>     ]  45%`.
fn drawn(done: u64, total: u64) -> String {
    let of = |whole: u64| done.min(total).saturating_mul(whole).checked_div(total).unwrap_or(whole);
    let mut bar = "=".repeat(usize::try_from(of(BAR)).unwrap_or_default());
    if done < total {
        bar.push('>');
    }
    format!("[{bar:10}] {:>3}%", of(100))
}

/// Returns the text beside the bar. `estimate` holds the messages per second and the time left. The most important part
/// comes first, because a narrow terminal cuts off the rest.
fn beside_bar(done: &Summary, total: u64, estimate: Option<(f64, Duration)>) -> String {
    let mut parts = Vec::new();
    if done.deleted >= total {
        parts.push("looking for more".to_owned());
    } else if let Some((rate, left)) = estimate
        && rate >= 0.5
    {
        parts.push(format!("{} left", in_words(left)));
        parts.push(format!("{}/s", HumanFloatCount(rate.round())));
    }
    parts.push(format!("{} of {} messages", HumanCount(done.deleted), HumanCount(total)));
    for (count, what) in [(done.duplicate, "duplicate"), (done.rejected, "rejected")] {
        if count > 0 {
            parts.push(format!("{} {what}", HumanCount(count)));
        }
    }
    parts.join(", ")
}

fn per_second(messages: u64, time: Duration) -> u64 {
    let milliseconds = u64::try_from(time.as_millis()).unwrap_or(u64::MAX).max(1);
    messages.saturating_mul(1000) / milliseconds
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::telemetry::log::tests::Lines;
    use crate::telemetry::stats::{Account, Counts};

    fn commit(stats: &Stats, counts: Counts) {
        stats.add_committed(std::iter::empty(), &Account { counts, rejects: Vec::new() }, Duration::ZERO);
    }

    #[tokio::test(start_paused = true)]
    async fn a_minute_is_one_line_at_info() {
        let stats = Arc::new(Stats::new(["q"]));
        let (lines, _guard) = Lines::capture();
        let log = tokio::spawn(log_every_minute(Arc::from([]), Arc::clone(&stats)));
        tokio::time::sleep(SERVICE_EVERY / 2).await;
        for (stored, total) in [(7, 7), (2, 9), (0, 9)] {
            commit(&stats, Counts { stored, ..Counts::default() });
            tokio::time::sleep(SERVICE_EVERY).await;
            let [line] = lines.take().try_into().unwrap();
            assert_eq!((&line["level"], &line["message"]), (&json!("INFO"), &json!("since start")));
            assert_eq!((&line["stored"], &line["stored_last_minute"]), (&json!(total), &json!(stored)));
        }
        log.abort();
        log_all(&stats);
        assert_eq!(lines.take()[0].get("stored_last_minute"), None);
    }

    #[test]
    fn beside_the_bar_stand_time_left_and_rate_and_what_went_another_way() {
        let stats = Stats::new(["q"]);
        let beside = |total, rate, seconds| {
            beside_bar(&stats.summary(), total, Some((rate, Duration::from_secs(seconds))))
        };
        assert_eq!(beside(3000, 0.0, 0), "0 of 3,000 messages", "nothing is known of the rate yet");
        assert_eq!(beside_bar(&stats.summary(), 3000, None), "0 of 3,000 messages");
        stats.queue(0).add_deleted(1550);
        assert_eq!(beside(3000, 271.6, 5), "5 s left, 272/s, 1,550 of 3,000 messages");
        commit(&stats, Counts { stored: 1547, duplicate: 2, rejected: 1 });
        assert_eq!(
            beside(1_234_567, 1234.0, 3600 + 125),
            "1 h 2 min left, 1,234/s, 1,550 of 1,234,567 messages, 2 duplicate, 1 rejected"
        );
        assert_eq!(
            beside(1550, 300.0, 0),
            "looking for more, 1,550 of 1,550 messages, 2 duplicate, 1 rejected"
        );
        assert_eq!(in_words(Duration::from_secs(179)), "2 min 59 s");
    }

    #[test]
    fn a_bar_is_full_when_all_is_done() {
        for (done, total, expected) in [
            (0, 3000, "[>         ]   0%"),
            (1550, 3000, "[=====>    ]  51%"),
            (2999, 3000, "[=========>]  99%"),
            (3000, 3000, "[==========] 100%"),
            (3001, 3000, "[==========] 100%"),
            (0, 0, "[==========] 100%"),
        ] {
            assert_eq!(drawn(done, total), expected);
        }
    }

    #[test]
    fn rates_are_in_messages_a_second() {
        assert_eq!(per_second(500, Duration::from_millis(250)), 2000);
        assert_eq!(per_second(0, Duration::ZERO), 0);
    }
}
