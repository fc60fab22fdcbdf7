//! Prepared statements that stay bound to their relations.
//!
//! A statement is text, and Postgres looks its names up again whenever it plans the statement again. Between two runs, the
//! owner of a schema can rename it and put another relation in the place of ours. That relation's triggers, defaults and
//! check options would then run with the privileges of the inbox's owner. Planning alone runs IMMUTABLE functions in them.
//!
//! So each statement is prepared for a list of relations and functions. Every parse of it is compared with that list between
//! parse analysis and planning, in Postgres's hook for that moment. It is prepared and run under a search path that finds
//! functions and operators only in `pg_catalog`. The run needs this too, because Postgres parses the statement again under
//! the path of the run. No statement names a user-defined type.

use std::cell::Cell;
use std::collections::HashMap;
use std::ffi::{CStr, CString, c_char};
use std::panic::AssertUnwindSafe;

use pgrx::datum::{Datum, DatumWithOid};
use pgrx::prelude::*;
use pgrx::{PgList, pg_sys};

use crate::error::{Error, raise};
use crate::pg::compat::c_letter;
use crate::pg::settings::with_catalog_path;
use crate::pg::state::{SessionCell, SessionState};

thread_local! {
    /// Bound statements by the address of their text, which no two statements share.
    static BOUND: SessionCell<HashMap<*const c_char, Bound>> = SessionCell::default();
    static NEXT_HOOK: Cell<pg_sys::post_parse_analyze_hook_type> = const { Cell::new(None) };
}

/// Relations and functions that a statement can name.
#[derive(Clone, Default)]
pub(crate) struct Bound {
    pub(crate) relations: Vec<pg_sys::Oid>,
    /// Functions other than Postgres's own.
    pub(crate) functions: Vec<pg_sys::Oid>,
}

impl Bound {
    /// Binds to one relation.
    pub(crate) fn to(relation: pg_sys::Oid) -> Self {
        Self { relations: vec![relation], functions: Vec::new() }
    }

    /// Whether a query names nothing else. Postgres reports relations by OID, and functions that are not its own by a hash
    /// of their OID. Finding another OID with this hash would take four billion functions.
    ///
    /// # Safety
    /// `query` has been analyzed and not been rewritten yet.
    #[expect(unsafe_code, reason = "calls Postgres")]
    unsafe fn is_all_of(&self, query: *mut pg_sys::Query) -> bool {
        let (mut relations, mut items, mut row_security) =
            (std::ptr::null_mut(), std::ptr::null_mut(), false);
        let none = pg_sys::Datum::null();
        let functions = pg_sys::SysCacheIdentifier::PROCOID.cast_signed();
        // SAFETY: pointers to locals. The lists and their elements are in the current memory context.
        unsafe {
            pg_sys::extract_query_dependencies(
                query.cast(),
                &raw mut relations,
                &raw mut items,
                &raw mut row_security,
            );
            let is_function = |item: &pg_sys::PlanInvalItem| {
                let hash = |&oid: &pg_sys::Oid| {
                    pg_sys::GetSysCacheHashValue(functions, oid.into(), none, none, none)
                };
                self.functions.iter().any(|oid| hash(oid) == item.hashValue)
            };
            PgList::<pg_sys::Oid>::from_pg(relations).iter_oid().all(|oid| self.relations.contains(&oid))
                && PgList::<pg_sys::PlanInvalItem>::from_pg(items)
                    .iter_ptr()
                    .all(|item| (*item).cacheId != functions || is_function(&*item))
        }
    }
}

/// Registers a hook that Postgres calls for each statement between parse analysis and planning.
pub(crate) fn register() {
    /// Not guarded by pgrx, because the next hook's errors would lose the fields that pgrx does not carry. No frame of it
    /// has a destructor.
    #[expect(unsafe_code, reason = "called by Postgres")]
    #[expect(ffi_unwind_calls, reason = "an error of another library's hook goes through")]
    unsafe extern "C-unwind" fn analyzed(
        state: *mut pg_sys::ParseState,
        query: *mut pg_sys::Query,
        jumble: *mut pg_sys::JumbleState,
    ) {
        // SAFETY: these are the arguments that Postgres called the hook with.
        unsafe {
            compare(state, query);
            if let Some(next) = NEXT_HOOK.get() {
                next(state, query, jumble);
            }
        }
    }
    #[expect(unsafe_code, reason = "sets a variable")]
    // SAFETY: the hook is a function of this library, which is never unloaded; libraries are loaded one after the other.
    unsafe {
        NEXT_HOOK.set(pg_sys::post_parse_analyze_hook);
        pg_sys::post_parse_analyze_hook = Some(analyzed);
    }
}

