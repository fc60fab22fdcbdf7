//! Masks values by a scheme, and unmasks and re-masks masks of any scheme.

use crate::keyring::{Key, KeyRing};
use crate::memory::{OutOfMemory, copied, zeroed, zeroed_on_heap};
use crate::scheme::{AnyEncoding, Kind, Scheme, Unreadable};
use crate::token::Token;

/// Makes the masks of a scheme.
#[derive(Clone, Copy)]
pub struct Masker<'k> {
    method: Method<'k>,
    /// Recognizes the tokens that must stay unchanged.
    ring: Option<&'k KeyRing>,
}

#[derive(Clone, Copy)]
enum Method<'k> {
    Encoding(AnyEncoding),
    Key(&'k Key),
}

impl<'k> Masker<'k> {
    /// Returns the masker of a scheme, or none if the scheme needs a key and the ring's primary key is not one of its own.
    #[must_use]
    pub fn new(scheme: Scheme, ring: Option<&'k KeyRing>) -> Option<Self> {
        let method = match scheme.kind() {
            Kind::Encoding(encoding) => Method::Encoding(encoding),
            Kind::Cipher { .. } => {
                Method::Key(ring.map(KeyRing::primary).filter(|key| key.scheme() == scheme)?)
            }
        };
        Some(Self { method, ring })
    }

    /// Returns the maximum length of the mask of `value`, in bytes.
    #[must_use]
    pub fn masked_len(&self, value: &[u8]) -> usize {
        match self.method {
            Method::Encoding(encoding) => encoding.masked_len(value),
            Method::Key(key) => key.masked_len(value),
        }
    }

    /// Writes the mask of the text `value` into `out`, which must have [`Self::masked_len`] bytes. Returns the mask's
    /// length.
    ///
    /// A token made by a key of the ring stays unchanged: nothing is masked twice.
    pub fn mask(&self, value: &[u8], out: &mut [u8]) -> Result<usize, OutOfMemory> {
        if let Some(ring) = self.ring
            && ring.is_token(value)?
        {
            out[..value.len()].copy_from_slice(value);
            return Ok(value.len());
        }
        self.mask_any(value, out)
    }

    /// Writes the mask of `value` into `out` as [`Self::mask`] does, but masks a token too. So unmasking always returns
    /// `value`.
    pub fn mask_any(&self, value: &[u8], out: &mut [u8]) -> Result<usize, OutOfMemory> {
        match self.method {
            Method::Encoding(encoding) => Ok(encoding.mask(value, out)),
            Method::Key(key) => key.mask(value, out),
        }
    }
}

/// The default scheme, and the keys for masks of a keyed scheme.
#[derive(Clone, Copy)]
pub struct MaskContext<'k> {
    /// The scheme for rules that name none.
    pub default: Scheme,
    /// The ring, if there is one.
    pub ring: Option<&'k KeyRing>,
}

impl<'k> MaskContext<'k> {
    /// Returns the masker for `scheme`, or for the default. Its key is there: see
    /// [`Rules::scheme_without_key`](crate::Rules::scheme_without_key).
    pub(crate) fn masker(&self, scheme: Option<Scheme>) -> Masker<'k> {
        Masker::new(scheme.unwrap_or(self.default), self.ring).expect("a ring, where the rules need keys")
    }
}

/// Returns every mask that a value may have: a token for each key of the ring, the primary's first, and the mask by each
/// scheme without keys.
///
/// A token is its own only mask: other masks would reveal the value in it.
pub fn all_masks(value: &str, ring: Option<&KeyRing>) -> Result<Vec<String>, OutOfMemory> {
    let bytes = value.as_bytes();
    if let Some(ring) = ring
        && ring.is_token(bytes)?
    {
        return Ok(vec![copied(value)?]);
    }
    let tokens = ring.into_iter().flat_map(|ring| ring.tokens(bytes));
    let encoded = Scheme::ALL.iter().filter_map(|scheme| match scheme.kind() {
        Kind::Encoding(encoding) => Some(encoded(encoding, bytes)),
        Kind::Cipher { .. } => None,
    });
    tokens.chain(encoded).collect()
}

fn encoded(encoding: AnyEncoding, value: &[u8]) -> Result<String, OutOfMemory> {
    let mut mask = zeroed_on_heap(encoding.masked_len(value))?;
    let length = encoding.mask(value, &mut mask);
    mask.truncate(length);
    // The mask of a text is a text.
    Ok(String::from_utf8(mask).unwrap_or_default())
}

/// Whether a text has the form of a mask. A value may also happen to look like base64 of a text.
pub fn is_mask(text: &[u8]) -> Result<bool, OutOfMemory> {
    if is_keyed(text) {
        return Ok(Token::parse(text)?.is_some());
    }
    let mut value = zeroed(unmasked_len(text))?;
    Ok(unmask(text, None, &mut value).is_ok())
}

/// Whether unmasking this mask needs a key ring.
#[must_use]
pub fn is_keyed(mask: &[u8]) -> bool {
    Scheme::of_mask(mask).is_some_and(Scheme::needs_key)
}

