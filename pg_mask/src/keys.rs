//! The key ring of this server: where it is read from, when, and in which memory it is kept.

use std::cell::{Cell, RefCell};
use std::ffi::{CString, OsStr, c_void};
use std::fs::{self, File};
use std::io::{self, Read};
use std::ops::Deref;
use std::os::fd::{AsRawFd, RawFd};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::MetadataExt;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::ptr::NonNull;
use std::rc::Rc;
use std::time::Duration;

use masking::keyring::{KeyRing, Wrong};
use memmap2::{Advice, MmapMut};
use pgrx::pg_sys;
use pgrx::prelude::*;
use zeroize::Zeroizing;

use crate::error::{Error, log_alone, may_see_settings};
use crate::message::at_end_of_message;
use crate::settings::{KEYRING_COMMAND, KEYRING_FILE};

/// The most bytes of a ring as it is written down. It is read into a buffer of this size, since one that grows would leave
/// parts of it behind.
const MOST_BYTES: usize = 64 << 10;

/// A ring, and the state of the server's configuration that it was read for.
struct Loaded {
    ring: Rc<Undumped<KeyRing>>,
    configured: pg_sys::TimestampTz,
}

thread_local! {
    /// This backend's ring. With `shared_preload_libraries` the postmaster has read it, and backends are born with it.
    static LOADED: RefCell<Option<Loaded>> = const { RefCell::new(None) };
    /// Whether keys were used for the client's message, so that something may be left of them.
    static TO_WIPE: Cell<bool> = const { Cell::new(false) };
    /// A ring with nothing to hide.
    static DECOY: KeyRing = KeyRing::parse(
        format!(r#"{{"primary":"0","keys":[{{"id":"0","state":"active","key":"{}AA=="}}]}}"#, "AAAA".repeat(21)).as_bytes()
    ).unwrap_or_else(|wrong| panic!("{wrong}"));
}

/// Where a ring comes from.
enum Source {
    File(CString),
    Command(CString),
}

/// Why there is no ring.
pub(crate) enum NoRing {
    /// No setting says where one is.
    NotConfigured,
    /// Two settings say where one is.
    BothConfigured,
    /// The file cannot be read.
    Unreadable(Origin, io::Error),
    /// The file is no regular file, or others than the server's user could read or change it.
    Exposed(Origin),
    /// The command could not be run, or said that it failed.
    Failed(String),
    /// It is longer than any ring.
    TooLong(Origin),
    /// It does not read as a ring.
    Wrong(Origin, Wrong),
}

/// What is wrong, for an error: a file by its path, a command never by its words, which may hold a secret.
pub(crate) enum Origin {
    File(CString),
    Command,
}

/// When the configuration was read.
fn configured() -> pg_sys::TimestampTz {
    #[expect(unsafe_code, reason = "calls Postgres")]
    // SAFETY: reads a variable of the process.
    unsafe {
        pg_sys::PgReloadTime
    }
}

/// The ring; read at first use, and again after the configuration was reloaded.
pub(crate) fn ring() -> Result<Rc<Undumped<KeyRing>>, Error> {
    let configured = configured();
    let known = LOADED.with_borrow(|loaded| {
        loaded.as_ref().filter(|loaded| loaded.configured == configured).map(|loaded| Rc::clone(&loaded.ring))
    });
    if let Some(ring) = known {
        wipe_after_message();
        return Ok(ring);
    }
    // What was read for an older configuration is no longer to be used, even if there is nothing newer.
    drop(LOADED.take());
    let ring = load().map_err(|why| {
        // Where the file is, is not for everyone; but whoever is to mend it finds it in the log.
        if !may_see_settings() && !matches!(why, NoRing::NotConfigured) {
            log_alone(&format!("pg_mask: {}", why.report(true).message()));
        }
        Error::NoRing(why)
    })?;
    wipe_after_message();
    let ring = Rc::new(ring);
    LOADED.set(Some(Loaded { ring: Rc::clone(&ring), configured }));
    Ok(ring)
}

/// The ring, where one is configured.
pub(crate) fn ring_if_any() -> Result<Option<Rc<Undumped<KeyRing>>>, Error> {
    match ring() {
        Ok(ring) => Ok(Some(ring)),
        Err(Error::NoRing(NoRing::NotConfigured)) => Ok(None),
        Err(error) => Err(error),
    }
}

/// Reads the ring in the postmaster, for all backends. Should that fail, the server starts, and each use of a key fails.
pub(crate) fn preload() {
    match load() {
        Ok(ring) => LOADED.set(Some(Loaded { ring: Rc::new(ring), configured: configured() })),
        Err(NoRing::NotConfigured) => {}
        Err(why) => pgrx::warning!(
            "pg_mask: {}; until that is mended, whatever needs a key fails",
            why.report(true).message()
        ),
    }
}

fn load() -> Result<Undumped<KeyRing>, NoRing> {
    // Where there is none, as with base64 alone, there is nothing to wipe either.
    let source = Source::configured()?;
    let loaded = read_ring(source);
    wipe();
    loaded
}

/// A function of its own, so that all it leaves on the stack is below the frame of its caller, who overwrites it.
#[inline(never)]
fn read_ring(source: Source) -> Result<Undumped<KeyRing>, NoRing> {
    let json = source.read()?;
    KeyRing::parse(&json).map(Undumped::new).map_err(|wrong| {
        let origin = match source {
            Source::File(path) => Origin::File(path),
            Source::Command(_) => Origin::Command,
        };
        NoRing::Wrong(origin, wrong)
    })
}

/// Has what is left of keys wiped when Postgres is done with the client's message.
fn wipe_after_message() {
    #[expect(unsafe_code, reason = "called by Postgres")]
    #[pg_guard]
    unsafe extern "C-unwind" fn message_ends(_argument: *mut c_void) {
        TO_WIPE.set(false);
        wipe();
    }
    if !TO_WIPE.get() && at_end_of_message(message_ends) {
        TO_WIPE.set(true);
    }
}

/// Overwrites what functions that have returned have left of keys: on the stack, and in the registers that AES is done in. Those
/// keep it for as long as nothing else needs them, for hours in a backend that has nothing to do; and core dumps hold both.
#[inline(never)]
fn wipe() {
    overwrite_stack();
    // The same work under a key of zeros leaves that key's in the same registers.
    DECOY.with(|ring| {
        for value in [&[b'x'; 16][..], &[b'x'; 4096]] {
            let mut token = vec![0; ring.masked_len(value)];
            // Too little to run out of memory.
            let length = ring.mask(value, &mut token).unwrap_or_default();
            let unmasked = ring.unmask(&token[..length], &mut vec![0; length]);
            debug_assert_eq!(unmasked, Ok(value.len()));
        }
    });
}

#[inline(never)]
#[expect(clippy::large_stack_arrays, reason = "it is the stack that is meant; Postgres keeps 2 MB of it")]
fn overwrite_stack() {
    let mut stack = [0_u8; 256 << 10];
    // Nobody reads it, but the compiler has to suppose so.
    std::hint::black_box(&mut stack);
}

impl Source {
    fn configured() -> Result<Self, NoRing> {
        let set = |value: Option<CString>| value.filter(|value| !value.is_empty());
        match (set(KEYRING_FILE.get()), set(KEYRING_COMMAND.get())) {
            (None, None) => Err(NoRing::NotConfigured),
            (Some(file), None) => Ok(Self::File(file)),
            (None, Some(command)) => Ok(Self::Command(command)),
            (Some(_), Some(_)) => Err(NoRing::BothConfigured),
        }
    }

    fn read(&self) -> Result<Zeroizing<Vec<u8>>, NoRing> {
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
                // If it was broken off for that, Postgres says so itself; a session that is ended comes no further.
                pgrx::check_for_interrupts!();
                json
            }
        }
    }
}

