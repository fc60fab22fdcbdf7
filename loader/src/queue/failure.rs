//! What went wrong in a call of SQS, in words that are fit for a log.

use std::error::Error as StdError;
use std::fmt;
use std::iter::successors;

use aws_credential_types::provider::error::CredentialsError;
use aws_sdk_sqs::config::http::HttpResponse;
use aws_sdk_sqs::error::{ConnectorError, ProvideErrorMetadata, SdkError};

use crate::error::Error;

/// Codes of errors that trying again does not mend. AWS sends them with several spellings and prefixes, so a
/// code counts that contains one of these.
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

/// The kind of a call that was not sent for want of credentials.
const NO_CREDENTIALS: &str = "credentials";

/// The kind of a call whose answer began and stopped coming in.
const STALLED: &str = "stalled";

/// Codes that new credentials may mend, or the same ones once somebody has mended their rights.
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

/// A call of SQS that failed, after the SDK's own retries but for receive calls.
///
/// The SDK's errors hold the raw answer, which for a receive call is made of message bodies. Their Debug
/// output, which the SDK's own error formatting uses, shows it. So only what is known to be harmless is taken
/// from them: the code, the service's message, the kind, and the words of the operating system.
#[derive(Clone, Debug)]
pub(crate) struct Failure {
    call: &'static str,
    code: Option<String>,
    /// What stands for the code where SQS has sent none.
    kind: &'static str,
    text: String,
    /// Whether this call has worked before: whatever is wrong now may be mended as well.
    worked_before: bool,
}

impl Failure {
    /// Reads an error of the SDK.
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
            // The SDK tells connecting and the wait for an answer apart by their words alone.
            SdkError::DispatchFailure(e) if e.is_timeout() && says(error, "connect timeout") => {
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
            SdkError::ResponseError(_) => "the answer cannot be read; is this an SQS endpoint?".to_owned(),
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

    /// A request that could not be built.
    pub(super) fn internal(call: &'static str, error: &dyn StdError) -> Self {
        Self { call, code: None, kind: "other", text: error.to_string(), worked_before: false }
    }

    /// SQS's code, or a word for what came instead of an answer.
    pub(crate) fn code(&self) -> &str {
        self.code.as_deref().unwrap_or(self.kind)
    }

    /// Whether trying again is pointless.
    pub(crate) fn is_final(&self) -> bool {
        !self.worked_before
            && self.code.as_ref().is_some_and(|code| CANNOT_HEAL.iter().any(|c| code.contains(c)))
    }

    /// Whether the answer did not come, or not all of it, in time.
    pub(crate) fn is_timeout(&self) -> bool {
        ["timeout", STALLED].contains(&self.kind)
    }

    /// Notes that this call has worked before in a run that goes on until it works again.
    pub(super) fn after_success(self, worked_before: bool) -> Self {
        Self { worked_before, ..self }
    }

    /// Whether other credentials may be what the call needs.
    pub(super) fn is_about_credentials(&self) -> bool {
        match &self.code {
            Some(code) => CREDENTIALS.iter().any(|c| code.contains(c)),
            None => self.kind == NO_CREDENTIALS,
        }
    }

    /// Whether SQS refused a receipt, and not the call.
    pub(super) fn is_about_receipt(&self) -> bool {
        self.code.as_ref().is_some_and(|code| code.contains("ReceiptHandleIsInvalid"))
    }

    /// Whether SQS answered at all.
    pub(super) fn is_answer(&self) -> bool {
        self.code.is_some()
    }

    /// Whether the queue is not there.
    pub(super) fn is_no_queue(&self) -> bool {
        self.code.as_ref().is_some_and(|c| c.contains("NonExistentQueue") || c.contains("QueueDoesNotExist"))
    }

    fn advice(&self) -> String {
        let has = |part: &str| self.code.as_ref().is_some_and(|code| code.contains(part));
        if self.is_no_queue() {
            ". Does the queue still exist, in this region and account?".to_owned()
        } else if has("AccessDenied") || has("NotAuthorized") {
            let action = self.call.trim_end_matches("Batch");
            format!(
                ". Allow the credentials sqs:{action} on the queue (`loader --help` lists what is needed)"
            )
        } else if self.kind == NO_CREDENTIALS {
            ". Check where the AWS credentials come from".to_owned()
        } else if has("Signature") || has("Token") || has("Client") || has("AccessKey") {
            ". Are the AWS credentials right, and is this machine's clock?".to_owned()
        } else {
            String::new()
        }
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} failed: ", self.call)?;
        if let Some(code) = &self.code {
            write!(f, "{code}: ")?;
        }
        write!(f, "{}{}", self.text.trim_end_matches('.'), self.advice())
    }
}

