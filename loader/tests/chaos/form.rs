//! Sizes of a run: the short form for `make test` and the long form for `make chaos`.

use std::time::Duration;

/// Size of a run. Each pair of times is a minimum and a maximum; the seed chooses a time in between.
#[derive(Clone)]
pub(crate) struct Form {
    pub(crate) name: &'static str,
    /// Messages through the stub.
    pub(crate) of_stub: usize,
    /// Messages through the real SQS server.
    pub(crate) of_sqs: usize,
    pub(crate) loader_kills: usize,
    pub(crate) postgres_kills: usize,
    pub(crate) backend_kills: usize,
    pub(crate) restarts: usize,
    pub(crate) disk_fills: usize,
    pub(crate) credential_losses: usize,
    /// Whether there's a synchronous standby, which takes over at the end.
    pub(crate) has_standby: bool,
    /// Number of network faults of each kind on each side.
    pub(crate) cuts: usize,
    /// Pause between two faults.
    pub(crate) pause: (Duration, Duration),
    pub(crate) slow: (Duration, Duration),
    pub(crate) stall: (Duration, Duration),
    /// Size of the file system that holds the table.
    pub(crate) disk_mib: usize,
    /// Whether this is the long form, which prints each step.
    pub(crate) is_long: bool,
}

impl Form {
    /// Returns the form that the variable `CHAOS` names, by default the short one.
    pub(crate) fn asked_for() -> Self {
        match std::env::var("CHAOS").as_deref() {
            Ok("long") => Self::long(),
            Ok("short") | Err(_) => Self::short(),
            Ok(other) => panic!("CHAOS is {other:?}, and can be short or long"),
        }
    }

    /// Returns the short form: some of everything, in less than a minute.
    pub(crate) fn short() -> Self {
        Self {
            name: "short",
            of_stub: 5_000,
            of_sqs: 1_000,
            loader_kills: 3,
            postgres_kills: 1,
            backend_kills: 1,
            restarts: 1,
            disk_fills: 1,
            credential_losses: 1,
            has_standby: false,
            cuts: 1,
            pause: (ms(50), ms(500)),
            slow: (ms(500), ms(1_000)),
            // Longer than a batch may take.
            stall: (ms(2_200), ms(3_000)),
            disk_mib: 64,
            is_long: false,
        }
    }

    /// Returns the long form: many faults of each kind.
    pub(crate) fn long() -> Self {
        Self {
            name: "long",
            of_stub: 170_000,
            of_sqs: 40_000,
            loader_kills: 20,
            postgres_kills: 6,
            backend_kills: 4,
            restarts: 5,
            disk_fills: 2,
            credential_losses: 3,
            has_standby: true,
            cuts: 4,
            pause: (ms(200), ms(2_000)),
            slow: (ms(1_000), ms(4_000)),
            // Some stalls are longer than the visibility timeout.
            stall: (ms(2_500), ms(14_000)),
            disk_mib: 256,
            is_long: true,
        }
    }
}

const fn ms(ms: u64) -> Duration {
    Duration::from_millis(ms)
}
