//! Schemes: ways to mask a text, and to take the mask back.
//!
//! A mask is deterministic (equal values have equal masks, different values different ones), so duplicates stay
//! visible on masks alone.

pub mod base64;

use serde::{Deserialize, Serialize};

use crate::keyring::{KeyRing, Token};
use crate::memory::{OutOfMemory, zeroed};

/// A way to mask.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Scheme {
    /// An encoding, which anyone can take back.
    #[serde(rename = "base64")]
    Base64,
    /// Encryption by AES-256-SIV, under the primary key of a ring.
    #[serde(rename = "aes-siv")]
    AesSiv,
}

/// Why a mask could not be taken back. Says nothing of what is in it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Unreadable {
    /// No scheme made it.
    NotAToken,
    /// It is of a key that is not on the ring.
    UnknownKey,
    /// It is not as the key that it names made it.
    NotAuthentic,
    /// The memory to read it is not there.
    OutOfMemory,
}

impl From<OutOfMemory> for Unreadable {
    fn from(_: OutOfMemory) -> Self {
        Self::OutOfMemory
    }
}

/// Makes the masks of a scheme.
#[derive(Clone, Copy)]
pub enum Masker<'k> {
    /// Those of `base64`. The ring, where there is one, knows the tokens that are to stay as they are.
    Base64(Option<&'k KeyRing>),
    /// Those of `aes-siv`.
    AesSiv(&'k KeyRing),
}

impl<'k> Masker<'k> {
    /// The masker of a scheme; none where that needs a ring and there is none.
    #[must_use]
    pub fn new(scheme: Scheme, ring: Option<&'k KeyRing>) -> Option<Self> {
        match scheme {
            Scheme::Base64 => Some(Self::Base64(ring)),
            Scheme::AesSiv => ring.map(Self::AesSiv),
        }
    }

    /// The most bytes that the mask of `value` has.
    #[must_use]
    pub fn masked_len(&self, value: &[u8]) -> usize {
        match self {
            Self::Base64(_) => base64::masked_len(value),
            Self::AesSiv(ring) => ring.masked_len(value),
        }
    }

    /// Writes the mask of `value`, a text, into `out`, which is of [`Self::masked_len`], and returns its length.
    ///
    /// A token that a key of the ring made stays as it is: nothing is masked twice.
    pub fn mask(&self, value: &[u8], out: &mut [u8]) -> Result<usize, OutOfMemory> {
        let ring = match *self {
            Self::Base64(ring) => ring,
            Self::AesSiv(ring) => Some(ring),
        };
        if let Some(ring) = ring
            && ring.is_token(value)?
        {
            out[..value.len()].copy_from_slice(value);
            return Ok(value.len());
        }
        self.mask_anew(value, out)
    }

    /// The same whatever `value` is, so that unmasking gives just that.
    pub fn mask_anew(&self, value: &[u8], out: &mut [u8]) -> Result<usize, OutOfMemory> {
        match self {
            Self::Base64(_) => Ok(base64::mask(value, out)),
            Self::AesSiv(ring) => ring.mask(value, out),
        }
    }
}

/// Whether a text has the form of a mask. A base64 text may also be a value that happens to look so.
pub fn is_mask(text: &[u8]) -> Result<bool, OutOfMemory> {
    if is_keyed(text) {
        return Ok(Token::parse(text)?.is_some());
    }
    let mut value = zeroed(base64::unmasked_len(text))?;
    Ok(base64::unmask(text, &mut value).is_ok())
}

/// Whether a key ring is needed to take this mask back.
#[must_use]
pub fn is_keyed(mask: &[u8]) -> bool {
    // No standard base64 has a `$`.
    mask.starts_with(Token::PREFIX)
}

/// The most bytes that [`remask`] writes.
#[must_use]
pub fn remasked_len(mask: &[u8], ring: &KeyRing) -> usize {
    // A value is shorter than its mask.
    ring.masked_len(mask)
}

/// Writes the mask that `mask`, of any scheme and key, is to become under the ring's primary key, and returns its length.
pub fn remask(mask: &[u8], ring: &KeyRing, out: &mut [u8]) -> Result<usize, Unreadable> {
    let mut value = zeroed(mask.len())?;
    let length =
        if is_keyed(mask) { ring.unmask(mask, &mut value) } else { base64::unmask(mask, &mut value) }?;
    Ok(ring.mask(&value[..length], out)?)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::keyring::tests::{a, a_then_b};
    use proptest::prelude::*;

    fn mask(masker: Masker<'_>, value: &str) -> String {
        let mut out = vec![0; masker.masked_len(value.as_bytes())];
        let length = masker.mask(value.as_bytes(), &mut out).expect("memory");
        out.truncate(length);
        String::from_utf8(out).expect("a mask is ASCII, or was a text before")
    }

    fn remask(text: &str, ring: &KeyRing) -> Result<String, Unreadable> {
        let mut out = vec![0; remasked_len(text.as_bytes(), ring)];
        let length = super::remask(text.as_bytes(), ring, &mut out)?;
        out.truncate(length);
        Ok(String::from_utf8(out).expect("a mask is ASCII"))
    }

    #[test]
    fn a_scheme_that_needs_keys_has_no_masker_without() {
        assert!(Masker::new(Scheme::AesSiv, None).is_none());
        assert!(matches!(Masker::new(Scheme::Base64, None), Some(Masker::Base64(None))));
        assert!(matches!(Masker::new(Scheme::AesSiv, Some(&a())), Some(Masker::AesSiv(_))));
    }

    #[test]
    fn what_is_no_mask_is_told_from_one() {
        let token = mask(Masker::AesSiv(&a()), "199.172.111.135");
        for text in ["", "MTk5LjE3Mi4xMTEuMTM1", &token] {
            assert_eq!(is_mask(text.as_bytes()), Ok(true), "{text}");
        }
        for text in ["199.172.111.135", "2001:db8::1", "558-94-9716", "$siv$a$", "$siv$", &token[..20]] {
            assert_eq!(is_mask(text.as_bytes()), Ok(false), "{text}");
        }
    }

    proptest! {
        #[test]
        fn nothing_is_masked_twice(value in "[^\0]*") {
            let (a, b) = (a(), a_then_b());
            let once = mask(Masker::AesSiv(&a), &value);
            // Under whatever key of the ring it was made, and whatever scheme is to mask it.
            for masker in [Masker::AesSiv(&a), Masker::AesSiv(&b), Masker::Base64(Some(&b))] {
                prop_assert_eq!(&mask(masker, &once), &once);
            }
            // What only looks like a token is a value.
            let unreadable = format!("{once}A");
            let token = mask(Masker::AesSiv(&a), &unreadable);
            prop_assert_ne!(&token, &unreadable);
            let mut out = vec![0; token.len()];
            prop_assert_eq!(a.unmask(token.as_bytes(), &mut out), Ok(unreadable.len()));
        }

        #[test]
        fn remasking_makes_the_mask_of_the_value(value in "[^\0]*") {
            let (a, b) = (a(), a_then_b());
            let new = mask(Masker::AesSiv(&b), &value);
            for old in [Masker::Base64(None), Masker::AesSiv(&a), Masker::AesSiv(&b)] {
                prop_assert_eq!(remask(&mask(old, &value), &b), Ok(new.clone()));
            }
            prop_assert!(!is_keyed(value.as_bytes()) && is_keyed(new.as_bytes()));
            prop_assert_eq!(remask(&new, &a), Err(Unreadable::UnknownKey));
        }
    }
}
