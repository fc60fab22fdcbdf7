//! Every metric of the loader: its name, its description, and the buckets of histograms.

use metrics::{Unit, describe_counter, describe_gauge, describe_histogram};
use metrics_exporter_prometheus::{Matcher, PrometheusBuilder, PrometheusHandle};

use crate::error::Error;

/// Names, by Prometheus's conventions. Dashboards and alert rules depend on them: `deploy/` uses exactly these.
pub(crate) mod name {
    // Counters.
    pub(crate) const RECEIVED: &str = "pg_mask_loader_messages_received_total";
    pub(crate) const REDELIVERED: &str = "pg_mask_loader_messages_redelivered_total";
    pub(crate) const RECEIVED_BYTES: &str = "pg_mask_loader_received_bytes_total";
    pub(crate) const STORED: &str = "pg_mask_loader_events_stored_total";
    pub(crate) const DUPLICATE: &str = "pg_mask_loader_events_duplicate_total";
    pub(crate) const REJECTED: &str = "pg_mask_loader_events_rejected_total";
    pub(crate) const DELETED: &str = "pg_mask_loader_messages_deleted_total";
    pub(crate) const DELETE_FAILURES: &str = "pg_mask_loader_delete_failures_total";
    pub(crate) const RECEIVE_FAILURES: &str = "pg_mask_loader_receive_failures_total";
    pub(crate) const STORE_FAILURES: &str = "pg_mask_loader_store_failures_total";
    pub(crate) const TRIAL_FAILURES: &str = "pg_mask_loader_trial_failures_total";
    pub(crate) const EXTENSIONS: &str = "pg_mask_loader_lease_extensions_total";
    pub(crate) const LEASES_EXPIRED: &str = "pg_mask_loader_leases_lapsed_total";
    pub(crate) const MESSAGES_LEFT: &str = "pg_mask_loader_messages_left_total";
    pub(crate) const RECONNECTS: &str = "pg_mask_loader_database_reconnects_total";
    pub(crate) const LOG_DROPPED: &str = "pg_mask_loader_log_lines_dropped_total";

    // Histograms.
    pub(crate) const BATCH_MESSAGES: &str = "pg_mask_loader_batch_messages";
    pub(crate) const BATCH_DURATION: &str = "pg_mask_loader_batch_duration_seconds";
    pub(crate) const MESSAGE_AGE: &str = "pg_mask_loader_message_age_seconds";

    pub(crate) const RECEIVE_DURATION: &str = "pg_mask_loader_receive_duration_seconds";
    pub(crate) const DELETE_DURATION: &str = "pg_mask_loader_delete_duration_seconds";

    // Gauges.
    pub(crate) const POLLERS: &str = "pg_mask_loader_pollers";
    pub(crate) const IN_FLIGHT: &str = "pg_mask_loader_messages_in_flight";
    pub(crate) const OLDEST_IN_FLIGHT: &str = "pg_mask_loader_oldest_in_flight_seconds";
    pub(crate) const LAST_COMMIT: &str = "pg_mask_loader_last_commit_timestamp_seconds";
    pub(crate) const CREDENTIALS_EXPIRE: &str = "pg_mask_loader_credentials_expire_timestamp_seconds";
    pub(crate) const QUEUE_MESSAGES: &str = "pg_mask_loader_queue_messages";
    pub(crate) const READY: &str = "pg_mask_loader_ready";
    pub(crate) const BUILD_INFO: &str = "pg_mask_loader_build_info";
}

/// Usually up to `--batch-size`. More if a group of a FIFO queue must not be split.
const BATCH_MESSAGES: [f64; 13] =
    [1.0, 2.0, 5.0, 10.0, 20.0, 50.0, 100.0, 200.0, 500.0, 1000.0, 2000.0, 5000.0, 10_000.0];

/// A transaction with one message takes some milliseconds. The default of `--store-timeout` is 60 s.
const BATCH_DURATION: [f64; 15] =
    [0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0];

/// A call takes 5 to 30 ms within AWS. A long poll waits for up to 20 s.
const CALL_DURATION: [f64; 13] =
    [0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0];

const MINUTE: f64 = 60.0;
const HOUR: f64 = 60.0 * MINUTE;
const DAY: f64 = 24.0 * HOUR;

/// From a message that arrived at once to one that SQS was about to drop.
const MESSAGE_AGE: [f64; 20] = [
    0.1,
    0.25,
    0.5,
    1.0,
    2.5,
    5.0,
    10.0,
    30.0,
    MINUTE,
    2.0 * MINUTE,
    5.0 * MINUTE,
    15.0 * MINUTE,
    30.0 * MINUTE,
    HOUR,
    3.0 * HOUR,
    6.0 * HOUR,
    12.0 * HOUR,
    DAY,
    4.0 * DAY,
    14.0 * DAY,
];

