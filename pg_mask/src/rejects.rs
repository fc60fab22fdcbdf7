//! Rejects on their way to the rejects table, each of a class: a word of a bounded set, for metrics.

use std::collections::BTreeMap;

use masking::Rows;

use crate::inbox::REJECT_COLUMNS;

/// The conditions by which Postgres refuses a row, as PL/pgSQL names them. What is not here is `other`.
const CONDITIONS: [&str; 28] = [
    "data_exception",
    "string_data_right_truncation",
    "numeric_value_out_of_range",
    "null_value_not_allowed",
    "invalid_datetime_format",
    "datetime_field_overflow",
    "interval_field_overflow",
    "division_by_zero",
    "invalid_parameter_value",
    "invalid_text_representation",
    "invalid_binary_representation",
    "untranslatable_character",
    "character_not_in_repertoire",
    "invalid_json_text",
    "invalid_xml_document",
    "invalid_xml_content",
    "integrity_constraint_violation",
    "not_null_violation",
    "foreign_key_violation",
    "unique_violation",
    "check_violation",
    "exclusion_violation",
    "with_check_option_violation",
    "insufficient_privilege",
    "syntax_error",
    "undefined_object",
    "program_limit_exceeded",
    "raise_exception",
];

const NO_BODY: &str = "no_body";
const OTHER: &str = "other";

/// How many classes there are.
pub(crate) const CLASSES: usize = masking::Reject::CLASSES.len() + CONDITIONS.len() + 2;

/// The names of the classes, in their order.
pub(crate) fn classes() -> impl Iterator<Item = &'static str> {
    masking::Reject::CLASSES.into_iter().chain([NO_BODY]).chain(CONDITIONS).chain([OTHER])
}

/// The class of a reject, by its place among all.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Class(usize);

impl Class {
    /// The class of this name: of `masking::Reject`, or of a condition of Postgres's.
    pub(crate) fn named(name: &str) -> Self {
        Self(classes().position(|class| class == name).unwrap_or(CLASSES - 1))
    }

    /// That of a message whose body is NULL.
    pub(crate) fn no_body() -> Self {
        Self::named(NO_BODY)
    }
}

/// So many rejects of each class.
#[derive(Clone, Copy)]
pub(crate) struct ByClass(pub(crate) [i64; CLASSES]);

impl Default for ByClass {
    fn default() -> Self {
        Self([0; CLASSES])
    }
}

impl ByClass {
    pub(crate) fn add(&mut self, class: Class, rejects: i64) {
        self.0[class.0] += rejects;
    }

    pub(crate) fn add_all(&mut self, more: &Self) {
        for (class, more) in self.0.iter_mut().zip(more.0) {
            *class += more;
        }
    }

    pub(crate) fn sum(&self) -> i64 {
        self.0.iter().sum()
    }

    /// The classes of which there are any, and how many.
    pub(crate) fn some(&self) -> impl Iterator<Item = (&'static str, i64)> {
        classes().zip(self.0).filter(|(_, rejects)| *rejects > 0)
    }
}

/// The rejects of a chunk, class by class: what an insert says is how many of its rows were new, and not which.
///
/// Sessions write them in the same order, so that none waits for another crosswise.
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
