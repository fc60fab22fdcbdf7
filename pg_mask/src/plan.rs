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
        Self::prepare_with(sql, parameters, 0)
    }

    /// The same, planned once whatever the arguments: to look at thousands of them takes longer than it saves.
    pub(crate) fn prepare_generic(sql: &str, parameters: &[pg_sys::Oid]) -> Result<Self, Error> {
        Self::prepare_with(sql, parameters, pg_sys::CURSOR_OPT_GENERIC_PLAN)
    }

    fn prepare_with(sql: &str, parameters: &[pg_sys::Oid], options: u32) -> Result<Self, Error> {
        // A NUL cannot come in: names are read from the catalogs.
        let sql = CString::new(sql).map_err(|_| Error::Internal("a statement has a NUL"))?;
        let count = i32::try_from(parameters.len()).unwrap_or(i32::MAX);
        // SAFETY: the pointers live through the calls; SPI_prepare_cursor only reads the types.
        unsafe {
            pg_sys::SPI_connect();
            let types = parameters.as_ptr().cast_mut();
            let raw = pg_sys::SPI_prepare_cursor(sql.as_ptr(), count, types, options.cast_signed());
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
        let mut first = None;
        let rows = self.run(arguments, |datum| {
            first.get_or_insert(datum.value() as u64);
        })?;
        Ok(Executed { rows, first: first.unwrap_or_default() })
    }

    /// Runs it with these arguments, none NULL, and gives the numbers that it returns.
    pub(crate) fn numbers(&self, arguments: &[pg_sys::Datum]) -> Result<Vec<u64>, Error> {
        let mut numbers = Vec::new();
        self.run(arguments, |datum| numbers.push(datum.value() as u64))?;
        Ok(numbers)
    }

    /// Runs it and hands over the first column of each row that it returns. The rows that it inserted or returned.
    fn run(&self, arguments: &[pg_sys::Datum], mut value: impl FnMut(pg_sys::Datum)) -> Result<u64, Error> {
        // SAFETY: the plan lives as long as `self`; a result is read before SPI_finish frees it.
        unsafe {
            pg_sys::SPI_connect();
            let status =
                pg_sys::SPI_execute_plan(self.raw, arguments.as_ptr().cast_mut(), std::ptr::null(), false, 0);
            let rows = pg_sys::SPI_processed;
            if status == pg_sys::SPI_OK_SELECT.cast_signed() && rows > 0 {
                let table = &*pg_sys::SPI_tuptable;
                let returned = usize::try_from(rows).unwrap_or_default();
                for &row in std::slice::from_raw_parts(table.vals, returned) {
                    let mut null = false;
                    value(pg_sys::SPI_getbinval(row, table.tupdesc, 1, &raw mut null));
                }
            }
            pg_sys::SPI_finish();
            pgrx::Spi::check_status(status)?;
            Ok(rows)
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
