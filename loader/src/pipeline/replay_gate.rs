//! The gate, with `--delete-after-replay`: holds committed messages back until a standby has flushed their commits.
//!
//! It has its own connection. A WAL position that is read there after COMMIT was answered lies after the commit, if
//! both belong to one history. After a failover, nobody knows which commits the new primary has. So the messages that
//! wait are made visible again, and those that were stored are found duplicates. The leases of messages that wait are
//! extended like all others.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::mpsc::{Receiver, Sender};
use tokio::time::{Instant, MissedTickBehavior, interval};
use tokio_postgres::types::PgLsn;
use tracing::{info, warn};

use crate::error::Error;
use crate::inbox::{DbError, History, Positions, Replication, Standbys};
use crate::leases::ledger::{LeaseId, Ledger};
use crate::pipeline::lease_extender::by_queue;
use crate::sqs::Queues;
use libpq_connect::Servers;

/// Time after a failover in which arriving batches count as committed before it. A writer whose COMMIT was answered
/// passes its batch on at once, but the gate may have been busy.
const SUSPICION: Duration = Duration::from_secs(5);
/// Interval at which the server is asked while messages wait.
const EVERY: Duration = Duration::from_millis(100);

/// Passes committed messages on to the deleter.
pub(crate) struct ReplayGate {
    queues: Queues,
    ledger: Arc<Ledger>,
    server: Server,
    held: HeldBatches,
}

impl ReplayGate {
    /// Reads the server's positions before the first commit: messages are released if the history at COMMIT is unknown.
    pub(crate) async fn open(servers: Servers, queues: Queues, ledger: Arc<Ledger>, delay: Duration) -> Self {
        let mut gate = Self { queues, ledger, server: Server::of(servers), held: HeldBatches::new(delay) };
        gate.check().await;
        gate
    }

    /// Holds batches back until no more arrive and all are passed on. The ledger limits how many messages wait.
    pub(crate) async fn run(
        mut self,
        mut committed: Receiver<Vec<LeaseId>>,
        confirmed: Sender<Vec<LeaseId>>,
    ) -> Result<(), Error> {
        let mut ticks = interval(EVERY);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut open = true;
        while open || !self.held.waiting.is_empty() {
            tokio::select! {
                batch = committed.recv(), if open => match batch {
                    Some(leases) => self.held.hold(leases, Instant::now()),
                    None => open = false,
                },
                _ = ticks.tick(), if !self.held.waiting.is_empty() => for leases in self.check().await {
                    _ = confirmed.send(leases).await;
                },
                // Deleting has failed for good. The end of the run releases messages that wait.
                () = confirmed.closed() => break,
            }
        }
        Ok(())
    }

    /// Asks the server, and returns the batches that are confirmed. Returns none if the server doesn't answer.
    async fn check(&mut self) -> Vec<Vec<LeaseId>> {
        let Some(positions) = self.server.ask().await else { return Vec::new() };
        let Passed { confirmed, lost } = self.held.judge(positions, Instant::now());
        if !lost.is_empty() {
            self.release(&lost).await;
        }
        confirmed
    }

    async fn release(&self, lost: &[LeaseId]) {
        let leases = self.ledger.leases(lost.iter().copied());
        warn!(
            messages = leases.len(),
            "the server is another one than at COMMIT (after a failover, for example); making messages visible again: \
             their commits can be missing"
        );
        let ids: Vec<LeaseId> = leases.iter().map(|lease| lease.id).collect();
        for (queue, leases) in self.queues.iter().zip(by_queue(self.queues.len(), leases)) {
            // A message that isn't made visible comes back when its visibility timeout ends.
            _ = queue.release(&leases).await;
        }
        // Settled only after the release, because the end of a run releases every message that isn't settled.
        for id in ids {
            self.ledger.settle(id);
        }
    }
}

/// The server, and the gate's connection to it.
struct Server {
    servers: Servers,
    connection: Option<Replication>,
    /// Whether the last try failed. A failure is logged once.
    failed: bool,
}

impl Server {
    fn of(servers: Servers) -> Self {
        Self { servers, connection: None, failed: false }
    }

