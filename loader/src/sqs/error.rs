//! Errors from SQS calls, in words that are fit for a log.

use std::error::Error as StdError;
use std::fmt;

use aws_credential_types::provider::error::CredentialsError;
use aws_sdk_sqs::config::http::HttpResponse;
use aws_sdk_sqs::error::{ConnectorError, ProvideErrorMetadata, SdkError};

use crate::error::{Error, innermost};
use crate::library_texts::{causes, has_stalled, is_about_connecting};

/// Codes of errors that a retry can't cure. AWS sends them with several spellings and prefixes, so a code counts if it
/// contains one of these.
const CANNOT_HEAL: [&str; 15] = [
    "NonExistentQueue",
    "QueueDoesNotExist",
    "InvalidAddress",
    "UnsupportedOperation",
    "AccessDenied",
    "NotAuthorized",
    "InvalidClientTokenId",
    "UnrecognizedClient",
    "InvalidAccessKeyId",
    "SignatureDoesNotMatch",
    "IncompleteSignature",
    "MissingAuthenticationToken",
    "InvalidSecurity",
    "OptInRequired",
    "KmsNotFound",
];

/// Kind of a call that was not sent because there were no credentials.
const NO_CREDENTIALS: &str = "credentials";

/// Kind of a call whose answer began and then stopped.
const STALLED: &str = "stalled";

/// Codes that new credentials may cure. The same credentials may work again once somebody has corrected their
/// privileges.
const CREDENTIALS: [&str; 12] = [
    "ExpiredToken",
    "InvalidToken",
    "RequestExpired",
    "InvalidClientTokenId",
    "UnrecognizedClient",
    "InvalidAccessKeyId",
    "SignatureDoesNotMatch",
    "IncompleteSignature",
    "MissingAuthenticationToken",
    "InvalidSecurity",
    "AccessDenied",
    "NotAuthorized",
];

/// A failed SQS call. The SDK has retried it, unless it is a receive call.
///
/// The SDK's errors hold the raw answer, which for a receive call is made of message bodies. Their Debug output, which
/// the SDK's own error formatting uses, shows it. So only harmless parts are taken from them: the code, the service's
/// message, the kind, and the operating system's text.
#[derive(Clone, Debug)]
pub(crate) struct SqsError {
    call: &'static str,
    code: Option<String>,
    /// Replaces the code if SQS sent none.
    kind: &'static str,
    text: String,
    /// Whether this call has worked before. If it has, somebody may correct the current fault as well.
    worked_before: bool,
}

impl SqsError {
    /// Converts an error from the SDK.
    pub(crate) fn of<E: ProvideErrorMetadata + StdError + 'static>(
        call: &'static str,
        error: &SdkError<E, HttpResponse>,
    ) -> Self {
        let stalled = has_stalled(error);
        let text = match error {
            SdkError::ServiceError(e) => match e.err().message() {
                Some(message) => message.to_owned(),
                None => format!("HTTP status {}, no reason given", e.raw().status().as_u16()),
            },
            SdkError::TimeoutError(_) => "no answer in time".to_owned(),
            SdkError::DispatchFailure(e) if e.is_timeout() && is_about_connecting(error) => {
                "no connection in time".to_owned()
            }
            SdkError::DispatchFailure(e) if e.is_timeout() => "no answer in time".to_owned(),
            SdkError::DispatchFailure(e) => match e.as_connector_error() {
                Some(connector) => innermost(connector),
                None => "the request could not be sent".to_owned(),
            },
            _ if stalled => {
                "the answer stopped coming in; the messages in it stay hidden until their visibility ends"
                    .to_owned()
            }
            SdkError::ResponseError(_) => {
                "the answer cannot be read. Check that this is an SQS endpoint".to_owned()
            }
            _ => "the request could not be made".to_owned(),
        };
        let kind = match error {
            SdkError::TimeoutError(_) => "timeout",
            SdkError::DispatchFailure(e) if e.is_timeout() => "timeout",
            SdkError::DispatchFailure(e) if e.as_connector_error().is_some_and(has_no_credentials) => {
                NO_CREDENTIALS
            }
            SdkError::DispatchFailure(_) => "connection",
            _ if stalled => STALLED,
            SdkError::ResponseError(_) => "unreadable",
            _ => "other",
        };
        let code = error.as_service_error().and_then(|e| e.code()).map(str::to_owned);
        Self { call, code, kind, text, worked_before: false }
    }

    /// Returns the error for a request that couldn't be built.
    pub(super) fn internal(call: &'static str, error: &dyn StdError) -> Self {
        Self { call, code: None, kind: "other", text: error.to_string(), worked_before: false }
    }

    /// Returns SQS's code, or a word for the failure if there was no answer.
    pub(crate) fn code(&self) -> &str {
        self.code.as_deref().unwrap_or(self.kind)
    }

    /// Whether a retry is pointless.
    pub(crate) fn is_final(&self) -> bool {
        !self.worked_before
            && self.code.as_ref().is_some_and(|code| CANNOT_HEAL.iter().any(|c| code.contains(c)))
    }

    /// Whether the answer, or a part of it, did not come in time.
    pub(crate) fn is_timeout(&self) -> bool {
        ["timeout", STALLED].contains(&self.kind)
    }

    /// Records that this call has worked before, in a run that goes on until it works again.
    pub(super) fn after_success(self, worked_before: bool) -> Self {
        Self { worked_before, ..self }
    }

    /// Whether the call may need other credentials.
    pub(super) fn is_about_credentials(&self) -> bool {
        match &self.code {
            Some(code) => CREDENTIALS.iter().any(|c| code.contains(c)),
            None => self.kind == NO_CREDENTIALS,
        }
    }

    /// Whether SQS refused a receipt rather than the call.
    pub(super) fn is_about_receipt(&self) -> bool {
        self.code.as_ref().is_some_and(|code| code.contains("ReceiptHandleIsInvalid"))
    }

    /// Whether SQS answered at all.
    pub(super) fn is_answer(&self) -> bool {
        self.code.is_some()
    }

    /// Whether the queue doesn't exist.
    pub(super) fn is_no_queue(&self) -> bool {
        self.code.as_ref().is_some_and(|c| c.contains("NonExistentQueue") || c.contains("QueueDoesNotExist"))
    }

    fn advice(&self) -> String {
        let has = |part: &str| self.code.as_ref().is_some_and(|code| code.contains(part));
        if self.is_no_queue() {
            ". Check that the queue exists in this region and account".to_owned()
        } else if has("AccessDenied") || has("NotAuthorized") {
            let action = self.call.trim_end_matches("Batch");
            format!(
                ". Allow the credentials sqs:{action} on the queue (`loader --help` lists what is needed)"
            )
        } else if self.kind == NO_CREDENTIALS {
            ". Check where the AWS credentials come from".to_owned()
        } else if has("Signature") || has("Token") || has("Client") || has("AccessKey") {
            ". Check the AWS credentials and this machine's clock".to_owned()
        } else {
            String::new()
        }
    }
}

