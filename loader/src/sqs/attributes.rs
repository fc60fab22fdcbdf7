//! Settings of a queue, and checks that warn of surprising ones.

use std::collections::HashMap;

use aws_sdk_sqs::types::QueueAttributeName as Name;

use super::Depth;
use crate::check_item::CheckItem;

/// Minimum retention, in seconds. A queue that forgets its messages sooner loses them in an outage over a weekend.
const LEAST_RETENTION: u64 = 4 * 24 * 3600;
/// Minimum `maxReceiveCount`. Each kill of a loader, and each dry run, costs one receive.
const LEAST_RECEIVES: u64 = 5;

/// Answer to `GetQueueAttributes`.
pub(super) struct Attributes(pub(super) HashMap<Name, String>);

impl Attributes {
    fn number(&self, name: &Name) -> Option<u64> {
        self.0.get(name)?.parse().ok()
    }

    /// Returns the number of messages in the queue.
    pub(super) fn depth(&self) -> Depth {
        let number = |name| self.number(&name).unwrap_or(0);
        Depth {
            visible: number(Name::ApproximateNumberOfMessages),
            hidden: number(Name::ApproximateNumberOfMessagesNotVisible),
            delayed: number(Name::ApproximateNumberOfMessagesDelayed),
        }
    }

    /// Compares the queue's own visibility timeout with the `seconds` of this run.
    pub(super) fn visibility(&self, queue: &str, seconds: u64) -> CheckItem {
        const ITEM: &str = "queue.visibility";
        match self.number(&Name::VisibilityTimeout) {
            Some(own) if own > seconds => CheckItem::warning(
                ITEM,
                format!(
                    "queue {queue}: the queue's own visibility timeout is {own} s, and this loader hides messages for \
                     {seconds} s at a time, from when it receives them until their delete is confirmed: set --visibility \
                     to the same, unless that is meant"
                ),
            ),
            _ => CheckItem::ok(ITEM, format!("queue {queue}: messages are hidden for {seconds} s at a time")),
        }
    }

    /// Checks where messages go that can be neither stored nor rejected.
    pub(super) fn redrive_policy(&self, queue: &str) -> CheckItem {
        const ITEM: &str = "queue.redrive_policy";
        let Some(policy) = self.0.get(&Name::RedrivePolicy).filter(|policy| !policy.is_empty()) else {
            return CheckItem::warning(
                ITEM,
                format!(
                    "queue {queue}: there is no redrive policy: a message that the database can neither store nor reject \
                     would come back until its retention ends. Give the queue a dead-letter queue"
                ),
            );
        };
        match receives(policy) {
            Some(receives) if receives < LEAST_RECEIVES => CheckItem::warning(
                ITEM,
                format!(
                    "queue {queue}: messages go to the dead-letter queue after {receives} receives, and each kill of a \
                     loader and each dry run is one: set maxReceiveCount to 10 or so"
                ),
            ),
            Some(receives) => CheckItem::ok(
                ITEM,
                format!("queue {queue}: to a dead-letter queue after {receives} receives"),
            ),
            None => CheckItem::ok(ITEM, format!("queue {queue}: there is one")),
        }
    }

    /// Checks how long the queue keeps messages that nobody takes.
    pub(super) fn retention(&self, queue: &str) -> CheckItem {
        const ITEM: &str = "queue.retention";
        match self.number(&Name::MessageRetentionPeriod) {
            Some(seconds) if seconds < LEAST_RETENTION => CheckItem::warning(
                ITEM,
                format!(
                    "queue {queue}: messages are kept for {} h: an outage that is longer loses them. Set \
                     MessageRetentionPeriod above your longest one, to 14 days at most",
                    seconds / 3600
                ),
            ),
            Some(seconds) => {
                CheckItem::ok(ITEM, format!("queue {queue}: messages are kept for {} days", seconds / 86_400))
            }
            None => CheckItem::skipped(ITEM, format!("queue {queue}: the service does not say")),
        }
    }

    /// Checks the queue's encryption, because raw events wait in the queue.
    pub(super) fn encryption(&self, queue: &str) -> CheckItem {
        const ITEM: &str = "queue.encryption";
        let managed = self.0.get(&Name::SqsManagedSseEnabled).map(|value| value == "true");
        if self.0.get(&Name::KmsMasterKeyId).is_some_and(|key| !key.is_empty()) {
            CheckItem::ok(ITEM, format!("queue {queue}: encrypted by a key of KMS"))
        } else if managed == Some(true) {
            CheckItem::ok(ITEM, format!("queue {queue}: encrypted by a key of SQS"))
        } else if managed == Some(false) {
            CheckItem::warning(
                ITEM,
                format!(
                    "queue {queue}: raw events wait in it unencrypted: set SqsManagedSseEnabled or a KMS key"
                ),
            )
        } else {
            CheckItem::skipped(ITEM, format!("queue {queue}: the service does not say"))
        }
    }
}

/// Reads `maxReceiveCount` from a policy. The policy is JSON, with the number as a number or as text.
fn receives(policy: &str) -> Option<u64> {
    let policy: serde_json::Value = serde_json::from_str(policy).ok()?;
    let count = policy.get("maxReceiveCount")?;
    count.as_u64().or_else(|| count.as_str()?.parse().ok())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::check_item::Status;

    fn attributes(of: &[(Name, &str)]) -> Attributes {
        Attributes(of.iter().map(|(name, value)| (name.clone(), (*value).to_owned())).collect())
    }

    #[test]
    fn surprising_queue_attributes_give_a_warning() {
        let surprising = attributes(&[
            (Name::VisibilityTimeout, "200"),
            (Name::MessageRetentionPeriod, "3600"),
            (Name::SqsManagedSseEnabled, "false"),
        ]);
        let fine = attributes(&[
            (Name::VisibilityTimeout, "30"),
            (Name::MessageRetentionPeriod, "1209600"),
            (Name::RedrivePolicy, r#"{"deadLetterTargetArn":"a","maxReceiveCount":"10"}"#),
            (Name::SqsManagedSseEnabled, "true"),
        ]);
        let all = |of: &Attributes| {
            [of.visibility("q", 120), of.redrive_policy("q"), of.retention("q"), of.encryption("q")]
                .map(|check_item| check_item.status)
        };
        assert_eq!(all(&surprising), [Status::Warning; 4]);
        assert_eq!(all(&fine), [Status::Ok; 4]);
        let few = attributes(&[(Name::RedrivePolicy, r#"{"maxReceiveCount":2}"#)]);
        assert_eq!(few.redrive_policy("q").status, Status::Warning);
        let nothing = attributes(&[]);
        assert_eq!([nothing.retention("q"), nothing.encryption("q")].map(|f| f.status), [Status::Skipped; 2]);
    }

    #[test]
    fn depth_is_the_three_numbers_of_the_service() {
        let depth = attributes(&[
            (Name::ApproximateNumberOfMessages, "3"),
            (Name::ApproximateNumberOfMessagesNotVisible, "2"),
        ])
        .depth();
        assert_eq!(depth, Depth { visible: 3, hidden: 2, delayed: 0 });
    }
}
