//! The settings of the extension.
//!
//! Ordinary users can set only one of them: the purpose for which they unmask. A role that inserts must not choose how its
//! events are masked. A role that unmasks must not choose whether that is logged.

use std::ffi::{CStr, CString, c_char, c_void};
use std::sync::atomic::{AtomicU64, Ordering};

use masking::scheme::Scheme;
use pgrx::guc::{GucContext, GucEnum, GucFlags, GucRegistry, GucSetting};
use pgrx::pg_sys::config_enum_entry;
use pgrx::{PostgresGucEnum, pg_guard, pg_sys};

use crate::error::Error;
use crate::pg::compat::source_of_setting;
use crate::pg::state::{SessionCell, SessionState, session_cell};

/// `pg_mask.scheme`: one of the schemes, as its position in their list.
#[derive(Clone, Copy)]
struct SchemeSetting(Scheme);

const NO_ENTRY: config_enum_entry = config_enum_entry { name: std::ptr::null(), val: 0, hidden: false };

/// The possible values of `pg_mask.scheme`. Postgres finds the end by an entry without a name.
const SCHEMES: &[config_enum_entry] = &{
    let mut entries = [NO_ENTRY; Scheme::ALL.len() + 1];
    let mut position = 0;
    while position < Scheme::ALL.len() {
        let scheme = Scheme::ALL[position];
        entries[position].name = scheme.c_name().as_ptr();
        entries[position].val = scheme as i32;
        position += 1;
    }
    entries
};

#[expect(unsafe_code, reason = "promises that the pointer is valid")]
// SAFETY: the entries are a constant, with C strings as names and an entry without a name at the end.
unsafe impl GucEnum for SchemeSetting {
    fn from_ordinal(ordinal: i32) -> Self {
        Self(Scheme::ALL[usize::try_from(ordinal).unwrap_or_default()])
    }

    fn to_ordinal(&self) -> i32 {
        self.0 as i32
    }

    const CONFIG_ENUM_ENTRY: *const config_enum_entry = SCHEMES.as_ptr();
}

/// `pg_mask.log_unmask`.
#[derive(Clone, Copy, PartialEq, Eq, PostgresGucEnum)]
pub(crate) enum LogUnmask {
    #[name = c"off"]
    Off,
    #[name = c"statement"]
    Statement,
}

static SCHEME: GucSetting<SchemeSetting> = GucSetting::<SchemeSetting>::new(SchemeSetting(Scheme::Base64));
pub(crate) static KEYRING_FILE: GucSetting<Option<CString>> = GucSetting::<Option<CString>>::new(Some(c""));
pub(crate) static KEYRING_COMMAND: GucSetting<Option<CString>> =
    GucSetting::<Option<CString>>::new(Some(c""));
pub(crate) static LOG_UNMASK: GucSetting<LogUnmask> = GucSetting::<LogUnmask>::new(LogUnmask::Off);
pub(crate) static UNMASK_LIMIT: GucSetting<i32> = GucSetting::<i32>::new(-1);
/// Maximum size of a message's body, in bytes. SQS limits a message to 1 MiB.
static MAX_EVENT_SIZE: GucSetting<i32> = GucSetting::<i32>::new(16 << 20);

/// The number of the session's last inbox statement. It is a setting because `DISCARD ALL` resets it and notifies a library
/// in no other way. Only this library sets it.
static LAST_STATEMENT: GucSetting<i32> = GucSetting::<i32>::new(0);
const LAST_STATEMENT_NAME: &CStr = c"pg_mask.last_statement";

/// Whether a statement is the session's last on an inbox, with no session reset since.
pub(crate) fn is_last_statement(number: i64) -> bool {
    LAST_STATEMENT.get() == as_setting(number)
}

/// Returns a statement's number as a setting. Numbers start over when a setting can hold no more. 0 is never used, because a
/// reset leaves it.
fn as_setting(number: i64) -> i32 {
    i32::try_from(number % i64::from(i32::MAX)).unwrap_or_default() + 1
}

/// Stores the number of the session's last inbox statement.
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

/// Maximum length of a purpose, in characters: each purpose becomes part of a log line.
const PURPOSE_LIMIT: usize = 200;

/// Returns the scheme of masks that name none.
pub(crate) fn default_scheme() -> Scheme {
    SCHEME.get().0
}

/// Returns the maximum size of a message's body, in bytes.
pub(crate) fn max_event_size() -> usize {
    usize::try_from(MAX_EVENT_SIZE.get()).unwrap_or_default()
}

/// Number of changes of the purpose in this process.
static PURPOSE_CHANGES: AtomicU64 = AtomicU64::new(0);

/// Returns a number that changes whenever the purpose may have changed. Comparing texts for each value would take longer.
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

