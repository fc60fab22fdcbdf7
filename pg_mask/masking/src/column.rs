//! A column of the target: how its rule fills it, and which values it refuses.

use serde_json::value::RawValue;

use crate::event::{self, Event};
use crate::masker::MaskContext;
use crate::reject::{PushError, Reject};
use crate::rows::Row;
use crate::rule::{MaskRule, Rule};

/// A column of the target, its rule, and properties that are checked without asking Postgres about each value.
#[derive(Debug, Clone)]
pub struct Column {
    /// The column's name, for the reasons of rejects.
    pub name: String,
    /// The rule that fills it.
    pub rule: Rule,
    /// Maximum length in characters, for `varchar(n)` and `char(n)`.
    pub limit: Option<usize>,
    /// Whether a NULL makes the event a reject.
    pub not_null: bool,
    /// Whether it is `json` or `jsonb`, so that a copied value stays JSON.
    pub json: bool,
}

/// Finds values that Postgres would certainly refuse. In Postgres they would cost a failed flush of the whole chunk.
impl Column {
    pub(crate) fn fill_from_event(
        &self,
        raw: &RawValue,
        masks: &MaskContext<'_>,
        row: &mut Row<'_>,
    ) -> Result<(), PushError> {
        match &self.rule {
            Rule::Copy(_) if self.json => row.field(raw.get().as_bytes()),
            Rule::Copy(key) => {
                let text = event::scalar(raw, key)?;
                // Postgres truncates excess characters if they are spaces, so these are not too long.
                if let Some(limit) = self.limit
                    && text.len() > limit
                    && text.chars().skip(limit).any(|c| c != ' ')
                {
                    return Err(self.too_long(limit).into());
                }
                row.field(text.as_bytes());
            }
            Rule::Mask(MaskRule { key, scheme }) => {
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

    pub(crate) fn fill_from_message(&self, message: &Event<'_>, row: &mut Row<'_>) -> Result<(), PushError> {
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

/// Parses a version: `"5.6.3"` is 563. Only digits and dots are valid.
fn version(text: &str) -> Option<i32> {
    let mut digits = text.bytes().filter(|&byte| byte != b'.').peekable();
    digits.peek()?;
    digits.try_fold(0_i32, |number, byte| {
        let digit = byte.is_ascii_digit().then(|| i32::from(byte - b'0'))?;
        number.checked_mul(10)?.checked_add(digit)
    })
}

/// Returns the UTC date of a timestamp, both in Postgres's form. Postgres's infinities are the smallest and largest
/// integers.
#[must_use]
pub fn date(sent_at: i64) -> i32 {
    const DAY: i64 = 86_400_000_000;
    match sent_at {
        i64::MIN => i32::MIN,
        i64::MAX => i32::MAX,
        // i64::MAX / DAY is about 107 million, so it fits.
        _ => i32::try_from(sent_at.div_euclid(DAY)).unwrap_or(i32::MAX),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// 2024-02-29 23:59:59.999999 UTC.
    const SENT_AT: i64 = 762_566_399_999_999;

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
}
