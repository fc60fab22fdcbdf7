//! Capacity of the loader: maximum messages, and maximum bytes of them, at a time.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};

use tokio::sync::{Mutex, Notify};

/// Capacity for messages and for their bytes.
pub(crate) struct Capacity {
    /// Messages, until their delete is confirmed.
    messages: Arc<Budget>,
    /// Bytes of messages, until they are stored.
    bytes: Arc<Budget>,
}

impl Capacity {
    /// Makes a capacity of which nothing is in use.
    pub(crate) fn new(messages: usize, bytes: usize) -> Self {
        Self { messages: Budget::new(messages), bytes: Budget::new(bytes) }
    }

    /// Returns how many messages of `size` bytes fit if nothing else is in use.
    pub(crate) fn messages_of(&self, size: usize) -> usize {
        self.messages.limit().min(self.bytes.limit() / size.max(1))
    }

    /// Waits until this many messages of `size` bytes each fit, and takes their shares: of messages, and of bytes.
    pub(crate) async fn take(&self, messages: usize, size: usize) -> (Share, Share) {
        (self.messages.take(messages).await, self.bytes.take(messages * size).await)
    }
}

/// A limit on the amount in use. Callers get their shares in the order in which they ask.
#[derive(Default)]
pub(crate) struct Budget {
    limit: usize,
    used: AtomicUsize,
    /// Locked by the caller whose turn it is among those that ask for a new share.
    turn: Mutex<()>,
    /// Locked by the caller that waits for the amount. A share that grows waits only for this lock, so it overtakes new ones.
    next: Mutex<()>,
    freed: Notify,
}

/// A part of a budget. It is given back when it is dropped.
#[derive(Default)]
pub(crate) struct Share {
    budget: Arc<Budget>,
    amount: usize,
}

impl Budget {
    /// Makes a budget with nothing in use.
    pub(crate) fn new(limit: usize) -> Arc<Self> {
        Arc::new(Self { limit, ..Self::default() })
    }

    /// Returns the amount that may be in use.
    pub(crate) fn limit(&self) -> usize {
        self.limit
    }

    /// Waits until `amount` is free, and takes it. An amount above the limit is taken once nothing else is in use.
    pub(crate) async fn take(self: &Arc<Self>, amount: usize) -> Share {
        let _turn = self.turn.lock().await;
        self.wait(amount).await
    }

    async fn wait(self: &Arc<Self>, amount: usize) -> Share {
        let _next = self.next.lock().await;
        while !self.fits(amount) {
            self.freed.notified().await;
        }
        self.used.fetch_add(amount, Relaxed);
        Share { budget: Arc::clone(self), amount }
    }

    fn fits(&self, amount: usize) -> bool {
        let used = self.used.load(Relaxed);
        used == 0 || used.saturating_add(amount) <= self.limit
    }
}

impl Share {
    /// Waits until the share is at least `amount`, and overtakes callers that ask for new shares. Gives back what it has
    /// meanwhile, because callers that keep their shares while they wait for more would wait for each other.
    pub(crate) async fn grow(self, amount: usize) -> Self {
        if amount <= self.amount {
            return self;
        }
        let budget = Arc::clone(&self.budget);
        drop(self);
        budget.wait(amount).await
    }

    /// Takes a part out of the share. If the share is too small, the rest comes from the budget without waiting. The
    /// message is already in memory, so waiting would not help.
    pub(crate) fn split(&mut self, amount: usize) -> Self {
        let missing = amount.saturating_sub(self.amount);
        self.budget.used.fetch_add(missing, Relaxed);
        self.amount -= amount - missing;
        Self { budget: Arc::clone(&self.budget), amount }
    }
}

impl Drop for Share {
    fn drop(&mut self) {
        self.budget.used.fetch_sub(self.amount, Relaxed);
        self.budget.freed.notify_one();
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use tokio::time::timeout;

    use super::*;

    const MINUTE: Duration = Duration::from_mins(1);

    #[tokio::test(start_paused = true)]
    async fn no_more_is_taken_than_the_limit() {
        let budget = Budget::new(10);
        let first = budget.take(6).await;
        let second = budget.take(4).await;
        assert!(timeout(MINUTE, budget.take(1)).await.is_err());
        drop(second);
        let third = budget.take(3).await;
        assert!(timeout(MINUTE, budget.take(2)).await.is_err());
        drop((first, third));
        timeout(MINUTE, budget.take(10)).await.unwrap();
    }

    #[tokio::test(start_paused = true)]
    async fn more_than_the_limit_is_taken_alone() {
        let budget = Budget::new(10);
        let small = budget.take(1).await;
        assert!(timeout(MINUTE, budget.take(11)).await.is_err());
        drop(small);
        let large = timeout(MINUTE, budget.take(11)).await.unwrap();
        assert!(timeout(MINUTE, budget.take(1)).await.is_err());
        drop(large);
        timeout(MINUTE, budget.take(1)).await.unwrap();
    }

    #[tokio::test(start_paused = true)]
    async fn a_large_share_is_not_overtaken_by_small_ones() {
        let budget = Budget::new(10);
        let first = budget.take(6).await;
        let large = tokio::spawn({
            let budget = Arc::clone(&budget);
            async move { budget.take(5).await }
        });
        tokio::task::yield_now().await;
        assert!(timeout(MINUTE, budget.take(1)).await.is_err(), "the other one was first");
        drop(first);
        let large = timeout(MINUTE, large).await.unwrap().unwrap();
        timeout(MINUTE, budget.take(5)).await.unwrap();
        drop(large);
    }

    #[tokio::test(start_paused = true)]
    async fn shares_that_grow_do_not_wait_for_each_other_and_come_before_new_ones() {
        let budget = Budget::new(10);
        let stored = budget.take(4).await;
        let shares = [budget.take(3).await, budget.take(3).await];
        let later = |amount: usize| {
            let budget = Arc::clone(&budget);
            async move { budget.take(amount).await }
        };
        let new = tokio::spawn(later(1));
        let new_too = tokio::spawn(later(1));
        tokio::task::yield_now().await;
        let growing = shares.map(|share| tokio::spawn(share.grow(8)));
        assert!(timeout(MINUTE, std::future::pending::<()>()).await.is_err());
        // The first new caller was next already.
        assert!(new.is_finished() && !new_too.is_finished());
        assert!(growing.iter().all(|share| !share.is_finished()));
        drop((stored, new.await));
        for share in growing {
            assert!(!new_too.is_finished());
            drop(timeout(MINUTE, share).await.unwrap().unwrap());
        }
        timeout(MINUTE, new_too).await.unwrap().unwrap();
    }

    #[tokio::test(start_paused = true)]
    async fn a_share_that_grows_is_counted_and_delays_the_next() {
        let budget = Budget::new(10);
        let mut share = budget.take(4).await;
        let parts = [share.split(3), share.split(6)];
        drop(share);
        assert!(timeout(MINUTE, budget.take(2)).await.is_err(), "9 are in use");
        let one = budget.take(1).await;
        drop(parts);
        timeout(MINUTE, budget.take(9)).await.unwrap();
        drop(one);
    }
}
