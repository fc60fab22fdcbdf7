//! How much is in a queue.

use crate::message::Place;

/// How many messages are in a queue.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Depth {
    /// Can be received.
    pub visible: u64,
    /// Received and not yet deleted.
    pub hidden: u64,
    /// Sent with a delay that has not passed.
    pub delayed: u64,
}

impl Depth {
    /// All of them.
    #[must_use]
    pub fn total(self) -> u64 {
        self.visible + self.hidden + self.delayed
    }

    /// The number that a message in this place counts in.
    pub(crate) fn of(&mut self, place: Place) -> &mut u64 {
        match place {
            Place::Ready => &mut self.visible,
            Place::Hidden(_) => &mut self.hidden,
            Place::Delayed(_) => &mut self.delayed,
        }
    }
}
