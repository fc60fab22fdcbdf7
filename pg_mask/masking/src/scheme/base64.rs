//! The scheme `base64`: an encoding, which anyone can take back.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

use super::Unreadable;
use crate::memory::{OutOfMemory, zeroed_on_heap};

/// The bytes of the masked form of `value`.
#[must_use]
pub fn masked_len(value: &[u8]) -> usize {
    value.len().div_ceil(3) * 4
}

/// Writes the masked form of `value` into `out`, which is of [`masked_len`], and returns its length: base64 of the bytes,
/// RFC 4648 section 4, standard alphabet with padding.
///
/// # Panics
/// Where `out` is shorter.
pub fn mask(value: &[u8], out: &mut [u8]) -> usize {
    STANDARD.encode_slice(value, out).expect("there is room for as many bytes as were asked for")
}

/// The masked form of `value`, as [`mask`] writes it.
pub fn masked(value: &[u8]) -> Result<String, OutOfMemory> {
    let mut token = zeroed_on_heap(masked_len(value))?;
    mask(value, &mut token);
    // A token is ASCII.
    Ok(String::from_utf8(token).unwrap_or_default())
}

/// The most bytes that the value of a token of this length has.
#[must_use]
pub fn unmasked_len(token: &[u8]) -> usize {
    token.len().div_ceil(4) * 3
}

/// Writes the value that [`mask`] made `token` from into `out`, which is of [`unmasked_len`], and returns its length.
///
/// Only what `mask` can have made is accepted, so that comparing tokens is comparing values: no other alphabet, missing
/// padding, white space or stray trailing bits, and no bytes that are no text which Postgres can store.
pub fn unmask(token: &[u8], out: &mut [u8]) -> Result<usize, Unreadable> {
    let length = STANDARD.decode_slice(token, out).map_err(|_| Unreadable::NotAToken)?;
    let value =
        out.get(..length).and_then(|value| str::from_utf8(value).ok()).ok_or(Unreadable::NotAToken)?;
    if value.contains('\0') { Err(Unreadable::NotAToken) } else { Ok(length) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn mask(value: &str) -> String {
        let mut out = vec![0; masked_len(value.as_bytes())];
        assert_eq!(super::mask(value.as_bytes(), &mut out), out.len());
        let token = String::from_utf8(out).expect("base64 is ASCII");
        assert_eq!(masked(value.as_bytes()).as_ref(), Ok(&token));
        token
    }

    fn unmask(token: &str) -> Result<String, Unreadable> {
        let mut out = vec![0; unmasked_len(token.as_bytes())];
        let length = super::unmask(token.as_bytes(), &mut out)?;
        out.truncate(length);
        Ok(String::from_utf8(out).expect("it was checked"))
    }

    #[test]
    fn the_mask_is_standard_base64_with_padding() {
        // RFC 4648, section 10, and the README's own example.
        for (value, token) in [
            ("", ""),
            ("f", "Zg=="),
            ("fo", "Zm8="),
            ("foo", "Zm9v"),
            ("foob", "Zm9vYg=="),
            ("fooba", "Zm9vYmE="),
            ("foobar", "Zm9vYmFy"),
            ("199.172.111.135", "MTk5LjE3Mi4xMTEuMTM1"),
            ("grüße>?", "Z3LDvMOfZT4/"),
        ] {
            assert_eq!(mask(value), token);
            assert_eq!(unmask(token).as_deref(), Ok(value));
        }
    }

    #[test]
    fn what_mask_cannot_have_made_is_refused() {
        for token in ["Zg", "Zg=", "Zh==", "Zg==\n", " Zg==", "Z-_=", "Zg==Zg==", "$siv$1$abc", "é"] {
            assert_eq!(unmask(token), Err(Unreadable::NotAToken));
        }
        assert_eq!(unmask("/w=="), Err(Unreadable::NotAToken), "not UTF-8");
        assert_eq!(unmask("AA=="), Err(Unreadable::NotAToken), "a NUL");
    }

    proptest! {
        #[test]
        fn any_text_can_be_taken_back(value in "[^\0]*") {
            prop_assert_eq!(unmask(&mask(&value)), Ok(value));
        }

        #[test]
        fn equal_values_and_only_they_have_equal_masks(a in "[ab1.]{0,6}", b in "[ab1.]{0,6}") {
            prop_assert_eq!(a == b, mask(&a) == mask(&b));
        }

        #[test]
        fn unmasking_any_text_is_a_value_or_an_error(token in "\\PC*") {
            if let Ok(value) = unmask(&token) {
                prop_assert_eq!(mask(&value), token);
            }
        }
    }
}
