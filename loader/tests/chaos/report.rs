//! Report on a run: the faults and their results.

use std::fmt::Write;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::time::Duration;

use sqs_stub::Counters;

use crate::database::Database;
use crate::form::Form;
use crate::loaders::{Ends, Logs};
use crate::plan::Side;
use crate::proxy::Proxy;

/// Contents of the report.
pub(crate) struct Report<'r> {
    pub(crate) form: &'r Form,
    pub(crate) seed: u64,
    pub(crate) time: Duration,
    pub(crate) ends: Ends,
    pub(crate) database: &'r Database,
    pub(crate) proxies: &'r [Proxy; 3],
    pub(crate) stub: Counters,
    pub(crate) logs: Logs,
    /// Log lines that the loader with the unread log has dropped.
    pub(crate) dropped_lines: usize,
    pub(crate) met_full_disk: bool,
    /// Numbers of: kill -9 of all of `PostgreSQL`, kill -9 of a backend, restarts, full disks, lost credentials, failovers.
    pub(crate) done: [usize; 6],
}

impl Report<'_> {
    /// Formats the report as a table.
    pub(crate) fn table(&self) -> String {
        let mut text = format!(
            "chaos, {} form: {} messages, {} s, seed {}\n",
            self.form.name,
            self.form.of_stub + self.form.of_sqs,
            self.time.as_secs(),
            self.seed
        );
        let mut line = |what: &str, numbers: String| {
            // Writing to a String can't fail.
            _ = writeln!(text, "  {what:<46} {numbers}");
        };
        line(
            "messages by the stub, by the SQS server",
            format!("{} {}", self.form.of_stub, self.form.of_sqs),
        );
        line("loaders: kill -9", self.ends.killed.to_string());
        line("loaders: started while a server was down", self.ends.not_started.to_string());
        line("loaders: stopped by SIGTERM, exit code 0", self.ends.stopped.to_string());
        let [killed, backends, restarts, fills, credentials, failovers] = self.done;
        line("loaders: AWS credentials lost", credentials.to_string());
        line("loaders: lines dropped that nobody reads", self.dropped_lines.to_string());
        let (of_all, of_backends) = self.database.recoveries();
        line("PostgreSQL: kill -9, recoveries in its log", format!("{killed} {of_all}"));
        line("PostgreSQL: kill -9 of a backend, recoveries", format!("{backends} {of_backends}"));
        line("PostgreSQL: restarts", restarts.to_string());
        line("PostgreSQL: failovers to the standby", failovers.to_string());
        match self.database.disk {
            Some(_) => line("PostgreSQL: disk full", fills.to_string()),
            None => line("PostgreSQL: disk full", "left out, as tmpfs cannot be mounted here".to_owned()),
        }
        for (side, proxy) in Side::ALL.iter().zip(self.proxies) {
            let made = proxy.made();
            let number = |counter: &AtomicUsize| counter.load(Relaxed);
            let what = format!("connections to the {}", side.name());
            line(&what, number(&made.connections).to_string());
            line(
                "  reset, cut short, closed on one side",
                format!("{} {} {}", number(&made.reset), number(&made.truncated), number(&made.half_closed)),
            );
            line("  stalled, slowed down", format!("{} {}", number(&made.stalled), number(&made.slowed)));
        }
        for (fault, count) in self.stub.faults.iter().filter(|(_, count)| **count > 0) {
            line(&format!("SQS stub: {fault}"), count.to_string());
        }
        line(
            "SQS stub: handed out, of which again",
            format!("{} {}", self.stub.received, self.stub.redelivered),
        );
        line("SQS stub: deletes refused for the receipt", self.stub.stale_deletes.to_string());
        let of = |name| self.logs.batches.get(name).copied().unwrap_or(0);
        line(
            "loaders' logs: committed, received before",
            format!("{} {}", of("messages"), of("received_before")),
        );
        line(
            "loaders' logs: stored, rejected, duplicate",
            format!("{} {} {}", of("stored"), of("rejected"), of("duplicate")),
        );
        line(
            "loaders' logs: leases extended, expired",
            format!("{} {}", self.logs.extended, self.logs.expired),
        );
        line("loaders' logs: deletes refused", self.logs.undeleted.to_string());
        line("loaders' logs: 'trying again'", self.logs.again.to_string());
        let states = self.logs.states.iter().map(|(state, count)| format!("{state}: {count}"));
        line("loaders' logs: SQLSTATEs", states.collect::<Vec<_>>().join(", "));
        text
    }

    /// Panics if a planned fault wasn't made: the run would then show less than it claims.
    pub(crate) fn assert_all_was_done(&self) {
        let form = self.form;
        assert_eq!(self.ends.killed, form.loader_kills, "loaders killed");
        let fills = if self.database.disk.is_some() { form.disk_fills } else { 0 };
        let planned = [
            form.postgres_kills,
            form.backend_kills,
            form.restarts,
            fills,
            form.credential_losses,
            usize::from(form.has_standby),
        ];
        assert_eq!(self.done, planned, "faults of PostgreSQL, credentials, failovers");
        if self.database.disk.is_some() {
            assert!(self.met_full_disk, "no loader has met a full disk");
        }
        if form.is_long {
            for (side, proxy) in Side::ALL.iter().zip(self.proxies) {
                let made = proxy.made();
                let hits = [&made.reset, &made.truncated, &made.half_closed, &made.stalled, &made.slowed];
                assert!(
                    hits.iter().all(|hit| hit.load(Relaxed) > 0),
                    "no connection to the {} was hit",
                    side.name()
                );
            }
            assert!(self.stub.faults.values().all(|count| *count > 0), "the stub's faults");
            assert!(self.dropped_lines > 0, "the unread log took all lines");
        }
    }
}
