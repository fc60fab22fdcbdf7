//! Rules: how each column of the target is filled from an event and the message that carried it.

use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use crate::envelope::Envelope;
use crate::event::{self, PushError, Reject};
use crate::keyring::KeyRing;
use crate::pointer::Pointer;
use crate::rows::{Kind, Row, Rows};
use crate::scheme::{Masker, Scheme};

/// How one column is filled. In JSON: `{"copy": "locale"}`, `{"mask": "ip"}`,
/// `{"mask": {"key": "ip", "scheme": "aes-siv"}}`, `{"version": "app_version"}`, `"sent_date"`, `"sent_at"` or
/// `"message_id"`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Rule {
    /// The scalar under this key, as its text; for a `json` or `jsonb` column whatever stands there, as JSON.
    Copy(String),
    /// The mask of the scalar's text under this key.
    Mask(Masked),
    /// The version string under this key with its dots taken out, as an integer: `"5.6.3"` gives 563.
    Version(String),
    /// The UTC date on which the message was sent; where that is not known, today's.
    SentDate,
    /// When the message was sent; where that is not known, now.
    SentAt,
    /// The message's id, by which a redelivery is known.
    MessageId,
}

/// What is masked, and how.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(from = "WrittenMasked", into = "WrittenMasked")]
pub struct Masked {
    /// The event's key.
    pub key: String,
    /// The scheme; none for the one that is the default when events come.
    pub scheme: Option<Scheme>,
}

#[derive(Clone, Serialize, Deserialize)]
#[serde(
    untagged,
    expecting = "what to mask is a key, or {\"key\": key, \"scheme\": \"base64\" or \"aes-siv\"}"
)]
enum WrittenMasked {
    Key(String),
    KeyAndScheme(KeyAndScheme),
}

#[derive(Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct KeyAndScheme {
    key: String,
    scheme: Scheme,
}

impl From<WrittenMasked> for Masked {
    fn from(written: WrittenMasked) -> Self {
        match written {
            WrittenMasked::Key(key) => Self { key, scheme: None },
            WrittenMasked::KeyAndScheme(KeyAndScheme { key, scheme }) => Self { key, scheme: Some(scheme) },
        }
    }
}

impl From<Masked> for WrittenMasked {
    fn from(Masked { key, scheme }: Masked) -> Self {
        match scheme {
            None => Self::Key(key),
            Some(scheme) => Self::KeyAndScheme(KeyAndScheme { key, scheme }),
        }
    }
}

impl Rule {
    /// The event's key that this rule reads, if it reads one.
    #[must_use]
    pub fn key(&self) -> Option<&str> {
        match self {
            Self::Copy(key) | Self::Mask(Masked { key, .. }) | Self::Version(key) => Some(key),
            Self::SentDate | Self::SentAt | Self::MessageId => None,
        }
    }

    /// In which form it fills a column.
    #[must_use]
    pub fn kind(&self) -> Kind {
        match self {
            Self::Copy(_) | Self::Mask(_) => Kind::Text,
            Self::Version(_) => Kind::Integer,
            Self::SentDate => Kind::Date,
            Self::SentAt => Kind::Timestamp,
            Self::MessageId => Kind::Uuid,
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

/// A message: a body with an event in it, and what the queue says about it.
#[derive(Clone, Copy)]
pub struct Message<'a> {
    /// The queue's id of it.
    pub id: Option<[u8; 16]>,
    /// When it was sent, or now where that is not known, in Postgres's form: microseconds since 2000-01-01 UTC.
    pub sent_at: i64,
    /// The body, which is the event or holds it.
    pub body: &'a str,
}

/// What a mask of no named scheme is made by, and what one of a keyed scheme needs.
#[derive(Clone, Copy)]
pub struct Masks<'k> {
    /// The scheme of rules that name none.
    pub default: Scheme,
    /// The ring, where there is one.
    pub ring: Option<&'k KeyRing>,
}

impl<'k> Masks<'k> {
    /// Makes the masks of `scheme`. One that needs keys has them: see [`Rules::need_keys`].
    fn masker(&self, scheme: Option<Scheme>) -> Masker<'k> {
        Masker::new(scheme.unwrap_or(self.default), self.ring).expect("a ring, where the rules need keys")
    }
}

