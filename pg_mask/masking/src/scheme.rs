//! Schemes: ways to mask a text, and to take the mask back.
//!
//! A mask is deterministic (equal values have equal masks, different values different ones), so duplicates stay
//! visible on masks alone.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

/// The masked form of `value`: base64 of its UTF-8 bytes, RFC 4648 section 4, standard alphabet with padding.
#[must_use]
pub fn mask(value: &str) -> String {
    STANDARD.encode(value)
}

/// The text is no token: not canonical base64 (another alphabet, missing padding, white space, stray trailing bits),
/// or base64 of bytes that are no text that Postgres can store (not UTF-8, or with a NUL). Quotes nothing of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct NotAToken;

/// The value that [`mask`] made `token` from.
///
/// Only what `mask` can have made is accepted: one token for each value, so that comparing tokens is comparing values.
pub fn unmask(token: &str) -> Result<String, NotAToken> {
    let bytes = STANDARD.decode(token).map_err(|_| NotAToken)?;
    match String::from_utf8(bytes) {
        Ok(value) if !value.contains('\0') => Ok(value),
        _ => Err(NotAToken),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

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
            assert_eq!(unmask(token), Err(NotAToken));
        }
        assert_eq!(unmask("/w=="), Err(NotAToken), "not UTF-8");
        assert_eq!(unmask("AA=="), Err(NotAToken), "a NUL");
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
