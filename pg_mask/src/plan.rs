//! A prepared statement that outlives the transaction which prepared it.

use std::ffi::CString;

use pgrx::pg_sys;

use crate::error::Error;

/// A statement prepared once a session. Postgres plans it again by itself when a table it uses changes.
pub(crate) struct Plan {
    raw: pg_sys::SPIPlanPtr,
}

#[expect(unsafe_code, reason = "calls Postgres")]
impl Plan {
    /// Prepares `sql`, whose parameters are of types `parameters`.
    pub(crate) fn prepare(sql: &str, parameters: &[pg_sys::Oid]) -> Result<Self, Error> {
        // A NUL cannot come in: names are read from the catalogs.
        let sql = CString::new(sql).map_err(|_| Error::Internal("a statement has a NUL"))?;
        let count = i32::try_from(parameters.len()).unwrap_or(i32::MAX);
        // SAFETY: the pointers live through the calls; SPI_prepare only reads the types.
        unsafe {
            pg_sys::SPI_connect();
            let raw = pg_sys::SPI_prepare(sql.as_ptr(), count, parameters.as_ptr().cast_mut());
            if raw.is_null() {
                pg_sys::SPI_finish();
                return Err(Error::Internal("a statement could not be prepared"));
            }
            pg_sys::SPI_keepplan(raw);
            pg_sys::SPI_finish();
            Ok(Self { raw })
        }
    }

    /// Runs it with these arguments, none NULL. The rows that it inserted or returned, and the first returned value.
    pub(crate) fn execute(&self, arguments: &[pg_sys::Datum]) -> Result<Executed, Error> {
        // SAFETY: the plan lives as long as `self`; a result is read before SPI_finish frees it.
        unsafe {
            pg_sys::SPI_connect();
            let status =
                pg_sys::SPI_execute_plan(self.raw, arguments.as_ptr().cast_mut(), std::ptr::null(), false, 0);
            let rows = pg_sys::SPI_processed;
            let mut first = 0;
            if status == pg_sys::SPI_OK_SELECT.cast_signed() && rows > 0 {
                let table = &*pg_sys::SPI_tuptable;
                let mut null = false;
                first = pg_sys::SPI_getbinval(*table.vals, table.tupdesc, 1, &raw mut null).value() as u64;
            }
            pg_sys::SPI_finish();
            pgrx::Spi::check_status(status)?;
            Ok(Executed { rows, first })
        }
    }
}

/// What a statement did.
pub(crate) struct Executed {
    /// Rows inserted, or returned.
    pub(crate) rows: u64,
    /// The first column of the first row returned, a bigint.
    pub(crate) first: u64,
}

#[expect(unsafe_code, reason = "calls Postgres")]
impl Drop for Plan {
    fn drop(&mut self) {
        // SAFETY: the plan is kept (it belongs to no transaction) and nobody else has the pointer.
        unsafe {
            pg_sys::SPI_freeplan(self.raw);
        }
    }
}