/// Returns the maximum length of the value of `mask`, in bytes.
#[must_use]
pub fn unmasked_len(mask: &[u8]) -> usize {
    match Scheme::of_mask(mask).map(Scheme::kind) {
        Some(Kind::Encoding(encoding)) => encoding.unmasked_len(mask),
        Some(Kind::Cipher { .. }) => KeyRing::unmasked_len(mask),
        None => 0,
    }
}

/// Writes the value of `mask`, of any scheme and key, into `out`, which must have [`unmasked_len`] bytes. Returns the value's
/// length. A mask that [`is_keyed`] needs the ring.
pub fn unmask(mask: &[u8], ring: Option<&KeyRing>, out: &mut [u8]) -> Result<usize, Unreadable> {
    match Scheme::of_mask(mask).map(Scheme::kind) {
        Some(Kind::Encoding(encoding)) => encoding.unmask(mask, out),
        Some(Kind::Cipher { .. }) => ring.ok_or(Unreadable::UnknownKey)?.unmask(mask, out),
        None => Err(Unreadable::NotAToken),
    }
}

/// Returns the maximum number of bytes that [`remask`] writes.
#[must_use]
pub fn remasked_len(mask: &[u8], ring: &KeyRing) -> usize {
    // A value is shorter than its mask, or as long.
    ring.primary().masked_len(mask)
}

/// Writes `mask`, of any scheme and key, masked again under the ring's primary key into `out`. Returns the new mask's
/// length.
pub fn remask(mask: &[u8], ring: &KeyRing, out: &mut [u8]) -> Result<usize, Unreadable> {
    let mut value = zeroed(unmasked_len(mask))?;
    let length = unmask(mask, Some(ring), &mut value)?;
    Ok(ring.primary().mask(&value[..length], out)?)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::keyring::tests::{a, a_then_b};
    use crate::scheme::Scheme::{AesSiv, Base64};
    use proptest::prelude::*;

    fn mask(scheme: Scheme, ring: Option<&KeyRing>, value: &str) -> String {
        let masker = Masker::new(scheme, ring).expect("a key");
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
        assert!(Masker::new(AesSiv, None).is_none());
        assert!(Masker::new(Base64, None).is_some());
        assert!(Masker::new(AesSiv, Some(&a())).is_some());
    }

    #[test]
    fn text_that_is_no_mask_is_recognised() {
        let token = mask(AesSiv, Some(&a()), "199.172.111.135");
        for text in ["", "MTk5LjE3Mi4xMTEuMTM1", &token] {
            assert_eq!(is_mask(text.as_bytes()), Ok(true), "{text}");
        }
        for text in ["199.172.111.135", "2001:db8::1", "558-94-9716", "$siv$a$", "$siv$", &token[..20]] {
            assert_eq!(is_mask(text.as_bytes()), Ok(false), "{text}");
        }
    }

    #[test]
    fn every_mask_of_a_value_is_listed_and_a_token_is_its_own_only_mask() {
        let (a, b) = (a(), a_then_b());
        let (old, new) = (mask(AesSiv, Some(&a), "10.0.0.1"), mask(AesSiv, Some(&b), "10.0.0.1"));
        let base64 = mask(Base64, None, "10.0.0.1");
        let all = |value: &str, ring| all_masks(value, ring).expect("memory");
        assert!(all("10.0.0.1", Some(&b)).starts_with(&[new.clone(), old.clone(), base64.clone()]));
        assert!(all("10.0.0.1", None).starts_with(&[base64]));
        // A token of a key that is not on the ring is a value.
        assert!(!all(&new, Some(&a)).contains(&new));
        assert_eq!(all(&old, Some(&b)), [old]);
    }

    proptest! {
        #[test]
        fn nothing_is_masked_twice(value in "[^\0]*") {
            let (a, b) = (a(), a_then_b());
            let once = mask(AesSiv, Some(&a), &value);
            // The scheme of the second masker and the token's key do not matter.
            for (scheme, ring) in [(AesSiv, &a), (AesSiv, &b), (Base64, &b)] {
                prop_assert_eq!(&mask(scheme, Some(ring), &once), &once);
            }
            // A text that only looks like a token is a value.
            let unreadable = format!("{once}A");
            let token = mask(AesSiv, Some(&a), &unreadable);
            prop_assert_ne!(&token, &unreadable);
            let mut out = vec![0; token.len()];
            prop_assert_eq!(a.unmask(token.as_bytes(), &mut out), Ok(unreadable.len()));
        }

        #[test]
        fn remasking_makes_the_mask_of_the_value(value in "[^\0]*") {
            let (a, b) = (a(), a_then_b());
            let new = mask(AesSiv, Some(&b), &value);
            for (scheme, ring) in [(Base64, None), (AesSiv, Some(&a)), (AesSiv, Some(&b))] {
                prop_assert_eq!(remask(&mask(scheme, ring, &value), &b), Ok(new.clone()));
            }
            prop_assert!(!is_keyed(value.as_bytes()) && is_keyed(new.as_bytes()));
            prop_assert_eq!(remask(&new, &a), Err(Unreadable::UnknownKey));
        }
    }
}
