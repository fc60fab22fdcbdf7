//! Any bytes are a ring that masks, or are refused in words that quote nothing long enough to be a key.
#![no_main]

use libfuzzer_sys::fuzz_target;
use masking::keyring::KeyRing;

fuzz_target!(|json: &[u8]| {
    match KeyRing::parse(json) {
        Ok(ring) => {
            let mut token = vec![0; ring.masked_len(b"value")];
            let length = ring.mask(b"value", &mut token).expect("memory");
            assert_eq!(ring.is_token(&token[..length]), Ok(true));
            assert!(ring.tokens(b"value").any(|one| one.expect("memory").as_bytes() == &token[..length]));
        }
        Err(wrong) => {
            let says = wrong.to_string();
            let quoted = says.split('"').map(str::len).max().unwrap_or_default();
            assert!(quoted < 80, "{says}");
        }
    }
});
