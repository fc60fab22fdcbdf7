//! A queue's attributes that can be set.

use std::collections::BTreeMap;
use std::time::Duration;

use serde::Deserialize;
use serde_json::Value;

use crate::refusal::Refusal;

/// The effective values of a queue's attributes.
#[derive(Clone, Debug)]
pub(crate) struct Settings {
    /// Time for which a received message is hidden, unless the call sets one.
    pub(crate) visibility: Duration,
    /// Time for which a sent message is delayed, unless the call sets one.
    pub(crate) delay: Duration,
    /// Time for which a receive call waits, unless it sets one.
    pub(crate) wait: Duration,
    /// Whether messages with equal bodies are duplicates.
    pub(crate) deduplicate_bodies: bool,
    pub(crate) redrive: Option<Redrive>,
}

/// The redrive policy, for messages that were received too often.
#[derive(Clone, Debug)]
pub(crate) struct Redrive {
    /// The name of the dead-letter queue.
    pub(crate) to: String,
    pub(crate) after: u32,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct RedrivePolicy {
    dead_letter_target_arn: String,
    /// A number, or a string that contains one.
    max_receive_count: Value,
}

impl Settings {
    /// Reads attributes. Unknown attributes are ignored.
    pub(crate) fn read(attributes: &BTreeMap<String, String>) -> Result<Self, Refusal> {
        let seconds = |name: &str, default: u64| match attributes.get(name) {
            None => Ok(Duration::from_secs(default)),
            Some(value) => {
                value.parse().map(Duration::from_secs).map_err(|_| Refusal::bad_value(name, value))
            }
        };
        let redrive = match attributes.get("RedrivePolicy").filter(|policy| !policy.is_empty()) {
            None => None,
            Some(policy) => Some(redrive(policy).ok_or_else(|| Refusal::bad_value("RedrivePolicy", policy))?),
        };
        Ok(Self {
            visibility: seconds("VisibilityTimeout", 30)?,
            delay: seconds("DelaySeconds", 0)?,
            wait: seconds("ReceiveMessageWaitTimeSeconds", 0)?,
            deduplicate_bodies: attributes.get("ContentBasedDeduplication").is_some_and(|v| v == "true"),
            redrive,
        })
    }
}

fn redrive(policy: &str) -> Option<Redrive> {
    let policy: RedrivePolicy = serde_json::from_str(policy).ok()?;
    let after = match &policy.max_receive_count {
        Value::String(text) => text.parse().ok()?,
        number => u32::try_from(number.as_u64()?).ok()?,
    };
    let to = policy.dead_letter_target_arn.rsplit(':').next()?.to_owned();
    (after > 0).then_some(Redrive { to, after })
}
