//! Names of objects, and names in SQL.

use std::ffi::{CStr, c_char};

use pgrx::pg_sys;

use crate::error::Error;

/// Returns names separated by commas, each quoted where SQL needs it.
pub(crate) fn quoted<T: AsRef<str>>(names: &[T]) -> String {
    names.iter().map(|name| pgrx::spi::quote_identifier(name.as_ref())).collect::<Vec<_>>().join(", ")
}

/// Returns the name of a relation, for error messages.
pub(crate) fn name_of(relation: pg_sys::Oid) -> String {
    #[expect(unsafe_code, reason = "calls Postgres")]
    // SAFETY: the name is NULL or a C string of the current memory context.
    let name = unsafe { text_of(pg_sys::get_rel_name(relation)) };
    name.unwrap_or_else(|| relation.to_u32().to_string())
}

/// Returns the name of a schema.
pub(crate) fn name_of_schema(schema: pg_sys::Oid) -> Result<String, Error> {
    #[expect(unsafe_code, reason = "calls Postgres")]
    // SAFETY: the name is NULL or a C string of the current memory context.
    let name = unsafe { text_of(pg_sys::get_namespace_name(schema)) };
    name.ok_or(Error::Internal("the extension's schema is not in the catalogs"))
}

/// Returns the name of a role, or an empty text if there is no such role.
pub(crate) fn name_of_role(role: pg_sys::Oid) -> String {
    #[expect(unsafe_code, reason = "calls Postgres")]
    // SAFETY: the name is NULL or a C string of the current memory context.
    let name = unsafe { text_of(pg_sys::GetUserNameFromId(role, true)) };
    name.unwrap_or_default()
}

/// Returns the name of the session's database.
pub(crate) fn name_of_database() -> String {
    #[expect(unsafe_code, reason = "calls Postgres")]
    // SAFETY: the name is NULL or a C string of the current memory context.
    let name = unsafe { text_of(pg_sys::get_database_name(pg_sys::MyDatabaseId)) };
    name.unwrap_or_default()
}

/// Returns the name that the client gave itself.
pub(crate) fn name_of_application() -> String {
    #[expect(unsafe_code, reason = "reads a setting")]
    // SAFETY: a Postgres setting is NULL or a C string.
    let name = unsafe { text_of(pg_sys::application_name) };
    name.unwrap_or_default()
}

/// # Safety
/// `text` is NULL or a C string.
#[expect(unsafe_code, reason = "reads a C string")]
unsafe fn text_of(text: *const c_char) -> Option<String> {
    // SAFETY: the caller's promise.
    (!text.is_null()).then(|| unsafe { CStr::from_ptr(text).to_string_lossy().into_owned() })
}
