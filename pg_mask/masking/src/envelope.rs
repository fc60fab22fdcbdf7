//! The wrapper of a message's body around the published text.

use std::borrow::Cow;
use std::sync::LazyLock;

use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;
use uuid::Uuid;

use crate::event::{self, Event};
use crate::reject::{PushError, Reject};

/// The wrapper around the published text.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Envelope {
    /// No wrapper: the text is the body.
    #[default]
    None,
    /// The JSON object that SNS sends to a queue without raw message delivery. The text is its string `Message`.
    Sns,
}

/// A message taken out of its envelope.
pub(crate) struct Opened<'a> {
    pub(crate) id: Option<[u8; 16]>,
    pub(crate) sent_at: i64,
    pub(crate) text: Cow<'a, str>,
}

impl Envelope {
    /// Whether there is no envelope.
    #[must_use]
    pub fn is_none(&self) -> bool {
        *self == Self::None
    }

    /// Takes a message out of its envelope.
    pub(crate) fn open<'a>(self, message: &Event<'a>) -> Result<Opened<'a>, PushError> {
        match self {
            Self::None => {
                Ok(Opened { id: message.id, sent_at: message.sent_at, text: Cow::Borrowed(message.body) })
            }
            Self::Sns => Opened::of_sns(message.body),
        }
    }
}

/// The members of a notification that are read. They have the type of rules' keys. An instance of `find` for another type
/// would cost each event 10 %, because the parser is inlined into only one instance.
static MEMBERS: LazyLock<[String; 4]> =
    LazyLock::new(|| ["Type", "Message", "MessageId", "Timestamp"].map(String::from));

impl<'a> Opened<'a> {
    /// Takes a text out of a notification in the "HTTP/HTTPS notification JSON format" of the guide to SNS.
    ///
    /// SNS may deliver a notification to a queue more than once, in SQS messages with different ids and times. Only the
    /// notification's own id and time are equal in all of them, and so identify duplicates.
    fn of_sns(body: &'a str) -> Result<Self, PushError> {
        let found = event::find(body, &*MEMBERS).map_err(|error| match error {
            PushError::Reject(Reject::NotAnObject) => Reject::NotANotification.into(),
            other => other,
        })?;
        match string(found[0])?.as_deref() {
            Some("Notification") => {}
            Some("SubscriptionConfirmation" | "UnsubscribeConfirmation") => {
                return Err(Reject::SubscriptionMessage.into());
            }
            _ => return Err(Reject::NotANotification.into()),
        }
        let wrong = |member, expected_form| move || Reject::Notification { member, expected_form };
        let text = string(found[1])?.ok_or_else(wrong("Message", "a string"))?;
        let id = string(found[2])?
            .and_then(|id| Uuid::try_parse(&id).ok())
            .ok_or_else(wrong("MessageId", "a UUID"))?;
        let sent_at = string(found[3])?
            .and_then(|time| timestamp(&time))
            .ok_or_else(wrong("Timestamp", "an RFC 3339 time"))?;
        Ok(Self { id: Some(id.into_bytes()), sent_at, text })
    }
}

/// Returns the text of a string, or none if there is no string.
fn string(value: Option<&RawValue>) -> Result<Option<Cow<'_, str>>, PushError> {
    value.map(RawValue::get).filter(|raw| raw.starts_with('"')).map(event::unquoted).transpose()
}

