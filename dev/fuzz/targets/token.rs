//! Any text is a token of the ring, or is refused. Any text can be masked and unmasked. It is never masked twice. It is
//! re-masked to a token of the primary key, or is refused. A text that can be unmasked without keys is the mask of its value.
#![no_main]

use std::sync::LazyLock;

use libfuzzer_sys::fuzz_target;
use masking::keyring::KeyRing;
use masking::masker::{self, Masker};
use masking::scheme::Scheme;
use masking::token::Token;

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
            let masker = Masker::new(Scheme::AesSiv, Some(ring)).expect("a key");
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
        assert_eq!(Ok(key_of(&token).is_some()), masker::is_mask(&token));

        let mut remasked = vec![0; masker::remasked_len(value, ring)];
        if let Ok(length) = masker::remask(value, ring, &mut remasked) {
            assert_eq!(masker::is_mask(value), Ok(true));
            assert_eq!(key_of(&remasked[..length]), Some("b"));
        }
    });
    let mut value = vec![0; masker::unmasked_len(text.as_bytes())];
    if let Ok(length) = masker::unmask(text.as_bytes(), None, &mut value) {
        let made_it = |scheme: &Scheme| {
            let Some(masker) = Masker::new(*scheme, None) else { return false };
            let mut mask = vec![0; masker.masked_len(&value[..length])];
            let length = masker.mask(&value[..length], &mut mask).expect("memory");
            mask[..length] == *text.as_bytes()
        };
        assert!(Scheme::ALL.iter().any(made_it), "one mask for each value");
    }
});
