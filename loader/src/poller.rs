//! A poller: one receive call after the other.

use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::sync::mpsc::Sender;
use tracing::warn;

use crate::backoff;
use crate::drain::Emptiness;
use crate::error::Error;
use crate::ledger::Ledger;
use crate::message::Message;
use crate::queue::Queue;
use crate::shutdown::Shutdown;
use crate::stats::Stats;

/// After so many failures in a row, each with the SDK's own retries in it, something is wrong that waiting
/// does not mend: about a minute where calls fail at once.
const FAILURES: u32 = 8;
/// How long a call that brings nothing takes at least. Without a long poll it returns at once, and AWS
/// charges each call.
const EMPTY_CALL: Duration = Duration::from_millis(200);

/// One of the tasks that receive.
pub(crate) struct Poller {
    pub(crate) queue: Queue,
    pub(crate) ledger: Arc<Ledger>,
    pub(crate) stats: Arc<Stats>,
    pub(crate) emptiness: Arc<Emptiness>,
    pub(crate) shutdown: Shutdown,
    /// Where messages go. It holds few, so a poller receives no faster than batches are stored.
    pub(crate) received: Sender<Vec<Message>>,
}

impl Poller {
    /// Receives until the run stops. A call that is going on then is awaited: SQS may be handing messages
    /// over, and these would stay hidden from everyone if nobody took the answer.
    pub(crate) async fn run(self) -> Result<(), Error> {
        let mut failures = 0;
        while !self.shutdown.is_stopping() {
            let start = Instant::now();
            match self.queue.receive(&self.ledger).await {
                Ok(messages) if messages.is_empty() => {
                    failures = 0;
                    self.emptiness.note(true);
                    self.shutdown.sleep(EMPTY_CALL.saturating_sub(start.elapsed())).await;
                }
                Ok(messages) => {
                    failures = 0;
                    self.emptiness.note(false);
                    self.stats.add_received(messages.len());
                    // Closed when what comes after has failed: the messages are in the ledger, to be
                    // released.
                    if self.received.send(messages).await.is_err() {
                        break;
                    }
                }
                Err(failure) => {
                    failures += 1;
                    self.emptiness.note(false);
                    if failure.is_final() || failures == FAILURES {
                        return Err(failure.into());
                    }
                    let pause =
                        backoff::delay(failures - 1, Duration::from_millis(500), Duration::from_secs(10));
                    warn!(
                        "{failure}; trying again in {:.1} s ({failures} of {FAILURES})",
                        pause.as_secs_f32()
                    );
                    self.shutdown.sleep(pause).await;
                }
            }
        }
        Ok(())
    }
}
