//! Guards the memory of the process, which holds raw events and the password of the database.

use std::io;

#[cfg(target_os = "linux")]
use rustix::process::{DumpableBehavior, set_dumpable_behavior};
use rustix::process::{Resource, Rlimit, setrlimit};

/// Forbids core dumps of this process. On Linux it also keeps all but root from reading its memory and its environment.
///
/// The limit alone doesn't stop a kernel that pipes core dumps into a program, such as `systemd-coredump`.
pub(crate) fn guard_memory() -> io::Result<()> {
    let limited = setrlimit(Resource::Core, Rlimit { current: Some(0), maximum: Some(0) });
    #[cfg(target_os = "linux")]
    set_dumpable_behavior(DumpableBehavior::NotDumpable)?;
    Ok(limited?)
}
