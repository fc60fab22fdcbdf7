//! Relations and columns, from the catalogs.

mod attribute;
mod conflict;
mod copy_obstacle;
mod relation;

use std::cell::Cell;

use pgrx::pg_sys;
use pgrx::prelude::*;

use crate::error::Error;
use crate::pg::settings::with_catalog_path;
use crate::pg::text::Name;
pub(crate) use attribute::{Attribute, with_unchanged};
pub(crate) use conflict::Conflict;
pub(crate) use relation::Relation;

/// Returns the relation that a name means under the search path of the caller, who wrote it. Returns none if there is none.
pub(crate) fn look_up(name: &str) -> Result<Option<pg_sys::Oid>, Error> {
    let found = Spi::connect(|client| {
        let rows =
            client.select("SELECT pg_catalog.to_regclass($1)::pg_catalog.oid", None, &[name.into()])?;
        rows.first().get::<pg_sys::Oid>(1)
    })?;
    Ok(found)
}

/// Returns the first of these relations that loses its rows when the server crashes.
pub(crate) fn unlogged(relations: &[pg_sys::Oid]) -> Result<Option<String>, Error> {
    let unlogged = select(
        "SELECT pg_catalog.format('%I.%I', n.nspname, c.relname)
         FROM pg_catalog.pg_class c JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
         WHERE c.oid = ANY ($1) AND c.relpersistence = 'u' ORDER BY c.oid LIMIT 1",
        &[relations.to_vec().into()],
        |row| row.text(1),
    )?;
    Ok(unlogged.into_iter().flatten().next())
}

/// Returns the first of these relations whose rows another server keeps.
pub(crate) fn foreign(relations: &[pg_sys::Oid]) -> Result<Option<pg_sys::Oid>, Error> {
    let foreign = select(
        "SELECT oid FROM pg_catalog.pg_class WHERE oid = ANY ($1) AND relkind = 'f' ORDER BY oid LIMIT 1",
        &[relations.to_vec().into()],
        |row| row.get::<pg_sys::Oid>(1),
    )?;
    Ok(foreign.into_iter().flatten().next())
}

/// Returns the rows of a query on the catalogs, as they are now. Every catalog query of this library goes through here, so
/// none can resolve a name in somebody's own schema. It is read-only: unlike pgrx's `Spi::get_one`, it assigns no
/// transaction id.
///
/// The statement or the transaction may have begun before the last change. What it sees would be outdated, although the
/// session was already told of that change and will not be told again.
pub(crate) fn select<T>(
    sql: &str,
    arguments: &[pgrx::datum::DatumWithOid<'_>],
    read: impl Fn(CatalogRow<'_>) -> Result<T, pgrx::spi::Error>,
) -> Result<Vec<T>, Error> {
    let query = || {
        with_catalog_path(|| {
            Spi::connect(|client| {
                let rows = client.select(sql, None, arguments)?;
                Ok(rows.map(|row| read(CatalogRow(row))).collect::<Result<Vec<T>, _>>()?)
            })
        })
    };
    if IN_ONE_SNAPSHOT.get() { query() } else { with_latest_snapshot(query) }
}

thread_local! {
    static IN_ONE_SNAPSHOT: Cell<bool> = const { Cell::new(false) };
}

/// Runs `act` with all its queries on the catalogs in one snapshot. So what one query finds is still there for the next.
pub(crate) fn in_one_snapshot<R>(act: impl FnOnce() -> R) -> R {
    /// Also when an error unwinds.
    struct Reset(bool);
    impl Drop for Reset {
        fn drop(&mut self) {
            IN_ONE_SNAPSHOT.set(self.0);
        }
    }
    with_latest_snapshot(|| {
        let _reset = Reset(IN_ONE_SNAPSHOT.replace(true));
        act()
    })
}

/// Runs `act` with a snapshot of this moment.
fn with_latest_snapshot<R>(act: impl FnOnce() -> R) -> R {
    #[expect(unsafe_code, reason = "calls Postgres")]
    // SAFETY: the pushed snapshot is popped. After an error, the end of the (sub)transaction pops it.
    unsafe {
        // A worker, and a query that has some, keep to their snapshot.
        if pg_sys::IsInParallelMode() {
            return act();
        }
        // The caches that functions in a query read.
        pg_sys::AcceptInvalidationMessages();
        pg_sys::PushActiveSnapshot(pg_sys::GetLatestSnapshot());
        let result = act();
        pg_sys::PopActiveSnapshot();
        result
    }
}

/// A row of a query on the catalogs. Its columns are counted from 1.
pub(crate) struct CatalogRow<'a>(pgrx::spi::SpiHeapTupleData<'a>);

impl CatalogRow<'_> {
    /// Returns a column that isn't a text.
    pub(crate) fn get<T: NoText>(&self, column: usize) -> Result<Option<T>, pgrx::spi::Error> {
        self.0.get(column)
    }

    /// Returns a text.
    pub(crate) fn text(&self, column: usize) -> Result<Option<String>, pgrx::spi::Error> {
        Ok(self.0.get::<Name>(column)?.map(|name| name.0))
    }

    /// Returns an array of texts.
    pub(crate) fn texts(&self, column: usize) -> Result<Option<Vec<String>>, pgrx::spi::Error> {
        let names = self.0.get::<Vec<Name>>(column)?;
        Ok(names.map(|names| names.into_iter().map(|name| name.0).collect()))
    }
}

/// A type in which no text is.
pub(crate) trait NoText: FromDatum + IntoDatum {}
impl NoText for bool {}
impl NoText for i16 {}
impl NoText for i32 {}
impl NoText for Vec<u8> {}
impl NoText for pg_sys::Oid {}
impl NoText for Vec<pg_sys::Oid> {}
