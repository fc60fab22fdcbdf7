//! Events in envelopes, under pointers and in strings become the rows that they become as whole bodies.

use proptest::prelude::*;

use crate::Reject::{EventNotAnObject, EventNotJson, NotAnObject, NotJson};
use crate::scheme::Scheme;
use crate::{Column, Envelope, Event, MaskContext, MaskRule, PushError, Reject, Rule, Rules};

const ID: [u8; 16] = [7; 16];
/// 2024-02-29 23:59:59.999999 UTC.
const SENT_AT: i64 = 762_566_399_999_999;

type Fields = Vec<Option<Vec<u8>>>;

/// Returns the row of a message. `queue` is the id and time from the queue.
fn row(
    envelope: Envelope,
    event: &str,
    queue: (Option<[u8; 16]>, i64),
    body: &str,
) -> Result<Fields, Reject> {
    let rules = [
        ("user_id", Rule::Copy("user_id".into())),
        ("masked_ip", Rule::Mask(MaskRule { key: "ip".into(), scheme: None })),
        ("details", Rule::Copy("details".into())),
        ("sent_at", Rule::SentAt),
        ("create_date", Rule::SentDate),
        ("message_id", Rule::MessageId),
    ]
    .map(|(name, rule)| Column {
        name: name.into(),
        rule,
        limit: None,
        not_null: name == "user_id",
        json: name == "details",
    });
    let rules = Rules::new(rules.into()).of_events_at(envelope, event.parse().expect("a pointer"));
    let mut rows = rules.rows();
    let masks = MaskContext { default: Scheme::Base64, ring: None };
    rules
        .push(&Event { id: queue.0, sent_at: queue.1, body }, &masks, &mut rows)
        .map_err(PushError::reject)?;
    Ok(rows.fields(0).map(|field| field.map(<[u8]>::to_vec)).collect())
}

fn bare(event: &str) -> Result<Fields, Reject> {
    row(Envelope::None, "", (Some(ID), SENT_AT), event)
}

fn quoted(text: &str) -> String {
    serde_json::to_string(text).expect("a string is JSON")
}

fn notification(text: &str) -> String {
    format!(
        r#"{{"Type":"Notification","MessageId":"07070707-0707-0707-0707-070707070707","Message":{},"Timestamp":"2024-02-29T23:59:59.999999Z"}}"#,
        quoted(text)
    )
}

/// Returns the results for `event` in five places. Two are under a pointer: bare and in a string. Three are in a
/// notification: as its text, and under a pointer, bare and in a string.
fn within(event: &str) -> [Result<Fields, Reject>; 5] {
    let at = "/detail/1/a~1b";
    let detail = |event: &str| format!(r#"{{"detail":[0,{{"a/b":{event}}}]}}"#);
    let (queue, others) = ((Some(ID), SENT_AT), (Some([1; 16]), 0));
    [
        row(Envelope::None, at, queue, &detail(event)),
        row(Envelope::None, at, queue, &detail(&quoted(event))),
        row(Envelope::Sns, "", others, &notification(event)),
        row(Envelope::Sns, at, others, &notification(&detail(event))),
        row(Envelope::Sns, at, others, &notification(&detail(&quoted(event)))),
    ]
}

#[test]
fn an_event_within_becomes_the_same_row() {
    let event =
        r#" {"user_id":"u\n\"\u00e9","ip":"\ud83d\ude00","ip":"::1","details":{"a":[1.50,"\u0041"]}} "#;
    let expected = bare(event);
    assert_eq!(expected.as_ref().map(|fields| fields[1].as_deref()), Ok(Some(&b"Ojox"[..])));
    assert_eq!(within(event), [(); 5].map(|()| expected.clone()));
}

#[test]
fn a_reason_says_whether_the_body_or_the_event_in_it_is_broken() {
    for (event, reject) in [
        (r#"{"user_id":"\ud800"}"#, EventNotJson),
        ("[]", EventNotAnObject),
        (r#"{"user_id":[]}"#, Reject::NotAScalar { key: "user_id".into() }),
    ] {
        assert_eq!(within(event), [(); 5].map(|()| Err(reject.clone())));
    }
    // If there is only a pointer, the body itself is broken.
    let [in_body, others @ ..] = within("{");
    assert_eq!(in_body, Err(NotJson));
    assert_eq!(others, [const { Err(EventNotJson) }; 4]);
    // Without envelope and pointer, the body itself is named too.
    for (body, reject) in [("{", NotJson), ("\"{}\"", NotAnObject), ("[]", NotAnObject), ("1", NotAnObject)] {
        assert_eq!(bare(body), Err(reject));
    }
}

#[test]
fn a_reason_never_quotes_the_event() {
    for event in [
        "SECRET",
        "[\"SECRET\"]",
        r#"{"user_id":["SECRET"]}"#,
        r#"{"SECRET":1}"#,
        r#"{"user_id":"SECRET\u0000"}"#,
    ] {
        for reject in within(event).into_iter().filter_map(Result::err) {
            assert!(!reject.to_string().contains("SECRET"), "{reject}");
        }
    }
    let reject = row(Envelope::None, "/a", (None, 0), r#"{"b":"SECRET"}"#).expect_err("no event");
    assert_eq!(
        reject.to_string(),
        "there is nothing, or null, at \"/a\", where the inbox looks for the event"
    );
}

proptest! {
    #[test]
    fn any_event_within_becomes_what_it_becomes_by_itself(
        event in r#"[ ]?\{("(user_id|ip|details|x)":("[a-z\\"u0\u{e9}]{0,8}"|[-0-9.eE]{1,4}|null|\[|\]|\{|\}|true),?){0,5}[}]?"#
    ) {
        let expected = bare(&event).ok();
        let is_json = serde_json::from_str::<serde_json::Value>(&event).is_ok();
        let [in_body, others @ ..] = within(&event);
        for row in others {
            prop_assert_eq!(row.ok(), expected.clone());
        }
        // An event that isn't JSON may close the JSON around it.
        if is_json {
            prop_assert_eq!(in_body.ok(), expected);
        }
    }
}
