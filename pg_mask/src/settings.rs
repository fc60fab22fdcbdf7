//! The settings of the extension.
//!
//! Only one of them is for ordinary users: the purpose for which they unmask. A role that inserts must not choose how its events
//! are masked, and a role that unmasks must not choose whether that is written down.

use std::cell::RefCell;
use std::ffi::{CStr, CString, c_char, c_void};
use std::sync::atomic::{AtomicU64, Ordering};

use masking::scheme;
use pgrx::guc::{GucContext, GucFlags, GucRegistry, GucSetting};
use pgrx::{PostgresGucEnum, pg_guard, pg_sys};

use crate::error::Error;

/// `pg_mask.scheme`.
#[derive(Clone, Copy, PostgresGucEnum)]
enum Scheme {
    #[name = c"base64"]
    Base64,
    #[name = c"aes-siv"]
    AesSiv,
}

/// `pg_mask.log_unmask`.
#[derive(Clone, Copy, PartialEq, Eq, PostgresGucEnum)]
pub(crate) enum LogUnmask {
    #[name = c"off"]
    Off,
    #[name = c"statement"]
    Statement,
}

static SCHEME: GucSetting<Scheme> = GucSetting::<Scheme>::new(Scheme::Base64);
pub(crate) static KEYRING_FILE: GucSetting<Option<CString>> = GucSetting::<Option<CString>>::new(Some(c""));
pub(crate) static KEYRING_COMMAND: GucSetting<Option<CString>> =
    GucSetting::<Option<CString>>::new(Some(c""));
pub(crate) static LOG_UNMASK: GucSetting<LogUnmask> = GucSetting::<LogUnmask>::new(LogUnmask::Off);
pub(crate) static UNMASK_LIMIT: GucSetting<i32> = GucSetting::<i32>::new(-1);
/// In bytes. SQS takes no message over 1 MiB.
static MAX_EVENT_SIZE: GucSetting<i32> = GucSetting::<i32>::new(16 << 20);

/// The number of the session's last inbox statement, as a setting: `DISCARD ALL` resets it, and tells a library in no other
/// way. Only this library sets it.
static LAST_STATEMENT: GucSetting<i32> = GucSetting::<i32>::new(0);
const LAST_STATEMENT_NAME: &CStr = c"pg_mask.last_statement";

/// Whether a statement is the session's last on an inbox, and the session was not reset since.
pub(crate) fn is_last_statement(number: i64) -> bool {
    LAST_STATEMENT.get() == as_setting(number)
}

/// Numbers begin again when a setting can hold no more. It is never 0, which a reset leaves.
fn as_setting(number: i64) -> i32 {
    i32::try_from(number % i64::from(i32::MAX)).unwrap_or_default() + 1
}

/// Notes the number of the session's last inbox statement.
pub(crate) fn set_last_statement(number: i64) {
    let number = CString::new(as_setting(number).to_string()).unwrap_or_default();
    #[expect(unsafe_code, reason = "calls Postgres")]
    // SAFETY: C strings that outlive the call, which copies what it keeps.
    unsafe {
        pg_sys::set_config_option(
            LAST_STATEMENT_NAME.as_ptr(),
            number.as_ptr(),
            pg_sys::GucContext::PGC_SUSET,
            pg_sys::GucSource::PGC_S_SESSION,
            pg_sys::GucAction::GUC_ACTION_SET,
            true,
            0,
            false,
        );
    }
}

static UNMASK_PURPOSE: GucSetting<Option<CString>> = GucSetting::<Option<CString>>::new(Some(c""));
pub(crate) static REQUIRE_PURPOSE: GucSetting<bool> = GucSetting::<bool>::new(false);

/// Maximum length of a purpose in characters: each stands in a line of the log.
const PURPOSE_LIMIT: usize = 200;

/// The scheme of masks for which none is named.
pub(crate) fn default_scheme() -> scheme::Scheme {
    match SCHEME.get() {
        Scheme::Base64 => scheme::Scheme::Base64,
        Scheme::AesSiv => scheme::Scheme::AesSiv,
    }
}

/// The maximum size of a message's body, in bytes.
pub(crate) fn max_event_size() -> usize {
    usize::try_from(MAX_EVENT_SIZE.get()).unwrap_or_default()
}

