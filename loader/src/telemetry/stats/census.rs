//! Numbers at one moment: messages in flight, and messages in the queues.

use std::ops::Add;
use std::time::Duration;

/// Messages in flight, by what they wait for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Census {
    /// Received, but no COMMIT is answered yet.
    pub(crate) to_store: usize,
    /// Committed, but no delete is confirmed yet.
    pub(crate) to_delete: usize,
    /// Time since the oldest of them was received.
    pub(crate) oldest: Duration,
}

/// Number of messages in a queue. SQS calls all three numbers approximate.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Depth {
    /// Messages that can be received.
    pub(crate) visible: u64,
    /// Messages that someone has received and not yet deleted.
    pub(crate) hidden: u64,
    /// Messages that were sent with a delay that has not passed.
    pub(crate) delayed: u64,
}

impl Depth {
    /// Returns the sum.
    pub(crate) fn total(self) -> u64 {
        self.visible + self.hidden + self.delayed
    }
}

impl Add for Depth {
    type Output = Self;

    fn add(self, other: Self) -> Self {
        Self {
            visible: self.visible + other.visible,
            hidden: self.hidden + other.hidden,
            delayed: self.delayed + other.delayed,
        }
    }
}