/// All that `read` gives; none if it is more than a ring may have.
fn whole(mut read: impl FnMut(&mut [u8]) -> io::Result<usize>) -> io::Result<Option<Zeroizing<Vec<u8>>>> {
    let mut bytes = Zeroizing::new(vec![0; MOST_BYTES]);
    let mut length = 0;
    while length < MOST_BYTES {
        match read(&mut bytes[length..])? {
            0 => {
                bytes.truncate(length);
                return Ok(Some(bytes));
            }
            more => length += more,
        }
    }
    Ok(None)
}

/// Whether a file is as Postgres wants the private key of its certificate (be-secure-common.c): a regular one that is the
/// server's user's alone, or root's and at most its group's to read.
fn is_private(file: &fs::Metadata) -> bool {
    #[expect(unsafe_code, reason = "calls the system")]
    // SAFETY: it takes nothing and cannot fail.
    let user = unsafe { libc::geteuid() };
    let exposed = if file.uid() == user { 0o077 } else { 0o037 };
    file.is_file() && (file.uid() == user || file.uid() == 0) && file.mode() & exposed == 0
}

/// A command that is running, and ended with all that it started when it is dropped.
///
/// Nothing that it leaves behind may come to the postmaster, which is process 1 in a container, to be reaped: it takes a
/// child that it does not know and that a signal ended, by a closed pipe say, for a backend that crashed.
struct Running {
    shell: Child,
    ended: bool,
}

