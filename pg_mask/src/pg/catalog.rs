//! Relations and columns, from the catalogs.

mod attribute;
mod conflict;
mod copy_obstacle;
mod relation;

use pgrx::pg_sys;
use pgrx::prelude::*;

use crate::error::Error;
use crate::pg::security::with_catalog_path;
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

/// Returns the rows of a query on the catalogs. Every catalog query of this library goes through here, so none can resolve a
/// name in somebody's own schema. It is read-only: unlike pgrx's `Spi::get_one`, it assigns no transaction id.
pub(crate) fn select<T>(
    sql: &str,
    arguments: &[pgrx::datum::DatumWithOid<'_>],
    read: impl Fn(CatalogRow<'_>) -> Result<T, pgrx::spi::Error>,
) -> Result<Vec<T>, Error> {
    with_catalog_path(|| {
        Spi::connect(|client| {
            let rows = client.select(sql, None, arguments)?;
            Ok(rows.map(|row| read(CatalogRow(row))).collect::<Result<Vec<T>, _>>()?)
        })
    })
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