/// Refuses a purpose that is too long. The error does not quote it.
#[expect(unsafe_code, reason = "called by Postgres")]
#[pg_guard]
unsafe extern "C-unwind" fn check_purpose(
    new: *mut *mut c_char,
    _extra: *mut *mut c_void,
    _source: pg_sys::GucSource::Type,
) -> bool {
    // SAFETY: Postgres passes a pointer to NULL or to a C string. It copies the message before using it up.
    unsafe {
        // A character has at most four bytes. A longer text is not copied, because copying can run out of memory.
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

/// Called whenever the purpose is set, and when it is restored at the end of a transaction, savepoint or function.
#[expect(unsafe_code, reason = "called by Postgres")]
#[pg_guard]
unsafe extern "C-unwind" fn on_purpose_assigned(_new: *const c_char, _extra: *mut c_void) {
    PURPOSE_CHANGES.fetch_add(1, Ordering::Relaxed);
}

thread_local! {
    /// The result of registering the settings. If it keeps the library from being loaded, Postgres tries again at its next
    /// use.
    static REGISTERED: SessionCell<Option<Result<(), String>>> = const { session_cell(None) };
}

/// A setting: its name, and the function that defines it under that name.
type Setting = (&'static CStr, fn(&'static CStr));

/// The settings. Each is checked by [`register`], because there is no other place that defines one.
const SETTINGS: [Setting; 9] = [
    (c"pg_mask.scheme", |name| {
        GucRegistry::define_enum_guc(
            name,
            c"The scheme of values for which none is named.",
            c"",
            &SCHEME,
            GucContext::Suset,
            GucFlags::default(),
        );
    }),
    (c"pg_mask.keyring_file", |name| {
        GucRegistry::define_string_guc(
            name,
            c"The file that holds the key ring.",
            c"Only the server's operating-system user may have access to it. A relative path begins in the data directory.",
            &KEYRING_FILE,
            GucContext::Sighup,
            GucFlags::SUPERUSER_ONLY,
        );
    }),
    (c"pg_mask.keyring_command", |name| {
        GucRegistry::define_string_guc(
            name,
            c"A shell command that prints the key ring.",
            c"",
            &KEYRING_COMMAND,
            GucContext::Sighup,
            GucFlags::SUPERUSER_ONLY,
        );
    }),
    (c"pg_mask.log_unmask", |name| {
        GucRegistry::define_enum_guc(
            name,
            c"Logs each statement that unmasks values: the role, and the number of values.",
            c"",
            &LOG_UNMASK,
            GucContext::Suset,
            GucFlags::default(),
        );
    }),
    (c"pg_mask.unmask_limit", |name| {
        GucRegistry::define_int_guc(
            name,
            c"Maximum number of values that a transaction can unmask.",
            c"-1 is no limit.",
            &UNMASK_LIMIT,
            -1,
            i32::MAX,
            GucContext::Suset,
            GucFlags::default(),
        );
    }),
    (c"pg_mask.max_event_size", |name| {
        GucRegistry::define_int_guc(
            name,
            c"Maximum size of a message's body.",
            c"An inbox refuses the statement that inserts a larger one.",
            &MAX_EVENT_SIZE,
            1 << 10,
            // Postgres has no larger value (`MaxAllocSize` in memutils.h).
            (1 << 30) - 1,
            GucContext::Suset,
            GucFlags::UNIT_BYTE,
        );
    }),
    (c"pg_mask.unmask_purpose", |name| {
        #[expect(unsafe_code, reason = "names hooks")]
        // SAFETY: the hooks are guarded.
        unsafe {
            GucRegistry::define_string_guc_with_hooks(
                name,
                c"The purpose for which values are unmasked: a text of at most 200 characters, for the log.",
                c"",
                &UNMASK_PURPOSE,
                GucContext::Userset,
                GucFlags::default(),
                Some(check_purpose),
                Some(on_purpose_assigned),
                None,
            );
        }
    }),
    (c"pg_mask.require_purpose", |name| {
        GucRegistry::define_bool_guc(
            name,
            c"Refuses to unmask values while pg_mask.unmask_purpose is empty.",
            c"",
            &REQUIRE_PURPOSE,
            GucContext::Suset,
            GucFlags::default(),
        );
    }),
    (LAST_STATEMENT_NAME, |name| {
        GucRegistry::define_int_guc(
            name,
            c"The number of the session's last inbox statement.",
            c"",
            &LAST_STATEMENT,
            0,
            i32::MAX,
            GucContext::Suset,
            GucFlags::NO_SHOW_ALL | GucFlags::DISALLOW_IN_FILE,
        );
    }),
];

/// Registers the settings with Postgres, and takes over their earlier values.
///
/// Until the library is loaded, Postgres accepts any value for them, from anyone. On registration, it replaces values that
/// it then refuses by the default, with only a warning. That default may mean no limit, or base64. So a refused value is an
/// error here.
pub(crate) fn register() -> Result<(), Error> {
    if REGISTERED.with_borrow(Option::is_none) {
        let before = SETTINGS.map(|(name, _)| source_of_setting(name));
        for (name, define) in SETTINGS {
            define(name);
        }
        #[expect(unsafe_code, reason = "calls Postgres")]
        // SAFETY: a C string.
        unsafe {
            pg_sys::MarkGUCPrefixReserved(c"pg_mask".as_ptr());
        }
        let is_refused =
            |(name, before): (&CStr, Option<_>)| before.is_some() && before != source_of_setting(name);
        let refused =
            SETTINGS.into_iter().zip(before).find(|((name, _), before)| is_refused((*name, *before)));
        let result = refused.map_or(Ok(()), |((name, _), _)| Err(name.to_string_lossy().into_owned()));
        REGISTERED.set(Some(result));
    }
    let refused =
        REGISTERED.with_borrow(|result| result.as_ref().and_then(|result| result.as_ref().err().cloned()));
    refused.map_or(Ok(()), |name| Err(Error::SettingNotTaken { name }))
}
