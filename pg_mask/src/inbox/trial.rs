//! The trial: writes a row to an inbox's target as a flush does, and rolls it back. It tells a fault of the set-up from a
//! fault of an event.

use std::ffi::{CStr, CString};

use masking::{Kind, MaskContext, PushError, Rows, Rule};
use pgrx::memcxt::PgMemoryContexts;
use pgrx::pg_sys;
use serde_json::{Map, Value};

use crate::counts::Class;
use crate::error::Error;
use crate::inbox::attached::Attached;
use crate::inbox::batch::BatchContext;
use crate::inbox::definition::Inbox;
use crate::inbox::rejects::Rejects;
use crate::pg::catalog::{Attribute, select};
use crate::pg::log::unheard;
use crate::pg::names::quoted;
use crate::pg::plan::{Bound, Plan};
use crate::pg::random::random_id;
use crate::pg::security::{as_owner, make_constraints_immediate, may_insert};
use crate::pg::subtransaction::{SubtransactionError, rolled_back};
use crate::pg::transaction::now;
use crate::store::insert::OuterColumn;
use crate::store::sqlstate::ErrorOwner;

/// The result of a trial in which nothing failed.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Trial {
    /// A row went into the target.
    Stored,
    /// Checks of the target refused the row's values, so triggers that run after them were not tried.
    Refused,
}

/// Tries the inbox with this view. `schema` is the extension's.
pub(crate) fn try_inbox(view: pg_sys::Oid, schema: pg_sys::Oid) -> Result<Trial, Error> {
    may_insert(view);
    let attached = Attached::lock(view, schema)?;
    let inbox = Inbox::ready(view, attached.owner, attached.trigger, &attached.argument)?;
    let by = BatchContext::new(inbox, attached.owner, attached.function)?;
    make_constraints_immediate();
    // A trigger can look up a row of the target and quote it.
    as_owner(attached.owner, || Ok(run(&by.inbox, &by.masks()).unwrap_or_else(|failure| failure.raise())))
}

/// Writes one reject and one row, as the inbox's owner, and rolls both back. Fails if the set-up is at fault.
///
/// The row is made from the rules. If the target refuses it, a copy of one of the target's rows is tried, whose values have
/// already passed the target's checks.
pub(crate) fn run(inbox: &Inbox, masks: &MaskContext<'_>) -> Result<Trial, SubtransactionError> {
    let _outer = OuterColumn::keep();
    let mut memory = PgMemoryContexts::new("pg_mask trial");
    rolled_back(&mut memory, || write_reject(inbox, masks))?;
    let made = match rolled_back(&mut memory, || write(inbox, &made_row(inbox, masks)?)) {
        Ok(()) => return Ok(Trial::Stored),
        Err(failure) if failure.owner() == ErrorOwner::Statement => return Err(failure),
        Err(failure) => failure,
    };
    // The caller must not see the copied values, in an error or another message.
    let copied = rolled_back(&mut memory, || {
        unheard(|| match copied_row(inbox)? {
            Some(row) => write(inbox, &row).map(|()| true),
            None => Ok(false),
        })
    });
    match copied {
        Ok(true) => Ok(Trial::Stored),
        // A timeout, a cancellation or a lack of memory says nothing about the row. A trigger's words can quote it.
        Err(failure) if ["53", "57"].iter().any(|class| failure.state().starts_with(class)) => {
            failure.raise()
        }
        _ if made.owner() == ErrorOwner::Row => Ok(Trial::Refused),
        _ => Err(made),
    }
}

fn write(inbox: &Inbox, row: &Rows) -> Result<(), Error> {
    inbox.target.insert(row, 0..row.len()).map(drop)
}

fn write_reject(inbox: &Inbox, masks: &MaskContext<'_>) -> Result<(), Error> {
    let mut rejects = Rejects::default();
    rejects.of(Class::no_body()).add(|reject| {
        reject.null();
        reject.timestamp(now());
        reject.field(b"trial");
        let masker = inbox.rules.masker_of_rejects(masks);
        reject.written(masker.masked_len(b""), |out| masker.mask_any(b"", out));
        reject.timestamp(now());
        Ok::<_, masking::memory::OutOfMemory>(())
    })?;
    for (_, rows) in rejects.by_class() {
        inbox.rejects.insert(rows, 0..rows.len())?;
    }
    Ok(())
}

/// Makes an event with a value for each key that the rules read, and makes a row from it.
fn made_row(inbox: &Inbox, masks: &MaskContext<'_>) -> Result<Rows, Error> {
    let id = random_id();
    let mut event = Map::new();
    for (attribute, column) in inbox.attributes.iter().zip(inbox.rules.columns()) {
        let Some(key) = column.rule.key() else { continue };
        let value = match column.rule {
            Rule::Version(_) => Some(Value::from("1.0.0")),
            Rule::Mask(_) => Some(Value::from(id.as_text())),
            _ => sample(attribute, id.as_text())?,
        };
        // One key can fill several columns. A type accepts fewer values than a text column does.
        if let Some(value) = value
            && (!attribute.is_text() || !event.contains_key(key))
        {
            event.insert(key.to_owned(), value);
        }
    }
    let body = Value::Object(event).to_string();
    let message = masking::Event { id: Some(id.0), sent_at: now(), body: &body };
    let mut rows = inbox.rules.rows();
    match inbox.rules.push_event(&message, masks, &mut rows) {
        Ok(()) => Ok(rows),
        Err(PushError::OutOfMemory) => Err(Error::OutOfMemory),
        Err(PushError::Reject(_)) => Err(Error::TrialRefused),
    }
}

