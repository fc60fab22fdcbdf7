//! Rejects that are not written to the rejects table yet.

use std::collections::BTreeMap;

use masking::Rows;

use crate::counts::Class;
use crate::inbox::definition::REJECT_COLUMNS;

/// The rejects of a chunk by class: an insert reports how many of its rows were new, but not which.
///
/// All sessions write the classes in one order, so that they cannot wait for each other and deadlock.
#[derive(Default)]
pub(crate) struct Rejects(BTreeMap<Class, Rows>);

impl Rejects {
    pub(crate) fn of(&mut self, class: Class) -> &mut Rows {
        self.0.entry(class).or_insert_with(|| Rows::new(REJECT_COLUMNS.len()))
    }

    pub(crate) fn by_class(&self) -> impl Iterator<Item = (Class, &Rows)> {
        self.0.iter().map(|(class, rows)| (*class, rows)).filter(|(_, rows)| !rows.is_empty())
    }

    pub(crate) fn len(&self) -> usize {
        self.0.values().map(Rows::len).sum()
    }

    pub(crate) fn bytes(&self) -> usize {
        self.0.values().map(Rows::bytes).sum()
    }

    pub(crate) fn clear(&mut self) {
        self.0.clear();
    }
}
