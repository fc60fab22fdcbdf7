//! Rules: how each column of the target is filled from an event and the message that carried it.

use std::borrow::Cow;

use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use crate::event::{self, Reject};
use crate::scheme;

/// How one column is filled. In JSON: `{"copy": "locale"}`, `{"mask": "ip"}`, `{"version": "app_version"}`,
/// `"sent_date"`, `"sent_at"` or `"message_id"`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Rule {
    /// The scalar under this key, as its text; for a `json` or `jsonb` column whatever stands there, as JSON.
    Copy(String),
    /// The mask of the scalar's text under this key.
    Mask(String),
    /// The version string under this key with its dots taken out, as an integer: `"5.6.3"` gives 563.
    Version(String),
    /// The UTC date on which the message was sent; where that is not known, today's.
    SentDate,
    /// When the message was sent; where that is not known, now.
    SentAt,
    /// The message's id, by which a redelivery is known.
    MessageId,
}

impl Rule {
    /// The event's key that this rule reads, if it reads one.
    #[must_use]
    pub fn key(&self) -> Option<&str> {
        match self {
            Self::Copy(key) | Self::Mask(key) | Self::Version(key) => Some(key),
            Self::SentDate | Self::SentAt | Self::MessageId => None,
        }
    }
}

/// A column of the target, its rule, and what is known of the column without asking Postgres about each value.
#[derive(Debug, Clone)]
pub struct Column {
    /// The column's name, for the reasons of rejects.
    pub name: String,
    /// How it is filled.
    pub rule: Rule,
    /// The characters it takes: `varchar(n)` and `char(n)`.
    pub limit: Option<usize>,
    /// Whether a NULL makes the event a reject.
    pub not_null: bool,
    /// Whether it is `json` or `jsonb`, so that a copy takes the value as JSON.
    pub json: bool,
}

/// A message: an event and what the queue says about it.
#[derive(Clone, Copy)]
pub struct Message<'a> {
    /// The queue's id of it.
    pub id: Option<[u8; 16]>,
    /// When it was sent, or now where that is not known, in Postgres's form: microseconds since 2000-01-01 UTC.
    pub sent_at: i64,
    /// The event.
    pub body: &'a str,
}

/// What one column of a row becomes.
#[derive(Clone, PartialEq)]
pub enum Value<'a> {
    /// NULL.
    Null,
    /// Text, still to be read by the column's type where that is another.
    Text(Cow<'a, str>),
    /// A version.
    Integer(i32),
    /// A date in Postgres's form: days since 2000-01-01.
    Date(i32),
    /// A time in Postgres's form: microseconds since 2000-01-01 UTC.
    Timestamp(i64),
    /// A message id.
    Uuid([u8; 16]),
}

/// The rules of an inbox.
pub struct Rules {
    columns: Vec<Column>,
    /// The keys that the rules read, each once.
    keys: Vec<String>,
    /// For each column the index of its key in `keys`.
    slots: Vec<Option<usize>>,
}

impl Rules {
    /// Rules that fill `columns`, in this order.
    #[must_use]
    pub fn new(columns: Vec<Column>) -> Self {
        let mut keys: Vec<String> = Vec::new();
        let slots = columns
            .iter()
            .map(|column| {
                let key = column.rule.key()?;
                Some(keys.iter().position(|known| known == key).unwrap_or_else(|| {
                    keys.push(key.to_owned());
                    keys.len() - 1
                }))
            })
            .collect();
        Self { columns, keys, slots }
    }

    /// The columns, in the order of a row.
    #[must_use]
    pub fn columns(&self) -> &[Column] {
        &self.columns
    }

    /// The row that `message` becomes, one value a column.
    pub fn row<'a>(&self, message: &Message<'a>) -> Result<Vec<Value<'a>>, Reject> {
        let found = event::find(message.body, &self.keys)?;
        self.columns
            .iter()
            .zip(&self.slots)
            .map(|(column, slot)| {
                let value = match slot.and_then(|slot| found[slot]) {
                    Some(raw) => column.of_event(raw)?,
                    None => column.of_message(message),
                };
                column.check(value)
            })
            .collect()
    }
}

impl Column {
    fn of_event<'a>(&self, raw: &'a RawValue) -> Result<Value<'a>, Reject> {
        match &self.rule {
            Rule::Copy(_) if self.json => Ok(Value::Text(Cow::Borrowed(raw.get()))),
            Rule::Copy(key) => Ok(Value::Text(event::scalar(raw, key)?)),
            Rule::Mask(key) => Ok(Value::Text(Cow::Owned(scheme::mask(&event::scalar(raw, key)?)))),
            Rule::Version(key) => version(&event::scalar(raw, key)?)
                .map(Value::Integer)
                .ok_or_else(|| Reject::NotAVersion { key: key.clone() }),
            Rule::SentDate | Rule::SentAt | Rule::MessageId => Ok(Value::Null),
        }
    }

    fn of_message(&self, message: &Message<'_>) -> Value<'static> {
        match self.rule {
            Rule::SentDate => Value::Date(date(message.sent_at)),
            Rule::SentAt => Value::Timestamp(message.sent_at),
            Rule::MessageId => message.id.map_or(Value::Null, Value::Uuid),
            Rule::Copy(_) | Rule::Mask(_) | Rule::Version(_) => Value::Null,
        }
    }

    /// What would surely be refused by Postgres is found here, since there it costs a failed flush of the whole chunk.
    fn check<'a>(&self, value: Value<'a>) -> Result<Value<'a>, Reject> {
        match (&value, self.limit) {
            (Value::Null, _) if self.not_null => {
                Err(Reject::Missing { column: self.name.clone(), key: self.rule.key().map(str::to_owned) })
            }
            // Postgres cuts excess characters off where they are spaces: those are not too long.
            (Value::Text(text), Some(limit))
                if text.len() > limit && text.chars().skip(limit).any(|c| c != ' ') =>
            {
                Err(Reject::TooLong { column: self.name.clone(), limit })
            }
            _ => Ok(value),
        }
    }
}