impl fmt::Display for SqsError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} failed: ", self.call)?;
        if let Some(code) = &self.code {
            write!(f, "{code}: ")?;
        }
        write!(f, "{}{}", self.text.trim_end_matches('.'), self.advice())
    }
}

impl From<SqsError> for Error {
    fn from(failure: SqsError) -> Self {
        Self::Queue(failure.to_string())
    }
}

/// Whether the request was not sent because there was nothing to sign it with.
fn has_no_credentials(error: &ConnectorError) -> bool {
    causes(error).any(<dyn std::error::Error>::is::<CredentialsError>)
}

#[cfg(test)]
mod tests {
    use aws_sdk_sqs::error::ErrorMetadata;
    use aws_sdk_sqs::operation::receive_message::ReceiveMessageError;

    use super::*;

    const BODY: &str = "{\"ip\":\"199.172.111.135\"}";

    fn service(code: &str) -> SqsError {
        let error = ReceiveMessageError::generic(ErrorMetadata::builder().code(code).message("why.").build());
        SqsError::of("ReceiveMessage", &SdkError::service_error(error, answer()))
    }

    fn answer() -> HttpResponse {
        HttpResponse::new(400.try_into().unwrap(), BODY.into())
    }

    #[test]
    fn permanent_and_temporary_errors_are_distinguished() {
        for code in
            ["AWS.SimpleQueueService.NonExistentQueue", "AccessDeniedException", "KMS.AccessDeniedException"]
        {
            assert!(service(code).is_final(), "{code}");
        }
        for code in
            ["ThrottlingException", "InternalError", "ServiceUnavailable", "ExpiredToken", "OverLimit"]
        {
            assert!(!service(code).is_final(), "{code}");
        }
    }

    #[test]
    fn an_error_after_a_success_is_temporary() {
        for code in ["InvalidClientTokenId", "SignatureDoesNotMatch", "AccessDenied", "QueueDoesNotExist"] {
            assert!(service(code).after_success(false).is_final(), "{code}");
            assert!(!service(code).after_success(true).is_final(), "{code}");
        }
    }

    #[test]
    fn missing_credentials_and_failed_connections_are_distinguished() {
        let sent = |error: ConnectorError| {
            SqsError::of("X", &SdkError::<ReceiveMessageError>::dispatch_failure(error))
        };
        let none = CredentialsError::not_loaded("the file is empty");
        let none = sent(ConnectorError::other(none.into(), None));
        assert!(none.is_about_credentials() && none.code() == "credentials", "{none}");
        let refused = sent(ConnectorError::io("refused".into()));
        assert!(!refused.is_about_credentials() && refused.code() == "connection", "{refused}");
        assert!(
            service("ExpiredToken").is_about_credentials() && !service("OverLimit").is_about_credentials()
        );
    }

    #[test]
    fn a_failure_says_code_reason_and_remedy() {
        assert_eq!(
            service("AccessDenied").to_string(),
            "ReceiveMessage failed: AccessDenied: why. Allow the credentials sqs:ReceiveMessage on the \
             queue (`loader --help` lists what is needed)"
        );
    }

    #[test]
    fn a_failure_never_shows_the_answer_of_the_service() {
        let unreadable: SdkError<ReceiveMessageError> = SdkError::response_error(BODY, answer());
        for failure in [service("X"), SqsError::of("ReceiveMessage", &unreadable)] {
            assert!(!format!("{failure} {failure:?}").contains("199."), "{failure}");
        }
    }
}
