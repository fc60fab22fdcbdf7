//! The reasons that an event cannot become a row.

use std::fmt;

use crate::memory::OutOfMemory;

/// The reason that an event cannot become a row. It names columns and keys from the rules, and never a value or a key of the
/// event.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Reject {
    /// The body isn't JSON, or a text in it isn't Unicode.
    NotJson,
    /// The body is JSON, but not an object.
    NotAnObject,
    /// The event, a part of the body, isn't JSON, or a text in it isn't Unicode.
    EventNotJson,
    /// The event, a part of the body, is JSON, but not an object.
    EventNotAnObject,
    /// The event is missing or null at its location.
    NoEvent {
        /// The event's location: a JSON pointer from the inbox's definition.
        pointer: String,
    },
    /// The body isn't an SNS notification of a published message.
    NotANotification,
    /// The body is from SNS, but asks to confirm the beginning or end of a subscription.
    SubscriptionMessage,
    /// A member of the notification is missing, or does not have the form that SNS gives it.
    Notification {
        /// The member's key, which is one of SNS's.
        member: &'static str,
        /// The form that SNS gives it.
        expected_form: &'static str,
    },
    /// A key of a NOT NULL column is absent or null.
    Missing {
        /// The column that would be NULL.
        column: String,
        /// The key that fills the column, or none if the message fills it instead of the event.
        key: Option<String>,
    },
    /// An array or object where a scalar is required.
    NotAScalar {
        /// The key.
        key: String,
    },
    /// A text with the escape `\u0000`, which Postgres cannot store.
    EscapedNul {
        /// The key.
        key: String,
    },
    /// A version that isn't a number, or that overflows `integer`.
    NotAVersion {
        /// The key.
        key: String,
    },
    /// The value has more characters than the column allows.
    TooLong {
        /// The column.
        column: String,
        /// Its declared length, in characters.
        limit: usize,
    },
    /// The value's mask, which is longer than the value, has more characters than the column allows.
    MaskTooLong {
        /// The column.
        column: String,
        /// Its declared length, in characters.
        limit: usize,
    },
}

/// Names the class of each reject. A reject without a class doesn't compile, and each class is listed.
macro_rules! classes {
    ($($class:literal: $($reject:ident)|+,)+) => {
        impl Reject {
            /// Names of the classes, for metrics. They are stable, even if the reasons are reworded.
            pub const CLASSES: [&'static str; [$($class),+].len()] = [$($class),+];

            /// Returns the class: one of [`Self::CLASSES`].
            #[must_use]
            pub fn class(&self) -> &'static str {
                match self {
                    $($(Self::$reject { .. })|+ => $class,)+
                }
            }
        }
    };
}

classes! {
    "not_json": NotJson | EventNotJson,
    "not_an_object": NotAnObject | EventNotAnObject,
    "no_event": NoEvent,
    "not_a_notification": NotANotification | SubscriptionMessage | Notification,
    "missing_key": Missing,
    "not_a_scalar": NotAScalar,
    "escaped_nul": EscapedNul,
    "not_a_version": NotAVersion,
    "too_long": TooLong,
    "mask_too_long": MaskTooLong,
}

impl fmt::Display for Reject {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NotJson => write!(f, "the body is not valid JSON"),
            Self::NotAnObject => write!(f, "the body is not a JSON object"),
            Self::EventNotJson => write!(f, "the event in the body is not valid JSON"),
            Self::EventNotAnObject => write!(f, "the event in the body is not a JSON object"),
            Self::NoEvent { pointer } => {
                write!(f, "there is nothing, or null, at \"{pointer}\", where the inbox looks for the event")
            }
            Self::NotANotification => write!(
                f,
                "the body is not an SNS notification: turn raw message delivery off, or attach the inbox with envelope \
                 'none'"
            ),
            Self::SubscriptionMessage => write!(
                f,
                "the body is not an SNS notification but about the subscription: open its SubscribeURL if that is wanted"
            ),
            Self::Notification { member, expected_form } => {
                write!(
                    f,
                    "\"{member}\" of the SNS notification is absent or not {expected_form}: the body is not as SNS sends it"
                )
            }
            Self::Missing { column, key: Some(key) } => {
                write!(f, "key \"{key}\" is absent or null, and column \"{column}\" is not null")
            }
            Self::Missing { column, key: None } => {
                write!(f, "the message has nothing for column \"{column}\", which is not null")
            }
            Self::NotAScalar { key } => write!(f, "key \"{key}\" is an array or object, not a scalar"),
            Self::EscapedNul { key } => write!(f, "key \"{key}\" has an escaped NUL"),
            Self::NotAVersion { key } => {
                write!(f, "key \"{key}\" is not a version number, or one that overflows integer")
            }
            Self::TooLong { column, limit } => {
                write!(f, "the value is too long for column \"{column}\", which takes {limit} characters")
            }
            Self::MaskTooLong { column, limit } => {
                write!(
                    f,
                    "the masked value is too long for column \"{column}\", which takes {limit} characters"
                )
            }
        }
    }
}

impl Reject {
    /// Returns the reject for `part` of `body`. A part that was taken out of a body is shorter than the body.
    fn of_part(self, part: &str, body: &str) -> Self {
        match self {
            Self::NotJson if part.len() < body.len() => Self::EventNotJson,
            Self::NotAnObject if part.len() < body.len() => Self::EventNotAnObject,
            other => other,
        }
    }
}

/// The reason that [`Rules::push`](crate::Rules::push) adds no row.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum PushError {
    /// The event becomes a reject.
    Reject(Reject),
    /// There is not enough memory for the event. It becomes neither a row nor a reject, because another time there may be
    /// enough.
    OutOfMemory,
}

impl From<Reject> for PushError {
    fn from(reject: Reject) -> Self {
        Self::Reject(reject)
    }
}

impl From<OutOfMemory> for PushError {
    fn from(_: OutOfMemory) -> Self {
        Self::OutOfMemory
    }
}

impl PushError {
    /// Adds to a reject that `part` of `body` was read.
    pub(crate) fn of_part(self, part: &str, body: &str) -> Self {
        match self {
            Self::Reject(reject) => Self::Reject(reject.of_part(part, body)),
            Self::OutOfMemory => Self::OutOfMemory,
        }
    }

    /// Returns the reject. Panics if memory ran out.
    #[cfg(test)]
    pub(crate) fn reject(self) -> Reject {
        match self {
            Self::Reject(reject) => reject,
            Self::OutOfMemory => panic!("out of memory"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_reject_is_of_a_known_class() {
        let key = || "k".to_owned();
        let rejects = [
            Reject::NotJson,
            Reject::NotAnObject,
            Reject::NoEvent { pointer: key() },
            Reject::NotANotification,
            Reject::Missing { column: key(), key: None },
            Reject::NotAScalar { key: key() },
            Reject::EscapedNul { key: key() },
            Reject::NotAVersion { key: key() },
            Reject::TooLong { column: key(), limit: 1 },
            Reject::MaskTooLong { column: key(), limit: 1 },
        ];
        assert_eq!(rejects.map(|reject| reject.class()), Reject::CLASSES);
    }

    #[test]
    fn every_class_is_in_the_documents() {
        let page = concat!(env!("CARGO_MANIFEST_DIR"), "/../../docs/rejects.md");
        let page = std::fs::read_to_string(page).expect("the page");
        for class in Reject::CLASSES {
            assert!(page.contains(&format!("\n| `{class}` | ")), "{class}");
        }
    }
}
