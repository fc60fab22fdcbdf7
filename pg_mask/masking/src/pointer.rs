//! The location of an event in a text: a JSON pointer (RFC 6901).

use std::borrow::Cow;
use std::fmt;
use std::slice;
use std::str::FromStr;

use serde::de::{Deserializer, IgnoredAny, SeqAccess, Visitor};
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use crate::event;
use crate::memory;
use crate::reject::{PushError, Reject};

/// A JSON pointer. The default points to the whole document.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Pointer {
    /// The pointer as it was written.
    text: String,
    /// The keys and indexes on the path, unescaped.
    tokens: Vec<String>,
}

/// Maximum number of keys and indexes in a pointer. Each takes a pass over the text.
const MAX_TOKENS: usize = 32;

/// An error: a text isn't a JSON pointer, or is too long a pointer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct NotAPointer;

impl fmt::Display for NotAPointer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "it is not a JSON pointer of at most {MAX_TOKENS} parts")
    }
}

impl FromStr for Pointer {
    type Err = NotAPointer;

    fn from_str(text: &str) -> Result<Self, NotAPointer> {
        let mut parts = text.split('/');
        // The part before the first slash must be empty.
        if parts.next() != Some("") || parts.clone().count() > MAX_TOKENS {
            return Err(NotAPointer);
        }
        let tokens = parts.map(|part| {
            let escapes = part.split('~').skip(1);
            // In this order, so that ~01 becomes ~1 (RFC 6901, section 4).
            let unescaped = || part.replace("~1", "/").replace("~0", "~");
            { escapes }.all(|escape| escape.starts_with(['0', '1'])).then(unescaped).ok_or(NotAPointer)
        });
        Ok(Self { tokens: tokens.collect::<Result<_, _>>()?, text: text.to_owned() })
    }
}

impl TryFrom<String> for Pointer {
    type Error = NotAPointer;

    fn try_from(text: String) -> Result<Self, NotAPointer> {
        text.parse()
    }
}

impl From<Pointer> for String {
    fn from(pointer: Pointer) -> Self {
        pointer.text
    }
}

impl Pointer {
    /// Whether it points to the whole document.
    #[must_use]
    pub fn is_whole(&self) -> bool {
        self.tokens.is_empty()
    }

    /// Returns the event in `text`: the value at this location, or if that is a string, the text in the string.
    ///
    /// The whole document is returned unread. Otherwise, if this succeeds, `text` is JSON, and so is the value at the
    /// location. A string's text may still be anything.
    pub(crate) fn find<'a>(&self, text: &'a str) -> Result<Cow<'a, str>, PushError> {
        if self.is_whole() {
            return Ok(Cow::Borrowed(text));
        }
        let mut event = text;
        // Each level takes a pass: the first over the whole text, each other over what the previous pass found.
        for token in &self.tokens {
            event = step(event, token)?.ok_or_else(|| Reject::NoEvent { pointer: self.text.clone() })?.get();
        }
        if event.starts_with('"') { event::unquoted(event) } else { Ok(Cow::Borrowed(event)) }
    }
}

/// Returns the value under `token` in an object or array, or none if it is missing or null.
fn step<'a>(text: &'a str, token: &String) -> Result<Option<&'a RawValue>, PushError> {
    memory::ensure_parsing(text)?;
    let found = match text.trim_ascii_start().as_bytes().first() {
        Some(b'{') => return Ok(event::find(text, slice::from_ref(token))?[0]),
        Some(b'[') => {
            let mut deserializer = serde_json::Deserializer::from_str(text);
            // No array is long enough for the maximum index.
            let element = Element(index(token).unwrap_or(usize::MAX));
            deserializer.deserialize_seq(element).and_then(|found| deserializer.end().map(|()| found))
        }
        _ => serde_json::from_str::<IgnoredAny>(text).map(|_| None),
    };
    Ok(found.map_err(|_| Reject::NotJson)?.filter(|found| found.get() != "null"))
}

/// Parses the index of an array: `0`, or digits that do not begin with 0.
fn index(token: &str) -> Option<usize> {
    let leading_zero = token.len() > 1 && token.starts_with('0');
    let digits = token.bytes().all(|byte| byte.is_ascii_digit());
    if digits && !leading_zero { token.parse().ok() } else { None }
}

/// Reads the element of an array at this index.
struct Element(usize);

