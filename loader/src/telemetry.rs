//! Telemetry: counters, metrics and the status page, readiness, the service manager, logs and traces.

pub(crate) mod log;
pub(crate) mod metrics;
pub(crate) mod readiness;
pub(crate) mod stats;
pub(crate) mod systemd;
pub(crate) mod trace;
