//! Result of checking one item that a run needs.

use std::fmt;

use tracing::warn;

/// Status of an item.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Status {
    /// As it should be.
    Ok,
    /// A run can begin, but something may surprise somebody later.
    Warning,
    /// A run cannot begin.
    Failed,
    /// The item couldn't be checked without doing harm.
    Skipped,
}

impl fmt::Display for Status {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Ok => "ok",
            Self::Warning => "warning",
            Self::Failed => "failed",
            Self::Skipped => "skipped",
        })
    }
}

/// One item, its status, and what to do about it.
#[derive(Debug)]
pub(crate) struct CheckItem {
    /// Name of the item, for scripts: `queue.retention`.
    pub(crate) item: &'static str,
    pub(crate) status: Status,
    /// One sentence, for people.
    pub(crate) message: String,
}

impl CheckItem {
    /// Returns the message on one line. A name from the database can hold line breaks and escape sequences, which would
    /// forge items or hide them.
    pub(crate) fn line(&self) -> String {
        let mut line = String::with_capacity(self.message.len());
        for c in self.message.chars() {
            // Characters that turn or separate lines are no control characters in Unicode.
            if c.is_control()
                || matches!(c, '\u{200e}' | '\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
            {
                line.extend(c.escape_unicode());
            } else {
                line.push(c);
            }
        }
        line
    }

    /// Builds an item that is as it should be.
    pub(crate) fn ok(item: &'static str, message: impl Into<String>) -> Self {
        Self { item, status: Status::Ok, message: message.into() }
    }

    /// Builds an item that may surprise somebody.
    pub(crate) fn warning(item: &'static str, message: impl Into<String>) -> Self {
        Self { item, status: Status::Warning, message: message.into() }
    }

    /// Builds an item that keeps a run from beginning.
    pub(crate) fn failed(item: &'static str, message: impl Into<String>) -> Self {
        Self { item, status: Status::Failed, message: message.into() }
    }

    /// Builds an item that wasn't checked.
    pub(crate) fn skipped(item: &'static str, message: impl Into<String>) -> Self {
        Self { item, status: Status::Skipped, message: message.into() }
    }
}

/// Logs the warnings when a run begins.
pub(crate) fn log_warnings(check_items: &[CheckItem]) {
    for check_item in check_items.iter().filter(|check_item| check_item.status == Status::Warning) {
        warn!(item = check_item.item, "{}", check_item.message);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_cannot_forge_a_line() {
        let item = CheckItem::warning("inbox.references", "of s.\"x\r\n\u{1b}[2Kok é\u{202e}\"");
        assert_eq!(item.line(), "of s.\"x\\u{d}\\u{a}\\u{1b}[2Kok é\\u{202e}\"");
    }
}
