//! Functions of Postgres that only read a variable and raise no error. They are called for each row or value. pgrx's own
//! bindings prepare to catch an error, which takes longer than the functions do.

use pgrx::pg_sys;

#[expect(unsafe_code, reason = "declares functions of Postgres")]
// SAFETY: the declarations are those of miscadmin.h and xact.h. The functions return a variable of the backend
// (miscinit.c, xact.c).
unsafe extern "C" {
    /// Whether code of a role runs with another's rights, so that it must leave nothing behind.
    pub(crate) safe fn InSecurityRestrictedOperation() -> bool;

    /// Returns the id of the innermost subtransaction.
    pub(crate) safe fn GetCurrentSubTransactionId() -> pg_sys::SubTransactionId;
}
