use super::*;
use crate::keyring::KeyRing;
use crate::keyring::tests::a;
use crate::reject::Reject;
use crate::rows::Kind;
use proptest::prelude::*;

const ID: [u8; 16] = [7; 16];
/// 2024-02-29 23:59:59.999999 UTC.
const SENT_AT: i64 = 762_566_399_999_999;

fn column(name: &str, rule: Rule, limit: Option<usize>) -> Column {
    Column { name: name.into(), rule, limit, not_null: name == "user_id", json: name == "details" }
}

/// The default settings.
const BASE64: MaskContext<'_> = MaskContext { default: Scheme::Base64, ring: None };

fn mask_of(key: &str, scheme: Option<Scheme>) -> Rule {
    Rule::Mask(MaskRule { key: key.into(), scheme })
}

fn rules() -> Rules {
    Rules::new(vec![
        column("user_id", Rule::Copy("user_id".into()), Some(128)),
        column("masked_ip", mask_of("ip", None), Some(256)),
        column("ip", Rule::Copy("ip".into()), None),
        column("locale", Rule::Copy("locale".into()), Some(5)),
        column("app_version", Rule::Version("app_version".into()), None),
        column("details", Rule::Copy("details".into()), None),
        column("create_date", Rule::SentDate, None),
        column("sent_at", Rule::SentAt, None),
        column("message_id", Rule::MessageId, None),
    ])
}

fn row(body: &str) -> Result<Rows, Reject> {
    let rules = rules();
    let mut rows = rules.rows();
    rules
        .push(&Event { id: Some(ID), sent_at: SENT_AT, body }, &BASE64, &mut rows)
        .map_err(PushError::reject)?;
    Ok(rows)
}

/// Returns the row's value of column `name`, from a body with a `user_id` and `members`.
fn value_of(name: &str, members: &str) -> Result<String, Reject> {
    let body = format!("{{\"user_id\":\"u\",{members}}}");
    let index =
        rules().columns().iter().position(|column| column.name == name).expect("a column of the rules");
    row(&body).map(|row| match (row.field(0, index), rules().columns()[index].rule.kind()) {
        (None, _) => "NULL".into(),
        (Some(text), Kind::Text) => String::from_utf8(text.to_vec()).expect("UTF-8"),
        (Some(number), Kind::Integer) => {
            i32::from_be_bytes(number.try_into().expect("four bytes")).to_string()
        }
        _ => unreachable!("columns from the event alone"),
    })
}

fn mask(scheme: Scheme, ring: Option<&KeyRing>, text: &str) -> String {
    let masker = Masker::new(scheme, ring).expect("a key");
    let mut mask = vec![0; masker.masked_len(text.as_bytes())];
    let length = masker.mask(text.as_bytes(), &mut mask).expect("memory");
    mask.truncate(length);
    String::from_utf8(mask).expect("a mask is ASCII")
}

#[test]
fn an_event_becomes_a_row() {
    let body = r#"{"user_id":"u","app_version":"2.3.0","ip":"199.172.111.135","locale":"RU","other":[{}]}"#;
    let row = row(body).expect("a row");
    let expected: [Option<&[u8]>; 9] = [
        Some(b"u"),
        Some(b"MTk5LjE3Mi4xMTEuMTM1"),
        Some(b"199.172.111.135"),
        Some(b"RU"),
        Some(&230_i32.to_be_bytes()),
        None,
        Some(&8825_i32.to_be_bytes()),
        Some(&SENT_AT.to_be_bytes()),
        Some(&ID),
    ];
    assert!(row.fields(0).eq(expected));
}

#[test]
fn a_key_that_is_absent_or_null_gives_null() {
    for members in [r#""a":1"#, r#""ip":null,"locale":null,"app_version":null,"details":null"#] {
        for name in ["masked_ip", "ip", "locale", "app_version", "details"] {
            assert_eq!(value_of(name, members).as_deref(), Ok("NULL"));
        }
    }
}

