//! Reading an event: one pass over its JSON, which finds the wanted keys and builds nothing of the rest.

use std::borrow::Cow;
use std::fmt;

use serde::de::{DeserializeSeed, Deserializer, IgnoredAny, MapAccess, Visitor};
use serde_json::error::Category;
use serde_json::value::RawValue;
use smallvec::{SmallVec, smallvec};

use crate::memory::{self, OutOfMemory};

/// Why an event could not become a row. Names columns and keys, which come from the rules, and never a value or a key
/// of the event.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Reject {
    /// The body is not JSON, or a text in it is not Unicode.
    NotJson,
    /// The body is JSON, but no object.
    NotAnObject,
    /// The same of the event, where that is only a part of the body.
    EventNotJson,
    /// The same.
    EventNotAnObject,
    /// Where the event should stand there is nothing, or null.
    NoEvent {
        /// Where: a JSON pointer, of the inbox's definition.
        pointer: String,
    },
    /// The body is not what SNS sends for a published message.
    NotANotification,
    /// The body is of SNS, but asks to confirm that a subscription begins or ends.
    AboutASubscription,
    /// A member of the notification is absent, or not what it always is.
    Notification {
        /// Its key, which is one of SNS's.
        member: &'static str,
        /// What it always is.
        due: &'static str,
    },
    /// A key of a NOT NULL column is absent or null.
    Missing {
        /// The column that would be NULL.
        column: String,
        /// The key it is filled from; none where it is filled from the message, not the event.
        key: Option<String>,
    },
    /// An array or object where a scalar is due.
    NotAScalar {
        /// The key.
        key: String,
    },
    /// A text with the escape `\u0000`, which Postgres cannot store.
    EscapedNul {
        /// The key.
        key: String,
    },
    /// A version that is no number, or one that overflows `integer`.
    NotAVersion {
        /// The key.
        key: String,
    },
    /// More characters than the column takes.
    TooLong {
        /// The column.
        column: String,
        /// Its declared length, in characters.
        limit: usize,
    },
    /// The same of a value's mask, which is longer than the value.
    MaskTooLong {
        /// The column.
        column: String,
        /// Its declared length, in characters.
        limit: usize,
    },
}

impl Reject {
    /// The classes, for metrics: words that stay as they are, whatever the reasons say.
    pub const CLASSES: [&'static str; 10] = [
        "not_json",
        "not_an_object",
        "no_event",
        "not_a_notification",
        "missing_key",
        "not_a_scalar",
        "escaped_nul",
        "not_a_version",
        "too_long",
        "mask_too_long",
    ];

    /// The class: one of [`Self::CLASSES`].
    #[must_use]
    pub fn class(&self) -> &'static str {
        match self {
            Self::NotJson | Self::EventNotJson => "not_json",
            Self::NotAnObject | Self::EventNotAnObject => "not_an_object",
            Self::NoEvent { .. } => "no_event",
            Self::NotANotification | Self::AboutASubscription | Self::Notification { .. } => {
                "not_a_notification"
            }
            Self::Missing { .. } => "missing_key",
            Self::NotAScalar { .. } => "not_a_scalar",
            Self::EscapedNul { .. } => "escaped_nul",
            Self::NotAVersion { .. } => "not_a_version",
            Self::TooLong { .. } => "too_long",
            Self::MaskTooLong { .. } => "mask_too_long",
        }
    }
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
            Self::AboutASubscription => write!(
                f,
                "the body is not an SNS notification but about the subscription: open its SubscribeURL if that is wanted"
            ),
            Self::Notification { member, due } => {
                write!(
                    f,
                    "\"{member}\" of the SNS notification is absent or not {due}: the body is not as SNS sends it"
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

/// Why [`Rules::push`](crate::Rules::push) adds no row.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum PushError {
    /// The event becomes a reject.
    Reject(Reject),
    /// The memory for the event is not there. It is neither a row nor a reject: another time it may be.
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
    /// Says of a reject that `part` of `body` was read.
    pub(crate) fn of_part(self, part: &str, body: &str) -> Self {
        match self {
            Self::Reject(reject) => Self::Reject(reject.of_part(part, body)),
            Self::OutOfMemory => Self::OutOfMemory,
        }
    }

    /// The reject, where there is memory.
    #[cfg(test)]
    pub(crate) fn reject(self) -> Reject {
        match self {
            Self::Reject(reject) => reject,
            Self::OutOfMemory => panic!("out of memory"),
        }
    }
}

impl Reject {
    /// What this is where `part` of `body` was read. What is taken out of a body is shorter than it.
    fn of_part(self, part: &str, body: &str) -> Self {
        match self {
            Self::NotJson if part.len() < body.len() => Self::EventNotJson,
            Self::NotAnObject if part.len() < body.len() => Self::EventNotAnObject,
            other => other,
        }
    }
}

/// The values found under a list of keys, in the order of that list; `None` where a key is absent or null.
/// On the stack for as many keys as most events have, since this is made anew for each event.
pub(crate) type Found<'a> = SmallVec<[Option<&'a RawValue>; 16]>;

