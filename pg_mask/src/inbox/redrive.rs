//! Redriving: puts rejects back into their inbox once their cause is fixed.
//!
//! Rejects are taken and unmasked with the privileges of the inbox's owner. So nothing of them may ever be shown to the
//! caller, whose only privilege can be `INSERT` on the inbox. Hence there is no `INSERT` on the view here. A trigger added to the view
//! would see the events, and so would a relation that took over its name. Instead, rejects go one by one from the mask
//! directly into the batch, which masks them again. Whatever Postgres stores of the taken rejects, even in a temporary file,
//! is masked.

use std::rc::Rc;

use pgrx::datum::{Array, DatumWithOid, TimestampWithTimeZone, Uuid};
use pgrx::pg_sys;
use pgrx::prelude::*;

use crate::counts::Counts;
use crate::error::Error;
use crate::inbox::attached::Attached;
use crate::inbox::batch::{self, BatchContext};
use crate::inbox::definition::Inbox;
use crate::inbox::messages::InboxRow;
use crate::masks::unmask;
use crate::pg::catalog::{Relation, foreign, select};
use crate::pg::cursors::Shut;
use crate::pg::log::unheard;
use crate::pg::names::name_of;
use crate::pg::plan::{Bound, Plan};
use crate::pg::security::{
    as_owner, is_restricted_operation, make_constraints_immediate, may_call, may_insert,
};
use crate::pg::subtransaction::stripped;
use crate::pg::text::Text;
use crate::pg::transaction::must_be_writable;

/// Number of rejects in memory at a time, masked and unmasked. It is one, because an event may be as large as Postgres
/// allows a value to be.
const FETCHED: i64 = 1;

/// The rejects to take: those that meet all given conditions.
pub(crate) struct Wanted<'a> {
    /// A text that the reason must contain.
    pub(crate) reason: Option<&'a str>,
    pub(crate) rejected_before: Option<TimestampWithTimeZone>,
    pub(crate) rejected_after: Option<TimestampWithTimeZone>,
    pub(crate) message_ids: Option<Array<'a, Uuid>>,
    /// Maximum number to take, oldest first.
    pub(crate) most: Option<i32>,
}

/// Takes rejects and puts them into the inbox with this view. `schema` is the extension's.
pub(crate) fn redrive(
    view: pg_sys::Oid,
    schema: pg_sys::Oid,
    wanted: Wanted<'_>,
) -> Result<(i64, Counts), Error> {
    must_be_writable(c"redrive_rejects()");
    // A reader's function in an index would otherwise unmask under the settings of the session that analyzes it.
    if is_restricted_operation() {
        return Err(Error::UnmaskRestricted);
    }
    may_insert(view);
    let attached = Attached::lock(view, schema)?;
    if !may_call(attached.owner, schema, c"unmask_pii", &[pg_sys::TEXTOID]) {
        return Err(Error::OwnerMayNotUnmask { inbox: name_of(view) });
    }
    let inbox = Inbox::ready(view, attached.owner, attached.trigger, &attached.argument)?;
    alone_with_its_rejects(view, attached.function, &inbox)?;
    // Another server commits its part first. If this one then fails, the rejects are gone and nothing is stored.
    if let Some(relation) = foreign(&Relation::open(inbox.rejects_oid)?.tree()?)? {
        return Err(Error::ForeignRejects { relation: name_of(relation) });
    }
    make_constraints_immediate();
    batch::open(view);
    // The caller has no right to the values, and triggers of the target can print one.
    let taken = unheard(|| {
        let taken = as_owner(attached.owner, || put_back(view, &attached, &inbox, wanted))?;
        batch::flush(view, attached.owner)?;
        Ok::<_, Error>(taken)
    })?;
    Ok((taken, batch::close(view, attached.owner)?))
}

/// Takes rejects and appends them to the open batch. Returns their number.
fn put_back(
    view: pg_sys::Oid,
    attached: &Attached,
    inbox: &Rc<Inbox>,
    wanted: Wanted<'_>,
) -> Result<i64, Error> {
    let mut taken = 0;
    // Postgres calls functions of a policy when it plans, and their words can be about a value.
    let cursor = stripped(|| take(inbox, wanted));
    loop {
        let fetched = next(&cursor, |message| {
            let by = || BatchContext::new(Rc::clone(inbox), attached.owner, attached.function);
            batch::append(view, attached.owner, by, || Ok(message))
        })?;
        taken += fetched;
        if fetched < FETCHED {
            return Ok(taken);
        }
    }
}