/// Converts an RFC 3339 time to Postgres's form, microseconds since 2000-01-01 UTC. Finer digits are truncated.
fn timestamp(text: &str) -> Option<i64> {
    /// 2000-01-01 UTC, in microseconds since 1970.
    const EPOCH: i128 = 946_684_800_000_000;
    // The crate accepts any separator, because the RFC leaves it to applications.
    if text.as_bytes().get(10) != Some(&b'T') {
        return None;
    }
    let time = OffsetDateTime::parse(text, &Rfc3339).ok()?;
    i64::try_from(time.unix_timestamp_nanos().div_euclid(1000) - EPOCH).ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const ID: &str = "22b80b92-fdea-4c2c-8f9d-bdfb0c7bf324";

    fn open(body: &str) -> Result<Opened<'_>, Reject> {
        Envelope::Sns.open(&Event { id: Some([7; 16]), sent_at: 7, body }).map_err(PushError::reject)
    }

    fn reject(body: &str) -> Option<Reject> {
        open(body).err()
    }

    fn notification(members: &str) -> String {
        format!(
            "{{\"Type\":\"Notification\",\"TopicArn\":\"arn:aws:sns:eu-west-1:123456789012:logins\",{members}}}"
        )
    }

    /// Returns a notification with `message`, in JSON, as `Message`.
    fn with(message: &str) -> String {
        notification(&format!(
            "\"MessageId\":\"{ID}\",\"Message\":{message},\"Timestamp\":\"2012-05-02T00:54:06.655Z\""
        ))
    }

    #[test]
    fn a_notification_has_its_own_id_and_time() {
        let body = with(r#""{\"user_id\":\"u\"}""#);
        let opened = open(&body).map_err(|reject| reject.to_string()).expect("a notification");
        assert_eq!(opened.text, r#"{"user_id":"u"}"#);
        assert_eq!(opened.id.map(Uuid::from_bytes).map(|id| id.to_string()).as_deref(), Some(ID));
        // date -u -d 2012-05-02T00:54:06Z +%s
        assert_eq!(opened.sent_at, (1_335_920_046 - 946_684_800) * 1_000_000 + 655_000);
    }

    #[test]
    fn without_an_envelope_all_is_the_queues() {
        let message = Event { id: Some([7; 16]), sent_at: 7, body: "text" };
        let opened =
            Envelope::None.open(&message).map_err(|error| error.reject().to_string()).expect("a text");
        assert_eq!((opened.id, opened.sent_at), (Some([7; 16]), 7));
        assert!(matches!(opened.text, Cow::Borrowed("text")));
    }

    #[test]
    fn a_body_that_isnt_a_notification_is_rejected() {
        for body in
            ["[]", "null", "1", "\"text\"", "{}", r#"{"user_id":"u"}"#, r#"{"Type":null}"#, r#"{"Type":1}"#]
        {
            assert_eq!(reject(body), Some(Reject::NotANotification), "{body}");
        }
        for body in
            ["", "{", "{\"Type\":", r#"{"Type":"Notification"} x"#, r#"{"Type":"\ud800"}"#, r#"{"x":"\x"}"#]
        {
            assert_eq!(reject(body), Some(Reject::NotJson), "{body}");
        }
        for kind in ["SubscriptionConfirmation", "UnsubscribeConfirmation"] {
            let body = with("\"\"").replace("Notification", kind);
            assert_eq!(reject(&body), Some(Reject::SubscriptionMessage));
        }
        assert_eq!(
            reject(&with("\"\"").replace("Notification", "notification")),
            Some(Reject::NotANotification)
        );
    }

    #[test]
    fn a_notification_lacks_nothing() {
        let whole = with("\"{}\"");
        assert_eq!(reject(&whole), None);
        for (member, expected_form, good, bad) in [
            ("Message", "a string", "\"{}\"", ["{}", "null", "1"]),
            (
                "MessageId",
                "a UUID",
                &*format!("\"{ID}\""),
                ["1", "\"\"", "\"22b80b92-fdea-4c2c-8f9d-bdfb0c7bf32\""],
            ),
            (
                "Timestamp",
                "an RFC 3339 time",
                "\"2012-05-02T00:54:06.655Z\"",
                ["1335920046", "\"\"", "\"2012-05-02\""],
            ),
        ] {
            let given = |value: &str| {
                whole.replace(&format!("\"{member}\":{good}"), &format!("\"{member}\":{value}"))
            };
            for value in bad {
                assert_eq!(
                    reject(&given(value)),
                    Some(Reject::Notification { member, expected_form }),
                    "{member} {value}"
                );
            }
            let without = whole.replace(&format!("\"{member}\":"), "\"other\":");
            assert_eq!(reject(&without), Some(Reject::Notification { member, expected_form }));
        }
    }

    #[test]
    fn the_last_of_duplicate_keys_wins() {
        let body = notification(&format!(
            "\"Message\":\"first\",\"MessageId\":1,\"Timestamp\":\"2012-05-02T00:54:06Z\",\"MessageId\":\"{ID}\",\"M\\u0065ssage\":\"last\""
        ));
        assert_eq!(open(&body).map(|opened| opened.text).ok().as_deref(), Some("last"));
        assert_eq!(
            reject(&body.replace("\"last\"", "null")),
            Some(Reject::Notification { member: "Message", expected_form: "a string" })
        );
    }

    #[test]
    fn times_are_those_of_rfc_3339() {
        for (text, expected) in [
            ("2000-01-01T00:00:00Z", Some(0)),
            ("2000-01-01T00:00:00.000001Z", Some(1)),
            ("2000-01-01T00:00:00.0000019Z", Some(1)),
            ("1999-12-31T23:59:59.9999991Z", Some(-1)),
            ("1969-12-31T23:59:59.9999991Z", Some(-946_684_800_000_001)),
            ("2000-01-01T01:30:00.5+01:30", Some(500_000)),
            ("1999-12-31T23:00:00-01:00", Some(0)),
            ("2024-02-29T23:59:59.999999Z", Some(762_566_399_999_999)),
            ("0000-01-01T00:00:00Z", Some(-63_113_904_000_000_000)),
            ("9999-12-31T23:59:59Z", Some(252_455_615_999_000_000)),
            ("", None),
            ("2000-01-01", None),
            ("2000-01-01T00:00:00", None),
            ("2000-01-01 00:00:00Z", None),
            ("2000-01-01T00:00Z", None),
            ("2000-01-01T00:00:00.Z", None),
            ("2000-01-01T00:00:00,5Z", None),
            ("2000-01-01T00:00:00+0100", None),
            ("2000-01-01T00:00:00+01", None),
            ("2000-01-01T24:00:00Z", None),
            ("2000-02-30T00:00:00Z", None),
            ("2023-02-29T00:00:00Z", None),
            ("2000-13-01T00:00:00Z", None),
            ("2000-01-01T00:00:00Z ", None),
            (" 2000-01-01T00:00:00Z", None),
            ("20000-01-01T00:00:00Z", None),
            ("-200-01-01T00:00:00Z", None),
            ("2000-1-1T00:00:00Z", None),
            ("2000-01-01\u{e9}00:00:00Z", None),
        ] {
            assert_eq!(timestamp(text), expected, "{text}");
        }
    }

    #[test]
    fn nesting_of_any_depth_is_read_without_recursion() {
        let deep = format!("{}{}", "[".repeat(200_000), "]".repeat(200_000));
        let body = notification(&format!("\"Other\":{deep},\"Message\":{deep}"));
        assert_eq!(
            reject(&body),
            Some(Reject::Notification { member: "Message", expected_form: "a string" })
        );
        assert_eq!(
            open(&with(&format!("\"{deep}\""))).map(|opened| opened.text).ok().as_deref(),
            Some(&*deep)
        );
    }

    #[test]
    fn a_reason_never_quotes_the_event() {
        let whole = with("\"SECRET\"");
        for body in [
            "SECRET".to_owned(),
            "\"SECRET\"".to_owned(),
            whole.replace("Notification", "SECRET"),
            whole.replace("Notification", "SubscriptionConfirmation"),
            whole.replace("\"SECRET\"", "[\"SECRET\"]"),
            whole.replace(ID, "SECRET"),
            whole.replace("2012-05-02", "SECRET"),
            whole.replace("\"SECRET\"", "\"SECRET\\ud800\""),
        ] {
            let reason = reject(&body).expect("a reject").to_string();
            assert!(!reason.contains("SECRET"), "{reason}");
        }
    }

    proptest! {
        #[test]
        fn every_text_that_is_published_comes_out_as_it_was(text in any::<String>()) {
            let body = with(&serde_json::to_string(&text).expect("a string is JSON"));
            prop_assert_eq!(open(&body).map(|opened| opened.text.into_owned()), Ok(text));
        }

        #[test]
        fn any_text_is_a_notification_or_a_reject(text in any::<String>()) {
            prop_assert!(reject(&text).is_some());
            let _: Option<i64> = timestamp(&text);
        }
    }
}