/// Finds `keys` in the JSON object `body`. The last of duplicate keys wins; other keys are ignored.
pub(crate) fn find<'a>(body: &'a str, keys: &[String]) -> Result<Found<'a>, PushError> {
    if !body.starts_with('{') && body.trim_ascii_start().starts_with('"') {
        return Err(no_object(body)?.into());
    }
    memory::ensure_parsing(body)?;
    let mut deserializer = serde_json::Deserializer::from_str(body);
    deserializer
        .deserialize_map(Object { keys })
        .and_then(|found| deserializer.end().map(|()| found))
        .map_err(|error| match error.classify() {
            Category::Data => Reject::NotAnObject,
            Category::Io | Category::Syntax | Category::Eof => Reject::NotJson,
        })
        .map_err(PushError::Reject)
}

/// Why a body that begins as a string is a reject. The parser's own error would quote all of it.
#[cold]
fn no_object(body: &str) -> Result<Reject, OutOfMemory> {
    memory::ensure_parsing(body)?;
    Ok(match serde_json::from_str::<IgnoredAny>(body) {
        Ok(_) => Reject::NotAnObject,
        Err(_) => Reject::NotJson,
    })
}

/// The text of a scalar, as Postgres's `->>` gives it: strings unescaped, numbers and booleans as they are written.
pub(crate) fn scalar<'a>(value: &'a RawValue, key: &str) -> Result<Cow<'a, str>, PushError> {
    let raw = value.get();
    match raw.as_bytes()[0] {
        b'{' | b'[' => Err(Reject::NotAScalar { key: key.to_owned() }.into()),
        // A raw control character is no JSON: a NUL can only be there escaped.
        b'"' if !raw.contains('\\') => Ok(Cow::Borrowed(within_quotes(raw))),
        b'"' => {
            let text = unescaped(raw)?;
            if text.contains('\0') {
                Err(Reject::EscapedNul { key: key.to_owned() }.into())
            } else {
                Ok(Cow::Owned(text))
            }
        }
        _ => Ok(Cow::Borrowed(raw)),
    }
}

/// The text in a string that was found in JSON.
pub(crate) fn unquoted(raw: &str) -> Result<Cow<'_, str>, PushError> {
    if raw.contains('\\') { unescaped(raw).map(Cow::Owned) } else { Ok(Cow::Borrowed(within_quotes(raw))) }
}

fn within_quotes(raw: &str) -> &str {
    &raw[1..raw.len() - 1]
}

/// Half a surrogate pair is the one fault that the pass over the whole body leaves to be found here.
fn unescaped(raw: &str) -> Result<String, PushError> {
    memory::ensure_parsing(raw)?;
    serde_json::from_str(raw).map_err(|_| Reject::NotJson.into())
}

struct Object<'k> {
    keys: &'k [String],
}

impl<'de> Visitor<'de> for Object<'_> {
    type Value = Found<'de>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
        let mut found = smallvec![None; self.keys.len()];
        while let Some(wanted) = map.next_key_seed(Key { keys: self.keys })? {
            match wanted {
                Some(index) => {
                    let value: &RawValue = map.next_value()?;
                    found[index] = (value.get() != "null").then_some(value);
                }
                None => {
                    map.next_value::<IgnoredAny>()?;
                }
            }
        }
        Ok(found)
    }
}

/// Maximum number of wanted keys that are compared one by one, which is quicker for few.
const LINEAR: usize = 16;

/// Reads a key as its index in the list of wanted keys. A key may be escaped in the JSON, so it is compared unescaped.
#[derive(Clone, Copy)]
struct Key<'k> {
    keys: &'k [String],
}

impl<'de> DeserializeSeed<'de> for Key<'_> {
    type Value = Option<usize>;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Self::Value, D::Error> {
        deserializer.deserialize_str(self)
    }
}

impl Visitor<'_> for Key<'_> {
    type Value = Option<usize>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a key")
    }

    fn visit_str<E>(self, key: &str) -> Result<Self::Value, E> {
        // A large event has hundreds of thousands of keys, and a target up to 1,600 columns.
        if self.keys.len() > LINEAR {
            return Ok(self.keys.binary_search_by(|wanted| wanted.as_str().cmp(key)).ok());
        }
        Ok(self.keys.iter().position(|wanted| wanted == key))
    }
}