#[test]
fn scalars_go_in_as_their_text() {
    for (json, text) in [
        (r#""a\"b\u00e9""#, "a\"bé"),
        (r#""""#, ""),
        ("1.50", "1.50"),
        ("-0", "-0"),
        ("12345678901234567890123", "12345678901234567890123"),
        ("1E5", "1E5"),
        ("true", "true"),
    ] {
        assert_eq!(value_of("ip", &format!("\"ip\":{json}")).as_deref(), Ok(text));
        assert_eq!(value_of("masked_ip", &format!("\"ip\":{json}")), Ok(mask(Scheme::Base64, None, text)));
    }
}

#[test]
fn a_json_column_takes_any_value() {
    for json in [r#"{"a": [1, "\u0041"]}"#, "[]", r#""text""#, "1.50", "false"] {
        assert_eq!(value_of("details", &format!("\"details\":{json}")).as_deref(), Ok(json));
    }
}

#[test]
fn the_last_of_duplicate_keys_wins() {
    assert_eq!(value_of("ip", r#""ip":"a","ip":"b""#).as_deref(), Ok("b"));
    assert_eq!(value_of("ip", r#""ip":"a","ip":null"#).as_deref(), Ok("NULL"));
    assert_eq!(value_of("ip", r#""ip":[],"ip":"b""#).as_deref(), Ok("b"));
    assert_eq!(value_of("ip", r#""ip":"a","\u0069p":"escaped""#).as_deref(), Ok("escaped"));
}

#[test]
fn a_version_loses_its_dots() {
    for (version, number) in [("5.6.3", 563), ("2.3.0", 230), ("0.9", 9), ("7", 7), ("2147483647", i32::MAX)]
    {
        assert_eq!(
            value_of("app_version", &format!("\"app_version\":\"{version}\"")),
            Ok(number.to_string())
        );
    }
    for version in ["", ".", "5.6.3-beta", "-5", "+5", " 5", "٣", "2147483648", "99.99.99.99.99.99"] {
        let reject = Reject::NotAVersion { key: "app_version".into() };
        assert_eq!(value_of("app_version", &format!("\"app_version\":\"{version}\"")), Err(reject));
    }
}

#[test]
fn a_body_that_is_no_login_is_rejected() {
    let key = |key: &str| key.to_owned();
    let missing = Reject::Missing { column: "user_id".into(), key: Some(key("user_id")) };
    for (body, reject) in [
        ("", Reject::NotJson),
        ("{", Reject::NotJson),
        ("{\"user_id\":\"u\"}}", Reject::NotJson),
        ("{\"user_id\":\"u\",}", Reject::NotJson),
        ("{'user_id':'u'}", Reject::NotJson),
        ("{\"user_id\":\"tab\there\"}", Reject::NotJson),
        ("{\"user_id\":\"\\ud800\"}", Reject::NotJson),
        ("\u{feff}{}", Reject::NotJson),
        ("[]", Reject::NotAnObject),
        ("\"text\"", Reject::NotAnObject),
        ("1", Reject::NotAnObject),
        ("null", Reject::NotAnObject),
        ("{}", missing.clone()),
        (r#"{"foo":"oops_wrong_msg_type","bar":"123"}"#, missing.clone()),
        (r#"{"user_id":null}"#, missing),
        (r#"{"user_id":["u"]}"#, Reject::NotAScalar { key: key("user_id") }),
        (r#"{"user_id":"u","ip":{"v":4}}"#, Reject::NotAScalar { key: key("ip") }),
        (r#"{"user_id":"u\u0000"}"#, Reject::EscapedNul { key: key("user_id") }),
        (r#"{"user_id":"u","ip":"\u0000"}"#, Reject::EscapedNul { key: key("ip") }),
        (r#"{"user_id":"u","locale":"123456"}"#, Reject::TooLong { column: key("locale"), limit: 5 }),
    ] {
        assert!(row(body).err() == Some(reject), "{body}");
    }
}

#[test]
fn a_length_is_counted_in_characters() {
    assert_eq!(value_of("locale", r#""locale":"ééééé""#).as_deref(), Ok("ééééé"));
    assert_eq!(
        value_of("locale", r#""locale":"12345  ""#).as_deref(),
        Ok("12345  "),
        "Postgres cuts spaces off"
    );
}

#[test]
fn a_mask_too_long_for_its_column_is_a_reject() {
    let members = |n: usize| format!("\"ip\":\"{}\"", "x".repeat(n));
    assert!(value_of("masked_ip", &members(192)).is_ok());
    let reject = Reject::MaskTooLong { column: "masked_ip".into(), limit: 256 };
    assert_eq!(value_of("masked_ip", &members(193)), Err(reject));
}

#[test]
fn a_rule_names_its_scheme_or_takes_the_default() {
    let ring = a();
    let rules = Rules::new(
        [("default", None), ("base64", Some(Scheme::Base64)), ("keyed", Some(Scheme::AesSiv))]
            .map(|(name, scheme)| column(name, mask_of("ip", scheme), Some(60)))
            .into(),
    );
    let masks_of = |default, body| {
        let mut rows = rules.rows();
        let message = Event { id: Some(ID), sent_at: SENT_AT, body };
        rules
            .push(&message, &MaskContext { default, ring: Some(&ring) }, &mut rows)
            .map_err(PushError::reject)?;
        Ok::<_, Reject>([0, 1, 2].map(|column| {
            String::from_utf8(rows.field(0, column).expect("no NULL").to_vec()).expect("a text")
        }))
    };
    let (base64, keyed) =
        (mask(Scheme::Base64, None, "10.0.0.1"), mask(Scheme::AesSiv, Some(&ring), "10.0.0.1"));
    let body = r#"{"ip":"10.0.0.1"}"#;
    assert_eq!(masks_of(Scheme::Base64, body), Ok([&base64, &base64, &keyed].map(String::clone)));
    assert_eq!(masks_of(Scheme::AesSiv, body), Ok([&keyed, &base64, &keyed].map(String::clone)));
    // A token stays unchanged.
    let body = format!("{{\"ip\":\"{keyed}\"}}");
    assert_eq!(masks_of(Scheme::Base64, &body), Ok([&keyed, &keyed, &keyed].map(String::clone)));
    // A token is longer than base64.
    let reject = Reject::MaskTooLong { column: "keyed".into(), limit: 60 };
    assert_eq!(masks_of(Scheme::Base64, r#"{"ip":"a device id of 31 characters"}"#), Err(reject));
}

#[test]
fn a_reject_is_masked_by_the_strongest_scheme_of_the_rules() {
    let ring = a();
    for (default, scheme, keyed) in [
        (Scheme::Base64, None, false),
        (Scheme::Base64, Some(Scheme::Base64), false),
        (Scheme::Base64, Some(Scheme::AesSiv), true),
        (Scheme::AesSiv, None, true),
        (Scheme::AesSiv, Some(Scheme::Base64), true),
    ] {
        let rules = Rules::new(vec![
            column("masked_device_id", mask_of("device_id", Some(Scheme::Base64)), None),
            column("masked_ip", mask_of("ip", scheme), None),
        ]);
        assert_eq!(rules.need_keys(default), keyed);
        let masks = MaskContext { default, ring: Some(&ring) };
        let mut reject = vec![0; 100];
        let length = rules.masker_of_rejects(&masks).mask(b"{", &mut reject).expect("memory");
        assert_eq!(reject[..length].starts_with(b"$siv$"), keyed);
        assert_eq!(rules.scheme_without_key(&masks), None);
        let without = rules.scheme_without_key(&MaskContext { default, ring: None });
        assert_eq!(without, keyed.then_some(Scheme::AesSiv));
    }
}

#[test]
fn nesting_of_any_depth_is_read_without_recursion() {
    let deep = format!("{}{}", "[".repeat(200_000), "]".repeat(200_000));
    assert_eq!(value_of("ip", &format!("\"other\":{deep}")).as_deref(), Ok("NULL"));
    assert_eq!(value_of("ip", &format!("\"ip\":{deep}")), Err(Reject::NotAScalar { key: "ip".into() }));
}

#[test]
fn a_reason_never_quotes_the_event() {
    for body in [
        r#"{"user_id":"SECRET"#,
        r#"{"user_id":["SECRET"]}"#,
        r#"{"SECRET":"SECRET"}"#,
        r#"{"user_id":"SECRET\u0000"}"#,
        r#"{"user_id":"u","app_version":"SECRET"}"#,
        r#"{"user_id":"u","locale":"SECRET"}"#,
        "SECRET",
    ] {
        let reason = row(body).err().map(|reject| reject.to_string()).expect("a reject");
        assert!(!reason.contains("SECRET"), "{reason}");
    }
}

proptest! {
    #[test]
    fn every_text_becomes_a_row_or_a_reject(body in any::<String>()) {
        let _: Result<_, _> = row(&body);
    }

    #[test]
    fn every_near_event_becomes_a_row_or_a_reject(
        body in r#"[ ]?\{("(user_id|ip|locale|app_version|details|x)":("[a-z\\"u0]{0,8}"|[-0-9.eE]{1,4}|null|\[|\]|\{|\}|true),?){0,5}[}]?"#
    ) {
        if let Ok(row) = row(&body) {
            prop_assert_eq!(row.fields(0).count(), rules().columns().len());
        }
    }

    #[test]
    fn every_json_string_survives(value in "[^\0]*") {
        let json = serde_json::to_string(&value).expect("a string is JSON");
        prop_assert_eq!(value_of("ip", &format!("\"ip\":{json}")), Ok(value.clone()));
        prop_assert_eq!(value_of("masked_ip", &format!("\"ip\":{json}")).ok(), Some(mask(Scheme::Base64, None, &value)).filter(|mask| mask.len() <= 256));
    }
}
