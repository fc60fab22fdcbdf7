//! Any text is a token of the ring or refused; any text is masked and taken back, never masked twice, and re-masked to a
//! token of the primary key or refused.
#![no_main]

use std::sync::LazyLock;

use libfuzzer_sys::fuzz_target;
use masking::keyring::{KeyRing, Token};
use masking::scheme::{self, Masker, base64};

const RING: &[u8] = br#"{"primary": "b", "keys": [
    {"id": "a", "state": "retired", "key": "AQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQ=="},
    {"id": "b", "state": "active", "key": "AgICAgICAgICAgICAgICAgICAgICAgICAgICAgICAgICAgICAgICAgICAgICAgICAgICAgICAgICAgICAgICAg=="}]}"#;

fn key_of(token: &[u8]) -> Option<&str> {
    Token::parse(token).expect("memory").map(|token| token.key)
}

fuzz_target!(|text: &str| {
    thread_local! {
        static KEYS: LazyLock<KeyRing> = LazyLock::new(|| KeyRing::parse(RING).expect("a ring"));
    }
    KEYS.with(|ring| {
        let value = text.as_bytes();
        let mask = |value: &[u8]| {
            let masker = Masker::AesSiv(ring);
            let mut token = vec![0; masker.masked_len(value)];
            let length = masker.mask(value, &mut token).expect("memory");
            token.truncate(length);
            token
        };
        let token = mask(value);
        assert_eq!(mask(&token), token, "nothing is masked twice");
        let mut unmasked = vec![0; KeyRing::unmasked_len(&token)];
        let length = ring.unmask(&token, &mut unmasked).expect("what was masked can be taken back");
        assert!(ring.is_token(value) == Ok(true) || unmasked[..length] == *value);
        assert_eq!(Ok(key_of(&token).is_some()), scheme::is_mask(&token));

        let mut remasked = vec![0; scheme::remasked_len(value, ring)];
        if let Ok(length) = scheme::remask(value, ring, &mut remasked) {
            assert_eq!(scheme::is_mask(value), Ok(true));
            assert_eq!(key_of(&remasked[..length]), Some("b"));
        }
    });
    let mut value = vec![0; base64::unmasked_len(text.as_bytes())];
    if let Ok(length) = base64::unmask(text.as_bytes(), &mut value) {
        let mut token = vec![0; base64::masked_len(&value[..length])];
        base64::mask(&value[..length], &mut token);
        assert_eq!(token, text.as_bytes(), "one token for each value");
    }
});