impl<'de> Visitor<'de> for Element {
    type Value = Option<&'de RawValue>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an array")
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut sequence: A) -> Result<Self::Value, A::Error> {
        for _ in 0..self.0 {
            if sequence.next_element::<IgnoredAny>()?.is_none() {
                return Ok(None);
            }
        }
        let found = sequence.next_element()?;
        while sequence.next_element::<IgnoredAny>()?.is_some() {}
        Ok(found)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use serde_json::Value;

    fn pointer(text: &str) -> Pointer {
        text.parse().expect("a pointer")
    }

    fn find(at: &str, text: &str) -> Result<String, Reject> {
        pointer(at).find(text).map(Cow::into_owned).map_err(PushError::reject)
    }

    /// The document and the pointers of RFC 6901, section 5. It has no strings to read events from: the two under "foo" are
    /// in an array, and only its first element is read.
    const RFC_6901: &str = r#"{
        "foo": ["bar", "baz"], "": 0, "a/b": 1, "c%d": 2, "e^f": 3, "g|h": 4, "i\\j": 5, "k\"l": 6, " ": 7, "m~n": 8
    }"#;

    #[test]
    fn pointers_find_what_those_of_rfc_6901_find() {
        for (at, found) in [
            ("", RFC_6901),
            ("/foo", r#"["bar", "baz"]"#),
            ("/foo/0", "bar"),
            ("/", "0"),
            ("/a~1b", "1"),
            ("/c%d", "2"),
            ("/e^f", "3"),
            ("/g|h", "4"),
            ("/i\\j", "5"),
            ("/k\"l", "6"),
            ("/ ", "7"),
            ("/m~0n", "8"),
        ] {
            assert_eq!(find(at, RFC_6901).as_deref(), Ok(found), "{at}");
        }
    }

    #[test]
    fn an_absent_or_null_value_is_not_found() {
        let text = r#"{"a":[{"b":null},[],"c",null,4],"":{"":{}},"d":"{\"e\":1}","~1":1}"#;
        for at in [
            "/b",
            "/a/0/b",
            "/a/0/b/c",
            "/a/1/0",
            "/a/2/0",
            "/a/3",
            "/a/5",
            "/a/-",
            "/a/00",
            "/a/04",
            "/a/+4",
            "/a/-1",
            "/a/4.0",
            "/a/",
            "/a/18446744073709551616",
            "/a/18446744073709551615",
            "/a/4/0",
            "///",
            "/d/e",
            "/~1",
        ] {
            assert_eq!(find(at, text), Err(Reject::NoEvent { pointer: at.into() }), "{at}");
        }
        for scalar in ["1", "true", "null", " \"text\" "] {
            assert_eq!(find("/a", scalar), Err(Reject::NoEvent { pointer: "/a".into() }));
        }
        assert_eq!(find("/~01", text).as_deref(), Ok("1"));
        assert_eq!(find("//", text).as_deref(), Ok("{}"));
    }

    #[test]
    fn the_event_in_a_string_is_its_text() {
        for (at, text) in [
            ("/d", r#"{"d":"{\"a\":1}"}"#),
            ("/d", r#"{"d":"\u007b\"a\":1}"}"#),
            ("/0/d", r#"[{"d": "{\"a\":1}" }, 1]"#),
        ] {
            assert_eq!(find(at, text).as_deref(), Ok(r#"{"a":1}"#));
        }
        // Only once: a string within the string's text is not read further.
        assert_eq!(find("/d", r#"{"d":"\"{}\""}"#).as_deref(), Ok(r#""{}""#));
        // A string that is the whole document is not read either.
        assert_eq!(find("", r#""{}""#).as_deref(), Ok(r#""{}""#));
    }

    #[test]
    fn the_last_of_duplicate_keys_wins_on_the_way() {
        let text = r#"{"d":{"e":1},"d":{"e":2,"\u0065":3}}"#;
        assert_eq!(find("/d/e", text).as_deref(), Ok("3"));
        let text = r#"{"d":{"e":1},"d":{}}"#;
        assert_eq!(find("/d/e", text), Err(Reject::NoEvent { pointer: "/d/e".into() }));
        let text = r#"{"d":{"e":1},"d":null}"#;
        assert_eq!(find("/d/e", text), Err(Reject::NoEvent { pointer: "/d/e".into() }));
    }

    #[test]
    fn broken_json_beside_the_path_is_not_json() {
        for (at, text) in [
            ("/d", r#"{"d":{},"x":}"#),
            ("/d", r#"{"d":{}} x"#),
            ("/d", r#"{"d":{}"#),
            ("/d", "tru"),
            ("/d", ""),
            ("/0", "[{}, tru]"),
            ("/0", "[{}"),
            ("/0", "[{}] 1"),
            ("/-", "[1,]"),
            ("/d", r#"{"d":"\ud800"}"#),
        ] {
            assert_eq!(find(at, text), Err(Reject::NotJson), "{at} {text}");
        }
        // The whole document is read later.
        assert_eq!(find("", "tru").as_deref(), Ok("tru"));
    }

    #[test]
    fn an_invalid_pointer_is_refused() {
        for text in ["a", "#/a", " /a", "/a~", "/~2", "/a/~/b", "/a~~0", "~0"] {
            assert_eq!(text.parse::<Pointer>(), Err(NotAPointer), "{text}");
            let json = serde_json::to_string(text).expect("a string is JSON");
            assert!(serde_json::from_str::<Pointer>(&json).is_err());
        }
        let too_long = "/0".repeat(MAX_TOKENS + 1);
        assert_eq!(too_long.parse::<Pointer>(), Err(NotAPointer));
    }

    #[test]
    fn nesting_of_any_depth_is_read_without_recursion() {
        let deep = format!("{}{}", "[".repeat(200_000), "]".repeat(200_000));
        let text = format!("{{\"other\":{deep},\"d\":[{deep},{{}}]}}");
        assert_eq!(find("/d/1", &text).as_deref(), Ok("{}"));
        assert_eq!(find("/d/0", &text).as_deref(), Ok(&*deep));
        // The longest path of a pointer is read without recursion too.
        let at = "/0".repeat(MAX_TOKENS);
        let text = format!("{}{{}}{}", "[".repeat(MAX_TOKENS), "]".repeat(MAX_TOKENS));
        assert_eq!(find(&at, &text).as_deref(), Ok("{}"));
    }

    /// JSON with few keys and indexes, so that generated pointers find something.
    fn json() -> impl Strategy<Value = Value> {
        let scalar = prop_oneof![
            Just(Value::Null),
            any::<bool>().prop_map(Value::from),
            any::<i32>().prop_map(Value::from),
            "[ab~/\"]{0,3}".prop_map(Value::from),
        ];
        scalar.prop_recursive(4, 32, 4, |inner| {
            prop_oneof![
                prop::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
                prop::collection::vec(("[01a~/-]{0,2}", inner), 0..4)
                    .prop_map(|members| Value::Object(members.into_iter().collect())),
            ]
        })
    }

    proptest! {
        #[test]
        fn pointers_find_what_serde_json_finds(
            value in json(), at in "(/(0|1|2|01|-|a|~0|~1|[01a-]{0,2})){1,4}", spaced: bool
        ) {
            let text = if spaced { serde_json::to_string_pretty(&value) } else { serde_json::to_string(&value) };
            let text = text.expect("a value is JSON");
            match (find(&at, &text), value.pointer(&at)) {
                (Ok(found), Some(Value::String(expected))) => prop_assert_eq!(&found, expected),
                (Ok(found), Some(expected)) => {
                    prop_assert_eq!(&serde_json::from_str::<Value>(&found).expect("JSON"), expected);
                }
                (Err(reject), None | Some(Value::Null)) => {
                    prop_assert_eq!(reject, Reject::NoEvent { pointer: at });
                }
                (found, expected) => prop_assert!(false, "{:?} {:?}", found, expected),
            }
        }

        #[test]
        fn a_pointer_is_written_as_it_was_read(at in any::<String>()) {
            if let Ok(pointer) = at.parse::<Pointer>() {
                prop_assert!(at.is_empty() || at.starts_with('/'));
                prop_assert_eq!(pointer.is_whole(), at.is_empty());
                prop_assert_eq!(String::from(pointer), at);
            }
        }

        #[test]
        fn any_text_has_an_event_or_not(text in any::<String>(), at in "(/[a0~1]{0,2}){0,2}") {
            if let Ok(pointer) = at.parse::<Pointer>() {
                let _: Result<_, _> = pointer.find(&text);
            }
        }
    }
}
