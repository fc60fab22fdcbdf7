//! `sqs-stub` is an SQS server in memory, for benchmarks and fault tests.
//!
//! For benchmarks, it takes so little time for a call that the client is what is measured. It can add a delay to each call,
//! as the network path to AWS does. For tests, it makes faults that are rare in a real queue, as often as requested and in
//! an order that a seed fixes. It also counts and logs what happened to messages.
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
//! Other processes use paths below `/_stub/` for this:
//!
//! | call | body |
//! |---|---|
//! | `GET /_stub/counters` | none; answers with [`Counters`] |
//! | `POST /_stub/delay` | `{"ms":20}` |
//! | `POST /_stub/faults` | [`Faults`]; faults that are not named stop |
//! | `POST /_stub/fill` | `{"queue":"q","count":100000}` with `"size":220` or `"template":"{n}"`, and `"groups":8` |
//! | `POST /_stub/reset` | `{"queue":"q"}`; empties it |
//!
//! # Differences from SQS
//!
//! - Supports only the JSON protocol, and the actions that [`Counters::calls`] lists. It has no list of queues, no tags, no
//!   message attributes (they are dropped) and no permissions. It does not check signatures.
//! - Has no limits on size, rate, messages in flight or retention. It stores and returns all attributes, but only
//!   `VisibilityTimeout`, `DelaySeconds`, `ReceiveMessageWaitTimeSeconds`, `FifoQueue`, `ContentBasedDeduplication` and
//!   `RedrivePolicy` have an effect.
//! - A standard queue delivers messages in the order sent, and returned messages first. It duplicates a message only if
//!   [`Faults::duplicate`] says so, and always delivers as many messages as it has.
//! - A receipt expires with its delivery's visibility timeout, unless [`Faults::late_receipts`] is set. Deleting a deleted
//!   message again succeeds.
//! - Deduplication ids and receive attempt ids are remembered while the server runs, instead of for SQS's 5 minutes.
//! - A message's attributes are `SentTimestamp`, `ApproximateReceiveCount`, `MessageGroupId` and `SequenceNumber`.
//!
//! | file | holds |
//! |---|---|
//! | `server` | the server as a test holds it: start, control, stop |
//! | `http`, `control` | connections and faults of whole calls; the paths below `/_stub/` |
//! | `protocol`, `refusal` | the JSON of requests, answers and errors |
//! | `calls` | one function for each action |
//! | `broker` | the queues and their shared state |
//! | `state`, `ready`, `message`, `depth`, `settings` | one queue: messages, order, receipts, attributes |
//! | `faults` | the configured faults, and random numbers |
//! | `counters`, `recorder` | counters and a log of events |

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
