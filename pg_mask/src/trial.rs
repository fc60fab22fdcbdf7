//! The trial: a row written to an inbox's target as a flush writes it, and rolled back. It tells a fault of the set-up from
//! a fault of an event.

use std::ffi::{CStr, CString};

use masking::{Kind, Masks, PushError, Rows, Rule};
use pgrx::memcxt::PgMemoryContexts;
use pgrx::pg_sys;
use serde_json::{Map, Value};

use crate::attached::Attached;
use crate::batch::{By, now};
use crate::catalog::{Attribute, select};
use crate::error::{Error, Raise, quoted};
use crate::flush::{ErrorOwner, Failure, rolled_back};
use crate::inbox::Inbox;
use crate::plan::{Bound, Plan};
use crate::rejects::{Class, Rejects};
use crate::security::{as_owner, make_constraints_immediate, may_insert, with_settings};

const QUIET: (&CStr, &CStr) = (c"client_min_messages", c"error");

/// The result of a trial in which nothing failed.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Trial {
    /// A row went into the target.
    Stored,
    /// Checks of the target refused the row for its values, so triggers after them were not tried.
    Refused,
}

/// Tries the inbox with this view. `schema` is the extension's.
pub(crate) fn try_inbox(view: pg_sys::Oid, schema: pg_sys::Oid) -> Result<Trial, Error> {
    may_insert(view);
    let attached = Attached::lock(view, schema)?;
    let inbox = Inbox::ready(view, attached.owner, attached.trigger, &attached.argument)?;
    let by = By::new(inbox, attached.owner, attached.function)?;
    make_constraints_immediate();
    as_owner(attached.owner, || match run(&by.inbox, &by.masks()) {
        Ok(trial) => Ok(trial),
        Err(failure) => failure.error.rethrow(),
    })
}

/// Tries to write one reject and one row, as the inbox's owner, and rolls both back. Fails if the set-up does.
///
/// The row is made from the rules. If the target refuses it, a copy of a row that the target has is tried: its values have
/// passed the target's checks before.
pub(crate) fn run(inbox: &Inbox, masks: &Masks<'_>) -> Result<Trial, Failure> {
    let mut memory = PgMemoryContexts::new("pg_mask trial");
    rolled_back(&mut memory, || write_reject(inbox, masks).or_raise())?;
    let made = match rolled_back(&mut memory, || write(inbox, &made_row(inbox, masks).or_raise())) {
        Ok(()) => return Ok(Trial::Stored),
        Err(failure) if failure.owner() == ErrorOwner::Statement => return Err(failure),
        Err(failure) => failure,
    };
    // Its values are not the caller's to see, in an error or a notice.
    let copied = rolled_back(&mut memory, || {
        with_settings(&[QUIET], || match copied_row(inbox).or_raise() {
            Some(row) => {
                write(inbox, &row);
                true
            }
            None => false,
        })
    });
    match copied {
        Ok(true) => Ok(Trial::Stored),
        _ if made.owner() == ErrorOwner::Row => Ok(Trial::Refused),
        _ => Err(made),
    }
}

fn write(inbox: &Inbox, row: &Rows) {
    inbox.target.insert(row, 0..row.len()).or_raise();
}

fn write_reject(inbox: &Inbox, masks: &Masks<'_>) -> Result<(), Error> {
    let mut rejects = Rejects::default();
    rejects.of(Class::no_body()).add(|reject| {
        reject.null();
        reject.timestamp(now());
        reject.field(b"trial");
        let masker = inbox.rules.masker_of_rejects(masks);
        reject.written(masker.masked_len(b""), |out| masker.mask_anew(b"", out));
        reject.timestamp(now());
        Ok::<_, masking::memory::OutOfMemory>(())
    })?;
    for (_, rows) in rejects.by_class() {
        inbox.rejects.insert(rows, 0..rows.len())?;
    }
    Ok(())
}

/// Makes an event with a value for each key that the rules read, and from it a row.
fn made_row(inbox: &Inbox, masks: &Masks<'_>) -> Result<Rows, Error> {
    let id = random();
    let mut event = Map::new();
    for (attribute, column) in inbox.attributes.iter().zip(inbox.rules.columns()) {
        let Some(key) = column.rule.key() else { continue };
        let value = match column.rule {
            Rule::Version(_) => Some(Value::from("1.0.0")),
            Rule::Mask(_) => Some(Value::from(id.as_text())),
            _ => sample(attribute, id.as_text())?,
        };
        // One key can fill several columns. A type is pickier than a text.
        if let Some(value) = value
            && (!attribute.is_text() || !event.contains_key(key))
        {
            event.insert(key.to_owned(), value);
        }
    }
    let body = Value::Object(event).to_string();
    let message = masking::Message { id: Some(id.0), sent_at: now(), body: &body };
    let mut rows = inbox.rules.rows();
    match inbox.rules.push_event(&message, masks, &mut rows) {
        Ok(()) => Ok(rows),
        Err(PushError::OutOfMemory) => Err(Error::OutOfMemory),
        Err(PushError::Reject(_)) => Err(Error::TrialRefused),
    }
}

/// Returns a value that a column's type takes; none for a type without a common one. `unique` goes into texts, so that
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
        _ => {
            let (mut category, mut preferred) = (0, false);
            #[expect(unsafe_code, reason = "calls Postgres")]
            // SAFETY: pointers to locals; the type is that of a column.
            unsafe {
                pg_sys::get_type_category_preferred(base, &raw mut category, &raw mut preferred);
            }
            match category.cast_unsigned() {
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
            }
        }
    };
    Ok(Some(Value::from(value)))
}

fn first_label(enum_type: pg_sys::Oid) -> Result<Option<String>, Error> {
    let labels = select(
        "SELECT enumlabel::text FROM pg_catalog.pg_enum WHERE enumtypid = $1 ORDER BY enumsortorder LIMIT 1",
        &[enum_type.into()],
        |row| row.get::<String>(1),
    )?;
    Ok(labels.into_iter().flatten().next())
}

/// Copies a row of the target, with a new id and the time of now. None where it has no row, or is no table.
fn copied_row(inbox: &Inbox) -> Result<Option<Rows>, Error> {
    let Some(values) = any_row(inbox)? else { return Ok(None) };
    let (id, now) = (random(), now());
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

/// Returns the values of a row of the target as texts, in the order of the rules.
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

/// A random UUID, and its text.
pub(crate) struct RandomId([u8; 16], String);

impl RandomId {
    pub(crate) fn as_text(&self) -> &str {
        &self.1
    }
}

pub(crate) fn random() -> RandomId {
    #[expect(unsafe_code, reason = "calls Postgres")]
    // SAFETY: the function takes no arguments and returns a UUID.
    let id = unsafe { pgrx::direct_function_call::<pgrx::Uuid>(pg_sys::gen_random_uuid, &[]) };
    let id = id.unwrap_or(pgrx::Uuid::from_bytes([0; 16]));
    RandomId(*id, id.to_string())
}