/// Raises an error if this is a bound statement that names something it isn't bound to. Does nothing for other statements.
#[expect(unsafe_code, reason = "called by Postgres")]
#[pg_guard]
unsafe extern "C-unwind" fn compare(state: *mut pg_sys::ParseState, query: *mut pg_sys::Query) {
    // SAFETY: Postgres calls its hook (post_parse_analyze_hook in analyze.c) with the state and the query that it made.
    let holds = BOUND.with_borrow(|bound| unsafe {
        bound.get(&(*state).p_sourcetext).is_none_or(|bound| bound.is_all_of(query))
    });
    if !holds {
        raise(Error::Replaced);
    }
}

/// Registers the statement with its text at this address for comparison, until this is dropped.
struct Binding(*const c_char);

impl Binding {
    fn new(text: *const c_char, to: &Bound) -> Self {
        BOUND.with_borrow_mut(|bound| bound.insert(text, to.clone()));
        Self(text)
    }
}

impl Drop for Binding {
    fn drop(&mut self) {
        BOUND.with_borrow_mut(|bound| bound.remove(&self.0));
    }
}

/// A statement prepared once per session. Postgres itself plans it again when a table that it uses changes.
pub(crate) struct Plan {
    raw: pg_sys::SPIPlanPtr,
    /// Dropped first, so that it never outlives the text.
    binding: Option<Binding>,
}

#[expect(unsafe_code, reason = "calls Postgres")]
impl Plan {
    /// Prepares `sql`, which must name only what it is bound to. Its parameters have the types `parameters`.
    pub(crate) fn prepare(bound: &Bound, sql: &str, parameters: &[pg_sys::Oid]) -> Result<Self, Error> {
        Self::prepare_with(bound, sql, parameters, 0)
    }

    /// Prepares a statement that is planned once, whatever the arguments. Looking at thousands of arguments takes longer
    /// than a plan for them saves.
    pub(crate) fn prepare_generic(
        bound: &Bound,
        sql: &str,
        parameters: &[pg_sys::Oid],
    ) -> Result<Self, Error> {
        Self::prepare_with(bound, sql, parameters, pg_sys::CURSOR_OPT_GENERIC_PLAN)
    }

    fn prepare_with(
        bound: &Bound,
        sql: &str,
        parameters: &[pg_sys::Oid],
        options: u32,
    ) -> Result<Self, Error> {
        // A NUL cannot occur: names are read from the catalogs.
        let sql = CString::new(sql).map_err(|_| Error::Internal("a statement has a NUL"))?;
        let count = i32::try_from(parameters.len()).unwrap_or(i32::MAX);
        let first = Binding::new(sql.as_ptr(), bound);
        // SAFETY: the pointers live through the calls; SPI_prepare_cursor only reads the types.
        let raw = with_catalog_path(|| unsafe {
            pg_sys::SPI_connect();
            let types = parameters.as_ptr().cast_mut();
            let raw = pg_sys::SPI_prepare_cursor(sql.as_ptr(), count, types, options.cast_signed());
            if !raw.is_null() {
                pg_sys::SPI_keepplan(raw);
            }
            pg_sys::SPI_finish();
            raw
        });
        drop(first);
        if raw.is_null() {
            return Err(Error::Internal("a statement could not be prepared"));
        }
        let mut plan = Self { raw, binding: None };
        plan.binding = Some(Binding::new(plan.text()?, bound));
        Ok(plan)
    }

    /// Returns the address of the text that Postgres parses when it plans again.
    fn text(&self) -> Result<*const c_char, Error> {
        // SAFETY: a kept plan has a list of sources, one for each statement in it, which live as long as the plan.
        unsafe {
            let sources =
                PgList::<pg_sys::CachedPlanSource>::from_pg(pg_sys::SPI_plan_get_plan_sources(self.raw));
            let source = sources.head().ok_or(Error::Internal("a statement has no source"))?;
            Ok((*source).query_string)
        }
    }

    /// Runs the statement with these arguments, none NULL. Returns the number of rows that it inserted or returned, and the
    /// first returned value.
    pub(crate) fn execute(&self, arguments: &[pg_sys::Datum]) -> Result<Executed, Error> {
        let mut first = None;
        let rows = self.run(arguments, false, |row| {
            first.get_or_insert(row.datum(1).map_or(0, |datum| datum.value() as u64));
            Ok(())
        })?;
        Ok(Executed { rows, first: first.unwrap_or_default() })
    }

    /// Runs the statement with these arguments, none NULL. Returns the numbers in its first column.
    pub(crate) fn numbers(&self, arguments: &[pg_sys::Datum]) -> Result<Vec<u64>, Error> {
        let mut numbers = Vec::new();
        self.run(arguments, false, |row| {
            numbers.extend(row.datum(1).map(|datum| datum.value() as u64));
            Ok(())
        })?;
        Ok(numbers)
    }