/// Number of changes of the purpose in this process.
static PURPOSE_CHANGES: AtomicU64 = AtomicU64::new(0);

/// Returns a number that changes whenever the purpose may have changed: comparing texts for each value takes time.
pub(crate) fn purpose_changes() -> u64 {
    PURPOSE_CHANGES.load(Ordering::Relaxed)
}

/// Calls `act` with the purpose for which values are unmasked, which may be empty.
pub(crate) fn with_purpose<R>(act: impl FnOnce(&CStr) -> R) -> R {
    #[expect(unsafe_code, reason = "reads a setting")]
    // SAFETY: the setting is NULL or a C string, which Postgres frees when the setting changes; no `act` calls Postgres.
    unsafe {
        let purpose = *UNMASK_PURPOSE.as_ptr();
        act(if purpose.is_null() { c"" } else { CStr::from_ptr(purpose) })
    }
}

/// Refuses a purpose that is too long. The error quotes none of it.
#[expect(unsafe_code, reason = "called by Postgres")]
#[pg_guard]
unsafe extern "C-unwind" fn check_purpose(
    new: *mut *mut c_char,
    _extra: *mut *mut c_void,
    _source: pg_sys::GucSource::Type,
) -> bool {
    // SAFETY: Postgres hands over a place that holds NULL or a C string. The message is copied before it is used up.
    unsafe {
        // A character has at most four bytes. What is longer is not copied, since that can run out of memory.
        let is_short = |purpose: &CStr| {
            purpose.count_bytes() <= 4 * PURPOSE_LIMIT
                && purpose.to_string_lossy().chars().count() <= PURPOSE_LIMIT
        };
        let fits = (*new).is_null() || is_short(CStr::from_ptr(*new));
        if !fits {
            pg_sys::GUC_check_errmsg_string =
                c"pg_mask.unmask_purpose is longer than 200 characters".as_ptr().cast_mut();
        }
        fits
    }
}

/// Called whenever the purpose is set, and put back at the end of a transaction, savepoint or function.
#[expect(unsafe_code, reason = "called by Postgres")]
#[pg_guard]
unsafe extern "C-unwind" fn purpose_changes_now(_new: *const c_char, _extra: *mut c_void) {
    PURPOSE_CHANGES.fetch_add(1, Ordering::Relaxed);
}

const NAMES: [&CStr; 8] = [
    c"pg_mask.scheme",
    c"pg_mask.keyring_file",
    c"pg_mask.keyring_command",
    c"pg_mask.log_unmask",
    c"pg_mask.unmask_limit",
    c"pg_mask.max_event_size",
    c"pg_mask.unmask_purpose",
    c"pg_mask.require_purpose",
];

thread_local! {
    /// What came of registering the settings. Should the library not be loaded for that, Postgres tries again at its next use.
    static REGISTERED: RefCell<Option<Result<(), String>>> = const { RefCell::new(None) };
}

/// Tells Postgres of the settings, and takes over what they were set to before.
///
/// Until the library is loaded Postgres takes any value for them, from anybody. Those that it then refuses are replaced by the
/// default with no more than a warning, though that may be no limit, and base64: so here that is an error.
pub(crate) fn register() -> Result<(), Error> {
    if REGISTERED.with_borrow(Option::is_none) {
        let before = NAMES.map(source);
        define();
        let taken = |(name, before): &(&CStr, Option<pg_sys::GucSource::Type>)| {
            before.is_none() || *before == source(name)
        };
        let refused = NAMES.into_iter().zip(before).find(|setting| !taken(setting));
        let result = refused.map_or(Ok(()), |(name, _)| Err(name.to_string_lossy().into_owned()));
        REGISTERED.set(Some(result));
    }
    let refused =
        REGISTERED.with_borrow(|result| result.as_ref().and_then(|result| result.as_ref().err().cloned()));
    refused.map_or(Ok(()), |name| Err(Error::SettingNotTaken { name }))
}

