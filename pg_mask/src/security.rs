//! Acting as the inbox's owner.
//!
//! What an inbox does to its target is checked as Postgres checks what a view does to its underlying tables: with the
//! rights of the view's owner, whoever inserts, and never with those of the extension's owner.

use std::ffi::CStr;

use pgrx::pg_sys;

/// What the session of whoever inserts must not decide: which functions a name means, and which date a text.
const SETTINGS: [(&CStr, &CStr); 3] =
    [(c"search_path", c"pg_catalog, pg_temp"), (c"DateStyle", c"ISO, YMD"), (c"TimeZone", c"UTC")];

/// Runs `act` with the rights of `owner` and a search path that the caller cannot steer: triggers and constraints of
/// the target run under it too, so with the session's own path a loader's role could slip functions under the owner.
///
/// An error that leaves `act` takes the (sub)transaction with it, whose end puts user and settings back.
pub(crate) fn as_owner<R>(owner: pg_sys::Oid, act: impl FnOnce() -> R) -> R {
    let mut user = pg_sys::InvalidOid;
    let mut context = 0;
    #[expect(unsafe_code, reason = "calls Postgres")]
    // SAFETY: plain calls with pointers to locals and static strings; the level is closed below.
    let level = unsafe {
        pg_sys::GetUserIdAndSecContext(&raw mut user, &raw mut context);
        pg_sys::SetUserIdAndSecContext(owner, context | pg_sys::SECURITY_LOCAL_USERID_CHANGE.cast_signed());
        let level = pg_sys::NewGUCNestLevel();
        for (name, value) in SETTINGS {
            pg_sys::set_config_option(
                name.as_ptr(),
                value.as_ptr(),
                pg_sys::GucContext::PGC_USERSET,
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
    // SAFETY: `level` was opened above, `user` and `context` are what stood before.
    unsafe {
        pg_sys::AtEOXact_GUC(false, level);
        pg_sys::SetUserIdAndSecContext(user, context);
    }
    result
}