    /// Runs the statement with these arguments, none NULL, and calls `each` with each returned row. With `read_only`, the
    /// statement sees what the active snapshot sees. Returns the number of rows that it inserted, updated or returned.
    pub(crate) fn run(
        &self,
        arguments: &[pg_sys::Datum],
        read_only: bool,
        mut each: impl FnMut(&Returned) -> Result<(), Error>,
    ) -> Result<u64, Error> {
        // SAFETY: the plan lives as long as `self`; a result is read before SPI_finish frees it.
        unsafe {
            pg_sys::SPI_connect();
            let arguments = arguments.as_ptr().cast_mut();
            let execute = || {
                with_catalog_path(|| {
                    pg_sys::SPI_execute_plan(self.raw, arguments, std::ptr::null(), read_only, 0)
                })
            };
            // Caught here, where few frames must be unwound (measured: 6 % of a refused row's time).
            let status = PgTryBuilder::new(AssertUnwindSafe(|| Ok(execute())))
                .catch_others(|error| Err(Error::Caught(Box::new(error))))
                .execute()?;
            let rows = pg_sys::SPI_processed;
            let mut result = Ok(());
            if status == pg_sys::SPI_OK_SELECT.cast_signed() && rows > 0 {
                let table = &*pg_sys::SPI_tuptable;
                let returned = usize::try_from(rows).unwrap_or_default();
                let tuples = std::slice::from_raw_parts(table.vals, returned);
                result = tuples
                    .iter()
                    .try_for_each(|&tuple| each(&Returned { tuple, description: table.tupdesc }));
            }
            pg_sys::SPI_finish();
            result?;
            pgrx::Spi::check_status(status)?;
            Ok(rows)
        }
    }

    /// Opens a cursor over the statement's rows, and returns the cursor's name.
    pub(crate) fn open_cursor(&self, arguments: &[DatumWithOid<'_>]) -> String {
        let mut values: Vec<pg_sys::Datum> = Vec::new();
        let mut nulls: Vec<c_char> = Vec::new();
        for argument in arguments {
            let datum = argument.datum();
            nulls.push(c_letter(if datum.is_some() { b' ' } else { b'n' }));
            values.push(datum.map_or(pg_sys::Datum::null(), Datum::sans_lifetime));
        }
        // SAFETY: the plan lives as long as `self`. The portal has its own reference to the plan, and lives until it is
        // closed or the transaction ends. Its name is copied before SPI_finish.
        unsafe {
            pg_sys::SPI_connect();
            let (values, nulls) = (values.as_mut_ptr(), nulls.as_ptr());
            let portal = with_catalog_path(|| {
                pg_sys::SPI_cursor_open(std::ptr::null(), self.raw, values, nulls, false)
            });
            let name = CStr::from_ptr((*portal).name).to_string_lossy().into_owned();
            pg_sys::SPI_finish();
            name
        }
    }
}

/// A row that a statement returned.
pub(crate) struct Returned {
    tuple: pg_sys::HeapTuple,
    description: pg_sys::TupleDesc,
}

impl Returned {
    /// Returns the value of a column, counted from 1, or none if it is NULL. The value lives as long as the row.
    pub(crate) fn datum(&self, column: i32) -> Option<pg_sys::Datum> {
        let mut null = false;
        #[expect(unsafe_code, reason = "calls Postgres")]
        // SAFETY: the tuple matches this description, and both live as long as the row is shown.
        let datum = unsafe { pg_sys::SPI_getbinval(self.tuple, self.description, column, &raw mut null) };
        (!null).then_some(datum)
    }

    /// Returns a column, counted from 1, in its type's text form, or none if it is NULL. The type is read from the row,
    /// because a column may have changed its type since it was checked.
    pub(crate) fn text(&self, column: i32) -> Option<CString> {
        #[expect(unsafe_code, reason = "calls Postgres")]
        // SAFETY: the tuple matches this description. The text is NULL or a C string, which is copied.
        unsafe {
            let text = pg_sys::SPI_getvalue(self.tuple, self.description, column);
            (!text.is_null()).then(|| CStr::from_ptr(text).to_owned())
        }
    }
}

/// The result of running a statement.
pub(crate) struct Executed {
    /// Rows inserted, updated or returned.
    pub(crate) rows: u64,
    /// First column of the first returned row, a bigint.
    pub(crate) first: u64,
}

#[expect(unsafe_code, reason = "calls Postgres")]
impl Drop for Plan {
    fn drop(&mut self) {
        self.binding = None;
        // SAFETY: the plan is kept (it belongs to no transaction), and nobody else has the pointer.
        unsafe {
            pg_sys::SPI_freeplan(self.raw);
        }
    }
}
