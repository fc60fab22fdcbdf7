//! Who acts, and who may.
//!
//! What an inbox does to its target is checked as Postgres checks what a view does to its underlying tables: with the
//! rights of the view's owner, whoever inserts, and never with those of the extension's owner.

use std::ffi::{CStr, c_char};

use pgrx::{IntoDatum, direct_function_call, pg_sys};

use crate::cursors;
use crate::error::{Error, Raise};
use crate::unguarded::InSecurityRestrictedOperation;

/// The search path under which every statement of this library is parsed: names of functions and operators are found
/// in `pg_catalog` alone, whatever the caller's path.
const CATALOG_PATH: (&CStr, &CStr) = (c"search_path", c"pg_catalog, pg_temp");

/// Names come from the catalogs in one form.
const PLAIN_NAMES: (&CStr, &CStr) = (c"quote_all_identifiers", c"off");

/// Settings that the inserting session must not decide. They change what is stored, what a text means, or what the client
/// and the server's log see. The test `session.sql` has a decision for each setting of `pg_settings`.
///
/// The values are fixed ones, not the server's defaults: one that a role or a connection sets looks like a default too.
const SETTINGS: [(&CStr, &CStr); 26] = [
    CATALOG_PATH,
    // How texts of an event are read.
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
    // What triggers and generated columns of the target make of values.
    (c"bytea_output", c"hex"),
    (c"xmlbinary", c"base64"),
    (c"extra_float_digits", c"1"),
    (c"standard_conforming_strings", c"on"),
    (c"backslash_quote", c"safe_encoding"),
    (c"transform_null_equals", c"off"),
    PLAIN_NAMES,
    (c"plpgsql.check_asserts", c"on"),
    (c"plpgsql.extra_errors", c"none"),
    // This quotes the values of a trigger's query.
    (c"plpgsql.print_strict_params", c"off"),
    // Whether a query of theirs by a GIN index finds all rows.
    (c"gin_fuzzy_search_limit", c"0"),
    // Whether policies apply or fail.
    (c"row_security", c"on"),
    // These print the values of a statement as parts of its plan.
    (c"debug_print_parse", c"off"),
    (c"debug_print_rewritten", c"off"),
    (c"debug_print_plan", c"off"),
];

/// Runs `act` with the rights of `owner` and with settings that the caller cannot steer: triggers and constraints of
/// the target run under them too, so with the session's own path a loader's role could slip functions under the owner.
///
/// It is a security-restricted operation, as Postgres runs the functions of an index with its owner's rights: nothing that
/// runs in it can leave anything to run later, as a trigger that waits for COMMIT would run with the session's rights.
///
/// A check of a foreign key suspends FORCE ROW LEVEL SECURITY for the role whose table it changes. A trigger there must not take
/// that along to the owner's tables.
///
/// Code in it finds neither the session's cursors nor the text of its statement, which has the events of an INSERT.
///
/// An error that leaves `act` takes the (sub)transaction with it, whose end puts user and settings back.
pub(crate) fn as_owner<R>(owner: pg_sys::Oid, act: impl FnOnce() -> R) -> R {
    let (user, context) = user_and_context();
    let restrictions =
        (pg_sys::SECURITY_LOCAL_USERID_CHANGE | pg_sys::SECURITY_RESTRICTED_OPERATION).cast_signed();
    let suspended = pg_sys::SECURITY_NOFORCE_RLS.cast_signed();
    let cursors = cursors::Shut::all().or_raise();
    let _statement = HiddenStatement::hide();
    #[expect(unsafe_code, reason = "calls Postgres")]
    // SAFETY: a plain call.
    unsafe {
        pg_sys::SetUserIdAndSecContext(owner, context & !suspended | restrictions);
    }
    let result = with_settings(&SETTINGS, || {
        let result = act();
        cursors.close_others().or_raise();
        result
    });
    #[expect(unsafe_code, reason = "calls Postgres")]
    // SAFETY: `user` and `context` are what stood before.
    unsafe {
        pg_sys::SetUserIdAndSecContext(user, context);
    }
    result
}

