//! A prepared statement that outlives the transaction which prepared it.

use std::ffi::{CStr, CString, c_char};

use pgrx::datum::{Datum, DatumWithOid};
use pgrx::{PgList, pg_sys};

use crate::error::Error;

/// A statement prepared once a session. Postgres plans it again by itself when a table it uses changes.
pub(crate) struct Plan {
    raw: pg_sys::SPIPlanPtr,
    /// The relation that it is for.
    of: Option<pg_sys::Oid>,
}

#[expect(unsafe_code, reason = "calls Postgres")]
impl Plan {
    /// Prepares `sql`, whose parameters are of types `parameters`.
    pub(crate) fn prepare(sql: &str, parameters: &[pg_sys::Oid]) -> Result<Self, Error> {
        Self::prepare_with(sql, parameters, None, 0)
    }

    /// The same of a statement that names one relation, which must be this one whenever it runs.
    ///
    /// Postgres looks names up again when it plans anew. Whoever owns a schema can rename it at any time and put another
    /// relation in the place of ours, whose triggers would run with the inbox's owner's rights.
    pub(crate) fn prepare_on(
        relation: pg_sys::Oid,
        sql: &str,
        parameters: &[pg_sys::Oid],
    ) -> Result<Self, Error> {
        Self::prepare_with(sql, parameters, Some(relation), 0)
    }

    /// The same, planned once whatever the arguments: to look at thousands of them takes longer than it saves.
    pub(crate) fn prepare_generic_on(
        relation: pg_sys::Oid,
        sql: &str,
        parameters: &[pg_sys::Oid],
    ) -> Result<Self, Error> {
        Self::prepare_with(sql, parameters, Some(relation), pg_sys::CURSOR_OPT_GENERIC_PLAN)
    }

    fn prepare_with(
        sql: &str,
        parameters: &[pg_sys::Oid],
        of: Option<pg_sys::Oid>,
        options: u32,
    ) -> Result<Self, Error> {
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
            Ok(Self { raw, of })
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
            self.connect()?;
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

#[expect(unsafe_code, reason = "calls Postgres")]
impl Plan {
    /// Opens a cursor over what it returns, and gives its name.
    pub(crate) fn open_cursor(&self, arguments: &[DatumWithOid<'_>]) -> Result<String, Error> {
        let mut values: Vec<pg_sys::Datum> = Vec::new();
        let mut nulls: Vec<c_char> = Vec::new();
        for argument in arguments {
            let datum = argument.datum();
            nulls.push(if datum.is_some() { b' ' } else { b'n' }.cast_signed());
            values.push(datum.map_or(pg_sys::Datum::null(), Datum::sans_lifetime));
        }
        // SAFETY: as for `run`. The portal has the plan for itself, and lives until it is closed or the transaction ends.
        unsafe {
            self.connect()?;
            let (values, nulls) = (values.as_mut_ptr(), nulls.as_ptr());
            let portal = pg_sys::SPI_cursor_open(std::ptr::null(), self.raw, values, nulls, false);
            let name = CStr::from_ptr((*portal).name).to_string_lossy().into_owned();
            pg_sys::SPI_finish();
            Ok(name)
        }
    }

    /// Connects to SPI, if the names in the statement mean what they did.
    fn connect(&self) -> Result<(), Error> {
        // SAFETY: plain calls.
        unsafe {
            pg_sys::SPI_connect();
            self.look_at_names().inspect_err(|_| {
                pg_sys::SPI_finish();
            })
        }
    }

    /// Has Postgres look the names up, lock what they mean, and fails where that is another relation. Until the statement has
    /// run they mean the same: Postgres hears of renamings when it locks something, and all is locked.
    ///
    /// # Safety
    ///
    /// To be called while connected to SPI.
    unsafe fn look_at_names(&self) -> Result<(), Error> {
        let Some(of) = self.of else { return Ok(()) };
        // SAFETY: a kept plan of one statement has one source, which lives as long; its lists are read before anything else
        // is called.
        unsafe {
            loop {
                let plan = pg_sys::SPI_plan_get_cached_plan(self.raw);
                if plan.is_null() {
                    return Err(Error::Internal("a statement has no plan"));
                }
                pg_sys::ReleaseCachedPlan(plan, pg_sys::CurrentResourceOwner);
                let sources =
                    PgList::<pg_sys::CachedPlanSource>::from_pg(pg_sys::SPI_plan_get_plan_sources(self.raw));
                let Some(source) = sources.head().and_then(|source| source.as_ref()) else {
                    return Err(Error::Internal("a statement has no source"));
                };
                // What planning locked may have brought news.
                if !source.is_valid {
                    continue;
                }
                // Those that the statement names come first, and those that rules and views have put there later. There is
                // none where a rule does nothing instead.
                let found = PgList::<pg_sys::Oid>::from_pg(source.relationOids).get_oid(0);
                return match found {
                    Some(other) if other != of => Err(Error::Replaced),
                    _ => Ok(()),
                };
            }
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
