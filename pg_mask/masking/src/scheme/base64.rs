//! The scheme `base64`: an encoding, which anyone can reverse.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

use super::{Encoding, Unreadable};

/// Base64 of the bytes (RFC 4648 section 4, standard alphabet with padding). It never contains a `$`.
pub(crate) struct Base64;

impl Encoding for Base64 {
    const PREFIX: &'static str = "";
    const FORM: &'static str = "base64 with padding (RFC 4648)";

    fn masked_len(value: &[u8]) -> usize {
        value.len().div_ceil(3) * 4
    }

    /// # Panics
    /// Panics if `out` is too short.
    fn mask(value: &[u8], out: &mut [u8]) -> usize {
        STANDARD.encode_slice(value, out).expect("there is room for as many bytes as were asked for")
    }

    fn unmasked_len(mask: &[u8]) -> usize {
        mask.len().div_ceil(4) * 3
    }

    /// Refuses other alphabets, missing padding, white space, stray trailing bits, and bytes that aren't a text that Postgres
    /// can store. So comparing masks compares values.
    fn unmask(mask: &[u8], out: &mut [u8]) -> Result<usize, Unreadable> {
        let length = STANDARD.decode_slice(mask, out).map_err(|_| Unreadable::NotAToken)?;
        let value =
            out.get(..length).and_then(|value| str::from_utf8(value).ok()).ok_or(Unreadable::NotAToken)?;
        if value.contains('\0') { Err(Unreadable::NotAToken) } else { Ok(length) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn mask(value: &str) -> String {
        let mut out = vec![0; Base64::masked_len(value.as_bytes())];
        assert_eq!(Base64::mask(value.as_bytes(), &mut out), out.len());
        String::from_utf8(out).expect("base64 is ASCII")
    }

    fn unmask(token: &str) -> Result<String, Unreadable> {
        let mut out = vec![0; Base64::unmasked_len(token.as_bytes())];
        let length = Base64::unmask(token.as_bytes(), &mut out)?;
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
    fn text_that_mask_never_makes_is_refused() {
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
