//! Where the ring's text comes from: a file or a command.

use std::ffi::{CString, OsStr};
use std::fs::{self, File};
use std::io::Read;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use zeroize::Zeroizing;

use super::command::Running;
use super::text::whole;
use crate::error::no_ring::{NoRing, Origin};
use crate::settings::{KEYRING_COMMAND, KEYRING_FILE};

/// The source of a ring.
pub(super) enum Source {
    File(CString),
    Command(CString),
}

impl Source {
    pub(super) fn configured() -> Result<Self, NoRing> {
        let set = |value: Option<CString>| value.filter(|value| !value.is_empty());
        match (set(KEYRING_FILE.get()), set(KEYRING_COMMAND.get())) {
            (None, None) => Err(NoRing::NotConfigured),
            (Some(file), None) => Ok(Self::File(file)),
            (None, Some(command)) => Ok(Self::Command(command)),
            (Some(_), Some(_)) => Err(NoRing::BothConfigured),
        }
    }

    pub(super) fn read(&self) -> Result<Zeroizing<Vec<u8>>, NoRing> {
        match self {
            Self::File(name) => {
                let path = Path::new(OsStr::from_bytes(name.as_bytes()));
                let origin = || Origin::File(name.clone());
                let unreadable = |error| NoRing::Unreadable(origin(), error);
                if !is_private(&fs::metadata(path).map_err(unreadable)?) {
                    return Err(NoRing::Exposed(origin()));
                }
                let mut file = File::open(path).map_err(unreadable)?;
                whole(|buffer| file.read(buffer))
                    .map_err(unreadable)?
                    .ok_or_else(|| NoRing::TooLong(origin()))
            }
            Self::Command(command) => {
                let mut running =
                    Running::start(command).map_err(|error| NoRing::Failed(error.to_string()))?;
                let json = running.output();
                drop(running);
                // If a cancel interrupted the command, this raises Postgres's own error. A session that is being terminated
                // ends here.
                pgrx::check_for_interrupts!();
                json
            }
        }
    }
}

/// Whether a file meets Postgres's conditions for its certificate's private key (be-secure-common.c). It must be a regular
/// file. Either the server's user owns it and nobody else can access it, or root owns it and at most its group can read it.
fn is_private(file: &fs::Metadata) -> bool {
    #[expect(unsafe_code, reason = "calls the system")]
    // SAFETY: it takes nothing and cannot fail.
    let user = unsafe { libc::geteuid() };
    let exposed = if file.uid() == user { 0o077 } else { 0o037 };
    file.is_file() && (file.uid() == user || file.uid() == 0) && file.mode() & exposed == 0
}
