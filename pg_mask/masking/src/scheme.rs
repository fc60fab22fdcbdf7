//! Schemes: ways to mask a text, and to unmask the mask. Each is one file and one line of the list in this file.
//!
//! A mask is deterministic: equal values have equal masks, and different values have different ones. So duplicates stay
//! visible in the masks alone. A mask says which scheme made it: only base64 has no prefix.

mod aes_siv;
mod base64;
mod enums;

use std::ffi::CStr;

use serde::{Deserialize, Serialize};

use crate::memory::OutOfMemory;
use enums::schemes;

// The order is by strength, weakest first. A name stands in settings and rules, so it never changes.
schemes! {
    encodings {
        "base64" => base64::Base64,
    }
    ciphers {
        "aes-siv" => aes_siv::AesSiv,
    }
}

/// A scheme without keys, which anyone can reverse.
pub(crate) trait Encoding {
    /// The beginning of each mask. Only one scheme may have an empty prefix.
    const PREFIX: &'static str;
    /// Describes a mask, for hints.
    const FORM: &'static str;

    /// Returns the length of the mask of `value`, in bytes.
    fn masked_len(value: &[u8]) -> usize;

    /// Writes the mask of `value` into `out`, which must have [`Self::masked_len`] bytes, and returns its length.
    fn mask(value: &[u8], out: &mut [u8]) -> usize;

    /// Returns the maximum length of the value of `mask`, in bytes. A value is never longer than its mask.
    fn unmasked_len(mask: &[u8]) -> usize;

    /// Writes the value of `mask` into `out`, which must have [`Self::unmasked_len`] bytes, and returns its length.
    ///
    /// Accepts only what [`Self::mask`] can have made from a text that Postgres can store.
    fn unmask(mask: &[u8], out: &mut [u8]) -> Result<usize, Unreadable>;
}

/// A scheme with keys. A value of the type holds one key, and must wipe it when dropped.
///
/// The cipher seals bytes in place. [`Token`](crate::token::Token) makes a text of them that names the scheme and the key.
pub(crate) trait Cipher: Sized {
    /// The beginning of each token. It begins and ends with `$`.
    const PREFIX: &'static str;
    /// Length of a key in bytes. It tells which cipher a key of the ring is for, so each cipher has a length of its own.
    const KEY_BYTES: usize;
    /// Number of bytes that a sealed value has more than the value.
    const TAG_BYTES: usize;

    /// Takes a key of [`Self::KEY_BYTES`] bytes. The cipher must authenticate `id`, the key's name, with each value. An id
    /// has at most [`MAX_ID_BYTES`] bytes.
    fn new(id: &str, key: &[u8]) -> Self;

    /// Seals the value after the first [`Self::TAG_BYTES`] bytes in place, and overwrites these with its tag.
    fn seal(&self, sealed: &mut [u8]);

    /// Opens what [`Self::seal`] made, in place. If it fails, nothing of the value is left in `sealed`.
    fn open(&self, sealed: &mut [u8]) -> Result<(), Unreadable>;
}

/// Maximum length of a key's id, in bytes.
pub(crate) const MAX_ID_BYTES: usize = 32;

/// The reason that a mask cannot be unmasked. It reveals nothing of the value.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Unreadable {
    /// No scheme made it.
    NotAToken,
    /// Its key is not on the ring.
    UnknownKey,
    /// It isn't as the key that it names made it.
    NotAuthentic,
    /// There is not enough memory to read it.
    OutOfMemory,
}

impl From<OutOfMemory> for Unreadable {
    fn from(_: OutOfMemory) -> Self {
        Self::OutOfMemory
    }
}

/// A scheme's definition, as far as it needs no key.
#[derive(Clone, Copy)]
pub(crate) enum Kind {
    Encoding(AnyEncoding),
    Cipher { key_bytes: usize, tag_bytes: usize },
}

impl Scheme {
    /// Returns the scheme with this name.
    #[must_use]
    pub fn named(name: &str) -> Option<Self> {
        Self::ALL.iter().copied().find(|scheme| scheme.name() == name)
    }

    /// Whether masking and unmasking need a key.
    #[must_use]
    pub fn needs_key(self) -> bool {
        matches!(self.kind(), Kind::Cipher { .. })
    }

    /// Returns the lengths of keys that a ring can hold, in bytes.
    pub(crate) fn key_sizes() -> impl Iterator<Item = usize> {
        Self::ALL.iter().filter_map(|scheme| match scheme.kind() {
            Kind::Encoding(_) => None,
            Kind::Cipher { key_bytes, .. } => Some(key_bytes),
        })
    }

    /// Describes a mask of this scheme, for hints.
    fn form(self) -> String {
        match self.kind() {
            Kind::Encoding(encoding) => encoding.form().to_owned(),
            Kind::Cipher { .. } => format!("a token {}key$base64url", self.prefix()),
        }
    }
}

/// Lists the names of the schemes for a hint, each in quotes: `'base64' or 'aes-siv'`.
#[must_use]
pub fn names(quote: char) -> String {
    let quoted = Scheme::ALL.iter().map(|scheme| format!("{quote}{}{quote}", scheme.name()));
    quoted.collect::<Vec<_>>().join(" or ")
}

/// Lists the forms of masks, for a hint.
#[must_use]
pub fn forms() -> String {
    Scheme::ALL.iter().map(|scheme| scheme.form()).collect::<Vec<_>>().join(", or ")
}
