//! Leases: how long a received message is ours, and which messages are in flight.

pub(crate) mod capacity;
pub(crate) mod ledger;
mod term;
