//! Privileges and the roles that code runs as.
//!
//! An inbox's access to its target is checked as Postgres checks a view's access to its underlying tables. It uses the
//! privileges of the view's owner, no matter who inserts, and never the privileges of the extension's owner.

use std::ffi::{CStr, c_char};

use pgrx::{IntoDatum, direct_function_call, pg_sys};

use crate::error::{Error, Raise};
use crate::pg::compat::ACL_INSERT;
use crate::pg::reserve::watcher;
use crate::pg::settings::with_fixed_settings;
use crate::pg::unguarded::InSecurityRestrictedOperation;
use crate::pg::{cursors, utility};

/// Runs `act` with the privileges of `owner`, under settings that the caller cannot choose. The target's triggers and
/// constraints run under them too. Under the session's own path, a loader's role could slip functions of its own under the
/// owner's privileges.
///
/// It is a security-restricted operation, which is also how Postgres runs an index's functions as its owner. Nothing that
/// runs in it can leave anything to run later. For example, a trigger deferred to COMMIT would run with the session's
/// privileges.
///
/// A foreign key check suspends FORCE ROW LEVEL SECURITY for the role whose table it changes. A trigger on that table must
/// not carry the suspension over to the owner's tables.
///
/// Code in it finds neither the session's cursors nor the text of its statement, which has the events of an INSERT, nor that
/// text as an error's context. It can't create functions, which could stay in the session's `pg_temp`.
///
/// An error that leaves `act` aborts the (sub)transaction, whose end restores user and settings.
pub(crate) fn as_owner<R>(owner: pg_sys::Oid, act: impl FnOnce() -> R) -> R {
    let (user, context) = user_and_context();
    let restrictions =
        (pg_sys::SECURITY_LOCAL_USERID_CHANGE | pg_sys::SECURITY_RESTRICTED_OPERATION).cast_signed();
    let suspended = pg_sys::SECURITY_NOFORCE_RLS.cast_signed();
    let cursors = cursors::Shut::all().or_raise();
    let _statement = HiddenStatement::hide();
    let _commands = utility::Refusing::begin();
    #[expect(unsafe_code, reason = "calls Postgres")]
    // SAFETY: a plain call, and a variable of the backend. After an error, the code that catches it restores the variable.
    let callbacks = unsafe {
        let callbacks = pg_sys::error_context_stack;
        pg_sys::error_context_stack = watcher();
        pg_sys::SetUserIdAndSecContext(owner, context & !suspended | restrictions);
        callbacks
    };
    let result = with_fixed_settings(|| {
        let result = act();
        cursors.close_others().or_raise();
        result
    });
    #[expect(unsafe_code, reason = "calls Postgres")]
    // SAFETY: `user`, `context` and `callbacks` are the values from before.
    unsafe {
        pg_sys::error_context_stack = callbacks;
        pg_sys::SetUserIdAndSecContext(user, context);
    }
    result
}

/// Hides the text of the session's statement from `current_query()` until it is dropped. The log still shows it, because
/// errors are logged after that.
struct HiddenStatement(*const c_char);

impl HiddenStatement {
    fn hide() -> Self {
        #[expect(unsafe_code, reason = "sets a variable of the backend")]
        // SAFETY: Postgres takes NULL for no statement.
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
        // SAFETY: this is the text of the running statement, which lives as long as the statement.
        unsafe {
            pg_sys::debug_query_string = self.0;
        }
    }
}

/// Returns the role that code now runs as, and the restrictions under which it runs.
fn user_and_context() -> (pg_sys::Oid, i32) {
    let (mut user, mut context) = (pg_sys::InvalidOid, 0);
    #[expect(unsafe_code, reason = "calls Postgres")]
    // SAFETY: pointers to locals.
    unsafe {
        pg_sys::GetUserIdAndSecContext(&raw mut user, &raw mut context);
    }
    (user, context)
}

/// Makes all constraints of the transaction immediate, as `SET CONSTRAINTS ALL IMMEDIATE` does. So a row that violates one
/// fails in the flush, where it becomes a reject, and not at COMMIT.
///
/// Deferred triggers that are already waiting fire here, with the session's own privileges, as they would at COMMIT. Nothing
/// is done in a function that lends its owner's privileges, or in a restricted operation: somebody else's triggers must not
/// fire there. Then a deferred constraint of the target is an error of the flush, which can leave nothing for COMMIT.
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
    // SAFETY: the node is what the parser makes of the statement. The call only reads it.
    unsafe {
        pg_sys::AfterTriggerSetState(&raw mut all_immediate);
    }
}