/// Where the value of a setting comes from, if Postgres knows of it: from a file, a role, a connection's options, the session.
#[cfg(feature = "pg15")]
fn source(name: &CStr) -> Option<pg_sys::GucSource::Type> {
    #[expect(unsafe_code, reason = "calls Postgres")]
    // SAFETY: so many pointers to settings there are, each of which has a name.
    unsafe {
        let count = usize::try_from(pg_sys::GetNumConfigOptions()).unwrap_or_default();
        let settings = std::slice::from_raw_parts(pg_sys::get_guc_variables(), count);
        let is_it = |setting: &&*mut pg_sys::config_generic| {
            CStr::from_ptr((***setting).name).to_bytes().eq_ignore_ascii_case(name.to_bytes())
        };
        settings.iter().find(is_it).map(|setting| (**setting).source)
    }
}

/// Where the value of a setting comes from, if Postgres knows of it: from a file, a role, a connection's options, the session.
#[cfg(not(feature = "pg15"))]
fn source(name: &CStr) -> Option<pg_sys::GucSource::Type> {
    #[expect(unsafe_code, reason = "calls Postgres")]
    // SAFETY: a C string; nothing is made or raised where there is no such setting.
    unsafe {
        let setting = pg_sys::find_option(name.as_ptr(), false, true, 0);
        (!setting.is_null()).then(|| (*setting).source)
    }
}

fn define() {
    let secret = GucFlags::SUPERUSER_ONLY;
    GucRegistry::define_enum_guc(
        NAMES[0],
        c"How values are masked where no scheme is named.",
        c"",
        &SCHEME,
        GucContext::Suset,
        GucFlags::default(),
    );
    GucRegistry::define_string_guc(
        NAMES[1],
        c"The file that holds the key ring.",
        c"It must be the server's user's and nobody else's to read. A path that is not absolute begins in the data directory.",
        &KEYRING_FILE,
        GucContext::Sighup,
        secret,
    );
    GucRegistry::define_string_guc(
        NAMES[2],
        c"A shell command that prints the key ring.",
        c"",
        &KEYRING_COMMAND,
        GucContext::Sighup,
        secret,
    );
    GucRegistry::define_enum_guc(
        NAMES[3],
        c"Logs each statement that unmasks values: who ran it, and how many values.",
        c"",
        &LOG_UNMASK,
        GucContext::Suset,
        GucFlags::default(),
    );
    GucRegistry::define_int_guc(
        NAMES[4],
        c"The most values that a transaction may unmask.",
        c"-1 is no limit.",
        &UNMASK_LIMIT,
        -1,
        i32::MAX,
        GucContext::Suset,
        GucFlags::default(),
    );
    GucRegistry::define_int_guc(
        LAST_STATEMENT_NAME,
        c"The number of the session's last inbox statement.",
        c"",
        &LAST_STATEMENT,
        0,
        i32::MAX,
        GucContext::Suset,
        GucFlags::NO_SHOW_ALL | GucFlags::DISALLOW_IN_FILE,
    );
    GucRegistry::define_int_guc(
        NAMES[5],
        c"Maximum size of a message's body.",
        c"An inbox refuses the statement that inserts a larger one.",
        &MAX_EVENT_SIZE,
        1 << 10,
        // Postgres has no larger value.
        (1 << 30) - 1,
        GucContext::Suset,
        GucFlags::UNIT_BYTE,
    );
    #[expect(unsafe_code, reason = "names hooks")]
    // SAFETY: the hooks are guarded.
    unsafe {
        GucRegistry::define_string_guc_with_hooks(
            NAMES[6],
            c"Why values are unmasked: a text of at most 200 characters, for the log.",
            c"",
            &UNMASK_PURPOSE,
            GucContext::Userset,
            GucFlags::default(),
            Some(check_purpose),
            Some(purpose_changes_now),
            None,
        );
    }
    GucRegistry::define_bool_guc(
        NAMES[7],
        c"Refuses to unmask values while pg_mask.unmask_purpose is empty.",
        c"",
        &REQUIRE_PURPOSE,
        GucContext::Suset,
        GucFlags::default(),
    );
    #[expect(unsafe_code, reason = "calls Postgres")]
    // SAFETY: a C string.
    unsafe {
        pg_sys::MarkGUCPrefixReserved(c"pg_mask".as_ptr());
    }
}
