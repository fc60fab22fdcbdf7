//! Who acts, and who may.
//!
//! What an inbox does to its target is checked as Postgres checks what a view does to its underlying tables: with the
//! rights of the view's owner, whoever inserts, and never with those of the extension's owner.

use std::ffi::CStr;

use pgrx::{IntoDatum, direct_function_call, pg_sys};

use crate::error::Error;

/// What the session of whoever inserts must not decide: which functions a name means, which date a text, and whether the
/// values of a statement are told to the client and to the log, as parts of its plan.
const SETTINGS: [(&CStr, &CStr); 6] = [
    (c"search_path", c"pg_catalog, pg_temp"),
    (c"DateStyle", c"ISO, YMD"),
    (c"TimeZone", c"UTC"),
    (c"debug_print_parse", c"off"),
    (c"debug_print_rewritten", c"off"),
    (c"debug_print_plan", c"off"),
];

/// Runs `act` with the rights of `owner` and a search path that the caller cannot steer: triggers and constraints of
/// the target run under it too, so with the session's own path a loader's role could slip functions under the owner.
///
/// An error that leaves `act` takes the (sub)transaction with it, whose end puts user and settings back.
pub(crate) fn as_owner<R>(owner: pg_sys::Oid, act: impl FnOnce() -> R) -> R {
    let mut user = pg_sys::InvalidOid;
    let mut context = 0;
    #[expect(unsafe_code, reason = "calls Postgres")]
    // SAFETY: plain calls with pointers to locals.
    unsafe {
        pg_sys::GetUserIdAndSecContext(&raw mut user, &raw mut context);
        pg_sys::SetUserIdAndSecContext(owner, context | pg_sys::SECURITY_LOCAL_USERID_CHANGE.cast_signed());
    }
    let result = with_settings(&SETTINGS, act);
    #[expect(unsafe_code, reason = "calls Postgres")]
    // SAFETY: `user` and `context` are what stood before.
    unsafe {
        pg_sys::SetUserIdAndSecContext(user, context);
    }
    result
}

/// Runs `act` with these settings. After an error the end of the (sub)transaction puts back what was set before.
pub(crate) fn with_settings<R>(settings: &[(&CStr, &CStr)], act: impl FnOnce() -> R) -> R {
    #[expect(unsafe_code, reason = "calls Postgres")]
    // SAFETY: plain calls with C strings; the level is closed below.
    let level = unsafe {
        let level = pg_sys::NewGUCNestLevel();
        for (name, value) in settings {
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
    // SAFETY: `level` was opened above.
    unsafe {
        pg_sys::AtEOXact_GUC(false, level);
    }
    result
}

/// Whether the current user may mask under a key, which is to call `mask_pii(text, text)`: an error where not. `schema` is the
/// extension's.
///
/// Who masks guesses and sees their masks finds out what any mask is of. So this is for whoever calls a function, and for the
/// owner of an inbox, which one could make for oneself; inserting into somebody else's inbox shows nothing.
pub(crate) fn may_mask_under_a_key(schema: pg_sys::Oid) -> Result<(), Error> {
    if may_call(schema, c"mask_pii", &[pg_sys::TEXTOID; 2]) { Ok(()) } else { Err(Error::KeyedMaskDenied) }
}

/// Whether the current user has EXECUTE on a function of the extension's.
pub(crate) fn may_call(schema: pg_sys::Oid, name: &CStr, arguments: &[pg_sys::Oid]) -> bool {
    let function = function(schema, name, arguments);
    #[expect(unsafe_code, reason = "calls a function of Postgres's by what it is in C")]
    // SAFETY: it takes a function and a text. Of a function that is not there it says NULL.
    let may = unsafe {
        direct_function_call(
            pg_sys::has_function_privilege_id,
            &[function.into_datum(), "EXECUTE".into_datum()],
        )
    };
    may == Some(true)
}

/// The function in `schema` with this name and these types of arguments.
pub(crate) fn function(schema: pg_sys::Oid, name: &CStr, arguments: &[pg_sys::Oid]) -> pg_sys::Oid {
    let count = i32::try_from(arguments.len()).unwrap_or(i32::MAX);
    #[expect(unsafe_code, reason = "calls Postgres")]
    // SAFETY: pointers to what lives through the calls. No SQL, as workers of a parallel query come here too.
    unsafe {
        pg_sys::GetSysCacheOid(
            pg_sys::SysCacheIdentifier::PROCNAMEARGSNSP.cast_signed(),
            pg_sys::Anum_pg_proc_oid.try_into().unwrap_or_default(),
            name.as_ptr().into(),
            pg_sys::buildoidvector(arguments.as_ptr(), count).into(),
            schema.into(),
            pg_sys::Datum::null(),
        )
    }
}

/// Raises Postgres's own error where the current user may not insert into all columns of this inbox.
pub(crate) fn may_insert(view: pg_sys::Oid) {
    const COLUMNS: [i16; 3] = [1, 2, 3];
    // ACL_INSERT, which is narrower than what takes it from PostgreSQL 16 on.
    let insert: pg_sys::AclMode = 1;
    #[expect(unsafe_code, reason = "calls Postgres")]
    // SAFETY: plain calls; a relation that is not there is an error of the first.
    unsafe {
        let user = pg_sys::GetUserId();
        let denied = |result| result != pg_sys::AclResult::ACLCHECK_OK;
        if denied(pg_sys::pg_class_aclcheck(view, user, insert))
            && COLUMNS.iter().any(|&column| denied(pg_sys::pg_attribute_aclcheck(view, column, user, insert)))
        {
            let (no, kind) = (pg_sys::AclResult::ACLCHECK_NO_PRIV, pg_sys::ObjectType::OBJECT_VIEW);
            pg_sys::aclcheck_error(no, kind, pg_sys::get_rel_name(view));
        }
    }
}

/// The same for a function that was called by SQL: as Postgres does with EXECUTE, it is looked at once for each place in a
/// statement.
pub(crate) fn caller_may_mask_under_a_key(call: pg_sys::FunctionCallInfo) -> Result<(), Error> {
    #[expect(unsafe_code, reason = "calls Postgres")]
    // SAFETY: Postgres calls a function with its description, whose `fn_extra` is the function's own, for as long as
    // `fn_mcxt` is there.
    unsafe {
        let function = &mut *(*call).flinfo;
        let user = pg_sys::GetUserId();
        let allowed = function.fn_extra.cast::<pg_sys::Oid>();
        if allowed.is_null() || *allowed != user {
            may_mask_under_a_key(schema_of(function.fn_oid))?;
            let allowed = pg_sys::MemoryContextAlloc(function.fn_mcxt, size_of::<pg_sys::Oid>());
            *allowed.cast() = user;
            function.fn_extra = allowed;
        }
        Ok(())
    }
}

/// The schema of the function that was called by SQL.
pub(crate) fn schema_of_called(call: pg_sys::FunctionCallInfo) -> pg_sys::Oid {
    #[expect(unsafe_code, reason = "reads Postgres's structs")]
    // SAFETY: Postgres calls a function with its description.
    unsafe {
        schema_of((*(*call).flinfo).fn_oid)
    }
}

/// The schema of a function.
pub(crate) fn schema_of(function: pg_sys::Oid) -> pg_sys::Oid {
    #[expect(unsafe_code, reason = "calls Postgres")]
    // SAFETY: a plain call.
    unsafe {
        pg_sys::get_func_namespace(function)
    }
}
