//! `remask_column` re-masks a column of a table under the primary key, batch by batch, and commits each batch.
//!
//! It runs for hours with its caller's privileges, often a superuser's. Meanwhile others can rename the table or its schema
//! and put another table in its place. So the table is identified by its OID, and each batch reads its name again. A batch's
//! statement is compared with that OID, and with the OIDs of the functions that it calls (see `plan`).

mod column;
mod progress;
mod tid;

use std::ffi::CStr;

use pgrx::pg_sys;
use pgrx::prelude::*;

use crate::error::{Error, Raise};
use crate::keys;
use crate::pg::catalog::{Relation, select};
use crate::pg::reserve::ReserveGuard;
use crate::pg::security::schema_of_called;
use column::{Column, Functions};
use progress::Progress;
use tid::bounds;

/// Maximum number of passes. A pass that finds nothing left is the last. If more are needed, something makes the masks that
/// `remask_column` replaces.
const PASSES: i32 = 20;

/// Maximum number of rounds over a table's partitions. A round that finds nothing left is the last.
const ROUNDS: i32 = PASSES;

/// Tells Postgres how `remask_column` is called.
#[expect(unsafe_code, reason = "Postgres calls it by its symbol")]
#[unsafe(no_mangle)]
pub(crate) extern "C-unwind" fn pg_finfo_remask_column() -> &'static pg_sys::Pg_finfo_record {
    const V1: pg_sys::Pg_finfo_record = pg_sys::Pg_finfo_record { api_version: 1 };
    &V1
}

/// Implements the procedure.
///
/// # Safety
/// Only Postgres may call it.
#[expect(unsafe_code, reason = "Postgres calls it by its symbol")]
#[unsafe(no_mangle)]
#[pg_guard]
pub(crate) unsafe extern "C-unwind" fn remask_column(fcinfo: pg_sys::FunctionCallInfo) -> pg_sys::Datum {
    // SAFETY: the arguments match the SQL declaration, and live as long as the call. The context of a procedure called by
    // CALL tells whether it may commit (CallContext in parsenodes.h).
    unsafe {
        let _room = ReserveGuard::hold();
        let arguments = (*fcinfo).args.as_slice(3);
        let argument = |place: usize, name| {
            let argument = &arguments[place];
            if argument.isnull { Err(Error::NullArgument(name)) } else { Ok(argument.value) }
        };
        let relation = pg_sys::Oid::from_datum(argument(0, "relation").or_raise(), false);
        let column = argument(1, "column_name").or_raise().cast_mut_ptr::<std::ffi::c_char>();
        let column = CStr::from_ptr(column).to_string_lossy().into_owned();
        let blocks = i32::from_datum(argument(2, "batch_blocks").or_raise(), false).unwrap_or_default();
        let context = (*fcinfo).context;
        let may_commit = !context.is_null()
            && (*context).type_ == pg_sys::NodeTag::T_CallContext
            && !(*context.cast::<pg_sys::CallContext>()).atomic;
        let options = if may_commit { pg_sys::SPI_OPT_NONATOMIC } else { 0 };
        pg_sys::SPI_connect_ext(options.cast_signed());
        let blocks =
            u64::try_from(blocks).ok().filter(|&blocks| blocks > 0).ok_or(Error::NoBlocks).or_raise();
        remask(relation.unwrap_or(pg_sys::InvalidOid), &column, blocks, schema_of_called(fcinfo)).or_raise();
        pg_sys::SPI_finish();
        pg_sys::Datum::null()
    }
}

fn remask(relation: pg_sys::Oid, column: &str, blocks: u64, schema: pg_sys::Oid) -> Result<(), Error> {
    let key = primary_key()?;
    let progress = Progress::new(schema)?;
    let functions = Functions::of(schema)?;
    for round in 1..=ROUNDS {
        let parts = parts(relation)?;
        for &part in &parts {
            let remasked = Column::open(part, column, &functions).and_then(|column| {
                if round == 1 || column.any_left(&key)? {
                    passes(&column, &key, blocks, &progress)?;
                }
                Ok(())
            });
            match remasked {
                Err(Error::Dropped) if part != relation => {
                    pgrx::notice!("a partition was dropped while the table was re-masked");
                }
                remasked => remasked?,
            }
        }
        // Meanwhile, rows can have moved to a partition that was done, and partitions can have been attached.
        if parts == [relation] || !Column::open(relation, column, &functions)?.any_left_in_tree(&key)? {
            return Ok(());
        }
    }
    Err(Error::MasksComeBack { relation: Relation::open(relation)?.name, passes: ROUNDS })
}

/// Returns the id of the primary key.
fn primary_key() -> Result<String, Error> {
    Ok(keys::ring()?.primary_id().to_owned())
}

/// Returns the tables that store the rows of a table: itself, or its partitions.
fn parts(relation: pg_sys::Oid) -> Result<Vec<pg_sys::Oid>, Error> {
    let kinds = select(
        "SELECT $1::pg_catalog.regclass::text, COALESCE(
            (SELECT c.relkind IN ('r', 'p') FROM pg_catalog.pg_class c WHERE c.oid = $1), false)",
        &[relation.into()],
        |row| Ok((row.text(1)?, row.get::<bool>(2)?)),
    )?;
    let Some((Some(name), Some(is_table))) = kinds.into_iter().next() else {
        return Err(Error::Dropped);
    };
    if !is_table {
        return Err(Error::NotATable { relation: name });
    }
    let tree = Relation::open(relation)?.partitions()?;
    if tree.iter().any(|part| !part.is_stored) {
        return Err(Error::NotAllTables { relation: name });
    }
    Ok(tree.into_iter().filter(|part| part.is_table).map(|part| part.oid).collect())
}

/// Re-masks until a whole pass finds nothing left. One pass isn't enough: a row that somebody changes meanwhile may move
/// to a block that is already done.
fn passes(column: &Column, key: &str, batch: u64, progress: &Progress) -> Result<(), Error> {
    let mut at = progress.begin(column, key)?;
    loop {
        let whole = at.blocks_done == 0;
        let mut in_pass = 0;
        at.blocks_total = column.blocks()?;
        while at.blocks_done < at.blocks_total {
            let end = at.blocks_done.saturating_add(batch).min(at.blocks_total);
            let remasked = column.batch(key, bounds(at.blocks_done, end))?;
            in_pass += remasked;
            at.remasked += remasked;
            at.blocks_done = end;
            progress.note(column, &at)?;
        }
        if whole && in_pass == 0 && !column.any_left(key)? {
            return progress.finish(column);
        }
        if at.pass >= PASSES {
            return Err(Error::MasksComeBack { relation: column.name()?, passes: PASSES });
        }
        at.pass += 1;
        at.blocks_done = 0;
    }
}