impl From<Failure> for Error {
    fn from(failure: Failure) -> Self {
        Self::Queue(failure.to_string())
    }
}

/// Whether the request was not sent because there was nothing to sign it with.
fn has_no_credentials(error: &ConnectorError) -> bool {
    causes(error).any(<dyn std::error::Error>::is::<CredentialsError>)
}

/// Whether the SDK gave up an answer that made no progress. Its error has no public type.
fn has_stalled(error: &(dyn StdError + 'static)) -> bool {
    says(error, "minimum throughput")
}

/// Whether a cause of the SDK's own has these words. They are compared and never shown.
fn says(error: &(dyn StdError + 'static), words: &str) -> bool {
    causes(error).any(|error| error.to_string().contains(words))
}

fn causes<'e>(error: &'e (dyn StdError + 'static)) -> impl Iterator<Item = &'e (dyn StdError + 'static)> {
    successors(Some(error), |error| (*error).source())
}

/// What an error comes down to. The last cause is the operating system's or the TLS library's: "Connection
/// refused (os error 111)".
pub(crate) fn innermost(error: &(dyn StdError + 'static)) -> String {
    let mut last = error;
    while let Some(source) = last.source() {
        last = source;
    }
    last.to_string()
}

#[cfg(test)]
mod tests {
    use aws_sdk_sqs::error::ErrorMetadata;
    use aws_sdk_sqs::operation::receive_message::ReceiveMessageError;

    use super::*;

    const BODY: &str = "{\"ip\":\"199.172.111.135\"}";

    fn service(code: &str) -> Failure {
        let error = ReceiveMessageError::generic(ErrorMetadata::builder().code(code).message("why.").build());
        Failure::of("ReceiveMessage", &SdkError::service_error(error, answer()))
    }

    fn answer() -> HttpResponse {
        HttpResponse::new(400.try_into().unwrap(), BODY.into())
    }

    #[test]
    fn what_cannot_heal_is_told_from_what_can() {
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
    fn what_worked_before_may_work_again() {
        for code in ["InvalidClientTokenId", "SignatureDoesNotMatch", "AccessDenied", "QueueDoesNotExist"] {
            assert!(service(code).after_success(false).is_final(), "{code}");
            assert!(!service(code).after_success(true).is_final(), "{code}");
        }
    }

    #[test]
    fn missing_credentials_are_told_from_a_connection_that_fails() {
        let sent = |error: ConnectorError| {
            Failure::of("X", &SdkError::<ReceiveMessageError>::dispatch_failure(error))
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
    fn a_failure_tells_code_reason_and_what_to_do() {
        assert_eq!(
            service("AccessDenied").to_string(),
            "ReceiveMessage failed: AccessDenied: why. Allow the credentials sqs:ReceiveMessage on the \
             queue (`loader --help` lists what is needed)"
        );
    }

    #[test]
    fn a_failure_never_shows_the_answer_of_the_service() {
        let unreadable: SdkError<ReceiveMessageError> = SdkError::response_error(BODY, answer());
        for failure in [service("X"), Failure::of("ReceiveMessage", &unreadable)] {
            assert!(!format!("{failure} {failure:?}").contains("199."), "{failure}");
        }
    }
}