/// Hides the text of the session's statement from `current_query()` until it is dropped. The log has it: errors get there
/// later.
struct HiddenStatement(*const c_char);

impl HiddenStatement {
    fn hide() -> Self {
        #[expect(unsafe_code, reason = "sets a variable of the backend")]
        // SAFETY: Postgres reads NULL as no statement.
        unsafe {
            let text = pg_sys::debug_query_string;
            pg_sys::debug_query_string = std::ptr::null();
            Self(text)
        }
    }
}

impl Drop for HiddenStatement {
    fn drop(&mut self) {
        #[expect(unsafe_code, reason = "sets a variable of the backend")]
        // SAFETY: the text of the statement that runs, which lives as long.
        unsafe {
            pg_sys::debug_query_string = self.0;
        }
    }
}

/// Returns the role with whose rights code runs now, and the restrictions under which it does.
fn user_and_context() -> (pg_sys::Oid, i32) {
    let (mut user, mut context) = (pg_sys::InvalidOid, 0);
    #[expect(unsafe_code, reason = "calls Postgres")]
    // SAFETY: pointers to locals.
    unsafe {
        pg_sys::GetUserIdAndSecContext(&raw mut user, &raw mut context);
    }
    (user, context)
}

/// Runs `act` with names found in `pg_catalog` alone, and quoted only where SQL needs it.
pub(crate) fn with_catalog_path<R>(act: impl FnOnce() -> R) -> R {
    with_settings(&[CATALOG_PATH, PLAIN_NAMES], act)
}

