//! The key ring: the keys of the schemes that need one, and the tokens that they make and read.

use std::borrow::Cow;
use std::fmt;

use arrayvec::ArrayVec;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde::Deserialize;
use serde_json::value::RawValue;
use zeroize::Zeroizing;

use crate::library_texts;
use crate::memory::{Bytes, OutOfMemory, zeroed_on_heap};
use crate::scheme::{AnyCipher, Scheme, Unreadable};
use crate::token::{self, Token};

/// Maximum number of keys in a ring.
const MOST_KEYS: usize = 16;

/// The keys of a site. One of them masks, and all of them read.
///
/// All secrets are in the ring itself and none are on the heap. So the owner of a ring chooses the memory that holds them.
pub struct KeyRing {
    keys: ArrayVec<Key, MOST_KEYS>,
    /// The index of the primary key, which masks, in `keys`.
    primary: usize,
}

/// A key of a scheme.
pub(crate) struct Key {
    id: String,
    state: State,
    cipher: AnyCipher,
}

/// The permitted use of a key.
#[derive(Clone, Copy, PartialEq, Eq)]
enum State {
    /// It may be the primary key, now or later.
    Active,
    /// It reads tokens that may still exist, for example in a backup. It must not mask any more.
    Retired,
}

/// The error in a key ring. It names fields, places and key ids, and never a key's contents.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum RingError {
    /// It isn't JSON, or does not have the form of a ring.
    Form {
        /// The line, from 1.
        line: usize,
        /// The column, from 1.
        column: usize,
    },
    /// A field of the ring is missing.
    Missing(&'static str),
    /// A field occurs twice.
    Twice(&'static str),
    /// The ring has no keys.
    NoKeys,
    /// The ring has more keys than allowed.
    TooManyKeys,
    /// A field of a key is missing or invalid.
    Key {
        /// The number of the key, from 1.
        number: usize,
        /// The field.
        field: &'static str,
        /// The requirement for the field.
        must_be: Cow<'static, str>,
    },
    /// Two keys have the same id.
    SameId(String),
    /// The primary key is not among the keys.
    NoPrimary,
    /// The primary key is retired.
    RetiredPrimary,
}

impl fmt::Display for RingError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Form { line, column } => {
                write!(f, "line {line}, column {column}: this is not JSON, or not what a key ring has there")
            }
            Self::Missing(field) => write!(f, "field \"{field}\" is missing"),
            Self::Twice(field) => write!(f, "field \"{field}\" is there twice"),
            Self::NoKeys => write!(f, "field \"keys\" is empty"),
            Self::TooManyKeys => write!(f, "field \"keys\" has more than {MOST_KEYS} keys"),
            Self::Key { number, field, must_be } => {
                write!(f, "field \"{field}\" of key {number} must be {must_be}")
            }
            Self::SameId(id) => write!(f, "two keys have the id \"{id}\""),
            Self::NoPrimary => write!(f, "field \"primary\" is the id of none of the keys"),
            Self::RetiredPrimary => write!(f, "the primary key is retired"),
        }
    }
}

/// A ring as it is written down. All fields are optional, so that our errors report a missing one: the parser's errors quote
/// what they find.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Written<'j> {
    primary: Option<String>,
    #[serde(borrow)]
    keys: Option<Vec<WrittenKey<'j>>>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct WrittenKey<'j> {
    id: Option<String>,
    /// Read in place: the parser would leave a copy of a text behind.
    #[serde(borrow)]
    key: Option<&'j RawValue>,
    state: Option<String>,
}

impl RingError {
    fn of(error: &serde_json::Error) -> Self {
        match library_texts::field_given_twice(error, &["primary", "keys", "id", "key", "state"]) {
            Some(field) => Self::Twice(field),
            None => Self::Form { line: error.line(), column: error.column() },
        }
    }
}

impl KeyRing {
    /// Reads a ring: `{"primary": ID, "keys": [{"id": ID, "key": bytes in base64, "state": "active"}, …]}`. The length of a
    /// key tells its scheme.
    pub fn parse(json: &[u8]) -> Result<Self, RingError> {
        let written: Written<'_> = serde_json::from_slice(json).map_err(|error| RingError::of(&error))?;
        let primary = written.primary.ok_or(RingError::Missing("primary"))?;
        let mut keys = ArrayVec::<Key, MOST_KEYS>::new();
        for (key, number) in written.keys.ok_or(RingError::Missing("keys"))?.into_iter().zip(1..) {
            let key = Key::parse(key, number)?;
            if keys.iter().any(|other| other.id == key.id) {
                return Err(RingError::SameId(key.id));
            }
            keys.try_push(key).map_err(|_| RingError::TooManyKeys)?;
        }
        if keys.is_empty() {
            return Err(RingError::NoKeys);
        }
        let primary = keys.iter().position(|key| key.id == primary).ok_or(RingError::NoPrimary)?;
        if keys[primary].state == State::Retired {
            return Err(RingError::RetiredPrimary);
        }
        Ok(Self { keys, primary })
    }

    /// Returns a ring with a key of zeros for each scheme that needs one. It has nothing to hide.
    ///
    /// # Panics
    /// Panics if there are more such schemes than a ring can have keys.
    #[must_use]
    pub fn of_zeros() -> Self {
        let key = |(number, bytes): (usize, usize)| {
            let id = number.to_string();
            let cipher = AnyCipher::new(&id, &vec![0; bytes]).expect("a length that a scheme told");
            Key { id, state: State::Active, cipher }
        };
        Self { keys: Scheme::key_sizes().enumerate().map(key).collect(), primary: 0 }
    }

