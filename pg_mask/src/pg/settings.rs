//! Values of Postgres's settings that hold while some code runs.

use std::ffi::CStr;

use pgrx::pg_sys;

/// The search path under which every statement of this library is parsed. It finds functions and operators only in
/// `pg_catalog`, whatever the caller's path.
const CATALOG_PATH: (&CStr, &CStr) = (c"search_path", c"pg_catalog, pg_temp");

/// Makes Postgres return names from the catalogs in one form.
const PLAIN_NAMES: (&CStr, &CStr) = (c"quote_all_identifiers", c"off");

/// Makes a backslash in a literal of this library's queries what it looks like.
const PLAIN_BACKSLASHES: (&CStr, &CStr) = (c"standard_conforming_strings", c"on");

/// Settings that the inserting session must not decide. They change what is stored, what a text means, or what the client
/// and the server's log see. The test `session.sql` has a decision for each setting in `pg_settings`.
///
/// The values are fixed instead of the server's defaults, because a value set for a role or connection looks like a default
/// too.
const SETTINGS: [(&CStr, &CStr); 34] = [
    CATALOG_PATH,
    // The interpretation of an event's texts.
    (c"DateStyle", c"ISO, YMD"),
    (c"IntervalStyle", c"postgres"),
    (c"TimeZone", c"UTC"),
    (c"timezone_abbreviations", c"Default"),
    (c"array_nulls", c"on"),
    (c"xmloption", c"content"),
    (c"lc_monetary", c"C"),
    (c"lc_numeric", c"C"),
    (c"lc_time", c"C"),
    (c"default_text_search_config", c"pg_catalog.simple"),
    // The use of values by the target's triggers and generated columns.
    (c"bytea_output", c"hex"),
    (c"xmlbinary", c"base64"),
    (c"extra_float_digits", c"1"),
    PLAIN_BACKSLASHES,
    (c"backslash_quote", c"safe_encoding"),
    (c"transform_null_equals", c"off"),
    PLAIN_NAMES,
    (c"plpgsql.check_asserts", c"on"),
    (c"plpgsql.extra_errors", c"none"),
    // These settings quote the values of a trigger's query. The second does so for a function that was compiled before.
    (c"plpgsql.print_strict_params", c"off"),
    (c"plpgsql.extra_warnings", c"none"),
    // Logs each sort, with the trigger's query as its context.
    (c"trace_sort", c"off"),
    // Makes the values of a statement parts of its plan, which auto_explain prints.
    (c"plan_cache_mode", c"auto"),
    // Whether the triggers' queries via a GIN index find all rows.
    (c"gin_fuzzy_search_limit", c"0"),
    // What a CHECK or trigger that uses these extensions takes for similar, or for a valid number.
    (c"pg_trgm.similarity_threshold", c"0.3"),
    (c"pg_trgm.word_similarity_threshold", c"0.6"),
    (c"pg_trgm.strict_word_similarity_threshold", c"0.5"),
    (c"isn.weak", c"off"),
    // Whether policies apply or fail.
    (c"row_security", c"on"),
    // Whether an error that a flush catches ends the session instead, and shows its text, which can quote a value.
    (c"exit_on_error", c"off"),
    // These settings print a statement's values as parts of its plan.
    (c"debug_print_parse", c"off"),
    (c"debug_print_rewritten", c"off"),
    (c"debug_print_plan", c"off"),
];

/// Runs `act` under settings that the session cannot choose.
pub(crate) fn with_fixed_settings<R>(act: impl FnOnce() -> R) -> R {
    with_settings(&SETTINGS, || with_settings(client_messages(), act))
}

/// Returns the setting that keeps Postgres's own debug and log messages from the client. Their context has the queries of the
/// target's triggers, with values in them.
fn client_messages() -> &'static [(&'static CStr, &'static CStr)] {
    const MESSAGES: &CStr = c"client_min_messages";
    #[expect(unsafe_code, reason = "calls Postgres")]
    // SAFETY: a plain call with a C string. Postgres has the setting, so it returns a C string.
    let least = unsafe { CStr::from_ptr(pg_sys::GetConfigOption(MESSAGES.as_ptr(), false, false)) };
    if [c"notice", c"warning", c"error"].contains(&least) { &[] } else { &[(MESSAGES, c"notice")] }
}

/// Runs `act` with names resolved only in `pg_catalog`, and quoted only where SQL needs it. A backslash in a literal is one.
pub(crate) fn with_catalog_path<R>(act: impl FnOnce() -> R) -> R {
    with_settings(&[CATALOG_PATH, PLAIN_NAMES, PLAIN_BACKSLASHES], act)
}

/// Runs `act` with these settings; settings that do not exist are skipped. After an error, the end of the (sub)transaction
/// restores the earlier values.
pub(crate) fn with_settings<R>(settings: &[(&CStr, &CStr)], act: impl FnOnce() -> R) -> R {
    #[expect(unsafe_code, reason = "calls Postgres")]
    // SAFETY: plain calls with C strings; the level is closed below.
    let level = unsafe {
        let level = pg_sys::NewGUCNestLevel();
        for (name, value) in settings {
            // Setting a value takes several times as long as reading it.
            let current = pg_sys::GetConfigOption(name.as_ptr(), true, false);
            if current.is_null() || CStr::from_ptr(current) == *value {
                continue;
            }
            pg_sys::set_config_option(
                name.as_ptr(),
                value.as_ptr(),
                // The values are this library's, whatever the session may set.
                pg_sys::GucContext::PGC_SUSET,
                pg_sys::GucSource::PGC_S_SESSION,
                pg_sys::GucAction::GUC_ACTION_SAVE,
                true,
                0,
                false,
            );
        }
        level
    };
    let result = act();
    #[expect(unsafe_code, reason = "calls Postgres")]
    // SAFETY: `level` was opened above.
    unsafe {
        pg_sys::AtEOXact_GUC(false, level);
    }
    result
}