/// Runs `act` with these settings, as far as there are such. After an error the end of the (sub)transaction puts back
/// what was set before.
pub(crate) fn with_settings<R>(settings: &[(&CStr, &CStr)], act: impl FnOnce() -> R) -> R {
    #[expect(unsafe_code, reason = "calls Postgres")]
    // SAFETY: plain calls with C strings; the level is closed below.
    let level = unsafe {
        let level = pg_sys::NewGUCNestLevel();
        for (name, value) in settings {
            // To set one takes several times as long as to look.
            let current = pg_sys::GetConfigOption(name.as_ptr(), true, false);
            if current.is_null() || CStr::from_ptr(current) == *value {
                continue;
            }
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

/// Makes all constraints of the transaction immediate, as `SET CONSTRAINTS ALL IMMEDIATE` does: what the flush then violates
/// shows in the flush, where a row that does so becomes a reject, and not at COMMIT.
///
/// Triggers that wait already fire here, with the session's own rights, as they would at COMMIT. Where a function lends its
/// owner's rights, or within a restricted operation, nothing is done: triggers of somebody else must not fire in the middle
/// of it. Then a deferred constraint of the target is an error of the flush, which can leave nothing for COMMIT.
pub(crate) fn make_constraints_immediate() {
    if user_and_context() != (Roles::of_session().outer, 0) {
        return;
    }
    let mut all_immediate = pg_sys::ConstraintsSetStmt {
        type_: pg_sys::NodeTag::T_ConstraintsSetStmt,
        constraints: std::ptr::null_mut(),
        deferred: false,
    };
    #[expect(unsafe_code, reason = "calls Postgres")]
    // SAFETY: the node is the one that the parser makes of the statement; the call only reads it.
    unsafe {
        pg_sys::AfterTriggerSetState(&raw mut all_immediate);
    }
}

/// Fails where `role` may not mask under a key, which is to call `mask_pii(text, text)`. `schema` is the extension's.
///
/// Masking guesses tells what any mask is of. So the right is for callers of a function, and for the owner of an inbox,
/// which one could make for oneself; inserting into somebody else's inbox shows nothing.
pub(crate) fn may_mask_under_a_key(role: pg_sys::Oid, schema: pg_sys::Oid) -> Result<(), Error> {
    if may_call(role, schema, c"mask_pii", &[pg_sys::TEXTOID; 2]) {
        Ok(())
    } else {
        Err(Error::KeyedMaskDenied)
    }
}

/// Whether a role has EXECUTE on a function of the extension's.
pub(crate) fn may_call(
    role: pg_sys::Oid,
    schema: pg_sys::Oid,
    name: &CStr,
    arguments: &[pg_sys::Oid],
) -> bool {
    let function = function(schema, name, arguments);
    #[expect(unsafe_code, reason = "calls a function of Postgres's by what it is in C")]
    // SAFETY: it takes a role, a function and a text. For a function that is not there it says NULL.
    let may = unsafe {
        direct_function_call(
            pg_sys::has_function_privilege_id_id,
            &[role.into_datum(), function.into_datum(), "EXECUTE".into_datum()],
        )
    };
    may == Some(true)
}

/// Raises Postgres's own error where the current user does not have the rights of a view's owner.
pub(crate) fn must_have_rights_of(owner: pg_sys::Oid, view: pg_sys::Oid) {
    #[expect(unsafe_code, reason = "calls Postgres")]
    // SAFETY: plain calls with oids; the name is NULL or a C string.
    unsafe {
        if !pg_sys::has_privs_of_role(pg_sys::GetUserId(), owner) {
            let (not_owner, kind) = (pg_sys::AclResult::ACLCHECK_NOT_OWNER, pg_sys::ObjectType::OBJECT_VIEW);
            pg_sys::aclcheck_error(not_owner, kind, pg_sys::get_rel_name(view));
        }
    }
}

/// The roles that a session has: by login or SET SESSION AUTHORIZATION, and by SET ROLE.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) struct Roles {
    session: pg_sys::Oid,
    outer: pg_sys::Oid,
}

impl Roles {
    pub(crate) fn of_session() -> Self {
        #[expect(unsafe_code, reason = "calls Postgres")]
        // SAFETY: reads variables of the backend.
        unsafe {
            Self { session: pg_sys::GetSessionUserId(), outer: pg_sys::GetOuterUserId() }
        }
    }
}

/// Whether code runs that somebody else may have written, with rights that they do not have: in an index that is built or
/// analyzed, a materialized view that is refreshed, the flush of an inbox. The session is another's, with its settings.
pub(crate) fn is_restricted_operation() -> bool {
    InSecurityRestrictedOperation()
}

/// Whether policies of a relation apply to the current user.
pub(crate) fn has_policies(relation: pg_sys::Oid) -> bool {
    #[expect(unsafe_code, reason = "calls Postgres")]
    // SAFETY: a plain call with oids; without an error where policies apply and the session wants none.
    let policies = unsafe { pg_sys::check_enable_rls(relation, pg_sys::InvalidOid, true) };
    policies == pg_sys::CheckEnableRlsResult::RLS_ENABLED.cast_signed()
}

/// Returns the role with whose rights code runs now.
pub(crate) fn current_role() -> pg_sys::Oid {
    #[expect(unsafe_code, reason = "calls Postgres")]
    // SAFETY: reads a variable of the backend.
    unsafe {
        pg_sys::GetUserId()
    }
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

/// Fails where the caller of a function may not mask under a key. As Postgres does with EXECUTE, this is looked at once for
/// each place in a statement.
pub(crate) fn caller_may_mask_under_a_key(call: pg_sys::FunctionCallInfo) -> Result<(), Error> {
    #[expect(unsafe_code, reason = "calls Postgres")]
    // SAFETY: Postgres calls a function with its description, whose `fn_extra` is the function's own, for as long as
    // `fn_mcxt` is there.
    unsafe {
        let function = &mut *(*call).flinfo;
        let user = pg_sys::GetUserId();
        let allowed = function.fn_extra.cast::<pg_sys::Oid>();
        if allowed.is_null() || *allowed != user {
            may_mask_under_a_key(user, schema_of(function.fn_oid))?;
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

/// Returns the name of a schema.
pub(crate) fn name_of_schema(schema: pg_sys::Oid) -> Result<String, Error> {
    #[expect(unsafe_code, reason = "calls Postgres")]
    // SAFETY: the name is NULL or a C string of the current memory context.
    unsafe {
        let name = pg_sys::get_namespace_name(schema);
        if name.is_null() {
            return Err(Error::Internal("the extension's schema is not in the catalogs"));
        }
        Ok(CStr::from_ptr(name).to_string_lossy().into_owned())
    }
}
