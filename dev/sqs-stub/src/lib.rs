//! `sqs-stub` is an SQS server in memory, for benchmarks and tests of faults.
//!
//! For benchmarks: it takes so little time for a call that the client is what is measured, and it can add a
//! delay to each one, as the way to AWS does. For tests: it makes faults that a real queue makes rarely, as
//! often as is asked for and in an order that a seed fixes, and it counts and logs what became of messages.
//!
//! ```no_run
//! # fn main() -> std::io::Result<()> {
//! use sqs_stub::{Faults, Options, Server};
//!
//! let server = Server::start(Options::default())?;
//! server.fill("events", 1000, |n| format!("{{\"n\":{n}}}"));
//! server.set_faults(Faults { lost_answer: 0.1, ..Faults::default() });
//! // A client of `server.url()` is at work here.
//! assert_eq!(server.depth("events").map(|depth| depth.total()), Some(0));
//! # Ok(())
//! # }
//! ```
//!
//! From outside, paths below `/_stub/` do the same:
//!
//! | call | body |
//! |---|---|
//! | `GET /_stub/counters` | none; answers with [`Counters`] |
//! | `POST /_stub/delay` | `{"ms":20}` |
//! | `POST /_stub/faults` | [`Faults`]; what is not named stops |
//! | `POST /_stub/fill` | `{"queue":"q","count":100000}` with `"size":220` or `"template":"{n}"`, and `"groups":8` |
//! | `POST /_stub/reset` | `{"queue":"q"}`; empties it |
//!
//! # Where it differs from SQS
//!
//! - Only the JSON protocol, and the actions that [`Counters::calls`] lists. No list of queues, no tags, no
//!   message attributes (they are dropped), no permissions. Signatures are not looked at.
//! - No limits of size, rate, messages in flight or retention. Attributes other than `VisibilityTimeout`,
//!   `DelaySeconds`, `ReceiveMessageWaitTimeSeconds`, `FifoQueue`, `ContentBasedDeduplication` and
//!   `RedrivePolicy` are kept and told, and mean nothing.
//! - A standard queue hands messages out in the order sent, and those first that came back. It doubles none
//!   unless [`Faults::duplicate`] says so, and always gives as many as it has.
//! - A receipt ends with the visibility of its delivery, unless [`Faults::late_receipts`] says otherwise. To
//!   delete once more what is deleted succeeds.
//! - Deduplication ids and receive attempt ids are remembered for as long as the server runs, SQS's 5 minutes or not.
//! - Attributes of messages are `SentTimestamp`, `ApproximateReceiveCount`, `MessageGroupId` and
//!   `SequenceNumber`.
//!
//! | file | holds |
//! |---|---|
//! | `server` | what a test holds: start, steer, stop |
//! | `http`, `control` | connections and faults of whole calls; the paths below `/_stub/` |
//! | `protocol`, `refusal` | the JSON of requests, answers and errors |
//! | `calls` | one function an action |
//! | `broker` | the queues, and what they share |
//! | `state`, `ready`, `message`, `depth`, `settings` | one queue: messages, order, receipts, attributes |
//! | `faults` | what goes wrong, and the dice |
//! | `counters`, `recorder` | what was done |

mod broker;
mod calls;
mod control;
mod counters;
mod depth;
mod faults;
mod http;
mod message;
mod protocol;
mod ready;
mod recorder;
mod refusal;
mod server;
mod settings;
mod state;

pub use counters::Counters;
pub use depth::Depth;
pub use faults::{Faults, KeyError};
pub use recorder::{Event, Record};
pub use server::{Options, Server};

/// The account that all queues belong to.
const ACCOUNT: &str = "000000000000";
