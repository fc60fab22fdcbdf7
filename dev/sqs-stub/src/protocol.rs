//! Requests and answers of SQS calls in the JSON protocol, as far as the stub supports it.

use std::borrow::Cow;
use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

/// The action of a call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(usize)]
pub(crate) enum Action {
    CreateQueue,
    GetQueueUrl,
    DeleteQueue,
    PurgeQueue,
    GetQueueAttributes,
    SetQueueAttributes,
    SendMessage,
    SendMessageBatch,
    ReceiveMessage,
    DeleteMessage,
    DeleteMessageBatch,
    ChangeMessageVisibility,
    ChangeMessageVisibilityBatch,
}

impl Action {
    /// All actions, in the order of their numbers.
    pub(crate) const ALL: [Self; 13] = [
        Self::CreateQueue,
        Self::GetQueueUrl,
        Self::DeleteQueue,
        Self::PurgeQueue,
        Self::GetQueueAttributes,
        Self::SetQueueAttributes,
        Self::SendMessage,
        Self::SendMessageBatch,
        Self::ReceiveMessage,
        Self::DeleteMessage,
        Self::DeleteMessageBatch,
        Self::ChangeMessageVisibility,
        Self::ChangeMessageVisibilityBatch,
    ];

    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::CreateQueue => "CreateQueue",
            Self::GetQueueUrl => "GetQueueUrl",
            Self::DeleteQueue => "DeleteQueue",
            Self::PurgeQueue => "PurgeQueue",
            Self::GetQueueAttributes => "GetQueueAttributes",
            Self::SetQueueAttributes => "SetQueueAttributes",
            Self::SendMessage => "SendMessage",
            Self::SendMessageBatch => "SendMessageBatch",
            Self::ReceiveMessage => "ReceiveMessage",
            Self::DeleteMessage => "DeleteMessage",
            Self::DeleteMessageBatch => "DeleteMessageBatch",
            Self::ChangeMessageVisibility => "ChangeMessageVisibility",
            Self::ChangeMessageVisibilityBatch => "ChangeMessageVisibilityBatch",
        }
    }

    /// Reads the header `x-amz-target`.
    pub(crate) fn of_target(target: &str) -> Option<Self> {
        let name = target.strip_prefix("AmazonSQS.")?;
        Self::ALL.into_iter().find(|action| action.name() == name)
    }
}

/// `CreateQueue`, `GetQueueUrl`.
#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
pub(crate) struct NamedQueue {
    pub(crate) queue_name: String,
    #[serde(default)]
    pub(crate) attributes: BTreeMap<String, String>,
}

/// `DeleteQueue`, `PurgeQueue`, `GetQueueAttributes`, `SetQueueAttributes`.
#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
pub(crate) struct QueueCall<'a> {
    #[serde(borrow)]
    pub(crate) queue_url: Cow<'a, str>,
    #[serde(default)]
    pub(crate) attributes: BTreeMap<String, String>,
    #[serde(default)]
    pub(crate) attribute_names: Vec<String>,
}

/// `SendMessage`, or an entry of `SendMessageBatch`.
#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
pub(crate) struct Send<'a> {
    /// Only set in a call.
    #[serde(borrow, default)]
    pub(crate) queue_url: Cow<'a, str>,
    /// Only set in a batch entry.
    #[serde(borrow, default)]
    pub(crate) id: Cow<'a, str>,
    #[serde(borrow)]
    pub(crate) message_body: Cow<'a, str>,
    pub(crate) delay_seconds: Option<u32>,
    pub(crate) message_group_id: Option<String>,
    pub(crate) message_deduplication_id: Option<String>,
}

/// A batch call.
#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
pub(crate) struct Batch<'a, E> {
    #[serde(borrow)]
    pub(crate) queue_url: Cow<'a, str>,
    pub(crate) entries: Vec<E>,
}

/// `ReceiveMessage`.
#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
pub(crate) struct Receive<'a> {
    #[serde(borrow)]
    pub(crate) queue_url: Cow<'a, str>,
    pub(crate) max_number_of_messages: Option<usize>,
    pub(crate) visibility_timeout: Option<u32>,
    pub(crate) wait_time_seconds: Option<u32>,
    #[serde(borrow, rename = "ReceiveRequestAttemptId")]
    pub(crate) attempt: Option<Cow<'a, str>>,
    #[serde(borrow, default)]
    pub(crate) message_system_attribute_names: Vec<Cow<'a, str>>,
    /// The older name of `message_system_attribute_names`.
    #[serde(borrow, default)]
    pub(crate) attribute_names: Vec<Cow<'a, str>>,
}

/// `DeleteMessage`, `ChangeMessageVisibility`.
#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
pub(crate) struct OneReceipt<'a> {
    #[serde(borrow)]
    pub(crate) queue_url: Cow<'a, str>,
    #[serde(borrow)]
    pub(crate) receipt_handle: Cow<'a, str>,
    #[serde(default)]
    pub(crate) visibility_timeout: u32,
}

/// An entry of `DeleteMessageBatch` or `ChangeMessageVisibilityBatch`.
#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
pub(crate) struct ReceiptEntry<'a> {
    #[serde(borrow)]
    pub(crate) id: Cow<'a, str>,
    #[serde(borrow)]
    pub(crate) receipt_handle: Cow<'a, str>,
    #[serde(default)]
    pub(crate) visibility_timeout: u32,
}

/// The answer to a batch call.
#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
pub(crate) struct BatchAnswer<'a, S> {
    pub(crate) successful: Vec<S>,
    // SQS leaves the field out if it is empty.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(crate) failed: Vec<FailedEntry<'a>>,
}

/// A successful entry, with its id only.
#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
pub(crate) struct DoneEntry<'a> {
    pub(crate) id: &'a str,
}

/// An entry that failed.
#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
pub(crate) struct FailedEntry<'a> {
    pub(crate) id: &'a str,
    pub(crate) code: &'static str,
    pub(crate) message: String,
    pub(crate) sender_fault: bool,
}

/// A message that was sent.
#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
pub(crate) struct SentEntry<'a> {
    #[serde(skip_serializing_if = "str::is_empty")]
    pub(crate) id: &'a str,
    pub(crate) message_id: String,
    #[serde(rename = "MD5OfMessageBody")]
    pub(crate) md5: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) sequence_number: Option<String>,
}
