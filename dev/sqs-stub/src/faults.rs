//! The faults that are made, and their probabilities.

use std::sync::{Mutex, PoisonError};

use fastrand::Rng;
use serde::{Deserialize, Serialize};

/// The faults to make. Each number is a probability from 0 to 1.
#[derive(Clone, Debug, Default, PartialEq, Deserialize, Serialize)]
#[serde(default, deny_unknown_fields)]
pub struct Faults {
    /// A call is answered with `RequestThrottled` and not performed.
    pub throttle: f64,
    /// A call is answered with HTTP status 500 or 503 and not performed.
    pub server_error: f64,
    /// A call is performed, but the connection is closed without an answer.
    pub lost_answer: f64,
    /// A call is performed or not, and the answer never comes. The connection stays open for two minutes.
    pub hang: f64,
    /// One entry of `DeleteMessageBatch` fails with `InternalError` and is not performed.
    pub partial_delete: f64,
    /// One entry of `ChangeMessageVisibilityBatch` fails with `InternalError` and is not performed.
    pub partial_extend: f64,
    /// A delivered message stays visible and is delivered again with another receipt. Both receipts are valid. Not made in
    /// FIFO queues, which do not duplicate.
    pub duplicate: f64,
    /// The receipt of a delivered message is invalid from the start, and the message becomes visible again after a short
    /// time.
    pub expire: f64,
    /// Calls signed with one of these access key ids are answered with `key_error`.
    pub expired_keys: Vec<String>,
    /// The error for calls signed with `expired_keys`.
    pub key_error: KeyError,
    /// The actions, such as `ReceiveMessage`, whose calls `throttle`, `server_error`, `lost_answer` and `hang` may affect.
    /// If empty, all actions.
    pub only: Vec<String>,
    /// Whether the last receipt of a message, if it was not delivered again, deletes the message even after its visibility
    /// timeout. Standard queues behave so.
    pub late_receipts: bool,
    /// Restarts the random numbers from this seed. Without it they continue.
    pub seed: Option<u64>,
}

/// An error with which SQS rejects a call because of its credentials.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, Serialize)]
pub enum KeyError {
    /// The temporary credentials have expired.
    #[default]
    ExpiredToken,
    /// The key does not exist.
    InvalidClientTokenId,
    /// The secret does not belong to the key.
    SignatureDoesNotMatch,
    /// A policy does not allow the call.
    AccessDenied,
}

/// A fault that was made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(usize)]
pub(crate) enum Fault {
    Throttle,
    ServerError,
    LostAnswer,
    Hang,
    PartialDelete,
    PartialExtend,
    Duplicate,
    Expire,
    ExpiredKey,
}

impl Fault {
    pub(crate) const NAMES: [&str; 9] = [
        "throttle",
        "server_error",
        "lost_answer",
        "hang",
        "partial_delete",
        "partial_extend",
        "duplicate",
        "expire",
        "expired_key",
    ];
}

impl Faults {
    /// Whether every probability is from 0 to 1.
    pub(crate) fn is_sound(&self) -> bool {
        [
            self.throttle,
            self.server_error,
            self.lost_answer,
            self.hang,
            self.partial_delete,
            self.partial_extend,
            self.duplicate,
            self.expire,
        ]
        .iter()
        .all(|p| (0.0..=1.0).contains(p))
    }

    /// Whether faults of whole calls may affect this action.
    pub(crate) fn may_hit(&self, action: &str) -> bool {
        self.only.is_empty() || self.only.iter().any(|name| name == action)
    }

    /// Whether a call is signed with an expired key.
    pub(crate) fn is_expired(&self, authorization: &str) -> bool {
        !self.expired_keys.is_empty()
            && authorization
                .split_once("Credential=")
                .and_then(|(_, rest)| rest.split_once('/'))
                .is_some_and(|(key, _)| self.expired_keys.iter().any(|expired| expired == key))
    }
}

/// Random numbers that are equal in every run with equal seed and calls.
pub(crate) struct Dice {
    random: Mutex<Rng>,
}

impl Dice {
    pub(crate) fn new(seed: u64) -> Self {
        Self { random: Mutex::new(Rng::with_seed(seed)) }
    }

    pub(crate) fn restart(&self, seed: u64) {
        self.with(|random| random.seed(seed));
    }

    /// Returns true with this probability. A certain result uses no random number.
    pub(crate) fn falls(&self, probability: f64) -> bool {
        probability > 0.0 && (probability >= 1.0 || self.with(|random| random.f64() < probability))
    }

    fn with<T>(&self, draw: impl FnOnce(&mut Rng) -> T) -> T {
        draw(&mut self.random.lock().unwrap_or_else(PoisonError::into_inner))
    }
}