/// The rules of an inbox.
pub struct Rules {
    envelope: Envelope,
    /// Where the event stands in what the envelope holds.
    event: Pointer,
    columns: Vec<Column>,
    /// The keys that the rules read, each once, in order.
    keys: Vec<String>,
    /// For each column the index of its key in `keys`.
    slots: Vec<Option<usize>>,
}

impl Rules {
    /// Rules that fill `columns`, in this order, from events that are the whole body of a message.
    #[must_use]
    pub fn new(columns: Vec<Column>) -> Self {
        let mut keys: Vec<String> =
            columns.iter().filter_map(|column| column.rule.key().map(str::to_owned)).collect();
        keys.sort_unstable();
        keys.dedup();
        let slot = |column: &Column| {
            let wanted = column.rule.key()?;
            keys.binary_search_by(|key| key.as_str().cmp(wanted)).ok()
        };
        let slots = columns.iter().map(slot).collect();
        Self { envelope: Envelope::None, event: Pointer::default(), columns, keys, slots }
    }

    /// The same from events that stand at `event` in what `envelope` holds.
    #[must_use]
    pub fn of_events_at(self, envelope: Envelope, event: Pointer) -> Self {
        Self { envelope, event, ..self }
    }

    /// The columns, in the order of a row.
    #[must_use]
    pub fn columns(&self) -> &[Column] {
        &self.columns
    }

    /// Whether a scheme that needs keys masks anything, where `default` is that of rules which name none.
    ///
    /// What an event may hold that is no row is masked by such a scheme too, if any rule is.
    #[must_use]
    pub fn need_keys(&self, default: Scheme) -> bool {
        let keyed =
            |column: &Column| matches!(&column.rule, Rule::Mask(Masked { scheme: Some(Scheme::AesSiv), .. }));
        default == Scheme::AesSiv || self.columns.iter().any(keyed)
    }

    /// Masks whole events, which are to become rejects: by the strongest scheme of the rules.
    #[must_use]
    pub fn masker_of_rejects<'k>(&self, masks: &Masks<'k>) -> Masker<'k> {
        masks.masker(self.need_keys(masks.default).then_some(Scheme::AesSiv))
    }

    /// No rows yet, of as many fields as there are columns.
    #[must_use]
    pub fn rows(&self) -> Rows {
        Rows::new(self.columns.len())
    }

    /// Adds the row that `message` becomes to `rows`, or says why it becomes none. Then `rows` is as it was.
    pub fn push(&self, message: &Message<'_>, masks: &Masks<'_>, rows: &mut Rows) -> Result<(), PushError> {
        if self.envelope.is_none() && self.event.is_whole() {
            self.push_event(message, masks, rows)
        } else {
            self.push_within(message, masks, rows)
        }
    }

    /// The same of a message whose event may be only a part of the body. On its own: inlined above it makes the usual way
    /// some 3 % slower.
    #[inline(never)]
    fn push_within(
        &self,
        message: &Message<'_>,
        masks: &Masks<'_>,
        rows: &mut Rows,
    ) -> Result<(), PushError> {
        let opened = self.envelope.open(message)?;
        let event = self.event.find(&opened.text).map_err(|why| why.of_part(&opened.text, message.body))?;
        let within = Message { id: opened.id, sent_at: opened.sent_at, body: &event };
        self.push_event(&within, masks, rows).map_err(|why| why.of_part(&event, message.body))
    }

    /// Adds the row that a message becomes whose body is the event itself, whatever the envelope of others. If it becomes none,
    /// `rows` is as it was.
    pub fn push_event(
        &self,
        message: &Message<'_>,
        masks: &Masks<'_>,
        rows: &mut Rows,
    ) -> Result<(), PushError> {
        let found = event::find(message.body, &self.keys)?;
        rows.add(|row| {
            for (column, slot) in self.columns.iter().zip(&self.slots) {
                match slot.and_then(|slot| found[slot]) {
                    Some(raw) => column.fill_from_event(raw, masks, row)?,
                    None => column.fill_from_message(message, row)?,
                }
            }
            Ok(())
        })
    }
}

