//! The attributes of a queue that can be set.

use std::collections::BTreeMap;
use std::time::Duration;

use serde::Deserialize;
use serde_json::Value;

use crate::refusal::Refusal;

/// What the attributes come down to.
#[derive(Clone, Debug)]
pub(crate) struct Settings {
    /// For how long a received message is hidden, unless the call says.
    pub(crate) visibility: Duration,
    /// For how long a sent message is held back, unless the call says.
    pub(crate) delay: Duration,
    /// For how long a receive call waits, unless it says.
    pub(crate) wait: Duration,
    /// Whether messages of the same body count as sent once.
    pub(crate) deduplicate_bodies: bool,
    pub(crate) redrive: Option<Redrive>,
}

/// Where messages go that were received too often.
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
    /// A number, or a string with one.
    max_receive_count: Value,
}

impl Settings {
    /// Reads attributes. Those that are not known here are not looked at.
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
