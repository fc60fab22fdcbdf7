//! The command that prints the ring.

use std::ffi::{CString, OsStr};
use std::io::{self, Read};
use std::os::fd::{AsRawFd, RawFd};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::process::CommandExt;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use zeroize::Zeroizing;

use super::text::whole;
use crate::error::no_ring::{NoRing, Origin};
use crate::pg::process::{is_backend, is_interrupted};

/// A running command. Dropping it ends the command and everything that it started.
///
/// No orphan of it may reach the postmaster, which is process 1 in a container and would reap it. The postmaster takes an
/// unknown child that a signal ended (by a closed pipe, for example) for a crashed backend.
pub(super) struct Running {
    shell: Child,
    ended: bool,
}

impl Running {
    pub(super) fn start(command: &CString) -> io::Result<Self> {
        let command = OsStr::from_bytes(command.as_bytes());
        adopt(true);
        let shell = Command::new("/bin/sh")
            .arg("-c")
            .arg(command)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .process_group(0)
            .spawn();
        if shell.is_err() {
            adopt(false);
        }
        Ok(Self { shell: shell?, ended: false })
    }

    /// Returns the command's output, if it exits successfully.
    pub(super) fn output(&mut self) -> Result<Zeroizing<Vec<u8>>, NoRing> {
        let failed = |error: io::Error| NoRing::Failed(error.to_string());
        let json = whole(|buffer| {
            let Some(output) = &mut self.shell.stdout else { return Ok(0) };
            wait_until(|timeout| ready_to_read(output.as_raw_fd(), timeout))?;
            output.read(buffer)
        });
        let json = json.map_err(failed)?.ok_or(NoRing::TooLong(Origin::Command))?;
        let mut ended = None;
        wait_until(|timeout| {
            ended = self.shell.try_wait().transpose();
            if ended.is_none() {
                std::thread::sleep(timeout);
            }
            ended.is_some()
        })
        .map_err(failed)?;
        let status = ended.unwrap_or_else(|| self.shell.wait()).map_err(failed)?;
        self.ended = true;
        if status.success() { Ok(json) } else { Err(NoRing::Failed(status.to_string())) }
    }
}

/// Waits until `done` returns true; `done` itself waits up to the time that it is given. In a backend, a cancel or
/// termination interrupts it. The postmaster does not wait here, because it has no clients yet: it blocks on the read and on
/// the process.
fn wait_until(mut done: impl FnMut(Duration) -> bool) -> io::Result<()> {
    while is_backend() && !done(Duration::from_millis(50)) {
        if is_interrupted() {
            return Err(io::ErrorKind::Interrupted.into());
        }
    }
    Ok(())
}

/// Whether reading would return data or the end of the file.
fn ready_to_read(file: RawFd, timeout: Duration) -> bool {
    let mut poll = libc::pollfd { fd: file, events: libc::POLLIN, revents: 0 };
    #[expect(unsafe_code, reason = "calls the system")]
    // SAFETY: one entry, which lives through the call. A signal ends it early.
    let ready = unsafe { libc::poll(&raw mut poll, 1, timeout.as_millis().try_into().unwrap_or_default()) };
    ready > 0
}

impl Drop for Running {
    fn drop(&mut self) {
        // It has ended already, or its output is no longer read. Nothing can be done about an error.
        if !self.ended {
            drop(self.shell.stdout.take());
            let group = self.shell.id().cast_signed();
            #[expect(unsafe_code, reason = "calls the system")]
            // SAFETY: the group is the shell's. The shell has not been waited for, so no other process has its id.
            unsafe {
                libc::kill(-group, libc::SIGKILL);
                // The children of a process become ours before we learn of its end.
                while libc::waitpid(-group, std::ptr::null_mut(), 0) > 0
                    || io::Error::last_os_error().kind() == io::ErrorKind::Interrupted
                {}
            }
        }
        adopt(false);
    }
}

/// Sets whether orphaned descendants of this process become its children.
fn adopt(whether: bool) {
    #[expect(unsafe_code, reason = "calls the system")]
    // SAFETY: it sets an attribute of the process. Every Linux has it.
    unsafe {
        libc::prctl(libc::PR_SET_CHILD_SUBREAPER, libc::c_ulong::from(whether), 0, 0, 0);
    }
}
