//! Every message is stored exactly once, whatever fails.
//!
//! Loaders move messages from two queues into one table. One queue is on a stub, which makes faults that a real SQS server
//! can't be asked for; the other is on a real server. The loaders reach all servers through proxies. Meanwhile the test
//! kills loaders and `PostgreSQL`, cuts connections and fills the disk, in an order that a seed fixes. The exact time of
//! each hit depends on the machine, so a seed repeats the plan but not the run.
//!
//! `make test` includes the short form; `make chaos` runs the long one. `CHAOS_SEED` repeats the plan of a seed.
//!
//! | file | contents |
//! |---|---|
//! | `form`, `plan` | the size of a run; its faults and their order |
//! | `storm` | a run |
//! | `proxy` | faults of the network |
//! | `database`, `disk` | faults of `PostgreSQL` |
//! | `loaders` | the loaders and their logs |
//! | `load` | messages and queues |
//! | `check`, `report` | conditions that must hold at the end; the faults that were made |
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

/// Prints to the person who watches. A test that succeeds shows this only with `--nocapture`.
#[expect(clippy::print_stdout, reason = "what a test prints is shown when it fails")]
fn say(text: &str) {
    println!("{text}");
}
