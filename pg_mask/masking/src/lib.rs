//! How an event becomes a masked row, or a reject.
//!
//! Pure logic: no Postgres, no unsafe code, no I/O, so that it can be unit-tested, property-tested, fuzzed and run
//! under Miri without a server. The extension only moves values between Postgres and this crate.
//!
//! Nothing here that holds a value of an event has a derived `Debug`, and no error quotes one: both would be ways
//! out for PII.

mod envelope;
mod event;
pub mod keyring;
mod mac;
pub mod memory;
mod pointer;
mod rows;
mod rules;
pub mod scheme;
#[cfg(test)]
mod within_tests;

pub use envelope::Envelope;
pub use event::{PushError, Reject};
pub use pointer::{NotAPointer, Pointer};
pub use rows::{Fields, Kind, Row, Rows};
pub use rules::{Column, Masked, Masks, Message, Rule, Rules, date};
