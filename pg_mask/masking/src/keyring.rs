//! The key ring: the keys of the scheme `aes-siv`, the tokens they make and read.

use std::cell::RefCell;
use std::fmt;

use aes::Aes256Enc;
use aes_siv::KeyInit as _;
use aes_siv::siv::{IV_SIZE, Siv};
use arrayvec::ArrayVec;
use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use serde::Deserialize;
use serde_json::value::RawValue;
use zeroize::Zeroizing;

use crate::mac::Remembering;
use crate::memory::{Bytes, OutOfMemory, zeroed, zeroed_on_heap};
use crate::scheme::Unreadable;

/// The version of the token's format, which is authenticated with each value. With the key id behind it, mostly one block.
const FORMAT: &[u8] = b"siv1$";
/// The bytes of a key: half of them for the tag, half for the encryption.
const KEY_BYTES: usize = 64;
/// The longest key id.
const ID_BYTES: usize = 32;
/// The most keys of a ring.
const MOST_KEYS: usize = 16;

/// The keys of a site, of which one masks and all read.
///
/// All that is secret lies in it and nowhere on the heap, so that whoever keeps a ring chooses the memory it is in.
pub struct KeyRing {
    keys: ArrayVec<Key, MOST_KEYS>,
    /// Where the key that masks stands in `keys`.
    primary: usize,
}

/// A key: AES-256-SIV (RFC 5297), which is deterministic and authenticated.
struct Key {
    id: String,
    state: State,
    /// What is authenticated with each value: the format's version and the key's id.
    header: ArrayVec<u8, { FORMAT.len() + ID_BYTES }>,
    /// Of encryption's half alone, which is all that SIV needs. It is changed by use and put back, never lent out.
    cipher: RefCell<Siv<Aes256Enc, Remembering>>,
}

/// What a key is still for.
#[derive(Clone, Copy, PartialEq, Eq)]
enum State {
    /// It may be the primary key, now or later.
    Active,
    /// It reads what tokens there may still be, in a backup, say, and must not mask any more.
    Retired,
}

