//! A rule, which fills a column of the target from an event or from the message that carried it.

use serde::de::IgnoredAny;
use serde::{Deserialize, Serialize};

use crate::rows::Kind;
use crate::scheme::{self, Scheme};

/// The source of a column's values. In JSON: `{"copy": "locale"}`, `{"mask": "ip"}`, `{"mask": {"key": "ip", "scheme":
/// "aes-siv"}}`, `{"version": "app_version"}`, `"sent_date"`, `"sent_at"` or `"message_id"`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Rule {
    /// The text of the scalar under this key. For a `json` or `jsonb` column: any value under it, as JSON.
    Copy(String),
    /// The mask of the text of the scalar under this key.
    Mask(MaskRule),
    /// The version string under this key as an integer, without its dots: `"5.6.3"` becomes 563.
    Version(String),
    /// The UTC date on which the message was sent, or today's if that is unknown.
    SentDate,
    /// The time at which the message was sent, or now if that is unknown.
    SentAt,
    /// The message's id, which identifies a redelivery.
    MessageId,
}

/// The key to mask, and the scheme.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "WrittenMaskRule", into = "WrittenMaskRule")]
pub struct MaskRule {
    /// The event's key.
    pub key: String,
    /// The scheme, or none for the default at the time when events arrive.
    pub scheme: Option<Scheme>,
}

#[derive(Clone, Serialize, Deserialize)]
#[serde(untagged)]
enum WrittenMaskRule {
    Key(String),
    KeyAndScheme(KeyAndScheme),
    /// Anything else. It is read, so that the error can list the schemes.
    #[serde(skip_serializing)]
    Other(IgnoredAny),
}

#[derive(Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct KeyAndScheme {
    key: String,
    scheme: Scheme,
}

impl TryFrom<WrittenMaskRule> for MaskRule {
    type Error = String;

    fn try_from(written: WrittenMaskRule) -> Result<Self, String> {
        match written {
            WrittenMaskRule::Key(key) => Ok(Self { key, scheme: None }),
            WrittenMaskRule::KeyAndScheme(KeyAndScheme { key, scheme }) => {
                Ok(Self { key, scheme: Some(scheme) })
            }
            WrittenMaskRule::Other(_) => {
                Err(format!("what to mask is a key, or {{\"key\": key, \"scheme\": {}}}", scheme::names('"')))
            }
        }
    }
}

impl From<MaskRule> for WrittenMaskRule {
    fn from(MaskRule { key, scheme }: MaskRule) -> Self {
        match scheme {
            None => Self::Key(key),
            Some(scheme) => Self::KeyAndScheme(KeyAndScheme { key, scheme }),
        }
    }
}

impl Rule {
    /// Returns the event's key that this rule reads, if it reads one.
    #[must_use]
    pub fn key(&self) -> Option<&str> {
        match self {
            Self::Copy(key) | Self::Mask(MaskRule { key, .. }) | Self::Version(key) => Some(key),
            Self::SentDate | Self::SentAt | Self::MessageId => None,
        }
    }

    /// Returns the form of the values that it fills a column with.
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

#[cfg(test)]
mod tests {
    use super::*;

    fn mask_of(key: &str, scheme: Option<Scheme>) -> Rule {
        Rule::Mask(MaskRule { key: key.into(), scheme })
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
}
