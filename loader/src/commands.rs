//! The commands, each from its options to its last line.

pub(crate) mod check;
pub(crate) mod dry_run;
pub(crate) mod man_pages;
#[cfg(feature = "null-consumer")]
pub(crate) mod null_consumer;
pub(crate) mod progress;
pub(crate) mod redrive;
pub(crate) mod run;

use std::fmt::Display;
use std::io::{self, Write};

/// Prints a line to standard output, for scripts. If it is closed, only the exit code tells.
fn print(line: &impl Display) {
    _ = writeln!(io::stdout(), "{line}");
}
