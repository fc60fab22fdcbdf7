//! Writing rows to a relation by COPY or INSERT, and classifying the errors by who is at fault.

pub(crate) mod copy;
pub(crate) mod insert;
pub(crate) mod key;
pub(crate) mod sqlstate;
