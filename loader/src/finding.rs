//! What looking at one thing that a run needs has found.

use std::fmt;

use tracing::warn;

/// How it stands with an item.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Status {
    /// As it should be.
    Ok,
    /// A run can begin, and somebody may be surprised later.
    Warning,
    /// A run cannot begin.
    Failed,
    /// It could not be looked at without doing harm.
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

/// One item, how it stands with it, and what to do where something is to be done.
#[derive(Debug)]
pub(crate) struct Finding {
    /// What was looked at, in a word for scripts: `queue.retention`.
    pub(crate) item: &'static str,
    pub(crate) status: Status,
    /// In a sentence, for people.
    pub(crate) message: String,
}

impl Finding {
    /// All is well.
    pub(crate) fn ok(item: &'static str, message: impl Into<String>) -> Self {
        Self { item, status: Status::Ok, message: message.into() }
    }

    /// Something may surprise somebody.
    pub(crate) fn warning(item: &'static str, message: impl Into<String>) -> Self {
        Self { item, status: Status::Warning, message: message.into() }
    }

    /// A run cannot begin.
    pub(crate) fn failed(item: &'static str, message: impl Into<String>) -> Self {
        Self { item, status: Status::Failed, message: message.into() }
    }

    /// It was not looked at.
    pub(crate) fn skipped(item: &'static str, message: impl Into<String>) -> Self {
        Self { item, status: Status::Skipped, message: message.into() }
    }
}

/// Logs what may surprise somebody, where a run begins.
pub(crate) fn log_warnings(findings: &[Finding]) {
    for finding in findings.iter().filter(|finding| finding.status == Status::Warning) {
        warn!(item = finding.item, "{}", finding.message);
    }
}
