//! Tests of the loader's promises, against a real `PostgreSQL` with `pg_mask` and a real SQS server.
//!
//! `make test` starts both servers and describes them in environment variables. Each test creates a database, a queue and a
//! login role for itself and removes them at the end, so tests run side by side. The loader always logs in as that role,
//! which may insert into `login_inbox` and do nothing else. Where the real SQS server can't do something, mostly make
//! faults, a test uses a proxy in front of it or the stub in `dev/sqs-stub`.
//!
//! | file | promises |
//! |---|---|
//! | `accounting` | every event becomes a row or a reject, and none is lost |
//! | `commit` | an uncommitted message is never deleted, whatever happens in between |
//! | `counting` | a commit needs the inbox's account of every event |
//! | `deletes` | deletes that fail |
//! | `durability` | a commit that may be undone deletes nothing |
//! | `duplicates` | a message that comes again is stored once: redelivered, twice in a batch, at two loaders |
//! | `leases` | a message in flight stays hidden from others until its delete is confirmed |
//! | `poison` | a message that the database refuses, or that crashes or hangs it, blocks no other |
//! | `trial` | no message is blamed for a fault of the setup |
//! | `queues` | several queues, FIFO queues, throttling, pollers |
//! | `receiving` | slow and large answers to receive calls, answers that stop, and retries |
//! | `credentials` | the sources of AWS credentials, and their renewal |
//! | `starting` | a database or a queue that is up later than the loader |
//! | `reconnecting` | a database that disappears, hangs or takes no writes |
//! | `pooler` | the loader works behind `PgBouncer` |
//! | `tls` | connections to `PostgreSQL` via TLS, and the sources of passwords |
//! | `stopping` | SIGTERM and SIGINT |
//! | `service` | messages to the service manager |
//! | `terminal` | the display of a drain at a terminal |
//! | `errors` | error messages of a loader that can't work |
//! | `check` | the report of `loader check` |
//! | `redrive` | rejects go back into the inbox, and no event passes through the loader |
//! | `logs` | no event in the loader's own output |
//! | `metrics` | metrics show what happened, and probes whether the loader can work |
//! | `status_page` | the status page in a browser |
//! | `tracing` | traces from a message's producer to the database |
//! | `dashboard` | the dashboard and the alert rules use the metrics that exist |
//! | `audit` | the server's log says who unmasked how many values, and why |
//! | `audit_ends` | the audit line is written however a statement ends |
//! | `plaintext` | no raw value and no key on the database's disk |
//! | `core_dump` | no key in a core dump |
//! | `own_memory` | the loader's memory is in no core dump and closed to all processes but root's |
//! | `replaced` | the loader keeps the inbox that it started with |
//! | `search_path` | the loader runs nothing that is found on a search path |
//! | `remask` | a table changes its scheme while it's in use |
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