    async fn ask(&mut self) -> Option<Positions> {
        match self.try_to_ask().await {
            Ok(positions) => {
                self.failed = false;
                Some(positions)
            }
            Err(fault) => {
                self.connection = None;
                if !std::mem::replace(&mut self.failed, true) {
                    warn!("{}; stored messages wait to be deleted", fault.error);
                }
                None
            }
        }
    }

    async fn try_to_ask(&mut self) -> Result<Positions, DbError> {
        let connection = match self.connection.as_mut() {
            Some(connection) => connection,
            None => self.connection.insert(Replication::open(&self.servers).await?),
        };
        connection.positions(&self.servers).await
    }
}

/// A committed batch that waits.
struct Waiting {
    leases: Vec<LeaseId>,
    since: Instant,
    /// A WAL position after the commit. `None` until the server was asked.
    position: Option<PgLsn>,
}

/// Condition for a delete. A change of it is logged.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Rule {
    /// A standby must flush the commit.
    Standby,
    /// There was a standby, but it is away: nothing is deleted.
    Absent,
    /// There was never a standby: a fixed time must pass.
    NoStandby,
    /// The role can't see the standbys' positions: a fixed time must pass.
    NoRight,
}

/// Batches that leave the gate after one reading of the positions.
#[derive(Debug, Default, PartialEq, Eq)]
struct Passed {
    confirmed: Vec<Vec<LeaseId>>,
    lost: Vec<LeaseId>,
}

/// Batches that wait, in the order of their commits.
struct HeldBatches {
    /// Time that must pass if standbys can't be asked.
    delay: Duration,
    waiting: VecDeque<Waiting>,
    history: Option<History>,
    /// Time from which batches can be trusted to belong to this history.
    trusted_from: Option<Instant>,
    rule: Option<Rule>,
}

impl HeldBatches {
    fn new(delay: Duration) -> Self {
        Self { delay, waiting: VecDeque::new(), history: None, trusted_from: None, rule: None }
    }

    fn hold(&mut self, leases: Vec<LeaseId>, since: Instant) {
        self.waiting.push_back(Waiting { leases, since, position: None });
    }

    /// Decides with positions that were read after all waiting batches had been committed.
    fn judge(&mut self, now: Positions, at: Instant) -> Passed {
        let Positions { history, flushed, standbys } = now;
        let mut passed = Passed::default();
        if self.history.as_ref() != Some(&history) {
            passed.lost = self.waiting.drain(..).flat_map(|batch| batch.leases).collect();
            if self.history.replace(history).is_some() {
                self.trusted_from = Some(at + SUSPICION);
            }
        } else if self.trusted_from.is_some_and(|trusted| at < trusted) {
            passed.lost = self.waiting.drain(..).flat_map(|batch| batch.leases).collect();
        }
        for batch in &mut self.waiting {
            batch.position.get_or_insert(flushed);
        }
        let rule = self.follow(standbys);
        while let Some(batch) = self.waiting.pop_front_if(|batch| match (rule, standbys) {
            (Rule::Standby, Standbys::Flushed(there)) => {
                batch.position.is_some_and(|position| position <= there)
            }
            (Rule::NoStandby | Rule::NoRight, _) => at.duration_since(batch.since) >= self.delay,
            _ => false,
        }) {
            passed.confirmed.push(batch.leases);
        }
        passed
    }

