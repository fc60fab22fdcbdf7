//! Everything that differs between major versions of Postgres, or between machines. No other file knows what it is built for.

use std::ffi::{CStr, c_char};

use pgrx::pg_sys;

/// Returns a letter from the catalogs. C's `char` is signed on x86-64 and unsigned on aarch64.
pub(crate) const fn letter(char: c_char) -> u8 {
    u8::from_ne_bytes(char.to_ne_bytes())
}

/// Returns a letter as C's `char`.
pub(crate) const fn c_letter(letter: u8) -> c_char {
    c_char::from_ne_bytes(letter.to_ne_bytes())
}

/// The bit for INSERT in a set of privileges. Postgres's constant has a narrower type than the set since Postgres 16.
pub(crate) const ACL_INSERT: pg_sys::AclMode = 1;

/// The number of the lock under which libraries set up their shared memory. `AddinShmemInitLock` is a macro in
/// lwlocknames.h. Since Postgres 17 it is in lwlocklist.h.
pub(crate) const ADDIN_SHMEM_INIT_LOCK: usize = 21;

/// Returns where the value of a setting comes from (a file, a role, a connection's options, the session), if Postgres knows
/// the setting.
#[cfg(feature = "pg15")]
pub(crate) fn source_of_setting(name: &CStr) -> Option<pg_sys::GucSource::Type> {
    #[expect(unsafe_code, reason = "calls Postgres")]
    // SAFETY: Postgres has exactly this many pointers to settings, and each setting has a name.
    unsafe {
        let count = usize::try_from(pg_sys::GetNumConfigOptions()).unwrap_or_default();
        let settings = std::slice::from_raw_parts(pg_sys::get_guc_variables(), count);
        let is_it = |setting: &&*mut pg_sys::config_generic| {
            CStr::from_ptr((***setting).name).to_bytes().eq_ignore_ascii_case(name.to_bytes())
        };
        settings.iter().find(is_it).map(|setting| (**setting).source)
    }
}

/// Returns where the value of a setting comes from (a file, a role, a connection's options, the session), if Postgres knows
/// the setting.
#[cfg(not(feature = "pg15"))]
pub(crate) fn source_of_setting(name: &CStr) -> Option<pg_sys::GucSource::Type> {
    #[expect(unsafe_code, reason = "calls Postgres")]
    // SAFETY: a C string; an unknown setting is neither created nor an error.
    unsafe {
        let setting = pg_sys::find_option(name.as_ptr(), false, true, 0);
        (!setting.is_null()).then(|| (*setting).source)
    }
}

/// Raises Postgres's own error if the current user may not insert into these columns of a statement's only table. Extensions
/// that check privileges are asked too.
///
/// # Safety
/// `item` is the table's entry in `state`. `columns` holds column numbers as Postgres offsets them in such sets.
#[expect(unsafe_code, reason = "calls Postgres")]
pub(crate) unsafe fn check_insert(
    state: &pg_sys::ParseState,
    item: &pg_sys::ParseNamespaceItem,
    columns: *mut pg_sys::Bitmapset,
) {
    // SAFETY: the caller's promise. Since PostgreSQL 16, an entry's privileges are in a node of their own.
    unsafe {
        #[cfg(feature = "pg15")]
        {
            let entry = &mut *item.p_rte;
            entry.requiredPerms = ACL_INSERT;
            entry.insertedCols = columns;
            pg_sys::ExecCheckRTPerms(state.p_rtable, true);
        }
        #[cfg(not(feature = "pg15"))]
        {
            let rights = &mut *item.p_perminfo;
            rights.requiredPerms = ACL_INSERT;
            rights.insertedCols = columns;
            pg_sys::ExecCheckPermissions(state.p_rtable, state.p_rteperminfos, true);
        }
    }
}

/// Returns the columns that a relation ever had, by number.
///
/// # Safety
/// The descriptor is that of an open relation.
#[expect(unsafe_code, reason = "reads Postgres's structs")]
pub(crate) unsafe fn columns_of(description: &pg_sys::TupleDescData) -> &[pg_sys::FormData_pg_attribute] {
    let columns = usize::try_from(description.natts).unwrap_or_default();
    // SAFETY: such a descriptor has `natts` columns. Since Postgres 18 they stand behind as many compact ones, as in
    // its macro `TupleDescAttr`.
    unsafe {
        #[cfg(not(feature = "pg18"))]
        return description.attrs.as_slice(columns);
        #[cfg(feature = "pg18")]
        std::slice::from_raw_parts(description.compact_attrs.as_ptr().add(columns).cast(), columns)
    }
}