/// Installs the recorder. It does not see counts from before.
pub(super) fn install() -> Result<PrometheusHandle, Error> {
    let recorder = builder()?.install_recorder().map_err(|e| internal(&e))?;
    describe();
    Ok(recorder)
}

fn builder() -> Result<PrometheusBuilder, Error> {
    let buckets: [(&str, &[f64]); 5] = [
        (name::BATCH_MESSAGES, &BATCH_MESSAGES),
        (name::BATCH_DURATION, &BATCH_DURATION),
        (name::MESSAGE_AGE, &MESSAGE_AGE),
        (name::RECEIVE_DURATION, &CALL_DURATION),
        (name::DELETE_DURATION, &CALL_DURATION),
    ];
    buckets.into_iter().try_fold(PrometheusBuilder::new(), |builder, (name, buckets)| {
        builder.set_buckets_for_metric(Matcher::Full(name.to_owned()), buckets).map_err(|e| internal(&e))
    })
}

fn internal(error: &dyn std::fmt::Display) -> Error {
    Error::Internal(format!("no metrics: {error}"))
}

fn describe() {
    for (name, text) in [
        (name::RECEIVED, "Messages received from SQS, including redelivered ones."),
        (name::REDELIVERED, "Messages received that SQS had delivered before."),
        (name::STORED, "Events that became rows."),
        (name::DUPLICATE, "Events that had been stored before, and were not stored again."),
        (name::REJECTED, "Events kept as rejects, masked whole, by class of the reason."),
        (name::DELETED, "Messages whose delete SQS has confirmed."),
        (
            name::DELETE_FAILURES,
            "Messages that a delete call did not delete, counted for each call, by code of SQS.",
        ),
        (name::RECEIVE_FAILURES, "Receive calls that failed after the SDK's own retries, by code of SQS."),
        (
            name::STORE_FAILURES,
            "Failed attempts to store a batch, by SQLSTATE or else connection, timeout, commit, count or setup.",
        ),
        (
            name::TRIAL_FAILURES,
            "Failed trials of the inbox, by SQLSTATE or else connection, timeout or setup.",
        ),
        (name::EXTENSIONS, "Messages whose lease SQS has confirmed to extend."),
        (
            name::LEASES_EXPIRED,
            "Messages whose lease expired, or that SQS refused to extend, before their delete was confirmed.",
        ),
        (
            name::MESSAGES_LEFT,
            "Messages left to the queue's redrive policy: the database could neither store nor reject them.",
        ),
        (name::RECONNECTS, "Connections to the database that replaced a lost one."),
        (name::LOG_DROPPED, "Log lines dropped because nobody read standard error."),
    ] {
        describe_counter!(name, Unit::Count, text);
    }
    describe_counter!(name::RECEIVED_BYTES, Unit::Bytes, "Bytes of message bodies received from SQS.");
    describe_histogram!(
        name::RECEIVE_DURATION,
        Unit::Seconds,
        "Duration of receive calls that returned messages, including the long poll."
    );
    describe_histogram!(name::DELETE_DURATION, Unit::Seconds, "Duration of delete calls that SQS answered.");
    describe_gauge!(
        name::OLDEST_IN_FLIGHT,
        Unit::Seconds,
        "Time since the oldest message in flight was received; 0 without one."
    );
    describe_gauge!(
        name::LAST_COMMIT,
        Unit::Seconds,
        "When the last batch was committed, in seconds since 1970; 0 before the first."
    );
    describe_gauge!(
        name::CREDENTIALS_EXPIRE,
        Unit::Seconds,
        "When the AWS credentials in use expire, in seconds since 1970; 0 if they don't."
    );
    describe_histogram!(name::BATCH_MESSAGES, Unit::Count, "Messages of a committed batch.");
    describe_histogram!(
        name::BATCH_DURATION,
        Unit::Seconds,
        "How long the transaction of a committed batch took."
    );
    describe_histogram!(
        name::MESSAGE_AGE,
        Unit::Seconds,
        "How long before COMMIT the messages of a committed batch were sent."
    );
    for (name, text) in [
        (name::POLLERS, "Maximum concurrent receive calls at this time."),
        (name::IN_FLIGHT, "Messages received and not yet deleted, of all queues."),
        (
            name::QUEUE_MESSAGES,
            "Messages in the queue, as SQS counts them approximately: visible, hidden or delayed.",
        ),
        (name::READY, "1 while /readyz answers ready, else 0."),
        (name::BUILD_INFO, "1, with the version of the loader."),
    ] {
        describe_gauge!(name, Unit::Count, text);
    }
}
