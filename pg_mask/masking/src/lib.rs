//! Turns an event into a masked row, or into a reject.
//!
//! Pure logic: no Postgres, no unsafe code, no I/O, so that it can be unit-tested, property-tested, fuzzed and run
//! under Miri without a server. The extension only moves values between Postgres and this crate.
//!
//! No type that holds a value of an event derives `Debug`, and no error quotes a value. Either would leak PII.

mod column;
mod envelope;
mod event;
pub mod keyring;
mod library_texts;
mod mac;
pub mod masker;
pub mod memory;
mod pointer;
mod reject;
mod rows;
mod rule;
mod rules;
pub mod scheme;
#[cfg(test)]
mod schemes_tests;
pub mod token;
#[cfg(test)]
mod within_tests;

pub use column::{Column, date};
pub use envelope::Envelope;
pub use event::Event;
pub use masker::MaskContext;
pub use pointer::{NotAPointer, Pointer};
pub use reject::{PushError, Reject};
pub use rows::{Fields, Kind, Row, Rows};
pub use rule::{MaskRule, Rule};
pub use rules::Rules;
