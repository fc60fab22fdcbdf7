//! Counters of what a statement did with its events. Rejects are counted by class: a word from a bounded set, for metrics.

/// The events of an inbox statement by outcome.
#[derive(Clone, Copy, Default)]
pub(crate) struct Counts {
    pub(crate) stored: i64,
    pub(crate) duplicate: i64,
    pub(crate) rejected: ByClass,
}

impl Counts {
    /// Counts `rows`, of which `stored` were new and the others duplicates.
    pub(crate) fn add(&mut self, rows: usize, stored: usize) {
        self.stored += Self::number(stored);
        self.duplicate += Self::number(rows - stored);
    }

    /// Counts rejects of one class, of which `written` were new and the others duplicates.
    pub(crate) fn add_rejects(&mut self, class: Class, rejects: usize, written: usize) {
        self.rejected.add(class, Self::number(written));
        self.duplicate += Self::number(rejects - written);
    }

    pub(crate) fn add_all(&mut self, more: &Self) {
        self.stored += more.stored;
        self.duplicate += more.duplicate;
        self.rejected.add_all(&more.rejected);
    }

    pub(crate) fn events(&self) -> i64 {
        self.stored + self.duplicate + self.rejected.sum()
    }

    fn number(rows: usize) -> i64 {
        i64::try_from(rows).unwrap_or(i64::MAX)
    }
}

/// The conditions for which Postgres refuses a row, as PL/pgSQL names them. Any other condition is counted as `other`.
const CONDITIONS: &[&str] = &[
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

/// Number of classes.
pub(crate) const CLASSES: usize = masking::Reject::CLASSES.len() + CONDITIONS.len() + 2;

/// Returns the names of the classes, in the order of `Class`.
pub(crate) fn classes() -> impl Iterator<Item = &'static str> {
    masking::Reject::CLASSES.into_iter().chain([NO_BODY]).chain(CONDITIONS.iter().copied()).chain([OTHER])
}

/// The class of a reject, as its position among all classes.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Class(usize);

impl Class {
    /// Returns the class with this name: a class of `masking::Reject` or a Postgres condition. An unknown name is `other`.
    pub(crate) fn named(name: &str) -> Self {
        Self(classes().position(|class| class == name).unwrap_or(CLASSES - 1))
    }

    /// Returns the class for a message whose body is NULL.
    pub(crate) fn no_body() -> Self {
        Self::named(NO_BODY)
    }
}

/// Number of rejects in each class.
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

    /// Returns the classes that have rejects, and their counts.
    pub(crate) fn nonzero(&self) -> impl Iterator<Item = (&'static str, i64)> {
        classes().zip(self.0).filter(|(_, rejects)| *rejects > 0)
    }
}
