//! Reading an event: one pass over its JSON, which finds the wanted keys and builds nothing of the rest.

use std::borrow::Cow;
use std::fmt;

use serde::de::{DeserializeSeed, Deserializer, IgnoredAny, MapAccess, Visitor};
use serde_json::error::Category;
use serde_json::value::RawValue;
use smallvec::{SmallVec, smallvec};

/// Why an event could not become a row. Names columns and keys, which come from the rules, and never a value or a key
/// of the event.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Reject {
    /// The body is not JSON, or a text in it is not Unicode.
    NotJson,
    /// The body is JSON, but no object.
    NotAnObject,
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

impl fmt::Display for Reject {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NotJson => write!(f, "the body is not valid JSON"),
            Self::NotAnObject => write!(f, "the body is not a JSON object"),
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

/// The values found under a list of keys, in the order of that list; `None` where a key is absent or null.
/// On the stack for as many keys as most events have, since this is made anew for each event.
pub(crate) type Found<'a> = SmallVec<[Option<&'a RawValue>; 16]>;

/// Finds `keys` in the JSON object `body`. The last of duplicate keys wins; other keys are ignored.
pub(crate) fn find<'a>(body: &'a str, keys: &[String]) -> Result<Found<'a>, Reject> {
    let mut deserializer = serde_json::Deserializer::from_str(body);
    deserializer
        .deserialize_map(Object { keys })
        .and_then(|found| deserializer.end().map(|()| found))
        .map_err(|error| match error.classify() {
            Category::Data => Reject::NotAnObject,
            Category::Io | Category::Syntax | Category::Eof => Reject::NotJson,
        })
}

/// The text of a scalar, as Postgres's `->>` gives it: strings unescaped, numbers and booleans as they are written.
pub(crate) fn scalar<'a>(value: &'a RawValue, key: &str) -> Result<Cow<'a, str>, Reject> {
    let raw = value.get();
    match raw.as_bytes()[0] {
        b'{' | b'[' => Err(Reject::NotAScalar { key: key.to_owned() }),
        // A raw control character is no JSON: a NUL can only be there escaped.
        b'"' if !raw.contains('\\') => Ok(Cow::Borrowed(&raw[1..raw.len() - 1])),
        b'"' => {
            // Half a surrogate pair is the one fault that the pass over the whole body leaves to be found here.
            let text: String = serde_json::from_str(raw).map_err(|_| Reject::NotJson)?;
            if text.contains('\0') {
                Err(Reject::EscapedNul { key: key.to_owned() })
            } else {
                Ok(Cow::Owned(text))
            }
        }
        _ => Ok(Cow::Borrowed(raw)),
    }
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
        Ok(self.keys.iter().position(|wanted| wanted == key))
    }
}
