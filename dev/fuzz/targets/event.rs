//! Any text becomes a row with as many fields as there are columns, or a reject. If serde_json reads the text as an object,
//! it is never rejected as not an object. In an envelope, under a pointer or in a string, the text has an equal result. If
//! the first line of a text is a pointer, it finds in the rest what serde_json finds there.
#![no_main]

use libfuzzer_sys::fuzz_target;
use masking::scheme::Scheme;
use masking::{Column, Envelope, MaskRule, MaskContext, Event, Pointer, PushError, Reject, Rows, Rule, Rules};
use serde_json::Value;

fn rules() -> Rules {
    let column =
        |name: &str, rule, limit, json| Column { name: name.into(), rule, limit, not_null: false, json };
    Rules::new(vec![
        column("user_id", Rule::Copy("user_id".into()), Some(8), false),
        column("masked_ip", Rule::Mask(MaskRule { key: "ip".into(), scheme: None }), Some(16), false),
        column("ip", Rule::Copy("ip".into()), None, false),
        column("app_version", Rule::Version("app_version".into()), None, false),
        column("details", Rule::Copy("details".into()), None, true),
        column("sent", Rule::SentDate, None, false),
    ])
}

/// Returns the rows and the result for `body`, with the event at `event` in the text in `envelope`.
fn pushed(envelope: Envelope, event: Pointer, body: &str) -> (Rows, Result<(), Reject>) {
    let rules = rules().of_events_at(envelope, event);
    let mut rows = rules.rows();
    let masks = MaskContext { default: Scheme::Base64, ring: None };
    let result = rules.push(&Event { id: None, sent_at: SENT_AT, body }, &masks, &mut rows);
    let result = result.map_err(|error| match error {
        PushError::Reject(reject) => reject,
        PushError::OutOfMemory => panic!("out of memory"),
    });
    match &result {
        Ok(()) => assert_eq!((rows.len(), rows.fields(0).count()), (1, rules.columns().len())),
        Err(_) => assert_eq!((rows.len(), rows.bytes()), (0, 0)),
    }
    (rows, result)
}

/// 2000-01-02 UTC.
const SENT_AT: i64 = 86_400_000_000;

fuzz_target!(|text: &str| {
    let at = |pointer: &str| pointer.parse::<Pointer>().expect("a pointer");
    let (rows, result) = pushed(Envelope::None, at(""), text);
    let json = serde_json::from_str::<Value>(text);
    match &result {
        Ok(()) => {
            for column in [0, 1, 2, 4] {
                // Postgres accepts only such bytes as a text.
                let text = rows.field(0, column).map(|text| str::from_utf8(text).expect("UTF-8"));
                assert!(!text.is_some_and(|text| text.contains('\0')));
            }
        }
        Err(reject) => {
            let is_object = matches!(json, Ok(Value::Object(_)));
            assert!(!(is_object && *reject == Reject::NotAnObject), "an object is one");
        }
    }

    let quoted = serde_json::to_string(text).expect("a string is JSON");
    let notification = format!(
        r#"{{"Type":"Notification","MessageId":"22b80b92-fdea-4c2c-8f9d-bdfb0c7bf324","Message":{quoted},"Timestamp":"2000-01-02T00:00:00Z"}}"#
    );
    let mut within = vec![
        (Envelope::Sns, "", notification),
        (Envelope::None, "/a/0", format!("{{\"a\":[{quoted}]}}")),
    ];
    // Under a pointer a string's text is read, but a body that is a string is not. An event that isn't JSON may close the
    // JSON around it.
    if matches!(&json, Ok(value) if !value.is_string()) {
        within.push((Envelope::None, "/1/~1", format!("[0, {{\"/\":{text}}}]")));
    }
    for (envelope, event, body) in within {
        let (same, also) = pushed(envelope, at(event), &body);
        assert_eq!(also.is_ok(), result.is_ok());
        assert!(result.is_err() || same.fields(0).eq(rows.fields(0)), "the same row");
    }
    // Neither the envelope nor the location is the right one.
    for pointer in ["", "/a", "/0/a"] {
        _ = pushed(Envelope::Sns, at(pointer), text);
        _ = pushed(Envelope::None, at(pointer), text);
    }

    if let Some((pointer, document)) = text.split_once('\n')
        && let Ok(event) = pointer.parse::<Pointer>()
        && !pointer.is_empty()
        && let Ok(value) = serde_json::from_str::<Value>(document)
    {
        let (_, result) = pushed(Envelope::None, event, document);
        let found = !matches!(result, Err(Reject::NoEvent { .. }));
        assert_eq!(found, value.pointer(pointer).is_some_and(|found| !found.is_null()));
    }
});
