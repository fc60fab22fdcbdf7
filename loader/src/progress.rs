//! How far the run is.

use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use tracing::{info, warn};

use crate::queue::{Depth, IN_FLIGHT_CAP, Queues};
use crate::stats::{Stats, Summary};

/// How often a line is logged while draining without a terminal, and how often the queue is asked how much is
/// left.
const DRAIN_EVERY: Duration = Duration::from_secs(3);
/// How often the bar is drawn anew.
const DRAW_EVERY: Duration = Duration::from_millis(200);
/// How often a line is logged by a loader that runs on and on.
const SERVICE_EVERY: Duration = Duration::from_mins(1);

/// Logs what has been done, once a minute, for as long as it is polled.
pub(crate) async fn log_every_minute(queues: Queues, stats: Arc<Stats>) {
    loop {
        tokio::time::sleep(SERVICE_EVERY).await;
        log_all(&stats);
        for queue in queues.iter() {
            // A failure shows elsewhere.
            if let Ok(depth) = queue.depth().await
                && depth.is_near_cap()
            {
                warn!(
                    queue = &*queue.name,
                    in_flight = depth.hidden,
                    "the queue is near {IN_FLIGHT_CAP} messages in flight, at which SQS hands out nothing more and does \
                     not say so: is there a consumer that does not delete?"
                );
            }
        }
    }
}

/// Logs all counters.
pub(crate) fn log_all(stats: &Stats) {
    let Summary {
        received,
        stored,
        duplicate,
        rejected,
        deleted,
        undeleted,
        extended,
        lapsed,
        left,
        connections,
    } = stats.summary();
    let pollers = stats.pollers.load(Relaxed);
    info!(
        received,
        stored,
        duplicate,
        rejected,
        deleted,
        undeleted,
        extended,
        lapsed,
        left,
        connections,
        pollers,
        "since start"
    );
}

/// Logs how far draining is, for as long as it is polled.
pub(crate) async fn log_drain(queues: Queues, stats: Arc<Stats>, depth: Depth) {
    info!(left = depth.total(), "draining");
    let (mut since, mut deleted_before) = (Instant::now(), 0);
    loop {
        tokio::time::sleep(DRAIN_EVERY).await;
        let Summary { received, stored, duplicate, rejected, deleted, .. } = stats.summary();
        // A failure shows elsewhere; here a line without the number will do.
        let depth = Depth::of(&queues).await.ok();
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

/// Draws how far draining is, for as long as it is polled.
pub(crate) async fn draw_drain(bar: ProgressBar, queues: Queues, stats: Arc<Stats>, depth: Depth) {
    // The template is a constant; were it wrong, the default style would do.
    if let Ok(style) = ProgressStyle::with_template("{wide_bar} {pos} of {len} messages, {eta} left, {msg}") {
        bar.set_style(style);
    }
    bar.set_length(depth.total());
    bar.set_draw_target(ProgressDrawTarget::stderr());
    let mut asked = Instant::now();
    loop {
        let done = stats.summary();
        bar.set_position(done.deleted);
        bar.set_message(format!(
            "{:.0} a second, {} duplicate, {} rejected",
            bar.per_sec(),
            done.duplicate,
            done.rejected
        ));
        tokio::time::sleep(DRAW_EVERY).await;
        if asked.elapsed() >= DRAIN_EVERY {
            asked = Instant::now();
            if let Ok(left) = Depth::of(&queues).await {
                bar.set_length(stats.summary().deleted + left.total());
            }
        }
    }
}

fn per_second(messages: u64, time: Duration) -> u64 {
    let milliseconds = u64::try_from(time.as_millis()).unwrap_or(u64::MAX).max(1);
    messages.saturating_mul(1000) / milliseconds
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rates_are_in_messages_a_second() {
        assert_eq!(per_second(500, Duration::from_millis(250)), 2000);
        assert_eq!(per_second(0, Duration::ZERO), 0);
    }
}