/// Fails if `role` may not mask under a key, which requires EXECUTE on `mask_pii(text, text)`. `schema` is the extension's.
///
/// A role that can mask guesses can find out the value of any mask. So callers of a function need this privilege. The owner
/// of an inbox needs it too, because anyone could create an inbox for this purpose. Inserting into somebody else's inbox
/// reveals nothing.
pub(crate) fn may_mask_under_a_key(role: pg_sys::Oid, schema: pg_sys::Oid) -> Result<(), Error> {
    if may_call(role, schema, c"mask_pii", &[pg_sys::TEXTOID; 2]) {
        Ok(())
    } else {
        Err(Error::KeyedMaskDenied)
    }
}

/// Whether a role has EXECUTE on a function of the extension.
pub(crate) fn may_call(
    role: pg_sys::Oid,
    schema: pg_sys::Oid,
    name: &CStr,
    arguments: &[pg_sys::Oid],
) -> bool {
    may_execute(role, function(schema, name, arguments))
}

/// Whether a role has EXECUTE on a function.
fn may_execute(role: pg_sys::Oid, function: pg_sys::Oid) -> bool {
    #[expect(unsafe_code, reason = "calls a function of Postgres's by what it is in C")]
    // SAFETY: it takes a role, a function and a text. It returns NULL for a function that does not exist.
    let may = unsafe {
        direct_function_call(
            pg_sys::has_function_privilege_id_id,
            &[role.into_datum(), function.into_datum(), "EXECUTE".into_datum()],
        )
    };
    may == Some(true)
}

/// Raises Postgres's own error if the current user does not have the privileges of a view's owner.
pub(crate) fn must_have_rights_of(owner: pg_sys::Oid, view: pg_sys::Oid) {
    #[expect(unsafe_code, reason = "calls Postgres")]
    // SAFETY: plain calls with OIDs. The name is NULL or a C string.
    unsafe {
        if !pg_sys::has_privs_of_role(pg_sys::GetUserId(), owner) {
            let (not_owner, kind) = (pg_sys::AclResult::ACLCHECK_NOT_OWNER, pg_sys::ObjectType::OBJECT_VIEW);
            pg_sys::aclcheck_error(not_owner, kind, pg_sys::get_rel_name(view));
        }
    }
}

/// The roles of a session: from login or SET SESSION AUTHORIZATION, and from SET ROLE.
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

/// Whether code may be running that somebody else wrote, with privileges that its author lacks. This happens while an index
/// is built or analyzed, a materialized view is refreshed, or an inbox is flushed. The session and its settings are somebody
/// else's.
pub(crate) fn is_restricted_operation() -> bool {
    InSecurityRestrictedOperation()
}

/// Whether row-level security policies of a relation apply to the current user.
pub(crate) fn has_policies(relation: pg_sys::Oid) -> bool {
    #[expect(unsafe_code, reason = "calls Postgres")]
    // SAFETY: a plain call with OIDs. It raises no error if policies apply and the session has `row_security` off.
    let policies = unsafe { pg_sys::check_enable_rls(relation, pg_sys::InvalidOid, true) };
    policies == pg_sys::CheckEnableRlsResult::RLS_ENABLED.cast_signed()
}

/// Returns the role that code now runs as.
pub(crate) fn current_role() -> pg_sys::Oid {
    #[expect(unsafe_code, reason = "calls Postgres")]
    // SAFETY: reads a variable of the backend.
    unsafe {
        pg_sys::GetUserId()
    }
}

/// Whether code now runs as a superuser.
pub(crate) fn is_superuser() -> bool {
    #[expect(unsafe_code, reason = "calls Postgres")]
    // SAFETY: a plain call.
    unsafe {
        pg_sys::superuser()
    }
}

/// Returns the role that logged in, or that the session took on by `SET SESSION AUTHORIZATION`.
pub(crate) fn session_role() -> pg_sys::Oid {
    Roles::of_session().session
}

