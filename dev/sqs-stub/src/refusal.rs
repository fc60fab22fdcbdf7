//! The errors that the server answers with.

use crate::faults::KeyError;

/// An error answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Refusal {
    pub(crate) status: u16,
    /// The shape's name, which `__type` contains.
    pub(crate) kind: &'static str,
    /// The code in the older protocol, which clients show. It is also the code of a failed batch entry.
    pub(crate) code: &'static str,
    pub(crate) message: String,
}

impl Refusal {
    fn sender(kind: &'static str, code: &'static str, message: impl Into<String>) -> Self {
        Self { status: 400, kind, code, message: message.into() }
    }

    pub(crate) fn no_queue() -> Self {
        let message = "The specified queue does not exist.";
        Self::sender("QueueDoesNotExist", "AWS.SimpleQueueService.NonExistentQueue", message)
    }

    pub(crate) fn queue_differs(name: &str) -> Self {
        let message = format!("A queue already exists with the same name and a different value for {name}");
        Self::sender("QueueNameExists", "QueueAlreadyExists", message)
    }

    pub(crate) fn bad_receipt() -> Self {
        let message = "The input receipt handle is invalid or has expired.";
        Self::sender("ReceiptHandleIsInvalid", "ReceiptHandleIsInvalid", message)
    }

    pub(crate) fn not_in_flight() -> Self {
        let message = "The message is not in flight.";
        Self::sender("MessageNotInflight", "AWS.SimpleQueueService.MessageNotInflight", message)
    }

    pub(crate) fn empty_batch() -> Self {
        let message = "There should be at least one entry in the request.";
        Self::sender("EmptyBatchRequest", "AWS.SimpleQueueService.EmptyBatchRequest", message)
    }

    pub(crate) fn too_many_entries(entries: usize) -> Self {
        let message = format!("Maximum number of entries per request are 10. You have sent {entries}.");
        let code = "AWS.SimpleQueueService.TooManyEntriesInBatchRequest";
        Self::sender("TooManyEntriesInBatchRequest", code, message)
    }

    pub(crate) fn same_ids(id: &str) -> Self {
        let message = format!("Id {id} repeated.");
        let code = "AWS.SimpleQueueService.BatchEntryIdsNotDistinct";
        Self::sender("BatchEntryIdsNotDistinct", code, message)
    }

    pub(crate) fn bad_value(name: &str, value: &str) -> Self {
        let message = format!("Value {value} for parameter {name} is invalid.");
        Self::sender("InvalidParameterValue", "InvalidParameterValue", message)
    }

    pub(crate) fn missing(name: &str) -> Self {
        let message = format!("The request must contain the parameter {name}.");
        Self::sender("MissingParameter", "MissingParameter", message)
    }

    pub(crate) fn unreadable(error: &serde_json::Error) -> Self {
        Self::sender("SerializationException", "MalformedInput", error.to_string())
    }

    pub(crate) fn unknown_action() -> Self {
        let message = "The stub does not know this action.";
        Self::sender("UnsupportedOperation", "AWS.SimpleQueueService.UnsupportedOperation", message)
    }

    pub(crate) fn throttled() -> Self {
        Self::sender("RequestThrottled", "RequestThrottled", "Request is throttled.")
    }

    /// Returns the error for a call with these credentials.
    pub(crate) fn of_key(error: KeyError) -> Self {
        let (code, message) = match error {
            KeyError::ExpiredToken => {
                ("ExpiredToken", "The security token included in the request is expired")
            }
            KeyError::InvalidClientTokenId => {
                ("InvalidClientTokenId", "The security token included in the request is invalid.")
            }
            KeyError::SignatureDoesNotMatch => {
                ("SignatureDoesNotMatch", "The request signature we calculated does not match.")
            }
            KeyError::AccessDenied => ("AccessDenied", "User is not authorized to perform this action."),
        };
        Self { status: 403, ..Self::sender(code, code, message) }
    }

    /// Returns one of the two errors with which SQS itself fails.
    pub(crate) fn server_error(unavailable: bool) -> Self {
        let (status, kind) = if unavailable { (503, "ServiceUnavailable") } else { (500, "InternalError") };
        let message = "We encountered an internal error. Please try again.";
        Self { status, kind, code: kind, message: message.into() }
    }

    pub(crate) fn is_senders_fault(&self) -> bool {
        self.status < 500
    }
}