/// Checks that no other inbox writes to the rejects table. A reject does not record its inbox. With a shared table, one
/// inbox would take the other's rejects. It would fill its own target with what its rules make of them. A table is shared
/// via its partitions and inheriting tables too.
fn alone_with_its_rejects(view: pg_sys::Oid, function: pg_sys::Oid, inbox: &Inbox) -> Result<(), Error> {
    let others = select(
        "WITH RECURSIVE above(relation) AS (
             SELECT $2 UNION SELECT inhparent FROM above JOIN pg_catalog.pg_inherits ON inhrelid = relation
         ), below(relation) AS (
             SELECT $2 UNION SELECT inhrelid FROM below JOIN pg_catalog.pg_inherits ON inhparent = relation
         )
         SELECT t.tgrelid FROM pg_catalog.pg_depend d
         JOIN pg_catalog.pg_rewrite w ON w.oid = d.objid AND d.classid = 'pg_catalog.pg_rewrite'::pg_catalog.regclass
         JOIN pg_catalog.pg_trigger t ON t.tgrelid = w.ev_class AND t.tgfoid = $1
         -- Anyone can make a view with this trigger. One whose owner cannot write rejects is no inbox with them.
         JOIN pg_catalog.pg_class v ON v.oid = w.ev_class
              AND pg_catalog.has_table_privilege(v.relowner, d.refobjid, 'INSERT')
         WHERE d.refclassid = 'pg_catalog.pg_class'::pg_catalog.regclass AND w.ev_class <> $3
           AND d.refobjid IN (SELECT relation FROM above UNION SELECT relation FROM below)
         LIMIT 1",
        &[function.into(), inbox.rejects_oid.into(), view.into()],
        |row| row.get::<pg_sys::Oid>(1),
    )?;
    match others.into_iter().flatten().next() {
        None => Ok(()),
        Some(other) => Err(Error::SharedRejects { inbox: name_of(view), other: name_of(other) }),
    }
}

/// Opens a cursor that deletes the rejects and returns them, and returns the cursor's name.
///
/// Rejects that another session is taking are left to it. A reject is identified by its TID, because it may have no id, and
/// by its table, because there may be partitions.
fn take(inbox: &Rc<Inbox>, wanted: Wanted<'_>) -> Result<String, Error> {
    let rejects = inbox.rejects.relation();
    let sql = format!(
        "WITH chosen AS MATERIALIZED (
            SELECT tableoid AS part, ctid AS place FROM {rejects}
            WHERE ($1 IS NULL OR pg_catalog.strpos(reason::pg_catalog.text COLLATE pg_catalog.\"C\", $1) > 0)
              AND ($2 IS NULL OR rejected_at < $2)
              AND ($3 IS NULL OR rejected_at >= $3)
              AND ($4 IS NULL OR message_id = ANY ($4))
            ORDER BY rejected_at LIMIT $5 FOR UPDATE SKIP LOCKED
         )
         DELETE FROM {rejects} AS taken USING chosen
         WHERE taken.tableoid = chosen.part AND taken.ctid = chosen.place
         RETURNING taken.message_id::pg_catalog.uuid,
                   -- Where it is not known when a message was sent, that is when it came, and not when it is redriven.
                   coalesce(taken.sent_at::pg_catalog.timestamptz, taken.rejected_at::pg_catalog.timestamptz),
                   taken.masked_body::pg_catalog.text"
    );
    let arguments: [DatumWithOid<'_>; 5] = [
        wanted.reason.into(),
        wanted.rejected_before.into(),
        wanted.rejected_after.into(),
        wanted.message_ids.into(),
        wanted.most.into(),
    ];
    let types = arguments.each_ref().map(DatumWithOid::oid);
    Ok(Plan::prepare(&Bound::to(inbox.rejects_oid), &sql, &types)?.open_cursor(&arguments))
}

/// Passes the next rejects, unmasked, to `put`, and returns their number. Makes a new SPI connection for that, because
/// memory is freed when a connection ends.
fn next(cursor: &str, mut put: impl FnMut(InboxRow<'_>) -> Result<(), Error>) -> Result<i64, Error> {
    Spi::connect_mut(|client| {
        let mut cursor = client.find_cursor(cursor)?;
        // A trigger of the rejects table, or a policy, can quote the reject.
        let rejects = stripped(|| Ok(cursor.fetch(FETCHED)?));
        // Shuts this cursor too. After an error, it is opened again before the cursor is closed.
        let shut = Shut::all()?;
        let mut fetched = 0;
        for reject in rejects {
            let id = reject.get::<Uuid>(1)?;
            let unmask = |mask: Text| {
                unmask(mask.as_bytes()).map_err(|why| why.of_reject(id.map(|id| id.to_string())))
            };
            let body = reject.get::<Text>(3)?.map(unmask).transpose()?;
            put(InboxRow {
                id: id.map(|id| *id),
                sent_at: reject.get::<TimestampWithTimeZone>(2)?.map(i64::from),
                body: body.as_ref().map(Text::as_str).transpose()?,
            })?;
            fetched += 1;
        }
        drop(shut);
        if fetched == FETCHED {
            // Otherwise the cursor is closed here, and its memory is freed.
            cursor.detach_into_name();
        }
        Ok(fetched)
    })
}
