//! Gathers received messages into batches.

use std::collections::VecDeque;
use std::time::Duration;

use tokio::sync::mpsc::{Receiver, Sender};
use tokio::time::{Instant, sleep_until};

use crate::message::Message;

/// Limits of a batch. The first one that is reached closes it.
#[derive(Clone, Copy)]
pub(crate) struct Limits {
    /// Number of messages.
    pub(crate) size: usize,
    /// Bytes of bodies. The message that reaches the limit still belongs to the batch.
    pub(crate) bytes: usize,
    /// Time since the batch's first message.
    pub(crate) linger: Duration,
}

/// Messages that go into one transaction.
pub(crate) type Batch = Vec<Message>;

/// Makes batches until `received` is closed and everything has been passed on, or until nobody takes batches.
pub(crate) async fn run(limits: Limits, mut received: Receiver<Batch>, writers: Sender<Batch>) {
    let mut batcher = Batcher { limits, batch: Vec::new(), bytes: 0, rest: VecDeque::new(), due: None };
    let mut open = true;
    while open || !batcher.batch.is_empty() {
        let full = batcher.is_full();
        let due = batcher.due;
        // A batch that is due but must wait for a writer grows until it is full.
        let ready = full || !open || due.is_some_and(|due| due <= Instant::now());
        tokio::select! {
            biased;
            permit = writers.reserve(), if ready => match permit {
                Ok(permit) => permit.send(batcher.close()),
                Err(_) => return,
            },
            messages = received.recv(), if open && !full => match messages {
                Some(messages) => batcher.add(messages),
                None => open = false,
            },
            () = sleep_until(due.unwrap_or_else(Instant::now)), if due.is_some() && !ready => {}
        }
    }
}

struct Batcher {
    limits: Limits,
    batch: Batch,
    bytes: usize,
    /// Messages that arrived with the last ones of a full batch and belong to the next. At most one receive call's
    /// worth.
    rest: VecDeque<Message>,
    /// Time when the batch must be closed, if it isn't full before. `None` while it is empty.
    due: Option<Instant>,
}

impl Batcher {
    fn is_full(&self) -> bool {
        self.batch.len() >= self.limits.size || self.bytes >= self.limits.bytes
    }

    fn add(&mut self, messages: Vec<Message>) {
        self.rest.extend(messages);
        self.fill();
    }

    fn fill(&mut self) {
        while let Some(message) = self.rest.front()
            // Messages of one group that one receive call returned go into one transaction. With several writers, the
            // second part could otherwise be committed before the first.
            && (!self.is_full() || message.group.is_some())
        {
            self.due.get_or_insert_with(|| Instant::now() + self.limits.linger);
            self.bytes += message.size();
            self.batch.extend(self.rest.pop_front());
        }
    }

    /// Returns the batch and begins the next.
    fn close(&mut self) -> Batch {
        let next = Vec::with_capacity(self.batch.len());
        let batch = std::mem::replace(&mut self.batch, next);
        self.bytes = 0;
        self.due = None;
        self.fill();
        batch
    }
}

#[cfg(test)]
mod tests {
    use tokio::sync::mpsc::channel;
    use tokio::time::timeout;
    use uuid::Uuid;

    use super::*;
    use crate::leases::capacity::Share;
    use crate::leases::ledger::LeaseId;

    fn messages(count: usize, body: &str) -> Vec<Message> {
        let message = || Message {
            lease: LeaseId::NONE,
            id: Uuid::nil(),
            sent_at: None,
            receive_count: 1,
            group: None,
            body: Some(body.to_owned()),
            _memory: Share::default(),
        };
        std::iter::repeat_with(message).take(count).collect()
    }

    async fn sizes(limits: Limits, input: Vec<Vec<Message>>) -> Vec<usize> {
        let (received, rx) = channel(input.len().max(1));
        for messages in input {
            received.send(messages).await.ok().unwrap();
        }
        drop(received);
        let (tx, mut batches) = channel(1);
        tokio::spawn(run(limits, rx, tx));
        let mut sizes = Vec::new();
        while let Some(batch) = batches.recv().await {
            sizes.push(batch.len());
        }
        sizes
    }

    const LONG: Duration = Duration::from_hours(1);

    #[tokio::test]
    async fn a_batch_is_closed_at_its_size() {
        let limits = Limits { size: 4, bytes: 1000, linger: LONG };
        let input = vec![messages(10, "x"), messages(1, "x"), messages(2, "x")];
        assert_eq!(sizes(limits, input).await, [4, 4, 4, 1]);
    }

    #[tokio::test]
    async fn a_batch_is_closed_at_its_bytes() {
        let limits = Limits { size: 100, bytes: 10, linger: LONG };
        assert_eq!(sizes(limits, vec![messages(5, "1234")]).await, [3, 2]);
        // A single body over the limit goes alone.
        assert_eq!(sizes(limits, vec![messages(2, &"x".repeat(50))]).await, [1, 1]);
    }

    #[tokio::test]
    async fn messages_of_a_group_from_one_call_stay_together() {
        let grouped = |count| {
            let mut messages = messages(count, "x");
            for message in &mut messages {
                message.group = Some("g".into());
            }
            messages
        };
        let limits = Limits { size: 4, bytes: 1000, linger: LONG };
        assert_eq!(sizes(limits, vec![grouped(3), grouped(10), grouped(2)]).await, [13, 2]);
    }

    #[tokio::test]
    async fn no_messages_make_no_batch() {
        assert!(sizes(Limits { size: 1, bytes: 1, linger: LONG }, vec![]).await.is_empty());
    }

    #[tokio::test]
    async fn a_batch_that_is_not_full_is_closed_after_its_linger() {
        let linger = Duration::from_millis(50);
        let (received, rx) = channel(1);
        let (tx, mut batches) = channel(1);
        tokio::spawn(run(Limits { size: 100, bytes: 1000, linger }, rx, tx));
        received.send(messages(3, "x")).await.ok().unwrap();
        let batch = timeout(Duration::from_secs(5), batches.recv()).await.unwrap().unwrap();
        assert_eq!(batch.len(), 3);
    }

    #[tokio::test]
    async fn a_batch_that_waits_for_the_writer_grows_and_then_holds_the_pollers_back() {
        let limits = Limits { size: 20, bytes: 1000, linger: Duration::ZERO };
        let (received, rx) = channel(1);
        let (tx, mut batches) = channel(1);
        tokio::spawn(run(limits, rx, tx));
        let mut sent = 0;
        // Nobody takes batches: one fits in the channel, one in the batcher, and one receive call's worth in its
        // channel.
        while timeout(Duration::from_millis(200), received.send(messages(10, "x"))).await.is_ok() {
            sent += 1;
            assert!(sent < 10, "the batcher must not take without end");
        }
        assert!(batches.recv().await.unwrap().len() <= 20);
        assert_eq!(batches.recv().await.unwrap().len(), 20);
    }
}
