//! Every message is stored exactly once, whatever fails.
//!
//! Loaders move messages from two queues into one table: those of a stub, which makes the faults that a real SQS server
//! cannot be asked for, and those of a real server. They reach all servers through proxies. Meanwhile loaders and
//! `PostgreSQL` are killed, connections are cut off and the disk fills up, in an order that a seed fixes. When exactly
//! something hits is left to the machine: so the same seed is the same plan, and not the same run.
//!
//! A short form is part of `make test`; `make chaos` runs the long one. `CHAOS_SEED` is the seed to use again.
//!
//! | file | holds |
//! |---|---|
//! | `form`, `plan` | how much of everything; what goes wrong, in which order |
//! | `storm` | a run |
//! | `proxy` | faults of the network |
//! | `database`, `disk` | faults of `PostgreSQL` |
//! | `loaders` | the loaders, and what they log |
//! | `load` | messages and queues |
//! | `check`, `report` | what must hold in the end; what was done |
//! | `soak` | a long run with few faults: `make soak` |

#![expect(clippy::unwrap_used, reason = "a test may panic")]

mod check;
#[path = "../integration/common/mod.rs"]
#[expect(dead_code, unused_imports, reason = "most of it is for the integration tests")]
mod common;
mod database;
mod disk;
mod form;
mod load;
mod loaders;
mod plan;
mod proxy;
mod report;
mod soak;
mod storm;

use std::panic::{AssertUnwindSafe, resume_unwind};

use futures_util::FutureExt;

use crate::form::Form;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_message_is_stored_once_whatever_fails() {
    let form = Form::asked_for();
    let seed = match std::env::var("CHAOS_SEED") {
        Ok(seed) => seed.parse().unwrap(),
        Err(_) => fastrand::u64(..1_000_000),
    };
    say(&format!("chaos, {} form, seed {seed}", form.name));
    let again = format!("CHAOS_SEED={seed} dev/chaos {}", form.name);
    let logs = storm::folder_for_logs("chaos");
    let outcome = AssertUnwindSafe(storm::run(form, seed, logs.clone())).catch_unwind().await;
    if let Err(panic) = outcome {
        say(&format!("chaos: FAILED with seed {seed}; the logs are in {}; again: {again}", logs.display()));
        resume_unwind(panic)
    }
}

/// Tells whoever watches. Of a test that succeeds nobody sees it, unless it is run with --nocapture.
#[expect(clippy::print_stdout, reason = "what a test prints is shown when it fails")]
fn say(text: &str) {
    println!("{text}");
}
