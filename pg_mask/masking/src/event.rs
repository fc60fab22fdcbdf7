//! A message, and its event. Reads an event in one pass over its JSON: finds the wanted keys and builds nothing of the rest.

use std::borrow::Cow;
use std::fmt;

use serde::de::{DeserializeSeed, Deserializer, IgnoredAny, MapAccess, Visitor};
use serde_json::error::Category;
use serde_json::value::RawValue;
use smallvec::{SmallVec, smallvec};

use crate::memory::{self, OutOfMemory};
use crate::reject::{PushError, Reject};

/// A message: a body with an event in it, and its id and time from the queue.
#[derive(Clone, Copy)]
pub struct Event<'a> {
    /// The message's id in the queue.
    pub id: Option<[u8; 16]>,
    /// The time at which it was sent, or now if that is unknown. Microseconds since 2000-01-01 UTC, as in Postgres.
    pub sent_at: i64,
    /// The body, which is the event or contains it.
    pub body: &'a str,
}

/// The values found under a list of keys, in the order of that list; `None` where a key is missing or null. They are on the
/// stack for as many keys as most events have, because each event has its own.
pub(crate) type Found<'a> = SmallVec<[Option<&'a RawValue>; 16]>;

/// Finds `keys` in the JSON object `body`. The last of duplicate keys wins. Other keys are ignored.
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

/// Returns the reason to reject a body that begins as a string. The parser's own error would quote the whole body.
#[cold]
fn no_object(body: &str) -> Result<Reject, OutOfMemory> {
    memory::ensure_parsing(body)?;
    Ok(match serde_json::from_str::<IgnoredAny>(body) {
        Ok(_) => Reject::NotAnObject,
        Err(_) => Reject::NotJson,
    })
}

/// Returns the text of a scalar as Postgres's `->>` does: strings unescaped, numbers and booleans as written.
pub(crate) fn scalar<'a>(value: &'a RawValue, key: &str) -> Result<Cow<'a, str>, PushError> {
    let raw = value.get();
    match raw.as_bytes()[0] {
        b'{' | b'[' => Err(Reject::NotAScalar { key: key.to_owned() }.into()),
        // A raw control character isn't valid JSON, so a NUL can only be escaped.
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

/// Returns the text in a string found in JSON.
pub(crate) fn unquoted(raw: &str) -> Result<Cow<'_, str>, PushError> {
    if raw.contains('\\') { unescaped(raw).map(Cow::Owned) } else { Ok(Cow::Borrowed(within_quotes(raw))) }
}

fn within_quotes(raw: &str) -> &str {
    let inner = raw.strip_prefix('"').and_then(|raw| raw.strip_suffix('"'));
    inner.unwrap_or(raw)
}

/// Unescapes a string. The pass over the whole body finds all faults but one: half a surrogate pair, which is found here.
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

/// Maximum number of wanted keys to compare one by one. For few keys this is faster than a binary search.
const LINEAR: usize = 16;

/// Reads a key as its index in the list of wanted keys. A key may be escaped in the JSON, so its unescaped text is compared.
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