/// What Postgres would surely refuse is found here, since there it costs a failed flush of the whole chunk.
impl Column {
    fn fill_from_event(&self, raw: &RawValue, masks: &Masks<'_>, row: &mut Row<'_>) -> Result<(), PushError> {
        match &self.rule {
            Rule::Copy(_) if self.json => row.field(raw.get().as_bytes()),
            Rule::Copy(key) => {
                let text = event::scalar(raw, key)?;
                // Postgres cuts excess characters off where they are spaces: those are not too long.
                if let Some(limit) = self.limit
                    && text.len() > limit
                    && text.chars().skip(limit).any(|c| c != ' ')
                {
                    return Err(self.too_long(limit).into());
                }
                row.field(text.as_bytes());
            }
            Rule::Mask(Masked { key, scheme }) => {
                let text = event::scalar(raw, key)?;
                let (value, masker) = (text.as_bytes(), masks.masker(*scheme));
                let length = row.written(masker.masked_len(value), |out| masker.mask(value, out));
                if let Some(limit) = self.limit
                    && length > limit
                {
                    return Err(Reject::MaskTooLong { column: self.name.clone(), limit }.into());
                }
            }
            Rule::Version(key) => {
                let number = version(&event::scalar(raw, key)?)
                    .ok_or_else(|| Reject::NotAVersion { key: key.clone() })?;
                row.integer(number);
            }
            Rule::SentDate | Rule::SentAt | Rule::MessageId => row.null(),
        }
        Ok(())
    }

    fn fill_from_message(&self, message: &Message<'_>, row: &mut Row<'_>) -> Result<(), PushError> {
        match (&self.rule, &message.id) {
            (Rule::SentDate, _) => row.integer(date(message.sent_at)),
            (Rule::SentAt, _) => row.timestamp(message.sent_at),
            (Rule::MessageId, Some(id)) => row.field(id),
            _ if self.not_null => {
                let key = self.rule.key().map(str::to_owned);
                return Err(Reject::Missing { column: self.name.clone(), key }.into());
            }
            _ => row.null(),
        }
        Ok(())
    }

    fn too_long(&self, limit: usize) -> Reject {
        Reject::TooLong { column: self.name.clone(), limit }
    }
}

/// `"5.6.3"` → 563. Digits and dots alone make a version.
fn version(text: &str) -> Option<i32> {
    let mut digits = text.bytes().filter(|&byte| byte != b'.').peekable();
    digits.peek()?;
    digits.try_fold(0_i32, |number, byte| {
        let digit = byte.is_ascii_digit().then(|| i32::from(byte - b'0'))?;
        number.checked_mul(10)?.checked_add(digit)
    })
}

