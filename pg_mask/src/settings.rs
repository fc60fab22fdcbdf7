//! The settings of the extension.
//!
//! None of them is for ordinary users: whoever inserts must not choose how their events are masked, and whoever unmasks
//! not whether that is written down.

use std::cell::RefCell;
use std::ffi::{CStr, CString};

use masking::scheme;
use pgrx::guc::{GucContext, GucFlags, GucRegistry, GucSetting};
use pgrx::{PostgresGucEnum, pg_sys};

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

/// The scheme of masks for which none is named.
pub(crate) fn default_scheme() -> scheme::Scheme {
    match SCHEME.get() {
        Scheme::Base64 => scheme::Scheme::Base64,
        Scheme::AesSiv => scheme::Scheme::AesSiv,
    }
}

const NAMES: [&CStr; 5] = [
    c"pg_mask.scheme",
    c"pg_mask.keyring_file",
    c"pg_mask.keyring_command",
    c"pg_mask.log_unmask",
    c"pg_mask.unmask_limit",
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
    #[expect(unsafe_code, reason = "calls Postgres")]
    // SAFETY: a C string.
    unsafe {
        pg_sys::MarkGUCPrefixReserved(c"pg_mask".as_ptr());
    }
}