/// `"5.6.3"` → 563. Digits and dots alone make a version.
fn version(text: &str) -> Option<i32> {
    let digits: String = text.chars().filter(|&c| c != '.').collect();
    // `parse` takes a sign too.
    digits.bytes().all(|byte| byte.is_ascii_digit()).then(|| digits.parse().ok())?
}

/// The UTC date of a timestamp, both in Postgres's form, whose infinities are the ends of the integers.
fn date(sent_at: i64) -> i32 {
    const DAY: i64 = 86_400_000_000;
    match sent_at {
        i64::MIN => i32::MIN,
        i64::MAX => i32::MAX,
        // i64::MAX / DAY is some 107 million: it fits.
        _ => i32::try_from(sent_at.div_euclid(DAY)).unwrap_or(i32::MAX),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const ID: [u8; 16] = [7; 16];
    /// 2024-02-29 23:59:59.999999 UTC.
    const SENT_AT: i64 = 762_566_399_999_999;

    fn column(name: &str, rule: Rule, limit: Option<usize>) -> Column {
        Column { name: name.into(), rule, limit, not_null: name == "user_id", json: name == "details" }
    }

    fn rules() -> Rules {
        Rules::new(vec![
            column("user_id", Rule::Copy("user_id".into()), Some(128)),
            column("masked_ip", Rule::Mask("ip".into()), Some(256)),
            column("ip", Rule::Copy("ip".into()), None),
            column("locale", Rule::Copy("locale".into()), Some(5)),
            column("app_version", Rule::Version("app_version".into()), None),
            column("details", Rule::Copy("details".into()), None),
            column("create_date", Rule::SentDate, None),
            column("sent_at", Rule::SentAt, None),
            column("message_id", Rule::MessageId, None),
        ])
    }

    fn row(body: &str) -> Result<Vec<Value<'_>>, Reject> {
        rules().row(&Message { id: Some(ID), sent_at: SENT_AT, body })
    }

    fn text(value: &str) -> Value<'_> {
        Value::Text(Cow::Borrowed(value))
    }

    /// The row's value of column `name`, from a body with a `user_id` besides `members`.
    fn value_of(name: &str, members: &str) -> Result<String, Reject> {
        let body = format!("{{\"user_id\":\"u\",{members}}}");
        let index =
            rules().columns().iter().position(|column| column.name == name).expect("a column of the rules");
        row(&body).map(|row| match &row[index] {
            Value::Null => "NULL".into(),
            Value::Text(text) => text.clone().into_owned(),
            Value::Integer(number) => number.to_string(),
            _ => unreachable!("columns from the event alone"),
        })
    }

    #[test]
    fn an_event_becomes_a_row() {
        let body =
            r#"{"user_id":"u","app_version":"2.3.0","ip":"199.172.111.135","locale":"RU","other":[{}]}"#;
        let row = row(body).expect("a row");
        let expected = [
            text("u"),
            text("MTk5LjE3Mi4xMTEuMTM1"),
            text("199.172.111.135"),
            text("RU"),
            Value::Integer(230),
            Value::Null,
            Value::Date(8825),
            Value::Timestamp(SENT_AT),
            Value::Uuid(ID),
        ];
        assert!(row == expected);
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
            assert_eq!(value_of("masked_ip", &format!("\"ip\":{json}")), Ok(scheme::mask(text)));
        }
    }

    #[test]
    fn a_json_column_takes_whatever_stands_there() {
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
        for (version, number) in
            [("5.6.3", 563), ("2.3.0", 230), ("0.9", 9), ("7", 7), ("2147483647", i32::MAX)]
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
    fn what_is_no_login_is_a_reject() {
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
            assert!(row(body) == Err(reject), "{body}");
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
        assert!(value_of("masked_ip", &members(193)).is_err());
    }

    #[test]
    fn nesting_of_any_depth_is_read_without_recursion() {
        let deep = format!("{}{}", "[".repeat(200_000), "]".repeat(200_000));
        assert_eq!(value_of("ip", &format!("\"other\":{deep}")).as_deref(), Ok("NULL"));
        assert_eq!(value_of("ip", &format!("\"ip\":{deep}")), Err(Reject::NotAScalar { key: "ip".into() }));
    }

    #[test]
    fn the_date_is_utc_and_the_same_at_each_redelivery() {
        for (sent_at, days) in [
            (SENT_AT, 8825),
            (SENT_AT + 1, 8826),
            (0, 0),
            (-1, -1),
            (i64::MIN, i32::MIN),
            (i64::MAX, i32::MAX),
        ] {
            assert_eq!(date(sent_at), days);
        }
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
                prop_assert_eq!(row.len(), rules().columns().len());
            }
        }

        #[test]
        fn every_json_string_survives(value in "[^\0]*") {
            let json = serde_json::to_string(&value).expect("a string is JSON");
            prop_assert_eq!(value_of("ip", &format!("\"ip\":{json}")), Ok(value.clone()));
            prop_assert_eq!(value_of("masked_ip", &format!("\"ip\":{json}")).ok(), Some(scheme::mask(&value)).filter(|mask| mask.len() <= 256));
        }
    }
}
