//! Redriving: rejects put back into their inbox once their cause is mended.
//!
//! Taking them and unmasking them is done with the rights of the inbox's owner, and so must never show anything to the caller,
//! who may have no more than `INSERT` on the inbox. Hence there is no `INSERT` on the view here, where a trigger that was put on
//! it would see the events, and so would a relation that came to have its name meanwhile: they go one by one from the mask into the batch,
//! which masks them again. What Postgres keeps of the rejects that are taken, be it in a temporary file, is masks.

use pgrx::datum::{Array, DatumWithOid, TimestampWithTimeZone, Uuid};
use pgrx::pg_sys;
use pgrx::prelude::*;

use crate::attached::Attached;
use crate::batch::{self, By, Counts, Message, name_of};
use crate::catalog::select;
use crate::cursors::Shut;
use crate::error::Error;
use crate::inbox::Inbox;
use crate::plan::{Bound, Plan};
use crate::security::{as_owner, is_restricted_operation, make_constraints_immediate, may_call, may_insert};
use crate::text::Text;
use crate::unmask;

/// So many rejects are in memory at a time, masked and unmasked: nothing bounds the size of an event but Postgres.
const FETCHED: i64 = 1;

/// Which rejects to take: those that meet all conditions that there are.
pub(crate) struct Wanted<'a> {
    /// A text that stands in the reason.
    pub(crate) reason: Option<&'a str>,
    pub(crate) rejected_before: Option<TimestampWithTimeZone>,
    pub(crate) rejected_after: Option<TimestampWithTimeZone>,
    pub(crate) message_ids: Option<Array<'a, Uuid>>,
    /// The most to take, the oldest first.
    pub(crate) most: Option<i32>,
}

/// Takes rejects and puts them into the inbox with this view. `schema` is the extension's.
pub(crate) fn redrive(
    view: pg_sys::Oid,
    schema: pg_sys::Oid,
    wanted: Wanted<'_>,
) -> Result<(i64, Counts), Error> {
    #[expect(unsafe_code, reason = "calls Postgres")]
    // SAFETY: a C string. On a standby, and in a transaction that is read-only, it raises what other commands raise there.
    unsafe {
        pg_sys::PreventCommandIfReadOnly(c"redrive_rejects()".as_ptr());
    }
    // A reader's function in an index would unmask under the settings of the session that analyzes it.
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
    make_constraints_immediate();
    batch::open(view);
    let taken = as_owner(attached.owner, || {
        let mut taken = 0;
        let cursor = take(&inbox, wanted)?;
        loop {
            let fetched = next(&cursor, |message| {
                let by = || By::new(inbox.clone(), attached.owner, attached.function);
                batch::append(view, attached.owner, by, || message)
            })?;
            taken += fetched;
            if fetched < FETCHED {
                break;
            }
        }
        Ok::<_, Error>(taken)
    })?;
    Ok((taken, batch::close(view, attached.owner)?))
}

/// A reject does not say which inbox it is of: from a table that two of them share, one would take the other's, and fill its own
/// target with what its rules make of them. A table shares with its partitions, and with those that inherit from it.
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

/// Opens a cursor over the rejects that it deletes, and gives its name.
///
/// Rejects that another session is taking are left to it. A reject is known by its place, since it may have no id; and the place by
/// its table, since there may be partitions.
fn take(inbox: &Inbox, wanted: Wanted<'_>) -> Result<String, Error> {
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

/// Hands over the next rejects, unmasked, and returns how many they were. Connects anew for that, as memory is freed when a
/// connection ends.
fn next(cursor: &str, mut put: impl FnMut(Message<'_>) -> Result<(), Error>) -> Result<i64, Error> {
    Spi::connect_mut(|client| {
        let mut cursor = client.find_cursor(cursor)?;
        let rejects = cursor.fetch(FETCHED)?;
        // This one, too. After an error it opens before the cursor is closed.
        let shut = Shut::all()?;
        let mut fetched = 0;
        for reject in rejects {
            let id = reject.get::<Uuid>(1)?;
            let unmask = |mask| unmask(mask).map_err(|why| why.of_reject(id.map(|id| id.to_string())));
            let body = reject.get::<&str>(3)?.map(unmask).transpose()?;
            put(Message {
                id: id.map(|id| *id),
                sent_at: reject.get::<TimestampWithTimeZone>(2)?.map(i64::from),
                body: body.as_ref().map(Text::as_str),
            })?;
            fetched += 1;
        }
        drop(shut);
        if fetched == FETCHED {
            // Or else it is closed here, and what it keeps is gone.
            cursor.detach_into_name();
        }
        Ok(fetched)
    })
}
