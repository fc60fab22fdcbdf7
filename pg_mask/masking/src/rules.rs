//! Rules, which fill each column of the target from an event and from the message that carried it.

use crate::column::Column;
use crate::envelope::Envelope;
use crate::event::{self, Event};
use crate::masker::{MaskContext, Masker};
use crate::pointer::Pointer;
use crate::reject::PushError;
use crate::rows::Rows;
use crate::rule::{MaskRule, Rule};
use crate::scheme::Scheme;

/// The rules of an inbox.
pub struct Rules {
    envelope: Envelope,
    /// The location of the event in the envelope's text.
    event: Pointer,
    columns: Vec<Column>,
    /// The keys that the rules read, each once, sorted.
    keys: Vec<String>,
    /// Index of each column's key in `keys`.
    slots: Vec<Option<usize>>,
}

impl Rules {
    /// Returns rules that fill `columns`, in this order, from events that are the whole body of a message.
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

    /// Returns these rules for events at the location `event` in the text in `envelope`.
    #[must_use]
    pub fn of_events_at(self, envelope: Envelope, event: Pointer) -> Self {
        Self { envelope, event, ..self }
    }

    /// Returns the columns, in the order of a row.
    #[must_use]
    pub fn columns(&self) -> &[Column] {
        &self.columns
    }

    /// Whether any mask needs keys, given the default scheme.
    ///
    /// Rejects are masked under a keyed scheme too, if the default or any rule is keyed.
    #[must_use]
    pub fn need_keys(&self, default: Scheme) -> bool {
        self.strongest(default).needs_key()
    }

    /// Returns a scheme of the default and the rules that has no masker, because its key is missing. If there is one, no event
    /// can become a row.
    #[must_use]
    pub fn scheme_without_key(&self, masks: &MaskContext<'_>) -> Option<Scheme> {
        self.schemes(masks.default).find(|scheme| Masker::new(*scheme, masks.ring).is_none())
    }

    /// Returns the masker for whole events that become rejects. It uses the strongest scheme among the default and the
    /// rules.
    #[must_use]
    pub fn masker_of_rejects<'k>(&self, masks: &MaskContext<'k>) -> Masker<'k> {
        masks.masker(Some(self.strongest(masks.default)))
    }

    fn strongest(&self, default: Scheme) -> Scheme {
        self.schemes(default).max().unwrap_or(default)
    }

    /// Returns the default scheme, and those that the rules name.
    fn schemes(&self, default: Scheme) -> impl Iterator<Item = Scheme> {
        let named = self.columns.iter().filter_map(|column| match column.rule {
            Rule::Mask(MaskRule { scheme, .. }) => scheme,
            _ => None,
        });
        [default].into_iter().chain(named)
    }

    /// Returns an empty set of rows with one field for each column.
    #[must_use]
    pub fn rows(&self) -> Rows {
        Rows::new(self.columns.len())
    }

    /// Adds the row for `message` to `rows`, or returns the reason that it becomes none. In that case `rows` is unchanged.
    pub fn push(
        &self,
        message: &Event<'_>,
        masks: &MaskContext<'_>,
        rows: &mut Rows,
    ) -> Result<(), PushError> {
        if self.envelope.is_none() && self.event.is_whole() {
            self.push_event(message, masks, rows)
        } else {
            self.push_within(message, masks, rows)
        }
    }

    /// Adds the row for `message`, whose event may be only a part of the body. A function of its own: inlined in `push`, it
    /// makes the usual case about 3 % slower.
    #[inline(never)]
    fn push_within(
        &self,
        message: &Event<'_>,
        masks: &MaskContext<'_>,
        rows: &mut Rows,
    ) -> Result<(), PushError> {
        let opened = self.envelope.open(message)?;
        let event = self.event.find(&opened.text).map_err(|why| why.of_part(&opened.text, message.body))?;
        let within = Event { id: opened.id, sent_at: opened.sent_at, body: &event };
        self.push_event(&within, masks, rows).map_err(|why| why.of_part(&event, message.body))
    }

    /// Adds the row for a message whose body is the event itself, whatever the envelope of the rules. If the message becomes
    /// no row, `rows` is unchanged.
    pub fn push_event(
        &self,
        message: &Event<'_>,
        masks: &MaskContext<'_>,
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

#[cfg(test)]
#[path = "rules_tests.rs"]
mod tests;
