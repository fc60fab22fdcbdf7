//! `remask_column`: a column of a table masked again under the primary key, batch by batch, each committed.
//!
//! It runs for hours with the rights of its caller, often a superuser. Meanwhile others can rename the table or its schema
//! and put another one in its place. So the table is known by its OID, and each batch reads its name again. The statement of
//! a batch is compared with that OID, and with those of the functions that it calls (see `plan`).

use std::ffi::CStr;

use masking::keyring::Token;
use pgrx::memcxt::PgMemoryContexts;
use pgrx::pg_sys;
use pgrx::pg_sys::panic::{CaughtError, ErrorReport};
use pgrx::prelude::*;

use crate::catalog::{Attribute, Relation, select, with_unchanged};
use crate::error::{Error, Raise, quoted, raise, sqlstate};
use crate::flush::in_subtransaction;
use crate::keys;
use crate::plan::{Bound, Plan};
use crate::security::{function, has_policies, name_of_schema, schema_of_called, with_settings};
use crate::values::text;

/// A pass that finds nothing left is the last. More passes than this mean that something makes the masks that it replaces.
const PASSES: i32 = 20;

/// Has Postgres find rows by their place: it could take a batch for a large part of the table.
const BY_PLACE: [(&CStr, &CStr); 2] = [(c"enable_seqscan", c"off"), (c"enable_tidscan", c"on")];

/// Tells Postgres how `remask_column` is called.
#[expect(unsafe_code, reason = "Postgres calls it by its symbol")]
#[unsafe(no_mangle)]
pub(crate) extern "C-unwind" fn pg_finfo_remask_column() -> &'static pg_sys::Pg_finfo_record {
    const V1: pg_sys::Pg_finfo_record = pg_sys::Pg_finfo_record { api_version: 1 };
    &V1
}

