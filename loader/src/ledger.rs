//! What is in hand: every message received whose delete SQS has not yet confirmed.
//!
//! Receipts live here and nowhere else. The tasks of the pipeline pass messages on by `LeaseId`, so that
//! whichever of them fails, and wherever a message then is, the ledger still knows what must be made visible
//! again.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// Names one delivery of one message. A message that is delivered twice has two, since it has two receipts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct LeaseId(u64);

#[cfg(test)]
impl LeaseId {
    /// For tests of what does not look into a ledger.
    pub(crate) const NONE: Self = Self(0);
}

/// The right to delete or release one delivery of a message.
pub(crate) struct Lease {
    /// The key of this lease in the ledger.
    pub(crate) id: LeaseId,
    /// SQS's `MessageId`, which is fit for logs.
    pub(crate) message_id: String,
    /// SQS's `ReceiptHandle`.
    pub(crate) receipt: String,
}

/// All leases that this process holds.
#[derive(Default)]
pub(crate) struct Ledger {
    held: Mutex<Held>,
}

#[derive(Default)]
struct Held {
    last: u64,
    leases: HashMap<LeaseId, Arc<Lease>>,
}

impl Ledger {
    /// Enters a delivery.
    pub(crate) fn hold(&self, message_id: String, receipt: String) -> LeaseId {
        let mut held = self.lock();
        held.last += 1;
        let id = LeaseId(held.last);
        held.leases.insert(id, Arc::new(Lease { id, message_id, receipt }));
        id
    }

    /// The leases of `ids` that are still held.
    pub(crate) fn leases(&self, ids: &[LeaseId]) -> Vec<Arc<Lease>> {
        let held = self.lock();
        ids.iter().filter_map(|id| held.leases.get(id).cloned()).collect()
    }

    /// Strikes a delivery out: it is deleted, or nothing more can be done about it.
    pub(crate) fn settle(&self, id: LeaseId) {
        self.lock().leases.remove(&id);
    }

    /// Strikes out and returns everything that is still held.
    pub(crate) fn take_all(&self) -> Vec<Arc<Lease>> {
        self.lock().leases.drain().map(|(_, lease)| lease).collect()
    }

    /// Whether everything received has been settled.
    pub(crate) fn is_empty(&self) -> bool {
        self.lock().leases.is_empty()
    }

    /// A task that panicked while it held the lock left the map whole: each change above is one call on it.
    /// Going on is what lets its messages be released.
    fn lock(&self) -> MutexGuard<'_, Held> {
        self.held.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_not_settled_is_still_held() {
        let ledger = Ledger::default();
        let first = ledger.hold("m".into(), "receipt 1".into());
        // The same message, delivered again.
        let second = ledger.hold("m".into(), "receipt 2".into());
        ledger.settle(first);
        assert!(ledger.leases(&[first]).is_empty());
        let left = ledger.take_all();
        assert_eq!(left.iter().map(|l| l.id).collect::<Vec<_>>(), [second]);
        assert_eq!(left[0].receipt, "receipt 2");
        assert!(ledger.is_empty());
    }
}
