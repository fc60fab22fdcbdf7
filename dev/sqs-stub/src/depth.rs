//! The depth of a queue.

use crate::message::Place;

/// Number of messages in a queue, by state.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Depth {
    /// Messages that can be received.
    pub visible: u64,
    /// Messages that were received and not deleted yet.
    pub hidden: u64,
    /// Messages that were sent with a delay that has not passed yet.
    pub delayed: u64,
}

impl Depth {
    /// Returns the number of all messages.
    #[must_use]
    pub fn total(self) -> u64 {
        self.visible + self.hidden + self.delayed
    }

    /// Returns the counter for messages in this place.
    pub(crate) fn of(&mut self, place: Place) -> &mut u64 {
        match place {
            Place::Ready => &mut self.visible,
            Place::Hidden(_) => &mut self.hidden,
            Place::Delayed(_) => &mut self.delayed,
        }
    }
}