/// The UTC date of a timestamp, both in Postgres's form, whose infinities are the ends of the integers.
#[must_use]
pub fn date(sent_at: i64) -> i32 {
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
    use crate::keyring::tests::a;
    use proptest::prelude::*;

    const ID: [u8; 16] = [7; 16];
    /// 2024-02-29 23:59:59.999999 UTC.
    const SENT_AT: i64 = 762_566_399_999_999;

    fn column(name: &str, rule: Rule, limit: Option<usize>) -> Column {
        Column { name: name.into(), rule, limit, not_null: name == "user_id", json: name == "details" }
    }

    /// As it is where nothing is set.
    const BASE64: Masks<'_> = Masks { default: Scheme::Base64, ring: None };

    fn mask_of(key: &str, scheme: Option<Scheme>) -> Rule {
        Rule::Mask(Masked { key: key.into(), scheme })
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
            .push(&Message { id: Some(ID), sent_at: SENT_AT, body }, &BASE64, &mut rows)
            .map_err(PushError::reject)?;
        Ok(rows)
    }

    /// The row's value of column `name`, from a body with a `user_id` besides `members`.
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

    fn mask(masker: Masker<'_>, text: &str) -> String {
        let mut mask = vec![0; masker.masked_len(text.as_bytes())];
        let length = masker.mask(text.as_bytes(), &mut mask).expect("memory");
        mask.truncate(length);
        String::from_utf8(mask).expect("a mask is ASCII")
    }

    #[test]
    fn an_event_becomes_a_row() {
        let body =
            r#"{"user_id":"u","app_version":"2.3.0","ip":"199.172.111.135","locale":"RU","other":[{}]}"#;
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
            assert_eq!(
                value_of("masked_ip", &format!("\"ip\":{json}")),
                Ok(mask(Masker::Base64(None), text))
            );
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
            assert!(row(body).err() == Some(reject), "{body}");
        }
    }

    #[test]
    fn every_reject_is_of_a_known_class() {
        let key = || "k".to_owned();
        let rejects = [
            Reject::NotJson,
            Reject::NotAnObject,
            Reject::NoEvent { pointer: key() },
            Reject::NotANotification,
            Reject::Missing { column: key(), key: None },
            Reject::NotAScalar { key: key() },
            Reject::EscapedNul { key: key() },
            Reject::NotAVersion { key: key() },
            Reject::TooLong { column: key(), limit: 1 },
            Reject::MaskTooLong { column: key(), limit: 1 },
        ];
        assert_eq!(rejects.map(|reject| reject.class()), Reject::CLASSES);
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
            let message = Message { id: Some(ID), sent_at: SENT_AT, body };
            rules
                .push(&message, &Masks { default, ring: Some(&ring) }, &mut rows)
                .map_err(PushError::reject)?;
            Ok::<_, Reject>([0, 1, 2].map(|column| {
                String::from_utf8(rows.field(0, column).expect("no NULL").to_vec()).expect("a text")
            }))
        };
        let (base64, keyed) =
            (mask(Masker::Base64(None), "10.0.0.1"), mask(Masker::AesSiv(&ring), "10.0.0.1"));
        let body = r#"{"ip":"10.0.0.1"}"#;
        assert_eq!(masks_of(Scheme::Base64, body), Ok([&base64, &base64, &keyed].map(String::clone)));
        assert_eq!(masks_of(Scheme::AesSiv, body), Ok([&keyed, &base64, &keyed].map(String::clone)));
        // What is a token already stays as it is.
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
            let masks = Masks { default, ring: Some(&ring) };
            assert_eq!(matches!(rules.masker_of_rejects(&masks), Masker::AesSiv(_)), keyed);
        }
    }

    #[test]
    fn a_rule_is_written_as_it_was_read() {
        for (json, rule) in [
            (r#"{"mask":"ip"}"#, mask_of("ip", None)),
            (r#"{"mask":{"key":"ip","scheme":"aes-siv"}}"#, mask_of("ip", Some(Scheme::AesSiv))),
            (r#"{"mask":{"key":"ip","scheme":"base64"}}"#, mask_of("ip", Some(Scheme::Base64))),
            (r#"{"copy":"locale"}"#, Rule::Copy("locale".into())),
            (r#""sent_date""#, Rule::SentDate),
        ] {
            assert_eq!(serde_json::from_str::<Rule>(json).ok(), Some(rule.clone()), "{json}");
            assert_eq!(serde_json::to_string(&rule).ok().as_deref(), Some(json));
        }
        for json in [
            r#"{"mask":{"key":"ip"}}"#,
            r#"{"mask":{"key":"ip","scheme":"rot13"}}"#,
            r#"{"mask":{"key":"ip","scheme":"base64","more":1}}"#,
            r#"{"mask":1}"#,
        ] {
            let error = serde_json::from_str::<Rule>(json).expect_err("no rule").to_string();
            assert!(error.starts_with("what to mask is a key, or {"), "{error}");
        }
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
                prop_assert_eq!(row.fields(0).count(), rules().columns().len());
            }
        }

        #[test]
        fn every_json_string_survives(value in "[^\0]*") {
            let json = serde_json::to_string(&value).expect("a string is JSON");
            prop_assert_eq!(value_of("ip", &format!("\"ip\":{json}")), Ok(value.clone()));
            prop_assert_eq!(value_of("masked_ip", &format!("\"ip\":{json}")).ok(), Some(mask(Masker::Base64(None), &value)).filter(|mask| mask.len() <= 256));
        }
    }
}