/// What is wrong with a key ring. Names fields, places and key ids, and never what is in a key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Wrong {
    /// It is not JSON, or not of the form of a ring.
    Form {
        /// The line, from 1.
        line: usize,
        /// The column, from 1.
        column: usize,
    },
    /// A field of the ring is missing.
    Missing(&'static str),
    /// A field is there twice.
    Twice(&'static str),
    /// The ring has no keys.
    NoKeys,
    /// The ring has more keys than it may have.
    TooManyKeys,
    /// A field of a key is missing, or not what it must be.
    Key {
        /// Which key, from 1.
        number: usize,
        /// The field.
        field: &'static str,
        /// What it must be.
        must_be: &'static str,
    },
    /// Two keys have the same id.
    SameId(String),
    /// The primary key is not among the keys.
    NoPrimary,
    /// The primary key is retired.
    RetiredPrimary,
}

impl fmt::Display for Wrong {
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

/// A ring as it is written down. All may be missing, so that it is we who say what is: the errors of the parser quote
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
    /// Read where it lies: the parser would leave a copy of a text behind.
    #[serde(borrow)]
    key: Option<&'j RawValue>,
    state: Option<String>,
}

impl Wrong {
    fn of(error: &serde_json::Error) -> Self {
        let says = error.to_string();
        let twice = |field: &&str| says.starts_with(&format!("duplicate field `{field}`"));
        match ["primary", "keys", "id", "key", "state"].into_iter().find(twice) {
            Some(field) => Self::Twice(field),
            None => Self::Form { line: error.line(), column: error.column() },
        }
    }
}

impl KeyRing {
    /// Reads a ring: `{"primary": ID, "keys": [{"id": ID, "key": 64 bytes in base64, "state": "active"}, …]}`.
    pub fn parse(json: &[u8]) -> Result<Self, Wrong> {
        let written: Written<'_> = serde_json::from_slice(json).map_err(|error| Wrong::of(&error))?;
        let primary = written.primary.ok_or(Wrong::Missing("primary"))?;
        let mut keys = ArrayVec::<Key, MOST_KEYS>::new();
        for (key, number) in written.keys.ok_or(Wrong::Missing("keys"))?.into_iter().zip(1..) {
            let key = Key::parse(key, number)?;
            if keys.iter().any(|other| other.id == key.id) {
                return Err(Wrong::SameId(key.id));
            }
            keys.try_push(key).map_err(|_| Wrong::TooManyKeys)?;
        }
        if keys.is_empty() {
            return Err(Wrong::NoKeys);
        }
        let primary = keys.iter().position(|key| key.id == primary).ok_or(Wrong::NoPrimary)?;
        if keys[primary].state == State::Retired {
            return Err(Wrong::RetiredPrimary);
        }
        Ok(Self { keys, primary })
    }

    /// The most bytes that the masked form of a value of this length has.
    #[must_use]
    pub fn masked_len(&self, value: &[u8]) -> usize {
        self.keys[self.primary].token_len(value)
    }

    /// Writes the token of `value`, a text, into `out`, which is of [`Self::masked_len`], and returns its length.
    pub fn mask(&self, value: &[u8], out: &mut [u8]) -> Result<usize, OutOfMemory> {
        self.keys[self.primary].mask(value, out)
    }

    /// Whether a key of this ring made this.
    pub fn is_token(&self, text: &[u8]) -> Result<bool, OutOfMemory> {
        // Mostly the answer, at no cost.
        if !text.starts_with(Token::PREFIX) {
            return Ok(false);
        }
        match self.open(text) {
            Ok(_) => Ok(true),
            Err(Unreadable::OutOfMemory) => Err(OutOfMemory),
            Err(_) => Ok(false),
        }
    }

    /// Every token that a value may have: of the primary key first, then of the others, the retired ones too.
    pub fn tokens(&self, value: &[u8]) -> impl Iterator<Item = Result<String, OutOfMemory>> {
        let others = self.keys.iter().enumerate().filter(|(index, _)| *index != self.primary);
        let keys = [&self.keys[self.primary]].into_iter().chain(others.map(|(_, key)| key));
        keys.map(move |key| {
            let mut token = zeroed_on_heap(key.token_len(value))?;
            key.mask(value, &mut token)?;
            // A token is ASCII.
            Ok(String::from_utf8(token).unwrap_or_default())
        })
    }

    /// The most bytes that the value of a token of this length has.
    #[must_use]
    pub fn unmasked_len(token: &[u8]) -> usize {
        token.len()
    }

    /// Writes the value of `token` into `out`, which is of [`Self::unmasked_len`], and returns its length.
    pub fn unmask(&self, token: &[u8], out: &mut [u8]) -> Result<usize, Unreadable> {
        let opened = self.open(token)?;
        let value = &opened[IV_SIZE..];
        out[..value.len()].copy_from_slice(value);
        Ok(value.len())
    }

    /// The value of a token behind the place of its tag.
    fn open(&self, token: &[u8]) -> Result<Bytes, Unreadable> {
        let Token { key, mut sealed } = Token::parse(token)?.ok_or(Unreadable::NotAToken)?;
        let key = self.keys.iter().find(|known| known.id == key).ok_or(Unreadable::UnknownKey)?;
        key.open(&mut sealed)?;
        // Only texts are masked.
        if str::from_utf8(&sealed[IV_SIZE..]).is_err() {
            return Err(Unreadable::NotAuthentic);
        }
        Ok(sealed)
    }
}

/// What can be read of a token without its key.
pub struct Token<'t> {
    /// The id of the key that it says it is of.
    pub key: &'t str,
    /// The value's tag and ciphertext.
    sealed: Bytes,
}

impl<'t> Token<'t> {
    /// What a token begins with.
    pub(crate) const PREFIX: &'static [u8] = b"$siv$";

