//! The order in which messages are delivered.

use std::collections::{BTreeSet, HashMap, VecDeque};
use std::sync::Arc;

/// The numbers of messages that can be received.
pub(crate) enum Ready {
    /// Numbers in the order sent, returned messages first. A number's message may no longer be receivable; its taker must
    /// check that.
    Standard(VecDeque<u64>),
    /// Numbers by message group.
    Fifo(Groups),
}

/// The message groups of a FIFO queue.
#[derive(Default)]
pub(crate) struct Groups {
    by_name: HashMap<Arc<str>, Group>,
    /// Groups with messages to deliver, the longest waiting first. The taker skips others.
    open: VecDeque<Arc<str>>,
}

#[derive(Default)]
struct Group {
    waiting: BTreeSet<u64>,
    in_flight: usize,
}

impl Ready {
    /// Creates an empty order.
    pub(crate) fn new(fifo: bool) -> Self {
        if fifo { Self::Fifo(Groups::default()) } else { Self::Standard(VecDeque::new()) }
    }

    /// Adds a message that was sent.
    pub(crate) fn append(&mut self, number: u64, group: Option<&Arc<str>>) {
        match self {
            Self::Standard(numbers) => numbers.push_back(number),
            Self::Fifo(groups) => groups.append(number, group),
        }
    }

    /// Adds a message that was delivered and can be delivered again.
    pub(crate) fn give_back(&mut self, number: u64, group: Option<&Arc<str>>) {
        match self {
            Self::Standard(numbers) => numbers.push_front(number),
            Self::Fifo(groups) => {
                groups.settle(group);
                groups.append(number, group);
            }
        }
    }

    /// Removes a message that was delivered and is gone permanently.
    pub(crate) fn settle(&mut self, group: Option<&Arc<str>>) {
        if let Self::Fifo(groups) = self {
            groups.settle(group);
        }
    }

    /// Removes a message that was waiting and is gone permanently.
    pub(crate) fn forget(&mut self, number: u64, group: Option<&Arc<str>>) {
        if let (Self::Fifo(groups), Some(group)) = (self, group)
            && let Some(group) = groups.by_name.get_mut(group)
        {
            group.waiting.remove(&number);
        }
    }

    /// Takes up to `max` messages. A FIFO queue gives messages of one group. An empty result means that there are no more.
    pub(crate) fn take(&mut self, max: usize) -> Vec<u64> {
        match self {
            Self::Standard(numbers) => numbers.drain(..max.min(numbers.len())).collect(),
            Self::Fifo(groups) => groups.take(max),
        }
    }
}

impl Groups {
    fn append(&mut self, number: u64, name: Option<&Arc<str>>) {
        let Some(name) = name else { return };
        let group = self.by_name.entry(Arc::clone(name)).or_default();
        group.waiting.insert(number);
        if group.in_flight == 0 && group.waiting.len() == 1 {
            self.open.push_back(Arc::clone(name));
        }
    }

    fn settle(&mut self, name: Option<&Arc<str>>) {
        let Some((name, group)) = name.and_then(|n| self.by_name.get_mut(n).map(|g| (n, g))) else { return };
        group.in_flight = group.in_flight.saturating_sub(1);
        if group.in_flight > 0 {
            return;
        }
        if group.waiting.is_empty() {
            self.by_name.remove(name);
        } else {
            self.open.push_back(Arc::clone(name));
        }
    }

    fn take(&mut self, max: usize) -> Vec<u64> {
        while let Some(name) = self.open.pop_front() {
            let Some(group) = self.by_name.get_mut(&name) else { continue };
            if group.in_flight > 0 || group.waiting.is_empty() {
                continue;
            }
            let taken: Vec<u64> = std::iter::from_fn(|| group.waiting.pop_first()).take(max).collect();
            group.in_flight = taken.len();
            return taken;
        }
        Vec::new()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_group_in_flight_is_locked_and_keeps_its_order() {
        let (a, b): (Arc<str>, Arc<str>) = ("a".into(), "b".into());
        let mut ready = Ready::new(true);
        for (number, group) in [(1, &a), (2, &b), (3, &a), (4, &a)] {
            ready.append(number, Some(group));
        }
        assert_eq!(ready.take(2), [1, 3]);
        assert_eq!(ready.take(2), [2]);
        assert_eq!(ready.take(2), [0; 0]);
        ready.settle(Some(&a));
        assert_eq!(ready.take(2), [0; 0]);
        ready.give_back(1, Some(&a));
        assert_eq!(ready.take(10), [1, 4]);
    }
}