/// Returns the function in `schema` with this name and these argument types.
pub(crate) fn function(schema: pg_sys::Oid, name: &CStr, arguments: &[pg_sys::Oid]) -> pg_sys::Oid {
    let count = i32::try_from(arguments.len()).unwrap_or(i32::MAX);
    #[expect(unsafe_code, reason = "calls Postgres")]
    // SAFETY: the pointees live through the calls. It runs no SQL, because parallel workers come here too.
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

/// Raises Postgres's own error if the current user may not insert into all columns of this inbox.
pub(crate) fn may_insert(view: pg_sys::Oid) {
    const COLUMNS: [i16; 3] = [1, 2, 3];
    #[expect(unsafe_code, reason = "calls Postgres")]
    // SAFETY: plain calls. The first raises an error for a relation that does not exist.
    unsafe {
        let user = pg_sys::GetUserId();
        let denied = |result| result != pg_sys::AclResult::ACLCHECK_OK;
        if denied(pg_sys::pg_class_aclcheck(view, user, ACL_INSERT))
            && COLUMNS
                .iter()
                .any(|&column| denied(pg_sys::pg_attribute_aclcheck(view, column, user, ACL_INSERT)))
        {
            let (no, kind) = (pg_sys::AclResult::ACLCHECK_NO_PRIV, pg_sys::ObjectType::OBJECT_VIEW);
            pg_sys::aclcheck_error(no, kind, pg_sys::get_rel_name(view));
        }
    }
}

/// Fails if the caller of a function may not mask under a key.
pub(crate) fn caller_may_mask_under_a_key(call: pg_sys::FunctionCallInfo) -> Result<(), Error> {
    once_for_each_caller(call, |user, function| may_mask_under_a_key(user, schema_of(function)))
}

/// Raises Postgres's own error if the caller of a function does not have EXECUTE on it. Postgres checks that itself, but not always for the role
/// that then runs it: for the functions of an aggregate it asks whether the aggregate's owner has it.
pub(crate) fn caller_may_call(call: pg_sys::FunctionCallInfo) -> Result<(), Error> {
    once_for_each_caller(call, |user, function| {
        if !may_execute(user, function) {
            let (denied, kind) = (pg_sys::AclResult::ACLCHECK_NO_PRIV, pg_sys::ObjectType::OBJECT_FUNCTION);
            #[expect(unsafe_code, reason = "calls Postgres")]
            // SAFETY: plain calls with an OID. The name is NULL or a C string.
            unsafe {
                pg_sys::aclcheck_error(denied, kind, pg_sys::get_func_name(function));
            }
        }
        Ok(())
    })
}

/// Checks the caller of a function. Like Postgres's check of EXECUTE, this is done once for each place in a statement.
fn once_for_each_caller(
    call: pg_sys::FunctionCallInfo,
    check: impl FnOnce(pg_sys::Oid, pg_sys::Oid) -> Result<(), Error>,
) -> Result<(), Error> {
    #[expect(unsafe_code, reason = "calls Postgres")]
    // SAFETY: Postgres passes the function's description. Its `fn_extra` belongs to the function, for as long as `fn_mcxt`
    // exists.
    unsafe {
        let function = &mut *(*call).flinfo;
        let user = pg_sys::GetUserId();
        let allowed = function.fn_extra.cast::<pg_sys::Oid>();
        if allowed.is_null() || *allowed != user {
            check(user, function.fn_oid)?;
            let allowed = pg_sys::MemoryContextAlloc(function.fn_mcxt, size_of::<pg_sys::Oid>());
            *allowed.cast() = user;
            function.fn_extra = allowed;
        }
        Ok(())
    }
}

/// Returns the schema of the function that SQL called.
pub(crate) fn schema_of_called(call: pg_sys::FunctionCallInfo) -> pg_sys::Oid {
    #[expect(unsafe_code, reason = "reads Postgres's structs")]
    // SAFETY: Postgres passes the function's description.
    unsafe {
        schema_of((*(*call).flinfo).fn_oid)
    }
}

/// Returns the schema of a function.
pub(crate) fn schema_of(function: pg_sys::Oid) -> pg_sys::Oid {
    #[expect(unsafe_code, reason = "calls Postgres")]
    // SAFETY: a plain call.
    unsafe {
        pg_sys::get_func_namespace(function)
    }
}
