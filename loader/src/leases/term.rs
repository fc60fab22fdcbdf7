//! The lease on one delivery of a message: how long it is ours, and when it may be deleted.
//!
//! SQS hides a message that it hands out for the visibility timeout. That is our lease. Two rules make up the promise
//! that nothing is lost:
//!
//! 1. A message is deleted only after COMMIT of the transaction that stored it was answered.
//! 2. A lease that may have expired is never used again, even if an extension is confirmed after all: someone else may
//!    have the message by then. There is one exception, on standard queues: if the message is committed, its delete is
//!    retried once. Another loader that has the message finds it a duplicate.
//!
//! `Term` holds only these rules, over any clock, so that `model` can run it through every order of events.

#[cfg(test)]
mod model;

/// State of the lease on one delivery. `T` is a point in time.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Term<T> {
    /// SQS hides the message at least until this time.
    until: T,
    /// Whether COMMIT of the transaction that stored or rejected it was answered.
    committed: bool,
}

impl<T: Ord + Copy> Term<T> {
    /// Begins the lease of a received message. `until` counts from before the call was sent, because SQS's time runs
    /// from when it hands the message out.
    pub(crate) fn begin(until: T) -> Self {
        Self { until, committed: false }
    }

    /// Whether the message may be someone else's by now. A lease that has expired must be removed.
    pub(crate) fn has_expired(&self, now: T) -> bool {
        now >= self.until
    }

    /// Extends the lease: SQS confirmed, at `now`, that it hides the message until `until`. The confirmation comes too
    /// late for a lease that has expired meanwhile.
    pub(crate) fn extend(&mut self, now: T, until: T) {
        if !self.has_expired(now) {
            self.until = self.until.max(until);
        }
    }

    /// Records that COMMIT was answered.
    pub(crate) fn commit(&mut self) {
        self.committed = true;
    }

    /// Whether COMMIT was answered.
    pub(crate) fn is_committed(&self) -> bool {
        self.committed
    }

    /// Whether a delete may be sent. A call that isn't answered before `until` must be canceled then.
    pub(crate) fn may_delete(&self, now: T) -> bool {
        self.committed && !self.has_expired(now)
    }

    /// Returns when the lease ends unless it is extended.
    pub(crate) fn until(&self) -> T {
        self.until
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_is_deleted_before_commit() {
        let mut term = Term::begin(10);
        assert!(!term.may_delete(0));
        term.commit();
        assert!(term.may_delete(9));
    }

    #[test]
    fn an_expired_lease_is_never_used_again() {
        let mut term = Term::begin(10);
        term.commit();
        term.extend(10, 100);
        assert!(!term.may_delete(10) && !term.may_delete(50));
    }

    #[test]
    fn an_extension_never_shortens() {
        let mut term = Term::begin(10);
        term.extend(5, 8);
        assert_eq!(term.until(), 10);
        term.extend(5, 15);
        assert_eq!(term.until(), 15);
    }
}
