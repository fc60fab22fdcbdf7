//! Properties that each scheme of the list keeps.

use std::collections::HashSet;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use proptest::prelude::*;

use crate::keyring::{KeyRing, key_form};
use crate::masker::{self, Masker, all_masks};
use crate::scheme::{self, Kind, Scheme, Unreadable};

/// Returns the schemes with keys.
fn ciphers() -> Vec<Scheme> {
    Scheme::ALL.iter().copied().filter(|scheme| scheme.needs_key()).collect()
}

/// Returns a ring with a key for each of `schemes`, which need keys. Its id is what `id` makes of the scheme.
fn ring(schemes: &[Scheme], primary: Scheme, id: impl Fn(Scheme) -> &'static str) -> KeyRing {
    let key = |(scheme, bytes): (Scheme, usize)| {
        let key = STANDARD.encode(vec![7; bytes]);
        schemes
            .contains(&scheme)
            .then(|| format!(r#"{{"id":"{}","state":"active","key":"{key}"}}"#, id(scheme)))
    };
    let keys = ciphers().into_iter().zip(Scheme::key_sizes()).filter_map(key).collect::<Vec<_>>().join(",");
    let json = format!(r#"{{"primary":"{}","keys":[{keys}]}}"#, id(primary));
    KeyRing::parse(json.as_bytes()).unwrap_or_else(|wrong| panic!("{wrong}"))
}

/// Returns a ring with a key for each scheme that needs one. `primary` masks, if it needs a key.
fn whole_ring(primary: Scheme) -> KeyRing {
    let primary = if primary.needs_key() { primary } else { ciphers()[0] };
    ring(&ciphers(), primary, Scheme::name)
}

/// Returns a ring with one key, whose id is the same for each scheme. Returns none for a scheme without keys.
fn ring_of_one(scheme: Scheme) -> Option<KeyRing> {
    scheme.needs_key().then(|| ring(&[scheme], scheme, |_| "key"))
}

/// Masks a value, whatever it is.
fn mask_under(ring: Option<&KeyRing>, scheme: Scheme, value: &str) -> String {
    let masker = Masker::new(scheme, ring).expect("a key");
    let mut out = vec![0; masker.masked_len(value.as_bytes())];
    let length = masker.mask_any(value.as_bytes(), &mut out).expect("memory");
    out.truncate(length);
    String::from_utf8(out).expect("the mask of a text is a text")
}

fn mask(scheme: Scheme, value: &str) -> String {
    mask_under(Some(&whole_ring(scheme)), scheme, value)
}

fn unmask(mask: &str, ring: Option<&KeyRing>) -> Result<String, Unreadable> {
    let mut out = vec![0; masker::unmasked_len(mask.as_bytes())];
    let length = masker::unmask(mask.as_bytes(), ring, &mut out)?;
    out.truncate(length);
    Ok(String::from_utf8(out).expect("it was checked"))
}

/// Unmasks a mask by this scheme alone, whatever the mask's prefix.
fn unmask_by(scheme: Scheme, mask: &str) -> Result<usize, Unreadable> {
    let mut out = vec![0; 2 * mask.len() + 3];
    match (scheme.kind(), ring_of_one(scheme)) {
        (Kind::Cipher { .. }, Some(ring)) => ring.unmask(mask.as_bytes(), &mut out),
        (Kind::Encoding(encoding), None) => encoding.unmask(mask.as_bytes(), &mut out),
        _ => unreachable!("a scheme has a ring if it is a cipher"),
    }
}

#[test]
fn each_scheme_has_a_name_of_its_own() {
    let names: HashSet<_> = Scheme::ALL.iter().map(|scheme| scheme.name()).collect();
    assert_eq!(names.len(), Scheme::ALL.len());
    for scheme in Scheme::ALL.iter().copied() {
        assert_eq!(Scheme::named(scheme.name()), Some(scheme));
        assert_eq!(scheme.c_name().to_str(), Ok(scheme.name()));
        let json = format!("\"{}\"", scheme.name());
        assert_eq!(serde_json::from_str(&json).ok(), Some(scheme));
        assert_eq!(serde_json::to_string(&scheme).ok(), Some(json));
    }
    for name in ["", "BASE64", "aes_siv", "base64 "] {
        assert_eq!(Scheme::named(name), None);
    }
}

#[test]
fn the_hints_name_each_scheme() {
    for scheme in Scheme::ALL {
        assert!(scheme::names('\'').contains(&format!("'{}'", scheme.name())));
        assert!(!scheme.needs_key() || scheme::forms().contains(scheme.prefix()));
    }
    assert_eq!(scheme::forms().split(", or ").count(), Scheme::ALL.len());
    let sizes = Scheme::key_sizes().map(|bytes| bytes.to_string()).collect::<Vec<_>>();
    assert_eq!(key_form(), format!("{} bytes in base64", sizes.join(" or ")));
}

#[test]
fn each_prefix_tells_one_scheme_and_each_length_of_a_key_one_cipher() {
    for one in Scheme::ALL.iter().copied() {
        for other in Scheme::ALL.iter().copied().filter(|other| *other != one) {
            assert!(
                one.prefix().is_empty() || !other.prefix().starts_with(one.prefix()),
                "{one:?} {other:?}"
            );
            assert!(!(one.prefix().is_empty() && other.prefix().is_empty()), "{one:?} {other:?}");
        }
        let is_framed =
            one.prefix().len() > 2 && one.prefix().starts_with('$') && one.prefix().ends_with('$');
        assert!(is_framed || !one.needs_key());
    }
    let sizes: HashSet<_> = Scheme::key_sizes().collect();
    assert_eq!(sizes.len(), ciphers().len());
}

#[test]
fn a_scheme_with_keys_is_stronger_than_one_without() {
    assert!(Scheme::ALL.is_sorted_by(|weaker, stronger| weaker < stronger));
    assert!(Scheme::ALL.is_sorted_by_key(|scheme| scheme.needs_key()));
}

#[test]
fn only_a_primary_key_of_the_scheme_masks() {
    for scheme in ciphers() {
        assert!(Masker::new(scheme, None).is_none());
        for primary in ciphers() {
            assert_eq!(Masker::new(scheme, Some(&whole_ring(primary))).is_some(), scheme == primary);
        }
    }
}

#[test]
fn a_token_cannot_name_another_key() {
    for (scheme, bytes) in ciphers().into_iter().zip(Scheme::key_sizes()) {
        let key = STANDARD.encode(vec![7; bytes]);
        let key = |id: &str| format!(r#"{{"id":"{id}","state":"active","key":"{key}"}}"#);
        let twins = format!(r#"{{"primary":"a","keys":[{},{}]}}"#, key("a"), key("b"));
        let twins = KeyRing::parse(twins.as_bytes()).unwrap_or_else(|wrong| panic!("{wrong}"));
        let token = mask_under(Some(&twins), scheme, "value");
        let other = token.replacen("$a$", "$b$", 1);
        assert_ne!(token, other);
        assert_eq!(unmask(&other, Some(&twins)), Err(Unreadable::NotAuthentic));
    }
}

#[test]
fn the_ring_of_zeros_has_a_key_of_each_cipher() {
    let tokens = KeyRing::of_zeros().tokens(b"value").collect::<Result<Vec<_>, _>>().expect("memory");
    assert_eq!(tokens.iter().map(|token| Scheme::of_mask(token.as_bytes())).collect::<Vec<_>>(), {
        ciphers().into_iter().map(Some).collect::<Vec<_>>()
    });
    for token in tokens {
        assert_eq!(unmask(&token, Some(&KeyRing::of_zeros())).as_deref(), Ok("value"));
    }
}

proptest! {
    #[test]
    fn any_value_comes_back(value in "[^\0]*") {
        for scheme in Scheme::ALL.iter().copied() {
            let mask = mask(scheme, &value);
            // Unmasking does not depend on the scheme or key that masks now.
            for primary in ciphers() {
                prop_assert_eq!(unmask(&mask, Some(&whole_ring(primary))), Ok(value.clone()));
            }
            prop_assert!(value.len() <= mask.len());
        }
    }

    #[test]
    fn equal_values_and_only_they_have_equal_masks(a in "[ab1.]{0,6}", b in "[ab1.]{0,6}") {
        for scheme in Scheme::ALL.iter().copied() {
            prop_assert_eq!(a == b, mask(scheme, &a) == mask(scheme, &b));
        }
    }

    #[test]
    fn a_mask_tells_its_scheme(value in "[^\0]*") {
        for scheme in Scheme::ALL.iter().copied() {
            let mask = mask(scheme, &value);
            prop_assert_eq!(Scheme::of_mask(mask.as_bytes()), Some(scheme));
            prop_assert_eq!(masker::is_mask(mask.as_bytes()), Ok(true));
            prop_assert_eq!(masker::is_keyed(mask.as_bytes()), scheme.needs_key());
        }
    }

    #[test]
    fn no_scheme_takes_a_mask_of_another(value in "[^\0]*") {
        for scheme in Scheme::ALL.iter().copied() {
            let mask = mask_under(ring_of_one(scheme).as_ref(), scheme, &value);
            for other in Scheme::ALL.iter().copied() {
                let expected = match (scheme == other, scheme.needs_key() && other.needs_key()) {
                    (true, _) => Ok(value.len()),
                    (false, true) => Err(Unreadable::UnknownKey),
                    (false, false) => Err(Unreadable::NotAToken),
                };
                prop_assert_eq!(unmask_by(other, &mask), expected, "{:?} {:?}", scheme, other);
            }
        }
    }

    #[test]
    fn a_changed_token_is_refused_and_leaves_nothing_of_the_value(
        value in "[^\0]{0,40}", place in any::<prop::sample::Index>(), bit in 0..8,
    ) {
        for scheme in ciphers() {
            let mut token = mask(scheme, &value).into_bytes();
            let place = place.index(token.len());
            token[place] ^= 1_u8 << bit;
            let mut out = vec![0; token.len()];
            prop_assert!(whole_ring(scheme).unmask(&token, &mut out).is_err());
            prop_assert!(out.iter().all(|&byte| byte == 0));
        }
    }

    #[test]
    fn text_that_unmasks_is_the_mask_of_its_value(text in r"(\$[a-z0-9]{1,8}\$)?[-_+/=A-Za-z0-9$]*|\PC*") {
        for scheme in Scheme::ALL.iter().copied() {
            if Scheme::of_mask(text.as_bytes()) == Some(scheme)
                && let Ok(value) = unmask(&text, Some(&whole_ring(scheme)))
            {
                prop_assert_eq!(mask(scheme, &value), text.clone());
            }
        }
    }

    #[test]
    fn every_mask_of_a_value_is_listed(value in "[^\0$]*") {
        let masks: HashSet<_> = Scheme::ALL.iter().map(|scheme| mask(*scheme, &value)).collect();
        for primary in ciphers() {
            let all = all_masks(&value, Some(&whole_ring(primary))).expect("memory");
            prop_assert_eq!(&all[0], &mask(primary, &value));
            prop_assert_eq!(all.into_iter().collect::<HashSet<_>>(), masks.clone());
        }
    }
}
