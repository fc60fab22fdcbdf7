//! Any bytes are a ring that masks, or are refused in an error that quotes nothing long enough to be a key.
#![no_main]

use libfuzzer_sys::fuzz_target;
use masking::keyring::KeyRing;
use masking::masker::Masker;
use masking::scheme::Scheme;

fuzz_target!(|json: &[u8]| {
    match KeyRing::parse(json) {
        Ok(ring) => {
            let mut keyed = Scheme::ALL.iter().filter(|scheme| scheme.needs_key());
            let masker = keyed.find_map(|scheme| Masker::new(*scheme, Some(&ring)));
            let masker = masker.expect("the primary key is one of a scheme");
            let mut token = vec![0; masker.masked_len(b"value")];
            let length = masker.mask(b"value", &mut token).expect("memory");
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
