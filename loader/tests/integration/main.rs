//! The promises of the loader, kept between a real `PostgreSQL` with `pg_mask` and a real SQS server.
//!
//! `make test` starts both and describes them in environment variables. Each test makes a database, a queue and a login
//! role of its own and removes them at the end, so tests run side by side. The loader always logs in as that role, which
//! may insert into `login_inbox` and nothing else. Only what the real SQS server cannot do, faults most of all, comes from
//! a proxy in front of it or from the stub in `dev/sqs-stub`.
//!
//! | file | the promises |
//! |---|---|
//! | `accounting` | every event becomes a row or a reject, with nothing lost on the way |
//! | `commit` | what is not committed is not deleted, whatever happens in between |
//! | `counting` | a commit needs the inbox's account of every event |
//! | `deletes` | deletes that fail |
//! | `durability` | a commit that may be undone deletes nothing |
//! | `duplicates` | the same message again: redelivered, twice at once, in the hands of two loaders |
//! | `leases` | what is in hand stays ours until its delete is confirmed |
//! | `poison` | a message that the database refuses, or goes down over, blocks no other |
//! | `trial` | a fault of the set-up makes no message a culprit |
//! | `queues` | several queues, FIFO queues, throttling, pollers |
//! | `receiving` | slow and large answers to receive calls, answers that stop, and what is tried again |
//! | `credentials` | where AWS credentials come from, and that they are loaded again |
//! | `reconnecting` | a database that goes away, hangs or takes no writes |
//! | `pooler` | the loader works behind `PgBouncer` |
//! | `tls` | connections to `PostgreSQL` by TLS, and where passwords come from |
//! | `stopping` | SIGTERM and SIGINT |
//! | `service` | what the service manager is told |
//! | `terminal` | what a drain shows at a terminal |
//! | `errors` | what the loader says when it cannot work |
//! | `check` | what it says before it works |
//! | `redrive` | rejects go back into the inbox, and no event passes through the loader |
//! | `logs` | no event in the loader's own output |
//! | `metrics` | what is shown is what happened, and whether the loader can work |
//! | `dashboard` | dashboard and alert rules speak of what is shown |
//! | `audit` | who unmasked how much and why, in the server's log |
//! | `audit_ends` | and that, however a statement ends |
//! | `plaintext` | no raw value and no key on the database's disk |
//! | `core_dump` | no key in a core dump |
//! | `own_memory` | the loader's own memory is in no core dump and open to no other process |
//! | `replaced` | the inbox stays the one that the loader started with |
//! | `search_path` | nothing that the loader runs is found on a search path |
//! | `memory` | the backend holds one chunk of a batch |

#![expect(clippy::unwrap_used, reason = "a test may panic")]

mod accounting;
mod audit;
mod audit_ends;
mod check;
mod commit;
mod common;
mod core_dump;
mod counting;
mod credentials;
mod dashboard;
mod deletes;
mod duplicates;
mod durability;
mod errors;
mod leases;
mod logs;
mod memory;
mod metrics;
mod own_memory;
mod plaintext;
mod poison;
mod pooler;
mod queues;
mod receiving;
mod reconnecting;
mod redrive;
mod remask;
mod replaced;
mod search_path;
mod service;
mod starting;
mod status_page;
mod stopping;
mod terminal;
mod tls;
mod tracing;
mod trial;
