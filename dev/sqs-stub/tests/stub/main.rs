//! The stub as the SDK of AWS sees it.

#![expect(clippy::unwrap_used, reason = "a test may panic")]

mod client;
mod control;
mod faults;
mod fifo;
mod standard;