/// Returns a value that a column's type accepts, or none for a type without a common one. Texts contain `unique`, so that
/// trials of several sessions do not wait for each other.
fn sample(attribute: &Attribute, unique: &str) -> Result<Option<Value>, Error> {
    let base = attribute.base;
    let value = match base {
        pg_sys::JSONOID | pg_sys::JSONBOID => return Ok(Some(Value::Object(Map::new()))),
        pg_sys::UUIDOID => unique.to_owned(),
        pg_sys::XMLOID => "<trial/>".to_owned(),
        pg_sys::INT4MULTIRANGEOID
        | pg_sys::INT8MULTIRANGEOID
        | pg_sys::NUMMULTIRANGEOID
        | pg_sys::DATEMULTIRANGEOID
        | pg_sys::TSMULTIRANGEOID
        | pg_sys::TSTZMULTIRANGEOID => "{}".to_owned(),
        _ => match attribute.category() {
            pg_sys::TYPCATEGORY_STRING => {
                unique.chars().take(attribute.limit().unwrap_or(usize::MAX)).collect()
            }
            pg_sys::TYPCATEGORY_NUMERIC => "1".to_owned(),
            pg_sys::TYPCATEGORY_BOOLEAN => "true".to_owned(),
            pg_sys::TYPCATEGORY_DATETIME => "2000-01-01 00:00:00+00".to_owned(),
            pg_sys::TYPCATEGORY_TIMESPAN => "1 s".to_owned(),
            pg_sys::TYPCATEGORY_NETWORK => "192.0.2.1".to_owned(),
            pg_sys::TYPCATEGORY_ARRAY => "{}".to_owned(),
            pg_sys::TYPCATEGORY_RANGE => "empty".to_owned(),
            pg_sys::TYPCATEGORY_BITSTRING => {
                "1".repeat(usize::try_from(attribute.base_typmod).unwrap_or(1).max(1))
            }
            pg_sys::TYPCATEGORY_ENUM => return Ok(first_label(base)?.map(Value::from)),
            _ => return Ok(None),
        },
    };
    Ok(Some(Value::from(value)))
}

fn first_label(enum_type: pg_sys::Oid) -> Result<Option<String>, Error> {
    let labels = select(
        "SELECT enumlabel::text FROM pg_catalog.pg_enum WHERE enumtypid = $1 ORDER BY enumsortorder LIMIT 1",
        &[enum_type.into()],
        |row| row.text(1),
    )?;
    Ok(labels.into_iter().flatten().next())
}

/// Copies a row of the target, with a new id and the current time. Returns none if the target has no row, or isn't a table.
fn copied_row(inbox: &Inbox) -> Result<Option<Rows>, Error> {
    let Some(values) = any_row(inbox)? else { return Ok(None) };
    let (id, now) = (random_id(), now());
    let mut rows = inbox.rules.rows();
    rows.add(|row| {
        for (column, value) in inbox.rules.columns().iter().zip(&values) {
            match (&column.rule, column.rule.kind()) {
                (Rule::MessageId, _) => row.field(&id.0),
                (Rule::SentAt, _) => row.timestamp(now),
                (Rule::SentDate, _) => row.integer(masking::date(now)),
                (_, Kind::Integer) => {
                    let number = value.as_ref().and_then(|value| value.to_str().ok()?.parse().ok());
                    match number {
                        Some(number) => row.integer(number),
                        None => row.null(),
                    }
                }
                _ => row.optional(value.as_deref().map(CStr::to_bytes)),
            }
        }
        Ok::<_, masking::memory::OutOfMemory>(())
    })?;
    Ok(Some(rows))
}

/// Returns the values of one row of the target as texts, in the order of the rules.
fn any_row(inbox: &Inbox) -> Result<Option<Vec<Option<CString>>>, Error> {
    if !inbox.sees_index {
        return Ok(None);
    }
    let names: Vec<&str> = inbox.attributes.iter().map(|attribute| attribute.name.as_str()).collect();
    let sql = format!("SELECT {} FROM {} LIMIT 1", quoted(&names), inbox.target.relation());
    let mut found = None;
    Plan::prepare(&Bound::to(inbox.target_oid), &sql, &[])?.run(&[], false, |row| {
        found = Some((1..).take(names.len()).map(|column| row.text(column)).collect());
        Ok(())
    })?;
    Ok(found)
}