    /// Returns the id of the primary key.
    #[must_use]
    pub fn primary_id(&self) -> &str {
        &self.primary().id
    }

    /// Returns the key that masks.
    pub(crate) fn primary(&self) -> &Key {
        &self.keys[self.primary]
    }

    /// Whether a key of this ring made this text.
    pub fn is_token(&self, text: &[u8]) -> Result<bool, OutOfMemory> {
        // This usually decides, at no cost.
        if !Scheme::of_mask(text).is_some_and(Scheme::needs_key) {
            return Ok(false);
        }
        match self.open(text) {
            Ok(_) => Ok(true),
            Err(Unreadable::OutOfMemory) => Err(OutOfMemory),
            Err(_) => Ok(false),
        }
    }

    /// Returns every token that a value may have: the primary key's first, then those of the other keys, including retired
    /// ones.
    pub fn tokens(&self, value: &[u8]) -> impl Iterator<Item = Result<String, OutOfMemory>> {
        let others = self.keys.iter().enumerate().filter(|(index, _)| *index != self.primary);
        let keys = [self.primary()].into_iter().chain(others.map(|(_, key)| key));
        keys.map(move |key| {
            let mut token = zeroed_on_heap(key.masked_len(value))?;
            key.mask(value, &mut token)?;
            // A token is ASCII.
            Ok(String::from_utf8(token).unwrap_or_default())
        })
    }

    /// Returns the maximum length of the value of `token`, in bytes.
    #[must_use]
    pub fn unmasked_len(token: &[u8]) -> usize {
        token.len()
    }

    /// Writes the value of `token` into `out`, which must have [`Self::unmasked_len`] bytes. Returns the value's length.
    pub fn unmask(&self, token: &[u8], out: &mut [u8]) -> Result<usize, Unreadable> {
        let (opened, tag_bytes) = self.open(token)?;
        let value = &opened[tag_bytes..];
        out[..value.len()].copy_from_slice(value);
        Ok(value.len())
    }

    /// Opens a token. Returns its value, preceded by the bytes of its tag, and their number.
    fn open(&self, token: &[u8]) -> Result<(Bytes, usize), Unreadable> {
        let Token { scheme, key, mut sealed } = Token::parse(token)?.ok_or(Unreadable::NotAToken)?;
        let made = |known: &&Key| known.id == key && known.scheme() == scheme;
        let cipher = &self.keys.iter().find(made).ok_or(Unreadable::UnknownKey)?.cipher;
        cipher.open(&mut sealed)?;
        // Only texts are masked.
        if str::from_utf8(&sealed[cipher.tag_bytes()..]).is_err() {
            return Err(Unreadable::NotAuthentic);
        }
        Ok((sealed, cipher.tag_bytes()))
    }
}

impl Key {
    fn parse(written: WrittenKey<'_>, number: usize) -> Result<Self, RingError> {
        let wrong = |field, must_be| RingError::Key { number, field, must_be };
        let id = written.id.filter(|id| token::is_id(id));
        let id = id.ok_or_else(|| wrong("id", "1 to 32 letters, digits, - and _".into()))?;
        let state = match written.state.as_deref() {
            Some("active") => State::Active,
            Some("retired") => State::Retired,
            _ => return Err(wrong("state", "active or retired".into())),
        };
        let written = written.key.map_or("", RawValue::get).as_bytes();
        // The text may be too long, so this has room for all of it.
        let mut bytes = Zeroizing::new(vec![0; base64::decoded_len_estimate(written.len())]);
        let length = match written {
            // Base64 contains no escapes.
            [b'"', text @ .., b'"'] => STANDARD.decode_slice(text, &mut bytes).unwrap_or_default(),
            _ => 0,
        };
        let cipher = AnyCipher::new(&id, &bytes[..length]).ok_or_else(|| wrong("key", key_form().into()))?;
        Ok(Self { id, state, cipher })
    }

    /// Returns the scheme that masks under this key.
    pub(crate) fn scheme(&self) -> Scheme {
        self.cipher.scheme()
    }

    /// Returns the length of the token of `value`, in bytes.
    pub(crate) fn masked_len(&self, value: &[u8]) -> usize {
        token::len(self.scheme(), &self.id, self.cipher.tag_bytes() + value.len())
    }

    /// Writes the token of the text `value` into `out`, which must have [`Self::masked_len`] bytes. Returns the token's
    /// length.
    pub(crate) fn mask(&self, value: &[u8], out: &mut [u8]) -> Result<usize, OutOfMemory> {
        let mut sealed = Bytes::from_elem(0, self.cipher.tag_bytes());
        sealed.try_reserve_exact(value.len())?;
        sealed.extend_from_slice(value);
        self.cipher.seal(&mut sealed);
        Ok(token::write(self.scheme(), &self.id, &sealed, out))
    }
}

/// Describes a key as it is written in a ring: `64 bytes in base64`.
#[must_use]
pub fn key_form() -> String {
    let sizes = Scheme::key_sizes().map(|bytes| bytes.to_string()).collect::<Vec<_>>();
    format!("{} bytes in base64", sizes.join(" or "))
}

#[cfg(test)]
#[path = "keyring_tests.rs"]
pub(crate) mod tests;