    /// Reads a text that has the form of a token.
    pub fn parse(text: &'t [u8]) -> Result<Option<Self>, OutOfMemory> {
        let Some((key, body)) = Self::parts(text) else { return Ok(None) };
        let mut sealed = zeroed(base64::decoded_len_estimate(body.len()))?;
        let length = URL_SAFE_NO_PAD.decode_slice(body, &mut sealed).unwrap_or_default();
        sealed.truncate(length);
        Ok((length >= IV_SIZE).then_some(Self { key, sealed }))
    }

    /// The key's id, and what stands behind it.
    fn parts(text: &'t [u8]) -> Option<(&'t str, &'t [u8])> {
        let rest = text.strip_prefix(Self::PREFIX)?;
        let end = rest.iter().position(|&byte| byte == b'$')?;
        let key = str::from_utf8(&rest[..end]).ok().filter(|id| is_id(id))?;
        Some((key, &rest[end + 1..]))
    }
}

impl Key {
    fn parse(written: WrittenKey<'_>, number: usize) -> Result<Self, Wrong> {
        let wrong = |field, must_be| Wrong::Key { number, field, must_be };
        let id = written.id.filter(|id| is_id(id));
        let id = id.ok_or_else(|| wrong("id", "1 to 32 letters, digits, - and _"))?;
        let state = match written.state.as_deref() {
            Some("active") => State::Active,
            Some("retired") => State::Retired,
            _ => return Err(wrong("state", "active or retired")),
        };
        let written = written.key.map_or("", RawValue::get).as_bytes();
        let mut bytes = Zeroizing::new([0; KEY_BYTES]);
        // Room for what may be too long.
        let mut decoded = Zeroizing::new(vec![0; base64::decoded_len_estimate(written.len())]);
        match written {
            // No base64 has an escape.
            [b'"', text @ .., b'"'] if STANDARD.decode_slice(text, &mut decoded) == Ok(KEY_BYTES) => {
                bytes.copy_from_slice(&decoded[..KEY_BYTES]);
            }
            _ => return Err(wrong("key", "64 bytes in base64")),
        }
        let cipher = RefCell::new(Siv::new((&*bytes).into()));
        let header = FORMAT.iter().copied().chain(id.bytes()).collect();
        Ok(Self { id, state, header, cipher })
    }

    fn token_len(&self, value: &[u8]) -> usize {
        let sealed = (IV_SIZE + value.len()) * 4;
        Token::PREFIX.len() + self.id.len() + 1 + sealed.div_ceil(3)
    }

    fn mask(&self, value: &[u8], out: &mut [u8]) -> Result<usize, OutOfMemory> {
        let mut sealed = Bytes::from_elem(0, IV_SIZE);
        sealed.try_reserve_exact(value.len())?;
        sealed.extend_from_slice(value);
        let (tag, text) = sealed.split_at_mut(IV_SIZE);
        let sealing = self.cipher.borrow_mut().encrypt_inout_detached([&self.header], text.into());
        // Not to be passed over: the value would stay as it is.
        tag.copy_from_slice(&sealing.expect("it fails for more than 126 headers alone"));
        let start = Token::PREFIX.len() + self.id.len() + 1;
        out[..Token::PREFIX.len()].copy_from_slice(Token::PREFIX);
        out[Token::PREFIX.len()..start - 1].copy_from_slice(self.id.as_bytes());
        out[start - 1] = b'$';
        // The room is of the very size.
        Ok(start + URL_SAFE_NO_PAD.encode_slice(&sealed, &mut out[start..]).unwrap_or_default())
    }

    fn open(&self, sealed: &mut [u8]) -> Result<(), Unreadable> {
        let (tag, text) = sealed.split_at_mut(IV_SIZE);
        let tag = (&*tag).try_into().map_err(|_| Unreadable::NotAToken)?;
        self.cipher
            .borrow_mut()
            .decrypt_inout_detached([&self.header], text.into(), &tag)
            .map_err(|_| Unreadable::NotAuthentic)
    }
}

fn is_id(id: &str) -> bool {
    (1..=ID_BYTES).contains(&id.len())
        && id.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_".contains(&byte))
}

#[cfg(test)]
#[path = "keyring_tests.rs"]
pub(crate) mod tests;