impl Running {
    fn start(command: &CString) -> io::Result<Self> {
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

    /// What the command prints, if it ends well.
    fn output(&mut self) -> Result<Zeroizing<Vec<u8>>, NoRing> {
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

/// Waits until `done`, which itself waits up to the time that it is given. In a backend that is cancelled or ended it is broken
/// off. The postmaster, to which nobody is connected yet, waits for it elsewhere.
fn wait_until(mut done: impl FnMut(Duration) -> bool) -> io::Result<()> {
    #[expect(unsafe_code, reason = "reads variables of the process")]
    // SAFETY: the first is set before libraries are loaded, the others by signals.
    let (backend, broken_off) = unsafe {
        (pg_sys::IsUnderPostmaster, || pg_sys::QueryCancelPending != 0 || pg_sys::ProcDiePending != 0)
    };
    while backend && !done(Duration::from_millis(50)) {
        if broken_off() {
            return Err(io::ErrorKind::Interrupted.into());
        }
    }
    Ok(())
}

/// Whether there is something to read, or nothing ever will be.
fn ready_to_read(file: RawFd, timeout: Duration) -> bool {
    let mut poll = libc::pollfd { fd: file, events: libc::POLLIN, revents: 0 };
    #[expect(unsafe_code, reason = "calls the system")]
    // SAFETY: one entry, which lives through the call. A signal ends it early.
    let ready = unsafe { libc::poll(&raw mut poll, 1, timeout.as_millis().try_into().unwrap_or_default()) };
    ready > 0
}

impl Drop for Running {
    fn drop(&mut self) {
        // It has ended already, or nobody reads on. Nothing can be done about an error.
        if !self.ended {
            drop(self.shell.stdout.take());
            let group = self.shell.id().cast_signed();
            #[expect(unsafe_code, reason = "calls the system")]
            // SAFETY: the group is the shell's, which has not been waited for, so that the id is of no other.
            unsafe {
                libc::kill(-group, libc::SIGKILL);
                // What a process had started is ours before we get to know of its end.
                while libc::waitpid(-group, std::ptr::null_mut(), 0) > 0
                    || io::Error::last_os_error().kind() == io::ErrorKind::Interrupted
                {}
            }
        }
        adopt(false);
    }
}

/// Whether processes whose parent has ended become children of this one if they descend from it.
fn adopt(whether: bool) {
    #[expect(unsafe_code, reason = "calls the system")]
    // SAFETY: it sets an attribute of the process. Every Linux has it.
    unsafe {
        libc::prctl(libc::PR_SET_CHILD_SUBREAPER, libc::c_ulong::from(whether), 0, 0, 0);
    }
}

/// A value in memory of its own, which the kernel and debuggers leave out of core dumps, here and in forked processes.
pub(crate) struct Undumped<T> {
    value: NonNull<T>,
    /// Where it is.
    _memory: MmapMut,
}

impl<T> Undumped<T> {
    fn new(value: T) -> Self {
        let mut memory = MmapMut::map_anon(size_of::<T>()).expect("a few pages of memory");
        memory.advise(Advice::DontDump).expect("advice that every Linux takes");
        let place = NonNull::from(&mut *memory).cast::<T>();
        #[expect(unsafe_code, reason = "puts a value where it is to be")]
        // SAFETY: the memory is as large as asked for, aligned to a page, and nobody else's.
        unsafe {
            place.write(value);
        }
        Self { value: place, _memory: memory }
    }
}

impl<T> Deref for Undumped<T> {
    type Target = T;

    fn deref(&self) -> &T {
        #[expect(unsafe_code, reason = "lends out the value")]
        // SAFETY: the value is there as long as `self`, and never changed but through it.
        unsafe {
            self.value.as_ref()
        }
    }
}

impl<T> Drop for Undumped<T> {
    fn drop(&mut self) {
        #[expect(unsafe_code, reason = "drops the value, which wipes it")]
        // SAFETY: the value is there and is not used again; its memory goes after this.
        unsafe {
            self.value.drop_in_place();
        }
    }
}
