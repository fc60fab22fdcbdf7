//! Any text becomes a row of as many fields as there are columns, or a reject; and if PostgreSQL's rules for JSON take the
//! text for an object, a reject is for a reason of its own.
#![no_main]

use libfuzzer_sys::fuzz_target;
use masking::scheme::Scheme;
use masking::{Column, Masked, Masks, Message, Reject, Rule, Rules};

fuzz_target!(|body: &str| {
    let column =
        |name: &str, rule, limit, json| Column { name: name.into(), rule, limit, not_null: false, json };
    let rules = Rules::new(vec![
        column("user_id", Rule::Copy("user_id".into()), Some(8), false),
        column("masked_ip", Rule::Mask(Masked { key: "ip".into(), scheme: None }), Some(16), false),
        column("ip", Rule::Copy("ip".into()), None, false),
        column("app_version", Rule::Version("app_version".into()), None, false),
        column("details", Rule::Copy("details".into()), None, true),
        column("sent", Rule::SentDate, None, false),
    ]);
    let mut rows = rules.rows();
    let is_object =
        matches!(serde_json::from_str::<serde_json::Value>(body), Ok(serde_json::Value::Object(_)));
    let masks = Masks { default: Scheme::Base64, ring: None };
    match rules.push(&Message { id: None, sent_at: i64::MAX, body }, &masks, &mut rows) {
        Ok(()) => {
            assert_eq!(rows.len(), 1);
            assert_eq!(rows.fields(0).count(), rules.columns().len());
            for column in [0, 1, 2, 4] {
                // Postgres takes nothing else for a text.
                let text = rows.field(0, column).map(|text| str::from_utf8(text).expect("UTF-8"));
                assert!(!text.is_some_and(|text| text.contains('\0')));
            }
        }
        Err(reject) => {
            assert_eq!((rows.len(), rows.bytes()), (0, 0));
            assert!(!(is_object && reject == Reject::NotAnObject), "an object is one");
        }
    }
});
