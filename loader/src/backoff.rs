//! Pauses between retries.

use std::time::Duration;

/// Doubles `base` with each failed `attempt` (0 is the first) up to `cap`, then takes between half and all of it at
/// random. So pollers and loaders that failed together don't retry together.
pub(crate) fn delay(attempt: u32, base: Duration, cap: Duration) -> Duration {
    let ceiling = base.saturating_mul(1 << attempt.min(16)).min(cap);
    ceiling.mul_f64(0.5 + fastrand::f64() / 2.0)
}

/// Maximum number of failures in a row.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum RetryLimit {
    /// No limit, for a service: it retries until it works again.
    Endless,
    /// A limit, for a command that somebody waits for.
    UpTo(u32),
}

impl RetryLimit {
    /// Whether this many failures in a row reach the limit.
    pub(crate) fn is_over(self, failures: u32) -> bool {
        match self {
            Self::Endless => false,
            Self::UpTo(most) => failures >= most,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn delays_grow_to_the_cap_and_never_past_it() {
        let (base, cap) = (Duration::from_millis(100), Duration::from_secs(1));
        for attempt in 0..40 {
            let ceiling = base.saturating_mul(1 << attempt.min(16)).min(cap);
            let wait = delay(attempt, base, cap);
            assert!(wait >= ceiling / 2 && wait <= ceiling, "attempt {attempt}: {wait:?}");
        }
    }
}
