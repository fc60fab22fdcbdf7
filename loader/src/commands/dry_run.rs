//! A dry run: tells what the database would do with the messages in the queues.

use std::fmt;

use tracing::info;
use uuid::Uuid;

use crate::config::Config;
use crate::error::Error;
use crate::inbox::{Inbox, Verdict};
use crate::leases::ledger::{CALL_SIZE, Ledger};
use crate::message::Message;
use crate::pipeline::{limits, release_all};
use crate::shutdown::Shutdown;
use crate::sqs::Queues;
use crate::telemetry::stats::Counts;

/// Number of empty rounds of receive calls in a row after which the queues count as empty.
const EMPTY_RECEIVES: u32 = 2;

/// Outcome. The loader prints its `Display`, which scripts read.
pub(crate) struct Report {
    received: usize,
    counts: Counts,
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Counts { stored, duplicate, rejected } = self.counts;
        write!(
            f,
            "dry run: received {}, would store {stored}, duplicate {duplicate}, rejected {rejected}; \
             nothing was stored, all messages are visible again",
            self.received
        )
    }
}

/// Receives at most one batch, puts it into the inbox, rolls back, and makes the messages visible again.
pub(crate) async fn run(
    config: &Config,
    queues: &Queues,
    inbox: Inbox,
    shutdown: &Shutdown,
) -> Result<Report, Error> {
    // The capacity fits the whole batch, because none of its messages is settled before the end, and the surplus of the
    // last calls.
    let ledger = Ledger::new(limits(config).size + CALL_SIZE * queues.len(), usize::MAX);
    let report = tokio::select! {
        report = attempt(config, queues, inbox, shutdown, &ledger) => report,
        () = shutdown.abandoning() => Err(Error::Queue("the dry run was interrupted; nothing was stored".into())),
    };
    if release_all(queues, &ledger).await || report.is_err() {
        report
    } else {
        Err(Error::Queue(format!(
            "nothing was stored, but not all messages could be made visible again; they are hidden for up \
             to {} s",
            config.queue.visibility
        )))
    }
}

async fn attempt(
    config: &Config,
    queues: &Queues,
    mut inbox: Inbox,
    shutdown: &Shutdown,
    ledger: &Ledger,
) -> Result<Report, Error> {
    let batch = receive(config, queues, shutdown, ledger).await?;
    info!(messages = batch.len(), "received; trying them in the database");
    let counts = if batch.is_empty() {
        Counts::default()
    } else {
        inbox.store(&batch, Verdict::RollBack).await?.counts
    };
    inbox.close().await;
    Ok(Report { received: batch.len(), counts })
}

async fn receive(
    config: &Config,
    queues: &Queues,
    shutdown: &Shutdown,
    ledger: &Ledger,
) -> Result<Vec<Message>, Error> {
    let limits = limits(config);
    let (mut batch, mut bytes, mut empty) = (Vec::new(), 0, 0);
    while batch.len() < limits.size
        && bytes < limits.bytes
        && empty < EMPTY_RECEIVES
        && !shutdown.is_stopping()
    {
        let mut brought = 0;
        for queue in queues.iter() {
            let messages = queue.receive(ledger.reserve(0).await, Uuid::new_v4()).await?;
            brought += messages.len();
            bytes += messages.iter().map(Message::size).sum::<usize>();
            batch.extend(messages);
        }
        empty = if brought == 0 { empty + 1 } else { 0 };
    }
    Ok(batch)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_report_reads_as_documented() {
        let report = Report { received: 6, counts: Counts { stored: 3, duplicate: 2, rejected: 1 } };
        assert_eq!(
            report.to_string(),
            "dry run: received 6, would store 3, duplicate 2, rejected 1; nothing was stored, all messages \
             are visible again"
        );
    }
}