/// The procedure.
///
/// # Safety
/// For Postgres to call.
#[expect(unsafe_code, reason = "Postgres calls it by its symbol")]
#[unsafe(no_mangle)]
#[pg_guard]
pub(crate) unsafe extern "C-unwind" fn remask_column(fcinfo: pg_sys::FunctionCallInfo) -> pg_sys::Datum {
    // SAFETY: the arguments are those of the SQL declaration, and live as long as the call. The context of a procedure
    // called by CALL tells whether it may commit (CallContext in parsenodes.h).
    unsafe {
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
    let parts = parts(relation)?;
    let progress = Progress::new(schema)?;
    let functions = Functions::of(schema)?;
    for part in parts {
        let remasked =
            Column::open(part, column, &functions).and_then(|column| column.remask(&key, blocks, &progress));
        match remasked {
            Err(Error::Dropped) if part != relation => {
                pgrx::notice!("a partition was dropped while the table was re-masked");
            }
            remasked => remasked?,
        }
    }
    Ok(())
}

/// Returns the id of the key that masks now.
fn primary_key() -> Result<String, Error> {
    let ring = keys::ring()?;
    let mut token = vec![0; ring.masked_len(b"")];
    let length = ring.mask(b"", &mut token)?;
    let token = Token::parse(&token[..length])?;
    Ok(token.ok_or(Error::Internal("a token has no key"))?.key.to_owned())
}

/// Returns the tables that store the rows of a table: itself, or its partitions.
fn parts(relation: pg_sys::Oid) -> Result<Vec<pg_sys::Oid>, Error> {
    let kinds = select(
        "SELECT $1::pg_catalog.regclass::text, COALESCE(
            (SELECT c.relkind IN ('r', 'p') FROM pg_catalog.pg_class c WHERE c.oid = $1), false)",
        &[relation.into()],
        |row| Ok((row.get::<String>(1)?, row.get::<bool>(2)?)),
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

/// A column of a table.
struct Column {
    table: pg_sys::Oid,
    attribute: Attribute,
    functions: Functions,
}

/// The extension's functions that a statement calls.
#[derive(Clone)]
struct Functions {
    /// Their names, schema-qualified and quoted as SQL needs it.
    remask: String,
    key: String,
    oids: Vec<pg_sys::Oid>,
}

impl Functions {
    fn of(schema: pg_sys::Oid) -> Result<Self, Error> {
        let name = quoted(&[name_of_schema(schema)?]);
        let oid = |name| function(schema, name, &[pg_sys::TEXTOID]);
        Ok(Self {
            remask: format!("{name}.remask_pii"),
            key: format!("{name}.mask_key"),
            oids: vec![oid(c"remask_pii"), oid(c"mask_key")],
        })
    }
}

/// Parts of a statement on a column, quoted as SQL needs it.
struct Names {
    table: String,
    column: String,
    /// The new mask.
    masked: String,
    /// The condition that the mask is of another key than the first parameter.
    other: String,
}

impl Column {
    fn open(table: pg_sys::Oid, name: &str, functions: &Functions) -> Result<Self, Error> {
        let relation = Relation::open(table)?;
        let columns = relation.attributes()?;
        let listed = || columns.iter().map(|column| column.name.clone()).collect();
        let attribute = columns.iter().find(|column| column.name == name).ok_or_else(|| {
            Error::UnknownColumn { column: name.to_owned(), target: relation.name.clone(), columns: listed() }
        })?;
        if !attribute.is_text() {
            return Err(Error::NotAText { column: name.to_owned() });
        }
        Ok(Self { table, attribute: attribute.clone(), functions: functions.clone() })
    }

    /// Re-masks until a whole pass finds nothing left: a row that somebody changes meanwhile may move to a block that was
    /// passed already.
    fn remask(&self, key: &str, batch: u64, progress: &Progress) -> Result<(), Error> {
        let mut at = progress.begin(self, key)?;
        loop {
            let whole = at.blocks_done == 0;
            let mut in_pass = 0;
            at.blocks_total = self.blocks()?;
            while at.blocks_done < at.blocks_total {
                let end = at.blocks_done.saturating_add(batch).min(at.blocks_total);
                let remasked = self.batch(key, bounds(at.blocks_done, end))?;
                in_pass += remasked;
                at.remasked += remasked;
                at.blocks_done = end;
                progress.note(self, &at)?;
            }
            if whole && in_pass == 0 && !self.any_left(key)? {
                return progress.finish(self);
            }
            if at.pass >= PASSES {
                return Err(Error::MasksComeBack { relation: self.name()?, passes: PASSES });
            }
            at.pass += 1;
            at.blocks_done = 0;
        }
    }

    /// Returns the table's name of now, schema-qualified and quoted as SQL needs it.
    fn name(&self) -> Result<String, Error> {
        Ok(Relation::open(self.table)?.name)
    }

    /// Locks the table to the end of the transaction for `act`, which then sees all of its rows.
    fn locked<R>(&self, act: impl FnOnce(pg_sys::Relation) -> Result<R, Error>) -> Result<R, Error> {
        with_unchanged(self.table, std::slice::from_ref(&self.attribute), |relation| {
            if has_policies(self.table) {
                return Err(Error::HiddenRows { relation: self.name()? });
            }
            act(relation)
        })?
    }

    /// Returns the number of the table's blocks.
    fn blocks(&self) -> Result<u64, Error> {
        self.locked(|relation| {
            #[expect(unsafe_code, reason = "calls Postgres")]
            // SAFETY: the relation is open.
            let blocks = unsafe {
                pg_sys::RelationGetNumberOfBlocksInFork(relation, pg_sys::ForkNumber::MAIN_FORKNUM)
            };
            Ok(blocks.into())
        })
    }

    /// Prepares a statement on this column.
    fn prepare(&self, sql: impl FnOnce(&Names) -> String, more: &[pg_sys::Oid]) -> Result<Plan, Error> {
        let column = quoted(&[&self.attribute.name]);
        let Functions { remask, key, oids } = &self.functions;
        let names = Names {
            table: self.name()?,
            masked: format!("{remask}({column}::pg_catalog.text)"),
            // Whatever the collation of the column, it takes two ids for the same only if they are.
            other: format!(
                "{column} IS NOT NULL AND ({key}({column}::pg_catalog.text) = \
                 $1::pg_catalog.text COLLATE pg_catalog.\"C\") IS NOT TRUE"
            ),
            column,
        };
        let bound = Bound { relations: vec![self.table], functions: oids.clone() };
        Plan::prepare(&bound, &sql(&names), &[&[pg_sys::TEXTOID], more].concat())
    }

    /// Replaces the masks of other keys between these places. Returns how many.
    fn batch(&self, key: &str, places: [pg_sys::ItemPointerData; 2]) -> Result<u64, Error> {
        self.locked(|_| {
            let update = self.prepare(
                |Names { table, column, masked, other }| {
                    format!("UPDATE ONLY {table} SET {column} = {masked} WHERE ctid >= $2 AND ctid < $3 AND {other}")
                },
                &[pg_sys::TIDOID; 2],
            )?;
            let mut memory = PgMemoryContexts::new("pg_mask remask");
            let key = text(key.as_bytes());
            let [first, end] = places.each_ref().map(datum);
            let updated = in_subtransaction(&mut memory, || {
                with_settings(&BY_PLACE, || update.run(&[key, first, end], false, |_| Ok(()))).or_raise()
            });
            match updated {
                Ok(rows) => Ok(rows),
                Err(failure) if is_of_a_row(&failure.error) => {
                    self.raise_of_row(*failure.error, [key, first, end], &mut memory)
                }
                Err(failure) => failure.error.rethrow(),
            }
        })
    }

    /// Raises the error of a batch with the row that it is of.
    fn raise_of_row(
        &self,
        error: CaughtError,
        arguments: [pg_sys::Datum; 3],
        memory: &mut PgMemoryContexts,
    ) -> Result<u64, Error> {
        let rows = self.prepare(
            |Names { table, other, .. }| {
                format!("SELECT ctid FROM ONLY {table} WHERE ctid >= $2 AND ctid < $3 AND {other}")
            },
            &[pg_sys::TIDOID; 2],
        )?;
        let one = self.prepare(
            |Names { table, column, masked, other }| {
                format!("UPDATE ONLY {table} SET {column} = {masked} WHERE ctid = $2 AND {other}")
            },
            &[pg_sys::TIDOID],
        )?;
        let name = self.name()?;
        rows.run(&arguments, false, |row| {
            let Some(place) = row.datum(1) else { return Ok(()) };
            let tried =
                in_subtransaction(memory, || one.run(&[arguments[0], place], false, |_| Ok(())).or_raise());
            if let Err(failure) = tried
                && let CaughtError::PostgresError(report) | CaughtError::ErrorReport(report) = *failure.error
            {
                #[expect(unsafe_code, reason = "reads a value of a row")]
                // SAFETY: the statement returns a tid, which lives as long as the row.
                let place = unsafe { *place.cast_mut_ptr::<pg_sys::ItemPointerData>() };
                let message = format!("{}: {}", row_of(place, &name), report.message());
                let mut found = ErrorReport::new(report.sql_error_code(), message, "pg_mask");
                if let Some(hint) = report.hint() {
                    found = found.set_hint(hint.to_owned());
                }
                raise(found);
            }
            Ok(())
        })?;
        error.rethrow()
    }

    /// Whether a mask of another key is anywhere in the table.
    fn any_left(&self, key: &str) -> Result<bool, Error> {
        self.locked(|_| {
            let left = self.prepare(
                |Names { table, other, .. }| {
                    format!("SELECT pg_catalog.count(*) FROM (SELECT FROM ONLY {table} WHERE {other} LIMIT 1) AS others")
                },
                &[],
            )?;
            let left = with_settings(&BY_PLACE, || left.execute(&[text(key.as_bytes())]))?;
            Ok(left.first > 0)
        })
    }
}

/// Whether an error is of a row: its value is no mask, cannot be read, or its new mask does not fit.
fn is_of_a_row(error: &CaughtError) -> bool {
    match error {
        CaughtError::PostgresError(report) | CaughtError::ErrorReport(report) => {
            let state = sqlstate(report.sql_error_code() as i32);
            ["22", "23", "39"].contains(&&state[..2]) || state == "42704"
        }
        CaughtError::RustPanic { .. } => false,
    }
}

/// Names a row by its place.
fn row_of(place: pg_sys::ItemPointerData, relation: &str) -> String {
    let block = u32::from(place.ip_blkid.bi_hi) << 16 | u32::from(place.ip_blkid.bi_lo);
    format!("row ({block},{}) of {relation}", place.ip_posid)
}

fn datum(place: &pg_sys::ItemPointerData) -> pg_sys::Datum {
    pg_sys::Datum::from(std::ptr::from_ref(place))
}

/// Returns the places between which the rows of these blocks are.
fn bounds(first: u64, end: u64) -> [pg_sys::ItemPointerData; 2] {
    [first, end].map(|block| {
        // No table has more blocks than there are numbers of them.
        let block = u32::try_from(block).unwrap_or(u32::MAX - 1);
        let [a, b, c, d] = block.to_be_bytes();
        let (bi_hi, bi_lo) = (u16::from_be_bytes([a, b]), u16::from_be_bytes([c, d]));
        pg_sys::ItemPointerData { ip_blkid: pg_sys::BlockIdData { bi_hi, bi_lo }, ip_posid: 0 }
    })
}

/// Progress in one column.
struct At {
    pass: i32,
    blocks_done: u64,
    blocks_total: u64,
    remasked: u64,
}

/// The table `remask_progress`. What is written to it is committed at once, with what was done before.
struct Progress {
    read: Plan,
    forget: Plan,
    begin: Plan,
    note: Plan,
    finish: Plan,
}

impl Progress {
    fn new(schema: pg_sys::Oid) -> Result<Self, Error> {
        const BIGINT: pg_sys::Oid = pg_sys::INT8OID;
        #[expect(unsafe_code, reason = "calls Postgres")]
        // SAFETY: a C string and an oid.
        let table = unsafe { pg_sys::get_relname_relid(c"remask_progress".as_ptr(), schema) };
        let name = Relation::open(table)?.name;
        let of_column = "p.relation = $1 AND p.column_name = $2";
        let prepare = |sql: String, more: &[pg_sys::Oid]| {
            let types = [&[pg_sys::OIDOID, pg_sys::TEXTOID], more].concat();
            Plan::prepare(&Bound::to(table), &sql, &types)
        };
        Ok(Self {
            read: prepare(
                format!(
                    "SELECT p.blocks_done, p.remasked FROM {name} p
                     WHERE {of_column} AND p.key = $3 AND p.pass = 1 AND p.finished_at IS NULL"
                ),
                &[pg_sys::TEXTOID],
            )?,
            forget: prepare(format!("DELETE FROM {name} p WHERE {of_column}"), &[])?,
            begin: prepare(
                format!(
                    "INSERT INTO {name} VALUES
                     ($1, $2, $3, 1, 0, 0, 0, pg_catalog.now(), pg_catalog.now(), NULL)"
                ),
                &[pg_sys::TEXTOID],
            )?,
            note: prepare(
                format!(
                    "UPDATE {name} p SET pass = $3, blocks_done = $4, blocks_total = $5, remasked = $6,
                        updated_at = pg_catalog.clock_timestamp() WHERE {of_column}"
                ),
                &[pg_sys::INT4OID, BIGINT, BIGINT, BIGINT],
            )?,
            finish: prepare(
                format!("UPDATE {name} p SET finished_at = pg_catalog.clock_timestamp() WHERE {of_column}"),
                &[],
            )?,
        })
    }

    /// Returns where to begin. A first pass that was broken off goes on where it was: the last one looks at every block
    /// anyway.
    fn begin(&self, column: &Column, key: &str) -> Result<At, Error> {
        let mut at = None;
        let number = |datum: Option<pg_sys::Datum>| datum.map_or(0, |datum| datum.value() as u64);
        self.read.run(&with_key(column, key), false, |row| {
            let (blocks_done, remasked) = (number(row.datum(1)), number(row.datum(2)));
            at = Some(At { pass: 1, blocks_done, blocks_total: 0, remasked });
            Ok(())
        })?;
        if let Some(at) = at {
            return Ok(at);
        }
        self.forget.execute(&known(column))?;
        self.begin.execute(&with_key(column, key))?;
        commit();
        Ok(At { pass: 1, blocks_done: 0, blocks_total: 0, remasked: 0 })
    }

    fn note(&self, column: &Column, at: &At) -> Result<(), Error> {
        let numbers =
            [at.blocks_done, at.blocks_total, at.remasked].map(|number| number.cast_signed().into());
        self.note.execute(&[&known(column)[..], &[at.pass.into()], &numbers].concat())?;
        commit();
        Ok(())
    }

    fn finish(&self, column: &Column) -> Result<(), Error> {
        self.finish.execute(&known(column))?;
        commit();
        Ok(())
    }
}

/// The arguments by which a column is known.
fn known(column: &Column) -> [pg_sys::Datum; 2] {
    [column.table.into(), text(column.attribute.name.as_bytes())]
}

fn with_key(column: &Column, key: &str) -> [pg_sys::Datum; 3] {
    let [table, name] = known(column);
    [table, name, text(key.as_bytes())]
}

/// Commits what was done, and begins the next transaction.
fn commit() {
    #[expect(unsafe_code, reason = "calls Postgres")]
    // SAFETY: nobody holds on to memory of the transaction. Without the snapshot, a read-only query would have none.
    unsafe {
        pg_sys::SPI_commit();
        pg_sys::EnsurePortalSnapshotExists();
    }
}
