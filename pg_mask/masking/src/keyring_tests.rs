use super::*;
use proptest::prelude::*;

const A: [u8; 64] = [1; 64];
const B: [u8; 64] = [2; 64];

fn key(id: &str, bytes: &[u8], state: &str) -> String {
    format!(r#"{{"id":"{id}","key":"{}","state":"{state}"}}"#, STANDARD.encode(bytes))
}

fn ring(primary: &str, keys: &[String]) -> Result<KeyRing, RingError> {
    KeyRing::parse(format!(r#"{{"primary":"{primary}","keys":[{}]}}"#, keys.join(",")).as_bytes())
}

pub(crate) fn a() -> KeyRing {
    ring("a", &[key("a", &A, "active")]).expect("a ring")
}

/// Returns the ring in the middle of a rotation, and after it.
pub(crate) fn a_then_b() -> KeyRing {
    ring("b", &[key("a", &A, "active"), key("b", &B, "active")]).expect("a ring")
}

fn a_retired() -> KeyRing {
    ring("b", &[key("a", &A, "retired"), key("b", &B, "active")]).expect("a ring")
}

fn mask(ring: &KeyRing, value: &str) -> String {
    let mut out = vec![0; ring.primary().masked_len(value.as_bytes())];
    let length = ring.primary().mask(value.as_bytes(), &mut out).expect("memory");
    out.truncate(length);
    String::from_utf8(out).expect("a token is ASCII")
}

fn unmask(ring: &KeyRing, token: &str) -> Result<String, Unreadable> {
    let mut out = vec![0; KeyRing::unmasked_len(token.as_bytes())];
    let length = ring.unmask(token.as_bytes(), &mut out)?;
    out.truncate(length);
    Ok(String::from_utf8(out).expect("it was checked"))
}

#[test]
fn a_token_says_its_scheme_and_key_and_never_changes() {
    // Tokens are in users' tables: if this fails, those tokens cannot be read any more. Python's cryptography makes
    // identical ones.
    assert_eq!(mask(&a(), "199.172.111.135"), "$siv$a$1bgC_jH84HMZ79l-lgwgHo4nPTKO-xNmqdWVBX7w6Q");
    assert_eq!(mask(&a(), ""), "$siv$a$pOENNl4NO-RWnnD7XSrUsQ");
}

#[test]
fn a_rotation_reads_all_and_masks_with_the_primary_key() {
    let old = mask(&a(), "199.172.111.135");
    let new = mask(&a_then_b(), "199.172.111.135");
    assert!(old.starts_with("$siv$a$") && new.starts_with("$siv$b$"));
    for token in [&old, &new] {
        for ring in [&a_then_b(), &a_retired()] {
            assert_eq!(unmask(ring, token).as_deref(), Ok("199.172.111.135"));
        }
    }
    assert_eq!(unmask(&a(), &new), Err(Unreadable::UnknownKey));
    let tokens =
        |ring: KeyRing| ring.tokens(b"199.172.111.135").collect::<Result<Vec<_>, _>>().expect("memory");
    assert_eq!(tokens(a_then_b()), [new.clone(), old.clone()]);
    assert_eq!(tokens(a_retired()), [new, old.clone()]);
    assert_eq!(tokens(a()), [old]);
}

#[test]
fn malformed_and_inauthentic_tokens_are_different_errors() {
    let token = mask(&a(), "value");
    let body = &token["$siv$a$".len()..];
    for text in [
        "",
        "value",
        "$",
        "$siv$",
        "$siv$a",
        "$siv$a$",
        "$siv$$x",
        "$siv$a$AAAA",
        "$aes$a$x",
        body,
        &format!("$siv$a${body}="),
        &format!("$siv$a${body}$"),
        &format!(" {token}"),
        &format!("{token}\n"),
        &format!("$siv$é${body}"),
        &format!("$siv${}${body}", "a".repeat(33)),
    ] {
        assert_eq!(unmask(&a(), text), Err(Unreadable::NotAToken), "{text}");
    }
    assert_eq!(unmask(&a(), &format!("$siv$b${body}")), Err(Unreadable::UnknownKey));
    // The key id is authenticated: it cannot be replaced by another id, even by one of an identical key.
    let twins = ring("a", &[key("a", &A, "active"), key("b", &A, "active")]).expect("a ring");
    assert_eq!(unmask(&twins, &format!("$siv$b${body}")), Err(Unreadable::NotAuthentic));
    let other = ring("a", &[key("a", &B, "active")]).expect("a ring");
    assert_eq!(unmask(&other, &token), Err(Unreadable::NotAuthentic));
}

#[test]
fn a_wrong_ring_is_refused_by_field_and_never_quoted() {
    let secret = STANDARD.encode([7; 64]);
    let good = key("a", &A, "active");
    let wrong_key = |number| format!("field \"key\" of key {number} must be {}", key_form());
    let many = |count| (0..count).map(|n| key(&format!("k{n}"), &A, "active")).collect::<Vec<_>>().join(",");
    assert!(KeyRing::parse(format!(r#"{{"primary":"k0","keys":[{}]}}"#, many(16)).as_bytes()).is_ok());
    for (json, says) in [
        (String::new(), "line 1, column 0: this is not JSON, or not what a key ring has there"),
        ("{".into(), "line 1, column 1: this is not JSON, or not what a key ring has there"),
        (format!("\"{secret}\""), "line 1, column 90: this is not JSON, or not what a key ring has there"),
        (
            format!(r#"{{"primary":"a","keys":"{secret}"}}"#),
            "line 1, column 112: this is not JSON, or not what a key ring has there",
        ),
        (
            format!(r#"{{"{secret}":1}}"#),
            "line 1, column 91: this is not JSON, or not what a key ring has there",
        ),
        (format!(r#"{{"primary":"a","primary":"b","keys":[{good}]}}"#), "field \"primary\" is there twice"),
        (
            format!(r#"{{"primary":"a","keys":[{good}]}} x"#),
            "line 1, column 151: this is not JSON, or not what a key ring has there",
        ),
        (format!(r#"{{"keys":[{good}]}}"#), "field \"primary\" is missing"),
        (r#"{"primary":"a"}"#.into(), "field \"keys\" is missing"),
        (r#"{"primary":"a","keys":[]}"#.into(), "field \"keys\" is empty"),
        (format!(r#"{{"primary":"b","keys":[{good}]}}"#), "field \"primary\" is the id of none of the keys"),
        (format!(r#"{{"primary":"k0","keys":[{}]}}"#, many(17)), "field \"keys\" has more than 16 keys"),
        (format!(r#"{{"primary":"a","keys":[{good},{good}]}}"#), "two keys have the id \"a\""),
        (format!(r#"{{"primary":"a","keys":[{}]}}"#, key("a", &A, "retired")), "the primary key is retired"),
        (format!(r#"{{"primary":"a","keys":[{good},{}]}}"#, key("b", &[7; 63], "active")), &wrong_key(2)),
        (format!(r#"{{"primary":"a","keys":[{}]}}"#, key("a", &[7; 65], "active")), &wrong_key(1)),
        (r#"{"primary":"a","keys":[{"id":"a","key":"not base64","state":"active"}]}"#.into(), &wrong_key(1)),
        (format!(r#"{{"primary":"a","keys":[{}]}}"#, good.replace("AQEB", "\\u0041QEB")), &wrong_key(1)),
        (r#"{"primary":"a","keys":[{"id":"a","state":"active"}]}"#.into(), &wrong_key(1)),
        (
            format!(r#"{{"primary":"a","keys":[{}]}}"#, key("a$", &A, "active")),
            "field \"id\" of key 1 must be 1 to 32 letters, digits, - and _",
        ),
        (
            format!(r#"{{"primary":"a","keys":[{}]}}"#, key("a", &A, "old")),
            "field \"state\" of key 1 must be active or retired",
        ),
    ] {
        let wrong = KeyRing::parse(json.as_bytes()).err().map(|wrong| wrong.to_string());
        assert_eq!(wrong.as_deref(), Some(says), "{json}");
        assert!(!says.contains(&secret[..8]));
    }
}

proptest! {
    #[test]
    fn any_text_can_be_taken_back(value in "[^\0]*") {
        prop_assert_eq!(unmask(&a(), &mask(&a(), &value)), Ok(value));
    }

    #[test]
    fn equal_values_and_only_they_have_equal_tokens(a_value in "[ab1.]{0,20}", b_value in "[ab1.]{0,20}") {
        prop_assert_eq!(a_value == b_value, mask(&a(), &a_value) == mask(&a(), &b_value));
        prop_assert_ne!(mask(&a(), &a_value), mask(&a_then_b(), &a_value));
    }

    #[test]
    fn any_flipped_bit_is_refused(value in "[^\0]{0,40}", place in any::<prop::sample::Index>(), bit in 0..8) {
        let mut token = mask(&a(), &value).into_bytes();
        let place = place.index(token.len());
        token[place] ^= 1_u8 << bit;
        let mut out = vec![0; token.len()];
        prop_assert!(a().unmask(&token, &mut out).is_err());
        // The refusal returns nothing of the value.
        prop_assert!(out.iter().all(|&byte| byte == 0));
    }

    #[test]
    fn unmasking_any_text_is_a_value_or_an_error(token in r"(\$siv\$a\$)?[-_A-Za-z0-9$]*|\PC*") {
        prop_assert!(unmask(&a(), &token).is_err());
    }

    #[test]
    fn any_ring_is_read_or_refused(json in r#"[{}\[\]":,a-z0-9]*"#) {
        prop_assert!(KeyRing::parse(json.as_bytes()).is_err());
    }
}