    /// Returns the rule that applies from now on.
    fn follow(&mut self, standbys: Standbys) -> Rule {
        let had_standby = matches!(self.rule, Some(Rule::Standby | Rule::Absent));
        let rule = match standbys {
            Standbys::Flushed(_) => Rule::Standby,
            Standbys::None | Standbys::Hidden if had_standby => Rule::Absent,
            Standbys::None => Rule::NoStandby,
            Standbys::Hidden => Rule::NoRight,
        };
        if self.rule.replace(rule) != Some(rule) {
            let seconds = self.delay.as_secs();
            match rule {
                Rule::Standby => info!("messages are deleted once a standby has flushed their commit"),
                Rule::Absent => warn!("no standby streams any more: stored messages wait to be deleted"),
                Rule::NoStandby => {
                    warn!(
                        "there is no standby: messages are deleted {seconds} s after COMMIT (--delete-delay)"
                    );
                }
                Rule::NoRight => warn!(
                    "the role cannot see how far standbys are: messages are deleted {seconds} s after COMMIT \
                     (--delete-delay). GRANT pg_read_all_stats to it"
                ),
            }
        }
        rule
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn positions(timeline: &str, flushed: u64, standbys: Standbys) -> Positions {
        Positions { history: History(1, timeline.into()), flushed: flushed.into(), standbys }
    }

    fn at_standby(flushed: u64, there: u64) -> Positions {
        positions("1", flushed, Standbys::Flushed(there.into()))
    }

    /// Returns a gate that has asked the server before the first commit, and holds batch 1.
    fn holding(first: Positions) -> (HeldBatches, Instant) {
        let (mut held, now) = (HeldBatches::new(Duration::from_secs(30)), Instant::now());
        assert_eq!(held.judge(first, now), Passed::default());
        held.hold(batch(1), now);
        (held, now)
    }

    fn batch(n: u64) -> Vec<LeaseId> {
        vec![LeaseId::numbered(n)]
    }

    #[test]
    fn a_batch_passes_once_a_standby_has_flushed_what_the_server_had_after_its_commit() {
        let (mut held, now) = holding(at_standby(100, 100));
        assert_eq!(held.judge(at_standby(200, 199), now), Passed::default());
        held.hold(batch(2), now);
        // The server goes on: the first batch waits for its own position, and the second one for its own.
        assert_eq!(held.judge(at_standby(300, 200), now).confirmed, [batch(1)]);
        assert_eq!(held.judge(at_standby(400, 299), now), Passed::default());
        assert_eq!(held.judge(at_standby(400, 300), now).confirmed, [batch(2)]);
    }

    #[test]
    fn no_batch_passes_while_the_standby_is_away_however_long() {
        let (mut held, now) = holding(at_standby(100, 100));
        let later = now + Duration::from_hours(1);
        for standbys in [Standbys::None, Standbys::Hidden] {
            assert_eq!(held.judge(positions("1", 200, standbys), later), Passed::default());
        }
        assert_eq!(held.judge(at_standby(200, 200), later).confirmed, [batch(1)]);
    }

    #[test]
    fn without_a_standby_a_fixed_time_must_pass() {
        for standbys in [Standbys::None, Standbys::Hidden] {
            let (mut held, now) = holding(positions("1", 100, standbys));
            let judge = |held: &mut HeldBatches, seconds| {
                held.judge(positions("1", 200, standbys), now + Duration::from_secs(seconds)).confirmed
            };
            assert!(judge(&mut held, 29).is_empty());
            assert_eq!(judge(&mut held, 30), [batch(1)]);
        }
    }

    #[test]
    fn batches_of_another_history_are_let_go() {
        let (mut held, now) = holding(at_standby(100, 100));
        let after = held.judge(positions("2", 300, Standbys::Flushed(300.into())), now);
        assert_eq!(after, Passed { confirmed: vec![], lost: batch(1) });
        // A batch that was committed before the failover may arrive after the failover was noticed.
        held.hold(batch(4), now);
        let soon = now + SUSPICION - Duration::from_millis(1);
        let after = held.judge(positions("2", 350, Standbys::Flushed(350.into())), soon);
        assert_eq!(after, Passed { confirmed: vec![], lost: batch(4) });
        // A batch that is committed later belongs to the new history.
        let now = now + SUSPICION;
        held.hold(batch(2), now);
        let after = held.judge(positions("2", 400, Standbys::Flushed(400.into())), now);
        assert_eq!(after, Passed { confirmed: vec![batch(2)], lost: vec![] });
        // Another cluster with an equal timeline.
        held.hold(batch(3), now);
        let other = Positions {
            history: History(2, "2".into()),
            ..positions("2", 500, Standbys::Flushed(500.into()))
        };
        assert_eq!(held.judge(other, now).lost, batch(3));
    }
}
